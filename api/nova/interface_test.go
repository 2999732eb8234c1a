package nova_test

import (
	"testing"

	"yakumo/model"
	"yakumo/store"
)

func TestInterfacesComeAndGo(t *testing.T) {
	c := newCloud(t)
	c.furnish()
	h := c.host("h1")
	second := c.net("red", "second", "10.1.0.0/24")
	foreign := c.net("blue", "foreign", "10.2.0.0/24")
	id := c.must(202, "red", "POST", "/servers", object{"server": object{"name": "s", "imageRef": c.image, "flavorRef": "1", "networks": []object{{"uuid": c.network, "tag": "front"}}}}, "2.42")["id"].(string)
	if a := c.do("red", "POST", "/servers", object{"server": object{"name": "x", "imageRef": c.image, "flavorRef": "1", "networks": []object{{"uuid": c.network, "tag": "front"}}}}, "2.37"); a.status != 400 {
		t.Errorf("a tag in 2.37: %d", a.status)
	}
	c.wait("red", id, "status", "ACTIVE")
	path := "/servers/" + id + "/os-interface"
	port := func(token, network string) string {
		a := c.at("/network", token, "POST", "/v2.0/ports", object{"port": object{"network_id": network}})
		return a.body["port"].(object)["id"].(string)
	}
	free := port("red", second)
	used := c.rows("red", path)[0]["port_id"].(string)
	for body, want := range map[*object]struct {
		status int
		member string
	}{
		{"port_id": free, "net_id": second}:                 {400, "badRequest"},
		{"fixed_ips": []object{{"ip_address": "10.1.0.5"}}}: {400, "badRequest"},
		{}:                                 {400, "badRequest"}, // two networks
		{"port_id": model.NewID()}:         {404, "itemNotFound"},
		{"port_id": port("blue", foreign)}: {404, "itemNotFound"},
		{"net_id": model.NewID()}:          {404, "itemNotFound"},
		{"net_id": foreign}:                {404, "itemNotFound"},
		{"port_id": used}:                  {409, "conflictingRequest"},
		{"net_id": second, "fixed_ips": []object{{"ip_address": "10.9.0.5"}}}: {400, "badRequest"},
		{"net_id": second, "x": 1}:     {400, "badRequest"},
		{"net_id": second, "tag": "t"}: {400, "badRequest"}, // before 2.49
		{"net_id": second, "fixed_ips": []object{{"ip_address": "10.1.0.5"}, {"x": "y"}}}: {400, "badRequest"},
	} {
		c.refused(want.status, want.member, "red", "POST", path, object{"interfaceAttachment": *body}, "2.48")
	}
	h.Hold(true)
	got := c.must(200, "red", "POST", path, object{"interfaceAttachment": object{"port_id": free, "tag": "back"}}, "2.70")
	if got["port_id"] != free || got["net_id"] != second || got["tag"] != "back" || got["port_state"] != "DOWN" {
		t.Errorf("attached: %v", got)
	}
	made := c.must(200, "red", "POST", path, object{"interfaceAttachment": object{"net_id": second, "fixed_ips": []object{{"ip_address": "10.1.0.77"}}}}, "2.49")
	ip := made["fixed_ips"].([]any)[0].(object)["ip_address"]
	if ip != "10.1.0.77" || made["tag"] != nil {
		t.Errorf("made: %v", made)
	}
	c.refused(409, "conflictingRequest", "red", "POST", path, object{"interfaceAttachment": object{"net_id": second, "fixed_ips": []object{{"ip_address": "10.1.0.77"}}}})
	row := func() *model.Server { s, _ := store.Servers.Get(c.store.Snapshot(), id); return s }
	if s := row(); len(s.Ports) != 3 || len(s.Plugging) != 2 || s.Status.Task != "" || s.PortTags[used] != "front" || s.PortTags[free] != "back" {
		t.Errorf("the row: %+v", s)
	}
	// On its way in, and wanted out again.
	h.Hold(false)
	settled := func() {
		t.Helper()
		c.eventually(func() bool { return len(row().Plugging) == 0 }, func() string { return "interfaces are under way for ever" })
	}
	settled()
	c.eventually(func() bool { return len(c.rows("red", path)) == 3 && c.rows("red", path)[1]["port_state"] == "ACTIVE" }, func() string { return "no third interface" })
	h.Hold(true)
	for _, p := range []string{free, made["port_id"].(string)} {
		if a := c.do("red", "DELETE", path+"/"+p, nil); a.status != 202 {
			t.Errorf("detach: %d %s", a.status, a.raw)
		}
		c.refused(404, "itemNotFound", "red", "DELETE", path+"/"+p, nil)
		// The host has not said that the guest lost it.
		if p, ok := store.Ports.Get(c.store.Snapshot(), p); !ok || p.DeviceID != id || p.Host == "" {
			t.Errorf("the port was released too early: %+v", p)
		}
	}
	c.refused(404, "itemNotFound", "red", "DELETE", path+"/"+model.NewID(), nil)
	h.Hold(false)
	settled()
	if p, ok := store.Ports.Get(c.store.Snapshot(), free); !ok || p.DeviceID != "" || p.Host != "" {
		t.Errorf("the port that was there before: %+v", p)
	}
	if _, ok := store.Ports.Get(c.store.Snapshot(), made["port_id"].(string)); ok {
		t.Error("the port that was made for the server stays")
	}
	var names []string
	for _, a := range c.rows("red", "/servers/"+id+"/os-instance-actions", "2.21") {
		names = append(names, a["action"].(string))
		ev := c.must(200, "red", "GET", "/servers/"+id+"/os-instance-actions/"+a["request_id"].(string), nil)["events"].([]any)
		if a["action"] != "create" && (len(ev) != 1 || ev[0].(object)["event"] != "compute_"+a["action"].(string) || ev[0].(object)["result"] != "Success") {
			t.Errorf("%s: %v", a["action"], ev)
		}
	}
	if len(names) != 5 || names[0] != "detach_interface" || names[2] != "attach_interface" {
		t.Errorf("actions: %v", names)
	}
	// Off it is the guest's next start that has it; elsewhere it is refused.
	c.must(202, "red", "POST", "/servers/"+id+"/action", object{"os-stop": nil})
	c.wait("red", id, "status", "SHUTOFF")
	c.must(200, "admin", "POST", path, object{"interfaceAttachment": object{"net_id": second}})
	settled()
	if p := c.rows("red", path)[1]; p["net_id"] != second {
		t.Errorf("attached by an administrator: %v", p)
	}
	c.must(202, "red", "POST", "/servers/"+id+"/action", object{"os-start": nil})
	c.wait("red", id, "status", "ACTIVE")
	c.must(202, "red", "POST", "/servers/"+id+"/action", object{"suspend": nil})
	c.wait("red", id, "status", "SUSPENDED")
	if text := c.refused(409, "conflictingRequest", "red", "DELETE", path+"/"+used, nil); text != "Cannot 'detach_interface' instance "+id+" while it is in vm_state suspended" {
		t.Errorf("suspended: %s", text)
	}
}

func TestOlderAddressActions(t *testing.T) {
	c := newCloud(t)
	c.furnish()
	c.host("h1")
	id := c.boot("red", "s")
	c.wait("red", id, "status", "ACTIVE")
	path := "/servers/" + id + "/action"
	fixed := func() []any { return c.rows("red", "/servers/"+id+"/os-interface")[0]["fixed_ips"].([]any) }
	c.must(202, "red", "POST", path, object{"addFixedIp": object{"networkId": c.network}}, "2.43")
	if len(fixed()) != 2 {
		t.Fatalf("addresses: %v", fixed())
	}
	c.must(202, "red", "POST", path, object{"removeFixedIp": object{"address": fixed()[0].(object)["ip_address"]}}, "2.43")
	if len(fixed()) != 1 {
		t.Errorf("addresses: %v", fixed())
	}
	c.refused(400, "badRequest", "red", "POST", path, object{"addFixedIp": object{"networkId": model.NewID()}}, "2.43")
	c.refused(400, "badRequest", "red", "POST", path, object{"removeFixedIp": object{"address": "10.9.9.9"}}, "2.43")
	c.refused(404, "itemNotFound", "red", "POST", path, object{"addFloatingIp": object{"address": "192.0.2.9"}}, "2.43")
	c.refused(404, "itemNotFound", "red", "POST", path, object{"removeFloatingIp": object{"address": "192.0.2.9"}}, "2.43")
}
