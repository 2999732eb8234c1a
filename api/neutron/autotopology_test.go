package neutron_test

import "testing"

func TestAutoTopology(t *testing.T) {
	c := newCloud(t)
	at := "/v2.0/auto-allocated-topology/" + red
	c.refused(409, "AutoAllocationFailure", "red", "GET", at+"?fields=dry-run", nil)
	outside, _ := c.outside("203.0.113.0/24")
	c.must(200, "admin", "PUT", "/v2.0/networks/"+outside, object{"network": object{"is_default": true}})
	c.refused(409, "AutoAllocationFailure", "red", "GET", at, nil)
	c.refused(403, "PolicyNotAuthorized", "red", "POST", "/v2.0/networks", object{"network": object{"is_default": true}})
	c.refused(409, "DefaultExternalNetworkExists", "admin", "POST", "/v2.0/networks", object{"network": object{"is_default": true, "router:external": true}})
	c.pool("admin", []string{"10.0.0.0/16"}, "is_default", true, "shared", true, "default_prefixlen", 24)
	c.pool("admin", []string{"fd00::/48"}, "is_default", true, "shared", true)
	if got := c.must(200, "red", "GET", at+"?fields=dry-run", nil); got["id"] != "dry-run=pass" {
		t.Errorf("%v", got)
	}
	c.refused(403, "PolicyNotAuthorized", "blue", "GET", at, nil)
	made := c.must(200, "red", "GET", at, nil)
	if again := c.must(200, "red", "GET", "/v2.0/auto-allocated-topology/None", nil); again["id"] != made["id"] || made["project_id"] != red {
		t.Errorf("%v, then %v", made, again)
	}
	id := made["id"].(string)
	if rows := c.list("red", "/v2.0/subnets?network_id="+id); len(rows) != 2 || rows[0]["project_id"] != red {
		t.Errorf("subnets: %v", rows)
	}
	if rows := c.list("red", "/v2.0/routers"); len(rows) != 1 || rows[0]["external_gateway_info"].(object)["network_id"] != outside {
		t.Errorf("routers: %v", rows)
	}
	p := c.port("red", id)
	if len(p["fixed_ips"].([]any)) != 2 {
		t.Errorf("%v", p["fixed_ips"])
	}
	c.refused(409, "NetworkInUse", "red", "DELETE", at, nil)
	c.must(204, "red", "DELETE", "/v2.0/ports/"+p["id"].(string), nil)
	c.must(204, "red", "DELETE", at, nil)
	c.refused(404, "AutoAllocatedTopologyNotFound", "red", "DELETE", at, nil)
	if rows := c.list("red", "/v2.0/routers"); len(rows) != 0 {
		t.Errorf("left: %v", rows)
	}
	if rows := c.list("red", "/v2.0/subnets?project_id="+red); len(rows) != 0 {
		t.Errorf("left: %v", rows)
	}
}
