package network_test

import (
	"errors"
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"yakumo/fault"
	"yakumo/model"
	"yakumo/network"
	"yakumo/store"
	"yakumo/store/storetest"
)

func sub(p *model.Port, vlan int) network.SubPortSpec {
	return network.SubPortSpec{PortID: p.ID, Type: network.SubPortVLAN, VLAN: vlan}
}

func TestTrunkRules(t *testing.T) {
	s := storetest.New(t)
	limits := map[string]int{}
	for _, name := range network.QuotaNames() {
		limits[name] = -1
	}
	limits[network.QuotaTrunk] = 2
	n := network.New(network.Config{Defaults: limits, PhysicalNetworks: []string{"physnet1"}})
	h := joinHost(t, s, model.Host{Meta: model.Meta{Name: "a"}})
	w := makeNetwork(t, s, n)
	tagged := must(t, s, func(tx *store.Tx) (*model.Network, error) {
		return n.CreateNetwork(tx, admin, network.NetworkSpec{ProjectID: ptr(project), Type: ptr("vlan"), PhysicalNetwork: ptr("physnet1"), Segmentation: ptr(33), MTU: ptr(1450)})
	})
	large := must(t, s, func(tx *store.Tx) (*model.Network, error) {
		return n.CreateNetwork(tx, admin, network.NetworkSpec{ProjectID: ptr(project), Type: ptr("gre")})
	})
	parent, a, b, used, far := makePort(t, s, n, w), makePort(t, s, n, w), makePort(t, s, n, tagged), makePort(t, s, n, w), makePort(t, s, n, w)
	big := makePort(t, s, n, large)
	must(t, s, func(tx *store.Tx) (*model.Port, error) {
		return n.AttachPort(tx, owner, used.ID, "server", "compute:nova")
	})
	must(t, s, func(tx *store.Tx) (*model.Port, error) { return n.BindPort(tx, far.ID, h.ID) })
	create := func(sc network.Scope, port string, subs ...network.SubPortSpec) (*model.Trunk, error) {
		return act(t.Context(), s, func(tx *store.Tx) (*model.Trunk, error) {
			return n.CreateTrunk(tx, sc, network.TrunkSpec{PortID: port, SubPorts: subs})
		})
	}
	_, err := create(other, parent.ID)
	wantCode(t, err, fault.NotFound, "PortNotFound")
	for _, x := range []struct {
		subs []network.SubPortSpec
		kind fault.Kind
		code string
	}{
		{[]network.SubPortSpec{sub(parent, 5)}, fault.Conflict, "ParentPortInUse"},
		{[]network.SubPortSpec{sub(used, 5)}, fault.Conflict, "PortInUse"},
		{[]network.SubPortSpec{sub(far, 5)}, fault.Conflict, "SubPortBindingError"},
		{[]network.SubPortSpec{sub(big, 5)}, fault.Conflict, "SubPortMtuGreaterThanTrunkPortMtu"},
		{[]network.SubPortSpec{sub(a, 5), sub(b, 5)}, fault.Conflict, "DuplicateSubPort"},
		{[]network.SubPortSpec{sub(a, 5), sub(a, 6)}, fault.Conflict, "TrunkPortInUse"},
		{[]network.SubPortSpec{sub(a, 0)}, fault.Invalid, "InvalidInput"},
		{[]network.SubPortSpec{sub(a, 4095)}, fault.Invalid, "InvalidInput"},
		{[]network.SubPortSpec{{PortID: a.ID, Type: "vxlan", VLAN: 5}}, fault.Invalid, "InvalidInput"},
		{[]network.SubPortSpec{{PortID: a.ID, Type: network.SubPortInherit}}, fault.Invalid, "InvalidInput"},
		{[]network.SubPortSpec{{PortID: "no", Type: network.SubPortVLAN, VLAN: 5}}, fault.NotFound, "PortNotFound"},
		{make([]network.SubPortSpec, network.MaxSubPorts+1), fault.Invalid, "InvalidInput"},
	} {
		_, err := create(owner, parent.ID, x.subs...)
		wantCode(t, err, x.kind, x.code)
	}
	if p, _ := store.Ports.Get(s.Snapshot(), parent.ID); p.TrunkID != "" {
		t.Errorf("what was refused has made %+v a parent", p)
	}
	tr, err := create(owner, parent.ID, sub(a, 5), network.SubPortSpec{PortID: b.ID, Type: network.SubPortInherit})
	if err != nil || len(tr.SubPorts) != 2 || tr.SubPorts[1].VLAN != 33 {
		t.Fatalf("%+v, %v", tr, err)
	}
	_, err = create(owner, parent.ID)
	wantCode(t, err, fault.Conflict, "ParentPortInUse")
	_, err = create(owner, a.ID)
	wantCode(t, err, fault.Conflict, "TrunkPortInUse")
	if _, err := create(owner, far.ID); err != nil { // a bound port will do
		t.Error(err)
	}
	_, err = create(owner, used.ID)
	wantCode(t, err, fault.OverQuota, "OverQuota")

	// A port of a trunk is not deleted, given to a device or bound by itself.
	drop := func(id string) error {
		_, err := s.Update(t.Context(), func(tx *store.Tx) error { return n.DeletePort(tx, owner, id) })
		return err
	}
	wantCode(t, drop(parent.ID), fault.Conflict, "PortInUseAsTrunkParent")
	wantCode(t, drop(a.ID), fault.Conflict, "PortInUseAsSubPort")
	_, err = act(t.Context(), s, func(tx *store.Tx) (*model.Port, error) {
		return n.AttachPort(tx, owner, a.ID, "server", "compute:nova")
	})
	wantCode(t, err, fault.Conflict, "PortInUse")
	_, err = act(t.Context(), s, func(tx *store.Tx) (*model.Port, error) {
		return n.UpdatePort(tx, admin, a.ID, network.PortSpec{Host: ptr("a")})
	})
	wantCode(t, err, fault.Conflict, "SubPortBindingError")
	_, err = act(t.Context(), s, func(tx *store.Tx) (*model.Port, error) {
		return n.UpdatePort(tx, owner, a.ID, network.PortSpec{DeviceID: ptr("")})
	})
	wantCode(t, err, fault.Conflict, "PortInUseAsSubPort")

	change := func(f func(tx *store.Tx) (*model.Trunk, error)) error {
		_, err := act(t.Context(), s, f)
		return err
	}
	wantCode(t, change(func(tx *store.Tx) (*model.Trunk, error) { return n.RemoveSubPorts(tx, owner, tr.ID, []string{used.ID}) }), fault.NotFound, "SubPortNotFound")
	if err := change(func(tx *store.Tx) (*model.Trunk, error) {
		return n.UpdateTrunk(tx, owner, tr.ID, network.TrunkSpec{AdminStateUp: ptr(false)})
	}); err != nil {
		t.Fatal(err)
	}
	wantCode(t, change(func(tx *store.Tx) (*model.Trunk, error) { return n.RemoveSubPorts(tx, owner, tr.ID, []string{a.ID}) }), fault.Conflict, "TrunkDisabled")
	wantCode(t, change(func(tx *store.Tx) (*model.Trunk, error) { return n.AddSubPorts(tx, owner, tr.ID, nil) }), fault.Conflict, "TrunkDisabled")
	wantCode(t, change(func(tx *store.Tx) (*model.Trunk, error) { return nil, n.DeleteTrunk(tx, owner, tr.ID) }), fault.Conflict, "TrunkDisabled")
	wantCode(t, change(func(tx *store.Tx) (*model.Trunk, error) { return nil, n.DeleteTrunk(tx, other, tr.ID) }), fault.NotFound, "TrunkNotFound")
	if err := change(func(tx *store.Tx) (*model.Trunk, error) {
		return n.UpdateTrunk(tx, owner, tr.ID, network.TrunkSpec{AdminStateUp: ptr(true)})
	}); err != nil {
		t.Fatal(err)
	}
	if err := change(func(tx *store.Tx) (*model.Trunk, error) { return nil, n.DeleteTrunk(tx, owner, tr.ID) }); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{parent.ID, a.ID, b.ID} {
		if p, _ := store.Ports.Get(s.Snapshot(), id); p.TrunkID != "" || p.ParentID != "" || p.VLAN != 0 || p.DeviceOwner != "" || p.DeviceID != "" {
			t.Errorf("of the trunk that is gone is left %+v", p)
		}
		if err := drop(id); err != nil {
			t.Error(err)
		}
	}
}

// TestSubPortsFollowTheirParent: whatever is bound, released, joined and parted, the rows of
// ports and trunks agree, and a subport is where its parent is.
func TestSubPortsFollowTheirParent(t *testing.T) {
	s, n := storetest.New(t), unlimited()
	joinHost(t, s, model.Host{Meta: model.Meta{Name: "a"}})
	w := makeNetwork(t, s, n)
	rapid.Check(t, func(rt *rapid.T) {
		var ports []string
		for range 5 {
			p, err := act(t.Context(), s, func(tx *store.Tx) (*model.Port, error) {
				return n.CreatePort(tx, owner, network.PortSpec{NetworkID: w.ID, Owned: rapid.Bool().Draw(rt, "owned")})
			})
			if err != nil {
				rt.Fatal(err)
			}
			ports = append(ports, p.ID)
		}
		port := func() string { return rapid.SampledFrom(ports).Draw(rt, "port") }
		var trunks []string
		for range rapid.IntRange(1, 15).Draw(rt, "steps") {
			step, id, host, vlan := rapid.IntRange(0, 8).Draw(rt, "step"), port(), rapid.SampledFrom([]string{"", "h1", "h2"}).Draw(rt, "host"), rapid.IntRange(1, 3).Draw(rt, "vlan")
			other, trunk := port(), "none"
			if len(trunks) > 0 {
				trunk = rapid.SampledFrom(trunks).Draw(rt, "trunk")
			}
			var made *model.Trunk
			_, err := s.Update(t.Context(), func(tx *store.Tx) (err error) {
				spec := []network.SubPortSpec{{PortID: other, Type: network.SubPortVLAN, VLAN: vlan}}
				switch step {
				case 0:
					made, err = n.CreateTrunk(tx, owner, network.TrunkSpec{PortID: id, SubPorts: spec})
				case 1:
					_, err = n.AddSubPorts(tx, owner, trunk, spec)
				case 2:
					_, err = n.RemoveSubPorts(tx, owner, trunk, []string{id})
				case 3:
					err = n.DeleteTrunk(tx, owner, trunk)
				case 4, 5:
					if p, ok := store.Ports.Get(tx, id); ok && p.ParentID == "" { // the cloud binds what servers have
						_, err = n.BindPort(tx, id, host)
					}
				case 6:
					if p, ok := store.Ports.Get(tx, id); ok && p.ParentID == "" {
						err = n.ReleasePort(tx, id)
					}
				case 7:
					err = n.DeletePort(tx, owner, id)
				case 8:
					if p, ok := store.Ports.Get(tx, id); ok && p.ParentID == "" {
						err = n.PreparePort(tx, id, host)
					}
				}
				return err
			})
			if err == nil && made != nil {
				trunks = append(trunks, made.ID)
			}
			if err := disagreement(s.Snapshot(), ports); err != nil {
				rt.Fatalf("step %d: %v", step, err)
			}
		}
		for _, id := range trunks {
			if _, err := s.Update(t.Context(), func(tx *store.Tx) error { return n.DeleteTrunk(tx, owner, id) }); err != nil && !fault.Is(err, fault.NotFound) {
				rt.Fatal(err)
			}
		}
		for _, id := range ports {
			if _, err := s.Update(t.Context(), func(tx *store.Tx) error { return n.DeletePort(tx, owner, id) }); err != nil && !fault.Is(err, fault.NotFound) {
				rt.Fatalf("delete port: %v", err)
			}
		}
	})
}

func disagreement(snap store.Snapshot, ports []string) error {
	at := map[string]string{} // the trunk of each port, by the trunks
	for tr := range store.Trunks.All(snap) {
		parent, ok := store.Ports.Get(snap, tr.PortID)
		if !ok || parent.TrunkID != tr.ID || parent.ParentID != "" {
			return fmt.Errorf("the trunk %s has the parent %+v", tr.ID, parent)
		}
		at[tr.PortID] = tr.ID
		vlans := map[uint16]bool{}
		for _, x := range tr.SubPorts {
			p, ok := store.Ports.Get(snap, x.PortID)
			switch {
			case !ok:
				return errors.New("a subport is gone")
			case p.TrunkID != tr.ID || p.ParentID != tr.PortID || p.VLAN != x.VLAN || p.Host != parent.Host || p.NextHost != parent.NextHost || vlans[x.VLAN]:
				return fmt.Errorf("the subport %+v of %+v, whose parent is on %q", p, tr, parent.Host)
			}
			vlans[x.VLAN] = true
			at[p.ID] = tr.ID
		}
	}
	for _, id := range ports {
		if p, ok := store.Ports.Get(snap, id); ok && p.TrunkID != at[id] {
			return fmt.Errorf("the port %+v is in the trunk %q", p, at[id])
		}
	}
	return nil
}
