package libvirt

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Bounds of the protocol: the longest message with its length word, and the longest string
// (VIR_NET_MESSAGE_MAX and VIR_NET_MESSAGE_STRING_MAX).
const (
	maxFrame  = 32<<20 + 4
	maxString = 4 << 20
)

// encoder appends values in XDR (RFC 4506): big-endian, padded to 4 bytes.
type encoder struct{ buf []byte }

func (e *encoder) u32(v uint32) *encoder {
	e.buf = binary.BigEndian.AppendUint32(e.buf, v)
	return e
}

func (e *encoder) u64(v uint64) *encoder {
	e.buf = binary.BigEndian.AppendUint64(e.buf, v)
	return e
}

func (e *encoder) i32(v int32) *encoder { return e.u32(uint32(v)) }

// fixed appends opaque data of a length that both sides know.
func (e *encoder) fixed(p []byte) *encoder {
	e.buf = append(e.buf, p...)
	for range -len(p) & 3 {
		e.buf = append(e.buf, 0)
	}
	return e
}

func (e *encoder) str(s string) *encoder {
	e.u32(uint32(len(s)))
	return e.fixed([]byte(s))
}

// some appends an optional string that is there; none one that is not (XDR's pointers).
func (e *encoder) some(s string) *encoder { return e.u32(1).str(s) }
func (e *encoder) none() *encoder         { return e.u32(0) }

// dom appends a remote_nonnull_domain. The daemon finds a domain by its UUID alone; name and
// number are only for its messages.
func (e *encoder) dom(d domainRef) *encoder {
	return e.str(d.name).fixed(d.uuid[:]).i32(-1)
}

// domainRef is remote_nonnull_domain but for the number of the run.
type domainRef struct {
	name string
	uuid [16]byte
}

var errShort = errors.New("the message is shorter than its fields")

// decoder reads XDR. After the first error every read gives a zero value; err keeps it.
type decoder struct {
	buf []byte
	err error
}

func (d *decoder) take(n int) []byte {
	if d.err != nil {
		return nil
	}
	if n < 0 || n > len(d.buf) {
		d.err = errShort
		return nil
	}
	p := d.buf[:n]
	d.buf = d.buf[n:]
	return p
}

func (d *decoder) u32() uint32 {
	if p := d.take(4); p != nil {
		return binary.BigEndian.Uint32(p)
	}
	return 0
}

func (d *decoder) i32() int32 { return int32(d.u32()) }

func (d *decoder) u64() uint64 {
	if p := d.take(8); p != nil {
		return binary.BigEndian.Uint64(p)
	}
	return 0
}

func (d *decoder) str() string {
	n := d.u32()
	if n > maxString {
		if d.err == nil {
			d.err = fmt.Errorf("a string of %d bytes is over the protocol's bound", n)
		}
		return ""
	}
	p := d.take(int(n))
	s := string(p)
	d.take(-int(n) & 3)
	return s
}

// opt reads an optional string; "" stands for none.
func (d *decoder) opt() string {
	switch d.u32() {
	case 0:
	case 1:
		return d.str()
	default:
		if d.err == nil {
			d.err = errors.New("an optional field is neither there nor not")
		}
	}
	return ""
}

func (d *decoder) dom() domainRef {
	r := domainRef{name: d.str()}
	copy(r.uuid[:], d.take(16))
	d.i32()
	return r
}

// count reads the length of an array whose elements take at least size bytes each, so that
// nothing is allocated for elements that cannot be there.
func (d *decoder) count(size int) int {
	n := d.u32()
	if d.err == nil && uint64(n)*uint64(size) > uint64(len(d.buf)) {
		d.err = errShort
	}
	if d.err != nil {
		return 0
	}
	return int(n)
}

// param reads a remote_typed_param that is a whole number.
func (d *decoder) param() (field string, value int64) {
	field, value, _ = d.anyParam()
	return field, value
}

// anyParam reads a remote_typed_param: a number, or a text. A double's bits are its number.
func (d *decoder) anyParam() (field string, value int64, text string) {
	field = d.str()
	switch kind := d.u32(); kind {
	case 1, 6: // int, boolean
		value = int64(d.i32())
	case 2: // unsigned int
		value = int64(d.u32())
	case 3, 4, 5: // long long, unsigned long long, double
		value = int64(d.u64())
	case 7:
		text = d.str()
	default:
		if d.err == nil {
			d.err = fmt.Errorf("a typed parameter is of the unknown type %d", kind)
		}
	}
	return field, value, text
}
