package store_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"yakumo/store"
	"yakumo/store/storetest"
)

type toy struct {
	ID    string
	Owner string
	Name  string
	N     int
}

var toys = store.Define("toy", func(r *toy) string { return r.ID },
	store.By("owner", func(r *toy) []string { return []string{r.Owner} }))

// TestEmbedded runs the suite on the etcd that a single server carries.
func TestEmbedded(t *testing.T) {
	cl, _ := storetest.Client(t)
	storetest.Run(t, cl)
}

// TestMemory runs the suite on the etcd that tests with a clock of their own use: it is no other than the real one.
func TestMemory(t *testing.T) {
	storetest.Run(t, storetest.NewMemory().Client(t.Context(), nil))
}

// TestSubscribeAmidChanges: who subscribes while rows change does not wait for anybody.
func TestSubscribeAmidChanges(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	s := storetest.Open(t, storetest.NewMemory().Client(t.Context(), nil), "/subscribe/", toys)
	const rounds = 40000
	over := make(chan struct{})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range rounds / 8 {
				sub := s.Subscribe()
				if _, err := sub.Next(ctx); err != nil {
					t.Error(err)
				}
				sub.Close()
			}
		})
	}
	go func() { wg.Wait(); close(over) }()
	for n := 0; ; n++ {
		select {
		case <-over:
			return
		case <-ctx.Done():
			t.Fatal("a subscription waits for ever")
		default:
		}
		if _, err := s.Update(ctx, func(tx *store.Tx) error { return toys.Put(tx, &toy{ID: "x", N: n}) }); err != nil {
			t.Fatal(err)
		}
	}
}

func BenchmarkUpdate(b *testing.B) {
	s := storetest.New(b, toys)
	b.RunParallel(func(pb *testing.PB) {
		i := 0
		for pb.Next() {
			i++
			if _, err := s.Update(b.Context(), func(tx *store.Tx) error {
				return toys.Put(tx, &toy{ID: fmt.Sprintf("%p-%d", pb, i), Owner: "x"})
			}); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkSync(b *testing.B) {
	s := storetest.New(b, toys)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if err := s.Sync(b.Context()); err != nil {
				b.Fatal(err)
			}
		}
	})
}
