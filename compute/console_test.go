package compute_test

import (
	"testing"
	"time"

	"yakumo/compute"
	"yakumo/fault"
	"yakumo/model"
	"yakumo/store"
	"yakumo/store/storetest"
)

// TestConsoleTokens: a token opens what it is of until it expires, is prolonged where it was cut off, and is swept.
func TestConsoleTokens(t *testing.T) {
	s := storetest.New(t)
	now := time.Now()
	c := compute.New(compute.Config{Store: s, Log: quiet, Now: func() time.Time { return now }})
	row := &model.Server{Meta: model.NewMeta(project, "a", now), Host: "h", Status: model.ServerStatus{Phase: model.PhaseReady, Power: model.PowerRunning, LaunchedAt: now}}
	update := func(f func(tx *store.Tx) error) error {
		_, err := s.Update(t.Context(), f)
		return err
	}
	var token string
	var kept *model.ConsoleToken
	open := func(sc compute.Scope) error {
		return update(func(tx *store.Tx) error {
			var err error
			token, kept, err = c.NewConsole(tx, sc, row.ID, compute.ConsoleSerial)
			return err
		})
	}
	mine := compute.Scope{ProjectID: project}
	if err := update(func(tx *store.Tx) error { return store.Servers.Put(tx, row) }); err != nil {
		t.Fatal(err)
	}
	if err := open(compute.Scope{ProjectID: "other"}); !fault.Is(err, fault.NotFound) {
		t.Errorf("another project's: %v", err)
	}
	if err := open(mine); err != nil {
		t.Fatal(err)
	}
	opens := func() bool {
		got, server, ok := c.Console(s.Snapshot(), token)
		return ok && got.Kind == compute.ConsoleSerial && server.ID == row.ID
	}
	if !opens() {
		t.Error("a fresh token opens nothing")
	}
	if _, _, ok := c.Console(s.Snapshot(), kept.Hash); ok {
		t.Error("what the store keeps opens a console")
	}
	sweep := func() (left int) {
		t.Helper()
		if _, err := c.Sweeper().Reconcile(t.Context(), s.Snapshot(), plainWriter{s}); err != nil {
			t.Fatal(err)
		}
		for range store.ConsoleTokens.All(s.Snapshot()) {
			left++
		}
		return left
	}
	extend := func() error {
		return update(func(tx *store.Tx) error { return c.ExtendConsole(tx, kept.Hash, time.Minute) })
	}
	now = now.Add(9*time.Minute + 30*time.Second)
	if err := extend(); err != nil {
		t.Fatal(err)
	}
	if now = now.Add(45 * time.Second); !opens() || sweep() != 1 {
		t.Error("a token that was prolonged opens nothing")
	}
	if now = now.Add(20 * time.Second); opens() || sweep() != 0 {
		t.Error("an expired token opens a console, or is kept")
	}
	if err := extend(); err != nil || opens() {
		t.Errorf("a token that is gone came back: %v", err)
	}
	// The server's state, and its end.
	for _, tc := range []struct {
		change func(*model.Server)
		ok     bool
	}{
		{func(s *model.Server) { s.Status.Power = model.PowerPaused }, true},
		{func(s *model.Server) { s.Status.Power, s.Power = model.PowerOff, model.PowerOff }, false},
		{func(s *model.Server) { s.Status.Phase = model.PhaseError }, false},
		{func(s *model.Server) { s.Host = "" }, false},
	} {
		n := *row
		tc.change(&n)
		if err := update(func(tx *store.Tx) error { return store.Servers.Put(tx, &n) }); err != nil {
			t.Fatal(err)
		}
		if err := open(mine); (err == nil) != tc.ok || err != nil && !fault.Is(err, fault.Conflict) {
			t.Errorf("%+v: %v", n.Status, err)
		}
	}
	if err := update(func(tx *store.Tx) error { return store.Servers.Put(tx, row) }); err != nil {
		t.Fatal(err)
	}
	if err := open(mine); err != nil {
		t.Fatal(err)
	}
	if err := update(func(tx *store.Tx) error { return store.Servers.Delete(tx, row.ID) }); err != nil || opens() {
		t.Errorf("a deleted server's console opens: %v", err)
	}
}

// TestHandedInPassword: the first password counts until it is cleared, and one of before does not come back.
func TestHandedInPassword(t *testing.T) {
	w := newWorld(t)
	w.furnish()
	h := w.row("h1")
	s := &model.Server{Meta: model.NewMeta(project, "a", time.Now()), Host: h.ID, Status: model.ServerStatus{Phase: model.PhaseReady, Power: model.PowerRunning, LaunchedAt: time.Now()}}
	w.update(func(tx *store.Tx) error { return store.Servers.Put(tx, s) })
	report := func(sealed string, clears int64) string {
		w.report(h.ID, model.ServerReport{ServerID: s.ID, Generation: s.Generation, Phase: model.PhaseReady, Power: model.PowerRunning, Sealed: sealed, SealedClears: clears})
		return w.get(s.ID).Sealed
	}
	if got := report("one", 0); got != "one" {
		t.Errorf("the first: %q", got)
	}
	if got := report("two", 0); got != "one" {
		t.Errorf("a second: %q", got)
	}
	clear := func(sc compute.Scope) error {
		_, err := w.s.Update(t.Context(), func(tx *store.Tx) error {
			_, err := w.c.ClearPassword(tx, sc, s.ID)
			return err
		})
		return err
	}
	if err := clear(compute.Scope{ProjectID: "other"}); !fault.Is(err, fault.NotFound) || w.get(s.ID).Sealed != "one" {
		t.Errorf("another project's: %v", err)
	}
	if err := clear(compute.Scope{ProjectID: project}); err != nil || w.get(s.ID).Sealed != "" {
		t.Errorf("cleared: %v", err)
	}
	if got := report("one", 0); got != "" {
		t.Errorf("one of before it was cleared: %q", got)
	}
	if got := report("new", 1); got != "new" {
		t.Errorf("a new one: %q", got)
	}
}
