package nova_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"yakumo/compute"
	"yakumo/model"
	"yakumo/store"
)

// bodiesOf gives a body that the schema of each action takes.
func (c *cloud) bodiesOf() map[string]any {
	return map[string]any{
		"os-start": nil, "os-stop": nil, "pause": nil, "unpause": nil, "suspend": nil, "resume": nil, "lock": nil, "unlock": nil,
		"reboot": object{"type": "SOFT"}, "os-getConsoleOutput": object{}, "addSecurityGroup": object{"name": "default"},
		"removeSecurityGroup": object{"name": "default"}, "rebuild": object{"imageRef": c.image}, "rescue": nil, "unrescue": nil,
		"createImage": object{"name": "i"}, "createBackup": object{"name": "b", "backup_type": "daily", "rotation": 1}, "shelve": nil, "shelveOffload": nil,
		"unshelve": nil, "os-resetState": object{"state": "error"}, "restore": nil, "forceDelete": nil, "changePassword": object{"adminPass": "x"},
		"trigger_crash_dump": nil, "resetNetwork": nil, "injectNetworkInfo": nil, "addFixedIp": object{"networkId": c.network}, "removeFixedIp": object{"address": "10.0.0.9"},
		"addFloatingIp": object{"address": "192.0.2.9"}, "removeFloatingIp": object{"address": "192.0.2.9"},
	}
}

// TestRightsOfEveryAction: readers and strangers can do nothing, and members not what is for administrators.
func TestRightsOfEveryAction(t *testing.T) {
	c := newCloud(t)
	c.furnish()
	c.host("h1")
	id := c.boot("red", "mine")
	c.wait("red", id, "status", "ACTIVE")
	admins := []string{"os-resetState", "shelveOffload", "resetNetwork", "injectNetworkInfo"}
	path := "/servers/" + id + "/action"
	before := string(c.do("admin", "GET", "/servers/"+id, nil, "2.96").raw)
	for name, body := range c.bodiesOf() {
		b := object{name: body}
		c.refused(404, "itemNotFound", "blue", "POST", path, b, "2.43")
		for _, token := range []string{"red-reader", "unscoped"} {
			c.refused(403, "forbidden", token, "POST", path, b, "2.43")
		}
		if a := c.do("nobody", "POST", path, b, "2.43"); a.status != 401 {
			t.Errorf("%s without a token: %d", name, a.status)
		}
		if slices.Contains(admins, name) {
			for _, token := range []string{"red", "red-admin"} {
				if text := c.refused(403, "forbidden", token, "POST", path, b, "2.43"); !strings.Contains(text, "Policy doesn't allow os_compute_api:") {
					t.Errorf("%s: %s", name, text)
				}
			}
		}
	}
	if after := string(c.do("admin", "GET", "/servers/"+id, nil, "2.96").raw); after != before {
		t.Errorf("what was refused has changed something:\n%s\n%s", before, after)
	}
}

// TestWrongStatesOfActions: statuses and texts as Nova's.
func TestWrongStatesOfActions(t *testing.T) {
	c := newCloud(t)
	c.furnish()
	h := c.host("h1")
	id := c.boot("red", "s")
	c.wait("red", id, "status", "ACTIVE")
	path := "/servers/" + id + "/action"
	refused := func(state string, names ...string) {
		t.Helper()
		for _, name := range names {
			if text := c.refused(409, "conflictingRequest", "admin", "POST", path, object{name: c.bodiesOf()[name]}, "2.43"); text != "Cannot '"+name+"' instance "+id+" while it is in "+state {
				t.Errorf("%s in %s: %s", name, state, text)
			}
		}
	}
	do := func(body any, status string) {
		t.Helper()
		if a := c.do("admin", "POST", path, body); a.status/100 != 2 {
			t.Fatalf("%v: %d %s", body, a.status, a.raw)
		}
		c.wait("red", id, "status", status)
		c.wait("red", id, "OS-EXT-STS:task_state", nil)
	}
	refused("vm_state active", "unpause", "resume", "unrescue", "unshelve", "shelveOffload", "restore")
	do(object{"pause": nil}, "PAUSED")
	refused("vm_state paused", "pause", "suspend", "resume", "rescue", "rebuild", "unrescue", "reboot", "changePassword")
	do(object{"unpause": nil}, "ACTIVE")
	do(object{"suspend": nil}, "SUSPENDED")
	refused("vm_state suspended", "pause", "unpause", "suspend", "rescue", "rebuild", "reboot", "trigger_crash_dump")
	do(object{"resume": nil}, "ACTIVE")
	do(object{"rescue": nil}, "RESCUE")
	refused("vm_state rescued", "pause", "suspend", "rescue", "rebuild", "createImage", "createBackup", "shelve")
	do(object{"unrescue": nil}, "ACTIVE")
	do(object{"shelve": nil}, "SHELVED_OFFLOADED")
	refused("vm_state shelved_offloaded", "pause", "suspend", "rescue", "rebuild", "createImage", "shelve", "shelveOffload", "addFixedIp")
	do(object{"unshelve": nil}, "ACTIVE")
	h.Hold(true)
	c.must(202, "red", "POST", path, object{"pause": nil})
	refused("task_state pausing", "pause", "suspend", "rescue", "rebuild", "createImage", "createBackup", "shelve", "changePassword", "reboot")
	h.Hold(false)
	c.wait("red", id, "status", "PAUSED")
	for name, bad := range map[string]any{
		"rebuild": object{}, "rescue": object{"x": 1}, "createImage": object{"name": ""}, "createBackup": object{"name": "b", "backup_type": "d", "rotation": -1},
		"os-resetState": object{"state": "paused"}, "changePassword": object{}, "addFixedIp": object{}, "removeFixedIp": object{"address": "x"},
		"reboot": object{"type": "x"}, "lock": nil,
	} {
		if name != "lock" {
			c.refused(400, "badRequest", "admin", "POST", path, object{name: bad}, "2.43")
		}
	}
	// Gone, of another microversion, not supported.
	for _, name := range []string{"resetNetwork", "injectNetworkInfo"} {
		if a := c.do("admin", "POST", path, object{name: nil}); a.status != 410 {
			t.Errorf("%s: %d", name, a.status)
		}
	}
	for _, name := range []string{"addFixedIp", "removeFixedIp", "addFloatingIp", "removeFloatingIp"} {
		c.refused(404, "itemNotFound", "red", "POST", path, object{name: c.bodiesOf()[name]}, "2.44")
	}
	c.refused(404, "itemNotFound", "red", "POST", path, object{"trigger_crash_dump": nil}, "2.16")
	c.must(202, "red", "POST", path, object{"trigger_crash_dump": nil}, "2.17") // a paused one may
	do(object{"unpause": nil}, "ACTIVE")
	if text := c.refused(409, "conflictingRequest", "red", "POST", path, object{"changePassword": object{"adminPass": "x"}}); text != "QEMU guest agent is not enabled" {
		t.Errorf("a password: %s", text)
	}
	var got []string
	for _, a := range c.rows("red", "/servers/"+id+"/os-instance-actions", "2.62") {
		got = append(got, a["action"].(string))
		one := c.must(200, "red", "GET", "/servers/"+id+"/os-instance-actions/"+a["request_id"].(string), nil, "2.62")
		if ev := one["events"].([]any); len(ev) == 0 {
			t.Errorf("%s has no events", a["action"])
		}
	}
	want := "changePassword unpause trigger_crash_dump pause unshelve shelve unrescue rescue resume suspend unpause pause create"
	if strings.Join(got, " ") != want {
		t.Errorf("the actions are %v, want %s", got, want)
	}
}

func TestRebuildAndRescue(t *testing.T) {
	c := newCloud(t)
	c.furnish()
	h := c.host("h1")
	c.must(200, "red", "POST", "/os-keypairs", object{"keypair": object{"name": "k", "public_key": publicKey}})
	id := c.boot("red", "s", "metadata", object{"a": "b"})
	c.wait("red", id, "status", "ACTIVE")
	path := "/servers/" + id + "/action"
	base, _ := store.Images.Get(c.store.Snapshot(), c.image)
	other, big := *base, *base
	other.ID, big.ID, big.VirtualSize = model.NewID(), model.NewID(), 5<<30
	c.update(func(tx *store.Tx) error {
		if err := store.Images.Put(tx, &other); err != nil {
			return err
		}
		return store.Images.Put(tx, &big)
	})
	if text := c.refused(400, "badRequest", "red", "POST", path, object{"rebuild": object{"imageRef": big.ID}}); !strings.HasPrefix(text, "Flavor's disk is too small") {
		t.Errorf("too big: %s", text)
	}
	c.refused(400, "badRequest", "red", "POST", path, object{"rebuild": object{"imageRef": model.NewID()}})
	c.refused(400, "badRequest", "red", "POST", path, object{"rebuild": object{"imageRef": c.image, "key_name": "none"}}, "2.54")
	c.refused(400, "badRequest", "red", "POST", path, object{"rebuild": object{"imageRef": c.image, "preserve_ephemeral": true}})
	for version, member := range map[string]string{"2.18": "description", "2.53": "key_name", "2.56": "user_data", "2.62": "trusted_image_certificates", "2.89": "hostname"} {
		c.refused(400, "badRequest", "red", "POST", path, object{"rebuild": object{"imageRef": c.image, member: nil}}, version)
	}
	c.refused(400, "badRequest", "red", "POST", path, object{"rebuild": object{"imageRef": c.image, "personality": []any{}}}, "2.57")
	h.Hold(true)
	a := c.do("red", "POST", path, object{"rebuild": object{"imageRef": other.ID, "name": "new", "adminPass": "secret", "metadata": object{"c": "d"},
		"description": "why", "key_name": "k", "user_data": "aGk=", "accessIPv4": "192.0.2.1"}}, "2.57")
	s, _ := a.body["server"].(object)
	if a.status != 202 || s["adminPass"] != "secret" || s["name"] != "new" || s["status"] != "REBUILD" || s["key_name"] != "k" || s["user_data"] != "aGk=" ||
		s["image"].(object)["id"] != other.ID || s["metadata"].(object)["c"] != "d" || s["description"] != "why" || s["OS-EXT-STS:vm_state"] != nil {
		t.Errorf("rebuilt: %d %s", a.status, a.raw)
	}
	h.Hold(false)
	c.wait("red", id, "status", "ACTIVE")
	if h.Image(id) != other.ID {
		t.Errorf("the guest's disk is of %s", h.Image(id))
	}
	if s := c.must(202, "red", "POST", path, object{"rebuild": object{"imageRef": c.image, "key_name": nil, "user_data": nil, "metadata": object{}}}, "2.96"); s["adminPass"] == "" ||
		s["key_name"] != nil || s["user_data"] != nil || s["OS-EXT-STS:vm_state"] == nil || len(s["metadata"].(object)) != 0 {
		t.Errorf("rebuilt: %v", s)
	}
	c.wait("red", id, "status", "ACTIVE")
	if p := c.must(200, "red", "POST", path, object{"rescue": object{"adminPass": "pw", "rescue_image_ref": other.ID}}); p["adminPass"] != "pw" {
		t.Errorf("rescued: %v", p)
	}
	c.wait("red", id, "status", "RESCUE")
	if h.Image(id) != other.ID {
		t.Errorf("the guest runs from %s", h.Image(id))
	}
	c.must(202, "red", "POST", path, object{"unrescue": nil})
	c.wait("red", id, "status", "ACTIVE")
	if p := c.must(200, "red", "POST", path, object{"rescue": nil}); len(p["adminPass"].(string)) != 12 {
		t.Errorf("rescued: %v", p)
	}
	// A server that boots from a volume.
	c.wait("red", id, "status", "RESCUE")
	c.must(202, "red", "POST", path, object{"unrescue": nil})
	c.wait("red", id, "status", "ACTIVE")
	c.update(func(tx *store.Tx) error {
		old, _ := store.Servers.Get(tx, id)
		s := *old
		s.Volumes = []model.VolumeUse{{VolumeID: model.NewID(), Boot: true}}
		return store.Servers.Put(tx, &s)
	})
	if text := c.refused(400, "badRequest", "red", "POST", path, object{"rebuild": object{"imageRef": other.ID}}, "2.92"); text != "Unable to rebuild with a different image for a volume-backed server." {
		t.Errorf("rebuild of a volume: %s", text)
	}
	if text := c.refused(400, "badRequest", "red", "POST", path, object{"rescue": nil}, "2.86"); text != "Cannot rescue a volume-backed instance." {
		t.Errorf("rescue of a volume: %s", text)
	}
	if text := c.refused(400, "badRequest", "red", "POST", path, object{"createBackup": c.bodiesOf()["createBackup"]}); text != "Backup is not supported for volume-backed instances." {
		t.Errorf("backup of a volume: %s", text)
	}
}

func TestImagesOfServers(t *testing.T) {
	c := newCloud(t)
	c.furnish()
	h := c.host("h1")
	id := c.boot("red", "s")
	c.wait("red", id, "status", "ACTIVE")
	path := "/servers/" + id + "/action"
	image := func(id string) *model.Image { i, _ := store.Images.Get(c.store.Snapshot(), id); return i }
	c.update(func(tx *store.Tx) error {
		i := *image(c.image)
		i.Properties = map[string]string{"hw_disk_bus": "virtio", "instance_uuid": "x"}
		return store.Images.Put(tx, &i)
	})
	h.Hold(true)
	a := c.do("red", "POST", path, object{"createImage": object{"name": "one", "metadata": object{"m": "v"}}})
	loc := a.header.Get("Location")
	if a.status != 202 || !strings.Contains(loc, "/images/") || len(a.raw) > 0 {
		t.Fatalf("created: %d %q %s", a.status, loc, a.raw)
	}
	c.wait("red", id, "OS-EXT-STS:task_state", "image_snapshot_pending")
	first := loc[strings.LastIndex(loc, "/")+1:]
	if i := image(first); i == nil || i.Status != "queued" || i.ProjectID != red || i.Visibility != "private" || i.Properties["instance_uuid"] != id ||
		i.Properties["image_type"] != "snapshot" || i.Properties["m"] != "v" || i.Properties["hw_disk_bus"] != "virtio" || i.Properties["base_image_ref"] != c.image || i.MinDiskGiB != 1 {
		t.Errorf("the image: %+v", i)
	}
	h.Hold(false)
	c.wait("red", id, "OS-EXT-STS:task_state", nil)
	if i := image(first); i.Status != "active" {
		t.Errorf("the image: %+v", i)
	}
	got := c.must(202, "red", "POST", path, object{"createImage": object{"name": "two"}}, "2.45")
	if i := image(got["image_id"].(string)); i == nil || i.Name != "two" {
		t.Errorf("2.45: %v", got)
	}
	c.wait("red", id, "OS-EXT-STS:task_state", nil)
	var made []string
	for i := range 3 {
		got := c.must(202, "red", "POST", path, object{"createBackup": object{"name": fmt.Sprint("b", i), "backup_type": "daily", "rotation": 2}}, "2.45")
		made = append(made, got["image_id"].(string))
		c.wait("red", id, "OS-EXT-STS:task_state", nil)
	}
	if image(made[0]) != nil || image(made[1]) == nil || image(made[2]).Properties["backup_type"] != "daily" {
		t.Errorf("the backups: %v %v %v", image(made[0]), image(made[1]), image(made[2]))
	}
	c.refused(400, "badRequest", "red", "POST", path, object{"createBackup": object{"name": "b", "backup_type": "daily", "rotation": 0}})
	items := object{}
	for i := range 129 {
		items[fmt.Sprint("k", i)] = "v"
	}
	c.refused(403, "forbidden", "red", "POST", path, object{"createImage": object{"name": "x", "metadata": items}})
	if got := c.boot("red", "of-it", "imageRef", first); got == "" {
		t.Error("no server of the image")
	}
}

func TestShelf(t *testing.T) {
	c := newCloud(t)
	c.furnish()
	c.host("h1")
	c.host("h2", func(h *model.Host) { h.Zone = "other" })
	id := c.boot("red", "s", "availability_zone", "nova")
	c.wait("red", id, "status", "ACTIVE")
	path := "/servers/" + id + "/action"
	shelve := func() {
		t.Helper()
		c.must(202, "red", "POST", path, object{"shelve": nil})
		s := c.wait("red", id, "status", "SHELVED_OFFLOADED")
		if s["hostId"] != "" || s["OS-EXT-STS:power_state"] != 4.0 || len(s["addresses"].(object)) != 1 {
			t.Errorf("shelved: %v", s)
		}
	}
	shelve()
	for version, body := range map[string]any{"2.77": object{}, "2.90": object{"host": "h1"}, "2.91": object{}, "2.96": object{"x": 1}} {
		c.refused(400, "badRequest", "admin", "POST", path, object{"unshelve": body}, version)
	}
	c.refused(400, "badRequest", "red", "POST", path, object{"unshelve": object{"availability_zone": "none"}}, "2.77")
	c.refused(403, "forbidden", "red", "POST", path, object{"unshelve": object{"host": "h1"}}, "2.91")
	c.refused(400, "badRequest", "admin", "POST", path, object{"unshelve": object{"host": "h9"}}, "2.91")
	if text := c.refused(409, "conflictingRequest", "admin", "POST", path, object{"unshelve": object{"host": "h2"}}, "2.91"); text != `Host "h2" is not in the availability zone "nova".` {
		t.Errorf("elsewhere: %s", text)
	}
	c.must(202, "red", "POST", path, object{"unshelve": object{"availability_zone": "other"}}, "2.77")
	c.wait("red", id, "status", "ACTIVE")
	host := func() any { return c.must(200, "admin", "GET", "/servers/"+id, nil)["OS-EXT-SRV-ATTR:host"] }
	if host() != "h2" {
		t.Errorf("it is on %v", host())
	}
	shelve()
	c.must(202, "admin", "POST", path, object{"unshelve": object{"availability_zone": nil, "host": "h1"}}, "2.91")
	s := c.wait("red", id, "status", "ACTIVE")
	if host() != "h1" || c.must(200, "red", "GET", "/servers/"+id, nil, "2.96")["pinned_availability_zone"] != nil {
		t.Errorf("it is on %v: %v", host(), s)
	}
	shelve()
	if a := c.do("red", "DELETE", "/servers/"+id, nil); a.status != 204 {
		t.Errorf("deleted: %d", a.status)
	}
	c.gone("red", id)
	n := 0
	for range store.Images.All(c.store.Snapshot()) {
		n++
	}
	if n != 1 {
		t.Errorf("%d images stay, want the one that was there before", n)
	}
}

func TestResetStateAndForce(t *testing.T) {
	c := newCloud(t)
	c.furnish()
	c.host("h1")
	id := c.boot("red", "s")
	c.wait("red", id, "status", "ACTIVE")
	path := "/servers/" + id + "/action"
	c.must(202, "admin", "POST", path, object{"os-resetState": object{"state": "error"}})
	if s := c.must(200, "red", "GET", "/servers/"+id, nil); s["status"] != "ERROR" || s["fault"] != nil {
		t.Errorf("reset: %v", s)
	}
	c.must(202, "admin", "POST", path, object{"os-resetState": object{"state": "active"}})
	c.wait("red", id, "status", "ACTIVE")
	c.must(202, "red", "POST", path, object{"forceDelete": nil})
	c.gone("red", id)
	c.refused(404, "itemNotFound", "red", "POST", path, object{"restore": nil})
}

func TestDiagnostics(t *testing.T) {
	c := newCloud(t)
	c.furnish()
	c.host("h1")
	id := c.boot("red", "s")
	c.wait("red", id, "status", "ACTIVE")
	path := "/servers/" + id + "/diagnostics"
	if d := c.must(200, "admin", "GET", path, nil, "2.47"); d["cpu0_time"] != 1.5e9 || d["memory"] != 131072.0 || d["vda_read"] != 4096.0 || d["net0_rx"] != 100.0 {
		t.Errorf("before 2.48: %v", d)
	}
	d := c.do("admin", "GET", path, nil, "2.48").body
	nic := d["nic_details"].([]any)[0].(object)
	if d["state"] != "running" || d["num_cpus"] != 1.0 || d["num_nics"] != 1.0 || d["num_disks"] != 1.0 || d["memory_details"].(object)["used"] != 64.0 ||
		nic["rx_octets"] != 100.0 || len(nic["mac_address"].(string)) != 17 || d["cpu_details"].([]any)[0].(object)["time"] != 1.5e9 {
		t.Errorf("since 2.48: %v", d)
	}
	c.must(202, "red", "POST", "/servers/"+id+"/action", object{"os-stop": nil})
	c.wait("red", id, "status", "SHUTOFF")
	if text := c.refused(409, "conflictingRequest", "admin", "GET", path, nil); text != "Cannot 'get_diagnostics' instance "+id+" while it is in power state 4" {
		t.Errorf("off: %s", text)
	}
}

func TestServerGroups(t *testing.T) {
	c := newCloud(t)
	c.furnish()
	c.host("h1")
	make := func(version string, o object) answer {
		return c.do("red", "POST", "/os-server-groups", object{"server_group": o}, version)
	}
	a := make("2.1", object{"name": "old", "policies": []string{"anti-affinity"}})
	g, _ := a.body["server_group"].(object)
	if a.status != 200 || g["metadata"] == nil || g["project_id"] != nil || fmt.Sprint(g["policies"]) != "[anti-affinity]" || g["policy"] != nil {
		t.Errorf("2.1: %d %s", a.status, a.raw)
	}
	for version, o := range map[string]object{
		"2.14": {"name": "g", "policies": []string{"soft-affinity"}}, "2.1": {"name": "g", "policies": []string{}}, "2.15": {"name": "g", "policies": []string{"x"}},
		"2.63": {"name": "g", "policy": "affinity"}, "2.64": {"name": "g", "policies": []string{"affinity"}}, "2.65": {"name": "g", "policy": "affinity", "rules": object{"max_server_per_host": 2}},
		"2.66": {"name": "g", "policy": "anti-affinity", "rules": object{"max_server_per_host": 0}}, "2.67": {"name": "", "policy": "affinity"},
		"2.68": {"name": "g", "policy": "anti-affinity", "rules": object{"x": 1}}, "2.69": {"name": "g"},
	} {
		if a := make(version, o); a.status != 400 {
			t.Errorf("%s %v: %d %s", version, o, a.status, a.raw)
		}
	}
	a = make("2.64", object{"name": "new", "policy": "anti-affinity", "rules": object{"max_server_per_host": 3}})
	g, _ = a.body["server_group"].(object)
	if a.status != 200 || g["policy"] != "anti-affinity" || g["rules"].(object)["max_server_per_host"] != 3.0 || g["project_id"] != red || g["user_id"] != "u1" || g["metadata"] != nil {
		t.Fatalf("2.64: %d %s", a.status, a.raw)
	}
	id := g["id"].(string)
	server := func(token, group string, more ...any) answer {
		s := object{"name": "s", "imageRef": c.image, "flavorRef": "1", "networks": []object{{"uuid": c.network}}}
		for i := 0; i+1 < len(more); i += 2 {
			s[more[i].(string)] = more[i+1]
		}
		return c.do(token, "POST", "/servers", object{"server": s, "os:scheduler_hints": object{"group": group, "other": []string{"a", "b"}}}, "2.71")
	}
	for group, token := range map[string]string{"nonsense": "red", model.NewID(): "red", id: "blue"} {
		if a := server(token, group); a.status != 400 {
			t.Errorf("in the group %s as %s: %d %s", group, token, a.status, a.raw)
		}
	}
	s := server("red", id).body["server"].(object)["id"].(string)
	row, _ := store.Servers.Get(c.store.Snapshot(), s)
	if row.GroupID != id || !slices.Equal(row.Hints["other"], []string{"a", "b"}) {
		t.Errorf("the row: %q %v", row.GroupID, row.Hints)
	}
	if got := c.must(200, "red", "GET", "/servers/"+s, nil, "2.71")["server_groups"]; fmt.Sprint(got) != "["+id+"]" {
		t.Errorf("the server's groups: %v", got)
	}
	if got := c.must(200, "red", "GET", "/os-server-groups/"+id, nil, "2.64")["members"]; fmt.Sprint(got) != "["+s+"]" {
		t.Errorf("members: %v", got)
	}
	if rows := c.rows("red", "/os-server-groups?limit=1&offset=1"); len(rows) != 1 || rows[0]["id"] != id {
		t.Errorf("a page: %v", rows)
	}
	if rows := c.rows("blue", "/os-server-groups"); len(rows) != 0 {
		t.Errorf("another's: %v", rows)
	}
	if rows := c.rows("blue", "/os-server-groups?all_projects=1"); len(rows) != 0 {
		t.Errorf("another's, all: %v", rows)
	}
	if rows := c.rows("admin", "/os-server-groups?all_projects=1"); len(rows) != 2 {
		t.Errorf("all: %v", rows)
	}
	c.update(func(tx *store.Tx) error {
		return c.compute.SetQuota(tx, red, map[string]int{compute.QuotaServerGroups: 2, compute.QuotaGroupMembers: 2}, false)
	})
	if text := c.refused(403, "forbidden", "red", "POST", "/os-server-groups", object{"server_group": object{"name": "g", "policies": []string{"affinity"}}}); text != "Quota exceeded, too many server groups." {
		t.Errorf("too many groups: %s", text)
	}
	if a := server("red", id, "min_count", 2); a.status != 403 || !strings.Contains(string(a.raw), "Quota exceeded, too many servers in group") {
		t.Errorf("too many members: %d %s", a.status, a.raw)
	}
	if got := c.must(200, "red", "GET", "/limits", nil)["absolute"].(object)["totalServerGroupsUsed"]; got != 2.0 {
		t.Errorf("used: %v", got)
	}
	if a := c.do("red", "DELETE", "/os-server-groups/"+id, nil); a.status != 204 {
		t.Errorf("deleted: %d", a.status)
	}
	c.refused(404, "itemNotFound", "red", "GET", "/os-server-groups/"+id, nil)
	if got := c.must(200, "red", "GET", "/servers/"+s, nil, "2.71")["server_groups"]; fmt.Sprint(got) != "[]" {
		t.Errorf("the server's groups: %v", got)
	}
}

func TestSeveralServersAtOnce(t *testing.T) {
	c := newCloud(t)
	c.furnish()
	c.host("h1")
	create := func(more object) answer {
		s := object{"name": "m", "imageRef": c.image, "flavorRef": "1", "networks": []object{{"uuid": c.network}}}
		for k, v := range more {
			s[k] = v
		}
		return c.do("red", "POST", "/servers", object{"server": s})
	}
	a := create(object{"min_count": 2, "max_count": 4, "return_reservation_id": true})
	r, _ := a.body["reservation_id"].(string)
	if a.status != 202 || len(a.body) != 1 || !strings.HasPrefix(r, "r-") {
		t.Fatalf("reserved: %d %s", a.status, a.raw)
	}
	rows := c.rows("red", "/servers/detail?reservation_id="+r)
	var names []string
	for _, s := range rows {
		names = append(names, s["name"].(string))
	}
	slices.Sort(names)
	if fmt.Sprint(names) != "[m-1 m-2 m-3 m-4]" {
		t.Errorf("made: %v", names)
	}
	for _, bad := range []object{{"min_count": 3, "max_count": 2}, {"min_count": 0}, {"max_count": "x"}, {"min_count": 2, "networks": []object{{"uuid": c.network, "fixed_ip": "10.0.0.5"}}}} {
		if a := create(bad); a.status != 400 {
			t.Errorf("%v: %d %s", bad, a.status, a.raw)
		}
	}
	// As many as the quota leaves room for, at least min_count.
	c.update(func(tx *store.Tx) error {
		return c.compute.SetQuota(tx, red, map[string]int{compute.QuotaInstances: 6}, false)
	})
	if a := create(object{"min_count": 3}); a.status != 403 {
		t.Errorf("beyond the quota: %d %s", a.status, a.raw)
	}
	if a := create(object{"min_count": 1, "max_count": 9}); a.status != 202 || len(c.rows("red", "/servers")) != 6 {
		t.Errorf("up to the quota: %d %s", a.status, a.raw)
	}
}

// TestServersThatAreGone: administrators are told of them for a while.
func TestServersThatAreGone(t *testing.T) {
	c := newCloud(t)
	c.furnish()
	c.host("h1")
	var ids []string
	for _, name := range []string{"a", "b", "stays"} {
		id := c.boot("red", name, "user_data", "c2VjcmV0")
		c.wait("red", id, "status", "ACTIVE")
		ids = append(ids, id)
	}
	for _, id := range ids[:2] {
		if a := c.do("red", "DELETE", "/servers/"+id, nil); a.status != 204 {
			t.Fatalf("delete: %d", a.status)
		}
		c.gone("red", id)
	}
	for query, want := range map[string]string{
		"all_tenants=1&deleted=true": "b a", "all_tenants=1&status=deleted": "b a", "project_id=" + red + "&deleted=1": "b a", "project_id=" + blue + "&deleted=1": "",
		"deleted=true": "", "all_tenants=1&deleted=true&name=a": "a", "all_tenants=1&deleted=true&limit=1": "b", "all_tenants=1&deleted=true&marker=" + ids[1]: "a",
		"all_tenants=1&deleted=false": "stays",
	} {
		if got := strings.Join(names(c.rows("admin", "/servers/detail?"+query)), " "); got != want {
			t.Errorf("%s: %q, want %q", query, got, want)
		}
	}
	if got := names(c.rows("red", "/servers?deleted=true")); len(got) != 1 || got[0] != "stays" {
		t.Errorf("a tenant lists %v", got)
	}
	c.refused(403, "forbidden", "red", "GET", "/servers?status=deleted", nil)
	for _, s := range c.rows("admin", "/servers/detail?all_tenants=1&deleted=true", "2.96") {
		if s["status"] != "DELETED" || s["OS-EXT-STS:vm_state"] != "deleted" || s["OS-SRV-USG:terminated_at"] == nil || s["OS-EXT-SRV-ATTR:user_data"] != nil {
			t.Errorf("it is told of as %v", s)
		}
	}
	c.refused(404, "itemNotFound", "admin", "GET", "/servers/"+ids[0], nil)
}

// TestCrashDump: the guest is interrupted once, and what became of it is told by the answer and by the action.
func TestCrashDump(t *testing.T) {
	c := newCloud(t)
	c.furnish()
	h := c.host("h1")
	id := c.boot("red", "s")
	c.wait("red", id, "status", "ACTIVE")
	path := "/servers/" + id + "/action"
	console := func() string {
		out, _ := c.do("red", "POST", path, object{"os-getConsoleOutput": object{}}).body["output"].(string)
		return out
	}
	result := func(want string) {
		t.Helper()
		a := c.rows("admin", "/servers/"+id+"/os-instance-actions")[0]
		ev := c.must(200, "admin", "GET", "/servers/"+id+"/os-instance-actions/"+a["request_id"].(string), nil)["events"].([]any)
		if a["action"] != "trigger_crash_dump" || len(ev) != 1 || ev[0].(object)["event"] != "compute_trigger_crash_dump" || ev[0].(object)["result"] != want {
			t.Errorf("the action %v has the events %v, want %s", a, ev, want)
		}
	}
	c.must(202, "red", "POST", path, object{"trigger_crash_dump": nil}, "2.17")
	if n := strings.Count(console(), "interrupted"); n != 1 {
		t.Errorf("interrupted %d times", n)
	}
	result("Success")
	if s := c.wait("red", id, "status", "ACTIVE"); s["OS-EXT-STS:task_state"] != nil {
		t.Errorf("%v", s)
	}
	c.must(202, "red", "POST", path, object{"os-stop": nil})
	c.wait("red", id, "status", "SHUTOFF")
	if text := c.refused(409, "conflictingRequest", "red", "POST", path, object{"trigger_crash_dump": nil}, "2.17"); text != "Cannot 'trigger_crash_dump' instance "+id+" while it is in vm_state stopped" {
		t.Error(text)
	}
	// One in error may be asked; this one is off.
	c.must(202, "admin", "POST", path, object{"os-resetState": object{"state": "error"}})
	if text := c.refused(409, "conflictingRequest", "red", "POST", path, object{"trigger_crash_dump": nil}, "2.17"); !strings.Contains(text, "is not running") {
		t.Error(text)
	}
	result("Error")
	h.Stop()
	c.hosts.mu.Lock()
	delete(c.hosts.by, h.ID())
	c.hosts.mu.Unlock()
	if text := c.refused(409, "conflictingRequest", "red", "POST", path, object{"trigger_crash_dump": nil}, "2.17"); !strings.Contains(text, "not connected") {
		t.Error(text)
	}
	c.must(202, "red", "POST", path, object{"lock": nil})
	c.refused(409, "conflictingRequest", "red", "POST", path, object{"trigger_crash_dump": nil}, "2.17")
}
