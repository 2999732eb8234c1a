package dptest

import (
	"net/netip"
	"testing"

	"yakumo/datapath/pipeline"
	"yakumo/datapath/pipeline/sim"
	"yakumo/model"
)

// What a guest sends gets the mark of its policy, on IPv4 and IPv6, here and across hosts; nothing else changes.
func testDSCP(t *testing.T, f Fabric) {
	w := NewWorld(t, f, 2)
	a, b := acrossTwo(w, bigVNI, "net")
	c := w.Host(0).Boot(NewPort("net", bigVNI, "c", 7, "all"))
	open := func(g *Guest, q model.HostQoS) {
		p := *g.Port
		p.PortSecurity, p.QoS = false, q
		g.Port = &p
		g.h.Apply(&p)
	}
	open(b, model.HostQoS{})
	open(c, model.HostQoS{})
	six := func(p sim.Packet) sim.Packet {
		p.EthType, p.Src, p.Dst = pipeline.TypeIPv6, netip.MustParseAddr("fd00::5"), netip.MustParseAddr("fd00::6")
		return p
	}
	for _, mark := range []*int{ptr(46), ptr(63), ptr(0), nil} {
		open(a, model.HostQoS{DSCP: mark, EgressKbps: 100_000, IngressKbps: 100_000, EgressPps: 10_000, IngressPps: 10_000})
		sent := uint8(10)
		want := sent
		if mark != nil {
			want = uint8(*mark)
		}
		for _, to := range []*Guest{b, c} {
			for _, p := range []sim.Packet{a.UDP(to, 9), six(a.UDP(to, 9))} {
				p.DSCP = sent
				if q := a.Passes(to, p); q.DSCP != want {
					t.Errorf("%s got DSCP %d, want %d: %s", to.Port.ID, q.DSCP, want, q.Summary())
				}
			}
			back := to.UDP(a, 9)
			back.DSCP = sent
			if q := to.Passes(a, back); q.DSCP != sent {
				t.Errorf("a got DSCP %d, want %d", q.DSCP, sent)
			}
			if mac := a.Resolve(to.IP()); mac != to.MAC() {
				t.Errorf("%s has MAC %v", to.Port.ID, mac)
			}
		}
		other := a.UDP(b, 9)
		other.EthType = 0x88b5
		other.Payload = append(other.Payload, make([]byte, 60)...)
		a.Passes(b, other)
	}
}
