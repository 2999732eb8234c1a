package e2e_test

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/layer3/floatingips"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/layer3/routers"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/security/rules"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/ports"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/subnets"

	"yakumo/images/mini/probe"
	"yakumo/lab"
)

// oracle says who reaches whom, from nothing but what the API shows: subnets, routers, floating
// IPs, groups and their rules, in the words of Neutron's documentation. It shares no code with
// the cloud. It knows what the tests use: one IPv4 and at most one IPv6 subnet a network.
type oracle struct {
	ports    []ports.Port
	subnets  map[string]subnets.Subnet
	routers  map[string]routers.Router
	floating []floatingips.FloatingIP
	rules    []rules.SecGroupRule
	// outsideRoutes are prefixes that the outside sends into the cloud, each to a router's address.
	outsideRoutes map[netip.Prefix]netip.Addr
}

// consult reads the API.
func consult(ctx context.Context) (*oracle, error) {
	c := fix.admin.Network
	o := &oracle{subnets: map[string]subnets.Subnet{}, routers: map[string]routers.Router{}}
	page, err := ports.List(c, ports.ListOpts{}).AllPages(ctx)
	if err == nil {
		o.ports, err = ports.ExtractPorts(page)
	}
	if err != nil {
		return nil, err
	}
	if page, err = subnets.List(c, subnets.ListOpts{}).AllPages(ctx); err != nil {
		return nil, err
	}
	all, err := subnets.ExtractSubnets(page)
	if err != nil {
		return nil, err
	}
	for _, s := range all {
		o.subnets[s.ID] = s
	}
	if page, err = routers.List(c, routers.ListOpts{}).AllPages(ctx); err != nil {
		return nil, err
	}
	rs, err := routers.ExtractRouters(page)
	if err != nil {
		return nil, err
	}
	for _, r := range rs {
		o.routers[r.ID] = r
	}
	if page, err = floatingips.List(c, floatingips.ListOpts{}).AllPages(ctx); err == nil {
		o.floating, err = floatingips.ExtractFloatingIPs(page)
	}
	if err != nil {
		return nil, err
	}
	if page, err = rules.List(c, rules.ListOpts{}).AllPages(ctx); err == nil {
		o.rules, err = rules.ExtractRules(page)
	}
	return o, err
}

// verdict is what the oracle says of a question.
type verdict struct {
	reached bool
	by      string     // device of the port that answers, or lab.OutsideMachine
	saw     netip.Addr // the address that it sees asking
	why     string     // why not
}

func no(format string, args ...any) verdict { return verdict{why: fmt.Sprintf(format, args...)} }

// place is where a packet ends: at a port, or outside.
type place struct {
	port *ports.Port // nil: outside
	src  netip.Addr  // as seen there
	nat  bool        // an address was translated: the answer finds its way by that
	why  string      // it ends nowhere
}

func nowhere(format string, args ...any) place { return place{why: fmt.Sprintf(format, args...)} }

// ask answers for a port with an address of its own.
func (o *oracle) ask(from *ports.Port, src, dst netip.Addr, s probe.Service) verdict {
	if src == dst { // a guest's own address is its own business
		return verdict{reached: true, by: from.DeviceID, saw: src}
	}
	if !o.allowed(from, rules.DirEgress, dst, s) {
		return no("its groups let nothing out")
	}
	return o.judge(o.send(from, src, dst), from, src, dst, s)
}

// askOutside answers for the outside.
func (o *oracle) askOutside(src, dst netip.Addr, s probe.Service) verdict {
	return o.judge(o.fromOutside(src, dst), nil, src, dst, s)
}

// fromOutside follows a packet from the outside.
func (o *oracle) fromOutside(src, dst netip.Addr) place {
	for _, s := range lab.Segments() {
		if dst == s.V4.Addr() || dst == s.V6.Addr() { // its own
			return place{src: dst, nat: true}
		}
	}
	if f := o.floatingAt(dst); f != nil {
		return o.translated(f, src)
	}
	for prefix, via := range o.outsideRoutes {
		if prefix.Contains(dst) {
			if p := o.portAt("", via); p != nil && p.DeviceOwner == "network:router_gateway" {
				return o.route(o.routers[p.DeviceID], nil, src, dst, 0)
			}
		}
	}
	return nowhere("the outside knows no way to %s", dst)
}

// judge looks at where the question ends: may it come in, and does the answer come back?
func (o *oracle) judge(at place, from *ports.Port, src, dst netip.Addr, s probe.Service) verdict {
	switch {
	case at.why != "":
		return no("%s", at.why)
	case at.port == nil:
		if back := o.fromOutside(dst, at.src); !at.nat && (back.port == nil || back.port.ID != from.ID) {
			return no("the answer from outside ends elsewhere: %s", back.why)
		}
		return verdict{reached: true, by: lab.OutsideMachine, saw: at.src}
	case !o.allowed(at.port, rules.DirIngress, at.src, s):
		return no("the groups of %s do not let it in", at.port.FixedIPs[0].IPAddress)
	}
	if !at.nat {
		back := o.send(at.port, dst, src)
		if back.why != "" || (back.port == nil) != (from == nil) || (from != nil && back.port.ID != from.ID) {
			return no("the answer ends elsewhere: %s", back.why)
		}
	}
	return verdict{reached: true, by: at.port.DeviceID, saw: at.src}
}

// send follows a packet from a guest's port.
func (o *oracle) send(from *ports.Port, src, dst netip.Addr) place {
	sub := o.subnetOf(from, src)
	if sub == nil {
		return nowhere("%s is no address of the sender", src)
	}
	if netip.MustParsePrefix(sub.CIDR).Contains(dst) {
		return o.deliver(from.NetworkID, src, dst)
	}
	if sub.GatewayIP == "" {
		return nowhere("the subnet has no gateway")
	}
	gw := o.portAt(from.NetworkID, netip.MustParseAddr(sub.GatewayIP))
	if gw == nil || gw.DeviceOwner != "network:router_interface" {
		return nowhere("nobody is the gateway %s", sub.GatewayIP)
	}
	return o.route(o.routers[gw.DeviceID], from, src, dst, 0)
}

// deliver finds who has the address on the network.
func (o *oracle) deliver(network string, src, dst netip.Addr) place {
	p := o.portAt(network, dst)
	if p == nil {
		return nowhere("nobody has %s", dst)
	}
	return place{port: p, src: src}
}

// route is what a router does with a packet: the longest prefix of its subnets and routes wins,
// then its gateway. from is nil where the packet comes from outside.
func (o *oracle) route(r routers.Router, from *ports.Port, src, dst netip.Addr, hops int) place {
	if !r.AdminStateUp {
		return nowhere("the router %s is down", r.Name)
	}
	if hops > 8 {
		return nowhere("the routers send it round")
	}
	best, via, network := -1, netip.Addr{}, ""
	for _, p := range o.ports {
		if p.DeviceID != r.ID || p.DeviceOwner != "network:router_interface" {
			continue
		}
		for _, ip := range p.FixedIPs {
			if c := netip.MustParsePrefix(o.subnets[ip.SubnetID].CIDR); c.Contains(dst) && c.Bits() > best {
				best, via, network = c.Bits(), netip.Addr{}, p.NetworkID
			}
		}
	}
	for _, e := range r.Routes {
		if c := netip.MustParsePrefix(e.DestinationCIDR); c.Contains(dst) && c.Bits() > best {
			best, via = c.Bits(), netip.MustParseAddr(e.NextHop)
		}
	}
	switch {
	case best >= 0 && !via.IsValid():
		return o.deliver(network, src, dst)
	case best >= 0:
		for _, p := range o.ports { // the next hop is on a network of the router's
			if p.DeviceID == r.ID && p.DeviceOwner == "network:router_interface" {
				if next := o.portAt(p.NetworkID, via); next != nil && next.DeviceOwner == "network:router_interface" && next.ID != p.ID {
					return o.route(o.routers[next.DeviceID], from, src, dst, hops+1)
				}
			}
		}
		return nowhere("the next hop %s is nobody", via)
	case r.GatewayInfo.NetworkID == "":
		return nowhere("the router %s has no way to %s", r.Name, dst)
	}
	if from == nil {
		return nowhere("it would go outside again")
	}
	return o.leave(r, from, src, dst, hops)
}

// leave is what a router does at its gateway: IPv4 goes out with the sender's floating IP, or else with
// the router's address.
func (o *oracle) leave(r routers.Router, from *ports.Port, src, dst netip.Addr, hops int) place {
	out, nat := src, false
	if src.Is4() {
		for _, f := range o.floating {
			if f.PortID == from.ID && f.RouterID == r.ID && f.FixedIP == src.String() {
				out, nat = netip.MustParseAddr(f.FloatingIP), true
			}
		}
		if !nat && (r.GatewayInfo.EnableSNAT == nil || *r.GatewayInfo.EnableSNAT) {
			for _, ip := range r.GatewayInfo.ExternalFixedIPs {
				if a := netip.MustParseAddr(ip.IPAddress); a.Is4() {
					out, nat = a, true
				}
			}
		}
	}
	// An answer that was translated back is routed again from here.
	if nat && hops > 0 {
		if back := o.route(r, nil, dst, src, hops); back.port == nil || back.port.ID != from.ID {
			return nowhere("%s knows no way back to %s", r.Name, src)
		}
	}
	if f := o.floatingAt(dst); f != nil {
		return o.translated(f, out)
	}
	for _, s := range lab.Segments() {
		if dst == s.V4.Addr() || dst == s.V6.Addr() {
			return place{src: out, nat: nat}
		}
	}
	return nowhere("nobody outside has %s", dst)
}

// translated is where a packet to a floating IP ends.
func (o *oracle) translated(f *floatingips.FloatingIP, src netip.Addr) place {
	if !o.routers[f.RouterID].AdminStateUp {
		return nowhere("the floating IP's router is down")
	}
	for i := range o.ports {
		if o.ports[i].ID == f.PortID {
			return place{port: &o.ports[i], src: src, nat: true}
		}
	}
	return nowhere("the floating IP has no port")
}

func (o *oracle) floatingAt(a netip.Addr) *floatingips.FloatingIP {
	i := slices.IndexFunc(o.floating, func(f floatingips.FloatingIP) bool { return f.FloatingIP == a.String() && f.PortID != "" })
	if i < 0 {
		return nil
	}
	return &o.floating[i]
}

// portAt finds who has an address on a network; on any where the network is "".
func (o *oracle) portAt(network string, a netip.Addr) *ports.Port {
	for i, p := range o.ports {
		if network != "" && p.NetworkID != network {
			continue
		}
		for _, ip := range p.FixedIPs {
			if ip.IPAddress == a.String() {
				return &o.ports[i]
			}
		}
	}
	return nil
}

func (o *oracle) subnetOf(p *ports.Port, a netip.Addr) *subnets.Subnet {
	for _, ip := range p.FixedIPs {
		if s, ok := o.subnets[ip.SubnetID]; ok && ip.IPAddress == a.String() {
			return &s
		}
	}
	return nil
}

// allowed asks the port's groups: one rule that matches is enough.
func (o *oracle) allowed(p *ports.Port, dir rules.RuleDirection, remote netip.Addr, s probe.Service) bool {
	for _, r := range o.rules {
		if slices.Contains(p.SecurityGroups, r.SecGroupID) && r.Direction == string(dir) && o.matches(r, remote, s) {
			return true
		}
	}
	return false
}

func (o *oracle) matches(r rules.SecGroupRule, remote netip.Addr, s probe.Service) bool {
	if (r.EtherType == "IPv4") != remote.Is4() {
		return false
	}
	names := map[string][]string{probe.TCP: {"tcp", "6"}, probe.UDP: {"udp", "17"}, probe.ICMP: {"icmp", "1"}}[s.Proto]
	if s.Proto == probe.ICMP && remote.Is6() {
		names = []string{"ipv6-icmp", "icmpv6", "icmp", "58"}
	}
	if r.Protocol != "" && !slices.Contains(names, r.Protocol) {
		return false
	}
	if s.Proto != probe.ICMP && r.PortRangeMax != 0 && (int(s.Port) < r.PortRangeMin || int(s.Port) > r.PortRangeMax) {
		return false
	}
	if r.RemoteIPPrefix != "" && !netip.MustParsePrefix(r.RemoteIPPrefix).Contains(remote) {
		return false
	}
	if r.RemoteGroupID == "" {
		return true
	}
	for _, p := range o.ports {
		if slices.Contains(p.SecurityGroups, r.RemoteGroupID) && slices.ContainsFunc(p.FixedIPs, func(ip ports.IP) bool { return ip.IPAddress == remote.String() }) {
			return true
		}
	}
	return false
}
