package nova_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"yakumo/model"
	"yakumo/store"
)

func TestFlavors(t *testing.T) {
	c := newCloud(t)
	c.furnish()
	made := c.must(200, "admin", "POST", "/flavors", object{"flavor": object{"name": "f", "ram": 64, "vcpus": "2", "disk": 0, "id": 77, "swap": 5,
		"OS-FLV-EXT-DATA:ephemeral": 3, "rxtx_factor": 2.5, "os-flavor-access:is_public": false}})
	want := []string{"OS-FLV-DISABLED:disabled", "OS-FLV-EXT-DATA:ephemeral", "disk", "id", "links", "name", "os-flavor-access:is_public", "ram", "rxtx_factor", "swap", "vcpus"}
	if got := keys(made); !slices.Equal(got, want) || made["id"] != "77" || made["vcpus"] != 2.0 || made["swap"] != 5.0 || made["rxtx_factor"] != 2.5 {
		t.Errorf("made %v", made)
	}
	auto := c.must(200, "admin", "POST", "/flavors", object{"flavor": object{"name": "auto", "ram": 64, "vcpus": 1, "disk": 1, "id": "auto", "description": "d"}}, "2.55")
	if len(auto["id"].(string)) != 36 || auto["description"] != "d" {
		t.Errorf("made %v", auto)
	}
	for _, f := range []object{{"name": "f", "ram": 64, "vcpus": 1, "disk": 1}, {"name": "g", "ram": 64, "vcpus": 1, "disk": 1, "id": "77"}} {
		c.refused(409, "conflictingRequest", "admin", "POST", "/flavors", object{"flavor": f})
	}
	for _, f := range []object{{"ram": 64, "vcpus": 1, "disk": 1}, {"name": "g", "ram": 0, "vcpus": 1, "disk": 1}, {"name": "g", "ram": 1, "vcpus": 0, "disk": 1},
		{"name": "g", "ram": 1, "vcpus": 1, "disk": -1}, {"name": "g", "ram": "x", "vcpus": 1, "disk": 1}, {"name": "g", "ram": 1, "vcpus": 1, "disk": 1, "id": "a/b"},
		{"name": "g", "ram": 1, "vcpus": 1, "disk": 1, "x": 1}, {"name": "g", "ram": 1, "vcpus": 1, "disk": 1, "rxtx_factor": 0}, {"name": "g", "ram": 1.5, "vcpus": 1, "disk": 1},
		{"name": "g", "ram": 1, "vcpus": 1, "disk": 1, "description": "d"}, {"name": "g", "ram": 1 << 31, "vcpus": 1, "disk": 1}} {
		c.refused(400, "badRequest", "admin", "POST", "/flavors", object{"flavor": f})
	}
	// Flavors come by their ids; the one of "auto" is random.
	ids := map[string]string{"tiny": "1", "small": "2", "auto": auto["id"].(string)}
	byID := slices.SortedFunc(maps.Keys(ids), func(a, b string) int { return strings.Compare(ids[a], ids[b]) })
	next := ""
	if i := slices.Index(byID, "tiny"); i+1 < len(byID) {
		next = byID[i+1]
	}
	for query, want := range map[string]string{"": strings.Join(byID, " "), "?minRam=200": "small", "?minDisk=5": "small", "?sort_key=name": "auto small tiny", "?limit=1": byID[0],
		"?sort_key=memory_mb&sort_dir=desc": "small tiny auto", "?limit=1&marker=1": next, "?is_public=none": strings.Join(byID, " ")} {
		if got := strings.Join(names(c.rows("red", "/flavors"+query)), " "); got != want {
			t.Errorf("%q: %q, want %q", query, got, want)
		}
	}
	for query, want := range map[string]int{"?is_public=none": 5, "?is_public=false": 2, "": 3} {
		if got := c.rows("admin", "/flavors/detail"+query); len(got) != want {
			t.Errorf("%q for an administrator: %v", query, names(got))
		}
	}
	for _, q := range []string{"?minRam=x", "?marker=none", "?sort_key=none", "?limit=x", "?is_public=maybe"} {
		if a := c.do("admin", "GET", "/flavors"+q, nil); a.status != 400 {
			t.Errorf("%s: %d", q, a.status)
		}
	}
	c.refused(400, "badRequest", "red", "GET", "/flavors?x=1", nil, "2.75")
	c.refused(404, "itemNotFound", "red", "GET", "/flavors/77", nil)
	c.must(200, "admin", "POST", "/flavors/77/action", object{"addTenantAccess": object{"tenant": red}})
	c.must(200, "red", "GET", "/flavors/77", nil)
	c.refused(404, "itemNotFound", "blue", "GET", "/flavors/77", nil)
	if rows := c.rows("admin", "/flavors/77/os-flavor-access"); len(rows) != 1 || rows[0]["tenant_id"] != red {
		t.Errorf("access %v", rows)
	}
	c.refused(409, "conflictingRequest", "admin", "POST", "/flavors/77/action", object{"addTenantAccess": object{"tenant": red}})
	c.refused(409, "conflictingRequest", "admin", "POST", "/flavors/1/action", object{"addTenantAccess": object{"tenant": red}})
	c.refused(404, "itemNotFound", "admin", "POST", "/flavors/77/action", object{"removeTenantAccess": object{"tenant": blue}})
	c.refused(404, "itemNotFound", "admin", "GET", "/flavors/1/os-flavor-access", nil)
	c.must(200, "admin", "POST", "/flavors/77/action", object{"removeTenantAccess": object{"tenant": red}})
	c.refused(404, "itemNotFound", "red", "GET", "/flavors/77", nil)
	c.refused(400, "badRequest", "admin", "POST", "/flavors/77/action", object{})
	// Extra specs.
	c.must(200, "admin", "POST", "/flavors/2/os-extra_specs", object{"extra_specs": object{"hw:b": "x", "hw:c": "1"}})
	c.must(200, "admin", "PUT", "/flavors/2/os-extra_specs/hw:c", object{"hw:c": "2"})
	c.refused(400, "badRequest", "admin", "PUT", "/flavors/2/os-extra_specs/hw:c", object{"hw:d": "2"})
	c.do("admin", "DELETE", "/flavors/2/os-extra_specs/hw:b", nil)
	c.refused(404, "itemNotFound", "admin", "DELETE", "/flavors/2/os-extra_specs/hw:b", nil)
	if got := c.must(200, "red", "GET", "/flavors/2/os-extra_specs", nil); fmt.Sprint(got) != "map[hw:a:b hw:c:2]" {
		t.Errorf("extra specs %v", got)
	}
	if got := c.must(200, "red", "GET", "/flavors/2", nil, "2.61"); fmt.Sprint(got["extra_specs"]) != "map[hw:a:b hw:c:2]" || got["swap"] != "" {
		t.Errorf("flavor %v", got)
	}
	if got := c.must(200, "red", "GET", "/flavors/2", nil, "2.75"); got["swap"] != 0.0 {
		t.Errorf("swap in 2.75: %v", got["swap"])
	}
	c.must(200, "admin", "PUT", "/flavors/2", object{"flavor": object{"description": "new"}}, "2.55")
	c.refused(404, "itemNotFound", "admin", "PUT", "/flavors/2", object{"flavor": object{"description": "new"}}, "2.54")
	for spec, status := range map[[2]string]int{
		{"hw:cpu_policy", "dedicated"}: 200, {"hw:cpu_policy", "x"}: 400, {"hw:nonsense", "1"}: 400, {"mine:any", "x"}: 200, {"plain", "x"}: 200, {"quota:disk_read_iops_sec", "10"}: 200,
		{"quota:disk_read_iops_sec", "x"}: 400, {"trait:HW_CPU_X86_AVX", "required"}: 200, {"trait1:X", "maybe"}: 400, {"resources2:VGPU", "1"}: 200, {"hw:mem_page_size", "2MB"}: 200,
		{"hw:numa_cpus.0", "1-3,^2"}: 200, {"hw_rng:allowed", "True"}: 200,
	} {
		if a := c.do("admin", "POST", "/flavors/1/os-extra_specs", object{"extra_specs": object{spec[0]: spec[1]}}, "2.86"); a.status != status {
			t.Errorf("extra spec %v: %d %s, want %d", spec, a.status, a.raw, status)
		}
		if a := c.do("admin", "PUT", "/flavors/1/os-extra_specs/"+spec[0], object{spec[0]: spec[1]}, "2.86"); a.status != status {
			t.Errorf("extra spec %v: %d %s, want %d", spec, a.status, a.raw, status)
		}
	}
	for _, path := range []string{"/os-keypairs?x=1", "/os-hypervisors?x=1", "/os-services?x=1", "/limits?x=1&y=2"} {
		c.refused(400, "badRequest", "admin", "GET", path, nil, "2.75")
	}
	if a := c.do("admin", "DELETE", "/flavors/77", nil); a.status != 202 {
		t.Errorf("delete: %d", a.status)
	}
	c.refused(404, "itemNotFound", "admin", "DELETE", "/flavors/77", nil)
}

func TestKeyPairs(t *testing.T) {
	c := newCloud(t)
	made := c.must(200, "red", "POST", "/os-keypairs", object{"keypair": object{"name": "gen"}})
	if !strings.HasPrefix(made["private_key"].(string), "-----BEGIN RSA PRIVATE KEY-----") || !strings.HasPrefix(made["public_key"].(string), "ssh-rsa ") || made["type"] != nil {
		t.Errorf("made %v", keys(made))
	}
	imported := c.must(201, "red", "POST", "/os-keypairs", object{"keypair": object{"name": "imp", "public_key": publicKey, "type": "ssh"}}, "2.2")
	if imported["fingerprint"] != "0f:a2:0a:d7:38:3e:65:45:08:6b:63:84:1c:ff:dc:ba" || imported["private_key"] != nil || imported["user_id"] != "u1" {
		t.Errorf("imported %v", imported)
	}
	shown := c.must(200, "red", "GET", "/os-keypairs/gen", nil, "2.2")
	if shown["private_key"] != nil || shown["type"] != "ssh" || shown["id"] == nil || shown["created_at"] == nil || shown["deleted"] != false {
		t.Errorf("shown %v", shown)
	}
	for what, x := range map[string]struct {
		status int
		member string
		body   object
		v      string
	}{
		"the same name": {409, "conflictingRequest", object{"name": "imp", "public_key": publicKey}, "2.1"}, "no name": {400, "badRequest", object{}, "2.1"},
		"a slash": {400, "badRequest", object{"name": "a/b"}, "2.1"}, "a bad key": {400, "badRequest", object{"name": "x", "public_key": "ssh-rsa AAAA"}, "2.1"},
		"x509": {400, "badRequest", object{"name": "x", "type": "x509"}, "2.2"}, "unknown": {400, "badRequest", object{"name": "x", "y": 1}, "2.1"},
		"no key in 2.92": {400, "badRequest", object{"name": "x"}, "2.92"}, "a dot before 2.92": {400, "badRequest", object{"name": "a.b", "public_key": publicKey}, "2.91"},
		"another's": {403, "forbidden", object{"name": "x", "public_key": publicKey, "user_id": "u4"}, "2.10"}, "blank": {400, "badRequest", object{"name": " "}, "2.1"},
	} {
		c.refused(x.status, x.member, "red", "POST", "/os-keypairs", object{"keypair": x.body}, x.v)
		_ = what
	}
	c.must(201, "red", "POST", "/os-keypairs", object{"keypair": object{"name": "a.b@c", "public_key": publicKey}}, "2.92")
	list := func(token, query, v string) string {
		var out []string
		for _, r := range c.rows(token, "/os-keypairs"+query, v) {
			out = append(out, r["keypair"].(object)["name"].(string))
		}
		return strings.Join(out, " ")
	}
	for query, want := range map[string]string{"": "a.b@c gen imp", "?limit=1": "a.b@c", "?limit=5&marker=gen": "imp"} {
		if got := list("red", query, "2.35"); got != want {
			t.Errorf("%q: %q, want %q", query, got, want)
		}
	}
	if got := list("blue", "", "2.1"); got != "" {
		t.Errorf("another user lists %q", got)
	}
	if got := list("admin", "?user_id=u1", "2.10"); got != "a.b@c gen imp" {
		t.Errorf("an administrator lists %q", got)
	}
	c.refused(403, "forbidden", "red", "GET", "/os-keypairs?user_id=u4", nil, "2.10")
	c.refused(404, "itemNotFound", "blue", "GET", "/os-keypairs/imp", nil)
	if a := c.do("red", "DELETE", "/os-keypairs/imp", nil); a.status != 202 {
		t.Errorf("delete in 2.1: %d", a.status)
	}
	if a := c.do("red", "DELETE", "/os-keypairs/gen", nil, "2.2"); a.status != 204 {
		t.Errorf("delete in 2.2: %d", a.status)
	}
	c.refused(404, "itemNotFound", "red", "DELETE", "/os-keypairs/gen", nil)
	c.must(200, "admin", "PUT", "/os-quota-sets/"+red, object{"quota_set": object{"key_pairs": 1}})
	c.refused(403, "forbidden", "red", "POST", "/os-keypairs", object{"keypair": object{"name": "more", "public_key": publicKey}})
}

func TestHypervisorsAndServices(t *testing.T) {
	c := newCloud(t)
	c.furnish()
	h := c.host("h1")
	c.host("h2", func(h *model.Host) { h.Zone = "east" })
	id := c.boot("red", "s", "flavorRef", "2", "availability_zone", "nova")
	c.wait("red", id, "status", "ACTIVE")

	rows := c.rows("admin", "/os-hypervisors")
	if len(rows) != 2 || !slices.Equal(keys(rows[0]), []string{"hypervisor_hostname", "id", "state", "status"}) || rows[0]["state"] != "up" {
		t.Errorf("list %v", rows)
	}
	number := int(rows[0]["id"].(float64))
	old := c.must(200, "admin", "GET", fmt.Sprint("/os-hypervisors/", number), nil)
	for k, v := range map[string]any{"vcpus": 8.0, "vcpus_used": 2.0, "memory_mb": 16384.0, "memory_mb_used": 1024.0, "free_ram_mb": 15360.0, "local_gb": 200.0, "local_gb_used": 5.0,
		"running_vms": 1.0, "hypervisor_type": "QEMU", "hypervisor_hostname": "h1", "status": "enabled", "state": "up"} {
		if old[k] != v {
			t.Errorf("%s is %v, want %v", k, old[k], v)
		}
	}
	if _, isText := old["cpu_info"].(string); !isText {
		t.Errorf("cpu_info before 2.28: %v", old["cpu_info"])
	}
	mid := c.must(200, "admin", "GET", "/os-hypervisors/"+h.ID()+"?with_servers=true", nil, "2.53")
	if mid["id"] != h.ID() || mid["servers"].([]any)[0].(object)["uuid"] != id || mid["cpu_info"].(object)["topology"] == nil {
		t.Errorf("2.53: %v", mid)
	}
	late := c.must(200, "admin", "GET", "/os-hypervisors/"+h.ID(), nil, "2.88")
	for _, k := range []string{"vcpus", "memory_mb", "cpu_info", "running_vms", "current_workload"} {
		if _, shown := late[k]; shown {
			t.Errorf("2.88 shows %s", k)
		}
	}
	if up, _ := late["uptime"].(string); !strings.HasSuffix(up, " up 1 days,  2:03,  0 users,  load average: 0.50, 1.00, 2.00") {
		t.Errorf("2.88 shows the uptime %q", up)
	}
	if st := c.must(200, "admin", "GET", "/os-hypervisors/statistics", nil); st["count"] != 2.0 || st["vcpus"] != 16.0 || st["running_vms"] != 1.0 {
		t.Errorf("statistics %v", st)
	}
	for _, x := range []struct {
		path, v string
		status  int
	}{
		{"statistics", "2.88", 404}, {"77/uptime", "2.1", 404}, {fmt.Sprint(number, "/uptime"), "2.1", 200}, {h.ID() + "/uptime", "2.88", 404}, {"77", "2.1", 404},
		{"x", "2.53", 400}, {model.NewID(), "2.53", 404}, {"h1/search", "2.1", 200}, {"zzz/search", "2.1", 404}, {"h1/search", "2.53", 404}, {"h/servers", "2.1", 200},
		{"?hypervisor_hostname_pattern=h2", "2.53", 200}, {"?hypervisor_hostname_pattern=zzz", "2.53", 404}, {"?hypervisor_hostname_pattern=h&limit=1", "2.53", 400},
		{"?limit=1", "2.33", 200}, {"?marker=zzz", "2.33", 400}, {"detail?with_servers=1", "2.53", 200}, {"detail", "2.88", 200},
	} {
		sep := "/"
		if strings.HasPrefix(x.path, "?") {
			sep = ""
		}
		if a := c.do("admin", "GET", "/os-hypervisors"+sep+x.path, nil, x.v); a.status != x.status {
			t.Errorf("%s in %s: %d %s, want %d", x.path, x.v, a.status, a.raw, x.status)
		}
	}
	// A host that is silent is down, and comes back.
	c.update(func(tx *store.Tx) error { return store.Heartbeats.Delete(tx, h.ID()) })
	if rows := c.rows("admin", "/os-services?host=h1"); len(rows) != 1 || rows[0]["state"] != "down" || rows[0]["binary"] != "nova-compute" {
		t.Errorf("silent: %v", rows)
	}
	if s := c.must(200, "admin", "GET", "/servers/"+id, nil, "2.16"); s["host_status"] != "DOWN" || s["status"] != "ACTIVE" {
		t.Errorf("on a silent host: %v %v", s["host_status"], s["status"])
	}
	c.update(func(tx *store.Tx) error { return store.Heartbeats.Put(tx, &model.Heartbeat{HostID: h.ID()}) })
	if rows := c.rows("admin", "/os-services"); len(rows) != 2 || rows[0]["state"] != "up" || rows[0]["zone"] != "nova" {
		t.Errorf("back: %v", rows)
	}
	// Older and newer ways to disable.
	c.must(200, "admin", "PUT", "/os-services/disable-log-reason", object{"host": "h1", "binary": "nova-compute", "disabled_reason": "r"})
	row := func() *model.Host { r, _ := store.Hosts.Get(c.store.Snapshot(), h.ID()); return r }
	if r := row(); !r.Disabled || r.Reason != "r" {
		t.Errorf("disabled: %+v", r)
	}
	c.must(200, "admin", "PUT", "/os-services/enable", object{"host": "h1", "binary": "nova-compute"})
	if r := row(); r.Disabled || r.Reason != "" {
		t.Errorf("enabled: %+v", r)
	}
	c.must(200, "admin", "PUT", "/os-services/"+h.ID(), object{"status": "disabled", "disabled_reason": "x"}, "2.53")
	c.must(200, "admin", "PUT", "/os-services/"+h.ID(), object{"forced_down": true}, "2.53")
	if r := row(); !r.Disabled || r.Reason != "x" || !r.ForcedDown {
		t.Errorf("forced down: %+v", r)
	}
	if rows := c.rows("admin", "/os-services", "2.53"); rows[0]["state"] != "down" || rows[0]["forced_down"] != true || rows[0]["disabled_reason"] != "x" {
		t.Errorf("forced down: %v", rows[0])
	}
	for _, x := range []struct {
		path   string
		body   object
		v      string
		status int
	}{
		{"enable", object{"host": "none", "binary": "nova-compute"}, "2.1", 404}, {"enable", object{"host": "h1"}, "2.1", 400}, {"nonsense", object{"host": "h1"}, "2.1", 404},
		{"force-down", object{"host": "h1", "binary": "nova-compute", "forced_down": false}, "2.10", 404}, {"force-down", object{"host": "h1", "binary": "nova-compute", "forced_down": false}, "2.11", 200},
		{h.ID(), object{}, "2.53", 400}, {h.ID(), object{"disabled_reason": "x"}, "2.53", 400}, {h.ID(), object{"status": "x"}, "2.53", 400}, {model.NewID(), object{"status": "enabled"}, "2.53", 404},
	} {
		if a := c.do("admin", "PUT", "/os-services/"+x.path, x.body, x.v); a.status != x.status {
			t.Errorf("%s %v in %s: %d %s, want %d", x.path, x.body, x.v, a.status, a.raw, x.status)
		}
	}
}

func TestQuotasAndLimits(t *testing.T) {
	c := newCloud(t)
	c.furnish()
	c.host("h1")
	c.boot("red", "s", "flavorRef", "2")
	q := c.must(200, "red", "GET", "/os-quota-sets/"+red, nil)
	if q["instances"] != 10.0 || q["cores"] != 20.0 || q["ram"] != 51200.0 || q["id"] != red || q["floating_ips"] == nil {
		t.Errorf("quota %v", q)
	}
	if q := c.must(200, "red", "GET", "/os-quota-sets/"+red, nil, "2.57"); q["floating_ips"] != nil || q["injected_files"] != nil || q["server_groups"] != 10.0 {
		t.Errorf("quota in 2.57: %v", q)
	}
	c.must(200, "admin", "PUT", "/os-quota-sets/"+red, object{"quota_set": object{"instances": 2, "cores": 2}})
	d := c.must(200, "red", "GET", "/os-quota-sets/"+red+"/detail", nil)
	if cores := d["cores"].(object); cores["limit"] != 2.0 || cores["in_use"] != 2.0 || cores["reserved"] != 0.0 {
		t.Errorf("detail %v", d)
	}
	if text := c.refused(403, "forbidden", "red", "POST", "/servers", object{"server": object{"name": "x", "imageRef": c.image, "flavorRef": "2"}}); text !=
		"Quota exceeded for cores: Requested 2, but already used 2 of 2 cores" {
		t.Errorf("over quota: %s", text)
	}
	l := c.must(200, "red", "GET", "/limits", nil)["absolute"].(object)
	if l["maxTotalCores"] != 2.0 || l["totalCoresUsed"] != 2.0 || l["totalInstancesUsed"] != 1.0 || l["totalRAMUsed"] != 512.0 || l["maxPersonality"] == nil {
		t.Errorf("limits %v", l)
	}
	if l := c.must(200, "admin", "GET", "/limits?tenant_id="+red, nil, "2.57")["absolute"].(object); l["totalCoresUsed"] != 2.0 || l["maxPersonality"] != nil || l["maxImageMeta"] != nil {
		t.Errorf("limits of another: %v", l)
	}
	c.refused(403, "forbidden", "red", "GET", "/limits?tenant_id="+blue, nil)
	for _, b := range []object{{"cores": 1}, {"cores": -2}, {"x": 1}, {"cores": "many"}, {"cores": nil}} {
		c.refused(400, "badRequest", "admin", "PUT", "/os-quota-sets/"+red, object{"quota_set": b})
	}
	c.must(200, "admin", "PUT", "/os-quota-sets/"+red, object{"quota_set": object{"cores": 1, "force": true}})
	if a := c.do("admin", "DELETE", "/os-quota-sets/"+red, nil); a.status != 202 {
		t.Errorf("reset: %d", a.status)
	}
	if q := c.must(200, "red", "GET", "/os-quota-sets/"+red, nil); q["cores"] != 20.0 {
		t.Errorf("after the reset: %v", q)
	}
	if q := c.must(200, "red", "GET", "/os-quota-sets/"+red+"/defaults", nil); q["cores"] != 20.0 || q["id"] != red {
		t.Errorf("defaults: %v", q)
	}
	for path, member := range map[string]string{"/os-aggregates": "aggregates", "/os-server-groups": "server_groups"} {
		if a := c.do("admin", "GET", path, nil); a.status != 200 || fmt.Sprint(a.body[member]) != "[]" {
			t.Errorf("%s: %d %s", path, a.status, a.raw)
		}
	}
	if a := c.do("red", "GET", "/extensions", nil); len(a.body["extensions"].([]any)) < 10 {
		t.Errorf("extensions: %s", a.raw)
	}
	if a := c.do("red", "GET", "/extensions/os-keypairs", nil); a.status != 200 {
		t.Errorf("extension: %d", a.status)
	}
}
