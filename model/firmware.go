package model

import (
	"slices"
	"strings"
)

// Firmware is what is to start a guest, in Nova's words.
type Firmware struct {
	UEFI   bool   // else a BIOS
	Secure string // boot: required, optional; "": off
}

const (
	firmwareType  = "hw_firmware_type"
	secureFlavor  = "os:secure_boot"
	secureImage   = "os_secure_boot"
	secureMust    = "required"
	secureMay     = "optional"
	secureMustNot = "disabled"
)

// FirmwareOf reads a flavor's extra specs and an image's properties; a flavor's word counts before an image's. What is none of Nova's words counts as
// not said: BadFirmware tells of it.
func FirmwareOf(specs, hardware map[string]string) Firmware {
	f := Firmware{UEFI: strings.TrimSpace(hardware[firmwareType]) == "uefi", Secure: strings.TrimSpace(specs[secureFlavor])}
	if f.Secure == "" {
		f.Secure = strings.TrimSpace(hardware[secureImage])
	}
	if f.Secure != secureMust && f.Secure != secureMay {
		f.Secure = ""
	}
	return f
}

// Lacking tells why a host whose guests can have UEFI, and secure boot with it, cannot start a guest so; "" it can.
func (f Firmware) Lacking(uefi, secureBoot bool) string {
	switch {
	case f.Secure == secureMust && !f.UEFI:
		return "secure boot (" + secureImage + "=" + secureMust + ") takes a UEFI firmware (" + firmwareType + "=uefi)"
	case f.UEFI && !uefi:
		return firmwareType + "=uefi: it has no UEFI firmware for guests (Debian: the package ovmf)"
	case f.Secure == secureMust && !secureBoot:
		return secureImage + "=" + secureMust + ": its UEFI firmware for guests has no secure boot"
	}
	return ""
}

// BadFirmware gives, in Nova's words, why an image and a flavor by the names cannot make a server: a word that is none, or words that
// contradict each other, also of a TPM; "" they can.
func BadFirmware(flavor, image string, specs, hardware map[string]string) string {
	for _, one := range []struct {
		name  string
		words []string
	}{{firmwareType, []string{"bios", "uefi"}}, {secureImage, []string{secureMust, secureMay, secureMustNot}}} {
		if v, asked := hardware[one.name]; asked && !slices.Contains(one.words, v) {
			return "Invalid image metadata. Error: Field value " + v + " is invalid"
		}
	}
	ours, theirs := specs[secureFlavor], hardware[secureImage]
	if ours != "" && theirs != "" && ours != theirs {
		return "Flavor " + flavor + " has " + secureFlavor + " extra spec explicitly set to " + ours + ", conflicting with image " + image +
			" which has " + secureImage + " explicitly set to " + theirs + "."
	}
	return badTPM(flavor, image, specs, hardware)
}
