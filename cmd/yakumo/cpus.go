package main

import (
	"os"
	"slices"
	"strings"

	"yakumo/fault"
	"yakumo/model"
)

// onlineCPUs says which CPUs the kernel uses (Documentation/admin-guide/cputopology.rst).
const onlineCPUs = "/sys/devices/system/cpu/online"

// parseDedicated reads --dedicated-cpus: CPUs that the host has, "2-7,^4,9"; "": none.
func parseDedicated(text, hypervisor, online string) ([]int, error) {
	if text == "" {
		return nil, nil
	}
	list, ok := model.CPUList(text)
	if !ok {
		return nil, fault.New(fault.Invalid, "--dedicated-cpus %s: it must be numbers of CPUs, such as 2-7,9.", text)
	}
	if hypervisor == "lxc" {
		return nil, fault.New(fault.Invalid, "--dedicated-cpus %s: containers have no CPUs for themselves.", text)
	}
	b, err := os.ReadFile(online)
	if err != nil {
		return nil, err
	}
	have, ok := model.CPUList(strings.TrimSpace(string(b)))
	if !ok {
		return nil, fault.New(fault.Internal, "%s is not a list of CPUs: %q.", online, b)
	}
	for _, c := range list {
		if !slices.Contains(have, c) {
			return nil, fault.New(fault.Invalid, "--dedicated-cpus %s: this host has no CPU %d (it has %s).", text, c, strings.TrimSpace(string(b)))
		}
	}
	return list, nil
}
