package reconcile

import (
	"context"
	"iter"
	"log/slog"
	"sync"
	"time"

	"yakumo/store"
)

// Keyed looks at one key at a time.
type Keyed interface {
	Controller
	// Keys gives every key that there is something to do for, maybe more.
	Keys(snap store.Snapshot) iter.Seq[string]
	// Concerns gives the keys that a change concerns, maybe more.
	Concerns(snap store.Snapshot, ch store.Change) []string
	// ReconcileKey makes the world agree with the snapshot as to the key. Different keys
	// are worked on at once; one key never is.
	ReconcileKey(ctx context.Context, snap store.Snapshot, key string, w Writer) (Result, error)
}

func runKeyed(ctx context.Context, cfg *Config, log *slog.Logger, c Keyed, w Writer) {
	ctx, cancel := context.WithCancel(ctx)
	q := newQueue(cfg.pause)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	context.AfterFunc(ctx, q.close)
	sub := cfg.Store.Subscribe(c.Reads()...)
	defer sub.Close()
	for n := 1; cfg.Store.Sync(ctx) != nil; n++ { // a new leader must not look at less than the one before
		select {
		case <-time.After(cfg.pause(n)):
		case <-ctx.Done():
			return
		}
	}
	for range cfg.Workers {
		wg.Go(func() {
			for {
				key, ok := q.take()
				if !ok {
					return
				}
				res, err := c.ReconcileKey(ctx, cfg.Store.Snapshot(), key, w)
				if err != nil && ctx.Err() == nil {
					log.Warn("a key failed", "key", key, "err", err)
				}
				q.done(key, res.After, err != nil)
			}
		})
	}
	wg.Go(func() {
		t := time.NewTicker(cfg.Resync)
		defer t.Stop()
		for {
			select {
			case <-t.C:
				for k := range c.Keys(cfg.Store.Snapshot()) {
					q.add(k)
				}
			case <-ctx.Done():
				return
			}
		}
	})
	for {
		d, err := sub.Next(ctx)
		if err != nil {
			return
		}
		if d.First {
			for k := range c.Keys(d.Snapshot) {
				q.add(k)
			}
		}
		for _, ch := range d.Changes {
			for _, k := range c.Concerns(d.Snapshot, ch) {
				q.add(k)
			}
		}
	}
}
