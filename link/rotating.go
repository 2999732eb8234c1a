package link

import (
	"crypto/tls"
	"sync"
	"time"
)

// rotating is a certificate that is issued anew when a third of its life is left.
type rotating struct {
	mu    sync.Mutex
	cert  *tls.Certificate
	issue func() (*tls.Certificate, error)
	now   func() time.Time
}

func newRotating(issue func() (*tls.Certificate, error), now func() time.Time) (*rotating, error) {
	r := &rotating{issue: issue, now: now}
	_, err := r.get()
	return r, err
}

func (r *rotating) get() (*tls.Certificate, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.cert != nil && !dueForRenewal(r.cert, r.now()) {
		return r.cert, nil
	}
	c, err := r.issue()
	if err != nil {
		return nil, err
	}
	r.cert = c
	return c, nil
}

func dueForRenewal(c *tls.Certificate, now time.Time) bool {
	life := c.Leaf.NotAfter.Sub(c.Leaf.NotBefore)
	return c.Leaf.NotAfter.Sub(now) < life/3
}
