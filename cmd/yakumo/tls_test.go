package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// writePair writes a certificate for 127.0.0.1, and for more, that signs itself.
func writePair(t *testing.T, dir string, serial int64, at time.Time, more ...net.IP) (cert, key string, pool *x509.CertPool) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "test"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), IPAddresses: append(more, net.IPv4(127, 0, 0, 1)), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, k.Public(), k)
	if err != nil {
		t.Fatal(err)
	}
	pk, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	cert, key = filepath.Join(dir, "api.crt"), filepath.Join(dir, "api.key")
	for path, b := range map[string]*pem.Block{key: {Type: "PRIVATE KEY", Bytes: pk}, cert: {Type: "CERTIFICATE", Bytes: der}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(b), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, at, at); err != nil {
			t.Fatal(err)
		}
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool = x509.NewCertPool()
	pool.AddCert(parsed)
	return cert, key, pool
}

func TestAPIOverTLS(t *testing.T) {
	t.Parallel() // servers wait for their etcd, and tests for servers
	dir := t.TempDir()
	cert, key, pool := writePair(t, dir, 1, time.Now().Add(-time.Minute))
	sh, p := newShared(t, nil), newProc(t, "tls")
	p.start(sh, func(cmd *exec.Cmd) { cmd.Args = append(cmd.Args, "--tls-cert", cert, "--tls-key", key) })
	// fresh asks on a connection of its own.
	fresh := func(pool *x509.CertPool) bool {
		c := &http.Client{Timeout: patience, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, DisableKeepAlives: true}}
		resp, err := c.Get("https://" + p.api + "/healthz")
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	}
	p.until(patience, "healthy over TLS", func() bool { return fresh(pool) })
	if code, _, _ := p.get("http://"+p.api+"/healthz", ""); code == http.StatusOK {
		t.Error("the API answers in clear text too")
	}
	_, _, renewed := writePair(t, dir, 2, time.Now())
	p.until(patience, "using the new certificate", func() bool { return fresh(renewed) })
	if err := os.WriteFile(cert, []byte("not a certificate"), 0o600); err != nil {
		t.Fatal(err)
	}
	if !fresh(renewed) {
		t.Error("a broken file took the API's certificate away")
	}
}
