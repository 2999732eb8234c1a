package e2e_test

import (
	"context"
	"testing"
	"time"

	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/servers"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/networks"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/ports"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/subnets"

	"yakumo/lab"
)

// TestDeletedLeavesNothing: when the last guest, port and network are gone no host holds a flow,
// device, port of the switch, domain, file or process of theirs, and the API no row. It ends the
// shared guests, so it tells of all that was done before, too.
func TestDeletedLeavesNothing(t *testing.T) {
	w := shared(t)
	healthy(t)
	// A port that is deleted under its guest, and a guest that is deleted while it boots.
	third := w.blue.bootOn(t, mine{t}, order{name: "third", host: "host3", network: w.blueNet.network.ID})
	third.active(t)
	for n := range hosts {
		host := lab.HostName(n + 1)
		tr, err := hostTraces(t.Context(), host)
		if err != nil {
			t.Fatal(err)
		}
		// Otherwise an empty host would prove nothing.
		if e := fix.empty[host]; tr.Flows <= e.Flows || len(tr.Devices) <= len(e.Devices) || len(tr.Ports) <= len(e.Ports) || len(tr.Domains) == 0 || len(tr.Servers) == 0 || tr.QEMUs == 0 {
			t.Errorf("%s has a guest and shows %+v, and %+v without", host, tr, e)
		}
	}
	page, err := ports.List(w.blue.member.Network, ports.ListOpts{DeviceID: third.id}).AllPages(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	thirds, err := ports.ExtractPorts(page)
	if err != nil || len(thirds) != 1 {
		t.Fatalf("the third guest has the ports %v: %v", thirds, err)
	}
	if err := ports.Delete(t.Context(), w.blue.member.Network, thirds[0].ID).ExtractErr(); err != nil {
		t.Errorf("delete the port of a guest: %v", err)
	}
	early := w.blue.bootOn(t, mine{t}, order{name: "early", host: "host3", network: w.blueNet.network.ID})
	for _, g := range []*guest{early, third} {
		g.remove(t)
	}
	w.end(t)
	began := time.Now()
	for n := range hosts {
		host := lab.HostName(n + 1)
		await(t, host+" to be as it was before its first guest", bootPatience, func(ctx context.Context) string {
			tr, err := hostTraces(ctx, host)
			if err != nil {
				return err.Error()
			}
			return fix.empty[host].differs(tr)
		})
	}
	measured(t, "hosts are empty %.1f s after the last deletion", time.Since(began).Seconds())

	ctx := t.Context()
	if page, err := servers.List(fix.admin.Compute, servers.ListOpts{AllTenants: true}).AllPages(ctx); err != nil {
		t.Error(err)
	} else if all, err := servers.ExtractServers(page); err != nil || len(all) != 0 {
		t.Errorf("servers are left: %v, %v", all, err)
	}
	if page, err := ports.List(fix.admin.Network, nil).AllPages(ctx); err != nil {
		t.Error(err)
	} else if all, err := ports.ExtractPorts(page); err != nil || len(all) != 0 {
		t.Errorf("ports are left: %v, %v", all, err)
	}
	if page, err := networks.List(fix.admin.Network, nil).AllPages(ctx); err != nil {
		t.Error(err)
	} else if all, err := networks.ExtractNetworks(page); err != nil || len(all) != 0 {
		t.Errorf("networks are left: %v, %v", all, err)
	}
	if page, err := subnets.List(fix.admin.Network, nil).AllPages(ctx); err != nil {
		t.Error(err)
	} else if all, err := subnets.ExtractSubnets(page); err != nil || len(all) != 0 {
		t.Errorf("subnets are left: %v, %v", all, err)
	}
}
