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
	TrackState              // bits Tracked…Invalid; filled by Track
	TrackMark               // mark of the tracked connection
	ConjID                  // id of a conjunction that matched

	EthSrc
	EthDst
	EthType
	VLAN // 0: untagged
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
	numFields
)

// Values of InPort beyond the ordinals of local ports.
const (
	PortTunnel  uint64 = 1 << 32
	PortService uint64 = 2 << 32 // the metadata device
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

	ProtoICMP    = 1
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

// Term asks that the bits of Field that Mask names equal those of Value. Fields wider than
// 64 bits (IPv6) will get a term type of their own; no field is so wide yet.
type Term struct {
	Field       Field
	Value, Mask uint64
}

// Is asks for the exact value.
func Is(f Field, v uint64) Term { return Term{f, v, ones(fields[f].bits)} }

// Masked asks for some bits.
func Masked(f Field, v, mask uint64) Term { return Term{f, v & mask, mask} }

// IsMAC asks for an exact MAC.
func IsMAC(f Field, m MAC) Term { return Is(f, m.Number()) }

// Within asks that an IPv4 address lies in p.
func Within(f Field, p netip.Prefix) Term {
	mask := ones(32) &^ ones(32-p.Bits())
	return Term{f, AddrNumber(p.Addr()) & mask, mask}
}

// State asks that the bits in set are set and those in clear are not.
func State(set, clear uint64) Term { return Term{TrackState, set, set | clear} }

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
		if t.Mask == 0 {
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

func (m Match) appendKey(b []byte) []byte {
	for _, t := range m {
		b = append(b, byte(t.Field))
		b = binary.BigEndian.AppendUint64(b, t.Value)
		b = binary.BigEndian.AppendUint64(b, t.Mask)
	}
	return b
}

var stateNames = [...]string{"trk", "new", "est", "rel", "rpl", "inv"}

func portText(v uint64) string {
	switch v {
	case PortTunnel:
		return "tunnel"
	case PortService:
		return "service"
	}
	return fmt.Sprintf("port-%d", v)
}

func formatValue(f Field, v uint64) string {
	switch fields[f].format {
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
	text := i.name + "=" + formatValue(t.Field, t.Value)
	if t.Mask == ones(i.bits) {
		return text
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
		default:
			b.WriteString(t.String())
		}
	}
	return b.String()
}
