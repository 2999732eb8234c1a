package volume_test

import (
	"context"
	"strings"
	"testing"

	"yakumo/fault"
	"yakumo/model"
	"yakumo/store"
	"yakumo/store/storetest"
	"yakumo/volume"
)

// used makes a volume that a running server on a host has, and the server.
func (w *world) used(kind string, host model.ID) (*model.Volume, *model.Server) {
	w.t.Helper()
	v := w.create(volume.Spec{SizeGiB: 2, Type: kind})
	w.say(v, nil)
	s := &model.Server{Meta: model.NewMeta(project, "s", w.now), Host: host, Power: model.PowerRunning, Status: model.ServerStatus{Phase: model.PhaseReady, Power: model.PowerRunning}}
	w.do(func(tx *store.Tx) error {
		_, att, err := w.v.UseVolume(tx, project, false, v.ID, s.ID, "/dev/vdb", false)
		if err != nil {
			return err
		}
		s.Volumes = []model.VolumeUse{{VolumeID: v.ID, AttachmentID: att, Device: "/dev/vdb"}}
		if err := store.Servers.Put(tx, s); err != nil {
			return err
		}
		return w.v.VolumeUsed(tx, v.ID, att)
	})
	return w.get(v.ID), s
}

func (w *world) disk(s *model.Server, r model.DiskReport) {
	w.t.Helper()
	w.do(func(tx *store.Tx) error { return w.v.Elsewhere(tx, s.ID, r) })
}

func (w *world) placeSays(host model.ID, r model.VolumeReport) {
	w.t.Helper()
	if err := w.v.VolumeReports(context.Background(), host, []model.VolumeReport{r}); err != nil {
		w.t.Fatal(err)
	}
}

// TestRelocate: a volume that a guest has is where it was until the guest's host says that the guest uses it elsewhere, and each host says what it has done.
func TestRelocate(t *testing.T) {
	w := newWorld(t, storetest.New(t))
	h2 := w.addHost("h2", "nova", 50)
	admin := volume.Scope{Admin: true, ProjectID: "other"}
	files, shared := w.kind("files", "local"), w.kind("shared", "nfs")
	ways := map[string]struct {
		begin        func(tx *store.Tx, id model.ID) error
		state        string
		host, engine string
		kind         model.ID
	}{
		"to a host": {func(tx *store.Tx, id model.ID) error {
			_, err := w.v.Migrate(tx, admin, id, "h2@local#local")
			return err
		}, volume.Maintenance, h2, "local", files.ID},
		"to an engine": {func(tx *store.Tx, id model.ID) error { _, err := w.v.Retype(tx, sc, id, "shared", true); return err }, volume.Retyping, h2, "nfs", shared.ID},
	}
	for name, way := range ways {
		t.Run(name, func(t *testing.T) {
			v, s := w.used("files", h2)
			x := func() *model.Volume { return w.get(v.ID) }
			from := v.Host
			if from != w.host {
				t.Fatalf("%+v", v)
			}
			for _, fails := range []string{"place", "copy", "exchange", "reset", "server", ""} {
				w.do(func(tx *store.Tx) error { return way.begin(tx, v.ID) })
				n := x().Relocation
				if x().Status.State != way.state || x().Status.Migration != volume.Migrating || x().Host != from || n.Stage != model.RelocateMaking || n.Host != way.host || n.Engine != way.engine {
					t.Fatalf("%s: %+v, %+v", fails, x(), n)
				}
				if !x().InAt(way.engine, way.host) || x().InAt("nfs", from) {
					t.Errorf("%s: its room is not counted where it goes", fails)
				}
				ended := func() {
					t.Helper()
					if y := x(); y.Relocation == nil || y.Relocating() || y.Relocation.Host != n.Host || y.Host != from || y.Engine != "local" || y.TypeID != files.ID || y.Status.State != volume.InUse || y.Status.Migration != volume.MigrationFailed {
						t.Fatalf("%s: %+v, %+v", fails, y, y.Relocation)
					}
					// Until nothing is left there, no other way begins, nor does the volume go.
					if err := w.try(func(tx *store.Tx) error { return way.begin(tx, v.ID) }); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "still clears") {
						t.Errorf("%s: begun anew: %v", fails, err)
					}
					w.placeSays(n.Host, model.VolumeReport{VolumeID: v.ID, Vacated: n.Number - 1})
					if x().Relocation == nil {
						t.Errorf("%s: what was said before counts", fails)
					}
					w.placeSays(n.Host, model.VolumeReport{VolumeID: v.ID, Vacated: n.Number})
					if x().Relocation != nil {
						t.Errorf("%s: %+v", fails, x().Relocation)
					}
				}
				broken := &model.Fault{Message: "broken"}
				w.disk(s, model.DiskReport{VolumeID: v.ID, Number: n.Number, State: model.DiskTurned}) // nobody asked for it
				w.placeSays(from, model.VolumeReport{VolumeID: v.ID, Generation: x().Generation, Ready: true, Placed: n.Number})
				if from != n.Host && x().Relocation.Stage != model.RelocateMaking {
					t.Errorf("%s: who has not the place has made it", fails)
				}
				if fails == "place" {
					w.placeSays(n.Host, model.VolumeReport{VolumeID: v.ID, Refused: n.Number, PlaceFault: broken})
					ended()
					continue
				}
				w.placeSays(n.Host, model.VolumeReport{VolumeID: v.ID, Placed: n.Number})
				if x().Relocation.Stage != model.RelocateCopying {
					t.Fatalf("%s: %+v", fails, x().Relocation)
				}
				if fails == "reset" {
					w.do(func(tx *store.Tx) error { _, err := w.v.Reset(tx, v.ID, volume.InUse, ""); return err })
					ended()
					continue
				}
				if fails == "copy" {
					w.disk(s, model.DiskReport{VolumeID: v.ID, Number: n.Number, State: model.DiskFailed, Fault: broken})
					ended()
					continue
				}
				if fails == "server" {
					w.do(func(tx *store.Tx) error { return w.v.StayVolume(tx, v.ID) })
					ended()
					continue
				}
				w.disk(s, model.DiskReport{VolumeID: v.ID, Number: n.Number, State: model.DiskTurned})
				w.disk(s, model.DiskReport{VolumeID: v.ID, Number: n.Number, State: model.DiskNear})
				if x().Relocation.Stage != model.RelocateTurning || x().Host != from {
					t.Fatalf("%s: %+v", fails, x().Relocation)
				}
				// Only the guest's host knows now.
				if err := w.try(func(tx *store.Tx) error { _, err := w.v.Reset(tx, v.ID, volume.InUse, ""); return err }); !fault.Is(err, fault.Conflict) {
					t.Errorf("%s: reset: %v", fails, err)
				}
				if err := w.try(func(tx *store.Tx) error { return w.v.StayVolume(tx, v.ID) }); !fault.Is(err, fault.Conflict) {
					t.Errorf("%s: ended: %v", fails, err)
				}
				if fails == "exchange" {
					w.disk(s, model.DiskReport{VolumeID: v.ID, Number: n.Number, State: model.DiskFailed, Fault: broken})
					if f := x().Status.Fault; f == nil || f.Message != "broken" {
						t.Errorf("%s: its fault is %+v", fails, f)
					}
					ended()
					continue
				}
				w.disk(s, model.DiskReport{VolumeID: v.ID, Number: n.Number, State: model.DiskTurned})
				y := x()
				if y.Host != way.host || y.Engine != way.engine || y.TypeID != way.kind || y.Seat != n.Number || y.Status.State != volume.InUse || y.Status.Migration != volume.MigrationDone || y.Relocation == nil || y.Relocation.Host != from || y.Relocation.Engine != "local" {
					t.Fatalf("it is %+v, %+v", y, y.Relocation)
				}
				w.placeSays(from, model.VolumeReport{VolumeID: v.ID, Vacated: n.Number})
				if x().Relocation != nil {
					t.Errorf("%+v", x().Relocation)
				}
				w.disk(s, model.DiskReport{VolumeID: v.ID, Number: n.Number, State: model.DiskFailed}) // it is said again, late
				if x().Host != way.host || x().Status.Migration != volume.MigrationDone {
					t.Errorf("%+v", x())
				}
			}
			// Its server ends half-way, and the volume goes with it once nothing is left elsewhere.
			w.do(func(tx *store.Tx) error { return w.v.VolumeReleased(tx, v.ID, s.Volumes[0].AttachmentID, false) })
			if x().Status.State != volume.Available {
				t.Errorf("%+v", x())
			}
		})
	}
}

// TestRelocateRefused: what cannot go elsewhere under a guest is refused in Cinder's words, or Nova's, and changes nothing; and what cannot be done to one that does.
func TestRelocateRefused(t *testing.T) {
	w := newWorld(t, storetest.New(t))
	h2 := w.addHost("h2", "nova", 50)
	admin := volume.Scope{Admin: true, ProjectID: "other"}
	w.kind("files", "local")
	w.kind("shared", "nfs")
	several := "several"
	w.do(func(tx *store.Tx) error {
		_, err := w.v.CreateType(tx, volume.TypeSpec{Name: &several, ExtraSpecs: map[string]string{"volume_backend_name": "local", "multiattach": "<is> True"}})
		return err
	})
	migrate := func(id model.ID) error {
		return w.try(func(tx *store.Tx) error { _, err := w.v.Migrate(tx, admin, id, "h2"); return err })
	}
	refused := func(id model.ID, kind fault.Kind, text string) {
		t.Helper()
		before := w.get(id)
		for name, err := range map[string]error{"migrate": migrate(id), "retype": w.try(func(tx *store.Tx) error { _, err := w.v.Retype(tx, sc, id, "shared", true); return err })} {
			if !fault.Is(err, kind) || !strings.Contains(err.Error(), text) {
				t.Errorf("%s: %v, want %q", name, err, text)
			}
		}
		if w.get(id) != before {
			t.Errorf("refused, it is %+v", w.get(id))
		}
	}
	many, _ := w.used("several", w.host)
	refused(many.ID, fault.Invalid, "multiattach")
	v, s := w.used("files", w.host)
	for text, f := range map[string]func(*model.Server){
		"task_state migrating": func(s *model.Server) { s.Status.Task = "migrating" },
		"runs or is paused":    func(s *model.Server) { s.Power = model.PowerOff },
		"Start it":             func(s *model.Server) { s.Status.Power = model.PowerCrashed },
		"or is paused":         func(s *model.Server) { s.Move = &model.Move{} },
	} {
		n := *s
		f(&n)
		w.do(func(tx *store.Tx) error { return store.Servers.Put(tx, &n) })
		refused(v.ID, fault.Conflict, text)
	}
	w.do(func(tx *store.Tx) error { return store.Servers.Put(tx, s) })
	w.do(func(tx *store.Tx) error {
		_, err := w.v.CreateSnapshot(tx, sc, volume.NewSnapshot{VolumeID: v.ID, Force: true})
		return err
	})
	refused(v.ID, fault.Invalid, "must not have snapshots")

	v, s = w.used("files", w.host)
	if err := migrate(v.ID); err != nil {
		t.Fatal(err)
	}
	refused(v.ID, fault.Invalid, "")
	for name, f := range map[string]func(tx *store.Tx) error{
		"extend": func(tx *store.Tx) error { _, err := w.v.Extend(tx, sc, v.ID, 5, true); return err },
		"snapshot": func(tx *store.Tx) error {
			_, err := w.v.CreateSnapshot(tx, sc, volume.NewSnapshot{VolumeID: v.ID, Force: true})
			return err
		},
		"upload": func(tx *store.Tx) error { _, err := w.v.Upload(tx, sc, v.ID, model.NewID(), "raw", true); return err },
		"delete": func(tx *store.Tx) error { return w.v.Delete(tx, sc, v.ID, false, false) },
		"backup": func(tx *store.Tx) error {
			_, err := w.v.CreateBackup(tx, sc, volume.NewBackup{VolumeID: v.ID, Force: true})
			return err
		},
	} {
		if err := w.try(f); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s of a volume that goes elsewhere: %v", name, err)
		}
	}
	// The guest's host is dead at the moment at which it alone knows where the volume is: an administrator may say that it is where it was, once that is confirmed.
	x, at := w.used("files", w.host)
	w.do(func(tx *store.Tx) error { _, err := w.v.Migrate(tx, admin, x.ID, "h2"); return err })
	w.placeSays(h2, model.VolumeReport{VolumeID: x.ID, Placed: 1})
	w.disk(at, model.DiskReport{VolumeID: x.ID, Number: 1, State: model.DiskNear})
	reset := func() error {
		return w.try(func(tx *store.Tx) error { _, err := w.v.Reset(tx, x.ID, volume.InUse, ""); return err })
	}
	if err := reset(); !fault.Is(err, fault.Conflict) {
		t.Errorf("while its guest's host is up: %v", err)
	}
	w.do(func(tx *store.Tx) error {
		old, _ := store.Hosts.Get(tx, w.host)
		h := *old
		h.ForcedDown = true
		return store.Hosts.Put(tx, &h)
	})
	if err := reset(); err != nil || w.get(x.ID).Relocating() || w.get(x.ID).Host != w.host {
		t.Errorf("once that is forced down: %v, %+v", err, w.get(x.ID))
	}

	// Its place's host is removed: it stays where it is.
	w.do(func(tx *store.Tx) error { return store.Hosts.Delete(tx, h2) })
	if _, err := w.v.Sweeper().Reconcile(context.Background(), w.s.Snapshot(), writer{w.s}); err != nil {
		t.Fatal(err)
	}
	if x := w.get(v.ID); x.Relocation != nil || x.Status.State != volume.InUse || x.Status.Migration != volume.MigrationFailed {
		t.Errorf("%+v", x)
	}
}
