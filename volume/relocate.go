package volume

import (
	"slices"

	"yakumo/fault"
	"yakumo/model"
	"yakumo/store"
)

// relocate begins a volume's way to another host or engine under the guest that has it; at are the hosts that could have it there, the best first. The caller sets the state.
func (v *Volumes) relocate(tx *store.Tx, x *model.Volume, engine string, typeID model.ID, at []model.ID) error {
	tx.Guard(sourceMark(x.ID)) // nor is it being copied
	switch {
	case x.MultiAttach || len(x.Attachments) > 1:
		return fault.New(fault.Invalid, "Invalid volume: Volume %s is in use and multiattach, and is not moved while several servers may have it.", x.ID)
	case x.Status.State != InUse:
		return fault.New(fault.Invalid, "Invalid volume: Volume %s status must be available or in-use and must not be migrating, but current status is: %s.", x.ID, x.Status.State)
	case x.Relocation != nil, x.Change != nil:
		return leftover(x)
	case copying(tx, x.ID):
		return fault.New(fault.Invalid, "Invalid volume: Volume %s is being copied to another.", x.ID)
	case store.VolumeSnapshots.Count(tx, "volume", x.ID) > 0:
		return fault.New(fault.Invalid, "Invalid volume: Volume %s must not have snapshots to be migrated.", x.ID)
	}
	s, err := v.user(tx, x)
	if err != nil {
		return err
	}
	h, ok := store.Hosts.Get(tx, s.Host)
	switch {
	case !ok || !store.HostUp(tx, h):
		return fault.New(fault.Conflict, "Cannot 'swap_volume' instance %s: its host is down.", s.ID)
	case !slices.Contains(h.Engines, engine) && engine != model.EngineLocal:
		return fault.New(fault.Invalid, "Invalid volume: No valid backend was found to move volume %s to: host %s, whose guest has it, has not the engine %s.", x.ID, h.Name, engine)
	}
	host := at[0]
	if slices.Contains(at, s.Host) { // where its guest is
		host = s.Host
	}
	tx.Mark(store.HostGuard(host))
	x.Relocations++
	x.Relocation = &model.Relocation{Number: x.Relocations, Stage: model.RelocateMaking, ServerID: s.ID, Host: host, Engine: engine, TypeID: typeID}
	x.Status.Migration, x.Status.Fault = Migrating, nil
	v.log.Info("a volume is to go elsewhere under its guest", "volume", x.ID, "server", s.ID, "from", x.Engine, "to", engine, "host", host)
	return nil
}

// user gives the running server that has a volume, and nothing else to do.
func (v *Volumes) user(tx *store.Tx, x *model.Volume) (*model.Server, error) {
	id := guestOf(tx, x)
	s, ok := store.Servers.Get(tx, id)
	if id == "" || !ok {
		return nil, fault.New(fault.Invalid, "Invalid volume: Volume %s is in use by another system than this cloud's servers, and is not moved under it. Detach it first.", x.ID)
	}
	on := func(p model.Power) bool { return p == model.PowerRunning || p == model.PowerPaused }
	switch {
	case s.Status.Task != "":
		return nil, fault.New(fault.Conflict, "Cannot 'swap_volume' instance %s while it is in task_state %s", s.ID, s.Status.Task)
	case s.Deleted || s.Move != nil || s.Host == "" || s.Status.Phase != model.PhaseReady || !on(s.Power) || !on(s.Status.Power):
		return nil, fault.New(fault.Conflict, "Cannot 'swap_volume' instance %s: a volume is moved under a server that runs or is paused. Start it, or detach volume %s.", s.ID, x.ID)
	}
	return s, nil
}

// Elsewhere brings in what the host of a server says of a disk that is to go elsewhere.
func (v *Volumes) Elsewhere(tx *store.Tx, server model.ID, r model.DiskReport) error {
	old, ok := store.Volumes.Get(tx, r.VolumeID)
	if !ok || !old.Relocating() || old.Relocation.Number != r.Number || old.Relocation.ServerID != server || old.Relocation.Stage == model.RelocateMaking {
		return nil
	}
	x, turning := copyOf(old), old.Relocation.Stage == model.RelocateTurning
	switch {
	case r.State == model.DiskFailed:
		v.notRelocated(x, r.Fault)
	case r.State == model.DiskNear && !turning:
		if s, ok := store.Servers.Get(tx, server); !ok || s.Deleted || s.Move != nil {
			v.notRelocated(x, &model.Fault{Code: 409, Message: "The server that has the volume went elsewhere."})
			break
		}
		x.Relocation.Stage = model.RelocateTurning
	case r.State == model.DiskTurned && turning:
		n := *old.Relocation
		x.Relocation = &model.Relocation{Number: n.Number, Stage: model.RelocateClearing, ServerID: server, Host: old.Host, Engine: old.Engine}
		x.Host, x.Engine, x.Seat = n.Host, n.Engine, n.Number
		if n.TypeID != "" {
			x.TypeID = n.TypeID
		}
		if h, ok := store.Hosts.Get(tx, x.Host); ok {
			x.Zone = h.Zone
		}
		x.Status.State, x.Status.Migration = settled(x), MigrationDone
		v.log.Info("a volume is elsewhere under its guest", "volume", x.ID, "server", server, "from", old.Host, "from_engine", old.Engine, "to", x.Host, "engine", x.Engine, "request_id", x.RequestID)
	default:
		return nil
	}
	x.Touch(v.now())
	return store.Volumes.Put(tx, x)
}

// notRelocated ends a relocation: the volume is where it was.
func (v *Volumes) notRelocated(x *model.Volume, f *model.Fault) {
	n := *x.Relocation
	x.Relocation = &model.Relocation{Number: n.Number, Stage: model.RelocateClearing, ServerID: n.ServerID, Host: n.Host, Engine: n.Engine}
	x.Status.State, x.Status.Migration = settled(x), MigrationFailed
	if f != nil {
		c := *f
		c.At = v.now()
		x.Status.Fault = &c
		v.log.Warn("a volume did not get elsewhere under its guest", "volume", x.ID, "server", n.ServerID, "to", n.Host, "engine", n.Engine, "fault", c.Message, "details", c.Details, "request_id", x.RequestID)
	}
}

// placed brings in what the host of a place says that a volume is to have, or to have had.
func (v *Volumes) placed(tx *store.Tx, old *model.Volume, r *model.VolumeReport) error {
	n, x := old.Relocation, copyOf(old)
	switch {
	case n.Stage == model.RelocateMaking && r.Refused == n.Number:
		v.notRelocated(x, r.PlaceFault)
	case n.Stage == model.RelocateMaking && r.Placed == n.Number:
		x.Relocation.Stage = model.RelocateCopying
	case n.Stage == model.RelocateClearing && r.Vacated == n.Number:
		x.Relocation = nil
	default:
		return nil
	}
	x.Touch(v.now())
	return store.Volumes.Put(tx, x)
}

// lostUser tells whether the host of the guest that has a volume is known to be off: it will not say any more where the volume is, and an administrator may.
func lostUser(r store.Reader, x *model.Volume) bool {
	s, ok := store.Servers.Get(r, x.Relocation.ServerID)
	if !ok {
		return true
	}
	h, ok := store.Hosts.Get(r, s.Host)
	if !ok {
		return true
	}
	_, heard := store.Heartbeats.Get(r, h.ID)
	return h.ForcedDown || !heard && !h.FencedAt.IsZero()
}

// StayVolume ends a volume's way elsewhere under a guest that is about to end, or to be started anew on another host. Nothing to end is a success.
//
// Errors: fault.Conflict where only the guest's host knows where the volume is.
func (v *Volumes) StayVolume(tx *store.Tx, id model.ID) error {
	old, ok := store.Volumes.Get(tx, id)
	if !ok || !old.Relocating() {
		return nil
	}
	if old.Relocation.Stage == model.RelocateTurning {
		return fault.New(fault.Conflict, "Invalid volume: Volume %s is being exchanged under its server at this moment. Try again.", id)
	}
	x := copyOf(old)
	v.notRelocated(x, &model.Fault{Code: 409, Message: "The server that has the volume ended, or lost its host."})
	x.Touch(v.now())
	return store.Volumes.Put(tx, x)
}
