package neutron_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"yakumo/store"
)

// outside makes an external network of the administrator's with a subnet.
func (c *cloud) outside(cidr string, more ...any) (network, subnet string) {
	c.t.Helper()
	w := c.must(201, "admin", "POST", "/v2.0/networks", object{"network": object{"name": "outside", "router:external": true}})
	network = w["id"].(string)
	return network, c.subnet("admin", network, cidr, more...)
}

// router makes a router with a gateway ("": none) and interfaces on subnets.
func (c *cloud) router(token, name, outside string, subnets ...string) string {
	c.t.Helper()
	body := object{"name": name}
	if outside != "" {
		body["external_gateway_info"] = object{"network_id": outside}
	}
	id := c.must(201, token, "POST", "/v2.0/routers", object{"router": body})["id"].(string)
	for _, s := range subnets {
		c.must(200, token, "PUT", "/v2.0/routers/"+id+"/add_router_interface", object{"subnet_id": s})
	}
	return id
}

func (c *cloud) floating(token, network string, more ...any) object {
	c.t.Helper()
	f := object{"floating_network_id": network}
	for i := 0; i+1 < len(more); i += 2 {
		f[more[i].(string)] = more[i+1]
	}
	return c.must(201, token, "POST", "/v2.0/floatingips", object{"floatingip": f})
}

// TestRouterLife takes a router from its creation to its end, as a tenant.
func TestRouterLife(t *testing.T) {
	c := newCloud(t)
	out, outSubnet := c.outside("203.0.113.0/24", "allocation_pools", []object{{"start": "203.0.113.10", "end": "203.0.113.90"}})
	w := c.network("red", "w")
	s1, s2 := c.subnet("red", w, "10.0.0.0/24"), c.subnet("red", w, "10.0.1.0/24")
	r := c.must(201, "red", "POST", "/v2.0/routers", object{"router": object{"name": "r", "description": "d"}})
	id := r["id"].(string)
	for k, want := range map[string]any{"name": "r", "description": "d", "admin_state_up": true, "status": "ACTIVE", "project_id": red, "tenant_id": red,
		"external_gateway_info": nil, "flavor_id": nil, "revision_number": 1.0} {
		if r[k] != want {
			t.Errorf("%s is %v, want %v", k, r[k], want)
		}
	}
	for _, k := range []string{"distributed", "ha"} {
		if _, there := r[k]; there {
			t.Errorf("a tenant is shown %s", k)
		}
		if c.must(200, "admin", "GET", "/v2.0/routers/"+id, nil)[k] != true {
			t.Errorf("%s is not true", k)
		}
	}
	path := "/v2.0/routers/" + id
	added := c.must(200, "red", "PUT", path+"/add_router_interface", object{"subnet_id": s1})
	for k, want := range map[string]any{"id": id, "network_id": w, "subnet_id": s1, "project_id": red} {
		if added[k] != want {
			t.Errorf("the interface's %s is %v, want %v", k, added[k], want)
		}
	}
	port := c.must(200, "red", "GET", "/v2.0/ports/"+added["port_id"].(string), nil)
	if port["device_owner"] != "network:router_interface" || port["device_id"] != id || port["status"] != "ACTIVE" ||
		fmt.Sprint(port["fixed_ips"]) != fmt.Sprintf("[map[ip_address:10.0.0.1 subnet_id:%s]]", s1) {
		t.Errorf("the interface's port: %v", port)
	}
	own := c.port("red", w, "fixed_ips", []object{{"subnet_id": s2, "ip_address": "10.0.1.77"}})["id"].(string)
	c.must(200, "red", "PUT", path+"/add_router_interface", object{"port_id": own})
	if got := len(c.list("red", "/v2.0/ports?device_id="+id)); got != 2 {
		t.Errorf("%d interfaces", got)
	}

	r = c.must(200, "red", "PUT", path, object{"router": object{"external_gateway_info": object{"network_id": out}}})
	gw := r["external_gateway_info"].(object)
	if gw["network_id"] != out || gw["enable_snat"] != true || gw["external_fixed_ips"].([]any)[0].(object)["subnet_id"] != outSubnet {
		t.Errorf("gateway: %v", gw)
	}
	gwPorts := c.list("admin", "/v2.0/ports?device_owner=network:router_gateway")
	if len(gwPorts) != 1 || gwPorts[0]["project_id"] != "" || gwPorts[0]["device_id"] != id {
		t.Errorf("gateway's port: %v", gwPorts)
	}
	if rows := c.list("red", "/v2.0/ports?device_owner=network:router_gateway"); len(rows) != 0 {
		t.Errorf("a tenant sees the gateway's port: %v", rows)
	}

	// Routes.
	r = c.must(200, "red", "PUT", path, object{"router": object{"routes": []object{{"destination": "10.9.0.0/16", "nexthop": "10.0.0.9"}}}})
	c.must(200, "red", "PUT", path+"/add_extraroutes", object{"router": object{"routes": []object{
		{"destination": "10.9.0.0/16", "nexthop": "10.0.0.9"}, {"destination": "10.8.0.0/16", "nexthop": "203.0.113.250"}}}})
	r = c.must(200, "red", "PUT", path+"/remove_extraroutes", object{"router": object{"routes": []object{
		{"destination": "10.9.0.0/16", "nexthop": "10.0.0.9"}, {"destination": "10.7.0.0/16", "nexthop": "1.2.3.4"}}}})
	if fmt.Sprint(r["routes"]) != "[map[destination:10.8.0.0/16 nexthop:203.0.113.250]]" {
		t.Errorf("routes: %v", r["routes"])
	}
	c.refused(400, "InvalidRoutes", "red", "PUT", path, object{"router": object{"external_gateway_info": nil}})
	r = c.must(200, "red", "PUT", path, object{"router": object{"external_gateway_info": nil, "routes": []object{}}})
	if r["external_gateway_info"] != nil || len(c.list("admin", "/v2.0/ports?network_id="+out)) != 0 {
		t.Errorf("the gateway is still there: %v", r)
	}

	// Revisions.
	rev := r["revision_number"].(float64)
	c.refused(412, "RevisionNumberConstraintFailed", "red", "PUT", path, object{"router": object{"name": "x"}}, "If-Match", "revision_number=1")
	c.must(200, "red", "PUT", path, object{"router": object{"name": "x"}}, "If-Match", fmt.Sprintf("revision_number=%d", int(rev)))

	c.refused(409, "RouterInUse", "red", "DELETE", path, nil)
	c.refused(409, "ServicePortInUse", "red", "DELETE", "/v2.0/ports/"+own, nil)
	c.refused(409, "SubnetInUse", "red", "DELETE", "/v2.0/subnets/"+s1, nil)
	c.refused(409, "NetworkInUse", "red", "DELETE", "/v2.0/networks/"+w, nil)
	c.must(200, "red", "PUT", path+"/remove_router_interface", object{"subnet_id": s1})
	c.must(200, "red", "PUT", path+"/remove_router_interface", object{"port_id": own, "subnet_id": s2})
	c.refused(404, "PortNotFound", "red", "GET", "/v2.0/ports/"+own, nil)
	c.must(204, "red", "DELETE", path, nil)
	c.refused(404, "RouterNotFound", "red", "GET", path, nil)
	c.must(204, "red", "DELETE", "/v2.0/networks/"+w, nil)
	c.must(204, "admin", "DELETE", "/v2.0/networks/"+out, nil)
}

// TestRoutersRefuse: bad requests get the status and the name of Neutron, and change nothing.
func TestRoutersRefuse(t *testing.T) {
	c := newCloud(t)
	c.host("h1")
	out, outSubnet := c.outside("203.0.113.0/24")
	inside := c.network("red", "w")
	s := c.subnet("red", inside, "10.0.0.0/24", "allocation_pools", []object{{"start": "10.0.0.100", "end": "10.0.0.200"}})
	none := c.subnet("red", inside, "10.0.1.0/24", "gateway_ip", nil)
	w2 := c.network("red", "w2")
	same := c.subnet("red", w2, "10.0.0.128/25")
	like := c.subnet("red", c.network("red", "w3"), "203.0.113.0/26")
	far := c.subnet("blue", c.network("blue", "b"), "10.5.0.0/24")
	shared := c.must(201, "admin", "POST", "/v2.0/networks", object{"network": object{"shared": true}})["id"].(string)
	sharedSubnet := c.subnet("admin", shared, "10.6.0.0/24")
	id := c.router("red", "r", out, s)
	port := c.list("red", "/v2.0/ports?device_id="+id)[0]["id"].(string)
	busy := c.port("red", inside, "device_id", "x")["id"].(string)
	bare := c.port("red", inside, "fixed_ips", []any{})["id"].(string)
	theirs := c.port("blue", c.network("blue", "b2"))["id"].(string)
	taken := c.subnet("red", c.network("red", "w4"), "10.7.0.0/24", "allocation_pools", []object{{"start": "10.7.0.9", "end": "10.7.0.20"}}, "gateway_ip", "10.7.0.5")
	// Somebody of the network has the gateway's address already.
	c.port("red", c.must(200, "red", "GET", "/v2.0/subnets/"+taken, nil)["network_id"].(string), "device_owner", "network:mine",
		"fixed_ips", []object{{"ip_address": "10.7.0.5"}})
	p := "/v2.0/routers/" + id
	before := string(c.do("admin", "GET", "/v2.0/routers", nil).raw) + string(c.do("admin", "GET", "/v2.0/ports", nil).raw)
	router := func(o object) object { return object{"router": o} }
	gateway := func(o any) object { return router(object{"external_gateway_info": o}) }
	routes := func(pairs ...string) object {
		list := []object{}
		for i := 0; i < len(pairs); i += 2 {
			list = append(list, object{"destination": pairs[i], "nexthop": pairs[i+1]})
		}
		return router(object{"routes": list})
	}
	var many []string
	for i := range 31 {
		many = append(many, fmt.Sprintf("10.9.%d.0/24", i), "10.0.0.9")
	}
	for _, tc := range []struct {
		status       int
		kind, token  string
		method, path string
		body         any
		says         string
	}{
		{400, "BadRequest", "red", "PUT", p + "/add_router_interface", object{}, "Either subnet_id or port_id"},
		{400, "BadRequest", "red", "PUT", p + "/add_router_interface", object{"subnet_id": s, "port_id": port}, "Cannot specify both"},
		{400, "HTTPBadRequest", "red", "PUT", p + "/add_router_interface", object{"subnet_id": 5}, "not a valid string"},
		{400, "HTTPBadRequest", "red", "PUT", p + "/add_router_interface", "[", ""},
		{400, "BadRequest", "red", "PUT", p + "/add_router_interface", object{"subnet_id": s}, "already has a port on subnet"},
		{400, "BadRequest", "red", "PUT", p + "/add_router_interface", object{"subnet_id": none}, "must have a gateway IP"},
		{400, "BadRequest", "red", "PUT", p + "/add_router_interface", object{"subnet_id": same}, "overlaps with cidr"},
		{400, "BadRequest", "red", "PUT", p + "/add_router_interface", object{"subnet_id": like}, "overlaps with cidr"},
		{404, "SubnetNotFound", "red", "PUT", p + "/add_router_interface", object{"subnet_id": far}, far},
		{404, "SubnetNotFound", "red", "PUT", p + "/add_router_interface", object{"subnet_id": outSubnet}, outSubnet},
		{404, "SubnetNotFound", "red", "PUT", p + "/add_router_interface", object{"subnet_id": "no"}, "no"},
		{400, "BadRequest", "red", "PUT", p + "/add_router_interface", object{"subnet_id": sharedSubnet}, "not owned by project"},
		{400, "BadRequest", "admin", "PUT", p + "/add_router_interface", object{"subnet_id": outSubnet}, "already has a port on subnet"},
		{409, "IpAddressAlreadyAllocated", "red", "PUT", p + "/add_router_interface", object{"subnet_id": taken}, "10.7.0.5"},
		{409, "PortInUse", "red", "PUT", p + "/add_router_interface", object{"port_id": port}, "already has an attached device"},
		{409, "PortInUse", "red", "PUT", p + "/add_router_interface", object{"port_id": busy}, "already has an attached device"},
		{400, "BadRequest", "red", "PUT", p + "/add_router_interface", object{"port_id": bare}, "at least one fixed IP"},
		{404, "PortNotFound", "red", "PUT", p + "/add_router_interface", object{"port_id": theirs}, theirs},
		{400, "BadRequest", "red", "PUT", p + "/remove_router_interface", object{}, "Either subnet_id or port_id"},
		{404, "RouterInterfaceNotFound", "red", "PUT", p + "/remove_router_interface", object{"port_id": busy}, busy},
		{404, "RouterInterfaceNotFoundForSubnet", "red", "PUT", p + "/remove_router_interface", object{"subnet_id": none}, none},
		{404, "SubnetNotFound", "red", "PUT", p + "/remove_router_interface", object{"subnet_id": "no"}, "no"},
		{409, "SubnetMismatchForPort", "red", "PUT", p + "/remove_router_interface", object{"port_id": port, "subnet_id": none}, none},
		{404, "RouterNotFound", "red", "PUT", "/v2.0/routers/no/add_router_interface", object{"subnet_id": s}, "no"},
		{404, "RouterNotFound", "blue", "PUT", p + "/remove_router_interface", object{"subnet_id": s}, id},
		{400, "HTTPBadRequest", "red", "POST", "/v2.0/routers", routes(), "not allowed in POST"},
		{400, "HTTPBadRequest", "red", "POST", "/v2.0/routers", router(object{"nonsense": 1}), "nonsense"},
		{400, "HTTPBadRequest", "red", "POST", "/v2.0/routers", router(object{"name": strings.Repeat("x", 256)}), "255"},
		{404, "AvailabilityZoneNotFound", "red", "POST", "/v2.0/routers", router(object{"availability_zone_hints": []string{"mars"}}), "mars"},
		{403, "PolicyNotAuthorized", "red", "POST", "/v2.0/routers", router(object{"distributed": true}), "distributed"},
		{403, "PolicyNotAuthorized", "red", "PUT", p, router(object{"ha": false}), "ha"},
		{400, "BadRequest", "admin", "PUT", p, router(object{"ha": false}), "admin_state_up"},
		{501, "HTTPNotImplemented", "admin", "PUT", p, router(object{"distributed": false}), ""},
		{400, "HTTPBadRequest", "red", "PUT", p, gateway(object{"enable_snat": true}), "network_id"},
		{400, "HTTPBadRequest", "red", "PUT", p, gateway(object{"network_id": out, "dragon": 1}), "dragon"},
		{400, "HTTPBadRequest", "red", "PUT", p, gateway("x"), "not an object"},
		{400, "HTTPBadRequest", "red", "PUT", p, gateway(object{"network_id": ""}), "UUID"},
		{404, "NetworkNotFound", "red", "PUT", p, gateway(object{"network_id": "no"}), "no"},
		{400, "BadRequest", "red", "PUT", p, gateway(object{"network_id": inside}), "not an external network"},
		{403, "PolicyNotAuthorized", "red", "PUT", p, gateway(object{"network_id": out, "enable_snat": false}), "enable_snat"},
		{403, "PolicyNotAuthorized", "red", "PUT", p, gateway(object{"network_id": out, "external_fixed_ips": []object{{"ip_address": "203.0.113.9"}}}), "external_fixed_ips"},
		{400, "InvalidIpForSubnet", "admin", "PUT", p, gateway(object{"network_id": out, "external_fixed_ips": []object{{"ip_address": "203.0.113.1"}}}), "203.0.113.1"},
		{400, "InvalidIpForNetwork", "admin", "PUT", p, gateway(object{"network_id": out, "external_fixed_ips": []object{{"ip_address": "10.0.0.1"}}}), "10.0.0.1"},
		{400, "InvalidInput", "admin", "PUT", p, gateway(object{"network_id": out, "external_fixed_ips": []object{{"subnet_id": s}}}), s},
		{400, "InvalidRoutes", "red", "PUT", p, routes("10.9.0.0/16", "10.1.0.9"), "not connected"},
		{400, "InvalidRoutes", "red", "PUT", p, routes("10.9.0.0/16", "10.0.0.1"), "used by router"},
		{400, "InvalidRoutes", "red", "PUT", p, routes("10.9.0.0/16", "10.0.0.9", "10.9.0.0/16", "10.0.0.9"), "twice"},
		{400, "InvalidRoutes", "red", "PUT", p, routes("fd00::/64", "10.0.0.9"), "IP versions"},
		{400, "InvalidRoutes", "red", "PUT", p, routes("10.9.0.1/16", "10.0.0.9"), "recommended"},
		{400, "RoutesExhausted", "red", "PUT", p, routes(many...), "30"},
		{400, "HTTPBadRequest", "red", "PUT", p, routes("x", "10.0.0.9"), "routes"},
		{400, "InvalidRoutes", "red", "PUT", p + "/add_extraroutes", routes("10.9.0.0/16", "10.1.0.9"), "not connected"},
		{400, "HTTPBadRequest", "red", "PUT", p + "/add_extraroutes", object{}, "router"},
		{400, "HTTPBadRequest", "red", "PUT", p + "/remove_extraroutes", router(object{"name": "x"}), "routes"},
		{409, "PortInUse", "red", "PUT", "/v2.0/ports/" + port, object{"port": object{"device_id": ""}}, "attached device"},
		{409, "PortInUse", "admin", "PUT", "/v2.0/ports/" + port, object{"port": object{"binding:host_id": "h1"}}, "attached device"},
		{400, "BadRequest", "red", "PUT", "/v2.0/ports/" + port, object{"port": object{"fixed_ips": []any{}}}, "at least one fixed IP"},
		{409, "DeviceIDNotOwnedByTenant", "red", "POST", "/v2.0/ports", object{"port": object{"network_id": inside, "device_id": id, "device_owner": "network:router_interface"}}, id},
		{409, "DeviceIDNotOwnedByTenant", "red", "PUT", "/v2.0/ports/" + bare, object{"port": object{"device_id": id, "device_owner": "network:router_interface"}}, id},
		{409, "GatewayIpInUse", "red", "PUT", "/v2.0/subnets/" + s, object{"subnet": object{"gateway_ip": "10.0.0.2"}}, "10.0.0.1"},
		{403, "PolicyNotAuthorized", "red", "POST", "/v2.0/ports", object{"port": object{"network_id": out}}, "external"},
		{409, "ExternalNetworkInUse", "admin", "PUT", "/v2.0/networks/" + out, object{"network": object{"router:external": false}}, out},
		{409, "NetworkInUse", "admin", "DELETE", "/v2.0/networks/" + out, nil, out},
	} {
		text := c.refused(tc.status, tc.kind, tc.token, tc.method, tc.path, tc.body)
		if !strings.Contains(text, tc.says) {
			t.Errorf("%s %s %v: %q does not say %q", tc.method, tc.path, tc.body, text, tc.says)
		}
	}
	if after := string(c.do("admin", "GET", "/v2.0/routers", nil).raw) + string(c.do("admin", "GET", "/v2.0/ports", nil).raw); before != after {
		t.Error("what was refused has changed something")
	}
	parent := c.port("red", w2)["id"].(string)
	c.must(201, "red", "POST", "/v2.0/trunks", object{"trunk": object{"port_id": parent}})
	c.refused(409, "PortInUseAsTrunkParent", "red", "PUT", p+"/add_router_interface", object{"port_id": parent})
	// What needs a gateway or an interface keeps it.
	c.must(200, "red", "PUT", p, routes("10.9.0.0/16", "10.0.0.9"))
	c.refused(409, "RouterInterfaceInUseByRoute", "red", "PUT", p+"/remove_router_interface", object{"subnet_id": s})
	c.must(200, "red", "PUT", p, routes())
	guest := c.port("red", inside, "fixed_ips", []object{{"ip_address": "10.0.0.50"}})["id"].(string)
	f := c.floating("red", out, "port_id", guest)
	c.refused(409, "RouterInterfaceInUseByFloatingIP", "red", "PUT", p+"/remove_router_interface", object{"subnet_id": s})
	c.refused(409, "RouterExternalGatewayInUseByFloatingIp", "red", "PUT", p, gateway(nil))
	c.must(204, "red", "DELETE", "/v2.0/floatingips/"+f["id"].(string), nil)
	c.must(200, "red", "PUT", p, gateway(object{}))
	c.must(200, "admin", "PUT", "/v2.0/networks/"+out, object{"network": object{"router:external": false}})
}

// TestGatewayByAdministrator: an administrator chooses the addresses, and whether there is NAT.
func TestGatewayByAdministrator(t *testing.T) {
	c := newCloud(t)
	out, _ := c.outside("203.0.113.0/24")
	other, _ := c.outside("198.51.100.0/24")
	r := c.must(201, "admin", "POST", "/v2.0/routers", object{"router": object{"project_id": red, "external_gateway_info": object{
		"network_id": out, "enable_snat": false, "external_fixed_ips": []object{{"ip_address": "203.0.113.77"}}}}})
	p := "/v2.0/routers/" + r["id"].(string)
	address := func(r object) any {
		return r["external_gateway_info"].(object)["external_fixed_ips"].([]any)[0].(object)["ip_address"]
	}
	if r["external_gateway_info"].(object)["enable_snat"] != false || address(r) != "203.0.113.77" || r["project_id"] != red {
		t.Errorf("%v", r)
	}
	row, _ := store.Routers.Get(c.store.Snapshot(), r["id"].(string))
	r = c.must(200, "admin", "PUT", p, object{"router": object{"external_gateway_info": object{"network_id": out, "external_fixed_ips": []object{{"ip_address": "203.0.113.78"}}}}})
	if r["external_gateway_info"].(object)["enable_snat"] != true || address(r) != "203.0.113.78" {
		t.Errorf("%v", r)
	}
	if now, _ := store.Routers.Get(c.store.Snapshot(), r["id"].(string)); now.VNI != row.VNI || now.VNI == 0 || now.Gateway.PortID != row.Gateway.PortID {
		t.Errorf("the gateway moved: %+v, %+v", row, now)
	}
	r = c.must(200, "red", "PUT", p, object{"router": object{"external_gateway_info": object{"network_id": other}}})
	if r["external_gateway_info"].(object)["network_id"] != other || len(c.list("admin", "/v2.0/ports?network_id="+out)) != 0 {
		t.Errorf("%v", r)
	}
	c.must(200, "admin", "PUT", p, object{"router": object{"admin_state_up": false}})
	if got := c.must(200, "admin", "PUT", p, object{"router": object{"ha": false, "admin_state_up": true}}); got["ha"] != false {
		t.Errorf("%v", got)
	}
	c.must(204, "red", "DELETE", p, nil)
	if rows := c.list("admin", "/v2.0/ports"); len(rows) != 0 {
		t.Errorf("a router leaves %v", rows)
	}
}

// TestRouterLists: filters, sorting, pages, fields and tags of routers and floating IPs.
func TestRouterLists(t *testing.T) {
	c := newCloud(t)
	out, outSubnet := c.outside("203.0.113.0/24")
	w := c.network("red", "w")
	s := c.subnet("red", w, "10.0.0.0/24")
	a, b := c.router("red", "a", out, s), c.router("red", "b", "")
	c.router("blue", "a", "")
	c.must(200, "red", "PUT", "/v2.0/routers/"+a+"/tags", object{"tags": []string{"x", "y"}})
	c.must(200, "red", "PUT", "/v2.0/routers/"+b, object{"router": object{"admin_state_up": false, "description": "old"}})
	p := c.port("red", w)
	fixed := p["fixed_ips"].([]any)[0].(object)["ip_address"].(string)
	f1, f2 := c.floating("red", out, "port_id", p["id"]), c.floating("red", out, "description", "spare")
	x, y := f1["id"].(string), f2["id"].(string)
	c.must(201, "red", "PUT", "/v2.0/floatingips/"+y+"/tags/z", nil)
	for query, want := range map[string][]string{
		"routers": {a, b}, "routers?name=a": {a}, "routers?admin_state_up=False": {b}, "routers?tags=x,y": {a}, "routers?not-tags=x": {b},
		"routers?description=old": {b}, "routers?status=ACTIVE&name=a&name=b": {a, b}, "routers?id=" + b: {b}, "routers?project_id=" + red: {a, b},
		"routers?sort_key=name&sort_dir=desc": {b, a}, "routers?sort_key=name&limit=1": {a}, "routers?sort_key=name&limit=1&marker=" + a: {b},
		"floatingips": {x, y}, "floatingips?status=ACTIVE": {x}, "floatingips?status=DOWN": {y}, "floatingips?port_id=" + p["id"].(string): {x},
		"floatingips?router_id=" + a: {x}, "floatingips?fixed_ip_address=" + fixed: {x}, "floatingips?floating_ip_address=" + f2["floating_ip_address"].(string): {y},
		"floatingips?floating_network_id=" + out: {x, y}, "floatingips?floating_network_id=" + w: {}, "floatingips?tags=z": {y}, "floatingips?description=spare": {y},
		"floatingips?port_id=": {y}, "floatingips?sort_key=status": {x, y}, "floatingips?project_id=" + blue: {},
	} {
		got := ids(c.list("red", "/v2.0/"+query))
		if !strings.Contains(query, "sort") {
			slices.Sort(got)
			slices.Sort(want)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", query, got, want)
		}
	}
	if rows := c.list("admin", "/v2.0/routers"); len(rows) != 3 {
		t.Errorf("an administrator sees %d routers", len(rows))
	}
	if rows := c.list("red", "/v2.0/routers?fields=name&name=a"); len(rows) != 1 || len(rows[0]) != 1 {
		t.Errorf("%v", rows)
	}
	c.refused(400, "HTTPBadRequest", "red", "GET", "/v2.0/routers?dragon=1", nil)
	c.refused(403, "PolicyNotAuthorized", "red", "GET", "/v2.0/routers?ha=True", nil)
	c.refused(400, "HTTPBadRequest", "red", "GET", "/v2.0/floatingips?subnet_id="+outSubnet, nil)
	if rows := c.list("red", "/v2.0/floatingip_pools"); len(rows) != 1 || rows[0]["subnet_id"] != outSubnet || rows[0]["cidr"] != "203.0.113.0/24" || rows[0]["network_id"] != out {
		t.Errorf("pools: %v", rows)
	}
	c.refused(400, "HTTPBadRequest", "red", "GET", "/v2.0/floatingip_pools?dragon=1", nil)
	// A tenant sees the external network, and not its subnets.
	if rows := c.list("red", "/v2.0/networks?router:external=True"); len(rows) != 1 || rows[0]["id"] != out {
		t.Errorf("%v", rows)
	}
	c.refused(404, "SubnetNotFound", "red", "GET", "/v2.0/subnets/"+outSubnet, nil)
}

// TestRouterQuotas: a project has so many routers and floating IPs, and no more.
func TestRouterQuotas(t *testing.T) {
	c := newCloud(t)
	out, _ := c.outside("203.0.113.0/24")
	c.must(200, "admin", "PUT", "/v2.0/quotas/"+red, object{"quota": object{"router": 1, "floatingip": 2, "port": 1}})
	r := c.router("red", "r", out)
	c.refused(409, "OverQuota", "red", "POST", "/v2.0/routers", object{"router": object{}})
	c.floating("red", out)
	c.refused(409, "OverQuota", "red", "POST", "/v2.0/floatingips", object{"floatingips": []object{{"floating_network_id": out}, {"floating_network_id": out}}})
	c.floating("red", out)
	c.refused(409, "OverQuota", "red", "POST", "/v2.0/floatingips", object{"floatingip": object{"floating_network_id": out}})
	w := c.network("red", "w")
	s := c.subnet("red", w, "10.0.0.0/24")
	c.port("red", w)
	c.refused(409, "OverQuota", "red", "PUT", "/v2.0/routers/"+r+"/add_router_interface", object{"subnet_id": s})
	detail := c.must(200, "red", "GET", "/v2.0/quotas/"+red+"/details.json", nil)
	if fmt.Sprint(detail["router"]) != "map[limit:1 reserved:0 used:1]" || fmt.Sprint(detail["floatingip"]) != "map[limit:2 reserved:0 used:2]" {
		t.Errorf("%v", detail)
	}
}
