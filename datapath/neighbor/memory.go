package neighbor

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"yakumo/datapath/pipeline"
	"yakumo/model"
)

// memoryKey is how a neighbour is kept in the ordinal store, which outlives the agent: its number means nothing. So
// a restart of the agent costs no packet to a neighbour that was known.
func memoryKey(n *model.HostNeighbor) string {
	return fmt.Sprintf("%s %d %v %s", n.NetworkID, n.VNI, n.Address, n.MAC)
}

func parseMemory(s string) (*model.HostNeighbor, bool) {
	f := strings.Fields(s)
	if len(f) != 4 {
		return nil, false
	}
	vni, err := strconv.ParseUint(f[1], 10, 24)
	addr, err2 := netip.ParseAddr(f[2])
	_, err3 := pipeline.ParseMAC(f[3])
	return &model.HostNeighbor{NetworkID: f[0], VNI: uint32(vni), Address: addr, MAC: f[3]}, err == nil && err2 == nil && err3 == nil
}

// Remember keeps what was learnt, and forgets what was forgotten. The error is the store's.
func Remember(ord pipeline.Ordinals, o Outcome) error {
	if len(o.Learn)+len(o.Forget) == 0 {
		return nil
	}
	gone := map[model.RowID]bool{}
	for _, id := range o.Forget {
		gone[id] = true
	}
	for _, r := range o.Learn {
		gone[r.RowID()] = true // its old MAC
	}
	for _, k := range ord.Keys(pipeline.OrdinalNeighbor) {
		if n, ok := parseMemory(k); !ok || gone[n.RowID()] {
			ord.Release(pipeline.OrdinalNeighbor, k)
		}
	}
	for _, r := range o.Learn {
		if n, ok := r.(*model.HostNeighbor); ok {
			if _, err := ord.Get(pipeline.OrdinalNeighbor, memoryKey(n), 1<<31-1); err != nil {
				return fmt.Errorf("remember %v: %w", n.RowID(), err)
			}
		}
	}
	return ord.Sync()
}

// Recall makes the table know what was remembered, and gives its rows. Each is asked again soon.
func (t *Table) Recall(now time.Time, ord pipeline.Ordinals) []model.HostRow {
	var out []model.HostRow
	for _, k := range ord.Keys(pipeline.OrdinalNeighbor) {
		n, ok := parseMemory(k)
		if !ok || len(t.entries) >= MaxKnown {
			continue
		}
		mac, err := pipeline.ParseMAC(n.MAC)
		if err != nil {
			continue
		}
		at := key{n.VNI, n.Address}
		if t.entries[at] == nil {
			t.entries[at] = &entry{key: at, network: n.NetworkID, mac: mac, due: now.Add(Refresh / 4)}
			out = append(out, n)
		}
	}
	slices.SortFunc(out, func(a, b model.HostRow) int { return cmp.Compare(a.RowID().Key, b.RowID().Key) })
	return out
}
