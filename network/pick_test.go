package network

import (
	"fmt"
	"net/netip"
	"testing"

	"yakumo/model"
	"yakumo/store"
	"yakumo/store/storetest"
)

// BenchmarkPick is the choice of one address: by probes where there is room, and by the list
// of those in use where 250 of 253 are.
func BenchmarkPick(b *testing.B) {
	for name, tc := range map[string]struct {
		block string
		used  int
	}{"IPv4": {"10.0.0.0/16", 1000}, "IPv6": {"fd00::/64", 1000}, "IPv4 nearly full": {"10.0.0.0/24", 250}} {
		b.Run(name, func(b *testing.B) {
			s := storetest.New(b)
			block := netip.MustParsePrefix(tc.block)
			sub := &model.Subnet{Meta: model.Meta{ID: "s"}, NetworkID: "w", CIDR: block, Pools: defaultPools(block, hosts(block).Start)}
			if _, err := s.Update(b.Context(), func(tx *store.Tx) error { return store.Subnets.Put(tx, sub) }); err != nil {
				b.Fatal(err)
			}
			for at := 0; at < tc.used; at += 250 {
				if _, err := s.Update(b.Context(), func(tx *store.Tx) error {
					for i := at; i < at+250; i++ {
						p := &model.Port{Meta: model.Meta{ID: fmt.Sprint(i)}, NetworkID: "w", MAC: fmt.Sprint(i), FixedIPs: []model.FixedIP{{SubnetID: "s", Address: nth(sub.Pools, small(uint64(i)))}}}
						if err := store.Ports.Put(tx, p); err != nil {
							return err
						}
					}
					return nil
				}); err != nil {
					b.Fatal(err)
				}
			}
			// Nothing is written, so nothing is committed: what is measured is the choice.
			if _, err := s.Update(b.Context(), func(tx *store.Tx) error {
				for b.Loop() {
					if _, ok := pick(tx, sub, nil); !ok {
						b.Fatal("there is room")
					}
				}
				return nil
			}); err != nil {
				b.Fatal(err)
			}
		})
	}
}

// BenchmarkCut is the search for a free block in a pool that 1,000 subnets were cut from.
func BenchmarkCut(b *testing.B) {
	s := storetest.New(b)
	pool := &model.SubnetPool{Meta: model.Meta{ID: "p"}, IPVersion: 4, Prefixes: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}
	for at := 0; at < 1000; at += 250 {
		if _, err := s.Update(b.Context(), func(tx *store.Tx) error {
			for i := at; i < at+250; i++ {
				block, ok := cutAny(tx, pool, 24)
				if !ok {
					b.Fatal("there is room")
				}
				if err := store.Subnets.Put(tx, &model.Subnet{Meta: model.Meta{ID: fmt.Sprint(i)}, PoolID: "p", CIDR: block}); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			b.Fatal(err)
		}
	}
	snap := s.Snapshot()
	for b.Loop() {
		if block, ok := cutAny(snap, pool, 24); !ok || block != netip.MustParsePrefix("10.3.232.0/24") {
			b.Fatalf("%s, %v", block, ok)
		}
	}
}

// BenchmarkSees is the look at whether a project sees a network that is shared with 1,000 others.
func BenchmarkSees(b *testing.B) {
	w := &model.Network{Meta: model.Meta{ProjectID: "owner"}}
	for i := range 1000 {
		w.SharedWith = append(w.SharedWith, fmt.Sprintf("%032d", i))
	}
	sc := Scope{ProjectID: fmt.Sprintf("%032d", 700)}
	for b.Loop() {
		if !sc.SeesNetwork(w) {
			b.Fatal("it is shared")
		}
	}
}
