package compute_test

import (
	"maps"
	"strings"
	"testing"
	"time"

	"yakumo/compute"
	"yakumo/fault"
	"yakumo/model"
	"yakumo/placement"
	"yakumo/store"
)

// kept says that a host keeps n CPUs for single guests.
func kept(n int) func(*model.Host) {
	return func(h *model.Host) {
		for id := range n {
			h.Capacity.Dedicated = append(h.Capacity.Dedicated, model.HostCPU{ID: id, Siblings: []int{id}})
		}
	}
}

// TestOwnCPUsAreCounted: CPUs for single servers and huge pages are promised once, whatever the ratios are, beside those that are shared; what is
// refused says how many there are, and the sum of a host is that of its rows.
func TestOwnCPUsAreCounted(t *testing.T) {
	w := newWorld(t)
	h := w.host("h", nil, kept(3), func(h *model.Host) {
		h.Capacity.VCPUs, h.Capacity.HugePages = 4, []model.HugePages{{KiB: 2048, Count: 160}} // one CPU is left to share; 320 MiB
	})
	w.run("1")
	flavor := func(vcpus int, specs ...string) *model.Flavor {
		f := w.flavor
		f.VCPUs, f.ExtraSpecs = vcpus, map[string]string{}
		for _, s := range specs {
			k, v, _ := strings.Cut(s, "=")
			f.ExtraSpecs[k] = v
		}
		return &f
	}
	create := func(f *model.Flavor) *model.Server {
		return w.create(func(n *compute.NewServer) { n.Flavor = f })
	}
	used := func() placement.Size {
		u, _ := compute.Used(w.s.Snapshot(), h.ID())
		u.MemoryMiB, u.DiskGiB = 0, 0
		return u
	}
	refused := func(s *model.Server, want string) {
		t.Helper()
		s = w.phase(s.ID, model.PhaseError)
		if !strings.Contains(s.Status.Fault.Details, want) {
			t.Errorf("it is refused with %+v, want %q", s.Status.Fault, want)
		}
		if err := w.delete(s.ID); err != nil {
			t.Fatal(err)
		}
		w.gone(s.ID)
	}
	own, large := "hw:cpu_policy=dedicated", "hw:mem_page_size=large"
	two := create(flavor(2, own, large))
	w.phase(two.ID, model.PhaseReady)
	refused(create(flavor(2, own)), "wants 2 CPUs for itself; 2 of 3 that are kept for single servers promised")
	refused(create(flavor(1, own, "hw:emulator_threads_policy=isolate")), "wants 2 CPUs for itself; 2 of 3")
	refused(create(flavor(2)), "wants 2 vCPUs for one server; the host has 1 at all")
	mixed := create(flavor(2, "hw:cpu_policy=mixed", "hw:cpu_dedicated_mask=0", large))
	w.phase(mixed.ID, model.PhaseReady)
	if got, want := used(), (placement.Size{VCPUs: 1, PCPUs: 3, PagesMiB: [2]int{256, 0}}); got != want {
		t.Errorf("%+v is used, want %+v", got, want)
	}
	refused(create(flavor(1, large)), "wants 128 MiB in pages of 2048 KiB; 256 of 320 MiB in such pages promised")
	for range 15 { // the shared one is over-committed as ever
		w.phase(create(flavor(1)).ID, model.PhaseReady)
	}
	refused(create(flavor(1)), "16 of 16 promised (1 × 16)")
	if err := w.delete(two.ID); err != nil {
		t.Fatal(err)
	}
	w.gone(two.ID)
	w.phase(create(flavor(2, own)).ID, model.PhaseReady)
	if got, want := used(), (placement.Size{VCPUs: 16, PCPUs: 3, PagesMiB: [2]int{128, 0}}); got != want {
		t.Errorf("%+v is used, want %+v", got, want)
	}
}

// TestThreadsAreCounted: who asks for whole cores, or for threads of one, gets them where the host has said that they are free, or has not said
// of a server yet that will get others.
func TestThreadsAreCounted(t *testing.T) {
	w := newWorld(t)
	cores := func(h *model.Host) {
		h.Capacity.VCPUs = 8
		for id := range 6 { // three of two threads
			h.Capacity.Dedicated = append(h.Capacity.Dedicated, model.HostCPU{ID: id, Siblings: []int{id &^ 1, id | 1}})
		}
	}
	h := w.host("h", nil, cores)
	w.run("1")
	create := func(vcpus int, threads string) *model.Server {
		f := w.flavor
		f.VCPUs, f.ExtraSpecs = vcpus, map[string]string{"hw:cpu_policy": "dedicated", "hw:cpu_thread_policy": threads}
		return w.create(func(n *compute.NewServer) { n.Flavor = &f })
	}
	refused := func(s *model.Server, want string) {
		t.Helper()
		if s = w.phase(s.ID, model.PhaseError); !strings.Contains(s.Status.Fault.Details, want) {
			t.Errorf("it is refused with %+v, want %q", s.Status.Fault, want)
		}
	}
	a := create(1, "prefer")
	w.phase(a.ID, model.PhaseReady)
	b := create(2, "isolate")
	w.phase(b.ID, model.PhaseReady)
	refused(create(1, "require"), "cpu_threads: no free sibling threads: wants 1 CPUs with a sibling; 1 of 6 that are kept for single servers are free, 0 of them with a sibling")
	refused(create(1, "isolate"), "cpu_threads: no free cores: CPU thread policy isolate wants 1 whole cores; 0 are wholly free")
	refused(create(2, "prefer"), "cpu_threads: wants 2 CPUs for itself; 1 of 6 that are kept for single servers are free")
	w.phase(create(1, "prefer").ID, model.PhaseReady)
	if err := w.delete(b.ID); err != nil {
		t.Fatal(err)
	}
	w.gone(b.ID)
	// The host says that the two single ones are in cores of their own: one core is left, and CPUs of two others.
	if _, err := w.s.Update(t.Context(), func(tx *store.Tx) error {
		row, _ := store.Hosts.Get(tx, h.ID())
		n := *row
		at := 0
		for s := range store.Servers.List(tx, "host", h.ID()) {
			if n.Capacity.Given = append(n.Capacity.Given, model.HostGiven{ServerID: s.ID, CPUs: []int{at}}); s.Status.Phase == model.PhaseReady {
				at += 2
			}
		}
		n.Capacity.Given = append(n.Capacity.Given, model.HostGiven{ServerID: b.ID, CPUs: []int{4, 5}}) // which is gone
		return store.Hosts.Put(tx, &n)
	}); err != nil {
		t.Fatal(err)
	}
	refused(create(3, "require"), "wants 3 CPUs with a sibling; 4 of 6 that are kept for single servers are free, 2 of them with a sibling")
	w.phase(create(2, "require").ID, model.PhaseReady)
	w.phase(create(2, "prefer").ID, model.PhaseReady)
}

// TestPagesAreCountedByNode: huge pages are promised where a node of the host has as many for each cell, and not where all of them together have.
func TestPagesAreCountedByNode(t *testing.T) {
	w := newWorld(t)
	w.host("h", nil, func(h *model.Host) {
		h.Capacity.HugePages = []model.HugePages{{KiB: 2048, Count: 60}, {KiB: 2048, Count: 70, Node: 1}}
	})
	w.run("1")
	create := func(mib int, specs map[string]string) *model.Server {
		f := w.flavor
		f.VCPUs, f.MemoryMiB, f.ExtraSpecs = 2, mib, map[string]string{"hw:mem_page_size": "large"}
		maps.Copy(f.ExtraSpecs, specs)
		return w.create(func(n *compute.NewServer) { n.Flavor = &f })
	}
	refused := func(s *model.Server, want string) {
		t.Helper()
		if s = w.phase(s.ID, model.PhaseError); !strings.Contains(s.Status.Fault.Details, want) {
			t.Errorf("it is refused with %+v, want %q", s.Status.Fault, want)
		}
	}
	refused(create(160, nil), "huge_pages: wants 160 MiB in pages of 2048 KiB, each in one NUMA node; free are 120 MiB in node 0, 140 MiB in node 1")
	w.phase(create(160, map[string]string{"hw:numa_nodes": "2"}).ID, model.PhaseReady)
	refused(create(80, nil), "wants 80 MiB in pages of 2048 KiB, each in one NUMA node; free are 40 MiB in node 0, 60 MiB in node 1")
	w.phase(create(60, nil).ID, model.PhaseReady)
	refused(create(60, nil), "wants 60 MiB in pages of 2048 KiB; 220 of 260 MiB in such pages promised")
	w.phase(create(40, nil).ID, model.PhaseReady)
}

// TestCPUsThatCannotBe: what flavor and image cannot have together is refused before anything begins, in Nova's words.
func TestCPUsThatCannotBe(t *testing.T) {
	w := newWorld(t)
	w.host("h", nil, kept(4))
	w.run("1")
	f := w.flavor
	f.ID, f.Name, f.ExtraSpecs = "2", "shared", map[string]string{"hw:cpu_policy": "shared"}
	pinned := *image
	pinned.Meta, pinned.Properties = model.NewMeta(project, "pinned", time.Now()), map[string]string{"hw_cpu_policy": "dedicated"}
	try := func(f *model.Flavor, img *model.Image) error {
		_, err := w.s.Update(t.Context(), func(tx *store.Tx) error {
			_, err := w.c.Create(tx, w.scope(), compute.NewServer{ID: model.NewID(), Name: "web", Flavor: f, Image: img, Copy: img.Copy()})
			return err
		})
		return err
	}
	says := func(err error, want string) {
		t.Helper()
		if text, _ := fault.Text(err); !fault.Is(err, fault.Invalid) || !strings.Contains(text, want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	says(try(&f, &pinned), "Image property 'hw_cpu_policy' is not permitted to override CPU pinning policy set against the flavor")
	g := f
	g.ID, g.ExtraSpecs = "3", map[string]string{"hw:cpu_policy": "mixed"}
	says(try(&g, image), "Must specify either 'hw:cpu_dedicated_mask'")
	g.ExtraSpecs = map[string]string{"hw:numa_nodes": "64"}
	says(try(&g, image), "cannot be evenly distributed across instance NUMA nodes")
	g.ExtraSpecs = map[string]string{"hw:mem_page_size": "3MB"}
	says(try(&g, image), "Invalid memory page size '3MB'")
	g.ExtraSpecs = map[string]string{"hw:cpu_policy": "mixed"}
	if n := store.Servers.Count(w.s.Snapshot(), "project", project); n != 0 {
		t.Errorf("%d servers were made", n)
	}
	s := w.create()
	w.phase(s.ID, model.PhaseReady)
	says(w.do(func(tx *store.Tx, sc compute.Scope, id model.ID) (*model.Server, error) {
		return w.c.Resize(tx, sc, id, &g)
	}, s.ID), "Must specify either 'hw:cpu_dedicated_mask'")
	says(w.do(func(tx *store.Tx, sc compute.Scope, id model.ID) (*model.Server, error) {
		return w.c.Rebuild(tx, sc, id, compute.Rebuild{Image: &pinned, Copy: pinned.Copy()})
	}, s.ID), "An instance's NUMA topology cannot be changed as part of a rebuild.")
	own := w.create(func(n *compute.NewServer) { n.Image, n.Copy = &pinned, pinned.Copy() })
	w.phase(own.ID, model.PhaseReady)
	alone := pinned
	alone.Properties = map[string]string{"hw_cpu_policy": "dedicated", "hw_cpu_thread_policy": "isolate"}
	says(w.do(func(tx *store.Tx, sc compute.Scope, id model.ID) (*model.Server, error) {
		return w.c.Rebuild(tx, sc, id, compute.Rebuild{Image: &alone, Copy: alone.Copy()})
	}, own.ID), "An instance's NUMA topology cannot be changed as part of a rebuild.")
	if got := w.get(s.ID); got.Rebuilds != 0 || got.Move != nil {
		t.Errorf("it was changed: %+v", got)
	}
}
