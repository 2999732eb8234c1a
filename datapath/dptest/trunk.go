package dptest

import (
	"bytes"
	"fmt"
	"net/netip"
	"testing"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"yakumo/datapath/pipeline"
	"yakumo/datapath/pipeline/sim"
	"yakumo/model"
)

// lane is the frames of one tag of a device.
type lane struct {
	NIC
	frames chan []byte
}

// Frames implements NIC.
func (l *lane) Frames() <-chan []byte { return l.frames }

// Trunk makes guests of a guest and of subports that share its device: each gets the frames with its own
// tag. The subports' rows are the caller's business.
func (g *Guest) Trunk(subports ...*model.HostPort) []*Guest {
	lanes := map[uint16]*lane{}
	add := func(tag uint16) *lane {
		lanes[tag] = &lane{g.nic, make(chan []byte, 65536)}
		return lanes[tag]
	}
	base, all := g.nic, make([]*Guest, len(subports))
	own := add(0)
	for i, p := range subports {
		tag := p.VLAN | 0x1000
		all[i] = &Guest{t: g.t, h: g.h, Port: p, nic: add(tag), tag: tag}
	}
	g.nic = own
	go func() {
		for b := range base.Frames() {
			tag := uint16(0)
			if p, err := sim.Parse(b); err == nil {
				tag = p.VLAN
			}
			if l := lanes[tag]; l != nil {
				l.frames <- b
			} else {
				own.frames <- b // Lacks tells of it
			}
		}
		for _, l := range lanes {
			close(l.frames)
		}
	}()
	return all
}

// NewSubport is NewPort on the device of another port.
func NewSubport(parent *model.HostPort, vlan uint16, network string, vni uint32, id string, n int, groups ...model.ID) *model.HostPort {
	p := NewPort(network, vni, id, n, groups...)
	p.Parent, p.VLAN = parent.ID, vlan
	return p
}

func tagged(q sim.Packet) bool { return q.VLAN != 0 }

func testTrunk(t *testing.T, f Fabric) {
	w := NewWorld(t, f, 2)
	h0, h1 := w.Host(0), w.Host(1)
	p := NewPort("under", bigVNI, "parent", 5, "all")
	r := NewSubport(p, 100, "red", bigVNI+1, "red-sub", 5, "all") // the parent's MAC and address
	s := NewSubport(p, 200, "blue", bigVNI+2, "blue-sub", 5, "all")
	u := NewSubport(p, 300, "red", bigVNI+1, "red-too", 7, "all")
	x, y, v := NewPort("red", bigVNI+1, "x", 6, "all"), NewPort("blue", bigVNI+2, "y", 6, "all"), NewPort("under", bigVNI, "v", 6, "all")
	for i, id := range []string{"under", "red", "blue"} {
		vni := bigVNI + uint32(i)
		h0.Apply(NewNetwork(id, vni, h1.TunnelIP()))
		h1.Apply(NewNetwork(id, vni, h0.TunnelIP()))
	}
	h0.Apply(AllowAll("all"), PeerOf(x, h1.TunnelIP()), PeerOf(y, h1.TunnelIP()), PeerOf(v, h1.TunnelIP()))
	h1.Apply(AllowAll("all"), PeerOf(p, h0.TunnelIP()), PeerOf(r, h0.TunnelIP()), PeerOf(s, h0.TunnelIP()), PeerOf(u, h0.TunnelIP()))
	empty := h0.Entries(t)
	h0.Apply(r, s) // before their trunk
	if h0.Driver().Installed("red-sub") {
		t.Error("a subport is installed without its parent")
	}
	gp := h0.Boot(p)
	h0.Apply(u)
	for _, id := range []string{"red-sub", "blue-sub", "red-too"} {
		h0.waitInstalled(id)
	}
	subs := gp.Trunk(r, s, u)
	gr, gs, gu := subs[0], subs[1], subs[2]
	gx, gy, gv := h1.Boot(x), h1.Boot(y), h1.Boot(v)
	all := []*Guest{gp, gr, gs, gu, gx, gy, gv}

	check := func() {
		t.Helper()
		for _, e := range [][2]*Guest{{gp, gv}, {gr, gx}, {gs, gy}, {gu, gx}, {gr, gu}} {
			a, b := e[0], e[1]
			if mac := a.Resolve(b.IP()); mac != b.MAC() {
				t.Fatalf("%s has MAC %v, want %v", b.Port.ID, mac, b.MAC())
			}
			b.wellTagged(a.Passes(b, a.UDP(b, 53)))
			a.wellTagged(b.Passes(a, b.UDP(a, 53)))
			full := b.UDP(a, 53)
			full.Payload = append(full.Payload, make([]byte, 1450-28-len(full.Payload))...)
			a.wellTagged(b.Passes(a, full))
		}
		// Each network's broadcast reaches its own ports, once, and never its sender.
		for _, c := range []struct {
			from *Guest
			to   []*Guest
		}{{gr, []*Guest{gu, gx}}, {gx, []*Guest{gr, gu}}, {gp, []*Guest{gv}}, {gs, []*Guest{gy}}, {gy, []*Guest{gs}}} {
			cast := c.from.UDP(c.to[0], 9)
			cast.EthDst, cast.Dst = pipeline.MAC{255, 255, 255, 255, 255, 255}, netip.MustParseAddr("10.0.255.255")
			is := func(q sim.Packet) bool { return bytes.Equal(q.Payload, cast.Payload) }
			c.from.Send(cast)
			for _, g := range c.to {
				g.wellTagged(g.Expect("broadcast of "+c.from.Port.ID, is))
			}
			c.from.Dropped(c.from.UDP(c.to[0], 9), is, all...)
		}
	}
	check()

	// Tags that no subport has, and sources that are another's, stop at the door.
	odd := gp.UDP(gv, 9)
	odd.VLAN = 0x1000 | 301
	gp.Dropped(odd, nil, gv, gx, gy, gu)
	spoof := gr.UDP(gx, 9)
	spoof.EthSrc, spoof.Src = gu.MAC(), gu.IP()
	gr.Dropped(spoof, nil, gx, gu)

	for _, g := range []*Guest{gr, gs, gp} {
		if reply := g.dhcp(t, dhcpv4.MessageTypeDiscover, gx); !reply.YourIPAddr.Equal(g.IP().AsSlice()) {
			t.Errorf("%s: got %v", g.Port.ID, reply)
		}
	}

	h0.RestartDriver(t)
	h0.Prune()
	for _, id := range []string{"parent", "red-sub", "blue-sub", "red-too"} {
		h0.waitInstalled(id)
	}
	check()

	// A subport goes alone; the trunk goes with all.
	h0.Remove(s.RowID())
	gs.Send(gs.UDP(gy, 9))
	gr.Passes(gx, gr.UDP(gx, 9))
	gp.Passes(gv, gp.UDP(gv, 9))
	gp.Lacks(tagged)
	h0.Remove(p.RowID())
	if h0.Driver().Installed("red-sub") {
		t.Error("a subport is installed, its parent is gone")
	}
	h0.Remove(r.RowID(), u.RowID())
	if after := h0.Entries(t); after != empty {
		t.Errorf("%d entries before, %d after all ports went", empty, after)
	}
}

// A transparent network carries guests' own tags; what is in tagged frames is checked as all else.
func testTransparent(t *testing.T, f Fabric) {
	for _, flat := range []bool{false, true} {
		t.Run(fmt.Sprintf("flat=%v", flat), func(t *testing.T) {
			w := NewWorld(t, f, 2)
			h0, h1 := w.Host(0), w.Host(1)
			pa, pb, pc, pd := NewPort("net", bigVNI, "a", 5, "all"), NewPort("net", bigVNI, "b", 6, "all"), NewPort("net", bigVNI, "c", 7, "all"), NewPort("net", bigVNI, "d", 8)
			pa.PortSecurity, pb.PortSecurity = false, false
			n0, n1 := NewNetwork("net", bigVNI, h1.TunnelIP()), NewNetwork("net", bigVNI, h0.TunnelIP())
			peer := func(p *model.HostPort, h *HostState) *model.HostPeer { return PeerOf(p, h.TunnelIP()) }
			if flat {
				n0 = NewFlat("net", bigVNI)
				n1 = n0
				peer = func(p *model.HostPort, _ *HostState) *model.HostPeer { return ProviderPeer(p, n0) }
			}
			n0.VLANTransparent, n1.VLANTransparent = true, true
			h0.Apply(n0, AllowAll("all"), peer(pb, h1))
			h1.Apply(n1, AllowAll("all"), peer(pa, h0), peer(pc, h0), peer(pd, h0))
			a, c, d, b := h0.Boot(pa), h0.Boot(pc), h0.Boot(pd), h1.Boot(pb)
			with := func(p sim.Packet, tag uint16) sim.Packet { p.VLAN = tag | 0x1000; return p }
			for _, e := range [][2]*Guest{{a, b}, {b, a}, {a, c}, {c, b}, {b, c}} {
				for _, tag := range []uint16{1, 100, 4094} {
					if q := e[0].Passes(e[1], with(e[0].UDP(e[1], 9), tag)); q.VLAN != tag|0x1000 {
						t.Errorf("tag %#x arrived as %#x", tag, q.VLAN)
					}
				}
				if q := e[0].Passes(e[1], e[0].UDP(e[1], 9)); q.VLAN != 0 {
					t.Errorf("an untagged frame arrived with tag %#x", q.VLAN)
				}
			}
			// A question with a tag is the guests' own affair: it goes to all, and the switch does not answer.
			ask := with(a.ARPRequest(b.IP()), 100)
			a.Send(ask)
			b.Expect("question with a tag", func(q sim.Packet) bool {
				return q.ARPOp == pipeline.ARPRequest && q.VLAN == 0x1064 && q.ARPTPA == b.IP()
			})
			a.flush()
			a.Lacks(func(q sim.Packet) bool { return q.ARPOp == pipeline.ARPReply && q.ARPSPA == b.IP() })
			// Port security and groups look behind the tag.
			spoof := with(c.UDP(b, 9), 100)
			spoof.Src = netip.MustParseAddr("192.168.0.7")
			c.Dropped(spoof, nil, b)
			a.Dropped(with(a.UDP(d, 9), 100), nil, d) // no rule lets it in
		})
	}
}
