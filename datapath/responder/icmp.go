package responder

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"yakumo/datapath/pipeline"
	"yakumo/model"
)

// ICMP types and codes (RFC 792, RFC 4443).
const (
	icmpUnreachable  = 3
	icmpTimeExceeded = 11
	icmpFragNeeded   = 4 // code of icmpUnreachable

	icmp6Unreachable  = 1
	icmp6TooBig       = 2
	icmp6TimeExceeded = 3

	// How long an error message may be as a whole: RFC 1812, 4.3.2.3, and RFC 4443, 2.4 (c).
	maxICMP  = 576
	maxICMP6 = 1280
)

// unreachable6 gives the ICMPv6 code for one of ICMP's.
var unreachable6 = map[uint32]byte{pipeline.UnreachableNet: 0, pipeline.UnreachableHost: 3, pipeline.UnreachablePort: 4}

// icmpError answers a packet that a router cannot send on. It comes from the router's address on the way
// to the sender, and goes into Route as if the router itself had sent it. Silence is right where RFC 1812,
// 4.3.2.7, and RFC 4443, 2.4 (e), want it.
func icmpError(ask Ask) ([]Reply, error) {
	ip, ok := parseIP(ask.Frame)
	if !ok {
		return nil, ignored("not a whole IP header")
	}
	if ask.Frame[0]&1 == 1 || !single(ip.src) || ip.dst.IsMulticast() {
		return nil, ignored("from %v to %v", ip.src, ip.dst)
	}
	if ip.later || ip.isError() {
		return nil, ignored("a later fragment, or an error itself")
	}
	from, ok := addressTowards(ask.Router, ip.src)
	if !ok {
		return nil, ignored("router %s has no address of this family", ask.Router.ID)
	}
	// What outside must hear of a packet to a floating address goes the way of that address's answers.
	if way, known := pipeline.WayTo(ask.Router, ip.src); known && way.Port == nil && ask.Floats {
		from = ip.dst
	}
	var typ, code byte
	var rest uint32
	switch v6 := ip.src.Is6(); ask.Responder {
	case pipeline.ResponderTimeExceeded:
		if typ = icmpTimeExceeded; v6 {
			typ = icmp6TimeExceeded
		}
	case pipeline.ResponderTooBig:
		if typ, code, rest = icmpUnreachable, icmpFragNeeded, ask.Arg; v6 {
			typ, code = icmp6TooBig, 0
		}
	default:
		if typ, code = icmpUnreachable, byte(ask.Arg); v6 {
			typ, code = icmp6Unreachable, unreachable6[ask.Arg]
		}
	}
	frame := icmpFrame(from, ip.src, typ, code, rest, ask.Frame[etherLen:ip.end])
	return []Reply{{pipeline.Route, []pipeline.Set{pipeline.Put(pipeline.Router, uint64(ask.ToAgent.Port))}, frame}}, nil
}

// Unreached is the error about a packet that a router has sent outside and whose next hop does not answer. It comes
// in from there, so that it finds the sender whose address was translated.
func Unreached(ask Ask) ([]Reply, error) {
	ask.Responder, ask.Arg, ask.Floats = pipeline.ResponderUnreachable, pipeline.UnreachableHost, false
	replies, err := icmpError(ask)
	for i := range replies {
		replies[i].Stage = pipeline.Restore
	}
	return replies, err
}

// single tells whether an address is that of one host, which may be answered.
func single(a netip.Addr) bool {
	return !a.IsUnspecified() && !a.IsMulticast() && !a.IsLoopback() && !(a.Is4() && a.As4()[0] >= 224) && !(a.Is4() && a.As4()[0] == 0)
}

// ipPacket is what is needed of an IP header.
type ipPacket struct {
	src, dst netip.Addr
	proto    uint8
	later    bool // a fragment behind the first
	payload  int  // where in the frame the payload begins
	end      int  // where the packet ends: behind it may be padding
	frame    []byte
}

// parseIP reads the IP header of a frame; false where it is none, or not whole.
func parseIP(b []byte) (p ipPacket, ok bool) {
	if len(b) < etherLen+ipLen {
		return p, false
	}
	p.frame = b
	ip := b[etherLen:]
	switch binary.BigEndian.Uint16(b[12:]) {
	case pipeline.TypeIPv4:
		head, total := int(ip[0]&15)*4, int(binary.BigEndian.Uint16(ip[2:]))
		if ip[0]>>4 != 4 || head < ipLen || total < head || total > len(ip) {
			return p, false
		}
		p.src, p.dst = netip.AddrFrom4([4]byte(ip[12:16])), netip.AddrFrom4([4]byte(ip[16:20]))
		p.proto, p.later = ip[9], binary.BigEndian.Uint16(ip[6:])&0x1fff != 0
		p.payload, p.end = etherLen+head, etherLen+total
		return p, true
	case pipeline.TypeIPv6:
		if len(ip) < 40 || ip[0]>>4 != 6 || 40+int(binary.BigEndian.Uint16(ip[4:])) > len(ip) {
			return p, false
		}
		p.src, p.dst = netip.AddrFrom16([16]byte(ip[8:24])), netip.AddrFrom16([16]byte(ip[24:40]))
		p.end = etherLen + 40 + int(binary.BigEndian.Uint16(ip[4:]))
		return p, p.extensions(ip[6], etherLen+40)
	}
	return p, false
}

// extensions walks over the extension headers of an IPv6 packet (RFC 8200, 4).
func (p *ipPacket) extensions(next uint8, at int) bool {
	for {
		size := 8
		switch next {
		case 0, 43, 60: // hop-by-hop, routing, destination options
			if at+8 > p.end {
				return false
			}
			size += 8 * int(p.frame[at+1])
		case 44: // fragment
			if at+8 > p.end {
				return false
			}
			p.later = p.later || binary.BigEndian.Uint16(p.frame[at+2:])&^7 != 0
		default:
			p.proto, p.payload = next, at
			return at <= p.end
		}
		if at+size > p.end {
			return false
		}
		next, at = p.frame[at], at+size
	}
}

// isError tells whether the packet is an ICMP error, which is never answered by another. One that is cut is.
func (p *ipPacket) isError() bool {
	switch {
	case p.proto != pipeline.ProtoICMP && p.proto != pipeline.ProtoICMPv6:
		return false
	case p.payload >= p.end:
		return true
	}
	typ := p.frame[p.payload]
	if p.proto == pipeline.ProtoICMPv6 {
		return typ < 128 || typ == 137 // and redirects
	}
	switch typ {
	case 3, 4, 5, 11, 12:
		return true
	}
	return false
}

// addressTowards gives the router's address on the network over which it reaches dst, else any of its own.
func addressTowards(r *model.HostRouter, dst netip.Addr) (netip.Addr, bool) {
	way, known := pipeline.WayTo(r, dst)
	var on, rest []netip.Prefix
	for i := range r.Interfaces {
		if known && way.Port == &r.Interfaces[i] {
			on = r.Interfaces[i].Addresses
		} else {
			rest = append(rest, r.Interfaces[i].Addresses...)
		}
	}
	if r.Gateway != nil && known && way.Port == nil {
		on = r.Gateway.Addresses
	}
	var best netip.Addr
	for _, p := range append(slices.Clone(on), rest...) {
		switch a := p.Addr(); {
		case a.Is4() != dst.Is4():
		case !best.IsValid(), known && p.Masked().Contains(way.NextHop):
			best = a
		}
	}
	return best, best.IsValid()
}

// icmpFrame makes an ICMP or ICMPv6 error about a packet.
func icmpFrame(src, dst netip.Addr, typ, code byte, rest uint32, about []byte) []byte {
	v6, head, limit := src.Is6(), ipLen, maxICMP
	if v6 {
		head, limit = 40, maxICMP6
	}
	about = about[:min(len(about), limit-head-8)]
	b := make([]byte, etherLen+head+8+len(about))
	ip, icmp := b[etherLen:], b[etherLen+head:]
	icmp[0], icmp[1] = typ, code
	binary.BigEndian.PutUint32(icmp[4:], rest)
	copy(icmp[8:], about)
	if v6 {
		binary.BigEndian.PutUint16(b[12:], pipeline.TypeIPv6)
		ip[0], ip[6], ip[7] = 6<<4, pipeline.ProtoICMPv6, 64
		binary.BigEndian.PutUint16(ip[4:], uint16(len(icmp)))
		s, d := src.As16(), dst.As16()
		copy(ip[8:], s[:])
		copy(ip[24:], d[:])
		binary.BigEndian.PutUint16(icmp[2:], fold(sum(sum(0, ip[8:40]), icmp)+pipeline.ProtoICMPv6+uint32(len(icmp))))
		return b
	}
	binary.BigEndian.PutUint16(b[12:], pipeline.TypeIPv4)
	// RFC 1812, 4.3.2.5: network control.
	ip[0], ip[1], ip[8], ip[9] = 4<<4|5, 6<<5, 64, pipeline.ProtoICMP
	binary.BigEndian.PutUint16(ip[2:], uint16(ipLen+len(icmp)))
	s, d := src.As4(), dst.As4()
	copy(ip[12:], s[:])
	copy(ip[16:], d[:])
	binary.BigEndian.PutUint16(ip[10:], fold(sum(0, ip[:ipLen])))
	binary.BigEndian.PutUint16(icmp[2:], fold(sum(0, icmp)))
	return b
}

// Addresses reads the source and destination of an IP packet in a frame; false where there is none, or not a whole one.
func Addresses(frame []byte) (src, dst netip.Addr, ok bool) {
	p, ok := parseIP(frame)
	return p.src, p.dst, ok
}
