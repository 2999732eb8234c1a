package openflow

import "fmt"

// PortConfig is a set of settings of a port.
type PortConfig uint32

// The settings.
const (
	PortDown       PortConfig = 1 << 0
	PortNoRecv     PortConfig = 1 << 2
	PortNoForward  PortConfig = 1 << 5
	PortNoPacketIn PortConfig = 1 << 6
)

// PortState is a set of states of a port.
type PortState uint32

// The states.
const (
	PortLinkDown PortState = 1 << 0
	PortBlocked  PortState = 1 << 1
	PortLive     PortState = 1 << 2
)

// Port describes a port of the switch.
type Port struct {
	Number uint32
	MAC    MAC
	Name   string // at most 15 bytes
	Config PortConfig
	State  PortState
	// Speeds in kbit/s; zero where the switch does not say.
	Speed, MaxSpeed uint32
	// Current, Advertised, Supported and Peer are OFPPF_* bitmaps.
	Current, Advertised, Supported, Peer uint32
}

const (
	portNameLen    = 16
	portEthernet   = 0
	portFixedBytes = 40
)

func (p *Port) encode(e *encoder) {
	start := len(e.b)
	e.u32(p.Number)
	e.u16(0)
	e.u16(0)
	e.bytes(p.MAC[:])
	e.u16(0)
	e.str(p.Name, portNameLen)
	e.u32(uint32(p.Config))
	e.u32(uint32(p.State))
	q := e.prop(portEthernet)
	e.u32(0)
	for _, v := range [...]uint32{p.Current, p.Advertised, p.Supported, p.Peer, p.Speed, p.MaxSpeed} {
		e.u32(v)
	}
	e.endProp(q)
	e.patch16(start+4, start)
}

func decodePort(r *reader) Port {
	p := Port{Number: r.u32()}
	n := int(r.u16())
	if r.err == nil && n < portFixedBytes {
		r.fail(malformed("port of %d bytes", n))
	}
	body := r.sub(n - 6)
	body.skip(2)
	copy(p.MAC[:], body.take(6))
	body.skip(2)
	p.Name = body.str(portNameLen)
	p.Config, p.State = PortConfig(body.u32()), PortState(body.u32())
	for len(body.b) >= 4 && body.err == nil {
		typ, q := body.nextProp()
		if typ != portEthernet || body.err != nil {
			continue
		}
		q.skip(4)
		p.Current, p.Advertised, p.Supported, p.Peer = q.u32(), q.u32(), q.u32(), q.u32()
		p.Speed, p.MaxSpeed = q.u32(), q.u32()
		if q.err != nil {
			body.fail(q.err)
		}
	}
	if body.err != nil && r.err == nil {
		r.fail(body.err)
	}
	return p
}

// PortReason says what happened to a port.
type PortReason uint8

// The reasons.
const (
	PortAdded    PortReason = 0
	PortDeleted  PortReason = 1
	PortModified PortReason = 2
)

// String gives the reason's name.
func (r PortReason) String() string {
	if r <= PortModified {
		return [...]string{"add", "delete", "modify"}[r]
	}
	return fmt.Sprintf("reason %d", uint8(r))
}

// PortStatus tells that a port came, went or changed.
type PortStatus struct {
	Reason PortReason
	Port   Port
}

// Type is TypePortStatus.
func (*PortStatus) Type() Type { return TypePortStatus }

func (m *PortStatus) encodeBody(e *encoder) {
	e.u8(uint8(m.Reason))
	e.zeros(7)
	m.Port.encode(e)
}

func decodePortStatus(r *reader) Message {
	m := &PortStatus{Reason: PortReason(r.u8())}
	r.skip(7)
	m.Port = decodePort(r)
	return m
}

// PortMod changes those settings of a port that Mask names. MAC must be the port's own.
type PortMod struct {
	Port         uint32
	MAC          MAC
	Config, Mask PortConfig
}

// Type is TypePortMod.
func (*PortMod) Type() Type { return TypePortMod }

func (m *PortMod) encodeBody(e *encoder) {
	e.u32(m.Port)
	e.u32(0)
	e.bytes(m.MAC[:])
	e.u16(0)
	e.u32(uint32(m.Config))
	e.u32(uint32(m.Mask))
}

func decodePortMod(r *reader) Message {
	m := &PortMod{Port: r.u32()}
	r.skip(4)
	copy(m.MAC[:], r.take(6))
	r.skip(2)
	m.Config, m.Mask = PortConfig(r.u32()), PortConfig(r.u32())
	return m
}
