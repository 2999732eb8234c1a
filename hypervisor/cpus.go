package hypervisor

import (
	"context"
	"maps"
	"slices"
	"strconv"
)

// CPU is a CPU of a host: a thread of a core.
type CPU struct {
	ID       int   // by Linux's number
	Node     int   // the NUMA node that it is in
	Siblings []int // the threads of its core, it among them, sorted
}

// HugePages are pages of one size, in KiB, in a NUMA node of a host.
type HugePages struct{ KiB, Count, Node int }

// HostCPUs say on which of its host's CPUs a guest runs. The zero value: on any.
type HostCPUs struct {
	// Pins are the CPUs that the guest has for itself, by virtual processor; one that is not in it runs on Shared.
	Pins   map[int]int
	Shared []int // sorted; nil: any
	// Emulator is where threads run that are no virtual processor, sorted; nil: on Shared.
	Emulator []int
	// Nodes are the host's NUMA nodes that its memory is best in: one for all of it, or one for each of its Cells; nil: none is better.
	Nodes []int
	// Realtime are virtual processors, of those in Pins, that come before the host's own work, sorted; its memory is locked then.
	Realtime []int
	// Bound: the memory may be in no other nodes.
	Bound bool
}

// Pinner is a Driver that can let guests have CPUs of the host for themselves.
type Pinner interface {
	// CPUs tells on which CPUs a defined guest runs, as the hypervisor has it.
	CPUs(ctx context.Context, id string) (HostCPUs, error)
}

// check tells why no driver could run g on its CPUs.
func (h HostCPUs) check(g Guest, t Tuning) error {
	r := specReader{g: g}
	if key, policy := r.get("hw:cpu_policy"); (policy == "dedicated" || policy == "mixed") && len(h.Pins) == 0 {
		return invalid(g, "%s is %q, and it was given no CPUs for itself", key, policy)
	}
	seen := map[int]bool{}
	for _, v := range slices.Sorted(maps.Keys(h.Pins)) {
		c := h.Pins[v]
		if v < 0 || v >= g.VCPUs || c < 0 || seen[c] {
			return invalid(g, "virtual processor %d cannot have CPU %d for itself", v, c)
		}
		seen[c] = true
	}
	for _, v := range h.Realtime {
		if _, own := h.Pins[v]; !own {
			return invalid(g, "virtual processor %d cannot be real-time without a CPU for itself", v)
		}
	}
	for _, list := range [][]int{h.Shared, h.Emulator, h.Nodes} {
		if slices.ContainsFunc(list, func(c int) bool { return c < 0 }) {
			return invalid(g, "it has a CPU or a NUMA node with a negative number")
		}
	}
	if n := len(h.Nodes); n > 1 && n != len(t.Cells) {
		return invalid(g, "its memory is in %s NUMA nodes, and has %d cells", strconv.Itoa(n), len(t.Cells))
	}
	return nil
}
