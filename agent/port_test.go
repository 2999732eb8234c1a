package agent

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"testing"

	"yakumo/datapath"
	dpfake "yakumo/datapath/fake"
	"yakumo/fault"
	"yakumo/hypervisor/fake"
	"yakumo/model"
)

// A data path that fails now and then is told again until the ports are wired.
func TestDatapathFails(t *testing.T) {
	for _, tc := range []struct {
		name     string
		failures []dpfake.Failure
	}{
		{"prune", []dpfake.Failure{{Method: "Prune", N: 1, Err: errors.New("no")}, {Method: "Prune", N: 2, Err: fault.New(fault.Unavailable, "away")}}},
		{"attach", []dpfake.Failure{{Method: "Attach", N: 1, Err: fault.New(fault.Unavailable, "away")}, {Method: "Attach", N: 2, Err: errors.New("no")}}},
		{"detach", []dpfake.Failure{{Method: "Detach", N: 1, Err: errors.New("no")}, {Method: "Detach", N: 2, Err: errors.New("no")}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t.TempDir(), fake.HostConfig{})
			c := newCloud(w.side)
			a := w.start(t, func(cfg *Config) {
				dp, err := dpfake.New(dpfake.Config{Switch: w.sw, Ordinals: w.ord, Failures: tc.failures})
				if err != nil {
					t.Fatal(err)
				}
				cfg.Datapath = dp
			})
			t.Cleanup(func() { a.stop(t) })
			rows := c.base()
			var servers []*model.HostServer
			for range 3 {
				s, p := c.server()
				servers = append(servers, s)
				rows = append(rows, s, p)
			}
			w.side.apply(t, full(5, rows...))
			for _, s := range servers {
				w.settled(t, s.ID, 1, model.PhaseReady, model.PowerRunning)
			}
			w.side.apply(t, full(6, c.base()...))
			waitFor(t, "the taps to be gone", func() bool {
				names, err := w.taps.List(context.Background(), "yk")
				return err == nil && len(names) == 0
			})
		})
	}
}

// A guest does not start before its ports carry traffic.
func TestStartWaitsForWires(t *testing.T) {
	w := newWorld(t.TempDir(), fake.HostConfig{})
	c := newCloud(w.side)
	a := w.startFor(t)
	s, p := c.server()
	w.side.apply(t, full(5, c.network, s, p)) // its group has not been told
	waitFor(t, "the server to be starting", func() bool { return w.side.server(s.ID).Phase == model.PhaseStarting })
	if a.dp.Installed(p.ID) || w.power(t, s.ID) != 0 {
		t.Fatal("it has started without its group")
	}
	if got := w.side.port(p.ID); got.State != "DOWN" {
		t.Errorf("the port is %+v", got)
	}
	w.side.apply(t, change(6, c.group))
	w.settled(t, s.ID, 1, model.PhaseReady, model.PowerRunning)
	if got := w.side.port(p.ID); got.State != "ACTIVE" {
		t.Errorf("the port is %+v", got)
	}
	a.Notice(datapath.Event{Port: p.ID, Kind: datapath.Unwired}) // must not block
}

// Ports whose server is not here are not wired.
func TestPortWithoutServer(t *testing.T) {
	w := newWorld(t.TempDir(), fake.HostConfig{})
	c := newCloud(w.side)
	w.startFor(t)
	s, p := c.server()
	_, stray := c.server()
	free := *stray
	free.ID, free.DeviceID, free.MAC = model.NewID(), "", "fa:16:3e:00:01:00"
	w.side.apply(t, full(5, c.network, c.group, s, p, stray, &free))
	w.settled(t, s.ID, 1, model.PhaseReady, model.PowerRunning)
	if names, err := w.taps.List(context.Background(), "yk"); err != nil || !slices.Equal(names, []string{tapName(p.ID)}) {
		t.Errorf("taps %v, %v", names, err)
	}
	w.side.apply(t, model.HostBatch{Generation: 6, Removes: []model.RowID{free.RowID(), stray.RowID()}})
	s = with(s, func(s *model.HostServer) { s.Power = model.PowerOff })
	w.side.apply(t, change(7, s))
	w.settled(t, s.ID, 2, model.PhaseReady, model.PowerOff)
}

// TestSubport: a subport of a trunk has no tap, is wired and reported with its parent, and
// goes with its parent's server although its own device is the trunk.
func TestSubport(t *testing.T) {
	w := newWorld(t.TempDir(), fake.HostConfig{})
	c := newCloud(w.side)
	a := w.startFor(t)
	s, p := c.server()
	_, sub := c.server()
	sub.DeviceID, sub.Parent, sub.VLAN = model.NewID(), p.ID, 7
	gateway := &model.HostRouter{ID: model.NewID(), AdminStateUp: true, Gateway: &model.HostGateway{NetworkID: model.NewID(), Active: true}}
	w.side.apply(t, full(5, c.network, c.group, s, p, sub, gateway))
	w.settled(t, s.ID, 1, model.PhaseReady, model.PowerRunning)
	waitFor(t, "both ports to be active", func() bool { return w.side.port(p.ID).State == "ACTIVE" && w.side.port(sub.ID).State == "ACTIVE" })
	if names, err := w.taps.List(context.Background(), "yk"); err != nil || !slices.Equal(names, []string{tapName(p.ID)}) {
		t.Errorf("taps %v, %v", names, err)
	}
	rows := a.dp.Counters().Rows
	if rows != 5 { // a router without ports here too
		t.Errorf("the data path has %d rows", rows)
	}
	if n := a.ledger.activeGateways(); n != 1 {
		t.Errorf("%d gateways here", n)
	}
	w.side.apply(t, change(6, with(s, func(s *model.HostServer) { s.Deleted = true })))
	waitFor(t, "the rows of both ports to leave the data path", func() bool { return a.dp.Counters().Rows == rows-2 })
}

// What a guest says to hold is reported, again with each stream, until the row of its port says so.
func TestClaimedAddress(t *testing.T) {
	w := newWorld(t.TempDir(), fake.HostConfig{})
	c := newCloud(w.side)
	a := w.startFor(t)
	s, p := c.server()
	vip := netip.MustParseAddr("10.0.0.100")
	p.Pairs = []model.AddressPair{{Prefix: netip.PrefixFrom(vip, 32)}}
	w.side.apply(t, full(5, append(c.base(), s, p)...))
	w.settled(t, s.ID, 1, model.PhaseReady, model.PowerRunning)
	claim := model.Claim{Address: vip, MAC: p.MAC, Seen: 3}
	a.Notice(datapath.Event{Port: p.ID, Kind: datapath.Claimed, Claim: claim})
	waitFor(t, "the claim to be reported", func() bool { return slices.Equal(w.side.port(p.ID).Claims, []model.Claim{claim}) })
	_, all := a.Reports()
	if i := slices.IndexFunc(all, func(r model.PortReport) bool { return r.PortID == p.ID }); i < 0 || !slices.Equal(all[i].Claims, []model.Claim{claim}) {
		t.Errorf("a new stream begins with %+v", all)
	}
	held := *p
	held.Held = []model.Held{{Address: vip, MAC: p.MAC, Turn: 4}}
	w.side.apply(t, change(6, &held))
	waitFor(t, "the claim to be no more", func() bool { r := w.side.port(p.ID); return r.State == "ACTIVE" && len(r.Claims) == 0 })
}
