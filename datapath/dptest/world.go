// Package dptest is the conformance suite of datapath drivers: rows in, real frames
// through, for any number of hosts that are joined by an underlay. It runs on the fake
// driver and on a real switch alike. It is for tests only and knows no driver.
package dptest

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"testing"
	"time"

	"yakumo/datapath"
	"yakumo/datapath/pipeline"
	"yakumo/datapath/pipeline/sim"
	"yakumo/model"
)

// Patience bounds each wait of the suite: other tests and their daemons may have the processors meanwhile.
const Patience = 90 * time.Second

// Fabric makes hosts that reach each other's tunnel addresses.
type Fabric interface {
	NewHost(t testing.TB) Host
}

// Host is one switch with its driver.
type Host interface {
	Driver() datapath.Driver
	TunnelIP() netip.Addr
	// NewNIC makes a network device; its other end is the guest's.
	NewNIC(t testing.TB) NIC
	// NewProvider makes the device of a machine that is plugged into the far side of the host's
	// provider bridge for the physical network Physical. The provider bridges of a Fabric's hosts are one segment.
	NewProvider(t testing.TB) NIC
	// RestartDriver closes the driver and starts another, with the same ordinal store, on the
	// same switch; nothing is lost but the driver's memory.
	RestartDriver(t testing.TB)
	// RestartSwitch kills the switch and starts it without entries.
	RestartSwitch(t testing.TB)
	// Settle waits until the switch has forgotten what it has cached from older entries and devices: a
	// real one applies new entries to packets of known flows a moment after it confirms them. Where
	// neither changes afterwards, no packet is lost.
	Settle(t testing.TB)
	// Entries counts what the switch itself holds.
	Entries(t testing.TB) int
}

// Explainer is a Host that logs, for a test that fails, what its switch knows of packets that it has seen.
type Explainer interface {
	Explain(t testing.TB)
}

// NIC is a guest's end of a device.
type NIC interface {
	Device() string
	Send(t testing.TB, frame []byte)
	// Frames gives what arrives. It is closed when the device is gone.
	Frames() <-chan []byte
}

// World is the hosts, rows and guests of one test.
type World struct {
	t     testing.TB
	hosts []*HostState
	next  int
	token int
}

// HostState is a host and the rows it was told.
type HostState struct {
	Host
	w     *World
	rows  map[model.RowID]model.HostRow
	fence *Guest
}

// Guest is a port with a device.
type Guest struct {
	t    testing.TB
	h    *HostState
	Port *model.HostPort
	nic  NIC
	seen []sim.Packet // frames that no Expect has taken
	// tag goes on what it sends, with the bit 0x1000; 0: none.
	tag     uint16
	outside bool             // on a physical network, where no switch of ours answers
	hears   func(sim.Packet) // where not nil, gets each frame as it arrives
}

// Physical is the physical network that every host of a Fabric maps.
const Physical = "physnet1"

// fenceVNI is the network that the suite uses to flush hosts' queues.
const fenceVNI = 16_000_001

// NewWorld makes n hosts, each with an empty set of rows and a port in a common network
// through which the suite orders events.
func NewWorld(t testing.TB, f Fabric, n int) *World {
	w := &World{t: t}
	for range n {
		w.hosts = append(w.hosts, &HostState{Host: f.NewHost(t), w: w, rows: map[model.RowID]model.HostRow{}})
	}
	for i, h := range w.hosts {
		rows := []model.HostRow{&model.HostNetwork{ID: "fence", VNI: fenceVNI, MTU: 1450}}
		for j, o := range w.hosts {
			p := &model.HostPort{ID: fmt.Sprintf("fence-%d", j), NetworkID: "fence", VNI: fenceVNI, MAC: fmt.Sprintf("02:ff:00:00:00:%02x", j+1), AdminStateUp: true}
			if i == j {
				rows = append(rows, p)
				h.fence = &Guest{t: t, h: h, Port: p}
			} else {
				rows = append(rows, &model.HostPeer{ID: p.ID, NetworkID: "fence", VNI: fenceVNI, MAC: p.MAC, TunnelIP: o.TunnelIP()})
			}
		}
		for _, r := range rows {
			h.rows[r.RowID()] = r
		}
		h.Prune()
		h.plug(h.fence)
	}
	// The first packet between two hosts may wait for the underlay's own ARP.
	for _, a := range w.hosts {
		for _, b := range w.hosts {
			w.warm(a, b)
		}
	}
	return w
}

// Host gives a host by number.
func (w *World) Host(i int) *HostState { return w.hosts[i] }

func (w *World) context() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), Patience)
}

// Prune hands the whole set over.
func (h *HostState) Prune() {
	h.w.t.Helper()
	ctx, cancel := h.w.context()
	defer cancel()
	for { // a switch that is just starting is away for a moment
		err := h.Driver().Prune(ctx, maps.Values(h.rows))
		if err == nil {
			h.Settle(h.w.t)
			return
		}
		if ctx.Err() != nil {
			h.w.t.Fatalf("prune: %v", err)
		}
	}
}

// Apply changes the host's rows.
func (h *HostState) Apply(rows ...model.HostRow) {
	h.w.t.Helper()
	ctx, cancel := h.w.context()
	defer cancel()
	for _, r := range rows {
		h.rows[r.RowID()] = r
	}
	if err := h.Driver().Apply(ctx, rows, nil); err != nil {
		h.w.t.Fatalf("apply: %v", err)
	}
	h.Settle(h.w.t)
}

// Remove takes rows away.
func (h *HostState) Remove(ids ...model.RowID) {
	h.w.t.Helper()
	ctx, cancel := h.w.context()
	defer cancel()
	for _, id := range ids {
		delete(h.rows, id)
	}
	if err := h.Driver().Apply(ctx, nil, ids); err != nil {
		h.w.t.Fatalf("remove: %v", err)
	}
	h.Settle(h.w.t)
}

// plug gives a guest its device and waits until the port is wired.
func (h *HostState) plug(g *Guest) {
	h.w.t.Helper()
	ctx, cancel := h.w.context()
	defer cancel()
	g.nic = h.NewNIC(h.w.t)
	if err := h.Driver().Attach(ctx, g.Port.ID, g.nic.Device()); err != nil {
		h.w.t.Fatalf("attach: %v", err)
	}
	h.waitInstalled(g.Port.ID)
	h.Settle(h.w.t)
}

func (h *HostState) waitInstalled(port model.ID) {
	h.w.t.Helper()
	WaitFor(h.w.t, "port "+port+" to be installed", func() bool { return h.Driver().Installed(port) })
}

// WaitFor waits until ok is true.
func WaitFor(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(Patience)
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("waited %v for %s", Patience, what)
		}
	}
}

// NewPort makes a port row with the n-th address of 10.0.0.0/24 in a network and a MAC of
// the same number.
func NewPort(network string, vni uint32, id string, n int, groups ...model.ID) *model.HostPort {
	return &model.HostPort{
		ID: id, NetworkID: network, VNI: vni, MAC: fmt.Sprintf("fa:16:3e:00:%02x:%02x", n>>8, n&255), AdminStateUp: true, PortSecurity: true, Groups: groups,
		FixedIPs: []model.FixedIP{{SubnetID: network + "-subnet", Address: netip.AddrFrom4([4]byte{10, 0, byte(n >> 8), byte(n)})}},
	}
}

// NewNetwork makes the row of a network with the subnet 10.0.0.0/16, DHCP and no gateway.
func NewNetwork(id string, vni uint32, flood ...netip.Addr) *model.HostNetwork {
	return &model.HostNetwork{ID: id, VNI: vni, MTU: 1450, Flood: flood,
		Subnets: []model.HostSubnet{{ID: id + "-subnet", CIDR: netip.MustParsePrefix("10.0.0.0/16"), Gateway: netip.MustParseAddr("10.0.0.1"), DHCP: true}}}
}

// PeerOf makes the peer row of a port on another host.
func PeerOf(p *model.HostPort, host netip.Addr) *model.HostPeer {
	r := &model.HostPeer{ID: p.ID, NetworkID: p.NetworkID, VNI: p.VNI, MAC: p.MAC, Pairs: p.Pairs, TunnelIP: host}
	for _, f := range p.FixedIPs {
		r.Addresses = append(r.Addresses, f.Address)
	}
	return r
}

// AllowAll is a group that lets everything out and in.
func AllowAll(id string) *model.HostGroup {
	return &model.HostGroup{ID: id, Stateful: true, Rules: []model.HostRule{
		{ID: id + "-out", Direction: model.Egress, EtherType: model.IPv4}, {ID: id + "-in", Direction: model.Ingress, EtherType: model.IPv4}}}
}

// Boot puts a port on the host, with a device.
func (h *HostState) Boot(p *model.HostPort) *Guest {
	h.w.t.Helper()
	h.Apply(p)
	g := &Guest{t: h.w.t, h: h, Port: p}
	h.plug(g)
	return g
}

// MAC gives the guest's MAC.
func (g *Guest) MAC() pipeline.MAC {
	m, err := pipeline.ParseMAC(g.Port.MAC)
	if err != nil {
		g.t.Fatal(err)
	}
	return m
}

// IP gives the guest's first address.
func (g *Guest) IP() netip.Addr { return g.Port.FixedIPs[0].Address }

// Send sends a packet as it is.
func (g *Guest) Send(p sim.Packet) {
	g.t.Helper()
	if p.VLAN == 0 {
		p.VLAN = g.tag
	}
	g.nic.Send(g.t, p.Frame())
}

// Expect waits for a packet.
func (g *Guest) Expect(what string, is func(sim.Packet) bool) sim.Packet {
	g.t.Helper()
	for i, p := range g.seen {
		if is(p) {
			g.seen = slices.Delete(g.seen, i, i+1)
			return p
		}
	}
	deadline := time.After(Patience)
	for {
		select {
		case b, ok := <-g.nic.Frames():
			if !ok {
				g.t.Fatalf("%s: device gone while waiting for %s", g.Port.ID, what)
			}
			p, err := sim.Parse(b)
			if err != nil {
				g.t.Fatalf("%s got a broken frame: %v", g.Port.ID, err)
			}
			if g.hears != nil {
				g.hears(p)
			}
			if is(p) {
				return p
			}
			g.seen = append(g.seen, p)
		case <-deadline:
			for _, p := range g.seen {
				g.t.Logf("%s saw: %s", g.Port.ID, p.Summary())
			}
			for _, h := range g.h.w.hosts {
				if x, ok := h.Host.(Explainer); ok {
					x.Explain(g.t)
				}
			}
			g.t.Fatalf("%s waited %v for %s", g.Port.ID, Patience, what)
		}
	}
}

// take takes the frames that have come, without waiting for any.
func (g *Guest) take() {
	g.t.Helper()
	for {
		select {
		case b, ok := <-g.nic.Frames():
			if !ok {
				g.t.Fatalf("%s: device gone", g.Port.ID)
			}
			p, err := sim.Parse(b)
			if err != nil {
				g.t.Fatalf("%s got a broken frame: %v", g.Port.ID, err)
			}
			if g.hears != nil {
				g.hears(p)
			}
			g.seen = append(g.seen, p)
		default:
			return
		}
	}
}

// Token makes a payload that no other packet of the world has.
func (w *World) Token() []byte {
	w.token++
	return fmt.Appendf(nil, "token-%06d-", w.token)
}

// UDP makes a packet from g to a guest, with a fresh token.
func (g *Guest) UDP(to *Guest, port uint16) sim.Packet {
	return sim.Packet{EthSrc: g.MAC(), EthDst: to.MAC(), EthType: pipeline.TypeIPv4, Src: g.IP(), Dst: to.IP(), Proto: pipeline.ProtoUDP,
		SrcPort: 40000, DstPort: port, Payload: g.h.w.Token()}
}

// TCP makes a segment from g to a guest, with a fresh token.
func (g *Guest) TCP(to *Guest, src, dst uint16, flags uint8) sim.Packet {
	p := g.UDP(to, dst)
	p.Proto, p.SrcPort, p.Flags = pipeline.ProtoTCP, src, flags
	return p
}

// Passes sends a packet and waits until it arrives.
func (g *Guest) Passes(to *Guest, p sim.Packet) sim.Packet {
	g.t.Helper()
	g.Send(p)
	return to.Expect("packet "+p.Summary()+" of "+g.Port.ID, func(q sim.Packet) bool { return bytes.Equal(q.Payload, p.Payload) })
}

// Dropped sends a packet and makes sure that none of the guests gets it: packets sent after
// it on the same ways arrive first. The packet must carry a token, or be told by is.
func (g *Guest) Dropped(p sim.Packet, is func(sim.Packet) bool, to ...*Guest) {
	g.t.Helper()
	if is == nil {
		is = func(q sim.Packet) bool { return bytes.Equal(q.Payload, p.Payload) }
	}
	g.Send(p)
	g.flush()
	for _, o := range to {
		if o.h != g.h {
			g.h.w.fence(g.h, o.h)
		}
		o.flush()
		o.Lacks(is)
	}
}

// Lacks fails where one of the frames that came so far, and that no Expect has taken, is such.
func (g *Guest) Lacks(is func(sim.Packet) bool) {
	g.t.Helper()
	for _, q := range g.seen {
		if is(q) {
			g.t.Fatalf("%s got what must be dropped: %s", g.Port.ID, q.Summary())
		}
	}
}

// ARPRequest makes a guest's question for an address.
func (g *Guest) ARPRequest(target netip.Addr) sim.Packet {
	src := netip.AddrFrom4([4]byte{})
	if len(g.Port.FixedIPs) > 0 {
		src = g.IP()
	}
	return sim.Packet{EthSrc: g.MAC(), EthDst: pipeline.MAC{255, 255, 255, 255, 255, 255}, EthType: pipeline.TypeARP,
		ARPOp: pipeline.ARPRequest, ARPSHA: g.MAC(), ARPSPA: src, ARPTPA: target}
}

// Resolve asks for an address and gives the MAC that is answered.
func (g *Guest) Resolve(target netip.Addr) pipeline.MAC {
	g.t.Helper()
	g.Send(g.ARPRequest(target))
	p := g.Expect("ARP reply for "+target.String(), func(p sim.Packet) bool {
		return p.EthType == pipeline.TypeARP && p.ARPOp == pipeline.ARPReply && p.ARPSPA == target && p.EthDst == g.MAC() // and no announcement to all
	})
	if p.EthSrc != p.ARPSHA || p.EthDst != g.MAC() || p.ARPTHA != g.MAC() || len(g.Port.FixedIPs) > 0 && p.ARPTPA != g.IP() {
		g.t.Errorf("odd ARP reply: %s", p.Summary())
	}
	return p.ARPSHA
}

// flush returns when all that was on its way to the guest within its host has arrived.
func (g *Guest) flush() {
	g.t.Helper()
	if mac := g.Resolve(pipeline.ServiceAddr); mac != pipeline.ServiceMAC {
		g.t.Fatalf("%v has MAC %v", pipeline.ServiceAddr, mac)
	}
}

func (w *World) fencePacket(a, b *HostState) sim.Packet {
	return sim.Packet{EthSrc: a.fence.MAC(), EthDst: b.fence.MAC(), EthType: 0x88b5, Payload: w.Token()}
}

// fence returns when what host a sent to host b before has arrived there.
func (w *World) fence(a, b *HostState) {
	w.t.Helper()
	a.fence.Passes(b.fence, w.fencePacket(a, b))
}

// warm sends until something arrives.
func (w *World) warm(a, b *HostState) {
	w.t.Helper()
	if a == b {
		return
	}
	p := w.fencePacket(a, b)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(Patience)
	for {
		a.fence.Send(p)
		select {
		case f := <-b.fence.nic.Frames():
			if q, err := sim.Parse(f); err == nil && bytes.HasPrefix(q.Payload, p.Payload) {
				return
			}
		case <-tick.C:
		case <-deadline:
			w.t.Fatalf("no packet from %v to %v", a.TunnelIP(), b.TunnelIP())
		}
	}
}
