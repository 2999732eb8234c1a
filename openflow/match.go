package openflow

import (
	"fmt"
	"slices"
	"strings"
)

// Match is a set of terms that a packet must meet, all of them; the zero Match is met by
// every packet. A Match does not change once made and may be shared.
//
// It is kept in one canonical form: terms in the order of the Field constants, one per
// field, without terms whose mask is empty, and with the 64- and 128-bit registers spelled
// as reg0 to reg15 (Open vSwitch reports registers as xreg0 to xreg7 in OpenFlow 1.5). So
// two matches that mean the same encode to the same bytes, whichever side wrote them.
type Match struct {
	terms []FieldValue
	raw   []RawField
}

// MatchOf makes a Match. Where a field is named twice the later term adds its bits to the
// earlier; on bits that both name, the later wins.
func MatchOf(terms ...FieldValue) Match { return Match{}.With(terms...) }

// With gives a Match with more terms, under the rule of MatchOf.
func (m Match) With(terms ...FieldValue) Match {
	out := Match{terms: make([]FieldValue, len(m.terms), len(m.terms)+len(terms)), raw: m.raw}
	copy(out.terms, m.terms)
	for _, t := range terms {
		out.add(t)
	}
	return out
}

// Without gives a Match without any term on f.
func (m Match) Without(f Field) Match {
	out := Match{raw: m.raw}
	for _, t := range m.terms {
		if t.Field != f {
			out.terms = append(out.terms, t)
		}
	}
	return out
}

// add keeps the canonical form. It writes m.terms, so m must own it.
func (m *Match) add(t FieldValue) {
	switch f := t.Field; {
	case f >= FieldXReg0 && f <= FieldXReg7:
		m.addRegs(t, FieldReg0+2*(f-FieldXReg0), 2)
		return
	case f >= FieldXXReg0 && f <= FieldXXReg3:
		m.addRegs(t, FieldReg0+4*(f-FieldXXReg0), 4)
		return
	}
	if t.Mask.IsZero() && t.Field.valid() {
		return
	}
	t.Value = t.Value.And(t.Mask)
	n := len(m.terms)
	if n == 0 || m.terms[n-1].Field < t.Field {
		m.terms = append(m.terms, t)
		return
	}
	i, found := slices.BinarySearchFunc(m.terms, t.Field, func(a FieldValue, f Field) int { return int(a.Field) - int(f) })
	if !found {
		m.terms = slices.Insert(m.terms, i, t)
		return
	}
	old := &m.terms[i]
	old.Value = old.Value.And(t.Mask.Not()).Or(t.Value)
	old.Mask = old.Mask.Or(t.Mask)
}

func (m *Match) addRegs(t FieldValue, first Field, n int) {
	for i := range n {
		shift := 32 * (n - 1 - i)
		m.add(Masked(first+Field(i), t.Value.Shr(shift).And(Ones(32)), t.Mask.Shr(shift).And(Ones(32))))
	}
}

// Terms gives the terms in order. The caller must not change them.
func (m Match) Terms() []FieldValue { return m.terms }

// Unknown gives the terms on fields that this package does not know, as they came.
func (m Match) Unknown() []RawField { return m.raw }

// Get gives the term on f. For a 64- or 128-bit register it is put together from the
// 32-bit ones.
func (m Match) Get(f Field) (FieldValue, bool) {
	switch {
	case f >= FieldXReg0 && f <= FieldXReg7:
		return m.getRegs(f, FieldReg0+2*(f-FieldXReg0), 2)
	case f >= FieldXXReg0 && f <= FieldXXReg3:
		return m.getRegs(f, FieldReg0+4*(f-FieldXXReg0), 4)
	}
	i, ok := slices.BinarySearchFunc(m.terms, f, func(a FieldValue, f Field) int { return int(a.Field) - int(f) })
	if !ok {
		return FieldValue{Field: f}, false
	}
	return m.terms[i], true
}

func (m Match) getRegs(f, first Field, n int) (FieldValue, bool) {
	out, any := FieldValue{Field: f}, false
	for i := range n {
		t, ok := m.Get(first + Field(i))
		any = any || ok
		shift := 32 * (n - 1 - i)
		out.Value = out.Value.Or(t.Value.Shl(shift))
		out.Mask = out.Mask.Or(t.Mask.Shl(shift))
	}
	return out, any
}

// Value gives the content of f as a number, 0 where the match does not name f.
func (m Match) Value(f Field) uint64 {
	t, _ := m.Get(f)
	return t.Value.Lo
}

// Equal tells whether both matches are met by the same packets.
func (m Match) Equal(o Match) bool {
	return slices.Equal(m.terms, o.terms) && slices.EqualFunc(m.raw, o.raw, func(a, b RawField) bool {
		return a.Header == b.Header && slices.Equal(a.Payload, b.Payload)
	})
}

// AppendBinary appends the terms without any framing. Equal matches give equal bytes.
func (m Match) AppendBinary(b []byte) ([]byte, error) {
	e := encoder{b: b}
	m.encodeTerms(&e)
	return e.b, e.err
}

// Key gives the bytes of AppendBinary as a string, to serve as a map key.
func (m Match) Key() string {
	b, err := m.AppendBinary(make([]byte, 0, 64))
	if err != nil {
		return "invalid: " + err.Error()
	}
	return string(b)
}

func (m Match) encodeTerms(e *encoder) {
	for i := range m.terms {
		m.terms[i].encode(e)
	}
	for _, r := range m.raw {
		e.u32(r.Header)
		e.bytes(r.Payload)
	}
}

const matchTypeOXM = 1 // OFPMT_OXM

// encode writes ofp_match: type, length without padding, terms, padding to 8 bytes.
func (m Match) encode(e *encoder) {
	start := len(e.b)
	e.u16(matchTypeOXM)
	e.u16(0)
	m.encodeTerms(e)
	e.patch16(start+2, start)
	e.pad8(start)
}

// decodeMatch takes ofp_match and its padding.
func decodeMatch(r *reader) Match {
	typ := r.u16()
	n := int(r.u16())
	if r.err != nil {
		return Match{}
	}
	if typ != matchTypeOXM || n < 4 {
		r.fail(malformed("match of type %d and %d bytes", typ, n))
		return Match{}
	}
	body := r.sub(n - 4)
	r.skip((8 - n%8) % 8)
	m, err := decodeTerms(&body)
	if err != nil {
		r.fail(err)
	}
	return m
}

func decodeTerms(r *reader) (Match, error) {
	m := Match{}
	if len(r.b) > 0 {
		m.terms = make([]FieldValue, 0, 8)
	}
	for len(r.b) > 0 {
		v, raw, ok := decodeField(r)
		switch {
		case r.err != nil:
			return Match{}, r.err
		case ok:
			m.add(v)
		default:
			m.raw = append(m.raw, RawField{raw.Header, slices.Clone(raw.Payload)})
		}
	}
	if len(m.terms) == 0 {
		m.terms = nil
	}
	return m, r.err
}

// DecodeMatch reads terms without framing, as AppendBinary writes them.
func DecodeMatch(b []byte) (Match, error) {
	r := reader{b: b}
	return decodeTerms(&r)
}

// String lists the terms with commas between, as Open vSwitch's tools accept them; the
// match of all packets gives "".
func (m Match) String() string {
	parts := make([]string, 0, len(m.terms)+len(m.raw))
	for _, t := range m.terms {
		parts = append(parts, t.String())
	}
	for _, r := range m.raw {
		parts = append(parts, fmt.Sprintf("oxm%#08x=%x", r.Header, r.Payload))
	}
	return strings.Join(parts, ",")
}
