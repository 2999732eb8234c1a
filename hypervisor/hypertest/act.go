package hypertest

import (
	"context"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"yakumo/fault"
	"yakumo/hypervisor"
)

// Workshop is a Host whose drivers change what running guests have.
type Workshop interface {
	Host
	// Busy gives a guest like Guest that writes to its first disk all the time. Whole tells that the file path, a copy
	// of that disk, is a qcow2 without a backing file that holds what the disk held at one moment.
	Busy(t *testing.T) hypervisor.Guest
	Whole(t *testing.T, path string)
	// Places makes disks as large as Busy's first, of every kind to which that can go while its guest runs. Count gives how often a Busy guest has
	// written to a disk, which is one of those or its first.
	Places(t *testing.T) []hypervisor.Disk
	Count(t *testing.T, id string, d hypervisor.Disk) uint32
	// Disk makes a disk of 1 MiB that no guest has; Size gives its size in bytes once a guest has it.
	Disk(t *testing.T) hypervisor.Disk
	Size(t *testing.T, id string, d hypervisor.Disk) int64
	// Tap makes a tap device.
	Tap(t *testing.T) string
}

// workshop is h, of a driver that offers what only a Workshop can show.
func workshop(t *testing.T, h Host) Workshop {
	t.Helper()
	w, ok := h.(Workshop)
	if !ok {
		t.Fatal("the host is no Workshop, and its driver changes running guests")
	}
	return w
}

// started defines a guest, starts it and waits until it is up.
func started(t *testing.T, d hypervisor.Driver, g hypervisor.Guest) {
	t.Helper()
	define(t, d, g)
	must(t, d.Start(testContext(t), g.ID))
	waitLog(t, d, g.ID, greetings(1))
}

func testPause(t *testing.T, h Host) {
	d, g, ctx := h.Open(t), h.Guest(t), testContext(t)
	p, ok := d.(hypervisor.Pauser)
	if !ok {
		return
	}
	wantKind(t, p.Pause(ctx, NewID()), fault.NotFound)
	define(t, d, g)
	wantKind(t, p.Pause(ctx, g.ID), fault.Conflict)
	if i, ok := d.(hypervisor.Interrupter); ok {
		wantKind(t, i.Interrupt(ctx, NewID()), fault.NotFound)
		wantKind(t, i.Interrupt(ctx, g.ID), fault.Conflict)
	}
	watch, err := d.Watch(ctx)
	must(t, err)
	must(t, d.Start(ctx, g.ID))
	waitLog(t, d, g.ID, greetings(1))
	must(t, p.Pause(ctx, g.ID))
	wantPower(t, d, g.ID, hypervisor.Paused)
	waitPower(t, watch, g.ID, hypervisor.Paused)
	must(t, p.Pause(ctx, g.ID))
	wantPower(t, h.Open(t), g.ID, hypervisor.Paused)

	must(t, d.Start(ctx, g.ID))
	wantPower(t, d, g.ID, hypervisor.Running)
	waitPower(t, watch, g.ID, hypervisor.Running)
	con := console(t, ctx, d.(hypervisor.Consoler), g.ID)
	must(t, write(con, []byte("on\n")))
	must(t, expect(con, []byte("on\n")))
	must(t, con.Close())
	if greetings(2)(waitLog(t, d, g.ID, greetings(1))) {
		t.Error("a guest that was paused has started anew")
	}

	must(t, p.Pause(ctx, g.ID))
	must(t, d.Stop(ctx, g.ID, 0))
	wantPower(t, d, g.ID, hypervisor.Off)
	must(t, d.Start(ctx, g.ID))
	waitLog(t, d, g.ID, greetings(2))
	must(t, p.Pause(ctx, g.ID))
	if i, ok := d.(hypervisor.Interrupter); ok { // what a guest makes of it is its own: this one is not let go on
		must(t, i.Interrupt(ctx, g.ID))
		wantPower(t, d, g.ID, hypervisor.Paused)
	}
	must(t, d.Remove(ctx, g.ID))
	wantPower(t, d, g.ID, hypervisor.Absent)
}

func testSuspend(t *testing.T, h Host) {
	d, g, ctx := h.Open(t), h.Guest(t), testContext(t)
	s, ok := d.(hypervisor.Suspender)
	if !ok {
		return
	}
	wantKind(t, s.Suspend(ctx, NewID()), fault.NotFound)
	define(t, d, g)
	wantKind(t, s.Suspend(ctx, g.ID), fault.Conflict)
	watch, err := d.Watch(ctx)
	must(t, err)
	must(t, d.Start(ctx, g.ID))
	waitLog(t, d, g.ID, greetings(1))
	must(t, s.Suspend(ctx, g.ID))
	wantPower(t, d, g.ID, hypervisor.Suspended)
	waitPower(t, watch, g.ID, hypervisor.Suspended)
	must(t, s.Suspend(ctx, g.ID))
	must(t, d.Ensure(ctx, g))
	wantPower(t, d, g.ID, hypervisor.Suspended)

	// Its memory outlives whoever knows of it.
	wantPower(t, h.Open(t), g.ID, hypervisor.Suspended)
	h.KillDaemon(t)
	h.StartDaemon(t)
	wantPower(t, d, g.ID, hypervisor.Suspended)
	wantPower(t, h.Open(t), g.ID, hypervisor.Suspended)
	must(t, d.Start(ctx, g.ID))
	wantPower(t, d, g.ID, hypervisor.Running)
	con := console(t, ctx, d.(hypervisor.Consoler), g.ID)
	must(t, write(con, []byte("on\n")))
	must(t, expect(con, []byte("on\n")))
	must(t, con.Close())
	if greetings(2)(waitLog(t, d, g.ID, greetings(1))) {
		t.Error("a guest that was suspended has started anew")
	}

	// A paused one runs when it is started; a stop throws the memory away, and so does a removal.
	watch, err = d.Watch(ctx)
	must(t, err)
	if p, ok := d.(hypervisor.Pauser); ok {
		must(t, p.Pause(ctx, g.ID))
	}
	must(t, s.Suspend(ctx, g.ID))
	must(t, d.Start(ctx, g.ID))
	wantPower(t, d, g.ID, hypervisor.Running)
	for n, grace := range []time.Duration{0, Deadline} {
		must(t, s.Suspend(ctx, g.ID))
		waitPower(t, watch, g.ID, hypervisor.Suspended)
		must(t, d.Stop(ctx, g.ID, grace))
		wantPower(t, d, g.ID, hypervisor.Off)
		waitPower(t, watch, g.ID, hypervisor.Off)
		wantPower(t, h.Open(t), g.ID, hypervisor.Off)
		must(t, d.Start(ctx, g.ID))
		waitLog(t, d, g.ID, greetings(n+2))
	}
	must(t, s.Suspend(ctx, g.ID))
	must(t, d.Remove(ctx, g.ID))
	must(t, d.Ensure(ctx, g))
	wantPower(t, d, g.ID, hypervisor.Off)
}

func testPlug(t *testing.T, h Host) {
	d, g, ctx := h.Open(t), h.Guest(t), testContext(t)
	p, ok := d.(hypervisor.Plugger)
	if !ok {
		return
	}
	w := workshop(t, h)
	diag := d.(hypervisor.Diagnoser)
	wantKind(t, p.Plug(ctx, g), fault.NotFound)
	define(t, d, g)
	wantKind(t, p.Plug(ctx, g), fault.Conflict)
	must(t, d.Start(ctx, g.ID))
	waitLog(t, d, g.ID, greetings(1))
	has := func(g hypervisor.Guest) {
		t.Helper()
		x, err := diag.Diagnostics(ctx, g.ID)
		must(t, err)
		if len(x.Disks) != len(g.Disks) || len(x.NICs) != len(g.NICs) {
			t.Fatalf("the guest has disks %+v and cards %+v, want %d and %d", x.Disks, x.NICs, len(g.Disks), len(g.NICs))
		}
		serials, macs := map[string]bool{}, map[string]bool{}
		for _, d := range x.Disks {
			serials[d.Serial] = true
		}
		for _, n := range x.NICs {
			macs[n.MAC] = true
		}
		for _, d := range g.Disks {
			if !serials[d.Serial] {
				t.Errorf("the guest lacks disk %s: %+v", d.Serial, x.Disks)
			}
		}
		for _, n := range g.NICs {
			if !macs[n.MAC] {
				t.Errorf("the guest lacks card %s: %+v", n.MAC, x.NICs)
			}
		}
	}
	own := g
	_, disks := d.(hypervisor.Grower)
	// As many as a user may add to a guest that was started without any.
	for i := range 3 {
		if disks {
			g.Disks = append(g.Disks[:len(g.Disks):len(g.Disks)], w.Disk(t))
		}
		g.NICs = append(g.NICs[:len(g.NICs):len(g.NICs)], hypervisor.NIC{ID: NewID(), MAC: "fa:16:3e:00:01:0" + string(rune('1'+i)), Tap: w.Tap(t), MTU: 1450})
		must(t, p.Plug(ctx, g))
		has(g)
	}
	must(t, p.Plug(ctx, g)) // nothing to do
	must(t, d.Ensure(ctx, g))
	one := g
	one.Disks, one.NICs = g.Disks[:min(2, len(g.Disks))], g.NICs[1:2]
	must(t, p.Plug(ctx, one))
	has(one)
	wantPower(t, d, g.ID, hypervisor.Running)

	// What is plugged in is there after the next start, and what was taken away is not.
	must(t, d.Stop(ctx, g.ID, 0))
	must(t, d.Start(ctx, g.ID))
	waitLog(t, d, g.ID, greetings(2))
	has(one)
	must(t, p.Plug(ctx, own))
	has(own)
	bad := own
	bad.NICs = []hypervisor.NIC{{MAC: "fa:16:3e:00:01:0f", Tap: "a/b"}}
	wantKind(t, p.Plug(ctx, bad), fault.Invalid)
	has(own)
}

// testPlugDeaf has a guest that does not let go of what is taken away.
func testPlugDeaf(t *testing.T, h Host) {
	d, g, ctx := h.Open(t), h.Deaf(t), testContext(t)
	p, ok := d.(hypervisor.Grower)
	if !ok {
		return
	}
	w := workshop(t, h)
	g.Disks = append(g.Disks, w.Disk(t))
	started(t, d, g)
	less := g
	less.Disks = g.Disks[:1]
	short, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	wantKind(t, p.Plug(short, less), fault.Conflict)
	wantPower(t, d, g.ID, hypervisor.Running)
	x, err := d.(hypervisor.Diagnoser).Diagnostics(ctx, g.ID)
	must(t, err)
	if len(x.Disks) != 2 {
		t.Errorf("the guest has %+v", x.Disks)
	}
	must(t, d.Ensure(ctx, less))
	must(t, d.Stop(ctx, g.ID, 0))
	must(t, d.Start(ctx, g.ID))
	x, err = d.(hypervisor.Diagnoser).Diagnostics(ctx, g.ID)
	must(t, err)
	if len(x.Disks) != 1 {
		t.Errorf("after a start the guest has %+v", x.Disks)
	}
}

func testGrow(t *testing.T, h Host) {
	d, g, ctx := h.Open(t), h.Guest(t), testContext(t)
	p, ok := d.(hypervisor.Grower)
	if !ok {
		return
	}
	w := workshop(t, h)
	const size = 3 << 20
	disk := w.Disk(t)
	g.Disks = append(g.Disks, disk)
	wantKind(t, p.Grow(ctx, g.ID, disk.Serial, size), fault.NotFound)
	define(t, d, g)
	wantKind(t, p.Grow(ctx, g.ID, disk.Serial, size), fault.Conflict)
	must(t, d.Start(ctx, g.ID))
	for range 2 {
		must(t, p.Grow(ctx, g.ID, disk.Serial, size))
		if got := w.Size(t, g.ID, disk); got != size {
			t.Errorf("the disk has %d bytes, want %d", got, size)
		}
	}
	wantKind(t, p.Grow(ctx, g.ID, "none", size), fault.NotFound)
}

func testCopyDisk(t *testing.T, h Host) {
	d, ctx := h.Open(t), testContext(t)
	c, ok := d.(hypervisor.Copier)
	if !ok {
		return
	}
	w := workshop(t, h)
	g := w.Busy(t)
	serial, dir := g.Disks[0].Serial, t.TempDir()
	wantKind(t, c.CopyDisk(ctx, g.ID, serial, filepath.Join(dir, "none"), hypervisor.QuiesceNever), fault.NotFound)
	define(t, d, g)
	wantKind(t, c.CopyDisk(ctx, g.ID, serial, filepath.Join(dir, "none"), hypervisor.QuiesceNever), fault.Conflict)
	must(t, d.Start(ctx, g.ID))
	waitLog(t, d, g.ID, greetings(1))
	wantKind(t, c.CopyDisk(ctx, g.ID, "other", filepath.Join(dir, "none"), hypervisor.QuiesceNever), fault.NotFound)
	for _, name := range []string{"one", "two", "three"} {
		path := filepath.Join(dir, name)
		must(t, c.CopyDisk(ctx, g.ID, serial, path, hypervisor.QuiesceTry))
		w.Whole(t, path)
		if err := c.CopyDisk(ctx, g.ID, serial, path, hypervisor.QuiesceTry); err == nil {
			t.Error("a copy has overwritten a file")
		}
	}
	wantPower(t, d, g.ID, hypervisor.Running)
	if p, ok := d.(hypervisor.Pauser); ok {
		must(t, p.Pause(ctx, g.ID))
		path := filepath.Join(dir, "paused")
		must(t, c.CopyDisk(ctx, g.ID, serial, path, hypervisor.QuiesceTry))
		w.Whole(t, path)
		wantPower(t, d, g.ID, hypervisor.Paused)
	}
}

func testDiagnostics(t *testing.T, h Host) {
	d, g, ctx := h.Open(t), h.Guest(t), testContext(t)
	x, ok := d.(hypervisor.Diagnoser)
	if !ok {
		return
	}
	w := workshop(t, h)
	_, err := x.Diagnostics(ctx, g.ID)
	wantKind(t, err, fault.NotFound)
	g.NICs = []hypervisor.NIC{{ID: NewID(), MAC: "fa:16:3e:00:02:01", Tap: w.Tap(t)}}
	define(t, d, g)
	_, err = x.Diagnostics(ctx, g.ID)
	wantKind(t, err, fault.Conflict)
	must(t, d.Start(ctx, g.ID))
	waitLog(t, d, g.ID, greetings(1))
	got, err := x.Diagnostics(ctx, g.ID)
	must(t, err)
	if got.Uptime <= 0 || len(got.CPUTime) != g.VCPUs || got.MemoryMiB != g.MemoryMiB ||
		len(got.Disks) != 1 || got.Disks[0].Serial != g.Disks[0].Serial || len(got.NICs) != 1 || got.NICs[0].MAC != g.NICs[0].MAC {
		t.Errorf("diagnostics %+v", got)
	}
}

// testSpecs has the extra specs that no guest can have refused in clear words, and unknown ones left alone.
func testSpecs(t *testing.T, h Host) {
	d, ctx := h.Open(t), testContext(t)
	for spec, bad := range map[string]string{
		"hw:cpu_cores": "many", "hw:cpu_threads": "3", "hw:cpu_policy": "mine", "hw:watchdog_action": "explode", "hw_disk_bus": "mfm",
		"hw_vif_model": "tin-can", "hw:mem_page_size": "7", "quota:cpu_shares": "-1", "quota:disk_read_iops_sec": "fast", "quota:vif_inbound_average": "x",
		"hw:numa_nodes": "3", "hw_machine_type": "pc", "hw:boot_menu": "maybe", "hw_qemu_guest_agent": "perhaps", "hw:cpu_max_cores": "0",
	} {
		g := h.Guest(t)
		g.VCPUs, g.Specs = 4, map[string]string{spec: bad}
		err := d.Ensure(ctx, g)
		wantKind(t, err, fault.Invalid)
		if text, _ := fault.Text(err); !strings.Contains(text, spec) || !strings.Contains(text, bad) {
			t.Errorf("%s=%s is refused with %q", spec, bad, text)
		}
	}
	own := h.Guest(t)
	own.Specs = map[string]string{"hw:cpu_policy": "dedicated"} // and it is given none
	wantKind(t, d.Ensure(ctx, own), fault.Invalid)
	g := h.Guest(t)
	g.VCPUs = 4
	g.Specs = map[string]string{
		"hw:cpu_sockets": "2", "hw:cpu_threads": "2", "hw:cpu_policy": "shared", "hw:watchdog_action": "reset", "hw:mem_page_size": "small",
		"quota:disk_total_iops_sec": "1000", "hw_rng:allowed": "False", "aggregate_instance_extra_specs:ssd": "true", "hw_qemu_guest_agent": "yes",
	}
	started(t, d, g)
}
