package compute

import (
	"context"
	"slices"

	"yakumo/model"
	"yakumo/reconcile"
	"yakumo/store"
)

// Sweeper ends what no host will end: deleted servers whose host was removed from the
// cloud, changes of passwords whose asker has died, actions that are too old or too many, and consoles' tokens that have
// expired.
type Sweeper struct{ c *Compute }

// Sweeper gives the controller.
func (c *Compute) Sweeper() *Sweeper { return &Sweeper{c} }

// Name serves reconcile.Controller.
func (*Sweeper) Name() string { return "compute-sweep" }

// Reads serves reconcile.Controller.
func (*Sweeper) Reads() []store.Kind { return []store.Kind{store.Hosts.Kind()} }

// Reconcile sweeps.
func (p *Sweeper) Reconcile(ctx context.Context, snap store.Snapshot, w reconcile.Writer) (reconcile.Result, error) {
	for s := range store.Servers.List(snap, "phase", string(model.PhaseDeleting)) {
		if _, there := store.Hosts.Get(snap, s.Host); there {
			continue
		}
		if _, err := w.Update(ctx, func(tx *store.Tx) error {
			s, ok := store.Servers.Get(tx, s.ID)
			if !ok || !s.Deleted {
				return nil
			}
			if _, there := store.Hosts.Get(tx, s.Host); there {
				return nil
			}
			return p.c.gone(tx, s)
		}); err != nil {
			return reconcile.Result{}, err
		}
	}
	for old := range slices.Chunk(p.forgotten(snap), 256) {
		if _, err := w.Update(ctx, func(tx *store.Tx) error {
			for _, id := range old {
				if err := store.GoneServers.Delete(tx, id); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			return reconcile.Result{}, err
		}
	}
	for old := range slices.Chunk(p.measured(snap), 256) {
		if _, err := w.Update(ctx, func(tx *store.Tx) error {
			for _, id := range old {
				if err := store.ServerUsages.Delete(tx, id); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			return reconcile.Result{}, err
		}
	}
	for old := range slices.Chunk(p.stale(snap), 256) {
		if _, err := w.Update(ctx, func(tx *store.Tx) error {
			for _, key := range old {
				if err := store.Actions.Delete(tx, key); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			return reconcile.Result{}, err
		}
	}
	for _, s := range p.unanswered(snap) {
		if _, err := w.Update(ctx, func(tx *store.Tx) error {
			return p.c.PasswordChanged(tx, s.ID, s.Status.Action, "Whether the password was set is not known: the server of the cloud that asked the guest's host has ended.")
		}); err != nil {
			return reconcile.Result{}, err
		}
	}
	for _, old := range p.expired(snap) {
		if _, err := w.Update(ctx, func(tx *store.Tx) error {
			for _, hash := range old {
				// One that was extended meanwhile is kept.
				if t, ok := store.ConsoleTokens.Get(tx, hash); ok && !p.c.now().Before(t.ExpiresAt) {
					if err := store.ConsoleTokens.Delete(tx, hash); err != nil {
						return err
					}
				}
			}
			return nil
		}); err != nil {
			return reconcile.Result{}, err
		}
	}
	for old := range slices.Chunk(p.oldMoves(snap), 256) {
		if _, err := w.Update(ctx, func(tx *store.Tx) error {
			for _, id := range old {
				if err := store.Migrations.Delete(tx, id); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			return reconcile.Result{}, err
		}
	}
	return reconcile.Result{After: p.c.cfg.Sweep}, nil
}

// stale gives the keys of actions to be removed. The first action of a server, which made
// it, is kept as long as the server.
func (p *Sweeper) stale(snap store.Snapshot) []string {
	var out, run []string
	horizon := p.c.now().Add(-p.c.cfg.KeepActions)
	server := ""
	flush := func() {
		if n := len(run) - p.c.cfg.MaxActions; n > 0 && len(run) > 1 {
			out = append(out, run[1:min(n+1, len(run))]...)
		}
		run = run[:0]
	}
	var alive bool
	for a := range store.Actions.All(snap) {
		if a.ServerID != server {
			flush()
			server = a.ServerID
			_, alive = store.Servers.Get(snap, server)
		}
		switch {
		case alive:
			run = append(run, a.Key())
		case a.UpdatedAt.Before(horizon):
			out = append(out, a.Key())
		}
	}
	flush()
	return out
}

// oldMoves gives the records of moves of servers that have been gone for as long as actions are kept.
func (p *Sweeper) oldMoves(snap store.Snapshot) []string {
	var out []string
	horizon := p.c.now().Add(-p.c.cfg.KeepActions)
	for m := range store.Migrations.All(snap) {
		if _, alive := store.Servers.Get(snap, m.ServerID); !alive && m.UpdatedAt.Before(horizon) {
			out = append(out, m.ID)
		}
	}
	return out
}
