package network

import (
	"math/big"
	"net/netip"
	"testing"

	"pgregory.net/rapid"
)

// TestNumbers: arithmetic on addresses is that of whole numbers of 128 bits.
func TestNumbers(t *testing.T) {
	all := new(big.Int).Lsh(big.NewInt(1), 128)
	rapid.Check(t, func(rt *rapid.T) {
		draw := func(name string) number {
			return number{rapid.Uint64().Draw(rt, name+" high"), rapid.Uint64().Draw(rt, name+" low")}
		}
		a, b := draw("a"), draw("b")
		sum := new(big.Int).Add(a.big(), b.big())
		if got := a.add(b).big(); got.Cmp(sum.Mod(sum, all)) != 0 {
			rt.Fatalf("%v + %v = %v", a, b, got)
		}
		if a.less(b) != (a.big().Cmp(b.big()) < 0) {
			rt.Fatalf("%v < %v: %v", a, b, a.less(b))
		}
		if got := a.add(b).sub(b); got != a {
			rt.Fatalf("%v + %v - %v = %v", a, b, b, got)
		}
		if got := numberOf(a.address(netip.IPv6Unspecified())); got != a {
			rt.Fatalf("%v as an address is %v", a, got)
		}
		if !a.zero() {
			if n := a.below(); !n.less(a) {
				rt.Fatalf("%v is not below %v", n, a)
			}
		}
	})
	if got := shift(127).big(); got.Cmp(new(big.Int).Lsh(big.NewInt(1), 127)) != 0 {
		t.Errorf("1 << 127 = %v", got)
	}
}
