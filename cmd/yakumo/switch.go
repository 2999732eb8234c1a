package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
)

// switchTLS is what switches at ssl: addresses are reached with; nil where nothing is set: such
// a switch cannot be reached then.
func (c *serverCmd) switchTLS() (*tls.Config, error) {
	if c.SwitchCA == "" && c.SwitchCert == "" && c.SwitchKey == "" {
		return nil, nil
	}
	pem, err := os.ReadFile(c.SwitchCA)
	if err != nil {
		return nil, fmt.Errorf("authority of switches: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, errors.New("--switch-ca holds no certificate")
	}
	cert, err := tls.LoadX509KeyPair(c.SwitchCert, c.SwitchKey)
	if err != nil {
		return nil, fmt.Errorf("certificate for switches: %w", err)
	}
	return &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: pool, Certificates: []tls.Certificate{cert}}, nil
}
