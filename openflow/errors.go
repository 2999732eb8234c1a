package openflow

import (
	"encoding/hex"
	"errors"
	"fmt"
)

// ErrorType is the class of an error (OpenFlow 1.5.1, 7.5.4).
type ErrorType uint16

// The classes that callers tell apart.
const (
	ErrHelloFailed    ErrorType = 0
	ErrBadRequest     ErrorType = 1
	ErrBadAction      ErrorType = 2
	ErrBadInstruction ErrorType = 3
	ErrBadMatch       ErrorType = 4
	ErrFlowMod        ErrorType = 5
	ErrGroupMod       ErrorType = 6
	ErrPortMod        ErrorType = 7
	ErrSwitchConfig   ErrorType = 10
	ErrRoleRequest    ErrorType = 11
	ErrMeterMod       ErrorType = 12
	ErrBundle         ErrorType = 17
	ErrExperimenter   ErrorType = 0xffff
)

// Codes that callers tell apart, each with its class.
const (
	CodeRoleStale         uint16 = 0  // ErrRoleRequest: an old generation id
	CodeGroupExists       uint16 = 0  // ErrGroupMod
	CodeUnknownGroup      uint16 = 8  // ErrGroupMod
	CodeMeterExists       uint16 = 1  // ErrMeterMod
	CodeUnknownMeter      uint16 = 3  // ErrMeterMod
	CodeBundleMsgFailed   uint16 = 13 // ErrBundle: another error names the message
	CodeBadRequestBadType uint16 = 1  // ErrBadRequest
	CodeFlowModTableFull  uint16 = 1  // ErrFlowMod
	CodeFlowModOverlap    uint16 = 3  // ErrFlowMod
	CodeHelloIncompatible uint16 = 0  // ErrHelloFailed: no common version
)

// Error is an error message from the switch. It is a Go error.
type Error struct {
	// XID is the transaction id of the message that the error is about; encoding ignores it,
	// because the id goes into the header.
	XID  uint32
	Kind ErrorType
	Code uint16
	// Experimenter is set where Kind is ErrExperimenter; Code then is its type.
	Experimenter uint32
	// Data starts with at least 64 bytes of the message that the error is about, or with
	// text for ErrHelloFailed. It shares memory with what was decoded.
	Data []byte
}

// Type is TypeError.
func (*Error) Type() Type { return TypeError }

// Name gives the error's name, such as BMC_BAD_PREREQ, or its numbers.
func (m *Error) Name() string {
	if m.Kind == ErrExperimenter {
		if n, ok := niciraErrorNames[m.Code]; ok && m.Experimenter == vendorNicira {
			return n
		}
		return fmt.Sprintf("experimenter %#x type %d", m.Experimenter, m.Code)
	}
	if n, ok := errorCodeNames[[2]uint16{uint16(m.Kind), m.Code}]; ok {
		return n
	}
	return fmt.Sprintf("code %d", m.Code)
}

// About gives the header of the message that the error is about, where the switch sent it.
func (m *Error) About() (Header, bool) {
	if m.Kind == ErrHelloFailed {
		return Header{}, false
	}
	h, err := DecodeHeader(m.Data)
	return h, err == nil && h.Version == Version
}

// Error names class and code, and the type of the message that the error is about.
func (m *Error) Error() string {
	kind, ok := errorTypeNames[m.Kind]
	if !ok {
		kind = fmt.Sprintf("error type %d", uint16(m.Kind))
	}
	s := "switch: " + kind + ": " + m.Name()
	if m.Kind == ErrHelloFailed && len(m.Data) > 0 {
		return fmt.Sprintf("%s: %q", s, m.Data)
	}
	if h, ok := m.About(); ok {
		s += fmt.Sprintf(" (for %v)", h.Type)
	}
	return s
}

// Is makes errors.Is(err, &Error{Kind: k, Code: c}) true for errors of that class and code.
func (m *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Kind == m.Kind && t.Code == m.Code && t.Experimenter == m.Experimenter
}

func (m *Error) encodeBody(e *encoder) {
	e.u16(uint16(m.Kind))
	e.u16(m.Code)
	if m.Kind == ErrExperimenter {
		e.u32(m.Experimenter)
	}
	e.bytes(m.Data)
}

func decodeError(h Header, r *reader) Message {
	m := &Error{XID: h.XID, Kind: ErrorType(r.u16()), Code: r.u16()}
	if m.Kind == ErrExperimenter {
		m.Experimenter = r.u32()
	}
	m.Data = r.b
	return m
}

// MessageError is what went wrong with one of several messages that were sent together.
type MessageError struct {
	Index   int // of the message in the caller's list
	Message Message
	Err     error
}

// Error names the index and the message.
func (e *MessageError) Error() string {
	s := ""
	if t, ok := e.Message.(fmt.Stringer); ok {
		s = " [" + t.String() + "]"
	}
	var x *Error
	if errors.As(e.Err, &x) && s == "" {
		s = " [" + hex.EncodeToString(x.Data[:min(len(x.Data), 64)]) + "]"
	}
	return fmt.Sprintf("message %d: %v%s", e.Index, e.Err, s)
}

// Unwrap gives what went wrong.
func (e *MessageError) Unwrap() error { return e.Err }
