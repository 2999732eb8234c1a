package compute_test

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"yakumo/compute"
	"yakumo/compute/computetest"
	"yakumo/fault"
	"yakumo/model"
	"yakumo/store"
)

// pair is a world of two hosts, with one server on the first.
type pair struct {
	*world
	a, b *computetest.Host
	// fail says what goes wrong in a move, busy that live moves do not end by themselves.
	fail atomic.Value // func(host model.ID, role model.MoveRole, stage model.MoveStage) *model.Fault
	busy atomic.Bool
	s    *model.Server
}

type failing func(host model.ID, role model.MoveRole, stage model.MoveStage) *model.Fault

func newPair(t testing.TB) *pair {
	p := &pair{world: newWorld(t)}
	p.furnish()
	p.fail.Store(failing(func(model.ID, model.MoveRole, model.MoveStage) *model.Fault { return nil }))
	p.a = p.mover("a")
	p.run("1")
	id := p.create().ID
	p.s = p.phase(id, model.PhaseReady)
	p.b = p.mover("b")
	return p
}

// mover adds a host that moves guests.
func (p *pair) mover(name string) *computetest.Host {
	id := p.row(name).ID
	h := computetest.Start(p.t, computetest.Config{Store: p.s0(), Sink: p.c, Host: id, Wire: p.wire,
		FailMove: func(_ *model.Server, role model.MoveRole, stage model.MoveStage) *model.Fault {
			return p.fail.Load().(failing)(id, role, stage)
		},
		Busy: func(*model.Server) bool { return p.busy.Load() }})
	p.hosts = append(p.hosts, h)
	return h
}

func (p *pair) s0() *store.Store { return p.world.s }

func (p *pair) failAt(role model.MoveRole, stage model.MoveStage) {
	p.fail.Store(failing(func(_ model.ID, r model.MoveRole, s model.MoveStage) *model.Fault {
		if r == role && s == stage {
			return &model.Fault{Code: 500, Message: "It breaks."}
		}
		return nil
	}))
}

func (p *pair) live(r compute.MoveRequest) error {
	return p.do(func(tx *store.Tx, sc compute.Scope, id model.ID) (*model.Server, error) {
		return p.c.MoveLive(tx, sc, id, r)
	}, p.s.ID)
}

func (p *pair) cold() error {
	return p.do(func(tx *store.Tx, sc compute.Scope, id model.ID) (*model.Server, error) {
		return p.c.Migrate(tx, sc, id, compute.MoveRequest{})
	}, p.s.ID)
}

func (p *pair) resize(f *model.Flavor) error {
	return p.do(func(tx *store.Tx, sc compute.Scope, id model.ID) (*model.Server, error) {
		return p.c.Resize(tx, sc, id, f)
	}, p.s.ID)
}

func (p *pair) must(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
}

// migration gives the newest migration of the server.
func (p *pair) migration() *model.Migration {
	var out *model.Migration
	for m := range store.Migrations.List(p.s0().Snapshot(), "server", p.s.ID) {
		if out == nil || m.Number > out.Number {
			out = m
		}
	}
	return out
}

// rests waits until the server moves no more, or waits to be confirmed, and its guest is on the host alone.
func (p *pair) rests(at *computetest.Host, status string) *model.Server {
	p.t.Helper()
	var s *model.Server
	p.wait("the server rests", func(snap store.Snapshot) bool {
		s, _ = store.Servers.Get(snap, p.s.ID)
		return s.Status.Task == "" && (s.Move == nil || s.Move.Stage == model.MoveVerify) && s.Status.Generation == s.Generation
	})
	if m := p.migration(); m.Status != status {
		p.t.Errorf("the migration is %s (%s), want %s", m.Status, m.Message, status)
	}
	if s.Host != at.ID() {
		p.t.Errorf("the server is on %s, want %s", s.Host, at.ID())
	}
	for _, id := range s.Ports {
		port, _ := store.Ports.Get(p.s0().Snapshot(), id)
		if port.Host != at.ID() || port.NextHost != "" {
			p.t.Errorf("its port is on %q, next %q", port.Host, port.NextHost)
		}
	}
	for _, h := range p.hosts {
		if runs := h.Running(s.ID); runs != (h == at && s.Power == model.PowerRunning) {
			p.t.Errorf("on %s the guest runs: %v", h.ID(), runs)
		}
	}
	if twice := p.wire.Twice(); twice != "" {
		p.t.Error(twice)
	}
	return s
}

func (p *pair) vanish(h *computetest.Host) {
	p.t.Helper()
	p.update(func(tx *store.Tx) error { return store.Heartbeats.Delete(tx, h.ID()) })
}

// appear is what a server does when a host attaches again.
func (p *pair) appear(h *computetest.Host) {
	p.t.Helper()
	p.update(func(tx *store.Tx) error {
		row, _ := store.Hosts.Get(tx, h.ID())
		n := *row
		n.DownAt, n.FencedAt = time.Time{}, time.Time{}
		if err := store.Hosts.Put(tx, &n); err != nil {
			return err
		}
		return store.Heartbeats.Put(tx, &model.Heartbeat{HostID: h.ID(), At: time.Now()})
	})
}

func (p *pair) stage(want model.MoveStage) *model.Server {
	p.t.Helper()
	var s *model.Server
	p.wait("stage "+string(want), func(snap store.Snapshot) bool {
		s, _ = store.Servers.Get(snap, p.s.ID)
		return s.Move != nil && s.Move.Stage == want
	})
	return s
}

func TestLiveMove(t *testing.T) {
	p := newPair(t)
	for i := range 4 {
		at := []*computetest.Host{p.b, p.a}[i%2]
		p.must(p.live(compute.MoveRequest{}))
		p.rests(at, compute.MigrationCompleted)
		if boots := at.Guests()[p.s.ID]; boots != 1 {
			t.Errorf("the guest was started %d times", boots)
		}
	}
	a := p.action(p.s.ID, "live-migration")
	if a == nil || len(a.Events) != 1 || a.Events[0].Event != "compute_live_migration" || a.Events[0].Result != compute.Success {
		t.Errorf("the action is %+v", a)
	}
	if err := p.live(compute.MoveRequest{Host: "a"}); !fault.Is(err, fault.Invalid) {
		t.Errorf("to where it is: %v", err)
	}
	if err := p.live(compute.MoveRequest{Host: "nowhere"}); !fault.Is(err, fault.Invalid) {
		t.Errorf("to nowhere: %v", err)
	}
	p.must(p.do(p.c.Stop, p.s.ID))
	p.rests(p.a, compute.MigrationCompleted)
	if err := p.live(compute.MoveRequest{}); !fault.Is(err, fault.Conflict) {
		t.Errorf("a server that is off: %v", err)
	}
}

// TestMovesThatFail: whatever fails at whichever stage, the guest runs once, where the store says.
func TestMovesThatFail(t *testing.T) {
	for _, x := range []struct {
		kind  model.MoveKind
		role  model.MoveRole
		stage model.MoveStage
	}{
		{model.MoveLive, model.RoleTarget, model.MovePreparing},
		{model.MoveLive, model.RoleTarget, model.MoveRunning},
		{model.MoveLive, model.RoleSource, model.MoveRunning},
		{model.MoveCold, model.RoleTarget, model.MovePreparing},
		{model.MoveCold, model.RoleTarget, model.MoveRunning},
		{model.MoveCold, model.RoleSource, model.MoveRunning},
	} {
		t.Run(fmt.Sprint(x.kind, " ", x.role, " ", x.stage), func(t *testing.T) {
			p := newPair(t)
			p.failAt(x.role, x.stage)
			if x.kind == model.MoveLive {
				p.busy.Store(x.role == model.RoleTarget && x.stage == model.MoveRunning)
				p.must(p.live(compute.MoveRequest{}))
			} else {
				p.must(p.cold())
			}
			p.rests(p.a, compute.MigrationFailed)
			if m := p.migration(); !strings.Contains(m.Message, "breaks") && !strings.Contains(m.Message, "No valid host") {
				t.Errorf("it says %q", m.Message)
			}
			p.failAt("", "")
			p.busy.Store(false)
			p.must(p.live(compute.MoveRequest{}))
			p.rests(p.b, compute.MigrationCompleted)
		})
	}
}

func TestAnotherTarget(t *testing.T) {
	p := newPair(t)
	c := p.mover("c")
	bad := p.b.ID()
	p.fail.Store(failing(func(h model.ID, r model.MoveRole, s model.MoveStage) *model.Fault {
		if h == bad {
			return &model.Fault{Code: 500, Message: "It breaks."}
		}
		return nil
	}))
	p.must(p.live(compute.MoveRequest{}))
	p.rests(c, compute.MigrationCompleted)
}

func TestAbortAndHurry(t *testing.T) {
	p := newPair(t)
	steer := func(f func(*store.Tx, compute.Scope, model.ID, model.ID) (*model.Server, error), migration model.ID) error {
		return p.do(func(tx *store.Tx, sc compute.Scope, id model.ID) (*model.Server, error) {
			return f(tx, sc, id, migration)
		}, p.s.ID)
	}
	if err := steer(p.c.Abort, "none"); !fault.Is(err, fault.NotFound) {
		t.Errorf("no migration: %v", err)
	}
	p.busy.Store(true)
	p.must(p.live(compute.MoveRequest{}))
	p.stage(model.MoveRunning)
	if err := p.live(compute.MoveRequest{}); !fault.Is(err, fault.Conflict) {
		t.Errorf("twice: %v", err)
	}
	p.must(steer(p.c.Abort, p.migration().ID))
	p.rests(p.a, compute.MigrationCancelled)
	p.must(p.live(compute.MoveRequest{}))
	p.stage(model.MoveRunning)
	p.must(steer(p.c.Hurry, p.migration().ID))
	p.rests(p.b, compute.MigrationCompleted)
	if err := steer(p.c.Hurry, p.migration().ID); !fault.Is(err, fault.Conflict) {
		t.Errorf("after the end: %v", err)
	}
	// Before the source is told to send, nothing must be waited for.
	p.a.Hold(true)
	p.must(p.live(compute.MoveRequest{}))
	p.stage(model.MovePreparing)
	p.must(steer(p.c.Abort, p.migration().ID))
	p.a.Hold(false)
	p.rests(p.b, compute.MigrationCancelled)
}

func TestResize(t *testing.T) {
	p := newPair(t)
	big := &model.Flavor{ID: "2", Name: "big", VCPUs: 2, MemoryMiB: 256, DiskGiB: 2, Public: true}
	for _, f := range []model.Flavor{p.flavor, {ID: "3", VCPUs: 1, MemoryMiB: 128, DiskGiB: 0}, {ID: "4", Disabled: true, DiskGiB: 9}} {
		if err := p.resize(&f); !fault.Is(err, fault.Invalid) {
			t.Errorf("flavor %+v: %v", f, err)
		}
	}
	if err := p.do(p.c.Confirm, p.s.ID); !fault.Is(err, fault.Conflict) {
		t.Errorf("confirm nothing: %v", err)
	}
	p.must(p.resize(big))
	s := p.rests(p.b, compute.MigrationFinished)
	if compute.State(s) != compute.Resized || s.Flavor.ID != "2" {
		t.Errorf("it is %s of flavor %s", compute.State(s), s.Flavor.ID)
	}
	snap := p.s0().Snapshot()
	if u, n := compute.Used(snap, p.a.ID()); u.MemoryMiB != 128 || n != 1 {
		t.Errorf("the source is charged %+v", u)
	}
	if u, _ := compute.Used(snap, p.b.ID()); u.MemoryMiB != 256 {
		t.Errorf("the target is charged %+v", u)
	}
	p.must(p.do(p.c.Revert, p.s.ID))
	if s = p.rests(p.a, compute.MigrationReverted); s.Flavor.ID != "1" || compute.State(s) != compute.Active {
		t.Errorf("it is %s of flavor %s", compute.State(s), s.Flavor.ID)
	}
	if n := len(p.b.Guests()); n != 0 {
		t.Errorf("%d guests stay on the target", n)
	}
	p.must(p.resize(big))
	p.rests(p.b, compute.MigrationFinished)
	p.must(p.do(p.c.Confirm, p.s.ID))
	if s = p.rests(p.b, compute.MigrationConfirmed); s.Flavor.ID != "2" || compute.State(s) != compute.Active {
		t.Errorf("it is %s of flavor %s", compute.State(s), s.Flavor.ID)
	}
	p.within(func() bool { return len(p.a.Guests()) == 0 })
	if n := len(p.a.Guests()); n != 0 {
		t.Errorf("%d guests stay on the source", n)
	}
	// One that is off stays off, both ways.
	p.must(p.do(p.c.Stop, p.s.ID))
	p.phase(p.s.ID, model.PhaseReady)
	p.must(p.cold())
	p.rests(p.a, compute.MigrationFinished)
	p.must(p.do(p.c.Revert, p.s.ID))
	if s = p.rests(p.b, compute.MigrationReverted); compute.State(s) != compute.Stopped {
		t.Errorf("it is %s", compute.State(s))
	}
}

func TestResizeQuota(t *testing.T) {
	p := newPair(t)
	p.update(func(tx *store.Tx) error {
		return p.c.SetQuota(tx, project, map[string]int{compute.QuotaCores: 2}, false)
	})
	if err := p.resize(&model.Flavor{ID: "8", VCPUs: 3, MemoryMiB: 128, DiskGiB: 1}); !fault.Is(err, fault.OverQuota) {
		t.Errorf("too many cores: %v", err)
	}
	p.must(p.resize(&model.Flavor{ID: "8", VCPUs: 2, MemoryMiB: 128, DiskGiB: 1}))
	p.rests(p.b, compute.MigrationFinished)
	if got := compute.Usage(p.s0().Snapshot(), project)[compute.QuotaCores]; got != 2 {
		t.Errorf("%d cores are used", got)
	}
}

// TestHostsThatDie: a host dies at each stage; what is known is decided, what is not waits.
func TestHostsThatDie(t *testing.T) {
	t.Run("the target while it makes ready", func(t *testing.T) {
		p := newPair(t)
		p.b.Hold(true)
		p.must(p.live(compute.MoveRequest{}))
		p.stage(model.MovePreparing)
		p.vanish(p.b)
		p.rests(p.a, compute.MigrationFailed)
	})
	t.Run("the source while the target makes ready", func(t *testing.T) {
		p := newPair(t)
		p.b.Hold(true)
		p.must(p.live(compute.MoveRequest{}))
		p.stage(model.MovePreparing)
		p.a.Stop()
		p.vanish(p.a)
		p.wait("the move ends", func(snap store.Snapshot) bool { s, _ := store.Servers.Get(snap, p.s.ID); return s.Move == nil })
		p.a.Run()
		p.rests(p.a, compute.MigrationFailed)
	})
	t.Run("the target while it is sent", func(t *testing.T) {
		p := newPair(t)
		p.busy.Store(true)
		p.must(p.live(compute.MoveRequest{}))
		p.stage(model.MoveRunning)
		p.b.Stop()
		p.b.Crash()
		p.vanish(p.b)
		p.rests(p.a, compute.MigrationFailed)
	})
	t.Run("the source while it sends", func(t *testing.T) {
		p := newPair(t)
		p.busy.Store(true)
		p.must(p.live(compute.MoveRequest{}))
		p.stage(model.MoveRunning)
		p.a.Stop()
		p.a.Crash()
		p.vanish(p.a)
		p.wait("the host is given up", func(snap store.Snapshot) bool { h, _ := store.Hosts.Get(snap, p.a.ID()); return !h.DownAt.IsZero() })
		p.failAt(model.RoleTarget, model.MoveRunning) // it notices that nobody sends
		p.b.Stop()
		p.b.Run()
		p.wait("the move ends", func(snap store.Snapshot) bool { s, _ := store.Servers.Get(snap, p.s.ID); return s.Move == nil })
		p.busy.Store(false)
		p.appear(p.a)
		p.a.Run()
		s := p.phase(p.s.ID, model.PhaseReady)
		if s.Host != p.a.ID() || p.b.Running(s.ID) {
			t.Errorf("the server is on %s", s.Host)
		}
	})
	t.Run("the copier of a cold move is only silent", func(t *testing.T) {
		p := newPair(t)
		p.a.Hold(true)
		p.must(p.cold())
		p.stage(model.MovePreparing)
		p.b.Stop()
		p.a.Hold(false)
		p.stage(model.MoveRunning)
		p.vanish(p.b)
		p.wait("the host is noted", func(snap store.Snapshot) bool { h, _ := store.Hosts.Get(snap, p.b.ID()); return !h.DownAt.IsZero() })
		w := plainWriter{p.s0()}
		for range 3 { // it may have started the guest: nothing is decided, however long it takes
			p.update(func(tx *store.Tx) error {
				h, _ := store.Hosts.Get(tx, p.b.ID())
				n := *h
				n.DownAt = n.DownAt.Add(-time.Hour)
				return store.Hosts.Put(tx, &n)
			})
			if _, err := p.c.Mover().ReconcileKey(t.Context(), p.s0().Snapshot(), p.s.ID, w); err != nil {
				t.Fatal(err)
			}
		}
		if s := p.get(p.s.ID); s.Move == nil || s.Move.Stage != model.MoveRunning {
			t.Errorf("the move is %+v", s.Move)
		}
		p.appear(p.b)
		p.b.Run()
		p.rests(p.b, compute.MigrationFinished)
	})
	t.Run("the copier of a cold move is confirmed to be off", func(t *testing.T) {
		p := newPair(t)
		p.fail.Store(failing(func(h model.ID, r model.MoveRole, s model.MoveStage) *model.Fault { return nil }))
		p.a.Hold(true)
		p.must(p.cold())
		p.stage(model.MovePreparing)
		p.b.Stop()
		p.a.Hold(false)
		p.stage(model.MoveRunning)
		p.b.Crash()
		p.vanish(p.b)
		p.wait("the host is noted", func(snap store.Snapshot) bool { h, _ := store.Hosts.Get(snap, p.b.ID()); return !h.DownAt.IsZero() })
		p.update(func(tx *store.Tx) error {
			_, err := p.c.SetHost(tx, p.b.ID(), func(h *model.Host) { h.FencedAt = time.Now() })
			return err
		})
		p.rests(p.a, compute.MigrationFailed)
	})
}

func TestEvacuate(t *testing.T) {
	p := newPair(t)
	evacuate := func() error {
		return p.do(func(tx *store.Tx, sc compute.Scope, id model.ID) (*model.Server, error) {
			return p.c.Evacuate(tx, sc, id, compute.MoveRequest{})
		}, p.s.ID)
	}
	if err := evacuate(); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "still in use") {
		t.Errorf("a host that is alive: %v", err)
	}
	p.a.Stop()
	p.vanish(p.a)
	if err := evacuate(); !fault.Is(err, fault.Invalid) {
		t.Errorf("a host that may be alive: %v", err)
	}
	p.a.Crash()
	p.update(func(tx *store.Tx) error {
		_, err := p.c.SetHost(tx, p.a.ID(), func(h *model.Host) { h.ForcedDown = true })
		return err
	})
	p.must(evacuate())
	s := p.rests(p.b, compute.MigrationDone)
	if s.Status.Phase != model.PhaseReady {
		t.Errorf("the server is %+v", s.Status)
	}
	if a := p.action(s.ID, "evacuate"); a == nil || a.Message != "" || len(a.Events) != 1 || a.Events[0].Event != "compute_rebuild_instance" {
		t.Errorf("the action is %+v", a)
	}
	// It comes back: its guest is removed before it may run.
	p.a.Run()
	p.within(func() bool { return len(p.a.Guests()) == 0 })
	if n := len(p.a.Guests()); n != 0 {
		t.Errorf("%d guests are on the host that has come back", n)
	}
}

func TestDeleteWhileItMoves(t *testing.T) {
	p := newPair(t)
	p.busy.Store(true)
	p.must(p.live(compute.MoveRequest{}))
	p.stage(model.MoveRunning)
	p.must(p.delete(p.s.ID))
	p.gone(p.s.ID)
	p.within(func() bool { return len(p.a.Guests())+len(p.b.Guests()) == 0 })
	if n := len(p.a.Guests()) + len(p.b.Guests()); n != 0 {
		t.Errorf("%d guests stay", n)
	}
	if m := p.migration(); m.Status != compute.MigrationCancelled {
		t.Errorf("the migration is %s", m.Status)
	}
}

// TestMigrationsAreForgotten: records of servers that are gone go with their actions, others stay.
func TestMigrationsAreForgotten(t *testing.T) {
	p := newPair(t)
	p.must(p.live(compute.MoveRequest{}))
	p.rests(p.b, compute.MigrationCompleted)
	gone := &model.Migration{ID: model.NewID(), Number: 1000, ServerID: model.NewID(), Status: compute.MigrationCompleted, UpdatedAt: time.Now().Add(-25 * time.Hour)}
	young := &model.Migration{ID: model.NewID(), Number: 1001, ServerID: model.NewID(), Status: compute.MigrationCompleted, UpdatedAt: time.Now()}
	p.update(func(tx *store.Tx) error {
		if err := store.Migrations.Put(tx, gone); err != nil {
			return err
		}
		return store.Migrations.Put(tx, young)
	})
	if _, err := p.c.Sweeper().Reconcile(t.Context(), p.s0().Snapshot(), plainWriter{p.s0()}); err != nil {
		t.Fatal(err)
	}
	var left []int64
	for m := range store.Migrations.All(p.s0().Snapshot()) {
		left = append(left, m.Number)
	}
	if len(left) != 2 {
		t.Errorf("the records %v are left, want the live server's and the young one", left)
	}
}
