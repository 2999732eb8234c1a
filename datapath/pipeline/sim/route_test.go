package sim_test

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"yakumo/datapath"
	"yakumo/datapath/pipeline"
	"yakumo/datapath/pipeline/sim"
	"yakumo/datapath/pipeline/topology"
	"yakumo/model"
)

// outMAC is the MAC of the machine outside.
var outMAC = pipeline.MAC{2, 0, 0, 0, 0, 1}

// routedSite is a cloud in simulated switches, joined by tunnels and by a physical network.
type routedSite struct {
	*topology.Cloud
	t     *rapid.T
	hosts []*site
	next  uint16
}

func drawSite(t *rapid.T) *routedSite {
	s := &routedSite{Cloud: topology.Draw(t), t: t, next: 10000}
	env := pipeline.DefaultEnv()
	env.PhysicalNetworks = []string{topology.Physical}
	for h := range s.Hosts {
		ord := datapath.NewMemoryOrdinals()
		at := &site{sim.New(), pipeline.NewProgram(env, ord), ord}
		s.hosts = append(s.hosts, at)
		rows := append(s.Rows(h, tunnelIP), s.Neighbors(h, outMAC)...)
		for _, p := range s.Ports {
			if p.Host == h {
				rows = append(rows, p.Row)
			}
		}
		for _, r := range rapid.Permutation(rows).Draw(t, "order") { // one by one and in any order
			d, err := at.prog.Apply([]model.HostRow{r}, nil)
			if err != nil {
				t.Fatalf("apply: %v", err)
			}
			at.sw.Load(d)
		}
		if n := at.prog.Conflicts(); n != 0 {
			t.Fatalf("%d conflicts on host %d", n, h)
		}
	}
	return s
}

// got is a packet that somebody received: a port, or the machine outside (topology.WhoOutside).
type got struct {
	who string
	p   sim.Packet
}

// carry takes a packet from where it comes in to all of its ends.
func (s *routedSite) carry(host int, a sim.Arrival) []got {
	type hop struct {
		host int
		a    sim.Arrival
	}
	var out []got
	steps := 0
	for queue := []hop{{host, a}}; len(queue) > 0; queue = queue[1:] {
		if steps++; steps > 200 {
			s.t.Fatalf("%s goes round and round", a.Packet.Summary())
		}
		h := queue[0]
		for _, d := range s.hosts[h.host].sw.Run(h.a).Out {
			switch {
			case d.Responder != 0:
			case d.To == pipeline.PortTunnel:
				far := slices.IndexFunc(s.hosts, func(o *site) bool { return tunnelIP(slices.Index(s.hosts, o)) == d.Host })
				queue = append(queue, hop{far, sim.Arrival{In: pipeline.PortTunnel, VNI: d.VNI, Packet: d.Packet}})
			case d.To > pipeline.PortProvider:
				if d.Packet.EthDst == outMAC {
					out = append(out, got{topology.WhoOutside, d.Packet})
					continue
				}
				for o, at := range s.hosts {
					if n, ok := s.place(at); ok && o != h.host {
						queue = append(queue, hop{o, sim.Arrival{In: n, Packet: d.Packet}})
					}
				}
			case d.To < pipeline.PortTunnel:
				id, _ := s.hosts[h.host].ord.Find(pipeline.OrdinalPort, uint32(d.To))
				out = append(out, got{id, d.Packet})
			}
		}
	}
	return out
}

func (s *routedSite) place(at *site) (uint64, bool) {
	n, err := at.ord.Get(pipeline.OrdinalProvider, topology.Physical, pipeline.MaxPort)
	return pipeline.PortProvider + uint64(n), err == nil
}

func (s *routedSite) send(from *topology.Port, p sim.Packet) []got {
	n, err := s.hosts[from.Host].ord.Get(pipeline.OrdinalPort, from.Row.ID, pipeline.MaxPort)
	if err != nil {
		s.t.Fatalf("ordinal: %v", err)
	}
	return s.carry(from.Host, sim.Arrival{In: uint64(n), Packet: p})
}

// Who gets what each port sends to each address, by each router beside it, is what the oracle says; and
// so is whether its answer comes back.
func TestRoutedReachability(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawSite(t)
		targets := []netip.Addr{topology.Outside(), topology.Far()}
		for _, p := range s.Ports {
			targets = append(targets, p.IP)
		}
		for _, f := range s.Floats {
			targets = append(targets, f.Row.Address)
		}
		for _, v := range s.VIPs {
			targets = append(targets, v.IP)
		}
		for _, a := range s.Ports {
			for _, r := range s.Routers {
				at := slices.Index(r.Networks, a.Network)
				if at < 0 {
					continue
				}
				mac, err := pipeline.ParseMAC(r.Row.Interfaces[at].MAC)
				if err != nil {
					t.Fatal(err)
				}
				for _, dst := range targets {
					s.probe(a, r, mac, dst)
				}
			}
		}
		for _, f := range s.Floats { // from outside
			s.inward(f)
		}
	})
}

func (s *routedSite) probe(a *topology.Port, r *topology.Router, mac pipeline.MAC, dst netip.Addr) {
	s.next++
	ttl := 64
	p := sim.Packet{EthSrc: a.MAC, EthDst: mac, EthType: pipeline.TypeIPv4, Src: a.IP, Dst: dst, Proto: pipeline.ProtoUDP, TTL: uint8(ttl), SrcPort: s.next, DstPort: 53}
	who, from, hops, cause := s.Expect(r, a.Network, a.IP, dst, ttl)
	seen := s.send(a, p)
	what := fmt.Sprintf("%s by %s to %v", a.Row.ID, r.Row.ID, dst)
	if who == "" {
		if len(seen) != 0 {
			s.t.Fatalf("%s reaches %s, want nobody", what, seen[0].who)
		}
		return
	}
	if len(seen) != 1 || seen[0].who != who {
		s.t.Fatalf("%s reaches %v, want %s", what, seen, who)
	}
	q := seen[0].p
	if q.Src != from || int(q.TTL) != ttl-hops || q.SrcPort != p.SrcPort {
		s.t.Fatalf("%s arrives as %s ttl=%d, want it from %v with ttl=%d", what, q.Summary(), q.TTL, from, ttl-hops)
	}
	// The answer goes where the packet came from.
	b := q
	b.EthSrc, b.EthDst, b.Src, b.Dst, b.SrcPort, b.DstPort, b.TTL = q.EthDst, q.EthSrc, q.Dst, q.Src, q.DstPort, q.SrcPort, uint8(ttl)
	var back []got
	if who == topology.WhoOutside {
		back = s.fromOutside(b)
	} else {
		i := slices.IndexFunc(s.Ports, func(o *topology.Port) bool { return o.Row.ID == who })
		to := s.Ports[i]
		if to.IP != q.Dst && !slices.ContainsFunc(s.VIPs, func(v *topology.VIP) bool { return v.Holder == to && v.IP == q.Dst }) { // a next hop: what it does with others' packets is its own affair
			return
		}
		back = s.send(to, b)
	}
	home := true // whether the answer is routed to a
	if cause != nil {
		if who != topology.WhoOutside && from == a.IP { // two inside, one by its floating address: the answer does not go by that
			return
		}
		scope := topology.Free
		if from == a.IP {
			scope = cause.Row.Gateway.Scope4
		}
		home = s.Walk(cause, scope, a.IP, ttl).Port == a
	} else {
		i := slices.IndexFunc(s.Ports, func(o *topology.Port) bool { return o.Row.ID == who })
		last := s.routerBy(q.EthSrc)
		who, _, _, _ := s.Expect(last, s.Ports[i].Network, q.Dst, a.IP, ttl)
		home = who == a.Row.ID
	}
	switch {
	case home && (len(back) != 1 || back[0].who != a.Row.ID || back[0].p.Dst != a.IP || back[0].p.DstPort != p.SrcPort):
		s.t.Fatalf("the answer to %s reaches %v, want %s", what, back, a.Row.ID)
	case home && cause != nil && back[0].p.Src != dst:
		s.t.Fatalf("the answer to %s comes from %v", what, back[0].p.Src)
	case !home && slices.ContainsFunc(back, func(g got) bool { return g.who == a.Row.ID }):
		s.t.Fatalf("the answer to %s finds a way back", what)
	}
}

func (s *routedSite) routerBy(mac pipeline.MAC) *topology.Router {
	for _, r := range s.Routers {
		for _, p := range r.Row.Interfaces {
			if p.MAC == mac.String() {
				return r
			}
		}
	}
	s.t.Fatalf("no router has MAC %v", mac)
	return nil
}

// fromOutside puts a packet on the physical network.
func (s *routedSite) fromOutside(p sim.Packet) []got {
	var out []got
	for h, at := range s.hosts {
		if n, ok := s.place(at); ok {
			out = append(out, s.carry(h, sim.Arrival{In: n, Packet: p})...)
		}
	}
	return out
}

func (s *routedSite) inward(f *topology.Float) {
	s.next++
	mac, err := pipeline.ParseMAC(f.Row.MAC)
	if err != nil {
		s.t.Fatal(err)
	}
	p := sim.Packet{EthSrc: outMAC, EthDst: mac, EthType: pipeline.TypeIPv4, Src: topology.Outside(), Dst: f.Row.Address, Proto: pipeline.ProtoTCP, Flags: sim.SYN, TTL: 64, SrcPort: s.next, DstPort: 80}
	seen := s.fromOutside(p)
	if len(seen) != 1 || seen[0].who != f.Port.Row.ID || seen[0].p.Dst != f.Row.Fixed || seen[0].p.Src != topology.Outside() {
		s.t.Fatalf("%s from outside reaches %v, want %s", f.Row.ID, seen, f.Port.Row.ID)
	}
	q := seen[0].p
	b := q
	b.EthSrc, b.EthDst, b.Src, b.Dst, b.SrcPort, b.DstPort, b.Flags, b.TTL = q.EthDst, q.EthSrc, q.Dst, q.Src, q.DstPort, q.SrcPort, sim.SYN|sim.ACK, 64
	back := s.send(f.Port, b)
	// A route of the router may lead its answers elsewhere.
	if e := s.Walk(f.Router, f.Port.Network.Scope, topology.Outside(), 64); e.Out != f.Router {
		return
	}
	if len(back) != 1 || back[0].who != topology.WhoOutside || back[0].p.Src != f.Row.Address || back[0].p.DstPort != p.SrcPort {
		s.t.Fatalf("the answer of %s reaches %v", f.Row.ID, back)
	}
}
