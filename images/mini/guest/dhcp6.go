package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv6"
	"github.com/insomniacslk/dhcp/iana"
	"golang.org/x/sys/unix"
)

// dhcp6 is a client of DHCPv6 (RFC 8415) on one interface: of addresses and of other things (stateful), or of other
// things only (stateless).
type dhcp6 struct {
	link     *link6
	stateful bool
	conn     net.PacketConn
}

// Times of RFC 8415 section 7.6, but for the longest pause: a guest of a test does not wait for an hour.
const (
	firstPause  = time.Second
	longPause   = 30 * time.Second
	refreshInfo = 24 * time.Hour
)

// errRefused says that the server has answered, and not with what was asked for.
var errRefused = errors.New("refused")

// run works until ctx ends or the interface goes.
func (d *dhcp6) run(ctx context.Context) error {
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		return errors.Join(c.Control(func(fd uintptr) {
			err = errors.Join(unix.BindToDevice(int(fd), d.link.name), unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1))
		}), err)
	}}
	var err error
	if d.conn, err = lc.ListenPacket(ctx, "udp6", fmt.Sprintf("[::]:%d", dhcpv6.DefaultClientPort)); err != nil {
		return err
	}
	defer d.conn.Close()
	defer context.AfterFunc(ctx, func() { d.conn.Close() })()
	for {
		if !d.stateful {
			reply, err := d.exchange(ctx, time.Time{}, d.message(dhcpv6.MessageTypeInformationRequest), dhcpv6.MessageTypeReply)
			if err != nil {
				return err
			}
			d.take(reply)
			if err := pause(ctx, reply.Options.InformationRefreshTime(refreshInfo)); err != nil {
				return err
			}
			continue
		}
		reply, err := d.acquire(ctx)
		if err != nil {
			return err
		}
		if err := d.keep(ctx, reply); err != nil {
			return err
		}
	}
}

// acquire gets addresses: solicit, advertise, request, reply.
func (d *dhcp6) acquire(ctx context.Context) (*dhcpv6.Message, error) {
	for {
		adv, err := d.exchange(ctx, time.Time{}, d.message(dhcpv6.MessageTypeSolicit), dhcpv6.MessageTypeAdvertise)
		if err != nil {
			return nil, err
		}
		req := d.message(dhcpv6.MessageTypeRequest)
		copyOptions(req, adv, dhcpv6.OptionServerID, dhcpv6.OptionIANA)
		reply, err := d.exchange(ctx, time.Now().Add(10*time.Second), req, dhcpv6.MessageTypeReply)
		if err == nil {
			if len(leases(reply)) > 0 {
				return reply, nil
			}
			err = errRefused
		}
		if ctx.Err() != nil {
			return nil, err
		}
		if err := pause(ctx, firstPause); err != nil {
			return nil, err
		}
	}
}

// keep applies a lease and extends it for as long as the server does; it returns when the addresses are lost.
func (d *dhcp6) keep(ctx context.Context, reply *dhcpv6.Message) error {
	for {
		got := leases(reply)
		t1, t2, end := times(reply, time.Now())
		for _, a := range got {
			args := []string{"-6", "address", "replace", a.addr.String() + "/128", "dev", d.link.name}
			if err := run("ip", append(args, "valid_lft", seconds(a.valid), "preferred_lft", seconds(a.preferred))...); err != nil {
				return err
			}
			if !fileExists(d.link.file("address6")) {
				say("%s: %s by DHCPv6", d.link.name, a.addr)
			}
		}
		if err := writeFile(d.link.file("address6"), []byte(got[0].addr.String()+"\n"), 0o644); err != nil {
			return err
		}
		d.take(reply)
		if err := pause(ctx, time.Until(t1)); err != nil {
			return err
		}
		renew := d.message(dhcpv6.MessageTypeRenew)
		copyOptions(renew, reply, dhcpv6.OptionServerID, dhcpv6.OptionIANA)
		next, err := d.exchange(ctx, t2, renew, dhcpv6.MessageTypeReply)
		if err != nil && ctx.Err() == nil {
			rebind := d.message(dhcpv6.MessageTypeRebind)
			copyOptions(rebind, reply, dhcpv6.OptionIANA)
			next, err = d.exchange(ctx, end, rebind, dhcpv6.MessageTypeReply)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil || len(leases(next)) == 0 {
			var errs []error
			for _, a := range got {
				if err := run("ip", "-6", "address", "del", a.addr.String()+"/128", "dev", d.link.name); err != nil && time.Now().Before(end) {
					errs = append(errs, err) // after the end the kernel has removed it
				}
			}
			say("%s: %s is lost, for DHCPv6 does not extend it", d.link.name, got[0].addr)
			return errors.Join(append(errs, os.Remove(d.link.file("address6")))...)
		}
		reply = next
	}
}

// message makes a message with what every one of ours has.
func (d *dhcp6) message(kind dhcpv6.MessageType) *dhcpv6.Message {
	m := &dhcpv6.Message{MessageType: kind}
	if id, err := dhcpv6.GenerateTransactionID(); err == nil {
		m.TransactionID = id
	}
	m.AddOption(dhcpv6.OptClientID(&dhcpv6.DUIDLL{HWType: iana.HWTypeEthernet, LinkLayerAddr: d.link.mac}))
	m.AddOption(dhcpv6.OptRequestedOption(dhcpv6.OptionDNSRecursiveNameServer, dhcpv6.OptionDomainSearchList, dhcpv6.OptionFQDN))
	m.AddOption(dhcpv6.OptElapsedTime(0))
	if kind == dhcpv6.MessageTypeSolicit {
		m.AddOption(&dhcpv6.OptIANA{IaId: [4]byte(d.link.mac[len(d.link.mac)-4:])})
	}
	return m
}

func copyOptions(to, from *dhcpv6.Message, codes ...dhcpv6.OptionCode) {
	for _, c := range codes {
		for _, o := range from.GetOption(c) {
			to.AddOption(o)
		}
	}
}

// exchange sends the message, again after growing pauses, until an answer of the kind comes or the end (zero: never).
func (d *dhcp6) exchange(ctx context.Context, end time.Time, m *dhcpv6.Message, want dhcpv6.MessageType) (*dhcpv6.Message, error) {
	to := &net.UDPAddr{IP: dhcpv6.AllDHCPRelayAgentsAndServers, Port: dhcpv6.DefaultServerPort, Zone: d.link.name}
	for wait := firstPause; ; wait = min(2*wait, longPause) {
		if _, err := net.InterfaceByIndex(d.link.index); err != nil {
			return nil, fmt.Errorf("the interface is gone: %w", err)
		}
		next := time.Now().Add(wait)
		if !end.IsZero() && end.Before(next) {
			next = end
		}
		// Before the link-local address has been checked for duplicates nothing can be sent.
		if _, err := d.conn.WriteTo(m.ToBytes(), to); err != nil {
			next = time.Now().Add(firstPause / 5)
			wait = firstPause / 2
		}
		if got, err := d.await(next, m, want); err == nil || ctx.Err() != nil {
			return got, errors.Join(err, ctx.Err())
		}
		if !end.IsZero() && !time.Now().Before(end) {
			return nil, errors.New("no answer")
		}
	}
}

// await reads until the time has come, and takes no notice of what is for others.
func (d *dhcp6) await(until time.Time, m *dhcpv6.Message, want dhcpv6.MessageType) (*dhcpv6.Message, error) {
	if err := d.conn.SetReadDeadline(until); err != nil {
		return nil, err
	}
	for buf := make([]byte, 2048); ; {
		n, _, err := d.conn.ReadFrom(buf)
		if err != nil {
			return nil, err
		}
		got, err := dhcpv6.MessageFromBytes(buf[:n])
		if err != nil || got.TransactionID != m.TransactionID || got.MessageType != want || got.Options.ServerID() == nil {
			continue
		}
		if id := got.Options.ClientID(); id == nil || !id.Equal(m.Options.ClientID()) {
			continue
		}
		return got, nil
	}
}

// take applies what is not addresses.
func (d *dhcp6) take(reply *dhcpv6.Message) {
	var r resolver
	for _, ip := range reply.Options.DNS() {
		if a, ok := netip.AddrFromSlice(ip); ok {
			r.servers = append(r.servers, a)
		}
	}
	if list := reply.Options.DomainSearchList(); list != nil {
		for _, name := range list.Labels {
			if !strings.ContainsFunc(strings.ReplaceAll(name, ".", ""), notInName) {
				r.search = append(r.search, name)
			}
		}
	}
	d.link.write("resolv6.dhcp", r)
	if !d.stateful {
		say("%s: name servers %v by DHCPv6", d.link.name, r.servers)
	}
	// The data source's name comes later and wins.
	if q := reply.Options.FQDN(); q != nil && q.DomainName != nil && len(q.DomainName.Labels) > 0 {
		short, _, _ := strings.Cut(q.DomainName.Labels[0], ".")
		if now, err := os.Hostname(); err == nil && now == "cirros" && short != "" && !strings.ContainsFunc(short, notInName) {
			if err := syscall.Sethostname([]byte(short)); err != nil {
				say("set host name %q: %v", short, err)
			}
		}
	}
}

// lease6 is an address with its lifetimes.
type lease6 struct {
	addr             netip.Addr
	preferred, valid time.Duration
}

// leases gives the addresses of a reply that can be used.
func leases(m *dhcpv6.Message) []lease6 {
	var out []lease6
	for _, ia := range m.Options.IANA() {
		if s := ia.Options.Status(); s != nil && s.StatusCode != iana.StatusSuccess {
			continue
		}
		for _, a := range ia.Options.Addresses() {
			addr, ok := netip.AddrFromSlice(a.IPv6Addr)
			if ok && addr.Is6() && a.ValidLifetime > 0 {
				out = append(out, lease6{addr, a.PreferredLifetime, a.ValidLifetime})
			}
		}
	}
	return out
}

// times tells when a lease is to be renewed, and rebound, and when it is over. RFC 8415 section 21.4: where the server leaves the first
// two to us, at half and at four fifths of the shortest preferred lifetime.
func times(m *dhcpv6.Message, now time.Time) (t1, t2, end time.Time) {
	shortest, valid := time.Duration(1<<62), time.Duration(1<<62)
	for _, l := range leases(m) {
		shortest, valid = min(shortest, l.preferred), min(valid, l.valid)
	}
	after1, after2 := shortest/2, shortest/5*4
	for _, ia := range m.Options.IANA() {
		if ia.T1 > 0 {
			after1 = min(after1, ia.T1)
		}
		if ia.T2 > 0 {
			after2 = min(after2, ia.T2)
		}
	}
	after1 = max(after1, firstPause) // a server that wants less gets no storm
	after2 = max(after2, after1)
	return now.Add(after1), now.Add(after2), now.Add(max(valid, after2))
}

// seconds is a lifetime for ip(8).
func seconds(d time.Duration) string {
	if d >= 0xffffffff*time.Second {
		return "forever"
	}
	return fmt.Sprint(int64(d / time.Second))
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
