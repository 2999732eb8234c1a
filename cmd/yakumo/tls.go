package main

import (
	"crypto/tls"
	"fmt"
	"os"
	"sync"
	"time"
)

// certFile is a certificate in files that may be replaced while it is used, as certificate
// clients do: it is read again when its file has changed. A pair that cannot be read leaves
// the one before in use.
type certFile struct {
	cert, key string

	mu   sync.Mutex
	at   time.Time // modification time of the file that was read
	pair *tls.Certificate
}

// openCert reads the pair for the first time.
func openCert(cert, key string) (*certFile, error) {
	c := &certFile{cert: cert, key: key}
	if _, err := c.get(nil); err != nil {
		return nil, err
	}
	return c, nil
}

// get serves tls.Config.GetCertificate.
func (c *certFile) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	st, err := os.Stat(c.cert)
	if err == nil && c.pair != nil && st.ModTime().Equal(c.at) {
		return c.pair, nil
	}
	var pair tls.Certificate
	if err == nil {
		pair, err = tls.LoadX509KeyPair(c.cert, c.key)
	}
	switch {
	case err == nil:
		c.pair, c.at = &pair, st.ModTime()
	case c.pair == nil:
		return nil, fmt.Errorf("certificate of the API: %w", err)
	}
	return c.pair, nil
}
