package network_test

import (
	"net/netip"
	"testing"

	"pgregory.net/rapid"

	"yakumo/fault"
	"yakumo/model"
	"yakumo/network"
	"yakumo/store"
	"yakumo/store/storetest"
)

// TestPoolAllocation: whatever is cut from a pool and given back, no two subnets overlap, each
// is of the pool, and a cut is refused if and only if there is no room for it.
func TestPoolAllocation(t *testing.T) {
	s, n := storetest.New(t), unlimited()
	ctx := t.Context()
	for _, block := range []netip.Prefix{prefix("10.0.0.0/24"), prefix("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ff00/120")} {
		// The last block of IPv6 is multicast, so it is never a subnet; the arithmetic is the point.
		if block.Addr().Is6() {
			block = prefix("fd00::ff00/120")
		}
		base, top := block.Bits(), block.Addr().BitLen()
		rapid.Check(t, func(rt *rapid.T) {
			var prefixes []netip.Prefix
			for range rapid.IntRange(1, 3).Draw(rt, "prefixes") {
				b := block.Addr().As16()
				b[15] = rapid.Byte().Draw(rt, "at")
				a := netip.AddrFrom16(b)
				if block.Addr().Is4() {
					a = a.Unmap()
				}
				prefixes = append(prefixes, netip.PrefixFrom(a, rapid.IntRange(base, base+4).Draw(rt, "bits")).Masked())
			}
			pool, err := act(ctx, s, func(tx *store.Tx) (*model.SubnetPool, error) {
				return n.CreateSubnetPool(tx, owner, network.SubnetPoolSpec{Prefixes: &prefixes, MinBits: ptr(base)})
			})
			if err != nil {
				rt.Fatal(err)
			}
			inside := func(p netip.Prefix) bool {
				for _, x := range pool.Prefixes {
					if x.Bits() <= p.Bits() && x.Contains(p.Addr()) {
						return true
					}
				}
				return false
			}
			held := map[string]netip.Prefix{}
			free := func(p netip.Prefix) bool {
				for _, h := range held {
					if h.Overlaps(p) {
						return false
					}
				}
				return inside(p)
			}
			room := func(bits int) bool {
				for p := netip.PrefixFrom(block.Addr(), bits); block.Contains(p.Addr()); {
					if free(p) {
						return true
					}
					b := p.Addr().As16()
					next := int(b[15]) + 1<<(top-bits)
					if next > 255 {
						break
					}
					b[15] = byte(next)
					a := netip.AddrFrom16(b)
					if block.Addr().Is4() {
						a = a.Unmap()
					}
					p = netip.PrefixFrom(a, bits)
				}
				return false
			}
			for range rapid.IntRange(1, 24).Draw(rt, "steps") {
				if rapid.IntRange(0, 3).Draw(rt, "step") == 0 {
					for id := range held {
						if _, err := s.Update(ctx, func(tx *store.Tx) error { return n.DeleteSubnet(tx, owner, id) }); err != nil {
							rt.Fatal(err)
						}
						delete(held, id)
						break
					}
					continue
				}
				w := makeNetwork(t, s, n)
				spec := network.SubnetSpec{NetworkID: w.ID, PoolID: pool.ID, PrefixBits: ptr(rapid.IntRange(base, top).Draw(rt, "length"))}
				want := room(*spec.PrefixBits)
				if rapid.Bool().Draw(rt, "this block") {
					b := block.Addr().As16()
					b[15] = rapid.Byte().Draw(rt, "block")
					a := netip.AddrFrom16(b)
					if block.Addr().Is4() {
						a = a.Unmap()
					}
					spec.CIDR, spec.PrefixBits = netip.PrefixFrom(a, *spec.PrefixBits).Masked(), nil
					want = free(spec.CIDR)
				}
				sub, err := act(ctx, s, func(tx *store.Tx) (*model.Subnet, error) { return n.CreateSubnet(tx, owner, spec) })
				if (err == nil) != want {
					rt.Fatalf("%v of %v with %v: %v, room: %v", spec.CIDR, pool.Prefixes, held, err, want)
				}
				if err != nil {
					wantCode(t, err, fault.Conflict, "SubnetAllocationError")
					continue
				}
				if !free(sub.CIDR) || sub.PoolID != pool.ID {
					rt.Fatalf("%s of %v with %v", sub.CIDR, pool.Prefixes, held)
				}
				held[sub.ID] = sub.CIDR
			}
		})
	}
}

// TestPoolRace: subnets that are cut at the same time by two servers do not overlap, and the
// pool's quota and a scope's prefixes hold.
func TestPoolRace(t *testing.T) {
	cl, pre := storetest.Client(t)
	servers := []*store.Store{storetest.Open(t, cl, pre), storetest.Open(t, cl, pre)}
	n := unlimited()
	w := makeNetwork(t, servers[0], n)
	pool, err := act(t.Context(), servers[0], func(tx *store.Tx) (*model.SubnetPool, error) {
		return n.CreateSubnetPool(tx, owner, network.SubnetPoolSpec{Prefixes: &[]netip.Prefix{prefix("10.0.0.0/24")}, DefaultBits: ptr(28), Quota: ptr(ptr(8 * 16))})
	})
	if err != nil {
		t.Fatal(err)
	}
	scope, err := act(t.Context(), servers[0], func(tx *store.Tx) (*model.AddressScope, error) {
		return n.CreateAddressScope(tx, owner, network.AddressScopeSpec{IPVersion: 4})
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := servers[1].Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	made, _ := race(t, 12, func(i int) error {
		_, err := act(t.Context(), servers[i%2], func(tx *store.Tx) (*model.Subnet, error) {
			return n.CreateSubnet(tx, owner, network.SubnetSpec{NetworkID: w.ID, PoolID: pool.ID})
		})
		return err
	})
	if made != 8 {
		t.Errorf("%d of 8 subnets that the quota allows", made)
	}
	var blocks []netip.Prefix
	for x := range store.Subnets.List(servers[0].Snapshot(), "network", w.ID) {
		for _, o := range blocks {
			if o.Overlaps(x.CIDR) {
				t.Errorf("%s overlaps with %s", x.CIDR, o)
			}
		}
		blocks = append(blocks, x.CIDR)
	}
	made, _ = race(t, 6, func(i int) error {
		_, err := act(t.Context(), servers[i%2], func(tx *store.Tx) (*model.SubnetPool, error) {
			return n.CreateSubnetPool(tx, owner, network.SubnetPoolSpec{Prefixes: &[]netip.Prefix{netip.PrefixFrom(addr("10.0.0.0"), 16+i)}, ScopeID: &scope.ID})
		})
		return err
	})
	if made != 1 {
		t.Errorf("%d pools with the same addresses in one scope", made)
	}
}
