package compute_test

import (
	"testing"
	"time"

	"yakumo/compute"
	"yakumo/fault"
	"yakumo/model"
	"yakumo/store"
)

// TestDrain: a host is emptied, running servers without a stop, and takes servers again afterwards.
func TestDrain(t *testing.T) {
	p := newPair(t)
	p.b.Hold(true)
	p.update(func(tx *store.Tx) error { // so that new servers go to a
		_, err := p.c.SetHost(tx, p.b.ID(), func(h *model.Host) { h.Disabled = true })
		return err
	})
	ids := []model.ID{p.s.ID}
	for range 4 {
		s := p.create()
		p.phase(s.ID, model.PhaseReady)
		ids = append(ids, s.ID)
	}
	p.must(p.do(p.c.Stop, ids[4]))
	p.phase(ids[4], model.PhaseReady)
	p.b.Hold(false)
	p.update(func(tx *store.Tx) error {
		_, err := p.c.SetHost(tx, p.b.ID(), func(h *model.Host) { h.Disabled = false })
		return err
	})
	p.busy.Store(true)
	p.update(func(tx *store.Tx) error { _, err := p.c.Drain(tx, p.a.ID(), "new memory"); return err })
	moving := func(snap store.Snapshot) (n int) {
		for s := range store.Servers.All(snap) {
			if s.Move != nil {
				n++
			}
		}
		return n
	}
	p.wait("two move", func(snap store.Snapshot) bool { return moving(snap) == 2 })
	h, _ := store.Hosts.Get(p.s0().Snapshot(), p.a.ID())
	if d := compute.DrainOf(p.s0().Snapshot(), h); d.Done() || len(d.Left) != 5 || !d.Left[0].Moving || d.Left[4].Moving || !h.Disabled || h.Reason != "new memory" {
		t.Errorf("the drain is %+v", d)
	}
	p.a.Stop() // it looks again when it runs, and has not begun to send by then
	p.busy.Store(false)
	p.a.Run()
	p.wait("the host is empty", func(snap store.Snapshot) bool {
		if n := moving(snap); n > 2 {
			t.Errorf("%d servers move at once", n)
		}
		return store.Servers.Count(snap, "host", p.a.ID()) == 0
	})
	for _, id := range ids {
		s := p.phase(id, model.PhaseReady)
		if s.Host != p.b.ID() || p.b.Running(id) != (id != ids[4]) {
			t.Errorf("server %s is on %s, runs %v", id, s.Host, p.b.Running(id))
		}
		if boots := p.b.Guests()[id]; boots != 1 {
			t.Errorf("server %s was started %d times", id, boots)
		}
	}
	if twice := p.wire.Twice(); twice != "" {
		t.Error(twice)
	}
	p.update(func(tx *store.Tx) error { _, err := p.c.Undrain(tx, p.a.ID()); return err })
	if s := p.phase(p.create().ID, model.PhaseReady); s.Host != p.a.ID() {
		t.Error("the host takes no server again")
	}
}

// TestDrainTriesAgain: what fails is moved later; what cannot be moved is told with its reason.
func TestDrainTriesAgain(t *testing.T) {
	p := newPair(t)
	p.failAt(model.RoleTarget, model.MovePreparing)
	p.update(func(tx *store.Tx) error { _, err := p.c.Drain(tx, p.a.ID(), ""); return err })
	p.wait("it is tried twice", func(snap store.Snapshot) bool {
		failed := 0
		for m := range store.Migrations.All(snap) {
			if m.Status == compute.MigrationFailed {
				failed++
			}
		}
		return failed >= 2
	})
	p.failAt("", "")
	p.wait("it is empty", func(snap store.Snapshot) bool { return store.Servers.Count(snap, "host", p.a.ID()) == 0 })
	p.rests(p.b, compute.MigrationCompleted)
	p.update(func(tx *store.Tx) error { _, err := p.c.Undrain(tx, p.a.ID()); return err })
	p.must(p.do(p.c.Suspend, p.s.ID))
	p.phase(p.s.ID, model.PhaseReady)
	p.update(func(tx *store.Tx) error { _, err := p.c.Drain(tx, p.b.ID(), ""); return err })
	h, _ := store.Hosts.Get(p.s0().Snapshot(), p.b.ID())
	if d := compute.DrainOf(p.s0().Snapshot(), h); len(d.Left) != 1 || d.Left[0].Why != "A server in the state suspended cannot be moved." {
		t.Errorf("the drain is %+v", d)
	}
}

func TestFence(t *testing.T) {
	p := newPair(t)
	fence := func() error {
		_, err := p.s0().Update(t.Context(), func(tx *store.Tx) error { _, err := p.c.Fence(tx, p.a.ID()); return err })
		return err
	}
	if err := fence(); !fault.Is(err, fault.Conflict) {
		t.Errorf("a host that is heard of: %v", err)
	}
	p.a.Stop()
	p.vanish(p.a)
	p.must(fence())
	if h, _ := store.Hosts.Get(p.s0().Snapshot(), p.a.ID()); h.FencedAt.IsZero() || time.Since(h.FencedAt) > time.Minute {
		t.Errorf("fenced at %v", h.FencedAt)
	}
}
