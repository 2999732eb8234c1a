package responder

import (
	"encoding/binary"
	"net/netip"

	"yakumo/datapath/pipeline"
)

const (
	etherLen = 14
	ipLen    = 20
	udpLen   = 8
)

// datagram is an IPv4 UDP packet in an untagged Ethernet frame.
type datagram struct {
	srcMAC, dstMAC   pipeline.MAC
	src, dst         netip.Addr
	srcPort, dstPort uint16
	payload          []byte
}

// parseUDP takes a frame apart; false for anything but a whole, unfragmented IPv4 UDP
// packet whose lengths agree. The payload shares memory with b. Checksums are not looked
// at: the switch has handed over what a guest may have left to its virtual card.
func parseUDP(b []byte) (d datagram, ok bool) {
	if len(b) < etherLen+ipLen+udpLen || binary.BigEndian.Uint16(b[12:]) != pipeline.TypeIPv4 {
		return d, false
	}
	ip := b[etherLen:]
	head, total := int(ip[0]&15)*4, int(binary.BigEndian.Uint16(ip[2:]))
	if ip[0]>>4 != 4 || head < ipLen || total < head+udpLen || total > len(ip) || ip[9] != pipeline.ProtoUDP ||
		binary.BigEndian.Uint16(ip[6:])&0x3fff != 0 {
		return d, false
	}
	udp := ip[head:total]
	n := int(binary.BigEndian.Uint16(udp[4:]))
	if n < udpLen || n > len(udp) {
		return d, false
	}
	copy(d.dstMAC[:], b)
	copy(d.srcMAC[:], b[6:])
	d.src, d.dst = netip.AddrFrom4([4]byte(ip[12:16])), netip.AddrFrom4([4]byte(ip[16:20]))
	d.srcPort, d.dstPort = binary.BigEndian.Uint16(udp), binary.BigEndian.Uint16(udp[2:])
	d.payload = udp[udpLen:n]
	return d, true
}

// sum adds 16-bit words, RFC 1071.
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

// frame puts the packet together.
func (d *datagram) frame() []byte {
	b := make([]byte, etherLen+ipLen+udpLen, etherLen+ipLen+udpLen+len(d.payload))
	copy(b, d.dstMAC[:])
	copy(b[6:], d.srcMAC[:])
	binary.BigEndian.PutUint16(b[12:], pipeline.TypeIPv4)
	ip := b[etherLen:]
	src, dst := d.src.As4(), d.dst.As4()
	length := udpLen + len(d.payload)
	ip[0], ip[8], ip[9] = 0x45, 64, pipeline.ProtoUDP
	binary.BigEndian.PutUint16(ip[2:], uint16(ipLen+length))
	copy(ip[12:], src[:])
	copy(ip[16:], dst[:])
	binary.BigEndian.PutUint16(ip[10:], fold(sum(0, ip[:ipLen])))
	udp := ip[ipLen:]
	binary.BigEndian.PutUint16(udp, d.srcPort)
	binary.BigEndian.PutUint16(udp[2:], d.dstPort)
	binary.BigEndian.PutUint16(udp[4:], uint16(length))
	s := sum(sum(sum(sum(0, src[:]), dst[:]), udp[:udpLen]), d.payload) + pipeline.ProtoUDP + uint32(length)
	check := fold(s)
	if check == 0 {
		check = 0xffff // 0 would mean "no checksum" (RFC 768)
	}
	binary.BigEndian.PutUint16(udp[6:], check)
	return append(b, d.payload...)
}
