package ovsdb

import (
	"context"
	"fmt"
)

// Lock asks for a lock of the server (RFC 7047, 4.1.8) and tells whether it is held at once;
// if not, the server gives it later: see Holds. A lock is lost with the connection, and must be asked for again.
func (c *Client) Lock(ctx context.Context, name string) (bool, error) {
	return c.lockRequest(ctx, "lock", name)
}

// Steal takes a lock from whoever holds it.
func (c *Client) Steal(ctx context.Context, name string) error {
	_, err := c.lockRequest(ctx, "steal", name)
	return err
}

// Unlock gives a lock back, or the wish for it up.
func (c *Client) Unlock(ctx context.Context, name string) error {
	_, err := c.lockRequest(ctx, "unlock", name)
	return err
}

// Holds tells whether the client holds a lock, as far as it has heard. Only an Assert in
// a transaction is proof. Wait wakes when the answer changes.
func (c *Client) Holds(name string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.locks[name]
}

func (c *Client) lockRequest(ctx context.Context, method, name string) (bool, error) {
	if !isID(name) {
		return false, fmt.Errorf("%s: %.60q is not a lock's name", method, name)
	}
	cn, err := c.connected(ctx)
	if err != nil {
		return false, fmt.Errorf("%s %s: %w", method, name, err)
	}
	held := false
	// The hook runs in order with the notifications "locked" and "stolen".
	_, err = cn.call(ctx, method, append(appendText([]byte{'['}, name), ']'), func(result []byte) error {
		cur := &cursor{b: result}
		if err := cur.object(func(key []byte) (err error) {
			if string(key) != "locked" {
				return cur.skip()
			}
			held, err = cur.boolean()
			return err
		}); err != nil {
			return err
		}
		c.setLock(name, held)
		return nil
	})
	if err != nil {
		return false, fmt.Errorf("%s %s: %w", method, name, err)
	}
	return held, nil
}

func (c *Client) setLock(name string, held bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if held {
		c.locks[name] = true
	} else {
		delete(c.locks, name)
	}
	c.bump()
}

// lockChanged takes in a "locked" or "stolen" notification.
func (c *Client) lockChanged(method string, params []byte) error {
	cur := &cursor{b: params}
	return cur.array(func(n int) error {
		name, err := cur.str()
		if err == nil && n == 0 {
			c.setLock(name, method == "locked")
		}
		return err
	})
}
