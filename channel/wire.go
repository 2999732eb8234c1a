package channel

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
)

// errCut is no bare io.ErrUnexpectedEOF, which package tls takes for an end in good order between records.
var errCut = fmt.Errorf("the connection was cut off: %w", io.ErrUnexpectedEOF)

// wholeRecord is as much as a TLS record may take, bytes (RFC 8446, 5.2).
const wholeRecord = 5 + 1<<14 + 256

// wire is what TLS writes to and reads from. Its end is a failure: only TLS's own farewell is an end in good order. A killed process's
// connections end as those of one that is done. Many records go by one system call.
type wire struct {
	net.Conn
	in *bufio.Reader

	mu     sync.Mutex
	gather bool // until flush
	out    []byte
}

func newWire(c net.Conn) *wire { return &wire{Conn: c, in: bufio.NewReaderSize(c, chunk)} }

func (w *wire) Read(b []byte) (int, error) {
	n, err := w.in.Read(b)
	if err == io.EOF {
		err = errCut
	}
	return n, err
}

func (w *wire) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.gather {
		return w.Conn.Write(b)
	}
	if len(w.out)+len(b) > cap(w.out) {
		if err := w.send(); err != nil {
			return 0, err
		}
	}
	w.out = append(w.out, b...)
	return len(b), nil
}

// send writes what was gathered. w.mu is held.
func (w *wire) send() error {
	_, err := w.Conn.Write(w.out)
	w.out = w.out[:0]
	return err
}

// gathering keeps what is written until flush.
func (w *wire) gathering() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.out == nil {
		w.out = make([]byte, 0, chunk+chunk/8)
	}
	w.gather = true
}

func (w *wire) flush() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.gather = false
	return w.send()
}

// secured is a TLS connection over a wire. One goroutine writes at a time, and one reads.
type secured struct {
	*tls.Conn
	wire    *wire
	writing atomic.Bool
}

// Read gives what is there of several records.
func (s *secured) Read(b []byte) (int, error) {
	n, err := s.Conn.Read(b)
	for err == nil && n < len(b) && s.wire.in.Buffered() >= wholeRecord { // the rest of the next one is here: it need not be waited for
		var more int
		more, err = s.Conn.Read(b[n:])
		n += more
	}
	return n, err
}

// Write sends large pieces by few system calls.
func (s *secured) Write(b []byte) (int, error) {
	if len(b) <= 1<<14 {
		return s.Conn.Write(b)
	}
	s.writing.Store(true)
	defer s.writing.Store(false)
	s.wire.gathering()
	n, err := s.Conn.Write(b)
	if sent := s.wire.flush(); err == nil && sent != nil {
		return 0, sent
	}
	return n, err
}

// Close does not wait for what is being written; TLS itself sees to that only while it makes records.
func (s *secured) Close() error {
	if s.writing.Load() {
		return s.wire.Close()
	}
	return s.Conn.Close()
}
