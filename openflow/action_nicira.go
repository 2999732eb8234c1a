package openflow

import (
	"encoding/hex"
	"fmt"
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

func (e *encoder) niciraVoid(subtype uint16) {
	e.endAction(e.startNicira(subtype))
}

func (CTClear) encode(e *encoder)  { e.niciraVoid(nxCTClear) }
func (Exit) encode(e *encoder)     { e.niciraVoid(nxExit) }
func (PopQueue) encode(e *encoder) { e.niciraVoid(nxPopQueue) }

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

func (CTClear) String() string  { return "ct_clear" }
func (Exit) String() string     { return "exit" }
func (PopQueue) String() string { return "pop_queue" }

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
