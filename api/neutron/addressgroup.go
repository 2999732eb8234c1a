package neutron

import (
	"encoding/json"
	"iter"
	"net/http"
	"net/netip"

	"yakumo/api"
	"yakumo/model"
	"yakumo/network"
	"yakumo/store"
)

func (d *dialect) addressGroupCollection() *collection[model.AddressGroup, network.AddressGroupSpec] {
	type (
		R = model.AddressGroup
		S = network.AddressGroupSpec
	)
	meta := func(g *R) *model.Meta { return &g.Meta }
	attrs := metaAttrs(meta, func(s *S) **string { return &s.ProjectID })
	attrs = append(attrs,
		textAttr("name", everyone, everyone, func(g *R) string { return g.Name }, func(s *S) **string { return &s.Name }),
		textAttr("description", everyone, everyone, func(g *R) string { return g.Description }, func(s *S) **string { return &s.Description }),
		sharedAttr[R, S](readOnly, func(g *R) model.Sharing { return g.Sharing }, nil),
		attribute[R, S]{name: "addresses", post: everyone,
			set: func(s *S, raw json.RawMessage) (err error) {
				s.Addresses, err = readPrefixes("addresses", raw)
				return err
			},
			emit:  func(b []byte, _ *view, g *R) []byte { return appendPrefixes(b, g.Addresses) },
			match: func(_ *view, g *R) []string { return texts(g.Addresses) }},
	)
	return &collection[R, S]{
		path: "address-groups", single: "address_group", plural: "address_groups", attrs: attrs, meta: meta,
		get:        d.net.GetAddressGroup,
		sees:       func(v *view, g *R) bool { return v.scope.Sees(g.ProjectID, g.Sharing) },
		candidates: func(v *view, q *query) iter.Seq[*R] { return narrowed(store.AddressGroups, v, q) },
		create:     d.net.CreateAddressGroup, update: d.net.UpdateAddressGroup, remove: d.net.DeleteAddressGroup,
	}
}

// addressRoutes change what an address group holds.
func (d *dialect) addressRoutes() []api.Route {
	change := func(name string, f func(*store.Tx, network.Scope, string, []netip.Prefix) (*model.AddressGroup, error)) api.Route {
		return api.Route{Method: http.MethodPut, Pattern: "/v2.0/address-groups/{id}/" + name, Access: api.Member, Handle: func(c *api.Context) error {
			var body map[string]json.RawMessage
			if err := c.Decode(&body); err != nil {
				return err
			}
			if inner, ok := body["address_group"]; ok { // some clients wrap it
				body = nil
				if err := json.Unmarshal(inner, &body); err != nil {
					return badRequest("Invalid input for address_group. Reason: '%s' is not an object.", shown(inner))
				}
			}
			raw, ok := body["addresses"]
			if !ok {
				return badRequest("Unable to find 'addresses' in request body")
			}
			list, err := readPrefixes("addresses", raw)
			if err != nil {
				return err
			}
			var g *model.AddressGroup
			if _, err := c.Store().Update(c.R.Context(), func(tx *store.Tx) (err error) {
				g, err = f(tx, scope(c), c.Param("id"), list)
				return err
			}); err != nil {
				return err
			}
			return d.addressGroups.answer(c, http.StatusOK, []*model.AddressGroup{g}, false)
		}}
	}
	return []api.Route{change("add_addresses", d.net.AddAddresses), change("remove_addresses", d.net.RemoveAddresses)}
}

// readPrefixes reads a list of prefixes and of single addresses; null: none.
func readPrefixes(name string, raw json.RawMessage) ([]netip.Prefix, error) {
	list, err := readStrings(name, raw)
	if err != nil {
		return nil, err
	}
	out := make([]netip.Prefix, 0, len(list))
	for _, text := range list {
		p, err := readPrefix(name, text)
		if err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	return out, nil
}

func texts(list []netip.Prefix) []string {
	out := make([]string, 0, len(list))
	for _, p := range list {
		out = append(out, p.String())
	}
	return out
}

func appendPrefixes(b []byte, list []netip.Prefix) []byte {
	b = append(b, '[')
	for i, p := range list {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendPrefix(b, p)
	}
	return append(b, ']')
}

// narrowed gives what a list of a shareable kind can find: by ids, by a project, or what the
// caller sees.
func narrowed[R any](t *store.Table[R], v *view, q *query) iter.Seq[*R] {
	if ids := q.filters["id"]; len(ids) > 0 {
		return byID(t, v, ids)
	}
	if p, ok := q.project(); ok {
		return t.List(v.r, "project", p)
	}
	if v.scope.Admin {
		return t.All(v.r)
	}
	return visible(t, v)
}
