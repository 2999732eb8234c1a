package neutron_test

import (
	"encoding/json"
	"net/http/httptest"
	"strings"
	"testing"
)

// fuzzBody posts bodies: whatever they hold, the answer is a row or an error of the
// client's, in Neutron's form, and a row that was made can be shown, put back and deleted.
func fuzzBody(f *testing.F, path, single string, seeds []string) {
	c := newCloud(f)
	w := c.network("red", "w")
	s := c.subnet("red", w, "10.0.0.0/24")
	out, outSubnet := c.outside("203.0.113.0/24")
	c.router("red", "r", out, s)
	p := c.port("red", w, "fixed_ips", []object{{"ip_address": "10.0.0.77"}})["id"].(string)
	pool := c.pool("red", []string{"10.64.0.0/10"}, "default_prefixlen", 24)
	group := c.must(201, "red", "POST", "/v2.0/security-groups", object{"security_group": object{"name": "g"}})["id"].(string)
	plural := strings.TrimSuffix(single, "y") + "ies"
	if !strings.HasSuffix(single, "y") {
		plural = single + "s"
	}
	fill := strings.NewReplacer("$NET", w, "$SUBNET", s, "$OUTSUBNET", outSubnet, "$OUT", out, "$PORT", p, "$POOL", pool, "$GROUP", group)
	for _, seed := range seeds {
		f.Add(fill.Replace(`{"` + single + `": ` + seed + `}`))
	}
	f.Fuzz(func(t *testing.T, body string) {
		c.t = t
		req := httptest.NewRequest("POST", "/network"+path, strings.NewReader(body))
		req.Header.Set("X-Auth-Token", "red")
		rec := httptest.NewRecorder()
		c.front.ServeHTTP(rec, req)
		var got map[string]json.RawMessage
		if err := json.Unmarshal(rec.Body.Bytes(), &got); err != nil {
			t.Fatalf("%d: the answer is no JSON: %q", rec.Code, rec.Body)
		}
		switch {
		case rec.Code == 201:
			var many []object
			var one object
			if raw, bulk := got[plural]; bulk {
				if err := json.Unmarshal(raw, &many); err != nil {
					t.Fatal(err)
				}
			} else if err := json.Unmarshal(got[single], &one); err != nil {
				t.Fatal(err)
			} else {
				many = append(many, one)
			}
			for _, r := range many {
				id := r["id"].(string)
				again := c.must(200, "red", "GET", path+"/"+id, nil)
				if in, there := again["network_id"]; again["id"] != id || there && in != w {
					t.Fatalf("made %v, shown %v", r, again)
				}
				back := object{}
				for _, k := range []string{"name", "description", "target_tenant"} {
					if v, there := again[k]; there {
						back[k] = v
					}
				}
				if single != "security_group_rule" { // which stays as it is
					c.must(200, "red", "PUT", path+"/"+id, object{single: back})
				}
				c.must(204, "red", "DELETE", path+"/"+id, nil)
			}
		case rec.Code >= 400 && rec.Code < 500 || rec.Code == 501:
			var e struct{ Type, Message string }
			if err := json.Unmarshal(got["NeutronError"], &e); err != nil || e.Type == "" || e.Message == "" {
				t.Fatalf("%d: %s", rec.Code, rec.Body)
			}
		default:
			t.Fatalf("%d: %s", rec.Code, rec.Body)
		}
	})
}

func FuzzPortBody(f *testing.F) {
	fuzzBody(f, "/v2.0/ports", "port", []string{
		`{"network_id": "$NET"}`,
		`{"network_id": "$NET", "fixed_ips": [{"ip_address": "10.0.0.9"}, {"subnet_id": "$SUBNET"}]}`,
		`{"network_id": "$NET", "fixed_ips": [], "mac_address": "fa:16:3e:00:00:01", "name": "\u0000\ud800"}`,
		`{"network_id": "$NET", "allowed_address_pairs": [{"ip_address": "10.0.0.0/8", "mac_address": null}], "port_security_enabled": true}`,
		`{"network_id": "$NET", "extra_dhcp_opts": [{"opt_name": "router", "opt_value": "x", "ip_version": "4"}], "security_groups": []}`,
		`{"network_id": "$NET", "binding:host_id": "", "binding:profile": {}, "admin_state_up": "False", "device_id": "d", "device_owner": "network:dhcp", "dns_name": "a"}`,
		`{"network_id": 5}`, `null`, `{`, `{"network_id": "$NET", "fixed_ips": [{"ip_address": "::ffff:10.0.0.9"}]}`,
	})
}

func FuzzSubnetBody(f *testing.F) {
	fuzzBody(f, "/v2.0/subnets", "subnet", []string{
		`{"network_id": "$NET", "ip_version": 4, "cidr": "10.1.0.0/24"}`,
		`{"network_id": "$NET", "ip_version": "4", "cidr": "10.1.0.0/24", "gateway_ip": null, "enable_dhcp": 0}`,
		`{"network_id": "$NET", "ip_version": 4, "cidr": "10.1.0.0/24", "gateway_ip": "10.1.0.9", "allocation_pools": [{"start": "10.1.0.20", "end": "10.1.0.30"}]}`,
		`{"network_id": "$NET", "ip_version": 4, "cidr": "10.1.0.0/31", "dns_nameservers": ["9.9.9.9"], "host_routes": [{"destination": "0.0.0.0/0", "nexthop": "10.1.0.1"}]}`,
		`{"network_id": "$NET", "ip_version": 4, "cidr": "255.255.255.255/32"}`, `{"network_id": "$NET", "ip_version": 4, "cidr": "0.0.0.0/1"}`,
		`{"network_id": "$NET", "ip_version": 6, "cidr": "fd00::/64", "ipv6_ra_mode": "slaac"}`,
		`{"network_id": "$NET", "ip_version": "6", "cidr": "fd00:0:0:1::/64", "ipv6_address_mode": "dhcpv6-stateful", "gateway_ip": "fe80::1", "allocation_pools": [{"start": "fd00:0:0:1::ffff:ffff:ffff:ffff", "end": "fd00:0:0:1:ffff:ffff:ffff:ffff"}]}`,
		`{"network_id": "$NET", "subnetpool_id": "$POOL", "prefixlen": "25"}`, `{"network_id": "$NET", "ip_version": 4, "use_default_subnetpool": "True", "cidr": null}`,
		`{"network_id": "$NET", "ip_version": 6, "cidr": "8000::/1"}`, `{"network_id": "$NET", "ip_version": 6, "cidr": "::/0"}`,
		`{"network_id": "$NET", "ip_version": 4, "cidr": "::ffff:10.0.0.0/120"}`, `[]`, `{`,
	})
}

func FuzzRouterBody(f *testing.F) {
	fuzzBody(f, "/v2.0/routers", "router", []string{
		`{"name": "r", "admin_state_up": "0", "availability_zone_hints": [], "flavor_id": null}`,
		`{"external_gateway_info": {"network_id": "$OUT"}}`, `{"external_gateway_info": {"network_id": null, "external_fixed_ips": null, "qos_policy_id": null}}`,
		`{"external_gateway_info": {"network_id": "$OUT", "enable_snat": 1, "external_fixed_ips": [{"subnet_id": "$OUTSUBNET"}]}}`,
		`{"external_gateway_info": {"network_id": "$NET"}}`, `{"external_gateway_info": []}`, `{"routes": [], "ha": null, "distributed": false}`, `null`, `{`,
	})
}

func FuzzFloatingIPBody(f *testing.F) {
	fuzzBody(f, "/v2.0/floatingips", "floatingip", []string{
		`{"floating_network_id": "$OUT"}`, `{"floating_network_id": "$OUT", "port_id": "$PORT", "fixed_ip_address": "10.0.0.77", "subnet_id": "$OUTSUBNET"}`,
		`{"floating_network_id": "$OUT", "port_id": "", "fixed_ip_address": null, "floating_ip_address": "", "dns_name": "a", "dns_domain": "b."}`,
		`{"floating_network_id": "$NET"}`, `{"floating_network_id": "$OUT", "fixed_ip_address": "::ffff:10.0.0.77", "port_id": "$PORT"}`, `[]`, `{`,
	})
}

// FuzzRouterAction sends bodies to what is done with a router, and to its port forwardings:
// they are taken or refused, and a router keeps its next hops beside it.
func FuzzRouterAction(f *testing.F) {
	c := newCloud(f)
	w := c.network("red", "w")
	s, s2 := c.subnet("red", w, "10.0.0.0/24"), c.subnet("red", w, "10.0.1.0/24")
	out, _ := c.outside("203.0.113.0/24")
	r := c.router("red", "r", out, s)
	p := c.port("red", w, "fixed_ips", []object{{"subnet_id": s}})["id"].(string)
	fip := c.floating("red", out)["id"].(string)
	for i, seed := range []string{
		`{"subnet_id": "` + s2 + `"}`, `{"subnet_id": "` + s2 + `", "port_id": null}`, `{"router": {"routes": [{"destination": "10.9.0.0/16", "nexthop": "10.0.0.9"}]}}`,
		`{"router": {"routes": [{"destination": "::/0", "nexthop": "10.0.0.9"}, {}]}}`, `{"port_id": 5}`, `null`, `[`,
		`{"port_forwarding": {"protocol": "tcp", "internal_port_id": "` + p + `", "internal_port": 22, "external_port": "22"}}`,
		`{"port_forwarding": {"protocol": "udp", "internal_port_id": "` + p + `", "internal_port_range": "1:9", "external_port_range": "11:19", "internal_ip_address": ""}}`,
	} {
		for kind := range byte(5) {
			f.Add(kind+byte(i), seed)
		}
	}
	f.Fuzz(func(t *testing.T, kind byte, body string) {
		c.t = t
		action := []string{"add_router_interface", "remove_router_interface", "add_extraroutes", "remove_extraroutes", ""}[kind%5]
		method, path := "PUT", "/network/v2.0/routers/"+r+"/"+action
		if action == "" {
			method, path = "POST", "/network/v2.0/floatingips/"+fip+"/port_forwardings"
		}
		req := httptest.NewRequest(method, path, strings.NewReader(body))
		req.Header.Set("X-Auth-Token", "red")
		rec := httptest.NewRecorder()
		c.front.ServeHTTP(rec, req)
		var got struct {
			NeutronError struct{ Type, Message string }
			Forwarding   struct{ ID string } `json:"port_forwarding"`
		}
		if err := json.Unmarshal(rec.Body.Bytes(), &got); err != nil {
			t.Fatalf("%d: the answer is no object: %q", rec.Code, rec.Body)
		}
		switch {
		case rec.Code == 201:
			c.must(204, "red", "DELETE", "/v2.0/floatingips/"+fip+"/port_forwardings/"+got.Forwarding.ID, nil)
		case rec.Code == 200, rec.Code >= 400 && rec.Code < 500 && got.NeutronError.Type != "" && got.NeutronError.Message != "":
		default:
			t.Fatalf("%s %q: %d %s", action, body, rec.Code, rec.Body)
		}
	})
}

func FuzzSubnetPoolBody(f *testing.F) {
	fuzzBody(f, "/v2.0/subnetpools", "subnetpool", []string{
		`{"name": "p", "prefixes": ["10.0.0.0/8", "10.0.0.0/9", "11.0.0.0/8"], "min_prefixlen": "9", "default_prefixlen": 24, "max_prefixlen": null}`,
		`{"name": "p", "prefixes": ["fd00::/48"], "default_quota": 5, "address_scope_id": null, "shared": false, "is_default": "False"}`,
		`{"name": "p", "prefixes": ["::/1", "8000::/1"]}`, `{"name": "p", "prefixes": ["0.0.0.0/1", "128.0.0.0/1"], "min_prefixlen": 1}`, `{"name": "p", "prefixes": ["10.0.0.1"]}`,
		`{"name": "p", "prefixes": [], "address_scope_id": "$NET"}`, `{"prefixes": 5}`,
	})
}

func FuzzAddressGroupBody(f *testing.F) {
	fuzzBody(f, "/v2.0/address-groups", "address_group", []string{
		`{"name": "a", "addresses": ["10.1.2.3/8", "fd00::1", "0.0.0.0/0"]}`, `{"addresses": null}`, `{"addresses": ["x"]}`, `{"description": "\u0000"}`,
	})
}

func FuzzRuleBody(f *testing.F) {
	fuzzBody(f, "/v2.0/security-group-rules", "security_group_rule", []string{
		`{"security_group_id": "$GROUP", "direction": "ingress", "ethertype": "ipv6", "protocol": "icmp", "port_range_min": "128", "port_range_max": 0}`,
		`{"security_group_id": "$GROUP", "direction": "egress", "protocol": 6, "port_range_min": 1, "port_range_max": 65535, "remote_ip_prefix": "10.0.0.1/8"}`,
		`{"security_group_id": "$GROUP", "direction": "ingress", "remote_group_id": "$GROUP", "remote_address_group_id": null, "protocol": "-1"}`,
		`{"security_group_id": "$GROUP", "direction": "ingress", "remote_address_group_id": "$NET"}`, `{"security_group_id": "$GROUP", "direction": "ingress", "protocol": "256"}`,
	})
}

func FuzzPolicyBody(f *testing.F) {
	fuzzBody(f, "/v2.0/rbac-policies", "rbac_policy", []string{
		`{"object_type": "network", "object_id": "$NET", "action": "access_as_shared", "target_tenant": "somebody"}`,
		`{"object_type": "subnetpool", "object_id": "$POOL", "action": "access_as_shared", "target_tenant": "a,b"}`,
		`{"object_type": "security_group", "object_id": "$GROUP", "action": "access_as_external", "target_tenant": "*"}`,
		`{"object_type": "router", "object_id": null, "action": 5, "target_tenant": ""}`,
	})
}

// FuzzList asks for lists with any query: the answer is a list or an error of the client's.
func FuzzList(f *testing.F) {
	c := newCloud(f)
	w := c.network("red", "w")
	s := c.subnet("red", w, "10.0.0.0/24")
	p := c.port("red", w, "name", "p")["id"].(string)
	for _, q := range []string{"limit=1&marker=" + p, "page_reverse=True&limit=0", "sort_key=name&sort_dir=desc", "sort=name:asc,id:desc", "fields=id&fields=",
		"fixed_ips=ip_address%3D10.0.0.9", "fixed_ips=subnet_id%3D" + s, "tags=a,b&not-tags-any=c", "id=" + p, "binding:host_id=h", "admin_state_up=1", "%zz=%"} {
		for kind := range byte(7) {
			f.Add(kind, q)
		}
	}
	kinds := []string{"networks", "subnets", "ports", "security-groups", "security-group-rules", "routers", "floatingips"}
	f.Fuzz(func(t *testing.T, kind byte, query string) {
		req := httptest.NewRequest("GET", "/network/v2.0/"+kinds[int(kind)%len(kinds)], nil)
		req.URL.RawQuery = query
		req.Header.Set("X-Auth-Token", []string{"red", "admin"}[int(kind)/len(kinds)%2])
		rec := httptest.NewRecorder()
		c.front.ServeHTTP(rec, req)
		if !json.Valid(rec.Body.Bytes()) || rec.Code != 200 && rec.Code != 400 && rec.Code != 403 {
			t.Fatalf("%q: %d %s", query, rec.Code, rec.Body)
		}
	})
}
