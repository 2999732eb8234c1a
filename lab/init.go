package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"yakumo/model"
)

// Unit is a daemon of a machine.
type Unit struct {
	Name string   `json:"name"`
	Argv []string `json:"argv"`
	Env  []string `json:"env,omitempty"`
	// Ready is a unix socket that must take connections, or a file that must exist, before
	// the next unit starts; empty: the next starts at once.
	Ready string `json:"ready,omitempty"`
	// Listener hands the machine's listening socket to the unit.
	Listener bool `json:"listener,omitempty"`
}

// Machine is what an init is told, by a file.
type Machine struct {
	Name  string `json:"name"`
	Dir   string `json:"dir"` // its folder: logs in log/, the init's own files
	Units []Unit `json:"units"`
	// Bridges and Devices are kept as an operator's network configuration would keep them.
	Bridges []Bridge `json:"bridges,omitempty"`
	Devices []Device `json:"devices,omitempty"`
	// Prepare are commands that run once, before the first unit.
	Prepare [][]string `json:"prepare,omitempty"`
	// Sysctls are values of kernel parameters of the machine's network namespace, by their paths below /proc/sys/net.
	Sysctls map[string]string `json:"sysctls,omitempty"`
}

// restartPause is how long an init waits before it starts an ended unit again.
const restartPause = 300 * time.Millisecond

// Init is process 1 of a machine: it never returns but with an error of its own start.
// listener is the descriptor of the machine's listening socket, or -1.
func Init(specFile string, listener int) error {
	text, err := os.ReadFile(specFile)
	if err != nil {
		return err
	}
	var m Machine
	if err := json.Unmarshal(text, &m); err != nil {
		return fmt.Errorf("%s: %w", specFile, err)
	}
	if os.Getpid() != 1 {
		return errors.New("a lab's init is started by the lab only: it must be process 1 of its own namespaces")
	}
	in := &initd{specFile: specFile, m: m, listener: listener, units: map[string]*unitState{}, log: os.Stderr}
	if err := in.mounts(); err != nil {
		return fmt.Errorf("machine %s: %w", m.Name, err)
	}
	if err := unix.Sethostname([]byte(m.Name)); err != nil {
		return fmt.Errorf("machine %s: set the host name: %w", m.Name, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM, syscall.SIGINT)
	go func() { <-term; cancel() }()
	go in.reap()
	if err := in.control(); err != nil {
		return fmt.Errorf("machine %s: %w", m.Name, err)
	}
	if err := in.prepare(ctx); err != nil {
		return fmt.Errorf("machine %s: %w", m.Name, err)
	}
	go in.keepNetwork(ctx)
	for _, u := range m.Units {
		in.add(u)
	}
	for _, u := range m.Units {
		go in.run(ctx, in.units[u.Name])
		if err := in.await(ctx, u); err != nil {
			break
		}
	}
	<-ctx.Done()
	in.shutdown()
	os.Exit(0)
	return nil
}

type initd struct {
	specFile string
	listener int
	log      io.Writer

	mu      sync.Mutex
	m       Machine
	units   map[string]*unitState
	settled bool // the network is as the description says
}

// machine gives the description that counts now.
func (in *initd) machine() Machine {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.m
}

type unitState struct {
	unit  Unit
	mu    sync.Mutex
	proc  *os.Process
	held  bool // stopped on request
	kick  chan struct{}
	exits chan syscall.WaitStatus
	n     int // starts
}

// mounts gives the machine a /run, /proc and /sys of its own.
func (in *initd) mounts() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	// The machine's folder may itself be below /run or another place that is covered now.
	for _, mnt := range []struct{ fs, at, opts string }{{"proc", "/proc", ""}, {"sysfs", "/sys", ""}, {"tmpfs", "/run", "mode=755,size=256m"}} {
		if err := unix.Mount(mnt.fs, mnt.at, mnt.fs, 0, mnt.opts); err != nil {
			return fmt.Errorf("mount %s: %w", mnt.at, err)
		}
	}
	// Each start of the machine is a boot of its own (random(4)), though the kernel is not.
	if err := os.WriteFile("/run/boot_id", []byte(model.NewID()+"\n"), 0o444); err != nil {
		return err
	}
	if err := unix.Mount("/run/boot_id", "/proc/sys/kernel/random/boot_id", "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mount a boot id: %w", err)
	}
	// libvirt locks a console's device in /var/lock, which is below /run.
	return errors.Join(os.MkdirAll("/run/openvswitch", 0o755), os.MkdirAll("/run/lock", 0o1777))
}

// reap waits for every child: units, and what fell to us when its parent ended.
func (in *initd) reap() {
	for {
		var ws syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &ws, 0, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
			continue
		case err != nil: // no child now
			time.Sleep(20 * time.Millisecond)
			continue
		case !ws.Exited() && !ws.Signaled():
			continue
		}
		in.mu.Lock()
		for _, u := range in.units {
			u.mu.Lock()
			if u.proc != nil && u.proc.Pid == pid {
				u.proc = nil
				u.exits <- ws
			}
			u.mu.Unlock()
		}
		in.mu.Unlock()
	}
}

func (in *initd) add(u Unit) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.units[u.Name] = &unitState{unit: u, kick: make(chan struct{}, 1), exits: make(chan syscall.WaitStatus, 4)}
}

// run keeps a unit running.
func (in *initd) run(ctx context.Context, u *unitState) {
	for ctx.Err() == nil {
		u.mu.Lock()
		held := u.held
		u.mu.Unlock()
		if held {
			select {
			case <-u.kick:
			case <-ctx.Done():
			}
			continue
		}
		if err := in.start(u); err != nil {
			fmt.Fprintf(in.log, "%s: start %s: %v\n", in.m.Name, u.unit.Name, err)
		} else {
			ws := <-u.exits
			fmt.Fprintf(in.log, "%s: %s ended (status %d, signal %v)\n", in.m.Name, u.unit.Name, ws.ExitStatus(), ws.Signal())
		}
		select {
		case <-time.After(restartPause):
		case <-ctx.Done():
		}
	}
}

func (in *initd) start(u *unitState) error {
	out, err := os.OpenFile(filepath.Join(in.m.Dir, "log", u.unit.Name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer out.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		return err
	}
	defer null.Close()
	u.mu.Lock()
	argv := u.unit.Argv
	u.mu.Unlock()
	path, err := exec.LookPath(argv[0])
	if err != nil {
		return err
	}
	files := []*os.File{null, out, out}
	env := append(os.Environ(), u.unit.Env...)
	if u.unit.Listener && in.listener >= 0 {
		fd, err := syscall.Dup(in.listener)
		if err != nil {
			return err
		}
		f := os.NewFile(uintptr(fd), "listener")
		defer f.Close()
		files = append(files, f)
		env = append(env, "LISTEN_FDS=1")
	}
	in.mu.Lock() // reap must not see the child before it is noted
	u.mu.Lock()
	defer in.mu.Unlock()
	defer u.mu.Unlock()
	p, err := os.StartProcess(path, argv, &os.ProcAttr{Files: files, Env: env, Dir: "/", Sys: &syscall.SysProcAttr{Setsid: true}})
	if err != nil {
		return err
	}
	u.proc, u.n = p, u.n+1
	return nil
}

func (in *initd) await(ctx context.Context, u Unit) error {
	for u.Ready != "" && ctx.Err() == nil {
		if st, err := os.Stat(u.Ready); err == nil {
			if st.Mode()&os.ModeSocket == 0 {
				return nil
			}
			if c, err := net.Dial("unix", u.Ready); err == nil {
				c.Close()
				return nil
			}
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
		}
	}
	return ctx.Err()
}

// prepare sets kernel parameters and runs the commands that come first.
func (in *initd) prepare(ctx context.Context) error {
	for path, value := range in.m.Sysctls {
		if err := os.WriteFile(filepath.Join("/proc/sys/net", path), []byte(value), 0); err != nil {
			return err
		}
	}
	for _, c := range in.m.Prepare {
		if out, err := in.output(ctx, c[0], c[1:]...); err != nil {
			return fmt.Errorf("%s: %w: %s", strings.Join(c, " "), err, out)
		}
	}
	return nil
}

func (in *initd) ip(args ...string) error {
	out, err := in.output(context.Background(), "ip", args...)
	if err != nil {
		return fmt.Errorf("ip %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return nil
}

// output runs a short command. Its end is seen by reap like every other's, so it is started
// as a unit without a name and its exit is told the same way.
func (in *initd) output(ctx context.Context, name string, args ...string) ([]byte, error) {
	path, err := exec.LookPath(name)
	if err != nil {
		return nil, err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		w.Close()
		return nil, err
	}
	defer null.Close()
	u := &unitState{exits: make(chan syscall.WaitStatus, 1)}
	key := fmt.Sprintf("\x00%p", u)
	in.mu.Lock()
	p, err := os.StartProcess(path, append([]string{name}, args...), &os.ProcAttr{Files: []*os.File{null, w, w}, Env: os.Environ(), Dir: "/"})
	w.Close()
	if err != nil {
		in.mu.Unlock()
		return nil, err
	}
	u.proc = p
	in.units[key] = u
	in.mu.Unlock()
	defer func() {
		in.mu.Lock()
		delete(in.units, key)
		in.mu.Unlock()
	}()
	stop := context.AfterFunc(ctx, func() { p.Signal(syscall.SIGKILL) })
	defer stop()
	var buf bytes.Buffer
	if _, err := io.Copy(&buf, r); err != nil {
		return buf.Bytes(), err
	}
	if ws := <-u.exits; ws.ExitStatus() != 0 {
		return bytes.TrimSpace(buf.Bytes()), fmt.Errorf("exit status %d", ws.ExitStatus())
	}
	return bytes.TrimSpace(buf.Bytes()), nil
}

// Status is what an init says of a unit.
type Status struct {
	Name    string `json:"name"`
	PID     int    `json:"pid"` // in the machine's own numbering; 0: not running
	Starts  int    `json:"starts"`
	Stopped bool   `json:"stopped"` // on request
}

type request struct {
	// Do is status, stop (TERM), halt (KILL), start, kill (KILL, and it starts again), or reload (take
	// up the description as it is in the file now, and restart the units whose commands differ).
	Do   string `json:"do"`
	Unit string `json:"unit"`
}

type reply struct {
	Units   []Status `json:"units,omitempty"`
	Settled bool     `json:"settled,omitempty"` // the network is as described
	Error   string   `json:"error,omitempty"`
}

// control serves the lab's requests on a socket in the machine's folder.
func (in *initd) control() error {
	path := filepath.Join(in.m.Dir, "control")
	os.Remove(path)
	l, err := listenUnix(path)
	if err != nil {
		return err
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				fmt.Fprintf(in.log, "%s: control: %v\n", in.m.Name, err)
				return
			}
			go func() {
				defer c.Close()
				var q request
				if err := json.NewDecoder(c).Decode(&q); err != nil {
					return
				}
				json.NewEncoder(c).Encode(in.serve(q))
			}()
		}
	}()
	return nil
}

func (in *initd) serve(q request) reply {
	if q.Do == "reload" {
		if err := in.reload(); err != nil {
			return reply{Error: err.Error()}
		}
		return reply{}
	}
	if q.Do == "status" {
		var r reply
		in.mu.Lock()
		r.Settled = in.settled
		in.mu.Unlock()
		for _, u := range in.machine().Units {
			in.mu.Lock()
			s := in.units[u.Name]
			in.mu.Unlock()
			if s == nil {
				continue
			}
			s.mu.Lock()
			st := Status{Name: u.Name, Starts: s.n, Stopped: s.held}
			if s.proc != nil {
				st.PID = s.proc.Pid
			}
			s.mu.Unlock()
			r.Units = append(r.Units, st)
		}
		return r
	}
	in.mu.Lock()
	u := in.units[q.Unit]
	in.mu.Unlock()
	if u == nil {
		return reply{Error: fmt.Sprintf("there is no unit %q on %s", q.Unit, in.m.Name)}
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	sig := syscall.Signal(0)
	switch q.Do {
	case "stop":
		u.held, sig = true, syscall.SIGTERM
	case "halt":
		u.held, sig = true, syscall.SIGKILL
	case "kill":
		sig = syscall.SIGKILL
	case "start":
		u.held = false
		select {
		case u.kick <- struct{}{}:
		default:
		}
	default:
		return reply{Error: fmt.Sprintf("unknown request %q", q.Do)}
	}
	if sig != 0 && u.proc != nil {
		if err := u.proc.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return reply{Error: err.Error()}
		}
	}
	return reply{}
}

// reload takes up the description's networks and commands; units neither come nor go.
func (in *initd) reload() error {
	text, err := os.ReadFile(in.specFile)
	if err != nil {
		return err
	}
	var m Machine
	if err := json.Unmarshal(text, &m); err != nil {
		return fmt.Errorf("%s: %w", in.specFile, err)
	}
	in.mu.Lock()
	in.m.Bridges, in.m.Devices, in.settled = m.Bridges, m.Devices, false
	in.m.Units = slices.Clone(in.m.Units)
	var changed []*unitState
	for i, old := range in.m.Units {
		for _, u := range m.Units {
			if u.Name == old.Name && !slices.Equal(u.Argv, old.Argv) {
				in.m.Units[i].Argv = u.Argv
				in.units[u.Name].mu.Lock()
				in.units[u.Name].unit.Argv = u.Argv
				in.units[u.Name].mu.Unlock()
				changed = append(changed, in.units[u.Name])
			}
		}
	}
	in.mu.Unlock()
	for _, u := range changed {
		u.mu.Lock()
		if u.proc != nil {
			err = errors.Join(err, u.proc.Signal(syscall.SIGTERM))
		}
		u.mu.Unlock()
	}
	return err
}

// shutdown ends units in reverse order, each with a moment to end by itself.
func (in *initd) shutdown() {
	units := in.machine().Units
	for i := len(units) - 1; i >= 0; i-- {
		in.mu.Lock()
		u := in.units[units[i].Name]
		in.mu.Unlock()
		if u == nil {
			continue
		}
		u.mu.Lock()
		u.held = true
		p := u.proc
		u.mu.Unlock()
		if p == nil {
			continue
		}
		p.Signal(syscall.SIGTERM)
		for deadline := time.Now().Add(3 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
			u.mu.Lock()
			gone := u.proc == nil
			u.mu.Unlock()
			if gone {
				break
			}
		}
	}
}
