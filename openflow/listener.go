package openflow

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

// maxHandshakes bounds how many peers of a Listener may be shaking hands at once.
const maxHandshakes = 64

// Listener takes connections from switches. A peer that is slow to shake hands holds up no
// other; one that fails is logged and forgotten.
type Listener struct {
	cfg    Config
	ln     net.Listener
	ready  chan *Conn
	slots  chan struct{}
	ctx    context.Context
	cancel context.CancelCauseFunc
	wg     sync.WaitGroup
}

// Listen opens an address for switches: unix:PATH, tcp:HOST:PORT or tls:HOST:PORT, which
// needs cfg.TLS. Port 0 picks a free one. ctx bounds the opening only.
func Listen(ctx context.Context, addr string, cfg Config) (*Listener, error) {
	cfg = cfg.withDefaults()
	network, rest, useTLS, err := splitAddr(addr)
	if err != nil {
		return nil, err
	}
	if useTLS && cfg.TLS == nil {
		return nil, errors.New("openflow: a tls: address needs a TLS configuration")
	}
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, network, rest)
	if err != nil {
		return nil, fmt.Errorf("listen for switches at %s: %w", addr, err)
	}
	if useTLS {
		ln = tls.NewListener(ln, cfg.TLS)
	}
	l := &Listener{cfg: cfg, ln: ln, ready: make(chan *Conn), slots: make(chan struct{}, maxHandshakes)}
	l.ctx, l.cancel = context.WithCancelCause(context.Background())
	l.wg.Add(1)
	go l.acceptLoop()
	return l, nil
}

// Addr is the address that switches connect to.
func (l *Listener) Addr() net.Addr { return l.ln.Addr() }

// Accept gives the next switch that has shaken hands.
func (l *Listener) Accept(ctx context.Context) (*Conn, error) {
	select {
	case c := <-l.ready:
		return c, nil
	case <-l.ctx.Done():
		return nil, context.Cause(l.ctx)
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// Close stops listening and waits for its goroutines. Connections that Accept gave out live on.
func (l *Listener) Close() error {
	l.cancel(ErrClosed)
	err := l.ln.Close()
	l.wg.Wait()
	if errors.Is(err, net.ErrClosed) {
		err = nil
	}
	return err
}

func (l *Listener) acceptLoop() {
	defer l.wg.Done()
	for {
		select {
		case l.slots <- struct{}{}:
		case <-l.ctx.Done():
			return
		}
		nc, err := l.ln.Accept()
		if err == nil {
			l.wg.Add(1)
			go l.shake(nc)
			continue
		}
		<-l.slots
		if errors.Is(err, net.ErrClosed) {
			l.cancel(fmt.Errorf("accept switch: %w", err))
			return
		}
		// Out of descriptors, or the peer gave up: neither ends the listener, but the first
		// would spin.
		l.cfg.Logger.Warn("accept of a switch failed", "error", err)
		select {
		case <-time.After(100 * time.Millisecond):
		case <-l.ctx.Done():
			return
		}
	}
}

func (l *Listener) shake(nc net.Conn) {
	defer l.wg.Done()
	c, err := NewConn(l.ctx, nc, l.cfg)
	<-l.slots
	if err != nil {
		l.cfg.Logger.Warn("switch did not shake hands", "peer", nc.RemoteAddr().String(), "error", err)
		return
	}
	select {
	case l.ready <- c:
	case <-l.ctx.Done():
		l.refuse(c)
	case <-c.Done(): // gone before anyone took it
		l.refuse(c)
	}
}

func (l *Listener) refuse(c *Conn) {
	if err := c.Close(); err != nil {
		l.cfg.Logger.Debug("close of switch connection", "error", err)
	}
}
