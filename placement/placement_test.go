package placement_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"yakumo/model"
	"yakumo/placement"
)

func host(name string, change ...func(*placement.Host)) *placement.Host {
	h := &placement.Host{ID: "id-" + name, Name: name, Zone: "nova", Up: true, Arch: "x86_64", Capacity: placement.Size{VCPUs: 4, MemoryMiB: 4608, DiskGiB: 100}}
	for _, c := range change {
		c(h)
	}
	return h
}

var (
	out = model.Traffic{Network: "physnet1", Direction: model.Egress}
	in  = model.Traffic{Network: "physnet1", Direction: model.Ingress}
)

var small = placement.Size{VCPUs: 1, MemoryMiB: 1024, DiskGiB: 10}

func TestEveryConstraintRefuses(t *testing.T) {
	full := func(s placement.Size) func(*placement.Host) { return func(h *placement.Host) { h.Used = s } }
	wired := func(h *placement.Host) {
		h.Link = placement.Link{Networks: []string{"physnet1"}, Capacity: map[string]int{"physnet1": 1000, model.PacketRate: 4},
			Promised: map[model.Traffic]int{out: 800}}
	}
	for _, x := range []struct {
		want   placement.Constraint
		detail string // a part of it
		host   *placement.Host
		req    placement.Request
	}{
		{placement.AskedHost, "asks for other", host("a"), placement.Request{Size: small, Host: "other"}},
		{placement.ExcludedHost, "failed", host("a"), placement.Request{Size: small, Exclude: []string{"id-a"}}},
		{placement.Down, "heard", host("a", func(h *placement.Host) { h.Up = false }), placement.Request{Size: small}},
		{placement.Disabled, "disabled", host("a", func(h *placement.Host) { h.Disabled = true }), placement.Request{Size: small}},
		{placement.Zone, "in nova", host("a"), placement.Request{Size: small, Zone: "east"}},
		{placement.Architecture, "x86_64", host("a"), placement.Request{Size: small, Arch: "aarch64"}},
		{placement.VCPUs, "64 of 64 promised (4 × 16)", host("a", full(placement.Size{VCPUs: 64})), placement.Request{Size: small}},
		{placement.VCPUs, "has 4 at all", host("a"), placement.Request{Size: placement.Size{VCPUs: 5}}},
		{placement.Memory, "6000 of 6144 promised (4096 × 1.5)", host("a", full(placement.Size{MemoryMiB: 6000})), placement.Request{Size: small}},
		{placement.Memory, "has 4608 at all", host("a"), placement.Request{Size: placement.Size{MemoryMiB: 5000}}},
		{placement.Disk, "95 of 100 promised (100 × 1)", host("a", full(placement.Size{DiskGiB: 95})), placement.Request{Size: small}},
		{placement.Reach, "no bridge for physnet2", host("a", wired), placement.Request{Size: small, Need: placement.Need{Networks: []string{"physnet1", "physnet2"}}}},
		{placement.Bandwidth, "wants 300 kbit/s egress on physnet1; 800 of 1000 promised", host("a", wired), placement.Request{Size: small,
			Need: placement.Need{Bandwidth: map[model.Traffic]int{out: 300, in: 1000}}}},
		{placement.Bandwidth, "wants 1 kbit/s ingress on tunnel; 0 of 0 promised", host("a", wired), placement.Request{Size: small,
			Need: placement.Need{Bandwidth: map[model.Traffic]int{{Network: "tunnel", Direction: "ingress"}: 1}}}},
		{placement.Bandwidth, "wants 5 thousand packets/s on packets; 0 of 4 promised", host("a", wired), placement.Request{Size: small,
			Need: placement.Need{Bandwidth: map[model.Traffic]int{{Network: model.PacketRate, Direction: model.AnyDirection}: 5}}}},
	} {
		p := placement.NewPool(placement.Ratios{}, []*placement.Host{x.host})
		h, err := p.Place(x.req)
		var r *placement.Refusal
		if h != nil || !errors.As(err, &r) || len(r.Reasons) != 1 || r.Reasons[0].Constraint != x.want {
			t.Errorf("%s: got %v, %v", x.want, h, err)
			continue
		}
		if !strings.Contains(r.Details(), x.detail) || !strings.HasPrefix(r.Details(), "a: ") {
			t.Errorf("%s: details %q do not tell %q", x.want, r.Details(), x.detail)
		}
		if text := r.Error(); strings.Contains(text, "id-a") || strings.Contains(text, "×") || !strings.Contains(text, "1 of 1") {
			t.Errorf("%s: a tenant would read %q", x.want, text)
		}
		// With what is in the way gone, the host will do.
		if got, err := placement.NewPool(placement.Ratios{}, []*placement.Host{host("a")}).Place(placement.Request{Size: small}); err != nil || got.Name != "a" {
			t.Errorf("an empty host is refused: %v", err)
		}
	}
}

func TestNoHosts(t *testing.T) {
	_, err := placement.NewPool(placement.Ratios{}, nil).Place(placement.Request{Size: small})
	if err == nil || err.Error() != "there are no hosts" {
		t.Errorf("got %v", err)
	}
}

// TestSpreads: each goes where most memory is free; equals go by name.
func TestSpreads(t *testing.T) {
	p := placement.NewPool(placement.Ratios{}, []*placement.Host{host("c"), host("a"), host("b")})
	var got []string
	for range 6 {
		h, err := p.Place(placement.Request{Size: small})
		if err != nil {
			t.Fatal(err)
		}
		p.Take(h.ID, placement.Request{Size: small})
		got = append(got, h.Name)
	}
	if want := []string{"a", "b", "c", "a", "b", "c"}; !slices.Equal(got, want) {
		t.Errorf("placed on %v, want %v", got, want)
	}
}

func TestRatiosCanBeSet(t *testing.T) {
	p := placement.NewPool(placement.Ratios{VCPU: 1, Memory: 1, Disk: 2, ReservedMiB: -1}, []*placement.Host{host("a", func(h *placement.Host) { h.Used = placement.Size{VCPUs: 3, MemoryMiB: 3584, DiskGiB: 190} })})
	if _, err := p.Place(placement.Request{Size: small}); err != nil {
		t.Errorf("what fits exactly is refused: %v", err)
	}
	p.Take("id-a", placement.Request{Size: small})
	if _, err := p.Place(placement.Request{Size: small}); err == nil {
		t.Error("more than fits is placed")
	}
}

func TestSizeOfAServer(t *testing.T) {
	s := &model.Server{Flavor: model.Flavor{VCPUs: 2, MemoryMiB: 512, DiskGiB: 5, Ephemeral: 3, SwapMiB: 1025}}
	if got, want := placement.SizeOf(s), (placement.Size{VCPUs: 2, MemoryMiB: 512, DiskGiB: 10}); got != want {
		t.Errorf("got %v, want %v", got, want)
	}
	s.Flavor.DiskGiB, s.Image.VirtualSize = 0, 1<<30+1
	if got := placement.SizeOf(s).DiskGiB; got != 2+3+2 {
		t.Errorf("a flavor without a disk takes %d GiB", got)
	}
}

// TestNeverOverfull: whatever is placed on whatever hosts, no host is promised beyond its
// ratios, and nothing is refused that would fit.
func TestNeverOverfull(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		ratios := placement.Ratios{VCPU: 2, Memory: 1.5, Disk: 1, ReservedMiB: 100}
		var hosts []*placement.Host
		for i := range rapid.IntRange(1, 5).Draw(rt, "hosts") {
			hosts = append(hosts, host(fmt.Sprint(i), func(h *placement.Host) {
				h.Up, h.Disabled = rapid.IntRange(0, 4).Draw(rt, "up") > 0, rapid.IntRange(0, 4).Draw(rt, "disabled") == 0
				h.Capacity = placement.Size{VCPUs: rapid.IntRange(0, 4).Draw(rt, "vcpus"), MemoryMiB: rapid.IntRange(0, 2000).Draw(rt, "memory"), DiskGiB: rapid.IntRange(0, 20).Draw(rt, "disk")}
			}))
		}
		p := placement.NewPool(ratios, hosts)
		fits := func(h *placement.Host, s placement.Size) bool {
			return h.Up && !h.Disabled && h.Used.VCPUs+s.VCPUs <= 2*h.Capacity.VCPUs && s.VCPUs <= h.Capacity.VCPUs &&
				h.Used.MemoryMiB+s.MemoryMiB <= int(1.5*float64(max(0, h.Capacity.MemoryMiB-100))) && s.MemoryMiB <= h.Capacity.MemoryMiB && h.Used.DiskGiB+s.DiskGiB <= h.Capacity.DiskGiB
		}
		for range rapid.IntRange(1, 30).Draw(rt, "servers") {
			s := placement.Size{VCPUs: rapid.IntRange(1, 3).Draw(rt, "v"), MemoryMiB: rapid.IntRange(1, 900).Draw(rt, "m"), DiskGiB: rapid.IntRange(0, 8).Draw(rt, "d")}
			h, err := p.Place(placement.Request{Size: s})
			if err != nil {
				if i := slices.IndexFunc(hosts, func(h *placement.Host) bool { return fits(h, s) }); i >= 0 {
					rt.Fatalf("%v fits on %v and is refused: %v", s, hosts[i], err)
				}
				var r *placement.Refusal
				if !errors.As(err, &r) || len(r.Reasons) != len(hosts) {
					rt.Fatalf("not a reason for each host: %v", err)
				}
				continue
			}
			if !fits(h, s) {
				rt.Fatalf("%v does not fit on %v", s, h)
			}
			p.Take(h.ID, placement.Request{Size: s})
		}
	})
}

func BenchmarkPlaceAmong1000Hosts(b *testing.B) {
	hosts := make([]*placement.Host, 1000)
	for i := range hosts {
		hosts[i] = host(fmt.Sprintf("h%04d", i), func(h *placement.Host) {
			h.Capacity = placement.Size{VCPUs: 1 << 20, MemoryMiB: 1 << 40, DiskGiB: 1 << 40}
		})
	}
	p := placement.NewPool(placement.Ratios{}, hosts)
	b.ReportAllocs()
	for b.Loop() {
		h, err := p.Place(placement.Request{Size: small, Zone: "nova", Arch: "x86_64"})
		if err != nil {
			b.Fatal(err)
		}
		p.Take(h.ID, placement.Request{Size: small})
	}
}

func BenchmarkRefuse1000Hosts(b *testing.B) {
	hosts := make([]*placement.Host, 1000)
	for i := range hosts {
		hosts[i] = host(fmt.Sprintf("h%04d", i))
	}
	p := placement.NewPool(placement.Ratios{}, hosts)
	for b.Loop() {
		if _, err := p.Place(placement.Request{Size: placement.Size{VCPUs: 99}}); err == nil {
			b.Fatal("placed")
		}
	}
}

// TestBandwidthIsPromisedOnce: servers fill a host's link exactly, each direction by itself.
func TestBandwidthIsPromisedOnce(t *testing.T) {
	p := placement.NewPool(placement.Ratios{}, []*placement.Host{host("a", func(h *placement.Host) {
		h.Capacity = placement.Size{VCPUs: 100, MemoryMiB: 1 << 20, DiskGiB: 1 << 20}
		h.Link = placement.Link{Networks: []string{"physnet1"}, Capacity: map[string]int{"physnet1": 1000}}
	})})
	req := placement.Request{Size: small, Need: placement.Need{Networks: []string{"physnet1"}, Bandwidth: map[model.Traffic]int{out: 400}}}
	other := req
	other.Need.Bandwidth = map[model.Traffic]int{in: 1000}
	for i, x := range []struct {
		req placement.Request
		ok  bool
	}{{req, true}, {req, true}, {req, false}, {other, true}, {other, false}} {
		h, err := p.Place(x.req)
		if (err == nil) != x.ok {
			t.Fatalf("server %d: %v, %v", i, h, err)
		}
		if err == nil {
			p.Take(h.ID, x.req)
		}
	}
}
