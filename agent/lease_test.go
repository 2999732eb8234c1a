package agent

import (
	"log/slog"
	"os/exec"
	"testing"
	"time"

	"yakumo/hypervisor"
	"yakumo/hypervisor/fake"
	"yakumo/link"
	"yakumo/model"
)

// TestLease: a guest that is leased starts when the host is heard of, is off when that is too long ago, though the agent was
// started anew meanwhile, and runs again when it is heard of anew; its being off is no wish of its own.
func TestLease(t *testing.T) {
	w := newWorld(t.TempDir(), fake.HostConfig{})
	c := newCloud(w.side)
	s, p := c.server()
	s.LeaseSeconds = 1
	hear := func() { w.side.heard.Store(int64(link.SinceBoot())) }
	a := w.start(t, nil)
	w.side.apply(t, full(5, c.network, c.group, s, p))
	waitFor(t, "its lease", func() bool { return a.leases.holds(s.ID) == 1 })
	if w.power(t, s.ID) == hypervisor.Running {
		t.Fatal("it was started before the host was heard of")
	}
	running := func() {
		t.Helper()
		waitFor(t, "the guest to run", func() bool { hear(); return w.power(t, s.ID) == hypervisor.Running })
	}
	off := func() {
		t.Helper()
		waitFor(t, "the guest to be off", func() bool { return w.power(t, s.ID) == hypervisor.Off })
	}
	running()
	off()
	running()
	a.stop(t)
	if l, err := readLeases(w.dir); err != nil || len(l.Ends) != 1 || l.Ends[s.ID] == 0 {
		t.Errorf("the file has %+v, %v", l, err)
	}
	w.side.heard.Store(0) // a new process has heard nothing
	a = w.start(t, nil)
	off()
	waitFor(t, "a report", func() bool { r := w.side.server(s.ID); return r.Power == model.PowerOff })
	if r := w.side.server(s.ID); r.Phase == model.PhaseReady {
		t.Errorf("its being off is reported as its own wish: %+v", r)
	}
	running()
	a.stop(t)
}

// TestKeepLeases: without an agent a guest's process is killed some time after its lease, and no other.
func TestKeepLeases(t *testing.T) {
	late, early := model.NewID(), model.NewID()
	procs := map[string]*exec.Cmd{}
	for _, id := range []string{late, early} {
		cmd := exec.Command("/bin/sh", "-c", "read x", "guest", "-uuid", id)
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		procs[id] = cmd
		t.Cleanup(func() { in.Close(); cmd.Wait() })
	}
	now := link.SinceBoot()
	log := slog.New(slog.DiscardHandler)
	if got := guestProcesses(map[string]bool{late: true, early: true}); len(got) != 2 || got[procs[late].Process.Pid] != late {
		t.Errorf("the guests' processes are %v", got)
	}
	killGuests(overdue(map[model.ID]time.Duration{late: now - leaseGrace, early: now}, now), log)
	if err := procs[late].Wait(); err == nil || err.Error() != "signal: killed" {
		t.Errorf("the guest whose lease has ended: %v", err)
	}
	if got := guestProcesses(map[string]bool{late: true, early: true}); len(got) != 1 || got[procs[early].Process.Pid] != early {
		t.Errorf("the guests' processes are %v", got)
	}
}
