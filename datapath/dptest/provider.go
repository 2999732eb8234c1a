package dptest

import (
	"bytes"
	"net/netip"
	"testing"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"yakumo/datapath/pipeline"
	"yakumo/datapath/pipeline/sim"
	"yakumo/model"
)

// segmentCases are the tests of how networks are carried: provider bridges, tunnel types, trunks, mirrors.
var segmentCases = []testCase{{"ProviderFlat", testProviderFlat}, {"ProviderVLAN", testProviderVLAN}, {"ProviderUnmapped", testProviderUnmapped},
	{"TunnelTypes", testTunnelTypes}, {"Trunk", testTrunk}, {"VLANTransparent", testTransparent}, {"DSCP", testDSCP}, {"Mirror", testMirror}}

// NewFlat is NewNetwork on the physical network of the suite.
func NewFlat(id string, vni uint32) *model.HostNetwork {
	n := NewNetwork(id, vni)
	n.Type, n.PhysicalNetwork, n.MTU = model.NetworkFlat, Physical, 1500
	return n
}

// NewVLAN is NewFlat with a tag.
func NewVLAN(id string, vni uint32, vlan uint16) *model.HostNetwork {
	n := NewFlat(id, vni)
	n.Type, n.VLAN = model.NetworkVLAN, vlan
	return n
}

// ProviderPeer is PeerOf in a flat or VLAN network.
func ProviderPeer(p *model.HostPort, network *model.HostNetwork) *model.HostPeer {
	r := PeerOf(p, netip.Addr{})
	r.Type = network.Type
	return r
}

// Outside makes a machine on the physical network, behind the host's provider bridge, that no driver knows
// of. It sends with the tag vlan (0: untagged), and answers nothing by itself.
func (h *HostState) Outside(id string, n int, vlan uint16) *Guest {
	h.w.t.Helper()
	g := &Guest{t: h.w.t, h: h, Port: NewPort("outside", 0, id, n), nic: h.NewProvider(h.w.t), outside: true}
	if vlan != 0 {
		g.tag = vlan | 0x1000
	}
	return g
}

// wellTagged checks that a packet has the tag of where it arrives.
func (g *Guest) wellTagged(p sim.Packet) {
	g.t.Helper()
	if p.VLAN != g.tag {
		g.t.Errorf("%s got a frame with tag %#x, want %#x: %s", g.Port.ID, p.VLAN, g.tag, p.Summary())
	}
}

func testProviderFlat(t *testing.T, f Fabric) {
	testProvider(t, f, NewFlat("net", bigVNI), NewVLAN("other", bigVNI+1, 100))
}

func testProviderVLAN(t *testing.T, f Fabric) {
	testProvider(t, f, NewVLAN("net", bigVNI, 100), NewVLAN("other", bigVNI+1, 4094))
}

func testProvider(t *testing.T, f Fabric, net, other *model.HostNetwork) {
	w := NewWorld(t, f, 2)
	h0, h1 := w.Host(0), w.Host(1)
	pa, pb, pc := NewPort("net", net.VNI, "a", 5, "all"), NewPort("net", net.VNI, "b", 6, "all"), NewPort("net", net.VNI, "c", 7, "all")
	px := NewPort("other", other.VNI, "x", 5, "all") // the address and MAC of a, elsewhere
	px.MAC = "fa:16:3e:01:00:05"
	h0.Apply(net, other, AllowAll("all"), ProviderPeer(pb, net))
	h1.Apply(net, AllowAll("all"), ProviderPeer(pa, net), ProviderPeer(pc, net))
	a, c, x, b := h0.Boot(pa), h0.Boot(pc), h0.Boot(px), h1.Boot(pb)
	o, p := h0.Outside("outside-0", 200, net.VLAN), h1.Outside("outside-1", 201, net.VLAN)
	has := func(p sim.Packet) func(sim.Packet) bool {
		return func(q sim.Packet) bool { return bytes.Equal(q.Payload, p.Payload) }
	}

	// Guests reach each other by the physical network, and know each other's MACs from the switch.
	if mac := a.Resolve(b.IP()); mac != b.MAC() {
		t.Fatalf("b has MAC %v, want %v", mac, b.MAC())
	}
	b.wellTagged(a.Passes(b, a.UDP(b, 53)))
	a.wellTagged(b.Passes(a, b.UDP(a, 53)))
	a.Passes(c, a.UDP(c, 53))
	full := a.UDP(b, 53)
	full.Payload = append(full.Payload, make([]byte, 1500-28-len(full.Payload))...)
	a.Passes(b, full)

	// Somebody whom nobody knows answers for itself.
	asks := func(target netip.Addr) func(sim.Packet) bool {
		return func(q sim.Packet) bool { return q.ARPOp == pipeline.ARPRequest && q.ARPTPA == target }
	}
	a.Send(a.ARPRequest(o.IP()))
	o.wellTagged(o.Expect("the question for it", asks(o.IP())))
	p.Expect("the question for another", asks(o.IP()))
	o.Send(sim.Packet{EthSrc: o.MAC(), EthDst: a.MAC(), EthType: pipeline.TypeARP, ARPOp: pipeline.ARPReply, ARPSHA: o.MAC(), ARPSPA: o.IP(), ARPTHA: a.MAC(), ARPTPA: a.IP()})
	a.wellTagged(a.Expect("its answer", func(q sim.Packet) bool {
		return q.ARPOp == pipeline.ARPReply && q.ARPSPA == o.IP() && q.ARPSHA == o.MAC()
	}))
	o.wellTagged(a.Passes(o, a.UDP(o, 53)))
	a.wellTagged(o.Passes(a, o.UDP(a, 53)))
	b.Passes(o, b.UDP(o, 53))
	o.Passes(b, o.UDP(b, 53))
	p.Passes(a, p.UDP(a, 53))

	// Its questions reach guests, and only those.
	o.Send(o.ARPRequest(a.IP()))
	for _, g := range []*Guest{a, b, c} {
		g.wellTagged(g.Expect("question from outside", asks(a.IP())))
	}
	x.flush()
	x.Lacks(asks(a.IP()))

	// A broadcast of a guest reaches all once, also outside, and does not come back.
	cast := a.UDP(b, 9)
	cast.EthDst, cast.Dst = pipeline.MAC{255, 255, 255, 255, 255, 255}, netip.MustParseAddr("10.0.255.255")
	a.Passes(c, cast)
	for _, g := range []*Guest{b, o, p} {
		g.wellTagged(g.Expect("broadcast", has(cast)))
	}
	a.Passes(o, a.UDP(o, 9))
	b.Passes(a, b.UDP(a, 9))
	for _, g := range []*Guest{a, b, c, o, p, x} {
		g.Lacks(has(cast))
	}

	// What comes from outside for nobody here, or with another tag, stops at the switch.
	lost := o.UDP(a, 9)
	lost.EthDst = pipeline.MAC{0xfa, 0x16, 0x3e, 9, 9, 9}
	o.Send(lost)
	odd := o.UDP(a, 9)
	odd.VLAN = 0x1000 | 77
	o.Send(odd)
	o.Passes(a, o.UDP(a, 9))
	for _, g := range []*Guest{a, c} {
		g.flush()
		g.Lacks(has(lost))
		g.Lacks(has(odd))
	}
	// A guest's unknown unicast goes outside, and not to its neighbours.
	unknown := a.UDP(o, 9)
	unknown.EthDst = lost.EthDst
	a.Passes(o, unknown)
	c.flush()
	c.Lacks(has(unknown))
	spoof := a.UDP(o, 9)
	spoof.EthSrc = c.MAC()
	a.Send(spoof)
	a.Passes(o, a.UDP(o, 9))
	o.Lacks(has(spoof))

	// The other network on the same wire.
	y := h1.Outside("other-outside", 202, other.VLAN)
	x.wellTagged(y.Passes(x, y.UDP(x, 9)))
	y.wellTagged(x.Passes(y, x.UDP(y, 9)))

	// Addresses come from the host as in any network.
	if reply := a.dhcp(t, dhcpv4.MessageTypeDiscover, c); !reply.YourIPAddr.Equal(a.IP().AsSlice()) {
		t.Errorf("got %v", reply)
	}
	a.Passes(o, a.UDP(o, 9))
	o.Lacks(func(q sim.Packet) bool { return q.DstPort == 67 })

	before := h0.Entries(t)
	h0.RestartDriver(t)
	h0.Prune()
	if after := h0.Entries(t); after != before {
		t.Errorf("%d entries before the restart, %d after", before, after)
	}
	h0.waitInstalled("a")
	o.Passes(a, o.UDP(a, 9))
	a.Passes(b, a.UDP(b, 9))
}

// A port whose physical network has no bridge on the host is not wired, and hinders nobody.
func testProviderUnmapped(t *testing.T, f Fabric) {
	w := NewWorld(t, f, 1)
	h := w.Host(0)
	net := NewFlat("net", bigVNI)
	net.PhysicalNetwork = "nowhere"
	p := NewPort("net", bigVNI, "p", 5, "all")
	h.Apply(net, AllowAll("all"), p)
	ctx, cancel := w.context()
	defer cancel()
	if err := h.Driver().Attach(ctx, "p", h.NewNIC(t).Device()); err != nil {
		t.Fatal(err)
	}
	h.Apply(NewNetwork("fine", bigVNI+1))
	h.Boot(NewPort("fine", bigVNI+1, "q", 5, "all"))
	if h.Driver().Installed("p") {
		t.Error("a port on an unmapped physical network is installed")
	}
	h.Apply(NewFlat("net", bigVNI))
	h.waitInstalled("p")
}
