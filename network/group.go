package network

import (
	"errors"
	"slices"

	"yakumo/fault"
	"yakumo/model"
	"yakumo/store"
)

// DefaultGroup is the name of the security group that every project has.
const DefaultGroup = "default"

// GroupSpec is what a request says of a security group; nil: it does not say.
type GroupSpec struct {
	ProjectID   *string
	Name        *string
	Description *string
	Stateful    *bool
}

// FindDefaultGroup gives the project's default group, and false where it is not made yet.
func (n *Network) FindDefaultGroup(r store.Reader, project model.ID) (*model.SecurityGroup, bool) {
	return store.SecurityGroups.Claimed(r, "default,"+project)
}

// EnsureDefaultGroup gives the project's default group and makes it where it is missing,
// with the default rules.
func (n *Network) EnsureDefaultGroup(tx *store.Tx, project model.ID) (*model.SecurityGroup, error) {
	if g, ok := n.FindDefaultGroup(tx, project); ok {
		return g, nil
	}
	g := &model.SecurityGroup{Meta: model.NewMeta(project, DefaultGroup, n.now()), Stateful: true, Default: true}
	g.Description = "Default security group"
	if err := store.SecurityGroups.Put(tx, g); err != nil {
		return nil, err
	}
	return g, n.firstRulesOf(tx, g, false)
}

// CreateGroup makes a security group with the default rules: as long as nobody changed
// those, everything may leave and nothing come in.
//
// Errors: fault.Conflict code SecurityGroupDefaultAlreadyExists, fault.OverQuota.
func (n *Network) CreateGroup(tx *store.Tx, sc Scope, spec GroupSpec) (*model.SecurityGroup, error) {
	project, err := sc.project(spec.ProjectID)
	if err != nil {
		return nil, err
	}
	if _, err := n.EnsureDefaultGroup(tx, project); err != nil {
		return nil, err
	}
	if spec.Name != nil && *spec.Name == DefaultGroup {
		return nil, fault.Coded(fault.Conflict, "SecurityGroupDefaultAlreadyExists", "Default security group already exists.")
	}
	if err := n.spend(tx, project, QuotaGroup, 1); err != nil {
		return nil, err
	}
	g := &model.SecurityGroup{Meta: model.NewMeta(project, "", n.now()), Stateful: true}
	if err := applyGroup(g, spec); err != nil {
		return nil, err
	}
	if err := store.SecurityGroups.Put(tx, g); err != nil {
		return nil, err
	}
	return g, n.firstRulesOf(tx, g, true)
}

// UpdateGroup changes what the spec names. The default group keeps its name; a group with
// members stays stateful, or stateless.
func (n *Network) UpdateGroup(tx *store.Tx, sc Scope, id model.ID, spec GroupSpec) (*model.SecurityGroup, error) {
	old, err := n.GetGroup(tx, sc, id)
	if err != nil {
		return nil, err
	}
	if !sc.Owns(old.ProjectID) {
		return nil, forbiddenShared("security group")
	}
	g := *old
	if spec.Name != nil && *spec.Name != old.Name {
		if old.Default {
			return nil, fault.Coded(fault.Conflict, "SecurityGroupCannotUpdateDefault", "Updating default security group not allowed.")
		}
		if *spec.Name == DefaultGroup {
			return nil, fault.Coded(fault.Conflict, "SecurityGroupDefaultAlreadyExists", "Default security group already exists.")
		}
	}
	if err := applyGroup(&g, spec); err != nil {
		return nil, err
	}
	if g.Stateful != old.Stateful {
		tx.Guard(groupMark(id))
		if store.Ports.Count(tx, "group", id) > 0 {
			return nil, fault.Coded(fault.Conflict, "SecurityGroupInUse", "Security Group %s in use.", id)
		}
	}
	g.Touch(n.now())
	return &g, store.SecurityGroups.Put(tx, &g)
}

func applyGroup(g *model.SecurityGroup, spec GroupSpec) error {
	if err := errors.Join(checkText("name", spec.Name), checkText("description", spec.Description)); err != nil {
		return err
	}
	set(&g.Stateful, spec.Stateful)
	set(&g.Name, spec.Name)
	set(&g.Description, spec.Description)
	return nil
}

// DeleteGroup removes a group that no port is in, its rules, and the rules of other
// groups that refer to it.
//
// Errors: fault.NotFound, fault.Conflict codes SecurityGroupInUse and
// SecurityGroupCannotRemoveDefault.
func (n *Network) DeleteGroup(tx *store.Tx, sc Scope, id model.ID) error {
	g, err := n.GetGroup(tx, sc, id)
	if err != nil {
		return err
	}
	if !sc.Owns(g.ProjectID) {
		return forbiddenShared("security group")
	}
	if g.Default && !sc.Admin {
		return fault.Coded(fault.Conflict, "SecurityGroupCannotRemoveDefault", "Insufficient rights for removing default security group.")
	}
	tx.Guard(groupMark(id))
	for range store.Ports.List(tx, "group", id) {
		return fault.Coded(fault.Conflict, "SecurityGroupInUse", "Security Group %s in use.", id)
	}
	rules := slices.Collect(store.SecurityRules.List(tx, "group", id))
	rules = slices.AppendSeq(rules, store.SecurityRules.List(tx, "remote", id))
	for _, r := range rules {
		if err := store.SecurityRules.Delete(tx, r.ID); err != nil {
			return err
		}
	}
	if err := unshare(tx, id); err != nil {
		return err
	}
	tx.Unmark(groupMark(id))
	return store.SecurityGroups.Delete(tx, id)
}
