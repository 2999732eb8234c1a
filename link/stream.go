package link

import (
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"yakumo/fault"
	"yakumo/link/linkpb"
)

// window is how many bytes of a stream may be on their way, or wait for their reader: gRPC's own
// windows do not bound what a server's end takes into memory.
const window = 256 << 10

// maxChunk is the most that is sent in one chunk, so that streams of one connection take turns.
const maxChunk = 32 << 10

// pipe carries the chunks of one stream.
type pipe interface {
	Send(*linkpb.Chunk) error
	Recv() (*linkpb.Chunk, error)
}

// stream is one end of a stream of bytes with half-close. Read and Write may be called at once, Close from anywhere.
type stream struct {
	p       pipe
	sending sync.Mutex // one chunk at a time
	onClose func()     // once, when this end was closed and the other knows

	mu     sync.Mutex
	change *sync.Cond
	in     []byte
	inErr  error // what Read says after in
	outErr error // what Write says; nil: open
	ended  bool  // CloseWrite was called
	room   int   // bytes that may be sent
	owed   int   // bytes that were read, and not made room for at the other end
	closed bool
	gone   chan struct{} // closed when the other end reads no more, or is lost
}

// newStream makes an end; room is what the other end allowed already. pump must be called.
func newStream(p pipe, room uint32, onClose func()) *stream {
	st := &stream{p: p, room: int(room), onClose: onClose, gone: make(chan struct{})}
	st.change = sync.NewCond(&st.mu)
	return st
}

func (st *stream) send(c *linkpb.Chunk) error {
	st.sending.Lock()
	defer st.sending.Unlock()
	return st.p.Send(c)
}

var errStreamLost = fault.New(fault.Unavailable, "The connection to the host was lost. Try again.")

// pump takes in what comes, until nothing more can.
func (st *stream) pump() {
	for {
		c, err := st.p.Recv()
		st.mu.Lock()
		switch {
		case err != nil:
			st.leave(errStreamLost)
		case len(st.in)+len(c.Data) > window:
			err = fault.New(fault.Invalid, "The other end of a stream sent more than it may.")
			st.leave(err)
		case c.Close && c.Error != "":
			st.leave(fault.New(fault.Kind(c.FaultKind), "%s", c.Error))
		case c.Close:
			st.leave(io.EOF)
		default:
			if !st.closed && st.inErr == nil {
				st.in = append(st.in, c.Data...)
			}
			st.room += int(c.Credit)
			if c.End && st.inErr == nil {
				st.inErr = io.EOF
			}
		}
		st.change.Broadcast()
		st.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// leave notes that the other end is no more; the first reason counts.
func (st *stream) leave(why error) {
	if st.inErr == nil {
		st.inErr = why
	}
	if st.outErr == nil {
		st.outErr = why
		if why == io.EOF {
			st.outErr = io.ErrClosedPipe
		}
	}
	select {
	case <-st.gone:
	default:
		close(st.gone)
	}
}

// Read implements io.Reader: io.EOF once the other end has said that nothing more comes.
func (st *stream) Read(b []byte) (int, error) {
	st.mu.Lock()
	for len(st.in) == 0 && st.inErr == nil && !st.closed {
		st.change.Wait()
	}
	if st.closed || len(st.in) == 0 {
		err := st.inErr
		if st.closed {
			err = net.ErrClosed
		}
		st.mu.Unlock()
		return 0, err
	}
	n := copy(b, st.in)
	if st.in = st.in[n:]; len(st.in) == 0 {
		st.in = nil
	}
	credit := 0
	if st.owed += n; st.owed >= window/2 {
		credit, st.owed = st.owed, 0
	}
	st.mu.Unlock()
	if credit > 0 {
		if err := st.send(&linkpb.Chunk{Credit: uint32(credit)}); err != nil && !errors.Is(err, io.EOF) {
			return n, errStreamLost
		}
	}
	return n, nil
}

// Write implements io.Writer. It waits while the other end has no room.
func (st *stream) Write(b []byte) (int, error) {
	n := 0
	for n < len(b) {
		st.mu.Lock()
		for st.room == 0 && st.outErr == nil && !st.ended && !st.closed {
			st.change.Wait()
		}
		if err := st.writable(); err != nil {
			st.mu.Unlock()
			return n, err
		}
		part := b[n:min(n+maxChunk, n+st.room, len(b))]
		st.room -= len(part)
		st.mu.Unlock()
		if err := st.send(&linkpb.Chunk{Data: part}); err != nil {
			return n, errStreamLost
		}
		n += len(part)
	}
	return n, nil
}

func (st *stream) writable() error {
	switch {
	case st.closed || st.ended:
		return net.ErrClosed
	default:
		return st.outErr
	}
}

// CloseWrite says that no more will be written; reading goes on.
func (st *stream) CloseWrite() error {
	st.mu.Lock()
	err := st.writable()
	st.ended = true
	st.change.Broadcast()
	st.mu.Unlock()
	if err != nil {
		return err
	}
	if st.send(&linkpb.Chunk{End: true}) != nil {
		return errStreamLost
	}
	return nil
}

// Close implements io.Closer.
func (st *stream) Close() error { return st.closeFor(nil) }

// closeFor is Close with a reason for the other end.
func (st *stream) closeFor(why error) error {
	st.mu.Lock()
	if st.closed {
		st.mu.Unlock()
		return nil
	}
	st.closed, st.in = true, nil
	st.change.Broadcast()
	st.mu.Unlock()
	err := st.send(refusal(why))
	st.onClose()
	if err != nil && why == nil && !errors.Is(err, io.EOF) {
		return errStreamLost
	}
	return nil
}

// refusal is the chunk that ends a stream, with a reason where there is one.
func refusal(why error) *linkpb.Chunk {
	c := &linkpb.Chunk{Close: true}
	if why != nil {
		c.FaultKind, c.Error = uint32(fault.KindOf(why)), "The host failed to answer."
		if text, ok := fault.Text(why); ok && text != "" {
			c.Error = text
		}
	}
	return c
}

type halfCloser interface{ CloseWrite() error }

// join carries bytes between a stream and what it leads to, until either is over.
func join(st *stream, end io.ReadWriteCloser) {
	var wg sync.WaitGroup
	half, canHalf := end.(halfCloser)
	written := make(chan struct{})
	wg.Go(func() {
		defer close(written)
		if _, err := io.Copy(end, st); err == nil && canHalf {
			half.CloseWrite() // fails only where the end is over, which the other direction sees
		} else if err != nil {
			end.Close()
		}
	})
	wg.Go(func() {
		_, err := io.Copy(st, end)
		select {
		case <-st.gone: // there is nobody to tell
		default:
			if err == nil && st.CloseWrite() == nil && canHalf {
				return
			}
			st.closeFor(err)
		}
	})
	over := make(chan struct{})
	go func() {
		select {
		case <-over:
			return
		case <-st.gone:
		}
		// What came before is still written, where that does not take for ever.
		select {
		case <-written:
		case <-time.After(linger):
		}
		end.Close()
	}()
	wg.Wait()
	close(over)
	end.Close()
	st.Close()
}
