package volume

import (
	"cmp"

	"yakumo/fault"
	"yakumo/model"
	"yakumo/store"
)

// Retype gives a volume another type. Where that is of another engine, and move says that the volume may go there, its host copies it: it keeps its type and is where it was until
// the copy is there, or, where a guest has it, until that uses the copy; and Status.Migration tells how that goes.
//
// Errors: fault.NotFound; fault.Conflict for a server that does something else; fault.Invalid for another state, the same type, one of another engine without move, or a volume that cannot go there; fault.OverQuota.
func (v *Volumes) Retype(tx *store.Tx, sc Scope, id model.ID, name string, move bool) (*model.Volume, error) {
	old, err := Get(tx, sc, id)
	if err != nil {
		return nil, err
	}
	t, err := FindType(tx, sc, name)
	if err != nil {
		return nil, err
	}
	engine := cmp.Or(EngineOf(t), v.cfg.Engine)
	return v.change(tx, sc, id, engine != old.Engine, func(x *model.Volume) error {
		switch {
		case x.Status.State != Available && x.Status.State != InUse || x.Deleted:
			return fault.New(fault.Invalid, "Invalid volume: Volume status must be available or in-use to retype, but current status is: %s.", x.Status.State)
		case t.ID == x.TypeID:
			return fault.New(fault.Invalid, "Invalid input received: Retype not needed; volume already of type %s.", t.Name)
		case engine != x.Engine && !move:
			return fault.New(fault.Invalid, "Invalid input received: Retype requires migration but is not allowed: the type is of the engine %s, the volume of %s.", engine, x.Engine)
		case engine != x.Engine && x.Relocation != nil:
			return leftover(x)
		case MultiAttach(t) != x.MultiAttach && x.Status.State == InUse:
			return fault.New(fault.Invalid, "Invalid input received: Invalid volume_type passed: a volume that is in use cannot change whether it is multiattach.")
		}
		if err := v.spendType(tx, x, t.Name); err != nil {
			return err
		}
		tx.Mark(typeMark(t.ID))
		if engine == x.Engine {
			x.TypeID, x.MultiAttach = t.ID, MultiAttach(t)
			return nil
		}
		return v.toEngine(tx, x, engine, t.ID)
	})
}

// toEngine begins a volume's way to another engine: on its own host where that has both, and else, where others reach the volume too, on one that has.
func (v *Volumes) toEngine(tx *store.Tx, x *model.Volume, engine string, typeID model.ID) error {
	tx.Guard(sourceMark(x.ID)) // nor is it being copied
	switch {
	case x.Change != nil, x.Relocation != nil:
		return leftover(x)
	case copying(tx, x.ID):
		return fault.New(fault.Invalid, "Invalid volume: Volume %s is being copied to another.", x.ID)
	case store.VolumeSnapshots.Count(tx, "volume", x.ID) > 0:
		return fault.New(fault.Invalid, "Invalid volume: Volume must not have snapshots.")
	}
	under := len(x.Attachments) > 0 // a guest, which reaches what its host does
	reaches := map[model.ID]bool{}
	for _, r := range Rooms(tx, x.Engine) {
		reaches[r.Host.ID] = r.Host.ID == x.Host || x.Engine != model.EngineLocal
	}
	var near []Room
	for _, r := range Rooms(tx, engine) {
		if reaches[r.Host.ID] || under {
			near = append(near, r)
		}
	}
	best, why := choose(near, x)
	if len(near) == 0 {
		why = "no host that reaches the volume has the engine " + engine
	}
	if best == nil {
		return fault.New(fault.Invalid, "Invalid volume: No valid backend was found to move volume %s to: %s.", x.ID, why)
	}
	for i := range near { // no need for another host
		if r := &near[i]; r.Host.ID == x.Host && r.Up && r.Host.Zone == x.Zone && r.Free >= x.SizeGiB {
			best = r
		}
	}
	if under {
		at := []model.ID{best.Host.ID}
		for i := range near {
			if r := &near[i]; r.Up && r.Host.Zone == x.Zone && r.Free >= x.SizeGiB {
				at = append(at, r.Host.ID)
			}
		}
		err := v.relocate(tx, x, engine, typeID, at)
		x.Status.State = Retyping
		return err
	}
	tx.Mark(store.HostGuard(best.Host.ID))
	x.Host, x.Change = best.Host.ID, &model.EngineChange{Engine: engine, TypeID: typeID}
	x.Status.State, x.Status.Migration, x.Status.Fault = Retyping, Migrating, nil
	return nil
}

// leftover refuses what has to wait until an engine is rid of the volume.
func leftover(x *model.Volume) error {
	if x.Relocating() {
		return fault.New(fault.Invalid, "Invalid volume: Volume %s must not be migrating.", x.ID)
	}
	engine := ""
	if x.Change != nil {
		engine = x.Change.Engine
	} else if x.Relocation != nil {
		engine = x.Relocation.Engine
	}
	return fault.New(fault.Invalid, "Invalid volume: Volume %s must not be migrating: a host still clears what is left of it in the engine %s. Try again.", x.ID, engine)
}

// changeReported brings in how far a volume's host is with its way to another engine, at the newest generation.
func (v *Volumes) changeReported(tx *store.Tx, n *model.Volume, r *model.VolumeReport) error {
	c := *n.Change
	left := model.EngineChange{Engine: c.Engine, Clear: true}
	switch {
	case c.Clear && r.Cleared == c.Engine:
		n.Change = nil
		n.Touch(v.now())
		return nil
	case c.Clear:
		return nil
	case r.Fault != nil:
		f := *r.Fault
		f.At = v.now()
		n.Status.Migration, n.Status.Fault = MigrationFailed, &f
		v.log.Warn("a volume did not get to another engine", "volume", n.ID, "from", n.Engine, "to", c.Engine, "fault", f.Message, "details", f.Details, "request_id", n.RequestID)
	case r.Copied == c.Engine:
		left.Engine, n.Engine, n.TypeID, n.Seat, n.Status.Migration = n.Engine, c.Engine, c.TypeID, 0, MigrationDone
		if t, ok := store.VolumeTypes.Get(tx, c.TypeID); ok {
			n.MultiAttach = MultiAttach(t)
		}
		v.log.Info("a volume is in another engine", "volume", n.ID, "from", left.Engine, "to", n.Engine, "request_id", n.RequestID)
	default:
		return nil
	}
	n.Status.State, n.Change = settled(n), &left
	n.Touch(v.now())
	return nil
}
