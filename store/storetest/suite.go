package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"yakumo/fault"
	"yakumo/store"
)

// backend is what a test of the suite runs on.
type backend struct {
	cl     *clientv3.Client
	prefix string
}

// Run runs the suite: what a store must do on whatever etcd client reaches. Each test has
// a prefix of its own.
func Run(t *testing.T, client *clientv3.Client) {
	for name, test := range map[string]func(backend, *testing.T){
		"ReadYourWrites":                  backend.readYourWrites,
		"SeekWithSeveralValuesARow":       backend.seekWithSeveralValuesARow,
		"SyncSeesOtherServersWrites":      backend.syncSeesOtherServersWrites,
		"ConcurrentIncrementsLoseNothing": backend.concurrentIncrementsLoseNothing,
		"Claims":                          backend.claims,
		"ClaimRace":                       backend.claimRace,
		"Guard":                           backend.guard,
		"ErrorWritesNothing":              backend.errorWritesNothing,
		"SubscriptionFoldsChanges":        backend.subscriptionFoldsChanges,
		"CompactionUnderASlowWatch":       backend.compactionUnderASlowWatch,
		"LeasedRowsGoWithTheLease":        backend.leasedRowsGoWithTheLease,
		"Fence":                           backend.fence,
		"LeaderComesBack":                 backend.leaderComesBack,
		"LargeTransactions":               backend.largeTransactions,
		"SyncIsShared":                    backend.syncIsShared,
	} {
		t.Run(name, func(t *testing.T) {
			test(backend{client, fmt.Sprintf("/suite-%s-%d/", name, time.Now().UnixNano())}, t)
		})
	}
}

type toy struct {
	ID    string
	Owner string
	Name  string
	N     int
}

var toys = store.Define("toy", func(r *toy) string { return r.ID },
	store.Claims(func(r *toy) []string {
		if r.Name == "" {
			return nil
		}
		return []string{r.Name}
	}),
	store.By("owner", func(r *toy) []string { return []string{r.Owner} }))

func put(t *testing.T, s *store.Store, rows ...toy) {
	t.Helper()
	if _, err := s.Update(t.Context(), func(tx *store.Tx) error {
		for _, r := range rows {
			if err := toys.Put(tx, &r); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

func (on backend) readYourWrites(t *testing.T) {
	s := Open(t, on.cl, on.prefix, toys)
	put(t, s, toy{ID: "a", Owner: "x", N: 1}, toy{ID: "b", Owner: "x"}, toy{ID: "c", Owner: "y"})
	snap := s.Snapshot()
	if r, ok := toys.Get(snap, "a"); !ok || r.N != 1 {
		t.Fatalf("Get = %+v, %v", r, ok)
	}
	var ids []string
	for r := range toys.List(snap, "owner", "x") {
		ids = append(ids, r.ID)
	}
	if !slices.Equal(ids, []string{"a", "b"}) {
		t.Errorf("List = %v", ids)
	}
	ids = nil
	for r := range toys.Seek(snap, "id", "", "b") {
		ids = append(ids, r.ID)
	}
	if !slices.Equal(ids, []string{"b", "c"}) {
		t.Errorf("Seek = %v", ids)
	}
	ids = nil
	for r := range toys.Seek(snap, "owner", "x", "") {
		ids = append(ids, r.ID)
	}
	if !slices.Equal(ids, []string{"a", "b"}) {
		t.Errorf("Seek of an owner = %v", ids)
	}
}

// seekWithSeveralValuesARow: a row comes once for each of its values below the
// prefix, and values outside it do not bring it back.
func (on backend) seekWithSeveralValuesARow(t *testing.T) {
	many := store.Define("many", func(r *toy) string { return r.ID },
		store.By("tag", func(r *toy) []string { return strings.Fields(r.Name) }))
	s := Open(t, on.cl, on.prefix, many)
	for id, tags := range map[string]string{"a": "x,1 y,1", "b": "x,1 x,2 z,9", "c": "y,1", "d": "x,3"} {
		if _, err := s.Update(t.Context(), func(tx *store.Tx) error { return many.Put(tx, &toy{ID: id, Name: tags}) }); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct{ prefix, from, want string }{
		{"x,", "", "abbd"}, {"x,", "x,2", "bd"}, {"y,", "", "ac"}, {"x,1", "", "ab"}, {"", "", "abbdacb"}, {"q", "", ""},
	} {
		got := ""
		for r := range many.Seek(s.Snapshot(), "tag", c.prefix, c.from) {
			got += r.ID
		}
		if got != c.want {
			t.Errorf("Seek(%q, %q) = %q, want %q", c.prefix, c.from, got, c.want)
		}
	}
}

func (on backend) syncSeesOtherServersWrites(t *testing.T) {
	a, b := Open(t, on.cl, on.prefix, toys), Open(t, on.cl, on.prefix, toys)
	for i := range 200 {
		put(t, a, toy{ID: "a", N: i})
		if err := b.Sync(t.Context()); err != nil {
			t.Fatal(err)
		}
		if r, ok := toys.Get(b.Snapshot(), "a"); !ok || r.N != i {
			t.Fatalf("after Sync the other server reads %+v, want N=%d", r, i)
		}
	}
}

func (on backend) concurrentIncrementsLoseNothing(t *testing.T) {
	servers := []*store.Store{Open(t, on.cl, on.prefix, toys), Open(t, on.cl, on.prefix, toys)}
	put(t, servers[0], toy{ID: "n"})
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for range 25 {
				if _, err := servers[w%2].Update(t.Context(), func(tx *store.Tx) error {
					r, ok := toys.Get(tx, "n")
					next := toy{ID: "n", N: 1}
					if ok {
						next.N = r.N + 1
					}
					return toys.Put(tx, &next)
				}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if err := servers[0].Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	if r, _ := toys.Get(servers[0].Snapshot(), "n"); r.N != 200 {
		t.Errorf("N = %d, want 200", r.N)
	}
}

func (on backend) claims(t *testing.T) {
	s := Open(t, on.cl, on.prefix, toys)
	put(t, s, toy{ID: "a", Name: "red"})
	_, err := s.Update(t.Context(), func(tx *store.Tx) error { return toys.Put(tx, &toy{ID: "b", Name: "red"}) })
	var taken *store.TakenError
	if !errors.As(err, &taken) || taken.Holder != "a" || !fault.Is(err, fault.Conflict) {
		t.Fatalf("second claim: %v", err)
	}
	if _, ok := toys.Get(s.Snapshot(), "b"); ok {
		t.Fatal("the refused row is there")
	}
	// A row may keep, change and give up its claim, and two may swap in one transaction.
	put(t, s, toy{ID: "a", Name: "red", N: 2}, toy{ID: "b", Name: "blue"})
	put(t, s, toy{ID: "a"}, toy{ID: "b", Name: "red"}, toy{ID: "a", Name: "blue"})
	if r, ok := toys.Claimed(s.Snapshot(), "red"); !ok || r.ID != "b" {
		t.Errorf("red is held by %+v", r)
	}
	if _, err := s.Update(t.Context(), func(tx *store.Tx) error { return toys.Delete(tx, "b") }); err != nil {
		t.Fatal(err)
	}
	if _, ok := toys.Holder(s.Snapshot(), "red"); ok {
		t.Error("the claim outlives its row")
	}
}

// claimRace: of many who want one name at once, on two servers, exactly one gets it.
func (on backend) claimRace(t *testing.T) {
	servers := []*store.Store{Open(t, on.cl, on.prefix, toys), Open(t, on.cl, on.prefix, toys)}
	for round := range 20 {
		var won, lost int
		var mu sync.Mutex
		var wg sync.WaitGroup
		for w := range 6 {
			wg.Go(func() {
				_, err := servers[w%2].Update(t.Context(), func(tx *store.Tx) error {
					return toys.Put(tx, &toy{ID: fmt.Sprintf("r%d-%d", round, w), Name: fmt.Sprintf("name%d", round)})
				})
				mu.Lock()
				defer mu.Unlock()
				switch {
				case err == nil:
					won++
				case fault.Is(err, fault.Conflict):
					lost++
				default:
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if won != 1 || lost != 5 {
			t.Fatalf("round %d: %d won, %d lost", round, won, lost)
		}
	}
}

// guard: a parent is never deleted while a child is being added, on whichever server.
func (on backend) guard(t *testing.T) {
	a, b := Open(t, on.cl, on.prefix, toys), Open(t, on.cl, on.prefix, toys)
	errGone, errUsed := fault.New(fault.NotFound, "gone"), fault.New(fault.Conflict, "in use")
	for i := range 40 {
		parent, child := fmt.Sprintf("p%d", i), fmt.Sprintf("c%d", i)
		put(t, a, toy{ID: parent})
		if err := b.Sync(t.Context()); err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		var addErr, delErr error
		wg.Go(func() {
			_, addErr = a.Update(t.Context(), func(tx *store.Tx) error {
				if _, ok := toys.Get(tx, parent); !ok {
					return errGone
				}
				tx.Mark("toy/" + parent)
				return toys.Put(tx, &toy{ID: child, Owner: parent})
			})
		})
		wg.Go(func() {
			_, delErr = b.Update(t.Context(), func(tx *store.Tx) error {
				tx.Guard("toy/" + parent)
				if toys.Count(tx, "owner", parent) > 0 {
					return errUsed
				}
				tx.Unmark("toy/" + parent)
				return toys.Delete(tx, parent)
			})
		})
		wg.Wait()
		if err := a.Sync(t.Context()); err != nil {
			t.Fatal(err)
		}
		_, hasParent := toys.Get(a.Snapshot(), parent)
		_, hasChild := toys.Get(a.Snapshot(), child)
		if hasChild != hasParent || (addErr == nil) == (delErr == nil) {
			t.Fatalf("round %d: parent %v, child %v, add %v, delete %v", i, hasParent, hasChild, addErr, delErr)
		}
	}
}

func (on backend) errorWritesNothing(t *testing.T) {
	s := Open(t, on.cl, on.prefix, toys)
	boom := errors.New("boom")
	if _, err := s.Update(t.Context(), func(tx *store.Tx) error {
		if err := toys.Put(tx, &toy{ID: "a"}); err != nil {
			return err
		}
		return boom
	}); !errors.Is(err, boom) {
		t.Fatal(err)
	}
	if _, ok := toys.Get(s.Snapshot(), "a"); ok {
		t.Error("a row of a failed transaction is there")
	}
	if _, err := s.Update(t.Context(), func(tx *store.Tx) error { return toys.Put(tx, &toy{ID: "a/b"}) }); err == nil {
		t.Error("a key with a slash was taken")
	}
}

func (on backend) subscriptionFoldsChanges(t *testing.T) {
	s := Open(t, on.cl, on.prefix, toys)
	put(t, s, toy{ID: "old", N: 1})
	sub := s.Subscribe("toy")
	defer sub.Close()
	d, err := sub.Next(t.Context())
	if err != nil || !d.First || len(d.Changes) != 0 {
		t.Fatalf("first delta: %+v, %v", d, err)
	}
	for i := range 5 {
		put(t, s, toy{ID: "a", N: i})
	}
	put(t, s, toy{ID: "b"})
	if _, err := s.Update(t.Context(), func(tx *store.Tx) error {
		if err := toys.Delete(tx, "old"); err != nil {
			return err
		}
		return toys.Delete(tx, "b")
	}); err != nil {
		t.Fatal(err)
	}
	if d, err = sub.Next(t.Context()); err != nil {
		t.Fatal(err)
	}
	got := map[string][2]int{}
	for _, c := range d.Changes {
		v := [2]int{-1, -1}
		if c.Old != nil {
			v[0] = c.Old.(*toy).N
		}
		if c.New != nil {
			v[1] = c.New.(*toy).N
		}
		got[c.Key] = v
	}
	if len(got) != 2 || got["a"] != [2]int{-1, 4} || got["old"] != [2]int{1, -1} {
		t.Errorf("changes = %v", got)
	}
}

// compactionUnderASlowWatch: history that the mirror has not seen is compacted away
// while its watch is cut; it lists again and misses nothing.
func (on backend) compactionUnderASlowWatch(t *testing.T) {
	cut := newCutter(t, on.cl)
	slow := Open(t, cut.client, on.prefix, toys)
	fast := Open(t, on.cl, on.prefix, toys)
	put(t, fast, toy{ID: "gone"}, toy{ID: "kept", N: 1})
	if err := slow.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	sub := slow.Subscribe("toy")
	defer sub.Close()
	if _, err := sub.Next(t.Context()); err != nil {
		t.Fatal(err)
	}
	cut.off()
	put(t, fast, toy{ID: "kept", N: 2}, toy{ID: "new"})
	rev, err := fast.Update(t.Context(), func(tx *store.Tx) error { return toys.Delete(tx, "gone") })
	if err != nil {
		t.Fatal(err)
	}
	put(t, fast, toy{ID: "last"})
	if _, err := on.cl.Compact(t.Context(), rev+1, clientv3.WithCompactPhysical()); err != nil {
		t.Fatal(err)
	}
	cut.on()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	if err := slow.Wait(ctx, rev+1); err != nil {
		t.Fatal(err)
	}
	snap := slow.Snapshot()
	if _, ok := toys.Get(snap, "gone"); ok {
		t.Error("a row deleted during the cut is still there")
	}
	if r, ok := toys.Get(snap, "kept"); !ok || r.N != 2 {
		t.Errorf("kept = %+v, %v", r, ok)
	}
	for _, id := range []string{"new", "last"} {
		if _, ok := toys.Get(snap, id); !ok {
			t.Errorf("%s is missing", id)
		}
	}
	d, err := sub.Next(ctx)
	if err != nil || len(d.Changes) == 0 {
		t.Fatalf("the subscriber was not told: %+v, %v", d, err)
	}
}

func (on backend) leasedRowsGoWithTheLease(t *testing.T) {
	s := Open(t, on.cl, on.prefix, toys)
	l, err := s.NewLease(t.Context(), time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Update(t.Context(), func(tx *store.Tx) error { return toys.PutLeased(tx, &toy{ID: "alive"}, l) }); err != nil {
		t.Fatal(err)
	}
	sub := s.Subscribe("toy")
	defer sub.Close()
	if _, err := sub.Next(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	d, err := sub.Next(t.Context())
	if err != nil || len(d.Changes) != 1 || d.Changes[0].New != nil {
		t.Fatalf("%+v, %v", d, err)
	}
}

// fence: a leader that was deposed writes nothing, even while it still believes.
func (on backend) fence(t *testing.T) {
	a, b := Open(t, on.cl, on.prefix, toys), Open(t, on.cl, on.prefix, toys)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	actx, astop := context.WithCancel(ctx)
	terms := make(chan store.Term, 2)
	var wg sync.WaitGroup
	lead := func(ctx context.Context, s *store.Store, who string) {
		wg.Go(func() {
			s.Lead(ctx, "x", who, 20*time.Second, func(ctx context.Context, term store.Term) {
				terms <- term
				<-ctx.Done()
			})
		})
	}
	lead(actx, a, "a")
	first := <-terms
	write := func(s *store.Store, term store.Term, n int) error {
		_, err := s.Update(ctx, func(tx *store.Tx) error {
			tx.Fence(term)
			return toys.Put(tx, &toy{ID: "f", N: n})
		})
		return err
	}
	if err := write(a, first, 1); err != nil {
		t.Fatalf("the leader cannot write: %v", err)
	}
	lead(ctx, b, "b")
	astop()
	second := <-terms
	if err := write(a, first, 2); !errors.Is(err, store.ErrDeposed) {
		t.Errorf("the deposed leader's write: %v", err)
	}
	if err := write(b, second, 3); err != nil {
		t.Errorf("the new leader cannot write: %v", err)
	}
	cancel()
	wg.Wait()
	if r, _ := toys.Get(b.Snapshot(), "f"); r == nil || r.N != 3 {
		t.Errorf("row = %+v", r)
	}
}

// leaderComesBack: a leader that was killed leads again as soon as it is back, long before
// its former term would have run out; what the former life still writes is refused.
func (on backend) leaderComesBack(t *testing.T) {
	s := Open(t, on.cl, on.prefix, toys)
	const ttl = 8 * time.Minute
	ctx, cancel := context.WithTimeout(t.Context(), ttl/4)
	defer cancel()
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	terms := make(chan store.Term, 1)
	lead := func() store.Term {
		wg.Go(func() {
			s.Lead(ctx, "x", "one", ttl, func(ctx context.Context, term store.Term) {
				terms <- term
				<-ctx.Done()
			})
		})
		select {
		case term := <-terms:
			return term
		case <-ctx.Done():
			t.Fatal("nobody leads")
			return store.Term{}
		}
	}
	former := lead() // its lease is kept alive: as good as a process that does not know it is dead
	lead()
	_, err := s.Update(ctx, func(tx *store.Tx) error {
		tx.Fence(former)
		return toys.Put(tx, &toy{ID: "f"})
	})
	if !errors.Is(err, store.ErrDeposed) {
		t.Errorf("the former life's write: %v", err)
	}
}

// largeTransactions: what fits is committed as one; what does not is refused in words, with
// nothing written.
func (on backend) largeTransactions(t *testing.T) {
	s := Open(t, on.cl, on.prefix, toys)
	write := func(n int, name string) error {
		_, err := s.Update(t.Context(), func(tx *store.Tx) error {
			for i := range n {
				if err := toys.Put(tx, &toy{ID: fmt.Sprintf("%s%04d", name, i), Owner: name}); err != nil {
					return err
				}
			}
			return nil
		})
		return err
	}
	if err := write(store.MaxOps-1, "fits"); err != nil { // one more is head
		t.Fatal(err)
	}
	if n := toys.Count(s.Snapshot(), "owner", "fits"); n != store.MaxOps-1 {
		t.Errorf("%d rows", n)
	}
	err := write(store.MaxOps+1, "big")
	if !fault.Is(err, fault.TooLarge) || !strings.Contains(err.Error(), "limit is 1024") {
		t.Errorf("too many rows: %v", err)
	}
	if n := toys.Count(s.Snapshot(), "owner", "big"); n != 0 {
		t.Errorf("%d rows of a refused transaction", n)
	}
	// 40 MB is more than any etcd takes.
	_, err = s.Update(t.Context(), func(tx *store.Tx) error {
		return toys.Put(tx, &toy{ID: "huge", Name: "", Owner: strings.Repeat("x", 40<<20)})
	})
	if err == nil || fault.Is(err, fault.Unavailable) {
		t.Errorf("a row of 40 MB: %v", err)
	}
	if _, ok := toys.Get(s.Snapshot(), "huge"); ok {
		t.Error("a refused row is there")
	}
}

// syncIsShared: many who ask at once are all served, and each sees what was written before it asked.
func (on backend) syncIsShared(t *testing.T) {
	a, b := Open(t, on.cl, on.prefix, toys), Open(t, on.cl, on.prefix, toys)
	var wg sync.WaitGroup
	for w := range 16 {
		wg.Go(func() {
			id := fmt.Sprint("w", w)
			for n := range 20 {
				if _, err := a.Update(t.Context(), func(tx *store.Tx) error { return toys.Put(tx, &toy{ID: id, N: n}) }); err != nil {
					t.Error(err)
					return
				}
				if err := b.Sync(t.Context()); err != nil {
					t.Error(err)
					return
				}
				if r, ok := toys.Get(b.Snapshot(), id); !ok || r.N != n {
					t.Errorf("after Sync %s is %+v, want %d", id, r, n)
				}
			}
		})
	}
	wg.Wait()
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := b.Sync(ended); !fault.Is(err, fault.Unavailable) {
		t.Errorf("Sync with an ended context: %v", err)
	}
}
