package compute

import (
	"context"
	"time"

	"yakumo/fault"
	"yakumo/model"
	"yakumo/reconcile"
	"yakumo/store"
)

// Restarter makes servers anew elsewhere whose host has died, where their policy is so (model.HAKey). It never guesses:
// it waits until the host has turned the guest off by itself, which it does when it has heard no server for the guest's lease
// (HostServer.LeaseSeconds), or until an administrator has fenced the host. See docs/design/0023-fencing.md.
type Restarter struct {
	c *Compute
	// seen is when this process first saw a host's absence, by its own monotonic clock: the clocks of two servers need not agree.
	seen map[model.ID]absence
}

type absence struct{ noted, seen time.Time }

// Restarter gives the controller.
func (c *Compute) Restarter() *Restarter { return &Restarter{c, map[model.ID]absence{}} }

// Name serves reconcile.Controller.
func (*Restarter) Name() string { return "restarts" }

// Reads serves reconcile.Controller.
func (*Restarter) Reads() []store.Kind {
	return []store.Kind{store.Hosts.Kind(), store.Heartbeats.Kind(), store.Servers.Kind()}
}

// Reconcile begins the evacuations that are due.
func (p *Restarter) Reconcile(ctx context.Context, snap store.Snapshot, w reconcile.Writer) (reconcile.Result, error) {
	var res reconcile.Result
	again := func(d time.Duration) {
		if d = max(d, time.Millisecond); res.After == 0 || d < res.After {
			res.After = d
		}
	}
	for h := range store.Hosts.All(snap) {
		if h.DownAt.IsZero() {
			delete(p.seen, h.ID)
			continue
		}
		a, ok := p.seen[h.ID]
		if !ok || !a.noted.Equal(h.DownAt) {
			a = absence{h.DownAt, p.c.cfg.Now()}
			p.seen[h.ID] = a
		}
		for s := range store.Servers.List(snap, "host", h.ID) {
			if !restarts(s, h) {
				continue
			}
			left := p.left(s, h, a)
			if pause := (&Drainer{p.c}).pause(snap, s); pause > left { // no host would have it lately
				left = pause
			}
			if left > 0 {
				again(left)
				continue
			}
			began := false
			_, err := w.Update(ctx, func(tx *store.Tx) (err error) {
				began, err = p.begin(tx, s.ID, a)
				return err
			})
			switch {
			case fault.Is(err, fault.Conflict):
				p.c.log.Warn("a server of a dead host cannot be restarted elsewhere", "server", s.ID, "host", h.Name, "err", err)
				again(p.c.cfg.DrainPause)
			case err != nil:
				return res, err
			case began:
				p.c.log.Warn("the host of a server has died; the server is restarted elsewhere", "server", s.ID, "host", h.Name)
			}
		}
	}
	return res, nil
}

// restarts tells whether a server of a host that is absent is to be restarted elsewhere when that is safe.
func restarts(s *model.Server, h *model.Host) bool {
	return s.Host == h.ID && !s.Deleted && s.Lease() > 0 && !s.Status.LaunchedAt.IsZero() && s.Power != model.PowerOff &&
		(s.Move == nil || s.Move.Kind != model.MoveEvacuate)
}

// holds notes the lease that a host says that it holds a server's guest to. Only the newest word counts: a host that was told since that
// there is none may have let go of it.
func holds(s *model.Server, r *model.ServerReport) {
	if r.Generation == s.Generation {
		s.Status.Lease = r.Lease
	}
	unleased(s)
}

// unleased forgets, in the transaction that takes a server's lease away, what its host has said of it: given back, it counts from when
// the host says so anew.
func unleased(s *model.Server) {
	if s.Lease() == 0 {
		s.Status.Lease = 0
	}
}

// left gives how long it is until the guest is off for certain. What the host has said that it holds the guest to counts, and
// what it may have been told since.
func (p *Restarter) left(s *model.Server, h *model.Host, a absence) time.Duration {
	if !h.FencedAt.IsZero() {
		return 0
	}
	if s.Status.Lease == 0 { // the host has not said that it knows of the lease: an administrator must decide
		return time.Hour
	}
	lease := time.Duration(max(s.Status.Lease, s.Lease())) * time.Second
	return a.seen.Add(lease + p.c.cfg.LeaseMargin).Sub(p.c.cfg.Now())
}

// begin begins one evacuation, where the absence that was waited for is still the same.
func (p *Restarter) begin(tx *store.Tx, server model.ID, a absence) (bool, error) {
	old, ok := store.Servers.Get(tx, server)
	if !ok {
		return false, nil
	}
	h, there := store.Hosts.Get(tx, old.Host)
	if !there || !restarts(old, h) || !h.DownAt.Equal(a.noted) || p.left(old, h, a) > 0 {
		return false, nil
	}
	if _, heard := store.Heartbeats.Get(tx, h.ID); heard {
		return false, nil
	}
	s := copyOf(old)
	sc := Scope{ProjectID: s.ProjectID, UserID: s.UserID, Admin: true, RequestID: "req-" + model.NewID()}
	if err := p.c.evacuate(tx, sc, s, MoveRequest{}); err != nil {
		return false, err
	}
	s.Touch(p.c.now())
	return true, store.Servers.Put(tx, s)
}
