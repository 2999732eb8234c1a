package neutron

import (
	"encoding/json"
	"iter"
	"slices"
	"strconv"
	"strings"

	"yakumo/model"
	"yakumo/network"
	"yakumo/store"
)

func (d *dialect) networkCollection() *collection[model.Network, network.NetworkSpec] {
	type (
		R = model.Network
		S = network.NetworkSpec
	)
	meta := func(w *R) *model.Meta { return &w.Meta }
	attrs := metaAttrs(meta, func(s *S) **string { return &s.ProjectID })
	attrs = append(attrs,
		textAttr("name", everyone, everyone, func(w *R) string { return w.Name }, func(s *S) **string { return &s.Name }),
		textAttr("description", everyone, everyone, func(w *R) string { return w.Description }, func(s *S) **string { return &s.Description }),
		tagsAttr[R, S](meta),
		boolAttr("admin_state_up", everyone, everyone, func(w *R) bool { return w.AdminStateUp }, func(s *S) **bool { return &s.AdminStateUp }),
		textAttr[R, S]("status", readOnly, readOnly, func(w *R) string { return "ACTIVE" }, nil),
		attribute[R, S]{name: "subnets", emit: func(b []byte, v *view, w *R) []byte { return appendStrings(b, subnetsOf(v, w)) },
			match: subnetsOf},
		sharedAttr(adminOnly, func(w *R) model.Sharing { return w.Sharing }, func(s *S) **bool { return &s.Shared }),
		boolAttr("router:external", adminOnly, adminOnly, func(w *R) bool { return w.External }, func(s *S) **bool { return &s.External }),
		boolAttr("is_default", adminOnly, adminOnly, func(w *R) bool { return w.IsDefault }, func(s *S) **bool { return &s.IsDefault }),
		boolAttr("port_security_enabled", everyone, everyone, func(w *R) bool { return w.PortSecurity }, func(s *S) **bool { return &s.PortSecurity }),
		intAttr("mtu", everyone, everyone, func(w *R) int { return w.MTU }, func(s *S) **int { return &s.MTU }),
		textAttr("dns_domain", everyone, everyone, func(w *R) string { return w.DNSDomain }, func(s *S) **string { return &s.DNSDomain }),
		attribute[R, S]{name: "availability_zone_hints", post: everyone,
			set: func(s *S, raw json.RawMessage) error {
				hints, err := readStrings("availability_zone_hints", raw)
				s.ZoneHints = &hints
				return err
			},
			emit: func(b []byte, _ *view, w *R) []byte { return appendStrings(b, w.AvailabilityZone) }},
		// A network is wherever one of its ports is: in every zone.
		attribute[R, S]{name: "availability_zones", emit: func(b []byte, v *view, _ *R) []byte { return appendStrings(b, zonesOf(v)) }},
	)
	attrs = append(attrs, addressScopeAttr("ipv4_address_scope", 4), addressScopeAttr("ipv6_address_scope", 6))
	attrs = append(attrs, qosAttr(func(w *R) string { return w.QoSPolicyID }, func(s *S) **string { return &s.QoSPolicyID }))
	attrs = append(attrs, segmentAttrs()...)
	return &collection[R, S]{
		path: "networks", single: "network", plural: "networks", attrs: attrs, tagged: true, meta: meta,
		get:  d.net.GetNetwork,
		sees: func(v *view, w *R) bool { return v.scope.SeesNetwork(w) },
		candidates: func(v *view, q *query) iter.Seq[*R] {
			if ids := q.filters["id"]; len(ids) > 0 {
				return byID(store.Networks, v, ids)
			}
			if name, ok := q.one("name"); ok {
				return store.Networks.List(v.r, "name", name)
			}
			q.ordered = true
			if p, ok := q.project(); ok {
				return store.Networks.List(v.r, "project", p)
			}
			if v.scope.Admin {
				return store.Networks.All(v.r)
			}
			return merge(meta, store.Networks.List(v.r, "project", v.scope.ProjectID), sharedNetworks(v))
		},
		create: d.net.CreateNetwork, update: d.net.UpdateNetwork, remove: d.net.DeleteNetwork,
	}
}

// sharedNetworks gives the networks that policies let the caller's project see; one may come twice.
func sharedNetworks(v *view) iter.Seq[*model.Network] {
	return anyOf(store.Networks, v, "shared", []string{v.scope.ProjectID, model.Everybody})
}

// subnetsOf gives the ids of the network's subnets.
func subnetsOf(v *view, w *model.Network) []string {
	out := []string{}
	for s := range store.Subnets.List(v.r, "network", w.ID) {
		out = append(out, s.ID)
	}
	return out
}

func zones(r store.Reader) []string {
	out := []string{}
	for z := range network.Zones(r) {
		out = append(out, z)
	}
	slices.Sort(out)
	return out
}

// zonesOf gives the zones, which it looks for once in a view: a list shows them in each row.
func zonesOf(v *view) []string {
	if v.zones == nil {
		v.zones = zones(v.r)
	}
	return v.zones
}

// byID gives the rows with the ids.
func byID[R any](t *store.Table[R], v *view, ids []string) iter.Seq[*R] {
	return func(yield func(*R) bool) {
		for _, id := range ids {
			if r, ok := t.Get(v.r, id); ok && !yield(r) {
				return
			}
		}
	}
}

func concat[R any](seqs ...iter.Seq[*R]) iter.Seq[*R] {
	return func(yield func(*R) bool) {
		for _, s := range seqs {
			for r := range s {
				if !yield(r) {
					return
				}
			}
		}
	}
}

// merge gives the rows of a sequence in the order of ids and those of another in whatever
// order, which should be the shorter one: all in the order of ids, none twice.
func merge[R any](meta func(*R) *model.Meta, long, short iter.Seq[*R]) iter.Seq[*R] {
	byID := func(a, b *R) int { return strings.Compare(meta(a).ID, meta(b).ID) }
	return func(yield func(*R) bool) {
		rest := slices.SortedFunc(short, byID)
		rest = slices.CompactFunc(rest, func(a, b *R) bool { return byID(a, b) == 0 })
		for r := range long {
			for len(rest) > 0 && byID(rest[0], r) <= 0 {
				if byID(rest[0], r) < 0 && !yield(rest[0]) {
					return
				}
				rest = rest[1:]
			}
			if !yield(r) {
				return
			}
		}
		for _, r := range rest {
			if !yield(r) {
				return
			}
		}
	}
}

// anyOf gives the rows that the index finds under one of the values.
func anyOf[R any](t *store.Table[R], v *view, index string, values []string) iter.Seq[*R] {
	return func(yield func(*R) bool) {
		for _, value := range values {
			for r := range t.List(v.r, index, value) {
				if !yield(r) {
					return
				}
			}
		}
	}
}

func (d *dialect) subnetCollection() *collection[model.Subnet, network.SubnetSpec] {
	type (
		R = model.Subnet
		S = network.SubnetSpec
	)
	meta := func(s *R) *model.Meta { return &s.Meta }
	attrs := metaAttrs(meta, func(s *S) **string { return &s.ProjectID })
	attrs = append(attrs,
		textAttr("name", everyone, everyone, func(r *R) string { return r.Name }, func(s *S) **string { return &s.Name }),
		textAttr("description", everyone, everyone, func(r *R) string { return r.Description }, func(s *S) **string { return &s.Description }),
		tagsAttr[R, S](meta),
		attribute[R, S]{name: "network_id", post: everyone, required: true,
			set: func(s *S, raw json.RawMessage) (err error) {
				s.NetworkID, err = readString("network_id", raw)
				return err
			},
			emit:  func(b []byte, _ *view, r *R) []byte { return appendString(b, r.NetworkID) },
			match: func(_ *view, r *R) []string { return []string{r.NetworkID} },
			order: func(r *R) string { return r.NetworkID }},
		attribute[R, S]{name: "ip_version", post: everyone,
			set: func(s *S, raw json.RawMessage) (err error) {
				s.IPVersion, err = readVersion("ip_version", raw)
				return err
			},
			emit:  func(b []byte, _ *view, r *R) []byte { return strconv.AppendInt(b, int64(r.IPVersion), 10) },
			match: func(_ *view, r *R) []string { return []string{strconv.Itoa(r.IPVersion)} }},
		attribute[R, S]{name: "cidr", post: everyone, set: setCIDR,
			emit:  func(b []byte, _ *view, r *R) []byte { return appendPrefix(b, r.CIDR) },
			match: func(_ *view, r *R) []string { return []string{r.CIDR.String()} },
			order: func(r *R) string { return addrOrder(r.CIDR.Addr()) }},
		attribute[R, S]{name: "gateway_ip", post: everyone, put: everyone, set: setGateway,
			emit:  func(b []byte, _ *view, r *R) []byte { return appendAddr(b, r.Gateway) },
			match: func(_ *view, r *R) []string { return addrValues(r.Gateway) },
			order: func(r *R) string { return addrOrder(r.Gateway) }},
		attribute[R, S]{name: "allocation_pools", post: everyone, put: everyone, set: setPools, emit: emitPools},
		attribute[R, S]{name: "dns_nameservers", post: everyone, put: everyone, set: setDNS,
			emit: func(b []byte, _ *view, r *R) []byte {
				b = append(b, '[')
				for i, a := range r.DNS {
					if i > 0 {
						b = append(b, ',')
					}
					b = appendAddr(b, a)
				}
				return append(b, ']')
			}},
		attribute[R, S]{name: "host_routes", post: everyone, put: everyone, set: setRoutes, emit: emitRoutes},
		boolAttr("enable_dhcp", everyone, everyone, func(r *R) bool { return r.DHCP }, func(s *S) **bool { return &s.DHCP }),
		attribute[R, S]{name: "service_types", post: everyone, put: everyone,
			set: func(s *S, raw json.RawMessage) error {
				types, err := readStrings("service_types", raw)
				s.ServiceTypes = &types
				return err
			},
			emit: func(b []byte, _ *view, r *R) []byte { return appendStrings(b, r.ServiceType) }},
		modeAttr("ipv6_ra_mode", func(r *R) string { return r.IPv6RAMode }, func(s *S) **string { return &s.RAMode }),
		modeAttr("ipv6_address_mode", func(r *R) string { return r.IPv6Address }, func(s *S) **string { return &s.AddressMode }),
	)
	attrs = append(attrs, poolAttrs()...)
	return &collection[R, S]{
		path: "subnets", single: "subnet", plural: "subnets", attrs: attrs, tagged: true, meta: meta,
		get: d.net.GetSubnet,
		sees: func(v *view, r *R) bool {
			if v.scope.Owns(r.ProjectID) {
				return true
			}
			w, ok := store.Networks.Get(v.r, r.NetworkID)
			return ok && v.scope.SeesSubnets(w)
		},
		candidates: func(v *view, q *query) iter.Seq[*R] {
			if ids := q.filters["id"]; len(ids) > 0 {
				return byID(store.Subnets, v, ids)
			}
			if ids := q.filters["network_id"]; len(ids) > 0 {
				return anyOf(store.Subnets, v, "network", ids)
			}
			if id, ok := q.one("subnetpool_id"); ok {
				return store.Subnets.Prefix(v.r, "pool", id+",")
			}
			if p, ok := q.project(); ok {
				return store.Subnets.List(v.r, "project", p)
			}
			if v.scope.Admin {
				return store.Subnets.All(v.r)
			}
			return concat(store.Subnets.List(v.r, "project", v.scope.ProjectID), func(yield func(*R) bool) {
				for w := range sharedNetworks(v) {
					for s := range store.Subnets.List(v.r, "network", w.ID) {
						if !yield(s) {
							return
						}
					}
				}
				// A subnet that an administrator made for another project in one's own network.
				for w := range store.Networks.List(v.r, "project", v.scope.ProjectID) {
					for s := range store.Subnets.List(v.r, "network", w.ID) {
						if s.ProjectID != w.ProjectID && !yield(s) {
							return
						}
					}
				}
			})
		},
		create: d.net.CreateSubnet, update: d.net.UpdateSubnet, remove: d.net.DeleteSubnet, clear: d.net.Unform,
	}
}
