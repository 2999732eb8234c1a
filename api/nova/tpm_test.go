package nova_test

import (
	"strings"
	"testing"

	"yakumo/model"
)

// TestTPM: servers with a TPM go to hosts that emulate such; what the TPM would not outlive is 409 before anything begins, what Nova would not take
// is 400, and a live move leads only to another such host.
func TestTPM(t *testing.T) {
	c := newCloud(t)
	c.furnish()
	able := func(h *model.Host) { h.Capacity.TPM = []string{"1.2", "2.0"} }
	c.host("plain")
	c.host("able", able)
	c.host("old", func(h *model.Host) { h.Capacity.TPM = []string{"1.2"} })
	type m = map[string]string
	id := c.boot("red", "sealed", "imageRef", c.firmwareImage(m{"hw_tpm_version": "2.0"}))
	c.wait("red", id, "status", "ACTIVE")
	if h := c.hostOf(id); h != "able" {
		t.Errorf("it is on %s", h)
	}
	for _, x := range []struct {
		who, what string
		body      any
	}{{"red", "shelve", nil}, {"red", "rescue", object{}}, {"red", "resize", object{"flavorRef": "2"}}, {"admin", "migrate", nil}} {
		text := c.refused(409, "conflictingRequest", x.who, "POST", "/servers/"+id+"/action", object{x.what: x.body})
		if want := "Operation '" + x.what + "' not supported for vTPM-enabled instance (" + id + ")."; text != want {
			t.Errorf("%s is refused with %q, want %q", x.what, text, want)
		}
	}
	for image, want := range map[string]string{
		c.firmwareImage(m{"hw_tpm_version": "3.0"}):                            "Invalid TPM version '3.0'. Allowed values: 1.2, 2.0.",
		c.firmwareImage(m{"hw_tpm_version": "1.2", "hw_tpm_model": "tpm-crb"}): "TPM model CRB is only valid with TPM version 2.0.",
	} {
		body := object{"server": object{"name": "x", "imageRef": image, "flavorRef": "1", "networks": []object{{"uuid": c.network}}}}
		if text := c.refused(400, "badRequest", "red", "POST", "/servers", body); text != want {
			t.Errorf("refused with %q, want %q", text, want)
		}
	}
	for _, x := range []struct{ key, value string }{{"hw:tpm_version", "3"}, {"hw:tpm_model", "none"}} {
		c.refused(400, "badRequest", "admin", "POST", "/flavors/2/os-extra_specs", object{"extra_specs": object{x.key: x.value}}, "2.86")
	}
	plain := c.boot("red", "plain")
	c.wait("red", plain, "status", "ACTIVE")
	if h := c.hostOf(plain); h == "able" {
		c.boot("red", "other")
	} else if text := c.refused(400, "badRequest", "red", "POST", "/servers/"+plain+"/action", object{"rebuild": object{"imageRef": c.firmwareImage(m{"hw_tpm_version": "2.0"})}}); !strings.Contains(text, "cannot start it: TPM 2.0: it emulates none for guests") {
		t.Errorf("a rebuild is refused with %q", text)
	}
	live := object{"host": nil, "block_migration": "auto"}
	c.act(202, "admin", id, "os-migrateLive", live, "2.30")
	c.wait("red", id, "OS-EXT-STS:task_state", nil)
	if h := c.hostOf(id); h != "able" {
		t.Errorf("it has moved to %s, which cannot run it", h)
	}
	c.host("second", able)
	c.act(202, "admin", id, "os-migrateLive", live, "2.30")
	c.wait("red", id, "OS-EXT-STS:task_state", nil)
	if h := c.hostOf(id); h != "second" {
		t.Errorf("it is on %s after the move", h)
	}
	c.act(202, "red", id, "os-stop", nil, "2.1")
	c.wait("red", id, "status", "SHUTOFF")
}
