package keystone_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"yakumo/identity"
	"yakumo/model"
)

// A thing of each kind: made, made twice, changed, found, deleted, gone.
func TestLifeOfEveryKindOfThing(t *testing.T) {
	c := newCloud(t)
	svc := identity.ListRecords(c.st.Snapshot(), identity.Services)[0].ID
	me := c.userID("admin")
	for _, k := range []struct {
		path, noun, plural string
		make, again        string // again: a body that is a conflict; empty: there is none
		change, attr       string
		want               any
	}{
		{"/v3/users", "user", "users", `{"name": "u", "color": "red", "options": {"lock_password": true}}`, `{"name": "u"}`, `{"color": "blue", "options": {"lock_password": null}}`, "color", "blue"},
		{"/v3/groups", "group", "groups", `{"name": "g", "domain_id": "default"}`, `{"name": "g"}`, `{"description": "d"}`, "description", "d"},
		{"/v3/projects", "project", "projects", `{"name": "p", "tags": ["a"]}`, `{"name": "p"}`, `{"enabled": false}`, "enabled", false},
		{"/v3/domains", "domain", "domains", `{"name": "d", "enabled": false}`, `{"name": "d"}`, `{"description": "x"}`, "description", "x"},
		{"/v3/roles", "role", "roles", `{"name": "r"}`, `{"name": "r"}`, `{"description": "x"}`, "description", "x"},
		{"/v3/regions", "region", "regions", `{"id": "R2", "description": "d"}`, `{"id": "R2"}`, `{"description": "e"}`, "description", "e"},
		{"/v3/services", "service", "services", `{"type": "t", "name": "n"}`, "", `{"enabled": false}`, "enabled", false},
		{"/v3/endpoints", "endpoint", "endpoints", fmt.Sprintf(`{"service_id": %q, "interface": "admin", "url": "http://x/"}`, svc), "", `{"url": "https://y/"}`, "url", "https://y/"},
		{"/v3/credentials", "credential", "credentials", fmt.Sprintf(`{"type": "ec2", "blob": "{\"access\": \"a\", \"secret\": \"s\"}", "project_id": %q}`, identity.AdminProject(c.st.Snapshot())),
			fmt.Sprintf(`{"type": "ec2", "blob": "{\"access\": \"a\", \"secret\": \"t\"}", "project_id": %q}`, identity.AdminProject(c.st.Snapshot())), `{"blob": "{\"access\": \"a\", \"secret\": \"u\"}"}`, "blob", `{"access": "a", "secret": "u"}`},
		{"/v3/policies", "policy", "policies", `{"type": "application/json", "blob": "{}"}`, "", `{"blob": "[]"}`, "blob", "[]"},
		{"/v3/OS-OAUTH1/consumers", "consumer", "consumers", `{"description": "d"}`, "", `{"description": "e"}`, "description", "e"},
		{"/v3/users/" + me + "/application_credentials", "application_credential", "application_credentials", `{"name": "a"}`, `{"name": "a"}`, "", "", nil},
	} {
		t.Run(k.noun, func(t *testing.T) {
			wrap := func(body string) string { return fmt.Sprintf(`{%q: %s}`, k.noun, body) }
			made := c.want(201, c.admin, "POST", k.path, wrap(k.make))
			id := made.str(k.noun + ".id")
			if self := made.str(k.noun + ".links.self"); self != c.url+"/identity"+k.path+"/"+id {
				t.Errorf("links.self is %q", self)
			}
			if k.again != "" {
				if a := c.want(409, c.admin, "POST", k.path, wrap(k.again)); !strings.HasPrefix(a.str("error.message"), "Conflict occurred attempting to store ") {
					t.Errorf("%s", a.raw)
				}
			}
			if got := c.want(200, c.admin, "GET", k.path, nil); !slices.Contains(got.rows(k.plural, "id"), id) || got.str("links.self") != c.url+"/identity"+k.path || got.at("links.next") != nil {
				t.Errorf("the list is %s", got.raw)
			}
			if k.change != "" {
				a := c.want(200, c.admin, "PATCH", k.path+"/"+id, wrap(k.change))
				shown := c.want(200, c.admin, "GET", k.path+"/"+id, nil)
				if a.at(k.noun+"."+k.attr) != k.want || shown.at(k.noun+"."+k.attr) != k.want {
					t.Errorf("changed: %s\nshown: %s", a.raw, shown.raw)
				}
				c.want(400, c.admin, "PATCH", k.path+"/"+id, wrap(`{"id": "other"}`))
			}
			c.want(204, c.admin, "DELETE", k.path+"/"+id, nil)
			a := c.want(404, c.admin, "GET", k.path+"/"+id, nil)
			if !strings.HasPrefix(a.str("error.message"), "Could not find ") || !strings.HasSuffix(a.str("error.message"), id+".") {
				t.Errorf("%s", a.raw)
			}
			c.want(404, c.admin, "DELETE", k.path+"/"+id, nil)
			if k.change != "" {
				c.want(404, c.admin, "PATCH", k.path+"/"+id, wrap(k.change))
			}
		})
	}
}

func TestBadBodiesChangeNothing(t *testing.T) {
	c := newCloud(t)
	svc := identity.ListRecords(c.st.Snapshot(), identity.Services)[0].ID
	u, p := c.user("u", "default"), c.project("p", "default")
	before := c.st.Snapshot().Revision()
	long := strings.Repeat("x", 300)
	for _, q := range []struct {
		method, path, body string
		status             int
	}{
		{"POST", "/v3/users", `{`, 400}, {"POST", "/v3/users", ``, 400}, {"POST", "/v3/users", `[]`, 400}, {"POST", "/v3/users", `{}`, 400}, {"POST", "/v3/users", `{"user": 1}`, 400},
		{"POST", "/v3/users", `{"user": {}}`, 400}, {"POST", "/v3/users", `{"user": {"name": null}}`, 400}, {"POST", "/v3/users", `{"user": {"name": ""}}`, 400}, {"POST", "/v3/users", `{"user": {"name": 7}}`, 400},
		{"POST", "/v3/users", `{"user": {"name": "` + long + `"}}`, 400}, {"POST", "/v3/users", `{"user": {"name": "a\u0000b"}}`, 400}, {"POST", "/v3/users", `{"user": {"name": "n", "enabled": "yes"}}`, 400},
		{"POST", "/v3/users", `{"user": {"name": "n", "domain_id": "nowhere"}}`, 404}, {"POST", "/v3/users", `{"user": {"name": "n", "options": {"unknown": 1}}}`, 400}, {"POST", "/v3/users", `{"user": {"name": "n", "options": {"lock_password": "x"}}}`, 400},
		{"POST", "/v3/users", `{"user": {"name": "n", "default_project_id": "default"}}`, 400}, {"POST", "/v3/users", `{"user": {"name": "n", "password": "` + strings.Repeat("x", 5000) + `"}}`, 400},
		{"PATCH", "/v3/users/" + u, `{"user": {"domain_id": "other"}}`, 400}, {"PATCH", "/v3/users/" + u, `{"user": {"name": ""}}`, 400}, {"PATCH", "/v3/users/" + u, `{"user": {"name": "admin"}}`, 409},
		{"POST", "/v3/projects", `{"project": {"name": "n", "parent_id": "nothing"}}`, 404}, {"POST", "/v3/projects", `{"project": {"name": "n", "tags": "t"}}`, 400}, {"POST", "/v3/projects", `{"project": {"name": "n", "tags": ["a/b"]}}`, 400},
		{"POST", "/v3/projects", `{"project": {"name": "n", "tags": ["a", "a"]}}`, 400}, {"POST", "/v3/projects", `{"project": {"name": "n", "domain_id": "nowhere"}}`, 404}, {"POST", "/v3/projects", `{"project": {"name": "n", "options": {"x": true}}}`, 400},
		{"POST", "/v3/projects", `{"project": {"name": "n", "is_domain": true, "domain_id": "default"}}`, 400}, {"PATCH", "/v3/projects/" + p, `{"project": {"domain_id": "x"}}`, 400}, {"PATCH", "/v3/projects/" + p, `{"project": {"parent_id": "x"}}`, 403},
		{"PUT", "/v3/projects/" + p + "/tags", `{}`, 400}, {"PUT", "/v3/projects/" + p + "/tags", `{"tags": [1]}`, 400},
		{"POST", "/v3/domains", `{"domain": {"name": "Default"}}`, 409}, {"PATCH", "/v3/domains/default", `{"domain": {"enabled": false}}`, 403}, {"DELETE", "/v3/domains/default", ``, 403},
		{"DELETE", "/v3/projects/" + identity.AdminProject(c.st.Snapshot()), ``, 403}, {"DELETE", "/v3/roles/" + c.role("admin"), ``, 403}, {"PATCH", "/v3/roles/" + c.role("admin"), `{"role": {"name": "x"}}`, 403},
		{"POST", "/v3/endpoints", `{"endpoint": {"service_id": "nothing", "interface": "public", "url": "http://x"}}`, 404}, {"POST", "/v3/endpoints", fmt.Sprintf(`{"endpoint": {"service_id": %q, "interface": "outer", "url": "http://x"}}`, svc), 400},
		{"POST", "/v3/endpoints", fmt.Sprintf(`{"endpoint": {"service_id": %q, "interface": "public", "url": "gopher"}}`, svc), 400}, {"POST", "/v3/endpoints", fmt.Sprintf(`{"endpoint": {"service_id": %q, "interface": "public", "url": "http://x", "region_id": "R9"}}`, svc), 404},
		{"POST", "/v3/regions", `{"region": {"id": "a/b"}}`, 400}, {"POST", "/v3/regions", `{"region": {"parent_region_id": "R9"}}`, 404}, {"PATCH", "/v3/regions/RegionOne", `{"region": {"parent_region_id": "RegionOne"}}`, 400}, {"DELETE", "/v3/regions/RegionOne", ``, 403},
		{"POST", "/v3/services", `{"service": {"name": "n"}}`, 400},
		{"POST", "/v3/credentials", `{"credential": {"type": "ec2", "blob": "x"}}`, 400}, {"POST", "/v3/credentials", `{"credential": {"type": "ec2", "blob": "{\"access\": \"a\", \"secret\": \"s\"}"}}`, 400}, {"POST", "/v3/credentials", `{"credential": {"type": "cert"}}`, 400},
		{"POST", "/v3/credentials", `{"credential": {"type": "cert", "blob": "x", "user_id": "nobody"}}`, 404}, {"POST", "/v3/registered_limits", `{"registered_limits": []}`, 400}, {"POST", "/v3/registered_limits", `{"registered_limits": [{"service_id": "x", "resource_name": "r", "default_limit": 1.5}]}`, 400},
		{"POST", "/v3/registered_limits", `{"registered_limits": [{"service_id": "x", "resource_name": "r", "default_limit": 1}]}`, 404}, {"POST", "/v3/registered_limits", fmt.Sprintf(`{"registered_limits": [{"service_id": %q, "resource_name": "r", "default_limit": -2}]}`, svc), 400},
		{"POST", "/v3/limits", fmt.Sprintf(`{"limits": [{"service_id": %q, "resource_name": "r", "resource_limit": 1, "project_id": %q}]}`, svc, p), 403}, {"POST", "/v3/limits", fmt.Sprintf(`{"limits": [{"service_id": %q, "resource_name": "r", "resource_limit": 1}]}`, svc), 400},
		{"PUT", "/v3/OS-FEDERATION/mappings/m", `{"mapping": {"rules": []}}`, 400}, {"PUT", "/v3/OS-FEDERATION/mappings/m", `{"mapping": {}}`, 400}, {"PUT", "/v3/OS-FEDERATION/mappings/m", `{"mapping": {"rules": [{"local": []}]}}`, 400},
		{"PUT", "/v3/projects/" + p + "/users/nobody/roles/" + c.role("member"), ``, 404}, {"PUT", "/v3/projects/" + p + "/users/" + u + "/roles/nothing", ``, 404}, {"PUT", "/v3/projects/nothing/users/" + u + "/roles/" + c.role("member"), ``, 404},
		{"DELETE", "/v3/projects/" + p + "/users/" + u + "/roles/" + c.role("member"), ``, 404}, {"PUT", "/v3/roles/" + c.role("reader") + "/implies/" + c.role("manager"), ``, 400}, {"PUT", "/v3/roles/" + c.role("reader") + "/implies/" + c.role("admin"), ``, 403},
		{"GET", "/v3/users?limit=x", ``, 400}, {"GET", "/v3/users?marker=nobody", ``, 400}, {"GET", "/v3/role_assignments?scope.project.id=a&scope.domain.id=b", ``, 400}, {"GET", "/v3/role_assignments?include_subtree", ``, 400},
		{"POST", "/v3/OS-TRUST/trusts", fmt.Sprintf(`{"trust": {"trustor_user_id": %q, "trustee_user_id": %q, "impersonation": false}}`, c.userID("admin"), u), 403}, {"POST", "/v3/OS-TRUST/trusts", `{"trust": {"trustor_user_id": "x"}}`, 400},
	} {
		var body any
		if q.body != "" || q.method == "POST" {
			body = q.body
		}
		if a := c.do(c.admin, q.method, q.path, body); a.status != q.status || a.str("error.message") == "" {
			t.Errorf("%s %s %.80s: %d %s, want %d", q.method, q.path, q.body, a.status, a.raw, q.status)
		}
	}
	if after := c.st.Snapshot().Revision(); after != before {
		t.Errorf("a refused request changed something: revision %d, before %d", after, before)
	}
	if a := c.want(404, c.admin, "GET", "/v3/users/nobody", nil); a.str("error.message") != "Could not find user: nobody." {
		t.Errorf("%s", a.raw)
	}
	if a := c.want(409, c.admin, "POST", "/v3/users", `{"user": {"name": "u"}}`); a.str("error.message") != "Conflict occurred attempting to store user - Duplicate entry found with name u at domain ID default." {
		t.Errorf("%s", a.raw)
	}
}

func TestFiltersAndPages(t *testing.T) {
	c := newCloud(t)
	for n := range 7 {
		c.user(fmt.Sprintf("User%d", n), "default")
	}
	d := c.domain("d")
	c.user("User0", d)
	if _, err := c.id.UpdateUser(t.Context(), c.userID("User3"), nil, func(u *model.User) error { u.Enabled = false; return nil }); err != nil {
		t.Fatal(err)
	}
	for query, want := range map[string]int{
		"": 9, "?name=User0": 2, "?name=User0&domain_id=" + d: 1, "?domain_id=default": 8, "?enabled=false": 1, "?enabled=0": 1, "?enabled=true": 8, "?enabled": 8, "?name__contains=ser": 8, "?name__icontains=SER": 8,
		"?name__startswith=User": 8, "?name__endswith=6": 1, "?name=nobody": 0, "?name__unknown=x": 9, "?color=red": 9, "?name__equals=user1": 1,
	} {
		if got := c.want(200, c.admin, "GET", "/v3/users"+query, nil).rows("users", "id"); len(got) != want {
			t.Errorf("%s: %d users, want %d", query, len(got), want)
		}
	}
	all := c.want(200, c.admin, "GET", "/v3/users", nil).rows("users", "id")
	var paged []string
	next := "/v3/users?limit=4"
	for pages := 0; next != ""; pages++ {
		if pages > 3 {
			t.Fatal("the pages do not end")
		}
		a := c.want(200, c.admin, "GET", next, nil)
		paged = append(paged, a.rows("users", "id")...)
		next = strings.TrimPrefix(a.str("links.next"), c.url+"/identity")
	}
	if !slices.Equal(paged, all) {
		t.Errorf("by pages %v\nat once %v", paged, all)
	}
}

func TestTreesOfProjects(t *testing.T) {
	c := newCloud(t)
	a := c.project("a", "default")
	made := c.want(201, c.admin, "POST", "/v3/projects", fmt.Sprintf(`{"project": {"name": "b", "parent_id": %q}}`, a))
	b := made.str("project.id")
	leaf := c.want(201, c.admin, "POST", "/v3/projects", fmt.Sprintf(`{"project": {"name": "c", "parent_id": %q}}`, b)).str("project.id")
	if made.str("project.domain_id") != "default" || made.str("project.parent_id") != a {
		t.Errorf("%s", made.raw)
	}
	top := c.want(200, c.admin, "GET", "/v3/projects/"+a+"?subtree_as_ids", nil)
	if fmt.Sprint(top.at("project.subtree")) != fmt.Sprintf("map[%s:map[%s:<nil>]]", b, leaf) {
		t.Errorf("subtree_as_ids: %s", top.raw)
	}
	bottom := c.want(200, c.admin, "GET", "/v3/projects/"+leaf+"?parents_as_ids", nil)
	if fmt.Sprint(bottom.at("project.parents")) != fmt.Sprintf("map[%s:map[%s:<nil>]]", b, a) {
		t.Errorf("parents_as_ids: %s", bottom.raw)
	}
	if got := c.want(200, c.admin, "GET", "/v3/projects?parent_id="+a, nil).rows("projects", "id"); !slices.Equal(got, []string{b}) {
		t.Errorf("below a: %v", got)
	}
	c.want(403, c.admin, "DELETE", "/v3/projects/"+a, nil)

	// An inherited role acts below, not on the project itself.
	u := c.user("u", "default")
	c.want(204, c.admin, "PUT", "/v3/OS-INHERIT/projects/"+a+"/users/"+u+"/roles/"+c.role("member")+"/inherited_to_projects", nil)
	c.want(201, "", "POST", "/v3/auth/tokens", passwordAuth("u", "pw-u", map[string]any{"project": map[string]any{"id": leaf}}))
	c.want(401, "", "POST", "/v3/auth/tokens", passwordAuth("u", "pw-u", map[string]any{"project": map[string]any{"id": a}}))
	list := c.want(200, c.admin, "GET", "/v3/role_assignments?user.id="+u, nil)
	if !strings.Contains(list.raw, `"OS-INHERIT:inherited_to":"projects"`) || strings.Count(list.raw, `"role"`) != 1 {
		t.Errorf("%s", list.raw)
	}
	effective := c.want(200, c.admin, "GET", "/v3/role_assignments?effective&include_names&user.id="+u, nil)
	if n := strings.Count(effective.raw, `"role":`); n != 4 { // member and reader on b and c
		t.Errorf("%d effective roles: %s", n, effective.raw)
	}
	if sub := c.want(200, c.admin, "GET", "/v3/role_assignments?include_subtree&scope.project.id="+a, nil); strings.Count(sub.raw, `"role":`) != 1 {
		t.Errorf("%s", sub.raw)
	}
	c.want(204, c.admin, "DELETE", "/v3/projects/"+leaf, nil)

	// A domain is a project, too.
	d := c.want(201, c.admin, "POST", "/v3/projects", `{"project": {"name": "dom", "is_domain": true}}`).str("project.id")
	c.want(200, c.admin, "GET", "/v3/domains/"+d, nil)
	if got := c.want(200, c.admin, "GET", "/v3/projects?is_domain=true", nil).rows("projects", "id"); !slices.Contains(got, d) || len(got) != 2 {
		t.Errorf("projects that are domains: %v", got)
	}
	c.want(403, c.admin, "DELETE", "/v3/projects/"+d, nil)
	c.want(200, c.admin, "PATCH", "/v3/projects/"+d, `{"project": {"enabled": false}}`)
	c.want(204, c.admin, "DELETE", "/v3/projects/"+d, nil)
	c.want(404, c.admin, "GET", "/v3/domains/"+d, nil)
}

func TestTags(t *testing.T) {
	c := newCloud(t)
	p := c.project("p", "default")
	at := "/v3/projects/" + p + "/tags"
	c.want(201, c.admin, "PUT", at+"/red", nil)
	c.want(201, c.admin, "PUT", at+"/red", nil)
	c.want(204, c.admin, "GET", at+"/red", nil)
	c.want(404, c.admin, "GET", at+"/blue", nil)
	c.want(404, c.admin, "DELETE", at+"/blue", nil)
	if a := c.want(200, c.admin, "GET", at, nil); fmt.Sprint(a.at("tags")) != "[red]" {
		t.Errorf("%s", a.raw)
	}
	c.want(204, c.admin, "DELETE", at+"/red", nil)
	c.want(204, c.admin, "DELETE", at, nil)
	if a := c.want(200, c.admin, "GET", at, nil); fmt.Sprint(a.at("tags")) != "[]" {
		t.Errorf("%s", a.raw)
	}
}
