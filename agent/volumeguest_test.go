package agent

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"yakumo/block"
	"yakumo/block/blocktest"
	"yakumo/hypervisor"
	"yakumo/hypervisor/hypertest"
	"yakumo/hypervisor/libvirt"
	"yakumo/hypervisor/libvirt/libvirttest"
	"yakumo/model"
)

var hexLine = regexp.MustCompile(`(?m)^[0-9a-f]{8,}:  ((?:[0-9a-f]{2} ){4})`)

// counted reads the number that a guest has written to its disk.
func counted(t testing.TB, a block.Access) uint32 {
	t.Helper()
	return number(t, a, libvirttest.CountFirst)
}

// number reads the number at the beginning of a sector.
func number(t testing.TB, a block.Access, sector int) uint32 {
	t.Helper()
	out, err := exec.Command("qemu-io", append(blocktest.Image(a), "-r", "-c", fmt.Sprintf("read -v %d 512", 512*sector))...).CombinedOutput()
	m := hexLine.FindSubmatch(out)
	if err != nil || m == nil {
		t.Fatalf("%v: %s", err, out)
	}
	b, err := hex.DecodeString(strings.ReplaceAll(string(m[1]), " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return binary.LittleEndian.Uint32(b)
}

// TestGuestOnAVolumeOfAnotherHost runs a real guest that writes all the time to a volume that another host has, while the agents of
// both hosts are started anew, and while a snapshot is made of it: it never sees an error.
func TestGuestOnAVolumeOfAnotherHost(t *testing.T) {
	owner, user := twoHosts(t)
	a, b := owner.begin(nil), user.begin(nil)
	defer func() { a.stop(t) }()
	defer func() { b.stop(t) }()
	disk := filepath.Join(t.TempDir(), "disk")
	libvirttest.Sector{Greeting: hypertest.Greeting, Counts: true}.WriteDisk(t, disk)
	row := volume(1)
	row.Guests = []model.ID{user.id}
	if err := owner.engine().Make(t.Context(), row.ID, 1<<30, block.Source{File: disk, Format: "raw"}); err != nil {
		t.Fatal(err)
	}
	owner.tell(row)
	owner.ready(row)
	user.tell(theirs(row, owner))
	d, err := b.volumes.disk(t.Context(), "s", model.HostDisk{VolumeID: row.ID})
	if err != nil {
		t.Fatal(err)
	}
	d.BootOrder = 1
	daemon := libvirttest.Start(t)
	driver, err := libvirt.New(libvirt.Config{SocketPath: daemon.Socket(), Accelerator: "tcg", GuestDir: daemon.Dir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { driver.Close() })
	id := hypertest.NewID()
	log := filepath.Join(daemon.Dir(), "console.log")
	g := hypervisor.Guest{ID: id, Name: "yk-" + id, VCPUs: 1, MemoryMiB: 32, Disks: []hypervisor.Disk{d}, ConsoleLog: log}
	if err := driver.Ensure(t.Context(), g); err != nil {
		t.Fatal(err)
	}
	if err := driver.Start(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := driver.Remove(context.Background(), id); err != nil {
			t.Error(err)
		}
	})
	direct := owner.disk(a, row.ID) // beside the guest's way
	grows := func(while string) {
		t.Helper()
		var from uint32
		waitFor(t, "the guest to count "+while, func() bool {
			now := counted(t, direct)
			if from == 0 {
				from = now
			}
			return from != 0 && now > from+20
		})
	}
	grows("at first")
	for range 2 {
		a.stop(t)
		a = owner.begin(nil)
		grows("after its volume's agent was started anew")
		b.stop(t)
		b = user.begin(nil)
		grows("after its own agent was started anew")
	}
	row = bump(row, func(n *model.HostVolume) { n.Snapshots = []model.HostSnapshot{{ID: model.NewID()}} })
	owner.tell(row)
	owner.ready(row)
	grows("after a snapshot of its volume")
	list, err := driver.List(t.Context())
	if err != nil || len(list) != 1 || list[0].Power != hypervisor.Running {
		t.Errorf("the guest is %+v, %v", list, err)
	}
	said, err := os.ReadFile(log)
	if err != nil || strings.Count(string(said), hypertest.Greeting) != 1 || strings.Contains(strings.ToLower(string(said)), "error") {
		t.Errorf("the guest said %q, %v", said, err)
	}
}

// BenchmarkVolumePath writes and reads a volume as its own host's guests do, as guests of another host do, and as a plain file.
func BenchmarkVolumePath(b *testing.B) {
	owner, user := twoHosts(b)
	a, u := owner.begin(nil), user.begin(nil)
	defer a.stop(b)
	defer u.stop(b)
	row := volume(1)
	row.Guests = []model.ID{owner.id, user.id}
	owner.tell(row)
	owner.ready(row)
	user.tell(theirs(row, owner))
	file := filepath.Join(b.TempDir(), "file.qcow2")
	if out, err := exec.Command("qemu-img", "create", "-q", "-f", "qcow2", file, "1G").CombinedOutput(); err != nil {
		b.Fatalf("%v: %s", err, out)
	}
	const mib = 256
	for _, way := range []struct {
		name string
		at   block.Access
	}{{"file", block.Access{File: file, Format: "qcow2"}}, {"daemon", owner.disk(a, row.ID)}, {"channel", user.disk(u, row.ID)}} {
		for _, do := range []string{"write", "read"} {
			b.Run(way.name+"/"+do, func(b *testing.B) {
				b.SetBytes(mib << 20)
				var commands []string
				for at := 0; at < mib; at += 16 {
					commands = append(commands, fmt.Sprintf("%s %dM 16M", do, at))
				}
				for b.Loop() {
					if err := blocktest.IO(b.Context(), way.at, append(commands, "flush")...); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
