package compute

import (
	"cmp"
	"context"
	"iter"
	"slices"
	"time"

	"yakumo/model"
	"yakumo/reconcile"
	"yakumo/store"
)

// Mover ends moves that no report will end: where a host has died, or does not make ready in time.
//
// What is not known stays open. A guest that is being sent by a host that is not heard of is there, or at the target, or
// nowhere; nobody but these hosts can say which, and whoever guesses may run it twice. So the move waits until one of
// them says so, or until an administrator does (Host.FencedAt, Evacuate).
type Mover struct{ c *Compute }

// Mover gives the controller.
func (c *Compute) Mover() *Mover { return &Mover{c} }

// Name serves reconcile.Controller.
func (*Mover) Name() string { return "moves" }

// Reads serves reconcile.Controller.
func (*Mover) Reads() []store.Kind {
	return []store.Kind{store.Servers.Kind(), store.Hosts.Kind(), store.Heartbeats.Kind()}
}

// Keys gives the servers that move.
func (*Mover) Keys(snap store.Snapshot) iter.Seq[string] {
	return func(yield func(string) bool) {
		for s := range store.Servers.Prefix(snap, "moving", "") {
			if !yield(s.ID) {
				return
			}
		}
	}
}

// Concerns gives the server that has changed, or those that move from or to a host that has.
func (*Mover) Concerns(snap store.Snapshot, ch store.Change) []string {
	if ch.Kind == store.Servers.Kind() {
		if s, ok := store.Servers.Get(snap, ch.Key); ok && s.Move != nil {
			return []string{s.ID}
		}
		return nil
	}
	var out []string
	for s := range store.Servers.List(snap, "host", ch.Key) {
		if s.Move != nil {
			out = append(out, s.ID)
		}
	}
	return out
}

// ReconcileKey looks at one server's move.
func (m *Mover) ReconcileKey(ctx context.Context, snap store.Snapshot, id string, w reconcile.Writer) (reconcile.Result, error) {
	old, ok := store.Servers.Get(snap, id)
	if !ok || old.Move == nil || old.Deleted {
		return reconcile.Result{}, nil
	}
	if !m.due(snap, old) {
		return reconcile.Result{After: m.wait(snap, old)}, nil
	}
	_, err := w.Update(ctx, func(tx *store.Tx) error {
		old, ok := store.Servers.Get(tx, id)
		if !ok || old.Move == nil || old.Deleted || !m.due(tx, old) {
			return nil
		}
		s := copyOf(old)
		if err := m.decide(tx, s); err != nil {
			return err
		}
		s.Touch(m.c.now())
		return store.Servers.Put(tx, s)
	})
	return reconcile.Result{After: time.Second}, err
}

// verdict is what the Mover makes of a move.
type verdict int

const (
	leave   verdict = iota // it goes on, or it is not known what became of it
	retry                  // the target does not make ready: another one
	fail                   // the server is where it was, and only there
	arrive                 // the server is at the target
	giveup                 // the source is asked to end it
	hurry                  // it takes long: the source is asked to end the copying
	restore                // taken back: the target is known not to run it
)

// judge says what is to be done with a move, and why.
func (m *Mover) judge(r store.Reader, s *model.Server) (verdict, string) {
	mv := s.Move
	source, target := m.c.dead(r, mv.Source), m.c.dead(r, mv.Target)
	late := m.c.now().Sub(mv.StageAt)
	live := mv.Kind == model.MoveLive
	switch mv.Stage {
	case model.MovePreparing: // the guest is at the source, and nobody was told to send it
		switch {
		case source:
			return fail, "The host of the server has died."
		case target:
			return retry, "The host that the server was to move to has died."
		case late > m.c.cfg.MoveWait:
			return retry, "The hosts did not make ready in time."
		}
	case model.MoveRunning:
		switch {
		case !live && m.c.off(r, mv.Target): // a copier that is only not heard of may have started the guest
			return fail, "The host that the server was to move to has died."
		case !live:
		case source && (slices.Contains(mv.Failed, mv.Target) || m.c.off(r, mv.Target)): // it is at the source, if anywhere
			return fail, "The host of the server has died."
		case target && !mv.Abort:
			return giveup, "The host that the server was to move to has died."
		case late > m.c.cfg.MoveHurry && !mv.Force && !target:
			return hurry, ""
		}
	case model.MoveLeaving:
		if source {
			return arrive, ""
		}
	case model.MoveReverting:
		if m.c.off(r, mv.Target) {
			return restore, ""
		}
	}
	return leave, ""
}

func (m *Mover) due(r store.Reader, s *model.Server) bool {
	v, _ := m.judge(r, s)
	return v != leave
}

func (m *Mover) decide(tx *store.Tx, s *model.Server) error {
	v, why := m.judge(tx, s)
	switch v {
	case retry:
		return m.c.again(tx, s, why)
	case fail:
		return m.c.endMove(tx, s, MigrationFailed, why)
	case arrive:
		return m.c.arrived(tx, s)
	case restore:
		return m.c.reverted(tx, s)
	case giveup, hurry:
		mv := *s.Move
		if v == hurry {
			mv.Force = true
		} else {
			mv.Abort, mv.Failed = true, append(slices.Clone(mv.Failed), mv.Target)
		}
		s.Move = &mv
		return m.c.note(tx, mv.ID, func(r *model.Migration) { r.Message = cmp.Or(r.Message, why) })
	}
	return nil
}

// wait gives when time alone may change the judgement.
func (m *Mover) wait(r store.Reader, s *model.Server) time.Duration {
	var after time.Duration
	until := func(at time.Time) {
		if d := max(at.Sub(m.c.now()), 0) + 10*time.Millisecond; after == 0 || d < after {
			after = d
		}
	}
	switch {
	case s.Move.Stage == model.MovePreparing:
		until(s.Move.StageAt.Add(m.c.cfg.MoveWait))
	case s.Move.Stage == model.MoveRunning && s.Move.Kind == model.MoveLive && !s.Move.Force:
		until(s.Move.StageAt.Add(m.c.cfg.MoveHurry))
	}
	for _, id := range []model.ID{s.Move.Source, s.Move.Target} {
		if h, ok := store.Hosts.Get(r, id); ok && !h.DownAt.IsZero() && !m.c.dead(r, id) {
			until(h.DownAt.Add(m.c.cfg.DeadAfter))
		}
	}
	return after
}
