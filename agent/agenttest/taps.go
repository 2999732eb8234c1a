// Package agenttest has stand-ins for what an agent finds on its host, for tests of many agents in one process. It owns nothing
// that outlives a test, and imports nothing of the project.
package agenttest

import (
	"context"
	"net/netip"
	"strings"
	"sync"
)

// Taps are the taps of a host, which are names only; the zero value has none. They implement agent.Taps.
type Taps struct {
	mu  sync.Mutex
	all map[string]bool
}

// Ensure implements agent.Taps.
func (d *Taps) Ensure(_ context.Context, name string, _ int) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.all == nil {
		d.all = map[string]bool{}
	}
	d.all[name] = true
	return nil
}

// Remove implements agent.Taps.
func (d *Taps) Remove(_ context.Context, name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.all, name)
	return nil
}

// List implements agent.Taps.
func (d *Taps) List(_ context.Context, prefix string) (out []string, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for n := range d.all {
		if strings.HasPrefix(n, prefix) {
			out = append(out, n)
		}
	}
	return out, nil
}

// MTU implements agent.Taps: 1500 bytes.
func (*Taps) MTU(context.Context, netip.Addr) (int, error) { return 1500, nil }
