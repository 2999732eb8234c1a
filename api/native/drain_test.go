package native_test

import (
	"fmt"
	"strings"
	"testing"

	"yakumo/model"
	"yakumo/store"
)

func TestDrainAndFence(t *testing.T) {
	c := newCloud(t)
	c.host("id-a", "a")
	c.put(func(tx *store.Tx) error {
		if err := store.Heartbeats.Put(tx, &model.Heartbeat{HostID: "id-a"}); err != nil {
			return err
		}
		return store.Servers.Put(tx, &model.Server{Meta: model.Meta{ID: "s1", Name: "web"}, Host: "id-a"})
	})
	drain := func(method, body string) map[string]any {
		t.Helper()
		code, out := c.call("admin", method, "/yakumo/v1/hosts/a/drain", body)
		if code != 200 {
			t.Fatalf("%s drain: %d %v", method, code, out)
		}
		return out["drain"].(map[string]any)
	}
	for _, d := range []map[string]any{drain("POST", `{"reason":"new disks"}`), drain("POST", `{}`), drain("GET", "")} {
		if d["host"] != "a" || d["draining"] != true || d["done"] != false || !strings.Contains(fmt.Sprint(d["servers"]), "It is being built.") {
			t.Errorf("the drain is %v", d)
		}
	}
	if _, out := c.call("admin", "GET", "/yakumo/v1/hosts/a", ""); out["host"].(map[string]any)["draining"] != true || out["host"].(map[string]any)["disabled"] != true {
		t.Errorf("the host is %v", out)
	}
	if h, _ := store.Hosts.Get(c.st.Snapshot(), "id-a"); h.Reason != "new disks" {
		t.Errorf("the reason is %q", h.Reason)
	}
	if d := drain("DELETE", ""); d["draining"] != false {
		t.Errorf("undrained: %v", d)
	}
	for path, bodies := range map[string][]string{"drain": {`[]`, `{"reason":7}`, `{"reason":"` + strings.Repeat("x", 256) + `"}`}, "fence": {`{}`, `{"confirmed_off":false}`, `{"confirmed_off":"yes"}`}} {
		for _, body := range bodies {
			if code, out := c.call("admin", "POST", "/yakumo/v1/hosts/a/"+path, body); code != 400 {
				t.Errorf("%s %s: %d %v", path, body, code, out)
			}
		}
	}
	if code, out := c.call("admin", "POST", "/yakumo/v1/hosts/a/fence", `{"confirmed_off":true}`); code != 409 {
		t.Errorf("a host that is up: %d %v", code, out)
	}
	c.put(func(tx *store.Tx) error { return store.Heartbeats.Delete(tx, "id-a") })
	if code, out := c.call("admin", "POST", "/yakumo/v1/hosts/a/fence", `{"confirmed_off":true}`); code != 200 || out["host"].(map[string]any)["fenced"] != true {
		t.Errorf("fence: %d %v", code, out)
	}
	c.put(func(tx *store.Tx) error {
		return store.Hosts.Put(tx, &model.Host{Meta: model.Meta{ID: "id-s", Name: "tor"}, Switch: &model.HostSwitch{}})
	})
	if code, out := c.call("admin", "POST", "/yakumo/v1/hosts/tor/drain", `{}`); code != 400 {
		t.Errorf("a switch: %d %v", code, out)
	}
}
