package openflow

import (
	"encoding/binary"
	"fmt"
)

// Version is the only wire version that this package speaks: OpenFlow 1.5.
const Version = 0x06

// headerLen is the length of ofp_header.
const headerLen = 8

// MaxMessage is the largest message, in bytes, header included.
const MaxMessage = 0xffff

// Type is a message type (OpenFlow 1.5.1, 7.1.1).
type Type uint8

// The types.
const (
	TypeHello            Type = 0
	TypeError            Type = 1
	TypeEchoRequest      Type = 2
	TypeEchoReply        Type = 3
	TypeExperimenter     Type = 4
	TypeFeaturesRequest  Type = 5
	TypeFeaturesReply    Type = 6
	TypeGetConfigRequest Type = 7
	TypeGetConfigReply   Type = 8
	TypeSetConfig        Type = 9
	TypePacketIn         Type = 10
	TypeFlowRemoved      Type = 11
	TypePortStatus       Type = 12
	TypePacketOut        Type = 13
	TypeFlowMod          Type = 14
	TypeGroupMod         Type = 15
	TypePortMod          Type = 16
	TypeTableMod         Type = 17
	TypeMultipartRequest Type = 18
	TypeMultipartReply   Type = 19
	TypeBarrierRequest   Type = 20
	TypeBarrierReply     Type = 21
	TypeRoleRequest      Type = 24
	TypeRoleReply        Type = 25
	TypeGetAsyncRequest  Type = 26
	TypeGetAsyncReply    Type = 27
	TypeSetAsync         Type = 28
	TypeMeterMod         Type = 29
	TypeRoleStatus       Type = 30
	TypeTableStatus      Type = 31
	TypeRequestForward   Type = 32
	TypeBundleControl    Type = 33
	TypeBundleAdd        Type = 34
	TypeControllerStatus Type = 35
)

var typeNames = [...]string{
	"hello", "error", "echo request", "echo reply", "experimenter", "features request", "features reply",
	"get config request", "get config reply", "set config", "packet in", "flow removed", "port status",
	"packet out", "flow mod", "group mod", "port mod", "table mod", "multipart request", "multipart reply",
	"barrier request", "barrier reply", "22", "23", "role request", "role reply", "get async request",
	"get async reply", "set async", "meter mod", "role status", "table status", "request forward",
	"bundle control", "bundle add", "controller status",
}

// String gives the type's name.
func (t Type) String() string {
	if int(t) < len(typeNames) {
		return typeNames[t]
	}
	return fmt.Sprintf("type %d", uint8(t))
}

// Header starts every message.
type Header struct {
	Version uint8
	Type    Type
	Length  uint16 // of the whole message, header included
	XID     uint32
}

// Message is one OpenFlow message without its transaction id. The types of this package
// are the only ones.
type Message interface {
	// Type is the type that the header carries.
	Type() Type
	encodeBody(e *encoder)
}

// Append encodes m under the transaction id xid and appends it to b.
func Append(b []byte, xid uint32, m Message) ([]byte, error) {
	e := encoder{b: b}
	encodeMessage(&e, xid, m)
	return e.b, e.err
}

func encodeMessage(e *encoder, xid uint32, m Message) {
	start := len(e.b)
	e.u8(Version)
	e.u8(uint8(m.Type()))
	e.u16(0)
	e.u32(xid)
	m.encodeBody(e)
	e.patch16(start+2, start)
	if e.err != nil {
		e.err = fmt.Errorf("encode %v: %w", m.Type(), e.err)
	}
}

// DecodeHeader reads the header at the start of b without looking at the version.
func DecodeHeader(b []byte) (Header, error) {
	if len(b) < headerLen {
		return Header{}, ErrTruncated
	}
	h := Header{b[0], Type(b[1]), binary.BigEndian.Uint16(b[2:]), binary.BigEndian.Uint32(b[4:])}
	if h.Length < headerLen {
		return h, malformed("message of %d bytes", h.Length)
	}
	return h, nil
}

// Decode reads the one message that b holds. What it returns may share memory with b where
// the type's comment says so (packets do); the caller must not reuse b as long as it uses
// the message. Types that this package does not know come as [*Unknown].
func Decode(b []byte) (Header, Message, error) { return decode(b, 0) }

// decode reads a message; depth counts bundle adds around it.
func decode(b []byte, depth int) (Header, Message, error) {
	h, err := DecodeHeader(b)
	if err != nil {
		return h, nil, err
	}
	if int(h.Length) != len(b) {
		return h, nil, fmt.Errorf("%w: %v says %d bytes, has %d", ErrMalformed, h.Type, h.Length, len(b))
	}
	if h.Version != Version && h.Type != TypeHello && h.Type != TypeError {
		return h, nil, malformed("wire version %#02x", h.Version)
	}
	r := reader{b: b[headerLen:]}
	m := decodeBody(h, &r, depth)
	if r.err != nil {
		return h, nil, fmt.Errorf("decode %v: %w", h.Type, r.err)
	}
	return h, m, nil
}

func decodeBody(h Header, r *reader, depth int) Message {
	switch h.Type {
	case TypeHello:
		return decodeHello(h, r)
	case TypeError:
		return decodeError(h, r)
	case TypeEchoRequest:
		return &EchoRequest{Data: r.b}
	case TypeEchoReply:
		return &EchoReply{Data: r.b}
	case TypeExperimenter:
		return decodeExperimenter(r)
	case TypeFeaturesRequest:
		return &FeaturesRequest{}
	case TypeFeaturesReply:
		return decodeFeatures(r)
	case TypeGetConfigRequest:
		return &GetConfigRequest{}
	case TypeGetConfigReply:
		return &GetConfigReply{SwitchConfig{Fragments: r.u16(), MissSendLen: r.u16()}}
	case TypeSetConfig:
		return &SetConfig{SwitchConfig{Fragments: r.u16(), MissSendLen: r.u16()}}
	case TypePacketIn:
		return decodePacketIn(r)
	case TypeFlowRemoved:
		return decodeFlowRemoved(r)
	case TypePortStatus:
		return decodePortStatus(r)
	case TypePacketOut:
		return decodePacketOut(r)
	case TypeFlowMod:
		return decodeFlowMod(r)
	case TypeGroupMod:
		return decodeGroupMod(r)
	case TypePortMod:
		return decodePortMod(r)
	case TypeMultipartRequest:
		return decodeMultipartRequest(r)
	case TypeMultipartReply:
		return decodeMultipartReply(r)
	case TypeBarrierRequest:
		return &BarrierRequest{}
	case TypeBarrierReply:
		return &BarrierReply{}
	case TypeRoleRequest:
		return decodeRole(r, &RoleRequest{})
	case TypeRoleReply:
		return decodeRole(r, &RoleReply{})
	case TypeGetAsyncRequest:
		return &GetAsyncRequest{}
	case TypeGetAsyncReply:
		return &GetAsyncReply{decodeAsync(r)}
	case TypeSetAsync:
		return &SetAsync{decodeAsync(r)}
	case TypeMeterMod:
		return decodeMeterMod(r)
	case TypeRoleStatus:
		return decodeRoleStatus(r)
	case TypeBundleControl:
		return &BundleControl{ID: r.u32(), Kind: BundleKind(r.u16()), Flags: BundleFlags(r.u16())}
	case TypeBundleAdd:
		return decodeBundleAdd(r, depth)
	}
	return &Unknown{MessageType: h.Type, Body: r.b}
}

// Unknown is a message of a type that this package does not read. Body shares memory with
// what was decoded.
type Unknown struct {
	MessageType Type
	Body        []byte
}

// Type gives MessageType.
func (m *Unknown) Type() Type            { return m.MessageType }
func (m *Unknown) encodeBody(e *encoder) { e.bytes(m.Body) }
