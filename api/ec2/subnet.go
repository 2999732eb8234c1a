package ec2

import (
	"cmp"
	"math/big"
	"net/netip"
	"strconv"

	"yakumo/api"
	"yakumo/fault"
	"yakumo/model"
	"yakumo/network"
	"yakumo/store"
)

// subnetTag is of a network that was made with its subnet here, and goes with it.
const subnetTag = ownTags + "subnet"

func (d *dialect) subnetOperations(add adder) {
	add("CreateSubnet", api.Member, d.createSubnet, "VpcId", "CidrBlock", "AvailabilityZone", "AvailabilityZoneId", "TagSpecification")
	add("DescribeSubnets", api.Reader, d.describeSubnets, "SubnetId", "Filter", "MaxResults", "NextToken")
	add("DeleteSubnet", api.Member, d.deleteSubnet, "SubnetId")
	add("ModifySubnetAttribute", api.Member, d.modifySubnetAttribute, "SubnetId", "MapPublicIpOnLaunch")
}

type subnetShown struct {
	ID        string   `xml:"subnetId"`
	Owner     string   `xml:"ownerId"`
	State     string   `xml:"state"`
	Vpc       string   `xml:"vpcId"`
	Block     string   `xml:"cidrBlock"`
	Free      int64    `xml:"availableIpAddressCount"`
	Zone      string   `xml:"availabilityZone"`
	ZoneID    string   `xml:"availabilityZoneId"`
	Default   bool     `xml:"defaultForAz"`
	MapPublic bool     `xml:"mapPublicIpOnLaunch"`
	IPv6      bool     `xml:"assignIpv6AddressOnCreation"`
	Tags      set[tag] `xml:"tagSet"`
}

// zoneOf gives the zone that is shown of a subnet: the one that it was made for, of many that it reaches.
func (d *dialect) zoneOf(r store.Reader, s *model.Subnet) string {
	if w, ok := store.Networks.Get(r, s.NetworkID); ok && len(w.AvailabilityZone) > 0 {
		return w.AvailabilityZone[0]
	}
	return d.vols.Zone()
}

func (d *dialect) showSubnet(r store.Reader, v *vpc, s *model.Subnet) subnetShown {
	free := network.PoolSize(s)
	for p := range store.Ports.List(r, "subnet", s.ID) {
		for _, f := range p.FixedIPs {
			if f.SubnetID == s.ID && f.Address != s.Gateway {
				free.Sub(free, big.NewInt(1))
			}
		}
	}
	zone := d.zoneOf(r, s)
	return subnetShown{ID: subnetID.id(s.ID), Owner: s.ProjectID, State: "available", Vpc: v.id(), Block: s.CIDR.String(), Free: max(free.Int64(), 0), Zone: zone, ZoneID: zone,
		Default: v.isDefault(), Tags: tagSet(netTags(&s.Meta, true))}
}

// subnetOf gives the caller's subnet that an id names, and the VPC that it is in.
func (q *request) subnetOf(r store.Reader, id string) (*model.Subnet, *vpc, error) {
	s, err := find(r, store.Subnets, subnetID, id, func(s *model.Subnet) bool { _, ok := q.vpcOfSubnet(r, s); return ok })
	if err != nil {
		return nil, nil, err
	}
	v, _ := q.vpcOfSubnet(r, s)
	return s, v, nil
}

func (d *dialect) createSubnet(q *request) (any, error) {
	id, err := q.must("VpcId")
	if err != nil {
		return nil, err
	}
	text, err := q.must("CidrBlock")
	if err != nil {
		return nil, err
	}
	block, err := blockOf(text, "InvalidSubnet.Range")
	if err != nil {
		return nil, err
	}
	tags, err := q.tagSpec("subnet")
	if err != nil {
		return nil, err
	}
	zone := cmp.Or(q.str("AvailabilityZone"), q.str("AvailabilityZoneId"))
	var body struct {
		Subnet subnetShown `xml:"subnet"`
	}
	err = q.update(func(tx *store.Tx) error {
		v, err := q.vpcOf(tx, id)
		switch {
		case err != nil:
			return err
		case block.Bits() < v.block.Bits() || !v.block.Contains(block.Addr()):
			return fault.Coded(fault.Invalid, "InvalidSubnet.Range", "The CIDR '%s' is invalid.", block)
		case !knownZone(tx, d.vols, zone):
			return fault.Coded(fault.Invalid, "InvalidParameterValue", "Value (%s) for parameter availabilityZone is invalid. Subnets can currently only be created in the zones of this cloud.", api.Clip(zone))
		}
		for _, s := range v.subnets {
			if s.CIDR.Overlaps(block) {
				return fault.Coded(fault.Conflict, "InvalidSubnet.Conflict", "The CIDR '%s' conflicts with another subnet", block)
			}
		}
		s, err := d.makeSubnet(q, tx, v, block, zone, tags)
		if err == nil {
			body.Subnet = d.showSubnet(tx, v, s)
		}
		return err
	})
	return body, err
}

// subnetErrors are EC2's codes for what package network answers of subnets.
var subnetErrors = recoding{fault.Invalid: "InvalidParameterValue", fault.NotFound: "InvalidSubnetID.NotFound", fault.Conflict: "DependencyViolation", fault.OverQuota: "SubnetLimitExceeded"}

// makeSubnet makes a subnet of a VPC: a network with one subnet, beside the VPC's router.
func (d *dialect) makeSubnet(q *request, tx *store.Tx, v *vpc, block netip.Prefix, zone string, tags map[string]string) (*model.Subnet, error) {
	name, rest := named(tags)
	list, err := plainTags(rest)
	if err != nil {
		return nil, err
	}
	sc := q.netScope()
	spec := network.NetworkSpec{Name: &name}
	if zone != "" {
		spec.ZoneHints = &[]string{zone}
	}
	w, err := d.net.CreateNetwork(tx, sc, spec)
	if err != nil {
		return nil, subnetErrors.of(err)
	}
	if err := d.net.SetTags(tx, sc, network.TaggedNetworks, w.ID, []string{subnetTag}); err != nil {
		return nil, subnetErrors.of(err)
	}
	s, err := d.net.CreateSubnet(tx, sc, network.SubnetSpec{NetworkID: w.ID, CIDR: block, Name: &name})
	if err != nil {
		return nil, subnetErrors.of(err)
	}
	if err := d.net.SetTags(tx, sc, network.TaggedSubnets, s.ID, list); err != nil {
		return nil, recoding{fault.Invalid: "TagLimitExceeded"}.of(err)
	}
	if _, err := d.net.AddInterface(tx, sc, v.router.ID, network.InterfaceSpec{SubnetID: s.ID}); err != nil {
		return nil, recoding{fault.Invalid: "InvalidSubnet.Conflict", fault.Conflict: "InvalidSubnet.Conflict", fault.OverQuota: "SubnetLimitExceeded"}.of(err)
	}
	made, err := d.net.GetSubnet(tx, sc, s.ID)
	return made, subnetErrors.of(err)
}

func (d *dialect) describeSubnets(q *request) (any, error) {
	filters, err := q.filters("subnet-id", "vpc-id", "state", "cidr", "cidrBlock", "cidr-block", "availability-zone", "availabilityZone", "availability-zone-id", "available-ip-address-count",
		"default-for-az", "defaultForAz", "map-public-ip-on-launch", "owner-id", "tag-key", "tag:")
	if err != nil {
		return nil, err
	}
	r := q.Snapshot()
	var all []subnetShown
	show := func(v *vpc, s *model.Subnet) {
		x := d.showSubnet(r, v, s)
		if passes(filters, func(name string) []string {
			isDefault := strconv.FormatBool(x.Default)
			one := map[string]string{"subnet-id": x.ID, "vpc-id": x.Vpc, "state": x.State, "cidr": x.Block, "cidrBlock": x.Block, "cidr-block": x.Block, "availability-zone": x.Zone,
				"availabilityZone": x.Zone, "availability-zone-id": x.Zone, "available-ip-address-count": strconv.FormatInt(x.Free, 10), "default-for-az": isDefault, "defaultForAz": isDefault,
				"map-public-ip-on-launch": "false", "owner-id": x.Owner}
			if v, ok := one[name]; ok {
				return []string{v}
			}
			return tagValues(name, netTags(&s.Meta, true))
		}) {
			all = append(all, x)
		}
	}
	if ids := q.strs("SubnetId"); len(ids) > 0 {
		seen := map[string]bool{}
		for _, id := range ids {
			s, v, err := q.subnetOf(r, id)
			if err != nil {
				return nil, err
			}
			if !seen[id] {
				show(v, s)
			}
			seen[id] = true
		}
	} else {
		for s := range store.Subnets.List(r, "project", q.Caller.ProjectID) {
			if v, ok := q.vpcOfSubnet(r, s); ok {
				show(v, s)
			}
		}
	}
	var body struct {
		Subnets set[subnetShown] `xml:"subnetSet"`
		Next    string           `xml:"nextToken,omitempty"`
	}
	body.Subnets.Items, body.Next, err = paged(q, all, func(s subnetShown) string { return s.ID })
	return body, err
}

func (d *dialect) deleteSubnet(q *request) (any, error) {
	id, err := q.must("SubnetId")
	if err != nil {
		return nil, err
	}
	return done{true}, q.update(func(tx *store.Tx) error {
		s, v, err := q.subnetOf(tx, id)
		if err != nil {
			return err
		}
		for p := range store.Ports.List(tx, "subnet", s.ID) {
			if p.DeviceID != v.router.ID {
				return fault.Coded(fault.Conflict, "DependencyViolation", "The subnet '%s' has dependencies and cannot be deleted.", id)
			}
		}
		sc := q.netScope()
		if _, err := d.net.RemoveInterface(tx, sc, v.router.ID, network.InterfaceSpec{SubnetID: s.ID}); err != nil {
			return subnetErrors.of(err)
		}
		if err := d.net.DeleteSubnet(tx, sc, s.ID); err != nil {
			return subnetErrors.of(err)
		}
		w, ok := store.Networks.Get(tx, s.NetworkID)
		if !ok {
			return nil
		}
		if _, ours := ownTag(&w.Meta, subnetTag); !ours || !q.mine(w.ProjectID) {
			return nil // somebody made the network by itself, and keeps it
		}
		for range store.Subnets.List(tx, "network", w.ID) {
			return nil
		}
		return subnetErrors.of(d.net.DeleteNetwork(tx, sc, w.ID))
	})
}

func (d *dialect) modifySubnetAttribute(q *request) (any, error) {
	id, err := q.must("SubnetId")
	if err != nil {
		return nil, err
	}
	public, given, err := q.params.Part("MapPublicIpOnLaunch").truth("Value")
	if err != nil {
		return nil, err
	}
	return done{true}, q.update(func(tx *store.Tx) error {
		if _, _, err := q.subnetOf(tx, id); err != nil {
			return err
		}
		switch {
		case !given:
			return missing("MapPublicIpOnLaunch")
		case public:
			return unsupported("Instances get no public address by themselves here: allocate one, and associate it.")
		}
		return nil
	})
}
