package openflow

import "fmt"

// Field names a match field. The order of the constants is the order in which a Match is
// encoded; a field comes after those that it needs as prerequisites, because a switch
// checks them as it reads.
type Field uint8

// The fields; ovs-fields(7) describes each. Open vSwitch lets no flow match dp_hash or
// recirc_id, which it keeps for itself.
const (
	FieldPacketType Field = iota + 1
	FieldInPort
	FieldMetadata
	FieldTunnelID
	FieldTunSrc
	FieldTunDst
	FieldTunIPv6Src
	FieldTunIPv6Dst
	FieldTunFlags
	FieldTunGBPID
	FieldTunGBPFlags
	FieldPktMark
	FieldDPHash
	FieldRecircID
	FieldConjID
	FieldActsetOutput
	FieldCTState
	FieldCTZone
	FieldCTMark
	FieldCTLabel
	FieldReg0
	FieldReg1
	FieldReg2
	FieldReg3
	FieldReg4
	FieldReg5
	FieldReg6
	FieldReg7
	FieldReg8
	FieldReg9
	FieldReg10
	FieldReg11
	FieldReg12
	FieldReg13
	FieldReg14
	FieldReg15
	FieldXReg0
	FieldXReg1
	FieldXReg2
	FieldXReg3
	FieldXReg4
	FieldXReg5
	FieldXReg6
	FieldXReg7
	FieldXXReg0
	FieldXXReg1
	FieldXXReg2
	FieldXXReg3
	FieldEthDst
	FieldEthSrc
	FieldEthType
	FieldVLANTCI
	FieldVLANVID
	FieldVLANPCP
	FieldMPLSLabel
	FieldMPLSTC
	FieldMPLSBOS
	FieldMPLSTTL
	FieldIPv4Src
	FieldIPv4Dst
	FieldIPv6Src
	FieldIPv6Dst
	FieldIPv6FLabel
	FieldIPProto
	FieldIPDSCP
	FieldIPECN
	FieldIPTTL
	FieldIPFrag
	FieldARPOp
	FieldARPSPA
	FieldARPTPA
	FieldARPSHA
	FieldARPTHA
	FieldTCPSrc
	FieldTCPDst
	FieldTCPFlags
	FieldUDPSrc
	FieldUDPDst
	FieldSCTPSrc
	FieldSCTPDst
	FieldICMPv4Type
	FieldICMPv4Code
	FieldICMPv6Type
	FieldICMPv6Code
	FieldNDTarget
	FieldNDSLL
	FieldNDTLL
	FieldNDReserved
	FieldNDOptionsType
	FieldCTNWProto
	FieldCTNWSrc
	FieldCTNWDst
	FieldCTIPv6Src
	FieldCTIPv6Dst
	FieldCTTPSrc
	FieldCTTPDst
	// FieldInPort16 is the ingress port of 16 bits: the one that can be set.
	FieldInPort16
	fieldEnd
)

// Format says how a field's content is written.
type Format uint8

// The formats.
const (
	FormatDec    Format = iota // decimal
	FormatHex                  // hexadecimal with 0x
	FormatPort                 // a port number, reserved ones by name
	FormatMAC                  // an Ethernet address
	FormatIPv4                 // a dotted quad
	FormatIPv6                 // an IPv6 address
	FormatState                // conntrack state flags as +trk-new
	FormatFlags                // TCP flags as +syn-ack
	FormatPacket               // a packet type as (ns,type)
	FormatFrag                 // fragment kinds by name
)

// OXM classes and experimenters (OpenFlow 1.5.1, 7.2.3.2).
const (
	classNXM0         = 0x0000
	classNXM1         = 0x0001
	classEricsson     = 0x1000
	classBasic        = 0x8000
	classPacketRegs   = 0x8001
	classExperimenter = 0xffff

	vendorNicira    = 0x00002320
	vendorONF       = 0x4f4e4600
	vendorNetronome = 0x0000154d
)

// FieldInfo describes a field.
type FieldInfo struct {
	Field    Field
	Name     string // as Open vSwitch's tools accept it
	Bits     int    // 1 to 128
	Bytes    int    // on the wire
	Maskable bool   // whether Open vSwitch takes an arbitrary mask in a match
	ReadOnly bool   // whether set_field refuses it
	Format   Format

	// Class, Number and Experimenter identify the field on the wire; Experimenter is zero
	// but for class 0xffff.
	Class        uint16
	Number       uint8
	Experimenter uint32

	// alias is a second header (class<<8 | number) under which switches may send the
	// field with the same content, or -1.
	alias int32
}

// header gives the 32-bit OXM header.
func (i *FieldInfo) header(masked bool) uint32 {
	n := i.Bytes
	m := uint32(0)
	if masked {
		n, m = 2*n, 1<<8
	}
	if i.Experimenter != 0 {
		n += 4
	}
	return uint32(i.Class)<<16 | uint32(i.Number)<<9 | m | uint32(n)
}

func nxm(name string, number uint8, bits int, f Format) FieldInfo {
	return FieldInfo{Name: name, Class: classNXM1, Number: number, Bits: bits, Bytes: (bits + 7) / 8, Maskable: true, Format: f, alias: -1}
}

func oxm(name string, number uint8, bits int, f Format) FieldInfo {
	return FieldInfo{Name: name, Class: classBasic, Number: number, Bits: bits, Bytes: (bits + 7) / 8, Maskable: true, Format: f, alias: -1}
}

func (i FieldInfo) exact() FieldInfo    { i.Maskable = false; return i }
func (i FieldInfo) readOnly() FieldInfo { i.ReadOnly = true; return i }
func (i FieldInfo) bytes(n int) FieldInfo {
	i.Bytes = n
	return i
}

func (i FieldInfo) nxm0(number uint8) FieldInfo {
	i.alias = classNXM0<<8 | int32(number)
	return i
}

func (i FieldInfo) nxm1(number uint8) FieldInfo {
	i.alias = classNXM1<<8 | int32(number)
	return i
}

func (i FieldInfo) class(c uint16) FieldInfo {
	i.Class = c
	return i
}

func (i FieldInfo) vendor(id uint32, number uint8) FieldInfo {
	i.Class, i.Number, i.Experimenter = classExperimenter, number, id
	return i
}

// fieldTable is filled once, when the package is loaded, and never written again.
var fieldTable = buildFields()

func buildFields() (t [fieldEnd]FieldInfo) {
	t[FieldPacketType] = oxm("packet_type", 44, 32, FormatPacket).exact().readOnly()
	t[FieldInPort] = oxm("in_port", 0, 32, FormatPort).exact().readOnly()
	t[FieldInPort16] = nxm("in_port16", 0, 16, FormatHex).class(classNXM0).exact()
	t[FieldMetadata] = oxm("metadata", 2, 64, FormatHex)
	t[FieldTunnelID] = oxm("tun_id", 38, 64, FormatHex).nxm1(16)
	t[FieldTunSrc] = nxm("tun_src", 31, 32, FormatIPv4)
	t[FieldTunDst] = nxm("tun_dst", 32, 32, FormatIPv4)
	t[FieldTunIPv6Src] = nxm("tun_ipv6_src", 109, 128, FormatIPv6)
	t[FieldTunIPv6Dst] = nxm("tun_ipv6_dst", 110, 128, FormatIPv6)
	t[FieldTunFlags] = nxm("tun_flags", 104, 1, FormatHex).bytes(2)
	t[FieldTunGBPID] = nxm("tun_gbp_id", 38, 16, FormatDec)
	t[FieldTunGBPFlags] = nxm("tun_gbp_flags", 39, 8, FormatHex)
	t[FieldPktMark] = nxm("pkt_mark", 33, 32, FormatHex)
	t[FieldDPHash] = nxm("dp_hash", 35, 32, FormatHex).vendor(vendorNicira, 0).nxm1(35).readOnly()
	t[FieldRecircID] = nxm("recirc_id", 36, 32, FormatDec).exact().readOnly()
	t[FieldConjID] = nxm("conj_id", 37, 32, FormatDec).exact().readOnly()
	t[FieldActsetOutput] = oxm("actset_output", 43, 32, FormatPort).exact().readOnly()
	t[FieldCTState] = nxm("ct_state", 105, 32, FormatState).readOnly()
	t[FieldCTZone] = nxm("ct_zone", 106, 16, FormatHex).exact().readOnly()
	t[FieldCTMark] = nxm("ct_mark", 107, 32, FormatHex)
	t[FieldCTLabel] = nxm("ct_label", 108, 128, FormatHex)
	for i := range Field(16) {
		t[FieldReg0+i] = nxm(fmt.Sprintf("reg%d", i), uint8(i), 32, FormatHex)
	}
	for i := range Field(8) {
		t[FieldXReg0+i] = oxm(fmt.Sprintf("xreg%d", i), uint8(i), 64, FormatHex).class(classPacketRegs)
	}
	for i := range Field(4) {
		t[FieldXXReg0+i] = nxm(fmt.Sprintf("xxreg%d", i), 111+uint8(i), 128, FormatHex)
	}
	t[FieldEthDst] = oxm("eth_dst", 3, 48, FormatMAC).nxm0(1)
	t[FieldEthSrc] = oxm("eth_src", 4, 48, FormatMAC).nxm0(2)
	t[FieldEthType] = oxm("eth_type", 5, 16, FormatHex).exact().readOnly().nxm0(3)
	t[FieldVLANTCI] = FieldInfo{Name: "vlan_tci", Class: classNXM0, Number: 4, Bits: 16, Bytes: 2, Maskable: true, Format: FormatHex, alias: -1}
	t[FieldVLANVID] = oxm("vlan_vid", 6, 13, FormatHex)
	t[FieldVLANPCP] = oxm("vlan_pcp", 7, 3, FormatDec).exact()
	t[FieldMPLSLabel] = oxm("mpls_label", 34, 20, FormatDec).exact().bytes(4)
	t[FieldMPLSTC] = oxm("mpls_tc", 35, 3, FormatDec).exact()
	t[FieldMPLSBOS] = oxm("mpls_bos", 36, 1, FormatDec).exact().readOnly()
	t[FieldMPLSTTL] = nxm("mpls_ttl", 30, 8, FormatDec).exact()
	t[FieldIPv4Src] = oxm("ip_src", 11, 32, FormatIPv4).nxm0(7)
	t[FieldIPv4Dst] = oxm("ip_dst", 12, 32, FormatIPv4).nxm0(8)
	t[FieldIPv6Src] = oxm("ipv6_src", 26, 128, FormatIPv6).nxm1(19)
	t[FieldIPv6Dst] = oxm("ipv6_dst", 27, 128, FormatIPv6).nxm1(20)
	t[FieldIPv6FLabel] = oxm("ipv6_label", 28, 20, FormatHex).bytes(4).nxm1(27)
	t[FieldIPProto] = oxm("ip_proto", 10, 8, FormatDec).exact().readOnly().nxm0(6)
	t[FieldIPDSCP] = oxm("ip_dscp", 8, 6, FormatDec).exact()
	t[FieldIPECN] = oxm("ip_ecn", 9, 2, FormatDec).exact().nxm1(28)
	t[FieldIPTTL] = nxm("nw_ttl", 29, 8, FormatDec).exact()
	t[FieldIPFrag] = nxm("ip_frag", 26, 2, FormatFrag).readOnly()
	t[FieldARPOp] = oxm("arp_op", 21, 16, FormatDec).exact().nxm0(15)
	t[FieldARPSPA] = oxm("arp_spa", 22, 32, FormatIPv4).nxm0(16)
	t[FieldARPTPA] = oxm("arp_tpa", 23, 32, FormatIPv4).nxm0(17)
	t[FieldARPSHA] = oxm("arp_sha", 24, 48, FormatMAC).nxm1(17)
	t[FieldARPTHA] = oxm("arp_tha", 25, 48, FormatMAC).nxm1(18)
	t[FieldTCPSrc] = oxm("tcp_src", 13, 16, FormatDec).nxm0(9)
	t[FieldTCPDst] = oxm("tcp_dst", 14, 16, FormatDec).nxm0(10)
	t[FieldTCPFlags] = oxm("tcp_flags", 42, 12, FormatFlags).nxm1(34).readOnly()
	t[FieldUDPSrc] = oxm("udp_src", 15, 16, FormatDec).nxm0(11)
	t[FieldUDPDst] = oxm("udp_dst", 16, 16, FormatDec).nxm0(12)
	t[FieldSCTPSrc] = oxm("sctp_src", 17, 16, FormatDec)
	t[FieldSCTPDst] = oxm("sctp_dst", 18, 16, FormatDec)
	t[FieldICMPv4Type] = oxm("icmp_type", 19, 8, FormatDec).exact().nxm0(13)
	t[FieldICMPv4Code] = oxm("icmp_code", 20, 8, FormatDec).exact().nxm0(14)
	t[FieldICMPv6Type] = oxm("icmpv6_type", 29, 8, FormatDec).exact().nxm1(21)
	t[FieldICMPv6Code] = oxm("icmpv6_code", 30, 8, FormatDec).exact().nxm1(22)
	t[FieldNDTarget] = oxm("nd_target", 31, 128, FormatIPv6).nxm1(23)
	t[FieldNDSLL] = oxm("nd_sll", 32, 48, FormatMAC).nxm1(24)
	t[FieldNDTLL] = oxm("nd_tll", 33, 48, FormatMAC).nxm1(25)
	t[FieldNDReserved] = oxm("nd_reserved", 1, 32, FormatDec).class(classEricsson).exact()
	t[FieldNDOptionsType] = oxm("nd_options_type", 2, 8, FormatDec).class(classEricsson).exact()
	t[FieldCTNWProto] = nxm("ct_nw_proto", 119, 8, FormatDec).exact().readOnly()
	t[FieldCTNWSrc] = nxm("ct_nw_src", 120, 32, FormatIPv4).readOnly()
	t[FieldCTNWDst] = nxm("ct_nw_dst", 121, 32, FormatIPv4).readOnly()
	t[FieldCTIPv6Src] = nxm("ct_ipv6_src", 122, 128, FormatIPv6).readOnly()
	t[FieldCTIPv6Dst] = nxm("ct_ipv6_dst", 123, 128, FormatIPv6).readOnly()
	t[FieldCTTPSrc] = nxm("ct_tp_src", 124, 16, FormatDec).readOnly()
	t[FieldCTTPDst] = nxm("ct_tp_dst", 125, 16, FormatDec).readOnly()
	for f := range t {
		t[f].Field = Field(f)
	}
	return t
}

type fieldKey struct {
	class  uint16
	number uint8
	vendor uint32
}

// fieldByKey is filled once, when the package is loaded, and never written again.
var fieldByKey = func() map[fieldKey]Field {
	m := map[fieldKey]Field{}
	for f := Field(1); f < fieldEnd; f++ {
		i := &fieldTable[f]
		m[fieldKey{i.Class, i.Number, i.Experimenter}] = f
		if i.alias >= 0 {
			m[fieldKey{class: uint16(i.alias >> 8), number: uint8(i.alias)}] = f
		}
	}
	// OpenFlow 1.3 had these two as extensions of the ONF.
	m[fieldKey{classExperimenter, 42, vendorONF}] = FieldTCPFlags
	m[fieldKey{classExperimenter, 43, vendorONF}] = FieldActsetOutput
	return m
}()

// Info describes f; the zero FieldInfo where there is no such field.
func (f Field) Info() FieldInfo {
	if f == 0 || f >= fieldEnd {
		return FieldInfo{}
	}
	return fieldTable[f]
}

func (f Field) valid() bool { return f > 0 && f < fieldEnd }

// String gives the field's name as Open vSwitch's tools accept it.
func (f Field) String() string {
	if !f.valid() {
		return fmt.Sprintf("field%d", uint8(f))
	}
	return fieldTable[f].Name
}

// Fields describes every field, in the order of encoding.
func Fields() []FieldInfo {
	t := make([]FieldInfo, 0, fieldEnd-1)
	return append(t, fieldTable[1:]...)
}

// Ports that have a meaning of their own (OpenFlow 1.5.1, 7.2.1).
const (
	PortMax        uint32 = 0xffffff00 // largest number of a real port
	PortUnset      uint32 = 0xfffffff7
	PortInPort     uint32 = 0xfffffff8
	PortTable      uint32 = 0xfffffff9
	PortNormal     uint32 = 0xfffffffa
	PortFlood      uint32 = 0xfffffffb
	PortAll        uint32 = 0xfffffffc
	PortController uint32 = 0xfffffffd
	PortLocal      uint32 = 0xfffffffe
	PortAny        uint32 = 0xffffffff
)

func portName(p uint32) string {
	switch p {
	case PortUnset:
		return "UNSET"
	case PortInPort:
		return "IN_PORT"
	case PortTable:
		return "TABLE"
	case PortNormal:
		return "NORMAL"
	case PortFlood:
		return "FLOOD"
	case PortAll:
		return "ALL"
	case PortController:
		return "CONTROLLER"
	case PortLocal:
		return "LOCAL"
	case PortAny:
		return "ANY"
	}
	return fmt.Sprint(p)
}
