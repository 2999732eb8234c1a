package hypervisor

import (
	"reflect"
	"testing"

	"pgregory.net/rapid"

	"yakumo/fault"
)

func TestTuning(t *testing.T) {
	for _, c := range []struct {
		vcpus int
		specs map[string]string
		want  Tuning
	}{
		{1, nil, Tuning{}},
		{4, map[string]string{"unknown": "x", "hw:cpu_policy": "shared", "hw:mem_page_size": "any", "hw:watchdog_action": "disabled"}, Tuning{}},
		{8, map[string]string{"hw:cpu_sockets": "2"}, Tuning{Sockets: 2, Cores: 4, Threads: 1}},
		{8, map[string]string{"hw:cpu_cores": "4"}, Tuning{Sockets: 2, Cores: 4, Threads: 1}},
		{8, map[string]string{"hw:cpu_threads": "2", "hw_cpu_cores": "2"}, Tuning{Sockets: 2, Cores: 2, Threads: 2}},
		{8, map[string]string{"hw:cpu_max_sockets": "2"}, Tuning{Sockets: 2, Cores: 4, Threads: 1}},
		{8, map[string]string{"hw:cpu_max_sockets": "2", "hw:cpu_max_cores": "2"}, Tuning{Sockets: 2, Cores: 2, Threads: 2}},
		{6, map[string]string{"hw:cpu_max_sockets": "4"}, Tuning{Sockets: 3, Cores: 2, Threads: 1}},
		{4, map[string]string{"hw:numa_nodes": "2", "hw:boot_menu": "True"}, Tuning{BootMenu: true, Cells: []Cell{{[]int{0, 1}, 50}, {[]int{2, 3}, 50}}}},
		{4, map[string]string{"hw:numa_nodes": "2", "hw:numa_cpus.0": "0-3,^1", "hw:numa_mem.0": "70", "hw:numa_cpus.1": "1", "hw:numa_mem.1": "30"},
			Tuning{Cells: []Cell{{[]int{0, 2, 3}, 70}, {[]int{1}, 30}}}},
		{1, map[string]string{"hw_machine_type": "pc-q35-7.2", "hw_qemu_guest_agent": "on"}, Tuning{Machine: "pc-q35-7.2", Agent: true}},
		{1, map[string]string{"hw_firmware_type": "bios", "os_secure_boot": "optional", "os:secure_boot": "optional"}, Tuning{}},
		{1, map[string]string{"hw_firmware_type": "uefi", "os_secure_boot": "optional"}, Tuning{UEFI: true, SecureBoot: SecureOptional}},
		{1, map[string]string{"hw_firmware_type": "uefi", "os:secure_boot": "required"}, Tuning{UEFI: true, SecureBoot: SecureRequired}},
		{1, map[string]string{"hw_firmware_type": "uefi", "os:secure_boot": "disabled", "os_secure_boot": "disabled"}, Tuning{UEFI: true}},
		{2, map[string]string{"hw:mem_page_size": "large", "hw_watchdog_action": "pause"}, Tuning{HugePageKiB: 2048, Watchdog: "pause"}},
		{2, map[string]string{"hw:mem_page_size": "1GB", "hw_rng:allowed": "false"}, Tuning{HugePageKiB: 1 << 20, NoRandom: true}},
		{2, map[string]string{"hw:mem_page_size": "2048", "hw:watchdog_action": "reset", "hw_watchdog_action": "pause"}, Tuning{HugePageKiB: 2048, Watchdog: "reset"}},
		{2, map[string]string{"hw_disk_bus": "scsi", "hw_vif_model": "e1000e", "quota:cpu_shares": "512"}, Tuning{DiskBus: "scsi", CardModel: "e1000e", CPUShares: 512}},
		{2, map[string]string{"quota:disk_read_iops_sec": "10", "quota:vif_outbound_peak": "7"}, Tuning{Disk: map[string]int{"read_iops_sec": 10}, Out: Rate{Peak: 7}}},
	} {
		got, err := Guest{VCPUs: c.vcpus, MemoryMiB: 100, Specs: c.specs}.Tuning()
		if err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%v: %+v, %v, want %+v", c.specs, got, err, c.want)
		}
	}
	for _, specs := range []map[string]string{
		{"hw:cpu_sockets": "2", "hw:cpu_cores": "1", "hw:cpu_threads": "1"}, {"hw:cpu_cores": "0"}, {"hw:mem_page_size": "B"},
		{"quota:disk_total_iops_sec": "5", "quota:disk_read_iops_sec": "5"}, {"hw_rng:allowed": "perhaps"}, {"hw_disk_bus": "ide"}, {"quota:cpu_period": "1"},
		{"hw:cpu_max_sockets": "1", "hw:cpu_max_cores": "1", "hw:cpu_max_threads": "2"}, {"hw:cpu_sockets": "4", "hw:cpu_max_sockets": "2"},
		{"hw:numa_nodes": "3"}, {"hw:numa_nodes": "2", "hw:numa_cpus.0": "0-3"}, {"hw:numa_nodes": "2", "hw:numa_cpus.1": "0-3", "hw:numa_mem.1": "100"},
		{"hw:numa_nodes": "2", "hw:numa_cpus.0": "0-2", "hw:numa_mem.0": "50", "hw:numa_cpus.1": "2,3", "hw:numa_mem.1": "50"},
		{"hw:numa_nodes": "2", "hw:numa_cpus.0": "0-1", "hw:numa_mem.0": "50", "hw:numa_cpus.1": "2,4", "hw:numa_mem.1": "50"},
		{"hw:numa_nodes": "2", "hw:numa_cpus.0": "0-1", "hw:numa_mem.0": "50", "hw:numa_cpus.1": "2,3", "hw:numa_mem.1": "51"},
		{"hw_machine_type": "pc"}, {"hw:boot_menu": "maybe"}, {"hw_qemu_guest_agent": "perhaps"},
		{"hw_firmware_type": "UEFI"}, {"hw_firmware_type": "uefi", "os_secure_boot": "perhaps"}, {"os:secure_boot": "required"},
		{"hw_firmware_type": "uefi", "os_secure_boot": "optional", "os:secure_boot": "required"},
	} {
		if got, err := (Guest{VCPUs: 4, MemoryMiB: 100, Specs: specs}).Tuning(); !fault.Is(err, fault.Invalid) {
			t.Errorf("%v: %+v, %v", specs, got, err)
		}
	}
}

// Whatever is asked for, sockets, cores and threads make the guest's processors, or it is refused.
func TestTopologyMultiplies(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		g := Guest{VCPUs: rapid.IntRange(1, 64).Draw(t, "vcpus"), Specs: map[string]string{}}
		for _, name := range []string{"hw:cpu_sockets", "hw:cpu_cores", "hw_cpu_threads", "hw:cpu_max_sockets", "hw_cpu_max_cores"} {
			if rapid.Bool().Draw(t, name) {
				g.Specs[name] = rapid.SampledFrom([]string{"1", "2", "3", "4", "8", "x"}).Draw(t, "value")
			}
		}
		x, err := g.Tuning()
		if err == nil && len(g.Specs) > 0 && x.Sockets*x.Cores*x.Threads != g.VCPUs {
			t.Fatalf("%v of %d: %+v", g.Specs, g.VCPUs, x)
		}
	})
}
