package link

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"yakumo/fault"
	"yakumo/link/linkpb"
	"yakumo/model"
	"yakumo/store"
	"yakumo/store/storetest"
)

func TestJoin(t *testing.T) {
	t.Parallel()
	c := newCloud(t, 2)
	snap := func() store.Snapshot { return c.sites[0].st.Snapshot() }

	h := c.join("h1")
	id := h.id(t)
	row, ok := store.Hosts.Get(snap(), id)
	if !ok || row.Name != "h1" || row.CertSerial == "" || row.CertKey == "" || !h.Joined() {
		t.Fatalf("the host's row is %+v", row)
	}
	for _, f := range []string{"host.key", "host.crt", "authority.crt"} {
		fi, err := os.Stat(filepath.Join(h.Client.cfg.Dir, f))
		if err != nil || fi.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", f, fi, err)
		}
	}

	t.Run("the answer was lost", func(t *testing.T) {
		tok := c.token("")
		h := c.client(&machine{})
		if err := h.Join(t.Context(), tok, "lost"); err != nil {
			t.Fatal(err)
		}
		first, err := h.HostID()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range []string{"host.crt", "authority.crt"} {
			if err := os.Remove(filepath.Join(h.cfg.Dir, f)); err != nil {
				t.Fatal(err)
			}
		}
		if err := h.Join(t.Context(), tok, "lost"); err != nil {
			t.Fatalf("the same key again: %v", err)
		}
		if again, err := h.HostID(); err != nil || again != first {
			t.Errorf("the host is %s now, was %s: %v", again, first, err)
		}
		// Another machine, another key: the token is spent.
		if err := c.client(&machine{}).Join(t.Context(), tok, "lost"); !fault.Is(err, fault.Unauthorized) {
			t.Errorf("another key: %v", err)
		}
	})

	bound := c.token("h9")
	expired, err := NewJoinToken(t.Context(), c.sites[0].st, c.sites[0].cfg.Authority, "", time.Second, c.clock.now().Add(-time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	good := c.token("")
	idPart, rest, _ := strings.Cut(good, ".")
	_, print, _ := strings.Cut(rest, ".")
	for name, tc := range map[string]struct {
		token, host string
		kind        fault.Kind
	}{
		"expired":               {expired, "x1", fault.Unauthorized},
		"for another name":      {bound, "h8", fault.Forbidden},
		"name joined, unbound":  {good, "h1", fault.Conflict},
		"wrong secret":          {idPart + ".AAAA." + print, "x2", fault.Unauthorized},
		"unknown":               {"0000000000000000.AAAA." + print, "x3", fault.Unauthorized},
		"no host name":          {good, "", fault.Invalid},
		"host name with slash":  {good, "a/b", fault.Invalid},
		"host name with escape": {good, "a\x1b[2J", fault.Invalid},
		"empty":                 {"", "x4", fault.Invalid},
		"two parts":             {"a.b", "x4", fault.Invalid},
		"short fingerprint":     {"a.b.00", "x4", fault.Invalid},
		"fingerprint not hex":   {"a.b." + strings.Repeat("g", 64), "x4", fault.Invalid},
	} {
		t.Run(name, func(t *testing.T) {
			before := snap().Revision()
			err := c.client(&machine{}).Join(t.Context(), tc.token, tc.host)
			if !fault.Is(err, tc.kind) {
				t.Errorf("error %v (%s), want %s", err, fault.KindOf(err), tc.kind)
			}
			if err := c.sites[0].st.Sync(t.Context()); err != nil {
				t.Fatal(err)
			}
			if now := snap().Revision(); now != before {
				t.Error("a refused join changed the state")
			}
		})
	}
	// A refusal has not spent the tokens.
	for host, tok := range map[string]string{"h9": bound, "h10": good} {
		if err := c.client(&machine{}).Join(t.Context(), tok, host); err != nil {
			t.Errorf("%s: %v", host, err)
		}
	}
	for _, r := range []string{bound, good} {
		secret := strings.Split(r, ".")[1]
		for row := range store.JoinTokens.All(snap()) {
			if strings.Contains(row.Hash, secret) {
				t.Error("a token's secret is in the store")
			}
		}
	}
	if _, err := NewJoinToken(t.Context(), c.sites[0].st, c.sites[0].cfg.Authority, "a b", time.Hour, time.Now()); !fault.Is(err, fault.Invalid) {
		t.Errorf("a token for an impossible name: %v", err)
	}
}

// TestJoinTriesServers: a server that is away does not keep a host from joining at the next.
func TestJoinTriesServers(t *testing.T) {
	t.Parallel()
	c := newCloud(t, 1)
	away := storetest.FreeAddress(t)
	h := c.client(&machine{}, c.sites[0].addr)
	if err := h.Join(t.Context(), c.token(""), "h1"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	if err := c.client(&machine{}, away).Join(ctx, c.token(""), "h2"); !fault.Is(err, fault.Unavailable) {
		t.Errorf("no server: %v", err)
	}
	if err := c.client(&machine{}, []string{}...).Join(t.Context(), c.token(""), "h3"); err != nil {
		t.Errorf("every server: %v", err)
	}
}

// TestJoinOtherCloud: a host does not send its token to servers that are not its cloud's.
func TestJoinOtherCloud(t *testing.T) {
	t.Parallel()
	mine, other := newCloud(t, 1), newCloud(t, 1)
	err := mine.client(&machine{}, other.sites[0].addr).Join(t.Context(), mine.token(""), "h1")
	if !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "is not of the cloud that made the token") {
		t.Errorf("error %v", err)
	}
	if n := len(collect(other.sites[0].st)); n != 0 {
		t.Errorf("the other cloud has %d hosts", n)
	}
	// And a host does not attach to another cloud's servers.
	h := mine.join("h1")
	stranger := NewClient(ClientConfig{Servers: []string{other.sites[0].addr}, Dir: h.Client.cfg.Dir, Handler: h.machine, Log: h.Client.cfg.Log})
	if err := stranger.attach(t.Context(), other.sites[0].addr); status.Code(err) != codes.Unavailable {
		t.Errorf("attach: %v", err)
	}
}

func collect(st *store.Store) (out []*model.Host) {
	for h := range store.Hosts.All(st.Snapshot()) {
		out = append(out, h)
	}
	return out
}

// attachAs tries the rpc with a certificate of the caller's choice.
func attachAs(t *testing.T, c *cloud, cert *tls.Certificate) error {
	t.Helper()
	tc := &tls.Config{MinVersion: tls.VersionTLS13, ServerName: ServerName, RootCAs: c.sites[0].cfg.Authority.Pool(), Time: c.clock.now}
	if cert != nil {
		tc.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return cert, nil }
	}
	conn, err := grpc.NewClient("passthrough:///"+c.sites[0].addr, grpc.WithTransportCredentials(credentials.NewTLS(tc)))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(t.Context(), soon)
	defer cancel()
	stream, err := linkpb.NewHostsClient(conn).Attach(ctx)
	if err != nil {
		return err
	}
	// A refusal may come before the hello is sent; Recv tells it.
	stream.Send(&linkpb.FromHost{Kind: &linkpb.FromHost_Hello{Hello: &linkpb.Hello{Facts: []byte("{}")}}})
	_, err = stream.Recv()
	return err
}

func TestAttachNeedsAHostsCertificate(t *testing.T) {
	t.Parallel()
	c := newCloud(t, 1)
	h := c.join("h1")
	cert, _, err := h.load()
	if err != nil {
		t.Fatal(err)
	}
	if err := attachAs(t, c, cert); err != nil {
		t.Fatalf("the host itself: %v", err)
	}
	if err := attachAs(t, c, nil); status.Code(err) != codes.Unauthenticated {
		t.Errorf("no certificate: %v", err)
	}
	own, err := c.sites[0].tls.GetClientCertificate(nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := attachAs(t, c, own); status.Code(err) != codes.Unauthenticated {
		t.Errorf("a server's certificate: %v", err)
	}
	other := newCloud(t, 1)
	foreign, _, err := other.join("h1").load()
	if err != nil {
		t.Fatal(err)
	}
	if err := attachAs(t, c, foreign); status.Code(err) != codes.Unavailable {
		t.Errorf("another cloud's host: %v", err)
	}
	// A host's certificate does not make a server of its holder.
	if err := h.verifyFingerprint(tls.ConnectionState{PeerCertificates: append(parse(t, cert), c.sites[0].cfg.Authority.cert)}, c.sites[0].cfg.Authority.Fingerprint()); err == nil {
		t.Error("a host's certificate passes for a server's")
	}

	// The machine was set up again: the new key counts, the old one is worthless.
	again := c.client(&machine{})
	if err := again.Join(t.Context(), c.token("h1"), "h1"); err != nil {
		t.Fatal(err)
	}
	if id, err := again.HostID(); err != nil || id != h.id(t) {
		t.Errorf("it is %s, was %s (%v)", id, h.id(t), err)
	}
	if err := attachAs(t, c, cert); status.Code(err) != codes.PermissionDenied {
		t.Errorf("the certificate from before: %v", err)
	}
	fresh, _, err := again.load()
	if err != nil {
		t.Fatal(err)
	}
	if err := attachAs(t, c, fresh); err != nil {
		t.Errorf("the new certificate: %v", err)
	}
	if _, err := c.sites[0].st.Update(t.Context(), func(tx *store.Tx) error { return store.Hosts.Delete(tx, h.id(t)) }); err != nil {
		t.Fatal(err)
	}
	if err := attachAs(t, c, fresh); status.Code(err) != codes.PermissionDenied {
		t.Errorf("a removed host: %v", err)
	}
}

func parse(t *testing.T, c *tls.Certificate) (out []*x509.Certificate) {
	t.Helper()
	for _, der := range c.Certificate {
		x, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, x)
	}
	return out
}

// TestRenewal: a stream that lasts renews the certificate, a server renews its own, and a
// host is let in long after its first certificate has run out.
func TestRenewal(t *testing.T) {
	t.Parallel()
	c := newCloud(t, 1)
	h := c.run(c.join("h1"))
	until(t, soon, "attached", h.Connected)
	first := serialOf(t, h)
	c.clock.advance(59 * 24 * time.Hour) // of 90 days
	if c.dueNow(h) {
		t.Fatal("the certificate is due with more than a third left")
	}
	c.clock.advance(2 * 24 * time.Hour)
	until(t, soon, "renewed", func() bool { return serialOf(t, h) != first })
	row, _ := store.Hosts.Get(c.sites[0].st.Snapshot(), h.id(t))
	if !h.Connected() || row.CertSerial != serialOf(t, h) {
		t.Errorf("connected %v; the row has %s, the host %s", h.Connected(), row.CertSerial, serialOf(t, h))
	}
	h.stop()
	c.clock.advance(40 * 24 * time.Hour) // the first certificates are 101 days old
	second := serialOf(t, h)
	n := len(h.got())
	c.run(h)
	until(t, soon, "attached again", func() bool { return len(h.got()) > n })
	c.clock.advance(25 * 24 * time.Hour)
	until(t, soon, "renewed again", func() bool { return serialOf(t, h) != second })
}

func (c *cloud) dueNow(h *host) bool { return h.due(c.clock.now()) }

func serialOf(t testing.TB, h *host) string {
	t.Helper()
	cert, _, err := h.load()
	if err != nil {
		t.Fatal(err)
	}
	return cert.Leaf.SerialNumber.Text(16)
}

// TestAuthorityIsOne: servers that start at once agree, and a wrong master key is told.
func TestAuthorityIsOne(t *testing.T) {
	t.Parallel()
	cl, prefix := storetest.Client(t)
	prints := make(chan string, 6)
	for range cap(prints) {
		st := storetest.Open(t, cl, prefix)
		go func() {
			a, err := OpenAuthority(context.Background(), st, plainSealer{}, nil)
			if err != nil {
				t.Error(err)
				prints <- ""
				return
			}
			prints <- a.Fingerprint()
		}()
	}
	first := <-prints
	for range cap(prints) - 1 {
		if p := <-prints; p != first {
			t.Errorf("authorities %s and %s", first, p)
		}
	}
	st := storetest.Open(t, cl, prefix)
	if _, err := OpenAuthority(t.Context(), st, otherSealer{}, nil); err == nil || !strings.Contains(err.Error(), "master key") {
		t.Errorf("another master key: %v", err)
	}
}

type otherSealer struct{ plainSealer }

func (otherSealer) Unseal(place string, b []byte) ([]byte, error) {
	return plainSealer{}.Unseal("other"+place, b)
}
