package agent

import (
	"bufio"
	"context"
	"encoding/hex"
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"

	"yakumo/datapath/pipeline"
	"yakumo/model"
)

// Limits of the resolver that guests have.
const (
	nameTTL        = 60 // seconds that a guest may remember a port's name
	dnsSize        = 1232
	dnsPerPort     = 16  // questions of one port that are being answered at once
	dnsRate        = 200 // questions a second of one guest by UDP
	dnsBurst       = 400
	dnsInFlight    = 512 // questions that are being forwarded at once, of all ports
	dnsTimeout     = 2 * time.Second
	dnsTries       = 3
	dnsIdle        = 5 * time.Second
	resolvConfAge  = 5 * time.Second
	resolvConfPath = "/etc/resolv.conf"
)

// dnsService resolves names for guests: those of ports in the guest's own networks from rows, all
// others by asking the host's resolvers. Who asks is told by the address that the data path gives the
// question, as with the metadata service.
type dnsService struct {
	a       *Agent
	forward func() []string // host:port of resolvers
	slots   chan struct{}
	// Questions answered from rows, forwarded, failed at the resolvers, and dropped as too many.
	local, forwarded, failed, dropped atomic.Uint64

	rates rates

	mu   sync.Mutex
	busy map[model.ID]int // questions being answered, by port
}

func newDNSService(a *Agent) *dnsService {
	s := &dnsService{a: a, slots: make(chan struct{}, dnsInFlight), rates: rates{seen: map[netip.Addr]*paced{}}, busy: map[model.ID]int{}}
	s.forward = resolvers(a.cfg.Resolvers)
	return s
}

// resolvers gives who is asked: the addresses, or what /etc/resolv.conf says now where there are none.
// "none" alone: nobody.
func resolvers(fixed []string) func() []string {
	if len(fixed) > 0 {
		var out []string
		for _, s := range fixed {
			if s != "none" {
				out = append(out, withPort(s))
			}
		}
		return func() []string { return out }
	}
	var mu sync.Mutex
	var list []string
	var read time.Time
	return func() []string {
		mu.Lock()
		defer mu.Unlock()
		if time.Since(read) > resolvConfAge {
			read = time.Now()
			if f, err := os.Open(resolvConfPath); err == nil {
				list = nameservers(bufio.NewScanner(f))
				f.Close()
			}
		}
		return list
	}
}

// nameservers reads resolv.conf(5). What would lead back to this service is left out.
func nameservers(in *bufio.Scanner) []string {
	var out []string
	for in.Scan() {
		f := strings.Fields(in.Text())
		if len(f) < 2 || f[0] != "nameserver" {
			continue
		}
		a, err := netip.ParseAddr(f[1])
		if err == nil && a.Unmap() != pipeline.ServiceAddr && len(out) < dnsTries {
			out = append(out, withPort(a.String()))
		}
	}
	return out
}

func withPort(s string) string {
	if a, err := netip.ParseAddr(strings.Trim(s, "[]")); err == nil {
		return net.JoinHostPort(a.String(), "53")
	}
	if _, _, err := net.SplitHostPort(s); err == nil {
		return s
	}
	return net.JoinHostPort(s, "53")
}

// serve answers until ctx ends.
func (s *dnsService) serve(ctx context.Context, pc net.PacketConn, ln net.Listener) {
	var wg sync.WaitGroup
	for _, srv := range []*dns.Server{
		{PacketConn: pc, Handler: s, UDPSize: dnsSize, DecorateReader: func(r dns.Reader) dns.Reader { return fairReader{r, s} }},
		{Listener: fair(ln), Handler: s, ReadTimeout: dnsIdle, WriteTimeout: dnsIdle, IdleTimeout: func() time.Duration { return dnsIdle }, MaxTCPQueries: 128},
	} {
		started := make(chan struct{})
		srv.NotifyStartedFunc = func() { close(started) }
		wg.Go(func() {
			if err := srv.ActivateAndServe(); err != nil && ctx.Err() == nil {
				s.a.log.Error("the resolver for guests ended", "err", err)
			}
		})
		wg.Go(func() {
			<-ctx.Done()
			<-started
			if err := srv.Shutdown(); err != nil {
				s.a.log.Debug("resolver for guests", "err", err)
			}
		})
	}
	wg.Wait()
}

// ServeDNS implements dns.Handler.
func (s *dnsService) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	from, err := netip.ParseAddrPort(w.RemoteAddr().String())
	if err != nil {
		return
	}
	owner, ok := s.a.cfg.Datapath.MetadataOwner(from.Addr().Unmap())
	if !ok || !s.enter(owner.Port) {
		s.dropped.Add(1)
		return // a guest that is too loud is not answered at all
	}
	defer s.leave(owner.Port)
	_, tcp := w.RemoteAddr().(*net.TCPAddr)
	m := s.answer(owner.Port, q, tcp)
	if m == nil {
		return
	}
	size := dns.MinMsgSize
	if opt := q.IsEdns0(); opt != nil {
		size = max(size, min(int(opt.UDPSize()), dnsSize))
	}
	if tcp {
		size = dns.MaxMsgSize
	}
	m.Truncate(size)
	if err := w.WriteMsg(m); err != nil {
		s.a.log.Debug("a guest does not take an answer", "port", owner.Port, "err", err)
	}
}

func (s *dnsService) enter(port model.ID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.busy[port] >= dnsPerPort {
		return false
	}
	s.busy[port]++
	return true
}

func (s *dnsService) leave(port model.ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.busy[port]--; s.busy[port] == 0 {
		delete(s.busy, port)
	}
}

// answer makes the answer to a question of a port; nil: none.
func (s *dnsService) answer(port model.ID, q *dns.Msg, tcp bool) *dns.Msg {
	m := new(dns.Msg)
	if q.Response {
		return nil
	}
	if q.Opcode != dns.OpcodeQuery {
		return m.SetRcode(q, dns.RcodeNotImplemented)
	}
	if len(q.Question) != 1 || q.Question[0].Qclass != dns.ClassINET {
		return m.SetRcode(q, dns.RcodeRefused)
	}
	m.SetReply(q)
	m.RecursionAvailable = true
	if s.fromRows(port, q.Question[0], m) {
		s.local.Add(1)
		m.Authoritative = true
		if opt := q.IsEdns0(); opt != nil {
			m.SetEdns0(dnsSize, opt.Do())
		}
		return m
	}
	return s.ask(q, tcp)
}

// networksOf gives the networks of a port and of the other ports of its guest.
func (s *dnsService) networksOf(port model.ID) []*model.HostNetwork {
	var out []*model.HostNetwork
	add := func(p *model.HostPort) {
		if p == nil {
			return
		}
		if n := s.a.ledger.network(p.NetworkID); n != nil && !slices.Contains(out, n) {
			out = append(out, n)
		}
	}
	first := s.a.ledger.port(port)
	add(first)
	if first != nil && first.DeviceID != "" {
		others := s.a.ledger.portsOf(first.DeviceID)
		slices.Sort(others)
		for _, id := range others {
			add(s.a.ledger.port(id))
		}
	}
	return out
}

func domainOf(n *model.HostNetwork) string {
	return strings.ToLower(strings.TrimSuffix(n.DNSDomain, "."))
}

// fromRows answers a question about ports of the guest's own networks; false where it is about
// something else.
func (s *dnsService) fromRows(port model.ID, q dns.Question, m *dns.Msg) bool {
	name := strings.ToLower(strings.TrimSuffix(q.Name, "."))
	head := func(typ uint16) dns.RR_Header {
		return dns.RR_Header{Name: q.Name, Rrtype: typ, Class: dns.ClassINET, Ttl: nameTTL}
	}
	networks := s.networksOf(port)
	if a, ok := reverse(name); ok {
		for _, n := range networks {
			labels := s.a.names.labels(n.ID, a)
			if len(labels) == 0 {
				continue
			}
			slices.Sort(labels)
			if q.Qtype == dns.TypePTR || q.Qtype == dns.TypeANY {
				for _, l := range slices.Compact(labels) {
					if d := domainOf(n); d != "" {
						l += "." + d
					}
					m.Answer = append(m.Answer, &dns.PTR{Hdr: head(dns.TypePTR), Ptr: dns.Fqdn(l)})
				}
			}
			return true
		}
		for _, n := range networks { // no resolver outside knows the addresses of a tenant's network
			if slices.ContainsFunc(n.Subnets, func(x model.HostSubnet) bool { return x.CIDR.Contains(a) }) && !n.External {
				m.Rcode = dns.RcodeNameError
				return true
			}
		}
		return false
	}
	label, domain, dotted := strings.Cut(name, ".")
	known := false
	for _, n := range networks {
		if dotted && (domain != domainOf(n) || domain == "") {
			continue
		}
		addrs, ok := s.a.names.addresses(n.ID, label)
		if !ok {
			continue
		}
		known = true
		slices.SortFunc(addrs, netip.Addr.Compare)
		for _, a := range slices.Compact(addrs) {
			switch {
			case a.Is4() && (q.Qtype == dns.TypeA || q.Qtype == dns.TypeANY):
				m.Answer = append(m.Answer, &dns.A{Hdr: head(dns.TypeA), A: a.AsSlice()})
			case a.Is6() && (q.Qtype == dns.TypeAAAA || q.Qtype == dns.TypeANY):
				m.Answer = append(m.Answer, &dns.AAAA{Hdr: head(dns.TypeAAAA), AAAA: a.AsSlice()})
			}
		}
	}
	if !known && !dotted && label != "" { // nobody outside knows a bare name
		m.Rcode = dns.RcodeNameError
		return true
	}
	return known
}

// reverse reads the name under which an address is asked for (RFC 1035, 3.5; RFC 3596, 2.5).
func reverse(name string) (netip.Addr, bool) {
	if rest, ok := strings.CutSuffix(name, ".in-addr.arpa"); ok {
		parts := strings.Split(rest, ".")
		slices.Reverse(parts)
		a, err := netip.ParseAddr(strings.Join(parts, "."))
		return a, err == nil && a.Is4()
	}
	rest, ok := strings.CutSuffix(name, ".ip6.arpa")
	if !ok {
		return netip.Addr{}, false
	}
	digits := strings.Split(rest, ".")
	slices.Reverse(digits)
	b, err := hex.DecodeString(strings.Join(digits, ""))
	if err != nil || len(digits) != 32 || len(b) != 16 {
		return netip.Addr{}, false
	}
	return netip.AddrFrom16([16]byte(b)), true
}

// ask asks the host's resolvers, one after another.
func (s *dnsService) ask(q *dns.Msg, tcp bool) *dns.Msg {
	fail := func(code int) *dns.Msg { return new(dns.Msg).SetRcode(q, code) }
	select {
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
	default:
		s.dropped.Add(1)
		return fail(dns.RcodeServerFailure)
	}
	servers := s.forward()
	if len(servers) == 0 {
		return fail(dns.RcodeRefused)
	}
	out := q.Copy()
	out.Id = dns.Id()
	out.RecursionDesired = true
	if opt := out.IsEdns0(); opt != nil {
		opt.SetUDPSize(dnsSize)
	}
	c := dns.Client{Net: "udp", Timeout: dnsTimeout, UDPSize: dnsSize}
	if tcp {
		c.Net = "tcp"
	}
	for i := range dnsTries {
		m, _, err := c.Exchange(out, servers[i%len(servers)])
		if err != nil || m.Rcode == dns.RcodeServerFailure && i < dnsTries-1 {
			continue
		}
		m.Id = q.Id
		s.forwarded.Add(1)
		return m
	}
	s.failed.Add(1)
	return fail(dns.RcodeServerFailure)
}

// listenDNS opens the addresses that guests' questions come to, which no device of the host needs
// to hold yet.
func listenDNS(at netip.AddrPort) (net.PacketConn, net.Listener, error) {
	pc, err := freebind().ListenPacket(context.Background(), inFamily("udp", at.Addr()), at.String())
	if err != nil {
		return nil, nil, err
	}
	if at.Port() == 0 { // a test lets the host choose
		_, port, err := net.SplitHostPort(pc.LocalAddr().String())
		n, err2 := strconv.ParseUint(port, 10, 16)
		if err = errors.Join(err, err2); err != nil {
			return nil, nil, errors.Join(err, pc.Close())
		}
		at = netip.AddrPortFrom(at.Addr(), uint16(n))
	}
	ln, err := listenFree(at)
	if err != nil {
		return nil, nil, errors.Join(err, pc.Close())
	}
	return pc, ln, nil
}
