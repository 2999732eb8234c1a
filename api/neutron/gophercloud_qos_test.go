package neutron_test

import (
	"net/http/httptest"
	"testing"

	"github.com/gophercloud/gophercloud/v2"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/provider"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/qos/policies"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/qos/rules"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/qos/ruletypes"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/quotas"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/trunk_details"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/trunks"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/vlantransparent"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/networks"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/ports"
)

// TestGophercloudSegments does with gophercloud what is done with provider networks, QoS and
// trunks, from creation to end.
func TestGophercloudSegments(t *testing.T) {
	c := newCloud(t)
	c.host("h1")
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

	var w struct {
		networks.Network
		provider.NetworkProviderExt
		vlantransparent.TransparentExt
	}
	vlan := func(id int) provider.CreateOptsExt {
		return provider.CreateOptsExt{CreateOptsBuilder: networks.CreateOpts{Name: "v", ProjectID: red},
			Segments: []provider.Segment{{NetworkType: "vlan", PhysicalNetwork: "physnet1", SegmentationID: id}}}
	}
	ok("create a VLAN network", networks.Create(ctx, admin, vlan(100)).ExtractInto(&w))
	if w.NetworkType != "vlan" || w.PhysicalNetwork != "physnet1" || w.SegmentationID != "100" {
		t.Errorf("made %+v", w.NetworkProviderExt)
	}
	if _, err := networks.Create(ctx, admin, vlan(100)).Extract(); !gophercloud.ResponseCodeIs(err, 409) {
		t.Errorf("the same VLAN again: %v", err)
	}
	ok("delete the VLAN network", networks.Delete(ctx, admin, w.ID).ExtractErr())
	transparent := true
	ok("create a transparent network", networks.Create(ctx, red1, vlantransparent.CreateOptsExt{CreateOptsBuilder: networks.CreateOpts{Name: "w"}, VLANTransparent: &transparent}).ExtractInto(&w))
	if !w.VLANTransparent {
		t.Errorf("made %+v", w)
	}

	yes := true
	p, err := policies.Create(ctx, admin, policies.CreateOpts{Name: "gold", ProjectID: red, Shared: true, IsDefault: true}).Extract()
	ok("create a policy", err)
	limit, err := rules.CreateBandwidthLimitRule(ctx, admin, p.ID, rules.CreateBandwidthLimitRuleOpts{MaxKBps: 3000, MaxBurstKBps: 300, Direction: "ingress"}).ExtractBandwidthLimitRule()
	ok("create a limit", err)
	mark, err := rules.CreateDSCPMarkingRule(ctx, admin, p.ID, rules.CreateDSCPMarkingRuleOpts{DSCPMark: 26}).ExtractDSCPMarkingRule()
	ok("create a mark", err)
	low, err := rules.CreateMinimumBandwidthRule(ctx, admin, p.ID, rules.CreateMinimumBandwidthRuleOpts{MinKBps: 1000}).ExtractMinimumBandwidthRule()
	ok("create a minimum", err)
	if limit.MaxKBps != 3000 || limit.MaxBurstKBps != 300 || limit.Direction != "ingress" || mark.DSCPMark != 26 || low.MinKBps != 1000 || low.Direction != "egress" {
		t.Errorf("rules: %+v %+v %+v", limit, mark, low)
	}
	rate := 4000
	limit, err = rules.UpdateBandwidthLimitRule(ctx, admin, p.ID, limit.ID, rules.UpdateBandwidthLimitRuleOpts{MaxKBps: &rate}).ExtractBandwidthLimitRule()
	ok("change the limit", err)
	p, err = policies.Get(ctx, red1, p.ID).Extract()
	ok("get the policy", err)
	if limit.MaxKBps != 4000 || len(p.Rules) != 3 || !p.Shared || !p.IsDefault || p.RevisionNumber != 5 {
		t.Errorf("policy: %+v", p)
	}
	pages, err := ruletypes.ListRuleTypes(red1).AllPages(ctx)
	ok("list types", err)
	if types, err := ruletypes.ExtractRuleTypes(pages); err != nil || len(types) != 5 {
		t.Errorf("types: %v, %v", types, err)
	}
	pages, err = policies.List(red1, policies.ListOpts{Name: "gold", Shared: &yes}).AllPages(ctx)
	ok("list policies", err)
	if list, err := policies.ExtractPolicies(pages); err != nil || len(list) != 1 {
		t.Errorf("policies: %v, %v", list, err)
	}

	var given struct {
		networks.Network
		policies.QoSPolicyExt
	}
	ok("a network with the default policy", networks.Create(ctx, red1, networks.CreateOpts{Name: "n"}).ExtractInto(&given))
	if given.QoSPolicyID != p.ID {
		t.Errorf("a new network has the policy %q", given.QoSPolicyID)
	}
	none := ""
	ok("take it off", networks.Update(ctx, red1, given.ID, policies.NetworkUpdateOptsExt{UpdateOptsBuilder: networks.UpdateOpts{}, QoSPolicyID: &none}).Err)
	given.QoSPolicyID = ""
	ok("the network", networks.Get(ctx, red1, given.ID).ExtractInto(&given)) // a null leaves what was there
	var port struct {
		ports.Port
		policies.QoSPolicyExt
		trunk_details.TrunkDetailsExt
	}
	ok("a port with a policy", ports.Create(ctx, red1, policies.PortCreateOptsExt{CreateOptsBuilder: ports.CreateOpts{NetworkID: given.ID}, QoSPolicyID: p.ID}).ExtractInto(&port))
	if given.QoSPolicyID != "" || port.QoSPolicyID != p.ID {
		t.Errorf("policies: %q, %q", given.QoSPolicyID, port.QoSPolicyID)
	}
	if err := policies.Delete(ctx, admin, p.ID).ExtractErr(); !gophercloud.ResponseCodeIs(err, 409) {
		t.Errorf("delete a policy in use: %v", err)
	}
	ok("set the port's policy off", ports.Update(ctx, red1, port.ID, policies.PortUpdateOptsExt{UpdateOptsBuilder: ports.UpdateOpts{}, QoSPolicyID: &none}).ExtractInto(&port))

	child, err := ports.Create(ctx, red1, ports.CreateOpts{NetworkID: w.ID}).Extract()
	ok("a subport", err)
	second, err := ports.Create(ctx, red1, ports.CreateOpts{NetworkID: w.ID}).Extract()
	ok("another", err)
	tr, err := trunks.Create(ctx, red1, trunks.CreateOpts{Name: "t", PortID: port.ID, Subports: []trunks.Subport{{PortID: child.ID, SegmentationType: "vlan", SegmentationID: 100}}}).Extract()
	ok("a trunk", err)
	tr, err = trunks.AddSubports(ctx, red1, tr.ID, trunks.AddSubportsOpts{Subports: []trunks.Subport{{PortID: second.ID, SegmentationType: "vlan", SegmentationID: 101}}}).Extract()
	ok("add a subport", err)
	if len(tr.Subports) != 2 || tr.Status != "DOWN" || tr.PortID != port.ID {
		t.Errorf("trunk: %+v", tr)
	}
	ok("the parent", ports.Get(ctx, red1, port.ID).ExtractInto(&port))
	if port.TrunkDetails.TrunkID != tr.ID || len(port.TrunkDetails.SubPorts) != 2 || port.TrunkDetails.SubPorts[0].MACAddress != child.MACAddress {
		t.Errorf("trunk details: %+v", port.TrunkDetails)
	}
	tr, err = trunks.RemoveSubports(ctx, red1, tr.ID, trunks.RemoveSubportsOpts{Subports: []trunks.RemoveSubport{{PortID: child.ID}}}).Extract()
	ok("remove a subport", err)
	subs, err := trunks.GetSubports(ctx, red1, tr.ID).Extract()
	ok("list subports", err)
	if len(subs) != 1 || subs[0].SegmentationID != 101 || len(tr.Subports) != 1 {
		t.Errorf("subports: %+v, %+v", subs, tr)
	}
	name := "u"
	tr, err = trunks.Update(ctx, red1, tr.ID, trunks.UpdateOpts{Name: &name}).Extract()
	ok("rename", err)
	pages, err = trunks.List(red1, trunks.ListOpts{Name: "u", PortID: port.ID}).AllPages(ctx)
	ok("list trunks", err)
	if list, err := trunks.ExtractTrunks(pages); err != nil || len(list) != 1 || list[0].ID != tr.ID {
		t.Errorf("trunks: %v, %v", list, err)
	}
	if err := ports.Delete(ctx, red1, port.ID).ExtractErr(); !gophercloud.ResponseCodeIs(err, 409) {
		t.Errorf("delete a parent: %v", err)
	}
	detail, err := quotas.GetDetail(ctx, admin, red).Extract()
	ok("quota in detail", err)
	if detail.Trunk.Used != 1 || detail.Trunk.Limit != -1 {
		t.Errorf("quota: %+v", detail.Trunk)
	}
	ok("delete the trunk", trunks.Delete(ctx, red1, tr.ID).ExtractErr())
	for _, id := range []string{port.ID, child.ID, second.ID} {
		ok("delete a port", ports.Delete(ctx, red1, id).ExtractErr())
	}
	ok("delete a rule", rules.DeleteBandwidthLimitRule(ctx, admin, p.ID, limit.ID).ExtractErr())
	ok("delete the policy", policies.Delete(ctx, admin, p.ID).ExtractErr())
}
