package neutron

import (
	"encoding/json"
	"iter"
	"net/netip"
	"strconv"
	"strings"

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

func (d *dialect) ruleCollection() *collection[model.SecurityRule, network.RuleSpec] {
	type (
		R = model.SecurityRule
		S = network.RuleSpec
	)
	meta := func(r *R) *model.Meta { return &r.Meta }
	attrs := metaAttrs(meta, func(s *S) **string { return &s.ProjectID })
	// text is an attribute that is null where it is empty.
	text := func(name string, get func(*R) string, field func(*S) *string) attribute[R, S] {
		return attribute[R, S]{name: name, post: everyone,
			set: func(s *S, raw json.RawMessage) (err error) {
				if isNull(raw) {
					return nil
				}
				*field(s), err = readString(name, raw)
				return err
			},
			emit: func(b []byte, _ *view, r *R) []byte { return appendStringOrNull(b, get(r)) },
			match: func(_ *view, r *R) []string {
				if s := get(r); s != "" {
					return []string{s}
				}
				return nil
			},
			order: get}
	}
	number := func(name string, get func(*R) *int, field func(*S) **int) attribute[R, S] {
		return attribute[R, S]{name: name, post: everyone,
			set: func(s *S, raw json.RawMessage) error {
				if isNull(raw) {
					return nil
				}
				n, err := readInt(name, raw)
				*field(s) = &n
				return err
			},
			emit: func(b []byte, _ *view, r *R) []byte { return appendIntOrNull(b, get(r)) },
			match: func(_ *view, r *R) []string {
				if n := get(r); n != nil {
					return []string{strconv.Itoa(*n)}
				}
				return nil
			},
			order: func(r *R) string {
				if n := get(r); n != nil {
					return sortable(*n)
				}
				return ""
			}}
	}
	group := text("security_group_id", func(r *R) string { return r.GroupID }, func(s *S) *string { return &s.GroupID })
	group.required = true
	direction := text("direction", func(r *R) string { return r.Direction }, func(s *S) *string { return &s.Direction })
	direction.required = true
	direction.norm = strings.ToLower
	protocol := text("protocol", func(r *R) string { return r.Protocol }, func(s *S) *string { return &s.Protocol })
	protocol.set = func(s *S, raw json.RawMessage) (err error) {
		if isNull(raw) {
			return nil
		}
		if n, numeric := readInt("protocol", raw); numeric == nil { // a number, or a number as a text
			s.Protocol = strconv.Itoa(n)
			return nil
		}
		s.Protocol, err = readString("protocol", raw)
		return err
	}
	protocol.norm = strings.ToLower
	prefix := func(name string, post right, get func(*R) netip.Prefix) attribute[R, S] {
		return attribute[R, S]{name: name, post: post,
			set: func(s *S, raw json.RawMessage) error {
				if isNull(raw) {
					return nil
				}
				text, err := readString(name, raw)
				if err != nil || text == "" {
					return err
				}
				s.RemotePrefix, err = readPrefix(name, text)
				return err
			},
			emit: func(b []byte, _ *view, r *R) []byte { return appendPrefix(b, get(r)) },
			match: func(_ *view, r *R) []string {
				if p := get(r); p.IsValid() {
					return []string{p.String()}
				}
				return nil
			}}
	}
	given := func(r *R) netip.Prefix { return r.RemoteGiven }
	masked := func(r *R) netip.Prefix { return r.RemoteGiven.Masked() }
	attrs = append(attrs,
		group, direction, protocol,
		text("ethertype", func(r *R) string { return r.EtherType }, func(s *S) *string { return &s.EtherType }),
		number("port_range_min", func(r *R) *int { return r.PortMin }, func(s *S) **int { return &s.PortMin }),
		number("port_range_max", func(r *R) *int { return r.PortMax }, func(s *S) **int { return &s.PortMax }),
		prefix("remote_ip_prefix", everyone, given),
		prefix("normalized_cidr", readOnly, masked),
		text("remote_group_id", func(r *R) string { return r.RemoteGroupID }, func(s *S) *string { return &s.RemoteGroupID }),
		textAttr("description", everyone, readOnly, func(r *R) string { return r.Description }, func(s *S) **string { return &s.Description }),
	)
	return &collection[R, S]{
		path: "security-group-rules", single: "security_group_rule", plural: "security_group_rules", attrs: attrs, meta: meta,
		get: d.net.GetRule,
		sees: func(v *view, r *R) bool {
			if v.scope.Owns(r.ProjectID) {
				return true
			}
			g, ok := store.SecurityGroups.Get(v.r, r.GroupID)
			return ok && g.With(v.scope.ProjectID)
		},
		candidates: func(v *view, q *query) iter.Seq[*R] {
			if ids := q.filters["id"]; len(ids) > 0 {
				return byID(store.SecurityRules, v, ids)
			}
			if ids := q.filters["security_group_id"]; len(ids) > 0 {
				return anyOf(store.SecurityRules, v, "group", ids)
			}
			if id, ok := q.one("remote_group_id"); ok {
				return store.SecurityRules.List(v.r, "remote", id)
			}
			if p, ok := q.project(); ok {
				return store.SecurityRules.List(v.r, "project", p)
			}
			if v.scope.Admin {
				return store.SecurityRules.All(v.r)
			}
			return concat(store.SecurityRules.List(v.r, "project", v.scope.ProjectID), func(yield func(*R) bool) {
				for g := range anyOf(store.SecurityGroups, v, "shared", []string{v.scope.ProjectID, model.Everybody}) {
					for r := range store.SecurityRules.List(v.r, "group", g.ID) {
						if !yield(r) {
							return
						}
					}
				}
			})
		},
		create: d.net.CreateRule, remove: d.net.DeleteRule,
		before: d.ensureDefault,
	}
}
