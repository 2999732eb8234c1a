package compute_test

import (
	"testing"
	"time"

	"yakumo/compute"
	"yakumo/model"
	"yakumo/store"
)

// TestPasswordWhoseAskerDied: a change of a password that nobody will end is ended by the sweep, and not before its time.
func TestPasswordWhoseAskerDied(t *testing.T) {
	w := newWorld(t)
	w.furnish()
	h := w.row("h")
	now := time.Now()
	c := compute.New(compute.Config{Store: w.s, Ports: w.net, Log: quiet, Now: func() time.Time { return now }})
	s := &model.Server{Meta: model.NewMeta(project, "s", now), Flavor: w.flavor, Host: h.ID, Power: model.PowerRunning,
		Image:  model.ImageCopy{Hardware: map[string]string{"hw_qemu_guest_agent": "yes"}},
		Status: model.ServerStatus{Phase: model.PhaseReady, Power: model.PowerRunning, LaunchedAt: now, Generation: 1}}
	w.update(func(tx *store.Tx) error { return store.Servers.Put(tx, s) })
	sc := compute.Scope{ProjectID: project, RequestID: "req-1"}
	w.update(func(tx *store.Tx) error {
		_, user, refusal, err := c.ChangePassword(tx, sc, s.ID)
		if user != "root" || refusal != nil {
			t.Errorf("for %q, refused: %v", user, refusal)
		}
		return err
	})
	sweep := func(task string) {
		t.Helper()
		if _, err := c.Sweeper().Reconcile(t.Context(), w.s.Snapshot(), plainWriter{w.s}); err != nil {
			t.Fatal(err)
		}
		if got := w.get(s.ID).Status.Task; got != task {
			t.Errorf("the task is %q, want %q", got, task)
		}
	}
	sweep(compute.TaskPassword)
	now = now.Add(6 * time.Minute)
	sweep("")
	if a := w.action(s.ID, "changePassword"); a == nil || a.Message != compute.Failure || len(a.Events) != 1 || a.Events[0].Details == "" {
		t.Errorf("the action: %+v", a)
	}
	// What it would have said comes too late, and changes nothing.
	before := w.get(s.ID)
	w.update(func(tx *store.Tx) error { return c.PasswordChanged(tx, s.ID, sc.RequestID, "") })
	if after := w.get(s.ID); after.UpdatedAt != before.UpdatedAt || compute.State(after) != compute.Active {
		t.Errorf("%+v", after.Status)
	}
}
