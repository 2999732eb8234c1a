package channel

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"yakumo/model"
)

// Credentials are a host's certificate and whom it trusts, as they are now. *link.Client has them.
type Credentials interface {
	Certificates() (own *tls.Certificate, trusted *x509.CertPool, err error)
}

// unitHost stands in every host's certificate, and in no server's.
const unitHost = "yakumo host"

// peerOf verifies the other end's certificate and gives its host id.
func peerOf(cs tls.ConnectionState, c Credentials, now time.Time) (model.ID, error) {
	if len(cs.PeerCertificates) == 0 {
		return "", errors.New("it shows no certificate")
	}
	_, pool, err := c.Certificates()
	if err != nil {
		return "", err
	}
	cert := cs.PeerCertificates[0]
	// Hosts' certificates are issued for clients. That they are of hosts is in their unit.
	_, err = cert.Verify(x509.VerifyOptions{Roots: pool, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	if err != nil {
		return "", err
	}
	if !slices.Contains(cert.Subject.OrganizationalUnit, unitHost) || cert.Subject.CommonName == "" {
		return "", fmt.Errorf("the certificate is of %q, no host", cert.Subject.CommonName)
	}
	return cert.Subject.CommonName, nil
}

// config is TLS of either side; check is told the other end's host id.
func config(c Credentials, now func() time.Time, check func(model.ID) error) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{"yakumo-channel"}, SessionTicketsDisabled: true,
		ClientAuth:         tls.RequireAnyClientCert,
		InsecureSkipVerify: true, // verified by VerifyConnection: by host id, not by name
		VerifyConnection: func(cs tls.ConnectionState) error {
			peer, err := peerOf(cs, c, now())
			if err != nil {
				return err
			}
			return check(peer)
		},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			cert, _, err := c.Certificates()
			return cert, err
		},
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			cert, _, err := c.Certificates()
			return cert, err
		},
	}
}
