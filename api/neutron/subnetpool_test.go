package neutron_test

import (
	"fmt"
	"testing"
)

func (c *cloud) pool(token string, prefixes []string, more ...any) string {
	c.t.Helper()
	p := object{"name": "p", "prefixes": prefixes}
	for i := 0; i+1 < len(more); i += 2 {
		p[more[i].(string)] = more[i+1]
	}
	return c.must(201, token, "POST", "/v2.0/subnetpools", object{"subnetpool": p})["id"].(string)
}

func TestSubnetPoolLife(t *testing.T) {
	c := newCloud(t)
	id := c.pool("red", []string{"10.0.0.0/16", "10.1.0.0/16", "10.0.5.0/24"}, "default_prefixlen", 24, "min_prefixlen", "20", "max_prefixlen", 28, "default_quota", 1024, "description", "d")
	at := "/v2.0/subnetpools/" + id
	p := c.must(200, "red", "GET", at, nil)
	for k, want := range map[string]any{"default_prefixlen": "24", "min_prefixlen": "20", "max_prefixlen": "28", "default_quota": 1024.0, "ip_version": 4.0,
		"shared": false, "is_default": false, "address_scope_id": nil, "description": "d", "project_id": red, "revision_number": 1.0} {
		if p[k] != want {
			t.Errorf("%s = %v, want %v", k, p[k], want)
		}
	}
	if got := fmt.Sprint(p["prefixes"]); got != "[10.0.0.0/15]" {
		t.Errorf("prefixes %s", got)
	}
	w := c.network("red", "w")
	make := func(more ...any) object {
		s := object{"network_id": w, "subnetpool_id": id}
		for i := 0; i+1 < len(more); i += 2 {
			s[more[i].(string)] = more[i+1]
		}
		return object{"subnet": s}
	}
	one := c.must(201, "red", "POST", "/v2.0/subnets", make())
	two := c.must(201, "red", "POST", "/v2.0/subnets", make("ip_version", 4, "cidr", "10.0.2.0/24", "allocation_pools", []object{{"start": "10.0.2.9", "end": "10.0.2.20"}}))
	three := c.must(201, "red", "POST", "/v2.0/subnets", make("prefixlen", 25))
	if one["cidr"] != "10.0.0.0/24" || one["gateway_ip"] != "10.0.0.1" || one["subnetpool_id"] != id || two["cidr"] != "10.0.2.0/24" || three["cidr"] != "10.0.1.0/25" {
		t.Errorf("%v, %v, %v", one["cidr"], two["cidr"], three["cidr"])
	}
	if rows := c.list("red", "/v2.0/subnets?subnetpool_id="+id); len(rows) != 3 {
		t.Errorf("%d subnets of the pool", len(rows))
	}
	for _, tc := range []struct {
		status int
		kind   string
		body   object
	}{
		{400, "MinPrefixSubnetAllocationError", make("prefixlen", 19)},
		{400, "MaxPrefixSubnetAllocationError", make("prefixlen", 29)},
		{400, "MaxPrefixSubnetAllocationError", make("cidr", "10.0.9.0/29")},
		{409, "SubnetAllocationError", make("cidr", "10.0.0.0/25")},
		{409, "SubnetAllocationError", make("cidr", "10.2.0.0/24")},
		{409, "SubnetPoolQuotaExceeded", make("prefixlen", 22)},
		{400, "BadRequest", make("ip_version", 6)},
		{400, "BadRequest", make("allocation_pools", []object{{"start": "10.0.2.9", "end": "10.0.2.20"}})},
		{400, "NetworkSubnetPoolAffinityError", object{"subnet": object{"network_id": w, "ip_version": 4, "cidr": "192.168.0.0/24"}}},
	} {
		c.refused(tc.status, tc.kind, "red", "POST", "/v2.0/subnets", tc.body)
	}
	c.refused(400, "SubnetPoolDeleteError", "red", "DELETE", at, nil)
	c.refused(400, "IllegalSubnetPoolPrefixUpdate", "red", "PUT", at, object{"subnetpool": object{"prefixes": []string{"10.0.0.0/16"}}})
	c.refused(400, "IllegalSubnetPoolPrefixUpdate", "red", "PUT", at+"/remove_prefixes", object{"prefixes": []string{"10.0.2.0/25"}})
	if got := c.do("red", "PUT", at+"/remove_prefixes", object{"prefixes": []string{"10.1.0.0/16", "10.0.128.0/17"}}); string(got.raw) != `{"prefixes":["10.0.0.0/17"]}` {
		t.Errorf("%d %s", got.status, got.raw)
	}
	c.refused(400, "EmptySubnetPoolPrefixList", "red", "PUT", at+"/remove_prefixes", object{"prefixes": []string{"10.0.0.0/8"}})
	if got := c.do("red", "PUT", at+"/add_prefixes", object{"prefixes": []string{"192.168.0.0/24"}}); string(got.raw) != `{"prefixes":["10.0.0.0/17","192.168.0.0/24"]}` {
		t.Errorf("%d %s", got.status, got.raw)
	}
	c.refused(400, "PrefixVersionMismatch", "red", "PUT", at+"/add_prefixes", object{"prefixes": []string{"fd00::/64"}})
	c.refused(400, "HTTPBadRequest", "red", "PUT", at+"/add_prefixes", object{})
	c.refused(412, "RevisionNumberConstraintFailed", "red", "PUT", at, object{"subnetpool": object{"name": "q"}}, "If-Match", "revision_number=1")
	if got := c.must(200, "red", "PUT", at, object{"subnetpool": object{"name": "q", "default_quota": nil, "default_prefixlen": 26}}); got["name"] != "q" || got["default_quota"] != nil || got["default_prefixlen"] != "26" {
		t.Errorf("%v", got)
	}
	c.must(201, "red", "PUT", at+"/tags/t", nil)
	c.must(204, "red", "DELETE", "/v2.0/networks/"+w, nil)
	c.must(204, "red", "DELETE", at, nil)
	c.refused(404, "SubnetPoolNotFound", "red", "GET", at, nil)
}

func TestDefaultPools(t *testing.T) {
	c := newCloud(t)
	four := c.pool("admin", []string{"10.0.0.0/24"}, "default_prefixlen", 26, "is_default", true, "shared", true)
	six := c.pool("admin", []string{"fd00::/62"}, "is_default", true, "shared", true)
	c.refused(400, "InvalidInput", "admin", "POST", "/v2.0/subnetpools", object{"subnetpool": object{"name": "p", "prefixes": []string{"10.9.0.0/24"}, "is_default": true}})
	c.refused(403, "PolicyNotAuthorized", "red", "PUT", "/v2.0/subnetpools/"+four, object{"subnetpool": object{"name": "mine"}})
	if rows := c.list("red", "/v2.0/subnetpools?is_default=True&ip_version=6"); len(rows) != 1 || rows[0]["id"] != six || rows[0]["shared"] != true {
		t.Errorf("%v", rows)
	}
	w := c.network("red", "w")
	a := c.must(201, "red", "POST", "/v2.0/subnets", object{"subnet": object{"network_id": w, "ip_version": 4, "use_default_subnetpool": true}})
	b := c.must(201, "red", "POST", "/v2.0/subnets", object{"subnet": object{"network_id": w, "ip_version": 6, "use_default_subnetpool": true, "ipv6_ra_mode": "slaac", "ipv6_address_mode": "slaac"}})
	if a["cidr"] != "10.0.0.0/26" || a["subnetpool_id"] != four || b["cidr"] != "fd00::/64" || b["subnetpool_id"] != six {
		t.Errorf("%v, %v", a, b)
	}
	for i := range 4 { // four /64s are in a /62
		body := object{"subnet": object{"network_id": w, "ip_version": 6, "use_default_subnetpool": true}}
		if i < 3 {
			c.must(201, "red", "POST", "/v2.0/subnets", body)
		} else {
			c.refused(409, "SubnetAllocationError", "red", "POST", "/v2.0/subnets", body)
		}
	}
	c.must(200, "admin", "PUT", "/v2.0/subnetpools/"+four, object{"subnetpool": object{"is_default": false}})
	c.refused(400, "BadRequest", "red", "POST", "/v2.0/subnets", object{"subnet": object{"network_id": w, "ip_version": 4, "use_default_subnetpool": true}})
}

func TestAddressScopes(t *testing.T) {
	c := newCloud(t)
	scope := c.must(201, "red", "POST", "/v2.0/address-scopes", object{"address_scope": object{"name": "a", "ip_version": 4}})["id"].(string)
	at := "/v2.0/address-scopes/" + scope
	one := c.pool("red", []string{"10.0.0.0/16"}, "address_scope_id", scope, "default_prefixlen", 24)
	body := func(more ...any) object {
		p := object{"name": "p", "address_scope_id": scope}
		for i := 0; i+1 < len(more); i += 2 {
			p[more[i].(string)] = more[i+1]
		}
		return object{"subnetpool": p}
	}
	c.refused(409, "AddressScopePrefixConflict", "red", "POST", "/v2.0/subnetpools", body("prefixes", []string{"10.0.9.0/24"}))
	c.refused(400, "IllegalSubnetPoolIpVersionAssociationToAddressScope", "red", "POST", "/v2.0/subnetpools", body("prefixes", []string{"fd00::/48"}))
	c.refused(404, "AddressScopeNotFound", "blue", "POST", "/v2.0/subnetpools", body("prefixes", []string{"10.5.0.0/16"}))
	two := c.pool("red", []string{"10.1.0.0/16"}, "default_prefixlen", 24)
	c.must(200, "red", "PUT", "/v2.0/subnetpools/"+two, object{"subnetpool": object{"address_scope_id": scope}})
	c.refused(409, "AddressScopePrefixConflict", "red", "PUT", "/v2.0/subnetpools/"+two+"/add_prefixes", object{"prefixes": []string{"10.0.0.0/24"}})
	if rows := c.list("red", "/v2.0/subnetpools?address_scope_id="+scope); len(rows) != 2 {
		t.Errorf("%v", rows)
	}
	w := c.network("red", "w")
	for _, pool := range []string{one, two} { // two pools of one scope may serve one network
		c.must(201, "red", "POST", "/v2.0/subnets", object{"subnet": object{"network_id": w, "subnetpool_id": pool}})
	}
	if got := c.must(200, "red", "GET", "/v2.0/networks/"+w, nil); got["ipv4_address_scope"] != scope || got["ipv6_address_scope"] != nil {
		t.Errorf("scopes of the network: %v, %v", got["ipv4_address_scope"], got["ipv6_address_scope"])
	}
	other := c.must(201, "red", "POST", "/v2.0/address-scopes", object{"address_scope": object{"name": "b", "ip_version": 4}})["id"].(string)
	three := c.pool("red", []string{"10.0.0.0/16"}, "address_scope_id", other)
	c.refused(400, "NetworkAddressScopeAffinityError", "red", "POST", "/v2.0/subnets", object{"subnet": object{"network_id": w, "subnetpool_id": three, "prefixlen": 28}})
	c.refused(409, "AddressScopeInUse", "red", "DELETE", at, nil)
	c.refused(403, "PolicyNotAuthorized", "red", "PUT", at, object{"address_scope": object{"shared": true}})
	c.must(200, "admin", "PUT", at, object{"address_scope": object{"shared": true}})
	if got := c.must(200, "blue", "GET", at, nil); got["shared"] != true {
		t.Errorf("%v", got)
	}
	c.refused(400, "AddressScopeUpdateError", "admin", "PUT", at, object{"address_scope": object{"shared": false}})
	c.refused(400, "HTTPBadRequest", "red", "PUT", at, object{"address_scope": object{"ip_version": 6}})
	c.must(200, "red", "PUT", "/v2.0/subnetpools/"+three, object{"subnetpool": object{"address_scope_id": nil}})
	c.must(204, "red", "DELETE", "/v2.0/address-scopes/"+other, nil)
}

func TestOnboard(t *testing.T) {
	c := newCloud(t)
	w := c.network("red", "w")
	s := c.subnet("red", w, "10.5.0.0/24")
	pool := c.pool("red", []string{"10.0.0.0/24"}, "default_prefixlen", 26)
	at := "/v2.0/subnetpools/" + pool + "/onboard_network_subnets"
	c.refused(400, "HTTPBadRequest", "red", "PUT", at, object{})
	c.refused(404, "NetworkNotFound", "red", "PUT", at, object{"network_id": "no"})
	got := c.must(200, "red", "PUT", at, object{"network_id": w})
	if fmt.Sprint(got["prefixes"]) != "[10.0.0.0/24 10.5.0.0/24]" || c.must(200, "red", "GET", "/v2.0/subnets/"+s, nil)["subnetpool_id"] != pool {
		t.Errorf("%v", got)
	}
	c.refused(400, "IllegalSubnetPoolUpdate", "red", "PUT", at, object{"network_id": w})
	w2 := c.network("red", "w2")
	c.subnet("red", w2, "10.5.0.0/25")
	c.refused(400, "IllegalSubnetPoolUpdate", "red", "PUT", at, object{"network_id": w2})
}
