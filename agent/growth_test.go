package agent

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"yakumo/block"
	"yakumo/block/blocktest"
	"yakumo/channel/channeltest"
	"yakumo/fault"
	"yakumo/hypervisor"
	"yakumo/hypervisor/fake"
	"yakumo/hypervisor/hypertest"
	"yakumo/hypervisor/libvirt"
	"yakumo/hypervisor/libvirt/libvirttest"
	"yakumo/model"
)

// TestVolumeGrowsUnderItsGuest: a guest sees the new size of a volume of its own host, and one whose agent died while the guest was held goes on.
func TestVolumeGrowsUnderItsGuest(t *testing.T) {
	h := newVolumeHost(t, newWorld(t.TempDir(), fake.HostConfig{}), channeltest.NewAuthority(t), t.TempDir())
	r := h.begin(nil)
	c := newCloud(h.side)
	s, p := c.server()
	row := volume(1)
	row.Guests = []model.ID{h.id}
	s.Volumes = []model.HostDisk{{VolumeID: row.ID}}
	h.tell(append(c.base(), s, p, row)...)
	h.ready(row)
	waitFor(t, "the guest to run", func() bool { return h.power(t, s.ID) == hypervisor.Running })
	io1(t, h.disk(r, row.ID), "write -P 3 0 1M", "flush")
	row = bump(row, func(n *model.HostVolume) { n.SizeGiB = 2 })
	h.tell(row)
	h.ready(row)
	sees := func(gib int64) {
		t.Helper()
		waitFor(t, "the guest to see the size, and to run", func() bool {
			return h.host.Size(s.ID, row.ID) == gib<<30 && h.power(t, s.ID) == hypervisor.Running
		})
	}
	sees(2)
	io1(t, h.disk(r, row.ID), "read -P 3 0 1M", "read -P 0 2047M 1M")

	// The agent dies when it has asked for the guest to be held.
	r.stop(t)
	if err := fake.New(fake.Config{Host: h.host}).Pause(t.Context(), s.ID); err != nil {
		t.Fatal(err)
	}
	l, err := openLedger(filepath.Join(h.dir, "ledger.db"))
	if err != nil {
		t.Fatal(err)
	}
	progress, _ := l.progressOf(s.ID)
	progress.Reopening = true
	if err := errors.Join(l.save(s.ID, &progress), l.close()); err != nil {
		t.Fatal(err)
	}
	r = h.begin(nil)
	defer r.stop(t)
	row = bump(row, func(n *model.HostVolume) { n.SizeGiB = 3 })
	h.tell(row)
	h.ready(row)
	sees(3)
	waitFor(t, "the hold to be forgotten", func() bool { p, _ := r.ledger.progressOf(s.ID); return !p.Reopening })
}

// TestRealGuestsSeeVolumesGrow: a guest that writes all the time to a volume of its own host, and one to a volume of another, go on while it grows.
func TestRealGuestsSeeVolumesGrow(t *testing.T) {
	owner, user := twoHosts(t)
	a, b := owner.begin(nil), user.begin(nil)
	defer a.stop(t)
	defer b.stop(t)
	daemon := libvirttest.Start(t)
	driver, err := libvirt.New(libvirt.Config{SocketPath: daemon.Socket(), Accelerator: "tcg", GuestDir: daemon.Dir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { driver.Close() })
	// Made before the host is told anything, as what it has no row of goes then.
	disk := filepath.Join(t.TempDir(), "disk")
	libvirttest.Sector{Greeting: hypertest.Greeting, Counts: true}.WriteDisk(t, disk)
	rows := []*model.HostVolume{volume(1), volume(1)}
	for _, row := range rows {
		if err := owner.engine().Make(t.Context(), row.ID, 1<<30, block.Source{File: disk, Format: "raw"}); err != nil {
			t.Fatal(err)
		}
		owner.rows[row.RowID()] = row
	}
	for i, where := range []struct {
		name string
		host *volumeHost
		r    *running
	}{{"its own host", owner, a}, {"another host", user, b}} {
		t.Run(where.name, func(t *testing.T) {
			row := rows[i]
			row.Guests = []model.ID{where.host.id}
			owner.tell(row)
			owner.ready(row)
			known := func() *model.HostVolume { // as the guest's host is told of it
				if where.host == owner {
					return row
				}
				user.tell(theirs(row, owner))
				return theirs(row, owner)
			}
			known()
			d, err := where.r.volumes.disk(t.Context(), "s", model.HostDisk{VolumeID: row.ID})
			if err != nil {
				t.Fatal(err)
			}
			d.BootOrder = 1
			id := hypertest.NewID()
			log := filepath.Join(daemon.Dir(), "console-"+id)
			g := hypervisor.Guest{ID: id, Name: "yk-" + id, VCPUs: 1, MemoryMiB: 32, Disks: []hypervisor.Disk{d}, ConsoleLog: log}
			if err := errors.Join(driver.Ensure(t.Context(), g), driver.Start(t.Context(), id)); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := driver.Remove(context.Background(), id); err != nil {
					t.Error(err)
				}
			})
			grows := func(while string) {
				t.Helper()
				var from uint32
				waitFor(t, "the guest to count "+while, func() bool {
					now := counted(t, owner.disk(a, row.ID))
					if from == 0 {
						from = now
					}
					return from != 0 && now > from+20
				})
			}
			grows("at first")
			row = bump(row, func(n *model.HostVolume) { n.SizeGiB = 2 })
			if where.host != owner {
				owner.tell(row)
				owner.ready(row)
				grows("while its volume's host has more than its own knows")
			}
			v := known()
			died := errors.New("the agent died")
			if err := driver.Reopen(t.Context(), id, row.ID, 2<<30, func(context.Context) error { return died }); !errors.Is(err, died) {
				t.Fatalf("a change that fails gives %v", err)
			}
			power := func() hypervisor.Power {
				t.Helper()
				list, err := driver.List(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				for _, s := range list {
					if s.ID == id {
						return s.Power
					}
				}
				return hypervisor.Absent
			}
			if p := power(); p != hypervisor.Paused {
				t.Errorf("without a disk the guest is %v", p)
			}
			if err := driver.Reopen(t.Context(), id, row.ID, 2<<30, func(ctx context.Context) error { return where.r.keeper.exchange(ctx, v) }); err != nil {
				t.Fatal(err)
			}
			if err := driver.Start(t.Context(), id); err != nil {
				t.Fatal(err)
			}
			grows("after its volume has grown")
			row = bump(row, func(n *model.HostVolume) { n.SizeGiB = 3 })
			if where.host != owner {
				owner.tell(row)
				owner.ready(row)
			}
			v = known()
			if err := driver.Reopen(t.Context(), id, row.ID, 3<<30, func(ctx context.Context) error { return where.r.keeper.exchange(ctx, v) }); err != nil {
				t.Fatal(err)
			}
			grows("after its volume has grown in one go")
			// It knows, so nothing is done to it.
			if err := driver.Reopen(t.Context(), id, row.ID, 3<<30, func(context.Context) error { return died }); err != nil {
				t.Errorf("a guest that sees the size is held: %v", err)
			}
			if err := driver.Reopen(t.Context(), id, model.NewID(), 3<<30, nil); !fault.Is(err, fault.NotFound) {
				t.Errorf("another disk gives %v", err)
			}
			said, err := os.ReadFile(log)
			if p := power(); err != nil || p != hypervisor.Running || strings.Count(string(said), hypertest.Greeting) != 1 || strings.Contains(strings.ToLower(string(said)), "error") {
				t.Errorf("the guest is %v and said %q, %v", p, said, err)
			}
		})
	}
}

// TestRootVolumeIsFilledAnew: the guest of a server that is rebuilt lets go of the volume that it boots from, which is filled then, and has it again after that.
func TestRootVolumeIsFilledAnew(t *testing.T) {
	h := newVolumeHost(t, newWorld(t.TempDir(), fake.HostConfig{}), channeltest.NewAuthority(t), t.TempDir())
	r := h.begin(nil)
	defer func() { r.stop(t) }()
	c := newCloud(h.side)
	s, p := c.server()
	row := volume(1)
	row.Guests, row.Image = []model.ID{h.id}, &c.image
	s.Volumes = []model.HostDisk{{VolumeID: row.ID, Boot: true}}
	h.tell(append(c.base(), s, p, row)...)
	h.ready(row)
	waitFor(t, "the guest to run", func() bool { return h.power(t, s.ID) == hypervisor.Running })
	if _, err := os.Stat(r.dir(s.ID)); err != nil {
		t.Errorf("the guest has no folder: %v", err)
	}
	io1(t, h.disk(r, row.ID), "write -P 9 0 1M", "flush")

	again := *s
	again.Generation, again.Rebuilds = s.Generation+1, 1
	again.Volumes = []model.HostDisk{{VolumeID: row.ID, Boot: true, Wait: true}}
	row = bump(row, func(n *model.HostVolume) { n.Fills = 1 })
	h.tell(&again, row)
	waitFor(t, "the guest to be off, and this to be told", func() bool {
		p, _ := r.ledger.progressOf(s.ID)
		return p.Rebuilds == 1 && h.power(t, s.ID) == hypervisor.Off
	})
	r.stop(t) // whoever comes after goes on
	r = h.begin(nil)
	free := *row
	free.Guests = nil
	h.tell(&free)
	h.ready(&free)
	if power := h.power(t, s.ID); power != hypervisor.Off {
		t.Errorf("before it is told that its volume is filled the guest is %v", power)
	}
	back := again
	back.Volumes = []model.HostDisk{{VolumeID: row.ID, Boot: true}}
	h.tell(&back, row)
	waitFor(t, "the guest to run again", func() bool { return h.power(t, s.ID) == hypervisor.Running })
	io1(t, h.disk(r, row.ID), "read -P 0 1M 1M")
	if err := blocktest.IO(t.Context(), h.disk(r, row.ID), "read -P 9 0 4k"); err == nil {
		t.Error("the volume holds what it held before")
	}

	// One that cannot be filled is its server's fault.
	bad := back
	bad.Generation, bad.Rebuilds = back.Generation+1, 2
	bad.Volumes = []model.HostDisk{{VolumeID: row.ID, Boot: true, Wait: true, Failed: true}}
	h.tell(&bad)
	waitFor(t, "the fault to be told", func() bool {
		p, _ := r.ledger.progressOf(s.ID)
		return p.Phase == model.PhaseError && p.Fault != nil && strings.Contains(p.Fault.Message, "could not be filled")
	})
}
