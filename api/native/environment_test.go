package native_test

import (
	"strings"
	"testing"

	"yakumo/model"
	"yakumo/store"
)

func TestEnvironments(t *testing.T) {
	c := newCloud(t)
	c.host("id-a", "a")
	c.put(func(tx *store.Tx) error {
		for _, id := range []model.ID{"p", "q"} {
			if err := store.Projects.Put(tx, &model.Project{ID: id, Name: id}); err != nil {
				return err
			}
			if err := store.Routers.Put(tx, &model.Router{Meta: model.Meta{ID: "r-" + id, ProjectID: id}}); err != nil {
				return err
			}
		}
		if err := store.Hosts.Put(tx, &model.Host{Meta: model.Meta{ID: "id-b", Name: "b"}, Zone: "east"}); err != nil {
			return err
		}
		if err := store.Servers.Put(tx, &model.Server{Meta: model.Meta{ID: "s1", Name: "web", ProjectID: "p"}, Host: "id-a"}); err != nil {
			return err
		}
		return store.Volumes.Put(tx, &model.Volume{Meta: model.Meta{ID: "v1", Name: "data", ProjectID: "p"}, Engine: model.EngineLocal, Host: "id-a"})
	})
	const mine = "/yakumo/v1/environments/self"
	refused := func(code int, token, method, path, body string) {
		t.Helper()
		if got, out := c.call(token, method, path, body); got != code {
			t.Errorf("%s %s %s of %s: %d %v, want %d", method, path, body, token, got, out, code)
		}
	}
	refused(404, "member", "GET", mine, "")
	refused(404, "member", "DELETE", mine, "")
	for _, body := range []string{``, `[]`, `{}`, `{"zone":7}`, `{"zone":"mars"}`} {
		refused(400, "member", "PUT", mine, body)
	}
	refused(403, "reader", "PUT", mine, `{"zone":"east"}`)
	refused(404, "member", "PUT", "/yakumo/v1/environments/q", `{"zone":"east"}`)
	refused(404, "admin", "PUT", "/yakumo/v1/environments/none", `{"zone":"east"}`)
	if n := store.Environments.All(c.st.Snapshot()); n != nil {
		for e := range n {
			t.Errorf("refused, there is %+v", e)
		}
	}
	code, out := c.call("member", "PUT", mine, `{"zone":"east"}`)
	e, _ := out["environment"].(map[string]any)
	if code != 202 || e["project"] != "p" || e["zone"] != "east" || e["done"] != false || len(e["servers"].([]any)) != 1 || len(e["volumes"].([]any)) != 1 {
		t.Fatalf("%d %v", code, out)
	}
	if _, out := c.call("reader", "GET", "/yakumo/v1/environments/p", ""); !strings.Contains(out["environment"].(map[string]any)["servers"].([]any)[0].(map[string]any)["why"].(string), "host is down") {
		t.Errorf("%v", out)
	}
	for id, zones := range map[model.ID]int{"r-p": 1, "r-q": 0} {
		if r, _ := store.Routers.Get(c.st.Snapshot(), id); len(r.ZoneHints) != zones {
			t.Errorf("%+v", r)
		}
	}
	c.put(func(tx *store.Tx) error {
		return store.Environments.Put(tx, &model.Environment{ProjectID: "q", Zone: "nova"})
	})
	refused(404, "member", "GET", "/yakumo/v1/environments/q", "")
	refused(404, "member", "DELETE", "/yakumo/v1/environments/q", "")
	for token, n := range map[string]int{"reader": 1, "admin": 2} {
		if _, out := c.call(token, "GET", "/yakumo/v1/environments", ""); len(out["environments"].([]any)) != n {
			t.Errorf("%s sees %v", token, out)
		}
	}
	refused(204, "member", "DELETE", mine, "")
	refused(204, "admin", "DELETE", "/yakumo/v1/environments/q", "")
	refused(404, "member", "DELETE", mine, "")
}
