package ec2

import (
	"net/netip"
	"slices"
	"strconv"

	"yakumo/api"
	"yakumo/fault"
	"yakumo/model"
	"yakumo/network"
	"yakumo/store"
)

// A VPC is a router of the project. vpcTag holds the prefix of one that was made here; of others the prefix is the smallest that holds all
// their subnets. See docs/design/0045-vpcs.md.
const (
	vpcTag     = ownTags + "vpc="
	defaultTag = ownTags + "default"
)

// vpc is a router as EC2 sees it.
type vpc struct {
	router  *model.Router
	block   netip.Prefix
	subnets []*model.Subnet // the caller's, IPv4, by id
}

func (v *vpc) id() string { return vpcID.id(v.router.ID) }

// isDefault tells whether it is the one that a request without a VPC means.
func (v *vpc) isDefault() bool { _, ok := ownTag(&v.router.Meta, defaultTag); return ok }

// vpcIn gives the VPC that a router of the caller is; false: it is none, as it has neither a prefix nor a subnet.
func (q *request) vpcIn(r store.Reader, x *model.Router) (*vpc, bool) {
	if !q.mine(x.ProjectID) {
		return nil, false
	}
	v := &vpc{router: x}
	for p := range store.Ports.List(r, "device", x.ID) {
		if p.DeviceOwner != model.OwnerRouterInterface {
			continue
		}
		for _, f := range p.FixedIPs {
			for s := range store.Subnets.List(r, "id", f.SubnetID) { // a router has more than one transaction compares
				if s.IPVersion == 4 && q.mine(s.ProjectID) {
					v.subnets = append(v.subnets, s)
				}
			}
		}
	}
	slices.SortFunc(v.subnets, func(a, b *model.Subnet) int { return a.CIDR.Addr().Compare(b.CIDR.Addr()) })
	if text, ok := ownTag(&x.Meta, vpcTag); ok {
		if p, err := netip.ParsePrefix(text); err == nil {
			v.block = p.Masked()
		}
	}
	for _, s := range v.subnets {
		if !v.block.IsValid() {
			v.block = s.CIDR.Masked()
		}
		for v.block.Bits() > s.CIDR.Bits() || !v.block.Contains(s.CIDR.Addr()) {
			v.block = netip.PrefixFrom(v.block.Addr(), v.block.Bits()-1).Masked()
		}
	}
	return v, v.block.IsValid() && v.block.Addr().Is4()
}

// vpcs gives the caller's VPCs, by id.
func (q *request) vpcs(r store.Reader) []*vpc {
	var out []*vpc
	for x := range store.Routers.List(r, "project", q.Caller.ProjectID) {
		if v, ok := q.vpcIn(r, x); ok {
			out = append(out, v)
		}
	}
	return out
}

// vpcOf gives the caller's VPC that an id names.
func (q *request) vpcOf(r store.Reader, id string) (*vpc, error) {
	x, err := find(r, store.Routers, vpcID, id, func(x *model.Router) bool { _, ok := q.vpcIn(r, x); return ok })
	if err != nil {
		return nil, err
	}
	v, _ := q.vpcIn(r, x)
	return v, nil
}

// routerOf gives the project's router beside a subnet: that of its gateway, where there are several; nil: none.
func routerOf(r store.Reader, s *model.Subnet, project model.ID) *model.Router {
	var found *model.Router
	for p := range store.Ports.List(r, "router_network", s.NetworkID) {
		for _, f := range p.FixedIPs {
			if f.SubnetID != s.ID || found != nil && f.Address != s.Gateway {
				continue
			}
			if x, ok := store.Routers.Get(r, p.DeviceID); ok && x.ProjectID == project {
				found = x
			}
		}
	}
	return found
}

// vpcOfSubnet gives the VPC that a subnet of the caller is in.
func (q *request) vpcOfSubnet(r store.Reader, s *model.Subnet) (*vpc, bool) {
	if !q.mine(s.ProjectID) || s.IPVersion != 4 {
		return nil, false
	}
	x := routerOf(r, s, s.ProjectID)
	if x == nil {
		return nil, false
	}
	return q.vpcIn(r, x)
}

// usual gives the VPC that is meant where none is named: the default one, or the only one; nil: none.
func usual(all []*vpc) *vpc {
	for _, v := range all {
		if v.isDefault() {
			return v
		}
	}
	if len(all) == 1 {
		return all[0]
	}
	return nil
}

func (d *dialect) vpcOperations(add adder) {
	add("CreateVpc", api.Member, d.createVpc, "CidrBlock", "InstanceTenancy", "TagSpecification", "AmazonProvidedIpv6CidrBlock")
	add("CreateDefaultVpc", api.Member, d.createDefaultVpc)
	add("DescribeVpcs", api.Reader, d.describeVpcs, "VpcId", "Filter", "MaxResults", "NextToken")
	add("DeleteVpc", api.Member, d.deleteVpc, "VpcId")
	add("DescribeVpcAttribute", api.Reader, d.describeVpcAttribute, "VpcId", "Attribute")
	add("ModifyVpcAttribute", api.Member, d.modifyVpcAttribute, "VpcId", "EnableDnsHostnames", "EnableDnsSupport")
}

type blockShown struct {
	ID    string `xml:"associationId"`
	Block string `xml:"cidrBlock"`
	State string `xml:"cidrBlockState>state"`
}

type vpcShown struct {
	ID      string          `xml:"vpcId"`
	Owner   string          `xml:"ownerId"`
	State   string          `xml:"state"`
	Block   string          `xml:"cidrBlock"`
	Blocks  set[blockShown] `xml:"cidrBlockAssociationSet"`
	DHCP    string          `xml:"dhcpOptionsId"`
	Tags    set[tag]        `xml:"tagSet"`
	Tenancy string          `xml:"instanceTenancy"`
	Default bool            `xml:"isDefault"`
}

func showVpc(v *vpc) vpcShown {
	id := v.router.ID
	return vpcShown{ID: v.id(), Owner: v.router.ProjectID, State: "available", Block: v.block.String(), Blocks: setOf(blockShown{kind("vpc-cidr-assoc").id(id), v.block.String(), "associated"}),
		DHCP: dhcpID.id(id), Tags: tagSet(netTags(&v.router.Meta, true)), Tenancy: "default", Default: v.isDefault()}
}

// Limits of the prefixes of VPCs and of their subnets, EC2's.
const (
	minBits = 16
	maxBits = 28
)

// blockOf reads a prefix of IPv4. Bits outside it are left out, as EC2 does.
func blockOf(text, code string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(text)
	if err != nil || !p.Addr().Is4() {
		return p, badValue("Value (%s) for parameter cidrBlock is invalid. This is not a valid CIDR block.", api.Clip(text))
	}
	if p.Bits() < minBits || p.Bits() > maxBits {
		return p, fault.Coded(fault.Invalid, code, "The CIDR '%s' is invalid: its prefix has %d to %d bits.", p, minBits, maxBits)
	}
	return p.Masked(), nil
}

// vpcErrors are EC2's codes for what package network answers of routers.
var vpcErrors = recoding{fault.Invalid: "InvalidParameterValue", fault.NotFound: "InvalidVpcID.NotFound", fault.Conflict: "DependencyViolation", fault.OverQuota: "VpcLimitExceeded"}

func (d *dialect) createVpc(q *request) (any, error) {
	text, err := q.must("CidrBlock")
	if err != nil {
		return nil, err
	}
	block, err := blockOf(text, "InvalidVpc.Range")
	if err != nil {
		return nil, err
	}
	if t := q.str("InstanceTenancy"); t != "" && t != "default" {
		return nil, unsupported("A tenancy other than 'default' is not offered by this cloud.")
	}
	if six, _, err := q.params.truth("AmazonProvidedIpv6CidrBlock"); six || err != nil {
		return nil, or(err, unsupported("IPv6 of a VPC is not offered: use the OpenStack API."))
	}
	tags, err := q.tagSpec("vpc")
	if err != nil {
		return nil, err
	}
	var body struct {
		Vpc vpcShown `xml:"vpc"`
	}
	err = q.update(func(tx *store.Tx) error {
		v, err := d.makeVpc(q, tx, block, tags)
		if err == nil {
			body.Vpc = showVpc(v)
		}
		return err
	})
	return body, err
}

// or gives the first error that is one.
func or(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// makeVpc makes a VPC's router. own are tags of this dialect besides the prefix.
func (d *dialect) makeVpc(q *request, tx *store.Tx, block netip.Prefix, tags map[string]string, own ...string) (*vpc, error) {
	name, rest := named(tags)
	list, err := plainTags(rest)
	if err != nil {
		return nil, err
	}
	// What no subnet may be of is refused now, not with the first subnet.
	for _, never := range []string{"0.0.0.0/8", "127.0.0.0/8", "224.0.0.0/3"} {
		if netip.MustParsePrefix(never).Overlaps(block) {
			return nil, fault.Coded(fault.Invalid, "InvalidVpc.Range", "The CIDR '%s' is invalid: guests cannot have addresses of %s.", block, never)
		}
	}
	x, err := d.net.CreateRouter(tx, q.netScope(), network.RouterSpec{Name: &name})
	if err != nil {
		return nil, vpcErrors.of(err)
	}
	if err := d.net.SetTags(tx, q.netScope(), network.TaggedRouters, x.ID, append(append(list, vpcTag+block.String()), own...)); err != nil {
		return nil, recoding{fault.Invalid: "TagLimitExceeded"}.of(err)
	}
	return q.vpcOf(tx, vpcID.id(x.ID))
}

// The default VPC, as EC2 makes it.
var (
	defaultBlock  = netip.MustParsePrefix("172.31.0.0/16")
	defaultSubnet = netip.MustParsePrefix("172.31.0.0/20")
)

func (d *dialect) createDefaultVpc(q *request) (any, error) {
	var body struct {
		Vpc vpcShown `xml:"vpc"`
	}
	err := q.update(func(tx *store.Tx) error {
		mark := "ec2-default-vpc," + q.Caller.ProjectID // two at once are put in order
		tx.Mark(mark)
		tx.Guard(mark)
		for _, v := range q.vpcs(tx) {
			if v.isDefault() {
				return fault.Coded(fault.Conflict, "DefaultVpcAlreadyExists", "A Default VPC already exists for this account in this region.")
			}
		}
		v, err := d.makeVpc(q, tx, defaultBlock, nil, defaultTag)
		if err != nil {
			return err
		}
		if _, err := d.makeSubnet(q, tx, v, defaultSubnet, "", nil); err != nil {
			return err
		}
		body.Vpc = showVpc(v)
		out, ok := d.outside(q, tx)
		if !ok {
			return nil // a cloud without an outside has no way there
		}
		g, err := d.net.CreateInternetGateway(tx, q.netScope(), nil)
		if err != nil {
			return gatewayErrors.of(err)
		}
		if err := d.net.JoinInternetGateway(tx, q.netScope(), g.ID, v.router.ID); err != nil {
			return gatewayErrors.of(err)
		}
		return d.openGateway(q, tx, v.router.ID, out)
	})
	return body, err
}

func (d *dialect) describeVpcs(q *request) (any, error) {
	filters, err := q.filters("vpc-id", "state", "cidr", "cidrBlock", "cidr-block", "cidr-block-association.cidr-block", "cidr-block-association.state", "is-default", "isDefault", "dhcp-options-id",
		"owner-id", "tag-key", "tag:")
	if err != nil {
		return nil, err
	}
	r := q.Snapshot()
	var rows []*vpc
	if ids := q.strs("VpcId"); len(ids) > 0 {
		for _, id := range slices.Compact(slices.Sorted(slices.Values(ids))) {
			v, err := q.vpcOf(r, id)
			if err != nil {
				return nil, err
			}
			rows = append(rows, v)
		}
	} else {
		rows = q.vpcs(r)
	}
	var all []vpcShown
	for _, v := range rows {
		x := showVpc(v)
		if passes(filters, func(name string) []string {
			isDefault := strconv.FormatBool(x.Default)
			one := map[string]string{"vpc-id": x.ID, "state": x.State, "cidr": x.Block, "cidrBlock": x.Block, "cidr-block": x.Block, "cidr-block-association.cidr-block": x.Block,
				"cidr-block-association.state": "associated", "is-default": isDefault, "isDefault": isDefault, "dhcp-options-id": x.DHCP, "owner-id": x.Owner}
			if v, ok := one[name]; ok {
				return []string{v}
			}
			return tagValues(name, netTags(&v.router.Meta, true))
		}) {
			all = append(all, x)
		}
	}
	var body struct {
		Vpcs set[vpcShown] `xml:"vpcSet"`
		Next string        `xml:"nextToken,omitempty"`
	}
	body.Vpcs.Items, body.Next, err = paged(q, all, func(v vpcShown) string { return v.ID })
	return body, err
}

func (d *dialect) deleteVpc(q *request) (any, error) {
	id, err := q.must("VpcId")
	if err != nil {
		return nil, err
	}
	return done{true}, q.update(func(tx *store.Tx) error {
		v, err := q.vpcOf(tx, id)
		if err != nil {
			return err
		}
		attached := d.gatewayOf(q, tx, v) != nil
		groups := slices.ContainsFunc(slices.Collect(store.SecurityGroups.List(tx, "project", q.Caller.ProjectID)), func(g *model.SecurityGroup) bool {
			of, ok := ownTag(&g.Meta, vpcTag)
			return ok && of == id
		})
		if len(v.subnets) > 0 || attached || groups {
			return fault.Coded(fault.Conflict, "DependencyViolation", "The vpc '%s' has dependencies and cannot be deleted.", id)
		}
		return vpcErrors.of(d.net.DeleteRouter(tx, q.netScope(), v.router.ID))
	})
}

type truth struct {
	Value bool `xml:"value"`
}

func (d *dialect) describeVpcAttribute(q *request) (any, error) {
	id, err := q.must("VpcId")
	if err != nil {
		return nil, err
	}
	if _, err := q.vpcOf(q.Snapshot(), id); err != nil {
		return nil, err
	}
	var body struct {
		ID        string `xml:"vpcId"`
		Support   *truth `xml:"enableDnsSupport"`
		Hostnames *truth `xml:"enableDnsHostnames"`
	}
	body.ID = id
	switch q.str("Attribute") {
	case "enableDnsSupport":
		body.Support = &truth{true}
	case "enableDnsHostnames":
		body.Hostnames = &truth{false}
	default:
		return nil, badValue("Value (%s) for parameter attribute is invalid. It must be enableDnsSupport or enableDnsHostnames.", api.Clip(q.str("Attribute")))
	}
	return body, nil
}

// modifyVpcAttribute takes what is so anyway: names are answered in every VPC, and guests have none outside.
func (d *dialect) modifyVpcAttribute(q *request) (any, error) {
	id, err := q.must("VpcId")
	if err != nil {
		return nil, err
	}
	support, given, err := q.params.Part("EnableDnsSupport").truth("Value")
	if err != nil {
		return nil, err
	}
	names, _, err := q.params.Part("EnableDnsHostnames").truth("Value")
	if err != nil {
		return nil, err
	}
	return done{true}, q.update(func(tx *store.Tx) error {
		if _, err := q.vpcOf(tx, id); err != nil {
			return err
		}
		switch {
		case given && !support:
			return unsupported("Names are answered in every VPC of this cloud.")
		case names:
			return unsupported("Public names of instances are not offered by this cloud.")
		}
		return nil
	})
}
