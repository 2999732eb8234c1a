package openflow

import (
	"fmt"
	"strings"
)

// Instructions say what a flow does with a packet. A switch runs them in the order of the
// fields here, whatever their order on the wire (OpenFlow 1.5.1, 5.5). Metering is the
// action [Meter] in 1.5. The zero value drops the packet.
type Instructions struct {
	Apply []Action // run now, in order
	Clear bool     // empty the action set
	Write []Action // merge into the action set
	// Metadata, where MetadataMask is not zero, is written into those bits.
	Metadata, MetadataMask uint64
	// Goto, where HasGoto, continues in that table, which comes after the flow's own.
	Goto    uint8
	HasGoto bool
}

// Apply makes instructions of an action list.
func Apply(as ...Action) Instructions { return Instructions{Apply: as} }

// ThenGoto gives the instructions with a jump to a later table.
func (in Instructions) ThenGoto(table uint8) Instructions {
	in.Goto, in.HasGoto = table, true
	return in
}

// Instruction types (OpenFlow 1.5.1, 7.2.5).
const (
	instGoto     = 1
	instMetadata = 2
	instWrite    = 3
	instApply    = 4
	instClear    = 5
)

func (in *Instructions) encode(e *encoder) {
	list := func(typ uint16, as []Action) {
		start := len(e.b)
		e.u16(typ)
		e.u16(0)
		e.u32(0)
		encodeActions(e, as)
		e.patch16(start+2, start)
	}
	if len(in.Apply) > 0 {
		list(instApply, in.Apply)
	}
	if in.Clear {
		list(instClear, nil)
	}
	if len(in.Write) > 0 {
		list(instWrite, in.Write)
	}
	if in.MetadataMask != 0 {
		e.u16(instMetadata)
		e.u16(24)
		e.u32(0)
		e.u64(in.Metadata & in.MetadataMask)
		e.u64(in.MetadataMask)
	}
	if in.HasGoto {
		e.u16(instGoto)
		e.u16(8)
		e.u8(in.Goto)
		e.zeros(3)
	}
}

// decodeInstructions takes all of r. An instruction that this package does not know is an
// error: without it the flow would mean something else.
func decodeInstructions(r *reader) Instructions {
	var in Instructions
	for r.err == nil && len(r.b) > 0 {
		typ := r.u16()
		n := int(r.u16())
		if r.err == nil && (n < 8 || n%8 != 0) {
			r.fail(malformed("instruction of %d bytes", n))
		}
		body := r.sub(n - 4)
		if r.err != nil {
			break
		}
		switch typ {
		case instGoto:
			in.Goto, in.HasGoto = body.u8(), true
		case instMetadata:
			body.skip(4)
			in.Metadata, in.MetadataMask = body.u64(), body.u64()
			in.Metadata &= in.MetadataMask
		case instWrite:
			body.skip(4)
			in.Write = decodeActions(&body, 0)
		case instApply:
			body.skip(4)
			in.Apply = decodeActions(&body, 0)
		case instClear:
			in.Clear = true
		default:
			r.fail(malformed("instruction type %d", typ))
		}
		if body.err != nil {
			r.fail(body.err)
		}
	}
	return in
}

// AppendBinary appends the instructions without framing, in one canonical order.
func (in Instructions) AppendBinary(b []byte) ([]byte, error) {
	e := encoder{b: b}
	in.encode(&e)
	return e.b, e.err
}

// String writes the instructions as Open vSwitch's tools accept them behind "actions=".
func (in Instructions) String() string {
	var p []string
	if len(in.Apply) > 0 {
		p = append(p, ActionsString(in.Apply))
	}
	if in.Clear {
		p = append(p, "clear_actions")
	}
	if len(in.Write) > 0 {
		p = append(p, "write_actions("+ActionsString(in.Write)+")")
	}
	if in.MetadataMask != 0 {
		s := fmt.Sprintf("write_metadata:%#x", in.Metadata)
		if in.MetadataMask != ^uint64(0) {
			s += fmt.Sprintf("/%#x", in.MetadataMask)
		}
		p = append(p, s)
	}
	if in.HasGoto {
		p = append(p, fmt.Sprintf("goto_table:%d", in.Goto))
	}
	if len(p) == 0 {
		return "drop"
	}
	return strings.Join(p, ",")
}
