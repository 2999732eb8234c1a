package network

import (
	"net/netip"
	"slices"

	"yakumo/fault"
	"yakumo/model"
	"yakumo/store"
)

// formBatch is how many ports get, or lose, an address that guests form by themselves in one
// transaction: each is some two keys compared and two written.
const formBatch = 400

// automaticBits is the prefix length of a subnet whose guests form their addresses (RFC 4862, 5.5.3).
const automaticBits = 64

// applyModes sets how guests of a new subnet get their addresses.
func applyModes(s *model.Subnet, spec SubnetSpec) error {
	for field, mode := range map[string]*string{"ipv6_ra_mode": spec.RAMode, "ipv6_address_mode": spec.AddressMode} {
		if mode == nil {
			continue
		}
		if s.IPVersion == 4 {
			return invalid("%s is not valid when ip_version is 4.", field)
		}
		if !slices.Contains([]string{model.SLAAC, model.DHCPv6Stateful, model.DHCPv6Stateless}, *mode) {
			return fault.Coded(fault.Invalid, "HTTPBadRequest", "Invalid input for %s. Reason: '%s' is not in ['dhcpv6-stateful', 'dhcpv6-stateless', 'slaac'].", field, clip(*mode))
		}
	}
	set(&s.IPv6RAMode, spec.RAMode)
	set(&s.IPv6Address, spec.AddressMode)
	if s.IPv6RAMode != "" && s.IPv6Address != "" && s.IPv6RAMode != s.IPv6Address {
		return invalid("ipv6_ra_mode set to '%s' with ipv6_address_mode set to '%s' is not valid. If both attributes are set, they must be the same value.", s.IPv6RAMode, s.IPv6Address)
	}
	if (s.IPv6RAMode != "" || s.IPv6Address != "") && spec.DHCP != nil && !*spec.DHCP {
		return invalid("ipv6_ra_mode or ipv6_address_mode cannot be set when enable_dhcp is set to False.")
	}
	if s.Automatic() && s.CIDR.Bits() != automaticBits {
		return invalid("Invalid CIDR %s for IPv6 address mode. The EUI-64 address format requires the prefix to be /64.", s.CIDR)
	}
	return nil
}

// formedBy tells whether the port has, in the subnet, the address that its guest forms. The
// ports of routers have what they are given.
func formedBy(s *model.Subnet, p *model.Port) bool {
	return s.Automatic() && !routerOwned(p.DeviceOwner)
}

// meantFor tells whether ports of the owner get addresses of the subnet without asking.
func meantFor(s *model.Subnet, owner string) bool {
	return len(s.ServiceType) == 0 || slices.Contains(s.ServiceType, owner)
}

// formAll gives the ports of the network the address that their guests form in the new
// subnet, or leaves it to the AddressFormer where they are many.
func (n *Network) formAll(tx *store.Tx, s *model.Subnet) error {
	if !s.Automatic() {
		return nil
	}
	tx.Guard(networkMark(s.NetworkID)) // a port that comes now does not see the subnet yet
	ports := unformed(tx, s)
	if s.Forming = len(ports) > formBatch; s.Forming {
		return nil
	}
	return n.form(tx, s, ports)
}

// unformed gives the ports of the subnet's network that lack the address that their guests form.
func unformed(r store.Reader, s *model.Subnet) []*model.Port {
	var out []*model.Port
	for p := range store.Ports.List(r, "network", s.NetworkID) {
		if formedBy(s, p) && meantFor(s, p.DeviceOwner) && !slices.ContainsFunc(p.FixedIPs, func(f model.FixedIP) bool { return f.SubnetID == s.ID }) {
			out = append(out, p)
		}
	}
	return out
}

func (n *Network) form(tx *store.Tx, s *model.Subnet, ports []*model.Port) error {
	for _, old := range ports {
		p := *old
		p.FixedIPs = append(slices.Clone(old.FixedIPs), model.FixedIP{SubnetID: s.ID, Address: model.EUI64(s.CIDR, old.MAC)})
		p.Touch(n.now())
		if err := n.putPort(tx, &p); err != nil {
			return err
		}
	}
	return nil
}

// formedOnly tells whether every address of the subnet is one that a guest formed.
func formedOnly(ports []*model.Port, s *model.Subnet) bool {
	return s.Automatic() && !slices.ContainsFunc(ports, func(p *model.Port) bool { return !formedBy(s, p) })
}

// Unform takes from some of the ports of a subnet what their guests formed in it, so that it
// can go, and tells whether there are more. What was given to a port stays, and the subnet with it.
func (n *Network) Unform(tx *store.Tx, sc Scope, id model.ID) (more bool, err error) {
	s, err := n.GetSubnet(tx, sc, id)
	if err != nil {
		return false, err
	}
	ports := slices.Collect(store.Ports.List(tx, "subnet", id))
	if !sc.Owns(s.ProjectID) || len(ports) <= formBatch || !formedOnly(ports, s) {
		return false, nil // DeleteSubnet says what is to be said
	}
	if s.Forming {
		next := *s
		next.Forming = false
		if err := store.Subnets.Put(tx, &next); err != nil {
			return false, err
		}
	}
	return true, n.unform(tx, s, ports[:formBatch])
}

func (n *Network) unform(tx *store.Tx, s *model.Subnet, ports []*model.Port) error {
	for _, old := range ports {
		p := *old
		p.FixedIPs = slices.DeleteFunc(slices.Clone(old.FixedIPs), func(f model.FixedIP) bool { return f.SubnetID == s.ID })
		p.Touch(n.now())
		if err := store.Ports.Put(tx, &p); err != nil {
			return err
		}
	}
	return nil
}

// reform makes the formed addresses of a port whose MAC has changed anew.
func reform(tx *store.Tx, p *model.Port) {
	ips := slices.Clone(p.FixedIPs)
	for i, f := range ips {
		if s, ok := store.Subnets.Get(tx, f.SubnetID); ok && formedBy(s, p) {
			ips[i].Address = model.EUI64(s.CIDR, p.MAC)
		}
	}
	p.FixedIPs = ips
}

// Blocks of IPv6 that no subnet may touch, and how they are called.
var reserved6 = []struct {
	block netip.Prefix
	text  string
}{
	{netip.MustParsePrefix("ff00::/8"), "Multicast IP subnet is not supported."},
	{netip.MustParsePrefix("::/96"), "Loopback IP subnet is not supported."},
	{netip.MustParsePrefix("fe80::/10"), "Link-local IP subnet is not supported: every guest has its own link-local address."},
	{netip.MustParsePrefix("::ffff:0:0/96"), "IPv4-mapped IPv6 subnet is not supported."},
}
