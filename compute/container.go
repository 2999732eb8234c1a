package compute

import (
	"slices"
	"strings"

	"yakumo/fault"
	"yakumo/model"
)

// notOfContainers are the actions that no host can do to a container, by the names that refusals have.
var notOfContainers = []string{
	"suspend", "os-migrateLive", "migrate", "resize", "rescue", "createImage", "createBackup", "shelve", "attach_volume", "changePassword",
	"trigger_crash_dump",
}

// hypervisorOf gives the hypervisor that an image is for, in lower case; "" for any that runs virtual machines.
func hypervisorOf(img *model.Image) string {
	for _, name := range []string{"img_hv_type", "hypervisor_type"} {
		if t := img.Properties[name]; t != "" {
			return strings.ReplaceAll(strings.ToLower(t), "kvm", "qemu") // one hypervisor with and without the accelerator
		}
	}
	return ""
}

// containerized tells whether servers of an image are containers.
func containerized(img *model.Image) bool { return hypervisorOf(img) == "lxc" }

// contain refuses what a new server asks for that no container has.
func contain(n *NewServer) error {
	switch {
	case !containerized(n.Image):
		return nil
	case len(n.Volumes) > 0:
		return fault.New(fault.Invalid, "Block Device Mapping is Invalid: a container has no volumes.")
	case n.ConfigDrive:
		return fault.New(fault.Invalid, "A container has no config drive; what is on it is served by the metadata service.")
	case n.Flavor.Ephemeral > 0 || n.Flavor.SwapMiB > 0:
		return fault.New(fault.Invalid, "Flavor %s is unacceptable: a container has no ephemeral and no swap disk.", n.Flavor.ID)
	}
	return archived(n.Flavor, n.Image)
}

// archived refuses an image and a flavor whose disk no container can be made of.
func archived(f *model.Flavor, img *model.Image) error {
	switch {
	case img.DiskFormat != "raw":
		return fault.New(fault.Invalid, "Image %s is unacceptable: a container is made of an archive (tar, or tar compressed with gzip) of disk format raw, not of '%s'.", img.ID, img.DiskFormat)
	case f.DiskGiB == 0:
		return fault.New(fault.Invalid, "Flavor's disk is too small for requested image. A container's disk has the size of its flavor's, which is 0.")
	}
	return nil
}

// possible refuses an action that no host can do to a container.
func possible(s *model.Server, action string) error {
	if s.Container && slices.Contains(notOfContainers, action) {
		return fault.New(fault.Conflict, "Cannot '%s' instance %s: it is a container", action, s.ID)
	}
	return nil
}
