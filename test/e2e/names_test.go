package e2e_test

import (
	"context"
	"strings"
	"testing"

	"github.com/gophercloud/gophercloud/v2"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/dns"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/networks"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/subnets"

	"yakumo/lab"
)

// TestNames asks the resolver that a network without name servers of its own gives to guests: for the
// name of a port of the network, and for names outside, which the host's resolver knows.
func TestNames(t *testing.T) {
	own := mine{t}
	ten := newTenant(t, own, "names", "member")
	n, err := networks.Create(t.Context(), ten.member.Network, dns.NetworkCreateOptsExt{CreateOptsBuilder: networks.CreateOpts{Name: "names"}, DNSDomain: "names.test."}).Extract()
	if err != nil {
		t.Fatal(err)
	}
	own.later(func(t *testing.T) {
		gone(t, "network names", networks.Delete(context.Background(), ten.member.Network, n.ID).ExtractErr())
	})
	s, err := subnets.Create(t.Context(), ten.member.Network, subnets.CreateOpts{NetworkID: n.ID, CIDR: "10.61.0.0/24", IPVersion: gophercloud.IPv4}).Extract()
	if err != nil {
		t.Fatal(err)
	}
	net := &subnet{n, s}
	far := ten.bootOn(t, own, order{name: "far", host: "host2", port: ten.newPort(t, own, net, "10.61.0.77", "").ID})
	g := ten.bootOn(t, own, order{name: "asker", host: "host1", port: ten.newPort(t, own, net, "10.61.0.5", "").ID})
	far.up(t, 1)
	g.up(t, 1)
	outside := lab.Segments()[0]
	for name, want := range map[string]string{"far.names.test": "10.61.0.77", "asker.names.test": "10.61.0.5", "www." + lab.OutsideZone: outside.V4.Addr().String(), "alias." + lab.OutsideZone: outside.V4.Addr().String()} {
		if out, status := g.run(t, "nslookup -type=a "+name); status != 0 || !strings.Contains(out, want) {
			t.Errorf("%s is not %s: %s", name, want, out)
		}
	}
	if out, status := g.run(t, "nslookup -type=aaaa www."+lab.OutsideZone); status != 0 || !strings.Contains(out, outside.V6.Addr().String()) {
		t.Errorf("an AAAA record: %s", out)
	}
	if out, status := g.run(t, "nslookup 10.61.0.77"); status != 0 || !strings.Contains(out, "far.names.test") {
		t.Errorf("the name of an address: %s", out)
	}
	if out, status := g.run(t, "ping -c 1 -W 5 far"); status != 0 { // the network's domain is searched
		t.Errorf("a name without its domain: %s", out)
	}
	if out, status := g.run(t, "nslookup -type=a none."+lab.OutsideZone); status == 0 || !strings.Contains(out, "NXDOMAIN") {
		t.Errorf("a name that is none: %s", out)
	}
}
