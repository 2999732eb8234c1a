package model

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Processors is what a server asks of its host's CPUs. The zero value shares them with all others that do.
type Processors struct {
	// Dedicated are the virtual processors, from 0, that each have a CPU of the host for themselves, sorted.
	Dedicated []int
	// Threads says which: ThreadsPrefer, ThreadsRequire or ThreadsIsolate.
	Threads string
	// Realtime are those of them that come before their host's own work, sorted; the guest's memory is locked then.
	Realtime []int
	// Emulator says where the threads run that are no virtual processor: "" on the guest's own CPUs, "share" on those
	// that guests share, "isolate" on one more of its own.
	Emulator string
}

// The policies of CPU threads, by Nova's words.
const (
	ThreadsPrefer  = ""        // threads of one core together where any core has as many free
	ThreadsRequire = "require" // only threads that have a sibling free
	ThreadsIsolate = "isolate" // one thread of each core, whose siblings run nothing
)

// Own gives how many of a host's CPUs are the server's alone.
func (p *Processors) Own() int {
	if n := len(p.Dedicated); n > 0 && p.Emulator == "isolate" {
		return n + 1
	}
	return len(p.Dedicated)
}

// processorSpecs are what ProcessorsOf reads of a flavor; without any of them, and of an image, there is nothing to read.
var processorSpecs = []string{"hw:cpu_policy", "hw:cpu_thread_policy", "hw:cpu_dedicated_mask", "hw:emulator_threads_policy", "hw:cpu_realtime", "hw:cpu_realtime_mask", "resources:PCPU", "resources:VCPU"}

// ProcessorsOf reads hw:cpu_policy and what belongs to it of a flavor's extra specs and an image's properties, by Nova's
// rules for which may say what (https://docs.openstack.org/nova/latest/admin/cpu-topologies.html). wrong, in Nova's words, says
// why no server can have them; "": it can.
func ProcessorsOf(vcpus int, specs, hardware map[string]string) (p Processors, wrong string) {
	if hardware["hw_cpu_policy"] == "" && hardware["hw_cpu_thread_policy"] == "" && hardware["hw_cpu_realtime"] == "" && !slices.ContainsFunc(processorSpecs, func(k string) bool { return specs[k] != "" }) {
		return Processors{}, ""
	}
	word := func(m map[string]string, key string) string { return strings.TrimSpace(m[key]) }
	no := func(format string, args ...any) (Processors, string) {
		return Processors{}, fmt.Sprintf(format, args...)
	}
	policies, threads := []string{"dedicated", "mixed", "shared"}, []string{"isolate", "prefer", "require"}
	of, policy := [2]string{word(specs, "hw:cpu_policy"), word(hardware, "hw_cpu_policy")}, ""
	ofThread := [2]string{word(specs, "hw:cpu_thread_policy"), word(hardware, "hw_cpu_thread_policy")}
	emulator := word(specs, "hw:emulator_threads_policy")
	for i, source := range []string{"flavor extra specs", "image properties"} {
		if of[i] != "" && !slices.Contains(policies, of[i]) {
			return no("CPU policy requested from '%s' is invalid, given: '%s', available: '%s'.", source, clip(of[i]), strings.Join(policies, ", "))
		}
		if ofThread[i] != "" && !slices.Contains(threads, ofThread[i]) {
			return no("CPU thread policy requested from '%s' is invalid, given: '%s', available: '%s'.", source, clip(ofThread[i]), strings.Join(threads, ", "))
		}
	}
	if emulator != "" && emulator != "share" && emulator != "isolate" {
		return no("CPU emulator threads option requested is invalid, given: '%s', available: 'isolate, share'.", clip(emulator))
	}
	// A flavor's word is the operator's: an image may ask for less, and for more only where the flavor says nothing.
	switch {
	case of[0] == "shared" && (of[1] == "dedicated" || of[1] == "mixed"), of[0] == "mixed" && of[1] == "dedicated":
		return no("Image property 'hw_cpu_policy' is not permitted to override CPU pinning policy set against the flavor")
	case of[0] != "":
		policy = of[0]
	default:
		policy = of[1]
	}
	if ofThread[0] != "" && ofThread[0] != "prefer" && ofThread[1] != "" && ofThread[1] != ofThread[0] {
		return no("Image property 'hw_cpu_thread_policy' is not permitted to override CPU thread pinning policy set against the flavor")
	}
	thread := ofThread[0]
	if thread == "" {
		thread = ofThread[1]
	}
	own, wrong := resourcesOf(vcpus, specs, emulator)
	switch {
	case wrong != "":
		return Processors{}, wrong
	case own != "" && policy != "":
		return no("It is not possible to use the 'resources:VCPU' or 'resources:PCPU' extra specs in combination with the 'hw:cpu_policy' extra spec or 'hw_cpu_policy' image metadata property; use one or the other")
	case own != "":
		policy = own
	}
	mask := strings.TrimSpace(specs["hw:cpu_dedicated_mask"])
	realtime := isYes(cmp.Or(word(specs, "hw:cpu_realtime"), word(hardware, "hw_cpu_realtime")))
	realMask := ""
	if realtime {
		realMask = cmp.Or(word(hardware, "hw_cpu_realtime_mask"), word(specs, "hw:cpu_realtime_mask"))
	}
	switch {
	case (policy == "" || policy == "shared") && thread != "":
		return no("Cannot set cpu thread pinning policy in a non dedicated cpu pinning policy")
	case (policy == "" || policy == "shared") && emulator == "isolate":
		return no("An isolated CPU emulator threads option requires a dedicated CPU policy option.")
	case realtime && policy != "dedicated" && policy != "mixed":
		return no("Cannot set realtime policy in a non dedicated cpu pinning policy")
	case policy != "mixed" && mask != "":
		return no("Cannot specify 'hw:cpu_dedicated_mask' without the 'mixed' policy.")
	case policy == "" || policy == "shared":
		return Processors{}, ""
	case policy == "mixed" && (mask == "") == (realMask == ""):
		return no("Must specify either 'hw:cpu_dedicated_mask' or 'hw:cpu_realtime_mask' when using 'mixed' CPU policy. 'hw:cpu_dedicated_mask' and 'hw:cpu_realtime_mask' can not be specified at the same time, or be specified with none of them.")
	}
	if p = (Processors{Threads: thread, Emulator: emulator}); thread == "prefer" {
		p.Threads = ThreadsPrefer
	}
	all := make([]int, vcpus)
	for c := range all {
		all[c] = c
	}
	if realtime {
		p.Realtime = all
		if realMask != "" {
			list, ok := masked(realMask, vcpus)
			if !ok {
				return no("Invalid inclusion expression '%s'", clip(realMask))
			}
			p.Realtime = list
		}
		// QEMU's own threads must not wait for processors that never do.
		n := len(p.Realtime)
		if n == 0 || p.Realtime[n-1] >= vcpus || n == vcpus && emulator == "" {
			return no("Use of realtime CPUs requires either one or more non-realtime CPU(s) or offloaded emulator threads.")
		}
	}
	if policy == "dedicated" {
		p.Dedicated = all
		return p, ""
	}
	if mask == "" { // those that are real-time are dedicated
		mask = realMask
	}
	list, ok := masked(mask, vcpus)
	switch {
	case !ok:
		return no("Invalid inclusion expression '%s'", clip(mask))
	case len(list) > 0 && list[len(list)-1] >= vcpus:
		return no(`Mixed instance dedicated vCPU(s) mask is not a subset of vCPUs in the flavor. See "hw:cpu_dedicated_mask"`)
	case len(list) == 0 || len(list) == vcpus:
		return no("Mixed instance must have at least 1 pinned vCPU and 1 unpinned vCPU. See 'hw:cpu_dedicated_mask'.")
	}
	p.Dedicated = list
	return p, ""
}

// masked reads processors of a mask; one that begins with what is left out means all others.
func masked(mask string, vcpus int) (list []int, ok bool) {
	if strings.HasPrefix(mask, "^") {
		mask = "0-" + strconv.Itoa(vcpus-1) + "," + mask
	}
	return CPUList(mask)
}

// isYes reads a word for yes, as Nova does.
func isYes(v string) bool { return slices.Contains(yes, strings.ToLower(v)) }

// resourcesOf reads the other words for a policy: "dedicated" for resources:PCPU, "shared" for resources:VCPU, "" for neither.
func resourcesOf(vcpus int, specs map[string]string, emulator string) (policy, wrong string) {
	own, shared := strings.TrimSpace(specs["resources:PCPU"]), strings.TrimSpace(specs["resources:VCPU"])
	n, bad := strconv.Atoi(own)
	switch {
	case own == "" || own == "0":
		if shared != "" && shared != "0" {
			return "shared", ""
		}
		return "", ""
	case shared != "" && shared != "0":
		return "", "It is not possible to specify both 'resources:VCPU' and 'resources:PCPU' extra specs; use one or the other"
	case emulator == "isolate" && (bad != nil || n != vcpus+1):
		return "", "You have requested 'hw:emulator_threads_policy=isolate' but have not requested sufficient PCPUs to handle this policy; you must allocate exactly flavor.vcpus + 1 PCPUs."
	case emulator != "isolate" && (bad != nil || n != vcpus):
		return "", "There is a mismatch between the number of PCPUs requested via 'resourcesNN:PCPU' and the flavor); you must allocate exactly flavor.vcpus PCPUs"
	}
	return "dedicated", ""
}

// maxCPU bounds the numbers of CPUs.
const maxCPU = 1 << 14

// CPUList reads numbers of CPUs as Nova writes them, "0-3,^2,7", sorted. Not ok: it is none, or has numbers of 2^14 and above.
func CPUList(text string) (list []int, ok bool) {
	has, not := map[int]bool{}, map[int]bool{}
	for part := range strings.SplitSeq(text, ",") {
		part = strings.TrimSpace(part)
		in := has
		if rest, out := strings.CutPrefix(part, "^"); out {
			in, part = not, rest
		}
		first, last, ranged := strings.Cut(part, "-")
		if !ranged {
			last = first
		}
		a, errA := strconv.Atoi(strings.TrimSpace(first))
		b, errB := strconv.Atoi(strings.TrimSpace(last))
		if errA != nil || errB != nil || a < 0 || b < a || b >= maxCPU {
			return nil, false
		}
		for c := a; c <= b; c++ {
			in[c] = true
		}
	}
	for c := range has {
		if !not[c] {
			list = append(list, c)
		}
	}
	slices.Sort(list)
	return list, true
}

// clip keeps a user's text from filling an answer.
func clip(s string) string {
	if len(s) > 64 {
		return strings.ToValidUTF8(s[:64], "") + "…"
	}
	return s
}
