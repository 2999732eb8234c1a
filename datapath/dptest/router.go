package dptest

import (
	"bytes"
	"fmt"
	"net/netip"
	"testing"

	"yakumo/datapath/pipeline"
	"yakumo/datapath/pipeline/sim"
	"yakumo/model"
)

// routerCases are the cases of routers inside.
var routerCases = []testCase{
	{"Routed", testRouted}, {"RouterAnswers", testRouterAnswers}, {"RouterTooBig", testRouterTooBig}, {"RouterChain", testRouterChain},
	{"RouterSameSubnets", testRouterSameSubnets}, {"RouterHairpin", testRouterHairpin}, {"RouterGone", testRouterGone}, {"Routed6", testRouted6},
}

// subnet is a network with one block, as the cases of routers use it.
type subnet struct {
	id   string
	vni  uint32
	cidr netip.Prefix
	mtu  int
}

func newSubnet(id string, vni uint32, cidr string) subnet {
	return subnet{id, vni, netip.MustParsePrefix(cidr), 1450}
}

// at gives the n-th address of the block.
func (s subnet) at(n int) netip.Addr {
	a := s.cidr.Masked().Addr()
	for range n {
		a = a.Next()
	}
	return a
}

func (s subnet) network(flood ...netip.Addr) *model.HostNetwork {
	return &model.HostNetwork{ID: s.id, VNI: s.vni, MTU: s.mtu, Flood: flood,
		Subnets: []model.HostSubnet{{ID: s.id + "-subnet", CIDR: s.cidr, Gateway: s.at(1), DHCP: true}}}
}

func (s subnet) port(id string, n int) *model.HostPort {
	return &model.HostPort{ID: id, NetworkID: s.id, VNI: s.vni, MAC: fmt.Sprintf("fa:16:3e:%02x:%02x:%02x", s.vni>>8&255, s.vni&255, n), AdminStateUp: true, PortSecurity: true,
		Groups: []model.ID{"all"}, FixedIPs: []model.FixedIP{{SubnetID: s.id + "-subnet", Address: s.at(n)}}}
}

// port of a router with the n-th address.
func (s subnet) routerPort(router string, n int) model.HostRouterPort {
	return model.HostRouterPort{PortID: router + "-" + s.id, NetworkID: s.id, VNI: s.vni, MAC: fmt.Sprintf("fa:16:3f:%02x:%02x:%02x", s.vni>>8&255, s.vni&255, n),
		Addresses: []netip.Prefix{netip.PrefixFrom(s.at(n), s.cidr.Bits())}, MTU: s.mtu}
}

func newRouter(id string, ports ...model.HostRouterPort) *model.HostRouter {
	return &model.HostRouter{ID: id, AdminStateUp: true, Interfaces: ports}
}

func parseMAC(t testing.TB, s string) pipeline.MAC {
	t.Helper()
	m, err := pipeline.ParseMAC(s)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// via makes a UDP packet from g to an address behind a router's interface, with a fresh token.
func (g *Guest) via(p model.HostRouterPort, dst netip.Addr, port uint16) sim.Packet {
	g.t.Helper()
	etherType := uint16(pipeline.TypeIPv4)
	if dst.Is6() {
		etherType = pipeline.TypeIPv6
	}
	return sim.Packet{EthSrc: g.MAC(), EthDst: parseMAC(g.t, p.MAC), EthType: etherType, Src: g.IP(), Dst: dst, Proto: pipeline.ProtoUDP, TTL: 64,
		SrcPort: 40000, DstPort: port, Payload: g.h.w.Token()}
}

// routed sends a packet and checks that it arrives as routers make it: from the MAC of out, with its time to live lowered by hops.
func (g *Guest) routed(to *Guest, p sim.Packet, out model.HostRouterPort, hops uint8) sim.Packet {
	g.t.Helper()
	q := g.Passes(to, p)
	if q.EthSrc != parseMAC(g.t, out.MAC) || q.EthDst != to.MAC() || q.TTL != p.TTL-hops || q.Src != p.Src || q.Dst != p.Dst {
		g.t.Errorf("%s ttl=%d arrives as %s ttl=%d; want it from %s with %d less", p.Summary(), p.TTL, q.Summary(), q.TTL, out.MAC, hops)
	}
	return q
}

// refused sends a packet and waits for the ICMP error about it.
func (g *Guest) refused(p sim.Packet, from netip.Addr, typ, code uint8) sim.Packet {
	g.t.Helper()
	g.Send(p)
	sent := p.Frame()[14:]
	q := g.Expect(fmt.Sprintf("ICMP error %d/%d about %s", typ, code, p.Summary()), func(q sim.Packet) bool {
		return q.EthType == p.EthType && (q.Proto == pipeline.ProtoICMP && q.ICMPType != 0 && q.ICMPType != 8 || q.Proto == pipeline.ProtoICMPv6 && q.ICMPType < 128)
	})
	if q.Src != from || q.Dst != p.Src || q.ICMPType != typ || q.ICMPCode != code || q.EthDst != g.MAC() {
		g.t.Errorf("about %s came %s, want %d/%d from %v", p.Summary(), q.Summary(), typ, code, from)
	}
	// The header of what was sent is in it: its addresses, and the ports behind them.
	addresses, ports := 12, 24
	if p.EthType == pipeline.TypeIPv6 {
		addresses, ports = 8, 44
	}
	if len(q.Payload) < ports || !bytes.Equal(q.Payload[addresses:ports], sent[addresses:ports]) {
		g.t.Errorf("the error is about % x, want % x", q.Payload, sent)
	}
	return q
}

// pings sends an echo request to a router's address and waits for its answer.
func (g *Guest) pings(p model.HostRouterPort, dst netip.Addr, id uint16) {
	g.t.Helper()
	q := g.via(p, dst, 0)
	q.Proto, q.ICMPType, q.SrcPort, q.Seq = pipeline.ProtoICMP, 8, id, 7
	answer := uint8(0)
	if dst.Is6() {
		q.Proto, q.ICMPType, answer = pipeline.ProtoICMPv6, 128, 129
	}
	g.Send(q)
	r := g.Expect("echo reply of "+dst.String(), func(r sim.Packet) bool { return r.Proto == q.Proto && r.ICMPType == answer && r.SrcPort == id })
	if r.Src != dst || r.Dst != q.Src || r.Seq != 7 || !bytes.Equal(r.Payload, q.Payload) || r.EthSrc != parseMAC(g.t, p.MAC) || r.EthDst != g.MAC() {
		g.t.Errorf("%s is answered by %s", q.Summary(), r.Summary())
	}
}

// twoSides is two subnets joined by a router, guests a and b on the first host and c, in b's subnet, on the second.
func twoSides(w *World, change func(a, b *subnet)) (a, b, c *Guest, ra, rb model.HostRouterPort) {
	h0, h1 := w.Host(0), w.Host(1)
	na, nb := newSubnet("left", 7001, "10.1.0.0/24"), newSubnet("right", 7002, "10.2.0.0/24")
	if change != nil {
		change(&na, &nb)
	}
	ra, rb = na.routerPort("r", 1), nb.routerPort("r", 1)
	r := newRouter("r", ra, rb)
	pa, pb, pc := na.port("a", 5), nb.port("b", 6), nb.port("c", 7)
	h0.Apply(na.network(), nb.network(h1.TunnelIP()), r, AllowAll6("all"), PeerOf(pc, h1.TunnelIP()))
	h1.Apply(na.network(), nb.network(h0.TunnelIP()), r, AllowAll6("all"), PeerOf(pa, h0.TunnelIP()), PeerOf(pb, h0.TunnelIP()))
	return h0.Boot(pa), h0.Boot(pb), h1.Boot(pc), ra, rb
}

func testRouted(t *testing.T, f Fabric) {
	w := NewWorld(t, f, 2)
	a, b, c, ra, rb := twoSides(w, nil)
	if mac := a.Resolve(ra.Addresses[0].Addr()); mac != parseMAC(t, ra.MAC) {
		t.Fatalf("the router has MAC %v, want %v", mac, ra.MAC)
	}
	for _, o := range []*Guest{b, c} {
		a.routed(o, a.via(ra, o.IP(), 53), rb, 1)
		o.routed(a, o.via(rb, a.IP(), 53), ra, 1)
		syn := a.via(ra, o.IP(), 80)
		syn.Proto, syn.Flags = pipeline.ProtoTCP, sim.SYN
		a.routed(o, syn, rb, 1)
		ack := o.via(rb, a.IP(), syn.SrcPort)
		ack.Proto, ack.Flags, ack.SrcPort = pipeline.ProtoTCP, sim.SYN|sim.ACK, 80
		o.routed(a, ack, ra, 1)
	}
	// Within a subnet nothing is routed.
	b.Passes(c, b.UDP(c, 9))
	// A frame for the router with an address of another port of the sender's network is sent on all the same.
	b.routed(c, b.via(rb, c.IP(), 53), rb, 1)
	// Groups act where it arrives.
	h := w.Host(0)
	shut := *b.Port
	shut.Groups = nil
	h.Apply(&shut)
	a.Dropped(a.via(ra, b.IP(), 54), nil, b)
	b.Dropped(b.via(rb, a.IP(), 54), nil, a)
}

func testRouterAnswers(t *testing.T, f Fabric) {
	w := NewWorld(t, f, 2)
	a, b, c, ra, rb := twoSides(w, nil)
	near, far := ra.Addresses[0].Addr(), rb.Addresses[0].Addr()
	for i, g := range []*Guest{a, b, c} {
		p := ra
		if g != a {
			p = rb
		}
		g.pings(p, near, uint16(100+i))
		g.pings(p, far, uint16(200+i))
	}
	a.refused(a.via(ra, near, 33434), near, 3, 3)
	a.refused(a.via(ra, far, 33434), near, 3, 3)
	last := a.via(ra, c.IP(), 33435)
	last.TTL = 1
	a.refused(last, near, 11, 0)
	last = a.via(ra, c.IP(), 33436)
	last.TTL = 2
	a.routed(c, last, rb, 1)
	a.refused(a.via(ra, netip.MustParseAddr("10.2.0.99"), 9), near, 3, 1)
	a.refused(a.via(ra, netip.MustParseAddr("203.0.113.9"), 9), near, 3, 0)
	c.refused(c.via(rb, netip.MustParseAddr("203.0.113.9"), 9), far, 3, 0)
	// Nobody is told about what was sent to many, nor about an error, nor by a broadcast.
	errors := func(p sim.Packet) bool { return p.Proto == pipeline.ProtoICMP && p.Dst == a.IP() }
	a.Dropped(a.via(ra, netip.MustParseAddr("224.0.0.9"), 9), errors, a, b)
	broken := a.via(ra, netip.MustParseAddr("203.0.113.9"), 9)
	broken.Proto, broken.ICMPType = pipeline.ProtoICMP, 11
	a.Dropped(broken, errors, a)
}

func testRouterTooBig(t *testing.T, f Fabric) {
	w := NewWorld(t, f, 2)
	a, b, c, ra, rb := twoSides(w, func(_, b *subnet) { b.mtu = 1300 })
	sized := func(to *Guest, n int) sim.Packet {
		p := a.via(ra, to.IP(), 9)
		p.DF = true
		p.Payload = append(p.Payload, make([]byte, n-28-len(p.Payload))...)
		return p
	}
	for _, o := range []*Guest{b, c} {
		a.routed(o, sized(o, 1300), rb, 1)
		if q := a.refused(sized(o, 1301), ra.Addresses[0].Addr(), 3, 4); q.SrcPort != 0 || q.Seq != 1300 {
			t.Errorf("too large for %d<<16|%d, want 1300", q.SrcPort, q.Seq)
		}
	}
	// The other way all that a guest may send fits.
	p := b.via(rb, a.IP(), 9)
	p.Payload = append(p.Payload, make([]byte, 1300-28-len(p.Payload))...)
	b.routed(a, p, ra, 1)
}

// testRouterChain has three routers in a row, a guest at each end, and routes for both ends.
func testRouterChain(t *testing.T, f Fabric) {
	w := NewWorld(t, f, 2)
	h0, h1 := w.Host(0), w.Host(1)
	left, right := newSubnet("left", 7001, "10.1.0.0/24"), newSubnet("right", 7002, "10.2.0.0/24")
	mid1, mid2 := newSubnet("mid1", 7003, "172.16.1.0/24"), newSubnet("mid2", 7004, "172.16.2.0/24")
	r1 := newRouter("r1", left.routerPort("r1", 1), mid1.routerPort("r1", 11))
	r2 := newRouter("r2", mid1.routerPort("r2", 12), mid2.routerPort("r2", 12))
	r3 := newRouter("r3", mid2.routerPort("r3", 13), right.routerPort("r3", 1))
	anywhere := netip.MustParsePrefix("0.0.0.0/0")
	r1.Routes = []model.Route{{Destination: anywhere, NextHop: mid1.at(12)}}
	r2.Routes = []model.Route{{Destination: left.cidr, NextHop: mid1.at(11)}, {Destination: right.cidr, NextHop: mid2.at(13)}}
	r3.Routes = []model.Route{{Destination: netip.MustParsePrefix("10.0.0.0/8"), NextHop: mid2.at(12)}, {Destination: netip.MustParsePrefix("172.16.0.0/12"), NextHop: mid2.at(12)}}
	pa, pb, pc := left.port("a", 5), right.port("b", 6), right.port("c", 7)
	all := []model.HostRow{r1, r2, r3, mid1.network(), mid2.network(), AllowAll("all")}
	h0.Apply(append(all, left.network(), right.network(h1.TunnelIP()), PeerOf(pc, h1.TunnelIP()))...)
	h1.Apply(append(all, left.network(), right.network(h0.TunnelIP()), PeerOf(pa, h0.TunnelIP()), PeerOf(pb, h0.TunnelIP()))...)
	a, b, c := h0.Boot(pa), h0.Boot(pb), h1.Boot(pc)
	in, out := r1.Interfaces[0], r3.Interfaces[1]
	for _, o := range []*Guest{b, c} {
		a.routed(o, a.via(in, o.IP(), 53), out, 3)
		o.routed(a, o.via(out, a.IP(), 53), in, 3)
		// Each hop tells who it is.
		for ttl, from := range []netip.Addr{left.at(1), mid1.at(12), mid2.at(13)} {
			p := a.via(in, o.IP(), 33434)
			p.TTL = uint8(ttl + 1)
			a.refused(p, from, 11, 0)
		}
	}
	a.pings(in, mid2.at(13), 1)
	c.pings(out, mid1.at(11), 2)
	// Two routers that send each other what neither has: the time to live ends it.
	r2b := *r2
	r2b.Routes = append(r2b.Routes, model.Route{Destination: anywhere, NextHop: mid1.at(11)})
	h0.Apply(&r2b)
	lost := a.via(in, netip.MustParseAddr("203.0.113.9"), 9)
	lost.TTL = 9
	a.refused(lost, left.at(1), 11, 0)
	lost.TTL = 64
	a.refused(lost, mid1.at(12), 11, 0)
}

func testRouterSameSubnets(t *testing.T, f Fabric) {
	w := NewWorld(t, f, 1)
	h := w.Host(0)
	h.Apply(AllowAll("all"))
	var guests [2][2]*Guest
	var ports [2][2]model.HostRouterPort
	for i, tenant := range []string{"red", "blue"} {
		na, nb := newSubnet(tenant+"-1", uint32(7100+2*i), "10.1.0.0/24"), newSubnet(tenant+"-2", uint32(7101+2*i), "10.2.0.0/24")
		ports[i] = [2]model.HostRouterPort{na.routerPort(tenant, 1), nb.routerPort(tenant, 1)}
		h.Apply(na.network(), nb.network(), newRouter(tenant, ports[i][:]...))
		guests[i] = [2]*Guest{h.Boot(na.port(tenant+"-a", 5)), h.Boot(nb.port(tenant+"-b", 6))}
	}
	for i, g := range guests {
		other := guests[1-i]
		p := g[0].via(ports[i][0], g[1].IP(), 53)
		g[0].routed(g[1], p, ports[i][1], 1)
		p.Payload = w.Token()
		g[0].Dropped(p, nil, other[0], other[1])
		// The other tenant's router is not there.
		p = g[0].via(ports[1-i][0], g[1].IP(), 53)
		g[0].Dropped(p, nil, append(g[:], other[:]...)...)
	}
}

// testRouterHairpin sends a packet back to the port that it came from, once.
func testRouterHairpin(t *testing.T, f Fabric) {
	w := NewWorld(t, f, 2)
	a, b, _, ra, rb := twoSides(w, nil)
	r := newRouter("r", ra, rb)
	r.Routes = []model.Route{{Destination: netip.MustParsePrefix("192.168.9.0/24"), NextHop: a.IP()}, {Destination: netip.MustParsePrefix("192.168.10.0/24"), NextHop: b.IP()}}
	w.Host(0).Apply(r)
	p := a.via(ra, netip.MustParseAddr("192.168.9.9"), 53)
	a.routed(a, p, ra, 1)
	a.Dropped(a.via(ra, netip.MustParseAddr("192.168.10.9"), 53), func(q sim.Packet) bool { return bytes.Equal(q.Payload, p.Payload) }, a, b)
	b.Expect("packet for a network behind it", func(q sim.Packet) bool { return q.Dst == netip.MustParseAddr("192.168.10.9") })
	// To itself.
	a.routed(a, a.via(ra, a.IP(), 54), ra, 1)
}

func testRouterGone(t *testing.T, f Fabric) {
	w := NewWorld(t, f, 2)
	before := w.Host(0).Entries(t)
	a, b, c, ra, rb := twoSides(w, nil)
	a.routed(b, a.via(ra, b.IP(), 53), rb, 1)
	h := w.Host(0)
	r := newRouter("r", ra, rb)
	down := *r
	down.AdminStateUp = false
	asks := func(p sim.Packet) bool { return p.EthType == pipeline.TypeARP && p.ARPSPA == ra.Addresses[0].Addr() }
	for _, off := range []func(){
		func() { h.Apply(&down) },
		func() { h.Apply(newRouter("r", ra)) }, // without b's subnet
		func() { h.Remove(r.RowID()) },
	} {
		h.Apply(r)
		a.routed(b, a.via(ra, b.IP(), 53), rb, 1)
		off()
		a.Dropped(a.via(ra, b.IP(), 53), nil, b)
		a.Dropped(a.via(ra, c.IP(), 53), nil, c)
	}
	a.Dropped(a.ARPRequest(ra.Addresses[0].Addr()), asks, a)
	h.Remove(a.Port.RowID(), b.Port.RowID(), model.RowID{Kind: model.RowPeer, Key: "c"}, model.RowID{Kind: model.RowNetwork, Key: "left"},
		model.RowID{Kind: model.RowNetwork, Key: "right"}, model.RowID{Kind: model.RowGroup, Key: "all"})
	if after := h.Entries(t); after != before {
		t.Errorf("%d entries before, %d after all rows went", before, after)
	}
}

func testRouted6(t *testing.T, f Fabric) {
	w := NewWorld(t, f, 2)
	a, b, c, ra, rb := twoSides(w, func(a, b *subnet) {
		a.cidr, b.cidr, b.mtu = netip.MustParsePrefix("fd00:1::/64"), netip.MustParsePrefix("fd00:2::/64"), 1300
	})
	near, far := ra.Addresses[0].Addr(), rb.Addresses[0].Addr()
	for i, o := range []*Guest{b, c} {
		a.routed(o, a.via(ra, o.IP(), 53), rb, 1)
		o.routed(a, o.via(rb, a.IP(), 53), ra, 1)
		syn := a.via(ra, o.IP(), 80)
		syn.Proto, syn.Flags = pipeline.ProtoTCP, sim.SYN
		a.routed(o, syn, rb, 1)
		ack := o.via(rb, a.IP(), syn.SrcPort)
		ack.Proto, ack.Flags, ack.SrcPort = pipeline.ProtoTCP, sim.SYN|sim.ACK, 80
		o.routed(a, ack, ra, 1)
		o.pings(rb, near, uint16(100+i))
		o.pings(rb, far, uint16(200+i))
		big := a.via(ra, o.IP(), 9)
		big.Payload = append(big.Payload, make([]byte, 1301-48-len(big.Payload))...)
		if q := a.refused(big, near, 2, 0); q.SrcPort != 0 || q.Seq != 1300 {
			t.Errorf("too large for %d<<16|%d, want 1300", q.SrcPort, q.Seq)
		}
	}
	own := pipeline.LinkLocal(parseMAC(t, ra.MAC))
	p := a.via(ra, own, 0)
	p.Src, p.Proto, p.ICMPType, p.SrcPort = pipeline.LinkLocal(a.MAC()), pipeline.ProtoICMPv6, 128, 9
	a.Send(p)
	a.Expect("echo reply of the link-local address", func(q sim.Packet) bool {
		return q.Src == own && q.Dst == p.Src && q.ICMPType == 129 && bytes.Equal(q.Payload, p.Payload)
	})
	a.refused(a.via(ra, near, 33434), near, 1, 4)
	last := a.via(ra, c.IP(), 33435)
	last.TTL = 1
	a.refused(last, near, 3, 0)
	a.refused(a.via(ra, netip.MustParseAddr("fd00:2::99"), 9), near, 1, 3)
	a.refused(a.via(ra, netip.MustParseAddr("2001:db8::1"), 9), near, 1, 0)
}
