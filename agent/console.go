package agent

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"sync"

	"yakumo/fault"
	"yakumo/hypervisor"
	"yakumo/link"
	"yakumo/model"
)

var _ link.Opener = (*Agent)(nil)

// Open implements link.Opener. The services are "serial", a guest's first serial port, and "display", its screen in
// RFB (RFC 6143); args are a model.ConsoleQuery.
func (a *Agent) Open(ctx context.Context, service string, args []byte) (io.ReadWriteCloser, error) {
	var q model.ConsoleQuery
	if err := json.Unmarshal(args, &q); err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "The question is malformed.")
	}
	if row := a.ledger.server(q.ServerID); row == nil || row.Deleted {
		return nil, fault.New(fault.NotFound, "Instance %s could not be found.", q.ServerID)
	}
	switch service {
	case "serial":
		return a.serials.open(ctx, q.ServerID)
	case "display":
		d, ok := a.cfg.Hypervisor.(hypervisor.Displayer)
		if !ok || a.cfg.NoDisplay {
			return nil, fault.New(fault.NotImplemented, "The hypervisor of this host shows no screens.")
		}
		return d.Display(ctx, q.ServerID)
	}
	return nil, fault.New(fault.NotImplemented, "This host does not know the service %q.", service)
}

// serials shares guests' serial ports: a hypervisor opens each once, and all who look see the same and may write,
// as people at one terminal.
type serials struct {
	a     *Agent
	mu    sync.Mutex
	lines map[model.ID]*serialLine
}

func newSerials(a *Agent) *serials { return &serials{a: a, lines: map[model.ID]*serialLine{}} }

// serialLine is an open serial port.
type serialLine struct {
	opening sync.Mutex
	port    io.ReadWriteCloser // nil: not open yet
	over    bool
	users   map[*serialUser]bool // under serials.mu
}

// open gives one more end of a guest's serial port.
func (s *serials) open(ctx context.Context, id model.ID) (*serialUser, error) {
	c, ok := s.a.cfg.Hypervisor.(hypervisor.Consoler)
	if !ok {
		return nil, fault.New(fault.NotImplemented, "The hypervisor of this host has no serial consoles.")
	}
	for {
		s.mu.Lock()
		l := s.lines[id]
		if l == nil {
			l = &serialLine{users: map[*serialUser]bool{}}
			s.lines[id] = l
		}
		s.mu.Unlock()
		u, err := s.join(ctx, c, id, l)
		if u != nil || err != nil {
			return u, err
		}
	}
}

// join adds a user to a line; neither a user nor an error where the line is over.
func (s *serials) join(ctx context.Context, c hypervisor.Consoler, id model.ID, l *serialLine) (*serialUser, error) {
	l.opening.Lock()
	defer l.opening.Unlock()
	u := &serialUser{s: s, id: id, line: l}
	u.more = sync.NewCond(&u.mu)
	if l.port == nil && !l.over {
		port, err := c.Console(ctx, id)
		if err != nil {
			s.end(id, l, err)
			return nil, err
		}
		s.mu.Lock()
		l.port = port
		l.users[u] = true
		s.mu.Unlock()
		go s.read(id, l)
		return u, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if l.over {
		return nil, nil
	}
	l.users[u] = true
	return u, nil
}

// read hands what the guest writes to everybody, until the port ends.
func (s *serials) read(id model.ID, l *serialLine) {
	buf := make([]byte, 8<<10)
	for {
		n, err := l.port.Read(buf)
		s.mu.Lock()
		for u := range l.users {
			u.feed(buf[:n])
		}
		s.mu.Unlock()
		if err != nil {
			s.end(id, l, err)
			return
		}
	}
}

// end ends a line for all its users.
func (s *serials) end(id model.ID, l *serialLine, why error) {
	if errors.Is(why, net.ErrClosed) {
		why = io.EOF
	}
	s.mu.Lock()
	l.over = true
	if s.lines[id] == l {
		delete(s.lines, id)
	}
	users := l.users
	l.users = nil
	s.mu.Unlock()
	for u := range users {
		u.finish(why)
	}
	if l.port != nil {
		l.port.Close() // nobody is left to be told
	}
}

// leave takes a user off a line; the last one closes the port.
func (s *serials) leave(u *serialUser) {
	s.mu.Lock()
	delete(u.line.users, u)
	last := !u.line.over && len(u.line.users) == 0
	if last {
		u.line.over = true
		if s.lines[u.id] == u.line {
			delete(s.lines, u.id)
		}
	}
	s.mu.Unlock()
	if last {
		u.line.port.Close() // its reader ends with it
	}
}

// serialBacklog is how much output waits for a user who is slow, in bytes; as on a real line, what does not fit is lost.
const serialBacklog = 256 << 10

// serialUser is one end of a shared serial port.
type serialUser struct {
	s    *serials
	id   model.ID
	line *serialLine

	mu   sync.Mutex
	more *sync.Cond
	buf  []byte
	err  error // what Read says after buf
}

func (u *serialUser) feed(b []byte) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.buf = append(u.buf, b[:min(len(b), serialBacklog-len(u.buf))]...)
	u.more.Broadcast()
}

func (u *serialUser) finish(why error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.err == nil {
		u.err = why
	}
	u.more.Broadcast()
}

// Read implements io.Reader: io.EOF once the guest has stopped.
func (u *serialUser) Read(b []byte) (int, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for len(u.buf) == 0 && u.err == nil {
		u.more.Wait()
	}
	if len(u.buf) == 0 {
		return 0, u.err
	}
	n := copy(b, u.buf)
	u.buf = u.buf[n:]
	return n, nil
}

// Write implements io.Writer.
func (u *serialUser) Write(b []byte) (int, error) {
	u.mu.Lock()
	err := u.err
	u.mu.Unlock()
	if err != nil {
		return 0, io.ErrClosedPipe
	}
	return u.line.port.Write(b)
}

// Close implements io.Closer.
func (u *serialUser) Close() error {
	u.finish(net.ErrClosed)
	u.s.leave(u)
	return nil
}
