package e2e_test

import (
	"context"
	"net/netip"
	"testing"

	"github.com/gophercloud/gophercloud/v2"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/external"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/layer3/floatingips"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/layer3/routers"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/security/groups"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/security/rules"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/networks"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/ports"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/subnets"

	"yakumo/lab"
)

// external is an external network on a segment of the lab's outside.
type externalNet struct {
	network *networks.Network
	v4, v6  *subnets.Subnet
}

// provided adds where a network is on the wire: one segment, by the attributes that everybody but
// gophercloud's own extension uses.
type provided struct {
	networks.CreateOptsBuilder
	kind string // provider:network_type
	vlan int
}

// ToNetworkCreateMap implements networks.CreateOptsBuilder.
func (p provided) ToNetworkCreateMap() (map[string]any, error) {
	m, err := p.CreateOptsBuilder.ToNetworkCreateMap()
	if err != nil {
		return nil, err
	}
	n := m["network"].(map[string]any)
	n["provider:network_type"], n["provider:physical_network"] = p.kind, lab.PhysicalNetwork
	if p.vlan != 0 {
		n["provider:segmentation_id"] = p.vlan
	}
	return m, nil
}

// newExternal makes an external network on the segment: flat where it is untagged. Of each
// family the addresses from .100 (::100) to .199 are the cloud's.
func newExternal(t *testing.T, own owner, name string, s lab.Segment) *externalNet {
	t.Helper()
	c, yes := fix.admin.Network, true
	kind := "flat"
	if s.VLAN != 0 {
		kind = "vlan"
	}
	n, err := networks.Create(t.Context(), c, provided{external.CreateOptsExt{CreateOptsBuilder: networks.CreateOpts{Name: name}, External: &yes}, kind, s.VLAN}).Extract()
	if err != nil {
		t.Fatalf("create the external network %s: %v", name, err)
	}
	own.later(func(t *testing.T) {
		gone(t, "external network "+name, networks.Delete(context.Background(), c, n.ID).ExtractErr())
	})
	x, no := &externalNet{network: n}, false
	for _, f := range []struct {
		into       **subnets.Subnet
		prefix     netip.Prefix
		version    gophercloud.IPVersion
		start, end string
	}{{&x.v4, s.V4, gophercloud.IPv4, "100", "199"}, {&x.v6, s.V6, gophercloud.IPv6, "100", "199"}} {
		gateway := f.prefix.Addr().String()
		base := gateway[:len(gateway)-1] // they end in .1 and ::1
		if *f.into, err = subnets.Create(t.Context(), c, subnets.CreateOpts{NetworkID: n.ID, Name: name, CIDR: f.prefix.Masked().String(), IPVersion: f.version,
			GatewayIP: &gateway, EnableDHCP: &no, AllocationPools: []subnets.AllocationPool{{Start: base + f.start, End: base + f.end}}}).Extract(); err != nil {
			t.Fatalf("create a subnet of %s: %v", name, err)
		}
	}
	return x
}

// newSubnet6 adds an IPv6 subnet, whose guests make their addresses by SLAAC or are told nothing.
func (ten *tenant) newSubnet6(t *testing.T, n *subnet, cidr string, slaac bool) *subnets.Subnet {
	t.Helper()
	opts := subnets.CreateOpts{NetworkID: n.network.ID, Name: n.network.Name + "-v6", CIDR: cidr, IPVersion: gophercloud.IPv6}
	if slaac {
		opts.IPv6RAMode, opts.IPv6AddressMode = "slaac", "slaac"
	}
	s, err := subnets.Create(t.Context(), ten.member.Network, opts).Extract()
	if err != nil {
		t.Fatalf("create the subnet %s: %v", cidr, err)
	}
	return s
}

// newRouter makes a router, with a gateway where x is not nil, and puts it into subnets at their
// gateway addresses.
func (ten *tenant) newRouter(t *testing.T, own owner, name string, x *externalNet, in ...*subnets.Subnet) *routers.Router {
	t.Helper()
	c := ten.member.Network
	opts := routers.CreateOpts{Name: name}
	if x != nil {
		opts.GatewayInfo = &routers.GatewayInfo{NetworkID: x.network.ID}
	}
	r, err := routers.Create(t.Context(), c, opts).Extract()
	if err != nil {
		t.Fatalf("create the router %s: %v", name, err)
	}
	own.later(func(t *testing.T) {
		gone(t, "router "+name, routers.Delete(context.Background(), c, r.ID).ExtractErr())
	})
	for _, s := range in {
		ten.joinRouter(t, own, r, routers.AddInterfaceOpts{SubnetID: s.ID})
	}
	return r
}

// joinRouter gives a router an interface.
func (ten *tenant) joinRouter(t *testing.T, own owner, r *routers.Router, opts routers.AddInterfaceOpts) *routers.InterfaceInfo {
	t.Helper()
	info, err := routers.AddInterface(t.Context(), ten.member.Network, r.ID, opts).Extract()
	if err != nil {
		t.Fatalf("add %+v to the router %s: %v", opts, r.Name, err)
	}
	own.later(func(t *testing.T) {
		bg := context.Background()
		_, err := routers.RemoveInterface(bg, ten.member.Network, r.ID, routers.RemoveInterfaceOpts{SubnetID: opts.SubnetID, PortID: opts.PortID}).Extract()
		gone(t, "interface of the router "+r.Name, err)
	})
	return info
}

// setRoutes replaces a router's extra routes; they go before its interfaces do.
func (ten *tenant) setRoutes(t *testing.T, own owner, r *routers.Router, list ...routers.Route) {
	t.Helper()
	set := func(ctx context.Context, list []routers.Route) error {
		_, err := routers.Update(ctx, ten.member.Network, r.ID, routers.UpdateOpts{Routes: &list}).Extract()
		return err
	}
	if err := set(t.Context(), list); err != nil {
		t.Fatalf("set routes of %s: %v", r.Name, err)
	}
	if own != nil {
		own.later(func(t *testing.T) { gone(t, "routes of "+r.Name, set(context.Background(), []routers.Route{})) })
	}
}

// newFloating makes a floating IP for a port's IPv4 address.
func (ten *tenant) newFloating(t *testing.T, own owner, x *externalNet, port string) *floatingips.FloatingIP {
	t.Helper()
	f, err := floatingips.Create(t.Context(), ten.member.Network, floatingips.CreateOpts{FloatingNetworkID: x.network.ID, PortID: port}).Extract()
	if err != nil {
		t.Fatalf("create a floating IP: %v", err)
	}
	own.later(func(t *testing.T) {
		gone(t, "floating IP "+f.FloatingIP, floatingips.Delete(context.Background(), ten.member.Network, f.ID).ExtractErr())
	})
	return f
}

// newGroupOf makes a security group with rules besides those to the outside that each group begins with.
func (ten *tenant) newGroupOf(t *testing.T, own owner, name string, list ...rules.CreateOpts) *groups.SecGroup {
	t.Helper()
	c := ten.member.Network
	g, err := groups.Create(t.Context(), c, groups.CreateOpts{Name: name}).Extract()
	if err != nil {
		t.Fatalf("create the group %s: %v", name, err)
	}
	own.later(func(t *testing.T) { gone(t, "group "+name, groups.Delete(context.Background(), c, g.ID).ExtractErr()) })
	for _, r := range list {
		ten.permit(t, g.ID, r)
	}
	return g
}

// permit adds a rule to a group; of both families where it names none.
func (ten *tenant) permit(t *testing.T, group string, r rules.CreateOpts) (ids []string) {
	t.Helper()
	r.SecGroupID = group
	if r.Direction == "" {
		r.Direction = rules.DirIngress
	}
	families := []rules.RuleEtherType{r.EtherType}
	if r.EtherType == "" {
		families = []rules.RuleEtherType{rules.EtherType4, rules.EtherType6}
	}
	for _, f := range families {
		one := r
		if one.EtherType = f; f == rules.EtherType6 && r.Protocol == rules.ProtocolICMP {
			one.Protocol = rules.ProtocolIPv6ICMP
		}
		made, err := rules.Create(t.Context(), ten.member.Network, one).Extract()
		if err != nil {
			t.Fatalf("create the rule %+v: %v", one, err)
		}
		ids = append(ids, made.ID)
	}
	return ids
}

// newDualPort makes a port with an address of each of the network's subnets, in the groups; the
// IPv6 one is made of the MAC.
func (ten *tenant) newDualPort(t *testing.T, own owner, n *subnet, six *subnets.Subnet, addr, mac string, groups ...string) *ports.Port {
	t.Helper()
	opts := ports.CreateOpts{NetworkID: n.network.ID, MACAddress: mac, SecurityGroups: &groups,
		FixedIPs: []ports.IP{{SubnetID: n.subnet.ID, IPAddress: addr}, {SubnetID: six.ID}}}
	p, err := ports.Create(t.Context(), ten.member.Network, opts).Extract()
	if err != nil {
		t.Fatalf("create a port with %s: %v", addr, err)
	}
	own.later(func(t *testing.T) {
		gone(t, "port "+addr, ports.Delete(context.Background(), ten.member.Network, p.ID).ExtractErr())
	})
	return p
}
