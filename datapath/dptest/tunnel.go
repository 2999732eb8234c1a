package dptest

import (
	"bytes"
	"net/netip"
	"testing"

	"yakumo/datapath/pipeline"
	"yakumo/datapath/pipeline/sim"
	"yakumo/model"
)

// acrossType is acrossTwo in a network of a tunnel type.
func acrossType(w *World, typ string, vni uint32) (a, b *Guest) {
	h0, h1 := w.Host(0), w.Host(1)
	pa, pb := NewPort(typ, vni, typ+"-a", 5, "all"), NewPort(typ, vni, typ+"-b", 6, "all")
	for _, s := range []struct {
		h, far    *HostState
		own, peer *model.HostPort
	}{{h0, h1, pa, pb}, {h1, h0, pb, pa}} {
		n, peer := NewNetwork(typ, vni, s.far.TunnelIP()), PeerOf(s.peer, s.far.TunnelIP())
		n.Type, peer.Type = typ, typ
		s.h.Apply(n, AllowAll("all"), peer)
	}
	return h0.Boot(pa), h1.Boot(pb)
}

// Networks of all tunnel types live side by side, also with one another's numbers of ports and addresses.
func testTunnelTypes(t *testing.T, f Fabric) {
	w := NewWorld(t, f, 2)
	type pair struct{ a, b *Guest }
	pairs := map[string]pair{}
	var all []*Guest
	for i, typ := range []string{model.NetworkVXLAN, model.NetworkGRE, model.NetworkGeneve} {
		a, b := acrossType(w, typ, bigVNI+uint32(i))
		pairs[typ] = pair{a, b}
		all = append(all, a, b)
	}
	for typ, p := range pairs {
		first := p.a.UDP(p.b, 9)
		WaitFor(t, typ+" to get through", func() bool { // the underlay's own questions for addresses
			p.a.Send(first)
			p.b.flush()
			for _, q := range p.b.seen {
				if bytes.Equal(q.Payload, first.Payload) {
					return true
				}
			}
			return false
		})
	}
	check := func() {
		t.Helper()
		for _, p := range pairs {
			p.b.Passes(p.a, p.b.UDP(p.a, 9))
			p.a.Passes(p.b, p.a.UDP(p.b, 9))
			full := p.a.UDP(p.b, 9)
			full.Payload = append(full.Payload, make([]byte, 1400-28-len(full.Payload))...)
			p.a.Passes(p.b, full)
			cast := p.a.UDP(p.b, 9)
			cast.EthDst, cast.Dst = pipeline.MAC{255, 255, 255, 255, 255, 255}, netip.MustParseAddr("10.0.255.255")
			p.a.Passes(p.b, cast)
			for _, g := range all {
				g.flush()
				g.Lacks(func(q sim.Packet) bool { return bytes.Equal(q.Payload, cast.Payload) })
			}
		}
	}
	check()
	h := w.Host(0)
	h.RestartDriver(t)
	h.Prune()
	for _, p := range pairs {
		h.waitInstalled(p.a.Port.ID)
	}
	check()
}
