package pipeline

import (
	"net/netip"
	"slices"

	"yakumo/model"
)

// Address scopes: a router sends nothing from a network of one scope to one of another as it is. What is in no
// scope is in one of its own. The number of the scopes that a packet came from stands in the field Scope; 0 is
// of what is not held to any: what was translated, and what the router says itself. By IPv4 what leaves for outside is judged where it is
// translated, by its source: the host that translates does not know by which interface it came.

// Priorities of scopes, above those of what they are exceptions from.
const (
	aboveFence = 2  // route: to another scope
	aboveFloat = 3  // route: from a floating address, which is translated
	prioJudge  = 21 // nat, restore: plus the prefix's length
	prioEvery  = 60 // nat: what is translated by an address of its own, and the router's own addresses
)

// families4 and families6 are places in a scopes.
const (
	family4 = iota
	family6
)

// scopes are the address scopes of a network, by family; "": none.
type scopes [2]model.ID

// spaces are the scopes that a router's networks are in. The number of one is its place plus 1.
type spaces []scopes

// spacesOf gives the scopes of a router's networks, nil where all are the same: then they mean nothing.
func spacesOf(r *model.HostRouter) spaces {
	var out spaces
	add := func(s scopes) {
		if !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	for i := range r.Interfaces {
		add(scopes{r.Interfaces[i].Scope4, r.Interfaces[i].Scope6})
	}
	if r.Gateway != nil {
		add(gatewayScopes(r.Gateway))
	}
	if len(out) < 2 {
		return nil
	}
	slices.SortFunc(out, func(a, b scopes) int { return slices.Compare(a[:], b[:]) })
	return out
}

func gatewayScopes(g *model.HostGateway) scopes { return scopes{g.Scope4, g.Scope6} }

// enters notes where a packet comes from; nothing where it does not matter.
func (sp spaces) enters(s scopes) []Action {
	if sp == nil {
		return nil
	}
	return []Action{Put(Scope, uint64(slices.Index(sp, s)+1))}
}

// free notes that a packet is held to no scope.
func (sp spaces) free() []Action {
	if sp == nil {
		return nil
	}
	return []Action{Put(Scope, 0)}
}

// fence keeps what comes from other scopes from a route.
func (c *compiler) fence(router Term, dst netip.Prefix, to scopes, sp spaces) {
	family := family4
	if dst.Addr().Is6() {
		family = family6
	}
	f := versionOf(dst.Addr())
	for i, from := range sp {
		if from[family] != to[family] {
			c.add(Route, routePriority(dst)+aboveFence, FeatureScope, MatchOf(router, f.typ, Within(f.dst, dst), Is(Scope, uint64(i+1))))
		}
	}
}

// source is a block of addresses that a router finds inside.
type source struct {
	prefix netip.Prefix
	plain  bool // it is in the scope of the external network, and goes there as it is
}

// sources gives the blocks of IPv4 that a router finds inside, each once, and whether any is treated unlike the rest
// of what it sends out.
func sources(r *model.HostRouter) (out []source, differ bool) {
	gw := r.Gateway
	seen := map[netip.Prefix]bool{}
	add := func(p netip.Prefix, scope model.ID) {
		if p = p.Masked(); !p.IsValid() || !p.Addr().Is4() || seen[p] {
			return
		}
		seen[p] = true
		// Outside without a scope is where all translate to; without translation it is a scope as any other.
		s := source{p, scope == gw.Scope4 && (scope != "" || !gw.SNAT)}
		differ = differ || s.plain == gw.SNAT
		out = append(out, s)
	}
	for i := range r.Interfaces {
		for _, a := range r.Interfaces[i].Addresses {
			add(a, r.Interfaces[i].Scope4)
		}
	}
	for _, x := range r.Routes {
		if i := nextTo(r, x.NextHop); i >= 0 {
			add(x.Destination, r.Interfaces[i].Scope4)
		}
	}
	return out, differ
}

// partial tells whether a router with a gateway lets something out, and in, as it is.
func partial(r *model.HostRouter) bool {
	_, differ := sources(r)
	return differ || !r.Gateway.SNAT
}

// restores has what comes to an address outside translated back, whatever lies behind the routes inside.
func (c *compiler) restores(router Term, a netip.Addr) {
	c.add(Restore, prioEvery, FeatureScope, MatchOf(router, Is(EthType, TypeIPv4), IsAddr(IPDst, a)), Track{Zone: Router, Stage: Redirect, NAT: true})
}

// translates has what an address outside stands for translated.
func (c *compiler) translates(router Term, inside netip.Addr) {
	c.add(NAT, prioEvery, FeatureScope, MatchOf(router, Is(EthType, TypeIPv4), IsAddr(IPSrc, inside)), Track{Zone: Router, Stage: SNAT, NAT: true})
}

// judge compiles what goes outside as it is, what is translated and what does not go.
func (c *compiler) judge(r *model.HostRouter, router Term, sp spaces, translate []Action) {
	gw, ip := r.Gateway, Is(EthType, TypeIPv4)
	list, differ := sources(r)
	for _, s := range list {
		if differ {
			prio, src := prioJudge+uint16(s.prefix.Bits()), Within(IPSrc, s.prefix)
			switch {
			case s.plain:
				c.add(NAT, prio, FeatureScope, MatchOf(router, ip, src), Goto{Resolve})
			case gw.SNAT:
				c.add(NAT, prio, FeatureScope, MatchOf(router, ip, src), Track{Zone: Router, Stage: SNAT, NAT: true})
			default:
				c.add(NAT, prio, FeatureScope, MatchOf(router, ip, src))
			}
			if gw.Active && gw.SNAT { // one with a floating address or a forwarding is tracked all the same
				as := translate
				if s.plain {
					as = []Action{Goto{Resolve}}
				}
				c.add(SNAT, prioSNAT+2+uint16(s.prefix.Bits()), FeatureScope, MatchOf(append(fresh(), router, Within(IPSrc, s.prefix))...), as...)
			}
		}
		// What is not translated on its way out is not looked up on its way in: the switch would take the answer
		// to what it has not seen for invalid.
		if differ || !gw.SNAT {
			as := []Action{Track{Zone: Router, Stage: Redirect, NAT: true}}
			if s.plain {
				as = append(sp.enters(gatewayScopes(gw)), Goto{Route})
			}
			c.add(Restore, prioJudge+uint16(s.prefix.Bits()), FeatureScope, MatchOf(router, ip, Within(IPDst, s.prefix)), as...)
		}
	}
	if !gw.SNAT && !differ {
		c.add(NAT, prioUntouch, FeatureNAT, MatchOf(router, ip), Goto{Resolve})
	}
	if !gw.SNAT && differ {
		c.add(NAT, prioUntouch, FeatureScope, MatchOf(router, ip))
	}
	for _, a := range gw.Addresses {
		if a := a.Addr().Unmap(); a.Is4() && partial(r) {
			c.restores(router, a)
			if !gw.SNAT {
				c.add(NAT, prioEvery, FeatureScope, MatchOf(router, ip, IsAddr(IPSrc, a)), Goto{Resolve})
			}
		}
	}
	if sp != nil { // from outside, as it was
		c.add(Redirect, prioPlain+1, FeatureScope, MatchOf(router, ip, Is(TrackMark, 0)), append(sp.enters(gatewayScopes(gw)), Goto{Route})...)
	}
}
