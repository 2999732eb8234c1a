package network

import (
	"slices"

	"yakumo/fault"
	"yakumo/model"
	"yakumo/store"
)

// MaxRate is the most that a QoS rule may say, in its unit; Neutron's limit.
const MaxRate = 1<<31 - 1

// DSCPMarks are the marks that a rule may set, those of RFC 2474, 2597, 3246 that Neutron takes.
func DSCPMarks() []int {
	return []int{0, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30, 32, 34, 36, 38, 40, 46, 48, 56}
}

// QoSRuleTypes are the types of rules.
func QoSRuleTypes() []string {
	return []string{model.QoSBandwidth, model.QoSDSCP, model.QoSMinBandwidth, model.QoSPacketRate, model.QoSMinPacketRate}
}

// QoSDirections gives the directions that a rule of the type may have, the default first.
func QoSDirections(kind string) []string {
	switch kind {
	case model.QoSDSCP:
		return nil
	case model.QoSMinPacketRate:
		return []string{model.Egress, model.Ingress, model.AnyDirection}
	}
	return []string{model.Egress, model.Ingress}
}

// GetQoSRule gives a rule of the type; policy "": of whichever policy the scope sees.
func (n *Network) GetQoSRule(r store.Reader, sc Scope, policy model.ID, kind string, id model.ID) (*QoSRuleRow, error) {
	var p *model.QoSPolicy
	if policy != "" {
		var err error
		if p, err = n.GetQoSPolicy(r, sc, policy); err != nil {
			return nil, err
		}
	} else {
		for x := range store.QoSPolicies.List(r, "rule", id) {
			if sc.SeesQoSPolicy(x) {
				p, _ = store.QoSPolicies.Get(r, x.ID) // compared at commit
			}
		}
	}
	if p != nil {
		if x, ok := p.Rule(id); ok && x.Type == kind {
			return &QoSRuleRow{p, x}, nil
		}
		policy = p.ID
	}
	return nil, fault.Coded(fault.NotFound, "QosRuleNotFound", "QoS rule %s for policy %s could not be found.", clip(id), policy)
}

// CreateQoSRule adds a rule to a policy that the scope owns.
//
// Errors: fault.NotFound, fault.Forbidden, fault.Invalid (values), fault.Conflict (codes
// QoSRulesConflict, QoSRuleParameterConflict).
func (n *Network) CreateQoSRule(tx *store.Tx, sc Scope, policy model.ID, kind string, spec QoSRuleSpec) (*QoSRuleRow, error) {
	p, err := n.GetQoSPolicy(tx, sc, policy)
	if err != nil {
		return nil, err
	}
	x := model.QoSRule{ID: model.NewID(), Type: kind}
	if d := QoSDirections(kind); len(d) > 0 {
		x.Direction = d[0]
	}
	return n.putQoSRule(tx, sc, p, x, spec)
}

// UpdateQoSRule changes what the spec names of a rule; policy "": whichever has it.
func (n *Network) UpdateQoSRule(tx *store.Tx, sc Scope, policy model.ID, kind string, id model.ID, spec QoSRuleSpec) (*QoSRuleRow, error) {
	row, err := n.GetQoSRule(tx, sc, policy, kind, id)
	if err != nil {
		return nil, err
	}
	return n.putQoSRule(tx, sc, row.Policy, row.QoSRule, spec)
}

// DeleteQoSRule removes a rule; policy "": whichever has it.
func (n *Network) DeleteQoSRule(tx *store.Tx, sc Scope, policy model.ID, kind string, id model.ID) error {
	row, err := n.GetQoSRule(tx, sc, policy, kind, id)
	if err != nil {
		return err
	}
	return n.writeQoSRules(tx, sc, row.Policy, without(row.Policy.Rules, id))
}

func (n *Network) putQoSRule(tx *store.Tx, sc Scope, p *model.QoSPolicy, x model.QoSRule, spec QoSRuleSpec) (*QoSRuleRow, error) {
	set(&x.Direction, spec.Direction)
	set(&x.Rate, spec.Rate)
	set(&x.Burst, spec.Burst)
	set(&x.DSCP, spec.DSCP)
	others := without(p.Rules, x.ID)
	if err := checkQoSRule(p, others, x); err != nil {
		return nil, err
	}
	// A changed rule stays in its place.
	rules := append(others, x)
	if i := slices.IndexFunc(p.Rules, func(o model.QoSRule) bool { return o.ID == x.ID }); i >= 0 {
		rules = slices.Clone(p.Rules)
		rules[i] = x
	}
	next := *p
	if err := n.writeQoSRules(tx, sc, &next, rules); err != nil {
		return nil, err
	}
	row, _ := store.QoSPolicies.Get(tx, p.ID)
	return &QoSRuleRow{row, x}, nil
}

func (n *Network) writeQoSRules(tx *store.Tx, sc Scope, p *model.QoSPolicy, rules []model.QoSRule) error {
	if !sc.Owns(p.ProjectID) {
		return forbidden("another project's QoS policy")
	}
	next := *p
	next.Rules = rules
	next.Touch(n.now())
	if !next.Promises() {
		return store.QoSPolicies.Put(tx, &next)
	}
	before := store.Promises(tx)
	if err := store.QoSPolicies.Put(tx, &next); err != nil {
		return err
	}
	return heed(tx, before)
}

func without(rules []model.QoSRule, id model.ID) []model.QoSRule {
	out := make([]model.QoSRule, 0, len(rules)+1)
	for _, r := range rules {
		if r.ID != id {
			out = append(out, r)
		}
	}
	return out
}

// checkQoSRule refuses a rule by its own values, or beside the policy's others.
func checkQoSRule(p *model.QoSPolicy, others []model.QoSRule, x model.QoSRule) error {
	bad := func(field string, format string, args ...any) error {
		return fault.Coded(fault.Invalid, "HTTPBadRequest", "Invalid input for "+field+". Reason: "+format, args...)
	}
	for _, n := range []int{x.Rate, x.Burst} {
		if n < 0 || n > MaxRate {
			return bad("the rule", "'%d' is not from 0 to %d.", n, MaxRate)
		}
	}
	if x.Type == model.QoSDSCP && !slices.Contains(DSCPMarks(), x.DSCP) {
		return bad("dscp_mark", "'%d' is not in %v.", x.DSCP, DSCPMarks())
	}
	if d := QoSDirections(x.Type); len(d) > 0 && !slices.Contains(d, x.Direction) {
		return bad("direction", "'%s' is not in %q.", clip(x.Direction), d)
	}
	for _, o := range others {
		switch {
		case o.Type == x.Type && (o.Direction == x.Direction || o.Direction == model.AnyDirection || x.Direction == model.AnyDirection):
			return fault.Coded(fault.Conflict, "QoSRulesConflict", "Rule %s conflicts with rule %s which already exists in QoS Policy %s.", x.Type, o.ID, p.ID)
		case exceeds(x, o) || exceeds(o, x):
			return fault.Coded(fault.Conflict, "QoSRuleParameterConflict",
				"Unable to add the rule with value %d to the policy %s as the existing rule of type %s restricts the bandwidth to %d.", x.Rate, p.ID, o.Type, o.Rate)
		}
	}
	return nil
}

// exceeds tells whether low promises more than high lets through.
func exceeds(low, high model.QoSRule) bool {
	pair := low.Type == model.QoSMinBandwidth && high.Type == model.QoSBandwidth || low.Type == model.QoSMinPacketRate && high.Type == model.QoSPacketRate
	return pair && high.Rate > 0 && low.Rate > high.Rate && low.Direction == high.Direction
}
