package agent

import (
	"bufio"
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"

	"yakumo/datapath/pipeline"
	"yakumo/model"
)

// asked is a question as the resolver sees it, and takes the answer.
type asked struct {
	from net.Addr
	got  *dns.Msg
}

func (w *asked) LocalAddr() net.Addr         { return &net.UDPAddr{} }
func (w *asked) RemoteAddr() net.Addr        { return w.from }
func (w *asked) WriteMsg(m *dns.Msg) error   { w.got = m; return nil }
func (w *asked) Write(b []byte) (int, error) { return len(b), nil }
func (w *asked) Close() error                { return nil }
func (w *asked) TsigStatus() error           { return nil }
func (w *asked) TsigTimersOnly(bool)         {}
func (w *asked) Hijack()                     {}

// resolve asks as the guest with the n-th alias; nil: no answer.
func resolve(a *Agent, n uint32, q *dns.Msg, tcp bool) *dns.Msg {
	env := pipeline.DefaultEnv()
	from := netip.AddrPortFrom(env.Alias(n), 40000)
	w := &asked{from: net.UDPAddrFromAddrPort(from)}
	if tcp {
		w.from = net.TCPAddrFromAddrPort(from)
	}
	a.dns.ServeDNS(w, q)
	return w.got
}

func asking(name string, typ uint16) *dns.Msg { return new(dns.Msg).SetQuestion(dns.Fqdn(name), typ) }

// listenAnywhere listens at a port that is free for both protocols.
func listenAnywhere(t testing.TB) (net.PacketConn, net.Listener) {
	t.Helper()
	for range 100 {
		pc, ln, err := listenDNS(netip.MustParseAddrPort("127.0.0.1:0"))
		if err == nil {
			return pc, ln
		}
		if !errors.Is(err, syscall.EADDRINUSE) { // the one is free for UDP, and not for TCP
			t.Fatal(err)
		}
	}
	t.Fatal("no port is free")
	return nil, nil
}

// upstream is a resolver of the host: it knows outside.example alone.
func upstream(t testing.TB) (addr string, count *atomic.Int64) {
	pc, ln := listenAnywhere(t)
	count = new(atomic.Int64)
	h := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		count.Add(1)
		m := new(dns.Msg).SetReply(q)
		switch {
		case q.Question[0].Name == "outside.example.":
			m.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: "outside.example.", Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 5}, A: net.IPv4(192, 0, 2, 80)}}
		case q.Question[0].Name == "large.example.":
			for range 30 {
				m.Answer = append(m.Answer, &dns.TXT{Hdr: dns.RR_Header{Name: "large.example.", Rrtype: dns.TypeTXT, Class: dns.ClassINET, Ttl: 5}, Txt: []string{strings.Repeat("x", 100)}})
			}
			if _, tcp := w.RemoteAddr().(*net.TCPAddr); !tcp {
				m.Truncate(512)
			}
		default:
			m.Rcode = dns.RcodeNameError
		}
		if err := w.WriteMsg(m); err != nil {
			t.Error(err)
		}
	})
	for _, srv := range []*dns.Server{{PacketConn: pc, Handler: h}, {Listener: ln, Handler: h}} {
		started, ended := make(chan struct{}), make(chan error, 1)
		srv.NotifyStartedFunc = func() { close(started) }
		go func() { ended <- srv.ActivateAndServe() }()
		<-started
		t.Cleanup(func() {
			if err := srv.Shutdown(); err != nil {
				t.Error(err)
			}
			<-ended
		})
	}
	return pc.LocalAddr().String(), count
}

func TestDNS(t *testing.T) {
	w, a, _, ports, alias := two(t)
	addr, count := upstream(t)
	a.dns.forward = resolvers([]string{addr})
	n := a.ledger.network(ports[0].NetworkID)
	six := netip.MustParseAddr("fd00::7")
	second := *ports[1]
	second.HostName = "Web-2"
	second.FixedIPs = append(slices.Clone(second.FixedIPs), model.FixedIP{SubnetID: "s6", Address: six})
	other := &model.HostNetwork{ID: model.NewID(), VNI: 6, MTU: 1450, DNSDomain: "example.org."}
	w.side.apply(t, model.HostBatch{Generation: 6, Upserts: []model.HostRow{&second, other,
		&model.HostPeer{ID: "q", NetworkID: n.ID, VNI: 5, MAC: "fa:16:3e:01:00:09", Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.99")}, TunnelIP: netip.MustParseAddr("192.0.2.9"), HostName: "far"},
		&model.HostPeer{ID: "x", NetworkID: other.ID, VNI: 6, MAC: "fa:16:3e:01:00:10", Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.98")}, TunnelIP: netip.MustParseAddr("192.0.2.9"), HostName: "hidden"}}})
	v4 := second.FixedIPs[0].Address.String()
	back, err := dns.ReverseAddr(v4)
	if err != nil {
		t.Fatal(err)
	}
	back6, err := dns.ReverseAddr(six.String())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name  string
		typ   uint16
		rcode int
		want  []string
		local bool
	}{
		{"web-2.example.org", dns.TypeA, dns.RcodeSuccess, []string{v4}, true},
		{"WEB-2.Example.ORG", dns.TypeA, dns.RcodeSuccess, []string{v4}, true},
		{"web-2", dns.TypeA, dns.RcodeSuccess, []string{v4}, true},
		{"web-2.example.org", dns.TypeAAAA, dns.RcodeSuccess, []string{six.String()}, true},
		{"web-2.example.org", dns.TypeMX, dns.RcodeSuccess, nil, true},
		{"far.example.org", dns.TypeA, dns.RcodeSuccess, []string{"10.0.0.99"}, true},
		{"far.example.org", dns.TypeAAAA, dns.RcodeSuccess, nil, true},
		{"hidden.example.org", dns.TypeA, dns.RcodeNameError, nil, false}, // of a network that is not the guest's
		{"hidden", dns.TypeA, dns.RcodeNameError, nil, true},
		{"nobody", dns.TypeA, dns.RcodeNameError, nil, true},
		{back, dns.TypePTR, dns.RcodeSuccess, []string{"web-2.example.org."}, true},
		{back6, dns.TypePTR, dns.RcodeSuccess, []string{"web-2.example.org."}, true},
		{"200.0.0.10.in-addr.arpa", dns.TypePTR, dns.RcodeNameError, nil, true},
		{"98.0.0.10.in-addr.arpa", dns.TypePTR, dns.RcodeNameError, nil, true},
		{"1.2.0.192.in-addr.arpa", dns.TypePTR, dns.RcodeNameError, nil, false},
		{"outside.example", dns.TypeA, dns.RcodeSuccess, []string{"192.0.2.80"}, false},
		{"nobody.example", dns.TypeA, dns.RcodeNameError, nil, false},
	} {
		before := count.Load()
		for _, tcp := range []bool{false, true} {
			q := asking(c.name, c.typ)
			m := resolve(a.Agent, alias[0], q, tcp)
			if m == nil || m.Rcode != c.rcode || m.Id != q.Id || !m.Response || m.Authoritative != c.local || !m.RecursionAvailable && c.local {
				t.Fatalf("%s %s: %v", c.name, dns.TypeToString[c.typ], m)
			}
			var got []string
			for _, rr := range m.Answer {
				switch rr := rr.(type) {
				case *dns.A:
					got = append(got, rr.A.String())
				case *dns.AAAA:
					got = append(got, rr.AAAA.String())
				case *dns.PTR:
					got = append(got, rr.Ptr)
				}
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("%s %s: %v, want %v", c.name, dns.TypeToString[c.typ], got, c.want)
			}
		}
		if forwarded := count.Load() > before; forwarded == c.local {
			t.Errorf("%s: forwarded %v", c.name, forwarded)
		}
	}
	// What does not fit into a packet is asked for again by TCP.
	if m := resolve(a.Agent, alias[0], asking("large.example", dns.TypeTXT), false); m == nil || !m.Truncated {
		t.Errorf("by UDP: %v", m)
	}
	if m := resolve(a.Agent, alias[0], asking("large.example", dns.TypeTXT), true); m == nil || m.Truncated || len(m.Answer) != 30 {
		t.Errorf("by TCP: %v", m)
	}
	// A name goes with its port.
	w.side.apply(t, model.HostBatch{Generation: 7, Removes: []model.RowID{{Kind: model.RowPeer, Key: "q"}}})
	if m := resolve(a.Agent, alias[0], asking("far", dns.TypeA), false); m == nil || m.Rcode != dns.RcodeNameError {
		t.Errorf("after it has gone: %v", m)
	}
}

func TestDNSRefusals(t *testing.T) {
	_, a, _, _, alias := two(t)
	a.dns.forward = resolvers([]string{"none"})
	update := asking("web", dns.TypeA)
	update.Opcode = dns.OpcodeUpdate
	chaos := asking("version.bind", dns.TypeTXT)
	chaos.Question[0].Qclass = dns.ClassCHAOS
	several := asking("a", dns.TypeA)
	several.Question = append(several.Question, several.Question[0])
	for name, c := range map[string]struct {
		q     *dns.Msg
		rcode int
	}{
		"update": {update, dns.RcodeNotImplemented}, "chaos": {chaos, dns.RcodeRefused}, "two questions": {several, dns.RcodeRefused},
		"nobody to ask": {asking("outside.example", dns.TypeA), dns.RcodeRefused},
	} {
		if m := resolve(a.Agent, alias[0], c.q, false); m == nil || m.Rcode != c.rcode {
			t.Errorf("%s: %v", name, m)
		}
	}
	if m := resolve(a.Agent, 999, asking("s1", dns.TypeA), false); m != nil {
		t.Errorf("a stranger is answered: %v", m)
	}
	reply := asking("s1", dns.TypeA)
	reply.Response = true
	if m := resolve(a.Agent, alias[0], reply, false); m != nil {
		t.Errorf("a reply is answered: %v", m)
	}
}

// A guest that asks without end is held to its rate; another is served. The same with connections.
func TestDNSFlood(t *testing.T) {
	_, a, _, _, _ := two(t)
	now := time.Now()
	loud, quiet := netip.MustParseAddr("169.254.64.2"), netip.MustParseAddr("169.254.64.3")
	answered := 0
	for range 3 * dnsBurst {
		if a.dns.rates.allow(loud, now) {
			answered++
		}
	}
	if answered != dnsBurst || !a.dns.rates.allow(quiet, now) || !a.dns.rates.allow(loud, now.Add(time.Second)) {
		t.Errorf("%d of %d allowed", answered, 3*dnsBurst)
	}
	for i := range 3 * maxPaced { // addresses that were once heard are forgotten
		a.dns.rates.allow(netip.AddrFrom4([4]byte{169, 254, byte(i >> 8), byte(i)}), now.Add(time.Duration(i)*time.Second))
	}
	if n := len(a.dns.rates.seen); n > maxPaced {
		t.Errorf("%d addresses are remembered", n)
	}
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := fair(ln)
	defer f.Close()
	held := make(chan net.Conn, 4*connsPerGuest)
	go func() {
		for {
			c, err := f.Accept()
			if err != nil {
				close(held)
				return
			}
			held <- c
		}
	}()
	dial := func() net.Conn {
		c, err := net.Dial("tcp4", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	var last net.Conn
	for range connsPerGuest + 1 {
		last = dial()
	}
	if _, err := last.Read(make([]byte, 1)); err == nil {
		t.Error("the connection above the share is not closed")
	}
	if err := (<-held).Close(); err != nil {
		t.Fatal(err)
	}
	for range connsPerGuest - 1 {
		<-held
	}
	dial()
	if c := <-held; c == nil {
		t.Error("no connection after one was closed")
	}
}

func TestNameservers(t *testing.T) {
	got := nameservers(bufio.NewScanner(strings.NewReader("# x\nnameserver 192.0.2.1\nnameserver 169.254.169.254\nsearch a\nnameserver fd00::1\nnameserver bad\nnameserver 192.0.2.2\nnameserver 192.0.2.3\n")))
	if want := []string{"192.0.2.1:53", "[fd00::1]:53", "192.0.2.2:53"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	for in, want := range map[string]string{"192.0.2.1": "192.0.2.1:53", "192.0.2.1:5353": "192.0.2.1:5353", "fd00::1": "[fd00::1]:53", "[fd00::1]:54": "[fd00::1]:54", "dns": "dns:53"} {
		if got := withPort(in); got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
}

// Whatever a guest sends as a question, there is an answer or silence.
func FuzzReverse(f *testing.F) {
	f.Add("5.0.0.10.in-addr.arpa")
	f.Add("7.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa")
	f.Fuzz(func(t *testing.T, name string) {
		a, ok := reverse(name)
		if !ok {
			return
		}
		back, err := dns.ReverseAddr(a.String())
		if err != nil {
			t.Fatal(err)
		}
		if b, ok := reverse(strings.TrimSuffix(back, ".")); !ok || b != a {
			t.Fatalf("%q is %v, its name %q is %v", name, a, back, b)
		}
	})
}

func BenchmarkDNSLocal(b *testing.B) {
	_, a, _, ports, alias := two(b)
	named := *ports[0]
	named.HostName = "s1"
	a.names.look(named.RowID(), &named)
	owner, _ := a.dp.MetadataOwner(func() netip.Addr { env := pipeline.DefaultEnv(); return env.Alias(alias[0]) }())
	q := asking("s1", dns.TypeA)
	for b.Loop() {
		if m := a.dns.answer(owner.Port, q, false); m.Rcode != dns.RcodeSuccess {
			b.Fatal(m)
		}
	}
}

// The sockets are read, a stranger's question is dropped, and the service ends with its context.
func TestDNSServe(t *testing.T) {
	_, a, _, _, _ := two(t)
	pc, ln := listenAnywhere(t)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { a.dns.serve(ctx, pc, ln); close(ended) }()
	for _, network := range []string{"udp4", "tcp4"} {
		before := a.dns.dropped.Load()
		c, err := dns.Dial(network, pc.LocalAddr().String())
		if err != nil {
			t.Fatal(err)
		}
		if err := c.WriteMsg(asking("s1", dns.TypeA)); err != nil {
			t.Fatal(err)
		}
		waitFor(t, "the question to be dropped", func() bool { return a.dns.dropped.Load() == before+1 })
		c.Close()
	}
	cancel()
	<-ended
}
