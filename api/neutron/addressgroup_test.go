package neutron_test

import (
	"fmt"
	"slices"
	"testing"
)

func TestAddressGroups(t *testing.T) {
	c := newCloud(t)
	g := c.must(201, "red", "POST", "/v2.0/address-groups", object{"address_group": object{
		"name": "a", "description": "d", "addresses": []string{"10.1.2.3/8", "192.0.2.7", "fd00::/64", "10.0.0.0/8"}}})
	at := "/v2.0/address-groups/" + g["id"].(string)
	holds := func(want string) {
		t.Helper()
		if got := fmt.Sprint(c.must(200, "red", "GET", at, nil)["addresses"]); got != want {
			t.Errorf("it holds %s, want %s", got, want)
		}
	}
	holds("[10.0.0.0/8 192.0.2.7/32 fd00::/64]")
	c.must(200, "red", "PUT", at+"/add_addresses", object{"addresses": []string{"198.51.100.0/24"}})
	c.refused(400, "AddressesAlreadyExist", "red", "PUT", at+"/add_addresses", object{"addresses": []string{"203.0.113.0/24", "192.0.2.7/32"}})
	c.refused(404, "AddressesNotFound", "red", "PUT", at+"/remove_addresses", object{"addresses": []string{"203.0.113.0/24", "192.0.2.7/32"}})
	c.must(200, "red", "PUT", at+"/remove_addresses", object{"address_group": object{"addresses": []string{"192.0.2.7", "10.0.0.0/8"}}})
	holds("[198.51.100.0/24 fd00::/64]")
	for _, body := range []object{{}, {"addresses": 5}, {"addresses": []string{"x"}}, {"address_group": 5}} {
		c.refused(400, "HTTPBadRequest", "red", "PUT", at+"/add_addresses", body)
	}
	c.refused(400, "HTTPBadRequest", "red", "PUT", at, object{"address_group": object{"addresses": []string{}}})
	c.refused(412, "RevisionNumberConstraintFailed", "red", "PUT", at, object{"address_group": object{"name": "b"}}, "If-Match", "revision_number=1")
	if got := c.must(200, "red", "PUT", at, object{"address_group": object{"name": "b"}}, "If-Match", "revision_number=3"); got["name"] != "b" || got["revision_number"] != 4.0 {
		t.Errorf("%v", got)
	}
	if rows := c.list("red", "/v2.0/address-groups?addresses=fd00::/64"); len(rows) != 1 {
		t.Errorf("%v", rows)
	}
	sg := c.must(201, "red", "POST", "/v2.0/security-groups", object{"security_group": object{"name": "g"}})["id"].(string)
	rule := object{"security_group_id": sg, "direction": "ingress", "remote_address_group_id": g["id"]}
	r := c.must(201, "red", "POST", "/v2.0/security-group-rules", object{"security_group_rule": rule})
	if r["remote_address_group_id"] != g["id"] || r["remote_group_id"] != nil || r["remote_ip_prefix"] != nil || r["belongs_to_default_sg"] != false {
		t.Errorf("%v", r)
	}
	c.refused(409, "SecurityGroupRuleExists", "red", "POST", "/v2.0/security-group-rules", object{"security_group_rule": rule})
	c.must(201, "red", "POST", "/v2.0/security-group-rules", object{"security_group_rule": object{"security_group_id": sg, "direction": "ingress"}})
	c.refused(409, "AddressGroupInUse", "red", "DELETE", at, nil)
	c.must(204, "red", "DELETE", "/v2.0/security-group-rules/"+r["id"].(string), nil)
	c.must(204, "red", "DELETE", at, nil)
	c.refused(404, "AddressGroupNotFound", "red", "GET", at, nil)
	c.must(200, "admin", "PUT", "/v2.0/quotas/"+red, object{"quota": object{"address_group": 0}})
	c.refused(409, "OverQuota", "red", "POST", "/v2.0/address-groups", object{"address_group": object{"name": "a"}})
}

func TestStatelessGroups(t *testing.T) {
	c := newCloud(t)
	w := c.network("red", "w")
	group := func(name string, stateful bool) string {
		g := c.must(201, "red", "POST", "/v2.0/security-groups", object{"security_group": object{"name": name, "stateful": stateful}})
		if g["stateful"] != stateful {
			t.Errorf("%v", g)
		}
		return g["id"].(string)
	}
	loose, tight := group("loose", false), group("tight", true)
	p := c.port("red", w, "security_groups", []string{loose})["id"].(string)
	c.refused(409, "SecurityGroupConflict", "red", "PUT", "/v2.0/ports/"+p, object{"port": object{"security_groups": []string{loose, tight}}})
	c.refused(409, "SecurityGroupConflict", "red", "POST", "/v2.0/ports", object{"port": object{"network_id": w, "security_groups": []string{tight, loose}}})
	c.refused(409, "SecurityGroupInUse", "red", "PUT", "/v2.0/security-groups/"+loose, object{"security_group": object{"stateful": true}})
	c.must(200, "red", "PUT", "/v2.0/security-groups/"+loose, object{"security_group": object{"stateful": false, "name": "still"}})
	c.must(200, "red", "PUT", "/v2.0/ports/"+p, object{"port": object{"security_groups": []string{tight}}})
	c.must(200, "red", "PUT", "/v2.0/security-groups/"+loose, object{"security_group": object{"stateful": true}})
	c.must(200, "red", "PUT", "/v2.0/ports/"+p, object{"port": object{"security_groups": []string{loose, tight}}})
	if rows := c.list("red", "/v2.0/security-groups?stateful=False"); len(rows) != 0 {
		t.Errorf("%v", rows)
	}
}

func TestDefaultRules(t *testing.T) {
	c := newCloud(t)
	first := c.list("red", "/v2.0/default-security-group-rules")
	if len(first) != 4 || !slices.ContainsFunc(first, func(r object) bool {
		return r["direction"] == "ingress" && r["remote_group_id"] == "PARENT" && r["used_in_default_sg"] == true && r["used_in_non_default_sg"] == false
	}) {
		t.Fatalf("%v", first)
	}
	egress6 := ""
	for _, r := range first {
		if r["direction"] == "egress" && r["ethertype"] == "IPv6" {
			egress6 = r["id"].(string)
		}
	}
	make := func(rule object) object {
		t.Helper()
		rule["direction"] = "ingress"
		return c.must(201, "admin", "POST", "/v2.0/default-security-group-rules", object{"default_security_group_rule": rule})
	}
	ssh := make(object{"protocol": "tcp", "port_range_min": 22, "port_range_max": 22, "remote_ip_prefix": "192.0.2.0/24", "description": "the office"})
	if ssh["used_in_default_sg"] != false || ssh["used_in_non_default_sg"] != true {
		t.Errorf("%v", ssh)
	}
	make(object{"protocol": "icmp", "remote_group_id": "PARENT", "used_in_default_sg": true})
	post := func(rule object) object { return object{"default_security_group_rule": rule} }
	for _, tc := range []struct {
		status int
		kind   string
		rule   object
	}{
		{409, "DefaultSecurityGroupRuleExists", object{"direction": "ingress", "protocol": "6", "port_range_min": 22, "port_range_max": 22, "remote_ip_prefix": "192.0.2.0/24"}},
		{409, "DefaultSecurityGroupRuleExists", object{"direction": "egress"}},
		{400, "HTTPBadRequest", object{"direction": "up"}},
		{400, "SecurityGroupProtocolRequiredWithPorts", object{"direction": "ingress", "port_range_min": 1, "port_range_max": 2}},
		{404, "SecurityGroupNotFound", object{"direction": "ingress", "remote_group_id": "no"}},
		{404, "AddressGroupNotFound", object{"direction": "ingress", "remote_address_group_id": "no"}},
		{400, "HTTPBadRequest", object{"direction": "ingress", "security_group_id": "x"}},
	} {
		c.refused(tc.status, tc.kind, "admin", "POST", "/v2.0/default-security-group-rules", post(tc.rule))
	}
	c.must(204, "admin", "DELETE", "/v2.0/default-security-group-rules/"+egress6, nil)
	c.refused(404, "DefaultSecurityGroupRuleNotFound", "admin", "DELETE", "/v2.0/default-security-group-rules/"+egress6, nil)
	if rows := c.list("red", "/v2.0/default-security-group-rules"); len(rows) != 5 {
		t.Errorf("%d rules", len(rows))
	}

	summary := func(rules any) string {
		var out []string
		for _, x := range rules.([]any) {
			r := x.(object)
			out = append(out, fmt.Sprint(r["direction"], " ", r["ethertype"], " ", r["protocol"], " ", r["remote_ip_prefix"], " ", r["remote_group_id"] == r["security_group_id"]))
		}
		slices.Sort(out)
		return fmt.Sprint(out)
	}
	g := c.must(201, "red", "POST", "/v2.0/security-groups", object{"security_group": object{"name": "g"}})
	if got := summary(g["security_group_rules"]); got != "[egress IPv4 <nil> <nil> false ingress IPv4 icmp <nil> true ingress IPv4 tcp 192.0.2.0/24 false]" {
		t.Errorf("a new group has %s", got)
	}
	for _, d := range c.list("red", "/v2.0/security-groups?name=default") {
		if got := summary(d["security_group_rules"]); got != "[egress IPv4 <nil> <nil> false ingress IPv4 <nil> <nil> true ingress IPv4 icmp <nil> true ingress IPv6 <nil> <nil> true]" {
			t.Errorf("a default group has %s", got)
		}
	}
	// A deleted one may come again, and what groups have they keep.
	c.must(201, "admin", "POST", "/v2.0/default-security-group-rules", post(object{"direction": "egress", "ethertype": "IPv6"}))
	if got := c.must(200, "red", "GET", "/v2.0/security-groups/"+g["id"].(string), nil)["security_group_rules"].([]any); len(got) != 3 {
		t.Errorf("the old group has %d rules", len(got))
	}
}
