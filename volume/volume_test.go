package volume_test

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"yakumo/model"
	"yakumo/store"
	"yakumo/store/storetest"
	"yakumo/volume"
)

const project = "11111111111111111111111111111111"

var sc = volume.Scope{ProjectID: project, UserID: "u", RequestID: "req-1"}

// world is a state with the rules of volumes over it, whose host says what a test lets it say.
type world struct {
	t    testing.TB
	s    *store.Store
	v    *volume.Volumes
	host model.ID
	now  time.Time
}

func newWorld(t testing.TB, s *store.Store) *world {
	t.Helper()
	w := &world{t: t, s: s, now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}
	none := volume.DefaultQuotas()
	for k := range none {
		none[k] = -1
	}
	w.v = volume.New(volume.Config{Store: s, Log: slog.New(slog.DiscardHandler), Defaults: none, Now: func() time.Time { return w.now }})
	w.host = w.addHost("h1", "nova", 100)
	return w
}

func (w *world) addHost(name, zone string, disk int) model.ID {
	w.t.Helper()
	h := &model.Host{Meta: model.NewMeta("", name, w.now), Zone: zone, Engines: []string{"local", "nfs"}, Capacity: model.HostCapacity{DiskGiB: disk}}
	w.do(func(tx *store.Tx) error {
		if err := store.Hosts.Put(tx, h); err != nil {
			return err
		}
		return store.Heartbeats.Put(tx, &model.Heartbeat{HostID: h.ID, At: w.now})
	})
	return h.ID
}

func (w *world) try(f func(tx *store.Tx) error) error {
	_, err := w.s.Update(context.Background(), f)
	return err
}

func (w *world) do(f func(tx *store.Tx) error) {
	w.t.Helper()
	if err := w.try(f); err != nil {
		w.t.Fatal(err)
	}
}

// writer lets a controller write without an election.
type writer struct{ s *store.Store }

func (w writer) Update(ctx context.Context, f func(*store.Tx) error) (int64, error) {
	return w.s.Update(ctx, f)
}

func (w *world) place() {
	w.t.Helper()
	if _, err := w.v.Placer().Reconcile(context.Background(), w.s.Snapshot(), writer{w.s}); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) get(id model.ID) *model.Volume {
	v, _ := store.Volumes.Get(w.s.Snapshot(), id)
	return v
}

// create makes a volume that has its host.
func (w *world) create(spec volume.Spec) *model.Volume {
	w.t.Helper()
	var v *model.Volume
	w.do(func(tx *store.Tx) (err error) { v, err = w.v.Create(tx, sc, spec); return err })
	w.place()
	return w.get(v.ID)
}

// say reports a volume as ready at its newest generation, changed by f.
func (w *world) say(v *model.Volume, f func(*model.VolumeReport)) {
	w.t.Helper()
	v = w.get(v.ID)
	r := model.VolumeReport{VolumeID: v.ID, Generation: v.Generation, Ready: !v.Deleted, Gone: v.Deleted, SizeGiB: v.SizeGiB}
	for s := range store.VolumeSnapshots.List(w.s.Snapshot(), "volume", v.ID) {
		if !s.Deleted {
			r.Snapshots = append(r.Snapshots, s.ID)
		}
	}
	if c := v.Change; c != nil && c.Clear {
		r.Cleared = c.Engine
	} else if c != nil {
		r.Copied = c.Engine
	}
	if f != nil {
		f(&r)
	}
	if err := w.v.VolumeReports(context.Background(), v.Host, []model.VolumeReport{r}); err != nil {
		w.t.Fatal(err)
	}
}

// TestReports: what counts of what a host says, and what it makes of a volume.
func TestReports(t *testing.T) {
	w := newWorld(t, storetest.New(t))
	v := w.create(volume.Spec{SizeGiB: 2})
	state := func() string { return w.get(v.ID).Status.State }
	w.say(v, func(r *model.VolumeReport) { r.Generation-- })
	if state() != volume.Creating {
		t.Errorf("an older generation made it %s", state())
	}
	w.say(v, func(r *model.VolumeReport) { r.Generation++ })
	if state() != volume.Creating {
		t.Errorf("a generation that is not told yet made it %s", state())
	}
	if err := w.v.VolumeReports(t.Context(), "another host", []model.VolumeReport{{VolumeID: v.ID, Generation: v.Generation, Ready: true}}); err != nil || state() != volume.Creating {
		t.Errorf("another host made it %s, %v", state(), err)
	}
	w.say(v, func(r *model.VolumeReport) { r.Ready, r.Gone = false, true })
	if w.get(v.ID) == nil {
		t.Fatal("it is gone, and nobody wanted that")
	}
	w.say(v, nil)
	if state() != volume.Available {
		t.Fatalf("it is %s", state())
	}
	before := w.get(v.ID)
	w.say(v, nil)
	if w.get(v.ID) != before {
		t.Error("the same report wrote the row again")
	}

	// An extension that fails is as if it was not asked for.
	w.do(func(tx *store.Tx) error { _, err := w.v.Extend(tx, sc, v.ID, 5, false); return err })
	w.say(v, func(r *model.VolumeReport) {
		r.Ready, r.SizeGiB, r.Fault = false, 2, &model.Fault{Code: 500, Message: "full"}
	})
	if x := w.get(v.ID); x.Status.State != volume.ErrorExtending || x.SizeGiB != 2 || x.Status.Fault == nil {
		t.Errorf("%+v", x)
	}
	w.do(func(tx *store.Tx) error { _, err := w.v.Reset(tx, v.ID, volume.Available, ""); return err })

	// A snapshot is there when its host says so, of a generation that knew of it; and gone the same way.
	var s *model.VolumeSnapshot
	old := w.get(v.ID).Generation
	w.do(func(tx *store.Tx) (err error) {
		s, err = w.v.CreateSnapshot(tx, sc, volume.NewSnapshot{VolumeID: v.ID})
		return err
	})
	row := func() *model.VolumeSnapshot { s, _ := store.VolumeSnapshots.Get(w.s.Snapshot(), s.ID); return s }
	w.say(v, func(r *model.VolumeReport) { r.Generation, r.Snapshots = old, nil })
	if row().State != volume.Creating {
		t.Errorf("%+v", row())
	}
	w.say(v, nil)
	if row().State != volume.Available {
		t.Errorf("%+v", row())
	}
	old = w.get(v.ID).Generation
	w.do(func(tx *store.Tx) error { return w.v.DeleteSnapshot(tx, sc, s.ID, false) })
	w.say(v, func(r *model.VolumeReport) { r.Generation, r.Snapshots = old, nil })
	if row() == nil {
		t.Error("an older report took the snapshot")
	}
	w.say(v, nil)
	if row() != nil {
		t.Errorf("%+v", row())
	}
	w.do(func(tx *store.Tx) error { return w.v.Delete(tx, sc, v.ID, false, false) })
	w.say(v, nil)
	if w.get(v.ID) != nil {
		t.Error("it is not gone")
	}
}

// TestPlacing: the host of the zone with the most room; none after a while is an error with its reason.
func TestPlacing(t *testing.T) {
	w := newWorld(t, storetest.New(t))
	big := w.addHost("h2", "nova", 500)
	w.addHost("h3", "mars", 5000)
	if v := w.create(volume.Spec{SizeGiB: 50}); v.Host != big {
		t.Errorf("it is on %s", v.Host)
	}
	if v := w.create(volume.Spec{SizeGiB: 1000, Zone: "mars"}); v.Host == "" || v.Host == big || v.Host == w.host {
		t.Errorf("it is on %s", v.Host)
	}
	v := w.create(volume.Spec{SizeGiB: 1000})
	if v.Host != "" || v.Status.State != volume.Creating {
		t.Errorf("%+v", v)
	}
	w.now = w.now.Add(time.Minute)
	w.place()
	if v = w.get(v.ID); v.Status.State != volume.Errored || !strings.Contains(v.Status.Fault.Message, "enough room") {
		t.Errorf("%+v", v.Status)
	}
	// What never had a host goes at once.
	w.do(func(tx *store.Tx) error { return w.v.Delete(tx, sc, v.ID, false, false) })
	if w.get(v.ID) != nil {
		t.Error("it is still there")
	}
}

// TestAnyLife: whatever is asked and reported in whatever order, a volume's state agrees with its attachments, what is
// used is not removed, and nobody has a volume twice.
func TestAnyLife(t *testing.T) {
	s := storetest.New(t)
	w := newWorld(t, s)
	servers := []model.ID{"s1", "s2", "s3"}
	types := []string{w.kind("files", "local").Name, w.kind("shared", "nfs").Name}
	rapid.Check(t, func(rt *rapid.T) {
		w.do(func(tx *store.Tx) error {
			for v := range store.Volumes.All(tx) {
				if err := store.Volumes.Delete(tx, v.ID); err != nil {
					return err
				}
			}
			for x := range store.VolumeSnapshots.All(tx) {
				if err := store.VolumeSnapshots.Delete(tx, x.ID); err != nil {
					return err
				}
			}
			return nil
		})
		pick := func() *model.Volume {
			all := slices.Collect(store.Volumes.All(s.Snapshot()))
			if len(all) == 0 {
				return nil
			}
			return all[rapid.IntRange(0, len(all)-1).Draw(rt, "volume")]
		}
		on := func(f func(tx *store.Tx, v *model.Volume) error) func(*rapid.T) {
			return func(*rapid.T) {
				if v := pick(); v != nil {
					// A refusal is an answer like any other; what it must not do is change something, which the invariants see.
					if err := w.try(func(tx *store.Tx) error { return f(tx, v) }); err != nil {
						rt.Logf("refused: %v", err)
					}
				}
			}
		}
		rt.Repeat(map[string]func(*rapid.T){
			"create": func(*rapid.T) { w.create(volume.Spec{SizeGiB: 1}) },
			"use": on(func(tx *store.Tx, v *model.Volume) error {
				_, _, err := w.v.UseVolume(tx, project, false, v.ID, rapid.SampledFrom(servers).Draw(rt, "server"), "/dev/vdb", false)
				return err
			}),
			"used": on(func(tx *store.Tx, v *model.Volume) error {
				if len(v.Attachments) == 0 {
					return nil
				}
				return w.v.VolumeUsed(tx, v.ID, v.Attachments[0].ID)
			}),
			"leave": on(func(tx *store.Tx, v *model.Volume) error {
				if len(v.Attachments) == 0 {
					return nil
				}
				return w.v.VolumeLeaving(tx, v.ID, v.Attachments[0].ID)
			}),
			"release": on(func(tx *store.Tx, v *model.Volume) error {
				if len(v.Attachments) == 0 {
					return nil
				}
				return w.v.VolumeReleased(tx, v.ID, v.Attachments[0].ID, rapid.Bool().Draw(rt, "remove"))
			}),
			"extend": on(func(tx *store.Tx, v *model.Volume) error {
				_, err := w.v.Extend(tx, sc, v.ID, v.SizeGiB+1, true)
				return err
			}),
			"retype": on(func(tx *store.Tx, v *model.Volume) error {
				_, err := w.v.Retype(tx, sc, v.ID, rapid.SampledFrom(types).Draw(rt, "type"), true)
				return err
			}),
			"give up": on(func(tx *store.Tx, v *model.Volume) error {
				if v.Status.State != volume.Retyping {
					return nil
				}
				_, err := w.v.Reset(tx, v.ID, volume.Available, "")
				return err
			}),
			"fault": func(*rapid.T) {
				if v := pick(); v != nil && v.Host != "" && v.Status.State == volume.Retyping {
					w.say(v, func(r *model.VolumeReport) { r.Ready, r.Copied, r.Fault = false, "", &model.Fault{Message: "full"} })
				}
			},
			"snapshot": on(func(tx *store.Tx, v *model.Volume) error {
				_, err := w.v.CreateSnapshot(tx, sc, volume.NewSnapshot{VolumeID: v.ID, Force: true})
				return err
			}),
			"delete": on(func(tx *store.Tx, v *model.Volume) error {
				return w.v.Delete(tx, sc, v.ID, rapid.Bool().Draw(rt, "cascade"), false)
			}),
			"report": func(*rapid.T) {
				if v := pick(); v != nil && v.Host != "" {
					w.say(v, nil)
				}
			},
			"": func(*rapid.T) {
				for v := range store.Volumes.All(s.Snapshot()) {
					states := map[string]int{}
					for _, a := range v.Attachments {
						states[a.State]++
					}
					switch st := v.Status.State; {
					case len(v.Attachments) > 1:
						rt.Fatalf("%d servers have a volume that is not multiattach", len(v.Attachments))
					case (st == volume.Retyping) != (v.Change != nil && !v.Change.Clear), v.Change != nil && v.Change.Engine == v.Engine:
						rt.Fatalf("%s on its way: %+v", st, v.Change)
					case v.Deleted && len(v.Attachments) > 0, v.Deleted != (st == volume.Deleting):
						rt.Fatalf("deleted %v, %s, attachments %v", v.Deleted, st, states)
					case st == volume.Available && len(v.Attachments) > 0, st == volume.InUse && states[volume.Attached] == 0,
						st == volume.Attaching && states[volume.Attaching] == 0, st == volume.Detaching && states[volume.Detaching] == 0:
						rt.Fatalf("%s with attachments %v", st, states)
					}
				}
				for x := range store.VolumeSnapshots.All(s.Snapshot()) {
					if v := w.get(x.VolumeID); v == nil || v.Deleted && !x.Deleted {
						rt.Fatalf("snapshot %s is left of a volume that goes", x.ID)
					}
				}
			},
		})
	})
}
