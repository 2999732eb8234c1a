package openflow

import (
	"fmt"
	"strings"
)

// Action is one step of an action list. The types of this package are the only ones; an
// action that this package does not know is decoded as [RawAction]. Actions are plain
// values: compare them with reflect.DeepEqual or by their encoding.
type Action interface {
	encode(e *encoder)
	// String writes the action as Open vSwitch's tools accept it.
	String() string
}

// Action types (OpenFlow 1.5.1, 7.2.6).
const (
	actOutput       = 0
	actDecMPLSTTL   = 16
	actPushVLAN     = 17
	actPopVLAN      = 18
	actPushMPLS     = 19
	actPopMPLS      = 20
	actSetQueue     = 21
	actGroup        = 22
	actDecTTL       = 24
	actSetField     = 25
	actCopyField    = 28
	actMeter        = 29
	actExperimenter = 0xffff
)

// MaxLenAll, as a packet's length limit to the controller, asks for the whole packet.
const MaxLenAll uint16 = 0xffff

// Output sends the packet to a port, or to the controller.
type Output struct {
	Port uint32
	// MaxLen limits the bytes sent to the controller; MaxLenAll sends all. It has no meaning
	// for other ports.
	MaxLen uint16
}

// ToPort sends to a port, a reserved one or another.
func ToPort(port uint32) Output { return Output{Port: port} }

// ToController sends the whole packet to the controller.
func ToController() Output { return Output{PortController, MaxLenAll} }

// Group hands the packet to a group.
type Group struct{ ID uint32 }

// SetField writes those bits of a field that Mask names.
type SetField struct{ FieldValue }

// Set makes one set_field action of each value.
func Set(v FieldValue) SetField { return SetField{v} }

// Subfield is a run of bits of a field, from bit Offset (0 is the least significant).
type Subfield struct {
	Field  Field
	Offset uint16
	Bits   uint16
}

// Whole is the subfield that covers f.
func Whole(f Field) Subfield { return Subfield{Field: f, Bits: uint16(f.Info().Bits)} }

// Sub is the subfield of f with n bits from bit offset on.
func Sub(f Field, offset, n int) Subfield {
	return Subfield{Field: f, Offset: uint16(offset), Bits: uint16(n)}
}

// String writes the subfield as Open vSwitch's tools do, such as reg0[0..15].
func (s Subfield) String() string {
	switch {
	case s.Offset == 0 && int(s.Bits) == s.Field.Info().Bits:
		return s.Field.String() + "[]"
	case s.Bits == 1:
		return fmt.Sprintf("%v[%d]", s.Field, s.Offset)
	}
	return fmt.Sprintf("%v[%d..%d]", s.Field, s.Offset, int(s.Offset)+int(s.Bits)-1)
}

// ofsNBits is the 16-bit form of offset and width: (offset << 6) | (bits - 1).
func (s Subfield) ofsNBits(e *encoder) uint16 {
	if s.Bits < 1 || s.Bits > 64 || s.Offset > 1023 {
		e.fail(fmt.Errorf("openflow: subfield %v does not fit", s))
		return 0
	}
	return s.Offset<<6 | (s.Bits - 1)
}

func fromOfsNBits(f Field, v uint16) Subfield { return Subfield{f, v >> 6, v&0x3f + 1} }

// CopyField copies Src onto Dst, which has as many bits.
type CopyField struct{ Src, Dst Subfield }

// PushVLAN adds a VLAN tag with the given EtherType, id 0 and priority 0.
type PushVLAN struct{ EtherType uint16 }

// PopVLAN removes the outer VLAN tag.
type PopVLAN struct{}

// PushMPLS adds an MPLS label stack entry with the given EtherType.
type PushMPLS struct{ EtherType uint16 }

// PopMPLS removes the outer MPLS entry; EtherType is what lies below.
type PopMPLS struct{ EtherType uint16 }

// DecTTL lowers TTL or hop limit by one; at zero the packet goes to the controller, where
// it wants such packets, and is dropped.
type DecTTL struct{}

// DecMPLSTTL lowers the MPLS TTL by one.
type DecMPLSTTL struct{}

// SetQueue picks the queue of the ports that later outputs name.
type SetQueue struct{ ID uint32 }

// Meter passes the packet through a meter, which may drop it.
type Meter struct{ ID uint32 }

// RawAction is an action that this package does not know, header and padding included.
type RawAction struct{ Bytes []byte }

// startAction writes the header of a standard action.
func (e *encoder) startAction(typ uint16) int {
	start := len(e.b)
	e.u16(typ)
	e.u16(0)
	return start
}

// endAction pads to 8 bytes and stores the length, which counts the padding.
func (e *encoder) endAction(start int) {
	e.pad8(start)
	e.patch16(start+2, start)
}

func (a Output) encode(e *encoder) {
	e.u16(actOutput)
	e.u16(16)
	e.u32(a.Port)
	e.u16(a.MaxLen)
	e.zeros(6)
}

func (e *encoder) action32(typ uint16, v uint32) {
	e.u16(typ)
	e.u16(8)
	e.u32(v)
}

func (e *encoder) action16(typ, v uint16) {
	e.u16(typ)
	e.u16(8)
	e.u16(v)
	e.u16(0)
}

func (a Group) encode(e *encoder)    { e.action32(actGroup, a.ID) }
func (a SetQueue) encode(e *encoder) { e.action32(actSetQueue, a.ID) }
func (a Meter) encode(e *encoder)    { e.action32(actMeter, a.ID) }
func (a PushVLAN) encode(e *encoder) { e.action16(actPushVLAN, a.EtherType) }
func (PopVLAN) encode(e *encoder)    { e.action32(actPopVLAN, 0) }
func (a PushMPLS) encode(e *encoder) { e.action16(actPushMPLS, a.EtherType) }
func (a PopMPLS) encode(e *encoder)  { e.action16(actPopMPLS, a.EtherType) }
func (DecTTL) encode(e *encoder)     { e.action32(actDecTTL, 0) }
func (DecMPLSTTL) encode(e *encoder) { e.action32(actDecMPLSTTL, 0) }
func (a RawAction) encode(e *encoder) {
	if len(a.Bytes) < 8 || len(a.Bytes)%8 != 0 {
		e.fail(malformed("raw action of %d bytes", len(a.Bytes)))
	}
	e.bytes(a.Bytes)
}

func (a SetField) encode(e *encoder) {
	start := e.startAction(actSetField)
	a.FieldValue.encode(e)
	e.endAction(start)
}

func (a CopyField) encode(e *encoder) {
	if a.Src.Bits != a.Dst.Bits {
		e.fail(fmt.Errorf("openflow: copy of %v to %v: widths differ", a.Src, a.Dst))
	}
	start := e.startAction(actCopyField)
	e.u16(a.Src.Bits)
	e.u16(a.Src.Offset)
	e.u16(a.Dst.Offset)
	e.u16(0)
	a.Src.Field.encodeHeader(e)
	a.Dst.Field.encodeHeader(e)
	e.endAction(start)
}

func (a Output) String() string {
	switch {
	case a.Port == PortController:
		return fmt.Sprintf("CONTROLLER:%d", a.MaxLen)
	case a.Port > PortMax:
		return portName(a.Port)
	}
	return "output:" + portName(a.Port)
}

func (a Group) String() string    { return fmt.Sprintf("group:%d", a.ID) }
func (a SetField) String() string { return "set_field:" + a.text() + "->" + a.Field.String() }

func (a CopyField) String() string { return fmt.Sprintf("move:%v->%v", a.Src, a.Dst) }
func (a PushVLAN) String() string  { return fmt.Sprintf("push_vlan:0x%04x", a.EtherType) }
func (PopVLAN) String() string     { return "pop_vlan" }
func (a PushMPLS) String() string  { return fmt.Sprintf("push_mpls:0x%04x", a.EtherType) }
func (a PopMPLS) String() string   { return fmt.Sprintf("pop_mpls:0x%04x", a.EtherType) }
func (DecTTL) String() string      { return "dec_ttl" }
func (DecMPLSTTL) String() string  { return "dec_mpls_ttl" }
func (a SetQueue) String() string  { return fmt.Sprintf("set_queue:%d", a.ID) }
func (a Meter) String() string     { return fmt.Sprintf("meter:%d", a.ID) }
func (a RawAction) String() string { return fmt.Sprintf("raw:%x", a.Bytes) }

// ActionsString joins actions with commas; an empty list gives "drop".
func ActionsString(as []Action) string {
	if len(as) == 0 {
		return "drop"
	}
	parts := make([]string, len(as))
	for i, a := range as {
		parts[i] = a.String()
	}
	return strings.Join(parts, ",")
}

func encodeActions(e *encoder, as []Action) {
	for _, a := range as {
		if a == nil {
			e.fail(malformed("nil action"))
			return
		}
		a.encode(e)
	}
}

// AppendActions appends an action list without framing.
func AppendActions(b []byte, as []Action) ([]byte, error) {
	e := encoder{b: b}
	encodeActions(&e, as)
	return e.b, e.err
}

// maxActionDepth bounds how deep ct and clone may nest when decoded.
const maxActionDepth = 16

// DecodeActions reads an action list without framing. What it returns shares no memory with b.
func DecodeActions(b []byte) ([]Action, error) {
	r := reader{b: b}
	as := decodeActions(&r, 0)
	return as, r.err
}

// decodeActions takes all of r.
func decodeActions(r *reader, depth int) []Action {
	if depth > maxActionDepth {
		r.fail(malformed("actions nested more than %d deep", maxActionDepth))
		return nil
	}
	var as []Action
	for r.err == nil && len(r.b) > 0 {
		whole := r.b
		typ := r.u16()
		n := int(r.u16())
		if r.err == nil && (n < 8 || n%8 != 0) {
			r.fail(malformed("action of %d bytes", n))
		}
		body := r.sub(n - 4)
		if r.err != nil {
			return nil
		}
		a, err := decodeAction(typ, &body, depth)
		if err != nil {
			r.fail(fmt.Errorf("action type %d: %w", typ, err))
			return nil
		}
		if a == nil {
			a = RawAction{append([]byte(nil), whole[:n]...)}
		}
		as = append(as, a)
	}
	return as
}

// decodeAction gives nil, nil for an action that is not known.
func decodeAction(typ uint16, r *reader, depth int) (Action, error) {
	var a Action
	switch typ {
	case actOutput:
		a = Output{Port: r.u32(), MaxLen: r.u16()}
	case actGroup:
		a = Group{r.u32()}
	case actSetQueue:
		a = SetQueue{r.u32()}
	case actMeter:
		a = Meter{r.u32()}
	case actPushVLAN:
		a = PushVLAN{r.u16()}
	case actPopVLAN:
		a = PopVLAN{}
	case actPushMPLS:
		a = PushMPLS{r.u16()}
	case actPopMPLS:
		a = PopMPLS{r.u16()}
	case actDecTTL:
		a = DecTTL{}
	case actDecMPLSTTL:
		a = DecMPLSTTL{}
	case actSetField:
		v, _, ok := decodeField(r)
		if r.err == nil && !ok {
			return nil, nil
		}
		a = SetField{v}
	case actCopyField:
		n, so, do := r.u16(), r.u16(), r.u16()
		r.skip(2)
		src := decodeFieldHeader(r)
		dst := decodeFieldHeader(r)
		a = CopyField{Subfield{src, so, n}, Subfield{dst, do, n}}
	case actExperimenter:
		if r.u32() != vendorNicira {
			return nil, r.err
		}
		return decodeNicira(r, depth)
	default:
		return nil, nil
	}
	return a, r.err
}
