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
	fill := strings.NewReplacer("$NET", w, "$SUBNET", s)
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
			if raw, bulk := got[single+"s"]; bulk {
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
				if again["id"] != id || again["network_id"] != w {
					t.Fatalf("made %v, shown %v", r, again)
				}
				c.must(200, "red", "PUT", path+"/"+id, object{single: object{"name": again["name"], "description": again["description"]}})
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
		`{"network_id": "$NET", "ip_version": 4, "cidr": "::ffff:10.0.0.0/120"}`, `[]`, `{`,
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
		for kind := range byte(5) {
			f.Add(kind, q)
		}
	}
	kinds := []string{"networks", "subnets", "ports", "security-groups", "security-group-rules"}
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
