package openflow

// Subtypes of Nicira messages.
const (
	nxtSetPacketInFormat = 16
	nxtSetControllerID   = 20
	nxtResume            = 28
	nxtFlushZone         = 29
	nxtPacketIn2         = 30
)

// Experimenter is a message of an experimenter that this package does not read. Body
// shares memory with what was decoded.
type Experimenter struct {
	ID, Subtype uint32
	Body        []byte
}

// Type is TypeExperimenter.
func (*Experimenter) Type() Type { return TypeExperimenter }

func (m *Experimenter) encodeBody(e *encoder) {
	e.u32(m.ID)
	e.u32(m.Subtype)
	e.bytes(m.Body)
}

// PacketInFormat is the form in which Open vSwitch sends packets to the controller.
type PacketInFormat uint32

// The forms.
const (
	PacketInStandard PacketInFormat = 0
	PacketInExtended PacketInFormat = 2 // NXT_PACKET_IN2
)

// SetPacketInFormat picks the form of packet-ins on this connection (NXT_SET_PACKET_IN_FORMAT).
type SetPacketInFormat struct{ Format PacketInFormat }

// Type is TypeExperimenter.
func (*SetPacketInFormat) Type() Type { return TypeExperimenter }

func (m *SetPacketInFormat) encodeBody(e *encoder) {
	e.u32(vendorNicira)
	e.u32(nxtSetPacketInFormat)
	e.u32(uint32(m.Format))
}

// SetControllerID gives this connection the id that controller actions name
// (NXT_SET_CONTROLLER_ID).
type SetControllerID struct{ ID uint16 }

// Type is TypeExperimenter.
func (*SetControllerID) Type() Type { return TypeExperimenter }

func (m *SetControllerID) encodeBody(e *encoder) {
	e.u32(vendorNicira)
	e.u32(nxtSetControllerID)
	e.zeros(6)
	e.u16(m.ID)
}

func decodeExperimenter(r *reader) Message {
	m := &Experimenter{ID: r.u32(), Subtype: r.u32()}
	if r.err != nil {
		return nil
	}
	if m.ID == vendorNicira {
		switch m.Subtype {
		case nxtPacketIn2:
			return decodePacketIn2(r)
		case nxtResume:
			return &Resume{decodePacketIn2(r)}
		case nxtSetPacketInFormat:
			return &SetPacketInFormat{PacketInFormat(r.u32())}
		case nxtSetControllerID:
			r.skip(6)
			return &SetControllerID{r.u16()}
		case nxtFlushZone:
			r.skip(6)
			return &FlushZone{r.u16()}
		}
	}
	m.Body = r.b
	return m
}

// FlushZone forgets every connection of a conntrack zone (NXT_CT_FLUSH_ZONE).
type FlushZone struct{ Zone uint16 }

// Type is TypeExperimenter.
func (*FlushZone) Type() Type { return TypeExperimenter }

func (m *FlushZone) encodeBody(e *encoder) {
	e.u32(vendorNicira)
	e.u32(nxtFlushZone)
	e.zeros(6)
	e.u16(m.Zone)
}
