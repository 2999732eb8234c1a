package reconcile

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

// TestQueueLosesNothing: whatever is added is taken afterwards, one key never twice at
// once, and nothing is kept of what is done.
func TestQueueLosesNothing(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		q := newQueue(func(int) time.Duration { return time.Nanosecond })
		added := map[string]bool{} // and not taken since
		var running []string
		for range rapid.IntRange(1, 60).Draw(rt, "steps") {
			switch rapid.IntRange(0, 2).Draw(rt, "what") {
			case 0:
				k := rapid.StringMatching(`[a-d]`).Draw(rt, "key")
				q.add(k)
				added[k] = true
			case 1:
				q.mu.Lock()
				ready := len(q.ready) > 0
				q.mu.Unlock()
				if !ready {
					continue
				}
				k, ok := q.take()
				if !ok {
					rt.Fatal("closed")
				}
				for _, r := range running {
					if r == k {
						rt.Fatalf("%s is worked on twice", k)
					}
				}
				delete(added, k)
				running = append(running, k)
			case 2:
				if len(running) > 0 {
					failed := rapid.Bool().Draw(rt, "failed")
					q.done(running[0], 0, failed)
					if failed {
						added[running[0]] = true
					}
					running = running[1:]
				}
			}
		}
		for _, k := range running {
			q.done(k, 0, false)
		}
		for len(added) > 0 {
			k, ok := q.take()
			if !ok {
				rt.Fatal("closed")
			}
			delete(added, k)
			q.done(k, 0, false)
		}
		if len(q.ready) > 0 || len(q.later) > 0 {
			// Keys that were added while they ran are looked at once more.
			for len(q.ready)+len(q.later) > 0 {
				k, _ := q.take()
				q.done(k, 0, false)
			}
		}
		if len(q.state) != 0 {
			rt.Fatalf("%d keys are remembered", len(q.state))
		}
	})
}

func TestQueueEndsWhenClosed(t *testing.T) {
	q := newQueue(func(int) time.Duration { return time.Hour })
	q.add("a")
	k, ok := q.take()
	if k != "a" || !ok {
		t.Fatal("not taken")
	}
	q.done("a", 0, true) // waits for an hour
	done := make(chan bool)
	go func() { _, ok := q.take(); done <- ok }()
	q.close()
	if <-done {
		t.Error("a key was taken before its pause was over")
	}
}

func TestPauseGrowsToItsBound(t *testing.T) {
	c := Config{MinBackoff: time.Second, MaxBackoff: 10 * time.Second}
	for n, want := range map[int]time.Duration{1: time.Second, 2: 2 * time.Second, 4: 8 * time.Second, 5: 10 * time.Second, 1000: 10 * time.Second} {
		if got := c.pause(n); got != want {
			t.Errorf("pause(%d) = %s, want %s", n, got, want)
		}
	}
}
