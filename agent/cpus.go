package agent

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"yakumo/fault"
	"yakumo/hypervisor"
	"yakumo/model"
)

// cpus divides the host's CPUs and huge pages: those of Config.Dedicated are for guests that have CPUs for themselves, the others are for all
// others. Which CPU is whose stands in the guests' progress, on disk before a guest has it; what is free is found from there each time.
type cpus struct {
	a *Agent

	mu     sync.Mutex      // held from the look at what is free until it is kept who has it
	kept   []model.HostCPU // for guests that have CPUs for themselves
	shared []int           // the numbers of the others
	nodes  int             // NUMA nodes of the host; 0: the hypervisor has not told yet
	pools  []model.HugePages
}

// ownCPUs are CPUs of the host that a guest has for itself.
type ownCPUs struct {
	Pins     map[int]int `json:"pins"`               // by virtual processor
	Emulator []int       `json:"emulator,omitempty"` // one more, for its other threads
	Idle     []int       `json:"idle,omitempty"`     // that run nothing, as they are siblings of Pins
	Threads  string      `json:"threads,omitempty"`  // model.Processors.Threads that they were chosen by
	Nodes    []int       `json:"nodes,omitempty"`    // hypervisor.HostCPUs.Nodes
}

// list gives the CPUs, sorted, with those that are idle for it.
func (o *ownCPUs) list() []int {
	if o == nil {
		return nil
	}
	return slices.Sorted(slices.Values(slices.Concat(slices.Collect(maps.Values(o.Pins)), o.Emulator, o.Idle)))
}

// serves tells whether the CPUs are what is asked for, and all still kept for such.
func (o *ownCPUs) serves(want model.Processors, kept []model.HostCPU) bool {
	return o != nil && o.Threads == want.Threads && slices.Equal(slices.Sorted(maps.Keys(o.Pins)), want.Dedicated) && (want.Emulator == "isolate") == (len(o.Emulator) == 1) &&
		!slices.ContainsFunc(o.list(), func(id int) bool {
			return !slices.ContainsFunc(kept, func(c model.HostCPU) bool { return c.ID == id })
		})
}

// processorsOf reads what a server asks of the host's CPUs. What cannot be is refused before there is such a server; one that is older than
// that rule shares.
func processorsOf(row *model.HostServer) model.Processors {
	p, _ := model.ProcessorsOf(row.VCPUs, row.ExtraSpecs, row.Image.Hardware)
	return p
}

// learn keeps what the hypervisor said of the host's CPUs.
func (c *cpus) learn(host hypervisor.Capacity) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.divide(host)
}

// divide parts the host's CPUs. What is to be kept and is not there counts for nothing. The caller holds mu.
func (c *cpus) divide(host hypervisor.Capacity) {
	nodes := map[int]bool{}
	c.kept, c.shared = nil, nil
	for _, x := range host.CPUs {
		nodes[x.Node] = true
		if slices.Contains(c.a.cfg.Dedicated, x.ID) {
			c.kept = append(c.kept, model.HostCPU(x))
		} else {
			c.shared = append(c.shared, x.ID)
		}
	}
	c.nodes, c.pools = len(nodes), nil
	for _, p := range host.HugePages {
		c.pools = append(c.pools, model.HugePages(p))
	}
}

// known sees to it that the host's CPUs are divided, where any are to be kept, or its pages asked for. The caller holds mu.
func (c *cpus) known(ctx context.Context, pages bool) error {
	if len(c.a.cfg.Dedicated) == 0 && !pages || c.nodes > 0 {
		return nil
	}
	all, err := c.a.cfg.Hypervisor.Capacity(ctx)
	if err != nil {
		return fmt.Errorf("learn the host's CPUs: %w", err)
	}
	if c.divide(all); c.nodes == 0 && len(c.a.cfg.Dedicated) > 0 {
		return fault.New(fault.Unavailable, "The hypervisor does not tell which CPUs the host has.")
	}
	return nil
}

// of gives the CPUs that a guest with this progress runs on, and the nodes that its memory is in.
func (c *cpus) of(ctx context.Context, row *model.HostServer, p *progress) (hypervisor.HostCPUs, error) {
	want, own := processorsOf(row), p.CPUs
	c.mu.Lock()
	err := c.known(ctx, false)
	shared := c.shared
	c.mu.Unlock()
	if err != nil {
		return hypervisor.HostCPUs{}, err
	}
	if len(c.a.cfg.Dedicated) == 0 {
		shared = nil // on any
	}
	h := hypervisor.HostCPUs{Shared: shared}
	if own != nil && len(own.Pins) > 0 {
		h.Nodes = own.Nodes
	}
	if p.Memory != nil && len(p.Memory.Nodes) > 0 {
		h.Nodes, h.Bound = p.Memory.Nodes, true
	}
	if own == nil || len(own.Pins) == 0 {
		return h, nil
	}
	h.Pins, h.Realtime = own.Pins, want.Realtime
	switch pins := slices.Sorted(maps.Values(own.Pins)); {
	case len(own.Emulator) > 0:
		h.Emulator = own.Emulator
	case want.Emulator == "share" && len(shared) > 0:
		h.Emulator = shared
	case len(pins) < row.VCPUs:
		h.Emulator = slices.Sorted(slices.Values(slices.Concat(pins, shared)))
	default:
		h.Emulator = pins
	}
	return h, nil
}

// assign sees to it that a guest that is not on has the CPUs for itself and the huge pages that it asks for, and keeps which. Those that it has it keeps.
func (c *cpus) assign(ctx context.Context, row *model.HostServer, p *progress) error {
	want, paging := processorsOf(row), pagingOf(row)
	_, can := c.a.cfg.Hypervisor.(hypervisor.Pinner)
	if !can {
		paging = model.Paging{}
	}
	if len(want.Dedicated) == 0 && p.CPUs == nil && paging.KiB == 0 && p.Memory == nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	own, memory := p.CPUs, p.Memory
	if len(want.Dedicated) == 0 { // it was rebuilt, or resized
		own = nil
	}
	if paging.KiB == 0 {
		memory = nil
	}
	if err := c.known(ctx, paging.KiB > 0); err != nil {
		return err
	}
	seat := len(want.Dedicated) > 0 && !own.serves(want, c.kept)
	pages := paging.KiB > 0 && !memory.serves(paging, c.pools)
	if !seat && !pages {
		if own == p.CPUs && memory == p.Memory {
			return nil
		}
		p.CPUs, p.Memory = own, memory
		return c.a.keep(row.ID, p)
	}
	if !can {
		return fault.New(fault.Invalid, "The hypervisor cannot give a guest CPUs for itself.")
	}
	taken, leaving, err := c.taken(ctx, row.ID)
	if err != nil {
		return err
	}
	cells, err := cellsOf(row, want)
	if err != nil {
		return err
	}
	cores := model.NewCores(c.kept)
	cores.Take(slices.Collect(maps.Keys(taken))...)
	if pages {
		if memory, err = c.choosePages(ctx, row, paging, cores, cells); err != nil {
			return err
		}
	}
	if seat {
		var at []int
		if memory != nil {
			at = memory.Nodes
		}
		chosen, ok := cores.Choose(&want, cells, c.nodes, at)
		if !ok {
			return c.noSeat(want, cores, taken, leaving)
		}
		own = &ownCPUs{Pins: chosen.Pins, Emulator: chosen.Emulator, Idle: chosen.Idle, Threads: want.Threads, Nodes: chosen.Nodes}
	}
	p.CPUs, p.Memory = own, memory
	if err := c.a.keep(row.ID, p); err != nil {
		return err
	}
	c.a.log.Info("a guest has CPUs or huge pages for itself", "server", row.ID, "cpus", own.list(), "pages", memory.list(), "request_id", row.RequestID)
	c.a.link.FactsChanged()
	return nil
}

// noSeat says why a guest cannot have CPUs for itself: errWaiting where guests are about to leave some.
func (c *cpus) noSeat(want model.Processors, cores *model.Cores, taken, leaving map[int]bool) error {
	maps.DeleteFunc(taken, func(id int, _ bool) bool { return leaving[id] })
	soon := model.NewCores(c.kept)
	if soon.Take(slices.Collect(maps.Keys(taken))...); soon.Free().Fits(&want) {
		return fmt.Errorf("CPUs of guests that are about to be gone from here: %w", errWaiting)
	}
	free := cores.Free()
	return fault.New(fault.Conflict, "The server asks for %d CPUs for itself%s, and %d of the %d that the host keeps for such are free, %d of them with a sibling, and %d whole cores.",
		want.Own(), threadsAsked(want.Threads), free.CPUs, len(c.kept), free.Paired, free.Whole)
}

// threadsAsked says what a policy of threads is.
func threadsAsked(threads string) string {
	if threads == model.ThreadsPrefer {
		return ""
	}
	return " (CPU thread policy " + threads + ")"
}

// taken gives the CPUs that other guests have for themselves, and of these, those whose guests are on their way out.
func (c *cpus) taken(ctx context.Context, but model.ID) (taken, leaving map[int]bool, err error) {
	taken, leaving = map[int]bool{}, map[int]bool{}
	note := func(id model.ID, list []int) {
		row := c.a.ledger.server(id)
		for _, x := range list {
			taken[x] = true
			if row == nil || row.Deleted {
				leaving[x] = true
			}
		}
	}
	all := c.a.ledger.allProgress()
	for id, p := range all {
		if id != but && !p.Unwired { // else its guest is gone
			note(id, p.CPUs.list())
		}
	}
	for _, id := range c.a.guests.ids() { // what is here, and the ledger was lost that knew it
		if id == but || all[id] != nil && !c.unknown(id, all[id]) {
			continue
		}
		own, err := c.seen(ctx, id)
		if err != nil {
			return nil, nil, err
		}
		note(id, own.list())
	}
	return taken, leaving, nil
}

// unknown tells whether a server that asks for CPUs for itself may have some that its progress does not tell of.
func (c *cpus) unknown(id model.ID, p *progress) bool {
	row := c.a.ledger.server(id)
	if p.CPUs != nil || row == nil {
		return false
	}
	return len(processorsOf(row).Dedicated) > 0
}

// seen gives the CPUs that a guest has for itself by its definition; none where there is no such guest any more.
func (c *cpus) seen(ctx context.Context, id model.ID) (*ownCPUs, error) {
	own := &ownCPUs{Pins: map[int]int{}}
	pinner, ok := c.a.cfg.Hypervisor.(hypervisor.Pinner)
	if !ok {
		return own, nil
	}
	h, err := pinner.CPUs(ctx, id)
	if fault.Is(err, fault.NotFound) {
		return own, nil
	}
	if err != nil {
		return nil, fmt.Errorf("learn which CPUs guest %s has: %w", id, err)
	}
	if h.Pins != nil {
		own.Pins, own.Nodes = h.Pins, h.Nodes
		// One that is isolated is neither a virtual processor's nor shared.
		if len(h.Emulator) == 1 && !slices.Contains(slices.Collect(maps.Values(h.Pins)), h.Emulator[0]) && slices.Contains(c.a.cfg.Dedicated, h.Emulator[0]) {
			own.Emulator = h.Emulator
		}
		if row := c.a.ledger.server(id); row != nil {
			c.alone(own, processorsOf(row).Threads)
		}
	}
	return own, nil
}

// alone notes by which policy of threads a guest has its CPUs, and what has to be idle for it. The caller holds mu.
func (c *cpus) alone(own *ownCPUs, threads string) {
	if own.Threads = threads; threads != model.ThreadsIsolate {
		return
	}
	pins := slices.Collect(maps.Values(own.Pins))
	for _, x := range c.kept {
		if slices.Contains(pins, x.ID) {
			own.Idle = append(own.Idle, slices.DeleteFunc(slices.Clone(x.Siblings), func(id int) bool { return id == x.ID })...)
		}
	}
	slices.Sort(own.Idle)
}

// adopt is for a guest that is here while its progress was lost: what it has, it has.
func (c *cpus) adopt(ctx context.Context, row *model.HostServer, p *progress, power hypervisor.Power) error {
	lost := p.Memory == nil && pagingOf(row).KiB > 0
	if power == hypervisor.Absent || !lost && !c.unknown(row.ID, p) {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.unknown(row.ID, p) {
		own, err := c.seen(ctx, row.ID)
		if err != nil {
			return err
		}
		p.CPUs = own
	}
	if lost {
		own, err := c.pagesSeen(ctx, row)
		if err != nil || own == nil && p.CPUs == nil {
			return err
		}
		p.Memory = own
	}
	return c.a.keep(row.ID, p)
}

// cellsOf gives the virtual processors of each of the guest's NUMA cells that are to have CPUs for themselves.
func cellsOf(row *model.HostServer, want model.Processors) ([][]int, error) {
	list, wrong := model.CellsOf(row.VCPUs, row.MemoryMiB, row.ExtraSpecs, row.Image.Hardware)
	switch {
	case wrong != "":
		return nil, fault.New(fault.Invalid, "%s", wrong)
	case len(list) == 0:
		return [][]int{want.Dedicated}, nil
	}
	var cells [][]int
	for _, cell := range list {
		cells = append(cells, slices.DeleteFunc(cell.CPUs, func(v int) bool { return !slices.Contains(want.Dedicated, v) }))
	}
	return cells, nil
}

// told are the CPUs that are kept for single guests, as the host's facts.
func (c *cpus) told() []model.HostCPU {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.kept)
}

// given says what each guest has of them and of huge pages, as the host's facts.
func (c *cpus) given() (out []model.HostGiven) {
	for id, p := range c.a.ledger.allProgress() {
		if cpus, pages := p.CPUs.list(), p.Memory.list(); len(cpus)+len(pages) > 0 && !p.Unwired {
			out = append(out, model.HostGiven{ServerID: id, CPUs: cpus, Pages: pages})
		}
	}
	slices.SortFunc(out, func(a, b model.HostGiven) int { return strings.Compare(a.ServerID, b.ServerID) })
	return out
}

// inventory gives the CPUs that a guest has for itself as the hypervisor has it.
func (c *cpus) inventory(ctx context.Context, id model.ID) ([]int, error) {
	if len(c.a.cfg.Dedicated) == 0 {
		return nil, nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	own, err := c.seen(ctx, id)
	return own.list(), err
}
