package hostview

import (
	"cmp"
	"net/netip"
	"slices"

	"yakumo/model"
	"yakumo/store"
)

func routerRow(snap store.Snapshot, id, host model.ID) model.HostRow {
	r, ok := store.Routers.Get(snap, id)
	if !ok {
		return nil
	}
	out := &model.HostRouter{ID: r.ID, ProjectID: r.ProjectID, AdminStateUp: r.AdminStateUp, Routes: r.Routes}
	for p := range store.Ports.List(snap, "device", id) {
		if p.DeviceOwner != model.OwnerRouterInterface {
			continue
		}
		if n, ok := store.Networks.Get(snap, p.NetworkID); ok {
			four, six := scopesIn(snap, n.ID)
			out.Interfaces = append(out.Interfaces, model.HostRouterPort{PortID: p.ID, NetworkID: n.ID, VNI: n.VNI, MAC: p.MAC, Addresses: prefixes(snap, p), MTU: n.MTU, Scope4: four, Scope6: six})
		}
	}
	slices.SortFunc(out.Interfaces, func(a, b model.HostRouterPort) int { return cmp.Compare(a.PortID, b.PortID) })
	out.Gateway = gateway(snap, r, host)
	return out
}

// prefixes gives a port's addresses with the lengths of their subnets.
func prefixes(snap store.Snapshot, p *model.Port) []netip.Prefix {
	out := make([]netip.Prefix, 0, len(p.FixedIPs))
	for _, f := range p.FixedIPs {
		if s, ok := store.Subnets.Get(snap, f.SubnetID); ok {
			out = append(out, netip.PrefixFrom(f.Address, s.CIDR.Bits()))
		}
	}
	return out
}

// gateway makes a router's side to the outside as a host sees it, nil where there is none.
func gateway(snap store.Snapshot, r *model.Router, host model.ID) *model.HostGateway {
	if r.Gateway == nil {
		return nil
	}
	n, ok := store.Networks.Get(snap, r.Gateway.NetworkID)
	if !ok {
		return nil
	}
	p, ok := store.Ports.Get(snap, r.Gateway.PortID)
	if !ok {
		return nil
	}
	g := &model.HostGateway{PortID: p.ID, NetworkID: n.ID, VNI: n.VNI, MAC: p.MAC, Addresses: prefixes(snap, p), MTU: n.MTU, SNAT: r.Gateway.SNAT, Transit: r.VNI}
	g.Scope4, g.Scope6 = scopesIn(snap, n.ID)
	policy, _ := store.QoSPolicies.Get(snap, r.Gateway.QoSPolicyID)
	g.QoS = policy.QoS()
	subnets := subnetsOf(snap, n.ID)
	// The default route of a family is that of the gateway's own subnet, or else the first one.
	own := func(s *model.Subnet) bool {
		return slices.ContainsFunc(p.FixedIPs, func(f model.FixedIP) bool { return f.SubnetID == s.ID })
	}
	hops := map[bool]netip.Addr{} // by "is IPv4"
	for _, ours := range []bool{true, false} {
		for _, s := range subnets {
			v4 := s.CIDR.Addr().Is4()
			if own(s) == ours && s.Gateway.IsValid() && !hops[v4].IsValid() {
				hops[v4] = s.Gateway
			}
		}
	}
	for _, v4 := range []bool{true, false} {
		if hops[v4].IsValid() {
			g.NextHops = append(g.NextHops, hops[v4])
		}
	}
	for _, s := range subnets {
		g.Subnets = append(g.Subnets, s.CIDR)
	}
	slices.SortFunc(g.Subnets, func(a, b netip.Prefix) int {
		return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
	})
	if active := r.ActiveHost(); active != "" {
		g.Active = active == host
		if h, ok := store.Hosts.Get(snap, active); ok {
			g.TunnelIP = h.TunnelIP
		}
	}
	return g
}

// subnetsOf gives the subnets of a network in the order of their ids.
func subnetsOf(snap store.Snapshot, network model.ID) []*model.Subnet {
	out := slices.Collect(store.Subnets.List(snap, "network", network))
	slices.SortFunc(out, func(a, b *model.Subnet) int { return cmp.Compare(a.ID, b.ID) })
	return out
}

// floatingHost tells which host serves a floating address, "" for none: that of the port
// behind it, if it is bound where the external network can be reached; else the active
// gateway host of its router.
func floatingHost(snap store.Snapshot, f *model.FloatingIP) model.ID {
	if f.RouterID == "" {
		return ""
	}
	if p, ok := store.Ports.Get(snap, f.PortID); ok && p.Host != "" {
		n, known := store.Networks.Get(snap, f.NetworkID)
		if h, ok := store.Hosts.Get(snap, p.Host); ok && known && h.Maps(n.PhysicalNetwork) {
			return p.Host
		}
	}
	if r, ok := store.Routers.Get(snap, f.RouterID); ok {
		return r.ActiveHost()
	}
	return ""
}

// floatingNext tells which host is prepared to serve a floating address, "" for none: that where the port behind
// it is prepared.
func floatingNext(snap store.Snapshot, f *model.FloatingIP) model.ID {
	p, ok := store.Ports.Get(snap, f.PortID)
	if !ok || f.RouterID == "" || p.NextHost == "" {
		return ""
	}
	n, known := store.Networks.Get(snap, f.NetworkID)
	if h, ok := store.Hosts.Get(snap, p.NextHost); ok && known && h.Maps(n.PhysicalNetwork) {
		return p.NextHost
	}
	return ""
}

// floatingRow is a floating address as a host knows it, nil where it neither serves it nor is to.
func floatingRow(snap store.Snapshot, f *model.FloatingIP, host model.ID) model.HostRow {
	serves := floatingHost(snap, f) == host
	if !serves && floatingNext(snap, f) != host {
		return nil
	}
	n, ok := store.Networks.Get(snap, f.NetworkID)
	if !ok {
		return nil
	}
	p, ok := store.Ports.Get(snap, f.IPPortID)
	if !ok {
		return nil
	}
	out := &model.HostFloating{ID: f.ID, RouterID: f.RouterID, NetworkID: n.ID, VNI: n.VNI, Address: f.Address, MAC: p.MAC, Fixed: f.FixedAddress, PortID: f.PortID, Standby: !serves}
	policy, _ := store.QoSPolicies.Get(snap, f.QoSPolicyID)
	out.QoS = policy.QoS()
	for pf := range store.PortForwardings.List(snap, "floating", f.ID) {
		out.Forwards = append(out.Forwards, forwards(pf)...)
	}
	slices.SortFunc(out.Forwards, func(a, b model.HostForward) int {
		return cmp.Or(cmp.Compare(a.ID, b.ID), cmp.Compare(a.External, b.External))
	})
	return out
}

// forwards gives a port forwarding as ranges of one length: many ports to one are one row each.
func forwards(pf *model.PortForwarding) []model.HostForward {
	row := model.HostForward{ID: pf.ID, Protocol: pf.Protocol, External: uint16(pf.ExternalPort), Internal: uint16(pf.InternalPort),
		Address: pf.InternalAddress, InternalPort: pf.PortID, Count: uint16(pf.ExternalPortEnd - pf.ExternalPort + 1)}
	if pf.InternalPort != pf.InternalPortEnd || pf.ExternalPort == pf.ExternalPortEnd {
		return []model.HostForward{row}
	}
	out := make([]model.HostForward, 0, row.Count)
	for port := pf.ExternalPort; port <= pf.ExternalPortEnd; port++ {
		row.External, row.Count = uint16(port), 1
		out = append(out, row)
	}
	return out
}

// mirrorEnds gives the ports of a tap flow's source and sink, ones without a host where they are nowhere.
func mirrorEnds(snap store.Snapshot, f *model.TapFlow) (source *model.Port, service *model.TapService, sink *model.Port) {
	source, sink = &model.Port{}, &model.Port{}
	if p, ok := store.Ports.Get(snap, f.SourcePort); ok {
		source = p
	}
	service, ok := store.TapServices.Get(snap, f.ServiceID)
	if !ok {
		return source, nil, sink
	}
	if p, ok := store.Ports.Get(snap, service.PortID); ok {
		sink = p
	}
	return source, service, sink
}

func mirrorRow(snap store.Snapshot, id, host model.ID) model.HostRow {
	f, ok := store.TapFlows.Get(snap, id)
	if !ok {
		return nil
	}
	source, service, sink := mirrorEnds(snap, f)
	if !source.Bound() || !sink.Bound() || !source.On(host) && !sink.On(host) {
		return nil
	}
	out := &model.HostMirror{ID: f.ID, Source: f.SourcePort, Sink: service.PortID, VNI: service.VNI,
		Out: f.Direction != model.TapIn, In: f.Direction != model.TapOut}
	if h, ok := store.Hosts.Get(snap, sink.Host); ok && sink.Host != host {
		out.TunnelIP = h.TunnelIP
	}
	return out
}
