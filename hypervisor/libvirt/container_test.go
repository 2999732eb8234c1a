package libvirt_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"yakumo/fault"
	"yakumo/hypervisor"
	"yakumo/hypervisor/container"
	"yakumo/hypervisor/hypertest"
	"yakumo/hypervisor/libvirt"
	"yakumo/hypervisor/libvirt/libvirttest"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == container.Word {
		os.Exit(container.Main(os.Args))
	}
	os.Exit(m.Run())
}

// containerHost is a private libvirtd that runs containers.
type containerHost struct{ *libvirttest.Daemon }

func (h containerHost) driver(t testing.TB) *libvirt.Containers {
	t.Helper()
	c, err := libvirt.NewContainers(libvirt.ContainerConfig{SocketPath: h.Socket(), GuestDir: h.Dir(), Netns: "/run/netns/" + h.NetNS()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func (h containerHost) Open(t *testing.T) hypervisor.Driver { return h.driver(t) }

// guest gives a container whose init is a script.
func (h containerHost) guest(t testing.TB, script string) hypervisor.Guest {
	t.Helper()
	id := hypertest.NewID()
	dir := filepath.Join(h.Dir(), "guests", id)
	if err := os.MkdirAll(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	archive := filepath.Join(dir, "image.tar")
	if err := os.WriteFile(archive, busyboxImage(t, script), 0o600); err != nil {
		t.Fatal(err)
	}
	disk := filepath.Join(dir, "disk.raw")
	if err := (container.Disks{}).Overlay(t.Context(), disk, archive, "raw", 32<<20); err != nil {
		t.Fatal(err)
	}
	return hypervisor.Guest{
		ID: id, Name: "yk-" + id, Title: "a guest", Project: "a project", User: "a user",
		VCPUs: 1, MemoryMiB: 64,
		Disks:      []hypervisor.Disk{{Path: disk, Format: "raw", BootOrder: 1, Serial: id[:20]}},
		ConsoleLog: filepath.Join(dir, "console.log"),
	}
}

// busyboxImage gives an archive of busybox with an init of one's own.
func busyboxImage(t testing.TB, script string) []byte {
	t.Helper()
	box, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	add := func(h tar.Header, data []byte) {
		t.Helper()
		h.Size = int64(len(data))
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(data); err != nil {
			t.Fatal(err)
		}
	}
	add(tar.Header{Typeflag: tar.TypeReg, Name: "bin/busybox", Mode: 0o755}, box)
	for _, name := range []string{"sh", "cat", "stty", "printf", "sleep", "ip", "mount", "id", "ls", "udhcpc", "ping", "kill", "touch", "dd", "test", "wc", "hostname", "poweroff", "reboot", "sync", "grep"} {
		add(tar.Header{Typeflag: tar.TypeSymlink, Name: "bin/" + name, Linkname: "busybox"}, nil)
	}
	for _, dir := range []string{"dev", "proc", "sys", "etc", "tmp", "root", "sbin"} {
		add(tar.Header{Typeflag: tar.TypeDir, Name: dir, Mode: 0o755}, nil)
	}
	add(tar.Header{Typeflag: tar.TypeReg, Name: "sbin/init", Mode: 0o755}, []byte("#!/bin/sh\n"+script))
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

const (
	// echo greets, and sends back what the console says.
	echo   = "stty raw -echo\nprintf 'guest is up\\r\\n'\ncat </dev/console &\nwhile :; do wait; sleep 1; done\n"
	polite = "trap 'exit 0' PWR\n" + echo
)

func (h containerHost) Guest(t *testing.T) hypervisor.Guest { return h.guest(t, polite) }
func (h containerHost) Deaf(t *testing.T) hypervisor.Guest  { return h.guest(t, echo) }

func (h containerHost) Broken(t *testing.T) hypervisor.Guest {
	g := h.Guest(t)
	g.Disks[0].Path += ".missing"
	return g
}

func (h containerHost) Crash(t *testing.T, id string) {
	t.Helper()
	conn, err := container.FolderOf(h.Socket(), id).Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := syscall.Kill(conn.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
}

func (h containerHost) KillDaemon(t *testing.T)  { h.Kill(t) }
func (h containerHost) StartDaemon(t *testing.T) { h.Restart(t) }

func (h containerHost) Foreign(t *testing.T) (string, func() bool, bool) { return "", nil, false }

// Busy, Whole, Places, Count, Disk and Size are of what containers' driver does not offer.
func (h containerHost) Busy(t *testing.T) hypervisor.Guest { return h.Guest(t) }
func (h containerHost) Whole(t *testing.T, path string)    { t.Fatalf("no copy can be made: %s", path) }
func (h containerHost) Places(t *testing.T) []hypervisor.Disk {
	t.Fatal("no disk goes elsewhere")
	return nil
}
func (h containerHost) Count(t *testing.T, id string, _ hypervisor.Disk) uint32 {
	t.Fatalf("no disk of %s goes elsewhere", id)
	return 0
}
func (h containerHost) Disk(t *testing.T) hypervisor.Disk {
	t.Fatal("no disk can be plugged in")
	return hypervisor.Disk{}
}
func (h containerHost) Size(t *testing.T, id string, d hypervisor.Disk) int64 {
	t.Fatalf("no disk of %s grows", id)
	return 0
}

func (h containerHost) Tap(t *testing.T) string {
	t.Helper()
	name := "yk" + hypertest.NewID()[:8]
	if err := h.veths().Ensure(t.Context(), name, 0); err != nil {
		t.Fatal(err)
	}
	return name
}

func (h containerHost) veths() container.Veths {
	return container.Veths{Netns: "/run/netns/" + h.NetNS()}
}

func TestContainerConformance(t *testing.T) {
	hypertest.Run(t, containerHost{libvirttest.StartContainers(t)})
}

// start defines a container, starts it and removes it when the test ends.
func (h containerHost) start(t *testing.T, c *libvirt.Containers, g hypervisor.Guest) {
	t.Helper()
	t.Cleanup(func() {
		if err := c.Remove(context.Background(), g.ID); err != nil {
			t.Error(err)
		}
	})
	for _, err := range []error{c.Ensure(t.Context(), g), c.Start(t.Context(), g.ID)} {
		if err != nil {
			t.Fatal(err)
		}
	}
}

// says waits until a container has written all of the words to its console.
func says(t *testing.T, c *libvirt.Containers, id string, words ...string) string {
	t.Helper()
	late := time.After(2 * hypertest.Deadline)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		log, err := c.ConsoleLog(t.Context(), id, 0)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(string(log), w) }) {
			return string(log)
		}
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("the console does not say all of %q, but %q", words, log)
		}
	}
}

// eventually waits until ok.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	late := time.After(2 * hypertest.Deadline)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("not in time: %s", what)
		}
	}
}

// TestContainerIsolated has a container look at what it may see.
func TestContainerIsolated(t *testing.T) {
	h := containerHost{libvirttest.StartContainers(t)}
	c := h.driver(t)
	g := h.guest(t, `echo "pid $$"; echo "procs $(ls -d /proc/[0-9]* | wc -l)"; echo "control [$(ls -A /.yakumo)]"
echo "map $(cat /proc/self/uid_map)"; echo "total $(grep MemTotal /proc/meminfo)"; echo "mine $(ls -ln /bin/busybox)"
touch /root/x && echo "wrote"; dd if=/dev/zero of=/big bs=1M 2>/dev/null; echo "full"
echo 1 2>/dev/null >/proc/sys/kernel/panic || echo "no sysctl"; mount -t tmpfs t /tmp && echo "mounts"
echo done; while :; do sleep 1; done
`)
	h.start(t, c, g)
	log := says(t, c, g.ID, "done")
	for _, want := range []string{
		"pid 1\r\n", "control []", fmt.Sprint(container.IDBase(g.ID)), "total MemTotal:          65536 kB", " 0        0 ",
		"wrote", "full", "no sysctl", "mounts",
	} {
		if !strings.Contains(log, want) {
			t.Errorf("the container does not say %q", want)
		}
	}
	if t.Failed() {
		t.Logf("it says:\n%s", log)
	}
	if st, err := os.Stat(g.Disks[0].Path); err != nil || st.Size() != 32<<20 {
		t.Errorf("its disk is %v, %v", st, err)
	}
}

// TestContainerReboots has a container restart itself, and turn itself off.
func TestContainerReboots(t *testing.T) {
	h := containerHost{libvirttest.StartContainers(t)}
	c := h.driver(t)
	g := h.guest(t, `if [ -e /second ]; then echo "again $(ls /sys/class/net) $(ip -4 addr show dev eth0 | grep inet)."; sync; poweroff -f; fi
touch /second; ip addr add 192.0.2.7/24 dev eth0; echo first; reboot -f
`)
	g.NICs = []hypervisor.NIC{{ID: hypertest.NewID(), MAC: "fa:16:3e:00:03:01", Tap: h.Tap(t), MTU: 1400}}
	h.start(t, c, g)
	says(t, c, g.ID, "first", "again eth0", "lo .")
	eventually(t, "the container is off", func() bool {
		states, err := c.List(t.Context())
		return err == nil && len(states) == 1 && states[0].Power == hypervisor.Off && states[0].Reason == "shut down"
	})
}

// TestContainerFails has a container's init end with an error.
func TestContainerFails(t *testing.T) {
	h := containerHost{libvirttest.StartContainers(t)}
	c := h.driver(t)
	g := h.guest(t, "exit 3\n")
	h.start(t, c, g)
	var states []hypervisor.State
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("it is %+v", states)
		}
	})
	eventually(t, "the container has crashed", func() (ok bool) {
		var err error
		states, err = c.List(t.Context())
		return err == nil && len(states) == 1 && states[0].Power == hypervisor.Crashed && states[0].Reason == "its init ended with status 3"
	})
}

// TestContainerIsBegun kills, as it were, a driver that has started a container and not begun it: another one does.
func TestContainerIsBegun(t *testing.T) {
	h := containerHost{libvirttest.StartContainers(t)}
	c, g := h.driver(t), h.Guest(t)
	g.NICs = []hypervisor.NIC{{ID: hypertest.NewID(), MAC: "fa:16:3e:00:03:02", Tap: h.Tap(t)}}
	t.Cleanup(func() {
		if err := h.driver(t).Remove(context.Background(), g.ID); err != nil {
			t.Error(err)
		}
	})
	if err := c.Ensure(t.Context(), g); err != nil {
		t.Fatal(err)
	}
	if err := c.CreateOnly(t.Context(), g.ID); err != nil {
		t.Fatal(err)
	}
	c.Close()
	other := h.driver(t)
	if _, err := other.List(t.Context()); err != nil { // it looks after all from now on
		t.Fatal(err)
	}
	says(t, other, g.ID, "guest is up")
	x, err := other.Diagnostics(t.Context(), g.ID)
	if err != nil || len(x.NICs) != 1 || x.NICs[0].MAC != g.NICs[0].MAC {
		t.Errorf("it has %+v, %v", x.NICs, err)
	}
}

// TestContainerLeavesNothing looks for what is left of a container that was removed while it ran.
func TestContainerLeavesNothing(t *testing.T) {
	h := containerHost{libvirttest.StartContainers(t)}
	c, g := h.driver(t), h.Guest(t)
	g.NICs = []hypervisor.NIC{{ID: hypertest.NewID(), MAC: "fa:16:3e:00:03:03", Tap: h.Tap(t)}}
	h.start(t, c, g)
	says(t, c, g.ID, "guest is up")
	mounts := func() string {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", h.PID()))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	if strings.Contains(mounts(), g.ID) {
		t.Errorf("libvirtd has mounts of a container that runs:\n%s", mounts())
	}
	if err := c.Remove(t.Context(), g.ID); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(mounts(), g.ID) {
		t.Errorf("libvirtd has mounts of a container that is gone:\n%s", mounts())
	}
	if _, err := os.Stat(container.FolderOf(h.Socket(), g.ID).Path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("its folder is there: %v", err)
	}
	tap := g.NICs[0].Tap // which is whose it was before
	if names, err := h.veths().List(t.Context(), tap); err != nil || len(names) != 1 {
		t.Errorf("its tap is %v, %v", names, err)
	}
	if err := h.veths().Remove(t.Context(), tap); err != nil {
		t.Error(err)
	}
	eventually(t, "the loop device and the control groups are gone", func() bool {
		loops, _ := filepath.Glob("/sys/block/loop*/loop/backing_file")
		for _, l := range loops {
			if of, err := os.ReadFile(l); err == nil && strings.HasPrefix(string(of), g.Disks[0].Path) {
				return false
			}
		}
		groups, _ := filepath.Glob("/sys/fs/cgroup/*/machine*/*" + g.Name + "*")
		return len(groups) == 0
	})
	if err := os.RemoveAll(filepath.Dir(g.Disks[0].Path)); err != nil {
		t.Error(err)
	}
}

// TestContainerDiskOnce has a disk that is mounted refused to a second container.
func TestContainerDiskOnce(t *testing.T) {
	h := containerHost{libvirttest.StartContainers(t)}
	c, g, second := h.driver(t), h.Guest(t), h.Guest(t)
	h.start(t, c, g)
	says(t, c, g.ID, "guest is up")
	second.Disks = g.Disks
	t.Cleanup(func() {
		if err := c.Remove(context.Background(), second.ID); err != nil {
			t.Error(err)
		}
	})
	if err := c.Ensure(t.Context(), second); err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := c.Start(short, second.ID); err == nil {
		t.Error("two containers have one disk")
	}
}

// TestContainerRefuses has guests that are no containers.
func TestContainerRefuses(t *testing.T) {
	c, err := libvirt.NewContainers(libvirt.ContainerConfig{SocketPath: "/nowhere/socket"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	disk := hypervisor.Disk{Path: "/a/disk", Format: "raw"}
	for name, disks := range map[string][]hypervisor.Disk{
		"no disk": nil, "two disks": {disk, {Path: "/a/other", Format: "raw"}}, "qcow2": {{Path: "/a/disk", Format: "qcow2"}},
		"a CD-ROM":       {{Path: "/a/disk", Format: "raw", Device: "cdrom"}},
		"a network disk": {{Format: "raw", Network: &hypervisor.NetworkDisk{Protocol: "nbd", Socket: "/a/socket", Name: "x"}}},
	} {
		id := hypertest.NewID()
		g := hypervisor.Guest{ID: id, Name: "yk-" + id, VCPUs: 1, MemoryMiB: 64, Disks: disks, ConsoleLog: "/a/log"}
		if err := c.Ensure(t.Context(), g); !fault.Is(err, fault.Invalid) {
			t.Errorf("a container with %s: %v", name, err)
		}
	}
}
