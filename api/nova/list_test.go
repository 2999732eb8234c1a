package nova_test

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"yakumo/model"
	"yakumo/store"
)

func names(rows []object) []string {
	out := []string{}
	for _, r := range rows {
		out = append(out, r["name"].(string))
	}
	return out
}

// rowsOf makes servers' rows without a host, of which nothing becomes.
func (c *cloud) seed(n int, change func(i int, s *model.Server)) []string {
	c.t.Helper()
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	var ids []string
	for from := 0; from < n; from += 100 {
		c.update(func(tx *store.Tx) error {
			for i := from; i < min(n, from+100); i++ {
				s := &model.Server{Meta: model.NewMeta(red, fmt.Sprintf("s%03d", i), start.Add(time.Duration(i)*time.Second)), UserID: "u1", ImageID: c.image,
					Flavor: model.Flavor{ID: "1", Name: "tiny", VCPUs: 1, MemoryMiB: 128}, Power: model.PowerRunning,
					Status: model.ServerStatus{Phase: model.PhaseReady, Power: model.PowerRunning, LaunchedAt: start}}
				if change != nil {
					change(i, s)
				}
				ids = append(ids, s.ID)
				if err := store.Servers.Put(tx, s); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return ids
}

func TestFiltersOfTheList(t *testing.T) {
	c := newCloud(t)
	c.furnish()
	h := c.host("h1")
	h.Stop() // rows are made by hand here
	base := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	ids := c.seed(6, func(i int, s *model.Server) {
		switch i {
		case 0:
			s.Name, s.Status.Power, s.Power = "Database", model.PowerOff, model.PowerOff
		case 1:
			s.Status.Phase, s.Status.Fault = model.PhaseError, &model.Fault{Code: 500, Message: "x"}
		case 2:
			s.Flavor.ID, s.Tags, s.KeyName = "2", []string{"a", "b"}, "k"
		case 3:
			s.Locked, s.ImageID, s.Host, s.ConfigDrive = true, model.NewID(), h.ID(), true
		case 4:
			s.ProjectID, s.Tags = blue, []string{"a"}
		case 5:
			s.UpdatedAt, s.Tags, s.Status.LaunchedAt, s.Status.Phase = base.Add(time.Hour), []string{"a"}, time.Time{}, model.PhaseFetching
		}
	})
	for _, x := range []struct {
		token, query, version string
		want                  string
	}{
		{"red", "", "2.1", "s005 s003 s002 s001 Database"}, // the newest first
		{"red", "name=data", "2.1", "Database"},
		{"red", "name=^s00[12]", "2.1", "s002 s001"},
		{"red", "status=ACTIVE", "2.1", "s003 s002"},
		{"red", "status=active", "2.1", "s003 s002"},
		{"red", "status=SHUTOFF", "2.1", "Database"},
		{"red", "status=ERROR", "2.1", "s001"},
		{"red", "status=BUILD", "2.1", "s005"},
		{"red", "status=PAUSED", "2.1", ""},
		{"red", "status=nonsense", "2.37", ""},
		{"red", "flavor=2", "2.1", "s002"},
		{"red", "image=" + c.image, "2.1", "s005 s002 s001 Database"},
		{"red", "changes-since=2026-01-01T00:30:00Z", "2.1", "s005"},
		{"red", "changes-before=2026-01-01T00:00:01Z", "2.66", "s001 Database"},
		{"red", "tags=a", "2.26", "s005 s002"},
		{"red", "tags=a,b", "2.26", "s002"},
		{"red", "tags-any=b,c", "2.26", "s002"},
		{"red", "not-tags=a,b", "2.26", "s005 s003 s001 Database"},
		{"red", "not-tags-any=a", "2.26", "s003 s001 Database"},
		{"red", "tags=a", "2.25", "s005 s003 s002 s001 Database"}, // not known then
		{"red", "locked=true", "2.73", "s003"},
		{"red", "key_name=k", "2.83", "s002"},
		{"red", "key_name=k", "2.82", "s005 s003 s002 s001 Database"}, // an administrator's then
		{"red", "vm_state=stopped", "2.83", "Database"},
		{"red", "power_state=4", "2.83", "Database"},
		{"red", "config_drive=true", "2.83", "s003"},
		{"red", "host=h1", "2.1", "s005 s003 s002 s001 Database"}, // an administrator's always
		{"red", "deleted=true", "2.1", "s005 s003 s002 s001 Database"},
		{"admin", "", "2.1", ""}, // of its own project
		{"admin", "all_tenants=1", "2.1", "s005 s004 s003 s002 s001 Database"},
		{"admin", "all_tenants", "2.1", "s005 s004 s003 s002 s001 Database"},
		{"admin", "all_tenants=0", "2.1", ""},
		{"admin", "all_tenants=1&project_id=" + blue, "2.1", "s004"},
		{"admin", "project_id=" + blue, "2.1", "s004"},
		{"admin", "all_tenants=1&host=h1", "2.1", "s003"},
		{"admin", "all_tenants=1&node=h1", "2.1", "s003"},
		{"admin", "all_tenants=1&uuid=" + ids[2], "2.1", "s002"},
		{"admin", "all_tenants=1&user_id=u1&vm_state=error", "2.1", "s001"},
		{"admin", "all_tenants=1&deleted=true", "2.1", ""},
		{"red", "sort_key=display_name&sort_dir=asc", "2.1", "Database s001 s002 s003 s005"},
		{"red", "sort_key=display_name", "2.1", "s005 s003 s002 s001 Database"},
		{"red", "sort_key=vm_state&sort_dir=asc&sort_key=display_name&sort_dir=desc", "2.1", "s003 s002 s005 s001 Database"},
		{"red", "sort_key=created_at&sort_dir=asc&limit=2", "2.1", "Database s001"},
		{"red", "sort_key=created_at&sort_dir=asc&limit=2&marker=" + ids[1], "2.1", "s002 s003"},
	} {
		for _, path := range []string{"/servers?", "/servers/detail?"} {
			if got := strings.Join(names(c.rows(x.token, path+x.query, x.version)), " "); got != x.want {
				t.Errorf("%s%s as %s in %s: %q, want %q", path, x.query, x.token, x.version, got, x.want)
			}
		}
	}
	for query, status := range map[string]int{
		"status=nonsense": 400, "limit=-1": 400, "limit=x": 400, "marker=nonsense": 400, "marker=" + ids[4]: 400, "sort_key=nonsense": 400, "sort_dir=up&sort_key=uuid": 400,
		"sort_key=host": 403, "changes-since=yesterday": 400, "all_tenants=maybe": 400, "all_tenants=1": 403, "name=(": 400, "status=deleted": 403, "nonsense=1": 400, "ip=(": 400,
		"changes-since=2026-02-01T00:00:00Z&changes-before=2026-01-01T00:00:00Z": 400, "locked=x": 400,
	} {
		if a := c.do("red", "GET", "/servers?"+query, nil, "2.96"); a.status != status {
			t.Errorf("%s: %d %s, want %d", query, a.status, a.raw, status)
		}
	}
}

func TestAddressesInTheList(t *testing.T) {
	c := newCloud(t)
	c.furnish()
	c.host("h1")
	for i := range 3 {
		id := c.boot("red", fmt.Sprint("s", i), "networks", []object{{"uuid": c.network, "fixed_ip": fmt.Sprintf("10.0.0.%d", 70+i)}})
		c.wait("red", id, "status", "ACTIVE")
	}
	if got := names(c.rows("red", "/servers?ip=10.0.0.71")); !slices.Equal(got, []string{"s1"}) {
		t.Errorf("by address: %v", got)
	}
	if got := names(c.rows("red", "/servers?ip6=fe", "2.5")); len(got) != 0 {
		t.Errorf("by IPv6: %v", got)
	}
	if got := names(c.rows("red", "/servers?ip6=fe")); len(got) != 3 {
		t.Errorf("ip6 is an administrator's before 2.5: %v", got)
	}
}

func TestPagesOfTheList(t *testing.T) {
	c := newCloud(t)
	c.furnish()
	ids := c.seed(25, nil)
	slices.Reverse(ids)
	for _, path := range []string{"/servers", "/servers/detail"} {
		var got []string
		pages := 0
		at := path + "?limit=7&name=s"
		for at != "" {
			a := c.do("red", "GET", at, nil)
			pages++
			for _, s := range a.body["servers"].([]any) {
				got = append(got, s.(object)["id"].(string))
			}
			at = ""
			if l, ok := a.body["servers_links"].([]any); ok {
				u, err := url.Parse(l[0].(object)["href"].(string))
				if err != nil || l[0].(object)["rel"] != "next" {
					t.Fatalf("link %v", l)
				}
				at = strings.TrimPrefix(u.Path, "/compute/v2.1") + "?" + u.RawQuery
			}
		}
		if !slices.Equal(got, ids) || pages != 4 {
			t.Errorf("%s: %d rows in %d pages", path, len(got), pages)
		}
	}
	if a := c.do("red", "GET", "/servers?limit=25", nil); a.body["servers_links"] != nil {
		t.Error("the last page has a link")
	}
	// Servers of the same moment, too, come once each.
	now := time.Now()
	same := c.seed(10, func(_ int, s *model.Server) { s.ProjectID, s.CreatedAt = blue, now })
	var got []string
	marker := ""
	for {
		rows := c.rows("blue", "/servers?limit=3&marker="+marker)
		if len(rows) == 0 {
			break
		}
		for _, r := range rows {
			got = append(got, r["id"].(string))
		}
		marker = got[len(got)-1]
	}
	slices.Sort(got)
	slices.Sort(same)
	if !slices.Equal(got, same) {
		t.Errorf("%d servers in pages, want %d", len(got), len(same))
	}
}

func TestMetadataAndTags(t *testing.T) {
	c := newCloud(t)
	c.furnish()
	h := c.host("h1")
	id := c.boot("red", "s", "metadata", object{"a": "1"})
	c.wait("red", id, "status", "ACTIVE")
	path := "/servers/" + id
	same := func(want object) {
		t.Helper()
		got := c.must(200, "red", "GET", path+"/metadata", nil)
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("metadata %v, want %v", got, want)
		}
	}
	c.must(200, "red", "POST", path+"/metadata", object{"metadata": object{"b": "2"}})
	same(object{"a": "1", "b": "2"})
	c.must(200, "red", "PUT", path+"/metadata/b", object{"meta": object{"b": "3"}})
	if got := c.must(200, "red", "GET", path+"/metadata/b", nil); got["b"] != "3" {
		t.Errorf("item %v", got)
	}
	c.refused(400, "badRequest", "red", "PUT", path+"/metadata/b", object{"meta": object{"c": "3"}})
	c.refused(404, "itemNotFound", "red", "GET", path+"/metadata/none", nil)
	c.refused(404, "itemNotFound", "red", "DELETE", path+"/metadata/none", nil)
	if a := c.do("red", "DELETE", path+"/metadata/a", nil); a.status != 204 {
		t.Errorf("delete: %d", a.status)
	}
	same(object{"b": "3"})
	c.must(200, "red", "PUT", path+"/metadata", object{"metadata": object{}})
	same(object{})
	many := object{}
	for i := range 129 {
		many[fmt.Sprint("k", i)] = "v"
	}
	c.refused(403, "forbidden", "red", "PUT", path+"/metadata", object{"metadata": many})
	c.refused(400, "badRequest", "red", "PUT", path+"/metadata", object{"metadata": object{"a": nil}})
	c.eventually(func() bool {
		s, _ := store.Servers.Get(c.store.Snapshot(), id)
		return s.Status.Generation == s.Generation
	}, func() string { return "the host does not hear of metadata" })
	if n := h.Guests()[id]; n != 1 {
		t.Errorf("metadata started the guest again: %d", n)
	}

	const v = "2.26"
	if a := c.do("red", "PUT", path+"/tags/x", nil, v); a.status != 201 || !strings.HasSuffix(a.header.Get("Location"), "/tags/x") {
		t.Errorf("tag: %d", a.status)
	}
	for _, x := range []struct {
		method, path string
		body         any
		status       int
	}{
		{"PUT", "/tags/x", nil, 204}, {"GET", "/tags/x", nil, 204}, {"GET", "/tags/y", nil, 404}, {"DELETE", "/tags/y", nil, 404}, {"DELETE", "/tags/x", nil, 204},
		{"PUT", "/tags", object{"tags": []string{"q", "p", "q"}}, 200}, {"PUT", "/tags", object{"tags": "p"}, 400}, {"PUT", "/tags/" + strings.Repeat("x", 61), nil, 400},
		{"PUT", "/tags/a%2Cb", nil, 400},
	} {
		if a := c.do("red", x.method, path+x.path, x.body, v); a.status != x.status {
			t.Errorf("%s %s: %d %s, want %d", x.method, x.path, a.status, a.raw, x.status)
		}
	}
	if got := c.must(200, "red", "GET", path+"/tags", nil, v)["tags"]; fmt.Sprint(got) != "[p q]" {
		t.Errorf("tags %v", got)
	}
	c.do("red", "DELETE", path+"/tags", nil, v)
	if got := c.must(200, "red", "GET", path+"/tags", nil, v)["tags"]; fmt.Sprint(got) != "[]" {
		t.Errorf("tags %v", got)
	}
	c.refused(404, "itemNotFound", "red", "GET", path+"/tags", nil, "2.25")
	if got := c.must(200, "red", "GET", path+"/ips/wire", nil); len(got) != 1 {
		t.Errorf("addresses %v", got)
	}
	c.refused(404, "itemNotFound", "red", "GET", path+"/ips/none", nil)
}

func TestActionsOfAServer(t *testing.T) {
	c := newCloud(t)
	c.furnish()
	c.host("h1")
	id := c.boot("red", "s")
	c.wait("red", id, "status", "ACTIVE")
	for _, b := range []object{{"os-stop": nil}, {"os-start": nil}} {
		a := c.do("red", "POST", "/servers/"+id+"/action", b)
		if a.status != 202 {
			t.Fatal(a.status)
		}
		c.wait("red", id, "OS-EXT-STS:task_state", nil)
	}
	rows := c.rows("red", "/servers/"+id+"/os-instance-actions", "2.58")
	var got []string
	for _, r := range rows {
		got = append(got, r["action"].(string))
	}
	if !slices.Equal(got, []string{"start", "stop", "create"}) || rows[0]["updated_at"] == nil || rows[0]["instance_uuid"] != id || rows[0]["user_id"] != "u1" {
		t.Errorf("actions %v", rows)
	}
	page := c.do("red", "GET", "/servers/"+id+"/os-instance-actions?limit=1", nil, "2.58")
	if page.body["links"] == nil || len(page.body["instanceActions"].([]any)) != 1 {
		t.Errorf("a page: %s", page.raw)
	}
	if rows := c.rows("red", "/servers/"+id+"/os-instance-actions?limit=5&marker="+rows[1]["request_id"].(string), "2.58"); len(rows) != 1 {
		t.Errorf("after the marker: %v", rows)
	}
	create := c.must(200, "red", "GET", "/servers/"+id+"/os-instance-actions/"+rows[2]["request_id"].(string), nil, "2.84")
	var steps []string
	for _, e := range create["events"].([]any) {
		e := e.(object)
		steps = append(steps, e["event"].(string))
		if e["start_time"] == nil || e["finish_time"] == nil || e["result"] != "Success" || e["hostId"] == nil {
			t.Errorf("event %v", e)
		}
		if _, shown := e["host"]; shown {
			t.Errorf("a tenant is shown the host of %v", e)
		}
	}
	if !slices.Equal(steps, []string{"receive", "place", "fetch_image", "start", "use"}) {
		t.Errorf("steps %v", steps)
	}
	admin := c.must(200, "admin", "GET", "/servers/"+id+"/os-instance-actions/"+rows[2]["request_id"].(string), nil, "2.62")
	if e := admin["events"].([]any)[3].(object); e["host"] != "h1" {
		t.Errorf("an administrator is shown %v", e)
	}
	c.refused(404, "itemNotFound", "red", "GET", "/servers/"+id+"/os-instance-actions/req-none", nil)
}
