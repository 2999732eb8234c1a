package agent

import (
	"testing"

	"yakumo/hypervisor/fake"
	"yakumo/model"
)

// BenchmarkBoot100 takes 100 guests from the batch to running, with fakes in place of the
// hypervisor, the switch and qemu-img.
func BenchmarkBoot100(b *testing.B) {
	for b.Loop() {
		w := newWorld(b.TempDir(), fake.HostConfig{})
		c := newCloud(w.side)
		rows := c.base()
		var servers []*model.HostServer
		for range 100 {
			s, p := c.server()
			servers = append(servers, s)
			rows = append(rows, s, p)
		}
		a := w.start(b, nil)
		w.side.apply(b, full(5, rows...))
		for _, s := range servers {
			w.settled(b, s.ID, 1, model.PhaseReady, model.PowerRunning)
		}
		b.StopTimer()
		a.stop(b)
		b.StartTimer()
	}
}

// BenchmarkReconcileIdle100 looks at 100 guests that are as they should be, as the timer does.
func BenchmarkReconcileIdle100(b *testing.B) {
	w := newWorld(b.TempDir(), fake.HostConfig{})
	c := newCloud(w.side)
	rows := c.base()
	var servers []*model.HostServer
	for range 100 {
		s, p := c.server()
		servers = append(servers, s)
		rows = append(rows, s, p)
	}
	a := w.startFor(b)
	w.side.apply(b, full(5, rows...))
	for _, s := range servers {
		w.settled(b, s.ID, 1, model.PhaseReady, model.PowerRunning)
	}
	b.ReportAllocs()
	for b.Loop() {
		for _, s := range servers {
			if again := a.reconcile(b.Context(), s.ID); again != 0 {
				b.Fatalf("something is to be done in %v", again)
			}
		}
	}
}

// BenchmarkLeasesIdle is the look at leases, twice a second, of a host with 100 guests of which none is leased, and 2,000 other rows.
func BenchmarkLeasesIdle(b *testing.B) {
	w := newWorld(b.TempDir(), fake.HostConfig{})
	c := newCloud(w.side)
	rows := c.base()
	var servers []*model.HostServer
	for range 100 {
		s, p := c.server()
		servers = append(servers, s)
		rows = append(rows, s, p)
	}
	for range 2000 {
		rows = append(rows, &model.HostPeer{ID: model.NewID(), NetworkID: c.network.ID})
	}
	a := w.startFor(b)
	w.side.apply(b, full(5, rows...))
	for _, s := range servers {
		w.settled(b, s.ID, 1, model.PhaseReady, model.PowerRunning)
	}
	b.ReportAllocs()
	for b.Loop() {
		if due := a.leases.look(); len(due) != 0 {
			b.Fatalf("leases of %v have ended", due)
		}
	}
}

// BenchmarkMetadata asks for meta_data.json.
func BenchmarkMetadata(b *testing.B) {
	_, a, _, _, alias := two(b)
	b.ReportAllocs()
	for b.Loop() {
		if w := ask(a.Agent, alias[0], "GET", "/openstack/latest/meta_data.json"); w.Code != 200 {
			b.Fatal(w.Code)
		}
	}
}

// BenchmarkApply takes a batch that changes one row of a thousand.
func BenchmarkApply(b *testing.B) {
	w := newWorld(b.TempDir(), fake.HostConfig{})
	a := w.startFor(b)
	rows := []model.HostRow{}
	for range 1000 {
		rows = append(rows, &model.HostPeer{ID: model.NewID()})
	}
	w.side.apply(b, full(5, rows...))
	generation := int64(6)
	for b.Loop() {
		if err := a.Apply(b.Context(), change(generation, rows[generation%1000])); err != nil {
			b.Fatal(err)
		}
		generation++
	}
}
