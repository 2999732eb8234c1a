package network

import (
	"net/netip"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// drawPrefixes draws blocks within 10.0.0.0/24, which can be counted address by address.
func drawPrefixes(rt *rapid.T, what string) ([]netip.Prefix, [256]bool) {
	var out []netip.Prefix
	var in [256]bool
	for range rapid.IntRange(0, 6).Draw(rt, what) {
		p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, 0, rapid.Byte().Draw(rt, "at")}), rapid.IntRange(24, 32).Draw(rt, "bits")).Masked()
		out = append(out, p)
		for i := range in {
			in[i] = in[i] || p.Contains(netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}))
		}
	}
	return out, in
}

// TestPrefixSets: joining and subtracting keep exactly the addresses that they should, in
// prefixes that are sorted, apart, and as few as can be.
func TestPrefixSets(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		a, inA := drawPrefixes(rt, "a")
		b, inB := drawPrefixes(rt, "b")
		check := func(what string, got []netip.Prefix, want func(int) bool) {
			if !slices.IsSortedFunc(got, netip.Prefix.Compare) {
				rt.Fatalf("%s is not sorted: %v", what, got)
			}
			for i, p := range got {
				for _, q := range got[:i] {
					if p.Overlaps(q) || p.Bits() == q.Bits() && netip.PrefixFrom(p.Addr(), p.Bits()-1).Masked() == netip.PrefixFrom(q.Addr(), q.Bits()-1).Masked() {
						rt.Fatalf("%s holds %s and %s", what, q, p)
					}
				}
			}
			for i := range 256 {
				x := netip.AddrFrom4([4]byte{10, 0, 0, byte(i)})
				if covered(got, netip.PrefixFrom(x, 32)) != want(i) {
					rt.Fatalf("%s, %s: %v", what, x, got)
				}
			}
		}
		check("joined", joined(a), func(i int) bool { return inA[i] })
		check("subtract", subtract(joined(a), joined(b)), func(i int) bool { return inA[i] && !inB[i] })
	})
}
