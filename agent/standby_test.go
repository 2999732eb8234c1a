package agent

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	dpfake "yakumo/datapath/fake"
	"yakumo/hypervisor"
	"yakumo/hypervisor/fake"
	"yakumo/model"
)

var (
	elsewhere = netip.MustParseAddr("192.0.2.9")
	there     = netip.MustParseAddr("192.0.2.8")
)

// peerOf is a port as the servers tell of it where it is not.
func peerOf(p *model.HostPort, at netip.Addr) *model.HostPeer {
	r := peerAt(p, nil, at)
	r.Moved = false
	return r
}

// serves tells what the switch does with frames for a port: "here", "standby", "away", "moved", or "" where it knows none.
func (r *running) serves(p *model.HostPort) string {
	var found []string
	for _, line := range r.dp.(*dpfake.Driver).Entries() {
		if !strings.HasPrefix(line, "lookup ") || !strings.Contains(line, "eth_dst="+p.MAC) {
			continue
		}
		switch {
		case strings.HasPrefix(line, "lookup 200"):
			found = append(found, "here")
		case strings.HasPrefix(line, "lookup 170"):
			found = append(found, "moved")
		case strings.HasPrefix(line, "lookup 160"):
			found = append(found, "standby")
		case strings.HasPrefix(line, "lookup 100"):
			found = append(found, "away")
		}
	}
	return strings.Join(found, "+")
}

// moving makes a server of the cloud one that moves, to or from a host that does not answer; the agent does not begin to send it.
func moving(s *model.HostServer, role model.MoveRole, id model.ID) *model.HostServer {
	return with(s, func(s *model.HostServer) {
		s.Move = &model.HostMove{ID: id, Kind: model.MoveLive, Role: role, Stage: model.MovePreparing, Peer: model.HostAt{HostID: "other", TunnelIP: elsewhere}}
	})
}

// leaving makes a server one that is sent to another host.
func leaving(s *model.HostServer) *model.HostServer {
	return with(moving(s, model.RoleSource, "m1"), func(s *model.HostServer) { s.Move.Stage = model.MoveRunning })
}

// TestActivate: a port that stood by is served from the moment on that the agent says so, through kills, until the
// servers say the same, and no longer where they say something else.
func TestActivate(t *testing.T) {
	w := newWorld(t.TempDir(), fake.HostConfig{})
	c := newCloud(w.side)
	a := w.start(t, nil)
	s, p := c.server()
	_, sub := c.server()
	sub.DeviceID, sub.Parent, sub.VLAN = model.NewID(), p.ID, 7
	router := &model.HostRouter{ID: model.NewID(), AdminStateUp: true}
	float := &model.HostFloating{ID: model.NewID(), RouterID: router.ID, PortID: p.ID, Standby: true}
	s = moving(s, model.RoleTarget, "m1")
	ready, subReady := *p, *sub
	ready.Standby, subReady.Standby = true, true
	w.side.apply(t, full(5, c.network, c.group, router, float, s, &ready, &subReady, peerOf(p, elsewhere), peerOf(sub, elsewhere)))
	waitFor(t, "the ports to be wired", func() bool { return a.ports.wired(p.ID) && a.ports.wired(sub.ID) })
	if got := a.serves(p); got != "standby+away" {
		t.Fatalf("before the guest has come: %s", got)
	}
	row := a.ledger.server(s.ID)
	began := time.Now()
	for range 2 {
		if err := a.ports.activate(t.Context(), row); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("activated in %v", time.Since(began))
	here := func(a *running, what string) {
		t.Helper()
		waitFor(t, what, func() bool { return a.serves(p) == "here" && a.serves(sub) == "here" })
	}
	here(a, "the guest to be served")
	if f, _ := a.ports.shown(float.RowID()).(*model.HostFloating); f == nil || f.Standby {
		t.Errorf("its floating address is %+v", f)
	}
	w.side.apply(t, change(6, with(s, func(*model.HostServer) {}))) // something else
	a.stop(t)
	a = w.start(t, nil)
	defer func() { a.stop(t) }()
	waitFor(t, "the ports to be wired again", func() bool { return a.ports.wired(p.ID) })
	here(a, "the guest to be served after a restart")
	done := with(s, func(s *model.HostServer) { s.Move, s.Power = nil, model.PowerOff })
	final := *p
	final.Generation = 2
	served := *float
	served.Standby = false
	w.side.apply(t, model.HostBatch{Generation: 7, Upserts: []model.HostRow{done, &final, sub, &served}, Removes: []model.RowID{peerOf(p, elsewhere).RowID(), peerOf(sub, elsewhere).RowID()}})
	waitFor(t, "the rows to be enough", func() bool { return a.ledger.shiftOf(s.ID) == nil })
	here(a, "the guest to be served when all is said")

	// A move that the servers give up: what the agent knew counts no more.
	again := moving(done, model.RoleTarget, "m2")
	w.side.apply(t, change(8, again, &ready, peerOf(p, elsewhere)))
	waitFor(t, "the port to stand by", func() bool { return a.serves(p) == "standby+away" })
	if err := a.ports.activate(t.Context(), again); err != nil {
		t.Fatal(err)
	}
	w.side.apply(t, change(9, moving(again, model.RoleTarget, "m3")))
	waitFor(t, "the port to stand by again", func() bool { return a.serves(p) == "standby+away" && a.ledger.shiftOf(s.ID) == nil })
}

// TestDepart: what comes for a guest that has left is sent on, through kills, and for a while after the servers' rows
// have said so; a guest that stays is served again.
func TestDepart(t *testing.T) {
	w := newWorld(t.TempDir(), fake.HostConfig{})
	c := newCloud(w.side)
	var late time.Duration
	settings := func(cfg *Config) { cfg.Now = func() time.Time { return time.Now().Add(late) } }
	a := w.start(t, settings)
	s, p := c.server()
	s.Power = model.PowerOff
	w.side.apply(t, full(5, c.network, c.group, s, p))
	w.settled(t, s.ID, 1, model.PhaseReady, model.PowerOff)
	away := leaving(s)
	w.side.apply(t, change(6, away))
	if err := a.ports.depart(t.Context(), away); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the port to be left", func() bool { return a.serves(p) == "moved+standby+away" })
	a.stop(t)
	a = w.start(t, settings)
	waitFor(t, "the port to be left after a restart", func() bool { return a.serves(p) == "moved+standby+away" })
	if names, err := w.taps.List(context.Background(), "yk"); err != nil || !slices.Contains(names, tapName(p.ID)) {
		t.Errorf("the device of a guest that may come back is gone: %v, %v", names, err)
	}
	// The servers know: first the port is elsewhere, then nothing here needs the network.
	w.side.apply(t, model.HostBatch{Generation: 7, Upserts: []model.HostRow{peerOf(p, there)}, Removes: []model.RowID{p.RowID()}})
	waitFor(t, "frames to be sent where the servers say", func() bool {
		q, _ := a.ports.shown(peerOf(p, there).RowID()).(*model.HostPeer)
		return q != nil && q.TunnelIP == there && a.serves(p) == "moved+away"
	})
	w.side.apply(t, full(8))
	waitFor(t, "the guest to be gone", func() bool { return w.power(t, s.ID) == 0 && len(a.ledger.allProgress()) == 0 })
	if got := a.serves(p); got != "moved+away" {
		t.Errorf("when nothing is here: %s", got)
	}
	a.stop(t)
	late = 2 * linger
	a = w.start(t, settings)
	defer func() { a.stop(t) }()
	waitFor(t, "the end of sending on", func() bool { return a.ledger.shiftOf(s.ID) == nil && a.serves(p) == "" && a.dp.Counters().Rows == 0 })
}

// TestPortsFollowTheGuest: the hypervisor's word alone moves the ports.
func TestPortsFollowTheGuest(t *testing.T) {
	w := newWorld(t.TempDir(), fake.HostConfig{})
	c := newCloud(w.side)
	a := w.startFor(t)
	s, p := c.server()
	s.Power = model.PowerOff // so that nobody else has a word to say
	w.side.apply(t, full(5, c.network, c.group, s, p))
	w.settled(t, s.ID, 1, model.PhaseReady, model.PowerOff)
	w.side.apply(t, change(6, leaving(s)))
	says := func(power hypervisor.Power, moving bool, want string) {
		t.Helper()
		a.guests.moved(t.Context(), hypervisor.State{ID: s.ID, Power: power, Moving: moving})
		waitFor(t, "the port to be "+want, func() bool { return a.serves(p) == want })
	}
	for range 2 {
		says(hypervisor.Paused, true, "moved+standby+away")
		says(hypervisor.Absent, false, "moved+standby+away")
		says(hypervisor.Running, false, "here")
	}
	ready := *p
	ready.Standby = true
	w.side.apply(t, full(7, c.network, c.group, moving(s, model.RoleTarget, "m2"), &ready, peerOf(p, elsewhere)))
	waitFor(t, "the port to stand by", func() bool { return a.serves(p) == "standby+away" })
	says(hypervisor.Paused, true, "standby+away")
	says(hypervisor.Running, false, "here")
	w.side.apply(t, full(8, c.network, c.group, moving(s, model.RoleTarget, "m3"), &ready, peerOf(p, elsewhere)))
	waitFor(t, "the port to stand by", func() bool { return a.serves(p) == "standby+away" })
	says(hypervisor.Paused, true, "standby+away")
	says(hypervisor.Paused, false, "here") // it has come, and its user holds it
}

// TestShiftEndsWithTheRows: whatever moves, kills and rows come in whatever order, once the servers' rows have
// said the last word the switch does what they say and nothing else.
func TestShiftEndsWithTheRows(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w := newWorld(t.TempDir(), fake.HostConfig{})
		c := newCloud(w.side)
		a := w.start(rt, nil)
		s, p := c.server()
		generation := int64(5)
		tell := func(rows ...model.HostRow) {
			generation++
			w.side.apply(rt, full(generation, append(c.base(), rows...)...))
		}
		tell(s, p)
		ready := *p
		ready.Standby = true
		words := []func(){
			func() { tell(s, p) },
			func() { tell(moving(s, model.RoleSource, "m1"), p) },
			func() { tell(moving(s, model.RoleTarget, "m2"), &ready, peerOf(p, elsewhere)) },
			func() { tell(moving(s, model.RoleTarget, "m3"), &ready, peerOf(p, there)) },
			func() { tell(peerOf(p, there)) },
		}
		for range rapid.IntRange(1, 8).Draw(rt, "steps") {
			row := a.ledger.server(s.ID)
			switch step := rapid.IntRange(0, 8).Draw(rt, "step"); {
			case step < len(words):
				words[step]()
			case row == nil:
			case step == 5:
				if err := a.ports.activate(t.Context(), row); err != nil {
					rt.Fatal(err)
				}
			case step == 6:
				if err := a.ports.depart(t.Context(), row); err != nil {
					rt.Fatal(err)
				}
			case step == 7:
				if err := a.ports.stay(t.Context(), row); err != nil {
					rt.Fatal(err)
				}
			default:
				a.stop(rt)
				a = w.start(rt, nil)
			}
		}
		tell(s, p)
		waitFor(rt, "the guest to be served here", func() bool { return a.serves(p) == "here" && a.ledger.shiftOf(s.ID) == nil })
		a.stop(rt)
	})
}
