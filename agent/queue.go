package agent

import (
	"context"
	"sync"
	"time"
)

// queue calls do for keys: one call for a key at a time, different keys at once. What is
// added while its call runs is done once more after it.
type queue struct {
	do func(ctx context.Context, key string) (again time.Duration)

	mu     sync.Mutex
	ctx    context.Context // nil before open
	closed bool
	items  map[string]*item
	wg     sync.WaitGroup
}

type item struct {
	running bool
	dirty   bool
	timer   *time.Timer
	cancel  context.CancelFunc
}

func newQueue(do func(context.Context, string) time.Duration) *queue {
	return &queue{do: do, items: map[string]*item{}}
}

// open begins to work on what was added and will be, until ctx ends.
func (q *queue) open(ctx context.Context) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.ctx = ctx
	for key, it := range q.items {
		q.start(key, it)
	}
}

// close lets no call begin any more and returns when none runs; the context of open must
// have ended.
func (q *queue) close() {
	q.mu.Lock()
	q.closed = true
	for _, it := range q.items {
		if it.timer != nil {
			it.timer.Stop()
		}
	}
	q.mu.Unlock()
	q.wg.Wait()
}

// add asks for a call now.
func (q *queue) add(key string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	it := q.items[key]
	if it == nil {
		it = &item{}
		q.items[key] = it
	}
	if it.running {
		it.dirty = true
		return
	}
	if q.ctx != nil {
		q.start(key, it)
	}
}

// interrupt ends the context of the call that runs for key, where one does.
func (q *queue) interrupt(key string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if it := q.items[key]; it != nil && it.running {
		it.dirty = true
		it.cancel()
	}
}

// start needs the lock.
func (q *queue) start(key string, it *item) {
	if it.timer != nil {
		it.timer.Stop()
		it.timer = nil
	}
	if it.running || q.closed || q.ctx.Err() != nil {
		return
	}
	var ctx context.Context
	ctx, it.cancel = context.WithCancel(q.ctx)
	it.running, it.dirty = true, false
	q.wg.Go(func() { q.call(ctx, key, it) })
}

func (q *queue) call(ctx context.Context, key string, it *item) {
	again := q.do(ctx, key)
	q.mu.Lock()
	defer q.mu.Unlock()
	it.cancel()
	it.running = false
	switch {
	case q.ctx.Err() != nil:
	case it.dirty:
		q.start(key, it)
	case again > 0:
		it.timer = time.AfterFunc(again, func() { q.add(key) })
	default:
		delete(q.items, key)
	}
}
