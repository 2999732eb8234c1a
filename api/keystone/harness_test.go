package keystone_test

import (
	"bytes"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"yakumo/api"
	"yakumo/api/keystone"
	"yakumo/identity"
	"yakumo/model"
	"yakumo/store"
	"yakumo/store/storetest"
)

// cloud is the dialect on a server, with an administrator.
type cloud struct {
	t     testing.TB
	url   string
	id    *identity.Identity
	st    *store.Store
	front *api.Front
	admin string // the administrator's token
}

func newCloud(t testing.TB) *cloud {
	t.Helper()
	st := storetest.New(t)
	id, err := identity.New(identity.Config{Store: st, Master: bytes.Repeat([]byte{1}, 32), Log: slog.New(slog.DiscardHandler),
		Hash: identity.HashParams{MemoryKiB: 64, Passes: 1}})
	if err != nil {
		t.Fatal(err)
	}
	if err := id.Bootstrap(t.Context(), identity.Start{AdminPassword: "pw-admin", BaseURL: "http://c.test"}); err != nil {
		t.Fatal(err)
	}
	front, err := api.New(api.Config{Store: st, Auth: keystone.Authenticator{Identity: id}, Log: slog.New(slog.DiscardHandler),
		Services: []api.Service{keystone.New(keystone.Config{Identity: id})}})
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(front)
	t.Cleanup(srv.Close)
	c := &cloud{t: t, url: srv.URL, id: id, st: st, front: front}
	c.admin = c.login("admin", project("admin"))
	return c
}

// answer is a response.
type answer struct {
	status int
	header http.Header
	raw    string
	body   map[string]any
}

// do sends a request below /identity; body is JSON text or a value.
func (c *cloud) do(token, method, path string, body any, headers ...string) answer {
	c.t.Helper()
	var r io.Reader
	switch b := body.(type) {
	case nil:
	case string:
		r = strings.NewReader(b)
	default:
		text, err := json.Marshal(b)
		if err != nil {
			c.t.Fatal(err)
		}
		r = bytes.NewReader(text)
	}
	q, err := http.NewRequestWithContext(c.t.Context(), method, c.url+"/identity"+path, r)
	if err != nil {
		c.t.Fatal(err)
	}
	if token != "" {
		q.Header.Set("X-Auth-Token", token)
	}
	if r != nil {
		q.Header.Set("Content-Type", "application/json")
	}
	for n := 0; n < len(headers); n += 2 {
		q.Header.Set(headers[n], headers[n+1])
	}
	resp, err := http.DefaultClient.Do(q)
	if err != nil {
		c.t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	a := answer{status: resp.StatusCode, header: resp.Header, raw: string(raw)}
	if len(raw) > 0 && strings.HasPrefix(resp.Header.Get("Content-Type"), "application/json") {
		if err := json.Unmarshal(raw, &a.body); err != nil {
			c.t.Fatalf("%s %s: the body is not JSON: %v", method, path, err)
		}
	}
	return a
}

// want is do, and fails on another status.
func (c *cloud) want(status int, token, method, path string, body any, headers ...string) answer {
	c.t.Helper()
	a := c.do(token, method, path, body, headers...)
	if a.status != status {
		c.t.Fatalf("%s %s: %d, want %d: %s", method, path, a.status, status, a.raw)
	}
	return a
}

// at follows a path of members, "user.domain.id", in an answer.
func (a answer) at(path string) any {
	var v any = a.body
	for _, key := range strings.Split(path, ".") {
		m, ok := v.(map[string]any)
		if !ok {
			return nil
		}
		v = m[key]
	}
	return v
}

func (a answer) str(path string) string { s, _ := a.at(path).(string); return s }

// rows gives the values of one attribute of a list.
func (a answer) rows(plural, attr string) []string {
	list, _ := a.body[plural].([]any)
	out := []string{}
	for _, e := range list {
		m, _ := e.(map[string]any)
		s, _ := m[attr].(string)
		out = append(out, s)
	}
	return out
}

func project(name string) any {
	return map[string]any{"project": map[string]any{"name": name, "domain": map[string]any{"id": "default"}}}
}

func domain(id string) any { return map[string]any{"domain": map[string]any{"id": id}} }

func passwordAuth(user, password string, scope any) any {
	auth := map[string]any{"identity": map[string]any{"methods": []string{"password"},
		"password": map[string]any{"user": map[string]any{"name": user, "domain": map[string]any{"id": "default"}, "password": password}}}}
	if scope != nil {
		auth["scope"] = scope
	}
	return map[string]any{"auth": auth}
}

// login gives a token; a user's password is pw- and his name.
func (c *cloud) login(user string, scope any) string {
	c.t.Helper()
	return c.want(201, "", "POST", "/v3/auth/tokens", passwordAuth(user, "pw-"+user, scope)).header.Get("X-Subject-Token")
}

func (c *cloud) user(name, domain string) string {
	c.t.Helper()
	u, err := c.id.CreateUser(c.t.Context(), model.User{Name: name, DomainID: domain, Enabled: true}, "pw-"+name)
	if err != nil {
		c.t.Fatal(err)
	}
	return u.ID
}

func (c *cloud) project(name, domain string) string {
	c.t.Helper()
	p, err := c.id.CreateProject(c.t.Context(), model.Project{Name: name, DomainID: domain, Enabled: true})
	if err != nil {
		c.t.Fatal(err)
	}
	return p.ID
}

func (c *cloud) domain(name string) string {
	c.t.Helper()
	d, err := c.id.CreateDomain(c.t.Context(), model.Domain{Name: name, Enabled: true})
	if err != nil {
		c.t.Fatal(err)
	}
	return d.ID
}

func (c *cloud) role(name string) string {
	c.t.Helper()
	id, ok := store.Roles.Holder(c.st.Snapshot(), ","+name)
	if !ok {
		c.t.Fatalf("there is no role %s", name)
	}
	return id
}

func (c *cloud) userID(name string) string {
	c.t.Helper()
	id, ok := store.Users.Holder(c.st.Snapshot(), "default,"+name)
	if !ok {
		c.t.Fatalf("there is no user %s", name)
	}
	return id
}

func (c *cloud) assign(role string, a model.Assignment) {
	c.t.Helper()
	a.RoleID = c.role(role)
	if err := c.id.Assign(c.t.Context(), a); err != nil {
		c.t.Fatal(err)
	}
}
