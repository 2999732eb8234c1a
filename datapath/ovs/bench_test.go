package ovs_test

import (
	"context"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"yakumo/datapath/dptest"
	"yakumo/model"
)

// benchRows is n ports here in networks of ten, each with a peer elsewhere, all in one group
// whose members they are.
func benchRows(n int) []model.HostRow {
	far := netip.MustParseAddr("198.51.100.1")
	g := dptest.AllowAll("g")
	g.Rules = append(g.Rules[:1], model.HostRule{ID: "member", Direction: model.Ingress, EtherType: model.IPv4, RemoteGroupID: "g"},
		model.HostRule{ID: "web", Direction: model.Ingress, EtherType: model.IPv4, Protocol: "tcp", PortMin: num(80), PortMax: num(80)})
	rows := []model.HostRow{g}
	for i := range n {
		vni := uint32(10_000 + i/10)
		net := fmt.Sprintf("n%d", i/10)
		if i%10 == 0 {
			rows = append(rows, dptest.NewNetwork(net, vni, far))
		}
		p := dptest.NewPort(net, vni, fmt.Sprintf("p%d", i), i+1, "g")
		rows = append(rows, p, &model.HostMember{GroupID: "g", PortID: p.ID, Prefixes: []netip.Prefix{netip.PrefixFrom(p.FixedIPs[0].Address, 32)}},
			dptest.PeerOf(dptest.NewPort(net, vni, fmt.Sprintf("q%d", i), n+i+1), far))
	}
	return rows
}

func num(n int) *int { return &n }

// BenchmarkPortToFlows is the time from a port's rows to the switch's confirmation, on a
// host that has 1,000 ports already.
func BenchmarkPortToFlows(b *testing.B) {
	h := newFabric(b).newHost(b)
	prune(b, h, benchRows(1000))
	b.ResetTimer()
	i := 0
	for b.Loop() {
		i++
		p := dptest.NewPort(fmt.Sprintf("n%d", i%100), uint32(10_000+i%100), fmt.Sprintf("new%d", i), 3000+i, "g")
		rows := []model.HostRow{p, &model.HostMember{GroupID: "g", PortID: p.ID, Prefixes: []netip.Prefix{netip.PrefixFrom(p.FixedIPs[0].Address, 32)}}}
		if err := h.drv.Apply(context.Background(), rows, nil); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkAttach is the time from a new device to a wired port.
func BenchmarkAttach(b *testing.B) {
	h := newFabric(b).newHost(b)
	prune(b, h, benchRows(100))
	i := 0
	for b.Loop() {
		b.StopTimer()
		nic := h.NewNIC(b)
		b.StartTimer()
		if err := h.drv.Attach(context.Background(), fmt.Sprintf("p%d", i%100), nic.Device()); err != nil {
			b.Fatal(err)
		}
		if !h.drv.Installed(fmt.Sprintf("p%d", i%100)) {
			b.Fatal("not wired after Attach")
		}
		i++
	}
}

// BenchmarkResync is a restarted driver that writes everything again: compile, one bundle,
// sweep of the older round.
func BenchmarkResync(b *testing.B) {
	for _, n := range []int{1000, 5000} {
		b.Run(fmt.Sprintf("ports=%d", n), func(b *testing.B) {
			h := newFabric(b).newHost(b)
			rows := benchRows(n)
			prune(b, h, rows)
			var flows int
			var total time.Duration
			for b.Loop() {
				b.StopTimer()
				h.RestartDriver(b)
				dptest.WaitFor(b, "connection", func() bool { return h.drv.Counters().Connected })
				b.StartTimer()
				start := time.Now()
				prune(b, h, rows)
				total += time.Since(start)
				flows += h.drv.Counters().Entries
			}
			b.ReportMetric(float64(flows)/total.Seconds(), "flows/s")
			b.ReportMetric(float64(flows)/float64(b.N), "flows")
		})
	}
}
