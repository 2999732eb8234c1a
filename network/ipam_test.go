package network_test

import (
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"yakumo/fault"
	"yakumo/model"
	"yakumo/network"
	"yakumo/store"
	"yakumo/store/storetest"
)

// TestAddresses: whatever is created and deleted in whatever order, no address has two
// holders, a picked one lies in a pool, an asked one is given if and only if it may be,
// and the pools are used up exactly.
func TestAddresses(t *testing.T) {
	s, n := storetest.New(t), unlimited()
	ctx := t.Context()
	rapid.Check(t, func(rt *rapid.T) {
		w := makeNetwork(t, s, n)
		bits := rapid.IntRange(26, 30).Draw(rt, "bits")
		block := netip.PrefixFrom(addr("10.20.0.0"), bits)
		first, count := addr("10.20.0.0"), 1<<(32-bits)
		at := func(i int) netip.Addr {
			a := first
			for range i {
				a = a.Next()
			}
			return a
		}
		spec := network.SubnetSpec{CIDR: block}
		gateway := rapid.IntRange(0, count-2).Draw(rt, "gateway") // 0: none
		spec.Gateway = ptr(netip.Addr{})
		if gateway > 0 {
			spec.Gateway = ptr(at(gateway))
		}
		inPool := map[netip.Addr]bool{}
		if rapid.Bool().Draw(rt, "pools given") {
			lo := rapid.IntRange(1, count-2).Draw(rt, "lo")
			hi := rapid.IntRange(lo, count-2).Draw(rt, "hi")
			if gateway >= lo && gateway <= hi {
				hi = gateway - 1
			}
			if hi >= lo {
				spec.Pools = &[]model.AddrRange{{Start: at(lo), End: at(hi)}}
			}
		}
		sub := makeSubnet(t, s, n, w, spec)
		for _, p := range sub.Pools {
			for a := p.Start; !p.End.Less(a); a = a.Next() {
				inPool[a] = true
			}
		}
		held := map[netip.Addr]string{} // by the port
		for range rapid.IntRange(1, 2*count).Draw(rt, "steps") {
			switch rapid.IntRange(0, 3).Draw(rt, "step") {
			case 0, 1: // any address
				p, err := act(ctx, s, func(tx *store.Tx) (*model.Port, error) {
					return n.CreatePort(tx, owner, network.PortSpec{NetworkID: w.ID})
				})
				left := 0
				for a := range inPool {
					if held[a] == "" {
						left++
					}
				}
				if (err == nil) != (left > 0) {
					rt.Fatalf("%d addresses left: %v", left, err)
				}
				if err != nil {
					if fault.CodeOf(err) != "IpAddressGenerationFailure" || !fault.Is(err, fault.Conflict) {
						rt.Fatalf("exhausted: %v", err)
					}
					continue
				}
				a := p.FixedIPs[0].Address
				if !inPool[a] || held[a] != "" {
					rt.Fatalf("picked %s: in a pool: %v, held by %q", a, inPool[a], held[a])
				}
				held[a] = p.ID
			case 2: // this address
				i := rapid.IntRange(0, count-1).Draw(rt, "address")
				a := at(i)
				p, err := act(ctx, s, func(tx *store.Tx) (*model.Port, error) {
					return n.CreatePort(tx, owner, network.PortSpec{NetworkID: w.ID, FixedIPs: &[]network.AddressSpec{{Address: a}}})
				})
				switch want := ""; {
				case i == 0 || i == count-1 || gateway > 0 && i == gateway:
					if want = "InvalidIpForSubnet"; fault.CodeOf(err) != want {
						rt.Fatalf("%s: %v, want %s", a, err, want)
					}
				case held[a] != "":
					if want = "IpAddressAlreadyAllocated"; fault.CodeOf(err) != want {
						rt.Fatalf("%s: %v, want %s", a, err, want)
					}
				case err != nil:
					rt.Fatalf("%s is free: %v", a, err)
				default:
					held[a] = p.ID
				}
			case 3:
				for a, id := range held {
					if _, err := s.Update(ctx, func(tx *store.Tx) error { return n.DeletePort(tx, owner, id) }); err != nil {
						rt.Fatal(err)
					}
					delete(held, a)
					break
				}
			}
		}
		snap := s.Snapshot()
		for a, id := range held {
			if holder, _ := store.Ports.Holder(snap, store.PortAddressClaim(sub.ID, a.String())); holder != id {
				rt.Fatalf("%s is claimed by %q, held by %s", a, holder, id)
			}
		}
		if got := store.Ports.Count(snap, "network", w.ID); got != len(held) {
			rt.Fatalf("%d ports, want %d", got, len(held))
		}
	})
}

// TestLastAddress: of a pool of three of which one was asked for, two are picked, then none; one that is free again is picked.
func TestLastAddress(t *testing.T) {
	s, n := storetest.New(t), unlimited()
	w := makeNetwork(t, s, n)
	sub := makeSubnet(t, s, n, w, network.SubnetSpec{CIDR: netip.MustParsePrefix("10.20.0.0/26"), Pools: &[]model.AddrRange{{Start: addr("10.20.0.27"), End: addr("10.20.0.29")}}})
	create := func(asked ...network.AddressSpec) (*model.Port, error) {
		return act(t.Context(), s, func(tx *store.Tx) (*model.Port, error) {
			spec := network.PortSpec{NetworkID: w.ID}
			if len(asked) > 0 {
				spec.FixedIPs = &asked
			}
			return n.CreatePort(tx, owner, spec)
		})
	}
	middle, err := create(network.AddressSpec{Address: addr("10.20.0.28")})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := create(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := create(); fault.CodeOf(err) != "IpAddressGenerationFailure" {
		t.Fatalf("a fourth of three: %v", err)
	}
	if _, err := s.Update(t.Context(), func(tx *store.Tx) error { return n.DeletePort(tx, owner, middle.ID) }); err != nil {
		t.Fatal(err)
	}
	if p, err := create(); err != nil || p.FixedIPs[0].Address != addr("10.20.0.28") || p.FixedIPs[0].SubnetID != sub.ID {
		t.Errorf("the one that is free: %+v, %v", p, err)
	}
}

// TestTwoServersOneSubnet: two servers fill a /28 at once; thirteen ports get the
// thirteen addresses and the others are refused.
func TestTwoServersOneSubnet(t *testing.T) {
	cl, pre := storetest.Client(t)
	servers := []*store.Store{storetest.Open(t, cl, pre), storetest.Open(t, cl, pre)}
	n := unlimited()
	w := makeNetwork(t, servers[0], n)
	sub := makeSubnet(t, servers[0], n, w, network.SubnetSpec{CIDR: prefix("10.0.0.0/28")})
	if err := servers[1].Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	made, refused := race(t, 20, func(i int) error {
		_, err := act(t.Context(), servers[i%2], func(tx *store.Tx) (*model.Port, error) {
			return n.CreatePort(tx, owner, network.PortSpec{NetworkID: w.ID})
		})
		if err != nil && fault.CodeOf(err) != "IpAddressGenerationFailure" {
			t.Errorf("%v", err)
		}
		return err
	})
	if made != 13 || refused != 7 {
		t.Errorf("%d made, %d refused, want 13 and 7", made, refused)
	}
	if err := servers[0].Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	seen := map[netip.Addr]bool{}
	for p := range store.Ports.List(servers[0].Snapshot(), "subnet", sub.ID) {
		a := p.FixedIPs[0].Address
		if seen[a] || !sub.Pools[0].Contains(a) {
			t.Errorf("%s twice or outside %v", a, sub.Pools)
		}
		seen[a] = true
	}
	groups := 0
	for range store.SecurityGroups.List(servers[0].Snapshot(), "project", project) {
		groups++
	}
	if groups != 1 {
		t.Errorf("%d default groups came of the race", groups)
	}
}

// TestDeleteRacesCreate: while one server deletes a network, a subnet or a group, another
// puts a port on it; afterwards no port refers to what is gone.
func TestDeleteRacesCreate(t *testing.T) {
	cl, pre := storetest.Client(t)
	a, b := storetest.Open(t, cl, pre), storetest.Open(t, cl, pre)
	n := unlimited()
	for round := range 36 {
		w := makeNetwork(t, a, n)
		sub := makeSubnet(t, a, n, w, network.SubnetSpec{CIDR: prefix("10.0.0.0/24")})
		g := must(t, a, func(tx *store.Tx) (*model.SecurityGroup, error) { return n.CreateGroup(tx, owner, network.GroupSpec{}) })
		if err := b.Sync(t.Context()); err != nil {
			t.Fatal(err)
		}
		// In every other round the port has no subnet, whose own guard would protect the network too.
		want := []network.AddressSpec{{SubnetID: sub.ID}}
		if round%2 == 1 {
			if _, err := b.Update(t.Context(), func(tx *store.Tx) error { return n.DeleteSubnet(tx, owner, sub.ID) }); err != nil {
				t.Fatal(err)
			}
			if err := a.Sync(t.Context()); err != nil {
				t.Fatal(err)
			}
			want = []network.AddressSpec{}
		}
		var wg sync.WaitGroup
		for range 2 {
			wg.Go(func() {
				if _, err := b.Update(t.Context(), func(tx *store.Tx) error {
					_, err := n.CreatePort(tx, owner, network.PortSpec{NetworkID: w.ID, Groups: &[]string{g.ID}, FixedIPs: &want})
					return err
				}); err != nil && !fault.Is(err, fault.NotFound) && !fault.Is(err, fault.Invalid) {
					t.Errorf("create: %v", err)
				}
			})
		}
		wg.Go(func() {
			if _, err := a.Update(t.Context(), func(tx *store.Tx) error {
				switch round % 3 {
				case 0:
					return n.DeleteNetwork(tx, owner, w.ID)
				case 1:
					return n.DeleteSubnet(tx, owner, sub.ID)
				}
				return n.DeleteGroup(tx, owner, g.ID)
			}); err != nil && !fault.Is(err, fault.Conflict) && !fault.Is(err, fault.NotFound) {
				t.Errorf("delete: %v", err)
			}
		})
		wg.Wait()
		if err := a.Sync(t.Context()); err != nil {
			t.Fatal(err)
		}
		snap := a.Snapshot()
		for p := range store.Ports.All(snap) {
			if _, ok := store.Networks.Get(snap, p.NetworkID); !ok {
				t.Fatalf("round %d: a port on a network that is gone", round)
			}
			for _, f := range p.FixedIPs {
				if _, ok := store.Subnets.Get(snap, f.SubnetID); !ok {
					t.Fatalf("round %d: a port of a subnet that is gone", round)
				}
			}
			for _, id := range p.Groups {
				if _, ok := store.SecurityGroups.Get(snap, id); !ok {
					t.Fatalf("round %d: a port in a group that is gone", round)
				}
			}
		}
	}
}

func TestOverlapRace(t *testing.T) {
	cl, pre := storetest.Client(t)
	servers := []*store.Store{storetest.Open(t, cl, pre), storetest.Open(t, cl, pre)}
	n := unlimited()
	w := makeNetwork(t, servers[0], n)
	if err := servers[1].Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	made, _ := race(t, 8, func(i int) error {
		_, err := act(t.Context(), servers[i%2], func(tx *store.Tx) (*model.Subnet, error) {
			return n.CreateSubnet(tx, owner, network.SubnetSpec{NetworkID: w.ID, IPVersion: 4, CIDR: netip.PrefixFrom(addr("10.0.0.0"), 20+i)})
		})
		if err != nil && !fault.Is(err, fault.Invalid) {
			t.Errorf("%v", err)
		}
		return err
	})
	if made != 1 {
		t.Errorf("%d subnets that overlap", made)
	}
}

func TestSubnetRules(t *testing.T) {
	s, n := storetest.New(t), unlimited()
	r := func(a, b string) model.AddrRange { return model.AddrRange{Start: addr(a), End: addr(b)} }
	for name, tc := range map[string]struct {
		spec network.SubnetSpec
		kind fault.Kind
		code string // "": it is made
		want []model.AddrRange
	}{
		"plain":            {spec: network.SubnetSpec{CIDR: prefix("10.0.0.0/24")}, want: []model.AddrRange{r("10.0.0.2", "10.0.0.254")}},
		"gateway inside":   {spec: network.SubnetSpec{CIDR: prefix("10.0.0.0/28"), Gateway: ptr(addr("10.0.0.7"))}, want: []model.AddrRange{r("10.0.0.1", "10.0.0.6"), r("10.0.0.8", "10.0.0.14")}},
		"gateway last":     {spec: network.SubnetSpec{CIDR: prefix("10.0.0.0/28"), Gateway: ptr(addr("10.0.0.14"))}, want: []model.AddrRange{r("10.0.0.1", "10.0.0.13")}},
		"no gateway":       {spec: network.SubnetSpec{CIDR: prefix("10.0.0.0/28"), Gateway: &netip.Addr{}}, want: []model.AddrRange{r("10.0.0.1", "10.0.0.14")}},
		"point to point":   {spec: network.SubnetSpec{CIDR: prefix("10.0.0.0/31")}, want: []model.AddrRange{r("10.0.0.0", "10.0.0.1")}},
		"one":              {spec: network.SubnetSpec{CIDR: prefix("10.0.0.5/32")}, want: []model.AddrRange{r("10.0.0.5", "10.0.0.5")}},
		"large":            {spec: network.SubnetSpec{CIDR: prefix("10.0.0.0/8")}, want: []model.AddrRange{r("10.0.0.2", "10.255.255.254")}},
		"pools sorted":     {spec: network.SubnetSpec{CIDR: prefix("10.0.0.0/24"), Pools: &[]model.AddrRange{r("10.0.0.100", "10.0.0.110"), r("10.0.0.10", "10.0.0.20")}}, want: []model.AddrRange{r("10.0.0.10", "10.0.0.20"), r("10.0.0.100", "10.0.0.110")}},
		"pools overlap":    {spec: network.SubnetSpec{CIDR: prefix("10.0.0.0/24"), Pools: &[]model.AddrRange{r("10.0.0.10", "10.0.0.20"), r("10.0.0.20", "10.0.0.30")}}, kind: fault.Conflict, code: "OverlappingAllocationPools"},
		"pool outside":     {spec: network.SubnetSpec{CIDR: prefix("10.0.0.0/24"), Pools: &[]model.AddrRange{r("10.0.0.10", "10.0.1.1")}}, kind: fault.Invalid, code: "OutOfBoundsAllocationPool"},
		"pool broadcast":   {spec: network.SubnetSpec{CIDR: prefix("10.0.0.0/24"), Pools: &[]model.AddrRange{r("10.0.0.10", "10.0.0.255")}}, kind: fault.Invalid, code: "OutOfBoundsAllocationPool"},
		"pool backwards":   {spec: network.SubnetSpec{CIDR: prefix("10.0.0.0/24"), Pools: &[]model.AddrRange{r("10.0.0.20", "10.0.0.10")}}, kind: fault.Invalid, code: "InvalidAllocationPool"},
		"pool on gateway":  {spec: network.SubnetSpec{CIDR: prefix("10.0.0.0/24"), Pools: &[]model.AddrRange{r("10.0.0.1", "10.0.0.10")}}, kind: fault.Conflict, code: "GatewayConflictWithAllocationPools"},
		"pool of v6":       {spec: network.SubnetSpec{CIDR: prefix("10.0.0.0/24"), Pools: &[]model.AddrRange{r("fd00::1", "fd00::2")}}, kind: fault.Invalid, code: "InvalidAllocationPool"},
		"gateway outside":  {spec: network.SubnetSpec{CIDR: prefix("10.0.0.0/24"), Gateway: ptr(addr("10.0.1.1"))}, kind: fault.Invalid, code: "InvalidInput"},
		"gateway network":  {spec: network.SubnetSpec{CIDR: prefix("10.0.0.0/24"), Gateway: ptr(addr("10.0.0.0"))}, kind: fault.Invalid, code: "InvalidInput"},
		"gateway v6":       {spec: network.SubnetSpec{CIDR: prefix("10.0.0.0/24"), Gateway: ptr(addr("fd00::1"))}, kind: fault.Invalid, code: "InvalidInput"},
		"host bits":        {spec: network.SubnetSpec{CIDR: prefix("10.0.0.1/24")}, kind: fault.Invalid, code: "HTTPBadRequest"},
		"everything":       {spec: network.SubnetSpec{CIDR: prefix("0.0.0.0/0")}, kind: fault.Invalid, code: "InvalidInput"},
		"multicast":        {spec: network.SubnetSpec{CIDR: prefix("224.1.0.0/24")}, kind: fault.Invalid, code: "InvalidInput"},
		"loopback":         {spec: network.SubnetSpec{CIDR: prefix("127.0.0.0/24")}, kind: fault.Invalid, code: "InvalidInput"},
		"this network":     {spec: network.SubnetSpec{CIDR: prefix("0.1.0.0/24")}, kind: fault.Invalid, code: "InvalidInput"},
		"v6 in v4's place": {spec: network.SubnetSpec{CIDR: prefix("fd00::/64")}, kind: fault.Invalid, code: "InvalidInput"},
		"six name servers": {spec: network.SubnetSpec{CIDR: prefix("10.0.0.0/24"), DNS: ptr(slices.Repeat([]netip.Addr{addr("9.9.9.9")}, 6))}, kind: fault.Invalid, code: "DNSNameServersExhausted"},
		"same name server": {spec: network.SubnetSpec{CIDR: prefix("10.0.0.0/24"), DNS: ptr(slices.Repeat([]netip.Addr{addr("9.9.9.9")}, 2))}, kind: fault.Invalid, code: "InvalidInput"},
		"route host bits":  {spec: network.SubnetSpec{CIDR: prefix("10.0.0.0/24"), HostRoutes: &[]model.Route{{Destination: prefix("10.1.0.1/24"), NextHop: addr("10.0.0.9")}}}, kind: fault.Invalid, code: "InvalidInput"},
		"21 routes":        {spec: network.SubnetSpec{CIDR: prefix("10.0.0.0/24"), HostRoutes: ptr(make([]model.Route, 21))}, kind: fault.Invalid, code: "HostRoutesExhausted"},
	} {
		t.Run(name, func(t *testing.T) {
			w := makeNetwork(t, s, n)
			tc.spec.NetworkID, tc.spec.IPVersion = w.ID, 4
			sub, err := act(t.Context(), s, func(tx *store.Tx) (*model.Subnet, error) { return n.CreateSubnet(tx, owner, tc.spec) })
			if tc.code != "" {
				wantCode(t, err, tc.kind, tc.code)
				if got := store.Subnets.Count(s.Snapshot(), "network", w.ID); got != 0 {
					t.Errorf("the refused subnet is there")
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(sub.Pools, tc.want) {
				t.Errorf("pools %v, want %v", sub.Pools, tc.want)
			}
		})
	}
	w := makeNetwork(t, s, n)
	makeSubnet(t, s, n, w, network.SubnetSpec{CIDR: prefix("10.0.0.0/16")})
	for _, cidr := range []string{"10.0.0.0/16", "10.0.5.0/24", "10.0.0.0/8"} {
		_, err := act(t.Context(), s, func(tx *store.Tx) (*model.Subnet, error) {
			return n.CreateSubnet(tx, owner, network.SubnetSpec{NetworkID: w.ID, IPVersion: 4, CIDR: prefix(cidr)})
		})
		wantCode(t, err, fault.Invalid, "InvalidInput")
	}
}

func TestPortAddressesChange(t *testing.T) {
	s, n := storetest.New(t), unlimited()
	w := makeNetwork(t, s, n)
	one := makeSubnet(t, s, n, w, network.SubnetSpec{CIDR: prefix("10.0.0.0/24")})
	two := makeSubnet(t, s, n, w, network.SubnetSpec{CIDR: prefix("10.0.1.0/24")})
	p := makePort(t, s, n, w)
	if len(p.FixedIPs) != 1 || p.FixedIPs[0].SubnetID != one.ID {
		t.Fatalf("without a wish: %v, want one address of the first subnet", p.FixedIPs)
	}
	first := p.FixedIPs[0]
	update := func(want ...network.AddressSpec) (*model.Port, error) {
		return act(t.Context(), s, func(tx *store.Tx) (*model.Port, error) {
			return n.UpdatePort(tx, owner, p.ID, network.PortSpec{FixedIPs: &want})
		})
	}
	p, err := update(network.AddressSpec{SubnetID: one.ID}, network.AddressSpec{Address: addr("10.0.1.50")})
	if err != nil || len(p.FixedIPs) != 2 || p.FixedIPs[0] != first || p.FixedIPs[1] != (model.FixedIP{SubnetID: two.ID, Address: addr("10.0.1.50")}) {
		t.Fatalf("%v, %v; the address of a subnet that is named stays", p.FixedIPs, err)
	}
	p, err = update(network.AddressSpec{SubnetID: two.ID, Address: addr("10.0.1.50")})
	if err != nil || len(p.FixedIPs) != 1 {
		t.Fatalf("%v, %v", p.FixedIPs, err)
	}
	if _, held := store.Ports.Holder(s.Snapshot(), store.PortAddressClaim(one.ID, first.Address.String())); held {
		t.Error("a given-up address is still held")
	}
	if p, err = update(); err != nil || len(p.FixedIPs) != 0 {
		t.Fatalf("%v, %v", p.FixedIPs, err)
	}
	elsewhere := makeSubnet(t, s, n, makeNetwork(t, s, n), network.SubnetSpec{CIDR: prefix("10.0.0.0/24")})
	for name, tc := range map[string]struct {
		want []network.AddressSpec
		code string
	}{
		"no subnet has it":  {[]network.AddressSpec{{Address: addr("192.168.0.1")}}, "InvalidIpForNetwork"},
		"not this subnet's": {[]network.AddressSpec{{SubnetID: one.ID, Address: addr("10.0.1.9")}}, "InvalidIpForSubnet"},
		"another network's": {[]network.AddressSpec{{SubnetID: elsewhere.ID}}, "InvalidInput"},
		"twice":             {[]network.AddressSpec{{Address: addr("10.0.0.9")}, {Address: addr("10.0.0.9")}}, "InvalidInput"},
		"too many":          {slices.Repeat([]network.AddressSpec{{SubnetID: one.ID}}, 6), "InvalidInput"},
		"v6":                {[]network.AddressSpec{{Address: addr("fd00::1")}}, "InvalidIpForNetwork"},
	} {
		_, err := update(tc.want...)
		if fault.CodeOf(err) != tc.code {
			t.Errorf("%s: %v, want %s", name, err, tc.code)
		}
	}
}

func TestExhaustedNetworkUsesTheNextSubnet(t *testing.T) {
	s, n := storetest.New(t), unlimited()
	w := makeNetwork(t, s, n)
	makeSubnet(t, s, n, w, network.SubnetSpec{CIDR: prefix("10.0.0.0/30")})
	next := makeSubnet(t, s, n, w, network.SubnetSpec{CIDR: prefix("10.0.1.0/30")})
	makePort(t, s, n, w)
	if p := makePort(t, s, n, w); p.FixedIPs[0].SubnetID != next.ID {
		t.Errorf("%v", p.FixedIPs)
	}
	_, err := act(t.Context(), s, func(tx *store.Tx) (*model.Port, error) {
		return n.CreatePort(tx, owner, network.PortSpec{NetworkID: w.ID})
	})
	wantCode(t, err, fault.Conflict, "IpAddressGenerationFailure")
	_, err = act(t.Context(), s, func(tx *store.Tx) (*model.Port, error) {
		return n.CreatePort(tx, owner, network.PortSpec{NetworkID: w.ID, FixedIPs: &[]network.AddressSpec{{SubnetID: next.ID}}})
	})
	wantCode(t, err, fault.Conflict, "IpAddressGenerationFailureForSubnet")
	// Without a subnet a port has no address; with an empty wish neither.
	if p := makePort(t, s, n, makeNetwork(t, s, n)); len(p.FixedIPs) != 0 {
		t.Errorf("%v", p.FixedIPs)
	}
}

// BenchmarkCreatePort is one port in a network that has as many already.
func BenchmarkCreatePort(b *testing.B) {
	for _, have := range []int{0, 10_000} {
		b.Run(fmt.Sprint(have), func(b *testing.B) {
			s, n := storetest.New(b), unlimited()
			w := makeNetwork(b, s, n)
			makeSubnet(b, s, n, w, network.SubnetSpec{CIDR: prefix("10.0.0.0/16")})
			fill(b, s, n, w, have)
			b.ResetTimer()
			for b.Loop() {
				makePort(b, s, n, w)
			}
		})
	}
}

func fill(b testing.TB, s *store.Store, n *network.Network, w *model.Network, count int) {
	b.Helper()
	for made := 0; made < count; made += 200 {
		if _, err := s.Update(b.Context(), func(tx *store.Tx) error {
			for range 200 {
				if _, err := n.CreatePort(tx, owner, network.PortSpec{NetworkID: w.ID}); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			b.Fatal(err)
		}
	}
}

func TestServiceTypes(t *testing.T) {
	s, n := storetest.New(t), unlimited()
	w := makeNetwork(t, s, n)
	create := func(device string) (*model.Port, error) {
		return act(t.Context(), s, func(tx *store.Tx) (*model.Port, error) {
			return n.CreatePort(tx, owner, network.PortSpec{NetworkID: w.ID, DeviceOwner: &device})
		})
	}
	routers := makeSubnet(t, s, n, w, network.SubnetSpec{CIDR: prefix("10.0.0.0/24"), ServiceTypes: &[]string{"network:router_gateway"}})
	_, err := create("compute:nova")
	wantCode(t, err, fault.Conflict, "IpAddressGenerationFailureNoMatchingSubnet")
	open := makeSubnet(t, s, n, w, network.SubnetSpec{CIDR: prefix("10.0.1.0/24")})
	for who, want := range map[string]string{"compute:nova": open.ID, "": open.ID, "network:router_gateway": routers.ID} {
		p, err := create(who)
		if err != nil || p.FixedIPs[0].SubnetID != want {
			t.Errorf("%q: %+v, %v", who, p, err)
		}
	}
	for _, bad := range []string{"", "compute:", "compute", "x:y"} {
		_, err := act(t.Context(), s, func(tx *store.Tx) (*model.Subnet, error) {
			return n.UpdateSubnet(tx, owner, open.ID, network.SubnetSpec{ServiceTypes: &[]string{bad}})
		})
		wantCode(t, err, fault.Invalid, "InvalidSubnetServiceType")
	}
}
