package neutron_test

import (
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
				req := httptest.NewRequest("GET", "/network"+path, nil)
				req.Header.Set("X-Auth-Token", "red")
				w := httptest.NewRecorder()
				c.front.ServeHTTP(w, req)
				if w.Code != 200 {
					b.Fatal(w.Code)
				}
			}
		})
	}
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
