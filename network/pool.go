package network

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"

	"yakumo/fault"
	"yakumo/model"
)

// Arithmetic on IPv4 addresses. Sizes are uint64, so that a /0 does not overflow.

func number(a netip.Addr) uint64 {
	b := a.As4()
	return uint64(binary.BigEndian.Uint32(b[:]))
}

func address(n uint64) netip.Addr {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], uint32(n))
	return netip.AddrFrom4(b)
}

func size(r model.AddrRange) uint64 { return number(r.End) - number(r.Start) + 1 }

// lastOf gives the last address of a block.
func lastOf(p netip.Prefix) netip.Addr {
	return address(number(p.Masked().Addr()) + 1<<(32-p.Bits()) - 1)
}

// hosts gives the range of addresses that a port may have: all but the first and the
// last, which are the network's and the broadcast's, except in a /31 (RFC 3021) or /32.
func hosts(p netip.Prefix) model.AddrRange {
	first, last := number(p.Masked().Addr()), number(lastOf(p))
	if p.Bits() < 31 {
		first, last = first+1, last-1
	}
	return model.AddrRange{Start: address(first), End: address(last)}
}

// defaultPools gives every address for ports but the gateway's.
func defaultPools(p netip.Prefix, gateway netip.Addr) []model.AddrRange {
	all := hosts(p)
	if !gateway.IsValid() || !all.Contains(gateway) {
		return []model.AddrRange{all}
	}
	var out []model.AddrRange
	g := number(gateway)
	if g > number(all.Start) {
		out = append(out, model.AddrRange{Start: all.Start, End: address(g - 1)})
	}
	if g < number(all.End) {
		out = append(out, model.AddrRange{Start: address(g + 1), End: all.End})
	}
	return out
}

// checkPools sorts the pools and refuses what overlaps, leaves the block or holds the gateway.
func checkPools(pools []model.AddrRange, block netip.Prefix, gateway netip.Addr) ([]model.AddrRange, error) {
	pools = slices.Clone(pools)
	all := hosts(block)
	for _, p := range pools {
		if !p.Start.Is4() || !p.End.Is4() || p.End.Less(p.Start) {
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
func poolSize(pools []model.AddrRange) uint64 {
	n := uint64(0)
	for _, p := range pools {
		n += size(p)
	}
	return n
}

// nth gives the address with index i over all pools; i must be below poolSize.
func nth(pools []model.AddrRange, i uint64) netip.Addr {
	for _, p := range pools {
		if s := size(p); i >= s {
			i -= s
			continue
		}
		return address(number(p.Start) + i)
	}
	panic(fmt.Sprintf("network: address %d beyond its pools", i)) // the caller took i below poolSize
}

// free gives the i-th address of the pools that is not in used, which is sorted and
// without repeats, and false where there are not so many. It costs the pools and the used
// addresses, not the size of the pools.
func free(pools []model.AddrRange, used []netip.Addr, i uint64) (netip.Addr, bool) {
	for _, p := range pools {
		at := number(p.Start)
		lo, _ := slices.BinarySearchFunc(used, p.Start, netip.Addr.Compare)
		for ; lo < len(used) && p.Contains(used[lo]); lo++ {
			u := number(used[lo])
			if gap := u - at; i < gap {
				return address(at + i), true
			} else {
				i -= gap
			}
			at = u + 1
		}
		if rest := number(p.End) + 1 - at; i < rest {
			return address(at + i), true
		} else {
			i -= rest
		}
	}
	return netip.Addr{}, false
}

// PoolSize counts the addresses that a subnet's pools hold.
func PoolSize(s *model.Subnet) uint64 { return poolSize(s.Pools) }
