package network

import (
	"errors"
	"slices"

	"yakumo/fault"
	"yakumo/model"
	"yakumo/store"
)

// DefaultRuleSpec is a new rule of which groups get a copy when they are made.
type DefaultRuleSpec struct {
	RuleSpec        // without a project and a group; RemoteGroupID may be model.ParentGroup
	InDefault *bool // nil: false
	InOthers  *bool // nil: true
}

// defaultRulesMark is marked by a change of the default rules: equal ones must not come twice.
const defaultRulesMark = "default_rules"

// firstRules are the rules that new groups begin with in a cloud where nobody changed them:
// everything may leave; the members of a project's default group reach each other. They are no
// rows, but for a deleted one, whose row says so.
func firstRules() []*model.DefaultRule {
	rule := func(id, direction, ether, remote string, others bool) *model.DefaultRule {
		return &model.DefaultRule{SecurityRule: model.SecurityRule{Meta: model.Meta{ID: id, Generation: 1}, Direction: direction, EtherType: ether, RemoteGroupID: remote}, InDefault: true, InOthers: others}
	}
	return []*model.DefaultRule{
		rule("c8a0e4f2-0000-4000-8000-000000000001", model.Egress, model.IPv4, "", true),
		rule("c8a0e4f2-0000-4000-8000-000000000002", model.Egress, model.IPv6, "", true),
		rule("c8a0e4f2-0000-4000-8000-000000000003", model.Ingress, model.IPv4, model.ParentGroup, false),
		rule("c8a0e4f2-0000-4000-8000-000000000004", model.Ingress, model.IPv6, model.ParentGroup, false),
	}
}

// DefaultRules gives the rules that new groups begin with, sorted by id.
func DefaultRules(r store.Reader) []*model.DefaultRule {
	out := firstRules()
	for x := range store.DefaultRules.All(r) {
		if x.Gone {
			out = slices.DeleteFunc(out, func(o *model.DefaultRule) bool { return o.ID == x.ID })
		} else {
			out = append(out, x)
		}
	}
	slices.SortFunc(out, func(a, b *model.DefaultRule) int {
		if a.ID < b.ID {
			return -1
		}
		return 1
	})
	return out
}

// GetDefaultRule gives a default rule; everybody sees them.
func (n *Network) GetDefaultRule(r store.Reader, _ Scope, id model.ID) (*model.DefaultRule, error) {
	for _, x := range DefaultRules(r) {
		if x.ID == id {
			return x, nil
		}
	}
	return nil, fault.Coded(fault.NotFound, "DefaultSecurityGroupRuleNotFound", "Default Security Group rule %s does not exist", id)
}

// CreateDefaultRule adds a rule for groups that are made from now on; an administrator's.
//
// Errors: fault.Invalid, fault.NotFound (remote group, address group), fault.Conflict code
// DefaultSecurityGroupRuleExists.
func (n *Network) CreateDefaultRule(tx *store.Tx, sc Scope, spec DefaultRuleSpec) (*model.DefaultRule, error) {
	x := &model.DefaultRule{InOthers: true, SecurityRule: model.SecurityRule{
		Meta: model.NewMeta("", "", n.now()), Direction: spec.Direction, EtherType: spec.EtherType,
		PortMin: spec.PortMin, PortMax: spec.PortMax, RemotePrefix: spec.RemotePrefix, RemoteGroupID: spec.RemoteGroupID, AddressGroupID: spec.AddressGroupID,
	}}
	set(&x.InDefault, spec.InDefault)
	set(&x.InOthers, spec.InOthers)
	if err := applyMeta(&x.Meta, nil, spec.Description); err != nil {
		return nil, err
	}
	if err := checkRule(&x.SecurityRule, spec.Protocol); err != nil {
		return nil, err
	}
	if x.RemoteGroupID != "" && x.RemoteGroupID != model.ParentGroup {
		if _, err := n.GetGroup(tx, sc, x.RemoteGroupID); err != nil {
			return nil, err
		}
	}
	if x.AddressGroupID != "" {
		if _, err := n.GetAddressGroup(tx, sc, x.AddressGroupID); err != nil {
			return nil, err
		}
		tx.Mark(addressesMark(x.AddressGroupID))
	}
	tx.Mark(defaultRulesMark)
	tx.Guard(defaultRulesMark)
	for _, o := range DefaultRules(tx) {
		if o.Meaning() == x.Meaning() {
			return nil, fault.Coded(fault.Conflict, "DefaultSecurityGroupRuleExists", "Default Security Group rule already exists. Rule id is %s.", o.ID)
		}
	}
	return x, store.DefaultRules.Put(tx, x)
}

// DeleteDefaultRule removes a default rule; groups that have it keep it.
func (n *Network) DeleteDefaultRule(tx *store.Tx, sc Scope, id model.ID) error {
	x, err := n.GetDefaultRule(tx, sc, id)
	if err != nil {
		return err
	}
	tx.Mark(defaultRulesMark)
	if slices.ContainsFunc(firstRules(), func(o *model.DefaultRule) bool { return o.ID == id }) {
		gone := *x
		gone.Gone = true
		return store.DefaultRules.Put(tx, &gone)
	}
	return store.DefaultRules.Delete(tx, id)
}

// firstRulesOf gives a new group its copies of the default rules. What they refer to and is
// gone is left out. spend: it counts for the project's quota.
func (n *Network) firstRulesOf(tx *store.Tx, g *model.SecurityGroup, spend bool) error {
	var rules []*model.SecurityRule
	for _, x := range DefaultRules(tx) {
		if g.Default && !x.InDefault || !g.Default && !x.InOthers {
			continue
		}
		r := x.SecurityRule
		r.Meta = model.NewMeta(g.ProjectID, "", n.now())
		r.Description, r.GroupID = x.Description, g.ID
		switch r.RemoteGroupID {
		case "":
		case model.ParentGroup:
			r.RemoteGroupID = g.ID
		default:
			if _, there := store.SecurityGroups.Get(tx, r.RemoteGroupID); !there {
				continue
			}
			tx.Mark(groupMark(r.RemoteGroupID))
		}
		if r.AddressGroupID != "" {
			tx.Mark(addressesMark(r.AddressGroupID))
		}
		rules = append(rules, &r)
	}
	if spend {
		if err := n.spend(tx, g.ProjectID, QuotaRule, len(rules)); err != nil {
			return err
		}
	}
	for _, r := range rules {
		var taken *store.TakenError
		if err := store.SecurityRules.Put(tx, r); err != nil && !errors.As(err, &taken) { // PARENT and its id may be one
			return err
		}
	}
	return nil
}
