package link

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"yakumo/fault"
	"yakumo/link/linkpb"
	"yakumo/model"
)

// Handler is what the agent does with what comes down the stream.
type Handler interface {
	// Apply takes a batch: when it returns nil the batch is safe on disk. It refuses a
	// generation that is older than what it has.
	Apply(ctx context.Context, b model.HostBatch) error
	// Generation is the newest that Apply has taken; 0: none.
	Generation() int64
	// Facts is what the host says of itself.
	Facts(ctx context.Context) (model.Host, error)
	// Reports gives every report afresh: called whenever a stream begins.
	Reports() ([]model.ServerReport, []model.PortReport)
	// Answer serves a server's question.
	Answer(ctx context.Context, name string, body []byte) ([]byte, error)
}

// VolumeHandler is a Handler of a host that works on volumes.
type VolumeHandler interface {
	// VolumeReports gives every report of a volume afresh: called whenever a stream begins.
	VolumeReports() []model.VolumeReport
}

// ClientConfig makes a Client.
type ClientConfig struct {
	Servers []string // host:port of the servers' link listeners, tried in turn
	Dir     string   // keeps host.key, host.crt, authority.crt
	Version string   // of the agent
	Handler Handler
	Log     *slog.Logger
	// Silence is how long the server may be silent before the client attaches anew; default 10 s.
	Silence time.Duration
	Now     func() time.Time // the clock by which certificates are judged; default time.Now
	// Clock is the clock of leases; default SinceBoot.
	Clock func() time.Duration
	// Connect reaches a server of Servers; default is a connection of gRPC, with the host's certificate.
	Connect func(server string) (linkpb.HostsClient, io.Closer, error)
}

// Client is a host's half of the link.
type Client struct {
	cfg  ClientConfig
	next int // index of the server to try

	mu      sync.Mutex
	servers map[model.ID]model.ServerReport
	ports   map[model.ID]model.PortReport
	volumes map[model.ID]model.VolumeReport
	facts   bool // to be sent again
	wake    chan struct{}
	cert    *tls.Certificate
	pool    *x509.CertPool
	at      string // server of the stream
	http    *http.Client
	uploads *http.Client // waits longer for an answer: what was sent is checked before it
	up      atomic.Bool
	counts  atomic.Int64 // see Heard
}

// NewClient makes a Client.
func NewClient(cfg ClientConfig) *Client {
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	if cfg.Silence == 0 {
		cfg.Silence = 10 * time.Second
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Clock == nil {
		cfg.Clock = SinceBoot
	}
	c := &Client{cfg: cfg, servers: map[model.ID]model.ServerReport{}, ports: map[model.ID]model.PortReport{}, volumes: map[model.ID]model.VolumeReport{}, wake: make(chan struct{}, 1)}
	if cfg.Connect == nil {
		c.cfg.Connect = c.connect
	}
	c.http = &http.Client{Transport: &http.Transport{TLSClientConfig: c.tls(), ForceAttemptHTTP2: true, IdleConnTimeout: time.Minute,
		ResponseHeaderTimeout: 30 * time.Second, HTTP2: liveness()}}
	// A connection each: a server that refuses an upload half-way ends its connection, and a body that was begun is not sent twice.
	c.uploads = &http.Client{Transport: &http.Transport{TLSClientConfig: c.tls(), ForceAttemptHTTP2: true, DisableKeepAlives: true, HTTP2: liveness()}}
	return c
}

func (c *Client) path(name string) string { return filepath.Join(c.cfg.Dir, name) }

// Joined tells whether this host has a certificate.
func (c *Client) Joined() bool {
	for _, f := range []string{"host.key", "host.crt", "authority.crt"} {
		if _, err := os.Stat(c.path(f)); err != nil {
			return false
		}
	}
	return true
}

// Connected tells whether a server has the host's stream now.
func (c *Client) Connected() bool { return c.up.Load() }

// Join spends a token for a certificate. A call that was cut off may be repeated: the key
// is made once and the token remembers it.
//
// Errors: fault.Unavailable where no server could be reached: try again. Anything else is
// final: fault.Invalid for a malformed token or one of another cloud, and what a server
// refused.
func (c *Client) Join(ctx context.Context, token, hostName string) error {
	send, fingerprint, err := splitToken(token)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(c.cfg.Dir, 0o700); err != nil {
		return err
	}
	key, err := c.key()
	if err != nil {
		return err
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return err
	}
	err = fault.New(fault.Invalid, "No server is given to join at.")
	for _, server := range c.cfg.Servers {
		var reply *linkpb.JoinReply
		if reply, err = c.joinAt(ctx, server, fingerprint, &linkpb.JoinRequest{Token: send, HostName: hostName, Csr: csr}); err == nil {
			return c.keep(reply, fingerprint)
		}
		if !fault.Is(err, fault.Unavailable) {
			break
		}
	}
	return err
}

func (c *Client) joinAt(ctx context.Context, server, fingerprint string, req *linkpb.JoinRequest) (*linkpb.JoinReply, error) {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	ctx, refuse := context.WithCancelCause(ctx)
	defer refuse(nil)
	tc := &tls.Config{MinVersion: tls.VersionTLS13, ServerName: ServerName, InsecureSkipVerify: true, // verified here
		VerifyConnection: func(cs tls.ConnectionState) error {
			err := c.verifyFingerprint(cs, fingerprint)
			if err != nil { // nothing has been sent, and trying again would not help
				refuse(fault.Wrap(fault.Invalid, err, "The server %s is not of the cloud that made the token.", server))
			}
			return err
		}}
	conn, err := grpc.NewClient("passthrough:///"+server, grpc.WithTransportCredentials(credentials.NewTLS(tc)))
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "The server's address %s cannot be used.", server)
	}
	defer conn.Close()
	reply, err := linkpb.NewHostsClient(conn).Join(ctx, req, grpc.WaitForReady(true))
	var wrong *fault.Error
	if err != nil && errors.As(context.Cause(ctx), &wrong) {
		return nil, wrong
	}
	return reply, refused(err, server)
}

// refused makes a fault of what a server answered.
func refused(err error, server string) error {
	if err == nil {
		return nil
	}
	kind := fault.Internal
	switch status.Code(err) {
	case codes.Unavailable, codes.DeadlineExceeded, codes.Canceled:
		return fault.Wrap(fault.Unavailable, err, "The server %s cannot be reached.", server)
	case codes.InvalidArgument:
		kind = fault.Invalid
	case codes.Unauthenticated:
		kind = fault.Unauthorized
	case codes.PermissionDenied:
		kind = fault.Forbidden
	case codes.NotFound:
		kind = fault.NotFound
	case codes.AlreadyExists:
		kind = fault.Conflict
	}
	return fault.New(kind, "%s", status.Convert(err).Message())
}

// verifyFingerprint trusts a server whose certificate was issued by the authority that the token names.
func (c *Client) verifyFingerprint(cs tls.ConnectionState, fingerprint string) error {
	for _, ca := range cs.PeerCertificates[1:] {
		if sum(ca.Raw) != fingerprint {
			continue
		}
		pool := x509.NewCertPool()
		pool.AddCert(ca)
		_, err := cs.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: pool, DNSName: ServerName, CurrentTime: c.cfg.Now()})
		return err
	}
	return errors.New("its authority is not the one that the token names")
}

func (c *Client) key() (*ecdsa.PrivateKey, error) {
	b, err := os.ReadFile(c.path("host.key"))
	if err == nil {
		p, _ := pem.Decode(b)
		if p == nil {
			return nil, fmt.Errorf("%s holds no PEM block", c.path("host.key"))
		}
		k, err := x509.ParsePKCS8PrivateKey(p.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", c.path("host.key"), err)
		}
		ec, ok := k.(*ecdsa.PrivateKey)
		if !ok {
			return nil, fmt.Errorf("%s holds a %T", c.path("host.key"), k)
		}
		return ec, nil
	}
	if !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		return nil, err
	}
	return k, writeFile(c.path("host.key"), "PRIVATE KEY", der)
}

func writeFile(path, kind string, der []byte) error {
	tmp := path + ".tmp"
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	err = pem.Encode(f, &pem.Block{Type: kind, Bytes: der})
	err = errors.Join(err, f.Sync(), f.Close())
	if err != nil {
		return err
	}
	return os.Rename(tmp, path)
}

func (c *Client) keep(r *linkpb.JoinReply, fingerprint string) error {
	if fingerprint != "" && sum(r.Authority) != fingerprint {
		return errors.New("the server's authority is not the one that the token names")
	}
	if err := writeFile(c.path("authority.crt"), "CERTIFICATE", r.Authority); err != nil {
		return err
	}
	if err := writeFile(c.path("host.crt"), "CERTIFICATE", r.Certificate); err != nil {
		return err
	}
	c.mu.Lock()
	c.cert, c.pool = nil, nil
	c.mu.Unlock()
	return nil
}

// load gives the host's certificate and whom it trusts.
func (c *Client) load() (*tls.Certificate, *x509.CertPool, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cert != nil {
		return c.cert, c.pool, nil
	}
	cert, err := tls.LoadX509KeyPair(c.path("host.crt"), c.path("host.key"))
	if err != nil {
		return nil, nil, fmt.Errorf("this host has not joined a cloud: %w", err)
	}
	if cert.Leaf == nil {
		if cert.Leaf, err = x509.ParseCertificate(cert.Certificate[0]); err != nil {
			return nil, nil, err
		}
	}
	ca, err := os.ReadFile(c.path("authority.crt"))
	if err != nil {
		return nil, nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(ca) {
		return nil, nil, fmt.Errorf("%s holds no certificate", c.path("authority.crt"))
	}
	c.cert, c.pool = &cert, pool
	return c.cert, c.pool, nil
}

// tls verifies the server by the cloud's authority, read when it is needed.
func (c *Client) tls() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, ServerName: ServerName, NextProtos: []string{"h2"},
		InsecureSkipVerify: true, // verified by VerifyConnection, with the pool as it is then
		VerifyConnection: func(cs tls.ConnectionState) error {
			_, pool, err := c.load()
			if err != nil {
				return err
			}
			_, err = cs.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: pool, DNSName: ServerName, CurrentTime: c.cfg.Now()})
			return err
		},
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			cert, _, err := c.load()
			return cert, err
		},
	}
}

// Certificates gives the host's certificate and whom it trusts, as they are now: one that was renewed counts from then on. It
// implements channel.Credentials.
func (c *Client) Certificates() (*tls.Certificate, *x509.CertPool, error) { return c.load() }

// HostID gives the id in the host's certificate.
func (c *Client) HostID() (model.ID, error) {
	cert, _, err := c.load()
	if err != nil {
		return "", err
	}
	return cert.Leaf.Subject.CommonName, nil
}

// Report queues reports; the newest of each thing is sent.
func (c *Client) Report(servers []model.ServerReport, ports []model.PortReport) {
	c.mu.Lock()
	for _, r := range servers {
		c.servers[r.ServerID] = r
	}
	for _, r := range ports {
		c.ports[r.PortID] = r
	}
	c.mu.Unlock()
	c.poke()
}

// ReportVolumes queues reports of volumes; the newest of each is sent.
func (c *Client) ReportVolumes(volumes []model.VolumeReport) {
	c.mu.Lock()
	for _, r := range volumes {
		c.volumes[r.VolumeID] = r
	}
	c.mu.Unlock()
	c.poke()
}

// repeat queues every report afresh, but for those that wait in the queue: these are as new.
func (c *Client) repeat() {
	servers, ports := c.cfg.Handler.Reports()
	var volumes []model.VolumeReport
	if h, ok := c.cfg.Handler.(VolumeHandler); ok {
		volumes = h.VolumeReports()
	}
	c.mu.Lock()
	for _, r := range volumes {
		if _, waits := c.volumes[r.VolumeID]; !waits {
			c.volumes[r.VolumeID] = r
		}
	}
	for _, r := range servers {
		if _, waits := c.servers[r.ServerID]; !waits {
			c.servers[r.ServerID] = r
		}
	}
	for _, r := range ports {
		if _, waits := c.ports[r.PortID]; !waits {
			c.ports[r.PortID] = r
		}
	}
	c.mu.Unlock()
	c.poke()
}

// FactsChanged makes the client send the host's facts again.
func (c *Client) FactsChanged() {
	c.mu.Lock()
	c.facts = true
	c.mu.Unlock()
	c.poke()
}

func (c *Client) poke() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// Heard gives the last moment, by SinceBoot, at which the cloud certainly knew this host to be there; 0 for none. It moves only while
// the host has guests that are leased, and only on a stream whose rows were taken.
func (c *Client) Heard() time.Duration { return time.Duration(c.counts.Load()) }

// Run keeps a stream to any server until ctx ends.
func (c *Client) Run(ctx context.Context) error {
	if len(c.cfg.Servers) == 0 {
		return fault.New(fault.Invalid, "No server is given to attach to.")
	}
	wait := 100 * time.Millisecond
	for ctx.Err() == nil {
		server := c.cfg.Servers[c.next%len(c.cfg.Servers)]
		began := time.Now()
		err := c.attach(ctx, server)
		c.up.Store(false)
		if ctx.Err() != nil {
			break
		}
		c.next++
		if time.Since(began) > 5*time.Second {
			wait = 100 * time.Millisecond
		}
		c.cfg.Log.Warn("the stream to the server ended; attaching anew", "server", server, "err", err, "wait", wait)
		select {
		case <-time.After(wait):
		case <-ctx.Done():
		}
		wait = min(wait*2, 2*time.Second)
	}
	return ctx.Err()
}

// connect is the default of ClientConfig.Connect.
func (c *Client) connect(server string) (linkpb.HostsClient, io.Closer, error) {
	conn, err := grpc.NewClient("passthrough:///"+server, grpc.WithTransportCredentials(credentials.NewTLS(c.tls())),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(256<<20)))
	if err != nil {
		return nil, nil, err
	}
	return linkpb.NewHostsClient(conn), conn, nil
}

func (c *Client) attach(ctx context.Context, server string) error {
	client, conn, err := c.cfg.Connect(server)
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	facts, err := c.encodeFacts(ctx)
	if err != nil {
		return err
	}
	// From the first byte on: a server that takes the connection and says nothing is no server.
	silence := time.AfterFunc(c.cfg.Silence, func() { cancel(errors.New("the server was silent")) })
	defer silence.Stop()
	err = c.converse(ctx, cancel, client, server, facts, func() { silence.Reset(c.cfg.Silence) })
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
		return cause
	}
	return err
}

// converse is one stream, from hello to its end.
func (c *Client) converse(ctx context.Context, cancel context.CancelCauseFunc, client linkpb.HostsClient, server string, facts []byte, heard func()) error {
	renewed := c.cfg.Now()
	if err := c.renew(ctx, client); err != nil {
		// The certificate that there is may be good for weeks; the stream tries again.
		c.cfg.Log.Warn("the host's certificate was not renewed", "err", err)
	}
	stream, err := client.Attach(ctx)
	if err != nil {
		return err
	}
	hello := &linkpb.Hello{Version: c.cfg.Version, Generation: c.cfg.Handler.Generation(), Facts: facts}
	if err := stream.Send(&linkpb.FromHost{Kind: &linkpb.FromHost_Hello{Hello: hello}}); err != nil {
		_, err = stream.Recv()
		return err
	}
	c.mu.Lock()
	c.at = server
	c.mu.Unlock()
	c.repeat()

	out := make(chan *linkpb.FromHost, 64)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel(nil)
	wg.Go(func() {
		for {
			var m *linkpb.FromHost
			select {
			case m = <-out:
			case <-c.wake:
				var err error
				if m, err = c.pending(ctx); err != nil {
					cancel(err)
					return
				}
				if m == nil {
					continue
				}
			case <-ctx.Done():
				return
			}
			if stream.Send(m) != nil {
				return // Recv tells why
			}
		}
	})
	say := func(m *linkpb.FromHost) {
		select {
		case out <- m:
		case <-ctx.Done():
		}
	}
	counting := lease{sent: map[uint64]time.Duration{}, heard: func(at time.Duration) { c.counts.Store(int64(at)) }}
	for {
		m, err := stream.Recv()
		if err != nil {
			return err
		}
		heard()
		switch k := m.Kind.(type) {
		case *linkpb.ToHost_Ping:
			counting.ping(k.Ping.N, c.cfg.Clock())
			say(&linkpb.FromHost{Kind: &linkpb.FromHost_Pong{Pong: &linkpb.Pong{N: k.Ping.N}}})
			// A stream may last longer than a certificate.
			if now := c.cfg.Now(); now.Sub(renewed) > renewEvery && c.due(now) {
				renewed = now
				wg.Go(func() {
					if err := c.renew(ctx, client); err != nil {
						c.cfg.Log.Warn("the host's certificate was not renewed; trying again", "err", err, "wait", renewEvery)
					}
				})
			}
		case *linkpb.ToHost_Rows:
			b, err := decodeBatch(k.Rows)
			if err == nil {
				err = c.cfg.Handler.Apply(ctx, b)
			}
			a := &linkpb.Applied{Generation: k.Rows.Generation}
			if err != nil {
				c.cfg.Log.Error("desired state refused", "generation", k.Rows.Generation, "err", err)
				a.Error = err.Error()
			}
			say(&linkpb.FromHost{Kind: &linkpb.FromHost_Applied{Applied: a}})
			c.up.Store(err == nil)
			counting.rows = counting.rows || err == nil
		case *linkpb.ToHost_Open:
			wg.Go(func() { c.serveOpen(ctx, client, k.Open) })
		case *linkpb.ToHost_Query:
			wg.Go(func() {
				body, err := c.cfg.Handler.Answer(WithRequestID(ctx, k.Query.RequestId), k.Query.Name, k.Query.Body)
				a := &linkpb.Answer{Id: k.Query.Id, Body: body}
				if err != nil {
					c.cfg.Log.Warn("a question was not answered", "name", k.Query.Name, "request_id", k.Query.RequestId, "err", err)
					a.FaultKind, a.Error = uint32(fault.KindOf(err)), "The host failed to answer."
					if text, ok := fault.Text(err); ok && text != "" {
						a.Error = text
					}
				}
				say(&linkpb.FromHost{Kind: &linkpb.FromHost_Answer{Answer: a}})
			})
		}
	}
}

func (c *Client) encodeFacts(ctx context.Context) ([]byte, error) {
	h, err := c.cfg.Handler.Facts(ctx)
	if err != nil {
		return nil, fmt.Errorf("facts of this host: %w", err)
	}
	return json.Marshal(h)
}

// pending makes a message of what is queued, nil where nothing is.
func (c *Client) pending(ctx context.Context) (*linkpb.FromHost, error) {
	c.mu.Lock()
	if c.facts {
		c.facts = false
		c.mu.Unlock()
		c.poke() // the reports are next
		b, err := c.encodeFacts(ctx)
		if err != nil {
			return nil, err
		}
		return &linkpb.FromHost{Kind: &linkpb.FromHost_Facts{Facts: &linkpb.Facts{Facts: b}}}, nil
	}
	servers, ports, volumes := c.servers, c.ports, c.volumes
	c.servers, c.ports, c.volumes = map[model.ID]model.ServerReport{}, map[model.ID]model.PortReport{}, map[model.ID]model.VolumeReport{}
	c.mu.Unlock()
	if len(servers)+len(ports)+len(volumes) == 0 {
		return nil, nil
	}
	r := &linkpb.Reports{}
	for _, s := range servers {
		b, err := json.Marshal(s)
		if err != nil {
			return nil, err
		}
		r.Servers = append(r.Servers, b)
	}
	for _, p := range ports {
		b, err := json.Marshal(p)
		if err != nil {
			return nil, err
		}
		r.Ports = append(r.Ports, b)
	}
	for _, v := range volumes {
		b, err := json.Marshal(v)
		if err != nil {
			return nil, err
		}
		r.Volumes = append(r.Volumes, b)
	}
	return &linkpb.FromHost{Kind: &linkpb.FromHost_Reports{Reports: r}}, nil
}

// renewEvery is how often a renewal is tried that has failed.
const renewEvery = time.Minute

// due tells whether the host's certificate should be renewed.
func (c *Client) due(now time.Time) bool {
	cert, _, err := c.load()
	return err == nil && dueForRenewal(cert, now)
}

// renew gets a newer certificate when a third of the old one's life is left.
func (c *Client) renew(ctx context.Context, client linkpb.HostsClient) error {
	cert, _, err := c.load()
	if err != nil {
		return err
	}
	if !dueForRenewal(cert, c.cfg.Now()) {
		return nil
	}
	key, err := c.key()
	if err != nil {
		return err
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return err
	}
	reply, err := client.Renew(ctx, &linkpb.RenewRequest{Csr: csr})
	if err != nil {
		return fmt.Errorf("renew the host's certificate: %w", err)
	}
	return c.keep(reply, "")
}

// Blob opens the bytes of an image from offset on, at the server that has the stream or
// the first of the list.
//
// Errors: fault.NotFound where the server has no such bytes, fault.Unavailable otherwise.
func (c *Client) Blob(ctx context.Context, id model.ID, offset int64) (io.ReadCloser, error) {
	c.mu.Lock()
	at := c.at
	c.mu.Unlock()
	if at == "" {
		at = c.cfg.Servers[0]
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+at+"/blobs/"+url.PathEscape(id), nil)
	if err != nil {
		return nil, err
	}
	if offset > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", offset))
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, fault.Wrap(fault.Unavailable, err, "The image cannot be fetched now.")
	}
	switch {
	case resp.StatusCode == http.StatusOK && offset == 0, resp.StatusCode == http.StatusPartialContent:
		return resp.Body, nil
	case resp.StatusCode == http.StatusNotFound:
		resp.Body.Close()
		return nil, fault.New(fault.NotFound, "The image's data is gone.")
	}
	resp.Body.Close()
	return nil, fault.New(fault.Unavailable, "The image cannot be fetched now: %s.", resp.Status)
}
