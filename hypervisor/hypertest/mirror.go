package hypertest

import (
	"testing"
	"time"

	"yakumo/fault"
	"yakumo/hypervisor"
)

// eventually waits until ok.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	end := time.After(Deadline)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-end:
			t.Fatalf("waited too long for %s", what)
		}
	}
}

// testMirror has the disk of a guest that writes to it all the time go from place to place.
func testMirror(t *testing.T, h Host) {
	d, ctx := h.Open(t), testContext(t)
	m, ok := d.(hypervisor.Mirrorer)
	if !ok {
		return
	}
	w := workshop(t, h)
	g, places := w.Busy(t), w.Places(t)
	serial := g.Disks[0].Serial
	wantKind(t, m.Mirror(ctx, g.ID, serial, places[0]), fault.NotFound)
	wantKind(t, m.EndMirror(ctx, g.ID, serial), fault.NotFound)
	define(t, d, g)
	wantKind(t, m.Mirror(ctx, g.ID, serial, places[0]), fault.Conflict)
	wantKind(t, m.Turn(ctx, g.ID, serial, places[0]), fault.Conflict)
	must(t, m.EndMirror(ctx, g.ID, serial))
	must(t, d.Start(ctx, g.ID))
	waitLog(t, d, g.ID, greetings(1))
	wantKind(t, m.Mirror(ctx, g.ID, "other", places[0]), fault.NotFound)
	_, err := m.Mirrored(ctx, g.ID, "other", places[0])
	wantKind(t, err, fault.NotFound)
	look := func(to hypervisor.Disk) hypervisor.MirrorProgress {
		t.Helper()
		p, err := m.Mirrored(ctx, g.ID, serial, to)
		must(t, err)
		return p
	}
	near := func(to hypervisor.Disk) {
		t.Helper()
		eventually(t, "the copy to be near its end", func() bool {
			p := look(to)
			if !p.Going || p.Turned {
				t.Fatalf("the copy is %+v", p)
			}
			return p.Near && p.Total > 0 && p.Done <= p.Total
		})
	}
	counts := func(on hypervisor.Disk, from uint32) {
		t.Helper()
		eventually(t, "the guest to write", func() bool { return w.Count(t, g.ID, on) > from })
	}

	// What is not being copied is not turned, and the guest is held by then.
	if p := look(places[0]); p.Going || p.Turned {
		t.Errorf("before a copy was begun it is %+v", p)
	}
	wantKind(t, m.Turn(ctx, g.ID, serial, places[0]), fault.Conflict)
	wantPower(t, d, g.ID, hypervisor.Paused)
	must(t, d.Start(ctx, g.ID))

	// One that is ended leaves the guest where it was.
	counts(g.Disks[0], 0)
	must(t, m.Mirror(ctx, g.ID, serial, places[0]))
	near(places[0])
	must(t, m.EndMirror(ctx, g.ID, serial))
	must(t, m.EndMirror(ctx, g.ID, serial))
	if p := look(places[0]); p.Going || p.Turned {
		t.Errorf("after a copy was ended it is %+v", p)
	}
	counts(g.Disks[0], w.Count(t, g.ID, g.Disks[0]))

	for n, to := range places {
		must(t, m.Mirror(ctx, g.ID, serial, to))
		must(t, m.Mirror(ctx, g.ID, serial, to)) // begun anew
		if n == 0 {
			// Neither the daemon nor whoever began it has to be there for it to go on.
			h.KillDaemon(t)
			h.StartDaemon(t)
			d = h.Open(t)
			m = d.(hypervisor.Mirrorer)
		}
		near(to)
		there := g
		there.Disks = append([]hypervisor.Disk(nil), g.Disks...)
		there.Disks[0].Path, there.Disks[0].Format, there.Disks[0].Network, there.Disks[0].Everywhere = to.Path, to.Format, to.Network, to.Everywhere
		must(t, d.Ensure(ctx, there))
		must(t, m.Turn(ctx, g.ID, serial, to))
		wantPower(t, d, g.ID, hypervisor.Paused)
		held := w.Count(t, g.ID, to)
		if was := w.Count(t, g.ID, g.Disks[0]); was != held || held == 0 {
			t.Fatalf("the guest is held, and has written %d times to its old disk and %d times to the new one", was, held)
		}
		must(t, m.Turn(ctx, g.ID, serial, to))
		if p := look(to); !p.Turned {
			t.Errorf("after it was turned the disk is %+v", p)
		}
		must(t, d.Start(ctx, g.ID))
		counts(to, held)
		if was := w.Count(t, g.ID, g.Disks[0]); was != held {
			t.Errorf("the guest has written to its old disk: %d, want %d", was, held)
		}
		wantKind(t, m.Mirror(ctx, g.ID, serial, to), fault.Conflict)
		g = there
	}
	if greetings(2)(waitLog(t, d, g.ID, greetings(1))) {
		t.Error("the guest has started anew")
	}
	// What was turned is there after the next start.
	must(t, d.Stop(ctx, g.ID, 0))
	must(t, d.Ensure(ctx, g))
	must(t, d.Start(ctx, g.ID))
	counts(g.Disks[0], 0)
	if p := look(g.Disks[0]); !p.Turned {
		t.Errorf("after a start the disk is %+v", p)
	}
}
