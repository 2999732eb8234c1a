package store_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"yakumo/fault"
	"yakumo/store"
	"yakumo/store/storetest"
)

// TestCluster runs the suite on a cluster of three processes, then kills its members under load.
func TestCluster(t *testing.T) {
	t.Parallel()
	c := storetest.StartCluster(t, 3, "--max-txn-ops", "1024", "--heartbeat-interval", "200", "--election-timeout", "2000")
	t.Run("Suite", func(t *testing.T) { storetest.Run(t, c.Client()) })
	t.Run("LeaderDiesUnderLoad", func(t *testing.T) { leaderDiesUnderLoad(t, c) })
}

// TestFewOperations: an etcd that would refuse large transactions one day is refused at once.
func TestFewOperations(t *testing.T) {
	t.Parallel()
	c := storetest.StartCluster(t, 1, "--max-txn-ops", "128")
	s, err := store.Open(t.Context(), store.Config{Client: c.Client(), Tables: []store.AnyTable{toys}})
	if err == nil {
		s.Close()
		t.Fatal("opened")
	}
	if want := "etcd allows too few operations in a transaction: start it with --max-txn-ops 1024"; err.Error() != "read the store: "+want {
		t.Errorf("error: %v", err)
	}
}

// TestOpenWaitsForEtcd: a server may be started before its etcd.
func TestOpenWaitsForEtcd(t *testing.T) {
	t.Parallel()
	c := storetest.StartCluster(t, 1)
	c.Kill(0)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	opened := make(chan error, 1)
	go func() {
		s, err := store.Open(ctx, store.Config{Client: c.Client(), Prefix: "/late/", Tables: []store.AnyTable{toys}, OpTimeout: time.Second})
		if err == nil {
			s.Close()
		}
		opened <- err
	}()
	select {
	case err := <-opened:
		t.Fatalf("Open did not wait: %v", err)
	case <-time.After(2500 * time.Millisecond): // longer than one request may take
	}
	c.Start(0)
	if err := <-opened; err != nil {
		t.Fatal(err)
	}
}

// TestEtcdAway: while etcd is away a reader is told so soon, and when it is back the store
// goes on by itself, with what others wrote meanwhile.
func TestEtcdAway(t *testing.T) {
	t.Parallel()
	c := storetest.StartCluster(t, 1)
	s := storetest.Open(t, c.Client(), "/away/", toys)
	put := func(n int) error {
		_, err := s.Update(t.Context(), func(tx *store.Tx) error { return toys.Put(tx, &toy{ID: "a", N: n}) })
		return err
	}
	if err := put(1); err != nil {
		t.Fatal(err)
	}
	c.Kill(0)
	began := time.Now()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if err := s.Sync(t.Context()); !fault.Is(err, fault.Unavailable) {
				t.Errorf("Sync without etcd: %v", err)
			}
		})
	}
	wg.Wait()
	if took := time.Since(began); took > 30*time.Second { // one after the other they would need 40 s
		t.Errorf("Sync told after %s that etcd is away", took)
	}
	hctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	began = time.Now()
	if err := s.Sync(hctx); !fault.Is(err, fault.Unavailable) || time.Since(began) > 4*time.Second { // others are told after 5 s
		t.Errorf("Sync of a hurried caller: %v after %s", err, time.Since(began))
	}
	if r, ok := toys.Get(s.Snapshot(), "a"); !ok || r.N != 1 {
		t.Error("the mirror forgot")
	}
	c.Start(0)
	began = time.Now()
	for {
		err := s.Sync(t.Context())
		if err == nil {
			break
		}
		if time.Since(began) > 90*time.Second {
			t.Fatalf("the store did not come back: %v", err)
		}
	}
	t.Logf("back %s after etcd was started", time.Since(began).Round(time.Millisecond))
	if err := put(2); err != nil {
		t.Fatal(err)
	}
	other := storetest.Open(t, c.Client(), "/away/", toys)
	if _, err := other.Update(t.Context(), func(tx *store.Tx) error { return toys.Put(tx, &toy{ID: "a", N: 3}) }); err != nil {
		t.Fatal(err)
	}
	if err := s.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	if r, ok := toys.Get(s.Snapshot(), "a"); !ok || r.N != 3 {
		t.Errorf("after the restart the mirror has %+v", r)
	}
}

// leaderDiesUnderLoad counts in one row and keeps a row of history for each count. Whatever
// dies, what was acknowledged is there, once.
func leaderDiesUnderLoad(t *testing.T, c *storetest.Cluster) {
	const prefix = "/count/"
	servers := []*store.Store{storetest.Open(t, c.Client(), prefix, toys), storetest.Open(t, c.Client(), prefix, toys)}
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()

	var mu sync.Mutex
	acked, unsure := map[string]int{}, map[string]bool{}
	var acks, op atomic.Int64
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				name, n := fmt.Sprint("op", op.Add(1)), 0
				_, err := servers[w%2].Update(ctx, func(tx *store.Tx) error {
					n = 1
					if r, ok := toys.Get(tx, "count"); ok {
						n = r.N + 1
					}
					if err := toys.Put(tx, &toy{ID: "count", N: n}); err != nil {
						return err
					}
					return toys.Put(tx, &toy{ID: fmt.Sprint("h", n), Owner: "history", Name: name, N: n})
				})
				mu.Lock()
				switch {
				case err == nil:
					acked[name] = n
					acks.Add(1)
				case fault.Is(err, fault.Unavailable):
					unsure[name] = true
				default:
					t.Errorf("update: %v", err)
				}
				mu.Unlock()
			}
		})
	}
	// more waits until so many more were acknowledged: the cloud goes on.
	more := func(what string, n int64) {
		t.Helper()
		began, from := time.Now(), acks.Load()
		for acks.Load() < from+n {
			select {
			case <-time.After(10 * time.Millisecond):
			case <-ctx.Done():
				t.Fatalf("%s: updates did not resume", what)
			}
		}
		t.Logf("%s: %d updates in %s", what, n, time.Since(began).Round(time.Millisecond))
	}
	more("all there", 50)
	for round := range 2 {
		leader, err := c.Leader(ctx)
		if err != nil {
			t.Fatal(err)
		}
		c.Kill(leader)
		more(fmt.Sprintf("round %d, leader killed", round), 50)
		c.Start(leader)
		more(fmt.Sprintf("round %d, it is back", round), 50)
	}
	close(stop)
	wg.Wait()

	for i, s := range servers {
		if err := s.Sync(ctx); err != nil {
			t.Fatal(err)
		}
		snap, seen := s.Snapshot(), map[string]int{}
		rows := 0
		for r := range toys.List(snap, "owner", "history") {
			rows++
			if n, twice := seen[r.Name]; twice {
				t.Errorf("%s counted twice: %d and %d", r.Name, n, r.N)
			}
			seen[r.Name] = r.N
			if _, ok := acked[r.Name]; !ok && !unsure[r.Name] {
				t.Errorf("%s is in the history, but was never tried", r.Name)
			}
		}
		for name, n := range acked {
			if seen[name] != n {
				t.Errorf("server %d: %s was acknowledged as %d, the history has %d", i, name, n, seen[name])
			}
		}
		if r, ok := toys.Get(snap, "count"); !ok || r.N != rows {
			t.Errorf("server %d: the count is %+v, the history has %d rows", i, r, rows)
		}
	}
	t.Logf("%d acknowledged, %d unsure", len(acked), len(unsure))
}
