package neighbor

import (
	"encoding/binary"
	"net/netip"

	"yakumo/datapath/pipeline"
	"yakumo/datapath/responder"
)

var everybody = pipeline.MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// flood sends a frame to all of a network.
func flood(vni uint32, frame []byte) responder.Reply {
	return responder.Reply{Stage: pipeline.Lookup, Fields: []pipeline.Set{pipeline.Put(pipeline.Net, uint64(vni))}, Frame: frame}
}

// question asks who has an address: its known MAC where it is not zero, else everybody.
func question(src pipeline.Outer, target netip.Addr, known pipeline.MAC) []byte {
	if target.Is4() {
		dst := known
		if dst == (pipeline.MAC{}) {
			dst = everybody
		}
		return arp(pipeline.ARPRequest, dst, src.MAC, src.Address, pipeline.MAC{}, target)
	}
	// RFC 4861, 4.3: to the solicited-node group.
	b := target.As16()
	group := netip.AddrFrom16([16]byte{0xff, 0x02, 11: 1, 12: 0xff, 13: b[13], 14: b[14], 15: b[15]})
	dst, to := pipeline.GroupMAC(group), group
	if known != (pipeline.MAC{}) {
		dst, to = known, target
	}
	return discovery(pipeline.TypeSolicit, 0, dst, src.MAC, src.Address, to, target, 1)
}

// announcement says that an address is ours: by ARP as a request or as a reply, because not everybody hears both.
func announcement(o pipeline.Outer, request bool) []byte {
	switch {
	case o.Address.Is6():
		const router, override = 0x80, 0x20
		return discovery(pipeline.TypeAdvert, router|override, pipeline.GroupMAC(pipeline.AllNodes), o.MAC, o.Address, pipeline.AllNodes, o.Address, 2)
	case request:
		return arp(pipeline.ARPRequest, everybody, o.MAC, o.Address, pipeline.MAC{}, o.Address)
	}
	return arp(pipeline.ARPReply, everybody, o.MAC, o.Address, o.MAC, o.Address)
}

func ether(dst, src pipeline.MAC, typ uint16) []byte {
	b := append(append(make([]byte, 0, 96), dst[:]...), src[:]...)
	return binary.BigEndian.AppendUint16(b, typ)
}

func arp(op uint16, dst, src pipeline.MAC, sender netip.Addr, targetMAC pipeline.MAC, target netip.Addr) []byte {
	b := ether(dst, src, pipeline.TypeARP)
	b = binary.BigEndian.AppendUint16(append(b, 0, 1, 8, 0, 6, 4), op)
	b = append(append(b, src[:]...), sender.AsSlice()...)
	return append(append(b, targetMAC[:]...), target.AsSlice()...)
}

// discovery makes a neighbour solicitation or advertisement with its option.
func discovery(typ, flags byte, dst, src pipeline.MAC, from, to, target netip.Addr, option byte) []byte {
	b := ether(dst, src, pipeline.TypeIPv6)
	const head, size = 14, 32
	b = append(b, 6<<4, 0, 0, 0, 0, size, pipeline.ProtoICMPv6, 255)
	b = append(append(b, from.AsSlice()...), to.AsSlice()...)
	b = append(b, typ, 0, 0, 0, flags, 0, 0, 0)
	b = append(append(append(b, target.AsSlice()...), option, 1), src[:]...)
	sum := uint32(pipeline.ProtoICMPv6) + size
	for i := head + 8; i < len(b); i += 2 { // addresses and message
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	binary.BigEndian.PutUint16(b[head+40+2:], ^uint16(sum))
	return b
}
