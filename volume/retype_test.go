package volume_test

import (
	"slices"
	"strings"
	"testing"

	"yakumo/fault"
	"yakumo/model"
	"yakumo/store"
	"yakumo/store/storetest"
	"yakumo/volume"
)

// kind makes a type of an engine.
func (w *world) kind(name, engine string) *model.VolumeType {
	w.t.Helper()
	var t *model.VolumeType
	w.do(func(tx *store.Tx) (err error) {
		t, err = w.v.CreateType(tx, volume.TypeSpec{Name: &name, ExtraSpecs: map[string]string{"volume_backend_name": engine}})
		return err
	})
	return t
}

// TestRetypeToEngine: a volume is of its old engine and type until its host says that the copy is there, and keeps them where that fails; what cannot go is refused, and changes nothing.
func TestRetypeToEngine(t *testing.T) {
	w := newWorld(t, storetest.New(t))
	files, shared := w.kind("files", "local"), w.kind("shared", "nfs")
	w.kind("tape", "tape")
	retype := func(id model.ID, name string, move bool) error {
		return w.try(func(tx *store.Tx) error { _, err := w.v.Retype(tx, sc, id, name, move); return err })
	}
	refused := func(id model.ID, name string, move bool, text string) {
		t.Helper()
		before := w.get(id)
		if err := retype(id, name, move); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), text) {
			t.Errorf("to %s: %v, want %q", name, err, text)
		}
		if w.get(id) != before {
			t.Errorf("refused, it is %+v", w.get(id))
		}
	}
	v := w.create(volume.Spec{SizeGiB: 2, Type: "files"})
	refused(v.ID, "shared", true, "current status is: creating")
	w.say(v, nil)
	refused(v.ID, "files", true, "Retype not needed")
	refused(v.ID, "shared", false, "Retype requires migration but is not allowed")
	refused(v.ID, "tape", true, "has the engine tape")
	snapped := w.create(volume.Spec{SizeGiB: 1, Type: "files"})
	w.say(snapped, nil)
	w.do(func(tx *store.Tx) error {
		_, err := w.v.CreateSnapshot(tx, sc, volume.NewSnapshot{VolumeID: snapped.ID})
		return err
	})
	w.say(snapped, nil)
	refused(snapped.ID, "shared", true, "must not have snapshots")
	used := w.create(volume.Spec{SizeGiB: 1, Type: "files"})
	w.say(used, nil)
	w.do(func(tx *store.Tx) error {
		_, _, err := w.v.Attach(tx, sc, volume.NewAttachment{VolumeID: used.ID, HostName: "x", State: volume.Attached, Mode: "rw"})
		return err
	})
	refused(used.ID, "shared", true, "is in use")

	if err := retype(v.ID, "shared", true); err != nil {
		t.Fatal(err)
	}
	on := w.get(v.ID)
	if on.Status.State != volume.Retyping || on.Status.Migration != volume.Migrating || on.Engine != "local" || on.TypeID != files.ID || on.Host != v.Host || !on.In("nfs") || on.Generation == v.Generation {
		t.Errorf("%+v", on)
	}
	if u := volume.Usage(w.s.Snapshot(), project); u["volumes_shared"] != 1 || u["gigabytes_shared"] != 2 || u["volumes_files"] != 3 || u["volumes"] != 3 {
		t.Errorf("usage %v", u)
	}
	for name, f := range map[string]func(tx *store.Tx) error{
		"used": func(tx *store.Tx) error {
			_, _, err := w.v.UseVolume(tx, project, false, v.ID, model.NewID(), "/dev/vdb", false)
			return err
		},
		"deleted":       func(tx *store.Tx) error { return w.v.Delete(tx, sc, v.ID, false, false) },
		"grown":         func(tx *store.Tx) error { _, err := w.v.Extend(tx, sc, v.ID, 9, true); return err },
		"without types": func(tx *store.Tx) error { return w.v.DeleteType(tx, shared.ID) },
	} {
		if err := w.try(f); !fault.Is(err, fault.Invalid) {
			t.Errorf("on its way it is %s: %v", name, err)
		}
	}
	w.say(v, func(r *model.VolumeReport) { r.Copied = "" })
	w.say(v, func(r *model.VolumeReport) { r.Generation-- })
	if w.get(v.ID).Status.State != volume.Retyping {
		t.Errorf("too early: %+v", w.get(v.ID))
	}
	w.say(v, func(r *model.VolumeReport) { r.Copied, r.Ready, r.Fault = "", false, &model.Fault{Message: "full"} })
	failed := w.get(v.ID)
	if failed.Status.State != volume.Available || failed.Status.Migration != volume.MigrationFailed || failed.Engine != "local" || failed.TypeID != files.ID || failed.Change == nil || !failed.Change.Clear || failed.Change.Engine != "nfs" {
		t.Errorf("after a failure: %+v", failed)
	}
	refused(v.ID, "shared", true, "Try again") // until the copy is gone
	w.say(v, nil)
	if w.get(v.ID).Change != nil {
		t.Errorf("cleared: %+v", w.get(v.ID))
	}
	if err := retype(v.ID, "shared", true); err != nil {
		t.Fatal(err)
	}
	w.say(v, nil)
	there := w.get(v.ID)
	if there.Status.State != volume.Available || there.Status.Migration != volume.MigrationDone || there.Engine != "nfs" || there.TypeID != shared.ID || !there.In("local") {
		t.Errorf("copied: %+v", there)
	}
	w.say(v, nil)
	if x := w.get(v.ID); x.Change != nil || x.In("local") {
		t.Errorf("cleared: %+v", x)
	}
	// Back again, by a host that was not its own before; an administrator gives it up half-way, and then it is removed from everywhere.
	big := w.addHost("h2", "nova", 1000)
	w.do(func(tx *store.Tx) error {
		h, _ := store.Hosts.Get(tx, w.host)
		c := *h
		c.Disabled = true
		return store.Hosts.Put(tx, &c)
	})
	if err := retype(v.ID, "files", true); err != nil {
		t.Fatal(err)
	}
	if x := w.get(v.ID); x.Host != big || !slices.Equal(x.Hosts(), []model.ID{big}) {
		t.Errorf("%+v", x)
	}
	w.do(func(tx *store.Tx) error { _, err := w.v.Reset(tx, v.ID, volume.Available, ""); return err })
	if x := w.get(v.ID); x.Status.State != volume.Available || x.Change == nil || !x.Change.Clear || x.Engine != "nfs" {
		t.Errorf("given up: %+v", x)
	}
	w.do(func(tx *store.Tx) error { return w.v.Delete(tx, sc, v.ID, false, false) })
	if x := w.get(v.ID); x.Change == nil || !x.Deleted {
		t.Errorf("removed: %+v", x)
	}
	w.say(v, nil)
	if w.get(v.ID) != nil {
		t.Error("it is not gone")
	}
}

// TestRetypeQuota: a volume takes of the quota of the type that it gets, and of no other anew.
func TestRetypeQuota(t *testing.T) {
	w := newWorld(t, storetest.New(t))
	w.kind("files", "local")
	w.kind("more", "local")
	w.do(func(tx *store.Tx) error {
		return w.v.SetQuota(tx, project, map[string]int{"volumes": 2, "gigabytes": 4, "volumes_more": 1, "gigabytes_more": 2})
	})
	var vs []*model.Volume
	for range 2 {
		vs = append(vs, w.create(volume.Spec{SizeGiB: 2, Type: "files"}))
		w.say(vs[len(vs)-1], nil)
	}
	for i, v := range vs {
		err := w.try(func(tx *store.Tx) error { _, err := w.v.Retype(tx, sc, v.ID, "more", false); return err })
		if (i == 0) != (err == nil) || i == 1 && !fault.Is(err, fault.OverQuota) {
			t.Errorf("the volume %d: %v", i, err)
		}
	}
}
