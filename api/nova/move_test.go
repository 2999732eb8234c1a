package nova_test

import (
	"fmt"
	"strings"
	"testing"

	"yakumo/model"
	"yakumo/store"
)

// act asks for an action of a server.
func (c *cloud) act(status int, token, id, action string, value any, version string) {
	c.t.Helper()
	c.must(status, token, "POST", "/servers/"+id+"/action", object{action: value}, version)
}

// migrations gives all migrations, the newest first.
func (c *cloud) migrations(query string) []object {
	c.t.Helper()
	return c.rows("admin", "/os-migrations"+query, "2.80")
}

func (c *cloud) on(id string) string {
	c.t.Helper()
	name, _ := c.must(200, "admin", "GET", "/servers/"+id, nil, "2.96")["OS-EXT-SRV-ATTR:host"].(string)
	return name
}

func (c *cloud) settled(id, status, host string) {
	c.t.Helper()
	var last object
	c.eventually(func() bool {
		last = c.must(200, "admin", "GET", "/servers/"+id, nil, "2.96")
		return last["status"] == status && last["OS-EXT-STS:task_state"] == nil && last["OS-EXT-SRV-ATTR:host"] == host
	}, func() string {
		return fmt.Sprintf("%v, %v, on %v; want %s on %s", last["status"], last["OS-EXT-STS:task_state"], last["OS-EXT-SRV-ATTR:host"], status, host)
	})
}

func TestLiveMigration(t *testing.T) {
	c := newCloud(t)
	c.furnish()
	c.host("h1")
	id := c.boot("red", "web")
	c.wait("red", id, "status", "ACTIVE")
	c.host("h2")
	live := func(o object, version string) answer {
		return c.do("admin", "POST", "/servers/"+id+"/action", object{"os-migrateLive": o}, version)
	}
	for _, x := range []struct {
		body    object
		version string
	}{
		{object{"host": nil, "block_migration": "auto", "disk_over_commit": false}, "2.1"}, {object{"host": nil, "block_migration": true}, "2.24"},
		{object{"host": nil, "block_migration": "auto", "disk_over_commit": false}, "2.25"}, {object{"host": nil, "block_migration": "auto", "force": true}, "2.68"},
		{object{"block_migration": "auto"}, "2.30"}, {object{"host": nil, "block_migration": "yes please"}, "2.30"}, {object{"host": "nowhere", "block_migration": "auto"}, "2.30"},
		{object{"host": "h1", "block_migration": "auto"}, "2.30"},
	} {
		if a := live(x.body, x.version); a.status != 400 || a.body["badRequest"] == nil {
			t.Errorf("%v at %s: %d %s", x.body, x.version, a.status, a.raw)
		}
	}
	for i, x := range []struct {
		body    object
		version string
	}{
		{object{"host": nil, "block_migration": true, "disk_over_commit": false}, "2.1"}, {object{"host": "h1", "block_migration": "auto"}, "2.25"},
		{object{"host": "h2", "block_migration": false, "force": true}, "2.30"}, {object{"host": nil, "block_migration": "auto"}, "2.96"},
	} {
		if a := live(x.body, x.version); a.status != 202 || len(a.raw) != 0 {
			t.Fatalf("%v at %s: %d %s", x.body, x.version, a.status, a.raw)
		}
		c.settled(id, "ACTIVE", []string{"h2", "h1"}[i%2])
	}
	// Progress, abort and force.
	c.busy.Store(true)
	if a := live(object{"host": nil, "block_migration": "auto"}, "2.30"); a.status != 202 {
		t.Fatalf("%d %s", a.status, a.raw)
	}
	c.wait("red", id, "status", "MIGRATING")
	var under object
	c.eventually(func() bool {
		rows := c.rows("admin", "/servers/"+id+"/migrations", "2.80")
		if len(rows) == 1 {
			under = rows[0]
		}
		return under != nil && under["status"] == "running"
	}, func() string { return fmt.Sprint(under) })
	if under["source_compute"] != "h1" || under["dest_compute"] != "h2" || under["server_uuid"] != id || under["uuid"] == nil || under["project_id"] != red {
		t.Errorf("the migration is %v", under)
	}
	path := fmt.Sprintf("/servers/%s/migrations/%.0f", id, under["id"])
	if one := c.must(200, "admin", "GET", path, nil, "2.23")["id"]; one != under["id"] {
		t.Errorf("shown is %v", one)
	}
	if text := c.refused(409, "conflictingRequest", "admin", "POST", "/servers/"+id+"/action", object{"os-migrateLive": object{"host": nil, "block_migration": "auto"}}, "2.30"); !strings.Contains(text, "Cannot 'os-migrateLive' instance "+id+" while it is in task_state migrating") {
		t.Error(text)
	}
	c.refused(404, "itemNotFound", "admin", "GET", "/servers/"+id+"/migrations/99", nil, "2.23")
	c.refused(404, "itemNotFound", "admin", "DELETE", "/servers/"+id+"/migrations/none", nil, "2.24")
	c.refused(400, "badRequest", "admin", "POST", path+"/action", object{"force_complete": object{}}, "2.22")
	c.must(202, "admin", "DELETE", path, nil, "2.24")
	c.settled(id, "ACTIVE", "h1")
	if m := c.migrations("?limit=1"); len(m) != 1 || m[0]["status"] != "cancelled" || m[0]["migration_type"] != "live-migration" {
		t.Errorf("the newest is %v", m)
	}
	c.refused(404, "itemNotFound", "admin", "GET", path, nil, "2.23")
	if text := c.refused(409, "conflictingRequest", "admin", "POST", path+"/action", object{"force_complete": nil}, "2.22"); !strings.Contains(text, "Cannot 'force_complete' instance") {
		t.Error(text)
	}
	c.act(202, "admin", id, "os-migrateLive", object{"host": nil, "block_migration": "auto"}, "2.30")
	c.eventually(func() bool {
		rows := c.rows("admin", "/servers/"+id+"/migrations", "2.80")
		return len(rows) == 1 && rows[0]["status"] == "running"
	}, func() string { return "it does not run" })
	c.must(202, "admin", "POST", fmt.Sprintf("/servers/%s/migrations/%.0f/action", id, c.migrations("?limit=1")[0]["id"]), object{"force_complete": nil}, "2.22")
	c.settled(id, "ACTIVE", "h2")
	names := map[any]bool{}
	for _, a := range c.rows("red", "/servers/"+id+"/os-instance-actions") {
		names[a["action"]] = true
	}
	for _, want := range []string{"live-migration", "live_migration_cancel", "live_migration_force_complete"} {
		if !names[want] {
			t.Errorf("there is no action %s among %v", want, names)
		}
	}
}

func TestMigrationList(t *testing.T) {
	c := newCloud(t)
	c.furnish()
	c.host("h1")
	a := c.boot("red", "a")
	c.wait("red", a, "status", "ACTIVE")
	c.host("h2")
	for _, h := range []string{"h2", "h1", "h2"} {
		c.act(202, "admin", a, "os-migrateLive", object{"host": nil, "block_migration": "auto"}, "2.30")
		c.settled(a, "ACTIVE", h)
	}
	c.act(202, "admin", a, "migrate", nil, "2.1")
	c.settled(a, "VERIFY_RESIZE", "h1")
	all := c.migrations("")
	if len(all) != 4 || all[0]["migration_type"] != "migration" || all[0]["status"] != "finished" || all[3]["status"] != "completed" {
		t.Fatalf("migrations: %v", all)
	}
	for query, want := range map[string]int{
		"?status=completed": 3, "?status=error": 0, "?migration_type=migration": 1, "?host=h2": 4, "?host=zzz": 0, "?source_compute=h1": 2, "?instance_uuid=" + a: 4,
		"?instance_uuid=" + model.NewID(): 0, "?hidden=true": 0, "?hidden=false": 4, "?limit=2": 2, "?user_id=u5": 4, "?user_id=u1": 0, "?project_id=" + red: 4,
		"?changes-since=2000-01-01T00:00:00Z": 4, "?changes-before=2000-01-01T00:00:00Z": 0, "?changes-since=2999-01-01T00:00:00Z": 0,
		"?marker=" + all[1]["uuid"].(string): 2,
	} {
		if got := c.migrations(query); len(got) != want {
			t.Errorf("%s lists %d, want %d", query, len(got), want)
		}
	}
	body := c.do("admin", "GET", "/os-migrations?limit=3", nil, "2.59").body
	if next, ok := body["migrations_links"].([]any); !ok || !strings.Contains(fmt.Sprint(next[0].(object)["href"]), "marker="+all[2]["uuid"].(string)) {
		t.Errorf("the next page is %v", body["migrations_links"])
	}
	for _, x := range []struct{ query, version string }{{"?marker=" + model.NewID(), "2.59"}, {"?limit=-1", "2.59"}, {"?zzz=1", "2.59"}, {"?user_id=x", "2.66"},
		{"?changes-before=2000-01-01T00:00:00Z", "2.59"}, {"?changes-since=today", "2.59"}, {"?changes-since=2999-01-01T00:00:00Z&changes-before=2000-01-01T00:00:00Z", "2.66"}} {
		c.refused(400, "badRequest", "admin", "GET", "/os-migrations"+x.query, nil, x.version)
	}
	if old := c.rows("admin", "/os-migrations?zzz=1", "2.1"); len(old) != 4 || old[0]["migration_type"] != nil || old[0]["uuid"] != nil || old[0]["old_instance_type_id"] == nil {
		t.Errorf("at 2.1: %v", old)
	}
}

func TestResizeByAPI(t *testing.T) {
	c := newCloud(t)
	c.furnish()
	c.host("h1")
	id := c.boot("red", "web")
	c.wait("red", id, "status", "ACTIVE")
	c.host("h2")
	refuse := func(status int, member, token, action string, value any, says string) {
		t.Helper()
		if text := c.refused(status, member, token, "POST", "/servers/"+id+"/action", object{action: value}); !strings.Contains(text, says) {
			t.Errorf("%s %v: %q", action, value, text)
		}
	}
	refuse(400, "badRequest", "red", "resize", object{"flavorRef": "1"}, "must change flavor")
	refuse(400, "badRequest", "red", "resize", object{"flavorRef": "zzz"}, "could not be found")
	refuse(400, "badRequest", "red", "resize", object{"flavorRef": "9"}, "could not be found") // of others
	refuse(400, "badRequest", "red", "resize", object{}, "flavorRef")
	refuse(400, "badRequest", "red", "confirmResize", object{}, "")
	refuse(409, "conflictingRequest", "red", "confirmResize", nil, "Cannot 'confirmResize' instance "+id+" while it is in vm_state active")
	refuse(409, "conflictingRequest", "red", "revertResize", nil, "Cannot 'revertResize' instance "+id+" while it is in vm_state active")
	c.must(200, "admin", "PUT", "/os-quota-sets/"+red, object{"quota_set": object{"cores": 1}})
	refuse(403, "forbidden", "red", "resize", object{"flavorRef": "2"}, "Quota exceeded for cores: Requested 1, but already used 1 of 1 cores")
	c.must(200, "admin", "PUT", "/os-quota-sets/"+red, object{"quota_set": object{"cores": 20}})
	c.act(202, "red", id, "resize", object{"flavorRef": "2"}, "2.1")
	c.settled(id, "VERIFY_RESIZE", "h2")
	s := c.must(200, "red", "GET", "/servers/"+id, nil, "2.47")
	if s["OS-EXT-STS:vm_state"] != "resized" || s["flavor"].(object)["original_name"] != "small" {
		t.Errorf("the server is %v", s)
	}
	refuse(409, "conflictingRequest", "red", "resize", object{"flavorRef": "1"}, "while it is in vm_state resized")
	refuse(409, "conflictingRequest", "red", "os-stop", nil, "while it is in vm_state resized")
	c.act(202, "red", id, "revertResize", nil, "2.1")
	c.settled(id, "ACTIVE", "h1")
	c.act(202, "red", id, "resize", object{"flavorRef": "2", "OS-DCF:diskConfig": "AUTO"}, "2.1")
	c.settled(id, "VERIFY_RESIZE", "h2")
	c.act(204, "red", id, "confirmResize", nil, "2.1")
	c.settled(id, "ACTIVE", "h2")
	refuse(400, "badRequest", "red", "resize", object{"flavorRef": "1"}, "resize disk down")
	c.act(202, "red", id, "os-stop", nil, "2.1")
	c.settled(id, "SHUTOFF", "h2")
	c.act(202, "admin", id, "migrate", object{"host": "h1"}, "2.56")
	c.settled(id, "VERIFY_RESIZE", "h1")
	c.act(204, "red", id, "confirmResize", nil, "2.1")
	c.settled(id, "SHUTOFF", "h1")
}

func TestEvacuateByAPI(t *testing.T) {
	c := newCloud(t)
	c.furnish()
	h := c.host("h1")
	id := c.boot("red", "web")
	c.wait("red", id, "status", "ACTIVE")
	c.host("h2")
	path := "/servers/" + id + "/action"
	if text := c.refused(400, "badRequest", "admin", "POST", path, object{"evacuate": object{}}, "2.14"); !strings.Contains(text, "still in use") {
		t.Error(text)
	}
	h.Stop()
	h.Crash()
	c.update(func(tx *store.Tx) error { return store.Heartbeats.Delete(tx, h.ID()) })
	c.must(200, "admin", "PUT", "/os-services/force-down", object{"host": "h1", "binary": "nova-compute", "forced_down": true}, "2.11")
	for _, x := range []struct {
		body    object
		version string
	}{{object{}, "2.1"}, {object{"onSharedStorage": false}, "2.14"}, {object{"force": true}, "2.68"}, {object{"host": "nowhere"}, "2.14"}, {object{"onSharedStorage": true}, "2.1"}} {
		c.refused(400, "badRequest", "admin", "POST", path, object{"evacuate": x.body}, x.version)
	}
	c.must(200, "admin", "POST", path, object{"evacuate": object{"onSharedStorage": false}}, "2.1")
	c.settled(id, "ACTIVE", "h2")
	if m := c.migrations(""); len(m) != 1 || m[0]["migration_type"] != "evacuation" || m[0]["status"] != "done" || m[0]["dest_compute"] != "h2" {
		t.Errorf("the migration is %v", m)
	}
	// Since 2.95 an evacuated server is off.
	c.host("h3")
	c.must(200, "admin", "PUT", "/os-services/force-down", object{"host": "h2", "binary": "nova-compute", "forced_down": true}, "2.11")
	c.act(200, "admin", id, "evacuate", object{"host": "h3"}, "2.95")
	c.settled(id, "SHUTOFF", "h3")
}

// TestRightsOfMoves: of every action that moves a server, a reader may none, a tenant only its own, and only an
// administrator what is his.
func TestRightsOfMoves(t *testing.T) {
	c := newCloud(t)
	c.furnish()
	c.host("h1")
	id := c.boot("red", "web")
	c.wait("red", id, "status", "ACTIVE")
	for action, x := range map[string]struct {
		value any
		admin bool
	}{
		"migrate": {nil, true}, "os-migrateLive": {object{"host": nil, "block_migration": "auto"}, true}, "evacuate": {object{}, true},
		"resize": {object{"flavorRef": "2"}, false}, "confirmResize": {nil, false}, "revertResize": {nil, false},
	} {
		try := func(token string) int {
			return c.do(token, "POST", "/servers/"+id+"/action", object{action: x.value}, "2.30").status
		}
		for token, want := range map[string]int{"": 401, "red-reader": 403, "blue": 404} {
			if got := try(token); got != want {
				t.Errorf("%s as %q: %d, want %d", action, token, got, want)
			}
		}
		if x.admin {
			for _, token := range []string{"red", "red-admin"} {
				if got := try(token); got != 403 {
					t.Errorf("%s as %q: %d", action, token, got)
				}
			}
		}
	}
	if got := c.must(200, "red", "GET", "/servers/"+id, nil); got["status"] != "ACTIVE" || len(c.migrations("")) != 0 {
		t.Errorf("what was refused has changed something: %v", got)
	}
	// A lock binds the tenant, in moves too.
	c.act(202, "admin", id, "lock", nil, "2.1")
	c.refused(409, "conflictingRequest", "red", "POST", "/servers/"+id+"/action", object{"resize": object{"flavorRef": "2"}})
}
