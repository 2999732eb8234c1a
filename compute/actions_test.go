package compute_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"yakumo/compute"
	"yakumo/compute/computetest"
	"yakumo/fault"
	"yakumo/images"
	"yakumo/model"
	"yakumo/network"
	"yakumo/store"
	"yakumo/store/storetest"
)

// gallery is a world whose servers can be made images of. keep: shelved servers stay on their hosts.
func gallery(t *testing.T, keep bool) (*world, *images.Images) {
	t.Helper()
	w := worldOn(t, storetest.New(t))
	img := images.New(images.Config{Store: w.s, Log: quiet})
	none := map[string]int{}
	for k := range compute.DefaultQuotas() {
		none[k] = -1
	}
	n := network.New(network.Config{Log: quiet})
	w.net = n
	w.c = compute.New(compute.Config{Store: w.s, Ports: n, Images: img, Log: quiet, Defaults: none, KeepShelved: keep})
	w.furnish()
	return w, img
}

// queue adds the row of an image that a server is to be saved as.
func (w *world) queue(img *images.Images, server model.ID, backup string) model.ID {
	w.t.Helper()
	props := map[string]string{images.PropertyServer: server, images.PropertyType: "snapshot"}
	if backup != "" {
		props[images.PropertyType], props[images.PropertyBackup] = "backup", backup
	}
	i, err := img.Create(context.Background(), images.Caller{ProjectID: project}, model.Image{Meta: model.Meta{Name: "i"}, DiskFormat: "qcow2", ContainerFormat: "bare", Properties: props})
	if err != nil {
		w.t.Fatal(err)
	}
	return i.ID
}

type act = func(*store.Tx, compute.Scope, model.ID) (*model.Server, error)

// must does what has to be allowed.
func (w *world) must(f act, id model.ID) {
	w.t.Helper()
	if err := w.do(f, id); err != nil {
		w.t.Fatal(err)
	}
}

// state waits until a server is in the state and has no task.
func (w *world) state(id model.ID, want string) *model.Server {
	w.t.Helper()
	var s *model.Server
	w.wait("server "+id+" "+want, func(snap store.Snapshot) (ok bool) {
		s, ok = store.Servers.Get(snap, id)
		return ok && compute.State(s) == want && s.Status.Task == ""
	})
	return s
}

// ended checks how the newest action of a name ended.
func (w *world) ended(id model.ID, name, event string, details string) {
	w.t.Helper()
	a := w.action(id, name)
	switch {
	case a == nil || len(a.Events) == 0:
		w.t.Errorf("%s has no event: %+v", name, a)
	case a.Events[len(a.Events)-1].Event != event || a.Events[len(a.Events)-1].Details != details || (details != "") != (a.Message == compute.Failure):
		w.t.Errorf("%s ended: %+v", name, a)
	}
}

var other = &model.Image{Meta: model.Meta{ID: "66666666-6666-4666-8666-666666666666"}, Status: model.ImageActive, VirtualSize: 1 << 20, BlobID: "b2"}

func (w *world) acts() map[string]act {
	return map[string]act{
		"stop": w.c.Stop, "start": w.c.Start, "pause": w.c.Pause, "unpause": w.c.Unpause, "suspend": w.c.Suspend, "resume": w.c.Resume,
		"unrescue": w.c.Unrescue, "shelveOffload": w.c.ShelveOffload, "restore": w.c.Restore,
		"reboot": func(tx *store.Tx, sc compute.Scope, id model.ID) (*model.Server, error) {
			return w.c.Reboot(tx, sc, id, false)
		},
		"hard": func(tx *store.Tx, sc compute.Scope, id model.ID) (*model.Server, error) {
			return w.c.Reboot(tx, sc, id, true)
		},
		"rebuild": func(tx *store.Tx, sc compute.Scope, id model.ID) (*model.Server, error) {
			return w.c.Rebuild(tx, sc, id, compute.Rebuild{Image: other, Copy: other.Copy()})
		},
		"rescue": func(tx *store.Tx, sc compute.Scope, id model.ID) (*model.Server, error) {
			return w.c.Rescue(tx, sc, id, other, other.Copy(), "")
		},
		"shelve": func(tx *store.Tx, sc compute.Scope, id model.ID) (*model.Server, error) {
			return w.c.Shelve(tx, sc, id, model.NewID())
		},
		"unshelve": func(tx *store.Tx, sc compute.Scope, id model.ID) (*model.Server, error) {
			return w.c.Unshelve(tx, sc, id, compute.Unshelve{})
		},
		"createImage": func(tx *store.Tx, sc compute.Scope, id model.ID) (*model.Server, error) {
			return w.c.CreateImage(tx, sc, id, model.NewID())
		},
		"createBackup": func(tx *store.Tx, sc compute.Scope, id model.ID) (*model.Server, error) {
			return w.c.CreateBackup(tx, sc, id, model.NewID(), 1)
		},
		"changePassword": func(tx *store.Tx, sc compute.Scope, id model.ID) (*model.Server, error) {
			s, _, _, err := w.c.ChangePassword(tx, sc, id)
			return s, err
		},
	}
}

// TestWrongStates: every action in every state, with and without a task. What is refused says so in Nova's words and changes nothing.
func TestWrongStates(t *testing.T) {
	w, _ := gallery(t, true)
	allowed := map[string][]string{
		"stop": {compute.Active, compute.Errored}, "start": {compute.Stopped}, "pause": {compute.Active}, "unpause": {compute.Paused},
		"suspend": {compute.Active}, "resume": {compute.Suspended}, "unrescue": {compute.Rescued}, "shelveOffload": {compute.Shelved}, "restore": {},
		"reboot": {compute.Active}, "hard": {compute.Active, compute.Stopped, compute.Paused, compute.Suspended, compute.Errored},
		"rebuild": {compute.Active, compute.Stopped, compute.Errored}, "rescue": {compute.Active, compute.Stopped, compute.Errored},
		"shelve": {compute.Active, compute.Stopped, compute.Paused, compute.Suspended}, "unshelve": {compute.Shelved, compute.ShelvedOffloaded},
		"createImage": {compute.Active, compute.Stopped, compute.Paused, compute.Suspended}, "createBackup": {compute.Active, compute.Stopped, compute.Paused, compute.Suspended},
		"changePassword": {compute.Active},
	}
	states := map[string]func(*model.Server){
		compute.Active:    func(s *model.Server) {},
		compute.Stopped:   func(s *model.Server) { s.Power, s.Status.Power = model.PowerOff, model.PowerOff },
		compute.Paused:    func(s *model.Server) { s.Power, s.Status.Power = model.PowerPaused, model.PowerPaused },
		compute.Suspended: func(s *model.Server) { s.Power, s.Status.Power = model.PowerSuspended, model.PowerSuspended },
		compute.Rescued:   func(s *model.Server) { s.Rescue, s.Status.Rescue = &model.Rescue{Revision: 2}, 2 },
		compute.Resized:   func(s *model.Server) { s.Move = &model.Move{Stage: model.MoveVerify, Source: "a", Target: "b"} },
		compute.Shelved: func(s *model.Server) {
			s.Shelving, s.Power, s.Status.Power = model.Shelved, model.PowerOff, model.PowerOff
		},
		compute.ShelvedOffloaded: func(s *model.Server) {
			s.Shelving, s.Host, s.Power, s.Status.Power, s.Status.Phase = model.Offloaded, "", model.PowerOff, model.PowerOff, model.PhaseShelved
		},
		compute.Errored: func(s *model.Server) { s.Status.Phase, s.Status.Fault = model.PhaseError, &model.Fault{Code: 500} },
		compute.Building: func(s *model.Server) {
			s.Status.LaunchedAt, s.Status.Phase, s.Status.Task = time.Time{}, model.PhaseStarting, compute.TaskSpawning
		},
	}
	host := w.row("h")
	for state, set := range states {
		for name, f := range w.acts() {
			for _, task := range []string{"", compute.TaskPause} {
				s := &model.Server{Meta: model.NewMeta(project, "s", time.Now()), Flavor: w.flavor, Host: host.ID, Power: model.PowerRunning, ImageID: image.ID,
					Status: model.ServerStatus{Phase: model.PhaseReady, Power: model.PowerRunning, LaunchedAt: time.Now(), Generation: 1, Task: task}}
				set(s)
				w.update(func(tx *store.Tx) error { return store.Servers.Put(tx, s) })
				if got := compute.State(s); got != state {
					t.Fatalf("the state is %s, want %s", got, state)
				}
				err := w.do(f, s.ID)
				word := map[string]string{"hard": "reboot"}[name]
				if word == "" {
					word = name
				}
				want := ""
				switch {
				case !slices.Contains(allowed[name], state):
					want = "Cannot '" + word + "' instance " + s.ID + " while it is in vm_state " + state
				case task != "":
					want = "Cannot '" + word + "' instance " + s.ID + " while it is in task_state " + task
				}
				if want == "" {
					if err != nil {
						t.Errorf("%s in %s: %v", name, state, err)
					}
				} else {
					text, _ := fault.Text(err)
					if !fault.Is(err, fault.Conflict) || text != want {
						t.Errorf("%s in %s: %v, want %s", name, state, err, want)
					}
					if now := w.get(s.ID); now.Generation != s.Generation || now.Power != s.Power || w.action(s.ID, name) != nil {
						t.Errorf("%s in %s was refused and changed the server: %+v", name, state, now)
					}
				}
				locked := *w.get(s.ID)
				locked.Locked = true
				w.update(func(tx *store.Tx) error { return store.Servers.Put(tx, &locked) })
				if err := w.do(f, s.ID); !fault.Is(err, fault.Conflict) || !strings.Contains(err.Error(), "is locked") {
					t.Errorf("%s of a locked server: %v", name, err)
				}
				foreign := compute.Scope{ProjectID: "another", RequestID: "r"}
				if _, err := w.s.Update(t.Context(), func(tx *store.Tx) error { _, err := f(tx, foreign, s.ID); return err }); !fault.Is(err, fault.NotFound) {
					t.Errorf("%s of another's server: %v", name, err)
				}
			}
		}
	}
}

// TestActionsRunThrough: each action with its task, its end and its record.
func TestActionsRunThrough(t *testing.T) {
	w, img := gallery(t, false)
	h := w.host("h", nil)
	w.run("1")
	s := w.create()
	w.state(s.ID, compute.Active)
	acts := w.acts()
	step := func(name, task, state, event string) *model.Server {
		t.Helper()
		h.Hold(true)
		w.must(acts[name], s.ID)
		if now := w.get(s.ID); now.Status.Task != task {
			t.Errorf("%s: the task is %q, want %q", name, now.Status.Task, task)
		}
		h.Hold(false)
		now := w.state(s.ID, state)
		w.ended(s.ID, name, event, "")
		return now
	}
	boots := func() int { return h.Guests()[s.ID] }
	step("pause", compute.TaskPause, compute.Paused, "compute_pause_instance")
	step("unpause", compute.TaskUnpause, compute.Active, "compute_unpause_instance")
	step("suspend", compute.TaskSuspend, compute.Suspended, "compute_suspend_instance")
	step("resume", compute.TaskResume, compute.Active, "compute_resume_instance")
	if boots() != 1 {
		t.Errorf("the guest was started %d times", boots())
	}
	if now := step("rescue", compute.TaskRescue, compute.Rescued, "compute_rescue_instance"); now.Status.Rescue != now.Rescue.Revision || h.Image(s.ID) != other.ID {
		t.Errorf("rescued: %+v, from %s", now.Status, h.Image(s.ID))
	}
	if now := step("unrescue", compute.TaskUnrescue, compute.Active, "compute_unrescue_instance"); now.Rescue != nil || h.Image(s.ID) == other.ID {
		t.Errorf("unrescued: %+v", now)
	}
	if now := step("rebuild", compute.TaskRebuild, compute.Active, "compute_rebuild_instance"); now.ImageID != other.ID || h.Image(s.ID) != other.ID || now.Status.Rebuilds != 1 {
		t.Errorf("rebuilt: %+v", now)
	}
	w.must(w.c.Stop, s.ID)
	w.state(s.ID, compute.Stopped)
	before := boots()
	if step("rebuild", compute.TaskRebuild, compute.Stopped, "compute_rebuild_instance"); boots() != before {
		t.Error("a server that was off was started by its rebuild")
	}
	w.must(w.c.Start, s.ID)
	w.state(s.ID, compute.Active)

	id := w.queue(img, s.ID, "")
	acts["createImage"] = func(tx *store.Tx, sc compute.Scope, server model.ID) (*model.Server, error) {
		return w.c.CreateImage(tx, sc, server, id)
	}
	if now := step("createImage", compute.TaskSnapshot, compute.Active, "compute_snapshot_instance"); len(now.Saving) > 0 {
		t.Errorf("saved, and still saving %v", now.Saving)
	}
	var backups []model.ID
	for range 3 {
		b := w.queue(img, s.ID, "daily")
		backups = append(backups, b)
		acts["createBackup"] = func(tx *store.Tx, sc compute.Scope, server model.ID) (*model.Server, error) {
			return w.c.CreateBackup(tx, sc, server, b, 2)
		}
		step("createBackup", compute.TaskBackup, compute.Active, "compute_backup_instance")
	}
	for i, b := range append(backups, id) {
		if i, there := i, func() bool { _, ok := store.Images.Get(w.s.Snapshot(), b); return ok }(); there != (i > 0) {
			t.Errorf("image %d is there: %v", i, there)
		}
	}
	shelf := w.queue(img, s.ID, "")
	acts["shelve"] = func(tx *store.Tx, sc compute.Scope, server model.ID) (*model.Server, error) {
		return w.c.Shelve(tx, sc, server, shelf)
	}
	now := step("shelve", compute.TaskShelve, compute.ShelvedOffloaded, "compute_shelve_instance")
	if now.Host != "" || now.Status.Phase != model.PhaseShelved || now.Image.ImageID != shelf {
		t.Errorf("shelved: %+v", now)
	}
	if p, _ := store.Ports.Get(w.s.Snapshot(), now.Ports[0]); p == nil || p.Host != "" || p.DeviceID != s.ID {
		t.Errorf("its port: %+v", p)
	}
	w.within(func() bool { return len(h.Guests()) == 0 })
	if n := len(h.Guests()); n != 0 {
		t.Errorf("%d guests stay", n)
	}
	w.must(acts["unshelve"], s.ID)
	now = w.state(s.ID, compute.Active)
	w.ended(s.ID, "unshelve", "compute_unshelve_instance", "")
	if now.Host == "" || now.Shelving != model.NotShelved || h.Image(s.ID) != shelf || now.ImageID != other.ID {
		t.Errorf("unshelved: %+v", now)
	}
	if _, ok := store.Images.Get(w.s.Snapshot(), shelf); ok {
		t.Error("the image of the shelf stays")
	}
	if p, _ := store.Ports.Get(w.s.Snapshot(), now.Ports[0]); p.Host != now.Host {
		t.Errorf("its port: %+v", p)
	}
	w.settles(t.Fatalf)
}

// TestShelvedStays: where shelved servers stay on their hosts until they are asked to go.
func TestShelvedStays(t *testing.T) {
	w, img := gallery(t, true)
	h := w.host("h", nil)
	w.run("1")
	s := w.create()
	w.state(s.ID, compute.Active)
	shelve := func() model.ID {
		t.Helper()
		id := w.queue(img, s.ID, "")
		w.must(func(tx *store.Tx, sc compute.Scope, server model.ID) (*model.Server, error) {
			return w.c.Shelve(tx, sc, server, id)
		}, s.ID)
		w.state(s.ID, compute.Shelved)
		return id
	}
	shelve()
	zone := "z"
	if err := w.do(func(tx *store.Tx, sc compute.Scope, id model.ID) (*model.Server, error) {
		return w.c.Unshelve(tx, sc, id, compute.Unshelve{Zone: &zone})
	}, s.ID); !fault.Is(err, fault.Conflict) {
		t.Errorf("a zone for a server that is on its host: %v", err)
	}
	w.must(w.acts()["unshelve"], s.ID)
	if now := w.state(s.ID, compute.Active); now.Shelving != model.NotShelved || now.ShelvedImage != "" || h.Guests()[s.ID] != 2 {
		t.Errorf("unshelved where it was: %+v", now)
	}
	id := shelve()
	w.must(w.c.ShelveOffload, s.ID)
	w.state(s.ID, compute.ShelvedOffloaded)
	w.ended(s.ID, "shelveOffload", "compute_shelve_offload_instance", "")
	// No host: it stays on the shelf, and its action says why.
	w.update(func(tx *store.Tx) error {
		_, err := w.c.SetHost(tx, h.ID(), func(h *model.Host) { h.Disabled = true })
		return err
	})
	w.must(w.acts()["unshelve"], s.ID)
	w.state(s.ID, compute.ShelvedOffloaded)
	if a := w.action(s.ID, "unshelve"); a.Message != compute.Failure || !strings.Contains(a.Events[0].Details, "No valid host") {
		t.Errorf("unshelved nowhere: %+v", a)
	}
	if err := w.delete(s.ID); err != nil {
		t.Fatal(err)
	}
	w.gone(s.ID)
	if _, ok := store.Images.Get(w.s.Snapshot(), id); ok {
		t.Error("the image of a deleted server's shelf stays")
	}
}

// TestFailuresOfActions: what a host cannot do ends the action with its words, and leaves the server in a true state.
func TestFailuresOfActions(t *testing.T) {
	w, img := gallery(t, false)
	refuse := map[model.Power]bool{}
	row := w.row("h")
	unsaved := &model.Fault{Code: 500, Message: "The disk is full."}
	h := computetest.Start(t, computetest.Config{Store: w.s, Sink: w.c, Host: row.ID, Refuse: func(s *model.Server) *model.Fault {
		if refuse[s.Power] && s.Power != model.PowerRunning || s.Rescue != nil && refuse["rescue"] {
			return &model.Fault{Code: 500, Message: "It does not."}
		}
		return nil
	}, Unsaved: func(model.ID) *model.Fault { return unsaved }})
	w.hosts = append(w.hosts, h)
	w.run("1")
	s := w.create()
	w.state(s.ID, compute.Active)
	refuse[model.PowerPaused], refuse[model.PowerSuspended] = true, true
	acts := w.acts()
	for name, event := range map[string]string{"pause": "compute_pause_instance", "suspend": "compute_suspend_instance"} {
		w.must(acts[name], s.ID)
		if now := w.state(s.ID, compute.Active); now.Power != model.PowerRunning || now.Status.Fault != nil {
			t.Errorf("%s failed: %+v", name, now)
		}
		w.ended(s.ID, name, event, "It does not.")
	}
	id := w.queue(img, s.ID, "")
	w.must(func(tx *store.Tx, sc compute.Scope, server model.ID) (*model.Server, error) {
		return w.c.CreateImage(tx, sc, server, id)
	}, s.ID)
	w.state(s.ID, compute.Active)
	w.ended(s.ID, "createImage", "compute_snapshot_instance", "The disk is full.")
	if _, ok := store.Images.Get(w.s.Snapshot(), id); ok {
		t.Error("an image that cannot be made stays")
	}
	id = w.queue(img, s.ID, "")
	w.must(func(tx *store.Tx, sc compute.Scope, server model.ID) (*model.Server, error) {
		return w.c.Shelve(tx, sc, server, id)
	}, s.ID)
	if now := w.state(s.ID, compute.Stopped); now.Host == "" || now.ShelvedImage != "" {
		t.Errorf("it could not be shelved: %+v", now)
	}
	w.ended(s.ID, "shelve", "compute_shelve_instance", "The disk is full.")
	w.must(w.c.Start, s.ID)
	w.state(s.ID, compute.Active)
	h.Pause(s.ID) // by its hypervisor: shown, and let go on
	w.state(s.ID, compute.Paused)
	w.must(w.c.Unpause, s.ID)
	w.state(s.ID, compute.Active)
	refuse["rescue"] = true
	w.must(acts["rescue"], s.ID)
	if now := w.state(s.ID, compute.Errored); now.Status.Fault.Message != "It does not." {
		t.Errorf("a rescue failed: %+v", now.Status)
	}
	refuse["rescue"] = false
	w.must(acts["hard"], s.ID)
	w.state(s.ID, compute.Rescued)
}

// TestResetState: an administrator's word stays until something is asked for.
func TestResetState(t *testing.T) {
	w, _ := gallery(t, false)
	h := w.host("h", nil)
	w.run("1")
	s := w.create()
	w.state(s.ID, compute.Active)
	reset := func(errored bool) act {
		return func(tx *store.Tx, sc compute.Scope, id model.ID) (*model.Server, error) {
			return w.c.ResetState(tx, sc, id, errored)
		}
	}
	h.Hold(true)
	w.must(w.c.Pause, s.ID)
	w.must(reset(true), s.ID)
	if now := w.get(s.ID); compute.State(now) != compute.Errored || now.Status.Task != "" {
		t.Errorf("reset: %+v", now.Status)
	}
	w.ended(s.ID, "pause", "compute_pause_instance", "The state was reset by an administrator.")
	h.Hold(false)
	w.wait("the host is heard", func(snap store.Snapshot) bool {
		now, _ := store.Servers.Get(snap, s.ID)
		return now.Status.Generation == now.Generation
	})
	if now := w.get(s.ID); compute.State(now) != compute.Errored {
		t.Errorf("a report has undone an administrator's word: %+v", now.Status)
	}
	w.must(reset(false), s.ID)
	w.state(s.ID, compute.Paused)
	lost := w.create(func(n *compute.NewServer) { n.Host = "nowhere" })
	w.state(lost.ID, compute.Errored)
	if err := w.do(reset(false), lost.ID); !fault.Is(err, fault.Conflict) {
		t.Errorf("a server without a host was made active: %v", err)
	}
}
