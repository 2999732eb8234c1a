package neutron_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// crowd makes ports in one project, 10,000 to a network, under a quota that is finite, and
// gives the networks.
func crowd(b *testing.B, c *cloud, ports int) (networks []string) {
	b.Helper()
	c.must(200, "admin", "PUT", "/v2.0/quotas/"+red, object{"quota": object{"port": 10_000_000, "network": 1000, "subnet": 1000, "security_group_rule": 1000}})
	for made := 0; made < ports; made += 200 {
		if made%10_000 == 0 {
			networks = append(networks, c.network("red", fmt.Sprintf("w%d", made)))
			c.subnet("red", networks[len(networks)-1], "10.0.0.0/16")
		}
		list := make([]object, min(200, ports-made))
		for i := range list {
			list[i] = object{"network_id": networks[len(networks)-1], "name": fmt.Sprintf("p%d", made+i)}
		}
		if a := c.do("red", "POST", "/v2.0/ports", object{"ports": list}); a.status != 201 {
			b.Fatalf("%d %s", a.status, a.raw)
		}
	}
	return networks
}

// timed runs f for as long as the benchmark asks and reports the 50th and 99th of 100, and
// what it costs of CPU, the state store's part included: a figure that a busy machine spoils less.
func timed(b *testing.B, f func()) {
	var took []time.Duration
	before := cpu(b)
	defer func() { b.ReportMetric((cpu(b)-before).Seconds()*1000/float64(len(took)), "cpu-ms/op") }()
	for b.Loop() {
		start := time.Now()
		f()
		took = append(took, time.Since(start))
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
}

// cpu is what this process has used of CPUs.
func cpu(b *testing.B) time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkCrowd is what one project with very many ports does over the HTTP handler, under
// finite quotas: each operation should cost about the same however many there are.
func BenchmarkCrowd(b *testing.B) {
	for _, ports := range []int{1000, 100_000} {
		c := newCloud(b)
		networks := crowd(b, c, ports)
		b.Run(fmt.Sprintf("%d/create-port", ports), func(b *testing.B) {
			timed(b, func() { c.port("red", networks[0]) })
		})
		b.Run(fmt.Sprintf("%d/list-network", ports), func(b *testing.B) { // at most 10,000 ports
			timed(b, func() {
				if a := c.get("red", "/v2.0/ports?network_id="+networks[len(networks)-1]); a != 200 {
					b.Fatal(a)
				}
			})
		})
		b.Run(fmt.Sprintf("%d/list-10000", ports), func(b *testing.B) {
			timed(b, func() {
				if a := c.get("red", "/v2.0/ports?limit=10000"); a != 200 {
					b.Fatal(a)
				}
			})
		})
		b.Run(fmt.Sprintf("%d/quota-details", ports), func(b *testing.B) {
			timed(b, func() {
				if a := c.get("red", "/v2.0/quotas/"+red+"/details"); a != 200 {
					b.Fatal(a)
				}
			})
		})
		b.Run(fmt.Sprintf("%d/100-rules", ports), func(b *testing.B) {
			timed(b, func() {
				g := c.must(201, "red", "POST", "/v2.0/security-groups", object{"security_group": object{"name": "g"}})["id"].(string)
				for i := range 100 {
					c.must(201, "red", "POST", "/v2.0/security-group-rules", object{"security_group_rule": object{"security_group_id": g,
						"direction": "ingress", "protocol": "tcp", "port_range_min": i + 1, "port_range_max": i + 1}})
				}
				c.must(204, "red", "DELETE", "/v2.0/security-groups/"+g, nil)
			})
		})
	}
}

// BenchmarkManyNetworks is what one project with very many networks does, in a cloud of 1,000 hosts.
func BenchmarkManyNetworks(b *testing.B) {
	for _, count := range []int{100, 10_000} {
		c := newCloud(b)
		for i := range 1000 {
			c.host(fmt.Sprintf("h%d", i))
		}
		c.must(200, "admin", "PUT", "/v2.0/quotas/"+red, object{"quota": object{"network": 1_000_000}})
		for made := 0; made < count; made += 100 {
			list := make([]object, 100)
			for i := range list {
				list[i] = object{"name": fmt.Sprintf("n%d", made+i)}
			}
			if a := c.do("red", "POST", "/v2.0/networks", object{"networks": list}); a.status != 201 {
				b.Fatalf("%d %s", a.status, a.raw)
			}
		}
		some := ids(c.list("red", "/v2.0/networks?limit=50"))
		for name, path := range map[string]string{"page": "?limit=50", "next-page": "?limit=50&marker=" + some[49], "by-name": "?name=n77", "show": "/" + some[7]} {
			b.Run(fmt.Sprintf("%d/%s", count, name), func(b *testing.B) {
				timed(b, func() {
					if a := c.get("red", "/v2.0/networks"+path); a != 200 {
						b.Fatal(a)
					}
				})
			})
		}
		b.Run(fmt.Sprintf("%d/create", count), func(b *testing.B) {
			timed(b, func() { c.network("red", "one more") })
		})
	}
}
