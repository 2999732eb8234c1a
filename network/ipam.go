package network

import (
	"net/netip"
	"slices"

	"yakumo/fault"
	"yakumo/model"
	"yakumo/store"
)

// AddressSpec is one address that a request wants for a port: an address, or any of a
// subnet, or an address of that subnet.
type AddressSpec struct {
	SubnetID model.ID
	Address  netip.Addr // invalid (zero): any
	// Remove, with a subnet of automatic addresses: the port's address there goes. Without
	// it such addresses stay, whatever else a change names.
	Remove bool
}

// probes is how many addresses are tried at random before the used ones are listed. Each
// probe is one comparison of the commit.
const probes = 6

// pick finds a free address in the subnet's pools, none of them in mine; false: exhausted.
// The claim that comes with the port makes the choice unique.
func pick(tx *store.Tx, s *model.Subnet, mine []model.FixedIP) (netip.Addr, bool) {
	total := poolSize(s.Pools)
	if total.zero() {
		return netip.Addr{}, false
	}
	for range probes {
		a := nth(s.Pools, total.below())
		if taken(mine, s.ID, a) {
			continue
		}
		if _, held := store.Ports.Holder(tx, store.PortAddressClaim(s.ID, a.String())); !held {
			return a, true
		}
	}
	var used []netip.Addr
	for p := range store.Ports.List(tx, "subnet", s.ID) {
		for _, f := range p.FixedIPs {
			if f.SubnetID == s.ID {
				used = append(used, f.Address)
			}
		}
	}
	for _, f := range mine {
		if f.SubnetID == s.ID {
			used = append(used, f.Address)
		}
	}
	slices.SortFunc(used, netip.Addr.Compare)
	used = slices.Compact(used)
	inside := number{}
	for _, a := range used {
		if slices.ContainsFunc(s.Pools, func(r model.AddrRange) bool { return r.Contains(a) }) {
			inside = inside.add(small(1))
		}
	}
	if !inside.less(total) {
		return netip.Addr{}, false
	}
	return free(s.Pools, used, total.sub(inside).below())
}

func taken(ips []model.FixedIP, subnet model.ID, a netip.Addr) bool {
	return slices.Contains(ips, model.FixedIP{SubnetID: subnet, Address: a})
}

// addresses chooses what a port gets, whose MAC and owner are known. want nil: one address
// of IPv4, one of IPv6, and what its guest forms by itself, as far as the network has subnets
// for them. p holds what the port has already; of a subnet without an address it keeps what it has.
func (n *Network) addresses(tx *store.Tx, w *model.Network, p *model.Port, want *[]AddressSpec, fresh bool) ([]model.FixedIP, error) {
	subnets := make(map[model.ID]*model.Subnet)
	var order []*model.Subnet
	for s := range store.Subnets.List(tx, "network", w.ID) {
		subnets[s.ID] = s
		order = append(order, s)
	}
	// The oldest first: a network fills in the order in which its owner added to it.
	slices.SortStableFunc(order, func(a, b *model.Subnet) int { return a.CreatedAt.Compare(b.CreatedAt) })
	if want == nil {
		return n.anyAddresses(tx, w, p, order)
	}
	if len(*want) > MaxFixedIPs {
		return nil, invalid("Exceeded maximum amount of fixed ips per port.")
	}
	out := make([]model.FixedIP, len(*want))
	removed := map[model.ID]bool{}
	// The explicit ones first, so that a pick does not take what is asked for besides.
	for i, x := range *want {
		if x.Remove {
			removed[x.SubnetID] = true
		}
		if !x.Address.IsValid() || x.Remove {
			continue
		}
		s, err := n.subnetFor(w, p, subnets, order, x)
		if err != nil {
			return nil, err
		}
		store.Subnets.Get(tx, s.ID)
		f := model.FixedIP{SubnetID: s.ID, Address: x.Address}
		if slices.Contains(out, f) {
			return nil, invalid("the address %s is there twice.", x.Address)
		}
		if holder, held := store.Ports.Holder(tx, store.PortAddressClaim(s.ID, x.Address.String())); held && holder != p.ID {
			return nil, fault.Coded(fault.Conflict, "IpAddressAlreadyAllocated", "IP address %s already allocated in subnet %s", x.Address, s.ID)
		}
		out[i] = f
	}
	for i, x := range *want {
		if x.Address.IsValid() || x.Remove {
			continue
		}
		s, ok := subnets[x.SubnetID]
		if !ok {
			return nil, n.wrongSubnet(w, x.SubnetID)
		}
		store.Subnets.Get(tx, s.ID)
		if formedBy(s, p) {
			out[i] = model.FixedIP{SubnetID: s.ID, Address: model.EUI64(s.CIDR, p.MAC)}
			continue
		}
		kept := slices.IndexFunc(p.FixedIPs, func(f model.FixedIP) bool { return f.SubnetID == s.ID && !slices.Contains(out, f) })
		if kept >= 0 {
			out[i] = p.FixedIPs[kept]
			continue
		}
		a, ok := pick(tx, s, out)
		if !ok {
			return nil, fault.Coded(fault.Conflict, "IpAddressGenerationFailureForSubnet", "No more IP addresses available on subnet %s of network %s.", s.ID, w.ID)
		}
		out[i] = model.FixedIP{SubnetID: s.ID, Address: a}
	}
	out = slices.DeleteFunc(out, func(f model.FixedIP) bool { return f.SubnetID == "" })
	// What guests form comes with what is asked for, and stays.
	for _, s := range order {
		have := slices.ContainsFunc(p.FixedIPs, func(f model.FixedIP) bool { return f.SubnetID == s.ID })
		if !formedBy(s, p) || removed[s.ID] || !have && (!fresh || len(*want) == 0 || !meantFor(s, p.DeviceOwner)) {
			continue
		}
		out = append(out, model.FixedIP{SubnetID: s.ID, Address: model.EUI64(s.CIDR, p.MAC)})
	}
	return once(out), nil
}

// once leaves out what is there twice.
func once(ips []model.FixedIP) []model.FixedIP {
	out := ips[:0]
	for _, f := range ips {
		if !slices.Contains(out, f) {
			out = append(out, f)
		}
	}
	return out
}

// anyAddresses chooses for a port that asks for none in particular.
func (n *Network) anyAddresses(tx *store.Tx, w *model.Network, p *model.Port, order []*model.Subnet) ([]model.FixedIP, error) {
	// Those meant for the port's owner before those meant for everybody.
	var pools [7][]*model.Subnet // by the IP version
	var formed []*model.Subnet
	usable := 0
	for _, special := range []bool{true, false} {
		for _, s := range order {
			if !meantFor(s, p.DeviceOwner) || special != (len(s.ServiceType) > 0) {
				continue
			}
			usable++
			if formedBy(s, p) {
				formed = append(formed, s)
			} else {
				pools[s.IPVersion] = append(pools[s.IPVersion], s)
			}
		}
	}
	if len(order) > 0 && usable == 0 {
		return nil, fault.Coded(fault.Conflict, "IpAddressGenerationFailureNoMatchingSubnet", "No valid service subnet for the given device owner, network_id %s.", w.ID)
	}
	var out []model.FixedIP
	for _, subnets := range pools {
		found := len(subnets) == 0
		for _, s := range subnets {
			store.Subnets.Get(tx, s.ID) // compared at commit: its pools may change meanwhile
			var a netip.Addr
			if a, found = pick(tx, s, nil); found {
				out = append(out, model.FixedIP{SubnetID: s.ID, Address: a})
				break
			}
		}
		if !found {
			return nil, fault.Coded(fault.Conflict, "IpAddressGenerationFailure", "No more IP addresses available on network %s.", w.ID)
		}
	}
	for _, s := range formed {
		store.Subnets.Get(tx, s.ID)
		out = append(out, model.FixedIP{SubnetID: s.ID, Address: model.EUI64(s.CIDR, p.MAC)})
	}
	return out, nil
}

func (n *Network) wrongSubnet(w *model.Network, subnet model.ID) error {
	return invalid("Failed to create port on network %s, because fixed_ips included invalid subnet %s", w.ID, clip(subnet))
}

// subnetFor finds the subnet of an address that was asked for, and refuses an address
// that no port may have.
func (n *Network) subnetFor(w *model.Network, p *model.Port, subnets map[model.ID]*model.Subnet, order []*model.Subnet, x AddressSpec) (*model.Subnet, error) {
	var s *model.Subnet
	if x.SubnetID != "" {
		if s = subnets[x.SubnetID]; s == nil {
			return nil, n.wrongSubnet(w, x.SubnetID)
		}
	} else {
		for _, o := range order {
			if o.CIDR.Contains(x.Address) {
				s = o
			}
		}
		if s == nil {
			return nil, fault.Coded(fault.Invalid, "InvalidIpForNetwork", "IP address %s is not a valid IP for any of the subnets on the specified network.", x.Address)
		}
	}
	// An address that the port has already it may keep, whatever became of the subnet.
	if taken(p.FixedIPs, s.ID, x.Address) {
		return s, nil
	}
	if formedBy(s, p) {
		if x.Address != model.EUI64(s.CIDR, p.MAC) {
			return nil, fault.Coded(fault.Invalid, "AllocationOnAutoAddressSubnet", "IPv6 address %s cannot be directly assigned to a port on subnet %s as the subnet is configured for automatic addresses", x.Address, s.ID)
		}
		return s, nil
	}
	if !hosts(s.CIDR).Contains(x.Address) || x.Address == s.Gateway && !mayBeGateway(p.DeviceOwner) {
		return nil, fault.Coded(fault.Invalid, "InvalidIpForSubnet", "IP address %s is not a valid IP for the specified subnet.", x.Address)
	}
	return s, nil
}
