// Package channeltest makes hosts' certificates for tests of what talks over channels. It owns one authority for each test.
// May import: channel, model. Must not be imported outside tests.
package channeltest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"sync"
	"testing"
	"time"

	"yakumo/model"
)

// Authority issues certificates as the cloud's does.
type Authority struct {
	t    testing.TB
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// NewAuthority makes an authority.
func NewAuthority(t testing.TB) *Authority {
	a := &Authority{t: t, key: newKey(t)}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(24 * time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	a.cert = a.sign(tmpl, tmpl, a.key)
	return a
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func (a *Authority) sign(tmpl, parent *x509.Certificate, key *ecdsa.PrivateKey) *x509.Certificate {
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, key.Public(), a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return c
}

// Host gives the credentials of a host of the authority, as the link makes them: for clients, valid for an hour.
func (a *Authority) Host(id model.ID) *Credentials {
	return a.Issue(pkix.Name{CommonName: id, OrganizationalUnit: []string{"yakumo host"}}, time.Now().Add(time.Hour))
}

// Issue gives credentials of any name, valid until then.
func (a *Authority) Issue(name pkix.Name, until time.Time) *Credentials {
	key := newKey(a.t)
	c := a.sign(&x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: name, NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: until,
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}, a.cert, key)
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return &Credentials{own: &tls.Certificate{Certificate: [][]byte{c.Raw}, PrivateKey: key, Leaf: c}, trusted: pool}
}

// Credentials is a channel.Credentials. It may be changed at any time.
type Credentials struct {
	mu      sync.Mutex
	own     *tls.Certificate
	trusted *x509.CertPool
}

// Certificates implements channel.Credentials.
func (c *Credentials) Certificates() (*tls.Certificate, *x509.CertPool, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.own, c.trusted, nil
}

// Renew takes the certificate of other.
func (c *Credentials) Renew(other *Credentials) {
	other.mu.Lock()
	own, trusted := other.own, other.trusted
	other.mu.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.own, c.trusted = own, trusted
}
