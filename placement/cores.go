package placement

import (
	"fmt"
	"slices"
	"strings"

	"yakumo/model"
)

// Siblings is the constraint of who asks for CPUs of its own by a policy of their threads.
const Siblings Constraint = "cpu_threads"

// Seats are the CPUs that a host keeps for single servers and its huge pages, with who has which. The zero value has none.
type Seats struct {
	Kept  []model.HostCPU
	Pages []model.HugePages
	// Given is what the host has said of who has which.
	Given []model.HostGiven
	// Servers are those that are on the host, or on their way to it or from it, and ask for CPUs of their own or huge pages.
	Servers func() []Seated

	cores *model.Cores // what is known of all that; nil: not asked yet
	free  model.CoresFree
	pools model.Pools
}

// Seated is a server that has CPUs of a host for itself, or was promised some.
type Seated struct {
	ID     string
	Wish   model.Processors
	Memory model.Paging
}

// count finds what is free: less what the host gave to servers that are still there, and what those will get that it has not said of. It
// will choose for these in its own order, so that two that come at once may find cores divided otherwise; who then finds nothing is placed elsewhere.
func (s *Seats) count() model.CoresFree {
	if s.cores != nil {
		return s.free
	}
	s.cores, s.pools = model.NewCores(s.Kept), model.NewPools(s.Pages)
	var coming []Seated
	if s.Servers != nil {
		for _, x := range s.Servers() {
			if i := slices.IndexFunc(s.Given, func(g model.HostGiven) bool { return g.ServerID == x.ID }); i >= 0 {
				s.cores.Take(s.Given[i].CPUs...)
				s.pools.Take(s.Given[i].Pages...)
			} else {
				coming = append(coming, x)
			}
		}
	}
	for _, x := range coming {
		s.seat(&x.Wish, x.Memory)
	}
	s.free = s.cores.Free()
	return s.free
}

func (s *Seats) seat(p *model.Processors, memory model.Paging) {
	if nodes, ok := s.pools.Fit(memory, anywhere); ok {
		s.pools.Take(memory.On(nodes)...)
	}
	if seat, ok := s.cores.Choose(p, [][]int{p.Dedicated}, 1, nil); ok {
		for _, id := range seat.Pins {
			s.cores.Take(id)
		}
		s.cores.Take(seat.Emulator...)
		s.cores.Take(seat.Idle...)
	}
}

func anywhere(_, _ int) int { return 0 }

// take accounts for a server that was promised CPUs or pages.
func (s *Seats) take(p *model.Processors, memory model.Paging) {
	if len(p.Dedicated) == 0 && memory.KiB == 0 {
		return
	}
	s.count()
	s.seat(p, memory)
	s.free = s.cores.Free()
}

// threaded tells whether the number alone does not say who has a seat.
func (s *Seats) threaded() bool {
	return slices.ContainsFunc(s.Kept, func(c model.HostCPU) bool { return len(c.Siblings) > 1 })
}

// short says why a server has no CPUs there by its policy of threads, with the numbers; "": it has.
func (s *Seats) short(p *model.Processors) string {
	if len(p.Dedicated) == 0 || p.Threads == model.ThreadsPrefer && !s.threaded() {
		return ""
	}
	free := s.count()
	if free.Fits(p) {
		return ""
	}
	n := len(p.Dedicated)
	more := ""
	if p.Own() > n {
		more = " and one more"
	}
	switch p.Threads {
	case model.ThreadsRequire:
		if !s.threaded() {
			return "no free sibling threads: CPU thread policy require; no core that is kept for single servers has several threads"
		}
		return fmt.Sprintf("no free sibling threads: wants %d CPUs with a sibling%s; %d of %d that are kept for single servers are free, %d of them with a sibling", n, more, free.CPUs, len(s.Kept), free.Paired)
	case model.ThreadsIsolate:
		return fmt.Sprintf("no free cores: CPU thread policy isolate wants %d whole cores%s; %d are wholly free, and %d CPUs of others", n, more, free.Whole, free.Broken)
	}
	return fmt.Sprintf("wants %d CPUs for itself; %d of %d that are kept for single servers are free", p.Own(), free.CPUs, len(s.Kept))
}

// apart says why a server's cells have no NUMA nodes there with as many huge pages, with the numbers; "": they have.
func (s *Seats) apart(memory model.Paging) string {
	if memory.KiB == 0 {
		return ""
	}
	s.count()
	if _, ok := s.pools.Fit(memory, anywhere); ok {
		return ""
	}
	cells := make([]string, len(memory.Cells))
	for i, n := range memory.Cells {
		cells[i] = fmt.Sprint(n * (memory.KiB >> 10))
	}
	return fmt.Sprintf("wants %s MiB in pages of %d KiB, each in one NUMA node; free are %s", strings.Join(cells, " and "), memory.KiB, s.pools.FreeOf(memory.KiB))
}
