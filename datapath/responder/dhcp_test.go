package responder_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"testing"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"yakumo/datapath/pipeline"
	"yakumo/datapath/responder"
	"yakumo/model"
)

var (
	guestMAC = net.HardwareAddr{0xfa, 0x16, 0x3e, 0, 0, 5}
	port     = &model.HostPort{ID: "p", MAC: guestMAC.String(), HostName: "web-1",
		FixedIPs:    []model.FixedIP{{SubnetID: "s", Address: netip.MustParseAddr("10.0.0.5")}},
		DHCPOptions: []model.DHCPOption{{Name: "ntp-server", Value: "192.0.2.1,192.0.2.2", IPVersion: 4}, {Name: "67", Value: "undionly.kpxe", IPVersion: 4}, {Name: "53", Value: "x"}}}
	network = &model.HostNetwork{ID: "n", MTU: 1450, DNSDomain: "example.org.", Subnets: []model.HostSubnet{{ID: "s", CIDR: netip.MustParsePrefix("10.0.0.0/24"),
		Gateway: netip.MustParseAddr("10.0.0.1"), DNS: []netip.Addr{netip.MustParseAddr("192.0.2.53")}, DHCP: true,
		Routes: []model.Route{{Destination: netip.MustParsePrefix("10.9.0.0/16"), NextHop: netip.MustParseAddr("10.0.0.9")}}}}}
)

// frame puts a DHCP message into a frame as a client sends it.
func frame(m *dhcpv4.DHCPv4) []byte {
	p := m.ToBytes()
	b := make([]byte, 42, 42+len(p))
	copy(b, []byte{255, 255, 255, 255, 255, 255})
	copy(b[6:], guestMAC)
	binary.BigEndian.PutUint16(b[12:], 0x0800)
	b[14], b[22], b[23] = 0x45, 64, 17
	binary.BigEndian.PutUint16(b[16:], uint16(28+len(p)))
	copy(b[30:], []byte{255, 255, 255, 255})
	binary.BigEndian.PutUint16(b[34:], 68)
	binary.BigEndian.PutUint16(b[36:], 67)
	binary.BigEndian.PutUint16(b[38:], uint16(8+len(p)))
	return append(b, p...)
}

func message(t testing.TB, kind dhcpv4.MessageType, change ...dhcpv4.Modifier) *dhcpv4.DHCPv4 {
	m, err := dhcpv4.New(append([]dhcpv4.Modifier{dhcpv4.WithHwAddr(guestMAC), dhcpv4.WithMessageType(kind)}, change...)...)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// checksum is what a receiver computes: zero for a sound header.
func checksum(b []byte) uint16 {
	s := uint32(0)
	for i := 0; i+1 < len(b); i += 2 {
		s += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for s>>16 != 0 {
		s = s&0xffff + s>>16
	}
	return ^uint16(s)
}

func TestDHCP(t *testing.T) {
	own, other := dhcpv4.OptRequestedIPAddress(net.IP{10, 0, 0, 5}), dhcpv4.OptRequestedIPAddress(net.IP{10, 0, 0, 6})
	broadcast := func(m *dhcpv4.DHCPv4) { m.SetBroadcast() }
	for _, c := range []struct {
		name string
		in   *dhcpv4.DHCPv4
		want dhcpv4.MessageType // 0: silence
		yi   string
		dst  string
	}{
		{"discover", message(t, dhcpv4.MessageTypeDiscover), dhcpv4.MessageTypeOffer, "10.0.0.5", "10.0.0.5"},
		{"discover asking another address", message(t, dhcpv4.MessageTypeDiscover, dhcpv4.WithOption(other)), dhcpv4.MessageTypeOffer, "10.0.0.5", "10.0.0.5"},
		{"discover, broadcast wanted", message(t, dhcpv4.MessageTypeDiscover, broadcast), dhcpv4.MessageTypeOffer, "10.0.0.5", "255.255.255.255"},
		{"select", message(t, dhcpv4.MessageTypeRequest, dhcpv4.WithOption(own), dhcpv4.WithOption(dhcpv4.OptServerIdentifier(net.IP{169, 254, 169, 254}))), dhcpv4.MessageTypeAck, "10.0.0.5", "10.0.0.5"},
		{"select another server", message(t, dhcpv4.MessageTypeRequest, dhcpv4.WithOption(own), dhcpv4.WithOption(dhcpv4.OptServerIdentifier(net.IP{10, 0, 0, 2}))), 0, "", ""},
		{"reboot", message(t, dhcpv4.MessageTypeRequest, dhcpv4.WithOption(own)), dhcpv4.MessageTypeAck, "10.0.0.5", "10.0.0.5"},
		{"reboot with another's address", message(t, dhcpv4.MessageTypeRequest, dhcpv4.WithOption(other)), dhcpv4.MessageTypeNak, "0.0.0.0", "255.255.255.255"},
		{"renew", message(t, dhcpv4.MessageTypeRequest, dhcpv4.WithClientIP(net.IP{10, 0, 0, 5})), dhcpv4.MessageTypeAck, "10.0.0.5", "10.0.0.5"},
		{"renew another's address", message(t, dhcpv4.MessageTypeRequest, dhcpv4.WithClientIP(net.IP{10, 0, 0, 6})), dhcpv4.MessageTypeNak, "0.0.0.0", "255.255.255.255"},
		{"inform", message(t, dhcpv4.MessageTypeInform, dhcpv4.WithClientIP(net.IP{10, 0, 0, 5})), dhcpv4.MessageTypeAck, "0.0.0.0", "10.0.0.5"},
		{"release", message(t, dhcpv4.MessageTypeRelease, dhcpv4.WithClientIP(net.IP{10, 0, 0, 5})), 0, "", ""},
		{"decline", message(t, dhcpv4.MessageTypeDecline, dhcpv4.WithOption(own)), 0, "", ""},
		{"another client", message(t, dhcpv4.MessageTypeDiscover, dhcpv4.WithHwAddr(net.HardwareAddr{2, 0, 0, 0, 0, 1})), 0, "", ""},
		{"relayed", message(t, dhcpv4.MessageTypeDiscover, dhcpv4.WithGatewayIP(net.IP{10, 0, 0, 1})), 0, "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			out, err := responder.DHCP(frame(c.in), port, network)
			if c.want == 0 {
				if !errors.Is(err, responder.ErrIgnored) || out != nil {
					t.Fatalf("got %d bytes, %v; want silence", len(out), err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if checksum(out[14:34]) != 0 {
				t.Error("bad IP checksum")
			}
			pseudo := append(append([]byte{}, out[26:34]...), 0, 17, out[38], out[39])
			if body := append(pseudo, out[34:]...); checksum(append(body, make([]byte, len(body)%2)...)) != 0 {
				t.Error("bad UDP checksum")
			}
			m, err := dhcpv4.FromBytes(out[42:])
			if err != nil {
				t.Fatal(err)
			}
			dst := netip.AddrFrom4([4]byte(out[30:34])).String()
			if m.MessageType() != c.want || m.YourIPAddr.String() != c.yi || dst != c.dst || m.TransactionID != c.in.TransactionID {
				t.Errorf("got %v yiaddr %v to %s, want %v %s to %s", m.MessageType(), m.YourIPAddr, dst, c.want, c.yi, c.dst)
			}
			if !m.ServerIdentifier().Equal(net.IP{169, 254, 169, 254}) {
				t.Errorf("server id %v", m.ServerIdentifier())
			}
		})
	}
}

func TestDHCPOptions(t *testing.T) {
	out, err := responder.DHCP(frame(message(t, dhcpv4.MessageTypeDiscover)), port, network)
	if err != nil {
		t.Fatal(err)
	}
	m, err := dhcpv4.FromBytes(out[42:])
	if err != nil {
		t.Fatal(err)
	}
	for code, want := range map[uint8][]byte{
		1: {255, 255, 255, 0}, 3: {10, 0, 0, 1}, 6: {192, 0, 2, 53}, 12: []byte("web-1"), 15: []byte("example.org"), 26: {5, 0xaa},
		42: {192, 0, 2, 1, 192, 0, 2, 2}, 51: {0, 1, 0x51, 0x80}, 53: {2}, 54: {169, 254, 169, 254}, 67: []byte("undionly.kpxe"),
		121: {32, 169, 254, 169, 254, 0, 0, 0, 0, 16, 10, 9, 10, 0, 0, 9, 0, 10, 0, 0, 1},
	} {
		if got := m.Options.Get(dhcpv4.GenericOptionCode(code)); !bytes.Equal(got, want) {
			t.Errorf("option %d: got %v, want %v", code, got, want)
		}
	}
}

// Whatever a guest sends, the answer is silence or a well-formed reply that gives out no
// address but the port's.
func FuzzDHCP(f *testing.F) {
	f.Add(frame(message(f, dhcpv4.MessageTypeDiscover)))
	f.Add(frame(message(f, dhcpv4.MessageTypeRequest, dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(net.IP{10, 0, 0, 5})))))
	f.Add(frame(message(f, dhcpv4.MessageTypeInform, dhcpv4.WithClientIP(net.IP{10, 0, 0, 5}))))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		out, err := responder.DHCP(b, port, network)
		if err != nil {
			if out != nil || !errors.Is(err, responder.ErrIgnored) {
				t.Fatalf("%d bytes and %v", len(out), err)
			}
			return
		}
		m, err := dhcpv4.FromBytes(out[42:])
		if err != nil {
			t.Fatalf("our own reply: %v", err)
		}
		if !m.YourIPAddr.IsUnspecified() && !m.YourIPAddr.Equal(net.IP{10, 0, 0, 5}) {
			t.Fatalf("gave out %v", m.YourIPAddr)
		}
		if !bytes.Equal(m.ClientHWAddr, guestMAC) || pipeline.MAC(out[6:12]) != pipeline.ServiceMAC {
			t.Fatalf("for %v from %v", m.ClientHWAddr, net.HardwareAddr(out[6:12]))
		}
	})
}

func BenchmarkDHCP(b *testing.B) {
	in := frame(message(b, dhcpv4.MessageTypeDiscover))
	for b.Loop() {
		if _, err := responder.DHCP(in, port, network); err != nil {
			b.Fatal(err)
		}
	}
}

// A subnet that names no server of names leaves it to the host.
func TestDHCPDefaultDNS(t *testing.T) {
	own := network.Subnets[0].DNS
	defer func() { network.Subnets[0].DNS = own }()
	for _, c := range []struct {
		dns  []netip.Addr
		want string
	}{{own, "\xc0\x00\x02\x35"}, {nil, "\xa9\xfe\xa9\xfe"}, {[]netip.Addr{netip.MustParseAddr("fd00::53")}, "\xa9\xfe\xa9\xfe"}} {
		network.Subnets[0].DNS = c.dns
		if got := discoverOptions(t, port)[6]; string(got) != c.want {
			t.Errorf("servers %v: told %x, want %x", c.dns, got, c.want)
		}
	}
}

// discoverOptions gives the options of the offer that a port gets.
func discoverOptions(t testing.TB, p *model.HostPort) dhcpv4.Options {
	t.Helper()
	out, err := responder.DHCP(frame(message(t, dhcpv4.MessageTypeDiscover)), p, network)
	if err != nil {
		t.Fatal(err)
	}
	m, err := dhcpv4.FromBytes(out[42:])
	if err != nil {
		t.Fatal(err)
	}
	return m.Options
}

// Where nobody serves guests beside the switch they are told of no service there, and else of the same.
func TestDHCPBare(t *testing.T) {
	own := network.Subnets[0].DNS
	defer func() { network.Subnets[0].DNS, network.Bare = own, false }()
	network.Subnets[0].DNS = nil
	full := discoverOptions(t, port)
	network.Bare = true
	bare := discoverOptions(t, port)
	if bare[6] != nil || bytes.Contains(bare[121], []byte("\xa9\xfe\xa9\xfe")) || !bytes.Contains(full[121], []byte("\xa9\xfe\xa9\xfe")) {
		t.Errorf("servers of names %x, routes %x", bare[6], bare[121])
	}
	if !bytes.Equal(bare[3], full[3]) || len(bare[121]) != len(full[121])-9 { // 32, four bytes of network, four of router
		t.Errorf("router %x, routes %x; want those of %x, %x but for the service's", bare[3], bare[121], full[3], full[121])
	}
	network.Subnets[0].DNS = own
	if got := discoverOptions(t, port)[6]; string(got) != "\xc0\x00\x02\x35" {
		t.Errorf("servers %v: told %x", own, got)
	}
}
