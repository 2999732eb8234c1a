package mini

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// bootDeadline bounds every wait for the guest; a boot takes 5 s on an idle machine.
const bootDeadline = 3 * time.Minute

// machine is one run of QEMU, with the guest's serial console and QEMU's monitor at hand.
type machine struct {
	t       *testing.T
	started time.Time
	cmd     *exec.Cmd
	exited  chan struct{} // closed when QEMU has ended
	serial  net.Conn
	monitor net.Conn
	answers *json.Decoder

	mu    sync.Mutex
	fresh *sync.Cond
	text  []byte // everything the console has shown
	seen  int    // how much of text an expect has consumed
}

// boot starts a guest as the hypervisor does: q35, one emulated processor, virtio. ns is the namespace it runs in.
func boot(t *testing.T, ns netns.NsHandle, disk string, extra ...string) *machine {
	t.Helper()
	dir := t.TempDir()
	serial, monitor := filepath.Join(dir, "serial"), filepath.Join(dir, "monitor")
	listen := func(path string) net.Listener {
		l, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		return l
	}
	serialListener, monitorListener := listen(serial), listen(monitor)
	args := append([]string{
		"-machine", "q35,accel=tcg", "-cpu", "qemu64", "-smp", "1", "-m", "144", "-nodefaults", "-display", "none",
		"-serial", "unix:" + serial, "-qmp", "unix:" + monitor,
		"-drive", "if=none,id=root,format=qcow2,file=" + disk, "-device", "virtio-blk-pci,drive=root,bootindex=1",
		"-device", "pcie-root-port,id=plug,slot=9",
	}, extra...)
	m := &machine{t: t, cmd: exec.Command("qemu-system-x86_64", args...), exited: make(chan struct{})}
	m.fresh = sync.NewCond(&m.mu)
	var stderr bytes.Buffer
	m.cmd.Stderr = &stderr
	m.started = time.Now()
	if err := within(ns, m.cmd.Start); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(m.exited)
		if err := m.cmd.Wait(); err != nil {
			stderr.WriteString(err.Error())
		}
	}()
	t.Cleanup(func() {
		m.cmd.Process.Kill() // it has ended already unless the test failed
		<-m.exited
		if t.Failed() {
			m.mu.Lock()
			defer m.mu.Unlock()
			t.Logf("console:\n%s\nQEMU: %s", m.text, stderr.String())
		}
	})
	accept := func(l net.Listener) net.Conn {
		if err := l.(*net.UnixListener).SetDeadline(time.Now().Add(bootDeadline)); err != nil {
			t.Fatal(err)
		}
		c, err := l.Accept()
		if err != nil {
			t.Fatalf("QEMU did not connect: %v: %s", err, stderr.String())
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	m.serial = accept(serialListener)
	m.monitor = accept(monitorListener)
	m.answers = json.NewDecoder(m.monitor)
	go m.listen()
	m.command("qmp_capabilities", nil)
	return m
}

func (m *machine) listen() {
	buf := make([]byte, 4096)
	for {
		n, err := m.serial.Read(buf)
		m.mu.Lock()
		m.text = append(m.text, buf[:n]...)
		m.fresh.Broadcast()
		m.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// expect waits until the console shows a match after everything expected before, and returns its groups.
func (m *machine) expect(pattern string) []string {
	m.t.Helper()
	return m.wait(pattern, &m.seen)
}

// shows waits until the console shows a match, now or before; what runs in the background has no place in an order.
func (m *machine) shows(pattern string) []string {
	m.t.Helper()
	return m.wait(pattern, new(int))
}

// wait waits for a match in the console's text from *seen on, and advances *seen behind it.
func (m *machine) wait(pattern string, seen *int) []string {
	m.t.Helper()
	re := regexp.MustCompile(pattern)
	end := time.Now().Add(bootDeadline)
	wake := time.AfterFunc(bootDeadline, m.fresh.Broadcast)
	defer wake.Stop()
	m.mu.Lock()
	defer m.mu.Unlock()
	for {
		if loc := re.FindSubmatchIndex(m.text[*seen:]); loc != nil {
			var groups []string
			for i := 0; i < len(loc); i += 2 {
				groups = append(groups, string(m.text[*seen+loc[i]:*seen+loc[i+1]]))
			}
			*seen += loc[1]
			return groups
		}
		if time.Now().After(end) {
			m.mu.Unlock()
			defer m.mu.Lock()
			m.t.Fatalf("the console did not show %q", pattern)
		}
		m.fresh.Wait()
	}
}

func (m *machine) send(text string) {
	m.t.Helper()
	if _, err := io.WriteString(m.serial, text); err != nil {
		m.t.Fatal(err)
	}
}

// login logs in on the console as cirros, with the password that people know.
func (m *machine) login() {
	m.t.Helper()
	m.send("cirros\n")
	m.expect(`Password: `)
	m.send("gocubsgo\n")
	m.expect(`\n\$ `)
}

// sh runs a line of shell on the console, fails the test unless its status is 0, and returns what it printed.
func (m *machine) sh(line string) string {
	m.t.Helper()
	// Two strings, so that the echo of what is typed does not look like the answer.
	m.send(line + "; echo _EN''D_$?_\n")
	m.expect(`_EN''D_\$\?_\r\n`)
	got := m.expect(`(?s)^(.*?)_END_(\d+)_\r\n\$ `)
	out := strings.TrimSpace(strings.ReplaceAll(got[1], "\r\n", "\n"))
	if got[2] != "0" {
		m.t.Fatalf("%s: status %s: %s", line, got[2], out)
	}
	return out
}

// command runs a command of QEMU's monitor protocol.
func (m *machine) command(name string, args map[string]any) {
	m.t.Helper()
	q, err := json.Marshal(map[string]any{"execute": name, "arguments": args})
	if err != nil {
		m.t.Fatal(err)
	}
	if args == nil {
		q = []byte(`{"execute":"` + name + `"}`)
	}
	if _, err := m.monitor.Write(q); err != nil {
		m.t.Fatal(err)
	}
	for {
		var answer map[string]json.RawMessage
		if err := m.answers.Decode(&answer); err != nil {
			m.t.Fatalf("%s: %v", name, err)
		}
		if e, ok := answer["error"]; ok {
			m.t.Fatalf("%s: %s", name, e)
		}
		if _, ok := answer["return"]; ok {
			return
		}
	}
}

// waitOff waits until the guest has powered itself off.
func (m *machine) waitOff() {
	m.t.Helper()
	select {
	case <-m.exited:
	case <-time.After(bootDeadline):
		m.t.Fatal("the guest did not power off")
	}
	if code := m.cmd.ProcessState.ExitCode(); code != 0 {
		m.t.Errorf("QEMU ended with status %d", code)
	}
}

// newNamespace makes a network namespace that lives as long as the test.
func newNamespace(t *testing.T) netns.NsHandle {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	home, err := netns.Get()
	if err != nil {
		t.Fatal(err)
	}
	defer home.Close()
	ns, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	if err := netns.Set(home); err != nil {
		t.Fatal(err)
	}
	return ns
}

// within runs f on a thread inside the namespace; the thread is thrown away after.
func within(ns netns.NsHandle, f func() error) error {
	result := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the runtime ends the thread with the goroutine
		if err := netns.Set(ns); err != nil {
			result <- fmt.Errorf("enter namespace: %w", err)
			return
		}
		result <- f()
	}()
	return <-result
}

// addTap makes a tap interface with the addresses in the namespace.
func addTap(t *testing.T, ns netns.NsHandle, name string, addresses ...string) {
	t.Helper()
	err := within(ns, func() error {
		tap := &netlink.Tuntap{LinkAttrs: netlink.LinkAttrs{Name: name}, Mode: netlink.TUNTAP_MODE_TAP}
		if err := netlink.LinkAdd(tap); err != nil {
			return fmt.Errorf("add %s: %w", name, err)
		}
		for _, a := range addresses {
			addr, err := netlink.ParseAddr(a)
			if err != nil {
				return err
			}
			addr.Flags = 2 // IFA_F_NODAD, for IPv6
			if err := netlink.AddrAdd(tap, addr); err != nil {
				return fmt.Errorf("add %s to %s: %w", a, name, err)
			}
		}
		return netlink.LinkSetUp(tap)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// image returns the image under test: the one that YAKUMO_MINI names, or one built here.
func image(t *testing.T) string {
	t.Helper()
	if file := os.Getenv("YAKUMO_MINI"); file != "" {
		return file
	}
	file := filepath.Join(t.TempDir(), "yakumo-mini.qcow2")
	start := time.Now()
	if out, err := exec.Command("./build.sh", file).CombinedOutput(); err != nil {
		t.Fatalf("build.sh: %v\n%s", err, out)
	}
	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("built in %.1f s: %.1f MiB", time.Since(start).Seconds(), float64(info.Size())/(1<<20))
	if info.Size() > 40<<20 {
		t.Errorf("the image has %d bytes, more than 40 MiB", info.Size())
	}
	return file
}

// overlay makes a disk of the given size (in MiB) on top of the image.
func overlay(t *testing.T, base string, mib int) string {
	t.Helper()
	abs, err := filepath.Abs(base)
	if err != nil {
		t.Fatal(err)
	}
	disk := filepath.Join(t.TempDir(), "disk.qcow2")
	out, err := exec.Command("qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", abs, disk, strconv.Itoa(mib)+"M").CombinedOutput()
	if err != nil {
		t.Fatalf("qemu-img: %v\n%s", err, out)
	}
	return disk
}

// uefi gives the options of a machine whose firmware is UEFI (Debian's package ovmf).
func uefi(t *testing.T) []string {
	t.Helper()
	const program, variables = "/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"
	b, err := os.ReadFile(variables)
	if err != nil {
		t.Fatal(err)
	}
	own := filepath.Join(t.TempDir(), "variables")
	if err := os.WriteFile(own, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return []string{"-drive", "if=pflash,format=raw,readonly=on,file=" + program, "-drive", "if=pflash,format=raw,file=" + own}
}

// configDrive makes a vfat config drive with the given files of openstack/latest.
func configDrive(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	latest := filepath.Join(dir, "openstack", "latest")
	if err := os.MkdirAll(latest, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(latest, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	drive := filepath.Join(dir, "drive.img")
	for _, c := range [][]string{
		{"truncate", "-s", "4M", drive},
		{"mkfs.vfat", "-n", "config-2", drive},
		{"mcopy", "-s", "-i", drive, filepath.Join(dir, "openstack"), "::/"},
	} {
		if out, err := exec.Command(c[0], c[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", c, err, out)
		}
	}
	return drive
}
