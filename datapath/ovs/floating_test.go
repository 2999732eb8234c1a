package ovs_test

import (
	"net/netip"
	"testing"

	"yakumo/datapath/dptest"
	"yakumo/model"
)

// A policy limits what comes in by a floating address, and what leaves by a gateway's; without it all passes again.
func TestFloatingLimit(t *testing.T) {
	t.Parallel() // it waits more than it works
	f := newFabric(t)
	h := f.newHost(t)
	router, _, _ := behindRouter()
	router.Interfaces = router.Interfaces[:1]
	gw := &model.HostGateway{PortID: "r-gw", NetworkID: "ext", VNI: 9000, MAC: "fa:16:3f:00:01:0a", Addresses: []netip.Prefix{netip.MustParsePrefix("203.0.113.10/24")},
		Subnets: []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24")}, NextHops: []netip.Addr{netip.MustParseAddr("203.0.113.1")}, MTU: 1500, SNAT: true, Transit: 9100, Active: true, TunnelIP: h.addr}
	router.Gateway = gw
	pa, pb := dptest.NewPort("net", 5_000_000, "a", 5, "all"), dptest.NewPort("net", 5_000_000, "b", 6, "all")
	fl := &model.HostFloating{ID: "f", RouterID: "r", NetworkID: "ext", VNI: 9000, Address: netip.MustParseAddr("203.0.113.20"), MAC: "fa:16:3f:00:01:14", Fixed: pa.FixedIPs[0].Address, PortID: "a"}
	ext := &model.HostNetwork{ID: "ext", VNI: 9000, MTU: 1500, Type: model.NetworkFlat, PhysicalNetwork: dptest.Physical, External: true}
	prune(t, h, []model.HostRow{dptest.NewNetwork("net", 5_000_000), dptest.AllowAll("all"), ext, router, fl, pa, pb})
	a, b := bootKernel(t, h, pa, 1450), bootKernel(t, h, pb, 1450)
	for _, g := range []*kernelGuest{a, b} {
		ip(t, "-n", g.ns, "route", "add", "203.0.113.0/24", "via", "10.0.0.1")
	}
	outside := &kernelGuest{ns: newNetns(t)}
	ip(t, "-n", f.underlay, "link", "add", "out0", "type", "veth", "peer", "name", "eth0", "netns", outside.ns)
	ip(t, "-n", f.underlay, "link", "set", "out0", "master", "br1", "up")
	ip(t, "-n", outside.ns, "link", "set", "eth0", "up")
	ip(t, "-n", outside.ns, "addr", "add", "203.0.113.1/24", "dev", "eth0")
	inNetns(t, outside.ns, func() error { return noChecksumOffload("eth0") })
	for _, c := range []struct {
		what  string
		from  *kernelGuest
		to    string
		limit model.HostRow
		free  model.HostRow
	}{
		{"a floating address", outside, "203.0.113.20", with(*fl, func(x *model.HostFloating) { x.QoS.IngressPps = 1 }), fl},
		{"a gateway", b, "203.0.113.1", with(*router, func(x *model.HostRouter) { x.Gateway = with(*gw, func(g *model.HostGateway) { g.QoS.EgressPps = 1 }) }), router},
	} {
		pings := func(n string) int {
			_, got, _ := c.from.ping(t, "-c", n, "-i", "0.01", "-W", "1", c.to)
			return got
		}
		dptest.WaitFor(t, c.what+" to be reached", func() bool { return pings("1") == 1 })
		if err := h.drv.Apply(t.Context(), []model.HostRow{c.limit}, nil); err != nil {
			t.Fatal(err)
		}
		h.Settle(t)
		// One packet a second: all would take more than three minutes.
		if got := pings("200"); got == 200 {
			t.Errorf("all packets to %s have passed its limit", c.what)
		}
		dptest.WaitFor(t, "a packet to pass the limit of "+c.what, func() bool { return pings("1") == 1 })
		if err := h.drv.Apply(t.Context(), []model.HostRow{c.free}, nil); err != nil {
			t.Fatal(err)
		}
		dptest.WaitFor(t, "all packets to pass", func() bool { return pings("20") == 20 })
	}
}

// with gives a changed copy of a row.
func with[T any](row T, change func(*T)) *T {
	change(&row)
	return &row
}
