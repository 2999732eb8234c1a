package agent

import (
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/time/rate"
)

// connsPerGuest is how many connections one guest may hold to one of the host's services.
const connsPerGuest = 64

// fairListener keeps one guest from taking all connections: each address, which is one guest's alone, has
// a share, and what is above it is closed at once.
type fairListener struct {
	net.Listener
	mu   sync.Mutex
	open map[netip.Addr]int
}

func fair(l net.Listener) *fairListener {
	return &fairListener{Listener: l, open: map[netip.Addr]int{}}
}

// Accept implements net.Listener.
func (f *fairListener) Accept() (net.Conn, error) {
	for {
		c, err := f.Listener.Accept()
		if err != nil {
			return nil, err
		}
		from, err := netip.ParseAddrPort(c.RemoteAddr().String())
		if err == nil && f.enter(from.Addr()) {
			return &fairConn{Conn: c, leave: sync.OnceFunc(func() { f.leave(from.Addr()) })}, nil
		}
		c.Close()
	}
}

func (f *fairListener) enter(a netip.Addr) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.open[a] >= connsPerGuest {
		return false
	}
	f.open[a]++
	return true
}

func (f *fairListener) leave(a netip.Addr) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.open[a]--; f.open[a] == 0 {
		delete(f.open, a)
	}
}

type fairConn struct {
	net.Conn
	leave func()
}

// Close implements net.Conn.
func (c *fairConn) Close() error {
	c.leave()
	return c.Conn.Close()
}

// fairReader drops what a guest asks too often as soon as it is read, before it costs a goroutine.
type fairReader struct {
	dns.Reader
	s *dnsService
}

// ReadUDP implements dns.Reader.
func (r fairReader) ReadUDP(conn *net.UDPConn, timeout time.Duration) ([]byte, *dns.SessionUDP, error) {
	for {
		b, from, err := r.Reader.ReadUDP(conn, timeout)
		if err != nil {
			return b, from, err
		}
		a, err := netip.ParseAddrPort(from.RemoteAddr().String())
		if err == nil && r.s.rates.allow(a.Addr(), time.Now()) {
			return b, from, nil
		}
		r.s.dropped.Add(1)
	}
}

// rates holds each guest's address to a rate.
type rates struct {
	mu   sync.Mutex
	seen map[netip.Addr]*paced
}

type paced struct {
	limit *rate.Limiter
	last  time.Time
}

// maxPaced is how many addresses are remembered before those that have been quiet for long are forgotten.
const maxPaced = 2048

func (r *rates) allow(a netip.Addr, now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.seen[a]
	if p == nil {
		if len(r.seen) >= maxPaced {
			for o, q := range r.seen {
				if now.Sub(q.last) > time.Minute { // its bucket is full again
					delete(r.seen, o)
				}
			}
		}
		p = &paced{limit: rate.NewLimiter(dnsRate, dnsBurst)}
		r.seen[a] = p
	}
	p.last = now
	return p.limit.AllowN(now, 1)
}
