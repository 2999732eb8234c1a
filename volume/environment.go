package volume

import (
	"cmp"
	"context"
	"errors"
	"iter"
	"slices"
	"time"

	"yakumo/fault"
	"yakumo/model"
	"yakumo/reconcile"
	"yakumo/store"
)

// Stray is a volume of an environment that is not in its zone.
type Stray struct {
	ID, Name, State string
	Moving          bool
	// Why it does not move, for people; "" where it does, or will.
	Why string
}

// Strays gives the local volumes of a project whose bytes are on hosts of other zones than the one, the moving ones first, then by name. What
// is in shared storage is nowhere in particular.
func Strays(r store.Reader, project model.ID, zone string) []Stray {
	var out []Stray
	var rooms []Room
	for x := range store.Volumes.List(r, "project", project) {
		if !strayed(r, x, zone) {
			continue
		}
		if rooms == nil {
			rooms = Rooms(r, model.EngineLocal)
		}
		s := Stray{ID: x.ID, Name: x.Name, State: x.Status.State, Moving: x.Move != nil || x.Relocating(), Why: keeps(r, x, zone, rooms)}
		out = append(out, s)
	}
	slices.SortFunc(out, func(a, b Stray) int {
		if a.Moving != b.Moving {
			if a.Moving {
				return -1
			}
			return 1
		}
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID))
	})
	return out
}

// strayed tells whether a volume's bytes are to be moved to a host of the zone.
func strayed(r store.Reader, x *model.Volume, zone string) bool {
	h, ok := store.Hosts.Get(r, x.Host)
	return ok && x.Engine == model.EngineLocal && !x.Deleted && h.Zone != zone
}

// keeps tells why a volume does not move now, "" where it moves or may. rooms are those of hosts for local volumes.
func keeps(r store.Reader, x *model.Volume, zone string, rooms []Room) string {
	h, _ := store.Hosts.Get(r, x.Host)
	switch {
	case x.Move != nil || x.Relocating():
		return ""
	case !store.HostUp(r, h):
		return "Its host is down."
	case store.VolumeSnapshots.Count(r, "volume", x.ID) > 0:
		return "It has snapshots, which are where it is."
	case x.MultiAttach || len(x.Attachments) > 1:
		return "Several servers may have it; it moves when it is detached."
	case x.Status.State != Available && x.Status.State != InUse || x.Relocation != nil:
		return "It is " + x.Status.State + "."
	}
	if len(x.Attachments) > 0 {
		if why := used(r, x, zone); why != "" {
			return why
		}
	}
	switch {
	case x.Status.Migration == MigrationFailed:
		return "It could not be moved, and is tried again."
	case target(r, x, zone, rooms) == "":
		return "No host of the zone has room for it."
	}
	return ""
}

// used tells why a volume does not move under its server now, "" where it may: it follows that.
func used(r store.Reader, x *model.Volume, zone string) string {
	s, ok := store.Servers.Get(r, guestOf(r, x))
	if !ok {
		return "Another system than this cloud's servers uses it; it moves when it is detached."
	}
	h, _ := store.Hosts.Get(r, s.Host)
	running := s.Power == model.PowerRunning || s.Power == model.PowerPaused
	switch {
	case s.Move != nil || s.Status.Task != "" || h == nil || h.Zone != zone && running:
		return "It follows its server."
	case !running:
		return "Its server does not run; it moves when that runs, or when it is detached."
	}
	return ""
}

// target gives the name of the host of a zone for a volume: that of its server, or the one with the most room; "" for none.
func target(r store.Reader, x *model.Volume, zone string, rooms []Room) string {
	name, free, at := "", 0, model.ID("")
	if s, ok := store.Servers.Get(r, guestOf(r, x)); ok {
		at = s.Host
	}
	for _, room := range rooms {
		switch {
		case !room.Up || room.Host.Zone != zone || room.Free < x.SizeGiB:
		case room.Host.ID == at:
			return room.Host.Name
		case room.Free > free:
			name, free = room.Host.Name, room.Free
		}
	}
	return name
}

// zoneOf gives the zone of a project's new volumes that ask for none.
func (v *Volumes) zoneOf(r store.Reader, project model.ID) string {
	if e, ok := store.Environments.Get(r, project); ok {
		return e.Zone
	}
	return v.cfg.Zone
}

// welcome tells whether a volume may be moved to a zone: its own, or that of its project's environment.
func welcome(r store.Reader, x *model.Volume, zone string) bool {
	e, ok := store.Environments.Get(r, x.ProjectID)
	return zone == x.Zone || ok && e.Zone == zone
}

// Relocator moves the volumes of environments to their zones, one of a project at a time.
type Relocator struct{ v *Volumes }

// Relocator gives the controller.
func (v *Volumes) Relocator() *Relocator { return &Relocator{v} }

// Name serves reconcile.Controller.
func (*Relocator) Name() string { return "volume-environments" }

// Reads serves reconcile.Controller.
func (*Relocator) Reads() []store.Kind {
	return []store.Kind{store.Environments.Kind(), store.Volumes.Kind(), store.VolumeSnapshots.Kind(), store.Servers.Kind(), store.Hosts.Kind(), store.Heartbeats.Kind()}
}

// relocatePause is how long a volume waits that could not be moved.
const relocatePause = time.Minute

// Keys gives the projects that have an environment.
func (*Relocator) Keys(snap store.Snapshot) iter.Seq[string] {
	return func(yield func(string) bool) {
		for e := range store.Environments.All(snap) {
			if !yield(e.ProjectID) {
				return
			}
		}
	}
}

// Concerns gives the project of what has changed, or all where a host has come or gone.
func (p *Relocator) Concerns(snap store.Snapshot, ch store.Change) []string {
	switch ch.Kind {
	case store.Environments.Kind():
		return []string{ch.Key}
	case store.Volumes.Kind():
		if x, ok := store.Volumes.Get(snap, ch.Key); ok {
			return []string{x.ProjectID}
		}
		return nil
	case store.Servers.Kind():
		if s, ok := store.Servers.Get(snap, ch.Key); ok && len(s.Volumes) > 0 {
			return []string{s.ProjectID}
		}
		return nil
	case store.VolumeSnapshots.Kind():
		if x, ok := ch.Old.(*model.VolumeSnapshot); ok && ch.New == nil {
			return []string{x.ProjectID}
		}
		return nil
	case store.Heartbeats.Kind():
		if ch.Old != nil && ch.New != nil {
			return nil
		}
	}
	return slices.Collect(p.Keys(snap))
}

// ReconcileKey begins the move of a project's next volume, where it may begin now.
func (p *Relocator) ReconcileKey(ctx context.Context, snap store.Snapshot, project string, w reconcile.Writer) (reconcile.Result, error) {
	var res reconcile.Result
	e, ok := store.Environments.Get(snap, project)
	if !ok {
		return res, nil
	}
	var next *model.Volume
	var rooms []Room
	for x := range store.Volumes.List(snap, "project", project) {
		if x.Move != nil || x.Relocating() {
			return res, nil // the end of that calls again
		}
		if !strayed(snap, x, e.Zone) {
			continue
		}
		if rooms == nil {
			rooms = Rooms(snap, model.EngineLocal)
		}
		failed := x.Status.Migration == MigrationFailed
		if wait := x.UpdatedAt.Add(relocatePause).Sub(p.v.now()); failed && wait > 0 {
			if res.After == 0 || wait < res.After {
				res.After = wait
			}
			continue
		}
		if (failed || keeps(snap, x, e.Zone, rooms) == "") && target(snap, x, e.Zone, rooms) != "" && (next == nil || x.ID < next.ID) {
			next = x
		}
	}
	if next == nil {
		return res, nil
	}
	_, err := w.Update(ctx, func(tx *store.Tx) error { return p.begin(tx, next.ID) })
	if known := new(fault.Error); errors.As(err, &known) {
		p.v.log.Info("a volume of an environment does not move yet", "volume", next.ID, "zone", e.Zone, "err", err)
		return reconcile.Result{After: relocatePause}, nil
	}
	return res, err
}

// begin begins the move of one volume, where it is still to be moved.
func (p *Relocator) begin(tx *store.Tx, id model.ID) error {
	x, ok := store.Volumes.Get(tx, id)
	if !ok {
		return nil
	}
	e, wanted := store.Environments.Get(tx, x.ProjectID)
	if !wanted || !strayed(tx, x, e.Zone) || x.Move != nil || x.Relocating() {
		return nil
	}
	to := target(tx, x, e.Zone, Rooms(tx, x.Engine))
	if to == "" {
		return nil
	}
	_, err := p.v.Migrate(tx, Scope{ProjectID: x.ProjectID, UserID: x.UserID, Admin: true, RequestID: "req-" + model.NewID()}, id, to)
	return err
}
