// Package ovsdbtest starts private Open vSwitch daemons, and fake database servers that
// say what a test wants. It is for tests only. What it starts lives in a temporary
// directory and in network namespaces of its own, and ends with the test.
package ovsdbtest

import (
	"bytes"
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"syscall"
	"testing"
	"time"
)

// schemaFile is where Debian's openvswitch-common has the switch's schema.
const schemaFile = "/usr/share/openvswitch/vswitch.ovsschema"

// patience bounds each wait for a daemon.
const patience = 20 * time.Second

// Options say what a Server shall be.
type Options struct {
	// Clustered makes the database a cluster of one member, which keeps a history of transactions.
	Clustered bool
	// Remotes are further ways to listen, such as "ptcp:0:127.0.0.1".
	Remotes []string
	// Args are further arguments of ovsdb-server, such as --private-key=….
	Args []string
}

// A Server is a private ovsdb-server with the Open_vSwitch database, and perhaps an ovs-vswitchd.
type Server struct {
	t    testing.TB
	dir  string
	args []string
	db   *daemon
	vsw  *daemon
}

type daemon struct {
	cmd *exec.Cmd
	out *bytes.Buffer
	end chan struct{}
}

// Start makes an empty database and starts ovsdb-server; it ends with the test.
func Start(t testing.TB, o Options) *Server {
	t.Helper()
	s := &Server{t: t, dir: t.TempDir()}
	t.Cleanup(func() {
		s.KillSwitch()
		s.Kill()
	})
	create := []string{"create", s.path("conf.db"), schemaFile}
	if o.Clustered {
		create = []string{"create-cluster", s.path("conf.db"), schemaFile, "unix:" + s.path("raft.sock")}
	}
	s.run("ovsdb-tool", create...)
	s.args = []string{s.path("conf.db"), "--remote=punix:" + s.path("db.sock"), "--unixctl=" + s.path("db.ctl"),
		"--log-file=" + s.path("db.log"), "-vconsole:off"}
	for _, r := range o.Remotes {
		s.args = append(s.args, "--remote="+r)
	}
	s.args = append(s.args, o.Args...)
	s.Restart()
	return s
}

func (s *Server) path(name string) string { return filepath.Join(s.dir, name) }

// Address is where the database is, in the form of a client's address.
func (s *Server) Address() string { return "unix:" + s.path("db.sock") }

// run runs a tool to its end and gives what it wrote.
func (s *Server) run(name string, args ...string) string {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = s.env()
	out, err := cmd.CombinedOutput()
	if err != nil {
		s.t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return string(out)
}

// VSCtl runs ovs-vsctl on the database and gives what it wrote.
func (s *Server) VSCtl(args ...string) string {
	s.t.Helper()
	return s.run("ovs-vsctl", append([]string{"--db=" + s.Address(), "--no-wait", "--timeout=15"}, args...)...)
}

// Appctl runs ovs-appctl on ovsdb-server.
func (s *Server) Appctl(args ...string) string {
	s.t.Helper()
	return s.run("ovs-appctl", append([]string{"-t", s.path("db.ctl")}, args...)...)
}

func (s *Server) env() []string {
	return append(os.Environ(), "OVS_RUNDIR="+s.dir, "OVS_LOGDIR="+s.dir, "OVS_DBDIR="+s.dir)
}

func (s *Server) start(attr *syscall.SysProcAttr, name string, args ...string) *daemon {
	s.t.Helper()
	d := &daemon{cmd: exec.Command(name, args...), out: new(bytes.Buffer), end: make(chan struct{})}
	d.cmd.Env, d.cmd.Dir = s.env(), s.dir
	d.cmd.Stdout, d.cmd.Stderr = d.out, d.out
	attr.Pdeathsig = syscall.SIGKILL
	d.cmd.SysProcAttr = attr
	if err := d.cmd.Start(); err != nil {
		s.t.Fatalf("start %s: %v", name, err)
	}
	go func() {
		_ = d.cmd.Wait() // a killed daemon is always an error
		close(d.end)
	}()
	return d
}

func (d *daemon) kill(sig os.Signal) {
	_ = d.cmd.Process.Signal(sig) // it may have ended by itself
	<-d.end
}

// until waits until is says true.
func (s *Server) until(d *daemon, what string, is func() bool) {
	s.t.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !is() {
		select {
		case <-d.end:
			s.t.Fatalf("%s: %s ended: %s", what, d.cmd.Path, d.out)
		case <-deadline:
			s.t.Fatalf("%s: not within %v", what, patience)
		case <-tick.C:
		}
	}
}

// Kill ends ovsdb-server by SIGKILL.
func (s *Server) Kill() {
	if s.db != nil {
		s.db.kill(syscall.SIGKILL)
		s.db = nil
	}
}

// Restart starts ovsdb-server again on the same database and waits until it serves.
func (s *Server) Restart() {
	s.t.Helper()
	s.Kill()
	if err := os.Remove(s.path("db.log")); err != nil && !os.IsNotExist(err) {
		s.t.Fatal(err)
	}
	s.db = s.start(&syscall.SysProcAttr{}, "ovsdb-server", s.args...)
	s.until(s.db, "ovsdb-server listens", func() bool {
		c, err := net.Dial("unix", s.path("db.sock"))
		if err != nil {
			return false
		}
		return c.Close() == nil
	})
}

var listening = regexp.MustCompile(`listening on port (\d+)`)

// Port gives the TCP port that the server chose for a remote with port 0.
func (s *Server) Port() string {
	s.t.Helper()
	var port string
	s.until(s.db, "ovsdb-server names its port", func() bool {
		log, err := os.ReadFile(s.path("db.log"))
		if m := listening.FindSubmatch(log); err == nil && m != nil {
			port = string(m[1])
		}
		return port != ""
	})
	return port
}

// StartSwitch starts ovs-vswitchd in a network namespace of its own, and waits until it
// serves the database. Bridges need datapath type "netdev".
func (s *Server) StartSwitch() {
	s.t.Helper()
	s.KillSwitch()
	s.VSCtl("init")
	s.vsw = s.start(&syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}, "ovs-vswitchd", s.Address(), "--disable-system",
		"--unixctl="+s.path("vsw.ctl"), "--pidfile="+s.path("vsw.pid"), "--log-file="+s.path("vsw.log"), "-vconsole:off")
	s.until(s.vsw, "ovs-vswitchd serves", func() bool {
		cmd := exec.Command("ovs-appctl", "-t", s.path("vsw.ctl"), "version")
		return cmd.Run() == nil
	})
}

// KillSwitch ends ovs-vswitchd by SIGKILL.
func (s *Server) KillSwitch() {
	if s.vsw != nil {
		s.vsw.kill(syscall.SIGKILL)
		s.vsw = nil
	}
}

// Empty replaces the database by an empty one. The server must not run.
func (s *Server) Empty() {
	s.t.Helper()
	if err := os.Remove(s.path("conf.db")); err != nil {
		s.t.Fatal(err)
	}
	s.run("ovsdb-tool", "create", s.path("conf.db"), schemaFile)
}
