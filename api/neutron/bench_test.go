package neutron_test

import (
	"fmt"
	"net/http/httptest"
	"testing"
)

// BenchmarkListPorts is one list of 10,000 ports over the HTTP handler, the wait for
// other servers' writes included.
func BenchmarkListPorts(b *testing.B) {
	c := newCloud(b)
	network := fillPorts(b, c, 10_000)
	for name, path := range map[string]string{
		"all": "/v2.0/ports", "page": "/v2.0/ports?limit=100", "fields": "/v2.0/ports?fields=id", "name": "/v2.0/ports?name=p77",
		"network": "/v2.0/ports?network_id=" + network, "address": "/v2.0/ports?fixed_ips=ip_address%3D10.0.0.77",
		"sorted": "/v2.0/ports?sort_key=name&limit=100",
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if a := c.get("red", path); a != 200 {
					b.Fatal(a)
				}
			}
		})
	}
}

// BenchmarkListNetworks is one list of 10,000 networks with a subnet each, by the name of
// one and of all, in a cloud of 1,000 hosts.
func BenchmarkListNetworks(b *testing.B) {
	c := newCloud(b)
	c.must(200, "admin", "PUT", "/v2.0/quotas/"+red, object{"quota": object{"network": -1, "subnet": -1}})
	for i := range 1000 {
		c.host(fmt.Sprintf("h%d", i))
	}
	for made := 0; made < 10_000; made += 100 {
		list := make([]object, 100)
		for i := range list {
			list[i] = object{"name": fmt.Sprintf("n%d", made+i)}
		}
		a := c.do("red", "POST", "/v2.0/networks", object{"networks": list})
		if a.status != 201 {
			b.Fatalf("%d %s", a.status, a.raw)
		}
		for i, w := range a.body["networks"].([]any) {
			list[i] = object{"network_id": w.(object)["id"], "ip_version": 4, "cidr": "10.0.0.0/24"}
		}
		if a := c.do("red", "POST", "/v2.0/subnets", object{"subnets": list}); a.status != 201 {
			b.Fatalf("%d %s", a.status, a.raw)
		}
	}
	for name, path := range map[string]string{"all": "/v2.0/networks", "page": "/v2.0/networks?limit=100", "name": "/v2.0/networks?name=n77"} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if a := c.get("red", path); a != 200 {
					b.Fatal(a)
				}
			}
		})
	}
	b.Run("create", func(b *testing.B) {
		for b.Loop() {
			c.network("red", "one more")
		}
	})
}

// get makes a request whose answer is not read.
func (c *cloud) get(token, path string) int {
	req := httptest.NewRequest("GET", "/network"+path, nil)
	req.Header.Set("X-Auth-Token", token)
	w := httptest.NewRecorder()
	c.front.ServeHTTP(w, req)
	return w.Code
}

// BenchmarkCreatePort is one port over the HTTP handler, in a network of 10,000.
func BenchmarkCreatePort(b *testing.B) {
	for name, limit := range map[string]int{"no quota": -1, "quota": 100_000} {
		b.Run(name, func(b *testing.B) {
			c := newCloud(b)
			network := fillPorts(b, c, 10_000)
			c.must(200, "admin", "PUT", "/v2.0/quotas/"+red, object{"quota": object{"port": limit}})
			for b.Loop() {
				c.port("red", network)
			}
		})
	}
}

// BenchmarkCreatePortsAtOnce is one port, made and deleted, of 16 at the same time: without a
// quota they do not wait for each other, near its end they are put in order.
func BenchmarkCreatePortsAtOnce(b *testing.B) {
	for name, limit := range map[string]int{"no quota": -1, "near the quota": 400} {
		b.Run(name, func(b *testing.B) {
			c := newCloud(b)
			network := fillPorts(b, c, 0)
			c.must(200, "admin", "PUT", "/v2.0/quotas/"+red, object{"quota": object{"port": limit}})
			b.SetParallelism(8)
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					made := c.do("red", "POST", "/v2.0/ports", object{"port": object{"network_id": network}})
					p, _ := made.body["port"].(object)
					if made.status != 201 {
						b.Errorf("%d %s", made.status, made.raw)
						return
					}
					if gone := c.do("red", "DELETE", "/v2.0/ports/"+p["id"].(string), nil); gone.status != 204 {
						b.Errorf("%d %s", gone.status, gone.raw)
						return
					}
				}
			})
		})
	}
}

// BenchmarkListFloatingIPs is one list of 1,000 floating IPs, and of the one of an address.
func BenchmarkListFloatingIPs(b *testing.B) {
	c := newCloud(b)
	c.must(200, "admin", "PUT", "/v2.0/quotas/"+red, object{"quota": object{"floatingip": -1}})
	out, _ := c.outside("198.18.0.0/16")
	last := ""
	for range 10 {
		list := make([]object, 100)
		for i := range list {
			list[i] = object{"floating_network_id": out}
		}
		a := c.do("red", "POST", "/v2.0/floatingips", object{"floatingips": list})
		if a.status != 201 {
			b.Fatalf("%d %s", a.status, a.raw)
		}
		last = a.body["floatingips"].([]any)[99].(object)["floating_ip_address"].(string)
	}
	for name, path := range map[string]string{"all": "/v2.0/floatingips", "address": "/v2.0/floatingips?floating_ip_address=" + last} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if a := c.get("red", path); a != 200 {
					b.Fatal(a)
				}
			}
		})
	}
}
