package hostview

import (
	"cmp"
	"net/netip"
	"slices"

	"yakumo/model"
	"yakumo/store"
)

func networkRow(snap store.Snapshot, id, host model.ID) model.HostRow {
	n, ok := store.Networks.Get(snap, id)
	if !ok {
		return nil
	}
	r := &model.HostNetwork{ID: n.ID, ProjectID: n.ProjectID, VNI: n.VNI, MTU: n.MTU, DNSDomain: n.DNSDomain}
	for s := range store.Subnets.List(snap, "network", id) {
		r.Subnets = append(r.Subnets, model.HostSubnet{ID: s.ID, CIDR: s.CIDR, Gateway: s.Gateway, DNS: s.DNS, Routes: s.HostRoutes, DHCP: s.DHCP})
	}
	slices.SortFunc(r.Subnets, func(a, b model.HostSubnet) int { return cmp.Compare(a.ID, b.ID) })
	for h := range hostsOf(snap, id) {
		if h == host {
			continue
		}
		if other, ok := store.Hosts.Get(snap, h); ok && other.TunnelIP.IsValid() {
			r.Flood = append(r.Flood, other.TunnelIP)
		}
	}
	slices.SortFunc(r.Flood, netip.Addr.Compare)
	return r
}

func portRow(snap store.Snapshot, p *model.Port) model.HostRow {
	n, ok := store.Networks.Get(snap, p.NetworkID)
	if !ok {
		return nil
	}
	r := &model.HostPort{
		ID: p.ID, NetworkID: p.NetworkID, ProjectID: p.ProjectID, VNI: n.VNI, MAC: p.MAC, FixedIPs: p.FixedIPs,
		AdminStateUp: p.AdminStateUp && n.AdminStateUp, PortSecurity: p.PortSecurity, Pairs: p.Pairs, DHCPOptions: p.DHCPOptions,
		DeviceID: p.DeviceID, HostName: p.DNSName, Generation: p.Generation,
	}
	r.Groups = slices.Sorted(slices.Values(p.Groups))
	if s, ok := store.Servers.Get(snap, p.DeviceID); ok && r.HostName == "" {
		r.HostName = s.HostName
	}
	return r
}

func groupRow(snap store.Snapshot, id model.ID) model.HostRow {
	g, ok := store.SecurityGroups.Get(snap, id)
	if !ok {
		return nil
	}
	r := &model.HostGroup{ID: g.ID, Stateful: g.Stateful}
	for rule := range store.SecurityRules.List(snap, "group", id) {
		r.Rules = append(r.Rules, model.HostRule{
			ID: rule.ID, Direction: rule.Direction, EtherType: rule.EtherType, Protocol: rule.Protocol,
			PortMin: rule.PortMin, PortMax: rule.PortMax, RemotePrefix: rule.RemotePrefix, RemoteGroupID: rule.RemoteGroupID,
		})
	}
	slices.SortFunc(r.Rules, func(a, b model.HostRule) int { return cmp.Compare(a.ID, b.ID) })
	return r
}

func serverRow(snap store.Snapshot, s *model.Server) model.HostRow {
	r := &model.HostServer{
		ID: s.ID, Name: s.Name, ProjectID: s.ProjectID, UserID: s.UserID, HostName: s.HostName,
		FlavorName: s.Flavor.Name, VCPUs: s.Flavor.VCPUs, MemoryMiB: s.Flavor.MemoryMiB, DiskGiB: s.Flavor.DiskGiB,
		Image: s.Image, KeyName: s.KeyName, PublicKey: s.PublicKey, UserData: s.UserData, ConfigDrive: s.ConfigDrive,
		Metadata: s.Metadata, Power: s.Power, Reboots: s.Reboots, HardReboots: s.HardReboots, Deleted: s.Deleted,
		CreatedAt: s.CreatedAt, Generation: s.Generation,
		RequestID: s.RequestID, ObservedReboots: s.Status.Reboots, ObservedHard: s.Status.Hard,
	}
	if h, ok := store.Hosts.Get(snap, s.Host); ok {
		r.Zone = h.Zone
	}
	groups := map[string]bool{}
	for _, id := range s.Ports {
		p, ok := store.Ports.Get(snap, id)
		if !ok {
			continue
		}
		nic := model.HostNIC{PortID: p.ID, MAC: p.MAC}
		if n, ok := store.Networks.Get(snap, p.NetworkID); ok {
			nic.MTU = n.MTU
		}
		r.NICs = append(r.NICs, nic)
		for _, g := range p.Groups {
			if sg, ok := store.SecurityGroups.Get(snap, g); ok {
				groups[sg.Name] = true
			}
		}
	}
	for g := range groups {
		r.Groups = append(r.Groups, g)
	}
	slices.Sort(r.Groups)
	return r
}
