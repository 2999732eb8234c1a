package agent

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"yakumo/hypervisor"
	"yakumo/hypervisor/fake"
	"yakumo/model"
)

// twoNodes are two NUMA nodes of two cores of two threads: 0 to 3 and 4 to 7.
func twoNodes() hypervisor.Capacity {
	c := hypervisor.Capacity{Hostname: "fake", VCPUs: 8, MemoryMiB: 8 << 10, DiskGiB: 100, Arch: "x86_64", Cells: 2, Sockets: 1, Cores: 2, Threads: 2, HypervisorType: "fake", HypervisorVersion: 1, Accelerator: "tcg"}
	for id := range 8 {
		first := id &^ 1
		c.CPUs = append(c.CPUs, hypervisor.CPU{ID: id, Node: id / 4, Siblings: []int{first, first + 1}})
	}
	return c
}

// keptCPUs are those of twoNodes that guests may have for themselves.
var keptCPUs = []int{1, 2, 3, 5, 6, 7}

// pinWatch looks, whenever a guest was started, that no CPU is two guests'.
type pinWatch struct {
	hypervisor.Driver
	host  *fake.Host
	wrong *atomic.Pointer[string]
}

func (w pinWatch) Start(ctx context.Context, id string) error {
	err := w.Driver.Start(ctx, id)
	if list, listErr := fake.New(fake.Config{Host: w.host}).List(ctx); listErr == nil {
		if text := doubles(w.host, list); text != "" {
			w.wrong.Store(&text)
		}
	}
	return err
}

func (w pinWatch) CPUs(ctx context.Context, id string) (hypervisor.HostCPUs, error) {
	return w.Driver.(hypervisor.Pinner).CPUs(ctx, id)
}

func doubles(h *fake.Host, list []hypervisor.State) string {
	owner := map[int]string{}
	for _, s := range list {
		g, on := h.Live(s.ID)
		if !on {
			continue
		}
		own := slices.Collect(maps.Values(g.CPUs.Pins))
		if len(g.CPUs.Emulator) == 1 && !slices.Contains(own, g.CPUs.Emulator[0]) {
			own = append(own, g.CPUs.Emulator[0])
		}
		if g.Specs["hw:cpu_thread_policy"] == "isolate" {
			for c := range maps.Values(g.CPUs.Pins) {
				own = append(own, c^1)
			}
		}
		for _, c := range own {
			if owner[c] != "" || !slices.Contains(keptCPUs, c) {
				return fmt.Sprintf("CPU %d is of %q and %q", c, owner[c], s.ID)
			}
			owner[c] = s.ID
		}
	}
	return ""
}

// askings are what servers ask of CPUs: extra specs and virtual processors.
var askings = []struct {
	vcpus int
	specs map[string]string
}{
	{2, nil}, {1, map[string]string{"hw:cpu_policy": "dedicated"}}, {2, map[string]string{"hw:cpu_policy": "dedicated", "hw:emulator_threads_policy": "share"}},
	{3, map[string]string{"hw:cpu_policy": "mixed", "hw:cpu_dedicated_mask": "^0"}}, {1, map[string]string{"hw:cpu_policy": "dedicated", "hw:emulator_threads_policy": "isolate"}},
	{1, map[string]string{"hw:cpu_policy": "dedicated", "hw:cpu_thread_policy": "isolate"}}, {2, map[string]string{"hw:cpu_policy": "dedicated", "hw:cpu_thread_policy": "require"}},
}

// room tells whether these all have CPUs of keptCPUs in whatever order they come and go: two cores are whole, and each single CPU may break one.
func room(all []model.Processors) bool {
	used, cores, single := 0, 0, 0
	for _, p := range all {
		switch n := len(p.Dedicated); p.Threads {
		case model.ThreadsIsolate:
			used, cores = used+2*n, cores+n
		case model.ThreadsRequire:
			used, cores = used+n, cores+(n+1)/2
		default:
			used, single = used+p.Own(), single+p.Own()
		}
	}
	return used <= len(keptCPUs) && (cores == 0 || cores+single <= 2)
}

// TestOwnCPUs boots, turns off and on, deletes and sends away servers, as many as placement would by their numbers, while agents are killed, ledgers
// are lost and the host's power is cut: no CPU is ever two guests', every server that is wanted runs, on CPUs of its own or on the shared ones, and
// the inventory says so.
func TestOwnCPUs(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		dir, err := os.MkdirTemp("", "agent")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(dir)
		w := newWorld(dir, fake.HostConfig{Capacity: twoNodes()})
		c := newCloud(w.side)
		rows := map[model.ID]*model.HostServer{}
		var order []model.ID
		generation := int64(1)
		var wrong atomic.Pointer[string]
		own := func(s *model.HostServer) model.Processors {
			p, _ := model.ProcessorsOf(s.VCPUs, s.ExtraSpecs, nil)
			return p
		}
		act := func() {
			generation++
			var used []model.Processors
			order = slices.DeleteFunc(order, func(id model.ID) bool { return rows[id].Deleted && w.side.server(id).Gone })
			for _, id := range order {
				used = append(used, own(rows[id]))
			}
			kind := rapid.IntRange(0, 6).Draw(t, "act")
			if len(order) == 0 || kind < 3 {
				ask := rapid.SampledFrom(askings).Draw(t, "ask")
				s, _ := c.server()
				s.NICs, s.VCPUs, s.ExtraSpecs = nil, ask.vcpus, ask.specs
				if room(append(used, own(s))) {
					rows[s.ID], order = s, append(order, s.ID)
				}
				return
			}
			id := rapid.SampledFrom(order).Draw(t, "server")
			s := rows[id]
			switch {
			case s.Deleted:
			case kind == 3:
				rows[id] = with(s, func(s *model.HostServer) { s.Power = model.PowerOff })
			case kind == 4:
				rows[id] = with(s, func(s *model.HostServer) { s.Power = model.PowerRunning; s.HardReboots++ })
			case kind == 5:
				rows[id] = with(s, func(s *model.HostServer) { s.Deleted = true })
			default: // another host has it
				order = slices.DeleteFunc(order, func(x model.ID) bool { return x == id })
			}
		}
		all := func() []model.HostRow {
			out := c.base()
			for _, id := range order {
				out = append(out, rows[id])
			}
			return out
		}
		begin := func(f *fuse) *running {
			return w.start(t, func(c *Config) {
				c.Dedicated, c.Repeat.Limit = keptCPUs, 1<<30
				if c.Hypervisor = (pinWatch{c.Hypervisor, w.host, &wrong}); f != nil {
					c.Hypervisor = mortalHypervisor{c.Hypervisor, f}
				}
			})
		}
		for range rapid.IntRange(1, 3).Draw(t, "lives") {
			f := newFuse(int64(rapid.IntRange(1, 20).Draw(t, "calls")))
			dead := make(chan struct{})
			f.blow = func() { close(dead) }
			a := begin(f)
			closed := make(chan error, 1)
			go func() { <-dead; closed <- a.ledger.close() }()
			for range rapid.IntRange(1, 5).Draw(t, "acts") {
				act()
				_ = a.Apply(context.Background(), full(generation, all()...)) // it may be dead
			}
			f.left.Store(0)
			f.once.Do(f.blow)
			<-closed
			a.cancel()
			<-a.ended
			if err := a.dp.Close(); err != nil {
				t.Fatal(err)
			}
			switch rapid.IntRange(0, 4).Draw(t, "then") {
			case 0:
				if err := os.Remove(filepath.Join(dir, "ledger.db")); err != nil {
					t.Fatal(err)
				}
			case 1:
				w.host.PowerCut()
				w.boot += "+"
			}
		}
		a := begin(nil)
		defer a.stop(t)
		act()
		w.side.apply(t, full(generation, all()...))
		for _, id := range order {
			if s := rows[id]; s.Deleted {
				waitFor(t, "a deleted server to be gone", func() bool { return w.side.server(id).Gone })
			} else {
				w.settled(t, id, s.Generation, model.PhaseReady, s.Power)
			}
		}
		if text := wrong.Load(); text != nil {
			t.Fatal(*text)
		}
		inv, err := a.inventory(context.Background(), struct{}{})
		if err != nil {
			t.Fatal(err)
		}
		for _, id := range order {
			g, on := w.host.Live(id)
			if s := rows[id]; !s.Deleted && s.Power == model.PowerRunning {
				want := own(s)
				has := want.Own()
				if want.Threads == model.ThreadsIsolate {
					has *= 2 // with siblings that run nothing
				}
				at := slices.IndexFunc(inv.Guests, func(g model.GuestAt) bool { return g.ID == id })
				if !on || !slices.Equal(slices.Sorted(maps.Keys(g.CPUs.Pins)), want.Dedicated) || !slices.Equal(g.CPUs.Shared, []int{0, 4}) || at < 0 || len(inv.Guests[at].CPUs) != has {
					t.Fatalf("%v runs on %+v, and the inventory has %+v", s.ExtraSpecs, g.CPUs, inv.Guests)
				}
			}
		}
	})
}

// TestMovesToOwnCPUs: a guest that comes from another host, live or not, runs on CPUs that are free there, and finds its own where it goes back.
func TestMovesToOwnCPUs(t *testing.T) {
	v := newPair(t, t, t.TempDir(), fake.HostConfig{Capacity: twoNodes()})
	v.s.ExtraSpecs = map[string]string{"hw:cpu_policy": "dedicated"}
	for i, kept := range [][]int{{2, 3}, {6, 7}} {
		v.change[i] = func(c *Config) { c.Dedicated = kept }
	}
	v.boot(t)
	defer v.close(t)
	at := func() int {
		g, _ := v.hosts[v.host].host.Live(v.s.ID)
		if len(g.CPUs.Pins) != 1 {
			t.Fatalf("it runs on %+v", g.CPUs)
		}
		return g.CPUs.Pins[0]
	}
	if got := at(); got != 2 {
		t.Errorf("it begins on CPU %d", got)
	}
	// Another guest there has the first.
	other, _ := v.cloud.server()
	other.NICs, other.ExtraSpecs = nil, v.s.ExtraSpecs
	v.more[1] = []model.HostRow{other}
	v.tell(1)
	v.hosts[1].settled(t, other.ID, 1, model.PhaseReady, model.PowerRunning)
	v.begin(model.MoveLive)
	waitFor(t, "the move to end", func() bool { v.decide(); return v.move == nil })
	if got := at(); v.ended != "done" || v.host != 1 || got != 7 {
		t.Errorf("%s: on host %d it runs on CPU %d", v.ended, v.host, got)
	}
	v.begin(model.MoveCold)
	waitFor(t, "it to be there", func() bool { v.decide(); return v.move != nil && v.move.Stage == model.MoveVerify })
	v.hosts[0].settled(t, v.s.ID, v.s.Generation, model.PhaseReady, model.PowerRunning)
	if got := at(); v.host != 0 || got != 2 {
		t.Errorf("on host %d it runs on CPU %d", v.host, got)
	}
	// What it may come back to stays its own.
	if p, _ := v.agents[1].ledger.progressOf(v.s.ID); !slices.Equal(p.CPUs.list(), []int{7}) {
		t.Errorf("the host that it may come back to keeps %v for it", p.CPUs.list())
	}
}

// TestOneCPUForOne: the only CPU is given on when its guest is gone and not before, also where the ledger was lost that knew whose it is; who finds it
// taken by one that stays is refused with the numbers.
func TestOneCPUForOne(t *testing.T) {
	w := newWorld(t.TempDir(), fake.HostConfig{Capacity: twoNodes(), Faults: []fake.Fault{{Op: fake.Remove, Delay: 300 * time.Millisecond}}})
	c := newCloud(w.side)
	var wrong atomic.Pointer[string]
	begin := func() *running {
		return w.start(t, func(c *Config) {
			c.Dedicated, c.Hypervisor = []int{5}, pinWatch{c.Hypervisor, w.host, &wrong}
		})
	}
	next := func() *model.HostServer {
		s, _ := c.server()
		s.NICs, s.ExtraSpecs = nil, map[string]string{"hw:cpu_policy": "dedicated"}
		return s
	}
	runs := func(s *model.HostServer) {
		t.Helper()
		w.settled(t, s.ID, s.Generation, model.PhaseReady, model.PowerRunning)
		if g, _ := w.host.Live(s.ID); g.CPUs.Pins[0] != 5 || !slices.Equal(g.CPUs.Emulator, []int{5}) {
			t.Errorf("it runs on %+v", g.CPUs)
		}
	}
	a := begin()
	first, second, third := next(), next(), next()
	w.side.apply(t, full(1, append(c.base(), first)...))
	runs(first)
	w.side.apply(t, full(2, append(c.base(), second)...)) // the first is elsewhere now
	runs(second)
	w.side.apply(t, full(3, append(c.base(), second, third)...))
	if r := w.faulty(t, third.ID, 1); !strings.Contains(r.Fault.Message, "asks for 1 CPUs for itself, and 0 of the 1 that the host keeps for such are free") {
		t.Errorf("it is refused with %+v", r.Fault)
	}
	lose := func() {
		a.stop(t)
		if err := os.Remove(filepath.Join(w.dir, "ledger.db")); err != nil {
			t.Fatal(err)
		}
		a = begin()
	}
	lose()
	fourth := next()
	w.side.apply(t, full(4, append(c.base(), fourth, second)...))
	w.faulty(t, fourth.ID, 1)
	second = with(second, func(s *model.HostServer) { s.HardReboots++ })
	w.side.apply(t, full(5, append(c.base(), second)...))
	runs(second)
	lose()
	fifth := next()
	w.side.apply(t, full(6, append(c.base(), fifth)...)) // the second is nobody's
	runs(fifth)
	a.stop(t)
	// What it has is kept for such guests no more: it is given what is, when it next starts.
	a = w.start(t, func(c *Config) { c.Dedicated = []int{2} })
	fifth = with(fifth, func(s *model.HostServer) { s.HardReboots++ })
	w.side.apply(t, full(7, append(c.base(), fifth)...))
	w.settled(t, fifth.ID, fifth.Generation, model.PhaseReady, model.PowerRunning)
	if g, _ := w.host.Live(fifth.ID); g.CPUs.Pins[0] != 2 || slices.Contains(g.CPUs.Shared, 2) {
		t.Errorf("it runs on %+v", g.CPUs)
	}
	if f, err := a.Facts(t.Context()); err != nil || len(f.Capacity.Dedicated) != 1 || f.Capacity.SharedCPUs() != 7 || !reflect.DeepEqual(f.Capacity.Dedicated[0], model.HostCPU{ID: 2, Siblings: []int{2, 3}}) ||
		!reflect.DeepEqual(f.Capacity.Given, []model.HostGiven{{ServerID: fifth.ID, CPUs: []int{2}}}) {
		t.Errorf("the host tells of %+v, %v", f.Capacity, err)
	}
	a.stop(t)
	if text := wrong.Load(); text != nil {
		t.Error(*text)
	}
}
