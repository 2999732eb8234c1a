package nova

import (
	"regexp"
	"strings"

	"yakumo/api"
)

// specRule checks the values of the extra specs whose whole names match.
type specRule struct {
	name  *regexp.Regexp
	value *regexp.Regexp
}

func specOf(name, value string) specRule {
	return specRule{regexp.MustCompile("^(" + name + ")$"), regexp.MustCompile("^(" + value + ")$")}
}

const (
	specInt  = `[0-9]+`
	specBool = `(?i)true|false|yes|no|on|off|1|0|t|f|y|n`
)

// specNamespaces are the name spaces in which Nova knows every extra spec, so that from
// microversion 2.86 on others are refused there.
var specNamespaces = []string{"accel", "hw", "hw_rng", "hw_video", "os", "pci_passthrough", "quota", "resources", "trait"}

// specRules are the extra specs of those name spaces, by Nova's reference of extra specs.
var specRules = []specRule{
	specOf(`accel:device_profile`, `.+`),
	specOf(`hw:cpu_(max_)?(sockets|cores|threads)`, specInt),
	specOf(`hw:cpu_policy`, `dedicated|shared|mixed`),
	specOf(`hw:cpu_thread_policy`, `prefer|isolate|require`),
	specOf(`hw:emulator_threads_policy`, `isolate|share`),
	specOf(`hw:(cpu_dedicated_mask|cpu_realtime_mask)`, `[\^0-9,\-all]+`),
	specOf(`hw:(boot_menu|cpu_realtime|hide_hypervisor_id|locked_memory|mem_encryption|pmu|vif_multiqueue_enabled|virtio_packed_ring)`, specBool),
	specOf(`hw:mem_page_size`, `small|large|any|[0-9]+ ?([kKMG]i?[bB]?)?`),
	specOf(`hw:(numa_nodes|maxphysaddr_bits)`, specInt),
	specOf(`hw:maxphysaddr_mode`, `passthrough|emulate`),
	specOf(`hw:numa_cpus\.[0-9]+`, `\^?[0-9]+([,\-]\^?[0-9]+)*`),
	specOf(`hw:numa_mem\.[0-9]+`, specInt),
	specOf(`hw:pci_numa_affinity_policy`, `required|preferred|legacy|socket`),
	specOf(`hw:pmem`, `.+`),
	specOf(`hw:tpm_model`, `tpm-tis|tpm-crb`),
	specOf(`hw:tpm_version`, `1\.2|2\.0`),
	specOf(`hw:viommu_model`, `intel|smmuv3|virtio|auto`),
	specOf(`hw:watchdog_action`, `none|pause|poweroff|reset|disabled`),
	specOf(`hw_rng:allowed`, specBool),
	specOf(`hw_rng:(rate_bytes|rate_period)`, specInt),
	specOf(`hw_video:ram_max_mb`, specInt),
	specOf(`os:secure_boot`, `required|disabled|optional`),
	specOf(`pci_passthrough:alias`, `.+`),
	specOf(`quota:cpu_(period|quota|shares|limit|reservation|shares_share)`, `-?[0-9]+`),
	specOf(`quota:(cpu|memory|disk_io|vif)_shares_level`, `custom|high|normal|low`),
	specOf(`quota:(memory|disk_io|vif)_(limit|reservation|shares_share)`, specInt),
	specOf(`quota:disk_(read|write|total)_(bytes|iops)_sec(_max)?(_length)?`, specInt),
	specOf(`quota:vif_(inbound|outbound)_(average|burst|peak)`, specInt),
	specOf(`resources[a-zA-Z0-9_-]*:[A-Z0-9_]+`, specInt),
	specOf(`trait[a-zA-Z0-9_-]*:[A-Z0-9_]+`, `required|forbidden`),
}

// checkSpec refuses an extra spec that Nova knows not to be one, or whose value is wrong.
func checkSpec(name, value string) error {
	space, _, ok := strings.Cut(name, ":")
	if !ok {
		return nil
	}
	known := false
	for _, n := range specNamespaces {
		numbered := n == "resources" || n == "trait"
		known = known || space == n || numbered && strings.HasPrefix(space, n)
	}
	if !known {
		return nil
	}
	for _, r := range specRules {
		if !r.name.MatchString(name) {
			continue
		}
		if !r.value.MatchString(value) {
			return badRequest("Validation failed; '%s' is not a valid value for the extra spec '%s'.", api.Clip(value), api.Clip(name))
		}
		return nil
	}
	return badRequest("Validation failed; extra spec '%s' does not appear to be a valid extra spec.", api.Clip(name))
}
