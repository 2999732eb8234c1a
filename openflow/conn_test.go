package openflow_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	of "yakumo/openflow"
)

// peer is a switch made of a few lines, for what a real one does not do.
type peer struct {
	t  *testing.T
	nc net.Conn
	r  *bufio.Reader
}

// pair gives the two ends of a TCP connection.
func pair(t *testing.T) (ours net.Conn, theirs *peer) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ours, err = net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	nc, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	if err := nc.SetDeadline(time.Now().Add(deadline)); err != nil {
		t.Fatal(err)
	}
	return ours, &peer{t, nc, bufio.NewReader(nc)}
}

// read gives the next message, and false where the connection has ended.
func (p *peer) read() (of.Header, of.Message, bool) {
	head, err := p.r.Peek(8)
	if err != nil {
		return of.Header{}, nil, false
	}
	h, err := of.DecodeHeader(head)
	if err != nil {
		p.t.Errorf("peer reads: %v", err)
		return h, nil, false
	}
	b := make([]byte, h.Length)
	if _, err := io.ReadFull(p.r, b); err != nil {
		return h, nil, false
	}
	h, m, err := of.Decode(b)
	if err != nil {
		p.t.Errorf("peer reads: %v", err)
	}
	return h, m, err == nil
}

func (p *peer) write(xid uint32, m of.Message) {
	b, err := of.Append(nil, xid, m)
	if err != nil {
		p.t.Errorf("peer writes: %v", err)
		return
	}
	p.writeBytes(b)
}

func (p *peer) writeBytes(b []byte) {
	if _, err := p.nc.Write(b); err != nil && !errors.Is(err, net.ErrClosed) && !strings.Contains(err.Error(), "reset") && !strings.Contains(err.Error(), "broken pipe") {
		p.t.Errorf("peer writes: %v", err)
	}
}

// answer gives a dumb answer to what every switch answers.
func (p *peer) answer(h of.Header, m of.Message) {
	switch m := m.(type) {
	case *of.EchoRequest:
		p.write(h.XID, &of.EchoReply{Data: m.Data})
	case *of.FeaturesRequest:
		p.write(h.XID, &of.FeaturesReply{DatapathID: 0x1234, Tables: 9})
	case *of.BarrierRequest:
		p.write(h.XID, &of.BarrierReply{})
	case *of.BundleControl:
		p.write(h.XID, &of.BundleControl{ID: m.ID, Kind: m.Kind + 1, Flags: m.Flags})
	}
}

// serve answers until the connection ends; special sees each message first and says
// whether it has dealt with it.
func (p *peer) serve(special func(of.Header, of.Message) bool) {
	p.write(0, &of.Hello{Versions: 1 << of.Version})
	for {
		h, m, ok := p.read()
		if !ok {
			return
		}
		if special == nil || !special(h, m) {
			p.answer(h, m)
		}
	}
}

var quiet = slog.New(slog.DiscardHandler)

// connect makes a connection to a peer that is served in the background.
func connect(t *testing.T, cfg of.Config, special func(*peer, of.Header, of.Message) bool) (*of.Conn, *peer) {
	t.Helper()
	ours, p := pair(t)
	served := make(chan struct{})
	go func() {
		defer close(served)
		p.serve(func(h of.Header, m of.Message) bool { return special != nil && special(p, h, m) })
	}()
	cfg.Logger = quiet
	c, err := of.NewConn(testContext(t), ours, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		p.nc.Close()
		<-served
	})
	return c, p
}

func TestHandshakeRefusals(t *testing.T) {
	for _, tc := range []struct {
		name string
		peer func(p *peer)
		want string
	}{
		{"another version", func(p *peer) {
			p.write(0, &of.Hello{Versions: 1<<4 | 1<<1})
			for {
				h, m, ok := p.read()
				if !ok {
					p.t.Error("no farewell")
					return
				}
				if e, ok := m.(*of.Error); ok {
					if e.Kind != of.ErrHelloFailed || e.Code != of.CodeHelloIncompatible {
						p.t.Errorf("farewell %d %v", h.XID, e)
					}
					return
				}
			}
		}, "wire version 4 at most"},
		{"old hello without a bitmap", func(p *peer) { p.writeBytes([]byte{4, 0, 0, 8, 0, 0, 0, 1}) }, "wire version 4 at most"},
		{"error in place of hello", func(p *peer) { p.write(0, &of.Error{Kind: of.ErrHelloFailed, Data: []byte("go away")}) }, `"go away"`},
		{"no hello", func(p *peer) { p.write(0, &of.BarrierReply{}) }, "first message is barrier reply"},
		{"no OpenFlow", func(p *peer) { p.writeBytes([]byte("GET / HTTP/1.1\r\n\r\n")) }, "read from switch"},
		{"short length", func(p *peer) { p.writeBytes([]byte{6, 0, 0, 4, 0, 0, 0, 1}) }, "message of 4 bytes"},
		{"silence", func(*peer) {}, "deadline exceeded"},
		{"end", func(p *peer) { p.nc.Close() }, "read from switch"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			ours, p := pair(t)
			done := make(chan struct{})
			go func() { defer close(done); tc.peer(p) }()
			c, err := of.NewConn(testContext(t), ours, of.Config{HandshakeTimeout: 3 * time.Second, Logger: quiet})
			if err == nil {
				c.Close()
				t.Fatal("handshake succeeds")
			}
			if !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %q does not say %q", err, tc.want)
			}
			<-done
		})
	}
}

func TestSwitchWithoutExtendedPacketIns(t *testing.T) {
	c, _ := connect(t, of.Config{}, func(p *peer, h of.Header, m of.Message) bool {
		if _, ok := m.(*of.SetPacketInFormat); ok {
			p.write(h.XID, &of.Error{Kind: of.ErrBadRequest, Code: 3})
			return true
		}
		return false
	})
	if c.ExtendedPacketIn() || c.DatapathID() != 0x1234 {
		t.Errorf("extended %v, datapath %#x", c.ExtendedPacketIn(), c.DatapathID())
	}
}

func TestProbes(t *testing.T) {
	var echoes atomic.Int64
	var deaf atomic.Bool
	cfg := of.Config{ProbeInterval: 250 * time.Millisecond, ProbeMisses: 4}
	enough := make(chan struct{})
	c, _ := connect(t, cfg, func(p *peer, h of.Header, m of.Message) bool {
		if m.Type() != of.TypeEchoRequest {
			return false
		}
		if echoes.Add(1) == 6 {
			deaf.Store(true)
			close(enough)
		}
		return deaf.Load()
	})
	select {
	case <-enough:
	case <-c.Done():
		t.Fatalf("ended although all probes were answered: %v", c.Err())
	case <-time.After(deadline):
		t.Fatal("no probes")
	}
	select {
	case <-c.Done():
	case <-time.After(deadline):
		t.Fatal("a deaf peer goes unnoticed")
	}
	if !errors.Is(c.Err(), of.ErrSilent) {
		t.Errorf("ended with %v", c.Err())
	}
	if n := echoes.Load(); n < 9 || n > 10 {
		t.Errorf("%d probes, want the 6 answered and 3 or 4 more", n)
	}
}

func TestBackPressure(t *testing.T) {
	const packets, ports = 5000, 3000
	c, p := connect(t, of.Config{PacketInQueue: 10, EventLimit: 100}, nil)
	for i := range packets {
		p.write(0, &of.PacketIn{Data: []byte{1}, TotalLen: 1, BufferID: of.NoBuffer})
		if i < ports {
			p.write(0, &of.PortStatus{Port: of.Port{Number: uint32(i)}})
			p.write(0, &of.FlowRemoved{Cookie: uint64(i)})
		}
	}
	// Nobody has taken anything, and replies come all the same.
	if err := c.Barrier(testContext(t)); err != nil {
		t.Fatal(err)
	}
	lost, lostEvents := c.Dropped()
	if lost != packets-10 {
		t.Errorf("%d packet-ins dropped, want %d", lost, packets-10)
	}
	if lostEvents == 0 || lostEvents > ports {
		t.Errorf("%d events dropped", lostEvents)
	}
	removed := 0
	for i := uint32(0); i < ports; {
		switch m := next(t, c.Events(), "event", func(of.Message) bool { return true }).(type) {
		case *of.PortStatus:
			if m.Port.Number != i {
				t.Fatalf("port status %d, want %d", m.Port.Number, i)
			}
			i++
		case *of.FlowRemoved:
			removed++
		}
	}
	if removed == 0 || removed+int(lostEvents) > ports {
		t.Errorf("%d flow-removed taken, %d dropped", removed, lostEvents)
	}
}

// TestEchoWhileWritesAreStuck checks that a peer that does not read holds up senders, in
// bounds and as long as they want, and nothing else.
func TestEchoWhileWritesAreStuck(t *testing.T) {
	stuck := make(chan struct{})
	release := make(chan struct{})
	echoed := make(chan struct{})
	c, p := connect(t, of.Config{WriteLimit: 64 << 10}, func(p *peer, h of.Header, m of.Message) bool {
		switch m.(type) {
		case *of.PacketOut:
			select {
			case <-stuck:
			default:
				close(stuck)
				<-release
			}
			return true
		case *of.EchoReply:
			close(echoed)
			return true
		}
		return false
	})
	ctx, cancel := context.WithTimeout(context.Background(), 500*time.Millisecond)
	defer cancel()
	var err error
	sent := 0
	for err == nil {
		_, err = c.Send(ctx, &of.PacketOut{Data: make([]byte, 60000)})
		sent++
	}
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("send ended with %v", err)
	}
	if sent > 1000 {
		t.Errorf("%d messages were taken from a sender that nobody reads", sent)
	}
	<-stuck
	p.write(77, &of.EchoRequest{}) // while our output is stuck
	close(release)
	select {
	case <-echoed:
	case <-time.After(deadline):
		t.Fatal("the echo request is not answered")
	}
	if err := c.Barrier(testContext(t)); err != nil {
		t.Error(err)
	}
}

func TestRequests(t *testing.T) {
	c, _ := connect(t, of.Config{RequestTimeout: 3 * time.Second}, func(p *peer, h of.Header, m of.Message) bool {
		switch m := m.(type) {
		case *of.MultipartRequest:
			switch m.Kind {
			case of.MultipartPortDesc: // in three parts, with something else between
				for i := range uint32(3) {
					p.write(h.XID, &of.MultipartReply{Kind: m.Kind, More: i < 2, PortDescs: []of.Port{{Number: i}}})
					p.write(h.XID+1000, &of.BarrierReply{})
				}
				return true
			case of.MultipartFlowDesc: // cannot be read
				p.writeBytes([]byte{6, 19, 0, 20, byte(h.XID >> 24), byte(h.XID >> 16), byte(h.XID >> 8), byte(h.XID), 0, 1, 0, 0, 0, 0, 0, 0, 0, 99, 0, 0})
				return true
			case of.MultipartTable: // no answer at all
				return true
			case of.MultipartDesc: // the wrong one
				p.write(h.XID, &of.BarrierReply{})
				return true
			}
		case *of.RoleRequest:
			p.write(h.XID, &of.Error{Kind: of.ErrRoleRequest, Code: of.CodeRoleStale, Data: []byte{6, 24, 0, 24, 0, 0, 0, 0}})
			return true
		}
		return false
	})
	ctx := context.Background()
	if ports, err := c.Ports(ctx); err != nil || len(ports) != 3 || ports[2].Number != 2 {
		t.Errorf("ports: %v, %v", ports, err)
	}
	if _, err := c.Flows(ctx, of.AllFlows()); !errors.Is(err, of.ErrTruncated) {
		t.Errorf("unreadable: %v", err)
	}
	if _, err := c.Tables(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("no answer: %v", err)
	}
	if _, err := c.Describe(ctx); !errors.Is(err, of.ErrMalformed) {
		t.Errorf("wrong answer: %v", err)
	}
	_, err := c.SetRole(ctx, of.RolePrimary, 1)
	if !errors.Is(err, &of.Error{Kind: of.ErrRoleRequest, Code: of.CodeRoleStale}) {
		t.Errorf("refusal: %v", err)
	}
	if want := "switch: role request failed: RRFC_STALE (for role request)"; err.Error() != want {
		t.Errorf("refusal says %q, want %q", err, want)
	}
	if err := c.Barrier(ctx); err != nil {
		t.Errorf("the connection did not survive: %v", err)
	}
}

// TestBundleIsAbandoned checks that nothing is committed when an add is refused or the
// caller gives up.
func TestBundleIsAbandoned(t *testing.T) {
	discarded := make(chan uint32, 2)
	var silent atomic.Bool
	c, _ := connect(t, of.Config{}, func(p *peer, h of.Header, m of.Message) bool {
		switch m := m.(type) {
		case *of.BundleAdd:
			if f := m.Message.(*of.FlowMod); f.Cookie == 13 {
				p.write(h.XID, &of.Error{Kind: of.ErrFlowMod, Code: of.CodeFlowModTableFull})
			} else if f.Cookie == 14 {
				silent.Store(true)
			}
			if m.XID != h.XID {
				t.Errorf("inner id %d, outer %d", m.XID, h.XID)
			}
			return true
		case *of.BarrierRequest:
			return silent.Load()
		case *of.BundleControl:
			switch m.Kind {
			case of.BundleCommit:
				t.Error("the bundle is committed")
			case of.BundleDiscard:
				discarded <- m.ID
			}
		}
		return false
	})
	err := c.Bundle(testContext(t), []of.Message{&of.FlowMod{}, &of.FlowMod{Cookie: 13}, &of.FlowMod{}})
	var be *of.BundleError
	if !errors.As(err, &be) || len(be.Messages) != 1 || be.Messages[0].Index != 1 {
		t.Errorf("refused add: %v", err)
	}
	if id := next(t, discarded, "discard", func(uint32) bool { return true }); id != 1 {
		t.Errorf("bundle %d is discarded", id)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if err := c.Bundle(ctx, []of.Message{&of.FlowMod{Cookie: 14}}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("given up: %v", err)
	}
	if id := next(t, discarded, "discard", func(uint32) bool { return true }); id != 2 {
		t.Errorf("bundle %d is discarded", id)
	}
	if err := c.Bundle(ctx, nil); err != nil {
		t.Errorf("empty bundle: %v", err)
	}
}

// TestCloseLeavesNothing checks that Close ends waiters and goroutines.
func TestCloseLeavesNothing(t *testing.T) {
	before := runtime.NumGoroutine()
	for range 20 {
		ours, p := pair(t)
		served := make(chan struct{})
		waiting := make(chan struct{}, 1)
		go func() {
			defer close(served)
			p.serve(func(h of.Header, m of.Message) bool {
				if r, ok := m.(*of.MultipartRequest); ok && r.Kind == of.MultipartTable {
					waiting <- struct{}{}
					return true
				}
				return false
			})
		}()
		c, err := of.NewConn(testContext(t), ours, of.Config{Logger: quiet})
		if err != nil {
			t.Fatal(err)
		}
		p.write(0, &of.PortStatus{}) // an event that nobody takes
		got := make(chan error, 1)
		go func() {
			_, err := c.Tables(context.Background())
			got <- err
		}()
		<-waiting
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		if err := <-got; !errors.Is(err, of.ErrClosed) {
			t.Errorf("waiter got %v", err)
		}
		if err := c.Close(); err != nil {
			t.Errorf("second close: %v", err)
		}
		if _, err := c.Send(context.Background(), &of.BarrierRequest{}); !errors.Is(err, of.ErrClosed) {
			t.Errorf("send on a closed connection: %v", err)
		}
		p.nc.Close()
		<-served
	}
	for end := time.Now().Add(deadline); runtime.NumGoroutine() > before; runtime.Gosched() {
		if time.Now().After(end) {
			b := make([]byte, 1<<16)
			t.Fatalf("%d goroutines, %d before:\n%s", runtime.NumGoroutine(), before, b[:runtime.Stack(b, true)])
		}
	}
}

func TestListenerPassesOverTheSlow(t *testing.T) {
	l, err := of.Listen(testContext(t), "tcp:127.0.0.1:0", of.Config{Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	dialPeer := func() *peer {
		nc, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { nc.Close() })
		return &peer{t, nc, bufio.NewReader(nc)}
	}
	dialPeer() // says nothing
	good := dialPeer()
	served := make(chan struct{})
	go func() { defer close(served); good.serve(nil) }()
	c := accept(t, l)
	if err := c.Barrier(testContext(t)); err != nil {
		t.Error(err)
	}
	start := time.Now()
	if err := l.Close(); err != nil { // while one is shaking hands
		t.Error(err)
	}
	if d := time.Since(start); d > 8*time.Second {
		t.Errorf("close took %v", d)
	}
	if _, err := l.Accept(context.Background()); !errors.Is(err, of.ErrClosed) {
		t.Errorf("accept on a closed listener: %v", err)
	}
	if err := c.Barrier(testContext(t)); err != nil {
		t.Errorf("an accepted connection died with its listener: %v", err)
	}
	good.nc.Close()
	<-served
}

func TestAddresses(t *testing.T) {
	for _, addr := range []string{"", "tcp:", "host:6653", "udp:1.2.3.4:5", "tls:127.0.0.1:1"} {
		if _, err := of.Dial(context.Background(), addr, of.Config{Logger: quiet}); err == nil {
			t.Errorf("dial %q succeeds", addr)
		}
		if addr == "tls:127.0.0.1:1" {
			continue
		}
		if l, err := of.Listen(context.Background(), addr, of.Config{Logger: quiet}); err == nil {
			t.Errorf("listen at %q succeeds", addr)
			l.Close()
		}
	}
}
