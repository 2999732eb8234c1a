package dptest

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"yakumo/datapath/pipeline"
	"yakumo/datapath/pipeline/sim"
	"yakumo/datapath/pipeline/topology"
)

// topologyCases compare what real frames do in random clouds with the oracle.
var topologyCases = []testCase{{"Topologies", testTopologies}}

// topologies is how many clouds are tried; package sim tries many more in memory.
const topologies = 3

func testTopologies(t *testing.T, f Fabric) {
	draw := rapid.Custom(topology.Draw)
	for seed, done := 1, 0; done < topologies; seed++ {
		c := draw.Example(seed)
		if len(c.Floats) == 0 || len(c.Ports) < 4 { // one that has something to show
			continue
		}
		done++
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) { testTopology(t, f, c) })
	}
}

func testTopology(t *testing.T, f Fabric, c *topology.Cloud) {
	w := NewWorld(t, f, c.Hosts)
	o := w.Host(0).Outside(topology.WhoOutside, 1, 0)
	o.Port.FixedIPs[0].Address = topology.Outside()
	s := &site{w: w, t: t, o: o}
	o.hears = s.answer
	guests := map[string]*Guest{topology.WhoOutside: o}
	for h := range c.Hosts {
		w.Host(h).Apply(c.Rows(h, func(o int) netip.Addr { return w.Host(o).TunnelIP() })...)
	}
	for _, p := range c.Ports {
		guests[p.Row.ID] = w.Host(p.Host).Boot(p.Row)
	}
	targets := []netip.Addr{topology.Outside(), topology.Far()}
	for _, p := range c.Ports {
		targets = append(targets, p.IP)
	}
	for _, fl := range c.Floats {
		targets = append(targets, fl.Row.Address)
	}
	for _, v := range c.VIPs {
		targets = append(targets, v.IP)
	}
	var nobody [][]byte // what must arrive nowhere
	port, passed := uint16(20000), 0
	for _, a := range c.Ports {
		for _, r := range c.Routers {
			at := slices.Index(r.Networks, a.Network)
			if at < 0 {
				continue
			}
			for _, dst := range targets {
				port++
				p := guests[a.Row.ID].via(r.Row.Interfaces[at], dst, 53)
				p.SrcPort = port
				who, from, hops, _ := c.Expect(r, a.Network, a.IP, dst, 64)
				if who == "" {
					nobody = append(nobody, p.Payload)
					guests[a.Row.ID].Send(p)
					continue
				}
				q := guests[a.Row.ID].Passes(guests[who], p)
				if q.Src != from || int(q.TTL) != 64-hops {
					t.Errorf("%s by %s to %v arrives as %s ttl=%d, want it from %v with ttl=%d", a.Row.ID, r.Row.ID, dst, q.Summary(), q.TTL, from, 64-hops)
				}
				passed++
			}
		}
	}
	for _, fl := range c.Floats {
		port++
		p := s.to(fl.Row.MAC, fl.Row.Address, port, 80)
		q := o.Passes(guests[fl.Port.Row.ID], p)
		if q.Dst != fl.Row.Fixed || q.Src != o.IP() {
			t.Errorf("%s arrives as %s", p.Summary(), q.Summary())
		}
	}
	for _, p := range c.Ports {
		g := guests[p.Row.ID]
		g.flush()
		g.Lacks(func(q sim.Packet) bool {
			return q.Proto == pipeline.ProtoUDP && slices.ContainsFunc(nobody, func(b []byte) bool { return bytes.Equal(q.Payload, b) })
		})
	}
	o.Lacks(func(q sim.Packet) bool {
		return slices.ContainsFunc(nobody, func(b []byte) bool { return bytes.Equal(q.Payload, b) })
	})
	t.Logf("%d networks, %d routers, %d ports, %d shared and %d floating addresses on %d hosts: %d packets arrived as they should, %d nowhere",
		len(c.Networks), len(c.Routers), len(c.Ports), len(c.VIPs), len(c.Floats), c.Hosts, passed, len(nobody))
}
