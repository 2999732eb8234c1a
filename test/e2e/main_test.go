// Package e2e_test runs the whole product: a lab of one server and three hosts, each with the
// real agent, Open vSwitch, libvirtd and guests, used as people use it: through the stock
// client, through gophercloud, by plain HTTP, and from inside the guests.
//
// One lab serves the whole package. YAKUMO_BINARY names the program and YAKUMO_MINI the guest
// image; make test sets both. Where something is missing the tests fail, they never skip.
// It may import anything that the lab may.
package e2e_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"yakumo/hypervisor/libvirt"
	"yakumo/lab"
)

// hosts is how many hosts the lab has.
const hosts = 3

// fixture is what all tests share; TestMain makes it.
type fixture struct {
	lab     *lab.Lab
	admin   *lab.Cloud
	binary  string
	image   string // id of yakumo-mini
	drivers map[string]*libvirt.Driver
	empty   map[string]traces // what a host without guests shows, by host
	world   *world            // the guests that tests share; nil until first asked for
}

// fix is set once, before any test runs.
var fix fixture

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) (code int) {
	fail := func(format string, args ...any) int {
		fmt.Printf("e2e: "+format+"\n", args...)
		return 1
	}
	binary, mini := os.Getenv("YAKUMO_BINARY"), os.Getenv("YAKUMO_MINI")
	for name, path := range map[string]string{"YAKUMO_BINARY": binary, "YAKUMO_MINI": mini} {
		if _, err := os.Stat(path); err != nil {
			return fail("%s must name a file (make test sets it): %v", name, err)
		}
	}
	// Paths of unix sockets are short (unix(7): 108 bytes), so the folder's is.
	dir, err := os.MkdirTemp("/tmp", "yk")
	if err != nil {
		return fail("%v", err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	l, err := lab.New(lab.Config{Dir: filepath.Join(dir, "l"), Binary: binary, Hosts: hosts, API: "127.0.0.1:0", Emulator: os.Getenv("YAKUMO_EMULATOR"),
		Progress: func(step string, took time.Duration) { fmt.Printf("e2e: %-40s %6.2f s\n", step, took.Seconds()) }})
	if err != nil {
		return fail("%v", err)
	}
	before := machineTraces()
	defer func() {
		if code != 0 {
			showLogs(l)
		}
		for _, d := range fix.drivers {
			d.Close()
		}
		ids := labNamespaces(l)
		if err := l.Down(); err != nil {
			code = fail("lab down: %v", err)
		}
		if left := leftOf(l.Dir(), ids, before); len(left) > 0 {
			code = fail("the lab left behind: %s", strings.Join(left, "; "))
		}
		if err := os.RemoveAll(dir); err != nil {
			code = fail("%v", err)
		}
	}()
	began := time.Now()
	if err := l.Up(ctx); err != nil {
		return fail("lab up: %v", err)
	}
	fmt.Printf("e2e: measured: lab of %d hosts up: %.2f s\n", hosts, time.Since(began).Seconds())
	fix = fixture{lab: l, binary: binary, drivers: map[string]*libvirt.Driver{}, empty: map[string]traces{}}
	if fix.admin, err = l.Connect(ctx, l.Credentials()); err != nil {
		return fail("%v", err)
	}
	began = time.Now()
	if fix.image, err = lab.EnsureImage(ctx, fix.admin, "yakumo-mini", mini); err != nil {
		return fail("upload the guest image: %v", err)
	}
	fmt.Printf("e2e: measured: image upload: %.2f s\n", time.Since(began).Seconds())
	for n := range hosts {
		name := lab.HostName(n + 1)
		if fix.drivers[name], err = libvirt.New(libvirt.Config{SocketPath: filepath.Join(l.MachineDir(name), "libvirt", "run", "libvirt-sock")}); err != nil {
			return fail("%v", err)
		}
		if fix.empty[name], err = hostTraces(ctx, name); err != nil {
			return fail("%v", err)
		}
	}
	code = m.Run()
	if ctx.Err() != nil {
		return fail("interrupted")
	}
	return code
}

// showLogs prints the end of each daemon's log.
func showLogs(l *lab.Lab) {
	machines := []string{"server", lab.OutsideMachine}
	for n := range hosts {
		machines = append(machines, lab.HostName(n+1))
	}
	for _, m := range machines {
		logs, err := filepath.Glob(filepath.Join(l.MachineDir(m), "log", "*.log"))
		if err != nil {
			fmt.Println(err)
		}
		for _, path := range logs {
			b, err := os.ReadFile(path)
			if err != nil {
				fmt.Println(err)
				continue
			}
			if lines := bytes.Split(bytes.TrimSpace(b), []byte("\n")); len(b) > 0 {
				fmt.Printf("==== %s/%s, the end of %d lines\n%s\n", m, filepath.Base(path), len(lines), bytes.Join(lines[max(0, len(lines)-40):], []byte("\n")))
			}
		}
	}
}

// measured writes a figure to the log, in a form that can be searched for.
func measured(t *testing.T, format string, args ...any) {
	t.Helper()
	t.Logf("measured: "+format, args...)
}

// await waits until probe says "", or fails the test with what it said last.
func await(t *testing.T, what string, patience time.Duration, probe func(ctx context.Context) string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	last := "nothing yet"
	for {
		said := probe(ctx)
		if said == "" {
			return
		}
		if ctx.Err() == nil {
			last = said
		}
		select {
		case <-ctx.Done():
			t.Fatalf("waited %s for %s: %s", patience, what, last)
		case <-tick.C:
		}
	}
}

// on runs a command on a machine of the lab and gives its output.
func on(ctx context.Context, machine string, argv ...string) (string, error) {
	var out, errs bytes.Buffer
	cmd := fix.lab.Command(ctx, machine, argv...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%s on %s: %w: %s", strings.Join(argv, " "), machine, err, bytes.TrimSpace(errs.Bytes()))
	}
	return out.String(), nil
}

// traces are what guests leave on a host: each is empty again when they are gone.
type traces struct {
	Flows   int      // entries in the integration bridge
	Devices []string // network interfaces
	Ports   []string // of the integration bridge
	Domains []string // guests that libvirt knows
	Servers []string // files below the agent's folder of servers
	QEMUs   int
}

// hostTraces looks at a host.
func hostTraces(ctx context.Context, host string) (traces, error) {
	var tr traces
	out, err := on(ctx, host, "ovs-ofctl", "-O", "OpenFlow15", "dump-flows", "br-int")
	if err != nil {
		return tr, err
	}
	tr.Flows = strings.Count(out, "cookie=")
	if out, err = on(ctx, host, "ls", "/sys/class/net"); err != nil {
		return tr, err
	}
	tr.Devices = strings.Fields(out)
	if out, err = on(ctx, host, "ovs-vsctl", "--no-wait", "list-ports", "br-int"); err != nil {
		return tr, err
	}
	tr.Ports = strings.Fields(out)
	guests, err := fix.drivers[host].List(ctx)
	if err != nil {
		return tr, err
	}
	for _, g := range guests {
		tr.Domains = append(tr.Domains, g.ID)
	}
	top := filepath.Join(fix.lab.MachineDir(host), "state", "servers")
	entries, err := os.ReadDir(top)
	if err != nil {
		return tr, err
	}
	for _, e := range entries {
		tr.Servers = append(tr.Servers, e.Name())
	}
	if out, err = on(ctx, host, "sh", "-c", "cat /proc/[0-9]*/comm 2>/dev/null | grep -c qemu-system; true"); err != nil {
		return tr, err
	}
	if _, err := fmt.Sscan(out, &tr.QEMUs); err != nil {
		return tr, err
	}
	for _, l := range [][]string{tr.Devices, tr.Ports, tr.Domains, tr.Servers} {
		slices.Sort(l)
	}
	return tr, nil
}

// differs tells how a host's traces differ, "" where they do not.
func (a traces) differs(b traces) string {
	if fmt.Sprintf("%+v", a) == fmt.Sprintf("%+v", b) {
		return ""
	}
	return fmt.Sprintf("%+v, not %+v", b, a)
}
