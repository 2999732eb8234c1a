package network_test

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"yakumo/fault"
	"yakumo/model"
	"yakumo/network"
	"yakumo/store"
	"yakumo/store/storetest"
)

func makePolicy(t testing.TB, s *store.Store, n *network.Network, sc network.Scope, spec network.QoSPolicySpec) *model.QoSPolicy {
	t.Helper()
	return must(t, s, func(tx *store.Tx) (*model.QoSPolicy, error) { return n.CreateQoSPolicy(tx, sc, spec) })
}

func addRule(s *store.Store, t testing.TB, n *network.Network, policy, kind, direction string, rate int) (*network.QoSRuleRow, error) {
	t.Helper()
	spec := network.QoSRuleSpec{Rate: &rate}
	if direction != "" {
		spec.Direction = &direction
	}
	if kind == model.QoSDSCP {
		spec = network.QoSRuleSpec{DSCP: &rate}
	}
	return act(t.Context(), s, func(tx *store.Tx) (*network.QoSRuleRow, error) { return n.CreateQoSRule(tx, admin, policy, kind, spec) })
}

func TestQoSOfAPort(t *testing.T) {
	s, n := storetest.New(t), unlimited()
	own := makePolicy(t, s, n, owner, network.QoSPolicySpec{})
	shared := makePolicy(t, s, n, admin, network.QoSPolicySpec{Shared: ptr(true)})
	foreign := makePolicy(t, s, n, other, network.QoSPolicySpec{})
	for _, r := range []struct {
		policy, kind, direction string
		rate                    int
	}{
		{own.ID, model.QoSBandwidth, "", 1000}, {own.ID, model.QoSBandwidth, model.Ingress, 2000}, {own.ID, model.QoSDSCP, "", 46},
		{shared.ID, model.QoSPacketRate, model.Ingress, 3}, {shared.ID, model.QoSPacketRate, "", 4},
	} {
		if _, err := addRule(s, t, n, r.policy, r.kind, r.direction, r.rate); err != nil {
			t.Fatal(err)
		}
	}
	w := must(t, s, func(tx *store.Tx) (*model.Network, error) {
		return n.CreateNetwork(tx, owner, network.NetworkSpec{QoSPolicyID: &own.ID})
	})
	p := makePort(t, s, n, w)
	q := network.PortQoS(s.Snapshot(), p)
	if q.EgressKbps != 1000 || q.IngressKbps != 2000 || q.DSCP == nil || *q.DSCP != 46 || q.EgressPps != 0 {
		t.Errorf("by its network's policy: %+v", q)
	}
	update := func(sc network.Scope, policy string) error {
		_, err := act(t.Context(), s, func(tx *store.Tx) (*model.Port, error) {
			return n.UpdatePort(tx, sc, p.ID, network.PortSpec{QoSPolicyID: &policy})
		})
		p, _ = store.Ports.Get(s.Snapshot(), p.ID)
		return err
	}
	if err := update(owner, shared.ID); err != nil {
		t.Fatal(err)
	}
	if q := network.PortQoS(s.Snapshot(), p); q.EgressPps != 4000 || q.IngressPps != 3000 || q.EgressKbps != 0 || q.DSCP != nil {
		t.Errorf("by its own policy: %+v", q)
	}
	wantCode(t, update(owner, foreign.ID), fault.NotFound, "QosPolicyNotFound")
	wantCode(t, update(owner, "no"), fault.NotFound, "QosPolicyNotFound")
	if err := update(admin, foreign.ID); err != nil {
		t.Fatal(err)
	}
	// What an administrator laid on a port, its owner does not take off.
	wantCode(t, update(owner, ""), fault.Forbidden, "PolicyRemoveAuthorizationError")
	wantCode(t, update(owner, shared.ID), fault.Forbidden, "PolicyRemoveAuthorizationError")
	if err := update(admin, ""); err != nil {
		t.Fatal(err)
	}
	// The cloud's own ports do not have the network's policy.
	if q := network.PortQoS(s.Snapshot(), &model.Port{NetworkID: w.ID, DeviceOwner: model.OwnerRouterInterface}); q != (model.HostQoS{}) {
		t.Errorf("a router's interface: %+v", q)
	}
	remove := func(id string) error {
		_, err := s.Update(t.Context(), func(tx *store.Tx) error { return n.DeleteQoSPolicy(tx, admin, id) })
		return err
	}
	wantCode(t, remove(own.ID), fault.Conflict, "QosPolicyInUse")
	if err := remove(foreign.ID); err != nil {
		t.Error(err)
	}
	if err := update(owner, shared.ID); err != nil {
		t.Fatal(err)
	}
	wantCode(t, remove(shared.ID), fault.Conflict, "QosPolicyInUse")
	_, err := act(t.Context(), s, func(tx *store.Tx) (*model.QoSPolicy, error) {
		return n.UpdateQoSPolicy(tx, admin, shared.ID, network.QoSPolicySpec{Shared: ptr(false)})
	})
	wantCode(t, err, fault.Conflict, "RbacPolicyInUse")
}

func TestDefaultQoSPolicy(t *testing.T) {
	s, n := storetest.New(t), unlimited()
	if w := makeNetwork(t, s, n); w.QoSPolicyID != "" {
		t.Errorf("a network has the policy %s", w.QoSPolicyID)
	}
	p := makePolicy(t, s, n, owner, network.QoSPolicySpec{Default: ptr(true)})
	if w := makeNetwork(t, s, n); w.QoSPolicyID != p.ID {
		t.Errorf("a new network has the policy %q", w.QoSPolicyID)
	}
	if w := must(t, s, func(tx *store.Tx) (*model.Network, error) {
		return n.CreateNetwork(tx, owner, network.NetworkSpec{QoSPolicyID: ptr("")})
	}); w.QoSPolicyID != "" {
		t.Errorf("a network that wants none has %q", w.QoSPolicyID)
	}
	_, err := act(t.Context(), s, func(tx *store.Tx) (*model.QoSPolicy, error) {
		return n.CreateQoSPolicy(tx, owner, network.QoSPolicySpec{Default: ptr(true)})
	})
	wantCode(t, err, fault.Conflict, "QoSPolicyDefaultAlreadyExists")
	makePolicy(t, s, n, other, network.QoSPolicySpec{Default: ptr(true)})
}

func TestQoSRulesThatConflict(t *testing.T) {
	s, n := storetest.New(t), unlimited()
	p := makePolicy(t, s, n, admin, network.QoSPolicySpec{})
	for _, x := range []struct {
		kind, direction string
		rate            int
		fault           fault.Kind
		code            string // "": it is taken
	}{
		{model.QoSBandwidth, "", 1000, 0, ""},
		{model.QoSBandwidth, model.Egress, 500, fault.Conflict, "QoSRulesConflict"},
		{model.QoSMinBandwidth, model.Egress, 1001, fault.Conflict, "QoSRuleParameterConflict"},
		{model.QoSMinBandwidth, model.Egress, 1000, 0, ""},
		{model.QoSMinBandwidth, model.Ingress, 5000, 0, ""},
		{model.QoSBandwidth, model.Ingress, 4999, fault.Conflict, "QoSRuleParameterConflict"},
		{model.QoSBandwidth, model.Ingress, 0, 0, ""}, // no limit
		{model.QoSDSCP, "", 7, fault.Invalid, "HTTPBadRequest"},
		{model.QoSDSCP, "", 0, 0, ""},
		{model.QoSDSCP, "", 8, fault.Conflict, "QoSRulesConflict"},
		{model.QoSMinPacketRate, model.AnyDirection, 3, 0, ""},
		{model.QoSMinPacketRate, model.Egress, 3, fault.Conflict, "QoSRulesConflict"},
		{model.QoSPacketRate, model.AnyDirection, 3, fault.Invalid, "HTTPBadRequest"},
		{model.QoSPacketRate, "sideways", 3, fault.Invalid, "HTTPBadRequest"},
		{model.QoSPacketRate, model.Egress, -1, fault.Invalid, "HTTPBadRequest"},
		{model.QoSPacketRate, model.Egress, network.MaxRate + 1, fault.Invalid, "HTTPBadRequest"},
	} {
		before, _ := store.QoSPolicies.Get(s.Snapshot(), p.ID)
		_, err := addRule(s, t, n, p.ID, x.kind, x.direction, x.rate)
		if x.code == "" && err != nil {
			t.Errorf("%+v: %v", x, err)
		}
		if x.code != "" {
			wantCode(t, err, x.fault, x.code)
			if after, _ := store.QoSPolicies.Get(s.Snapshot(), p.ID); after.Generation != before.Generation {
				t.Errorf("%+v was refused and changed the policy", x)
			}
		}
	}
}

// TestQoSRulesNeverContradict: whatever is added, changed and removed, a policy has one rule of
// a type and direction, and promises no more than it lets through.
func TestQoSRulesNeverContradict(t *testing.T) {
	s, n := storetest.New(t), unlimited()
	rapid.Check(t, func(rt *rapid.T) {
		p := makePolicy(t, s, n, admin, network.QoSPolicySpec{})
		for range rapid.IntRange(1, 12).Draw(rt, "steps") {
			kind := rapid.SampledFrom(network.QoSRuleTypes()).Draw(rt, "kind")
			row, _ := store.QoSPolicies.Get(s.Snapshot(), p.ID)
			spec := network.QoSRuleSpec{Rate: ptr(rapid.IntRange(0, 5).Draw(rt, "rate"))}
			if d := network.QoSDirections(kind); len(d) > 0 && rapid.Bool().Draw(rt, "directed") {
				spec.Direction = ptr(rapid.SampledFrom(d).Draw(rt, "direction"))
			}
			if len(row.Rules) > 0 && rapid.Bool().Draw(rt, "old") {
				x := rapid.SampledFrom(row.Rules).Draw(rt, "rule")
				s.Update(t.Context(), func(tx *store.Tx) error {
					if rapid.Bool().Draw(rt, "delete") {
						return n.DeleteQoSRule(tx, admin, "", x.Type, x.ID)
					}
					if x.Type == model.QoSDSCP {
						return nil
					}
					_, err := n.UpdateQoSRule(tx, admin, p.ID, x.Type, x.ID, spec)
					return err
				})
			} else {
				s.Update(t.Context(), func(tx *store.Tx) error {
					_, err := n.CreateQoSRule(tx, admin, p.ID, kind, spec)
					return err
				})
			}
			row, _ = store.QoSPolicies.Get(s.Snapshot(), p.ID)
			rates := map[string]int{}
			for _, r := range row.Rules {
				key := r.Type + "," + r.Direction
				if _, twice := rates[key]; twice {
					rt.Fatalf("two rules of %s: %+v", key, row.Rules)
				}
				rates[key] = r.Rate
				if !slices.Contains(network.QoSDirections(r.Type), r.Direction) && r.Direction != "" {
					rt.Fatalf("a rule of the direction %q: %+v", r.Direction, r)
				}
			}
			for _, d := range []string{model.Egress, model.Ingress} {
				for low, high := range map[string]string{model.QoSMinBandwidth: model.QoSBandwidth, model.QoSMinPacketRate: model.QoSPacketRate} {
					if most := rates[high+","+d]; most > 0 && rates[low+","+d] > most {
						rt.Fatalf("%s promises %d of %d: %+v", d, rates[low+","+d], most, row.Rules)
					}
				}
			}
		}
	})
}

// TestPromisesAreHeeded: no change of a policy, a network or a port promises a host more than it has.
func TestPromisesAreHeeded(t *testing.T) {
	s, n := storetest.New(t), unlimited()
	h := joinHost(t, s, model.Host{Meta: model.Meta{Name: "a"}, BridgeMappings: []string{"physnet1"}, Bandwidth: map[string]int{"physnet1": 1000, "tunnel": 300}})
	p := makePolicy(t, s, n, admin, network.QoSPolicySpec{Shared: ptr(true)})
	rule, err := addRule(s, t, n, p.ID, model.QoSMinBandwidth, "", 400)
	if err != nil {
		t.Fatal(err)
	}
	w := must(t, s, func(tx *store.Tx) (*model.Network, error) {
		return n.CreateNetwork(tx, admin, network.NetworkSpec{ProjectID: ptr(project), Type: ptr("flat"), PhysicalNetwork: ptr("physnet1"), QoSPolicyID: &p.ID})
	})
	tunnel := makeNetwork(t, s, n)
	for range 2 {
		x := makePort(t, s, n, w)
		must(t, s, func(tx *store.Tx) (*model.Port, error) { return n.BindPort(tx, x.ID, h.ID) })
	}
	promised := func() string { return fmt.Sprint(store.Promises(s.Snapshot())[h.ID]) }
	want := fmt.Sprint(map[model.Traffic]int{{Network: "physnet1", Direction: "egress"}: 800})
	if got := promised(); got != want {
		t.Fatalf("promised %s, want %s", got, want)
	}
	set := func(rate int) error {
		_, err := s.Update(t.Context(), func(tx *store.Tx) error {
			_, err := n.UpdateQoSRule(tx, admin, p.ID, model.QoSMinBandwidth, rule.ID, network.QoSRuleSpec{Rate: &rate})
			return err
		})
		return err
	}
	wantCode(t, set(501), fault.Conflict, "QosPlacementAllocationConflict")
	if err := set(500); err != nil {
		t.Errorf("exactly what there is: %v", err)
	}
	other := must(t, s, func(tx *store.Tx) (*model.Port, error) {
		return n.CreatePort(tx, owner, network.PortSpec{NetworkID: tunnel.ID})
	})
	must(t, s, func(tx *store.Tx) (*model.Port, error) { return n.BindPort(tx, other.ID, h.ID) })
	_, err = act(t.Context(), s, func(tx *store.Tx) (*model.Port, error) {
		return n.UpdatePort(tx, owner, other.ID, network.PortSpec{QoSPolicyID: &p.ID})
	})
	wantCode(t, err, fault.Conflict, "QosPlacementAllocationConflict")
	_, err = act(t.Context(), s, func(tx *store.Tx) (*model.Network, error) {
		return n.UpdateNetwork(tx, owner, tunnel.ID, network.NetworkSpec{QoSPolicyID: &p.ID})
	})
	wantCode(t, err, fault.Conflict, "QosPlacementAllocationConflict")
	if err := set(150); err != nil {
		t.Fatal(err)
	}
	must(t, s, func(tx *store.Tx) (*model.Network, error) {
		return n.UpdateNetwork(tx, owner, tunnel.ID, network.NetworkSpec{QoSPolicyID: &p.ID})
	})
	want = fmt.Sprint(map[model.Traffic]int{{Network: "physnet1", Direction: "egress"}: 300, {Network: "tunnel", Direction: "egress"}: 150})
	if got := promised(); got != want {
		t.Errorf("promised %s, want %s", got, want)
	}
}
