package native_test

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"yakumo/api"
	"yakumo/api/native"
	"yakumo/check"
	"yakumo/compute"
	"yakumo/fault"
	"yakumo/model"
	"yakumo/network"
	"yakumo/store"
	"yakumo/store/storetest"
)

// tokens is an Authenticator whose tokens are names of callers.
type tokens struct{}

func (tokens) Authenticate(_ context.Context, token string) (*api.Caller, error) {
	roles := map[string][]string{"admin": {"admin", "manager", "member", "reader"}, "project-admin": {"admin", "member", "reader"},
		"member": {"member", "reader"}, "reader": {"reader"}, "unscoped": nil}
	r, ok := roles[token]
	if !ok {
		return nil, fault.New(fault.Unauthorized, "The request you have made requires authentication.")
	}
	c := &api.Caller{UserID: token, RoleNames: r, CloudAdmin: token == "admin"}
	if token != "unscoped" {
		c.ProjectID = "p"
	}
	return c, nil
}

type made struct {
	host string
	ttl  time.Duration
}

type cloud struct {
	t     *testing.T
	st    *store.Store
	front *api.Front
	url   string
	made  []made
	asked []string // of the tracer: what, by whom
}

func newCloud(t *testing.T) *cloud {
	t.Helper()
	c := &cloud{t: t, st: storetest.New(t)}
	front, err := api.New(api.Config{Store: c.st, Auth: tokens{}, Log: slog.New(slog.DiscardHandler), Services: []api.Service{
		native.New(native.Config{Version: "1.2.3", Checker: &check.Checker{Store: c.st, Again: time.Millisecond}, Compute: compute.New(compute.Config{Store: c.st}), Network: network.New(network.Config{}), Tracer: tracer{c}, Token: func(_ context.Context, host string, ttl time.Duration) (string, error) {
			if host == "bad name" {
				return "", fault.New(fault.Invalid, "The host name cannot be used.")
			}
			c.made = append(c.made, made{host, ttl})
			return "the-token", nil
		}})}})
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(front)
	t.Cleanup(srv.Close)
	c.front, c.url = front, srv.URL
	return c
}

func (c *cloud) call(token, method, path, body string) (int, map[string]any) {
	c.t.Helper()
	req, err := http.NewRequestWithContext(c.t.Context(), method, c.url+path, strings.NewReader(body))
	if err != nil {
		c.t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("X-Auth-Token", token)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		c.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	out := map[string]any{}
	if len(b) > 0 {
		if err := json.Unmarshal(b, &out); err != nil {
			c.t.Fatalf("%s %s: %v: %s", method, path, err, b)
		}
	}
	return resp.StatusCode, out
}

func (c *cloud) put(f func(tx *store.Tx) error) {
	c.t.Helper()
	if _, err := c.st.Update(c.t.Context(), f); err != nil {
		c.t.Fatal(err)
	}
}

func (c *cloud) host(id, name string) {
	c.put(func(tx *store.Tx) error {
		return store.Hosts.Put(tx, &model.Host{Meta: model.Meta{ID: id, Name: name}, Zone: "nova", TunnelIP: netip.MustParseAddr("192.0.2.1"), Version: "v",
			BridgeMappings: []string{"physnet1"}, ProviderBridges: []string{"br-ex"}, Capacity: model.HostCapacity{VCPUs: 4}})
	})
}

// TestRights tries every route with every kind of caller.
func TestRights(t *testing.T) {
	c := newCloud(t)
	routes := 0
	for _, r := range c.front.Table() {
		routes++
		path := strings.NewReplacer("{host}", "none", "{project}", "q").Replace(r.Path)
		for _, token := range []string{"", "forged", "unscoped", "reader", "member", "project-admin"} {
			want := http.StatusForbidden
			switch {
			case r.Access == api.Public:
				want = http.StatusOK
			case r.Access == api.Member && (token == "member" || token == "project-admin"):
				want = map[string]int{"POST": http.StatusBadRequest}[r.Method]
				want = cmp.Or(want, http.StatusNotFound)
			case r.Access == api.Reader && (token == "reader" || token == "member" || token == "project-admin"):
				if want = http.StatusNotFound; strings.HasSuffix(r.Path, "/environments") {
					want = http.StatusOK
				}
			case token == "" || token == "forged":
				want = http.StatusUnauthorized
			}
			code, body := c.call(token, r.Method, path, "{}")
			if code != want {
				t.Errorf("%s %s as %q gives %d, want %d: %v", r.Method, path, token, code, want, body)
			}
		}
		own := strings.HasSuffix(r.Path, "/traces") || strings.HasSuffix(r.Path, "/capture") || strings.Contains(r.Path, "/environments")
		if reads := strings.Contains(r.Path, "/environments") && r.Method == "GET" && r.Access == api.Reader; r.Access != api.Public && r.Access != api.Admin && !(own && r.Access == api.Member) && !reads {
			t.Errorf("%s %s is open to %s", r.Method, r.Path, r.Access)
		}
		if code, body := c.call("admin", r.Method, path, "{}"); code == 401 || code == 403 {
			t.Errorf("%s %s as administrator gives %d: %v", r.Method, path, code, body)
		}
	}
	if routes != 21 || len(c.made) != 1 {
		t.Errorf("%d routes; %d tokens made, the administrator's alone was to be", routes, len(c.made))
	}
}

func TestJoinTokens(t *testing.T) {
	c := newCloud(t)
	for body, want := range map[string]made{
		`{}`: {"", time.Hour}, `{"host":"h1"}`: {"h1", time.Hour}, `{"ttl":1}`: {"", time.Second}, `{"ttl":604800,"host":"h"}`: {"h", native.MaxTokenTTL},
	} {
		c.made = nil
		code, out := c.call("admin", "POST", "/yakumo/v1/join-tokens", body)
		if code != 201 || len(c.made) != 1 || c.made[0] != want || out["token"] != "the-token" || out["host"] != want.host {
			t.Errorf("%s gives %d %v, made %v", body, code, out, c.made)
			continue
		}
		at, err := time.Parse(time.RFC3339, fmt.Sprint(out["expires_at"]))
		if d := time.Until(at) - want.ttl; err != nil || d > 5*time.Second || d < -30*time.Second {
			t.Errorf("%s expires at %v: %v", body, out["expires_at"], err)
		}
	}
	c.made = nil
	for _, body := range []string{``, `nonsense`, `[]`, `{} {}`, `{"ttl":0}`, `{"ttl":-1}`, `{"ttl":604801}`, `{"ttl":"1h"}`, `{"ttl":1.5}`,
		`{"ttl":18446744074}`, `{"ttl":99999999999999999999}`, `{"host":7}`, `{"host":"bad name"}`} {
		code, out := c.call("admin", "POST", "/yakumo/v1/join-tokens", body)
		e, _ := out["error"].(map[string]any)
		if code != 400 || e["code"] != 400.0 || e["message"] == "" || e["request_id"] == "" {
			t.Errorf("%s gives %d %v", body, code, out)
		}
	}
	if len(c.made) != 0 {
		t.Errorf("made %v", c.made)
	}
}

func TestHosts(t *testing.T) {
	c := newCloud(t)
	if code, out := c.call("admin", "GET", "/yakumo/v1/hosts", ""); code != 200 || fmt.Sprint(out["hosts"]) != "[]" {
		t.Errorf("no hosts: %d %v", code, out)
	}
	c.host("id-b", "b")
	c.host("id-a", "a")
	c.put(func(tx *store.Tx) error { return store.Heartbeats.Put(tx, &model.Heartbeat{HostID: "id-a"}) })
	code, out := c.call("admin", "GET", "/yakumo/v1/hosts", "")
	hosts, _ := out["hosts"].([]any)
	if code != 200 || len(hosts) != 2 {
		t.Fatalf("list: %d %v", code, out)
	}
	a, b := hosts[0].(map[string]any), hosts[1].(map[string]any)
	if a["name"] != "a" || a["up"] != true || a["tunnel_ip"] != "192.0.2.1" || fmt.Sprint(a["bridge_mappings"]) != "map[physnet1:br-ex]" || b["name"] != "b" || b["up"] != false {
		t.Errorf("list: %v", hosts)
	}
	for _, key := range []string{"a", "id-a"} {
		if code, out := c.call("admin", "GET", "/yakumo/v1/hosts/"+key, ""); code != 200 || out["host"].(map[string]any)["id"] != "id-a" {
			t.Errorf("show %s: %d %v", key, code, out)
		}
	}
	for _, m := range []string{"GET", "DELETE"} {
		for _, key := range []string{"none", "a%2Fb", "%00"} {
			if code, out := c.call("admin", m, "/yakumo/v1/hosts/"+key, ""); code != 404 {
				t.Errorf("%s %s: %d %v", m, key, code, out)
			}
		}
	}
	if code, _ := c.call("admin", "PUT", "/yakumo/v1/hosts/a", "{}"); code != 405 {
		t.Errorf("PUT gives %d", code)
	}

	// A host that holds something stays.
	c.put(func(tx *store.Tx) error {
		if err := store.Servers.Put(tx, &model.Server{Meta: model.Meta{ID: "s1"}, Host: "id-a"}); err != nil {
			return err
		}
		return store.Ports.Put(tx, &model.Port{Meta: model.Meta{ID: "p1"}, Host: "id-b", MAC: "02:00:00:00:00:01", NetworkID: "n"})
	})
	for _, key := range []string{"a", "b"} {
		if code, out := c.call("admin", "DELETE", "/yakumo/v1/hosts/"+key, ""); code != 409 {
			t.Errorf("removal of %s: %d %v", key, code, out)
		}
		if code, _ := c.call("admin", "GET", "/yakumo/v1/hosts/"+key, ""); code != 200 {
			t.Errorf("%s is gone", key)
		}
	}
	c.put(func(tx *store.Tx) error { return store.Servers.Delete(tx, "s1") })
	if code, out := c.call("admin", "DELETE", "/yakumo/v1/hosts/a", ""); code != 204 {
		t.Errorf("removal: %d %v", code, out)
	}
	if _, ok := store.Heartbeats.Get(c.st.Snapshot(), "id-a"); ok {
		t.Error("the heartbeat of a removed host is left")
	}
	c.host("id-new", "a") // the name is free again
	if code, out := c.call("", "GET", "/yakumo/v1", ""); code != 200 || out["version"] != "1.2.3" {
		t.Errorf("version: %d %v", code, out)
	}
}

// TestCheck: what contradicts itself is told, with the rule that it breaks.
func TestCheck(t *testing.T) {
	c := newCloud(t)
	code, body := c.call("admin", "GET", "/yakumo/v1/check", "")
	if r, _ := body["check"].(map[string]any); code != 200 || len(r["findings"].([]any)) != 0 {
		t.Fatalf("an empty cloud: %d %v", code, body)
	}
	if _, err := c.st.Update(t.Context(), func(tx *store.Tx) error {
		return store.Ports.Put(tx, &model.Port{Meta: model.NewMeta("p", "lost", time.Now()), NetworkID: "none", MAC: "fa:16:3e:00:00:01"})
	}); err != nil {
		t.Fatal(err)
	}
	code, body = c.call("admin", "GET", "/yakumo/v1/check", "")
	if r, _ := body["check"].(map[string]any); code != 200 || !strings.Contains(fmt.Sprint(r["findings"]), "port-network-exists") {
		t.Fatalf("a port of no network: %d %v", code, body)
	}
}
