// Package fake is a datapath driver in memory: it interprets the pipeline's entries with
// package sim, so that frames really go from device to device, and answers DHCP as the real
// driver does. It serves tests that need no switch, by the thousand, and is driven by data
// where a test wants failures. It owns no process, file or device, and must not import a
// switch's protocol.
package fake

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net/netip"
	"slices"
	"sync"
	"time"

	"yakumo/datapath"
	"yakumo/datapath/neighbor"
	"yakumo/datapath/pipeline"
	"yakumo/datapath/pipeline/sim"
	"yakumo/datapath/responder"
	"yakumo/fault"
	"yakumo/model"
)

// Underlay joins fakes: a packet to a tunnel address reaches the driver that has it.
type Underlay struct {
	mu       sync.Mutex // orders all packets of all hosts
	hosts    map[netip.Addr]*Switch
	segments map[string]*segment
}

// segment is a physical network: what one sends, all others get.
type segment struct {
	switches []*Switch
	devices  []*Device
}

// NewUnderlay makes an underlay without hosts.
func NewUnderlay() *Underlay {
	return &Underlay{hosts: map[netip.Addr]*Switch{}, segments: map[string]*segment{}}
}

// Switch is the switch behind a fake driver. It outlives drivers, as a real one does.
type Switch struct {
	underlay *Underlay
	addr     netip.Addr
	sim      *sim.Switch
	devices  map[string]*Device
	ports    map[model.ID]string // port → device
	service  func(frame []byte)  // the metadata device; nil: nobody listens
	drv      *Driver             // nil: no driver
}

// Device is a network device; its other end is a guest's, or a machine's on a physical network.
type Device struct {
	Name     string
	sw       *Switch // nil: on a physical network
	underlay *Underlay
	physical string
	out      func(frame []byte)
}

// NewSwitch makes a switch with a tunnel address on the underlay.
func NewSwitch(u *Underlay, tunnelIP netip.Addr) *Switch {
	u.mu.Lock()
	defer u.mu.Unlock()
	s := &Switch{underlay: u, addr: tunnelIP, sim: sim.New(), devices: map[string]*Device{}, ports: map[model.ID]string{}}
	u.hosts[tunnelIP] = s
	return s
}

// AddDevice makes a device; out gets the frames that the switch sends to it, one at a time,
// and must not send frames itself.
func (s *Switch) AddDevice(name string, out func(frame []byte)) *Device {
	s.underlay.mu.Lock()
	defer s.underlay.mu.Unlock()
	d := &Device{Name: name, sw: s, underlay: s.underlay, out: out}
	s.devices[name] = d
	return d
}

// Serve gives out what the switch sends to the metadata device, one frame at a time; out must not send frames itself.
func (s *Switch) Serve(out func(frame []byte)) {
	s.underlay.mu.Lock()
	defer s.underlay.mu.Unlock()
	s.service = out
}

// AddProvider makes a device of a machine on a physical network.
func (u *Underlay) AddProvider(physical string, out func(frame []byte)) *Device {
	u.mu.Lock()
	defer u.mu.Unlock()
	d := &Device{Name: physical, underlay: u, physical: physical, out: out}
	s := u.segment(physical)
	s.devices = append(s.devices, d)
	return d
}

// segment gives the physical network of a name. u.mu is held.
func (u *Underlay) segment(physical string) *segment {
	if u.segments[physical] == nil {
		u.segments[physical] = &segment{}
	}
	return u.segments[physical]
}

// carry hands a frame to all on a physical network but who sent it. u.mu is held.
func (u *Underlay) carry(physical string, p sim.Packet, from *Switch, dev *Device) {
	seg := u.segment(physical)
	for _, d := range seg.devices {
		if d != dev {
			d.out(p.Frame())
		}
	}
	for _, s := range seg.switches {
		if s == from || s.drv == nil {
			continue
		}
		if n, err := s.drv.cfg.Ordinals.Get(pipeline.OrdinalProvider, physical, pipeline.MaxProvider); err == nil {
			s.arrive(sim.Arrival{In: pipeline.PortProvider + uint64(n), Packet: p})
		}
	}
}

// Leave takes the switch from the underlay and from all physical networks.
func (s *Switch) Leave() {
	s.underlay.mu.Lock()
	defer s.underlay.mu.Unlock()
	delete(s.underlay.hosts, s.addr)
	for _, seg := range s.underlay.segments {
		seg.switches = slices.DeleteFunc(seg.switches, func(o *Switch) bool { return o == s })
	}
}

// Remove takes the device of a machine off its physical network.
func (d *Device) Remove() {
	d.underlay.mu.Lock()
	defer d.underlay.mu.Unlock()
	seg := d.underlay.segment(d.physical)
	seg.devices = slices.DeleteFunc(seg.devices, func(o *Device) bool { return o == d })
}

// Clear empties the switch, as a restart does; the driver writes everything again.
func (s *Switch) Clear() {
	s.underlay.mu.Lock()
	defer s.underlay.mu.Unlock()
	s.sim = sim.New()
	if d := s.drv; d != nil {
		s.sim.Load(pipeline.Delta{Put: d.prog.All()})
		d.count.Resyncs++
	}
}

// Entries counts the entries in the switch.
func (s *Switch) Entries() int {
	s.underlay.mu.Lock()
	defer s.underlay.mu.Unlock()
	return s.sim.Len()
}

// Send makes the device receive a frame from the guest. A frame that cannot be parsed, or
// comes on a device that is not plugged in, is dropped.
func (d *Device) Send(frame []byte) {
	d.underlay.mu.Lock()
	defer d.underlay.mu.Unlock()
	p, err := sim.Parse(frame)
	if err != nil {
		return
	}
	if d.sw == nil {
		d.underlay.carry(d.physical, p, nil, d)
		return
	}
	drv := d.sw.drv
	if drv == nil {
		return
	}
	for id, name := range d.sw.ports {
		if name != d.Name {
			continue
		}
		// The number is the same whether this driver or an earlier one put the entries there.
		if n, err := drv.cfg.Ordinals.Get(pipeline.OrdinalPort, id, pipeline.MaxPort); err == nil {
			d.sw.arrive(sim.Arrival{In: uint64(n), Packet: p})
		}
	}
}

// Inject implements datapath.Injector.
func (d *Driver) Inject(ctx context.Context, port model.ID, frame []byte) error {
	if err := d.enter(ctx, "Inject"); err != nil {
		return err
	}
	d.lock()
	defer d.unlock()
	p, err := sim.Parse(frame)
	if err != nil {
		return fault.Wrap(fault.Invalid, err, "The frame makes no sense.")
	}
	if d.sw.ports[port] == "" {
		return fault.New(fault.NotFound, "Port %s is not plugged into the switch.", port)
	}
	n, err := d.cfg.Ordinals.Get(pipeline.OrdinalPort, port, pipeline.MaxPort)
	if err == nil {
		d.sw.arrive(sim.Arrival{In: uint64(n), Packet: p})
	}
	return err
}

// arrive runs a packet and hands on what leaves.
func (s *Switch) arrive(a sim.Arrival) {
	s.emit(s.sim.Run(a))
}

// emit hands on what leaves the switch.
func (s *Switch) emit(res sim.Result) {
	for _, out := range res.Out {
		switch {
		case out.Responder != 0:
			s.drv.respond(pipeline.ToAgent{Responder: out.Responder, Port: uint32(out.To), Arg: out.Arg}, out.Packet)
		case out.To >= pipeline.PortTunnel && out.To <= pipeline.PortTunnelGeneve:
			if far := s.underlay.hosts[out.Host]; far != nil {
				far.arrive(sim.Arrival{In: out.To, VNI: out.VNI, Packet: out.Packet})
			}
		case out.To == pipeline.PortService:
			if s.service != nil {
				s.service(out.Packet.Frame())
			}
		case out.To > pipeline.PortProvider:
			if physical, ok := s.drv.cfg.Ordinals.Find(pipeline.OrdinalProvider, uint32(out.To-pipeline.PortProvider)); ok {
				s.underlay.carry(physical, out.Packet, s, nil)
			}
		case out.To < pipeline.PortTunnel:
			s.deliver(uint32(out.To), out.Packet.Frame())
		}
	}
}

func (s *Switch) deliver(ordinal uint32, frame []byte) {
	if s.drv == nil {
		return
	}
	id, ok := s.drv.cfg.Ordinals.Find(pipeline.OrdinalPort, ordinal)
	if !ok {
		return
	}
	if d := s.devices[s.ports[id]]; d != nil {
		d.out(frame)
	}
}

// Failure makes the N-th call (from 1) of a method fail with Err, before it does anything.
type Failure struct {
	Method string // Apply, Prune, Attach or Detach
	N      int
	Err    error
}

// Config says what a fake drives.
type Config struct {
	Switch   *Switch              // nil: a switch of its own, joined to nothing
	Ordinals datapath.Ordinals    // nil: in memory
	Env      pipeline.Env         // DefaultEnv
	Physical []string             // the physical networks that the switch is joined to
	Notify   func(datapath.Event) // called with the driver locked: it must not call the driver
	Failures []Failure
}

// Driver is a datapath.Driver in memory.
type Driver struct {
	cfg   Config
	sw    *Switch
	prog  *pipeline.Program
	wired map[model.ID]bool
	calls map[string]int
	count datapath.Counters
	done  bool

	listeners *responder.Listeners
	neighbors *neighbor.Table
	timer     *time.Timer // nil: nothing is due
}

var _ datapath.Driver = (*Driver)(nil)

// New makes a driver. What an earlier driver left in the switch stays until Prune.
func New(cfg Config) (*Driver, error) {
	if cfg.Switch == nil {
		cfg.Switch = NewSwitch(NewUnderlay(), netip.Addr{})
	}
	if cfg.Ordinals == nil {
		cfg.Ordinals = datapath.NewMemoryOrdinals()
	}
	if !cfg.Env.MetadataPrefix.IsValid() {
		cfg.Env = pipeline.DefaultEnv()
	}
	cfg.Env.PhysicalNetworks = cfg.Physical
	if err := cfg.Env.Validate(); err != nil {
		return nil, fmt.Errorf("make fake driver: %w", err)
	}
	d := &Driver{cfg: cfg, sw: cfg.Switch, prog: pipeline.NewProgram(cfg.Env, cfg.Ordinals), wired: map[model.ID]bool{}, calls: map[string]int{}, listeners: responder.NewListeners(), neighbors: neighbor.New()}
	d.count.Connects, d.count.Connected = 1, true
	d.lock()
	defer d.unlock()
	d.sw.drv = d
	for _, physical := range cfg.Physical {
		if seg := d.sw.underlay.segment(physical); !slices.Contains(seg.switches, d.sw) {
			seg.switches = append(seg.switches, d.sw)
		}
	}
	return d, d.change(d.neighbors.Recall(time.Now(), cfg.Ordinals), nil)
}

func (d *Driver) lock()   { d.sw.underlay.mu.Lock() }
func (d *Driver) unlock() { d.sw.underlay.mu.Unlock() }

// enter counts a call and gives the failure that the test wants of it.
func (d *Driver) enter(ctx context.Context, method string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if d.done {
		return fault.New(fault.Unavailable, "the driver is closed")
	}
	d.calls[method]++
	for _, f := range d.cfg.Failures {
		if f.Method == method && f.N == d.calls[method] {
			return f.Err
		}
	}
	return nil
}

func (d *Driver) change(upserts []model.HostRow, removes []model.RowID) error {
	for _, id := range removes {
		if id.Kind == model.RowPort {
			removes = append(slices.Clip(removes), d.listeners.Forget(id.Key)...)
		}
	}
	news, came, repaired := responder.News(d.prog, upserts), responder.Arrivals(d.prog, upserts), responder.Repaired(d.prog, upserts)
	delta, err := d.prog.Apply(upserts, removes)
	d.sw.sim.Load(delta)
	d.count.Bundles++
	d.count.Added += uint64(len(delta.Put))
	d.count.Deleted += uint64(len(delta.Delete))
	for _, k := range d.prog.TakeReleased() {
		d.free(k)
	}
	for _, network := range news {
		for _, id := range d.prog.PortsIn(network) {
			if d.wired[id] {
				d.announce(id)
			}
		}
	}
	for _, id := range came {
		d.inject(responder.Arrived(d.prog, d.cfg.Ordinals, id)...)
		d.announce(id)
	}
	for _, id := range repaired {
		d.announce(id)
	}
	d.rewire()
	if neighbor.Concerns(upserts, removes) {
		d.found(d.neighbors.Own(time.Now(), d.prog.Outer()))
	}
	return errors.Join(err, d.cfg.Ordinals.Sync())
}

// found takes over what was learnt of neighbours outside, and sends what is to be sent.
func (d *Driver) found(o neighbor.Outcome) {
	if len(o.Learn)+len(o.Forget) > 0 {
		if err := errors.Join(d.change(o.Learn, o.Forget), neighbor.Remember(d.cfg.Ordinals, o)); err != nil {
			panic(fmt.Sprintf("fake: %v", err)) // a defect: the rows are our own
		}
	}
	d.inject(o.Send...)
	if d.timer == nil && !d.neighbors.Idle() && !d.done {
		d.timer = time.AfterFunc(d.neighbors.Wait(time.Now()), func() {
			d.lock()
			defer d.unlock()
			if d.timer = nil; !d.done {
				d.found(d.neighbors.Tick(time.Now()))
			}
		})
	}
}

// free releases an ordinal and forgets its connections.
func (d *Driver) free(k pipeline.OrdinalKey) {
	if k.Kind == pipeline.OrdinalPort {
		if n, err := d.cfg.Ordinals.Get(k.Kind, k.Key, pipeline.MaxPort); err == nil {
			d.sw.sim.Flush(n)
		}
	}
	d.cfg.Ordinals.Release(k.Kind, k.Key)
}

func (d *Driver) isWired(id model.ID) bool {
	_, err := d.prog.Complete(id)
	return err == nil && d.sw.ports[d.prog.DeviceOf(id)] != ""
}

func (d *Driver) rewire() {
	say := func(id model.ID, k datapath.EventKind) {
		if d.cfg.Notify != nil {
			d.cfg.Notify(datapath.Event{Port: id, Kind: k})
		}
	}
	for id := range d.wired {
		if !d.isWired(id) {
			delete(d.wired, id)
			say(id, datapath.Unwired)
		}
	}
	for device := range d.sw.ports {
		for _, id := range d.prog.CarriedBy(device) {
			if !d.wired[id] && d.isWired(id) {
				d.wired[id] = true
				say(id, datapath.Wired)
				d.announce(id)
			}
		}
	}
}

// announce tells the guest of a port what it is told unasked. Where nobody listens on the device it is not
// even made: simulated hosts have thousands of those.
func (d *Driver) announce(id model.ID) {
	if dev := d.sw.devices[d.sw.ports[d.prog.DeviceOf(id)]]; dev != nil && dev.out != nil {
		d.inject(responder.Announce(d.prog, d.cfg.Ordinals, id)...)
	}
}

// Apply implements datapath.Driver.
func (d *Driver) Apply(ctx context.Context, upserts []model.HostRow, removes []model.RowID) error {
	d.lock()
	defer d.unlock()
	if err := d.enter(ctx, "Apply"); err != nil {
		return err
	}
	return d.change(upserts, removes)
}

// Prune implements datapath.Driver.
func (d *Driver) Prune(ctx context.Context, desired iter.Seq[model.HostRow]) error {
	d.lock()
	defer d.unlock()
	if err := d.enter(ctx, "Prune"); err != nil {
		return err
	}
	var upserts []model.HostRow
	keep := map[model.RowID]bool{}
	for r := range desired {
		upserts = append(upserts, r)
		keep[r.RowID()] = true
	}
	var removes []model.RowID
	for _, id := range d.prog.RowIDs() {
		if !keep[id] && !responder.Learned(id.Kind) {
			removes = append(removes, id)
		}
	}
	for id := range d.sw.ports {
		if !keep[model.RowID{Kind: model.RowPort, Key: id}] {
			delete(d.sw.ports, id)
		}
	}
	err := d.change(upserts, removes)
	for _, kind := range pipeline.OwnedKinds() {
		for _, key := range d.cfg.Ordinals.Keys(kind) {
			if k := (pipeline.OrdinalKey{Kind: kind, Key: key}); !d.prog.InUse(k) {
				d.free(k)
			}
		}
	}
	// What an earlier driver left goes; connections stay.
	d.sw.sim.Replace(d.prog.All())
	return errors.Join(err, d.cfg.Ordinals.Sync())
}

// Attach implements datapath.Driver.
func (d *Driver) Attach(ctx context.Context, port model.ID, device string) error {
	d.lock()
	defer d.unlock()
	if err := d.enter(ctx, "Attach"); err != nil {
		return err
	}
	d.sw.ports[port] = device
	d.rewire()
	return nil
}

// Detach implements datapath.Driver.
func (d *Driver) Detach(ctx context.Context, port model.ID) error {
	d.lock()
	defer d.unlock()
	if err := d.enter(ctx, "Detach"); err != nil {
		return err
	}
	delete(d.sw.ports, port)
	d.rewire()
	return nil
}

// Installed implements datapath.Driver.
func (d *Driver) Installed(port model.ID) bool {
	d.lock()
	defer d.unlock()
	return d.wired[port]
}

// MetadataOwner implements datapath.Driver.
func (d *Driver) MetadataOwner(addr netip.Addr) (datapath.Owner, bool) {
	d.lock()
	defer d.unlock()
	return datapath.OwnerOf(d.prog, d.cfg.Ordinals, addr)
}

// Counters implements datapath.Driver.
func (d *Driver) Counters() datapath.Counters {
	d.lock()
	defer d.unlock()
	c := d.count
	c.Rows, c.Entries, c.Conflicts = d.prog.Rows(), d.prog.Len(), d.prog.Conflicts()
	return c
}

// Close implements datapath.Driver. The switch keeps its entries and goes on.
func (d *Driver) Close() error {
	d.lock()
	defer d.unlock()
	d.done = true
	return nil
}

// Entries gives the lines that the driver's rows compile to, in order.
func (d *Driver) Entries() []string {
	d.lock()
	defer d.unlock()
	var out []string
	for _, in := range d.prog.All() {
		out = append(out, in.Entry.String())
	}
	return out
}

// respond answers a guest's packet as the agent does.
func (d *Driver) respond(to pipeline.ToAgent, p sim.Packet) {
	d.count.PacketIns++
	ask, err := responder.Resolve(d.prog, d.cfg.Ordinals, to, p.Frame())
	if err != nil {
		return
	}
	if claim, ok := responder.Held(ask, d.prog.Holder); ok && d.cfg.Notify != nil {
		d.cfg.Notify(datapath.Event{Port: ask.Port.ID, Kind: datapath.Claimed, Claim: claim})
	}
	if to.Responder == pipeline.ResponderMulticast && ask.Port != nil {
		var l responder.Lesson
		if d.listeners.Hear(ask.Port, ask.Frame, time.Now(), &l); !l.Empty() {
			d.learn(l)
		}
		return
	}
	if to.Responder == pipeline.ResponderResolve || to.Responder == pipeline.ResponderLearn {
		d.found(d.neighbors.Packet(time.Now(), ask))
		return
	}
	replies, err := responder.Answer(ask)
	if err != nil {
		if to.Responder == pipeline.ResponderDHCP {
			d.count.DHCPIgnored++
		}
		return
	}
	d.inject(replies...)
	if to.Responder == pipeline.ResponderDHCP {
		d.count.DHCPReplies++
	}
	if ask.Asks() && d.cfg.Notify != nil {
		d.cfg.Notify(datapath.Event{Port: ask.Port.ID, Kind: datapath.Asked})
	}
}

// learn takes over what was learnt.
func (d *Driver) learn(l responder.Lesson) {
	if err := d.change(l.Upserts, l.Removes); err != nil {
		panic(fmt.Sprintf("fake: %v", err)) // a defect: the rows are our own
	}
}

// inject hands frames to the switch, each at its stage.
func (d *Driver) inject(replies ...responder.Reply) {
	for _, r := range replies {
		if p, err := sim.Parse(r.Frame); err == nil {
			d.sw.emit(d.sw.sim.Inject(r.Stage, r.Fields, p))
		}
	}
}
