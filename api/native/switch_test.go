package native_test

import (
	"net/http"
	"testing"
)

func TestSwitches(t *testing.T) {
	c := newCloud(t)
	c.host("h1", "a-host")
	const good = `{"name":"tor-1","ovsdb":"tcp:192.0.2.9:6640","openflow":"ssl:tor:6653","tunnel_ip":"192.0.2.9"}`
	code, out := c.call("admin", "POST", "/yakumo/v1/switches", good)
	if sw, _ := out["switch"].(map[string]any); code != http.StatusCreated || sw["bridge"] != "br-int" || sw["datapath"] != "system" || sw["up"] != false || sw["tunnel_ip"] != "192.0.2.9" {
		t.Fatalf("create gives %d %v", code, out)
	}
	for body, want := range map[string]int{
		good: http.StatusConflict,
		`{"name":"a-host","ovsdb":"tcp:h:1","openflow":"tcp:h:2","tunnel_ip":"192.0.2.9"}`:                        http.StatusConflict,
		`{"name":"a b","ovsdb":"tcp:h:1","openflow":"tcp:h:2","tunnel_ip":"192.0.2.9"}`:                           http.StatusBadRequest,
		`{"name":"x","ovsdb":"unix:/run/db.sock","openflow":"tcp:h:2","tunnel_ip":"192.0.2.9"}`:                   http.StatusBadRequest,
		`{"name":"x","ovsdb":"tcp:h:0","openflow":"tcp:h:2","tunnel_ip":"192.0.2.9"}`:                             http.StatusBadRequest,
		`{"name":"x","ovsdb":"tcp:h:1","openflow":"tcp:h","tunnel_ip":"192.0.2.9"}`:                               http.StatusBadRequest,
		`{"name":"x","ovsdb":"tcp:h:1","openflow":"tcp:h:70000","tunnel_ip":"192.0.2.9"}`:                         http.StatusBadRequest,
		`{"name":"x","ovsdb":"tcp:h:1","openflow":"tcp:h:2","tunnel_ip":"fd00::1"}`:                               http.StatusBadRequest,
		`{"name":"x","ovsdb":"tcp:h:1","openflow":"tcp:h:2","tunnel_ip":"192.0.2.9","bridge":"a/b"}`:              http.StatusBadRequest,
		`{"name":"x","ovsdb":"tcp:h:1","openflow":"tcp:h:2","tunnel_ip":"192.0.2.9","datapath":"quantum"}`:        http.StatusBadRequest,
		`{"name":"x","ovsdb":"tcp:h:1","openflow":"tcp:h:2","tunnel_ip":"192.0.2.9","bridge":"abcdefghijklmnop"}`: http.StatusBadRequest,
		// Two drivers of one switch, or two hosts of one address.
		`{"name":"x","ovsdb":"tcp:192.0.2.9:6640","openflow":"tcp:h:2","tunnel_ip":"192.0.2.10"}`: http.StatusConflict,
		`{"name":"x","ovsdb":"tcp:h:1","openflow":"ssl:tor:6653","tunnel_ip":"192.0.2.10"}`:       http.StatusConflict,
		`{"name":"x","ovsdb":"tcp:h:1","openflow":"tcp:h:2","tunnel_ip":"192.0.2.9"}`:             http.StatusConflict,
		`{"name":"x","ovsdb":"tcp:h:1","openflow":"tcp:h:2","tunnel_ip":"192.0.2.1"}`:             http.StatusConflict,
	} {
		if code, out := c.call("admin", "POST", "/yakumo/v1/switches", body); code != want {
			t.Errorf("%s gives %d, want %d: %v", body, code, want, out)
		}
	}
	for path, want := range map[string]int{"tor-1": 200, "a-host": 404, "none": 404} {
		if code, out := c.call("admin", "GET", "/yakumo/v1/switches/"+path, ""); code != want {
			t.Errorf("show %s gives %d, want %d: %v", path, code, want, out)
		}
	}
	if _, out := c.call("admin", "GET", "/yakumo/v1/switches", ""); len(out["switches"].([]any)) != 1 {
		t.Errorf("list gives %v", out)
	}
	if code, out := c.call("admin", "DELETE", "/yakumo/v1/switches/a-host", ""); code != 404 {
		t.Errorf("a host was removed as a switch: %d %v", code, out)
	}
	if code, out := c.call("admin", "DELETE", "/yakumo/v1/switches/tor-1", ""); code != 204 {
		t.Errorf("remove gives %d %v", code, out)
	}
	if _, out := c.call("admin", "GET", "/yakumo/v1/switches", ""); len(out["switches"].([]any)) != 0 {
		t.Errorf("list gives %v after the removal", out)
	}
}
