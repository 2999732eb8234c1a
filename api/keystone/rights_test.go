package keystone_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"yakumo/api"
	"yakumo/identity"
	"yakumo/model"
)

// world is a cloud with somebody else's things and with callers of every kind.
type world struct {
	*cloud
	ids     map[string]string // path parameters: the victim's things
	callers map[string]string // tokens
}

func newWorld(t *testing.T) *world {
	c := newCloud(t)
	w := &world{cloud: c, ids: map[string]string{}, callers: map[string]string{}}
	victim, home := c.user("victim", "default"), c.project("home", "default")
	c.assign("admin", model.Assignment{UserID: victim, ProjectID: home})
	c.assign("manager", model.Assignment{UserID: victim, DomainID: "default"})
	theirs := c.login("victim", project("home"))
	group, err := c.id.CreateGroup(t.Context(), model.Group{Name: "g", DomainID: "default"})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.id.Join(t.Context(), group.ID, victim); err != nil {
		t.Fatal(err)
	}
	ac := c.want(201, theirs, "POST", "/v3/users/"+victim+"/application_credentials", `{"application_credential": {"name": "a", "access_rules": [{"service": "compute", "method": "GET", "path": "/v2.1/servers"}]}}`)
	cred := c.want(201, theirs, "POST", "/v3/credentials", `{"credential": {"type": "cert", "blob": "x"}}`)
	ec2 := c.want(201, theirs, "POST", "/v3/users/"+victim+"/credentials/OS-EC2", map[string]any{"tenant_id": home})
	trust := c.want(201, theirs, "POST", "/v3/OS-TRUST/trusts", map[string]any{"trust": map[string]any{"trustor_user_id": victim, "trustee_user_id": c.userID("admin"),
		"impersonation": false, "project_id": home, "roles": []any{map[string]any{"name": "member"}}}})
	rules := c.want(200, theirs, "GET", "/v3/users/"+victim+"/access_rules", nil)
	w.ids = map[string]string{
		"user": victim, "project": home, "domain": "default", "group": group.ID, "role": c.role("member"), "implied": c.role("reader"),
		"credential": cred.str("credential.id"), "access": ec2.str("credential.access"), "trust": trust.str("trust.id"), "rule": rules.rows("access_rules", "id")[0],
		"region": "RegionOne", "service": identity.ListRecords(c.st.Snapshot(), identity.Services)[0].ID, "endpoint": identity.ListRecords(c.st.Snapshot(), identity.Endpoints)[0].ID,
		"tag": "t", "token": "none", "policy": "none", "mapping": "none", "limit": "none", "consumer": "none", "appcred": ac.str("application_credential.id"),
	}
	other, foreign := c.project("other", "default"), c.domain("foreign")
	for role, name := range map[string]string{"reader": "r", "member": "m", "admin": "a"} {
		c.assign(role, model.Assignment{UserID: c.user(name, "default"), ProjectID: other})
	}
	c.assign("admin", model.Assignment{UserID: c.userID("a"), DomainID: foreign})
	c.assign("member", model.Assignment{UserID: c.userID("m"), DomainID: "default"})
	w.callers = map[string]string{
		"a reader": c.login("r", project("other")), "a member": c.login("m", project("other")), "an admin of another project": c.login("a", project("other")),
		"an admin of another domain": c.login("a", domain(foreign)), "a member on the domain": c.login("m", domain("default")),
		"an unscoped token": c.login("m", map[string]any{"unscoped": map[string]any{}}),
	}
	return w
}

// fill puts ids into a route's path.
func (w *world) fill(row api.TableRow) string {
	path := strings.TrimPrefix(row.Path, "/identity")
	if strings.Contains(path, "application_credentials/{credential}") {
		path = strings.Replace(path, "{credential}", w.ids["appcred"], 1)
	}
	for name, id := range w.ids {
		path = strings.ReplaceAll(path, "{"+name+"}", id)
	}
	if strings.Contains(path, "{") {
		w.t.Fatalf("no id for %s", path)
	}
	return path
}

// public are the routes that need no token, and what gives the right instead.
var public = map[string]string{
	"GET /identity/": "nothing secret", "GET /identity/v3": "nothing secret", "GET /identity/v3/": "nothing secret",
	"POST /identity/v3/auth/tokens":             "credentials in the body",
	"POST /identity/v3/users/{user}/password":   "the password so far",
	"POST /identity/v3/OS-OAUTH1/request_token": "the consumer's signature",
	"POST /identity/v3/OS-OAUTH1/access_token":  "the consumer's and the token's signature",
}

// forAll are the routes of class Anyone that answer everybody, with what is his own or
// with what is no secret.
var forAll = []string{
	"GET /identity/v3/auth/tokens", "DELETE /identity/v3/auth/tokens", "GET /identity/v3/auth/catalog", "GET /identity/v3/auth/projects", "GET /identity/v3/auth/domains", "GET /identity/v3/auth/system",
	"GET /identity/v3/regions", "GET /identity/v3/regions/{region}", "GET /identity/v3/credentials", "GET /identity/v3/limits", "GET /identity/v3/limits/model", "GET /identity/v3/limits/{limit}",
	"GET /identity/v3/registered_limits", "GET /identity/v3/registered_limits/{limit}", "PUT /identity/v3/OS-OAUTH1/authorize/{token}",
	"GET /identity/v3/domains/{domain}", // a user's own domain; another's is tested below
}

func TestRightsOfEveryRoute(t *testing.T) {
	w := newWorld(t)
	bodies := map[string]any{
		"POST /identity/v3/credentials":                          map[string]any{"credential": map[string]any{"type": "cert", "blob": "x", "user_id": w.ids["user"]}},
		"PATCH /identity/v3/credentials/{credential}":            `{"credential": {"blob": "mine"}}`,
		"POST /identity/v3/users/{user}/application_credentials": `{"application_credential": {"name": "mine"}}`,
		"POST /identity/v3/users/{user}/credentials/OS-EC2":      map[string]any{"tenant_id": w.ids["project"]},
		"POST /identity/v3/OS-TRUST/trusts":                      map[string]any{"trust": map[string]any{"trustor_user_id": w.ids["user"], "trustee_user_id": w.ids["user"], "impersonation": true, "project_id": w.ids["project"], "roles": []any{map[string]any{"name": "member"}}}},
		"POST /identity/v3/ec2tokens":                            `{"credentials": {"access": "x", "signature": "y"}}`,
		"POST /identity/v3/s3tokens":                             `{"credentials": {"access": "x", "signature": "y", "token": ""}}`,
		"POST /identity/v3/users":                                `{"user": {"name": "n", "domain_id": "default"}}`,
		"POST /identity/v3/groups":                               `{"group": {"name": "n", "domain_id": "default"}}`,
		"POST /identity/v3/projects":                             `{"project": {"name": "n", "domain_id": "default"}}`,
		"PATCH /identity/v3/users/{user}":                        `{"user": {"name": "n"}}`,
		"PATCH /identity/v3/groups/{group}":                      `{"group": {"name": "n"}}`,
		"PATCH /identity/v3/projects/{project}":                  `{"project": {"name": "n"}}`,
		"PUT /identity/v3/projects/{project}/tags":               `{"tags": ["x"]}`,
	}
	before := w.st.Snapshot().Revision()
	for _, row := range w.front.Table() {
		name := row.Method + " " + row.Path
		t.Run(name, func(t *testing.T) {
			path := w.fill(row)
			if row.Access == api.Public {
				if public[name] == "" {
					t.Errorf("%s needs no token and is not known to be so", name)
				}
				return
			}
			for what, token := range map[string]string{"no token": "", "a bad token": "gibberish", "a cut token": w.admin[:len(w.admin)-4]} {
				a := w.do(token, row.Method, path, bodies[name])
				if a.status != http.StatusUnauthorized || a.str("error.message") != "The request you have made requires authentication." || a.header.Get("WWW-Authenticate") == "" {
					t.Errorf("%s: %d %s", what, a.status, a.raw)
				}
			}
			if slices.Contains(forAll, name) {
				return
			}
			for who, token := range w.callers {
				a := w.do(token, row.Method, path, bodies[name])
				list := row.Access == api.Manager && row.Method == "GET" && !strings.Contains(strings.Split(row.Path, "/v3/")[1], "{") && who == "an admin of another domain"
				global := (row.Path == "/identity/v3/roles/{role}") && row.Method == "GET" && who == "an admin of another domain"
				switch {
				case list: // of his own domain: what it shows is tested below
					if a.status != http.StatusOK || strings.Contains(a.raw, w.ids["user"]) || strings.Contains(a.raw, w.ids["project"]) {
						t.Errorf("%s: %d %s", who, a.status, a.raw)
					}
				case global:
				case a.status != http.StatusForbidden:
					t.Errorf("%s: %d %s", who, a.status, a.raw)
				case !strings.HasPrefix(a.str("error.message"), "You are not authorized to perform the requested action") || a.str("error.title") != "Forbidden":
					t.Errorf("%s: %s", who, a.raw)
				}
			}
		})
	}
	if after := w.st.Snapshot().Revision(); after != before {
		t.Errorf("a refused request changed something: revision %d, before %d", after, before)
	}
}

func TestClassesOfRoutes(t *testing.T) {
	w := newWorld(t)
	seen := map[api.Access]int{}
	for _, row := range w.front.Table() {
		seen[row.Access]++
		write := row.Method != "GET" && row.Method != "HEAD"
		for _, part := range []string{"/v3/domains", "/v3/roles", "/v3/regions", "/v3/services", "/v3/endpoints", "/v3/policies", "/v3/OS-FEDERATION", "/v3/OS-EP-FILTER", "/v3/registered_limits", "/v3/limits", "/v3/system"} {
			if write && strings.HasPrefix(row.Path, "/identity"+part) && row.Access != api.Admin && !strings.Contains(row.Path, "/users/") && !strings.Contains(row.Path, "/groups/") {
				t.Errorf("%s %s is for %s", row.Method, row.Path, row.Access)
			}
		}
	}
	for _, access := range []api.Access{api.Public, api.Anyone, api.Manager, api.Admin} {
		if seen[access] == 0 {
			t.Errorf("no route is for %s", access)
		}
	}
}

func TestUsersReachWhatIsTheirOwn(t *testing.T) {
	w := newWorld(t)
	me, tok := w.userID("m"), w.callers["a member"]
	w.want(200, tok, "GET", "/v3/users/"+me, nil)
	w.want(403, tok, "PATCH", "/v3/users/"+me, `{"user": {"enabled": true}}`)
	w.want(403, tok, "DELETE", "/v3/users/"+me, nil)
	if got := w.want(200, tok, "GET", "/v3/users/"+me+"/projects", nil).rows("projects", "name"); !slices.Equal(got, []string{"other"}) {
		t.Errorf("own projects: %v", got)
	}
	if got := w.want(200, tok, "GET", "/v3/auth/projects", nil).rows("projects", "name"); !slices.Equal(got, []string{"other"}) {
		t.Errorf("auth/projects: %v", got)
	}
	if got := w.want(200, tok, "GET", "/v3/auth/domains", nil).rows("domains", "id"); !slices.Equal(got, []string{"default"}) {
		t.Errorf("auth/domains: %v", got)
	}
	w.want(200, tok, "GET", "/v3/users/"+me+"/groups", nil)
	w.want(200, tok, "GET", "/v3/domains/default", nil)
	w.want(403, tok, "GET", "/v3/domains/"+w.domain("elsewhere"), nil)
	other := w.want(200, tok, "GET", "/v3/auth/projects", nil).rows("projects", "id")[0]
	w.want(200, tok, "GET", "/v3/projects/"+other, nil)
	// Who may not look cannot tell what is there from what is not.
	for _, path := range []string{"/v3/users/nothing", "/v3/users/" + w.ids["user"], "/v3/projects/nothing", "/v3/projects/" + w.ids["project"], "/v3/credentials/nothing", "/v3/credentials/" + w.ids["credential"]} {
		w.want(403, tok, "GET", path, nil)
	}
	if got := w.want(200, tok, "GET", "/v3/credentials", nil).rows("credentials", "id"); len(got) != 0 {
		t.Errorf("credentials of others: %v", got)
	}
	// The password is changed with the password; every token goes.
	w.want(401, "", "POST", "/v3/users/"+me+"/password", `{"user": {"original_password": "wrong", "password": "new"}}`)
	w.want(400, "", "POST", "/v3/users/"+me+"/password", `{"user": {"password": "new"}}`)
	w.want(204, "", "POST", "/v3/users/"+me+"/password", `{"user": {"original_password": "pw-m", "password": "new"}}`)
	w.want(401, tok, "GET", "/v3/users/"+me, nil)
	w.want(201, "", "POST", "/v3/auth/tokens", passwordAuth("m", "new", nil))
}

func TestManagerOfADomainManagesThatAndNoMore(t *testing.T) {
	c := newCloud(t)
	d, e := c.domain("d"), c.domain("e")
	boss := c.user("boss", d)
	c.assign("manager", model.Assignment{UserID: boss, DomainID: d})
	tok := c.want(201, "", "POST", "/v3/auth/tokens", map[string]any{"auth": map[string]any{"scope": domain(d), "identity": map[string]any{"methods": []string{"password"},
		"password": map[string]any{"user": map[string]any{"id": boss, "password": "pw-boss"}}}}}).header.Get("X-Subject-Token")
	theirs, theirProject := c.user("u", e), c.project("p", e)

	u := c.want(201, tok, "POST", "/v3/users", `{"user": {"name": "u", "password": "x"}}`)
	if u.str("user.domain_id") != d {
		t.Errorf("a manager's user is in domain %s", u.str("user.domain_id"))
	}
	p := c.want(201, tok, "POST", "/v3/projects", `{"project": {"name": "p"}}`)
	g := c.want(201, tok, "POST", "/v3/groups", `{"group": {"name": "g"}}`)
	user, proj, group := u.str("user.id"), p.str("project.id"), g.str("group.id")
	if p.str("project.domain_id") != d || g.str("group.domain_id") != d {
		t.Errorf("project %v, group %v", p.body, g.body)
	}
	grant := func(on, actor, role string) string { return "/v3/" + on + "/" + actor + "/roles/" + c.role(role) }
	c.want(204, tok, "PUT", grant("projects/"+proj, "users/"+user, "member"), nil)
	c.want(204, tok, "PUT", grant("domains/"+d, "groups/"+group, "reader"), nil)
	c.want(204, tok, "PUT", "/v3/groups/"+group+"/users/"+user, nil)
	c.want(200, tok, "PATCH", "/v3/users/"+user, `{"user": {"email": "a@b"}}`)
	c.want(200, tok, "GET", "/v3/roles", nil)
	if got := c.want(200, tok, "GET", "/v3/users", nil).rows("users", "domain_id"); len(got) != 2 || got[0] != d || got[1] != d {
		t.Errorf("a manager sees users of %v", got)
	}
	if got := c.want(200, tok, "GET", "/v3/domains", nil).rows("domains", "id"); !slices.Equal(got, []string{d}) {
		t.Errorf("a manager sees domains %v", got)
	}
	if got := c.want(200, tok, "GET", "/v3/users?domain_id="+e, nil).rows("users", "id"); len(got) != 0 {
		t.Errorf("a manager sees users of another domain: %v", got)
	}
	raw := c.want(200, tok, "GET", "/v3/role_assignments", nil).raw
	if strings.Contains(raw, "system") || !strings.Contains(raw, proj) {
		t.Errorf("a manager sees the assignments %s", raw)
	}
	for name, q := range map[string][3]string{
		"give admin":                  {"PUT", grant("projects/"+proj, "users/"+user, "admin"), ""},
		"give service":                {"PUT", grant("projects/"+proj, "users/"+user, "service"), ""},
		"give a role elsewhere":       {"PUT", grant("projects/"+theirProject, "users/"+user, "member"), ""},
		"give a role to a foreigner":  {"PUT", grant("projects/"+proj, "users/"+theirs, "member"), ""},
		"give a role on a domain":     {"PUT", grant("domains/"+e, "users/"+user, "member"), ""},
		"inherit a role on a domain":  {"PUT", "/v3/OS-INHERIT/domains/" + e + "/users/" + user + "/roles/" + c.role("member") + "/inherited_to_projects", ""},
		"give a role on the system":   {"PUT", grant("system", "users/"+user, "reader"), ""},
		"change a foreigner":          {"PATCH", "/v3/users/" + theirs, `{"user": {"password": "x"}}`},
		"make a user elsewhere":       {"POST", "/v3/users", fmt.Sprintf(`{"user": {"name": "n", "domain_id": %q}}`, e)},
		"make a project elsewhere":    {"POST", "/v3/projects", fmt.Sprintf(`{"project": {"name": "n", "domain_id": %q}}`, e)},
		"make a project below theirs": {"POST", "/v3/projects", fmt.Sprintf(`{"project": {"name": "n", "parent_id": %q}}`, theirProject)},
		"make a domain":               {"POST", "/v3/projects", `{"project": {"name": "n", "is_domain": true}}`},
		"enlist a foreigner":          {"PUT", "/v3/groups/" + group + "/users/" + theirs, ""},
		"change his domain":           {"PATCH", "/v3/domains/" + d, `{"domain": {"name": "n"}}`},
		"change his domain's project": {"PATCH", "/v3/projects/" + d, `{"project": {"name": "n"}}`},
		"make a role":                 {"POST", "/v3/roles", `{"role": {"name": "n"}}`},
		"imply a role":                {"PUT", "/v3/roles/" + c.role("manager") + "/implies/" + c.role("service"), ""},
	} {
		if a := c.do(tok, q[0], q[1], q[2]); a.status != 403 {
			t.Errorf("%s: %d %s", name, a.status, a.raw)
		}
	}
	c.want(204, tok, "DELETE", "/v3/users/"+user, nil)
}

// A manager of the domain in which the cloud's administrators are must not become one.
func TestManagerCannotRiseToCloudAdministrator(t *testing.T) {
	c := newCloud(t)
	boss := c.user("boss", "default")
	c.assign("manager", model.Assignment{UserID: boss, DomainID: "default"})
	tok := c.login("boss", domain("default"))
	admins, err := c.id.CreateGroup(t.Context(), model.Group{Name: "admins", DomainID: "default"})
	if err != nil {
		t.Fatal(err)
	}
	c.assign("admin", model.Assignment{GroupID: admins.ID, System: true})
	deputy := c.user("deputy", "default")
	if err := c.id.Join(t.Context(), admins.ID, deputy); err != nil {
		t.Fatal(err)
	}
	adminProject := identity.AdminProject(c.st.Snapshot())
	for name, q := range map[string][3]string{
		"take the admin's password":  {"PATCH", "/v3/users/" + c.userID("admin"), `{"user": {"password": "mine"}}`},
		"take a deputy's password":   {"PATCH", "/v3/users/" + deputy, `{"user": {"password": "mine"}}`},
		"delete the admin":           {"DELETE", "/v3/users/" + c.userID("admin"), ""},
		"join the admins":            {"PUT", "/v3/groups/" + admins.ID + "/users/" + boss, ""},
		"delete the admins":          {"DELETE", "/v3/groups/" + admins.ID, ""},
		"become admin of it":         {"PUT", "/v3/projects/" + adminProject + "/users/" + boss + "/roles/" + c.role("admin"), ""},
		"inherit admin":              {"PUT", "/v3/OS-INHERIT/domains/default/users/" + boss + "/roles/" + c.role("admin") + "/inherited_to_projects", ""},
		"rename the admin project":   {"PATCH", "/v3/projects/" + adminProject, `{"project": {"name": "x"}}`},
		"make the admin's EC2 key":   {"POST", "/v3/users/" + c.userID("admin") + "/credentials/OS-EC2", fmt.Sprintf(`{"tenant_id": %q}`, adminProject)},
		"make the admin's app cred":  {"POST", "/v3/users/" + c.userID("admin") + "/application_credentials", `{"application_credential": {"name": "x"}}`},
		"trust himself as the admin": {"POST", "/v3/OS-TRUST/trusts", fmt.Sprintf(`{"trust": {"trustor_user_id": %q, "trustee_user_id": %q, "impersonation": true, "project_id": %q, "roles": [{"name": "admin"}]}}`, c.userID("admin"), boss, adminProject)},
	} {
		if a := c.do(tok, q[0], q[1], q[2]); a.status != 403 {
			t.Errorf("%s: %d %s", name, a.status, a.raw)
		}
	}
}
