package model

import (
	"slices"
	"strings"
)

// unoffered are what flavors and images may ask of a machine in Nova's words and no host gives, with why. What only makes a
// guest faster and is not honoured is not among them: such a guest runs all the same.
var unoffered = []struct {
	flavor, image string
	words         []string // in lower case; nil: whatever it says
	why           string
}{
	{"hw:mem_encryption", "hw_mem_encryption", yes, "memory is not encrypted"},
	{"hw:pmem", "", nil, "there is no persistent memory"},
	{"hw:viommu_model", "hw_viommu_model", nil, "there is no virtual IOMMU"},
	{"pci_passthrough:alias", "", nil, "devices of hosts are not handed to guests"},
	{"accel:device_profile", "", nil, "devices of hosts are not handed to guests"},
}

var yes = []string{"yes", "y", "true", "t", "on", "1"}

// Unoffered gives the first of a flavor's extra specs or an image's properties that asks for what no host has, as
// "name=value: why"; "" none.
func Unoffered(specs, hardware map[string]string) string {
	for _, u := range unoffered {
		for _, in := range []struct {
			name string
			m    map[string]string
		}{{u.flavor, specs}, {u.image, hardware}} {
			v := strings.TrimSpace(in.m[in.name])
			if v != "" && in.name != "" && (u.words == nil || slices.Contains(u.words, strings.ToLower(v))) {
				return in.name + "=" + v + ": " + u.why
			}
		}
	}
	return ""
}

// PageKiB gives the size of the memory's pages that a flavor, or else an image, asks for: hw:mem_page_size. 0: the host's ordinary ones, also
// for what no host can have.
func PageKiB(specs, hardware map[string]string) int {
	v := strings.TrimSpace(specs["hw:mem_page_size"])
	if v == "" {
		v = strings.TrimSpace(hardware["hw_mem_page_size"])
	}
	switch strings.NewReplacer("i", "", "B", "", "b", "", " ", "").Replace(v) {
	case "large", "2M", "2048", "2048K":
		return 2 << 10
	case "1G", "1024M", "1048576", "1048576K":
		return 1 << 20
	}
	return 0
}

// BadPages gives, in Nova's words, why a flavor and an image cannot have memory as they ask for it: the size of its pages is none, or it is to be
// locked without one; "" they can.
func BadPages(specs, hardware map[string]string) string {
	for _, v := range []string{specs["hw:mem_page_size"], hardware["hw_mem_page_size"]} {
		switch v = strings.TrimSpace(v); v {
		case "", "small", "any", "4", "4K", "4KB", "4KiB":
		default:
			if PageKiB(map[string]string{"hw:mem_page_size": v}, nil) == 0 {
				return "Invalid memory page size '" + clip(v) + "'"
			}
		}
	}
	ours, theirs := strings.TrimSpace(specs["hw:locked_memory"]), strings.TrimSpace(hardware["hw_locked_memory"])
	switch {
	case ours != "" && theirs != "" && isYes(ours) != isYes(theirs):
		return "locked_memory value in image (" + clip(theirs) + ") and flavor (" + clip(ours) + ") conflict. A consistent value is expected if both specified."
	case (isYes(ours) || isYes(theirs)) && specs["hw:mem_page_size"] == "" && hardware["hw_mem_page_size"] == "":
		return "locked_memory value in image or flavor is forbidden when mem_page_size is not set."
	}
	return ""
}

// PageSizes are the sizes in KiB of pages that are not the ordinary ones, in the order of Load.PagesMiB.
var PageSizes = [2]int{2 << 10, 1 << 20}
