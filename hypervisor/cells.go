package hypervisor

import (
	"slices"
	"strconv"
	"strings"
)

// machine reads the machine's kind, which must be one with PCIe: devices are plugged into its ports.
func (r *specReader) machine() string {
	key, v := r.get("hw_machine_type")
	if v != "" && v != "q35" && !strings.HasPrefix(v, "pc-q35-") {
		r.refuse(key, v, "and guests here are of the kind q35")
	}
	return v
}

// cells reads the guest's NUMA cells: hw:numa_nodes alone divides processors and memory evenly, hw:numa_cpus.N and hw:numa_mem.N
// (MiB) say which each has, and then for all.
func (r *specReader) cells() []Cell {
	n := r.number("hw:numa_nodes", 1, 64)
	if n == 0 {
		return nil
	}
	nodes := strconv.Itoa(n)
	cells := make([]Cell, n)
	memory, used := 0, map[int]bool{}
	for i := range cells {
		suffix := "." + strconv.Itoa(i)
		cpus, cpusOf := r.get("hw:numa_cpus" + suffix)
		mem, memOf := r.get("hw:numa_mem" + suffix)
		if cpusOf == "" && memOf == "" && memory == 0 {
			continue
		}
		list, ok := cpuList(cpusOf, r.g.VCPUs)
		if !ok || len(list) == 0 || slices.ContainsFunc(list, func(c int) bool { return used[c] }) {
			r.refuse(cpus, cpusOf, "which names none of the guest's processors, or one that another cell has")
			return nil
		}
		for _, c := range list {
			used[c] = true
		}
		mib, err := strconv.Atoi(memOf)
		if err != nil || mib < 1 {
			r.refuse(mem, memOf, "which is no number of MiB")
			return nil
		}
		memory += mib
		cells[i] = Cell{list, mib}
	}
	switch {
	case memory == 0 && (r.g.VCPUs%n != 0 || r.g.MemoryMiB%n != 0):
		r.refuse("hw:numa_nodes", nodes, "which does not divide the guest's processors and memory; say which cell has what (hw:numa_cpus, hw:numa_mem)")
	case memory == 0:
		for i := range cells {
			cells[i].MemoryMiB = r.g.MemoryMiB / n
			for c := range r.g.VCPUs / n {
				cells[i].CPUs = append(cells[i].CPUs, i*(r.g.VCPUs/n)+c)
			}
		}
	case memory != r.g.MemoryMiB || len(used) != r.g.VCPUs || cells[0].MemoryMiB == 0:
		r.refuse("hw:numa_nodes", nodes, "whose cells have not just the guest's processors and memory")
	}
	return cells
}

// cpuList reads numbers below n as Nova writes them: "0-3,^2,7". It is sorted.
func cpuList(text string, n int) (list []int, ok bool) {
	has := make([]bool, n)
	var not []int
	for part := range strings.SplitSeq(text, ",") {
		part = strings.TrimSpace(part)
		out := strings.HasPrefix(part, "^")
		first, last, ranged := strings.Cut(strings.TrimPrefix(part, "^"), "-")
		if !ranged {
			last = first
		}
		a, errA := strconv.Atoi(first)
		b, errB := strconv.Atoi(last)
		if errA != nil || errB != nil || a < 0 || b < a || b >= n {
			return nil, false
		}
		for c := a; c <= b; c++ {
			if out {
				not = append(not, c)
			} else {
				has[c] = true
			}
		}
	}
	for _, c := range not {
		has[c] = false
	}
	for c := range has {
		if has[c] {
			list = append(list, c)
		}
	}
	return list, true
}
