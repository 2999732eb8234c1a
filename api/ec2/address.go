package ec2

import (
	"crypto/sha256"
	"encoding/hex"
	"net/netip"
	"slices"

	"yakumo/api"
	"yakumo/fault"
	"yakumo/model"
	"yakumo/network"
	"yakumo/store"
)

func (d *dialect) addressOperations(add adder) {
	add("AllocateAddress", api.Member, d.allocateAddress, "Domain", "TagSpecification")
	add("DescribeAddresses", api.Reader, d.describeAddresses, "PublicIp", "AllocationId", "Filter")
	add("AssociateAddress", api.Member, d.associateAddress, "AllocationId", "PublicIp", "InstanceId", "NetworkInterfaceId", "PrivateIpAddress", "AllowReassociation")
	add("DisassociateAddress", api.Member, d.disassociateAddress, "AssociationId", "PublicIp")
	add("ReleaseAddress", api.Member, d.releaseAddress, "AllocationId", "PublicIp")
}

type addressShown struct {
	Public      string   `xml:"publicIp"`
	ID          string   `xml:"allocationId"`
	Domain      string   `xml:"domain"`
	Instance    string   `xml:"instanceId,omitempty"`
	Association string   `xml:"associationId,omitempty"`
	Interface   string   `xml:"networkInterfaceId,omitempty"`
	Owner       string   `xml:"networkInterfaceOwnerId,omitempty"`
	Private     string   `xml:"privateIpAddress,omitempty"`
	Tags        set[tag] `xml:"tagSet"`
}

// linkID gives the id of what joins two things for a while: another one each time that they, or one of them, are others.
func linkID(prefix string, parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		h.Write([]byte(p + ","))
	}
	return prefix + "-" + hex.EncodeToString(h.Sum(nil))[:digits]
}

// associationID gives the id of an address's association; "": it has none.
func associationID(f *model.FloatingIP) string {
	if f.PortID == "" {
		return ""
	}
	return linkID("eipassoc", f.ID, f.PortID, f.FixedAddress.String())
}

func (q *request) showAddress(r store.Reader, f *model.FloatingIP) addressShown {
	out := addressShown{Public: f.Address.String(), ID: allocationID.id(f.ID), Domain: "vpc", Association: associationID(f), Tags: tagSet(netTags(&f.Meta, false))}
	if p, ok := store.Ports.Get(r, f.PortID); ok && f.PortID != "" {
		out.Interface, out.Owner, out.Private = interfaceID.id(p.ID), p.ProjectID, f.FixedAddress.String()
		if s, ok := store.Servers.Get(r, p.DeviceID); ok && q.mine(s.ProjectID) {
			out.Instance = instanceID.id(s.ID)
		}
	}
	return out
}

// addressOf gives the caller's address that a request names by its allocation or by itself.
func (q *request) addressOf(r store.Reader) (*model.FloatingIP, error) {
	mine := func(f *model.FloatingIP) bool { return q.mine(f.ProjectID) }
	if id := q.str("AllocationId"); id != "" {
		return find(r, store.FloatingIPs, allocationID, id, mine)
	}
	text := q.str("PublicIp")
	if text == "" {
		return nil, missing("AllocationId")
	}
	return q.addressNamed(r, text)
}

func (q *request) addressNamed(r store.Reader, text string) (*model.FloatingIP, error) {
	a, err := netip.ParseAddr(text)
	if err != nil {
		return nil, badValue("Invalid value '%s' for PublicIp: it is no address.", api.Clip(text))
	}
	for f := range store.FloatingIPs.List(r, "address", a.String()) {
		if q.mine(f.ProjectID) {
			return f, nil
		}
	}
	return nil, fault.Coded(fault.NotFound, "InvalidAddress.NotFound", "Address '%s' not found.", a)
}

// addressErrors are EC2's codes for what package network answers of addresses.
var addressErrors = recoding{fault.Invalid: "InvalidParameterValue", fault.NotFound: "InvalidAllocationID.NotFound", fault.Conflict: "InsufficientAddressCapacity", fault.OverQuota: "AddressLimitExceeded"}

func (d *dialect) allocateAddress(q *request) (any, error) {
	if domain := q.str("Domain"); domain != "" && domain != "vpc" {
		return nil, badValue("Value (%s) for parameter domain is invalid. It must be vpc.", api.Clip(domain))
	}
	_, list, err := q.netTagSpec("elastic-ip")
	if err != nil {
		return nil, err
	}
	var body struct {
		Public string `xml:"publicIp"`
		ID     string `xml:"allocationId"`
		Domain string `xml:"domain"`
	}
	err = q.update(func(tx *store.Tx) error {
		out, ok := d.outside(q, tx)
		if !ok {
			return fault.Coded(fault.Conflict, "InsufficientAddressCapacity", "This cloud has no external network that the project may use.")
		}
		f, err := d.net.CreateFloatingIP(tx, q.netScope(), network.FloatingIPSpec{NetworkID: out.ID})
		if err != nil {
			return addressErrors.of(err)
		}
		if err := d.net.SetTags(tx, q.netScope(), network.TaggedFloatingIPs, f.ID, list); err != nil {
			return recoding{fault.Invalid: "TagLimitExceeded"}.of(err)
		}
		body.Public, body.ID, body.Domain = f.Address.String(), allocationID.id(f.ID), "vpc"
		return nil
	})
	return body, err
}

func (d *dialect) describeAddresses(q *request) (any, error) {
	filters, err := q.filters("allocation-id", "association-id", "domain", "instance-id", "network-interface-id", "network-interface-owner-id", "private-ip-address", "public-ip", "tag-key", "tag:")
	if err != nil {
		return nil, err
	}
	r := q.Snapshot()
	ids, publics := q.strs("AllocationId"), q.strs("PublicIp")
	rows, err := chosen(q, r, store.FloatingIPs, allocationID, ids, func(f *model.FloatingIP) model.ID { return f.ProjectID })
	if err != nil {
		return nil, err
	}
	if len(publics) > 0 {
		if len(ids) == 0 {
			rows = nil
		}
		for _, p := range publics {
			f, err := q.addressNamed(r, p)
			if err != nil {
				return nil, err
			}
			if !slices.Contains(rows, f) {
				rows = append(rows, f)
			}
		}
	}
	var body struct {
		Addresses set[addressShown] `xml:"addressesSet"`
	}
	for _, f := range rows {
		x := q.showAddress(r, f)
		if passes(filters, func(name string) []string {
			one := map[string]string{"allocation-id": x.ID, "association-id": x.Association, "domain": x.Domain, "instance-id": x.Instance, "network-interface-id": x.Interface,
				"network-interface-owner-id": x.Owner, "private-ip-address": x.Private, "public-ip": x.Public}
			if v, ok := one[name]; ok {
				return []string{v}
			}
			return tagValues(name, netTags(&f.Meta, false))
		}) {
			body.Addresses.Items = append(body.Addresses.Items, x)
		}
	}
	return body, nil
}

// target gives the port, and its address, that an address is to be for.
func (q *request) target(r store.Reader) (*model.Port, netip.Addr, error) {
	instance, nic := q.str("InstanceId"), q.str("NetworkInterfaceId")
	var p *model.Port
	switch {
	case (instance == "") == (nic == ""):
		return nil, netip.Addr{}, fault.Coded(fault.Invalid, "InvalidParameterCombination", "You must specify either instanceId or networkInterfaceId, and not both.")
	case nic != "":
		var err error
		if p, err = q.interfaceOf(r, nic); err != nil {
			return nil, netip.Addr{}, err
		}
	default:
		s, err := q.serverOf(r, instance)
		if err != nil {
			return nil, netip.Addr{}, err
		}
		if len(s.Ports) == 0 {
			return nil, netip.Addr{}, fault.Coded(fault.Conflict, "InvalidInstanceID", "The instance '%s' has no network interface.", instance)
		}
		if p, _ = store.Ports.Get(r, s.Ports[0]); p == nil {
			return nil, netip.Addr{}, incorrect("The instance '%s' is not in a valid state for this operation.", instance)
		}
	}
	private := q.str("PrivateIpAddress")
	for _, f := range p.FixedIPs {
		if f.Address.Is4() && (private == "" || f.Address.String() == private) {
			return p, f.Address, nil
		}
	}
	return nil, netip.Addr{}, badValue("The private address '%s' is not assigned to the network interface %s.", api.Clip(private), interfaceID.id(p.ID))
}

func (d *dialect) associateAddress(q *request) (any, error) {
	again, said, err := q.params.truth("AllowReassociation")
	if err != nil {
		return nil, err
	}
	again = again || !said // of a VPC's addresses, as EC2 does
	var body struct {
		ID string `xml:"associationId"`
	}
	err = q.update(func(tx *store.Tx) error {
		f, err := q.addressOf(tx)
		if err != nil {
			return err
		}
		p, inside, err := q.target(tx)
		if err != nil {
			return err
		}
		if f.PortID == p.ID && f.FixedAddress == inside {
			body.ID = associationID(f)
			return nil
		}
		if f.PortID != "" && !again {
			return fault.Coded(fault.Conflict, "Resource.AlreadyAssociated", "resource %s is already associated with associate-id %s", allocationID.id(f.ID), associationID(f))
		}
		for o := range store.FloatingIPs.List(tx, "port", p.ID) {
			if o.ID == f.ID || o.FixedAddress != inside {
				continue
			}
			if !again {
				return fault.Coded(fault.Conflict, "Resource.AlreadyAssociated", "resource %s is already associated with associate-id %s", interfaceID.id(p.ID), associationID(o))
			}
			if err := d.dissociate(q, tx, o); err != nil {
				return err
			}
			break
		}
		if err := d.reach(q, tx, p, inside); err != nil {
			return err
		}
		n, err := d.net.UpdateFloatingIP(tx, q.netScope(), f.ID, network.FloatingIPSpec{PortID: &p.ID, FixedAddress: &inside})
		switch {
		case fault.CodeOf(err) == "ExternalGatewayForFloatingIPNotFound":
			return recoding{fault.NotFound: "Gateway.NotAttached"}.of(err)
		case err != nil:
			return recoding{fault.Invalid: "InvalidParameterValue", fault.Conflict: "Resource.AlreadyAssociated"}.of(err)
		}
		body.ID = associationID(n)
		return nil
	})
	return body, err
}

// reach opens the way out of the VPC that an address inside is in, where its internet gateway has no route yet.
func (d *dialect) reach(q *request, tx *store.Tx, p *model.Port, inside netip.Addr) error {
	for _, f := range p.FixedIPs {
		if f.Address != inside {
			continue
		}
		s, ok := store.Subnets.Get(tx, f.SubnetID)
		if !ok {
			continue
		}
		v, ok := q.vpcOfSubnet(tx, s)
		if !ok || v.router.Gateway != nil {
			continue // what there is no way for is told by who looks for it
		}
		if d.gatewayOf(q, tx, v) == nil {
			return fault.Coded(fault.Conflict, "Gateway.NotAttached", "Network %s is not attached to any internet gateway", v.id())
		}
		if out, ok := d.outside(q, tx); ok {
			return d.openGateway(q, tx, v.router.ID, out)
		}
	}
	return nil
}

func (d *dialect) dissociate(q *request, tx *store.Tx, f *model.FloatingIP) error {
	none := ""
	_, err := d.net.UpdateFloatingIP(tx, q.netScope(), f.ID, network.FloatingIPSpec{PortID: &none})
	return addressErrors.of(err)
}

func (d *dialect) disassociateAddress(q *request) (any, error) {
	return done{true}, q.update(func(tx *store.Tx) error {
		if id := q.str("AssociationId"); id != "" {
			for f := range store.FloatingIPs.List(tx, "project", q.Caller.ProjectID) {
				if f.PortID != "" && associationID(f) == id {
					return d.dissociate(q, tx, f)
				}
			}
			return fault.Coded(fault.NotFound, "InvalidAssociationID.NotFound", "The association ID '%s' does not exist", api.Clip(id))
		}
		if q.str("PublicIp") == "" {
			return missing("AssociationId")
		}
		f, err := q.addressNamed(tx, q.str("PublicIp"))
		if err != nil || f.PortID == "" {
			return or(err, fault.Coded(fault.NotFound, "InvalidAssociationID.NotFound", "The address '%s' is not associated.", f.Address))
		}
		return d.dissociate(q, tx, f)
	})
}

func (d *dialect) releaseAddress(q *request) (any, error) {
	return done{true}, q.update(func(tx *store.Tx) error {
		f, err := q.addressOf(tx)
		switch {
		case err != nil:
			return err
		case f.PortID != "":
			return fault.Coded(fault.Conflict, "InvalidIPAddress.InUse", "Address %s is in use.", f.Address)
		}
		return recoding{fault.Conflict: "InvalidIPAddress.InUse"}.of(d.net.DeleteFloatingIP(tx, q.netScope(), f.ID))
	})
}
