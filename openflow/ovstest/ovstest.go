// Package ovstest starts a private Open vSwitch for tests: an ovsdb-server and an
// ovs-vswitchd of their own, with user-space datapaths only, that touch nothing of the
// machine's. It owns those two processes and their directory, and stops them when the test
// ends. It imports the standard library only and must not be imported outside tests.
package ovstest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// startTimeout bounds the start of a daemon and each call of a tool.
const startTimeout = 90 * time.Second

// Switch is a running Open vSwitch.
type Switch struct {
	// Rundir holds sockets, pid files, logs and the database.
	Rundir string

	t    testing.TB
	env  []string
	db   *daemon
	vsw  *daemon
	wrap []string
}

type daemon struct {
	cmd  *exec.Cmd
	done chan struct{} // closed once the process was waited for
	err  error         // from Wait; read after done
}

// Option changes how a Switch starts.
type Option func(*Switch)

// InNetns runs the daemons inside the named network namespace, which must exist.
func InNetns(name string) Option {
	return func(s *Switch) { s.wrap = []string{"ip", "netns", "exec", name} }
}

// Start runs a database and a switch without any bridge, and stops them when t ends.
func Start(t testing.TB, opts ...Option) *Switch {
	t.Helper()
	// Not t.TempDir: its path grows with the test's name, and the path of a unix socket may
	// have 107 bytes at most.
	dir, err := os.MkdirTemp("", "ovs")
	if err != nil {
		t.Fatalf("make the run directory: %v", err)
	}
	s := &Switch{Rundir: dir, t: t}
	for _, o := range opts {
		o(s)
	}
	s.env = append(os.Environ(),
		"OVS_RUNDIR="+dir, "OVS_DBDIR="+dir, "OVS_LOGDIR="+dir, "OVS_SYSCONFDIR="+dir)
	t.Cleanup(func() {
		s.Kill()
		s.KillDB()
		if t.Failed() {
			if log, err := os.ReadFile(filepath.Join(dir, "ovs-vswitchd.log")); err == nil {
				t.Logf("end of ovs-vswitchd.log:\n%s", log[max(0, len(log)-2000):])
			}
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("remove the run directory: %v", err)
		}
	})
	s.run("ovsdb-tool", "create", s.path("conf.db"), schemaPath)
	s.StartDB()
	s.Vsctl("--no-wait", "init")
	s.Restart()
	return s
}

const schemaPath = "/usr/share/openvswitch/vswitch.ovsschema"

func (s *Switch) path(name string) string { return filepath.Join(s.Rundir, name) }

// DB is the address of the database's socket, for an OVSDB client.
func (s *Switch) DB() string { return "unix:" + s.path("db.sock") }

// Mgmt is the address of a bridge's OpenFlow management socket.
func (s *Switch) Mgmt(bridge string) string { return "unix:" + s.path(bridge+".mgmt") }

// StartDB starts the database, which must not be running.
func (s *Switch) StartDB() {
	s.t.Helper()
	if s.db != nil {
		s.t.Fatal("ovsdb-server is running already")
	}
	s.db = s.start("ovsdb-server", s.path("conf.db"), "--remote=punix:"+s.path("db.sock"),
		"--remote=db:Open_vSwitch,Open_vSwitch,manager_options", "--log-file="+s.path("ovsdb-server.log"), "-vconsole:off",
		"--pidfile="+s.path("ovsdb-server.pid"), "--unixctl="+s.path("ovsdb-server.ctl"), "--no-chdir",
		"--private-key=db:Open_vSwitch,SSL,private_key", "--certificate=db:Open_vSwitch,SSL,certificate",
		"--bootstrap-ca-cert=db:Open_vSwitch,SSL,ca_cert")
	s.waitSocket(s.path("db.sock"), s.db)
}

// KillDB kills the database at once (SIGKILL), where it runs.
func (s *Switch) KillDB() {
	s.kill(s.db)
	s.db = nil
}

// Kill kills the switch at once (SIGKILL), where it runs. Its flows are lost.
func (s *Switch) Kill() {
	s.kill(s.vsw)
	s.vsw = nil
}

// Restart kills the switch, where it runs, and starts it. It returns once the switch has
// read its configuration.
func (s *Switch) Restart() {
	s.t.Helper()
	s.Kill()
	s.vsw = s.start("ovs-vswitchd", s.DB(), "--disable-system", "--enable-dummy",
		"--log-file="+s.path("ovs-vswitchd.log"), "-vconsole:off", "--pidfile="+s.path("ovs-vswitchd.pid"),
		"--unixctl="+s.path("ovs-vswitchd.ctl"), "--no-chdir")
	s.waitSocket(s.path("ovs-vswitchd.ctl"), s.vsw)
	// ovs-vsctl waits for ovs-vswitchd after a change, so the value must be a new one.
	s.Vsctl("set", "Open_vSwitch", ".", fmt.Sprintf("external_ids:ovstest=%d", s.Pid()))
}

// Pid is the process id of ovs-vswitchd, 0 where it does not run.
func (s *Switch) Pid() int {
	if s.vsw == nil {
		return 0
	}
	return s.vsw.cmd.Process.Pid
}

func (s *Switch) start(name string, args ...string) *daemon {
	s.t.Helper()
	argv := append(append([]string{}, s.wrap...), append([]string{name}, args...)...)
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = s.env
	// A test that dies must not leave daemons behind.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		s.t.Fatalf("start %s: %v", name, err)
	}
	d := &daemon{cmd: cmd, done: make(chan struct{})}
	go func() {
		d.err = cmd.Wait()
		close(d.done)
	}()
	return d
}

func (s *Switch) kill(d *daemon) {
	if d == nil {
		return
	}
	if err := d.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		s.t.Errorf("kill %s: %v", d.cmd.Path, err)
	}
	<-d.done
}

// waitSocket waits until something answers at a unix socket.
func (s *Switch) waitSocket(path string, d *daemon) {
	s.t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(startTimeout)
	for {
		c, err := net.Dial("unix", path)
		if err == nil {
			if err := c.Close(); err != nil {
				s.t.Fatalf("close %s: %v", path, err)
			}
			return
		}
		select {
		case <-d.done:
			s.t.Fatalf("%v ended: %v", d.cmd.Args, d.err)
		case <-deadline:
			s.t.Fatalf("no answer at %s: %v", path, err)
		case <-tick.C:
		}
	}
}

// Try runs a tool of Open vSwitch (ovs-vsctl, ovs-ofctl, ovs-appctl, ...) against this switch
// and gives what it wrote to standard output.
func (s *Switch) Try(tool string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, tool, args...)
	cmd.Env = s.env
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%s %s: %w: %s", tool, strings.Join(args, " "), err, strings.TrimSpace(errs.String()))
	}
	return out.String(), nil
}

func (s *Switch) run(tool string, args ...string) string {
	s.t.Helper()
	out, err := s.Try(tool, args...)
	if err != nil {
		s.t.Fatal(err)
	}
	return out
}

// Vsctl runs ovs-vsctl against this switch's database and fails the test where it fails.
func (s *Switch) Vsctl(args ...string) string {
	s.t.Helper()
	return s.run("ovs-vsctl", append([]string{"--db=" + s.DB()}, args...)...)
}

// Ofctl runs ovs-ofctl with OpenFlow 1.5; name a bridge by its name.
func (s *Switch) Ofctl(args ...string) string {
	s.t.Helper()
	return s.run("ovs-ofctl", append([]string{"-O", "OpenFlow15"}, args...)...)
}

// Appctl asks ovs-vswitchd as ovs-appctl does, by a connection of its own, and fails the test where it refuses.
func (s *Switch) Appctl(method string, params ...string) string {
	s.t.Helper()
	out, err := s.ask(method, params)
	if err != nil {
		s.t.Fatalf("%s %v: %v", method, params, err)
	}
	return out
}

// ask speaks the JSON-RPC of the switch's control socket.
func (s *Switch) ask(method string, params []string) (string, error) {
	c, err := net.DialTimeout("unix", s.path("ovs-vswitchd.ctl"), startTimeout)
	if err != nil {
		return "", err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(startTimeout)); err != nil {
		return "", err
	}
	if params == nil {
		params = []string{}
	}
	if err := json.NewEncoder(c).Encode(map[string]any{"id": 0, "method": method, "params": params}); err != nil {
		return "", err
	}
	var reply struct {
		Result string
		Error  any
	}
	if err := json.NewDecoder(c).Decode(&reply); err != nil {
		return "", err
	}
	if reply.Error != nil {
		return "", fmt.Errorf("%v", reply.Error)
	}
	return reply.Result, nil
}

// AddBridge makes a bridge with the dummy datapath, which makes no interface on the machine
// and whose ports take packets from [Switch.Receive]. It speaks OpenFlow 1.5 and drops what
// no flow matches. Further arguments are columns for "set bridge", such as
// "datapath_type=netdev".
func (s *Switch) AddBridge(name string, columns ...string) {
	s.t.Helper()
	args := []string{"add-br", name, "--", "set", "bridge", name, "datapath_type=dummy", "fail_mode=secure", "protocols=OpenFlow15"}
	s.Vsctl(append(args, columns...)...)
}

// AddPort adds a dummy port with an OpenFlow port number to a bridge of the dummy datapath.
func (s *Switch) AddPort(bridge, name string, number int) {
	s.t.Helper()
	s.Vsctl("add-port", bridge, name, "--", "set", "interface", name, "type=dummy", fmt.Sprintf("ofport_request=%d", number))
}

// Receive makes a dummy port receive a packet, from the Ethernet header on.
func (s *Switch) Receive(port string, packet []byte) {
	s.t.Helper()
	s.Appctl("netdev-dummy/receive", port, fmt.Sprintf("%x", packet))
}
