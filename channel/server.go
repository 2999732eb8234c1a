package channel

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"sync"
	"time"

	"yakumo/fault"
	"yakumo/model"
)

// Handler serves one connection of a service. peer is the host id in the caller's certificate; whether that host may is
// for the handler to judge, by what its own host was told. An error that it returns before it has read or written is
// what the caller's Dial gives, with its kind and text; after that, the caller's connection breaks. When it returns nil the
// connection is closed in good order. ctx ends with the server.
type Handler func(ctx context.Context, peer model.ID, args json.RawMessage, conn net.Conn) error

// patience is how long either side may take to say who it is and what it wants.
const patience = 10 * time.Second

// maxConnections bounds the connections of a server: each costs memory before its caller is known.
const maxConnections = 2048

// ServerConfig makes a Server.
type ServerConfig struct {
	Credentials Credentials
	Log         *slog.Logger     // default slog.Default
	Now         func() time.Time // the clock by which certificates are judged; default time.Now
}

// Server answers other hosts.
type Server struct {
	cfg ServerConfig

	mu       sync.Mutex
	handlers map[string]Handler
}

// NewServer makes a Server without services.
func NewServer(cfg ServerConfig) *Server {
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Server{cfg: cfg, handlers: map[string]Handler{}}
}

// Handle has h serve a service from now on.
func (s *Server) Handle(service string, h Handler) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.handlers[service] = h
}

// Serve answers at ln until ctx ends, and returns once no handler runs any more. It closes ln.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer ln.Close() // whoever listens there next must not have to wait for the line below
	defer context.AfterFunc(ctx, func() { ln.Close() })()
	room := make(chan struct{}, maxConnections)
	for {
		c, err := ln.Accept()
		if ctx.Err() != nil {
			if err == nil {
				c.Close()
			}
			return ctx.Err()
		}
		var temporary interface{ Temporary() bool }
		switch {
		case err == nil:
		case errors.As(err, &temporary) && temporary.Temporary(): // out of descriptors, for one
			s.cfg.Log.Warn("another host's connection cannot be taken", "err", err)
			select {
			case <-time.After(100 * time.Millisecond):
			case <-ctx.Done():
			}
			continue
		default:
			return err
		}
		select {
		case room <- struct{}{}:
		default:
			s.cfg.Log.Warn("too many connections of other hosts; one is refused", "from", c.RemoteAddr())
			c.Close()
			continue
		}
		wg.Go(func() {
			defer func() { <-room }()
			s.serve(ctx, c)
		})
	}
}

// serve is one connection, from handshake to end.
func (s *Server) serve(ctx context.Context, raw net.Conn) {
	defer raw.Close()
	defer context.AfterFunc(ctx, func() { raw.Close() })()
	tune(raw)
	var peer model.ID
	w := newWire(raw)
	tc := tls.Server(w, config(s.cfg.Credentials, s.cfg.Now, func(id model.ID) error { peer = id; return nil }))
	log := s.cfg.Log.With("from", raw.RemoteAddr())
	raw.SetDeadline(time.Now().Add(patience))
	if err := tc.HandshakeContext(ctx); err != nil {
		if ctx.Err() == nil {
			log.Warn("a connection that is no host's is refused", "err", err)
		}
		return
	}
	log = log.With("peer", peer)
	var h head
	if err := readHead(tc, &h); err != nil {
		log.Warn("another host's call cannot be read", "err", err)
		return
	}
	raw.SetDeadline(time.Time{})
	s.mu.Lock()
	handler := s.handlers[h.Service]
	s.mu.Unlock()
	c := &serverConn{secured: secured{Conn: tc, wire: w}}
	err := error(fault.New(fault.NotImplemented, "This host offers no service %q.", h.Service))
	if handler != nil {
		err = handler(ctx, peer, h.Args, c)
	}
	switch {
	case err == nil:
		if err = c.accept(); err == nil {
			err = tc.Close() // an end in good order
		}
		if err != nil && ctx.Err() == nil && !errors.Is(err, net.ErrClosed) {
			log.Debug("another host's connection did not end in good order", "service", h.Service, "err", err)
		}
	case c.refuse(err):
		log.Info("another host's call is refused", "service", h.Service, "err", err)
	case ctx.Err() == nil:
		log.Warn("another host's call was cut off", "service", h.Service, "err", err)
	}
}

// serverConn answers "go on" when its handler begins to use it.
type serverConn struct {
	secured

	mu       sync.Mutex
	answered bool
	err      error
}

func (c *serverConn) answer(a answer) (first bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.answered {
		return false, c.err
	}
	c.answered = true
	c.Conn.SetWriteDeadline(time.Now().Add(patience))
	c.err = writeHead(c.Conn, a)
	c.Conn.SetWriteDeadline(time.Time{})
	return true, c.err
}

func (c *serverConn) accept() error {
	_, err := c.answer(answer{})
	return err
}

// refuse answers with a fault, and tells whether it was not too late for that.
func (c *serverConn) refuse(err error) bool {
	first, sent := c.answer(refusal(err))
	if first && sent == nil {
		c.Conn.Close()
	}
	return first
}

func (c *serverConn) Read(b []byte) (int, error) {
	if err := c.accept(); err != nil {
		return 0, err
	}
	return c.secured.Read(b)
}

func (c *serverConn) Write(b []byte) (int, error) {
	if err := c.accept(); err != nil {
		return 0, err
	}
	return c.secured.Write(b)
}

// CloseWrite ends the bytes of this direction: the caller reads io.EOF.
func (c *serverConn) CloseWrite() error {
	if err := c.accept(); err != nil {
		return err
	}
	return c.Conn.CloseWrite()
}

// Close is for a handler that is done before it returns.
func (c *serverConn) Close() error {
	if err := c.accept(); err != nil {
		return err
	}
	return c.secured.Close()
}
