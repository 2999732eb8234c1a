package hostview

import (
	"iter"
	"net/netip"

	"yakumo/model"
	"yakumo/store"
)

// known is what networks and routers a host knows. It begins at the networks that have a
// port there and at the routers that it is a gateway of, and goes from a network to its
// routers, and from a router to those that its extra routes name. The networks of a router
// come with it, but do not lead to other routers: a packet gets there only by a route.
type known struct {
	routers  map[model.ID]struct{}
	networks map[model.ID]bool // true: with its ports
	before   *known            // what set and pass changed, as it was; nil: nobody asks
}

// set makes a network known, with its ports or, where they are not known already, without.
func (k known) set(network model.ID, ports bool) {
	had, was := k.networks[network]
	if was && (had || !ports) {
		return
	}
	if k.before != nil {
		if _, noted := k.before.networks[network]; !noted {
			k.before.networks[network] = had
		}
	}
	k.networks[network] = ports
}

// walk makes what a host knows, from nothing.
func walk(snap store.Snapshot, host model.ID) known {
	k := nothing()
	done := map[model.ID]bool{}
	for p := range portsOn(snap, host) {
		if !done[p.NetworkID] {
			done[p.NetworkID] = true
			k.enter(snap, p.NetworkID)
		}
	}
	for r := range store.Routers.List(snap, "gateway_host", host) {
		k.pass(snap, r.ID)
	}
	return k
}

// enter adds a network that has a port on the host.
func (k known) enter(snap store.Snapshot, network model.ID) {
	k.set(network, true)
	for p := range store.Ports.List(snap, "router_network", network) {
		k.pass(snap, p.DeviceID)
	}
}

// pass adds a router, and those that it leads to. The ports of an external network are no
// business of a router's hosts: who is there is asked on the wire.
func (k known) pass(snap store.Snapshot, router model.ID) {
	if _, been := k.routers[router]; been {
		return
	}
	k.routers[router] = struct{}{}
	if k.before != nil {
		k.before.routers[router] = struct{}{}
	}
	var subnets []model.ID
	for p := range store.Ports.List(snap, "device", router) {
		if p.DeviceOwner != model.OwnerRouterInterface {
			continue
		}
		n, ok := store.Networks.Get(snap, p.NetworkID)
		k.set(p.NetworkID, ok && !n.External)
		for _, f := range p.FixedIPs {
			subnets = append(subnets, f.SubnetID)
		}
	}
	r, ok := store.Routers.Get(snap, router)
	if !ok {
		return
	}
	if g := gatewayNetwork(r); g != "" {
		k.set(g, false)
	}
	asked := map[netip.Addr]bool{}
	for _, route := range r.Routes {
		if asked[route.NextHop] {
			continue
		}
		asked[route.NextHop] = true
		for _, s := range subnets {
			p, ok := store.Ports.Claimed(snap, store.PortAddressClaim(s, route.NextHop.String()))
			if ok && p.DeviceOwner == model.OwnerRouterInterface {
				k.pass(snap, p.DeviceID)
			}
		}
	}
}

func nothing() known {
	return known{routers: map[model.ID]struct{}{}, networks: map[model.ID]bool{}}
}

// reach brings up to date what the host knows, and marks rows that come or go by it. A
// network that is new on the host costs what it leads to; anything else, a walk of all.
func (v *view) reach(snap store.Snapshot, dirty map[model.RowID]struct{}) {
	if _, anew := dirty[reach]; anew {
		old := v.known
		v.known = walk(snap, v.host)
		for id := range old.routers {
			if _, still := v.known.routers[id]; !still {
				v.meet(row(model.RowRouter, id), false, dirty)
			}
		}
		for id := range v.known.routers {
			if _, was := old.routers[id]; !was {
				v.meet(row(model.RowRouter, id), true, dirty)
			}
		}
		for id, ports := range old.networks {
			v.compare(snap, id, true, ports, dirty)
		}
		for id := range v.known.networks {
			if _, was := old.networks[id]; !was {
				v.compare(snap, id, false, false, dirty)
			}
		}
		return
	}
	var entered []model.ID
	for id := range dirty {
		if id.Kind == rowReach && has(snap, id.Key, v.host) {
			entered = append(entered, id.Key)
		}
	}
	for _, id := range entered {
		grown := v.known
		log := nothing()
		grown.before = &log
		grown.enter(snap, id)
		for r := range log.routers {
			v.meet(row(model.RowRouter, r), true, dirty)
		}
		for n, ports := range log.networks {
			_, was := v.in[row(model.RowNetwork, n)]
			v.compare(snap, n, was, ports, dirty)
		}
	}
}

// compare marks what differs between what the host knew of a network and what it knows.
func (v *view) compare(snap store.Snapshot, network model.ID, was, ports bool, dirty map[model.RowID]struct{}) {
	now, is := v.known.networks[network]
	if was != is {
		v.meet(row(model.RowNetwork, network), is, dirty)
	}
	if ports == now {
		return
	}
	v.register(row(rowPeers, network), now)
	for p := range store.Ports.Prefix(snap, "network_host", network+",") {
		dirty[row(model.RowPeer, p.ID)] = struct{}{}
	}
	for at := range v.peers[network] {
		peer, _ := v.e.names.of(at)
		dirty[peer] = struct{}{}
	}
}

// meet marks a router or a network that the host knows newly, or no more.
func (v *view) meet(id model.RowID, is bool, dirty map[model.RowID]struct{}) {
	v.register(id, is)
	dirty[id] = struct{}{}
}

// portsOn gives the ports that a host wires: those that it serves, then those that it is prepared for.
func portsOn(snap store.Snapshot, host model.ID) iter.Seq[*model.Port] {
	return func(yield func(*model.Port) bool) {
		for _, index := range [...]string{"host", "next_host"} {
			for p := range store.Ports.List(snap, index, host) {
				if !yield(p) {
					return
				}
			}
		}
	}
}

// has tells whether the host has a port of the network.
func has(snap store.Snapshot, network, host model.ID) bool {
	for range store.Ports.List(snap, "network_host", network+","+host) {
		return true
	}
	return false
}
