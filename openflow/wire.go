package openflow

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// ErrTruncated says that bytes end before the thing they encode does.
var ErrTruncated = errors.New("openflow: truncated")

// ErrMalformed says that bytes break the format: a bad length, type or pad.
var ErrMalformed = errors.New("openflow: malformed")

// ErrTooLong says that a message, or a part of it, does not fit its 16-bit length field.
var ErrTooLong = errors.New("openflow: too long for its length field")

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrMalformed, fmt.Sprintf(format, args...))
}

// encoder appends big-endian fields to b. The first error sticks.
type encoder struct {
	b   []byte
	err error
}

func (e *encoder) u8(v uint8)   { e.b = append(e.b, v) }
func (e *encoder) u16(v uint16) { e.b = binary.BigEndian.AppendUint16(e.b, v) }
func (e *encoder) u32(v uint32) { e.b = binary.BigEndian.AppendUint32(e.b, v) }
func (e *encoder) u64(v uint64) { e.b = binary.BigEndian.AppendUint64(e.b, v) }
func (e *encoder) bytes(v []byte) {
	e.b = append(e.b, v...)
}

func (e *encoder) zeros(n int) {
	for ; n >= 8; n -= 8 {
		e.b = append(e.b, 0, 0, 0, 0, 0, 0, 0, 0)
	}
	for ; n > 0; n-- {
		e.b = append(e.b, 0)
	}
}

// str writes s into a field of n bytes that ends with at least one zero byte.
func (e *encoder) str(s string, n int) {
	if len(s) >= n {
		e.fail(fmt.Errorf("%w: text of %d bytes in a field of %d", ErrTooLong, len(s), n))
		s = s[:n-1]
	}
	e.b = append(e.b, s...)
	e.zeros(n - len(s))
}

func (e *encoder) fail(err error) {
	if e.err == nil {
		e.err = err
	}
}

// pad8 pads what was written since start to a multiple of 8 bytes.
func (e *encoder) pad8(start int) {
	if r := (len(e.b) - start) % 8; r != 0 {
		e.zeros(8 - r)
	}
}

// patch16 stores, at offset at, the number of bytes written since start.
func (e *encoder) patch16(at, start int) {
	n := len(e.b) - start
	if n > 0xffff {
		e.fail(fmt.Errorf("%w: %d bytes", ErrTooLong, n))
		n = 0
	}
	binary.BigEndian.PutUint16(e.b[at:], uint16(n))
}

// prop writes one property header and returns its start for endProp.
func (e *encoder) prop(typ uint16) int {
	start := len(e.b)
	e.u16(typ)
	e.u16(0)
	return start
}

// endProp closes a property: the length excludes the padding to 8 bytes.
func (e *encoder) endProp(start int) {
	e.patch16(start+2, start)
	e.pad8(start)
}

func (e *encoder) propU32(typ uint16, v uint32) {
	p := e.prop(typ)
	e.u32(v)
	e.endProp(p)
}

// propU16 writes a property of a 16-bit number; its length counts two pad bytes, as
// OpenFlow's own 16-bit properties do.
func (e *encoder) propU16(typ, v uint16) {
	p := e.prop(typ)
	e.u16(v)
	e.u16(0)
	e.endProp(p)
}

// reader takes big-endian fields from b. After the first short read err is set and every
// further read gives zeros, so a decoder may check once at the end.
type reader struct {
	b   []byte
	err error
}

func (r *reader) take(n int) []byte {
	if r.err != nil || n < 0 || n > len(r.b) {
		if r.err == nil {
			r.err = ErrTruncated
		}
		r.b = nil
		return nil
	}
	v := r.b[:n:n]
	r.b = r.b[n:]
	return v
}

func (r *reader) skip(n int) { r.take(n) }

func (r *reader) u8() uint8 {
	if v := r.take(1); v != nil {
		return v[0]
	}
	return 0
}

func (r *reader) u16() uint16 {
	if v := r.take(2); v != nil {
		return binary.BigEndian.Uint16(v)
	}
	return 0
}

func (r *reader) u32() uint32 {
	if v := r.take(4); v != nil {
		return binary.BigEndian.Uint32(v)
	}
	return 0
}

func (r *reader) u64() uint64 {
	if v := r.take(8); v != nil {
		return binary.BigEndian.Uint64(v)
	}
	return 0
}

// str reads a zero-terminated text from a field of n bytes.
func (r *reader) str(n int) string {
	v := r.take(n)
	for i, c := range v {
		if c == 0 {
			return string(v[:i])
		}
	}
	return string(v)
}

// sub gives a reader over the next n bytes.
func (r *reader) sub(n int) reader {
	v := r.take(n)
	return reader{b: v, err: r.err}
}

// fail records err unless one is recorded already.
func (r *reader) fail(err error) {
	if r.err == nil {
		r.err = err
	}
	r.b = nil
}

// nextProp takes one property and the padding behind it (less where the buffer ends).
func (r *reader) nextProp() (typ uint16, body reader) {
	typ = r.u16()
	n := int(r.u16())
	if r.err != nil {
		return 0, reader{err: r.err}
	}
	if n < 4 {
		r.fail(malformed("property of %d bytes", n))
		return 0, reader{err: r.err}
	}
	body = r.sub(n - 4)
	if pad := (8 - n%8) % 8; pad > 0 && r.err == nil {
		r.skip(min(pad, len(r.b)))
	}
	return typ, body
}
