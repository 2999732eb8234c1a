package agent

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"yakumo/fault"
	"yakumo/hypervisor"
	"yakumo/hypervisor/fake"
	"yakumo/model"
)

// stage is a host with one server that runs.
type stage struct {
	*world
	c   *cloud
	a   *running
	s   *model.HostServer
	p   *model.HostPort
	gen int64
}

func newStage(t *testing.T, guests fake.Behaviour, change func(*model.HostServer)) *stage {
	t.Helper()
	w := newWorld(t.TempDir(), fake.HostConfig{Guests: guests})
	g := &stage{world: w, c: newCloud(w.side), gen: 5}
	g.s, g.p = g.c.server()
	if change != nil {
		change(g.s)
	}
	g.a = w.start(t, nil)
	t.Cleanup(func() { g.a.stop(t) })
	w.side.apply(t, full(5, g.c.network, g.c.group, g.s, g.p))
	w.settled(t, g.s.ID, 1, model.PhaseReady, model.PowerRunning)
	return g
}

// want changes what is wanted of the server.
func (g *stage) want(t *testing.T, change func(*model.HostServer), rows ...model.HostRow) {
	t.Helper()
	g.gen++
	g.s = with(g.s, change)
	g.side.apply(t, model.HostBatch{Generation: g.gen, Upserts: append(rows, g.s)})
}

func (g *stage) settles(t *testing.T, power model.Power) model.ServerReport {
	t.Helper()
	return g.settled(t, g.s.ID, g.s.Generation, model.PhaseReady, power)
}

// again restarts the agent, in a host that was started anew where boot differs.
func (g *stage) again(t *testing.T, boot string) {
	t.Helper()
	g.a.stop(t)
	anew := boot != g.boot
	if anew {
		g.host.PowerCut()
	}
	g.boot = boot
	g.a = g.world.start(t, nil)
	if anew { // it starts nothing before
		g.side.apply(t, full(g.gen, g.c.network, g.c.group, g.s, g.p))
	}
}

func (g *stage) disk(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(g.dir, "servers", g.s.ID, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// starts counts how often the guest started from its disk.
func (g *stage) starts(t *testing.T) int {
	t.Helper()
	log, err := fake.New(fake.Config{Host: g.host}).ConsoleLog(context.Background(), g.s.ID, 0)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Count(string(log), "hello")
}

func TestPausedAndSuspended(t *testing.T) {
	g := newStage(t, fake.Behaviour{Greeting: "hello\n"}, nil)
	for _, held := range []model.Power{model.PowerPaused, model.PowerSuspended} {
		g.want(t, func(s *model.HostServer) { s.Power = held })
		g.settles(t, held)
		g.want(t, func(s *model.HostServer) { s.Name += "x" })
		g.settles(t, held)
		g.again(t, g.boot)
		g.want(t, func(s *model.HostServer) { s.Name += "y" })
		g.settles(t, held)
		// Both at once: words of the row beside its power do not hide the wish.
		g.want(t, func(s *model.HostServer) { s.Power, s.Name = model.PowerRunning, s.Name+"z" })
		g.settles(t, model.PowerRunning)
		if n := g.starts(t); n != 1 {
			t.Fatalf("after %s and on the guest has started %d times", held, n)
		}
	}
	// A suspended guest outlives the host's power, a paused one is off then, and neither is started by itself.
	g.want(t, func(s *model.HostServer) { s.Power = model.PowerSuspended })
	g.settles(t, model.PowerSuspended)
	g.again(t, "boot-2")
	g.want(t, func(s *model.HostServer) { s.Name = "new" })
	g.settles(t, model.PowerSuspended)
	g.want(t, func(s *model.HostServer) { s.Power = model.PowerRunning })
	g.settles(t, model.PowerRunning)
	if n := g.starts(t); n != 1 {
		t.Errorf("a suspended guest has started %d times", n)
	}
	g.want(t, func(s *model.HostServer) { s.Power = model.PowerPaused })
	g.settles(t, model.PowerPaused)
	g.again(t, "boot-3")
	g.want(t, func(s *model.HostServer) { s.Name = "newer" })
	g.settles(t, model.PowerOff)
	if g.power(t, g.s.ID) != hypervisor.Off {
		t.Error("a guest that was paused when its host lost power was started")
	}
	g.want(t, func(s *model.HostServer) { s.Power = model.PowerOff })
	g.settles(t, model.PowerOff)
	g.want(t, func(s *model.HostServer) { s.Power = model.PowerRunning })
	g.settles(t, model.PowerRunning)

	// Off and a hard reboot throw away what is held.
	g.want(t, func(s *model.HostServer) { s.Power = model.PowerSuspended })
	g.settles(t, model.PowerSuspended)
	g.want(t, func(s *model.HostServer) { s.Power = model.PowerOff })
	g.settles(t, model.PowerOff)
	if g.power(t, g.s.ID) != hypervisor.Off {
		t.Error("a stop left a suspended guest")
	}
	g.want(t, func(s *model.HostServer) { s.Power = model.PowerRunning })
	g.settles(t, model.PowerRunning)
	g.want(t, func(s *model.HostServer) { s.Power = model.PowerSuspended })
	g.settles(t, model.PowerSuspended)
	before := g.starts(t)
	g.want(t, func(s *model.HostServer) { s.Power, s.HardReboots = model.PowerRunning, 1 })
	if r := g.settles(t, model.PowerRunning); r.Hard != 1 || g.starts(t) != before+1 {
		t.Errorf("after a hard reboot: %+v, %d starts after %d", r, g.starts(t), before)
	}
	// A hard reboot and a pause that come together are both served.
	g.want(t, func(s *model.HostServer) { s.Power, s.HardReboots = model.PowerPaused, 2 })
	if r := g.settles(t, model.PowerPaused); r.Hard != 2 || g.starts(t) != before+2 {
		t.Errorf("after a reboot and a pause: %+v", r)
	}
}

func TestRebuild(t *testing.T) {
	g := newStage(t, fake.Behaviour{Greeting: "hello\n"}, func(s *model.HostServer) { s.ConfigDrive = true })
	drive := g.disk(t, driveFile)
	variables := filepath.Join(g.a.dir(g.s.ID), nvramFile)
	if err := os.WriteFile(variables, []byte("boot order"), 0o600); err != nil {
		t.Fatal(err)
	}
	g.want(t, func(s *model.HostServer) {
		s.Rebuilds, s.Image, s.Metadata = 1, g.addImage("another image"), map[string]string{"role": "rebuilt"}
	})
	if r := g.settles(t, model.PowerRunning); r.Rebuilds != 1 || r.Fault != nil {
		t.Errorf("report %+v", r)
	}
	if d := g.disk(t, "disk.qcow2"); !strings.HasSuffix(d, "over another image") {
		t.Errorf("the disk is %q", d)
	}
	if g.starts(t) != 2 || g.disk(t, driveFile) == drive {
		t.Errorf("%d starts; config drive renewed: %v", g.starts(t), g.disk(t, driveFile) != drive)
	}
	if _, err := os.Stat(variables); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what the firmware kept has outlived a rebuild: %v", err)
	}
	p, _ := g.a.ledger.progressOf(g.s.ID)
	if p.Blob != g.s.Image.BlobID {
		t.Errorf("its disk is said to be of %s", p.Blob)
	}
	g.again(t, g.boot)
	made := g.made.Load()
	g.want(t, func(s *model.HostServer) { s.Power = model.PowerOff })
	g.settles(t, model.PowerOff)
	if g.made.Load() != made {
		t.Error("a rebuild was done twice")
	}
	// One that is off stays off.
	g.want(t, func(s *model.HostServer) { s.Rebuilds, s.Image = 2, g.addImage("a third") })
	if r := g.settles(t, model.PowerOff); r.Rebuilds != 2 || !strings.HasSuffix(g.disk(t, "disk.qcow2"), "over a third") {
		t.Errorf("report %+v, disk %q", r, g.disk(t, "disk.qcow2"))
	}
	// An image that is nowhere leaves the disk.
	lost := g.addImage("lost")
	g.side.mu.Lock()
	delete(g.side.blobs, lost.BlobID)
	g.side.mu.Unlock()
	g.want(t, func(s *model.HostServer) { s.Rebuilds, s.Image = 3, lost })
	if r := g.faulty(t, g.s.ID, g.s.Generation); r.Rebuilds != 2 || !strings.HasSuffix(g.disk(t, "disk.qcow2"), "over a third") {
		t.Errorf("report %+v, disk %q", r, g.disk(t, "disk.qcow2"))
	}
}

func TestRescue(t *testing.T) {
	g := newStage(t, fake.Behaviour{Greeting: "hello\n"}, nil)
	own := g.disk(t, "disk.qcow2")
	for n := range int64(2) {
		g.want(t, func(s *model.HostServer) { s.Rescue = &model.Rescue{Image: g.addImage("rescuer"), Revision: n + 7} })
		if r := g.settles(t, model.PowerRunning); r.Rescue != n+7 {
			t.Errorf("report %+v", r)
		}
		live, _ := g.host.Live(g.s.ID)
		if len(live.Disks) != 2 || filepath.Base(live.Disks[0].Path) != rescueFile || live.Disks[0].BootOrder != 1 || filepath.Base(live.Disks[1].Path) != "disk.qcow2" || live.Disks[1].BootOrder != 0 {
			t.Errorf("it runs with %+v", live.Disks)
		}
		if d := g.disk(t, rescueFile); !strings.HasSuffix(d, "over rescuer") {
			t.Errorf("the rescue disk is %q", d)
		}
		if err := os.WriteFile(filepath.Join(g.dir, "servers", g.s.ID, rescueFile), []byte("written by the guest"), 0o600); err != nil {
			t.Fatal(err)
		}
		g.again(t, g.boot)
		g.want(t, func(s *model.HostServer) { s.Power = model.PowerOff })
		g.settles(t, model.PowerOff)
		g.want(t, func(s *model.HostServer) { s.Power = model.PowerRunning })
		g.settles(t, model.PowerRunning)
		if d := g.disk(t, rescueFile); d != "written by the guest" {
			t.Errorf("the rescue disk was made anew: %q", d)
		}
	}
	g.want(t, func(s *model.HostServer) { s.Rescue = nil })
	if r := g.settles(t, model.PowerRunning); r.Rescue != 0 {
		t.Errorf("report %+v", r)
	}
	live, _ := g.host.Live(g.s.ID)
	if _, err := os.Stat(filepath.Join(g.dir, "servers", g.s.ID, rescueFile)); !os.IsNotExist(err) || len(live.Disks) != 1 || g.disk(t, "disk.qcow2") != own {
		t.Errorf("after its rescue: %v, %+v", err, live.Disks)
	}
}

// TestPasswordsOfDrives: a guest's config drive tells the password that was wanted when it was made; a rescued guest has a drive of its own.
func TestPasswordsOfDrives(t *testing.T) {
	g := newStage(t, fake.Behaviour{Greeting: "hello\n"}, func(s *model.HostServer) { s.ConfigDrive, s.AdminPass = true, "first" })
	tells := func(name, password string) {
		t.Helper()
		if d := g.disk(t, name); !strings.Contains(d, `"admin_pass":"`+password+`"`) {
			t.Errorf("%s does not tell %s", name, password)
		}
		live, _ := g.host.Live(g.s.ID)
		if d := live.Disks[len(live.Disks)-1]; filepath.Base(d.Path) != name {
			t.Errorf("the guest has the drive %s, not %s", d.Path, name)
		}
	}
	tells(driveFile, "first")
	g.want(t, func(s *model.HostServer) { s.AdminPass = "" }) // the store knows that the guest runs
	g.settles(t, model.PowerRunning)
	g.again(t, g.boot)
	tells(driveFile, "first")
	for n, word := range []string{"second", "third"} {
		g.want(t, func(s *model.HostServer) {
			s.AdminPass, s.Rescue = word, &model.Rescue{Image: g.addImage("rescuer"), Revision: int64(n) + 7}
		})
		g.settles(t, model.PowerRunning)
		tells(rescueDrive, word)
	}
	g.want(t, func(s *model.HostServer) { s.AdminPass, s.Rescue = "", nil })
	g.settles(t, model.PowerRunning)
	tells(driveFile, "first")
	if _, err := os.Stat(filepath.Join(g.dir, "servers", g.s.ID, rescueDrive)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the drive of a rescue that is over: %v", err)
	}
	g.want(t, func(s *model.HostServer) { s.AdminPass, s.Rebuilds = "fourth", 1 })
	g.settles(t, model.PowerRunning)
	tells(driveFile, "fourth")
}

func TestPlug(t *testing.T) {
	g := newStage(t, fake.Behaviour{Greeting: "hello\n"}, nil)
	_, more := g.c.server()
	more.DeviceID = g.s.ID
	g.want(t, func(s *model.HostServer) {
		s.NICs = append(slices.Clone(s.NICs), model.HostNIC{PortID: more.ID, MAC: more.MAC, MTU: 1450, Tag: "new"})
	}, more)
	nics := func(ids ...model.ID) {
		t.Helper()
		waitFor(t, "the ports of the guest to be reported", func() bool { return slices.Equal(g.side.server(g.s.ID).NICs, ids) })
		live, _ := g.host.Live(g.s.ID)
		var have []string
		for _, n := range live.NICs {
			have = append(have, n.ID)
		}
		if !slices.Equal(have, ids) {
			t.Errorf("the guest has %v, want %v", have, ids)
		}
	}
	nics(g.p.ID, more.ID)
	if !g.a.ports.wired(more.ID) || g.starts(t) != 1 {
		t.Error("a port was plugged in that is not wired, or the guest was started anew")
	}
	// The port's row goes at once, as the API deletes it; its tap goes when the guest has let go.
	g.gen++
	g.s = with(g.s, func(s *model.HostServer) { s.NICs = s.NICs[1:] })
	g.side.apply(t, model.HostBatch{Generation: g.gen, Upserts: []model.HostRow{g.s}, Removes: []model.RowID{g.p.RowID()}})
	nics(more.ID)
	waitFor(t, "the tap to go", func() bool { return g.taps.mtu(tapName(g.p.ID)) == 0 })
	if g.starts(t) != 1 || g.side.server(g.s.ID).Fault != nil {
		t.Errorf("%d starts, %+v", g.starts(t), g.side.server(g.s.ID))
	}
	// One that is off has what is wanted at once.
	g.want(t, func(s *model.HostServer) { s.Power, s.NICs = model.PowerOff, nil })
	if r := g.settles(t, model.PowerOff); len(r.NICs) != 0 {
		t.Errorf("report %+v", r)
	}
}

// A guest that does not let go keeps its device and its tap, and everything else goes on.
func TestUnplugDeaf(t *testing.T) {
	g := newStage(t, fake.Behaviour{Greeting: "hello\n", LetGoFor: -1}, nil)
	g.gen++
	g.s = with(g.s, func(s *model.HostServer) { s.NICs = nil })
	g.side.apply(t, model.HostBatch{Generation: g.gen, Upserts: []model.HostRow{g.s}, Removes: []model.RowID{g.p.RowID()}})
	waitFor(t, "the refusal to be told", func() bool { return g.side.server(g.s.ID).Fault != nil })
	r := g.settles(t, model.PowerRunning)
	if !strings.Contains(r.Fault.Message, "let go") || !slices.Equal(r.NICs, []model.ID{g.p.ID}) || r.Phase != model.PhaseReady {
		t.Errorf("report %+v", r)
	}
	g.again(t, g.boot)
	g.want(t, func(s *model.HostServer) { s.Name = "renamed" })
	g.settles(t, model.PowerRunning)
	if g.taps.mtu(tapName(g.p.ID)) == 0 {
		t.Error("the tap of a card that the guest has is gone")
	}
	g.want(t, func(s *model.HostServer) { s.Power = model.PowerOff })
	if r := g.settles(t, model.PowerOff); r.Fault != nil || len(r.NICs) != 0 {
		t.Errorf("report %+v", r)
	}
	waitFor(t, "the tap to go", func() bool { return g.taps.mtu(tapName(g.p.ID)) == 0 })
}

// shelf is a host's volumes, as many as it is asked for.
type shelf struct{ dir string }

func (v shelf) disk(_ context.Context, _ model.ID, d model.HostDisk) (hypervisor.Disk, error) {
	return hypervisor.Disk{Path: filepath.Join(v.dir, d.VolumeID), Format: "raw", Serial: d.VolumeID, ReadOnly: d.ReadOnly}, nil
}

func TestVolumes(t *testing.T) {
	g := newStage(t, fake.Behaviour{Greeting: "hello\n"}, nil)
	g.want(t, func(s *model.HostServer) { s.Volumes = []model.HostDisk{{VolumeID: "v1"}} })
	waitFor(t, "the refusal to be told", func() bool { return g.side.server(g.s.ID).Fault != nil })
	if r := g.settles(t, model.PowerRunning); len(r.Disks) != 0 {
		t.Errorf("report %+v", r)
	}
	g.prepare = func(a *Agent) { a.volumes = shelf{g.dir} }
	g.again(t, g.boot)
	g.want(t, func(s *model.HostServer) {
		s.Volumes = append(slices.Clone(s.Volumes), model.HostDisk{VolumeID: "v2", ReadOnly: true})
	})
	waitFor(t, "the volumes to be there", func() bool { return slices.Equal(g.side.server(g.s.ID).Disks, []model.ID{"v1", "v2"}) })
	g.want(t, func(s *model.HostServer) { s.Volumes = s.Volumes[1:] })
	waitFor(t, "a volume to be gone", func() bool { return slices.Equal(g.side.server(g.s.ID).Disks, []model.ID{"v2"}) })
	live, _ := g.host.Live(g.s.ID)
	if len(live.Disks) != 2 || live.Disks[1].Serial != "v2" || !live.Disks[1].ReadOnly || g.side.server(g.s.ID).Fault != nil {
		t.Errorf("it has %+v", live.Disks)
	}
	// A server that boots from a volume has no disk of its own.
	s, p := g.c.server()
	s.Image, s.Volumes = model.ImageCopy{}, []model.HostDisk{{VolumeID: "v3", Boot: true}}
	g.gen++
	g.side.apply(t, change(g.gen, s, p))
	g.settled(t, s.ID, 1, model.PhaseReady, model.PowerRunning)
	live, _ = g.host.Live(s.ID)
	if len(live.Disks) != 1 || live.Disks[0].Serial != "v3" || live.Disks[0].BootOrder != 1 {
		t.Errorf("it boots from %+v", live.Disks)
	}
}

func TestSaving(t *testing.T) {
	g := newStage(t, fake.Behaviour{Greeting: "hello\n"}, nil)
	disk := g.disk(t, "disk.qcow2")
	saved := func(id model.ID) (u model.UploadReport) {
		t.Helper()
		waitFor(t, "image "+id+" to be made, or not", func() bool {
			for _, x := range g.side.server(g.s.ID).Saved {
				if x.ID == id && (x.Done || x.Fault != nil) {
					u = x
					return true
				}
			}
			return false
		})
		return u
	}
	g.want(t, func(s *model.HostServer) { s.Saving = []model.ID{"i1"} })
	if u := saved("i1"); !u.Done || u.Bytes != int64(len(disk)) || g.side.uploaded("i1") != disk {
		t.Errorf("%+v, image %q", u, g.side.uploaded("i1"))
	}
	g.side.mu.Lock()
	g.side.refuse["i2"] = fault.New(fault.Forbidden, "Not this one.")
	g.side.mu.Unlock()
	g.want(t, func(s *model.HostServer) { s.Saving = []model.ID{"i1", "i2"} })
	if u := saved("i2"); u.Done || u.Fault.Message != "Not this one." {
		t.Errorf("%+v", u)
	}
	if r := g.settles(t, model.PowerRunning); len(r.Saved) != 2 || r.Fault != nil {
		t.Errorf("report %+v", r)
	}
	// While no server is there it is tried again, and an agent that dies goes on with the copy that it has.
	g.side.mu.Lock()
	g.side.down = true
	sends := g.side.sends
	g.side.mu.Unlock()
	g.want(t, func(s *model.HostServer) { s.Power, s.Saving = model.PowerSuspended, []model.ID{"i3"} })
	waitFor(t, "a try", func() bool { g.side.mu.Lock(); defer g.side.mu.Unlock(); return g.side.sends > sends })
	g.again(t, g.boot)
	g.side.mu.Lock()
	g.side.down = false
	g.side.mu.Unlock()
	if u := saved("i3"); !u.Done || g.side.uploaded("i3") != "flat "+disk {
		t.Errorf("%+v, image %q", u, g.side.uploaded("i3"))
	}
	g.want(t, func(s *model.HostServer) { s.Saving = nil })
	waitFor(t, "what was saved to be forgotten", func() bool { return len(g.side.server(g.s.ID).Saved) == 0 })
	if left, err := filepath.Glob(filepath.Join(g.dir, "servers", g.s.ID, "saving-*")); err != nil || len(left) > 0 {
		t.Errorf("copies left: %v, %v", left, err)
	}
	p, _ := g.a.ledger.progressOf(g.s.ID)
	if p.Saved != nil {
		t.Errorf("progress %+v", p)
	}
}

func TestFlavorDisks(t *testing.T) {
	g := newStage(t, fake.Behaviour{Greeting: "hello\n"}, func(s *model.HostServer) { s.EphemeralGiB, s.SwapMiB, s.ConfigDrive = 1, 2, true })
	live, _ := g.host.Live(g.s.ID)
	var names []string
	for _, d := range live.Disks {
		names = append(names, filepath.Base(d.Path))
	}
	if !slices.Equal(names, []string{"disk.qcow2", ephemeralFile, swapFile, driveFile}) {
		t.Errorf("it has %v", names)
	}
	swap := g.disk(t, swapFile)
	if len(swap) != 2<<20 || swap[4086:4096] != "SWAPSPACE2" || binary.LittleEndian.Uint32([]byte(swap[1028:])) != 511 {
		t.Errorf("the swap disk of %d bytes ends its first page with %q", len(swap), swap[4086:4096])
	}
	path := filepath.Join(g.dir, "servers", g.s.ID, ephemeralFile)
	if st, err := os.Stat(path); err != nil || st.Size() != 1<<30 {
		t.Fatalf("%v, %v", st, err)
	}
	g.want(t, func(s *model.HostServer) { s.Power, s.EphemeralGiB = model.PowerOff, 2 }) // a larger flavor
	g.settles(t, model.PowerOff)
	g.want(t, func(s *model.HostServer) { s.Power = model.PowerRunning })
	g.settles(t, model.PowerRunning)
	if st, err := os.Stat(path); err != nil || st.Size() != 2<<30 {
		t.Errorf("%v, %v", st, err)
	}
	g.want(t, func(s *model.HostServer) { s.Power = model.PowerOff })
	g.settles(t, model.PowerOff)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	g.want(t, func(s *model.HostServer) { s.Power = model.PowerRunning })
	if r := g.faulty(t, g.s.ID, g.s.Generation); !strings.Contains(r.Fault.Message, "ephemeral disk is lost") {
		t.Errorf("report %+v", r)
	}
}

// The flavor's specs and the image's properties reach the hypervisor; one that cannot be fails the boot in its own words.
func TestSpecs(t *testing.T) {
	g := newStage(t, fake.Behaviour{}, func(s *model.HostServer) {
		s.ExtraSpecs, s.Image.Hardware = map[string]string{"hw:cpu_cores": "1"}, map[string]string{"hw_vif_model": "e1000"}
	})
	live, _ := g.host.Live(g.s.ID)
	if len(live.Specs) != 2 || live.Specs["hw:cpu_cores"] != "1" || live.Specs["hw_vif_model"] != "e1000" {
		t.Errorf("specs %v", live.Specs)
	}
	s, p := g.c.server()
	s.ExtraSpecs = map[string]string{"hw:watchdog_action": "explode"}
	g.gen++
	g.side.apply(t, change(g.gen, s, p))
	if r := g.faulty(t, s.ID, 1); !strings.Contains(r.Fault.Message, `hw:watchdog_action is "explode"`) {
		t.Errorf("fault %+v", r.Fault)
	}
}

func TestDiagnosticsAnswer(t *testing.T) {
	g := newStage(t, fake.Behaviour{}, nil)
	ask := func(id model.ID) (d model.Diagnostics, err error) {
		q, err := json.Marshal(model.DiagnosticsQuery{ServerID: id})
		if err != nil {
			t.Fatal(err)
		}
		b, err := g.a.Answer(context.Background(), "diagnostics", q)
		if err == nil {
			err = json.Unmarshal(b, &d)
		}
		return d, err
	}
	if d, err := ask(g.s.ID); err != nil || d.MemoryMiB != 64 || len(d.CPUNanos) != 1 || len(d.Disks) != 1 || len(d.NICs) != 1 || d.NICs[0].MAC != g.p.MAC {
		t.Errorf("%+v, %v", d, err)
	}
	if _, err := ask(model.NewID()); !fault.Is(err, fault.NotFound) {
		t.Errorf("an unknown server: %v", err)
	}
	g.want(t, func(s *model.HostServer) { s.Power = model.PowerOff })
	g.settles(t, model.PowerOff)
	if _, err := ask(g.s.ID); !fault.Is(err, fault.Conflict) {
		t.Errorf("a server that is off: %v", err)
	}
}

func TestQemuImgFlattensAndBlanks(t *testing.T) {
	dir, ctx := t.TempDir(), t.Context()
	base, over, flat, blank := filepath.Join(dir, "base"), filepath.Join(dir, "over"), filepath.Join(dir, "flat"), filepath.Join(dir, "blank")
	if err := os.WriteFile(base, []byte(strings.Repeat("base", 1024)), 0o600); err != nil {
		t.Fatal(err)
	}
	q := QemuImg{}
	began := time.Now()
	for _, err := range []error{q.Overlay(ctx, over, base, "raw", 64<<20), q.Flatten(ctx, flat, over), q.Blank(ctx, blank, 16<<20)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(flat)
	if err != nil || !strings.HasPrefix(string(b), "QFI\xfb") || !strings.Contains(string(b), "basebase") || strings.Contains(string(b), base) || len(b) > 1<<20 {
		t.Errorf("%d bytes, %v, after %v", len(b), err, time.Since(began))
	}
	fs, err := os.ReadFile(blank)
	if err != nil || len(fs) != 16<<20 || !strings.Contains(string(fs[:4096]), ephemeralLabel) {
		t.Errorf("%d bytes, %v", len(fs), err)
	}
	if err := q.Flatten(ctx, flat+"2", filepath.Join(dir, "none")); err == nil {
		t.Error("what is not there was copied")
	}
}

// TestRebuildOfTPM: a rebuilt guest's TPM is a fresh one: the hypervisor forgets the guest, whether it ran or not.
func TestRebuildOfTPM(t *testing.T) {
	g := newStage(t, fake.Behaviour{}, func(s *model.HostServer) { s.Image.Hardware = map[string]string{"hw_tpm_version": "2.0"} })
	rebuild := func(power model.Power) {
		t.Helper()
		g.want(t, func(s *model.HostServer) {
			s.Rebuilds++
			s.Image = g.addImage(fmt.Sprintf("image %d", s.Rebuilds))
			s.Image.Hardware = map[string]string{"hw_tpm_version": "2.0"}
		})
		if r := g.settles(t, power); r.Fault != nil || r.Rebuilds != g.s.Rebuilds {
			t.Errorf("report %+v", r)
		}
	}
	rebuild(model.PowerRunning)
	if p, _ := g.a.ledger.progressOf(g.s.ID); !p.TPM {
		t.Error("it is not known that there is a TPM")
	}
	g.want(t, func(s *model.HostServer) { s.Power = model.PowerOff })
	g.settles(t, model.PowerOff)
	rebuild(model.PowerOff)
	if got := g.power(t, g.s.ID); got != hypervisor.Absent {
		t.Errorf("it is %v at the hypervisor, with what it knew", got)
	}
	g.want(t, func(s *model.HostServer) { s.Power = model.PowerRunning })
	g.settles(t, model.PowerRunning)
	g.again(t, g.boot)
}

// A server's firmware is its image's, and its rescue image's while it is rescued; what it keeps is in the guest's folder.
func TestFirmwareOfGuests(t *testing.T) {
	g := newStage(t, fake.Behaviour{}, func(s *model.HostServer) {
		s.Image.Hardware = map[string]string{"hw_firmware_type": "uefi", "hw_disk_bus": "scsi"}
	})
	nvram := func() (path string, specs map[string]string) {
		t.Helper()
		guest, err := g.a.guest(t.Context(), g.a.ledger.server(g.s.ID))
		if err != nil {
			t.Fatal(err)
		}
		return guest.NVRAM, guest.Specs
	}
	want := filepath.Join(g.a.dir(g.s.ID), nvramFile)
	if path, specs := nvram(); path != want || specs["hw_firmware_type"] != "uefi" {
		t.Errorf("it has %q, %v", path, specs)
	}
	rescue := g.addImage("a rescue image")
	rescue.ImageID = model.NewID()
	g.want(t, func(s *model.HostServer) {
		s.Rescue = &model.Rescue{ImageID: rescue.ImageID, Image: rescue, Revision: 7}
	})
	g.settles(t, model.PowerRunning)
	if path, specs := nvram(); path != "" || specs["hw_firmware_type"] != "" || specs["hw_disk_bus"] != "scsi" {
		t.Errorf("rescued, it has %q, %v", path, specs)
	}
	g.want(t, func(s *model.HostServer) { s.Rescue = nil })
	g.settles(t, model.PowerRunning)
	if path, _ := nvram(); path != want {
		t.Errorf("rescued no more, it has %q", path)
	}
}
