package network

import (
	"net/netip"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"yakumo/model"
)

func v4(n uint64) netip.Addr { return small(n).address(netip.IPv4Unspecified()) }

// TestFreeEnumerates: the i-th free address, over all i, is every address of the pools
// that is not in use, once and in order, and then none.
func TestFreeEnumerates(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		const base = 10 << 24
		var pools []model.AddrRange
		at := uint64(base)
		for range rapid.IntRange(1, 4).Draw(rt, "pools") {
			at += uint64(rapid.IntRange(0, 5).Draw(rt, "gap"))
			end := at + uint64(rapid.IntRange(0, 12).Draw(rt, "length"))
			pools = append(pools, model.AddrRange{Start: v4(at), End: v4(end)})
			at = end + 1
		}
		var used, want []netip.Addr
		for n := uint64(base) - 2; n < at+3; n++ {
			a := v4(n)
			inside := slices.ContainsFunc(pools, func(r model.AddrRange) bool { return r.Contains(a) })
			switch taken := rapid.Bool().Draw(rt, "taken"); {
			case taken:
				used = append(used, a)
			case inside:
				want = append(want, a)
			}
		}
		for i, a := range want {
			if got, ok := free(pools, used, small(uint64(i))); !ok || got != a {
				rt.Fatalf("free %d of %v without %v = %v, %v, want %v", i, pools, used, got, ok, a)
			}
		}
		if got, ok := free(pools, used, small(uint64(len(want)))); ok {
			rt.Fatalf("one address too many: %v", got)
		}
		var all []netip.Addr
		for i := range poolSize(pools).lo {
			all = append(all, nth(pools, small(i)))
		}
		if !slices.IsSortedFunc(all, netip.Addr.Compare) || len(slices.Compact(slices.Clone(all))) != len(all) {
			rt.Fatalf("nth is not in order: %v", all)
		}
	})
}

func TestDomains(t *testing.T) {
	for name, want := range map[string]bool{"example.org": true, "example.org.": true, "a": true, "a-b.c1": true,
		".": false, "-a": false, "a-": false, "a..b": false, "a_b": false, "a-.b": false, "é": false} {
		if got := validDomain(name); got != want {
			t.Errorf("%q: %v", name, got)
		}
	}
}
