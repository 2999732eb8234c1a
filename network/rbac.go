package network

import (
	"errors"
	"maps"
	"slices"
	"strings"

	"yakumo/fault"
	"yakumo/model"
	"yakumo/store"
)

// PolicySpec is what a request says of an RBAC policy; nil: it does not say. All but the
// target is of a new one.
type PolicySpec struct {
	ProjectID  *string
	ObjectType string
	ObjectID   string
	Action     string
	Target     *string // a project, or model.Everybody
}

// GetPolicy gives an RBAC policy that the scope owns.
func (n *Network) GetPolicy(r store.Reader, sc Scope, id model.ID) (*model.RBACPolicy, error) {
	p, ok := store.RBACPolicies.Get(r, id)
	if !ok || !sc.Owns(p.ProjectID) {
		return nil, fault.Coded(fault.NotFound, "RbacPolicyNotFound", "RBAC policy with ID %s not found", id)
	}
	return p, nil
}

// CreatePolicy shares an object that the scope owns.
//
// Errors: fault.Invalid (kind, action, target; somebody else's object), fault.NotFound (the
// object), fault.Forbidden (for everybody: an administrator's), fault.Conflict code
// DuplicateRbacPolicy, fault.OverQuota.
func (n *Network) CreatePolicy(tx *store.Tx, sc Scope, spec PolicySpec) (*model.RBACPolicy, error) {
	project, err := sc.project(spec.ProjectID)
	if err != nil {
		return nil, err
	}
	kinds := n.shareables()
	kind, ok := kinds[spec.ObjectType]
	if !ok {
		return nil, invalid("'%s' is not a valid RBAC object type. Valid types: %s.", clip(spec.ObjectType), strings.Join(slices.Sorted(maps.Keys(kinds)), ", "))
	}
	if !slices.Contains(kind.actions, spec.Action) {
		return nil, fault.Coded(fault.Invalid, "InvalidInput", "Invalid action '%s' for object type '%s'. Valid actions: %s", clip(spec.Action), spec.ObjectType, strings.Join(kind.actions, ", "))
	}
	p := &model.RBACPolicy{Meta: model.NewMeta(project, "", n.now()), ObjectType: spec.ObjectType, ObjectID: spec.ObjectID, Action: spec.Action}
	if err := applyTarget(p, sc, spec.Target); err != nil {
		return nil, err
	}
	object, err := kind.find(tx, sc, spec.ObjectID)
	if err != nil {
		return nil, err
	}
	if !sc.Owns(object.ProjectID) {
		return nil, invalid("Only admins can manipulate policies on objects they do not own.")
	}
	if err := n.spend(tx, project, QuotaPolicy, 1); err != nil {
		return nil, err
	}
	return p, n.putPolicy(tx, p)
}

// UpdatePolicy gives the policy another target, unless the old one still needs it.
func (n *Network) UpdatePolicy(tx *store.Tx, sc Scope, id model.ID, spec PolicySpec) (*model.RBACPolicy, error) {
	old, err := n.GetPolicy(tx, sc, id)
	if err != nil {
		return nil, err
	}
	p := *old
	if spec.Target != nil {
		if err := applyTarget(&p, sc, spec.Target); err != nil {
			return nil, err
		}
	}
	p.Touch(n.now())
	if err := n.putPolicy(tx, &p); err != nil {
		return nil, err
	}
	return &p, n.unused(tx, &p)
}

func (n *Network) putPolicy(tx *store.Tx, p *model.RBACPolicy) error {
	err := store.RBACPolicies.Put(tx, p)
	var taken *store.TakenError
	if errors.As(err, &taken) {
		return fault.Coded(fault.Conflict, "DuplicateRbacPolicy", "An RBAC policy already exists with those values.")
	}
	if err != nil {
		return err
	}
	return n.resync(tx, p.ObjectType, p.ObjectID)
}

func applyTarget(p *model.RBACPolicy, sc Scope, target *string) error {
	if target == nil || *target == "" || len(*target) > MaxName || strings.ContainsAny(*target, ",/\x00") {
		return fault.Coded(fault.Invalid, "HTTPBadRequest", "Invalid input for target_tenant. Reason: a project's id or '*' is needed.")
	}
	if *target == model.Everybody && !sc.Admin {
		return fault.Coded(fault.Forbidden, "PolicyNotAuthorized", "Only an administrator may share an object with everybody.")
	}
	p.Target = *target
	return nil
}

// DeletePolicy takes back what a policy allowed, unless something depends on it.
//
// Errors: fault.NotFound, fault.Conflict code RbacPolicyInUse.
func (n *Network) DeletePolicy(tx *store.Tx, sc Scope, id model.ID) error {
	p, err := n.GetPolicy(tx, sc, id)
	if err != nil {
		return err
	}
	if err := store.RBACPolicies.Delete(tx, id); err != nil {
		return err
	}
	if err := n.unused(tx, p); err != nil {
		return err
	}
	return n.resync(tx, p.ObjectType, p.ObjectID)
}
