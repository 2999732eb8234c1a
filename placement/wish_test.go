package placement_test

import (
	"errors"
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"yakumo/model"
	"yakumo/placement"
)

// own asks for n CPUs.
func own(n int, threads string) model.Processors {
	p := model.Processors{Threads: threads}
	for v := range n {
		p.Dedicated = append(p.Dedicated, v)
	}
	return p
}

// TestWishes: each kind of wish, met and not met, with the constraint that is told.
func TestWishes(t *testing.T) {
	size := placement.Size{VCPUs: 1, MemoryMiB: 1}
	plain := func(h *placement.Host) {
		h.Capacity = placement.Size{VCPUs: 8, MemoryMiB: 4096, DiskGiB: 10}
		h.Hypervisor, h.Features = "QEMU", []string{"avx2", "sse4.2"}
		h.Aggregates = []map[string]string{{"ssd": "true,yes"}, {"rack": "7"}}
	}
	paged := func(h *placement.Host) {
		plain(h)
		h.Capacity.PagesMiB, h.Used.PagesMiB, h.Capacity.PCPUs, h.Used.PCPUs, h.Threads = [2]int{10, 0}, [2]int{8, 0}, 6, 3, 2
		for id := range 6 { // three cores: one is taken, one is half taken
			h.Seats.Kept = append(h.Seats.Kept, model.HostCPU{ID: id, Siblings: []int{id &^ 1, id | 1}})
		}
		h.Seats.Given = []model.HostGiven{{ServerID: "a", CPUs: []int{0, 1}}, {ServerID: "b", CPUs: []int{2}}, {ServerID: "gone", CPUs: []int{4, 5}}}
		h.Seats.Servers = func() []placement.Seated {
			return []placement.Seated{{ID: "a", Wish: own(2, "")}, {ID: "b", Wish: own(1, "")}}
		}
	}
	unthreaded := func(h *placement.Host) {
		plain(h)
		h.Capacity.PCPUs, h.Seats.Kept = 2, []model.HostCPU{{ID: 0, Siblings: []int{0}}, {ID: 1, Siblings: []int{1}}}
	}
	moduled := func(h *placement.Host) {
		plain(h)
		h.TPM = []string{"2.0"}
	}
	flashed := func(h *placement.Host) {
		plain(h)
		h.UEFI = true
	}
	sealed := func(h *placement.Host) {
		flashed(h)
		h.SecureBoot = true
	}
	kept := func(h *placement.Host) {
		plain(h)
		h.Aggregates = []map[string]string{{"filter_tenant_id": "red, blue"}}
	}
	boxes := func(h *placement.Host) {
		plain(h)
		h.Hypervisor = "LXC"
	}
	for name, c := range map[string]struct {
		shape func(*placement.Host)
		wish  placement.Wish
		want  placement.Constraint
		more  placement.Size
	}{
		"none":                                  {plain, placement.Wish{}, "", placement.Size{}},
		"hypervisor":                            {plain, placement.Wish{Hypervisor: "qemu"}, "", placement.Size{}},
		"other hypervisor":                      {plain, placement.Wish{Hypervisor: "lxc"}, placement.Hypervisor, placement.Size{}},
		"a container":                           {boxes, placement.Wish{Hypervisor: "lxc"}, "", placement.Size{}},
		"no container":                          {boxes, placement.Wish{}, placement.Hypervisor, placement.Size{}},
		"a machine for containers":              {boxes, placement.Wish{Hypervisor: "qemu"}, placement.Hypervisor, placement.Size{}},
		"trait":                                 {plain, placement.Wish{Specs: map[string]string{"trait:HW_CPU_X86_AVX2": "required"}}, "", placement.Size{}},
		"trait with a dot":                      {plain, placement.Wish{Specs: map[string]string{"trait:HW_CPU_X86_SSE42": "required"}}, "", placement.Size{}},
		"trait that is not there":               {plain, placement.Wish{Specs: map[string]string{"trait:HW_CPU_X86_AVX512F": "required"}}, placement.Trait, placement.Size{}},
		"trait of something else":               {plain, placement.Wish{Specs: map[string]string{"trait:STORAGE_DISK_SSD": "required"}}, placement.Trait, placement.Size{}},
		"forbidden trait":                       {plain, placement.Wish{Specs: map[string]string{"trait:HW_CPU_X86_AVX2": "forbidden"}}, placement.Trait, placement.Size{}},
		"forbidden, not there":                  {plain, placement.Wish{Specs: map[string]string{"trait:HW_CPU_X86_AVX512F": "forbidden"}}, "", placement.Size{}},
		"aggregate":                             {plain, placement.Wish{Specs: map[string]string{"aggregate_instance_extra_specs:ssd": "true"}}, "", placement.Size{}},
		"one of several":                        {plain, placement.Wish{Specs: map[string]string{"aggregate_instance_extra_specs:rack": "<or> 6 <or> 7"}}, "", placement.Size{}},
		"aggregate of another kind":             {plain, placement.Wish{Specs: map[string]string{"aggregate_instance_extra_specs:ssd": "no"}}, placement.Aggregate, placement.Size{}},
		"unknown spec":                          {plain, placement.Wish{Specs: map[string]string{"hw:cpu_policy": "shared"}}, "", placement.Size{}},
		"kept for it":                           {kept, placement.Wish{Project: "blue"}, "", placement.Size{}},
		"kept for others":                       {kept, placement.Wish{Project: "green"}, placement.Tenant, placement.Size{}},
		"firmware of an image":                  {plain, placement.Wish{Hardware: map[string]string{"hw_firmware_type": "uefi"}}, placement.Firmware, placement.Size{}},
		"firmware that is there":                {flashed, placement.Wish{Hardware: map[string]string{"hw_firmware_type": "uefi", "os_secure_boot": "optional"}}, "", placement.Size{}},
		"secure boot":                           {flashed, placement.Wish{Specs: map[string]string{"os:secure_boot": "required"}, Hardware: map[string]string{"hw_firmware_type": "uefi"}}, placement.Firmware, placement.Size{}},
		"secure boot that is there":             {sealed, placement.Wish{Hardware: map[string]string{"hw_firmware_type": "uefi", "os_secure_boot": "required"}}, "", placement.Size{}},
		"secure boot of a BIOS":                 {sealed, placement.Wish{Hardware: map[string]string{"os_secure_boot": "required"}}, placement.Firmware, placement.Size{}},
		"a TPM":                                 {moduled, placement.Wish{Specs: map[string]string{"hw:tpm_version": "2.0"}}, "", placement.Size{}},
		"no TPM of that version":                {moduled, placement.Wish{Hardware: map[string]string{"hw_tpm_version": "1.2"}}, placement.TPM, placement.Size{}},
		"no TPM":                                {plain, placement.Wish{Hardware: map[string]string{"hw_tpm_version": "2.0"}}, placement.TPM, placement.Size{}},
		"trait of a TPM":                        {moduled, placement.Wish{Specs: map[string]string{"trait:COMPUTE_SECURITY_TPM_2_0": "required", "trait:COMPUTE_SECURITY_TPM_1_2": "forbidden"}}, "", placement.Size{}},
		"no trait of a TPM":                     {plain, placement.Wish{Specs: map[string]string{"trait:COMPUTE_SECURITY_TPM_2_0": "required"}}, placement.Trait, placement.Size{}},
		"trait of secure boot":                  {sealed, placement.Wish{Specs: map[string]string{"trait:COMPUTE_SECURITY_UEFI_SECURE_BOOT": "required"}}, "", placement.Size{}},
		"no trait of secure boot":               {flashed, placement.Wish{Specs: map[string]string{"trait:COMPUTE_SECURITY_UEFI_SECURE_BOOT": "required"}}, placement.Trait, placement.Size{}},
		"a machine that all offer":              {plain, placement.Wish{Specs: map[string]string{"hw:cpu_policy": "shared", "hw:mem_page_size": "small"}, Hardware: map[string]string{"hw_firmware_type": "bios"}}, "", placement.Size{}},
		"same host":                             {plain, placement.Wish{HasSame: true, Same: []string{"id-a"}}, "", placement.Size{}},
		"same as nobody":                        {plain, placement.Wish{HasSame: true}, placement.Hint, placement.Size{}},
		"different host":                        {plain, placement.Wish{Different: []string{"id-a"}}, placement.Hint, placement.Size{}},
		"huge pages":                            {paged, placement.Wish{}, "", placement.Size{PagesMiB: [2]int{2, 0}}},
		"huge pages that others have":           {paged, placement.Wish{}, placement.Pages, placement.Size{PagesMiB: [2]int{4, 0}}},
		"huge pages of another size":            {paged, placement.Wish{}, placement.Pages, placement.Size{PagesMiB: [2]int{0, 1}}},
		"huge pages of no host":                 {plain, placement.Wish{}, placement.Pages, placement.Size{PagesMiB: [2]int{2, 0}}},
		"a trait of cores":                      {paged, placement.Wish{Specs: map[string]string{"trait:HW_CPU_HYPERTHREADING": "forbidden"}}, placement.Trait, placement.Size{}},
		"a trait that cores have":               {paged, placement.Wish{Specs: map[string]string{"trait:HW_CPU_HYPERTHREADING": "required"}}, "", placement.Size{}},
		"CPUs of its own":                       {paged, placement.Wish{}, "", placement.Size{PCPUs: 3}},
		"CPUs that others have":                 {paged, placement.Wish{}, placement.PCPUs, placement.Size{PCPUs: 4}},
		"CPUs that no host keeps":               {plain, placement.Wish{}, placement.PCPUs, placement.Size{PCPUs: 1}},
		"threads that nobody else has":          {paged, placement.Wish{Processors: own(2, "isolate")}, placement.Siblings, placement.Size{PCPUs: 2}},
		"threads that nobody else has, yes":     {paged, placement.Wish{Processors: own(1, "isolate")}, "", placement.Size{PCPUs: 1}},
		"threads of one core":                   {paged, placement.Wish{Processors: own(3, "require")}, placement.Siblings, placement.Size{PCPUs: 3}},
		"threads of one core, yes":              {paged, placement.Wish{Processors: own(2, "require")}, "", placement.Size{PCPUs: 2}},
		"any threads, yes":                      {paged, placement.Wish{Processors: own(3, "")}, "", placement.Size{PCPUs: 3}},
		"threads where cores have one":          {unthreaded, placement.Wish{Processors: own(1, "require")}, placement.Siblings, placement.Size{PCPUs: 1}},
		"a core for itself where they have one": {unthreaded, placement.Wish{Processors: own(2, "isolate")}, "", placement.Size{PCPUs: 2}},
	} {
		t.Run(name, func(t *testing.T) {
			p := placement.NewPool(placement.Ratios{}, []*placement.Host{host("a", c.shape)})
			_, err := p.Place(placement.Request{Size: size.Add(c.more), Wish: c.wish})
			var r *placement.Refusal
			switch {
			case c.want == "" && err != nil:
				t.Error(err)
			case c.want != "" && (!errors.As(err, &r) || r.Reasons[0].Constraint != c.want || r.Reasons[0].Detail == string(c.want) || r.Error() == ""):
				t.Errorf("refused for %v, want %s", err, c.want)
			}
		})
	}
}

// TestPoliciesHold places members of random groups, and looks that hard policies were never broken, that a refusal
// had no host that would have done, and that soft policies were followed where they could be.
func TestPoliciesHold(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		hosts := rapid.IntRange(1, 6).Draw(rt, "hosts")
		var all []*placement.Host
		for i := range hosts {
			all = append(all, host(fmt.Sprint(i), func(h *placement.Host) {
				h.Capacity = placement.Size{VCPUs: 100, MemoryMiB: rapid.IntRange(600, 4000).Draw(rt, "memory"), DiskGiB: 10}
			}))
		}
		p := placement.NewPool(placement.Ratios{Memory: 1, ReservedMiB: -1}, all)
		policies := []string{placement.Affinity, placement.AntiAffinity, placement.SoftAffinity, placement.SoftAntiAffinity}
		policy := policies[rapid.IntRange(0, 3).Draw(rt, "policy")]
		limit := rapid.IntRange(0, 3).Draw(rt, "max")
		at := map[string]int{}
		for range rapid.IntRange(1, 20).Draw(rt, "members") {
			// As a controller does it: the group as the store has it, which is behind what the pool has placed.
			req := placement.Request{Size: placement.Size{VCPUs: 1, MemoryMiB: 200}, Wish: placement.Wish{Group: &placement.ServerGroup{ID: "g", Policy: policy, Max: limit}}}
			may := func(h *placement.Host) bool {
				room := h.Used.MemoryMiB+200 <= h.Capacity.MemoryMiB
				switch policy {
				case placement.Affinity:
					return room && (len(at) == 0 || at[h.ID] > 0)
				case placement.AntiAffinity:
					return room && at[h.ID] < max(1, limit)
				}
				return room
			}
			best := -1 << 20
			some := false
			like := func(h *placement.Host) int {
				switch policy {
				case placement.SoftAffinity:
					return at[h.ID]
				case placement.SoftAntiAffinity:
					return -at[h.ID]
				}
				return 0
			}
			for _, h := range all {
				if may(h) {
					some, best = true, max(best, like(h))
				}
			}
			h, err := p.Place(req)
			if (err == nil) != some {
				rt.Fatalf("placed: %v, %v; members %v", h, err, at)
			}
			if err != nil {
				continue
			}
			if !may(h) || like(h) != best {
				rt.Fatalf("%s: on %s with %d members, of %v", policy, h.ID, at[h.ID], at)
			}
			p.Take(h.ID, req)
			at[h.ID]++
		}
	})
}
