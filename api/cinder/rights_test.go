package cinder_test

import (
	"net/http"
	"strings"
	"testing"

	"yakumo/api"
	"yakumo/model"
)

// things are resources of red that the paths of routes are filled with.
func (c *cloud) things() map[string]string {
	c.t.Helper()
	v := c.volume(nil)
	s := c.want(202, "red", "", "POST", "/snapshots", object{"snapshot": object{"volume_id": v}}).str("snapshot.id")
	c.until("red", "/snapshots/"+s, "snapshot.status", "available")
	b := c.want(202, "red", "", "POST", "/backups", object{"backup": object{"volume_id": v}}).str("backup.id")
	c.until("red", "/backups/"+b, "backup.status", "available")
	c.until("red", "/volumes/"+v, "volume.status", "available")
	gift := c.volume(nil)
	t := c.want(202, "red", "", "POST", "/os-volume-transfer", object{"transfer": object{"volume_id": gift}}).str("transfer.id")
	a := c.want(200, "red", "3.27", "POST", "/attachments", object{"attachment": object{"volume_uuid": c.volume(nil)}}).str("attachment.id")
	typ := c.want(200, "admin", "", "POST", "/types", object{"volume_type": object{"name": "closed", "os-volume-type-access:is_public": false}}).str("volume_type.id")
	return map[string]string{"/volumes/{id}": v, "/snapshots/{id}": s, "/backups/{id}": b, "/os-volume-transfer/{id}": t, "/volume-transfers/{id}": t,
		"/attachments/{id}": a, "/types/{id}": typ}
}

// TestRights: every route refuses whom its class does not allow; who does not own a thing does not learn of it.
func TestRights(t *testing.T) {
	c := newCloud(t)
	c.furnish()
	things := c.things()
	bodies := map[string]object{
		"/volumes/{id}": {"volume": object{"name": "stolen"}}, "/volumes/{id}/action": {"os-set_bootable": object{"bootable": true}},
		"/volumes/{id}/metadata": {"metadata": object{"a": "b"}}, "/volumes/{id}/metadata/{key}": {"meta": object{"x": "b"}},
		"/snapshots/{id}": {"snapshot": object{"name": "stolen"}}, "/snapshots/{id}/action": {"os-reset_status": object{"status": "error"}},
		"/snapshots/{id}/metadata": {"metadata": object{"a": "b"}}, "/snapshots/{id}/metadata/{key}": {"meta": object{"x": "b"}},
		"/backups/{id}": {"backup": object{"name": "stolen"}}, "/backups/{id}/restore": {"restore": object{}}, "/backups/{id}/action": {"os-force_delete": object{}},
		"/attachments/{id}": {"attachment": object{"connector": object{"host": "h"}}}, "/attachments/{id}/action": {"os-complete": nil},
		"/os-volume-transfer/{id}/accept": {"accept": object{"auth_key": "guess"}}, "/volume-transfers/{id}/accept": {"accept": object{"auth_key": "guess"}},
	}
	checked, owned := 0, 0
	for _, r := range c.front.Table() {
		path := strings.TrimPrefix(r.Path, "/volume/v3")
		if !strings.HasPrefix(r.Path, "/volume/v3/") || path == "/" || strings.HasPrefix(path, "/{tenant}") {
			continue
		}
		checked++
		var body any
		if b, ok := bodies[path]; ok {
			body = b
		} else if r.Method == http.MethodPost || r.Method == http.MethodPut {
			body = object{}
		}
		filled, own := path, false
		for pattern, id := range things {
			if strings.HasPrefix(path, pattern) {
				filled, own = strings.Replace(path, "{id}", id, 1), !strings.HasPrefix(path, "/types") && !strings.HasSuffix(path, "/accept")
			}
		}
		filled = strings.NewReplacer("{id}", model.NewID(), "{key}", "x", "{project}", red, "{class}", "default", "{host}", "h1@local", "{action}", "enable", "{alias}", "backups").Replace(filled)
		do := func(token string) answer { return c.do(token, "3.70", r.Method, filled, body) }
		if a := do(""); a.status != 401 {
			t.Errorf("%s %s without a token: %d", r.Method, path, a.status)
		}
		if r.Access > api.Anyone {
			if a := do("unscoped"); a.status != 403 {
				t.Errorf("%s %s without a project: %d %s", r.Method, path, a.status, a.raw)
			}
		}
		if r.Access > api.Reader {
			if a := do("red-reader"); a.status != 403 {
				t.Errorf("%s %s as a reader: %d %s", r.Method, path, a.status, a.raw)
			}
		}
		if r.Access == api.Admin {
			if a := do("red"); a.status != 403 {
				t.Errorf("%s %s as a member: %d %s", r.Method, path, a.status, a.raw)
			}
			continue
		}
		if own {
			owned++
			if a := do("blue"); a.status != 404 {
				t.Errorf("%s %s as another tenant: %d %s", r.Method, path, a.status, a.raw)
			}
		}
	}
	if checked < 80 || owned < 25 {
		t.Errorf("%d routes were checked, %d of them with a thing of somebody", checked, owned)
	}
	// Nothing was changed by those who may not.
	for path, field := range map[string]string{"/volumes/" + things["/volumes/{id}"]: "volume.name", "/snapshots/" + things["/snapshots/{id}"]: "snapshot.name"} {
		if a := c.want(200, "red", "3.70", "GET", path, nil); a.str(field) == "stolen" {
			t.Errorf("%s", a.raw)
		}
	}
}

// TestRightsOfActions: each action of a volume is refused to a reader and to strangers, and those of administrators to the owner.
func TestRightsOfActions(t *testing.T) {
	c := newCloud(t)
	c.furnish()
	v := c.volume(nil)
	admins := map[string]bool{"os-reset_status": true, "os-force_delete": true, "os-force_detach": true, "os-migrate_volume": true, "os-migrate_volume_completion": true, "os-unmanage": true, "os-reimage": true}
	for _, name := range []string{"os-extend", "os-reset_status", "os-force_delete", "os-set_bootable", "os-update_readonly_flag", "os-retype", "os-reserve", "os-unreserve", "os-begin_detaching",
		"os-roll_detaching", "os-attach", "os-detach", "os-force_detach", "os-initialize_connection", "os-terminate_connection", "os-volume_upload_image", "os-set_image_metadata",
		"os-unset_image_metadata", "os-show_image_metadata", "revert", "os-migrate_volume", "os-migrate_volume_completion", "os-unmanage", "os-reimage"} {
		do := func(token string) answer {
			return c.do(token, "3.70", "POST", "/volumes/"+v+"/action", object{name: object{}})
		}
		if a := do("red-reader"); a.status != 403 {
			t.Errorf("%s as a reader: %d", name, a.status)
		}
		if a := do("blue"); a.status != 404 {
			t.Errorf("%s as a stranger: %d", name, a.status)
		}
		if admins[name] {
			if a := do("red"); a.status != 403 {
				t.Errorf("%s as the owner: %d %s", name, a.status, a.raw)
			}
		}
	}
}

// TestTypesOfOthers: a type that is not public is not there for those without access.
func TestTypesOfOthers(t *testing.T) {
	c := newCloud(t)
	c.furnish()
	id := c.things()["/types/{id}"]
	for _, path := range []string{"/types/" + id, "/types/" + id + "/extra_specs", "/types/" + id + "/extra_specs/x"} {
		c.want(404, "red", "", "GET", path, nil)
	}
	if a := c.want(200, "red", "", "GET", "/types", nil); strings.Contains(a.raw, id) {
		t.Errorf("%s", a.raw)
	}
	if a := c.want(200, "admin", "", "GET", "/types?is_public=None", nil); !strings.Contains(a.raw, id) {
		t.Errorf("%s", a.raw)
	}
}
