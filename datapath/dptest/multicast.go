package dptest

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"

	"yakumo/datapath/pipeline"
	"yakumo/datapath/pipeline/sim"
)

// to sends a packet of g to a multicast group instead.
func (g *Guest) to(group netip.Addr, p sim.Packet) sim.Packet {
	p.Dst, p.EthDst = group, pipeline.GroupMAC(group)
	p.Payload = g.h.w.Token()
	return p
}

// igmp makes a guest's report (RFC 2236): of type 0x16 to join, 0x17 to leave.
func (g *Guest) igmp(typ byte, group netip.Addr) sim.Packet {
	b := append([]byte{typ, 0, 0, 0}, group.AsSlice()...)
	s := uint32(typ)<<8 + uint32(binary.BigEndian.Uint16(b[4:])) + uint32(binary.BigEndian.Uint16(b[6:]))
	binary.BigEndian.PutUint16(b[2:], ^uint16(s+s>>16))
	return sim.Packet{EthSrc: g.MAC(), EthDst: pipeline.GroupMAC(group), EthType: pipeline.TypeIPv4, Src: g.IP(), Dst: group, Proto: pipeline.ProtoIGMP, TTL: 1, Payload: b}
}

// mld makes a guest's MLDv2 report with one record (RFC 3810, 5.2): of type 4 to join, 3 to leave.
func (g *Guest) mld(typ byte, group netip.Addr) sim.Packet {
	all := netip.MustParseAddr("ff02::16")
	return sim.Packet{EthSrc: g.MAC(), EthDst: pipeline.GroupMAC(all), EthType: pipeline.TypeIPv6, Src: g.LinkLocal(), Dst: all, Proto: pipeline.ProtoICMPv6, TTL: 1,
		Hops: []byte{58, 0, 5, 2, 0, 0, 1, 0}, ICMPType: pipeline.TypeMLDReport2, Seq: 1, Payload: append([]byte{typ, 0, 0, 0}, group.AsSlice()...)}
}

func testMulticast(t *testing.T, f Fabric) {
	w := NewWorld(t, f, 2)
	a, b, c := acrossTwo6(w)
	token := func(p sim.Packet) func(sim.Packet) bool {
		return func(q sim.Packet) bool { return bytes.Equal(q.Payload, p.Payload) }
	}
	for _, fam := range []struct {
		group, local netip.Addr
		packet       func(from *Guest) sim.Packet
		join, leave  func(*Guest, netip.Addr) sim.Packet
		query        func(sim.Packet) bool
		report       func(sim.Packet) bool
	}{
		{netip.MustParseAddr("239.1.2.3"), netip.MustParseAddr("224.0.0.251"), func(g *Guest) sim.Packet { return g.UDP(b, 5000) },
			func(g *Guest, a netip.Addr) sim.Packet { return g.igmp(0x16, a) }, func(g *Guest, a netip.Addr) sim.Packet { return g.igmp(0x17, a) },
			func(p sim.Packet) bool {
				return p.EthType == pipeline.TypeIPv4 && p.Proto == pipeline.ProtoIGMP && p.Payload[0] == 0x11
			},
			func(p sim.Packet) bool {
				return p.EthType == pipeline.TypeIPv4 && p.Proto == pipeline.ProtoIGMP && p.Payload[0] != 0x11
			}},
		{netip.MustParseAddr("ff15::1:2:3"), netip.MustParseAddr("ff02::fb"), func(g *Guest) sim.Packet { return g.UDP6(b, 5000) },
			func(g *Guest, a netip.Addr) sim.Packet { return g.mld(4, a) }, func(g *Guest, a netip.Addr) sim.Packet { return g.mld(3, a) },
			func(p sim.Packet) bool {
				return p.EthType == pipeline.TypeIPv6 && p.Proto == pipeline.ProtoICMPv6 && p.ICMPType == pipeline.TypeMLDQuery
			},
			func(p sim.Packet) bool {
				return p.EthType == pipeline.TypeIPv6 && p.Proto == pipeline.ProtoICMPv6 && p.ICMPType == pipeline.TypeMLDReport2
			}},
	} {
		for _, g := range []*Guest{a, b, c} {
			if q := g.Expect("question for listeners", fam.query); q.TTL != 1 {
				t.Errorf("odd question: %s", q.Summary())
			}
		}
		// What stays on the link reaches all, without a word.
		p := a.to(fam.local, fam.packet(a))
		a.Send(p)
		b.Expect("packet to "+fam.local.String(), token(p))
		c.Expect("packet to "+fam.local.String(), token(p))
		// Any other group reaches who listens, here and elsewhere, and the report reaches nobody.
		a.Dropped(a.to(fam.group, fam.packet(a)), nil, b, c)
		for _, listener := range []*Guest{b, c} {
			listener.Dropped(fam.join(listener, fam.group), fam.report, a, b, c)
			WaitFor(t, listener.Port.ID+" to be listening", func() bool {
				p := a.to(fam.group, fam.packet(a))
				a.Dropped(p, func(sim.Packet) bool { return false }, listener)
				for _, q := range listener.seen {
					if token(p)(q) {
						return true
					}
				}
				return false
			})
			other := a.to(netip.MustParseAddr(map[bool]string{true: "239.1.2.4", false: "ff15::1:2:4"}[fam.group.Is4()]), fam.packet(a))
			a.Dropped(other, nil, b, c)
		}
		c.Send(fam.leave(c, fam.group))
		WaitFor(t, "c to have left", func() bool {
			p := a.to(fam.group, fam.packet(a))
			a.Send(p)
			b.Expect("packet to "+fam.group.String(), token(p))
			w.fence(w.Host(0), w.Host(1))
			c.flush()
			for _, q := range c.seen {
				if token(p)(q) {
					return false
				}
			}
			return true
		})
		// The whole set, told again, does not take away what was learnt.
		w.Host(0).Prune()
		p = c.to(fam.group, fam.packet(c))
		c.Send(p)
		b.Expect("packet to "+fam.group.String(), token(p))
		a.Dropped(a.to(fam.group, fam.packet(a)), nil, a, c)
	}
	// With its port goes what it listened to.
	w.Host(0).Remove(b.Port.RowID())
	if got := w.Host(0).Driver().Counters().Conflicts; got != 0 {
		t.Errorf("%d conflicts", got)
	}
	w.Host(0).Apply(b.Port)
	w.Host(0).waitInstalled(b.Port.ID)
	a.Dropped(a.to(netip.MustParseAddr("239.1.2.3"), a.UDP(b, 5000)), nil, b)
}

// On a physical network the routers outside hear what guests report, and other guests do not.
func testProviderMulticast(t *testing.T, f Fabric) {
	w := NewWorld(t, f, 2)
	h0, h1 := w.Host(0), w.Host(1)
	net := NewVLAN("net", bigVNI, 100)
	pa, pb, pc := NewPort("net", net.VNI, "a", 5, "all"), NewPort("net", net.VNI, "b", 6, "all"), NewPort("net", net.VNI, "c", 7, "all")
	h0.Apply(net, AllowAll("all"), ProviderPeer(pb, net))
	h1.Apply(net, AllowAll("all"), ProviderPeer(pa, net), ProviderPeer(pc, net))
	a, c, b := h0.Boot(pa), h0.Boot(pc), h1.Boot(pb)
	o := h0.Outside("outside", 200, net.VLAN)
	group := netip.MustParseAddr("239.1.2.3")
	p := a.igmp(0x22, netip.MustParseAddr("224.0.0.22"))
	p.Payload = append([]byte{0x22, 0, 0, 0, 0, 0, 0, 1, 4, 0, 0, 0}, group.AsSlice()...)
	is := func(q sim.Packet) bool { return q.Proto == pipeline.ProtoIGMP && bytes.Equal(q.Payload, p.Payload) }
	a.Send(p)
	o.wellTagged(o.Expect("the report", is))
	a.Dropped(a.igmp(0x17, group), is, c) // behind the report on its way
	for _, g := range []*Guest{b, c} {
		g.flush()
		for _, q := range g.seen {
			if is(q) {
				t.Errorf("%s hears the report", g.Port.ID)
			}
		}
	}
	// A router outside asks, and sends.
	a.Send(p)
	o.Expect("the report", is)
	q := sim.Packet{EthSrc: o.MAC(), EthDst: pipeline.GroupMAC(netip.MustParseAddr("224.0.0.1")), EthType: pipeline.TypeIPv4, Src: o.IP(), Dst: netip.MustParseAddr("224.0.0.1"),
		Proto: pipeline.ProtoUDP, SrcPort: 1, DstPort: 2}
	q.Payload = w.Token()
	o.Send(q)
	for _, g := range []*Guest{a, b, c} {
		g.Expect("what is for all", func(r sim.Packet) bool { return bytes.Equal(r.Payload, q.Payload) })
	}
	WaitFor(t, "a to be listening", func() bool {
		q := o.to(group, o.UDP(a, 5000))
		o.Send(q)
		o.Passes(a, o.UDP(a, 9)) // behind it on the same way
		for _, r := range a.seen {
			if bytes.Equal(r.Payload, q.Payload) {
				return true
			}
		}
		return false
	})
}
