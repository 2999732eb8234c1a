package nova_test

import (
	"strings"
	"testing"

	"yakumo/model"
)

// TestOwnCPUs: a flavor asks for CPUs of the host for its servers alone. What cannot be is 400 before there is a server, what no host has is the
// server's fault; and a host tells of the CPUs that are shared.
func TestOwnCPUs(t *testing.T) {
	c := newCloud(t)
	c.furnish()
	c.host("h1", func(h *model.Host) {
		h.Capacity.Dedicated = []model.HostCPU{{ID: 6, Siblings: []int{6}}, {ID: 7, Siblings: []int{7}}}
	})
	specs := func(flavor string, o object) {
		t.Helper()
		c.must(200, "admin", "POST", "/flavors/"+flavor+"/os-extra_specs", object{"extra_specs": o}, "2.86")
	}
	server := object{"server": object{"name": "s", "imageRef": c.image, "flavorRef": "1", "networks": []object{{"uuid": c.network}}}}
	for _, x := range []struct {
		specs object
		text  string
	}{
		{object{"hw:cpu_thread_policy": "prefer"}, "Cannot set cpu thread pinning policy in a non dedicated cpu pinning policy"},
		{object{"hw:cpu_policy": "mixed"}, "Must specify either 'hw:cpu_dedicated_mask' or 'hw:cpu_realtime_mask'"},
		{object{"hw:cpu_dedicated_mask": "0"}, "Mixed instance must have at least 1 pinned vCPU and 1 unpinned vCPU."},
		{object{"hw:cpu_policy": "dedicated"}, "Cannot specify 'hw:cpu_dedicated_mask' without the 'mixed' policy."},
	} {
		specs("1", x.specs)
		if text := c.refused(400, "badRequest", "red", "POST", "/servers", server); !strings.Contains(text, x.text) {
			t.Errorf("%v: %q, want %q", x.specs, text, x.text)
		}
	}
	if list := c.rows("red", "/servers"); len(list) != 0 {
		t.Errorf("there are %v", list)
	}
	specs("2", object{"hw:cpu_policy": "dedicated"})
	id := c.boot("red", "a", "flavorRef", "2")
	c.wait("red", id, "status", "ACTIVE")
	second := c.boot("red", "b", "flavorRef", "2")
	last := c.wait("red", second, "status", "ERROR")
	if f, _ := last["fault"].(object); !strings.Contains(f["message"].(string), "1 of 1: it has too few CPUs free that are kept for single servers") {
		t.Errorf("its fault is %v", f)
	}
	h := c.rows("admin", "/os-hypervisors/detail")[0]
	if h["vcpus"] != 6.0 || h["vcpus_used"] != 0.0 {
		t.Errorf("the host has %v CPUs, %v of them used", h["vcpus"], h["vcpus_used"])
	}
}
