package nova_test

import (
	"encoding/json"
	"strings"
	"testing"

	"yakumo/model"
	"yakumo/store"
)

func TestServerPassword(t *testing.T) {
	c := newCloud(t)
	c.furnish()
	h := c.host("h1")
	id := c.boot("red", "mine")
	c.wait("red", id, "status", "ACTIVE")
	path := "/servers/" + id + "/os-server-password"
	read := func() any { return c.do("red-reader", "GET", path, nil).body["password"] }
	if got := read(); got != "" {
		t.Errorf("before the guest has handed one in: %v", got)
	}
	s, _ := store.Servers.Get(c.store.Snapshot(), id)
	if err := c.compute.ServerReports(t.Context(), h.ID(), []model.ServerReport{{ServerID: id, Generation: s.Generation, Phase: model.PhaseReady, Power: model.PowerRunning, Sealed: "c2VhbGVk"}}); err != nil {
		t.Fatal(err)
	}
	if got := read(); got != "c2VhbGVk" {
		t.Errorf("the password is %v", got)
	}
	c.refused(404, "itemNotFound", "blue", "GET", path, nil)
	c.refused(404, "itemNotFound", "blue", "DELETE", path, nil)
	c.refused(403, "forbidden", "red-reader", "DELETE", path, nil)
	c.must(204, "red", "DELETE", path, nil)
	if got := read(); got != "" {
		t.Errorf("after it was cleared: %v", got)
	}
}

// TestTaggedCard: a card's tag is kept with its port, for the guest to read.
func TestTaggedCard(t *testing.T) {
	c := newCloud(t)
	c.furnish()
	c.host("h1")
	body := object{"server": object{"name": "tagged", "imageRef": c.image, "flavorRef": "1", "networks": []object{{"uuid": c.network, "tag": "front"}, {"uuid": c.network}}}}
	id := c.must(202, "red", "POST", "/servers", body, "2.42")["id"].(string)
	s, _ := store.Servers.Get(c.store.Snapshot(), id)
	if len(s.Ports) != 2 || len(s.PortTags) != 1 || s.PortTags[s.Ports[0]] != "front" {
		t.Errorf("ports %v, tags %v", s.Ports, s.PortTags)
	}
	c.refused(400, "badRequest", "red", "POST", "/servers", body, "2.31")
}

// TestChangePassword: the agent in a guest sets the password, whose words are in no row of the store, whatever comes of it.
func TestChangePassword(t *testing.T) {
	c := newCloud(t)
	c.furnish()
	c.host("h1")
	const word = "s3cret-that-nobody-keeps"
	change := func(id string) object { return object{"changePassword": object{"adminPass": word}} }
	event := func(id string) (action, one object) {
		t.Helper()
		a := c.rows("red", "/servers/"+id+"/os-instance-actions", "2.62")[0]
		full := c.must(200, "admin", "GET", "/servers/"+id+"/os-instance-actions/"+a["request_id"].(string), nil, "2.84")
		events := full["events"].([]any)
		if a["action"] != "changePassword" || len(events) != 1 || events[0].(object)["event"] != "compute_set_admin_password" {
			t.Fatalf("the newest action is %v", full)
		}
		return a, events[0].(object)
	}
	nothing := func() {
		t.Helper()
		var kept []any
		snap := c.store.Snapshot()
		for s := range store.Servers.All(snap) {
			kept = append(kept, s)
		}
		for a := range store.Actions.All(snap) {
			kept = append(kept, a)
		}
		if b, err := json.Marshal(kept); err != nil || len(kept) < 2 || strings.Contains(string(b), word) {
			t.Errorf("the password is kept, or nothing is: %d rows, %v", len(kept), err)
		}
	}

	plain := c.boot("red", "plain")
	c.wait("red", plain, "status", "ACTIVE")
	if text := c.refused(409, "conflictingRequest", "red", "POST", "/servers/"+plain+"/action", change(plain)); text != "QEMU guest agent is not enabled" {
		t.Errorf("without an agent: %s", text)
	}
	if a, e := event(plain); a["message"] != "Error" || e["result"] != "Error" || e["details"] != "QEMU guest agent is not enabled" {
		t.Errorf("without an agent: %v, %v", a, e)
	}

	for user, properties := range map[string]map[string]string{
		"root": {}, "cirros": {"os_admin_user": "cirros", "os_type": "windows"}, "Administrator": {"os_type": "windows"},
	} {
		properties["hw_qemu_guest_agent"] = "yes"
		c.update(func(tx *store.Tx) error {
			old, _ := store.Images.Get(tx, c.image)
			img := *old
			img.Properties = properties
			return store.Images.Put(tx, &img)
		})
		id := c.boot("red", "agent-"+user)
		c.wait("red", id, "status", "ACTIVE")
		path := "/servers/" + id + "/action"

		// Nobody answers: the server is as it was.
		c.secret.Store(nil)
		want := "Failed to set admin password on " + id + " because The guest agent of " + id + " does not answer."
		if text := c.refused(409, "conflictingRequest", "red", "POST", path, change(id)); text != want {
			t.Errorf("a deaf agent: %s", text)
		}
		if a, e := event(id); a["message"] != "Error" || e["result"] != "Error" || e["details"] != "The guest agent of "+id+" does not answer." {
			t.Errorf("a deaf agent: %v, %v", a, e)
		}
		if s := c.must(200, "red", "GET", "/servers/"+id, nil); s["status"] != "ACTIVE" || s["OS-EXT-STS:task_state"] != nil {
			t.Errorf("after a deaf agent: %v", s)
		}

		var got model.PasswordQuery
		var during any
		agent := func(q model.PasswordQuery) error {
			got = q
			s, _ := store.Servers.Get(c.store.Snapshot(), id)
			during = s.Status.Task
			nothing()
			return nil
		}
		c.secret.Store(&agent)
		c.must(202, "red", "POST", path, change(id))
		if got != (model.PasswordQuery{ServerID: id, User: user, Password: word}) || during != "updating_password" {
			t.Errorf("the host was asked for %+v, during %v", got, during)
		}
		if a, e := event(id); a["message"] != nil || e["result"] != "Success" {
			t.Errorf("a password that is set: %v, %v", a, e)
		}
		c.refused(400, "badRequest", "red", "POST", path, object{"changePassword": object{"adminPass": "a\x00b"}})
	}
	nothing()
}

// TestFirstPasswords: create, rebuild and rescue answer the guest's password, which is kept, sealed, until the guest runs that was told it by its
// config drive, and for no other guest.
func TestFirstPasswords(t *testing.T) {
	c := newCloud(t)
	c.furnish()
	h := c.host("h1")
	kept := func(id string) string {
		s, ok := store.Servers.Get(c.store.Snapshot(), id)
		if !ok {
			t.Fatalf("server %s is not there", id)
		}
		return string(s.AdminPass)
	}
	forgotten := func(id string) {
		t.Helper()
		c.eventually(func() bool { return kept(id) == "" }, func() string { return "the password is kept: " + kept(id) })
	}
	make := func(more ...any) object {
		s := object{"name": "n", "imageRef": c.image, "flavorRef": "1", "networks": []object{{"uuid": c.network}}}
		for i := 0; i+1 < len(more); i += 2 {
			s[more[i].(string)] = more[i+1]
		}
		return c.must(202, "red", "POST", "/servers", object{"server": s})
	}
	if p := make()["adminPass"].(string); len(p) != 12 {
		t.Errorf("a password was made up: %q", p)
	}
	if s := make("adminPass", "own"); s["adminPass"] != "own" || kept(s["id"].(string)) != "" {
		t.Errorf("without a config drive: %v, kept %q", s, kept(s["id"].(string)))
	}
	if a := c.do("red", "POST", "/servers", object{"server": object{"name": "n", "imageRef": c.image, "flavorRef": "1", "networks": []object{{"uuid": c.network}},
		"return_reservation_id": true}}); a.body["adminPass"] != nil || a.body["reservation_id"] == nil {
		t.Errorf("with a reservation: %s", a.raw)
	}
	h.Hold(true)
	s := make("adminPass", "own", "config_drive", true)
	id := s["id"].(string)
	place := "server," + id + ",admin_pass|"
	if s["adminPass"] != "own" || kept(id) != place+"own" {
		t.Errorf("%v, kept %q", s, kept(id))
	}
	if raw := string(c.do("admin", "GET", "/servers/"+id, nil, "2.96").raw); strings.Contains(raw, "own") {
		t.Errorf("a password is shown: %s", raw)
	}
	h.Hold(false)
	c.wait("red", id, "status", "ACTIVE")
	forgotten(id)
	path := "/servers/" + id + "/action"
	for _, x := range []struct {
		name, status string
		body         object
		code         int
	}{
		{"rebuild", "ACTIVE", object{"imageRef": c.image, "adminPass": "next"}, 202}, {"rescue", "RESCUE", object{"adminPass": "next"}, 200},
	} {
		h.Hold(true)
		if a := c.must(x.code, "red", "POST", path, object{x.name: x.body}); a["adminPass"] != "next" || kept(id) != place+"next" {
			t.Errorf("%s: %v, kept %q", x.name, a, kept(id))
		}
		h.Hold(false)
		c.wait("red", id, "status", x.status)
		forgotten(id)
	}
	// What is gone holds none.
	c.must(202, "red", "POST", path, object{"unrescue": nil})
	c.wait("red", id, "status", "ACTIVE")
	h.Hold(true)
	c.must(202, "red", "POST", path, object{"rebuild": object{"imageRef": c.image, "adminPass": "last"}})
	c.must(204, "red", "DELETE", "/servers/"+id, nil)
	h.Hold(false)
	c.gone("red", id)
	if g, ok := store.GoneServers.Get(c.store.Snapshot(), id); !ok || g.AdminPass != nil {
		t.Errorf("remembered: %v", g)
	}
}
