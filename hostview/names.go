package hostview

import (
	"sync"

	"yakumo/model"
)

// names numbers the rows that hosts have: what a row is called is kept once, and not for each of its
// hosts. A thousand hosts have two million rows, of which most are on ten or more.
type names struct {
	mu     sync.Mutex
	number map[model.RowID]uint32
	all    []name // by number
	free   []uint32
}

type name struct {
	id    model.RowID
	outer model.ID // the network of a peer
	views int      // that have the row
}

// hold gives the number of a row that one more view has. outer is what the row belongs to, "" nothing that matters.
func (n *names) hold(id model.RowID, outer model.ID) uint32 {
	n.mu.Lock()
	defer n.mu.Unlock()
	at, ok := n.number[id]
	if !ok {
		if last := len(n.free) - 1; last >= 0 {
			at, n.free = n.free[last], n.free[:last]
		} else {
			at = uint32(len(n.all))
			n.all = append(n.all, name{})
		}
		n.all[at] = name{id: id, outer: outer}
		if n.number == nil {
			n.number = map[model.RowID]uint32{}
		}
		n.number[id] = at
	}
	n.all[at].views++
	return at
}

// find gives the number of a row that some view has.
func (n *names) find(id model.RowID) (uint32, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	at, ok := n.number[id]
	return at, ok
}

// of gives what a number stands for; its asker's view has the row.
func (n *names) of(at uint32) (id model.RowID, outer model.ID) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.all[at].id, n.all[at].outer
}

// drop says that a view has the row no more.
func (n *names) drop(at uint32) {
	n.mu.Lock()
	defer n.mu.Unlock()
	x := &n.all[at]
	if x.views--; x.views == 0 {
		delete(n.number, x.id)
		*x = name{}
		n.free = append(n.free, at)
	}
}
