package agent

import (
	"cmp"
	"slices"

	"yakumo/hypervisor"
)

// choose picks a free CPU for each virtual processor of cells, and one more where extra. Each cell has its CPUs in one NUMA node where one has
// enough, and cells of one guest in nodes of their own where they can; threads of one core go together, and cores that are in use already are
// taken before whole ones for what is left over. Where there are enough CPUs in all, there is a choice: no request that fits by number is refused.
//
// nodes is how many NUMA nodes the host has: with one, nothing is said of nodes.
func choose(free []hypervisor.CPU, cells [][]int, extra bool, nodes int) (own ownCPUs, ok bool) {
	left := slices.Clone(free)
	own.Pins = map[int]int{}
	var used []int // nodes of cells before
	for _, cell := range cells {
		if len(cell) > len(left) {
			return ownCPUs{}, false
		}
		var got []hypervisor.CPU
		for len(got) < len(cell) {
			node := nodeFor(left, len(cell)-len(got), used)
			more := fill(left, node, len(cell)-len(got))
			got = append(got, more...)
			left = slices.DeleteFunc(left, func(c hypervisor.CPU) bool {
				return slices.ContainsFunc(more, func(x hypervisor.CPU) bool { return x.ID == c.ID })
			})
		}
		for i, v := range cell {
			own.Pins[v] = got[i].ID
		}
		if len(got) > 0 {
			used = append(used, got[0].Node) // the node that has the most of it
		}
	}
	if extra {
		if len(left) == 0 {
			return ownCPUs{}, false
		}
		node := left[0].Node
		if len(used) > 0 && slices.ContainsFunc(left, func(c hypervisor.CPU) bool { return c.Node == used[0] }) {
			node = used[0]
		}
		own.Emulator = []int{fill(left, node, 1)[0].ID}
	}
	if nodes > 1 && len(used) == len(cells) {
		own.Nodes = used
	}
	return own, true
}

// nodeFor gives the node that n CPUs are best taken of: one that has as many, rather one that is not used yet, then the one with the fewest free;
// else the one with the most. The caller sees to it that any CPU is left.
func nodeFor(left []hypervisor.CPU, n int, used []int) int {
	count := map[int]int{}
	for _, c := range left {
		count[c.Node]++
	}
	rank := func(a, b int) int {
		if fa, fb := count[a] >= n, count[b] >= n; fa != fb {
			return cmp.Compare(truth(fb), truth(fa))
		} else if !fa {
			return cmp.Or(cmp.Compare(count[b], count[a]), cmp.Compare(a, b))
		}
		return cmp.Or(cmp.Compare(truth(slices.Contains(used, a)), truth(slices.Contains(used, b))), cmp.Compare(count[a], count[b]), cmp.Compare(a, b))
	}
	best := left[0].Node
	for node := range count {
		if rank(node, best) < 0 {
			best = node
		}
	}
	return best
}

func truth(b bool) int {
	if b {
		return 1
	}
	return 0
}

// fill takes at most n CPUs of a node, core by core: the one with the most free threads that are all wanted, else the one with the fewest.
func fill(left []hypervisor.CPU, node, n int) (out []hypervisor.CPU) {
	cores := map[int][]hypervisor.CPU{} // by their first thread
	for _, c := range left {
		if c.Node == node {
			cores[c.Siblings[0]] = append(cores[c.Siblings[0]], c)
		}
	}
	for len(out) < n && len(cores) > 0 {
		best := -1
		for core, threads := range cores {
			if best < 0 {
				best = core
				continue
			}
			a, b := len(threads), len(cores[best])
			switch fa, fb := a <= n-len(out), b <= n-len(out); {
			case fa != fb:
				if fa {
					best = core
				}
			case a == b && core < best, fa && a > b, !fa && a < b:
				best = core
			}
		}
		take := min(n-len(out), len(cores[best]))
		out = append(out, cores[best][:take]...)
		delete(cores, best)
	}
	return out
}
