package hypervisor

import (
	"context"
	"sync"
)

// Feed hands states to any number of watchers and never waits for one of them: it keeps the
// latest state of each guest for a watcher that is slow, so that its memory is bounded by the
// number of guests. Drivers build Watch from it. The zero Feed is ready.
type Feed struct {
	mu       sync.Mutex
	watchers map[*watcher]struct{}
}

type watcher struct {
	wake    chan struct{}    // holds one token while pending is not empty or the end has come
	order   []string         // IDs in pending, oldest first
	pending map[string]State // the latest state not yet handed over
	ended   bool
}

// Watch gives the states published from now on, until ctx ends or End is called; then the
// channel is closed, after what was published before End.
func (f *Feed) Watch(ctx context.Context) <-chan State {
	w := &watcher{wake: make(chan struct{}, 1), pending: map[string]State{}}
	f.mu.Lock()
	if f.watchers == nil {
		f.watchers = map[*watcher]struct{}{}
	}
	f.watchers[w] = struct{}{}
	f.mu.Unlock()
	out := make(chan State)
	go f.run(ctx, w, out)
	return out
}

func (f *Feed) run(ctx context.Context, w *watcher, out chan<- State) {
	defer close(out)
	defer func() {
		f.mu.Lock()
		delete(f.watchers, w)
		f.mu.Unlock()
	}()
	for {
		f.mu.Lock()
		if len(w.order) == 0 {
			ended := w.ended
			f.mu.Unlock()
			if ended {
				return
			}
			select {
			case <-w.wake:
				continue
			case <-ctx.Done():
				return
			}
		}
		id := w.order[0]
		w.order = w.order[1:]
		s := w.pending[id]
		delete(w.pending, id)
		f.mu.Unlock()
		select {
		case out <- s:
		case <-ctx.Done():
			return
		}
	}
}

// Publish hands s to every watcher.
func (f *Feed) Publish(s State) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for w := range f.watchers {
		if _, waiting := w.pending[s.ID]; !waiting {
			w.order = append(w.order, s.ID)
		}
		w.pending[s.ID] = s
		w.poke()
	}
}

// End closes the channel of every watcher; the feed can be watched again afterwards.
func (f *Feed) End() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for w := range f.watchers {
		w.ended = true
		w.poke()
		delete(f.watchers, w)
	}
}

// Watchers gives the number of channels that are open.
func (f *Feed) Watchers() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.watchers)
}

func (w *watcher) poke() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}
