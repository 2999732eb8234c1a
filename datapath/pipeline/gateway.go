package pipeline

import (
	"fmt"
	"net/netip"
	"slices"

	"yakumo/model"
)

// Priorities of what goes outside and comes from there.
const (
	prioTell     = 300 // arrive: answers and questions of neighbours
	prioNews     = 250
	prioOldNews  = 260
	prioEnter    = 200 // arrive: packets for a router
	prioTransit  = 100 // fit
	prioUntouch  = 20
	prioTranslat = 10

	prioSelf    = 1100 // snat: what the router itself says
	prioLost    = 1000 // not of a connection that is known, nor the first of one
	prioKnown   = 900
	prioForward = 310
	prioFloat   = 300
	prioTold    = 200 // redirect: what the router itself is told
	prioSNAT    = 110
	prioPlain   = 50 // what is not translated; a connection whose translation is no more has a mark that nobody knows, and ends
)

// PortNobody stands for no port and no router, in ToAgent.
const PortNobody = MaxPort + 1

// baseGateway are the entries of translation that are there whatever the rows say. A connection is
// translated in the conntrack zone of its router, both ways.
func baseGateway(base func(Stage, uint16, Match, ...Action)) {
	ip, ip6 := Is(EthType, TypeIPv4), Is(EthType, TypeIPv6)
	base(NAT, prioTranslat, MatchOf(ip), Track{Zone: Router, Stage: SNAT, NAT: true})
	base(NAT, prioTranslat, MatchOf(ip6), Goto{Resolve})
	base(Restore, prioTranslat, MatchOf(ip), Track{Zone: Router, Stage: Redirect, NAT: true})
	base(Restore, prioTranslat, MatchOf(ip6), Goto{Route})
	for _, d := range [...]struct{ at, next Stage }{{SNAT, Resolve}, {Redirect, Route}} {
		base(d.at, prioLost, MatchOf(State(Tracked|Invalid, 0)))
		base(d.at, prioPlain, MatchOf(Is(TrackMark, 0)), Goto{d.next})
	}
}

// fresh are the terms of the first packet of a connection that is not translated yet. Until it is answered a
// connection stays new in its switch, though its packets are translated.
func fresh() []Term { return []Term{Is(EthType, TypeIPv4), State(New, Invalid), Is(TrackMark, 0)} }

// known lets connections pass that were translated with a mark: each translation has its own, so that
// its connections end with it. out and in are what limits either direction.
func (c *compiler) known(router Term, key string, out, in []Action) (mark uint32) {
	mark = c.own(OrdinalNAT, key)
	m := Is(TrackMark, uint64(mark))
	c.add(SNAT, prioKnown, FeatureNAT, MatchOf(router, m), behind(out, Goto{Resolve})...)
	c.add(Redirect, prioKnown, FeatureNAT, MatchOf(router, m), behind(in, Goto{Route})...)
	return mark
}

// behind gives an action behind limits that others have too.
func behind(limits []Action, a Action) []Action { return append(slices.Clip(limits), a) }

// outward is a route that leads outside.
type outward struct {
	dst     netip.Prefix
	nextHop netip.Addr // invalid: the destination itself
}

// outwards gives the routes of a router that lead outside, by falling right: the external network's blocks, extra
// routes and default routes. A prefix stands once.
func outwards(r *model.HostRouter) []outward {
	gw := r.Gateway
	if gw == nil {
		return nil
	}
	var out []outward
	seen := map[netip.Prefix]bool{}
	for i := range r.Interfaces { // what is next to the router goes first
		for _, a := range r.Interfaces[i].Addresses {
			seen[a.Masked()] = true
		}
	}
	add := func(dst netip.Prefix, hop netip.Addr) {
		if dst = dst.Masked(); dst.IsValid() && !seen[dst] {
			seen[dst] = true
			out = append(out, outward{dst, hop})
		}
	}
	for _, s := range gw.Subnets {
		add(s, netip.Addr{})
	}
	for _, x := range r.Routes {
		switch {
		case x.Destination.Addr().Is4() != x.NextHop.Is4() || ownOutside(gw, x.NextHop):
		case nextTo(r, x.NextHop) >= 0:
			seen[x.Destination.Masked()] = true
		case outside(gw, x.NextHop):
			add(x.Destination, x.NextHop)
		}
	}
	for _, hop := range gw.NextHops {
		if !ownOutside(gw, hop) {
			add(netip.PrefixFrom(hop, 0), hop)
		}
	}
	return out
}

// outside tells whether an address is in a block of the external network.
func outside(gw *model.HostGateway, a netip.Addr) bool {
	for _, s := range gw.Subnets {
		if s.Contains(a) {
			return true
		}
	}
	return false
}

func ownOutside(gw *model.HostGateway, a netip.Addr) bool {
	for _, p := range gw.Addresses {
		if p.Addr() == a {
			return true
		}
	}
	return false
}

// outerSide gives the external network as a side of the router.
func (c *compiler) outerSide(r *model.HostRouter, mac string) side {
	s := side{net: c.vni(r.Gateway.VNI), mac: c.mac(mac), mtu: r.Gateway.MTU, next: NAT}
	if s.fit = s.mtu > 0 && s.mtu < largestMTU(r); s.fit {
		s.next = Fit
	}
	return s
}

// gateway compiles a router's side to the outside. The active gateway host sends and receives there; the
// others send it what leads outside, as it is.
func (c *compiler) gateway(r *model.HostRouter, ord uint32, router Term, sp spaces) {
	gw, s := r.Gateway, c.outerSide(r, r.Gateway.MAC)
	net := Is(Net, s.net)
	if s.fit {
		c.add(Fit, prioLarge, FeatureNAT, MatchOf(router, net, Is(Large, 1)), ToAgent{Responder: ResponderTooBig, Port: ord, Arg: uint32(s.mtu)})
		c.add(Fit, prioTransit, FeatureNAT, MatchOf(router, net), Goto{NAT})
	}
	for i := range versions {
		c.add(Resolve, prioNobody, FeatureNAT, MatchOf(router, net, versions[i].typ), ToAgent{Responder: ResponderResolve, Port: ord, Arg: gw.VNI})
	}
	transit := c.vni(gw.Transit)
	for _, o := range outwards(r) {
		v := versionOf(o.dst.Addr())
		at := MatchOf(router, v.typ, Within(v.dst, o.dst))
		if o.dst.Addr().Is6() { // what is of IPv4 may be translated
			c.fence(router, o.dst, gatewayScopes(gw), sp)
		}
		switch prio := routePriority(o.dst); {
		case gw.Active:
			c.route(router, o.dst, s, o.nextHop)
		case gw.TunnelIP.IsValid():
			c.add(Route, prio, FeatureNAT, at, Tunnel{Host: gw.TunnelIP, VNI: gw.Transit})
		default:
			c.add(Route, prio, FeatureNAT, at, ToAgent{Responder: ResponderUnreachable, Port: ord, Arg: UnreachableNet})
		}
	}
	var translate []Action
	for _, p := range gw.Addresses {
		a := p.Addr().Unmap()
		c.resolve(net, a, s.mac)
		if a.Is6() {
			c.toSelf(Route, prioOwnEcho, ord, router, a)
			continue
		}
		var mark uint32
		out, in := c.rates("router/"+r.ID, gw.QoS, model.Egress), c.rates("router/"+r.ID, gw.QoS, model.Ingress)
		if gw.SNAT {
			mark = c.known(router, "router/"+r.ID+"/"+a.String(), out, in)
		}
		if gw.Active {
			// What is sent to this address from inside may be an answer to what was sent with it.
			v := versionOf(a)
			c.echo(Route, prioOwnEcho, a, router)
			c.add(Route, prioOwn, FeatureNAT, MatchOf(router, v.typ, IsAddr(v.dst, a)), append(sp.free(), Reenter{}, Goto{Restore})...)
			c.toSelf(Redirect, prioTold, ord, router, a, Is(TrackMark, 0))
			c.add(SNAT, prioSelf, FeatureNAT, MatchOf(router, v.typ, IsAddr(v.src, a)), Goto{Resolve})
			if gw.SNAT {
				if len(out) > 0 { // a packet of a known connection has this source already
					c.add(SNAT, prioSelf+1, FeatureQoS, MatchOf(router, v.typ, IsAddr(v.src, a), Is(TrackMark, uint64(mark))), behind(out, Goto{Resolve})...)
				}
				translate = behind(out, Translate{Zone: Router, Source: true, Addr: a, Mark: mark, Stage: Leave})
				c.add(SNAT, prioSNAT, FeatureNAT, MatchOf(append(fresh(), router)...), translate...)
				c.leaves(router, a)
			}
		}
	}
	c.judge(r, router, sp, translate)
	if !gw.Active {
		return
	}
	for _, b := range gw.Subnets { // what is of the external network itself is not translated
		if b.Addr().Is4() {
			c.add(SNAT, prioSNAT+1, FeatureNAT, MatchOf(append(fresh(), router, Within(IPSrc, b))...), Goto{Resolve})
		}
	}
	c.add(Classify, prioClassify, FeatureNAT, MatchOf(Is(InPort, PortTunnel), Is(TunnelID, transit), Is(VLAN, 0)), Put(Router, uint64(ord)), Reenter{}, Goto{Route})
	c.arrive(ord, net, s.mac, gw.VNI, sp)
	c.add(Arrive, prioEnter, FeatureNAT, MatchOf(net, Is(EthType, TypeIPv6), IsMAC(EthDst, s.mac)),
		append(append([]Action{Put(Router, uint64(ord)), Put(Landed, 0)}, sp.enters(gatewayScopes(gw))...), Reenter{}, Goto{Route})...)
	six := false
	for _, p := range gw.Addresses {
		a := p.Addr().Unmap()
		c.answerOutside(net, a, s.mac)
		six = six || a.Is6()
	}
	if six {
		c.answerOutside(net, LinkLocal(s.mac), s.mac)
		c.add(Arrive, prioTell, FeatureNAT, MatchOf(icmp6(TypeAdvert, net, IsMAC(EthDst, s.mac))...), ToAgent{Responder: ResponderLearn, Port: ord, Arg: gw.VNI})
	}
}

// leaves lets out what was translated to a. A switch that finds no translation sends the packet on as it was: one
// in user space gives each ICMP id once, whoever asks for it.
func (c *compiler) leaves(router Term, a netip.Addr) {
	c.add(Leave, prioTranslat, FeatureNAT, MatchOf(router, Is(EthType, TypeIPv4), IsAddr(IPSrc, a)), Goto{Resolve})
}

// answerOutside answers ARP or neighbour discovery for an address that is served here: to what comes
// from the provider bridge, and to ports here.
func (c *compiler) answerOutside(net Term, a netip.Addr, mac MAC) {
	if a.Is4() {
		request := MatchOf(net, Is(EthType, TypeARP), Is(ARPOp, ARPRequest), Is(ARPTargetIP, AddrNumber(a)))
		c.add(Arrive, prioTell, FeatureNAT, request, AnswerARP{mac})
		c.answer(net, a, mac)
		return
	}
	target := IsAddr(NDTarget, a)
	c.add(Arrive, prioTell, FeatureNAT, MatchOf(icmp6(TypeSolicit, net, target)...), AnswerND{MAC: mac, Router: true})
	c.add(Arrive, prioTell+1, FeatureNAT, MatchOf(icmp6(TypeSolicit, net, IsAddr(IP6Src, netip.IPv6Unspecified()), target)...), AnswerND{MAC: mac, Router: true, All: true})
	c.answerND(net, a, mac, true)
}

// arrive takes in frames for a MAC that a router has outside: from the provider bridge, from ports here, and
// from routers here.
func (c *compiler) arrive(ord uint32, net Term, mac MAC, vni uint32, sp spaces) {
	dst := IsMAC(EthDst, mac)
	c.add(Arrive, prioTell, FeatureNAT, MatchOf(net, Is(EthType, TypeARP), Is(ARPOp, ARPReply), dst), ToAgent{Responder: ResponderLearn, Port: ord, Arg: vni})
	c.add(Arrive, prioEnter, FeatureNAT, MatchOf(net, Is(EthType, TypeIPv4), dst),
		append(append([]Action{Put(Router, uint64(ord)), Put(Landed, 0)}, sp.free()...), Reenter{}, Goto{Restore})...)
	c.add(Lookup, prioLocal, FeatureNAT, MatchOf(net, dst, Is(Landed, 0)), Goto{Arrive})
}

// floating compiles a floating address that is served here.
func (c *compiler) floating(f *model.HostFloating) {
	ord := c.own(OrdinalPort, RouterKey(f.RouterID))
	r := c.rows.Router(f.RouterID)
	addr, fixed := f.Address.Unmap(), f.Fixed.Unmap()
	if c.err != nil || r == nil || !r.AdminStateUp || r.Gateway == nil || !addr.Is4() {
		return
	}
	router, ip := Is(Router, uint64(ord)), Is(EthType, TypeIPv4)
	s := c.outerSide(r, f.MAC)
	net := Is(Net, s.net)
	c.arrive(ord, net, s.mac, f.VNI, spacesOf(r))
	if !f.Standby { // else another says that it is there; what comes here, and what its guest sends, is translated
		c.answerOutside(net, addr, s.mac)
	}
	c.resolve(net, addr, s.mac)
	to := func(more ...Term) Match {
		return MatchOf(append(append(fresh(), router, IsAddr(IPDst, addr)), more...)...)
	}
	out, in := c.rates("floating/"+f.ID, f.QoS, model.Egress), c.rates("floating/"+f.ID, f.QoS, model.Ingress)
	inside := map[netip.Addr]bool{}
	if fixed.Is4() {
		inside[fixed] = true
		mark := c.known(router, "floating/"+f.ID+"/"+addr.String()+"/"+fixed.String(), out, in)
		c.add(Redirect, prioFloat, FeatureNAT, to(), behind(in, Translate{Zone: Router, Addr: fixed, Mark: mark, Stage: Route})...)
		c.add(SNAT, prioFloat, FeatureNAT, MatchOf(append(fresh(), router, IsAddr(IPSrc, fixed))...), behind(out, Translate{Zone: Router, Source: true, Addr: addr, Mark: mark, Stage: Leave})...)
		c.leaves(router, addr)
		for _, o := range outwards(r) {
			if o.dst.Addr().Is4() {
				c.routeFrom(router, o.dst, IsAddr(IPSrc, fixed), aboveFloat, s, o.nextHop)
			}
		}
	} else {
		c.toSelf(Redirect, prioTold, ord, router, addr, Is(TrackMark, 0))
		c.add(SNAT, prioSelf, FeatureNAT, MatchOf(router, ip, IsAddr(IPSrc, addr)), Goto{Resolve})
	}
	for i := range f.Forwards {
		w := &f.Forwards[i]
		proto, src, ok := transport(w.Protocol)
		if !ok || !w.Address.Unmap().Is4() {
			continue
		}
		inside[w.Address.Unmap()] = true
		mark := c.known(router, fmt.Sprintf("forward/%s/%v/%s/%d-%d/%v/%d", w.ID, addr, w.Protocol, w.External, w.Count, w.Address, w.Internal), out, in)
		for n := range w.Count {
			c.add(Redirect, prioForward, FeatureNAT, to(Is(IPProto, proto), Is(src, uint64(w.External+n))),
				behind(in, Translate{Zone: Router, Addr: w.Address.Unmap(), MinPort: w.Internal + n, MaxPort: w.Internal + n, Mark: mark, Stage: Route})...)
		}
	}
	if partial(r) {
		c.restores(router, addr)
		for a := range inside {
			c.translates(router, a)
		}
	}
}

// transport gives the number and the destination port's field of a protocol that has ports.
func transport(name string) (proto uint64, dst Field, ok bool) {
	switch name {
	case "tcp":
		return ProtoTCP, TCPDst, true
	case "udp":
		return ProtoUDP, UDPDst, true
	case "sctp":
		return ProtoSCTP, SCTPDst, true
	}
	return 0, 0, false
}

// neighbor compiles what was learnt outside. Who says something else of the address is heard.
func (c *compiler) neighbor(r *model.HostNeighbor) {
	net, mac, a := Is(Net, c.vni(r.VNI)), c.mac(r.MAC), r.Address.Unmap()
	c.resolve(net, a, mac)
	learn := ToAgent{Responder: ResponderLearn, Port: PortNobody, Arg: r.VNI}
	if a.Is4() {
		said := []Term{net, Is(EthType, TypeARP), Is(ARPSenderIP, AddrNumber(a))}
		c.add(Arrive, prioOldNews, FeatureNAT, MatchOf(append(said, IsMAC(ARPSenderMAC, mac))...), Goto{Lookup})
		c.add(Arrive, prioNews, FeatureNAT, MatchOf(said...), learn, Goto{Lookup})
		return
	}
	said := icmp6(TypeAdvert, net, IsAddr(NDTarget, a))
	c.add(Arrive, prioOldNews, FeatureNAT, MatchOf(append(said, IsMAC(NDTargetMAC, mac))...), Goto{Lookup})
	c.add(Arrive, prioNews, FeatureNAT, MatchOf(said...), learn, Goto{Lookup})
}
