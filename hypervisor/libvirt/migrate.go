package libvirt

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"yakumo/fault"
	"yakumo/hypervisor"
)

// A move is libvirt's peer-to-peer migration, with unix sockets in the place of addresses: the sending libvirtd and QEMU
// connect to sockets of this process, which leads them through the passage to the receiving libvirtd and QEMU. So no port is
// open, and the bytes are as secret as the passage. libvirt gives the receiving QEMU the same paths as the sending one;
// they are below libvirtd's own run folder, which has one name for libvirtd on every host, whatever it is called here.
// See https://libvirt.org/migration.html, "Migration over UNIX sockets".

// runFolder is libvirtd's run folder as libvirtd sees it.
const runFolder = "/run/libvirt"

// The kinds of connections of a Reception.
const (
	kindControl = "control"
	kindMemory  = "memory"
	kindDisks   = "disks"
)

// VIR_MIGRATE_….
const (
	migrateLive           = 1 << 0
	migratePeer2Peer      = 1 << 1
	migratePersistDest    = 1 << 3
	migrateUndefineSource = 1 << 4
	migrateNonSharedInc   = 1 << 7
	// Whether caches are coherent is known to who says which disks are shared; libvirt guesses by file system and cache mode.
	migrateUnsafe       = 1 << 9
	migrateAbortOnError = 1 << 12
	migrateAutoConverge = 1 << 13
	migratePostCopy     = 1 << 15
)

// usualDowntime is how long a guest may stand still while the last of its memory is copied. QEMU's own 300 ms is more
// than people on its console, and protocols with short timers, pass over.
const usualDowntime = 100 * time.Millisecond

// hurryDowntime is how long a guest may stand still that was told to move at once.
const hurryDowntime = 10 * time.Minute

var _ hypervisor.Migrator = (*Driver)(nil)

// way is a folder of sockets of one guest's move: its path here, and as libvirtd sees it.
func (d *Driver) way(id string) (here, there string) {
	short := strings.ReplaceAll(id, "-", "")[:16] // a socket's path has a bound of 107 bytes
	return filepath.Join(filepath.Dir(d.cfg.SocketPath), "yakumo", short), filepath.Join(runFolder, "yakumo", short)
}

// makeWay makes the folder anew, for QEMU to listen and to connect in.
func makeWay(here string) error {
	if err := os.RemoveAll(here); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(here), 0o711); err != nil {
		return err
	}
	if err := os.Mkdir(here, 0o700); err != nil {
		return err
	}
	return giveToQEMU(here)
}

// giveToQEMU makes a file that of the user whom distributions run QEMU as, where there is one.
func giveToQEMU(path string) error {
	for _, name := range []string{"libvirt-qemu", "qemu"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err1 := strconv.Atoi(u.Uid)
		gid, err2 := strconv.Atoi(u.Gid)
		if err := errors.Join(err1, err2); err != nil {
			return err
		}
		return os.Chown(path, uid, gid)
	}
	return nil
}

// reception implements hypervisor.Reception.
type reception struct {
	d    *Driver
	here string
}

// Receive implements hypervisor.Migrator.
func (d *Driver) Receive(ctx context.Context, g hypervisor.Guest) (hypervisor.Reception, error) {
	if err := g.Check(); err != nil {
		return nil, err
	}
	ref, _, mine, err := d.ours(ctx, g.ID)
	if err != nil {
		return nil, fmt.Errorf("receive guest %s: %w", g.ID, err)
	}
	if mine {
		power, reason, err := d.power(ctx, ref)
		if err != nil && !hasCode(err, codeNoDomain) {
			return nil, refused(g.ID, "receive", err)
		}
		if err == nil && (power == hypervisor.Running || power == hypervisor.Paused) {
			return nil, fault.New(fault.Conflict, "Guest %s is on this host already (%s).", g.ID, reason)
		}
		// A definition that is left over would be an obstacle.
		if err := d.Remove(ctx, g.ID); err != nil {
			return nil, err
		}
	}
	if err := d.secrets(ctx, g); err != nil {
		return nil, fmt.Errorf("receive guest %s: %w", g.ID, err)
	}
	here, _ := d.way(g.ID)
	if err := makeWay(here); err != nil {
		return nil, fmt.Errorf("receive guest %s: %w", g.ID, err)
	}
	if g.ConsoleLog != "" {
		if err := boundLog(g.ConsoleLog, g.ConsoleLogBound()); err != nil {
			d.log.Warn("cannot bound a console log", "server", g.ID, "error", err)
		}
	}
	return &reception{d: d, here: here}, nil
}

// Dial implements hypervisor.Reception.
func (r *reception) Dial(ctx context.Context, kind string) (io.ReadWriteCloser, error) {
	path := r.d.cfg.SocketPath
	switch kind {
	case kindControl:
	case kindMemory, kindDisks:
		path = filepath.Join(r.here, kind)
	default:
		return nil, fault.New(fault.Invalid, "A hypervisor of this kind has no connection %q.", kind)
	}
	nc, err := new(net.Dialer).DialContext(ctx, "unix", path)
	if err != nil {
		return nil, fault.Wrap(fault.Unavailable, err, "The hypervisor does not await a guest.")
	}
	return nc, nil
}

// Close implements hypervisor.Reception.
func (r *reception) Close() error { return os.RemoveAll(r.here) }

// Send implements hypervisor.Migrator.
func (d *Driver) Send(ctx context.Context, id string, to hypervisor.Passage) error {
	begun, err := d.send(ctx, id, to)
	if err != nil && to.PostCopy && !begun && ctx.Err() == nil && strings.Contains(strings.ReplaceAll(strings.ToLower(err.Error()), "-", ""), "postcopy") {
		// One of the two hosts cannot (userfaultfd(2)).
		d.log.Warn("a guest moves without leave for post-copy", "server", id, "error", err)
		to.PostCopy = false
		_, err = d.send(ctx, id, to)
	}
	return err
}

// send tells whether copying memory has begun, too.
func (d *Driver) send(ctx context.Context, id string, to hypervisor.Passage) (begun bool, err error) {
	if to.Guest.ID != id {
		return false, fault.New(fault.Invalid, "A passage for guest %s does not fit guest %s.", to.Guest.ID, id)
	}
	if err := to.Guest.Check(); err != nil {
		return false, err
	}
	ref, _, err := d.known(ctx, id, "move")
	if err != nil {
		return false, err
	}
	args, live, err := d.migration(ctx, ref, to)
	if err != nil {
		return false, err
	}
	here, there := d.way(id)
	if err := makeWay(here); err != nil {
		return false, fmt.Errorf("move guest %s: %w", id, err)
	}
	defer os.RemoveAll(here)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	gates, err := d.openGates(ctx, here, to.Dial)
	if err != nil {
		return false, fmt.Errorf("move guest %s: %w", id, err)
	}
	defer gates.close()

	d.mu.Lock()
	delete(d.aborted, id)
	if live && to.PostCopy {
		d.leaving[id] = gates
	}
	d.mu.Unlock()
	defer func() {
		d.mu.Lock()
		delete(d.leaving, id)
		d.mu.Unlock()
	}()
	// An earlier move that was hurried and failed has left its own.
	if err := d.setDowntime(ctx, ref, usualDowntime); err != nil {
		return false, refused(id, "move", err)
	}
	// A connection of its own: the call lasts as long as the move.
	c, err := dial(ctx, connConfig{socket: d.cfg.SocketPath, ping: d.cfg.Keepalive, stall: 3 * d.cfg.Keepalive})
	if err != nil {
		return false, unavailable(d.cfg.SocketPath, err)
	}
	defer c.end(errClosed)
	call := new(encoder).dom(ref).some("qemu+unix:///system?socket=" + filepath.Join(there, kindControl))
	args.str("migrate_uri", "unix://"+filepath.Join(there, kindMemory))
	flags := uint32(migratePeer2Peer | migratePersistDest | migrateUndefineSource | migrateUnsafe | migrateAbortOnError)
	if len(to.CopyDisks) > 0 {
		flags |= migrateNonSharedInc
		args.str("disks_uri", "unix://"+filepath.Join(there, kindDisks))
	}
	if live {
		flags |= migrateLive
		if to.AutoConverge {
			flags |= migrateAutoConverge
		}
		if to.PostCopy {
			flags |= migratePostCopy
		}
	}
	call.params(args).u32(0).u32(flags) // no cookie
	// What ctx ends goes on in libvirtd; so it is aborted, and waited for.
	over := make(chan struct{})
	go d.abortWith(ctx, id, over)
	_, err = c.call(context.WithoutCancel(ctx), procMigratePerform3, call)
	close(over)
	if err != nil && gates.finish.uncertain() {
		return true, d.holdBack(context.WithoutCancel(ctx), id, ref, err)
	}
	if err == nil {
		// libvirt tells that it stopped, and sends no event of its definition's end.
		d.forget(id)
		d.feed.Publish(hypervisor.State{ID: id, Power: hypervisor.Absent, Reason: "migrated away", Since: time.Now()})
	}
	return gates.memory.Load(), d.sent(ctx, id, err)
}

// abortWith aborts a move when ctx ends, again and again until it is over: at some points of it libvirt has nothing to abort.
func (d *Driver) abortWith(ctx context.Context, id string, over <-chan struct{}) {
	select {
	case <-over:
		return
	case <-ctx.Done():
	}
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		aborting, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		err := d.Abort(aborting, id)
		cancel()
		if err != nil {
			d.log.Warn("a move cannot be aborted; it is tried again", "server", id, "error", err)
		}
		select {
		case <-over:
			return
		case <-tick.C:
		}
	}
}

// sent says what became of a move whose call has ended with err.
func (d *Driver) sent(ctx context.Context, id string, err error) error {
	var lost *lostError
	d.mu.Lock()
	aborted := d.aborted[id]
	delete(d.aborted, id)
	d.mu.Unlock()
	switch {
	case err == nil:
		return nil
	case aborted:
		return fault.Wrap(fault.Conflict, err, "The move was aborted.")
	case ctx.Err() != nil:
		return fault.Wrap(fault.Conflict, errors.Join(ctx.Err(), err), "The move was aborted.")
	case hasCode(err, codeOperationAborted):
		return fault.Wrap(fault.Conflict, err, "The move was aborted.")
	case errors.As(err, &lost):
		return unavailable(d.cfg.SocketPath, err)
	case hasCode(err, codeNoDomain):
		return refused(id, "move", err)
	}
	return fmt.Errorf("move guest %s: %w", id, err)
}

// holdBack pauses a guest that may run at the other end, for who can find out.
func (d *Driver) holdBack(ctx context.Context, id string, ref domainRef, err error) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	_, pauseErr := d.ask(ctx, slow, procDomainSuspend, new(encoder).dom(ref))
	if hasCode(pauseErr, codeNoDomain) {
		return nil // it has left
	}
	if hasCode(pauseErr, codeOperationInvalid) {
		pauseErr = nil // paused already, or off
	}
	return fmt.Errorf("move guest %s: %w: %w", id, hypervisor.ErrUncertain, errors.Join(err, pauseErr))
}

// migration makes the parameters of a move that do not depend on sockets, and tells whether the guest runs while its memory is copied.
func (d *Driver) migration(ctx context.Context, ref domainRef, to hypervisor.Passage) (p *params, live bool, err error) {
	form, err := d.platform(ctx, to.Guest)
	if err != nil {
		return nil, false, err
	}
	stored, _, err := definition(to.Guest, form)
	if err != nil {
		return nil, false, err
	}
	const secure, migratable = 1, 8 // VIR_DOMAIN_XML_SECURE, VIR_DOMAIN_XML_MIGRATABLE
	out, err := d.ask(ctx, slow, procDomainGetXMLDesc, new(encoder).dom(ref).u32(secure|migratable))
	if err != nil {
		return nil, false, refused(to.Guest.ID, "move", err)
	}
	text := out.str()
	if out.err != nil {
		return nil, false, out.err
	}
	now, copied, err := elsewhere(text, stored, to.CopyDisks)
	if err != nil {
		return nil, false, fmt.Errorf("move guest %s: %w", to.Guest.ID, err)
	}
	power, _, err := d.power(ctx, ref)
	if err != nil {
		return nil, false, refused(to.Guest.ID, "move", err)
	}
	live = power == hypervisor.Running && tracksWrites(text)
	p = new(params).str("destination_xml", now).str("persistent_xml", stored)
	for _, target := range copied {
		p.str("migrate_disks", target)
	}
	if to.BandwidthMiB > 0 {
		p.ullong("bandwidth", uint64(to.BandwidthMiB))
	}
	return p, live, nil
}

// tracksWrites tells whether the QEMU of a running guest sees all that the guest writes while its memory is copied. Before 9.0 an
// emulated guest's writes can be missed (mended there by "softmmu/physmem: Fix migration dirty bitmap coherency with TCG memory
// access", which no later 7.2 or 8.2 has): now and then a guest arrives with a corrupt memory. So such a guest stands still while
// its memory goes over; its disks were copied before.
//
// libvirt writes the machine that a guest was started with, such as pc-q35-10.0, and no QEMU offers a machine that is newer than itself. What is
// named otherwise counts as old.
func tracksWrites(running string) bool {
	domain, err := parseTree(running)
	if err != nil {
		return false
	}
	if domain.attr("type") == "kvm" {
		return true
	}
	var major, minor int
	machine := domain.first("os").first("type").attr("machine")
	_, err = fmt.Sscanf(machine, "pc-q35-%d.%d", &major, &minor)
	return err == nil && major >= 9
}

// elsewhere makes of the definition of a running guest, as libvirt tells it, the same machine with the files and devices of
// another host, which stand in that host's definition of it: machine and addresses of devices must not change while a
// guest runs, also of those that were plugged in later. It gives the targets (vda …) of the disks with the serial numbers too.
func elsewhere(running, there string, serials []string) (text string, copied []string, err error) {
	from, err := parseTree(running)
	if err != nil {
		return "", nil, err
	}
	to, err := parseTree(there)
	if err != nil {
		return "", nil, err
	}
	from.swap("title", to.first("title"))
	from.swap("metadata", to.first("metadata"))
	for _, name := range []string{"vcpu", "cputune", "numatune"} { // on which CPUs it runs there, and where its memory is
		from.swap(name, to.first(name))
	}
	if variables := from.first("os").first("nvram"); variables != nil {
		its := to.first("os").first("nvram")
		if its == nil {
			return "", nil, fault.New(fault.Invalid, "The guest has a UEFI firmware, which the other host's definition lacks.")
		}
		variables.text = its.text
	}
	devices, theirs := from.first("devices"), to.first("devices")
	devices.swap("emulator", theirs.first("emulator"))
	left := slices.Clone(serials)
	for _, disk := range devices.all("disk") {
		serial, target := disk.first("serial").value(), disk.first("target").attr("dev")
		same := slices.IndexFunc(theirs.all("disk"), func(k *element) bool { return k.first("serial").value() == serial && serial != "" })
		if same < 0 {
			same = slices.IndexFunc(theirs.all("disk"), func(k *element) bool {
				return serial == "" && k.first("target").attr("dev") == target
			})
		}
		if same < 0 {
			return "", nil, fault.New(fault.Invalid, "The guest has a disk (%s) that the other host's definition lacks.", target)
		}
		its := theirs.all("disk")[same]
		disk.set("type", its.attr("type"))
		disk.swap("source", its.first("source"))
		disk.swap("backingStore", nil) // found out there
		if i := slices.Index(left, serial); i >= 0 {
			left = slices.Delete(left, i, i+1)
			copied = append(copied, target)
		}
	}
	if len(left) > 0 {
		return "", nil, fault.New(fault.Invalid, "The guest has no disk with the serial number %s.", strings.Join(left, ", "))
	}
	for _, card := range devices.all("interface") {
		mac := strings.ToLower(card.first("mac").attr("address"))
		for _, its := range theirs.all("interface") {
			if strings.ToLower(its.first("mac").attr("address")) == mac {
				card.swap("target", its.first("target"))
			}
		}
	}
	log := theirs.first("serial").first("log")
	for _, name := range []string{"serial", "console"} {
		if port := devices.first(name); port.first("log") != nil {
			port.swap("log", log)
		}
	}
	if screen := theirs.first("graphics"); screen != nil && devices.first("graphics") != nil {
		devices.swap("graphics", screen)
	}
	return from.String(), copied, nil
}

// gates are the sockets of a move at the sending host.
type gates struct {
	finish    finish
	listeners []net.Listener
	wg        sync.WaitGroup
	memory    atomic.Bool // its copying has begun

	mu    sync.Mutex
	conns map[io.Closer]bool // nil once closed
}

// openGates listens for the sending libvirtd and QEMU, and leads each connection through dial, until ctx ends.
func (d *Driver) openGates(ctx context.Context, here string, dial func(context.Context, string) (io.ReadWriteCloser, error)) (*gates, error) {
	g := &gates{conns: map[io.Closer]bool{}, finish: finish{serials: map[uint32]bool{}}}
	for _, kind := range []string{kindControl, kindMemory, kindDisks} {
		path := filepath.Join(here, kind)
		ln, err := net.Listen("unix", path)
		if err == nil {
			g.listeners = append(g.listeners, ln)
			err = errors.Join(os.Chmod(path, 0o600), giveToQEMU(path))
		}
		if err != nil {
			g.close()
			return nil, err
		}
		g.wg.Go(func() {
			for {
				c, err := ln.Accept()
				if err != nil {
					return // closed
				}
				g.wg.Go(func() {
					if err := g.lead(ctx, c, kind, dial); err != nil {
						d.log.Debug("a connection of a move ended", "kind", kind, "error", err)
					}
				})
			}
		})
	}
	return g, nil
}

// lead joins a connection of libvirtd or QEMU with the other host's.
func (g *gates) lead(ctx context.Context, c net.Conn, kind string, dial func(context.Context, string) (io.ReadWriteCloser, error)) error {
	defer c.Close()
	far, err := dial(ctx, kind)
	if err != nil {
		return err
	}
	defer far.Close()
	g.mu.Lock()
	if g.conns == nil {
		g.mu.Unlock()
		return net.ErrClosed
	}
	g.conns[c], g.conns[far] = true, true
	g.mu.Unlock()
	defer func() {
		g.mu.Lock()
		delete(g.conns, c)
		delete(g.conns, far)
		g.mu.Unlock()
	}()
	var near io.ReadWriteCloser = c
	if kind == kindMemory {
		g.memory.Store(true)
	}
	if kind == kindControl {
		near, far = g.finish.listen(c), g.finish.listen(far)
	}
	back := make(chan error, 1)
	go func() { back <- pour(near, far) }()
	return errors.Join(pour(far, near), <-back)
}

// pour copies one direction and ends it; after a failure both connections are of no use.
func pour(to, from io.ReadWriteCloser) error {
	_, err := io.CopyBuffer(struct{ io.Writer }{to}, struct{ io.Reader }{from}, make([]byte, 256<<10))
	if half, ok := to.(interface{ CloseWrite() error }); ok && err == nil {
		return half.CloseWrite()
	}
	return errors.Join(err, to.Close(), from.Close())
}

func (g *gates) close() {
	for _, ln := range g.listeners {
		ln.Close()
	}
	g.mu.Lock()
	for c := range g.conns {
		c.Close()
	}
	g.conns = nil
	g.mu.Unlock()
	g.wg.Wait()
}

// Abort implements hypervisor.Migrator.
func (d *Driver) Abort(ctx context.Context, id string) error {
	ref, _, mine, err := d.ours(ctx, id)
	if err != nil || !mine {
		return err
	}
	_, err = d.ask(ctx, slow, procDomainAbortJob, new(encoder).dom(ref))
	if hasCode(err, codeOperationInvalid, codeNoDomain) {
		return nil // nothing is under way
	}
	if err == nil { // libvirt may say of the move's end what broke first
		d.mu.Lock()
		d.aborted[id] = true
		d.mu.Unlock()
	}
	return refused(id, "abort the move of", err)
}

// Hurry implements hypervisor.Migrator. By post-copy where the move allows it; else, and where QEMU refuses that, the guest
// may stand still until the rest is copied.
//
// Errors: fault.Conflict (post-copy is allowed, and the guest's disks are still being copied: to be tried again).
func (d *Driver) Hurry(ctx context.Context, id string) error {
	ref, _, err := d.known(ctx, id, "hurry")
	if err != nil {
		return err
	}
	d.mu.Lock()
	g := d.leaving[id]
	d.mu.Unlock()
	if g != nil {
		begun := g.memory.Load()
		g.finish.switched() // before it is so
		_, err := d.ask(ctx, slow, procMigratePostCopy, new(encoder).dom(ref).u32(0))
		switch {
		case err == nil:
			return nil
		case !begun:
			return fault.Wrap(fault.Conflict, err, "The memory of guest %s is not being copied yet.", id)
		}
		d.log.Warn("a guest that moves is not switched to post-copy, and may stand still", "server", id, "error", err)
	}
	return refused(id, "hurry", d.setDowntime(ctx, ref, hurryDowntime))
}

func (d *Driver) setDowntime(ctx context.Context, ref domainRef, most time.Duration) error {
	_, err := d.ask(ctx, slow, procMigrateMaxDowntime, new(encoder).dom(ref).u64(uint64(most/time.Millisecond)).u32(0))
	return err
}

// Progress implements hypervisor.Migrator. Of a guest that has come here it tells how its move was.
func (d *Driver) Progress(ctx context.Context, id string) (hypervisor.MoveProgress, error) {
	ref, _, err := d.known(ctx, id, "ask for the move of")
	if err != nil {
		return hypervisor.MoveProgress{}, err
	}
	const completed = 1 // VIR_DOMAIN_JOB_STATS_COMPLETED
	for _, flags := range []uint32{0, completed} {
		out, err := d.ask(ctx, quick, procDomainGetJobStats, new(encoder).dom(ref).u32(flags))
		if err != nil {
			return hypervisor.MoveProgress{}, refused(id, "ask for the move of", err)
		}
		kind := out.i32()
		n := out.numbers()
		if out.err != nil {
			return hypervisor.MoveProgress{}, out.err
		}
		const in, away = 4, 5 // VIR_DOMAIN_JOB_OPERATION_MIGRATION_IN, _OUT
		if op := n["operation"]; kind == 0 || op != in && op != away || flags == completed && op != in {
			continue // VIR_DOMAIN_JOB_NONE, or a job of another kind
		}
		return hypervisor.MoveProgress{
			MemoryTotal: n["memory_total"], MemoryProcessed: n["memory_processed"], MemoryRemaining: n["memory_remaining"],
			DiskTotal: n["disk_total"], DiskProcessed: n["disk_processed"], DiskRemaining: n["disk_remaining"],
			Downtime: time.Duration(n["downtime"]) * time.Millisecond,
		}, nil
	}
	return hypervisor.MoveProgress{}, fault.New(fault.NotFound, "Guest %s is in no move.", id)
}
