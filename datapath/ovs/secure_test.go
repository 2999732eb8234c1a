package ovs_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"yakumo/datapath"
	"yakumo/datapath/dptest"
	"yakumo/datapath/ovs"
	"yakumo/netspace/netspacetest"
	"yakumo/openflow/ovstest"
)

// authority signs certificates for one test.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t testing.TB, name string) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	if c, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return &authority{c, key}
}

// issue makes a certificate for 127.0.0.1, where the tests' pipes listen.
func (a *authority) issue(t testing.TB, name string) (cert []byte, key *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	cert, err = x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, NotBefore: a.cert.NotBefore, NotAfter: a.cert.NotAfter, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}, a.cert, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	return cert, key
}

// client is how a driver reaches switches: by a certificate of this authority, which it wants of them too.
func (a *authority) client(t testing.TB) *tls.Config {
	t.Helper()
	cert, key := a.issue(t, "driver")
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: pool, Certificates: []tls.Certificate{{Certificate: [][]byte{cert}, PrivateKey: key}}}
}

// trust gives a switch a certificate of this authority, and has it want certificates of another, or of this one too.
func (a *authority) trust(t testing.TB, sw *ovstest.Switch, clients *authority) {
	t.Helper()
	dir := t.TempDir()
	write := func(name, kind string, der []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	cert, key := a.issue(t, "switch")
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	sw.Vsctl("set-ssl", write("key.pem", "PRIVATE KEY", der), write("cert.pem", "CERTIFICATE", cert), write("ca.pem", "CERTIFICATE", clients.cert.Raw))
}

// Hosts whose drivers have nothing but two TLS connections: ports are wired, frames pass, and a switch that
// was away is reached again.
func TestSecureRemote(t *testing.T) {
	f := newFabric(t)
	f.remote, f.ca = true, newAuthority(t, "ours")
	w := dptest.NewWorld(t, f, 2)
	h0, h1 := w.Host(0), w.Host(1)
	pa, pb := dptest.NewPort("net", 77, "a", 5, "all"), dptest.NewPort("net", 77, "b", 6, "all")
	h0.Apply(dptest.NewNetwork("net", 77, h1.TunnelIP()), dptest.AllowAll("all"), dptest.PeerOf(pb, h1.TunnelIP()))
	h1.Apply(dptest.NewNetwork("net", 77, h0.TunnelIP()), dptest.AllowAll("all"), dptest.PeerOf(pa, h0.TunnelIP()))
	a, b := h0.Boot(pa), h1.Boot(pb)
	if mac := a.Resolve(b.IP()); mac != b.MAC() {
		t.Fatalf("b has MAC %v, want %v", mac, b.MAC())
	}
	a.Passes(b, a.UDP(b, 53))
	b.Passes(a, b.UDP(a, 53))
	h0.RestartSwitch(t)
	dptest.WaitFor(t, "the driver to come back", func() bool { return h0.Driver().Installed("a") })
	b.Passes(a, b.UDP(a, 53))
}

// reasons is a log that passes on the errors in it.
type reasons chan error

func (reasons) Enabled(context.Context, slog.Level) bool { return true }
func (r reasons) WithAttrs([]slog.Attr) slog.Handler     { return r }
func (r reasons) WithGroup(string) slog.Handler          { return r }
func (r reasons) Handle(_ context.Context, rec slog.Record) error {
	rec.Attrs(func(a slog.Attr) bool {
		if err, is := a.Value.Any().(error); is {
			select {
			case r <- err:
			default: // nobody waits for it: there was one already
			}
		}
		return true
	})
	return nil
}

// Neither side takes the other with a certificate of another authority.
func TestStrangers(t *testing.T) {
	ours, theirs := newAuthority(t, "ours"), newAuthority(t, "theirs")
	unknown := func(err error) bool { return errors.As(err, new(x509.UnknownAuthorityError)) }
	turnedAway := func(err error) bool {
		var op *net.OpError
		return errors.As(err, &op) && op.Op == "remote error" // an alert of TLS
	}
	for name, c := range map[string]struct {
		sw, clients *authority // of the switch: who signed its certificate, whose it wants
		plain       bool       // the database is reached without TLS
		is          func(error) bool
	}{
		"their database": {sw: theirs, clients: ours, is: unknown},
		"their bridge":   {sw: theirs, clients: ours, plain: true, is: unknown},
		"database of us": {sw: ours, clients: theirs, is: turnedAway},
		"bridge of us":   {sw: ours, clients: theirs, plain: true, is: turnedAway},
	} {
		t.Run(name, func(t *testing.T) {
			sw := ovstest.Start(t)
			c.sw.trust(t, sw, c.clients)
			db, bridge := netspacetest.Loopback(t), netspacetest.Loopback(t)
			cfg := ovs.Config{Remote: true, Datapath: ovs.DatapathNetdev, TunnelIP: netip.MustParseAddr("192.0.2.1"), Ordinals: datapath.NewMemoryOrdinals(),
				OVSDB: "ssl:" + db.String(), OpenFlow: "ssl:" + bridge.String(), TLS: ours.client(t)}
			if c.plain {
				cfg.OVSDB = "tcp:" + db.String()
				sw.Vsctl("set-manager", fmt.Sprintf("ptcp:%d:127.0.0.1", db.Port()))
			} else {
				sw.Vsctl("set-manager", fmt.Sprintf("pssl:%d:127.0.0.1", db.Port()))
			}
			seen := make(reasons, 64)
			cfg.Log = slog.New(seen)
			d, err := ovs.Open(cfg)
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := d.Close(); err != nil {
					t.Error(err)
				}
			}()
			deadline := time.After(dptest.Patience)
			for got := error(nil); !c.is(got); {
				select {
				case got = <-seen:
					t.Log(got)
				case <-deadline:
					t.Fatalf("not refused, last: %v", got)
				}
			}
			if d.Counters().Connects != 0 {
				t.Error("the driver has connected")
			}
			if list := sw.Vsctl("list-br"); !c.plain && strings.Contains(list, "br-int") {
				t.Errorf("the switch has bridges %q of a driver that it must not hear", list)
			}
		})
	}
}
