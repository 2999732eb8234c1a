package volume_test

import (
	"context"
	"slices"
	"strings"
	"testing"

	"yakumo/fault"
	"yakumo/model"
	"yakumo/store"
	"yakumo/store/storetest"
	"yakumo/volume"
)

// TestMigrate: a volume is where it was until its new host says that it has it; what cannot be moved is refused, and changes nothing.
func TestMigrate(t *testing.T) {
	w := newWorld(t, storetest.New(t))
	admin := volume.Scope{Admin: true, ProjectID: "other"}
	small, away := w.addHost("h2", "nova", 5), w.addHost("h3", "elsewhere", 100)
	migrate := func(id model.ID, to string) error {
		return w.try(func(tx *store.Tx) error { _, err := w.v.Migrate(tx, admin, id, to); return err })
	}
	v := w.create(volume.Spec{SizeGiB: 2})
	if v.Host != w.host {
		t.Fatalf("%+v", v)
	}
	refused := func(id model.ID, to, text string) {
		t.Helper()
		before := w.get(id)
		if err := migrate(id, to); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), text) {
			t.Errorf("to %q: %v, want %q", to, err, text)
		}
		if after := w.get(id); after.Generation != before.Generation || after.Move != nil {
			t.Errorf("refused, it is %+v", after)
		}
	}
	refused(v.ID, "h2", "current status is: creating")
	w.say(v, nil)
	refused(v.ID, "nobody", "No available service")
	refused(v.ID, "h1@local#local", "destination host must be different")
	refused(v.ID, "h2@nfs#nfs", "alone")
	refused(v.ID, "h3", "availability zone")
	large := w.create(volume.Spec{SizeGiB: 50})
	w.say(large, nil)
	refused(large.ID, "h2", "not enough room")
	w.do(func(tx *store.Tx) error {
		_, err := w.v.CreateSnapshot(tx, sc, volume.NewSnapshot{VolumeID: large.ID})
		return err
	})
	w.say(large, nil)
	refused(large.ID, "h2", "must not have snapshots")
	used := w.create(volume.Spec{SizeGiB: 1})
	w.say(used, nil)
	w.do(func(tx *store.Tx) error {
		_, _, err := w.v.Attach(tx, sc, volume.NewAttachment{VolumeID: used.ID, HostName: "x", State: volume.Attached, Mode: "rw"})
		return err
	})
	refused(used.ID, "h2", "is in use")

	if err := migrate(v.ID, "h2@local#local"); err != nil {
		t.Fatal(err)
	}
	moving := w.get(v.ID)
	if moving.Status.State != volume.Maintenance || moving.Status.Migration != volume.Migrating || moving.Host != w.host || !slices.Equal(moving.Hosts(), []model.ID{w.host, small}) {
		t.Errorf("%+v", moving)
	}
	if rooms := volume.Rooms(w.s.Snapshot(), "local"); rooms[1].Free != 3 {
		t.Errorf("the new host has %d GiB left, want 3", rooms[1].Free)
	}
	if err := w.try(func(tx *store.Tx) error {
		_, _, err := w.v.UseVolume(tx, project, false, v.ID, model.NewID(), "/dev/vdb", false)
		return err
	}); !fault.Is(err, fault.Invalid) {
		t.Errorf("a volume that moves is attached: %v", err)
	}
	at := func(host model.ID, r model.VolumeReport) {
		t.Helper()
		r.VolumeID = v.ID
		if err := w.v.VolumeReports(context.Background(), host, []model.VolumeReport{r}); err != nil {
			t.Fatal(err)
		}
	}
	w.say(v, nil) // the old host goes on saying that it has it
	at(away, model.VolumeReport{Generation: moving.Generation, Ready: true, SizeGiB: 2})
	at(small, model.VolumeReport{Generation: moving.Generation - 1, Ready: true, SizeGiB: 2})
	at(small, model.VolumeReport{Generation: moving.Generation})
	if x := w.get(v.ID); x.Move == nil || x.Host != w.host {
		t.Errorf("too early: %+v", x)
	}
	at(small, model.VolumeReport{Generation: moving.Generation, Fault: &model.Fault{Message: "full"}})
	if x := w.get(v.ID); x.Move != nil || x.Host != w.host || x.Status.State != volume.Available || x.Status.Migration != volume.MigrationFailed {
		t.Errorf("after a failure: %+v", x)
	}
	if err := migrate(v.ID, "h2"); err != nil {
		t.Fatal(err)
	}
	moving = w.get(v.ID)
	at(small, model.VolumeReport{Generation: moving.Generation, Ready: true, SizeGiB: 2})
	if x := w.get(v.ID); x.Move != nil || x.Host != small || x.Status.State != volume.Available || x.Status.Migration != volume.MigrationDone || x.Generation == moving.Generation {
		t.Errorf("after the move: %+v", x)
	}
	// Back, and an administrator ends it.
	if err := migrate(v.ID, "h1"); err != nil {
		t.Fatal(err)
	}
	w.do(func(tx *store.Tx) error { _, err := w.v.Reset(tx, v.ID, volume.Available, ""); return err })
	if x := w.get(v.ID); x.Move != nil || x.Host != small || x.Status.State != volume.Available {
		t.Errorf("after a reset: %+v", x)
	}
}
