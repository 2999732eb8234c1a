package nova_test

import (
	"fmt"
	"maps"
	"strings"
	"testing"

	"yakumo/model"
	"yakumo/store"
)

// firmwareImage adds an image with properties.
func (c *cloud) firmwareImage(properties map[string]string) string {
	return c.containerImage(func(i *model.Image) { i.DiskFormat, i.Properties = "qcow2", maps.Clone(properties) })
}

// TestFirmware: servers go to hosts that can start them so; else each host's reason is told, and what Nova would not take is refused at once.
func TestFirmware(t *testing.T) {
	c := newCloud(t)
	c.furnish()
	c.host("plain")
	c.host("modern", func(h *model.Host) { h.Capacity.UEFI = true })
	c.update(func(tx *store.Tx) error {
		for id, word := range map[string]string{"30": "required", "31": "disabled"} {
			f := model.Flavor{ID: id, Name: "secure " + word, VCPUs: 1, MemoryMiB: 256, DiskGiB: 1, Public: true, RxTxFactor: 1, ExtraSpecs: map[string]string{"os:secure_boot": word}}
			if _, err := c.compute.CreateFlavor(tx, f); err != nil {
				return err
			}
		}
		return nil
	})
	type m = map[string]string
	uefi, secure := c.firmwareImage(m{"hw_firmware_type": "uefi"}), c.firmwareImage(m{"hw_firmware_type": "uefi", "os_secure_boot": "required"})
	id := c.boot("red", "modern", "imageRef", uefi)
	c.wait("red", id, "status", "ACTIVE")
	if h := c.hostOf(id); h != "modern" {
		t.Errorf("it is on %s", h)
	}
	none := c.boot("red", "secure", "imageRef", secure)
	c.wait("red", none, "status", "ERROR")
	told := fmt.Sprint(c.must(200, "admin", "GET", "/servers/"+none, nil)["fault"])
	for _, want := range []string{"plain", "it has no UEFI firmware", "modern", "has no secure boot"} {
		if !strings.Contains(told, want) {
			t.Errorf("no host is found as %s, want %q", told, want)
		}
	}

	server := func(image, flavor string) object {
		return object{"server": object{"name": "x", "imageRef": image, "flavorRef": flavor, "networks": []object{{"uuid": c.network}}}}
	}
	for _, r := range []struct {
		path string
		body object
		want string
	}{
		{"/servers", server(c.firmwareImage(m{"hw_firmware_type": "efi"}), "1"), "Invalid image metadata. Error: Field value efi is invalid"},
		{"/servers", server(c.firmwareImage(m{"os_secure_boot": "yes"}), "1"), "Invalid image metadata. Error: Field value yes is invalid"},
		{"/servers", server(secure, "31"), "Flavor secure disabled has os:secure_boot extra spec explicitly set to disabled, conflicting with image " + secure +
			" which has os_secure_boot explicitly set to required."},
		{"/servers/" + id + "/action", object{"rebuild": object{"imageRef": secure}}, "Image " + secure + " is unacceptable: the server's host cannot start it: " +
			"os_secure_boot=required: its UEFI firmware for guests has no secure boot."},
		{"/servers/" + id + "/action", object{"rescue": object{"rescue_image_ref": secure}}, "its UEFI firmware for guests has no secure boot."},
	} {
		if got := c.refused(400, "badRequest", "red", "POST", r.path, r.body); !strings.HasSuffix(got, r.want) {
			t.Errorf("refused with %q, want %q", got, r.want)
		}
	}
	optional := c.boot("red", "optional", "imageRef", c.firmwareImage(m{"hw_firmware_type": "uefi", "os_secure_boot": "optional"}))
	c.wait("red", optional, "status", "ACTIVE")
	if got := c.refused(400, "badRequest", "red", "POST", "/servers/"+optional+"/action", object{"resize": object{"flavorRef": "30"}}); !strings.Contains(got, "conflicting with image") {
		t.Errorf("a resize is refused with %q", got)
	}
}
