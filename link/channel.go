package link

import (
	"context"
	"errors"
	"io"
	"net/url"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"yakumo/fault"
	"yakumo/link/linkpb"
	"yakumo/model"
	"yakumo/store"
)

// Opener is a Handler that serves streams of bytes.
type Opener interface {
	// Open gives what a stream of the named service leads to. It may have a CloseWrite. ctx is of the
	// opening alone; the link closes what it was given. Errors reach who asked, as those of Answer do.
	Open(ctx context.Context, service string, args []byte) (io.ReadWriteCloser, error)
}

// linger is how long an end waits for the other to see that a stream is over.
const linger = 5 * time.Second

// way is a stream that a host has opened.
type way struct {
	rpc     linkpb.Hosts_ChannelServer
	first   *linkpb.Chunk
	once    sync.Once
	release chan struct{}
}

func (w *way) end() { w.once.Do(func() { close(w.release) }) }

// Channel serves the rpc: a host that was told to Open opens the way.
func (s *Server) Channel(rpc linkpb.Hosts_ChannelServer) error {
	h, err := s.hostOf(rpc.Context())
	if err != nil {
		return err
	}
	first, err := rpc.Recv()
	if err != nil {
		return err
	}
	s.mu.Lock()
	ss := s.sessions[h.ID]
	s.mu.Unlock()
	if ss == nil {
		return status.Error(codes.FailedPrecondition, "the host has no stream here")
	}
	ss.mu.Lock()
	ch := ss.opening[first.Id]
	delete(ss.opening, first.Id)
	ss.mu.Unlock()
	if ch == nil {
		return status.Error(codes.NotFound, "nobody waits for this stream any more")
	}
	w := &way{rpc: rpc, first: first, release: make(chan struct{})}
	ch <- w
	select {
	case <-w.release:
	case <-rpc.Context().Done():
	case <-ss.ctx.Done():
	case <-s.ctx.Done():
	}
	return nil
}

// open asks the session's host for a way.
func (ss *session) open(ctx context.Context, o *linkpb.Open) (*way, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	ch := make(chan *way, 1)
	ss.mu.Lock()
	ss.nextAsk++
	id := ss.nextAsk
	ss.opening[id] = ch
	ss.mu.Unlock()
	gone := fault.New(fault.Unavailable, "The host does not answer. Try again.")
	give := func() {
		ss.mu.Lock()
		_, waits := ss.opening[id]
		delete(ss.opening, id)
		ss.mu.Unlock()
		if !waits {
			(<-ch).end()
		}
	}
	m := &linkpb.ToHost{Kind: &linkpb.ToHost_Open{Open: &linkpb.Open{Id: id, Service: o.Service, Args: o.Args, RequestId: o.RequestId}}}
	select {
	case ss.out <- m:
	case <-ctx.Done():
		give()
		return nil, gone
	case <-ss.ctx.Done():
		give()
		return nil, gone
	}
	select {
	case w := <-ch:
		return w, nil
	case <-ctx.Done():
	case <-ss.ctx.Done():
	}
	give()
	return nil, gone
}

// Open opens a stream of bytes to a service of the host's agent, wherever the host is attached. What it
// gives has a CloseWrite besides; it lives until Close, whatever becomes of ctx.
//
// Errors: fault.Unavailable where the host is down, is silent until ctx ends or for 15 s, or is lost later;
// whatever the host answered.
func (s *Server) Open(ctx context.Context, host model.ID, service string, args []byte) (io.ReadWriteCloser, error) {
	o := &linkpb.Open{Service: service, Args: args, RequestId: requestID(ctx), Host: host}
	s.mu.Lock()
	local := s.sessions[host]
	s.mu.Unlock()
	if local != nil {
		w, err := local.open(ctx, o)
		if err != nil {
			return nil, err
		}
		st, err := begin(w.rpc, w.first, w.end)
		if err != nil {
			w.end()
			return nil, err
		}
		if st.send(&linkpb.Chunk{Credit: window}) != nil {
			w.end()
			return nil, errStreamLost
		}
		return st, nil
	}
	hb, ok := store.Heartbeats.Get(s.cfg.Store.Snapshot(), host)
	if !ok || hb.URL == "" || hb.Server == s.cfg.Identity {
		return nil, fault.New(fault.Unavailable, "The host is not connected. Try again when it is back.")
	}
	return s.openAt(ctx, hb.URL, o)
}

// begin makes a stream of what the other end has said first.
func begin(p pipe, first *linkpb.Chunk, onClose func()) (*stream, error) {
	if first.Close {
		if first.Error == "" {
			return nil, errStreamLost
		}
		return nil, fault.New(fault.Kind(first.FaultKind), "%s", first.Error)
	}
	st := newStream(p, first.Credit, onClose)
	go st.pump()
	return st, nil
}

// openAt opens a stream by way of the server that has the host.
func (s *Server) openAt(ctx context.Context, at string, o *linkpb.Open) (io.ReadWriteCloser, error) {
	unreachable := func(err error) error {
		return fault.Wrap(fault.Unavailable, err, "The host cannot be reached. Try again.")
	}
	u, err := url.Parse(at)
	if err != nil {
		return nil, unreachable(err)
	}
	conn, err := grpc.NewClient("passthrough:///"+u.Host, grpc.WithTransportCredentials(credentials.NewTLS(s.tls.Clone())))
	if err != nil {
		return nil, unreachable(err)
	}
	rctx, cancel := context.WithCancel(s.ctx)
	stop := context.AfterFunc(ctx, cancel) // of the opening alone
	drop := func() { cancel(); conn.Close() }
	rpc, err := linkpb.NewHostsClient(conn).Relay(rctx)
	if err == nil {
		err = rpc.Send(&linkpb.Chunk{Open: o, Credit: window})
	}
	var first *linkpb.Chunk
	if err == nil || errors.Is(err, io.EOF) {
		first, err = rpc.Recv()
	}
	if err != nil {
		drop()
		return nil, unreachable(err)
	}
	if !stop() {
		drop()
		return nil, unreachable(ctx.Err())
	}
	st, err := begin(rpc, first, func() { go farewell(rpc, rctx, drop) })
	if err != nil {
		drop()
	}
	return st, err
}

// farewell lets what was sent last arrive.
func farewell(rpc interface{ CloseSend() error }, ctx context.Context, drop func()) {
	rpc.CloseSend() // it never fails
	select {
	case <-ctx.Done():
	case <-time.After(linger):
	}
	drop()
}

// Relay serves the rpc of another server.
func (s *Server) Relay(rpc linkpb.Hosts_RelayServer) error {
	p, ok := peer.FromContext(rpc.Context())
	if !ok {
		return status.Error(codes.Unauthenticated, "no peer")
	}
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok {
		return status.Error(codes.Unauthenticated, "no TLS")
	}
	if _, unit := holder(info.State.PeerCertificates); unit != unitServer {
		return status.Error(codes.PermissionDenied, "a certificate of a server is needed")
	}
	first, err := rpc.Recv()
	if err != nil {
		return err
	}
	if first.Open == nil {
		return status.Error(codes.InvalidArgument, "the first chunk does not say what to open")
	}
	s.mu.Lock()
	local := s.sessions[first.Open.Host]
	s.mu.Unlock()
	if local == nil {
		return status.Error(codes.Unavailable, "The host is not connected. Try again.")
	}
	w, err := local.open(rpc.Context(), first.Open)
	if err != nil {
		return grpcError(err)
	}
	defer w.end()
	if err := w.rpc.Send(&linkpb.Chunk{Credit: first.Credit}); err != nil {
		return err
	}
	if err := rpc.Send(&linkpb.Chunk{Close: w.first.Close, FaultKind: w.first.FaultKind, Error: w.first.Error, Credit: w.first.Credit}); err != nil {
		return err
	}
	// Credits pass as they are, so that no more is here than is allowed between the ends.
	down := make(chan error, 1)
	go func() { down <- splice(w.rpc, rpc) }()
	up := make(chan error, 1)
	go func() { up <- splice(rpc, w.rpc) }()
	select {
	case err = <-up:
	case err = <-down:
		if err == nil { // all was said; the host answers it by leaving
			select {
			case err = <-up:
			case <-time.After(linger):
			}
		}
	case <-s.ctx.Done():
	}
	return err
}

// splice passes chunks on until there are no more.
func splice(to, from pipe) error {
	for {
		c, err := from.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := to.Send(c); err != nil {
			return err
		}
	}
}

// serveOpen is the host's side: it opens what the server asks for and carries its bytes.
func (c *Client) serveOpen(ctx context.Context, client linkpb.HostsClient, o *linkpb.Open) {
	log := c.cfg.Log.With("service", o.Service, "request_id", o.RequestId)
	var end io.ReadWriteCloser
	var err error
	if h, ok := c.cfg.Handler.(Opener); ok {
		octx, cancel := context.WithTimeout(WithRequestID(ctx, o.RequestId), askTimeout)
		end, err = h.Open(octx, o.Service, o.Args)
		cancel()
	} else {
		err = fault.New(fault.NotImplemented, "This host serves no streams.")
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	rpc, rerr := client.Channel(ctx)
	if rerr != nil {
		log.Warn("a stream could not be opened", "err", rerr)
		if err == nil {
			end.Close()
		}
		return
	}
	first := &linkpb.Chunk{Id: o.Id, Credit: window}
	if err != nil {
		log.Info("a stream was refused", "err", err)
		first = refusal(err)
		first.Id = o.Id
	}
	if serr := rpc.Send(first); serr != nil || err != nil {
		if err == nil {
			end.Close()
		}
		rpc.CloseSend() // it never fails
		drain(rpc, cancel)
		return
	}
	over := make(chan struct{})
	st := newStream(rpc, 0, func() {})
	go func() { defer close(over); st.pump() }()
	join(st, end)
	rpc.CloseSend() // it never fails
	select {
	case <-over:
	case <-time.After(linger):
	}
}

// drain waits until the other end has seen the end, but not for long.
func drain(p pipe, cancel func()) {
	t := time.AfterFunc(linger, cancel)
	defer t.Stop()
	for {
		if _, err := p.Recv(); err != nil {
			return
		}
	}
}
