package neutron

import (
	"iter"

	"yakumo/api"
	"yakumo/model"
	"yakumo/network"
	"yakumo/store"
)

func (d *dialect) groupCollection() *collection[model.SecurityGroup, network.GroupSpec] {
	type (
		R = model.SecurityGroup
		S = network.GroupSpec
	)
	meta := func(g *R) *model.Meta { return &g.Meta }
	attrs := metaAttrs(meta, func(s *S) **string { return &s.ProjectID })
	attrs = append(attrs,
		textAttr("name", everyone, everyone, func(g *R) string { return g.Name }, func(s *S) **string { return &s.Name }),
		textAttr("description", everyone, everyone, func(g *R) string { return g.Description }, func(s *S) **string { return &s.Description }),
		tagsAttr[R, S](meta),
		boolAttr("stateful", everyone, everyone, func(g *R) bool { return g.Stateful }, func(s *S) **bool { return &s.Stateful }),
		sharedAttr[R, S](readOnly, func(g *R) model.Sharing { return g.Sharing }, nil),
		attribute[R, S]{name: "security_group_rules", emit: func(b []byte, v *view, g *R) []byte {
			b = append(b, '[')
			first := true
			for r := range store.SecurityRules.List(v.r, "group", g.ID) {
				if !first {
					b = append(b, ',')
				}
				first = false
				b = d.rules.emit(b, v, r, nil)
			}
			return append(b, ']')
		}},
	)
	return &collection[R, S]{
		path: "security-groups", single: "security_group", plural: "security_groups", attrs: attrs, tagged: true, meta: meta,
		get:  d.net.GetGroup,
		sees: func(v *view, g *R) bool { return v.scope.Sees(g.ProjectID, g.Sharing) },
		candidates: func(v *view, q *query) iter.Seq[*R] {
			if ids := q.filters["id"]; len(ids) > 0 {
				return byID(store.SecurityGroups, v, ids)
			}
			if p, ok := q.project(); ok {
				return store.SecurityGroups.List(v.r, "project", p)
			}
			if !v.scope.Admin {
				return visible(store.SecurityGroups, v)
			}
			if name, ok := q.one("name"); ok {
				return store.SecurityGroups.List(v.r, "name", name)
			}
			return store.SecurityGroups.All(v.r)
		},
		create: d.net.CreateGroup, update: d.net.UpdateGroup, remove: d.net.DeleteGroup,
		before: d.ensureDefault,
	}
}

// ensureDefault makes the default group of the project that a list is about, so that
// whoever looks finds it.
func (d *dialect) ensureDefault(c *api.Context, q *query) error {
	project := c.Caller.ProjectID
	if p, ok := q.project(); ok && c.Caller.CloudAdmin && p != project {
		if _, known := store.Projects.Get(c.Snapshot(), p); !known {
			return nil // no group for what is no project
		}
		project = p
	}
	if project == "" {
		return nil
	}
	if _, ok := d.net.FindDefaultGroup(c.Snapshot(), project); ok {
		return nil
	}
	_, err := c.Store().Update(c.R.Context(), func(tx *store.Tx) error {
		_, err := d.net.EnsureDefaultGroup(tx, project)
		return err
	})
	return err
}
