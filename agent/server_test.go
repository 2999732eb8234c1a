package agent

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"yakumo/fault"
	"yakumo/hypervisor"
	"yakumo/hypervisor/fake"
	"yakumo/model"
)

// full makes a batch of everything.
func full(generation int64, rows ...model.HostRow) model.HostBatch {
	return model.HostBatch{Full: true, Generation: generation, Upserts: rows}
}

func change(generation int64, rows ...model.HostRow) model.HostBatch {
	return model.HostBatch{Generation: generation, Upserts: rows}
}

// settled waits for a report that answers the generation with this phase and power.
func (w *world) settled(t worldT, id model.ID, generation int64, phase model.Phase, power model.Power) model.ServerReport {
	t.Helper()
	waitFor(t, "server "+id+" to be "+string(phase)+" and "+string(power), func() bool {
		r := w.side.server(id)
		return r.Generation == generation && r.Phase == phase && r.Power == power
	})
	return w.side.server(id)
}

// faulty waits for a report that the generation cannot be served.
func (w *world) faulty(t worldT, id model.ID, generation int64) model.ServerReport {
	t.Helper()
	waitFor(t, "server "+id+" to be in error", func() bool {
		r := w.side.server(id)
		return r.Generation == generation && r.Phase == model.PhaseError
	})
	return w.side.server(id)
}

// gone waits until nothing of a server is left.
func (w *world) gone(t worldT, id model.ID) {
	t.Helper()
	waitFor(t, "server "+id+" to be gone", func() bool {
		_, err := os.Stat(filepath.Join(w.dir, "servers", id))
		return w.power(t, id) == hypervisor.Absent && errors.Is(err, os.ErrNotExist)
	})
}

func TestLife(t *testing.T) {
	w := newWorld(t.TempDir(), fake.HostConfig{Guests: fake.Behaviour{Greeting: "hello\n"}})
	c := newCloud(w.side)
	s, p := c.server()
	a := w.startFor(t)
	w.side.apply(t, full(5, c.network, c.group, s, p))
	r := w.settled(t, s.ID, 1, model.PhaseReady, model.PowerRunning)
	if r.Fault != nil || len(r.Steps) != 2 || r.Steps[0].Step != model.StepFetch || r.Steps[1].Step != model.StepStart {
		t.Errorf("report of a started server: %+v", r)
	}
	for _, st := range r.Steps {
		if st.StartedAt.IsZero() || st.FinishedAt.Before(st.StartedAt) || st.Error != "" {
			t.Errorf("times of step: %+v", st)
		}
	}
	if want := []model.Phase{model.PhaseFetching, model.PhaseStarting, model.PhaseReady}; !slices.Equal(w.side.phases[s.ID], want) {
		t.Errorf("phases %v, want %v", w.side.phases[s.ID], want)
	}
	if got := w.side.port(p.ID); !reflect.DeepEqual(got, model.PortReport{PortID: p.ID, Generation: 1, State: "ACTIVE"}) {
		t.Errorf("report of the port: %+v", got)
	}
	if got := w.taps.mtu(tapName(p.ID)); got != 1450 {
		t.Errorf("the tap's MTU is %d", got)
	}
	g, _ := w.host.Guest(s.ID)
	if g.Name != "yk-"+s.ID || len(g.Disks) != 1 || g.NICs[0].Tap != tapName(p.ID) || g.NICs[0].MTU != 1450 {
		t.Errorf("guest %+v", g)
	}
	disk, err := os.ReadFile(g.Disks[0].Path)
	if err != nil || !strings.HasPrefix(string(disk), "raw 18000 over bytes of an image") {
		t.Errorf("disk: %.40q, %v", disk, err)
	}
	q, err := json.Marshal(model.ConsoleQuery{ServerID: s.ID, MaxBytes: 3})
	if err != nil {
		t.Fatal(err)
	}
	if b, err := a.Answer(context.Background(), "console", q); err != nil || string(b) != "lo\n" {
		t.Errorf("console: %q, %v", b, err)
	}

	s = with(s, func(s *model.HostServer) { s.Power = model.PowerOff })
	w.side.apply(t, change(6, s))
	w.settled(t, s.ID, 2, model.PhaseReady, model.PowerOff)
	if w.power(t, s.ID) != hypervisor.Off {
		t.Error("a stopped guest runs")
	}
	if got := w.side.port(p.ID).State; got != "ACTIVE" {
		t.Errorf("the port of a stopped guest is %s", got)
	}
	s = with(s, func(s *model.HostServer) { s.Power = model.PowerRunning })
	w.side.apply(t, change(7, s))
	w.settled(t, s.ID, 3, model.PhaseReady, model.PowerRunning)

	s = with(s, func(s *model.HostServer) { s.Reboots = 1 })
	w.side.apply(t, change(8, s))
	if r := w.settled(t, s.ID, 4, model.PhaseReady, model.PowerRunning); r.Reboots != 1 || r.Hard != 0 {
		t.Errorf("after a reboot: %+v", r)
	}
	s = with(s, func(s *model.HostServer) { s.HardReboots = 1 })
	w.side.apply(t, change(9, s))
	if r := w.settled(t, s.ID, 5, model.PhaseReady, model.PowerRunning); r.Reboots != 1 || r.Hard != 1 {
		t.Errorf("after a hard reboot: %+v", r)
	}
	b, err := a.Answer(context.Background(), "console", q)
	if err != nil {
		t.Fatal(err)
	}
	all, err := fake.New(fake.Config{Host: w.host}).ConsoleLog(context.Background(), s.ID, 0)
	if err != nil || strings.Count(string(all), "hello") != 4 {
		t.Errorf("starts on the console: %q (%q), %v", all, b, err)
	}

	s = with(s, func(s *model.HostServer) { s.Deleted = true })
	w.side.apply(t, change(10, s))
	waitFor(t, "the report that it is gone", func() bool { return w.side.server(s.ID).Gone })
	w.gone(t, s.ID)
	if n := w.sw.Entries(); n == 0 {
		t.Error("the switch has no entry at all")
	}
	if names, err := w.taps.List(context.Background(), "yk"); err != nil || len(names) > 0 {
		t.Errorf("taps left: %v, %v", names, err)
	}
	if a.dp.Installed(p.ID) {
		t.Error("a deleted server's port is installed")
	}
	w.side.apply(t, model.HostBatch{Generation: 11, Removes: []model.RowID{s.RowID(), p.RowID()}})
	waitFor(t, "the ledger to forget it", func() bool { _, ok := a.ledger.progressOf(s.ID); return !ok })
	if _, err := a.Answer(context.Background(), "console", q); !fault.Is(err, fault.NotFound) {
		t.Errorf("console of a server that is gone: %v", err)
	}
	if _, err := a.Answer(context.Background(), "weather", nil); !fault.Is(err, fault.NotImplemented) {
		t.Errorf("an unknown question: %v", err)
	}
}

// A guest that goes off by itself is left so, whatever happens beside, until it is asked for.
func TestGuestGoesOff(t *testing.T) {
	w := newWorld(t.TempDir(), fake.HostConfig{Guests: fake.Behaviour{}})
	c := newCloud(w.side)
	s, p := c.server()
	a := w.start(t, nil)
	w.side.apply(t, full(5, c.network, c.group, s, p))
	w.settled(t, s.ID, 1, model.PhaseReady, model.PowerRunning)
	if err := fake.New(fake.Config{Host: w.host}).Stop(context.Background(), s.ID, time.Second); err != nil {
		t.Fatal(err)
	}
	w.settled(t, s.ID, 1, model.PhaseReady, model.PowerOff)

	s = with(s, func(s *model.HostServer) { s.Name = "renamed" })
	w.side.apply(t, change(6, s))
	w.settled(t, s.ID, 2, model.PhaseReady, model.PowerOff)
	a.stop(t)
	a = w.start(t, nil)
	s = with(s, func(s *model.HostServer) { s.Metadata = map[string]string{"a": "b"} })
	w.side.apply(t, change(7, s))
	w.settled(t, s.ID, 3, model.PhaseReady, model.PowerOff)
	if w.power(t, s.ID) != hypervisor.Off {
		t.Fatal("a guest that went off by itself was started")
	}

	s = with(s, func(*model.HostServer) {}) // a start: it was wanted running all the time
	w.side.apply(t, change(8, s))
	w.settled(t, s.ID, 4, model.PhaseReady, model.PowerRunning)

	if !w.host.Crash(s.ID) {
		t.Fatal("it did not run")
	}
	w.settled(t, s.ID, 4, model.PhaseReady, model.PowerCrashed)
	s = with(s, func(s *model.HostServer) { s.HardReboots++ })
	w.side.apply(t, change(9, s))
	w.settled(t, s.ID, 5, model.PhaseReady, model.PowerRunning)

	// The host itself goes down and comes back: what ran runs again, once a server has said that it is still to.
	a.stop(t)
	w.boot = "boot-2"
	if err := fake.New(fake.Config{Host: w.host}).Stop(context.Background(), s.ID, 0); err != nil {
		t.Fatal(err)
	}
	a = w.start(t, nil)
	waitFor(t, "the hypervisor's list", func() bool { _, known := a.guests.state(s.ID); return known })
	if a.reconcile(context.Background(), s.ID); w.power(t, s.ID) != hypervisor.Off {
		t.Fatal("a host that was started anew started a guest that may run elsewhere by now")
	}
	w.side.apply(t, full(11, c.network, c.group, s, p))
	waitFor(t, "the guest to run after the host's start", func() bool { return w.power(t, s.ID) == hypervisor.Running })
	w.settled(t, s.ID, 5, model.PhaseReady, model.PowerRunning)
	a.stop(t)
	if w.power(t, s.ID) != hypervisor.Running {
		t.Error("the agent's end ended a guest")
	}
}

// An agent that finds no server goes on with what it knows.
func TestOffline(t *testing.T) {
	w := newWorld(t.TempDir(), fake.HostConfig{})
	c := newCloud(w.side)
	s, p := c.server()
	a := w.start(t, nil)
	w.side.apply(t, full(5, c.network, c.group, s, p))
	w.settled(t, s.ID, 1, model.PhaseReady, model.PowerRunning)
	a.stop(t)

	// Everything but the disks is lost: switch, taps, guests' processes.
	w.side.down = true
	w.sw.Clear()
	if err := w.taps.Remove(context.Background(), tapName(p.ID)); err != nil {
		t.Fatal(err)
	}
	if err := w.taps.Ensure(context.Background(), "yk0123456789abc", 1500); err != nil { // of a port that is no more
		t.Fatal(err)
	}
	if err := fake.New(fake.Config{Host: w.host}).Remove(context.Background(), s.ID); err != nil {
		t.Fatal(err)
	}
	made := w.made.Load()
	a = w.startFor(t)
	waitFor(t, "the guest to run again", func() bool { return w.power(t, s.ID) == hypervisor.Running })
	waitFor(t, "its port to be wired", func() bool { return a.dp.Installed(p.ID) })
	waitFor(t, "the taps to be right", func() bool {
		names, err := w.taps.List(context.Background(), "yk")
		return err == nil && slices.Equal(names, []string{tapName(p.ID)})
	})
	if w.made.Load() != made {
		t.Error("a new disk was made for a guest that had one")
	}
	servers, ports := a.Reports()
	if len(servers) != 1 || servers[0].Phase != model.PhaseReady || len(ports) != 1 || ports[0].State != "ACTIVE" {
		t.Errorf("reports: %+v %+v", servers, ports)
	}
}

// A guest that somebody removes from the hypervisor comes back, with its disk.
func TestGuestHeals(t *testing.T) {
	w := newWorld(t.TempDir(), fake.HostConfig{})
	c := newCloud(w.side)
	s, p := c.server()
	w.startFor(t)
	w.side.apply(t, full(5, c.network, c.group, s, p))
	w.settled(t, s.ID, 1, model.PhaseReady, model.PowerRunning)
	if err := fake.New(fake.Config{Host: w.host}).Remove(context.Background(), s.ID); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the guest to be back", func() bool { return w.power(t, s.ID) == hypervisor.Running })
	if w.made.Load() != 1 {
		t.Errorf("%d disks were made", w.made.Load())
	}
}

// What waits for the hypervisor does not wait out its pause once that is back.
func TestRetriesAtOnce(t *testing.T) {
	w := newWorld(t.TempDir(), fake.HostConfig{})
	c := newCloud(w.side)
	s, p := c.server()
	a := w.start(t, func(c *Config) { c.Repeat = Repeat{Min: time.Hour, Max: time.Hour, Limit: 3} })
	t.Cleanup(func() { a.stop(t) })
	w.side.apply(t, full(5, c.network, c.group, s, p))
	w.settled(t, s.ID, 1, model.PhaseReady, model.PowerRunning)
	w.host.Disconnect()
	waitFor(t, "the agent to notice", func() bool { return !a.Health().Hypervisor })
	s = with(s, func(s *model.HostServer) { s.Power = model.PowerOff })
	w.side.apply(t, change(6, s))
	waitFor(t, "a failure", func() bool { a.mu.Lock(); defer a.mu.Unlock(); return a.tries[s.ID] != nil })
	w.host.Connect()
	w.settled(t, s.ID, 2, model.PhaseReady, model.PowerOff)
}

// A tap that somebody removes comes back.
func TestTapHeals(t *testing.T) {
	w := newWorld(t.TempDir(), fake.HostConfig{})
	c := newCloud(w.side)
	s, p := c.server()
	w.startFor(t)
	w.side.apply(t, full(5, c.network, c.group, s, p))
	w.settled(t, s.ID, 1, model.PhaseReady, model.PowerRunning)
	if err := w.taps.Remove(context.Background(), tapName(p.ID)); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the tap to be back", func() bool { return w.taps.mtu(tapName(p.ID)) == 1450 })
	n := *c.network
	n.MTU = 1400
	w.side.apply(t, change(6, &n))
	waitFor(t, "the tap's MTU to follow its network's", func() bool { return w.taps.mtu(tapName(p.ID)) == 1400 })
	down := *p
	down.AdminStateUp, down.Generation = false, 2
	w.side.apply(t, change(7, &down))
	waitFor(t, "the port to be down", func() bool {
		return reflect.DeepEqual(w.side.port(p.ID), model.PortReport{PortID: p.ID, Generation: 2, State: "DOWN"})
	})
}

func TestFaults(t *testing.T) {
	refused := errors.New("unsupported configuration")
	for _, tc := range []struct {
		name   string
		cfg    fake.HostConfig
		change func(*serverSide, *model.HostServer)
		text   string // of the fault
		step   model.Step
	}{
		{name: "hypervisor refuses", cfg: fake.HostConfig{Faults: []fake.Fault{{Op: fake.Start, Err: refused}}},
			text: "The server could not be brought into the wanted state on its host.", step: model.StepStart},
		{name: "image corrupt", change: func(side *serverSide, s *model.HostServer) { side.blobs[s.Image.BlobID][77]++ },
			text: "The image's data is corrupt.", step: model.StepFetch},
		{name: "image longer", change: func(side *serverSide, s *model.HostServer) {
			side.blobs[s.Image.BlobID] = append(side.blobs[s.Image.BlobID], 1)
		}, text: "The image's data is corrupt.", step: model.StepFetch},
		{name: "image gone", change: func(side *serverSide, s *model.HostServer) { delete(side.blobs, s.Image.BlobID) },
			text: "The image's data is gone.", step: model.StepFetch},
		{name: "disk too small", change: func(_ *serverSide, s *model.HostServer) { s.DiskGiB, s.Image.VirtualSize = 1, 2<<30 },
			text: "The flavor's disk of 1 GiB is too small for the image.", step: model.StepFetch},
		{name: "format", change: func(_ *serverSide, s *model.HostServer) { s.Image.Format = "vmdk" },
			text: `An image of the format "vmdk" cannot be booted.`, step: model.StepFetch},
		{name: "hash", change: func(_ *serverSide, s *model.HostServer) { s.Image.HashAlgo = "md5" },
			text: "The image's description is not usable", step: model.StepFetch},
		{name: "path", change: func(_ *serverSide, s *model.HostServer) { s.Image.BlobID = "../ledger.db" },
			text: "The image's description is not usable", step: model.StepFetch},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t.TempDir(), tc.cfg)
			c := newCloud(w.side)
			s, p := c.server()
			if tc.change != nil {
				tc.change(w.side, s)
			}
			w.startFor(t)
			w.side.apply(t, full(5, c.network, c.group, s, p))
			r := w.faulty(t, s.ID, 1)
			if r.Fault == nil || !strings.HasPrefix(r.Fault.Message, tc.text) || r.Fault.Code != 500 || r.Fault.Details == "" {
				t.Errorf("fault %+v", r.Fault)
			}
			if n := len(r.Steps); n == 0 || r.Steps[n-1].Step != tc.step || r.Steps[n-1].Error == "" {
				t.Errorf("steps %+v", r.Steps)
			}
			if files, err := filepath.Glob(filepath.Join(w.dir, "images", "*")); err != nil || tc.step == model.StepFetch && tc.name != "disk too small" && tc.name != "format" && len(files) > 0 {
				t.Errorf("files of a bad image: %v, %v", files, err)
			}
			s = with(s, func(s *model.HostServer) { s.Deleted = true })
			w.side.apply(t, change(6, s))
			waitFor(t, "it to be gone", func() bool { return w.side.server(s.ID).Gone })
			w.gone(t, s.ID)
		})
	}
}

// What fails for a while is tried until it works, and is no fault.
func TestTransient(t *testing.T) {
	w := newWorld(t.TempDir(), fake.HostConfig{Faults: []fake.Fault{
		{Op: fake.Start, Times: 2, Err: errors.New("it just did not work")},
		{Op: fake.Watch, Times: 2, Err: errors.New("no watch")},
	}})
	c := newCloud(w.side)
	s, p := c.server()
	w.side.cut[c.image.BlobID] = 100
	w.side.down = true
	w.host.Disconnect()
	a := w.startFor(t)
	w.side.apply(t, full(5, c.network, c.group, s, p))
	waitFor(t, "the port to be wired", func() bool { return a.dp.Installed(p.ID) })
	if h := a.Health(); h.OK || h.Hypervisor {
		t.Errorf("health without a hypervisor: %+v", h)
	}
	w.host.Connect()
	waitFor(t, "the server to be tried", func() bool { return w.side.server(s.ID).Phase == model.PhaseFetching })
	w.side.mu.Lock()
	w.side.down = false
	w.side.mu.Unlock()
	if r := w.settled(t, s.ID, 1, model.PhaseReady, model.PowerRunning); r.Fault != nil {
		t.Errorf("fault %+v", r.Fault)
	}
	if !slices.Equal(w.side.reads, []int64{0, 100}) {
		t.Errorf("offsets asked for: %v; what was fetched is to be gone on with", w.side.reads)
	}
	w.host.Disconnect()
	waitFor(t, "health to tell", func() bool { return !a.Health().Hypervisor })
	if got := w.side.server(s.ID); got.Phase != model.PhaseReady || got.Power != model.PowerRunning {
		t.Errorf("without the hypervisor's daemon the server is %+v", got)
	}
	w.host.Connect()
	s = with(s, func(s *model.HostServer) { s.Power = model.PowerOff })
	w.side.apply(t, change(6, s))
	w.settled(t, s.ID, 2, model.PhaseReady, model.PowerOff)
}

// A fault ends with the next wish.
func TestFaultEnds(t *testing.T) {
	w := newWorld(t.TempDir(), fake.HostConfig{Faults: []fake.Fault{{Op: fake.Start, Times: 3, Err: errors.New("refused")}}})
	c := newCloud(w.side)
	s, p := c.server()
	a := w.start(t, nil)
	w.side.apply(t, full(5, c.network, c.group, s, p))
	w.faulty(t, s.ID, 1)
	a.stop(t) // and is not forgotten
	w.startFor(t)
	w.side.apply(t, full(6, c.network, c.group, s, p))
	s = with(s, func(s *model.HostServer) { s.HardReboots++ })
	w.side.apply(t, change(7, s))
	if r := w.settled(t, s.ID, 2, model.PhaseReady, model.PowerRunning); r.Fault != nil || r.Hard != 1 {
		t.Errorf("after a hard reboot: %+v", r)
	}
}

// A deletion does not wait for a guest that ignores its power button.
func TestDeleteInterrupts(t *testing.T) {
	w := newWorld(t.TempDir(), fake.HostConfig{Guests: fake.Behaviour{ShutdownFor: -1}})
	c := newCloud(w.side)
	s, p := c.server()
	a := w.start(t, func(c *Config) { c.Grace = time.Hour })
	t.Cleanup(func() { a.stop(t) })
	w.side.apply(t, full(5, c.network, c.group, s, p))
	w.settled(t, s.ID, 1, model.PhaseReady, model.PowerRunning)
	s = with(s, func(s *model.HostServer) { s.Power = model.PowerOff })
	w.side.apply(t, change(6, s))
	s = with(s, func(s *model.HostServer) { s.Deleted = true })
	w.side.apply(t, change(7, s))
	waitFor(t, "it to be gone", func() bool { return w.side.server(s.ID).Gone })
}

// A guest that ignores its power button is cut off after the grace.
func TestGrace(t *testing.T) {
	w := newWorld(t.TempDir(), fake.HostConfig{Guests: fake.Behaviour{ShutdownFor: -1}})
	c := newCloud(w.side)
	s, p := c.server()
	w.startFor(t)
	w.side.apply(t, full(5, c.network, c.group, s, p))
	w.settled(t, s.ID, 1, model.PhaseReady, model.PowerRunning)
	s = with(s, func(s *model.HostServer) { s.Power = model.PowerOff })
	w.side.apply(t, change(6, s))
	w.settled(t, s.ID, 2, model.PhaseReady, model.PowerOff)
}

// A host whose state directory was lost keeps its guests, and serves no old reboot again.
func TestLostLedger(t *testing.T) {
	w := newWorld(t.TempDir(), fake.HostConfig{Guests: fake.Behaviour{Greeting: "start\n"}})
	c := newCloud(w.side)
	s, p := c.server()
	s.Reboots, s.ObservedReboots = 3, 3
	a := w.start(t, nil)
	w.side.apply(t, full(5, c.network, c.group, s, p))
	w.settled(t, s.ID, 1, model.PhaseReady, model.PowerRunning)
	a.stop(t)
	if err := os.Remove(filepath.Join(w.dir, "ledger.db")); err != nil {
		t.Fatal(err)
	}
	a = w.startFor(t)
	waitFor(t, "the hypervisor to be asked", func() bool { return a.Health().Hypervisor })
	if a.Generation() != 0 || w.power(t, s.ID) != hypervisor.Running || w.taps.mtu(tapName(p.ID)) == 0 {
		t.Fatal("an agent that knows nothing has taken something away")
	}
	w.side.apply(t, full(6, c.network, c.group, s, p))
	waitFor(t, "it to be known", func() bool { _, ok := a.ledger.progressOf(s.ID); return ok })
	w.settled(t, s.ID, 1, model.PhaseReady, model.PowerRunning)
	log, err := fake.New(fake.Config{Host: w.host}).ConsoleLog(context.Background(), s.ID, 0)
	if err != nil || string(log) != "start\n" {
		t.Errorf("console %q, %v: the guest should have gone on", log, err)
	}
}

// What a full batch does not name goes, without a report that it is gone.
func TestOrphans(t *testing.T) {
	w := newWorld(t.TempDir(), fake.HostConfig{})
	c := newCloud(w.side)
	s, p := c.server()
	keep, kp := c.server()
	a := w.startFor(t)
	w.side.apply(t, full(5, c.network, c.group, s, p, keep, kp))
	w.settled(t, s.ID, 1, model.PhaseReady, model.PowerRunning)
	w.settled(t, keep.ID, 1, model.PhaseReady, model.PowerRunning)
	stray := model.NewID()
	if err := fake.New(fake.Config{Host: w.host}).Ensure(context.Background(), hypervisor.Guest{ID: stray, Name: "yk-" + stray, VCPUs: 1, MemoryMiB: 1}); err != nil {
		t.Fatal(err)
	}
	w.side.apply(t, full(6, c.network, c.group, keep, kp))
	w.gone(t, s.ID)
	w.gone(t, stray)
	waitFor(t, "its port to be gone", func() bool { return w.taps.mtu(tapName(p.ID)) == 0 && !a.dp.Installed(p.ID) })
	waitFor(t, "the ledger to forget it", func() bool { _, ok := a.ledger.progressOf(s.ID); return !ok })
	if w.side.server(s.ID).Gone {
		t.Error("a server that is not this host's any more was reported gone")
	}
	if w.power(t, keep.ID) != hypervisor.Running {
		t.Error("the other guest does not run")
	}
	// It comes back: as a new server.
	s = with(s, func(*model.HostServer) {})
	w.side.apply(t, change(7, s, p))
	w.settled(t, s.ID, 2, model.PhaseReady, model.PowerRunning)
}

func TestFence(t *testing.T) {
	w := newWorld(t.TempDir(), fake.HostConfig{})
	c := newCloud(w.side)
	s, p := c.server()
	a := w.start(t, nil)
	w.side.apply(t, full(5, c.network, c.group, s, p))
	w.settled(t, s.ID, 1, model.PhaseReady, model.PowerRunning)
	for range 2 {
		if err := a.Apply(context.Background(), full(4)); !fault.Is(err, fault.Conflict) {
			t.Errorf("an older batch: %v", err)
		}
		if a.Generation() != 5 || a.ledger.server(s.ID) == nil {
			t.Fatal("an older batch was taken")
		}
		if err := a.Apply(context.Background(), full(5, c.network, c.group, s, p)); err != nil {
			t.Errorf("the same batch again: %v", err)
		}
		a.stop(t)
		a = w.start(t, nil)
	}
	a.stop(t)
}

func TestTwoAgents(t *testing.T) {
	w := newWorld(t.TempDir(), fake.HostConfig{})
	w.startFor(t)
	if _, err := openLedger(filepath.Join(w.dir, "ledger.db")); err == nil {
		t.Error("a second agent may use the same directory")
	}
}
