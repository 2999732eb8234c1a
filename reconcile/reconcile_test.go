package reconcile_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"yakumo/fault"
	"yakumo/reconcile"
	"yakumo/store"
	"yakumo/store/storetest"
)

// wish is a row that a controller acts on: it makes Got of Want.
type wish struct {
	ID   string
	Want int
	Got  int
	By   string // who wrote Got
}

var wishes = store.Define("wish", func(w *wish) string { return w.ID },
	store.By("open", func(w *wish) []string {
		if w.Want != w.Got {
			return []string{"yes"}
		}
		return nil
	}))

const patience = 90 * time.Second

func config(s *store.Store, identity string) reconcile.Config {
	return reconcile.Config{Store: s, Identity: identity, TTL: time.Second, MinBackoff: time.Millisecond, MaxBackoff: 20 * time.Millisecond, Log: slog.New(slog.DiscardHandler)}
}

// run runs a controller until the test, or what it gives, ends it.
func run(t testing.TB, cfg reconcile.Config, c reconcile.Controller) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); reconcile.Run(ctx, cfg, c) }()
	stop = func() { cancel(); <-done }
	t.Cleanup(stop)
	return stop
}

func put(t testing.TB, s *store.Store, id string, want int) {
	t.Helper()
	if _, err := s.Update(t.Context(), func(tx *store.Tx) error {
		n := wish{ID: id, Want: want}
		if old, ok := wishes.Get(tx, id); ok {
			n.Got, n.By = old.Got, old.By
		}
		return wishes.Put(tx, &n)
	}); err != nil {
		t.Fatal(err)
	}
}

// settled waits until nothing is open.
func settled(t testing.TB, s *store.Store, ok func(store.Snapshot) bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	sub := s.Subscribe()
	defer sub.Close()
	for {
		d, err := sub.Next(ctx)
		if err != nil {
			t.Fatal("the rows do not settle")
		}
		if ok(d.Snapshot) {
			return
		}
	}
}

func nothingOpen(snap store.Snapshot) bool { return wishes.Count(snap, "open", "yes") == 0 }

// whole grants every open wish in one pass.
type whole struct {
	by     string
	mu     sync.Mutex
	fail   int // passes that fail
	passes int
	after  time.Duration
	seen   chan struct{}
}

func (*whole) Name() string        { return "grant" }
func (*whole) Reads() []store.Kind { return []store.Kind{wishes.Kind()} }

func (c *whole) Reconcile(ctx context.Context, snap store.Snapshot, w reconcile.Writer) (reconcile.Result, error) {
	c.mu.Lock()
	c.passes++
	failing := c.fail > 0
	if failing {
		c.fail--
	}
	c.mu.Unlock()
	if c.seen != nil {
		select {
		case c.seen <- struct{}{}:
		default:
		}
	}
	if failing {
		return reconcile.Result{}, errors.New("not now")
	}
	_, err := w.Update(ctx, func(tx *store.Tx) error {
		for x := range wishes.List(snap, "open", "yes") {
			n := *x
			n.Got, n.By = x.Want, c.by
			if err := wishes.Put(tx, &n); err != nil {
				return err
			}
		}
		return nil
	})
	return reconcile.Result{After: c.after}, err
}

func TestWholeFollowsChangesAndOutlivesFailures(t *testing.T) {
	s := storetest.New(t, wishes)
	put(t, s, "before", 7)
	c := &whole{by: "a", fail: 5}
	run(t, config(s, "a"), c)
	settled(t, s, nothingOpen)
	for i := range 20 {
		put(t, s, fmt.Sprint(i%3), i+1)
		settled(t, s, nothingOpen)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.passes < 6 {
		t.Errorf("%d passes; the 5 that failed were not tried again", c.passes)
	}
}

func TestWholeLooksAgainWhenItAskedTo(t *testing.T) {
	s := storetest.New(t, wishes)
	c := &whole{by: "a", after: time.Millisecond, seen: make(chan struct{})}
	run(t, config(s, "a"), c)
	deadline := time.After(patience)
	for range 5 { // with no change at all
		select {
		case <-c.seen:
		case <-deadline:
			t.Fatal("it does not look again")
		}
	}
}

func TestResyncLooksAgain(t *testing.T) {
	s := storetest.New(t, wishes)
	c := &whole{by: "a", seen: make(chan struct{})}
	cfg := config(s, "a")
	cfg.Resync = 2 * time.Millisecond
	run(t, cfg, c)
	deadline := time.After(patience)
	for range 3 {
		select {
		case <-c.seen:
		case <-deadline:
			t.Fatal("it does not resync")
		}
	}
}

// TestOneLeads: of two processes one acts; when it is gone, the other does.
func TestOneLeads(t *testing.T) {
	cl, prefix := storetest.Client(t)
	s1, s2 := storetest.Open(t, cl, prefix, wishes), storetest.Open(t, cl, prefix, wishes)
	a, b := &whole{by: "a"}, &whole{by: "b"}
	stop := run(t, config(s1, "a"), a)
	put(t, s1, "x", 1)
	settled(t, s1, nothingOpen)
	run(t, config(s2, "b"), b)
	for i := range 10 {
		put(t, s2, "x", i+2)
		settled(t, s2, func(snap store.Snapshot) bool {
			x, _ := wishes.Get(snap, "x")
			return x.Got == i+2
		})
	}
	if x, _ := wishes.Get(s2.Snapshot(), "x"); x.By != "a" {
		t.Errorf("written by %s while a leads", x.By)
	}
	stop()
	put(t, s2, "x", 100)
	settled(t, s2, nothingOpen)
	if x, _ := wishes.Get(s2.Snapshot(), "x"); x.By != "b" {
		t.Errorf("written by %s after a has gone", x.By)
	}
}

// stubborn writes on after its term, as a process does that was asleep.
type stubborn struct {
	writers chan reconcile.Writer
}

func (*stubborn) Name() string        { return "stubborn" }
func (*stubborn) Reads() []store.Kind { return []store.Kind{wishes.Kind()} }
func (c *stubborn) Reconcile(ctx context.Context, _ store.Snapshot, w reconcile.Writer) (reconcile.Result, error) {
	select {
	case c.writers <- w:
	default:
	}
	return reconcile.Result{}, nil
}

func TestFormerLeaderCannotWrite(t *testing.T) {
	s := storetest.New(t, wishes)
	c := &stubborn{writers: make(chan reconcile.Writer, 1)}
	stop := run(t, config(s, "a"), c)
	var w reconcile.Writer
	select {
	case w = <-c.writers:
	case <-time.After(patience):
		t.Fatal("no pass")
	}
	write := func() error {
		_, err := w.Update(t.Context(), func(tx *store.Tx) error { return wishes.Put(tx, &wish{ID: "late", Want: 1}) })
		return err
	}
	if err := write(); err != nil {
		t.Errorf("in office: %v", err)
	}
	stop()
	if err := write(); !errors.Is(err, store.ErrDeposed) || !fault.Is(err, fault.Unavailable) {
		t.Errorf("after the term: %v, want ErrDeposed", err)
	}
}

// each grants one wish at a time; of some keys the first tries fail.
type each struct {
	mu      sync.Mutex
	fail    map[string]int
	running map[string]bool
	clash   bool
	worked  map[string]int
}

func (*each) Name() string        { return "grant-each" }
func (*each) Reads() []store.Kind { return []store.Kind{wishes.Kind()} }
func (*each) Keys(snap store.Snapshot) iter.Seq[string] {
	return func(yield func(string) bool) {
		for w := range wishes.List(snap, "open", "yes") {
			if !yield(w.ID) {
				return
			}
		}
	}
}
func (*each) Concerns(_ store.Snapshot, ch store.Change) []string { return []string{ch.Key} }

func (c *each) ReconcileKey(ctx context.Context, snap store.Snapshot, key string, w reconcile.Writer) (reconcile.Result, error) {
	c.mu.Lock()
	c.clash = c.clash || c.running[key]
	c.running[key] = true
	c.worked[key]++
	failing := c.fail[key] > 0
	c.fail[key]--
	c.mu.Unlock()
	defer func() { c.mu.Lock(); c.running[key] = false; c.mu.Unlock() }()
	if failing {
		return reconcile.Result{}, errors.New("not now")
	}
	_, err := w.Update(ctx, func(tx *store.Tx) error {
		x, ok := wishes.Get(tx, key)
		if !ok || x.Want == x.Got {
			return nil
		}
		n := *x
		n.Got = x.Want
		return wishes.Put(tx, &n)
	})
	return reconcile.Result{}, err
}

func TestKeyedConverges(t *testing.T) {
	s := storetest.New(t, wishes)
	rapid.Check(t, func(rt *rapid.T) {
		c := &each{fail: map[string]int{}, running: map[string]bool{}, worked: map[string]int{}}
		for k := range rapid.MapOfN(rapid.StringMatching(`[a-e]`), rapid.Just(0), 0, 3).Draw(rt, "bad") {
			c.fail[k] = rapid.IntRange(1, 3).Draw(rt, "tries")
		}
		steps := rapid.SliceOfN(rapid.StringMatching(`[a-e]`), 1, 12).Draw(rt, "keys")
		cut := rapid.IntRange(0, len(steps)).Draw(rt, "restart")
		ctx, cancel := context.WithCancel(context.Background())
		var wg sync.WaitGroup
		start := func() {
			run, done := ctx, make(chan struct{})
			wg.Go(func() { defer close(done); reconcile.Run(run, config(s, "a"), c) })
		}
		start()
		for i, k := range steps {
			if i == cut { // the process goes, another comes
				cancel()
				wg.Wait()
				ctx, cancel = context.WithCancel(context.Background())
				start()
			}
			put(t, s, k, rapid.IntRange(1, 1000).Draw(rt, "want"))
		}
		settled(t, s, nothingOpen)
		cancel()
		wg.Wait()
		if c.clash {
			rt.Fatal("a key was worked on twice at once")
		}
	})
}

func TestKeyedFindsWhatWasThereBefore(t *testing.T) {
	s := storetest.New(t, wishes)
	for i := range 50 {
		put(t, s, fmt.Sprint(i), i+1)
	}
	c := &each{fail: map[string]int{"7": 3}, running: map[string]bool{}, worked: map[string]int{}}
	run(t, config(s, "a"), c)
	settled(t, s, nothingOpen)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.worked["7"] < 4 {
		t.Errorf("the key that failed was worked on %d times", c.worked["7"])
	}
	keys := []string{}
	for k := range c.worked {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, cmp.Compare)
	if len(keys) != 50 {
		t.Errorf("%d keys were looked at", len(keys))
	}
}
