package nova_test

import (
	"fmt"
	"strings"
	"testing"

	"yakumo/model"
	"yakumo/store"
)

// containerImage adds an image that servers are containers of.
func (c *cloud) containerImage(change ...func(*model.Image)) string {
	c.t.Helper()
	var id string
	c.update(func(tx *store.Tx) error {
		mini, _ := store.Images.Get(tx, c.image)
		img := *mini
		img.ID, img.BlobID, img.DiskFormat = model.NewID(), model.NewID(), "raw"
		img.Properties = map[string]string{"img_hv_type": "lxc"}
		for _, f := range change {
			f(&img)
		}
		id = img.ID
		return store.Images.Put(tx, &img)
	})
	return id
}

func (c *cloud) hostOf(id string) string {
	c.t.Helper()
	h, _ := c.must(200, "admin", "GET", "/servers/"+id, nil)["OS-EXT-SRV-ATTR:host"].(string)
	return h
}

// TestContainersAndTheirHosts: containers go where containers run, and nothing else does.
func TestContainersAndTheirHosts(t *testing.T) {
	c := newCloud(t)
	c.furnish()
	c.host("machines")
	c.host("boxes", func(h *model.Host) { h.Capacity.HypervisorType, h.Capacity.Accelerator = "LXC", "" })
	img := c.containerImage()
	for i := range 3 {
		box, machine := c.boot("red", fmt.Sprint("box", i), "imageRef", img), c.boot("red", fmt.Sprint("machine", i))
		c.wait("red", box, "status", "ACTIVE")
		c.wait("red", machine, "status", "ACTIVE")
		if a, b := c.hostOf(box), c.hostOf(machine); a != "boxes" || b != "machines" {
			t.Errorf("the container is on %s, the machine on %s", a, b)
		}
	}
	qemu := c.boot("red", "qemu", "imageRef", c.containerImage(func(i *model.Image) { i.Properties["img_hv_type"] = "kvm" }))
	c.wait("red", qemu, "status", "ACTIVE")
	if h := c.hostOf(qemu); h != "machines" {
		t.Errorf("a machine of KVM is on %s", h)
	}
}

// TestContainersRefuse: what no container can, told before anything is changed.
func TestContainersRefuse(t *testing.T) {
	c := newCloud(t)
	c.furnish()
	c.host("boxes", func(h *model.Host) { h.Capacity.HypervisorType, h.Capacity.Accelerator = "LXC", "" })
	img := c.containerImage()
	server := func(more ...any) object {
		s := object{"name": "x", "imageRef": img, "flavorRef": "1", "networks": []object{{"uuid": c.network}}}
		for i := 0; i+1 < len(more); i += 2 {
			s[more[i].(string)] = more[i+1]
		}
		return object{"server": s}
	}
	c.update(func(tx *store.Tx) error {
		for _, f := range []model.Flavor{
			{ID: "20", Name: "no disk", VCPUs: 1, MemoryMiB: 128, Public: true, RxTxFactor: 1},
			{ID: "21", Name: "swaps", VCPUs: 1, MemoryMiB: 128, DiskGiB: 1, SwapMiB: 64, Public: true, RxTxFactor: 1},
			{ID: "22", Name: "ephemeral", VCPUs: 1, MemoryMiB: 128, DiskGiB: 1, Ephemeral: 1, Public: true, RxTxFactor: 1},
		} {
			if _, err := c.compute.CreateFlavor(tx, f); err != nil {
				return err
			}
		}
		return nil
	})
	qcow2 := c.containerImage(func(i *model.Image) { i.DiskFormat = "qcow2" })
	for text, body := range map[string]object{
		"A container has no config drive": server("config_drive", true),
		"too small for requested image":   server("flavorRef", "20"),
		"no ephemeral and no swap":        server("flavorRef", "21"),
		"21 is unacceptable":              server("flavorRef", "21"),
		"22 is unacceptable":              server("flavorRef", "22"),
		"disk format raw, not of 'qcow2'": server("imageRef", qcow2),
	} {
		if got := c.refused(400, "badRequest", "red", "POST", "/servers", body); !strings.Contains(got, text) {
			t.Errorf("refused with %q, want %q", got, text)
		}
	}

	id := c.boot("red", "box", "imageRef", img)
	c.wait("red", id, "status", "ACTIVE")
	before, images := string(c.do("admin", "GET", "/servers/"+id, nil, "2.96").raw), c.imageCount()
	for name, body := range map[string]any{
		"suspend": nil, "rescue": nil, "createImage": object{"name": "i"}, "createBackup": object{"name": "b", "backup_type": "daily", "rotation": 1},
		"shelve": nil, "changePassword": object{"adminPass": "x"}, "trigger_crash_dump": nil, "resize": object{"flavorRef": "2"}, "migrate": nil,
		"os-migrateLive": object{"host": nil, "block_migration": "auto"},
	} {
		want := "Cannot '" + name + "' instance " + id + ": it is a container"
		if got := c.refused(409, "conflictingRequest", "admin", "POST", "/servers/"+id+"/action", object{name: body}, "2.34"); got != want {
			t.Errorf("%s is refused with %q, want %q", name, got, want)
		}
	}
	for _, other := range []string{c.image, qcow2} {
		c.refused(400, "badRequest", "red", "POST", "/servers/"+id+"/action", object{"rebuild": object{"imageRef": other}})
	}
	path := "/servers/" + id + "/remote-consoles"
	c.refused(400, "badRequest", "red", "POST", path, object{"remote_console": object{"protocol": "vnc", "type": "novnc"}}, "2.6")
	if after := string(c.do("admin", "GET", "/servers/"+id, nil, "2.96").raw); after != before {
		t.Errorf("what was refused has changed something:\n%s\n%s", before, after)
	}
	if n := c.imageCount(); n != images {
		t.Errorf("there are %d images, there were %d", n, images)
	}

	c.must(200, "red", "POST", path, object{"remote_console": object{"protocol": "serial", "type": "serial"}}, "2.6")
	for _, act := range []struct {
		body   object
		status string
	}{
		{object{"pause": nil}, "PAUSED"}, {object{"unpause": nil}, "ACTIVE"}, {object{"os-stop": nil}, "SHUTOFF"}, {object{"os-start": nil}, "ACTIVE"},
		{object{"reboot": object{"type": "HARD"}}, "ACTIVE"}, {object{"rebuild": object{"imageRef": c.containerImage()}}, "ACTIVE"},
	} {
		if a := c.do("red", "POST", "/servers/"+id+"/action", act.body); a.status != 202 {
			t.Fatalf("%v: %d %s", act.body, a.status, a.raw)
		}
		c.eventually(func() bool {
			s := c.must(200, "red", "GET", "/servers/"+id, nil)
			return s["status"] == act.status && s["OS-EXT-STS:task_state"] == nil
		}, func() string { return fmt.Sprintf("after %v the server is not %s", act.body, act.status) })
	}
}

func (c *cloud) imageCount() (n int) {
	for range store.Images.All(c.store.Snapshot()) {
		n++
	}
	return n
}
