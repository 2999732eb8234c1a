package block_test

import (
	"context"
	"errors"
	"sync"
	"testing"

	"yakumo/block"
)

// TestTurns: one at a time has a volume, others of other volumes do not wait, and who gives up waits no more.
func TestTurns(t *testing.T) {
	var turns block.Turns
	inside := 0
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			leave, err := turns.Enter(t.Context(), "a")
			if err != nil {
				t.Error(err)
				return
			}
			defer leave()
			if inside++; inside != 1 {
				t.Error("two have it")
			}
			inside--
		})
	}
	wg.Wait()
	leave, err := turns.Enter(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	other, err := turns.Enter(t.Context(), "b")
	if err != nil {
		t.Fatal(err)
	}
	other()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := turns.Enter(ctx, "a"); !errors.Is(err, context.Canceled) {
		t.Errorf("gave up with %v", err)
	}
	leave()
	if leave, err = turns.Enter(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	leave()
}
