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

// optionalAddr reads an address; null and an empty text are none.
func optionalAddr(name string, raw json.RawMessage) (netip.Addr, error) {
	if isNull(raw) {
		return netip.Addr{}, nil
	}
	text, err := readString(name, raw)
	if err != nil || text == "" {
		return netip.Addr{}, err
	}
	return readAddr(name, text)
}

// optionalText reads a text; null is an empty one.
func optionalText(name string, raw json.RawMessage) (string, error) {
	if isNull(raw) {
		return "", nil
	}
	return readString(name, raw)
}

func (d *dialect) floatingCollection() *collection[model.FloatingIP, network.FloatingIPSpec] {
	type (
		R = model.FloatingIP
		S = network.FloatingIPSpec
	)
	meta := func(f *R) *model.Meta { return &f.Meta }
	attrs := metaAttrs(meta, func(s *S) **string { return &s.ProjectID })
	id := func(name string, post, put right, get func(*R) string, field func(*S) **string) attribute[R, S] {
		a := textAttr(name, post, put, get, field)
		a.emit = func(b []byte, _ *view, f *R) []byte { return appendStringOrNull(b, get(f)) }
		if field != nil {
			a.set = func(s *S, raw json.RawMessage) error {
				v, err := optionalText(name, raw)
				*field(s) = &v
				return err
			}
		}
		return a
	}
	addr := func(name string, post, put right, get func(*R) netip.Addr, field func(*S) **netip.Addr) attribute[R, S] {
		return attribute[R, S]{name: name, post: post, put: put,
			set: func(s *S, raw json.RawMessage) error {
				a, err := optionalAddr(name, raw)
				*field(s) = &a
				return err
			},
			emit:  func(b []byte, _ *view, f *R) []byte { return appendAddr(b, get(f)) },
			match: func(_ *view, f *R) []string { return addrValues(get(f)) },
			norm:  addrNorm,
			order: func(f *R) string { return addrOrder(get(f)) }}
	}
	subnet := id("subnet_id", everyone, readOnly, func(f *R) string { return f.SubnetID }, func(s *S) **string { return &s.SubnetID })
	subnet.emit, subnet.match, subnet.order = nil, nil, nil // asked for, not shown
	attrs = append(attrs,
		textAttr("description", everyone, everyone, func(f *R) string { return f.Description }, func(s *S) **string { return &s.Description }),
		tagsAttr[R, S](meta),
		attribute[R, S]{name: "floating_network_id", post: everyone, required: true,
			set: func(s *S, raw json.RawMessage) (err error) {
				s.NetworkID, err = readString("floating_network_id", raw)
				return err
			},
			emit:  func(b []byte, _ *view, f *R) []byte { return appendString(b, f.NetworkID) },
			match: func(_ *view, f *R) []string { return []string{f.NetworkID} },
			order: func(f *R) string { return f.NetworkID }},
		addr("floating_ip_address", adminOnly, readOnly, func(f *R) netip.Addr { return f.Address }, func(s *S) **netip.Addr { return &s.Address }),
		subnet,
		id("port_id", everyone, everyone, func(f *R) string { return f.PortID }, func(s *S) **string { return &s.PortID }),
		addr("fixed_ip_address", everyone, everyone, func(f *R) netip.Addr { return f.FixedAddress }, func(s *S) **netip.Addr { return &s.FixedAddress }),
		id("router_id", readOnly, readOnly, func(f *R) string { return f.RouterID }, nil),
		textAttr[R, S]("status", readOnly, readOnly, func(f *R) string { return f.Status }, nil),
		textAttr("dns_name", everyone, readOnly, func(f *R) string { return f.DNSName }, func(s *S) **string { return &s.DNSName }),
		textAttr("dns_domain", everyone, readOnly, func(f *R) string { return f.DNSDomain }, func(s *S) **string { return &s.DNSDomain }),
		qosAttr(func(f *R) string { return f.QoSPolicyID }, func(s *S) **string { return &s.QoSPolicyID }),
		attribute[R, S]{name: "port_details", emit: emitPortDetails},
		attribute[R, S]{name: "port_forwardings", emit: d.emitForwardings},
	)
	return &collection[R, S]{
		path: "floatingips", single: "floatingip", plural: "floatingips", attrs: attrs, tagged: true, meta: meta,
		get:  d.net.GetFloatingIP,
		sees: func(v *view, f *R) bool { return v.scope.Owns(f.ProjectID) },
		candidates: func(v *view, q *query) iter.Seq[*R] {
			if ids := q.filters["id"]; len(ids) > 0 {
				return byID(store.FloatingIPs, v, ids)
			}
			for _, f := range []struct{ filter, index string }{{"floating_ip_address", "address"}, {"port_id", "port"}, {"router_id", "router"}} {
				if value, ok := q.one(f.filter); ok {
					return store.FloatingIPs.List(v.r, f.index, value)
				}
			}
			if p, ok := q.project(); ok {
				return store.FloatingIPs.List(v.r, "project", p)
			}
			if v.scope.Admin {
				return store.FloatingIPs.All(v.r)
			}
			return store.FloatingIPs.List(v.r, "project", v.scope.ProjectID)
		},
		create: d.net.CreateFloatingIP, update: d.net.UpdateFloatingIP, remove: d.net.DeleteFloatingIP,
	}
}

// addrNorm makes an address of a filter as it is written here.
func addrNorm(s string) string {
	if a, err := netip.ParseAddr(s); err == nil {
		return a.String()
	}
	return s
}

func emitPortDetails(b []byte, v *view, f *model.FloatingIP) []byte {
	p, ok := store.Ports.Get(v.r, f.PortID)
	if !ok {
		return append(b, "null"...)
	}
	for i, m := range []struct{ name, value string }{
		{"status", portState(p)}, {"name", p.Name}, {"network_id", p.NetworkID}, {"mac_address", p.MAC}, {"device_owner", p.DeviceOwner}, {"device_id", p.DeviceID},
	} {
		if i == 0 {
			b = append(b, '{')
		} else {
			b = append(b, ',')
		}
		b = appendString(b, m.name)
		b = append(b, ':')
		b = appendString(b, m.value)
	}
	b = append(b, `,"admin_state_up":`...)
	return append(strconv.AppendBool(b, p.AdminStateUp), '}')
}

// emitForwardings shows what is forwarded.
func (d *dialect) emitForwardings(b []byte, v *view, f *model.FloatingIP) []byte {
	b = append(b, '[')
	var x *collection[model.PortForwarding, network.ForwardingSpec]
	for r := range store.PortForwardings.List(v.r, "floating", f.ID) {
		if x == nil { // most floating IPs have none
			x = d.forwardingCollection(f.ID)
		} else {
			b = append(b, ',')
		}
		b = x.emit(b, v, r, nil)
	}
	return append(b, ']')
}

// listPools shows the subnets that floating IPs can be of.
func (d *dialect) listPools(c *api.Context) error {
	type pool struct {
		SubnetID   string `json:"subnet_id"`
		SubnetName string `json:"subnet_name"`
		TenantID   string `json:"tenant_id"`
		ProjectID  string `json:"project_id"`
		NetworkID  string `json:"network_id"`
		CIDR       string `json:"cidr"`
	}
	q, err := parseQuery(c.Query())
	if err != nil {
		return err
	}
	if err := q.only("subnet_id", "subnet_name", "tenant_id", "project_id", "network_id", "cidr"); err != nil {
		return err
	}
	v := &view{r: c.Snapshot(), scope: scope(c)}
	out := []pool{}
	for w := range d.networks.candidates(v, &query{}) {
		if !w.External || !d.networks.sees(v, w) {
			continue
		}
		for s := range store.Subnets.List(v.r, "network", w.ID) {
			p := pool{s.ID, s.Name, s.ProjectID, s.ProjectID, s.NetworkID, s.CIDR.String()}
			have := map[string]string{"subnet_id": p.SubnetID, "subnet_name": p.SubnetName, "tenant_id": p.TenantID, "project_id": p.ProjectID, "network_id": p.NetworkID, "cidr": p.CIDR}
			if s.IPVersion == 4 && q.finds(have) {
				out = append(out, p)
			}
		}
	}
	page, _, err := api.Cut(out, q.page, func(p pool) string { return p.SubnetID })
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, map[string]any{"floatingip_pools": page})
}
