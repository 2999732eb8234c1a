package agent

import (
	"net/netip"
	"strings"
	"sync"

	"yakumo/model"
)

// names knows the ports of each network here by their names and addresses.
type names struct {
	mu       sync.RWMutex
	networks map[model.ID]*zone
	rows     map[model.RowID]named // what stands in networks, by the row that put it there
}

// named is what one port adds to its network.
type named struct {
	network model.ID
	label   string // lower case, without a dot
	addrs   []netip.Addr
}

// zone is the names of one network. Several ports may have one name.
type zone struct {
	byName map[string]map[model.RowID]bool
	byAddr map[netip.Addr]map[model.RowID]bool
}

func newNames() *names {
	return &names{networks: map[model.ID]*zone{}, rows: map[model.RowID]named{}}
}

// nameOf gives what a row adds; false where it adds nothing.
func nameOf(row model.HostRow) (named, bool) {
	var n named
	var name string
	switch r := row.(type) {
	case *model.HostPort:
		if r.Standby { // its peer's row names it
			return n, false
		}
		n.network, name = r.NetworkID, r.HostName
		for _, f := range r.FixedIPs {
			n.addrs = append(n.addrs, f.Address.Unmap())
		}
	case *model.HostPeer:
		n.network, name = r.NetworkID, r.HostName
		for _, a := range r.Addresses {
			n.addrs = append(n.addrs, a.Unmap())
		}
	}
	label, _, _ := strings.Cut(strings.ToLower(name), ".")
	n.label = label
	return n, label != "" && len(n.addrs) > 0
}

// look takes over a row as it is now; nil: it is gone.
func (n *names) look(id model.RowID, row model.HostRow) {
	if id.Kind != model.RowPort && id.Kind != model.RowPeer {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if old, known := n.rows[id]; known {
		delete(n.rows, id)
		s := n.networks[old.network]
		strike(s.byName, old.label, id)
		for _, a := range old.addrs {
			strike(s.byAddr, a, id)
		}
		if len(s.byName) == 0 {
			delete(n.networks, old.network)
		}
	}
	add, ok := nameOf(row)
	if !ok {
		return
	}
	n.rows[id] = add
	s := n.networks[add.network]
	if s == nil {
		s = &zone{byName: map[string]map[model.RowID]bool{}, byAddr: map[netip.Addr]map[model.RowID]bool{}}
		n.networks[add.network] = s
	}
	enlist(s.byName, add.label, id)
	for _, a := range add.addrs {
		enlist(s.byAddr, a, id)
	}
}

func enlist[K comparable](m map[K]map[model.RowID]bool, k K, id model.RowID) {
	if m[k] == nil {
		m[k] = map[model.RowID]bool{}
	}
	m[k][id] = true
}

func strike[K comparable](m map[K]map[model.RowID]bool, k K, id model.RowID) {
	delete(m[k], id)
	if len(m[k]) == 0 {
		delete(m, k)
	}
}

// addresses gives the addresses of a name in a network; false where the name is not known there.
func (n *names) addresses(network model.ID, label string) ([]netip.Addr, bool) {
	n.mu.RLock()
	defer n.mu.RUnlock()
	s := n.networks[network]
	if s == nil || s.byName[label] == nil {
		return nil, false
	}
	var out []netip.Addr
	for id := range s.byName[label] {
		out = append(out, n.rows[id].addrs...)
	}
	return out, true
}

// labels gives the names of an address in a network.
func (n *names) labels(network model.ID, a netip.Addr) []string {
	n.mu.RLock()
	defer n.mu.RUnlock()
	s := n.networks[network]
	if s == nil {
		return nil
	}
	var out []string
	for id := range s.byAddr[a] {
		out = append(out, n.rows[id].label)
	}
	return out
}
