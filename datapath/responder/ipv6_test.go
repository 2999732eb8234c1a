package responder_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"slices"
	"testing"

	"github.com/insomniacslk/dhcp/dhcpv6"
	"github.com/insomniacslk/dhcp/iana"

	"yakumo/datapath/pipeline"
	"yakumo/datapath/responder"
	"yakumo/model"
)

var (
	linkLocal = netip.MustParseAddr("fe80::f816:3eff:fe00:5")
	port6     = &model.HostPort{ID: "p", MAC: guestMAC.String(), HostName: "web-1",
		FixedIPs: []model.FixedIP{{SubnetID: "s", Address: netip.MustParseAddr("10.0.0.5")}, {SubnetID: "st", Address: netip.MustParseAddr("fd00:1::5")},
			{SubnetID: "sl", Address: netip.MustParseAddr("fd00:2::f816:3eff:fe00:5")}},
		DHCPOptions: []model.DHCPOption{{Name: "ntp-server", Value: "fd00::123", IPVersion: 6}, {Name: "bootfile-url", Value: "http://[fd00::1]/x", IPVersion: 6},
			{Name: "ntp-server", Value: "192.0.2.1", IPVersion: 4}, {Name: "3", Value: "x", IPVersion: 6}}}
	routerMAC = "fa:16:3e:00:00:01"
)

func network6() *model.HostNetwork {
	return &model.HostNetwork{ID: "n", MTU: 1450, DNSDomain: "example.org.", Subnets: []model.HostSubnet{
		{ID: "s", CIDR: netip.MustParsePrefix("10.0.0.0/24"), DHCP: true},
		{ID: "sl", CIDR: netip.MustParsePrefix("fd00:2::/64"), Gateway: netip.MustParseAddr("fd00:2::1"), DHCP: true, RAMode: model.SLAAC, AddressMode: model.SLAAC,
			DNS: []netip.Addr{netip.MustParseAddr("fd00::53")}},
		{ID: "st", CIDR: netip.MustParsePrefix("fd00:1::/64"), Gateway: netip.MustParseAddr("fd00:1::1"), DHCP: true, RAMode: model.DHCPv6Stateful, AddressMode: model.DHCPv6Stateful,
			DNS: []netip.Addr{netip.MustParseAddr("fd00::54"), netip.MustParseAddr("192.0.2.1")}},
	}}
}

// frame6 puts an IPv6 payload into a frame as a guest sends it.
func frame6(src, dst netip.Addr, proto, hops uint8, payload []byte) []byte {
	b := append([]byte{0x33, 0x33, 0, 0, 0, 2}, guestMAC...)
	b = append(b, 0x86, 0xdd, 0x60, 0, 0, 0)
	b = binary.BigEndian.AppendUint16(b, uint16(len(payload)))
	b = append(append(b, proto, hops), src.AsSlice()...)
	return append(append(b, dst.AsSlice()...), payload...)
}

func solicitation(src netip.Addr) []byte {
	return frame6(src, netip.MustParseAddr("ff02::2"), 58, 255, []byte{133, 0, 0, 0, 0, 0, 0, 0})
}

// sound checks lengths and checksum of an IPv6 frame, and gives what is behind the header.
func sound(t testing.TB, b []byte) (src, dst netip.Addr, payload []byte) {
	t.Helper()
	if len(b) < 54 || binary.BigEndian.Uint16(b[12:]) != 0x86dd || int(binary.BigEndian.Uint16(b[18:])) != len(b)-54 {
		t.Fatalf("bad frame %x", b)
	}
	sum := append(append([]byte{}, b[22:54]...), 0, 0, b[18], b[19], 0, 0, 0, b[20])
	if sum = append(sum, b[54:]...); checksum(append(sum, make([]byte, len(sum)%2)...)) != 0 {
		t.Fatal("bad checksum")
	}
	return netip.AddrFrom16([16]byte(b[22:38])), netip.AddrFrom16([16]byte(b[38:54])), b[54:]
}

// options gives the options of an advertisement by type.
func options(t testing.TB, b []byte) map[byte][][]byte {
	t.Helper()
	out := map[byte][][]byte{}
	for b = b[16:]; len(b) > 0; {
		n := 8 * int(b[1])
		if n == 0 || n > len(b) {
			t.Fatalf("bad option %x", b)
		}
		out[b[0]] = append(out[b[0]], b[:n])
		b = b[n:]
	}
	return out
}

func TestRA(t *testing.T) {
	router := []*model.HostRouterPort{{PortID: "r", NetworkID: "n", MAC: routerMAC, Addresses: []netip.Prefix{netip.MustParsePrefix("fd00:2::1/64"), netip.MustParsePrefix("10.0.0.1/24")}}}
	frames, err := responder.SolicitedRA(solicitation(linkLocal), port6, network6(), router)
	if err != nil || len(frames) != 2 {
		t.Fatalf("%d advertisements, %v; want one of the router and one of nobody", len(frames), err)
	}
	type prefix struct {
		bits, flags byte
		prefix      string
	}
	for i, want := range []struct {
		src      netip.Addr
		flags    byte
		lifetime uint16
		prefix   prefix
		dns      string
	}{
		{netip.MustParseAddr("fe80::f816:3eff:fe00:1"), 0, 1800, prefix{64, 0xc0, "fd00:2::"}, "fd00::53"},
		{pipeline.LinkLocal(pipeline.ServiceMAC), 0xc0, 0, prefix{64, 0x80, "fd00:1::"}, "fd00::54"},
	} {
		src, dst, b := sound(t, frames[i])
		if src != want.src || dst != linkLocal || frames[i][21] != 255 || b[0] != 134 || b[5] != want.flags || binary.BigEndian.Uint16(b[6:]) != want.lifetime {
			t.Errorf("from %v to %v: %x", src, dst, b[:16])
		}
		o := options(t, b)
		if p := o[3]; len(p) != 1 || p[0][2] != want.prefix.bits || p[0][3] != want.prefix.flags || netip.AddrFrom16([16]byte(p[0][16:32])).String() != want.prefix.prefix ||
			binary.BigEndian.Uint32(p[0][4:]) < binary.BigEndian.Uint32(p[0][8:]) {
			t.Errorf("prefix %x", p)
		}
		if m := o[5]; len(m) != 1 || binary.BigEndian.Uint32(m[0][4:]) != 1450 {
			t.Errorf("MTU %x", m)
		}
		if l := o[1]; len(l) != 1 || !bytes.Equal(l[0][2:], frames[i][6:12]) {
			t.Errorf("source MAC %x", l)
		}
		if d := o[25]; len(d) != 1 || len(d[0]) != 24 || netip.AddrFrom16([16]byte(d[0][8:24])).String() != want.dns {
			t.Errorf("DNS %x", d)
		}
		if d := o[31]; len(d) != 1 || !bytes.HasPrefix(d[0][8:], []byte("\x07example\x03org\x00")) {
			t.Errorf("domain %q", d)
		}
	}
	// A guest without an address is answered through all nodes.
	frames, err = responder.SolicitedRA(solicitation(netip.IPv6Unspecified()), port6, network6(), nil)
	if err != nil || len(frames) != 1 {
		t.Fatalf("%d advertisements, %v", len(frames), err)
	}
	if _, dst, b := sound(t, frames[0]); dst != pipeline.AllNodes || len(options(t, b)[3]) != 2 || !bytes.Equal(frames[0][:6], []byte{0x33, 0x33, 0, 0, 0, 1}) {
		t.Errorf("to %v: %x", dst, b)
	}
	// A router that is not the gateway announces no way out.
	router[0].Addresses[0] = netip.MustParsePrefix("fd00:2::9/64")
	frames, err = responder.RA(port6, network6(), router, netip.Addr{})
	if err != nil || len(frames) != 2 {
		t.Fatalf("%d advertisements, %v", len(frames), err)
	}
	if _, _, b := sound(t, frames[0]); binary.BigEndian.Uint16(b[6:]) != 0 {
		t.Errorf("lifetime %d", binary.BigEndian.Uint16(b[6:]))
	}
	for name, b := range map[string][]byte{
		"hop limit": frame6(linkLocal, pipeline.AllNodes, 58, 64, []byte{133, 0, 0, 0, 0, 0, 0, 0}),
		"short":     frame6(linkLocal, pipeline.AllNodes, 58, 255, []byte{133, 0, 0, 0}),
		"another":   frame6(linkLocal, pipeline.AllNodes, 58, 255, []byte{135, 0, 0, 0, 0, 0, 0, 0}),
		"UDP":       frame6(linkLocal, pipeline.AllNodes, 17, 255, []byte{133, 0, 0, 0, 0, 0, 0, 0}),
	} {
		if _, err := responder.SolicitedRA(b, port6, network6(), nil); !errors.Is(err, responder.ErrIgnored) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func request6(m *dhcpv6.Message) []byte {
	b := m.ToBytes()
	u := binary.BigEndian.AppendUint16([]byte{546 >> 8, 546 & 255, 547 >> 8, 547 & 255}, uint16(8+len(b)))
	return frame6(linkLocal, pipeline.AllServers, 17, 1, append(append(u, 0, 0), b...))
}

func message6(t testing.TB, kind dhcpv6.MessageType, change ...dhcpv6.Modifier) *dhcpv6.Message {
	t.Helper()
	m, err := dhcpv6.NewMessage(dhcpv6.WithClientID(&dhcpv6.DUIDLL{HWType: iana.HWTypeEthernet, LinkLayerAddr: guestMAC}))
	if err != nil {
		t.Fatal(err)
	}
	m.MessageType = kind
	for _, c := range change {
		c(m)
	}
	return m
}

func ask6(t testing.TB, m *dhcpv6.Message, n *model.HostNetwork) (*dhcpv6.Message, error) {
	t.Helper()
	out, err := responder.DHCPv6(request6(m), port6, n)
	if err != nil {
		return nil, err
	}
	src, dst, b := sound(t, out)
	if src != pipeline.LinkLocal(pipeline.ServiceMAC) || dst != linkLocal || !bytes.Equal(b[:4], []byte{547 >> 8, 547 & 255, 546 >> 8, 546 & 255}) {
		t.Fatalf("from %v to %v: %x", src, dst, b[:8])
	}
	reply, err := dhcpv6.MessageFromBytes(b[8:])
	if err != nil {
		t.Fatal(err)
	}
	if reply.TransactionID != m.TransactionID || reply.Options.ServerID() == nil {
		t.Fatalf("odd reply %v", reply.Summary())
	}
	return reply, nil
}

func TestDHCPv6(t *testing.T) {
	n := network6()
	first, err := ask6(t, message6(t, dhcpv6.MessageTypeSolicit, dhcpv6.WithIAID([4]byte{1})), n)
	if err != nil {
		t.Fatal(err)
	}
	server := dhcpv6.WithServerID(first.Options.ServerID())
	foreign := dhcpv6.WithIANA(dhcpv6.OptIAAddress{IPv6Addr: net.ParseIP("fd00:1::6")})
	own := dhcpv6.WithIANA(dhcpv6.OptIAAddress{IPv6Addr: net.ParseIP("fd00:1::5")})
	for _, c := range []struct {
		name    string
		in      *dhcpv6.Message
		want    dhcpv6.MessageType // 0: silence
		addrs   []string           // with "-": for no longer
		status  iana.StatusCode
		without bool // no status
	}{
		{"solicit", message6(t, dhcpv6.MessageTypeSolicit, dhcpv6.WithIAID([4]byte{1})), dhcpv6.MessageTypeAdvertise, []string{"fd00:1::5"}, 0, true},
		{"rapid commit", message6(t, dhcpv6.MessageTypeSolicit, dhcpv6.WithIAID([4]byte{1}), dhcpv6.WithRapidCommit), dhcpv6.MessageTypeReply, []string{"fd00:1::5"}, 0, true},
		{"solicit with a server", message6(t, dhcpv6.MessageTypeSolicit, dhcpv6.WithIAID([4]byte{1}), server), 0, nil, 0, true},
		{"request", message6(t, dhcpv6.MessageTypeRequest, own, server), dhcpv6.MessageTypeReply, []string{"fd00:1::5"}, 0, true},
		{"request without a server", message6(t, dhcpv6.MessageTypeRequest, own), 0, nil, 0, true},
		{"request of another server", message6(t, dhcpv6.MessageTypeRequest, own, dhcpv6.WithServerID(&dhcpv6.DUIDLL{HWType: 1, LinkLayerAddr: guestMAC})), 0, nil, 0, true},
		{"renew another's", message6(t, dhcpv6.MessageTypeRenew, foreign, server), dhcpv6.MessageTypeReply, []string{"fd00:1::5", "-fd00:1::6"}, 0, true},
		{"rebind", message6(t, dhcpv6.MessageTypeRebind, own), dhcpv6.MessageTypeReply, []string{"fd00:1::5"}, 0, true},
		{"confirm", message6(t, dhcpv6.MessageTypeConfirm, own), dhcpv6.MessageTypeReply, nil, iana.StatusSuccess, false},
		{"confirm another's", message6(t, dhcpv6.MessageTypeConfirm, foreign), dhcpv6.MessageTypeReply, nil, iana.StatusNotOnLink, false},
		{"release", message6(t, dhcpv6.MessageTypeRelease, own, server), dhcpv6.MessageTypeReply, nil, iana.StatusSuccess, false},
		{"decline", message6(t, dhcpv6.MessageTypeDecline, own, server), dhcpv6.MessageTypeReply, nil, iana.StatusSuccess, false},
		{"information", message6(t, dhcpv6.MessageTypeInformationRequest), dhcpv6.MessageTypeReply, nil, 0, true},
		{"information with addresses", message6(t, dhcpv6.MessageTypeInformationRequest, own), 0, nil, 0, true},
		{"reply", message6(t, dhcpv6.MessageTypeReply, own, server), 0, nil, 0, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			m, err := ask6(t, c.in, n)
			if c.want == 0 {
				if !errors.Is(err, responder.ErrIgnored) {
					t.Fatalf("%v, %v; want silence", m, err)
				}
				return
			}
			if err != nil || m.MessageType != c.want {
				t.Fatalf("%v, %v", m, err)
			}
			var got []string
			for _, ia := range m.Options.IANA() {
				for _, a := range ia.Options.Addresses() {
					s := a.IPv6Addr.String()
					if a.ValidLifetime == 0 {
						s = "-" + s
					}
					got = append(got, s)
				}
			}
			if len(got) != len(c.addrs) {
				t.Fatalf("addresses %v, want %v", got, c.addrs)
			}
			for i := range got {
				if got[i] != c.addrs[i] {
					t.Errorf("addresses %v, want %v", got, c.addrs)
				}
			}
			if s := m.Options.Status(); (s == nil) != c.without || s != nil && s.StatusCode != c.status {
				t.Errorf("status %v", s)
			}
			if dns := m.Options.DNS(); len(dns) != 1 || dns[0].String() != "fd00::54" {
				t.Errorf("DNS %v", dns)
			}
			if d := m.Options.DomainSearchList(); d == nil || len(d.Labels) != 1 || d.Labels[0] != "example.org" {
				t.Errorf("domains %v", d)
			}
			if ntp := m.Options.NTPServers(); len(ntp) != 1 || ntp[0].String() != "fd00::123" {
				t.Errorf("NTP %v", ntp)
			}
			if u := m.Options.BootFileURL(); u != "http://[fd00::1]/x" {
				t.Errorf("boot file %q", u)
			}
		})
	}
	// Of a stateless subnet a guest gets options and no address.
	n.Subnets[2].AddressMode = model.DHCPv6Stateless
	if m, err := ask6(t, message6(t, dhcpv6.MessageTypeSolicit, own), n); !errors.Is(err, responder.ErrIgnored) {
		t.Errorf("%v, %v; want silence", m, err)
	}
	if m, err := ask6(t, message6(t, dhcpv6.MessageTypeInformationRequest), n); err != nil || len(m.Options.DNS()) != 1 {
		t.Errorf("%v, %v", m, err)
	}
}

// More options of IPv4 than dnsmasq's plain ones.
func TestExtraOptions(t *testing.T) {
	p := *port
	p.DHCPOptions = []model.DHCPOption{{Name: "domain-search", Value: "a.example,b.example", IPVersion: 4}, {Name: "option:classless-static-route", Value: "10.8.0.0/14,10.0.0.9,0.0.0.0/0,10.0.0.1"},
		{Name: "router", Value: "10.0.0.7"}, {Name: "dns-server", Value: "10.0.0.8, 10.0.0.9"}, {Name: "mtu", Value: "1300"}, {Name: "server-ip-address", Value: "10.0.0.3"},
		{Name: "tftp-server", Value: "10.0.0.3"}, {Name: "bootfile-name", Value: "x"}, {Name: "dns-server", Value: "fd00::1", IPVersion: 6}, {Name: "119", Value: "..", IPVersion: 4}}
	m := discoverOptions(t, &p)
	for code, want := range map[uint8]string{119: "\x01a\x07example\x00\x01b\x07example\x00", 121: "\x0e\x0a\x08\x0a\x00\x00\x09\x00\x0a\x00\x00\x01", 3: "\x0a\x00\x00\x07",
		6: "\x0a\x00\x00\x08\x0a\x00\x00\x09", 26: "\x05\x14", 66: "10.0.0.3", 67: "x"} {
		if got := m[code]; string(got) != want {
			t.Errorf("option %d: %q, want %q", code, got, want)
		}
	}
}

func FuzzDHCPv6(f *testing.F) {
	for _, k := range []dhcpv6.MessageType{dhcpv6.MessageTypeSolicit, dhcpv6.MessageTypeRequest, dhcpv6.MessageTypeInformationRequest} {
		f.Add(request6(message6(f, k, dhcpv6.WithIAID([4]byte{1}))))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if out, err := responder.DHCPv6(b, port6, network6()); err == nil {
			sound(t, out)
		}
	})
}

func FuzzRA(f *testing.F) {
	f.Add(solicitation(linkLocal))
	f.Fuzz(func(t *testing.T, b []byte) {
		out, err := responder.SolicitedRA(b, port6, network6(), nil)
		if err != nil && !errors.Is(err, responder.ErrIgnored) {
			t.Fatal(err)
		}
		for _, o := range out {
			sound(t, o)
		}
	})
}

func BenchmarkDHCPv6(b *testing.B) {
	in, n := request6(message6(b, dhcpv6.MessageTypeSolicit, dhcpv6.WithIAID([4]byte{1}))), network6()
	for b.Loop() {
		if _, err := responder.DHCPv6(in, port6, n); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkRA(b *testing.B) {
	in, n := solicitation(linkLocal), network6()
	for b.Loop() {
		if _, err := responder.SolicitedRA(in, port6, n, nil); err != nil {
			b.Fatal(err)
		}
	}
}

func TestRABare(t *testing.T) {
	six, n := *port6, network6()
	six.FixedIPs = slices.DeleteFunc(slices.Clone(six.FixedIPs), func(f model.FixedIP) bool { return f.Address.Is4() })
	for i := range n.Subnets {
		n.Subnets[i].DNS = nil
	}
	for _, bare := range []bool{false, true} {
		n.Bare = bare
		frames, err := responder.SolicitedRA(solicitation(linkLocal), &six, n, nil)
		if err != nil || len(frames) == 0 {
			t.Fatalf("%d frames, %v", len(frames), err)
		}
		if got := bytes.Contains(frames[0], pipeline.ServiceAddr6.AsSlice()); got == bare {
			t.Errorf("bare %v: told of the host's resolver: %v", bare, got)
		}
	}
}
