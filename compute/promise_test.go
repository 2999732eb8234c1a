package compute_test

import (
	"strings"
	"testing"

	"yakumo/compute"
	"yakumo/model"
	"yakumo/network"
	"yakumo/store"
)

// TestPlacementHeedsTheNetwork: a server goes to a host that reaches its physical networks and
// has what its ports, the subports of its trunks among them, are promised.
func TestPlacementHeedsTheNetwork(t *testing.T) {
	w := newWorld(t)
	limits := network.DefaultQuotas()
	n := network.New(network.Config{Log: quiet, Defaults: limits, PhysicalNetworks: []string{"physnet1"}})
	w.row("plain", func(h *model.Host) { h.Bandwidth = map[string]int{"tunnel": 100_000} })
	wired := w.row("wired", func(h *model.Host) {
		h.Capacity.MemoryMiB = 4096 // the other would be preferred
		h.BridgeMappings, h.Bandwidth = []string{"physnet1"}, map[string]int{"physnet1": 1000, "tunnel": 100}
	})
	admin, sc := network.Scope{ProjectID: "a", Admin: true}, network.Scope{ProjectID: project}
	var flat, tunnel *model.Network
	var policy *model.QoSPolicy
	rate, owner := 400, "compute:nova"
	w.update(func(tx *store.Tx) (err error) {
		kind, physical, of := "flat", "physnet1", string(project)
		if flat, err = n.CreateNetwork(tx, admin, network.NetworkSpec{Type: &kind, PhysicalNetwork: &physical, ProjectID: &of}); err != nil {
			return err
		}
		if tunnel, err = n.CreateNetwork(tx, sc, network.NetworkSpec{}); err != nil {
			return err
		}
		shared := true
		if policy, err = n.CreateQoSPolicy(tx, admin, network.QoSPolicySpec{Shared: &shared}); err != nil {
			return err
		}
		_, err = n.CreateQoSRule(tx, admin, policy.ID, model.QoSMinBandwidth, network.QoSRuleSpec{Rate: &rate})
		return err
	})
	// server makes one with a port in a network, which is the parent of a trunk with a subport in flat where that is asked.
	server := func(in *model.Network, qos string, trunk bool) *model.Server {
		t.Helper()
		id := model.NewID()
		var port *model.Port
		w.update(func(tx *store.Tx) (err error) {
			if port, err = n.CreatePort(tx, sc, network.PortSpec{NetworkID: in.ID, DeviceID: &id, DeviceOwner: &owner, QoSPolicyID: &qos}); err != nil || !trunk {
				return err
			}
			sub, err := n.CreatePort(tx, sc, network.PortSpec{NetworkID: flat.ID, QoSPolicyID: &policy.ID})
			if err != nil {
				return err
			}
			mtu := 1400
			if _, err := n.UpdateNetwork(tx, sc, flat.ID, network.NetworkSpec{MTU: &mtu}); err != nil {
				return err
			}
			_, err = n.CreateTrunk(tx, sc, network.TrunkSpec{PortID: port.ID, SubPorts: []network.SubPortSpec{{PortID: sub.ID, Type: network.SubPortVLAN, VLAN: 7}}})
			return err
		})
		return w.create(func(x *compute.NewServer) { x.ID, x.Ports = id, []model.ID{port.ID} })
	}
	placed := func(s *model.Server) string {
		t.Helper()
		var out string
		w.wait("server "+s.ID+" placed or refused", func(snap store.Snapshot) bool {
			x, ok := store.Servers.Get(snap, s.ID)
			if !ok || x.Status.Phase == model.PhasePlacing {
				return false
			}
			out = x.Host
			if f := x.Status.Fault; f != nil {
				out = f.Message + "\n" + f.Details
			}
			return true
		})
		return out
	}
	w.run("one")
	for i, x := range []struct {
		s    *model.Server
		want string
	}{
		{server(flat, "", false), wired.ID},
		{server(flat, policy.ID, false), wired.ID},
		{server(tunnel, "", true), wired.ID}, // for the sake of its subport
	} {
		if got := placed(x.s); got != x.want {
			t.Fatalf("server %d: %s, want %s", i, got, x.want)
		}
	}
	for port := range store.Ports.List(w.s.Snapshot(), "qos", policy.ID) {
		if port.Host != wired.ID {
			t.Errorf("the port %s with its promise is on %q", port.ID, port.Host)
		}
	}
	got := placed(server(flat, policy.ID, false))
	for _, want := range []string{"1 of 2: it does not reach a physical network", "1 of 2: it has too little bandwidth left to promise",
		"plain: physical_network: it has no bridge for physnet1", "wired: bandwidth: wants 400 kbit/s egress on physnet1; 800 of 1000 promised"} {
		if !strings.Contains(got, want) {
			t.Errorf("the refusal does not say %q: %s", want, got)
		}
	}
}
