package pipeline_test

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"syscall"
	"testing"
	"time"

	"pgregory.net/rapid"

	"yakumo/datapath"
	"yakumo/datapath/pipeline"
	"yakumo/model"
)

func newProgram() *pipeline.Program {
	env := pipeline.DefaultEnv()
	env.PhysicalNetworks = []string{"physnet1"}
	return pipeline.NewProgram(env, datapath.NewMemoryOrdinals())
}

func apply(t interface{ Fatalf(string, ...any) }, p *pipeline.Program, rows ...model.HostRow) pipeline.Delta {
	d, err := p.Apply(rows, nil)
	if err != nil {
		t.Fatalf("apply: %v", err)
	}
	return d
}

// table is what a switch holds that was told every Delta.
type table map[pipeline.Key]string

func (s table) take(d pipeline.Delta) {
	for _, e := range d.Delete {
		delete(s, e.Key)
	}
	for _, e := range d.Put {
		s[e.Key] = e.Entry.String()
	}
}

func (s table) lines() []string {
	var out []string
	for _, l := range s {
		out = append(out, l)
	}
	slices.Sort(out)
	return out
}

// drawRow makes any row of a small world in which rows refer to each other a lot.
func drawRow(t *rapid.T) model.HostRow {
	n := rapid.IntRange(1, 6).Draw(t, "n")
	net := rapid.IntRange(1, 2).Draw(t, "net")
	g := func() string { return fmt.Sprintf("g%d", rapid.IntRange(1, 3).Draw(t, "group")) }
	netID, vni := fmt.Sprintf("n%d", net), uint32(70000+net)
	switch rapid.IntRange(0, 8).Draw(t, "kind") {
	case 0:
		r := network(netID, vni)
		if rapid.Bool().Draw(t, "flood") {
			r.Flood = []netip.Addr{netip.MustParseAddr("192.0.2.9")}
		}
		r.Subnets[0].DHCP = rapid.Bool().Draw(t, "dhcp")
		return r
	case 1:
		r := port(fmt.Sprintf("p%d", n), netID, vni, n)
		r.PortSecurity = rapid.Bool().Draw(t, "security")
		r.AdminStateUp = rapid.IntRange(0, 9).Draw(t, "up") > 0
		for i := rapid.IntRange(0, 2).Draw(t, "groups"); i > 0; i-- {
			r.Groups = append(r.Groups, g())
		}
		if rapid.Bool().Draw(t, "six") {
			r.FixedIPs = append(r.FixedIPs, model.FixedIP{SubnetID: netID + "-s6", Address: netip.AddrFrom16([16]byte{0: 0xfd, 15: byte(n)})})
		}
		if rapid.Bool().Draw(t, "pair") {
			r.Pairs = []model.AddressPair{{Prefix: netip.MustParsePrefix("10.0.0.200/32"), MAC: "00:00:5e:00:01:01"}}
		}
		return r
	case 6:
		r := router(fmt.Sprintf("r%d", net), "10.0.0.1/24", "10.1.0.1/24", "fd00::1/64")
		r.AdminStateUp = rapid.IntRange(0, 9).Draw(t, "up") > 0
		r.Interfaces = r.Interfaces[:rapid.IntRange(0, 3).Draw(t, "interfaces")]
		r.Gateway.Active, r.Gateway.SNAT = rapid.Bool().Draw(t, "active"), rapid.Bool().Draw(t, "snat")
		for i := range r.Interfaces {
			r.Interfaces[i].Scope4 = rapid.SampledFrom([]model.ID{"", "red", "blue"}).Draw(t, "scope")
			r.Interfaces[i].Scope6 = rapid.SampledFrom([]model.ID{"", "six"}).Draw(t, "scope of IPv6")
		}
		r.Gateway.Scope4 = rapid.SampledFrom([]model.ID{"", "red"}).Draw(t, "scope outside")
		if rapid.Bool().Draw(t, "routes") {
			r.Routes = []model.Route{{Destination: netip.MustParsePrefix("0.0.0.0/0"), NextHop: netip.MustParseAddr("10.0.0.9")}, {Destination: netip.MustParsePrefix("192.168.0.0/16"), NextHop: netip.MustParseAddr("203.0.113.7")}}
		}
		if rapid.Bool().Draw(t, "inner") {
			r.Gateway = nil
		}
		return r
	case 7:
		f := &model.HostFloating{ID: fmt.Sprintf("f%d", n), RouterID: fmt.Sprintf("r%d", net), NetworkID: "e", VNI: 100000, Address: netip.AddrFrom4([4]byte{203, 0, 113, byte(20 + n)}), MAC: mac("f", n)}
		f.QoS.IngressKbps = rapid.SampledFrom([]int{0, 1000}).Draw(t, "limit")
		if rapid.Bool().Draw(t, "fixed") {
			f.Fixed = netip.AddrFrom4([4]byte{10, 0, 0, byte(n)})
		}
		if rapid.Bool().Draw(t, "forward") {
			f.Forwards = []model.HostForward{{ID: f.ID + "-w", Protocol: "tcp", External: 2222, Internal: 22, Count: 2, Address: netip.MustParseAddr("10.0.0.3")}}
		}
		return f
	case 8:
		return &model.HostNeighbor{NetworkID: "e", VNI: 100000, Address: netip.AddrFrom4([4]byte{203, 0, 113, byte(n)}), MAC: mac("o", n)}
	case 2:
		return peer(fmt.Sprintf("q%d", n), netID, vni, 10+n, "192.0.2.9")
	case 3:
		r := group(g())
		r.Stateful = rapid.IntRange(0, 4).Draw(t, "stateless") > 0
		for i := range rapid.IntRange(0, 3).Draw(t, "rules") {
			r.Rules = append(r.Rules, rule(fmt.Sprintf("%s-r%d", r.ID, i), rapid.SampledFrom([]string{model.Ingress, model.Egress}).Draw(t, "direction"), func(x *model.HostRule) {
				x.EtherType = rapid.SampledFrom([]string{model.IPv4, model.IPv6}).Draw(t, "family")
				if rapid.Bool().Draw(t, "remote") {
					x.RemoteGroupID = g()
				} else if rapid.Bool().Draw(t, "set") {
					x.AddressGroupID = "set"
				} else if rapid.Bool().Draw(t, "prefix") {
					x.RemotePrefix = netip.MustParsePrefix("10.0.0.0/28")
				}
				if rapid.Bool().Draw(t, "service") {
					x.Protocol, x.PortMin, x.PortMax = "tcp", num(22), num(rapid.IntRange(22, 24).Draw(t, "max"))
				}
			}))
		}
		return r
	}
	if rapid.IntRange(0, 3).Draw(t, "listener") == 0 {
		return &model.HostListener{NetworkID: netID, VNI: vni, PortID: fmt.Sprintf("p%d", n), Group: netip.MustParseAddr("239.0.0.1")}
	}
	if rapid.IntRange(0, 3).Draw(t, "addresses") == 0 {
		return &model.HostAddresses{ID: "set", Prefixes: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/28"), netip.MustParsePrefix("fd00::/64")}}
	}
	return member(g(), fmt.Sprintf("p%d", n), fmt.Sprintf("10.0.0.%d/32", n), fmt.Sprintf("fd00::%d/128", n))
}

// A member that joins a group of 10,000 is one row of at most 1 KB and changes only its own entries.
func TestMemberJoins(t *testing.T) {
	p := newProgram()
	addr6 := func(i int) string {
		return netip.AddrFrom16([16]byte{0: 0xfd, 14: byte(i >> 8), 15: byte(i)}).String() + "/128"
	}
	join := func(i int) *model.HostMember {
		return member("big", fmt.Sprintf("5f0c1d52-3d8a-4a60-9a4b-%012d", i), fmt.Sprintf("10.%d.%d.%d/32", i>>16, i>>8&255, i&255), addr6(i))
	}
	rows := []model.HostRow{network("n", 70000), port("p", "n", 70000, 1, "big"), group("big",
		rule("r1", model.Ingress, func(r *model.HostRule) { r.RemoteGroupID = "big" }),
		rule("r2", model.Ingress, func(r *model.HostRule) { r.RemoteGroupID, r.Protocol = "big", "udp" }),
		rule("r3", model.Ingress, func(r *model.HostRule) { r.RemoteGroupID, r.EtherType = "big", model.IPv6 }),
		rule("r4", model.Egress, func(r *model.HostRule) { r.RemoteGroupID, r.EtherType, r.Protocol = "big", model.IPv6, "tcp" }))}
	for i := range 10_000 {
		rows = append(rows, join(i))
	}
	apply(t, p, rows...)
	row := join(10_000)
	b, err := json.Marshal(row)
	if err != nil || len(b) > 1024 {
		t.Fatalf("row of %d bytes, %v", len(b), err)
	}
	d := apply(t, p, row)
	if len(d.Put) != 3 || len(d.Delete) != 0 { // in by IPv4, in and out by IPv6
		t.Fatalf("%d entries put and %d deleted, want 3 and 0", len(d.Put), len(d.Delete))
	}
	for _, in := range d.Put {
		if owners := p.OwnersOf(in.Key); len(owners) != 1 || owners[0] != row.RowID() {
			t.Errorf("%v belongs to %v", in.Entry, owners)
		}
	}
	d, err = p.Apply(nil, []model.RowID{row.RowID()})
	if err != nil || len(d.Put) != 0 || len(d.Delete) != 3 {
		t.Fatalf("%d entries put and %d deleted, want 0 and 3: %v", len(d.Put), len(d.Delete), err)
	}
}

// An address group that changes costs the entries of the prefixes that changed.
func TestAddressesChange(t *testing.T) {
	p := newProgram()
	set := func(first, n int) *model.HostAddresses {
		a := &model.HostAddresses{ID: "set"}
		for i := range n {
			a.Prefixes = append(a.Prefixes, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte((first + i) >> 8), byte(first + i), 0}), 24))
		}
		return a
	}
	apply(t, p, set(0, 1000), group("g", rule("r1", model.Ingress, func(r *model.HostRule) { r.AddressGroupID = "set" })))
	d := apply(t, p, set(1, 1000))
	if len(d.Put) != 1 || len(d.Delete) != 1 {
		t.Fatalf("%d entries put and %d deleted, want 1 and 1", len(d.Put), len(d.Delete))
	}
}

// Whatever the order and grouping of changes, the switch that was told the differences
// holds what a Program makes of the final rows at once.
func TestIncrementalEqualsFull(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ord := datapath.NewMemoryOrdinals()
		p := pipeline.NewProgram(pipeline.DefaultEnv(), ord)
		rows := map[model.RowID]model.HostRow{}
		told := table{}
		for range rapid.IntRange(1, 12).Draw(t, "changes") {
			var up []model.HostRow
			var down []model.RowID
			for range rapid.IntRange(0, 4).Draw(t, "upserts") {
				r := drawRow(t)
				up = append(up, r)
			}
			for range rapid.IntRange(0, 2).Draw(t, "removes") {
				down = append(down, drawRow(t).RowID())
			}
			for _, id := range down {
				delete(rows, id)
			}
			for _, r := range up {
				rows[r.RowID()] = r
			}
			d, err := p.Apply(up, down)
			if err != nil {
				t.Fatalf("apply: %v", err)
			}
			told.take(d)
		}
		var all []model.HostRow
		for _, r := range rows {
			all = append(all, r)
		}
		full := pipeline.NewProgram(pipeline.DefaultEnv(), ord)
		want := table{}
		want.take(apply(t, full, all...))
		if got, want := told.lines(), want.lines(); !slices.Equal(got, want) {
			t.Fatalf("incremental:\n%q\nfull:\n%q", got, want)
		}
		if p.Conflicts() != full.Conflicts() {
			t.Fatalf("conflicts: %d and %d", p.Conflicts(), full.Conflicts())
		}
		// All gone: only the base is left.
		var ids []model.RowID
		for id := range rows {
			ids = append(ids, id)
		}
		d, err := p.Apply(nil, ids)
		if err != nil {
			t.Fatalf("remove all: %v", err)
		}
		told.take(d)
		env := pipeline.DefaultEnv()
		if got, want := len(told), len(pipeline.Base(&env)); got != want {
			t.Fatalf("%d entries left, want the %d of the base", got, want)
		}
	})
}

// One more member of a large group costs its own entries and nothing else.
func TestMemberDelta(t *testing.T) {
	p := newProgram()
	g := group("g", rule("r1", model.Ingress, func(r *model.HostRule) { r.RemoteGroupID = "g" }))
	rows := []model.HostRow{network("n", 5000), port("p", "n", 5000, 5, "g"), g}
	for i := range 10000 {
		rows = append(rows, member("g", fmt.Sprintf("m%d", i), fmt.Sprintf("10.%d.%d.1/32", i>>8, i&255)))
	}
	apply(t, p, rows...)
	d := apply(t, p, member("g", "new", "10.200.0.1/32"))
	if len(d.Put) != 1 || len(d.Delete) != 0 {
		t.Fatalf("put %d, delete %d; want one put", len(d.Put), len(d.Delete))
	}
	if got, want := d.Put[0].Entry.String(), "group-in 400 ip ip_src=10.200.0.1 -> conj 1 2/2"; got != want {
		t.Fatalf("got %q, want %q", got, want)
	}
}

// The same address in two sets is one entry with both conjunctions, and loses only its own
// part when one set lets go of it.
func TestConjunctionsUnite(t *testing.T) {
	p := newProgram()
	g := group("g",
		rule("r1", model.Ingress, func(r *model.HostRule) { r.RemoteGroupID = "a" }),
		rule("r2", model.Ingress, func(r *model.HostRule) { r.RemoteGroupID = "b" }))
	told := table{}
	told.take(apply(t, p, port("p", "n", 7, 5, "g"), network("n", 7), g, member("a", "x", "10.0.0.9/32"), member("b", "x", "10.0.0.9/32")))
	if !slices.Contains(told.lines(), "group-in 400 ip ip_src=10.0.0.9 -> conj 1 2/2; conj 2 2/2") {
		t.Fatalf("no united entry in %q", told.lines())
	}
	d, err := p.Apply(nil, []model.RowID{{Kind: model.RowMember, Key: "a,x"}})
	if err != nil || len(d.Put) != 1 || len(d.Delete) != 0 || d.Put[0].Entry.String() != "group-in 400 ip ip_src=10.0.0.9 -> conj 2 2/2" {
		t.Fatalf("got %v, %v", d, err)
	}
}

// A row that cannot be compiled harms no other, and is mended by its next version.
func TestBadRow(t *testing.T) {
	p := newProgram()
	bad := port("p", "n", 7, 5)
	bad.MAC = "not a mac"
	if _, err := p.Apply([]model.HostRow{network("n", 7), bad, port("q", "n", 7, 6)}, nil); err == nil {
		t.Fatal("a port without a MAC was compiled")
	}
	if _, err := p.Complete("p"); err == nil {
		t.Fatal("the bad port is complete")
	}
	if _, err := p.Complete("q"); err != nil {
		t.Fatalf("the other port: %v", err)
	}
	apply(t, p, port("p", "n", 7, 5))
	if _, err := p.Complete("p"); err != nil {
		t.Fatalf("the mended port: %v", err)
	}
}

// Two rows that want different things for one match are a defect that is seen, and the
// result does not depend on who came first.
func TestConflict(t *testing.T) {
	a, b := peer("a", "n", 7, 5, "192.0.2.1"), peer("b", "n", 7, 5, "192.0.2.2")
	want := ""
	for _, rows := range [][]model.HostRow{{a, b}, {b, a}} {
		p, told := newProgram(), table{}
		for _, r := range rows {
			told.take(apply(t, p, r))
		}
		if p.Conflicts() != 1 {
			t.Fatalf("%d conflicts, want 1", p.Conflicts())
		}
		got := fmt.Sprint(told.lines())
		if want == "" {
			want = got
		}
		if got != want {
			t.Fatalf("got %s, then %s", want, got)
		}
	}
}

// mixed gives the rows of a host of a mixed cloud: ports and peers of routed networks, groups with members,
// floating addresses.
func mixed(ports int) []model.HostRow {
	g := group("g", rule("r0", model.Egress, nil), rule("r1", model.Ingress, func(r *model.HostRule) { r.RemoteGroupID = "g" }),
		rule("r2", model.Ingress, func(r *model.HostRule) { r.Protocol, r.PortMin, r.PortMax = "tcp", num(22), num(22) }))
	rows := []model.HostRow{g}
	for i := range ports {
		k := i / 10
		n := fmt.Sprintf("n%d", k)
		if i%10 == 0 {
			r := router(fmt.Sprintf("r%d", k), fmt.Sprintf("10.%d.%d.1/24", k>>8, k&255))
			r.Interfaces[0].NetworkID, r.Interfaces[0].VNI = n, uint32(k+1)
			r.Gateway.Active = k%2 == 0
			rows = append(rows, network(n, uint32(k+1), "192.0.2.1", "192.0.2.2"), r)
		}
		id := fmt.Sprintf("p%d", i)
		rows = append(rows, port(id, n, uint32(k+1), i, "g"), peer("q"+id, n, uint32(k+1), 30000+i, "192.0.2.1"), member("g", id, fmt.Sprintf("10.0.%d.%d/32", i>>8, i&255)))
		if i%10 == 5 {
			rows = append(rows, &model.HostFloating{ID: "f" + id, RouterID: fmt.Sprintf("r%d", k), NetworkID: "e", VNI: 100000, MAC: fmt.Sprintf("fa:16:3f:01:%02x:%02x", k>>8, k&255),
				Address: netip.AddrFrom4([4]byte{203, 0, byte(k >> 8), byte(k)}), Fixed: netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})})
		}
	}
	return rows
}

// BenchmarkCompile reports entries a second of processor time, whatever else the machine does.
func BenchmarkCompile(b *testing.B) {
	for _, size := range []int{1000, 10000} {
		b.Run(fmt.Sprintf("ports=%d", size), func(b *testing.B) {
			rows := mixed(size)
			ord := datapath.NewMemoryOrdinals()
			entries := 0
			b.ReportAllocs()
			begin := processorTime(b)
			for b.Loop() {
				p := pipeline.NewProgram(pipeline.DefaultEnv(), ord)
				if _, err := p.Apply(rows, nil); err != nil {
					b.Fatal(err)
				}
				entries += p.Len()
			}
			b.ReportMetric(float64(entries)/(processorTime(b)-begin).Seconds(), "entries/cpu-s")
			b.ReportMetric(float64(entries)/float64(b.N), "entries")
		})
	}
}

// processorTime is what the process has used, the collector's work included.
func processorTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
