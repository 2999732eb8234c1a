package network_test

import (
	"context"
	"net/netip"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"yakumo/fault"
	"yakumo/model"
	"yakumo/network"
	"yakumo/reconcile"
	"yakumo/store"
	"yakumo/store/storetest"
)

func addresses(p *model.Port) []string {
	out := []string{}
	for _, f := range p.FixedIPs {
		out = append(out, f.Address.String())
	}
	return out
}

func TestIPv6SubnetRules(t *testing.T) {
	s, n := storetest.New(t), unlimited()
	r := func(a, b string) []model.AddrRange { return []model.AddrRange{{Start: addr(a), End: addr(b)}} }
	mode := func(ra, address string) network.SubnetSpec {
		spec := network.SubnetSpec{CIDR: prefix("fd00::/64")}
		if ra != "" {
			spec.RAMode = &ra
		}
		if address != "" {
			spec.AddressMode = &address
		}
		return spec
	}
	with := func(spec network.SubnetSpec, f func(*network.SubnetSpec)) network.SubnetSpec { f(&spec); return spec }
	for name, tc := range map[string]struct {
		spec network.SubnetSpec
		code string // "": it is made
		want []model.AddrRange
	}{
		"plain":             {spec: mode("", ""), want: r("fd00::2", "fd00::ffff:ffff:ffff:ffff")},
		"slaac":             {spec: mode("slaac", "slaac"), want: r("fd00::2", "fd00::ffff:ffff:ffff:ffff")},
		"slaac, ra only":    {spec: mode("slaac", ""), want: r("fd00::2", "fd00::ffff:ffff:ffff:ffff")},
		"stateful":          {spec: mode("dhcpv6-stateful", "dhcpv6-stateful"), want: r("fd00::2", "fd00::ffff:ffff:ffff:ffff")},
		"stateless":         {spec: mode("dhcpv6-stateless", "dhcpv6-stateless"), want: r("fd00::2", "fd00::ffff:ffff:ffff:ffff")},
		"address mode only": {spec: mode("", "dhcpv6-stateless"), want: r("fd00::2", "fd00::ffff:ffff:ffff:ffff")},
		"mixed":             {spec: mode("slaac", "dhcpv6-stateful"), code: "InvalidInput"},
		"unknown mode":      {spec: mode("ra", ""), code: "HTTPBadRequest"},
		"no dhcp":           {spec: with(mode("slaac", ""), func(s *network.SubnetSpec) { s.DHCP = ptr(false) }), code: "InvalidInput"},
		"slaac of /63":      {spec: with(mode("slaac", ""), func(s *network.SubnetSpec) { s.CIDR = prefix("fd00::/63") }), code: "InvalidInput"},
		"stateful of /120":  {spec: with(mode("dhcpv6-stateful", ""), func(s *network.SubnetSpec) { s.CIDR = prefix("fd00::/120") }), want: r("fd00::2", "fd00::ff")},
		"point to point":    {spec: network.SubnetSpec{CIDR: prefix("fd00::/127")}, want: r("fd00::", "fd00::1")},
		"one":               {spec: network.SubnetSpec{CIDR: prefix("fd00::5/128")}, want: r("fd00::5", "fd00::5")},
		"half of all":       {spec: network.SubnetSpec{CIDR: prefix("8000::/1")}, code: "InvalidInput"}, // holds link-local and multicast
		"everything":        {spec: network.SubnetSpec{CIDR: prefix("::/0")}, code: "InvalidInput"},
		"multicast":         {spec: network.SubnetSpec{CIDR: prefix("ff05::/64")}, code: "InvalidInput"},
		"link-local":        {spec: network.SubnetSpec{CIDR: prefix("fe80::/64")}, code: "InvalidInput"},
		"loopback":          {spec: network.SubnetSpec{CIDR: prefix("::1/128")}, code: "InvalidInput"},
		"mapped":            {spec: network.SubnetSpec{CIDR: netip.PrefixFrom(netip.MustParseAddr("::ffff:10.0.0.0"), 120)}, code: "HTTPBadRequest"},
		"host bits":         {spec: network.SubnetSpec{CIDR: prefix("fd00::1/64")}, code: "HTTPBadRequest"},
		"gateway on link":   {spec: network.SubnetSpec{CIDR: prefix("fd00::/64"), Gateway: ptr(addr("fe80::1"))}, want: r("fd00::1", "fd00::ffff:ffff:ffff:ffff")},
		"gateway outside":   {spec: network.SubnetSpec{CIDR: prefix("fd00::/64"), Gateway: ptr(addr("fd01::1"))}, code: "InvalidInput"},
		"gateway of v4":     {spec: network.SubnetSpec{CIDR: prefix("fd00::/64"), Gateway: ptr(addr("10.0.0.1"))}, code: "InvalidInput"},
		"anycast gateway":   {spec: network.SubnetSpec{CIDR: prefix("fd00::/64"), Gateway: ptr(addr("fd00::"))}, code: "InvalidInput"},
		"last address":      {spec: network.SubnetSpec{CIDR: prefix("fd00::/64"), Pools: ptr(r("fd00::ffff:ffff:ffff:ffff", "fd00::ffff:ffff:ffff:ffff"))}, want: r("fd00::ffff:ffff:ffff:ffff", "fd00::ffff:ffff:ffff:ffff")},
		"pool of v4":        {spec: network.SubnetSpec{CIDR: prefix("fd00::/64"), Pools: ptr(r("10.0.0.1", "10.0.0.2"))}, code: "InvalidAllocationPool"},
		"name server of v4": {spec: network.SubnetSpec{CIDR: prefix("fd00::/64"), DNS: &[]netip.Addr{addr("9.9.9.9")}}, code: "InvalidInput"},
		"route of v4":       {spec: network.SubnetSpec{CIDR: prefix("fd00::/64"), HostRoutes: &[]model.Route{{Destination: prefix("10.0.0.0/8"), NextHop: addr("fd00::9")}}}, code: "InvalidInput"},
	} {
		t.Run(name, func(t *testing.T) {
			w := makeNetwork(t, s, n)
			tc.spec.NetworkID, tc.spec.IPVersion = w.ID, 6
			sub, err := act(t.Context(), s, func(tx *store.Tx) (*model.Subnet, error) { return n.CreateSubnet(tx, owner, tc.spec) })
			if tc.code != "" {
				if fault.CodeOf(err) != tc.code {
					t.Errorf("%v, want %s", err, tc.code)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if sub.IPVersion != 6 || !slices.Equal(sub.Pools, tc.want) {
				t.Errorf("version %d, pools %v, want %v", sub.IPVersion, sub.Pools, tc.want)
			}
		})
	}
}

// TestFormedAddresses: what guests form by themselves comes and goes with subnets and MACs.
func TestFormedAddresses(t *testing.T) {
	s, n := storetest.New(t), unlimited()
	w := makeNetwork(t, s, n)
	mac := "fa:16:3e:01:02:03"
	const formed = "f816:3eff:fe01:203"
	create := func(spec network.PortSpec) (*model.Port, error) {
		spec.NetworkID = w.ID
		return act(t.Context(), s, func(tx *store.Tx) (*model.Port, error) { return n.CreatePort(tx, owner, spec) })
	}
	update := func(id string, spec network.PortSpec) *model.Port {
		t.Helper()
		p, err := act(t.Context(), s, func(tx *store.Tx) (*model.Port, error) { return n.UpdatePort(tx, owner, id, spec) })
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	now := func(id string) *model.Port {
		p, _ := store.Ports.Get(s.Snapshot(), id)
		return p
	}
	is := func(p *model.Port, want ...string) {
		t.Helper()
		if got := addresses(p); !slices.Equal(got, want) {
			t.Errorf("addresses %v, want %v", got, want)
		}
	}
	v4 := makeSubnet(t, s, n, w, network.SubnetSpec{CIDR: prefix("10.0.0.4/30"), Gateway: &netip.Addr{}, Pools: &[]model.AddrRange{{Start: addr("10.0.0.5"), End: addr("10.0.0.5")}}})
	before, err := create(network.PortSpec{MAC: &mac})
	if err != nil {
		t.Fatal(err)
	}
	is(before, "10.0.0.5")
	router, err := create(network.PortSpec{DeviceOwner: ptr("network:router_interface"), FixedIPs: &[]network.AddressSpec{}})
	if err != nil {
		t.Fatal(err)
	}
	slaac := makeSubnet(t, s, n, w, network.SubnetSpec{CIDR: prefix("fd00:1::/64"), RAMode: ptr(model.SLAAC), AddressMode: ptr(model.SLAAC)})
	is(now(before.ID), "10.0.0.5", "fd00:1::"+formed)
	is(now(router.ID))
	if got := now(before.ID).Generation; got != 2 {
		t.Errorf("generation %d", got)
	}
	// The router takes the subnet's gateway address; no guest takes an address of its own choice.
	update(router.ID, network.PortSpec{FixedIPs: &[]network.AddressSpec{{SubnetID: slaac.ID, Address: addr("fd00:1::1")}}})
	_, err = create(network.PortSpec{FixedIPs: &[]network.AddressSpec{{SubnetID: slaac.ID, Address: addr("fd00:1::9")}}})
	wantCode(t, err, fault.Invalid, "AllocationOnAutoAddressSubnet")

	// A second one of each kind: all of them are formed, one of each pool is picked.
	makeSubnet(t, s, n, w, network.SubnetSpec{CIDR: prefix("fd00:2::/64"), AddressMode: ptr(model.DHCPv6Stateless)})
	stateful := makeSubnet(t, s, n, w, network.SubnetSpec{CIDR: prefix("fd00:3::/64"), RAMode: ptr(model.DHCPv6Stateful), AddressMode: ptr(model.DHCPv6Stateful), Pools: &[]model.AddrRange{{Start: addr("fd00:3::7"), End: addr("fd00:3::7")}}})
	is(now(before.ID), "10.0.0.5", "fd00:1::"+formed, "fd00:2::"+formed)
	if _, err = create(network.PortSpec{}); fault.CodeOf(err) != "IpAddressGenerationFailure" {
		t.Errorf("no IPv4 address is left: %v", err)
	}
	other := "fa:16:3e:00:00:09"
	only, err := create(network.PortSpec{MAC: &other, FixedIPs: &[]network.AddressSpec{{SubnetID: stateful.ID}}})
	if err != nil {
		t.Fatal(err)
	}
	is(only, "fd00:3::7", "fd00:1::f816:3eff:fe00:9", "fd00:2::f816:3eff:fe00:9")
	bare, err := create(network.PortSpec{FixedIPs: &[]network.AddressSpec{}})
	if err != nil {
		t.Fatal(err)
	}
	is(bare)
	// Another MAC forms other addresses.
	is(update(only.ID, network.PortSpec{MAC: ptr("fa:16:3e:00:00:0a")}), "fd00:3::7", "fd00:1::f816:3eff:fe00:a", "fd00:2::f816:3eff:fe00:a")
	// They stay when others change, and go when they are told to.
	is(update(only.ID, network.PortSpec{FixedIPs: &[]network.AddressSpec{}}), "fd00:1::f816:3eff:fe00:a", "fd00:2::f816:3eff:fe00:a")
	is(update(only.ID, network.PortSpec{FixedIPs: &[]network.AddressSpec{{SubnetID: slaac.ID, Remove: true}}}), "fd00:2::f816:3eff:fe00:a")
	is(update(only.ID, network.PortSpec{FixedIPs: &[]network.AddressSpec{{SubnetID: slaac.ID}, {SubnetID: slaac.ID, Address: addr("fd00:1::f816:3eff:fe00:a")}}}), "fd00:1::f816:3eff:fe00:a", "fd00:2::f816:3eff:fe00:a")

	// A subnet goes with what was formed in it, unless a router holds an address there.
	remove := func(id string) error {
		_, err := s.Update(t.Context(), func(tx *store.Tx) error { return n.DeleteSubnet(tx, owner, id) })
		return err
	}
	wantCode(t, remove(slaac.ID), fault.Conflict, "SubnetInUse")
	is(now(before.ID), "10.0.0.5", "fd00:1::"+formed, "fd00:2::"+formed)
	update(router.ID, network.PortSpec{FixedIPs: &[]network.AddressSpec{}})
	if err := remove(slaac.ID); err != nil {
		t.Fatal(err)
	}
	is(now(before.ID), "10.0.0.5", "fd00:2::"+formed)
	wantCode(t, remove(v4.ID), fault.Conflict, "SubnetInUse")
	_, err = act(t.Context(), s, func(tx *store.Tx) (*model.Subnet, error) {
		return n.UpdateSubnet(tx, owner, stateful.ID, network.SubnetSpec{DHCP: ptr(false)})
	})
	wantCode(t, err, fault.Invalid, "InvalidInput")
}

// TestIPv6Picks: picks from small and from huge pools are of the pool, and each is used once.
func TestIPv6Picks(t *testing.T) {
	s, n := storetest.New(t), unlimited()
	rapid.Check(t, func(rt *rapid.T) {
		w := makeNetwork(t, s, n)
		bits := rapid.SampledFrom([]int{2, 8, 32, 63, 64, 65, 100, 125, 126}).Draw(rt, "bits")
		block := netip.PrefixFrom(addr("4000::"), 2)
		if bits > 2 {
			block = netip.PrefixFrom(addr("fd00::"), bits)
		}
		sub := makeSubnet(t, s, n, w, network.SubnetSpec{CIDR: block})
		seen := map[netip.Addr]bool{}
		room := network.PoolSize(sub)
		for i := range 8 {
			p, err := act(t.Context(), s, func(tx *store.Tx) (*model.Port, error) {
				return n.CreatePort(tx, owner, network.PortSpec{NetworkID: w.ID})
			})
			if full := room.IsInt64() && room.Int64() <= int64(i); full != (err != nil) {
				rt.Fatalf("port %d of %v: %v", i, room, err)
			}
			if err != nil {
				wantCode(t, err, fault.Conflict, "IpAddressGenerationFailure")
				continue
			}
			a := p.FixedIPs[0].Address
			if seen[a] || !slices.ContainsFunc(sub.Pools, func(r model.AddrRange) bool { return r.Contains(a) }) {
				rt.Fatalf("%s of %v, seen: %v", a, sub.Pools, seen[a])
			}
			seen[a] = true
		}
	})
}

// TestSubnetOfManyPorts: a subnet of automatic addresses reaches every port of the network,
// also those that come at the same time; where they are many, by the controller; and it goes.
func TestSubnetOfManyPorts(t *testing.T) {
	for name, ports := range map[string]int{"few": 300, "many": 1000} {
		t.Run(name, func(t *testing.T) {
			s, n := storetest.New(t), unlimited()
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan struct{})
			go func() {
				defer close(done)
				reconcile.Run(ctx, reconcile.Config{Store: s, Identity: "me"}, n.AddressFormer())
			}()
			defer func() { cancel(); <-done }()
			w := makeNetwork(t, s, n)
			bulk := func(count int) {
				if _, err := s.Update(t.Context(), func(tx *store.Tx) error {
					for range count {
						if _, err := n.CreatePort(tx, owner, network.PortSpec{NetworkID: w.ID}); err != nil {
							return err
						}
					}
					return nil
				}); err != nil {
					t.Error(err)
				}
			}
			for range ports / 100 {
				bulk(100)
			}
			var sub *model.Subnet
			made, _ := race(t, 5, func(i int) (err error) {
				if i > 0 {
					bulk(1)
					return nil
				}
				sub, err = act(t.Context(), s, func(tx *store.Tx) (*model.Subnet, error) {
					return n.CreateSubnet(tx, owner, network.SubnetSpec{NetworkID: w.ID, CIDR: prefix("fd00::/64"), RAMode: ptr(model.SLAAC)})
				})
				return err
			})
			if made != 5 {
				t.Fatalf("%d of 5", made)
			}
			follow := s.Subscribe(store.Subnets.Kind())
			defer follow.Close()
			wait, stop := context.WithTimeout(t.Context(), 90*time.Second)
			defer stop()
			for {
				now, _ := store.Subnets.Get(s.Snapshot(), sub.ID)
				if !now.Forming {
					break
				}
				if _, err := follow.Next(wait); err != nil {
					t.Fatalf("the subnet is still forming: %v", err)
				}
			}
			count := 0
			for p := range store.Ports.List(s.Snapshot(), "network", w.ID) {
				if len(p.FixedIPs) != 1 || p.FixedIPs[0].Address != model.EUI64(prefix("fd00::/64"), p.MAC) {
					t.Fatalf("%v of %s", p.FixedIPs, p.MAC)
				}
				count++
			}
			if count != ports+4 {
				t.Errorf("%d ports", count)
			}
			for more := true; more; {
				if _, err := s.Update(t.Context(), func(tx *store.Tx) (err error) {
					more, err = n.Unform(tx, owner, sub.ID)
					return err
				}); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := s.Update(t.Context(), func(tx *store.Tx) error { return n.DeleteSubnet(tx, owner, sub.ID) }); err != nil {
				t.Fatal(err)
			}
			for p := range store.Ports.List(s.Snapshot(), "network", w.ID) {
				if len(p.FixedIPs) != 0 {
					t.Fatalf("%v is left", p.FixedIPs)
				}
			}
		})
	}
}

func TestEUI64(t *testing.T) {
	for _, tc := range []struct{ block, mac, want string }{
		{"2001:db8::/64", "00:00:5e:00:53:01", "2001:db8::200:5eff:fe00:5301"},
		{"fe80::/64", "fa:16:3e:01:02:03", "fe80::f816:3eff:fe01:203"},
	} {
		if got := model.EUI64(prefix(tc.block), tc.mac); got.String() != tc.want {
			t.Errorf("%s in %s: %s", tc.mac, tc.block, got)
		}
	}
	if model.EUI64(prefix("10.0.0.0/8"), "fa:16:3e:01:02:03").IsValid() || model.EUI64(prefix("fd00::/64"), "x").IsValid() {
		t.Error("an address of nothing")
	}
}
