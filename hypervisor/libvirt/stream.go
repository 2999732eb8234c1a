package libvirt

import (
	"context"
	"io"
	"net"
	"sync"
	"time"
)

// stream is the data stream that a call opened; it has a connection of its own, so that a
// reader that is slow holds up libvirtd's socket and nothing else.
type stream struct {
	c      *conn
	proc   int32
	serial uint32

	in       *io.PipeReader
	out      *io.PipeWriter
	closing  sync.Once
	finished chan struct{} // closed when the peer has ended the stream
	ended    sync.Once
}

// maxChunk is what libvirt's own client sends at most in one stream message
// (VIR_NET_MESSAGE_LEGACY_PAYLOAD_MAX less the header).
const maxChunk = 256<<10 - headerLen

// openStream calls a procedure that opens a stream.
func (c *conn) openStream(ctx context.Context, proc int32, args *encoder) (*stream, error) {
	s := &stream{c: c, proc: proc, finished: make(chan struct{})}
	s.in, s.out = io.Pipe()
	c.mu.Lock()
	// Data may come right behind the reply: the stream must be known before the call.
	s.serial = c.serial + 1
	c.stream = s
	c.mu.Unlock()
	if _, err := c.call(ctx, proc, args); err != nil {
		return nil, err
	}
	return s, nil
}

// arrive takes a stream message; only the connection's reader calls it, and it waits for the
// user to read.
func (s *stream) arrive(status uint32, payload []byte) {
	switch status {
	case statusContinue:
		if len(payload) == 0 { // libvirtd's end of file
			s.finish(nil)
			return
		}
		s.out.Write(payload) // fails only when the user has closed; then the data are to be lost
	case statusOK:
		s.finish(nil)
	default:
		s.finish(decodeError(payload))
	}
}

// finish ends the stream for its user: with io.EOF where err is nil.
func (s *stream) finish(err error) {
	s.ended.Do(func() {
		s.out.CloseWithError(err)
		close(s.finished)
	})
}

func (s *stream) Read(p []byte) (int, error) { return s.in.Read(p) }

func (s *stream) Write(p []byte) (int, error) {
	n := 0
	for n < len(p) {
		select {
		case <-s.finished:
			return n, net.ErrClosed
		default:
		}
		part := p[n:min(n+maxChunk, len(p))]
		h := header{prog: progRemote, proc: s.proc, kind: kindStream, serial: s.serial, status: statusContinue}
		if err := s.c.send(h, part); err != nil {
			return n, err
		}
		n += len(part)
	}
	return n, nil
}

// closeWait bounds how long Close waits for libvirtd to have let go of what the stream was on.
const closeWait = 2 * time.Second

// Close ends the stream and its connection. When it returns, what the stream was on can be
// opened again.
func (s *stream) Close() error {
	s.closing.Do(func() {
		s.in.CloseWithError(net.ErrClosed) // what is still to come is dropped, so that the reader goes on
		select {
		case <-s.finished:
		default:
			h := header{prog: progRemote, proc: s.proc, kind: kindStream, serial: s.serial, status: statusOK}
			if s.c.send(h, nil) == nil {
				t := time.NewTimer(closeWait)
				defer t.Stop()
				select {
				case <-s.finished:
				case <-t.C:
				}
			}
		}
		s.c.end(net.ErrClosed)
	})
	return nil
}
