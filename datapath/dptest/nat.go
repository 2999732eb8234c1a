package dptest

import (
	"bytes"
	"net/netip"
	"slices"
	"testing"

	"yakumo/datapath/pipeline"
	"yakumo/datapath/pipeline/sim"
	"yakumo/model"
)

// natCases are the cases of routers with a way outside.
var natCases = []testCase{
	{"SourceNAT", testSourceNAT}, {"Floating", testFloating}, {"FloatingMoves", testFloatingMoves}, {"FloatingHairpin", testFloatingHairpin},
	{"Forward", testForward}, {"GatewayAnswers", testGatewayAnswers}, {"GatewayMoves", testGatewayMoves}, {"NATSameAddresses", testNATSameAddresses},
	{"NoSourceNAT", testNoSourceNAT}, {"NATTooBig", testNATTooBig}, {"NeighborsOutside", testNeighborsOutside}, {"Outside6", testOutside6},
}

// site is two hosts on a physical network, an external network on it, and a machine outside.
type site struct {
	w       *World
	t       *testing.T
	ext     subnet
	network *model.HostNetwork
	o       *Guest
}

func newSite(t *testing.T, f Fabric, vlan uint16) *site {
	w := NewWorld(t, f, 2)
	s := &site{w: w, t: t, ext: newSubnet("ext", 9000, "203.0.113.0/24")}
	s.ext.mtu = 1500
	s.network = s.ext.network()
	s.network.Type, s.network.PhysicalNetwork, s.network.External = model.NetworkFlat, Physical, true
	if vlan != 0 {
		s.network.Type, s.network.VLAN = model.NetworkVLAN, vlan
	}
	s.o = w.Host(0).Outside("o", 1, vlan)
	s.o.Port.FixedIPs[0].Address = s.ext.at(1)
	s.o.hears = s.answer
	return s
}

// answer makes the machine outside answer questions for its address.
func (s *site) answer(p sim.Packet) {
	if o := s.o; p.EthType == pipeline.TypeARP && p.ARPOp == pipeline.ARPRequest && p.ARPTPA == o.IP() {
		o.Send(sim.Packet{EthSrc: o.MAC(), EthDst: p.ARPSHA, EthType: pipeline.TypeARP, ARPOp: pipeline.ARPReply, ARPSHA: o.MAC(), ARPSPA: o.IP(), ARPTHA: p.ARPSHA, ARPTPA: p.ARPSPA})
	} else if p.EthType == pipeline.TypeIPv6 && p.ICMPType == pipeline.TypeSolicit && p.NDTarget == o.IP() {
		o.Send(sim.Packet{EthSrc: o.MAC(), EthDst: p.EthSrc, EthType: pipeline.TypeIPv6, Src: o.IP(), Dst: p.Src, Proto: pipeline.ProtoICMPv6, TTL: 255,
			ICMPType: pipeline.TypeAdvert, NDTarget: o.IP(), NDMAC: o.MAC(), NDFlags: 0x60})
	}
}

// gateway gives a router the n-th address outside, as host h knows it where active is the active one.
func (s *site) gateway(r *model.HostRouter, n int, h, active *HostState) *model.HostRouter {
	c := *r
	p := s.ext.routerPort(r.ID, n)
	c.Gateway = &model.HostGateway{PortID: p.PortID, NetworkID: s.ext.id, VNI: s.ext.vni, MAC: p.MAC, Addresses: p.Addresses, Subnets: []netip.Prefix{s.ext.cidr},
		NextHops: []netip.Addr{s.o.IP()}, MTU: s.ext.mtu, SNAT: true, Transit: uint32(9100 + n), Active: h == active, TunnelIP: active.TunnelIP()}
	return &c
}

func (s *site) floating(id string, router *model.HostRouter, n int, fixed netip.Addr) *model.HostFloating {
	return &model.HostFloating{ID: id, RouterID: router.ID, NetworkID: s.ext.id, VNI: s.ext.vni, Address: s.ext.at(n), MAC: s.ext.routerPort(router.ID, n).MAC, Fixed: fixed}
}

// tenant is a network behind a router with a gateway on the first host: a there, b on the second.
type tenant struct {
	net    subnet
	port   model.HostRouterPort
	router *model.HostRouter
	a, b   *Guest
	gw     int
}

func (s *site) tenant(id string, vni uint32, gw int) *tenant {
	h0, h1 := s.w.Host(0), s.w.Host(1)
	n := newSubnet(id, vni, "10.1.0.0/24")
	tn := &tenant{net: n, port: n.routerPort(id, 1), gw: gw}
	tn.router = newRouter(id, tn.port)
	pa, pb := n.port(id+"-a", 5), n.port(id+"-b", 6)
	h0.Apply(s.network, n.network(h1.TunnelIP()), s.gateway(tn.router, gw, h0, h0), AllowAll("all"), PeerOf(pb, h1.TunnelIP()))
	h1.Apply(s.network, n.network(h0.TunnelIP()), s.gateway(tn.router, gw, h1, h0), AllowAll("all"), PeerOf(pa, h0.TunnelIP()))
	tn.a, tn.b = h0.Boot(pa), h1.Boot(pb)
	return tn
}

// out sends a packet from a guest outside, and checks that it comes from src at a MAC.
func (s *site) out(g *Guest, p sim.Packet, src netip.Addr, mac string) sim.Packet {
	s.t.Helper()
	q := g.Passes(s.o, p)
	s.o.wellTagged(q)
	if q.Src != src || q.Dst != p.Dst || q.EthSrc != parseMAC(s.t, mac) || q.EthDst != s.o.MAC() || q.TTL != p.TTL-1 {
		s.t.Errorf("%s leaves as %s ttl=%d, want it from %v at %s", p.Summary(), q.Summary(), q.TTL, src, mac)
	}
	return q
}

// to makes a packet from outside.
func (s *site) to(mac string, dst netip.Addr, src, port uint16) sim.Packet {
	return sim.Packet{EthSrc: s.o.MAC(), EthDst: parseMAC(s.t, mac), EthType: pipeline.TypeIPv4, Src: s.o.IP(), Dst: dst, Proto: pipeline.ProtoUDP, TTL: 64,
		SrcPort: src, DstPort: port, Payload: s.w.Token()}
}

// back answers a packet that came outside, and checks that the answer arrives where the first one came from.
func (s *site) back(g *Guest, sent, seen sim.Packet) {
	s.t.Helper()
	p := s.answerTo(seen)
	s.cameBack(sent, p, s.o.Passes(g, p))
}

// backAtLast is back for a moment after the gateway has moved, see arrives.
func (s *site) backAtLast(g *Guest, sent, seen sim.Packet) {
	s.t.Helper()
	p := s.answerTo(seen)
	s.cameBack(sent, p, s.arrives(g, p))
}

// answerTo is the outside machine's answer to a packet.
func (s *site) answerTo(seen sim.Packet) sim.Packet {
	p := seen
	p.EthSrc, p.EthDst, p.Src, p.Dst, p.SrcPort, p.DstPort, p.TTL, p.Payload, p.VLAN = seen.EthDst, seen.EthSrc, seen.Dst, seen.Src, seen.DstPort, seen.SrcPort, 64, s.w.Token(), 0
	if p.Proto == pipeline.ProtoICMP {
		p.ICMPType, p.SrcPort, p.DstPort = 0, seen.SrcPort, 0
	}
	if p.Flags == sim.SYN {
		p.Flags |= sim.ACK
	}
	return p
}

func (s *site) cameBack(sent, p, q sim.Packet) {
	s.t.Helper()
	if q.Src != sent.Dst || q.Dst != sent.Src || q.DstPort != sent.SrcPort && p.Proto != pipeline.ProtoICMP || p.Proto == pipeline.ProtoICMP && q.SrcPort != sent.SrcPort {
		s.t.Errorf("the answer to %s arrives as %s", sent.Summary(), q.Summary())
	}
}

// in sends from outside to an address of ours, and gives what the guest gets; it must be for dst.
func (s *site) in(g *Guest, p sim.Packet, dst netip.Addr) sim.Packet {
	s.t.Helper()
	q := s.o.Passes(g, p)
	s.cameIn(g, p, q, dst)
	return q
}

func (s *site) cameIn(g *Guest, p, q sim.Packet, dst netip.Addr) {
	s.t.Helper()
	if q.Src != p.Src || q.Dst != dst || q.EthDst != g.MAC() || q.TTL != p.TTL-1 {
		s.t.Errorf("%s arrives as %s ttl=%d", p.Summary(), q.Summary(), q.TTL)
	}
}

// arrives sends from outside until a guest gets it, and gives what the guest gets: for a moment after an address
// has moved, the switches between may think that it is where it was.
func (s *site) arrives(g *Guest, p sim.Packet) (q sim.Packet) {
	s.t.Helper()
	var sent [][]byte
	n := 0
	WaitFor(s.t, p.Summary()+" to reach "+g.Port.ID, func() bool {
		if n%100 == 0 { // five times a second
			p.Payload = s.w.Token()
			sent = append(sent, p.Payload)
			s.o.Send(p)
		}
		n++
		g.take()
		i := slices.IndexFunc(g.seen, func(q sim.Packet) bool {
			return slices.ContainsFunc(sent, func(b []byte) bool { return bytes.Equal(q.Payload, b) })
		})
		if i >= 0 {
			q = g.seen[i]
		}
		return i >= 0
	})
	return q
}

// dropped sends a packet from outside that none of the guests may get. The gateway's answer to what is sent
// behind it tells that it has been seen to.
func (s *site) dropped(p sim.Packet, guests ...*Guest) {
	s.t.Helper()
	s.o.Send(p)
	s.pings(s.ext.routerPort("red", 10).MAC, s.ext.at(10))
	s.w.fence(s.w.Host(0), s.w.Host(1))
	for _, g := range guests {
		g.flush()
		g.Lacks(func(q sim.Packet) bool { return bytes.Equal(q.Payload, p.Payload) })
	}
}

// reply is a guest's answer to a packet, by its router.
func (g *Guest) reply(p model.HostRouterPort, q sim.Packet) sim.Packet {
	r := g.via(p, q.Src, q.SrcPort)
	r.Proto, r.SrcPort, r.Flags = q.Proto, q.DstPort, q.Flags
	if q.Flags == sim.SYN {
		r.Flags |= sim.ACK
	}
	if q.Proto == pipeline.ProtoICMP {
		r.ICMPType, r.SrcPort, r.DstPort = 0, q.SrcPort, 0
	}
	return r
}

// each gives a packet in each protocol that is translated.
func each(p sim.Packet, w *World) []sim.Packet {
	tcp, echo := p, p
	tcp.Proto, tcp.Flags, tcp.Payload = pipeline.ProtoTCP, sim.SYN, w.Token()
	echo.Proto, echo.ICMPType, echo.DstPort, echo.Payload = pipeline.ProtoICMP, 8, 0, w.Token()
	return []sim.Packet{p, tcp, echo}
}

func testSourceNAT(t *testing.T, f Fabric) {
	for _, vlan := range []uint16{0, 100} {
		s := newSite(t, f, vlan)
		tn := s.tenant("red", 7001, 10)
		mac := s.ext.routerPort("red", 10).MAC
		if got := s.o.Resolve(s.ext.at(10)); got != parseMAC(t, mac) {
			t.Fatalf("the gateway has MAC %v, want %s", got, mac)
		}
		seen := map[uint16]bool{}
		for i, g := range []*Guest{tn.a, tn.b} { // both from one port, to one address
			for _, p := range each(g.via(tn.port, s.o.IP(), 53), s.w) {
				if p.Proto == pipeline.ProtoICMP {
					p.SrcPort += uint16(i) // not each switch translates these
				}
				q := s.out(g, p, s.ext.at(10), mac)
				s.back(g, p, q)
				if p.Proto == pipeline.ProtoUDP {
					seen[q.SrcPort] = true
				}
			}
			far := g.via(tn.port, netip.MustParseAddr("198.51.100.7"), 53)
			s.out(g, far, s.ext.at(10), mac)
		}
		// What cannot be translated does not go out as it is.
		echo := tn.b.via(tn.port, s.o.IP(), 0)
		echo.Proto, echo.ICMPType = pipeline.ProtoICMP, 8
		tn.b.Send(echo)
		s.out(tn.b, tn.b.via(tn.port, s.o.IP(), 54), s.ext.at(10), mac)
		s.o.Lacks(func(p sim.Packet) bool { return p.Src == tn.b.IP() })
		if len(seen) != 2 {
			t.Errorf("two guests with one source port leave with ports %v", seen)
		}
		// Nobody comes in by himself.
		for _, g := range []*Guest{tn.a, tn.b} {
			s.dropped(s.to(mac, s.ext.at(10), 9, 40000), g)
		}
	}
}

func testFloating(t *testing.T, f Fabric) {
	for _, vlan := range []uint16{0, 100} {
		s := newSite(t, f, vlan)
		tn := s.tenant("red", 7001, 10)
		for i, g := range []*Guest{tn.a, tn.b} {
			fl := s.floating("f"+g.Port.ID, tn.router, 20+i, g.IP())
			g.h.Apply(fl)
			if got := s.o.Resolve(fl.Address); got != parseMAC(t, fl.MAC) {
				t.Fatalf("the floating address has MAC %v, want %s", got, fl.MAC)
			}
			for _, p := range each(g.via(tn.port, s.o.IP(), 53), s.w) {
				s.back(g, p, s.out(g, p, fl.Address, fl.MAC))
			}
			for _, p := range each(s.to(fl.MAC, fl.Address, 5000, 80), s.w) {
				q := s.in(g, p, g.IP())
				r := s.out(g, g.reply(tn.port, q), fl.Address, fl.MAC)
				if p.Proto != pipeline.ProtoICMP && (r.SrcPort != 80 || r.DstPort != 5000) {
					t.Errorf("the answer to %s leaves as %s", p.Summary(), r.Summary())
				}
			}
			// What has no host of its own behind it is not answered, and nobody is asked twice.
			s.o.Lacks(func(p sim.Packet) bool {
				return p.EthType == pipeline.TypeARP && p.ARPOp == pipeline.ARPReply && p.ARPSPA != p.ARPTPA
			})
		}
	}
}

func testFloatingMoves(t *testing.T, f Fabric) {
	s := newSite(t, f, 0)
	tn := s.tenant("red", 7001, 10)
	fl := s.floating("f", tn.router, 20, tn.a.IP())
	h0, h1 := s.w.Host(0), s.w.Host(1)
	h0.Apply(fl)
	p := s.to(fl.MAC, fl.Address, 5000, 80)
	s.in(tn.a, p, tn.a.IP())
	// To another port, on another host: also what was connected before goes there.
	moved := *fl
	moved.Fixed = tn.b.IP()
	h0.Remove(fl.RowID())
	h1.Apply(&moved)
	s.arrives(tn.b, p)
	p.SrcPort++
	// And back to the first host, for a port that is not here.
	h1.Remove(fl.RowID())
	h0.Apply(&moved)
	s.arrives(tn.b, p)
	// To another port of the same host: an old connection does not go on to the first.
	p = s.to(fl.MAC, fl.Address, 5011, 80)
	h0.Apply(fl)
	s.in(tn.a, p, tn.a.IP())
	h0.Apply(&moved)
	s.dropped(p, tn.a)
	p = s.to(fl.MAC, fl.Address, 5002, 80)
	s.in(tn.b, p, tn.b.IP())
	h0.Remove(fl.RowID())
	s.dropped(s.to(fl.MAC, fl.Address, 5003, 80), tn.a, tn.b)
	// Without it the guest leaves with the gateway's address.
	s.out(tn.a, tn.a.via(tn.port, s.o.IP(), 99), s.ext.at(10), s.ext.routerPort("red", 10).MAC)
}

func testFloatingHairpin(t *testing.T, f Fabric) {
	s := newSite(t, f, 0)
	tn := s.tenant("red", 7001, 10)
	h0 := s.w.Host(0)
	c := h0.Boot(tn.net.port("red-c", 7))
	fa, fb := s.floating("fa", tn.router, 20, tn.a.IP()), s.floating("fc", tn.router, 21, c.IP())
	h0.Apply(fa, fb)
	// Between two floating addresses, to one's own, and from a guest without one, here and elsewhere.
	for _, x := range []struct {
		from, to *Guest
		dst, src netip.Addr
	}{
		{tn.a, c, fb.Address, fa.Address}, {c, tn.a, fa.Address, fb.Address}, {tn.a, tn.a, fa.Address, fa.Address},
		{tn.b, c, fb.Address, s.ext.at(10)},
	} {
		for _, p := range each(x.from.via(tn.port, x.dst, 80), s.w) {
			q := x.from.Passes(x.to, p)
			if q.Src != x.src || q.Dst != x.to.IP() {
				t.Errorf("%s arrives as %s, want it from %v to %v", p.Summary(), q.Summary(), x.src, x.to.IP())
			}
			r := x.to.reply(tn.port, q)
			back := x.to.Passes(x.from, r)
			if back.Src != x.dst || back.Dst != x.from.IP() {
				t.Errorf("the answer to %s arrives as %s", p.Summary(), back.Summary())
			}
		}
	}
	// And a guest without one on the gateway host.
	h0.Remove(fa.RowID())
	for _, p := range each(tn.a.via(tn.port, fb.Address, 81), s.w) {
		p.SrcPort++
		q := tn.a.Passes(c, p)
		back := c.Passes(tn.a, c.reply(tn.port, q))
		if q.Src != s.ext.at(10) || back.Src != fb.Address || back.Dst != tn.a.IP() {
			t.Errorf("%s arrives as %s, its answer as %s", p.Summary(), q.Summary(), back.Summary())
		}
	}
}

func testForward(t *testing.T, f Fabric) {
	s := newSite(t, f, 0)
	tn := s.tenant("red", 7001, 10)
	fl := s.floating("f", tn.router, 20, netip.Addr{})
	fl.Forwards = []model.HostForward{
		{ID: "w1", Protocol: "tcp", External: 2222, Internal: 22, Count: 1, Address: tn.a.IP(), InternalPort: tn.a.Port.ID},
		{ID: "w2", Protocol: "udp", External: 5000, Internal: 6000, Count: 3, Address: tn.b.IP(), InternalPort: tn.b.Port.ID},
	}
	h0 := s.w.Host(0)
	h0.Apply(fl)
	ssh := s.to(fl.MAC, fl.Address, 30000, 2222)
	ssh.Proto, ssh.Flags = pipeline.ProtoTCP, sim.SYN
	q := s.in(tn.a, ssh, tn.a.IP())
	if q.DstPort != 22 {
		t.Errorf("port %d, want 22", q.DstPort)
	}
	r := tn.a.Passes(s.o, tn.a.reply(tn.port, q))
	if r.Src != fl.Address || r.SrcPort != 2222 || r.DstPort != 30000 {
		t.Errorf("the answer leaves as %s", r.Summary())
	}
	for i := range uint16(3) {
		q := s.in(tn.b, s.to(fl.MAC, fl.Address, 30001, 5000+i), tn.b.IP())
		if q.DstPort != 6000+i {
			t.Errorf("port %d, want %d", q.DstPort, 6000+i)
		}
		r := tn.b.Passes(s.o, tn.b.reply(tn.port, q))
		if r.Src != fl.Address || r.SrcPort != 5000+i {
			t.Errorf("the answer leaves as %s", r.Summary())
		}
	}
	s.dropped(s.to(fl.MAC, fl.Address, 30001, 5003), tn.a, tn.b)
	ssh.Proto, ssh.Flags, ssh.Payload = pipeline.ProtoUDP, 0, s.w.Token()
	s.dropped(ssh, tn.a, tn.b)
	// The address itself answers.
	s.pings(fl.MAC, fl.Address)
	// From inside too.
	p := tn.b.via(tn.port, fl.Address, 2222)
	p.Proto, p.Flags = pipeline.ProtoTCP, sim.SYN
	q = tn.b.Passes(tn.a, p)
	back := tn.a.Passes(tn.b, tn.a.reply(tn.port, q))
	if q.DstPort != 22 || back.Src != fl.Address || back.SrcPort != 2222 {
		t.Errorf("%s arrives as %s, its answer as %s", p.Summary(), q.Summary(), back.Summary())
	}
}

// echo makes an echo request from outside.
func (s *site) echo(mac string, dst netip.Addr) sim.Packet {
	p := s.to(mac, dst, 77, 0)
	p.Proto, p.ICMPType = pipeline.ProtoICMP, 8
	return p
}

// pings sends an echo request from outside and waits for its answer.
func (s *site) pings(mac string, dst netip.Addr) {
	s.t.Helper()
	p := s.echo(mac, dst)
	s.o.Send(p)
	s.o.Expect("echo reply of "+dst.String(), func(q sim.Packet) bool {
		return q.Proto == pipeline.ProtoICMP && q.ICMPType == 0 && q.Src == dst && bytes.Equal(q.Payload, p.Payload)
	})
}

func testGatewayAnswers(t *testing.T, f Fabric) {
	s := newSite(t, f, 100)
	tn := s.tenant("red", 7001, 10)
	mac, gw := s.ext.routerPort("red", 10).MAC, s.ext.at(10)
	s.pings(mac, gw)
	s.o.refused(s.to(mac, gw, 9, 33434), gw, 3, 3)
	last := s.to(mac, tn.a.IP(), 9, 33435)
	last.TTL = 1
	s.o.refused(last, gw, 11, 0)
	for i, g := range []*Guest{tn.a, tn.b} {
		g.pings(tn.port, gw, uint16(300+i))
		g.refused(g.via(tn.port, gw, 33434), tn.port.Addresses[0].Addr(), 3, 3)
		last := g.via(tn.port, s.o.IP(), 33435)
		last.TTL = 1
		g.refused(last, tn.port.Addresses[0].Addr(), 11, 0)
		// An error from outside finds the guest behind the translation.
		p := g.via(tn.port, s.o.IP(), 53)
		q := s.out(g, p, gw, mac)
		inner := q.Frame()[14:]
		if q.VLAN != 0 {
			inner = inner[4:]
		}
		e := s.to(mac, gw, 0, 0)
		e.Proto, e.ICMPType, e.ICMPCode, e.Payload = pipeline.ProtoICMP, 3, 3, inner
		s.o.Send(e)
		r := g.Expect("ICMP error from outside", func(r sim.Packet) bool { return r.Proto == pipeline.ProtoICMP && r.ICMPType == 3 && r.Src == s.o.IP() })
		if sent := p.Frame()[14:]; r.Dst != g.IP() || len(r.Payload) < 28 || !bytes.Equal(r.Payload[12:24], sent[12:24]) {
			t.Errorf("%s about % x, want % x", r.Summary(), r.Payload, sent)
		}
	}
}

func testGatewayMoves(t *testing.T, f Fabric) {
	s := newSite(t, f, 0)
	tn := s.tenant("red", 7001, 10)
	h0, h1 := s.w.Host(0), s.w.Host(1)
	mac := s.ext.routerPort("red", 10).MAC
	for _, active := range []*HostState{h1, h0} {
		for _, h := range []*HostState{h0, h1} {
			h.Apply(s.gateway(tn.router, 10, h, active))
		}
		for _, g := range []*Guest{tn.a, tn.b} {
			p := g.via(tn.port, s.o.IP(), 53)
			s.backAtLast(g, p, s.out(g, p, s.ext.at(10), mac))
		}
		var asked [][]byte
		n := 0
		WaitFor(t, "the gateway to answer", func() bool {
			if n%100 == 0 { // five times a second
				p := s.echo(mac, s.ext.at(10))
				asked = append(asked, p.Payload)
				s.o.Send(p)
			}
			n++
			s.o.take()
			return slices.ContainsFunc(s.o.seen, func(q sim.Packet) bool {
				return q.Proto == pipeline.ProtoICMP && q.ICMPType == 0 && slices.ContainsFunc(asked, func(b []byte) bool { return bytes.Equal(q.Payload, b) })
			})
		})
	}
	// Nobody is active: the guest is told.
	none := s.gateway(tn.router, 10, h1, h0)
	none.Gateway.TunnelIP = netip.Addr{}
	h1.Apply(none)
	tn.b.refused(tn.b.via(tn.port, s.o.IP(), 53), tn.port.Addresses[0].Addr(), 3, 0)
}

func testNATSameAddresses(t *testing.T, f Fabric) {
	s := newSite(t, f, 0)
	red, blue := s.tenant("red", 7001, 10), s.tenant("blue", 7002, 11)
	for i := range 2 {
		for n, tn := range []*tenant{red, blue} {
			g := []*Guest{tn.a, tn.b}[i]
			p := g.via(tn.port, s.o.IP(), 53)
			s.back(g, p, s.out(g, p, s.ext.at(10+n), s.ext.routerPort(tn.router.ID, 10+n).MAC))
		}
	}
	// Across tenants by a floating address, on one host.
	fl := s.floating("f", blue.router, 20, blue.a.IP())
	s.w.Host(0).Apply(fl)
	for i, g := range []*Guest{red.a, red.b} {
		for _, p := range each(g.via(red.port, fl.Address, 80), s.w) {
			p.SrcPort += uint16(i)
			q := g.Passes(blue.a, p)
			back := blue.a.Passes(g, blue.a.reply(blue.port, q))
			if q.Src != s.ext.at(10) || back.Src != fl.Address || back.Dst != g.IP() {
				t.Errorf("%s arrives as %s, its answer as %s", p.Summary(), q.Summary(), back.Summary())
			}
		}
	}
}

func testNoSourceNAT(t *testing.T, f Fabric) {
	s := newSite(t, f, 0)
	tn := s.tenant("red", 7001, 10)
	mac := s.ext.routerPort("red", 10).MAC
	for _, h := range []*HostState{s.w.Host(0), s.w.Host(1)} {
		r := s.gateway(tn.router, 10, h, s.w.Host(0))
		r.Gateway.SNAT = false
		h.Apply(r)
	}
	for _, g := range []*Guest{tn.a, tn.b} {
		for _, p := range each(g.via(tn.port, s.o.IP(), 53), s.w) {
			s.back(g, p, s.out(g, p, g.IP(), mac))
		}
		q := s.in(g, s.to(mac, g.IP(), 5000, 80), g.IP())
		s.out(g, g.reply(tn.port, q), g.IP(), mac)
	}
	fl := s.floating("f", tn.router, 20, tn.b.IP())
	s.w.Host(1).Apply(fl)
	p := tn.b.via(tn.port, s.o.IP(), 54)
	s.back(tn.b, p, s.out(tn.b, p, fl.Address, fl.MAC))
}

// testNATTooBig has a machine outside that sends more than the network inside carries.
func testNATTooBig(t *testing.T, f Fabric) {
	s := newSite(t, f, 0)
	tn := s.tenant("red", 7001, 10)
	for i, g := range []*Guest{tn.a, tn.b} {
		fl := s.floating("f"+g.Port.ID, tn.router, 20+i, g.IP())
		g.h.Apply(fl)
		p := s.to(fl.MAC, fl.Address, 5000, 80)
		p.DF = true
		p.Payload = append(p.Payload, make([]byte, 1450-28-len(p.Payload))...)
		s.in(g, p, g.IP())
		p.Payload = append(s.w.Token(), make([]byte, 1500-28-len(p.Payload)+1400)...)[:1500-28]
		s.o.Send(p)
		q := s.o.Expect("fragmentation needed", func(q sim.Packet) bool { return q.Proto == pipeline.ProtoICMP && q.ICMPType == 3 && q.ICMPCode == 4 })
		if sent := p.Frame()[14:]; q.Seq != 1450 || !bytes.Equal(q.Payload[12:24], sent[12:24]) {
			t.Errorf("%s mtu=%d about % x, want 1450 about % x", q.Summary(), q.Seq, q.Payload[:28], sent[:28])
		}
	}
}

func testNeighborsOutside(t *testing.T, f Fabric) {
	s := newSite(t, f, 100)
	tn := s.tenant("red", 7001, 10)
	mac := s.ext.routerPort("red", 10).MAC
	// Nobody answers: the guest is told, wherever it is.
	for i, g := range []*Guest{tn.a, tn.b} {
		p := g.via(tn.port, s.ext.at(90+i), 53)
		g.refused(p, s.ext.at(10), 3, 1)
	}
	p := tn.a.via(tn.port, s.o.IP(), 53)
	s.back(tn.a, p, s.out(tn.a, p, s.ext.at(10), mac))
	// The next hop is another machine now, as a router's stand-by says when it takes over.
	old := *s.o.Port
	taken := old
	taken.MAC = "02:00:5e:00:01:09"
	s.o.Port = &taken
	s.o.Send(sim.Packet{EthSrc: s.o.MAC(), EthDst: pipeline.MAC{255, 255, 255, 255, 255, 255}, EthType: pipeline.TypeARP, ARPOp: pipeline.ARPRequest,
		ARPSHA: s.o.MAC(), ARPSPA: s.o.IP(), ARPTPA: s.o.IP()})
	WaitFor(t, "the new MAC to be used", func() bool {
		p := tn.a.via(tn.port, s.o.IP(), 54)
		return tn.a.Passes(s.o, p).EthDst == s.o.MAC()
	})
	// A driver that is new knows who was known.
	h0 := s.w.Host(0)
	s.o.hears = nil
	h0.RestartDriver(t)
	h0.Prune()
	h0.waitInstalled(tn.a.Port.ID)
	s.back(tn.a, p, s.out(tn.a, p, s.ext.at(10), mac))
	s.o.hears = s.answer
	// What comes to a host is announced there.
	fl := s.floating("f", tn.router, 20, tn.b.IP())
	for _, h := range []*HostState{s.w.Host(1), s.w.Host(0)} {
		h.Apply(fl)
		q := s.o.Expect("announcement of the floating address", func(q sim.Packet) bool {
			return q.EthType == pipeline.TypeARP && q.ARPSPA == fl.Address && q.ARPTPA == fl.Address && q.EthDst[0]&1 == 1
		})
		s.o.wellTagged(q)
		if q.ARPSHA != parseMAC(t, fl.MAC) || q.EthSrc != q.ARPSHA {
			t.Errorf("announced by %s", q.Summary())
		}
		h.Remove(fl.RowID())
		s.o.seen = nil
	}
}

// testOutside6 has no translation: what is inside is known outside by its own address, at the active gateway host.
func testOutside6(t *testing.T, f Fabric) {
	s := newSite(t, f, 100)
	s.ext.cidr = netip.MustParsePrefix("2001:db8:1::/64")
	s.o.Port.FixedIPs[0].Address = s.ext.at(1)
	h0, h1 := s.w.Host(0), s.w.Host(1)
	n := newSubnet("six", 7001, "2001:db8:2::/64")
	port := n.routerPort("r", 1)
	r := newRouter("r", port)
	pa, pb := n.port("a", 5), n.port("b", 6)
	mac := s.ext.routerPort("r", 10).MAC
	h0.Apply(s.network, n.network(h1.TunnelIP()), AllowAll6("all"), PeerOf(pb, h1.TunnelIP()))
	h1.Apply(s.network, n.network(h0.TunnelIP()), AllowAll6("all"), PeerOf(pa, h0.TunnelIP()))
	a, b := h0.Boot(pa), h1.Boot(pb)
	for _, active := range []*HostState{h0, h1} {
		for _, h := range []*HostState{h0, h1} {
			h.Apply(s.gateway(r, 10, h, active))
		}
		s.o.Expect("announcement of the gateway", func(q sim.Packet) bool {
			return q.EthType == pipeline.TypeIPv6 && q.ICMPType == pipeline.TypeAdvert && q.NDTarget == s.ext.at(10) && q.NDMAC == parseMAC(t, mac)
		})
		for _, g := range []*Guest{a, b} {
			for _, dst := range []netip.Addr{s.o.IP(), netip.MustParseAddr("2001:db8:9::9")} {
				p := g.via(port, dst, 53)
				g.Send(p)
				q := s.o.Expect("packet of "+g.Port.ID, func(q sim.Packet) bool { return bytes.Equal(q.Payload, p.Payload) })
				if q.Src != g.IP() || q.EthSrc != parseMAC(t, mac) || q.EthDst != s.o.MAC() || q.TTL != p.TTL-1 {
					t.Errorf("%s leaves as %s ttl=%d", p.Summary(), q.Summary(), q.TTL)
				}
			}
			back := s.to(mac, g.IP(), 53, 40000)
			back.EthType = pipeline.TypeIPv6
			s.cameIn(g, back, s.arrives(g, back), g.IP())
		}
		// The question for the gateway's address is answered by the one that is active.
		ask := sim.Packet{EthSrc: s.o.MAC(), EthDst: pipeline.MAC{0x33, 0x33, 0xff, 0, 0, 0x0a}, EthType: pipeline.TypeIPv6, Src: s.o.IP(), Dst: netip.MustParseAddr("ff02::1:ff00:a"),
			Proto: pipeline.ProtoICMPv6, TTL: 255, ICMPType: pipeline.TypeSolicit, NDTarget: s.ext.at(10), NDMAC: s.o.MAC()}
		s.o.Send(ask)
		q := s.o.Expect("advertisement of the gateway", func(q sim.Packet) bool {
			return q.ICMPType == pipeline.TypeAdvert && q.NDTarget == s.ext.at(10) && q.Dst == s.o.IP()
		})
		s.o.wellTagged(q)
		if q.NDMAC != parseMAC(t, mac) {
			t.Errorf("the gateway is at %v, want %s", q.NDMAC, mac)
		}
	}
}
