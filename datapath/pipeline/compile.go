package pipeline

import (
	"fmt"
	"net/netip"

	"yakumo/model"
)

// Rows is what Compile may look up besides the row itself.
type Rows interface {
	// Network gives a network, nil where it is not known (yet).
	Network(id model.ID) *model.HostNetwork
	// Group gives a group, nil where it is not known (yet).
	Group(id model.ID) *model.HostGroup
	// Referring gives the rules, of groups known here, whose remote side is the security group
	// (RowGroup) or the address group (RowAddresses) id, by rule id.
	Referring(kind model.RowKind, id model.ID) []*model.HostRule
	// Port gives a port here, nil where it is not here or not known (yet).
	Port(id model.ID) *model.HostPort
	// Trunk tells whether the device of a port carries other ports too.
	Trunk(id model.ID) bool
	// Router gives a router, nil where it is not known (yet).
	Router(id model.ID) *model.HostRouter
	// Ordinal gives the number of a port, an alias or a rule.
	Ordinal(kind OrdinalKind, key string) (uint32, error)
}

// Compiled is what a row becomes.
type Compiled struct {
	Entries []Entry
	Owns    []OrdinalKey // the ordinals that live as long as the row wants them
}

// OrdinalKey names an ordinal.
type OrdinalKey struct {
	Kind OrdinalKind
	Key  string
}

// Priorities within a stage. Entries of one stage and one priority never overlap unless
// their actions agree or they are clauses of conjunctions.
const (
	prioTransparent = 90 // classify: a guest's own tags
	prioClassify    = 100
	prioMarked      = 5 // above either: packets that can be marked

	prioOpen      = 400 // anti-spoof: a port without port security
	prioNoServer  = 300 // anti-spoof: DHCP server replies
	prioSource    = 200 // anti-spoof: allowed sources
	prioTagged    = 500 // respond, admit: a guest's own tags
	prioOwnARP    = 300 // respond: a request for one's own address
	prioMovable   = 250 // respond: an address that several ports may hold
	prioAnswer    = 200 // respond: answers
	prioMovables  = 150 // respond: a prefix that several ports may hold from
	prioService   = 100 // respond: ARP for the pipeline's own addresses
	prioServiceIP = 30  // respond: other traffic to ServiceAddr
	prioFloodARP  = 20  // respond: ARP requests that somebody outside may answer
	prioUnknown   = 10  // respond: ARP requests that nobody answers
	prioPass      = 100 // track: a port without port security
	prioARP       = 50
	prioStateless = 40 // track: a port of stateless groups
	prioIP        = 10

	prioInvalid = 1000 // group
	prioReply   = 900
	prioBlocked = 800
	prioDirect  = 500
	prioConj    = 400
	prioCut     = 20
	prioBlock   = 10

	prioGroupAddr  = 300 // lookup: broadcast and multicast
	prioLocal      = 200
	prioMovableMAC = 180
	prioRemote     = 150 // lookup: what came by a tunnel stays here
	prioPeer       = 100
	prioOutside    = 60 // lookup: whoever is not here is outside

	prioFromTunnel = 100 // flood
	prioNetwork    = 50

	prioMiss = 0
)

// families are the terms of the two versions of IP.
var families = [...]Term{Is(EthType, TypeIPv4), Is(EthType, TypeIPv6)}

// dropAll are the actions of an entry that drops.
var dropAll []Action

// multicast is the bit of an Ethernet address that marks a group.
const multicast = 1 << 40

type compiler struct {
	env  *Env
	rows Rows
	out  Compiled
	err  error
}

// Compile gives the entries of a row. Rows that the pipeline does not use have none. The
// error tells what in the row (or in the ordinals) makes it impossible; there are no entries then.
func Compile(env *Env, row model.HostRow, rows Rows) (Compiled, error) {
	return compile(env, row, rows, nil)
}

// compile is Compile with the memory for the entries.
func compile(env *Env, row model.HostRow, rows Rows, scratch []Entry) (Compiled, error) {
	c := compiler{env: env, rows: rows, out: Compiled{Entries: scratch}}
	switch r := row.(type) {
	case *model.HostPort:
		c.port(r)
	case *model.HostPeer:
		c.peer(r)
	case *model.HostNetwork:
		c.network(r)
	case *model.HostMirror:
		c.mirror(r)
	case *model.HostGroup:
		c.group(r)
	case *model.HostMember:
		c.member(r)
	case *model.HostAddresses:
		c.addresses(r)
	case *model.HostListener:
		c.listener(r)
	case *model.HostRouter:
		c.router(r)
	case *model.HostFloating:
		c.floating(r)
	case *model.HostNeighbor:
		c.neighbor(r)
	}
	if c.err != nil {
		return Compiled{Owns: c.out.Owns}, fmt.Errorf("compile %v: %w", row.RowID(), c.err)
	}
	return c.out, nil
}

func (c *compiler) add(s Stage, prio uint16, f Feature, m Match, as ...Action) {
	c.out.Entries = append(c.out.Entries, Entry{Stage: s, Priority: prio, Feature: f, Match: m, Actions: as})
}

func (c *compiler) fail(err error) {
	if c.err == nil {
		c.err = err
	}
}

// own gives an ordinal that the row holds.
func (c *compiler) own(kind OrdinalKind, key string) uint32 {
	n, err := c.rows.Ordinal(kind, key)
	if err != nil {
		c.fail(err)
		return 0
	}
	c.out.Owns = append(c.out.Owns, OrdinalKey{kind, key})
	return n
}

func (c *compiler) mac(s string) MAC {
	m, err := ParseMAC(s)
	if err != nil {
		c.fail(err)
	} else if m[0]&1 == 1 {
		c.fail(fmt.Errorf("%v is a group address", m))
	}
	return m
}

func (c *compiler) vni(v uint32) uint64 {
	if v < model.MinVNI || v > model.MaxVNI {
		c.fail(fmt.Errorf("VNI %d is out of range", v))
	}
	return uint64(v)
}

// Base gives the entries that are there whatever the rows say.
func Base(env *Env) []Entry {
	c := compiler{env: env}
	base := func(s Stage, prio uint16, m Match, as ...Action) { c.add(s, prio, FeatureBase, m, as...) }

	base(Classify, prioClassify, MatchOf(Is(InPort, PortService)), Goto{Respond})

	base(AntiSpoof, prioNoServer, MatchOf(Is(EthType, TypeIPv4), Is(IPProto, ProtoUDP), Is(UDPSrc, 67), Is(UDPDst, 68)))

	request := []Term{Is(EthType, TypeARP), Is(ARPOp, ARPRequest)}
	base(Respond, prioService, MatchOf(append(request, Is(Net, 0), Within(ARPTargetIP, env.MetadataPrefix))...), AnswerARP{ServiceMAC})
	base(Respond, prioService-1, MatchOf(append(request, Is(ARPTargetIP, AddrNumber(ServiceAddr)))...), AnswerARP{ServiceMAC})
	base(Respond, prioService-2, MatchOf(Is(Net, 0)))
	// Answers to the agent's question who holds an address (responder.Probe).
	base(Respond, prioService, MatchOf(Is(EthType, TypeARP), Is(ARPOp, ARPReply), IsMAC(EthDst, ServiceMAC)))
	base(Respond, prioServiceIP, MatchOf(Is(EthType, TypeIPv4), Is(IPDst, AddrNumber(ServiceAddr))))
	base(Respond, prioUnknown, MatchOf(request...))
	base(Respond, prioMiss, nil, Goto{Next(Respond)})
	c.baseND()
	c.baseMulticast()

	for _, d := range [...]struct {
		zone                 Field
		track, group, accept Stage
	}{{From, TrackOut, GroupOut, AcceptOut}, {To, TrackIn, GroupIn, AcceptIn}} {
		next := Next(d.accept)
		base(d.track, prioARP, MatchOf(Is(EthType, TypeARP)), Goto{next})
		for _, typ := range linkTypes {
			base(d.track, prioARP, MatchOf(icmp6(typ)...), Goto{next})
		}
		base(d.track, prioIP, MatchOf(Is(EthType, TypeIPv4)), Track{Zone: d.zone, Stage: d.group})
		base(d.track, prioIP, MatchOf(Is(EthType, TypeIPv6)), Track{Zone: d.zone, Stage: d.group})

		// Packets in the opening direction of a connection meet the rules each time, so a
		// rule that goes takes its connections with it: they are marked, and replies of a
		// marked connection are dropped too. Connections that another rule allows live on.
		base(d.group, prioInvalid, MatchOf(State(Tracked|Invalid, 0)))
		base(d.group, prioReply, MatchOf(State(Tracked|Reply, Invalid), Is(TrackMark, 0)), Goto{next})
		base(d.group, prioReply-1, MatchOf(State(Tracked|Related, Invalid), Is(TrackMark, 0)), Goto{next})
		base(d.group, prioBlocked, MatchOf(State(Tracked|Reply, 0)))
		base(d.group, prioBlocked-1, MatchOf(State(Tracked|Related, 0)))
		base(d.group, prioCut, MatchOf(State(Tracked|Established, 0), Is(TrackMark, 1)))
		for _, ip := range families { // switches want to know what they commit
			base(d.group, prioBlock, MatchOf(ip, State(Tracked|Established, 0)), Commit{d.zone, 1})
			base(d.accept, prioDirect, MatchOf(ip, State(New, 0)), Commit{d.zone, 0}, Goto{next})
			base(d.accept, prioConj, MatchOf(ip, Is(TrackMark, 1)), Commit{d.zone, 0}, Goto{next})
		}
		base(d.accept, prioMiss, nil, Goto{next})
	}
	// What a server of addresses says may come in, whatever the rules; only ports without port security,
	// and what is outside, can say it.
	base(TrackIn, prioARP, MatchOf(Is(EthType, TypeIPv4), Is(IPProto, ProtoUDP), Is(UDPSrc, 67), Is(UDPDst, 68)), Goto{Next(AcceptIn)})
	base(TrackIn, prioARP, MatchOf(Is(EthType, TypeIPv6), Is(IPProto, ProtoUDP), Is(UDPSrc, 547), Is(UDPDst, 546)), Goto{Next(AcceptIn)})

	base(Arrive, prioMiss, nil, Goto{Lookup})
	base(TapOut, prioMiss, nil, Goto{Next(TapOut)})
	base(TapIn, prioMiss, nil, Goto{Next(TapIn)})
	base(Return, prioMiss, nil, TurnBack{})
	base(Lookup, prioGroupAddr, MatchOf(Masked(EthDst, multicast, multicast)), Goto{FloodOut})
	base(Lookup, prioRemote, MatchOf(Is(Landed, 1)))
	base(FloodOut, prioFromTunnel, MatchOf(Is(Landed, 1)), Goto{FloodIn})
	base(FloodOut, prioMiss, nil, Goto{FloodIn})
	baseRouter(base)
	baseGateway(base)
	return c.out.Entries
}

// port compiles a port here.
func (c *compiler) port(r *model.HostPort) {
	ord32 := c.own(OrdinalPort, r.ID)
	if !r.AdminStateUp || c.err != nil {
		return
	}
	ord, mac, vni := uint64(ord32), c.mac(r.MAC), c.vni(r.VNI)
	from, net := Is(From, ord), Is(Net, vni)
	src := IsMAC(EthSrc, mac)
	ip, arp := Is(EthType, TypeIPv4), Is(EthType, TypeARP)
	var addrs, addrs6 []netip.Addr
	for _, f := range r.FixedIPs {
		if a := f.Address.Unmap(); a.Is4() {
			addrs = append(addrs, a)
		} else if a.IsValid() {
			addrs6 = append(addrs6, a)
		}
	}
	six := Speaks6(addrs6, r.Pairs)

	c.door(r, ord, vni)

	// Anti-spoof.
	next := Next(AntiSpoof)
	if r.PortSecurity {
		for _, a := range addrs {
			c.source(from, mac, netip.PrefixFrom(a, 32), next)
		}
		for _, p := range r.Pairs {
			if p.Prefix.IsValid() && p.Prefix.Addr().Is4() {
				m := mac
				if p.MAC != "" {
					m = c.mac(p.MAC)
				}
				if p.Prefix.Bits() == 32 && containsAddr(addrs, p.Prefix.Addr()) {
					if m != mac {
						c.source(from, m, p.Prefix, next)
					}
					continue
				}
				c.pairSource(from, ord32, m, p.Prefix, next)
			}
		}
		c.add(AntiSpoof, prioSource+1, FeatureAntiSpoof, MatchOf(from, src, ip, Is(IPProto, ProtoUDP), Is(IPSrc, AddrNumber(zeroAddr)),
			Is(IPDst, AddrNumber(broadcast)), Is(UDPSrc, 68), Is(UDPDst, 67)), Goto{next})
		if six {
			c.sources6(from, ord32, mac, addrs6, r.Pairs)
		}
		c.said(r, from)
		// A client may ask whether an address is free before it uses it (RFC 5227, 2.1.1).
		c.add(AntiSpoof, prioSource+1, FeatureAntiSpoof, MatchOf(from, src, arp, Is(ARPOp, ARPRequest), IsMAC(ARPSenderMAC, mac), Is(ARPSenderIP, 0)), Goto{next})
	} else {
		c.add(AntiSpoof, prioOpen, FeatureAntiSpoof, MatchOf(from), Goto{next})
		c.add(TrackOut, prioPass, FeatureGroup, MatchOf(from), Goto{Next(AcceptOut)})
		c.add(TrackIn, prioPass, FeatureGroup, MatchOf(Is(To, ord)), Goto{Next(AcceptIn)})
	}

	c.announcements(r, from, src)
	for _, f := range r.FixedIPs {
		c.resolve(net, f.Address, mac)
	}

	// Responders.
	for _, a := range addrs {
		c.answer(net, a, mac)
		// A guest that announces its own address, or asks whether it is taken, must not hear itself.
		c.add(Respond, prioOwnARP, FeatureARP, MatchOf(from, arp, Is(ARPOp, ARPRequest), Is(ARPTargetIP, AddrNumber(a))), c.ownARP(r)...)
		c.metadata(r, ord, mac, a)
	}
	c.reports(r, ord32, from, six)
	c.pairs(net, mac, r.Pairs)
	if six {
		c.own6(r, ord32, net, from, mac, addrs6)
		c.metadata(r, ord, mac, LinkLocal(mac))
	}
	if c.dhcp(r) {
		for _, dst := range [...]netip.Addr{broadcast, ServiceAddr} {
			c.add(Respond, prioAnswer, FeatureDHCP, MatchOf(from, ip, Is(IPProto, ProtoUDP), Is(IPDst, AddrNumber(dst)), Is(UDPSrc, 68), Is(UDPDst, 67)),
				ToAgent{Responder: ResponderDHCP, Port: ord32})
		}
	}

	if r.PortSecurity {
		c.membership(r, ord)
	}

	c.heldHere(r, ord32, net, mac)
	c.attract(r, ord32, net, mac)
	c.handOver(r, ord)
}

func containsAddr(as []netip.Addr, a netip.Addr) bool {
	for _, b := range as {
		if a == b {
			return true
		}
	}
	return false
}

// source lets a port send from a MAC and the addresses of a prefix.
func (c *compiler) source(from Term, mac MAC, p netip.Prefix, next Stage) {
	c.add(AntiSpoof, prioSource, FeatureAntiSpoof, MatchOf(from, IsMAC(EthSrc, mac), Is(EthType, TypeIPv4), Within(IPSrc, p)), Goto{next})
	c.add(AntiSpoof, prioSource, FeatureAntiSpoof, MatchOf(from, IsMAC(EthSrc, mac), Is(EthType, TypeARP), IsMAC(ARPSenderMAC, mac), Within(ARPSenderIP, p)), Goto{next})
}

// answer makes the switch answer ARP requests for a.
func (c *compiler) answer(net Term, a netip.Addr, mac MAC) {
	c.add(Respond, prioAnswer, FeatureARP, MatchOf(net, Is(EthType, TypeARP), Is(ARPOp, ARPRequest), Is(ARPTargetIP, AddrNumber(a))), AnswerARP{mac})
}

// pairs lets addresses move: requests for them are flooded, so that who holds one now
// answers; and so are frames to a MAC that several ports may use.
func (c *compiler) pairs(net Term, own MAC, pairs []model.AddressPair) {
	for _, p := range pairs {
		if !p.Prefix.IsValid() {
			continue
		}
		prio := uint16(prioMovables)
		if p.Prefix.IsSingleIP() {
			prio = prioMovable
		}
		if p.Prefix.Addr().Is4() {
			c.add(Respond, prio, FeatureARP, MatchOf(net, Is(EthType, TypeARP), Is(ARPOp, ARPRequest), Within(ARPTargetIP, p.Prefix)), Goto{Next(Respond)})
		} else {
			c.add(Respond, prio, FeatureND, MatchOf(icmp6(TypeSolicit, net, Within(NDTarget, p.Prefix))...), Goto{Next(Respond)})
		}
		if p.MAC == "" {
			continue
		}
		if m := c.mac(p.MAC); m != own {
			c.add(Lookup, prioMovableMAC, FeatureLookup, MatchOf(net, IsMAC(EthDst, m)), Goto{FloodOut})
		}
	}
}

// metadata rewrites a guest's connections to the metadata service and to the resolver, statelessly,
// to ones from an alias to the host's listeners, and back. a is the guest's address: a fixed one, or its
// link-local one.
func (c *compiler) metadata(r *model.HostPort, ord uint64, mac MAC, a netip.Addr) {
	f := versionOf(a)
	n := c.own(OrdinalAlias, r.ID+"/"+a.String())
	alias, listener, service := c.env.Alias(n), c.env.MetadataListener.Addr(), ServiceAddr
	if f.v6 {
		alias, listener, service = c.env.Alias6(n), c.env.MetadataListener6().Addr(), ServiceAddr6
	}
	for _, s := range [...]struct {
		feature  Feature
		proto    uint64
		src, dst Field
		asked    uint64 // port that the guest asks
		port     uint64 // of the listener
	}{
		{FeatureMetadata, ProtoTCP, TCPSrc, TCPDst, 80, uint64(c.env.MetadataListener.Port())},
		{FeatureDNS, ProtoUDP, UDPSrc, UDPDst, 53, uint64(c.env.DNSPort)},
		{FeatureDNS, ProtoTCP, TCPSrc, TCPDst, 53, uint64(c.env.DNSPort)},
	} {
		c.add(Respond, prioAnswer, s.feature, MatchOf(Is(From, ord), f.typ, Is(IPProto, s.proto), IsAddr(f.src, a), IsAddr(f.dst, service), Is(s.dst, s.asked)),
			Put(EthSrc, ServiceMAC.Number()), Put(EthDst, DeviceMAC.Number()), SetAddr(f.src, alias), SetAddr(f.dst, listener), Put(s.dst, s.port), Deliver{PortService})
		c.add(Respond, prioAnswer, s.feature, MatchOf(Is(Net, 0), f.typ, Is(IPProto, s.proto), IsAddr(f.src, listener), IsAddr(f.dst, alias), Is(s.src, s.port)),
			Put(EthSrc, ServiceMAC.Number()), Put(EthDst, mac.Number()), SetAddr(f.src, service), SetAddr(f.dst, a), Put(s.src, s.asked), Put(To, ord), Goto{Output})
	}
}

// dhcp tells whether a subnet of the port serves DHCP.
func (c *compiler) dhcp(r *model.HostPort) bool {
	n := c.rows.Network(r.NetworkID)
	if n == nil {
		return false
	}
	for _, f := range r.FixedIPs {
		for i := range n.Subnets {
			if s := &n.Subnets[i]; s.ID == f.SubnetID && s.DHCP && s.CIDR.Addr().Is4() {
				return true
			}
		}
	}
	return false
}

// peer compiles a port on another host.
func (c *compiler) peer(r *model.HostPeer) {
	mac, vni := c.mac(r.MAC), c.vni(r.VNI)
	if !r.TunnelIP.IsValid() && r.Type != model.NetworkFlat && r.Type != model.NetworkVLAN {
		c.fail(fmt.Errorf("no tunnel address"))
		return
	}
	net := Is(Net, vni)
	for _, a := range r.Addresses {
		c.resolve(net, a, mac)
		if a = a.Unmap(); a.Is4() {
			c.answer(net, a, mac)
		} else {
			c.answerND(net, a, mac, false)
		}
	}
	if Speaks6(r.Addresses, r.Pairs) {
		c.answerND(net, LinkLocal(mac), mac, false)
	}
	c.pairs(net, mac, r.Pairs)
	to := Tunnel{Host: r.TunnelIP, VNI: r.VNI, Via: tunnelPlace(r.Type)}
	c.heldThere(r, net, mac, to)
	if r.TunnelIP.IsValid() { // else it is found on the wire of its network
		c.add(Lookup, prioPeer, FeatureLookup, MatchOf(net, IsMAC(EthDst, mac)), to)
		c.sendOn(r, net, mac, to)
	}
}

// tunnelPlace is the place of a network type's tunnels.
func tunnelPlace(networkType string) uint64 {
	switch networkType {
	case model.NetworkGRE:
		return PortTunnelGRE
	case model.NetworkGeneve:
		return PortTunnelGeneve
	}
	return PortTunnel
}

// network compiles a network that has a port here.
func (c *compiler) network(r *model.HostNetwork) {
	vni := c.vni(r.VNI)
	if r.Provider() {
		c.provider(r, vni)
		return
	}
	via := tunnelPlace(r.Type)
	tag := Is(VLAN, 0)
	if carriesTags(r) {
		tag = Term{Field: VLAN}
		c.transparentNetwork(vni)
	}
	c.add(Classify, prioClassify, FeatureClassify, MatchOf(Is(InPort, via), Is(TunnelID, vni), tag), Put(Net, vni), Put(Landed, 1), Goto{Lookup})
	if len(r.Flood) == 0 {
		return
	}
	as := make([]Action, 0, len(r.Flood)+1)
	for _, h := range r.Flood {
		if !h.IsValid() {
			c.fail(fmt.Errorf("invalid flood address"))
		}
		as = append(as, Tunnel{Host: h, VNI: r.VNI, Via: via})
	}
	c.add(FloodOut, prioNetwork, FeatureFlood, MatchOf(Is(Net, vni)), append(as, Goto{FloodIn})...)
}
