package e2e_test

import (
	"context"
	"strings"
	"testing"

	"github.com/gophercloud/gophercloud/v2"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/dns"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/networks"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/ports"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/subnets"
)

// TestIPv6Only boots guests on networks without IPv4, one a mode: they get their address, their user data by
// the metadata service at its IPv6 address, and reach each other by address and by name.
func TestIPv6Only(t *testing.T) {
	for _, mode := range []string{"slaac", "dhcpv6-stateful"} {
		t.Run(mode, func(t *testing.T) {
			own := mine{t}
			ten := newTenant(t, own, "six", "member")
			n, err := networks.Create(t.Context(), ten.member.Network, dns.NetworkCreateOptsExt{CreateOptsBuilder: networks.CreateOpts{Name: "six"}, DNSDomain: "six.test."}).Extract()
			if err != nil {
				t.Fatal(err)
			}
			own.later(func(t *testing.T) {
				gone(t, "network six", networks.Delete(context.Background(), ten.member.Network, n.ID).ExtractErr())
			})
			if _, err := subnets.Create(t.Context(), ten.member.Network, subnets.CreateOpts{NetworkID: n.ID, CIDR: "fd00:61::/64", IPVersion: gophercloud.IPv6,
				IPv6RAMode: mode, IPv6AddressMode: mode}).Extract(); err != nil {
				t.Fatal(err)
			}
			port := func(name string) *ports.Port {
				p, err := ports.Create(t.Context(), ten.member.Network, ports.CreateOpts{NetworkID: n.ID, Name: name}).Extract()
				if err != nil {
					t.Fatal(err)
				}
				own.later(func(t *testing.T) {
					gone(t, "port "+name, ports.Delete(context.Background(), ten.member.Network, p.ID).ExtractErr())
				})
				return p
			}
			pf, pa := port("far"), port("asker")
			far := ten.bootOn(t, own, order{name: "far", host: "host2", port: pf.ID})
			g := ten.bootOn(t, own, order{name: "asker", host: "host1", port: pa.ID, userData: "#!/bin/sh\ntouch /run/by-metadata\n"})
			far.up(t, 1)
			g.up(t, 1)
			g.until(t, "[ -e /run/by-metadata ]", "/run/by-metadata")
			if out, status := g.run(t, "ip -6 addr show dev eth0"); status != 0 || !strings.Contains(out, pa.FixedIPs[0].IPAddress+"/") {
				t.Errorf("its address is not %s: %s", pa.FixedIPs[0].IPAddress, out)
			}
			if out, status := g.run(t, "ping -6 -c 1 -W 5 "+pf.FixedIPs[0].IPAddress); status != 0 {
				t.Errorf("the other guest: %s", out)
			}
			if out, status := g.run(t, "nslookup -type=aaaa far.six.test"); status != 0 || !strings.Contains(out, pf.FixedIPs[0].IPAddress) {
				t.Errorf("its name: %s", out)
			}
		})
	}
}
