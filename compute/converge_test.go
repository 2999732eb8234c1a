package compute_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"yakumo/compute"
	"yakumo/compute/computetest"
	"yakumo/fault"
	"yakumo/model"
	"yakumo/network"
	"yakumo/placement"
	"yakumo/store"
	"yakumo/store/storetest"
)

// problem tells what is wrong with a state that should be settled, or "".
func (w *world) problem(snap store.Snapshot) string {
	used := map[model.ID]placement.Size{}
	for s := range store.Servers.All(snap) {
		switch {
		case s.Status.Task != "" || s.Deleted || s.Status.Phase != model.PhaseReady && s.Status.Phase != model.PhaseError && s.Status.Phase != model.PhaseShelved:
			return fmt.Sprintf("server %s is not settled: %+v", s.ID, s.Status)
		case s.Host != "" && s.Status.Generation != s.Generation:
			return fmt.Sprintf("server %s: generation %d of %d", s.ID, s.Status.Generation, s.Generation)
		case s.Status.Phase == model.PhaseReady && (s.Status.Power != s.Power || s.Status.Reboots != s.Reboots || s.Status.Hard != s.HardReboots):
			return fmt.Sprintf("server %s is not as wanted: %s, %+v", s.ID, s.Power, s.Status)
		case s.Status.Phase == model.PhaseReady && (s.Status.Rebuilds != s.Rebuilds || (s.Rescue == nil) != (s.Status.Rescue == 0)):
			return fmt.Sprintf("server %s is not of the disk that is wanted: %d, %+v", s.ID, s.Rebuilds, s.Status)
		case (s.Status.Phase == model.PhaseShelved) != (s.Shelving == model.Offloaded), s.Status.Phase == model.PhaseShelved && s.Host != "":
			return fmt.Sprintf("server %s is on its shelf and is not: %s on %q, %+v", s.ID, s.Shelving, s.Host, s.Status)
		case s.Status.Phase == model.PhaseError && s.Status.Fault == nil, s.Status.Phase == model.PhaseReady && s.Status.Fault != nil:
			return fmt.Sprintf("server %s and its fault: %+v", s.ID, s.Status)
		case len(s.Plugging) > 0 || len(s.PortTags) > len(s.Ports):
			return fmt.Sprintf("server %s has interfaces under way: %+v, %v of %v", s.ID, s.Plugging, s.PortTags, s.Ports)
		case s.Status.Action != "":
			return fmt.Sprintf("server %s has an action that runs", s.ID)
		}
		for _, id := range s.Ports {
			p, ok := store.Ports.Get(snap, id)
			if !ok || p.DeviceID != s.ID || p.Host != s.Host {
				return fmt.Sprintf("server %s on %q has port %+v", s.ID, s.Host, p)
			}
		}
		used[s.Host] = used[s.Host].Add(placement.SizeOf(s))
	}
	for p := range store.Ports.All(snap) {
		if _, ok := store.Servers.Get(snap, p.DeviceID); !ok && (p.DeviceID != "" || p.Host != "" || p.Owned) {
			return fmt.Sprintf("port %s is left: %+v", p.ID, p)
		}
	}
	for h := range store.Hosts.All(snap) {
		u := used[h.ID]
		if u.VCPUs > 16*h.Capacity.VCPUs || u.MemoryMiB > int(1.5*float64(h.Capacity.MemoryMiB-512)) || u.DiskGiB > h.Capacity.DiskGiB || u.PCPUs > len(h.Capacity.Dedicated) {
			return fmt.Sprintf("host %s is promised %+v of %+v", h.Name, u, h.Capacity)
		}
		if sum, _ := compute.Used(snap, h.ID); sum != u {
			return fmt.Sprintf("host %s: its servers take %+v, the sum is %+v", h.Name, u, sum)
		}
	}
	// Each guest is on its server's host and on no other.
	for _, h := range w.hosts {
		for id := range h.Guests() {
			if s, ok := store.Servers.Get(snap, id); !ok || s.Host != h.ID() {
				return fmt.Sprintf("guest %s is on %s, and should not", id, h.ID())
			}
		}
	}
	for s := range store.Servers.All(snap) {
		if s.Status.Phase != model.PhaseReady {
			continue
		}
		for _, h := range w.hosts {
			if _, there := h.Guests()[s.ID]; there != (h.ID() == s.Host) {
				return fmt.Sprintf("server %s is on %s; on %s its guest is %v", s.ID, s.Host, h.ID(), there)
			}
		}
	}
	return ""
}

// settles waits until nothing is wrong. A host forgets a guest without a change of the
// store, so it looks again by time too.
func (w *world) settles(fail func(string, ...any)) {
	deadline := time.Now().Add(patience)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	sub := w.s.Subscribe()
	defer sub.Close()
	for {
		what := w.problem(w.s.Snapshot())
		if what == "" {
			return
		}
		if time.Now().After(deadline) {
			fail("not settled in %s: %s", patience, what)
			return
		}
		step, stop := context.WithTimeout(ctx, 5*time.Millisecond)
		if _, err := sub.Next(step); err != nil && !errors.Is(err, context.DeadlineExceeded) {
			fail("subscription: %v", err)
		}
		stop()
	}
}

// TestEverythingConverges: whatever is asked in whatever order, while controllers and hosts
// come and go, ends in a state that is true, and deletion leaves nothing.
func TestEverythingConverges(t *testing.T) {
	w := newWorld(t)
	w.furnish()
	// A name tells which hosts cannot start the server: "fail ab" neither on a nor on b.
	failsOn := func(letter string) func(*model.Server) *model.Fault {
		return func(s *model.Server) *model.Fault {
			if strings.HasPrefix(s.Name, "fail") && strings.Contains(s.Name[4:], letter) {
				return &model.Fault{Code: 500, Message: "It does not start.", Details: letter}
			}
			return nil
		}
	}
	for _, l := range []string{"a", "b", "c"} {
		w.host(l, failsOn(l), kept(3), func(h *model.Host) { h.Capacity.MemoryMiB = 512 + 512 }) // 6 tiny servers each
	}
	own := w.flavor
	own.VCPUs, own.ExtraSpecs = 2, map[string]string{"hw:cpu_policy": "dedicated"} // one on each
	var names = []string{"web", "web", "web", "fail a", "fail ab", "fail abc"}
	acts := w.acts()
	acts["shelve"] = func(tx *store.Tx, sc compute.Scope, id model.ID) (*model.Server, error) {
		return w.c.Shelve(tx, sc, id, "")
	}
	acts["attach"] = func(tx *store.Tx, sc compute.Scope, id model.ID) (*model.Server, error) {
		owner := "compute:nova"
		p, err := w.net.CreatePort(tx, network.Scope{ProjectID: project}, network.PortSpec{NetworkID: w.network, DeviceID: &id, DeviceOwner: &owner, Owned: true})
		if err != nil {
			return nil, err
		}
		return w.c.AttachInterface(tx, sc, id, p.ID, "tag")
	}
	acts["detach"] = func(tx *store.Tx, sc compute.Scope, id model.ID) (*model.Server, error) {
		s, ok := store.Servers.Get(tx, id)
		if !ok || len(s.Ports) == 0 {
			return nil, fault.New(fault.NotFound, "it has no port")
		}
		return w.c.DetachInterface(tx, sc, id, s.Ports[0])
	}
	stop := w.run("1")
	rapid.Check(t, func(rt *rapid.T) {
		var ids []model.ID
		stopped := map[int]bool{}
		running := true
		pick := func() model.ID { return ids[rapid.IntRange(0, len(ids)-1).Draw(rt, "server")] }
		ok := func(what string, err error) {
			if err != nil && !fault.Is(err, fault.Conflict) && !fault.Is(err, fault.NotFound) {
				rt.Fatalf("%s: %v", what, err)
			}
		}
		for range rapid.IntRange(1, 25).Draw(rt, "steps") {
			act := rapid.SampledFrom([]string{"create", "create", "create", "stop", "start", "soft", "hard", "delete", "meta", "off", "act", "act", "act", "act", "host", "controllers", "hold"}).Draw(rt, "act")
			if len(ids) == 0 {
				act = "create"
			}
			switch act {
			case "create":
				name := rapid.SampledFrom(names).Draw(rt, "name")
				f := rapid.SampledFrom([]*model.Flavor{&w.flavor, &w.flavor, &own}).Draw(rt, "flavor")
				ids = append(ids, w.create(func(n *compute.NewServer) { n.Name, n.Flavor = name, f }).ID)
			case "stop":
				ok(act, w.do(w.c.Stop, pick()))
			case "start":
				ok(act, w.do(w.c.Start, pick()))
			case "soft", "hard":
				ok(act, w.do(func(tx *store.Tx, sc compute.Scope, id model.ID) (*model.Server, error) {
					return w.c.Reboot(tx, sc, id, act == "hard")
				}, pick()))
			case "delete":
				ok(act, w.delete(pick()))
			case "meta":
				ok(act, w.do(func(tx *store.Tx, sc compute.Scope, id model.ID) (*model.Server, error) {
					return w.c.SetMetadata(tx, sc, id, map[string]string{"k": sc.RequestID}, false)
				}, pick()))
			case "act":
				name := rapid.SampledFrom([]string{"pause", "unpause", "suspend", "resume", "rebuild", "rescue", "unrescue", "shelve", "unshelve", "attach", "attach", "detach", "detach"}).Draw(rt, "name")
				ok(name, w.do(acts[name], pick()))
			case "off":
				w.hosts[rapid.IntRange(0, 2).Draw(rt, "host")].PowerOff(pick())
			case "hold":
				w.hosts[rapid.IntRange(0, 2).Draw(rt, "host")].Hold(computetest.Holding(rapid.Bool().Draw(rt, "held")))
			case "host":
				i := rapid.IntRange(0, 2).Draw(rt, "host")
				if stopped[i] {
					w.hosts[i].Run()
				} else {
					w.hosts[i].Stop()
				}
				stopped[i] = !stopped[i]
			case "controllers":
				if running {
					stop()
				} else {
					stop = w.run("1")
				}
				running = !running
			}
		}
		for i, h := range w.hosts {
			h.Hold(false)
			if stopped[i] {
				h.Run()
			}
		}
		if !running {
			stop = w.run("1")
		}
		w.settles(rt.Fatalf)
		for _, id := range ids {
			ok("delete", w.delete(id))
		}
		for range ids {
			w.settles(rt.Fatalf)
		}
		snap := w.s.Snapshot()
		for s := range store.Servers.All(snap) {
			rt.Fatalf("server %s stays", s.ID)
		}
		for p := range store.Ports.All(snap) {
			rt.Fatalf("port %s stays", p.ID)
		}
		for _, h := range w.hosts {
			if n := len(h.Guests()); n > 0 {
				rt.Fatalf("%d guests stay", n)
			}
		}
	})
}

// TestTwoServersOneCloud: two server processes take requests and reports at once; the one
// that leads goes in the middle. Nothing is placed twice, nothing beyond capacity.
func TestTwoServersOneCloud(t *testing.T) {
	cl, prefix := storetest.Client(t)
	a, b := worldOn(t, storetest.Open(t, cl, prefix)), worldOn(t, storetest.Open(t, cl, prefix))
	a.furnish()
	for i := range 4 { // one reports to a, the next to b
		w := []*world{a, b}[i%2]
		w.host(fmt.Sprint("h", i), nil, func(h *model.Host) { h.Capacity.MemoryMiB = 512 + 1024 }) // 12 tiny servers each
	}
	all := append(append([]*computetest.Host{}, a.hosts...), b.hosts...)
	a.hosts, b.hosts = all, all
	stopA := a.run("a")
	b.run("b")
	const each = 26 // 52 in all, of which 48 fit
	if err := b.s.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.network, b.n = a.network, 1<<19
	var wg sync.WaitGroup
	for _, w := range []*world{a, b} {
		wg.Go(func() {
			for i := range each {
				w.create()
				if w == a && i == each/2 {
					stopA()
				}
			}
		})
	}
	wg.Wait()
	b.wait("all are decided", func(snap store.Snapshot) bool {
		return store.Servers.Count(snap, "phase", string(model.PhaseReady))+store.Servers.Count(snap, "phase", string(model.PhaseError)) == 2*each
	})
	b.settles(t.Fatalf)
	snap := b.s.Snapshot()
	if n := store.Servers.Count(snap, "phase", string(model.PhaseReady)); n != 48 {
		t.Errorf("%d servers are ready, want 48", n)
	}
	for _, h := range all {
		for id, boots := range h.Guests() {
			if boots != 1 {
				t.Errorf("guest %s was started %d times", id, boots)
			}
		}
	}
}

// TestReportsRaceWithRequests: reports and requests of many goroutines on two stores end
// in the same true state.
func TestReportsRaceWithRequests(t *testing.T) {
	cl, prefix := storetest.Client(t)
	a, b := worldOn(t, storetest.Open(t, cl, prefix)), worldOn(t, storetest.Open(t, cl, prefix))
	a.furnish()
	b.host("h", nil)
	a.hosts = b.hosts
	a.run("a")
	var ids []model.ID
	for range 4 {
		id := a.create().ID
		a.phase(id, model.PhaseReady)
		ids = append(ids, id)
	}
	if err := b.s.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.n = 1 << 19
	var wg sync.WaitGroup
	for _, w := range []*world{a, b} {
		wg.Go(func() {
			for i := range 20 {
				id := ids[i%len(ids)]
				var err error
				switch i % 3 {
				case 0:
					err = w.do(w.c.Stop, id)
				case 1:
					err = w.do(w.c.Start, id)
				default:
					err = w.do(func(tx *store.Tx, sc compute.Scope, id model.ID) (*model.Server, error) {
						return w.c.Reboot(tx, sc, id, true)
					}, id)
				}
				if err != nil && !fault.Is(err, fault.Conflict) {
					t.Errorf("%v", err)
				}
			}
		})
	}
	wg.Wait()
	a.settles(t.Fatalf)
}

// crowd makes 1000 hosts that hold n servers.
func (w *world) crowd(n int) {
	w.t.Helper()
	var hosts []model.ID
	for i := range 100 {
		w.update(func(tx *store.Tx) error {
			for j := range 10 {
				h := &model.Host{Meta: model.NewMeta("", fmt.Sprintf("h%03d%d", i, j), time.Now()), Zone: "nova", Capacity: model.HostCapacity{VCPUs: 1 << 20, MemoryMiB: 1 << 30, DiskGiB: 1 << 30, Arch: "x86_64"}}
				hosts = append(hosts, h.ID)
				if err := store.Hosts.Put(tx, h); err != nil {
					return err
				}
				if err := store.Heartbeats.Put(tx, &model.Heartbeat{HostID: h.ID}); err != nil {
					return err
				}
			}
			return nil
		})
	}
	for i := range n / 200 {
		w.update(func(tx *store.Tx) error {
			for j := range 200 {
				s := &model.Server{Meta: model.NewMeta(project, "s", time.Now()), Flavor: w.flavor, Host: hosts[(i*200+j)%1000], Status: model.ServerStatus{Phase: model.PhaseReady}}
				if err := store.Servers.Put(tx, s); err != nil {
					return err
				}
			}
			return nil
		})
	}
}

// BenchmarkPlacePass is one pass of the placement controller among 1000 hosts, with its
// commits: for 100 servers beside 5000, and for 1 server beside 20,000.
func BenchmarkPlacePass(b *testing.B) {
	for _, x := range []struct{ waiting, there int }{{100, 5000}, {1, 20000}} {
		b.Run(fmt.Sprintf("%d_beside_%d", x.waiting, x.there), func(b *testing.B) {
			w := newWorld(b)
			w.crowd(x.there)
			b.ResetTimer()
			for b.Loop() {
				b.StopTimer()
				for range x.waiting {
					w.create()
				}
				b.StartTimer()
				if _, err := w.c.Placer().Reconcile(b.Context(), w.s.Snapshot(), plainWriter{w.s}); err != nil {
					b.Fatal(err)
				}
			}
			if n := store.Servers.Count(w.s.Snapshot(), "phase", string(model.PhasePlacing)); n > 0 {
				b.Fatalf("%d servers wait", n)
			}
		})
	}
}

// BenchmarkSweep is one pass of the sweep that finds nothing to do among 20,000 servers.
func BenchmarkSweep(b *testing.B) {
	w := newWorld(b)
	w.crowd(20000)
	for b.Loop() {
		if _, err := w.c.Sweeper().Reconcile(b.Context(), w.s.Snapshot(), plainWriter{w.s}); err != nil {
			b.Fatal(err)
		}
	}
}

var _ compute.Ports = (*network.Network)(nil)
