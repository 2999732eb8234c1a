package reconcile

import (
	"context"
	"log/slog"
	"time"

	"yakumo/store"
)

// Whole looks at all of its inputs at once.
type Whole interface {
	Controller
	// Reconcile makes the world agree with the snapshot. It is called at the start of a
	// term, after every change of what the controller Reads (changes meanwhile are one
	// call), after a failure and at every resync.
	Reconcile(ctx context.Context, snap store.Snapshot, w Writer) (Result, error)
}

func runWhole(ctx context.Context, cfg *Config, log *slog.Logger, c Whole, w Writer) {
	changed := follow(ctx, cfg.Store, c.Reads())
	timer := time.NewTimer(0)
	defer timer.Stop()
	failures := 0
	behind := true // at the start of a term, and when a commit's fate is not known
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case _, ok := <-changed:
			if !ok {
				return
			}
			if failures > 0 {
				continue // the pause holds: what fails is not tried faster because things change
			}
		}
		var res Result
		var err error
		if behind {
			err = cfg.Store.Sync(ctx)
		}
		if err == nil {
			behind = false
			res, err = c.Reconcile(ctx, cfg.Store.Snapshot(), w)
		}
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			failures++
			behind = true
			again := cfg.pause(failures)
			log.Warn("a pass failed", "err", err, "again_in", again)
			timer.Reset(again)
		case res.After > 0:
			failures = 0
			timer.Reset(min(res.After, cfg.Resync))
		default:
			failures = 0
			timer.Reset(cfg.Resync)
		}
	}
}

// follow gives a channel that holds a value when something of the kinds has changed.
func follow(ctx context.Context, st *store.Store, kinds []store.Kind) <-chan struct{} {
	out := make(chan struct{}, 1)
	sub := st.Subscribe(kinds...)
	go func() {
		defer close(out)
		defer sub.Close()
		for {
			if _, err := sub.Next(ctx); err != nil {
				return
			}
			select {
			case out <- struct{}{}:
			default:
			}
		}
	}()
	return out
}
