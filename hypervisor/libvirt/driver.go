package libvirt

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"yakumo/fault"
	"yakumo/hypervisor"
)

// SystemSocket is where the system's libvirtd listens on Debian and most others.
const SystemSocket = "/run/libvirt/libvirt-sock"

// Config configures a Driver. The zero Config is right for a plain host.
type Config struct {
	// SocketPath is libvirtd's unix socket; empty for SystemSocket.
	SocketPath string
	// Accelerator is "kvm", "tcg" or "auto"; empty is as auto: KVM if a guest really runs under
	// it (see ProbeKVM), else TCG. It is found out once, when first needed.
	Accelerator string
	// Emulator is the QEMU that guests are said to run with (hypervisor.Guest.Emulator), for the probe and the capacity; empty for
	// libvirt's own choice.
	Emulator string
	// CPUModel names a model of libvirt that guests get; empty for the host's own under KVM, and
	// for Nehalem under TCG.
	CPUModel string
	// SparePorts is how many PCIe ports a guest has for devices plugged in while it runs; 0 for
	// DefaultSparePorts, negative for none.
	SparePorts int
	// GuestDir is a folder on the file system that holds guests' disks; empty leaves the
	// capacity's DiskGiB 0.
	GuestDir string
	// ProbeTimeout bounds the probe for KVM; 0 for 10 s.
	ProbeTimeout time.Duration
	// Keepalive is how often libvirtd is asked for a sign of life; after three times that without
	// one it counts as lost. 0 for 5 s.
	Keepalive time.Duration
	// Log takes what an operator should know; nil for slog.Default.
	Log *slog.Logger
}

// DefaultSparePorts is how many devices can be plugged into a running guest.
const DefaultSparePorts = 8

// Driver drives one libvirtd. It connects when first used and again after libvirtd was lost;
// guests are processes of their own and run on meanwhile.
type Driver struct {
	cfg    Config
	log    *slog.Logger
	feed   hypervisor.Feed
	ctx    context.Context // ends with Close
	cancel context.CancelFunc

	variant variant // what it has instead of QEMU

	dialing chan struct{} // holds one token while somebody dials
	probing chan struct{} // likewise for the accelerator

	mu    sync.Mutex
	link  *link  // nil while there is none
	accel string // "" until known
	// records are of the domains known to be ours. An entry may be gone from libvirt already;
	// an absent one must be asked for.
	records map[string]record
	states  map[string]hypervisor.State // as last seen, for Since
	aborted map[string]bool             // guests whose move was aborted, until their next one
	leaving map[string]*gates           // of guests that are being sent with leave for post-copy
	saves   map[string]bool             // of guests that are off: whether a file has their memory; asked for where absent
}

// variant is what differs where libvirt runs something else than QEMU. The zero variant is QEMU.
type variant struct {
	uri string // empty for qemuURI
	// plain: there is neither one call for the states of all domains, nor memory kept in files.
	plain bool
	// judge, where not nil, says what an end that libvirt tells of really was.
	judge func(id string, p hypervisor.Power, reason string) (hypervisor.Power, string)
	// round, where not nil, is called every round.
	round func(ctx context.Context)
}

// judged gives a power and its reason as they are, of those that libvirt tells.
func (d *Driver) judged(id string, p hypervisor.Power, reason string) (hypervisor.Power, string) {
	if d.variant.judge == nil {
		return p, reason
	}
	return d.variant.judge(id, p, reason)
}

// link is what the driver has while libvirtd is there. Calls that may take long have a
// connection of their own: libvirtd reads no further from a client that has five calls under
// way, which must hold up neither look-ups nor signs of life.
type link struct {
	quick, slow *conn
	events      *eventQueue
}

var (
	_ hypervisor.Driver    = (*Driver)(nil)
	_ hypervisor.Consoler  = (*Driver)(nil)
	_ hypervisor.Pauser    = (*Driver)(nil)
	_ hypervisor.Suspender = (*Driver)(nil)
	_ hypervisor.Grower    = (*Driver)(nil)
	_ hypervisor.Copier    = (*Driver)(nil)
	_ hypervisor.Diagnoser = (*Driver)(nil)

	_ hypervisor.GuestAgent = (*Driver)(nil)
)

// New makes a driver; nothing is connected yet.
func New(cfg Config) (*Driver, error) {
	switch cfg.Accelerator {
	case "", "auto", "kvm", "tcg":
	default:
		return nil, fault.New(fault.Invalid, "The accelerator %q is none of auto, kvm and tcg.", cfg.Accelerator)
	}
	if cfg.SocketPath == "" {
		cfg.SocketPath = SystemSocket
	}
	if cfg.ProbeTimeout == 0 {
		cfg.ProbeTimeout = 10 * time.Second
	}
	if cfg.Keepalive == 0 {
		cfg.Keepalive = 5 * time.Second
	}
	if cfg.SparePorts == 0 {
		cfg.SparePorts = DefaultSparePorts
	}
	d := &Driver{
		cfg: cfg, log: cfg.Log,
		dialing: make(chan struct{}, 1), probing: make(chan struct{}, 1),
		records: map[string]record{}, states: map[string]hypervisor.State{}, aborted: map[string]bool{}, leaving: map[string]*gates{}, saves: map[string]bool{},
	}
	if d.log == nil {
		d.log = slog.Default()
	}
	d.ctx, d.cancel = context.WithCancel(context.Background())
	return d, nil
}

// Close ends the connections and every watch; guests are not touched. Consoles stay until they
// are closed themselves.
func (d *Driver) Close() error {
	d.cancel()
	d.mu.Lock()
	l := d.link
	d.mu.Unlock()
	if l != nil {
		d.lose(l, errClosed)
	}
	return nil
}

var errClosed = errors.New("the driver is closed")

// current gives the link if there is one that works.
func (d *Driver) current() *link {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.link
}

// connected gives the link, and makes it first where there is none.
func (d *Driver) connected(ctx context.Context) (*link, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if l := d.current(); l != nil {
		return l, nil
	}
	select {
	case d.dialing <- struct{}{}:
		defer func() { <-d.dialing }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if l := d.current(); l != nil {
		return l, nil
	}
	if d.ctx.Err() != nil {
		return nil, unavailable(d.cfg.SocketPath, errClosed)
	}
	l, err := d.dial(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, unavailable(d.cfg.SocketPath, err)
	}
	return l, nil
}

func (d *Driver) dial(ctx context.Context) (*link, error) {
	l := &link{events: newEventQueue()}
	var err error
	l.quick, err = dial(ctx, connConfig{
		socket: d.cfg.SocketPath, uri: d.variant.uri, onEvent: l.events.take, slots: 4, // one below libvirtd's bound
		ping: d.cfg.Keepalive, stall: 3 * d.cfg.Keepalive,
	})
	if err != nil {
		return nil, err
	}
	l.slow, err = dial(ctx, connConfig{socket: d.cfg.SocketPath, uri: d.variant.uri, stall: 3 * d.cfg.Keepalive})
	if err == nil {
		// Lifecycle events (0) of all domains.
		_, err = l.quick.call(ctx, procEventRegister, new(encoder).i32(0).none())
	}
	if err == nil {
		err = d.takeStock(ctx, l)
	}
	if err != nil {
		l.end(err)
		return nil, err
	}
	d.mu.Lock()
	if d.ctx.Err() != nil {
		d.mu.Unlock()
		l.end(errClosed)
		return nil, errClosed
	}
	d.link = l
	d.mu.Unlock()
	d.log.Info("connected to libvirtd", "socket", d.cfg.SocketPath)
	go func() {
		select {
		case <-l.quick.done:
			d.lose(l, l.quick.cause())
		case <-l.slow.done:
			d.lose(l, l.slow.cause())
		}
	}()
	go d.publish(l)
	go d.lookAfter(l)
	return l, nil
}

func (l *link) end(err error) {
	for _, c := range []*conn{l.quick, l.slow} {
		if c != nil {
			c.end(err)
		}
	}
}

// lose ends a link and the watches that hang on it.
func (d *Driver) lose(l *link, err error) {
	l.end(err)
	d.mu.Lock()
	mine := d.link == l
	if mine {
		d.link = nil
		clear(d.records)
		clear(d.saves)
		d.feed.End()
	}
	d.mu.Unlock()
	if mine && !errors.Is(err, errClosed) {
		d.log.Warn("lost libvirtd; guests run on", "socket", d.cfg.SocketPath, "error", err)
	}
}

// pick tells which connection of a link a call takes.
type pick func(*link) *conn

func quick(l *link) *conn { return l.quick }
func slow(l *link) *conn  { return l.slow }

// ask calls libvirtd, over a new link where there is none. A call that was under way when the
// link broke is not repeated, as it may have been carried out: the caller hears Unavailable.
func (d *Driver) ask(ctx context.Context, which pick, proc int32, args *encoder) (*decoder, error) {
	l, err := d.connected(ctx)
	if err != nil {
		return nil, err
	}
	return d.heard(l, which(l), ctx, progRemote, proc, args)
}

// heard is ask of a link that there is.
func (d *Driver) heard(l *link, c *conn, ctx context.Context, program uint32, proc int32, args *encoder) (*decoder, error) {
	out, err := c.callIn(ctx, program, proc, args)
	var lost *lostError
	if errors.As(err, &lost) {
		d.lose(l, lost.err)
		return nil, unavailable(d.cfg.SocketPath, err)
	}
	return out, err
}

// ours gives the record and the reference of a domain that is ours; ok is false for an unknown
// or foreign one.
func (d *Driver) ours(ctx context.Context, id string) (domainRef, record, bool, error) {
	uuid, valid := parseUUID(id)
	if !valid {
		return domainRef{}, record{}, false, nil
	}
	ref := domainRef{name: id, uuid: uuid}
	l, err := d.connected(ctx)
	if err != nil {
		return ref, record{}, false, err
	}
	d.mu.Lock()
	r, known := d.records[id]
	d.mu.Unlock()
	if known {
		return ref, r, true, nil
	}
	r, err = d.lookUp(ctx, l, ref)
	switch {
	case hasCode(err, codeNoDomain, codeNoMetadata):
		return ref, record{}, false, nil
	case err != nil:
		return ref, record{}, false, d.failed(l, err)
	}
	return ref, r, true, nil
}

// failed gives the error of a call on l that did not come by ask.
func (d *Driver) failed(l *link, err error) error {
	var lost *lostError
	if errors.As(err, &lost) {
		d.lose(l, lost.err)
		return unavailable(d.cfg.SocketPath, err)
	}
	return err
}

// lookUp asks for the metadata of a domain, and remembers one that is ours.
func (d *Driver) lookUp(ctx context.Context, l *link, ref domainRef) (record, error) {
	const element, current = 2, 0 // VIR_DOMAIN_METADATA_ELEMENT; the running or else the stored definition
	out, err := l.quick.call(ctx, procDomainGetMetadata,
		new(encoder).dom(ref).i32(element).some(metadataNS).u32(current))
	if err != nil {
		return record{}, err
	}
	text := out.str()
	if out.err != nil {
		return record{}, out.err
	}
	r, err := parseRecord(text)
	if err != nil {
		return record{}, err
	}
	d.mu.Lock()
	d.records[formatUUID(ref.uuid)] = r
	d.mu.Unlock()
	return r, nil
}

// forget drops what is remembered of a domain.
func (d *Driver) forget(id string) {
	d.mu.Lock()
	delete(d.records, id)
	delete(d.states, id)
	delete(d.saves, id)
	d.mu.Unlock()
}

// accelerator finds out once how guests run.
func (d *Driver) accelerator(ctx context.Context) (string, error) {
	known := func() string {
		d.mu.Lock()
		defer d.mu.Unlock()
		return d.accel
	}
	if a := known(); a != "" {
		return a, nil
	}
	select {
	case d.probing <- struct{}{}:
		defer func() { <-d.probing }()
	case <-ctx.Done():
		return "", ctx.Err()
	}
	if a := known(); a != "" {
		return a, nil
	}
	a := d.cfg.Accelerator
	if a != "kvm" && a != "tcg" {
		host, err := d.host(ctx)
		if err != nil {
			return "", err
		}
		path, believed := host.emulator()
		path = cmp.Or(d.cfg.Emulator, path)
		err = errors.New("libvirt does not offer it")
		if believed {
			probing, cancel := context.WithTimeout(ctx, d.cfg.ProbeTimeout)
			defer cancel()
			err = ProbeKVM(probing, path)
		}
		if ctx.Err() != nil {
			return "", ctx.Err()
		}
		a = "kvm"
		if err != nil {
			a = "tcg"
			d.log.Warn("guests run by software emulation", "error", err)
		}
	}
	d.mu.Lock()
	d.accel = a
	d.mu.Unlock()
	return a, nil
}

// host asks for libvirt's capabilities.
func (d *Driver) host(ctx context.Context) (hostXML, error) {
	out, err := d.ask(ctx, slow, procGetCapabilities, &encoder{})
	if err != nil {
		return hostXML{}, fmt.Errorf("ask for libvirt's capabilities: %w", err)
	}
	text := out.str()
	if out.err != nil {
		return hostXML{}, out.err
	}
	return parseHost(text)
}
