package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"yakumo/block"
	"yakumo/block/blocktest"
	"yakumo/block/files"
	"yakumo/block/rbd"
	"yakumo/block/rbd/rbdtest"
	"yakumo/channel/channeltest"
	"yakumo/hypervisor"
	"yakumo/hypervisor/fake"
	"yakumo/hypervisor/hypertest"
	"yakumo/hypervisor/libvirt"
	"yakumo/hypervisor/libvirt/libvirttest"
	"yakumo/model"
)

// sharing is a host of volumes, and the real hypervisor of its guests.
type sharing struct {
	*volumeHost
	agent  *running
	daemon *libvirttest.Daemon
	driver *libvirt.Driver
}

// TestRealGuestsOnSharedEngines: a guest boots from a volume that hosts share, and writes to it all the time: while it grows, while a snapshot is made,
// and while the guest moves to another host, by which nothing is copied. A second volume is plugged in there and taken away again. What it
// wrote is there when it is off.
func TestRealGuestsOnSharedEngines(t *testing.T) {
	daemons := [2]*libvirttest.Daemon{libvirttest.Start(t), libvirttest.Start(t)}
	folder, err := files.Open(files.Config{Dir: filepath.Join(t.TempDir(), "shared"), Shared: true})
	if err != nil {
		t.Fatal(err)
	}
	ceph, err := rbd.Open(rbdtest.StartAt(t, libvirttest.Reach(t, daemons[:]...)))
	if err != nil {
		t.Fatal(err)
	}
	// Agents here ask for an engine's room many times a second, and each answer is a process: this cluster has no manager that knows.
	engines := map[string]block.Engine{"nfs": folder, "rbd": struct{ block.Engine }{ceph}}
	ca := channeltest.NewAuthority(t)
	var hosts [2]sharing
	for i, daemon := range daemons {
		h := newVolumeHost(t, newWorld(t.TempDir(), fake.HostConfig{}), ca, t.TempDir())
		agent := h.begin(func(c *Config) { c.Engines = engines })
		defer agent.stop(t)
		driver, err := libvirt.New(libvirt.Config{SocketPath: daemon.Socket(), Accelerator: "tcg", GuestDir: daemon.Dir()})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { driver.Close() })
		hosts[i] = sharing{h, agent, daemon, driver}
	}
	for name, engine := range engines {
		t.Run(name, func(t *testing.T) { sharedGuest(t, name, engine, hosts[0], hosts[1]) })
	}
}

// guest gives a guest as a host's agent defines it.
func (s sharing) guest(t *testing.T, id string, volumes ...model.ID) hypervisor.Guest {
	t.Helper()
	g := hypervisor.Guest{ID: id, Name: "yk-" + id, VCPUs: 1, MemoryMiB: 32, ConsoleLog: filepath.Join(s.daemon.Dir(), "console-"+id),
		Emulator: os.Getenv("YAKUMO_EMULATOR")}
	for i, v := range volumes {
		d, err := s.agent.volumes.disk(t.Context(), "s", model.HostDisk{VolumeID: v})
		if err != nil {
			t.Fatal(err)
		}
		if s.agent.ownFile(id, d) || d.Network == nil && !d.Everywhere {
			t.Errorf("a guest that moves takes a copy of it along: %+v", d)
		}
		if i == 0 {
			d.BootOrder = 1
		}
		g.Disks = append(g.Disks, d)
	}
	return g
}

// writes waits until a guest has written since it came to this host, and tells how often.
func (s sharing) writes(t *testing.T, id string) uint32 {
	t.Helper()
	n := int64(0)
	waitFor(t, "the guest to write", func() bool {
		x, err := s.driver.Diagnostics(t.Context(), id)
		if err == nil && len(x.Disks) > 0 {
			n = int64(x.Disks[0].WriteRequests)
		}
		return n > 20
	})
	return uint32(n)
}

func sharedGuest(t *testing.T, name string, e block.Engine, from, to sharing) {
	disk := filepath.Join(t.TempDir(), "disk")
	libvirttest.Sector{Greeting: hypertest.Greeting, Counts: true}.WriteDisk(t, disk)
	row, data := volume(1), volume(1)
	for _, v := range []*model.HostVolume{row, data} {
		v.Engine, v.Guests = name, []model.ID{from.id, to.id}
		if err := e.Make(t.Context(), v.ID, 1<<30, block.Source{File: disk, Format: "raw"}); err != nil {
			t.Fatal(err)
		}
		from.tell(v)
		from.ready(v)
		to.tell(theirs(v, from.volumeHost))
	}
	id := hypertest.NewID()
	g := from.guest(t, id, row.ID)
	t.Cleanup(func() {
		if err := errors.Join(from.driver.Remove(context.Background(), id), to.driver.Remove(context.Background(), id)); err != nil {
			t.Error(err)
		}
	})
	if err := errors.Join(from.driver.Ensure(t.Context(), g), from.driver.Start(t.Context(), id)); err != nil {
		t.Fatal(err)
	}
	from.writes(t, id)
	at, err := e.Open(t.Context(), row.ID)
	if err != nil {
		t.Fatal(err)
	}
	// Nobody else opens a file to write to it. Ceph has no such lock: any writer gets an image's lock when it asks.
	locked := func() {
		t.Helper()
		if at.File != "" && blocktest.IO(t.Context(), at, "write 1M 512") == nil {
			t.Error("another one opened the guest's volume to write to it")
		}
	}
	locked()

	// It grows, and who has it open is told; a snapshot of an image in Ceph is of one moment.
	if name == "rbd" {
		snap := model.NewID()
		if err := errors.Join(e.Grow(t.Context(), row.ID, 2<<30), e.Snapshot(t.Context(), row.ID, snap)); err != nil {
			t.Error(err)
		}
		file := filepath.Join(t.TempDir(), "snapshot")
		if err := e.Export(t.Context(), row.ID, snap, "raw", file); err != nil {
			t.Fatal(err)
		}
		ofOneMoment(t, "a snapshot", block.Access{File: file, Format: "raw"})
	}
	if err := from.driver.Grow(t.Context(), id, row.ID, 2<<30); err != nil {
		t.Errorf("the guest does not see it grow: %v", err)
	}

	// It moves, and is nowhere twice.
	before := from.writes(t, id)
	twin := to.guest(t, id, row.ID)
	r, err := to.driver.Receive(t.Context(), twin)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := from.driver.Send(t.Context(), id, hypervisor.Passage{Guest: twin, Dial: func(ctx context.Context, kind string) (io.ReadWriteCloser, error) {
		if kind == "disks" {
			return nil, fmt.Errorf("a disk is copied that both hosts reach")
		}
		return r.Dial(ctx, kind)
	}}); err != nil {
		t.Fatal(err)
	}
	if l, err := from.driver.List(t.Context()); err != nil || len(l) > 0 {
		t.Errorf("where it was there is %+v, %v", l, err)
	}
	to.writes(t, id)
	locked()

	// Volumes come and go with it there.
	for _, disks := range [][]model.ID{{row.ID, data.ID}, {row.ID}} {
		waitFor(t, fmt.Sprintf("the guest to have %d disks", len(disks)), func() bool {
			err := to.driver.Plug(t.Context(), to.guest(t, id, disks...))
			if err != nil {
				t.Log(err)
			}
			return err == nil
		})
	}
	io1(t, opened(t, e, data.ID), "write -P 7 2M 64k", "read -P 7 2M 64k") // nobody has it any more

	after := to.writes(t, id)
	if err := to.driver.Stop(t.Context(), id, 0); err != nil {
		t.Fatal(err)
	}
	if n := ofOneMoment(t, "the volume", at); n < (before+after)/2-2 {
		t.Errorf("the volume holds the count %d; the guest wrote %d times here and %d times there", n, before, after)
	}
}

// opened gives how an engine's volume is opened.
func opened(t *testing.T, e block.Engine, id model.ID) block.Access {
	t.Helper()
	at, err := e.Open(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return at
}

// ofOneMoment checks the two numbers of a guest that counts, and gives the first.
func ofOneMoment(t *testing.T, what string, at block.Access) uint32 {
	t.Helper()
	first, second := number(t, at, libvirttest.CountFirst), number(t, at, libvirttest.CountSecond)
	if first == 0 || first != second && first != second+1 {
		t.Errorf("%s holds the counts %d and %d, which are of no one moment", what, first, second)
	}
	return first
}
