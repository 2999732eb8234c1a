package e2e_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gophercloud/gophercloud/v2"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/quotas"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/networks"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/subnets"

	"yakumo/lab"
)

// TestRenumber gives a host another underlay address under its running guests, and the old one
// back: guests on either side are untouched, and their traffic heals by itself.
func TestRenumber(t *testing.T) {
	w := shared(t)
	p := w.blue2.ping(t, w.blue1.addr)
	for _, addr := range []string{"100.64.0.77", "100.64.0.11"} {
		began := time.Now()
		if _, err := command(t.Context(), "lab", "--dir", fix.lab.Dir(), "renumber", "host1", addr); err != nil {
			t.Fatal(err)
		}
		await(t, "host1 to tell its new address", commandPatience, func(ctx context.Context) string {
			hosts, _, err := fix.lab.Inventory(ctx)
			if err != nil {
				return err.Error()
			}
			for _, h := range hosts {
				if h.Name == "host1" && h.TunnelIP == addr && h.Up {
					return ""
				}
			}
			return fmt.Sprint(hosts)
		})
		told := time.Since(began)
		p.more(t, 10)
		measured(t, "host1 renumbered to %s: told after %.2f s; so far %s", addr, told.Seconds(), p.sum(t))
	}
	w.blue1.opens(t, w.blue2.addr)
	l := p.stop(t)
	measured(t, "ping across hosts while one was renumbered twice: %s", l)
	if l.gap > 10*time.Second {
		t.Errorf("traffic was away for %s", l.gap)
	}
}

// underlayState is what the underlay's own switch, a plain bridge, has been taught: its ports, VLANs and
// the addresses behind each port.
func underlayState(t *testing.T) string {
	t.Helper()
	var out []string
	for _, c := range []string{"bridge -o link show", "bridge -o vlan show", "bridge fdb show br underlay"} {
		text, err := on(t.Context(), "server", "sh", "-c", c)
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(strings.TrimSpace(text), "\n")
		slices.Sort(lines)
		out = append(out, lines...)
	}
	return strings.Join(out, "\n")
}

// TestUnderlayKnowsNothing makes a thousand networks, with guests on two of them that talk across
// hosts: the underlay's switch has the same state as before.
func TestUnderlayKnowsNothing(t *testing.T) {
	w := shared(t)
	w.blue1.opens(t, w.blue2.addr)
	for n := range hosts { // every host's address has been seen
		for m := range hosts {
			if _, err := on(t.Context(), lab.HostName(n+1), "ping", "-c", "1", "-W", "5", fmt.Sprintf("100.64.0.%d", 11+m)); err != nil {
				t.Fatal(err)
			}
		}
	}
	before := underlayState(t)
	known := strings.Split(before, "\n") // of which it may forget
	own := mine{t}
	ten := newTenant(t, own, "thousand", "member")
	all := -1
	if _, err := quotas.Update(t.Context(), fix.admin.Network, ten.id, quotas.UpdateOpts{Network: &all, Subnet: &all, SecurityGroup: &all}).Extract(); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	for n := range 1000 {
		c := fix.admin.Network
		made, err := networks.Create(t.Context(), c, networks.CreateOpts{Name: fmt.Sprintf("thousand-%d", n), ProjectID: ten.id}).Extract()
		if err != nil {
			t.Fatal(err)
		}
		own.later(func(t *testing.T) {
			gone(t, "network "+made.Name, networks.Delete(context.Background(), c, made.ID).ExtractErr())
		})
		if n%10 == 0 {
			if _, err := subnets.Create(t.Context(), c, subnets.CreateOpts{NetworkID: made.ID, CIDR: "10.50.0.0/24", IPVersion: gophercloud.IPv4, ProjectID: ten.id}).Extract(); err != nil {
				t.Fatal(err)
			}
		}
	}
	measured(t, "1000 networks made one after the other in %.1f s", time.Since(began).Seconds())
	w.blue1.opens(t, w.blue2.addr)
	w.blue2.opens(t, w.blue1.addr)
	after := underlayState(t)
	if strings.Join(slices.DeleteFunc(strings.Split(after, "\n"), func(line string) bool { return slices.Contains(known, line) }), "") != "" {
		t.Errorf("the underlay's switch was\n%s\nand is\n%s", before, after)
	}
}
