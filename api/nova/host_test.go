package nova_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"yakumo/model"
	"yakumo/store"
)

// TestHostsOfOldVersions: os-hosts until 2.43, with what a host has and what of it is promised.
func TestHostsOfOldVersions(t *testing.T) {
	c := newCloud(t)
	c.furnish()
	h := c.host("h1")
	id := c.boot("red", "a")
	c.wait("red", id, "status", "ACTIVE")
	c.host("h2", func(h *model.Host) { h.Zone = "z2" })
	list := func(query string) []string {
		out := []string{}
		for _, r := range c.rows("admin", "/os-hosts"+query) {
			if r["service"] != "compute" {
				t.Errorf("%v", r)
			}
			out = append(out, r["host_name"].(string)+" "+r["zone"].(string))
		}
		return out
	}
	for query, want := range map[string][]string{"": {"h1 nova", "h2 z2"}, "?zone=z2": {"h2 z2"}, "?service=compute&zone=nova": {"h1 nova"}, "?service=network": {}} {
		if got := list(query); !slices.Equal(got, want) {
			t.Errorf("hosts%s: %v, want %v", query, got, want)
		}
	}
	want := map[string][3]float64{"(total)": {8, 16384, 200}, "(used_now)": {1, 640, 1}, "(used_max)": {1, 128, 1}, red: {1, 128, 1}}
	rows := c.rows("admin", "/os-hosts/h1", "2.42")
	for _, r := range rows {
		x := r["resource"].(object)
		if got := [3]float64{x["cpu"].(float64), x["memory_mb"].(float64), x["disk_gb"].(float64)}; got != want[x["project"].(string)] || x["host"] != "h1" {
			t.Errorf("%v, want %v", x, want[x["project"].(string)])
		}
	}
	if len(rows) != 4 {
		t.Errorf("%d rows: %v", len(rows), rows)
	}
	for _, status := range []string{"disable", "Enable", "DISABLE", "enable"} {
		want := map[bool]string{true: "enabled", false: "disabled"}[status[1] == 'n' || status[1] == 'N']
		if a := c.must(200, "admin", "PUT", "/os-hosts/h1", object{"status": status}); a["host"] != "h1" || a["status"] != want {
			t.Errorf("%s: %v", status, a)
		}
		if row, _ := store.Hosts.Get(c.store.Snapshot(), h.ID()); row.Disabled != (want == "disabled") {
			t.Errorf("after %s: %v", status, row.Disabled)
		}
	}
	c.refused(400, "badRequest", "admin", "PUT", "/os-hosts/h1", object{})
	c.refused(400, "badRequest", "admin", "PUT", "/os-hosts/h1", object{"status": "off"})
	c.refused(501, "notImplemented", "admin", "PUT", "/os-hosts/h1", object{"maintenance_mode": "enable"})
	c.refused(404, "itemNotFound", "admin", "PUT", "/os-hosts/none", object{"status": "enable"})
	c.refused(404, "itemNotFound", "admin", "GET", "/os-hosts/none", nil)
	c.refused(501, "notImplemented", "admin", "GET", "/os-hosts/h1/reboot", nil)
	for _, x := range []struct{ method, path string }{{"GET", ""}, {"GET", "/h1"}, {"PUT", "/h1"}, {"GET", "/h1/shutdown"}} {
		c.refused(404, "itemNotFound", "admin", x.method, "/os-hosts"+x.path, object{"status": "enable"}, "2.43")
	}
}

// TestWhatNovaHasTakenAway: 410, also for an administrator.
func TestWhatNovaHasTakenAway(t *testing.T) {
	c := newCloud(t)
	c.furnish()
	c.host("h1")
	id := c.boot("red", "a")
	for path, methods := range map[string][]string{"/os-agents": {"GET", "POST"}, "/os-agents/1": {"PUT", "DELETE"}, "/os-tenant-networks": {"POST"},
		"/os-cells": {"GET"}, "/os-fping": {"GET"}, "/servers/" + id + "/consoles": {"GET", "POST"}, "/servers/" + id + "/os-virtual-interfaces": {"GET"}} {
		for _, method := range methods {
			for _, version := range []string{"2.1", "2.96"} {
				if a := c.do("admin", method, path, object{}, version); a.status != 410 || a.body["computeFault"] == nil {
					t.Errorf("%s %s in %s: %d %s", method, path, version, a.status, a.raw)
				}
			}
		}
	}
}

// TestTenantNetworks: until 2.36, a project's own and those that it is given.
func TestTenantNetworks(t *testing.T) {
	c := newCloud(t)
	c.furnish()
	if rows := c.rows("red", "/os-tenant-networks", "2.35"); len(rows) != 1 || rows[0]["id"] != c.network || rows[0]["label"] != "wire" {
		t.Errorf("%v", rows)
	}
	if rows := c.rows("blue", "/os-tenant-networks"); len(rows) != 0 {
		t.Errorf("another project's: %v", rows)
	}
	if n := c.must(200, "red", "GET", "/os-tenant-networks/"+c.network, nil); n["label"] != "wire" {
		t.Errorf("%v", n)
	}
	c.refused(404, "itemNotFound", "blue", "GET", "/os-tenant-networks/"+c.network, nil)
	c.refused(404, "itemNotFound", "red", "GET", "/os-tenant-networks", nil, "2.36")
	if a := c.do("red", "DELETE", "/os-tenant-networks/"+c.network, nil); a.status != 410 {
		t.Errorf("%d", a.status)
	}
}

// TestQuotaClass: the limits of the class default are those of all projects that have none of their own.
func TestQuotaClass(t *testing.T) {
	c := newCloud(t)
	const path = "/os-quota-class-sets/default"
	cores := func(project string) any { return c.must(200, "admin", "GET", "/os-quota-sets/"+project, nil)["cores"] }
	c.must(200, "admin", "PUT", "/os-quota-sets/"+blue, object{"quota_set": object{"cores": 5}})
	if q := c.must(200, "admin", "GET", path, nil); q["id"] != "default" || q["cores"] != 20.0 || q["fixed_ips"] != -1.0 || q["server_groups"] != nil {
		t.Errorf("%v", q)
	}
	if q := c.must(200, "admin", "GET", path, nil, "2.57"); q["server_groups"] != 10.0 || q["fixed_ips"] != nil || q["injected_files"] != nil {
		t.Errorf("%v", q)
	}
	if q := c.must(200, "admin", "PUT", path, object{"quota_class_set": object{"cores": 7}}); q["cores"] != 7.0 || q["instances"] != 10.0 || q["id"] != nil {
		t.Errorf("%v", q)
	}
	if cores(red) != 7.0 || cores(blue) != 5.0 {
		t.Errorf("red has %v, blue %v", cores(red), cores(blue))
	}
	if q := c.must(200, "red", "GET", "/os-quota-sets/"+red+"/defaults", nil); q["cores"] != 7.0 {
		t.Errorf("the defaults: %v", q)
	}
	c.refused(400, "badRequest", "admin", "PUT", path, object{"quota_class_set": object{"cores": -2}})
	c.refused(400, "badRequest", "admin", "PUT", path, object{"quota_class_set": object{"fixed_ips": 1}}, "2.50")
	c.refused(404, "itemNotFound", "admin", "GET", "/os-quota-class-sets/x", nil)
	c.refused(404, "itemNotFound", "admin", "PUT", "/os-quota-class-sets/x", object{"quota_class_set": object{"cores": 1}})
}

// TestTopology: what a server is promised of processors and pages.
func TestTopology(t *testing.T) {
	c := newCloud(t)
	c.furnish()
	ids := c.seed(2, func(i int, s *model.Server) {
		if i == 1 {
			s.Flavor.VCPUs, s.Flavor.ExtraSpecs = 2, map[string]string{"hw:cpu_policy": "dedicated", "hw:mem_page_size": "2MB"}
		}
	})
	get := func(token string, i int) object {
		return c.do(token, "GET", "/servers/"+ids[i]+"/topology", nil, "2.78").body
	}
	if o := get("red", 0); len(o["nodes"].([]any)) != 0 || o["pagesize_kb"] != nil {
		t.Errorf("%v", o)
	}
	for _, token := range []string{"red", "admin"} {
		o := get(token, 1)
		n := o["nodes"].([]any)[0].(object)
		if _, host := n["host_node"]; o["pagesize_kb"] != 2048.0 || n["memory_mb"] != 128.0 || len(n["vcpu_set"].([]any)) != 2 || host != (token == "admin") {
			t.Errorf("as %s: %v", token, o)
		}
	}
	c.refused(404, "itemNotFound", "red", "GET", "/servers/"+ids[0]+"/topology", nil, "2.77")
}

// TestChangesTellOfWhatIsGone: whoever asks for what has changed is told of servers that are gone, its own.
func TestChangesTellOfWhatIsGone(t *testing.T) {
	c := newCloud(t)
	c.furnish()
	c.seed(5, func(i int, s *model.Server) { s.Name = string(rune('a' + i)) })
	start := time.Date(2026, 1, 1, 0, 0, 2, 500, time.UTC)
	c.update(func(tx *store.Tx) error {
		for i, project := range []string{red, blue} {
			s := &model.Server{Meta: model.NewMeta(project, "gone-"+project[:1], start), Status: model.ServerStatus{Phase: model.PhaseGone, TerminatedAt: start.Add(time.Hour)}}
			s.UpdatedAt = start.Add(time.Duration(i+1) * time.Hour)
			if err := store.GoneServers.Put(tx, s); err != nil {
				return err
			}
		}
		return nil
	})
	for _, x := range []struct {
		token, query, version string
		want                  []string
	}{
		{"red", "", "2.1", []string{"e", "d", "c", "b", "a"}},
		{"red", "?changes-since=2026-01-01T00:00:02Z", "2.1", []string{"e", "d", "gone-1", "c"}},
		{"red", "?changes-since=2026-01-01T00:00:02Z&status=active", "2.1", []string{"e", "d", "c"}},
		{"red", "?changes-before=2026-01-01T05:00:00Z&limit=3", "2.66", []string{"e", "d", "gone-1"}},
		{"red", "?changes-before=2026-01-01T05:00:00Z", "2.65", []string{"e", "d", "c", "b", "a"}},
		{"blue", "?changes-since=2026-01-01T00:00:00Z", "2.1", []string{"gone-2"}},
		{"admin", "?changes-since=2026-01-01T00:30:00Z&all_tenants=1", "2.1", []string{"gone-2", "gone-1"}},
		{"admin", "?changes-since=2026-01-01T00:00:00Z&all_tenants=1&deleted=false", "2.1", []string{"e", "d", "c", "b", "a"}},
	} {
		got := names(c.rows(x.token, "/servers/detail"+x.query, x.version))
		if x.token == "admin" && len(got) == 2 {
			slices.SortFunc(got, func(a, b string) int { return strings.Compare(b, a) }) // both were made at once
		}
		if !slices.Equal(got, x.want) {
			t.Errorf("%s as %s in %s: %v, want %v", x.query, x.token, x.version, got, x.want)
		}
	}
	rows := c.rows("red", "/servers/detail?changes-since=2026-01-01T00:30:00Z")
	if len(rows) != 1 || rows[0]["status"] != "DELETED" || rows[0]["OS-EXT-STS:vm_state"] != "deleted" || rows[0]["OS-SRV-USG:terminated_at"] == nil {
		t.Errorf("%v", rows)
	}
	id := rows[0]["id"].(string)
	if got := names(c.rows("red", "/servers?changes-since=2026-01-01T00:00:00Z&marker="+id)); !slices.Equal(got, []string{"c", "b", "a"}) {
		t.Errorf("after the one that is gone: %v", got)
	}
	c.refused(400, "badRequest", "red", "GET", "/servers?marker="+id, nil)
	c.refused(400, "badRequest", "blue", "GET", "/servers?changes-since=2026-01-01T00:00:00Z&marker="+id, nil)
	c.refused(404, "itemNotFound", "red", "GET", "/servers/"+id, nil)
}
