package channel

import (
	"context"
	"errors"
	"io"
	"net"
)

// HalfCloser is a connection that can end one of its directions. Connections of a channel, of TCP and of unix sockets are.
type HalfCloser interface {
	CloseWrite() error
}

// chunk is how much Join copies at once, bytes: whole TLS records, and few system calls.
const chunk = 256 << 10

// Join copies each connection's bytes to the other, and ends a direction when its source has ended, until both have, one
// fails or ctx ends. It closes both; after a failure so that the other ends see one. The error is that of the first direction
// that failed, or ctx's.
func Join(ctx context.Context, a, b io.ReadWriteCloser) error {
	errs := make(chan error, 2)
	go func() { errs <- pass(a, b) }()
	go func() { errs <- pass(b, a) }()
	var first error
	left := 2
	for left > 0 && first == nil {
		select {
		case first = <-errs:
			left--
		case <-ctx.Done():
			first = ctx.Err()
		}
	}
	closed := errors.Join(closeWith(a, first), closeWith(b, first))
	for ; left > 0; left-- {
		<-errs
	}
	if first != nil {
		return first
	}
	return closed
}

// pass copies one direction and ends it.
func pass(to, from io.ReadWriteCloser) error {
	// The plain forms of Read and Write: the buffer is the only one in between.
	if _, err := io.CopyBuffer(struct{ io.Writer }{to}, struct{ io.Reader }{from}, make([]byte, chunk)); err != nil {
		return err
	}
	if h, ok := to.(HalfCloser); ok {
		return h.CloseWrite()
	}
	return to.Close()
}

// closeWith closes c; where err is not nil, so that who reads from the other end learns that something is missing.
func closeWith(c io.Closer, err error) error {
	if t, ok := c.(interface{ NetConn() net.Conn }); ok && err != nil {
		c = t.NetConn() // no farewell of TLS
	}
	if err := c.Close(); !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}
