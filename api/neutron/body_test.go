package neutron_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
)

// state is everything that an administrator can list.
func (c *cloud) state() string {
	var b strings.Builder
	for _, kind := range []string{"networks", "subnets", "ports", "security-groups", "security-group-rules", "address-groups", "rbac-policies", "subnetpools", "address-scopes", "quotas",
		"qos/policies", "trunks", "taas/tap_services", "taas/tap_flows"} {
		b.Write(c.do("admin", "GET", "/v2.0/"+kind, nil).raw)
	}
	return b.String()
}

// TestBadInput: what is wrong is refused in Neutron's form and changes nothing.
func TestBadInput(t *testing.T) {
	c := newCloud(t)
	w := c.network("red", "w")
	s := c.subnet("red", w, "10.0.0.0/24")
	p := c.port("red", w, "mac_address", "fa:16:3e:00:00:01", "fixed_ips", []object{{"ip_address": "10.0.0.9"}})["id"].(string)
	g := c.must(201, "red", "POST", "/v2.0/security-groups", object{"security_group": object{"name": "g"}})["id"].(string)
	c.list("admin", "/v2.0/security-groups") // makes the administrator's default group, which state lists
	before := c.state()
	for _, tc := range []struct {
		status             int
		kind, method, path string
		body               any
		says               string
	}{
		{400, "HTTPBadRequest", "POST", "networks", ``, "JSON body"},
		{400, "HTTPBadRequest", "POST", "networks", `{`, "not valid JSON"},
		{400, "HTTPBadRequest", "POST", "networks", `[]`, "wrong type"},
		{400, "HTTPBadRequest", "POST", "networks", `null`, "Unable to find 'network' in request body"},
		{400, "HTTPBadRequest", "POST", "networks", `{"network": {}} x`, "after its JSON value"},
		{400, "HTTPBadRequest", "POST", "networks", `{"net": {}}`, "Unable to find 'network' in request body"},
		{400, "HTTPBadRequest", "POST", "networks", `{"network": []}`, "not an object"},
		{400, "HTTPBadRequest", "POST", "networks", `{"network": null}`, "not an object"},
		{400, "HTTPBadRequest", "POST", "networks", `{"networks": []}`, "list of objects"},
		{400, "HTTPBadRequest", "POST", "networks", `{"networks": [null]}`, "Unable to find"},
		{400, "HTTPBadRequest", "POST", "networks", `{"network": {"nme": 1}}`, "Unrecognized attribute(s) 'nme'"},
		{400, "HTTPBadRequest", "POST", "networks", `{"network": {"id": "x"}}`, "Attribute 'id' not allowed in POST"},
		{400, "HTTPBadRequest", "PUT", "networks/" + w, `{"network": {"project_id": "x"}}`, "Attribute 'project_id' not allowed in PUT"},
		{400, "HTTPBadRequest", "POST", "networks", `{"network": {"name": 5}}`, "Invalid input for name. Reason: '5' is not a valid string."},
		{400, "HTTPBadRequest", "POST", "networks", `{"network": {"name": null}}`, "not a valid string"},
		{400, "HTTPBadRequest", "POST", "networks", `{"network": {"admin_state_up": "maybe"}}`, "'maybe' cannot be converted to boolean."},
		{400, "HTTPBadRequest", "POST", "networks", `{"network": {"mtu": "big"}}`, "'big' is not an integer."},
		{400, "InvalidInput", "POST", "networks", `{"network": {"mtu": 9000}}`, "MTU"},
		{400, "HTTPBadRequest", "POST", "networks", object{"network": object{"name": strings.Repeat("x", 256)}}, "exceeds maximum length of 255"},
		{400, "HTTPBadRequest", "POST", "networks", `{"network": {"dns_domain": "-.x"}}`, "dns_domain"},
		{404, "AvailabilityZoneNotFound", "POST", "networks", `{"network": {"availability_zone_hints": ["moon"]}}`, "moon"},
		{400, "HTTPBadRequest", "POST", "subnets", `{"subnet": {"ip_version": 4, "cidr": "10.1.0.0/24"}}`, "'network_id' not specified"},
		{400, "HTTPBadRequest", "POST", "subnets", object{"subnet": object{"network_id": w, "ip_version": 5, "cidr": "10.1.0.0/24"}}, "not in [4, 6]"},
		{400, "HTTPBadRequest", "POST", "subnets", object{"subnet": object{"network_id": w, "ip_version": 4, "cidr": "10.1.0.0/33"}}, "not a valid IP subnet"},
		{400, "HTTPBadRequest", "POST", "subnets", object{"subnet": object{"network_id": w, "ip_version": 4, "cidr": "10.1.0.1/24"}}, "'10.1.0.0/24' is recommended"},
		{400, "HTTPBadRequest", "POST", "subnets", object{"subnet": object{"network_id": w, "ip_version": 4, "cidr": "10.1.0.0/24", "gateway_ip": "x"}}, "not a valid IP address"},
		{400, "InvalidInput", "POST", "subnets", object{"subnet": object{"network_id": w, "ip_version": 4, "cidr": "10.0.0.0/25"}}, "overlaps"},
		{409, "OverlappingAllocationPools", "POST", "subnets", object{"subnet": object{"network_id": w, "ip_version": 4, "cidr": "10.1.0.0/24",
			"allocation_pools": []object{{"start": "10.1.0.5", "end": "10.1.0.9"}, {"start": "10.1.0.9", "end": "10.1.0.20"}}}}, "overlapping"},
		{409, "GatewayConflictWithAllocationPools", "PUT", "subnets/" + s, object{"subnet": object{"gateway_ip": "10.0.0.50"}}, "conflicts"},
		{400, "OutOfBoundsAllocationPool", "PUT", "subnets/" + s, object{"subnet": object{"allocation_pools": []object{{"start": "10.0.0.5", "end": "10.0.1.9"}}}}, "beyond"},
		{400, "HTTPBadRequest", "PUT", "subnets/" + s, object{"subnet": object{"allocation_pools": []object{{"start": "10.0.0.5"}}}}, "not a valid string"},
		{400, "HTTPBadRequest", "PUT", "subnets/" + s, object{"subnet": object{"allocation_pools": "all"}}, "list of objects"},
		{400, "HTTPBadRequest", "PUT", "subnets/" + s, object{"subnet": object{"cidr": "10.0.0.0/25"}}, "not allowed in PUT"},
		{400, "HTTPBadRequest", "PUT", "subnets/" + s, object{"subnet": object{"dns_nameservers": []string{"name"}}}, "not a valid IP address"},
		{400, "HTTPBadRequest", "PUT", "subnets/" + s, object{"subnet": object{"host_routes": []object{{"destination": "x", "nexthop": "10.0.0.1"}}}}, "not a valid IP"},
		{400, "HTTPBadRequest", "PUT", "subnets/" + s, object{"subnet": object{"host_routes": []object{{"via": "x"}}}}, "none of"},
		{400, "InvalidInput", "POST", "subnets", object{"subnet": object{"network_id": w, "ip_version": 6, "cidr": "10.1.0.0/24"}}, "does not match the ip_version '6'"},
		{400, "InvalidInput", "POST", "subnets", object{"subnet": object{"network_id": w, "ip_version": 4, "cidr": "10.1.0.0/24", "ipv6_ra_mode": "slaac"}}, "ip_version is 4"},
		{400, "HTTPBadRequest", "POST", "subnets", object{"subnet": object{"network_id": w, "ip_version": 6, "cidr": "fd00::/64", "ipv6_ra_mode": "dhcp"}}, "not in"},
		{400, "InvalidInput", "POST", "subnets", object{"subnet": object{"network_id": w, "ip_version": 6, "cidr": "fd00::/64", "ipv6_ra_mode": "slaac", "ipv6_address_mode": "dhcpv6-stateful"}}, "must be the same"},
		{400, "InvalidInput", "POST", "subnets", object{"subnet": object{"network_id": w, "ip_version": 6, "cidr": "fd00::/64", "ipv6_ra_mode": "slaac", "enable_dhcp": false}}, "enable_dhcp"},
		{400, "InvalidInput", "POST", "subnets", object{"subnet": object{"network_id": w, "ip_version": 6, "cidr": "fd00::/48", "ipv6_ra_mode": "slaac"}}, "/64"},
		{400, "InvalidInput", "POST", "subnets", object{"subnet": object{"network_id": w, "ip_version": 6, "cidr": "fd00::/64", "dns_nameservers": []string{"9.9.9.9"}}}, "ip_version"},
		{400, "InvalidInput", "POST", "subnets", object{"subnet": object{"network_id": w, "ip_version": 6, "cidr": "fd00::/64", "gateway_ip": "fd01::1"}}, "Gateway"},
		{400, "HTTPBadRequest", "PUT", "subnets/" + s, object{"subnet": object{"ipv6_ra_mode": "slaac"}}, "not allowed in PUT"},
		{404, "SubnetPoolNotFound", "POST", "subnets", object{"subnet": object{"network_id": w, "ip_version": 4, "cidr": "10.1.0.0/24", "subnetpool_id": w}}, w},
		{400, "BadRequest", "POST", "subnets", object{"subnet": object{"network_id": w, "ip_version": 4}}, "must be specified in the absence of a cidr"},
		{400, "BadRequest", "POST", "subnets", object{"subnet": object{"network_id": w, "ip_version": 4, "use_default_subnetpool": true}}, "No default subnetpool found for IPv4"},
		{400, "BadRequest", "POST", "subnets", object{"subnet": object{"network_id": w, "use_default_subnetpool": true}}, "ip_version must be specified"},
		{400, "BadRequest", "POST", "subnets", object{"subnet": object{"network_id": w, "ip_version": 4, "use_default_subnetpool": true, "subnetpool_id": w}}, "cannot both be specified"},
		{400, "BadRequest", "POST", "subnets", object{"subnet": object{"network_id": w, "ip_version": 4, "cidr": "10.1.0.0/24", "prefixlen": 24}}, "must not be supplied together"},
		{400, "HTTPBadRequest", "POST", "subnetpools", object{"subnetpool": object{"prefixes": []string{"10.0.0.0/8"}}}, "'name' not specified"},
		{400, "HTTPBadRequest", "POST", "subnetpools", object{"subnetpool": object{"name": "p"}}, "'prefixes' not specified"},
		{400, "EmptySubnetPoolPrefixList", "POST", "subnetpools", object{"subnetpool": object{"name": "p", "prefixes": []string{}}}, "Empty"},
		{400, "PrefixVersionMismatch", "POST", "subnetpools", object{"subnetpool": object{"name": "p", "prefixes": []string{"10.0.0.0/8", "fd00::/48"}}}, "mix"},
		{400, "HTTPBadRequest", "POST", "subnetpools", object{"subnetpool": object{"name": "p", "prefixes": []string{"10.0.0.1/8"}}}, "is recommended"},
		{400, "UnsupportedMinSubnetPoolPrefix", "POST", "subnetpools", object{"subnetpool": object{"name": "p", "prefixes": []string{"0.0.0.0/0"}}}, "'0'"},
		{400, "IllegalSubnetPoolPrefixBounds", "POST", "subnetpools", object{"subnetpool": object{"name": "p", "prefixes": []string{"10.0.0.0/8"}, "min_prefixlen": 25, "max_prefixlen": 24}}, "min_prefixlen=25, max_prefixlen=24"},
		{400, "IllegalSubnetPoolPrefixBounds", "POST", "subnetpools", object{"subnetpool": object{"name": "p", "prefixes": []string{"10.0.0.0/8"}, "max_prefixlen": 33}}, "ip_version_max=32"},
		{400, "IllegalSubnetPoolPrefixBounds", "POST", "subnetpools", object{"subnetpool": object{"name": "p", "prefixes": []string{"10.0.0.0/8"}, "default_prefixlen": 7}}, "default_prefixlen=7"},
		{400, "HTTPBadRequest", "POST", "subnetpools", object{"subnetpool": object{"name": "p", "prefixes": []string{"10.0.0.0/8"}, "default_quota": -1}}, "non-negative"},
		{404, "AddressScopeNotFound", "POST", "subnetpools", object{"subnetpool": object{"name": "p", "prefixes": []string{"10.0.0.0/8"}, "address_scope_id": w}}, w},
		{403, "PolicyNotAuthorized", "POST", "subnetpools", object{"subnetpool": object{"name": "p", "prefixes": []string{"10.0.0.0/8"}, "shared": true}}, "shared"},
		{403, "PolicyNotAuthorized", "POST", "subnetpools", object{"subnetpool": object{"name": "p", "prefixes": []string{"10.0.0.0/8"}, "is_default": true}}, "is_default"},
		{400, "HTTPBadRequest", "POST", "address-scopes", object{"address_scope": object{"name": "p"}}, "'ip_version' not specified"},
		{400, "HTTPBadRequest", "POST", "address-scopes", object{"address_scope": object{"name": "p", "ip_version": 5}}, "not in [4, 6]"},
		{403, "PolicyNotAuthorized", "POST", "address-scopes", object{"address_scope": object{"name": "p", "ip_version": 4, "shared": true}}, "shared"},
		{404, "NetworkNotFound", "POST", "subnets", object{"subnet": object{"network_id": "no", "ip_version": 4, "cidr": "10.1.0.0/24"}}, "no"},
		{404, "NetworkNotFound", "POST", "ports", object{"port": object{"network_id": s}}, s},
		{404, "PortNotFound", "PUT", "ports/" + w, object{"port": object{}}, w},
		{404, "PortNotFound", "PUT", "ports/" + w, object{"port": object{"nme": 1}}, w},
		{404, "PortNotFound", "DELETE", "ports/" + w, nil, w},
		{400, "HTTPBadRequest", "POST", "ports", object{"port": object{"network_id": w, "mac_address": "x"}}, "not a valid MAC"},
		{400, "HTTPBadRequest", "POST", "ports", object{"port": object{"network_id": w, "mac_address": "01:00:5e:00:00:01"}}, "not a valid MAC"},
		{409, "MacAddressInUse", "POST", "ports", object{"port": object{"network_id": w, "mac_address": "fa:16:3e:00:00:01"}}, "in use"},
		{409, "IpAddressAlreadyAllocated", "POST", "ports", object{"port": object{"network_id": w, "fixed_ips": []object{{"ip_address": "10.0.0.9"}}}}, "already allocated"},
		{400, "InvalidIpForNetwork", "POST", "ports", object{"port": object{"network_id": w, "fixed_ips": []object{{"ip_address": "10.9.0.9"}}}}, "not a valid IP"},
		{400, "InvalidIpForSubnet", "POST", "ports", object{"port": object{"network_id": w, "fixed_ips": []object{{"ip_address": "10.0.0.255"}}}}, "not a valid IP"},
		{400, "HTTPBadRequest", "POST", "ports", object{"port": object{"network_id": w, "fixed_ips": []object{{}}}}, "needs subnet_id or ip_address"},
		{400, "HTTPBadRequest", "POST", "ports", object{"port": object{"network_id": w, "fixed_ips": []object{{"x": 1}}}}, "none of"},
		{400, "HTTPBadRequest", "POST", "ports", object{"port": object{"network_id": w, "fixed_ips": "10.0.0.5"}}, "list of objects"},
		{404, "SecurityGroupNotFound", "POST", "ports", object{"port": object{"network_id": w, "security_groups": []string{"no"}}}, "no"},
		{400, "HTTPBadRequest", "POST", "ports", object{"port": object{"network_id": w, "security_groups": g}}, "not a list of strings"},
		{400, "AllowedAddressPairExhausted", "PUT", "ports/" + p, object{"port": object{"allowed_address_pairs": slices.Repeat([]object{{"ip_address": "10.0.0.1"}}, 11)}}, "maximum 10"},
		{400, "DuplicateAddressPairInRequest", "PUT", "ports/" + p, object{"port": object{"allowed_address_pairs": slices.Repeat([]object{{"ip_address": "10.0.0.1"}}, 2)}}, "duplicate"},
		{400, "AddressPairMissingIP", "PUT", "ports/" + p, object{"port": object{"allowed_address_pairs": []object{{"mac_address": "fa:16:3e:00:00:02"}}}}, "ip_address"},
		{409, "PortSecurityPortHasSecurityGroup", "PUT", "ports/" + p, object{"port": object{"port_security_enabled": false}}, "security group"},
		{400, "PortSecurityAndIPRequiredForSecurityGroups", "POST", "ports", object{"port": object{"network_id": w, "port_security_enabled": false, "security_groups": []string{g}}}, "Port security"},
		{400, "HTTPBadRequest", "PUT", "ports/" + p, object{"port": object{"extra_dhcp_opts": []object{{"opt_name": "", "opt_value": "x"}}}}, "extra_dhcp_opts"},
		{400, "HTTPBadRequest", "PUT", "ports/" + p, object{"port": object{"dns_name": "a.b c"}}, "dns_name"},
		{501, "HTTPNotImplemented", "POST", "ports", object{"port": object{"network_id": w, "binding:vnic_type": "direct"}}, "vnic_type"},
		{400, "HTTPBadRequest", "POST", "ports", object{"port": object{"network_id": w, "binding:vnic_type": "imaginary"}}, "'imaginary' is not in"},
		{409, "SecurityGroupDefaultAlreadyExists", "POST", "security-groups", object{"security_group": object{"name": "default"}}, "already exists"},
		{400, "HTTPBadRequest", "PUT", "security-groups/" + g, object{"security_group": object{"stateful": "half"}}, "boolean"},
		{404, "AddressGroupNotFound", "POST", "security-group-rules", object{"security_group_rule": object{"security_group_id": g, "direction": "ingress", "remote_address_group_id": "no"}}, "no"},
		{400, "SecurityGroupMultipleRemoteEntites", "POST", "security-group-rules", object{"security_group_rule": object{"security_group_id": g, "direction": "ingress", "remote_address_group_id": "no", "remote_ip_prefix": "10.0.0.0/8"}}, "Only one"},
		{400, "SecurityGroupEthertypeConflictWithProtocol", "POST", "security-group-rules", object{"security_group_rule": object{"security_group_id": g, "direction": "ingress", "protocol": "ipv6-icmp"}}, "IPv4"},
		{400, "SecurityGroupRuleParameterConflict", "POST", "security-group-rules", object{"security_group_rule": object{"security_group_id": g, "direction": "ingress", "ethertype": "IPv6", "remote_ip_prefix": "10.0.0.0/8"}}, "IPv6"},
		{400, "SecurityGroupInvalidIcmpValue", "POST", "security-group-rules", object{"security_group_rule": object{"security_group_id": g, "direction": "ingress", "ethertype": "IPv6", "protocol": "icmp", "port_range_min": 256}}, "256"},
		{400, "SecurityGroupMissingIcmpType", "POST", "security-group-rules", object{"security_group_rule": object{"security_group_id": g, "direction": "ingress", "ethertype": "IPv6", "protocol": 58, "port_range_max": 0}}, "type"},
		{400, "HTTPBadRequest", "POST", "address-groups", object{"address_group": object{"addresses": []string{"10.0.0.0/33"}}}, "not a valid"},
		{400, "HTTPBadRequest", "POST", "address-groups", object{"address_group": object{"addresses": "10.0.0.1"}}, "list of strings"},
		{400, "HTTPBadRequest", "POST", "security-group-rules", object{"security_group_rule": object{"direction": "ingress"}}, "'security_group_id' not specified"},
		{400, "HTTPBadRequest", "POST", "security-group-rules", object{"security_group_rule": object{"security_group_id": g, "direction": "up"}}, "'up' is not in"},
		{404, "SecurityGroupNotFound", "POST", "security-group-rules", object{"security_group_rule": object{"security_group_id": "no", "direction": "ingress"}}, "no"},
		{404, "SecurityGroupNotFound", "POST", "security-group-rules", object{"security_group_rule": object{"security_group_id": g, "direction": "ingress", "remote_group_id": "no"}}, "no"},
		{409, "SecurityGroupRuleExists", "POST", "security-group-rules", object{"security_group_rule": object{"security_group_id": g, "direction": "egress"}}, "already exists"},
		{400, "SecurityGroupRuleInvalidProtocol", "POST", "security-group-rules", object{"security_group_rule": object{"security_group_id": g, "direction": "ingress", "protocol": "256"}}, "256"},
		{405, "HTTPMethodNotAllowed", "PUT", "security-group-rules/" + g, object{"security_group_rule": object{}}, "not allowed"},
		{404, "HTTPNotFound", "GET", "dragons", nil, "could not be found"},
		{404, "HTTPNotFound", "POST", "dragons", object{"dragon": object{}}, "could not be found"},
		{404, "ExtensionNotFound", "GET", "extensions/dragon", nil, "dragon"},
	} {
		text := c.refused(tc.status, tc.kind, "red", tc.method, "/v2.0/"+tc.path, tc.body)
		if !strings.Contains(text, tc.says) {
			t.Errorf("%s %s %v: %q does not say %q", tc.method, tc.path, tc.body, text, tc.says)
		}
	}
	c.refused(413, "HTTPRequestEntityTooLarge", "red", "POST", "/v2.0/networks", `{"network": {"name": "`+strings.Repeat("x", 2<<20)+`"}}`)
	c.refused(415, "HTTPUnsupportedMediaType", "red", "POST", "/v2.0/networks", `{"network": {}}`, "Content-Type", "text/xml")
	if after := c.state(); after != before {
		t.Errorf("what was refused has changed something:\n%s\n%s", before, after)
	}
}

func TestBulkIsAtomic(t *testing.T) {
	c := newCloud(t)
	w := c.network("red", "w")
	c.subnet("red", w, "10.0.0.0/24")
	a := c.do("red", "POST", "/v2.0/ports", object{"ports": []object{{"network_id": w, "name": "a"}, {"network_id": w, "name": "b"}}})
	if a.status != http.StatusCreated || len(a.body["ports"].([]any)) != 2 {
		t.Fatalf("%d %s", a.status, a.raw)
	}
	c.refused(409, "IpAddressAlreadyAllocated", "red", "POST", "/v2.0/ports", object{"ports": []object{
		{"network_id": w, "fixed_ips": []object{{"ip_address": "10.0.0.50"}}}, {"network_id": w, "fixed_ips": []object{{"ip_address": "10.0.0.50"}}}}})
	if got := c.list("red", "/v2.0/ports"); len(got) != 2 {
		t.Errorf("half a bulk is there: %v", got)
	}
	c.refused(400, "HTTPBadRequest", "red", "POST", "/v2.0/ports", object{"ports": slices.Repeat([]object{{"network_id": w}}, 201)})
	many := c.do("red", "POST", "/v2.0/ports", object{"ports": slices.Repeat([]object{{"network_id": w}}, 200)})
	if many.status != http.StatusCreated {
		t.Errorf("200 at once: %d %s", many.status, many.raw)
	}
	c.refused(409, "IpAddressGenerationFailure", "red", "POST", "/v2.0/ports", object{"ports": slices.Repeat([]object{{"network_id": w}}, 52)})
	c.do("red", "POST", "/v2.0/ports", object{"ports": slices.Repeat([]object{{"network_id": w}}, 51)})
	if got := c.list("red", "/v2.0/ports"); len(got) != 253 {
		t.Errorf("%d ports in a /24 with a gateway", len(got))
	}
}

func TestRevisions(t *testing.T) {
	c := newCloud(t)
	w := c.network("red", "w")
	name := object{"network": object{"name": "x"}}
	c.must(200, "red", "PUT", "/v2.0/networks/"+w, name, "If-Match", "revision_number=1")
	text := c.refused(412, "RevisionNumberConstraintFailed", "red", "PUT", "/v2.0/networks/"+w, name, "If-Match", "revision_number=1")
	if text != "Constrained to 1, but current revision is 2" {
		t.Error(text)
	}
	c.refused(412, "RevisionNumberConstraintFailed", "red", "DELETE", "/v2.0/networks/"+w, nil, "If-Match", "revision_number=1")
	c.refused(400, "HTTPBadRequest", "red", "DELETE", "/v2.0/networks/"+w, nil, "If-Match", "1")
	c.must(204, "red", "DELETE", "/v2.0/networks/"+w, nil, "If-Match", "revision_number=2")
	g := c.must(201, "red", "POST", "/v2.0/security-groups", object{"security_group": object{"name": "g"}})["id"].(string)
	c.must(201, "red", "POST", "/v2.0/security-group-rules", object{"security_group_rule": object{"security_group_id": g, "direction": "ingress", "protocol": 6}})
	if got := c.must(200, "red", "GET", "/v2.0/security-groups/"+g, nil); got["revision_number"] != 2.0 {
		t.Errorf("a new rule leaves the group at revision %v", got["revision_number"])
	}
}

func TestTags(t *testing.T) {
	c := newCloud(t)
	w := c.network("red", "w")
	at := "/v2.0/networks/" + w + "/tags"
	tags := func() string { return fmt.Sprint(c.must(200, "red", "GET", "/v2.0/networks/"+w, nil)["tags"]) }
	c.must(201, "red", "PUT", at+"/b", nil)
	c.must(201, "red", "PUT", at+"/b", nil)
	c.must(201, "red", "PUT", at+"/a%2Fslash", nil)
	c.must(204, "red", "GET", at+"/b", nil)
	c.refused(404, "TagNotFound", "red", "GET", at+"/c", nil)
	if got := tags(); got != "[a/slash b]" {
		t.Error(got)
	}
	if got := c.do("red", "PUT", at, object{"tags": []string{"z", "y", "z"}}); got.status != 200 || tags() != "[y z]" {
		t.Errorf("%d %s %s", got.status, got.raw, tags())
	}
	c.must(204, "red", "DELETE", at+"/y", nil)
	c.refused(404, "TagNotFound", "red", "DELETE", at+"/y", nil)
	c.refused(400, "HTTPBadRequest", "red", "PUT", at, object{"tags": []string{strings.Repeat("x", 256)}})
	c.refused(400, "HTTPBadRequest", "red", "PUT", at, object{"tags": "x"})
	c.refused(400, "HTTPBadRequest", "red", "PUT", at, object{})
	c.must(204, "red", "DELETE", at, nil)
	if got := tags(); got != "[]" {
		t.Error(got)
	}
}

func TestQuotas(t *testing.T) {
	c := newCloud(t)
	if got := c.must(200, "red", "GET", "/v2.0/quotas/"+red, nil); got["network"] != 100.0 || got["port"] != 500.0 || got["security_group"] != 10.0 || got["security_group_rule"] != 100.0 {
		t.Errorf("defaults: %v", got)
	}
	c.must(200, "admin", "PUT", "/v2.0/quotas/"+red, object{"quota": object{"network": 2, "port": 1, "subnet": 1, "security_group": 2, "security_group_rule": 9}})
	w := c.network("red", "a")
	c.network("red", "b")
	quota := func(path string, body object) {
		t.Helper()
		c.refused(409, "OverQuota", "red", "POST", "/v2.0/"+path, body)
	}
	quota("networks", object{"network": object{}})
	c.subnet("red", w, "10.0.0.0/24")
	quota("subnets", object{"subnet": object{"network_id": w, "ip_version": 4, "cidr": "10.1.0.0/24"}})
	c.port("red", w)
	quota("ports", object{"port": object{"network_id": w}})
	g := c.must(201, "red", "POST", "/v2.0/security-groups", object{"security_group": object{"name": "g"}})["id"].(string)
	quota("security-groups", object{"security_group": object{"name": "h"}})
	for i := range 3 { // the default group has four rules, the new one two
		c.must(201, "red", "POST", "/v2.0/security-group-rules", object{"security_group_rule": object{"security_group_id": g, "direction": "ingress", "protocol": "tcp", "port_range_min": i + 1, "port_range_max": i + 1}})
	}
	quota("security-group-rules", object{"security_group_rule": object{"security_group_id": g, "direction": "ingress", "protocol": "udp"}})
	detail := c.must(200, "red", "GET", "/v2.0/quotas/"+red+"/details.json", nil)
	if got := fmt.Sprint(detail["security_group_rule"]); got != "map[limit:9 reserved:0 used:9]" {
		t.Error(got)
	}
	if rows := c.list("admin", "/v2.0/quotas"); len(rows) != 1 || rows[0]["project_id"] != red {
		t.Errorf("%v", rows)
	}
	for _, body := range []object{{"quota": object{"dragon": 5}}, {"quota": object{"port": -2}}, {"quota": object{"port": "x"}}, {}} {
		c.refused(400, "HTTPBadRequest", "admin", "PUT", "/v2.0/quotas/"+red, body)
	}
	c.must(204, "admin", "DELETE", "/v2.0/quotas/"+red, nil)
	c.refused(404, "TenantQuotaNotFound", "admin", "DELETE", "/v2.0/quotas/"+red, nil)
	c.network("red", "c")
	if got := c.must(200, "red", "GET", "/v2.0/quotas/"+red+"/default", nil); got["port"] != 500.0 {
		t.Errorf("%v", got)
	}
}

func TestAgentsZonesExtensions(t *testing.T) {
	c := newCloud(t)
	h := c.host("h1")
	rows := c.list("admin", "/v2.0/agents?alive=True&host=h1")
	if len(rows) != 1 || rows[0]["alive"] != true || rows[0]["agent_type"] != "Open vSwitch agent" || rows[0]["binary"] != "yakumo-agent" || rows[0]["host"] != "h1" {
		t.Fatalf("%v", rows)
	}
	if conf, _ := rows[0]["configurations"].(map[string]any); fmt.Sprint(conf["bridge_mappings"]) != "map[physnet1:br-ex]" {
		t.Errorf("configurations %v", rows[0]["configurations"])
	}
	if got := c.must(200, "admin", "PUT", "/v2.0/agents/"+h.ID, object{"agent": object{"admin_state_up": false, "description": "x"}}); got["admin_state_up"] != false || got["description"] != "x" {
		t.Errorf("%v", got)
	}
	c.refused(400, "HTTPBadRequest", "admin", "PUT", "/v2.0/agents/"+h.ID, object{"agent": object{"host": "x"}})
	c.refused(404, "AgentNotFound", "admin", "GET", "/v2.0/agents/x", nil)
	if rows := c.list("red", "/v2.0/availability_zones"); len(rows) != 2 || rows[1]["resource"] != "router" || rows[0]["name"] != "nova" || rows[0]["state"] != "available" {
		t.Errorf("%v", rows)
	}
	aliases := map[string]bool{}
	for _, e := range c.list("unscoped", "/v2.0/extensions") {
		for _, k := range []string{"alias", "name", "description", "updated", "links"} {
			if e[k] == nil || e[k] == "" {
				t.Errorf("%v has no %s", e["alias"], k)
			}
		}
		aliases[e["alias"].(string)] = true
	}
	for _, want := range []string{"security-group", "port-security", "quotas", "agent", "standard-attr-tag"} {
		if !aliases[want] {
			t.Errorf("%s is not told", want)
		}
	}
	for _, no := range []string{"dragon", "router-interface-fip", "metering"} {
		if aliases[no] {
			t.Errorf("%s is told and not served", no)
		}
	}
	if e := c.must(200, "red", "GET", "/v2.0/extensions/quotas", nil); e["alias"] != "quotas" {
		t.Errorf("%v", e)
	}
	w := c.network("red", "w")
	c.subnet("red", w, "10.0.0.0/24")
	c.port("red", w)
	use := c.must(200, "admin", "GET", "/v2.0/network-ip-availabilities/"+w, nil)
	if use["total_ips"] != 253.0 || use["used_ips"] != 1.0 {
		t.Errorf("%v", use)
	}
}
