package libvirt

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
)

// firmwareXML says of properties of firmware whether they are wanted. libvirt chooses the firmware by that, among those that the host's packages
// describe to it (docs/interop/firmware.json of QEMU), at each start of the guest, and makes the file of variables from the firmware's own where
// it is not there. So a definition names no path of a host's packages.
type firmwareXML struct {
	Features []featureXML `xml:"feature"`
}

type featureXML struct {
	Enabled string `xml:"enabled,attr"`
	Name    string `xml:"name,attr"`
}

// uefi has the guest started by UEFI. Secure boot without enrolled keys would trust nobody, and check nothing.
func (o *osXML) uefi(secure bool) {
	o.Firmware = "efi"
	word := "no"
	if secure {
		word = "yes"
	}
	o.Features = &firmwareXML{[]featureXML{{word, "secure-boot"}, {word, "enrolled-keys"}}}
}

// hasFirmware tells whether the host has the firmware of such guests: libvirt is asked how it would start one.
func (d *Driver) hasFirmware(ctx context.Context, secure bool) (bool, error) {
	probe := domainXML{Type: "qemu", Name: "yakumo-firmware", Memory: sizeXML{Unit: "MiB", N: 64}, VCPU: vcpuXML{N: 1}}
	probe.Sysinfo = sysinfoXML{Type: "smbios", System: []entryXML{{"manufacturer", "Yakumo"}}}
	probe.OS.Type.Arch, probe.OS.Type.Machine, probe.OS.Type.Value = "x86_64", "q35", "hvm"
	probe.OS.uefi(secure)
	probe.CPU = cpuXML{Mode: "custom", Model: &modelXML{Name: tcgModel}}
	probe.Clock.Offset = "utc"
	probe.OnPoweroff, probe.OnReboot, probe.OnCrash = "destroy", "restart", "destroy"
	probe.Devices = devicesXML{
		Controllers: []controllerXML{{Type: "usb", Model: "none"}}, Serial: serialXML{Type: "pty", Target: targetXML{Type: "isa-serial", Port: "0"}},
		Video: videoXML{videoModelXML{Type: "none"}}, Balloon: typedXML{"none"},
	}
	text, err := xml.Marshal(probe)
	if err != nil {
		return false, fmt.Errorf("write a definition: %w", err)
	}
	_, err = d.ask(ctx, quick, procDomainToNative, new(encoder).str("qemu-argv").str(string(text)).u32(0))
	var said *Error
	if errors.As(err, &said) {
		d.log.Debug("guests cannot have a firmware", "secure", secure, "error", err)
		return false, nil
	}
	return err == nil, err
}
