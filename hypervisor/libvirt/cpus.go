package libvirt

import (
	"context"
	"encoding/xml"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"yakumo/hypervisor"
)

// On which CPUs of the host a guest runs, in its definition. libvirt sets the affinity of each of its threads, with control groups and without.

type vcpuXML struct {
	CPUSet string `xml:"cpuset,attr,omitempty"`
	N      int    `xml:",chardata"`
}

type pinXML struct {
	VCPU   int    `xml:"vcpu,attr"`
	CPUSet string `xml:"cpuset,attr"`
}

type cpuSetXML struct {
	CPUSet string `xml:"cpuset,attr"`
}

type numaTuneXML struct {
	Memory *memNodeXML  `xml:"memory"`
	Cells  []memNodeXML `xml:"memnode"`
}

type memNodeXML struct {
	Cell  string `xml:"cellid,attr,omitempty"`
	Mode  string `xml:"mode,attr"`
	Nodes string `xml:"nodeset,attr"`
}

// cpuSet writes numbers as libvirt reads them.
func cpuSet(list []int) string {
	out := make([]string, len(list))
	for i, c := range list {
		out[i] = strconv.Itoa(c)
	}
	return strings.Join(out, ",")
}

// numbers reads numbers as libvirt writes them, "0-3,^2,7", sorted.
func numbers(text string) (list []int, ok bool) {
	for part := range strings.SplitSeq(text, ",") {
		rest, out := strings.CutPrefix(strings.TrimSpace(part), "^")
		first, last, ranged := strings.Cut(rest, "-")
		if !ranged {
			last = first
		}
		a, errA := strconv.Atoi(first)
		b, errB := strconv.Atoi(last)
		if errA != nil || errB != nil || a < 0 || b < a || b-a > 1<<16 {
			return nil, false
		}
		for c := a; c <= b; c++ {
			if out {
				list = slices.DeleteFunc(list, func(x int) bool { return x == c })
			} else if !slices.Contains(list, c) {
				list = append(list, c)
			}
		}
	}
	slices.Sort(list)
	return list, true
}

// realtimePriority is the least of the kernel's real-time priorities, as Nova's: its own threads that have one come first.
const realtimePriority = 1

// pin puts into the definition on which CPUs the guest runs, and which nodes its memory, or that of its cells, is bound to or best in: best where a
// node that is full must not keep it from starting.
func (d *domainXML) pin(h hypervisor.HostCPUs, cells int) {
	d.VCPU.CPUSet = cpuSet(h.Shared)
	if len(h.Pins) > 0 {
		if d.CPUTune == nil {
			d.CPUTune = &cpuTuneXML{}
		}
		for _, v := range slices.Sorted(maps.Keys(h.Pins)) {
			d.CPUTune.Pins = append(d.CPUTune.Pins, pinXML{v, strconv.Itoa(h.Pins[v])})
		}
		if len(h.Realtime) > 0 {
			d.CPUTune.Sched = &schedXML{cpuSet(h.Realtime), "fifo", realtimePriority}
			d.lock()
		}
		if len(h.Emulator) > 0 {
			d.CPUTune.Emulator = &cpuSetXML{cpuSet(h.Emulator)}
		}
		if len(h.Pins) == d.VCPU.N && len(h.Emulator) > 0 {
			d.VCPU.CPUSet = cpuSet(h.Emulator) // threads that nothing else is said of
		}
	}
	mode := "preferred"
	if h.Bound {
		mode = "strict"
	}
	switch {
	case len(h.Nodes) == 1 && cells <= 1:
		d.NUMATune = &numaTuneXML{Memory: &memNodeXML{Mode: mode, Nodes: strconv.Itoa(h.Nodes[0])}}
	case len(h.Nodes) == cells && cells > 1:
		d.NUMATune = &numaTuneXML{}
		for i, n := range h.Nodes {
			d.NUMATune.Cells = append(d.NUMATune.Cells, memNodeXML{strconv.Itoa(i), mode, strconv.Itoa(n)})
		}
	}
}

var _ hypervisor.Pinner = (*Driver)(nil)

// CPUs implements hypervisor.Pinner.
func (d *Driver) CPUs(ctx context.Context, id string) (hypervisor.HostCPUs, error) {
	ref, _, err := d.known(ctx, id, "look at the CPUs of")
	if err != nil {
		return hypervisor.HostCPUs{}, err
	}
	out, err := d.ask(ctx, quick, procDomainGetXMLDesc, new(encoder).dom(ref).u32(0))
	if err != nil {
		return hypervisor.HostCPUs{}, refused(id, "look at the CPUs of", err)
	}
	text := out.str()
	if out.err != nil {
		return hypervisor.HostCPUs{}, out.err
	}
	return parseCPUs(text)
}

// parseCPUs reads a domain's definition. Of a guest all whose processors are pinned, where the others share is not known.
func parseCPUs(text string) (h hypervisor.HostCPUs, err error) {
	var dom struct {
		XMLName  xml.Name     `xml:"domain"`
		VCPU     vcpuXML      `xml:"vcpu"`
		CPUTune  cpuTuneXML   `xml:"cputune"`
		NUMATune *numaTuneXML `xml:"numatune"`
	}
	if err := xml.Unmarshal([]byte(text), &dom); err != nil {
		return h, fmt.Errorf("read the domain's definition: %w", err)
	}
	for _, p := range dom.CPUTune.Pins {
		if c, err := strconv.Atoi(p.CPUSet); err == nil {
			if h.Pins == nil {
				h.Pins = map[int]int{}
			}
			h.Pins[p.VCPU] = c
		}
	}
	if s := dom.CPUTune.Sched; s != nil {
		h.Realtime, _ = numbers(s.VCPUs)
	}
	if e := dom.CPUTune.Emulator; e != nil {
		h.Emulator, _ = numbers(e.CPUSet)
	}
	if dom.VCPU.CPUSet != "" && len(h.Pins) < dom.VCPU.N {
		h.Shared, _ = numbers(dom.VCPU.CPUSet)
	}
	if n := dom.NUMATune; n != nil {
		nodes := n.Cells
		if n.Memory != nil {
			nodes = append(nodes, *n.Memory)
		}
		for _, x := range nodes {
			if node, err := strconv.Atoi(x.Nodes); err == nil {
				h.Nodes, h.Bound = append(h.Nodes, node), x.Mode == "strict"
			}
		}
	}
	return h, nil
}
