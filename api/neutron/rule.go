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

func (d *dialect) ruleCollection() *collection[model.SecurityRule, network.RuleSpec] {
	type (
		R = model.SecurityRule
		S = network.RuleSpec
	)
	meta := func(r *R) *model.Meta { return &r.Meta }
	attrs := metaAttrs(meta, func(s *S) **string { return &s.ProjectID })
	group := orNull("security_group_id", func(r *R) string { return r.GroupID }, func(s *S) *string { return &s.GroupID })
	group.required = true
	attrs = append(attrs, group)
	attrs = append(attrs, ruleAttrs(func(r *R) *model.SecurityRule { return r }, func(s *S) *network.RuleSpec { return s })...)
	attrs = append(attrs, attribute[R, S]{name: "belongs_to_default_sg",
		emit: func(b []byte, v *view, r *R) []byte {
			g, ok := store.SecurityGroups.Get(v.r, r.GroupID)
			return strconv.AppendBool(b, ok && g.Default)
		},
		match: func(v *view, r *R) []string {
			g, ok := store.SecurityGroups.Get(v.r, r.GroupID)
			return []string{strconv.FormatBool(ok && g.Default)}
		},
		norm: boolNorm})
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

// orNull is a text that is null where it is empty.
func orNull[R, S any](name string, get func(*R) string, field func(*S) *string) attribute[R, S] {
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

// numberOrNull is a number that may be missing.
func numberOrNull[R, S any](name string, get func(*R) *int, field func(*S) **int) attribute[R, S] {
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

// ruleAttrs are what a rule of a group and a default rule have in common: what they match.
func ruleAttrs[R, S any](of func(*R) *model.SecurityRule, spec func(*S) *network.RuleSpec) []attribute[R, S] {
	text := func(name string, get func(*model.SecurityRule) string, field func(*network.RuleSpec) *string) attribute[R, S] {
		return orNull(name, func(r *R) string { return get(of(r)) }, func(s *S) *string { return field(spec(s)) })
	}
	number := func(name string, get func(*model.SecurityRule) *int, field func(*network.RuleSpec) **int) attribute[R, S] {
		return numberOrNull(name, func(r *R) *int { return get(of(r)) }, func(s *S) **int { return field(spec(s)) })
	}
	direction := text("direction", func(r *model.SecurityRule) string { return r.Direction }, func(s *network.RuleSpec) *string { return &s.Direction })
	direction.required = true
	direction.norm = strings.ToLower
	protocol := text("protocol", func(r *model.SecurityRule) string { return r.Protocol }, nil)
	protocol.set = func(s *S, raw json.RawMessage) (err error) {
		if isNull(raw) {
			return nil
		}
		if n, numeric := readInt("protocol", raw); numeric == nil { // a number, or a number as a text
			spec(s).Protocol = strconv.Itoa(n)
			return nil
		}
		spec(s).Protocol, err = readString("protocol", raw)
		return err
	}
	protocol.norm = strings.ToLower
	prefix := func(name string, post right, get func(*model.SecurityRule) netip.Prefix) attribute[R, S] {
		return attribute[R, S]{name: name, post: post,
			set: func(s *S, raw json.RawMessage) error {
				if isNull(raw) {
					return nil
				}
				text, err := readString(name, raw)
				if err != nil || text == "" {
					return err
				}
				spec(s).RemotePrefix, err = readPrefix(name, text)
				return err
			},
			emit: func(b []byte, _ *view, r *R) []byte { return appendPrefix(b, get(of(r))) },
			match: func(_ *view, r *R) []string {
				if p := get(of(r)); p.IsValid() {
					return []string{p.String()}
				}
				return nil
			}}
	}
	return []attribute[R, S]{
		direction, protocol,
		text("ethertype", func(r *model.SecurityRule) string { return r.EtherType }, func(s *network.RuleSpec) *string { return &s.EtherType }),
		number("port_range_min", func(r *model.SecurityRule) *int { return r.PortMin }, func(s *network.RuleSpec) **int { return &s.PortMin }),
		number("port_range_max", func(r *model.SecurityRule) *int { return r.PortMax }, func(s *network.RuleSpec) **int { return &s.PortMax }),
		prefix("remote_ip_prefix", everyone, func(r *model.SecurityRule) netip.Prefix { return r.RemoteGiven }),
		prefix("normalized_cidr", readOnly, func(r *model.SecurityRule) netip.Prefix { return r.RemoteGiven.Masked() }),
		text("remote_group_id", func(r *model.SecurityRule) string { return r.RemoteGroupID }, func(s *network.RuleSpec) *string { return &s.RemoteGroupID }),
		text("remote_address_group_id", func(r *model.SecurityRule) string { return r.AddressGroupID }, func(s *network.RuleSpec) *string { return &s.AddressGroupID }),
		textAttr("description", everyone, readOnly, func(r *R) string { return of(r).Description }, func(s *S) **string { return &spec(s).Description }),
	}
}

func (d *dialect) defaultRuleCollection() *collection[model.DefaultRule, network.DefaultRuleSpec] {
	type (
		R = model.DefaultRule
		S = network.DefaultRuleSpec
	)
	meta := func(r *R) *model.Meta { return &r.Meta }
	attrs := []attribute[R, S]{textAttr[R, S]("id", readOnly, readOnly, func(r *R) string { return r.ID }, nil)}
	attrs = append(attrs, ruleAttrs(func(r *R) *model.SecurityRule { return &r.SecurityRule }, func(s *S) *network.RuleSpec { return &s.RuleSpec })...)
	attrs = append(attrs,
		boolAttr("used_in_default_sg", everyone, readOnly, func(r *R) bool { return r.InDefault }, func(s *S) **bool { return &s.InDefault }),
		boolAttr("used_in_non_default_sg", everyone, readOnly, func(r *R) bool { return r.InOthers }, func(s *S) **bool { return &s.InOthers }),
	)
	return &collection[R, S]{
		path: "default-security-group-rules", single: "default_security_group_rule", plural: "default_security_group_rules", attrs: attrs, meta: meta,
		get: d.net.GetDefaultRule, sees: func(*view, *R) bool { return true },
		candidates: func(v *view, _ *query) iter.Seq[*R] {
			return func(yield func(*R) bool) {
				for _, r := range network.DefaultRules(v.r) {
					if !yield(r) {
						return
					}
				}
			}
		},
		create: d.net.CreateDefaultRule, remove: d.net.DeleteDefaultRule, writers: api.Admin,
	}
}
