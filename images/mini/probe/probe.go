// Package probe asks whether addresses can be reached, many at once, and answers such questions.
// It is the tool that reachability is measured with from inside: the guest image yakumo-mini has
// it as `probe`, and the lab's machines have it too.
//
// An answer says who gave it and whom it saw asking, so that a translated address shows. The
// package owns nothing, opens sockets only, and imports nothing else of this module.
package probe

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Protocols of a Target.
const (
	TCP  = "tcp"
	UDP  = "udp"
	ICMP = "icmp" // an echo request; ICMPv6 where the address is IPv6
)

// Service is what is asked for, whatever the address: a protocol, and a port but for ICMP.
type Service struct {
	Proto string
	Port  uint16
}

// ParseService reads "tcp:80", "udp:53" or "icmp".
func ParseService(s string) (Service, error) {
	proto, port, hasPort := strings.Cut(s, ":")
	n, err := strconv.ParseUint(port, 10, 16)
	switch {
	case proto == ICMP && !hasPort:
		return Service{Proto: ICMP}, nil
	case (proto == TCP || proto == UDP) && err == nil && n > 0:
		return Service{proto, uint16(n)}, nil
	}
	return Service{}, fmt.Errorf("%q is none of icmp, tcp:PORT and udp:PORT", s)
}

// String is the form that ParseService reads.
func (s Service) String() string {
	if s.Proto == ICMP {
		return ICMP
	}
	return s.Proto + ":" + strconv.Itoa(int(s.Port))
}

// Target is a service at an address.
type Target struct {
	Service
	Addr netip.Addr
}

// String is "SERVICE ADDRESS".
func (t Target) String() string { return t.Service.String() + " " + t.Addr.String() }

// Result is what came of a question.
type Result struct {
	Target
	// Reached tells that the service answered. A port where nobody listens is not reached, though
	// its refusal is an answer too: Why says "refused".
	Reached bool
	// By is the name of who answered, Saw the address that it saw asking; both but for ICMP.
	By  string
	Saw netip.Addr
	// Why it was not reached: "silence", "refused", or an error in the system's words.
	Why  string
	Took time.Duration
}

// String is a line: "yes tcp:80 10.0.0.5 by web-1 saw 10.0.0.9 in 1.2ms", or "no SERVICE ADDRESS WHY".
func (r Result) String() string {
	switch {
	case !r.Reached:
		return fmt.Sprintf("no %s %s", r.Target, r.Why)
	case r.Saw.IsValid():
		return fmt.Sprintf("yes %s by %s saw %s in %s", r.Target, r.By, r.Saw, r.Took.Round(100*time.Microsecond))
	}
	return fmt.Sprintf("yes %s in %s", r.Target, r.Took.Round(100*time.Microsecond))
}

// ParseResult reads what String wrote, but for the time.
func ParseResult(line string) (Result, error) {
	f := strings.SplitN(strings.TrimSpace(line), " ", 4)
	bad := fmt.Errorf("%q is no result of a probe", line)
	if len(f) != 4 || (f[0] != "yes" && f[0] != "no") {
		return Result{}, bad
	}
	r := Result{Reached: f[0] == "yes"}
	var err error
	if r.Service, err = ParseService(f[1]); err != nil {
		return r, err
	}
	if r.Addr, err = netip.ParseAddr(f[2]); err != nil {
		return r, err
	}
	if !r.Reached {
		r.Why = f[3]
		return r, nil
	}
	if rest, ok := strings.CutPrefix(f[3], "by "); ok {
		words := strings.Fields(rest)
		if len(words) != 5 || words[1] != "saw" {
			return r, bad
		}
		r.By = words[0]
		r.Saw, err = netip.ParseAddr(words[2])
	}
	return r, err
}

// atOnce bounds the questions under way, so that a guest with little memory can ask many.
const atOnce = 128

// Ask asks every target, each at most for the patience, and gives the results in the order of
// the targets. Datagrams are sent three times within it, for one may be lost to nobody's fault.
func Ask(ctx context.Context, targets []Target, patience time.Duration) []Result {
	out := make([]Result, len(targets))
	slots := make(chan struct{}, atOnce)
	var wg sync.WaitGroup
	for i, t := range targets {
		slots <- struct{}{}
		wg.Go(func() {
			out[i] = ask(ctx, t, patience)
			<-slots
		})
	}
	wg.Wait()
	return out
}

func ask(ctx context.Context, t Target, patience time.Duration) Result {
	r := Result{Target: t}
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var said string
	var err error
	switch t.Proto {
	case ICMP:
		err = echo(ctx, t.Addr)
	default:
		said, err = greet(ctx, t)
	}
	r.Took = time.Since(began)
	if err == nil && t.Proto != ICMP {
		r.By, r.Saw, err = parseGreeting(said)
	}
	if err != nil {
		r.Why = reason(err)
		return r
	}
	r.Reached = true
	return r
}

// reason is why nothing came, in one line.
func reason(err error) string {
	var timeout net.Error
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return "refused"
	case errors.As(err, &timeout) && timeout.Timeout(), errors.Is(err, context.DeadlineExceeded):
		return "silence"
	}
	var sys syscall.Errno
	if errors.As(err, &sys) {
		return sys.Error()
	}
	return strings.Join(strings.Fields(err.Error()), " ")
}

// greet gets the answerer's line.
func greet(ctx context.Context, t Target) (string, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, t.Proto, netip.AddrPortFrom(t.Addr, t.Port).String())
	if err != nil {
		return "", err
	}
	defer c.Close()
	end, _ := ctx.Deadline()
	if t.Proto == UDP {
		buf := make([]byte, 512)
		n, err := insist(c, []byte("probe\n"), buf, end)
		return string(buf[:n]), err
	}
	c.SetDeadline(end)
	return bufio.NewReader(c).ReadString('\n')
}

// insist sends a datagram up to three times until the end, and gives the first that comes back.
func insist(c net.Conn, datagram, buf []byte, end time.Time) (n int, err error) {
	step := time.Until(end) / 3
	for try := 1; try <= 3; try++ {
		if _, err = c.Write(datagram); err != nil {
			return 0, err
		}
		until := time.Now().Add(step)
		if try == 3 {
			until = end
		}
		c.SetReadDeadline(until)
		n, err = c.Read(buf)
		var timeout net.Error
		if err == nil || !errors.As(err, &timeout) || !timeout.Timeout() {
			return n, err
		}
	}
	return 0, err
}

// greeting is what an answerer says first: "NAME saw ADDRESS:PORT".
func greeting(name string, peer net.Addr) string { return name + " saw " + peer.String() + "\n" }

func parseGreeting(line string) (string, netip.Addr, error) {
	name, peer, ok := strings.Cut(strings.TrimSuffix(line, "\n"), " saw ")
	at, err := netip.ParseAddrPort(peer)
	if !ok || err != nil || strings.ContainsAny(name, " \n") {
		return "", netip.Addr{}, fmt.Errorf("it answers %q", line)
	}
	return name, at.Addr().Unmap(), nil
}
