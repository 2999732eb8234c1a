package network_test

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"yakumo/fault"
	"yakumo/model"
	"yakumo/network"
	"yakumo/store"
	"yakumo/store/storetest"
)

const project = "11111111111111111111111111111111"

var (
	owner = network.Scope{ProjectID: project}
	other = network.Scope{ProjectID: "22222222222222222222222222222222"}
	admin = network.Scope{ProjectID: "33333333333333333333333333333333", Admin: true}
)

// unlimited is a Network whose projects may have whatever they like.
func unlimited() *network.Network {
	limits := map[string]int{}
	for _, name := range network.QuotaNames() {
		limits[name] = -1
	}
	return network.New(network.Config{Log: slog.New(slog.DiscardHandler), Defaults: limits})
}

// act runs f in a transaction and gives what it made.
func act[T any](ctx context.Context, s *store.Store, f func(tx *store.Tx) (T, error)) (T, error) {
	var out T
	_, err := s.Update(ctx, func(tx *store.Tx) error {
		var err error
		out, err = f(tx)
		return err
	})
	return out, err
}

func must[T any](t testing.TB, s *store.Store, f func(tx *store.Tx) (T, error)) T {
	t.Helper()
	out, err := act(t.Context(), s, f)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func wantCode(t testing.TB, err error, kind fault.Kind, code string) {
	t.Helper()
	if !fault.Is(err, kind) || fault.CodeOf(err) != code {
		t.Errorf("error = %v (%s, %s), want %s, %s", err, fault.KindOf(err), fault.CodeOf(err), kind, code)
	}
}

func makeNetwork(t testing.TB, s *store.Store, n *network.Network) *model.Network {
	t.Helper()
	return must(t, s, func(tx *store.Tx) (*model.Network, error) { return n.CreateNetwork(tx, owner, network.NetworkSpec{}) })
}

func makeSubnet(t testing.TB, s *store.Store, n *network.Network, w *model.Network, spec network.SubnetSpec) *model.Subnet {
	t.Helper()
	spec.NetworkID = w.ID
	return must(t, s, func(tx *store.Tx) (*model.Subnet, error) { return n.CreateSubnet(tx, owner, spec) })
}

func makePort(t testing.TB, s *store.Store, n *network.Network, w *model.Network) *model.Port {
	t.Helper()
	return must(t, s, func(tx *store.Tx) (*model.Port, error) {
		return n.CreatePort(tx, owner, network.PortSpec{NetworkID: w.ID})
	})
}

func ptr[T any](v T) *T { return &v }

func addr(s string) netip.Addr     { return netip.MustParseAddr(s) }
func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

// TestMoreNetworksThanVLANs: identifiers come from 24 bits, so that there can be more
// networks than a VLAN tag can number, each with an identifier of its own.
func TestMoreNetworksThanVLANs(t *testing.T) {
	s, n := storetest.New(t), unlimited()
	const total, batch = 4200, 150
	for made := 0; made < total; made += batch {
		if _, err := s.Update(t.Context(), func(tx *store.Tx) error {
			for range batch {
				if _, err := n.CreateNetwork(tx, owner, network.NetworkSpec{}); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	seen, high := map[uint32]bool{}, 0
	for w := range store.Networks.All(s.Snapshot()) {
		if w.VNI < model.MinVNI || w.VNI > model.MaxVNI || seen[w.VNI] {
			t.Fatalf("VNI %d is out of range or there twice", w.VNI)
		}
		seen[w.VNI] = true
		if w.VNI > 4094 {
			high++
		}
	}
	if len(seen) != total || high < total/2 {
		t.Errorf("%d networks, %d above 4094", len(seen), high)
	}
}

func TestVNIRangeIsUsedUpExactly(t *testing.T) {
	s := storetest.New(t)
	n := network.New(network.Config{MinVNI: 100, MaxVNI: 119, Defaults: map[string]int{network.QuotaNetwork: -1}})
	for range 20 {
		makeNetwork(t, s, n)
	}
	_, err := act(t.Context(), s, func(tx *store.Tx) (*model.Network, error) { return n.CreateNetwork(tx, owner, network.NetworkSpec{}) })
	wantCode(t, err, fault.Unavailable, "NoNetworkAvailable")
	var one *model.Network
	for w := range store.Networks.All(s.Snapshot()) {
		one = w
	}
	if _, err := s.Update(t.Context(), func(tx *store.Tx) error { return n.DeleteNetwork(tx, owner, one.ID) }); err != nil {
		t.Fatal(err)
	}
	if w := makeNetwork(t, s, n); w.VNI != one.VNI {
		t.Errorf("the only free VNI is %d, picked %d", one.VNI, w.VNI)
	}
	_, err = act(t.Context(), s, func(tx *store.Tx) (*model.Network, error) {
		return n.CreateNetwork(tx, admin, network.NetworkSpec{Type: ptr("vxlan"), Segmentation: ptr(105)})
	})
	wantCode(t, err, fault.Conflict, "TunnelIdInUse")
}

func TestMTUFollowsTheUnderlay(t *testing.T) {
	s, n := storetest.New(t), unlimited()
	if w := makeNetwork(t, s, n); w.MTU != 1450 {
		t.Errorf("without hosts the MTU is %d, want 1450", w.MTU)
	}
	for i, mtu := range []int{9000, 8950} {
		h := &model.Host{Meta: model.NewMeta("", string(rune('a'+i)), time.Now()), Underlay: mtu}
		if _, err := s.Update(t.Context(), func(tx *store.Tx) error { return store.Hosts.Put(tx, h) }); err != nil {
			t.Fatal(err)
		}
	}
	w := makeNetwork(t, s, n)
	if w.MTU != 8900 {
		t.Errorf("MTU = %d, want the least underlay less 50", w.MTU)
	}
	for mtu, ok := range map[int]bool{8901: false, 8900: true, 1280: true, 68: true, 67: false, -1: false} {
		_, err := act(t.Context(), s, func(tx *store.Tx) (*model.Network, error) {
			return n.CreateNetwork(tx, owner, network.NetworkSpec{MTU: &mtu})
		})
		if ok != (err == nil) || err != nil && !fault.Is(err, fault.Invalid) {
			t.Errorf("MTU %d: %v", mtu, err)
		}
	}
}

func TestScopes(t *testing.T) {
	s, n := storetest.New(t), unlimited()
	w := makeNetwork(t, s, n)
	makeSubnet(t, s, n, w, network.SubnetSpec{CIDR: prefix("10.0.0.0/24")})
	p := makePort(t, s, n, w)
	for what, f := range map[string]func(tx *store.Tx) error{
		"network": func(tx *store.Tx) error { _, err := n.GetNetwork(tx, other, w.ID); return err },
		"subnet":  func(tx *store.Tx) error { _, err := n.GetSubnet(tx, other, p.FixedIPs[0].SubnetID); return err },
		"port":    func(tx *store.Tx) error { _, err := n.GetPort(tx, other, p.ID); return err },
		"group":   func(tx *store.Tx) error { _, err := n.GetGroup(tx, other, p.Groups[0]); return err },
		"delete":  func(tx *store.Tx) error { return n.DeleteNetwork(tx, other, w.ID) },
		"new port": func(tx *store.Tx) error {
			_, err := n.CreatePort(tx, other, network.PortSpec{NetworkID: w.ID})
			return err
		},
		"a foreign group": func(tx *store.Tx) error {
			mine, err := n.CreateNetwork(tx, other, network.NetworkSpec{})
			if err != nil {
				return err
			}
			_, err = n.CreatePort(tx, other, network.PortSpec{NetworkID: mine.ID, Groups: &p.Groups})
			return err
		},
	} {
		if _, err := s.Update(t.Context(), f); !fault.Is(err, fault.NotFound) {
			t.Errorf("%s of another project: %v, want not found", what, err)
		}
	}
	// Shared: others may use the network, but what could harm those on it is its owner's.
	if _, err := s.Update(t.Context(), func(tx *store.Tx) error {
		_, err := n.UpdateNetwork(tx, admin, w.ID, network.NetworkSpec{Shared: ptr(true)})
		return err
	}); err != nil {
		t.Fatal(err)
	}
	for what, spec := range map[string]network.PortSpec{
		"mac":          {MAC: ptr("02:00:00:00:00:01")},
		"address":      {FixedIPs: &[]network.AddressSpec{{Address: addr("10.0.0.77")}}},
		"security":     {PortSecurity: ptr(false)},
		"pairs":        {Pairs: &[]model.AddressPair{{Prefix: prefix("10.0.0.0/24")}}},
		"device owner": {DeviceOwner: ptr("network:router_interface")},
	} {
		spec.NetworkID = w.ID
		_, err := act(t.Context(), s, func(tx *store.Tx) (*model.Port, error) { return n.CreatePort(tx, other, spec) })
		if !fault.Is(err, fault.Forbidden) {
			t.Errorf("%s on a shared network: %v, want forbidden", what, err)
		}
	}
	foreign := must(t, s, func(tx *store.Tx) (*model.Port, error) {
		return n.CreatePort(tx, other, network.PortSpec{NetworkID: w.ID})
	})
	if _, err := n.GetPort(s.Snapshot(), owner, foreign.ID); err != nil {
		t.Errorf("the network's owner does not see a port on it: %v", err)
	}
	_, err := act(t.Context(), s, func(tx *store.Tx) (*model.Network, error) {
		return n.UpdateNetwork(tx, admin, w.ID, network.NetworkSpec{Shared: ptr(false)})
	})
	wantCode(t, err, fault.Conflict, "InvalidSharedSetting")
	_, err = act(t.Context(), s, func(tx *store.Tx) (*model.Subnet, error) {
		return n.CreateSubnet(tx, other, network.SubnetSpec{NetworkID: w.ID, IPVersion: 4, CIDR: prefix("10.5.0.0/24")})
	})
	if !fault.Is(err, fault.Forbidden) {
		t.Errorf("a subnet on another's shared network: %v", err)
	}
}

func TestQuotaIsExact(t *testing.T) {
	cl, pre := storetest.Client(t)
	a, b := storetest.Open(t, cl, pre), storetest.Open(t, cl, pre)
	n := network.New(network.Config{Log: slog.New(slog.DiscardHandler)})
	if _, err := a.Update(t.Context(), func(tx *store.Tx) error {
		return n.SetQuota(tx, project, map[string]int{network.QuotaNetwork: 10})
	}); err != nil {
		t.Fatal(err)
	}
	if err := b.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	made, refused := race(t, 24, func(i int) error {
		_, err := act(t.Context(), []*store.Store{a, b}[i%2], func(tx *store.Tx) (*model.Network, error) {
			return n.CreateNetwork(tx, owner, network.NetworkSpec{})
		})
		if err != nil && fault.CodeOf(err) != "OverQuota" {
			t.Errorf("%v", err)
		}
		return err
	})
	if made != 10 || refused != 14 {
		t.Errorf("%d made and %d refused of a quota of 10", made, refused)
	}
	err := errors.New("")
	if _, err = a.Update(t.Context(), func(tx *store.Tx) error { return n.ResetQuota(tx, project) }); err != nil {
		t.Fatal(err)
	}
	if got := n.Quota(a.Snapshot(), project)[network.QuotaNetwork]; got != 100 {
		t.Errorf("after the reset the quota is %d", got)
	}
	_, err = a.Update(t.Context(), func(tx *store.Tx) error { return n.ResetQuota(tx, project) })
	wantCode(t, err, fault.NotFound, "TenantQuotaNotFound")
}

// race runs f for 0 to count-1 at once and counts successes and errors.
func race(t testing.TB, count int, f func(i int) error) (good, bad int) {
	t.Helper()
	results := make(chan error, count)
	for i := range count {
		go func() { results <- f(i) }()
	}
	for range count {
		if err := <-results; err == nil {
			good++
		} else {
			bad++
		}
	}
	return good, bad
}

func TestReportPort(t *testing.T) {
	s, n := storetest.New(t), unlimited()
	w := makeNetwork(t, s, n)
	p := makePort(t, s, n, w)
	bound := must(t, s, func(tx *store.Tx) (*model.Port, error) { return n.BindPort(tx, p.ID, "h1") })
	if bound.Generation != p.Generation+1 || bound.Host != "h1" {
		t.Fatalf("bound = %+v", bound)
	}
	report := func(host string, gen int64, state string) bool {
		return must(t, s, func(tx *store.Tx) (bool, error) {
			return n.ReportPort(tx, p.ID, host, model.PortStatus{State: state, Generation: gen})
		})
	}
	if !report("h1", 2, model.PortActive) {
		t.Error("the host's report is not taken")
	}
	if report("h1", 1, model.PortDown) || report("h2", 9, model.PortDown) || report("h1", 2, model.PortActive) {
		t.Error("an old, a foreign or a repeated report is taken")
	}
	must(t, s, func(tx *store.Tx) (*model.Port, error) { return n.BindPort(tx, p.ID, "h2") })
	if got, _ := store.Ports.Get(s.Snapshot(), p.ID); got.Status.State != model.PortDown || got.Host != "h2" {
		t.Errorf("after the move: %+v", got)
	}
	_, err := act(t.Context(), s, func(tx *store.Tx) (*model.Port, error) {
		return n.UpdatePort(tx, owner, p.ID, network.PortSpec{MAC: ptr("02:00:00:00:00:01")})
	})
	wantCode(t, err, fault.Conflict, "PortBound")
}

// TestPreparePort: whatever becomes of a port that is prepared on another host, at the end it is on one.
func TestPreparePort(t *testing.T) {
	s, n := storetest.New(t), unlimited()
	w := makeNetwork(t, s, n)
	p := makePort(t, s, n, w)
	prepare := func(next string) error {
		_, err := s.Update(t.Context(), func(tx *store.Tx) error { return n.PreparePort(tx, p.ID, next) })
		return err
	}
	at := func(host, next, state string) {
		t.Helper()
		if got, _ := store.Ports.Get(s.Snapshot(), p.ID); got.Host != host || got.NextHost != next || got.Status.State != state {
			t.Errorf("the port is at %q, next at %q, %s; want %q, %q, %s", got.Host, got.NextHost, got.Status.State, host, next, state)
		}
	}
	bind := func(host string) {
		t.Helper()
		must(t, s, func(tx *store.Tx) (*model.Port, error) { return n.BindPort(tx, p.ID, host) })
	}
	wantCode(t, prepare("h1"), fault.Conflict, "")
	if err := prepare(""); err != nil {
		t.Error(err)
	}
	bind("h1")
	must(t, s, func(tx *store.Tx) (bool, error) {
		return n.ReportPort(tx, p.ID, "h1", model.PortStatus{State: model.PortActive, Generation: 2})
	})
	for _, next := range []string{"h2", "h2", "h3", "h1", "h2"} {
		if err := prepare(next); err != nil {
			t.Fatal(err)
		}
	}
	at("h1", "h2", model.PortActive)
	if must(t, s, func(tx *store.Tx) (bool, error) {
		return n.ReportPort(tx, p.ID, "h2", model.PortStatus{State: model.PortDown, Generation: 9})
	}) {
		t.Error("what the prepared host says of the port counts")
	}
	bind("h1") // it stays
	at("h1", "", model.PortActive)
	if err := prepare("h2"); err != nil {
		t.Fatal(err)
	}
	bind("h2") // it goes, and carries traffic at once
	at("h2", "", model.PortActive)
	if err := prepare("h1"); err != nil {
		t.Fatal(err)
	}
	bind("h3") // somewhere else
	at("h3", "", model.PortDown)
	if err := prepare("h1"); err != nil {
		t.Fatal(err)
	}
	bind("")
	at("", "", model.PortDown)
	_, err := s.Update(t.Context(), func(tx *store.Tx) error { return n.PreparePort(tx, "no", "h1") })
	wantCode(t, err, fault.NotFound, "PortNotFound")
}

func TestAttachAndRelease(t *testing.T) {
	s, n := storetest.New(t), unlimited()
	w := makeNetwork(t, s, n)
	attach := func(sc network.Scope, port, device string) error {
		_, err := act(t.Context(), s, func(tx *store.Tx) (*model.Port, error) { return n.AttachPort(tx, sc, port, device, "compute:nova") })
		return err
	}
	release := func(port string) {
		t.Helper()
		if _, err := s.Update(t.Context(), func(tx *store.Tx) error { return n.ReleasePort(tx, port) }); err != nil {
			t.Fatal(err)
		}
	}
	p := makePort(t, s, n, w)
	for range 2 {
		if err := attach(owner, p.ID, "server-1"); err != nil {
			t.Fatal(err)
		}
	}
	wantCode(t, attach(owner, p.ID, "server-2"), fault.Conflict, "PortInUse")
	wantCode(t, attach(other, p.ID, "server-2"), fault.NotFound, "PortNotFound")
	must(t, s, func(tx *store.Tx) (*model.Port, error) { return n.BindPort(tx, p.ID, "h1") })
	release(p.ID)
	release(p.ID)
	if got, ok := store.Ports.Get(s.Snapshot(), p.ID); !ok || got.Host != "" || got.DeviceID != "" || got.DeviceOwner != "" || got.MAC != p.MAC {
		t.Errorf("released: %+v", got)
	}
	if err := attach(owner, p.ID, "server-2"); err != nil {
		t.Error(err)
	}
	made := must(t, s, func(tx *store.Tx) (*model.Port, error) {
		return n.CreatePort(tx, owner, network.PortSpec{NetworkID: w.ID, DeviceID: ptr("server-3"), Owned: true})
	})
	release(made.ID)
	if _, there := store.Ports.Get(s.Snapshot(), made.ID); there {
		t.Error("a port that was made for its server outlives it")
	}
	release("no such port")
}
