package model_test

import (
	"strings"
	"testing"

	"yakumo/model"
)

// What is asked for, on hosts without UEFI, with it, and with secure boot besides: what each lacks.
func TestFirmwareLacking(t *testing.T) {
	type m = map[string]string
	const none, both = "", "takes a UEFI firmware"
	for _, c := range []struct {
		specs, hardware    m
		bios, uefi, secure string
	}{
		{nil, nil, none, none, none},
		{m{"os:secure_boot": "optional"}, m{"hw_firmware_type": "bios"}, none, none, none},
		{nil, m{"hw_firmware_type": "uefi"}, "no UEFI firmware", none, none},
		{nil, m{"hw_firmware_type": "uefi", "os_secure_boot": "optional"}, "no UEFI firmware", none, none},
		{nil, m{"hw_firmware_type": "uefi", "os_secure_boot": "required"}, "no UEFI firmware", "no secure boot", none},
		{m{"os:secure_boot": "disabled"}, m{"hw_firmware_type": "uefi", "os_secure_boot": "required"}, "no UEFI firmware", none, none},
		{m{"os:secure_boot": "required"}, nil, both, both, both},
	} {
		f := model.FirmwareOf(c.specs, c.hardware)
		for i, want := range []string{c.bios, c.uefi, c.secure} {
			if got := f.Lacking(i > 0, i > 1); (got == "") != (want == "") || !strings.Contains(got, want) {
				t.Errorf("%v, %v on host %d: %q, want %q", c.specs, c.hardware, i, got, want)
			}
		}
	}
}

func TestBadFirmware(t *testing.T) {
	type m = map[string]string
	for _, c := range []struct {
		specs, hardware m
		want            string
	}{
		{nil, nil, ""},
		{m{"os:secure_boot": "required"}, m{"hw_firmware_type": "uefi", "os_secure_boot": "required"}, ""},
		{m{"os:secure_boot": "disabled"}, m{"hw_firmware_type": "bios"}, ""},
		{nil, m{"hw_firmware_type": "UEFI"}, "Invalid image metadata. Error: Field value UEFI is invalid"},
		{nil, m{"os_secure_boot": ""}, "Invalid image metadata. Error: Field value  is invalid"},
		{m{"os:secure_boot": "required"}, m{"os_secure_boot": "disabled"},
			"Flavor f has os:secure_boot extra spec explicitly set to required, conflicting with image i which has os_secure_boot explicitly set to disabled."},
	} {
		if got := model.BadFirmware("f", "i", c.specs, c.hardware); got != c.want {
			t.Errorf("%v, %v: %q, want %q", c.specs, c.hardware, got, c.want)
		}
	}
}
