package dptest

import (
	"bytes"
	"testing"

	"yakumo/datapath/pipeline/sim"
	"yakumo/model"
)

// scopeCases are the cases of address scopes.
var scopeCases = []testCase{{"AddressScopes", testAddressScopes}, {"ScopesWithoutNAT", testScopesWithoutNAT}}

// scoped is a router between a network of the scope outside (red) and one of another (blue), with its gateway on the first
// host: r is in red there, s in red and b in blue on the second host.
type scoped struct {
	*site
	red, blue model.HostRouterPort
	router    *model.HostRouter
	mac       string // the gateway's
	r, s, b   *Guest
}

func newScoped(t *testing.T, f Fabric, snat bool) *scoped {
	c := &scoped{site: newSite(t, f, 0)}
	h0, h1 := c.w.Host(0), c.w.Host(1)
	red, blue := newSubnet("red", 7001, "10.1.0.0/24"), newSubnet("blue", 7002, "10.2.0.0/24")
	c.red, c.blue = red.routerPort("r", 1), blue.routerPort("r", 1)
	c.red.Scope4, c.blue.Scope4 = "scope-red", "scope-blue"
	c.router = newRouter("red", c.red, c.blue)
	c.mac = c.ext.routerPort("red", 10).MAC
	pr, ps, pb := red.port("pr", 5), red.port("ps", 6), blue.port("pb", 5)
	for _, h := range []*HostState{h0, h1} {
		gw := c.gateway(c.router, 10, h, h0)
		gw.Gateway.SNAT, gw.Gateway.Scope4 = snat, "scope-red"
		h.Apply(c.network, gw, AllowAll("all"))
	}
	h0.Apply(red.network(h1.TunnelIP()), blue.network(), PeerOf(ps, h1.TunnelIP()), PeerOf(pb, h1.TunnelIP()))
	h1.Apply(red.network(h0.TunnelIP()), blue.network(), PeerOf(pr, h0.TunnelIP()))
	c.r, c.s, c.b = h0.Boot(pr), h1.Boot(ps), h1.Boot(pb)
	return c
}

// silent sends a packet that none of the guests may get.
func (c *scoped) silent(from *Guest, p sim.Packet, guests ...*Guest) {
	c.t.Helper()
	from.Send(p)
	c.w.fence(c.w.Host(0), c.w.Host(1))
	for _, g := range guests {
		g.flush()
		g.Lacks(func(q sim.Packet) bool { return bytes.Equal(q.Payload, p.Payload) })
	}
}

func testAddressScopes(t *testing.T, f Fabric) {
	c := newScoped(t, f, true)
	for _, g := range []*Guest{c.r, c.s} { // of the scope outside: as it is, both ways
		for _, p := range each(g.via(c.red, c.o.IP(), 53), c.w) {
			c.back(g, p, c.out(g, p, g.IP(), c.mac))
		}
		for _, p := range each(c.to(c.mac, g.IP(), 5000, 80), c.w) {
			c.out(g, g.reply(c.red, c.in(g, p, g.IP())), g.IP(), c.mac)
		}
	}
	for _, p := range each(c.b.via(c.blue, c.o.IP(), 53), c.w) { // of another: translated
		c.back(c.b, p, c.out(c.b, p, c.ext.at(10), c.mac))
	}
	c.dropped(c.to(c.mac, c.b.IP(), 5000, 80), c.b)
	// Between them nothing passes, where it starts on either host.
	for _, g := range []*Guest{c.r, c.s} {
		c.silent(g, g.via(c.red, c.b.IP(), 80), c.b)
		c.silent(c.b, c.b.via(c.blue, g.IP(), 80), g)
	}
	// Floating addresses of both are what they are elsewhere.
	for i, g := range []*Guest{c.s, c.b} {
		side := []model.HostRouterPort{c.red, c.blue}[i]
		fl := c.floating("f"+g.Port.ID, c.router, 20+i, g.IP())
		g.h.Apply(fl)
		for _, p := range each(g.via(side, c.o.IP(), 54), c.w) {
			c.back(g, p, c.out(g, p, fl.Address, fl.MAC))
		}
		for _, p := range each(c.to(fl.MAC, fl.Address, 5001, 80), c.w) {
			c.out(g, g.reply(side, c.in(g, p, g.IP())), fl.Address, fl.MAC)
		}
	}
}

func testScopesWithoutNAT(t *testing.T, f Fabric) {
	c := newScoped(t, f, false)
	for _, g := range []*Guest{c.r, c.s} {
		for _, p := range each(g.via(c.red, c.o.IP(), 53), c.w) {
			c.back(g, p, c.out(g, p, g.IP(), c.mac))
		}
	}
	p := c.b.via(c.blue, c.o.IP(), 53)
	c.b.Send(p)
	c.w.fence(c.w.Host(0), c.w.Host(1))
	c.out(c.s, c.s.via(c.red, c.o.IP(), 54), c.s.IP(), c.mac) // it takes the same way, behind it
	c.o.Lacks(func(q sim.Packet) bool { return bytes.Equal(q.Payload, p.Payload) })
	c.dropped(c.to(c.mac, c.b.IP(), 5000, 80), c.b)
	fl := c.floating("f", c.router, 20, c.b.IP())
	c.b.h.Apply(fl)
	for _, p := range each(c.b.via(c.blue, c.o.IP(), 54), c.w) {
		c.back(c.b, p, c.out(c.b, p, fl.Address, fl.MAC))
	}
}
