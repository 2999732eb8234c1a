package libvirt_test

import (
	"context"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"yakumo/hypervisor"
	"yakumo/hypervisor/hypertest"
	"yakumo/hypervisor/libvirt"
	"yakumo/hypervisor/libvirt/libvirttest"
)

// host is a private libvirtd as the suite wants it.
type host struct{ *libvirttest.Daemon }

func (h host) driver(t testing.TB) *libvirt.Driver {
	t.Helper()
	d, err := libvirt.New(libvirt.Config{SocketPath: h.Socket(), Accelerator: "tcg", GuestDir: h.Dir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func (h host) Open(t *testing.T) hypervisor.Driver { return h.driver(t) }

// guest gives a guest on a disk of its own.
func (h host) guest(t testing.TB, s libvirttest.Sector) hypervisor.Guest {
	t.Helper()
	id := hypertest.NewID()
	dir := filepath.Join(h.Dir(), "guests", id)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	disk := filepath.Join(dir, "disk")
	s.WriteDisk(t, disk)
	return hypervisor.Guest{
		ID: id, Name: "yk-" + id, Title: "a guest", Project: "a project", User: "a user",
		VCPUs: 1, MemoryMiB: 32,
		Disks:      []hypervisor.Disk{{Path: disk, Format: "raw", BootOrder: 1, Serial: id[:20]}},
		ConsoleLog: filepath.Join(dir, "console.log"),
	}
}

func (h host) Guest(t *testing.T) hypervisor.Guest {
	return h.guest(t, libvirttest.Sector{Greeting: hypertest.Greeting})
}

func (h host) Deaf(t *testing.T) hypervisor.Guest {
	return h.guest(t, libvirttest.Sector{Greeting: hypertest.Greeting, Deaf: true})
}

func (h host) Broken(t *testing.T) hypervisor.Guest {
	g := h.Guest(t)
	g.Disks[0].Path += ".missing"
	return g
}

func (h host) Crash(t *testing.T, id string) {
	t.Helper()
	if err := syscall.Kill(h.GuestPID(t, "yk-"+id), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
}

func (h host) KillDaemon(t *testing.T)  { h.Kill(t) }
func (h host) StartDaemon(t *testing.T) { h.Restart(t) }

// Foreign runs a guest that bears the name that one of ours would have.
func (h host) Foreign(t *testing.T) (string, func() bool, bool) {
	g := h.Guest(t)
	d := h.driver(t)
	if err := d.DefineForeign(t.Context(), g); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.RemoveForeign(context.Background(), g.ID); err != nil {
			t.Error(err)
		}
	})
	pid := h.GuestPID(t, g.Name)
	return g.ID, func() bool { return syscall.Kill(pid, 0) == nil }, true
}

func TestConformance(t *testing.T) {
	hypertest.Run(t, host{libvirttest.Start(t)})
}
