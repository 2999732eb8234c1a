package e2e_test

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/layer3/floatingips"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/layer3/routers"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/security/rules"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/ports"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/subnets"

	"yakumo/images/mini/probe"
	"yakumo/lab"
)

// Services that every guest of a topology answers, whether its groups let anybody ask or not.
var topologyServices = []probe.Service{{Proto: probe.ICMP}, {Proto: probe.TCP, Port: 80}, {Proto: probe.TCP, Port: 8080}, {Proto: probe.TCP, Port: 5432}, {Proto: probe.UDP, Port: 5353}}

func serviceList(skipICMP bool) string {
	var out []string
	for _, s := range topologyServices {
		if s.Proto != probe.ICMP || !skipICMP {
			out = append(out, s.String())
		}
	}
	return strings.Join(out, ",")
}

// member is a guest of a topology.
type member struct {
	*guest
	port   *ports.Port
	v4, v6 netip.Addr
}

// topology is what TestTopology builds.
type topology struct {
	members       []*member
	outsideRoutes map[netip.Prefix]netip.Addr
	floating      []string // addresses, whoever has them now
}

// targets are all addresses that are asked for: the guests', once where tenants share one, the
// floating ones and the outside's.
func (top *topology) targets() []string {
	var out []string
	add := func(a string) {
		if !slices.Contains(out, a) {
			out = append(out, a)
		}
	}
	for _, m := range top.members {
		add(m.v4.String())
		add(m.v6.String())
	}
	for _, f := range top.floating {
		add(f)
	}
	for _, s := range lab.Segments() {
		add(s.V4.Addr().String())
		add(s.V6.Addr().String())
	}
	return out
}

// question is a probe with who sends it.
type question struct {
	from string // a guest's name, or lab.OutsideMachine
	probe.Target
}

// measure asks everything from everywhere at once, by real packets.
func (top *topology) measure(t *testing.T) map[question]probe.Result {
	t.Helper()
	list := serviceList(false) + " " + strings.Join(top.targets(), " ")
	for _, m := range top.members {
		m.must(t, "rm -f /tmp/done; (probe ask -w 3s "+list+" >/tmp/asked; touch /tmp/done) >/dev/null 2>&1 &")
	}
	out := map[question]probe.Result{}
	keep := func(from string, all []probe.Result, err error) {
		if err != nil {
			t.Fatalf("the matrix of %s: %v", from, err)
		}
		if want := len(topologyServices) * len(top.targets()); len(all) != want {
			t.Fatalf("%s gives %d results, not %d", from, len(all), want)
		}
		for _, r := range all {
			out[question{from, r.Target}] = r
		}
	}
	all, err := probeFrom(t.Context(), lab.OutsideMachine, serviceList(false), top.targets()...)
	keep(lab.OutsideMachine, all, err)
	for _, m := range top.members {
		m.until(t, "[ -e /tmp/done ]", "/tmp/asked")
		all, err := results(m.must(t, "cat /tmp/asked"))
		keep(m.name, all, err)
	}
	return out
}

// compute says the same from the API's rows.
func (top *topology) compute(ctx context.Context) (map[question]verdict, error) {
	o, err := consult(ctx)
	if err != nil {
		return nil, err
	}
	o.outsideRoutes = top.outsideRoutes
	outside := lab.Segments()[0]
	out := map[question]verdict{}
	for _, a := range top.targets() {
		dst := netip.MustParseAddr(a)
		for _, s := range topologyServices {
			target := probe.Target{Service: s, Addr: dst}
			for _, m := range top.members {
				i := slices.IndexFunc(o.ports, func(p ports.Port) bool { return p.ID == m.port.ID })
				if i < 0 {
					return nil, fmt.Errorf("the port of %s is gone", m.name)
				}
				src := m.v4
				if dst.Is6() {
					src = m.v6
				}
				out[question{m.name, target}] = o.ask(&o.ports[i], src, dst, s)
			}
			src := outside.V4.Addr()
			if dst.Is6() {
				src = outside.V6.Addr()
			}
			out[question{lab.OutsideMachine, target}] = o.askOutside(src, dst, s)
		}
	}
	return out, nil
}

// check measures until the matrix is the computed one, and tells where it differs when it does not become so.
func (top *topology) check(t *testing.T, when string) {
	t.Helper()
	names := map[string]string{lab.OutsideMachine: lab.OutsideMachine}
	for _, m := range top.members {
		names[m.id] = m.name
	}
	var began time.Time
	await(t, "the matrix "+when, bootPatience, func(ctx context.Context) string {
		began = time.Now()
		got := top.measure(t)
		want, err := top.compute(ctx)
		if err != nil {
			return err.Error()
		}
		var wrong []string
		reached := 0
		for q, r := range got {
			v := want[q]
			if r.Reached {
				reached++
			}
			// Of the outside's own addresses only the services that it has, and what others ask it.
			if toOutside := v.by == lab.OutsideMachine; toOutside && q.Proto != probe.ICMP && q.Port != lab.OutsideHTTPPort {
				if r.Reached || r.Why != "refused" {
					wrong = append(wrong, fmt.Sprintf("%s: %v, not refused", q.from, r))
				}
				continue
			} else if toOutside && q.Proto == probe.TCP {
				continue // HTTP does not greet
			}
			if r.Reached != v.reached || (r.Reached && r.Saw.IsValid() && (r.By != names[v.by] || r.Saw != v.saw)) {
				wrong = append(wrong, fmt.Sprintf("%s: %v; the rows say %v by %q saw %v %s", q.from, r, v.reached, names[v.by], v.saw, v.why))
			}
		}
		if len(wrong) == 0 {
			measured(t, "matrix %s: %d questions, %d reached, as computed, in %.1f s", when, len(got), reached, time.Since(began).Seconds())
			return ""
		}
		slices.Sort(wrong)
		return fmt.Sprintf("%d of %d differ:\n  %s", len(wrong), len(got), strings.Join(wrong[:min(200, len(wrong))], "\n  "))
	})
}

// TestTopology builds three tiers and a DMZ behind two chained routers, and a second tenant with the
// same addresses, both of both families and with floating IPs. Every guest and the outside ask every
// address for every service; the answers are those that an oracle computes from the API's rows, as
// built, after rules were changed live, and after routers and floating IPs were.
//
//	        public 203.0.113.0/24, 2001:db8:113::/64
//	            |                        |
//	 acme: edge router             zeta: edge router
//	  |      |      |                |       |
//	 dmz    web  transit            dmz     web
//	host1  host2    |              host2   host1
//	            core router
//	              |    |
//	             app   db
//	            host3 host1
func TestTopology(t *testing.T) {
	own := mine{t}
	public := newExternal(t, own, "public", lab.Segments()[0])
	acme, zeta := newTenant(t, own, "acme", "member"), newTenant(t, own, "zeta", "member")
	type tier struct {
		*subnet
		six *subnets.Subnet
	}
	newTier := func(ten *tenant, name string, n int) tier {
		net := ten.newNetwork(t, own, ten.name+"-"+name, fmt.Sprintf("10.10.%d.0/24", n))
		return tier{net, ten.newSubnet6(t, net, fmt.Sprintf("2001:db8:ac:%d::/64", n), name != "transit")}
	}
	dmz, web, app, db, transit := newTier(acme, "dmz", 1), newTier(acme, "web", 2), newTier(acme, "app", 3), newTier(acme, "db", 4), newTier(acme, "transit", 9)
	zdmz, zweb := newTier(zeta, "dmz", 1), newTier(zeta, "web", 2)

	edge := acme.newRouter(t, own, "edge", public, dmz.subnet.subnet, dmz.six, web.subnet.subnet, web.six, transit.subnet.subnet, transit.six)
	core := acme.newRouter(t, own, "core", nil, app.subnet.subnet, app.six, db.subnet.subnet, db.six)
	link, err := ports.Create(t.Context(), acme.member.Network, ports.CreateOpts{NetworkID: transit.network.ID,
		FixedIPs: []ports.IP{{SubnetID: transit.subnet.subnet.ID, IPAddress: "10.10.9.2"}, {SubnetID: transit.six.ID, IPAddress: "2001:db8:ac:9::2"}}}).Extract()
	if err != nil {
		t.Fatal(err)
	}
	acme.joinRouter(t, own, core, routers.AddInterfaceOpts{PortID: link.ID})
	back := []routers.Route{{DestinationCIDR: "10.10.3.0/24", NextHop: "10.10.9.2"}, {DestinationCIDR: "10.10.4.0/24", NextHop: "10.10.9.2"},
		{DestinationCIDR: "2001:db8:ac:3::/64", NextHop: "2001:db8:ac:9::2"}, {DestinationCIDR: "2001:db8:ac:4::/64", NextHop: "2001:db8:ac:9::2"}}
	acme.setRoutes(t, own, edge, back...)
	acme.setRoutes(t, own, core, routers.Route{DestinationCIDR: "0.0.0.0/0", NextHop: "10.10.9.1"}, routers.Route{DestinationCIDR: "::/0", NextHop: "2001:db8:ac:9::1"})
	zetaEdge := zeta.newRouter(t, own, "edge", public, zdmz.subnet.subnet, zdmz.six, zweb.subnet.subnet, zweb.six)

	// Groups: each tier is open to the one before it.
	tcp := func(port int, remote string) rules.CreateOpts {
		return rules.CreateOpts{Protocol: rules.ProtocolTCP, PortRangeMin: port, PortRangeMax: port, RemoteGroupID: remote}
	}
	gDMZ := acme.newGroupOf(t, own, "dmz", tcp(80, ""), rules.CreateOpts{Protocol: rules.ProtocolICMP})
	gWeb := acme.newGroupOf(t, own, "web", tcp(80, gDMZ.ID), rules.CreateOpts{Protocol: rules.ProtocolICMP, RemoteGroupID: gDMZ.ID})
	gApp := acme.newGroupOf(t, own, "app", tcp(8080, gWeb.ID), rules.CreateOpts{EtherType: rules.EtherType4, Protocol: rules.ProtocolUDP, PortRangeMin: 5000, PortRangeMax: 6000, RemoteIPPrefix: "10.10.0.0/16"})
	gDB := acme.newGroupOf(t, own, "db", tcp(5432, gApp.ID), rules.CreateOpts{EtherType: rules.EtherType6, Protocol: rules.ProtocolUDP, PortRangeMin: 5353, PortRangeMax: 5353, RemoteIPPrefix: "2001:db8:ac:3::/64"})
	gAll := zeta.newGroupOf(t, own, "all", rules.CreateOpts{})

	top := &topology{outsideRoutes: map[netip.Prefix]netip.Addr{}}
	add := func(ten *tenant, in tier, name, host, addr, mac string, groups ...string) *member {
		p := ten.newDualPort(t, own, in.subnet, in.six, addr, mac, groups...)
		data := fmt.Sprintf("#!/bin/sh\nprobe answer -n %s %s </dev/null >/dev/null 2>&1 &\n", name, serviceList(true))
		m := &member{guest: ten.bootOn(t, own, order{name: name, host: host, port: p.ID, userData: data}), port: p, v4: netip.MustParseAddr(addr)}
		for _, ip := range p.FixedIPs {
			if a := netip.MustParseAddr(ip.IPAddress); a.Is6() {
				m.v6 = a
			}
		}
		top.members = append(top.members, m)
		return m
	}
	mDMZ := add(acme, dmz, "acme-dmz", "host1", "10.10.1.10", "", gDMZ.ID)
	mWeb := add(acme, web, "acme-web", "host2", "10.10.2.10", "", gWeb.ID)
	add(acme, app, "acme-app", "host3", "10.10.3.10", "", gApp.ID)
	add(acme, db, "acme-db", "host1", "10.10.4.10", "", gDB.ID)
	// The second tenant has the same addresses, MACs included.
	add(zeta, zdmz, "zeta-dmz", "host2", "10.10.1.10", mDMZ.port.MACAddress, gAll.ID)
	zWeb := add(zeta, zweb, "zeta-web", "host1", "10.10.2.10", mWeb.port.MACAddress, gAll.ID)
	fDMZ, fWeb := acme.newFloating(t, own, public, mDMZ.port.ID), zeta.newFloating(t, own, public, zWeb.port.ID)
	top.floating = []string{fDMZ.FloatingIP, fWeb.FloatingIP}

	// The outside sends acme's IPv6 prefix to its edge, as a provider's router would.
	r, err := routers.Get(t.Context(), acme.member.Network, edge.ID).Extract()
	if err != nil {
		t.Fatal(err)
	}
	for _, ip := range r.GatewayInfo.ExternalFixedIPs {
		if a := netip.MustParseAddr(ip.IPAddress); a.Is6() {
			prefix := netip.MustParsePrefix("2001:db8:ac::/48")
			top.outsideRoutes[prefix] = a
			if _, err := on(t.Context(), lab.OutsideMachine, "ip", "-6", "route", "replace", prefix.String(), "via", a.String()); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if _, err := on(context.Background(), lab.OutsideMachine, "ip", "-6", "route", "del", prefix.String()); err != nil {
					t.Error(err)
				}
			})
		}
	}
	slices.SortFunc(top.members, func(a, b *member) int { return cmp.Compare(a.name, b.name) })
	for _, m := range top.members {
		m.up(t, 1)
		m.attach(t)
		m.must(t, "n=0; until ip -6 addr show dev eth0 scope global | grep -q "+m.v6.String()+"; do n=$((n+1)); [ $n -lt 200 ] || { ip -6 addr; break; }; sleep 0.1; done")
	}
	top.check(t, "as built")

	// Rules change under running guests: one goes, some come, a guest changes its groups.
	page, err := rules.List(acme.member.Network, rules.ListOpts{SecGroupID: gWeb.ID, Protocol: "tcp"}).AllPages(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	old, err := rules.ExtractRules(page)
	if err != nil || len(old) != 2 {
		t.Fatalf("%+v, %v", old, err)
	}
	for _, r := range old {
		if err := rules.Delete(t.Context(), acme.member.Network, r.ID).ExtractErr(); err != nil {
			t.Fatal(err)
		}
	}
	acme.permit(t, gWeb.ID, tcp(8080, gDMZ.ID))
	acme.permit(t, gDB.ID, rules.CreateOpts{Protocol: rules.ProtocolICMP, RemoteGroupID: gWeb.ID})
	both := []string{gWeb.ID, gApp.ID}
	if _, err := ports.Update(t.Context(), acme.member.Network, mWeb.port.ID, ports.UpdateOpts{SecurityGroups: &both}).Extract(); err != nil {
		t.Fatal(err)
	}
	top.check(t, "after rules were changed")

	// A floating IP moves, the way to the tiers behind is cut.
	if _, err := floatingips.Update(t.Context(), acme.member.Network, fDMZ.ID, floatingips.UpdateOpts{PortID: &mWeb.port.ID}).Extract(); err != nil {
		t.Fatal(err)
	}
	down := false
	acme.setRoutes(t, nil, edge, back[0], back[2])
	if _, err := routers.Update(t.Context(), zeta.member.Network, zetaEdge.ID, routers.UpdateOpts{AdminStateUp: &down}).Extract(); err != nil {
		t.Fatal(err)
	}
	top.check(t, "after a floating IP was moved, routes were cut and a router was set down")
}
