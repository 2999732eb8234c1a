package neighbor

import (
	"net/netip"
	"testing"
	"time"

	"pgregory.net/rapid"

	"yakumo/datapath/pipeline"
	"yakumo/datapath/pipeline/sim"
	"yakumo/datapath/responder"
	"yakumo/model"
)

const vni = 9000

var (
	start  = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	ours   = pipeline.Outer{NetworkID: "e", VNI: vni, Address: netip.MustParseAddr("203.0.113.10"), MAC: pipeline.MAC{2, 0, 0, 0, 0, 10}}
	ours6  = pipeline.Outer{NetworkID: "e", VNI: vni, Address: netip.MustParseAddr("2001:db8::10"), MAC: pipeline.MAC{2, 0, 0, 0, 0, 10}}
	theirs = pipeline.MAC{2, 0, 0, 0, 0, 1}
	router = &model.HostRouter{ID: "r", AdminStateUp: true, Gateway: &model.HostGateway{NetworkID: "e", VNI: vni, Active: true, MAC: ours.MAC.String(),
		Addresses: []netip.Prefix{netip.MustParsePrefix("203.0.113.10/24"), netip.MustParsePrefix("2001:db8::10/64")},
		Subnets:   []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24"), netip.MustParsePrefix("2001:db8::/64")},
		NextHops:  []netip.Addr{netip.MustParseAddr("203.0.113.1"), netip.MustParseAddr("2001:db8::1")}}}
	hop, hop6 = router.Gateway.NextHops[0], router.Gateway.NextHops[1]
)

// ask is a packet of the router to dst whose next hop is not known.
func ask(dst netip.Addr, n int) responder.Ask {
	p := sim.Packet{EthSrc: ours.MAC, EthType: pipeline.TypeIPv4, Src: ours.Address, Dst: dst, Proto: pipeline.ProtoUDP, SrcPort: uint16(n), DstPort: 53}
	if dst.Is6() {
		p.EthType, p.Src = pipeline.TypeIPv6, ours6.Address
	}
	return responder.Ask{ToAgent: pipeline.ToAgent{Responder: pipeline.ResponderResolve, Port: 7, Arg: vni}, Router: router, Frame: p.Frame()}
}

// tells is what a neighbour says of an address.
func tells(a netip.Addr, mac pipeline.MAC) responder.Ask {
	p := sim.Packet{EthSrc: mac, EthDst: ours.MAC, EthType: pipeline.TypeARP, ARPOp: pipeline.ARPReply, ARPSHA: mac, ARPSPA: a, ARPTHA: ours.MAC, ARPTPA: ours.Address}
	frame := []byte(nil)
	if a.Is6() {
		frame = discovery(pipeline.TypeAdvert, 0x60, ours.MAC, mac, a, ours6.Address, a, 2)
	} else {
		frame = p.Frame()
	}
	return responder.Ask{ToAgent: pipeline.ToAgent{Responder: pipeline.ResponderLearn, Port: pipeline.PortNobody, Arg: vni}, Frame: frame}
}

func settled() *Table {
	tb := New()
	tb.Own(start, []pipeline.Outer{ours, ours6})
	for n := range Claims {
		tb.Tick(start.Add(time.Duration(n+1) * Retry))
	}
	return tb
}

func parse(t interface{ Fatalf(string, ...any) }, r responder.Reply) sim.Packet {
	p, err := sim.Parse(r.Frame)
	if err != nil {
		t.Fatalf("%v", err)
	}
	if same := p.Frame(); string(same) != string(r.Frame) {
		t.Fatalf("frame % x has wrong sums: % x", r.Frame, same)
	}
	return p
}

func TestLearns(t *testing.T) {
	for _, c := range []struct{ dst, hop netip.Addr }{
		{netip.MustParseAddr("198.51.100.7"), hop}, {netip.MustParseAddr("203.0.113.77"), netip.MustParseAddr("203.0.113.77")},
		{netip.MustParseAddr("2001:db8:9::7"), hop6}, {netip.MustParseAddr("2001:db8::77"), netip.MustParseAddr("2001:db8::77")},
	} {
		tb := settled()
		now := start.Add(time.Minute)
		o := tb.Packet(now, ask(c.dst, 1))
		if len(o.Send) != 1 || len(o.Learn)+len(o.Forget) != 0 {
			t.Fatalf("%v: %+v", c.dst, o)
		}
		q := parse(t, o.Send[0])
		if q.ARPTPA != c.hop && q.NDTarget != c.hop || q.EthSrc != ours.MAC || q.EthDst[0]&1 == 0 {
			t.Fatalf("asks %s for %v", q.Summary(), c.hop)
		}
		// More packets wait, so many and no more, and nobody is asked twice at once.
		for n := range 9 {
			if o := tb.Packet(now, ask(c.dst, 2+n)); !o.Empty() {
				t.Fatalf("%+v", o)
			}
		}
		o = tb.Packet(now, tells(c.hop, theirs))
		if len(o.Learn) != 1 || len(o.Send) != MaxWaiting {
			t.Fatalf("%d learnt, %d sent", len(o.Learn), len(o.Send))
		}
		if got := o.Learn[0].(*model.HostNeighbor); got.MAC != theirs.String() || got.Address != c.hop || got.VNI != vni || got.NetworkID != "e" {
			t.Errorf("learnt %+v", got)
		}
		for n, r := range o.Send {
			if p := parse(t, r); p.SrcPort != uint16(1+n) || r.Stage != pipeline.Resolve {
				t.Errorf("sent %s at %v", p.Summary(), r.Stage)
			}
		}
		// It is asked again in time, itself, and a new MAC is taken over.
		o = tb.Tick(now.Add(Refresh))
		if len(o.Send) != 1 || parse(t, o.Send[0]).EthDst != theirs {
			t.Fatalf("%+v", o)
		}
		other := pipeline.MAC{2, 0, 0, 0, 0, 9}
		if o = tb.Packet(now.Add(Refresh), tells(c.hop, other)); len(o.Learn) != 1 || o.Learn[0].(*model.HostNeighbor).MAC != other.String() {
			t.Fatalf("%+v", o)
		}
	}
}

func TestGivesUp(t *testing.T) {
	tb := settled()
	now := start.Add(time.Minute)
	tb.Packet(now, ask(hop, 1))
	asked := 1
	var o Outcome
	for n := 1; n <= Attempts; n++ {
		o = tb.Tick(now.Add(time.Duration(n) * Retry))
		if n < Attempts {
			asked += len(o.Send)
		}
	}
	if asked != Attempts {
		t.Errorf("asked %d times, want %d", asked, Attempts)
	}
	// Who waits is told, as if from outside.
	if len(o.Send) != 1 || o.Send[0].Stage != pipeline.Restore {
		t.Fatalf("%+v", o)
	}
	if p := parse(t, o.Send[0]); p.ICMPType != 3 || p.ICMPCode != 1 || p.Dst != ours.Address {
		t.Errorf("told %s", p.Summary())
	}
	now = now.Add(Attempts * Retry)
	if o := tb.Packet(now.Add(Silence/2), ask(hop, 2)); !o.Empty() {
		t.Errorf("asks again at once: %+v", o)
	}
	tb.Tick(now.Add(Silence))
	if o := tb.Packet(now.Add(Silence), ask(hop, 2)); len(o.Send) != 1 {
		t.Errorf("does not ask again: %+v", o)
	}
	// One that was known and is silent is forgotten.
	tb.Packet(now.Add(Silence), tells(hop, theirs))
	forgot := 0
	for at := now.Add(Silence); at.Before(now.Add(Silence + Refresh + 2*Attempts*Retry)); at = at.Add(Retry) {
		forgot += len(tb.Tick(at).Forget)
	}
	if forgot != 1 {
		t.Errorf("forgot %d, want 1", forgot)
	}
}

func TestClaims(t *testing.T) {
	tb := New()
	now := start
	o := tb.Own(now, []pipeline.Outer{ours, ours6})
	for n := range Claims {
		if len(o.Send) != 2 {
			t.Fatalf("round %d: %+v", n, o)
		}
		p, q := parse(t, o.Send[0]), parse(t, o.Send[1])
		if p.ARPSPA != ours.Address || p.ARPTPA != ours.Address || p.ARPSHA != ours.MAC || p.EthDst != everybody || (p.ARPOp == pipeline.ARPRequest) != (n%2 == 0) {
			t.Errorf("announces %s", p.Summary())
		}
		if q.ICMPType != pipeline.TypeAdvert || q.NDTarget != ours6.Address || q.NDMAC != ours6.MAC || q.NDFlags&0x40 != 0 {
			t.Errorf("announces %s flags %x", q.Summary(), q.NDFlags)
		}
		if wait := tb.Wait(now); wait != min(pauses[n], Retry/4) && n < Claims-1 {
			t.Errorf("round %d: waits for %s", n, wait)
		}
		now = now.Add(pauses[n])
		o = tb.Tick(now)
	}
	if !o.Empty() {
		t.Errorf("goes on: %+v", o)
	}
	if o := tb.Own(start.Add(time.Minute), []pipeline.Outer{ours}); !o.Empty() {
		t.Errorf("announces what it had: %+v", o)
	}
	// What comes here is no neighbour any more; without an address in a network nobody there is known.
	moved := pipeline.Outer{NetworkID: "e", VNI: vni, Address: netip.MustParseAddr("203.0.113.20"), MAC: pipeline.MAC{2, 0, 0, 0, 0, 20}}
	tb.Packet(start.Add(time.Minute), ask(moved.Address, 1))
	tb.Packet(start.Add(time.Minute), tells(moved.Address, moved.MAC))
	if o := tb.Own(start.Add(time.Minute), []pipeline.Outer{ours, moved}); len(o.Forget) != 1 || len(o.Send) != 1 {
		t.Errorf("%+v", o)
	}
	tb.Packet(start.Add(time.Minute), ask(hop, 1))
	tb.Packet(start.Add(time.Minute), tells(hop, theirs))
	if o := tb.Own(start.Add(time.Minute), nil); len(o.Forget) != 1 || !tb.Idle() {
		t.Errorf("%+v, %d left", o, tb.Len())
	}
}

// Whatever comes, the table is bounded, asks at most so often, and what it has said to learn and to
// forget is what it knows.
func TestBounds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		tb := settled()
		known := map[model.RowID]string{}
		now := start.Add(time.Minute)
		questions := map[netip.Addr]time.Time{}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.IntRange(0, 2000).Draw(t, "ms")) * time.Millisecond)
			a := netip.AddrFrom4([4]byte{203, 0, 113, byte(rapid.IntRange(1, 4).Draw(t, "address"))})
			var o Outcome
			switch rapid.IntRange(0, 3).Draw(t, "what") {
			case 0:
				o = tb.Packet(now, ask(a, 1))
			case 1:
				o = tb.Packet(now, tells(a, pipeline.MAC{2, 0, 0, 0, 1, byte(rapid.IntRange(1, 2).Draw(t, "mac"))}))
			case 2:
				o = tb.Tick(now)
			case 3:
				own := []pipeline.Outer{ours}
				if rapid.Bool().Draw(t, "moved") {
					own = append(own, pipeline.Outer{NetworkID: "e", VNI: vni, Address: a, MAC: theirs})
				}
				o = tb.Own(now, own)
			}
			for _, id := range o.Forget {
				if _, is := known[id]; !is {
					t.Fatalf("forgets %v, which it has not learnt", id)
				}
				delete(known, id)
			}
			for _, r := range o.Learn {
				n := r.(*model.HostNeighbor)
				if known[n.RowID()] == n.MAC {
					t.Fatalf("learns %v twice", n)
				}
				known[n.RowID()] = n.MAC
			}
			for _, r := range o.Send {
				p := parse(t, r)
				if p.ARPOp == pipeline.ARPRequest && p.ARPSPA != p.ARPTPA {
					if last, is := questions[p.ARPTPA]; is && now.Sub(last) < Retry && known[model.RowID{Kind: model.RowNeighbor, Key: "e," + p.ARPTPA.String()}] == "" && tb.entries[key{vni, p.ARPTPA}].asked > 1 {
						t.Fatalf("asks for %v after %v", p.ARPTPA, now.Sub(last))
					}
					questions[p.ARPTPA] = now
				}
			}
			if len(known) > tb.Len() {
				t.Fatalf("%d learnt, %d known", len(known), tb.Len())
			}
		}
	})
}

func TestFull(t *testing.T) {
	tb := settled()
	now := start.Add(time.Minute)
	wide := *router
	gw := *router.Gateway
	gw.Subnets = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	wide.Gateway = &gw
	sent := 0
	for n := range MaxKnown + 100 {
		a := ask(netip.AddrFrom4([4]byte{10, 1, byte(n >> 8), byte(n)}), 1)
		a.Router = &wide
		o := tb.Packet(now, a)
		sent += len(o.Send)
	}
	if tb.Len() != MaxKnown || sent != MaxKnown {
		t.Errorf("%d entries, %d questions; want %d", tb.Len(), sent, MaxKnown)
	}
}

func FuzzSaid(f *testing.F) {
	f.Add(tells(hop, theirs).Frame)
	f.Add(tells(hop6, theirs).Frame)
	f.Add(announcement(ours, true))
	f.Fuzz(func(t *testing.T, b []byte) {
		addr, mac, ok := responder.Said(b)
		if ok && (!addr.IsValid() || addr.IsMulticast() || mac[0]&1 == 1) {
			t.Fatalf("takes %v at %v", addr, mac)
		}
		tb := settled()
		tb.Packet(start, responder.Ask{ToAgent: pipeline.ToAgent{Responder: pipeline.ResponderLearn, Arg: vni}, Frame: b})
		tb.Packet(start, responder.Ask{ToAgent: pipeline.ToAgent{Responder: pipeline.ResponderResolve, Arg: vni}, Router: router, Frame: b})
		if tb.Len() > 1 {
			t.Fatalf("%d entries of one packet", tb.Len())
		}
	})
}
