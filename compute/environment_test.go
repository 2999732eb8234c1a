package compute_test

import (
	"strings"
	"testing"

	"yakumo/compute"
	"yakumo/compute/computetest"
	"yakumo/fault"
	"yakumo/model"
	"yakumo/store"
)

// TestEnvironmentMoves: one word moves all servers of a project to another zone, running ones without a stop, and one word moves
// them back; others stay where they are.
func TestEnvironmentMoves(t *testing.T) {
	p := newPair(t)
	zone := func(id model.ID, z string) {
		p.update(func(tx *store.Tx) error {
			_, err := p.c.SetHost(tx, id, func(h *model.Host) { h.Zone = z })
			return err
		})
	}
	zone(p.b.ID(), "east")
	p.update(func(tx *store.Tx) error {
		return store.Projects.Put(tx, &model.Project{ID: project})
	})
	in := func(z string) func(*compute.NewServer) { return func(n *compute.NewServer) { n.Zone = z } }
	ids := []model.ID{p.s.ID}
	for range 3 {
		ids = append(ids, p.create(in("nova")).ID)
		p.phase(ids[len(ids)-1], model.PhaseReady)
	}
	off := ids[3]
	p.must(p.do(p.c.Stop, off))
	p.phase(off, model.PhaseReady)

	relocate := func(sc compute.Scope, project model.ID, zone string) error {
		_, err := p.s0().Update(t.Context(), func(tx *store.Tx) error { _, err := p.c.Relocate(tx, sc, project, zone); return err })
		return err
	}
	release := func(sc compute.Scope) error {
		_, err := p.s0().Update(t.Context(), func(tx *store.Tx) error { return p.c.Release(tx, sc, project) })
		return err
	}
	stranger := compute.Scope{ProjectID: strings.Repeat("2", 32)}
	for name, err := range map[string]error{"a stranger's": relocate(stranger, project, "east"), "no project": relocate(compute.Scope{Admin: true}, "none", "east"),
		"nothing to release": release(p.scope())} {
		if !fault.Is(err, fault.NotFound) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, z := range []string{"", "mars"} {
		if err := relocate(p.scope(), project, z); !fault.Is(err, fault.Invalid) {
			t.Errorf("to %q: %v", z, err)
		}
	}
	if n := len(compute.Strays(p.s0().Snapshot(), project, "nova")); n != 0 {
		t.Errorf("%d servers are not where they are", n)
	}

	for i, to := range []string{"east", "nova"} {
		host, source := []model.ID{p.b.ID(), p.a.ID()}[i], []*computetest.Host{p.a, p.b}[i]
		p.busy.Store(true)
		p.must(relocate(p.scope(), project, to))
		p.must(relocate(p.scope(), project, to)) // said twice
		p.wait("two move", func(snap store.Snapshot) bool {
			left := compute.Strays(snap, project, to)
			return len(left) == 4 && left[0].Moving && left[1].Moving && !left[2].Moving
		})
		if err := release(stranger); !fault.Is(err, fault.NotFound) {
			t.Errorf("released by a stranger: %v", err)
		}
		source.Stop() // it looks again when it runs, and has not begun to send by then
		p.busy.Store(false)
		source.Run()
		p.wait("all are in "+to, func(snap store.Snapshot) bool { return len(compute.Strays(snap, project, to)) == 0 })
		for _, id := range ids {
			s := p.phase(id, model.PhaseReady)
			if want := map[bool]string{false: to}[id == ids[0]]; s.Host != host || s.Zone != want || s.Move != nil {
				t.Errorf("server %s is on %s, of the zone %q: want %s, %q", id, s.Host, s.Zone, host, want)
			}
			if boots := p.guests()[id]; id != off && boots != 1 {
				t.Errorf("server %s was started %d times", id, boots)
			}
		}
		// A new one that asks for no zone is made there.
		if s := p.phase(p.create().ID, model.PhaseReady); s.Host != host {
			t.Errorf("a new server is on %s", s.Host)
		} else {
			ids = append(ids, s.ID)
		}
		if i == 0 {
			ids = ids[:4]
			p.update(func(tx *store.Tx) error { return p.c.Delete(tx, p.scope(), p.newest()) })
			p.wait("it is gone", func(snap store.Snapshot) bool { return store.Servers.Count(snap, "project", project) == 4 })
		}
	}
	if twice := p.wire.Twice(); twice != "" {
		t.Error(twice)
	}
	p.must(release(p.scope()))
	p.update(func(tx *store.Tx) error {
		return store.Environments.Put(tx, &model.Environment{ProjectID: "gone", Zone: "nova"})
	})
	p.wait("a project that is gone has no environment", func(snap store.Snapshot) bool {
		_, ok := store.Environments.Get(snap, "gone")
		return !ok
	})
}

// guests are the starts of the guests of both hosts.
func (p *pair) guests() map[model.ID]int {
	out := map[model.ID]int{}
	for _, g := range []map[model.ID]int{p.a.Guests(), p.b.Guests()} {
		for id, n := range g {
			out[id] = max(out[id], n)
		}
	}
	return out
}

// newest gives the server that was made last.
func (p *pair) newest() model.ID {
	var last *model.Server
	for s := range store.Servers.All(p.s0().Snapshot()) {
		if last == nil || s.CreatedAt.After(last.CreatedAt) {
			last = s
		}
	}
	return last.ID
}
