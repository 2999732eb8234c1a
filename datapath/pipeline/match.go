package pipeline

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"
)

// Field is a property of a packet, or of its way through the pipeline.
type Field uint8

// The fields. The first group is the pipeline's own and starts at zero for each packet.
const (
	InPort     Field = iota // where it came in: the ordinal of a local port, or PortTunnel, PortService
	Net                     // the network's id on the wire (VNI), 24 bits; 0 for the metadata device
	From                    // ordinal of the sending local port; 0 from a tunnel or the metadata device
	To                      // ordinal of the receiving local port
	TunnelID                // VNI of a packet from a tunnel
	Router                  // ordinal of the router that has the packet, 0 none; also its conntrack zone
	NextHop                 // IPv4 address that the packet goes to next, in Net; filled by routing
	NextHop6                // the same for IPv6
	Landed                  // 1: it came over the wire of its network and must not go back there
	Large                   // 1: CheckSize found it too large
	Scope                   // number of the address scopes that a router was given the packet from, 0 none; only of routers with several
	TrackState              // bits Tracked…Invalid; filled by Track
	TrackMark               // mark of the tracked connection
	ConjID                  // id of a conjunction that matched

	EthSrc
	EthDst
	EthType
	VLAN // 0: untagged; else the id with the bit 0x1000
	ARPOp
	ARPSenderMAC
	ARPSenderIP
	ARPTargetIP
	IPSrc
	IPDst
	IPProto
	TCPSrc
	TCPDst
	UDPSrc
	UDPDst
	SCTPSrc
	SCTPDst
	ICMPType
	ICMPCode
	IPTTL  // of IPv4 and IPv6 (hop limit)
	IPDSCP // of IPv4 and IPv6
	IPFrag // 0: not a fragment; 1: first fragment; 3: a later one
	IP6Src
	IP6Dst
	ICMP6Type
	ICMP6Code
	NDTarget // of neighbour solicitations and advertisements (RFC 4861)
	NDSourceMAC
	NDTargetMAC
	numFields
)

// Values of InPort beyond the ordinals of local ports.
const (
	PortTunnel       uint64 = 1 << 32 // VXLAN
	PortTunnelGRE    uint64 = PortTunnel + 1
	PortTunnelGeneve uint64 = PortTunnel + 2
	PortService      uint64 = 2 << 32 // the metadata device
	PortProvider     uint64 = 3 << 32 // plus the ordinal of a physical network: its provider bridge
)

// Bits of TrackState.
const (
	Tracked     uint64 = 1 << 0
	New         uint64 = 1 << 1
	Established uint64 = 1 << 2
	Related     uint64 = 1 << 3
	Reply       uint64 = 1 << 4
	Invalid     uint64 = 1 << 5
)

// Ether types and protocols.
const (
	TypeIPv4 = 0x0800
	TypeARP  = 0x0806
	TypeRARP = 0x8035
	TypeIPv6 = 0x86dd

	ProtoICMP    = 1
	ProtoIGMP    = 2
	ProtoICMPv6  = 58
	ProtoTCP     = 6
	ProtoUDP     = 17
	ProtoSCTP    = 132
	ProtoUDPLite = 136
	ARPRequest   = 1
	ARPReply     = 2
)

type fieldFormat uint8

const (
	formatNumber fieldFormat = iota
	formatMAC
	formatIPv4
	formatIPv6
	formatState
	formatHex
	formatPort
)

type fieldInfo struct {
	name   string
	bits   int
	format fieldFormat
	text   string
}

var fields = [numFields]fieldInfo{
	InPort:       {"in", 64, formatPort, "where the packet came in: a local port's ordinal, tunnel, or service"},
	Net:          {"net", 24, formatNumber, "network id (VNI)"},
	From:         {"from", 16, formatNumber, "ordinal of the sending local port, 0 if it is elsewhere"},
	To:           {"to", 16, formatNumber, "ordinal of the receiving local port"},
	TunnelID:     {"tunnel", 24, formatNumber, "VNI that a packet from a tunnel carries"},
	Router:       {"router", 16, formatNumber, "ordinal of the router that has the packet, and its conntrack zone"},
	NextHop:      {"next_hop", 32, formatIPv4, "IPv4 address that a routed packet goes to next"},
	NextHop6:     {"next_hop6", 128, formatIPv6, "IPv6 address that a routed packet goes to next"},
	Landed:       {"landed", 1, formatNumber, "1: it came over the wire of its network and does not go back there"},
	Large:        {"large", 1, formatNumber, "1: larger than the check asked for"},
	Scope:        {"scope", 16, formatNumber, "address scopes of the network by which the packet came to its router, 0 where it is held to none"},
	TrackState:   {"track", 6, formatState, "connection state, after conntrack"},
	TrackMark:    {"mark", 32, formatNumber, "mark of the connection, 1 is blocked"},
	ConjID:       {"conj", 32, formatNumber, "rule whose clauses all matched"},
	EthSrc:       {"eth_src", 48, formatMAC, "Ethernet source"},
	EthDst:       {"eth_dst", 48, formatMAC, "Ethernet destination"},
	EthType:      {"eth_type", 16, formatHex, "Ethernet type"},
	VLAN:         {"vlan", 13, formatNumber, "VLAN tag, 0 is untagged"},
	ARPOp:        {"arp_op", 16, formatNumber, "1 request, 2 reply"},
	ARPSenderMAC: {"arp_sha", 48, formatMAC, "ARP sender's MAC"},
	ARPSenderIP:  {"arp_spa", 32, formatIPv4, "ARP sender's address"},
	ARPTargetIP:  {"arp_tpa", 32, formatIPv4, "ARP target's address"},
	IPSrc:        {"ip_src", 32, formatIPv4, "IPv4 source"},
	IPDst:        {"ip_dst", 32, formatIPv4, "IPv4 destination"},
	IPProto:      {"ip_proto", 8, formatNumber, "IP protocol"},
	TCPSrc:       {"tcp_src", 16, formatNumber, "TCP source port"},
	TCPDst:       {"tcp_dst", 16, formatNumber, "TCP destination port"},
	UDPSrc:       {"udp_src", 16, formatNumber, "UDP source port"},
	UDPDst:       {"udp_dst", 16, formatNumber, "UDP destination port"},
	SCTPSrc:      {"sctp_src", 16, formatNumber, "SCTP source port"},
	SCTPDst:      {"sctp_dst", 16, formatNumber, "SCTP destination port"},
	ICMPType:     {"icmp_type", 8, formatNumber, "ICMP type"},
	ICMPCode:     {"icmp_code", 8, formatNumber, "ICMP code"},
	IPTTL:        {"ttl", 8, formatNumber, "time to live, hop limit"},
	IPDSCP:       {"dscp", 6, formatNumber, "differentiated services code point"},
	IPFrag:       {"frag", 2, formatNumber, "0 whole, 1 first fragment, 3 a later one"},
	IP6Src:       {"ip6_src", 128, formatIPv6, "IPv6 source"},
	IP6Dst:       {"ip6_dst", 128, formatIPv6, "IPv6 destination"},
	ICMP6Type:    {"icmp6_type", 8, formatNumber, "ICMPv6 type"},
	ICMP6Code:    {"icmp6_code", 8, formatNumber, "ICMPv6 code"},
	NDTarget:     {"nd_target", 128, formatIPv6, "neighbour discovery: the address asked for"},
	NDSourceMAC:  {"nd_sll", 48, formatMAC, "neighbour discovery: the asker's MAC, as it says"},
	NDTargetMAC:  {"nd_tll", 48, formatMAC, "neighbour discovery: the MAC answered"},
}

// String gives the field's name.
func (f Field) String() string {
	if f < numFields {
		return fields[f].name
	}
	return fmt.Sprintf("field-%d", uint8(f))
}

// Bits gives the field's width.
func (f Field) Bits() int { return fields[f].bits }

func ones(n int) uint64 {
	if n >= 64 {
		return ^uint64(0)
	}
	return 1<<n - 1
}

// Term asks that the bits of Field that the mask names equal those of the value. High and
// HighMask are the upper 64 bits of a field that is wider than 64 bits (IPv6 addresses).
type Term struct {
	Field          Field
	Value, Mask    uint64
	High, HighMask uint64
}

// Is asks for the exact value of a field of at most 64 bits.
func Is(f Field, v uint64) Term { return Term{Field: f, Value: v, Mask: ones(fields[f].bits)} }

// Masked asks for some bits of a field of at most 64 bits.
func Masked(f Field, v, mask uint64) Term { return Term{Field: f, Value: v & mask, Mask: mask} }

// IsMAC asks for an exact MAC.
func IsMAC(f Field, m MAC) Term { return Is(f, m.Number()) }

// IsAddr asks for an exact address; f is a field of the address's family.
func IsAddr(f Field, a netip.Addr) Term { return Within(f, netip.PrefixFrom(a, a.BitLen())) }

// Within asks that an address lies in p; f is a field of p's family.
func Within(f Field, p netip.Prefix) Term {
	if p.Addr().Is4() {
		mask := ones(32) &^ ones(32-p.Bits())
		return Term{Field: f, Value: AddrNumber(p.Addr()) & mask, Mask: mask}
	}
	high, low := AddrNumbers(p.Addr())
	t := Term{Field: f, High: high, Value: low, HighMask: ^uint64(0), Mask: ^uint64(0)}
	if n := p.Bits(); n < 64 {
		t.HighMask, t.Mask = ^ones(64-n), 0
	} else {
		t.Mask = ^ones(128 - n)
		if n == 64 {
			t.Mask = 0
		}
	}
	t.High, t.Value = t.High&t.HighMask, t.Value&t.Mask
	return t
}

// full tells whether the term names all bits of its field.
func (t Term) full() bool {
	bits := fields[t.Field].bits
	return t.Mask == ones(bits) && (bits <= 64 || t.HighMask == ones(bits-64))
}

// Tagged asks for an 802.1Q tag with the id; Is(VLAN, 0) asks for none.
func Tagged(id uint16) Term { return Is(VLAN, uint64(id)|tagPresent) }

// tagPresent, in VLAN, says that there is a tag at all: its id may be 0.
const tagPresent = 0x1000

// State asks that the bits in set are set and those in clear are not.
func State(set, clear uint64) Term { return Term{Field: TrackState, Value: set, Mask: set | clear} }

// AddrNumbers gives the two halves of an address, IPv4 in the lower one.
func AddrNumbers(a netip.Addr) (high, low uint64) {
	if a = a.Unmap(); a.Is4() {
		return 0, AddrNumber(a)
	}
	b := a.As16()
	return binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])
}

// NumbersAddr6 makes an IPv6 address of its halves.
func NumbersAddr6(high, low uint64) netip.Addr {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], high)
	binary.BigEndian.PutUint64(b[8:], low)
	return netip.AddrFrom16(b)
}

// AddrNumber gives an IPv4 address as a number, 0 for any other.
func AddrNumber(a netip.Addr) uint64 {
	a = a.Unmap()
	if !a.Is4() {
		return 0
	}
	b := a.As4()
	return uint64(binary.BigEndian.Uint32(b[:]))
}

// NumberAddr is the inverse of AddrNumber.
func NumberAddr(n uint64) netip.Addr {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], uint32(n))
	return netip.AddrFrom4(b)
}

// MAC is an Ethernet address.
type MAC [6]byte

// ParseMAC reads six pairs of hexadecimal digits with colons between.
func ParseMAC(s string) (MAC, error) {
	var m MAC
	if len(s) != 17 {
		return m, fmt.Errorf("%.40q is not a MAC address", s)
	}
	for i := range m {
		hi, lo := hexDigit(s[3*i]), hexDigit(s[3*i+1])
		if hi > 15 || lo > 15 || (i < 5 && s[3*i+2] != ':') {
			return MAC{}, fmt.Errorf("%.40q is not a MAC address", s)
		}
		m[i] = hi<<4 | lo
	}
	return m, nil
}

func hexDigit(c byte) byte {
	switch {
	case c >= '0' && c <= '9':
		return c - '0'
	case c >= 'a' && c <= 'f':
		return c - 'a' + 10
	case c >= 'A' && c <= 'F':
		return c - 'A' + 10
	}
	return 255
}

// Number gives the address as a 48-bit number.
func (m MAC) Number() uint64 {
	return uint64(m[0])<<40 | uint64(m[1])<<32 | uint64(m[2])<<24 | uint64(m[3])<<16 | uint64(m[4])<<8 | uint64(m[5])
}

// NumberMAC is the inverse of Number.
func NumberMAC(n uint64) MAC {
	return MAC{byte(n >> 40), byte(n >> 32), byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}
}

// String gives the address in lower case.
func (m MAC) String() string {
	const digits = "0123456789abcdef"
	var b [17]byte
	for i, c := range m {
		b[3*i], b[3*i+1] = digits[c>>4], digits[c&15]
		if i < 5 {
			b[3*i+2] = ':'
		}
	}
	return string(b[:])
}

// Match is a set of terms in the order of their fields, one a field; a packet must meet all.
type Match []Term

// MatchOf makes a Match. A term without mask bits says nothing and is left out.
func MatchOf(terms ...Term) Match {
	m := make(Match, 0, len(terms))
	for _, t := range terms {
		if t.Mask == 0 && t.HighMask == 0 {
			continue
		}
		m = append(m, t)
		for i := len(m) - 1; i > 0 && m[i-1].Field > m[i].Field; i-- {
			m[i-1], m[i] = m[i], m[i-1]
		}
	}
	return m
}

// Get gives the term on f.
func (m Match) Get(f Field) (Term, bool) {
	for _, t := range m {
		if t.Field == f {
			return t, true
		}
	}
	return Term{}, false
}

// appendKey adds what tells the match from all others: for each term the field, whether all bits count, the value and,
// where they do not, the mask.
func (m Match) appendKey(b []byte) []byte {
	for i := range m {
		t := &m[i]
		full := t.full()
		if full {
			b = append(b, byte(t.Field)|1<<7)
		} else {
			b = append(b, byte(t.Field))
		}
		bits := fields[t.Field].bits
		b = appendNumber(b, bits, t.High, t.Value)
		if !full {
			b = appendNumber(b, bits, t.HighMask, t.Mask)
		}
	}
	return b
}

// appendNumber adds as many bytes as a field of so many bits has.
func appendNumber(b []byte, bits int, high, low uint64) []byte {
	if bits > 64 {
		b = binary.BigEndian.AppendUint64(b, high)
		bits = 64
	}
	for shift := (bits - 1) &^ 7; shift >= 0; shift -= 8 {
		b = append(b, byte(low>>shift))
	}
	return b
}

var stateNames = [...]string{"trk", "new", "est", "rel", "rpl", "inv"}

func portText(v uint64) string {
	switch v {
	case PortTunnel:
		return "tunnel"
	case PortTunnelGRE:
		return "tunnel-gre"
	case PortTunnelGeneve:
		return "tunnel-geneve"
	case PortService:
		return "service"
	}
	if v >= PortProvider {
		return fmt.Sprintf("provider-%d", v-PortProvider)
	}
	return fmt.Sprintf("port-%d", v)
}

func formatValue(f Field, high, v uint64) string {
	switch fields[f].format {
	case formatIPv6:
		return NumbersAddr6(high, v).String()
	case formatMAC:
		return NumberMAC(v).String()
	case formatIPv4:
		return NumberAddr(v).String()
	case formatHex:
		return fmt.Sprintf("0x%04x", v)
	case formatPort:
		return portText(v)
	}
	return fmt.Sprint(v)
}

// String gives name=value, with a prefix length or a mask behind a slash where not all bits count.
func (t Term) String() string {
	i := &fields[t.Field]
	if i.format == formatState {
		var b strings.Builder
		b.WriteString("track=")
		for n, name := range stateNames {
			if t.Mask>>n&1 == 1 {
				b.WriteByte("-+"[t.Value>>n&1])
				b.WriteString(name)
			}
		}
		return b.String()
	}
	text := i.name + "=" + formatValue(t.Field, t.High, t.Value)
	if t.full() {
		return text
	}
	if i.format == formatIPv6 {
		for n := range 128 {
			if p := Within(t.Field, netip.PrefixFrom(netip.IPv6Unspecified(), n)); p.Mask == t.Mask && p.HighMask == t.HighMask {
				return fmt.Sprintf("%s/%d", text, n)
			}
		}
		return fmt.Sprintf("%s/%v", text, NumbersAddr6(t.HighMask, t.Mask))
	}
	if i.format == formatIPv4 {
		for n := 0; n < 32; n++ {
			if t.Mask == ones(32)&^ones(32-n) {
				return fmt.Sprintf("%s/%d", text, n)
			}
		}
	}
	if i.format == formatMAC {
		return text + "/" + NumberMAC(t.Mask).String()
	}
	return fmt.Sprintf("%s/0x%x", text, t.Mask)
}

// String lists the terms with spaces between; "any" for the match that every packet meets.
// The usual EtherType terms are shortened to ip and arp.
func (m Match) String() string {
	if len(m) == 0 {
		return "any"
	}
	var b strings.Builder
	for i, t := range m {
		if i > 0 {
			b.WriteByte(' ')
		}
		switch t {
		case Is(EthType, TypeIPv4):
			b.WriteString("ip")
		case Is(EthType, TypeARP):
			b.WriteString("arp")
		case Is(EthType, TypeIPv6):
			b.WriteString("ip6")
		default:
			b.WriteString(t.String())
		}
	}
	return b.String()
}
