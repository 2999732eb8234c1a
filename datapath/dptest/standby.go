package dptest

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"yakumo/datapath/pipeline"
	"yakumo/datapath/pipeline/sim"
	"yakumo/model"
)

// standbyCases are the tests of ports whose servers move.
var standbyCases = []testCase{{"Standby", testStandby}, {"SwitchOver", testSwitchOver}, {"SwitchOverConnections", testSwitchOverConnections},
	{"SwitchOverBack", testSwitchOverBack}, {"SwitchOverProvider", testSwitchOverProvider}, {"SwitchOverTrunk", testSwitchOverTrunk},
	{"SwitchOverFloating", testSwitchOverFloating}}

// move is a guest on its way from one host to another.
type move struct {
	from, to *Guest // its two ends
}

// StandBy puts a guest's port on another host too, in stand-by, with a device. The network and the groups of the port must be there.
func (h *HostState) StandBy(g *Guest) *Guest {
	h.w.t.Helper()
	p := *g.Port
	p.Standby = true
	h.Apply(PeerOf(&p, g.h.TunnelIP()))
	return h.Boot(&p)
}

// depart is what an agent applies when the guest has left: it stands by in its turn, and what comes for it goes on.
func (m move) depart() []model.HostRow {
	p := *m.from.Port
	p.Standby = true
	peer := PeerOf(&p, m.to.h.TunnelIP())
	peer.Moved = true
	return []model.HostRow{&p, peer}
}

// arrive is what an agent applies when the guest runs: a port as any other, and no peer.
func (m move) arrive() ([]model.HostRow, []model.RowID) {
	p := *m.to.Port
	p.Standby = false
	return []model.HostRow{&p}, []model.RowID{PeerOf(&p, m.to.h.TunnelIP()).RowID()}
}

// apply hands rows over without waiting for what the switch remembers.
func (h *HostState) apply(rows []model.HostRow, removes []model.RowID) {
	h.w.t.Helper()
	ctx, cancel := h.w.context()
	defer cancel()
	for _, r := range rows {
		h.rows[r.RowID()] = r
	}
	for _, id := range removes {
		delete(h.rows, id)
	}
	if err := h.Driver().Apply(ctx, rows, removes); err != nil {
		h.w.t.Errorf("apply: %v", err)
	}
}

// moving is a guest g on host 0 that is about to move to host 1, with a neighbour a and b there and c on host 2, all of one network.
func moving(w *World, group *model.HostGroup) (m move, a, b, c *Guest) {
	h := w.hosts
	port := func(id string, n int, group model.ID) *model.HostPort {
		return Dual(NewPort("net", bigVNI, id, n, group))
	}
	pg, pa, pb, pc := port("g", 5, group.ID), port("a", 6, "all"), port("b", 7, "all"), port("c", 8, "all")
	at := []*HostState{h[0], h[0], h[1], h[2]}
	for i, host := range h {
		var flood []netip.Addr
		for j, o := range h {
			if j != i {
				flood = append(flood, o.TunnelIP())
			}
		}
		rows := []model.HostRow{DualNetwork("net", bigVNI, model.SLAAC, flood...), AllowAll6("all"), group}
		for j, p := range []*model.HostPort{pg, pa, pb, pc} {
			if at[j] != host {
				rows = append(rows, PeerOf(p, at[j].TunnelIP()))
			}
		}
		host.Apply(rows...)
	}
	m.from = h[0].Boot(pg)
	a, b, c = h[0].Boot(pa), h[1].Boot(pb), h[2].Boot(pc)
	m.to = h[1].StandBy(m.from)
	return m, a, b, c
}

// testStandby: a port in stand-by gets nothing, but from those who know better; all it sends passes.
func testStandby(t *testing.T, f Fabric) {
	w := NewWorld(t, f, 3)
	m, a, b, c := moving(w, AllowAll6("all"))
	for _, g := range []*Guest{a, b, c} {
		if mac := g.Resolve(m.from.IP()); mac != m.from.MAC() {
			t.Fatalf("%s resolves to %v", g.Port.ID, mac)
		}
		g.Passes(m.from, g.UDP(m.from, 53))
		m.from.Passes(g, m.from.UDP(g, 53))
		cast := g.UDP(m.from, 9)
		cast.EthDst, cast.Dst = pipeline.MAC{255, 255, 255, 255, 255, 255}, netip.MustParseAddr("10.0.255.255")
		g.Passes(m.from, cast)
		if g.h != m.to.h {
			w.fence(g.h, m.to.h)
		}
		m.to.flush()
		m.to.Lacks(func(q sim.Packet) bool { return bytes.Equal(q.Payload, cast.Payload) })
	}
	m.to.Lacks(func(q sim.Packet) bool {
		return q.EthType == pipeline.TypeIPv4 && q.Proto == pipeline.ProtoUDP && q.DstPort == 53
	})
	// The guest runs there already, and nobody has told the switch: what it says passes, and who knows finds it.
	m.to.Passes(c, m.to.UDP(c, 53))
	m.to.Passes(b, m.to.UDP(b, 53))
	c.h.Apply(PeerOf(m.to.Port, m.to.h.TunnelIP()))
	c.Passes(m.to, c.UDP(m.to, 53))
	entries := m.to.h.Entries(t)
	m.to.h.RestartDriver(t)
	m.to.h.Prune()
	m.to.h.waitInstalled(m.to.Port.ID)
	if after := m.to.h.Entries(t); after != entries {
		t.Errorf("%d entries before the restart, %d after", entries, after)
	}
	b.Passes(m.from, b.UDP(m.from, 53))
}

// streamed counts what arrives of a stream.
type streamed struct {
	mu   sync.Mutex
	seen map[uint32]int
	last map[uint32]netip.Addr // where
}

func (s *streamed) take(g *Guest) {
	for {
		select {
		case frame := <-g.nic.Frames():
			p, err := sim.Parse(frame)
			if err != nil || p.Proto != pipeline.ProtoUDP || p.DstPort != streamPort || len(p.Payload) < 4 {
				continue
			}
			n := binary.BigEndian.Uint32(p.Payload)
			s.seen[n]++
			s.last[n] = g.h.TunnelIP()
		default:
			return
		}
	}
}

const streamPort = 7777

// testSwitchOver: of a stream of packets, one each millisecond, none is lost and none comes twice, in whatever
// order source, target and the sender's host learn of the move, and however late.
func testSwitchOver(t *testing.T, f Fabric) {
	const packets = 240
	for _, x := range []struct {
		name                    string
		depart, arrive, learned int // before which packet
	}{
		{"at once", 80, 80, 80},
		{"the server is late", 80, 82, 180},
		{"the target is late", 80, 160, 200},
		{"the sender is first", 120, 120, 100},
	} {
		t.Run(x.name, func(t *testing.T) {
			w := NewWorld(t, f, 3)
			m, _, b, c := moving(w, AllowAll6("all"))
			c.Passes(m.from, c.UDP(m.from, 53))
			b.Passes(m.from, b.UDP(m.from, 53))
			frames := make([][]byte, packets)
			for i := range frames {
				p := c.UDP(m.from, streamPort)
				if i%4 == 3 { // the target's own neighbour sends too
					p = b.UDP(m.from, streamPort)
				}
				p.Payload = binary.BigEndian.AppendUint32(nil, uint32(i))
				frames[i] = p.Frame()
			}
			up, down := m.arrive()
			var took [3]time.Duration // written before wg is done
			tick := time.NewTicker(time.Millisecond)
			defer tick.Stop()
			var wg sync.WaitGroup
			step := func(n, at, which int, f func()) {
				if n != at {
					return
				}
				wg.Add(1)
				go func() {
					defer wg.Done()
					begin := time.Now()
					f()
					took[which] = time.Since(begin)
				}()
			}
			for i, frame := range frames {
				if i == packets-2 { // the last ones know where to go
					wg.Wait()
					for _, h := range w.hosts {
						h.Settle(t)
					}
				}
				// Source and target are told one after the other, as one hypervisor after the other says so.
				step(i, x.depart, 0, func() { m.from.h.apply(m.depart(), nil) })
				step(i, x.arrive, 1, func() { m.to.h.apply(up, down) })
				step(i, x.learned, 2, func() { c.h.apply([]model.HostRow{PeerOf(m.to.Port, m.to.h.TunnelIP())}, nil) })
				if i%4 == 3 {
					b.nic.Send(t, frame)
				} else {
					c.nic.Send(t, frame)
				}
				<-tick.C
			}
			got := streamed{seen: map[uint32]int{}, last: map[uint32]netip.Addr{}}
			WaitFor(t, "the end of the stream", func() bool {
				got.take(m.from)
				got.take(m.to)
				return got.seen[packets-1] > 0 && got.seen[packets-2] > 0
			})
			lost, twice := 0, 0
			for i := range uint32(packets) {
				switch {
				case got.seen[i] == 0:
					lost++
				case got.seen[i] > 1:
					twice++
				}
			}
			t.Logf("lost %d, twice %d of %d; source told in %v, target in %v, sender in %v", lost, twice, packets, took[0], took[1], took[2])
			if target := m.to.h.TunnelIP(); lost+twice > 0 || got.last[packets-1] != target || got.last[packets-2] != target {
				t.Errorf("%d lost, %d twice; the last ones went to %v and %v, the guest is at %v", lost, twice, got.last[packets-2], got.last[packets-1], target)
			}
		})
	}
}

// testSwitchOverConnections: connections that were open before are open after, though the target's switch has
// never seen them begin: those that the rules let in at once, others with the guest's next packet.
func testSwitchOverConnections(t *testing.T, f Fabric) {
	w := NewWorld(t, f, 3)
	web := ptr(80)
	m, _, _, c := moving(w, &model.HostGroup{ID: "web", Stateful: true, Rules: []model.HostRule{
		{ID: "web-out", Direction: model.Egress, EtherType: model.IPv4},
		{ID: "web-in", Direction: model.Ingress, EtherType: model.IPv4, Protocol: "tcp", PortMin: web, PortMax: web}}})
	open := func(client, server *Guest, port uint16) (send, answer func(client, server *Guest, flags uint8) sim.Packet) {
		seq, ack := uint32(1000), uint32(500000)
		segment := func(from, to *Guest, src, dst uint16, mine, theirs *uint32, flags uint8) sim.Packet {
			p := from.TCP(to, src, dst, flags)
			p.Seq, p.Ack = *mine, *theirs
			if flags&sim.ACK == 0 {
				p.Ack = 0
			}
			if flags&sim.SYN != 0 {
				p.Payload = nil
				*mine++
			}
			*mine += uint32(len(p.Payload))
			return p
		}
		send = func(client, server *Guest, flags uint8) sim.Packet {
			return segment(client, server, 33000, port, &seq, &ack, flags)
		}
		answer = func(client, server *Guest, flags uint8) sim.Packet {
			return segment(server, client, port, 33000, &ack, &seq, flags)
		}
		passes := func(from, to *Guest, p sim.Packet) {
			from.Send(p)
			to.Expect("segment "+p.Summary(), func(q sim.Packet) bool { return q.Proto == pipeline.ProtoTCP && q.Seq == p.Seq && q.Flags == p.Flags })
		}
		passes(client, server, send(client, server, sim.SYN))
		passes(server, client, answer(client, server, sim.SYN|sim.ACK))
		for range 2 {
			passes(client, server, send(client, server, sim.ACK))
			passes(server, client, answer(client, server, sim.ACK))
		}
		return send, answer
	}
	inSend, inAnswer := open(c, m.from, 80)
	outSend, outAnswer := open(m.from, c, 4433)

	m.from.h.Apply(m.depart()...)
	up, down := m.arrive()
	m.to.h.apply(up, down)
	m.to.h.Settle(t)
	for _, late := range []bool{true, false} { // before the sender's host knows, and after
		if !late {
			c.h.Apply(PeerOf(m.to.Port, m.to.h.TunnelIP()))
		} else {
			// Nobody has let this one in; the guest has not said yet that it is its own.
			c.Dropped(outAnswer(m.to, c, sim.ACK), nil, m.to, m.from)
		}
		for range 3 {
			c.Passes(m.to, inSend(c, m.to, sim.ACK))
			m.to.Passes(c, inAnswer(c, m.to, sim.ACK))
			m.to.Passes(c, outSend(m.to, c, sim.ACK))
			c.Passes(m.to, outAnswer(m.to, c, sim.ACK))
		}
		// The rules are what they were: a stranger does not get in with the middle of a connection.
		c.Dropped(c.TCP(m.to, 44000, 22, sim.ACK), nil, m.to, m.from)
	}
}

// testSwitchOverBack: a guest that turns back at the last moment, and one that moves to and fro, have their
// connections and lose no entry, and nothing goes in circles between the hosts.
func testSwitchOverBack(t *testing.T, f Fabric) {
	w := NewWorld(t, f, 3)
	m, a, b, c := moving(w, AllowAll6("all"))
	h0, h1 := m.from.h, m.to.h
	c.Passes(m.from, c.UDP(m.from, 53))
	before := [2]int{h0.Entries(t), h1.Entries(t)}
	check := func(at, other *Guest) {
		t.Helper()
		for _, g := range []*Guest{a, b, c} {
			g.Passes(at, g.UDP(at, 53))
			at.Passes(g, at.UDP(g, 53))
			if mac := g.Resolve6(at.IP6()); mac != at.MAC() {
				t.Fatalf("%s resolves to %v", g.Port.ID, mac)
			}
			g.Passes(at, g.UDP6(at, 53))
			at.Passes(g, at.UDP6(g, 53))
		}
		other.flush()
		other.Lacks(func(q sim.Packet) bool { return q.DstPort == 53 })
	}
	here := *m.from.Port
	for range 2 {
		h0.Apply(m.depart()...)
		h0.apply([]model.HostRow{&here}, []model.RowID{{Kind: model.RowPeer, Key: here.ID}})
		h0.Settle(t)
		check(m.from, m.to)
	}
	if after := [2]int{h0.Entries(t), h1.Entries(t)}; after != before {
		t.Errorf("entries before %v, after %v", before, after)
	}
	back := move{from: m.to, to: m.from}
	for _, h := range []*HostState{h0, h1} {
		if n := h.Driver().Counters().Conflicts; n > 0 {
			t.Errorf("%d entries that two rows want otherwise", n)
		}
	}
	for i := range 4 {
		now := []move{m, back}[i%2]
		now.from.h.Apply(now.depart()...)
		up, down := now.arrive()
		now.to.h.apply(up, down)
		now.to.h.Settle(t)
		check(now.to, now.from) // the third host has heard of nothing yet
		c.h.Apply(PeerOf(now.to.Port, now.to.h.TunnelIP()))
		// The server's rows: the one host's port is the other's peer, and it stands by for the next move.
		now.from.h.Apply(PeerOf(now.to.Port, now.to.h.TunnelIP()))
		check(now.to, now.from)
	}
	if after := [2]int{h0.Entries(t), h1.Entries(t)}; after != before {
		t.Errorf("entries before %v, after moving to and fro %v", before, after)
	}
	// A guest that has come is asked at once what it listens to, and hears it from then on.
	now := m
	now.from.h.Apply(now.depart()...)
	now.to.seen = nil
	up, down := now.arrive()
	h1.apply(up, down)
	now.to.Expect("question for groups", func(q sim.Packet) bool {
		return q.EthType == pipeline.TypeIPv4 && q.Proto == pipeline.ProtoIGMP && q.Payload[0] == 0x11
	})
	group := netip.MustParseAddr("239.1.2.3")
	now.to.Send(now.to.igmp(0x16, group))
	WaitFor(t, "the guest to hear its group", func() bool {
		p := c.to(group, c.UDP(now.to, 5000))
		c.Send(p)
		w.fence(c.h, h1)
		now.to.flush()
		return slices.ContainsFunc(now.to.seen, func(q sim.Packet) bool { return bytes.Equal(q.Payload, p.Payload) })
	})
	h0.apply([]model.HostRow{&here}, []model.RowID{{Kind: model.RowPeer, Key: here.ID}})
	h0.Settle(t)
	h1.Remove(here.RowID())
	h1.Apply(PeerOf(&here, h0.TunnelIP()))
	for _, g := range []*Guest{a, b, c} {
		g.Passes(m.from, g.UDP(m.from, 53))
	}
}

// testSwitchOverProvider: on a physical network the wire is told at once where the guest is.
func testSwitchOverProvider(t *testing.T, f Fabric) {
	for _, net := range []*model.HostNetwork{NewFlat("net", bigVNI), NewVLAN("net", bigVNI, 100)} {
		t.Run(net.Type, func(t *testing.T) {
			w := NewWorld(t, f, 2)
			h0, h1 := w.Host(0), w.Host(1)
			p := NewPort("net", bigVNI, "g", 5, "all")
			h0.Apply(net, AllowAll("all"))
			h1.Apply(net, AllowAll("all"), ProviderPeer(p, net))
			from := h0.Boot(p)
			o := h0.Outside("outside", 200, net.VLAN)
			o.Passes(from, o.UDP(from, 53))
			from.Passes(o, from.UDP(o, 53))
			standby := *p
			standby.Standby = true
			to := h1.Boot(&standby)
			o.Passes(from, o.UDP(from, 53))
			gone := *ProviderPeer(p, net)
			gone.Moved = true
			h0.Apply(&standby, &gone)
			h1.apply([]model.HostRow{p}, []model.RowID{gone.RowID()})
			h1.Settle(t)
			rarp := func(q sim.Packet) bool { return q.EthType == pipeline.TypeRARP && q.EthSrc == to.MAC() }
			o.wellTagged(o.Expect("RARP of the guest that came", rarp))
			o.wellTagged(o.Expect("ARP of the guest that came", func(q sim.Packet) bool {
				return q.EthType == pipeline.TypeARP && q.ARPSPA == to.IP() && q.ARPTPA == to.IP() && q.ARPSHA == to.MAC()
			}))
			o.Passes(to, o.UDP(to, 53))
			to.Passes(o, to.UDP(o, 53))
			// What the hypervisor says for the guest goes out too; for another's MAC it does not.
			own := sim.Packet{EthSrc: to.MAC(), EthDst: pipeline.MAC{255, 255, 255, 255, 255, 255}, EthType: pipeline.TypeRARP, Payload: append(w.Token(), make([]byte, 40)...)}
			to.Send(own)
			o.Expect("the guest's own RARP", func(q sim.Packet) bool { return rarp(q) && bytes.Equal(q.Payload, own.Payload) })
			forged := own
			forged.EthSrc, forged.Payload = pipeline.MAC{0xfa, 0x16, 0x3e, 9, 9, 9}, append(w.Token(), make([]byte, 40)...)
			to.Send(forged)
			to.Passes(o, to.UDP(o, 53))
			o.Lacks(func(q sim.Packet) bool { return bytes.Equal(q.Payload, forged.Payload) })
			from.flush()
			from.Lacks(func(q sim.Packet) bool { return q.EthType == pipeline.TypeIPv4 && q.DstPort == 53 })
		})
	}
}

// testSwitchOverTrunk: the subports of a trunk go with its parent.
func testSwitchOverTrunk(t *testing.T, f Fabric) {
	w := NewWorld(t, f, 3)
	h := w.hosts
	parent := NewPort("n0", bigVNI, "parent", 5, "all")
	sub := NewSubport(parent, 100, "n1", bigVNI+1, "sub", 5, "all")
	x0, x1 := NewPort("n0", bigVNI, "x0", 6, "all"), NewPort("n1", bigVNI+1, "x1", 6, "all")
	for i, host := range h {
		var flood []netip.Addr
		for j, o := range h {
			if j != i {
				flood = append(flood, o.TunnelIP())
			}
		}
		host.Apply(AllowAll("all"))
		for n := range 2 {
			host.Apply(NewNetwork(fmt.Sprintf("n%d", n), bigVNI+uint32(n), flood...))
		}
		if i != 2 {
			host.Apply(PeerOf(x0, h[2].TunnelIP()), PeerOf(x1, h[2].TunnelIP()))
		}
	}
	h[2].Apply(PeerOf(parent, h[0].TunnelIP()), PeerOf(sub, h[0].TunnelIP()))
	boot := func(host *HostState, standby bool) (p, s *Guest) {
		a, b := *parent, *sub
		a.Standby, b.Standby = standby, standby
		host.Apply(&b)
		p = host.Boot(&a)
		host.waitInstalled("sub")
		return p, p.Trunk(&b)[0]
	}
	fromP, fromS := boot(h[0], false)
	g0, g1 := h[2].Boot(x0), h[2].Boot(x1)
	h[1].Apply(PeerOf(parent, h[0].TunnelIP()), PeerOf(sub, h[0].TunnelIP()))
	toP, toS := boot(h[1], true)
	moves := []move{{fromP, toP}, {fromS, toS}}
	g0.Passes(fromP, g0.UDP(fromP, 53))
	g1.Passes(fromS, g1.UDP(fromS, 53))
	var leave, come []model.HostRow
	var drop []model.RowID
	for _, m := range moves {
		leave = append(leave, m.depart()...)
		up, down := m.arrive()
		come, drop = append(come, up...), append(drop, down...)
	}
	h[0].Apply(leave...)
	h[1].apply(come, drop)
	h[1].Settle(t)
	for _, learned := range []bool{false, true} {
		if learned {
			h[2].Apply(PeerOf(parent, h[1].TunnelIP()), PeerOf(sub, h[1].TunnelIP()))
		}
		toP.wellTagged(g0.Passes(toP, g0.UDP(toP, 53)))
		toS.wellTagged(g1.Passes(toS, g1.UDP(toS, 53)))
		toP.Passes(g0, toP.UDP(g0, 53))
		toS.Passes(g1, toS.UDP(g1, 53))
	}
}

// testSwitchOverFloating: a floating address goes with its guest. Until the outside knows, the host that it left
// translates on; both say never at once that they have it.
func testSwitchOverFloating(t *testing.T, f Fabric) {
	s := newSite(t, f, 0)
	tn := s.tenant("red", 7001, 10)
	h0, h1 := s.w.Host(0), s.w.Host(1)
	here := s.floating("f", tn.router, 20, tn.a.IP())
	here.PortID = tn.a.Port.ID
	aside := *here
	aside.Standby = true
	h0.Apply(here)
	p := s.to(here.MAC, here.Address, 5000, 80)
	s.in(tn.a, p, tn.a.IP())

	m := move{tn.a, h1.StandBy(tn.a)}
	h1.Apply(&aside)
	p.Payload = s.w.Token()
	s.in(tn.a, p, tn.a.IP())
	s.o.seen = nil
	asks := func() int { // how many say that they have it
		t.Helper()
		s.o.Send(s.o.ARPRequest(here.Address))
		reply := func(q sim.Packet) bool { // no announcement to all, which may be one too
			return q.ARPOp == pipeline.ARPReply && q.ARPSPA == here.Address && q.EthDst == s.o.MAC()
		}
		s.o.Expect("ARP reply for the floating address", reply)
		s.w.fence(h0, h1)
		s.pings(s.ext.routerPort("red", 10).MAC, s.ext.at(10))
		n := 1
		for _, q := range s.o.seen {
			if reply(q) {
				n++
			}
		}
		return n
	}
	if n := asks(); n != 1 {
		t.Errorf("%d hosts have the address", n)
	}

	h0.Apply(append(m.depart(), &aside)...)
	s.arrives(m.to, p) // nobody has told the outside
	up, down := m.arrive()
	s.o.seen = nil
	h1.apply(append(up, here), down)
	h1.Settle(t)
	s.o.Expect("announcement of the floating address", func(q sim.Packet) bool {
		return q.EthType == pipeline.TypeARP && q.ARPSPA == here.Address && q.ARPTPA == here.Address && q.EthSrc == parseMAC(t, here.MAC)
	})
	s.arrives(m.to, p)
	s.out(m.to, m.to.via(tn.port, s.o.IP(), 99), here.Address, here.MAC)
	h0.Remove(here.RowID(), tn.a.Port.RowID())
	h0.Apply(PeerOf(m.to.Port, h1.TunnelIP()))
	s.arrives(m.to, s.to(here.MAC, here.Address, 5001, 80))
	s.o.seen = nil
	if n := asks(); n != 1 {
		t.Errorf("%d hosts have the address at the end", n)
	}
}
