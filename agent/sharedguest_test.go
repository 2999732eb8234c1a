package agent

import (
	"context"
	"errors"
	"path/filepath"
	"testing"

	"yakumo/block"
	"yakumo/block/files"
	"yakumo/channel/channeltest"
	"yakumo/hypervisor"
	"yakumo/hypervisor/fake"
	"yakumo/hypervisor/hypertest"
	"yakumo/hypervisor/libvirt"
	"yakumo/hypervisor/libvirt/libvirttest"
	"yakumo/model"
)

// TestRealGuestOnASharedFolder: a guest boots from a volume in a folder that hosts share, and writes to it, also while it grows; what it wrote is there when it
// is off.
func TestRealGuestOnASharedFolder(t *testing.T) {
	folder, err := files.Open(files.Config{Dir: filepath.Join(t.TempDir(), "shared"), Shared: true})
	if err != nil {
		t.Fatal(err)
	}
	h := newVolumeHost(t, newWorld(t.TempDir(), fake.HostConfig{}), channeltest.NewAuthority(t), t.TempDir())
	r := h.begin(func(c *Config) { c.Engines = map[string]block.Engine{"nfs": folder} })
	defer r.stop(t)
	daemon := libvirttest.Start(t)
	driver, err := libvirt.New(libvirt.Config{SocketPath: daemon.Socket(), Accelerator: "tcg", GuestDir: daemon.Dir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { driver.Close() })
	disk := filepath.Join(t.TempDir(), "disk")
	libvirttest.Sector{Greeting: hypertest.Greeting, Counts: true}.WriteDisk(t, disk)
	row := volume(1)
	row.Engine, row.Guests = "nfs", []model.ID{h.id}
	if err := folder.Make(t.Context(), row.ID, 1<<30, block.Source{File: disk, Format: "raw"}); err != nil {
		t.Fatal(err)
	}
	h.tell(row)
	h.ready(row)
	d, err := r.volumes.disk(t.Context(), "s", model.HostDisk{VolumeID: row.ID})
	if err != nil {
		t.Fatal(err)
	}
	if d.Network == nil && !d.Everywhere {
		t.Errorf("a guest that moves takes a copy of it along: %+v", d)
	}
	d.BootOrder = 1
	id := hypertest.NewID()
	g := hypervisor.Guest{ID: id, Name: "yk-" + id, VCPUs: 1, MemoryMiB: 32, Disks: []hypervisor.Disk{d}, ConsoleLog: filepath.Join(daemon.Dir(), "console-"+id)}
	t.Cleanup(func() {
		if err := driver.Remove(context.Background(), id); err != nil {
			t.Error(err)
		}
	})
	if err := errors.Join(driver.Ensure(t.Context(), g), driver.Start(t.Context(), id)); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the guest to write", func() bool {
		x, err := driver.Diagnostics(t.Context(), id)
		return err == nil && len(x.Disks) == 1 && x.Disks[0].WriteRequests > 20
	})
	// QEMU, which has the file, makes it larger.
	if err := driver.Grow(t.Context(), id, row.ID, 2<<30); err != nil {
		t.Errorf("the guest does not see it grow: %v", err)
	}
	if err := driver.Stop(t.Context(), id, 0); err != nil {
		t.Fatal(err)
	}
	at, err := folder.Open(t.Context(), row.ID)
	if err != nil {
		t.Fatal(err)
	}
	if n := counted(t, at); n < 10 {
		t.Errorf("the volume holds the count %d", n)
	}
}
