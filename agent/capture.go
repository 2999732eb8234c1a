package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"yakumo/datapath"
	"yakumo/fault"
	"yakumo/model"
)

// Listener gives the frames that pass a device. Taps that can do it make captures possible.
type Listener interface {
	// Listen calls f for every frame that passes the device, in either direction, until ctx ends or the device is
	// gone. out: the host sent it into the device. f must not keep the bytes.
	Listen(ctx context.Context, device string, f func(frame []byte, out bool)) error
	// Holder gives the device that has an address.
	Holder(ctx context.Context, addr netip.Addr) (string, error)
}

// Bounds of captures.
const (
	maxSessions    = 16               // at once on a host
	sessionLife    = 10 * time.Second // without a question
	sessionFrames  = 4096             // that wait to be fetched
	sessionBytes   = 512 << 10        // of one answer, and of what waits
	maxCaptureWait = 5 * time.Second
)

// captures are the sessions that listen at ports for a server.
type captures struct {
	a *Agent

	wg       sync.WaitGroup // of those that listen
	mu       sync.Mutex
	sessions map[model.ID]*capture
}

func newCaptures(a *Agent) *captures {
	return &captures{a: a, sessions: map[model.ID]*capture{}}
}

// capture is one session.
type capture struct {
	cancel context.CancelFunc
	expiry *time.Timer
	query  model.CaptureQuery
	ready  chan struct{} // holds a value when there are frames

	mu     sync.Mutex
	answer model.CaptureAnswer
	bytes  int
}

// ask answers a question of a session.
func (c *captures) ask(ctx context.Context, q model.CaptureQuery) (model.CaptureAnswer, error) {
	if q.Session == "" || q.Wait < 0 || q.Wait > maxCaptureWait || q.SnapLen < 0 {
		return model.CaptureAnswer{}, fault.New(fault.Invalid, "The capture is malformed.")
	}
	s, err := c.session(q)
	if err != nil {
		return model.CaptureAnswer{}, err
	}
	if q.Stop {
		c.end(q.Session)
	} else if q.Wait > 0 {
		t := time.NewTimer(q.Wait)
		defer t.Stop()
		select {
		case <-s.ready:
		case <-t.C:
		case <-ctx.Done():
		}
	}
	return s.take(), nil
}

// session finds a session or begins it.
func (c *captures) session(q model.CaptureQuery) (*capture, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.sessions[q.Session]; s != nil {
		s.expiry.Reset(sessionLife)
		return s, nil
	}
	l, ok := c.a.cfg.Taps.(Listener)
	if !ok {
		return nil, fault.New(fault.NotImplemented, "This host cannot capture.")
	}
	if len(c.sessions) >= maxSessions {
		return nil, fault.New(fault.Conflict, "%d captures run on the host already. Try again when one has ended.", maxSessions)
	}
	ctx, cancel := context.WithCancel(context.Background())
	places, err := c.places(ctx, l, q)
	if err != nil {
		cancel()
		return nil, err
	}
	s := &capture{cancel: cancel, query: q, ready: make(chan struct{}, 1)}
	s.expiry = time.AfterFunc(sessionLife, func() { c.end(q.Session) })
	c.sessions[q.Session] = s
	for device, port := range places {
		c.wg.Go(func() {
			err := l.Listen(ctx, device, func(frame []byte, out bool) { s.note(port, frame, out) })
			if err != nil && ctx.Err() == nil {
				c.a.log.Debug("a capture ended", "device", device, "port", port, "err", err)
			}
		})
	}
	return s, nil
}

// places gives the devices to listen at, each with its port; "" is the underlay.
func (c *captures) places(ctx context.Context, l Listener, q model.CaptureQuery) (map[string]model.ID, error) {
	out := map[string]model.ID{}
	for _, id := range q.Ports {
		p := c.a.ledger.port(id)
		if p == nil {
			return nil, fault.New(fault.NotFound, "Port %s is not on this host.", id)
		}
		if p.Parent != "" { // its frames pass its parent's device, with a tag
			id = p.Parent
		}
		out[tapName(id)] = p.ID
	}
	if len(q.Ports) > 0 {
		return out, nil
	}
	for _, r := range c.a.ledger.all() {
		if p, ok := r.(*model.HostPort); ok && p.Parent == "" {
			out[tapName(p.ID)] = p.ID
		}
	}
	under, err := l.Holder(ctx, c.a.cfg.TunnelIP)
	if err != nil {
		return nil, err
	}
	out[under] = ""
	return out, nil
}

func (c *captures) end(session model.ID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.sessions[session]; s != nil {
		s.expiry.Stop()
		s.cancel()
		delete(c.sessions, session)
	}
}

// close ends all sessions.
func (c *captures) close() {
	c.mu.Lock()
	for id, s := range c.sessions {
		s.expiry.Stop()
		s.cancel()
		delete(c.sessions, id)
	}
	c.mu.Unlock()
	c.wg.Wait()
}

// note takes a frame in.
func (s *capture) note(port model.ID, frame []byte, out bool) {
	if len(s.query.Token) > 0 && !bytes.Contains(frame, s.query.Token) {
		return
	}
	keep := len(frame)
	if s.query.SnapLen > 0 {
		keep = min(keep, s.query.SnapLen)
	}
	f := model.CapturedFrame{Port: port, ToGuest: out, At: time.Now().UTC(), Size: len(frame), Data: bytes.Clone(frame[:keep])}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.answer.Frames) >= sessionFrames || s.bytes+keep > sessionBytes {
		s.answer.Lost++
		return
	}
	s.answer.Frames = append(s.answer.Frames, f)
	s.bytes += keep
	select {
	case s.ready <- struct{}{}:
	default:
	}
}

// take gives what has come and forgets it.
func (s *capture) take() model.CaptureAnswer {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.answer
	s.answer, s.bytes = model.CaptureAnswer{}, 0
	return a
}

// inject sends a frame as a port's guest would.
func (a *Agent) inject(ctx context.Context, q model.InjectQuery) error {
	d, ok := a.cfg.Datapath.(datapath.Injector)
	if !ok {
		return fault.New(fault.NotImplemented, "The data path of this host cannot send a packet for a port.")
	}
	if a.ledger.port(q.Port) == nil {
		return fault.New(fault.NotFound, "Port %s is not on this host.", q.Port)
	}
	const header = 14
	if len(q.Frame) < header || len(q.Frame) > 64<<10 {
		return fault.New(fault.Invalid, "A frame has from %d bytes to 64 KiB.", header)
	}
	return d.Inject(ctx, q.Port, q.Frame)
}

// question decodes a question, asks it, and encodes the answer.
func question[Q, A any](body []byte, ask func(Q) (A, error)) ([]byte, error) {
	var q Q
	if err := json.Unmarshal(body, &q); err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "The question is malformed.")
	}
	out, err := ask(q)
	if err != nil {
		return nil, err
	}
	return json.Marshal(out)
}

// Listen implements Listener: a packet socket (packet(7)) on the device.
func (k KernelTaps) Listen(ctx context.Context, device string, f func(frame []byte, out bool)) error {
	fd := -1
	err := k.inside(func() error {
		l, err := netlink.LinkByName(device)
		if err != nil {
			return fmt.Errorf("find %s: %w", device, err)
		}
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0) // hears nothing until it is bound
		if err != nil {
			return fmt.Errorf("open packet socket: %w", err)
		}
		const all = unix.ETH_P_ALL>>8 | unix.ETH_P_ALL&0xff<<8
		if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: l.Attrs().Index}); err != nil {
			return errors.Join(fmt.Errorf("listen at %s: %w", device, err), unix.Close(fd))
		}
		return nil
	})
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	buf := make([]byte, 64<<10)
	for ctx.Err() == nil {
		const look = 100 // ms until the context is looked at
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, look)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("wait for frames of %s: %w", device, err)
		}
		if n < 1 {
			continue
		}
		size, from, err := unix.Recvfrom(fd, buf, unix.MSG_DONTWAIT)
		switch {
		case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return fmt.Errorf("read frames of %s: %w", device, err)
		}
		ll, ok := from.(*unix.SockaddrLinklayer)
		f(buf[:size], ok && ll.Pkttype == unix.PACKET_OUTGOING)
	}
	return nil
}

// Holder implements Listener.
func (k KernelTaps) Holder(_ context.Context, addr netip.Addr) (name string, err error) {
	err = k.inside(func() error {
		l, err := holder(addr)
		if err == nil {
			name = l.Attrs().Name
		}
		return err
	})
	return name, err
}
