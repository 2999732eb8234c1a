package libvirt

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// conn is one connection to libvirtd. It ends once, for whatever cause; a new one is dialled
// then, as nothing of a connection can be taken up again.
type conn struct {
	nc      net.Conn
	onEvent func(proc int32, payload []byte) // called by the reader; must not wait
	stall   time.Duration                    // how long a write may take
	heard   atomic.Int64                     // when the last frame came, in Unix nanoseconds
	slots   chan struct{}                    // nil, or as many tokens as calls may be under way

	wmu  sync.Mutex
	wbuf []byte

	mu     sync.Mutex
	serial uint32
	calls  map[uint32]chan<- reply
	stream *stream // at most one a connection
	err    error   // why the connection ended

	done chan struct{} // closed when it ended
}

type reply struct {
	payload []byte
	err     error
}

type connConfig struct {
	socket  string
	uri     string // of libvirt's driver; empty for qemuURI
	onEvent func(proc int32, payload []byte)
	// ping is how often libvirtd is asked for a sign of life, and a third of how long it may stay
	// silent; 0 asks never.
	ping  time.Duration
	stall time.Duration
	slots int          // calls under way at once; 0 for no bound
	files *descriptors // takes open files that libvirtd sends; nil: none may come
}

// qemuURI is libvirt's name of its driver for QEMU.
const qemuURI = "qemu:///system"

// dial connects, agrees on no authentication (the socket's permissions are the guard) and opens
// the driver.
func dial(ctx context.Context, cfg connConfig) (*conn, error) {
	var nd net.Dialer
	nc, err := nd.DialContext(ctx, "unix", cfg.socket)
	if err != nil {
		return nil, err
	}
	if uc, ok := nc.(*net.UnixConn); ok && cfg.files != nil {
		nc = fileConn{uc, cfg.files}
	}
	c := &conn{nc: nc, onEvent: cfg.onEvent, stall: cfg.stall, calls: map[uint32]chan<- reply{}, done: make(chan struct{})}
	if cfg.slots > 0 {
		c.slots = make(chan struct{}, cfg.slots)
	}
	c.heard.Store(time.Now().UnixNano())
	go c.read()
	if cfg.ping > 0 {
		go c.keepalive(cfg.ping)
	}
	if cfg.uri == "" {
		cfg.uri = qemuURI
	}
	if err := c.open(ctx, cfg.uri); err != nil {
		c.end(err)
		return nil, err
	}
	return c, nil
}

func (c *conn) open(ctx context.Context, uri string) error {
	d, err := c.call(ctx, procAuthList, &encoder{})
	if err != nil {
		return fmt.Errorf("ask for the ways to authenticate: %w", err)
	}
	none := false
	for range d.count(4) {
		none = d.u32() == 0 || none // REMOTE_AUTH_NONE
	}
	if d.err != nil {
		return d.err
	}
	if !none {
		return errors.New(`libvirtd wants a password or polkit; run as root, or set auth_unix_rw = "none" in libvirtd.conf`)
	}
	if _, err := c.call(ctx, procConnectOpen, new(encoder).some(uri).u32(0)); err != nil {
		return fmt.Errorf("open %s: %w", uri, err)
	}
	return nil
}

// call calls a procedure and waits for its answer. A call whose context ends may still be
// carried out by libvirtd; its answer is then dropped.
func (c *conn) call(ctx context.Context, proc int32, args *encoder) (*decoder, error) {
	return c.callIn(ctx, progRemote, proc, args)
}

// callIn is call of a procedure of another program.
func (c *conn) callIn(ctx context.Context, program uint32, proc int32, args *encoder) (*decoder, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if c.slots != nil {
		select {
		case c.slots <- struct{}{}:
			defer func() { <-c.slots }()
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-c.done:
			return nil, c.cause()
		}
	}
	answer := make(chan reply, 1)
	c.mu.Lock()
	if c.err != nil {
		c.mu.Unlock()
		return nil, c.cause()
	}
	c.serial++
	serial := c.serial
	c.calls[serial] = answer
	c.mu.Unlock()
	if err := c.send(header{prog: program, proc: proc, kind: kindCall, serial: serial}, args.buf); err != nil {
		return nil, err
	}
	select {
	case r := <-answer:
		return &decoder{buf: r.payload}, r.err
	case <-ctx.Done():
		c.mu.Lock()
		delete(c.calls, serial)
		c.mu.Unlock()
		return nil, ctx.Err()
	}
}

// lostError is a connection that ended: the call may or may not have been carried out.
type lostError struct{ err error }

func (e *lostError) Error() string { return "the connection is lost: " + e.err.Error() }
func (e *lostError) Unwrap() error { return e.err }

// cause is the error of calls on a connection that ended.
func (c *conn) cause() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return &lostError{c.err}
}

// send writes one frame. A write that fails ends the connection.
func (c *conn) send(h header, payload []byte) error {
	h.vers = 1
	c.wmu.Lock()
	defer c.wmu.Unlock()
	c.wbuf = appendFrame(c.wbuf[:0], h, payload)
	if c.stall > 0 {
		c.nc.SetWriteDeadline(time.Now().Add(c.stall))
	}
	if _, err := c.nc.Write(c.wbuf); err != nil {
		if errors.Is(err, os.ErrDeadlineExceeded) {
			err = fmt.Errorf("libvirtd read nothing for %v", c.stall)
		}
		c.end(err)
		return c.cause()
	}
	if cap(c.wbuf) > 1<<20 {
		c.wbuf = nil
	}
	return nil
}

// end ends the connection and everything that waits for it; only the first cause counts.
func (c *conn) end(err error) {
	c.mu.Lock()
	if c.err != nil {
		c.mu.Unlock()
		return
	}
	c.err = err
	calls, stream := c.calls, c.stream
	c.calls = nil
	c.mu.Unlock()
	c.nc.Close()
	for _, answer := range calls {
		answer <- reply{err: &lostError{err}}
	}
	if stream != nil {
		stream.finish(&lostError{err})
	}
	close(c.done)
}

// read hands every frame to who waits for it, until the connection ends.
func (c *conn) read() {
	r := bufio.NewReaderSize(c.nc, 32<<10)
	for {
		h, payload, err := readFrame(r)
		if err == nil && h.kind == kindReplyFiles {
			h.kind = kindReply
			payload, err = takeFiles(r, payload)
		}
		if err != nil {
			c.end(err)
			return
		}
		c.heard.Store(time.Now().UnixNano())
		if err := c.dispatch(h, payload); err != nil {
			c.end(err)
			return
		}
	}
}

func (c *conn) dispatch(h header, payload []byte) error {
	if h.vers != 1 {
		return fmt.Errorf("program %#x has the unknown version %d", h.prog, h.vers)
	}
	if h.prog == progKeepalive {
		if h.kind == kindEvent && h.proc == procPing {
			return c.send(header{prog: progKeepalive, proc: procPong, kind: kindEvent}, nil)
		}
		return nil // a pong: that it came is all it says
	}
	if h.prog != progRemote && h.prog != progQEMU {
		return fmt.Errorf("a message of the unknown program %#x", h.prog)
	}
	switch h.kind {
	case kindReply:
		c.mu.Lock()
		answer := c.calls[h.serial]
		delete(c.calls, h.serial)
		c.mu.Unlock()
		if answer == nil {
			return nil // its caller has given up
		}
		switch h.status {
		case statusOK:
			answer <- reply{payload: payload}
		case statusError:
			answer <- reply{err: decodeError(payload)}
		default:
			answer <- reply{err: fmt.Errorf("a reply has the unknown status %d", h.status)}
		}
	case kindEvent:
		if c.onEvent != nil {
			c.onEvent(h.proc, payload)
		}
	case kindStream:
		c.mu.Lock()
		s := c.stream
		c.mu.Unlock()
		if s == nil || s.serial != h.serial {
			return nil // left over from a stream that was closed
		}
		s.arrive(h.status, payload)
	default:
		return fmt.Errorf("a message of the unknown kind %d", h.kind)
	}
	return nil
}

// keepalive ends the connection when libvirtd is alive for the kernel but answers nothing.
func (c *conn) keepalive(every time.Duration) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-c.done:
			return
		case <-tick.C:
		}
		silent := time.Since(time.Unix(0, c.heard.Load()))
		if silent > 3*every {
			c.end(fmt.Errorf("libvirtd said nothing for %v", silent.Round(time.Second)))
			return
		}
		if silent >= every/2 {
			if c.send(header{prog: progKeepalive, proc: procPing, kind: kindEvent}, nil) != nil {
				return
			}
		}
	}
}
