package neutron_test

import (
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"yakumo/network"
)

// TestQoSLife takes a policy and a rule of each type from creation to end.
func TestQoSLife(t *testing.T) {
	c := newCloud(t)
	p := c.must(201, "admin", "POST", "/v2.0/qos/policies", object{"policy": object{"name": "gold", "description": "d", "project_id": red}})
	id := p["id"].(string)
	for k, want := range map[string]any{"name": "gold", "description": "d", "shared": false, "is_default": false, "project_id": red, "revision_number": 1.0} {
		if p[k] != want {
			t.Errorf("%s is %v, want %v", k, p[k], want)
		}
	}
	made := map[string]string{}
	for _, kind := range network.QoSRuleTypes() {
		single := kind + "_rule"
		at := "/v2.0/qos/policies/" + id + "/" + single + "s"
		r := c.must(201, "admin", "POST", at, object{single: ruleBodies[single]})
		made[kind] = r["id"].(string)
		for k, v := range ruleBodies[single] {
			if fmt.Sprint(r[k]) != fmt.Sprint(v) {
				t.Errorf("%s: %s is %v, want %v", kind, k, r[k], v)
			}
		}
		one := c.must(200, "red", "GET", at+"/"+made[kind], nil)
		if alias := c.must(200, "red", "GET", "/v2.0/qos/alias_"+single+"s/"+made[kind], nil); fmt.Sprint(alias) != fmt.Sprint(one) {
			t.Errorf("%s: by its alias %v, in its policy %v", kind, alias, one)
		}
		if rows := c.list("red", at); len(rows) != 1 || rows[0]["id"] != made[kind] {
			t.Errorf("%s: listed %v", kind, rows)
		}
		if rows := c.list("red", at+"?fields=id&id=other"); len(rows) != 0 {
			t.Errorf("%s: a filter finds %v", kind, rows)
		}
		c.refused(404, "QosRuleNotFound", "admin", "GET", "/v2.0/qos/policies/"+id+"/"+single+"s/other", nil)
		c.refused(404, "QosRuleNotFound", "admin", "PUT", "/v2.0/qos/alias_"+single+"s/other", object{"alias_" + single: object{}})
		c.refused(409, "QoSRulesConflict", "admin", "POST", at, object{single: ruleBodies[single]})
	}
	// A rule of one type is not found as another.
	c.refused(404, "QosRuleNotFound", "admin", "GET", "/v2.0/qos/policies/"+id+"/dscp_marking_rules/"+made["bandwidth_limit"], nil)
	shown := c.must(200, "red", "GET", "/v2.0/qos/policies/"+id, nil)
	rules := shown["rules"].([]any)
	if len(rules) != 5 || shown["revision_number"] != 6.0 {
		t.Fatalf("the policy: %v", shown)
	}
	first := rules[0].(object)
	for k, want := range map[string]any{"type": "bandwidth_limit", "qos_policy_id": id, "max_kbps": 1000.0, "max_burst_kbps": 100.0, "direction": "ingress", "id": made["bandwidth_limit"]} {
		if first[k] != want {
			t.Errorf("the policy's rule shows %s %v, want %v", k, first[k], want)
		}
	}
	at := "/v2.0/qos/policies/" + id + "/bandwidth_limit_rules/" + made["bandwidth_limit"]
	if r := c.must(200, "admin", "PUT", at, object{"bandwidth_limit_rule": object{"max_kbps": "2000", "direction": "egress"}}, "If-Match", "revision_number=6"); r["max_kbps"] != 2000.0 || r["max_burst_kbps"] != 100.0 || r["direction"] != "egress" {
		t.Errorf("changed: %v", r)
	}
	c.refused(412, "RevisionNumberConstraintFailed", "admin", "PUT", at, object{"bandwidth_limit_rule": object{"max_kbps": 1}}, "If-Match", "revision_number=6")
	c.must(200, "admin", "PUT", "/v2.0/qos/alias_dscp_marking_rules/"+made["dscp_marking"], object{"alias_dscp_marking_rule": object{"dscp_mark": 0}})

	// Networks and ports name it; a port shows its network's.
	w := c.must(201, "red", "POST", "/v2.0/networks", object{"network": object{"qos_policy_id": id}})["id"].(string)
	port := c.port("red", w, "qos_policy_id", nil)
	if port["qos_policy_id"] != nil || port["qos_network_policy_id"] != id {
		t.Errorf("the port: %v", port)
	}
	if _, there := port["resource_request"]; there {
		t.Error("a tenant is shown what its port is promised")
	}
	request, _ := c.must(200, "admin", "GET", "/v2.0/ports/"+port["id"].(string), nil)["resource_request"].(object)
	if text := fmt.Sprint(request["request_groups"]); !strings.Contains(text, "NET_BW_EGR_KILOBIT_PER_SEC:500") || !strings.Contains(text, "NET_PACKET_RATE_KILOPACKET_PER_SEC:5") {
		t.Errorf("the port asks for %v", request)
	}
	c.must(200, "red", "PUT", "/v2.0/ports/"+port["id"].(string), object{"port": object{"qos_policy_id": id}})
	for _, q := range []string{"ports?qos_policy_id=" + id, "ports?qos_network_policy_id=" + id, "networks?qos_policy_id=" + id} {
		if rows := c.list("red", "/v2.0/"+q); len(rows) != 1 {
			t.Errorf("%s finds %v", q, rows)
		}
	}
	c.refused(409, "QosPolicyInUse", "admin", "DELETE", "/v2.0/qos/policies/"+id, nil)
	c.must(200, "red", "PUT", "/v2.0/ports/"+port["id"].(string), object{"port": object{"qos_policy_id": nil}})
	c.refused(409, "QosPolicyInUse", "admin", "DELETE", "/v2.0/qos/policies/"+id, nil)
	c.must(200, "red", "PUT", "/v2.0/networks/"+w, object{"network": object{"qos_policy_id": nil}})
	for kind, rule := range made {
		if path := "/v2.0/qos/policies/" + id + "/" + kind + "_rules/" + rule; kind != "dscp_marking" {
			c.must(204, "admin", "DELETE", path, nil)
			c.refused(404, "QosRuleNotFound", "admin", "DELETE", path, nil)
		}
	}
	c.must(204, "admin", "DELETE", "/v2.0/qos/policies/"+id, nil)
	c.refused(404, "QosPolicyNotFound", "admin", "GET", "/v2.0/qos/policies/"+id, nil)
	c.refused(404, "QosPolicyNotFound", "admin", "GET", "/v2.0/qos/policies/"+id+"/dscp_marking_rules", nil)
}

// TestQoSSharing: a policy is seen and used by those it is shared with.
func TestQoSSharing(t *testing.T) {
	c := newCloud(t)
	id := c.must(201, "admin", "POST", "/v2.0/qos/policies", object{"policy": object{"name": "q"}})["id"].(string)
	c.refused(404, "QosPolicyNotFound", "red", "GET", "/v2.0/qos/policies/"+id, nil)
	c.refused(404, "QosPolicyNotFound", "red", "POST", "/v2.0/networks", object{"network": object{"qos_policy_id": id}})
	rbac := c.must(201, "admin", "POST", "/v2.0/rbac-policies", object{"rbac_policy": object{"object_type": "qos_policy", "object_id": id,
		"action": "access_as_shared", "target_tenant": red}})["id"].(string)
	c.refused(404, "QosPolicyNotFound", "blue", "GET", "/v2.0/qos/policies/"+id, nil)
	if rows := c.list("red", "/v2.0/qos/policies"); len(rows) != 1 || rows[0]["shared"] != true {
		t.Errorf("with whom it is shared sees %v", rows)
	}
	w := c.must(201, "red", "POST", "/v2.0/networks", object{"network": object{"qos_policy_id": id}})["id"].(string)
	c.refused(409, "RbacPolicyInUse", "admin", "DELETE", "/v2.0/rbac-policies/"+rbac, nil)
	c.must(204, "red", "DELETE", "/v2.0/networks/"+w, nil)
	c.must(204, "admin", "DELETE", "/v2.0/rbac-policies/"+rbac, nil)
	c.must(200, "admin", "PUT", "/v2.0/qos/policies/"+id, object{"policy": object{"shared": true}})
	c.must(200, "blue", "GET", "/v2.0/qos/policies/"+id, nil)
	if rows := c.list("blue", "/v2.0/qos/policies"); len(rows) != 1 || rows[0]["shared"] != true {
		t.Errorf("everybody sees %v", rows)
	}
	c.refused(403, "PolicyNotAuthorized", "blue", "PUT", "/v2.0/qos/policies/"+id, object{"policy": object{"name": "mine"}})
}

func TestQoSRuleTypes(t *testing.T) {
	c := newCloud(t)
	if rows := c.list("red", "/v2.0/qos/rule-types"); len(rows) != 5 {
		t.Errorf("types: %v", rows)
	}
	if rows := c.list("red", "/v2.0/qos/rule-types?type=dscp_marking&all_supported=True"); len(rows) != 1 || rows[0]["type"] != "dscp_marking" {
		t.Errorf("types: %v", rows)
	}
	if one := c.must(200, "red", "GET", "/v2.0/qos/rule-types/dscp_marking", nil); one["type"] != "dscp_marking" || one["drivers"] != nil {
		t.Errorf("a tenant sees %v", one)
	}
	one := c.must(200, "admin", "GET", "/v2.0/qos/rule-types/bandwidth_limit", nil)
	params := one["drivers"].([]any)[0].(object)["supported_parameters"].([]any)
	if len(params) != 3 || params[2].(object)["parameter_type"] != "choices" {
		t.Errorf("an administrator sees %v", one)
	}
	c.refused(404, "HTTPNotFound", "red", "GET", "/v2.0/qos/rule-types/dragon", nil)
	c.refused(400, "HTTPBadRequest", "red", "GET", "/v2.0/qos/rule-types?colour=red", nil)
}

func TestBadQoS(t *testing.T) {
	c := newCloud(t)
	ids := c.seed(c.network("red", "w"))
	p := "/v2.0/qos/policies/" + ids["policies"]
	before := c.state()
	for _, tc := range []struct {
		status             int
		kind, method, path string
		body               any
		says               string
	}{
		{400, "HTTPBadRequest", "POST", "/v2.0/qos/policies", object{"policy": object{"rules": []any{}}}, "'rules' not allowed"},
		{400, "HTTPBadRequest", "POST", "/v2.0/qos/policies", object{"policy": object{"shared": "partly"}}, "boolean"},
		{400, "HTTPBadRequest", "POST", "/v2.0/qos/policies", object{"policy": object{"name": strings.Repeat("x", 256)}}, "255"},
		{400, "HTTPBadRequest", "POST", p + "/bandwidth_limit_rules", object{"bandwidth_limit_rule": object{}}, "'max_kbps' not specified"},
		{400, "HTTPBadRequest", "POST", p + "/bandwidth_limit_rules", object{"bandwidth_limit_rule": object{"max_kbps": -1}}, "'-1' is not from 0"},
		{400, "HTTPBadRequest", "POST", p + "/bandwidth_limit_rules", object{"bandwidth_limit_rule": object{"max_kbps": 1 << 31}}, "is not from 0"},
		{400, "HTTPBadRequest", "POST", p + "/bandwidth_limit_rules", object{"bandwidth_limit_rule": object{"max_kbps": "fast"}}, "not an integer"},
		{400, "HTTPBadRequest", "POST", p + "/bandwidth_limit_rules", object{"bandwidth_limit_rule": object{"max_kbps": 1, "max_burst_kbps": -5}}, "max_burst_kbps"},
		{400, "HTTPBadRequest", "POST", p + "/bandwidth_limit_rules", object{"bandwidth_limit_rule": object{"max_kbps": 1, "direction": "any"}}, "'any' is not in"},
		{400, "HTTPBadRequest", "POST", p + "/bandwidth_limit_rules", object{"bandwidth_limit_rule": object{"max_kbps": 1, "min_kbps": 1}}, "Unrecognized attribute(s) 'min_kbps'"},
		{400, "HTTPBadRequest", "POST", p + "/bandwidth_limit_rules", object{"alias_bandwidth_limit_rule": object{"max_kbps": 1}}, "Unable to find 'bandwidth_limit_rule'"},
		{400, "HTTPBadRequest", "PUT", p + "/dscp_marking_rules/" + ids["dscp_marking_rules"], object{"dscp_marking_rule": object{"dscp_mark": 7}}, "'7' is not in"},
		{400, "HTTPBadRequest", "PUT", p + "/dscp_marking_rules/" + ids["dscp_marking_rules"], object{"dscp_marking_rule": object{"direction": "egress"}}, "Unrecognized"},
		{409, "QoSRuleParameterConflict", "POST", p + "/bandwidth_limit_rules", object{"bandwidth_limit_rule": object{"max_kbps": 499}}, "500"},
		{409, "QoSRulesConflict", "POST", p + "/minimum_packet_rate_rules", object{"minimum_packet_rate_rule": object{"min_kpps": 1, "direction": "egress"}}, "already exists"},
		{404, "QosPolicyNotFound", "POST", "/v2.0/qos/policies/no/dscp_marking_rules", object{"dscp_marking_rule": object{"dscp_mark": 8}}, "no"},
		{404, "QosPolicyNotFound", "POST", "/v2.0/networks", object{"network": object{"qos_policy_id": "no"}}, "no"},
		{400, "HTTPBadRequest", "POST", "/v2.0/networks", object{"network": object{"qos_policy_id": 5}}, "not a valid string"},
		{404, "HTTPNotFound", "POST", p + "/dragon_rules", object{}, "could not be found"},
		{405, "HTTPMethodNotAllowed", "POST", "/v2.0/qos/alias_dscp_marking_rules/" + ids["dscp_marking_rules"], object{}, "not allowed"},
	} {
		text := c.refused(tc.status, tc.kind, "admin", tc.method, tc.path, tc.body)
		if !strings.Contains(text, tc.says) {
			t.Errorf("%s %s %v: %q does not say %q", tc.method, tc.path, tc.body, text, tc.says)
		}
	}
	c.refused(400, "HTTPBadRequest", "red", "GET", p+"/dscp_marking_rules?colour=red", nil)
	if after := c.state(); after != before {
		t.Errorf("what was refused has changed something:\n%s\n%s", before, after)
	}
}

// answered checks an answer to a body of whatever kind: a success, or an error of the
// client's in Neutron's form.
func answered(t *testing.T, rec *httptest.ResponseRecorder) bool {
	t.Helper()
	if rec.Code < 300 {
		if rec.Body.Len() > 0 && !json.Valid(rec.Body.Bytes()) {
			t.Fatalf("%d: no JSON: %q", rec.Code, rec.Body)
		}
		return true
	}
	var e struct {
		NeutronError struct{ Type, Message string }
	}
	if err := json.Unmarshal(rec.Body.Bytes(), &e); err != nil || e.NeutronError.Type == "" || e.NeutronError.Message == "" || rec.Code != 501 && (rec.Code < 400 || rec.Code >= 500) {
		t.Fatalf("%d: %q", rec.Code, rec.Body)
	}
	return false
}

// FuzzQoSRule sends bodies of rules: a policy's rules stay what the API can show and take back.
func FuzzQoSRule(f *testing.F) {
	c := newCloud(f)
	id := c.must(201, "admin", "POST", "/v2.0/qos/policies", object{"policy": object{"name": "q"}})["id"].(string)
	kinds := network.QoSRuleTypes()
	for i, kind := range kinds {
		body, err := json.Marshal(object{kind + "_rule": ruleBodies[kind+"_rule"]})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(byte(i), string(body))
	}
	for _, body := range []string{`{"bandwidth_limit_rule": {"max_kbps": "1e3"}}`, `{"bandwidth_limit_rule": {"max_kbps": 1, "direction": null}}`, `{"bandwidth_limit_rules": [{"max_kbps": 1}, {"max_kbps": 2}]}`, `[]`, `{`} {
		f.Add(byte(0), body)
	}
	f.Fuzz(func(t *testing.T, which byte, body string) {
		c.t = t
		kind := kinds[int(which)%len(kinds)]
		at := "/v2.0/qos/policies/" + id + "/" + kind + "_rules"
		req := httptest.NewRequest("POST", "/network"+at, strings.NewReader(body))
		req.Header.Set("X-Auth-Token", "admin")
		rec := httptest.NewRecorder()
		c.front.ServeHTTP(rec, req)
		if !answered(t, rec) {
			return
		}
		for _, r := range c.list("admin", at) {
			rule := r["id"].(string)
			if d, ok := r["direction"].(string); ok && !slices.Contains(network.QoSDirections(kind), d) {
				t.Fatalf("a rule of the direction %q", d)
			}
			delete(r, "id")
			c.must(200, "admin", "PUT", at+"/"+rule, object{kind + "_rule": r})
			c.must(204, "admin", "DELETE", at+"/"+rule, nil)
		}
	})
}

// FuzzNetworkBody sends bodies of networks, provider attributes among them.
func FuzzNetworkBody(f *testing.F) {
	c := newCloud(f)
	c.host("h1")
	for _, body := range []string{`{"provider:network_type": "vlan", "provider:physical_network": "physnet1", "provider:segmentation_id": 5}`,
		`{"provider:network_type": "flat", "provider:physical_network": "physnet1"}`, `{"provider:network_type": "gre", "provider:segmentation_id": "70000", "mtu": 1400}`,
		`{"provider:network_type": "geneve", "vlan_transparent": true, "segments": [], "qos_policy_id": null}`, `{"provider:network_type": "vlan", "vlan_transparent": 1}`,
		`{"provider:segmentation_id": 5}`, `{"segments": [{}]}`, `{"provider:network_type": null, "provider:physical_network": null, "provider:segmentation_id": null}`} {
		f.Add(body)
	}
	f.Fuzz(func(t *testing.T, body string) {
		c.t = t
		req := httptest.NewRequest("POST", "/network/v2.0/networks", strings.NewReader(`{"network": `+body+`}`))
		req.Header.Set("X-Auth-Token", "admin")
		rec := httptest.NewRecorder()
		c.front.ServeHTTP(rec, req)
		if !answered(t, rec) {
			return
		}
		var made struct{ Network object }
		if err := json.Unmarshal(rec.Body.Bytes(), &made); err != nil {
			t.Fatal(err)
		}
		w := made.Network
		if mtu := w["mtu"].(float64); mtu < 68 || mtu > 1500 {
			t.Fatalf("an MTU of %v: %v", mtu, w)
		}
		at := "/v2.0/networks/" + w["id"].(string)
		c.must(200, "admin", "PUT", at, object{"network": object{"provider:network_type": w["provider:network_type"], "provider:physical_network": w["provider:physical_network"],
			"provider:segmentation_id": w["provider:segmentation_id"], "mtu": w["mtu"]}})
		c.must(204, "admin", "DELETE", at, nil)
	})
}

// TestQoSOutside lays policies on floating IPs and on routers' gateways, and takes them off.
func TestQoSOutside(t *testing.T) {
	c := newCloud(t)
	out, _ := c.outside("203.0.113.0/24")
	w := c.network("red", "w")
	r := c.router("red", "r", out, c.subnet("red", w, "10.0.0.0/24"))
	policy := func(shared bool) string {
		return c.must(201, "admin", "POST", "/v2.0/qos/policies", object{"policy": object{"name": "q", "shared": shared}})["id"].(string)
	}
	mine, theirs := policy(true), policy(false)

	f := c.must(201, "red", "POST", "/v2.0/floatingips", object{"floatingip": object{"floating_network_id": out, "qos_policy_id": mine}})
	at := "/v2.0/floatingips/" + f["id"].(string)
	if f["qos_policy_id"] != mine {
		t.Errorf("made with %v", f["qos_policy_id"])
	}
	if l := c.list("red", "/v2.0/floatingips?qos_policy_id="+mine); len(l) != 1 {
		t.Errorf("%d floating IPs have the policy", len(l))
	}
	c.refused(404, "QosPolicyNotFound", "red", "PUT", at, object{"floatingip": object{"qos_policy_id": theirs}})
	c.refused(409, "QosPolicyInUse", "admin", "DELETE", "/v2.0/qos/policies/"+mine, nil)
	if f = c.must(200, "red", "PUT", at, object{"floatingip": object{"description": "x"}}); f["qos_policy_id"] != mine {
		t.Errorf("another change takes it off: %v", f["qos_policy_id"])
	}
	if f = c.must(200, "red", "PUT", at, object{"floatingip": object{"qos_policy_id": nil}}); f["qos_policy_id"] != nil {
		t.Errorf("it is still there: %v", f["qos_policy_id"])
	}

	gateway := func(info object) any {
		t.Helper()
		got := c.must(200, "red", "PUT", "/v2.0/routers/"+r, object{"router": object{"external_gateway_info": info}})
		return got["external_gateway_info"].(object)["qos_policy_id"]
	}
	if q := gateway(object{"network_id": out, "qos_policy_id": mine}); q != mine {
		t.Errorf("the gateway has %v", q)
	}
	if q := gateway(object{"network_id": out}); q != mine {
		t.Errorf("set again without a word of it, the gateway has %v", q)
	}
	c.refused(404, "QosPolicyNotFound", "red", "PUT", "/v2.0/routers/"+r, object{"router": object{"external_gateway_info": object{"network_id": out, "qos_policy_id": theirs}}})
	c.refused(409, "QosPolicyInUse", "admin", "DELETE", "/v2.0/qos/policies/"+mine, nil)
	if q := gateway(object{"network_id": out, "qos_policy_id": nil}); q != nil {
		t.Errorf("the gateway still has %v", q)
	}
	c.must(204, "admin", "DELETE", "/v2.0/qos/policies/"+mine, nil)
}
