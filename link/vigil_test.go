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

// never is longer than any test.
const never = time.Hour

// newGatewayCloud makes a cloud of one server with a host behind a valve that is a router's gateway, where it is said to
// be. Its lease outlasts the test.
func newGatewayCloud(t *testing.T, gateway bool, grace time.Duration) (*cloud, *host, *valve, *kernel) {
	t.Helper()
	k := &kernel{}
	k.alive.Store(true)
	cl := newCloud(t, 0)
	cl.probe, cl.ttl, cl.grace = k.probe, 2*never, grace
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

// suspect tells whether gateways should leave the host: its heartbeat says so.
func (c *cloud) suspect(id model.ID) bool {
	hb, ok := store.Heartbeats.Get(c.sites[0].st.Snapshot(), id)
	if !ok {
		c.t.Fatal("the heartbeat is gone")
	}
	return hb.Suspect
}

// becomes waits for the host to be suspect.
func (c *cloud) becomes(id model.ID) {
	began := time.Now()
	until(c.t, soon, "suspect", func() bool { return c.suspect(id) })
	c.t.Log("suspect after", time.Since(began))
}

// trusts looks that a host is not suspect before d has gone by.
func (c *cloud) trusts(id model.ID, d time.Duration) {
	c.t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for began := time.Now(); ; <-tick.C {
		suspect, took := c.suspect(id), time.Since(began)
		if took > d {
			return
		}
		if suspect {
			c.t.Fatalf("the host is suspect after %s", took)
		}
	}
}

func TestDeadHostIsSuspectSoon(t *testing.T) {
	t.Parallel()
	c, h, v, k := newGatewayCloud(t, true, never) // no agent is suspect whose kernel answers
	k.alive.Store(false)
	v.turn(false)
	c.becomes(h.id(t))
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
	const grace = 5 * time.Second
	c, h, v, _ := newGatewayCloud(t, true, grace)
	v.turn(false)
	c.trusts(h.id(t), grace/4) // longer than the patience with those that are dead
	c.becomes(h.id(t))
	v.turn(true)
	until(t, soon, "cleared", func() bool { return !c.suspect(h.id(t)) })
}

func TestRestartedAgentKeepsItsGateways(t *testing.T) {
	t.Parallel()
	const grace = 4 * time.Second
	c, h, _, _ := newGatewayCloud(t, true, grace)
	s := c.sites[0]
	first := store.Heartbeats.Revision(s.st.Snapshot(), h.id(t))
	h.stop()
	c.trusts(h.id(t), grace/10)
	c.run(h)
	until(t, soon, "a heartbeat of the new stream", func() bool {
		return store.Heartbeats.Revision(s.st.Snapshot(), h.id(t)) > first
	})
	c.trusts(h.id(t), grace*5/4)
	began := time.Now()
	h.stop() // and for good
	c.becomes(h.id(t))
	if took := time.Since(began); took < grace/2 {
		t.Errorf("an agent was given %s only", took)
	}
}

// TestKilledHost: its kernel ends the stream, and then is no more.
func TestKilledHost(t *testing.T) {
	t.Parallel()
	c, h, _, k := newGatewayCloud(t, true, never)
	k.alive.Store(false)
	h.stop()
	c.becomes(h.id(t))
}

func TestOthersAreNotWatched(t *testing.T) {
	t.Parallel()
	c, h, v, k := newGatewayCloud(t, false, time.Second)
	k.alive.Store(false)
	v.turn(false)
	c.trusts(h.id(t), 2*time.Second)
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
