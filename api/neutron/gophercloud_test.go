package neutron_test

import (
	"net/http/httptest"
	"slices"
	"testing"

	"github.com/gophercloud/gophercloud/v2"
	"github.com/gophercloud/gophercloud/v2/openstack/common/extensions"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/agents"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/attributestags"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/extradhcpopts"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/mtu"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/networkipavailabilities"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/portsbinding"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/portsecurity"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/provider"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/quotas"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/security/groups"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/security/rules"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/networks"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/ports"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/subnets"
)

// TestGophercloud does what a program written with gophercloud does, from a network to
// its end, as a tenant and as an administrator.
func TestGophercloud(t *testing.T) {
	c := newCloud(t)
	host := c.host("h1")
	server := httptest.NewServer(c.front)
	t.Cleanup(server.Close)
	client := func(token string) *gophercloud.ServiceClient {
		return &gophercloud.ServiceClient{ProviderClient: &gophercloud.ProviderClient{TokenID: token},
			Endpoint: server.URL + "/network/", ResourceBase: server.URL + "/network/v2.0/", Type: "network"}
	}
	ctx, red1, admin := t.Context(), client("red"), client("admin")
	ok := func(what string, err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}

	w, err := networks.Create(ctx, red1, mtu.CreateOptsExt{CreateOptsBuilder: networks.CreateOpts{Name: "w", AdminStateUp: gophercloud.Enabled}, MTU: 1400}).Extract()
	ok("create a network", err)
	s, err := subnets.Create(ctx, red1, subnets.CreateOpts{
		NetworkID: w.ID, CIDR: "10.0.0.0/24", IPVersion: gophercloud.IPv4, Name: "s", DNSNameservers: []string{"9.9.9.9"},
		AllocationPools: []subnets.AllocationPool{{Start: "10.0.0.10", End: "10.0.0.20"}},
		HostRoutes:      []subnets.HostRoute{{DestinationCIDR: "10.5.0.0/16", NextHop: "10.0.0.9"}},
	}).Extract()
	ok("create a subnet", err)
	if s.GatewayIP != "10.0.0.1" || !s.EnableDHCP || len(s.AllocationPools) != 1 || s.HostRoutes[0].NextHop != "10.0.0.9" {
		t.Errorf("subnet: %+v", s)
	}
	none := ""
	s, err = subnets.Update(ctx, red1, s.ID, subnets.UpdateOpts{GatewayIP: &none, EnableDHCP: gophercloud.Disabled}).Extract()
	ok("update a subnet", err)
	if s.GatewayIP != "" || s.EnableDHCP {
		t.Errorf("subnet without gateway: %+v", s)
	}

	g, err := groups.Create(ctx, red1, groups.CreateOpts{Name: "g"}).Extract()
	ok("create a group", err)
	r, err := rules.Create(ctx, red1, rules.CreateOpts{SecGroupID: g.ID, Direction: rules.DirIngress, EtherType: rules.EtherType4,
		Protocol: rules.ProtocolTCP, PortRangeMin: 80, PortRangeMax: 90, RemoteIPPrefix: "10.0.0.0/8"}).Extract()
	ok("create a rule", err)
	g, err = groups.Get(ctx, red1, g.ID).Extract()
	ok("get a group", err)
	if len(g.Rules) != 3 || !slices.ContainsFunc(g.Rules, func(x rules.SecGroupRule) bool { return x.ID == r.ID && x.PortRangeMax == 90 }) {
		t.Errorf("group: %+v", g)
	}

	var p struct {
		ports.Port
		portsecurity.PortSecurityExt
		extradhcpopts.ExtraDHCPOptsExt
	}
	err = ports.Create(ctx, red1, extradhcpopts.CreateOptsExt{
		CreateOptsBuilder: ports.CreateOpts{NetworkID: w.ID, Name: "p", SecurityGroups: &[]string{g.ID}, FixedIPs: []ports.IP{{SubnetID: s.ID, IPAddress: "10.0.0.15"}},
			AllowedAddressPairs: []ports.AddressPair{{IPAddress: "10.0.0.200"}}},
		ExtraDHCPOpts: []extradhcpopts.CreateExtraDHCPOpt{{OptName: "router", OptValue: "10.0.0.5"}},
	}).ExtractInto(&p)
	ok("create a port", err)
	if p.FixedIPs[0].IPAddress != "10.0.0.15" || p.Status != "DOWN" || !p.PortSecurityEnabled || len(p.ExtraDHCPOpts) != 1 ||
		!slices.Equal(p.SecurityGroups, []string{g.ID}) || p.AllowedAddressPairs[0].MACAddress != p.MACAddress {
		t.Errorf("port: %+v", p)
	}
	err = ports.Update(ctx, red1, p.ID, portsecurity.PortUpdateOptsExt{
		UpdateOptsBuilder:   ports.UpdateOpts{SecurityGroups: &[]string{}, AllowedAddressPairs: &[]ports.AddressPair{}},
		PortSecurityEnabled: gophercloud.Disabled,
	}).ExtractInto(&p)
	ok("update a port", err)
	if p.PortSecurityEnabled || len(p.SecurityGroups) != 0 {
		t.Errorf("port: %+v", p)
	}
	pages, err := ports.List(red1, ports.ListOpts{FixedIPs: []ports.FixedIPOpts{{IPAddress: "10.0.0.15"}}, NetworkID: w.ID}).AllPages(ctx)
	ok("list ports", err)
	list, err := ports.ExtractPorts(pages)
	ok("read the list", err)
	if len(list) != 1 || list[0].ID != p.ID {
		t.Errorf("ports: %+v", list)
	}

	for range 4 {
		_, err := networks.Create(ctx, red1, networks.CreateOpts{Name: "more"}).Extract()
		ok("create a network", err)
	}
	pages, err = networks.List(red1, networks.ListOpts{Limit: 2, SortKey: "name", SortDir: "asc"}).AllPages(ctx)
	ok("list networks in pages", err)
	all, err := networks.ExtractNetworks(pages)
	ok("read the list", err)
	if len(all) != 5 || all[4].ID != w.ID {
		t.Errorf("networks: %+v", all)
	}

	tags, err := attributestags.ReplaceAll(ctx, red1, "networks", w.ID, attributestags.ReplaceAllOpts{Tags: []string{"b", "a"}}).Extract()
	ok("set tags", err)
	if !slices.Equal(tags, []string{"a", "b"}) {
		t.Errorf("tags: %v", tags)
	}
	ok("add a tag", attributestags.Add(ctx, red1, "networks", w.ID, "c").ExtractErr())
	if there, err := attributestags.Confirm(ctx, red1, "networks", w.ID, "c").Extract(); err != nil || !there {
		t.Errorf("the tag: %v, %v", there, err)
	}
	ok("remove a tag", attributestags.Delete(ctx, red1, "networks", w.ID, "c").ExtractErr())

	var pw struct {
		networks.Network
		provider.NetworkProviderExt
	}
	ok("the network as an administrator sees it", networks.Get(ctx, admin, w.ID).ExtractInto(&pw))
	if pw.NetworkType != "vxlan" || pw.SegmentationID == "" {
		t.Errorf("provider: %+v", pw.NetworkProviderExt)
	}
	var bound struct {
		ports.Port
		portsbinding.PortsBindingExt
	}
	hostName := "h1"
	ok("bind a port", ports.Update(ctx, admin, p.ID, portsbinding.UpdateOptsExt{UpdateOptsBuilder: ports.UpdateOpts{}, HostID: &hostName}).ExtractInto(&bound))
	if bound.HostID != "h1" || bound.VIFType != "ovs" {
		t.Errorf("binding: %+v", bound.PortsBindingExt)
	}
	pages, err = agents.List(admin, agents.ListOpts{}).AllPages(ctx)
	ok("list agents", err)
	agentList, err := agents.ExtractAgents(pages)
	ok("read the agents", err)
	if len(agentList) != 1 || agentList[0].ID != host.ID || !agentList[0].Alive {
		t.Errorf("agents: %+v", agentList)
	}
	limit := 7
	q, err := quotas.Update(ctx, admin, red, quotas.UpdateOpts{Network: &limit}).Extract()
	ok("set a quota", err)
	if q.Network != 7 || q.Port != 500 {
		t.Errorf("quota: %+v", q)
	}
	detail, err := quotas.GetDetail(ctx, admin, red).Extract()
	ok("quota in detail", err)
	if detail.Network.Used != 5 || detail.Network.Limit != 7 {
		t.Errorf("quota in detail: %+v", detail.Network)
	}
	use, err := networkipavailabilities.Get(ctx, admin, w.ID).Extract()
	ok("addresses in use", err)
	if use.TotalIPs != "11" || use.UsedIPs != "1" {
		t.Errorf("addresses: %+v", use)
	}
	pages, err = extensions.List(red1).AllPages(ctx)
	ok("list extensions", err)
	ext, err := extensions.ExtractExtensions(pages)
	ok("read the extensions", err)
	if len(ext) < 20 {
		t.Errorf("%d extensions", len(ext))
	}

	_, err = networks.Get(ctx, client("blue"), w.ID).Extract()
	if !gophercloud.ResponseCodeIs(err, 404) {
		t.Errorf("another project: %v", err)
	}
	if err := networks.Delete(ctx, red1, w.ID).ExtractErr(); !gophercloud.ResponseCodeIs(err, 409) {
		t.Errorf("delete a network in use: %v", err)
	}
	ok("delete the port", ports.Delete(ctx, red1, p.ID).ExtractErr())
	ok("delete the rule", rules.Delete(ctx, red1, r.ID).ExtractErr())
	ok("delete the group", groups.Delete(ctx, red1, g.ID).ExtractErr())
	ok("delete the subnet", subnets.Delete(ctx, red1, s.ID).ExtractErr())
	ok("delete the network", networks.Delete(ctx, red1, w.ID).ExtractErr())
}
