package compute

import (
	"context"

	"yakumo/model"
	"yakumo/reconcile"
	"yakumo/store"
)

// Absence notes in a host's row that the host is not heard of (Host.DownAt). The server that hears of it again takes the
// note away in the transaction that writes the heartbeat, so a note that stands was true all the time.
type Absence struct{ c *Compute }

// Absence gives the controller.
func (c *Compute) Absence() *Absence { return &Absence{c} }

// Name serves reconcile.Controller.
func (*Absence) Name() string { return "absence" }

// Reads serves reconcile.Controller.
func (*Absence) Reads() []store.Kind {
	return []store.Kind{store.Hosts.Kind(), store.Heartbeats.Kind()}
}

// Reconcile notes who is absent.
func (a *Absence) Reconcile(ctx context.Context, snap store.Snapshot, w reconcile.Writer) (reconcile.Result, error) {
	for h := range store.Hosts.All(snap) {
		if !absent(snap, h) {
			continue
		}
		if _, err := w.Update(ctx, func(tx *store.Tx) error {
			h, ok := store.Hosts.Get(tx, h.ID)
			if !ok || !absent(tx, h) {
				return nil
			}
			n := *h
			n.DownAt = a.c.now()
			a.c.log.Warn("a host is not heard of", "host", h.Name)
			return store.Hosts.Put(tx, &n)
		}); err != nil {
			return reconcile.Result{}, err
		}
	}
	return reconcile.Result{}, nil
}

// absent tells whether a host is not heard of and that is not noted yet.
func absent(r store.Reader, h *model.Host) bool {
	_, heard := store.Heartbeats.Get(r, h.ID)
	return !heard && h.DownAt.IsZero() && h.Switch == nil
}

// dead tells whether a host is given up: removed, forced down, confirmed to be off, or not heard of for long.
func (c *Compute) dead(r store.Reader, id model.ID) bool {
	h, ok := store.Hosts.Get(r, id)
	if !ok || c.Fenced(r, h) {
		return true
	}
	_, heard := store.Heartbeats.Get(r, id)
	return !heard && !h.DownAt.IsZero() && c.now().Sub(h.DownAt) >= c.cfg.DeadAfter
}

// off tells whether a host is known to run no guest: removed, or see Fenced.
func (c *Compute) off(r store.Reader, id model.ID) bool {
	h, ok := store.Hosts.Get(r, id)
	return !ok || c.Fenced(r, h)
}
