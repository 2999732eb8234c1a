package dptest

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"testing"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"yakumo/datapath/pipeline"
	"yakumo/datapath/pipeline/sim"
	"yakumo/model"
)

// bigVNI is above what 12 bits can count.
const bigVNI = 9_876_543

func ptr(n int) *int { return &n }

// testCase is one test of the suite.
type testCase struct {
	name string
	run  func(*testing.T, Fabric)
}

// Run runs the whole suite.
func Run(t *testing.T, f Fabric) {
	cases := []testCase{
		{"SameHost", testSameHost}, {"AcrossHosts", testAcrossHosts}, {"SameAddresses", testSameAddresses}, {"Spoof", testSpoof},
		{"GroupDefault", testGroupDefault}, {"GroupRules", testGroupRules}, {"RuleRemoved", testRuleRemoved}, {"RemoteGroup", testRemoteGroup},
		{"PortSecurityOff", testPortSecurityOff}, {"MovableAddress", testMovableAddress}, {"Broadcast", testBroadcast}, {"DHCP", testDHCP},
		{"MetadataOwner", testMetadataOwner}, {"AdminDown", testAdminDown}, {"Removal", testRemoval}, {"DriverRestart", testDriverRestart}, {"SwitchRestart", testSwitchRestart},
		{"ManyNetworks", testManyNetworks},
		{"Neighbours", testNeighbours}, {"Spoof6", testSpoof6}, {"GroupRules6", testGroupRules6}, {"Stateless", testStateless}, {"Related6", testRelated6},
		{"Advertisements", testAdvertisements}, {"DHCPv6", testDHCPv6}, {"Multicast", testMulticast}, {"ProviderMulticast", testProviderMulticast},
	}
	for _, c := range slices.Concat(cases, segmentCases, standbyCases, routerCases, natCases, scopeCases, topologyCases) {
		t.Run(c.name, func(t *testing.T) { c.run(t, f) })
	}
}

// pair is two guests of one network on one host, all allowed.
func pairOn(w *World) (a, b *Guest) {
	h := w.Host(0)
	h.Apply(NewNetwork("net", bigVNI), AllowAll("all"))
	return h.Boot(NewPort("net", bigVNI, "a", 5, "all")), h.Boot(NewPort("net", bigVNI, "b", 6, "all"))
}

func testSameHost(t *testing.T, f Fabric) {
	w := NewWorld(t, f, 1)
	a, b := pairOn(w)
	if mac := a.Resolve(b.IP()); mac != b.MAC() {
		t.Fatalf("b has MAC %v, want %v", mac, b.MAC())
	}
	a.Passes(b, a.UDP(b, 53))
	b.Passes(a, b.UDP(a, 53))
	big := a.UDP(b, 53)
	big.Payload = append(big.Payload, make([]byte, 1450-28-len(big.Payload))...)
	a.Passes(b, big)
	// Nobody owns it: neither an answer nor a flood.
	a.Dropped(a.ARPRequest(netip.MustParseAddr("10.0.0.99")), func(p sim.Packet) bool { return p.EthType == pipeline.TypeARP && p.ARPTPA.String() == "10.0.0.99" }, b)
	// A guest that checks its own address must not find it taken.
	a.Dropped(a.ARPRequest(a.IP()), func(p sim.Packet) bool { return p.EthType == pipeline.TypeARP && p.ARPSPA == a.IP() }, a, b)
	unknown := a.UDP(b, 53)
	unknown.EthDst = pipeline.MAC{0xfa, 0x16, 0x3e, 9, 9, 9}
	a.Dropped(unknown, nil, b)
	tagged := a.UDP(b, 53)
	tagged.VLAN = 0x1005
	a.Dropped(tagged, nil, b)
}

// acrossTwo is one guest on each of two hosts, all allowed.
func acrossTwo(w *World, vni uint32, net string) (a, b *Guest) {
	h0, h1 := w.Host(0), w.Host(1)
	pa, pb := NewPort(net, vni, net+"-a", 5, "all"), NewPort(net, vni, net+"-b", 6, "all")
	h0.Apply(NewNetwork(net, vni, h1.TunnelIP()), AllowAll("all"), PeerOf(pb, h1.TunnelIP()))
	h1.Apply(NewNetwork(net, vni, h0.TunnelIP()), AllowAll("all"), PeerOf(pa, h0.TunnelIP()))
	return h0.Boot(pa), h1.Boot(pb)
}

func testAcrossHosts(t *testing.T, f Fabric) {
	w := NewWorld(t, f, 2)
	a, b := acrossTwo(w, bigVNI, "net")
	if mac := a.Resolve(b.IP()); mac != b.MAC() {
		t.Fatalf("b has MAC %v, want %v", mac, b.MAC())
	}
	a.Passes(b, a.UDP(b, 53))
	b.Passes(a, b.UDP(a, 53))
	big := a.UDP(b, 53)
	big.Payload = append(big.Payload, make([]byte, 1450-28-len(big.Payload))...)
	a.Passes(b, big)
	// A frame for a MAC of another host that comes by the tunnel is not sent on.
	b.Dropped(func() sim.Packet { p := b.UDP(a, 53); p.EthDst = pipeline.MAC{0xfa, 0x16, 0x3e, 9, 9, 9}; return p }(), nil, a)
}

func testSameAddresses(t *testing.T, f Fabric) {
	w := NewWorld(t, f, 2)
	a1, b1 := acrossTwo(w, 100, "red")
	a2, b2 := acrossTwo(w, 101, "blue")
	for range 3 {
		p := a1.UDP(b1, 53)
		a1.Passes(b1, p)
		a1.Dropped(a1.UDP(b1, 53), nil, a2, b2)
		q := a2.UDP(b2, 53)
		a2.Passes(b2, q)
		a2.Dropped(a2.UDP(b2, 53), nil, a1, b1)
	}
}

func testSpoof(t *testing.T, f Fabric) {
	w := NewWorld(t, f, 1)
	a, b := pairOn(w)
	foreign := pipeline.MAC{0xfa, 0x16, 0x3e, 7, 7, 7}
	for name, change := range map[string]func(*sim.Packet){
		"MAC":         func(p *sim.Packet) { p.EthSrc = foreign },
		"IP":          func(p *sim.Packet) { p.Src = netip.MustParseAddr("10.0.0.77") },
		"IP of b":     func(p *sim.Packet) { p.Src = b.IP() },
		"zero IP":     func(p *sim.Packet) { p.Src = netip.MustParseAddr("0.0.0.0") },
		"DHCP server": func(p *sim.Packet) { p.SrcPort, p.DstPort = 67, 68 },
		"IPv6": func(p *sim.Packet) {
			p.EthType, p.Src, p.Dst = pipeline.TypeIPv6, netip.MustParseAddr("fd00::5"), netip.MustParseAddr("fd00::6")
		},
		"another ether type": func(p *sim.Packet) { p.EthType = 0x88b5 },
	} {
		p := a.UDP(b, 53)
		change(&p)
		t.Logf("forged %s", name)
		a.Dropped(p, nil, b)
	}
	for name, change := range map[string]func(*sim.Packet){
		"ARP sender address": func(p *sim.Packet) { p.ARPSPA = netip.MustParseAddr("10.0.0.77") },
		"ARP sender MAC":     func(p *sim.Packet) { p.ARPSHA = foreign },
		"ARP for b":          func(p *sim.Packet) { p.ARPSPA = b.IP() },
	} {
		p := a.ARPRequest(b.IP())
		p.ARPOp, p.ARPTHA, p.EthDst = pipeline.ARPReply, b.MAC(), b.MAC()
		change(&p)
		t.Logf("forged %s", name)
		a.Dropped(p, func(q sim.Packet) bool {
			return q.EthType == pipeline.TypeARP && q.ARPSPA == p.ARPSPA && q.ARPSHA == p.ARPSHA
		}, b)
	}
	a.Passes(b, a.UDP(b, 53))
}

func testGroupDefault(t *testing.T, f Fabric) {
	w := NewWorld(t, f, 1)
	h := w.Host(0)
	h.Apply(NewNetwork("net", bigVNI), AllowAll("all"))
	open, shut := h.Boot(NewPort("net", bigVNI, "open", 5, "all")), h.Boot(NewPort("net", bigVNI, "shut", 6))
	open.Dropped(open.UDP(shut, 53), nil, shut)
	shut.Dropped(shut.UDP(open, 53), nil, open)
	if mac := shut.Resolve(open.IP()); mac != open.MAC() {
		t.Fatalf("ARP gives %v", mac)
	}
}

// web lets everything out, and in: TCP 8000 to 8009, and echo requests.
func web() *model.HostGroup {
	return &model.HostGroup{ID: "web", Stateful: true, Rules: []model.HostRule{
		{ID: "r1", Direction: model.Egress, EtherType: model.IPv4},
		{ID: "r2", Direction: model.Ingress, EtherType: model.IPv4, Protocol: "tcp", PortMin: ptr(8000), PortMax: ptr(8009)},
		{ID: "r3", Direction: model.Ingress, EtherType: model.IPv4, Protocol: "icmp", PortMin: ptr(8), PortMax: ptr(0), RemotePrefix: netip.MustParsePrefix("10.0.0.0/29")},
		{ID: "r4", Direction: model.Ingress, EtherType: model.IPv6},
	}}
}

func testGroupRules(t *testing.T, f Fabric) {
	w := NewWorld(t, f, 2)
	h0, h1 := w.Host(0), w.Host(1)
	pa, pb, pc := NewPort("net", bigVNI, "a", 5, "web"), NewPort("net", bigVNI, "b", 6, "web"), NewPort("net", bigVNI, "c", 20, "web")
	h0.Apply(NewNetwork("net", bigVNI, h1.TunnelIP()), web(), PeerOf(pc, h1.TunnelIP()))
	h1.Apply(NewNetwork("net", bigVNI, h0.TunnelIP()), web(), PeerOf(pa, h0.TunnelIP()), PeerOf(pb, h0.TunnelIP()))
	a, b, c := h0.Boot(pa), h0.Boot(pb), h1.Boot(pc)
	for i, p := range [][2]*Guest{{a, b}, {a, c}, {c, b}} {
		from, to := p[0], p[1]
		src := uint16(30000 + i)
		from.Dropped(from.TCP(to, src, 7999, sim.SYN), nil, to)
		from.Dropped(from.TCP(to, src, 8010, sim.SYN), nil, to)
		from.Dropped(from.UDP(to, 8000), nil, to)
		for _, port := range []uint16{8000, 8003, 8009} {
			from.Passes(to, from.TCP(to, src, port, sim.SYN))
			to.Passes(from, to.TCP(from, port, src, sim.SYN|sim.ACK))
			from.Passes(to, from.TCP(to, src, port, sim.ACK))
		}
		// An answer to nothing is invalid.
		to.Dropped(to.TCP(from, 8001, 1, sim.SYN|sim.ACK), nil, from)
		echo := from.UDP(to, 0)
		echo.Proto, echo.ICMPType, echo.SrcPort = pipeline.ProtoICMP, 8, uint16(100+i)
		reply := to.UDP(from, 0)
		reply.Proto, reply.ICMPType, reply.SrcPort = pipeline.ProtoICMP, 0, uint16(100+i)
		if from == c { // outside of the rule's prefix
			from.Dropped(echo, nil, to)
			to.Dropped(reply, nil, from)
			continue
		}
		from.Passes(to, echo)
		to.Passes(from, reply)
	}
}

func testRuleRemoved(t *testing.T, f Fabric) {
	w := NewWorld(t, f, 1)
	h := w.Host(0)
	h.Apply(NewNetwork("net", bigVNI), web(), AllowAll("all"))
	a, b := h.Boot(NewPort("net", bigVNI, "a", 5, "all")), h.Boot(NewPort("net", bigVNI, "b", 6, "web"))
	open := func(src uint16) {
		a.Passes(b, a.TCP(b, src, 8000, sim.SYN))
		b.Passes(a, b.TCP(a, 8000, src, sim.SYN|sim.ACK))
		a.Passes(b, a.TCP(b, src, 8000, sim.ACK))
	}
	open(1000)
	without := web()
	without.Rules = append(without.Rules[:1:1], without.Rules[2:]...)
	h.Apply(without)
	// The established connection is cut both ways, new ones do not come up.
	a.Dropped(a.TCP(b, 1000, 8000, sim.ACK), nil, b)
	b.Dropped(b.TCP(a, 8000, 1000, sim.ACK), nil, a)
	a.Dropped(a.TCP(b, 1001, 8000, sim.SYN), nil, b)
	// What the guest itself opened is still allowed.
	b.Passes(a, b.TCP(a, 2000, 80, sim.SYN))
	a.Passes(b, a.TCP(b, 80, 2000, sim.SYN|sim.ACK))
	h.Apply(web())
	a.Passes(b, a.TCP(b, 1000, 8000, sim.ACK))
	b.Passes(a, b.TCP(a, 8000, 1000, sim.ACK))
	open(1002)
	// Another rule that allows the same keeps connections up while the first goes.
	both := web()
	both.Rules = append(both.Rules, model.HostRule{ID: "r9", Direction: model.Ingress, EtherType: model.IPv4, Protocol: "tcp"})
	h.Apply(both)
	both = &model.HostGroup{ID: "web", Stateful: true, Rules: append(both.Rules[:1:1], both.Rules[2:]...)}
	h.Apply(both)
	a.Passes(b, a.TCP(b, 1002, 8000, sim.ACK))
	b.Passes(a, b.TCP(a, 8000, 1002, sim.ACK))
}

func testRemoteGroup(t *testing.T, f Fabric) {
	w := NewWorld(t, f, 2)
	h0, h1 := w.Host(0), w.Host(1)
	db := &model.HostGroup{ID: "db", Stateful: true, Rules: []model.HostRule{
		{ID: "d1", Direction: model.Egress, EtherType: model.IPv4},
		{ID: "d2", Direction: model.Ingress, EtherType: model.IPv4, Protocol: "tcp", PortMin: ptr(5432), PortMax: ptr(5432), RemoteGroupID: "app"}}}
	pd, pa := NewPort("net", bigVNI, "d", 5, "db"), NewPort("net", bigVNI, "a", 6, "all")
	h0.Apply(NewNetwork("net", bigVNI, h1.TunnelIP()), db, PeerOf(pa, h1.TunnelIP()))
	h1.Apply(NewNetwork("net", bigVNI, h0.TunnelIP()), AllowAll("all"), PeerOf(pd, h0.TunnelIP()))
	d, a := h0.Boot(pd), h1.Boot(pa)
	a.Dropped(a.TCP(d, 1, 5432, sim.SYN), nil, d)
	member := &model.HostMember{GroupID: "app", PortID: "a", Prefixes: []netip.Prefix{netip.PrefixFrom(a.IP(), 32)}}
	h0.Apply(member)
	a.Passes(d, a.TCP(d, 1, 5432, sim.SYN))
	a.Dropped(a.TCP(d, 1, 5433, sim.SYN), nil, d)
	// The same address in a second set that another rule names.
	db2 := &model.HostGroup{ID: "db", Stateful: true, Rules: append(db.Rules[:2:2],
		model.HostRule{ID: "d3", Direction: model.Ingress, EtherType: model.IPv4, Protocol: "udp", RemoteGroupID: "ops"})}
	h0.Apply(db2, &model.HostMember{GroupID: "ops", PortID: "a", Prefixes: member.Prefixes})
	a.Passes(d, a.UDP(d, 161))
	a.Passes(d, a.TCP(d, 2, 5432, sim.SYN))
	h0.Remove(member.RowID())
	a.Dropped(a.TCP(d, 3, 5432, sim.SYN), nil, d)
	a.Passes(d, a.UDP(d, 161))
}

func testPortSecurityOff(t *testing.T, f Fabric) {
	w := NewWorld(t, f, 1)
	h := w.Host(0)
	free := NewPort("net", bigVNI, "free", 5)
	free.PortSecurity = false
	other := NewPort("net", bigVNI, "other", 6)
	other.PortSecurity = false
	h.Apply(NewNetwork("net", bigVNI), AllowAll("all"))
	a, b, c := h.Boot(free), h.Boot(other), h.Boot(NewPort("net", bigVNI, "c", 7, "all"))
	p := a.UDP(b, 9)
	p.Src, p.EthSrc = netip.MustParseAddr("192.0.2.1"), pipeline.MAC{2, 0, 0, 0, 0, 9}
	a.Passes(b, p)
	p = a.UDP(b, 9)
	p.EthType, p.Src, p.Dst = pipeline.TypeIPv6, netip.MustParseAddr("fd00::5"), netip.MustParseAddr("fd00::6")
	a.Passes(b, p)
	p.Payload, p.EthDst = w.Token(), c.MAC()
	a.Dropped(p, nil, c) // a port with port security gets no IPv6 yet
	a.Passes(c, a.UDP(c, 9))
}

func testMovableAddress(t *testing.T, f Fabric) {
	w := NewWorld(t, f, 2)
	h0, h1 := w.Host(0), w.Host(1)
	vip := netip.MustParseAddr("10.0.0.100")
	virtual := pipeline.MAC{0, 0, 0x5e, 0, 1, 7}
	pairs := []model.AddressPair{{Prefix: netip.PrefixFrom(vip, 32)}, {Prefix: netip.PrefixFrom(vip, 32), MAC: virtual.String()}}
	pa, pb, pc := NewPort("net", bigVNI, "a", 5, "all"), NewPort("net", bigVNI, "b", 6, "all"), NewPort("net", bigVNI, "c", 7, "all")
	pa.Pairs, pb.Pairs = pairs, pairs
	h0.Apply(NewNetwork("net", bigVNI, h1.TunnelIP()), AllowAll("all"), PeerOf(pb, h1.TunnelIP()))
	h1.Apply(NewNetwork("net", bigVNI, h0.TunnelIP()), AllowAll("all"), PeerOf(pa, h0.TunnelIP()), PeerOf(pc, h0.TunnelIP()))
	a, c, b := h0.Boot(pa), h0.Boot(pc), h1.Boot(pb)
	asks := func(p sim.Packet) bool {
		return p.EthType == pipeline.TypeARP && p.ARPOp == pipeline.ARPRequest && p.ARPTPA == vip
	}
	c.Send(c.ARPRequest(vip))
	a.Expect("request for the virtual address", asks)
	b.Expect("request for the virtual address", asks)
	for _, holder := range []*Guest{a, b} {
		// The holder announces the address, and traffic follows the MAC.
		p := holder.ARPRequest(vip)
		p.ARPSPA = vip
		holder.Send(p)
		c.Expect("announcement", func(q sim.Packet) bool {
			return q.EthType == pipeline.TypeARP && q.ARPSPA == vip && q.ARPSHA == holder.MAC()
		})
		q := c.UDP(holder, 9)
		q.Dst = vip
		c.Passes(holder, q)
		q = holder.UDP(c, 9)
		q.Src = vip
		holder.Passes(c, q)
		q = holder.UDP(c, 9)
		q.Src, q.EthSrc = vip, virtual
		holder.Passes(c, q)
		// The virtual MAC is where it is: both may have it.
		q = c.UDP(holder, 9)
		q.Dst, q.EthDst = vip, virtual
		c.Send(q)
		for _, g := range []*Guest{a, b} {
			g.Expect("packet to the virtual MAC", func(r sim.Packet) bool { return bytes.Equal(r.Payload, q.Payload) })
		}
	}
	q := c.UDP(a, 9)
	q.Src = vip
	c.Dropped(q, nil, a, b)
}

func testBroadcast(t *testing.T, f Fabric) {
	w := NewWorld(t, f, 2)
	a, b := acrossTwo(w, bigVNI, "net")
	c := w.Host(0).Boot(NewPort("net", bigVNI, "c", 7, "all"))
	x, y := acrossTwo(w, bigVNI+1, "other")
	for _, dst := range []pipeline.MAC{{255, 255, 255, 255, 255, 255}, {1, 0, 0x5e, 0, 0, 9}} {
		p := a.UDP(b, 9)
		p.EthDst, p.Dst = dst, netip.MustParseAddr("224.0.0.9")
		a.Passes(c, p)
		b.Expect("broadcast", func(q sim.Packet) bool { return bytes.Equal(q.Payload, p.Payload) })
		// Once to each, and to nobody else.
		is := func(q sim.Packet) bool { return bytes.Equal(q.Payload, p.Payload) }
		q := b.UDP(a, 9)
		q.EthDst, q.Dst = p.EthDst, p.Dst
		b.Passes(a, q)
		c.Expect("broadcast", func(r sim.Packet) bool { return bytes.Equal(r.Payload, q.Payload) })
		a.Dropped(a.UDP(x, 9), is, a, b, c, x, y)
	}
}

func testDHCP(t *testing.T, f Fabric) {
	w := NewWorld(t, f, 1)
	a, b := pairOn(w)
	if reply := a.dhcp(t, dhcpv4.MessageTypeDiscover, b); reply.MessageType() != dhcpv4.MessageTypeOffer || !reply.YourIPAddr.Equal(a.IP().AsSlice()) {
		t.Fatalf("got %v", reply)
	}
	reply := a.dhcp(t, dhcpv4.MessageTypeRequest, b, dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(a.IP().AsSlice())))
	if reply.MessageType() != dhcpv4.MessageTypeAck || !reply.YourIPAddr.Equal(a.IP().AsSlice()) {
		t.Fatalf("got %v", reply)
	}
	if mtu := reply.Options.Get(dhcpv4.OptionInterfaceMTU); !bytes.Equal(mtu, []byte{5, 0xaa}) {
		t.Errorf("MTU option %v, want 1450", mtu)
	}
	reply = a.dhcp(t, dhcpv4.MessageTypeRequest, b, dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(b.IP().AsSlice())))
	if reply.MessageType() != dhcpv4.MessageTypeNak {
		t.Fatalf("got %v", reply)
	}
	if n := w.Host(0).Driver().Counters().DHCPReplies; n != 3 {
		t.Errorf("%d replies counted, want 3", n)
	}
}

// dhcp asks and gives the answer; no other guest may see the question.
func (g *Guest) dhcp(t *testing.T, kind dhcpv4.MessageType, other *Guest, change ...dhcpv4.Modifier) *dhcpv4.DHCPv4 {
	t.Helper()
	mac := g.MAC()
	m, err := dhcpv4.New(append([]dhcpv4.Modifier{dhcpv4.WithHwAddr(net.HardwareAddr(mac[:])), dhcpv4.WithMessageType(kind)}, change...)...)
	if err != nil {
		t.Fatal(err)
	}
	p := sim.Packet{EthSrc: g.MAC(), EthDst: pipeline.MAC{255, 255, 255, 255, 255, 255}, EthType: pipeline.TypeIPv4, Src: netip.MustParseAddr("0.0.0.0"),
		Dst: netip.MustParseAddr("255.255.255.255"), Proto: pipeline.ProtoUDP, SrcPort: 68, DstPort: 67, Payload: m.ToBytes()}
	g.Dropped(p, nil, other)
	q := g.Expect("DHCP answer", func(q sim.Packet) bool { return q.Proto == pipeline.ProtoUDP && q.SrcPort == 67 && q.DstPort == 68 })
	reply, err := dhcpv4.FromBytes(q.Payload)
	if err != nil {
		t.Fatal(err)
	}
	if reply.TransactionID != m.TransactionID {
		t.Fatalf("answer to %v, want %v", reply.TransactionID, m.TransactionID)
	}
	return reply
}

func testMetadataOwner(t *testing.T, f Fabric) {
	w := NewWorld(t, f, 1)
	a, b := pairOn(w)
	env := pipeline.DefaultEnv()
	found := map[string]bool{}
	for n := uint32(1); n < 8; n++ {
		o, ok := w.Host(0).Driver().MetadataOwner(env.Alias(n))
		if !ok {
			continue
		}
		if o.Network != "net" || o.Port == "a" && o.Address != a.IP() || o.Port == "b" && o.Address != b.IP() {
			t.Errorf("alias %d: %+v", n, o)
		}
		found[o.Port] = true
	}
	if !found["a"] || !found["b"] || len(found) != 2 {
		t.Fatalf("owners %v, want a and b", found)
	}
	for _, s := range []string{"169.254.64.1", "10.0.0.5", "169.254.127.255"} {
		if o, ok := w.Host(0).Driver().MetadataOwner(netip.MustParseAddr(s)); ok {
			t.Errorf("%s belongs to %+v", s, o)
		}
	}
}

func testAdminDown(t *testing.T, f Fabric) {
	w := NewWorld(t, f, 1)
	a, b := pairOn(w)
	a.Passes(b, a.UDP(b, 9))
	down := *b.Port
	down.AdminStateUp = false
	w.Host(0).Apply(&down)
	p := a.UDP(b, 9)
	a.Send(p)
	a.flush()
	up := down
	up.AdminStateUp = true
	w.Host(0).Apply(&up)
	b.flush()
	for _, q := range b.seen {
		if bytes.Equal(q.Payload, p.Payload) {
			t.Fatal("a port that is down got a packet")
		}
	}
	a.Passes(b, a.UDP(b, 9))
}

func testRemoval(t *testing.T, f Fabric) {
	w := NewWorld(t, f, 2)
	before := w.Host(0).Entries(t)
	a, b := acrossTwo(w, bigVNI, "net")
	a.Passes(b, a.UDP(b, 9))
	h := w.Host(0)
	h.Apply(web(), &model.HostMember{GroupID: "all", PortID: "x", Prefixes: []netip.Prefix{netip.MustParsePrefix("10.0.0.9/32")}})
	h.Remove(a.Port.RowID(), model.RowID{Kind: model.RowPeer, Key: b.Port.ID}, model.RowID{Kind: model.RowNetwork, Key: "net"}, model.RowID{Kind: model.RowGroup, Key: "all"},
		model.RowID{Kind: model.RowGroup, Key: "web"}, model.RowID{Kind: model.RowMember, Key: "all,x"})
	if h.Driver().Installed(a.Port.ID) {
		t.Error("the removed port is installed")
	}
	if after := h.Entries(t); after != before {
		t.Errorf("%d entries before, %d after all rows went", before, after)
	}
	ctx, cancel := w.context()
	defer cancel()
	for range 2 {
		if err := h.Driver().Detach(ctx, a.Port.ID); err != nil {
			t.Fatalf("detach: %v", err)
		}
	}
}

func testDriverRestart(t *testing.T, f Fabric) {
	w := NewWorld(t, f, 2)
	a, b := acrossTwo(w, bigVNI, "net")
	a.Passes(b, a.TCP(b, 1, 2, sim.SYN))
	b.Passes(a, b.TCP(a, 2, 1, sim.SYN|sim.ACK))
	h := w.Host(0)
	before := h.Entries(t)
	h.RestartDriver(t)
	a.Passes(b, a.TCP(b, 1, 2, sim.ACK)) // nobody has told the new driver anything yet
	h.Prune()
	if after := h.Entries(t); after != before {
		t.Errorf("%d entries before the restart, %d after", before, after)
	}
	h.waitInstalled(a.Port.ID)
	a.Passes(b, a.TCP(b, 1, 2, sim.ACK))
	b.Passes(a, b.TCP(a, 2, 1, sim.ACK))
	// A row that went while the driver was away leaves nothing behind.
	h.RestartDriver(t)
	delete(h.rows, model.RowID{Kind: model.RowPeer, Key: b.Port.ID})
	h.Prune()
	a.Dropped(a.TCP(b, 1, 2, sim.ACK), nil, b)
}

func testSwitchRestart(t *testing.T, f Fabric) {
	w := NewWorld(t, f, 2)
	a, b := acrossTwo(w, bigVNI, "net")
	a.Passes(b, a.UDP(b, 9))
	h := w.Host(0)
	before := h.Entries(t)
	h.RestartSwitch(t)
	h.waitInstalled(a.Port.ID)
	WaitFor(t, "all entries to be back", func() bool { return h.Entries(t) == before })
	h.Settle(t)
	w.warm(h, w.Host(1))
	w.warm(w.Host(1), h)
	a.Passes(b, a.UDP(b, 9))
	b.Passes(a, b.UDP(a, 9))
}

func testManyNetworks(t *testing.T, f Fabric) {
	w := NewWorld(t, f, 1)
	h := w.Host(0)
	const n = 5000
	rows := []model.HostRow{AllowAll("all")}
	vni := func(i int) uint32 { return uint32(4095 + i*3000) }
	for i := range n {
		id := fmt.Sprintf("n%d", i)
		rows = append(rows, NewNetwork(id, vni(i)), NewPort(id, vni(i), id+"-a", 5, "all"))
	}
	h.Apply(rows...)
	boot := func(i int, suffix string, addr int) *Guest {
		id := fmt.Sprintf("n%d", i)
		return h.Boot(NewPort(id, vni(i), id+suffix, addr, "all"))
	}
	a0, b0 := boot(0, "-a", 5), boot(0, "-b", 6)
	a1, b1 := boot(n-1, "-a", 5), boot(n-1, "-b", 6)
	a0.Passes(b0, a0.UDP(b0, 9))
	a1.Passes(b1, a1.UDP(b1, 9))
	a0.Dropped(a0.UDP(b0, 9), nil, a1, b1)
	if got := h.Driver().Counters().Conflicts; got != 0 {
		t.Errorf("%d conflicts", got)
	}
}
