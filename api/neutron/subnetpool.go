package neutron

import (
	"encoding/json"
	"iter"
	"net/http"
	"net/netip"
	"strconv"

	"yakumo/api"
	"yakumo/model"
	"yakumo/network"
	"yakumo/store"
)

func (d *dialect) poolCollection() *collection[model.SubnetPool, network.SubnetPoolSpec] {
	type (
		R = model.SubnetPool
		S = network.SubnetPoolSpec
	)
	meta := func(p *R) *model.Meta { return &p.Meta }
	attrs := metaAttrs(meta, func(s *S) **string { return &s.ProjectID })
	// length is a prefix length, which Neutron shows as a text.
	length := func(name string, get func(*R) int, field func(*S) **int) attribute[R, S] {
		a := intAttr(name, everyone, everyone, get, field)
		a.emit = func(b []byte, _ *view, p *R) []byte { return appendString(b, strconv.Itoa(get(p))) }
		return a
	}
	name := textAttr("name", everyone, everyone, func(p *R) string { return p.Name }, func(s *S) **string { return &s.Name })
	name.required = true
	attrs = append(attrs,
		name,
		textAttr("description", everyone, everyone, func(p *R) string { return p.Description }, func(s *S) **string { return &s.Description }),
		tagsAttr[R, S](meta),
		attribute[R, S]{name: "prefixes", post: everyone, put: everyone, required: true,
			set: func(s *S, raw json.RawMessage) error {
				list, err := readBlocks("prefixes", raw)
				s.Prefixes = &list
				return err
			},
			emit: func(b []byte, _ *view, p *R) []byte { return appendPrefixes(b, p.Prefixes) }},
		intAttr[R, S]("ip_version", readOnly, readOnly, func(p *R) int { return p.IPVersion }, nil),
		length("default_prefixlen", func(p *R) int { return p.DefaultBits }, func(s *S) **int { return &s.DefaultBits }),
		length("min_prefixlen", func(p *R) int { return p.MinBits }, func(s *S) **int { return &s.MinBits }),
		length("max_prefixlen", func(p *R) int { return p.MaxBits }, func(s *S) **int { return &s.MaxBits }),
		attribute[R, S]{name: "default_quota", post: everyone, put: everyone,
			set: func(s *S, raw json.RawMessage) error {
				var limit *int
				s.Quota = &limit
				if isNull(raw) {
					return nil
				}
				n, err := readInt("default_quota", raw)
				limit = &n
				return err
			},
			emit: func(b []byte, _ *view, p *R) []byte { return appendIntOrNull(b, p.Quota) },
			match: func(_ *view, p *R) []string {
				if p.Quota == nil {
					return nil
				}
				return []string{strconv.Itoa(*p.Quota)}
			}},
		attribute[R, S]{name: "address_scope_id", post: everyone, put: everyone,
			set: func(s *S, raw json.RawMessage) (err error) {
				id := ""
				s.ScopeID = &id
				if !isNull(raw) {
					id, err = readString("address_scope_id", raw)
				}
				return err
			},
			emit:  func(b []byte, _ *view, p *R) []byte { return appendStringOrNull(b, p.AddressScopeID) },
			match: func(_ *view, p *R) []string { return textValues(p.AddressScopeID) },
			order: func(p *R) string { return p.AddressScopeID }},
		boolAttr("is_default", adminOnly, adminOnly, func(p *R) bool { return p.IsDefault }, func(s *S) **bool { return &s.IsDefault }),
		postOnly(sharedAttr(adminOnly, func(p *R) model.Sharing { return p.Sharing }, func(s *S) **bool { return &s.Shared })),
	)
	return &collection[R, S]{
		path: "subnetpools", single: "subnetpool", plural: "subnetpools", attrs: attrs, tagged: true, meta: meta,
		get:  d.net.GetSubnetPool,
		sees: func(v *view, p *R) bool { return v.scope.Sees(p.ProjectID, p.Sharing) },
		candidates: func(v *view, q *query) iter.Seq[*R] {
			if ids := q.filters["address_scope_id"]; len(q.filters["id"]) == 0 && len(ids) > 0 && ids[0] != "" {
				return anyOf(store.SubnetPools, v, "scope", ids)
			}
			return narrowed(store.SubnetPools, v, q)
		},
		create: d.net.CreateSubnetPool, update: d.net.UpdateSubnetPool, remove: d.net.DeleteSubnetPool,
	}
}

// postOnly makes an attribute one that stays as it was made.
func postOnly[R, S any](a attribute[R, S]) attribute[R, S] {
	a.put = readOnly
	return a
}

func textValues(s string) []string {
	if s == "" {
		return nil
	}
	return []string{s}
}

// readBlocks reads a list of blocks without bits outside their masks.
func readBlocks(name string, raw json.RawMessage) ([]netip.Prefix, error) {
	list, err := readPrefixes(name, raw)
	if err != nil {
		return nil, err
	}
	for _, p := range list {
		if p.Masked() != p {
			return nil, badInput(name, "'%s' isn't a recognized IP subnet cidr, '%s' is recommended.", p, p.Masked())
		}
	}
	return list, nil
}

// poolRoutes change what a pool holds.
func (d *dialect) poolRoutes() []api.Route {
	// route serves one change, whose body's member give reads.
	route := func(name string, change func(c *api.Context, body map[string]json.RawMessage) (func(tx *store.Tx) (*model.SubnetPool, error), error), whole bool) api.Route {
		return api.Route{Method: http.MethodPut, Pattern: "/v2.0/subnetpools/{id}/" + name, Access: api.Member, Handle: func(c *api.Context) error {
			var body map[string]json.RawMessage
			if err := c.Decode(&body); err != nil {
				return err
			}
			f, err := change(c, body)
			if err != nil {
				return err
			}
			var p *model.SubnetPool
			if _, err := c.Store().Update(c.R.Context(), func(tx *store.Tx) (err error) {
				p, err = f(tx)
				return err
			}); err != nil {
				return err
			}
			if whole {
				return d.pools.answer(c, http.StatusOK, []*model.SubnetPool{p}, false)
			}
			return c.JSON(http.StatusOK, map[string]any{"prefixes": texts(p.Prefixes)})
		}}
	}
	prefixes := func(name string, f func(*store.Tx, network.Scope, string, []netip.Prefix) (*model.SubnetPool, error)) api.Route {
		return route(name, func(c *api.Context, body map[string]json.RawMessage) (func(*store.Tx) (*model.SubnetPool, error), error) {
			raw, ok := body["prefixes"]
			if !ok {
				return nil, badRequest("Unable to find 'prefixes' in request body")
			}
			list, err := readBlocks("prefixes", raw)
			return func(tx *store.Tx) (*model.SubnetPool, error) { return f(tx, scope(c), c.Param("id"), list) }, err
		}, false)
	}
	return []api.Route{
		prefixes("add_prefixes", d.net.AddPrefixes), prefixes("remove_prefixes", d.net.RemovePrefixes),
		route("onboard_network_subnets", func(c *api.Context, body map[string]json.RawMessage) (func(*store.Tx) (*model.SubnetPool, error), error) {
			raw, ok := body["network_id"]
			if !ok {
				return nil, badRequest("Unable to find 'network_id' in request body")
			}
			id, err := readString("network_id", raw)
			return func(tx *store.Tx) (*model.SubnetPool, error) {
				return d.net.Onboard(tx, scope(c), c.Param("id"), id)
			}, err
		}, true),
	}
}

func (d *dialect) addressScopeCollection() *collection[model.AddressScope, network.AddressScopeSpec] {
	type (
		R = model.AddressScope
		S = network.AddressScopeSpec
	)
	meta := func(a *R) *model.Meta { return &a.Meta }
	attrs := metaAttrs(meta, func(s *S) **string { return &s.ProjectID })
	name := textAttr("name", everyone, everyone, func(a *R) string { return a.Name }, func(s *S) **string { return &s.Name })
	name.required = true
	attrs = append(attrs,
		name,
		attribute[R, S]{name: "ip_version", post: everyone, required: true,
			set: func(s *S, raw json.RawMessage) (err error) {
				s.IPVersion, err = readVersion("ip_version", raw)
				return err
			},
			emit:  func(b []byte, _ *view, a *R) []byte { return strconv.AppendInt(b, int64(a.IPVersion), 10) },
			match: func(_ *view, a *R) []string { return []string{strconv.Itoa(a.IPVersion)} },
			order: func(a *R) string { return sortable(a.IPVersion) }},
		sharedAttr(adminOnly, func(a *R) model.Sharing { return a.Sharing }, func(s *S) **bool { return &s.Shared }),
	)
	return &collection[R, S]{
		path: "address-scopes", single: "address_scope", plural: "address_scopes", attrs: attrs, meta: meta,
		get:        d.net.GetAddressScope,
		sees:       func(v *view, a *R) bool { return v.scope.Sees(a.ProjectID, a.Sharing) },
		candidates: func(v *view, q *query) iter.Seq[*R] { return narrowed(store.AddressScopes, v, q) },
		create:     d.net.CreateAddressScope, update: d.net.UpdateAddressScope, remove: d.net.DeleteAddressScope,
	}
}

// readVersion reads an IP version.
func readVersion(name string, raw json.RawMessage) (int, error) {
	n, err := readInt(name, raw)
	if err == nil && n != 4 && n != 6 {
		err = badInput(name, "'%d' is not in [4, 6].", n)
	}
	return n, err
}

// poolAttrs are what a request says of the pool that a new subnet is cut from.
func poolAttrs() []attribute[model.Subnet, network.SubnetSpec] {
	type (
		R = model.Subnet
		S = network.SubnetSpec
	)
	return []attribute[R, S]{
		{name: "subnetpool_id", post: everyone,
			set: func(s *S, raw json.RawMessage) (err error) {
				if !isNull(raw) {
					s.PoolID, err = readString("subnetpool_id", raw)
				}
				return err
			},
			emit:  func(b []byte, _ *view, r *R) []byte { return appendStringOrNull(b, r.PoolID) },
			match: func(_ *view, r *R) []string { return textValues(r.PoolID) },
			order: func(r *R) string { return r.PoolID }},
		{name: "use_default_subnetpool", post: everyone, set: func(s *S, raw json.RawMessage) (err error) {
			if !isNull(raw) {
				s.DefaultPool, err = readBool("use_default_subnetpool", raw)
			}
			return err
		}},
		{name: "prefixlen", post: everyone, set: func(s *S, raw json.RawMessage) error {
			if isNull(raw) {
				return nil
			}
			n, err := readInt("prefixlen", raw)
			s.PrefixBits = &n
			if err == nil && (n < 0 || n > 128) {
				err = badInput("prefixlen", "'%d' is not from 0 to 128.", n)
			}
			return err
		}},
	}
}

// addressScopeAttr shows the address scope of the network's subnets of the version.
func addressScopeAttr(name string, version int) attribute[model.Network, network.NetworkSpec] {
	return attribute[model.Network, network.NetworkSpec]{name: name,
		emit: func(b []byte, v *view, w *model.Network) []byte {
			return appendStringOrNull(b, network.AddressScopeOf(v.r, w.ID, version))
		}}
}
