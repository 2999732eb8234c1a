package storetest

import (
	"context"
	"errors"
	"sync"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// cutter is a client whose watches can be cut, as a network would.
type cutter struct {
	client *clientv3.Client
	mu     sync.Mutex
	isOff  bool
	back   chan struct{}
	cuts   map[context.Context]context.CancelFunc
	real   clientv3.Watcher
}

func newCutter(t *testing.T, cl *clientv3.Client) *cutter {
	c := &cutter{real: cl.Watcher, back: make(chan struct{}), cuts: map[context.Context]context.CancelFunc{}}
	c.client = clientv3.NewCtxClient(t.Context())
	c.client.KV, c.client.Lease, c.client.Watcher = &cutKV{cl.KV, c}, cl.Lease, c
	return c
}

func (c *cutter) off() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.isOff = true
	for _, cancel := range c.cuts {
		cancel()
	}
}

func (c *cutter) on() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.isOff = false
	close(c.back)
}

func (c *cutter) down() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.isOff
}

func (c *cutter) Watch(ctx context.Context, key string, opts ...clientv3.OpOption) clientv3.WatchChan {
	c.mu.Lock()
	defer c.mu.Unlock()
	ctx, cancel := context.WithCancel(ctx)
	c.cuts[ctx] = cancel
	return c.real.Watch(ctx, key, opts...)
}

func (c *cutter) RequestProgress(ctx context.Context) error { return c.real.RequestProgress(ctx) }
func (c *cutter) Close() error                              { return nil }

type cutKV struct {
	clientv3.KV
	c *cutter
}

func (k *cutKV) Get(ctx context.Context, key string, opts ...clientv3.OpOption) (*clientv3.GetResponse, error) {
	if k.c.down() {
		return nil, errors.New("cut")
	}
	return k.KV.Get(ctx, key, opts...)
}
