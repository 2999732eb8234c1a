package link

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
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

// View follows what one host must know. Next waits for a change; the first batch is Full.
// It fails only when ctx ends.
type View interface {
	Next(ctx context.Context) (model.HostBatch, error)
	Close()
}

// Views opens views.
type Views interface {
	Open(host model.ID) View
}

// Sink takes what hosts report and brings it into the store. A call may be repeated.
type Sink interface {
	ServerReports(ctx context.Context, host model.ID, reports []model.ServerReport) error
	PortReports(ctx context.Context, host model.ID, reports []model.PortReport) error
}

// VolumeSink takes what hosts report of volumes. A call may be repeated.
type VolumeSink interface {
	VolumeReports(ctx context.Context, host model.ID, reports []model.VolumeReport) error
}

// ServerConfig makes a Server.
type ServerConfig struct {
	Store     *store.Store
	Authority *Authority
	Views     Views
	Sink      Sink
	Volumes   VolumeSink // nil: reports of volumes are dropped
	// Blob serves the bytes of an image to a host, with Range requests.
	Blob func(w http.ResponseWriter, r *http.Request, blobID string)
	// Upload keeps what a host sends, and checks that this host may send it. It is called again with the same kind and
	// id where the host did not hear the answer. Nil: nothing is taken.
	Upload func(ctx context.Context, up Upload) error
	// Identity names this server process, unique in the cloud.
	Identity string
	// URL is where other servers reach this one's listener: "https://10.0.0.1:8700".
	URL string
	// HostTTL is how long a host may be silent before it counts as down; default 6 s.
	HostTTL time.Duration
	// GatewayTTL is how long a host that is a router's gateway may be silent, while its kernel is
	// silent too, before its gateways go elsewhere; default 400 ms.
	GatewayTTL time.Duration
	// GatewayGrace is how long the agent of such a host may be away or hang while its host is
	// alive; default half of HostTTL, which is to be longer.
	GatewayGrace time.Duration
	// Probe tells whether the kernel of the host answers that an agent's stream came from; default
	// is a TCP connection to that port. It returns when ctx ends.
	Probe func(ctx context.Context, at netip.AddrPort) bool
	Log   *slog.Logger
	Now   func() time.Time
}

// Server is the servers' half of the link.
type Server struct {
	linkpb.UnimplementedHostsServer
	cfg  ServerConfig
	tls  *tls.Config
	http *http.Client // to other servers
	grpc *grpc.Server

	reporting chan struct{} // holds one value for each host whose reports are being brought in
	telling   chan struct{} // holds one value for each host that is being told everything

	mu       sync.Mutex
	sessions map[model.ID]*session
	ctx      context.Context
	stop     context.CancelFunc
}

// reportsAtOnce is how many hosts' reports are brought into the store at once. More make it no
// faster, and each holds a version of the state in memory: a thousand hosts that report at once, gigabytes.
const reportsAtOnce = 16

// tellAtOnce is how many hosts are told everything at once, and tellFor how long one that does not take it may keep the others
// waiting. A thousand hosts come at once when a server starts: all rows of all hosts would be in memory, and each
// host would have its rows as late as the last.
const (
	tellAtOnce = 16
	tellFor    = time.Second
)

// NewServer makes a Server.
func NewServer(cfg ServerConfig) (*Server, error) {
	if cfg.HostTTL == 0 {
		cfg.HostTTL = 6 * time.Second
	}
	if cfg.GatewayTTL == 0 {
		cfg.GatewayTTL = 400 * time.Millisecond
	}
	if cfg.GatewayGrace == 0 {
		cfg.GatewayGrace = cfg.HostTTL / 2
	}
	if cfg.Probe == nil {
		cfg.Probe = knock
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	tc, err := cfg.Authority.ServerTLS()
	if err != nil {
		return nil, fmt.Errorf("certificate of this server: %w", err)
	}
	s := &Server{cfg: cfg, tls: tc, sessions: map[model.ID]*session{}, reporting: make(chan struct{}, reportsAtOnce), telling: make(chan struct{}, tellAtOnce)}
	s.ctx, s.stop = context.WithCancel(context.Background())
	s.http = &http.Client{Transport: &http.Transport{TLSClientConfig: tc.Clone(), ForceAttemptHTTP2: true, IdleConnTimeout: time.Minute, HTTP2: liveness()}}
	s.grpc = grpc.NewServer(grpc.Creds(credentials.NewTLS(tc)), grpc.MaxRecvMsgSize(64<<20))
	linkpb.RegisterHostsServer(s.grpc, s)
	go (&vigil{s: s, watched: map[model.ID]*watched{}}).run(s.ctx)
	return s, nil
}

// liveness makes an HTTP/2 connection end soon after its peer has vanished without a word.
func liveness() *http.HTTP2Config {
	return &http.HTTP2Config{SendPingTimeout: 5 * time.Second, PingTimeout: 5 * time.Second, WriteByteTimeout: 15 * time.Second}
}

// HTTPServer makes the http.Server of the link's listener: call ServeTLS(listener, "", "").
func (s *Server) HTTPServer() *http.Server {
	return &http.Server{Handler: s, TLSConfig: s.tls, HTTP2: liveness(), ReadHeaderTimeout: 30 * time.Second,
		ErrorLog: slog.NewLogLogger(s.cfg.Log.Handler(), slog.LevelDebug)}
}

// TLS is the configuration that the listener must use.
func (s *Server) TLS() *tls.Config { return s.tls }

// Close ends every stream; hosts go elsewhere or come back.
func (s *Server) Close() {
	s.stop()
	s.http.CloseIdleConnections()
}

// ServeHTTP serves the stream, image bytes to hosts, what hosts upload, and questions of other servers.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.ProtoMajor == 2 && strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc") {
		s.grpc.ServeHTTP(w, r)
		return
	}
	var certs []*x509.Certificate
	if r.TLS != nil {
		certs = r.TLS.PeerCertificates
	}
	_, unit := holder(certs)
	path := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	switch {
	case len(path) == 2 && path[0] == "blobs" && r.Method == http.MethodGet:
		if _, known := s.host(certs); !known && unit != unitServer {
			http.Error(w, "a certificate of a host or a server is needed", http.StatusForbidden)
			return
		}
		s.cfg.Blob(w, r, path[1])
	case len(path) == 3 && path[0] == "uploads" && r.Method == http.MethodPut && s.cfg.Upload != nil:
		h, known := s.host(certs)
		if !known {
			http.Error(w, "a certificate of a host is needed", http.StatusForbidden)
			return
		}
		s.receive(w, r, h.ID, path[1], path[2])
	case len(path) == 3 && path[0] == "ask" && r.Method == http.MethodPost:
		if unit != unitServer {
			http.Error(w, "a certificate of a server is needed", http.StatusForbidden)
			return
		}
		s.answerPeer(w, r, path[1], path[2])
	default:
		http.NotFound(w, r)
	}
}

// holder gives the name and the unit of the verified certificate, or nothing.
func holder(certs []*x509.Certificate) (name, unit string) {
	if len(certs) == 0 || len(certs[0].Subject.OrganizationalUnit) != 1 {
		return "", ""
	}
	return certs[0].Subject.CommonName, certs[0].Subject.OrganizationalUnit[0]
}

// host gives the host that the certificate is of, and false where it is no host's, or of one
// that was removed or has joined again with another key.
func (s *Server) host(certs []*x509.Certificate) (*model.Host, bool) {
	id, unit := holder(certs)
	if unit != unitHost {
		return nil, false
	}
	h, ok := store.Hosts.Get(s.cfg.Store.Snapshot(), id)
	if !ok || h.CertKey != "" && h.CertKey != sum(certs[0].RawSubjectPublicKeyInfo) {
		return nil, false
	}
	return h, true
}

// hostOf gives the host that calls.
func (s *Server) hostOf(ctx context.Context) (*model.Host, error) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return nil, status.Error(codes.Unauthenticated, "no peer")
	}
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok {
		return nil, status.Error(codes.Unauthenticated, "no TLS")
	}
	if _, unit := holder(info.State.PeerCertificates); unit != unitHost {
		return nil, status.Error(codes.Unauthenticated, "a host's certificate is needed")
	}
	if err := s.cfg.Store.Sync(ctx); err != nil {
		return nil, grpcError(err)
	}
	h, ok := s.host(info.State.PeerCertificates)
	if !ok {
		return nil, errRemoved
	}
	return h, nil
}

var errRemoved = status.Error(codes.PermissionDenied, "this host was removed from the cloud, or joined again with another key; join it with a new token")

// grpcError carries a fault over the wire.
func grpcError(err error) error {
	text, ok := fault.Text(err)
	if !ok {
		return status.Error(codes.Internal, "internal error")
	}
	code := codes.Internal
	switch fault.KindOf(err) {
	case fault.Invalid:
		code = codes.InvalidArgument
	case fault.Unauthorized:
		code = codes.Unauthenticated
	case fault.Forbidden:
		code = codes.PermissionDenied
	case fault.NotFound:
		code = codes.NotFound
	case fault.Conflict:
		code = codes.AlreadyExists
	case fault.Unavailable:
		code = codes.Unavailable
	}
	return status.Error(code, text)
}

// Join serves the rpc.
func (s *Server) Join(ctx context.Context, req *linkpb.JoinRequest) (*linkpb.JoinReply, error) {
	// Before the token is spent: what is malformed must not cost it.
	csr, key, err := parseRequest(req.Csr)
	if err != nil {
		return nil, grpcError(err)
	}
	if err := s.cfg.Store.Sync(ctx); err != nil {
		return nil, grpcError(err)
	}
	host, err := s.spend(ctx, req.Token, req.HostName, key)
	if err != nil {
		s.cfg.Log.Warn("a host may not join", "name", req.HostName, "err", err)
		return nil, grpcError(err)
	}
	s.cfg.Log.Info("a host joined", "host", host, "name", req.HostName)
	return s.certify(ctx, csr, host, key)
}

// Renew serves the rpc.
func (s *Server) Renew(ctx context.Context, req *linkpb.RenewRequest) (*linkpb.JoinReply, error) {
	h, err := s.hostOf(ctx)
	if err != nil {
		return nil, err
	}
	csr, key, err := parseRequest(req.Csr)
	if err != nil {
		return nil, grpcError(err)
	}
	if h.CertKey != "" && h.CertKey != key {
		return nil, grpcError(fault.New(fault.Invalid, "A certificate is renewed for the key that the host joined with."))
	}
	return s.certify(ctx, csr, h.ID, key)
}

func (s *Server) certify(ctx context.Context, csr *x509.CertificateRequest, host model.ID, key string) (*linkpb.JoinReply, error) {
	cert, err := s.cfg.Authority.hostCertificate(csr, host)
	if err != nil {
		return nil, grpcError(err)
	}
	if _, err := s.cfg.Store.Update(ctx, func(tx *store.Tx) error {
		h, ok := store.Hosts.Get(tx, host)
		if !ok {
			return fault.New(fault.NotFound, "The host was removed.")
		}
		n := *h
		n.CertSerial, n.CertKey = cert.SerialNumber.Text(16), key
		return store.Hosts.Put(tx, &n)
	}); err != nil {
		return nil, grpcError(err)
	}
	return &linkpb.JoinReply{HostId: host, Certificate: cert.Raw, Authority: s.cfg.Authority.cert.Raw}, nil
}

// askTimeout bounds a question whose asker has no patience of its own.
const askTimeout = 15 * time.Second

// Ask puts a question to a host, over its stream wherever that is, and waits for the answer.
//
// Errors: fault.Unavailable where the host is down or does not answer before ctx ends, or
// within 15 s where ctx has no end; whatever the host answered.
func (s *Server) Ask(ctx context.Context, host model.ID, name string, body []byte) ([]byte, error) {
	if _, ends := ctx.Deadline(); !ends {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, askTimeout)
		defer cancel()
	}
	s.mu.Lock()
	local := s.sessions[host]
	s.mu.Unlock()
	if local != nil {
		return local.ask(ctx, name, body)
	}
	hb, ok := store.Heartbeats.Get(s.cfg.Store.Snapshot(), host)
	if !ok || hb.URL == "" || hb.Server == s.cfg.Identity {
		return nil, fault.New(fault.Unavailable, "The host is not connected. Try again when it is back.")
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, hb.URL+"/ask/"+url.PathEscape(host)+"/"+url.PathEscape(name), bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("X-Request-Id", requestID(ctx))
	resp, err := s.http.Do(req)
	if err != nil {
		return nil, fault.Wrap(fault.Unavailable, err, "The host cannot be reached. Try again.")
	}
	defer resp.Body.Close()
	out, err := io.ReadAll(io.LimitReader(resp.Body, 64<<20))
	if err != nil {
		return nil, fault.Wrap(fault.Unavailable, err, "The host cannot be reached. Try again.")
	}
	if resp.StatusCode != http.StatusOK {
		var e peerError
		if err := json.Unmarshal(out, &e); err != nil {
			return nil, fault.Wrap(fault.Unavailable, fmt.Errorf("%s: %s", resp.Status, out), "The host cannot be reached. Try again.")
		}
		return nil, fault.New(e.Kind, "%s", e.Text)
	}
	return out, nil
}

// maxQuestion is the largest body of a question, in bytes.
const maxQuestion = 1 << 20

type peerError struct {
	Kind fault.Kind `json:"kind"`
	Text string     `json:"text"`
}

func (s *Server) answerPeer(w http.ResponseWriter, r *http.Request, host, name string) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxQuestion))
	if err != nil {
		err = fault.Wrap(fault.Invalid, err, "The question cannot be read.")
	} else {
		s.mu.Lock()
		local := s.sessions[host]
		s.mu.Unlock()
		if local == nil {
			err = fault.New(fault.Unavailable, "The host is not connected. Try again.")
		} else {
			var out []byte
			if out, err = local.ask(WithRequestID(r.Context(), r.Header.Get("X-Request-Id")), name, body); err == nil {
				w.Write(out)
				return
			}
		}
	}
	text, ok := fault.Text(err)
	if !ok {
		text = "The host failed to answer."
	}
	w.WriteHeader(http.StatusBadGateway)
	json.NewEncoder(w).Encode(peerError{fault.KindOf(err), text})
}

type requestIDKey struct{}

// WithRequestID carries an API request's id to hosts and their logs.
func WithRequestID(ctx context.Context, id string) context.Context {
	return context.WithValue(ctx, requestIDKey{}, id)
}

func requestID(ctx context.Context) string {
	id, _ := ctx.Value(requestIDKey{}).(string)
	return id
}

// Sessions tells how many hosts are attached to this server.
func (s *Server) Sessions() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.sessions)
}
