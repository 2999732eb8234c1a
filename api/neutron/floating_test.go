package neutron_test

import (
	"fmt"
	"strings"
	"testing"

	"yakumo/model"
	"yakumo/store"
)

// TestFloatingIPLife takes a floating IP from its creation to its end, as a tenant.
func TestFloatingIPLife(t *testing.T) {
	c := newCloud(t)
	out, outSubnet := c.outside("203.0.113.0/24", "allocation_pools", []object{{"start": "203.0.113.10", "end": "203.0.113.90"}})
	w := c.network("red", "w")
	s := c.subnet("red", w, "10.0.0.0/24")
	r := c.router("red", "r", out, s)
	p, q := c.port("red", w, "name", "p", "device_id", "d"), c.port("red", w)
	fixed := func(p object) any { return p["fixed_ips"].([]any)[0].(object)["ip_address"] }
	f := c.must(201, "red", "POST", "/v2.0/floatingips", object{"floatingip": object{"floating_network_id": out, "subnet_id": outSubnet,
		"description": "d", "dns_name": "www", "dns_domain": "example.org.", "port_id": nil, "floating_ip_address": nil, "fixed_ip_address": nil}})
	id := f["id"].(string)
	path := "/v2.0/floatingips/" + id
	want := func(f object, values map[string]any) {
		t.Helper()
		for k, v := range values {
			if fmt.Sprint(f[k]) != fmt.Sprint(v) {
				t.Errorf("%s is %v, want %v", k, f[k], v)
			}
		}
	}
	want(f, map[string]any{"status": "DOWN", "port_id": nil, "fixed_ip_address": nil, "router_id": nil, "floating_network_id": out, "description": "d",
		"dns_name": "www", "dns_domain": "example.org.", "project_id": red, "port_details": nil, "port_forwardings": []any{}, "tags": []any{}, "revision_number": 1})
	if _, there := f["subnet_id"]; there {
		t.Error("subnet_id is shown")
	}
	ports := c.list("admin", "/v2.0/ports?device_id="+id)
	if len(ports) != 1 || ports[0]["device_owner"] != "network:floatingip" || ports[0]["status"] != "N/A" || fixed(ports[0]) != f["floating_ip_address"] {
		t.Fatalf("the address's port: %v", ports)
	}
	c.refused(409, "ServicePortInUse", "admin", "DELETE", "/v2.0/ports/"+ports[0]["id"].(string), nil)
	c.refused(409, "PortInUse", "admin", "PUT", "/v2.0/ports/"+ports[0]["id"].(string), object{"port": object{"fixed_ips": []any{}}})

	f = c.must(200, "red", "PUT", path, object{"floatingip": object{"port_id": p["id"]}})
	want(f, map[string]any{"status": "ACTIVE", "port_id": p["id"], "fixed_ip_address": fixed(p), "router_id": r, "revision_number": 2})
	want(f["port_details"].(object), map[string]any{"name": "p", "device_id": "d", "network_id": w, "mac_address": p["mac_address"], "status": "DOWN", "admin_state_up": true})
	// The same again; another port; a text alone changes nothing else.
	want(c.must(200, "red", "PUT", path, object{"floatingip": object{"port_id": p["id"], "fixed_ip_address": fixed(p)}}), map[string]any{"port_id": p["id"]})
	want(c.must(200, "red", "PUT", path, object{"floatingip": object{"port_id": q["id"]}}), map[string]any{"port_id": q["id"], "fixed_ip_address": fixed(q)})
	want(c.must(200, "red", "PUT", path, object{"floatingip": object{"description": "e"}}), map[string]any{"port_id": q["id"], "description": "e"})
	want(c.must(200, "red", "PUT", path, object{"floatingip": object{"port_id": nil}}), map[string]any{"port_id": nil, "router_id": nil, "status": "DOWN", "fixed_ip_address": nil})
	c.refused(412, "RevisionNumberConstraintFailed", "red", "DELETE", path, nil, "If-Match", "revision_number=1")

	// A port that goes sets it free.
	c.must(200, "red", "PUT", path, object{"floatingip": object{"port_id": q["id"]}})
	c.must(204, "red", "DELETE", "/v2.0/ports/"+q["id"].(string), nil)
	want(c.must(200, "red", "GET", path, nil), map[string]any{"port_id": nil, "router_id": nil, "status": "DOWN", "floating_ip_address": f["floating_ip_address"]})
	c.must(204, "red", "DELETE", path, nil)
	c.refused(404, "FloatingIPNotFound", "red", "GET", path, nil)
	if rows := c.list("admin", "/v2.0/ports?device_owner=network:floatingip"); len(rows) != 0 {
		t.Errorf("the address is still held: %v", rows)
	}
	// An administrator chooses the address, also for another project.
	f = c.floating("admin", out, "floating_ip_address", "203.0.113.99", "project_id", red, "port_id", p["id"])
	want(f, map[string]any{"floating_ip_address": "203.0.113.99", "project_id": red, "port_id": p["id"]})
	c.must(200, "red", "GET", "/v2.0/floatingips/"+f["id"].(string), nil)
}

// TestFloatingIPsOfAServer: what a server's own port had is free when the server is gone.
func TestFloatingIPsOfAServer(t *testing.T) {
	c := newCloud(t)
	out, _ := c.outside("203.0.113.0/24")
	w := c.network("red", "w")
	c.router("red", "r", out, c.subnet("red", w, "10.0.0.0/24"))
	p := c.port("red", w)["id"].(string)
	f := c.floating("red", out, "port_id", p)["id"].(string)
	if _, err := c.store.Update(t.Context(), func(tx *store.Tx) error {
		old, _ := store.Ports.Get(tx, p)
		row := *old
		row.Owned, row.DeviceID = true, "server"
		return store.Ports.Put(tx, &row)
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.store.Update(t.Context(), func(tx *store.Tx) error { return c.net.ReleasePort(tx, p) }); err != nil {
		t.Fatal(err)
	}
	if row, _ := store.FloatingIPs.Get(c.store.Snapshot(), f); row.PortID != "" || row.RouterID != "" || row.Status != model.FloatingIPDown {
		t.Errorf("%+v", row)
	}
}

// TestFloatingIPsRefuse: bad requests get the status and the name of Neutron, and change nothing.
func TestFloatingIPsRefuse(t *testing.T) {
	c := newCloud(t)
	out, outSubnet := c.outside("203.0.113.0/24", "allocation_pools", []object{{"start": "203.0.113.10", "end": "203.0.113.14"}})
	w := c.network("red", "w")
	s := c.subnet("red", w, "10.0.0.0/24")
	c.router("red", "r", out, s)
	p := c.port("red", w, "fixed_ips", []object{{"ip_address": "10.0.0.9"}, {"ip_address": "10.0.0.8"}})["id"].(string)
	one := c.port("red", w, "fixed_ips", []object{{"ip_address": "10.0.0.7"}})["id"].(string)
	bare := c.port("red", w, "fixed_ips", []any{})["id"].(string)
	lone := c.network("red", "lone")
	c.subnet("red", lone, "10.1.0.0/24")
	far := c.port("red", lone)["id"].(string)
	theirs := c.port("blue", c.network("blue", "b"))["id"].(string)
	empty := c.must(201, "admin", "POST", "/v2.0/networks", object{"network": object{"router:external": true}})["id"].(string)
	used := c.floating("red", out, "port_id", p, "fixed_ip_address", "10.0.0.9")
	free := c.floating("red", out)["id"].(string)
	f := "/v2.0/floatingips/" + free
	post := func(more object) object {
		o := object{"floating_network_id": out}
		for k, v := range more {
			o[k] = v
		}
		return object{"floatingip": o}
	}
	put := func(o object) object { return object{"floatingip": o} }
	all := func() string {
		return string(c.do("admin", "GET", "/v2.0/floatingips", nil).raw) + string(c.do("admin", "GET", "/v2.0/ports", nil).raw)
	}
	before := all()
	for _, tc := range []struct {
		status       int
		kind, token  string
		method, path string
		body         any
		says         string
	}{
		{400, "HTTPBadRequest", "red", "POST", "/v2.0/floatingips", object{"floatingip": object{}}, "floating_network_id"},
		{400, "HTTPBadRequest", "red", "POST", "/v2.0/floatingips", object{}, "floatingip"},
		{400, "BadRequest", "red", "POST", "/v2.0/floatingips", put(object{"floating_network_id": w}), "not a valid external network"},
		{400, "BadRequest", "red", "POST", "/v2.0/floatingips", put(object{"floating_network_id": "no"}), "not a valid external network"},
		{400, "BadRequest", "red", "POST", "/v2.0/floatingips", put(object{"floating_network_id": empty}), "does not contain any IPv4 subnet"},
		{400, "BadRequest", "red", "POST", "/v2.0/floatingips", post(object{"subnet_id": s}), "not a subnet of the external network"},
		{400, "BadRequest", "red", "POST", "/v2.0/floatingips", post(object{"subnet_id": "no"}), "no"},
		{403, "PolicyNotAuthorized", "red", "POST", "/v2.0/floatingips", post(object{"floating_ip_address": "203.0.113.14"}), "floating_ip_address"},
		{400, "HTTPBadRequest", "admin", "POST", "/v2.0/floatingips", post(object{"floating_ip_address": "x"}), "IP address"},
		{400, "InvalidIpForNetwork", "admin", "POST", "/v2.0/floatingips", post(object{"floating_ip_address": "198.51.100.1"}), "198.51.100.1"},
		{400, "InvalidIpForSubnet", "admin", "POST", "/v2.0/floatingips", post(object{"floating_ip_address": "203.0.113.1"}), "203.0.113.1"},
		{400, "BadRequest", "admin", "POST", "/v2.0/floatingips", post(object{"floating_ip_address": "fd00::1"}), "IPv4"},
		{409, "IpAddressAlreadyAllocated", "admin", "POST", "/v2.0/floatingips", post(object{"floating_ip_address": used["floating_ip_address"]}), "already allocated"},
		{400, "BadRequest", "red", "POST", "/v2.0/floatingips", post(object{"fixed_ip_address": "10.0.0.8"}), "without a port_id"},
		{404, "PortNotFound", "red", "POST", "/v2.0/floatingips", post(object{"port_id": "no"}), "no"},
		{404, "PortNotFound", "red", "POST", "/v2.0/floatingips", post(object{"port_id": theirs}), theirs},
		{400, "BadRequest", "red", "POST", "/v2.0/floatingips", post(object{"port_id": bare}), "no fixed IPv4 addresses"},
		{400, "BadRequest", "red", "POST", "/v2.0/floatingips", post(object{"port_id": p}), "multiple fixed IPv4 addresses"},
		{400, "BadRequest", "red", "POST", "/v2.0/floatingips", post(object{"port_id": p, "fixed_ip_address": "10.0.0.77"}), "does not have fixed ip"},
		{400, "BadRequest", "red", "POST", "/v2.0/floatingips", post(object{"port_id": p, "fixed_ip_address": "fd00::1"}), "not an IPv4 address"},
		{409, "FloatingIPPortAlreadyAssociated", "red", "POST", "/v2.0/floatingips", post(object{"port_id": p, "fixed_ip_address": "10.0.0.9"}), "already has a floating IP"},
		{404, "ExternalGatewayForFloatingIPNotFound", "red", "POST", "/v2.0/floatingips", post(object{"port_id": far}), "not reachable from subnet"},
		{400, "HTTPBadRequest", "red", "POST", "/v2.0/floatingips", post(object{"dns_name": "-x"}), "dns_name"},
		{400, "BadRequest", "red", "POST", "/v2.0/floatingips", post(object{"dns_domain": "example.org."}), "dns_name"},
		{400, "HTTPBadRequest", "red", "POST", "/v2.0/floatingips", post(object{"status": "ACTIVE"}), "status"},
		{400, "HTTPBadRequest", "red", "PUT", f, put(object{"floating_network_id": out}), "not allowed in PUT"},
		{400, "HTTPBadRequest", "red", "PUT", f, put(object{"port_id": 5}), "not a valid string"},
		{400, "BadRequest", "red", "PUT", f, put(object{"fixed_ip_address": "10.0.0.7"}), "without a port_id"},
		{400, "BadRequest", "red", "PUT", f, put(object{"port_id": nil, "fixed_ip_address": "10.0.0.7"}), "without a port_id"},
		{409, "FloatingIPPortAlreadyAssociated", "red", "PUT", f, put(object{"port_id": p, "fixed_ip_address": "10.0.0.9"}), "already has a floating IP"},
		{404, "FloatingIPNotFound", "blue", "PUT", f, put(object{"port_id": nil}), free},
		{400, "BadRequest", "red", "PUT", "/v2.0/ports/" + p, object{"port": object{"fixed_ips": []object{{"ip_address": "10.0.0.8"}}}}, "10.0.0.9"},
		{404, "FloatingIPNotFound", "red", "GET", "/v2.0/floatingips/no/port_forwardings", nil, "no"},
	} {
		text := c.refused(tc.status, tc.kind, tc.token, tc.method, tc.path, tc.body)
		if !strings.Contains(text, tc.says) {
			t.Errorf("%s %s %v: %q does not say %q", tc.method, tc.path, tc.body, text, tc.says)
		}
	}
	if all() != before {
		t.Error("what was refused has changed something")
	}
	// The gateway and two floating IPs have three of five addresses.
	c.floating("red", out, "port_id", one)
	c.floating("red", out, "subnet_id", outSubnet)
	c.refused(409, "IpAddressGenerationFailure", "red", "POST", "/v2.0/floatingips", post(nil))
	c.refused(409, "IpAddressGenerationFailureForSubnet", "red", "POST", "/v2.0/floatingips", post(object{"subnet_id": outSubnet}))
	c.refused(409, "IpAddressGenerationFailure", "red", "POST", "/v2.0/routers", object{"router": object{"external_gateway_info": object{"network_id": out}}})
	// Another subnet has more; one that is meant for something else has not.
	c.subnet("admin", out, "198.51.100.0/24", "service_types", []string{"network:router_gateway"})
	c.refused(409, "IpAddressGenerationFailure", "red", "POST", "/v2.0/floatingips", post(nil))
	c.subnet("admin", out, "192.0.2.0/24", "service_types", []string{"network:floatingip"})
	if got := c.floating("red", out)["floating_ip_address"].(string); !strings.HasPrefix(got, "192.0.2.") {
		t.Errorf("the address %s", got)
	}
	onlyGateways := c.must(201, "admin", "POST", "/v2.0/networks", object{"network": object{"router:external": true}})["id"].(string)
	c.subnet("admin", onlyGateways, "10.99.0.0/24", "service_types", []string{"network:router_gateway"})
	c.refused(400, "ExternalIpAddressExhausted", "red", "POST", "/v2.0/floatingips", put(object{"floating_network_id": onlyGateways}))
}

// TestPortForwardings takes port forwardings from creation to end, bad ones too.
func TestPortForwardings(t *testing.T) {
	c := newCloud(t)
	out, _ := c.outside("203.0.113.0/24")
	w := c.network("red", "w")
	s := c.subnet("red", w, "10.0.0.0/24")
	r := c.router("red", "r", out, s)
	p := c.port("red", w, "fixed_ips", []object{{"ip_address": "10.0.0.9"}})["id"].(string)
	q := c.port("red", w)["id"].(string)
	w2 := c.network("red", "w2")
	r2 := c.router("red", "r2", out, c.subnet("red", w2, "10.1.0.0/24"))
	other := c.port("red", w2)["id"].(string)
	far := c.port("red", func() string { n := c.network("red", "w3"); c.subnet("red", n, "10.2.0.0/24"); return n }())["id"].(string)
	f := c.floating("red", out)["id"].(string)
	bound := c.floating("red", out, "port_id", q)["id"].(string)
	base := "/v2.0/floatingips/" + f + "/port_forwardings"
	body := func(o object) object { return object{"port_forwarding": o} }
	x := c.must(201, "red", "POST", base, body(object{"protocol": "TCP", "internal_port": 22, "external_port": 2222, "internal_port_id": p, "description": "d"}))
	id := x["id"].(string)
	for k, want := range map[string]any{"protocol": "tcp", "internal_port": 22.0, "external_port": 2222.0, "internal_port_id": p, "internal_ip_address": "10.0.0.9",
		"internal_port_range": "22", "external_port_range": "2222", "description": "d"} {
		if x[k] != want {
			t.Errorf("%s is %v, want %v", k, x[k], want)
		}
	}
	fip := c.must(200, "red", "GET", "/v2.0/floatingips/"+f, nil)
	if list := fip["port_forwardings"].([]any); fip["status"] != "ACTIVE" || fip["router_id"] != r || fip["port_id"] != nil || len(list) != 1 || list[0].(object)["id"] != id {
		t.Errorf("%v", fip)
	}
	wide := c.must(201, "red", "POST", base, body(object{"protocol": "udp", "internal_port_range": "5000:5009", "external_port_range": "6000:6009", "internal_port_id": p, "internal_ip_address": "10.0.0.9"}))
	if wide["external_port"] != nil || wide["external_port_range"] != "6000:6009" || wide["internal_port_range"] != "5000:5009" {
		t.Errorf("%v", wide)
	}
	for query, want := range map[string]int{"": 2, "?protocol=tcp": 1, "?external_port=2222": 1, "?external_port=1": 0, "?internal_port_id=" + p: 2,
		"?internal_ip_address=10.0.0.9&protocol=UDP": 1, "?sort_key=external_port&limit=1": 1, "?id=" + id: 1, "?external_port_range=6000:6009": 1} {
		if got := c.list("red", base+query); len(got) != want {
			t.Errorf("%s finds %d, want %d", query, len(got), want)
		}
	}
	good := func(more object) object {
		o := object{"protocol": "tcp", "internal_port": 80, "external_port": 8080, "internal_port_id": p}
		for k, v := range more {
			if v == nil {
				delete(o, k)
			} else {
				o[k] = v
			}
		}
		return body(o)
	}
	before := string(c.do("admin", "GET", "/v2.0/floatingips", nil).raw)
	for _, tc := range []struct {
		status int
		kind   string
		path   string
		body   any
		says   string
	}{
		{400, "HTTPBadRequest", base, good(object{"protocol": nil}), "protocol"},
		{400, "HTTPBadRequest", base, good(object{"protocol": "icmp"}), "icmp"},
		{400, "HTTPBadRequest", base, good(object{"internal_port_id": nil}), "internal_port_id"},
		{400, "HTTPBadRequest", base, good(object{"internal_port": nil}), "internal_port"},
		{400, "HTTPBadRequest", base, good(object{"external_port": nil}), "external_port"},
		{400, "HTTPBadRequest", base, good(object{"external_port": 0}), "65535"},
		{400, "HTTPBadRequest", base, good(object{"external_port": 65536}), "65535"},
		{400, "HTTPBadRequest", base, good(object{"external_port": "x"}), "integer"},
		{400, "HTTPBadRequest", base, good(object{"external_port_range": "9:8"}), "9:8"},
		{400, "HTTPBadRequest", base, good(object{"external_port_range": "80:81"}), "contradict"},
		{400, "BadRequest", base, good(object{"external_port": nil, "external_port_range": "80:89", "internal_port": nil, "internal_port_range": "80:82"}), "same length"},
		{400, "BadRequest", base, good(object{"external_port": 2222}), "duplicate"},
		{400, "BadRequest", base, good(object{"external_port": nil, "external_port_range": "2200:2300"}), "duplicate"},
		{400, "BadRequest", base, good(object{"internal_port": 22}), "duplicate"},
		{400, "BadRequest", base, good(object{"internal_ip_address": "10.0.0.10"}), "fixed ip"},
		{400, "BadRequest", base, good(object{"internal_port_id": other}), "router"},
		{404, "ExternalGatewayForFloatingIPNotFound", base, good(object{"internal_port_id": far}), far},
		{404, "PortNotFound", base, good(object{"internal_port_id": "no"}), "no"},
		{409, "PortHasBindingFloatingIP", base, good(object{"internal_port_id": q}), q},
		{409, "FloatingIPPortAlreadyAssociated", "/v2.0/floatingips/" + bound + "/port_forwardings", good(nil), bound},
	} {
		if text := c.refused(tc.status, tc.kind, "red", "POST", tc.path, tc.body); !strings.Contains(text, tc.says) {
			t.Errorf("POST %v: %q does not say %q", tc.body, text, tc.says)
		}
	}
	c.refused(404, "PortForwardingNotFound", "red", "GET", base+"/no", nil)
	c.refused(404, "PortForwardingNotFound", "red", "GET", "/v2.0/floatingips/"+bound+"/port_forwardings/"+id, nil)
	c.refused(409, "FipInUseByPortForwarding", "red", "DELETE", "/v2.0/floatingips/"+f, nil)
	c.refused(409, "FipInUseByPortForwarding", "red", "PUT", "/v2.0/floatingips/"+f, object{"floatingip": object{"port_id": other}})
	c.refused(409, "PortHasPortForwarding", "red", "PUT", "/v2.0/floatingips/"+bound, object{"floatingip": object{"port_id": p}})
	c.refused(409, "RouterInterfaceInUseByFloatingIP", "red", "PUT", "/v2.0/routers/"+r+"/remove_router_interface", object{"subnet_id": s})
	c.refused(409, "RouterExternalGatewayInUseByFloatingIp", "red", "PUT", "/v2.0/routers/"+r, object{"router": object{"external_gateway_info": nil}})
	if after := string(c.do("admin", "GET", "/v2.0/floatingips", nil).raw); after != before {
		t.Error("what was refused has changed something")
	}
	c.must(200, "red", "PUT", "/v2.0/routers/"+r2, object{"router": object{"external_gateway_info": nil}})

	x = c.must(200, "red", "PUT", base+"/"+id, body(object{"external_port": 2223, "protocol": "udp", "description": ""}))
	if x["external_port"] != 2223.0 || x["protocol"] != "udp" || x["internal_port"] != 22.0 {
		t.Errorf("%v", x)
	}
	c.refused(400, "BadRequest", "red", "PUT", base+"/"+id, body(object{"external_port": 6003}))
	c.must(204, "red", "DELETE", base+"/"+id, nil)
	// The port that goes takes the last one with it, and the address is no router's any more.
	c.must(204, "red", "DELETE", "/v2.0/ports/"+p, nil)
	fip = c.must(200, "red", "GET", "/v2.0/floatingips/"+f, nil)
	if len(c.list("red", base)) != 0 || fip["router_id"] != nil || fip["status"] != "DOWN" {
		t.Errorf("%v", fip)
	}
	c.must(204, "red", "DELETE", "/v2.0/floatingips/"+f, nil)
}

// TestGatewayHostsShown: an administrator sees where a router's gateway is.
func TestGatewayHostsShown(t *testing.T) {
	c := newCloud(t)
	c.host("h1")
	c.host("h2")
	out, _ := c.outside("203.0.113.0/24")
	r := c.router("red", "r", out)
	if rows := c.list("admin", "/v2.0/routers/"+r+"/l3-agents"); len(rows) != 0 {
		t.Errorf("%v", rows)
	}
	if _, err := c.net.GatewayPlacer().Reconcile(t.Context(), c.store.Snapshot(), c.store); err != nil {
		t.Fatal(err)
	}
	rows := c.list("admin", "/v2.0/routers/"+r+"/l3-agents")
	if len(rows) != 2 || rows[0]["ha_state"] != "active" || rows[1]["ha_state"] != "standby" || rows[0]["id"] == rows[1]["id"] {
		t.Fatalf("%v", rows)
	}
	served := func(host any) int { return len(c.list("admin", fmt.Sprintf("/v2.0/agents/%s/l3-routers", host))) }
	first, second := rows[0]["id"], rows[1]["id"]
	if served(first) != 1 || served(second) != 0 {
		t.Errorf("%d and %d gateways are served", served(first), served(second))
	}
	// An administrator moves it there and back.
	c.must(204, "admin", "DELETE", fmt.Sprintf("/v2.0/agents/%s/l3-routers/%s", first, r), nil)
	if served(first) != 0 || served(second) != 1 {
		t.Errorf("%d and %d gateways are served after the move", served(first), served(second))
	}
	c.refused(409, "RouterNotHostedByL3Agent", "admin", "DELETE", fmt.Sprintf("/v2.0/agents/%s/l3-routers/%s", first, r), nil)
	for range 2 { // the second time nothing is to be done
		if a := c.do("admin", "POST", fmt.Sprintf("/v2.0/agents/%s/l3-routers", first), object{"router_id": r}); a.status != 201 {
			t.Errorf("%d %s", a.status, a.raw)
		}
	}
	if served(first) != 1 || len(c.list("admin", "/v2.0/routers/"+r+"/l3-agents")) != 2 {
		t.Error("the gateway did not come back")
	}
	plain := c.router("red", "plain", "")
	c.refused(409, "RouterSchedulingFailed", "admin", "POST", fmt.Sprintf("/v2.0/agents/%s/l3-routers", first), object{"router_id": plain})
	c.refused(400, "HTTPBadRequest", "admin", "POST", fmt.Sprintf("/v2.0/agents/%s/l3-routers", first), object{})
	c.refused(404, "RouterNotFound", "admin", "POST", fmt.Sprintf("/v2.0/agents/%s/l3-routers", first), object{"router_id": "no"})
	c.refused(404, "AgentNotFound", "admin", "POST", "/v2.0/agents/no/l3-routers", object{"router_id": r})
	if _, err := c.store.Update(t.Context(), func(tx *store.Tx) error { return store.Heartbeats.Delete(tx, fmt.Sprint(second)) }); err != nil {
		t.Fatal(err)
	}
	c.refused(409, "RouterSchedulingFailed", "admin", "POST", fmt.Sprintf("/v2.0/agents/%s/l3-routers", second), object{"router_id": r})
	c.refused(409, "RouterReschedulingFailed", "admin", "DELETE", fmt.Sprintf("/v2.0/agents/%s/l3-routers/%s", first, r), nil)
	c.refused(404, "AgentNotFound", "admin", "GET", "/v2.0/agents/no/l3-routers", nil)
	c.refused(404, "RouterNotFound", "admin", "GET", "/v2.0/routers/no/l3-agents", nil)
	if got := c.must(200, "red", "GET", "/v2.0/routers/"+r, nil); fmt.Sprint(got["availability_zones"]) != "[nova]" {
		t.Errorf("%v", got)
	}
}
