package compute_test

import (
	"testing"
	"time"

	"yakumo/compute"
	"yakumo/model"
	"yakumo/store"
)

// TestRestartElsewhere: a server whose policy is so is restarted when its host's silence has lasted its lease and the margin, not before,
// and at once where the host was fenced.
func TestRestartElsewhere(t *testing.T) {
	for _, x := range []struct {
		name         string
		policy       string
		lease        int // that the host has said
		silence      time.Duration
		back, fenced bool
		want         bool
	}{
		{"no policy", "", 30, time.Hour, false, false, false},
		{"no policy, fenced", "", 30, time.Hour, false, true, false},
		{"in time", model.HARestart, 30, 39 * time.Second, false, false, false},
		{"too late", model.HARestart, 30, 41 * time.Second, false, false, true},
		{"the host never said that it holds to a lease", model.HARestart, 0, 59 * time.Minute, false, false, false},
		{"the host may still hold to a longer one", model.HARestart, 60, 41 * time.Second, false, false, false},
		{"it was back meanwhile", model.HARestart, 30, time.Minute, true, false, false},
		{"fenced", model.HARestart, 0, time.Second, false, true, true},
	} {
		t.Run(x.name, func(t *testing.T) {
			p := newPair(t)
			clock := time.Now()
			c := compute.New(compute.Config{Store: p.s0(), Ports: p.net, Log: quiet, Now: func() time.Time { return clock }})
			p.update(func(tx *store.Tx) error {
				s, _ := store.Servers.Get(tx, p.s.ID)
				n := *s
				n.Metadata = map[string]string{model.HAKey: x.policy}
				n.Status.Lease = x.lease
				return store.Servers.Put(tx, &n)
			})
			p.a.Stop()
			p.a.Crash()
			restarter := c.Restarter()
			pass := func() {
				t.Helper()
				if _, err := restarter.Reconcile(t.Context(), p.s0().Snapshot(), plainWriter{p.s0()}); err != nil {
					t.Fatal(err)
				}
			}
			absent := func() {
				p.vanish(p.a)
				p.wait("it is noted", func(snap store.Snapshot) bool { h, _ := store.Hosts.Get(snap, p.a.ID()); return !h.DownAt.IsZero() })
			}
			absent()
			pass()
			if x.back {
				clock = clock.Add(x.silence - 10*time.Second)
				p.appear(p.a)
				absent()
				pass()
				x.silence = 10 * time.Second
			}
			if x.fenced {
				p.update(func(tx *store.Tx) error { _, err := c.Fence(tx, p.a.ID()); return err })
			}
			clock = clock.Add(x.silence)
			pass()
			m := p.migration()
			if got := m != nil && m.Kind == model.MoveEvacuate; got != x.want {
				t.Fatalf("it is restarted elsewhere: %v, want %v", got, x.want)
			}
			if x.want {
				s := p.rests(p.b, compute.MigrationDone)
				if s.Status.Lease != 0 {
					t.Errorf("the new host has said that it holds to %d s", s.Status.Lease)
				}
			}
		})
	}
}
