package ec2

import (
	"net/netip"
	"slices"

	"yakumo/api"
	"yakumo/fault"
	"yakumo/model"
	"yakumo/network"
	"yakumo/store"
)

type assignedAddress struct {
	Private string `xml:"privateIpAddress"`
}

// addressesOf reads PrivateIpAddress.n.
func (q *request) addressesOf() ([]netip.Addr, error) {
	var out []netip.Addr
	for _, text := range q.strs("PrivateIpAddress") {
		a, err := netip.ParseAddr(text)
		if err != nil || !a.Is4() {
			return nil, badValue("Value (%s) for parameter privateIpAddress is invalid. It is no address of IPv4.", api.Clip(text))
		}
		if slices.Contains(out, a) {
			return nil, badValue("The address %s is given twice.", a)
		}
		out = append(out, a)
	}
	return out, nil
}

// specsOf gives addresses that a port has as what it is to keep.
func specsOf(ips []model.FixedIP) []network.AddressSpec {
	var out []network.AddressSpec
	for _, f := range ips {
		out = append(out, network.AddressSpec{SubnetID: f.SubnetID, Address: f.Address})
	}
	return out
}

// assignAddresses gives an interface more addresses, of the subnet of its first.
func (d *dialect) assignAddresses(q *request) (any, error) {
	id, err := q.must("NetworkInterfaceId")
	if err != nil {
		return nil, err
	}
	want, err := q.addressesOf()
	if err != nil {
		return nil, err
	}
	count, err := q.params.number("SecondaryPrivateIpAddressCount", 1, network.MaxFixedIPs-1, 0)
	if err != nil {
		return nil, err
	}
	switch {
	case (count == 0) == (len(want) == 0):
		return nil, fault.Coded(fault.Invalid, "InvalidParameterCombination", "You must specify either privateIpAddresses or secondaryPrivateIpAddressCount, and not both.")
	case q.flag("AllowReassignment"):
		return nil, unsupported("An address is not taken from another interface: unassign it there first.")
	}
	var body struct {
		ID       string               `xml:"networkInterfaceId"`
		Assigned set[assignedAddress] `xml:"assignedPrivateIpAddressesSet"`
	}
	err = q.update(func(tx *store.Tx) error {
		body.ID, body.Assigned.Items = id, nil
		p, err := q.interfaceOf(tx, id)
		if err != nil {
			return err
		}
		s, _ := q.homeOf(tx, p)
		specs := specsOf(p.FixedIPs)
		for range count {
			specs = append(specs, network.AddressSpec{SubnetID: s.ID})
		}
		for _, a := range want {
			holder, taken := store.Ports.Holder(tx, store.PortAddressClaim(s.ID, a.String()))
			switch {
			case !s.CIDR.Contains(a):
				return badValue("Address does not fall within the subnet's address range")
			case taken && holder == p.ID:
				continue
			case taken:
				return fault.Coded(fault.Conflict, "InvalidIPAddress.InUse", "Address %s is in use.", a)
			}
			specs = append(specs, network.AddressSpec{SubnetID: s.ID, Address: a})
		}
		if len(specs) > network.MaxFixedIPs {
			return fault.Coded(fault.OverQuota, "PrivateIpAddressLimitExceeded", "A network interface has at most %d addresses.", network.MaxFixedIPs)
		}
		n, err := d.net.UpdatePort(tx, q.netScope(), p.ID, network.PortSpec{FixedIPs: &specs})
		if err != nil {
			return recoding{fault.Invalid: "InvalidParameterValue", fault.Conflict: "InsufficientFreeAddressesInSubnet"}.of(err)
		}
		for _, f := range n.FixedIPs {
			if !slices.Contains(p.FixedIPs, f) {
				body.Assigned.Items = append(body.Assigned.Items, assignedAddress{f.Address.String()})
			}
		}
		return nil
	})
	return body, err
}

// unassignAddresses takes addresses of an interface that are not its first.
func (d *dialect) unassignAddresses(q *request) (any, error) {
	id, err := q.must("NetworkInterfaceId")
	if err != nil {
		return nil, err
	}
	gone, err := q.addressesOf()
	if err != nil {
		return nil, err
	}
	if len(gone) == 0 {
		return nil, missing("privateIpAddresses")
	}
	return done{true}, q.update(func(tx *store.Tx) error {
		p, err := q.interfaceOf(tx, id)
		if err != nil {
			return err
		}
		for _, a := range gone {
			at := slices.IndexFunc(p.FixedIPs, func(f model.FixedIP) bool { return f.Address == a })
			switch first := slices.IndexFunc(p.FixedIPs, func(f model.FixedIP) bool { return f.Address.Is4() }); {
			case at < 0:
				return badValue("Some of the specified addresses are not assigned to interface %s", id)
			case at == first:
				return badValue("The primary address of interface %s cannot be unassigned", id)
			}
			for f := range store.FloatingIPs.List(tx, "port", p.ID) {
				if f.FixedAddress != a {
					continue
				}
				if !q.mine(f.ProjectID) {
					return fault.Coded(fault.Conflict, "OperationNotPermitted", "The address %s has a public address of another project.", a)
				}
				if err := d.dissociate(q, tx, f); err != nil { // as EC2 does
					return err
				}
			}
		}
		specs := specsOf(slices.DeleteFunc(slices.Clone(p.FixedIPs), func(f model.FixedIP) bool { return slices.Contains(gone, f.Address) }))
		_, err = d.net.UpdatePort(tx, q.netScope(), p.ID, network.PortSpec{FixedIPs: &specs})
		return interfaceErrors.of(err)
	})
}
