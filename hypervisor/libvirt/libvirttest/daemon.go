// Package libvirttest gives tests a libvirtd of their own and guests small enough to boot in
// a second under software emulation.
//
// It owns, per Start, one temporary folder, one network namespace (and with Reach a link to it), one libvirtd in a mount
// namespace, and the guests that this libvirtd runs; all are gone when the test ends. It
// needs root, and imports hypervisor/libvirt only.
package libvirttest

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"yakumo/hypervisor/libvirt"
)

// deadline is how long anything may take that Daemon waits for.
const deadline = 2 * time.Minute

// Daemon is a private libvirtd.
type Daemon struct {
	cfg   libvirt.Daemon
	netns string
	cmd   *exec.Cmd
	ended chan struct{}
}

// Start starts a libvirtd and waits until it listens.
func Start(t testing.TB) *Daemon {
	t.Helper()
	return start(t, false)
}

// StartContainers starts a libvirtd that runs containers, and waits until it listens.
func StartContainers(t testing.TB) *Daemon {
	t.Helper()
	return start(t, true)
}

func start(t testing.TB, containers bool) *Daemon {
	t.Helper()
	var b [22]byte
	rand.Read(b[:])
	// A socket's path has to be short (108 bytes, unix(7)); a test's own folder may not be.
	dir, err := os.MkdirTemp("", "yk")
	if err == nil {
		err = os.Chmod(dir, 0o711) // containers' users go through
	}
	if err != nil {
		t.Fatal(err)
	}
	reaping, stop := context.WithCancel(context.Background())
	if err := libvirt.ReapGuests(reaping); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	d := &Daemon{
		cfg:   libvirt.Daemon{Dir: dir, HostUUID: fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:16]), Containers: containers},
		netns: "ykt" + hex.EncodeToString(b[16:]),
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := d.cfg.WriteConfig(); err != nil {
		t.Fatal(err)
	}
	d.run(t, "ip", "netns", "add", d.netns)
	t.Cleanup(func() { d.run(t, "ip", "netns", "del", d.netns) })
	t.Cleanup(func() {
		d.Kill(t)
		d.killGuests(t)
		d.killContainers(t)
		if t.Failed() {
			log, _ := os.ReadFile(filepath.Join(dir, "log", "libvirtd.log"))
			t.Logf("libvirtd's log:\n%s", log[max(0, len(log)-4000):])
		}
	})
	d.Restart(t)
	return d
}

// Socket is the path of the daemon's socket.
func (d *Daemon) Socket() string { return d.cfg.SocketPath() }

// Dir is a folder for the daemon's guests.
func (d *Daemon) Dir() string { return d.cfg.Dir }

// PID is libvirtd's process number, 0 when it does not run.
func (d *Daemon) PID() int {
	if d.cmd == nil {
		return 0
	}
	return d.cmd.Process.Pid
}

// Kill kills libvirtd as kill -9 does and waits for its end; guests run on.
func (d *Daemon) Kill(t testing.TB) {
	t.Helper()
	if d.cmd == nil {
		return
	}
	d.cmd.Process.Kill()
	select {
	case <-d.ended:
	case <-time.After(deadline):
		t.Fatalf("libvirtd (process %d) does not end", d.cmd.Process.Pid)
	}
	d.cmd = nil
}

// Restart starts libvirtd again after Kill, and waits until it listens.
func (d *Daemon) Restart(t testing.TB) {
	t.Helper()
	argv := append([]string{"nsenter", "--net=/run/netns/" + d.netns}, d.cfg.Command()...)
	var said bytes.Buffer
	d.cmd = exec.Command(argv[0], argv[1:]...)
	d.cmd.Stdout, d.cmd.Stderr = &said, &said
	d.cmd.WaitDelay = time.Second // guests inherit the output's pipe
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	d.ended = make(chan struct{})
	go func(cmd *exec.Cmd, ended chan struct{}) {
		cmd.Wait()
		close(ended)
	}(d.cmd, d.ended)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	late := time.After(deadline)
	for {
		if nc, err := net.Dial("unix", d.Socket()); err == nil {
			nc.Close()
			return
		}
		select {
		case <-tick.C:
		case <-d.ended:
			d.cmd = nil
			t.Fatalf("libvirtd ended: %s", said.Bytes())
		case <-late:
			t.Fatal("libvirtd does not listen")
		}
	}
}

// Freeze stops libvirtd where it is; Thaw lets it go on.
func (d *Daemon) Freeze(t testing.TB) { d.signal(t, syscall.SIGSTOP) }

// Thaw ends what Freeze began.
func (d *Daemon) Thaw(t testing.TB) { d.signal(t, syscall.SIGCONT) }

func (d *Daemon) signal(t testing.TB, s syscall.Signal) {
	t.Helper()
	if err := d.cmd.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

// GuestPID is the process number of the running guest with this domain name.
func (d *Daemon) GuestPID(t testing.TB, name string) int {
	t.Helper()
	text, err := os.ReadFile(d.cfg.PIDFile(name))
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

// killGuests kills the guests that a test left behind.
func (d *Daemon) killGuests(t testing.TB) {
	files, err := filepath.Glob(d.cfg.PIDFile("*"))
	if err != nil {
		t.Error(err)
	}
	for _, f := range files {
		name := strings.TrimSuffix(filepath.Base(f), ".pid")
		pid := d.GuestPID(t, name)
		// The number may be another process's by now.
		cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if err != nil || !bytes.Contains(cmdline, []byte("guest="+name+",")) {
			continue
		}
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			t.Errorf("kill guest %s: %v", name, err)
		}
	}
}

// killContainers kills the containers that a test left behind: their process 1, which is the only child of libvirt's process.
func (d *Daemon) killContainers(t testing.TB) {
	files, err := filepath.Glob(d.cfg.ContainerPIDFile("*"))
	if err != nil {
		t.Error(err)
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			continue // gone meanwhile
		}
		holder := strings.TrimSpace(string(text))
		cmdline, err := os.ReadFile("/proc/" + holder + "/cmdline")
		if err != nil || !bytes.Contains(cmdline, []byte("libvirt_lxc")) {
			continue
		}
		t.Errorf("the container of %s is left", f)
		lists, _ := filepath.Glob("/proc/" + holder + "/task/*/children")
		for _, list := range lists {
			children, err := os.ReadFile(list)
			if err != nil {
				continue
			}
			for _, child := range strings.Fields(string(children)) {
				if pid, err := strconv.Atoi(child); err == nil {
					syscall.Kill(pid, syscall.SIGKILL) // fails only if it is gone
				}
			}
		}
	}
}

// AddTap makes a tap device where the daemon's guests run.
func (d *Daemon) AddTap(t testing.TB, name string) {
	t.Helper()
	d.run(t, "ip", "-n", d.netns, "tuntap", "add", "dev", name, "mode", "tap")
	d.run(t, "ip", "-n", d.netns, "link", "set", name, "up")
}

// Reach leads from the daemons' guests to this process's network namespace, by a pair of links for each daemon, and gives the address
// that they reach there. Nothing else is behind it. The addresses are of the range for benchmarks (RFC 2544), by this process's number.
func Reach(t testing.TB, daemons ...*Daemon) netip.Addr {
	t.Helper()
	pid := os.Getpid()
	at := netip.AddrFrom4([4]byte{198, byte(18 + pid>>12&1), byte(pid >> 4), byte(pid << 4)}).Next()
	theirs := at
	for _, d := range daemons {
		theirs = theirs.Next()
		link := d.netns[:15]                                                                         // IFNAMSIZ, and as unlikely as the namespace's name to be there
		d.run(t, "ip", "link", "add", link, "type", "veth", "peer", "name", "out", "netns", d.netns) // they go with the namespace
		d.run(t, "ip", "address", "add", at.String(), "peer", theirs.String(), "dev", link)
		d.run(t, "ip", "link", "set", link, "up")
		d.run(t, "ip", "-n", d.netns, "address", "add", theirs.String(), "peer", at.String(), "dev", "out")
		d.run(t, "ip", "-n", d.netns, "link", "set", "out", "up")
	}
	return at
}

// NetNS is the name of the network namespace of the daemon and its guests.
func (d *Daemon) NetNS() string { return d.netns }

func (d *Daemon) run(t testing.TB, argv ...string) {
	t.Helper()
	if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", strings.Join(argv, " "), err, out)
	}
}
