package api_test

import (
	"errors"
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"yakumo/api"
	"yakumo/api/neutron"
	"yakumo/model"
	"yakumo/network"
	"yakumo/reconcile"
	"yakumo/store"
)

// startNetworkCloud is startCloud with the network service, a host that has a provider
// bridge, and an external network with a subnet.
func startNetworkCloud(t *testing.T) (c *cloud, env map[string]string) {
	t.Helper()
	quiet := slog.New(slog.DiscardHandler)
	net := network.New(network.Config{Log: quiet})
	c = startCloud(t, func(*cloud) []api.Service { return []api.Service{neutron.New(neutron.Config{Network: net})} })
	project := adminProject(t, c)
	sc := network.Scope{ProjectID: project, Admin: true}
	var outside *model.Network
	if _, err := c.Store.Update(t.Context(), func(tx *store.Tx) error {
		for i, name := range []string{"localhost", "127.0.0.1"} { // hosts that a test binds a port to
			h := &model.Host{Meta: model.NewMeta("", name, time.Now()), Zone: "nova", TunnelIP: netip.AddrFrom4([4]byte{192, 0, 2, byte(i + 1)}), Underlay: 1500, StartedAt: time.Now(),
				BridgeMappings: []string{"physnet1", "public"}, ProviderBridges: []string{"br-ex", "br-pub"}}
			if err := errors.Join(store.Hosts.Put(tx, h), store.Heartbeats.Put(tx, &model.Heartbeat{HostID: h.ID, At: time.Now()})); err != nil {
				return err
			}
		}
		name, flat, physical, yes := "public", model.NetworkFlat, "public", true
		var err error
		if outside, err = net.CreateNetwork(tx, sc, network.NetworkSpec{Name: &name, Type: &flat, PhysicalNetwork: &physical, External: &yes}); err != nil {
			return err
		}
		_, err = net.CreateSubnet(tx, sc, network.SubnetSpec{NetworkID: outside.ID, IPVersion: 4, CIDR: netip.MustParsePrefix("203.0.113.0/24")})
		return err
	}); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		reconcile.Run(t.Context(), reconcile.Config{Store: c.Store, Identity: "test", Log: quiet}, net.GatewayPlacer())
	}()
	t.Cleanup(func() { <-done })
	return c, map[string]string{"OS_EXTGW_ID": outside.ID, "OS_NETWORK_ID": outside.ID, "OS_POOL_NAME": "public", "OS_PROJECT_ID": project}
}

// TestGophercloudNetwork runs every package of gophercloud's network acceptance tests that
// is about what Yakumo offers.
func TestGophercloudNetwork(t *testing.T) {
	c, env := startNetworkCloud(t)
	const ext = "networking/v2/extensions"
	for _, a := range []acceptance{
		{Package: "networking/v2", Omit: map[string]string{"TestPortsTrustedVIFCRUD": "is about SR-IOV, which is not offered"}},
		{Package: ext},
		{Package: ext + "/dns", Skips: map[string]string{"TestDNSFloatingIPCRUD": "gophercloud skips it everywhere"}},
		{Package: ext + "/layer3", Skips: map[string]string{
			"TestLayer3RouterAgents":           "gophercloud skips it everywhere",
			"TestLayer3RouterExternalGateways": "a router has one gateway",
		}, Omit: map[string]string{"TestLayer3ExternalRouterCreateDelete": "it wants an address that the cloud picked to be shown as an empty text"}},
		{Package: ext + "/mtu"},
		{Package: ext + "/networkipavailabilities"},
		{Package: ext + "/portsbinding"},
		{Package: ext + "/qos/policies"},
		{Package: ext + "/qos/rules"},
		{Package: ext + "/qos/ruletypes"},
		{Package: ext + "/quotas"},
		{Package: ext + "/rbacpolicies"},
		{Package: ext + "/subnetpools"},
		{Package: ext + "/trunk_details"},
		{Package: ext + "/trunks"},
		{Package: ext + "/vlantransparent"},
	} {
		t.Run(a.Package, func(t *testing.T) {
			a.Env = env
			a.run(t, c)
		})
	}
}
