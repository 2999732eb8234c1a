package volume_test

import (
	"strings"
	"testing"
	"time"

	"yakumo/fault"
	"yakumo/model"
	"yakumo/store"
	"yakumo/store/storetest"
	"yakumo/volume"
)

// TestIncremental: what a backup builds on, and that it cannot go while another builds on it.
func TestIncremental(t *testing.T) {
	w := newWorld(t, storetest.New(t))
	v := w.create(volume.Spec{SizeGiB: 1})
	w.say(v, nil)
	try := func(n volume.NewBackup) (b *model.VolumeBackup, err error) {
		w.now = w.now.Add(time.Second)
		n.VolumeID = v.ID
		err = w.try(func(tx *store.Tx) (err error) { b, err = w.v.CreateBackup(tx, sc, n); return err })
		return b, err
	}
	get := func(id model.ID) *model.VolumeBackup {
		b, _ := store.VolumeBackups.Get(w.s.Snapshot(), id)
		return b
	}
	done := func(b *model.VolumeBackup, f *model.Fault) {
		t.Helper()
		if f == nil {
			w.do(func(tx *store.Tx) error { return w.v.Received(tx, b.ID, model.NewID(), 5) })
		}
		w.say(v, func(r *model.VolumeReport) {
			r.Uploads = []model.UploadReport{{ID: b.ID, Done: f == nil, Fault: f}}
		})
	}
	made := func(n volume.NewBackup) *model.VolumeBackup {
		t.Helper()
		b, err := try(n)
		if err != nil {
			t.Fatal(err)
		}
		done(b, nil)
		return get(b.ID)
	}
	none := func(n volume.NewBackup) {
		t.Helper()
		if _, err := try(n); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "No backups available to do an incremental backup.") {
			t.Errorf("%v", err)
		}
		if w.get(v.ID).Status.State != volume.Available {
			t.Errorf("refused, the volume is %s", w.get(v.ID).Status.State)
		}
	}
	none(volume.NewBackup{Incremental: true})
	var snap *model.VolumeSnapshot
	w.do(func(tx *store.Tx) (err error) {
		snap, err = w.v.CreateSnapshot(tx, sc, volume.NewSnapshot{VolumeID: v.ID})
		return err
	})
	w.say(v, nil)
	first := made(volume.NewBackup{})
	if first.State != volume.Available || first.Format != model.BackupChunks || first.ParentID != "" {
		t.Fatalf("%+v", first)
	}
	none(volume.NewBackup{Incremental: true, SnapshotID: snap.ID}) // the snapshot is older
	second := made(volume.NewBackup{Incremental: true})
	third := made(volume.NewBackup{Incremental: true})
	if second.ParentID != first.ID || third.ParentID != second.ID {
		t.Errorf("%s builds on %s, %s on %s", second.ID, second.ParentID, third.ID, third.ParentID)
	}
	remove := func(b *model.VolumeBackup, force bool) error {
		return w.try(func(tx *store.Tx) error { return w.v.DeleteBackup(tx, volume.Scope{Admin: true}, b.ID, force) })
	}
	for _, force := range []bool{false, true} {
		if err := remove(second, force); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "Incremental backups exist for this backup.") {
			t.Errorf("%v", err)
		}
	}
	// One that failed, and one of a form of before, are not built on.
	bad, err := try(volume.NewBackup{Incremental: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := remove(third, true); err == nil {
		t.Error("what is being built on is removed")
	}
	done(bad, &model.Fault{Message: "full"})
	if b := get(bad.ID); b.State != volume.Errored {
		t.Errorf("%+v", b)
	}
	w.do(func(tx *store.Tx) error {
		b := *get(bad.ID)
		b.State, b.Format, b.BlobID = volume.Available, "", "blob"
		return store.VolumeBackups.Put(tx, &b)
	})
	if b := made(volume.NewBackup{Incremental: true}); b.ParentID != third.ID {
		t.Errorf("it builds on %s", b.ParentID)
	} else if err := remove(b, false); err != nil {
		t.Error(err)
	}
	for _, b := range []*model.VolumeBackup{bad, third, second, first} {
		if err := remove(b, false); err != nil {
			t.Errorf("%s: %v", b.ID, err)
		}
	}
	none(volume.NewBackup{Incremental: true})
}
