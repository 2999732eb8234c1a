package hypervisor_test

import (
	"context"
	"fmt"
	"testing"

	"yakumo/hypervisor"
)

func TestFeedKeepsTheLatestForASlowWatcher(t *testing.T) {
	var f hypervisor.Feed
	ch := f.Watch(t.Context())
	for i := range 1000 {
		for id := range 3 {
			f.Publish(hypervisor.State{ID: fmt.Sprint(id), Reason: fmt.Sprint(i)})
		}
	}
	f.End()
	last, n := map[string]string{}, 0
	for s := range ch {
		last[s.ID] = s.Reason
		n++
	}
	for id := range 3 {
		if got := last[fmt.Sprint(id)]; got != "999" {
			t.Errorf("the last state of %d is %q", id, got)
		}
	}
	// One may have been on its way to the watcher when a later one came.
	if n > 5 {
		t.Errorf("%d states were kept for 3 guests", n)
	}
}

func TestFeedEndsWithContext(t *testing.T) {
	var f hypervisor.Feed
	ctx, cancel := context.WithCancel(t.Context())
	ch := f.Watch(ctx)
	cancel()
	for range ch {
	}
	f.Publish(hypervisor.State{ID: "x"}) // nobody is there; must not block
	if n := f.Watchers(); n != 0 {
		t.Errorf("%d watchers are left", n)
	}
}

func BenchmarkFeed(b *testing.B) {
	var f hypervisor.Feed
	ch := f.Watch(b.Context())
	go func() {
		for range ch {
		}
	}()
	b.ReportAllocs()
	for b.Loop() {
		f.Publish(hypervisor.State{ID: "x"})
	}
}
