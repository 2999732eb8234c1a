package neutron_test

import (
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"yakumo/api"
	"yakumo/store"
)

// TestRightsOfEveryRoute walks the table of rights: without a token nothing but what is
// public answers, a reader changes nothing, a tenant reaches nothing of an administrator's,
// and what belongs to another project is not found and not changed.
func TestRightsOfEveryRoute(t *testing.T) {
	c := newCloud(t)
	host := c.host("h1")
	w := c.network("red", "w")
	s := c.subnet("red", w, "10.0.0.0/24")
	p := c.port("red", w, "name", "p")["id"].(string)
	g := c.must(201, "red", "POST", "/v2.0/security-groups", object{"security_group": object{"name": "g"}})
	rule := g["security_group_rules"].([]any)[0].(object)["id"].(string)
	mine := map[string]string{
		"networks": w, "subnets": s, "ports": p, "security-groups": g["id"].(string), "security-group-rules": rule, "agents": host.ID,
		"network-ip-availabilities": w,
	}
	mine["rbac-policies"] = c.must(201, "red", "POST", "/v2.0/rbac-policies", object{"rbac_policy": object{
		"object_type": "network", "object_id": w, "action": "access_as_shared", "target_tenant": "somebody"}})["id"].(string)
	outside, _ := c.outside("203.0.113.0/24")
	mine["routers"] = c.router("red", "r", outside, s)
	mine["floatingips"] = c.must(201, "red", "POST", "/v2.0/floatingips", object{"floatingip": object{"floating_network_id": outside}})["id"].(string)
	forwarding := c.must(201, "red", "POST", "/v2.0/floatingips/"+mine["floatingips"]+"/port_forwardings", object{"port_forwarding": object{
		"protocol": "tcp", "internal_port": 22, "external_port": 2222, "internal_port_id": p}})["id"].(string)
	mine["address-groups"] = c.must(201, "red", "POST", "/v2.0/address-groups", object{"address_group": object{"name": "a", "addresses": []string{"10.0.0.0/8"}}})["id"].(string)
	mine["address-scopes"] = c.must(201, "red", "POST", "/v2.0/address-scopes", object{"address_scope": object{"name": "a", "ip_version": 4}})["id"].(string)
	mine["subnetpools"] = c.must(201, "red", "POST", "/v2.0/subnetpools", object{"subnetpool": object{"name": "a", "prefixes": []string{"10.0.0.0/8"}}})["id"].(string)
	mine["default-security-group-rules"] = ids(c.list("admin", "/v2.0/default-security-group-rules"))[0]
	maps.Copy(mine, c.seed(w))
	for kind := range mine {
		if slices.Contains([]string{"networks", "subnets", "ports", "security-groups", "routers", "floatingips", "subnetpools", "trunks"}, kind) {
			c.must(200, "red", "PUT", "/v2.0/"+kind+"/"+mine[kind]+"/tags", object{"tags": []string{"t"}})
		}
	}
	bodies := map[string]object{
		"networks": {"network": object{"name": "x"}}, "subnets": {"subnet": object{"name": "x"}}, "ports": {"port": object{"name": "x"}},
		"routers": {"router": object{"name": "x"}}, "floatingips": {"floatingip": object{"description": "x"}},
		"security-groups": {"security_group": object{"name": "x"}}, "rbac-policies": {"rbac_policy": object{"target_tenant": "somebody else"}}, "address-groups": {"address_group": object{"name": "x"}},
		"subnetpools": {"subnetpool": object{"name": "x"}}, "address-scopes": {"address_scope": object{"name": "x"}},
		"agents": {"agent": object{"description": "x"}}, "quotas": {"quota": object{"port": 1}},
	}
	everything := func() (out string) {
		for _, kind := range []string{"networks", "ports", "subnets", "security-groups", "routers", "floatingips", "address-groups", "default-security-group-rules", "rbac-policies", "subnetpools", "address-scopes",
			"qos/policies", "trunks", "taas/tap_services", "taas/tap_flows"} {
			out += string(c.do("admin", "GET", "/v2.0/"+kind, nil).raw)
		}
		return out
	}
	c.must(200, "admin", "PUT", "/v2.0/policies/"+mine["policies"]+"/tags", object{"tags": []string{"t"}})
	maps.Copy(bodies, map[string]object{"policies": {"policy": object{"name": "x"}}, "trunks": {"trunk": object{"name": "x"}},
		"tap_services": {"tap_service": object{"name": "x"}}, "tap_flows": {"tap_flow": object{"name": "x"}}})
	for single, body := range ruleBodies {
		bodies[single+"s"] = object{single: body, "alias_" + single: body}
	}
	before := everything()
	checked := 0
	for _, row := range c.front.Table() {
		path := strings.TrimPrefix(row.Path, "/network")
		kind := kindOf(path)
		id := mine[kind]
		if strings.Contains(path, "port_forwardings") {
			id = forwarding
		}
		real := strings.NewReplacer("{id}", id, "{floatingip}", mine[kind], "{tag}", "t", "{router}", mine["routers"], "{project}", red, "{alias}", "quotas",
			"{policy}", mine["policies"], "{type}", "bandwidth_limit").Replace(path)
		var body any
		if row.Method == http.MethodPost || row.Method == http.MethodPut {
			body = bodies[kind]
			if strings.HasSuffix(real, "/tags") {
				body = object{"tags": []string{"y"}}
			}
			if strings.HasSuffix(real, "extraroutes") {
				body = object{"router": object{"routes": []any{}}}
			}
			if strings.HasSuffix(real, "_prefixes") {
				body = object{"prefixes": []string{"10.0.0.0/8"}}
			}
			if strings.HasSuffix(real, "onboard_network_subnets") {
				body = object{"network_id": w}
			}
			if strings.HasSuffix(real, "_addresses") {
				body = object{"addresses": []string{"10.0.0.0/8"}}
			}
			if strings.HasSuffix(real, "_subports") {
				body = object{"sub_ports": []any{}}
			}
			if body == nil {
				body = object{}
			}
		}
		try := func(token string) int { return c.do(token, row.Method, real, body).status }
		name := row.Method + " " + path
		checked++
		if row.Access == api.Public {
			if got := try(""); got != 200 {
				t.Errorf("%s is public and answers %d", name, got)
			}
			continue
		}
		for _, token := range []string{"", "nonsense"} {
			a := c.do(token, row.Method, real, body)
			if a.status != 401 || a.header.Get("WWW-Authenticate") == "" || a.body["error"] == nil {
				t.Errorf("%s with the token %q: %d %s", name, token, a.status, a.raw)
			}
		}
		if row.Access != api.Anyone {
			if got := try("unscoped"); got != 403 {
				t.Errorf("%s with an unscoped token: %d", name, got)
			}
		}
		writes := row.Method != http.MethodGet
		if writes && row.Access != api.Member && row.Access != api.Admin {
			t.Errorf("%s writes, and needs only %s", name, row.Access)
		}
		if writes {
			if got := try("red-reader"); got != 403 {
				t.Errorf("%s as a reader: %d", name, got)
			}
		}
		if row.Access == api.Admin {
			for _, token := range []string{"red", "red-admin"} { // an administrator of a project is none of the cloud
				if got := try(token); got != 403 {
					t.Errorf("%s as %s: %d", name, token, got)
				}
			}
			continue
		}
		if kind != "default-security-group-rules" && (strings.Contains(path, "{id}") || strings.Contains(path, "{floatingip}") || strings.Contains(path, "{policy}")) { // those are everybody's to read
			if got := try("blue"); got != 404 {
				t.Errorf("%s of another project: %d", name, got)
			}
		}
		if strings.Contains(path, "{project}") {
			if got := try("blue"); got != 403 {
				t.Errorf("%s of another project: %d", name, got)
			}
		}
	}
	if checked < 155 {
		t.Errorf("only %d routes were checked", checked)
	}
	if before != everything() {
		t.Error("what was refused has changed something")
	}
	for _, query := range []string{"routers", "routers?id=" + mine["routers"], "routers?project_id=" + red, "routers?name=r", "floatingips",
		"floatingips?id=" + mine["floatingips"], "floatingips?router_id=" + mine["routers"], "floatingips?project_id=" + red, "ports?device_id=" + mine["routers"],
		"ports?network_id=" + outside, "subnets?network_id=" + outside,
		"qos/policies", "qos/policies?id=" + mine["policies"], "qos/policies?project_id=" + red, "trunks", "trunks?id=" + mine["trunks"], "trunks?project_id=" + red,
		"taas/tap_services", "taas/tap_services?project_id=" + red, "taas/tap_flows?tap_service_id=" + mine["tap_services"], "taas/tap_flows?id=" + mine["tap_flows"]} {
		if rows := c.list("blue", "/v2.0/"+query); len(rows) != 0 {
			t.Errorf("another project lists %s: %v", query, rows)
		}
	}
	for _, kind := range []string{"networks", "subnets", "ports"} {
		for _, query := range []string{"", "?id=" + mine[kind], "?project_id=" + red, "?network_id=" + w, "?fixed_ips=subnet_id=" + s, "?name=p"} {
			if kind == "networks" && strings.Contains(query, "network_id") || kind != "ports" && strings.Contains(query, "fixed_ips") {
				continue
			}
			for _, r := range c.list("blue", "/v2.0/"+kind+query) {
				if r["id"] != outside { // which everybody sees
					t.Errorf("another project lists %s%s: %v", kind, query, r)
				}
			}
		}
	}
	for _, query := range []string{"", "?project_id=" + red, "?id=" + mine["security-groups"], "?name=g"} {
		for _, r := range c.list("blue", "/v2.0/security-groups"+query) {
			if r["project_id"] != blue {
				t.Errorf("another project lists the group %v", r)
			}
		}
	}
	for _, query := range []string{"", "?project_id=" + red, "?security_group_id=" + mine["security-groups"], "?id=" + rule} {
		for _, r := range c.list("blue", "/v2.0/security-group-rules"+query) {
			if r["project_id"] != blue {
				t.Errorf("another project lists the rule %v", r)
			}
		}
	}
}

// TestAdministratorsAttributes: what only an administrator may set a tenant may not, and
// what only an administrator may see a tenant does not.
func TestAdministratorsAttributes(t *testing.T) {
	c := newCloud(t)
	c.host("h1")
	w := c.network("red", "w")
	p := c.port("red", w)["id"].(string)
	for name, value := range map[string]any{
		"shared": true, "router:external": true, "provider:network_type": "vxlan", "provider:segmentation_id": 77, "provider:physical_network": "x",
	} {
		c.refused(403, "PolicyNotAuthorized", "red", "POST", "/v2.0/networks", object{"network": object{name: value}})
		c.refused(403, "PolicyNotAuthorized", "red", "PUT", "/v2.0/networks/"+w, object{"network": object{name: value}})
	}
	for name, value := range map[string]any{"binding:host_id": "h1", "binding:profile": object{"a": 1}} {
		c.refused(403, "PolicyNotAuthorized", "red", "POST", "/v2.0/ports", object{"port": object{"network_id": w, name: value}})
		c.refused(403, "PolicyNotAuthorized", "red", "PUT", "/v2.0/ports/"+p, object{"port": object{name: value}})
	}
	// A client that sends every attribute with nothing in it is served.
	c.must(201, "red", "POST", "/v2.0/networks", object{"network": object{"shared": false, "router:external": false, "provider:segmentation_id": nil}})
	for _, path := range []string{"/v2.0/ports/" + p, "/v2.0/networks/" + w} {
		a := c.must(200, "red", "GET", path, nil)
		for k := range a {
			if strings.HasPrefix(k, "provider:") || strings.HasPrefix(k, "binding:") && k != "binding:vnic_type" {
				t.Errorf("a tenant is shown %s", k)
			}
		}
	}
	for _, q := range []string{"ports?binding:host_id=h1", "networks?provider:segmentation_id=5"} {
		c.refused(403, "PolicyNotAuthorized", "red", "GET", "/v2.0/"+q, nil)
	}
	for _, kind := range []string{"networks", "ports", "security-groups"} {
		body := object{"project_id": blue}
		if kind == "ports" {
			body["network_id"] = w
		}
		single := strings.ReplaceAll(strings.TrimSuffix(kind, "s"), "-", "_")
		c.refused(403, "PolicyNotAuthorized", "red", "POST", "/v2.0/"+kind, object{single: body})
	}
	got := c.must(200, "admin", "PUT", "/v2.0/ports/"+p, object{"port": object{"binding:host_id": "h1", "binding:profile": object{"a": 1}}})
	if got["binding:host_id"] != "h1" || got["binding:vif_type"] != "ovs" || got["binding:profile"].(object)["a"] != 1.0 {
		t.Errorf("bound by hand: %v", got)
	}
	if rows := c.list("admin", "/v2.0/ports?binding:host_id=h1"); len(rows) != 1 {
		t.Errorf("ports of the host: %v", rows)
	}
	c.host("h2")
	if _, err := c.store.Update(t.Context(), func(tx *store.Tx) error {
		next, _ := store.Hosts.Holder(tx, "h2")
		old, _ := store.Ports.Get(tx, p)
		moving := *old
		moving.NextHost = next
		return store.Ports.Put(tx, &moving)
	}); err != nil {
		t.Fatal(err)
	}
	if profile := c.must(200, "admin", "GET", "/v2.0/ports/"+p, nil)["binding:profile"].(object); profile["migrating_to"] != "h2" || profile["a"] != 1.0 {
		t.Errorf("the profile of a port on its way to another host: %v", profile)
	}
	got = c.must(200, "admin", "PUT", "/v2.0/ports/"+p, object{"port": object{"binding:host_id": ""}})
	if got["binding:host_id"] != "" || got["binding:vif_type"] != "unbound" {
		t.Errorf("unbound by hand: %v", got)
	}
	// An administrator without a project must say whose a thing is.
	c.refused(400, "HTTPBadRequest", "system", "POST", "/v2.0/networks", object{"network": object{"name": "x"}})
	given := c.must(201, "system", "POST", "/v2.0/networks", object{"network": object{"name": "x", "project_id": red}})
	if given["project_id"] != red {
		t.Errorf("made for %v", given["project_id"])
	}
	c.must(200, "red", "GET", "/v2.0/networks/"+given["id"].(string), nil)
}
