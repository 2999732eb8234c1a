package ec2

import (
	"net/netip"
	"slices"
	"strconv"

	"yakumo/api"
	"yakumo/fault"
	"yakumo/model"
	"yakumo/store"
)

func (d *dialect) routeOperations(add adder) {
	add("DescribeRouteTables", api.Reader, d.describeTables, "RouteTableId", "Filter", "MaxResults", "NextToken")
	add("CreateRoute", api.Member, d.createRoute, "RouteTableId", "DestinationCidrBlock", "GatewayId", "InstanceId", "NetworkInterfaceId")
	add("DeleteRoute", api.Member, d.deleteRoute, "RouteTableId", "DestinationCidrBlock")
	add("DescribeNetworkAcls", api.Reader, d.describeACLs, "NetworkAclId", "Filter", "MaxResults", "NextToken")
	add("DescribeDhcpOptions", api.Reader, d.describeDHCP, "DhcpOptionsId", "Filter", "MaxResults", "NextToken")
}

// everywhere is the destination of a default route.
var everywhere = netip.MustParsePrefix("0.0.0.0/0")

type routeShown struct {
	Destination string `xml:"destinationCidrBlock"`
	Gateway     string `xml:"gatewayId,omitempty"`
	Instance    string `xml:"instanceId,omitempty"`
	Interface   string `xml:"networkInterfaceId,omitempty"`
	State       string `xml:"state"`
	Origin      string `xml:"origin"`
}

type tableAssociation struct {
	ID    string `xml:"routeTableAssociationId"`
	Table string `xml:"routeTableId"`
	Main  bool   `xml:"main"`
	State string `xml:"associationState>state"`
}

type tableShown struct {
	ID           string                `xml:"routeTableId"`
	Vpc          string                `xml:"vpcId"`
	Owner        string                `xml:"ownerId"`
	Routes       set[routeShown]       `xml:"routeSet"`
	Associations set[tableAssociation] `xml:"associationSet"`
	Propagating  struct{}              `xml:"propagatingVgwSet"`
	Tags         struct{}              `xml:"tagSet"`
}

// showTable gives the main route table of a VPC, the only one: what its router has.
func (d *dialect) showTable(q *request, r store.Reader, v *vpc) tableShown {
	id := tableID.id(v.router.ID)
	out := tableShown{ID: id, Vpc: v.id(), Owner: v.router.ProjectID, Associations: setOf(tableAssociation{kind("rtbassoc").id(v.router.ID), id, true, "associated"})}
	out.Routes.Items = []routeShown{{Destination: v.block.String(), Gateway: "local", State: "active", Origin: "CreateRouteTable"}}
	for _, x := range v.router.Routes {
		s := routeShown{Destination: x.Destination.String(), State: "blackhole", Origin: "CreateRoute"}
		for _, p := range at(r, v, x.NextHop) {
			s.Interface, s.State = interfaceID.id(p.ID), "active"
			if g, ok := store.Servers.Get(r, p.DeviceID); ok && q.mine(g.ProjectID) {
				s.Instance = instanceID.id(g.ID)
			}
		}
		out.Routes.Items = append(out.Routes.Items, s)
	}
	if v.router.Gateway != nil && !slices.ContainsFunc(v.router.Routes, func(x model.Route) bool { return x.Destination == everywhere }) {
		if g := d.gatewayOf(q, r, v); g != nil {
			out.Routes.Items = append(out.Routes.Items, routeShown{Destination: everywhere.String(), Gateway: g.id, State: "active", Origin: "CreateRoute"})
		}
	}
	return out
}

// at gives the port of a VPC that has the address: one, or none.
func at(r store.Reader, v *vpc, a netip.Addr) []*model.Port {
	for _, s := range v.subnets {
		if p, ok := store.Ports.Claimed(r, store.PortAddressClaim(s.ID, a.String())); ok && s.CIDR.Contains(a) {
			return []*model.Port{p}
		}
	}
	return nil
}

// ofVpcs gives the caller's VPCs that ids of the kind name, which are made of the routers'; all where there are no ids.
func (q *request) ofVpcs(r store.Reader, k kind, ids []string) ([]*vpc, error) {
	all := q.vpcs(r)
	if len(ids) == 0 {
		return all, nil
	}
	var out []*vpc
	for _, id := range ids {
		if _, ok := k.prefix(id); !ok {
			return nil, fault.Coded(fault.Invalid, codeNames[k]+".Malformed", "Invalid id: %q (expecting \"%s-...\")", api.Clip(id), k)
		}
		at := slices.IndexFunc(all, func(v *vpc) bool { return k.id(v.router.ID) == id })
		if at < 0 {
			return nil, k.none(id)
		}
		if !slices.Contains(out, all[at]) {
			out = append(out, all[at])
		}
	}
	return out, nil
}

func (d *dialect) describeTables(q *request) (any, error) {
	filters, err := q.filters("route-table-id", "vpc-id", "owner-id", "association.main", "association.route-table-association-id", "association.route-table-id", "association.subnet-id",
		"route.destination-cidr-block", "route.gateway-id", "route.instance-id", "route.state", "route.origin", "tag-key", "tag:")
	if err != nil {
		return nil, err
	}
	r := q.Snapshot()
	rows, err := q.ofVpcs(r, tableID, q.strs("RouteTableId"))
	if err != nil {
		return nil, err
	}
	var all []tableShown
	for _, v := range rows {
		x := d.showTable(q, r, v)
		if passes(filters, func(name string) (out []string) {
			switch name {
			case "route-table-id", "association.route-table-id":
				return []string{x.ID}
			case "vpc-id":
				return []string{x.Vpc}
			case "owner-id":
				return []string{x.Owner}
			case "association.main":
				return []string{"true"}
			case "association.route-table-association-id":
				return []string{x.Associations.Items[0].ID}
			}
			for _, s := range x.Routes.Items {
				if v := (map[string]string{"route.destination-cidr-block": s.Destination, "route.gateway-id": s.Gateway, "route.instance-id": s.Instance, "route.state": s.State,
					"route.origin": s.Origin})[name]; v != "" {
					out = append(out, v)
				}
			}
			return out
		}) {
			all = append(all, x)
		}
	}
	var body struct {
		Tables set[tableShown] `xml:"routeTableSet"`
		Next   string          `xml:"nextToken,omitempty"`
	}
	body.Tables.Items, body.Next, err = paged(q, all, func(t tableShown) string { return t.ID })
	return body, err
}

// tableAndBlock gives the VPC whose table a request names, and the destination.
func (q *request) tableAndBlock(r store.Reader) (*vpc, netip.Prefix, error) {
	id, err := q.must("RouteTableId")
	if err != nil {
		return nil, netip.Prefix{}, err
	}
	text, err := q.must("DestinationCidrBlock")
	if err != nil {
		return nil, netip.Prefix{}, err
	}
	block, err := netip.ParsePrefix(text)
	if err != nil || !block.Addr().Is4() {
		return nil, block, badValue("Value (%s) for parameter destinationCidrBlock is invalid. This is not a valid CIDR block.", api.Clip(text))
	}
	rows, err := q.ofVpcs(r, tableID, []string{id})
	if err != nil {
		return nil, block, err
	}
	return rows[0], block.Masked(), nil
}

// routeErrors are EC2's codes for what package network answers of routes.
var routeErrors = recoding{fault.Invalid: "InvalidParameterValue", fault.NotFound: "InvalidRouteTableID.NotFound", fault.Conflict: "DependencyViolation"}

func (d *dialect) createRoute(q *request) (any, error) {
	targets := 0
	for _, name := range []string{"GatewayId", "InstanceId", "NetworkInterfaceId"} {
		if q.str(name) != "" {
			targets++
		}
	}
	if targets != 1 {
		return nil, fault.Coded(fault.Invalid, "InvalidParameterCombination", "The request must contain exactly one of gatewayId, instanceId and networkInterfaceId")
	}
	return done{true}, q.update(func(tx *store.Tx) error {
		v, block, err := q.tableAndBlock(tx)
		if err != nil {
			return err
		}
		if v.block.Overlaps(block) && block.Bits() >= v.block.Bits() {
			return badValue("The destination CIDR block %s is equal to or more specific than one of this VPC's CIDR blocks. This route can target only an interface or an instance.", block)
		}
		if id := q.str("GatewayId"); id != "" {
			return d.routeOut(q, tx, v, block, id)
		}
		hop, err := q.hop(tx, v)
		if err != nil {
			return err
		}
		for _, x := range v.router.Routes {
			if x.Destination == block && x.NextHop != hop {
				return fault.Coded(fault.Conflict, "RouteAlreadyExists", "The route identified by %s already exists.", block)
			}
		}
		if block == everywhere && v.router.Gateway != nil {
			return fault.Coded(fault.Conflict, "RouteAlreadyExists", "The route identified by %s already exists.", block)
		}
		_, err = d.net.AddRoutes(tx, q.netScope(), v.router.ID, []model.Route{{Destination: block, NextHop: hop}})
		if fault.CodeOf(err) == "RoutesExhausted" {
			return recoding{fault.Invalid: "RouteLimitExceeded"}.of(err)
		}
		return routeErrors.of(err)
	})
}

// routeOut makes the route by a VPC's internet gateway: its router's way out, for every destination that has no route of its own.
func (d *dialect) routeOut(q *request, tx *store.Tx, v *vpc, block netip.Prefix, id string) error {
	g, err := q.gatewayNamed(tx, id)
	switch {
	case err != nil:
		return err
	case g.vpc == nil || g.vpc.router.ID != v.router.ID:
		return badValue("route table %s and network gateway %s belong to different networks", tableID.id(v.router.ID), id)
	case block != everywhere:
		return unsupported("A route by an internet gateway is for %s here.", everywhere)
	case slices.ContainsFunc(v.router.Routes, func(x model.Route) bool { return x.Destination == everywhere }):
		return fault.Coded(fault.Conflict, "RouteAlreadyExists", "The route identified by %s already exists.", block)
	case v.router.Gateway != nil:
		return nil // it is there already
	}
	out, ok := d.outside(q, tx)
	if !ok {
		return fault.Coded(fault.Conflict, "OperationNotPermitted", "This cloud has no external network that the project may use.")
	}
	return d.openGateway(q, tx, v.router.ID, out)
}

// hop gives the address that a route of the VPC goes by: that of the interface, or of the instance's first one there.
func (q *request) hop(r store.Reader, v *vpc) (netip.Addr, error) {
	var ports []*model.Port
	id := q.str("NetworkInterfaceId")
	if id != "" {
		p, err := q.interfaceOf(r, id)
		if err != nil {
			return netip.Addr{}, err
		}
		ports = append(ports, p)
	} else {
		id = q.str("InstanceId")
		s, err := q.serverOf(r, id)
		if err != nil {
			return netip.Addr{}, err
		}
		for _, port := range s.Ports {
			if p, ok := store.Ports.Get(r, port); ok {
				ports = append(ports, p)
			}
		}
	}
	for _, p := range ports {
		for _, f := range p.FixedIPs {
			if slices.ContainsFunc(v.subnets, func(s *model.Subnet) bool { return s.ID == f.SubnetID }) {
				return f.Address, nil
			}
		}
	}
	return netip.Addr{}, badValue("route table %s and %s belong to different networks", tableID.id(v.router.ID), id)
}

func (d *dialect) deleteRoute(q *request) (any, error) {
	return done{true}, q.update(func(tx *store.Tx) error {
		v, block, err := q.tableAndBlock(tx)
		if err != nil {
			return err
		}
		var gone []model.Route
		for _, x := range v.router.Routes {
			if x.Destination == block {
				gone = append(gone, x)
			}
		}
		switch {
		case len(gone) > 0:
			_, err := d.net.RemoveRoutes(tx, q.netScope(), v.router.ID, gone)
			return routeErrors.of(err)
		case block == everywhere && v.router.Gateway != nil && d.gatewayOf(q, tx, v) != nil:
			if d.gatewayOf(q, tx, v).row == nil {
				return unsupported("The way out was made by another API: detach the internet gateway.")
			}
			return d.closeGateway(q, tx, v.router.ID)
		case block == v.block:
			return badValue("cannot remove local route %s in route table %s", block, tableID.id(v.router.ID))
		}
		return fault.Coded(fault.NotFound, "InvalidRoute.NotFound", "no route with destination-cidr-block %s in route table %s", block, tableID.id(v.router.ID))
	})
}

type aclEntry struct {
	Number   int    `xml:"ruleNumber"`
	Protocol string `xml:"protocol"`
	Action   string `xml:"ruleAction"`
	Egress   bool   `xml:"egress"`
	Block    string `xml:"cidrBlock"`
}

type aclAssociation struct {
	ID     string `xml:"networkAclAssociationId"`
	ACL    string `xml:"networkAclId"`
	Subnet string `xml:"subnetId"`
}

type aclShown struct {
	ID           string              `xml:"networkAclId"`
	Vpc          string              `xml:"vpcId"`
	Owner        string              `xml:"ownerId"`
	Default      bool                `xml:"default"`
	Entries      set[aclEntry]       `xml:"entrySet"`
	Associations set[aclAssociation] `xml:"associationSet"`
	Tags         struct{}            `xml:"tagSet"`
}

// describeACLs shows the one list of every VPC, that lets all through: there are no others.
func (d *dialect) describeACLs(q *request) (any, error) {
	filters, err := q.filters("network-acl-id", "vpc-id", "owner-id", "default", "association.subnet-id", "association.network-acl-id", "association.association-id", "tag-key", "tag:")
	if err != nil {
		return nil, err
	}
	r := q.Snapshot()
	rows, err := q.ofVpcs(r, aclID, q.strs("NetworkAclId"))
	if err != nil {
		return nil, err
	}
	const last = 32767
	var all []aclShown
	for _, v := range rows {
		x := aclShown{ID: aclID.id(v.router.ID), Vpc: v.id(), Owner: v.router.ProjectID, Default: true, Entries: setOf(
			aclEntry{100, "-1", "allow", true, everywhere.String()}, aclEntry{last, "-1", "deny", true, everywhere.String()},
			aclEntry{100, "-1", "allow", false, everywhere.String()}, aclEntry{last, "-1", "deny", false, everywhere.String()})}
		var subnets, associations []string
		for _, s := range v.subnets {
			a := aclAssociation{kind("aclassoc").id(s.ID), x.ID, subnetID.id(s.ID)}
			x.Associations.Items = append(x.Associations.Items, a)
			subnets, associations = append(subnets, a.Subnet), append(associations, a.ID)
		}
		if passes(filters, func(name string) []string {
			switch name {
			case "association.subnet-id":
				return subnets
			case "association.association-id":
				return associations
			}
			if v, ok := (map[string]string{"network-acl-id": x.ID, "association.network-acl-id": x.ID, "vpc-id": x.Vpc, "owner-id": x.Owner, "default": strconv.FormatBool(true)})[name]; ok {
				return []string{v}
			}
			return nil
		}) {
			all = append(all, x)
		}
	}
	var body struct {
		ACLs set[aclShown] `xml:"networkAclSet"`
		Next string        `xml:"nextToken,omitempty"`
	}
	body.ACLs.Items, body.Next, err = paged(q, all, func(a aclShown) string { return a.ID })
	return body, err
}

type dhcpValue struct {
	Value string `xml:"value"`
}

type dhcpConfiguration struct {
	Key    string         `xml:"key"`
	Values set[dhcpValue] `xml:"valueSet"`
}

type dhcpShown struct {
	ID      string                 `xml:"dhcpOptionsId"`
	Owner   string                 `xml:"ownerId"`
	Options set[dhcpConfiguration] `xml:"dhcpConfigurationSet"`
	Tags    struct{}               `xml:"tagSet"`
}

// describeDHCP shows what every VPC's guests are told.
func (d *dialect) describeDHCP(q *request) (any, error) {
	filters, err := q.filters("dhcp-options-id", "owner-id", "key", "value", "tag-key", "tag:")
	if err != nil {
		return nil, err
	}
	rows, err := q.ofVpcs(q.Snapshot(), dhcpID, q.strs("DhcpOptionsId"))
	if err != nil {
		return nil, err
	}
	const key, value = "domain-name-servers", "AmazonProvidedDNS" // EC2's word for the cloud's own
	var all []dhcpShown
	for _, v := range rows {
		x := dhcpShown{ID: dhcpID.id(v.router.ID), Owner: v.router.ProjectID, Options: setOf(dhcpConfiguration{key, setOf(dhcpValue{value})})}
		if passes(filters, func(name string) []string {
			if v, ok := (map[string]string{"dhcp-options-id": x.ID, "owner-id": x.Owner, "key": key, "value": value})[name]; ok {
				return []string{v}
			}
			return nil
		}) {
			all = append(all, x)
		}
	}
	var body struct {
		Options set[dhcpShown] `xml:"dhcpOptionsSet"`
		Next    string         `xml:"nextToken,omitempty"`
	}
	body.Options.Items, body.Next, err = paged(q, all, func(x dhcpShown) string { return x.ID })
	return body, err
}
