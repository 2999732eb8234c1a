package probe

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// free gives a port that nobody has, for both protocols.
func free(t *testing.T) uint16 {
	t.Helper()
	for range 20 {
		pc, err := listenUDP(0)
		if err != nil {
			t.Fatal(err)
		}
		defer pc.Close()
		port := netip.MustParseAddrPort(pc.LocalAddr().String()).Port()
		if l, err := net.ListenTCP("tcp", &net.TCPAddr{Port: int(port)}); err == nil {
			l.Close()
			return port
		}
	}
	t.Fatal("no free port")
	return 0
}

func TestAskAndAnswer(t *testing.T) {
	port, closed := free(t), free(t)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- Answer(ctx, "me", []Service{{TCP, port}, {UDP, port}, {Proto: ICMP}}) }()
	v4, v6 := netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("::1")
	var targets []Target
	for _, a := range []netip.Addr{v4, v6, netip.MustParseAddr("127.9.9.9")} {
		for _, s := range []Service{{TCP, port}, {UDP, port}, {TCP, closed}, {UDP, closed}} {
			targets = append(targets, Target{s, a})
		}
	}
	until := time.Now().Add(90 * time.Second)
	for { // the answerer may not listen yet
		if r := Ask(ctx, targets[:2], time.Second); r[0].Reached && r[1].Reached {
			break
		}
		if time.Now().After(until) {
			t.Fatal("no answer")
		}
	}
	for i, r := range Ask(ctx, targets, 20*time.Second) {
		if r.Target != targets[i] {
			t.Fatalf("result %d is of %v, not of %v", i, r.Target, targets[i])
		}
		// A connection to another loopback address comes from the address that was asked.
		if want := r.Port == port; r.Reached != want || (want && (r.By != "me" || !r.Saw.IsLoopback() || r.Saw.Is6() != r.Addr.Is6())) || (!want && r.Why != "refused") {
			t.Errorf("%v: %+v", r, r)
		}
		again, err := ParseResult(r.String())
		r.Took = 0
		if err != nil || again != r {
			t.Errorf("%v is read as %+v, %v", r, again, err)
		}
	}

	c, err := net.Dial("tcp", netip.AddrPortFrom(v4, port).String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(90 * time.Second))
	buf := make([]byte, 200)
	if n, err := c.Read(buf); err != nil || !strings.HasPrefix(string(buf[:n]), "me saw 127.0.0.1:") {
		t.Errorf("greeting %q, %v", buf[:n], err)
	}
	if _, err := c.Write([]byte("ping")); err != nil {
		t.Fatal(err)
	}
	if n, err := c.Read(buf); err != nil || string(buf[:n]) != "ping" {
		t.Errorf("echo %q, %v", buf[:n], err)
	}

	cancel()
	if err := <-ended; err != context.Canceled {
		t.Errorf("the answerer ends with %v", err)
	}
	if _, err := c.Read(buf); err == nil {
		t.Error("a connection outlives its answerer")
	}
}

func TestCommand(t *testing.T) {
	var out bytes.Buffer
	closed := free(t)
	s := Service{TCP, closed}
	if err := Command(t.Context(), &out, []string{"ask", "-w", "20s", s.String() + ",udp:9", "127.0.0.1", "::1"}); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 4 || lines[0] != "no "+s.String()+" 127.0.0.1 refused" || lines[2] != "no "+s.String()+" ::1 refused" {
		t.Errorf("%q", lines)
	}
	for _, bad := range []string{"", "ask", "ask -w x icmp ::1", "ask -w 1s", "ask tcp ::1", "ask icmp:3 ::1", "ask udp:0 ::1", "ask tcp:65536 ::1", "ask icmp nowhere", "tell icmp ::1", "hear lo ::1:5", "hear lo 10.0.0.1:5", "hear nodevice 239.0.0.1:5", "tell lo [::1]:5 x"} {
		if err := Command(t.Context(), &out, strings.Fields(bad)); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

func TestGroups(t *testing.T) {
	for _, group := range []string{"239.9.9.9:"} { // IPv6 on a loopback has no route to groups; a guest tries it
		at := netip.MustParseAddrPort(group + strconv.Itoa(int(free(t))))
		r, w := io.Pipe()
		ended := make(chan error, 1)
		go func() {
			err := Hear(t.Context(), w, "lo", at, 2, 90*time.Second)
			w.Close()
			ended <- err
		}()
		lines := bufio.NewScanner(r)
		if !lines.Scan() || lines.Text() != "joined "+at.Addr().String()+" on lo" {
			t.Fatalf("%q, %v", lines.Text(), <-ended)
		}
		for _, text := range []string{"one", "two"} {
			if err := Tell("lo", at, text); err != nil {
				t.Fatal(err)
			}
			if !lines.Scan() || !strings.HasPrefix(lines.Text(), "heard 3 bytes from ") || !strings.HasSuffix(lines.Text(), `"`+text+`"`) {
				t.Fatalf("%q", lines.Text())
			}
		}
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
	if err := Hear(t.Context(), io.Discard, "lo", netip.MustParseAddrPort("239.9.9.8:9"), 1, 50*time.Millisecond); err == nil || err.Error() != "heard 0 of 1: silence" {
		t.Error(err)
	}
}

func TestNoResults(t *testing.T) {
	for _, line := range []string{"", "yes", "yes tcp:80 ::1", "no x ::1 refused", "maybe icmp ::1 in 1s", "yes tcp:80 nowhere in 1s", "yes tcp:80 ::1 by me", "yes tcp:80 ::1 by me heard ::1 in 1s"} {
		if r, err := ParseResult(line); err == nil {
			t.Errorf("%q is read as %+v", line, r)
		}
	}
}

func FuzzParseResult(f *testing.F) {
	f.Add("yes tcp:80 10.0.0.5 by web-1 saw 10.0.0.9 in 1.2ms")
	f.Add("no udp:53 2001:db8::1 silence")
	f.Fuzz(func(t *testing.T, line string) {
		r, err := ParseResult(line)
		if err != nil {
			return
		}
		if again, err := ParseResult(r.String()); err != nil || again != r {
			t.Errorf("%q is read as %+v, then as %+v, %v", line, r, again, err)
		}
	})
}

func TestServices(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := Service{rapid.SampledFrom([]string{TCP, UDP}).Draw(t, "proto"), rapid.Uint16Range(1, 65535).Draw(t, "port")}
		if again, err := ParseService(s.String()); err != nil || again != s {
			t.Fatalf("%v is read as %v, %v", s, again, err)
		}
	})
}
