package responder

import (
	"encoding/binary"
	"net/netip"

	"yakumo/datapath/pipeline"
)

const ip6Len = 40

// packet6 is an IPv6 packet in an untagged Ethernet frame, without extension headers.
type packet6 struct {
	srcMAC, dstMAC pipeline.MAC
	src, dst       netip.Addr
	proto          uint8
	hops           uint8
	alert          bool // a hop-by-hop header with a router alert (RFC 2711) stands before the payload
	// payload is all behind the headers; check is where its checksum stands.
	payload []byte
	check   int
}

// parse6 takes a frame apart; false for anything but a whole, unfragmented IPv6 packet of
// proto whose lengths agree. It walks over a hop-by-hop header. The payload shares memory with b.
func parse6(b []byte, proto uint8) (p packet6, ok bool) {
	if len(b) < etherLen+ip6Len || binary.BigEndian.Uint16(b[12:]) != pipeline.TypeIPv6 {
		return p, false
	}
	ip := b[etherLen:]
	total := ip6Len + int(binary.BigEndian.Uint16(ip[4:]))
	if ip[0]>>4 != 6 || total > len(ip) {
		return p, false
	}
	next, body := ip[6], ip[ip6Len:total]
	if next == 0 { // hop-by-hop, as multicast listeners' reports have it
		if len(body) < 8 || len(body) < 8+8*int(body[1]) {
			return p, false
		}
		next, body = body[0], body[8+8*int(body[1]):]
	}
	if next != proto {
		return p, false
	}
	copy(p.dstMAC[:], b)
	copy(p.srcMAC[:], b[6:])
	p.src, p.dst = netip.AddrFrom16([16]byte(ip[8:24])), netip.AddrFrom16([16]byte(ip[24:40]))
	p.proto, p.hops, p.payload = proto, ip[7], body
	return p, true
}

// frame puts the packet together and fills in the checksum.
func (p *packet6) frame() []byte {
	b := make([]byte, etherLen+ip6Len, etherLen+ip6Len+8+len(p.payload))
	copy(b, p.dstMAC[:])
	copy(b[6:], p.srcMAC[:])
	binary.BigEndian.PutUint16(b[12:], pipeline.TypeIPv6)
	ip := b[etherLen:]
	src, dst := p.src.As16(), p.dst.As16()
	ip[0], ip[6], ip[7] = 0x60, p.proto, p.hops
	binary.BigEndian.PutUint16(ip[4:], uint16(len(p.payload)))
	copy(ip[8:], src[:])
	copy(ip[24:], dst[:])
	if p.alert {
		ip[6] = 0
		binary.BigEndian.PutUint16(ip[4:], uint16(8+len(p.payload)))
		b = append(b, p.proto, 0, 5, 2, 0, 0, 1, 0)
	}
	at := len(b)
	b = append(b, p.payload...)
	body := b[at:]
	body[p.check], body[p.check+1] = 0, 0
	sum := fold(sum(sum(sum(0, src[:]), dst[:]), body) + uint32(p.proto) + uint32(len(body)))
	if sum == 0 && p.proto == pipeline.ProtoUDP {
		sum = 0xffff // RFC 8200, 8.1
	}
	binary.BigEndian.PutUint16(body[p.check:], sum)
	return b
}

// parseUDP6 is parse6 for UDP, with ports and what is behind them.
func parseUDP6(b []byte) (p packet6, src, dst uint16, ok bool) {
	p, ok = parse6(b, pipeline.ProtoUDP)
	if !ok || len(p.payload) < udpLen {
		return p, 0, 0, false
	}
	u := p.payload
	n := int(binary.BigEndian.Uint16(u[4:]))
	if n < udpLen || n > len(u) {
		return p, 0, 0, false
	}
	p.payload = u[udpLen:n]
	return p, binary.BigEndian.Uint16(u), binary.BigEndian.Uint16(u[2:]), true
}

// udp6 puts a UDP header before data.
func udp6(src, dst uint16, data []byte) []byte {
	b := binary.BigEndian.AppendUint16(make([]byte, 0, udpLen+len(data)), src)
	b = binary.BigEndian.AppendUint16(b, dst)
	b = binary.BigEndian.AppendUint16(b, uint16(udpLen+len(data)))
	return append(append(b, 0, 0), data...)
}
