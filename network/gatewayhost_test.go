package network_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"yakumo/model"
	"yakumo/reconcile"
	"yakumo/reconcile/scripttest"
	"yakumo/store"
	"yakumo/store/storetest"
)

// plainWriter commits without a term of office.
type plainWriter struct{ s *store.Store }

func (w plainWriter) Update(ctx context.Context, f func(*store.Tx) error) (int64, error) {
	return w.s.Update(ctx, f)
}

func pass(t testing.TB, s *store.Store) {
	t.Helper()
	if _, err := unlimited().GatewayPlacer().Reconcile(t.Context(), s.Snapshot(), plainWriter{s}); err != nil {
		t.Fatal(err)
	}
}

// TestGatewayScripts: rows in, one pass of the controller, rows out.
func TestGatewayScripts(t *testing.T) {
	tables := []scripttest.Rows{
		scripttest.Of(store.Routers, func(r *model.Router) string { return r.ID }), scripttest.Of(store.Networks, func(r *model.Network) string { return r.ID }),
		scripttest.Of(store.Hosts, func(r *model.Host) string { return r.ID }), scripttest.Of(store.Heartbeats, func(r *model.Heartbeat) string { return r.HostID }),
	}
	open := func(t testing.TB) *store.Store { return storetest.New(t) }
	scripttest.Run(t, "testdata/gateways", open, tables, func(t *testing.T, s *store.Store) { pass(t, s) })
}

// gatewayWorld is hosts and routers with gateways in one external network.
func gatewayWorld(t testing.TB, s *store.Store, hosts, routers int) {
	t.Helper()
	put := func(f func(tx *store.Tx) error) {
		if _, err := s.Update(t.Context(), f); err != nil {
			t.Fatal(err)
		}
	}
	put(func(tx *store.Tx) error {
		return store.Networks.Put(tx, &model.Network{Meta: model.Meta{ID: "out"}, External: true, Type: model.NetworkFlat, PhysicalNetwork: "ext", VNI: 1})
	})
	for at := 0; at < max(hosts, routers); at += 100 {
		put(func(tx *store.Tx) error {
			for i := at; i < at+100; i++ {
				if i < hosts {
					id := fmt.Sprintf("h%04d", i)
					if err := store.Hosts.Put(tx, &model.Host{Meta: model.Meta{ID: id, Name: id}, BridgeMappings: []string{"ext"}}); err != nil {
						return err
					}
					if err := store.Heartbeats.Put(tx, &model.Heartbeat{HostID: id}); err != nil {
						return err
					}
				}
				if i < routers {
					r := &model.Router{Meta: model.Meta{ID: fmt.Sprintf("r%05d", i)}, HA: true, VNI: uint32(10 + i), Gateway: &model.RouterGateway{NetworkID: "out"}}
					if err := store.Routers.Put(tx, r); err != nil {
						return err
					}
				}
			}
			return nil
		})
	}
}

// TestGatewaysOfADeadHost: every gateway of a dead host is served by the one that waited in
// one transaction, and no other gateway moves.
func TestGatewaysOfADeadHost(t *testing.T) {
	s := storetest.New(t)
	gatewayWorld(t, s, 3, 900)
	pass(t, s)
	before := map[string][]string{}
	load := map[string]int{}
	for r := range store.Routers.All(s.Snapshot()) {
		before[r.ID] = r.Status.GatewayHosts
		load[r.ActiveHost()]++
	}
	for h, n := range load {
		if n != 300 {
			t.Errorf("%s serves %d of 900 gateways", h, n)
		}
	}
	if _, err := s.Update(t.Context(), func(tx *store.Tx) error { return store.Heartbeats.Delete(tx, "h0000") }); err != nil {
		t.Fatal(err)
	}
	commits, _, _, _, _ := s.Stats()
	pass(t, s)
	for r := range store.Routers.All(s.Snapshot()) {
		was := before[r.ID]
		want := was[0]
		if want == "h0000" {
			want = was[1]
		}
		if r.ActiveHost() != want {
			t.Errorf("%s was on %v, is on %v", r.ID, was, r.Status.GatewayHosts)
		}
		if slices.Contains(r.Status.GatewayHosts, "h0000") || len(r.Status.GatewayHosts) != 2 {
			t.Errorf("%s is on %v", r.ID, r.Status.GatewayHosts)
		}
	}
	if after, _, _, _, _ := s.Stats(); after-commits != 2 { // 300 move and 300 lose who waited: 600 rows
		t.Errorf("%d transactions", after-commits)
	}
}

// TestGatewayPlacerRuns: the controller, run as a server runs it, follows a host's suspicion.
func TestGatewayPlacerRuns(t *testing.T) {
	s := storetest.New(t)
	gatewayWorld(t, s, 2, 1)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		reconcile.Run(ctx, reconcile.Config{Store: s, Identity: "me"}, unlimited().GatewayPlacer())
	}()
	defer func() { cancel(); <-done }()
	active := func(not string) string {
		sub := s.Subscribe(store.Routers.Kind())
		defer sub.Close()
		wait, stop := context.WithTimeout(t.Context(), 90*time.Second)
		defer stop()
		for {
			d, err := sub.Next(wait)
			if err != nil {
				t.Fatalf("no gateway beside %q: %v", not, err)
			}
			if r, _ := store.Routers.Get(d.Snapshot, "r00000"); r.ActiveHost() != "" && r.ActiveHost() != not {
				return r.ActiveHost()
			}
		}
	}
	first := active("")
	if _, err := s.Update(t.Context(), func(tx *store.Tx) error {
		return store.Heartbeats.Put(tx, &model.Heartbeat{HostID: first, Suspect: true})
	}); err != nil {
		t.Fatal(err)
	}
	active(first)
}

// TestGatewayPlacement: whatever hosts do, a gateway is on a healthy one where there is any,
// leaves a host only when that is not healthy, and a second pass changes nothing.
func TestGatewayPlacement(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := storetest.New(t)
		hosts, routers := rapid.IntRange(1, 6).Draw(rt, "hosts"), rapid.IntRange(1, 12).Draw(rt, "routers")
		gatewayWorld(t, s, hosts, routers)
		for range rapid.IntRange(1, 6).Draw(rt, "steps") {
			if _, err := s.Update(t.Context(), func(tx *store.Tx) error {
				id := fmt.Sprintf("h%04d", rapid.IntRange(0, hosts-1).Draw(rt, "host"))
				old, _ := store.Hosts.Get(tx, id)
				h := *old
				switch rapid.IntRange(0, 4).Draw(rt, "what") {
				case 0:
					return store.Heartbeats.Delete(tx, id)
				case 1:
					return store.Heartbeats.Put(tx, &model.Heartbeat{HostID: id})
				case 2:
					return store.Heartbeats.Put(tx, &model.Heartbeat{HostID: id, Suspect: true})
				case 3:
					h.Disabled = !h.Disabled
				case 4:
					h.BridgeMappings = [][]string{nil, {"ext"}}[rapid.IntRange(0, 1).Draw(rt, "maps")]
				}
				return store.Hosts.Put(tx, &h)
			}); err != nil {
				rt.Fatal(err)
			}
			before := s.Snapshot()
			pass(t, s)
			after := s.Snapshot()
			w, _ := store.Networks.Get(after, "out")
			good := map[string]bool{}
			for h := range store.Hosts.All(after) {
				_, beats := store.Heartbeats.Get(after, h.ID)
				b, _ := store.Heartbeats.Get(after, h.ID)
				if beats && !b.Suspect && !h.Disabled && slices.Contains(h.BridgeMappings, w.PhysicalNetwork) {
					good[h.ID] = true
				}
			}
			for r := range store.Routers.All(after) {
				old, _ := store.Routers.Get(before, r.ID)
				was, is := old.Status.GatewayHosts, r.Status.GatewayHosts
				switch {
				case len(is) > 2 || len(is) == 2 && is[0] == is[1]:
					rt.Fatalf("%s is on %v", r.ID, is)
				case len(good) == 0:
				case len(is) != min(2, len(good)) || !good[is[0]] || !good[is[len(is)-1]]:
					rt.Fatalf("%s is on %v, healthy are %v", r.ID, is, good)
				case len(was) > 0 && good[was[0]] && is[0] != was[0]:
					rt.Fatalf("%s left the healthy %s for %s", r.ID, was[0], is[0])
				case len(was) > 1 && !good[was[0]] && good[was[1]] && is[0] != was[1]:
					rt.Fatalf("%s was on %v, and not the one that waited serves, but %s", r.ID, was, is[0])
				}
			}
			pass(t, s)
			if now := s.Snapshot().Revision(); now != after.Revision() {
				rt.Fatalf("a second pass wrote: %d after %d", now, after.Revision())
			}
		}
	})
}

// BenchmarkGatewayPass is a pass over 10,000 routers and 1,000 hosts in which nothing is to do.
func BenchmarkGatewayPass(b *testing.B) {
	s := storetest.New(b)
	gatewayWorld(b, s, 1000, 10000)
	pass(b, s)
	for b.Loop() {
		pass(b, s)
	}
}
