package hostview_test

import (
	"encoding/json"
	"net/netip"
	"testing"

	"yakumo/model"
	"yakumo/store"
	"yakumo/store/storetest"
)

// TestWhatHostsAreToldOfAMove: at each stage of each kind of move both hosts know their part, how large
// the guest is with them and whether it is to run.
func TestWhatHostsAreToldOfAMove(t *testing.T) {
	st := storetest.New(t)
	small, large := model.Flavor{VCPUs: 1}, model.Flavor{VCPUs: 2}
	put := func(f func(tx *store.Tx) error) {
		t.Helper()
		if _, err := st.Update(t.Context(), f); err != nil {
			t.Fatal(err)
		}
	}
	channel := netip.MustParseAddrPort("192.0.2.2:7000")
	put(func(tx *store.Tx) error {
		if err := store.Hosts.Put(tx, &model.Host{Meta: model.Meta{ID: "a", Name: "A"}, Zone: "az-a"}); err != nil {
			return err
		}
		return store.Hosts.Put(tx, &model.Host{Meta: model.Meta{ID: "b", Name: "B"}, Zone: "az-b", Channel: channel})
	})
	told := func(host model.ID) *model.HostServer {
		body, ok := full(t, st, host)[model.RowID{Kind: model.RowServer, Key: "s"}]
		if !ok {
			return nil
		}
		var r model.HostServer
		if err := json.Unmarshal([]byte(body), &r); err != nil {
			t.Fatal(err)
		}
		return &r
	}
	const off, on = model.PowerOff, model.PowerRunning
	type row struct {
		power model.Power // "": the host has no row
		cpus  int
		stage model.MoveStage // "": it knows of no move
	}
	for _, x := range []struct {
		kind           model.MoveKind
		stage          model.MoveStage
		host           model.ID // the server's
		power          model.Power
		source, target row
	}{
		{model.MoveLive, model.MovePlacing, "a", on, row{power: on, cpus: 1}, row{}},
		{model.MoveLive, model.MovePreparing, "a", on, row{on, 1, model.MovePreparing}, row{on, 1, model.MovePreparing}},
		{model.MoveLive, model.MoveRunning, "a", on, row{on, 1, model.MoveRunning}, row{on, 1, model.MoveRunning}},
		{model.MoveLive, model.MoveLeaving, "b", on, row{on, 1, model.MoveRunning}, row{power: on, cpus: 1}},
		{model.MoveCold, model.MovePreparing, "a", on, row{off, 1, model.MoveRunning}, row{on, 1, model.MovePreparing}},
		{model.MoveCold, model.MoveRunning, "a", off, row{off, 1, model.MoveRunning}, row{on, 1, model.MoveRunning}},
		{model.MoveCold, model.MoveVerify, "b", on, row{off, 1, model.MoveVerify}, row{power: on, cpus: 1}},
		{model.MoveResize, model.MovePreparing, "a", on, row{off, 1, model.MoveRunning}, row{on, 2, model.MovePreparing}},
		{model.MoveResize, model.MoveRunning, "a", on, row{off, 1, model.MoveRunning}, row{on, 2, model.MoveRunning}},
		{model.MoveResize, model.MoveVerify, "b", off, row{off, 1, model.MoveVerify}, row{power: off, cpus: 2}},
		{model.MoveResize, model.MoveReverting, "b", on, row{off, 1, model.MoveVerify}, row{off, 2, model.MoveReverting}},
		{model.MoveEvacuate, model.MovePreparing, "a", on, row{power: off, cpus: 1}, row{}},
		{model.MoveEvacuate, model.MovePreparing, "b", on, row{}, row{power: on, cpus: 1}},
	} {
		s := &model.Server{Meta: model.Meta{ID: "s"}, Host: x.host, Power: x.power, Flavor: small,
			Move: &model.Move{ID: "m", Kind: x.kind, Stage: x.stage, Source: "a", Target: "b", OldPower: on}}
		if x.kind == model.MoveResize {
			s.Move.OldFlavor, s.Move.NewFlavor = &small, &large
			if x.stage != model.MovePreparing {
				s.Flavor = large
			}
		}
		put(func(tx *store.Tx) error { return store.Servers.Put(tx, s) })
		for _, h := range []struct {
			id   model.ID
			role model.MoveRole
			want row
			peer model.HostAt
			zone string
		}{
			{"a", model.RoleSource, x.source, model.HostAt{HostID: "b", Name: "B", Channel: channel}, "az-a"},
			{"b", model.RoleTarget, x.target, model.HostAt{HostID: "a", Name: "A"}, "az-b"},
		} {
			r := told(h.id)
			switch {
			case r == nil && h.want.power == "":
			case r == nil || h.want.power == "" || r.Power != h.want.power || r.VCPUs != h.want.cpus || r.Zone != h.zone:
				t.Errorf("%s, %s: host %s is told %+v; want %+v, zone %s", x.kind, x.stage, h.id, r, h.want, h.zone)
			case h.want.stage == "":
				if r.Move != nil {
					t.Errorf("%s, %s: host %s is told of %+v", x.kind, x.stage, h.id, r.Move)
				}
			case r.Move == nil || *r.Move != model.HostMove{ID: "m", Kind: x.kind, Role: h.role, Stage: h.want.stage, Peer: h.peer}:
				t.Errorf("%s, %s: host %s is told of %+v", x.kind, x.stage, h.id, r.Move)
			}
		}
	}
}

// TestPreparedPort: the host that is prepared for a port has all that the port needs, and where it is served now.
func TestPreparedPort(t *testing.T) {
	st := storetest.New(t)
	if _, err := st.Update(t.Context(), func(tx *store.Tx) error {
		for i, h := range []model.ID{"a", "b", "c"} {
			if err := store.Hosts.Put(tx, &model.Host{Meta: model.Meta{ID: h, Name: h}, TunnelIP: netip.AddrFrom4([4]byte{192, 0, 2, byte(i + 1)})}); err != nil {
				return err
			}
		}
		if err := store.Networks.Put(tx, &model.Network{Meta: model.Meta{ID: "n"}, Type: model.NetworkVXLAN, VNI: 5, AdminStateUp: true}); err != nil {
			return err
		}
		if err := store.SecurityGroups.Put(tx, &model.SecurityGroup{Meta: model.Meta{ID: "g"}}); err != nil {
			return err
		}
		for _, p := range []*model.Port{
			{Meta: model.Meta{ID: "p"}, Host: "a", NextHost: "b", Groups: []model.ID{"g"}, MAC: "fa:16:3e:00:00:01"},
			{Meta: model.Meta{ID: "q"}, Host: "c", MAC: "fa:16:3e:00:00:02"},
		} {
			p.NetworkID, p.AdminStateUp = "n", true
			if err := store.Ports.Put(tx, p); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	read := func(host model.ID, kind model.RowKind, key string, r any) {
		t.Helper()
		body, ok := full(t, st, host)[model.RowID{Kind: kind, Key: key}]
		if !ok {
			t.Fatalf("host %s has no %s %s", host, kind, key)
		}
		if err := json.Unmarshal([]byte(body), r); err != nil {
			t.Fatal(err)
		}
	}
	var port model.HostPort
	if read("b", model.RowPort, "p", &port); !port.Standby {
		t.Error("the prepared host is not told to stand by")
	}
	var now model.HostPeer
	if read("b", model.RowPeer, "p", &now); now.TunnelIP.String() != "192.0.2.1" {
		t.Errorf("the prepared host is told that the port is at %v", now.TunnelIP)
	}
	var group model.HostGroup
	read("b", model.RowGroup, "g", &group)
	var served model.HostPort
	if read("a", model.RowPort, "p", &served); served.Standby {
		t.Error("the port's host is told to stand by")
	}
	var network model.HostNetwork
	if read("c", model.RowNetwork, "n", &network); len(network.Flood) != 2 {
		t.Errorf("a broadcast goes to %v", network.Flood)
	}
}
