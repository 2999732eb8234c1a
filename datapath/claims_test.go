package datapath_test

import (
	"net/netip"
	"testing"
	"time"

	"pgregory.net/rapid"

	"yakumo/datapath"
	"yakumo/model"
)

func claimOf(n byte, seen int64) model.Claim {
	return model.Claim{Address: netip.AddrFrom4([4]byte{10, 0, 0, n}), MAC: "fa:16:3e:00:00:01", Seen: seen}
}

// The newest of each address is told in the end, whatever the guest says; until then no more often than the bound; and no more once
// the rows say so.
func TestClaims(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c, now := datapath.Claims{}, time.Unix(1000, 0)
		start := now
		newest := map[netip.Addr]model.Claim{}
		changes := map[model.Claim]bool{}
		told := 0
		take := func() bool {
			list, more := c.Told("p", nil, now)
			fresh := map[model.Claim]bool{}
			for _, x := range list {
				if newest[x.Address] != x {
					t.Fatalf("tells %v, the newest is %v", x, newest[x.Address])
				}
				if fresh[x] = true; !changes[x] {
					told++
				}
			}
			changes = fresh
			if limit := datapath.ClaimBurst + int(now.Sub(start)/datapath.ClaimEach); told > limit {
				t.Fatalf("%d changes told after %v", told, now.Sub(start))
			}
			return more
		}
		for range rapid.IntRange(1, 100).Draw(t, "steps") {
			x := claimOf(byte(rapid.IntRange(1, 5).Draw(t, "address")), int64(rapid.IntRange(0, 3).Draw(t, "seen")))
			newest[x.Address] = x
			c.Hear("p", x, now)
			now = now.Add(time.Duration(rapid.IntRange(0, 300).Draw(t, "ms")) * time.Millisecond)
			if rapid.Bool().Draw(t, "reported") {
				take()
			}
		}
		for range len(newest) + 1 {
			now = now.Add(datapath.ClaimEach)
			take()
		}
		list, more := c.Told("p", nil, now)
		if more || len(list) != len(newest) {
			t.Fatalf("%d of %d are told in the end, more %v", len(list), len(newest), more)
		}
		var held []model.Held
		for _, x := range newest {
			held = append(held, model.Held{Address: x.Address, MAC: x.MAC, Turn: x.Seen + 1})
		}
		if list, _ := c.Told("p", held, now); len(list) != 0 {
			t.Fatalf("what the rows say is told again: %v", list)
		}
	})
}

// What nobody takes is not claimed for ever, a guest cannot claim without bound, and nothing is kept of one that says nothing more.
func TestClaimsEnd(t *testing.T) {
	c, now := datapath.Claims{}, time.Unix(1000, 0)
	for n := range 200 {
		c.Hear("p", claimOf(byte(n), 0), now)
	}
	now = now.Add(datapath.MaxClaims * datapath.ClaimEach)
	if list, more := c.Told("p", nil, now); len(list) != datapath.ClaimBurst || !more {
		t.Fatalf("%d told, more %v", len(list), more)
	}
	for range datapath.MaxClaims {
		now = now.Add(datapath.ClaimEach)
		c.Told("p", nil, now)
	}
	if list, more := c.Told("p", nil, now); len(list) != datapath.MaxClaims || more {
		t.Fatalf("%d told, more %v", len(list), more)
	}
	now = now.Add(datapath.ClaimLife + time.Second)
	if list, _ := c.Told("p", nil, now); len(list) != 0 || len(c) != 0 {
		t.Fatalf("%d told, %d ports kept", len(list), len(c))
	}
	c.Hear("p", claimOf(1, 0), now)
	if c.Forget("p"); len(c) != 0 {
		t.Error("a port that is gone is kept")
	}
}
