package model_test

import (
	"encoding/json"
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"yakumo/model"
)

// drawCores makes a host of a few nodes, whose cores have one to four threads, some of which are kept and some of these taken.
func drawCores(rt *rapid.T) (kept []model.HostCPU, taken map[int]bool, nodes int) {
	nodes, threads := rapid.IntRange(1, 3).Draw(rt, "nodes"), rapid.SampledFrom([]int{1, 2, 2, 4}).Draw(rt, "threads")
	taken = map[int]bool{}
	for id := range threads * rapid.IntRange(1, 8).Draw(rt, "cores") {
		x := model.HostCPU{ID: id, Node: id / threads % nodes}
		for t := range threads {
			x.Siblings = append(x.Siblings, id-id%threads+t)
		}
		if rapid.IntRange(0, 7).Draw(rt, "kept") > 0 {
			kept = append(kept, x)
		}
		if rapid.IntRange(0, 3).Draw(rt, "taken") == 0 {
			taken[id] = true
		}
	}
	return kept, taken, nodes
}

// TestChoose: who fits by what is counted has a choice, of CPUs that are free, each once, by the policy of threads; and what fits into one node is
// in one.
func TestChoose(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		kept, taken, nodes := drawCores(rt)
		cores := model.NewCores(kept)
		cores.Take(slices.Collect(maps.Keys(taken))...)
		at, free := map[int]model.HostCPU{}, map[int]bool{}
		for _, x := range kept {
			at[x.ID], free[x.ID] = x, !taken[x.ID]
		}
		p := model.Processors{Threads: rapid.SampledFrom([]string{"", "require", "isolate"}).Draw(rt, "threads")}
		if rapid.Bool().Draw(rt, "extra") {
			p.Emulator = "isolate"
		}
		var cells [][]int
		for range rapid.IntRange(1, 3).Draw(rt, "cells") {
			var cell []int
			for range rapid.IntRange(0, 4).Draw(rt, "processors") {
				cell = append(cell, len(p.Dedicated))
				p.Dedicated = append(p.Dedicated, len(p.Dedicated))
			}
			cells = append(cells, cell)
		}
		own, ok := cores.Choose(&p, cells, nodes, nil)
		if fits := cores.Free().Fits(&p); ok != fits {
			rt.Fatalf("%+v of %+v: chosen is %v, and it fits is %v", p, cores.Free(), ok, fits)
		}
		if !ok {
			return
		}
		pins := slices.Collect(maps.Values(own.Pins))
		list := slices.Sorted(slices.Values(slices.Concat(pins, own.Emulator, own.Idle)))
		if len(own.Pins) != len(p.Dedicated) || len(pins)+len(own.Emulator) != p.Own() || len(slices.Compact(slices.Clone(list))) != len(list) {
			rt.Fatalf("%v are given %+v", cells, own)
		}
		in := map[int]int{}
		for _, id := range list {
			if !free[id] {
				rt.Fatalf("CPU %d is not free: %+v", id, own)
			}
		}
		for _, id := range pins {
			in[at[id].Node]++
			for _, sibling := range at[id].Siblings {
				if p.Threads == "isolate" && sibling != id && !slices.Contains(own.Idle, sibling) {
					rt.Fatalf("CPU %d may be somebody's, a sibling of %d: %+v", sibling, id, own)
				}
			}
			if p.Threads == "require" && !slices.ContainsFunc(at[id].Siblings, func(o int) bool { return o != id && free[o] }) {
				rt.Fatalf("CPU %d has no sibling that was free: %+v", id, own)
			}
		}
		if p.Threads != "isolate" && own.Idle != nil {
			rt.Fatalf("%v are idle", own.Idle)
		}
		room := map[int]int{}
		for id, x := range at {
			if free[id] && p.Threads == "" {
				room[x.Node]++
			}
		}
		if len(cells) == 1 && len(pins) > 0 && len(room) > 0 && slices.Max(slices.Collect(maps.Values(room))) >= len(pins) && len(in) > 1 {
			rt.Fatalf("%d processors are in %v, with %v free", len(pins), in, room)
		}
		if own.Nodes != nil && (nodes == 1 || len(own.Nodes) != len(cells)) {
			rt.Fatalf("%v of %d nodes have memory in %v", cells, nodes, own.Nodes)
		}
	})
	// Two NUMA nodes of two cores of two threads: 0 to 3 and 4 to 7.
	var host []model.HostCPU
	for id := range 8 {
		host = append(host, model.HostCPU{ID: id, Node: id / 4, Siblings: []int{id &^ 1, id | 1}})
	}
	for _, c := range []struct {
		free     []int
		cells    [][]int
		emulator string
		threads  string
		want     string // "" where there is none
	}{
		{[]int{1, 2, 3, 5, 6, 7}, [][]int{{0}}, "", "", `{"Pins":{"0":1},"Emulator":null,"Idle":null,"Nodes":[0]}`},                            // no whole core is broken
		{[]int{1, 2, 3, 5, 6, 7}, [][]int{{0, 1}}, "", "", `{"Pins":{"0":2,"1":3},"Emulator":null,"Idle":null,"Nodes":[0]}`},                   // threads of one core
		{[]int{1, 5, 6, 7}, [][]int{{0, 1}}, "", "", `{"Pins":{"0":6,"1":7},"Emulator":null,"Idle":null,"Nodes":[1]}`},                         // the node that has enough
		{[]int{1, 2, 3, 5, 6, 7}, [][]int{{0}, {1, 2}}, "", "", `{"Pins":{"0":1,"1":6,"2":7},"Emulator":null,"Idle":null,"Nodes":[0,1]}`},      // a node for each cell
		{[]int{1, 5}, [][]int{{0, 1}}, "", "", `{"Pins":{"0":1,"1":5},"Emulator":null,"Idle":null,"Nodes":[0]}`},                               // no node has enough
		{[]int{2, 3, 5, 6, 7}, [][]int{{0, 1, 2}}, "isolate", "", `{"Pins":{"0":6,"1":7,"2":5},"Emulator":[2],"Idle":null,"Nodes":[1]}`},       // the rest is elsewhere
		{[]int{1, 2, 3, 5, 6, 7}, [][]int{{1}}, "isolate", "", `{"Pins":{"1":1},"Emulator":[2],"Idle":null,"Nodes":[0]}`},                      // beside them
		{[]int{1, 2, 3, 5}, [][]int{{0}}, "", "require", `{"Pins":{"0":2},"Emulator":null,"Idle":null,"Nodes":[0]}`},                           // a sibling is free
		{[]int{1, 2, 5, 7}, [][]int{{0}}, "", "require", ""},                                                                                   // none is
		{[]int{1, 2, 3, 6, 7}, [][]int{{0, 1, 2}}, "", "require", `{"Pins":{"0":2,"1":3,"2":6},"Emulator":null,"Idle":null,"Nodes":[0]}`},      // an odd one
		{[]int{1, 2, 3, 6, 7}, [][]int{{0, 1}}, "", "isolate", `{"Pins":{"0":2,"1":6},"Emulator":null,"Idle":[3,7],"Nodes":[0]}`},              // a core for each
		{[]int{1, 2, 3, 6, 7}, [][]int{{0, 1, 2}}, "", "isolate", ""},                                                                          // there are two
		{[]int{1, 2, 3, 6, 7}, [][]int{{0, 1}}, "isolate", "isolate", `{"Pins":{"0":2,"1":6},"Emulator":[1],"Idle":[3,7],"Nodes":[0]}`},        // of what is broken already
		{[]int{2, 3, 6, 7}, [][]int{{0, 1}}, "isolate", "isolate", ""},                                                                         // an idle one is nobody's
		{[]int{0, 1, 2, 3, 6, 7}, [][]int{{0}, {1}}, "isolate", "isolate", `{"Pins":{"0":6,"1":0},"Emulator":[2],"Idle":[1,7],"Nodes":[1,0]}`}, // it has one more core
	} {
		cores := model.NewCores(host)
		for id := range 8 {
			if !slices.Contains(c.free, id) {
				cores.Take(id)
			}
		}
		p := model.Processors{Threads: c.threads, Emulator: c.emulator, Dedicated: slices.Concat(c.cells...)}
		own, ok := cores.Choose(&p, c.cells, 2, nil)
		got, err := json.Marshal(own)
		if err != nil || ok != (c.want != "") || ok && string(got) != c.want {
			t.Errorf("%s of %v for %v: %s, %v, want %s", c.threads, c.free, c.cells, got, ok, c.want)
		}
	}
}
