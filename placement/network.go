package placement

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"yakumo/model"
)

// Constraints of the network.
const (
	// Reach: the server has a port in a flat or VLAN network, to which the host has no bridge.
	Reach Constraint = "physical_network"
	// Bandwidth: the server is promised more than the host has left.
	Bandwidth Constraint = "bandwidth"
)

// Link is what a host has of the network, beside its ports.
type Link struct {
	Networks []string              // physical networks that it has a bridge for, sorted
	Capacity map[string]int        // what it may promise; see model.Host.Bandwidth
	Promised map[model.Traffic]int // by every port that is on it
}

// Need is what a server's ports need of a host.
type Need struct {
	Networks  []string              // physical networks
	Bandwidth map[model.Traffic]int // in the unit of model.Host.Bandwidth
}

// missing gives a physical network that the host does not reach, "" for none.
func (l *Link) missing(n *Need) string {
	for _, name := range n.Networks {
		if _, ok := slices.BinarySearch(l.Networks, name); !ok {
			return name
		}
	}
	return ""
}

// short gives traffic that the host cannot promise, the first in the order of names, and
// false where it can promise everything.
func (l *Link) short(n *Need) (model.Traffic, bool) {
	var out []model.Traffic
	for t, want := range n.Bandwidth {
		if l.Promised[t]+want > l.Capacity[t.Network] {
			out = append(out, t)
		}
	}
	if len(out) == 0 {
		return model.Traffic{}, false
	}
	return slices.MinFunc(out, func(a, b model.Traffic) int {
		return cmp.Or(strings.Compare(a.Network, b.Network), strings.Compare(a.Direction, b.Direction))
	}), true
}

// take accounts for what a server is promised.
func (l *Link) take(n *Need) {
	if len(n.Bandwidth) > 0 && l.Promised == nil {
		l.Promised = map[model.Traffic]int{}
	}
	for t, want := range n.Bandwidth {
		l.Promised[t] += want
	}
}

func (l *Link) shortage(n *Need) string {
	t, _ := l.short(n)
	unit := "kbit/s " + t.Direction
	if t.Network == model.PacketRate {
		unit = "thousand packets/s"
	}
	return fmt.Sprintf("wants %d %s on %s; %d of %d promised", n.Bandwidth[t], unit, t.Network, l.Promised[t], l.Capacity[t.Network])
}
