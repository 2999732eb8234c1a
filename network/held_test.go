package network_test

import (
	"fmt"
	"slices"
	"testing"

	"net/netip"

	"pgregory.net/rapid"

	"yakumo/model"
	"yakumo/network"
	"yakumo/store"
	"yakumo/store/storetest"
)

func paired(addrs ...string) *[]model.AddressPair {
	var out []model.AddressPair
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a); err == nil {
			out = append(out, model.AddressPair{Prefix: p})
		} else {
			out = append(out, model.AddressPair{Prefix: netip.PrefixFrom(addr(a), 32)})
		}
	}
	return &out
}

// claim has a port's guest say that it holds an address at the port's MAC, and gives the port then.
func claim(t *testing.T, s *store.Store, n *network.Network, p *model.Port, host, a string, seen int64) *model.Port {
	t.Helper()
	return must(t, s, func(tx *store.Tx) (*model.Port, error) {
		err := n.HoldAddresses(tx, p.ID, host, []model.Claim{{Address: addr(a), MAC: p.MAC, Seen: seen}})
		now, _ := store.Ports.Get(tx, p.ID)
		return now, err
	})
}

func TestHoldAddresses(t *testing.T) {
	s, n := storetest.New(t), unlimited()
	w := makeNetwork(t, s, n)
	makeSubnet(t, s, n, w, network.SubnetSpec{CIDR: netip.MustParsePrefix("10.20.0.0/24")})
	port := func(ip, host string, pairs ...string) *model.Port {
		p := must(t, s, func(tx *store.Tx) (*model.Port, error) {
			return n.CreatePort(tx, owner, network.PortSpec{NetworkID: w.ID, FixedIPs: &[]network.AddressSpec{{Address: addr(ip)}}, Pairs: paired(pairs...)})
		})
		if host != "" {
			must(t, s, func(tx *store.Tx) (*model.Port, error) { return n.BindPort(tx, p.ID, host) })
		}
		return p
	}
	const vip = "10.20.0.100"
	a, b, wide := port("10.20.0.5", "h1", vip), port("10.20.0.6", "h2", vip), port("10.20.0.7", "h1", "10.20.0.0/24")
	keeper := port(vip, "") // as users keep the address: a port that is nowhere
	plain := port("10.20.0.8", "h1")

	// Who is not allowed, or not there, holds nothing.
	for _, c := range []struct {
		what    string
		p       *model.Port
		host, a string
	}{
		{"no pair", plain, "h1", vip}, {"another host", a, "h2", vip}, {"an address that is in no pair", a, "h1", "10.20.0.101"},
		{"its own address", wide, "h1", "10.20.0.7"}, {"another port's address", wide, "h1", "10.20.0.5"}, {"the port that is nowhere", keeper, "", vip},
	} {
		if got := claim(t, s, n, c.p, c.host, c.a, 0); len(got.Held) != 0 {
			t.Errorf("%s: holds %v", c.what, got.Held)
		}
	}
	forged := must(t, s, func(tx *store.Tx) (*model.Port, error) {
		err := n.HoldAddresses(tx, a.ID, "h1", []model.Claim{{Address: addr(vip), MAC: b.MAC}})
		now, _ := store.Ports.Get(tx, a.ID)
		return now, err
	})
	if len(forged.Held) != 0 {
		t.Errorf("at another's MAC: holds %v", forged.Held)
	}

	// The newest claim wins, whenever it comes.
	got := claim(t, s, n, a, "h1", vip, 0)
	if len(got.Held) != 1 || got.Held[0].Address != addr(vip) || got.Held[0].MAC != a.MAC || got.Status != mustPort(t, s, a).Status {
		t.Fatalf("holds %v", got.Held)
	}
	first := got.Held[0].Turn
	if again := claim(t, s, n, a, "h1", vip, 0); !slices.Equal(again.Held, got.Held) {
		t.Errorf("said twice: %v", again.Held)
	}
	if late := claim(t, s, n, b, "h2", vip, first-1); len(late.Held) != 0 {
		t.Errorf("an old claim is taken: %v", late.Held)
	}
	if got = claim(t, s, n, b, "h2", vip, first); len(got.Held) != 1 || got.Held[0].Turn <= first || len(mustPort(t, s, a).Held) != 0 {
		t.Fatalf("after a fail-over: %v, and the first holds %v", got.Held, mustPort(t, s, a).Held)
	}
	if old := claim(t, s, n, a, "h1", vip, 0); len(old.Held) != 0 { // what its host said before, again, with a new stream
		t.Errorf("an old claim is taken: %v", old.Held)
	}

	// It stays with the port where that moves, and goes with the pair, with the host, and with the port.
	must(t, s, func(tx *store.Tx) (*model.Port, error) { return n.BindPort(tx, b.ID, "h3") })
	if len(mustPort(t, s, b).Held) != 1 {
		t.Error("a port that has moved holds nothing")
	}
	must(t, s, func(tx *store.Tx) (*model.Port, error) {
		return n.UpdatePort(tx, owner, b.ID, network.PortSpec{Pairs: paired()})
	})
	if held := mustPort(t, s, b).Held; len(held) != 0 {
		t.Errorf("without its pair it holds %v", held)
	}
	claim(t, s, n, a, "h1", vip, 0)
	must(t, s, func(tx *store.Tx) (*model.Port, error) { return n.BindPort(tx, a.ID, "") })
	if held := mustPort(t, s, a).Held; len(held) != 0 {
		t.Errorf("without a host it holds %v", held)
	}
	if got := claim(t, s, n, wide, "h1", vip, 0); len(got.Held) != 1 {
		t.Errorf("by a pair that is a block: %v", got.Held)
	}
}

func mustPort(t *testing.T, s *store.Store, p *model.Port) *model.Port {
	t.Helper()
	return must(t, s, func(tx *store.Tx) (*model.Port, error) {
		now, ok := store.Ports.Get(tx, p.ID)
		if !ok {
			return nil, fmt.Errorf("port %s is gone", p.ID)
		}
		return now, nil
	})
}

// Whatever hosts claim, and however often and late, an address has at most one holder, which its pairs allow, and turns only grow.
func TestHoldersAreOne(t *testing.T) {
	s, n := storetest.New(t), unlimited()
	rapid.Check(t, func(rt *rapid.T) {
		w := makeNetwork(t, s, n)
		makeSubnet(t, s, n, w, network.SubnetSpec{CIDR: netip.MustParsePrefix("10.20.0.0/24")})
		vips := []string{"10.20.0.100", "10.20.0.101"}
		var ports []*model.Port
		for i := range 3 {
			p := must(t, s, func(tx *store.Tx) (*model.Port, error) {
				return n.CreatePort(tx, owner, network.PortSpec{NetworkID: w.ID, Pairs: paired(vips[:1+i%2]...)})
			})
			ports = append(ports, must(t, s, func(tx *store.Tx) (*model.Port, error) { return n.BindPort(tx, p.ID, fmt.Sprint("h", i)) }))
		}
		turns := map[string]int64{}
		for range rapid.IntRange(1, 20).Draw(rt, "claims") {
			i := rapid.IntRange(0, 2).Draw(rt, "port")
			a := rapid.SampledFrom(vips).Draw(rt, "address")
			claim(t, s, n, ports[i], fmt.Sprint("h", i), a, rapid.SampledFrom([]int64{0, turns[a], turns[a] - 1}).Draw(rt, "seen"))
			for _, a := range vips {
				var holders []string
				for j, p := range ports {
					for _, h := range mustPort(t, s, p).Held {
						if h.Address != addr(a) {
							continue
						}
						holders = append(holders, fmt.Sprint(j))
						if h.Turn < turns[a] || !p.Allows(h.Address, h.MAC) {
							rt.Fatalf("port %d holds %v, after turn %d", j, h, turns[a])
						}
						turns[a] = h.Turn
					}
				}
				if len(holders) > 1 {
					rt.Fatalf("%s is held by %v", a, holders)
				}
			}
		}
	})
}
