package pipeline

import (
	"fmt"
	"net/netip"

	"yakumo/model"
)

// Priorities of routing.
const (
	prioNever   = 1100 // route: what no router sends on
	prioOwnEcho = 1000 // route: packets to the router itself
	prioOwn     = 980
	prioExpired = 900 // route: time to live
	prioRoutes  = 100 // route: plus four times the prefix's length
	prioNoRoute = 10
	prioLarge   = 200 // fit
	prioNextHop = 100 // resolve
	prioNobody  = 10
)

// Codes of ResponderUnreachable's Arg, as ICMP has them (RFC 792).
const (
	UnreachableNet  = 0
	UnreachableHost = 1
	UnreachablePort = 3
)

// TypeEcho6 is an echo request's (RFC 4443, 4.1).
const TypeEcho6 = 128

// version is what differs between IPv4 and IPv6.
type version struct {
	v6                bool
	typ               Term
	src, dst, nextHop Field
	icmp, echo        uint64
	icmpType          Field
	never             []netip.Prefix // destinations that no router sends on
}

var versions = [2]version{
	{
		typ: Is(EthType, TypeIPv4), src: IPSrc, dst: IPDst, nextHop: NextHop, icmp: ProtoICMP, icmpType: ICMPType, echo: 8,
		never: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("224.0.0.0/3")},
	},
	{
		v6: true, typ: Is(EthType, TypeIPv6), src: IP6Src, dst: IP6Dst, nextHop: NextHop6, icmp: ProtoICMPv6, icmpType: ICMP6Type, echo: TypeEcho6,
		never: []netip.Prefix{netip.MustParsePrefix("::/127"), netip.MustParsePrefix("ff00::/8"), netip.MustParsePrefix("fe80::/10")},
	},
}

// versionOf gives the version of an address.
func versionOf(a netip.Addr) version {
	if a.Is4() {
		return versions[0]
	}
	return versions[1]
}

// baseRouter are the entries of routing that are there whatever the rows say.
func baseRouter(base func(Stage, uint16, Match, ...Action)) {
	base(Admit, prioMiss, nil, Goto{Lookup})
	for i := range versions {
		f := versions[i]
		for _, p := range f.never {
			base(Route, prioNever, MatchOf(f.typ, Within(f.dst, p)))
		}
	}
	base(Fit, prioMiss, nil, Goto{Resolve})
}

// resolve says which MAC an address next to a router has.
func (c *compiler) resolve(net Term, a netip.Addr, mac MAC) {
	if a = a.Unmap(); !a.IsValid() {
		return
	}
	f := versionOf(a)
	c.add(Resolve, prioNextHop, FeatureRouter, MatchOf(net, f.typ, IsAddr(f.nextHop, a)), Put(EthDst, mac.Number()), Goto{Lookup})
}

// side is one of a router's networks, as its routes need it.
type side struct {
	net  uint64
	mac  MAC
	mtu  int
	fit  bool // some packets may be too large for it
	next Stage
	in   scopes
}

// router compiles a router: it routes what guests here send.
func (c *compiler) router(r *model.HostRouter) {
	ord := c.own(OrdinalPort, RouterKey(r.ID))
	if !r.AdminStateUp || c.err != nil {
		return
	}
	router := Is(Router, uint64(ord))
	largest, sp := largestMTU(r), spacesOf(r)
	sides := make([]side, len(r.Interfaces))
	routed := map[netip.Prefix]bool{}
	for i := range r.Interfaces {
		p := &r.Interfaces[i]
		s := side{net: c.vni(p.VNI), mac: c.mac(p.MAC), mtu: p.MTU, next: Resolve, in: scopes{p.Scope4, p.Scope6}}
		s.fit = s.mtu > 0 && s.mtu < largest
		if s.fit {
			s.next = Fit
		}
		sides[i] = s
		c.routerPort(ord, router, p, s, sp)
		for _, a := range p.Addresses {
			if a = a.Masked(); !routed[a] {
				routed[a] = true
				c.route(router, a, s, netip.Addr{})
				c.fence(router, a, s.in, sp)
			}
		}
	}
	for _, o := range outwards(r) {
		routed[o.dst] = true
	}
	for _, x := range r.Routes {
		dst := x.Destination.Masked()
		if !dst.IsValid() || routed[dst] || dst.Addr().Is4() != x.NextHop.Is4() {
			continue
		}
		if i := nextTo(r, x.NextHop); i >= 0 {
			routed[dst] = true
			c.route(router, dst, sides[i], x.NextHop)
			c.fence(router, dst, sides[i].in, sp)
		}
	}
	if r.Gateway != nil {
		c.gateway(r, ord, router, sp)
	}
	for i := range versions {
		f := versions[i]
		for ttl := range uint64(2) {
			c.add(Route, prioExpired, FeatureRouter, MatchOf(router, f.typ, Is(IPTTL, ttl)), ToAgent{Responder: ResponderTimeExceeded, Port: ord})
		}
		c.add(Route, prioNoRoute, FeatureRouter, MatchOf(router, f.typ), ToAgent{Responder: ResponderUnreachable, Port: ord, Arg: UnreachableNet})
	}
}

// largestMTU gives the largest of a router's networks: what it has to send may be as large.
func largestMTU(r *model.HostRouter) int {
	largest := 0
	for i := range r.Interfaces {
		largest = max(largest, r.Interfaces[i].MTU)
	}
	if r.Gateway != nil {
		largest = max(largest, r.Gateway.MTU)
	}
	return largest
}

// nextTo gives the interface in whose network an address is, -1 for none. A router's own address is
// next to nothing.
func nextTo(r *model.HostRouter, a netip.Addr) int {
	best, at := -1, -1
	for i := range r.Interfaces {
		for _, p := range r.Interfaces[i].Addresses {
			if p.Addr() == a {
				return -1
			}
			if p.Bits() > best && p.Masked().Contains(a) {
				best, at = p.Bits(), i
			}
		}
	}
	return at
}

// routerPort compiles an interface: frames to its MAC and packets to its addresses.
func (c *compiler) routerPort(ord uint32, router Term, p *model.HostRouterPort, s side, sp spaces) {
	net, dst := Is(Net, s.net), IsMAC(EthDst, s.mac)
	// The router may send it back to where it came from, hence Reenter.
	c.add(Admit, prioLocal, FeatureRouter, MatchOf(net, dst), append(append([]Action{Put(Router, uint64(ord))}, sp.enters(s.in)...), Reenter{}, Goto{Route})...)
	// What another router sends to this one. All routing is done at the sender, so nothing of the kind comes by a tunnel.
	c.add(Lookup, prioLocal, FeatureRouter, MatchOf(net, dst, Is(Landed, 0)), Goto{Admit})
	six := false
	for _, a := range p.Addresses {
		own := a.Addr().Unmap()
		if !own.IsValid() {
			c.fail(fmt.Errorf("interface %s has an invalid address", p.PortID))
			return
		}
		if own.Is4() {
			c.answer(net, own, s.mac)
		} else {
			six = true
			c.answerND(net, own, s.mac, true)
		}
		c.resolve(net, own, s.mac)
		c.toSelf(Route, prioOwnEcho, ord, router, own)
	}
	if six { // guests know their router by its link-local address; nobody but its link does
		own := LinkLocal(s.mac)
		c.answerND(net, own, s.mac, true)
		c.add(Route, prioNever+1, FeatureRouter, MatchOf(icmp6(TypeEcho6, router, net, Is(IPFrag, 0), IsAddr(IP6Dst, own))...),
			AnswerEcho{V6: true}, Reenter{}, Copy{EthSrc, EthDst}, Put(EthSrc, s.mac.Number()), Goto{Lookup})
	}
	if s.fit {
		c.add(Fit, prioLarge, FeatureRouter, MatchOf(router, net, Is(Large, 1)), ToAgent{Responder: ResponderTooBig, Port: ord, Arg: uint32(s.mtu)})
	}
	for i := range versions {
		c.add(Resolve, prioNobody, FeatureRouter, MatchOf(router, net, versions[i].typ), ToAgent{Responder: ResponderUnreachable, Port: ord, Arg: UnreachableHost})
	}
}

// toSelf compiles what a router does, in a stage, with packets to an address of its own: entries of priority
// prio and, but for echo requests, some less.
func (c *compiler) toSelf(at Stage, prio uint16, ord uint32, router Term, a netip.Addr, more ...Term) {
	f := versionOf(a)
	to := append([]Term{router, f.typ, IsAddr(f.dst, a)}, more...)
	c.echo(at, prio, a, append(more, router)...)
	for _, proto := range [...]uint64{ProtoTCP, ProtoUDP} {
		c.add(at, prio-1, FeatureRouter, MatchOf(append(to, Is(IPFrag, 0), Is(IPProto, proto))...), ToAgent{Responder: ResponderUnreachable, Port: ord, Arg: UnreachablePort})
	}
	c.add(at, prio-2, FeatureRouter, MatchOf(to...))
}

// echo answers echo requests to an address of a router.
func (c *compiler) echo(at Stage, prio uint16, a netip.Addr, more ...Term) {
	f := versionOf(a)
	c.add(at, prio, FeatureRouter, MatchOf(append(more, f.typ, IsAddr(f.dst, a), Is(IPFrag, 0), Is(IPProto, f.icmp), Is(f.icmpType, f.echo))...), AnswerEcho{V6: f.v6}, Reenter{}, Goto{Route})
}

// route sends a prefix on into a network, to nextHop or, where that is not valid, to the destination itself.
func (c *compiler) route(router Term, dst netip.Prefix, s side, nextHop netip.Addr) {
	c.routeFrom(router, dst, Term{}, 0, s, nextHop)
}

// routePriority leaves room above a route for its exceptions.
func routePriority(dst netip.Prefix) uint16 { return prioRoutes + 4*uint16(dst.Bits()) }

// routeFrom is route for the sources that src names, above other routes of that length by above.
func (c *compiler) routeFrom(router Term, dst netip.Prefix, src Term, above uint16, s side, nextHop netip.Addr) {
	f := versionOf(dst.Addr())
	as := make([]Action, 0, 6)
	as = append(as, DecTTL{}, Put(Net, s.net), Put(EthSrc, s.mac.Number()))
	if nextHop.IsValid() {
		as = append(as, SetAddr(f.nextHop, nextHop))
	} else {
		as = append(as, Copy{f.dst, f.nextHop})
	}
	if s.fit {
		as = append(as, CheckSize{uint16(s.mtu)})
	}
	c.add(Route, routePriority(dst)+above, FeatureRouter, MatchOf(router, f.typ, Within(f.dst, dst), src), append(as, Goto{s.next})...)
}
