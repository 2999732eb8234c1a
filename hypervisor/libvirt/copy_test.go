package libvirt_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"yakumo/hypervisor"
	"yakumo/hypervisor/hypertest"
	"yakumo/hypervisor/libvirt/libvirttest"
)

// TestCopyOfTheDead: a driver dies while it copies a running guest's disk, as its process does by kill -9, and cleans up nothing.
// The guest runs on from its own disk, and the next driver's copy is whole.
func TestCopyOfTheDead(t *testing.T) {
	t.Parallel() // its daemon is its own
	h := host{libvirttest.Start(t)}
	next, ctx := h.driver(t), t.Context()
	g := h.guest(t, libvirttest.Sector{Greeting: hypertest.Greeting, Counts: true})
	if err := errors.Join(next.Ensure(ctx, g), next.Start(ctx, g.ID)); err != nil {
		t.Fatal(err)
	}
	until(t, "the guest to count", func() bool {
		log, err := next.ConsoleLog(ctx, g.ID, 0)
		return err == nil && strings.Contains(string(log), hypertest.Greeting)
	})
	dir, serial := t.TempDir(), g.Disks[0].Serial
	const tries = 20 // one may be done before it is killed
	dead := 0
	for n := 0; dead < 3; n++ {
		if n == tries {
			t.Fatalf("of %d copies %d were killed", tries, dead)
		}
		path := filepath.Join(dir, hypertest.NewID())
		dies := h.driver(t)
		ended := make(chan error, 1)
		go func() { ended <- dies.CopyDisk(ctx, g.ID, serial, path, hypervisor.QuiesceTry) }()
		until(t, "a file of the copy", func() bool {
			_, err := os.Stat(path)
			return err == nil
		})
		if err := dies.Close(); err != nil {
			t.Fatal(err)
		}
		if err := <-ended; err == nil {
			continue
		}
		dead++
		if dead == 2 { // libvirtd dies too, and QEMU has the mirror still
			h.KillDaemon(t)
			h.StartDaemon(t)
		}
		again := filepath.Join(dir, hypertest.NewID())
		if err := next.CopyDisk(ctx, g.ID, serial, again, hypervisor.QuiesceTry); err != nil {
			t.Fatal(err)
		}
		h.Whole(t, again)
	}
	// The guest's disk is its own file, with what it wrote until now, and it starts from that.
	live, err := next.LiveDisk(ctx, g.ID, serial)
	if err != nil {
		t.Fatal(err)
	}
	if want := "file='" + g.Disks[0].Path + "'"; !strings.Contains(live, want) || strings.Contains(live, "<mirror") {
		t.Errorf("the guest's disk is %s, want %s and no mirror", live, want)
	}
	if err := errors.Join(next.Stop(ctx, g.ID, 0), next.Start(ctx, g.ID)); err != nil {
		t.Fatal(err)
	}
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	end := time.After(hypertest.Deadline)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-end:
			t.Fatalf("waited too long for %s", what)
		}
	}
}
