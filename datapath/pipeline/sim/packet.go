package sim

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"yakumo/datapath/pipeline"
)

// Packet is an Ethernet frame taken apart as far as the pipeline looks into it. Frames of
// other types carry all behind the Ethernet header in Payload.
type Packet struct {
	EthDst, EthSrc pipeline.MAC
	VLAN           uint16 // id of a tagged frame with the bit 0x1000 set; 0: untagged
	EthType        uint16

	// ARP, of EthType TypeARP.
	ARPOp  uint16
	ARPSHA pipeline.MAC
	ARPSPA netip.Addr
	ARPTHA pipeline.MAC
	ARPTPA netip.Addr

	// IPv4 and IPv6, of EthType TypeIPv4 and TypeIPv6. A fragment behind the first has its data in Payload.
	Src, Dst netip.Addr
	Proto    uint8 // IPv6: of what follows the extension headers
	TTL      uint8 // 0 stands for 64 in Frame
	DSCP     uint8
	Frag     uint8 // as pipeline.IPFrag has it
	DF       bool  // IPv4: do not fragment
	// Hops holds the bytes of an IPv6 hop-by-hop header, whole, where there is one (MLD has it).
	Hops []byte

	// TCP, UDP, SCTP. ICMP and ICMPv6 have type and code in their own fields, the echo id in SrcPort, and its
	// sequence number, or an error's MTU, in Seq.
	SrcPort, DstPort   uint16
	Flags              uint8 // TCP
	Seq, Ack           uint32
	ICMPType, ICMPCode uint8

	// Neighbour solicitations and advertisements (RFC 4861, 4.3 and 4.4).
	NDTarget netip.Addr
	NDMAC    pipeline.MAC // of the option with the source's or the target's address; zero: no option
	NDFlags  uint8

	Payload []byte
}

// TCP flags.
const (
	FIN = 1
	SYN = 2
	RST = 4
	ACK = 16
)

// Parse takes a frame apart. Payload shares memory with b.
func Parse(b []byte) (Packet, error) {
	var p Packet
	if len(b) < 14 {
		return p, fmt.Errorf("frame of %d bytes", len(b))
	}
	copy(p.EthDst[:], b)
	copy(p.EthSrc[:], b[6:])
	p.EthType = binary.BigEndian.Uint16(b[12:])
	b = b[14:]
	if p.EthType == 0x8100 && len(b) >= 4 {
		p.VLAN = binary.BigEndian.Uint16(b)&0xfff | 0x1000
		p.EthType = binary.BigEndian.Uint16(b[2:])
		b = b[4:]
	}
	p.Payload = b
	switch {
	case p.EthType == pipeline.TypeARP && len(b) >= 28:
		p.ARPOp = binary.BigEndian.Uint16(b[6:])
		copy(p.ARPSHA[:], b[8:])
		p.ARPSPA = netip.AddrFrom4([4]byte(b[14:18]))
		copy(p.ARPTHA[:], b[18:])
		p.ARPTPA = netip.AddrFrom4([4]byte(b[24:28]))
		p.Payload = nil
	case p.EthType == pipeline.TypeIPv4 && len(b) >= 20:
		head, total := int(b[0]&15)*4, int(binary.BigEndian.Uint16(b[2:]))
		if head < 20 || total < head || total > len(b) {
			return p, fmt.Errorf("IPv4 header of %d in a packet of %d in %d bytes", head, total, len(b))
		}
		p.DSCP, p.TTL, p.Proto = b[1]>>2, b[8], b[9]
		p.Src, p.Dst = netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20]))
		frag := binary.BigEndian.Uint16(b[6:])
		p.DF, p.Frag = frag&0x4000 != 0, fragment(frag&0x1fff != 0, frag&0x2000 != 0)
		p.transport(b[head:total])
	case p.EthType == pipeline.TypeIPv6 && len(b) >= 40:
		total := 40 + int(binary.BigEndian.Uint16(b[4:]))
		if total > len(b) {
			return p, fmt.Errorf("IPv6 packet of %d in %d bytes", total, len(b))
		}
		p.DSCP, p.TTL, p.Proto = b[0]<<2&0x3c|b[1]>>6, b[7], b[6]
		p.Src, p.Dst = netip.AddrFrom16([16]byte(b[8:24])), netip.AddrFrom16([16]byte(b[24:40]))
		return p, p.extensions(b[40:total])
	}
	return p, nil
}

// fragment gives what IPFrag says.
func fragment(later, more bool) uint8 {
	switch {
	case later:
		return 3
	case more:
		return 1
	}
	return 0
}

// IPv6 extension headers (RFC 8200, 4).
const (
	hopByHop       = 0
	routingHeader  = 43
	fragmentHeader = 44
	destinations   = 60
)

// extensions walks over the extension headers of an IPv6 packet.
func (p *Packet) extensions(b []byte) error {
	for {
		size := 8
		switch p.Proto {
		case hopByHop, routingHeader, destinations:
			if len(b) < 8 || len(b) < 8+8*int(b[1]) {
				return fmt.Errorf("IPv6 extension header in %d bytes", len(b))
			}
			size += 8 * int(b[1])
			if p.Proto == hopByHop {
				p.Hops = b[:size]
			}
		case fragmentHeader:
			if len(b) < 8 {
				return fmt.Errorf("IPv6 fragment header in %d bytes", len(b))
			}
			n := binary.BigEndian.Uint16(b[2:])
			p.Frag = fragment(n&^7 != 0, n&1 != 0)
		default:
			p.transport(b)
			return nil
		}
		p.Proto, b = b[0], b[size:]
	}
}

func (p *Packet) transport(b []byte) {
	p.Payload = b
	switch {
	case p.Frag == 3: // no header
	case p.Proto == pipeline.ProtoTCP && len(b) >= 20 && int(b[12]>>4)*4 >= 20 && int(b[12]>>4)*4 <= len(b):
		p.SrcPort, p.DstPort = binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
		p.Seq, p.Ack, p.Flags = binary.BigEndian.Uint32(b[4:]), binary.BigEndian.Uint32(b[8:]), b[13]
		p.Payload = b[int(b[12]>>4)*4:]
	case p.Proto == pipeline.ProtoUDP && len(b) >= 8:
		p.SrcPort, p.DstPort = binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
		p.Payload = b[8:]
	case p.Proto == pipeline.ProtoICMP && len(b) >= 8:
		p.ICMPType, p.ICMPCode = b[0], b[1]
		p.SrcPort, p.Seq = binary.BigEndian.Uint16(b[4:]), uint32(binary.BigEndian.Uint16(b[6:]))
		p.Payload = b[8:]
	case p.Proto == pipeline.ProtoICMPv6 && len(b) >= 8:
		p.ICMPType, p.ICMPCode = b[0], b[1]
		if p.discovery() && len(b) >= 24 {
			p.NDFlags = b[4]
			p.NDTarget = netip.AddrFrom16([16]byte(b[8:24]))
			if len(b) >= 32 && b[24] == p.optionType() && b[25] == 1 {
				copy(p.NDMAC[:], b[26:])
			}
			p.Payload = nil
			return
		}
		p.SrcPort, p.Seq = binary.BigEndian.Uint16(b[4:]), uint32(binary.BigEndian.Uint16(b[6:]))
		p.Payload = b[8:]
	}
}

// discovery tells whether this is a neighbour solicitation or advertisement.
func (p *Packet) discovery() bool { return p.ICMPType == 135 || p.ICMPType == 136 }

// optionType is that of the link-layer address option that goes with the message.
func (p *Packet) optionType() byte { return p.ICMPType - 134 }

func sum(s uint32, b []byte) uint32 {
	for ; len(b) > 1; b = b[2:] {
		s += uint32(binary.BigEndian.Uint16(b))
	}
	if len(b) == 1 {
		s += uint32(b[0]) << 8
	}
	return s
}

func fold(s uint32) uint16 {
	for s>>16 != 0 {
		s = s&0xffff + s>>16
	}
	return ^uint16(s)
}

// Frame puts the packet together, with right lengths and checksums.
func (p *Packet) Frame() []byte {
	b := append(append([]byte{}, p.EthDst[:]...), p.EthSrc[:]...)
	if p.VLAN != 0 {
		b = binary.BigEndian.AppendUint16(append(b, 0x81, 0), p.VLAN&0xfff)
	}
	b = binary.BigEndian.AppendUint16(b, p.EthType)
	switch p.EthType {
	case pipeline.TypeARP:
		b = binary.BigEndian.AppendUint16(append(b, 0, 1, 8, 0, 6, 4), p.ARPOp)
		b = append(append(b, p.ARPSHA[:]...), p.ARPSPA.AsSlice()...)
		b = append(append(b, p.ARPTHA[:]...), p.ARPTPA.AsSlice()...)
	case pipeline.TypeIPv4:
		t := p.segment()
		at := len(b)
		b = append(b, 0x45, p.DSCP<<2)
		b = binary.BigEndian.AppendUint16(b, uint16(20+len(t)))
		df := byte(0)
		if p.DF {
			df = 0x40
		}
		b = append(b, 0, 0, df, 0, p.ttl(), p.Proto, 0, 0)
		b = append(append(b, p.Src.AsSlice()...), p.Dst.AsSlice()...)
		binary.BigEndian.PutUint16(b[at+10:], fold(sum(0, b[at:])))
		b = append(b, t...)
	case pipeline.TypeIPv6:
		t, next := p.segment(), p.Proto
		if len(p.Hops) > 0 {
			next = hopByHop
		}
		b = append(b, 0x60|p.DSCP>>2, p.DSCP<<6, 0, 0)
		b = binary.BigEndian.AppendUint16(b, uint16(len(p.Hops)+len(t)))
		b = append(b, next, p.ttl())
		b = append(append(b, p.Src.AsSlice()...), p.Dst.AsSlice()...)
		b = append(append(b, p.Hops...), t...)
	default:
		b = append(b, p.Payload...)
	}
	return b
}

func (p *Packet) ttl() uint8 {
	if p.TTL == 0 {
		return 64
	}
	return p.TTL
}

// ipSize is the length of the IP packet in bytes, 0 for other frames.
func (p *Packet) ipSize() int {
	switch p.EthType {
	case pipeline.TypeIPv4:
		return 20 + len(p.segment())
	case pipeline.TypeIPv6:
		return 40 + len(p.Hops) + len(p.segment())
	}
	return 0
}

// segment makes what is behind the IP header.
func (p *Packet) segment() []byte {
	var b []byte
	check := 0
	switch p.Proto {
	case pipeline.ProtoTCP:
		b = binary.BigEndian.AppendUint16(b, p.SrcPort)
		b = binary.BigEndian.AppendUint16(b, p.DstPort)
		b = binary.BigEndian.AppendUint32(b, p.Seq)
		b = binary.BigEndian.AppendUint32(b, p.Ack)
		b = append(b, 5<<4, p.Flags, 0xff, 0xff, 0, 0, 0, 0)
		check = 16
	case pipeline.ProtoUDP:
		b = binary.BigEndian.AppendUint16(b, p.SrcPort)
		b = binary.BigEndian.AppendUint16(b, p.DstPort)
		b = binary.BigEndian.AppendUint16(b, uint16(8+len(p.Payload)))
		b = append(b, 0, 0)
		check = 6
	case pipeline.ProtoICMP:
		b = append(b, p.ICMPType, p.ICMPCode, 0, 0)
		b = binary.BigEndian.AppendUint16(b, p.SrcPort)
		b = binary.BigEndian.AppendUint16(b, uint16(p.Seq))
		b = append(b, p.Payload...)
		binary.BigEndian.PutUint16(b[2:], fold(sum(0, b)))
		return b
	case pipeline.ProtoICMPv6:
		b = append(b, p.ICMPType, p.ICMPCode, 0, 0)
		if p.discovery() && p.NDTarget.IsValid() {
			b = append(append(b, p.NDFlags, 0, 0, 0), p.NDTarget.AsSlice()...)
			if p.NDMAC != (pipeline.MAC{}) {
				b = append(append(b, p.optionType(), 1), p.NDMAC[:]...)
			}
		} else {
			b = binary.BigEndian.AppendUint16(b, p.SrcPort)
			b = binary.BigEndian.AppendUint16(b, uint16(p.Seq))
		}
		check = 2
	}
	b = append(b, p.Payload...)
	if check > 0 {
		s := sum(sum(0, p.Src.AsSlice()), p.Dst.AsSlice()) + uint32(p.Proto) + uint32(len(b))
		binary.BigEndian.PutUint16(b[check:], fold(sum(s, b)))
	}
	return b
}

// Summary says on one line what the packet is.
func (p *Packet) Summary() string {
	switch p.EthType {
	case pipeline.TypeARP:
		return fmt.Sprintf("%v>%v arp op=%d %v(%v) asks %v", p.EthSrc, p.EthDst, p.ARPOp, p.ARPSPA, p.ARPSHA, p.ARPTPA)
	case pipeline.TypeIPv4, pipeline.TypeIPv6:
		return fmt.Sprintf("%v>%v %v:%d>%v:%d proto=%d flags=%x icmp=%d/%d %q", p.EthSrc, p.EthDst, p.Src, p.SrcPort, p.Dst, p.DstPort, p.Proto, p.Flags, p.ICMPType, p.ICMPCode, p.Payload[:min(len(p.Payload), 24)])
	}
	return fmt.Sprintf("%v>%v type=0x%04x", p.EthSrc, p.EthDst, p.EthType)
}
