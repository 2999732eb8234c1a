package ovs_test

import (
	"context"
	"net/netip"
	"testing"

	"yakumo/datapath"
	"yakumo/datapath/dptest"
	"yakumo/model"
)

// desk is the server's part in who holds a shared address: it takes the newest claim, and tells all hosts.
type desk struct {
	t      *testing.T
	hosts  []*host
	rows   [][]model.HostRow
	claims chan datapath.Event
}

// newDesk gives hosts their rows, and answers what they claim until the test ends.
func newDesk(t *testing.T, hosts []*host, rows ...[]model.HostRow) {
	d := &desk{t: t, hosts: hosts, rows: rows, claims: make(chan datapath.Event, 1024)}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	for i, h := range hosts {
		h.events = func(e datapath.Event) {
			if e.Kind == datapath.Claimed {
				d.claims <- e
			}
		}
		prune(t, h, rows[i])
	}
	go func() {
		defer close(done)
		held := model.Held{}
		for {
			select {
			case e := <-d.claims:
				if e.Claim.Seen != held.Turn {
					continue // older than what all have been told since
				}
				held = model.Held{Address: e.Claim.Address, MAC: e.Claim.MAC, Turn: held.Turn + 1}
				d.tell(ctx, e.Port, held)
			case <-ctx.Done():
				return
			}
		}
	}()
	t.Cleanup(func() { stop(); <-done })
}

// tell has each host know who holds the address.
func (d *desk) tell(ctx context.Context, port model.ID, held model.Held) {
	for i, h := range d.hosts {
		var changed []model.HostRow
		for _, row := range d.rows[i] {
			var list []model.Held
			if row.RowID().Key == port {
				list = []model.Held{held}
			}
			switch r := row.(type) {
			case *model.HostPort:
				c := *r
				c.Held = list
				changed = append(changed, &c)
			case *model.HostPeer:
				c := *r
				c.Held = list
				changed = append(changed, &c)
			}
		}
		if err := h.drv.Apply(ctx, changed, nil); err != nil && ctx.Err() == nil {
			d.t.Errorf("tell host %d who holds %v: %v", i, held.Address, err)
		}
	}
}

// behindRouter makes the rows of a router between the network of NewNetwork, or DualNetwork, and another, and a port there.
func behindRouter() (router *model.HostRouter, network *model.HostNetwork, port *model.HostPort) {
	router = &model.HostRouter{ID: "r", AdminStateUp: true, Interfaces: []model.HostRouterPort{
		{PortID: "r-net", NetworkID: "net", VNI: 5_000_000, MAC: "fa:16:3f:00:00:01", MTU: 1450,
			Addresses: []netip.Prefix{netip.MustParsePrefix("10.0.0.1/16"), netip.MustParsePrefix("fd00::1/64")}},
		{PortID: "r-far", NetworkID: "far", VNI: 5_000_001, MAC: "fa:16:3f:00:00:02", MTU: 1450,
			Addresses: []netip.Prefix{netip.MustParsePrefix("10.9.0.1/16"), netip.MustParsePrefix("fd09::1/64")}}}}
	network = &model.HostNetwork{ID: "far", VNI: 5_000_001, MTU: 1450}
	port = dptest.NewPort("far", 5_000_001, "d", 8, "all")
	port.FixedIPs = []model.FixedIP{{Address: netip.MustParseAddr("10.9.0.7")}, {Address: netip.MustParseAddr("fd09::7")}}
	return router, network, port
}

// routeVia gives guests routes by the router of behindRouter.
func routeVia(t *testing.T, far *kernelGuest, near ...*kernelGuest) {
	ip(t, "-n", far.ns, "route", "add", "10.0.0.0/16", "via", "10.9.0.1")
	for _, g := range near {
		ip(t, "-n", g.ns, "route", "add", "10.9.0.0/16", "via", "10.0.0.1")
	}
}

// routeVia6 is routeVia by IPv6; the address of the guest far away is its second.
func routeVia6(t *testing.T, far *kernelGuest, near ...*kernelGuest) {
	ip(t, "-n", far.ns, "-6", "addr", "add", "fd09::7/64", "dev", "eth0", "nodad")
	ip(t, "-n", far.ns, "-6", "route", "add", "fd00::/64", "via", "fd09::1")
	for _, g := range near {
		ip(t, "-n", g.ns, "-6", "route", "replace", "fd09::/64", "via", "fd00::1")
	}
}

// A guest that had an address before it was allowed, and said so when nobody listened, is asked for it.
func TestHeldAddressIsAskedFor(t *testing.T) {
	f := newFabric(t)
	h0, h1 := f.newHost(t), f.newHost(t)
	router, network, pd := behindRouter()
	pa := dptest.NewPort("net", 5_000_000, "a", 5, "all")
	vip := netip.MustParseAddr("10.0.0.100")
	near := []model.HostRow{dptest.NewNetwork("net", 5_000_000), dptest.AllowAll("all"), pa, network, router, dptest.PeerOf(pd, h1.addr)}
	away := []model.HostRow{dptest.NewNetwork("net", 5_000_000), dptest.AllowAll("all"), pd, network, router, dptest.PeerOf(pa, h0.addr)}
	newDesk(t, []*host{h0, h1}, near, away)
	a, d := bootKernel(t, h0, pa, 1450), bootKernel(t, h1, pd, 1450)
	routeVia(t, d, a)
	ip(t, "-n", a.ns, "addr", "add", vip.String()+"/32", "dev", "eth0")
	reach := func() bool {
		_, got, _ := d.ping(t, "-c", "1", "-W", "0.3", vip.String())
		return got == 1
	}
	dptest.WaitFor(t, "the underlay to learn its neighbours", func() bool {
		_, got, _ := d.ping(t, "-c", "1", "-W", "0.3", a.addr().String())
		return got == 1
	})
	if reach() {
		t.Fatal("an address that no port may have is reached")
	}
	paired := *pa
	paired.Pairs = []model.AddressPair{{Prefix: netip.PrefixFrom(vip, 32)}}
	near[2] = &paired // before the first claim comes
	if err := h0.drv.Apply(t.Context(), []model.HostRow{&paired}, nil); err != nil {
		t.Fatal(err)
	}
	dptest.WaitFor(t, "the router to find the address", reach)
}
