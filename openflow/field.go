package openflow

import (
	"fmt"
	"net/netip"
	"strings"
)

// FieldValue is a field with a content: a term of a Match, the argument of set_field, or an
// immediate of learn. Mask has a one for each bit that counts; the constructors without a
// mask set all bits of the field.
type FieldValue struct {
	Field Field
	Value Value
	Mask  Value
}

// Exact makes a term that fixes every bit of f. Bits beyond the field's width are dropped.
func Exact(f Field, v Value) FieldValue {
	m := Ones(f.Info().Bits)
	return FieldValue{f, v.And(m), m}
}

// Masked makes a term that fixes the bits of f that mask names. Bits of v outside mask and
// bits of mask beyond the field's width are dropped.
func Masked(f Field, v, mask Value) FieldValue {
	mask = mask.And(Ones(f.Info().Bits))
	return FieldValue{f, v.And(mask), mask}
}

// Bits makes a term that fixes n bits of f from bit offset on, where v is at most n bits wide.
func Bits(f Field, offset, n int, v uint64) FieldValue {
	return Masked(f, U64(v).Shl(offset), Ones(n).Shl(offset))
}

// prefix makes a term of the IPv4 or the IPv6 field, by the prefix's family. A prefix that
// is not valid, or of a family that has no field, gives a term that no encoder accepts:
// dropping it would widen the match.
func prefix(v4, v6 Field, p netip.Prefix) FieldValue {
	a, n := p.Addr(), p.Bits()
	if a.Is4In6() && n >= 96 {
		a, n = a.Unmap(), n-96
	}
	f := v6
	if a.Is4() {
		f = v4
	}
	if !p.IsValid() || a.Is4In6() || f == 0 {
		return FieldValue{}
	}
	return Masked(f, AddrValue(a), prefixMask(n, a.BitLen()))
}

// address makes a term that fixes an address, under the rules of prefix.
func address(v4, v6 Field, a netip.Addr) FieldValue {
	return prefix(v4, v6, netip.PrefixFrom(a, a.BitLen()))
}

// exact tells whether every bit of the field counts.
func (v FieldValue) exact() bool { return v.Mask == Ones(v.Field.Info().Bits) }

// InPort matches the ingress port.
func InPort(port uint32) FieldValue { return Exact(FieldInPort, U64(uint64(port))) }

// Metadata matches or sets the 64-bit metadata.
func Metadata(v uint64) FieldValue { return Exact(FieldMetadata, U64(v)) }

// MetadataMasked matches or sets some bits of the metadata.
func MetadataMasked(v, mask uint64) FieldValue { return Masked(FieldMetadata, U64(v), U64(mask)) }

// Reg matches or sets register n, 0 ≤ n ≤ 15.
func Reg(n int, v uint32) FieldValue { return Exact(reg(FieldReg0, n, 16), U64(uint64(v))) }

// RegMasked matches or sets some bits of register n, 0 ≤ n ≤ 15.
func RegMasked(n int, v, mask uint32) FieldValue {
	return Masked(reg(FieldReg0, n, 16), U64(uint64(v)), U64(uint64(mask)))
}

// XReg matches or sets the 64-bit register n, 0 ≤ n ≤ 7: reg(2n) is its high half.
func XReg(n int, v uint64) FieldValue { return Exact(reg(FieldXReg0, n, 8), U64(v)) }

// XXReg matches or sets the 128-bit register n, 0 ≤ n ≤ 3: reg(4n) is its highest quarter.
func XXReg(n int, v Value) FieldValue { return Exact(reg(FieldXXReg0, n, 4), v) }

// reg gives the field of register n; 0, which no encoder accepts, where n is out of range.
func reg(first Field, n, count int) Field {
	if n < 0 || n >= count {
		return 0
	}
	return first + Field(n)
}

// RegField gives the field of register n, 0 ≤ n ≤ 15, and 0 outside that range.
func RegField(n int) Field { return reg(FieldReg0, n, 16) }

// EthDst matches or sets the destination MAC.
func EthDst(m MAC) FieldValue { return Exact(FieldEthDst, m.Value()) }

// EthSrc matches or sets the source MAC.
func EthSrc(m MAC) FieldValue { return Exact(FieldEthSrc, m.Value()) }

// EthMulticast matches every multicast and broadcast destination.
func EthMulticast() FieldValue { return Masked(FieldEthDst, U64(1<<40), U64(1<<40)) }

// EtherTypes that matches often need.
const (
	EtherTypeIPv4 uint16 = 0x0800
	EtherTypeARP  uint16 = 0x0806
	EtherTypeVLAN uint16 = 0x8100
	EtherTypeIPv6 uint16 = 0x86dd
	EtherTypeMPLS uint16 = 0x8847
	EtherTypeQinQ uint16 = 0x88a8
	EtherTypeLLDP uint16 = 0x88cc
)

// EthType matches the EtherType (of the payload behind VLAN tags).
func EthType(t uint16) FieldValue { return Exact(FieldEthType, U64(uint64(t))) }

// VLANVID matches or sets a VLAN id, 0 to 4095, on a tagged packet.
func VLANVID(id uint16) FieldValue { return Exact(FieldVLANVID, U64(uint64(id&0xfff|0x1000))) }

// VLANNone matches packets without a VLAN tag.
func VLANNone() FieldValue { return Exact(FieldVLANVID, Value{}) }

// VLANAny matches packets with any VLAN tag.
func VLANAny() FieldValue { return Masked(FieldVLANVID, U64(0x1000), U64(0x1000)) }

// VLANPCP matches or sets the VLAN priority, 0 to 7.
func VLANPCP(p uint8) FieldValue { return Exact(FieldVLANPCP, U64(uint64(p))) }

// IP protocol numbers that matches often need.
const (
	ProtoICMP   uint8 = 1
	ProtoTCP    uint8 = 6
	ProtoUDP    uint8 = 17
	ProtoICMPv6 uint8 = 58
	ProtoSCTP   uint8 = 132
)

// IPProto matches the protocol of IPv4 or the next header of IPv6.
func IPProto(p uint8) FieldValue { return Exact(FieldIPProto, U64(uint64(p))) }

// IPDSCP matches or sets the 6-bit differentiated services code point.
func IPDSCP(v uint8) FieldValue { return Exact(FieldIPDSCP, U64(uint64(v))) }

// IPECN matches or sets the 2-bit congestion notification.
func IPECN(v uint8) FieldValue { return Exact(FieldIPECN, U64(uint64(v))) }

// IPTTL matches or sets TTL or hop limit.
func IPTTL(v uint8) FieldValue { return Exact(FieldIPTTL, U64(uint64(v))) }

// IPSrc matches the source network, IPv4 or IPv6 by the prefix's family.
func IPSrc(p netip.Prefix) FieldValue { return prefix(FieldIPv4Src, FieldIPv6Src, p) }

// IPDst matches the destination network, IPv4 or IPv6 by the prefix's family.
func IPDst(p netip.Prefix) FieldValue { return prefix(FieldIPv4Dst, FieldIPv6Dst, p) }

// IPSrcAddr matches or sets the source address, IPv4 or IPv6 by the address's family.
func IPSrcAddr(a netip.Addr) FieldValue { return address(FieldIPv4Src, FieldIPv6Src, a) }

// IPDstAddr matches or sets the destination address, IPv4 or IPv6 by the address's family.
func IPDstAddr(a netip.Addr) FieldValue { return address(FieldIPv4Dst, FieldIPv6Dst, a) }

// ARP operations (RFC 826).
const (
	ARPRequest uint16 = 1
	ARPReply   uint16 = 2
)

// ARPOp matches or sets the ARP operation.
func ARPOp(op uint16) FieldValue { return Exact(FieldARPOp, U64(uint64(op))) }

// ARPSPA matches the sender's protocol address.
func ARPSPA(p netip.Prefix) FieldValue { return prefix(FieldARPSPA, 0, p) }

// ARPTPA matches the target's protocol address.
func ARPTPA(p netip.Prefix) FieldValue { return prefix(FieldARPTPA, 0, p) }

// ARPSHA matches or sets the sender's hardware address.
func ARPSHA(m MAC) FieldValue { return Exact(FieldARPSHA, m.Value()) }

// ARPTHA matches or sets the target's hardware address.
func ARPTHA(m MAC) FieldValue { return Exact(FieldARPTHA, m.Value()) }

// TCPSrc matches or sets the TCP source port.
func TCPSrc(p uint16) FieldValue { return Exact(FieldTCPSrc, U64(uint64(p))) }

// TCPDst matches or sets the TCP destination port.
func TCPDst(p uint16) FieldValue { return Exact(FieldTCPDst, U64(uint64(p))) }

// TCPFlags matches those of the 12 TCP flag bits that mask names.
func TCPFlags(flags, mask uint16) FieldValue {
	return Masked(FieldTCPFlags, U64(uint64(flags)), U64(uint64(mask)))
}

// UDPSrc matches or sets the UDP source port.
func UDPSrc(p uint16) FieldValue { return Exact(FieldUDPSrc, U64(uint64(p))) }

// UDPDst matches or sets the UDP destination port.
func UDPDst(p uint16) FieldValue { return Exact(FieldUDPDst, U64(uint64(p))) }

// SCTPSrc matches or sets the SCTP source port.
func SCTPSrc(p uint16) FieldValue { return Exact(FieldSCTPSrc, U64(uint64(p))) }

// SCTPDst matches or sets the SCTP destination port.
func SCTPDst(p uint16) FieldValue { return Exact(FieldSCTPDst, U64(uint64(p))) }

// ICMPv4Type matches or sets the ICMP type.
func ICMPv4Type(t uint8) FieldValue { return Exact(FieldICMPv4Type, U64(uint64(t))) }

// ICMPv4Code matches or sets the ICMP code.
func ICMPv4Code(c uint8) FieldValue { return Exact(FieldICMPv4Code, U64(uint64(c))) }

// ICMPv6Type matches or sets the ICMPv6 type.
func ICMPv6Type(t uint8) FieldValue { return Exact(FieldICMPv6Type, U64(uint64(t))) }

// ICMPv6Code matches or sets the ICMPv6 code.
func ICMPv6Code(c uint8) FieldValue { return Exact(FieldICMPv6Code, U64(uint64(c))) }

// NDTarget matches or sets the target of a neighbour solicitation or advertisement.
func NDTarget(a netip.Addr) FieldValue { return address(0, FieldNDTarget, a) }

// NDSLL matches or sets the source link-layer address option.
func NDSLL(m MAC) FieldValue { return Exact(FieldNDSLL, m.Value()) }

// NDTLL matches or sets the target link-layer address option.
func NDTLL(m MAC) FieldValue { return Exact(FieldNDTLL, m.Value()) }

// TunnelID matches or sets the tunnel key (for VXLAN the 24-bit VNI).
func TunnelID(id uint64) FieldValue { return Exact(FieldTunnelID, U64(id)) }

// TunSrc matches or sets the outer source address, IPv4 or IPv6.
func TunSrc(a netip.Addr) FieldValue { return address(FieldTunSrc, FieldTunIPv6Src, a) }

// TunDst matches or sets the outer destination address, IPv4 or IPv6.
func TunDst(a netip.Addr) FieldValue { return address(FieldTunDst, FieldTunIPv6Dst, a) }

// Bits of ct_state (ovs-fields(7)).
const (
	CTNew         uint32 = 1 << 0
	CTEstablished uint32 = 1 << 1
	CTRelated     uint32 = 1 << 2
	CTReply       uint32 = 1 << 3
	CTInvalid     uint32 = 1 << 4
	CTTracked     uint32 = 1 << 5
	CTSourceNAT   uint32 = 1 << 6
	CTDestNAT     uint32 = 1 << 7
)

// CTState matches those bits of the conntrack state that mask names.
func CTState(bits, mask uint32) FieldValue {
	return Masked(FieldCTState, U64(uint64(bits)), U64(uint64(mask)))
}

// CTZone matches the conntrack zone.
func CTZone(z uint16) FieldValue { return Exact(FieldCTZone, U64(uint64(z))) }

// CTMark matches or (inside ct) sets the connection's mark.
func CTMark(v uint32) FieldValue { return Exact(FieldCTMark, U64(uint64(v))) }

// CTMarkMasked matches or (inside ct) sets some bits of the connection's mark.
func CTMarkMasked(v, mask uint32) FieldValue {
	return Masked(FieldCTMark, U64(uint64(v)), U64(uint64(mask)))
}

// CTLabel matches or (inside ct) sets the connection's 128-bit label.
func CTLabel(v Value) FieldValue { return Exact(FieldCTLabel, v) }

// CTLabelMasked matches or (inside ct) sets some bits of the connection's label.
func CTLabelMasked(v, mask Value) FieldValue { return Masked(FieldCTLabel, v, mask) }

// ConjID matches the id of a conjunction that all its clauses met.
func ConjID(id uint32) FieldValue { return Exact(FieldConjID, U64(uint64(id))) }

// PktMark matches or sets the packet mark shared with the host.
func PktMark(v uint32) FieldValue { return Exact(FieldPktMark, U64(uint64(v))) }

// MPLSLabel matches or sets the outermost MPLS label.
func MPLSLabel(l uint32) FieldValue { return Exact(FieldMPLSLabel, U64(uint64(l))) }

// Kinds of IP fragment for IPFrag (ovs-fields(7)).
const (
	FragNo    uint8 = 0 // not a fragment
	FragFirst uint8 = 1 // first fragment
	FragLater uint8 = 3 // any other fragment
)

// IPFrag matches a kind of fragment.
func IPFrag(kind uint8) FieldValue { return Exact(FieldIPFrag, U64(uint64(kind))) }

// encode writes header, value and, where some bits do not count, mask.
func (v FieldValue) encode(e *encoder) {
	if !v.Field.valid() {
		e.fail(fmt.Errorf("openflow: %v is no field", v.Field))
		return
	}
	i := &fieldTable[v.Field]
	masked := v.Mask != Ones(i.Bits)
	e.u32(i.header(masked))
	if i.Experimenter != 0 {
		e.u32(i.Experimenter)
	}
	e.b = v.Value.append(e.b, i.Bytes)
	if masked {
		e.b = v.Mask.append(e.b, i.Bytes)
	}
}

// encodeHeader writes the header of f with no content behind it, as copy_field wants it.
func (f Field) encodeHeader(e *encoder) {
	if !f.valid() {
		e.fail(fmt.Errorf("openflow: %v is no field", f))
		return
	}
	i := &fieldTable[f]
	e.u32(i.header(false))
	if i.Experimenter != 0 {
		e.u32(i.Experimenter)
	}
}

// RawField is a term whose field this package does not know.
type RawField struct {
	Header  uint32 // as on the wire, with mask bit and length
	Payload []byte // experimenter id, value and mask
}

// decodeField takes one TLV. A field that is not known, or has a length of its own, comes
// as a RawField with ok false.
func decodeField(r *reader) (v FieldValue, raw RawField, ok bool) {
	h := r.u32()
	n := int(h & 0xff)
	body := r.take(n)
	if r.err != nil {
		return v, raw, false
	}
	raw = RawField{Header: h, Payload: body}
	k := fieldKey{class: uint16(h >> 16), number: uint8(h>>9) & 0x7f}
	if k.class == classExperimenter {
		x := reader{b: body}
		k.vendor = x.u32()
		if x.err != nil {
			r.fail(malformed("experimenter field of %d bytes", n))
			return v, raw, false
		}
		body = x.b
	}
	f, known := fieldByKey[k]
	if !known {
		return v, raw, false
	}
	i := &fieldTable[f]
	masked := h>>8&1 == 1
	want := i.Bytes
	if masked {
		want *= 2
	}
	if len(body) != want {
		return v, raw, false
	}
	mask := Ones(i.Bits)
	if masked {
		mask = valueOf(body[i.Bytes:]).And(mask)
	}
	return FieldValue{f, valueOf(body[:i.Bytes]).And(mask), mask}, raw, true
}

// decodeFieldHeader takes a header without content.
func decodeFieldHeader(r *reader) Field {
	h := r.u32()
	k := fieldKey{class: uint16(h >> 16), number: uint8(h>>9) & 0x7f}
	if k.class == classExperimenter {
		k.vendor = r.u32()
	}
	if r.err != nil {
		return 0
	}
	f, ok := fieldByKey[k]
	if !ok {
		r.fail(malformed("field header %#08x is not known", h))
	}
	return f
}

var ctStateNames = [...]string{"new", "est", "rel", "rpl", "inv", "trk", "snat", "dnat"}

var tcpFlagNames = [...]string{"fin", "syn", "rst", "psh", "ack", "urg", "ece", "cwr", "ns"}

func flagString(v, mask uint64, names []string) (string, bool) {
	if mask>>len(names) != 0 {
		return "", false
	}
	var b strings.Builder
	for i, n := range names {
		if mask>>i&1 == 0 {
			continue
		}
		if v>>i&1 == 1 {
			b.WriteByte('+')
		} else {
			b.WriteByte('-')
		}
		b.WriteString(n)
	}
	return b.String(), true
}

func hexValue(v Value) string {
	if v.Hi == 0 {
		return fmt.Sprintf("%#x", v.Lo)
	}
	return fmt.Sprintf("0x%x%016x", v.Hi, v.Lo)
}

// content writes v in the field's format.
func (i *FieldInfo) content(v Value) string {
	switch i.Format {
	case FormatPort:
		return portName(uint32(v.Lo))
	case FormatMAC:
		return v.MAC().String()
	case FormatIPv4:
		return v.IPv4().String()
	case FormatIPv6:
		return v.IPv6().String()
	case FormatDec:
		if v.Hi == 0 {
			return fmt.Sprint(v.Lo)
		}
	case FormatPacket:
		return fmt.Sprintf("(%d,%#x)", v.Lo>>16, v.Lo&0xffff)
	}
	return hexValue(v)
}

// text writes the content, and the mask behind a slash where some bits do not count.
func (v FieldValue) text() string {
	if !v.Field.valid() {
		return hexValue(v.Value)
	}
	i := &fieldTable[v.Field]
	switch i.Format {
	case FormatState:
		if s, ok := flagString(v.Value.Lo, v.Mask.Lo, ctStateNames[:]); ok {
			return s
		}
	case FormatFlags:
		if s, ok := flagString(v.Value.Lo, v.Mask.Lo, tcpFlagNames[:]); ok && !v.exact() {
			return s
		}
		return hexValue(v.Value) + "/" + hexValue(v.Mask)
	case FormatFrag:
		switch {
		case v.Mask.Lo == 3:
			return [...]string{"no", "first", "2", "later"}[v.Value.Lo&3]
		case v.Mask.Lo == 1:
			return [...]string{"no", "yes"}[v.Value.Lo&1]
		case v.Mask.Lo == 2:
			return [...]string{"not_later", "later"}[v.Value.Lo>>1&1]
		}
	}
	if v.exact() {
		return i.content(v.Value)
	}
	switch i.Format {
	case FormatIPv4, FormatIPv6:
		if n, ok := v.Mask.prefixLen(i.Bits); ok {
			return fmt.Sprintf("%s/%d", i.content(v.Value), n)
		}
		return i.content(v.Value) + "/" + i.content(v.Mask)
	case FormatMAC:
		return i.content(v.Value) + "/" + i.content(v.Mask)
	}
	return hexValue(v.Value) + "/" + hexValue(v.Mask)
}

// String gives name=content as Open vSwitch's tools accept it in a match.
func (v FieldValue) String() string { return v.Field.String() + "=" + v.text() }
