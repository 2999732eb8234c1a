package link

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"fmt"
	"math/big"
	"time"

	"yakumo/fault"
	"yakumo/model"
	"yakumo/store"
)

// Sealer encrypts what must not stand in the store in clear text.
type Sealer interface {
	Seal(place string, secret []byte) []byte
	Unseal(place string, sealed []byte) ([]byte, error)
}

// Lifetimes of certificates. A host renews its own when a third of the time is left.
const (
	authorityLife = 20 * 365 * 24 * time.Hour
	hostLife      = 90 * 24 * time.Hour
	serverLife    = 90 * 24 * time.Hour
)

// Units in the subject of certificates: what the holder is.
const (
	unitHost   = "yakumo host"
	unitServer = "yakumo server"
)

// Authority issues the certificates of servers and hosts. It is made once per cloud and
// kept sealed in the store.
type Authority struct {
	cert *x509.Certificate
	key  crypto.Signer
	now  func() time.Time
}

const authoritySetting = "authority"

type authorityRow struct {
	Cert []byte `json:"cert"` // DER
	Key  []byte `json:"key"`  // sealed PKCS#8
}

// OpenAuthority gives the cloud's authority, and makes it where there is none yet.
func OpenAuthority(ctx context.Context, st *store.Store, seal Sealer, now func() time.Time) (*Authority, error) {
	if now == nil {
		now = time.Now
	}
	var a *Authority
	_, err := st.Update(ctx, func(tx *store.Tx) error {
		if row, ok := store.Settings.Get(tx, authoritySetting); ok {
			var err error
			a, err = loadAuthority(row.Value, seal, now)
			return err
		}
		fresh, value, err := newAuthority(seal, now)
		if err != nil {
			return err
		}
		a = fresh
		return store.Settings.Put(tx, &model.Setting{Name: authoritySetting, Value: value})
	})
	if err != nil {
		return nil, fmt.Errorf("certificate authority: %w", err)
	}
	return a, nil
}

func loadAuthority(value []byte, seal Sealer, now func() time.Time) (*Authority, error) {
	var row authorityRow
	if err := json.Unmarshal(value, &row); err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(row.Cert)
	if err != nil {
		return nil, err
	}
	der, err := seal.Unseal(authoritySetting, row.Key)
	if err != nil {
		return nil, fmt.Errorf("its key does not open; is this the cloud's master key? %w", err)
	}
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, err
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("its key is a %T", key)
	}
	return &Authority{cert: cert, key: signer, now: now}, nil
}

func newAuthority(seal Sealer, now func() time.Time) (*Authority, []byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	t := now()
	tmpl := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: "Yakumo certificate authority"},
		NotBefore: t.Add(-time.Hour), NotAfter: t.Add(authorityLife), IsCA: true, BasicConstraintsValid: true,
		MaxPathLenZero: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		return nil, nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, nil, err
	}
	pk, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, err
	}
	value, err := json.Marshal(authorityRow{Cert: der, Key: seal.Seal(authoritySetting, pk)})
	return &Authority{cert: cert, key: key, now: now}, value, err
}

func serial() *big.Int {
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		panic(err) // crypto/rand does not fail
	}
	return n
}

// Fingerprint is the SHA-256 of the authority's certificate in hex.
func (a *Authority) Fingerprint() string { return sum(a.cert.Raw) }

// Pool trusts this authority and nothing else.
func (a *Authority) Pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.cert)
	return p
}

func (a *Authority) sign(pub crypto.PublicKey, name pkix.Name, dns []string, life time.Duration, uses ...x509.ExtKeyUsage) (*x509.Certificate, error) {
	t := a.now()
	tmpl := &x509.Certificate{
		SerialNumber: serial(), Subject: name, DNSNames: dns,
		NotBefore: t.Add(-time.Hour), NotAfter: t.Add(life), BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: uses,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, pub, a.key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// parseRequest reads a signing request (PKCS#10, DER) and gives it with the SHA-256 of its public key.
func parseRequest(csr []byte) (*x509.CertificateRequest, string, error) {
	req, err := x509.ParseCertificateRequest(csr)
	if err != nil {
		return nil, "", fault.Wrap(fault.Invalid, err, "The certificate request is malformed.")
	}
	if err := req.CheckSignature(); err != nil {
		return nil, "", fault.Wrap(fault.Invalid, err, "The certificate request is not signed by its key.")
	}
	return req, sum(req.RawSubjectPublicKeyInfo), nil
}

// hostCertificate certifies the key of a signing request for the host.
func (a *Authority) hostCertificate(req *x509.CertificateRequest, host model.ID) (*x509.Certificate, error) {
	return a.sign(req.PublicKey, pkix.Name{CommonName: host, OrganizationalUnit: []string{unitHost}}, nil, hostLife, x509.ExtKeyUsageClientAuth)
}

// ServerTLS gives a server process a certificate of its own, and asks clients for theirs.
func (a *Authority) ServerTLS() (*tls.Config, error) {
	issue := func() (*tls.Certificate, error) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return nil, err
		}
		cert, err := a.sign(key.Public(), pkix.Name{CommonName: ServerName, OrganizationalUnit: []string{unitServer}}, []string{ServerName}, serverLife,
			x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth)
		if err != nil {
			return nil, err
		}
		// The chain carries the authority, so that a joining host can check its fingerprint.
		return &tls.Certificate{Certificate: [][]byte{cert.Raw, a.cert.Raw}, PrivateKey: key, Leaf: cert}, nil
	}
	own, err := newRotating(issue, a.now)
	if err != nil {
		return nil, err
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS13, ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: a.Pool(), RootCAs: a.Pool(),
		NextProtos: []string{"h2"}, ServerName: ServerName, Time: a.now,
		GetCertificate:       func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return own.get() },
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return own.get() },
	}, nil
}
