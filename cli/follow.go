package cli

import (
	"context"
	"time"

	"yakumo/fault"
)

// followed says how long work is followed that a command has begun.
type followed[T any] struct {
	done  func(T) bool
	tell  func(T) // on the way, where something has changed
	print func(T) error
	again func(context.Context) (T, error) // looks again
	late  func(T) error                    // the error of a time that is over
	ended func(T) error                    // the error of work that is not wanted any more; nil: it is
}

// follow looks at the work until it is done, every so often, and prints what has become of it; timeout 0: for ever. An API that is away is waited for.
func follow[T any](ctx context.Context, every, timeout time.Duration, now T, f followed[T]) error {
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	for !f.done(now) {
		f.tell(now)
		select {
		case <-time.After(every):
		case <-ctx.Done():
			if err := f.print(now); err != nil {
				return err
			}
			return f.late(now)
		}
		if next, err := f.again(ctx); err == nil {
			now = next
		} else if !fault.Is(err, fault.Unavailable) && ctx.Err() == nil { // the API comes back
			return err
		}
		if err := f.ended(now); err != nil {
			return err
		}
	}
	return f.print(now)
}
