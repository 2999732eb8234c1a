package network

import (
	"encoding/binary"
	"math/big"
	"math/bits"
	"math/rand/v2"
	"net/netip"

	"yakumo/model"
)

// number is an address, or a count of addresses, as an unsigned integer of 128 bits. It
// holds every count but that of all IPv6 addresses at once, and no block is ::/0.
type number struct{ hi, lo uint64 }

func small(n uint64) number { return number{lo: n} }

func (a number) add(b number) number {
	lo, carry := bits.Add64(a.lo, b.lo, 0)
	hi, _ := bits.Add64(a.hi, b.hi, carry)
	return number{hi, lo}
}

func (a number) sub(b number) number {
	lo, borrow := bits.Sub64(a.lo, b.lo, 0)
	hi, _ := bits.Sub64(a.hi, b.hi, borrow)
	return number{hi, lo}
}

func (a number) less(b number) bool { return a.hi < b.hi || a.hi == b.hi && a.lo < b.lo }

func (a number) zero() bool { return a == number{} }

// shift gives 1 << n.
func shift(n int) number {
	if n >= 64 {
		return number{hi: 1 << (n - 64)}
	}
	return number{lo: 1 << n}
}

func (a number) big() *big.Int {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], a.hi)
	binary.BigEndian.PutUint64(b[8:], a.lo)
	return new(big.Int).SetBytes(b[:])
}

// below gives a random number below a, which is not 0.
func (a number) below() number {
	if a.hi == 0 {
		return small(rand.Uint64N(a.lo))
	}
	mask := ^uint64(0) >> bits.LeadingZeros64(a.hi)
	for { // at least every second is below a
		if n := (number{rand.Uint64() & mask, rand.Uint64()}); n.less(a) {
			return n
		}
	}
}

func numberOf(a netip.Addr) number {
	if a.Is4() {
		b := a.As4()
		return small(uint64(binary.BigEndian.Uint32(b[:])))
	}
	b := a.As16()
	return number{binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])}
}

// address gives n as an address of the version of like.
func (a number) address(like netip.Addr) netip.Addr {
	if like.Is4() {
		var b [4]byte
		binary.BigEndian.PutUint32(b[:], uint32(a.lo))
		return netip.AddrFrom4(b)
	}
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], a.hi)
	binary.BigEndian.PutUint64(b[8:], a.lo)
	return netip.AddrFrom16(b)
}

// size counts the addresses of a range.
func size(r model.AddrRange) number { return numberOf(r.End).sub(numberOf(r.Start)).add(small(1)) }

// blockSize counts the addresses of a block that is not of 0 bits of IPv6.
func blockSize(p netip.Prefix) number { return shift(p.Addr().BitLen() - p.Bits()) }

// lastOf gives the last address of a block.
func lastOf(p netip.Prefix) netip.Addr {
	first := p.Masked().Addr()
	return numberOf(first).add(blockSize(p)).sub(small(1)).address(first)
}
