package nova_test

import (
	"fmt"
	"maps"
	"strings"
	"testing"

	"yakumo/model"
	"yakumo/store"
	"yakumo/volume"
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

// A server that boots from a volume has the machine that the image of the volume asks for, and is refused where that is no machine.
func TestFirmwareOfVolumes(t *testing.T) {
	c := newCloud(t)
	c.furnish()
	c.host("plain")
	c.host("modern", func(h *model.Host) { h.Capacity.UEFI = true })
	make := c.storage()
	source := func(properties map[string]string) string {
		img := c.firmwareImage(properties)
		row, _ := store.Images.Get(c.store.Snapshot(), img)
		v := make(red, volume.Spec{SizeGiB: 1, Image: row, Copy: row.Copy()})
		return v.ID
	}
	disk := func(id string) object {
		return object{"block_device_mapping_v2": []object{{"boot_index": 0, "uuid": id, "source_type": "volume", "destination_type": "volume"}}}
	}
	id := c.bootWith(disk(source(map[string]string{"hw_firmware_type": "uefi", "hw_disk_bus": "scsi"})))
	s, _ := store.Servers.Get(c.store.Snapshot(), id)
	if h := c.hostOf(id); h != "modern" || !maps.Equal(s.Image.Hardware, map[string]string{"hw_firmware_type": "uefi", "hw_disk_bus": "scsi"}) {
		t.Errorf("it is on %s with %v", h, s.Image.Hardware)
	}
	body := disk(source(map[string]string{"hw_firmware_type": "efi"}))
	maps.Copy(body, object{"name": "x", "flavorRef": "1", "networks": "none"})
	if got := c.refused(400, "badRequest", "red", "POST", "/servers", object{"server": body}, "2.96"); got != "Invalid image metadata. Error: Field value efi is invalid" {
		t.Errorf("refused with %q", got)
	}
}
