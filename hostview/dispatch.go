package hostview

import (
	"net/netip"
	"reflect"
	"slices"

	"yakumo/model"
	"yakumo/store"
)

// change marks what a change of the store may have changed on hosts. The holder has the
// engine's gate and mu.
type change struct {
	e           *Engine
	before, now store.Snapshot
}

// host marks rows for a host, where it is attached here.
func (c change) host(host model.ID, ids ...model.RowID) {
	for v := range c.e.views[host] {
		v.mark(ids...)
	}
}

// wirers marks rows for the hosts that wire a port.
func (c change) wirers(p *model.Port, ids ...model.RowID) {
	for _, h := range p.Hosts() {
		c.host(h, ids...)
	}
}

// serverOf marks the server that has a port, where it is told.
func (c change) serverOf(p *model.Port) {
	if s, ok := store.Servers.Get(c.now, p.DeviceID); ok {
		for _, h := range hostsOfServer(s) {
			c.host(h, row(model.RowServer, s.ID))
		}
	}
}

// concern marks rows for all hosts that something concerns.
func (c change) concern(what model.RowID, ids ...model.RowID) {
	for v := range c.e.concerned[what] {
		v.mark(ids...)
	}
}

// both gives the old and the new row of a change, where they are.
func both[T any](c store.Change) []*T {
	var out []*T
	if r, ok := c.Old.(*T); ok && r != nil {
		out = append(out, r)
	}
	if r, ok := c.New.(*T); ok && r != nil {
		out = append(out, r)
	}
	return out
}

// differ tells whether a row came or went, or what of gives is not as it was.
func differ[T any, V comparable](rs []*T, of func(*T) V) bool {
	return len(rs) == 1 || len(rs) == 2 && of(rs[0]) != of(rs[1])
}

// dispatch marks in the views that a change may concern: those of the hosts that the row
// names, and those that know what it belongs to.
func (c change) dispatch(d store.Change) {
	switch d.Kind {
	case store.Servers.Kind():
		c.server(d.Key, both[model.Server](d))
	case store.Ports.Kind():
		c.port(both[model.Port](d))
	case store.Networks.Kind():
		c.network(d.Key, both[model.Network](d))
	case store.Subnets.Kind():
		for _, r := range both[model.Subnet](d) {
			c.concern(row(model.RowNetwork, r.NetworkID), row(model.RowNetwork, r.NetworkID))
			c.routersOf(r.NetworkID)
		}
	case store.SubnetPools.Kind():
		c.scopeChanged(d.Key, both[model.SubnetPool](d))
	case store.SecurityGroups.Kind():
		rs := both[model.SecurityGroup](d)
		c.concern(row(model.RowGroup, d.Key), row(model.RowGroup, d.Key))
		if len(rs) == 2 && rs[0].Name != rs[1].Name { // servers are told the names of their groups
			for p := range store.Ports.List(c.now, "group", d.Key) {
				c.serverOf(p)
			}
		}
	case store.SecurityRules.Kind():
		for _, r := range both[model.SecurityRule](d) {
			c.concern(row(model.RowGroup, r.GroupID), row(model.RowGroup, r.GroupID))
		}
	case store.AddressGroups.Kind():
		c.concern(row(model.RowAddresses, d.Key), row(model.RowAddresses, d.Key))
	case store.QoSPolicies.Kind():
		for p := range store.Ports.List(c.now, "qos", d.Key) {
			c.wirers(p, row(model.RowPort, p.ID))
		}
		for n := range store.Networks.List(c.now, "qos", d.Key) {
			c.portsIn(n.ID)
		}
		for f := range store.FloatingIPs.List(c.now, "qos", d.Key) {
			c.floating(f.ID)
		}
		for r := range store.Routers.List(c.now, "qos", d.Key) {
			c.concern(row(model.RowRouter, r.ID), row(model.RowRouter, r.ID))
		}
	case store.Routers.Kind():
		c.router(d.Key, both[model.Router](d))
	case store.FloatingIPs.Kind():
		c.floating(d.Key)
	case store.PortForwardings.Kind():
		for _, r := range both[model.PortForwarding](d) {
			c.floating(r.FloatingIPID)
		}
	case store.TapServices.Kind():
		for f := range store.TapFlows.List(c.now, "service", d.Key) {
			c.mirror(f.ID)
		}
	case store.TapFlows.Kind():
		c.mirror(d.Key)
	case store.Volumes.Kind():
		c.volumeChanged(d.Key, both[model.Volume](d))
	case store.VolumeSnapshots.Kind():
		c.snapshotChanged(d.Key, both[model.VolumeSnapshot](d))
	case store.VolumeBackups.Kind():
		c.backupChanged(d.Key, both[model.VolumeBackup](d))
	case store.Settings.Kind():
		if d.Key == model.SettingVendorData {
			c.everyServer()
		}
	case store.Hosts.Kind():
		c.hostChanged(d.Key, both[model.Host](d))
	}
}

// everyServer marks all servers of all hosts that are attached here.
func (c change) everyServer() {
	for host := range c.e.views {
		for s := range store.Servers.List(c.now, "host", host) {
			c.host(host, row(model.RowServer, s.ID))
		}
	}
}

func (c change) server(id model.ID, rs []*model.Server) {
	for _, r := range rs {
		for _, h := range hostsOfServer(r) {
			c.host(h, row(model.RowServer, id))
		}
	}
	c.used(rs)
	if !differ(rs, func(r *model.Server) string { return r.HostName }) {
		return
	}
	for p := range store.Ports.List(c.now, "device", id) { // the host name in DHCP and DNS
		c.wirers(p, row(model.RowPort, p.ID))
		c.concern(row(rowPeers, p.NetworkID), row(model.RowPeer, p.ID))
	}
}

func (c change) port(ps []*model.Port) {
	two := len(ps) == 2
	if two {
		a, b := *ps[0], *ps[1]
		a.Status, a.UpdatedAt = b.Status, b.UpdatedAt
		if reflect.DeepEqual(a, b) {
			return // a host's report, which no host is told
		}
	}
	moved := !two || ps[0].Host != ps[1].Host || ps[0].NextHost != ps[1].NextHost || ps[0].NetworkID != ps[1].NetworkID
	addressed := moved || ps[0].MAC != ps[1].MAC || !slices.Equal(ps[0].FixedIPs, ps[1].FixedIPs) || !slices.Equal(ps[0].Pairs, ps[1].Pairs)
	held := two && !slices.Equal(ps[0].Held, ps[1].Held)
	named := !two || ps[0].DNSName != ps[1].DNSName || ps[0].DeviceID != ps[1].DeviceID
	owned := !two || ps[0].DeviceOwner != ps[1].DeviceOwner || ps[0].DeviceID != ps[1].DeviceID
	regrouped := !two || !slices.Equal(ps[0].Groups, ps[1].Groups)
	for _, p := range ps {
		if p.Host != "" {
			c.wirers(p, row(model.RowPort, p.ID))
			for _, g := range p.Groups {
				if moved || regrouped {
					c.wirers(p, row(model.RowGroup, g))
				}
			}
			for _, h := range p.Hosts() {
				if moved {
					c.settled(p.NetworkID, h)
				}
			}
			if addressed || named || held {
				c.concern(row(rowPeers, p.NetworkID), row(model.RowPeer, p.ID))
			}
		}
		if addressed || regrouped || named {
			c.serverOf(p)
		}
		if addressed || regrouped {
			for _, g := range p.Groups {
				c.concern(row(rowMembers, g), row(model.RowMember, g+","+p.ID))
			}
		}
		if addressed || owned {
			c.ownedPort(p)
		}
		if moved {
			c.served(p.ID)
		}
	}
}

// settled marks what it means that a host has, or has not, a port of a network.
func (c change) settled(network, host model.ID) {
	is := has(c.now, network, host)
	if is == has(c.before, network, host) {
		return
	}
	if is {
		c.host(host, row(rowReach, network))
	} else {
		c.host(host, reach)
	}
	c.host(host, row(model.RowNetwork, network))
	c.concern(row(model.RowNetwork, network), row(model.RowNetwork, network)) // it floods there, or not
}

// ownedPort marks what is made of a port of the cloud's own.
func (c change) ownedPort(p *model.Port) {
	switch p.DeviceOwner {
	case model.OwnerRouterInterface:
		c.concern(row(model.RowRouter, p.DeviceID), row(model.RowRouter, p.DeviceID), reach)
		c.concern(row(model.RowNetwork, p.NetworkID), reach)
		if r, ok := store.Routers.Get(c.now, p.DeviceID); ok {
			for _, h := range r.Status.GatewayHosts {
				c.host(h, reach)
			}
		}
	case model.OwnerRouterGateway:
		c.concern(row(model.RowRouter, p.DeviceID), row(model.RowRouter, p.DeviceID))
	case model.OwnerFloatingIP:
		c.floating(p.DeviceID)
	}
}

// served marks the floating addresses and mirrors of a port that is somewhere else now.
func (c change) served(port model.ID) {
	for f := range store.FloatingIPs.List(c.now, "port", port) {
		c.floating(f.ID)
	}
	for f := range store.TapFlows.List(c.now, "source", port) {
		c.mirror(f.ID)
	}
	for s := range store.TapServices.List(c.now, "port", port) {
		for f := range store.TapFlows.List(c.now, "service", s.ID) {
			c.mirror(f.ID)
		}
	}
}

func (c change) network(id model.ID, rs []*model.Network) {
	c.concern(row(model.RowNetwork, id), row(model.RowNetwork, id))
	type inPorts struct {
		up     bool
		mtu    int
		vni    uint32
		policy model.ID
	}
	if differ(rs, func(n *model.Network) inPorts { return inPorts{n.AdminStateUp, n.MTU, n.VNI, n.QoSPolicyID} }) {
		c.portsIn(id)
	}
	c.routersOf(id)
	if differ(rs, func(n *model.Network) bool { return n.External }) {
		c.concern(row(model.RowNetwork, id), reach)
	}
	if len(rs) == 1 {
		for f := range store.FloatingIPs.List(c.now, "network", id) {
			c.floating(f.ID)
		}
	}
}

// portsIn marks the ports of a network, and their servers: its admin state, MTU and QoS are in their rows.
func (c change) portsIn(network model.ID) {
	for p := range store.Ports.List(c.now, "network", network) {
		c.wirers(p, row(model.RowPort, p.ID))
		c.serverOf(p)
	}
}

// routersOf marks the routers that are in a network: it is in their rows.
func (c change) routersOf(network model.ID) {
	for p := range store.Ports.List(c.now, "router_network", network) {
		c.concern(row(model.RowRouter, p.DeviceID), row(model.RowRouter, p.DeviceID))
	}
	for r := range store.Routers.List(c.now, "network", network) {
		c.concern(row(model.RowRouter, r.ID), row(model.RowRouter, r.ID))
	}
}

func (c change) router(id model.ID, rs []*model.Router) {
	c.concern(row(model.RowRouter, id), row(model.RowRouter, id))
	two := len(rs) == 2
	if !two || !slices.Equal(rs[0].Routes, rs[1].Routes) || gatewayNetwork(rs[0]) != gatewayNetwork(rs[1]) {
		c.concern(row(model.RowRouter, id), reach)
	}
	if two && slices.Equal(rs[0].Status.GatewayHosts, rs[1].Status.GatewayHosts) {
		return
	}
	for _, r := range rs {
		for _, h := range r.Status.GatewayHosts {
			c.host(h, reach, row(model.RowRouter, id))
		}
	}
	if !differ(rs, (*model.Router).ActiveHost) {
		return
	}
	for f := range store.FloatingIPs.List(c.now, "router", id) {
		c.floating(f.ID)
	}
}

func gatewayNetwork(r *model.Router) model.ID {
	if r.Gateway == nil {
		return ""
	}
	return r.Gateway.NetworkID
}

// floating marks a floating address where it is and where it should be.
func (c change) floating(id model.ID) {
	c.concern(row(model.RowFloating, id), row(model.RowFloating, id))
	if f, ok := store.FloatingIPs.Get(c.now, id); ok {
		c.host(floatingHost(c.now, f), row(model.RowFloating, id))
		c.host(floatingNext(c.now, f), row(model.RowFloating, id))
	}
}

// mirror marks a mirror where it is and where it should be.
func (c change) mirror(id model.ID) {
	c.concern(row(model.RowMirror, id), row(model.RowMirror, id))
	if f, ok := store.TapFlows.Get(c.now, id); ok {
		source, _, sink := mirrorEnds(c.now, f)
		c.wirers(source, row(model.RowMirror, id))
		c.wirers(sink, row(model.RowMirror, id))
	}
}

func (c change) hostChanged(id model.ID, rs []*model.Host) {
	c.reached(id, rs)
	two := len(rs) == 2
	if !two || !slices.Equal(rs[0].BridgeMappings, rs[1].BridgeMappings) {
		for p := range portsOn(c.now, id) {
			for f := range store.FloatingIPs.List(c.now, "port", p.ID) {
				c.floating(f.ID)
			}
		}
	}
	type told struct {
		zone, name string
		channel    netip.AddrPort
		tunnel     netip.Addr
	}
	if differ(rs, func(h *model.Host) told { return told{h.Zone, h.Name, h.Channel, h.TunnelIP} }) { // the other host of a move is told of its peer
		for s := range store.Servers.List(c.now, "host", id) {
			for _, h := range hostsOfServer(s) {
				c.host(h, row(model.RowServer, s.ID))
			}
		}
	}
	if two && rs[0].TunnelIP == rs[1].TunnelIP {
		return
	}
	networks := map[model.ID]bool{}
	for p := range portsOn(c.now, id) {
		c.concern(row(rowPeers, p.NetworkID), row(model.RowPeer, p.ID))
		networks[p.NetworkID] = true
		for s := range store.TapServices.List(c.now, "port", p.ID) {
			for f := range store.TapFlows.List(c.now, "service", s.ID) {
				c.mirror(f.ID)
			}
		}
	}
	for n := range networks {
		c.concern(row(model.RowNetwork, n), row(model.RowNetwork, n))
	}
	for r := range store.Routers.List(c.now, "gateway_host", id) {
		c.concern(row(model.RowRouter, r.ID), row(model.RowRouter, r.ID))
	}
}
