package placement

import (
	"fmt"
	"slices"
	"strings"

	"yakumo/model"
)

// Constraints of what a server wishes of the host beside room.
const (
	Hypervisor Constraint = "hypervisor"
	Machine    Constraint = "machine"
	Firmware   Constraint = "firmware"
	TPM        Constraint = "tpm"
	Pages      Constraint = "huge_pages"
	Trait      Constraint = "trait"
	Aggregate  Constraint = "aggregate"
	Tenant     Constraint = "tenant"
	Hint       Constraint = "hint"
	Group      Constraint = "server_group"
)

// Wish is what a server wants of the host itself and of its neighbours there.
type Wish struct {
	Project    string
	Hypervisor string // QEMU, LXC; "": any that runs virtual machines
	// Specs are the flavor's extra specs. Looked at are trait:<TRAIT> (required or forbidden; of processors,
	// HW_CPU_X86_<FEATURE> and HW_CPU_HYPERTHREADING) and aggregate_instance_extra_specs:<key>, which an aggregate of the host must have as metadata.
	Specs map[string]string
	// Hardware are the image's properties that say what machine it wants. What these and Specs ask for and no host offers
	// (model.Unoffered) is refused, and so is a firmware that the host has not.
	Hardware map[string]string
	// Processors are what it wants of the host's CPUs for itself.
	Processors model.Processors
	// Memory are the huge pages that it wants of the host's NUMA nodes.
	Memory model.Paging
	// Same and Different are the ids of hosts of the servers that the hints same_host and different_host name.
	Same, Different []string
	HasSame         bool // there is a hint same_host, though its servers may have no host
	Group           *ServerGroup
}

// Containers is the hypervisor whose guests are containers: no other guest fits there, and no container elsewhere.
const Containers = "LXC"

// Policies of server groups.
const (
	Affinity         = "affinity"
	AntiAffinity     = "anti-affinity"
	SoftAffinity     = "soft-affinity"
	SoftAntiAffinity = "soft-anti-affinity"
)

// ServerGroup is a server group with where its members are.
type ServerGroup struct {
	ID     string
	Policy string
	Max    int            // of members on one host under anti-affinity; 0: 1
	Hosts  map[string]int // members by the host's id
}

// know keeps a group as it is at its first request: the pool counts on from there.
func (p *Pool) know(g *ServerGroup) {
	if g == nil || p.groups[g.ID] != nil {
		return
	}
	if p.groups == nil {
		p.groups = map[string]*ServerGroup{}
	}
	mine := &ServerGroup{ID: g.ID, Policy: g.Policy, Max: max(1, g.Max), Hosts: map[string]int{}}
	for h, n := range g.Hosts {
		mine.Hosts[h] = n
	}
	p.groups[g.ID] = mine
}

func (p *Pool) join(h *Host, g *ServerGroup) {
	if g == nil {
		return
	}
	p.know(g)
	p.groups[g.ID].Hosts[h.ID]++
}

func lacking(h *Host, w *Wish) string {
	return model.FirmwareOf(w.Specs, w.Hardware).Lacking(h.UEFI, h.SecureBoot)
}

// likes is how much a soft policy is for a host.
func (p *Pool) likes(h *Host, g *ServerGroup) int {
	if g == nil {
		return 0
	}
	n := p.groups[g.ID].Hosts[h.ID]
	switch g.Policy {
	case SoftAffinity:
		return n
	case SoftAntiAffinity:
		return -n
	}
	return 0
}

// forbids gives the first constraint of a wish that the host does not meet.
func (p *Pool) forbids(h *Host, req *Request) Constraint {
	w := &req.Wish
	switch {
	case len(w.Specs)+len(w.Hardware) > 0 && model.Unoffered(w.Specs, w.Hardware) != "":
		return Machine
	case lacking(h, w) != "":
		return Firmware
	case len(w.Specs)+len(w.Hardware) > 0 && model.TPMOf(w.Specs, w.Hardware).Lacking(h.TPM) != "":
		return TPM
	case w.Hypervisor != "" && !strings.EqualFold(w.Hypervisor, h.Hypervisor), w.Hypervisor == "" && h.Hypervisor == Containers:
		return Hypervisor
	case len(w.Specs) > 0 && lacks(h, w.Specs) != "":
		return Trait
	case len(w.Specs) > 0 && apart(h, w.Specs) != "":
		return Aggregate
	case len(h.Aggregates) > 0 && keptFor(h, w.Project) != "":
		return Tenant
	case w.HasSame && !slices.Contains(w.Same, h.ID) || slices.Contains(w.Different, h.ID):
		return Hint
	}
	if w.Group == nil {
		return ""
	}
	g := p.groups[w.Group.ID]
	if g == nil {
		return ""
	}
	switch g.Policy {
	case Affinity:
		if len(g.Hosts) > 0 && g.Hosts[h.ID] == 0 {
			return Group
		}
	case AntiAffinity:
		if g.Hosts[h.ID] >= g.Max {
			return Group
		}
	}
	return ""
}

func (p *Pool) why(h *Host, w *Wish, c Constraint) string {
	switch c {
	case Hypervisor:
		if w.Hypervisor == "" {
			return "it runs containers, and the image is not for them (img_hv_type=lxc)"
		}
		return fmt.Sprintf("it runs %s, the image is for %s", h.Hypervisor, w.Hypervisor)
	case Machine:
		return model.Unoffered(w.Specs, w.Hardware)
	case Firmware:
		return lacking(h, w)
	case TPM:
		return model.TPMOf(w.Specs, w.Hardware).Lacking(h.TPM)
	case Trait:
		return "the flavor's " + lacks(h, w.Specs)
	case Aggregate:
		return "the flavor's " + apart(h, w.Specs)
	case Tenant:
		return "an aggregate keeps it for " + keptFor(h, w.Project)
	case Hint:
		if slices.Contains(w.Different, h.ID) {
			return "a server that different_host names is on it"
		}
		return "no server that same_host names is on it"
	}
	g := p.groups[w.Group.ID]
	return fmt.Sprintf("policy %s; it has %d members of the group, %d hosts have some", g.Policy, g.Hosts[h.ID], len(g.Hosts))
}

const (
	traitSpec     = "trait:"
	cpuTrait      = "HW_CPU_X86_"
	threadTrait   = "HW_CPU_HYPERTHREADING"
	secureTrait   = "COMPUTE_SECURITY_UEFI_SECURE_BOOT"
	tpmTrait      = "COMPUTE_SECURITY_TPM_"
	aggregateSpec = "aggregate_instance_extra_specs:"
)

// lacks gives a trait that a flavor asks for and the host has not, or forbids and it has; "" none. A trait is, of
// os-traits' names, one of processors, their threads, secure boot, or a TPM: others no host has.
func lacks(h *Host, specs map[string]string) string {
	for k, v := range specs {
		name, is := strings.CutPrefix(k, traitSpec)
		if !is {
			continue
		}
		has := name == secureTrait && h.SecureBoot || name == threadTrait && h.Threads > 1
		if version, ok := strings.CutPrefix(name, tpmTrait); ok { // 1_2, 2_0
			has = slices.Contains(h.TPM, strings.ReplaceAll(version, "_", "."))
		}
		if feature, ok := strings.CutPrefix(name, cpuTrait); ok {
			_, has = slices.BinarySearch(h.Features, strings.ToLower(feature))
			if !has { // SSE42 is sse4.2 to libvirt, and AVX512F avx512f
				has = slices.ContainsFunc(h.Features, func(f string) bool {
					return strings.EqualFold(strings.NewReplacer(".", "", "-", "", "_", "").Replace(f), strings.ReplaceAll(feature, "_", ""))
				})
			}
		}
		if (v == "required") != has && (v == "required" || v == "forbidden") {
			return k + "=" + v
		}
	}
	return ""
}

// apart gives an extra spec that no aggregate of the host has as metadata, "" none. Several values are
// separated by commas in the metadata, and by <or> in the spec.
func apart(h *Host, specs map[string]string) string {
	for k, v := range specs {
		key, is := strings.CutPrefix(k, aggregateSpec)
		if !is {
			continue
		}
		wants := []string{v}
		if rest, or := strings.CutPrefix(v, "<or>"); or {
			wants = nil
			for x := range strings.SplitSeq(rest, "<or>") {
				wants = append(wants, strings.TrimSpace(x))
			}
		}
		found := slices.ContainsFunc(h.Aggregates, func(m map[string]string) bool {
			have, ok := m[key]
			return ok && slices.ContainsFunc(strings.Split(have, ","), func(x string) bool { return slices.Contains(wants, strings.TrimSpace(x)) })
		})
		if !found {
			return k + "=" + v
		}
	}
	return ""
}

// keptFor gives the projects that an aggregate keeps the host for where this one is not among them (Nova's
// filter_tenant_id, also with a suffix); "": it is free.
func keptFor(h *Host, project string) string {
	for _, m := range h.Aggregates {
		var kept []string
		for k, v := range m {
			if strings.HasPrefix(k, "filter_tenant_id") {
				for x := range strings.SplitSeq(v, ",") {
					kept = append(kept, strings.TrimSpace(x))
				}
			}
		}
		if len(kept) > 0 && !slices.Contains(kept, project) {
			slices.Sort(kept)
			return strings.Join(kept, ", ")
		}
	}
	return ""
}
