package dptest

import (
	"bytes"
	"net/netip"
	"testing"

	"yakumo/datapath/pipeline"
	"yakumo/datapath/pipeline/sim"
	"yakumo/model"
)

func payload(p sim.Packet) func(sim.Packet) bool {
	return func(q sim.Packet) bool { return bytes.Equal(q.Payload, p.Payload) }
}

// Copies reach their sinks here and on another host, once each, whatever rules the sink has, and nothing else does.
func testMirror(t *testing.T, f Fabric) {
	w := NewWorld(t, f, 2)
	h0, h1 := w.Host(0), w.Host(1)
	a, b := acrossTwo(w, bigVNI, "net")
	c := h0.Boot(NewPort("net", bigVNI, "c", 7, "all"))
	ps, pr := NewPort("tap", bigVNI+1, "sink", 9), NewPort("tap", bigVNI+1, "far-sink", 10) // without groups: nothing may come in
	h0.Apply(NewNetwork("tap", bigVNI+1))
	h1.Apply(NewNetwork("tap", bigVNI+1))
	h1.Apply(PeerOf(c.Port, h0.TunnelIP()))
	s, r := h0.Boot(ps), h1.Boot(pr)
	before0, before1 := h0.Entries(t), h1.Entries(t)

	// One flow of each direction to the sink here, and one of both to the sink there.
	out := &model.HostMirror{ID: "out", Source: "net-a", Sink: "sink", Out: true, VNI: bigVNI + 10}
	in := &model.HostMirror{ID: "in", Source: "net-a", Sink: "sink", In: true, VNI: bigVNI + 11}
	both := &model.HostMirror{ID: "both", Source: "net-a", Sink: "far-sink", Out: true, In: true, VNI: bigVNI + 12, TunnelIP: h1.TunnelIP()}
	there := *both
	there.TunnelIP = netip.Addr{}
	h0.Apply(out, in, both)
	h1.Apply(&there)

	once := func(p sim.Packet, sinks ...*Guest) {
		t.Helper()
		for _, g := range sinks {
			q := g.Expect("a copy of "+p.Summary(), payload(p))
			if q.EthSrc != p.EthSrc || q.EthDst != p.EthDst || q.Src != p.Src || q.VLAN != 0 {
				t.Errorf("%s got another frame: %s", g.Port.ID, q.Summary())
			}
		}
	}
	quiet := func(ps ...sim.Packet) { // no copy is left over anywhere
		t.Helper()
		w.fence(h0, h1)
		w.fence(h1, h0)
		for _, g := range []*Guest{a, b, c, s, r} {
			g.flush()
			for _, p := range ps {
				g.Lacks(payload(p))
			}
		}
	}
	for range 2 {
		p := a.UDP(b, 9) // leaves the host
		a.Passes(b, p)
		once(p, s, r)
		q := a.UDP(c, 9) // stays
		a.Passes(c, q)
		once(q, s, r)
		x := b.UDP(a, 9) // comes by a tunnel, and its copy goes by a tunnel
		b.Passes(a, x)
		once(x, s, r)
		y := c.UDP(a, 9)
		c.Passes(a, y)
		once(y, s, r)
		cast := a.UDP(b, 9)
		cast.EthDst, cast.Dst = pipeline.MAC{255, 255, 255, 255, 255, 255}, netip.MustParseAddr("10.0.255.255")
		a.Passes(b, cast)
		c.Expect("broadcast", payload(cast))
		once(cast, s, r)
		z := b.UDP(c, 9) // none of the source's affairs
		b.Passes(c, z)
		quiet(p, q, x, y, z, cast)
	}
	// A forgery is not sent, and so not copied; what the source's rules stop is what it sends.
	forged := a.UDP(b, 9)
	forged.Src = c.IP()
	a.Dropped(forged, nil, b, c, s, r)
	h0.Apply(&model.HostGroup{ID: "all", Stateful: true})
	stopped := a.UDP(b, 9)
	a.Send(stopped)
	once(stopped, s, r)
	quiet(stopped)
	h0.Apply(AllowAll("all"))

	// The sink is a source too: its copies are not copied.
	loop := &model.HostMirror{ID: "loop", Source: "sink", Sink: "net-a", Out: true, In: true, VNI: bigVNI + 13}
	h0.Apply(loop)
	p := a.UDP(c, 9)
	a.Passes(c, p)
	once(p, s, r)
	quiet(p)

	h0.Remove(loop.RowID(), out.RowID())
	p, q := a.UDP(b, 9), b.UDP(a, 9)
	a.Passes(b, p)
	b.Passes(a, q)
	once(p, r)
	once(q, s, r)
	quiet(p, q)
	h0.Remove(in.RowID(), both.RowID())
	h1.Remove(there.RowID())
	p, q = a.UDP(b, 9), b.UDP(a, 9)
	a.Passes(b, p)
	b.Passes(a, q)
	quiet(p, q)
	if n0, n1 := h0.Entries(t), h1.Entries(t); n0 != before0 || n1 != before1 {
		t.Errorf("%d and %d entries before, %d and %d after", before0, before1, n0, n1)
	}
}
