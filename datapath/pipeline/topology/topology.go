// Package topology draws clouds of tenants' networks, routers, gateways and floating addresses, makes the rows that their
// hosts are told, and says from the rows alone, in Neutron's words, where each packet goes: the oracle that the simulated
// pipeline and real switches are compared with. It owns and writes nothing and reads only what is drawn. It is for tests
// only; it must not import a driver, and knows no entry.
package topology

import (
	"fmt"
	"net/netip"
	"slices"

	"pgregory.net/rapid"

	"yakumo/datapath/pipeline"
	"yakumo/model"
)

// What is outside: one external network, flat on a physical network, and a machine on it that is everybody's next hop.
const (
	ExtID    = "ext"
	ExtVNI   = 9000
	Physical = "physnet1"
)

// Ext is the external network's block.
func Ext() netip.Prefix { return netip.MustParsePrefix("203.0.113.0/24") }

// Outside is the address of the machine there.
func Outside() netip.Addr { return netip.MustParseAddr("203.0.113.1") }

// Far is an address behind that machine.
func Far() netip.Addr { return netip.MustParseAddr("198.51.100.7") }

// Cloud is what a tenant, or several, have made on some hosts.
type Cloud struct {
	Hosts    int
	Networks []*Network
	Routers  []*Router
	Ports    []*Port
	VIPs     []*VIP
	Floats   []*Float
}

// Network has one block; some have the same. Scope is its address scope, "" for none.
type Network struct {
	ID    string
	VNI   uint32
	CIDR  netip.Prefix
	Scope string
}

// Router has an interface in each of Networks, in the order of Row.Interfaces. Gateway is invalid where it has none;
// Active is the host that serves it.
type Router struct {
	Row      *model.HostRouter
	Networks []*Network
	Gateway  netip.Addr
	Active   int
}

// Port is a guest's, on a host.
type Port struct {
	Row     *model.HostPort
	Network *Network
	Host    int
	MAC     pipeline.MAC
	IP      netip.Addr
}

// VIP is an address that all ports of a network may hold. Holder is nil where none has said so.
type VIP struct {
	Network *Network
	IP      netip.Addr
	Holder  *Port
}

// Float is a floating address of a port, or of an address that it holds: then the gateway host serves it.
type Float struct {
	Row    *model.HostFloating
	Router *Router
	Port   *Port
	At     int // the host
}

func nth(p netip.Prefix, n int) netip.Addr {
	a := p.Masked().Addr()
	for range n {
		a = a.Next()
	}
	return a
}

// Draw draws a cloud on two or three hosts.
func Draw(t *rapid.T) *Cloud {
	s := &Cloud{Hosts: rapid.IntRange(2, 3).Draw(t, "hosts")}
	scoped := rapid.Bool().Draw(t, "scoped")
	scope := func(of string) string {
		if !scoped {
			return ""
		}
		return rapid.SampledFrom([]string{"", "red", "blue"}).Draw(t, "scope of "+of)
	}
	external := scope("the external network")
	host := func(what string) int { return rapid.IntRange(0, s.Hosts-1).Draw(t, what) }
	for i := range rapid.IntRange(2, 5).Draw(t, "networks") {
		k := rapid.IntRange(0, 3).Draw(t, "block") // some have the same
		id := fmt.Sprintf("n%d", i)
		s.Networks = append(s.Networks, &Network{id, uint32(7000 + i), netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(k), 0, 0}), 24), scope(id)})
	}
	for i := range rapid.IntRange(1, 3).Draw(t, "routers") {
		r := &Router{Row: &model.HostRouter{ID: fmt.Sprintf("r%d", i), AdminStateUp: true}}
		for j, n := range s.Networks {
			taken := slices.ContainsFunc(r.Networks, func(o *Network) bool { return o.CIDR == n.CIDR })
			if taken || rapid.IntRange(0, 2).Draw(t, "joined") == 0 {
				continue
			}
			r.Networks = append(r.Networks, n)
			r.Row.Interfaces = append(r.Row.Interfaces, model.HostRouterPort{PortID: fmt.Sprintf("r%d-n%d", i, j), NetworkID: n.ID, VNI: n.VNI,
				MAC: pipeline.MAC{0xfa, 0x16, 0x3f, 0, byte(i), byte(j)}.String(), Addresses: []netip.Prefix{netip.PrefixFrom(nth(n.CIDR, 1+i), 24)}, MTU: 1450, Scope4: n.Scope})
		}
		if rapid.Bool().Draw(t, "gateway") {
			r.Gateway, r.Active = nth(Ext(), 10+i), host("active")
			r.Row.Gateway = &model.HostGateway{PortID: r.Row.ID + "-gw", NetworkID: ExtID, VNI: ExtVNI, MAC: pipeline.MAC{0xfa, 0x16, 0x3f, 1, 0, byte(i)}.String(),
				Addresses: []netip.Prefix{netip.PrefixFrom(r.Gateway, 24)}, Subnets: []netip.Prefix{Ext()}, NextHops: []netip.Addr{Outside()}, MTU: 1500, Transit: uint32(9100 + i), Scope4: external,
				SNAT: rapid.IntRange(0, 3).Draw(t, "translates") > 0}
		}
		s.Routers = append(s.Routers, r)
	}
	for i := range rapid.IntRange(2, 7).Draw(t, "ports") {
		n := rapid.SampledFrom(s.Networks).Draw(t, "network")
		p := &Port{Network: n, Host: host("host"), MAC: pipeline.MAC{0xfa, 0x16, 0x3e, 0, 0, byte(i)}, IP: nth(n.CIDR, 20+i)}
		p.Row = &model.HostPort{ID: fmt.Sprintf("p%d", i), NetworkID: n.ID, VNI: n.VNI, MAC: p.MAC.String(), AdminStateUp: true, PortSecurity: true, Groups: []model.ID{"all"},
			FixedIPs: []model.FixedIP{{Address: p.IP}}}
		s.Ports = append(s.Ports, p)
	}
	for i := range rapid.IntRange(0, 2).Draw(t, "shared addresses") {
		v := &VIP{Network: rapid.SampledFrom(s.Networks).Draw(t, "network")}
		v.IP = nth(v.Network.CIDR, 60+i)
		for _, p := range s.Ports {
			if p.Network == v.Network {
				p.Row.Pairs = append(p.Row.Pairs, model.AddressPair{Prefix: netip.PrefixFrom(v.IP, 32)})
				if rapid.Bool().Draw(t, "holds it") {
					v.Holder = p
				}
			}
		}
		if v.Holder != nil {
			v.Holder.Row.Held = append(v.Holder.Row.Held, model.Held{Address: v.IP, MAC: v.Holder.Row.MAC, Turn: 1})
		}
		s.VIPs = append(s.VIPs, v)
	}
	for _, r := range s.Routers { // routes to where others lead
		for range rapid.IntRange(0, 3).Draw(t, "routes") {
			via := rapid.SampledFrom(s.Routers).Draw(t, "via")
			if via == r || len(via.Row.Interfaces) == 0 {
				continue
			}
			dst := rapid.SampledFrom([]netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("10.0.0.0/8"), s.Networks[0].CIDR, s.Networks[len(s.Networks)-1].CIDR}).Draw(t, "destination")
			hop := rapid.SampledFrom(via.Row.Interfaces).Draw(t, "hop").Addresses[0].Addr()
			if !slices.ContainsFunc(r.Row.Routes, func(x model.Route) bool { return x.Destination == dst }) {
				r.Row.Routes = append(r.Row.Routes, model.Route{Destination: dst, NextHop: hop})
			}
		}
	}
	for i := range rapid.IntRange(0, 3).Draw(t, "floating addresses") {
		p, r := rapid.SampledFrom(s.Ports).Draw(t, "port"), rapid.SampledFrom(s.Routers).Draw(t, "router")
		beside := slices.Contains(r.Networks, p.Network)
		twice := slices.ContainsFunc(s.Floats, func(f *Float) bool { return f.Port == p })
		if !r.Gateway.IsValid() || !beside || twice {
			continue
		}
		f := &Float{Port: p, Router: r, At: p.Host, Row: &model.HostFloating{ID: fmt.Sprintf("f%d", i), RouterID: r.Row.ID, NetworkID: ExtID, VNI: ExtVNI,
			Address: nth(Ext(), 50+i), MAC: pipeline.MAC{0xfa, 0x16, 0x3f, 2, 0, byte(i)}.String(), Fixed: p.IP}}
		if len(p.Row.Held) > 0 && rapid.Bool().Draw(t, "of a shared address") {
			f.Row.Fixed, f.At = p.Row.Held[0].Address, r.Active
		}
		s.Floats = append(s.Floats, f)
	}
	return s
}

// Rows gives what a host is told, but its ports: of all that there is, and who is outside where a neighbour's MAC is given.
func (s *Cloud) Rows(h int, tunnelIP func(host int) netip.Addr) []model.HostRow {
	rows := []model.HostRow{
		&model.HostNetwork{ID: ExtID, VNI: ExtVNI, MTU: 1500, Type: model.NetworkFlat, PhysicalNetwork: Physical, External: true},
		&model.HostGroup{ID: "all", Stateful: true, Rules: []model.HostRule{{ID: "o", Direction: model.Egress, EtherType: model.IPv4}, {ID: "i", Direction: model.Ingress, EtherType: model.IPv4}}},
	}
	for _, n := range s.Networks {
		row := &model.HostNetwork{ID: n.ID, VNI: n.VNI, MTU: 1450}
		for o := range s.Hosts {
			if o != h {
				row.Flood = append(row.Flood, tunnelIP(o))
			}
		}
		rows = append(rows, row)
	}
	for _, p := range s.Ports {
		if p.Host != h {
			rows = append(rows, &model.HostPeer{ID: p.Row.ID, NetworkID: p.Network.ID, VNI: p.Network.VNI, MAC: p.Row.MAC, Addresses: []netip.Addr{p.IP}, Pairs: p.Row.Pairs, Held: p.Row.Held,
				TunnelIP: tunnelIP(p.Host)})
		}
	}
	for _, r := range s.Routers {
		row := *r.Row
		if row.Gateway != nil {
			gw := *row.Gateway
			gw.Active, gw.TunnelIP = r.Active == h, tunnelIP(r.Active)
			row.Gateway = &gw
		}
		rows = append(rows, &row)
	}
	for _, f := range s.Floats {
		if f.At == h {
			rows = append(rows, f.Row)
		}
	}
	return rows
}

// Neighbors gives what a host would learn outside: who has each address there that is not its own.
func (s *Cloud) Neighbors(h int, outside pipeline.MAC) []model.HostRow {
	neighbor := func(a netip.Addr, mac string) model.HostRow {
		return &model.HostNeighbor{NetworkID: ExtID, VNI: ExtVNI, Address: a, MAC: mac}
	}
	rows := []model.HostRow{neighbor(Outside(), outside.String())}
	for _, r := range s.Routers {
		if r.Row.Gateway != nil && r.Active != h {
			rows = append(rows, neighbor(r.Gateway, r.Row.Gateway.MAC))
		}
	}
	for _, f := range s.Floats {
		if f.At != h {
			rows = append(rows, neighbor(f.Row.Address, f.Row.MAC))
		}
	}
	return rows
}

// The oracle: what routers do, from the rows alone and in Neutron's words.

// End is where a packet goes: to a port, or out of a router's gateway; neither: nowhere.
type End struct {
	Port *Port
	Out  *Router
	Hops int
}

func (s *Cloud) portAt(n *Network, a netip.Addr) *Port {
	for _, p := range s.Ports {
		if p.Network == n && p.IP == a {
			return p
		}
	}
	for _, v := range s.VIPs {
		if v.Network == n && v.IP == a {
			return v.Holder
		}
	}
	return nil
}

func (s *Cloud) routerAt(n *Network, a netip.Addr) *Router {
	for _, r := range s.Routers {
		for i, o := range r.Networks {
			if o == n && r.Row.Interfaces[i].Addresses[0].Addr() == a {
				return r
			}
		}
	}
	return nil
}

// Free is the scope of what is held to none.
const Free = "free"

// Walk follows a packet from a router on, to which it came from a network of the scope.
func (s *Cloud) Walk(r *Router, scope string, dst netip.Addr, ttl int) End {
	for hops := 1; hops < ttl; hops++ {
		var net *Network
		hop, bits, out := dst, -1, false
		for i, p := range r.Row.Interfaces {
			if p.Addresses[0].Masked().Contains(dst) {
				net, bits = r.Networks[i], 24
			}
		}
		if net == nil && r.Gateway.IsValid() && Ext().Contains(dst) {
			out, bits = true, 24
		}
		for _, x := range r.Row.Routes {
			if !x.Destination.Contains(dst) || x.Destination.Bits() <= bits || s.routerAtSelf(r, x.NextHop) {
				continue
			}
			for i, p := range r.Row.Interfaces {
				if p.Addresses[0].Masked().Contains(x.NextHop) {
					net, hop, bits, out = r.Networks[i], x.NextHop, x.Destination.Bits(), false
				}
			}
		}
		if bits < 0 && r.Gateway.IsValid() {
			out = true
		}
		switch {
		case out:
			return End{Out: r, Hops: hops}
		case net == nil, scope != Free && scope != net.Scope:
			return End{}
		}
		if p := s.portAt(net, hop); p != nil {
			return End{Port: p, Hops: hops}
		}
		if r = s.routerAt(net, hop); r == nil || hop == dst { // nobody, or a router itself
			return End{}
		}
		scope = net.Scope
	}
	return End{}
}

func (s *Cloud) routerAtSelf(r *Router, a netip.Addr) bool {
	return slices.ContainsFunc(r.Row.Interfaces, func(p model.HostRouterPort) bool { return p.Addresses[0].Addr() == a })
}

// scopeOf gives the scope of the network by which a router would send to an address inside; false for none.
func (s *Cloud) scopeOf(r *Router, a netip.Addr) (scope string, inside bool) {
	bits := -1
	for i, p := range r.Row.Interfaces {
		if p.Addresses[0].Masked().Contains(a) {
			scope, bits = r.Networks[i].Scope, 24
		}
	}
	for _, x := range r.Row.Routes {
		if !x.Destination.Contains(a) || x.Destination.Bits() <= bits || s.routerAtSelf(r, x.NextHop) {
			continue
		}
		for i, p := range r.Row.Interfaces {
			if p.Addresses[0].Masked().Contains(x.NextHop) {
				scope, bits = r.Networks[i].Scope, x.Destination.Bits()
			}
		}
	}
	return scope, bits >= 0
}

// leaves gives the address with which a source leaves a router, invalid where it may not.
func (s *Cloud) leaves(r *Router, src netip.Addr) netip.Addr {
	for _, f := range s.Floats {
		if f.Router == r && f.Row.Fixed == src {
			return f.Row.Address
		}
	}
	scope, inside := s.scopeOf(r, src)
	gw := r.Row.Gateway
	same := inside && scope == gw.Scope4
	switch {
	case gw.SNAT && same && scope != "": // one scope: as it is
		return src
	case gw.SNAT:
		return r.Gateway
	case same || !s.divided(r):
		return src
	}
	return netip.Addr{}
}

// divided tells whether something inside a router is not in the scope of the outside.
func (s *Cloud) divided(r *Router) bool {
	return slices.ContainsFunc(r.Networks, func(n *Network) bool { return n.Scope != r.Row.Gateway.Scope4 })
}

// WhoOutside is the machine outside, among ids of ports.
const WhoOutside = "outside"

// Expect tells who gets a packet of a port that a router was given from a network, with which source and after how many hops. cause is the router
// whose gateway it left by.
func (s *Cloud) Expect(r *Router, in *Network, src, dst netip.Addr, ttl int) (who string, from netip.Addr, hops int, cause *Router) {
	e := s.Walk(r, in.Scope, dst, ttl)
	switch {
	case e.Port != nil:
		return e.Port.Row.ID, src, e.Hops, nil
	case e.Out == nil:
		return "", src, 0, nil
	}
	if from = s.leaves(e.Out, src); !from.IsValid() {
		return "", src, 0, nil
	}
	for _, f := range s.Floats {
		if f.Row.Address == dst {
			in := s.Walk(f.Router, Free, f.Row.Fixed, ttl-e.Hops)
			if in.Port == nil {
				return "", from, 0, e.Out
			}
			return in.Port.Row.ID, from, e.Hops + in.Hops, e.Out
		}
	}
	if dst == Outside() || !Ext().Contains(dst) {
		return WhoOutside, from, e.Hops, e.Out
	}
	return "", from, 0, e.Out
}
