package model

import (
	"cmp"
	"slices"
)

// Cores are the CPUs that a host keeps for single servers, and which of them are free. The host's agent chooses by it, and placement by the same
// rules whether there will be a choice.
type Cores struct {
	kept []HostCPU
	busy map[int]bool
}

// NewCores gives cores of which nothing is taken.
func NewCores(kept []HostCPU) *Cores { return &Cores{kept, map[int]bool{}} }

// Take says that CPUs are not free, whether they are kept or not.
func (c *Cores) Take(ids ...int) {
	for _, id := range ids {
		c.busy[id] = true
	}
}

// Seat is what a server was given of a host's CPUs.
type Seat struct {
	Pins     map[int]int // the CPU of each virtual processor that has one for itself
	Emulator []int       // one more, for the threads that are no virtual processor
	Idle     []int       // that have to run nothing, sorted
	Nodes    []int       // the NUMA node of each cell; nil: nothing is said of nodes
}

// CoresFree counts what is free.
type CoresFree struct {
	CPUs   int // all
	Paired int // of these, those with a sibling that is free too
	Whole  int // cores all of whose threads are kept and free
	Broken int // CPUs that are free in other cores
}

// Free counts what is free.
func (c *Cores) Free() (f CoresFree) {
	free := c.free()
	f.CPUs = len(free)
	f.Paired = len(c.only(free, ThreadsRequire))
	for _, x := range free {
		switch {
		case !c.whole(x):
			f.Broken++
		case x.ID == slices.Min(x.Siblings):
			f.Whole++
		}
	}
	return f
}

// Fits tells whether the server has a choice where so much is free.
func (f CoresFree) Fits(p *Processors) bool {
	switch n := len(p.Dedicated); {
	case f.CPUs < p.Own():
		return false
	case p.Threads == ThreadsRequire:
		return f.Paired >= n
	case p.Threads == ThreadsIsolate:
		return f.Whole >= n && (p.Own() == n || f.Whole > n || f.Broken > 0)
	}
	return true
}

func (c *Cores) free() (out []HostCPU) {
	for _, x := range c.kept {
		if !c.busy[x.ID] {
			out = append(out, x)
		}
	}
	return out
}

// whole tells whether all threads of a CPU's core are kept and free.
func (c *Cores) whole(x HostCPU) bool {
	return !slices.ContainsFunc(x.Siblings, func(id int) bool {
		return c.busy[id] || !slices.ContainsFunc(c.kept, func(k HostCPU) bool { return k.ID == id })
	})
}

// only leaves, of CPUs that are free, those that a policy of threads allows.
func (c *Cores) only(free []HostCPU, threads string) []HostCPU {
	return slices.DeleteFunc(slices.Clone(free), func(x HostCPU) bool {
		switch threads {
		case ThreadsRequire:
			return !slices.ContainsFunc(free, func(o HostCPU) bool { return o.ID != x.ID && slices.Contains(x.Siblings, o.ID) })
		case ThreadsIsolate:
			return !c.whole(x) || x.ID != slices.Min(x.Siblings)
		}
		return false
	})
}

// In gives how many CPUs of a NUMA node are free.
func (c *Cores) In(node int) (n int) {
	for _, x := range c.free() {
		n += truth(x.Node == node)
	}
	return n
}

// Choose picks a free CPU for each virtual processor of the cells (those of p.Dedicated, divided), by p's policy of threads, and one more where p
// isolates its emulator. Each cell has its CPUs in one NUMA node where one has enough, and cells of one server in nodes of their own where they can;
// threads of one core go together, and cores that are in use already are taken before whole ones for what is left over. Not ok: Free().Fits(p) is false,
// and only then. It takes nothing.
//
// nodes is how many NUMA nodes the host has: with one, nothing is said of nodes. at are those that the cells' memory is in; nil: in any.
func (c *Cores) Choose(p *Processors, cells [][]int, nodes int, at []int) (own Seat, ok bool) {
	all := c.free()
	left := c.only(all, p.Threads)
	own.Pins = map[int]int{}
	var used []int // nodes of cells before
	for i, cell := range cells {
		if len(cell) > len(left) {
			return Seat{}, false
		}
		near := -1
		if i < len(at) {
			near = at[i]
		}
		var got []HostCPU
		for len(got) < len(cell) {
			node := nodeFor(left, len(cell)-len(got), near, used)
			more := fill(left, node, len(cell)-len(got))
			got = append(got, more...)
			left = without(left, more)
		}
		all = without(all, got)
		for i, v := range cell {
			own.Pins[v] = got[i].ID
			if p.Threads == ThreadsIsolate {
				own.Idle = append(own.Idle, slices.DeleteFunc(slices.Clone(got[i].Siblings), func(id int) bool { return id == got[i].ID })...)
			}
		}
		if len(got) > 0 {
			used = append(used, got[0].Node) // the node that has the most of it
		}
	}
	slices.Sort(own.Idle)
	if p.Own() > len(p.Dedicated) {
		all = slices.DeleteFunc(all, func(x HostCPU) bool { return slices.Contains(own.Idle, x.ID) })
		if p.Threads == ThreadsIsolate { // a core that is broken already is no loss
			if broken := slices.DeleteFunc(slices.Clone(all), c.whole); len(broken) > 0 {
				all = broken
			}
		}
		if len(all) == 0 {
			return Seat{}, false
		}
		node := all[0].Node
		if len(used) > 0 && slices.ContainsFunc(all, func(x HostCPU) bool { return x.Node == used[0] }) {
			node = used[0]
		}
		own.Emulator = []int{fill(all, node, 1)[0].ID}
	}
	if nodes > 1 && len(used) == len(cells) {
		own.Nodes = used
	}
	return own, true
}

// without leaves out what was taken.
func without(list, taken []HostCPU) []HostCPU {
	return slices.DeleteFunc(list, func(c HostCPU) bool {
		return slices.ContainsFunc(taken, func(x HostCPU) bool { return x.ID == c.ID })
	})
}

// nodeFor gives the node that n CPUs are best taken of: one that has as many, rather this one (near), then one that is not used yet, then the one with the fewest free;
// else the one with the most. The caller sees to it that any CPU is left.
func nodeFor(left []HostCPU, n, near int, used []int) int {
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
		return cmp.Or(cmp.Compare(truth(b == near), truth(a == near)), cmp.Compare(truth(slices.Contains(used, a)), truth(slices.Contains(used, b))), cmp.Compare(count[a], count[b]), cmp.Compare(a, b))
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
func fill(left []HostCPU, node, n int) (out []HostCPU) {
	cores := map[int][]HostCPU{} // by their first thread
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
