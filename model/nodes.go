package model

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Cell is a NUMA cell of a guest: some of its virtual processors, and memory.
type Cell struct {
	CPUs      []int // sorted
	MemoryMiB int
}

// maxCells bounds the cells of a guest.
const maxCells = 64

// CellsOf reads hw:numa_nodes and what belongs to it of a flavor's extra specs and an image's properties, by Nova's rules
// (https://docs.openstack.org/nova/latest/admin/cpu-topologies.html). nil: the guest is told of no cells. wrong, in Nova's words, says why no server
// can have them; "": it can.
func CellsOf(vcpus, memoryMiB int, specs, hardware map[string]string) (cells []Cell, wrong string) {
	no := func(format string, args ...any) ([]Cell, string) { return nil, fmt.Sprintf(format, args...) }
	read := func(name string) (value, wrong string) {
		flavor, image := strings.TrimSpace(specs["hw:"+name]), strings.TrimSpace(hardware["hw_"+name])
		if flavor != "" && image != "" {
			base, _, _ := strings.Cut(name, ".")
			return "", "Image property 'hw_" + base + "' is not permitted to override NUMA configuration set against the flavor"
		}
		return cmp.Or(flavor, image), ""
	}
	count, wrong := read("numa_nodes")
	if count == "" || wrong != "" {
		return nil, wrong
	}
	n, err := strconv.Atoi(count)
	if err != nil || n < 1 || n > maxCells {
		return no("The property 'numa_nodes' cannot be '%s'. It must be a number greater than 0", clip(count))
	}
	cells = make([]Cell, n)
	memory, owner, said := 0, map[int]bool{}, 0
	for i := range cells {
		cpus, wrongCPUs := read("numa_cpus." + strconv.Itoa(i))
		mem, wrongMem := read("numa_mem." + strconv.Itoa(i))
		switch {
		case wrongCPUs+wrongMem != "":
			return nil, cmp.Or(wrongCPUs, wrongMem)
		case cpus == "" && mem == "":
			continue
		case cpus == "" || mem == "":
			return no("CPU and memory allocation must be provided for all NUMA nodes")
		}
		said++
		list, ok := CPUList(cpus)
		if !ok {
			return no("Invalid inclusion expression '%s'", clip(cpus))
		}
		for _, c := range list {
			switch {
			case c >= vcpus:
				return no("CPU number %d is larger than max %d", c, vcpus-1)
			case owner[c]:
				return no("CPU number %d is assigned to two nodes", c)
			}
			owner[c] = true
		}
		mib, err := strconv.Atoi(mem)
		if err != nil || mib < 1 || mib > memoryMiB || len(list) == 0 {
			return no("%s MB of memory assigned, but expected %d MB", clip(mem), memoryMiB)
		}
		memory += mib
		cells[i] = Cell{list, mib}
	}
	switch {
	case said == 0 && (vcpus%n != 0 || memoryMiB%n != 0):
		return no("Instance CPUs and/or memory cannot be evenly distributed across instance NUMA nodes. Explicit assignment of CPUs and memory to nodes is required")
	case said == 0:
		for i := range cells {
			cells[i].MemoryMiB = memoryMiB / n
			for c := range vcpus / n {
				cells[i].CPUs = append(cells[i].CPUs, i*(vcpus/n)+c)
			}
		}
	case said < n:
		return no("CPU and memory allocation must be provided for all NUMA nodes")
	case len(owner) != vcpus:
		for c := range vcpus {
			if !owner[c] {
				return no("CPU number %d is not assigned to any node", c)
			}
		}
	case memory != memoryMiB:
		return no("%d MB of memory assigned, but expected %d MB", memory, memoryMiB)
	}
	return cells, ""
}

// Paging is memory in huge pages that a server asks for. The zero value has none.
type Paging struct {
	KiB   int   // the size of a page
	Cells []int // the pages of each of its cells, at least one
}

// PagingOf reads what memory a server asks for in huge pages; see PageKiB and CellsOf. What cannot be counts as one cell.
func PagingOf(vcpus, memoryMiB int, specs, hardware map[string]string) Paging {
	kib := PageKiB(specs, hardware)
	if kib == 0 {
		return Paging{}
	}
	pages := func(mib int) int { return (mib<<10 + kib - 1) / kib }
	cells, _ := CellsOf(vcpus, memoryMiB, specs, hardware)
	if len(cells) == 0 {
		return Paging{kib, []int{pages(memoryMiB)}}
	}
	p := Paging{KiB: kib}
	for _, c := range cells {
		p.Cells = append(p.Cells, pages(c.MemoryMiB))
	}
	return p
}

// On gives the pages of a server whose cells are in these nodes.
func (p Paging) On(nodes []int) (out []HugePages) {
	for i, n := range nodes {
		if i < len(p.Cells) {
			out = append(out, HugePages{KiB: p.KiB, Count: p.Cells[i], Node: n})
		}
	}
	return out
}

// Pools are a host's huge pages that are free.
type Pools []HugePages

// NewPools gives pools of which nothing is taken.
func NewPools(all []HugePages) Pools { return slices.Clone(all) }

// Take takes pages, of a pool that has too few all that there are.
func (p Pools) Take(pages ...HugePages) {
	for _, t := range pages {
		for i := range p {
			if p[i].KiB == t.KiB && p[i].Node == t.Node {
				p[i].Count = max(0, p[i].Count-t.Count)
			}
		}
	}
}

// Fit gives a node for each cell that has as many free pages; cells of one server have nodes of their own where they can, and rather those that liked
// says something for, then those with the fewest pages left. Not ok: there are none. It takes nothing.
func (p Pools) Fit(want Paging, liked func(node, cell int) int) (nodes []int, ok bool) {
	left := NewPools(slices.DeleteFunc(slices.Clone(p), func(x HugePages) bool { return x.KiB != want.KiB }))
	nodes = make([]int, len(want.Cells))
	order := make([]int, len(want.Cells))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(want.Cells[b], want.Cells[a]) })
	used := map[int]bool{}
	for _, cell := range order {
		best := -1
		for i, x := range left {
			if x.Count < want.Cells[cell] {
				continue
			}
			if best < 0 || cmp.Or(cmp.Compare(truth(used[x.Node]), truth(used[left[best].Node])), cmp.Compare(liked(left[best].Node, cell), liked(x.Node, cell)),
				cmp.Compare(x.Count, left[best].Count), cmp.Compare(x.Node, left[best].Node)) < 0 {
				best = i
			}
		}
		if best < 0 {
			return nil, false
		}
		nodes[cell] = left[best].Node
		used[left[best].Node] = true
		left[best].Count -= want.Cells[cell]
	}
	return nodes, true
}

// FreeOf says what is free in pages of a size, MiB by node.
func (p Pools) FreeOf(kib int) string {
	var parts []string
	for _, x := range p {
		if x.KiB == kib {
			parts = append(parts, fmt.Sprintf("%d MiB in node %d", x.Count*(kib>>10), x.Node))
		}
	}
	return cmp.Or(strings.Join(parts, ", "), "none")
}
