package network

import (
	"fmt"
	"math/big"
	"net/netip"
	"slices"

	"yakumo/fault"
	"yakumo/model"
)

// hosts gives the range of addresses that a port may have. Of IPv4: all but the first and
// the last, which are the network's and the broadcast's, except in a /31 (RFC 3021) or /32.
// Of IPv6: all but the first, which is every router's (RFC 4291, 2.6.1), except in a /127
// (RFC 6164) or /128.
func hosts(p netip.Prefix) model.AddrRange {
	first, last := p.Masked().Addr(), lastOf(p)
	if spare := p.Addr().BitLen() - p.Bits(); spare > 1 {
		first = first.Next()
		if first.Is4() {
			last = last.Prev()
		}
	}
	return model.AddrRange{Start: first, End: last}
}

// defaultPools gives every address for ports but the gateway's.
func defaultPools(p netip.Prefix, gateway netip.Addr) []model.AddrRange {
	all := hosts(p)
	if !gateway.IsValid() || !all.Contains(gateway) {
		return []model.AddrRange{all}
	}
	var out []model.AddrRange
	if all.Start.Less(gateway) {
		out = append(out, model.AddrRange{Start: all.Start, End: gateway.Prev()})
	}
	if gateway.Less(all.End) {
		out = append(out, model.AddrRange{Start: gateway.Next(), End: all.End})
	}
	return out
}

// checkPools sorts the pools and refuses what overlaps, leaves the block or holds the gateway.
func checkPools(pools []model.AddrRange, block netip.Prefix, gateway netip.Addr) ([]model.AddrRange, error) {
	pools = slices.Clone(pools)
	all := hosts(block)
	for _, p := range pools {
		if p.Start.BitLen() != block.Addr().BitLen() || p.End.BitLen() != block.Addr().BitLen() || p.End.Less(p.Start) {
			return nil, fault.Coded(fault.Invalid, "InvalidAllocationPool", "The allocation pool %s-%s is not valid.", p.Start, p.End)
		}
		if !all.Contains(p.Start) || !all.Contains(p.End) {
			return nil, fault.Coded(fault.Invalid, "OutOfBoundsAllocationPool", "The allocation pool %s-%s spans beyond the subnet cidr %s.", p.Start, p.End, block)
		}
	}
	slices.SortFunc(pools, func(a, b model.AddrRange) int { return a.Start.Compare(b.Start) })
	for i, p := range pools {
		if i > 0 && !pools[i-1].End.Less(p.Start) {
			return nil, fault.Coded(fault.Conflict, "OverlappingAllocationPools", "Found overlapping allocation pools: %s-%s, %s-%s for subnet %s.", pools[i-1].Start, pools[i-1].End, p.Start, p.End, block)
		}
	}
	return pools, gatewayOutside(pools, gateway)
}

func gatewayOutside(pools []model.AddrRange, gateway netip.Addr) error {
	if !gateway.IsValid() {
		return nil
	}
	for _, p := range pools {
		if p.Contains(gateway) {
			return fault.Coded(fault.Conflict, "GatewayConflictWithAllocationPools", "Gateway ip %s conflicts with allocation pool %s-%s.", gateway, p.Start, p.End)
		}
	}
	return nil
}

// poolSize counts the addresses of pools that do not overlap.
func poolSize(pools []model.AddrRange) number {
	var n number
	for _, p := range pools {
		n = n.add(size(p))
	}
	return n
}

// nth gives the address with index i over all pools; i must be below poolSize.
func nth(pools []model.AddrRange, i number) netip.Addr {
	for _, p := range pools {
		if s := size(p); !i.less(s) {
			i = i.sub(s)
			continue
		}
		return numberOf(p.Start).add(i).address(p.Start)
	}
	panic(fmt.Sprintf("network: address %v beyond its pools", i)) // the caller took i below poolSize
}

// free gives the i-th address of the pools that is not in used, which is sorted and
// without repeats, and false where there are not so many. It costs the pools and the used
// addresses, not the size of the pools.
func free(pools []model.AddrRange, used []netip.Addr, i number) (netip.Addr, bool) {
	for _, p := range pools {
		at := numberOf(p.Start)
		lo, _ := slices.BinarySearchFunc(used, p.Start, netip.Addr.Compare)
		for ; lo < len(used) && p.Contains(used[lo]); lo++ {
			u := numberOf(used[lo])
			gap := u.sub(at)
			if i.less(gap) {
				return at.add(i).address(p.Start), true
			}
			i = i.sub(gap)
			at = u.add(small(1))
		}
		rest := numberOf(p.End).add(small(1)).sub(at)
		if i.less(rest) {
			return at.add(i).address(p.Start), true
		}
		i = i.sub(rest)
	}
	return netip.Addr{}, false
}

// PoolSize counts the addresses that a subnet's pools hold.
func PoolSize(s *model.Subnet) *big.Int { return poolSize(s.Pools).big() }
