package reconcile

import (
	"container/heap"
	"sync"
	"time"
)

// queue holds keys to be looked at, each once. A key that is added while it is worked on
// is looked at again afterwards; one that failed, after a pause that grows.
type queue struct {
	pause func(n int) time.Duration

	mu     sync.Mutex
	ready  []string
	state  map[string]*item
	later  timers
	wake   chan struct{} // holds a value when there may be something to take
	closed chan struct{}
	once   sync.Once
}

type item struct {
	queued, running, again bool
	failures               int
	at                     time.Time // zero: in no timer
	index                  int       // in later
	key                    string
}

func newQueue(pause func(int) time.Duration) *queue {
	return &queue{pause: pause, state: map[string]*item{}, wake: make(chan struct{}, 1), closed: make(chan struct{})}
}

func (q *queue) close() { q.once.Do(func() { close(q.closed) }) }

func (q *queue) signal() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// add asks to look at the key. A key that waits for its pause after a failure waits on.
func (q *queue) add(key string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	it := q.state[key]
	if it == nil {
		it = &item{key: key}
		q.state[key] = it
	}
	switch {
	case it.running:
		it.again = true
	case it.queued:
	case it.failures > 0 && !it.at.IsZero():
	default:
		q.push(it)
	}
}

// push makes the item ready. The caller holds mu.
func (q *queue) push(it *item) {
	if !it.at.IsZero() {
		heap.Remove(&q.later, it.index)
		it.at = time.Time{}
	}
	it.queued = true
	q.ready = append(q.ready, it.key)
	q.signal()
}

// take waits for a key; false: the queue is closed.
func (q *queue) take() (string, bool) {
	for {
		select {
		case <-q.closed:
			return "", false
		default:
		}
		q.mu.Lock()
		now := time.Now()
		for len(q.later) > 0 && !q.later[0].at.After(now) {
			q.push(q.later[0])
		}
		if len(q.ready) > 0 {
			key := q.ready[0]
			q.ready = q.ready[1:]
			it := q.state[key]
			it.queued, it.running = false, true
			if len(q.ready) > 0 {
				q.signal()
			}
			q.mu.Unlock()
			return key, true
		}
		var due <-chan time.Time
		var timer *time.Timer
		if len(q.later) > 0 {
			timer = time.NewTimer(q.later[0].at.Sub(now))
			due = timer.C
		}
		q.mu.Unlock()
		select {
		case <-q.wake:
		case <-due:
		case <-q.closed:
		}
		if timer != nil {
			timer.Stop()
		}
	}
}

// done ends the work on a key that take gave.
func (q *queue) done(key string, after time.Duration, failed bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	it := q.state[key]
	it.running = false
	if failed {
		it.failures++
		after = q.pause(it.failures)
	} else {
		it.failures = 0
	}
	switch {
	case it.again && !failed:
		it.again = false
		q.push(it)
	case after > 0:
		it.again = false
		it.at = time.Now().Add(after)
		heap.Push(&q.later, it)
		q.signal()
	default:
		delete(q.state, key)
	}
}

// timers is a heap of items by time.
type timers []*item

func (t timers) Len() int           { return len(t) }
func (t timers) Less(i, j int) bool { return t[i].at.Before(t[j].at) }
func (t timers) Swap(i, j int)      { t[i], t[j] = t[j], t[i]; t[i].index, t[j].index = i, j }

// Push serves container/heap.
func (t *timers) Push(x any) { it := x.(*item); it.index = len(*t); *t = append(*t, it) }

// Pop serves container/heap.
func (t *timers) Pop() any {
	old := *t
	it := old[len(old)-1]
	*t = old[:len(old)-1]
	return it
}
