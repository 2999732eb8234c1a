package network

import (
	"errors"
	"iter"

	"yakumo/fault"
	"yakumo/model"
	"yakumo/store"
)

// QoSPolicySpec is what a request says of a QoS policy; nil: it does not say.
type QoSPolicySpec struct {
	ProjectID   *string
	Name        *string
	Description *string
	Shared      *bool // with every project
	Default     *bool // new networks of its project take it
}

// QoSRuleSpec is what a request says of a rule; nil: it does not say. For the units see
// model.QoSRule.
type QoSRuleSpec struct {
	Direction *string
	Rate      *int
	Burst     *int
	DSCP      *int
}

// QoSRuleRow is a rule with the policy that it is of.
type QoSRuleRow struct {
	Policy *model.QoSPolicy
	model.QoSRule
}

func qosMark(id model.ID) string { return "qos," + id }

func qosDefault(project model.ID) string { return "default," + project }

// GetQoSPolicy gives a policy that the scope sees: its own, or one that is shared with it.
func (n *Network) GetQoSPolicy(r store.Reader, sc Scope, id model.ID) (*model.QoSPolicy, error) {
	p, ok := store.QoSPolicies.Get(r, id)
	if !ok || !sc.SeesQoSPolicy(p) {
		return nil, fault.Coded(fault.NotFound, "QosPolicyNotFound", "QoS policy %s could not be found.", clip(id))
	}
	return p, nil
}

// SeesQoSPolicy tells whether the scope may see and use the policy.
func (s Scope) SeesQoSPolicy(p *model.QoSPolicy) bool {
	return s.Owns(p.ProjectID) || p.With(s.ProjectID)
}

// CreateQoSPolicy makes a policy without rules.
//
// Errors: fault.Invalid (texts), fault.Forbidden (another project), fault.Conflict code
// QoSPolicyDefaultAlreadyExists.
func (n *Network) CreateQoSPolicy(tx *store.Tx, sc Scope, spec QoSPolicySpec) (*model.QoSPolicy, error) {
	project, err := sc.project(spec.ProjectID)
	if err != nil {
		return nil, err
	}
	p := &model.QoSPolicy{Meta: model.NewMeta(project, "", n.now())}
	return p, n.putQoSPolicy(tx, p, spec)
}

// UpdateQoSPolicy changes what the spec names; the scope must own the policy.
func (n *Network) UpdateQoSPolicy(tx *store.Tx, sc Scope, id model.ID, spec QoSPolicySpec) (*model.QoSPolicy, error) {
	old, err := n.GetQoSPolicy(tx, sc, id)
	if err != nil {
		return nil, err
	}
	if !sc.Owns(old.ProjectID) {
		return nil, forbidden("another project's QoS policy")
	}
	p := *old
	p.Touch(n.now())
	return &p, n.putQoSPolicy(tx, &p, spec)
}

func (n *Network) putQoSPolicy(tx *store.Tx, p *model.QoSPolicy, spec QoSPolicySpec) error {
	if err := retext(&p.Meta, spec.Name, spec.Description); err != nil {
		return err
	}
	set(&p.Default, spec.Default)
	if spec.Shared != nil && *spec.Shared != p.Open() {
		if err := n.open(tx, &p.Meta, model.ObjectQoSPolicy, model.AccessShared, *spec.Shared, &p.SharedWith); err != nil {
			return err
		}
		if !*spec.Shared {
			if err := n.unused(tx, &model.RBACPolicy{ObjectType: model.ObjectQoSPolicy, ObjectID: p.ID, Action: model.AccessShared}); err != nil {
				return err
			}
		}
	}
	err := store.QoSPolicies.Put(tx, p)
	var taken *store.TakenError
	if errors.As(err, &taken) {
		return fault.Coded(fault.Conflict, "QoSPolicyDefaultAlreadyExists", "A default QoS policy exists for project %s.", p.ProjectID)
	}
	return err
}

// DeleteQoSPolicy removes a policy that nothing names.
//
// Errors: fault.NotFound, fault.Forbidden, fault.Conflict code QosPolicyInUse.
func (n *Network) DeleteQoSPolicy(tx *store.Tx, sc Scope, id model.ID) error {
	p, err := n.GetQoSPolicy(tx, sc, id)
	if err != nil {
		return err
	}
	if !sc.Owns(p.ProjectID) {
		return forbidden("another project's QoS policy")
	}
	tx.Guard(qosMark(id))
	inUse := func(kind string, user model.ID) error {
		return fault.Coded(fault.Conflict, "QosPolicyInUse", "QoS Policy %s is used by %s %s.", id, kind, user)
	}
	for w := range store.Networks.List(tx, "qos", id) {
		return inUse("network", w.ID)
	}
	for x := range store.Ports.List(tx, "qos", id) {
		return inUse("port", x.ID)
	}
	for f := range store.FloatingIPs.List(tx, "qos", id) {
		return inUse("floatingip", f.ID)
	}
	for r := range store.Routers.List(tx, "qos", id) {
		return inUse("router", r.ID)
	}
	tx.Unmark(qosMark(id))
	if err := unshare(tx, id); err != nil {
		return err
	}
	return store.QoSPolicies.Delete(tx, id)
}

// qosUsers gives the projects of what names a policy.
func qosUsers(r store.Reader, id model.ID, _ string) iter.Seq[model.ID] {
	return func(yield func(model.ID) bool) {
		for w := range store.Networks.List(r, "qos", id) {
			if !yield(w.ProjectID) {
				return
			}
		}
		for p := range store.Ports.List(r, "qos", id) {
			if !yield(p.ProjectID) {
				return
			}
		}
		for f := range store.FloatingIPs.List(r, "qos", id) {
			if !yield(f.ProjectID) {
				return
			}
		}
		for x := range store.Routers.List(r, "qos", id) {
			if !yield(x.ProjectID) {
				return
			}
		}
	}
}

// useQoS lets a resource use another policy; want nil: it does not ask, "": none.
//
// Errors: fault.NotFound code QosPolicyNotFound; fault.Forbidden code
// PolicyRemoveAuthorizationError where somebody gave it a policy that is not the scope's.
func (n *Network) useQoS(tx *store.Tx, sc Scope, have *model.ID, want *string) error {
	if want == nil || *want == *have {
		return nil
	}
	if *have != "" {
		if _, err := n.GetQoSPolicy(tx, sc, *have); err != nil {
			return fault.Coded(fault.Forbidden, "PolicyRemoveAuthorizationError", "Failed to remove provided policy %s because you are not authorized.", *have)
		}
	}
	if *want != "" {
		if _, err := n.GetQoSPolicy(tx, sc, *want); err != nil {
			return err
		}
		tx.Mark(qosMark(*want))
	}
	*have = *want
	return nil
}

// defaultQoS gives a new network of the project its default policy, where there is one.
func defaultQoS(tx *store.Tx, w *model.Network) {
	if id, ok := store.QoSPolicies.Holder(tx, qosDefault(w.ProjectID)); ok {
		store.QoSPolicies.Get(tx, id) // compared at commit
		tx.Mark(qosMark(id))
		w.QoSPolicyID = id
	}
}

// PortQoS gives what a port's policy, its own or its network's, makes of its traffic.
func PortQoS(r store.Reader, p *model.Port) model.HostQoS {
	w, ok := store.Networks.Get(r, p.NetworkID)
	if !ok {
		return model.HostQoS{}
	}
	policy, _ := store.QoSPolicies.Get(r, model.PolicyOf(p, w))
	return policy.QoS()
}

// heed refuses a change that promises a host more than it has. before is what was promised;
// a host that had been promised too much already may keep that.
//
// Errors: fault.Conflict code QosPlacementAllocationConflict.
func heed(tx *store.Tx, before map[model.ID]map[model.Traffic]int) error {
	for host, now := range store.Promises(tx) {
		h, ok := store.Hosts.Get(tx, host)
		if !ok {
			continue
		}
		for t, n := range now {
			if n > h.Bandwidth[t.Network] && n > before[host][t] {
				return fault.Coded(fault.Conflict, "QosPlacementAllocationConflict",
					"Allocation is not possible on resource provider %s, the requested amount of bandwidth would exceed the capacity available: %s %s would be promised %d of %d.", h.Name, t.Network, t.Direction, n, h.Bandwidth[t.Network])
			}
		}
	}
	return nil
}

// promises tells whether one of the policies must be heeded by placement.
func promises(r store.Reader, policies ...model.ID) bool {
	for _, id := range policies {
		for p := range store.QoSPolicies.List(r, "id", id) {
			if p.Promises() {
				return true
			}
		}
	}
	return false
}
