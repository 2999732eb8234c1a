// Package hypertest is the conformance suite of hypervisor drivers: what the seam's words
// promise, run on every driver. A driver's test calls Run with a Host made for the test.
//
// It owns no state, and imports hypervisor and fault only.
package hypertest

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"yakumo/fault"
	"yakumo/hypervisor"
)

// Greeting is what the suite's guest writes to its console at each start and reset.
const Greeting = "guest is up\r\n"

// Host is the place that a driver is tested on. Its functions fail the test when they cannot
// do what they are named for.
type Host interface {
	// Open gives another driver on the host, as an agent that is restarted makes one. It is
	// closed when the test that asked for it ends.
	Open(t *testing.T) hypervisor.Driver
	// Guest gives a guest, new in all respects, that boots at once, writes Greeting to its
	// console, echoes what the console sends, and shuts down at its power button.
	Guest(t *testing.T) hypervisor.Guest
	// Broken gives a guest that Ensure takes and that Start fails on.
	Broken(t *testing.T) hypervisor.Guest
	// Deaf gives a guest like Guest that ignores its power button, and that lets go of no device.
	Deaf(t *testing.T) hypervisor.Guest
	// Crash kills what runs the guest.
	Crash(t *testing.T, id string)
	// KillDaemon kills the hypervisor daemon (not the guests); StartDaemon brings it back.
	KillDaemon(t *testing.T)
	StartDaemon(t *testing.T)
	// Foreign makes a guest that is not ours run on the host, and gives its ID and whether it
	// still runs. ok is false for a host that cannot have one.
	Foreign(t *testing.T) (id string, runs func() bool, ok bool)
}

// Deadline is how long the suite waits for anything; a guest under software emulation on a
// busy machine takes a few seconds to boot.
const Deadline = 2 * time.Minute

// Run runs the suite.
func Run(t *testing.T, h Host) {
	for _, c := range []struct {
		name string
		run  func(*testing.T, Host)
	}{
		{"Capacity", testCapacity},
		{"Life", testLife},
		{"EnsureChanges", testEnsureChanges},
		{"UnknownIDs", testUnknownIDs},
		{"Invalid", testInvalid},
		{"StartFails", testStartFails},
		{"Shutdown", testShutdown},
		{"PowerCut", testPowerCut},
		{"Crash", testCrash},
		{"ConsoleLog", testConsoleLog},
		{"Console", testConsole},
		{"Display", testDisplay},
		{"Restart", testRestart},
		{"Foreign", testForeign},
		{"Concurrent", testConcurrent},
		{"Cancelled", testCancelled},
		{"DaemonDies", testDaemonDies},
		{"DiesUnseen", testDiesUnseen},
		{"Pause", testPause},
		{"Suspend", testSuspend},
		{"Plug", testPlug},
		{"PlugDeaf", testPlugDeaf},
		{"Grow", testGrow},
		{"CopyDisk", testCopyDisk},
		{"Mirror", testMirror},
		{"Diagnostics", testDiagnostics},
		{"Specs", testSpecs},
	} {
		t.Run(c.name, func(t *testing.T) { c.run(t, h) })
	}
}

// NewID gives a random UUID (RFC 9562, version 4).
func NewID() string {
	var b [16]byte
	rand.Read(b[:])
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

func testContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), Deadline)
	t.Cleanup(cancel)
	return ctx
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantKind(t *testing.T, err error, kind fault.Kind) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want kind %v", kind)
	}
	if !fault.Is(err, kind) {
		t.Fatalf("error %q is of kind %v, want %v", err, fault.KindOf(err), kind)
	}
}

// stateOf gives the guest's state by List, with power Absent where it is not listed.
func stateOf(t *testing.T, d hypervisor.Driver, id string) hypervisor.State {
	t.Helper()
	states, err := d.List(testContext(t))
	must(t, err)
	if !slices.IsSortedFunc(states, func(a, b hypervisor.State) int { return strings.Compare(a.ID, b.ID) }) {
		t.Errorf("List is not in the order of the IDs: %v", states)
	}
	for _, s := range states {
		if s.ID == id {
			if s.Since.IsZero() || time.Since(s.Since) < 0 {
				t.Errorf("guest is %v since %v", s.Power, s.Since)
			}
			return s
		}
	}
	return hypervisor.State{ID: id}
}

func wantPower(t *testing.T, d hypervisor.Driver, id string, want hypervisor.Power) {
	t.Helper()
	if got := stateOf(t, d, id); got.Power != want {
		t.Fatalf("guest is %v (%s), want %v", got.Power, got.Reason, want)
	}
}

// waitPower reads ch until the guest has the power.
func waitPower(t *testing.T, ch <-chan hypervisor.State, id string, want hypervisor.Power) hypervisor.State {
	t.Helper()
	late := time.After(Deadline)
	var last hypervisor.State
	for {
		select {
		case s, ok := <-ch:
			if !ok {
				t.Fatalf("the watch ended before the guest was %v; last seen: %+v", want, last)
			}
			if s.ID != id {
				continue
			}
			if last = s; s.Power == want {
				return s
			}
		case <-late:
			t.Fatalf("the guest did not become %v; last seen: %+v", want, last)
		}
	}
}

// define ensures g and removes it when the test ends.
func define(t *testing.T, d hypervisor.Driver, g hypervisor.Guest) {
	t.Helper()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), Deadline)
		defer cancel()
		if err := d.Remove(ctx, g.ID); err != nil {
			t.Errorf("clean up: %v", err)
		}
	})
	must(t, d.Ensure(testContext(t), g))
}

// waitLog waits until the guest's console log satisfies done.
func waitLog(t *testing.T, d hypervisor.Driver, id string, done func([]byte) bool) []byte {
	t.Helper()
	ctx := testContext(t)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		log, err := d.(hypervisor.Consoler).ConsoleLog(ctx, id, 0)
		if ctx.Err() != nil {
			t.Fatalf("the console log did not come to what it should; it is %q", log)
		}
		must(t, err)
		if done(log) {
			return log
		}
		<-tick.C
	}
}

func greetings(n int) func([]byte) bool {
	return func(log []byte) bool { return bytes.Count(log, []byte(strings.TrimSpace(Greeting))) >= n }
}

func testCapacity(t *testing.T, h Host) {
	c, err := h.Open(t).Capacity(testContext(t))
	must(t, err)
	if c.VCPUs < 1 || c.MemoryMiB < 1 || c.Hostname == "" || c.Arch == "" || c.HypervisorType == "" || c.HypervisorVersion < 1 {
		t.Errorf("the capacity lacks something: %+v", c)
	}
	if c.Accelerator != "kvm" && c.Accelerator != "tcg" && (c.Accelerator != "" || c.HypervisorType != "LXC") {
		t.Errorf("the accelerator is %q", c.Accelerator)
	}
	if c.Cells < 1 || c.Cells*c.Sockets*c.Cores*c.Threads < 1 {
		t.Errorf("the topology is %d cells of %d sockets of %d cores of %d threads", c.Cells, c.Sockets, c.Cores, c.Threads)
	}
	if !slices.IsSorted(c.CPUFeatures) {
		t.Errorf("the features are not sorted: %v", c.CPUFeatures)
	}
}

func testLife(t *testing.T, h Host) {
	d, g, ctx := h.Open(t), h.Guest(t), testContext(t)
	watch, err := d.Watch(ctx)
	must(t, err)
	define(t, d, g)
	must(t, d.Ensure(ctx, g))
	wantPower(t, d, g.ID, hypervisor.Off)
	must(t, d.Stop(ctx, g.ID, 0))

	must(t, d.Start(ctx, g.ID))
	wantPower(t, d, g.ID, hypervisor.Running)
	waitPower(t, watch, g.ID, hypervisor.Running)
	must(t, d.Start(ctx, g.ID))
	must(t, d.Ensure(ctx, g))
	waitLog(t, d, g.ID, greetings(1))

	must(t, d.Reset(ctx, g.ID))
	waitLog(t, d, g.ID, greetings(2))
	wantPower(t, d, g.ID, hypervisor.Running)

	must(t, d.Stop(ctx, g.ID, 0))
	wantPower(t, d, g.ID, hypervisor.Off)
	waitPower(t, watch, g.ID, hypervisor.Off)
	must(t, d.Stop(ctx, g.ID, time.Minute))

	must(t, d.Start(ctx, g.ID))
	waitPower(t, watch, g.ID, hypervisor.Running)
	must(t, d.Remove(ctx, g.ID)) // of a running guest
	waitPower(t, watch, g.ID, hypervisor.Absent)
	wantPower(t, d, g.ID, hypervisor.Absent)
	must(t, d.Remove(ctx, g.ID))
	must(t, d.Ensure(ctx, g)) // the same ID and name again
	wantPower(t, d, g.ID, hypervisor.Off)
}

func testEnsureChanges(t *testing.T, h Host) {
	d, g, ctx := h.Open(t), h.Guest(t), testContext(t)
	define(t, d, g)
	g.Title, g.VCPUs, g.MemoryMiB = "Another <title> & \"more\"", 2, g.MemoryMiB+16
	must(t, d.Ensure(ctx, g))
	wantPower(t, d, g.ID, hypervisor.Off)
	must(t, d.Start(ctx, g.ID))
	waitLog(t, d, g.ID, greetings(1))
	g.MemoryMiB += 16
	must(t, d.Ensure(ctx, g)) // while it runs
	wantPower(t, d, g.ID, hypervisor.Running)
	must(t, d.Stop(ctx, g.ID, 0))
	must(t, d.Start(ctx, g.ID))
	waitLog(t, d, g.ID, greetings(2))

	other := h.Guest(t)
	other.Name = g.Name
	wantKind(t, d.Ensure(ctx, other), fault.Conflict)
	wantPower(t, d, other.ID, hypervisor.Absent)
}

func testUnknownIDs(t *testing.T, h Host) {
	d, ctx, id := h.Open(t), testContext(t), NewID()
	c := d.(hypervisor.Consoler)
	for _, id := range []string{id, "", "no-uuid", strings.ToUpper(id)} {
		for name, call := range map[string]func() error{
			"Start":      func() error { return d.Start(ctx, id) },
			"Stop":       func() error { return d.Stop(ctx, id, time.Minute) },
			"Stop at 0":  func() error { return d.Stop(ctx, id, 0) },
			"Reset":      func() error { return d.Reset(ctx, id) },
			"ConsoleLog": func() error { _, err := c.ConsoleLog(ctx, id, 10); return err },
			"Console":    func() error { _, err := c.Console(ctx, id); return err },
		} {
			if err := call(); !fault.Is(err, fault.NotFound) {
				t.Errorf("%s of %q: %v, want NotFound", name, id, err)
			}
		}
		if err := d.Remove(ctx, id); err != nil {
			t.Errorf("Remove of %q: %v", id, err)
		}
	}
	g := h.Guest(t)
	define(t, d, g)
	wantKind(t, d.Reset(ctx, g.ID), fault.Conflict)
	_, err := c.Console(ctx, g.ID)
	wantKind(t, err, fault.Conflict)
	log, err := c.ConsoleLog(ctx, g.ID, 10)
	if err != nil || len(log) != 0 {
		t.Errorf("the log of a guest that never ran: %q, %v", log, err)
	}
}

func testInvalid(t *testing.T, h Host) {
	d, ctx := h.Open(t), testContext(t)
	for name, spoil := range map[string]func(*hypervisor.Guest){
		"id":     func(g *hypervisor.Guest) { g.ID = "x" },
		"name":   func(g *hypervisor.Guest) { g.Name = "" },
		"vcpus":  func(g *hypervisor.Guest) { g.VCPUs = 0 },
		"memory": func(g *hypervisor.Guest) { g.MemoryMiB = -1 },
		"path":   func(g *hypervisor.Guest) { g.Disks[0].Path = "../etc/passwd" },
		"format": func(g *hypervisor.Guest) { g.Disks[0].Format = "vmdk" },
		"mac":    func(g *hypervisor.Guest) { g.NICs = []hypervisor.NIC{{MAC: "01:00:00:00:00:01", Tap: "t0"}} },
		"tap":    func(g *hypervisor.Guest) { g.NICs = []hypervisor.NIC{{MAC: "02:00:00:00:00:01", Tap: "a/b"}} },
		"title":  func(g *hypervisor.Guest) { g.Title = "a\x00b" },
	} {
		g := h.Guest(t)
		spoil(&g)
		if err := d.Ensure(ctx, g); !fault.Is(err, fault.Invalid) {
			t.Errorf("a guest with a bad %s: %v, want Invalid", name, err)
		}
		wantPower(t, d, g.ID, hypervisor.Absent)
	}
}

func testStartFails(t *testing.T, h Host) {
	d, g, ctx := h.Open(t), h.Broken(t), testContext(t)
	define(t, d, g)
	err := d.Start(ctx, g.ID)
	if err == nil {
		t.Fatal("a broken guest started")
	}
	if !strings.Contains(err.Error(), g.ID) || len(err.Error()) < len(g.ID)+20 {
		t.Errorf("the error %q does not say which guest and why", err)
	}
	wantPower(t, d, g.ID, hypervisor.Off)
	must(t, d.Remove(ctx, g.ID))
}

func testShutdown(t *testing.T, h Host) {
	d, g, ctx := h.Open(t), h.Guest(t), testContext(t)
	watch, err := d.Watch(ctx)
	must(t, err)
	define(t, d, g)
	must(t, d.Start(ctx, g.ID))
	waitLog(t, d, g.ID, greetings(1))
	must(t, d.Stop(ctx, g.ID, Deadline))
	wantPower(t, d, g.ID, hypervisor.Off)
	if s := waitPower(t, watch, g.ID, hypervisor.Off); s.Reason != "" && s.Reason != "shut down" {
		// the first Off may be of Ensure, then the next one counts
		t.Errorf("the reason is %q, want shut down", s.Reason)
	}
	if s := stateOf(t, d, g.ID); s.Reason != "shut down" {
		t.Errorf("the reason is %q, want shut down", s.Reason)
	}
}

func testPowerCut(t *testing.T, h Host) {
	d, g, ctx := h.Open(t), h.Deaf(t), testContext(t)
	define(t, d, g)
	must(t, d.Start(ctx, g.ID))
	waitLog(t, d, g.ID, greetings(1))

	short, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	if err := d.Stop(short, g.ID, Deadline); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("Stop beyond its context: %v", err)
	}
	wantPower(t, d, g.ID, hypervisor.Running)

	begin, grace := time.Now(), 300*time.Millisecond
	must(t, d.Stop(ctx, g.ID, grace))
	if took := time.Since(begin); took < grace {
		t.Errorf("the power was cut after %v, before the grace of %v", took, grace)
	}
	wantPower(t, d, g.ID, hypervisor.Off)
}

func testCrash(t *testing.T, h Host) {
	d, g, ctx := h.Open(t), h.Guest(t), testContext(t)
	watch, err := d.Watch(ctx)
	must(t, err)
	define(t, d, g)
	must(t, d.Start(ctx, g.ID))
	waitPower(t, watch, g.ID, hypervisor.Running)
	h.Crash(t, g.ID)
	waitPower(t, watch, g.ID, hypervisor.Crashed)
	wantPower(t, d, g.ID, hypervisor.Crashed)
	must(t, d.Stop(ctx, g.ID, time.Minute)) // off already
	must(t, d.Start(ctx, g.ID))
	waitPower(t, watch, g.ID, hypervisor.Running)
	wantPower(t, d, g.ID, hypervisor.Running)
}

func testConsoleLog(t *testing.T, h Host) {
	d, g, ctx := h.Open(t), h.Guest(t), testContext(t)
	c := d.(hypervisor.Consoler)
	g.ConsoleLogBytes = 2 << 10
	define(t, d, g)
	must(t, d.Start(ctx, g.ID))
	log := waitLog(t, d, g.ID, greetings(1))
	if !bytes.Contains(log, []byte(Greeting)) {
		t.Errorf("the log %q lacks the greeting %q", log, Greeting)
	}
	tail, err := c.ConsoleLog(ctx, g.ID, 5)
	must(t, err)
	if want := log[len(log)-5:]; !bytes.Equal(tail, want) {
		t.Errorf("the last 5 bytes are %q, want %q", tail, want)
	}

	con := console(t, ctx, c, g.ID)
	line := []byte(strings.Repeat("0123456789abcde\n", 8))
	for range 3 * int(g.ConsoleLogBytes) / len(line) {
		must(t, write(con, line))
		must(t, expect(con, line))
	}
	last := []byte("the last line\n")
	must(t, write(con, last))
	log = waitLog(t, d, g.ID, func(log []byte) bool { return bytes.HasSuffix(log, last) })
	if int64(len(log)) > g.ConsoleLogBytes || int64(len(log)) < g.ConsoleLogBytes/2 {
		t.Errorf("%d bytes of log are kept, the bound is %d", len(log), g.ConsoleLogBytes)
	}
	if bytes.ContainsRune(log, 0) {
		t.Error("the log has zero bytes where it was cut")
	}
	must(t, d.Stop(ctx, g.ID, 0))
	waitLog(t, d, g.ID, func(log []byte) bool { return bytes.HasSuffix(log, last) }) // outlives a stop
}

// console opens the guest's console, and closes it at the latest when the deadline is over, so
// that no read waits for ever.
func console(t *testing.T, ctx context.Context, c hypervisor.Consoler, id string) io.ReadWriteCloser {
	t.Helper()
	con, err := c.Console(ctx, id)
	must(t, err)
	late := time.AfterFunc(Deadline, func() { con.Close() })
	t.Cleanup(func() {
		late.Stop()
		con.Close()
	})
	return con
}

func write(w io.Writer, p []byte) error {
	if n, err := w.Write(p); err != nil || n != len(p) {
		return fmt.Errorf("wrote %d of %d bytes: %w", n, len(p), err)
	}
	return nil
}

// expect reads r until want has come.
func expect(r io.Reader, want []byte) error {
	var got []byte
	buf := make([]byte, 4096)
	for !bytes.Contains(got, want) {
		n, err := r.Read(buf)
		if got = append(got, buf[:n]...); err != nil {
			return fmt.Errorf("read %q: %w", got, err)
		}
	}
	return nil
}

func testConsole(t *testing.T, h Host) {
	d, g, ctx := h.Open(t), h.Guest(t), testContext(t)
	c := d.(hypervisor.Consoler)
	define(t, d, g)
	must(t, d.Start(ctx, g.ID))
	waitLog(t, d, g.ID, greetings(1))

	short, cancel := context.WithCancel(ctx)
	con := console(t, short, c, g.ID)
	cancel() // a console outlives the context that it was opened with
	must(t, write(con, []byte("hello\n")))
	must(t, expect(con, []byte("hello\n")))
	_, err := c.Console(ctx, g.ID)
	wantKind(t, err, fault.Conflict)
	must(t, con.Close())
	if _, err := con.Write([]byte("x")); err == nil {
		t.Error("a closed console can be written to")
	}

	con = console(t, ctx, c, g.ID)
	must(t, write(con, []byte("again\n")))
	must(t, expect(con, []byte("again\n")))
	must(t, d.Stop(ctx, g.ID, 0))
	if rest, err := io.ReadAll(con); err != nil {
		t.Errorf("a stopped guest's console ends with %q, %v, want io.EOF", rest, err)
	}
}

func testRestart(t *testing.T, h Host) {
	d, on, off, ctx := h.Open(t), h.Guest(t), h.Guest(t), testContext(t)
	define(t, d, on)
	define(t, d, off)
	must(t, d.Start(ctx, on.ID))
	waitLog(t, d, on.ID, greetings(1))

	again := h.Open(t)
	wantPower(t, again, on.ID, hypervisor.Running)
	wantPower(t, again, off.ID, hypervisor.Off)
	must(t, again.Ensure(ctx, on))
	watch, err := again.Watch(ctx)
	must(t, err)
	must(t, again.Stop(ctx, on.ID, Deadline))
	waitPower(t, watch, on.ID, hypervisor.Off)
	wantPower(t, d, on.ID, hypervisor.Off) // the older driver sees the same host
}

func testForeign(t *testing.T, h Host) {
	id, runs, ok := h.Foreign(t)
	if !ok {
		return
	}
	d, ctx := h.Open(t), testContext(t)
	c := d.(hypervisor.Consoler)
	wantPower(t, d, id, hypervisor.Absent)
	must(t, d.Remove(ctx, id))
	wantKind(t, d.Start(ctx, id), fault.NotFound)
	wantKind(t, d.Stop(ctx, id, 0), fault.NotFound)
	wantKind(t, d.Reset(ctx, id), fault.NotFound)
	_, err := c.ConsoleLog(ctx, id, 0)
	wantKind(t, err, fault.NotFound)
	_, err = c.Console(ctx, id)
	wantKind(t, err, fault.NotFound)
	g := h.Guest(t)
	g.ID, g.Name = id, "yk-"+id
	wantKind(t, d.Ensure(ctx, g), fault.Conflict)
	if !runs() {
		t.Error("the foreign guest was stopped")
	}
}

// testConcurrent has many guests that are defined and removed at once, and one that many start
// and stop at once.
func testConcurrent(t *testing.T, h Host) {
	d, one, ctx := h.Open(t), h.Guest(t), testContext(t)
	define(t, d, one)
	var all sync.WaitGroup
	for range 8 {
		g := h.Guest(t)
		all.Go(func() {
			for _, call := range []func() error{
				func() error { return d.Ensure(ctx, g) },
				func() error { return d.Ensure(ctx, one) },
				func() error { return d.Start(ctx, one.ID) },
				func() error { _, err := d.List(ctx); return err },
				func() error { return d.Remove(ctx, g.ID) },
			} {
				if err := call(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	wantPower(t, d, one.ID, hypervisor.Running)
	for range 8 {
		all.Go(func() {
			if err := d.Stop(ctx, one.ID, 0); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	wantPower(t, d, one.ID, hypervisor.Off)
	for range 8 {
		all.Go(func() {
			if err := d.Remove(ctx, one.ID); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	wantPower(t, d, one.ID, hypervisor.Absent)
}

func testCancelled(t *testing.T, h Host) {
	d, g := h.Open(t), h.Guest(t)
	ctx, cancel := context.WithCancel(testContext(t))
	watch, err := d.Watch(ctx)
	must(t, err)
	cancel()
	waitClosed(t, watch)
	for name, call := range map[string]func() error{
		"Ensure": func() error { return d.Ensure(ctx, g) },
		"List":   func() error { _, err := d.List(ctx); return err },
		"Watch":  func() error { _, err := d.Watch(ctx); return err },
	} {
		if err := call(); !errors.Is(err, context.Canceled) {
			t.Errorf("%s with a cancelled context: %v", name, err)
		}
	}
	wantPower(t, d, g.ID, hypervisor.Absent)
}

func waitClosed(t *testing.T, ch <-chan hypervisor.State) {
	t.Helper()
	late := time.After(Deadline)
	for {
		select {
		case _, ok := <-ch:
			if !ok {
				return
			}
		case <-late:
			t.Fatal("the watch did not end")
		}
	}
}

func testDaemonDies(t *testing.T, h Host) {
	d, g, ctx := h.Open(t), h.Guest(t), testContext(t)
	define(t, d, g)
	must(t, d.Start(ctx, g.ID))
	waitLog(t, d, g.ID, greetings(1))
	watch, err := d.Watch(ctx)
	must(t, err)

	h.KillDaemon(t)
	waitClosed(t, watch)
	_, err = d.List(ctx)
	wantKind(t, err, fault.Unavailable)
	wantKind(t, d.Start(ctx, g.ID), fault.Unavailable)
	_, err = d.Watch(ctx)
	wantKind(t, err, fault.Unavailable)

	h.StartDaemon(t)
	wantPower(t, d, g.ID, hypervisor.Running)
	must(t, d.Ensure(ctx, g))
	watch, err = d.Watch(ctx)
	must(t, err)
	// It ran on: the power button still reaches it, and it greeted once only.
	must(t, d.Stop(ctx, g.ID, Deadline))
	waitPower(t, watch, g.ID, hypervisor.Off)
	if log := waitLog(t, d, g.ID, greetings(1)); greetings(2)(log) {
		t.Errorf("the guest started anew: %q", log)
	}
}

// testDiesUnseen has a guest die while the daemon is away.
func testDiesUnseen(t *testing.T, h Host) {
	d, g, ctx := h.Open(t), h.Guest(t), testContext(t)
	define(t, d, g)
	must(t, d.Start(ctx, g.ID))
	waitLog(t, d, g.ID, greetings(1))
	h.KillDaemon(t)
	h.Crash(t, g.ID)
	h.StartDaemon(t)
	// A daemon that has just come back may take a moment to see that the guest is dead, and tells
	// then: who watches and then lists misses nothing.
	watch, err := d.Watch(ctx)
	must(t, err)
	s := stateOf(t, d, g.ID)
	for s.Power == hypervisor.Running {
		next, ok := <-watch // ends with ctx
		if !ok {
			t.Fatalf("a guest that died is %v (%s)", s.Power, s.Reason)
		}
		if next.ID == g.ID {
			s = next
		}
	}
	if s.Power != hypervisor.Crashed && s.Power != hypervisor.Off {
		t.Errorf("a guest that died is %v (%s)", s.Power, s.Reason)
	}
	must(t, d.Start(ctx, g.ID))
	waitLog(t, d, g.ID, greetings(2))
	wantPower(t, d, g.ID, hypervisor.Running)
}
