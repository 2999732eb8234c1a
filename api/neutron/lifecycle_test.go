package neutron_test

import (
	"slices"
	"strings"
	"testing"
	"time"
)

func (c *cloud) start() time.Time { return time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC) }

func TestNetworkSubnetPortLife(t *testing.T) {
	c := newCloud(t)
	w := c.must(201, "red", "POST", "/v2.0/networks", object{"network": object{"name": "front", "description": "d"}})
	for k, want := range map[string]any{
		"name": "front", "description": "d", "admin_state_up": true, "status": "ACTIVE", "shared": false, "router:external": false,
		"port_security_enabled": true, "mtu": 1450.0, "project_id": red, "tenant_id": red, "revision_number": 1.0, "dns_domain": "",
	} {
		if w[k] != want {
			t.Errorf("network %s = %v, want %v", k, w[k], want)
		}
	}
	if _, told := w["provider:segmentation_id"]; told {
		t.Error("a tenant is told the segment")
	}
	id := w["id"].(string)
	s := c.must(201, "red", "POST", "/v2.0/subnets", object{"subnet": object{
		"network_id": id, "ip_version": 4, "cidr": "10.1.0.0/24", "dns_nameservers": []string{"9.9.9.9"},
		"host_routes": []object{{"destination": "10.9.0.0/16", "nexthop": "10.1.0.9"}},
	}})
	if s["gateway_ip"] != "10.1.0.1" || s["enable_dhcp"] != true || s["ip_version"] != 4.0 {
		t.Errorf("subnet = %v", s)
	}
	pool := s["allocation_pools"].([]any)[0].(object)
	if pool["start"] != "10.1.0.2" || pool["end"] != "10.1.0.254" {
		t.Errorf("pool = %v", pool)
	}
	p := c.port("red", id, "name", "p1")
	ip := p["fixed_ips"].([]any)[0].(object)
	if ip["subnet_id"] != s["id"] || !strings.HasPrefix(ip["ip_address"].(string), "10.1.0.") {
		t.Errorf("fixed_ips = %v", ip)
	}
	if p["status"] != "DOWN" || !strings.HasPrefix(p["mac_address"].(string), "fa:16:3e:") || p["binding:vnic_type"] != "normal" {
		t.Errorf("port = %v", p)
	}
	if _, told := p["binding:host_id"]; told {
		t.Error("a tenant is told the host")
	}
	groups := c.list("red", "/v2.0/security-groups")
	if len(groups) != 1 || groups[0]["name"] != "default" || len(groups[0]["security_group_rules"].([]any)) != 4 {
		t.Errorf("groups = %v", groups)
	}
	if !slices.Equal(p["security_groups"].([]any), []any{groups[0]["id"]}) {
		t.Errorf("the port is in %v", p["security_groups"])
	}
	w = c.must(200, "red", "GET", "/v2.0/networks/"+id, nil)
	if !slices.Equal(w["subnets"].([]any), []any{s["id"]}) || w["revision_number"] != 2.0 {
		t.Errorf("network = %v", w)
	}
	c.refused(409, "NetworkInUse", "red", "DELETE", "/v2.0/networks/"+id, nil)
	c.refused(409, "SubnetInUse", "red", "DELETE", "/v2.0/subnets/"+s["id"].(string), nil)
	c.must(204, "red", "DELETE", "/v2.0/ports/"+p["id"].(string), nil)
	c.must(204, "red", "DELETE", "/v2.0/subnets/"+s["id"].(string), nil)
	c.must(204, "red", "DELETE", "/v2.0/networks/"+id, nil)
	c.refused(404, "NetworkNotFound", "red", "GET", "/v2.0/networks/"+id, nil)
	c.refused(404, "SubnetNotFound", "red", "GET", "/v2.0/subnets/"+s["id"].(string), nil)
	c.refused(404, "PortNotFound", "red", "GET", "/v2.0/ports/"+p["id"].(string), nil)
}

// TestPrefixesAreShownAsGiven: a client that compares what it asked with what it gets
// finds no difference.
func TestPrefixesAreShownAsGiven(t *testing.T) {
	c := newCloud(t)
	g := c.must(201, "red", "POST", "/v2.0/security-groups", object{"security_group": object{"name": "g"}})["id"].(string)
	for i, tc := range []struct{ ether, given, masked string }{
		{"IPv4", "10.1.2.3/8", "10.0.0.0/8"}, {"IPv4", "0.0.0.0/0", "0.0.0.0/0"}, {"IPv4", "192.0.2.7/32", "192.0.2.7/32"}, {"IPv6", "::/0", "::/0"},
	} {
		r := c.must(201, "red", "POST", "/v2.0/security-group-rules", object{"security_group_rule": object{
			"security_group_id": g, "direction": "ingress", "ethertype": tc.ether, "protocol": "tcp", "port_range_min": i + 1, "port_range_max": i + 1, "remote_ip_prefix": tc.given}})
		if r["remote_ip_prefix"] != tc.given || r["normalized_cidr"] != tc.masked {
			t.Errorf("%s is shown as %v, %v", tc.given, r["remote_ip_prefix"], r["normalized_cidr"])
		}
	}
	if got := c.list("red", "/v2.0/security-group-rules?normalized_cidr=10.0.0.0/8"); len(got) != 1 {
		t.Errorf("%v", got)
	}
	r := c.must(201, "red", "POST", "/v2.0/security-group-rules", object{"security_group_rule": object{"security_group_id": g, "direction": "ingress"}})
	if r["remote_ip_prefix"] != nil || r["normalized_cidr"] != nil {
		t.Errorf("no prefix is shown as %v", r)
	}
}
