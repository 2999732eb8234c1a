package openflow

import (
	"fmt"
	"math/bits"
)

// Hello opens a connection. Versions has bit n set for wire version n; zero stands for "no
// bitmap", which means every version up to the header's.
type Hello struct {
	Versions uint32
	// HeaderVersion is the version in the header of a decoded hello.
	HeaderVersion uint8
}

// Supports tells whether the sender speaks a wire version.
func (m *Hello) Supports(version uint8) bool {
	if m.Versions != 0 {
		return version < 32 && m.Versions>>version&1 == 1
	}
	return m.HeaderVersion >= version
}

// highest is the highest wire version that the sender speaks.
func (m *Hello) highest() uint8 {
	if m.Versions != 0 {
		return uint8(bits.Len32(m.Versions) - 1)
	}
	return m.HeaderVersion
}

const helloVersionBitmap = 1

func (m *Hello) encodeBody(e *encoder) {
	if m.Versions == 0 {
		return
	}
	e.u16(helloVersionBitmap)
	e.u16(8)
	e.u32(m.Versions)
}

func decodeHello(h Header, r *reader) Message {
	m := &Hello{HeaderVersion: h.Version}
	for len(r.b) >= 4 && r.err == nil {
		typ, p := r.nextProp()
		if typ == helloVersionBitmap && r.err == nil {
			m.Versions = p.u32()
			if p.err != nil {
				r.fail(p.err)
			}
		}
	}
	return m
}

// EchoRequest asks for an EchoReply with the same data.
type EchoRequest struct{ Data []byte }

// EchoReply answers an EchoRequest.
type EchoReply struct{ Data []byte }

// FeaturesRequest asks for a FeaturesReply.
type FeaturesRequest struct{}

// FeaturesReply names the switch.
type FeaturesReply struct {
	DatapathID   uint64
	Buffers      uint32 // packets that the switch can buffer; Open vSwitch says 0
	Tables       uint8
	AuxiliaryID  uint8
	Capabilities uint32 // OFPC_*
}

// GetConfigRequest asks for a GetConfigReply.
type GetConfigRequest struct{}

// SwitchConfig is what SetConfig sets and GetConfigReply tells.
type SwitchConfig struct {
	Fragments   uint16 // OFPC_FRAG_*: 0 normal, 1 drop, 2 reassemble, 3 Open vSwitch's ip_frag
	MissSendLen uint16 // bytes of a packet sent for a table miss; MaxLenAll for all
}

// GetConfigReply tells the configuration.
type GetConfigReply struct{ SwitchConfig }

// SetConfig sets the configuration. Open vSwitch sends a connection of its service class
// (unix socket, passive listener) asynchronous messages only after MissSendLen is set.
type SetConfig struct{ SwitchConfig }

// BarrierRequest asks the switch to finish all before it and to answer with BarrierReply.
type BarrierRequest struct{}

// BarrierReply answers a BarrierRequest.
type BarrierReply struct{}

// Role is what a controller may do.
type Role uint32

// The roles.
const (
	RoleNoChange  Role = 0 // a question, no role
	RoleEqual     Role = 1 // may do all; the default
	RolePrimary   Role = 2 // may do all, one controller at most
	RoleSecondary Role = 3 // may read
)

// String gives the role's name.
func (r Role) String() string {
	if r <= RoleSecondary {
		return [...]string{"nochange", "equal", "primary", "secondary"}[r]
	}
	return fmt.Sprintf("role %d", uint32(r))
}

// RoleRequest asks for a role. A switch refuses a GenerationID lower (by signed distance)
// than the highest that it has seen.
type RoleRequest struct {
	Role         Role
	GenerationID uint64
}

// RoleReply tells the role; GenerationID is all ones where none was ever set.
type RoleReply struct {
	Role         Role
	GenerationID uint64
}

// RoleStatus says that the switch changed this controller's role.
type RoleStatus struct {
	Role         Role
	Reason       uint8 // OFPCRR_*: 0 another controller became primary, 1 configuration
	GenerationID uint64
}

// AsyncMask has bit n set for each reason n of which a message is wanted.
type AsyncMask struct {
	Secondary, Primary uint32 // Primary counts for the roles primary and equal
}

// Async says which asynchronous messages a controller wants.
type Async struct{ PacketIn, PortStatus, FlowRemoved AsyncMask }

// GetAsyncRequest asks for a GetAsyncReply.
type GetAsyncRequest struct{}

// GetAsyncReply tells which asynchronous messages this controller gets.
type GetAsyncReply struct{ Async }

// SetAsync says which asynchronous messages this controller wants.
type SetAsync struct{ Async }

// Type is TypeHello.
func (*Hello) Type() Type { return TypeHello }

// Type is TypeEchoRequest.
func (*EchoRequest) Type() Type { return TypeEchoRequest }

// Type is TypeEchoReply.
func (*EchoReply) Type() Type { return TypeEchoReply }

// Type is TypeFeaturesRequest.
func (*FeaturesRequest) Type() Type { return TypeFeaturesRequest }

// Type is TypeFeaturesReply.
func (*FeaturesReply) Type() Type { return TypeFeaturesReply }

// Type is TypeGetConfigRequest.
func (*GetConfigRequest) Type() Type { return TypeGetConfigRequest }

// Type is TypeGetConfigReply.
func (*GetConfigReply) Type() Type { return TypeGetConfigReply }

// Type is TypeSetConfig.
func (*SetConfig) Type() Type { return TypeSetConfig }

// Type is TypeBarrierRequest.
func (*BarrierRequest) Type() Type { return TypeBarrierRequest }

// Type is TypeBarrierReply.
func (*BarrierReply) Type() Type { return TypeBarrierReply }

// Type is TypeRoleRequest.
func (*RoleRequest) Type() Type { return TypeRoleRequest }

// Type is TypeRoleReply.
func (*RoleReply) Type() Type { return TypeRoleReply }

// Type is TypeRoleStatus.
func (*RoleStatus) Type() Type { return TypeRoleStatus }

// Type is TypeGetAsyncRequest.
func (*GetAsyncRequest) Type() Type { return TypeGetAsyncRequest }

// Type is TypeGetAsyncReply.
func (*GetAsyncReply) Type() Type { return TypeGetAsyncReply }

// Type is TypeSetAsync.
func (*SetAsync) Type() Type { return TypeSetAsync }

func (m *EchoRequest) encodeBody(e *encoder)   { e.bytes(m.Data) }
func (m *EchoReply) encodeBody(e *encoder)     { e.bytes(m.Data) }
func (*FeaturesRequest) encodeBody(*encoder)   {}
func (*GetConfigRequest) encodeBody(*encoder)  {}
func (*BarrierRequest) encodeBody(*encoder)    {}
func (*BarrierReply) encodeBody(*encoder)      {}
func (*GetAsyncRequest) encodeBody(*encoder)   {}
func (m *GetAsyncReply) encodeBody(e *encoder) { m.encode(e) }
func (m *SetAsync) encodeBody(e *encoder)      { m.encode(e) }
func (m *GetConfigReply) encodeBody(e *encoder) {
	e.u16(m.Fragments)
	e.u16(m.MissSendLen)
}

func (m *SetConfig) encodeBody(e *encoder) {
	e.u16(m.Fragments)
	e.u16(m.MissSendLen)
}

func (m *FeaturesReply) encodeBody(e *encoder) {
	e.u64(m.DatapathID)
	e.u32(m.Buffers)
	e.u8(m.Tables)
	e.u8(m.AuxiliaryID)
	e.u16(0)
	e.u32(m.Capabilities)
	e.u32(0)
}

func decodeFeatures(r *reader) Message {
	m := &FeaturesReply{DatapathID: r.u64(), Buffers: r.u32(), Tables: r.u8(), AuxiliaryID: r.u8()}
	r.skip(2)
	m.Capabilities = r.u32()
	r.skip(4)
	return m
}

func encodeRole(e *encoder, role Role, gen uint64) {
	e.u32(uint32(role))
	e.u32(0)
	e.u64(gen)
}

func (m *RoleRequest) encodeBody(e *encoder) { encodeRole(e, m.Role, m.GenerationID) }
func (m *RoleReply) encodeBody(e *encoder)   { encodeRole(e, m.Role, m.GenerationID) }

func decodeRole(r *reader, m Message) Message {
	role := Role(r.u32())
	r.skip(4)
	gen := r.u64()
	switch m := m.(type) {
	case *RoleRequest:
		m.Role, m.GenerationID = role, gen
	case *RoleReply:
		m.Role, m.GenerationID = role, gen
	}
	return m
}

func (m *RoleStatus) encodeBody(e *encoder) {
	e.u32(uint32(m.Role))
	e.u8(m.Reason)
	e.zeros(3)
	e.u64(m.GenerationID)
}

func decodeRoleStatus(r *reader) Message {
	m := &RoleStatus{Role: Role(r.u32()), Reason: r.u8()}
	r.skip(3)
	m.GenerationID = r.u64()
	return m
}

// masks lists the masks in the order of their property types, which start at 0.
func (a *Async) masks() [6]*uint32 {
	return [6]*uint32{
		&a.PacketIn.Secondary, &a.PacketIn.Primary, &a.PortStatus.Secondary,
		&a.PortStatus.Primary, &a.FlowRemoved.Secondary, &a.FlowRemoved.Primary,
	}
}

func (a *Async) encode(e *encoder) {
	for typ, mask := range a.masks() {
		e.propU32(uint16(typ), *mask)
	}
}

func decodeAsync(r *reader) Async {
	var a Async
	masks := a.masks()
	for len(r.b) >= 4 && r.err == nil {
		typ, p := r.nextProp()
		if int(typ) < len(masks) && r.err == nil {
			*masks[typ] = p.u32()
			if p.err != nil {
				r.fail(p.err)
			}
		}
	}
	return a
}
