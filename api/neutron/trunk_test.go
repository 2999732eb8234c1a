package neutron_test

import (
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestTrunkLife(t *testing.T) {
	c := newCloud(t)
	c.host("h1")
	w, other := c.network("red", "w"), c.network("red", "other")
	c.subnet("red", w, "10.0.0.0/24")
	port := func(network string) string { return c.port("red", network)["id"].(string) }
	parent, a, b := port(w), port(other), port(other)
	tr := c.must(201, "red", "POST", "/v2.0/trunks", object{"trunk": object{"name": "t", "port_id": parent, "sub_ports": []object{{"port_id": a, "segmentation_type": "vlan", "segmentation_id": "7"}}}})
	id := tr["id"].(string)
	for k, want := range map[string]any{"name": "t", "description": "", "admin_state_up": true, "status": "DOWN", "port_id": parent, "project_id": red, "tenant_id": red, "revision_number": 1.0} {
		if tr[k] != want {
			t.Errorf("%s is %v, want %v", k, tr[k], want)
		}
	}
	at := "/v2.0/trunks/" + id
	more := []object{{"port_id": b, "segmentation_type": "vlan", "segmentation_id": 8}}
	got := c.do("red", "PUT", at+"/add_subports", object{"sub_ports": more}, "If-Match", "revision_number=1")
	if got.status != 200 || got.body["id"] != id || len(got.body["sub_ports"].([]any)) != 2 || got.body["revision_number"] != 2.0 {
		t.Fatalf("added: %d %s", got.status, got.raw)
	}
	c.refused(412, "RevisionNumberConstraintFailed", "red", "PUT", at+"/remove_subports", object{"sub_ports": more}, "If-Match", "revision_number=1")
	rows := c.do("red", "GET", at+"/get_subports", nil).body["sub_ports"].([]any)
	if len(rows) != 2 || rows[1].(object)["segmentation_id"] != 8.0 || rows[1].(object)["segmentation_type"] != "vlan" || rows[1].(object)["port_id"] != b {
		t.Errorf("subports: %v", rows)
	}
	p := c.must(200, "red", "GET", "/v2.0/ports/"+parent, nil)
	details, _ := p["trunk_details"].(object)
	if details == nil || details["trunk_id"] != id || !strings.Contains(fmt.Sprint(details["sub_ports"]), "mac_address:fa:16:3e") {
		t.Errorf("the parent shows %v", p["trunk_details"])
	}
	if s := c.must(200, "red", "GET", "/v2.0/ports/"+a, nil); s["trunk_details"] != nil || s["device_owner"] != "trunk:subport" {
		t.Errorf("the subport shows %v", s)
	}
	for _, q := range []string{"?port_id=" + parent, "?name=t&status=DOWN", "?id=" + id, "?admin_state_up=true&sort_key=name"} {
		if rows := c.list("red", "/v2.0/trunks"+q); len(rows) != 1 {
			t.Errorf("%s finds %v", q, rows)
		}
	}
	// The parent is bound, and its subports with it.
	c.must(200, "admin", "PUT", "/v2.0/ports/"+parent, object{"port": object{"binding:host_id": "h1"}})
	for _, s := range []string{a, b} {
		if got := c.must(200, "admin", "GET", "/v2.0/ports/"+s, nil)["binding:host_id"]; got != "h1" {
			t.Errorf("a subport is on %q", got)
		}
	}
	if got := c.must(200, "red", "GET", at, nil)["status"]; got != "BUILD" {
		t.Errorf("a trunk that is being wired is %v", got)
	}
	c.refused(409, "SubPortBindingError", "admin", "PUT", "/v2.0/ports/"+a, object{"port": object{"binding:host_id": ""}})
	c.must(200, "red", "PUT", at, object{"trunk": object{"name": "u", "description": "d"}})
	c.must(201, "red", "PUT", at+"/tags/x", nil)
	if rows := c.list("red", "/v2.0/trunks?tags=x"); len(rows) != 1 || rows[0]["name"] != "u" {
		t.Errorf("by its tag: %v", rows)
	}
	if got := c.do("red", "PUT", at+"/remove_subports", object{"sub_ports": []object{{"port_id": a}}}); got.status != 200 || len(got.body["sub_ports"].([]any)) != 1 {
		t.Fatalf("removed: %d %s", got.status, got.raw)
	}
	if got := c.must(200, "admin", "GET", "/v2.0/ports/"+a, nil); got["binding:host_id"] != "" || got["device_owner"] != "" {
		t.Errorf("a port that is no subport any more: %v", got)
	}
	c.must(204, "red", "DELETE", "/v2.0/ports/"+a, nil)
	c.must(204, "red", "DELETE", at, nil)
	c.refused(404, "TrunkNotFound", "red", "GET", at, nil)
	if p := c.must(200, "admin", "GET", "/v2.0/ports/"+parent, nil); p["trunk_details"] != nil || p["binding:host_id"] != "h1" {
		t.Errorf("the parent that was: %v", p)
	}
}

func TestBadTrunks(t *testing.T) {
	c := newCloud(t)
	w := c.network("red", "w")
	ids := c.seed(w)
	p, q := c.port("red", w)["id"].(string), c.port("red", w)["id"].(string)
	theirs := c.port("blue", c.network("blue", "b"))["id"].(string)
	at := "/v2.0/trunks/" + ids["trunks"]
	c.must(200, "admin", "PUT", "/v2.0/quotas/"+red, object{"quota": object{"tap_service": 2}})
	sub := func(port string, more ...any) object {
		o := object{"port_id": port}
		for i := 0; i+1 < len(more); i += 2 {
			o[more[i].(string)] = more[i+1]
		}
		return o
	}
	before := c.state()
	for _, tc := range []struct {
		status             int
		kind, method, path string
		body               any
		says               string
	}{
		{400, "HTTPBadRequest", "POST", "/v2.0/trunks", object{"trunk": object{}}, "'port_id' not specified"},
		{404, "PortNotFound", "POST", "/v2.0/trunks", object{"trunk": object{"port_id": "no"}}, "no"},
		{404, "PortNotFound", "POST", "/v2.0/trunks", object{"trunk": object{"port_id": theirs}}, theirs},
		{400, "HTTPBadRequest", "POST", "/v2.0/trunks", object{"trunk": object{"port_id": p, "sub_ports": "many"}}, "list of objects"},
		{400, "HTTPBadRequest", "POST", "/v2.0/trunks", object{"trunk": object{"port_id": p, "sub_ports": []object{{}}}}, "needs port_id"},
		{400, "HTTPBadRequest", "POST", "/v2.0/trunks", object{"trunk": object{"port_id": p, "sub_ports": []object{sub(q)}}}, "missing segmentation information"},
		{400, "HTTPBadRequest", "POST", "/v2.0/trunks", object{"trunk": object{"port_id": p, "sub_ports": []object{sub(q, "vlan", 5)}}}, "the key 'vlan' is none of"},
		{400, "InvalidInput", "POST", "/v2.0/trunks", object{"trunk": object{"port_id": p, "sub_ports": []object{sub(q, "segmentation_type", "vlan", "segmentation_id", 4095)}}}, "'4095' is not in range"},
		{400, "InvalidInput", "POST", "/v2.0/trunks", object{"trunk": object{"port_id": p, "sub_ports": []object{sub(q, "segmentation_type", "vxlan", "segmentation_id", 5)}}}, "Unknown segmentation_type 'vxlan'"},
		{400, "InvalidInput", "POST", "/v2.0/trunks", object{"trunk": object{"port_id": p, "sub_ports": []object{sub(q, "segmentation_type", "inherit")}}}, "type vlan"},
		{409, "ParentPortInUse", "POST", "/v2.0/trunks", object{"trunk": object{"port_id": p, "sub_ports": []object{sub(p, "segmentation_type", "vlan", "segmentation_id", 5)}}}, p},
		{404, "PortNotFound", "PUT", at + "/add_subports", object{"sub_ports": []object{sub(theirs, "segmentation_type", "vlan", "segmentation_id", 5)}}, theirs},
		{409, "DuplicateSubPort", "PUT", at + "/add_subports", object{"sub_ports": []object{sub(p, "segmentation_type", "vlan", "segmentation_id", 7)}}, "segmentation_id 7 already in use"},
		{400, "HTTPBadRequest", "PUT", at + "/add_subports", object{}, "Unable to find 'sub_ports'"},
		{400, "HTTPBadRequest", "PUT", at + "/add_subports", object{"sub_ports": []object{sub(p), sub(p)}}, "missing"},
		{404, "SubPortNotFound", "PUT", at + "/remove_subports", object{"sub_ports": []object{sub(p)}}, p},
		{400, "HTTPBadRequest", "PUT", at, object{"trunk": object{"port_id": p}}, "'port_id' not allowed in PUT"},
		{400, "HTTPBadRequest", "PUT", at, object{"trunk": object{"sub_ports": []any{}}}, "'sub_ports' not allowed in PUT"},
		{404, "TrunkNotFound", "PUT", "/v2.0/trunks/no/add_subports", `{`, "no"},

		{404, "InvalidDestinationPort", "POST", "/v2.0/taas/tap_services", object{"tap_service": object{"port_id": theirs}}, theirs},
		{400, "HTTPBadRequest", "POST", "/v2.0/taas/tap_services", object{"tap_service": object{"name": "x"}}, "'port_id' not specified"},
		{404, "TapServiceNotFound", "POST", "/v2.0/taas/tap_flows", object{"tap_flow": object{"tap_service_id": "no", "source_port": p, "direction": "IN"}}, "no"},
		{404, "InvalidSourcePort", "POST", "/v2.0/taas/tap_flows", object{"tap_flow": object{"tap_service_id": ids["tap_services"], "source_port": theirs, "direction": "IN"}}, theirs},
		{400, "HTTPBadRequest", "POST", "/v2.0/taas/tap_flows", object{"tap_flow": object{"tap_service_id": ids["tap_services"], "source_port": p, "direction": "UP"}}, "'UP' is not in"},
		{501, "HTTPNotImplemented", "POST", "/v2.0/taas/tap_flows", object{"tap_flow": object{"tap_service_id": ids["tap_services"], "source_port": p, "direction": "IN", "vlan_filter": "1-5"}}, "vlan_filter"},
		{400, "HTTPBadRequest", "PUT", "/v2.0/taas/tap_flows/" + ids["tap_flows"], object{"tap_flow": object{"direction": "IN"}}, "not allowed in PUT"},
		{404, "TapFlowNotFound", "DELETE", "/v2.0/taas/tap_flows/no", nil, "no"},
	} {
		text := c.refused(tc.status, tc.kind, "red", tc.method, tc.path, tc.body)
		if !strings.Contains(text, tc.says) {
			t.Errorf("%s %s %v: %q does not say %q", tc.method, tc.path, tc.body, text, tc.says)
		}
	}
	if after := c.state(); after != before {
		t.Errorf("what was refused has changed something:\n%s\n%s", before, after)
	}
}

func TestTapLife(t *testing.T) {
	c := newCloud(t)
	c.host("h1")
	w := c.network("red", "w")
	sink, source := c.port("red", w)["id"].(string), c.port("red", w)["id"].(string)
	s := c.must(201, "red", "POST", "/v2.0/taas/tap_services", object{"tap_service": object{"name": "s", "description": "d", "port_id": sink}})
	id := s["id"].(string)
	f := c.must(201, "red", "POST", "/v2.0/taas/tap_flows", object{"tap_flow": object{"name": "f", "tap_service_id": id, "source_port": source, "direction": "IN", "vlan_filter": nil}})
	flow := f["id"].(string)
	if s["status"] != "DOWN" || f["status"] != "DOWN" || f["direction"] != "IN" || f["source_port"] != source || f["tap_service_id"] != id || s["port_id"] != sink {
		t.Errorf("made %v, %v", s, f)
	}
	c.refused(409, "OverQuota", "red", "POST", "/v2.0/taas/tap_services", object{"tap_service": object{"port_id": source}})
	for _, p := range []string{sink, source} {
		c.must(200, "admin", "PUT", "/v2.0/ports/"+p, object{"port": object{"binding:host_id": "h1"}})
	}
	for _, q := range []string{"tap_services?status=ACTIVE", "tap_services?port_id=" + sink, "tap_services?name=s", "tap_flows?tap_service_id=" + id, "tap_flows?source_port=" + source + "&status=ACTIVE", "tap_flows?direction=IN"} {
		if rows := c.list("red", "/v2.0/taas/"+q); len(rows) != 1 {
			t.Errorf("%s finds %v", q, rows)
		}
	}
	if got := c.must(200, "red", "PUT", "/v2.0/taas/tap_services/"+id, object{"tap_service": object{"name": "t"}}); got["name"] != "t" || got["revision_number"] != 2.0 {
		t.Errorf("changed: %v", got)
	}
	if got := c.must(200, "red", "PUT", "/v2.0/taas/tap_flows/"+flow, object{"tap_flow": object{"description": "x"}}); got["description"] != "x" {
		t.Errorf("changed: %v", got)
	}
	c.must(204, "red", "DELETE", "/v2.0/taas/tap_services/"+id, nil) // its flows go with it
	c.refused(404, "TapFlowNotFound", "red", "GET", "/v2.0/taas/tap_flows/"+flow, nil)
}

// FuzzTrunkBody sends bodies of trunks, and of their subports.
func FuzzTrunkBody(f *testing.F) {
	c := newCloud(f)
	w := c.network("red", "w")
	parent, a, b := c.port("red", w)["id"].(string), c.port("red", w)["id"].(string), c.port("red", w)["id"].(string)
	fill := strings.NewReplacer("$P", parent, "$A", a, "$B", b)
	for action, bodies := range map[byte][]string{
		0: {`{"trunk": {"port_id": "$P"}}`, `{"trunk": {"port_id": "$P", "sub_ports": [{"port_id": "$A", "segmentation_type": "vlan", "segmentation_id": "5"}], "admin_state_up": 0}}`, `{"trunks": [{"port_id": "$P"}, {"port_id": "$A"}]}`, `{"trunk": {"port_id": "$P", "sub_ports": null}}`},
		1: {`{"sub_ports": [{"port_id": "$A", "segmentation_type": "vlan", "segmentation_id": 5}, {"port_id": "$B", "segmentation_type": "inherit"}]}`, `{"sub_ports": null}`, `{"sub_ports": [null]}`, `{`},
		2: {`{"sub_ports": [{"port_id": "$A"}]}`, `{"sub_ports": {}}`},
	} {
		for _, body := range bodies {
			f.Add(action, fill.Replace(body))
		}
	}
	f.Fuzz(func(t *testing.T, action byte, body string) {
		c.t = t
		method, path := "POST", "/v2.0/trunks"
		if action%3 > 0 {
			id := c.must(201, "red", "POST", path, object{"trunk": object{"port_id": parent, "sub_ports": []object{{"port_id": a, "segmentation_type": "vlan", "segmentation_id": 9}}}})["id"].(string)
			method, path = "PUT", path+"/"+id+[]string{"", "/add_subports", "/remove_subports"}[action%3]
		}
		req := httptest.NewRequest(method, "/network"+path, strings.NewReader(body))
		req.Header.Set("X-Auth-Token", "red")
		rec := httptest.NewRecorder()
		c.front.ServeHTTP(rec, req)
		answered(t, rec)
		for _, tr := range c.list("red", "/v2.0/trunks") {
			at := "/v2.0/trunks/" + tr["id"].(string)
			c.must(200, "red", "PUT", at, object{"trunk": object{"admin_state_up": true, "name": tr["name"]}})
			c.must(204, "red", "DELETE", at, nil)
		}
		for _, p := range []string{parent, a, b} {
			if got := c.must(200, "red", "GET", "/v2.0/ports/"+p, nil); got["device_owner"] != "" || got["trunk_details"] != nil {
				t.Fatalf("of a trunk is left %v", got)
			}
		}
	})
}
