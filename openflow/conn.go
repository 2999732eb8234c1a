package openflow

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// ErrClosed says that the connection was closed on this side.
var ErrClosed = errors.New("openflow: connection closed")

// ErrSilent says that the peer answered no echo and sent nothing else for too long.
var ErrSilent = errors.New("openflow: peer is silent")

// Config sets how connections behave. The zero value is good; zero fields mean the defaults
// that are named.
type Config struct {
	// HandshakeTimeout bounds everything from the connection to the first use. 10 s.
	HandshakeTimeout time.Duration
	// ProbeInterval is how long the peer may be silent before it gets an echo request, and
	// how long each answer may take. 5 s; below zero there are no probes.
	ProbeInterval time.Duration
	// ProbeMisses is how many probes in a row may stay unanswered before the connection is
	// given up. 3.
	ProbeMisses int
	// RequestTimeout bounds requests whose context has no deadline. Open vSwitch has been
	// seen to answer nothing at all to some bad requests. 30 s.
	RequestTimeout time.Duration
	// TLS is needed for addresses that start with tls:.
	TLS *tls.Config
	// PacketInQueue is how many packet-ins wait for their receiver. 1024.
	PacketInQueue int
	// EventLimit is how many events may wait before flow-removed messages and errors are
	// dropped. 65536.
	EventLimit int
	// WriteLimit is how many bytes wait to be written before senders block. 1 MiB.
	WriteLimit int
	// StandardPacketIn leaves packet-ins in OpenFlow's form. Otherwise the switch is asked
	// for Open vSwitch's extended form, and kept in the standard one where it refuses.
	StandardPacketIn bool
	// Logger gets what is odd but not fatal. slog.Default.
	Logger *slog.Logger
}

func orDefault[T comparable](v, d T) T {
	var zero T
	if v == zero {
		return d
	}
	return v
}

func (c Config) withDefaults() Config {
	c.HandshakeTimeout = orDefault(c.HandshakeTimeout, 10*time.Second)
	c.ProbeInterval = orDefault(c.ProbeInterval, 5*time.Second)
	c.ProbeMisses = orDefault(c.ProbeMisses, 3)
	c.RequestTimeout = orDefault(c.RequestTimeout, 30*time.Second)
	c.PacketInQueue = orDefault(c.PacketInQueue, 1024)
	c.EventLimit = orDefault(c.EventLimit, 65536)
	c.WriteLimit = orDefault(c.WriteLimit, 1<<20)
	c.Logger = orDefault(c.Logger, slog.Default())
	return c
}

// Conn is a connection to a switch. Its methods may be called from any goroutine.
//
// What the switch sends unasked comes in two channels. [Conn.PacketIns] holds a bounded
// number of packets; those that come while it is full are dropped and counted, because
// packets are lossy anyway and a slow receiver must not hold up replies. [Conn.Events] has
// everything else, in order, and loses no port status and no role status; flow-removed
// messages and errors are dropped and counted once EventLimit events wait. Reading from the
// socket never waits for a receiver or for the writer, so no amount of queued output can
// keep an echo from being answered.
//
// Both channels close when the connection has ended and what it had received is taken.
type Conn struct {
	cfg   Config
	nc    net.Conn
	hello chan *Hello // gets the peer's hello once

	features *FeaturesReply
	extended bool

	done    chan struct{} // closed when the connection has ended, for whatever reason
	closing chan struct{} // closed by Close
	wg      sync.WaitGroup

	received     atomic.Uint64 // messages read
	droppedPkts  atomic.Uint64
	droppedEvent atomic.Uint64

	packetIns chan *PacketIn
	events    chan Message

	qmu   sync.Mutex
	queue []Message     // events that wait for the pump
	qwake chan struct{} // tells the pump of new events or of the end

	mu      sync.Mutex
	err     error // why the connection ended
	closed  bool
	xid     uint32 // last one given out
	bundle  uint32 // last bundle id given out
	calls   []*call
	out     []byte        // bytes that wait for the writer
	wake    chan struct{} // tells the writer of new bytes
	drained chan struct{} // closed, and replaced, when the writer has taken out
}

// Dial connects to a switch and shakes hands. Addresses are unix:PATH, tcp:HOST:PORT and
// tls:HOST:PORT (also written ssl:).
func Dial(ctx context.Context, addr string, cfg Config) (*Conn, error) {
	cfg = cfg.withDefaults()
	network, rest, useTLS, err := splitAddr(addr)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, cfg.HandshakeTimeout)
	defer cancel()
	var d net.Dialer
	nc, err := d.DialContext(ctx, network, rest)
	if err != nil {
		return nil, fmt.Errorf("connect to switch %s: %w", addr, err)
	}
	if useTLS {
		tc, err := clientTLS(cfg.TLS, rest)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("connect to switch %s: %w", addr, err), nc.Close())
		}
		nc = tls.Client(nc, tc)
	}
	c, err := handshake(ctx, nc, cfg)
	if err != nil {
		return nil, fmt.Errorf("connect to switch %s: %w", addr, err)
	}
	return c, nil
}

// NewConn shakes hands on a connection that exists, whichever side opened it. It owns nc
// from then on and closes it on failure too.
func NewConn(ctx context.Context, nc net.Conn, cfg Config) (*Conn, error) {
	cfg = cfg.withDefaults()
	ctx, cancel := context.WithTimeout(ctx, cfg.HandshakeTimeout)
	defer cancel()
	return handshake(ctx, nc, cfg)
}

func splitAddr(addr string) (network, rest string, useTLS bool, err error) {
	scheme, rest, ok := strings.Cut(addr, ":")
	if ok && rest != "" {
		switch scheme {
		case "unix", "tcp":
			return scheme, rest, false, nil
		case "tls", "ssl":
			return "tcp", rest, true, nil
		}
	}
	return "", "", false, fmt.Errorf("openflow: address %q is none of unix:PATH, tcp:HOST:PORT, tls:HOST:PORT", addr)
}

func clientTLS(c *tls.Config, addr string) (*tls.Config, error) {
	if c == nil {
		return nil, errors.New("openflow: a tls: address needs a TLS configuration")
	}
	if c.ServerName != "" || c.InsecureSkipVerify {
		return c, nil
	}
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	c = c.Clone()
	c.ServerName = host
	return c, nil
}

// handshake starts the goroutines and talks until the connection is of use.
func handshake(ctx context.Context, nc net.Conn, cfg Config) (*Conn, error) {
	c := &Conn{
		cfg: cfg, nc: nc,
		hello: make(chan *Hello, 1), done: make(chan struct{}), closing: make(chan struct{}),
		packetIns: make(chan *PacketIn, cfg.PacketInQueue), events: make(chan Message), qwake: make(chan struct{}, 1),
		wake: make(chan struct{}, 1), drained: make(chan struct{}),
	}
	if tc, ok := nc.(*tls.Conn); ok {
		if err := tc.HandshakeContext(ctx); err != nil {
			return nil, errors.Join(fmt.Errorf("TLS handshake: %w", err), nc.Close())
		}
	}
	c.wg.Add(3)
	go c.readLoop()
	go c.writeLoop()
	go c.pumpEvents()
	if err := c.greet(ctx); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	if cfg.ProbeInterval > 0 {
		c.wg.Add(1)
		go c.probeLoop()
	}
	return c, nil
}

func (c *Conn) greet(ctx context.Context) error {
	if _, err := c.Send(ctx, &Hello{Versions: 1 << Version}); err != nil {
		return err
	}
	select {
	case h := <-c.hello:
		if !h.Supports(Version) {
			text := fmt.Sprintf("only OpenFlow 1.5 (wire version %d) is spoken here", Version)
			c.sayGoodbye(&Error{Kind: ErrHelloFailed, Code: CodeHelloIncompatible, Data: []byte(text)})
			return fmt.Errorf("openflow: the switch speaks wire version %d at most, not %d", h.highest(), Version)
		}
	case <-c.done:
		return c.Err()
	case <-ctx.Done():
		return fmt.Errorf("wait for hello: %w", context.Cause(ctx))
	}
	replies, err := c.Request(ctx, &FeaturesRequest{})
	if err != nil {
		return fmt.Errorf("ask for features: %w", err)
	}
	f, ok := replies[0].(*FeaturesReply)
	if !ok {
		return malformed("features request answered by %v", replies[0].Type())
	}
	c.features = f
	if err := c.Apply(ctx, &SetConfig{SwitchConfig{MissSendLen: MaxLenAll}}); err != nil {
		return fmt.Errorf("set configuration: %w", err)
	}
	if c.cfg.StandardPacketIn {
		return nil
	}
	err = c.Apply(ctx, &SetPacketInFormat{PacketInExtended})
	var refused *Error
	switch {
	case err == nil:
		c.extended = true
	case errors.As(err, &refused):
		c.cfg.Logger.Info("switch keeps to standard packet-ins", "dpid", f.DatapathID, "error", err)
	default:
		return fmt.Errorf("set packet-in format: %w", err)
	}
	return nil
}

// sayGoodbye writes a last message past the queue; whether it arrives does not matter.
func (c *Conn) sayGoodbye(m Message) {
	b, err := Append(nil, 0, m)
	if err == nil {
		err = c.nc.SetWriteDeadline(time.Now().Add(time.Second))
	}
	if err == nil {
		_, err = c.nc.Write(b)
	}
	if err != nil {
		c.cfg.Logger.Debug("last message to switch not sent", "error", err)
	}
}

// Features gives what the switch said of itself when the connection was made.
func (c *Conn) Features() FeaturesReply { return *c.features }

// DatapathID is the 64-bit id of the switch.
func (c *Conn) DatapathID() uint64 { return c.features.DatapathID }

// ExtendedPacketIn tells whether packet-ins come in Open vSwitch's extended form.
func (c *Conn) ExtendedPacketIn() bool { return c.extended }

// LocalAddr is this side's address.
func (c *Conn) LocalAddr() net.Addr { return c.nc.LocalAddr() }

// RemoteAddr is the switch's address.
func (c *Conn) RemoteAddr() net.Addr { return c.nc.RemoteAddr() }

// PacketIns gives the packets that the switch sends.
func (c *Conn) PacketIns() <-chan *PacketIn { return c.packetIns }

// Events gives everything else that the switch sends unasked: *PortStatus, *FlowRemoved,
// *RoleStatus, *Error about messages that nobody waits for, *Experimenter and *Unknown.
func (c *Conn) Events() <-chan Message { return c.events }

// Dropped tells how many packet-ins and how many other events were dropped since the start.
func (c *Conn) Dropped() (packetIns, events uint64) {
	return c.droppedPkts.Load(), c.droppedEvent.Load()
}

// Done is closed when the connection has ended.
func (c *Conn) Done() <-chan struct{} { return c.done }

// Err tells why the connection ended, nil as long as it has not.
func (c *Conn) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Close ends the connection and waits for its goroutines. Messages that were queued and
// not yet written are lost: what matters must be waited for with Apply, Bundle or Barrier.
func (c *Conn) Close() error {
	c.mu.Lock()
	first := !c.closed
	c.closed = true
	c.mu.Unlock()
	if first {
		close(c.closing)
	}
	c.fail(ErrClosed)
	c.wg.Wait()
	return nil
}

// fail ends the connection for a reason; the first one counts.
func (c *Conn) fail(err error) {
	c.mu.Lock()
	if c.err != nil {
		c.mu.Unlock()
		return
	}
	c.err = err
	calls := c.calls
	c.calls = nil
	c.mu.Unlock()
	for _, k := range calls {
		k.finish(err)
	}
	close(c.done)
	if cerr := c.nc.Close(); cerr != nil && !errors.Is(cerr, net.ErrClosed) {
		c.cfg.Logger.Debug("close of switch connection", "error", cerr)
	}
}

// enqueue hands bytes to the writer. With urgent it never waits, and fails where a peer that
// does not read has let the queue grow far beyond its limit; otherwise it waits as long as
// more than WriteLimit bytes are queued. b is copied.
func (c *Conn) enqueue(ctx context.Context, b []byte, urgent bool) error {
	for {
		c.mu.Lock()
		if c.err != nil {
			defer c.mu.Unlock()
			return c.err
		}
		if urgent && len(c.out) > 4*c.cfg.WriteLimit {
			defer c.mu.Unlock()
			return fmt.Errorf("openflow: the peer asks and does not read: %d bytes are queued", len(c.out))
		}
		if urgent || len(c.out) < c.cfg.WriteLimit {
			c.out = append(c.out, b...)
			c.mu.Unlock()
			signal(c.wake)
			return nil
		}
		drained := c.drained
		c.mu.Unlock()
		select {
		case <-drained:
		case <-c.done:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// signal wakes the one goroutine that listens at a channel of capacity 1.
func signal(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

func (c *Conn) writeLoop() {
	defer c.wg.Done()
	var spare []byte
	for {
		select {
		case <-c.done:
			return
		case <-c.wake:
		}
		c.mu.Lock()
		b := c.out
		c.out = spare[:0]
		close(c.drained)
		c.drained = make(chan struct{})
		c.mu.Unlock()
		if len(b) == 0 {
			spare = b
			continue
		}
		if _, err := c.nc.Write(b); err != nil {
			c.fail(fmt.Errorf("write to switch: %w", err))
			return
		}
		if spare = b; cap(spare) > 4*c.cfg.WriteLimit {
			spare = nil
		}
	}
}

func (c *Conn) readLoop() {
	defer c.wg.Done()
	defer close(c.packetIns)
	r := bufio.NewReaderSize(c.nc, 64<<10)
	for {
		b, err := readMessage(r)
		if err != nil {
			c.fail(fmt.Errorf("read from switch: %w", err))
			return
		}
		h, m, err := Decode(b)
		if c.received.Add(1) == 1 {
			err = c.firstMessage(h, m, err)
			if err != nil {
				c.fail(err)
				return
			}
			continue
		}
		if err != nil {
			c.undecodable(h, err)
			continue
		}
		if err := c.dispatch(h, m); err != nil {
			c.fail(err)
			return
		}
	}
}

// readMessage reads one whole message.
func readMessage(r *bufio.Reader) ([]byte, error) {
	head, err := r.Peek(headerLen)
	if err != nil {
		if len(head) > 0 && errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	h, err := DecodeHeader(head)
	if err == nil && h.Version != Version && h.Type != TypeHello && h.Type != TypeError {
		err = malformed("wire version %#02x in %v", h.Version, h.Type) // its length means nothing
	}
	if err != nil {
		return nil, err
	}
	b := make([]byte, h.Length)
	_, err = io.ReadFull(r, b)
	return b, err
}

func (c *Conn) firstMessage(h Header, m Message, err error) error {
	if err != nil {
		return err
	}
	switch m := m.(type) {
	case *Hello:
		c.hello <- m
		return nil
	case *Error:
		return m
	}
	return malformed("the first message is %v, not hello", h.Type)
}

// undecodable handles a message whose header is sound and whose body is not. The stream is
// in step still, so only the request that it answers fails.
func (c *Conn) undecodable(h Header, err error) {
	if k := c.callFor(h.XID); k != nil {
		c.remove(k)
		k.finish(err)
		return
	}
	c.cfg.Logger.Warn("switch sent what cannot be read", "type", h.Type.String(), "xid", h.XID, "error", err)
}

func (c *Conn) dispatch(h Header, m Message) error {
	switch m := m.(type) {
	case *EchoRequest:
		b, err := Append(nil, h.XID, &EchoReply{m.Data})
		if err != nil {
			return err
		}
		return c.enqueue(context.Background(), b, true)
	case *PacketIn:
		select {
		case c.packetIns <- m:
		default:
			c.droppedPkts.Add(1)
		}
	case *PortStatus, *RoleStatus:
		c.addEvent(m, true)
	case *FlowRemoved:
		c.addEvent(m, false)
	case *Error:
		if !c.answer(h, m) {
			c.addEvent(m, false)
		}
	case *Hello:
	default:
		if c.answer(h, m) {
			return nil
		}
		switch m.Type() {
		case TypeExperimenter, TypeTableStatus, TypeRequestForward, TypeControllerStatus:
			c.addEvent(m, false)
		default: // the answer to a request that gave up
			c.cfg.Logger.Debug("unexpected reply from switch", "type", h.Type.String(), "xid", h.XID)
		}
	}
	return nil
}

func (c *Conn) addEvent(m Message, keep bool) {
	c.qmu.Lock()
	if !keep && len(c.queue) >= c.cfg.EventLimit {
		c.qmu.Unlock()
		c.droppedEvent.Add(1)
		return
	}
	c.queue = append(c.queue, m)
	c.qmu.Unlock()
	signal(c.qwake)
}

// pumpEvents moves events from the unbounded queue to the channel.
func (c *Conn) pumpEvents() {
	defer c.wg.Done()
	defer close(c.events)
	for {
		c.qmu.Lock()
		batch := c.queue
		c.queue = nil
		c.qmu.Unlock()
		for _, m := range batch {
			select {
			case c.events <- m:
			case <-c.closing:
				return
			}
		}
		if len(batch) > 0 {
			continue
		}
		select {
		case <-c.qwake:
		case <-c.closing:
			return
		case <-c.done:
			c.qmu.Lock()
			empty := len(c.queue) == 0
			c.qmu.Unlock()
			if empty {
				return
			}
		}
	}
}

// probeLoop sends an echo when nothing came for an interval, and gives the connection up
// after too many in a row.
func (c *Conn) probeLoop() {
	defer c.wg.Done()
	t := time.NewTicker(c.cfg.ProbeInterval)
	defer t.Stop()
	seen, missed := c.received.Load(), 0
	for {
		select {
		case <-c.done:
			return
		case <-t.C:
		}
		if n := c.received.Load(); n != seen {
			seen, missed = n, 0
			continue
		}
		if missed >= c.cfg.ProbeMisses {
			c.fail(fmt.Errorf("%w: %d echo requests of %v each were not answered", ErrSilent, missed, c.cfg.ProbeInterval))
			return
		}
		missed++
		b, err := Append(nil, c.nextXIDs(1), &EchoRequest{})
		if err == nil {
			err = c.enqueue(context.Background(), b, true)
		}
		if err != nil {
			c.fail(err)
			return
		}
	}
}
