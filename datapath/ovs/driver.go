// Package ovs drives one unmodified Open vSwitch: it puts the entries of package pipeline
// into a bridge by OpenFlow 1.5 with Nicira extensions, and makes the bridge and its ports
// by OVSDB.
//
// It owns the bridge it is given by name with everything on it, the tunnel port, the
// metadata device and the conntrack zones of its ports' ordinals. It reads rows, device
// names, the switch's database and packets from guests; it writes the switch and the
// ordinal store. It is the only package that knows both the pipeline and OpenFlow; it must
// not import the store, the API or a hypervisor.
//
// # Rounds
//
// A flow's cookie is round (16 bits) | feature (8) | row (40). Each connection to the
// switch, whether the agent, the switch or neither was new, gets the next round: one atomic
// bundle writes every entry under the new round, which replaces equal ones in place, and
// deletes what is left of all other rounds. So a packet always meets one whole pipeline,
// and a restart of the agent loses none. The rounds' number stands in the bridge's row.
//
// # Ordinals
//
// Conntrack zones and conjunction ids come from the Ordinals store and survive a restart.
// The row part of a cookie does not have to: it only lives within a round.
package ovs

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"maps"
	"net/netip"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vishvananda/netlink"

	"yakumo/datapath"
	"yakumo/datapath/neighbor"
	"yakumo/datapath/pipeline"
	"yakumo/datapath/responder"
	"yakumo/fault"
	"yakumo/model"
	"yakumo/openflow"
	"yakumo/ovsdb"
)

// Datapath types.
const (
	DatapathSystem = "system" // the kernel module
	DatapathNetdev = "netdev" // user space, inside ovs-vswitchd
	DatapathAuto   = "auto"   // system where the kernel has the module, else netdev
)

// Config says which switch to drive and how. Ordinals and TunnelIP have no default.
type Config struct {
	OVSDB  string // address of the database; unix:/run/openvswitch/db.sock
	RunDir string // where the bridge's management socket is; /run/openvswitch
	// Remote drives a switch of another machine over the network alone: OVSDB and OpenFlow are tcp: or ssl:
	// addresses, of which the driver has the switch open the second for the bridge. Nothing of that machine but
	// the switch is touched, so there is no metadata device, and with the user-space datapath frames of
	// its ports reach its own IP stack too. Datapath is then system unless it says netdev.
	Remote   bool
	OpenFlow string      // only with Remote
	TLS      *tls.Config // for ssl: addresses
	Bridge   string      // br-int
	Datapath string      // DatapathAuto
	// TunnelIP is this host's address on the underlay, IPv4. With the netdev datapath it must
	// stand on a netdev bridge of the same switch that holds the uplink.
	TunnelIP netip.Addr
	// TunnelUDPPort is VXLAN's port. 4789 (RFC 7348).
	TunnelUDPPort uint16
	// TunnelDevice and MetadataDevice are the names of the driver's own switch ports:
	// yk-vx0 and yk-md0.
	TunnelDevice, MetadataDevice string
	// Providers gives the provider bridge for each physical network, such as physnet1 → br-ex: a
	// bridge of the same switch, made and wired to the outside by the operator. The driver joins it to
	// Bridge by a pair of patch ports, and touches nothing else of it.
	Providers map[string]string
	Env       pipeline.Env // DefaultEnv
	Ordinals  datapath.Ordinals
	// Notify, where not nil, is told of events, one at a time and in order for each port.
	// It must return soon and must not call the driver.
	Notify func(datapath.Event)
	// ResponderRate is how many packets a second one port may send to the agent, and how many
	// at once. 10: a client that boots sends two, and four more in the next 15 s where it gets
	// no answer; a thousand guests that misbehave together make 10,000 a second, a fraction of what
	// the agent answers.
	ResponderRate uint32
	// Patience is how long Apply, Prune and Attach wait for a switch that is away. 5 s.
	Patience time.Duration
	// Netns is the path of the network namespace that the switch's devices live in; empty:
	// the driver's own.
	Netns string
	Log   *slog.Logger // slog.Default
}

func orDefault[T comparable](v, d T) T {
	var zero T
	if v == zero {
		return d
	}
	return v
}

func (c Config) withDefaults() (Config, error) {
	c.OVSDB = orDefault(c.OVSDB, "unix:/run/openvswitch/db.sock")
	c.RunDir = orDefault(c.RunDir, "/run/openvswitch")
	c.Bridge = orDefault(c.Bridge, "br-int")
	c.Datapath = orDefault(c.Datapath, DatapathAuto)
	c.TunnelUDPPort = orDefault(c.TunnelUDPPort, 4789)
	c.TunnelDevice = orDefault(c.TunnelDevice, "yk-vx0")
	c.MetadataDevice = orDefault(c.MetadataDevice, "yk-md0")
	if !c.Env.MetadataPrefix.IsValid() {
		c.Env = pipeline.DefaultEnv()
	}
	c.Env.PhysicalNetworks = slices.Sorted(maps.Keys(c.Providers))
	c.ResponderRate = orDefault(c.ResponderRate, 10)
	c.Patience = orDefault(c.Patience, 5*time.Second)
	c.Log = orDefault(c.Log, slog.Default())
	if c.Remote && c.Datapath == DatapathAuto {
		c.Datapath = DatapathSystem
	}
	switch {
	case c.Remote && passive(c.OpenFlow) == "":
		return c, fmt.Errorf("OpenFlow address %q is neither tcp:HOST:PORT nor ssl:HOST:PORT", c.OpenFlow)
	case c.Ordinals == nil:
		return c, errors.New("no ordinal store")
	case !c.TunnelIP.Is4():
		return c, fmt.Errorf("tunnel address %v is not IPv4", c.TunnelIP)
	case c.Datapath != DatapathAuto && c.Datapath != DatapathNetdev && c.Datapath != DatapathSystem:
		return c, fmt.Errorf("datapath type %q is none of system, netdev, auto", c.Datapath)
	}
	if c.Datapath == DatapathAuto {
		c.Datapath = DatapathNetdev
		if _, err := netlink.GenlFamilyGet("ovs_datapath"); err == nil {
			c.Datapath = DatapathSystem
		}
	}
	return c, c.Env.Validate()
}

// Driver is a datapath.Driver for an Open vSwitch. Open makes one.
//
// After a start, call Prune with the whole desired set first: until then flows of earlier
// runs stay beside what Apply adds, because nothing tells which of them are still wanted.
type Driver struct {
	cfg    Config
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu      sync.Mutex // orders all changes; held while the switch is asked
	prog    *pipeline.Program
	flows   flowSet
	conn    *openflow.Conn // nil: not connected
	db      *ovsdb.Switch  // nil: not opened yet
	round   uint16
	pruned  bool
	synced  bool              // the switch holds what flows says
	change  chan struct{}     // closed, and replaced, when conn, db or synced change
	special map[uint64]uint32 // places beyond the ports' ordinals → OpenFlow port
	tunnels map[uint64]string // place of a tunnel device → why it could not be made, last time
	bridged map[string]string // physical network → what kept it from being joined to its bridge, last time
	devices map[model.ID]device
	wired   map[model.ID]bool
	refused map[pipeline.Key]error // entries that the switch did not take
	meters  map[uint32]meter
	events  []datapath.Event
	notify  chan struct{}
	untold  map[model.ID]bool // ports whose guests are to be told of their network
	arrived map[model.ID]bool // of these, ports whose guests have just come: physical networks are to be told of them
	speak   chan struct{}
	heard   chan responder.Ask // reports of multicast listeners that are to be taken in

	listeners *responder.Listeners
	sought    chan responder.Ask // packets that are about neighbours outside
	outer     chan struct{}      // the addresses outside may have changed

	far farHosts

	count counters
}

// device is a switch port that carries a port.
type device struct {
	name   string
	ofport uint32 // 0: none yet
	index  int64  // the kernel's number of the device, 0: not known yet
}

type counters struct {
	added, deleted, bundles, rejected, connects, resyncs, packetIns, replies, ignored atomic.Uint64
}

var _ datapath.Driver = (*Driver)(nil)

// Open starts to drive a switch. The switch need not be there yet: the driver connects, and
// connects again, for ever. The error says what in cfg is wrong.
func Open(cfg Config) (*Driver, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("open switch driver: %w", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	d := &Driver{
		cfg: cfg, ctx: ctx, cancel: cancel,
		prog: pipeline.NewProgram(cfg.Env, cfg.Ordinals), change: make(chan struct{}), special: map[uint64]uint32{}, bridged: map[string]string{}, tunnels: map[uint64]string{},
		devices: map[model.ID]device{}, wired: map[model.ID]bool{}, refused: map[pipeline.Key]error{}, meters: map[uint32]meter{},
		notify: make(chan struct{}, 1), untold: map[model.ID]bool{}, arrived: map[model.ID]bool{}, speak: make(chan struct{}, 1),
		heard: make(chan responder.Ask, 1024), listeners: responder.NewListeners(),
		sought: make(chan responder.Ask, 1024), outer: make(chan struct{}, 1),
	}
	d.flows = newFlowSet()
	d.far = farHosts{known: map[netip.Addr]bool{}, wake: make(chan struct{}, 1)}
	table := neighbor.New()
	delta, err := d.prog.Apply(table.Recall(time.Now(), cfg.Ordinals), nil)
	if err != nil {
		cancel()
		return nil, err
	}
	d.note(delta)
	d.wg.Add(6)
	go d.seek(table)
	go d.run()
	go d.announce()
	go d.listen()
	go d.tell()
	go d.askFar()
	return d, nil
}

// Close implements datapath.Driver.
func (d *Driver) Close() error {
	d.cancel()
	d.mu.Lock()
	conn := d.conn
	d.mu.Unlock()
	var err error
	if conn != nil {
		err = conn.Close()
	}
	d.wg.Wait()
	return err
}

// changed wakes all that wait for a change of the driver's state. d.mu is held.
func (d *Driver) changed() {
	close(d.change)
	d.change = make(chan struct{})
}

// await waits, with d.mu held on entry and return, until ok says true, at most for Patience.
func (d *Driver) await(ctx context.Context, what string, ok func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, d.cfg.Patience)
	defer cancel()
	for !ok() {
		change := d.change
		d.mu.Unlock()
		select {
		case <-change:
			d.mu.Lock()
		case <-d.ctx.Done():
			d.mu.Lock()
			return fault.New(fault.Unavailable, "the switch driver is closed")
		case <-ctx.Done():
			d.mu.Lock()
			return fault.Wrap(fault.Unavailable, ctx.Err(), "%s of switch %s is away", what, d.cfg.Bridge)
		}
	}
	return nil
}

// Apply implements datapath.Driver.
func (d *Driver) Apply(ctx context.Context, upserts []model.HostRow, removes []model.RowID) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.apply(ctx, upserts, removes)
}

func (d *Driver) apply(ctx context.Context, upserts []model.HostRow, removes []model.RowID) error {
	for _, id := range removes {
		if id.Kind == model.RowPort {
			removes = append(slices.Clip(removes), d.listeners.Forget(id.Key)...)
		}
	}
	news, came, repaired := responder.News(d.prog, upserts), responder.Arrivals(d.prog, upserts), responder.Repaired(d.prog, upserts)
	delta, rowErr := d.prog.Apply(upserts, removes)
	d.note(delta)
	for _, network := range news {
		for _, id := range d.prog.PortsIn(network) {
			d.untold[id] = true
		}
	}
	for _, id := range repaired {
		d.untold[id] = true
	}
	for _, id := range came { // that it is here is told once the switch has its entries
		d.untold[id], d.arrived[id] = true, true
	}
	err := d.await(ctx, "the OpenFlow connection", func() bool { return d.synced })
	if err == nil {
		err = d.commit(ctx)
		d.wakeSeek(upserts, removes)
	}
	return errors.Join(rowErr, err, d.refusals(upserts))
}

// refusals gives the errors of entries of rows that the switch did not take.
func (d *Driver) refusals(rows []model.HostRow) error {
	if len(d.refused) == 0 {
		return nil
	}
	var errs []error
	for _, r := range rows {
		for _, k := range d.prog.EntriesOf(r.RowID()) {
			if err := d.refused[k]; err != nil {
				errs = append(errs, fmt.Errorf("install %v: %w", r.RowID(), err))
			}
		}
	}
	return errors.Join(errs...)
}

// Prune implements datapath.Driver.
func (d *Driver) Prune(ctx context.Context, desired iter.Seq[model.HostRow]) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	var upserts []model.HostRow
	keep := map[model.RowID]struct{}{}
	for r := range desired {
		upserts = append(upserts, r)
		keep[r.RowID()] = struct{}{}
	}
	var removes []model.RowID
	for _, id := range d.prog.RowIDs() {
		if _, ok := keep[id]; !ok && !responder.Learned(id.Kind) {
			removes = append(removes, id)
		}
	}
	first := !d.pruned
	d.pruned = true
	if first {
		// What earlier runs left is deleted in the same bundle that completes the new set.
		d.flows.sweep = true
	}
	err := d.apply(ctx, upserts, removes)
	for _, kind := range pipeline.OwnedKinds() {
		for _, key := range d.cfg.Ordinals.Keys(kind) {
			if k := (pipeline.OrdinalKey{Kind: kind, Key: key}); !d.prog.InUse(k) {
				d.flows.released[k] = struct{}{}
			}
		}
	}
	var stale []string
	for id, dev := range d.devices {
		if _, ok := keep[model.RowID{Kind: model.RowPort, Key: id}]; !ok {
			stale = append(stale, dev.name)
		}
	}
	if !d.synced { // err says so, and the next Prune comes
		return err
	}
	// A row that could not be compiled does not keep the rest from being cleaned up.
	if len(stale) > 0 {
		err = errors.Join(err, d.unplug(ctx, stale...))
	}
	if d.synced {
		err = errors.Join(err, d.commit(ctx))
	}
	return err
}

// Installed implements datapath.Driver.
func (d *Driver) Installed(port model.ID) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.wired[port]
}

// isWired computes what Installed tells.
func (d *Driver) isWired(port model.ID) bool {
	if !d.synced || d.devices[d.prog.DeviceOf(port)].ofport == 0 {
		return false
	}
	rows, err := d.prog.Complete(port)
	if err != nil || !d.joined(port) {
		return false
	}
	if len(d.refused) == 0 {
		return true
	}
	for _, id := range rows {
		for _, k := range d.prog.EntriesOf(id) {
			if d.refused[k] != nil {
				return false
			}
		}
	}
	return true
}

// rewire recomputes which ports are wired and queues the events. d.mu is held.
func (d *Driver) rewire() {
	for id := range d.wired {
		if !d.isWired(id) {
			delete(d.wired, id)
			d.events = append(d.events, datapath.Event{Port: id, Kind: datapath.Unwired})
		}
	}
	for device := range d.devices {
		for _, id := range d.prog.CarriedBy(device) {
			if !d.wired[id] && d.isWired(id) {
				d.wired[id] = true
				d.events = append(d.events, datapath.Event{Port: id, Kind: datapath.Wired})
				d.untold[id] = true
			}
		}
	}
	d.wakeTell()
	d.wakeAnnounce()
}

// wakeTell makes tell look where there is something to tell. d.mu is held.
func (d *Driver) wakeTell() {
	if len(d.events) > 0 {
		select {
		case d.notify <- struct{}{}:
		default:
		}
	}
}

// tell hands events to their receiver.
func (d *Driver) tell() {
	defer d.wg.Done()
	for {
		select {
		case <-d.ctx.Done():
			return
		case <-d.notify:
		}
		d.mu.Lock()
		events := d.events
		d.events = nil
		d.mu.Unlock()
		if d.cfg.Notify == nil {
			continue
		}
		for _, e := range events {
			d.cfg.Notify(e)
		}
	}
}

// MetadataOwner implements datapath.Driver.
func (d *Driver) MetadataOwner(addr netip.Addr) (datapath.Owner, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return datapath.OwnerOf(d.prog, d.cfg.Ordinals, addr)
}

// Counters implements datapath.Driver.
func (d *Driver) Counters() datapath.Counters {
	d.mu.Lock()
	defer d.mu.Unlock()
	return datapath.Counters{
		Rows: d.prog.Rows(), Entries: d.prog.Len(), Pending: len(d.flows.unbound) + len(d.flows.put) + len(d.flows.del), Conflicts: d.prog.Conflicts(), Connected: d.synced,
		Added: d.count.added.Load(), Deleted: d.count.deleted.Load(), Bundles: d.count.bundles.Load(), Rejected: d.count.rejected.Load(),
		Connects: d.count.connects.Load(), Resyncs: d.count.resyncs.Load(), PacketIns: d.count.packetIns.Load(),
		DHCPReplies: d.count.replies.Load(), DHCPIgnored: d.count.ignored.Load(),
	}
}

// mgmt is the address of the bridge's OpenFlow socket.
func (d *Driver) mgmt() string {
	if d.cfg.Remote {
		return d.cfg.OpenFlow
	}
	return "unix:" + filepath.Join(d.cfg.RunDir, d.cfg.Bridge+".mgmt")
}
