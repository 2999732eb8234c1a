package pipeline

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"

	"yakumo/model"
)

// protocols are the names that the network API uses for IP protocol numbers (IANA's registry).
var protocols = map[string]uint8{
	"icmp": 1, "igmp": 2, "ipip": 4, "ipencap": 4, "tcp": 6, "egp": 8, "udp": 17, "dccp": 33, "ipv6-encap": 41, "ipv6-route": 43,
	"ipv6-frag": 44, "rsvp": 46, "gre": 47, "esp": 50, "ah": 51, "icmpv6": 58, "ipv6-icmp": 58, "ipv6-nonxt": 59, "ipv6-opts": 60,
	"ospf": 89, "pim": 103, "vrrp": 112, "pgm": 113, "sctp": 132, "udplite": 136,
}

// clauses is how a rule becomes a conjunction: clause 1 is the port's membership, then
// come the remote side and the service where the rule names them.
type clauses struct {
	id              uint32
	remote, service uint8 // the clause's number, 0 where the rule leaves it open
	of              uint8
}

// out tells whether a rule is about what the port sends.
func out(r *model.HostRule) bool { return r.Direction == model.Egress }

func groupStage(r *model.HostRule) (stage, accept Stage) {
	if out(r) {
		return GroupOut, AcceptOut
	}
	return GroupIn, AcceptIn
}

// family gives the term of a rule's version of IP; false where it names none.
func family(r *model.HostRule) (Term, bool) {
	switch r.EtherType {
	case model.IPv4:
		return families[0], true
	case model.IPv6:
		return families[1], true
	}
	return Term{}, false
}

// inFamily tells whether the rule is about the prefix's version of IP.
func inFamily(r *model.HostRule, p netip.Prefix) bool {
	return p.IsValid() && p.Addr().Is4() == (r.EtherType == model.IPv4)
}

// referred gives the kind and the id of the set of addresses that a rule names as its remote side.
func referred(r *model.HostRule) model.RowID {
	switch {
	case r.RemoteGroupID != "":
		return model.RowID{Kind: model.RowGroup, Key: r.RemoteGroupID}
	case r.AddressGroupID != "":
		return model.RowID{Kind: model.RowAddresses, Key: r.AddressGroupID}
	}
	return model.RowID{}
}

// shape numbers a rule's clauses; false for a rule that has no entries: one on the ports of a
// protocol whose ports no switch can match. Such a rule allows nothing.
func shape(r *model.HostRule) (clauses, bool) {
	if _, ok := family(r); !ok || r.Direction != model.Egress && r.Direction != model.Ingress {
		return clauses{}, false
	}
	cl := clauses{of: 1}
	set := referred(r).Key != ""
	if set || r.RemotePrefix.IsValid() && r.RemotePrefix.Bits() > 0 {
		if !set && !inFamily(r, r.RemotePrefix) {
			return clauses{}, false
		}
		cl.of++
		cl.remote = cl.of
	}
	if r.Protocol != "" {
		if _, err := services(r); err != nil {
			return clauses{}, false
		}
		cl.of++
		cl.service = cl.of
	}
	return cl, true
}

// services gives the matches of a rule's protocol and ports, one term list each.
func services(r *model.HostRule) ([][]Term, error) {
	proto, ok := protocols[r.Protocol]
	if !ok {
		n, err := strconv.ParseUint(r.Protocol, 10, 8)
		if err != nil {
			return nil, fmt.Errorf("rule %s: unknown protocol %q", r.ID, r.Protocol)
		}
		proto = uint8(n)
	}
	fam, _ := family(r)
	icmpType, icmpCode := ICMPType, ICMPCode
	if r.EtherType == model.IPv6 {
		icmpType, icmpCode = ICMP6Type, ICMP6Code
		if proto == ProtoICMP { // "icmp" is that of the rule's version of IP
			proto = ProtoICMPv6
		}
	}
	ip := []Term{fam, Is(IPProto, uint64(proto))}
	if r.PortMin == nil && r.PortMax == nil {
		return [][]Term{ip}, nil
	}
	var port Field
	switch proto {
	case ProtoICMP, ProtoICMPv6:
		if (proto == ProtoICMP) != (r.EtherType == model.IPv4) {
			return nil, fmt.Errorf("rule %s: types of protocol %q in %s", r.ID, r.Protocol, r.EtherType)
		}
		if r.PortMin != nil {
			ip = append(ip, Is(icmpType, uint64(uint8(*r.PortMin))))
		}
		if r.PortMax != nil {
			ip = append(ip, Is(icmpCode, uint64(uint8(*r.PortMax))))
		}
		return [][]Term{ip}, nil
	case ProtoTCP:
		port = TCPDst
	case ProtoUDP:
		port = UDPDst
	case ProtoSCTP:
		port = SCTPDst
	default:
		return nil, fmt.Errorf("rule %s: the ports of protocol %q cannot be matched", r.ID, r.Protocol)
	}
	lo, hi := 0, 65535
	if r.PortMin != nil {
		lo = *r.PortMin
	}
	if r.PortMax != nil {
		hi = *r.PortMax
	}
	if lo < 0 || hi > 65535 || lo > hi {
		return nil, fmt.Errorf("rule %s: port range %d to %d", r.ID, lo, hi)
	}
	var all [][]Term
	for _, m := range rangeMasks(uint32(lo), uint32(hi)) {
		all = append(all, append(slices.Clip(ip), Masked(port, uint64(m[0]), uint64(m[1]))))
	}
	return all, nil
}

// rangeMasks covers the 16-bit numbers from lo to hi with as few value and mask pairs as
// aligned blocks allow: at most 30.
func rangeMasks(lo, hi uint32) [][2]uint32 {
	var out [][2]uint32
	for lo <= hi {
		size := uint32(1)
		for size < 1<<16 && lo&(2*size-1) == 0 && lo+2*size-1 <= hi {
			size *= 2
		}
		out = append(out, [2]uint32{lo, 0xffff &^ (size - 1)})
		lo += size
	}
	return out
}

// conj gives the conjunction of a rule, with its id.
func (c *compiler) conj(r *model.HostRule, cl clauses) clauses {
	id, err := c.rows.Ordinal(OrdinalRule, r.ID)
	if err != nil {
		c.fail(err)
	}
	cl.id = id
	return cl
}

// group compiles the rules of a group: all clauses but the members.
func (c *compiler) group(g *model.HostGroup) {
	for i := range g.Rules {
		r := &g.Rules[i]
		cl, ok := shape(r)
		if !ok || cl.of == 1 { // a rule open on both sides stands in the ports' own entries
			continue
		}
		cl.id = c.own(OrdinalRule, r.ID)
		if c.err != nil {
			return
		}
		stage, accept := groupStage(r)
		fam, _ := family(r)
		c.add(stage, prioConj, FeatureGroup, MatchOf(Is(ConjID, uint64(cl.id)), fam), Goto{accept})
		if cl.remote > 0 && referred(r).Key == "" {
			c.add(stage, prioConj, FeatureGroup, MatchOf(fam, Within(remoteField(r), r.RemotePrefix)), Conj{cl.id, cl.remote, cl.of})
		}
		if cl.service > 0 {
			all, err := services(r)
			if err != nil {
				c.fail(err)
				return
			}
			for _, terms := range all {
				c.add(stage, prioConj, FeatureGroup, MatchOf(terms...), Conj{cl.id, cl.service, cl.of})
			}
		}
	}
}

// remoteField is where a rule's remote side stands in a packet.
func remoteField(r *model.HostRule) Field {
	switch v4 := r.EtherType == model.IPv4; {
	case out(r) && v4:
		return IPDst
	case out(r):
		return IP6Dst
	case v4:
		return IPSrc
	}
	return IP6Src
}

// member compiles one member of a remote group: its addresses, for each rule that refers to it.
func (c *compiler) member(m *model.HostMember) {
	c.remotes(c.rows.Referring(model.RowGroup, m.GroupID), m.Prefixes)
}

// addresses compiles an address group: its prefixes, for each rule that refers to it.
func (c *compiler) addresses(a *model.HostAddresses) {
	c.remotes(c.rows.Referring(model.RowAddresses, a.ID), a.Prefixes)
}

// remotes compiles prefixes as the remote side of rules: one entry each for a direction.
func (c *compiler) remotes(rules []*model.HostRule, prefixes []netip.Prefix) {
	for _, stage := range [...]Stage{GroupOut, GroupIn} {
		for i, etherType := range [...]string{model.IPv4, model.IPv6} {
			var as []Action
			var field Field
			for _, r := range rules {
				if s, _ := groupStage(r); s != stage || r.EtherType != etherType {
					continue
				}
				if cl, ok := shape(r); ok && cl.remote > 0 {
					cl = c.conj(r, cl)
					as = append(as, Conj{cl.id, cl.remote, cl.of})
					field = remoteField(r)
				}
			}
			if len(as) == 0 {
				continue
			}
			sortConj(as)
			for _, p := range prefixes {
				if p.IsValid() && p.Addr().Is4() == (i == 0) {
					c.add(stage, prioConj, FeatureGroup, MatchOf(families[i], Within(field, p)), as...)
				}
			}
		}
	}
}

// stateless tells whether a port's packets are judged one by one, without conntrack: one of its
// groups says so. The network API keeps groups of both kinds from one port.
func (c *compiler) stateless(p *model.HostPort) bool {
	for _, id := range p.Groups {
		if g := c.rows.Group(id); g != nil && !g.Stateful {
			return true
		}
	}
	return false
}

// membership compiles clause 1 of all rules of the port's groups, and the rules that have no other.
func (c *compiler) membership(p *model.HostPort, ord uint64) {
	stateless := c.stateless(p)
	for _, stage := range [...]Stage{GroupOut, GroupIn} {
		who, track, accept := Is(From, ord), TrackOut, AcceptOut
		if stage == GroupIn {
			who, track, accept = Is(To, ord), TrackIn, AcceptIn
		}
		for _, fam := range families {
			if stateless {
				c.add(track, prioStateless, FeatureGroup, MatchOf(who, fam), Untrack{}, Goto{stage})
			}
			var as []Action
			direct := false
			for i, id := range p.Groups {
				g := c.rows.Group(id)
				if g == nil || slices.Contains(p.Groups[:i], id) {
					continue
				}
				for j := range g.Rules {
					r := &g.Rules[j]
					s, _ := groupStage(r)
					f, _ := family(r)
					if s != stage || f != fam {
						continue
					}
					cl, ok := shape(r)
					switch {
					case !ok:
					case cl.of == 1:
						direct = true
					default:
						cl = c.conj(r, cl)
						as = append(as, Conj{cl.id, 1, cl.of})
					}
				}
			}
			if direct {
				c.add(stage, prioDirect, FeatureGroup, MatchOf(who, fam), Goto{accept})
			}
			if len(as) > 0 {
				sortConj(as)
				c.add(stage, prioConj, FeatureGroup, MatchOf(who, fam), as...)
			}
		}
	}
}
