package api_test

import (
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

// startRouterCloud is startCloud with the network service, two hosts on which gateways are
// placed, and an external network with a subnet.
func startRouterCloud(t *testing.T) (c *cloud, external string) {
	t.Helper()
	quiet := slog.New(slog.DiscardHandler)
	n := network.New(network.Config{Log: quiet})
	c = startCloud(t, func(*cloud) []api.Service { return []api.Service{neutron.New(neutron.Config{Network: n})} })
	admin := network.Scope{ProjectID: adminProject(t, c), Admin: true}
	if _, err := c.Store.Update(t.Context(), func(tx *store.Tx) error {
		yes, public := true, "public"
		w, err := n.CreateNetwork(tx, admin, network.NetworkSpec{Name: &public, External: &yes})
		if err != nil {
			return err
		}
		external = w.ID
		for _, name := range []string{"h1", "h2"} {
			h := &model.Host{Meta: model.NewMeta("", name, time.Now()), Zone: "nova", TunnelIP: netip.MustParseAddr("192.0.2.1"), Underlay: 1500, StartedAt: time.Now()}
			if err := store.Hosts.Put(tx, h); err != nil {
				return err
			}
			if err := store.Heartbeats.Put(tx, &model.Heartbeat{HostID: h.ID, At: time.Now()}); err != nil {
				return err
			}
		}
		_, err = n.CreateSubnet(tx, admin, network.SubnetSpec{NetworkID: w.ID, IPVersion: 4, CIDR: netip.MustParsePrefix("203.0.113.0/24")})
		return err
	}); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		reconcile.Run(t.Context(), reconcile.Config{Store: c.Store, Identity: "test", Log: quiet}, n.GatewayPlacer())
	}()
	t.Cleanup(func() { <-done })
	return c, external
}

func TestGophercloudRouters(t *testing.T) {
	c, external := startRouterCloud(t)
	acceptance{Package: "networking/v2/extensions/layer3", Run: "^TestLayer3", Env: map[string]string{"OS_EXTGW_ID": external},
		Skips: map[string]string{
			"TestLayer3RouterAgents":           "gophercloud skips it everywhere",
			"TestLayer3RouterExternalGateways": "a router has one gateway",
		},
		Omit: map[string]string{
			"TestLayer3ExternalRouterCreateDelete": "it wants an address that the cloud picked to be shown as an empty text",
		}}.run(t, c)
}
