package model_test

import (
	"strings"
	"testing"

	"yakumo/model"
)

func TestUnoffered(t *testing.T) {
	type m = map[string]string
	for _, c := range []struct {
		specs, hardware m
		want            string
	}{
		{nil, nil, ""},
		{m{"hw:cpu_policy": "shared", "hw:cpu_thread_policy": "prefer", "hw:mem_encryption": "False"}, m{"hw_firmware_type": "uefi", "os_secure_boot": "optional"}, ""},
		{m{"hw:cpu_policy": "dedicated"}, nil, ""},
		{m{"hw:mem_encryption": " Yes "}, nil, "hw:mem_encryption=Yes: "},
		{nil, m{"hw_mem_encryption": "true"}, "hw_mem_encryption=true: "},
		{m{"hw_firmware_type": "uefi"}, m{"hw:tpm_version": "2.0"}, ""}, // an image's name in a flavor says nothing
		{m{"hw:viommu_model": "auto"}, nil, "hw:viommu_model=auto: "},
		{m{"hw:mem_encryption": "1"}, nil, "hw:mem_encryption=1: "},
		{m{"pci_passthrough:alias": "gpu:1"}, nil, "pci_passthrough:alias=gpu:1: "},
	} {
		got := model.Unoffered(c.specs, c.hardware)
		if (got == "") != (c.want == "") || !strings.HasPrefix(got, c.want) {
			t.Errorf("%v, %v: %q, want %q", c.specs, c.hardware, got, c.want)
		}
	}
}

func TestBadPages(t *testing.T) {
	type m = map[string]string
	for _, c := range []struct {
		specs, hardware m
		want            string
	}{
		{nil, nil, ""}, {m{"hw:mem_page_size": "any"}, m{"hw_locked_memory": "yes"}, ""}, {m{"hw:mem_page_size": "1GB", "hw:locked_memory": "1"}, m{"hw_locked_memory": "True"}, ""},
		{m{"hw:locked_memory": "no"}, nil, ""}, {m{"hw:mem_page_size": "4KB"}, nil, ""},
		{m{"hw:mem_page_size": "3MB"}, nil, "Invalid memory page size '3MB'"}, {nil, m{"hw_mem_page_size": "big"}, "Invalid memory page size 'big'"},
		{m{"hw:locked_memory": "yes"}, nil, "locked_memory value in image or flavor is forbidden when mem_page_size is not set."},
		{m{"hw:mem_page_size": "1GB", "hw:locked_memory": "yes"}, m{"hw_locked_memory": "no"}, "locked_memory value in image (no) and flavor (yes) conflict. A consistent value is expected if both specified."},
	} {
		if got := model.BadPages(c.specs, c.hardware); got != c.want {
			t.Errorf("%v, %v: %q, want %q", c.specs, c.hardware, got, c.want)
		}
	}
}

func TestPageKiB(t *testing.T) {
	for v, want := range map[string]int{"": 0, "small": 0, "any": 0, "4KB": 0, "4": 0, "large": 2048, "2MB": 2048, "2048": 2048, "2 MiB": 2048, "2048KB": 2048, "1GB": 1 << 20, "1GiB": 1 << 20, "1048576": 1 << 20, "7": 0} {
		if got := model.PageKiB(map[string]string{"hw:mem_page_size": v}, nil); got != want {
			t.Errorf("%q: %d, want %d", v, got, want)
		}
	}
	if got := model.PageKiB(map[string]string{"hw:mem_page_size": "small"}, map[string]string{"hw_mem_page_size": "large"}); got != 0 {
		t.Errorf("an image's word counts before the flavor's: %d", got)
	}
}
