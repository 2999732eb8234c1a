package channel

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"yakumo/fault"
	"yakumo/model"
)

// Dialer calls other hosts. The zero value of what is beside Credentials is good.
type Dialer struct {
	Credentials Credentials
	Now         func() time.Time // the clock by which certificates are judged; default time.Now
	// Reach opens a connection to where another host's channel listens; default TCP.
	Reach func(ctx context.Context, at netip.AddrPort) (net.Conn, error)
}

// Dial calls a service of another host and returns when its handler has taken the call. The connection's bytes are the
// service's; CloseWrite (a HalfCloser) ends one direction. It lives until Close, whatever becomes of ctx.
//
// Errors: fault.Unavailable where the host cannot be reached, or who answers there is not that host; what its handler returned
// otherwise.
func (d *Dialer) Dial(ctx context.Context, at model.HostAt, service string, args any) (net.Conn, error) {
	body, err := json.Marshal(args)
	if err != nil {
		return nil, fmt.Errorf("arguments of %s: %w", service, err)
	}
	if !at.Channel.IsValid() {
		return nil, fault.New(fault.Unavailable, "The other host does not say where other hosts reach it.")
	}
	unreached := func(err error) error {
		return fault.Wrap(fault.Unavailable, err, "The other host cannot be reached.")
	}
	dctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	reach := d.Reach
	if reach == nil {
		reach = func(ctx context.Context, at netip.AddrPort) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", at.String())
		}
	}
	raw, err := reach(dctx, at.Channel)
	if err != nil {
		return nil, unreached(err)
	}
	tune(raw)
	now := d.Now
	if now == nil {
		now = time.Now
	}
	w := newWire(raw)
	tc := tls.Client(w, config(d.Credentials, now, func(id model.ID) error {
		if id != at.HostID {
			return fmt.Errorf("host %s answers there, not %s", id, at.HostID)
		}
		return nil
	}))
	if err := tc.HandshakeContext(dctx); err != nil {
		raw.Close()
		return nil, unreached(err)
	}
	// The handler may have to look at its own host first: as long as ctx lasts.
	stop := context.AfterFunc(ctx, func() { raw.Close() })
	var a answer
	raw.SetWriteDeadline(time.Now().Add(patience))
	err = writeHead(tc, head{Service: service, Args: body})
	if err == nil {
		err = readHead(tc, &a)
	}
	raw.SetWriteDeadline(time.Time{})
	if !stop() && err == nil {
		err = ctx.Err()
	}
	switch refused := a.err(); {
	case err != nil && fault.Is(err, fault.Invalid):
	case err != nil:
		err = unreached(err)
	case refused != nil:
		err = refused
	default:
		return &secured{Conn: tc, wire: w}, nil
	}
	raw.Close()
	return nil, err
}

// A connection whose other end is silent to the kernel's questions for so long is broken.
const (
	keepIdle    = 5 * time.Second
	keepPause   = 2 * time.Second
	keepCount   = 5
	userTimeout = keepIdle + keepCount*keepPause
)

// tune has a connection break by itself when its other end, or the way there, is dead.
func tune(c net.Conn) {
	t, ok := c.(*net.TCPConn)
	if !ok {
		return
	}
	// These only hasten the end of what is dead: a system that refuses them has its own times.
	_ = t.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: keepIdle, Interval: keepPause, Count: keepCount})
	raw, err := t.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(userTimeout/time.Millisecond))
	})
}
