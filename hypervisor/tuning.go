package hypervisor

import (
	"slices"
	"strconv"
	"strings"
)

// Tuning is what a guest's Specs ask for beyond its size, read and checked. The zero Tuning asks for nothing. Names and
// values of specs are those of Nova's flavors ("hw:…", "quota:…") and of Glance's image properties ("hw_…"):
// https://docs.openstack.org/nova/latest/configuration/extra-specs.html; a flavor's word counts before an image's.
type Tuning struct {
	// Sockets, Cores and Threads multiply to the guest's processors; all are 0 where nothing is asked for.
	Sockets, Cores, Threads int
	Cells                   []Cell // of its memory, in order; nil: one for all, and not told of
	Machine                 string // a kind of q35 by QEMU's name; "": the driver's choice
	BootMenu                bool   // the firmware offers a choice
	UEFI                    bool   // the firmware is UEFI and not a BIOS
	SecureBoot              Secure // of UEFI
	Locked                  bool   // the memory is never paged out
	TPM                     string // version of its trusted platform module: 1.2, 2.0; "": none. It is made at the first start, and lasts until Driver.Remove
	TPMModel                string // tpm-tis, tpm-crb
	HugePageKiB             int    // size of the memory's pages; 0: the host's ordinary ones
	Watchdog                string // what a watchdog does that was not fed: reset, poweroff, pause, none; "": there is none
	DiskBus                 string // of disks that name none: virtio, scsi, sata; "": the driver's choice
	CardModel               string // of network cards: virtio, e1000, e1000e, rtl8139; "": the driver's choice
	Agent                   bool   // it has a guest agent, which a channel leads to
	NoRandom                bool   // no source of randomness
	RandomBytes             int    // that it gives at most in RandomPeriod milliseconds; 0: no bound
	RandomPeriod            int
	CPUShares               int // weight of its processors' time, 2 to 262144; 0: the host's default
	CPUPeriod, CPUQuota     int // microseconds of processor time (Quota) that each processor has in Period; 0: no bound
	// Disk bounds each disk, by libvirt's names ("read_bytes_sec" …), in bytes or requests a second.
	Disk map[string]int
	// In and Out bound each card as the guest sees directions; kB a second, Burst in kB; 0: no bound.
	In, Out Rate
}

// Secure says whether a UEFI firmware starts only what is signed by whom it trusts: Microsoft's keys are enrolled.
type Secure string

// The kinds of secure boot, as Nova names them.
const (
	SecureOff      Secure = ""         // as "disabled"
	SecureRequired Secure = "required" // a host that cannot do it does not start the guest
	SecureOptional Secure = "optional" // as required where the host can do it, else off
)

// Cell is a NUMA cell of a guest.
type Cell struct {
	CPUs      []int // sorted
	MemoryMiB int
}

// Rate is a bound on traffic.
type Rate struct{ Average, Peak, Burst int }

// diskLimits are the bounds of disks that quota:disk_… may name.
var diskLimits = []string{"read_bytes_sec", "read_iops_sec", "write_bytes_sec", "write_iops_sec", "total_bytes_sec", "total_iops_sec"}

// Tuning reads the guest's Specs. What it does not know it leaves alone; a value that cannot be is an error of kind
// Invalid that names it.
func (g Guest) Tuning() (Tuning, error) {
	if len(g.Specs) == 0 {
		return Tuning{}, nil
	}
	r := specReader{g: g}
	t := Tuning{
		Watchdog: r.choice("hw:watchdog_action", "disabled", "reset", "poweroff", "pause", "none"),
		DiskBus:  r.choice("hw_disk_bus", "virtio", "scsi", "sata"), CardModel: r.choice("hw_vif_model", "virtio", "e1000", "e1000e", "rtl8139"),
		RandomBytes: r.number("hw_rng:rate_bytes", 1, 1<<30), RandomPeriod: r.number("hw_rng:rate_period", 1, 1<<30),
		CPUShares: r.number("quota:cpu_shares", 2, 262144), CPUPeriod: r.number("quota:cpu_period", 1000, 1000000), CPUQuota: r.number("quota:cpu_quota", 1000, 1<<40),
		NoRandom: r.choice("hw_rng:allowed", "True", "False", "true", "false", "TRUE", "FALSE") != "" && strings.EqualFold(g.Specs["hw_rng:allowed"], "false"),
	}
	if t.Watchdog == "disabled" {
		t.Watchdog = ""
	}
	t.Agent = r.flag("hw_qemu_guest_agent")
	t.Locked = r.flag("hw:locked_memory")
	if t.TPM = r.choice("hw:tpm_version", "1.2", "2.0"); t.TPM != "" {
		if t.TPMModel = r.choice("hw:tpm_model", "tpm-tis", "tpm-crb"); t.TPMModel == "" {
			t.TPMModel = "tpm-tis"
		}
		if t.TPMModel == "tpm-crb" && t.TPM != "2.0" {
			r.refuse("hw:tpm_model", t.TPMModel, "which takes hw:tpm_version=2.0")
		}
	}
	r.choice("hw:cpu_policy", "shared", "dedicated", "mixed") // Guest.CPUs says what comes of it
	t.UEFI, t.SecureBoot = r.firmware()
	t.HugePageKiB, t.BootMenu, t.Machine, t.Cells = r.pages(), r.flag("hw:boot_menu"), r.machine(), r.cells()
	r.topology(&t)
	for _, name := range diskLimits {
		if n := r.number("quota:disk_"+name, 1, 1<<50); n > 0 {
			if t.Disk == nil {
				t.Disk = map[string]int{}
			}
			t.Disk[name] = n
		}
	}
	for _, unit := range []string{"bytes_sec", "iops_sec"} {
		if n := t.Disk["total_"+unit]; n > 0 && (t.Disk["read_"+unit] > 0 || t.Disk["write_"+unit] > 0) {
			r.refuse("quota:disk_total_"+unit, strconv.Itoa(n), "and cannot stand beside a bound on reads or on writes")
		}
	}
	t.In, t.Out = r.rate("quota:vif_inbound_"), r.rate("quota:vif_outbound_")
	return t, r.err
}

// specReader reads specs; the first that cannot be is kept.
type specReader struct {
	g   Guest
	err error
}

// get gives a spec by its flavor's name, or else by its image's.
func (r *specReader) get(name string) (key, value string) {
	if v, ok := r.g.Specs[name]; ok {
		return name, strings.TrimSpace(v)
	}
	if image := strings.Replace(name, ":", "_", 1); strings.HasPrefix(name, "hw") {
		return image, strings.TrimSpace(r.g.Specs[image])
	}
	return name, ""
}

func (r *specReader) refuse(name, value, why string) {
	if r.err == nil {
		r.err = invalid(r.g, "%s is %q, %s", name, value, why)
	}
}

// choice reads a spec that is one of a few words; "" where it is not there.
func (r *specReader) choice(name string, words ...string) string {
	key, v := r.get(name)
	if v != "" && !slices.Contains(words, v) {
		r.refuse(key, v, "which is none of "+strings.Join(words, ", "))
	}
	return v
}

// flag reads a spec that is yes or no, in any of the words that Nova takes; false where it is not there.
func (r *specReader) flag(name string) bool {
	key, v := r.get(name)
	yes, ok := Flag(v)
	if !ok && v != "" {
		r.refuse(key, v, "which is neither yes nor no")
	}
	return yes
}

// Flag reads yes or no, in any of the words that Nova takes for it; ok is false for every other.
func Flag(v string) (yes, ok bool) {
	switch strings.ToLower(strings.TrimSpace(v)) {
	case "yes", "y", "true", "t", "on", "1":
		return true, true
	case "no", "n", "false", "f", "off", "0":
		return false, true
	}
	return false, false
}

// number reads a spec that is a whole number; 0 where it is not there.
func (r *specReader) number(name string, least, most int) int {
	key, v := r.get(name)
	if v == "" {
		return 0
	}
	n, err := strconv.Atoi(v)
	if err != nil || n < least || n > most {
		r.refuse(key, v, "which is not a whole number from "+strconv.Itoa(least)+" to "+strconv.Itoa(most))
		return 0
	}
	return n
}

func (r *specReader) rate(prefix string) Rate {
	const most = 1 << 32
	return Rate{Average: r.number(prefix+"average", 1, most), Peak: r.number(prefix+"peak", 1, most), Burst: r.number(prefix+"burst", 1, most)}
}

// units are the suffixes of a size of pages, in KiB.
var units = map[string]int{"": 1, "KB": 1, "KiB": 1, "MB": 1 << 10, "MiB": 1 << 10, "GB": 1 << 20, "GiB": 1 << 20}

// pages reads the size of the memory's pages; x86 has 4 KiB, 2 MiB and 1 GiB.
func (r *specReader) pages() int {
	key, v := r.get("hw:mem_page_size")
	switch v {
	case "", "small", "any":
		return 0
	case "large":
		return 2 << 10
	}
	digits := strings.TrimRight(v, "KMGiB")
	n, err := strconv.Atoi(digits)
	switch size := n * units[v[len(digits):]]; {
	case err == nil && size == 4:
		return 0
	case err == nil && (size == 2<<10 || size == 1<<20):
		return size
	}
	r.refuse(key, v, "which is none of small, large, any, 4KB, 2MB, 1GB")
	return 0
}

// topology divides the processors among what is asked for, and no more than what is bounded (hw:cpu_max_…): into as many sockets as may be, and then
// cores.
func (r *specReader) topology(t *Tuning) {
	parts := []string{"sockets", "cores", "threads"}
	var fixed, most [3]int
	asked := false
	for i, part := range parts {
		fixed[i], most[i] = r.number("hw:cpu_"+part, 1, 1024), r.number("hw:cpu_max_"+part, 1, 1<<16)
		asked = asked || fixed[i] > 0 || most[i] > 0
	}
	if r.err != nil || !asked {
		return
	}
	fits := func(i, n int) bool { return (fixed[i] == 0 || n == fixed[i]) && (most[i] == 0 || n <= most[i]) }
	for sockets := r.g.VCPUs; sockets > 0; sockets-- {
		if r.g.VCPUs%sockets != 0 || !fits(0, sockets) {
			continue
		}
		for cores := r.g.VCPUs / sockets; cores > 0; cores-- {
			if threads := r.g.VCPUs / sockets / cores; sockets*cores*threads == r.g.VCPUs && fits(1, cores) && fits(2, threads) {
				t.Sockets, t.Cores, t.Threads = sockets, cores, threads
				return
			}
		}
	}
	for _, part := range parts {
		for _, name := range []string{"hw:cpu_" + part, "hw:cpu_max_" + part} {
			if key, v := r.get(name); v != "" {
				r.refuse(key, v, "and with what else is asked for does not make its "+strconv.Itoa(r.g.VCPUs)+" virtual processors")
			}
		}
	}
}
