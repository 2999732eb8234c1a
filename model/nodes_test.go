package model_test

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"yakumo/model"
)

// TestCellsOf: what cells a flavor and an image may ask for, and Nova's words for what they may not.
func TestCellsOf(t *testing.T) {
	type m = map[string]string
	two := m{"hw:numa_nodes": "2", "hw:numa_cpus.0": "0-3,^1", "hw:numa_mem.0": "70", "hw:numa_cpus.1": "1", "hw:numa_mem.1": "30"}
	change := func(name, value string) m {
		out := m{}
		for k, v := range two {
			out[k] = v
		}
		out[name] = value
		return out
	}
	for _, c := range []struct {
		specs, hardware m
		want            []model.Cell
		wrong           string
	}{
		{nil, nil, nil, ""},
		{m{"hw:numa_mem.0": "1"}, nil, nil, ""},
		{m{"hw:numa_nodes": "2"}, nil, []model.Cell{{CPUs: []int{0, 1}, MemoryMiB: 50}, {CPUs: []int{2, 3}, MemoryMiB: 50}}, ""},
		{nil, m{"hw_numa_nodes": "1"}, []model.Cell{{CPUs: []int{0, 1, 2, 3}, MemoryMiB: 100}}, ""},
		{two, nil, []model.Cell{{CPUs: []int{0, 2, 3}, MemoryMiB: 70}, {CPUs: []int{1}, MemoryMiB: 30}}, ""},
		{m{"hw:numa_nodes": "2"}, m{"hw_numa_nodes": "2"}, nil, "Image property 'hw_numa_nodes' is not permitted to override NUMA configuration set against the flavor"},
		{two, m{"hw_numa_cpus.1": "1"}, nil, "Image property 'hw_numa_cpus' is not permitted"},
		{m{"hw:numa_nodes": "0"}, nil, nil, "The property 'numa_nodes' cannot be '0'. It must be a number greater than 0"},
		{m{"hw:numa_nodes": "3"}, nil, nil, "cannot be evenly distributed across instance NUMA nodes"},
		{change("hw:numa_nodes", "3"), nil, nil, "CPU and memory allocation must be provided for all NUMA nodes"},
		{change("hw:numa_mem.1", ""), nil, nil, "CPU and memory allocation must be provided for all NUMA nodes"},
		{change("hw:numa_mem.1", "31"), nil, nil, "101 MB of memory assigned, but expected 100 MB"},
		{change("hw:numa_cpus.1", "4"), nil, nil, "CPU number 4 is larger than max 3"},
		{change("hw:numa_cpus.1", "0,1"), nil, nil, "CPU number 0 is assigned to two nodes"},
		{change("hw:numa_cpus.0", "0-2,^1"), nil, nil, "CPU number 3 is not assigned to any node"},
		{change("hw:numa_cpus.0", "x"), nil, nil, "Invalid inclusion expression 'x'"},
	} {
		got, wrong := model.CellsOf(4, 100, c.specs, c.hardware)
		if wrong == "" != (c.wrong == "") || !strings.Contains(wrong, c.wrong) || wrong == "" && !reflect.DeepEqual(got, c.want) {
			t.Errorf("%v, %v: %+v, %q, want %+v, %q", c.specs, c.hardware, got, wrong, c.want, c.wrong)
		}
	}
	if got, want := model.PagingOf(4, 100, change("hw:mem_page_size", "large"), nil), (model.Paging{KiB: 2048, Cells: []int{35, 15}}); !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
	if got, want := model.PagingOf(1, 1025, m{"hw:mem_page_size": "1GB"}, nil), (model.Paging{KiB: 1 << 20, Cells: []int{2}}); !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
}

// TestPools: guests with huge pages come and go; no node ever has less than what is given of it, and one cell fits where any node has room.
func TestPools(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		var all []model.HugePages
		for node := range rapid.IntRange(1, 4).Draw(rt, "nodes") {
			for _, kib := range model.PageSizes {
				all = append(all, model.HugePages{KiB: kib, Count: rapid.IntRange(0, 20).Draw(rt, "pages"), Node: node})
			}
		}
		var here [][]model.HugePages
		for range rapid.IntRange(1, 20).Draw(rt, "steps") {
			if len(here) > 0 && rapid.IntRange(0, 3).Draw(rt, "leaves") == 0 {
				here = here[1:]
				continue
			}
			pools := model.NewPools(all)
			for _, g := range here {
				pools.Take(g...)
			}
			want := model.Paging{KiB: rapid.SampledFrom(model.PageSizes[:]).Draw(rt, "size"), Cells: rapid.SliceOfN(rapid.IntRange(1, 10), 1, 3).Draw(rt, "cells")}
			nodes, ok := pools.Fit(want, func(node, cell int) int { return (node + cell) % 2 })
			room := slices.ContainsFunc(pools, func(p model.HugePages) bool { return p.KiB == want.KiB && p.Count >= want.Cells[0] })
			if len(want.Cells) == 1 && ok != room {
				rt.Fatalf("%+v of %+v: %v", want, pools, ok)
			}
			if ok {
				here = append(here, want.On(nodes))
			}
			for _, p := range all {
				sum := 0
				for _, g := range here {
					for _, x := range g {
						if x.KiB == p.KiB && x.Node == p.Node {
							sum += x.Count
						}
					}
				}
				if sum > p.Count {
					rt.Fatalf("%d pages of %+v are given", sum, p)
				}
			}
		}
	})
}
