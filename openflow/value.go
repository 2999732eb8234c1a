package openflow

import (
	"encoding/binary"
	"math/bits"
	"net/netip"
)

// Value is the content of a field as an unsigned number of up to 128 bits. A field of n bits
// uses the low n bits; the others are zero.
type Value struct{ Hi, Lo uint64 }

// U64 is the Value of a number.
func U64(v uint64) Value { return Value{Lo: v} }

// MAC is an Ethernet address.
type MAC [6]byte

// String gives the address as six pairs of lower-case hexadecimal digits.
func (m MAC) String() string {
	const hex = "0123456789abcdef"
	var b [17]byte
	for i, c := range m {
		b[3*i], b[3*i+1] = hex[c>>4], hex[c&15]
		if i < 5 {
			b[3*i+2] = ':'
		}
	}
	return string(b[:])
}

// Value gives the address as a 48-bit number.
func (m MAC) Value() Value {
	return Value{Lo: uint64(m[0])<<40 | uint64(m[1])<<32 | uint64(m[2])<<24 | uint64(m[3])<<16 | uint64(m[4])<<8 | uint64(m[5])}
}

// MAC gives the low 48 bits as an Ethernet address.
func (v Value) MAC() MAC {
	l := v.Lo
	return MAC{byte(l >> 40), byte(l >> 32), byte(l >> 24), byte(l >> 16), byte(l >> 8), byte(l)}
}

// AddrValue gives an IP address as a 32- or 128-bit number; an IPv4-mapped IPv6 address
// counts as IPv4.
func AddrValue(a netip.Addr) Value {
	if a = a.Unmap(); a.Is4() {
		b := a.As4()
		return Value{Lo: uint64(binary.BigEndian.Uint32(b[:]))}
	}
	if !a.IsValid() {
		return Value{}
	}
	b := a.As16()
	return Value{Hi: binary.BigEndian.Uint64(b[:8]), Lo: binary.BigEndian.Uint64(b[8:])}
}

// IPv4 gives the low 32 bits as an IPv4 address.
func (v Value) IPv4() netip.Addr {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], uint32(v.Lo))
	return netip.AddrFrom4(b)
}

// IPv6 gives all 128 bits as an IPv6 address.
func (v Value) IPv6() netip.Addr {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], v.Hi)
	binary.BigEndian.PutUint64(b[8:], v.Lo)
	return netip.AddrFrom16(b)
}

// And gives the bits that v and o share.
func (v Value) And(o Value) Value { return Value{v.Hi & o.Hi, v.Lo & o.Lo} }

// Or gives the bits that v or o has.
func (v Value) Or(o Value) Value { return Value{v.Hi | o.Hi, v.Lo | o.Lo} }

// Not gives the opposite of every one of the 128 bits.
func (v Value) Not() Value { return Value{^v.Hi, ^v.Lo} }

// IsZero tells whether no bit is set.
func (v Value) IsZero() bool { return v.Hi|v.Lo == 0 }

// Shl shifts left by n bits, 0 ≤ n ≤ 128.
func (v Value) Shl(n int) Value {
	switch {
	case n <= 0:
		return v
	case n >= 128:
		return Value{}
	case n >= 64:
		return Value{Hi: v.Lo << (n - 64)}
	}
	return Value{Hi: v.Hi<<n | v.Lo>>(64-n), Lo: v.Lo << n}
}

// Shr shifts right by n bits, 0 ≤ n ≤ 128.
func (v Value) Shr(n int) Value {
	switch {
	case n <= 0:
		return v
	case n >= 128:
		return Value{}
	case n >= 64:
		return Value{Lo: v.Hi >> (n - 64)}
	}
	return Value{Hi: v.Hi >> n, Lo: v.Lo>>n | v.Hi<<(64-n)}
}

// Ones gives a Value whose low n bits are set, 0 ≤ n ≤ 128.
func Ones(n int) Value {
	switch {
	case n <= 0:
		return Value{}
	case n < 64:
		return Value{Lo: 1<<n - 1}
	case n < 128:
		return Value{Hi: 1<<(n-64) - 1, Lo: ^uint64(0)}
	}
	return Value{^uint64(0), ^uint64(0)}
}

// prefixMask is a mask of the top n of width bits.
func prefixMask(n, width int) Value { return Ones(n).Shl(width - n) }

// prefixLen gives n where v is prefixMask(n, width), and false where v is no prefix mask.
func (v Value) prefixLen(width int) (int, bool) {
	n := bits.OnesCount64(v.Hi) + bits.OnesCount64(v.Lo)
	return n, v == prefixMask(n, width)
}

// append writes the low n bytes.
func (v Value) append(b []byte, n int) []byte {
	for i := n - 1; i >= 0; i-- {
		if i >= 8 {
			b = append(b, byte(v.Hi>>(8*(i-8))))
		} else {
			b = append(b, byte(v.Lo>>(8*i)))
		}
	}
	return b
}

// valueOf reads a big-endian number of at most 16 bytes.
func valueOf(b []byte) Value {
	var v Value
	for _, c := range b {
		v = Value{Hi: v.Hi<<8 | v.Lo>>56, Lo: v.Lo<<8 | uint64(c)}
	}
	return v
}
