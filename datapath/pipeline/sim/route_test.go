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
	"yakumo/model"
)

const (
	extVNI   = 9000
	physical = "physnet1"
)

var (
	extNet    = netip.MustParsePrefix("203.0.113.0/24")
	outsideIP = netip.MustParseAddr("203.0.113.1")
	farIP     = netip.MustParseAddr("198.51.100.7")
	outMAC    = pipeline.MAC{2, 0, 0, 0, 0, 1}
)

// site3 is hosts joined by tunnels and by a physical network, with a machine outside on it.
type site3 struct {
	t        *rapid.T
	hosts    []*site
	networks []*tenantNet
	routers  []*tenantRouter
	ports    []*tenantPort
	floats   []*tenantFloat
	next     uint16
}

type tenantNet struct {
	id   string
	vni  uint32
	cidr netip.Prefix
}

type tenantRouter struct {
	row    *model.HostRouter
	nets   []*tenantNet // of the row's interfaces
	gw     netip.Addr   // invalid: no gateway
	active int
}

type tenantPort struct {
	row  *model.HostPort
	net  *tenantNet
	host int
	mac  pipeline.MAC
	ip   netip.Addr
}

type tenantFloat struct {
	row    *model.HostFloating
	router *tenantRouter
	port   *tenantPort
}

func nth(p netip.Prefix, n int) netip.Addr {
	a := p.Masked().Addr()
	for range n {
		a = a.Next()
	}
	return a
}

func drawSite(t *rapid.T) *site3 {
	s := &site3{t: t, next: 10000}
	env := pipeline.DefaultEnv()
	env.PhysicalNetworks = []string{physical}
	for range rapid.IntRange(2, 3).Draw(t, "hosts") {
		ord := datapath.NewMemoryOrdinals()
		s.hosts = append(s.hosts, &site{sim.New(), pipeline.NewProgram(env, ord), ord})
	}
	host := func(what string) int { return rapid.IntRange(0, len(s.hosts)-1).Draw(t, what) }
	for i := range rapid.IntRange(2, 5).Draw(t, "networks") {
		k := rapid.IntRange(0, 3).Draw(t, "block") // some have the same
		s.networks = append(s.networks, &tenantNet{fmt.Sprintf("n%d", i), uint32(7000 + i), netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(k), 0, 0}), 24)})
	}
	for i := range rapid.IntRange(1, 3).Draw(t, "routers") {
		r := &tenantRouter{row: &model.HostRouter{ID: fmt.Sprintf("r%d", i), AdminStateUp: true}}
		for j, n := range s.networks {
			taken := slices.ContainsFunc(r.nets, func(o *tenantNet) bool { return o.cidr == n.cidr })
			if taken || rapid.IntRange(0, 2).Draw(t, "joined") == 0 {
				continue
			}
			r.nets = append(r.nets, n)
			r.row.Interfaces = append(r.row.Interfaces, model.HostRouterPort{PortID: fmt.Sprintf("r%d-n%d", i, j), NetworkID: n.id, VNI: n.vni,
				MAC: pipeline.MAC{0xfa, 0x16, 0x3f, 0, byte(i), byte(j)}.String(), Addresses: []netip.Prefix{netip.PrefixFrom(nth(n.cidr, 1+i), 24)}, MTU: 1450})
		}
		if rapid.Bool().Draw(t, "gateway") {
			r.gw, r.active = nth(extNet, 10+i), host("active")
			r.row.Gateway = &model.HostGateway{PortID: r.row.ID + "-gw", NetworkID: "ext", VNI: extVNI, MAC: pipeline.MAC{0xfa, 0x16, 0x3f, 1, 0, byte(i)}.String(),
				Addresses: []netip.Prefix{netip.PrefixFrom(r.gw, 24)}, Subnets: []netip.Prefix{extNet}, NextHops: []netip.Addr{outsideIP}, MTU: 1500, SNAT: true, Transit: uint32(9100 + i)}
		}
		s.routers = append(s.routers, r)
	}
	for i := range rapid.IntRange(2, 7).Draw(t, "ports") {
		n := rapid.SampledFrom(s.networks).Draw(t, "network")
		p := &tenantPort{net: n, host: host("host"), mac: pipeline.MAC{0xfa, 0x16, 0x3e, 0, 0, byte(i)}, ip: nth(n.cidr, 20+i)}
		p.row = &model.HostPort{ID: fmt.Sprintf("p%d", i), NetworkID: n.id, VNI: n.vni, MAC: p.mac.String(), AdminStateUp: true, PortSecurity: true, Groups: []model.ID{"all"},
			FixedIPs: []model.FixedIP{{Address: p.ip}}}
		s.ports = append(s.ports, p)
	}
	for _, r := range s.routers { // routes to where others lead
		for range rapid.IntRange(0, 3).Draw(t, "routes") {
			via := rapid.SampledFrom(s.routers).Draw(t, "via")
			if via == r || len(via.row.Interfaces) == 0 {
				continue
			}
			dst := rapid.SampledFrom([]netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("10.0.0.0/8"), s.networks[0].cidr, s.networks[len(s.networks)-1].cidr}).Draw(t, "destination")
			hop := rapid.SampledFrom(via.row.Interfaces).Draw(t, "hop").Addresses[0].Addr()
			if !slices.ContainsFunc(r.row.Routes, func(x model.Route) bool { return x.Destination == dst }) {
				r.row.Routes = append(r.row.Routes, model.Route{Destination: dst, NextHop: hop})
			}
		}
	}
	for i := range rapid.IntRange(0, 3).Draw(t, "floating addresses") {
		p, r := rapid.SampledFrom(s.ports).Draw(t, "port"), rapid.SampledFrom(s.routers).Draw(t, "router")
		beside := slices.Contains(r.nets, p.net)
		twice := slices.ContainsFunc(s.floats, func(f *tenantFloat) bool { return f.port == p })
		if !r.gw.IsValid() || !beside || twice {
			continue
		}
		s.floats = append(s.floats, &tenantFloat{port: p, router: r, row: &model.HostFloating{ID: fmt.Sprintf("f%d", i), RouterID: r.row.ID, NetworkID: "ext", VNI: extVNI,
			Address: nth(extNet, 50+i), MAC: pipeline.MAC{0xfa, 0x16, 0x3f, 2, 0, byte(i)}.String(), Fixed: p.ip}})
	}
	s.load()
	return s
}

// load tells each host its rows, one by one and in any order.
func (s *site3) load() {
	neighbor := func(a netip.Addr, mac string) model.HostRow {
		return &model.HostNeighbor{NetworkID: "ext", VNI: extVNI, Address: a, MAC: mac}
	}
	for h, at := range s.hosts {
		rows := []model.HostRow{
			&model.HostNetwork{ID: "ext", VNI: extVNI, MTU: 1500, Type: model.NetworkFlat, PhysicalNetwork: physical, External: true}, neighbor(outsideIP, outMAC.String()),
			&model.HostGroup{ID: "all", Stateful: true, Rules: []model.HostRule{{ID: "o", Direction: model.Egress, EtherType: model.IPv4}, {ID: "i", Direction: model.Ingress, EtherType: model.IPv4}}},
		}
		for _, n := range s.networks {
			row := &model.HostNetwork{ID: n.id, VNI: n.vni, MTU: 1450}
			for o := range s.hosts {
				if o != h {
					row.Flood = append(row.Flood, tunnelIP(o))
				}
			}
			rows = append(rows, row)
		}
		for _, p := range s.ports {
			if p.host == h {
				rows = append(rows, p.row)
			} else {
				rows = append(rows, &model.HostPeer{ID: p.row.ID, NetworkID: p.net.id, VNI: p.net.vni, MAC: p.row.MAC, Addresses: []netip.Addr{p.ip}, TunnelIP: tunnelIP(p.host)})
			}
		}
		for _, r := range s.routers {
			row := *r.row
			if row.Gateway != nil {
				gw := *row.Gateway
				gw.Active, gw.TunnelIP = r.active == h, tunnelIP(r.active)
				row.Gateway = &gw
				if !gw.Active {
					rows = append(rows, neighbor(r.gw, gw.MAC))
				}
			}
			rows = append(rows, &row)
		}
		for _, f := range s.floats {
			if f.port.host == h {
				rows = append(rows, f.row)
			} else {
				rows = append(rows, neighbor(f.row.Address, f.row.MAC))
			}
		}
		for _, r := range rapid.Permutation(rows).Draw(s.t, "order") {
			d, err := at.prog.Apply([]model.HostRow{r}, nil)
			if err != nil {
				s.t.Fatalf("apply: %v", err)
			}
			at.sw.Load(d)
		}
		if n := at.prog.Conflicts(); n != 0 {
			s.t.Fatalf("%d conflicts on host %d", n, h)
		}
	}
}

// got is a packet that somebody received: a port, or the machine outside ("outside").
type got struct {
	who string
	p   sim.Packet
}

// carry takes a packet from where it comes in to all of its ends.
func (s *site3) carry(host int, a sim.Arrival) []got {
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
					out = append(out, got{"outside", d.Packet})
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

func (s *site3) place(at *site) (uint64, bool) {
	n, err := at.ord.Get(pipeline.OrdinalProvider, physical, pipeline.MaxPort)
	return pipeline.PortProvider + uint64(n), err == nil
}

func (s *site3) send(from *tenantPort, p sim.Packet) []got {
	n, err := s.hosts[from.host].ord.Get(pipeline.OrdinalPort, from.row.ID, pipeline.MaxPort)
	if err != nil {
		s.t.Fatalf("ordinal: %v", err)
	}
	return s.carry(from.host, sim.Arrival{In: uint64(n), Packet: p})
}

// The oracle: what routers do, from the rows alone and in Neutron's words.

// end is where a packet goes: to a port, or out of a router's gateway; neither: nowhere.
type end struct {
	port *tenantPort
	out  *tenantRouter
	hops int
}

func (s *site3) portAt(n *tenantNet, a netip.Addr) *tenantPort {
	for _, p := range s.ports {
		if p.net == n && p.ip == a {
			return p
		}
	}
	return nil
}

func (s *site3) routerAt(n *tenantNet, a netip.Addr) *tenantRouter {
	for _, r := range s.routers {
		for i, o := range r.nets {
			if o == n && r.row.Interfaces[i].Addresses[0].Addr() == a {
				return r
			}
		}
	}
	return nil
}

// walk follows a packet from a router on.
func (s *site3) walk(r *tenantRouter, dst netip.Addr, ttl int) end {
	for hops := 1; hops < ttl; hops++ {
		var net *tenantNet
		hop, bits, out := dst, -1, false
		for i, p := range r.row.Interfaces {
			if p.Addresses[0].Masked().Contains(dst) {
				net, bits = r.nets[i], 24
			}
		}
		if net == nil && r.gw.IsValid() && extNet.Contains(dst) {
			out, bits = true, 24
		}
		for _, x := range r.row.Routes {
			if !x.Destination.Contains(dst) || x.Destination.Bits() <= bits || s.routerAtSelf(r, x.NextHop) {
				continue
			}
			for i, p := range r.row.Interfaces {
				if p.Addresses[0].Masked().Contains(x.NextHop) {
					net, hop, bits, out = r.nets[i], x.NextHop, x.Destination.Bits(), false
				}
			}
		}
		if bits < 0 && r.gw.IsValid() {
			out = true
		}
		switch {
		case out:
			return end{out: r, hops: hops}
		case net == nil:
			return end{}
		}
		if p := s.portAt(net, hop); p != nil {
			return end{port: p, hops: hops}
		}
		if r = s.routerAt(net, hop); r == nil || hop == dst { // nobody, or a router itself
			return end{}
		}
	}
	return end{}
}

func (s *site3) routerAtSelf(r *tenantRouter, a netip.Addr) bool {
	return slices.ContainsFunc(r.row.Interfaces, func(p model.HostRouterPort) bool { return p.Addresses[0].Addr() == a })
}

// leaves gives the address with which a source leaves a router.
func (s *site3) leaves(r *tenantRouter, src netip.Addr) netip.Addr {
	for _, f := range s.floats {
		if f.router == r && f.row.Fixed == src {
			return f.row.Address
		}
	}
	return r.gw
}

// expect tells who gets a packet of a port that a router was given, with which source and after how many hops. cause is the router
// whose gateway it left by.
func (s *site3) expect(r *tenantRouter, src, dst netip.Addr, ttl int) (who string, from netip.Addr, hops int, cause *tenantRouter) {
	e := s.walk(r, dst, ttl)
	switch {
	case e.port != nil:
		return e.port.row.ID, src, e.hops, nil
	case e.out == nil:
		return "", src, 0, nil
	}
	from = s.leaves(e.out, src)
	for _, f := range s.floats {
		if f.row.Address == dst {
			in := s.walk(f.router, f.row.Fixed, ttl-e.hops)
			if in.port == nil {
				return "", from, 0, e.out
			}
			return in.port.row.ID, from, e.hops + in.hops, e.out
		}
	}
	if dst == outsideIP || !extNet.Contains(dst) {
		return "outside", from, e.hops, e.out
	}
	return "", from, 0, e.out
}

// Who gets what each port sends to each address, by each router beside it, is what the oracle says; and
// so is whether its answer comes back.
func TestRoutedReachability(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawSite(t)
		targets := []netip.Addr{outsideIP, farIP}
		for _, p := range s.ports {
			targets = append(targets, p.ip)
		}
		for _, f := range s.floats {
			targets = append(targets, f.row.Address)
		}
		for _, a := range s.ports {
			for _, r := range s.routers {
				at := slices.Index(r.nets, a.net)
				if at < 0 {
					continue
				}
				mac, err := pipeline.ParseMAC(r.row.Interfaces[at].MAC)
				if err != nil {
					t.Fatal(err)
				}
				for _, dst := range targets {
					s.probe(a, r, mac, dst)
				}
			}
		}
		for _, f := range s.floats { // from outside
			s.inward(f)
		}
	})
}

func (s *site3) probe(a *tenantPort, r *tenantRouter, mac pipeline.MAC, dst netip.Addr) {
	s.next++
	ttl := 64
	p := sim.Packet{EthSrc: a.mac, EthDst: mac, EthType: pipeline.TypeIPv4, Src: a.ip, Dst: dst, Proto: pipeline.ProtoUDP, TTL: uint8(ttl), SrcPort: s.next, DstPort: 53}
	who, from, hops, cause := s.expect(r, a.ip, dst, ttl)
	seen := s.send(a, p)
	what := fmt.Sprintf("%s by %s to %v", a.row.ID, r.row.ID, dst)
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
	if who == "outside" {
		back = s.fromOutside(b)
	} else {
		i := slices.IndexFunc(s.ports, func(o *tenantPort) bool { return o.row.ID == who })
		to := s.ports[i]
		if to.ip != q.Dst { // a next hop: what it does with others' packets is its own affair
			return
		}
		back = s.send(to, b)
	}
	home := true // whether the answer is routed to a
	if cause != nil {
		home = s.walk(cause, a.ip, ttl).port == a
	} else {
		i := slices.IndexFunc(s.ports, func(o *tenantPort) bool { return o.row.ID == who })
		last := s.routerBy(q.EthSrc)
		who, _, _, _ := s.expect(last, s.ports[i].ip, a.ip, ttl)
		home = who == a.row.ID
	}
	switch {
	case home && (len(back) != 1 || back[0].who != a.row.ID || back[0].p.Dst != a.ip || back[0].p.DstPort != p.SrcPort):
		s.t.Fatalf("the answer to %s reaches %v, want %s", what, back, a.row.ID)
	case home && cause != nil && back[0].p.Src != dst:
		s.t.Fatalf("the answer to %s comes from %v", what, back[0].p.Src)
	case !home && slices.ContainsFunc(back, func(g got) bool { return g.who == a.row.ID }):
		s.t.Fatalf("the answer to %s finds a way back", what)
	}
}

func (s *site3) routerBy(mac pipeline.MAC) *tenantRouter {
	for _, r := range s.routers {
		for _, p := range r.row.Interfaces {
			if p.MAC == mac.String() {
				return r
			}
		}
	}
	s.t.Fatalf("no router has MAC %v", mac)
	return nil
}

// fromOutside puts a packet on the physical network.
func (s *site3) fromOutside(p sim.Packet) []got {
	var out []got
	for h, at := range s.hosts {
		if n, ok := s.place(at); ok {
			out = append(out, s.carry(h, sim.Arrival{In: n, Packet: p})...)
		}
	}
	return out
}

func (s *site3) inward(f *tenantFloat) {
	s.next++
	mac, err := pipeline.ParseMAC(f.row.MAC)
	if err != nil {
		s.t.Fatal(err)
	}
	p := sim.Packet{EthSrc: outMAC, EthDst: mac, EthType: pipeline.TypeIPv4, Src: outsideIP, Dst: f.row.Address, Proto: pipeline.ProtoTCP, Flags: sim.SYN, TTL: 64, SrcPort: s.next, DstPort: 80}
	seen := s.fromOutside(p)
	if len(seen) != 1 || seen[0].who != f.port.row.ID || seen[0].p.Dst != f.port.ip || seen[0].p.Src != outsideIP {
		s.t.Fatalf("%s from outside reaches %v, want %s", f.row.ID, seen, f.port.row.ID)
	}
	q := seen[0].p
	b := q
	b.EthSrc, b.EthDst, b.Src, b.Dst, b.SrcPort, b.DstPort, b.Flags, b.TTL = q.EthDst, q.EthSrc, q.Dst, q.Src, q.DstPort, q.SrcPort, sim.SYN|sim.ACK, 64
	back := s.send(f.port, b)
	// A route of the router may lead its answers elsewhere.
	if e := s.walk(f.router, outsideIP, 64); e.out != f.router {
		return
	}
	if len(back) != 1 || back[0].who != "outside" || back[0].p.Src != f.row.Address || back[0].p.DstPort != p.SrcPort {
		s.t.Fatalf("the answer of %s reaches %v", f.row.ID, back)
	}
}
