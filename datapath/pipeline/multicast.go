package pipeline

import (
	"net/netip"

	"yakumo/model"
)

// prioSnooped, in flood-in: groups that only listeners get.
const prioSnooped = 100

var (
	multicast4 = netip.MustParsePrefix("224.0.0.0/4")
	// controlBlock is where hosts and routers of one link talk to each other; nobody reports its groups (RFC 4541, 2.1.2).
	controlBlock = netip.MustParsePrefix("224.0.0.0/24")
)

// Snooped tells whether packets to a group reach only ports that listen to it: of IPv4 all but
// 224.0.0.0/24, of IPv6 all groups wider than a link.
func Snooped(a netip.Addr) bool {
	a = a.Unmap()
	if a.Is4() {
		return multicast4.Contains(a) && !controlBlock.Contains(a)
	}
	b := a.As16()
	return b[0] == 0xff && b[1]&15 > 2
}

// snooped gives the matches of such groups.
func snooped() []Match {
	var out []Match
	// All of 224.0.0.0/4 but its first /24: the half of each block that does not hold it.
	for bits := multicast4.Bits() + 1; bits <= controlBlock.Bits(); bits++ {
		b := AddrNumber(controlBlock.Addr()) | 1<<(32-bits)
		out = append(out, MatchOf(families[0], Within(IPDst, netip.PrefixFrom(NumberAddr(b), bits))))
	}
	// The scope is the low half of the second byte: 8 to 15, 4 to 7, 3.
	for _, s := range [...][2]uint64{{0x8, 0x8}, {0x4, 0xc}, {0x3, 0xf}} {
		out = append(out, MatchOf(families[1], Term{Field: IP6Dst, High: 0xff<<56 | s[0]<<48, HighMask: 0xff<<56 | s[1]<<48}))
	}
	return out
}

// baseMulticast are the entries of multicast that are there whatever the rows say.
func (c *compiler) baseMulticast() {
	for _, m := range snooped() {
		c.add(FloodIn, prioSnooped, FeatureBase, m, Goto{Listen})
	}
	// What others report on a physical network is for routers there, and no port here is one.
	for _, a := range [...]string{"224.0.0.22", "ff02::16"} {
		g := netip.MustParseAddr(a)
		f := versionOf(g)
		c.add(FloodIn, prioSnooped, FeatureBase, MatchOf(f.typ, IsAddr(f.dst, g)))
	}
	// The cloud asks the questions.
	c.add(Respond, prioUnknown, FeatureBase, MatchOf(icmp6(TypeMLDQuery)...))
}

// reports hands what a port says of groups to the agent and, of a provider network, to its routers
// outside; other guests do not hear it.
func (c *compiler) reports(r *model.HostPort, ord uint32, from Term, six bool) {
	to := []Action{ToAgent{Responder: ResponderMulticast, Port: ord}}
	if n := c.rows.Network(r.NetworkID); n != nil && n.Provider() {
		to = append(to, c.leave(n)...)
	}
	c.add(Respond, prioAnswer, FeatureMulticast, MatchOf(from, families[0], Is(IPProto, ProtoIGMP)), to...)
	if six {
		for _, typ := range [...]uint64{TypeMLDReport, TypeMLDDone, TypeMLDReport2} {
			c.add(Respond, prioAnswer, FeatureMulticast, MatchOf(icmp6(typ, from)...), to...)
		}
	}
}

// listener compiles a port's wish to hear a group.
func (c *compiler) listener(r *model.HostListener) {
	ord, net := c.own(OrdinalPort, r.PortID), Is(Net, c.vni(r.VNI))
	g := r.Group.Unmap()
	if !g.IsValid() || !Snooped(g) {
		return
	}
	f := versionOf(g)
	c.add(Listen, prioNetwork, FeatureMulticast, MatchOf(net, f.typ, IsAddr(f.dst, g)), Leg{ord, Next(Lookup)})
}
