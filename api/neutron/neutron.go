// Package neutron speaks Neutron's dialect, the Networking API v2.0: attributes, filters,
// paging, tags, quotas, agents, extensions, and errors in Neutron's form. What may be done
// is decided in package network; here it is only read, checked for its form, and shown.
//
// Source: the Networking API reference, https://docs.openstack.org/api-ref/network/v2/.
//
// Reads and writes only through network.Network and the store's tables of networks,
// hosts and quotas. May import: api, fault, model, network, store. Must not import:
// another dialect, agent, datapath.
package neutron

import (
	"cmp"
	"net/http"
	"time"

	"yakumo/api"
	"yakumo/fault"
	"yakumo/model"
	"yakumo/network"
)

// Config makes the service.
type Config struct {
	Network *network.Network
	// Now is the clock; nil: time.Now.
	Now func() time.Time
}

// dialect serves the routes.
type dialect struct {
	net *network.Network
	now func() time.Time

	networks *collection[model.Network, network.NetworkSpec]
	subnets  *collection[model.Subnet, network.SubnetSpec]
	ports    *collection[model.Port, network.PortSpec]
	groups   *collection[model.SecurityGroup, network.GroupSpec]
	rules    *collection[model.SecurityRule, network.RuleSpec]
	policies *collection[model.RBACPolicy, network.PolicySpec]
	routers  *collection[model.Router, network.RouterSpec]
	floating *collection[model.FloatingIP, network.FloatingIPSpec]

	addressGroups *collection[model.AddressGroup, network.AddressGroupSpec]
	defaultRules  *collection[model.DefaultRule, network.DefaultRuleSpec]
	pools         *collection[model.SubnetPool, network.SubnetPoolSpec]
	addressScopes *collection[model.AddressScope, network.AddressScopeSpec]

	qos         *collection[model.QoSPolicy, network.QoSPolicySpec]
	trunks      *collection[model.Trunk, network.TrunkSpec]
	tapServices *collection[model.TapService, network.TapServiceSpec]
	tapFlows    *collection[model.TapFlow, network.TapFlowSpec]
}

// New gives the service at /network.
func New(cfg Config) api.Service {
	d := &dialect{net: cfg.Network, now: cfg.Now}
	if d.now == nil {
		d.now = time.Now
	}
	d.networks, d.subnets, d.ports = d.networkCollection(), d.subnetCollection(), d.portCollection()
	d.rules = d.ruleCollection()
	d.groups = d.groupCollection()
	d.policies = d.policyCollection()
	d.routers, d.floating = d.routerCollection(), d.floatingCollection()
	d.addressGroups, d.defaultRules = d.addressGroupCollection(), d.defaultRuleCollection()
	d.pools, d.addressScopes = d.poolCollection(), d.addressScopeCollection()
	d.qos, d.trunks = d.qosCollection(), d.trunkCollection()
	d.tapServices, d.tapFlows = d.tapServiceCollection(), d.tapFlowCollection()
	return api.Service{Name: "network", Prefix: "/network", Routes: d.routes(), Error: writeError}
}

func (d *dialect) routes() []api.Route {
	get := func(path string, access api.Access, h api.Handler) api.Route {
		return api.Route{Method: http.MethodGet, Pattern: path, Access: access, Handle: h}
	}
	static := func(path string, access api.Access, h api.Handler) api.Route {
		return api.Route{Method: http.MethodGet, Pattern: path, Access: access, Handle: h, NoSync: true}
	}
	out := []api.Route{
		static("/", api.Public, d.versions),
		static("/v2.0", api.Public, d.resources),
		static("/v2.0/", api.Public, d.resources),
		static("/v2.0/extensions", api.Anyone, d.listExtensions),
		static("/v2.0/extensions/{alias}", api.Anyone, d.showExtension),
		get("/v2.0/availability_zones", api.Reader, d.listZones),
		static("/v2.0/service-providers", api.Reader, d.listProviders),
		get("/v2.0/agents", api.Admin, d.listAgents),
		get("/v2.0/agents/{id}", api.Admin, d.showAgent),
		{Method: http.MethodPut, Pattern: "/v2.0/agents/{id}", Access: api.Admin, Handle: d.updateAgent},
		get("/v2.0/quotas", api.Admin, d.listQuotas),
		get("/v2.0/quotas/{project}", api.Reader, d.showQuota),
		static("/v2.0/quotas/{project}/default", api.Reader, d.defaultQuota),
		get("/v2.0/quotas/{project}/details", api.Reader, d.detailQuota),
		get("/v2.0/quotas/{project}/details.json", api.Reader, d.detailQuota),
		{Method: http.MethodPut, Pattern: "/v2.0/quotas/{project}", Access: api.Admin, Handle: d.updateQuota},
		{Method: http.MethodDelete, Pattern: "/v2.0/quotas/{project}", Access: api.Admin, Handle: d.deleteQuota},
		get("/v2.0/network-ip-availabilities", api.Admin, d.listAvailability),
		get("/v2.0/network-ip-availabilities/{id}", api.Admin, d.showAvailability),
	}
	out = append(out, d.networks.routes()...)
	out = append(out, d.subnets.routes()...)
	out = append(out, d.ports.routes()...)
	out = append(out, d.groups.routes()...)
	out = append(out, d.rules.routes()...)
	out = append(out, d.policies.routes()...)
	out = append(out, d.routers.routes()...)
	out = append(out, d.routerRoutes()...)
	out = append(out, d.floating.routes()...)
	out = append(out, d.forwardingRoutes()...)
	out = append(out, get("/v2.0/floatingip_pools", api.Reader, d.listPools))
	out = append(out, d.addressGroups.routes()...)
	out = append(out, d.addressRoutes()...)
	out = append(out, d.defaultRules.routes()...)
	out = append(out, d.pools.routes()...)
	out = append(out, d.poolRoutes()...)
	out = append(out, d.addressScopes.routes()...)
	out = append(out, d.topologyRoutes()...)
	out = append(out, d.qos.routes()...)
	out = append(out, d.qosRoutes()...)
	out = append(out, d.trunks.routes()...)
	out = append(out, d.trunkRoutes()...)
	out = append(out, d.tapServices.routes()...)
	out = append(out, d.tapFlows.routes()...)
	for _, kind := range []network.Tagged{network.TaggedNetworks, network.TaggedSubnets, network.TaggedPorts, network.TaggedGroups, network.TaggedRouters, network.TaggedFloatingIPs, network.TaggedPools,
		network.TaggedQoS, network.TaggedTrunks} {
		out = append(out, d.tagRoutes(kind)...)
	}
	return out
}

// scope says on whose behalf the request is made.
func scope(c *api.Context) network.Scope {
	return network.Scope{ProjectID: c.Caller.ProjectID, Admin: c.Caller.CloudAdmin}
}

type link struct {
	Rel  string `json:"rel"`
	Href string `json:"href"`
}

func (d *dialect) versions(c *api.Context) error {
	return c.JSON(http.StatusOK, map[string]any{"versions": []any{map[string]any{
		"id": "v2.0", "status": "CURRENT", "links": []link{{"self", c.URL("/v2.0/")}},
	}}})
}

func (d *dialect) resources(c *api.Context) error {
	type resource struct {
		Name       string `json:"name"`
		Collection string `json:"collection"`
		Links      []link `json:"links"`
	}
	var out []resource
	for _, r := range []resource{
		{Name: "network", Collection: "networks"}, {Name: "subnet", Collection: "subnets"}, {Name: "port", Collection: "ports"},
		{Name: "security_group", Collection: "security-groups"}, {Name: "security_group_rule", Collection: "security-group-rules"},
		{Name: "router", Collection: "routers"}, {Name: "floatingip", Collection: "floatingips"}, {Name: "floatingip_pool", Collection: "floatingip_pools"},
		{Name: "policy", Collection: "qos/policies"}, {Name: "rule_type", Collection: "qos/rule-types"}, {Name: "trunk", Collection: "trunks"},
		{Name: "tap_service", Collection: "taas/tap_services"}, {Name: "tap_flow", Collection: "taas/tap_flows"},
		{Name: "agent", Collection: "agents"}, {Name: "quota", Collection: "quotas"}, {Name: "extension", Collection: "extensions"},
		{Name: "availability_zone", Collection: "availability_zones"}, {Name: "network_ip_availability", Collection: "network-ip-availabilities"},
		{Name: "rbac_policy", Collection: "rbac-policies"}, {Name: "address_group", Collection: "address-groups"},
		{Name: "subnetpool", Collection: "subnetpools"}, {Name: "address_scope", Collection: "address-scopes"},
		{Name: "default_security_group_rule", Collection: "default-security-group-rules"},
	} {
		r.Links = []link{{"self", c.URL("/v2.0/" + r.Collection)}}
		out = append(out, r)
	}
	return c.JSON(http.StatusOK, map[string]any{"resources": out})
}

// errorNames are what Neutron calls an error that has no name of its own.
var errorNames = map[int]string{
	http.StatusBadRequest: "HTTPBadRequest", http.StatusForbidden: "PolicyNotAuthorized", http.StatusNotFound: "HTTPNotFound",
	http.StatusMethodNotAllowed: "HTTPMethodNotAllowed", http.StatusConflict: "Conflict", http.StatusRequestEntityTooLarge: "HTTPRequestEntityTooLarge",
	http.StatusUnsupportedMediaType: "HTTPUnsupportedMediaType", http.StatusPreconditionFailed: "RevisionNumberConstraintFailed",
	http.StatusServiceUnavailable: "ServiceUnavailable", http.StatusNotImplemented: "HTTPNotImplemented",
}

// writeError answers in Neutron's form; without a valid token, in that of Keystone's
// middleware, which stands before Neutron.
func writeError(c *api.Context, status int, err error) {
	text := api.Text(status, err)
	var body any
	switch {
	case status == http.StatusUnauthorized:
		body = map[string]any{"error": map[string]any{"code": status, "title": "Unauthorized", "message": text}}
	default:
		if fault.Is(err, fault.OverQuota) {
			status = http.StatusConflict
		}
		name := cmp.Or(errorNames[status], "HTTPInternalServerError")
		if status < http.StatusInternalServerError || status == http.StatusServiceUnavailable {
			name = cmp.Or(fault.CodeOf(err), name)
		}
		body = map[string]any{"NeutronError": map[string]any{"type": name, "message": text, "detail": ""}}
	}
	if err := c.JSON(status, body); err != nil {
		c.Log.Error("an error could not be written", "err", err)
	}
}
