package nova_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"yakumo/store"
)

// seeds are bodies of POST servers, good and bad; IMAGE and NETWORK stand for what is there.
var seeds = []string{
	`{"server": {"name": "a", "imageRef": "IMAGE", "flavorRef": "1"}}`,
	`{"server": {"name": "a", "imageRef": "IMAGE", "flavorRef": 1, "networks": [{"uuid": "NETWORK", "fixed_ip": "10.0.0.9"}], "min_count": "2", "max_count": 3}}`,
	`{"server": {"name": "a", "imageRef": "IMAGE", "flavorRef": "1", "networks": "none", "tags": ["x"], "hostname": "h", "description": null}}`,
	`{"server": {"name": "a", "imageRef": "", "flavorRef": "1", "block_device_mapping_v2": [{"boot_index": "0", "uuid": "IMAGE", "source_type": "image", "destination_type": "local"}]}}`,
	`{"server": {"name": "a", "imageRef": "IMAGE", "flavorRef": "1", "availability_zone": "a:b:c", "security_groups": [{"name": "default"}], "metadata": {"k": "v"}, "config_drive": "on"}}`,
	`{"server": {"name": "a", "imageRef": "http://x/IMAGE", "flavorRef": "http://x/1", "user_data": "AAAA", "key_name": "a/b", "os:scheduler_hints": {}}, "os:scheduler_hints": {"a": 1}}`,
	`{"server": {"name": "\u0000", "min_count": 1e99}}`, `{"server": []}`, `{"server": {"name": {"a": [[[[1]]]]}}}`, `[]`, `"`, ``, `{"server": {"networks": [null, 1, {}]}}`,
}

// FuzzServerBody: whatever is sent as a new server, the answer is one of Nova's, and what
// is refused leaves nothing behind.
func FuzzServerBody(f *testing.F) {
	c := newCloud(f)
	c.furnish()
	c.host("h1").Stop()
	for _, s := range seeds {
		for i, v := range []string{"2.1", "2.37", "2.96"} {
			f.Add(s, i, v == "2.96")
		}
	}
	f.Fuzz(func(t *testing.T, body string, minor int, asAdmin bool) {
		c.t = t
		token := "red"
		if asAdmin {
			token = "admin"
		}
		body = strings.NewReplacer("IMAGE", c.image, "NETWORK", c.network).Replace(body)
		before := store.Ports.Count(c.store.Snapshot(), "network", c.network)
		a := c.do(token, "POST", "/servers", body, fmt.Sprintf("2.%d", 1+(minor%96+96)%96))
		if a.status == 202 {
			for s := range store.Servers.All(c.store.Snapshot()) {
				c.update(func(tx *store.Tx) error {
					for _, p := range s.Ports {
						if err := store.Ports.Delete(tx, p); err != nil {
							return err
						}
					}
					for k := range store.Actions.List(tx, "server", s.ID) {
						if err := store.Actions.Delete(tx, k.Key()); err != nil {
							return err
						}
					}
					return store.Servers.Delete(tx, s.ID)
				})
			}
			return
		}
		if a.status >= 500 && a.status != 501 {
			t.Fatalf("%d %s", a.status, a.raw)
		}
		if len(a.body) != 1 || len(a.raw) > 4096 {
			t.Fatalf("%d with %.300s", a.status, a.raw)
		}
		snap := c.store.Snapshot()
		if n := store.Ports.Count(snap, "network", c.network); n != before {
			t.Fatalf("a refusal left %d ports", n-before)
		}
		for range store.Servers.All(snap) {
			t.Fatal("a refusal left a server")
		}
	})
}

// FuzzAction: whatever is sent as an action, or as a part of a server, is answered.
func FuzzAction(f *testing.F) {
	c := newCloud(f)
	c.furnish()
	id := c.seed(1, nil)[0]
	for _, s := range []string{`{"os-stop": null}`, `{"reboot": {"type": "HARD"}}`, `{"os-getConsoleOutput": {"length": "1"}}`, `{"lock": {"locked_reason": "x"}}`,
		`{"addSecurityGroup": {"name": "default"}}`, `{"metadata": {"a": "b"}}`, `{"tags": ["a"]}`, `{"meta": {"key": "b"}}`, `{"server": {"name": "x"}}`, `{"pause": {}}`, `{}`, `[`} {
		for i := range 5 {
			f.Add(i, s)
		}
	}
	paths := []struct{ method, path string }{{"POST", "/action"}, {"POST", "/metadata"}, {"PUT", "/tags"}, {"PUT", "/metadata/key"}, {"PUT", ""}}
	f.Fuzz(func(t *testing.T, which int, body string) {
		c.t = t
		x := paths[(which%len(paths)+len(paths))%len(paths)]
		a := c.do("red", x.method, "/servers/"+id+x.path, body, "2.96")
		if a.status >= 500 && a.status != 501 && a.status != 503 {
			t.Fatalf("%s %s: %d %s", x.method, x.path, a.status, a.raw)
		}
		if a.status >= 400 {
			if len(a.body) != 1 {
				t.Fatalf("%s %s: %d %s", x.method, x.path, a.status, a.raw)
			}
			return
		}
		if !json.Valid([]byte(body)) {
			t.Fatalf("%s %s takes %q", x.method, x.path, body)
		}
	})
}

// FuzzListQuery: whatever is asked of the list is answered.
func FuzzListQuery(f *testing.F) {
	c := newCloud(f)
	c.furnish()
	c.seed(3, nil)
	for _, s := range []string{"name=^a(", "limit=1&marker=x", "sort_key=uuid&sort_dir=asc", "status=ACTIVE&tags=a,b", "changes-since=2026-01-01T00:00:00Z", "all_tenants=1&deleted=yes", "ip=::&ip6=1", "%zz=1", "a&b=&;"} {
		f.Add(s, true)
		f.Add(s, false)
	}
	f.Fuzz(func(t *testing.T, query string, admin bool) {
		c.t = t
		if strings.ContainsFunc(query, func(r rune) bool { return r <= ' ' || r > '~' || r == '#' }) {
			return // no request line holds it
		}
		token := "red"
		if admin {
			token = "admin"
		}
		if a := c.do(token, "GET", "/servers/detail?"+query, nil, "2.74"); a.status >= 500 {
			t.Fatalf("%d %s", a.status, a.raw)
		}
	})
}
