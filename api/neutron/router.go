package neutron

import (
	"encoding/json"
	"iter"
	"net/http"
	"slices"

	"yakumo/api"
	"yakumo/model"
	"yakumo/network"
	"yakumo/store"
)

func (d *dialect) routerCollection() *collection[model.Router, network.RouterSpec] {
	type (
		R = model.Router
		S = network.RouterSpec
	)
	meta := func(r *R) *model.Meta { return &r.Meta }
	attrs := metaAttrs(meta, func(s *S) **string { return &s.ProjectID })
	distributed := boolAttr("distributed", adminOnly, adminOnly, func(r *R) bool { return r.Distributed }, func(s *S) **bool { return &s.Distributed })
	distributed.hidden = true
	ha := boolAttr("ha", adminOnly, adminOnly, func(r *R) bool { return r.HA }, func(s *S) **bool { return &s.HA })
	ha.hidden = true
	attrs = append(attrs,
		textAttr("name", everyone, everyone, func(r *R) string { return r.Name }, func(s *S) **string { return &s.Name }),
		textAttr("description", everyone, everyone, func(r *R) string { return r.Description }, func(s *S) **string { return &s.Description }),
		tagsAttr[R, S](meta),
		boolAttr("admin_state_up", everyone, everyone, func(r *R) bool { return r.AdminStateUp }, func(s *S) **bool { return &s.AdminStateUp }),
		textAttr[R, S]("status", readOnly, readOnly, func(*R) string { return "ACTIVE" }, nil),
		attribute[R, S]{name: "external_gateway_info", post: everyone, put: everyone, set: setGatewayInfo, emit: emitGatewayInfo},
		attribute[R, S]{name: "routes", put: everyone,
			set: func(s *S, raw json.RawMessage) error {
				routes, err := readRoutes("routes", raw)
				s.Routes = &routes
				return err
			},
			emit: func(b []byte, _ *view, r *R) []byte { return appendRoutes(b, r.Routes) }},
		distributed, ha,
		attribute[R, S]{name: "availability_zone_hints", post: everyone,
			set: func(s *S, raw json.RawMessage) error {
				hints, err := readStrings("availability_zone_hints", raw)
				s.ZoneHints = &hints
				return err
			},
			emit: func(b []byte, _ *view, r *R) []byte { return appendStrings(b, r.ZoneHints) }},
		// A router is wherever a sender is; what has a zone is its gateway.
		attribute[R, S]{name: "availability_zones", emit: func(b []byte, v *view, r *R) []byte { return appendStrings(b, gatewayZones(v, r)) }},
		nullAttr[R, S]("flavor_id"),
	)
	return &collection[R, S]{
		path: "routers", single: "router", plural: "routers", attrs: attrs, tagged: true, meta: meta,
		get:  d.net.GetRouter,
		sees: func(v *view, r *R) bool { return v.scope.Owns(r.ProjectID) },
		candidates: func(v *view, q *query) iter.Seq[*R] {
			if ids := q.filters["id"]; len(ids) > 0 {
				return byID(store.Routers, v, ids)
			}
			if name, ok := q.one("name"); ok {
				return store.Routers.List(v.r, "name", name)
			}
			if p, ok := q.project(); ok {
				return store.Routers.List(v.r, "project", p)
			}
			if v.scope.Admin {
				return store.Routers.All(v.r)
			}
			return store.Routers.List(v.r, "project", v.scope.ProjectID)
		},
		create: d.net.CreateRouter, update: d.net.UpdateRouter, remove: d.net.DeleteRouter,
	}
}

// setGatewayInfo: null, {} and a null network take the gateway away.
func setGatewayInfo(s *network.RouterSpec, raw json.RawMessage) error {
	const name = "external_gateway_info"
	s.Gateway = &network.GatewaySpec{}
	if isNull(raw) {
		return nil
	}
	var o map[string]json.RawMessage
	if err := json.Unmarshal(raw, &o); err != nil {
		return badInput(name, "'%s' is not an object.", shown(raw))
	}
	keys := make([]string, 0, len(o))
	for k := range o {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for _, k := range keys {
		v := o[k]
		switch k {
		case "network_id":
			if isNull(v) {
				continue
			}
			id, err := readString(name, v)
			if err != nil {
				return err
			}
			if id == "" {
				return badInput(name, "'%s' is not a valid UUID.", shown(v))
			}
			s.Gateway.NetworkID = id
		case "enable_snat":
			snat, err := readBool(name, v)
			if err != nil {
				return err
			}
			s.Gateway.SNAT = &snat
		case "external_fixed_ips":
			if isNull(v) {
				continue
			}
			ips, err := readAddresses(name, v)
			if err != nil {
				return err
			}
			s.Gateway.FixedIPs = &ips
		case "qos_policy_id":
			policy := ""
			if !isNull(v) {
				var err error
				if policy, err = readString(name, v); err != nil {
					return err
				}
			}
			s.Gateway.QoSPolicyID = &policy
		default:
			return badInput(name, "the key '%s' is none of network_id, enable_snat, external_fixed_ips, qos_policy_id.", shown(json.RawMessage(k)))
		}
	}
	if len(o) > 0 && o["network_id"] == nil {
		return badInput(name, "network_id is missing.")
	}
	return nil
}

func emitGatewayInfo(b []byte, _ *view, r *model.Router) []byte {
	g := r.Gateway
	if g == nil {
		return append(b, "null"...)
	}
	b = append(b, `{"network_id":`...)
	b = appendString(b, g.NetworkID)
	b = append(b, `,"external_fixed_ips":`...)
	b = appendFixedIPs(b, g.FixedIPs)
	b = append(b, `,"qos_policy_id":`...)
	b = appendStringOrNull(b, g.QoSPolicyID)
	if g.SNAT {
		return append(b, `,"enable_snat":true}`...)
	}
	return append(b, `,"enable_snat":false}`...)
}

func gatewayZones(v *view, r *model.Router) []string {
	out := []string{}
	for _, id := range r.Status.GatewayHosts {
		if h, ok := store.Hosts.Get(v.r, id); ok && !slices.Contains(out, h.Zone) {
			out = append(out, h.Zone)
		}
	}
	slices.Sort(out)
	return out
}

// routerRoutes are what is done with a router besides the usual.
func (d *dialect) routerRoutes() []api.Route {
	put := func(action string, h api.Handler) api.Route {
		return api.Route{Method: http.MethodPut, Pattern: "/v2.0/routers/{id}/" + action, Access: api.Member, Handle: h}
	}
	return []api.Route{
		put("add_router_interface", d.interfaceHandler(d.net.AddInterface)),
		put("remove_router_interface", d.interfaceHandler(d.net.RemoveInterface)),
		put("add_extraroutes", d.extraRoutes(d.net.AddRoutes)),
		put("remove_extraroutes", d.extraRoutes(d.net.RemoveRoutes)),
		{Method: http.MethodGet, Pattern: "/v2.0/routers/{id}/l3-agents", Access: api.Admin, Handle: d.listGatewayHosts},
		{Method: http.MethodGet, Pattern: "/v2.0/agents/{id}/l3-routers", Access: api.Admin, Handle: d.listGatewayRouters},
		{Method: http.MethodPost, Pattern: "/v2.0/agents/{id}/l3-routers", Access: api.Admin, Handle: d.serveGatewayOn},
		{Method: http.MethodDelete, Pattern: "/v2.0/agents/{id}/l3-routers/{router}", Access: api.Admin, Handle: d.leaveGatewayHost},
	}
}

type interfaceChange func(tx *store.Tx, sc network.Scope, id model.ID, spec network.InterfaceSpec) (*network.Interface, error)

func (d *dialect) interfaceHandler(change interfaceChange) api.Handler {
	return func(c *api.Context) error {
		sc, id := scope(c), c.Param("id")
		if _, err := d.net.GetRouter(c.Snapshot(), sc, id); err != nil {
			return err
		}
		var body map[string]json.RawMessage
		if err := c.Decode(&body); err != nil {
			return err
		}
		var spec network.InterfaceSpec
		for name, dst := range map[string]*model.ID{"subnet_id": &spec.SubnetID, "port_id": &spec.PortID} {
			raw, ok := body[name]
			if !ok || isNull(raw) {
				continue
			}
			var err error
			if *dst, err = readString(name, raw); err != nil {
				return err
			}
		}
		var out *network.Interface
		if _, err := c.Store().Update(c.R.Context(), func(tx *store.Tx) (err error) {
			out, err = change(tx, sc, id, spec)
			return err
		}); err != nil {
			return err
		}
		subnet := ""
		if len(out.Subnets) > 0 {
			subnet = out.Subnets[0]
		}
		return c.JSON(http.StatusOK, map[string]any{
			"id": out.Router.ID, "project_id": out.Router.ProjectID, "tenant_id": out.Router.ProjectID,
			"port_id": out.Port.ID, "network_id": out.Port.NetworkID, "subnet_id": subnet, "subnet_ids": out.Subnets,
		})
	}
}

type routesChange func(tx *store.Tx, sc network.Scope, id model.ID, routes []model.Route) (*model.Router, error)

func (d *dialect) extraRoutes(change routesChange) api.Handler {
	return func(c *api.Context) error {
		sc, id := scope(c), c.Param("id")
		if _, err := d.net.GetRouter(c.Snapshot(), sc, id); err != nil {
			return err
		}
		var body map[string]json.RawMessage
		if err := c.Decode(&body); err != nil {
			return err
		}
		item, err := d.routers.object(body)
		if err != nil {
			return err
		}
		raw, ok := item["routes"]
		if !ok || len(item) > 1 {
			return badRequest("Invalid input for router. Reason: the object has the one member 'routes'.")
		}
		routes, err := readRoutes("routes", raw)
		if err != nil {
			return err
		}
		var row *model.Router
		if _, err := c.Store().Update(c.R.Context(), func(tx *store.Tx) (err error) {
			row, err = change(tx, sc, id, routes)
			return err
		}); err != nil {
			return err
		}
		return d.routers.answer(c, http.StatusOK, []*model.Router{row}, false)
	}
}

// listGatewayHosts shows where a router's gateway is, as the agents that clients know.
func (d *dialect) listGatewayHosts(c *api.Context) error {
	snap := c.Snapshot()
	r, err := d.net.GetRouter(snap, scope(c), c.Param("id"))
	if err != nil {
		return err
	}
	out := []agent{}
	for i, id := range r.Status.GatewayHosts {
		h, ok := store.Hosts.Get(snap, id)
		if !ok {
			continue
		}
		a := agentOf(snap, h)
		if a.HAState = "standby"; i == 0 {
			a.HAState = "active"
		}
		out = append(out, a)
	}
	return c.JSON(http.StatusOK, map[string]any{"agents": out})
}

// listGatewayRouters shows the routers whose gateways the host serves; where it only waits
// is shown with the router.
func (d *dialect) listGatewayRouters(c *api.Context) error {
	snap := c.Snapshot()
	if _, ok := store.Hosts.Get(snap, c.Param("id")); !ok {
		return noAgent(c.Param("id"))
	}
	rows := slices.Collect(store.Routers.List(snap, "gateway_host", c.Param("id")))
	rows = slices.DeleteFunc(rows, func(r *model.Router) bool { return r.ActiveHost() != c.Param("id") })
	return d.routers.answer(c, http.StatusOK, rows, true)
}

func (d *dialect) serveGatewayOn(c *api.Context) error {
	var body struct {
		RouterID *string `json:"router_id"`
	}
	if err := c.Decode(&body); err != nil {
		return err
	}
	if body.RouterID == nil {
		return badRequest("Failed to parse request. Required attribute 'router_id' not specified")
	}
	sc, host := scope(c), c.Param("id")
	if _, err := c.Store().Update(c.R.Context(), func(tx *store.Tx) error { return d.net.ServeOn(tx, sc, *body.RouterID, host) }); err != nil {
		return err
	}
	return c.JSON(http.StatusCreated, nil)
}

func (d *dialect) leaveGatewayHost(c *api.Context) error {
	sc, host, router := scope(c), c.Param("id"), c.Param("router")
	if _, err := c.Store().Update(c.R.Context(), func(tx *store.Tx) error { return d.net.LeaveHost(tx, sc, router, host) }); err != nil {
		return err
	}
	return c.Empty(http.StatusNoContent)
}
