package volume

import (
	"strings"

	"yakumo/fault"
	"yakumo/model"
	"yakumo/store"
)

// What Cinder shows of a move of a volume (migration_status).
const (
	Migrating       = "migrating"
	MigrationDone   = "success"
	MigrationFailed = "error"
)

// Migrate moves the bytes of a local volume to another host, under the guest that has it where one has; of administrators. The host is named as Cinder does, "name@engine#pool", or by its
// name alone. Until that host says that it has them, or the guest uses them there, the volume is where it was.
//
// Errors: fault.NotFound; fault.Conflict for a server that does something else; fault.Invalid for another state, snapshots, another engine, or a host that is none, is down or has no room.
func (v *Volumes) Migrate(tx *store.Tx, sc Scope, id model.ID, to string) (*model.Volume, error) {
	return v.change(tx, sc, id, true, func(x *model.Volume) error {
		name, rest, _ := strings.Cut(to, "@")
		engine, _, _ := strings.Cut(rest, "#")
		tx.Guard(sourceMark(id)) // nor is it being copied
		switch {
		case x.Change != nil, x.Relocation != nil:
			return leftover(x)
		case x.Status.State != Available && len(x.Attachments) == 0 || x.Deleted || copying(tx, id):
			return fault.New(fault.Invalid, "Invalid volume: Volume %s status must be available and must not be migrating or being copied, but current status is: %s.", x.ID, x.Status.State)
		case store.VolumeSnapshots.Count(tx, "volume", id) > 0:
			return fault.New(fault.Invalid, "Invalid volume: Volume %s must not have snapshots to be migrated.", x.ID)
		case x.Engine != model.EngineLocal, engine != "" && engine != x.Engine:
			return fault.New(fault.Invalid, "Invalid input received: Volumes are moved between hosts of the engine %s alone; volume %s is of %s.", model.EngineLocal, x.ID, x.Engine)
		}
		for _, room := range Rooms(tx, x.Engine) {
			switch {
			case room.Host.Name != name:
				continue
			case room.Host.ID == x.Host:
				return fault.New(fault.Invalid, "Invalid volume: Volume %s is on host %s, and destination host must be different than the current one.", x.ID, name)
			case !room.Up:
				return fault.New(fault.Invalid, "Invalid host: Host %s is down or disabled.", name)
			case !welcome(tx, x, room.Host.Zone):
				return fault.New(fault.Invalid, "Invalid host: Host %s is not in the availability zone %s.", name, x.Zone)
			case room.Free < x.SizeGiB:
				return fault.New(fault.Invalid, "Invalid host: Host %s has not enough room.", name)
			}
			if len(x.Attachments) > 0 {
				err := v.relocate(tx, x, x.Engine, "", []model.ID{room.Host.ID})
				x.Status.State = Maintenance
				return err
			}
			tx.Mark(store.HostGuard(room.Host.ID))
			x.Move = &model.VolumeMove{Host: room.Host.ID}
			x.Status.State, x.Status.Migration = Maintenance, Migrating
			return nil
		}
		return fault.New(fault.Invalid, "Invalid host: No available service named '%s'", clip(to))
	})
}

// arrived brings in what the host says to which a volume moves.
func (v *Volumes) arrived(tx *store.Tx, old *model.Volume, r *model.VolumeReport) error {
	if r.Generation != old.Generation || r.Fault == nil && !r.Ready {
		return nil
	}
	x := copyOf(old)
	x.Move = nil
	x.Touch(v.now())
	x.Status.State, x.Status.Migration = settled(x), MigrationDone
	if r.Fault != nil {
		x.Status.Migration = MigrationFailed
		v.log.Warn("a volume was not moved", "volume", x.ID, "from", x.Host, "to", old.Move.Host, "fault", r.Fault.Message, "details", r.Fault.Details, "request_id", x.RequestID)
		return store.Volumes.Put(tx, x)
	}
	// What the old host says is of no account any more; it removes what it has, having no row of it.
	x.Host, x.Seat, x.Status.SizeGiB = old.Move.Host, 0, r.SizeGiB
	if h, ok := store.Hosts.Get(tx, x.Host); ok {
		x.Zone = h.Zone
	}
	v.log.Info("a volume has moved", "volume", x.ID, "from", old.Host, "to", x.Host, "request_id", x.RequestID)
	return store.Volumes.Put(tx, x)
}
