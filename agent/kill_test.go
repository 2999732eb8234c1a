package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"yakumo/datapath"
	"yakumo/fault"
	"yakumo/hypervisor"
	"yakumo/hypervisor/fake"
	"yakumo/link"
	"yakumo/model"
)

var errKilled = errors.New("the agent is dead")

// fuse kills an agent at one of its calls to the world, before or after the call's effect:
// from then on no call of it has an effect, and nothing gets into its ledger.
type fuse struct {
	left  atomic.Int64
	blow  func()           // closes the ledger
	aside func(call int64) // what others write into the ledger at the time of a call; nil: nothing
	once  sync.Once
}

func newFuse(calls int64) *fuse {
	f := &fuse{}
	f.left.Store(calls)
	return f
}

// call does an effect unless the agent is dead.
func (f *fuse) call(effect func() error) error {
	if f.step() {
		return errKilled
	}
	err := effect()
	if f.step() {
		return errKilled
	}
	return err
}

func (f *fuse) step() (dead bool) {
	left := f.left.Add(-1)
	if f.aside != nil {
		f.aside(left)
	}
	if left > 0 {
		return false
	}
	f.once.Do(f.blow)
	return true
}

type mortalHypervisor struct {
	hypervisor.Driver
	f *fuse
}

func (m mortalHypervisor) Ensure(ctx context.Context, g hypervisor.Guest) error {
	return m.f.call(func() error { return m.Driver.Ensure(ctx, g) })
}
func (m mortalHypervisor) Remove(ctx context.Context, id string) error {
	return m.f.call(func() error { return m.Driver.Remove(ctx, id) })
}
func (m mortalHypervisor) Start(ctx context.Context, id string) error {
	return m.f.call(func() error { return m.Driver.Start(ctx, id) })
}
func (m mortalHypervisor) Stop(ctx context.Context, id string, grace time.Duration) error {
	return m.f.call(func() error { return m.Driver.Stop(ctx, id, grace) })
}

func (m mortalHypervisor) Pause(ctx context.Context, id string) error {
	return m.f.call(func() error { return m.Driver.(hypervisor.Pauser).Pause(ctx, id) })
}
func (m mortalHypervisor) Suspend(ctx context.Context, id string) error {
	return m.f.call(func() error { return m.Driver.(hypervisor.Suspender).Suspend(ctx, id) })
}
func (m mortalHypervisor) Plug(ctx context.Context, g hypervisor.Guest) error {
	return m.f.call(func() error { return m.Driver.(hypervisor.Plugger).Plug(ctx, g) })
}
func (m mortalHypervisor) Grow(ctx context.Context, id, serial string, size int64) error {
	return m.f.call(func() error { return m.Driver.(hypervisor.Grower).Grow(ctx, id, serial, size) })
}
func (m mortalHypervisor) Reopen(ctx context.Context, id, serial string, size int64, change func(context.Context) error) error {
	return m.f.call(func() error { return m.Driver.(hypervisor.Reopener).Reopen(ctx, id, serial, size, change) })
}
func (m mortalHypervisor) CopyDisk(ctx context.Context, id, serial, path string, q hypervisor.Quiesce) error {
	return m.f.call(func() error { return m.Driver.(hypervisor.Copier).CopyDisk(ctx, id, serial, path, q) })
}

func (m mortalHypervisor) Mirror(ctx context.Context, id, serial string, to hypervisor.Disk) error {
	return m.f.call(func() error { return m.Driver.(hypervisor.Mirrorer).Mirror(ctx, id, serial, to) })
}
func (m mortalHypervisor) Mirrored(ctx context.Context, id, serial string, to hypervisor.Disk) (p hypervisor.MirrorProgress, err error) {
	err = m.f.call(func() error { p, err = m.Driver.(hypervisor.Mirrorer).Mirrored(ctx, id, serial, to); return err })
	return p, err
}
func (m mortalHypervisor) Turn(ctx context.Context, id, serial string, to hypervisor.Disk) error {
	return m.f.call(func() error { return m.Driver.(hypervisor.Mirrorer).Turn(ctx, id, serial, to) })
}
func (m mortalHypervisor) EndMirror(ctx context.Context, id, serial string) error {
	return m.f.call(func() error { return m.Driver.(hypervisor.Mirrorer).EndMirror(ctx, id, serial) })
}

func (m mortalHypervisor) CPUs(ctx context.Context, id string) (hypervisor.HostCPUs, error) {
	return m.Driver.(hypervisor.Pinner).CPUs(ctx, id)
}

type mortalDatapath struct {
	datapath.Driver
	f *fuse
}

func (m mortalDatapath) Apply(ctx context.Context, up []model.HostRow, rm []model.RowID) error {
	return m.f.call(func() error { return m.Driver.Apply(ctx, up, rm) })
}
func (m mortalDatapath) Prune(ctx context.Context, all iter.Seq[model.HostRow]) error {
	return m.f.call(func() error { return m.Driver.Prune(ctx, all) })
}
func (m mortalDatapath) Attach(ctx context.Context, port model.ID, dev string) error {
	return m.f.call(func() error { return m.Driver.Attach(ctx, port, dev) })
}
func (m mortalDatapath) Detach(ctx context.Context, port model.ID) error {
	return m.f.call(func() error { return m.Driver.Detach(ctx, port) })
}

type mortalTaps struct {
	Taps
	f *fuse
}

func (m mortalTaps) Ensure(ctx context.Context, name string, mtu int) error {
	return m.f.call(func() error { return m.Taps.Ensure(ctx, name, mtu) })
}
func (m mortalTaps) Remove(ctx context.Context, name string) error {
	return m.f.call(func() error { return m.Taps.Remove(ctx, name) })
}

type mortalDisks struct {
	DiskMaker
	f *fuse
}

func (m mortalDisks) Overlay(ctx context.Context, path, base, format string, size int64) error {
	return m.f.call(func() error { return m.DiskMaker.Overlay(ctx, path, base, format, size) })
}

func (m mortalDisks) Flatten(ctx context.Context, path, from string) error {
	return m.f.call(func() error { return m.DiskMaker.Flatten(ctx, path, from) })
}
func (m mortalDisks) Blank(ctx context.Context, path string, size int64) error {
	return m.f.call(func() error { return m.DiskMaker.Blank(ctx, path, size) })
}

type mortalLink struct {
	Link
	f *fuse
}

func (m mortalLink) Upload(ctx context.Context, kind string, id model.ID, size int64, r io.Reader) error {
	return m.f.call(func() error { return m.Link.Upload(ctx, kind, id, size, r) })
}

// TestKilled kills agents at random points of random lives of servers, starts new ones, and
// in the end finds the world as the rows want it.
func TestKilled(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		dir, err := os.MkdirTemp("", "agent")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(dir)
		w := newWorld(dir, fake.HostConfig{Guests: fake.Behaviour{Greeting: "start\n"}})
		c := newCloud(w.side)
		servers := map[model.ID]*model.HostServer{}
		ports, spare := map[model.ID]*model.HostPort{}, map[model.ID]*model.HostPort{}
		images := []model.ImageCopy{c.image, w.addImage("a second image"), w.addImage("a third image")}
		var order, deleted []model.ID
		generation := int64(1)
		rows := func() []model.HostRow {
			all := c.base()
			for _, id := range order {
				all = append(all, servers[id], ports[id])
				if len(servers[id].NICs) > 1 {
					all = append(all, spare[id])
				}
			}
			return all
		}
		next := func(s *model.HostServer) { servers[s.ID] = s }
		act := func() {
			generation++
			kind := rapid.IntRange(0, 10).Draw(t, "act")
			if len(order) == 0 {
				kind = 0
			}
			if kind == 0 {
				s, p := c.server()
				s.ConfigDrive = rapid.Bool().Draw(t, "drive")
				order = append(order, s.ID)
				servers[s.ID], ports[s.ID] = s, p
				_, spare[s.ID] = c.server()
				spare[s.ID].DeviceID = s.ID
				return
			}
			id := rapid.SampledFrom(order).Draw(t, "server")
			s := servers[id]
			if s.Deleted {
				return
			}
			r := w.side.server(id)
			runs := r.Generation == s.Generation && r.Phase == model.PhaseReady && r.Power == model.PowerRunning
			switch kind {
			case 1:
				next(with(s, func(s *model.HostServer) { s.Power = model.PowerOff }))
			case 2:
				next(with(s, func(s *model.HostServer) { s.Power = model.PowerRunning }))
			case 3:
				next(with(s, func(s *model.HostServer) { s.Reboots++ }))
			case 4:
				next(with(s, func(s *model.HostServer) { s.HardReboots++; s.Power = model.PowerRunning }))
			case 5:
				next(with(s, func(s *model.HostServer) { s.Deleted = true }))
				deleted = append(deleted, id)
			case 6: // as the API allows
				if held := rapid.SampledFrom([]model.Power{model.PowerPaused, model.PowerSuspended}).Draw(t, "held"); runs {
					next(with(s, func(s *model.HostServer) { s.Power = held }))
				}
			case 7:
				next(with(s, func(s *model.HostServer) {
					s.Rebuilds++
					s.Image, s.Power = images[int(s.Rebuilds)%len(images)], model.PowerRunning
				}))
			case 8:
				next(with(s, func(s *model.HostServer) {
					if s.Power = model.PowerRunning; s.Rescue == nil {
						s.Rescue = &model.Rescue{Image: images[1], Revision: s.Generation}
					} else {
						s.Rescue = nil
					}
				}))
			case 9:
				next(with(s, func(s *model.HostServer) {
					n := spare[id]
					if s.NICs = s.NICs[:1:1]; len(servers[id].NICs) == 1 {
						s.NICs = append(s.NICs, model.HostNIC{PortID: n.ID, MAC: n.MAC, MTU: 1450})
					}
				}))
			case 10:
				next(with(s, func(s *model.HostServer) { s.Saving = append(slices.Clone(s.Saving), model.NewID()) }))
			}
		}
		// What guests hand in meanwhile, at any call of whoever reconciles them.
		var handed sync.Map
		every := rapid.Int64Range(1, 6).Draw(t, "every")
		lives := rapid.IntRange(1, 4).Draw(t, "lives")
		for range lives {
			f := newFuse(int64(rapid.IntRange(1, 60).Draw(t, "calls")))
			w.prepare = func(a *Agent) {
				f.aside = func(call int64) {
					if call%every != 0 {
						return
					}
					for id := range a.ledger.servers() {
						there := false
						if err := a.ledger.note(id, func(p *progress) { p.Sealed, there = fmt.Sprint("secret ", call), true }); err == nil && there {
							handed.Store(id, true)
						}
						a.alive(id)
					}
				}
			}
			dead := make(chan struct{})
			var a *running
			f.blow = func() { close(dead) }
			a = w.start(t, func(c *Config) {
				c.Hypervisor = mortalHypervisor{c.Hypervisor, f}
				c.Datapath = mortalDatapath{c.Datapath, f}
				c.Taps = mortalTaps{c.Taps, f}
				c.Disks = mortalDisks{c.Disks, f}
				attach := c.Link
				c.Link = func(h link.Handler) Link { return mortalLink{attach(h), f} }
			})
			closed := make(chan error, 1)
			go func() { <-dead; closed <- a.ledger.close() }()
			for range rapid.IntRange(1, 4).Draw(t, "acts") {
				act()
				err := a.Apply(context.Background(), full(generation, rows()...))
				select {
				case <-dead: // it may have failed
				default:
					if err != nil && f.left.Load() > 0 {
						t.Fatalf("batch: %v", err)
					}
				}
			}
			if rapid.Bool().Draw(t, "wait") {
				waitFor(t, "its death or the end of its work", func() bool {
					select {
					case <-dead:
						return true
					default:
					}
					for _, id := range order {
						s, r := servers[id], w.side.server(id)
						if s.Deleted && !r.Gone || !s.Deleted && (r.Generation != s.Generation || r.Phase != model.PhaseReady) {
							return false
						}
					}
					return true
				})
			}
			f.left.Store(0)
			f.once.Do(f.blow)
			<-closed
			a.cancel()
			<-a.ended
			if err := a.dp.Close(); err != nil {
				t.Fatal(err)
			}
		}
		w.prepare = nil
		a := w.start(t, nil)
		defer a.stop(t)
		generation++
		for _, id := range order {
			if servers[id].Power == model.PowerSuspended { // it keeps the devices that it has
				next(with(servers[id], func(s *model.HostServer) { s.Power = model.PowerRunning }))
			}
		}
		w.side.apply(t, full(generation, rows()...))
		for _, id := range order {
			s := servers[id]
			if s.Deleted {
				waitFor(t, "a deleted server to be reported gone", func() bool { return w.side.server(id).Gone })
				w.gone(t, id)
				continue
			}
			r := w.settled(t, id, s.Generation, model.PhaseReady, s.Power)
			if r.Reboots != s.Reboots || r.Hard != s.HardReboots || r.Rebuilds != s.Rebuilds || (r.Rescue != 0) != (s.Rescue != nil) {
				t.Fatalf("server %s: report %+v", id, r)
			}
			if _, ok := handed.Load(id); ok && r.Sealed == "" {
				t.Fatalf("server %s: what its guest handed in is lost: %+v", id, r)
			}
			if got := powerOf(w.power(t, id)); got != s.Power {
				t.Fatalf("server %s is %s, want %s", id, got, s.Power)
			}
			w.whole(t, s)
			waitFor(t, "its port to be wired", func() bool { return a.dp.Installed(ports[id].ID) })
		}
		var want []string
		for _, id := range order {
			if s := servers[id]; !s.Deleted {
				for _, n := range s.NICs {
					want = append(want, tapName(n.PortID))
				}
			} else if a.dp.Installed(ports[id].ID) {
				t.Fatalf("port of deleted server %s is wired", id)
			}
		}
		slices.Sort(want)
		waitFor(t, fmt.Sprintf("the taps to be %v", want), func() bool {
			got, err := w.taps.List(context.Background(), "yk")
			slices.Sort(got)
			return err == nil && slices.Equal(got, want)
		})
		// Nothing is started again in an agent's own time.
		generation++
		w.side.apply(t, full(generation, c.base()...))
		for _, id := range order {
			w.gone(t, id)
		}
		waitFor(t, "an empty ledger", func() bool { return len(a.ledger.servers()) == 0 })
	})
}

// whole waits until a server's disks, devices and images are those that are wanted, and nothing else.
func (w *world) whole(t worldT, s *model.HostServer) {
	t.Helper()
	dir := filepath.Join(w.dir, "servers", s.ID)
	w.side.mu.Lock()
	image := string(w.side.blobs[s.Image.BlobID])
	w.side.mu.Unlock()
	disk, err := os.ReadFile(filepath.Join(dir, "disk.qcow2"))
	if err != nil || !strings.HasSuffix(string(disk), "over "+image) {
		t.Fatalf("server %s: disk %.60q of image %.20q, %v", s.ID, disk, image, err)
	}
	// One that was for a server which is deleted may stay: it is gone on with when another wants the image, and else ages like any.
	if _, err := os.Stat(filepath.Join(w.dir, "images", s.Image.BlobID+partSuffix)); !os.IsNotExist(err) {
		t.Fatalf("server %s: an unfinished download beside its image: %v", s.ID, err)
	}
	if _, err := os.Stat(filepath.Join(dir, rescueFile)); os.IsNotExist(err) != (s.Rescue == nil) {
		t.Fatalf("server %s: rescue %v, its disk: %v", s.ID, s.Rescue, err)
	}
	disks := 1
	if s.ConfigDrive {
		disks++
	}
	if s.Rescue != nil {
		disks++
	}
	waitFor(t, "server "+s.ID+" to have its devices", func() bool {
		live, on := w.host.Live(s.ID)
		var nics []model.ID
		for _, n := range live.NICs {
			nics = append(nics, n.ID)
		}
		r := w.side.server(s.ID)
		return r.Fault == nil && sameSet(r.NICs, nicIDs(s)) && (!on || sameSet(nics, nicIDs(s)) && len(live.Disks) == disks)
	})
	waitFor(t, "server "+s.ID+" to be saved", func() bool {
		saved := w.side.server(s.ID).Saved
		return len(saved) == len(s.Saving) && !slices.ContainsFunc(saved, func(u model.UploadReport) bool { return !u.Done })
	})
	for _, id := range s.Saving {
		// Made of the disk of then: of any image.
		if data := w.side.uploaded(id); !strings.Contains(data, " over ") || strings.Contains(strings.TrimPrefix(data, "flat "), "flat ") {
			t.Fatalf("server %s: image %.60q", s.ID, data)
		}
	}
	waitFor(t, "the copies of server "+s.ID+" to be gone", func() bool {
		left, err := filepath.Glob(filepath.Join(dir, "saving-*"))
		return err == nil && len(left) == 0
	})
}

// A reboot that was cut in two by a death is finished, not begun again.
func TestKilledInReboot(t *testing.T) {
	w := newWorld(t.TempDir(), fake.HostConfig{Guests: fake.Behaviour{Greeting: "start\n"}})
	c := newCloud(w.side)
	s, p := c.server()
	f := newFuse(1 << 30)
	blown := make(chan struct{})
	f.blow = func() { close(blown) }
	armed := &stopFuse{f: f}
	a := w.start(t, func(c *Config) {
		armed.Driver = c.Hypervisor
		c.Hypervisor = armed
		c.Repeat.Limit = 1 << 30
	})
	w.side.apply(t, full(5, c.network, c.group, s, p))
	w.settled(t, s.ID, 1, model.PhaseReady, model.PowerRunning)
	s = with(s, func(s *model.HostServer) { s.Reboots = 1 })
	w.side.apply(t, change(6, s))
	<-blown // after the stop was recorded, at the start
	if err := a.ledger.close(); err != nil {
		t.Fatal(err)
	}
	a.cancel()
	<-a.ended
	if err := a.dp.Close(); err != nil {
		t.Fatal(err)
	}
	if w.power(t, s.ID) != hypervisor.Off {
		t.Fatal("it should be between stop and start")
	}
	w.startFor(t)
	if r := w.settled(t, s.ID, 2, model.PhaseReady, model.PowerRunning); r.Reboots != 1 {
		t.Errorf("report %+v", r)
	}
}

// stopFuse dies at the first Start after a Stop.
type stopFuse struct {
	hypervisor.Driver
	f       *fuse
	stopped atomic.Bool
}

func (m *stopFuse) Stop(ctx context.Context, id string, grace time.Duration) error {
	err := m.Driver.Stop(ctx, id, grace)
	m.stopped.Store(true)
	return err
}

func (m *stopFuse) Start(ctx context.Context, id string) error {
	if m.stopped.Load() {
		m.f.left.Store(0)
		m.f.once.Do(m.f.blow)
		return fault.Wrap(fault.Unavailable, errKilled, "gone")
	}
	return m.Driver.Start(ctx, id)
}

// afterFuse dies just after a guest has been started, or a disk of the name has been made, once it is armed.
type afterFuse struct {
	hypervisor.Driver
	DiskMaker
	disk string
	die  atomic.Pointer[func() error]
	dead chan error
}

func (m *afterFuse) after(err error) error {
	if die := m.die.Swap(nil); die != nil && err == nil {
		m.dead <- (*die)() // before whoever called can write
		return fault.Wrap(fault.Unavailable, errKilled, "gone")
	}
	return err
}

func (m *afterFuse) Start(ctx context.Context, id string) error {
	err := m.Driver.Start(ctx, id)
	if m.disk == "" {
		return m.after(err)
	}
	return err
}

func (m *afterFuse) Overlay(ctx context.Context, path, base, format string, size int64) error {
	err := m.DiskMaker.Overlay(ctx, path, base, format, size)
	if m.disk != "" && strings.HasPrefix(filepath.Base(path), m.disk) {
		return m.after(err)
	}
	return err
}

// startTold starts an agent that is told of a batch before it has looked at anything.
func (w *world) startTold(t *testing.T, b model.HostBatch) {
	t.Helper()
	w.prepare = func(a *Agent) {
		if err := a.Apply(t.Context(), b); err != nil {
			t.Fatal(err)
		}
	}
	w.startFor(t)
}

// killedAfter has an agent bring a server up, and die after what before leads to; what is wanted of the server next is for the caller to say.
func (w *world) killedAfter(t *testing.T, disk string, rows []model.HostRow, s *model.HostServer, before ...model.HostRow) {
	t.Helper()
	f := &afterFuse{disk: disk, dead: make(chan error, 1)}
	a := w.start(t, func(c *Config) {
		f.Driver, f.DiskMaker = c.Hypervisor, c.Disks
		c.Hypervisor, c.Disks = f, f
		c.Repeat.Limit = 1 << 30
	})
	w.side.apply(t, full(5, rows...))
	w.settled(t, s.ID, s.Generation, model.PhaseReady, s.Power)
	die := a.ledger.close
	f.die.Store(&die)
	w.side.apply(t, change(6, before...))
	if err := <-f.dead; err != nil {
		t.Fatal(err)
	}
	a.cancel()
	<-a.ended
	if err := a.dp.Close(); err != nil {
		t.Fatal(err)
	}
}

// A guest that was started with a further device, by an agent that died just then, does not keep it once it is not wanted.
func TestKilledAfterStart(t *testing.T) {
	w := newWorld(t.TempDir(), fake.HostConfig{Guests: fake.Behaviour{Greeting: "start\n"}})
	c := newCloud(w.side)
	s, p := c.server()
	_, q := c.server()
	q.DeviceID, s.Power = s.ID, model.PowerOff
	more := with(s, func(s *model.HostServer) {
		s.Power = model.PowerRunning
		s.NICs = append(slices.Clone(s.NICs), model.HostNIC{PortID: q.ID, MAC: q.MAC, MTU: 1450})
	})
	w.killedAfter(t, "", []model.HostRow{c.network, c.group, s, p}, s, more, q)
	if live, on := w.host.Live(s.ID); !on || len(live.NICs) != 2 {
		t.Fatalf("it should run with both: %v, %v", live, on)
	}
	less := with(more, func(n *model.HostServer) { n.NICs = s.NICs })
	w.startTold(t, model.HostBatch{Generation: 7, Upserts: []model.HostRow{less}, Removes: []model.RowID{q.RowID()}})
	w.settled(t, s.ID, less.Generation, model.PhaseReady, model.PowerRunning)
	w.whole(t, less)
}

// The disk of a rescue that ended while nobody looked does not stay.
func TestKilledInRescue(t *testing.T) {
	w := newWorld(t.TempDir(), fake.HostConfig{Guests: fake.Behaviour{Greeting: "start\n"}})
	c := newCloud(w.side)
	s, p := c.server()
	rescued := with(s, func(s *model.HostServer) { s.Rescue = &model.Rescue{Image: c.image, Revision: 1} })
	w.killedAfter(t, rescueFile, []model.HostRow{c.network, c.group, s, p}, s, rescued)
	if err := os.WriteFile(filepath.Join(w.dir, "servers", s.ID, rescueFile), nil, 0o600); err != nil { // it had its name, too
		t.Fatal(err)
	}
	back := with(rescued, func(s *model.HostServer) { s.Rescue = nil })
	w.startTold(t, change(7, back))
	w.settled(t, s.ID, back.Generation, model.PhaseReady, model.PowerRunning)
	w.whole(t, back)
}
