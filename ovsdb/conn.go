package ovsdb

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// ErrNotConnected is why a request was not sent: nothing was done.
var ErrNotConnected = errors.New("not connected to the database server")

// ErrOutcomeUnknown is why a request that was sent has no answer: the connection broke
// or the caller's patience ended. It may have been done.
var ErrOutcomeUnknown = errors.New("sent, but not answered: it may have been done or not")

// ErrClosed is why nothing is done any more: the user closed the client.
var ErrClosed = errors.New("the client is closed")

// An RPCError is the server's refusal of a whole request (RFC 7047, 4.1).
type RPCError struct {
	Method  string
	Code    Code // such as UnknownDatabase, or UnknownMethod
	Details string
	Syntax  string // the part of the request that was not understood
}

// Error gives method, code and details.
func (e *RPCError) Error() string {
	return e.Method + ": " + joinError(e.Code, e.Details, e.Syntax)
}

// Unwrap gives the code, so that errors.Is(err, UnknownDatabase) holds.
func (e *RPCError) Unwrap() error { return e.Code }

func joinError(c Code, details, syntax string) string {
	s := string(c)
	if details != "" {
		s += ": " + details
	}
	if syntax != "" {
		s += " (at " + syntax + ")"
	}
	return s
}

// address splits "unix:/path", "tcp:host:port", "ssl:host:port" and "tls:host:port".
func address(a string) (network, target string, secure bool, err error) {
	scheme, target, _ := strings.Cut(a, ":")
	switch scheme {
	case "unix":
		if target == "" {
			return "", "", false, fmt.Errorf("address %q has no path", a)
		}
		return "unix", target, false, nil
	case "tcp", "ssl", "tls":
		host, port, err := net.SplitHostPort(target)
		if err != nil {
			return "", "", false, fmt.Errorf("address %q: %w", a, err)
		}
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || host == "" {
			return "", "", false, fmt.Errorf("address %q needs a host and a port in 1…65535", a)
		}
		return "tcp", target, scheme != "tcp", nil
	}
	return "", "", false, fmt.Errorf("address %q starts with none of unix:, tcp:, ssl:, tls:", a)
}

// dial connects to a server; an address for TLS needs cfg.
func dial(ctx context.Context, addr string, cfg *tls.Config) (net.Conn, error) {
	network, target, secure, err := address(addr)
	if err != nil {
		return nil, err
	}
	d := &net.Dialer{}
	if !secure {
		return d.DialContext(ctx, network, target)
	}
	if cfg == nil {
		return nil, fmt.Errorf("address %q needs Config.TLS", addr)
	}
	return (&tls.Dialer{NetDialer: d, Config: cfg}).DialContext(ctx, network, target)
}

// A conn is one JSON-RPC 1.0 connection (RFC 7047, 4). All that the peer sends is handled
// in the order of arrival by one goroutine: a notification is dealt with in full before
// a reply behind it reaches its caller.
type conn struct {
	nc     net.Conn
	notify func(method string, params []byte) error // bytes valid during the call

	mu     sync.Mutex
	next   int64
	calls  map[int64]*call
	out    []byte // what the writer has to send
	outMax int
	err    error         // why the connection ended
	done   chan struct{} // closed with err set
	wake   chan struct{} // there is something in out
	gone   sync.WaitGroup

	received atomic.Int64 // bytes
}

type call struct {
	method string
	reply  chan reply                // buffered
	hook   func(result []byte) error // runs in the reading goroutine; an error ends the connection
}

type reply struct {
	result []byte // the caller's own
	err    error
}

type connConfig struct {
	maxMessage int
	probe      time.Duration
	notify     func(method string, params []byte) error
}

// newConn starts the goroutines of a connection; close ends them.
func newConn(nc net.Conn, cfg connConfig) *conn {
	c := &conn{nc: nc, notify: cfg.notify, calls: map[int64]*call{}, outMax: cfg.maxMessage,
		done: make(chan struct{}), wake: make(chan struct{}, 1)}
	c.gone.Add(3)
	go func() { defer c.gone.Done(); c.read(cfg.maxMessage) }()
	go func() { defer c.gone.Done(); c.write() }()
	go func() { defer c.gone.Done(); c.probe(cfg.probe) }()
	return c
}

// fail ends the connection; the first reason stays.
func (c *conn) fail(err error) {
	c.mu.Lock()
	if c.err != nil {
		c.mu.Unlock()
		return
	}
	c.err = err
	calls := c.calls
	c.calls = nil
	close(c.done)
	c.mu.Unlock()
	_ = c.nc.Close() // the reason is known already
	for _, p := range calls {
		p.reply <- reply{err: fmt.Errorf("%s: %w: %w", p.method, ErrOutcomeUnknown, err)}
	}
}

// ended tells whether the connection is over.
func (c *conn) ended() bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

// close ends the connection and waits until its goroutines have ended. It must not be
// called from notify or a hook.
func (c *conn) close(err error) {
	c.fail(err)
	c.gone.Wait()
}

// Read counts what arrives, as a sign of life.
func (c *conn) Read(p []byte) (int, error) {
	n, err := c.nc.Read(p)
	c.received.Add(int64(n))
	return n, err
}

func (c *conn) read(maxMessage int) {
	f := &framer{r: c, max: maxMessage}
	for {
		msg, err := f.next()
		if err != nil {
			c.fail(fmt.Errorf("read: %w", err))
			return
		}
		if err := c.handle(msg); err != nil {
			c.fail(err)
			return
		}
	}
}

// A message is a request, a notification or a reply (RFC 7047, 4; JSON-RPC 1.0). Its parts
// lie in the text that it was read from.
type message struct {
	id     []byte // nil where absent or null
	method string
	params []byte
	result []byte
	err    []byte // nil where absent or null
}

// parseMessage reads one message. Members of other names are allowed and ignored.
func parseMessage(b []byte) (message, error) {
	var m message
	c := &cursor{b: b}
	err := c.object(func(key []byte) error {
		var dst *[]byte
		switch string(key) {
		case "method":
			s, err := c.str()
			m.method = s
			return err
		case "id":
			dst = &m.id
		case "params":
			dst = &m.params
		case "result":
			dst = &m.result
		case "error":
			dst = &m.err
		default:
			return c.skip()
		}
		raw, err := c.raw()
		if string(raw) != "null" {
			*dst = raw
		}
		return err
	})
	if err == nil {
		err = c.end()
	}
	if err == nil && m.method == "" && m.id == nil {
		err = errors.New("malformed message: neither a method nor an id")
	}
	return m, err
}

func (c *conn) handle(b []byte) error {
	m, err := parseMessage(b)
	if err != nil {
		return err
	}
	switch {
	case m.method == "echo" && m.id != nil: // RFC 7047, 4.1.11: either side may ask
		params := m.params
		if params == nil {
			params = []byte("[]")
		}
		out := append([]byte(`{"id":`), m.id...)
		out = append(out, `,"result":`...)
		out = append(out, params...)
		return c.send(append(out, `,"error":null}`...))
	case m.method != "" && m.id != nil:
		out := append([]byte(`{"id":`), m.id...)
		return c.send(append(out, `,"result":null,"error":"unknown method"}`...))
	case m.method != "":
		return c.notify(m.method, m.params)
	}
	id, err := strconv.ParseInt(string(m.id), 10, 64)
	if err != nil {
		return fmt.Errorf("a reply has id %.40q, which no request had", m.id)
	}
	c.mu.Lock()
	p := c.calls[id]
	delete(c.calls, id)
	known := id > 0 && id <= c.next
	c.mu.Unlock()
	if p == nil {
		if known { // its caller has gone
			return nil
		}
		return fmt.Errorf("a reply has id %d, which no request had", id)
	}
	if m.err != nil {
		err := decodeRPCError(p.method, m.err)
		p.reply <- reply{err: err}
		return nil
	}
	if p.hook != nil {
		if err := p.hook(m.result); err != nil {
			err = fmt.Errorf("%s: %w", p.method, err)
			p.reply <- reply{err: err}
			return err
		}
		m.result = nil
	}
	p.reply <- reply{result: append([]byte(nil), m.result...)}
	return nil
}

// decodeRPCError reads the error member of a reply: an <error> object (RFC 7047, 3.1), or
// the bare string that ovsdb-server gives for an unknown method.
func decodeRPCError(method string, raw []byte) error {
	e := &RPCError{Method: method}
	var wire struct{ Error, Details, Syntax string }
	var word string
	switch {
	case json.Unmarshal(raw, &word) == nil:
		e.Code = Code(word)
	case json.Unmarshal(raw, &wire) == nil:
		e.Code, e.Details, e.Syntax = Code(wire.Error), wire.Details, wire.Syntax
		if e.Code == "" {
			e.Code = "error"
		}
	default:
		e.Code, e.Details = "error", string(raw)
	}
	return e
}

// send queues a whole message for the writer.
func (c *conn) send(msg []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return c.err
	}
	if len(c.out)+len(msg) > c.outMax {
		return fmt.Errorf("%d bytes wait to be sent: %w", len(c.out)+len(msg), ErrTooLarge)
	}
	c.out = append(c.out, msg...)
	select {
	case c.wake <- struct{}{}:
	default:
	}
	return nil
}

func (c *conn) write() {
	w := bufio.NewWriter(c.nc)
	var spare []byte
	for {
		select {
		case <-c.done:
			return
		case <-c.wake:
		}
		c.mu.Lock()
		batch := c.out
		c.out = spare[:0]
		c.mu.Unlock()
		if _, err := w.Write(batch); err != nil {
			c.fail(fmt.Errorf("write: %w", err))
			return
		}
		if err := w.Flush(); err != nil {
			c.fail(fmt.Errorf("write: %w", err))
			return
		}
		spare = batch
		if cap(spare) > 16*frameChunk {
			spare = nil
		}
	}
}

// probe sends an echo where nothing arrived for a while, and ends the connection where
// nothing arrives even then.
func (c *conn) probe(every time.Duration) {
	t := time.NewTicker(every)
	defer t.Stop()
	var seen int64
	asked := false
	for {
		select {
		case <-c.done:
			return
		case <-t.C:
		}
		now := c.received.Load()
		switch {
		case now != seen:
			seen, asked = now, false
		case asked:
			c.fail(fmt.Errorf("no sign of life for %v", 2*every))
			return
		default:
			asked = true
			if _, err := c.start("echo", []byte("[]"), nil); err != nil {
				c.fail(err)
				return
			}
		}
	}
}

// start sends a request; its reply comes to the returned call.
func (c *conn) start(method string, params []byte, hook func([]byte) error) (int64, error) {
	id, _, err := c.begin(method, params, hook)
	return id, err
}

func (c *conn) begin(method string, params []byte, hook func([]byte) error) (int64, *call, error) {
	p := &call{method: method, reply: make(chan reply, 1), hook: hook}
	c.mu.Lock()
	if c.err != nil {
		err := c.err
		c.mu.Unlock()
		return 0, nil, fmt.Errorf("%s: %w: %w", method, ErrNotConnected, err)
	}
	c.next++
	id := c.next
	c.calls[id] = p
	c.mu.Unlock()
	msg := make([]byte, 0, len(params)+len(method)+40)
	msg = append(msg, `{"id":`...)
	msg = strconv.AppendInt(msg, id, 10)
	msg = append(msg, `,"method":"`...)
	msg = append(msg, method...)
	msg = append(msg, `","params":`...)
	msg = append(msg, params...)
	msg = append(msg, '}')
	if err := c.send(msg); err != nil {
		c.mu.Lock()
		delete(c.calls, id)
		c.mu.Unlock()
		return 0, nil, fmt.Errorf("%s: %w: %w", method, ErrNotConnected, err)
	}
	return id, p, nil
}

// call sends a request and waits for its reply. The hook, where there is one, gets the
// result in order with notifications, and the caller gets none. A transaction whose
// caller gives up is cancelled (RFC 7047, 4.1.4).
func (c *conn) call(ctx context.Context, method string, params []byte, hook func([]byte) error) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("%s: %w", method, err)
	}
	id, p, err := c.begin(method, params, hook)
	if err != nil {
		return nil, err
	}
	select {
	case r := <-p.reply:
		return r.result, r.err
	case <-ctx.Done():
	}
	c.mu.Lock()
	_, waiting := c.calls[id]
	delete(c.calls, id)
	c.mu.Unlock()
	if !waiting { // the reply won the race
		r := <-p.reply
		return r.result, r.err
	}
	if method == "transact" {
		cancel := strconv.AppendInt([]byte(`{"id":null,"method":"cancel","params":[`), id, 10)
		if err := c.send(append(cancel, "]}"...)); err != nil {
			return nil, fmt.Errorf("%s: %w: %w", method, ErrOutcomeUnknown, err)
		}
	}
	return nil, fmt.Errorf("%s: %w: %w", method, ErrOutcomeUnknown, ctx.Err())
}
