package nova_test

import (
	"net/url"
	"strings"
	"testing"
	"time"

	"yakumo/model"
	"yakumo/store"
)

func TestRemoteConsoles(t *testing.T) {
	c := newCloud(t)
	c.furnish()
	c.host("h1")
	id := c.boot("red", "mine")
	c.wait("red", id, "status", "ACTIVE")
	console := func(protocol, kind string) object {
		return object{"remote_console": object{"protocol": protocol, "type": kind}}
	}
	path := "/servers/" + id + "/remote-consoles"
	tokens := map[string]string{}
	for _, tc := range []struct{ protocol, kind, base string }{
		{"vnc", "novnc", "http://example.com/console/novnc"}, {"serial", "serial", "ws://example.com/console/serial"},
	} {
		got := c.must(200, "red", "POST", path, console(tc.protocol, tc.kind), "2.6")
		at, err := url.Parse(got["url"].(string))
		if err != nil || got["protocol"] != tc.protocol || got["type"] != tc.kind || len(got) != 3 {
			t.Errorf("%s: %v, %v", tc.protocol, got, err)
			continue
		}
		tokens[tc.protocol] = at.Query().Get("token")
		if base, _, _ := strings.Cut(at.String(), "?"); base != tc.base || len(tokens[tc.protocol]) != 36 {
			t.Errorf("the URL of %s is %s", tc.protocol, at)
		}
	}
	rows := 0
	for row := range store.ConsoleTokens.All(c.store.Snapshot()) {
		rows++
		if row.ServerID != id || row.ProjectID != red || row.Hash == tokens["vnc"] || row.Hash == tokens["serial"] || row.ExpiresAt.IsZero() {
			t.Errorf("the row of a token: %+v", row)
		}
	}
	if rows != 2 {
		t.Errorf("%d tokens are kept", rows)
	}
	auth := "/os-console-auth-tokens/" + tokens["vnc"]
	got := c.must(200, "admin", "GET", auth, nil, "2.31")
	if got["instance_uuid"] != id || got["host"] != "h1" {
		t.Errorf("the token: %v", got)
	}
	c.refused(404, "itemNotFound", "admin", "GET", "/os-console-auth-tokens/nothing", nil, "2.31")
	c.refused(403, "forbidden", "red", "GET", auth, nil, "2.31")
	if a := c.do("admin", "GET", auth, nil, "2.30"); a.status != 401 {
		t.Errorf("before 2.31: %d", a.status)
	}

	// The older form.
	for name, kind := range map[string]string{"os-getVNCConsole": "novnc", "os-getSerialConsole": "serial"} {
		got := c.must(200, "red", "POST", "/servers/"+id+"/action", object{name: object{"type": kind}})
		if got["type"] != kind || !strings.Contains(got["url"].(string), "/console/") || len(got) != 2 {
			t.Errorf("%s: %v", name, got)
		}
		c.refused(404, "itemNotFound", "red", "POST", "/servers/"+id+"/action", object{name: object{"type": kind}}, "2.6")
	}
	c.refused(404, "itemNotFound", "red", "POST", path, console("vnc", "novnc"), "2.5")

	// What there is not.
	text := func(status int, want, version string, path string, body any) {
		t.Helper()
		a := c.do("red", "POST", path, body, version)
		if a.status != status || !strings.Contains(string(a.raw), want) {
			t.Errorf("%v: %d %s, want %d %q", body, a.status, a.raw, status, want)
		}
	}
	text(400, "Unavailable console type spice-html5.", "2.6", path, console("spice", "spice-html5"))
	text(400, "Unavailable console type rdp-html5.", "2.6", path, console("rdp", "rdp-html5"))
	text(400, "Unavailable console type webmks.", "2.8", path, console("mks", "webmks"))
	text(400, "not one of", "2.6", path, console("mks", "webmks"))
	text(400, "Invalid console type xvpvnc", "2.6", path, console("vnc", "xvpvnc"))
	text(400, "Invalid console type serial", "2.6", path, console("vnc", "serial"))
	text(400, "not one of", "2.6", path, console("telnet", "serial"))
	text(400, "required", "2.6", path, object{"remote_console": object{"protocol": "vnc"}})
	action := "/servers/" + id + "/action"
	text(400, "Unavailable console type spice-html5.", "2.1", action, object{"os-getSPICEConsole": object{"type": "spice-html5"}})
	text(400, "Unavailable console type rdp-html5.", "2.1", action, object{"os-getRDPConsole": object{"type": "rdp-html5"}})
	text(400, "Invalid console type xvpvnc", "2.1", action, object{"os-getVNCConsole": object{"type": "xvpvnc"}})
	text(400, "not one of", "2.1", action, object{"os-getVNCConsole": object{"type": "serial"}})

	// Whose it is, and its state.
	c.refused(404, "itemNotFound", "blue", "POST", path, console("vnc", "novnc"), "2.6")
	c.refused(404, "itemNotFound", "blue", "POST", path, console("spice", "spice-html5"), "2.6")
	c.refused(403, "forbidden", "red-reader", "POST", path, console("vnc", "novnc"), "2.6")
	c.must(202, "red", "POST", action, object{"os-stop": nil})
	c.wait("red", id, "status", "SHUTOFF")
	text(409, "while it is in vm_state stopped", "2.6", path, console("serial", "serial"))
	// One that has no host yet.
	c.update(func(tx *store.Tx) error {
		old, _ := store.Servers.Get(tx, id)
		n := *old
		n.Meta.ID, n.Host, n.Ports, n.Status.Phase, n.Status.LaunchedAt = model.NewID(), "", nil, model.PhaseShelved, time.Time{}
		id = n.ID
		return store.Servers.Put(tx, &n)
	})
	text(409, "Instance not yet ready", "2.6", "/servers/"+id+"/remote-consoles", console("vnc", "novnc"))
}
