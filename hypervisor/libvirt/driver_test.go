package libvirt_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"os"
	"os/exec"
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
		VCPUs: 1, MemoryMiB: 32, Emulator: os.Getenv("YAKUMO_EMULATOR"), // the suite runs on any QEMU
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

func (h host) Busy(t *testing.T) hypervisor.Guest {
	return h.guest(t, libvirttest.Sector{Greeting: hypertest.Greeting, Counts: true})
}

// Whole looks at the numbers that a guest that counts has written to the disk.
func (h host) Whole(t *testing.T, path string) {
	t.Helper()
	info, err := exec.Command("qemu-img", "info", "--output=json", path).Output()
	if err != nil || !bytes.Contains(info, []byte(`"format": "qcow2"`)) || bytes.Contains(info, []byte("backing")) {
		t.Fatalf("the copy is %s, %v", info, err)
	}
	raw := path + ".raw"
	if out, err := exec.Command("qemu-img", "convert", "-f", "qcow2", "-O", "raw", path, raw).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	data, err := os.ReadFile(raw)
	if err != nil {
		t.Fatal(err)
	}
	first := binary.LittleEndian.Uint32(data[512*libvirttest.CountFirst:])
	second := binary.LittleEndian.Uint32(data[512*libvirttest.CountSecond:])
	if len(data) != 1<<20 || first == 0 || first != second && first != second+1 {
		t.Errorf("the copy of %d bytes holds the numbers %d and %d, which are of no one moment", len(data), first, second)
	}
}

// Places gives a qcow2 file and an NBD server, as volumes are.
func (h host) Places(t *testing.T) []hypervisor.Disk {
	t.Helper()
	dir := filepath.Join(h.Dir(), hypertest.NewID())
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	file, raw, socket := filepath.Join(dir, "file.qcow2"), filepath.Join(dir, "raw"), filepath.Join(t.TempDir(), "nbd")
	if out, err := exec.Command("qemu-img", "create", "-q", "-f", "qcow2", file, "1M").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if err := os.WriteFile(raw, bytes.Repeat([]byte{0xa5}, 1<<20), 0o600); err != nil { // which is not to stay
		t.Fatal(err)
	}
	serve := exec.Command("qemu-nbd", "-f", "raw", "-x", raw, "-k", socket, "-e", "8", "-t", raw)
	if err := serve.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { serve.Process.Kill(); serve.Wait() })
	until(t, "the NBD server", func() bool {
		_, err := os.Stat(socket)
		return err == nil
	})
	return []hypervisor.Disk{{Path: file, Format: "qcow2", Everywhere: true}, {Format: "raw", Network: &hypervisor.NetworkDisk{Protocol: "nbd", Socket: socket, Name: raw}}}
}

// Count reads the numbers that a guest that counts writes, past the guest that has the disk.
func (h host) Count(t *testing.T, _ string, d hypervisor.Disk) uint32 {
	t.Helper()
	path := d.Path
	if d.Network != nil {
		path = d.Network.Name
	} else if d.Format == "qcow2" {
		path = filepath.Join(t.TempDir(), "raw")
		if out, err := exec.Command("qemu-img", "convert", "-U", "-f", "qcow2", "-O", "raw", d.Path, path).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	first, second := binary.LittleEndian.Uint32(data[512*libvirttest.CountFirst:]), binary.LittleEndian.Uint32(data[512*libvirttest.CountSecond:])
	if first != second && first != second+1 { // the reader may have come between
		return min(first, second)
	}
	return second
}

func (h host) Disk(t *testing.T) hypervisor.Disk {
	t.Helper()
	id := hypertest.NewID()
	path := filepath.Join(h.Dir(), id)
	if err := os.WriteFile(path, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	return hypervisor.Disk{Path: path, Format: "raw", Serial: id}
}

func (h host) Size(t *testing.T, _ string, d hypervisor.Disk) int64 {
	t.Helper()
	st, err := os.Stat(d.Path)
	if err != nil {
		t.Fatal(err)
	}
	return st.Size()
}

func (h host) Tap(t *testing.T) string {
	t.Helper()
	name := "tap" + hypertest.NewID()[:8]
	h.AddTap(t, name)
	return name
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
	t.Parallel() // its daemon is its own
	hypertest.Run(t, host{libvirttest.Start(t)})
}
