package nova_test

import (
	"net/http"
	"strings"
	"testing"

	"yakumo/api"
)

// TestRightsOfEveryRoute walks the table of rights: without a token nothing but what is
// public answers, a reader changes nothing, a tenant reaches nothing of an administrator's,
// and what belongs to another project is not found and not changed.
func TestRightsOfEveryRoute(t *testing.T) {
	c := newCloud(t)
	c.furnish()
	h := c.host("h1")
	id := c.boot("red", "mine", "metadata", object{"key": "v"})
	s := c.wait("red", id, "status", "ACTIVE")
	c.must(200, "red", "PUT", "/servers/"+id+"/tags", object{"tags": []string{"t"}}, "2.26")
	port := c.must(200, "red", "GET", "/servers/"+id+"/os-interface", nil)["interfaceAttachments"].([]any)[0].(object)["port_id"].(string)
	group := c.rows("red", "/servers/"+id+"/os-security-groups")[0]["id"].(string)
	request := c.rows("red", "/servers/"+id+"/os-instance-actions")[0]["request_id"].(string)
	c.must(201, "red", "POST", "/os-keypairs", object{"keypair": object{"name": "k", "public_key": publicKey}}, "2.2")
	set := c.must(200, "red", "POST", "/os-server-groups", object{"server_group": object{"name": "g", "policies": []string{"affinity"}}})["id"].(string)
	bodies := map[string]any{
		"POST /servers/{id}/os-volume_attachments":         object{"volumeAttachment": object{"volumeId": "8e4b4a8a-0000-4000-8000-000000000000"}},
		"PUT /servers/{id}/os-volume_attachments/{volume}": object{"volumeAttachment": object{"volumeId": "8e4b4a8a-0000-4000-8000-000000000000"}},
		"POST /os-server-groups":                           object{"server_group": object{"name": "x", "policies": []string{"affinity"}}},
		"POST /servers/{id}/os-interface":                  object{"interfaceAttachment": object{"net_id": c.network}},
		"POST /servers":                                    object{"server": object{"name": "x", "imageRef": c.image, "flavorRef": "1"}},
		"PUT /servers/{id}":                                object{"server": object{"name": "x"}},
		"POST /servers/{id}/action":                        object{"os-stop": nil},
		"POST /servers/{id}/remote-consoles":               object{"remote_console": object{"protocol": "serial", "type": "serial"}},
		"POST /servers/{id}/metadata":                      object{"metadata": object{"a": "b"}},
		"PUT /servers/{id}/metadata":                       object{"metadata": object{"a": "b"}},
		"PUT /servers/{id}/tags":                           object{"tags": []string{"a"}},
		"POST /flavors":                                    object{"flavor": object{"name": "x", "ram": 1, "vcpus": 1, "disk": 1}},
		"PUT /os-quota-sets/{project}":                     object{"quota_set": object{"cores": 1}},
		"POST /os-keypairs":                                object{"keypair": object{"name": "x", "public_key": publicKey}},
		"PUT /servers/{id}/metadata/{key}":                 object{"meta": object{"key": "x"}},
		"POST /flavors/{id}/os-extra_specs":                object{"extra_specs": object{"a": "b"}},
		"PUT /flavors/{id}/os-extra_specs/{key}":           object{"key": "b"},
		"POST /flavors/{id}/action":                        object{"addTenantAccess": object{"tenant": blue}},
		"PUT /os-services/{id}":                            object{"status": "disabled"},
	}
	bodies["POST /servers/{id}/migrations/{migration}/action"] = object{"force_complete": nil}
	state := func() string {
		return string(c.do("admin", "GET", "/servers/"+id, nil, "2.96").raw) + string(c.do("admin", "GET", "/servers/detail?all_tenants=1", nil, "2.96").raw) +
			string(c.do("admin", "GET", "/flavors/detail?is_public=none", nil, "2.96").raw) + string(c.do("red", "GET", "/os-keypairs", nil).raw) +
			string(c.do("admin", "GET", "/os-server-groups?all_projects=1", nil).raw) + string(c.do("red", "GET", "/servers/"+id+"/os-interface", nil).raw) +
			string(c.do("admin", "GET", "/os-services", nil, "2.96").raw) + string(c.do("admin", "GET", "/os-quota-sets/"+red, nil, "2.96").raw)
	}
	before, checked := state(), 0
	for _, row := range c.front.Table() {
		if row.Service != "compute" {
			continue
		}
		path := strings.TrimPrefix(row.Path, "/compute/v2.1")
		name := row.Method + " " + path
		thing := id
		switch {
		case strings.HasPrefix(path, "/flavors"):
			thing = "2"
		case strings.HasPrefix(path, "/os-hypervisors"), strings.HasPrefix(path, "/os-services"):
			thing = h.ID()
		case strings.HasPrefix(path, "/os-security-groups"):
			thing = group
		case strings.HasPrefix(path, "/os-server-groups"):
			thing = set
		}
		real := strings.NewReplacer("{id}", thing, "{key}", "key", "{tag}", "t", "{port}", port, "{request}", request, "{network}", "wire",
			"{project}", red, "{token}", "t", "{name}", "k", "{alias}", "os-keypairs", "{number}", "1", "{migration}", "1", "{host}", "h1", "{class}", "default", "{before}", "2026-01-01T00:00:00").Replace(path)
		version := "2.53"
		if strings.HasPrefix(path, "/flavors") {
			version = "2.55"
		}
		if strings.HasPrefix(path, "/os-security-groups") {
			version = "2.35"
		}
		if strings.HasSuffix(path, "/topology") || strings.HasSuffix(path, "/images") {
			version = "2.81"
		}
		body := bodies[name]
		if body == nil && (row.Method == http.MethodPost || row.Method == http.MethodPut) {
			body = object{}
		}
		try := func(token string) int { return c.do(token, row.Method, real, body, version).status }
		checked++
		if row.Access == api.Public {
			if a := c.at("", "", row.Method, row.Path, nil); a.status != 200 {
				t.Errorf("%s is public and answers %d", name, a.status)
			}
			continue
		}
		for _, token := range []string{"", "nonsense"} {
			a := c.do(token, row.Method, real, body, version)
			if a.status != 401 || a.header.Get("WWW-Authenticate") == "" || a.body["error"] == nil {
				t.Errorf("%s with the token %q: %d %s", name, token, a.status, a.raw)
			}
		}
		if row.Access != api.Anyone {
			if got := try("unscoped"); got != 403 {
				t.Errorf("%s with an unscoped token: %d", name, got)
			}
		}
		if row.Method != http.MethodGet {
			if row.Access != api.Member && row.Access != api.Admin {
				t.Errorf("%s writes, and needs only %s", name, row.Access)
			}
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
		if strings.HasPrefix(path, "/servers/{id}") || strings.HasPrefix(path, "/os-keypairs/{name}") || strings.HasPrefix(path, "/os-security-groups/{id}") ||
			strings.HasPrefix(path, "/os-server-groups/{id}") {
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
	if checked < 70 {
		t.Errorf("only %d routes were checked", checked)
	}
	if after := state(); before != after {
		t.Errorf("what was refused has changed something:\n%s\n%s", before, after)
	}
	for _, q := range []string{"", "?project_id=" + red, "?tenant_id=" + red, "?name=mine", "?host=h1", "?ip=10.0", "?image=" + c.image, "?uuid=" + id} {
		if rows := c.rows("blue", "/servers/detail"+q); len(rows) != 0 {
			t.Errorf("another project lists %s: %v", q, rows)
		}
	}
	for _, q := range []string{"?all_tenants=1", "?all_tenants=true&project_id=" + red} {
		for _, token := range []string{"blue", "red-admin"} {
			c.refused(403, "forbidden", token, "GET", "/servers"+q, nil)
		}
	}
	// A tenant is shown no host names, in any form of its own server.
	if strings.Contains(string(c.do("red", "GET", "/servers/detail", nil, "2.96").raw), "h1") || s["hostId"] == "" {
		t.Error("a tenant is shown the host's name")
	}
	for _, path := range []string{"/servers/" + id, "/servers/" + id + "/os-instance-actions/" + request, "/os-availability-zone"} {
		if raw := string(c.do("red", "GET", path, nil, "2.96").raw); strings.Contains(raw, `"h1"`) || strings.Contains(raw, h.ID()) {
			t.Errorf("%s shows a tenant the host: %s", path, raw)
		}
	}
	admin := c.must(200, "admin", "GET", "/servers/"+id, nil, "2.96")
	if admin["OS-EXT-SRV-ATTR:host"] != "h1" || admin["host_status"] != "UP" || admin["OS-EXT-SRV-ATTR:hostname"] != "mine" {
		t.Errorf("an administrator is not shown the host: %v", admin)
	}
}
