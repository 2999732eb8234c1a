package openflow

import "fmt"

// PacketInReason says why a packet came to the controller.
type PacketInReason uint8

// The reasons.
const (
	ReasonNoMatch    PacketInReason = 0
	ReasonAction     PacketInReason = 1
	ReasonInvalidTTL PacketInReason = 2
	ReasonActionSet  PacketInReason = 3
	ReasonGroup      PacketInReason = 4
	ReasonPacketOut  PacketInReason = 5
)

// String gives the reason's name as Open vSwitch's tools accept it.
func (r PacketInReason) String() string {
	if r <= ReasonPacketOut {
		return [...]string{"no_match", "action", "invalid_ttl", "action_set", "group", "packet_out"}[r]
	}
	return fmt.Sprint(uint8(r))
}

// PacketIn is a packet that came to the controller: OFPT_PACKET_IN or NXT_PACKET_IN2. Its
// slices share memory with the bytes that were decoded.
type PacketIn struct {
	// Extended tells that it came as NXT_PACKET_IN2, the only form with UserData and
	// Continuation.
	Extended bool
	Reason   PacketInReason
	Table    uint8
	Cookie   uint64 // of the flow that sent it; all ones where there is none
	Match    Match  // in_port, tunnel, registers, metadata and conntrack fields that are not zero
	Data     []byte // from the Ethernet header on
	TotalLen int    // bytes that the packet had; more than len(Data) where it was cut
	BufferID uint32 // NoBuffer where the switch keeps no copy
	UserData []byte // of the controller action
	// Continuation is private to the switch; Resume hands it back.
	Continuation []byte
}

// InPort gives the ingress port, 0 where the switch did not say.
func (m *PacketIn) InPort() uint32 { return uint32(m.Match.Value(FieldInPort)) }

// Type is TypePacketIn or, for the extended form, TypeExperimenter.
func (m *PacketIn) Type() Type {
	if m.Extended {
		return TypeExperimenter
	}
	return TypePacketIn
}

// Properties of NXT_PACKET_IN2 and NXT_RESUME.
const (
	pinPacket       = 0
	pinFullLen      = 1
	pinBufferID     = 2
	pinTable        = 3
	pinCookie       = 4
	pinReason       = 5
	pinMetadata     = 6
	pinUserData     = 7
	pinContinuation = 8
)

func (m *PacketIn) encodeBody(e *encoder) {
	if m.Extended {
		e.u32(vendorNicira)
		e.u32(nxtPacketIn2)
		m.encodeProps(e)
		return
	}
	e.u32(m.BufferID)
	if m.TotalLen < 0 || m.TotalLen > 0xffff {
		e.fail(malformed("packet of %d bytes", m.TotalLen))
	}
	e.u16(uint16(m.TotalLen))
	e.u8(uint8(m.Reason))
	e.u8(m.Table)
	e.u64(m.Cookie)
	m.Match.encode(e)
	e.u16(0)
	e.bytes(m.Data)
}

func (m *PacketIn) encodeProps(e *encoder) {
	put := func(typ uint16, b []byte) {
		p := e.prop(typ)
		e.bytes(b)
		e.endProp(p)
	}
	put(pinPacket, m.Data)
	if m.TotalLen != len(m.Data) {
		e.propU32(pinFullLen, uint32(m.TotalLen))
	}
	if m.BufferID != NoBuffer {
		e.propU32(pinBufferID, m.BufferID)
	}
	put(pinTable, []byte{m.Table})
	if m.Cookie != ^uint64(0) {
		p := e.prop(pinCookie)
		e.u32(0)
		e.u64(m.Cookie)
		e.endProp(p)
	}
	put(pinReason, []byte{uint8(m.Reason)})
	p := e.prop(pinMetadata)
	m.Match.encodeTerms(e)
	e.endProp(p)
	if len(m.UserData) > 0 {
		put(pinUserData, m.UserData)
	}
	if len(m.Continuation) > 0 {
		p := e.prop(pinContinuation)
		e.u32(0)
		e.bytes(m.Continuation)
		e.endProp(p)
	}
}

func decodePacketIn(r *reader) Message {
	m := &PacketIn{BufferID: r.u32(), TotalLen: int(r.u16()), Reason: PacketInReason(r.u8()), Table: r.u8(), Cookie: r.u64()}
	m.Match = decodeMatch(r)
	r.skip(2)
	m.Data = r.b
	return m
}

func decodePacketIn2(r *reader) *PacketIn {
	m := &PacketIn{Extended: true, BufferID: NoBuffer, Cookie: ^uint64(0)}
	for len(r.b) > 0 && r.err == nil {
		typ, p := r.nextProp()
		switch typ {
		case pinPacket:
			m.Data = p.b
		case pinFullLen:
			m.TotalLen = int(p.u32())
		case pinBufferID:
			m.BufferID = p.u32()
		case pinTable:
			m.Table = p.u8()
		case pinCookie:
			p.skip(4)
			m.Cookie = p.u64()
		case pinReason:
			m.Reason = PacketInReason(p.u8())
		case pinMetadata:
			m.Match, p.err = decodeTerms(&p)
		case pinUserData:
			m.UserData = p.b
		case pinContinuation:
			p.skip(4)
			m.Continuation = p.b
		}
		if p.err != nil && r.err == nil {
			r.fail(p.err)
		}
	}
	if m.TotalLen == 0 {
		m.TotalLen = len(m.Data)
	}
	if m.TotalLen < len(m.Data) {
		r.fail(malformed("packet of %d bytes out of %d", len(m.Data), m.TotalLen))
	}
	return m
}

// Resume hands a paused packet back to the switch, which goes on where the controller
// action with Pause stopped. PacketIn is the one received; its Match and Data may be changed.
type Resume struct{ PacketIn *PacketIn }

// Type is TypeExperimenter.
func (*Resume) Type() Type { return TypeExperimenter }

func (m *Resume) encodeBody(e *encoder) {
	e.u32(vendorNicira)
	e.u32(nxtResume)
	m.PacketIn.encodeProps(e)
}

// PacketOut makes the switch run actions on a packet. Match gives it pipeline fields, such
// as in_port, registers, metadata and tunnel; in_port is PortController where it names none.
type PacketOut struct {
	Match   Match
	Actions []Action
	Data    []byte // from the Ethernet header on
}

// Type is TypePacketOut.
func (*PacketOut) Type() Type { return TypePacketOut }

func (m *PacketOut) encodeBody(e *encoder) {
	e.u32(NoBuffer)
	at := len(e.b)
	e.u16(0)
	e.u16(0)
	match := m.Match
	if _, ok := match.Get(FieldInPort); !ok {
		match = match.With(InPort(PortController))
	}
	match.encode(e)
	start := len(e.b)
	encodeActions(e, m.Actions)
	e.patch16(at, start)
	e.bytes(m.Data)
}

func decodePacketOut(r *reader) Message {
	m := &PacketOut{}
	if id := r.u32(); id != NoBuffer && r.err == nil {
		r.fail(malformed("packet out from buffer %d", id))
	}
	n := int(r.u16())
	r.skip(2)
	m.Match = decodeMatch(r)
	as := r.sub(n)
	m.Actions = decodeActions(&as, 0)
	if as.err != nil {
		r.fail(as.err)
	}
	m.Data = r.b
	return m
}
