package hostview

import (
	"cmp"
	"encoding/json"
	"iter"
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
	r := &model.HostNetwork{ID: n.ID, ProjectID: n.ProjectID, VNI: n.VNI, MTU: n.MTU, DNSDomain: n.DNSDomain, Type: n.Type,
		PhysicalNetwork: n.PhysicalNetwork, VLAN: n.VLAN, External: n.External, VLANTransparent: n.VLANTransparent}
	for _, s := range subnetsOf(snap, id) {
		r.Subnets = append(r.Subnets, model.HostSubnet{ID: s.ID, CIDR: s.CIDR, Gateway: s.Gateway, DNS: s.DNS, Routes: s.HostRoutes, DHCP: s.DHCP,
			RAMode: s.IPv6RAMode, AddressMode: s.IPv6Address})
	}
	if r.Provider() || !has(snap, id, host) {
		return r
	}
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

// hostsOf gives the hosts that have a port of the network, each once, by seeking from one
// to the next.
func hostsOf(snap store.Snapshot, network model.ID) iter.Seq[model.ID] {
	return func(yield func(model.ID) bool) {
		from := network + ","
		for {
			host := ""
			for p := range store.Ports.Seek(snap, "network_host", network+",", from) {
				for _, h := range p.Hosts() { // the one that the place in the index is of
					if network+","+h >= from && (host == "" || h < host) {
						host = h
					}
				}
				break
			}
			if host == "" || !yield(host) {
				return
			}
			from = network + "," + host + "\x01"
		}
	}
}

func portRow(snap store.Snapshot, p *model.Port, host model.ID) model.HostRow {
	n, ok := store.Networks.Get(snap, p.NetworkID)
	if !ok {
		return nil
	}
	r := &model.HostPort{
		ID: p.ID, NetworkID: p.NetworkID, ProjectID: p.ProjectID, VNI: n.VNI, MAC: p.MAC, FixedIPs: p.FixedIPs,
		AdminStateUp: p.AdminStateUp && n.AdminStateUp, PortSecurity: p.PortSecurity, Pairs: p.Pairs, Held: p.Held, DHCPOptions: p.DHCPOptions,
		DeviceID: p.DeviceID, HostName: hostName(snap, p), Generation: p.Generation, Parent: p.ParentID, VLAN: p.VLAN,
		Standby: p.Host != host,
	}
	r.Groups = slices.Sorted(slices.Values(p.Groups))
	policy, _ := store.QoSPolicies.Get(snap, model.PolicyOf(p, n))
	r.QoS = policy.QoS()
	r.Device = device(p.Profile)
	return r
}

// device gives the device that a binding profile names, "" for none.
func device(profile json.RawMessage) string {
	if len(profile) == 0 {
		return ""
	}
	var v struct {
		Device string `json:"device"`
	}
	if json.Unmarshal(profile, &v) != nil { // "device" is no text: another system's
		return ""
	}
	return v.Device
}

// hostName is a port's name in DHCP and DNS: its own, or its server's.
func hostName(snap store.Snapshot, p *model.Port) string {
	if p.DNSName != "" {
		return p.DNSName
	}
	if s, ok := store.Servers.Get(snap, p.DeviceID); ok && s.ProjectID == p.ProjectID { // a tenant writes device ids as he likes
		return s.HostName
	}
	return ""
}

// peerRow is a port as other hosts know it, nil where they need not.
func peerRow(snap store.Snapshot, p *model.Port) model.HostRow {
	n, ok := store.Networks.Get(snap, p.NetworkID)
	h, up := store.Hosts.Get(snap, p.Host)
	if !ok || !up {
		return nil
	}
	r := &model.HostPeer{ID: p.ID, NetworkID: p.NetworkID, VNI: n.VNI, MAC: p.MAC, Addresses: p.Addresses(), Pairs: p.Pairs, Held: p.Held, HostName: hostName(snap, p)}
	if n.Type != model.NetworkVXLAN {
		r.Type = n.Type
	}
	if n.Type != model.NetworkFlat && n.Type != model.NetworkVLAN {
		if r.TunnelIP = h.TunnelIP; !r.TunnelIP.IsValid() {
			return nil
		}
	}
	return r
}

// memberRow is a port as a member of a group, nil for one without addresses.
func memberRow(p *model.Port, group model.ID) model.HostRow {
	var prefixes []netip.Prefix
	for _, a := range p.Addresses() {
		prefixes = append(prefixes, netip.PrefixFrom(a, a.BitLen()))
	}
	for _, pair := range p.Pairs {
		prefixes = append(prefixes, pair.Prefix.Masked())
	}
	if len(prefixes) == 0 {
		return nil
	}
	return &model.HostMember{GroupID: group, PortID: p.ID, Prefixes: prefixes}
}

func addressesRow(snap store.Snapshot, id model.ID) model.HostRow {
	g, ok := store.AddressGroups.Get(snap, id)
	if !ok {
		return nil
	}
	return &model.HostAddresses{ID: g.ID, Prefixes: g.Addresses}
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
			AddressGroupID: rule.AddressGroupID,
		})
	}
	slices.SortFunc(r.Rules, func(a, b model.HostRule) int { return cmp.Compare(a.ID, b.ID) })
	return r
}

// serverRow is a server as a host knows it, nil where it need not.
func serverRow(snap store.Snapshot, id, host model.ID, open func(place string, sealed []byte) string) model.HostRow {
	s, ok := store.Servers.Get(snap, id)
	if !ok {
		return nil
	}
	s, move := serverOn(snap, s, host)
	if s == nil {
		return nil
	}
	r := &model.HostServer{
		ID: s.ID, Name: s.Name, ProjectID: s.ProjectID, UserID: s.UserID, HostName: s.HostName,
		FlavorName: s.Flavor.Name, VCPUs: s.Flavor.VCPUs, MemoryMiB: s.Flavor.MemoryMiB, DiskGiB: s.Flavor.DiskGiB,
		Image: s.Image, KeyName: s.KeyName, PublicKey: s.PublicKey, UserData: s.UserData, ConfigDrive: s.ConfigDrive,
		Metadata: s.Metadata, Power: s.Power, Reboots: s.Reboots, HardReboots: s.HardReboots, Deleted: s.Deleted,
		CreatedAt: s.CreatedAt, Generation: s.Generation,
		RequestID: s.RequestID, ObservedReboots: s.Status.Reboots, ObservedHard: s.Status.Hard,
		Rebuilds: s.Rebuilds, ObservedRebuilds: s.Status.Rebuilds, Saving: s.Saving, Rescue: s.Rescue, ObservedRescue: s.Status.Rescue,
		ExtraSpecs: s.Flavor.ExtraSpecs, EphemeralGiB: s.Flavor.Ephemeral, SwapMiB: s.Flavor.SwapMiB, Sealed: s.Sealed, LaunchIndex: s.LaunchIndex, LeaseSeconds: s.Lease(),
		SealedClears: s.SealedClears, Reservation: s.Reservation,
		Move: move, AdminPass: open(s.PassPlace(), s.AdminPass),
	}
	if h, ok := store.Hosts.Get(snap, host); ok {
		r.Zone = h.Zone
	}
	r.Volumes = disksOf(snap, s)
	if v, ok := store.Settings.Get(snap, model.SettingVendorData); ok {
		r.VendorData = v.Value
	}
	groups := map[string]bool{}
	for _, id := range s.Ports {
		p, ok := store.Ports.Get(snap, id)
		if !ok {
			continue
		}
		nic := model.HostNIC{PortID: p.ID, MAC: p.MAC, Tag: s.PortTags[p.ID]}
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
