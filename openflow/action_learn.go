package openflow

import (
	"fmt"
	"strings"
)

// LearnKind says what a LearnSpec adds to the learned flow.
type LearnKind uint8

// The kinds.
const (
	LearnMatch  LearnKind = 0 // a term of its match
	LearnLoad   LearnKind = 1 // a load into a field
	LearnOutput LearnKind = 2 // an output to the port in Src
)

// LearnSpec is one part of the flow that Learn adds.
type LearnSpec struct {
	Kind LearnKind
	// Immediate takes the content from Value; otherwise it comes from Src of the packet.
	Immediate bool
	Value     Value
	Src       Subfield
	Dst       Subfield // unused with LearnOutput
}

// bits is the width that a spec copies.
func (s LearnSpec) bits() uint16 {
	if s.Kind == LearnOutput {
		return s.Src.Bits
	}
	return s.Dst.Bits
}

// LearnMatchFrom makes the learned flow match dst against what src holds now.
func LearnMatchFrom(dst, src Subfield) LearnSpec {
	return LearnSpec{Kind: LearnMatch, Src: src, Dst: dst}
}

// LearnMatchValue makes the learned flow match dst against v.
func LearnMatchValue(dst Subfield, v Value) LearnSpec {
	return LearnSpec{Kind: LearnMatch, Immediate: true, Value: v, Dst: dst}
}

// LearnLoadFrom makes the learned flow load what src holds now into dst.
func LearnLoadFrom(dst, src Subfield) LearnSpec {
	return LearnSpec{Kind: LearnLoad, Src: src, Dst: dst}
}

// LearnLoadValue makes the learned flow load v into dst.
func LearnLoadValue(dst Subfield, v Value) LearnSpec {
	return LearnSpec{Kind: LearnLoad, Immediate: true, Value: v, Dst: dst}
}

// LearnOutputTo makes the learned flow output to the port that src holds now.
func LearnOutputTo(src Subfield) LearnSpec { return LearnSpec{Kind: LearnOutput, Src: src} }

// Learn adds or refreshes a flow made from the packet.
type Learn struct {
	IdleTimeout, HardTimeout       uint16 // seconds, 0 for none
	Priority                       uint16
	Cookie                         uint64
	Table                          uint8
	SendFlowRemoved                bool
	DeleteLearned                  bool // the learned flows go when this flow goes
	FinIdleTimeout, FinHardTimeout uint16
	Specs                          []LearnSpec
}

const (
	learnSendFlowRemoved = 1 << 0
	learnDelete          = 1 << 1
	learnImmediate       = 1 << 13
	learnBits            = 0x3ff
)

func (a Learn) encode(e *encoder) {
	start := e.startNicira(nxLearn)
	e.u16(a.IdleTimeout)
	e.u16(a.HardTimeout)
	e.u16(a.Priority)
	e.u64(a.Cookie)
	var flags uint16
	if a.SendFlowRemoved {
		flags |= learnSendFlowRemoved
	}
	if a.DeleteLearned {
		flags |= learnDelete
	}
	e.u16(flags)
	e.u8(a.Table)
	e.u8(0)
	e.u16(a.FinIdleTimeout)
	e.u16(a.FinHardTimeout)
	for _, s := range a.Specs {
		n := s.bits()
		if n < 1 || n > 128 || s.Kind > LearnOutput || (s.Kind == LearnOutput && s.Immediate) ||
			(!s.Immediate && s.Src.Bits != n) {
			e.fail(malformed("learn spec %v", s))
			return
		}
		h := n | uint16(s.Kind)<<11
		if s.Immediate {
			h |= learnImmediate
		}
		e.u16(h)
		if s.Immediate {
			e.b = s.Value.And(Ones(int(n))).append(e.b, 2*((int(n)+15)/16))
		} else {
			e.u32(e.shortHeader(s.Src.Field))
			e.u16(s.Src.Offset)
		}
		if s.Kind != LearnOutput {
			e.u32(e.shortHeader(s.Dst.Field))
			e.u16(s.Dst.Offset)
		}
	}
	e.endAction(start)
}

func decodeLearn(r *reader) (Action, error) {
	a := Learn{IdleTimeout: r.u16(), HardTimeout: r.u16(), Priority: r.u16(), Cookie: r.u64()}
	flags := r.u16()
	a.SendFlowRemoved, a.DeleteLearned = flags&learnSendFlowRemoved != 0, flags&learnDelete != 0
	a.Table = r.u8()
	r.skip(1)
	a.FinIdleTimeout, a.FinHardTimeout = r.u16(), r.u16()
	short := func() Field {
		h := r.u32()
		f, ok := fieldByKey[fieldKey{class: uint16(h >> 16), number: uint8(h>>9) & 0x7f}]
		if !ok && r.err == nil {
			r.fail(malformed("learn: field header %#08x is not known", h))
		}
		return f
	}
	for len(r.b) >= 2 && r.err == nil {
		h := r.u16()
		if h == 0 {
			break
		}
		n := h & learnBits
		s := LearnSpec{Kind: LearnKind(h >> 11 & 3), Immediate: h&learnImmediate != 0}
		if n == 0 || n > 128 || s.Kind > LearnOutput || (s.Kind == LearnOutput && s.Immediate) {
			return nil, malformed("learn spec %#04x", h)
		}
		if s.Immediate {
			s.Value = valueOf(r.take(2 * ((int(n) + 15) / 16))).And(Ones(int(n)))
		} else {
			s.Src = Subfield{short(), r.u16(), n}
		}
		if s.Kind != LearnOutput {
			s.Dst = Subfield{short(), r.u16(), n}
		}
		a.Specs = append(a.Specs, s)
	}
	return a, r.err
}

// String writes the spec as learn's arguments are written.
func (s LearnSpec) String() string {
	switch s.Kind {
	case LearnOutput:
		return "output:" + s.Src.String()
	case LearnLoad:
		if s.Immediate {
			return fmt.Sprintf("load:%s->%v", hexValue(s.Value), s.Dst)
		}
		return fmt.Sprintf("load:%v->%v", s.Src, s.Dst)
	}
	switch {
	case s.Immediate && s.Dst == Whole(s.Dst.Field):
		return fmt.Sprintf("%v=%s", s.Dst.Field, s.Dst.Field.content(s.Value))
	case s.Immediate:
		return fmt.Sprintf("%v=%s", s.Dst, hexValue(s.Value))
	case s.Src == s.Dst:
		return s.Dst.String()
	}
	return fmt.Sprintf("%v=%v", s.Dst, s.Src)
}

// content writes v in the format of f.
func (f Field) content(v Value) string {
	i := f.Info()
	return i.content(v)
}

func (a Learn) String() string {
	p := []string{fmt.Sprintf("table=%d", a.Table)}
	num := func(name string, v uint16) {
		if v != 0 {
			p = append(p, fmt.Sprintf("%s=%d", name, v))
		}
	}
	num("idle_timeout", a.IdleTimeout)
	num("hard_timeout", a.HardTimeout)
	num("fin_idle_timeout", a.FinIdleTimeout)
	num("fin_hard_timeout", a.FinHardTimeout)
	p = append(p, fmt.Sprintf("priority=%d", a.Priority))
	if a.SendFlowRemoved {
		p = append(p, "send_flow_rem")
	}
	if a.DeleteLearned {
		p = append(p, "delete_learned")
	}
	if a.Cookie != 0 {
		p = append(p, fmt.Sprintf("cookie=%#x", a.Cookie))
	}
	for _, s := range a.Specs {
		p = append(p, s.String())
	}
	return "learn(" + strings.Join(p, ",") + ")"
}
