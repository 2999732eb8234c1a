package model_test

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"yakumo/model"
)

// TestProcessorsOf: what a flavor and an image may ask of the host's CPUs, and Nova's words for what they may not.
func TestProcessorsOf(t *testing.T) {
	type m = map[string]string
	for _, c := range []struct {
		specs, hardware m
		want            model.Processors
		wrong           string // a part of it
	}{
		{nil, nil, model.Processors{}, ""},
		{m{"hw:cpu_policy": "shared"}, nil, model.Processors{}, ""},
		{m{"hw:cpu_policy": "dedicated"}, nil, model.Processors{Dedicated: []int{0, 1, 2, 3}}, ""},
		{nil, m{"hw_cpu_policy": "dedicated", "hw_cpu_thread_policy": "isolate"}, model.Processors{Dedicated: []int{0, 1, 2, 3}, Threads: "isolate"}, ""},
		{m{"hw:cpu_policy": "dedicated", "hw:cpu_thread_policy": "prefer"}, m{"hw_cpu_policy": "shared"}, model.Processors{Dedicated: []int{0, 1, 2, 3}}, ""},
		{m{"hw:cpu_policy": "dedicated", "hw:emulator_threads_policy": "isolate"}, nil, model.Processors{Dedicated: []int{0, 1, 2, 3}, Emulator: "isolate"}, ""},
		{m{"hw:cpu_policy": "mixed", "hw:cpu_dedicated_mask": "1-3,^2"}, nil, model.Processors{Dedicated: []int{1, 3}}, ""},
		{m{"hw:cpu_policy": "mixed", "hw:cpu_dedicated_mask": "^0"}, nil, model.Processors{Dedicated: []int{1, 2, 3}}, ""},
		{m{"resources:PCPU": "4"}, nil, model.Processors{Dedicated: []int{0, 1, 2, 3}}, ""},
		{m{"resources:PCPU": "4"}, m{"hw_cpu_thread_policy": "require"}, model.Processors{Dedicated: []int{0, 1, 2, 3}, Threads: "require"}, ""},
		{m{"resources:PCPU": "5", "hw:emulator_threads_policy": "isolate"}, nil, model.Processors{Dedicated: []int{0, 1, 2, 3}, Emulator: "isolate"}, ""},
		{m{"resources:VCPU": "4", "hw:emulator_threads_policy": "share"}, nil, model.Processors{}, ""},
		{m{"hw:cpu_policy": "dedicated", "hw:cpu_realtime": "yes", "hw:cpu_realtime_mask": "^0-1"}, nil, model.Processors{Dedicated: []int{0, 1, 2, 3}, Realtime: []int{2, 3}}, ""},
		{m{"hw:cpu_policy": "dedicated", "hw:cpu_realtime": "no", "hw:cpu_realtime_mask": "^0-1"}, nil, model.Processors{Dedicated: []int{0, 1, 2, 3}}, ""},
		{m{"hw:cpu_policy": "dedicated", "hw:emulator_threads_policy": "share"}, m{"hw_cpu_realtime": "true"}, model.Processors{Dedicated: []int{0, 1, 2, 3}, Realtime: []int{0, 1, 2, 3}, Emulator: "share"}, ""},
		{m{"hw:cpu_policy": "mixed", "hw:cpu_realtime": "True", "hw:cpu_realtime_mask": "1,2"}, nil, model.Processors{Dedicated: []int{1, 2}, Realtime: []int{1, 2}}, ""},

		{m{"hw:cpu_realtime": "yes"}, nil, model.Processors{}, "Cannot set realtime policy in a non dedicated cpu pinning policy"},
		{m{"hw:cpu_policy": "dedicated", "hw:cpu_realtime": "yes"}, nil, model.Processors{}, "Use of realtime CPUs requires either one or more non-realtime CPU(s) or offloaded emulator threads."},
		{m{"hw:cpu_policy": "dedicated", "hw:cpu_realtime": "yes", "hw:cpu_realtime_mask": "^0-3"}, nil, model.Processors{}, "Use of realtime CPUs requires"},
		{m{"hw:cpu_policy": "dedicated", "hw:cpu_realtime": "yes", "hw:cpu_realtime_mask": "0-4"}, nil, model.Processors{}, "Use of realtime CPUs requires"},
		{m{"hw:cpu_policy": "dedicated", "hw:cpu_realtime": "yes", "hw:cpu_realtime_mask": "all"}, nil, model.Processors{}, "Invalid inclusion expression 'all'"},
		{m{"hw:cpu_policy": "mixed", "hw:cpu_dedicated_mask": "1", "hw:cpu_realtime": "yes", "hw:cpu_realtime_mask": "1"}, nil, model.Processors{}, "can not be specified at the same time"},
		{m{"hw:cpu_policy": "mine"}, nil, model.Processors{}, "CPU policy requested from 'flavor extra specs' is invalid, given: 'mine', available: 'dedicated, mixed, shared'."},
		{nil, m{"hw_cpu_thread_policy": "one"}, model.Processors{}, "CPU thread policy requested from 'image properties' is invalid"},
		{m{"hw:cpu_policy": "shared"}, m{"hw_cpu_policy": "dedicated"}, model.Processors{}, "Image property 'hw_cpu_policy' is not permitted to override CPU pinning policy set against the flavor"},
		{m{"hw:cpu_policy": "mixed", "hw:cpu_dedicated_mask": "1"}, m{"hw_cpu_policy": "dedicated"}, model.Processors{}, "'hw_cpu_policy' is not permitted"},
		{m{"hw:cpu_policy": "dedicated", "hw:cpu_thread_policy": "isolate"}, m{"hw_cpu_thread_policy": "prefer"}, model.Processors{}, "'hw_cpu_thread_policy' is not permitted"},
		{m{"hw:cpu_thread_policy": "prefer"}, nil, model.Processors{}, "Cannot set cpu thread pinning policy in a non dedicated cpu pinning policy"},
		{m{"hw:emulator_threads_policy": "isolate"}, nil, model.Processors{}, "An isolated CPU emulator threads option requires a dedicated CPU policy option."},
		{m{"hw:cpu_policy": "dedicated", "hw:emulator_threads_policy": "all"}, nil, model.Processors{}, "given: 'all'"},
		{m{"hw:cpu_policy": "dedicated", "hw:cpu_dedicated_mask": "1"}, nil, model.Processors{}, "Cannot specify 'hw:cpu_dedicated_mask' without the 'mixed' policy."},
		{m{"hw:cpu_dedicated_mask": "1"}, nil, model.Processors{}, "without the 'mixed' policy."},
		{m{"hw:cpu_policy": "mixed"}, nil, model.Processors{}, "Must specify either 'hw:cpu_dedicated_mask'"},
		{m{"hw:cpu_policy": "mixed", "hw:cpu_dedicated_mask": "0-3"}, nil, model.Processors{}, "at least 1 pinned vCPU and 1 unpinned"},
		{m{"hw:cpu_policy": "mixed", "hw:cpu_dedicated_mask": "3-4"}, nil, model.Processors{}, "not a subset"},
		{m{"hw:cpu_policy": "mixed", "hw:cpu_dedicated_mask": "all"}, nil, model.Processors{}, "Invalid inclusion expression 'all'"},
		{m{"resources:PCPU": "3"}, nil, model.Processors{}, "exactly flavor.vcpus PCPUs"},
		{m{"resources:PCPU": "4", "hw:emulator_threads_policy": "isolate"}, nil, model.Processors{}, "flavor.vcpus + 1 PCPUs"},
		{m{"resources:PCPU": "4", "hw:cpu_policy": "dedicated"}, nil, model.Processors{}, "use one or the other"},
		{m{"resources:PCPU": "4", "resources:VCPU": "1"}, nil, model.Processors{}, "use one or the other"},
	} {
		got, wrong := model.ProcessorsOf(4, c.specs, c.hardware)
		if !reflect.DeepEqual(got, c.want) || (wrong == "") != (c.wrong == "") || !strings.Contains(wrong, c.wrong) {
			t.Errorf("%v, %v: %+v, %q, want %+v, %q", c.specs, c.hardware, got, wrong, c.want, c.wrong)
		}
	}
}

// TestCPUList reads what it writes in Nova's way, and nothing that is no list.
func TestCPUList(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		text := rapid.StringMatching(`[\^0-9,\- x]{0,12}`).Draw(rt, "text")
		list, ok := model.CPUList(text)
		if !slices.IsSorted(list) || len(slices.Compact(slices.Clone(list))) != len(list) {
			rt.Fatalf("%q: %v, %v", text, list, ok)
		}
		if strings.ContainsAny(text, "x") && ok || text == "" && ok {
			rt.Fatalf("%q is a list: %v", text, list)
		}
	})
	for _, bad := range []string{"1-", "-", "16384", "0-99999999", "2-1", "1,,2"} {
		if list, ok := model.CPUList(bad); ok {
			t.Errorf("%q is a list: %v", bad, list)
		}
	}
	if list, ok := model.CPUList("4,0-2,^1"); !ok || !slices.Equal(list, []int{0, 2, 4}) {
		t.Errorf("%v, %v", list, ok)
	}
}

// TestLoad: what a server takes of a host by its flavor, and of both hosts while it is resized.
func TestLoad(t *testing.T) {
	f := model.Flavor{VCPUs: 4, MemoryMiB: 1025, DiskGiB: 1, ExtraSpecs: map[string]string{"hw:cpu_policy": "mixed", "hw:cpu_dedicated_mask": "1-3", "hw:emulator_threads_policy": "isolate", "hw:mem_page_size": "large"}}
	s := &model.Server{Flavor: f}
	if got, want := s.Load(), (model.Load{VCPUs: 1, PCPUs: 4, MemoryMiB: 1025, DiskGiB: 1, PagesMiB: [2]int{1026, 0}}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	old := model.Flavor{VCPUs: 2, MemoryMiB: 512}
	s.Image.Hardware = map[string]string{"hw_mem_page_size": "1GB"}
	s.Move = &model.Move{Source: "a", Target: "b", OldFlavor: &old, NewFlavor: &f}
	if got, want := s.Taken("a"), (model.Load{VCPUs: 2, MemoryMiB: 512, PagesMiB: [2]int{0, 1024}}); got != want {
		t.Errorf("of the source %+v, want %+v", got, want)
	}
	if got := s.Taken("b"); got.PCPUs != 4 || got.PagesMiB != [2]int{1026, 0} {
		t.Errorf("of the target %+v", got)
	}
}
