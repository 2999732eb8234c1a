package link

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"yakumo/model"
	"yakumo/store"
)

// kernel is whether a host's kernel answers.
type kernel struct {
	alive atomic.Bool
	asked atomic.Int64
}

func (k *kernel) probe(context.Context, netip.AddrPort) bool {
	k.asked.Add(1)
	return k.alive.Load()
}

// newGatewayCloud makes a cloud of one server with a host behind a valve that is a router's gateway, where it is said to be.
func newGatewayCloud(t *testing.T, gateway bool) (*cloud, *host, *valve, *kernel) {
	t.Helper()
	k := &kernel{}
	k.alive.Store(true)
	cl := newCloud(t, 0)
	cl.probe = k.probe
	s := cl.serve()
	v := newValve(t, s.addr)
	h := cl.run(cl.join("h1", v.addr))
	until(t, soon, "attached", func() bool { return cl.up(h.id(t)) && s.Sessions() == 1 })
	if gateway {
		if _, err := s.st.Update(t.Context(), func(tx *store.Tx) error {
			return store.Routers.Put(tx, &model.Router{Meta: model.Meta{ID: "r1"}, Status: model.RouterStatus{GatewayHosts: []model.ID{h.id(t)}}})
		}); err != nil {
			t.Fatal(err)
		}
		until(t, soon, "the host known to answer", func() bool { return k.asked.Load() > 0 })
	}
	return cl, h, v, k
}

// suspect tells whether gateways should leave the host: its heartbeat says so, or is gone.
func (c *cloud) suspect(id model.ID) bool {
	hb, ok := store.Heartbeats.Get(c.sites[0].st.Snapshot(), id)
	return !ok || hb.Suspect
}

// within waits for the host to be suspect, and tells how long that took.
func (c *cloud) within(id model.ID) time.Duration {
	began := time.Now()
	until(c.t, soon, "suspect", func() bool { return c.suspect(id) })
	return time.Since(began)
}

// never looks for d that a host is not suspect.
func (c *cloud) never(id model.ID, d time.Duration) {
	c.t.Helper()
	end := time.After(d)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if c.suspect(id) {
				c.t.Fatal("the host is suspect")
			}
		case <-end:
			return
		}
	}
}

func TestDeadHostIsSuspectSoon(t *testing.T) {
	t.Parallel()
	c, h, v, k := newGatewayCloud(t, true)
	k.alive.Store(false)
	v.turn(false)
	if took := c.within(h.id(t)); took > time.Second {
		t.Errorf("a host that went silent was suspect after %s", took)
	} else {
		t.Log("suspect after", took)
	}
	// Its gateways go elsewhere. It comes back before its lease has run out, and is cleared on the same stream
	// though it is nobody's gateway any more.
	if _, err := c.sites[0].st.Update(t.Context(), func(tx *store.Tx) error {
		return store.Routers.Put(tx, &model.Router{Meta: model.Meta{ID: "r1"}, Status: model.RouterStatus{GatewayHosts: []model.ID{"elsewhere"}}})
	}); err != nil {
		t.Fatal(err)
	}
	k.alive.Store(true)
	v.turn(true)
	until(t, soon, "cleared", func() bool { return !c.suspect(h.id(t)) })
}

func TestHungAgentIsGivenGrace(t *testing.T) {
	t.Parallel()
	c, h, v, _ := newGatewayCloud(t, true)
	v.turn(false)
	c.never(h.id(t), 700*time.Millisecond) // longer than the gateway's patience, shorter than the grace of 1 s
	c.within(h.id(t))
	v.turn(true)
	until(t, soon, "cleared", func() bool { return !c.suspect(h.id(t)) })
}

func TestRestartedAgentKeepsItsGateways(t *testing.T) {
	t.Parallel()
	c, h, _, _ := newGatewayCloud(t, true)
	s := c.sites[0]
	first := store.Heartbeats.Revision(s.st.Snapshot(), h.id(t))
	h.stop()
	c.never(h.id(t), 300*time.Millisecond)
	c.run(h)
	until(t, soon, "a heartbeat of the new stream", func() bool {
		return store.Heartbeats.Revision(s.st.Snapshot(), h.id(t)) > first
	})
	c.never(h.id(t), 1200*time.Millisecond)
	h.stop() // and for good
	if took := c.within(h.id(t)); took < 700*time.Millisecond {
		t.Errorf("an agent was given %s only", took)
	}
}

// TestKilledHost: its kernel ends the stream, and then is no more.
func TestKilledHost(t *testing.T) {
	t.Parallel()
	c, h, _, k := newGatewayCloud(t, true)
	k.alive.Store(false)
	h.stop()
	if took := c.within(h.id(t)); took > time.Second {
		t.Errorf("a host that was killed was suspect after %s", took)
	} else {
		t.Log("suspect after", took)
	}
}

func TestOthersAreNotWatched(t *testing.T) {
	t.Parallel()
	c, h, v, k := newGatewayCloud(t, false)
	k.alive.Store(false)
	v.turn(false)
	c.never(h.id(t), 1200*time.Millisecond) // less than its lease
	if n := k.asked.Load(); n != 0 {
		t.Errorf("its kernel was asked %d times", n)
	}
}

// TestStarvedServer: a server that did not get its turn blames nobody.
func TestStarvedServer(t *testing.T) {
	t.Parallel()
	s := &Server{cfg: ServerConfig{GatewayTTL: 400 * time.Millisecond, GatewayGrace: 3 * time.Second, Probe: func(context.Context, netip.AddrPort) bool { return false },
		Store: newCloud(t, 1).sites[0].st}, sessions: map[model.ID]*session{}}
	if _, err := s.cfg.Store.Update(t.Context(), func(tx *store.Tx) error {
		return store.Routers.Put(tx, &model.Router{Meta: model.Meta{ID: "r1"}, Status: model.RouterStatus{GatewayHosts: []model.ID{"h1"}}})
	}); err != nil {
		t.Fatal(err)
	}
	ss := &session{s: s, host: "h1", log: slog.New(slog.DiscardHandler), judged: make(chan struct{}, 1)}
	s.sessions["h1"] = ss
	v := &vigil{s: s, watched: map[model.ID]*watched{}}
	now := time.Now()
	ss.heard.Store(now.UnixNano())
	step := func(d time.Duration) bool {
		now = now.Add(d)
		v.look(t.Context(), now)
		return ss.suspect.Load()
	}
	for range 20 { // it sleeps, and hears again when it awakes
		if step(time.Minute) || step(100*time.Millisecond) {
			t.Fatal("suspect after a tick that came late")
		}
		ss.heard.Store(now.UnixNano())
	}
	for n := 0; ; n++ {
		if step(100*time.Millisecond) && n < 1 {
			t.Fatalf("suspect after %d ticks in time", n)
		}
		if ss.suspect.Load() {
			return
		}
		if n > 10 {
			t.Fatal("never suspect")
		}
	}
}

func TestKnock(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := netip.MustParseAddrPort(l.Addr().String())
	if !knock(t.Context(), at) {
		t.Error("a listener does not answer")
	}
	l.Close()
	if !knock(t.Context(), at) {
		t.Error("a kernel that refuses does not answer")
	}
	if knock(t.Context(), netip.AddrPort{}) {
		t.Error("nobody answers")
	}
}

func TestGatewaysAreSoughtOnce(t *testing.T) {
	t.Parallel()
	st := newCloud(t, 1).sites[0].st
	for id, hosts := range map[model.ID][]model.ID{"r1": {"h3", "h1"}, "r2": {"h1"}, "r3": {}, "r4": {"h2", "h3"}} {
		if _, err := st.Update(t.Context(), func(tx *store.Tx) error {
			return store.Routers.Put(tx, &model.Router{Meta: model.Meta{ID: id}, Status: model.RouterStatus{GatewayHosts: hosts}})
		}); err != nil {
			t.Fatal(err)
		}
	}
	var got []model.ID
	gateways(st.Snapshot(), func(h model.ID) { got = append(got, h) })
	if len(got) != 3 || got[0] != "h1" || got[1] != "h2" || got[2] != "h3" {
		t.Errorf("gateways %v", got)
	}
}
