package libvirt

import (
	"reflect"
	"strings"
	"testing"

	"yakumo/fault"
	"yakumo/hypervisor"
)

// TestCPUsInDefinition: each way in which a guest runs on its host's CPUs, written and read again.
func TestCPUsInDefinition(t *testing.T) {
	two := map[string]string{"hw:numa_nodes": "2"}
	for name, c := range map[string]struct {
		cpus  hypervisor.HostCPUs
		specs map[string]string
		want  []string
	}{
		"any":    {hypervisor.HostCPUs{}, nil, []string{`<vcpu>2</vcpu>`}},
		"shared": {hypervisor.HostCPUs{Shared: []int{0, 1, 8}}, nil, []string{`<vcpu cpuset="0,1,8">2</vcpu>`}},
		"its own": {hypervisor.HostCPUs{Pins: map[int]int{0: 5, 1: 4}, Emulator: []int{4, 5}, Nodes: []int{1}}, nil,
			[]string{`<vcpu cpuset="4,5">2</vcpu>`, `<cputune><vcpupin vcpu="0" cpuset="5"></vcpupin><vcpupin vcpu="1" cpuset="4"></vcpupin><emulatorpin cpuset="4,5"></emulatorpin></cputune>`,
				`<numatune><memory mode="preferred" nodeset="1"></memory></numatune>`}},
		"mixed": {hypervisor.HostCPUs{Pins: map[int]int{1: 7}, Shared: []int{0, 1}, Emulator: []int{0, 1}}, nil,
			[]string{`<vcpu cpuset="0,1">2</vcpu>`, `<cputune><vcpupin vcpu="1" cpuset="7"></vcpupin><emulatorpin cpuset="0,1"></emulatorpin></cputune>`}},
		"cells": {hypervisor.HostCPUs{Pins: map[int]int{0: 1, 1: 9}, Emulator: []int{2}, Nodes: []int{0, 1}}, two,
			[]string{`<numatune><memnode cellid="0" mode="preferred" nodeset="0"></memnode><memnode cellid="1" mode="preferred" nodeset="1"></memnode></numatune>`}},
		"bound": {hypervisor.HostCPUs{Nodes: []int{1}, Bound: true}, map[string]string{"hw:mem_page_size": "large"},
			[]string{`<memoryBacking><hugepages><page size="2048" unit="KiB"></page></hugepages></memoryBacking>`, `<numatune><memory mode="strict" nodeset="1"></memory></numatune>`}},
		"bound cells": {hypervisor.HostCPUs{Nodes: []int{0, 1}, Bound: true}, two,
			[]string{`<numatune><memnode cellid="0" mode="strict" nodeset="0"></memnode><memnode cellid="1" mode="strict" nodeset="1"></memnode></numatune>`}},
		"real time": {hypervisor.HostCPUs{Pins: map[int]int{0: 3, 1: 2}, Emulator: []int{2, 3}, Realtime: []int{1}}, nil,
			[]string{`<vcpusched vcpus="1" scheduler="fifo" priority="1"></vcpusched>`, `<memoryBacking><nosharepages></nosharepages><locked></locked></memoryBacking>`}},
		"locked": {hypervisor.HostCPUs{}, map[string]string{"hw:mem_page_size": "2MB", "hw:locked_memory": "true"},
			[]string{`<memoryBacking><hugepages><page size="2048" unit="KiB"></page></hugepages><nosharepages></nosharepages><locked></locked></memoryBacking>`}},
		"bounded": {hypervisor.HostCPUs{Pins: map[int]int{0: 3, 1: 2}, Emulator: []int{2, 3}}, map[string]string{"quota:cpu_shares": "7"},
			[]string{`<cputune><shares>7</shares><vcpupin vcpu="0" cpuset="3">`}},
	} {
		g := sample()
		g.VCPUs, g.MemoryMiB, g.CPUs, g.Specs = 2, 64, c.cpus, c.specs
		if err := g.Check(); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		text, _, err := definition(g, platform{accelerator: "tcg"})
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range c.want {
			if !strings.Contains(text, want) {
				t.Errorf("%s: the definition lacks %s: %s", name, want, text)
			}
		}
		if got, err := parseCPUs(text); err != nil || !reflect.DeepEqual(got, c.cpus) {
			t.Errorf("%s: read as %+v, %v, want %+v", name, got, err, c.cpus)
		}
	}
	for name, bad := range map[string]hypervisor.HostCPUs{
		"twice": {Pins: map[int]int{0: 1, 1: 1}}, "of no processor": {Pins: map[int]int{2: 1}}, "negative": {Pins: map[int]int{0: -1}}, "real time without a CPU": {Realtime: []int{0}},
		"shared, negative": {Shared: []int{-1}}, "more nodes than cells": {Nodes: []int{0, 1}},
	} {
		g := sample()
		g.VCPUs, g.CPUs = 2, bad
		if err := g.Check(); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestElsewhereOnOtherCPUs: a guest that moves runs there on the CPUs that are its own there.
func TestElsewhereOnOtherCPUs(t *testing.T) {
	g := sample()
	g.VCPUs, g.CPUs = 2, hypervisor.HostCPUs{Pins: map[int]int{0: 5, 1: 4}, Emulator: []int{4, 5}, Nodes: []int{1}}
	here, _, err := definition(g, platform{accelerator: "tcg"})
	if err != nil {
		t.Fatal(err)
	}
	for _, cpus := range []hypervisor.HostCPUs{{Pins: map[int]int{0: 1, 1: 0}, Emulator: []int{0, 1}}, {Shared: []int{2, 3}}, {}} {
		g.CPUs = cpus
		there, _, err := definition(g, platform{accelerator: "tcg"})
		if err != nil {
			t.Fatal(err)
		}
		text, _, err := elsewhere(here, there, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := parseCPUs(text); err != nil || !reflect.DeepEqual(got, cpus) {
			t.Errorf("there it runs on %+v, %v, want %+v", got, err, cpus)
		}
	}
}

func TestNumbers(t *testing.T) {
	for text, want := range map[string][]int{"0": {0}, "0-3,^2,7": {0, 1, 3, 7}, "5,1": {1, 5}} {
		if got, ok := numbers(text); !ok || !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %v, %v", text, got, ok)
		}
	}
	for _, text := range []string{"", "x", "3-1", "-"} {
		if got, ok := numbers(text); ok {
			t.Errorf("%q: %v", text, got)
		}
	}
}
