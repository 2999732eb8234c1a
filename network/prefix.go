package network

import (
	"iter"
	"net/netip"
	"slices"

	"yakumo/fault"
	"yakumo/model"
	"yakumo/store"
)

// cut gives the subnets that were cut from a pool, sorted by their blocks.
func cut(r store.Reader, pool model.ID) iter.Seq[*model.Subnet] {
	return store.Subnets.Prefix(r, "pool", pool+",")
}

// joined gives the same addresses in the fewest prefixes, sorted.
func joined(list []netip.Prefix) []netip.Prefix {
	out := make([]netip.Prefix, 0, len(list))
	for _, p := range list {
		out = append(out, p.Masked())
	}
	slices.SortFunc(out, netip.Prefix.Compare)
	var done []netip.Prefix
	for _, p := range out {
		if k := len(done); k > 0 && done[k-1].Overlaps(p) { // sorted: the one before is the larger
			continue
		}
		done = append(done, p)
		for k := len(done); k > 1; k = len(done) { // two halves are one
			a, b := done[k-2], done[k-1]
			if a.Bits() != b.Bits() || a.Bits() == 1 || netip.PrefixFrom(a.Addr(), a.Bits()-1).Masked() != netip.PrefixFrom(b.Addr(), b.Bits()-1).Masked() {
				break
			}
			done = append(done[:k-2], netip.PrefixFrom(a.Addr(), a.Bits()-1).Masked())
		}
	}
	return done
}

// covered tells whether one of the prefixes holds p.
func covered(list []netip.Prefix, p netip.Prefix) bool {
	return slices.ContainsFunc(list, func(x netip.Prefix) bool { return x.Bits() <= p.Bits() && x.Contains(p.Addr()) })
}

// subtract gives the addresses of the prefixes that are not in gone, in the fewest prefixes.
func subtract(list, gone []netip.Prefix) []netip.Prefix {
	for _, g := range gone {
		var left []netip.Prefix
		for _, p := range list {
			left = appendRest(left, p, g)
		}
		list = left
	}
	return joined(list)
}

func appendRest(out []netip.Prefix, p, gone netip.Prefix) []netip.Prefix {
	if !p.Overlaps(gone) {
		return append(out, p)
	}
	for p.Bits() < gone.Bits() { // keep the half that does not hold it
		low := netip.PrefixFrom(p.Addr(), p.Bits()+1)
		high := netip.PrefixFrom(lastOf(low).Next(), low.Bits())
		if low.Contains(gone.Addr()) {
			out, p = append(out, high), low
		} else {
			out, p = append(out, low), high
		}
	}
	return out
}

// cutAny finds the first block of the length in the pool that overlaps with no subnet of it.
func cutAny(r store.Reader, p *model.SubnetPool, bits int) (netip.Prefix, bool) {
	for _, whole := range p.Prefixes {
		if whole.Bits() > bits {
			continue
		}
		want := netip.PrefixFrom(whole.Addr(), bits)
		free := true
		for s := range cut(r, p.ID) {
			if !s.CIDR.Overlaps(whole) || lastOf(s.CIDR).Less(want.Addr()) {
				continue
			}
			if lastOf(want).Less(s.CIDR.Addr()) {
				break // the gap before this subnet is large enough
			}
			// The next block of this length behind the subnet.
			next := lastOf(netip.PrefixFrom(lastOf(s.CIDR), bits).Masked()).Next()
			if free = next.IsValid() && whole.Contains(next); !free {
				break
			}
			want = netip.PrefixFrom(next, bits)
		}
		if free {
			return want, true
		}
	}
	return netip.Prefix{}, false
}

// allocate gives a new subnet of the project its block: the one asked for, or any of a length.
func (n *Network) allocate(tx *store.Tx, p *model.SubnetPool, project model.ID, block netip.Prefix, bits *int) (netip.Prefix, error) {
	length := p.DefaultBits
	if bits != nil {
		length = *bits
	}
	if block.IsValid() {
		length = block.Bits()
	}
	switch {
	case length > p.MaxBits:
		return block, fault.Coded(fault.Invalid, "MaxPrefixSubnetAllocationError", "Unable to allocate subnet with prefix length %d, maximum allowed prefix is %d.", length, p.MaxBits)
	case length < p.MinBits:
		return block, fault.Coded(fault.Invalid, "MinPrefixSubnetAllocationError", "Unable to allocate subnet with prefix length %d, minimum allowed prefix is %d.", length, p.MinBits)
	}
	// Allocations of a pool are put in order: the other's block is not seen before.
	tx.Mark(poolMark(p.ID))
	tx.Guard(poolMark(p.ID))
	if err := withinQuota(tx, p, project, length); err != nil {
		return block, err
	}
	if !block.IsValid() {
		got, ok := cutAny(tx, p, length)
		if !ok {
			return block, fault.Coded(fault.Conflict, "SubnetAllocationError", "Failed to allocate subnet: Insufficient prefix space to allocate subnet size /%d.", length)
		}
		return got, nil
	}
	free := covered(p.Prefixes, block)
	for s := range cut(tx, p.ID) {
		free = free && !s.CIDR.Overlaps(block)
	}
	if !free {
		return block, fault.Coded(fault.Conflict, "SubnetAllocationError", "Failed to allocate subnet: Cannot allocate requested subnet from the available set of prefixes.")
	}
	return block, nil
}

// withinQuota refuses what would exceed what the pool lets one project have.
func withinQuota(tx *store.Tx, p *model.SubnetPool, project model.ID, bits int) error {
	if p.Quota == nil {
		return nil
	}
	limit := small(uint64(*p.Quota))
	used := shift(32 - min(bits, 32))
	if p.IPVersion == 6 { // in /64s
		limit, used = number{hi: uint64(*p.Quota)}, shift(128-bits)
	}
	for s := range cut(tx, p.ID) {
		if s.ProjectID == project {
			used = used.add(blockSize(s.CIDR))
		}
	}
	if limit.less(used) {
		return fault.Coded(fault.OverQuota, "SubnetPoolQuotaExceeded", "Per-tenant subnet pool prefix quota exceeded.")
	}
	return nil
}

// poolOf finds the pool of a new subnet, nil for none, and checks what the request says of it.
func (n *Network) poolOf(tx *store.Tx, sc Scope, spec SubnetSpec) (*model.SubnetPool, error) {
	bad := func(format string, args ...any) error { return badRequest("subnets", format, args...) }
	id := spec.PoolID
	block := spec.CIDR.IsValid()
	switch {
	case block && spec.PrefixBits != nil:
		return nil, bad("cidr and prefixlen must not be supplied together.")
	case spec.DefaultPool && id != "":
		return nil, bad("subnetpool_id and use_default_subnetpool cannot both be specified.")
	case spec.DefaultPool && spec.IPVersion == 0:
		return nil, bad("ip_version must be specified in the absence of cidr and subnetpool_id.")
	case spec.DefaultPool:
		version := spec.IPVersion
		if p, ok := store.SubnetPools.Claimed(tx, defaultPoolClaim(version)); ok && sc.Sees(p.ProjectID, p.Sharing) {
			id = p.ID
		} else {
			return nil, bad("No default subnetpool found for IPv%d.", version)
		}
	case id == "" && !block:
		return nil, bad("a subnetpool must be specified in the absence of a cidr.")
	case id == "":
		return nil, nil
	}
	p, err := n.GetSubnetPool(tx, sc, id)
	if err != nil {
		return nil, err
	}
	switch {
	case spec.IPVersion != 0 && spec.IPVersion != p.IPVersion:
		return nil, bad("Cannot allocate IPv%d subnet from IPv%d subnet pool.", spec.IPVersion, p.IPVersion)
	case !block && spec.Pools != nil && len(*spec.Pools) > 0:
		return nil, bad("allocation_pools allowed only for specific subnet requests.")
	}
	return p, nil
}

func defaultPoolClaim(version int) string {
	if version == 6 {
		return "default,6"
	}
	return "default,4"
}

// samePool refuses a subnet that is of another pool than those of its version in the
// network; of another address scope, where its pool is in one.
func samePool(tx *store.Tx, network model.ID, from *model.SubnetPool, version int) error {
	pool, space := "", ""
	if from != nil {
		pool, space = from.ID, from.AddressScopeID
	}
	for s := range store.Subnets.List(tx, "network", network) {
		if s.IPVersion != version || s.PoolID == pool {
			continue
		}
		if space == "" {
			return fault.Coded(fault.Invalid, "NetworkSubnetPoolAffinityError", "Subnets hosted on the same network must be allocated from the same subnet pool.")
		}
		if o, ok := store.SubnetPools.Get(tx, s.PoolID); !ok || o.AddressScopeID != space {
			return fault.Coded(fault.Invalid, "NetworkAddressScopeAffinityError", "Subnets of the same address family hosted on the same network must all be allocated from the same address scope.")
		}
	}
	return nil
}

// AddressScopeOf gives the address scope of the network's subnets of the IP version, "" for none.
func AddressScopeOf(r store.Reader, network model.ID, version int) model.ID {
	for s := range store.Subnets.List(r, "network", network) {
		if s.IPVersion == version && s.PoolID != "" {
			if p, ok := store.SubnetPools.Get(r, s.PoolID); ok {
				return p.AddressScopeID
			}
		}
	}
	return ""
}
