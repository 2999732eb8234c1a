package pipeline

import (
	"net/netip"
	"slices"

	"yakumo/model"
)

// ICMPv6 types of neighbour discovery and of multicast listeners (RFC 4861, RFC 2710, RFC 3810).
const (
	TypeMLDQuery      = 130
	TypeMLDReport     = 131
	TypeMLDDone       = 132
	TypeSolicitRouter = 133
	TypeAdvertRouter  = 134
	TypeSolicit       = 135
	TypeAdvert        = 136
	TypeRedirect      = 137
	TypeMLDReport2    = 143
)

// Priorities of the stage Discover.
const (
	prioTentative   = 50 // what a guest may say before it has an address
	prioUnspecified = 40
	prioForgedND    = 30
)

var (
	// AllNodes is the group of all hosts on a link, AllServers that of DHCPv6 servers and relays.
	AllNodes   = netip.MustParseAddr("ff02::1")
	AllServers = netip.MustParseAddr("ff02::1:2")
)

// linkTypes are the ICMPv6 messages that never leave a link and that rules of groups say nothing of.
var linkTypes = [...]uint64{TypeMLDQuery, TypeMLDReport, TypeMLDDone, TypeSolicitRouter, TypeAdvertRouter, TypeSolicit, TypeAdvert, TypeMLDReport2}

// LinkLocal gives the link-local address that a MAC makes (RFC 4291, appendix A).
func LinkLocal(m MAC) netip.Addr {
	return netip.AddrFrom16([16]byte{0xfe, 0x80, 8: m[0] ^ 2, m[1], m[2], 0xff, 0xfe, m[3], m[4], m[5]})
}

// GroupMAC gives the Ethernet address of a multicast group (RFC 1112, 6.4; RFC 2464, 7).
func GroupMAC(a netip.Addr) MAC {
	if a = a.Unmap(); a.Is4() {
		b := a.As4()
		return MAC{0x01, 0x00, 0x5e, b[1] & 0x7f, b[2], b[3]}
	}
	b := a.As16()
	return MAC{0x33, 0x33, b[12], b[13], b[14], b[15]}
}

// icmp6 gives the terms of an ICMPv6 message.
func icmp6(typ uint64, more ...Term) []Term {
	return append([]Term{Is(EthType, TypeIPv6), Is(IPProto, ProtoICMPv6), Is(ICMP6Type, typ)}, more...)
}

// baseND gives the entries of IPv6 that are there whatever the rows say.
func (c *compiler) baseND() {
	base := func(s Stage, prio uint16, m Match, as ...Action) { c.add(s, prio, FeatureBase, m, as...) }
	// No guest with port security is a router or a server.
	base(AntiSpoof, prioNoServer, MatchOf(Is(EthType, TypeIPv6), Is(IPProto, ProtoUDP), Is(UDPSrc, 547), Is(UDPDst, 546)))
	base(AntiSpoof, prioNoServer, MatchOf(icmp6(TypeAdvertRouter)...))
	base(AntiSpoof, prioNoServer, MatchOf(icmp6(TypeRedirect)...))

	next := Goto{Next(Discover)}
	nobody := IsAddr(IP6Src, netip.IPv6Unspecified())
	for _, typ := range [...]uint64{TypeSolicitRouter, TypeMLDReport, TypeMLDDone, TypeMLDReport2} {
		base(Discover, prioTentative, MatchOf(icmp6(typ, nobody)...), next)
	}
	base(Discover, prioUnspecified, MatchOf(Is(EthType, TypeIPv6), nobody))
	base(Discover, prioForgedND, MatchOf(icmp6(TypeSolicit)...))
	base(Discover, prioForgedND, MatchOf(icmp6(TypeAdvert)...))
	base(Discover, prioMiss, nil, next)

	base(Respond, prioUnknown, MatchOf(icmp6(TypeSolicit)...))
	base(Respond, prioService, MatchOf(icmp6(TypeSolicit, Is(Net, 0), Within(NDTarget, ServicePrefix6))...), AnswerND{MAC: ServiceMAC})
	base(Respond, prioService, MatchOf(icmp6(TypeSolicit, nobody, IsAddr(NDTarget, ServiceAddr6))...), AnswerND{MAC: ServiceMAC, All: true})
	base(Respond, prioService-1, MatchOf(icmp6(TypeSolicit, IsAddr(NDTarget, ServiceAddr6))...), AnswerND{MAC: ServiceMAC})
	base(Respond, prioServiceIP, MatchOf(Is(EthType, TypeIPv6), IsAddr(IP6Dst, ServiceAddr6)))
	base(Advertise, prioAnswer, MatchOf(icmp6(TypeAdvert)...), AdvertiseND{}, Goto{Return})
}

// Speaks6 tells whether a port speaks IPv6: it has an address or a pair of that family. One that
// has neither gets no entries of IPv6, not even for its link-local address.
func Speaks6(addrs []netip.Addr, pairs []model.AddressPair) bool {
	for _, a := range addrs {
		if a.Unmap().Is6() {
			return true
		}
	}
	for _, p := range pairs {
		if p.Prefix.IsValid() && p.Prefix.Addr().Is6() {
			return true
		}
	}
	return false
}

// sources6 lets a port send IPv6 from its own addresses and pairs, and say by neighbour
// discovery only what is true of them (RFC 4861, 7.1).
func (c *compiler) sources6(from Term, ord uint32, own MAC, addrs []netip.Addr, pairs []model.AddressPair) {
	all := map[MAC][]netip.Prefix{own: {netip.PrefixFrom(LinkLocal(own), 128)}}
	macs := []MAC{own}
	shared := map[MAC][]netip.Prefix{} // those of pairs, of which somebody must learn where they are
	add := func(m MAC, p netip.Prefix) {
		if _, known := all[m]; !known {
			macs = append(macs, m)
			all[m] = []netip.Prefix{netip.PrefixFrom(LinkLocal(m), 128)}
		}
		for _, q := range all[m] {
			if q == p {
				return
			}
		}
		all[m] = append(all[m], p)
	}
	for _, a := range addrs {
		add(own, netip.PrefixFrom(a, 128))
	}
	for _, p := range pairs {
		if p.Prefix.IsValid() && p.Prefix.Addr().Is6() {
			m := own
			if p.MAC != "" {
				m = c.mac(p.MAC)
			}
			if before := len(all[m]); !p.Prefix.IsSingleIP() || !containsAddr(addrs, p.Prefix.Addr()) {
				if add(m, p.Prefix.Masked()); len(all[m]) > before {
					shared[m] = append(shared[m], p.Prefix.Masked())
				}
			} else {
				add(m, p.Prefix.Masked())
			}
		}
	}
	next := Goto{Next(Discover)}
	for _, m := range macs {
		src := IsMAC(EthSrc, m)
		// Before it has an address a guest looks for routers, and whether its own is taken (RFC 4862, 5.4).
		c.add(AntiSpoof, prioSource+1, FeatureAntiSpoof, MatchOf(from, src, Is(EthType, TypeIPv6), Is(IPProto, ProtoICMPv6), IsAddr(IP6Src, netip.IPv6Unspecified())), Goto{Discover})
		for _, said := range [...]MAC{m, {}} { // zero: it does not say
			c.add(Discover, prioSource, FeatureAntiSpoof, MatchOf(icmp6(TypeSolicit, from, src, IsMAC(NDSourceMAC, said))...), next)
			for _, p := range all[m] {
				advert := MatchOf(icmp6(TypeAdvert, from, src, Within(NDTarget, p), IsMAC(NDTargetMAC, said))...)
				if slices.Contains(shared[m], p) {
					c.add(Discover, prioPair, FeatureHeld, advert, ToAgent{Responder: ResponderHeld, Port: ord}, next)
				} else {
					c.add(Discover, prioSource, FeatureAntiSpoof, advert, next)
				}
			}
		}
		for _, p := range all[m] {
			c.add(AntiSpoof, prioSource, FeatureAntiSpoof, MatchOf(from, src, Is(EthType, TypeIPv6), Within(IP6Src, p)), Goto{Discover})
		}
	}
}

// answerND makes the switch answer neighbour solicitations for a: those of a guest that asks
// who has the address, and of one that asks whether it may use it.
func (c *compiler) answerND(net Term, a netip.Addr, mac MAC, router bool) {
	target := IsAddr(NDTarget, a)
	c.add(Respond, prioAnswer, FeatureND, MatchOf(icmp6(TypeSolicit, net, target)...), AnswerND{MAC: mac, Router: router})
	c.add(Respond, prioAnswer+1, FeatureND, MatchOf(icmp6(TypeSolicit, net, IsAddr(IP6Src, netip.IPv6Unspecified()), target)...), AnswerND{MAC: mac, Router: router, All: true})
}

// own6 is a port's part in neighbour discovery and in the configuration of addresses.
func (c *compiler) own6(r *model.HostPort, ord uint32, net, from Term, mac MAC, addrs []netip.Addr) {
	for _, a := range append([]netip.Addr{LinkLocal(mac)}, addrs...) {
		c.answerND(net, a, mac, false)
		// A guest that asks whether its own address is taken must not hear itself.
		c.add(Respond, prioOwnARP, FeatureND, MatchOf(icmp6(TypeSolicit, from, IsAddr(NDTarget, a))...))
	}
	n := c.rows.Network(r.NetworkID)
	if n == nil {
		return
	}
	ra, dhcp := false, false
	for i := range n.Subnets {
		s := &n.Subnets[i]
		if !s.CIDR.Addr().Is6() || !s.DHCP {
			continue
		}
		ra = ra || s.RAMode != ""
		dhcp = dhcp || s.AddressMode == model.DHCPv6Stateful || s.AddressMode == model.DHCPv6Stateless
	}
	if ra {
		c.add(Respond, prioAnswer, FeatureRA, MatchOf(icmp6(TypeSolicitRouter, from)...), ToAgent{Responder: ResponderRA, Port: ord})
	}
	if dhcp {
		c.add(Respond, prioAnswer, FeatureDHCPv6, MatchOf(from, Is(EthType, TypeIPv6), Is(IPProto, ProtoUDP), IsAddr(IP6Dst, AllServers), Is(UDPSrc, 546), Is(UDPDst, 547)),
			ToAgent{Responder: ResponderDHCPv6, Port: ord})
	}
}
