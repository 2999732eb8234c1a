package fence_test

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"yakumo/link/linkpb"
)

// underlay is the network between machines: each way between two may be slow, or lose everything until it is mended.
type underlay struct {
	ctx context.Context // of the simulation

	mu      sync.Mutex
	cut     map[[2]string]bool // from, to
	slow    map[[2]string]time.Duration
	changed chan struct{} // closed and replaced
}

func newUnderlay(ctx context.Context) *underlay {
	return &underlay{ctx: ctx, cut: map[[2]string]bool{}, slow: map[[2]string]time.Duration{}, changed: make(chan struct{})}
}

func (u *underlay) set(change func()) {
	u.mu.Lock()
	defer u.mu.Unlock()
	change()
	close(u.changed)
	u.changed = make(chan struct{})
}

// lane is one direction of a connection: what is put into it is delivered in order, late, and only while the way is there.
type lane struct {
	u        *underlay
	from, to string

	mu    sync.Mutex
	queue []parcel
	more  chan struct{}
}

type parcel struct {
	at      time.Time
	deliver func()
}

func (u *underlay) lane(from, to string) *lane {
	l := &lane{u: u, from: from, to: to, more: make(chan struct{}, 1)}
	go l.run()
	return l
}

func (l *lane) put(deliver func()) {
	l.u.mu.Lock()
	d := time.Millisecond + l.u.slow[[2]string{l.from, l.to}]
	l.u.mu.Unlock()
	l.mu.Lock()
	l.queue = append(l.queue, parcel{time.Now().Add(d), deliver})
	l.mu.Unlock()
	select {
	case l.more <- struct{}{}:
	default:
	}
}

func (l *lane) run() {
	for {
		l.mu.Lock()
		var next parcel
		if len(l.queue) > 0 {
			next = l.queue[0]
		}
		l.mu.Unlock()
		if next.deliver == nil {
			select {
			case <-l.more:
				continue
			case <-l.u.ctx.Done():
				return
			}
		}
		if wait := time.Until(next.at); wait > 0 {
			select {
			case <-time.After(wait):
			case <-l.u.ctx.Done():
				return
			}
		}
		l.u.mu.Lock()
		cut, changed := l.u.cut[[2]string{l.from, l.to}], l.u.changed
		l.u.mu.Unlock()
		if cut {
			select {
			case <-changed:
				continue
			case <-l.u.ctx.Done():
				return
			}
		}
		next.deliver()
		l.mu.Lock()
		l.queue = l.queue[1:]
		l.mu.Unlock()
	}
}

// inbox is one end's queue of what has come.
type inbox[T any] struct {
	mu    sync.Mutex
	items []T
	err   error
	more  chan struct{}
}

func newInbox[T any]() *inbox[T] { return &inbox[T]{more: make(chan struct{}, 1)} }

func (b *inbox[T]) add(x T) {
	b.mu.Lock()
	b.items = append(b.items, x)
	b.mu.Unlock()
	b.poke()
}

func (b *inbox[T]) end(err error) {
	b.mu.Lock()
	if b.err == nil {
		b.err = err
	}
	b.mu.Unlock()
	b.poke()
}

func (b *inbox[T]) poke() {
	select {
	case b.more <- struct{}{}:
	default:
	}
}

func (b *inbox[T]) next(ctx context.Context) (T, error) {
	var none T
	for {
		b.mu.Lock()
		if len(b.items) > 0 {
			x := b.items[0]
			b.items = b.items[1:]
			b.mu.Unlock()
			return x, nil
		}
		err := b.err
		b.mu.Unlock()
		if err != nil {
			return none, err
		}
		select {
		case <-b.more:
		case <-ctx.Done():
			return none, status.FromContextError(ctx.Err()).Err()
		}
	}
}

// stream is one end of a host's stream: S is sent, R received.
type stream[S, R any] struct {
	ctx  context.Context
	out  *lane
	into *inbox[*S] // the other end's
	in   *inbox[*R]
}

func (s *stream[S, R]) Send(m *S) error {
	if s.ctx.Err() != nil {
		return io.EOF
	}
	s.out.put(func() { s.into.add(m) })
	return nil
}
func (s *stream[S, R]) Recv() (*R, error)            { return s.in.next(s.ctx) }
func (s *stream[S, R]) Context() context.Context     { return s.ctx }
func (s *stream[S, R]) Header() (metadata.MD, error) { return nil, nil }
func (s *stream[S, R]) Trailer() metadata.MD         { return nil }
func (s *stream[S, R]) CloseSend() error             { return nil }
func (s *stream[S, R]) SetHeader(metadata.MD) error  { return nil }
func (s *stream[S, R]) SendHeader(metadata.MD) error { return nil }
func (s *stream[S, R]) SetTrailer(metadata.MD)       {}
func (s *stream[S, R]) SendMsg(any) error            { return errors.New("no such message") }
func (s *stream[S, R]) RecvMsg(any) error            { return errors.New("no such message") }

// door is a server as a host reaches it: a linkpb.HostsClient over the underlay.
type door struct {
	linkpb.HostsClient // nil: hosts have certificates for longer than a simulation lasts
	h                  *host
	s                  *server
}

func (d *door) Close() error { return nil }

func (d *door) Renew(context.Context, *linkpb.RenewRequest, ...grpc.CallOption) (*linkpb.JoinReply, error) {
	return nil, status.Error(codes.Unimplemented, "certificates last")
}

var errBroken = status.Error(codes.Unavailable, "the connection is broken")

// Attach implements linkpb.HostsClient.
func (d *door) Attach(ctx context.Context, _ ...grpc.CallOption) (grpc.BidiStreamingClient[linkpb.FromHost, linkpb.ToHost], error) {
	u := d.h.c.net
	up, down := u.lane(d.h.name, d.s.name), u.lane(d.s.name, d.h.name)
	toServer, toHost := newInbox[*linkpb.FromHost](), newInbox[*linkpb.ToHost]()
	server := d.s
	up.put(func() {
		life, serving := server.serving()
		if life == nil {
			down.put(func() { toHost.end(errBroken) }) // nobody listens
			return
		}
		sctx, cancel := context.WithCancel(life.ctx)
		context.AfterFunc(ctx, func() { up.put(func() { toServer.end(io.EOF); cancel() }) })
		go func() {
			defer cancel()
			err := serving.Attach(&stream[linkpb.ToHost, linkpb.FromHost]{d.h.named(sctx), down, toHost, toServer})
			if err == nil {
				err = io.EOF
			}
			down.put(func() { toHost.end(err) })
		}()
	})
	return &stream[linkpb.FromHost, linkpb.ToHost]{ctx, up, toServer, toHost}, nil
}

// plain is one end of a connection between two agents.
type plain struct {
	out  *lane
	into *inbox[[]byte]
	in   *inbox[[]byte]
	rest []byte

	mu      sync.Mutex
	closed  bool
	readBy  time.Time
	changed chan struct{} // the deadline is another; closed and replaced
}

func (u *underlay) connection(a, b string) (net.Conn, net.Conn) {
	x, y := newInbox[[]byte](), newInbox[[]byte]()
	return &plain{out: u.lane(a, b), into: y, in: x, changed: make(chan struct{})}, &plain{out: u.lane(b, a), into: x, in: y, changed: make(chan struct{})}
}

func (p *plain) Read(b []byte) (int, error) {
	for len(p.rest) == 0 {
		p.mu.Lock()
		by, changed := p.readBy, p.changed
		p.mu.Unlock()
		ctx, cancel := context.WithCancel(context.Background())
		if !by.IsZero() {
			ctx, cancel = context.WithDeadline(context.Background(), by)
		}
		stop := make(chan struct{})
		go func() {
			select {
			case <-changed:
				cancel()
			case <-stop:
			}
		}()
		x, err := p.in.next(ctx)
		close(stop)
		late := ctx.Err() != nil
		cancel()
		if err != nil && late {
			p.mu.Lock()
			same, by := p.changed == changed, p.readBy
			p.mu.Unlock()
			if !same && (by.IsZero() || time.Now().Before(by)) {
				continue
			}
			return 0, os.ErrDeadlineExceeded
		}
		if err != nil {
			return 0, err
		}
		p.rest = x
	}
	n := copy(b, p.rest)
	p.rest = p.rest[n:]
	return n, nil
}

func (p *plain) Write(b []byte) (int, error) {
	p.mu.Lock()
	closed := p.closed
	p.mu.Unlock()
	if closed {
		return 0, net.ErrClosed
	}
	x := append([]byte(nil), b...)
	p.out.put(func() { p.into.add(x) })
	return len(b), nil
}

func (p *plain) Close() error {
	p.mu.Lock()
	was := p.closed
	p.closed = true
	p.mu.Unlock()
	if was {
		return net.ErrClosed
	}
	p.in.end(net.ErrClosed)
	p.out.put(func() { p.into.end(io.EOF) })
	return nil
}

func (p *plain) LocalAddr() net.Addr  { return &net.TCPAddr{} }
func (p *plain) RemoteAddr() net.Addr { return &net.TCPAddr{} }

func (p *plain) SetReadDeadline(t time.Time) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.readBy = t
	close(p.changed)
	p.changed = make(chan struct{})
	return nil
}

func (p *plain) SetDeadline(t time.Time) error    { return p.SetReadDeadline(t) }
func (p *plain) SetWriteDeadline(time.Time) error { return nil }

// board is where a host's channel listens.
type board struct {
	calls chan net.Conn
	over  chan struct{}
	once  sync.Once
}

func (b *board) Accept() (net.Conn, error) {
	select {
	case c := <-b.calls:
		return c, nil
	case <-b.over:
		return nil, net.ErrClosed
	}
}
func (b *board) Close() error   { b.once.Do(func() { close(b.over) }); return nil }
func (b *board) Addr() net.Addr { return &net.TCPAddr{} }
