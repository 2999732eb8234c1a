package agent

import (
	"context"
	"fmt"
	"reflect"
	"slices"

	"yakumo/fault"
	"yakumo/hypervisor"
	"yakumo/model"
)

// ownPages are huge pages of the host that a guest has, whether it runs or not.
type ownPages struct {
	model.Paging
	Nodes []int `json:"nodes"` // of each of its cells; none: nobody knows where they are
}

// list gives the pages by node.
func (o *ownPages) list() []model.HugePages {
	if o == nil {
		return nil
	}
	return o.On(o.Nodes)
}

// serves tells whether the pages are what is asked for, in nodes that have such.
func (o *ownPages) serves(want model.Paging, pools []model.HugePages) bool {
	return o != nil && reflect.DeepEqual(o.Paging, want) && len(o.Nodes) == len(want.Cells) && !slices.ContainsFunc(o.Nodes, func(n int) bool {
		return !slices.ContainsFunc(pools, func(p model.HugePages) bool { return p.KiB == want.KiB && p.Node == n })
	})
}

func pagingOf(row *model.HostServer) model.Paging {
	return model.PagingOf(row.VCPUs, row.MemoryMiB, row.ExtraSpecs, row.Image.Hardware)
}

// choosePages chooses the NUMA node of each of the guest's cells: one that has as many pages of the size, and rather one that has CPUs for it too. The
// caller holds mu.
func (c *cpus) choosePages(ctx context.Context, row *model.HostServer, want model.Paging, cores *model.Cores, cells [][]int) (*ownPages, error) {
	taken, leaving, err := c.pagesTaken(ctx, row.ID)
	if err != nil {
		return nil, err
	}
	liked := func(node, cell int) int {
		if cell < len(cells) && len(cells[cell]) > 0 && cores.In(node) >= len(cells[cell]) {
			return 1
		}
		return 0
	}
	free := model.NewPools(c.pools)
	free.Take(taken...)
	soon := model.NewPools(free)
	free.Take(leaving...)
	nodes, ok := free.Fit(want, liked)
	if ok {
		return &ownPages{want, nodes}, nil
	}
	if _, ok := soon.Fit(want, liked); ok {
		return nil, fmt.Errorf("huge pages of guests that are about to be gone from here: %w", errWaiting)
	}
	return nil, fault.New(fault.Conflict, "The server asks for memory in pages of %d KiB, and its cells fit into no NUMA nodes of the host; free are %s.", want.KiB, free.FreeOf(want.KiB))
}

// pagesTaken gives the pages that other guests have, and those whose guests are on their way out.
func (c *cpus) pagesTaken(ctx context.Context, but model.ID) (taken, leaving []model.HugePages, err error) {
	all := c.a.ledger.allProgress()
	for id, p := range all {
		if id == but || p.Unwired {
			continue
		}
		if row := c.a.ledger.server(id); row == nil || row.Deleted {
			leaving = append(leaving, p.Memory.list()...)
		} else {
			taken = append(taken, p.Memory.list()...)
		}
	}
	for _, id := range c.a.guests.ids() { // what is here, and the ledger was lost that knew it
		row := c.a.ledger.server(id)
		if id == but || row == nil || all[id] != nil && all[id].Memory != nil {
			continue
		}
		own, err := c.pagesSeen(ctx, row)
		if err != nil {
			return nil, nil, err
		}
		taken = append(taken, own.list()...)
	}
	return taken, leaving, nil
}

// pagesSeen gives the pages that a guest has by its row and its definition; nil where it asks for none.
func (c *cpus) pagesSeen(ctx context.Context, row *model.HostServer) (*ownPages, error) {
	want := pagingOf(row)
	pinner, ok := c.a.cfg.Hypervisor.(hypervisor.Pinner)
	if want.KiB == 0 || !ok {
		return nil, nil
	}
	h, err := pinner.CPUs(ctx, row.ID)
	if err != nil && !fault.Is(err, fault.NotFound) {
		return nil, fmt.Errorf("learn where guest %s has its memory: %w", row.ID, err)
	}
	own := &ownPages{Paging: want}
	if h.Bound && len(h.Nodes) == len(want.Cells) {
		own.Nodes = h.Nodes
	}
	return own, nil
}
