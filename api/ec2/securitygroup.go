package ec2

import (
	"regexp"
	"slices"
	"strings"

	"yakumo/api"
	"yakumo/fault"
	"yakumo/model"
	"yakumo/network"
	"yakumo/store"
)

func (d *dialect) groupOperations(add adder) {
	add("CreateSecurityGroup", api.Member, d.createGroup, "GroupName", "GroupDescription", "VpcId", "TagSpecification")
	add("DescribeSecurityGroups", api.Reader, d.describeGroups, "GroupId", "GroupName", "Filter", "MaxResults", "NextToken")
	add("DeleteSecurityGroup", api.Member, d.deleteGroup, "GroupId", "GroupName")
	plain := []string{"GroupId", "GroupName", "IpPermissions", "IpProtocol", "FromPort", "ToPort", "CidrIp", "SourceSecurityGroupName", "SourceSecurityGroupOwnerId"}
	for name, direction := range map[string]string{"Ingress": model.Ingress, "Egress": model.Egress} {
		add("AuthorizeSecurityGroup"+name, api.Member, func(q *request) (any, error) { return d.authorize(q, direction) }, plain...)
		add("RevokeSecurityGroup"+name, api.Member, func(q *request) (any, error) { return d.revoke(q, direction) }, append(plain, "SecurityGroupRuleId")...)
	}
	add("DescribeSecurityGroupRules", api.Reader, d.describeRules, "SecurityGroupRuleId", "Filter", "MaxResults", "NextToken")
}

type groupShown struct {
	Owner       string         `xml:"ownerId"`
	ID          string         `xml:"groupId"`
	Name        string         `xml:"groupName"`
	Description string         `xml:"groupDescription"`
	Vpc         string         `xml:"vpcId,omitempty"`
	Ingress     set[allowance] `xml:"ipPermissions"`
	Egress      set[allowance] `xml:"ipPermissionsEgress"`
	Tags        set[tag]       `xml:"tagSet"`
}

// groupOf gives the caller's security group that an id names.
func (q *request) groupOf(r store.Reader, id string) (*model.SecurityGroup, error) {
	return find(r, store.SecurityGroups, groupID, id, func(g *model.SecurityGroup) bool { return q.mine(g.ProjectID) })
}

// groupNamed gives the caller's security group of a name, which one alone has.
func (q *request) groupNamed(r store.Reader, name string) (*model.SecurityGroup, error) {
	var found *model.SecurityGroup
	for g := range store.SecurityGroups.List(r, "project", q.Caller.ProjectID) {
		if g.Name != name {
			continue
		}
		if found != nil {
			return nil, badValue("There are several security groups with the name '%s': say which by groupId.", api.Clip(name))
		}
		found = g
	}
	if found == nil {
		return nil, fault.Coded(fault.NotFound, "InvalidGroup.NotFound", "The security group '%s' does not exist", api.Clip(name))
	}
	return found, nil
}

// ensureDefault makes the project's own security group where it is missing: a project is new to package network until it asks for something.
func (d *dialect) ensureDefault(q *request) error {
	if _, ok := d.net.FindDefaultGroup(q.Snapshot(), q.Caller.ProjectID); ok {
		return nil
	}
	_, err := q.Store().Update(q.R.Context(), func(tx *store.Tx) error {
		_, err := d.net.EnsureDefaultGroup(tx, q.Caller.ProjectID)
		return err
	})
	return netErrors.of(err)
}

// groupMeant gives the security group that a request is about.
func (q *request) groupMeant(r store.Reader) (*model.SecurityGroup, error) {
	switch id, name := q.str("GroupId"), q.str("GroupName"); {
	case id != "" && name != "":
		return nil, fault.Coded(fault.Invalid, "InvalidParameterCombination", "The parameters groupId and groupName may not be used in combination")
	case id != "":
		return q.groupOf(r, id)
	case name != "":
		return q.groupNamed(r, name)
	}
	return nil, missing("groupName or groupId")
}

// groupVpc gives the VPC that a group was made for; "": it is for all of the project's.
func groupVpc(g *model.SecurityGroup) string {
	v, _ := ownTag(&g.Meta, vpcTag)
	return v
}

// rulesOf gives a group's rules in a direction, the oldest first.
func rulesOf(r store.Reader, g model.ID, direction string) []*model.SecurityRule {
	var out []*model.SecurityRule
	for x := range store.SecurityRules.List(r, "group", g) {
		if x.Direction == direction {
			out = append(out, x)
		}
	}
	slices.SortStableFunc(out, func(a, b *model.SecurityRule) int {
		if c := a.CreatedAt.Compare(b.CreatedAt); c != 0 {
			return c
		}
		return strings.Compare(a.ID, b.ID)
	})
	return out
}

func showGroup(r store.Reader, g *model.SecurityGroup, fallback *vpc) groupShown {
	out := groupShown{Owner: g.ProjectID, ID: groupID.id(g.ID), Name: g.Name, Description: g.Description, Vpc: groupVpc(g), Tags: tagSet(netTags(&g.Meta, false)),
		Ingress: allowancesOf(r, rulesOf(r, g.ID, model.Ingress)), Egress: allowancesOf(r, rulesOf(r, g.ID, model.Egress))}
	if out.Vpc == "" && fallback != nil {
		out.Vpc = fallback.id()
	}
	return out
}

var groupTextRE = regexp.MustCompile(`^[a-zA-Z0-9 ._\-:/()#,@\[\]+=&;{}!$*]{1,255}$`)

func (d *dialect) createGroup(q *request) (any, error) {
	name, err := q.must("GroupName")
	if err != nil {
		return nil, err
	}
	description, err := q.must("GroupDescription")
	if err != nil {
		return nil, err
	}
	switch {
	case !groupTextRE.MatchString(name) || strings.HasPrefix(name, "sg-"):
		return nil, badValue("Value (%s) for parameter GroupName is invalid. Character sets beyond ASCII are not supported, and it may not begin with 'sg-'.", api.Clip(name))
	case !groupTextRE.MatchString(description):
		return nil, badValue("Value (%s) for parameter GroupDescription is invalid. Character sets beyond ASCII are not supported.", api.Clip(description))
	case name == network.DefaultGroup:
		return nil, badValue("Cannot use reserved security group name: default")
	}
	tags, list, err := q.netTagSpec("security-group")
	if err != nil {
		return nil, err
	}
	var body struct {
		Return bool     `xml:"return"`
		ID     string   `xml:"groupId"`
		Tags   set[tag] `xml:"tagSet"`
	}
	err = q.update(func(tx *store.Tx) error {
		in, own := q.str("VpcId"), slices.Clone(list)
		if in != "" {
			if _, err := q.vpcOf(tx, in); err != nil {
				return err
			}
			own = append(own, vpcTag+in)
		}
		mark := "ec2-group," + q.Caller.ProjectID // two at once are put in order
		tx.Mark(mark)
		tx.Guard(mark)
		for g := range store.SecurityGroups.List(tx, "project", q.Caller.ProjectID) {
			if g.Name == name && groupVpc(g) == in {
				return fault.Coded(fault.Conflict, "InvalidGroup.Duplicate", "The security group '%s' already exists", name)
			}
		}
		g, err := d.net.CreateGroup(tx, q.netScope(), network.GroupSpec{Name: &name, Description: &description})
		if err != nil {
			return recoding{fault.Invalid: "InvalidParameterValue", fault.Conflict: "InvalidGroup.Duplicate", fault.OverQuota: "SecurityGroupLimitExceeded"}.of(err)
		}
		if err := d.net.SetTags(tx, q.netScope(), network.TaggedGroups, g.ID, own); err != nil {
			return recoding{fault.Invalid: "TagLimitExceeded"}.of(err)
		}
		body.Return, body.ID, body.Tags = true, groupID.id(g.ID), tagSet(tags)
		return nil
	})
	return body, err
}

func (d *dialect) describeGroups(q *request) (any, error) {
	filters, err := q.filters("group-id", "group-name", "description", "owner-id", "vpc-id", "ip-permission.cidr", "ip-permission.from-port", "ip-permission.to-port", "ip-permission.protocol",
		"ip-permission.group-id", "ip-permission.group-name", "ip-permission.ipv6-cidr", "ip-permission.user-id", "egress.ip-permission.cidr", "egress.ip-permission.from-port",
		"egress.ip-permission.to-port", "egress.ip-permission.protocol", "egress.ip-permission.group-id", "egress.ip-permission.group-name", "egress.ip-permission.ipv6-cidr",
		"egress.ip-permission.user-id", "tag-key", "tag:")
	if err != nil {
		return nil, err
	}
	if err := d.ensureDefault(q); err != nil {
		return nil, err
	}
	r := q.Snapshot()
	names, ids := q.strs("GroupName"), q.strs("GroupId")
	rows, err := chosen(q, r, store.SecurityGroups, groupID, ids, func(g *model.SecurityGroup) model.ID { return g.ProjectID })
	if err != nil {
		return nil, err
	}
	if len(names) > 0 && len(ids) == 0 {
		rows = nil
	}
	for _, name := range names {
		g, err := q.groupNamed(r, name)
		if err != nil {
			return nil, err
		}
		if !slices.Contains(rows, g) {
			rows = append(rows, g)
		}
	}
	vpcs := q.vpcs(r)
	var all []groupShown
	for _, g := range rows {
		x := showGroup(r, g, usual(vpcs))
		if passes(filters, func(name string) []string {
			switch name {
			case "vpc-id":
				if groupVpc(g) != "" {
					return []string{x.Vpc}
				}
				var out []string // it may be used in every one
				for _, v := range vpcs {
					out = append(out, v.id())
				}
				return out
			case "group-id":
				return []string{x.ID}
			case "group-name":
				return []string{x.Name}
			case "description":
				return []string{x.Description}
			case "owner-id":
				return []string{x.Owner}
			}
			if rest, ok := strings.CutPrefix(name, "egress.ip-permission."); ok {
				return allowanceValues(x.Egress.Items, rest)
			}
			if rest, ok := strings.CutPrefix(name, "ip-permission."); ok {
				return allowanceValues(x.Ingress.Items, rest)
			}
			return tagValues(name, netTags(&g.Meta, false))
		}) {
			all = append(all, x)
		}
	}
	var body struct {
		Groups set[groupShown] `xml:"securityGroupInfo"`
		Next   string          `xml:"nextToken,omitempty"`
	}
	body.Groups.Items, body.Next, err = paged(q, all, func(g groupShown) string { return g.ID })
	return body, err
}

func (d *dialect) deleteGroup(q *request) (any, error) {
	return done{true}, q.update(func(tx *store.Tx) error {
		g, err := q.groupMeant(tx)
		switch {
		case err != nil:
			return err
		case g.Default:
			return fault.Coded(fault.Invalid, "CannotDelete", "the specified group: \"%s\" name: \"default\" cannot be deleted by a user", groupID.id(g.ID))
		}
		for x := range store.SecurityRules.List(tx, "remote", g.ID) {
			if x.GroupID != g.ID {
				return fault.Coded(fault.Conflict, "DependencyViolation", "resource %s has a dependent object", groupID.id(g.ID))
			}
		}
		err = d.net.DeleteGroup(tx, q.netScope(), g.ID)
		if fault.Is(err, fault.Conflict) {
			return fault.Coded(fault.Conflict, "DependencyViolation", "resource %s has a dependent object", groupID.id(g.ID))
		}
		return netErrors.of(err)
	})
}
