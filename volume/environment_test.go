package volume_test

import (
	"strings"
	"testing"
	"time"

	"yakumo/model"
	"yakumo/store"
	"yakumo/store/storetest"
	"yakumo/volume"
)

// TestEnvironment: the volumes of a project follow its environment to another zone, one after the other; what cannot be moved says why.
func TestEnvironment(t *testing.T) {
	w := newWorld(t, storetest.New(t))
	east := w.addHost("h2", "east", 12)
	tight := w.addHost("h3", "east", 11)
	made := map[string]model.ID{}
	for _, name := range []string{"a", "b", "kept", "large", "shared"} {
		size := map[string]int{"large": 50}[name]
		spec := volume.Spec{Name: name, SizeGiB: max(size, 2)}
		if name == "shared" {
			spec.Type = w.kind("nfs", "nfs").ID
		}
		v := w.create(spec)
		w.say(v, nil)
		made[name] = v.ID
	}
	w.do(func(tx *store.Tx) error {
		_, err := w.v.CreateSnapshot(tx, sc, volume.NewSnapshot{VolumeID: made["kept"]})
		return err
	})
	other := w.create(volume.Spec{ProjectID: "other", SizeGiB: 1})
	w.say(other, nil)
	w.do(func(tx *store.Tx) error {
		return store.Environments.Put(tx, &model.Environment{ProjectID: project, Zone: "east"})
	})
	pass := func() {
		t.Helper()
		if _, err := w.v.Relocator().ReconcileKey(t.Context(), w.s.Snapshot(), project, writer{w.s}); err != nil {
			t.Fatal(err)
		}
	}
	moving := func() (out []model.ID) {
		for _, x := range volume.Strays(w.s.Snapshot(), project, "east") {
			if x.Moving {
				out = append(out, x.ID)
			}
		}
		return out
	}
	arrive := func(fail bool) {
		t.Helper()
		x := w.get(moving()[0])
		r := model.VolumeReport{VolumeID: x.ID, Generation: x.Generation, Ready: !fail, SizeGiB: x.SizeGiB}
		if fail {
			r.Fault = &model.Fault{Message: "full"}
		}
		if err := w.v.VolumeReports(t.Context(), x.Move.Host, []model.VolumeReport{r}); err != nil {
			t.Fatal(err)
		}
	}
	pass()
	pass()
	if m := moving(); len(m) != 1 {
		t.Fatalf("%d volumes move at once", len(m))
	}
	failed := moving()[0]
	arrive(true)
	pass()
	if m := moving(); len(m) != 1 || m[0] == failed {
		t.Fatalf("after a failure %v moves", m)
	}
	second := moving()[0]
	arrive(false)
	pass()
	if m := moving(); len(m) != 0 {
		t.Errorf("what has failed is tried again at once: %v", m)
	}
	w.now = w.now.Add(2 * time.Minute)
	pass()
	arrive(false)
	pass()
	for _, id := range []model.ID{failed, second} {
		if x := w.get(id); x.Zone != "east" || x.Host != east && x.Host != tight || x.Status.State != volume.Available {
			t.Errorf("%+v", x)
		}
	}
	left := volume.Strays(w.s.Snapshot(), project, "east")
	if len(left) != 2 || !strings.Contains(left[0].Why, "snapshots") || left[0].Name != "kept" || !strings.Contains(left[1].Why, "room") {
		t.Errorf("left are %+v", left)
	}
	if x := w.get(other.ID); x.Move != nil || x.Zone != "nova" {
		t.Errorf("another project's: %+v", x)
	}
	if x := w.create(volume.Spec{SizeGiB: 1}); x.Zone != "east" {
		t.Errorf("a new one is of the zone %s", x.Zone)
	}
}

// TestEnvironmentOfUsedVolumes: a volume that a server uses follows that, under it; of one that is off it waits.
func TestEnvironmentOfUsedVolumes(t *testing.T) {
	w := newWorld(t, storetest.New(t))
	near, roomy := w.addHost("h2", "east", 10), w.addHost("h3", "east", 100)
	w.do(func(tx *store.Tx) error {
		return store.Environments.Put(tx, &model.Environment{ProjectID: project, Zone: "east"})
	})
	w.kind("files", "local")
	x, s := w.used("files", w.host)
	// It was made in the environment's zone: it is elsewhere, as one that was there before.
	w.do(func(tx *store.Tx) error {
		v := *w.get(x.ID)
		v.Host, v.Zone = w.host, "nova"
		return store.Volumes.Put(tx, &v)
	})
	look := func() volume.Stray {
		t.Helper()
		if _, err := w.v.Relocator().ReconcileKey(t.Context(), w.s.Snapshot(), project, writer{w.s}); err != nil {
			t.Fatal(err)
		}
		left := volume.Strays(w.s.Snapshot(), project, "east")
		if len(left) != 1 {
			t.Fatalf("left are %+v", left)
		}
		return left[0]
	}
	server := func(change func(*model.Server)) {
		w.do(func(tx *store.Tx) error {
			old, _ := store.Servers.Get(tx, s.ID)
			n := *old
			change(&n)
			return store.Servers.Put(tx, &n)
		})
	}
	if l := look(); l.Moving || !strings.Contains(l.Why, "follows") {
		t.Errorf("its server is elsewhere: %+v", l)
	}
	server(func(s *model.Server) { s.Host, s.Power = near, model.PowerOff })
	if l := look(); l.Moving || !strings.Contains(l.Why, "does not run") {
		t.Errorf("its server is off: %+v", l)
	}
	server(func(s *model.Server) { s.Power = model.PowerRunning })
	if l := look(); !l.Moving || l.Why != "" {
		t.Fatalf("its server runs there: %+v", l)
	}
	n := w.get(x.ID).Relocation
	if n.Host != near {
		t.Errorf("it goes to %s, not to the host of its server (%s; the roomy one is %s)", n.Host, near, roomy)
	}
	w.placeSays(near, model.VolumeReport{VolumeID: x.ID, Generation: w.get(x.ID).Generation, Placed: n.Number})
	w.disk(s, model.DiskReport{VolumeID: x.ID, Number: n.Number, State: model.DiskNear})
	w.disk(s, model.DiskReport{VolumeID: x.ID, Number: n.Number, State: model.DiskTurned})
	if v := w.get(x.ID); v.Host != near || v.Zone != "east" {
		t.Errorf("%+v", v)
	}
	if left := volume.Strays(w.s.Snapshot(), project, "east"); len(left) != 0 {
		t.Errorf("left are %+v", left)
	}
}
