package pipeline

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"
)

// Action is one step of an entry's action list. The types below are the only ones. Actions
// are taken in order; an entry without any drops the packet.
type Action interface {
	appendKey(b []byte) []byte
	String() string
}

// Set writes a field.
type Set struct {
	Field Field
	Value uint64
}

// Goto continues in a later stage.
type Goto struct{ Stage Stage }

// Track looks the connection up in the conntrack zone whose number stands in Zone (From or
// To), and continues in Stage with TrackState and TrackMark filled.
type Track struct {
	Zone  Field
	Stage Stage
}

// Commit creates the connection in the zone whose number stands in Zone, or finds it, and
// sets its mark.
type Commit struct {
	Zone Field
	Mark uint32
}

// Deliver sends to the device of a local port, given by its ordinal, or to the metadata
// device (PortService). It never sends a packet back where it came in.
type Deliver struct{ Port uint64 }

// Tunnel sends to another host.
type Tunnel struct {
	Host netip.Addr
	VNI  uint32
}

// AnswerARP turns a request into the reply that MAC owns the address asked for, and sends
// it back to where it came from.
type AnswerARP struct{ MAC MAC }

// ToAgent hands the packet to a responder in the agent, at a limited rate for each port.
type ToAgent struct {
	Responder Responder
	Port      uint32 // ordinal of the asking port
}

// Conj says that the packet meets clause Clause (from 1) of the Of clauses of conjunction ID.
// An entry with several of them counts for several conjunctions.
type Conj struct {
	ID         uint32
	Clause, Of uint8
}

// Leg sends a copy on to stage Stage for the receiving port To.
type Leg struct {
	To    uint32
	Stage Stage
}

// Responder names a responder in the agent.
type Responder uint8

// The responders.
const (
	ResponderDHCP Responder = 1
)

// String gives the responder's name.
func (r Responder) String() string {
	if r == ResponderDHCP {
		return "dhcp"
	}
	return fmt.Sprintf("responder-%d", uint8(r))
}

func (a Set) appendKey(b []byte) []byte {
	return binary.BigEndian.AppendUint64(append(b, 1, byte(a.Field)), a.Value)
}
func (a Goto) appendKey(b []byte) []byte  { return append(b, 2, byte(a.Stage)) }
func (a Track) appendKey(b []byte) []byte { return append(b, 3, byte(a.Zone), byte(a.Stage)) }
func (a Commit) appendKey(b []byte) []byte {
	return binary.BigEndian.AppendUint32(append(b, 4, byte(a.Zone)), a.Mark)
}
func (a Deliver) appendKey(b []byte) []byte {
	return binary.BigEndian.AppendUint64(append(b, 5), a.Port)
}
func (a Tunnel) appendKey(b []byte) []byte {
	h := a.Host.As16()
	return binary.BigEndian.AppendUint32(append(append(b, 6), h[:]...), a.VNI)
}
func (a AnswerARP) appendKey(b []byte) []byte { return append(append(b, 7), a.MAC[:]...) }
func (a ToAgent) appendKey(b []byte) []byte {
	return binary.BigEndian.AppendUint32(append(b, 8, byte(a.Responder)), a.Port)
}
func (a Conj) appendKey(b []byte) []byte {
	return append(binary.BigEndian.AppendUint32(append(b, 9), a.ID), a.Clause, a.Of)
}
func (a Leg) appendKey(b []byte) []byte {
	return append(binary.BigEndian.AppendUint32(append(b, 10), a.To), byte(a.Stage))
}

func (a Set) String() string       { return "set " + a.Field.String() + "=" + formatValue(a.Field, a.Value) }
func (a Goto) String() string      { return "goto " + a.Stage.String() }
func (a Track) String() string     { return fmt.Sprintf("track zone=%v then %v", a.Zone, a.Stage) }
func (a Commit) String() string    { return fmt.Sprintf("commit zone=%v mark=%d", a.Zone, a.Mark) }
func (a Deliver) String() string   { return "deliver " + portText(a.Port) }
func (a Tunnel) String() string    { return fmt.Sprintf("tunnel %v vni=%d", a.Host, a.VNI) }
func (a AnswerARP) String() string { return "answer-arp " + a.MAC.String() }
func (a ToAgent) String() string   { return fmt.Sprintf("to-agent %v port-%d", a.Responder, a.Port) }
func (a Conj) String() string      { return fmt.Sprintf("conj %d %d/%d", a.ID, a.Clause, a.Of) }
func (a Leg) String() string       { return fmt.Sprintf("leg port-%d %v", a.To, a.Stage) }

func actionsString(as []Action) string {
	if len(as) == 0 {
		return "drop"
	}
	parts := make([]string, len(as))
	for i, a := range as {
		parts[i] = a.String()
	}
	return strings.Join(parts, "; ")
}
