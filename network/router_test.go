package network_test

import (
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"pgregory.net/rapid"

	"yakumo/fault"
	"yakumo/model"
	"yakumo/network"
	"yakumo/store"
	"yakumo/store/storetest"
)

// town is a small cloud: two external networks, three networks of a project with two
// subnets each, two of which have the same addresses, and what random acts make of it.
type town struct {
	s        *store.Store
	n        *network.Network
	networks []*model.Network
	outside  []*model.Network
	subnets  []*model.Subnet
	done     [16]atomic.Int64 // acts that were not refused, by kind
}

func newTown(t testing.TB) *town {
	c := &town{s: storetest.New(t), n: unlimited()}
	yes := true
	for i := range 2 {
		w := must(t, c.s, func(tx *store.Tx) (*model.Network, error) {
			return c.n.CreateNetwork(tx, admin, network.NetworkSpec{External: &yes})
		})
		c.outside = append(c.outside, w)
		must(t, c.s, func(tx *store.Tx) (*model.Subnet, error) {
			return c.n.CreateSubnet(tx, admin, network.SubnetSpec{NetworkID: w.ID, IPVersion: 4, CIDR: netip.MustParsePrefix(fmt.Sprintf("203.0.%d.0/28", i))})
		})
	}
	for i := range 3 {
		w := makeNetwork(t, c.s, c.n)
		c.networks = append(c.networks, w)
		for j := range 2 {
			cidr := netip.MustParsePrefix(fmt.Sprintf("10.%d.%d.0/28", i%2, j))
			c.subnets = append(c.subnets, makeSubnet(t, c.s, c.n, w, network.SubnetSpec{CIDR: cidr}))
		}
	}
	return c
}

// act does one thing that a tenant may ask for, chosen by pick, which gives a number below n.
// What is refused changes nothing and is fine.
func (c *town) act(t *testing.T, pick func(n int) int) error {
	snap := c.s.Snapshot()
	var routers, floating, ports, forwardings []string
	for r := range store.Routers.All(snap) {
		routers = append(routers, r.ID)
	}
	for f := range store.FloatingIPs.All(snap) {
		floating = append(floating, f.ID)
	}
	for p := range store.Ports.List(snap, "project", project) {
		ports = append(ports, p.ID)
	}
	for f := range store.PortForwardings.All(snap) {
		forwardings = append(forwardings, f.ID)
	}
	one := func(of []string) string {
		if len(of) == 0 {
			return "none"
		}
		return of[pick(len(of))]
	}
	out, in, subnet := c.outside[pick(2)].ID, c.networks[pick(3)].ID, c.subnets[pick(len(c.subnets))]
	what, router, port, fip := pick(16), one(routers), one(ports), one(floating)
	if what < 2 && len(routers) > 4 { // few routers have more in common
		what = 3
	}
	_, err := c.s.Update(t.Context(), func(tx *store.Tx) error {
		var err error
		switch what {
		case 0:
			_, err = c.n.CreateRouter(tx, owner, network.RouterSpec{Gateway: &network.GatewaySpec{NetworkID: out}})
		case 1:
			_, err = c.n.CreateRouter(tx, owner, network.RouterSpec{})
		case 2:
			_, err = c.n.UpdateRouter(tx, owner, router, network.RouterSpec{Gateway: &network.GatewaySpec{NetworkID: []string{"", out}[pick(2)]}})
		case 3:
			err = c.n.DeleteRouter(tx, owner, router)
		case 4, 5:
			_, err = c.n.AddInterface(tx, owner, router, network.InterfaceSpec{SubnetID: subnet.ID})
		case 6:
			_, err = c.n.AddInterface(tx, owner, router, network.InterfaceSpec{PortID: port})
		case 7:
			_, err = c.n.RemoveInterface(tx, owner, router, network.InterfaceSpec{SubnetID: subnet.ID})
		case 8:
			hop := subnet.CIDR.Addr().Next().Next()
			_, err = c.n.AddRoutes(tx, owner, router, []model.Route{{Destination: netip.MustParsePrefix("192.168.0.0/16"), NextHop: hop}})
		case 9:
			_, err = c.n.CreatePort(tx, owner, network.PortSpec{NetworkID: in})
		case 10:
			err = c.n.DeletePort(tx, owner, port)
		case 11:
			_, err = c.n.UpdatePort(tx, owner, port, network.PortSpec{FixedIPs: &[]network.AddressSpec{{SubnetID: subnet.ID}}})
		case 12:
			_, err = c.n.CreateFloatingIP(tx, owner, network.FloatingIPSpec{NetworkID: out, PortID: []*string{nil, &port}[pick(2)]})
		case 13:
			_, err = c.n.UpdateFloatingIP(tx, owner, fip, network.FloatingIPSpec{PortID: []*string{&port, ptr("")}[pick(2)]})
		case 14:
			if pick(2) == 0 {
				err = c.n.DeleteFloatingIP(tx, owner, fip)
			} else if id := one(forwardings); id != "none" {
				f, ok := store.PortForwardings.Get(tx, id)
				if ok {
					err = c.n.DeleteForwarding(tx, owner, f.FloatingIPID, id)
				}
			}
		case 15:
			at := 1 + pick(6)
			span := network.PortRange{First: at, Last: at + pick(3)}
			_, err = c.n.CreateForwarding(tx, owner, fip, network.ForwardingSpec{Protocol: ptr("tcp"), External: &span, Internal: &span, PortID: &port})
		}
		return err
	})
	if err != nil && (fault.KindOf(err) == fault.Unavailable || fault.CodeOf(err) == "") {
		return fmt.Errorf("act %d: %w", what, err)
	}
	if err == nil {
		c.done[what].Add(1)
	}
	return nil
}

// check tells what is wrong with the town: nothing ever should be.
func (c *town) check() error {
	snap := c.s.Snapshot()
	vnis := map[uint32]string{}
	for w := range store.Networks.All(snap) {
		vnis[w.VNI] = w.ID
	}
	cloud := map[string]int{} // ports of routers and floating IPs that are accounted for
	for r := range store.Routers.All(snap) {
		var sides []*model.Subnet
		var own []netip.Addr
		for p := range store.Ports.List(snap, "device", r.ID) {
			if p.DeviceOwner != model.OwnerRouterInterface {
				continue
			}
			cloud[p.ID]++
			for _, f := range p.FixedIPs {
				s, ok := store.Subnets.Get(snap, f.SubnetID)
				if !ok {
					return fmt.Errorf("the interface %s is in a subnet that is gone", p.ID)
				}
				sides, own = append(sides, s), append(own, f.Address)
			}
			if len(p.FixedIPs) == 0 {
				return fmt.Errorf("the interface %s has no address", p.ID)
			}
		}
		if (r.Gateway != nil) != (r.VNI != 0) {
			return fmt.Errorf("router %s: gateway %v, VNI %d", r.ID, r.Gateway, r.VNI)
		}
		if g := r.Gateway; g != nil {
			if other, twice := vnis[r.VNI]; twice {
				return fmt.Errorf("the VNI %d is of %s and %s", r.VNI, other, r.ID)
			}
			vnis[r.VNI] = r.ID
			p, ok := store.Ports.Get(snap, g.PortID)
			if !ok || p.DeviceID != r.ID || p.NetworkID != g.NetworkID || p.DeviceOwner != model.OwnerRouterGateway || !slices.Equal(p.FixedIPs, g.FixedIPs) || p.ProjectID != "" {
				return fmt.Errorf("router %s: gateway %+v, its port %+v", r.ID, g, p)
			}
			cloud[p.ID]++
			for s := range store.Subnets.List(snap, "network", g.NetworkID) {
				sides = append(sides, s)
			}
			own = append(own, p.Addresses()...)
		}
		for i, a := range sides {
			for _, b := range sides[:i] {
				if a.CIDR.Overlaps(b.CIDR) {
					return fmt.Errorf("router %s has %s and %s", r.ID, a.CIDR, b.CIDR)
				}
			}
		}
		for _, x := range r.Routes {
			if slices.Contains(own, x.NextHop) || !slices.ContainsFunc(sides, func(s *model.Subnet) bool { return s.CIDR.Contains(x.NextHop) }) {
				return fmt.Errorf("router %s routes to %s, beside it are %v", r.ID, x.NextHop, sides)
			}
		}
	}
	// leads tells whether an address inside can be reached from an external network by the router.
	leads := func(router, outside, port string, inside netip.Addr) error {
		r, ok := store.Routers.Get(snap, router)
		if !ok || r.Gateway == nil || r.Gateway.NetworkID != outside {
			return fmt.Errorf("the router %s does not lead to %s", router, outside)
		}
		p, ok := store.Ports.Get(snap, port)
		if !ok {
			return fmt.Errorf("the port %s is gone", port)
		}
		for _, f := range p.FixedIPs {
			for x := range store.Ports.List(snap, "device", router) {
				if f.Address == inside && x.DeviceOwner == model.OwnerRouterInterface && slices.ContainsFunc(x.FixedIPs, func(g model.FixedIP) bool { return g.SubnetID == f.SubnetID }) {
					return nil
				}
			}
		}
		return fmt.Errorf("%s of port %s is not beside router %s", inside, port, router)
	}
	for f := range store.FloatingIPs.All(snap) {
		p, ok := store.Ports.Get(snap, f.IPPortID)
		if !ok || p.DeviceID != f.ID || p.DeviceOwner != model.OwnerFloatingIP || p.NetworkID != f.NetworkID || len(p.FixedIPs) != 1 || p.FixedIPs[0] != (model.FixedIP{SubnetID: f.SubnetID, Address: f.Address}) {
			return fmt.Errorf("floating IP %+v, its port %+v", f, p)
		}
		cloud[p.ID]++
		list := slices.Collect(store.PortForwardings.List(snap, "floating", f.ID))
		if f.PortID != "" {
			if err := leads(f.RouterID, f.NetworkID, f.PortID, f.FixedAddress); err != nil || len(list) > 0 {
				return fmt.Errorf("floating IP %+v with %d forwardings: %w", f, len(list), err)
			}
		}
		if used := f.PortID != "" || len(list) > 0; used != (f.RouterID != "") || used != (f.Status == model.FloatingIPActive) {
			return fmt.Errorf("floating IP %+v with %d forwardings", f, len(list))
		}
		for i, x := range list {
			if err := leads(x.RouterID, f.NetworkID, x.PortID, x.InternalAddress); err != nil || x.RouterID != f.RouterID {
				return fmt.Errorf("forwarding %+v of %+v: %w", x, f, err)
			}
			for _, y := range list[:i] {
				if x.ExternalPort <= y.ExternalPortEnd && y.ExternalPort <= x.ExternalPortEnd {
					return fmt.Errorf("%+v and %+v overlap", x, y)
				}
			}
		}
	}
	for x := range store.PortForwardings.All(snap) {
		if _, ok := store.FloatingIPs.Get(snap, x.FloatingIPID); !ok {
			return fmt.Errorf("forwarding %+v of no floating IP", x)
		}
	}
	addresses := map[model.FixedIP]string{}
	for p := range store.Ports.All(snap) {
		for _, f := range p.FixedIPs {
			if other, twice := addresses[f]; twice {
				return fmt.Errorf("%v is of %s and %s", f, other, p.ID)
			}
			addresses[f] = p.ID
		}
		if slices.Contains([]string{model.OwnerRouterInterface, model.OwnerRouterGateway, model.OwnerFloatingIP}, p.DeviceOwner) && cloud[p.ID] != 1 {
			return fmt.Errorf("port %+v belongs to nothing that is there", p)
		}
	}
	return nil
}

// TestRouterInvariants: whatever a tenant asks for, one thing after the other, what is there
// fits together.
func TestRouterInvariants(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		c := newTown(t)
		n := 0
		pick := func(below int) int { n++; return rapid.IntRange(0, below-1).Draw(rt, fmt.Sprint("pick", n)) }
		for range rapid.IntRange(10, 60).Draw(rt, "acts") {
			if err := c.act(t, pick); err != nil {
				rt.Fatal(err)
			}
			if err := c.check(); err != nil {
				rt.Fatal(err)
			}
		}
	})
}

// TestRouterInvariantsTogether: the same when several ask at once.
func TestRouterInvariantsTogether(t *testing.T) {
	c := newTown(t)
	var wg sync.WaitGroup
	for seed := range uint64(6) {
		wg.Go(func() {
			state := seed*0x9e3779b97f4a7c15 + 1
			pick := func(n int) int { // xorshift64*
				state ^= state >> 12
				state ^= state << 25
				state ^= state >> 27
				return int((state * 0x2545f4914f6cdd1d) >> 33 % uint64(n))
			}
			for range 150 {
				if err := c.act(t, pick); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	if err := c.check(); err != nil {
		t.Error(err)
	}
	for _, what := range []int{0, 2, 4, 9, 12, 13} {
		if c.done[what].Load() == 0 {
			t.Errorf("act %d was always refused", what)
		}
	}
}

// TestIPv6Interfaces: further IPv6 subnets of a network come to one port of the router, and go from it.
func TestIPv6Interfaces(t *testing.T) {
	s, n := storetest.New(t), unlimited()
	w := makeNetwork(t, s, n)
	var subnets []*model.Subnet
	for i, cidr := range []string{"fd00:1::/64", "fd00:2::/64", "10.0.0.0/24"} {
		spec := network.SubnetSpec{NetworkID: w.ID, IPVersion: []int{6, 6, 4}[i], CIDR: netip.MustParsePrefix(cidr)}
		subnets = append(subnets, must(t, s, func(tx *store.Tx) (*model.Subnet, error) { return n.CreateSubnet(tx, owner, spec) }))
	}
	r := must(t, s, func(tx *store.Tx) (*model.Router, error) { return n.CreateRouter(tx, owner, network.RouterSpec{}) })
	add := func(sub *model.Subnet) (*network.Interface, error) {
		return act(t.Context(), s, func(tx *store.Tx) (*network.Interface, error) {
			return n.AddInterface(tx, owner, r.ID, network.InterfaceSpec{SubnetID: sub.ID})
		})
	}
	var ports []string
	for _, sub := range subnets {
		x, err := add(sub)
		if err != nil {
			t.Fatal(err)
		}
		ports = append(ports, x.Port.ID)
	}
	if ports[0] != ports[1] || ports[2] == ports[0] {
		t.Errorf("the ports are %v", ports)
	}
	_, err := add(subnets[1])
	wantCode(t, err, fault.Invalid, "BadRequest")
	p, _ := store.Ports.Get(s.Snapshot(), ports[0])
	if got := fmt.Sprint(p.Addresses()); got != "[fd00:1::1 fd00:2::1]" {
		t.Errorf("addresses %s", got)
	}
	must(t, s, func(tx *store.Tx) (*network.Interface, error) {
		return n.RemoveInterface(tx, owner, r.ID, network.InterfaceSpec{SubnetID: subnets[0].ID})
	})
	p, _ = store.Ports.Get(s.Snapshot(), ports[0])
	if got := fmt.Sprint(p.Addresses()); got != "[fd00:2::1]" {
		t.Errorf("addresses %s", got)
	}
}

// BenchmarkCreateRouter is a router with a gateway and an interface, made and removed.
func BenchmarkCreateRouter(b *testing.B) {
	c := newTown(b)
	for b.Loop() {
		r := must(b, c.s, func(tx *store.Tx) (*model.Router, error) {
			return c.n.CreateRouter(tx, owner, network.RouterSpec{Gateway: &network.GatewaySpec{NetworkID: c.outside[0].ID}})
		})
		must(b, c.s, func(tx *store.Tx) (*network.Interface, error) {
			return c.n.AddInterface(tx, owner, r.ID, network.InterfaceSpec{SubnetID: c.subnets[0].ID})
		})
		if _, err := c.s.Update(b.Context(), func(tx *store.Tx) error {
			if _, err := c.n.RemoveInterface(tx, owner, r.ID, network.InterfaceSpec{SubnetID: c.subnets[0].ID}); err != nil {
				return err
			}
			return c.n.DeleteRouter(tx, owner, r.ID)
		}); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkAssociate is a floating IP that gets a port and loses it.
func BenchmarkAssociate(b *testing.B) {
	c := newTown(b)
	r := must(b, c.s, func(tx *store.Tx) (*model.Router, error) {
		return c.n.CreateRouter(tx, owner, network.RouterSpec{Gateway: &network.GatewaySpec{NetworkID: c.outside[0].ID}})
	})
	must(b, c.s, func(tx *store.Tx) (*network.Interface, error) {
		return c.n.AddInterface(tx, owner, r.ID, network.InterfaceSpec{SubnetID: c.subnets[0].ID})
	})
	p := must(b, c.s, func(tx *store.Tx) (*model.Port, error) {
		return c.n.CreatePort(tx, owner, network.PortSpec{NetworkID: c.networks[0].ID, FixedIPs: &[]network.AddressSpec{{SubnetID: c.subnets[0].ID}}})
	})
	f := must(b, c.s, func(tx *store.Tx) (*model.FloatingIP, error) {
		return c.n.CreateFloatingIP(tx, owner, network.FloatingIPSpec{NetworkID: c.outside[0].ID})
	})
	for b.Loop() {
		for _, port := range []string{p.ID, ""} {
			must(b, c.s, func(tx *store.Tx) (*model.FloatingIP, error) {
				return c.n.UpdateFloatingIP(tx, owner, f.ID, network.FloatingIPSpec{PortID: &port})
			})
		}
	}
}

// TestRouterOfManySubnets: a router may have more subnets than a transaction compares keys,
// and its routes and gateway may still change.
func TestRouterOfManySubnets(t *testing.T) {
	s, n := storetest.New(t), unlimited()
	const count = store.MaxOps + 76
	r := must(t, s, func(tx *store.Tx) (*model.Router, error) { return n.CreateRouter(tx, owner, network.RouterSpec{}) })
	w := makeNetwork(t, s, n)
	for at := 0; at < count; at += 100 {
		if _, err := s.Update(t.Context(), func(tx *store.Tx) error {
			for i := at; i < at+100; i++ {
				cidr := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 0}), 24)
				sub := &model.Subnet{Meta: model.NewMeta(project, "", w.CreatedAt), NetworkID: w.ID, IPVersion: 4, CIDR: cidr}
				p := &model.Port{Meta: model.NewMeta(project, "", w.CreatedAt), NetworkID: w.ID, MAC: fmt.Sprintf("fa:16:3e:00:%02x:%02x", i>>8, i&255), DeviceID: r.ID,
					DeviceOwner: model.OwnerRouterInterface, FixedIPs: []model.FixedIP{{SubnetID: sub.ID, Address: cidr.Addr().Next()}}}
				if err := store.Subnets.Put(tx, sub); err != nil {
					return err
				}
				if err := store.Ports.Put(tx, p); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	last := makeSubnet(t, s, n, makeNetwork(t, s, n), network.SubnetSpec{CIDR: netip.MustParsePrefix("172.16.0.0/24")})
	must(t, s, func(tx *store.Tx) (*network.Interface, error) {
		return n.AddInterface(tx, owner, r.ID, network.InterfaceSpec{SubnetID: last.ID})
	})
	must(t, s, func(tx *store.Tx) (*model.Router, error) {
		return n.AddRoutes(tx, owner, r.ID, []model.Route{{Destination: netip.MustParsePrefix("192.168.0.0/16"), NextHop: netip.MustParseAddr("10.4.4.9")}})
	})
	again := makeSubnet(t, s, n, makeNetwork(t, s, n), network.SubnetSpec{CIDR: netip.MustParsePrefix("10.4.0.0/16")})
	_, err := act(t.Context(), s, func(tx *store.Tx) (*network.Interface, error) {
		return n.AddInterface(tx, owner, r.ID, network.InterfaceSpec{SubnetID: again.ID})
	})
	wantCode(t, err, fault.Invalid, "BadRequest")
}

// TestGatewaysOfANewSubnet: a gateway without an address of a version gets one of the first
// subnet of that version, and no other one.
func TestGatewaysOfANewSubnet(t *testing.T) {
	s, n := storetest.New(t), unlimited()
	yes := true
	w := must(t, s, func(tx *store.Tx) (*model.Network, error) {
		return n.CreateNetwork(tx, admin, network.NetworkSpec{External: &yes})
	})
	r := must(t, s, func(tx *store.Tx) (*model.Router, error) {
		return n.CreateRouter(tx, owner, network.RouterSpec{Gateway: &network.GatewaySpec{NetworkID: w.ID}})
	})
	taken := must(t, s, func(tx *store.Tx) (*model.Router, error) {
		return n.CreateRouter(tx, owner, network.RouterSpec{Gateway: &network.GatewaySpec{NetworkID: w.ID}})
	})
	inside := makeSubnet(t, s, n, makeNetwork(t, s, n), network.SubnetSpec{CIDR: netip.MustParsePrefix("203.0.113.0/25")})
	must(t, s, func(tx *store.Tx) (*network.Interface, error) {
		return n.AddInterface(tx, owner, taken.ID, network.InterfaceSpec{SubnetID: inside.ID})
	})
	for _, x := range []struct {
		cidr    string
		version int
		have    int
	}{{"203.0.113.0/24", 4, 1}, {"198.51.100.0/24", 4, 1}, {"2001:db8::/64", 6, 2}} {
		sub := must(t, s, func(tx *store.Tx) (*model.Subnet, error) {
			return n.CreateSubnet(tx, admin, network.SubnetSpec{NetworkID: w.ID, IPVersion: x.version, CIDR: netip.MustParsePrefix(x.cidr)})
		})
		now, _ := store.Routers.Get(s.Snapshot(), r.ID)
		p, _ := store.Ports.Get(s.Snapshot(), now.Gateway.PortID)
		if len(now.Gateway.FixedIPs) != x.have || !slices.Equal(p.FixedIPs, now.Gateway.FixedIPs) {
			t.Errorf("with %s: gateway %v, its port %v", x.cidr, now.Gateway.FixedIPs, p.FixedIPs)
		}
		if x.version == 6 && now.Gateway.FixedIPs[1].SubnetID != sub.ID {
			t.Errorf("gateway %v", now.Gateway.FixedIPs)
		}
	}
	now, _ := store.Routers.Get(s.Snapshot(), taken.ID)
	if slices.ContainsFunc(now.Gateway.FixedIPs, func(f model.FixedIP) bool { return inside.CIDR.Contains(f.Address) }) {
		t.Errorf("the gateway %v is in an interface's addresses", now.Gateway.FixedIPs)
	}
}
