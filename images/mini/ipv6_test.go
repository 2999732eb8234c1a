package mini

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv6"
	"github.com/insomniacslk/dhcp/iana"
	"github.com/vishvananda/netns"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"
)

// Flags of router advertisements (RFC 4861 section 4.2).
const (
	managed = 0x80
	other   = 0x40
)

// TestIPv6 boots a guest on two networks without IPv4: on the first it gets its address by DHCPv6, and finds the
// metadata service at its link-local address; on the second it makes its own and asks DHCPv6 for name servers only.
func TestIPv6(t *testing.T) {
	t.Parallel()
	disk := overlay(t, image(t), 512)
	ns := newNamespace(t)
	addTap(t, ns, "tap0", "fd00:1::1/64", "fe80::a9fe:a9fe/64", "10.1.0.1/24")
	addTap(t, ns, "tap1", "fd00:2::1/64")
	serveRouter(t, ns, "tap0", net.ParseIP("fd00:1::"), managed)
	rdnss := append([]byte{25, 3, 0, 0, 0, 0, 14, 16}, net.ParseIP("fd00:2::53")...)
	serveRouter(t, ns, "tap1", net.ParseIP("fd00:2::"), other, rdnss...)
	first := serveDHCP6(t, ns, "tap0", net.ParseIP("fd00:1::7"), net.ParseIP("fd00:1::53"))
	second := serveDHCP6(t, ns, "tap1", nil, net.ParseIP("fd00:2::54"))
	_, key := newKey(t)
	service := &metadataService{texts: map[string]string{"/openstack/latest/meta_data.json": metadataJSON(t, "six", key)}}
	serve6(t, ns, "[fe80::a9fe:a9fe%tap0]:80", service)

	m := boot(t, ns, disk,
		"-netdev", "tap,id=n0,ifname=tap0,script=no,downscript=no", "-device", "virtio-net-pci,netdev=n0,mac="+firstMAC,
		"-netdev", "tap,id=n1,ifname=tap1,script=no,downscript=no", "-device", "virtio-net-pci,netdev=n1,mac="+plugMAC)
	m.shows(`eth0: fd00:1::7 by DHCPv6`)
	m.shows(`eth1: name servers \[fd00:2::54\] by DHCPv6`)
	ready := m.expect(`ready in ([0-9.]+) s, six, .*fd00:1::7/128 on eth0`)
	t.Logf("ready after %.2f s by the host's clock, %s s by the guest's", time.Since(m.started).Seconds(), ready[1])
	m.shows(`data source: metadata service, instance ` + instanceID)
	m.expect(`six login: `)
	m.login()
	if asked := service.hosts(); len(asked) != 1 || asked[0] != "[fe80::a9fe:a9fe]" {
		t.Errorf("the metadata service was asked with host names %q", asked)
	}
	for _, c := range []struct{ line, want string }{
		{`ip -6 -o address show dev eth0 scope global | awk '{print $4}'`, "fd00:1::7/128"},
		{`ip -6 -o address show dev eth1 scope global | awk '{print $4}'`, "fd00:2::f816:3eff:fe00:2/64"},
		{`cat /etc/resolv.conf`, "nameserver fd00:2::53\nnameserver fd00:1::53\nnameserver fd00:2::54"},
		{`ping6 -c 1 -W 5 fd00:1::1 >/dev/null && ping -6 -c 1 -W 5 fd00:2::1 >/dev/null && echo both`, "both"},
		{`probe ask icmp fd00:1::1 fd00:2::1 | cut -d ' ' -f 1-3`, "yes icmp fd00:1::1\nyes icmp fd00:2::1"},
		{`(probe answer -n me tcp:7000,udp:7000 & until ss -ltn | grep -q :7000 && ss -lun | grep -q :7000; do sleep 0.2; done; probe ask -w 20s tcp:7000,udp:7000 fd00:1::7 ::1 127.0.0.1 | cut -d ' ' -f 1-7; kill $!)`, "yes tcp:7000 fd00:1::7 by me saw fd00:1::7\n" +
			"yes udp:7000 fd00:1::7 by me saw fd00:1::7\nyes tcp:7000 ::1 by me saw ::1\nyes udp:7000 ::1 by me saw ::1\nyes tcp:7000 127.0.0.1 by me saw 127.0.0.1\nyes udp:7000 127.0.0.1 by me saw 127.0.0.1"},
		{`((until [ -e /tmp/heard ]; do sleep 1; probe tell eth1 [ff05::99]:5000 news; done) & probe hear -w 90s eth1 [ff05::99]:5000 | cut -d ' ' -f 1-3,6; touch /tmp/heard; wait)`, "joined ff05::99 on \nheard 4 bytes \"news\""},
		{`(echo hello | nc.openbsd -6 -l -N 5001 &) ; until ss -ltn | grep -q :5001; do sleep 0.2; done; nc.openbsd -6 -d fd00:1::7 5001`, "hello"},
	} {
		if got := m.sh(c.line); got != c.want {
			t.Errorf("%s: got %q, want %q", c.line, got, c.want)
		}
	}
	// The address is extended as it is used up.
	for end := time.Now().Add(bootDeadline); first.renewed.Load() < 2; {
		if time.Now().After(end) {
			t.Fatalf("the address was renewed %d times", first.renewed.Load())
		}
		m.sh("sleep 1")
	}
	if n := second.solicited.Load(); n != 0 {
		t.Errorf("%d solicitations where only information is to be asked for", n)
	}
	// And lost when the server says so.
	first.refuse.Store(true)
	m.shows(`eth0: fd00:1::7 is lost`)
	m.sh(`! ip -6 -o address show dev eth0 | grep fd00:1::7`)
	first.refuse.Store(false)
	m.sh(`until ip -6 -o address show dev eth0 | grep -q fd00:1::7; do sleep 0.2; done`)
	m.command("quit", nil)
	m.waitOff()
}

// dhcp6Server counts what it was asked.
type dhcp6Server struct {
	solicited, renewed atomic.Int32
	refuse             atomic.Bool // it knows no address any more
}

// serveDHCP6 answers every client on the tap with the address, of 4 s for renewals' sake, and the name server; without an
// address it answers requests for information only.
func serveDHCP6(t *testing.T, ns netns.NsHandle, tap string, address, dns net.IP) *dhcp6Server {
	t.Helper()
	var conn net.PacketConn
	err := within(ns, func() (err error) {
		link, err := net.InterfaceByName(tap)
		if err != nil {
			return err
		}
		// A socket of this interface only: others have servers of their own.
		lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
			var err error
			return errors.Join(c.Control(func(fd uintptr) { err = unix.BindToDevice(int(fd), tap) }), err)
		}}
		if conn, err = lc.ListenPacket(t.Context(), "udp6", fmt.Sprintf("[::]:%d", dhcpv6.DefaultServerPort)); err != nil {
			return err
		}
		return ipv6.NewPacketConn(conn).JoinGroup(link, &net.UDPAddr{IP: dhcpv6.AllDHCPRelayAgentsAndServers})
	})
	if err != nil {
		t.Fatal(err)
	}
	s := &dhcp6Server{}
	id := &dhcpv6.DUIDLL{HWType: iana.HWTypeEthernet, LinkLayerAddr: net.HardwareAddr{2, 0, 0, 0, 0, 1}}
	answer := func(q *dhcpv6.Message) (*dhcpv6.Message, error) {
		kind := dhcpv6.MessageTypeReply
		switch q.MessageType {
		case dhcpv6.MessageTypeSolicit:
			s.solicited.Add(1)
			kind = dhcpv6.MessageTypeAdvertise
		case dhcpv6.MessageTypeRenew:
			s.renewed.Add(1)
		}
		a := &dhcpv6.Message{MessageType: kind, TransactionID: q.TransactionID}
		a.AddOption(dhcpv6.OptClientID(q.Options.ClientID()))
		a.AddOption(dhcpv6.OptServerID(id))
		a.AddOption(dhcpv6.OptDNS(dns))
		if ia := q.Options.OneIANA(); ia != nil {
			if address == nil {
				return nil, fmt.Errorf("%s: an address is asked for: %v", tap, q)
			}
			r := &dhcpv6.OptIANA{IaId: ia.IaId, T1: 2 * time.Second, T2: 3 * time.Second}
			if s.refuse.Load() && kind == dhcpv6.MessageTypeReply {
				r.Options.Add(&dhcpv6.OptStatusCode{StatusCode: iana.StatusNoBinding})
			} else {
				r.Options.Add(&dhcpv6.OptIAAddress{IPv6Addr: address, PreferredLifetime: 60 * time.Second, ValidLifetime: 60 * time.Second})
			}
			a.AddOption(r)
		}
		return a, nil
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 1500)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return // closed
			}
			q, err := dhcpv6.MessageFromBytes(buf[:n])
			if err != nil {
				t.Errorf("%s: DHCPv6: %v", tap, err)
				continue
			}
			a, err := answer(q)
			if err == nil {
				_, err = conn.WriteTo(a.ToBytes(), from)
			}
			if err != nil && !errors.Is(err, net.ErrClosed) {
				t.Errorf("DHCPv6: %v", err)
			}
		}
	}()
	t.Cleanup(func() {
		conn.Close()
		<-done
	})
	return s
}

// serve6 serves HTTP at an address in the namespace.
func serve6(t *testing.T, ns netns.NsHandle, address string, h http.Handler) {
	t.Helper()
	var l net.Listener
	err := within(ns, func() (err error) {
		l, err = net.Listen("tcp", address)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: h}
	go server.Serve(l) // returns http.ErrServerClosed
	t.Cleanup(func() { server.Close() })
}
