package dptest

import (
	"net/netip"
	"testing"

	"github.com/insomniacslk/dhcp/dhcpv6"

	"yakumo/datapath/pipeline"
	"yakumo/datapath/pipeline/sim"
	"yakumo/model"
)

// Dual gives a port made by NewPort a second address, of the same number in fd00::/64.
func Dual(p *model.HostPort) *model.HostPort {
	v4 := p.FixedIPs[0].Address.As4()
	a := netip.AddrFrom16([16]byte{0: 0xfd, 14: v4[2], 15: v4[3]})
	p.FixedIPs = append(p.FixedIPs, model.FixedIP{SubnetID: p.NetworkID + "-subnet6", Address: a})
	return p
}

// DualNetwork is NewNetwork with a second subnet, fd00::/64, whose addresses guests form by mode.
func DualNetwork(id string, vni uint32, mode string, flood ...netip.Addr) *model.HostNetwork {
	n := NewNetwork(id, vni, flood...)
	n.Subnets = append(n.Subnets, model.HostSubnet{ID: id + "-subnet6", CIDR: netip.MustParsePrefix("fd00::/64"), Gateway: netip.MustParseAddr("fd00::1"), DHCP: true,
		RAMode: mode, AddressMode: mode})
	return n
}

// IP6 gives the guest's second address.
func (g *Guest) IP6() netip.Addr { return g.Port.FixedIPs[1].Address }

// LinkLocal gives the guest's link-local address.
func (g *Guest) LinkLocal() netip.Addr { return pipeline.LinkLocal(g.MAC()) }

// six makes an IPv6 packet of one that UDP or TCP made.
func six(p sim.Packet, from, to *Guest) sim.Packet {
	p.EthType, p.Src, p.Dst = pipeline.TypeIPv6, from.IP6(), to.IP6()
	return p
}

// UDP6 and TCP6 are UDP and TCP over IPv6.
func (g *Guest) UDP6(to *Guest, port uint16) sim.Packet { return six(g.UDP(to, port), g, to) }

// TCP6 makes a segment from g to a guest, with a fresh token.
func (g *Guest) TCP6(to *Guest, src, dst uint16, flags uint8) sim.Packet {
	return six(g.TCP(to, src, dst, flags), g, to)
}

// solicitedNode is the group that an address is asked for in (RFC 4291, 2.7.1).
func solicitedNode(a netip.Addr) netip.Addr {
	b := a.As16()
	return netip.AddrFrom16([16]byte{0: 0xff, 1: 2, 11: 1, 12: 0xff, 13: b[13], 14: b[14], 15: b[15]})
}

// Solicitation makes a guest's question for an address.
func (g *Guest) Solicitation(src, target netip.Addr) sim.Packet {
	group := solicitedNode(target)
	p := sim.Packet{EthSrc: g.MAC(), EthDst: pipeline.GroupMAC(group), EthType: pipeline.TypeIPv6, Src: src, Dst: group, Proto: pipeline.ProtoICMPv6, TTL: 255,
		ICMPType: pipeline.TypeSolicit, NDTarget: target}
	if !src.IsUnspecified() {
		p.NDMAC = g.MAC()
	}
	return p
}

// Advertisement makes a guest's word that it has an address.
func (g *Guest) Advertisement(target netip.Addr) sim.Packet {
	return sim.Packet{EthSrc: g.MAC(), EthDst: pipeline.GroupMAC(pipeline.AllNodes), EthType: pipeline.TypeIPv6, Src: target, Dst: pipeline.AllNodes, Proto: pipeline.ProtoICMPv6,
		TTL: 255, ICMPType: pipeline.TypeAdvert, NDFlags: 0x20, NDTarget: target, NDMAC: g.MAC()}
}

func advertises(target netip.Addr) func(sim.Packet) bool {
	return func(p sim.Packet) bool {
		return p.EthType == pipeline.TypeIPv6 && p.Proto == pipeline.ProtoICMPv6 && p.ICMPType == pipeline.TypeAdvert && p.NDTarget == target
	}
}

func solicits(target netip.Addr) func(sim.Packet) bool {
	return func(p sim.Packet) bool {
		return p.EthType == pipeline.TypeIPv6 && p.Proto == pipeline.ProtoICMPv6 && p.ICMPType == pipeline.TypeSolicit && p.NDTarget == target
	}
}

// Resolve6 asks for an IPv6 address and gives the MAC that is answered.
func (g *Guest) Resolve6(target netip.Addr) pipeline.MAC {
	g.t.Helper()
	src := g.IP6()
	if target.IsLinkLocalUnicast() {
		src = g.LinkLocal()
	}
	g.Send(g.Solicitation(src, target))
	p := g.Expect("advertisement of "+target.String(), advertises(target))
	if p.EthDst != g.MAC() || p.Src != target || p.Dst != src || p.NDMAC != p.EthSrc || p.NDFlags&^0x80 != 0x60 || p.TTL != 255 || p.ICMPCode != 0 {
		g.t.Errorf("odd advertisement: %s flags=%x option=%v ttl=%d", p.Summary(), p.NDFlags, p.NDMAC, p.TTL)
	}
	return p.NDMAC
}

// acrossTwo6 is two guests on one host and one on another, with both families, all allowed.
func acrossTwo6(w *World) (a, b, c *Guest) {
	h0, h1 := w.Host(0), w.Host(1)
	pa, pb, pc := Dual(NewPort("net", bigVNI, "a", 5, "all")), Dual(NewPort("net", bigVNI, "b", 6, "all")), Dual(NewPort("net", bigVNI, "c", 7, "all"))
	h0.Apply(DualNetwork("net", bigVNI, "", h1.TunnelIP()), AllowAll6("all"), PeerOf(pc, h1.TunnelIP()))
	h1.Apply(DualNetwork("net", bigVNI, "", h0.TunnelIP()), AllowAll6("all"), PeerOf(pa, h0.TunnelIP()), PeerOf(pb, h0.TunnelIP()))
	return h0.Boot(pa), h0.Boot(pb), h1.Boot(pc)
}

// AllowAll6 is a group that lets everything out and in, of both families.
func AllowAll6(id string) *model.HostGroup {
	g := AllowAll(id)
	g.Rules = append(g.Rules, model.HostRule{ID: id + "-out6", Direction: model.Egress, EtherType: model.IPv6}, model.HostRule{ID: id + "-in6", Direction: model.Ingress, EtherType: model.IPv6})
	return g
}

func testNeighbours(t *testing.T, f Fabric) {
	w := NewWorld(t, f, 2)
	a, b, c := acrossTwo6(w)
	for _, o := range []*Guest{b, c} {
		for _, target := range []netip.Addr{o.IP6(), o.LinkLocal()} {
			if mac := a.Resolve6(target); mac != o.MAC() {
				t.Fatalf("%v has MAC %v, want %v", target, mac, o.MAC())
			}
		}
		a.Passes(o, a.UDP6(o, 53))
		o.Passes(a, o.UDP6(a, 53))
		// A guest that has no address yet hears that another has this one.
		a.Send(a.Solicitation(netip.IPv6Unspecified(), o.IP6()))
		p := a.Expect("advertisement to all", advertises(o.IP6()))
		if p.Dst != pipeline.AllNodes || p.EthDst != pipeline.GroupMAC(pipeline.AllNodes) || p.NDFlags != 0x20 || p.EthSrc != o.MAC() || p.Src != o.IP6() {
			t.Errorf("odd advertisement: %s flags=%x", p.Summary(), p.NDFlags)
		}
	}
	// Its own it does not hear of, nor does anybody else.
	for _, own := range []netip.Addr{a.IP6(), a.LinkLocal()} {
		a.Dropped(a.Solicitation(netip.IPv6Unspecified(), own), func(p sim.Packet) bool { return advertises(own)(p) || solicits(own)(p) }, a, b, c)
	}
	nobody := netip.MustParseAddr("fd00::99")
	a.Dropped(a.Solicitation(a.IP6(), nobody), func(p sim.Packet) bool { return advertises(nobody)(p) || solicits(nobody)(p) }, a, b, c)
	// One that asks a neighbour directly, and does not say its own MAC, is answered without an option.
	p := a.Solicitation(a.IP6(), b.IP6())
	p.EthDst, p.Dst, p.NDMAC = b.MAC(), b.IP6(), pipeline.MAC{}
	a.Send(p)
	a.Expect("advertisement", advertises(b.IP6()))
	// What a guest announces reaches all others.
	a.Send(a.Advertisement(a.IP6()))
	b.Expect("announcement", advertises(a.IP6()))
	c.Expect("announcement", advertises(a.IP6()))
}

func testSpoof6(t *testing.T, f Fabric) {
	w := NewWorld(t, f, 2)
	a, b, c := acrossTwo6(w)
	foreign := pipeline.MAC{0xfa, 0x16, 0x3e, 7, 7, 7}
	for name, change := range map[string]func(*sim.Packet){
		"MAC":               func(p *sim.Packet) { p.EthSrc = foreign },
		"address":           func(p *sim.Packet) { p.Src = netip.MustParseAddr("fd00::77") },
		"address of b":      func(p *sim.Packet) { p.Src = b.IP6() },
		"link-local of b":   func(p *sim.Packet) { p.Src = b.LinkLocal() },
		"no address":        func(p *sim.Packet) { p.Src = netip.IPv6Unspecified() },
		"DHCP server":       func(p *sim.Packet) { p.SrcPort, p.DstPort = 547, 546 },
		"router":            func(p *sim.Packet) { p.Proto, p.ICMPType = pipeline.ProtoICMPv6, pipeline.TypeAdvertRouter },
		"redirect":          func(p *sim.Packet) { p.Proto, p.ICMPType = pipeline.ProtoICMPv6, pipeline.TypeRedirect },
		"echo from nowhere": func(p *sim.Packet) { p.Proto, p.ICMPType, p.Src = pipeline.ProtoICMPv6, 128, netip.IPv6Unspecified() },
	} {
		for _, to := range []*Guest{b, c} {
			p := a.UDP6(to, 53)
			change(&p)
			t.Logf("forged %s", name)
			a.Dropped(p, nil, b, c)
		}
	}
	for name, change := range map[string]func(*sim.Packet){
		"target":         func(p *sim.Packet) { p.NDTarget = b.IP6() },
		"MAC":            func(p *sim.Packet) { p.NDMAC = foreign },
		"source":         func(p *sim.Packet) { p.Src = netip.MustParseAddr("fd00::77") },
		"Ethernet":       func(p *sim.Packet) { p.EthSrc = foreign },
		"target, no MAC": func(p *sim.Packet) { p.NDTarget, p.NDMAC = b.IP6(), pipeline.MAC{} },
	} {
		p := a.Advertisement(a.IP6())
		change(&p)
		t.Logf("forged %s", name)
		a.Dropped(p, advertises(p.NDTarget), b, c)
	}
	p := a.Solicitation(a.IP6(), b.IP6())
	p.NDMAC = foreign
	a.Dropped(p, advertises(b.IP6()), a, b)
	// A pair's address may be asked for and announced.
	vip := netip.MustParseAddr("fd00::100")
	pair := *a.Port
	pair.Pairs = []model.AddressPair{{Prefix: netip.PrefixFrom(vip, 128)}}
	peer := PeerOf(&pair, w.Host(0).TunnelIP())
	w.Host(0).Apply(&pair)
	w.Host(1).Apply(peer)
	c.Send(c.Solicitation(c.IP6(), vip))
	a.Expect("question for the pair's address", solicits(vip))
	b.Expect("question for the pair's address", solicits(vip))
	a.Send(a.Advertisement(vip))
	c.Expect("announcement", advertises(vip))
	q := a.UDP6(c, 9)
	q.Src = vip
	a.Passes(c, q)
}

// web6 lets everything out, and in: TCP 8000 to 8009, echo requests from fd00::/125, and what b's set sends by UDP.
func web6(stateful bool) *model.HostGroup {
	return &model.HostGroup{ID: "web", Stateful: stateful, Rules: []model.HostRule{
		{ID: "r1", Direction: model.Egress, EtherType: model.IPv6},
		{ID: "r2", Direction: model.Ingress, EtherType: model.IPv6, Protocol: "tcp", PortMin: ptr(8000), PortMax: ptr(8009)},
		{ID: "r3", Direction: model.Ingress, EtherType: model.IPv6, Protocol: "ipv6-icmp", PortMin: ptr(128), PortMax: ptr(0), RemotePrefix: netip.MustParsePrefix("fd00::/125")},
		{ID: "r4", Direction: model.Ingress, EtherType: model.IPv6, Protocol: "udp", AddressGroupID: "set"},
		{ID: "r5", Direction: model.Ingress, EtherType: model.IPv4, Protocol: "udp", AddressGroupID: "set"},
		{ID: "r6", Direction: model.Egress, EtherType: model.IPv4},
	}}
}

func testGroupRules6(t *testing.T, f Fabric) {
	w := NewWorld(t, f, 2)
	h0, h1 := w.Host(0), w.Host(1)
	pa, pb, pc := Dual(NewPort("net", bigVNI, "a", 5, "web")), Dual(NewPort("net", bigVNI, "b", 6, "web")), Dual(NewPort("net", bigVNI, "c", 20, "web"))
	set := &model.HostAddresses{ID: "set", Prefixes: []netip.Prefix{netip.MustParsePrefix("10.0.0.20/32"), netip.MustParsePrefix("fd00::14/128")}}
	h0.Apply(DualNetwork("net", bigVNI, "", h1.TunnelIP()), web6(true), set, PeerOf(pc, h1.TunnelIP()))
	h1.Apply(DualNetwork("net", bigVNI, "", h0.TunnelIP()), web6(true), set, PeerOf(pa, h0.TunnelIP()), PeerOf(pb, h0.TunnelIP()))
	a, b, c := h0.Boot(pa), h0.Boot(pb), h1.Boot(pc)
	for i, p := range [][2]*Guest{{a, b}, {a, c}, {c, b}} {
		from, to := p[0], p[1]
		src := uint16(30000 + i)
		from.Dropped(from.TCP6(to, src, 7999, sim.SYN), nil, to)
		from.Dropped(from.TCP6(to, src, 8010, sim.SYN), nil, to)
		for _, port := range []uint16{8000, 8003, 8009} {
			from.Passes(to, from.TCP6(to, src, port, sim.SYN))
			to.Passes(from, to.TCP6(from, port, src, sim.SYN|sim.ACK))
			from.Passes(to, from.TCP6(to, src, port, sim.ACK))
		}
		to.Dropped(to.TCP6(from, 8001, 1, sim.SYN|sim.ACK), nil, from) // an answer to nothing
		echo := from.UDP6(to, 0)
		echo.Proto, echo.ICMPType, echo.SrcPort = pipeline.ProtoICMPv6, 128, uint16(100+i)
		reply := to.UDP6(from, 0)
		reply.Proto, reply.ICMPType, reply.SrcPort = pipeline.ProtoICMPv6, 129, uint16(100+i)
		if from == c { // outside of the rule's prefix
			from.Dropped(echo, nil, to)
			to.Dropped(reply, nil, from)
			from.Passes(to, from.UDP6(to, 9)) // but in the set
			from.Passes(to, from.UDP(to, 9))
			continue
		}
		from.Passes(to, echo)
		to.Passes(from, reply)
		from.Dropped(from.UDP6(to, 9), nil, to)
		from.Dropped(from.UDP(to, 9), nil, to)
	}
	// A prefix goes from the set, and one comes.
	h0.Apply(&model.HostAddresses{ID: "set", Prefixes: []netip.Prefix{netip.MustParsePrefix("10.0.0.20/32"), netip.MustParsePrefix("fd00::5/128")}})
	c.Dropped(c.UDP6(b, 9), nil, b)
	c.Passes(b, c.UDP(b, 9))
	a.Passes(b, a.UDP6(b, 9))
}

// tooBig makes the error that a hop sends for a packet (RFC 4443, 3.2).
func (g *Guest) tooBig(p sim.Packet) sim.Packet {
	q := p
	q.Payload = q.Payload[:min(len(q.Payload), 64)]
	quoted := q.Frame()[14:]
	e := sim.Packet{EthSrc: g.MAC(), EthDst: p.EthSrc, EthType: pipeline.TypeIPv6, Src: g.IP6(), Dst: p.Src, Proto: pipeline.ProtoICMPv6, ICMPType: 2}
	e.SrcPort = 0
	e.Payload = quoted
	return e
}

func testRelated6(t *testing.T, f Fabric) {
	w := NewWorld(t, f, 1)
	h := w.Host(0)
	shut := &model.HostGroup{ID: "shut", Stateful: true, Rules: []model.HostRule{{ID: "s1", Direction: model.Egress, EtherType: model.IPv6}}}
	h.Apply(DualNetwork("net", bigVNI, ""), shut, AllowAll6("all"))
	a, b := h.Boot(Dual(NewPort("net", bigVNI, "a", 5, "shut"))), h.Boot(Dual(NewPort("net", bigVNI, "b", 6, "all")))
	p := a.UDP6(b, 4000)
	a.Passes(b, p)
	// An error about a connection of its own reaches the guest, one about nothing does not.
	e := b.tooBig(p)
	b.Send(e)
	a.Expect("error about its packet", func(q sim.Packet) bool { return q.Proto == pipeline.ProtoICMPv6 && q.ICMPType == 2 })
	other := p
	other.SrcPort++
	b.Dropped(b.tooBig(other), func(q sim.Packet) bool { return q.Proto == pipeline.ProtoICMPv6 && q.ICMPType == 2 }, a)
}

func testStateless(t *testing.T, f Fabric) {
	w := NewWorld(t, f, 1)
	h := w.Host(0)
	h.Apply(DualNetwork("net", bigVNI, ""), web6(false), AllowAll6("all"))
	a, b := h.Boot(Dual(NewPort("net", bigVNI, "a", 5, "all"))), h.Boot(Dual(NewPort("net", bigVNI, "b", 6, "web")))
	a.Passes(b, a.TCP6(b, 1000, 8000, sim.SYN))
	// The answer needs no rule of the stateful end; one that no rule allows is dropped at the stateless end.
	b.Passes(a, b.TCP6(a, 8000, 1000, sim.SYN|sim.ACK))
	b.Passes(a, b.TCP6(a, 2000, 22, sim.SYN))
	a.Dropped(a.TCP6(b, 22, 2000, sim.SYN|sim.ACK), nil, b)
	b.Passes(a, b.UDP(a, 53))
	reply := a.UDP(b, 40000)
	reply.SrcPort = 53
	a.Dropped(reply, nil, b)
	// A segment that conntrack would call invalid is judged by its ports alone.
	a.Send(a.TCP6(b, 1000, 8000, sim.ACK))
	a.Passes(b, a.TCP6(b, 1000, 8001, sim.SYN))
	if mac := b.Resolve6(a.IP6()); mac != a.MAC() {
		t.Fatalf("a has MAC %v", mac)
	}
	// With a stateful group the answers pass again.
	h.Apply(web6(true))
	b.Passes(a, b.TCP6(a, 2001, 22, sim.SYN))
	a.Passes(b, a.TCP6(b, 22, 2001, sim.SYN|sim.ACK))
}

func testAdvertisements(t *testing.T, f Fabric) {
	w := NewWorld(t, f, 1)
	h := w.Host(0)
	router := &model.HostRouter{ID: "r", AdminStateUp: true, Interfaces: []model.HostRouterPort{{PortID: "ri", NetworkID: "net", VNI: bigVNI, MAC: "fa:16:3e:aa:00:01", MTU: 1450,
		Addresses: []netip.Prefix{netip.MustParsePrefix("fd00::1/64")}}}}
	advert := func(lifetime uint32) func(sim.Packet) bool {
		return func(p sim.Packet) bool {
			return p.EthType == pipeline.TypeIPv6 && p.Proto == pipeline.ProtoICMPv6 && p.ICMPType == pipeline.TypeAdvertRouter && p.Seq == lifetime
		}
	}
	h.Apply(DualNetwork("net", bigVNI, model.SLAAC), AllowAll6("all"))
	a, b := h.Boot(Dual(NewPort("net", bigVNI, "a", 5, "all"))), h.Boot(Dual(NewPort("net", bigVNI, "b", 6, "all")))
	// A guest is told when its port is wired, and when it asks; the others do not hear the question.
	p := a.Expect("advertisement at boot", advert(0))
	if p.Src != pipeline.LinkLocal(pipeline.ServiceMAC) || p.Dst != pipeline.AllNodes || p.TTL != 255 {
		t.Errorf("odd advertisement %s", p.Summary())
	}
	b.Expect("advertisement at boot", advert(0))
	ask := sim.Packet{EthSrc: a.MAC(), EthDst: pipeline.GroupMAC(netip.MustParseAddr("ff02::2")), EthType: pipeline.TypeIPv6, Src: a.LinkLocal(), Dst: netip.MustParseAddr("ff02::2"),
		Proto: pipeline.ProtoICMPv6, TTL: 255, ICMPType: pipeline.TypeSolicitRouter}
	a.Dropped(ask, func(p sim.Packet) bool {
		return p.ICMPType == pipeline.TypeSolicitRouter && p.Proto == pipeline.ProtoICMPv6
	}, b)
	if p := a.Expect("advertisement", advert(0)); p.Dst != a.LinkLocal() || p.EthDst != a.MAC() {
		t.Errorf("odd advertisement %s", p.Summary())
	}
	ask.Src = netip.IPv6Unspecified()
	a.Send(ask)
	a.Expect("advertisement", advert(0))
	// A router comes: all are told at once who leads out.
	h.Apply(router)
	for _, g := range []*Guest{a, b} {
		mac, err := pipeline.ParseMAC(router.Interfaces[0].MAC)
		if err != nil {
			t.Fatal(err)
		}
		if p := g.Expect("advertisement of the router", advert(1800)); p.Src != pipeline.LinkLocal(mac) || p.EthSrc != mac {
			t.Errorf("odd advertisement %s", p.Summary())
		}
	}
}

func testDHCPv6(t *testing.T, f Fabric) {
	w := NewWorld(t, f, 1)
	h := w.Host(0)
	h.Apply(DualNetwork("net", bigVNI, model.DHCPv6Stateful), AllowAll6("all"))
	a, b := h.Boot(Dual(NewPort("net", bigVNI, "a", 5, "all"))), h.Boot(Dual(NewPort("net", bigVNI, "b", 6, "all")))
	mac := a.MAC()
	m, err := dhcpv6.NewSolicit(mac[:], dhcpv6.WithRapidCommit)
	if err != nil {
		t.Fatal(err)
	}
	ask := sim.Packet{EthSrc: mac, EthDst: pipeline.GroupMAC(pipeline.AllServers), EthType: pipeline.TypeIPv6, Src: a.LinkLocal(), Dst: pipeline.AllServers,
		Proto: pipeline.ProtoUDP, SrcPort: 546, DstPort: 547, Payload: m.ToBytes()}
	a.Dropped(ask, nil, b)
	p := a.Expect("answer", func(p sim.Packet) bool {
		return p.EthType == pipeline.TypeIPv6 && p.Proto == pipeline.ProtoUDP && p.SrcPort == 547 && p.DstPort == 546
	})
	reply, err := dhcpv6.MessageFromBytes(p.Payload)
	if err != nil {
		t.Fatal(err)
	}
	if ia := reply.Options.OneIANA(); reply.MessageType != dhcpv6.MessageTypeReply || ia == nil || ia.Options.OneAddress() == nil || !ia.Options.OneAddress().IPv6Addr.Equal(a.IP6().AsSlice()) {
		t.Fatalf("got %v", reply.Summary())
	}
}
