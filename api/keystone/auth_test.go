package keystone_test

import (
	"encoding/json"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"yakumo/identity"
	"yakumo/model"
)

func TestTokenFormsOfEveryScope(t *testing.T) {
	c := newCloud(t)
	at := regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$`)
	for name, want := range map[string]struct {
		scope       any
		has, hasNot []string
	}{
		"project":  {project("admin"), []string{"project.domain.name", "roles", "catalog"}, []string{"domain", "system"}},
		"system":   {map[string]any{"system": map[string]any{"all": true}}, []string{"system.all", "roles", "catalog"}, []string{"domain", "project"}},
		"unscoped": {"unscoped", nil, []string{"domain", "project", "system", "roles", "catalog"}},
		"none":     {nil, nil, []string{"domain", "project", "system", "roles", "catalog"}},
	} {
		t.Run(name, func(t *testing.T) {
			a := c.want(201, "", "POST", "/v3/auth/tokens", passwordAuth("admin", "pw-admin", want.scope))
			text := a.header.Get("X-Subject-Token")
			for _, p := range append(want.has, "user.id", "user.name", "user.domain.id", "user.domain.name", "methods", "audit_ids", "issued_at", "expires_at") {
				if a.at("token."+p) == nil {
					t.Errorf("token.%s is missing: %s", p, a.raw)
				}
			}
			for _, p := range want.hasNot {
				if a.at("token."+p) != nil {
					t.Errorf("token.%s is there: %s", p, a.raw)
				}
			}
			for _, p := range []string{"issued_at", "expires_at"} {
				if s := a.str("token." + p); !at.MatchString(s) {
					t.Errorf("%s is %q", p, s)
				}
			}
			again := c.want(200, text, "GET", "/v3/auth/tokens", nil, "X-Subject-Token", text)
			if again.raw != a.raw {
				t.Errorf("shown again:\n%s\nissued:\n%s", again.raw, a.raw)
			}
			if again.header.Get("X-Subject-Token") != text {
				t.Error("X-Subject-Token is missing")
			}
			head := c.want(200, text, "HEAD", "/v3/auth/tokens", nil, "X-Subject-Token", text)
			if head.raw != "" {
				t.Errorf("HEAD has a body: %s", head.raw)
			}
			if a := c.want(200, text, "GET", "/v3/auth/tokens?nocatalog", nil, "X-Subject-Token", text); a.at("token.catalog") != nil {
				t.Error("nocatalog has a catalog")
			}
		})
	}
	c.assign("reader", model.Assignment{UserID: c.userID("admin"), DomainID: "default"})
	a := c.want(201, "", "POST", "/v3/auth/tokens", passwordAuth("admin", "pw-admin", map[string]any{"domain": map[string]any{"name": "Default"}}))
	if a.str("token.domain.id") != "default" || a.at("token.project") != nil {
		t.Errorf("domain scope: %s", a.raw)
	}
}

func TestRefusedLogins(t *testing.T) {
	c := newCloud(t)
	const unauthorized = "The request you have made requires authentication."
	id := func(s string) string { return `{"auth": {"identity": ` + s + `}}` }
	user := func(s string) string { return id(`{"methods": ["password"], "password": {"user": ` + s + `}}`) }
	scope := func(s string) string {
		return `{"auth": {"identity": {"methods": ["password"], "password": {"user": {"name": "admin", "domain": {"id": "default"}, "password": "pw-admin"}}}, "scope": ` + s + `}}`
	}
	for name, q := range map[string]struct {
		body   string
		status int
		text   string // part of the message
	}{
		"not JSON":               {`{"auth": `, 400, "not valid JSON"},
		"empty":                  {``, 400, "needs a JSON body"},
		"two values":             {`{} {}`, 400, "after its JSON value"},
		"a list":                 {`[]`, 400, "wrong type"},
		"no auth":                {`{}`, 400, "'auth' is a required property"},
		"no identity":            {`{"auth": {}}`, 400, "'identity' is a required property"},
		"no methods":             {id(`{}`), 400, "'methods' is a required property"},
		"methods of no type":     {id(`{"methods": "password"}`), 400, "wrong type"},
		"no password":            {id(`{"methods": ["password"]}`), 400, "Expecting to find password in identity."},
		"no user":                {user(`{}`), 400, "Expecting to find id or name in user."},
		"no domain":              {user(`{"name": "admin", "password": "pw-admin"}`), 400, "Expecting to find domain in user."},
		"no password in user":    {user(`{"id": "x"}`), 400, "Expecting to find password in user."},
		"a number as a name":     {user(`{"name": 7, "domain": {"id": "default"}, "password": "x"}`), 400, "wrong type"},
		"null password":          {user(`{"id": "x", "password": null}`), 400, "Expecting to find password in user."},
		"wrong password":         {user(`{"name": "admin", "domain": {"id": "default"}, "password": "x"}`), 401, unauthorized},
		"unknown user":           {user(`{"name": "nobody", "domain": {"id": "default"}, "password": "x"}`), 401, unauthorized},
		"unknown user id":        {user(`{"id": "nobody", "password": "x"}`), 401, unauthorized},
		"unknown domain":         {user(`{"name": "admin", "domain": {"id": "nowhere"}, "password": "pw-admin"}`), 401, unauthorized},
		"unknown method":         {id(`{"methods": ["totp"], "totp": {}}`), 401, "unsupported method"},
		"bad token":              {id(`{"methods": ["token"], "token": {"id": "x"}}`), 401, unauthorized},
		"token without id":       {id(`{"methods": ["token"], "token": {}}`), 400, "Expecting to find token in identity."},
		"bad app credential":     {id(`{"methods": ["application_credential"], "application_credential": {"id": "x", "secret": "y"}}`), 401, unauthorized},
		"app cred of nobody":     {id(`{"methods": ["application_credential"], "application_credential": {"name": "x", "secret": "y"}}`), 400, "Expecting to find user"},
		"oauth unsigned":         {id(`{"methods": ["oauth1"], "oauth1": {}}`), 401, unauthorized},
		"unknown scope":          {scope(`{"planet": {}}`), 400, "names 0 scopes"},
		"two scopes":             {scope(`{"project": {"id": "x"}, "domain": {"id": "default"}}`), 400, "names 2 scopes"},
		"scope of no type":       {scope(`7`), 400, "scope"},
		"a word as scope":        {scope(`"everything"`), 400, "not a scope"},
		"project, no domain":     {scope(`{"project": {"name": "admin"}}`), 400, "Expecting to find domain in project."},
		"unknown project":        {scope(`{"project": {"id": "x"}}`), 401, unauthorized},
		"no role on domain":      {scope(`{"domain": {"id": "default"}}`), 401, unauthorized},
		"half of the system":     {scope(`{"system": {"all": false}}`), 400, "system"},
		"unknown trust":          {scope(`{"OS-TRUST:trust": {"id": "x"}}`), 401, unauthorized},
		"a name with a NUL":      {user(`{"name": "ad\u0000min", "domain": {"id": "default"}, "password": "x"}`), 401, unauthorized},
		"a long password":        {user(`{"name": "admin", "domain": {"id": "default"}, "password": "` + strings.Repeat("x", 5000) + `"}`), 401, unauthorized},
		"larger than a megabyte": {user(`{"name": "` + strings.Repeat("x", 1<<20) + `", "domain": {"id": "default"}, "password": "x"}`), 413, ""},
	} {
		t.Run(name, func(t *testing.T) {
			a := c.want(q.status, "", "POST", "/v3/auth/tokens", q.body)
			if !strings.Contains(a.str("error.message"), q.text) || a.at("error.code") != float64(q.status) || a.str("error.title") == "" {
				t.Errorf("%s", a.raw)
			}
			if a.header.Get("X-Subject-Token") != "" {
				t.Error("a refused login got a token")
			}
		})
	}
	a := c.want(401, "", "POST", "/v3/auth/tokens", passwordAuth("admin", "x", nil))
	const exact = `{"error":{"code":401,"message":"The request you have made requires authentication.","title":"Unauthorized"}}`
	if a.raw != exact {
		t.Errorf("401 is %s", a.raw)
	}
	if got := a.header.Get("WWW-Authenticate"); got != `Keystone uri="`+c.url+`/identity"` {
		t.Errorf("WWW-Authenticate: %s", got)
	}
	c.want(400, "", "POST", "/v3/auth/tokens", `{}`, "Content-Type", "text/plain")
}

func TestTokensOfOthers(t *testing.T) {
	c := newCloud(t)
	p := c.project("p", "default")
	for name, role := range map[string]string{"u": "member", "v": "member", "svc": "service"} {
		c.assign(role, model.Assignment{UserID: c.user(name, "default"), ProjectID: p})
	}
	u, v, svc := c.login("u", project("p")), c.login("v", project("p")), c.login("svc", project("p"))
	mine := c.login("u", project("p"))
	c.want(403, v, "GET", "/v3/auth/tokens", nil, "X-Subject-Token", u)
	c.want(403, v, "GET", "/v3/auth/tokens", nil, "X-Subject-Token", "gibberish")
	c.want(403, v, "DELETE", "/v3/auth/tokens", nil, "X-Subject-Token", u)
	c.want(403, svc, "DELETE", "/v3/auth/tokens", nil, "X-Subject-Token", u)
	c.want(200, svc, "GET", "/v3/auth/tokens", nil, "X-Subject-Token", u)
	c.want(200, c.admin, "GET", "/v3/auth/tokens", nil, "X-Subject-Token", u)
	c.want(404, c.admin, "GET", "/v3/auth/tokens", nil, "X-Subject-Token", "gibberish")
	c.want(400, c.admin, "GET", "/v3/auth/tokens", nil)
	c.want(200, mine, "GET", "/v3/auth/tokens", nil, "X-Subject-Token", u)
	c.want(204, u, "DELETE", "/v3/auth/tokens", nil, "X-Subject-Token", u)
	c.want(401, u, "GET", "/v3/auth/catalog", nil)
	c.want(200, mine, "GET", "/v3/auth/catalog", nil)
	c.want(204, c.admin, "DELETE", "/v3/auth/tokens", nil, "X-Subject-Token", mine)
	c.want(401, mine, "GET", "/v3/auth/catalog", nil)
}

func TestApplicationCredentialIsLimitedByItsAccessRules(t *testing.T) {
	c := newCloud(t)
	p := c.project("p", "default")
	u := c.user("u", "default")
	c.assign("member", model.Assignment{UserID: u, ProjectID: p})
	tok := c.login("u", project("p"))
	make := func(body string) (id, secret string) {
		a := c.want(201, tok, "POST", "/v3/users/"+u+"/application_credentials", body)
		return a.str("application_credential.id"), a.str("application_credential.secret")
	}
	login := func(id, secret string) answer {
		return c.do("", "POST", "/v3/auth/tokens", map[string]any{"auth": map[string]any{"identity": map[string]any{"methods": []string{"application_credential"},
			"application_credential": map[string]any{"id": id, "secret": secret}}}})
	}
	id, secret := make(`{"application_credential": {"name": "limited", "access_rules": [{"service": "identity", "method": "GET", "path": "/v3/users/{id}/projects"}, {"service": "identity", "method": "GET", "path": "/v3/auth/**"}]}}`)
	limited := login(id, secret)
	if limited.status != 201 {
		t.Fatal(limited.raw)
	}
	lt := limited.header.Get("X-Subject-Token")
	c.want(200, lt, "GET", "/v3/users/"+u+"/projects", nil)
	c.want(200, lt, "GET", "/v3/auth/projects", nil)
	c.want(401, lt, "GET", "/v3/users/"+u, nil)
	c.want(401, lt, "GET", "/v3/regions", nil)
	c.want(401, lt, "DELETE", "/v3/auth/tokens", nil, "X-Subject-Token", lt)
	if limited.at("token.application_credential.restricted") != true || limited.at("token.application_credential.access_rules") == nil {
		t.Errorf("the token says %s", limited.raw)
	}

	id, secret = make(`{"application_credential": {"name": "plain", "roles": [{"name": "reader"}]}}`)
	plain := login(id, secret)
	pt := plain.header.Get("X-Subject-Token")
	if plain.str("token.project.id") != p || !strings.Contains(plain.raw, `"name":"reader"`) || strings.Contains(plain.raw, `"name":"member"`) {
		t.Errorf("the token says %s", plain.raw)
	}
	// It may not make more of itself, nor another scope, nor rights that outlive it.
	c.want(403, pt, "POST", "/v3/users/"+u+"/application_credentials", `{"application_credential": {"name": "more"}}`)
	c.want(403, pt, "DELETE", "/v3/users/"+u+"/application_credentials/"+id, nil)
	c.want(403, pt, "POST", "/v3/credentials", `{"credential": {"type": "cert", "blob": "x"}}`)
	c.want(403, pt, "POST", "/v3/users/"+u+"/credentials/OS-EC2", map[string]any{"tenant_id": p})
	c.want(403, "", "POST", "/v3/auth/tokens", map[string]any{"auth": map[string]any{"identity": map[string]any{"methods": []string{"token"}, "token": map[string]any{"id": pt}}, "scope": map[string]any{"unscoped": map[string]any{}}}})
	if a := login(id, "wrong"); a.status != 401 {
		t.Errorf("a wrong secret: %d", a.status)
	}
	c.want(201, "", "POST", "/v3/auth/tokens", map[string]any{"auth": map[string]any{"identity": map[string]any{"methods": []string{"application_credential"},
		"application_credential": map[string]any{"name": "plain", "user": map[string]any{"name": "u", "domain": map[string]any{"name": "Default"}}, "secret": secret}}}})
	c.want(409, tok, "POST", "/v3/users/"+u+"/application_credentials", `{"application_credential": {"name": "plain"}}`)
	c.want(400, tok, "POST", "/v3/users/"+u+"/application_credentials", `{"application_credential": {"name": "n", "roles": [{"name": "admin"}]}}`)
	c.want(400, tok, "POST", "/v3/users/"+u+"/application_credentials", `{"application_credential": {"name": "n", "expires_at": "2001-01-01T00:00:00Z"}}`)
	c.want(400, tok, "POST", "/v3/users/"+u+"/application_credentials", `{"application_credential": {"name": "n", "expires_at": "soon"}}`)
	c.want(403, tok, "DELETE", "/v3/users/"+u+"/access_rules/"+c.want(200, tok, "GET", "/v3/users/"+u+"/access_rules", nil).rows("access_rules", "id")[0], nil)
	c.want(204, tok, "DELETE", "/v3/users/"+u+"/application_credentials/"+id, nil)
	c.want(401, pt, "GET", "/v3/auth/projects", nil)
}

func TestDiscovery(t *testing.T) {
	c := newCloud(t)
	a := c.want(300, "", "GET", "", nil)
	values, _ := a.at("versions.values").([]any)
	if len(values) != 1 {
		t.Fatalf("%s", a.raw)
	}
	for _, path := range []string{"/v3", "/v3/"} {
		a := c.want(200, "", "GET", path, nil)
		if a.str("version.id") != "v3.14" || !strings.Contains(a.raw, c.url+"/identity/v3/") {
			t.Errorf("%s", a.raw)
		}
	}
	a = c.want(404, c.admin, "GET", "/v3/nothing", nil)
	if a.str("error.title") != "Not Found" {
		t.Errorf("%s", a.raw)
	}
	c.want(405, c.admin, "PATCH", "/v3/auth/tokens", `{}`)
}

func TestCatalogOfAToken(t *testing.T) {
	c := newCloud(t)
	a := c.want(200, c.admin, "GET", "/v3/auth/catalog", nil)
	if got := a.rows("catalog", "type"); !slices.Equal(got, []string{"block-storage", "compute", "ec2", "identity", "image", "network", "volumev3"}) {
		t.Errorf("the catalogue has %v", got)
	}
	// A project with an endpoint of its own sees that one only; placeholders are filled.
	svc := c.want(201, c.admin, "POST", "/v3/services", `{"service": {"type": "object-store", "name": "swift"}}`).str("service.id")
	e := c.want(201, c.admin, "POST", "/v3/endpoints", map[string]any{"endpoint": map[string]any{"service_id": svc, "interface": "public", "url": "http://o.test/v1/AUTH_$(project_id)s", "region_id": "RegionOne"}}).str("endpoint.id")
	admin := identity.AdminProject(c.st.Snapshot())
	c.want(204, c.admin, "PUT", "/v3/OS-EP-FILTER/projects/"+admin+"/endpoints/"+e, nil)
	a = c.want(200, c.admin, "GET", "/v3/auth/catalog", nil)
	if got := a.rows("catalog", "type"); !slices.Equal(got, []string{"object-store"}) || !strings.Contains(a.raw, "http://o.test/v1/AUTH_"+admin) {
		t.Errorf("%s", a.raw)
	}
	c.want(200, c.admin, "PATCH", "/v3/endpoints/"+e, `{"endpoint": {"enabled": false}}`)
	if a = c.want(200, c.admin, "GET", "/v3/auth/catalog", nil); strings.Contains(a.raw, "o.test") {
		t.Errorf("a disabled endpoint is in %s", a.raw)
	}
	c.want(204, c.admin, "DELETE", "/v3/services/"+svc, nil)
	if a = c.want(200, c.admin, "GET", "/v3/auth/catalog", nil); len(a.rows("catalog", "type")) != 7 {
		t.Errorf("%s", a.raw)
	}
}

// FuzzAuthBody sends bodies to POST /v3/auth/tokens: whatever they are, the answer is a
// refusal in Keystone's form, unless the password is in them. The server's goroutines make
// coverage uneven: run it with -fuzzminimizetime=1x.
func FuzzAuthBody(f *testing.F) {
	c := newCloud(f)
	for _, body := range []string{
		`{"auth": {"identity": {"methods": ["password"], "password": {"user": {"name": "admin", "domain": {"id": "default"}, "password": "x"}}}, "scope": {"project": {"name": "admin", "domain": {"name": "Default"}}}}}`,
		`{"auth": {"identity": {"methods": ["token", "application_credential", "oauth1"], "token": {"id": "x"}, "application_credential": {"id": "x", "secret": "y"}}, "scope": {"system": {"all": true}}}}`,
		`{"auth": {"identity": {"methods": []}, "scope": "unscoped"}}`, `{"auth": null}`, `[]`, `{`, `null`, ``, `{"auth": {"identity": {"methods": [null, 7]}}}`,
		`{"auth": {"identity": {"methods": ["password"], "password": {"user": null}}, "scope": {"OS-TRUST:trust": {"id": "x"}}}}`,
	} {
		f.Add(body)
	}
	f.Fuzz(func(t *testing.T, body string) {
		c := &cloud{t: t, url: c.url, id: c.id, st: c.st, front: c.front}
		start := time.Now()
		a := c.do("", "POST", "/v3/auth/tokens", body)
		switch {
		case a.status == 201 && strings.Contains(body, "pw-admin"):
		case a.status != 400 && a.status != 401 && a.status != 413:
			t.Fatalf("%d %s", a.status, a.raw)
		case a.str("error.message") == "" || a.at("error.code") != float64(a.status) || a.header.Get("X-Subject-Token") != "":
			t.Fatalf("%s", a.raw)
		}
		if took := time.Since(start); took > 60*time.Second {
			t.Fatalf("it took %v", took)
		}
		if !json.Valid([]byte(a.raw)) {
			t.Fatalf("not JSON: %s", a.raw)
		}
	})
}
