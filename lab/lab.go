package lab

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"yakumo/cli"
	"yakumo/fault"
	"yakumo/hypervisor/libvirt"
)

// Config says what a lab is. It is kept in the lab's folder, so that later commands know.
type Config struct {
	Dir    string `json:"-"` // the lab's folder
	Binary string `json:"-"` // the yakumo that runs in it; empty: this program
	// Hosts is how many hosts there are, 1 to 200.
	Hosts int `json:"hosts"`
	// API is the address the API listens on: a loopback address and a port, 0 for any.
	API           string `json:"api"`
	AdminPassword string `json:"admin_password"`
	// Accelerator is what guests run on, kvm or tcg; "" is found out by the first Up.
	Accelerator string `json:"accelerator"`
	// Emulator is the QEMU that guests run on, an absolute path; "": libvirt's choice.
	Emulator string `json:"emulator,omitempty"`
	// Containers is how many of the hosts, the last ones, run containers instead of virtual machines.
	Containers int `json:"containers,omitempty"`
	// Underlay are the underlay addresses of hosts that were renumbered, by host.
	Underlay map[string]string `json:"underlay,omitempty"`
	// Files are the folders that WriteClientFiles has written to, absolute.
	Files []string `json:"files,omitempty"`
	// ServerArgs and AgentArgs are added to the commands, for tests.
	ServerArgs []string `json:"server_args,omitempty"`
	AgentArgs  []string `json:"agent_args,omitempty"`
	// Progress is told each step; nil: nobody.
	Progress func(step string, took time.Duration) `json:"-"`
}

// Lab is a lab in a folder, running or not.
type Lab struct {
	cfg Config
}

// serverMachine is the name of the machine that runs the server.
const serverMachine = "server"

// The underlay: the documentation's shared address space (RFC 6598), inside namespaces only.
const (
	underlay       = "underlay"
	underlayPrefix = "100.64.0."
	underlayBits   = "/24"
	linkPort       = 8700
	debugPort      = 8701
)

// The migration network: what hosts send each other beside their guests' traffic. It is the kernel's alone, for a switch in user space
// would be the narrowest part of a move's way.
const (
	migrationNetwork = "migration"
	migrationDevice  = "eth2"
	migrationPrefix  = "100.64.1."
	migrationBits    = "/24"
	channelPort      = 8710
)

// Open opens the lab in a folder for Status, Down and the like, as it was configured last.
func Open(dir, binary string) (*Lab, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	l := &Lab{cfg: Config{Dir: abs, Binary: binary}}
	b, err := os.ReadFile(filepath.Join(abs, "lab.json"))
	if err == nil {
		err = json.Unmarshal(b, &l.cfg)
	}
	if err != nil {
		return l, fault.Wrap(fault.NotFound, err, "There is no lab in %s. Start one with: yakumo lab up", dir)
	}
	return l, nil
}

// New makes a lab's folder, or takes up the one that is there; Up starts it.
func New(cfg Config) (*Lab, error) {
	abs, err := filepath.Abs(cfg.Dir)
	if err != nil {
		return nil, err
	}
	cfg.Dir = abs
	if cfg.Hosts < 1 || cfg.Hosts > 200 {
		return nil, fault.New(fault.Invalid, "A lab has from 1 to 200 hosts, not %d.", cfg.Hosts)
	}
	if old, err := Open(cfg.Dir, cfg.Binary); err == nil { // keep what clients were told
		if cfg.AdminPassword == "" {
			cfg.AdminPassword = old.cfg.AdminPassword
		}
		if cfg.Containers == 0 {
			cfg.Containers = old.cfg.Containers
		}
		if cfg.Accelerator == "" {
			cfg.Accelerator = old.cfg.Accelerator
		}
		if cfg.Emulator == "" {
			cfg.Emulator = old.cfg.Emulator
		}
		if cfg.Files == nil {
			cfg.Files = old.cfg.Files
		}
		if cfg.Underlay == nil {
			cfg.Underlay = old.cfg.Underlay
		}
		if cfg.API == "" || strings.HasSuffix(cfg.API, ":0") {
			cfg.API = old.cfg.API
		}
	}
	if cfg.Containers < 0 || cfg.Containers > cfg.Hosts {
		return nil, fault.New(fault.Invalid, "From 0 to all %d hosts run containers, not %d.", cfg.Hosts, cfg.Containers)
	}
	if cfg.API == "" {
		cfg.API = "127.0.0.1:8780"
	}
	if host, _, err := net.SplitHostPort(cfg.API); err != nil || !net.ParseIP(host).IsLoopback() {
		return nil, fault.New(fault.Invalid, "The lab's API must be on a loopback address and a port, not %q.", cfg.API)
	}
	if cfg.AdminPassword == "" {
		var b [12]byte
		rand.Read(b[:])
		cfg.AdminPassword = hex.EncodeToString(b[:])
	}
	return &Lab{cfg}, nil
}

// Dir is the lab's folder.
func (l *Lab) Dir() string { return l.cfg.Dir }

// URL is where the API is.
func (l *Lab) URL() string { return "http://" + l.cfg.API }

// Credentials are the administrator's.
func (l *Lab) Credentials() cli.Credentials {
	return cli.Credentials{AuthURL: l.URL() + "/identity/v3", Username: "admin", Password: l.cfg.AdminPassword, Project: "admin", UserDomain: "Default", ProjectDomain: "Default"}
}

// HostName is the name of the n-th host, from 1.
func HostName(n int) string { return "host" + strconv.Itoa(n) }

// MachineDir is the folder of a machine.
func (l *Lab) MachineDir(name string) string { return filepath.Join(l.cfg.Dir, name) }

func (l *Lab) hosts() []string {
	var out []string
	for n := range l.cfg.Hosts {
		out = append(out, HostName(n+1))
	}
	return out
}

func (l *Lab) machines() []string {
	return append([]string{serverMachine, OutsideMachine}, l.hosts()...)
}

func (l *Lab) step(name string, f func() error) error {
	began := time.Now()
	if err := f(); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if l.cfg.Progress != nil {
		l.cfg.Progress(name, time.Since(began))
	}
	return nil
}

// Up starts what does not run, and returns when the API answers and every host is up. It
// may be called on a lab that runs, or that was cut off in any state.
func (l *Lab) Up(ctx context.Context) error {
	if os.Geteuid() != 0 {
		return fault.New(fault.Forbidden, "A lab needs root, for namespaces and guests.")
	}
	for _, tool := range []string{"ip", "nsenter", "ovsdb-server", "ovs-vswitchd", "ovs-vsctl", "ovsdb-tool", "libvirtd", "qemu-img", "qemu-system-x86_64", "ethtool"} {
		if _, err := exec.LookPath(tool); err != nil {
			return fault.New(fault.NotFound, "The program %s is missing. Install what a lab needs with: scripts/deps.sh run", tool)
		}
	}
	if err := l.step("see whether guests can run on KVM here", func() error { return l.probe(ctx) }); err != nil {
		return err
	}
	if err := l.step("prepare the folder", l.prepare); err != nil {
		return err
	}
	if err := l.step("start the server's machine", func() error { return l.startMachine(ctx, serverMachine) }); err != nil {
		return err
	}
	if err := l.step(fmt.Sprintf("start %d hosts and the outside", l.cfg.Hosts), func() error {
		for _, m := range l.machines()[1:] {
			if err := l.startMachine(ctx, m); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		return err
	}
	if err := l.step("wire the underlay and the outside", func() error { return l.wire(ctx) }); err != nil {
		return err
	}
	if err := l.step("wait for the API", func() error { return l.awaitAPI(ctx) }); err != nil {
		return err
	}
	if err := l.step("join the hosts", func() error { return l.join(ctx) }); err != nil {
		return err
	}
	return l.step("wait for the hosts and the outside", func() error {
		return errors.Join(l.AwaitHosts(ctx, l.hosts()...), l.awaitNetworks(ctx))
	})
}

// probePatience is how long a guest under KVM may take to show that it runs: it takes a
// fraction of a second where KVM works. The probe is done here once rather than by every host.
const probePatience = 3 * time.Second

func (l *Lab) probe(ctx context.Context) error {
	if l.cfg.Accelerator != "" {
		return nil
	}
	l.cfg.Accelerator = "tcg"
	if _, err := os.Stat("/dev/kvm"); err != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, probePatience)
	defer cancel()
	if err := libvirt.ProbeKVM(ctx, "qemu-system-x86_64"); err == nil {
		l.cfg.Accelerator = "kvm"
	}
	return nil
}

func (l *Lab) prepare() error {
	for _, m := range l.machines() {
		for _, d := range []string{"log", "ovs", "state"} {
			if err := os.MkdirAll(filepath.Join(l.MachineDir(m), d), 0o755); err != nil {
				return err
			}
		}
	}
	if err := os.Chmod(l.cfg.Dir, 0o700); err != nil {
		return err
	}
	if strings.HasSuffix(l.cfg.API, ":0") {
		ln, err := net.Listen("tcp", l.cfg.API)
		if err != nil {
			return err
		}
		l.cfg.API = ln.Addr().String()
		ln.Close()
	}
	if err := l.save(); err != nil {
		return err
	}
	return writeFile(filepath.Join(l.MachineDir(serverMachine), "admin-password"), []byte(l.cfg.AdminPassword+"\n"))
}

// save keeps the configuration for later commands.
func (l *Lab) save() error {
	b, err := json.MarshalIndent(l.cfg, "", "  ")
	if err != nil {
		return err
	}
	return writeFile(filepath.Join(l.cfg.Dir, "lab.json"), b)
}

func writeFile(path string, b []byte) error {
	tmp := path + ".tmp"
	if err := os.WriteFile(tmp, b, 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}

func (l *Lab) binary() (string, error) {
	if l.cfg.Binary != "" {
		return filepath.Abs(l.cfg.Binary)
	}
	return os.Executable()
}

// runsContainers tells whether a host is one of the last, which do.
func (l *Lab) runsContainers(name string) bool {
	hosts := l.hosts()
	return slices.Contains(hosts[len(hosts)-l.cfg.Containers:], name)
}

// spec makes a machine's description.
func (l *Lab) spec(name, bin string) (Machine, error) {
	dir := l.MachineDir(name)
	m := Machine{Name: name, Dir: dir}
	if name == serverMachine {
		link := net.JoinHostPort(underlayPrefix+"1", strconv.Itoa(linkPort))
		m.Units = []Unit{{Name: "server", Listener: true, Argv: append([]string{bin, "server",
			"--data-dir", filepath.Join(dir, "state"), "--link-listen", "0.0.0.0:" + strconv.Itoa(linkPort), "--link-url", "https://" + link,
			"--public-url", l.URL(), "--admin-password-file", filepath.Join(dir, "admin-password"),
			"--debug-listen", "127.0.0.1:" + strconv.Itoa(debugPort), "--name", name}, l.cfg.ServerArgs...)}}
		return m, nil
	}
	units, err := switchUnits(dir)
	if err != nil {
		return m, err
	}
	if name == OutsideMachine {
		return outside(m, bin, units), nil
	}
	addr, err := l.underlayAddress(name)
	if err != nil {
		return m, err
	}
	migration, err := numbered(migrationPrefix, name)
	if err != nil {
		return m, err
	}
	lv := libvirt.Daemon{Dir: filepath.Join(dir, "libvirt"), HostUUID: hostUUID(name), Containers: l.runsContainers(name)}
	kind := "qemu"
	if lv.Containers {
		kind = "lxc"
	}
	if err := lv.WriteConfig(); err != nil {
		return m, err
	}
	m.Bridges = []Bridge{
		{Name: "br-under", Ports: []string{"eth0"}, Addresses: []string{addr + underlayBits}},
		{Name: providerBridge, Ports: []string{"eth1"}},
	}
	m.Devices = []Device{{Name: migrationDevice, Addresses: []string{migration + migrationBits}}}
	m.Sysctls = map[string]string{"ipv4/ping_group_range": "0 2147483647"} // for probes
	args := []string{bin, "agent", "--data-dir", filepath.Join(dir, "state"), "--host-name", name,
		"--server", net.JoinHostPort(underlayPrefix+"1", strconv.Itoa(linkPort)), "--join-token-file", filepath.Join(dir, "join-token"),
		"--tunnel-ip", addr, "--channel-listen", net.JoinHostPort(migration, strconv.Itoa(channelPort)), "--hypervisor", kind, "--libvirt-socket", lv.SocketPath(), "--datapath-type", "netdev", "--accelerator", l.cfg.Accelerator,
		"--volume-engine", "nfs=" + filepath.Join(l.cfg.Dir, "shared"),
		"--bridge-mapping", PhysicalNetwork + ":" + providerBridge, "--dns-forward", OutsideResolver, "--debug-listen", "127.0.0.1:" + strconv.Itoa(debugPort)}
	if l.cfg.Emulator != "" && kind == "qemu" {
		args = append(args, "--emulator", l.cfg.Emulator)
	}
	m.Units = append(units, Unit{Name: "libvirtd", Argv: lv.Command()}, Unit{Name: "agent", Argv: append(args, l.cfg.AgentArgs...)})
	return m, nil
}

// switchUnits are the daemons of a machine's Open vSwitch, whose database is made where there is none.
func switchUnits(dir string) ([]Unit, error) {
	db := filepath.Join(dir, "ovs", "conf.db")
	if _, err := os.Stat(db); errors.Is(err, os.ErrNotExist) {
		if out, err := exec.Command("ovsdb-tool", "create", db+".tmp", "/usr/share/openvswitch/vswitch.ovsschema").CombinedOutput(); err != nil {
			return nil, fmt.Errorf("ovsdb-tool: %w: %s", err, out)
		}
		if err := os.Rename(db+".tmp", db); err != nil {
			return nil, err
		}
	}
	const sock = "/run/openvswitch/db.sock"
	return []Unit{
		{Name: "ovsdb-server", Ready: sock, Argv: []string{"ovsdb-server", db, "--remote=punix:" + sock, "--no-chdir", "-vconsole:warn",
			"--unixctl=/run/openvswitch/ovsdb-server.ctl"}},
		{Name: "ovs-vswitchd", Argv: []string{"ovs-vswitchd", "unix:" + sock, "--no-chdir", "-vconsole:warn", "--unixctl=/run/openvswitch/ovs-vswitchd.ctl"}},
	}, nil
}

// hostUUID is made of the name, so that a host keeps it.
func hostUUID(name string) string {
	h := fmt.Sprintf("%x", []byte(name+"-yakumo-lab-host"))[:32]
	return h[:8] + "-" + h[8:12] + "-4" + h[13:16] + "-8" + h[17:20] + "-" + h[20:32]
}

func (l *Lab) specFile(name string) string { return filepath.Join(l.MachineDir(name), "machine.json") }

// initPID finds a machine's init by what its command line says, 0 where it does not run.
func (l *Lab) initPID(name string) int {
	pids, err := inits(l.specFile(name))
	if err != nil || len(pids) == 0 {
		return 0
	}
	return pids[0]
}

// inits finds the processes "yakumo lab-init SPEC".
func inits(spec string) ([]int, error) {
	dirs, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var out []int
	for _, d := range dirs {
		pid, err := strconv.Atoi(d.Name())
		if err != nil {
			continue
		}
		cmd, err := os.ReadFile("/proc/" + d.Name() + "/cmdline")
		if err != nil {
			continue // gone meanwhile
		}
		args := strings.Split(strings.TrimRight(string(cmd), "\x00"), "\x00")
		if len(args) >= 3 && args[1] == "lab-init" && args[2] == spec {
			out = append(out, pid)
		}
	}
	return out, nil
}

func (l *Lab) writeSpec(m Machine) error {
	b, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	return writeFile(l.specFile(m.Name), b)
}

func (l *Lab) startMachine(ctx context.Context, name string) error {
	if l.initPID(name) != 0 {
		return nil
	}
	bin, err := l.binary()
	if err != nil {
		return err
	}
	m, err := l.spec(name, bin)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if err := l.writeSpec(m); err != nil {
		return err
	}
	log, err := os.OpenFile(filepath.Join(m.Dir, "log", "init.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	os.Remove(filepath.Join(m.Dir, "control"))
	cmd := exec.Command(bin, "lab-init", l.specFile(name))
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Dir = "/"
	if name == serverMachine {
		ln, err := l.listen(ctx)
		if err != nil {
			return err
		}
		defer ln.Close()
		cmd.ExtraFiles = []*os.File{ln}
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true,
		Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS | syscall.CLONE_NEWUTS | syscall.CLONE_NEWPID | syscall.CLONE_NEWIPC}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for {
		if c, err := dialUnix(filepath.Join(m.Dir, "control")); err == nil {
			c.Close()
			return nil
		}
		select {
		case err := <-ended:
			return fmt.Errorf("%s did not start (%w): see %s", name, err, log.Name())
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// listen makes the API's socket. After a crash the port may be held for a moment by what is
// still dying.
func (l *Lab) listen(ctx context.Context) (*os.File, error) {
	for deadline := time.Now().Add(5 * time.Second); ; {
		ln, err := net.Listen("tcp", l.cfg.API)
		if err == nil {
			f, err := ln.(*net.TCPListener).File()
			ln.Close()
			return f, err
		}
		if time.Now().After(deadline) || ctx.Err() != nil {
			return nil, fault.Wrap(fault.Conflict, err, "The API's address %s is taken by another program. Choose another with --api.", l.cfg.API)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func (l *Lab) awaitAPI(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 60*time.Second)
	defer cancel()
	var last error
	for {
		rctx, rcancel := context.WithTimeout(ctx, 2*time.Second)
		req, err := http.NewRequestWithContext(rctx, http.MethodGet, l.URL()+"/healthz", nil)
		if err != nil {
			rcancel()
			return err
		}
		resp, err := http.DefaultClient.Do(req)
		if err == nil {
			body, _ := io.ReadAll(resp.Body)
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				rcancel()
				return nil
			}
			err = fmt.Errorf("%s: %s", resp.Status, body)
		}
		rcancel()
		last = err
		select {
		case <-ctx.Done():
			return fmt.Errorf("the API at %s does not answer (%w): see %s", l.URL(), last, filepath.Join(l.MachineDir(serverMachine), "log", "server.log"))
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// join gives each host that has not joined a token.
func (l *Lab) join(ctx context.Context) error {
	cl, err := cli.Login(ctx, l.Credentials())
	if err != nil {
		return err
	}
	for _, m := range l.hosts() {
		if _, err := os.Stat(filepath.Join(l.MachineDir(m), "state", "host.crt")); err == nil {
			continue
		}
		var out struct {
			Token string `json:"token"`
		}
		if err := cl.Do(ctx, "POST", "/yakumo/v1/join-tokens", map[string]any{"host": m, "ttl": 3600}, &out); err != nil {
			return err
		}
		if err := writeFile(filepath.Join(l.MachineDir(m), "join-token"), []byte(out.Token+"\n")); err != nil {
			return err
		}
	}
	return nil
}

// awaitNetworks waits until every machine's bridges and addresses are what they should be.
func (l *Lab) awaitNetworks(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 60*time.Second)
	defer cancel()
	for {
		late := ""
		for _, m := range l.Status() {
			if !m.Settled {
				late = m.Name
			}
		}
		if late == "" {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the network of %s is not as it should be: see %s", late, filepath.Join(l.MachineDir(late), "log", "init.log"))
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// AwaitHosts waits until the hosts are up.
func (l *Lab) AwaitHosts(ctx context.Context, names ...string) error {
	return l.await(ctx, 60*time.Second, func(hosts []cli.HostInfo) error {
		for _, name := range names {
			i := slices.IndexFunc(hosts, func(h cli.HostInfo) bool { return h.Name == name })
			if i < 0 || !hosts[i].Up {
				return fmt.Errorf("%s is not up: see %s", name, filepath.Join(l.MachineDir(name), "log", "agent.log"))
			}
		}
		return nil
	})
}

// AwaitDown waits until the host is shown down.
func (l *Lab) AwaitDown(ctx context.Context, name string) error {
	return l.await(ctx, 60*time.Second, func(hosts []cli.HostInfo) error {
		for _, h := range hosts {
			if h.Name == name && h.Up {
				return fmt.Errorf("%s is still up", name)
			}
		}
		return nil
	})
}

func (l *Lab) await(ctx context.Context, patience time.Duration, ok func([]cli.HostInfo) error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var cl *cli.Client
	for {
		var err error
		if cl == nil {
			cl, err = cli.Login(ctx, l.Credentials())
		}
		if err == nil {
			var hosts []cli.HostInfo
			if hosts, err = cl.Hosts(ctx); err == nil {
				if err = ok(hosts); err == nil {
					return nil
				}
			} else {
				cl = nil
			}
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// Down ends every process of the lab and removes its folder. It is right on any leftover.
func (l *Lab) Down() error {
	entries, err := os.ReadDir(l.cfg.Dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var pids []int
	for _, e := range entries {
		found, err := inits(l.specFile(e.Name()))
		if err != nil {
			return err
		}
		for _, pid := range found {
			pids = append(pids, pid)
			// The end of process 1 is the end of all in its namespaces.
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
				return err
			}
		}
	}
	for deadline := time.Now().Add(20 * time.Second); len(pids) > 0; time.Sleep(10 * time.Millisecond) {
		pids = slices.DeleteFunc(pids, func(pid int) bool { return gone(pid) })
		if time.Now().After(deadline) {
			return fmt.Errorf("processes %v of the lab do not end", pids)
		}
	}
	return os.RemoveAll(l.cfg.Dir)
}

// gone tells whether a process has ended, waited for or not. Of process 1 of a namespace the last
// thread ends the namespace's other processes, and its first thread may be a zombie long before.
func gone(pid int) bool {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return true
	}
	_, rest, _ := strings.Cut(string(b), ") ")
	if !strings.HasPrefix(rest, "Z") && !strings.HasPrefix(rest, "X") {
		return false
	}
	threads, err := os.ReadDir("/proc/" + strconv.Itoa(pid) + "/task")
	return err != nil || len(threads) <= 1
}

// MachineStatus is what Status tells of a machine.
type MachineStatus struct {
	Name    string   `json:"name"`
	PID     int      `json:"pid"`     // of its init; 0: the machine is off
	Settled bool     `json:"settled"` // its bridges and addresses are as they should be
	Units   []Status `json:"units,omitempty"`
}

// Status asks every machine.
func (l *Lab) Status() []MachineStatus {
	var out []MachineStatus
	for _, m := range l.machines() {
		st := MachineStatus{Name: m, PID: l.initPID(m)}
		if st.PID != 0 {
			if r, err := l.ask(m, request{Do: "status"}); err == nil {
				st.Units, st.Settled = r.Units, r.Settled
			}
		}
		out = append(out, st)
	}
	return out
}

func (l *Lab) ask(machine string, q request) (reply, error) {
	var r reply
	c, err := dialUnix(filepath.Join(l.MachineDir(machine), "control"))
	if err != nil {
		return r, fmt.Errorf("%s does not run: %w", machine, err)
	}
	defer c.Close()
	if err := json.NewEncoder(c).Encode(q); err != nil {
		return r, err
	}
	if err := json.NewDecoder(c).Decode(&r); err != nil {
		return r, err
	}
	if r.Error != "" {
		return r, errors.New(r.Error)
	}
	return r, nil
}

// Unit does something with a daemon of a machine: "kill" (as kill -9; its init starts it
// again), "stop" or "halt" (with TERM or KILL, and it stays so), "start".
func (l *Lab) Unit(machine, unit, do string) error {
	_, err := l.ask(machine, request{Do: do, Unit: unit})
	return err
}

// PowerOff pulls a machine's plug; Up starts it again.
func (l *Lab) PowerOff(machine string) error {
	pid := l.initPID(machine)
	if pid == 0 {
		return nil
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		return err
	}
	for deadline := time.Now().Add(20 * time.Second); !gone(pid); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			return fmt.Errorf("the init of %s does not end", machine)
		}
	}
	return nil
}

// Command makes a command that runs on a machine, in all its namespaces.
func (l *Lab) Command(ctx context.Context, machine string, argv ...string) *exec.Cmd {
	return exec.CommandContext(ctx, "nsenter", append([]string{"-t", strconv.Itoa(l.initPID(machine)), "-n", "-m", "-u", "-p", "-i", "--"}, argv...)...)
}
