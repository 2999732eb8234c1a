// Package fence_test simulates a small cloud in time of its own (testing/synctest): the servers' real store, controllers, views and
// link, and hosts' real agents, ledgers and lease-keepers, over an etcd, hypervisors and a network that are in memory. Ways between
// machines break, clocks run apart, processes are killed and hosts lose their power, as a plan says that pgregory.net/rapid draws;
// and at no instant two guests of one server may run.
//
// It may import anything that a server or an agent may.
package fence_test

import (
	"bytes"
	"context"
	"crypto/sha512"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"

	"yakumo/agent"
	"yakumo/agent/agenttest"
	"yakumo/channel/channeltest"
	"yakumo/compute"
	"yakumo/fault"
	"yakumo/hostview"
	"yakumo/hypervisor"
	"yakumo/hypervisor/fake"
	"yakumo/link"
	"yakumo/link/linkpb"
	"yakumo/model"
	"yakumo/network"
	"yakumo/reconcile"
	"yakumo/store"
	"yakumo/store/storetest"
)

const project = "11111111111111111111111111111111"

// errDead is what a process that was killed gets from the world.
var errDead = fault.New(fault.Unavailable, "The process is dead.")

// cloud is one simulation.
type cloud struct {
	t       *testing.T
	ctx     context.Context
	end     context.CancelFunc
	dir     string
	began   time.Time
	mem     *storetest.Memory
	net     *underlay
	auth    *channeltest.Authority
	servers []*server
	hosts   []*host
	image   model.ImageCopy
	bytes   []byte
	admin   *serverLife // what the test itself asks with; it is never killed
	flavors []*model.Flavor
	network model.ID
	wg      sync.WaitGroup
	log     *slog.Logger

	mu    sync.Mutex
	story []string
	wrong string // the first thing that must not be
}

// tell notes what happens.
func (c *cloud) tell(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.story = append(c.story, fmt.Sprintf("%8.3f ", time.Since(c.began).Seconds())+fmt.Sprintf(format, args...))
}

func (c *cloud) blame(format string, args ...any) {
	c.tell("WRONG: "+format, args...)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.wrong == "" {
		c.wrong = fmt.Sprintf(format, args...)
	}
}

// Write takes the logs of all processes.
func (c *cloud) Write(b []byte) (int, error) {
	if bytes.Contains(b, []byte("certificate was not renewed")) {
		return len(b), nil
	}
	c.tell("  %s", strings.TrimSpace(string(b)))
	return len(b), nil
}

// shape says how a cloud is made.
type shape struct {
	servers, hosts int
	lease          int            // seconds
	rates          []float64      // of each host's clock, to the true one; 1 where absent
	behaviour      fake.Behaviour // of guests
	hostFaults     [][]fake.Fault // of each host
}

// simulate runs f on a cloud, in a bubble, and gives what was wrong, and the story.
func simulate(t *testing.T, sh shape, f func(c *cloud)) (wrong string, story []string) {
	dir, err := os.MkdirTemp(memoryDir(), "fence")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	synctest.Test(t, func(t *testing.T) {
		c := &cloud{t: t, dir: dir, began: time.Now(), mem: storetest.NewMemory(), auth: channeltest.NewAuthority(t), bytes: []byte("an image")}
		c.log = slog.New(slog.NewTextHandler(c, &slog.HandlerOptions{Level: slog.LevelWarn, ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		}}))
		c.ctx, c.end = context.WithCancel(context.Background())
		c.net = newUnderlay(c.ctx)
		sum := sha512.Sum512(c.bytes)
		c.image = model.ImageCopy{ImageID: model.NewID(), BlobID: model.NewID(), Format: "raw", Size: int64(len(c.bytes)), VirtualSize: int64(len(c.bytes)),
			HashAlgo: "sha512", HashValue: hex.EncodeToString(sum[:])}
		c.admin = c.open("admin", &storetest.Reach{}, c.ctx)
		c.furnish(sh)
		f(c)
		c.close()
		wrong, story = c.wrong, c.story
	})
	return wrong, story
}

// memoryDir is where files cost no flush to a disk.
func memoryDir() string {
	if st, err := os.Stat("/dev/shm"); err == nil && st.IsDir() {
		return "/dev/shm"
	}
	return ""
}

func (c *cloud) close() {
	for _, h := range c.hosts {
		h.kill()
		h.killKeeper()
	}
	for _, s := range c.servers {
		s.kill()
	}
	c.admin.stop()
	c.end()
	c.wg.Wait()
	synctest.Wait()
}

// update is a request of the test.
func (c *cloud) update(f func(tx *store.Tx) error) error {
	_, err := c.admin.st.Update(c.ctx, f)
	return err
}

func (c *cloud) must(f func(tx *store.Tx) error) {
	if err := c.update(f); err != nil {
		panic(fmt.Sprintf("%v\n%s", err, strings.Join(c.story, "\n")))
	}
}

func (c *cloud) furnish(sh shape) {
	specs := map[string]string{model.HALeaseKey: fmt.Sprint(sh.lease)}
	for i, n := range []string{"small", "large"} {
		c.flavors = append(c.flavors, &model.Flavor{ID: fmt.Sprint(i + 1), Name: n, VCPUs: 1, MemoryMiB: 64 << i, DiskGiB: 1, Public: true, ExtraSpecs: specs})
	}
	name, dhcp := "n", true
	c.must(func(tx *store.Tx) error {
		n, err := c.admin.net.CreateNetwork(tx, network.Scope{ProjectID: project}, network.NetworkSpec{Name: &name})
		if err != nil {
			return err
		}
		c.network = n.ID
		cidr := netip.MustParsePrefix("10.0.0.0/24")
		_, err = c.admin.net.CreateSubnet(tx, network.Scope{ProjectID: project}, network.SubnetSpec{NetworkID: n.ID, CIDR: cidr, DHCP: &dhcp})
		return err
	})
	for i := range sh.hosts {
		h := &host{c: c, i: i, name: fmt.Sprintf("h%d", i), rate: 1, sw: &plainSwitch{rows: map[model.RowID]bool{}, devices: map[model.ID]bool{}}, taps: &agenttest.Taps{}}
		if i < len(sh.rates) {
			h.rate = sh.rates[i]
		}
		cfg := fake.HostConfig{Guests: sh.behaviour}
		if i < len(sh.hostFaults) {
			cfg.Faults = sh.hostFaults[i]
		}
		h.guests = fake.NewHost(cfg)
		h.dir = filepath.Join(c.dir, h.name)
		row := &model.Host{Meta: model.NewMeta("", h.name, time.Now()), Zone: "nova", TunnelIP: h.tunnel(), Underlay: 1500,
			Capacity: model.HostCapacity{VCPUs: 64, MemoryMiB: 65536, DiskGiB: 1000, Arch: "x86_64"}}
		h.id = row.ID
		h.cred = c.auth.Host(h.id)
		c.must(func(tx *store.Tx) error { return store.Hosts.Put(tx, row) })
		c.hosts = append(c.hosts, h)
		h.watch()
	}
	for i := range sh.servers {
		s := &server{c: c, name: fmt.Sprintf("s%d", i)}
		c.servers = append(c.servers, s)
		s.start()
	}
	for _, h := range c.hosts {
		h.powerOn()
	}
	if !c.wait(time.Minute, func() bool {
		return !slices.ContainsFunc(c.hosts, func(h *host) bool { _, heard := store.Heartbeats.Get(c.admin.st.Snapshot(), h.id); return !heard })
	}) {
		c.blame("the hosts are not there")
	}
}

// server is a server's machine; its process may be dead.
type server struct {
	c    *cloud
	name string

	mu  sync.Mutex
	now *serverLife
	cut bool // from the store
}

// serverLife is one life of a server process.
type serverLife struct {
	ctx    context.Context
	cancel context.CancelFunc
	reach  *storetest.Reach
	st     *store.Store
	net    *network.Network
	comp   *compute.Compute
	link   *link.Server
	wg     sync.WaitGroup
}

// serving gives the process where it takes streams, and its half of the link.
func (s *server) serving() (*serverLife, *link.Server) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.now == nil || s.now.link == nil {
		return nil, nil
	}
	return s.now, s.now.link
}

func (s *server) life() *serverLife {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now
}

type plainSealer struct{}

func (plainSealer) Seal(_ string, secret []byte) []byte            { return bytes.Clone(secret) }
func (plainSealer) Unseal(_ string, sealed []byte) ([]byte, error) { return sealed, nil }

// open opens the store and the rules over it.
func (c *cloud) open(name string, reach *storetest.Reach, ctx context.Context) *serverLife {
	l := &serverLife{reach: reach}
	l.ctx, l.cancel = context.WithCancel(ctx)
	var err error
	l.st, err = store.Open(l.ctx, store.Config{Client: c.mem.Client(l.ctx, reach), Audit: 24 * time.Hour, Log: c.log.With("at", name)})
	if err != nil {
		l.cancel()
		return nil
	}
	none := map[string]int{}
	for k := range compute.DefaultQuotas() {
		none[k] = -1
	}
	log := c.log.With("at", name)
	l.net = network.New(network.Config{Log: log, Defaults: map[string]int{"network": -1, "subnet": -1, "port": -1, "security_group": -1, "security_group_rule": -1}})
	l.comp = compute.New(compute.Config{Store: l.st, Ports: l.net, Log: log, Defaults: none, MoveWait: 2 * time.Minute})
	return l
}

func (l *serverLife) stop() {
	l.cancel()
	if l.link != nil {
		l.link.Close()
	}
	l.wg.Wait()
	l.st.Close()
}

// start begins a life of the server. It waits for nothing.
func (s *server) start() {
	if s.life() != nil {
		return
	}
	s.c.tell("%s starts", s.name)
	reach := &storetest.Reach{}
	s.mu.Lock()
	if s.cut {
		reach.Cut()
	}
	ctx, cancel := context.WithCancel(s.c.ctx)
	l := &serverLife{ctx: ctx, cancel: cancel, reach: reach}
	s.now = l
	s.mu.Unlock()
	s.c.wg.Go(func() { s.run(l) })
}

func (s *server) run(l *serverLife) {
	defer l.cancel()
	o := s.c.open(s.name, l.reach, l.ctx)
	if o == nil {
		return
	}
	defer o.st.Close()
	a, err := link.OpenAuthority(l.ctx, o.st, plainSealer{}, time.Now)
	if err != nil {
		return
	}
	log := s.c.log.With("at", s.name)
	views := hostview.NewEngine(o.st, log)
	up, err := link.NewServer(link.ServerConfig{Store: o.st, Authority: a, Views: views, Sink: o.comp, Identity: s.name, URL: "https://" + s.name, HostTTL: 6 * time.Second,
		GatewayTTL: 80 * time.Second, GatewayGrace: 80 * time.Second, Probe: func(context.Context, netip.AddrPort) bool { return true }, Log: log})
	if err != nil {
		return
	}
	defer up.Close()
	var wg sync.WaitGroup
	wg.Go(func() { views.Run(l.ctx) })
	for _, ctl := range []reconcile.Controller{o.comp.Placer(), o.comp.Sweeper(), o.comp.Mover(), o.comp.Absence(), o.comp.Drainer(), o.comp.Restarter()} {
		wg.Go(func() { reconcile.Run(l.ctx, reconcile.Config{Store: o.st, Identity: s.name, Log: log}, ctl) })
	}
	s.mu.Lock()
	l.link = up
	s.mu.Unlock()
	<-l.ctx.Done()
	wg.Wait()
}

// reachable cuts the server off from the store, or mends that.
func (s *server) reachable(on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cut = !on
	switch {
	case s.now == nil:
	case on:
		s.now.reach.Mend()
	default:
		s.now.reach.Cut()
	}
}

// kill ends the server's process at once: what it has sent to the store may have happened.
func (s *server) kill() {
	s.mu.Lock()
	l := s.now
	s.now = nil
	s.mu.Unlock()
	if l == nil {
		return
	}
	s.c.tell("%s is killed", s.name)
	l.reach.Kill()
	l.cancel()
}

// host is a host's machine: what outlives its processes, and these.
type host struct {
	c      *cloud
	i      int
	name   string
	id     model.ID
	dir    string
	cred   *channeltest.Credentials
	guests *fake.Host
	sw     *plainSwitch
	taps   *agenttest.Taps

	mu     sync.Mutex
	on     bool
	boots  int
	booted time.Time
	rate   float64 // of its clock
	off    time.Duration
	agent  *agentLife
	keeper *keeperLife
	armed  func() bool // at each write to the ledger; true: the agent dies then
}

type agentLife struct {
	dead   atomic.Bool
	a      *agent.Agent
	cancel context.CancelFunc
	board  *board
	ended  chan struct{}
}

type keeperLife struct {
	dead   atomic.Bool
	cancel context.CancelFunc
}

func (h *host) tunnel() netip.Addr { return netip.AddrFrom4([4]byte{192, 0, 2, byte(10 + h.i)}) }

// clock is time since the kernel's start, as the host sees it.
func (h *host) clock() time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.off + time.Duration(float64(time.Since(h.booted))*h.rate)
}

// named puts who calls into a context.
func (h *host) named(ctx context.Context) context.Context {
	own, _, err := h.cred.Certificates()
	if err != nil {
		panic(err)
	}
	return peer.NewContext(ctx, &peer.Peer{Addr: &net.TCPAddr{IP: net.IP{192, 0, 2, byte(10 + h.i)}, Port: 1000},
		AuthInfo: credentials.TLSInfo{State: tls.ConnectionState{PeerCertificates: []*x509.Certificate{own.Leaf}}}})
}

// powerOn starts the machine.
func (h *host) powerOn() {
	h.mu.Lock()
	if h.on {
		h.mu.Unlock()
		return
	}
	h.on = true
	h.boots++
	h.booted, h.off = time.Now(), 10*time.Second
	h.mu.Unlock()
	h.c.tell("%s is powered on", h.name)
	h.start()
}

// powerOff is the loss of power.
func (h *host) powerOff() {
	h.mu.Lock()
	on := h.on
	h.on = false
	h.mu.Unlock()
	if !on {
		return
	}
	h.c.tell("%s loses its power", h.name)
	h.kill()
	h.killKeeper()
	h.guests.PowerCut()
	h.c.check()
}

// start starts the agent, where the machine is on.
func (h *host) start() {
	h.mu.Lock()
	if !h.on || h.agent != nil {
		h.mu.Unlock()
		return
	}
	l := &agentLife{ended: make(chan struct{})}
	h.agent = l
	boot := fmt.Sprint("boot-", h.boots)
	h.mu.Unlock()
	log := h.c.log.With("at", h.name)
	l.board = &board{calls: make(chan net.Conn), over: make(chan struct{})}
	cfg := agent.Config{Dir: h.dir, Hypervisor: &mortalHypervisor{Driver: fake.New(fake.Config{Host: h.guests}), h: h, l: l}, Datapath: &mortalSwitch{h.sw, l}, Taps: h.taps, Disks: disks{},
		TunnelIP: h.tunnel(), HostName: h.name, Zone: "nova", Version: "sim", BootID: boot, Log: log, Clock: h.clock, Grace: 2 * time.Second,
		Channel: netip.AddrPortFrom(h.tunnel(), 9000), Peers: func() (net.Listener, error) { return l.board, nil }, Reach: h.reach,
		Keeper: func() error { h.startKeeper(boot); return nil },
		Keep:   func() error { return h.keep(l) },
		Link: func(x link.Handler) agent.Link {
			var doors []string
			for _, s := range h.c.servers {
				doors = append(doors, s.name)
			}
			return &hostLink{link.NewClient(link.ClientConfig{Servers: doors, Dir: h.dir, Version: "sim", Handler: x, Log: log, Clock: h.clock,
				Connect: func(name string) (linkpb.HostsClient, io.Closer, error) {
					if l.dead.Load() {
						return nil, nil, errDead
					}
					d := &door{h: h, s: h.c.servers[slices.IndexFunc(h.c.servers, func(s *server) bool { return s.name == name })]}
					return d, d, nil
				}}), h, l}
		}}
	a, err := agent.New(cfg)
	if err != nil {
		h.c.blame("%s: %v", h.name, err)
		return
	}
	l.a = a
	ctx, cancel := context.WithCancel(h.c.ctx)
	l.cancel = cancel
	h.c.wg.Go(func() {
		defer close(l.ended)
		if err := a.Run(ctx); err != nil && !l.dead.Load() {
			h.c.blame("the agent of %s ended: %v", h.name, err)
		}
	})
}

// arm sets what is asked at each write to the ledger; nil: nothing.
func (h *host) arm(f func() bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.armed = f
}

// keep is asked before the agent's ledger is written.
func (h *host) keep(l *agentLife) error {
	if l.dead.Load() {
		return errDead
	}
	h.mu.Lock()
	armed := h.armed
	h.mu.Unlock()
	if armed != nil && armed() {
		l.dead.Store(true)
		return errDead
	}
	return nil
}

// kill ends the agent's process: nothing that it does from now on has an effect. It returns when it is gone.
func (h *host) kill() {
	h.mu.Lock()
	l := h.agent
	h.mu.Unlock()
	if l == nil || l.a == nil {
		return
	}
	l.dead.Store(true)
	l.cancel()
	<-l.ended
	h.mu.Lock()
	if h.agent == l {
		h.agent = nil
	}
	h.mu.Unlock()
	h.c.tell("the agent of %s is dead", h.name)
}

func (h *host) startKeeper(boot string) {
	ctx, cancel := context.WithCancel(h.c.ctx)
	k := &keeperLife{cancel: cancel}
	h.mu.Lock()
	if !h.on {
		h.mu.Unlock()
		cancel()
		return
	}
	h.keeper = k
	h.mu.Unlock()
	w := agent.LeaseWatch{Dir: h.dir, BootID: boot, Clock: h.clock, Log: h.c.log.With("at", h.name), Kill: func(late map[model.ID]bool) {
		for id := range late {
			if !k.dead.Load() && h.guests.Crash(id) {
				h.c.tell("the keeper of %s kills %.8s", h.name, id)
			}
		}
	}}
	h.c.wg.Go(func() {
		defer cancel()
		if err := w.Run(ctx); err != nil {
			h.c.blame("the keeper of %s: %v", h.name, err)
		}
	})
}

// powered, lives and kept tell whether the machine is on, and has an agent, and a keeper.
func (h *host) powered() bool { h.mu.Lock(); defer h.mu.Unlock(); return h.on }
func (h *host) lives() bool   { h.mu.Lock(); defer h.mu.Unlock(); return h.agent != nil }
func (h *host) kept() bool    { h.mu.Lock(); defer h.mu.Unlock(); return h.keeper != nil }

func (h *host) killKeeper() {
	h.mu.Lock()
	k := h.keeper
	h.keeper = nil
	h.mu.Unlock()
	if k != nil {
		k.dead.Store(true)
		k.cancel()
	}
}

// reach connects to another host's channel.
func (h *host) reach(ctx context.Context, at netip.AddrPort) (net.Conn, error) {
	o := h.c.hosts[int(at.Addr().As4()[3])-10]
	o.mu.Lock()
	l := o.agent
	o.mu.Unlock()
	if l == nil || l.board == nil {
		return nil, errBroken
	}
	here, there := h.c.net.connection(h.name, o.name)
	select {
	case l.board.calls <- there:
		return here, nil
	case <-l.board.over:
		return nil, errBroken
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// power is what the host runs of a server.
func (h *host) power(id model.ID) hypervisor.Power {
	list, err := fake.New(fake.Config{Host: h.guests}).List(context.Background())
	if err != nil {
		return hypervisor.Absent
	}
	for _, s := range list {
		if s.ID == id {
			return s.Power
		}
	}
	return hypervisor.Absent
}

// watch looks at all hosts whenever a guest of this one has changed.
func (h *host) watch() {
	d := fake.New(fake.Config{Host: h.guests})
	ch, err := d.Watch(h.c.ctx)
	if err != nil {
		panic(err)
	}
	h.c.wg.Go(func() {
		for {
			select {
			case s, ok := <-ch:
				if !ok {
					return
				}
				h.c.tell("%s: %.8s is %v %s", h.name, s.ID, s.Power, s.Reason)
				h.c.check()
			case <-h.c.ctx.Done():
				return
			}
		}
	})
}

// check finds guests that run twice.
func (c *cloud) check() {
	at := map[string]string{}
	for _, h := range c.hosts {
		list, err := fake.New(fake.Config{Host: h.guests}).List(context.Background())
		if err != nil {
			continue
		}
		for _, s := range list {
			if s.Power != hypervisor.Running {
				continue
			}
			if other, twice := at[s.ID]; twice {
				c.blame("guest %.8s runs on %s and on %s", s.ID, other, h.name)
			}
			at[s.ID] = h.name
		}
	}
}

// create makes a server.
func (c *cloud) create(name string, change func(*compute.NewServer)) model.ID {
	n := compute.NewServer{ID: model.NewID(), Name: name, Flavor: c.flavors[0], Copy: c.image, Received: time.Now(),
		Image: &model.Image{Meta: model.Meta{ID: c.image.ImageID}, Status: model.ImageActive, VirtualSize: c.image.VirtualSize}}
	if change != nil {
		change(&n)
	}
	c.must(func(tx *store.Tx) error {
		n := n
		owner := "compute:nova"
		p, err := c.admin.net.CreatePort(tx, network.Scope{ProjectID: project}, network.PortSpec{NetworkID: c.network, DeviceID: &n.ID, DeviceOwner: &owner, Owned: true})
		if err != nil {
			return err
		}
		n.Ports = []model.ID{p.ID}
		_, err = c.admin.comp.Create(tx, scope(), n)
		return err
	})
	return n.ID
}

func scope() compute.Scope {
	return compute.Scope{ProjectID: project, UserID: "u", RequestID: "req-" + model.NewID(), Admin: true}
}

func (c *cloud) get(id model.ID) *model.Server {
	s, ok := store.Servers.Get(c.admin.st.Snapshot(), id)
	if !ok {
		return nil
	}
	return s
}

func (c *cloud) hostOf(id model.ID) *host {
	for _, h := range c.hosts {
		if h.id == id {
			return h
		}
	}
	return nil
}

// sleep lets the simulation's time go by.
func (c *cloud) sleep(d time.Duration) { time.Sleep(d) }

// wait waits for a state, for so long in the simulation's time.
func (c *cloud) wait(patience time.Duration, ok func() bool) bool {
	for end := time.Now().Add(patience); !ok(); {
		if time.Now().After(end) {
			return false
		}
		time.Sleep(250 * time.Millisecond)
	}
	return true
}

// settled tells whether a server runs on its host and nowhere else, and nothing is left of it elsewhere.
func (c *cloud) settled(id model.ID) error {
	s := c.get(id)
	switch {
	case s == nil:
		return errors.New("it is not there")
	case s.Move != nil:
		return fmt.Errorf("it still moves: %s, %s", s.Move.Kind, s.Move.Stage)
	case s.Status.Task != "" || s.Status.Phase != model.PhaseReady:
		return fmt.Errorf("phase %s, task %q", s.Status.Phase, s.Status.Task)
	case s.Status.Power != s.Power && (s.Power != model.PowerOff || s.Status.Power != model.PowerCrashed):
		return fmt.Errorf("it is %s and is to be %s", s.Status.Power, s.Power)
	}
	for _, h := range c.hosts {
		if !h.powered() && h.id != s.Host {
			continue // it will be told when it is back
		}
		p := h.power(id)
		_, err := os.Stat(filepath.Join(h.dir, "servers", id))
		left := !errors.Is(err, os.ErrNotExist)
		switch {
		case h.id != s.Host && (p != hypervisor.Absent || left):
			return fmt.Errorf("%s has something of it: %v, a folder: %v", h.name, p, left)
		case h.id == s.Host && (p == hypervisor.Running) != (s.Power == model.PowerRunning):
			return fmt.Errorf("on its host %s it is %v", h.name, p)
		}
		for _, port := range s.Ports {
			if got := h.sw.Installed(port); got != (h.id == s.Host) {
				return fmt.Errorf("its port is wired on %s: %v", h.name, got)
			}
		}
	}
	return nil
}
