package link

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"yakumo/fault"
	"yakumo/link/linkpb"
	"yakumo/model"
	"yakumo/store"
)

// session is one attached host.
type session struct {
	s    *Server
	host model.ID
	log  *slog.Logger
	out  chan *linkpb.ToHost
	ctx  context.Context

	applied chan *linkpb.Applied
	heard   atomic.Int64 // unix nanoseconds

	mu      sync.Mutex
	asked   map[uint64]chan *linkpb.Answer
	nextAsk uint64
	servers map[model.ID]model.ServerReport // to be brought into the store
	ports   map[model.ID]model.PortReport
	work    chan struct{}
}

// Attach serves the rpc: it lasts as long as the host's stream.
func (s *Server) Attach(stream linkpb.Hosts_AttachServer) error {
	h, err := s.hostOf(stream.Context())
	if err != nil {
		return err
	}
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	hello := first.GetHello()
	if hello == nil {
		return status.Error(codes.InvalidArgument, "the first message is not a hello")
	}
	// The host may have acted on state that this server's mirror has not seen yet.
	wctx, cancel := context.WithTimeout(stream.Context(), 10*time.Second)
	err = s.cfg.Store.Wait(wctx, hello.Generation)
	cancel()
	if err != nil {
		return status.Error(codes.FailedPrecondition, "this server's state is older than what the host has acted on already; was an old backup restored?")
	}
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	ss := &session{
		s: s, host: h.ID, log: s.cfg.Log.With("host", h.Name), out: make(chan *linkpb.ToHost, 64), ctx: ctx,
		applied: make(chan *linkpb.Applied, 1), asked: map[uint64]chan *linkpb.Answer{},
		servers: map[model.ID]model.ServerReport{}, ports: map[model.ID]model.PortReport{}, work: make(chan struct{}, 1),
	}
	ss.heard.Store(time.Now().UnixNano())
	if err := ss.facts(ctx, hello.Facts); err != nil {
		return grpcError(err)
	}
	s.mu.Lock()
	old := s.sessions[h.ID]
	s.sessions[h.ID] = ss
	s.mu.Unlock()
	if old != nil {
		old.log.Info("the host attached again")
	}
	defer func() {
		s.mu.Lock()
		if s.sessions[h.ID] == ss {
			delete(s.sessions, h.ID)
		}
		s.mu.Unlock()
	}()
	ss.log.Info("host attached", "version", hello.Version, "generation", hello.Generation)

	ended := make(chan error, 6)
	var wg sync.WaitGroup
	run := func(f func(context.Context) error) {
		wg.Go(func() { ended <- f(ctx) })
	}
	run(func(ctx context.Context) error { return ss.send(ctx, stream) })
	run(ss.rows)
	run(ss.beat)
	run(ss.lease)
	run(ss.bringIn)
	go func() { ended <- ss.receive(ctx, stream) }() // ends with the stream, after we return
	select {
	case err = <-ended:
	case <-s.ctx.Done():
		err = status.Error(codes.Unavailable, "the server is shutting down")
	}
	cancel()
	wg.Wait()
	ss.log.Info("host detached", "err", err)
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

func (ss *session) receive(ctx context.Context, stream linkpb.Hosts_AttachServer) error {
	for {
		m, err := stream.Recv()
		if err != nil {
			return err
		}
		ss.heard.Store(time.Now().UnixNano())
		switch k := m.Kind.(type) {
		case *linkpb.FromHost_Reports:
			if err := ss.reports(k.Reports); err != nil {
				return err
			}
		case *linkpb.FromHost_Applied:
			select {
			case ss.applied <- k.Applied:
			case <-ctx.Done():
				return ctx.Err()
			}
		case *linkpb.FromHost_Facts:
			if err := ss.facts(ctx, k.Facts.Facts); err != nil {
				return err
			}
		case *linkpb.FromHost_Answer:
			ss.mu.Lock()
			ch := ss.asked[k.Answer.Id]
			delete(ss.asked, k.Answer.Id)
			ss.mu.Unlock()
			if ch != nil {
				ch <- k.Answer
			}
		case *linkpb.FromHost_Pong:
		default:
			return status.Errorf(codes.InvalidArgument, "unexpected message %T", k)
		}
	}
}

func (ss *session) send(ctx context.Context, stream linkpb.Hosts_AttachServer) error {
	for {
		select {
		case m := <-ss.out:
			if err := stream.Send(m); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (ss *session) push(ctx context.Context, m *linkpb.ToHost) error {
	select {
	case ss.out <- m:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// rows sends the host's desired state, one batch at a time: the next goes when the host
// has taken the one before, and holds all that changed meanwhile.
func (ss *session) rows(ctx context.Context) error {
	view := ss.s.cfg.Views.Open(ss.host)
	defer view.Close()
	for {
		b, err := view.Next(ctx)
		if err != nil {
			return err
		}
		p, err := encodeBatch(b)
		if err != nil {
			return err
		}
		if err := ss.push(ctx, &linkpb.ToHost{Kind: &linkpb.ToHost_Rows{Rows: p}}); err != nil {
			return err
		}
		select {
		case a := <-ss.applied:
			if a.Error != "" {
				return status.Errorf(codes.Aborted, "the host refused generation %d: %s", b.Generation, a.Error)
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// beat pings the host, and ends the session when the host was silent for its lease.
func (ss *session) beat(ctx context.Context) error {
	t := time.NewTicker(ss.s.cfg.HostTTL / 3)
	defer t.Stop()
	for n := uint64(1); ; n++ {
		select {
		case <-t.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		if silent := time.Since(time.Unix(0, ss.heard.Load())); silent > ss.s.cfg.HostTTL {
			return status.Errorf(codes.DeadlineExceeded, "the host was silent for %s", silent.Round(time.Millisecond))
		}
		if err := ss.push(ctx, &linkpb.ToHost{Kind: &linkpb.ToHost_Ping{Ping: &linkpb.Ping{N: n}}}); err != nil {
			return err
		}
	}
}

// lease keeps the host's heartbeat in the store. When the session ends, the heartbeat
// stays until its lease runs out, so that a host that comes back soon was never down.
func (ss *session) lease(ctx context.Context) error {
	st := ss.s.cfg.Store
	for {
		l, err := st.NewLease(ctx, ss.s.cfg.HostTTL)
		if err == nil {
			_, err = st.Update(ctx, func(tx *store.Tx) error {
				return store.Heartbeats.PutLeased(tx, &model.Heartbeat{HostID: ss.host, Server: ss.s.cfg.Identity, URL: ss.s.cfg.URL, At: ss.s.cfg.Now().UTC()}, l)
			})
			if err == nil {
				select {
				case <-l.Done():
				case <-ctx.Done():
				}
			}
			l.Abandon()
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		ss.log.Warn("the heartbeat is lost; making a new one", "err", err)
		select {
		case <-time.After(200 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

// facts brings what the host says of itself into its row.
func (ss *session) facts(ctx context.Context, body []byte) error {
	var said model.Host
	if err := json.Unmarshal(body, &said); err != nil {
		return fault.Wrap(fault.Invalid, err, "The host's description is malformed.")
	}
	_, err := ss.s.cfg.Store.Update(ctx, func(tx *store.Tx) error {
		h, ok := store.Hosts.Get(tx, ss.host)
		if !ok {
			return fault.New(fault.NotFound, "The host was removed.")
		}
		n := *h
		n.TunnelIP, n.Underlay, n.Capacity, n.Version = said.TunnelIP, said.Underlay, said.Capacity, said.Version
		n.BootID, n.StartedAt, n.UpdatedAt = said.BootID, said.StartedAt, ss.s.cfg.Now().UTC()
		return store.Hosts.Put(tx, &n)
	})
	return err
}

func (ss *session) reports(r *linkpb.Reports) error {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	for _, b := range r.Servers {
		var sr model.ServerReport
		if err := json.Unmarshal(b, &sr); err != nil {
			return status.Errorf(codes.InvalidArgument, "report: %v", err)
		}
		ss.servers[sr.ServerID] = sr
	}
	for _, b := range r.Ports {
		var pr model.PortReport
		if err := json.Unmarshal(b, &pr); err != nil {
			return status.Errorf(codes.InvalidArgument, "report: %v", err)
		}
		ss.ports[pr.PortID] = pr
	}
	select {
	case ss.work <- struct{}{}:
	default:
	}
	return nil
}

// bringIn hands reports to the Sink, the newest per thing, until it takes them.
func (ss *session) bringIn(ctx context.Context) error {
	for {
		select {
		case <-ss.work:
		case <-ctx.Done():
			return ctx.Err()
		}
		for {
			ss.mu.Lock()
			servers, ports := ss.servers, ss.ports
			ss.servers, ss.ports = map[model.ID]model.ServerReport{}, map[model.ID]model.PortReport{}
			ss.mu.Unlock()
			if len(servers)+len(ports) == 0 {
				break
			}
			if err := ss.sink(ctx, servers, ports); err != nil {
				ss.log.Warn("reports of the host wait for the store", "err", err)
				ss.mu.Lock()
				for id, r := range servers {
					if _, newer := ss.servers[id]; !newer {
						ss.servers[id] = r
					}
				}
				for id, r := range ports {
					if _, newer := ss.ports[id]; !newer {
						ss.ports[id] = r
					}
				}
				ss.mu.Unlock()
				select {
				case <-time.After(300 * time.Millisecond):
				case <-ctx.Done():
					return ctx.Err()
				}
			}
		}
	}
}

func (ss *session) sink(ctx context.Context, servers map[model.ID]model.ServerReport, ports map[model.ID]model.PortReport) error {
	if len(ports) > 0 {
		if err := ss.s.cfg.Sink.PortReports(ctx, ss.host, values(ports)); err != nil {
			return err
		}
	}
	if len(servers) > 0 {
		return ss.s.cfg.Sink.ServerReports(ctx, ss.host, values(servers))
	}
	return nil
}

func values[K comparable, V any](m map[K]V) []V {
	out := make([]V, 0, len(m))
	for _, v := range m {
		out = append(out, v)
	}
	return out
}

func (ss *session) ask(ctx context.Context, name string, body []byte) ([]byte, error) {
	ch := make(chan *linkpb.Answer, 1)
	ss.mu.Lock()
	ss.nextAsk++
	id := ss.nextAsk
	ss.asked[id] = ch
	ss.mu.Unlock()
	defer func() {
		ss.mu.Lock()
		delete(ss.asked, id)
		ss.mu.Unlock()
	}()
	gone := fault.New(fault.Unavailable, "The host does not answer. Try again.")
	m := &linkpb.ToHost{Kind: &linkpb.ToHost_Query{Query: &linkpb.Query{Id: id, Name: name, Body: body, RequestId: requestID(ctx)}}}
	select {
	case ss.out <- m:
	case <-ctx.Done():
		return nil, gone
	case <-ss.ctx.Done():
		return nil, gone
	}
	select {
	case a := <-ch:
		if a.Error != "" {
			return nil, fault.New(fault.Kind(a.FaultKind), "%s", a.Error)
		}
		return a.Body, nil
	case <-ctx.Done():
		return nil, gone
	case <-ss.ctx.Done():
		return nil, gone
	}
}
