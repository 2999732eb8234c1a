package neutron

import (
	"encoding/json"
	"iter"
	"strconv"

	"yakumo/model"
	"yakumo/network"
	"yakumo/store"
)

func (d *dialect) policyCollection() *collection[model.RBACPolicy, network.PolicySpec] {
	type (
		R = model.RBACPolicy
		S = network.PolicySpec
	)
	meta := func(p *R) *model.Meta { return &p.Meta }
	attrs := metaAttrs(meta, func(s *S) **string { return &s.ProjectID })
	text := func(name string, put right, get func(*R) string, set func(*S, string)) attribute[R, S] {
		a := textAttr[R, S](name, everyone, put, get, nil)
		a.required = true
		a.set = func(s *S, raw json.RawMessage) error {
			v, err := readString(name, raw)
			set(s, v)
			return err
		}
		return a
	}
	attrs = append(attrs,
		text("object_type", readOnly, func(p *R) string { return p.ObjectType }, func(s *S, v string) { s.ObjectType = v }),
		text("object_id", readOnly, func(p *R) string { return p.ObjectID }, func(s *S, v string) { s.ObjectID = v }),
		text("action", readOnly, func(p *R) string { return p.Action }, func(s *S, v string) { s.Action = v }),
		text("target_tenant", everyone, func(p *R) string { return p.Target }, func(s *S, v string) { s.Target = &v }),
	)
	return &collection[R, S]{
		path: "rbac-policies", single: "rbac_policy", plural: "rbac_policies", attrs: attrs, meta: meta,
		get:  d.net.GetPolicy,
		sees: func(v *view, p *R) bool { return v.scope.Owns(p.ProjectID) },
		candidates: func(v *view, q *query) iter.Seq[*R] {
			if ids := q.filters["id"]; len(ids) > 0 {
				return byID(store.RBACPolicies, v, ids)
			}
			if ids := q.filters["object_id"]; len(ids) > 0 {
				return anyOf(store.RBACPolicies, v, "object", ids)
			}
			if p, ok := q.project(); ok {
				return store.RBACPolicies.List(v.r, "project", p)
			}
			if v.scope.Admin {
				return store.RBACPolicies.All(v.r)
			}
			return store.RBACPolicies.List(v.r, "project", v.scope.ProjectID)
		},
		create: d.net.CreatePolicy, update: d.net.UpdatePolicy, remove: d.net.DeletePolicy,
	}
}

// sharedAttr tells whether the object is shared with the caller's project, as in Neutron:
// two callers may see different values. field nil: it is set by policies alone.
func sharedAttr[R, S any](set right, sharing func(*R) model.Sharing, field func(*S) **bool) attribute[R, S] {
	a := boolAttr("shared", set, set, func(r *R) bool { return sharing(r).Open() }, field)
	a.emit = func(b []byte, v *view, r *R) []byte {
		return strconv.AppendBool(b, sharing(r).With(v.scope.ProjectID))
	}
	a.match = func(v *view, r *R) []string { return []string{strconv.FormatBool(sharing(r).With(v.scope.ProjectID))} }
	return a
}

// visible gives the rows of the caller's project and those shared with it; one may come twice.
func visible[R any](t *store.Table[R], v *view) iter.Seq[*R] {
	return concat(t.List(v.r, "project", v.scope.ProjectID), anyOf(t, v, "shared", []string{v.scope.ProjectID, model.Everybody}))
}
