package compute

import (
	"cmp"
	"context"
	"iter"
	"slices"

	"yakumo/fault"
	"yakumo/model"
	"yakumo/reconcile"
	"yakumo/store"
)

// Relocate wants all servers of a project in an availability zone: running ones move there without a stop, and so do those that were asked for in
// another zone. It begins, goes on elsewhere, or is in force already; back is the same with the zone that they came from.
//
// Errors: fault.NotFound for a project that is none or not the scope's; fault.Invalid for a zone without a host.
func (c *Compute) Relocate(tx *store.Tx, sc Scope, project model.ID, zone string) (*model.Environment, error) {
	if err := c.environed(tx, sc, project); err != nil {
		return nil, err
	}
	found := false
	for h := range store.Hosts.All(tx) {
		found = found || h.Switch == nil && h.Zone == zone
	}
	if !found || zone == "" {
		return nil, fault.New(fault.Invalid, "There is no availability zone %q with a host.", zone)
	}
	if e, ok := store.Environments.Get(tx, project); ok && e.Zone == zone {
		return e, nil
	}
	e := &model.Environment{ProjectID: project, Zone: zone, UserID: sc.UserID, At: c.now()}
	return e, store.Environments.Put(tx, e)
}

// Release ends a project's wish for a zone: what has moved stays where it is, what moves goes on.
//
// Errors: fault.NotFound.
func (c *Compute) Release(tx *store.Tx, sc Scope, project model.ID) error {
	if err := c.environed(tx, sc, project); err != nil {
		return err
	}
	if _, ok := store.Environments.Get(tx, project); !ok {
		return fault.New(fault.NotFound, "The project %s has no environment in one place.", project)
	}
	return store.Environments.Delete(tx, project)
}

func (c *Compute) environed(r store.Reader, sc Scope, project model.ID) error {
	if _, ok := store.Projects.Get(r, project); !ok || !sc.Owns(project) {
		return fault.New(fault.NotFound, "There is no project %s.", project)
	}
	return nil
}

// Strays gives the servers of a project that are not in a zone, or move, the moving ones first, then by name.
func Strays(r store.Reader, project model.ID, zone string) []DrainServer {
	var out []DrainServer
	for s := range store.Servers.List(r, "project", project) {
		h, ok := store.Hosts.Get(r, s.Host)
		if !ok || h.Zone == zone && s.Move == nil || s.Deleted {
			continue // no host: it is made there, or is shelved
		}
		d := DrainServer{ID: s.ID, Name: s.Name, State: State(s), Why: stray(r, s, h)}
		if m := s.Move; m != nil && m.Stage != model.MoveVerify {
			d.Moving, d.Why = true, ""
			if rec, ok := store.Migrations.Get(r, m.ID); ok {
				d.Progress = rec.Progress
			}
		} else if last := lastMove(r, s); d.Why == "" && last != nil && last.Status == MigrationFailed {
			d.Why = last.Message
		}
		out = append(out, d)
	}
	sortLeft(out)
	return out
}

// stray tells why a server cannot be moved now, "" where it can.
func stray(r store.Reader, s *model.Server, h *model.Host) string {
	if s.Move == nil && !store.HostUp(r, h) {
		return "Its host is down."
	}
	return stuck(s, h)
}

// Relocator moves the servers of environments to their zones, a few of a project at a time: live where they run, cold where they are
// off. What fails is tried again after a pause that grows.
type Relocator struct{ c *Compute }

// Relocator gives the controller.
func (c *Compute) Relocator() *Relocator { return &Relocator{c} }

// Name serves reconcile.Controller.
func (*Relocator) Name() string { return "environments" }

// Reads serves reconcile.Controller.
func (*Relocator) Reads() []store.Kind {
	return []store.Kind{store.Environments.Kind(), store.Projects.Kind(), store.Servers.Kind(), store.Hosts.Kind(), store.Heartbeats.Kind()}
}

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
	case store.Environments.Kind(), store.Projects.Kind():
		return []string{ch.Key}
	case store.Servers.Kind():
		if s, ok := store.Servers.Get(snap, ch.Key); ok {
			return []string{s.ProjectID}
		}
		return nil
	case store.Heartbeats.Kind():
		if ch.Old != nil && ch.New != nil {
			return nil
		}
	}
	return slices.Collect(p.Keys(snap))
}

// ReconcileKey begins the moves of a project's servers that may begin now.
func (p *Relocator) ReconcileKey(ctx context.Context, snap store.Snapshot, project string, w reconcile.Writer) (reconcile.Result, error) {
	var res reconcile.Result
	e, ok := store.Environments.Get(snap, project)
	if !ok {
		return res, nil
	}
	if _, ok := store.Projects.Get(snap, project); !ok {
		_, err := w.Update(ctx, func(tx *store.Tx) error { return forget(tx, project) })
		return res, err
	}
	busy := 0
	var ready []*model.Server
	for s := range store.Servers.List(snap, "project", project) {
		h, ok := store.Hosts.Get(snap, s.Host)
		switch {
		case !ok:
		case s.Move != nil:
			if s.Move.Zone != "" {
				busy++
			}
		case h.Zone != e.Zone && stray(snap, s, h) == "":
			if wait := (&Drainer{p.c}).pause(snap, s); wait > 0 {
				if res.After == 0 || wait < res.After {
					res.After = wait
				}
				continue
			}
			ready = append(ready, s)
		}
	}
	slices.SortFunc(ready, func(a, b *model.Server) int {
		return cmp.Or(a.CreatedAt.Compare(b.CreatedAt), cmp.Compare(a.ID, b.ID))
	})
	for _, s := range ready[:min(len(ready), max(0, p.c.cfg.DrainAtOnce-busy))] {
		if _, err := w.Update(ctx, func(tx *store.Tx) error { return p.begin(tx, s.ID) }); err != nil {
			return res, err
		}
	}
	return res, nil
}

// forget removes the environment of a project that is gone.
func forget(tx *store.Tx, project model.ID) error {
	if _, ok := store.Projects.Get(tx, project); ok {
		return nil
	}
	return store.Environments.Delete(tx, project)
}

// begin begins the move of one server, where it is still to be moved.
func (p *Relocator) begin(tx *store.Tx, server model.ID) error {
	s, ok := store.Servers.Get(tx, server)
	if !ok {
		return nil
	}
	e, wanted := store.Environments.Get(tx, s.ProjectID)
	h, placed := store.Hosts.Get(tx, s.Host)
	if !wanted || !placed || h.Zone == e.Zone || s.Move != nil || stray(tx, s, h) != "" {
		return nil
	}
	return p.c.moveAway(tx, s, MoveRequest{Drain: true, Zone: e.Zone})
}
