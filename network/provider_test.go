package network_test

import (
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"yakumo/fault"
	"yakumo/model"
	"yakumo/network"
	"yakumo/store"
	"yakumo/store/storetest"
)

func joinHost(t testing.TB, s *store.Store, h model.Host) *model.Host {
	t.Helper()
	h.Meta = model.NewMeta("", h.Name, time.Now())
	if _, err := s.Update(t.Context(), func(tx *store.Tx) error { return store.Hosts.Put(tx, &h) }); err != nil {
		t.Fatal(err)
	}
	return &h
}

func TestProviderNetworks(t *testing.T) {
	s := storetest.New(t)
	n := network.New(network.Config{Log: slog.New(slog.DiscardHandler), Defaults: map[string]int{network.QuotaNetwork: -1},
		TunnelType: model.NetworkGeneve, PhysicalNetworks: []string{"lab"}})
	joinHost(t, s, model.Host{Meta: model.Meta{Name: "a"}, Underlay: 1500, BridgeMappings: []string{"physnet1"}})
	create := func(spec network.NetworkSpec) (*model.Network, error) {
		return act(t.Context(), s, func(tx *store.Tx) (*model.Network, error) { return n.CreateNetwork(tx, admin, spec) })
	}
	spec := func(kind, physical string, id int) network.NetworkSpec {
		var out network.NetworkSpec
		if kind != "" {
			out.Type = &kind
		}
		if physical != "" {
			out.PhysicalNetwork = &physical
		}
		if id != 0 {
			out.Segmentation = &id
		}
		return out
	}
	transparent := func(x network.NetworkSpec) network.NetworkSpec { x.VLANTransparent = ptr(true); return x }
	vnis := map[uint32]bool{}
	for _, tc := range []struct {
		spec network.NetworkSpec
		want model.Network
		id   int // segmentation id; 0: any of a tunnel's
	}{
		{spec("", "", 0), model.Network{Type: "geneve", MTU: 1450}, 0},
		{spec("vxlan", "", 70), model.Network{Type: "vxlan", MTU: 1450}, 70},
		{spec("gre", "", model.MaxVNI), model.Network{Type: "gre", MTU: 1458}, model.MaxVNI},
		{spec("flat", "physnet1", 0), model.Network{Type: "flat", PhysicalNetwork: "physnet1", MTU: 1500}, 0},
		{spec("flat", "lab", 0), model.Network{Type: "flat", PhysicalNetwork: "lab", MTU: 1500}, 0},
		{spec("vlan", "physnet1", 4094), model.Network{Type: "vlan", PhysicalNetwork: "physnet1", VLAN: 4094, MTU: 1500}, 4094},
		{spec("vlan", "lab", 4094), model.Network{Type: "vlan", PhysicalNetwork: "lab", VLAN: 4094, MTU: 1500}, 4094},
		{transparent(spec("", "", 0)), model.Network{Type: "geneve", MTU: 1446, VLANTransparent: true}, 0},
	} {
		w, err := create(tc.spec)
		if err != nil {
			t.Fatalf("%+v: %v", tc.want, err)
		}
		got := model.Network{Type: w.Type, PhysicalNetwork: w.PhysicalNetwork, VLAN: w.VLAN, MTU: w.MTU, VLANTransparent: w.VLANTransparent}
		if got.Type != tc.want.Type || got.PhysicalNetwork != tc.want.PhysicalNetwork || got.VLAN != tc.want.VLAN || got.MTU != tc.want.MTU ||
			got.VLANTransparent != tc.want.VLANTransparent || tc.id != 0 && w.Segmentation() != tc.id || w.Type == "flat" && w.Segmentation() != 0 {
			t.Errorf("made %+v (segmentation id %d), want %+v (%d)", got, w.Segmentation(), tc.want, tc.id)
		}
		if w.VNI == 0 || vnis[w.VNI] {
			t.Errorf("the network of type %s has the number %d, which is none of its own", w.Type, w.VNI)
		}
		vnis[w.VNI] = true
		same := network.NetworkSpec{Type: &w.Type, PhysicalNetwork: &w.PhysicalNetwork, Segmentation: ptr(w.Segmentation())}
		if _, err := act(t.Context(), s, func(tx *store.Tx) (*model.Network, error) { return n.UpdateNetwork(tx, admin, w.ID, same) }); err != nil {
			t.Errorf("the segment said again: %v", err)
		}
		_, err = act(t.Context(), s, func(tx *store.Tx) (*model.Network, error) {
			return n.UpdateNetwork(tx, admin, w.ID, network.NetworkSpec{Segmentation: ptr(4000)})
		})
		wantCode(t, err, fault.Invalid, "InvalidInput")
	}
	for _, tc := range []struct {
		spec network.NetworkSpec
		kind fault.Kind
		code string
		says string
	}{
		{spec("", "physnet1", 0), fault.Invalid, "InvalidInput", "network_type required"},
		{spec("", "", 5), fault.Invalid, "InvalidInput", "network_type required"},
		{spec("token-ring", "", 0), fault.Invalid, "InvalidInput", "network_type value 'token-ring' not supported"},
		{spec("vxlan", "physnet1", 0), fault.Invalid, "InvalidInput", "provider:physical_network specified for vxlan network"},
		{spec("gre", "", model.MaxVNI+1), fault.Invalid, "InvalidInput", "segmentation_id out of range (1 through 16777215)"},
		{spec("vxlan", "", -1), fault.Invalid, "InvalidInput", "out of range"},
		{spec("geneve", "", 70), fault.Conflict, "TunnelIdInUse", "The tunnel ID 70 is in use."},
		{spec("flat", "", 0), fault.Invalid, "InvalidInput", "physical_network required for flat provider network"},
		{spec("flat", "moon", 0), fault.Invalid, "InvalidInput", "physical_network 'moon' unknown for flat provider network"},
		{spec("flat", "lab", 5), fault.Invalid, "InvalidInput", "segmentation_id prohibited for flat provider network"},
		{spec("flat", "lab", 0), fault.Conflict, "FlatNetworkInUse", "Physical network lab is in use."},
		{spec("vlan", "moon", 5), fault.Invalid, "InvalidInput", "physical_network 'moon' unknown for VLAN provider network"},
		{spec("vlan", "", 5), fault.Invalid, "InvalidInput", "segmentation_id requires physical_network for VLAN provider network"},
		{spec("vlan", "lab", 4095), fault.Invalid, "InvalidInput", "segmentation_id out of range (1 through 4094)"},
		{spec("vlan", "lab", -1), fault.Invalid, "InvalidInput", "out of range"},
		{spec("vlan", "lab", 4094), fault.Conflict, "VlanIdInUse", "The VLAN 4094 on physical network lab is in use."},
		{transparent(spec("vlan", "lab", 5)), fault.Invalid, "VlanTransparencyDriverError", "Backend does not support VLAN Transparency"},
	} {
		_, err := create(tc.spec)
		wantCode(t, err, tc.kind, tc.code)
		if text, _ := fault.Text(err); !strings.Contains(text, tc.says) {
			t.Errorf("%q does not say %q", text, tc.says)
		}
	}
}

func TestVLANsArePickedToTheLast(t *testing.T) {
	s := storetest.New(t)
	n := network.New(network.Config{Log: slog.New(slog.DiscardHandler), Defaults: map[string]int{network.QuotaNetwork: -1}, PhysicalNetworks: []string{"a", "b"}})
	pick := func(physical *string) (*model.Network, error) {
		return act(t.Context(), s, func(tx *store.Tx) (*model.Network, error) {
			return n.CreateNetwork(tx, admin, network.NetworkSpec{Type: ptr("vlan"), PhysicalNetwork: physical})
		})
	}
	const left = 77 // the only one that is free in a
	var rows []*model.Network
	for v := uint16(model.MinVLAN); v <= model.MaxVLAN; v++ {
		if v != left {
			rows = append(rows, &model.Network{Meta: model.NewMeta("p", "", time.Now()), Type: "vlan", PhysicalNetwork: "a", VLAN: v, VNI: uint32(v)})
		}
	}
	for len(rows) > 0 {
		part := rows[:min(200, len(rows))]
		rows = rows[len(part):]
		if _, err := s.Update(t.Context(), func(tx *store.Tx) error {
			for _, w := range part {
				if err := store.Networks.Put(tx, w); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	w, err := pick(nil)
	if err != nil || w.PhysicalNetwork != "a" || w.VLAN != left {
		t.Fatalf("picked %+v, %v", w, err)
	}
	_, err = pick(ptr("a"))
	wantCode(t, err, fault.Unavailable, "NoNetworkAvailable")
	if w, err := pick(nil); err != nil || w.PhysicalNetwork != "b" || w.VLAN < model.MinVLAN || w.VLAN > model.MaxVLAN {
		t.Errorf("with one physical network full: %+v, %v", w, err)
	}
}

// TestMTUByType: what is left of the underlay's MTU, the least of all hosts.
func TestMTUByType(t *testing.T) {
	s := storetest.New(t)
	joinHost(t, s, model.Host{Meta: model.Meta{Name: "a"}, Underlay: 9000, TunnelIP: netip.MustParseAddr("192.0.2.1")})
	joinHost(t, s, model.Host{Meta: model.Meta{Name: "b"}, Underlay: 8990, TunnelIP: netip.MustParseAddr("2001:db8::1")})
	joinHost(t, s, model.Host{Meta: model.Meta{Name: "new"}})
	for kind, want := range map[string]int{"vxlan": 8920, "geneve": 8920, "gre": 8928, "flat": 8990, "vlan": 8990} {
		if got := network.HostMTU(s.Snapshot(), kind); got != want {
			t.Errorf("%s: MTU %d, want %d", kind, got, want)
		}
	}
}
