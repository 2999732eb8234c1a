package link

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"yakumo/model"
	"yakumo/store"
	"yakumo/store/storetest"
)

// clock is a clock that a test moves.
type clock struct {
	mu  sync.Mutex
	off time.Duration
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Add(c.off)
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.off += d
}

// plainSealer marks what it seals; whether sealing is safe is identity's business.
type plainSealer struct{}

func (plainSealer) Seal(place string, secret []byte) []byte {
	return append([]byte("sealed:"+place+":"), secret...)
}

func (plainSealer) Unseal(place string, sealed []byte) ([]byte, error) {
	b, ok := bytes.CutPrefix(sealed, []byte("sealed:"+place+":"))
	if !ok {
		return nil, errors.New("not sealed here")
	}
	return b, nil
}

// sinkhole is a Sink that keeps what it is given, and fails as often as it is told.
type sinkhole struct {
	mu      sync.Mutex
	fail    int
	poison  model.ID // a server whose report is refused
	calls   int
	servers map[model.ID][]model.ServerReport
	ports   map[model.ID]model.PortReport
	volumes map[model.ID]model.VolumeReport
}

var errSinkAway = errors.New("the sink is away")

func (s *sinkhole) ServerReports(_ context.Context, _ model.ID, reports []model.ServerReport) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls++
	if s.fail > 0 {
		s.fail--
		return errSinkAway
	}
	for _, r := range reports {
		if r.ServerID == s.poison {
			return errors.New("poison")
		}
	}
	for _, r := range reports {
		s.servers[r.ServerID] = append(s.servers[r.ServerID], r)
	}
	return nil
}

func (s *sinkhole) PortReports(_ context.Context, _ model.ID, reports []model.PortReport) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range reports {
		s.ports[r.PortID] = r
	}
	return nil
}

func (s *sinkhole) VolumeReports(_ context.Context, _ model.ID, reports []model.VolumeReport) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range reports {
		s.volumes[r.VolumeID] = r
	}
	return nil
}

func (s *sinkhole) last(id model.ID) (model.ServerReport, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := len(s.servers[id]); n > 0 {
		return s.servers[id][n-1], true
	}
	return model.ServerReport{}, false
}

// script is Views whose batches a test writes.
type script struct {
	mu      sync.Mutex
	opened  int
	closed  int
	nexts   int
	batches chan model.HostBatch // what comes after the first
	first   func() model.HostBatch
}

func newScript(st *store.Store) *script {
	return &script{batches: make(chan model.HostBatch), first: func() model.HostBatch {
		return model.HostBatch{Full: true, Generation: st.Snapshot().Revision(), Upserts: []model.HostRow{&model.HostNetwork{ID: "n1", VNI: 7}}}
	}}
}

func (s *script) Open(model.ID) View {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.opened++
	return &scriptView{s: s}
}

func (s *script) counts() (opened, closed, nexts int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.opened, s.closed, s.nexts
}

type scriptView struct {
	s     *script
	begun bool
}

func (v *scriptView) Next(ctx context.Context) (model.HostBatch, error) {
	v.s.mu.Lock()
	v.s.nexts++
	v.s.mu.Unlock()
	if !v.begun {
		v.begun = true
		v.s.mu.Lock()
		defer v.s.mu.Unlock()
		return v.s.first(), nil
	}
	select {
	case b := <-v.s.batches:
		return b, nil
	case <-ctx.Done():
		return model.HostBatch{}, ctx.Err()
	}
}

func (v *scriptView) Close() {
	v.s.mu.Lock()
	defer v.s.mu.Unlock()
	v.s.closed++
}

// machine is a host's Handler.
type machine struct {
	mu      sync.Mutex
	batches []model.HostBatch
	gen     int64
	refuse  error
	gate    chan struct{} // Apply waits for it; nil: does not
	reports []model.ServerReport
	volumes []model.VolumeReport
	facts   model.Host
	answer  func(ctx context.Context, name string, body []byte) ([]byte, error)
	open    func(ctx context.Context, service string, args []byte) (io.ReadWriteCloser, error)
}

func (m *machine) Apply(ctx context.Context, b model.HostBatch) error {
	m.mu.Lock()
	gate, refuse := m.gate, m.refuse
	m.mu.Unlock()
	if gate != nil {
		select {
		case <-gate:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if refuse != nil {
		return refuse
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if b.Generation < m.gen {
		return fmt.Errorf("generation %d is older than %d", b.Generation, m.gen)
	}
	m.batches, m.gen = append(m.batches, b), b.Generation
	return nil
}

func (m *machine) Generation() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.gen
}

func (m *machine) Facts(context.Context) (model.Host, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.facts, nil
}

func (m *machine) Reports() ([]model.ServerReport, []model.PortReport) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.reports, nil
}

func (m *machine) VolumeReports() []model.VolumeReport {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.volumes
}

func (m *machine) Answer(ctx context.Context, name string, body []byte) ([]byte, error) {
	m.mu.Lock()
	f := m.answer
	m.mu.Unlock()
	return f(ctx, name, body)
}

func (m *machine) Open(ctx context.Context, service string, args []byte) (io.ReadWriteCloser, error) {
	m.mu.Lock()
	f := m.open
	m.mu.Unlock()
	return f(ctx, service, args)
}

func (m *machine) got() []model.HostBatch {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]model.HostBatch(nil), m.batches...)
}

func (m *machine) set(f func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f()
}

// site is a server process as the link sees it.
type site struct {
	*Server
	addr  string
	st    *store.Store
	sink  *sinkhole
	views *script
	stop  func()
}

// cloud is several servers on one state.
type cloud struct {
	t      testing.TB
	clock  *clock
	cl     *clientv3.Client
	prefix string
	blobs  map[string]string
	take   func(context.Context, Upload) error        // uploads
	probe  func(context.Context, netip.AddrPort) bool // of servers to come
	sites  []*site
	// Of servers to come: how long hosts may be silent, and the agents of gateways (0: the server's own default).
	ttl, grace time.Duration
}

// ttl is longer than a busy machine keeps a host or a server from its turn.
const ttl = 5 * time.Second

func newCloud(t testing.TB, servers int) *cloud {
	t.Helper()
	cl, prefix := storetest.Client(t)
	c := &cloud{t: t, clock: &clock{}, cl: cl, prefix: prefix, blobs: map[string]string{}, ttl: ttl}
	for range servers {
		c.serve()
	}
	return c
}

// serve starts one more server.
func (c *cloud) serve() *site {
	c.t.Helper()
	st := storetest.Open(c.t, c.cl, c.prefix)
	a, err := OpenAuthority(c.t.Context(), st, plainSealer{}, c.clock.now)
	if err != nil {
		c.t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		c.t.Fatal(err)
	}
	s := &site{addr: l.Addr().String(), st: st, views: newScript(st),
		sink: &sinkhole{servers: map[model.ID][]model.ServerReport{}, ports: map[model.ID]model.PortReport{}, volumes: map[model.ID]model.VolumeReport{}}}
	s.Server, err = NewServer(ServerConfig{Store: st, Authority: a, Views: s.views, Sink: s.sink, Volumes: s.sink, Blob: c.blob, Upload: func(ctx context.Context, up Upload) error { return c.take(ctx, up) },
		Identity: fmt.Sprint("server", len(c.sites)), URL: "https://" + s.addr, HostTTL: c.ttl, GatewayGrace: c.grace, Probe: c.probe, Log: slog.New(slog.DiscardHandler), Now: c.clock.now})
	if err != nil {
		c.t.Fatal(err)
	}
	hs := s.HTTPServer()
	done := make(chan error, 1)
	go func() { done <- hs.ServeTLS(l, "", "") }()
	var once sync.Once
	s.stop = func() {
		once.Do(func() {
			s.Close()
			hs.Close()
			if err := <-done; !errors.Is(err, http.ErrServerClosed) {
				c.t.Errorf("serve: %v", err)
			}
		})
	}
	c.t.Cleanup(s.stop)
	c.sites = append(c.sites, s)
	return s
}

func (c *cloud) blob(w http.ResponseWriter, r *http.Request, id string) {
	b, ok := c.blobs[id]
	if !ok {
		http.NotFound(w, r)
		return
	}
	http.ServeContent(w, r, "", time.Time{}, strings.NewReader(b))
}

func (c *cloud) token(host string) string {
	c.t.Helper()
	tok, err := NewJoinToken(c.t.Context(), c.sites[0].st, c.sites[0].cfg.Authority, host, time.Hour, c.clock.now())
	if err != nil {
		c.t.Fatal(err)
	}
	return tok
}

// host is an agent as the link sees it.
type host struct {
	*Client
	*machine
	stop func()
}

func (c *cloud) client(h Handler, addrs ...string) *Client {
	if len(addrs) == 0 {
		for _, s := range c.sites {
			addrs = append(addrs, s.addr)
		}
	}
	return NewClient(ClientConfig{Servers: addrs, Dir: c.t.TempDir(), Version: "test", Handler: h, Log: slog.New(slog.DiscardHandler), Now: c.clock.now})
}

// join makes a host that has joined and is not attached.
func (c *cloud) join(name string, addrs ...string) *host {
	c.t.Helper()
	m := &machine{facts: model.Host{Version: "test", BootID: "boot", Capacity: model.HostCapacity{VCPUs: 4}}}
	h := &host{machine: m, Client: c.client(m, addrs...)}
	if err := h.Join(c.t.Context(), c.token(name), name); err != nil {
		c.t.Fatal(err)
	}
	return h
}

// run attaches the host until the test or stop ends it.
func (c *cloud) run(h *host) *host {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); h.Run(ctx) }()
	h.stop = func() { cancel(); <-done }
	c.t.Cleanup(h.stop)
	return h
}

func (h *host) id(t testing.TB) model.ID {
	t.Helper()
	id, err := h.HostID()
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// until waits for a state.
func until(t testing.TB, d time.Duration, what string, f func() bool) {
	t.Helper()
	deadline := time.After(d)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !f() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("after %s: not %s", d, what)
		}
	}
}

func (c *cloud) up(id model.ID) bool {
	_, ok := store.Heartbeats.Get(c.sites[0].st.Snapshot(), id)
	return ok
}

// valve is a TCP proxy that can be closed: connections stay, and nothing passes any more.
type valve struct {
	addr string
	mu   sync.Mutex
	open chan struct{} // closed: bytes pass
	conn map[net.Conn]struct{}
}

func newValve(t testing.TB, to string) *valve {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	v := &valve{addr: l.Addr().String(), open: make(chan struct{}), conn: map[net.Conn]struct{}{}}
	close(v.open)
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", to)
			if err != nil {
				in.Close()
				continue
			}
			v.mu.Lock()
			v.conn[in], v.conn[out] = struct{}{}, struct{}{}
			v.mu.Unlock()
			wg.Go(func() { v.copy(out, in) })
			wg.Go(func() { v.copy(in, out) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		v.turn(true)
		v.mu.Lock()
		for c := range maps.Keys(v.conn) {
			c.Close()
		}
		v.mu.Unlock()
		wg.Wait()
	})
	return v
}

func (v *valve) copy(to, from net.Conn) {
	defer to.Close()
	buf := make([]byte, 16<<10)
	for {
		n, err := from.Read(buf)
		v.mu.Lock()
		open := v.open
		v.mu.Unlock()
		<-open
		if n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// turn opens or closes the valve.
func (v *valve) turn(open bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	select {
	case <-v.open:
		if !open {
			v.open = make(chan struct{})
		}
	default:
		if open {
			close(v.open)
		}
	}
}

// leftover gives the stacks of the link's goroutines.
func leftover() string {
	buf := make([]byte, 1<<20)
	buf = buf[:runtime.Stack(buf, true)]
	var out []string
	for _, g := range strings.Split(string(buf), "\n\n") {
		if strings.Contains(g, "yakumo/link.(*session)") || strings.Contains(g, "yakumo/link.(*Client)") || strings.Contains(g, "yakumo/link.(*Server)") {
			out = append(out, g)
		}
	}
	return strings.Join(out, "\n\n")
}

func readAll(t testing.TB, r io.ReadCloser) string {
	t.Helper()
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
