package block

import (
	"context"
	"sync"
)

// Turns lets one call at a time change a volume: engines share it. The zero value is ready.
type Turns struct {
	mu   sync.Mutex
	busy map[string]chan struct{} // closed when the call ends
}

// Enter waits until no other call has the volume, and keeps others out until leave. Its error is ctx's.
func (t *Turns) Enter(ctx context.Context, id string) (leave func(), err error) {
	for {
		t.mu.Lock()
		wait, taken := t.busy[id]
		if !taken {
			if t.busy == nil {
				t.busy = map[string]chan struct{}{}
			}
			mine := make(chan struct{})
			t.busy[id] = mine
			t.mu.Unlock()
			return func() {
				t.mu.Lock()
				defer t.mu.Unlock()
				delete(t.busy, id)
				close(mine)
			}, nil
		}
		t.mu.Unlock()
		select {
		case <-wait:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}
