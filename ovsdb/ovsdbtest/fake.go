package ovsdbtest

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"sync"
	"testing"
)

// A Request is what a client asks a Fake: a request, a notification (ID null), or a reply to what the
// Fake asked (Method "").
type Request struct {
	ID     json.RawMessage   `json:"id"`
	Method string            `json:"method"`
	Params []json.RawMessage `json:"params"`
	Result json.RawMessage   `json:"result"`
	Error  json.RawMessage   `json:"error"`
}

// A Peer is one connection to a Fake.
type Peer struct {
	// N counts the connections from 1.
	N  int
	nc net.Conn
	mu sync.Mutex
}

// Send writes text as it is. A client that has gone is not an error.
func (p *Peer) Send(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, _ = fmt.Fprintf(p.nc, format, args...) // the client's end is the test's to judge
}

// Reply answers a request with a result in JSON.
func (p *Peer) Reply(r Request, result string) {
	p.Send(`{"id":%s,"result":%s,"error":null}`, r.ID, result)
}

// Refuse answers a request with an error in JSON.
func (p *Peer) Refuse(r Request, err string) {
	p.Send(`{"id":%s,"result":null,"error":%s}`, r.ID, err)
}

// Close ends the connection.
func (p *Peer) Close() { _ = p.nc.Close() }

// A Fake is a database server that does what a function says.
type Fake struct {
	Address string
}

// NewFake starts a Fake on a unix socket. It calls handle for each request, one at a time
// for each connection.
func NewFake(t testing.TB, handle func(*Peer, Request)) *Fake {
	t.Helper()
	path := filepath.Join(t.TempDir(), "db.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	var mu sync.Mutex
	var peers []*Peer
	all.Add(1)
	go func() {
		defer all.Done()
		for n := 1; ; n++ {
			nc, err := l.Accept()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil {
				t.Errorf("fake server: %v", err)
				return
			}
			p := &Peer{N: n, nc: nc}
			mu.Lock()
			peers = append(peers, p)
			mu.Unlock()
			all.Add(1)
			go func() {
				defer all.Done()
				defer p.Close()
				d := json.NewDecoder(nc)
				for {
					var r Request
					if err := d.Decode(&r); err != nil {
						return // the client has gone
					}
					handle(p, r)
				}
			}()
		}
	}()
	t.Cleanup(func() {
		_ = l.Close()
		mu.Lock()
		for _, p := range peers {
			p.Close()
		}
		mu.Unlock()
		all.Wait()
	})
	return &Fake{Address: "unix:" + path}
}
