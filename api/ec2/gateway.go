package ec2

import (
	"iter"

	"yakumo/api"
	"yakumo/fault"
	"yakumo/model"
	"yakumo/network"
	"yakumo/store"
)

func (d *dialect) gatewayOperations(add adder) {
	add("CreateInternetGateway", api.Member, d.createGateway, "TagSpecification")
	add("DescribeInternetGateways", api.Reader, d.describeGateways, "InternetGatewayId", "Filter", "MaxResults", "NextToken")
	add("AttachInternetGateway", api.Member, d.attachGateway, "InternetGatewayId", "VpcId")
	add("DetachInternetGateway", api.Member, d.detachGateway, "InternetGatewayId", "VpcId")
	add("DeleteInternetGateway", api.Member, d.deleteGateway, "InternetGatewayId")
}

// gateway is an internet gateway as EC2 sees it. A router that got its way out from another dialect has one without a row: its id is that of
// the gateway's port.
type gateway struct {
	id  string
	row *model.InternetGateway // nil: another dialect's
	vpc *vpc                   // nil: not attached
}

type gatewayAttachment struct {
	Vpc   string `xml:"vpcId"`
	State string `xml:"state"`
}

type gatewayShown struct {
	ID          string                 `xml:"internetGatewayId"`
	Owner       string                 `xml:"ownerId"`
	Attachments set[gatewayAttachment] `xml:"attachmentSet"`
	Tags        set[tag]               `xml:"tagSet"`
}

func (g *gateway) tags() map[string]string {
	if g.row == nil {
		return nil
	}
	return netTags(&g.row.Meta, false)
}

func (q *request) showGateway(g *gateway) gatewayShown {
	out := gatewayShown{ID: g.id, Owner: q.Caller.ProjectID, Tags: tagSet(g.tags())}
	if g.vpc != nil {
		out.Attachments = setOf(gatewayAttachment{g.vpc.id(), "available"})
	}
	return out
}

// gateways gives the caller's internet gateways.
func (q *request) gateways(r store.Reader) []*gateway {
	var out []*gateway
	attached := map[model.ID]bool{}
	vpcs := map[model.ID]*vpc{}
	all := q.vpcs(r)
	for _, v := range all {
		vpcs[v.router.ID] = v
	}
	for row := range store.InternetGateways.List(r, "project", q.Caller.ProjectID) {
		out = append(out, &gateway{gatewayID.id(row.ID), row, vpcs[row.RouterID]})
		attached[row.RouterID] = true
	}
	for _, v := range all {
		if v.router.Gateway != nil && !attached[v.router.ID] {
			out = append(out, &gateway{gatewayID.id(v.router.Gateway.PortID), nil, v})
		}
	}
	return out
}

// gatewayNamed gives the caller's internet gateway that an id names.
func (q *request) gatewayNamed(r store.Reader, id string) (*gateway, error) {
	if _, ok := gatewayID.prefix(id); !ok {
		return nil, fault.Coded(fault.Invalid, codeNames[gatewayID]+".Malformed", "Invalid id: %q (expecting \"%s-...\")", api.Clip(id), gatewayID)
	}
	for _, g := range q.gateways(r) {
		if g.id == id {
			return g, nil
		}
	}
	return nil, gatewayID.none(id)
}

// gatewayOf gives the internet gateway of a VPC; nil: none.
func (d *dialect) gatewayOf(q *request, r store.Reader, v *vpc) *gateway {
	for _, g := range q.gateways(r) {
		if g.vpc != nil && g.vpc.router.ID == v.router.ID {
			return g
		}
	}
	return nil
}

// outside gives the external network that the caller's gateways and addresses are of: the default one, or the oldest that it may use.
func (d *dialect) outside(q *request, r store.Reader) (*model.Network, bool) {
	if w, ok := store.Networks.Claimed(r, store.DefaultNetworkClaim); ok && w.OutsideFor(q.Caller.ProjectID) {
		return w, true
	}
	var found *model.Network
	for _, target := range []model.ID{model.Everybody, q.Caller.ProjectID} {
		for w := range store.Networks.List(r, "shared", target) {
			if w.OutsideFor(q.Caller.ProjectID) && (found == nil || w.CreatedAt.Before(found.CreatedAt)) {
				found = w
			}
		}
	}
	return found, found != nil
}

// gatewayErrors are EC2's codes for what package network answers of gateways.
var gatewayErrors = recoding{fault.Invalid: "InvalidParameterValue", fault.NotFound: "InvalidInternetGatewayID.NotFound", fault.Conflict: "DependencyViolation", fault.OverQuota: "InternetGatewayLimitExceeded"}

// openGateway gives a VPC's router its way out.
func (d *dialect) openGateway(q *request, tx *store.Tx, router model.ID, out *model.Network) error {
	_, err := d.net.UpdateRouter(tx, q.netScope(), router, network.RouterSpec{Gateway: &network.GatewaySpec{NetworkID: out.ID}})
	return gatewayErrors.of(err)
}

// closeGateway takes a router's way out. Addresses that need it stand against it.
func (d *dialect) closeGateway(q *request, tx *store.Tx, router model.ID) error {
	_, err := d.net.UpdateRouter(tx, q.netScope(), router, network.RouterSpec{Gateway: &network.GatewaySpec{}})
	return gatewayErrors.of(err)
}

func (d *dialect) createGateway(q *request) (any, error) {
	_, list, err := q.netTagSpec("internet-gateway")
	if err != nil {
		return nil, err
	}
	var body struct {
		Gateway gatewayShown `xml:"internetGateway"`
	}
	err = q.update(func(tx *store.Tx) error {
		row, err := d.net.CreateInternetGateway(tx, q.netScope(), list)
		if err != nil {
			return gatewayErrors.of(err)
		}
		body.Gateway = q.showGateway(&gateway{id: gatewayID.id(row.ID), row: row})
		return nil
	})
	return body, err
}

func (d *dialect) describeGateways(q *request) (any, error) {
	filters, err := q.filters("internet-gateway-id", "attachment.vpc-id", "attachment.state", "owner-id", "tag-key", "tag:")
	if err != nil {
		return nil, err
	}
	r := q.Snapshot()
	rows := q.gateways(r)
	if ids := q.strs("InternetGatewayId"); len(ids) > 0 {
		byID := map[string]*gateway{}
		for _, id := range ids {
			if byID[id], err = q.gatewayNamed(r, id); err != nil {
				return nil, err
			}
		}
		rows = nil
		for _, g := range byID {
			rows = append(rows, g)
		}
	}
	var all []gatewayShown
	for _, g := range rows {
		x := q.showGateway(g)
		if passes(filters, func(name string) (out []string) {
			switch name {
			case "internet-gateway-id":
				return []string{x.ID}
			case "owner-id":
				return []string{x.Owner}
			}
			for _, a := range x.Attachments.Items {
				switch name {
				case "attachment.vpc-id":
					return []string{a.Vpc}
				case "attachment.state":
					return []string{a.State}
				}
			}
			return tagValues(name, g.tags())
		}) {
			all = append(all, x)
		}
	}
	var body struct {
		Gateways set[gatewayShown] `xml:"internetGatewaySet"`
		Next     string            `xml:"nextToken,omitempty"`
	}
	body.Gateways.Items, body.Next, err = paged(q, all, func(g gatewayShown) string { return g.ID })
	return body, err
}

// gatewayAndVpc gives the gateway and the VPC that a request names.
func (q *request) gatewayAndVpc(r store.Reader) (*gateway, *vpc, error) {
	id, err := q.must("InternetGatewayId")
	if err != nil {
		return nil, nil, err
	}
	in, err := q.must("VpcId")
	if err != nil {
		return nil, nil, err
	}
	g, err := q.gatewayNamed(r, id)
	if err != nil {
		return nil, nil, err
	}
	v, err := q.vpcOf(r, in)
	return g, v, err
}

// attachGateway says which VPC the gateway is for. Its router gets the way out with the first route by it, or the first address.
func (d *dialect) attachGateway(q *request) (any, error) {
	return done{true}, q.update(func(tx *store.Tx) error {
		g, v, err := q.gatewayAndVpc(tx)
		if err != nil {
			return err
		}
		if g.vpc != nil {
			return fault.Coded(fault.Conflict, "Resource.AlreadyAssociated", "resource %s is already attached to network %s", g.id, g.vpc.id())
		}
		if other := d.gatewayOf(q, tx, v); other != nil {
			return fault.Coded(fault.Invalid, "InvalidParameterValue", "Network %s already has an internet gateway attached", v.id())
		}
		if _, ok := d.outside(q, tx); !ok {
			return fault.Coded(fault.Conflict, "OperationNotPermitted", "This cloud has no external network that the project may use.")
		}
		return gatewayErrors.of(d.net.JoinInternetGateway(tx, q.netScope(), g.row.ID, v.router.ID))
	})
}

func (d *dialect) detachGateway(q *request) (any, error) {
	return done{true}, q.update(func(tx *store.Tx) error {
		g, v, err := q.gatewayAndVpc(tx)
		if err != nil {
			return err
		}
		if g.vpc == nil || g.vpc.router.ID != v.router.ID {
			return fault.Coded(fault.Conflict, "Gateway.NotAttached", "resource %s is not attached to network %s", g.id, v.id())
		}
		for f := range store.FloatingIPs.List(tx, "router", v.router.ID) {
			if f.PortID != "" {
				return fault.Coded(fault.Conflict, "DependencyViolation", "Network %s has some mapped public address(es). Please unmap those public address(es) before detaching the gateway.", v.id())
			}
		}
		if v.router.Gateway != nil {
			if err := d.closeGateway(q, tx, v.router.ID); err != nil {
				return err
			}
		}
		if g.row == nil {
			return nil
		}
		return gatewayErrors.of(d.net.JoinInternetGateway(tx, q.netScope(), g.row.ID, ""))
	})
}

func (d *dialect) deleteGateway(q *request) (any, error) {
	id, err := q.must("InternetGatewayId")
	if err != nil {
		return nil, err
	}
	return done{true}, q.update(func(tx *store.Tx) error {
		g, err := q.gatewayNamed(tx, id)
		switch {
		case err != nil:
			return err
		case g.vpc != nil:
			return fault.Coded(fault.Conflict, "DependencyViolation", "The internetGateway '%s' has dependencies and cannot be deleted.", id)
		}
		return gatewayErrors.of(d.net.DeleteInternetGateway(tx, q.netScope(), g.row.ID))
	})
}

// gatewayLabels adds how the tags of internet gateways are kept.
func (d *dialect) gatewayLabels(out map[kind]labels) {
	out[gatewayID] = labels{resource: "internet-gateway",
		all: func(q *request, r store.Reader) iter.Seq2[string, map[string]string] {
			return func(yield func(string, map[string]string) bool) {
				for g := range store.InternetGateways.List(r, "project", q.Caller.ProjectID) {
					if !yield(gatewayID.id(g.ID), netTags(&g.Meta, false)) {
						return
					}
				}
			}
		},
		change: func(q *request, tx *store.Tx, id string, f func(map[string]string) error) error {
			g, err := q.gatewayNamed(tx, id)
			if err != nil {
				return err
			}
			if g.row == nil {
				return unsupported("The internet gateway %s was made by another API and has no tags.", id)
			}
			tags := netTags(&g.row.Meta, false)
			if err := relabel(tags, f); err != nil {
				return err
			}
			list, err := plainTags(tags)
			if err != nil {
				return err
			}
			return recoding{fault.Invalid: "TagLimitExceeded"}.of(d.net.TagInternetGateway(tx, q.netScope(), g.row.ID, list))
		}}
}
