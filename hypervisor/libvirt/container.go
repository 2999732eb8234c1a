package libvirt

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"syscall"
	"time"

	"yakumo/fault"
	"yakumo/hypervisor"
	"yakumo/hypervisor/container"
)

// ContainerConfig configures Containers. The zero ContainerConfig is right for a plain host.
type ContainerConfig struct {
	SocketPath string        // as Config's
	GuestDir   string        // as Config's
	Netns      string        // path of the network namespace that NICs' devices live in; empty: this process's own
	Keepalive  time.Duration // as Config's
	Log        *slog.Logger  // as Config's
}

// Containers drives libvirt's LXC driver: guests are containers. What libvirt's daemon, events and errors are is Driver's business.
// What a container has instead of a machine's parts is package container's: process 1 of each is this program.
type Containers struct {
	d    *Driver
	veth container.Veths

	// staging holds one token while a container is staged; see container.Folder. clean is its holder's: nothing is left staged by who was
	// killed.
	staging chan struct{}
	clean   bool

	mu    sync.Mutex
	locks map[string]chan struct{} // of guests, each holds one token while somebody starts or ends it
	ended map[string]bool          // of guests that run for libvirt, those whose process 1 had written down its end a round ago
}

var (
	_ hypervisor.Driver    = (*Containers)(nil)
	_ hypervisor.Consoler  = (*Containers)(nil)
	_ hypervisor.Pauser    = (*Containers)(nil)
	_ hypervisor.Plugger   = (*Containers)(nil)
	_ hypervisor.Diagnoser = (*Containers)(nil)
)

// NewContainers makes a driver of containers; nothing is connected yet.
func NewContainers(cfg ContainerConfig) (*Containers, error) {
	d, err := New(Config{SocketPath: cfg.SocketPath, GuestDir: cfg.GuestDir, Keepalive: cfg.Keepalive, Log: cfg.Log})
	if err != nil {
		return nil, err
	}
	c := &Containers{d: d, veth: container.Veths{Netns: cfg.Netns}, staging: make(chan struct{}, 1), locks: map[string]chan struct{}{}}
	d.variant = variant{uri: "lxc:///system", plain: true, judge: c.judge, round: c.round}
	return c, nil
}

// Close ends the connections and every watch; guests are not touched.
func (c *Containers) Close() error { return c.d.Close() }

// Capacity implements hypervisor.Driver.
func (c *Containers) Capacity(ctx context.Context) (hypervisor.Capacity, error) {
	return c.d.Capacity(ctx)
}

// List implements hypervisor.Driver.
func (c *Containers) List(ctx context.Context) ([]hypervisor.State, error) { return c.d.List(ctx) }

// Watch implements hypervisor.Driver.
func (c *Containers) Watch(ctx context.Context) (<-chan hypervisor.State, error) {
	return c.d.Watch(ctx)
}

// ConsoleLog implements hypervisor.Consoler.
func (c *Containers) ConsoleLog(ctx context.Context, id string, maxBytes int64) ([]byte, error) {
	return c.d.ConsoleLog(ctx, id, maxBytes)
}

// Pause implements hypervisor.Pauser, by the kernel's freezer.
func (c *Containers) Pause(ctx context.Context, id string) error { return c.d.Pause(ctx, id) }

func (c *Containers) folder(id string) container.Folder {
	return container.FolderOf(c.d.cfg.SocketPath, id)
}

// lock waits for a guest to be nobody's.
func (c *Containers) lock(ctx context.Context, id string) (unlock func(), err error) {
	one := c.token(id)
	select {
	case one <- struct{}{}:
		return func() { <-one }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (c *Containers) token(id string) chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	one := c.locks[id]
	if one == nil {
		one = make(chan struct{}, 1)
		c.locks[id] = one
	}
	return one
}

// judge tells what became of a container by what its process 1 has written down: libvirt knows that it is gone, not why. One that libvirt was told to stop
// may have ended by itself before (round).
func (c *Containers) judge(id string, p hypervisor.Power, reason string) (hypervisor.Power, string) {
	stopped := reason == "stopped"
	if p != hypervisor.Off || reason != "" && reason != "shut down" && !stopped {
		return p, reason
	}
	switch state, why := c.folder(id).State(); state {
	case container.Waiting, container.Running:
		if stopped {
			return p, reason
		}
		return hypervisor.Crashed, "process died"
	case container.Failed:
		return hypervisor.Crashed, why
	case container.Off, container.Stopped:
		return hypervisor.Off, state
	}
	return p, reason
}

// round begins what waits for its cards since a driver that started it was killed, and ends what libvirt believes to run though its process 1
// has ended: libvirt misses the end of a container now and then, where that comes at once.
func (c *Containers) round(ctx context.Context) {
	c.d.mu.Lock()
	var ids []string
	for id, s := range c.d.states {
		if s.Power == hypervisor.Running {
			ids = append(ids, id)
		}
	}
	c.d.mu.Unlock()
	ended := map[string]bool{}
	for _, id := range ids {
		state, _ := c.folder(id).State()
		var err error
		switch state {
		case container.Waiting:
			err = c.alone(id, container.Waiting, func() error {
				ref, r, err := c.d.known(ctx, id, "begin")
				if err != nil {
					return err
				}
				return c.begin(ctx, id, ref, r)
			})
		case container.Off, container.Failed:
			if ended[id] = true; !c.endedBefore(id) {
				continue // libvirt is given a round's time to see it
			}
			err = c.alone(id, state, func() error {
				ref, _, err := c.d.known(ctx, id, "end")
				if err != nil {
					return err
				}
				// What process 1 has written down stays: it tells why.
				if _, err = c.d.ask(ctx, slow, procDomainDestroy, new(encoder).dom(ref).u32(0)); hasCode(err, codeOperationInvalid) {
					return nil
				}
				return refused(id, "end", err)
			})
		}
		if err != nil && ctx.Err() == nil {
			c.d.log.Warn("a container cannot be seen to", "server", id, "state", state, "error", err)
		}
	}
	c.mu.Lock()
	c.ended = ended
	c.mu.Unlock()
}

func (c *Containers) endedBefore(id string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ended[id]
}

// alone does something with a guest that is nobody's, if its process 1 has still written down the state; else who has it sees to it.
func (c *Containers) alone(id, state string, do func() error) error {
	one := c.token(id)
	select {
	case one <- struct{}{}:
		defer func() { <-one }()
	default:
		return nil
	}
	if now, _ := c.folder(id).State(); now != state {
		return nil
	}
	return do()
}

// Ensure implements hypervisor.Driver, as Driver.Ensure does.
func (c *Containers) Ensure(ctx context.Context, g hypervisor.Guest) error {
	if err := checkContainer(g); err != nil {
		return err
	}
	text, digest, err := containerDefinition(g, c.folder(g.ID))
	if err != nil {
		return err
	}
	return c.d.ensure(ctx, g, text, digest)
}

// Remove implements hypervisor.Driver.
func (c *Containers) Remove(ctx context.Context, id string) error {
	if _, valid := parseUUID(id); !valid {
		return nil
	}
	unlock, err := c.lock(ctx, id)
	if err != nil {
		return err
	}
	defer unlock()
	ref, _, mine, err := c.d.ours(ctx, id)
	if err != nil {
		return fmt.Errorf("remove guest %s: %w", id, err)
	}
	if mine {
		err = c.destroy(ctx, id, ref)
		if err == nil {
			_, err = c.d.ask(ctx, slow, procDomainUndefine, new(encoder).dom(ref).u32(0))
			err = refused(id, "remove", err)
		}
		if err != nil && !fault.Is(err, fault.NotFound) {
			return err
		}
	}
	if err := c.unstage(ctx, id); err != nil {
		return fmt.Errorf("remove guest %s: %w", id, err)
	}
	if err := c.folder(id).Remove(); err != nil {
		return fmt.Errorf("remove guest %s: %w", id, err)
	}
	return nil
}

// daemon gives libvirtd's process, whose mounts containers begin with.
func (c *Containers) daemon(ctx context.Context) (int, error) {
	l, err := c.d.connected(ctx)
	if err != nil {
		return 0, err
	}
	u, ok := l.quick.nc.(*net.UnixConn)
	if !ok {
		return 0, errors.New("libvirtd is not reached by a unix socket")
	}
	return container.PeerOf(u)
}

func (c *Containers) unstage(ctx context.Context, id string) error {
	pid, err := c.daemon(ctx)
	if err != nil {
		return err
	}
	return c.folder(id).Unstage(pid)
}

// Start implements hypervisor.Driver.
func (c *Containers) Start(ctx context.Context, id string) error {
	ref, _, err := c.d.known(ctx, id, "start")
	if err != nil {
		return err
	}
	unlock, err := c.lock(ctx, id)
	if err != nil {
		return err
	}
	defer unlock()
	_, r, err := c.d.known(ctx, id, "start")
	if err != nil {
		return err
	}
	power, _, err := c.d.power(ctx, ref)
	if err != nil {
		return refused(id, "start", err)
	}
	switch power {
	case hypervisor.Running:
	case hypervisor.Paused:
		if _, err := c.d.ask(ctx, slow, procDomainResume, new(encoder).dom(ref)); err != nil {
			return refused(id, "start", err)
		}
	default:
		if err := c.create(ctx, id, ref, r); err != nil {
			return err
		}
		err := c.begin(ctx, id, ref, r)
		if err != nil && ctx.Err() == nil {
			return errors.Join(err, c.destroy(ctx, id, ref))
		}
		return err
	}
	return c.begin(ctx, id, ref, r)
}

// create starts a container, whose process 1 waits then.
func (c *Containers) create(ctx context.Context, id string, ref domainRef, r record) error {
	if err := boundLog(r.log, r.logBound); err != nil {
		c.d.log.Warn("cannot bound a console log", "server", id, "error", err)
	}
	select {
	case c.staging <- struct{}{}:
		defer func() { <-c.staging }()
	case <-ctx.Done():
		return ctx.Err()
	}
	pid, err := c.daemon(ctx)
	if err != nil {
		return fmt.Errorf("start guest %s: %w", id, err)
	}
	if !c.clean {
		if err := container.UnstageAll(pid, c.d.cfg.SocketPath); err != nil {
			return fmt.Errorf("start guest %s: %w", id, err)
		}
	}
	c.clean = false
	f := c.folder(id)
	if err := f.Stage(ctx, pid, r.disk, r.log); err != nil {
		return errors.Join(fmt.Errorf("start guest %s: %w", id, err), f.Unstage(pid))
	}
	// Once it is asked for, it may happen: the answer is waited for, whatever becomes of the caller.
	asking, cancel := context.WithTimeout(context.WithoutCancel(ctx), beginWait)
	defer cancel()
	_, err = c.d.ask(asking, slow, procDomainCreate, new(encoder).dom(ref).u32(0))
	unstaged := f.Unstage(pid)
	c.clean = err == nil && unstaged == nil
	return errors.Join(refused(id, "start", err), unstaged)
}

// beginWait is how long process 1 may take until it listens.
const beginWait = time.Minute

// begin gives a container that waits its cards, and has it go on.
func (c *Containers) begin(ctx context.Context, id string, ref domainRef, r record) error {
	ctx, cancel := context.WithTimeout(ctx, beginWait)
	defer cancel()
	f := c.folder(id)
	for pause := 10 * time.Millisecond; ; pause = min(2*pause, 500*time.Millisecond) {
		if state, _ := f.State(); state != "" && state != container.Waiting {
			return nil // it has begun; or has ended already, which its state tells
		}
		conn, err := f.Dial(ctx)
		if err == nil {
			err = errors.Join(c.give(ctx, id, conn, r), conn.Close())
			if state, _ := f.State(); err == nil || state == container.Running {
				return nil
			}
			return fmt.Errorf("begin guest %s: %w", id, err)
		}
		power, reason, powerErr := c.d.power(ctx, ref)
		if powerErr != nil {
			return refused(id, "begin", powerErr)
		}
		if power != hypervisor.Running && power != hypervisor.Paused {
			return fmt.Errorf("start guest %s: it is %v (%s) before it has begun", id, power, reason)
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return fmt.Errorf("begin guest %s: its process 1 does not listen: %w", id, errors.Join(ctx.Err(), err))
		}
	}
}

func (c *Containers) give(ctx context.Context, id string, conn *container.Conn, r record) error {
	if err := c.folder(id).Give(ctx, c.veth, conn.PID, r.cards()); err != nil {
		return err
	}
	return conn.Go(ctx)
}

// Stop implements hypervisor.Driver.
func (c *Containers) Stop(ctx context.Context, id string, grace time.Duration) error {
	ref, _, err := c.d.known(ctx, id, "stop")
	if err != nil {
		return err
	}
	if grace > 0 {
		off, err := c.d.shutDown(ctx, id, ref, grace, c.press)
		if off || err != nil {
			return refused(id, "stop", err)
		}
	}
	unlock, err := c.lock(ctx, id)
	if err != nil {
		return err
	}
	defer unlock()
	return c.destroy(ctx, id, ref)
}

// press asks a container's init to shut down; one that has ended or is held does not hear it.
func (c *Containers) press(ctx context.Context, ref domainRef) error {
	conn, err := c.folder(formatUUID(ref.uuid)).Dial(ctx)
	if err != nil {
		return ctx.Err()
	}
	return errors.Join(ignoreGone(conn.Press()), conn.Close())
}

// ignoreGone is err, unless it says that the container has ended meanwhile.
func ignoreGone(err error) error {
	if errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil
	}
	return err
}

// destroy ends a container at once; one that is off is a success. That it was asked for is written down before.
func (c *Containers) destroy(ctx context.Context, id string, ref domainRef) error {
	power, _, err := c.d.power(ctx, ref)
	if err != nil {
		return refused(id, "stop", err)
	}
	if power != hypervisor.Running && power != hypervisor.Paused {
		return nil
	}
	if err := c.folder(id).Note(container.Stopped); err != nil {
		return fmt.Errorf("stop guest %s: %w", id, err)
	}
	if power == hypervisor.Paused { // what is frozen does not die
		if _, err := c.d.ask(ctx, slow, procDomainResume, new(encoder).dom(ref)); err != nil && !hasCode(err, codeOperationInvalid) {
			return refused(id, "stop", err)
		}
	}
	_, err = c.d.ask(ctx, slow, procDomainDestroy, new(encoder).dom(ref).u32(0))
	if hasCode(err, codeOperationInvalid) { // off already
		return nil
	}
	return refused(id, "stop", err)
}

// running connects with process 1 of a guest that runs; one that does not is a Conflict.
func (c *Containers) running(ctx context.Context, id, doing string) (*container.Conn, error) {
	ref, _, err := c.d.known(ctx, id, doing)
	if err != nil {
		return nil, err
	}
	power, _, err := c.d.power(ctx, ref)
	if err != nil {
		return nil, refused(id, doing, err)
	}
	if power != hypervisor.Running {
		return nil, fault.New(fault.Conflict, "Cannot %s guest %s as it is not running.", doing, id)
	}
	conn, err := c.folder(id).Dial(ctx)
	if err != nil {
		return nil, fmt.Errorf("%s guest %s: %w", doing, id, err)
	}
	return conn, nil
}

// Reset implements hypervisor.Driver: everything in the container is killed, and its init is started anew.
func (c *Containers) Reset(ctx context.Context, id string) error {
	conn, err := c.running(ctx, id, "reset")
	if err != nil {
		return err
	}
	defer conn.Close()
	done, err := conn.Reset(ctx)
	if err != nil {
		return fmt.Errorf("reset guest %s: %w", id, err)
	}
	if !done {
		return fault.New(fault.Conflict, "Cannot reset guest %s as it has not begun.", id)
	}
	return nil
}
