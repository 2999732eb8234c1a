package compute_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"yakumo/compute"
	"yakumo/fault"
	"yakumo/model"
	"yakumo/network"
	"yakumo/reconcile"
	"yakumo/store"
)

func TestBootIsFiveTimedSteps(t *testing.T) {
	w := newWorld(t)
	w.furnish()
	h := w.host("h1", nil)
	w.run("a")
	id := w.create().ID
	s := w.phase(id, model.PhaseReady)
	if s.Status.Power != model.PowerRunning || s.Status.LaunchedAt.IsZero() || s.Host != h.ID() || compute.State(s) != compute.Active {
		t.Errorf("ready: %+v", s)
	}
	a := w.action(id, "create")
	var steps []string
	for i, e := range a.Events {
		steps = append(steps, e.Event)
		if e.Result != compute.Success || e.FinishedAt.Before(e.StartedAt) || i > 0 && e.FinishedAt.Before(a.Events[i-1].StartedAt) {
			t.Errorf("event %+v", e)
		}
	}
	if want := []string{"receive", "place", "fetch_image", "start", "use"}; !slices.Equal(steps, want) {
		t.Errorf("steps %v, want %v", steps, want)
	}
	p, _ := store.Ports.Get(w.s.Snapshot(), s.Ports[0])
	if p.Host != h.ID() || p.DeviceID != id {
		t.Errorf("port %+v", p)
	}
	w.wait("port active", func(snap store.Snapshot) bool {
		p, _ := store.Ports.Get(snap, s.Ports[0])
		return p.Status.State == model.PortActive
	})
}

// TestLateStep: the guest's first sign of life comes after it was started.
func TestLateStep(t *testing.T) {
	w := newWorld(t)
	h := w.row("h1")
	w.run("a")
	id := w.create().ID
	s := w.phaseOnHost(id)
	now := time.Now().UTC()
	w.report(h.ID, model.ServerReport{ServerID: id, Generation: s.Generation, Phase: model.PhaseReady, Power: model.PowerRunning, At: now})
	w.report(h.ID, model.ServerReport{ServerID: id, Generation: s.Generation, Phase: model.PhaseReady, Power: model.PowerRunning, At: now,
		Steps: []model.StepAt{{Step: model.StepUse, StartedAt: now, FinishedAt: now.Add(time.Second)}}})
	a := w.action(id, "create")
	if e := a.Events[len(a.Events)-1]; e.Event != "use" || e.FinishedAt.Sub(e.StartedAt) != time.Second {
		t.Errorf("last event %+v", e)
	}
	before := w.written(id)
	w.report(h.ID, model.ServerReport{ServerID: id, Generation: s.Generation, Phase: model.PhaseReady, Power: model.PowerRunning, At: now,
		Steps: []model.StepAt{{Step: model.StepUse, StartedAt: now, FinishedAt: now.Add(time.Second)}}})
	if after := w.written(id); after != before {
		t.Error("a report that says nothing new was written")
	}
}

// phaseOnHost waits until a server has a host.
func (w *world) phaseOnHost(id model.ID) *model.Server {
	w.t.Helper()
	w.wait("server "+id+" placed", func(snap store.Snapshot) bool { s, ok := store.Servers.Get(snap, id); return ok && s.Host != "" })
	return w.get(id)
}

func TestActionsAndWrongStates(t *testing.T) {
	w := newWorld(t)
	h := w.host("h1", nil)
	w.run("a")
	h.Hold(true)
	id := w.create().ID
	conflict := func(what string, err error, text string) {
		t.Helper()
		if got, _ := fault.Text(err); !fault.Is(err, fault.Conflict) || got != text {
			t.Errorf("%s: %v, want %q", what, err, text)
		}
	}
	soft := func(tx *store.Tx, sc compute.Scope, id model.ID) (*model.Server, error) {
		return w.c.Reboot(tx, sc, id, false)
	}
	hard := func(tx *store.Tx, sc compute.Scope, id model.ID) (*model.Server, error) {
		return w.c.Reboot(tx, sc, id, true)
	}
	w.phaseOnHost(id)
	conflict("stop while building", w.do(w.c.Stop, id), "Cannot 'stop' instance "+id+" while it is in vm_state building")
	conflict("start while building", w.do(w.c.Start, id), "Cannot 'start' instance "+id+" while it is in vm_state building")
	conflict("reboot while building", w.do(soft, id), "Cannot 'reboot' instance "+id+" while it is in vm_state building")
	h.Hold(false)
	w.phase(id, model.PhaseReady)
	conflict("start while active", w.do(w.c.Start, id), "Cannot 'start' instance "+id+" while it is in vm_state active")
	h.Hold(true)
	if err := w.do(w.c.Stop, id); err != nil {
		t.Fatal(err)
	}
	if s := w.get(id); s.Status.Task != compute.TaskStop || compute.State(s) != compute.Active {
		t.Errorf("stopping: %+v", s.Status)
	}
	conflict("stop while stopping", w.do(w.c.Stop, id), "Cannot 'stop' instance "+id+" while it is in task_state powering-off")
	conflict("reboot while stopping", w.do(hard, id), "Cannot 'reboot' instance "+id+" while it is in task_state powering-off")
	h.Hold(false)
	if s := w.phase(id, model.PhaseReady); compute.State(s) != compute.Stopped || s.Status.Power != model.PowerOff {
		t.Errorf("stopped: %+v", s.Status)
	}
	conflict("stop while stopped", w.do(w.c.Stop, id), "Cannot 'stop' instance "+id+" while it is in vm_state stopped")
	conflict("soft reboot while stopped", w.do(soft, id), "Cannot 'reboot' instance "+id+" while it is in vm_state stopped")
	for _, f := range []func(*store.Tx, compute.Scope, model.ID) (*model.Server, error){w.c.Start, soft, hard, w.c.Stop, hard} {
		if err := w.do(f, id); err != nil {
			t.Fatal(err)
		}
		w.phase(id, model.PhaseReady)
	}
	if s := w.get(id); s.Status.Power != model.PowerRunning || s.Status.Reboots != 1 || s.Status.Hard != 2 {
		t.Errorf("after all: %+v", s.Status)
	}
	if n := h.Guests()[id]; n != 5 { // boot, start, soft, hard, hard
		t.Errorf("the guest was started %d times, want 5", n)
	}
	for _, name := range []string{"stop", "start", "reboot"} {
		a := w.action(id, name)
		if len(a.Events) != 1 || a.Events[0].Result != compute.Success || a.Events[0].Event != "compute_"+name+"_instance" {
			t.Errorf("action %s: %+v", name, a)
		}
	}
	if err := w.do(func(tx *store.Tx, sc compute.Scope, id model.ID) (*model.Server, error) {
		return w.c.Lock(tx, sc, id, "mine")
	}, id); err != nil {
		t.Fatal(err)
	}
	conflict("stop while locked", w.do(w.c.Stop, id), "Instance "+id+" is locked")
	conflict("delete while locked", w.delete(id), "Instance "+id+" is locked")
	if err := w.do(w.c.Unlock, id); err != nil {
		t.Fatal(err)
	}
	h.PowerOff(id)
	w.wait("what the guest did is wanted", func(snap store.Snapshot) bool {
		s, _ := store.Servers.Get(snap, id)
		return s.Power == model.PowerOff && s.Status.Generation == s.Generation
	})
	if n := h.Guests()[id]; n != 5 {
		t.Errorf("a guest that turned itself off was started again: %d", n)
	}
	if err := w.delete(id); err != nil {
		t.Fatal(err)
	}
	w.gone(id)
	if a := w.action(id, "delete"); a == nil || len(a.Events) != 1 {
		t.Errorf("the action of the deletion is not kept: %+v", a)
	}
}

func TestForeignServersAreNotFound(t *testing.T) {
	w := newWorld(t)
	id := w.create().ID
	other := compute.Scope{ProjectID: "22222222222222222222222222222222", RequestID: "r"}
	for name, f := range map[string]func(*store.Tx) error{
		"get":    func(tx *store.Tx) error { _, err := compute.Get(tx, other, id); return err },
		"stop":   func(tx *store.Tx) error { _, err := w.c.Stop(tx, other, id); return err },
		"delete": func(tx *store.Tx) error { return w.c.Delete(tx, other, id) },
		"update": func(tx *store.Tx) error { _, err := w.c.Update(tx, other, id, compute.Update{}); return err },
		"none":   func(tx *store.Tx) error { _, err := compute.Get(tx, compute.Scope{}, id); return err },
	} {
		if _, err := w.s.Update(t.Context(), f); !fault.Is(err, fault.NotFound) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestDeleteWithoutAHostIsAtOnce(t *testing.T) {
	w := newWorld(t)
	w.furnish()
	var kept model.ID
	w.update(func(tx *store.Tx) error {
		p, err := w.net.CreatePort(tx, network.Scope{ProjectID: project}, network.PortSpec{NetworkID: w.network})
		if err == nil {
			kept = p.ID
		}
		return err
	})
	id := model.NewID()
	w.update(func(tx *store.Tx) error {
		_, err := w.net.AttachPort(tx, network.Scope{ProjectID: project}, kept, id, "compute:nova")
		return err
	})
	w.create(func(n *compute.NewServer) { n.ID, n.Ports = id, []model.ID{kept} })
	second := w.create() // with a port of its own
	for _, id := range []model.ID{id, second.ID} {
		if err := w.delete(id); err != nil {
			t.Fatal(err)
		}
		if err := w.delete(id); !fault.Is(err, fault.NotFound) {
			t.Errorf("deleted twice: %v", err)
		}
	}
	snap := w.s.Snapshot()
	p, ok := store.Ports.Get(snap, kept)
	if !ok || p.DeviceID != "" || p.Host != "" {
		t.Errorf("a port that was there before: %+v", p)
	}
	if _, ok := store.Ports.Get(snap, second.Ports[0]); ok {
		t.Error("a port that was made for its server stays")
	}
}

func TestDeleteWaitsForTheHost(t *testing.T) {
	w := newWorld(t)
	w.furnish()
	h := w.host("h1", nil)
	w.run("a")
	id := w.create().ID
	w.phase(id, model.PhaseReady)
	h.Stop() // its machine is away
	for range 2 {
		if err := w.delete(id); err != nil {
			t.Fatal(err)
		}
	}
	if s := w.get(id); s.Status.Phase != model.PhaseDeleting || s.Status.Task != compute.TaskDelete || compute.State(s) != compute.Active {
		t.Errorf("deleting: %+v", s.Status)
	}
	h.Run()
	w.gone(id)
	if n := len(h.Guests()); n != 0 {
		t.Errorf("%d guests stay", n)
	}
	for range store.Ports.All(w.s.Snapshot()) {
		t.Error("a port stays")
	}
}

// TestRemovedHost: what was on a host that an operator removed from the cloud can be
// deleted, before and after.
func TestRemovedHost(t *testing.T) {
	w := newWorld(t)
	w.furnish()
	h := w.host("h1", nil)
	w.run("a")
	a, b := w.create().ID, w.create().ID
	w.phase(a, model.PhaseReady)
	w.phase(b, model.PhaseReady)
	h.Stop()
	if err := w.delete(a); err != nil {
		t.Fatal(err)
	}
	w.update(func(tx *store.Tx) error { return store.Hosts.Delete(tx, h.ID()) })
	w.gone(a)
	if err := w.delete(b); err != nil {
		t.Fatal(err)
	}
	w.gone(b)
	for range store.Ports.All(w.s.Snapshot()) {
		t.Error("a port stays")
	}
}

// written gives the revision at which a server or an action of it was written last.
func (w *world) written(id model.ID) int64 {
	snap := w.s.Snapshot()
	rev := store.Servers.Revision(snap, id)
	for a := range store.Actions.List(snap, "server", id) {
		rev = max(rev, store.Actions.Revision(snap, a.Key()))
	}
	return rev
}

func TestReportsThatAreLeftOut(t *testing.T) {
	w := newWorld(t)
	h1, h2 := w.row("h1"), w.row("h2")
	stop := w.run("a")
	id := w.create(func(n *compute.NewServer) { n.Host = "h1" }).ID
	s := w.phaseOnHost(id)
	stop()
	ready := model.ServerReport{ServerID: id, Generation: s.Generation, Phase: model.PhaseReady, Power: model.PowerRunning}
	unchanged := func(what string, host model.ID, r model.ServerReport) {
		t.Helper()
		before := w.written(id)
		w.report(host, r)
		if w.written(id) != before {
			t.Errorf("%s was taken: %+v", what, w.get(id).Status)
		}
	}
	unchanged("the report of another host", h2.ID, ready)
	older, newer, gone := ready, ready, ready
	newer.Generation++
	unchanged("the report of a generation that is not yet", h1.ID, newer)
	gone.Gone = true
	unchanged("the end of what is not deleted", h1.ID, gone)
	unchanged("the report of an unknown server", h1.ID, model.ServerReport{ServerID: model.NewID(), Phase: model.PhaseReady})
	w.report(h1.ID, ready)
	if got := w.get(id).Status; got.Phase != model.PhaseReady {
		t.Errorf("its own host's report was not taken: %+v", got)
	}
	older.Generation, older.Power = s.Generation-1, model.PowerOff
	unchanged("the report of an older generation", h1.ID, older)
	backwards := ready
	backwards.Phase = model.PhaseFetching
	unchanged("a phase that was before", h1.ID, backwards)
	unchanged("the same again", h1.ID, ready)
}

func TestAnotherHostIsTried(t *testing.T) {
	w := newWorld(t)
	w.furnish()
	broken := func(*model.Server) *model.Fault {
		return &model.Fault{Code: 500, Message: "The guest could not be started.", Details: "no hypervisor on it"}
	}
	w.host("h1", broken)
	w.host("h2", broken)
	good := w.host("h3", nil, func(h *model.Host) { h.Capacity.MemoryMiB = 1024 }) // the least inviting
	w.run("a")
	id := w.create().ID
	s := w.phase(id, model.PhaseReady)
	if s.Host != good.ID() || s.Status.Fault != nil || len(s.Status.Failed) != 0 {
		t.Errorf("got %+v", s)
	}
	if p, _ := store.Ports.Get(w.s.Snapshot(), s.Ports[0]); p.Host != good.ID() {
		t.Errorf("its port is on %s", p.Host)
	}
	w.within(func() bool { return len(w.hosts[0].Guests())+len(w.hosts[1].Guests()) == 0 }) // no row tells of it
	if a, b := w.hosts[0].Guests(), w.hosts[1].Guests(); len(a)+len(b) != 0 {
		t.Errorf("the others do not forget it: %v, %v", a, b)
	}
	failed := 0
	for _, e := range w.action(id, "create").Events {
		if e.Result == compute.Failure {
			failed++
		}
	}
	if failed != 2 {
		t.Errorf("%d failures are in the record, want 2", failed)
	}
}

func TestNoHostCanStartIt(t *testing.T) {
	w := newWorld(t)
	w.furnish()
	for _, name := range []string{"h1", "h2", "h3", "h4"} {
		w.host(name, func(*model.Server) *model.Fault {
			return &model.Fault{Code: 500, Message: "The guest could not be started.", Details: "because"}
		})
	}
	w.run("a")
	id := w.create().ID
	s := w.phase(id, model.PhaseError)
	if s.Status.Fault.Message != "The guest could not be started." || s.Host == "" || len(s.Status.Failed) != 2 {
		t.Errorf("after three hosts: %+v", s.Status)
	}
	if err := w.delete(id); err != nil {
		t.Fatal(err)
	}
	w.gone(id)

	// With fewer hosts than tries, there is none left.
	w2 := newWorld(t)
	w2.host("only", func(*model.Server) *model.Fault { return &model.Fault{Code: 500, Message: "No."} })
	w2.run("a")
	s = w2.phase(w2.create().ID, model.PhaseError)
	if !strings.HasPrefix(s.Status.Fault.Message, "No valid host was found.") || strings.Contains(s.Status.Fault.Message, "only") || !strings.Contains(s.Status.Fault.Details, "only") {
		t.Errorf("no host left: %+v", s.Status.Fault)
	}
}

// TestTheRequestsOwnFault is not tried elsewhere.
func TestTheRequestsOwnFault(t *testing.T) {
	w := newWorld(t)
	for _, name := range []string{"h1", "h2"} {
		w.host(name, func(*model.Server) *model.Fault { return &model.Fault{Code: 400, Message: "The image is no disk."} })
	}
	w.run("a")
	s := w.phase(w.create().ID, model.PhaseError)
	if s.Status.Fault.Message != "The image is no disk." || len(s.Status.Failed) != 0 {
		t.Errorf("got %+v", s.Status)
	}
}

func TestRefusalsTellTenantsNoNames(t *testing.T) {
	w := newWorld(t)
	w.row("secret-1", func(h *model.Host) { h.Disabled = true })
	down := w.row("secret-2")
	w.row("secret-3", func(h *model.Host) { h.Capacity.MemoryMiB = 600 })
	w.update(func(tx *store.Tx) error { return store.Heartbeats.Delete(tx, down.ID) })
	w.run("a")
	w.flavor.MemoryMiB = 4096
	id := w.create().ID
	f := w.phase(id, model.PhaseError).Status.Fault
	if f.Code != 500 || !strings.HasPrefix(f.Message, "No valid host was found. There are not enough hosts available") || strings.Contains(f.Message, "secret") {
		t.Errorf("a tenant reads %q", f.Message)
	}
	for _, want := range []string{"secret-1: disabled:", "secret-2: down:", "secret-3: memory: wants 4096 MiB for one server; the host has 600 at all"} {
		if !strings.Contains(f.Details, want) {
			t.Errorf("an operator misses %q in %q", want, f.Details)
		}
	}
	a := w.action(id, "create")
	if a.Message != compute.Failure || a.Events[1].Event != "place" || a.Events[1].Result != compute.Failure {
		t.Errorf("the record: %+v", a)
	}
	if err := w.delete(id); err != nil {
		t.Fatal(err)
	}
	w.gone(id)
}

func TestServersStayWhileTheirHostIsDown(t *testing.T) {
	w := newWorld(t)
	h := w.host("h1", nil)
	w.host("h2", nil, func(h *model.Host) { h.Capacity.MemoryMiB = 1024 })
	w.run("a")
	id := w.create().ID
	w.phase(id, model.PhaseReady)
	h.Stop()
	w.update(func(tx *store.Tx) error { return store.Heartbeats.Delete(tx, h.ID()) })
	other := w.create().ID // somebody looks at placement again
	if s := w.phase(other, model.PhaseReady); s.Host == h.ID() {
		t.Error("placed on a host that is down")
	}
	if s := w.get(id); s.Host != h.ID() || s.Status.Phase != model.PhaseReady {
		t.Errorf("moved: %+v", s)
	}
}

func TestOldActionsGo(t *testing.T) {
	w := newWorld(t)
	now := time.Now()
	c := compute.New(compute.Config{Store: w.s, Ports: w.net, Log: quiet, MaxActions: 3, KeepActions: time.Hour, KeepUsage: 36 * time.Hour, Now: func() time.Time { return now }})
	id := w.create().ID
	old := model.Action{ServerID: model.NewID(), RequestID: "a", Action: "delete", StartedAt: now.Add(-3 * time.Hour), UpdatedAt: now.Add(-2 * time.Hour)}
	recent := old
	recent.RequestID, recent.UpdatedAt = "b", now.Add(-time.Minute)
	w.update(func(tx *store.Tx) error {
		for i := range 6 {
			a := &model.Action{ServerID: id, RequestID: string(rune('a' + i)), Action: "stop", StartedAt: now.Add(time.Duration(i+1) * time.Minute)}
			if err := store.Actions.Put(tx, a); err != nil {
				return err
			}
		}
		for name, ago := range map[string]time.Duration{"long": 2 * time.Hour, "late": time.Minute} {
			g := &model.Server{Meta: model.NewMeta(project, name, now), Status: model.ServerStatus{Phase: model.PhaseGone, TerminatedAt: now.Add(-ago)}}
			if err := store.GoneServers.Put(tx, g); err != nil {
				return err
			}
			u := &model.ServerUsage{ServerID: g.ID, ProjectID: project, Name: name, StartedAt: now.Add(-9 * time.Hour), EndedAt: now.Add(-24 * ago)}
			if err := store.ServerUsages.Put(tx, u); err != nil {
				return err
			}
		}
		if err := store.Actions.Put(tx, &old); err != nil {
			return err
		}
		return store.Actions.Put(tx, &recent)
	})
	if _, err := c.Sweeper().Reconcile(t.Context(), w.s.Snapshot(), plainWriter{w.s}); err != nil {
		t.Fatal(err)
	}
	var kept []string
	for a := range store.Actions.List(w.s.Snapshot(), "server", id) {
		kept = append(kept, a.Action+a.RequestID)
	}
	slices.Sort(kept)
	if len(kept) != 3 || kept[0][:6] != "create" || kept[1] != "stope" || kept[2] != "stopf" {
		t.Errorf("kept %v, want the first and the newest", kept)
	}
	if _, ok := store.Actions.Get(w.s.Snapshot(), old.Key()); ok {
		t.Error("an old action of a server that is gone stays")
	}
	if _, ok := store.Actions.Get(w.s.Snapshot(), recent.Key()); !ok {
		t.Error("a recent action of a server that is gone does not stay")
	}
	for g := range store.GoneServers.All(w.s.Snapshot()) {
		if g.Name != "late" {
			t.Errorf("what was gone %s ago is remembered", g.Name)
		}
	}
	for u := range store.ServerUsages.All(w.s.Snapshot()) {
		if u.Name != "late" {
			t.Error("what was gone for longer than usage is kept is measured")
		}
	}
	if n := store.ServerUsages.Count(w.s.Snapshot(), "project", project); n != 1 {
		t.Errorf("usage of %d servers is kept", n)
	}
}

type plainWriter struct{ s *store.Store }

func (p plainWriter) Update(ctx context.Context, f func(*store.Tx) error) (int64, error) {
	return p.s.Update(ctx, f)
}

var _ reconcile.Writer = plainWriter{}

func TestHostNamesOfNames(t *testing.T) {
	for name, want := range map[string]string{
		"Web 1": "web-1", "a_b.c": "a-b-c", "--x--": "x", "日本": "server-ID", "": "server-ID",
		strings.Repeat("a", 70): strings.Repeat("a", 63), "é-ok": "ok", strings.Repeat("a", 62) + "-b": strings.Repeat("a", 62),
	} {
		if got := compute.HostName(name, "ID"); got != want {
			t.Errorf("HostName(%q) = %q, want %q", name, got, want)
		}
	}
}

func TestKeys(t *testing.T) {
	for _, kind := range []compute.KeyType{compute.RSA, compute.Ed25519} {
		public, private, err := compute.GenerateKey(kind)
		if err != nil || !strings.HasPrefix(private, "-----BEGIN ") {
			t.Fatalf("%s: %v", kind, err)
		}
		if print, err := compute.Fingerprint(public); err != nil || len(print) != 47 {
			t.Errorf("%s: fingerprint %q, %v", kind, print, err)
		}
	}
	// The fingerprint is what ssh-keygen -E md5 -l prints of this key.
	const key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f test"
	if got, err := compute.Fingerprint(key); err != nil || got != "0f:a2:0a:d7:38:3e:65:45:08:6b:63:84:1c:ff:dc:ba" {
		t.Errorf("got %s, %v", got, err)
	}
	for _, bad := range []string{"", "x", "ssh-rsa AAAA", key + "\n" + key, "ssh-rsa " + strings.Repeat("A", 5000)} {
		if _, err := compute.Fingerprint(bad); !fault.Is(err, fault.Invalid) {
			t.Errorf("%.20q is taken: %v", bad, err)
		}
	}
}

func TestMetricsCountOnce(t *testing.T) {
	w := newWorld(t)
	reg := prometheus.NewRegistry()
	w.c = compute.New(compute.Config{Store: w.s, Ports: w.net, Log: quiet, Metrics: reg})
	w.host("h1", func(s *model.Server) *model.Fault {
		if s.Name == "bad" {
			return &model.Fault{Code: 500, Message: "No."}
		}
		return nil
	})
	w.run("a")
	w.phase(w.create().ID, model.PhaseReady)
	w.phase(w.create(func(n *compute.NewServer) { n.Name = "bad" }).ID, model.PhaseError)
	got := map[string]float64{}
	count := func() {
		families, err := reg.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range families {
			for _, m := range f.Metric {
				name := f.GetName()
				for _, l := range m.Label {
					name += " " + l.GetValue()
				}
				got[name] = m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount())
			}
		}
	}
	// What is counted follows what is written.
	w.within(func() bool {
		count()
		return got["yakumo_placements_total refused"] == 1 && got["yakumo_boot_seconds"] == 1 && got["yakumo_server_retries_total"] == 1
	})
	for name, want := range map[string]float64{"yakumo_boot_seconds": 1, "yakumo_placements_total placed": 2, "yakumo_placements_total refused": 1,
		"yakumo_server_retries_total": 1, "yakumo_server_failures_total": 0} {
		if got[name] != want {
			t.Errorf("%s is %v, want %v", name, got[name], want)
		}
	}
}

func TestQuotaIsExact(t *testing.T) {
	w := newWorld(t)
	c := compute.New(compute.Config{Store: w.s, Ports: w.net, Log: quiet})
	f := &model.Flavor{ID: "1", Name: "f", VCPUs: 3, MemoryMiB: 1000}
	try := func() error {
		sc := compute.Scope{ProjectID: project, RequestID: model.NewID()}
		n := compute.NewServer{ID: model.NewID(), Name: "x", Flavor: f, Image: image, Received: time.Now()}
		_, err := w.s.Update(context.Background(), func(tx *store.Tx) error {
			if err := c.Spend(tx, project, f, 1); err != nil {
				return err
			}
			_, err := c.Create(tx, sc, n)
			return err
		})
		return err
	}
	results := make(chan error, 20)
	for range 20 {
		go func() { results <- try() }()
	}
	made := 0
	for range 20 {
		err := <-results
		if err == nil {
			made++
		} else if text, _ := fault.Text(err); !fault.Is(err, fault.OverQuota) || text != "Quota exceeded for cores: Requested 3, but already used 18 of 20 cores" {
			t.Errorf("refused with %v", err)
		}
	}
	if made != 6 { // 6 × 3 of 20 cores
		t.Errorf("%d servers were made at once, want 6", made)
	}
	if room := c.Room(w.s.Snapshot(), project, &model.Flavor{VCPUs: 1, MemoryMiB: 1}, 100); room != 2 {
		t.Errorf("room for %d, want 2", room)
	}
	w.update(func(tx *store.Tx) error { return c.SetQuota(tx, project, map[string]int{"cores": -1}, false) })
	if err := try(); err != nil {
		t.Errorf("without a limit: %v", err)
	}
	if _, err := w.s.Update(t.Context(), func(tx *store.Tx) error { return c.SetQuota(tx, project, map[string]int{"instances": 1}, false) }); !fault.Is(err, fault.Invalid) {
		t.Errorf("a limit below what is used: %v", err)
	}
}

// TestRebootOfAGuestThatWentOff: the end of the reboot and the news that the guest is off
// come in one report, which is not said twice.
func TestRebootOfAGuestThatWentOff(t *testing.T) {
	w := newWorld(t)
	h := w.row("h1")
	w.run("a")
	id := w.create().ID
	s := w.phaseOnHost(id)
	w.report(h.ID, model.ServerReport{ServerID: id, Generation: s.Generation, Phase: model.PhaseReady, Power: model.PowerRunning})
	if err := w.do(func(tx *store.Tx, sc compute.Scope, id model.ID) (*model.Server, error) {
		return w.c.Reboot(tx, sc, id, false)
	}, id); err != nil {
		t.Fatal(err)
	}
	s = w.get(id)
	w.report(h.ID, model.ServerReport{ServerID: id, Generation: s.Generation, Phase: model.PhaseReady, Power: model.PowerOff, Reboots: s.Reboots})
	got := w.get(id)
	if got.Status.Task != "" || got.Power != model.PowerOff || got.Generation != s.Generation+1 || compute.State(got) != compute.Stopped {
		t.Errorf("got %s, generation %d, %+v", got.Power, got.Generation, got.Status)
	}
}

// TestManyPortsGoAtOnce: what a host reports in one go may be more than one transaction holds.
func TestManyPortsGoAtOnce(t *testing.T) {
	w := newWorld(t)
	w.furnish()
	h := w.row("h1")
	w.run("a")
	var reports []model.ServerReport
	const servers, ports = 24, 16
	for range servers {
		id := model.NewID()
		var list []model.ID
		w.update(func(tx *store.Tx) error {
			list = list[:0]
			for range ports {
				p, err := w.net.CreatePort(tx, network.Scope{ProjectID: project}, network.PortSpec{NetworkID: w.network, DeviceID: &id, Owned: true})
				if err != nil {
					return err
				}
				list = append(list, p.ID)
			}
			return nil
		})
		w.create(func(n *compute.NewServer) { n.ID, n.Ports = id, list })
		w.phaseOnHost(id)
		if err := w.delete(id); err != nil {
			t.Fatal(err)
		}
		reports = append(reports, model.ServerReport{ServerID: id, Generation: w.get(id).Generation, Gone: true})
	}
	if err := w.c.ServerReports(t.Context(), h.ID, reports); err != nil {
		t.Fatal(err)
	}
	snap := w.s.Snapshot()
	for range store.Servers.All(snap) {
		t.Error("a server stays")
	}
	for range store.Ports.All(snap) {
		t.Error("a port stays")
	}
}
