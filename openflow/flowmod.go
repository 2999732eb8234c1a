package openflow

import (
	"fmt"
	"strings"
)

// FlowCommand is what a FlowMod does.
type FlowCommand uint8

// The commands. The strict ones mean the one flow of this match and priority, the others
// every flow whose match is as narrow or narrower.
const (
	FlowAdd          FlowCommand = 0
	FlowModify       FlowCommand = 1
	FlowModifyStrict FlowCommand = 2
	FlowDelete       FlowCommand = 3
	FlowDeleteStrict FlowCommand = 4
)

// String gives the command's name.
func (c FlowCommand) String() string {
	if c <= FlowDeleteStrict {
		return [...]string{"add", "modify", "modify_strict", "delete", "delete_strict"}[c]
	}
	return fmt.Sprintf("command %d", uint8(c))
}

// FlowFlags is a set of flags of a flow.
type FlowFlags uint16

// The flags.
const (
	FlagSendFlowRemoved FlowFlags = 1 << 0 // tell when the flow goes
	FlagCheckOverlap    FlowFlags = 1 << 1 // refuse where a flow of this priority overlaps
	FlagResetCounts     FlowFlags = 1 << 2
	FlagNoPacketCounts  FlowFlags = 1 << 3
	FlagNoByteCounts    FlowFlags = 1 << 4
)

// DefaultPriority is the priority that Open vSwitch's tools assume; FlowMod does not.
const DefaultPriority uint16 = 0x8000

// NoBuffer says that a packet is not buffered in the switch.
const NoBuffer uint32 = 0xffffffff

// FlowMod changes flows. OutPort and OutGroup narrow a delete; zero stands for any, because
// neither port 0 nor a flow that must output to group 0 is of use there.
type FlowMod struct {
	Command FlowCommand
	Table   uint8 // TableAll, with the deletes, is every table
	// Cookie is stored by an add. With other commands, the bits in CookieMask narrow what
	// they mean; a modify with a zero mask changes no cookie.
	Cookie, CookieMask       uint64
	Priority                 uint16
	IdleTimeout, HardTimeout uint16 // seconds, 0 for none
	Importance               uint16 // eviction order; higher stays longer
	Flags                    FlowFlags
	OutPort, OutGroup        uint32
	Match                    Match
	Instructions             Instructions
}

// Type is TypeFlowMod.
func (*FlowMod) Type() Type { return TypeFlowMod }

// orAny turns the zero of OutPort and OutGroup into the wire's "any".
func orAny(v uint32) uint32 {
	if v == 0 {
		return 0xffffffff
	}
	return v
}

func fromAny(v uint32) uint32 {
	if v == 0xffffffff {
		return 0
	}
	return v
}

func (m *FlowMod) encodeBody(e *encoder) {
	e.u64(m.Cookie)
	e.u64(m.CookieMask)
	e.u8(m.Table)
	e.u8(uint8(m.Command))
	e.u16(m.IdleTimeout)
	e.u16(m.HardTimeout)
	e.u16(m.Priority)
	e.u32(NoBuffer)
	e.u32(orAny(m.OutPort))
	e.u32(orAny(m.OutGroup))
	e.u16(uint16(m.Flags))
	e.u16(m.Importance)
	m.Match.encode(e)
	m.Instructions.encode(e)
}

func decodeFlowMod(r *reader) Message {
	m := &FlowMod{Cookie: r.u64(), CookieMask: r.u64(), Table: r.u8(), Command: FlowCommand(r.u8())}
	m.IdleTimeout, m.HardTimeout, m.Priority = r.u16(), r.u16(), r.u16()
	r.skip(4)
	m.OutPort, m.OutGroup = fromAny(r.u32()), fromAny(r.u32())
	m.Flags, m.Importance = FlowFlags(r.u16()), r.u16()
	m.Match = decodeMatch(r)
	m.Instructions = decodeInstructions(r)
	return m
}

// String writes the message as Open vSwitch's tools write flows; the command is put in
// front where it is not an add.
func (m *FlowMod) String() string {
	var p []string
	add := func(format string, v any) { p = append(p, fmt.Sprintf(format, v)) }
	switch {
	case m.CookieMask != 0 && m.CookieMask != ^uint64(0):
		p = append(p, fmt.Sprintf("cookie=%#x/%#x", m.Cookie, m.CookieMask))
	case m.CookieMask != 0:
		p = append(p, fmt.Sprintf("cookie=%#x/-1", m.Cookie))
	case m.Cookie != 0:
		add("cookie=%#x", m.Cookie)
	}
	if m.Table != TableAll {
		add("table=%d", m.Table)
	}
	strict := m.Command == FlowAdd || m.Command == FlowModifyStrict || m.Command == FlowDeleteStrict
	if strict {
		add("priority=%d", m.Priority)
	}
	p = appendTimeouts(p, m.IdleTimeout, m.HardTimeout, m.Importance, m.Flags)
	if m.OutPort != 0 {
		add("out_port=%s", portName(m.OutPort))
	}
	if m.OutGroup != 0 {
		add("out_group=%d", m.OutGroup)
	}
	if s := m.Match.String(); s != "" {
		p = append(p, s)
	}
	if m.Command < FlowDelete {
		add("actions=%s", m.Instructions.String())
	}
	s := strings.Join(p, ",")
	if m.Command != FlowAdd {
		s = strings.TrimSpace(m.Command.String() + " " + s)
	}
	return s
}

func appendTimeouts(p []string, idle, hard, importance uint16, flags FlowFlags) []string {
	if idle != 0 {
		p = append(p, fmt.Sprintf("idle_timeout=%d", idle))
	}
	if hard != 0 {
		p = append(p, fmt.Sprintf("hard_timeout=%d", hard))
	}
	if importance != 0 {
		p = append(p, fmt.Sprintf("importance=%d", importance))
	}
	for i, name := range [...]string{"send_flow_rem", "check_overlap", "reset_counts", "no_packet_counts", "no_byte_counts"} {
		if flags>>i&1 == 1 {
			p = append(p, name)
		}
	}
	return p
}

// RemovedReason says why a flow went.
type RemovedReason uint8

// The reasons.
const (
	RemovedIdle        RemovedReason = 0
	RemovedHard        RemovedReason = 1
	RemovedDelete      RemovedReason = 2
	RemovedGroupDelete RemovedReason = 3
	RemovedMeterDelete RemovedReason = 4
	RemovedEviction    RemovedReason = 5
)

// String gives the reason's name.
func (r RemovedReason) String() string {
	if r <= RemovedEviction {
		return [...]string{"idle", "hard", "delete", "group_delete", "meter_delete", "eviction"}[r]
	}
	return fmt.Sprintf("reason %d", uint8(r))
}

// FlowRemoved tells that a flow with FlagSendFlowRemoved went.
type FlowRemoved struct {
	Table                    uint8
	Reason                   RemovedReason
	Priority                 uint16
	IdleTimeout, HardTimeout uint16
	Cookie                   uint64
	Match                    Match
	Stats                    Stats
}

// Type is TypeFlowRemoved.
func (*FlowRemoved) Type() Type { return TypeFlowRemoved }

func (m *FlowRemoved) encodeBody(e *encoder) {
	e.u8(m.Table)
	e.u8(uint8(m.Reason))
	e.u16(m.Priority)
	e.u16(m.IdleTimeout)
	e.u16(m.HardTimeout)
	e.u64(m.Cookie)
	m.Match.encode(e)
	m.Stats.encode(e)
}

func decodeFlowRemoved(r *reader) Message {
	m := &FlowRemoved{Table: r.u8(), Reason: RemovedReason(r.u8()), Priority: r.u16(), IdleTimeout: r.u16(), HardTimeout: r.u16(), Cookie: r.u64()}
	m.Match = decodeMatch(r)
	m.Stats = decodeStats(r)
	return m
}
