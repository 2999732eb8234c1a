// Package fake is a hypervisor driver that runs nothing. It keeps guests in memory and does
// what its data say: "the third start fails", "a guest runs for 2 s and then crashes". Tests
// of the agent and of controllers use it, by the thousand: an idle driver has no goroutine
// and a guest costs a few hundred bytes.
//
// It owns a Host (what would outlive an agent) and the Driver over it. All its time comes
// from package time, so that it also works under testing/synctest. It imports hypervisor and
// fault only.
package fake

import (
	"cmp"
	"context"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"yakumo/fault"
	"yakumo/hypervisor"
)

// Op names a method of the driver in a Fault.
type Op string

// The operations that a Fault can hit.
const (
	Capacity   Op = "capacity"
	Ensure     Op = "ensure"
	Remove     Op = "remove"
	Start      Op = "start"
	Stop       Op = "stop"
	Reset      Op = "reset"
	List       Op = "list"
	Watch      Op = "watch"
	ConsoleLog Op = "console log"
	Console    Op = "console"
	Display    Op = "display"
	Devices    Op = "devices"
	Pause      Op = "pause"
	Suspend    Op = "suspend"
	Interrupt  Op = "interrupt"
	Plug       Op = "plug"
	Grow       Op = "grow"
	Reopen     Op = "reopen"
	CopyDisk   Op = "copy disk"
	Mirror     Op = "mirror"
	Mirrored   Op = "mirrored"
	Turn       Op = "turn"
	EndMirror  Op = "end mirror"

	SetPassword Op = "set password"
	Thaw        Op = "thaw"
	Diagnose    Op = "diagnose"
)

// Fault makes calls slow or fail.
type Fault struct {
	Op    Op
	Guest string // only calls for this ID; empty for all
	// Nth is the first call that is hit, among those that match Op and Guest since the host was
	// made, from 1; 0 is as 1. Times is how many calls in a row are hit; 0 is all from Nth on.
	Nth, Times int
	Delay      time.Duration // the call takes this long; ended early by its context
	Err        error         // the call fails with this after the delay, without effect; nil only delays
}

// Behaviour is what a guest does by itself. The zero Behaviour starts at once, runs for ever,
// shuts down at once when its power button is pressed and writes nothing.
type Behaviour struct {
	StartFor time.Duration // Start takes this long
	// RunFor, if not 0, is how long the guest runs before it becomes Then.
	RunFor time.Duration
	Then   hypervisor.Power // Off or Crashed; the zero value stands for Off
	// ShutdownFor is how long the guest takes to shut down after its power button; a negative
	// one ignores the button.
	ShutdownFor time.Duration
	// LetGoFor is how long the guest takes to let go of a device that is unplugged; a negative one never does.
	LetGoFor time.Duration
	MoveFor  time.Duration // copying the guest's memory to another host takes this long
	// MirrorFor is how long it takes until a copy of a disk has nearly all.
	MirrorFor time.Duration
	NoAgent   bool // what its image promises as guest agent never answers
	// First is the guest's first instruction: it is called as soon as the guest runs, before Start returns.
	First func(g hypervisor.Guest)
	// Greeting is written to the console at each start and reset.
	Greeting string
}

// HostConfig configures a Host.
type HostConfig struct {
	// Capacity is given back as it is; the zero Capacity stands for 64 processors, 256 GiB of
	// memory and 1 TiB of disk.
	Capacity hypervisor.Capacity
	Faults   []Fault
	Guests   Behaviour            // of every guest
	ByGuest  map[string]Behaviour // of guests by ID, in place of Guests
}

// Host is what outlives a driver: guests and their state. It can be shared by drivers, one
// after another or at once, as an agent restarts.
type Host struct {
	cfg  HostConfig
	feed hypervisor.Feed

	mu     sync.Mutex
	guests map[string]*guest
	moves  moves
	calls  []int // per fault, how many calls matched it
	down   bool

	contents map[string][]byte // by a disk's address, what guests wrote to it
}

type guest struct {
	spec  hypervisor.Guest // as last ensured
	live  hypervisor.Guest // what it was started with and plugged into it; while it is on or suspended
	state hypervisor.State
	log   []byte
	began time.Time        // its last start
	sizes map[string]int64 // by serial, as Grow told

	mirrors map[string]*mirror // by serial

	passwords  map[string]string // by user
	interrupts int
	quiesced   int
	frozen     bool
	// run counts starts, so that a timer of an earlier run does nothing to a later one.
	run     int
	off     chan struct{} // closed when the current run ends
	console *console
}

// NewHost makes a host without guests.
func NewHost(cfg HostConfig) *Host {
	if cfg.Capacity.VCPUs == 0 && cfg.Capacity.MemoryMiB == 0 {
		cfg.Capacity = hypervisor.Capacity{
			Hostname: "fake", VCPUs: 64, MemoryMiB: 256 << 10, DiskGiB: 1 << 10,
			Arch: "x86_64", CPUModel: "fake", CPUVendor: "fake", CPUFeatures: []string{},
			Cells: 1, Sockets: 1, Cores: 32, Threads: 2,
			HypervisorType: "fake", HypervisorVersion: 1_000_000, Accelerator: "tcg",
		}
	}
	return &Host{cfg: cfg, guests: map[string]*guest{}, calls: make([]int, len(cfg.Faults)), contents: map[string][]byte{}}
}

// Driver is the driver over a Host. It has no state of its own.
type Driver struct{ h *Host }

// Config configures a Driver.
type Config struct {
	Host *Host // nil for a new host that behaves well
}

// New makes a driver.
func New(cfg Config) *Driver {
	if cfg.Host == nil {
		cfg.Host = NewHost(HostConfig{})
	}
	return &Driver{h: cfg.Host}
}

var (
	_ hypervisor.Driver   = (*Driver)(nil)
	_ hypervisor.Consoler = (*Driver)(nil)
)

// Disconnect makes every call fail as Unavailable and ends every watch, as a hypervisor daemon
// that was killed does. Guests run on.
func (h *Host) Disconnect() {
	h.mu.Lock()
	h.down = true
	h.mu.Unlock()
	h.feed.End()
}

// Connect ends what Disconnect began.
func (h *Host) Connect() {
	h.mu.Lock()
	h.down = false
	h.mu.Unlock()
}

// Crash ends the guest's run as the death of its process would. It tells whether it ran.
func (h *Host) Crash(id string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	g := h.guests[id]
	if g == nil || !g.on() {
		return false
	}
	h.end(g, hypervisor.Crashed, "process died")
	return true
}

// Guest gives the definition of a guest as it was last ensured.
func (h *Host) Guest(id string) (hypervisor.Guest, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if g := h.guests[id]; g != nil {
		return g.spec, true
	}
	return hypervisor.Guest{}, false
}

// enter is the first thing every call does: the daemon may be down, and a fault may wait.
func (h *Host) enter(ctx context.Context, op Op, id string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	h.mu.Lock()
	down := h.down
	var delay time.Duration
	var err error
	for i, f := range h.cfg.Faults {
		if f.Op != op || f.Guest != "" && f.Guest != id || down {
			continue
		}
		h.calls[i]++
		first := max(f.Nth, 1)
		if n := h.calls[i]; n < first || f.Times > 0 && n >= first+f.Times {
			continue
		}
		delay += f.Delay
		err = cmp.Or(err, f.Err)
	}
	h.mu.Unlock()
	if down {
		return fault.New(fault.Unavailable, "The hypervisor of this host does not answer.")
	}
	if waitErr := sleep(ctx, delay); waitErr != nil {
		return waitErr
	}
	return err
}

func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (h *Host) behaviour(id string) Behaviour {
	if b, ok := h.cfg.ByGuest[id]; ok {
		return b
	}
	return h.cfg.Guests
}

// become sets a guest's state and tells the watchers; h.mu is held.
func (h *Host) become(g *guest, p hypervisor.Power, reason string) {
	g.state = hypervisor.State{ID: g.spec.ID, Power: p, Reason: reason, Since: time.Now()}
	h.feed.Publish(g.state)
}

// hold is become for a guest that is paused for its move; h.mu is held.
func (h *Host) hold(g *guest, reason string) {
	g.state = hypervisor.State{ID: g.spec.ID, Power: hypervisor.Paused, Reason: reason, Since: time.Now(), Moving: true}
	h.feed.Publish(g.state)
}

// end ends the guest's run; h.mu is held.
func (h *Host) end(g *guest, p hypervisor.Power, reason string) {
	g.run++
	g.mirrors = nil
	close(g.off)
	if g.console != nil {
		g.console.hangUp()
		g.console = nil
	}
	h.become(g, p, reason)
}

// write appends to the guest's console log and to an open console; h.mu is held.
func (h *Host) write(g *guest, p []byte) {
	if g.spec.ConsoleLog != "" {
		g.log = append(g.log, p...)
		if over := int64(len(g.log)) - g.spec.ConsoleLogBound(); over > 0 {
			g.log = slices.Clone(g.log[over:])
		}
	}
	if g.console != nil {
		g.console.feed(p)
	}
}

// Capacity implements hypervisor.Driver.
func (d *Driver) Capacity(ctx context.Context) (hypervisor.Capacity, error) {
	if err := d.h.enter(ctx, Capacity, ""); err != nil {
		return hypervisor.Capacity{}, err
	}
	return d.h.cfg.Capacity, nil
}

// Ensure implements hypervisor.Driver.
func (d *Driver) Ensure(ctx context.Context, spec hypervisor.Guest) error {
	if err := spec.Check(); err != nil {
		return err
	}
	if err := d.h.enter(ctx, Ensure, spec.ID); err != nil {
		return err
	}
	spec.Disks, spec.NICs = slices.Clone(spec.Disks), slices.Clone(spec.NICs)
	d.h.mu.Lock()
	defer d.h.mu.Unlock()
	for _, other := range d.h.guests {
		if other.spec.Name == spec.Name && other.spec.ID != spec.ID {
			return fault.New(fault.Conflict, "The name %s is taken by guest %s.", spec.Name, other.spec.ID)
		}
	}
	g := d.h.guests[spec.ID]
	if g == nil {
		g = &guest{spec: spec}
		d.h.guests[spec.ID] = g
		d.h.become(g, hypervisor.Off, "")
	}
	g.spec = spec
	return nil
}

// Remove implements hypervisor.Driver.
func (d *Driver) Remove(ctx context.Context, id string) error {
	if err := d.h.enter(ctx, Remove, id); err != nil {
		return err
	}
	d.h.mu.Lock()
	defer d.h.mu.Unlock()
	g := d.h.guests[id]
	if g == nil {
		return nil
	}
	if g.on() {
		d.h.end(g, hypervisor.Off, "stopped")
	}
	delete(d.h.guests, id)
	d.h.become(g, hypervisor.Absent, "removed")
	return nil
}

// Start implements hypervisor.Driver.
func (d *Driver) Start(ctx context.Context, id string) error {
	if err := d.h.enter(ctx, Start, id); err != nil {
		return err
	}
	b := d.h.behaviour(id)
	if err := sleep(ctx, b.StartFor); err != nil {
		return err
	}
	h := d.h
	first := func() {}
	defer func() { first() }()
	h.mu.Lock()
	defer h.mu.Unlock()
	g := h.guests[id]
	if g == nil {
		return hypervisor.NotFound(id)
	}
	switch g.state.Power {
	case hypervisor.Running:
		return nil
	case hypervisor.Paused:
		h.become(g, hypervisor.Running, "resumed")
		return nil
	}
	restored := g.state.Power == hypervisor.Suspended
	g.run++
	g.off = make(chan struct{})
	if restored {
		h.become(g, hypervisor.Running, "restored")
		return nil
	}
	g.live, g.began, g.sizes = g.spec, time.Now(), nil
	h.become(g, hypervisor.Running, "started")
	h.write(g, []byte(b.Greeting))
	if spec := g.spec; b.First != nil {
		first = func() { b.First(spec) }
	}
	if b.RunFor > 0 {
		run := g.run
		time.AfterFunc(b.RunFor, func() {
			h.mu.Lock()
			defer h.mu.Unlock()
			if g.run != run {
				return
			}
			if b.Then == hypervisor.Crashed {
				h.end(g, hypervisor.Crashed, "process died")
			} else {
				h.end(g, hypervisor.Off, "shut down")
			}
		})
	}
	return nil
}

// Stop implements hypervisor.Driver.
func (d *Driver) Stop(ctx context.Context, id string, grace time.Duration) error {
	if err := d.h.enter(ctx, Stop, id); err != nil {
		return err
	}
	h := d.h
	h.mu.Lock()
	g := h.guests[id]
	if g == nil {
		h.mu.Unlock()
		return hypervisor.NotFound(id)
	}
	if !g.on() {
		if g.state.Power == hypervisor.Suspended {
			h.become(g, hypervisor.Off, "stopped")
		}
		h.mu.Unlock()
		return nil
	}
	run, off, b := g.run, g.off, h.behaviour(id)
	awake := g.state.Power == hypervisor.Running
	h.mu.Unlock()

	wait, reason := grace, "stopped"
	if b.ShutdownFor >= 0 && b.ShutdownFor < grace && awake {
		wait, reason = b.ShutdownFor, "shut down"
	}
	if wait > 0 {
		t := time.NewTimer(wait)
		defer t.Stop()
		select {
		case <-off:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		case <-t.C:
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if g.run == run {
		h.end(g, hypervisor.Off, reason)
	}
	return nil
}

// Reset implements hypervisor.Driver.
func (d *Driver) Reset(ctx context.Context, id string) error {
	if err := d.h.enter(ctx, Reset, id); err != nil {
		return err
	}
	d.h.mu.Lock()
	defer d.h.mu.Unlock()
	g, err := d.h.running(id)
	if err != nil {
		return err
	}
	d.h.write(g, []byte(d.h.behaviour(id).Greeting))
	return nil
}

// running gives a guest that runs; h.mu is held.
func (h *Host) running(id string) (*guest, error) {
	g := h.guests[id]
	if g == nil {
		return nil, hypervisor.NotFound(id)
	}
	if g.state.Power != hypervisor.Running {
		return nil, fault.New(fault.Conflict, "Guest %s is not running; start it first.", id)
	}
	return g, nil
}

// List implements hypervisor.Driver.
func (d *Driver) List(ctx context.Context) ([]hypervisor.State, error) {
	if err := d.h.enter(ctx, List, ""); err != nil {
		return nil, err
	}
	d.h.mu.Lock()
	states := make([]hypervisor.State, 0, len(d.h.guests))
	for _, g := range d.h.guests {
		states = append(states, g.state)
	}
	d.h.mu.Unlock()
	slices.SortFunc(states, func(a, b hypervisor.State) int { return strings.Compare(a.ID, b.ID) })
	return states, nil
}

// Watch implements hypervisor.Driver.
func (d *Driver) Watch(ctx context.Context) (<-chan hypervisor.State, error) {
	if err := d.h.enter(ctx, Watch, ""); err != nil {
		return nil, err
	}
	return d.h.feed.Watch(ctx), nil
}

// ConsoleLog implements hypervisor.Consoler. The log is in memory; no file is made.
func (d *Driver) ConsoleLog(ctx context.Context, id string, maxBytes int64) ([]byte, error) {
	if err := d.h.enter(ctx, ConsoleLog, id); err != nil {
		return nil, err
	}
	d.h.mu.Lock()
	defer d.h.mu.Unlock()
	g := d.h.guests[id]
	if g == nil {
		return nil, hypervisor.NotFound(id)
	}
	log := g.log
	if maxBytes > 0 && int64(len(log)) > maxBytes {
		log = log[int64(len(log))-maxBytes:]
	}
	return slices.Clone(log), nil
}

// Console implements hypervisor.Consoler: the guest echoes what it is sent.
func (d *Driver) Console(ctx context.Context, id string) (io.ReadWriteCloser, error) {
	if err := d.h.enter(ctx, Console, id); err != nil {
		return nil, err
	}
	d.h.mu.Lock()
	defer d.h.mu.Unlock()
	g, err := d.h.running(id)
	if err != nil {
		return nil, err
	}
	if g.console != nil {
		return nil, fault.New(fault.Conflict, "The console of guest %s is in use; close it there first.", id)
	}
	g.console = newConsole(d.h, g)
	return g.console, nil
}
