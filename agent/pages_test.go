package agent

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"yakumo/hypervisor"
	"yakumo/hypervisor/fake"
	"yakumo/model"
)

// TestPagesByNode: each cell's memory is bound to a node that has as many pages left, where its CPUs are too; what one node has not is refused,
// whatever all have; a lost ledger is read back from the guests, and who waits for one that leaves gets its pages.
func TestPagesByNode(t *testing.T) {
	capacity := twoNodes()
	capacity.HugePages = []hypervisor.HugePages{{KiB: 2048, Count: 100, Node: 0}, {KiB: 2048, Count: 64, Node: 1}}
	w := newWorld(t.TempDir(), fake.HostConfig{Capacity: capacity})
	c := newCloud(w.side)
	begin := func() *running {
		return w.start(t, func(c *Config) { c.Dedicated = keptCPUs })
	}
	generation := int64(0)
	next := func(mib, vcpus int, specs ...string) *model.HostServer {
		s, _ := c.server()
		s.NICs, s.MemoryMiB, s.VCPUs, s.ExtraSpecs = nil, mib, vcpus, map[string]string{"hw:mem_page_size": "large"}
		for _, x := range specs {
			k, v, _ := strings.Cut(x, "=")
			s.ExtraSpecs[k] = v
		}
		return s
	}
	tell := func(rows ...*model.HostServer) {
		generation++
		all := c.base()
		for _, r := range rows {
			all = append(all, r)
		}
		w.side.apply(t, full(generation, all...))
	}
	runs := func(s *model.HostServer, nodes ...int) hypervisor.HostCPUs {
		t.Helper()
		w.settled(t, s.ID, s.Generation, model.PhaseReady, model.PowerRunning)
		g, _ := w.host.Live(s.ID)
		if !g.CPUs.Bound || !slices.Equal(g.CPUs.Nodes, nodes) {
			t.Errorf("its memory is bound to %+v, want %v", g.CPUs, nodes)
		}
		return g.CPUs
	}
	a := begin()
	first, second := next(120, 1), next(100, 2, "hw:cpu_policy=dedicated")
	tell(first)
	runs(first, 1) // it fits into the smaller one
	tell(first, second)
	if cpus := runs(second, 0); cpus.Pins[0] > 3 || cpus.Pins[1] > 3 {
		t.Errorf("its memory is in node 0, and it runs on %+v", cpus.Pins)
	}
	fourth := next(104, 1)
	tell(first, second, fourth)
	if r := w.faulty(t, fourth.ID, 1); !strings.Contains(r.Fault.Message, "fit into no NUMA nodes of the host; free are 100 MiB in node 0, 8 MiB in node 1") {
		t.Errorf("it is refused with %+v", r.Fault)
	}
	a.stop(t)
	if err := os.Remove(filepath.Join(w.dir, "ledger.db")); err != nil {
		t.Fatal(err)
	}
	a = begin()
	cells := next(108, 2, "hw:numa_nodes=2", "hw:numa_cpus.0=0", "hw:numa_mem.0=8", "hw:numa_cpus.1=1", "hw:numa_mem.1=100")
	tell(first, second, cells)
	runs(cells, 1, 0)
	if f, err := a.Facts(t.Context()); err != nil || len(f.Capacity.Given) != 3 || !slices.ContainsFunc(f.Capacity.Given, func(g model.HostGiven) bool {
		return g.ServerID == cells.ID && reflect.DeepEqual(g.Pages, []model.HugePages{{KiB: 2048, Count: 4, Node: 1}, {KiB: 2048, Count: 50, Node: 0}})
	}) {
		t.Errorf("the host tells of %+v, %v", f.Capacity.Given, err)
	}
	fifth := next(120, 1)
	tell(second, cells, fifth) // the first is elsewhere now
	runs(fifth, 1)
	a.stop(t)
}
