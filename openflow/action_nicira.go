package openflow

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"strings"
)

// Subtypes of Nicira actions (ovs-actions(7) describes the actions).
const (
	nxPopQueue       = 5
	nxNote           = 8
	nxMultipath      = 10
	nxResubmitTable  = 14
	nxLearn          = 16
	nxExit           = 17
	nxFinTimeout     = 19
	nxPush           = 27
	nxPop            = 28
	nxOutputReg2     = 32
	nxConjunction    = 34
	nxCT             = 35
	nxNAT            = 36
	nxController2    = 37
	nxOutputTrunc    = 39
	nxClone          = 42
	nxCTClear        = 43
	nxResubmitCT     = 44
	nxCheckPktLarger = 49
)

// TableAll, as a table number, means every table or none, by context.
const TableAll uint8 = 0xff

// Resubmit looks the packet up again and returns here afterwards.
type Resubmit struct {
	InPort uint32 // the port to look up with; PortInPort keeps the packet's own
	Table  uint8  // TableAll is the current table
	// CT looks up with addresses and ports as in the tracked connection's original direction.
	// Open vSwitch takes it only in a flow whose match implies a valid connection, such as
	// ct_state=+trk+est.
	CT bool
}

// ResubmitTable looks the packet up in a table.
func ResubmitTable(table uint8) Resubmit { return Resubmit{InPort: PortInPort, Table: table} }

// CT sends the packet through the connection tracker.
type CT struct {
	Commit bool // create the connection
	Force  bool // with Commit: replace one that runs the other way
	Zone   uint16
	// ZoneFrom, where its Field is set, is the 16-bit subfield that gives the zone.
	ZoneFrom Subfield
	// Recirculate continues a copy of the packet, with its ct_ fields filled, in Table.
	Recirculate bool
	Table       uint8
	ALG         uint16 // 21 for FTP, 69 for TFTP, 0 for none
	// Actions are NAT, and SetField or CopyField on ct_mark and ct_label.
	Actions []Action
}

// NAT, inside CT, translates addresses. Without Source and Dest it applies what the
// connection was committed with.
type NAT struct {
	Source, Dest       bool // one of them at most
	Persistent         bool
	Hash, Random       bool       // how to pick ports; one of them at most
	AddrMin, AddrMax   netip.Addr // AddrMax may be the zero Addr
	ProtoMin, ProtoMax uint16     // ports; 0 for none
}

// NATTo makes a source or destination NAT to one address.
func NATTo(source bool, a netip.Addr) NAT { return NAT{Source: source, Dest: !source, AddrMin: a} }

// CTClear takes the packet out of connection tracking.
type CTClear struct{}

// LearnKind says what a LearnSpec adds to the learned flow.
type LearnKind uint8

// The kinds.
const (
	LearnMatch  LearnKind = 0 // a term of its match
	LearnLoad   LearnKind = 1 // a load into a field
	LearnOutput LearnKind = 2 // an output to the port in Src
)

// LearnSpec is one part of the flow that Learn adds.
type LearnSpec struct {
	Kind LearnKind
	// Immediate takes the content from Value; otherwise it comes from Src of the packet.
	Immediate bool
	Value     Value
	Src       Subfield
	Dst       Subfield // unused with LearnOutput
}

// bits is the width that a spec copies.
func (s LearnSpec) bits() uint16 {
	if s.Kind == LearnOutput {
		return s.Src.Bits
	}
	return s.Dst.Bits
}

// LearnMatchFrom makes the learned flow match dst against what src holds now.
func LearnMatchFrom(dst, src Subfield) LearnSpec {
	return LearnSpec{Kind: LearnMatch, Src: src, Dst: dst}
}

// LearnMatchValue makes the learned flow match dst against v.
func LearnMatchValue(dst Subfield, v Value) LearnSpec {
	return LearnSpec{Kind: LearnMatch, Immediate: true, Value: v, Dst: dst}
}

// LearnLoadFrom makes the learned flow load what src holds now into dst.
func LearnLoadFrom(dst, src Subfield) LearnSpec {
	return LearnSpec{Kind: LearnLoad, Src: src, Dst: dst}
}

// LearnLoadValue makes the learned flow load v into dst.
func LearnLoadValue(dst Subfield, v Value) LearnSpec {
	return LearnSpec{Kind: LearnLoad, Immediate: true, Value: v, Dst: dst}
}

// LearnOutputTo makes the learned flow output to the port that src holds now.
func LearnOutputTo(src Subfield) LearnSpec { return LearnSpec{Kind: LearnOutput, Src: src} }

// Learn adds or refreshes a flow made from the packet.
type Learn struct {
	IdleTimeout, HardTimeout       uint16 // seconds, 0 for none
	Priority                       uint16
	Cookie                         uint64
	Table                          uint8
	SendFlowRemoved                bool
	DeleteLearned                  bool // the learned flows go when this flow goes
	FinIdleTimeout, FinHardTimeout uint16
	Specs                          []LearnSpec
}

// Conjunction says that a flow meets one clause of a conjunctive match.
type Conjunction struct {
	ID      uint32
	Clause  uint8 // 1 to Clauses
	Clauses uint8 // 2 to 64
}

// Controller sends the packet to the controller with more choice than Output.
type Controller struct {
	Truncate bool   // send at most MaxLen bytes; otherwise the whole packet
	MaxLen   uint16 // counts with Truncate only
	ID       uint16 // the controller connection's id, 0 by default
	// Reason is what the packet-in says; zero stands for ReasonAction.
	Reason   PacketInReason
	UserData []byte
	Pause    bool   // stop the pipeline; the packet-in's continuation resumes it
	MeterID  uint32 // limits the packet-ins; 0 for none
}

// OutputTrunc sends the first MaxLen bytes of the packet to a port.
type OutputTrunc struct {
	Port   uint32
	MaxLen uint32 // at least 14
}

// OutputField sends the packet to the port whose number a subfield holds.
type OutputField struct {
	Src    Subfield
	MaxLen uint16 // as in Output
}

// CheckPktLarger sets the bit Dst to whether the packet has more than Len bytes.
type CheckPktLarger struct {
	Len uint16 // counts the Ethernet header
	Dst Subfield
}

// Note does nothing; it carries bytes for whoever reads the flow. The switch pads them with
// zeros to 6 bytes more than a multiple of 8.
type Note struct{ Data []byte }

// Clone runs actions on a copy of the packet.
type Clone struct{ Actions []Action }

// Push puts a subfield on the stack; Pop takes it back.
type Push struct{ Src Subfield }

// Pop takes the top of the stack into a subfield.
type Pop struct{ Dst Subfield }

// FinTimeout lowers the flow's timeouts once a TCP FIN or RST passes.
type FinTimeout struct{ Idle, Hard uint16 }

// Exit ends all processing of the packet.
type Exit struct{}

// PopQueue restores the queue that the packet had on arrival.
type PopQueue struct{}

// Multipath hashes the packet to one of Links numbers, which it stores in Dst.
type Multipath struct {
	Fields    uint16 // NX_HASH_FIELDS_*: 0 Ethernet source, 1 symmetric layer 4, ...
	Basis     uint16
	Algorithm uint16 // 0 modulo n, 1 hash threshold, 2 highest random weight, 3 iterative
	Links     uint16 // 1 to 65535
	Arg       uint32
	Dst       Subfield
}

func (e *encoder) startNicira(subtype uint16) int {
	start := e.startAction(actExperimenter)
	e.u32(vendorNicira)
	e.u16(subtype)
	return start
}

// shortHeader gives the 4-byte header that older Nicira structures want: the NXM one where
// there is one, as Open vSwitch writes it.
func (e *encoder) shortHeader(f Field) uint32 {
	if !f.valid() {
		e.fail(fmt.Errorf("openflow: %v is no field", f))
		return 0
	}
	i := fieldTable[f]
	switch {
	case i.alias >= 0:
		i.Class, i.Number, i.Experimenter = uint16(i.alias>>8), uint8(i.alias), 0
	case i.Experimenter != 0:
		e.fail(fmt.Errorf("openflow: %v has no short header", f))
	}
	return i.header(false)
}

// port16 is the 16-bit form of a port number.
func (e *encoder) port16(p uint32) uint16 {
	switch {
	case p >= PortMax:
		return uint16(p)
	case p < 0xff00:
		return uint16(p)
	}
	e.fail(fmt.Errorf("openflow: port %d does not fit 16 bits", p))
	return 0
}

func port32(p uint16) uint32 {
	if p >= 0xff00 {
		return 0xffff0000 | uint32(p)
	}
	return uint32(p)
}

func (a Resubmit) encode(e *encoder) {
	sub := uint16(nxResubmitTable)
	if a.CT {
		sub = nxResubmitCT
	}
	start := e.startNicira(sub)
	e.u16(e.port16(a.InPort))
	e.u8(a.Table)
	e.endAction(start)
}

const (
	ctCommit = 1 << 0
	ctForce  = 1 << 1
)

func (a CT) encode(e *encoder) {
	start := e.startNicira(nxCT)
	var flags uint16
	if a.Commit {
		flags |= ctCommit
	}
	if a.Force {
		flags |= ctForce
	}
	e.u16(flags)
	if a.ZoneFrom.Field != 0 {
		e.u32(e.shortHeader(a.ZoneFrom.Field))
		e.u16(a.ZoneFrom.ofsNBits(e))
	} else {
		e.u32(0)
		e.u16(a.Zone)
	}
	if a.Recirculate {
		if a.Table == TableAll {
			e.fail(malformed("ct to table %d", a.Table))
		}
		e.u8(a.Table)
	} else {
		e.u8(TableAll)
	}
	e.zeros(3)
	e.u16(a.ALG)
	encodeActions(e, a.Actions)
	e.endAction(start)
}

const (
	natSource     = 1 << 0
	natDest       = 1 << 1
	natPersistent = 1 << 2
	natHash       = 1 << 3
	natRandom     = 1 << 4

	natIPv4Min  = 1 << 0
	natIPv4Max  = 1 << 1
	natIPv6Min  = 1 << 2
	natIPv6Max  = 1 << 3
	natProtoMin = 1 << 4
	natProtoMax = 1 << 5
)

func (a NAT) encode(e *encoder) {
	start := e.startNicira(nxNAT)
	e.u16(0)
	var flags, present uint16
	for _, f := range [...]struct {
		on  bool
		bit uint16
	}{{a.Source, natSource}, {a.Dest, natDest}, {a.Persistent, natPersistent}, {a.Hash, natHash}, {a.Random, natRandom}} {
		if f.on {
			flags |= f.bit
		}
	}
	lo, hi := a.AddrMin.Unmap(), a.AddrMax.Unmap()
	if hi.IsValid() && (!lo.IsValid() || lo.Is4() != hi.Is4()) {
		e.fail(malformed("nat range %v-%v", lo, hi))
	}
	pick := func(a netip.Addr, v4, v6 uint16) {
		if a.Is4() {
			present |= v4
		} else if a.IsValid() {
			present |= v6
		}
	}
	pick(lo, natIPv4Min, natIPv6Min)
	pick(hi, natIPv4Max, natIPv6Max)
	if a.ProtoMin != 0 {
		present |= natProtoMin
	}
	if a.ProtoMax != 0 {
		present |= natProtoMax
	}
	e.u16(flags)
	e.u16(present)
	e.bytes(lo.AsSlice())
	e.bytes(hi.AsSlice())
	if a.ProtoMin != 0 {
		e.u16(a.ProtoMin)
	}
	if a.ProtoMax != 0 {
		e.u16(a.ProtoMax)
	}
	e.endAction(start)
}

func (e *encoder) niciraVoid(subtype uint16) {
	e.endAction(e.startNicira(subtype))
}

func (CTClear) encode(e *encoder)  { e.niciraVoid(nxCTClear) }
func (Exit) encode(e *encoder)     { e.niciraVoid(nxExit) }
func (PopQueue) encode(e *encoder) { e.niciraVoid(nxPopQueue) }

const (
	learnSendFlowRemoved = 1 << 0
	learnDelete          = 1 << 1
	learnImmediate       = 1 << 13
	learnBits            = 0x3ff
)

func (a Learn) encode(e *encoder) {
	start := e.startNicira(nxLearn)
	e.u16(a.IdleTimeout)
	e.u16(a.HardTimeout)
	e.u16(a.Priority)
	e.u64(a.Cookie)
	var flags uint16
	if a.SendFlowRemoved {
		flags |= learnSendFlowRemoved
	}
	if a.DeleteLearned {
		flags |= learnDelete
	}
	e.u16(flags)
	e.u8(a.Table)
	e.u8(0)
	e.u16(a.FinIdleTimeout)
	e.u16(a.FinHardTimeout)
	for _, s := range a.Specs {
		n := s.bits()
		if n < 1 || n > 128 || s.Kind > LearnOutput || (s.Kind == LearnOutput && s.Immediate) ||
			(!s.Immediate && s.Src.Bits != n) {
			e.fail(malformed("learn spec %v", s))
			return
		}
		h := n | uint16(s.Kind)<<11
		if s.Immediate {
			h |= learnImmediate
		}
		e.u16(h)
		if s.Immediate {
			e.b = s.Value.And(Ones(int(n))).append(e.b, 2*((int(n)+15)/16))
		} else {
			e.u32(e.shortHeader(s.Src.Field))
			e.u16(s.Src.Offset)
		}
		if s.Kind != LearnOutput {
			e.u32(e.shortHeader(s.Dst.Field))
			e.u16(s.Dst.Offset)
		}
	}
	e.endAction(start)
}

func (a Conjunction) encode(e *encoder) {
	if a.Clause < 1 || a.Clause > a.Clauses || a.Clauses < 2 || a.Clauses > 64 {
		e.fail(malformed("conjunction clause %d/%d", a.Clause, a.Clauses))
	}
	start := e.startNicira(nxConjunction)
	e.u8(a.Clause - 1)
	e.u8(a.Clauses)
	e.u32(a.ID)
	e.endAction(start)
}

// Properties of controller2.
const (
	ctlMaxLen   = 0
	ctlID       = 1
	ctlReason   = 2
	ctlUserData = 3
	ctlPause    = 4
	ctlMeter    = 5
)

func (a Controller) encode(e *encoder) {
	start := e.startNicira(nxController2)
	e.zeros(6)
	if a.Truncate {
		e.propU16(ctlMaxLen, a.MaxLen)
	}
	if a.ID != 0 {
		e.propU16(ctlID, a.ID)
	}
	if a.Reason != 0 {
		p := e.prop(ctlReason)
		e.u8(uint8(a.Reason))
		e.endProp(p)
	}
	if len(a.UserData) > 0 {
		p := e.prop(ctlUserData)
		e.bytes(a.UserData)
		e.endProp(p)
	}
	if a.Pause {
		e.endProp(e.prop(ctlPause))
	}
	if a.MeterID != 0 {
		e.propU32(ctlMeter, a.MeterID)
	}
	e.endAction(start)
}

func (a OutputTrunc) encode(e *encoder) {
	start := e.startNicira(nxOutputTrunc)
	e.u16(e.port16(a.Port))
	e.u32(a.MaxLen)
	e.endAction(start)
}

func (a OutputField) encode(e *encoder) {
	start := e.startNicira(nxOutputReg2)
	e.u16(a.Src.ofsNBits(e))
	e.u16(a.MaxLen)
	at := len(e.b)
	a.Src.Field.encodeHeader(e)
	e.zeros(10 - (len(e.b) - at))
	e.endAction(start)
}

func (a CheckPktLarger) encode(e *encoder) {
	if a.Dst.Bits != 1 {
		e.fail(malformed("check_pkt_larger into %v, which is not one bit", a.Dst))
	}
	start := e.startNicira(nxCheckPktLarger)
	e.u16(a.Len)
	e.u16(a.Dst.Offset)
	at := len(e.b)
	a.Dst.Field.encodeHeader(e)
	e.zeros(10 - (len(e.b) - at))
	e.endAction(start)
}

func (a Note) encode(e *encoder) {
	start := e.startNicira(nxNote)
	e.bytes(a.Data)
	if n := 6 - len(a.Data); n > 0 {
		e.zeros(n)
	}
	e.endAction(start)
}

func (a Clone) encode(e *encoder) {
	start := e.startNicira(nxClone)
	e.zeros(6)
	encodeActions(e, a.Actions)
	e.endAction(start)
}

func (e *encoder) stack(subtype uint16, s Subfield) {
	start := e.startNicira(subtype)
	e.u16(s.Offset)
	at := len(e.b)
	s.Field.encodeHeader(e)
	e.u16(s.Bits)
	e.zeros(12 - (len(e.b) - at))
	e.endAction(start)
}

func (a Push) encode(e *encoder) { e.stack(nxPush, a.Src) }
func (a Pop) encode(e *encoder)  { e.stack(nxPop, a.Dst) }

func (a FinTimeout) encode(e *encoder) {
	start := e.startNicira(nxFinTimeout)
	e.u16(a.Idle)
	e.u16(a.Hard)
	e.endAction(start)
}

func (a Multipath) encode(e *encoder) {
	if a.Links == 0 {
		e.fail(malformed("multipath over no links"))
	}
	start := e.startNicira(nxMultipath)
	e.u16(a.Fields)
	e.u16(a.Basis)
	e.u16(0)
	e.u16(a.Algorithm)
	e.u16(a.Links - 1)
	e.u32(a.Arg)
	e.u16(0)
	e.u16(a.Dst.ofsNBits(e))
	e.u32(e.shortHeader(a.Dst.Field))
	e.endAction(start)
}

// decodeNicira takes a Nicira action behind its experimenter id.
func decodeNicira(r *reader, depth int) (Action, error) {
	var a Action
	sub := r.u16()
	switch sub {
	case nxResubmitTable, nxResubmitCT:
		a = Resubmit{InPort: port32(r.u16()), Table: r.u8(), CT: sub == nxResubmitCT}
	case nxCT:
		return decodeCT(r, depth)
	case nxNAT:
		return decodeNAT(r)
	case nxCTClear:
		a = CTClear{}
	case nxExit:
		a = Exit{}
	case nxPopQueue:
		a = PopQueue{}
	case nxLearn:
		return decodeLearn(r)
	case nxConjunction:
		a = Conjunction{Clause: r.u8() + 1, Clauses: r.u8(), ID: r.u32()}
	case nxController2:
		return decodeController(r)
	case nxOutputTrunc:
		a = OutputTrunc{Port: port32(r.u16()), MaxLen: r.u32()}
	case nxOutputReg2:
		ofs, max := r.u16(), r.u16()
		a = OutputField{fromOfsNBits(decodeFieldHeader(r), ofs), max}
	case nxCheckPktLarger:
		n, ofs := r.u16(), r.u16()
		a = CheckPktLarger{n, Subfield{decodeFieldHeader(r), ofs, 1}}
	case nxNote:
		a = Note{append([]byte(nil), r.take(len(r.b))...)}
	case nxClone:
		r.skip(6)
		a = Clone{decodeActions(r, depth+1)}
	case nxPush, nxPop:
		s := Subfield{Offset: r.u16()}
		s.Field = decodeFieldHeader(r)
		s.Bits = r.u16()
		if sub == nxPush {
			a = Push{s}
		} else {
			a = Pop{s}
		}
	case nxFinTimeout:
		a = FinTimeout{r.u16(), r.u16()}
	case nxMultipath:
		m := Multipath{Fields: r.u16(), Basis: r.u16()}
		r.skip(2)
		m.Algorithm = r.u16()
		links := r.u16()
		m.Arg = r.u32()
		r.skip(2)
		ofs := r.u16()
		m.Dst = fromOfsNBits(decodeFieldHeader(r), ofs)
		if links == 0xffff {
			return nil, r.err
		}
		m.Links = links + 1
		a = m
	default:
		return nil, r.err
	}
	return a, r.err
}

func decodeCT(r *reader, depth int) (Action, error) {
	flags := r.u16()
	src := r.u32()
	zone := r.u16()
	a := CT{Commit: flags&ctCommit != 0, Force: flags&ctForce != 0}
	if src != 0 {
		f, ok := fieldByKey[fieldKey{class: uint16(src >> 16), number: uint8(src>>9) & 0x7f}]
		if !ok {
			return nil, r.err
		}
		a.ZoneFrom = fromOfsNBits(f, zone)
	} else {
		a.Zone = zone
	}
	if t := r.u8(); t != TableAll {
		a.Recirculate, a.Table = true, t
	}
	r.skip(3)
	a.ALG = r.u16()
	a.Actions = decodeActions(r, depth+1)
	return a, r.err
}

func decodeNAT(r *reader) (Action, error) {
	r.skip(2)
	flags, present := r.u16(), r.u16()
	a := NAT{
		Source: flags&natSource != 0, Dest: flags&natDest != 0, Persistent: flags&natPersistent != 0,
		Hash: flags&natHash != 0, Random: flags&natRandom != 0,
	}
	if present&natIPv4Min != 0 {
		a.AddrMin = U64(uint64(r.u32())).IPv4()
	}
	if present&natIPv4Max != 0 {
		a.AddrMax = U64(uint64(r.u32())).IPv4()
	}
	if present&natIPv6Min != 0 {
		a.AddrMin = Value{Hi: r.u64(), Lo: r.u64()}.IPv6()
	}
	if present&natIPv6Max != 0 {
		a.AddrMax = Value{Hi: r.u64(), Lo: r.u64()}.IPv6()
	}
	if present&natProtoMin != 0 {
		a.ProtoMin = r.u16()
	}
	if present&natProtoMax != 0 {
		a.ProtoMax = r.u16()
	}
	return a, r.err
}

func decodeLearn(r *reader) (Action, error) {
	a := Learn{IdleTimeout: r.u16(), HardTimeout: r.u16(), Priority: r.u16(), Cookie: r.u64()}
	flags := r.u16()
	a.SendFlowRemoved, a.DeleteLearned = flags&learnSendFlowRemoved != 0, flags&learnDelete != 0
	a.Table = r.u8()
	r.skip(1)
	a.FinIdleTimeout, a.FinHardTimeout = r.u16(), r.u16()
	short := func() Field {
		h := r.u32()
		f, ok := fieldByKey[fieldKey{class: uint16(h >> 16), number: uint8(h>>9) & 0x7f}]
		if !ok && r.err == nil {
			r.fail(malformed("learn: field header %#08x is not known", h))
		}
		return f
	}
	for len(r.b) >= 2 && r.err == nil {
		h := r.u16()
		if h == 0 {
			break
		}
		n := h & learnBits
		s := LearnSpec{Kind: LearnKind(h >> 11 & 3), Immediate: h&learnImmediate != 0}
		if n == 0 || n > 128 || s.Kind > LearnOutput || (s.Kind == LearnOutput && s.Immediate) {
			return nil, malformed("learn spec %#04x", h)
		}
		if s.Immediate {
			s.Value = valueOf(r.take(2 * ((int(n) + 15) / 16))).And(Ones(int(n)))
		} else {
			s.Src = Subfield{short(), r.u16(), n}
		}
		if s.Kind != LearnOutput {
			s.Dst = Subfield{short(), r.u16(), n}
		}
		a.Specs = append(a.Specs, s)
	}
	return a, r.err
}

func decodeController(r *reader) (Action, error) {
	r.skip(6)
	var a Controller
	for len(r.b) >= 4 && r.err == nil {
		typ, p := r.nextProp()
		switch typ {
		case ctlMaxLen:
			a.Truncate, a.MaxLen = true, p.u16()
		case ctlID:
			a.ID = p.u16()
		case ctlReason:
			if a.Reason = PacketInReason(p.u8()); a.Reason == 0 {
				return nil, p.err // "no match" cannot be told from the default: keep it raw
			}
		case ctlUserData:
			a.UserData = append([]byte(nil), p.take(len(p.b))...)
		case ctlPause:
			a.Pause = true
		case ctlMeter:
			a.MeterID = p.u32()
		default:
			return nil, p.err
		}
		if p.err != nil && r.err == nil {
			return nil, p.err
		}
	}
	return a, r.err
}

func (a Resubmit) String() string {
	port, table, ct := "", "", ""
	if a.InPort != PortInPort {
		port = portName(a.InPort)
	}
	if a.Table != TableAll {
		table = fmt.Sprint(a.Table)
	}
	if a.CT {
		ct = ",ct"
	}
	return "resubmit(" + port + "," + table + ct + ")"
}

func (a CT) String() string {
	var p []string
	if a.Commit {
		p = append(p, "commit")
	}
	if a.Force {
		p = append(p, "force")
	}
	if a.Recirculate {
		p = append(p, fmt.Sprintf("table=%d", a.Table))
	}
	if a.ZoneFrom.Field != 0 {
		p = append(p, "zone="+a.ZoneFrom.String())
	} else if a.Zone != 0 {
		p = append(p, fmt.Sprintf("zone=%d", a.Zone))
	}
	var exec []Action
	for _, x := range a.Actions {
		if n, ok := x.(NAT); ok {
			p = append(p, n.String())
		} else {
			exec = append(exec, x)
		}
	}
	if len(exec) > 0 {
		p = append(p, "exec("+ActionsString(exec)+")")
	}
	switch a.ALG {
	case 0:
	case 21:
		p = append(p, "alg=ftp")
	case 69:
		p = append(p, "alg=tftp")
	default:
		p = append(p, fmt.Sprintf("alg=%d", a.ALG))
	}
	if len(p) == 0 {
		return "ct"
	}
	return "ct(" + strings.Join(p, ",") + ")"
}

func (a NAT) String() string {
	side := ""
	switch {
	case a.Source:
		side = "src"
	case a.Dest:
		side = "dst"
	default:
		return "nat"
	}
	var b strings.Builder
	b.WriteString("nat(" + side)
	if a.AddrMin.IsValid() {
		bracket := a.AddrMin.Is6() && a.ProtoMin != 0
		b.WriteByte('=')
		if bracket {
			b.WriteByte('[')
		}
		b.WriteString(a.AddrMin.String())
		if a.AddrMax.IsValid() {
			b.WriteString("-" + a.AddrMax.String())
		}
		if bracket {
			b.WriteByte(']')
		}
		if a.ProtoMin != 0 {
			fmt.Fprintf(&b, ":%d", a.ProtoMin)
			if a.ProtoMax != 0 {
				fmt.Fprintf(&b, "-%d", a.ProtoMax)
			}
		}
	}
	for _, f := range [...]struct {
		on   bool
		name string
	}{{a.Persistent, ",persistent"}, {a.Hash, ",hash"}, {a.Random, ",random"}} {
		if f.on {
			b.WriteString(f.name)
		}
	}
	b.WriteByte(')')
	return b.String()
}

func (CTClear) String() string  { return "ct_clear" }
func (Exit) String() string     { return "exit" }
func (PopQueue) String() string { return "pop_queue" }

// String writes the spec as learn's arguments are written.
func (s LearnSpec) String() string {
	switch s.Kind {
	case LearnOutput:
		return "output:" + s.Src.String()
	case LearnLoad:
		if s.Immediate {
			return fmt.Sprintf("load:%s->%v", hexValue(s.Value), s.Dst)
		}
		return fmt.Sprintf("load:%v->%v", s.Src, s.Dst)
	}
	switch {
	case s.Immediate && s.Dst == Whole(s.Dst.Field):
		return fmt.Sprintf("%v=%s", s.Dst.Field, s.Dst.Field.content(s.Value))
	case s.Immediate:
		return fmt.Sprintf("%v=%s", s.Dst, hexValue(s.Value))
	case s.Src == s.Dst:
		return s.Dst.String()
	}
	return fmt.Sprintf("%v=%v", s.Dst, s.Src)
}

// content writes v in the format of f.
func (f Field) content(v Value) string {
	i := f.Info()
	return i.content(v)
}

func (a Learn) String() string {
	p := []string{fmt.Sprintf("table=%d", a.Table)}
	num := func(name string, v uint16) {
		if v != 0 {
			p = append(p, fmt.Sprintf("%s=%d", name, v))
		}
	}
	num("idle_timeout", a.IdleTimeout)
	num("hard_timeout", a.HardTimeout)
	num("fin_idle_timeout", a.FinIdleTimeout)
	num("fin_hard_timeout", a.FinHardTimeout)
	p = append(p, fmt.Sprintf("priority=%d", a.Priority))
	if a.SendFlowRemoved {
		p = append(p, "send_flow_rem")
	}
	if a.DeleteLearned {
		p = append(p, "delete_learned")
	}
	if a.Cookie != 0 {
		p = append(p, fmt.Sprintf("cookie=%#x", a.Cookie))
	}
	for _, s := range a.Specs {
		p = append(p, s.String())
	}
	return "learn(" + strings.Join(p, ",") + ")"
}

func (a Conjunction) String() string {
	return fmt.Sprintf("conjunction(%d,%d/%d)", a.ID, a.Clause, a.Clauses)
}

func (a Controller) String() string {
	var p []string
	if a.Reason != 0 {
		p = append(p, "reason="+a.Reason.String())
	}
	if a.Truncate {
		p = append(p, fmt.Sprintf("max_len=%d", a.MaxLen))
	}
	if a.ID != 0 {
		p = append(p, fmt.Sprintf("id=%d", a.ID))
	}
	if len(a.UserData) > 0 {
		p = append(p, "userdata="+dotted(a.UserData))
	}
	if a.Pause {
		p = append(p, "pause")
	}
	if a.MeterID != 0 {
		p = append(p, fmt.Sprintf("meter_id=%d", a.MeterID))
	}
	return "controller(" + strings.Join(p, ",") + ")"
}

// dotted writes bytes in hexadecimal with dots between.
func dotted(b []byte) string {
	var s strings.Builder
	for i := range b {
		if i > 0 {
			s.WriteByte('.')
		}
		s.WriteString(hex.EncodeToString(b[i : i+1]))
	}
	return s.String()
}

func (a OutputTrunc) String() string {
	return fmt.Sprintf("output(port=%s,max_len=%d)", portName(a.Port), a.MaxLen)
}

func (a OutputField) String() string { return "output:" + a.Src.String() }

func (a CheckPktLarger) String() string {
	return fmt.Sprintf("check_pkt_larger(%d)->%v", a.Len, a.Dst)
}

func (a Note) String() string { return "note:" + dotted(a.Data) }
func (a Clone) String() string {
	return "clone(" + strings.TrimSuffix(ActionsString(a.Actions), "drop") + ")"
}
func (a Push) String() string { return "push:" + a.Src.String() }
func (a Pop) String() string  { return "pop:" + a.Dst.String() }

func (a FinTimeout) String() string {
	return fmt.Sprintf("fin_timeout(idle_timeout=%d,hard_timeout=%d)", a.Idle, a.Hard)
}

func (a Multipath) String() string {
	fields := [...]string{"eth_src", "symmetric_l4", "symmetric_l3l4", "symmetric_l3l4+udp", "nw_src", "nw_dst", "symmetric_l3"}
	algs := [...]string{"modulo_n", "hash_threshold", "hrw", "iter_hash"}
	f, g := fmt.Sprint(a.Fields), fmt.Sprint(a.Algorithm)
	if int(a.Fields) < len(fields) {
		f = fields[a.Fields]
	}
	if int(a.Algorithm) < len(algs) {
		g = algs[a.Algorithm]
	}
	return fmt.Sprintf("multipath(%s,%d,%s,%d,%d,%v)", f, a.Basis, g, a.Links, a.Arg, a.Dst)
}
