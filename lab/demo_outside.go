package lab

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/gophercloud/gophercloud/v2"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/external"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/layer3/floatingips"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/layer3/routers"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/security/rules"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/networks"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/ports"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/subnets"

	"yakumo/fault"
)

// Names of what leads the demonstration outside.
const (
	demoPublic = "public"
	demoRouter = "demo"
)

// flatNetwork is an external network on the outside's untagged segment.
type flatNetwork struct{ networks.CreateOptsBuilder }

// ToNetworkCreateMap implements networks.CreateOptsBuilder.
func (f flatNetwork) ToNetworkCreateMap() (map[string]any, error) {
	m, err := f.CreateOptsBuilder.ToNetworkCreateMap()
	if err != nil {
		return nil, err
	}
	n := m["network"].(map[string]any)
	n["provider:network_type"], n["provider:physical_network"] = "flat", PhysicalNetwork
	return m, nil
}

// ensurePublic makes the external network, of which the cloud has the addresses from .100 to .199.
func ensurePublic(ctx context.Context, c *Cloud) (string, error) {
	page, err := networks.List(c.Network, networks.ListOpts{Name: demoPublic}).AllPages(ctx)
	n, err := first(page, err, networks.ExtractNetworks)
	if err != nil {
		return "", err
	}
	yes, no := true, false
	if n == nil {
		if n, err = networks.Create(ctx, c.Network, flatNetwork{external.CreateOptsExt{CreateOptsBuilder: networks.CreateOpts{Name: demoPublic}, External: &yes}}).Extract(); err != nil {
			return "", err
		}
	}
	if len(n.Subnets) > 0 {
		return n.ID, nil
	}
	s := Segments()[0]
	gateway := s.V4.Addr().String()
	base := strings.TrimSuffix(gateway, "1")
	_, err = subnets.Create(ctx, c.Network, subnets.CreateOpts{NetworkID: n.ID, Name: demoPublic + "-v4", CIDR: s.V4.Masked().String(), IPVersion: gophercloud.IPv4,
		GatewayIP: &gateway, EnableDHCP: &no, AllocationPools: []subnets.AllocationPool{{Start: base + "100", End: base + "199"}}}).Extract()
	return n.ID, err
}

// ensureRouter makes the router between the external network and the demonstration's.
func ensureRouter(ctx context.Context, c *Cloud, public, network string) error {
	page, err := routers.List(c.Network, routers.ListOpts{Name: demoRouter}).AllPages(ctx)
	r, err := first(page, err, routers.ExtractRouters)
	if err != nil {
		return err
	}
	if r == nil {
		if r, err = routers.Create(ctx, c.Network, routers.CreateOpts{Name: demoRouter, GatewayInfo: &routers.GatewayInfo{NetworkID: public}}).Extract(); err != nil {
			return err
		}
	}
	n, err := networks.Get(ctx, c.Network, network).Extract()
	if err != nil {
		return err
	}
	page, err = ports.List(c.Network, ports.ListOpts{DeviceID: r.ID, NetworkID: network}).AllPages(ctx)
	if p, err := first(page, err, ports.ExtractPorts); p != nil || err != nil {
		return err
	}
	_, err = routers.AddInterface(ctx, c.Network, r.ID, routers.AddInterfaceOpts{SubnetID: n.Subnets[0]}).Extract()
	return err
}

// ensureFloating gives the guest's port a floating IP, and lets pings in.
func ensureFloating(ctx context.Context, c *Cloud, public, guest string) (string, error) {
	page, err := ports.List(c.Network, ports.ListOpts{DeviceID: guest}).AllPages(ctx)
	p, err := first(page, err, ports.ExtractPorts)
	if err != nil || p == nil {
		return "", fault.Wrap(fault.NotFound, err, "The guest has no port.")
	}
	for _, g := range p.SecurityGroups {
		_, err := rules.Create(ctx, c.Network, rules.CreateOpts{SecGroupID: g, Direction: rules.DirIngress, EtherType: rules.EtherType4, Protocol: rules.ProtocolICMP}).Extract()
		if err != nil && !gophercloud.ResponseCodeIs(err, 409) { // it is there from a run before
			return "", err
		}
	}
	page, err = floatingips.List(c.Network, floatingips.ListOpts{PortID: p.ID}).AllPages(ctx)
	f, err := first(page, err, floatingips.ExtractFloatingIPs)
	if err != nil {
		return "", err
	}
	if f == nil {
		if f, err = floatingips.Create(ctx, c.Network, floatingips.CreateOpts{FloatingNetworkID: public, PortID: p.ID}).Extract(); err != nil {
			return "", err
		}
	}
	return f.FloatingIP, nil
}

// pingFromOutside waits until the outside gets answers, and gives what ping printed.
func (l *Lab) pingFromOutside(ctx context.Context, address string) ([]string, error) {
	if _, err := netip.ParseAddr(address); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		if l.Command(ctx, OutsideMachine, "ping", "-c", "1", "-W", "1", address).Run() == nil {
			break
		}
		if ctx.Err() != nil {
			return nil, fmt.Errorf("the outside gets no answer from %s: %w", address, ctx.Err())
		}
	}
	out, err := l.Command(ctx, OutsideMachine, "ping", "-i", "0.2", "-c", "3", "-W", "2", address).Output()
	return strings.Split(strings.TrimSpace(string(out)), "\n"), err
}
