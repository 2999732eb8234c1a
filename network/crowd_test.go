package network_test

import (
	"log/slog"
	"net/netip"
	"slices"
	"testing"
	"time"

	"yakumo/model"
	"yakumo/network"
	"yakumo/store"
	"yakumo/store/storetest"
)

// BenchmarkCreatePortInACrowd is one port, its commit included, where its project has 100,000
// under a finite quota, and one where it has few.
func BenchmarkCreatePortInACrowd(b *testing.B) {
	for name, count := range map[string]int{"few": 100, "100000": 100_000} {
		b.Run(name, func(b *testing.B) {
			s := storetest.New(b)
			limits := network.DefaultQuotas()
			limits[network.QuotaPort] = 10_000_000
			n := network.New(network.Config{Log: slog.New(slog.DiscardHandler), Defaults: limits})
			w := makeNetwork(b, s, n)
			block := makeSubnet(b, s, n, w, network.SubnetSpec{CIDR: prefix("10.0.0.0/8")})
			addr := netip.MustParseAddr("10.1.0.0")
			for made := 0; made < count; made += 100 {
				if _, err := s.Update(b.Context(), func(tx *store.Tx) error {
					for range 100 {
						addr = addr.Next()
						p := &model.Port{Meta: model.NewMeta(project, "", time.Now()), NetworkID: w.ID, MAC: addr.String(), FixedIPs: []model.FixedIP{{SubnetID: block.ID, Address: addr}}}
						if err := store.Ports.Put(tx, p); err != nil {
							return err
						}
					}
					return nil
				}); err != nil {
					b.Fatal(err)
				}
			}
			var took []time.Duration
			for b.Loop() {
				start := time.Now()
				must(b, s, func(tx *store.Tx) (*model.Port, error) {
					return n.CreatePort(tx, owner, network.PortSpec{NetworkID: w.ID})
				})
				took = append(took, time.Since(start))
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms")
			b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
		})
	}
}
