package nova_test

import (
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"testing"

	"yakumo/model"
	"yakumo/store"
)

const publicKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f me@here"

func keys(o object) []string {
	out := []string{}
	for k := range o {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

func TestServerComesAndGoes(t *testing.T) {
	c := newCloud(t)
	c.furnish()
	h := c.host("h1")
	c.must(200, "red", "POST", "/os-keypairs", object{"keypair": object{"name": "k", "public_key": publicKey}})
	data := base64.StdEncoding.EncodeToString([]byte("#!/bin/sh\n"))
	a := c.do("red", "POST", "/servers", object{"server": object{
		"name": " Web 1 ", "imageRef": c.image, "flavorRef": "2", "networks": []object{{"uuid": c.network, "fixed_ip": "10.0.0.77"}}, "key_name": "k",
		"user_data": data, "config_drive": true, "metadata": object{"a": "b"}, "accessIPv4": "192.0.2.7", "OS-DCF:diskConfig": "AUTO",
		"block_device_mapping_v2": []object{{"boot_index": 0, "uuid": c.image, "source_type": "image", "destination_type": "local", "delete_on_termination": true}},
	}})
	made, _ := a.body["server"].(object)
	if a.status != 202 || !slices.Equal(keys(made), []string{"OS-DCF:diskConfig", "adminPass", "id", "links", "security_groups"}) || a.header.Get("X-Compute-Request-Id") == "" {
		t.Fatalf("created: %d %s %v", a.status, a.raw, a.header)
	}
	id := made["id"].(string)
	if loc := a.header.Get("Location"); !strings.HasSuffix(loc, "/compute/v2.1/servers/"+id) {
		t.Errorf("location %q", loc)
	}
	s := c.wait("red", id, "status", "ACTIVE")
	want := []string{"OS-DCF:diskConfig", "OS-EXT-AZ:availability_zone", "OS-EXT-STS:power_state", "OS-EXT-STS:task_state", "OS-EXT-STS:vm_state",
		"OS-SRV-USG:launched_at", "OS-SRV-USG:terminated_at", "accessIPv4", "accessIPv6", "addresses", "config_drive", "created", "flavor", "hostId", "id", "image",
		"key_name", "links", "metadata", "name", "os-extended-volumes:volumes_attached", "progress", "security_groups", "status", "tenant_id", "updated", "user_id"}
	if got := keys(s); !slices.Equal(got, want) {
		t.Errorf("2.1 shows\n%v, want\n%v", got, want)
	}
	for k, v := range map[string]any{"name": "Web 1", "key_name": "k", "config_drive": "True", "accessIPv4": "192.0.2.7", "OS-DCF:diskConfig": "AUTO", "tenant_id": red,
		"user_id": "u1", "OS-EXT-STS:vm_state": "active", "OS-EXT-STS:power_state": 1.0, "OS-EXT-STS:task_state": nil, "OS-EXT-AZ:availability_zone": "nova"} {
		if s[k] != v {
			t.Errorf("%s is %v, want %v", k, s[k], v)
		}
	}
	addr := s["addresses"].(object)["wire"].([]any)[0].(object)
	if addr["addr"] != "10.0.0.77" || addr["version"] != 4.0 || addr["OS-EXT-IPS:type"] != "fixed" || len(addr["OS-EXT-IPS-MAC:mac_addr"].(string)) != 17 {
		t.Errorf("address %v", addr)
	}
	row, _ := store.Servers.Get(c.store.Snapshot(), id)
	if row.UserData != data || row.PublicKey != publicKey || row.HostName != "web-1" || row.Flavor.ID != "2" || row.Image.HashAlgo != "sha512" {
		t.Errorf("the row: %+v", row)
	}
	for version, extra := range map[string][]string{
		"2.9": {"locked"}, "2.19": {"description"}, "2.26": {"tags"}, "2.63": {"trusted_image_certificates"}, "2.71": {"server_groups"},
		"2.73": {"locked_reason"}, "2.90": {"OS-EXT-SRV-ATTR:hostname"}, "2.96": {"pinned_availability_zone"},
	} {
		got := c.must(200, "red", "GET", "/servers/"+id, nil, version)
		for _, k := range extra {
			if _, ok := got[k]; !ok {
				t.Errorf("%s does not show %s", version, k)
			}
		}
	}
	if f := c.must(200, "red", "GET", "/servers/"+id, nil, "2.46")["flavor"].(object); f["id"] != "2" || len(f) != 2 {
		t.Errorf("flavor before 2.47: %v", f)
	}
	if f := c.must(200, "red", "GET", "/servers/"+id, nil, "2.47")["flavor"].(object); f["original_name"] != "small" || f["ram"] != 512.0 || f["extra_specs"].(object)["hw:a"] != "b" {
		t.Errorf("flavor since 2.47: %v", f)
	}
	if n := len(h.Guests()); n != 1 {
		t.Errorf("the host has %d guests", n)
	}
	c.must(200, "red", "PUT", "/servers/"+id, object{"server": object{"name": "other", "accessIPv4": ""}})
	if s := c.must(200, "red", "GET", "/servers/"+id, nil); s["name"] != "other" || s["accessIPv4"] != "" {
		t.Errorf("updated: %v", s)
	}
	if a := c.do("red", "DELETE", "/servers/"+id, nil); a.status != 204 {
		t.Fatalf("delete: %d %s", a.status, a.raw)
	}
	c.gone("red", id)
	if n := len(h.Guests()); n != 0 {
		t.Errorf("the host has %d guests", n)
	}
	for range store.Ports.All(c.store.Snapshot()) {
		t.Error("a port stays")
	}
	c.refused(404, "itemNotFound", "red", "DELETE", "/servers/"+id, nil)
	// What was done with it can be read for a while.
	if a := c.do("red", "GET", "/servers/"+id+"/os-instance-actions", nil); a.status != 404 {
		t.Errorf("2.1 shows actions of what is gone: %d", a.status)
	}
	if rows := c.rows("red", "/servers/"+id+"/os-instance-actions", "2.21"); len(rows) != 2 || rows[0]["action"] != "delete" || rows[1]["action"] != "create" {
		t.Errorf("actions of what is gone: %v", rows)
	}
	c.refused(404, "itemNotFound", "blue", "GET", "/servers/"+id+"/os-instance-actions", nil, "2.21")
}

func TestStatesAsNovaNamesThem(t *testing.T) {
	c := newCloud(t)
	c.furnish()
	h := c.host("h1")
	act := func(id string, body any) { t.Helper(); c.must(202, "red", "POST", "/servers/"+id+"/action", body) }
	state := func(id string, status, vm, task any, power float64) {
		t.Helper()
		var s object
		c.eventually(func() bool {
			s = c.must(200, "red", "GET", "/servers/"+id, nil)
			return s["status"] == status && s["OS-EXT-STS:vm_state"] == vm && s["OS-EXT-STS:task_state"] == task && s["OS-EXT-STS:power_state"] == power
		}, func() string { return fmt.Sprintf("want %v %v %v %v: %v", status, vm, task, power, s) })
	}
	h.Hold(true)
	id := c.boot("red", "s")
	state(id, "BUILD", "building", "spawning", 0)
	c.refused(409, "conflictingRequest", "red", "POST", "/servers/"+id+"/action", object{"os-getConsoleOutput": object{}})
	h.Hold(false)
	state(id, "ACTIVE", "active", nil, 1)
	for _, x := range []struct {
		body                     any
		status, vm, task         string
		afterStatus, afterVM     string
		afterPower, duringsPower float64
	}{
		{object{"os-stop": nil}, "ACTIVE", "active", "powering-off", "SHUTOFF", "stopped", 4, 1},
		{object{"os-start": nil}, "SHUTOFF", "stopped", "powering-on", "ACTIVE", "active", 1, 4},
		{object{"reboot": object{"type": "SOFT"}}, "REBOOT", "active", "rebooting", "ACTIVE", "active", 1, 1},
		{object{"reboot": object{"type": "Hard"}}, "HARD_REBOOT", "active", "rebooting_hard", "ACTIVE", "active", 1, 1},
	} {
		h.Hold(true)
		act(id, x.body)
		state(id, x.status, x.vm, x.task, x.duringsPower)
		h.Hold(false)
		state(id, x.afterStatus, x.afterVM, nil, x.afterPower)
	}
	if text := c.refused(409, "conflictingRequest", "red", "POST", "/servers/"+id+"/action", object{"os-start": nil}); text != "Cannot 'start' instance "+id+" while it is in vm_state active" {
		t.Errorf("wrong state: %s", text)
	}
	h.Hold(true)
	c.do("red", "DELETE", "/servers/"+id, nil)
	state(id, "ACTIVE", "active", "deleting", 1)
	if a := c.do("red", "DELETE", "/servers/"+id, nil); a.status != 204 {
		t.Errorf("deleted again: %d", a.status)
	}
	h.Hold(false)
	c.gone("red", id)
	// No host: the tenant reads kinds, an administrator names.
	id = c.boot("red", "big", "flavorRef", "2", "availability_zone", "nova")
	c.wait("red", id, "status", "ACTIVE")
	c.update(func(tx *store.Tx) error {
		_, err := c.compute.SetHost(tx, h.ID(), func(h *model.Host) { h.Disabled = true })
		return err
	})
	id = c.boot("red", "nowhere")
	f := c.wait("red", id, "status", "ERROR")["fault"].(object)
	if f["code"] != 500.0 || !strings.HasPrefix(f["message"].(string), "No valid host was found.") || f["details"] != nil || strings.Contains(f["message"].(string), "h1") {
		t.Errorf("a tenant reads %v", f)
	}
	if f := c.must(200, "admin", "GET", "/servers/"+id, nil)["fault"].(object); !strings.Contains(f["details"].(string), "h1: disabled") {
		t.Errorf("an administrator reads %v", f)
	}
	c.do("red", "DELETE", "/servers/"+id, nil)
	c.gone("red", id)
}

func TestConsoleAndLock(t *testing.T) {
	c := newCloud(t)
	c.furnish()
	h := c.host("h1")
	id := c.boot("red", "s")
	c.wait("red", id, "status", "ACTIVE")
	out := func(body any) any {
		t.Helper()
		return c.must(200, "red", "POST", "/servers/"+id+"/action", object{"os-getConsoleOutput": body})["output"]
	}
	if got := out(object{}); got != "boot 1 of s\nlogin:\n" {
		t.Errorf("all: %q", got)
	}
	for length, want := range map[any]string{nil: "boot 1 of s\nlogin:\n", 1: "login:\n", "1": "login:\n", 2: "boot 1 of s\nlogin:\n", -1: "boot 1 of s\nlogin:\n", 99: "boot 1 of s\nlogin:\n", 0: ""} {
		if got := out(object{"length": length}); got != want {
			t.Errorf("length %v: %q, want %q", length, got, want)
		}
	}
	c.refused(400, "badRequest", "red", "POST", "/servers/"+id+"/action", object{"os-getConsoleOutput": object{"length": "x"}})
	c.refused(400, "badRequest", "red", "POST", "/servers/"+id+"/action", object{"os-getConsoleOutput": object{"length": -2}})
	c.hosts.mu.Lock()
	delete(c.hosts.by, h.ID())
	c.hosts.mu.Unlock()
	c.refused(503, "serviceUnavailable", "red", "POST", "/servers/"+id+"/action", object{"os-getConsoleOutput": object{}})

	c.must(202, "red", "POST", "/servers/"+id+"/action", object{"lock": object{"locked_reason": "because"}}, "2.73")
	s := c.must(200, "red", "GET", "/servers/"+id, nil, "2.73")
	if s["locked"] != true || s["locked_reason"] != "because" {
		t.Errorf("locked: %v %v", s["locked"], s["locked_reason"])
	}
	for _, body := range []any{object{"os-stop": nil}, object{"reboot": object{"type": "HARD"}}} {
		if text := c.refused(409, "conflictingRequest", "red", "POST", "/servers/"+id+"/action", body); text != "Instance "+id+" is locked" {
			t.Errorf("locked: %s", text)
		}
	}
	c.refused(409, "conflictingRequest", "red", "DELETE", "/servers/"+id, nil)
	if rows := c.rows("red", "/servers?locked=true", "2.73"); len(rows) != 1 {
		t.Errorf("locked servers: %v", rows)
	}
	c.must(202, "red", "POST", "/servers/"+id+"/action", object{"unlock": nil})
	c.must(202, "admin", "POST", "/servers/"+id+"/action", object{"lock": nil})
	c.refused(403, "forbidden", "red", "POST", "/servers/"+id+"/action", object{"unlock": nil})
	c.must(202, "admin", "POST", "/servers/"+id+"/action", object{"os-stop": nil}) // whom no lock keeps
	c.must(202, "admin", "POST", "/servers/"+id+"/action", object{"unlock": nil})
	for _, body := range []any{object{"nonsense": nil}, object{}, object{"os-stop": nil, "os-start": nil}, "[]", "null", "1", `{"os-stop"`} {
		c.refused(400, "badRequest", "red", "POST", "/servers/"+id+"/action", body)
	}
}

func TestNetworksOfANewServer(t *testing.T) {
	c := newCloud(t)
	c.furnish()
	c.host("h1")
	create := func(nets any, opts ...string) answer {
		s := object{"name": "s", "imageRef": c.image, "flavorRef": "1"}
		if nets != nil {
			s["networks"] = nets
		}
		return c.do("red", "POST", "/servers", object{"server": s}, opts...)
	}
	addresses := func(a answer) int {
		t.Helper()
		if a.status != 202 {
			t.Fatalf("%d %s", a.status, a.raw)
		}
		id := a.body["server"].(object)["id"].(string)
		c.wait("red", id, "status", "ACTIVE")
		n := 0
		for _, l := range c.must(200, "red", "GET", "/servers/"+id+"/ips", nil) {
			if l, ok := l.([]any); ok {
				n += len(l)
			}
		}
		return n
	}
	if n := addresses(create(nil)); n != 1 {
		t.Errorf("no networks named: %d addresses", n)
	}
	if n := addresses(create([]object{})); n != 1 {
		t.Errorf("an empty list: %d addresses", n)
	}
	if n := addresses(create("auto", "2.37")); n != 1 {
		t.Errorf("auto: %d addresses", n)
	}
	if n := addresses(create("none", "2.37")); n != 0 {
		t.Errorf("none: %d addresses", n)
	}
	if n := addresses(create([]object{{"uuid": c.network}, {"uuid": c.network}})); n != 2 {
		t.Errorf("twice the same: %d addresses", n)
	}
	if a := create(nil, "2.37"); a.status != 400 || !strings.Contains(string(a.raw), "'networks' is a required property") {
		t.Errorf("without networks in 2.37: %d %s", a.status, a.raw)
	}
	if a := create("auto"); a.status != 400 {
		t.Errorf("auto in 2.1: %d", a.status)
	}
	second := c.net("red", "second", "10.9.0.0/24")
	if a := create(nil); a.status != 409 || !strings.Contains(string(a.raw), "Multiple possible networks found") {
		t.Errorf("two networks: %d %s", a.status, a.raw)
	}
	before := store.Ports.Count(c.store.Snapshot(), "project", red)
	p := c.at("/network", "red", "POST", "/v2.0/ports", object{"port": object{"network_id": second}}).body["port"].(object)["id"].(string)
	a := create([]object{{"port": p}, {"uuid": c.network}})
	id := a.body["server"].(object)["id"].(string)
	c.wait("red", id, "status", "ACTIVE")
	if rows := c.rows("red", "/servers/"+id+"/os-interface"); len(rows) != 2 || rows[0]["port_id"] != p || rows[0]["net_id"] != second {
		t.Errorf("interfaces: %v", rows)
	}
	if a := create([]object{{"port": p}}); a.status != 409 || !strings.Contains(string(a.raw), "is still in use") {
		t.Errorf("a port in use: %d %s", a.status, a.raw)
	}
	foreign := c.net("blue", "theirs", "10.1.0.0/24")
	theirs := c.at("/network", "blue", "POST", "/v2.0/ports", object{"port": object{"network_id": foreign}}).body["port"].(object)["id"].(string)
	empty := c.at("/network", "red", "POST", "/v2.0/networks", object{"network": object{"name": "empty"}}).body["network"].(object)["id"].(string)
	for what, nets := range map[string]any{
		"a foreign network": []object{{"uuid": foreign}}, "a foreign port": []object{{"port": theirs}}, "no such network": []object{{"uuid": model.NewID()}},
		"no such port": []object{{"port": model.NewID()}}, "no subnet": []object{{"uuid": empty}}, "an address outside": []object{{"uuid": c.network, "fixed_ip": "192.0.2.1"}},
		"no uuid": []object{{"uuid": "x"}}, "neither": []object{{}}, "an address of a port": []object{{"port": p, "fixed_ip": "10.9.0.9"}}, "a number": 7, "unknown": []object{{"net": c.network}},
	} {
		if a := create(nets); a.status != 400 || a.body["badRequest"] == nil {
			t.Errorf("%s: %d %s", what, a.status, a.raw)
		}
	}
	if a := create([]object{{"uuid": c.network, "fixed_ip": "10.0.0.50"}}); a.status != 202 {
		t.Errorf("a fixed address: %d %s", a.status, a.raw)
	}
	if a := create([]object{{"uuid": c.network, "fixed_ip": "10.0.0.50"}}); a.status != 400 || !strings.Contains(string(a.raw), "already in use") {
		t.Errorf("an address that is taken: %d %s", a.status, a.raw)
	}
	if after := store.Ports.Count(c.store.Snapshot(), "project", red); after != before+3 {
		t.Errorf("refusals left ports: %d, want %d", after, before+3)
	}
	// A port that was there before stays when its server goes.
	c.do("red", "DELETE", "/servers/"+id, nil)
	c.gone("red", id)
	if p, ok := store.Ports.Get(c.store.Snapshot(), p); !ok || p.DeviceID != "" || p.Host != "" {
		t.Errorf("a port that was there before: %+v", p)
	}
}

func TestSecurityGroupsOfAServer(t *testing.T) {
	c := newCloud(t)
	c.furnish()
	c.host("h1")
	group := func(token, name string) string {
		a := c.at("/network", token, "POST", "/v2.0/security-groups", object{"security_group": object{"name": name}})
		return a.body["security_group"].(object)["id"].(string)
	}
	web, other := group("red", "web"), group("red", "other")
	group("red", "twin")
	group("red", "twin")
	theirs := group("blue", "theirs")
	id := c.boot("red", "s", "security_groups", []object{{"name": "web"}, {"name": other}, {"name": "web"}})
	c.wait("red", id, "status", "ACTIVE")
	names := func() []string {
		out := []string{}
		for _, g := range c.rows("red", "/servers/"+id+"/os-security-groups") {
			out = append(out, g["name"].(string))
		}
		slices.Sort(out)
		return out
	}
	if got := names(); !slices.Equal(got, []string{"other", "web"}) {
		t.Errorf("groups %v", got)
	}
	act := func(status int, name string, body any) {
		t.Helper()
		if a := c.do("red", "POST", "/servers/"+id+"/action", object{name: body}); a.status != status {
			t.Errorf("%s %v: %d %s, want %d", name, body, a.status, a.raw, status)
		}
	}
	act(202, "addSecurityGroup", object{"name": "default"})
	act(202, "addSecurityGroup", object{"name": "default"})
	act(202, "removeSecurityGroup", object{"name": web})
	act(404, "removeSecurityGroup", object{"name": "web"})
	act(404, "addSecurityGroup", object{"name": "none"})
	act(404, "addSecurityGroup", object{"name": theirs})
	act(409, "addSecurityGroup", object{"name": "twin"})
	act(400, "addSecurityGroup", object{})
	if got := names(); !slices.Equal(got, []string{"default", "other"}) {
		t.Errorf("groups %v", got)
	}
	for name, status := range map[string]int{"none": 400, theirs: 400, "theirs": 400, "twin": 409} {
		a := c.do("red", "POST", "/servers", object{"server": object{"name": "x", "imageRef": c.image, "flavorRef": "1", "security_groups": []object{{"name": name}}}})
		if a.status != status {
			t.Errorf("group %s: %d %s", name, a.status, a.raw)
		}
	}
	if rows := c.rows("red", "/os-security-groups", "2.35"); len(rows) != 5 {
		t.Errorf("%d groups for older clients", len(rows))
	}
	c.refused(404, "itemNotFound", "red", "GET", "/os-security-groups", nil, "2.36")
}

func TestManyAtOnce(t *testing.T) {
	c := newCloud(t)
	c.furnish()
	c.host("h1")
	body := func(least, most int, more object) object {
		s := object{"name": "m", "imageRef": c.image, "flavorRef": "1", "networks": []object{{"uuid": c.network}}, "min_count": least, "max_count": most}
		for k, v := range more {
			s[k] = v
		}
		return object{"server": s}
	}
	r := c.must(202, "red", "POST", "/servers", body(2, 3, object{"return_reservation_id": true}))
	rows := c.rows("red", "/servers?reservation_id="+r["reservation_id"].(string))
	names := []string{}
	for _, s := range rows {
		names = append(names, s["name"].(string))
		c.wait("red", s["id"].(string), "status", "ACTIVE")
	}
	slices.Sort(names)
	if !slices.Equal(names, []string{"m-1", "m-2", "m-3"}) {
		t.Errorf("made %v", names)
	}
	// The quota is 10 instances: of 9 as many as there is room for, but at least 5.
	c.must(202, "red", "POST", "/servers", body(5, 9, nil))
	if n := len(c.rows("red", "/servers")); n != 10 {
		t.Errorf("%d servers, want 10", n)
	}
	if text := c.refused(403, "forbidden", "red", "POST", "/servers", body(1, 1, nil)); text != "Quota exceeded for instances: Requested 1, but already used 10 of 10 instances" {
		t.Errorf("over quota: %s", text)
	}
	c.must(200, "admin", "PUT", "/os-quota-sets/"+red, object{"quota_set": object{"instances": -1, "cores": "-1", "ram": -1}})
	c.must(202, "red", "POST", "/servers", body(40, 40, nil)) // in several transactions
	if n := len(c.rows("red", "/servers")); n != 50 {
		t.Errorf("%d servers, want 50", n)
	}
	many := []object{}
	for range 12 {
		many = append(many, object{"uuid": c.network})
	}
	c.must(202, "red", "POST", "/servers", body(9, 9, object{"networks": many}))
	if n := len(c.rows("red", "/servers")); n != 59 {
		t.Errorf("%d servers, want 59", n)
	}
	for _, b := range []object{body(0, 1, nil), body(3, 2, nil), body(1, 100000, nil), body(1, 2, object{"networks": []object{{"uuid": c.network, "fixed_ip": "10.0.0.99"}}}),
		body(1, 1, object{"max_count": "x"})} {
		c.refused(400, "badRequest", "red", "POST", "/servers", b)
	}
}

func TestAdministratorsChooseHosts(t *testing.T) {
	c := newCloud(t)
	c.furnish()
	c.host("h1")
	east := c.host("h2", func(h *model.Host) { h.Zone = "east" })
	id := c.boot("red", "s", "availability_zone", "east")
	if s := c.wait("red", id, "status", "ACTIVE"); s["OS-EXT-AZ:availability_zone"] != "east" || len(east.Guests()) != 1 {
		t.Errorf("placed: %v", s)
	}
	if got := c.must(200, "red", "GET", "/servers/"+id, nil, "2.96")["pinned_availability_zone"]; got != "east" {
		t.Errorf("pinned to %v", got)
	}
	base := func(more ...any) object {
		s := object{"name": "x", "imageRef": c.image, "flavorRef": "1", "networks": "none"}
		for i := 0; i < len(more); i += 2 {
			s[more[i].(string)] = more[i+1]
		}
		return object{"server": s}
	}
	for _, b := range []object{base("availability_zone", "east:h2"), base("availability_zone", "nova:h2:h2"), base("host", "h2"), base("hypervisor_hostname", "h2")} {
		c.refused(403, "forbidden", "red", "POST", "/servers", b, "2.74")
	}
	made := c.must(202, "admin", "POST", "/servers", base("host", "h2"), "2.74")["id"].(string)
	if s := c.wait("admin", made, "status", "ACTIVE"); s["OS-EXT-SRV-ATTR:host"] != "h2" {
		t.Errorf("on %v", s["OS-EXT-SRV-ATTR:host"])
	}
	for _, b := range []object{base("host", "none"), base("availability_zone", "west"), base("availability_zone", "east:"), base("host", "h1", "hypervisor_hostname", "h2")} {
		c.refused(400, "badRequest", "admin", "POST", "/servers", b, "2.74")
	}
	zones := c.rows("red", "/os-availability-zone")
	if len(zones) != 2 || zones[0]["zoneName"] != "east" || zones[0]["hosts"] != nil {
		t.Errorf("zones %v", zones)
	}
	if detail := c.rows("admin", "/os-availability-zone/detail"); detail[1]["hosts"].(object)["h1"] == nil {
		t.Errorf("zones %v", detail)
	}
}

func TestBodiesAreChecked(t *testing.T) {
	c := newCloud(t)
	c.furnish()
	ok := func() object { return object{"name": "s", "imageRef": c.image, "flavorRef": "1"} }
	with := func(k string, v any) object { s := ok(); s[k] = v; return object{"server": s} }
	without := func(k string) object { s := ok(); delete(s, k); return object{"server": s} }
	long := strings.Repeat("x", 256)
	for _, x := range []struct {
		body    any
		text    string // a part of the message
		version string
	}{
		{with("x", 1), "Additional properties are not allowed ('x' was unexpected)", "2.1"},
		{with("description", "d"), "Additional properties are not allowed ('description' was unexpected)", "2.18"},
		{with("tags", []string{"a"}), "('tags' was unexpected)", "2.51"},
		{object{"server": ok(), "y": 1}, "Additional properties are not allowed ('y' was unexpected)", "2.1"},
		{object{}, "'server' is a required property", "2.1"},
		{without("name"), "'name' is a required property", "2.1"},
		{without("flavorRef"), "'flavorRef' is a required property", "2.1"},
		{without("imageRef"), "imageRef", "2.1"},
		{with("name", 5), "5 is not of type 'string'", "2.1"},
		{with("name", ""), "'' is too short", "2.1"},
		{with("name", "  "), "printable", "2.1"},
		{with("name", "a\nb"), "printable", "2.1"},
		{with("name", long), "is too long", "2.1"},
		{with("metadata", object{"k": 1}), "is not of type 'string'", "2.1"},
		{with("metadata", object{"k": long}), "is too long", "2.1"},
		{with("metadata", object{long: "v"}), "Additional properties are not allowed", "2.1"},
		{with("metadata", object{"a/b": "v"}), "Additional properties are not allowed", "2.1"},
		{with("metadata", []string{}), "is not of type 'object'", "2.1"},
		{with("user_data", "***"), "is not a 'base64'", "2.1"},
		{with("user_data", strings.Repeat("A", 65536)), "is too long", "2.1"},
		{with("config_drive", "maybe"), "is not one of [True", "2.1"},
		{with("accessIPv4", "1.2.3"), "is not a 'ipv4'", "2.1"},
		{with("accessIPv6", "1.2.3.4"), "is not a 'ipv6'", "2.1"},
		{with("flavorRef", "77"), "Flavor 77 could not be found.", "2.1"},
		{with("flavorRef", "9"), "Flavor 9 could not be found.", "2.1"}, // not public
		{with("imageRef", model.NewID()), "could not be found", "2.1"},
		{with("imageRef", "x"), "Invalid imageRef provided.", "2.1"},
		{with("key_name", "none"), "Invalid key_name provided.", "2.1"},
		{with("OS-DCF:diskConfig", "X"), "is not one of ['AUTO', 'MANUAL']", "2.1"},
		{with("adminPass", 7), "is not of type 'string'", "2.1"},
		{with("personality", []object{{"path": "/a", "contents": "b"}}), "not offered", "2.1"},
		{with("personality", []any{}), "('personality' was unexpected)", "2.57"},
		{with("security_groups", []string{"default"}), "is not of type 'object'", "2.1"},
		{with("tags", []string{"a,b"}), "does not match", "2.52"},
		{with("tags", []string{strings.Repeat("x", 61)}), "is too long", "2.52"},
		{with("hostname", "a b"), "does not match", "2.90"},
		{with("hostname", "a.b"), "does not match", "2.90"},
		{object{"server": ok(), "os:scheduler_hints": object{"group": model.NewID()}}, "could not be found", "2.1"},
		{with("block_device_mapping_v2", []object{{"source_type": "volume", "destination_type": "volume", "boot_index": 0, "uuid": model.NewID()}}), "Boot sequence", "2.1"},
		{with("block_device_mapping_v2", []object{{"source_type": "image", "destination_type": "volume", "boot_index": 0, "uuid": c.image}}), "need to have a non-zero size", "2.1"},
		{with("block_device_mapping_v2", []object{{"source_type": "nonsense"}}), "is not one of", "2.1"},
		{with("block_device_mapping", []object{{"device_name": "vda"}}), "Unrecognized legacy format", "2.1"},
		{"", "Malformed request body", "2.1"},
		{"{", "Malformed request body", "2.1"},
		{`{"server": {}} x`, "Malformed request body", "2.1"},
		{"[]", "is not of type 'object'", "2.1"},
		{"null", "is not of type 'object'", "2.1"},
		{`{"server": null}`, "is not of type 'object'", "2.1"},
	} {
		body := x.body
		if o, isObject := body.(object); isObject {
			if s, isServer := o["server"].(object); isServer && x.version >= "2.37" {
				s["networks"] = "none"
			}
		}
		if text := c.refused(400, "badRequest", "red", "POST", "/servers", body, x.version); !strings.Contains(text, x.text) {
			t.Errorf("%v in %s: %q, want %q", x.body, x.version, text, x.text)
		}
	}
	big := `{"server": {"name": "` + strings.Repeat("x", 2<<20) + `"}}`
	if a := c.do("red", "POST", "/servers", big); a.status != 413 || a.body["overLimit"] == nil {
		t.Errorf("a huge body: %d %.100s", a.status, a.raw)
	}
	if a := c.do("red", "POST", "/servers", with("a", 1), "Content-Type:text/xml"); a.status != 415 {
		t.Errorf("XML: %d", a.status)
	}
	if n := len(c.rows("red", "/servers")); n != 0 {
		t.Errorf("refusals made %d servers", n)
	}
	// An image that is too large for the flavor, or not ready.
	c.update(func(tx *store.Tx) error {
		img, _ := store.Images.Get(tx, c.image)
		large, queued, ram := *img, *img, *img
		large.ID, large.VirtualSize = model.NewID(), 2<<30
		queued.ID, queued.Status = model.NewID(), model.ImageQueued
		ram.ID, ram.MinRAMMiB = model.NewID(), 100000
		for _, i := range []*model.Image{&large, &queued, &ram} {
			if err := store.Images.Put(tx, i); err != nil {
				return err
			}
		}
		return nil
	})
	refused := 0
	for i := range store.Images.All(c.store.Snapshot()) {
		if i.ID != c.image {
			c.refused(400, "badRequest", "red", "POST", "/servers", with("imageRef", i.ID))
			refused++
		}
	}
	if refused != 3 {
		t.Errorf("%d images were tried", refused)
	}
}

func TestVersions(t *testing.T) {
	c := newCloud(t)
	for _, path := range []string{"/compute", "/compute/"} {
		a := c.at("", "", "GET", path, nil)
		v := a.body["versions"].([]any)[0].(object)
		if a.status != 200 || v["id"] != "v2.1" || v["version"] != "2.96" || v["min_version"] != "2.1" || v["status"] != "CURRENT" {
			t.Errorf("%s: %s", path, a.raw)
		}
	}
	for _, path := range []string{"/compute/v2.1", "/compute/v2.1/"} {
		if a := c.at("", "", "GET", path, nil); a.status != 200 || a.body["version"].(object)["id"] != "v2.1" {
			t.Errorf("%s: %s", path, a.raw)
		}
	}
	for asked, want := range map[string]string{"2.1": "2.1", "2.53": "2.53", "latest": "2.96"} {
		a := c.do("red", "GET", "/servers", nil, asked)
		if a.status != 200 || a.header.Get("OpenStack-API-Version") != "compute "+want || a.header.Get("X-OpenStack-Nova-API-Version") != want {
			t.Errorf("%s: %d %v", asked, a.status, a.header)
		}
	}
	if a := c.do("red", "GET", "/servers", nil, "X-OpenStack-Nova-API-Version:2.30"); a.header.Get("X-OpenStack-Nova-API-Version") != "2.30" {
		t.Errorf("the older header: %v", a.header)
	}
	if text := c.refused(406, "computeFault", "red", "GET", "/servers", nil, "2.97"); text != "Version 2.97 is not supported by the API. Minimum is 2.1 and maximum is 2.96." {
		t.Errorf("2.97: %s", text)
	}
	c.refused(400, "badRequest", "red", "GET", "/servers", nil, "x.y")
	c.refused(404, "itemNotFound", "red", "GET", "/nonsense", nil)
	c.refused(405, "badMethod", "red", "PATCH", "/servers", nil)
}
