package ec2

import (
	"cmp"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"yakumo/api"
	"yakumo/fault"
	"yakumo/model"
	"yakumo/network"
	"yakumo/store"
)

func (d *dialect) interfaceOperations(add adder) {
	add("CreateNetworkInterface", api.Member, d.createInterface, "SubnetId", "PrivateIpAddress", "SecurityGroupId", "Description", "TagSpecification", "ClientToken")
	add("DescribeNetworkInterfaces", api.Reader, d.describeInterfaces, "NetworkInterfaceId", "Filter", "MaxResults", "NextToken")
	add("DeleteNetworkInterface", api.Member, d.deleteInterface, "NetworkInterfaceId")
	add("AttachNetworkInterface", api.Member, d.attachInterface, "NetworkInterfaceId", "InstanceId", "DeviceIndex")
	add("DetachNetworkInterface", api.Member, d.detachInterface, "AttachmentId", "Force")
	add("AssignPrivateIpAddresses", api.Member, d.assignAddresses, "NetworkInterfaceId", "PrivateIpAddress", "SecondaryPrivateIpAddressCount", "AllowReassignment")
	add("UnassignPrivateIpAddresses", api.Member, d.unassignAddresses, "NetworkInterfaceId", "PrivateIpAddress")
	add("ModifyNetworkInterfaceAttribute", api.Member, d.modifyInterface, "NetworkInterfaceId", "SecurityGroupId", "Description", "SourceDestCheck", "Attachment")
}

type groupRef struct {
	ID   string `xml:"groupId"`
	Name string `xml:"groupName"`
}

type interfaceAttachment struct {
	ID       string `xml:"attachmentId"`
	Instance string `xml:"instanceId"`
	Owner    string `xml:"instanceOwnerId"`
	Index    int    `xml:"deviceIndex"`
	Status   string `xml:"status"`
	At       string `xml:"attachTime"`
	Remove   bool   `xml:"deleteOnTermination"`
}

type interfaceAssociation struct {
	Allocation  string `xml:"allocationId"`
	Association string `xml:"associationId"`
	Owner       string `xml:"ipOwnerId"`
	Public      string `xml:"publicIp"`
}

type interfaceAddress struct {
	Private     string                `xml:"privateIpAddress"`
	Primary     bool                  `xml:"primary"`
	Association *interfaceAssociation `xml:"association"`
}

type interfaceShown struct {
	ID          string                `xml:"networkInterfaceId"`
	Subnet      string                `xml:"subnetId"`
	Vpc         string                `xml:"vpcId"`
	Zone        string                `xml:"availabilityZone"`
	Description string                `xml:"description"`
	Owner       string                `xml:"ownerId"`
	Managed     bool                  `xml:"requesterManaged"`
	Status      string                `xml:"status"`
	MAC         string                `xml:"macAddress"`
	Private     string                `xml:"privateIpAddress"`
	Check       bool                  `xml:"sourceDestCheck"`
	Type        string                `xml:"interfaceType"`
	Groups      set[groupRef]         `xml:"groupSet"`
	Attachment  *interfaceAttachment  `xml:"attachment"`
	Association *interfaceAssociation `xml:"association"`
	Addresses   set[interfaceAddress] `xml:"privateIpAddressesSet"`
	Tags        set[tag]              `xml:"tagSet"`
}

// homeOf gives the subnet of a port, and the router that is its VPC: those of its first IPv4 address in one.
func (q *request) homeOf(r store.Reader, p *model.Port) (*model.Subnet, *model.Router) {
	for _, f := range p.FixedIPs {
		if s, ok := store.Subnets.Get(r, f.SubnetID); ok && s.IPVersion == 4 && q.mine(s.ProjectID) {
			if x := routerOf(r, s, s.ProjectID); x != nil {
				return s, x
			}
		}
	}
	return nil, nil
}

// isInterface tells whether a port is a network interface for EC2's users: the caller's, in a VPC, and none of the cloud's own.
func (q *request) isInterface(r store.Reader, p *model.Port) bool {
	if !q.mine(p.ProjectID) || strings.HasPrefix(p.DeviceOwner, model.OwnerNetwork) {
		return false
	}
	s, _ := q.homeOf(r, p)
	return s != nil
}

// interfaceOf gives the caller's network interface that an id names.
func (q *request) interfaceOf(r store.Reader, id string) (*model.Port, error) {
	return find(r, store.Ports, interfaceID, id, func(p *model.Port) bool { return q.isInterface(r, p) })
}

// groupRefs gives the security groups of a port.
func groupRefs(r store.Reader, p *model.Port) (out set[groupRef]) {
	for _, id := range p.Groups {
		if g, ok := store.SecurityGroups.Get(r, id); ok {
			out.Items = append(out.Items, groupRef{groupID.id(g.ID), g.Name})
		}
	}
	return out
}

// attachmentID gives the id of an interface's attachment to a server.
func attachmentID(port, server model.ID) string { return linkID("eni-attach", port, server) }

func (d *dialect) showInterface(q *request, r store.Reader, p *model.Port) (interfaceShown, bool) {
	s, x := q.homeOf(r, p)
	if s == nil {
		return interfaceShown{}, false
	}
	out := interfaceShown{ID: interfaceID.id(p.ID), Subnet: subnetID.id(s.ID), Vpc: vpcID.id(x.ID), Zone: d.zoneOf(r, s), Description: p.Description, Owner: p.ProjectID, Status: "available", MAC: p.MAC,
		Check: true, Type: "interface", Groups: groupRefs(r, p), Tags: tagSet(netTags(&p.Meta, true))}
	public := map[netip.Addr]*interfaceAssociation{}
	for f := range store.FloatingIPs.List(r, "port", p.ID) {
		if q.mine(f.ProjectID) {
			public[f.FixedAddress] = &interfaceAssociation{allocationID.id(f.ID), associationID(f), f.ProjectID, f.Address.String()}
		}
	}
	for _, f := range p.FixedIPs {
		if !f.Address.Is4() {
			continue
		}
		a := interfaceAddress{f.Address.String(), out.Private == "", public[f.Address]}
		if a.Primary {
			out.Private, out.Association = a.Private, a.Association
		}
		out.Addresses.Items = append(out.Addresses.Items, a)
	}
	if p.DeviceID != "" {
		out.Status = "in-use"
	}
	if g, ok := store.Servers.Get(r, p.DeviceID); ok && p.DeviceID != "" {
		a := &interfaceAttachment{ID: attachmentID(p.ID, g.ID), Instance: instanceID.id(g.ID), Owner: g.ProjectID, Index: slices.Index(g.Ports, p.ID), Status: "attached", At: stamp(p.UpdatedAt), Remove: p.Owned}
		for _, x := range g.Plugging {
			if x.PortID == p.ID && x.Out {
				a.Status = "detaching"
			} else if x.PortID == p.ID {
				a.Status = "attaching"
			}
		}
		out.Attachment = a
	}
	return out, true
}

// groupsOf gives the caller's security groups that a request names; nil: it names none.
func (q *request) groupsOf(r store.Reader, name string) (*[]string, error) {
	ids := q.strs(name)
	if len(ids) == 0 {
		return nil, nil
	}
	var out []string
	for _, id := range ids {
		g, err := q.groupOf(r, id)
		if err != nil {
			return nil, err
		}
		if !slices.Contains(out, g.ID) {
			out = append(out, g.ID)
		}
	}
	return &out, nil
}

// interfaceErrors are EC2's codes for what package network answers of ports.
var interfaceErrors = recoding{fault.Invalid: "InvalidParameterValue", fault.NotFound: "InvalidNetworkInterfaceID.NotFound", fault.Conflict: "InvalidNetworkInterface.InUse",
	fault.OverQuota: "NetworkInterfaceLimitExceeded"}

// tokenTag keeps the client's own name for the request that made an interface.
const tokenTag = ownTags + "token="

// madeBefore gives the interface that an earlier request with the token made; nil: there is none.
func (q *request) madeBefore(tx *store.Tx, token string) *model.Port {
	mark := "port-token," + q.Caller.ProjectID + "," + token // two at once are put in order
	tx.Mark(mark)
	tx.Guard(mark)
	for p := range store.Ports.List(tx, "project", q.Caller.ProjectID) {
		if t, ok := ownTag(&p.Meta, tokenTag); ok && t == token {
			return p
		}
	}
	return nil
}

func (d *dialect) createInterface(q *request) (any, error) {
	id, err := q.must("SubnetId")
	if err != nil {
		return nil, err
	}
	tags, err := q.tagSpec("network-interface")
	if err != nil {
		return nil, err
	}
	name, rest := named(tags)
	list, err := plainTags(rest)
	if err != nil {
		return nil, err
	}
	description := q.str("Description")
	if len(description) > network.MaxName {
		return nil, badValue("The description has at most %d bytes.", network.MaxName)
	}
	var want netip.Addr
	if text := q.str("PrivateIpAddress"); text != "" {
		if want, err = netip.ParseAddr(text); err != nil || !want.Is4() {
			return nil, badValue("Value (%s) for parameter privateIpAddress is invalid. It is no address of IPv4.", api.Clip(text))
		}
	}
	var body struct {
		Interface interfaceShown `xml:"networkInterface"`
		Token     string         `xml:"clientToken,omitempty"`
	}
	token := q.str("ClientToken")
	switch {
	case len(token) > maxToken:
		return nil, badValue("The client token has at most %d characters.", maxToken)
	case token != "":
		list = append(list, tokenTag+token)
	}
	body.Token = token
	err = q.update(func(tx *store.Tx) error {
		s, _, err := q.subnetOf(tx, id)
		if err != nil {
			return err
		}
		if token != "" {
			if made := q.madeBefore(tx, token); made != nil {
				x, ok := d.showInterface(q, tx, made)
				if !ok || x.Subnet != subnetID.id(s.ID) {
					return fault.Coded(fault.Conflict, "IdempotentParameterMismatch", "The client token was given with other parameters before.")
				}
				body.Interface = x
				return nil
			}
		}
		groups, err := q.groupsOf(tx, "SecurityGroupId")
		if err != nil {
			return err
		}
		if want.IsValid() {
			_, taken := store.Ports.Holder(tx, store.PortAddressClaim(s.ID, want.String()))
			switch {
			case !s.CIDR.Contains(want):
				return badValue("Address does not fall within the subnet's address range")
			case taken:
				return fault.Coded(fault.Conflict, "InvalidIPAddress.InUse", "Address %s is in use.", want)
			}
		}
		p, err := d.net.CreatePort(tx, q.netScope(), network.PortSpec{NetworkID: s.NetworkID, Name: &name, Description: &description, Groups: groups,
			FixedIPs: &[]network.AddressSpec{{SubnetID: s.ID, Address: want}}})
		if err != nil {
			return recoding{fault.Invalid: "InvalidParameterValue", fault.NotFound: "InvalidSubnetID.NotFound", fault.Conflict: "InsufficientFreeAddressesInSubnet",
				fault.OverQuota: "NetworkInterfaceLimitExceeded"}.of(err)
		}
		if err := d.net.SetTags(tx, q.netScope(), network.TaggedPorts, p.ID, list); err != nil {
			return recoding{fault.Invalid: "TagLimitExceeded"}.of(err)
		}
		if p, err = d.net.GetPort(tx, q.netScope(), p.ID); err != nil {
			return interfaceErrors.of(err)
		}
		body.Interface, _ = d.showInterface(q, tx, p)
		return nil
	})
	return body, err
}

func (d *dialect) describeInterfaces(q *request) (any, error) {
	filters, err := q.filters("network-interface-id", "subnet-id", "vpc-id", "status", "description", "owner-id", "mac-address", "private-ip-address", "addresses.private-ip-address",
		"addresses.primary", "group-id", "group-name", "attachment.instance-id", "attachment.attachment-id", "attachment.status", "attachment.device-index", "attachment.delete-on-termination",
		"attachment.instance-owner-id", "association.public-ip", "association.allocation-id", "association.association-id", "availability-zone", "source-dest-check", "interface-type",
		"requester-managed", "tag-key", "tag:")
	if err != nil {
		return nil, err
	}
	r := q.Snapshot()
	var rows []*model.Port
	if ids := q.strs("NetworkInterfaceId"); len(ids) > 0 {
		for _, id := range ids {
			p, err := q.interfaceOf(r, id)
			if err != nil {
				return nil, err
			}
			if !slices.Contains(rows, p) {
				rows = append(rows, p)
			}
		}
	} else {
		for p := range store.Ports.List(r, "project", q.Caller.ProjectID) {
			if q.isInterface(r, p) {
				rows = append(rows, p)
			}
		}
	}
	var all []interfaceShown
	for _, p := range rows {
		if x, ok := d.showInterface(q, r, p); ok && passes(filters, func(name string) []string { return interfaceAttribute(p, &x, name) }) {
			all = append(all, x)
		}
	}
	var body struct {
		Interfaces set[interfaceShown] `xml:"networkInterfaceSet"`
		Next       string              `xml:"nextToken,omitempty"`
	}
	body.Interfaces.Items, body.Next, err = paged(q, all, func(x interfaceShown) string { return x.ID })
	return body, err
}

func interfaceAttribute(p *model.Port, x *interfaceShown, name string) (out []string) {
	one := map[string]string{"network-interface-id": x.ID, "subnet-id": x.Subnet, "vpc-id": x.Vpc, "status": x.Status, "description": x.Description, "owner-id": x.Owner, "mac-address": x.MAC,
		"private-ip-address": x.Private, "availability-zone": x.Zone, "source-dest-check": "true", "interface-type": x.Type, "requester-managed": "false"}
	if a := x.Attachment; a != nil {
		one["attachment.instance-id"], one["attachment.attachment-id"], one["attachment.status"] = a.Instance, a.ID, a.Status
		one["attachment.device-index"], one["attachment.delete-on-termination"] = strconv.Itoa(a.Index), strconv.FormatBool(a.Remove)
		one["attachment.instance-owner-id"] = a.Owner
	}
	if v, ok := one[name]; ok {
		return []string{v}
	}
	for _, g := range x.Groups.Items {
		switch name {
		case "group-id":
			out = append(out, g.ID)
		case "group-name":
			out = append(out, g.Name)
		}
	}
	for _, a := range x.Addresses.Items {
		switch name {
		case "addresses.private-ip-address":
			out = append(out, a.Private)
		case "addresses.primary":
			out = append(out, strconv.FormatBool(a.Primary))
		}
		if s := a.Association; s != nil {
			if v := (map[string]string{"association.public-ip": s.Public, "association.allocation-id": s.Allocation, "association.association-id": s.Association})[name]; v != "" {
				out = append(out, v)
			}
		}
	}
	return append(out, tagValues(name, netTags(&p.Meta, true))...)
}

func (d *dialect) deleteInterface(q *request) (any, error) {
	id, err := q.must("NetworkInterfaceId")
	if err != nil {
		return nil, err
	}
	return done{true}, q.update(func(tx *store.Tx) error {
		p, err := q.interfaceOf(tx, id)
		switch {
		case err != nil:
			return err
		case p.DeviceID != "":
			return fault.Coded(fault.Conflict, "InvalidNetworkInterface.InUse", "Network interface '%s' is currently in use.", id)
		}
		return interfaceErrors.of(d.net.DeletePort(tx, q.netScope(), p.ID))
	})
}

func (d *dialect) attachInterface(q *request) (any, error) {
	id, err := q.must("NetworkInterfaceId")
	if err != nil {
		return nil, err
	}
	instance, err := q.must("InstanceId")
	if err != nil {
		return nil, err
	}
	index, err := q.params.number("DeviceIndex", 0, 31, -1)
	if err != nil {
		return nil, err
	}
	if index < 0 {
		return nil, missing("DeviceIndex")
	}
	var body struct {
		ID string `xml:"attachmentId"`
	}
	err = q.update(func(tx *store.Tx) error {
		p, err := q.interfaceOf(tx, id)
		if err != nil {
			return err
		}
		s, err := q.serverOf(tx, instance)
		switch {
		case err != nil:
			return err
		case p.DeviceID != "":
			return fault.Coded(fault.Conflict, "InvalidNetworkInterface.InUse", "Interface: %s in use.", id)
		case index < len(s.Ports):
			return badValue("Instance '%s' already has an interface attached at device index '%d'.", instance, index)
		}
		if _, err := d.net.AttachPort(tx, q.netScope(), p.ID, s.ID, "compute:"+cmp.Or(s.Zone, d.vols.Zone())); err != nil {
			return interfaceErrors.of(err)
		}
		if _, err := d.c.AttachInterface(tx, q.scope(), s.ID, p.ID, ""); err != nil {
			return recoding{fault.Invalid: "AttachmentLimitExceeded", fault.Conflict: "IncorrectState"}.of(err)
		}
		body.ID = attachmentID(p.ID, s.ID)
		return nil
	})
	return body, err
}

func (d *dialect) detachInterface(q *request) (any, error) {
	id, err := q.must("AttachmentId")
	if err != nil {
		return nil, err
	}
	if q.flag("Force") {
		return nil, unsupported("An interface is not taken from an instance by force: its host takes it, whatever the guest says.")
	}
	return done{true}, q.update(func(tx *store.Tx) error {
		for p := range store.Ports.List(tx, "project", q.Caller.ProjectID) {
			if p.DeviceID == "" || attachmentID(p.ID, p.DeviceID) != id || !q.isInterface(tx, p) {
				continue
			}
			if s, ok := store.Servers.Get(tx, p.DeviceID); ok && len(s.Ports) > 0 && s.Ports[0] == p.ID {
				return fault.Coded(fault.Invalid, "OperationNotPermitted", "The network interface at device index 0 cannot be detached.")
			}
			if p.Owned { // made with its instance, and taken from it: it stays, as EC2's do
				if err := d.net.Keep(tx, q.netScope(), p.ID, true); err != nil {
					return interfaceErrors.of(err)
				}
			}
			_, err := d.c.DetachInterface(tx, q.scope(), p.DeviceID, p.ID)
			return recoding{fault.Invalid: "IncorrectState", fault.Conflict: "IncorrectState", fault.NotFound: "InvalidAttachmentID.NotFound"}.of(err)
		}
		return fault.Coded(fault.NotFound, "InvalidAttachmentID.NotFound", "The attachment ID '%s' does not exist", api.Clip(id))
	})
}

func (d *dialect) modifyInterface(q *request) (any, error) {
	id, err := q.must("NetworkInterfaceId")
	if err != nil {
		return nil, err
	}
	check, given, err := q.params.Part("SourceDestCheck").truth("Value")
	if err != nil {
		return nil, err
	}
	change := q.params.Part("Attachment")
	remove, keeps, err := change.truth("DeleteOnTermination")
	if err != nil {
		return nil, err
	}
	if given && !check {
		return nil, unsupported("An interface sends and gets for others by its allowed address pairs: set them with the OpenStack API.")
	}
	return done{true}, q.update(func(tx *store.Tx) error {
		p, err := q.interfaceOf(tx, id)
		if err != nil {
			return err
		}
		var spec network.PortSpec
		if spec.Groups, err = q.groupsOf(tx, "SecurityGroupId"); err != nil {
			return err
		}
		if q.params.Part("Description").has("Value") {
			text := q.params.Part("Description").str("Value")
			spec.Description = &text
		}
		if keeps {
			if p.DeviceID == "" || attachmentID(p.ID, p.DeviceID) != change.str("AttachmentId") {
				return fault.Coded(fault.NotFound, "InvalidAttachmentID.NotFound", "The attachment ID '%s' does not exist", api.Clip(change.str("AttachmentId")))
			}
			return interfaceErrors.of(d.net.Keep(tx, q.netScope(), p.ID, !remove))
		}
		if spec.Groups == nil && spec.Description == nil && !given {
			return fault.Coded(fault.Invalid, "InvalidParameterCombination", "The request must contain exactly one attribute to modify")
		}
		_, err = d.net.UpdatePort(tx, q.netScope(), p.ID, spec)
		return interfaceErrors.of(err)
	})
}
