package fake

import (
	"io"
	"net"
	"sync"
)

// console is the open serial port of a guest that echoes.
type console struct {
	h *Host
	g *guest

	mu     sync.Mutex
	ready  sync.Cond
	buf    []byte
	closed bool // by the user
	hung   bool // the guest has stopped
}

func newConsole(h *Host, g *guest) *console {
	c := &console{h: h, g: g}
	c.ready.L = &c.mu
	return c
}

// consoleBuffer is how much output waits for a slow reader; as on a real serial line, what
// does not fit is lost.
const consoleBuffer = 64 << 10

func (c *console) feed(p []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.buf = append(c.buf, p[:min(len(p), consoleBuffer-len(c.buf))]...)
	c.ready.Broadcast()
}

func (c *console) hangUp() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.hung = true
	c.ready.Broadcast()
}

func (c *console) Read(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.buf) == 0 {
		if c.closed {
			return 0, net.ErrClosed
		}
		if c.hung {
			return 0, io.EOF
		}
		c.ready.Wait()
	}
	n := copy(p, c.buf)
	c.buf = c.buf[n:]
	return n, nil
}

func (c *console) Write(p []byte) (int, error) {
	c.mu.Lock()
	closed, hung := c.closed, c.hung
	c.mu.Unlock()
	if closed {
		return 0, net.ErrClosed
	}
	if hung {
		return 0, io.ErrClosedPipe
	}
	c.h.mu.Lock()
	defer c.h.mu.Unlock()
	if c.g.console == c {
		c.h.write(c.g, p)
	}
	return len(p), nil
}

func (c *console) Close() error {
	c.h.mu.Lock()
	if c.g.console == c {
		c.g.console = nil
	}
	c.h.mu.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	c.ready.Broadcast()
	return nil
}
