package link

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
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
	key  string // model.Host.CertKey when the session began
	log  *slog.Logger
	out  chan *linkpb.ToHost
	ctx  context.Context

	applied chan *linkpb.Applied
	ended   chan error   // why the session is over; holds one for every goroutine, and one for Attach
	heard   atomic.Int64 // unix nanoseconds
	down    atomic.Bool  // the host is down now, not only when its lease has run out

	peer     netip.AddrPort // the agent's end of the connection
	broke    atomic.Bool    // the agent's stream ended by itself
	suspect  atomic.Bool    // the vigil's judgement
	ponged   atomic.Uint64  // the newest ping whose answer came while the heartbeat stood for certain; see grant.go
	held     chan struct{}  // closed once the heartbeat stands
	beating  atomic.Pointer[store.Lease]
	heldOnce sync.Once
	until    atomic.Int64  // the heartbeat stands until then for certain, unix nanoseconds of this process
	judged   chan struct{} // it is new

	mu      sync.Mutex
	asked   map[uint64]chan *linkpb.Answer
	nextAsk uint64
	opening map[uint64]chan *way            // streams that the host was asked to open
	servers map[model.ID]model.ServerReport // to be brought into the store
	ports   map[model.ID]model.PortReport
	volumes map[model.ID]model.VolumeReport
	work    chan struct{}
	left    *store.Lease // of the heartbeat that is left behind, once the session is over
	leftAt  int64        // its revision
}

// catchUp is how long a host waits for a server that has seen less than itself; less than the
// silence that a host bears.
const catchUp = 4 * time.Second

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
	wctx, cancel := context.WithTimeout(stream.Context(), catchUp)
	err = s.cfg.Store.Wait(wctx, hello.Generation)
	cancel()
	if err != nil {
		return status.Error(codes.FailedPrecondition, "this server's state is older than what the host has acted on already; was an old backup restored?")
	}
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	ss := &session{
		s: s, host: h.ID, key: h.CertKey, log: s.cfg.Log.With("host", h.Name), out: make(chan *linkpb.ToHost, 64), ctx: ctx,
		applied: make(chan *linkpb.Applied, 1), asked: map[uint64]chan *linkpb.Answer{}, opening: map[uint64]chan *way{},
		servers: map[model.ID]model.ServerReport{}, ports: map[model.ID]model.PortReport{}, volumes: map[model.ID]model.VolumeReport{}, work: make(chan struct{}, 1),
		ended: make(chan error, 8), judged: make(chan struct{}, 1), held: make(chan struct{}),
	}
	if p, ok := peer.FromContext(ctx); ok {
		ss.peer, _ = netip.ParseAddrPort(p.Addr.String()) // where it is none, nothing answers there
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
		// A host has one stream; what is left of another is dead, or is about to be.
		old.end(errElsewhere)
	}
	defer func() {
		s.mu.Lock()
		if s.sessions[h.ID] == ss {
			delete(s.sessions, h.ID)
		}
		s.mu.Unlock()
	}()
	ss.log.Info("host attached", "version", hello.Version, "generation", hello.Generation)

	var wg, sending sync.WaitGroup
	run := func(wg *sync.WaitGroup, f func(context.Context) error) {
		wg.Go(func() { ss.end(f(ctx)) })
	}
	run(&sending, func(ctx context.Context) error { return ss.send(ctx, stream) })
	run(&wg, ss.rows)
	run(&wg, ss.beat)
	run(&wg, ss.lease)
	run(&wg, ss.bringIn)
	go func() { ss.end(ss.receive(ctx, stream)) }() // ends with the stream, after we return
	select {
	case err = <-ss.ended:
		if s.ctx.Err() == nil && !ss.down.Load() && !errors.Is(err, errElsewhere) {
			ss.broke.Store(true)
		}
	case <-s.ctx.Done():
		err = status.Error(codes.Unavailable, "the server is shutting down")
	}
	cancel()
	wg.Wait()
	// A sender that is stuck in a connection whose other end is gone must not hold us.
	sent := make(chan struct{})
	go func() { sending.Wait(); close(sent) }()
	select {
	case <-sent:
	case <-time.After(time.Second):
	}
	ss.log.Info("host detached", "err", err)
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// end tells Attach why the session is over; the first reason counts.
func (ss *session) end(err error) {
	select {
	case ss.ended <- err:
	default:
	}
}

var errElsewhere = status.Error(codes.Aborted, "the host has attached anew")

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
			ss.granted(k.Pong.N)
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
	select {
	case <-ss.held: // so that what the host is told is not older than its heartbeat: who counted on its absence has written before
	case <-ctx.Done():
		return ctx.Err()
	}
	told, err := ss.turn(ctx)
	if err != nil {
		return err
	}
	defer told()
	view := ss.s.cfg.Views.Open(ss.host)
	defer view.Close()
	for {
		b, err := view.Next(ctx)
		if err != nil {
			return err
		}
		if b.Told, err = ss.remember(ctx, b); err != nil {
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
			told()
			if a.Error != "" {
				return status.Errorf(codes.Aborted, "the host refused generation %d: %s", b.Generation, a.Error)
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// remember notes in the store that the host is about to be told of something new, and gives what was noted before. It tries until the
// store has taken it.
func (ss *session) remember(ctx context.Context, b model.HostBatch) (before int64, err error) {
	st := ss.s.cfg.Store
	if !b.Fresh && !b.Full {
		if t, ok := store.Told.Get(st.Snapshot(), ss.host); ok {
			before = t.Generation
		}
		return before, nil
	}
	for wait := 300 * time.Millisecond; ; wait = min(2*wait, 5*time.Second) {
		_, err := st.Update(ctx, func(tx *store.Tx) error {
			if _, ok := store.Hosts.Get(tx, ss.host); !ok {
				return errRemoved
			}
			before = 0
			if t, ok := store.Told.Get(tx, ss.host); ok {
				before = t.Generation
			}
			if !b.Fresh || before >= b.Generation {
				return nil
			}
			return store.Told.Put(tx, &model.HostTold{HostID: ss.host, Generation: b.Generation})
		})
		if err == nil || errors.Is(err, errRemoved) || ctx.Err() != nil {
			return before, err
		}
		ss.log.Warn("the host is told when the store has taken it", "generation", b.Generation, "err", err, "wait", wait)
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}

// turn waits until the host may be told everything. told ends its turn: another's begins; where it is not called, after tellFor.
func (ss *session) turn(ctx context.Context) (told func(), err error) {
	select {
	case ss.s.telling <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	end := sync.OnceFunc(func() { <-ss.s.telling })
	timer := time.AfterFunc(tellFor, end)
	return func() { timer.Stop(); end() }, nil
}

// pingEach is how often a host is pinged at least, whatever its lease: it bears a silence of 10 s (ClientConfig.Silence).
const pingEach = 2 * time.Second

// beat pings the host, and ends the session when the host was silent for its lease, or when
// it is the cloud's no more.
func (ss *session) beat(ctx context.Context) error {
	t := time.NewTicker(min(ss.s.cfg.HostTTL/3, pingEach))
	defer t.Stop()
	for {
		select {
		case <-t.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		ss.grant(ctx)
		if silent := time.Since(time.Unix(0, ss.heard.Load())); silent > ss.s.cfg.HostTTL {
			ss.down.Store(true)
			return status.Errorf(codes.DeadlineExceeded, "the host was silent for %s", silent.Round(time.Millisecond))
		}
		if h, ok := store.Hosts.Get(ss.s.cfg.Store.Snapshot(), ss.host); !ok || ss.key != "" && h.CertKey != ss.key {
			ss.down.Store(true)
			return errRemoved
		}
		if err := ss.push(ctx, &linkpb.ToHost{Kind: &linkpb.ToHost_Ping{Ping: &linkpb.Ping{N: ss.ponged.Load() + 1}}}); err != nil {
			return err
		}
	}
}

// lease keeps the host's heartbeat in the store. When the session ends, the heartbeat
// stays until its lease runs out, so that a host that comes back soon was never down;
// but it goes at once where the host was silent for that long already, or was removed.
func (ss *session) lease(ctx context.Context) error {
	var lost time.Time
	for {
		err := ss.hold(ctx, lost)
		if ss.beating.Swap(nil) != nil {
			lost = time.Now()
		}
		if ctx.Err() != nil || errors.Is(err, errElsewhere) || errors.Is(err, errRemoved) {
			return err
		}
		ss.log.Warn("the heartbeat is lost; making a new one", "err", err)
		select {
		case <-time.After(200 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// hold keeps one heartbeat while its lease lasts.
func (ss *session) hold(ctx context.Context, lost time.Time) error {
	st := ss.s.cfg.Store
	l, err := st.NewLease(ctx, ss.s.cfg.HostTTL)
	if err != nil {
		return err
	}
	var mine int64
	defer func() {
		if !ss.down.Load() {
			l.Abandon()
			ss.mu.Lock()
			ss.left, ss.leftAt = l, mine
			ss.mu.Unlock()
			return
		}
		// A heartbeat that another server has written since is on another lease, and stays.
		if err := l.Close(context.WithoutCancel(ctx)); err != nil {
			ss.log.Warn("the heartbeat of a host that is down goes with its lease", "err", err)
		}
	}()
	put := func() (int64, error) {
		return st.Update(ctx, func(tx *store.Tx) error {
			h, ok := store.Hosts.Get(tx, ss.host)
			if !ok {
				ss.down.Store(true)
				return errRemoved
			}
			if !h.DownAt.IsZero() || !h.FencedAt.IsZero() { // it is heard of: whoever counted on its silence begins anew
				back := *h
				back.DownAt, back.FencedAt = time.Time{}, time.Time{}
				if err := store.Hosts.Put(tx, &back); err != nil {
					return err
				}
			}
			return store.Heartbeats.PutLeased(tx, &model.Heartbeat{HostID: ss.host, Server: ss.s.cfg.Identity, URL: ss.s.cfg.URL, At: ss.s.cfg.Now().UTC(), Suspect: ss.suspect.Load()}, l)
		})
	}
	if mine, err = put(); err != nil {
		return err
	}
	if !lost.IsZero() && time.Since(lost) > longAbsence {
		ss.end(errAbsent) // somebody may have counted on it: the host must be told everything anew before it may count on us
		<-ctx.Done()
		return ctx.Err()
	}
	ss.beating.Store(l)
	ss.heldOnce.Do(func() { close(ss.held) })
	t := time.NewTicker(ss.s.cfg.HostTTL / 3)
	defer t.Stop()
	for {
		select {
		case <-l.Done():
			return errors.New("its lease has ended")
		case <-ctx.Done():
			return ctx.Err()
		case <-ss.judged:
			if at := store.Heartbeats.Revision(st.Snapshot(), ss.host); at > mine {
				return errElsewhere
			}
			if mine, err = put(); err != nil {
				return err
			}
			continue
		case <-t.C:
		}
		switch at := store.Heartbeats.Revision(st.Snapshot(), ss.host); {
		case at > mine:
			return errElsewhere
		case at == 0:
			if mine, err = put(); err != nil {
				return err
			}
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
		n.BridgeMappings, n.ProviderBridges, n.Bandwidth = said.BridgeMappings, said.ProviderBridges, said.Bandwidth
		n.Channel, n.Engines, n.Rooms = said.Channel, said.Engines, said.Rooms
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
	for _, b := range r.Volumes {
		var vr model.VolumeReport
		if err := json.Unmarshal(b, &vr); err != nil {
			return status.Errorf(codes.InvalidArgument, "report: %v", err)
		}
		if ss.s.cfg.Volumes != nil {
			ss.volumes[vr.VolumeID] = vr
		}
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
		for wait := 300 * time.Millisecond; ; wait = min(2*wait, 5*time.Second) {
			// What comes while this host waits for its turn goes with it.
			select {
			case ss.s.reporting <- struct{}{}:
			case <-ctx.Done():
				return ctx.Err()
			}
			ss.mu.Lock()
			servers, ports, volumes := ss.servers, ss.ports, ss.volumes
			ss.servers, ss.ports, ss.volumes = map[model.ID]model.ServerReport{}, map[model.ID]model.PortReport{}, map[model.ID]model.VolumeReport{}
			ss.mu.Unlock()
			none := len(servers)+len(ports)+len(volumes) == 0
			// A server is ready only with its ports, so these go first.
			err := sink(ctx, ss.host, ports, ss.s.cfg.Sink.PortReports)
			if ss.s.cfg.Volumes != nil {
				err = errors.Join(err, sink(ctx, ss.host, volumes, ss.s.cfg.Volumes.VolumeReports))
			}
			err = errors.Join(err, sink(ctx, ss.host, servers, ss.s.cfg.Sink.ServerReports))
			<-ss.s.reporting
			if none {
				break
			}
			if err == nil {
				continue
			}
			ss.log.Warn("reports of the host wait for the store", "err", err, "wait", wait)
			ss.mu.Lock()
			keepOlder(ss.servers, servers)
			keepOlder(ss.ports, ports)
			keepOlder(ss.volumes, volumes)
			ss.mu.Unlock()
			select {
			case <-time.After(wait):
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
}

// keepOlder puts the reports back that have no newer one by now.
func keepOlder[R any](queue, old map[model.ID]R) {
	for id, r := range old {
		if _, newer := queue[id]; !newer {
			queue[id] = r
		}
	}
}

// sink brings reports into the store, and leaves in them those that it did not take. One that
// is refused for itself does not keep the others out.
func sink[R any](ctx context.Context, host model.ID, reports map[model.ID]R, take func(context.Context, model.ID, []R) error) error {
	if len(reports) == 0 {
		return nil
	}
	err := take(ctx, host, values(reports))
	switch {
	case err == nil:
		clear(reports)
		return nil
	case fault.Is(err, fault.Unavailable) || ctx.Err() != nil || len(reports) == 1:
		return err
	}
	var errs []error
	for id, r := range reports {
		if err := take(ctx, host, []R{r}); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", id, err))
			continue
		}
		delete(reports, id)
	}
	return errors.Join(errs...)
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
