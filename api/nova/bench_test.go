package nova_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"yakumo/model"
	"yakumo/store"
)

// BenchmarkCreateToActive is from the request to the moment when a list would show ACTIVE,
// one server after the other, with a fake host that takes no time itself.
func BenchmarkCreateToActive(b *testing.B) {
	c := newCloud(b)
	c.furnish()
	c.host("h1", large)
	c.must(200, "admin", "PUT", "/os-quota-sets/"+red, object{"quota_set": object{"instances": -1, "cores": -1, "ram": -1}})
	b.ResetTimer()
	for b.Loop() {
		id := c.boot("red", "s")
		c.wait("red", id, "status", "ACTIVE")
		b.StopTimer()
		c.do("red", "DELETE", "/servers/"+id, nil)
		c.gone("red", id)
		b.StartTimer()
	}
}

func large(h *model.Host) {
	h.Capacity.VCPUs, h.Capacity.MemoryMiB, h.Capacity.DiskGiB = 1<<20, 1<<40, 1<<40
}

// BenchmarkBootRate is how many servers a second come to ACTIVE of those that 8 clients ask
// for at once, on 10 fake hosts.
func BenchmarkBootRate(b *testing.B) {
	c := newCloud(b)
	c.furnish()
	for i := range 10 {
		c.host(fmt.Sprint("h", i), large)
	}
	c.must(200, "admin", "PUT", "/os-quota-sets/"+red, object{"quota_set": object{"instances": -1, "cores": -1, "ram": -1}})
	b.ResetTimer()
	n, start := 0, time.Now()
	for b.Loop() {
		const each = 100
		var wg sync.WaitGroup
		for k := range 8 {
			wg.Go(func() {
				for i := k; i < each; i += 8 {
					body := object{"server": object{"name": "s", "imageRef": c.image, "flavorRef": "1", "networks": []object{{"uuid": c.network}}}}
					if a := c.do("red", "POST", "/servers", body); a.status != 202 {
						b.Errorf("%d %s", a.status, a.raw)
					}
				}
			})
		}
		wg.Wait()
		n += each
		c.eventually(func() bool { return store.Servers.Count(c.store.Snapshot(), "phase", string(model.PhaseReady)) == n }, func() string { return "not all are ready" })
		if n >= 900 { // the subnet holds 1021
			b.StopTimer()
			for s := range store.Servers.All(c.store.Snapshot()) {
				c.do("red", "DELETE", "/servers/"+s.ID, nil)
			}
			c.eventually(func() bool { return store.Servers.Count(c.store.Snapshot(), "project", red) == 0 }, func() string { return "not all are gone" })
			n = 0
			b.StartTimer()
		}
	}
	b.ReportMetric(float64(b.N*100)/time.Since(start).Seconds(), "servers/s")
}

// BenchmarkList1000Detail is a list of 1000 servers with details, each with a port.
func BenchmarkList1000Detail(b *testing.B) {
	c := newCloud(b)
	c.furnish()
	h := c.host("h1", large)
	c.must(200, "admin", "PUT", "/os-quota-sets/"+red, object{"quota_set": object{"instances": -1, "cores": -1, "ram": -1}})
	for range 10 {
		c.boot("red", "s", "min_count", 100)
	}
	c.eventually(func() bool { return store.Servers.Count(c.store.Snapshot(), "phase", string(model.PhaseReady)) == 1000 }, func() string { return "not all are ready" })
	h.Stop()
	b.ResetTimer()
	for b.Loop() {
		if rows := c.do("red", "GET", "/servers/detail", nil, "2.96"); rows.status != 200 || len(rows.raw) < 500000 {
			b.Fatalf("%d, %d bytes", rows.status, len(rows.raw))
		}
	}
}

// BenchmarkPageOf20 is a page of 20 of 1000 servers.
func BenchmarkPageOf20(b *testing.B) {
	c := newCloud(b)
	c.furnish()
	ids := c.seed(1000, nil)
	b.ResetTimer()
	for b.Loop() {
		if a := c.do("red", "GET", "/servers/detail?limit=20&marker="+ids[500], nil); a.status != 200 {
			b.Fatal(a.status)
		}
	}
}
