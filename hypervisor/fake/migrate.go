package fake

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"slices"
	"sync"
	"time"

	"yakumo/fault"
	"yakumo/hypervisor"
)

// More operations that a Fault can hit. A Fault of Switch hits Send when all is copied, before the other end is told to run
// the guest.
const (
	Receive  Op = "receive"
	Send     Op = "send"
	Switch   Op = "switch"
	Abort    Op = "abort"
	Hurry    Op = "hurry"
	Progress Op = "progress"
)

// Moves are what a host knows of guests on their way.
type moves struct {
	mu      sync.Mutex
	sending map[string]*sending
}

type sending struct {
	abort    context.CancelCauseFunc
	hurry    chan struct{} // closed by Hurry
	hurried  bool
	progress hypervisor.MoveProgress
}

var errAborted = errors.New("aborted by an operator")

var _ hypervisor.Migrator = (*Driver)(nil)

// reception is a host that awaits one guest; each connection is served by a goroutine.
type reception struct {
	h    *Host
	spec hypervisor.Guest

	mu     sync.Mutex
	conns  []net.Conn
	memory []byte // the guest's, once all of it has come
	whole  bool
	closed bool
}

// Receive implements hypervisor.Migrator.
func (d *Driver) Receive(ctx context.Context, spec hypervisor.Guest) (hypervisor.Reception, error) {
	if err := spec.Check(); err != nil {
		return nil, err
	}
	if err := d.h.enter(ctx, Receive, spec.ID); err != nil {
		return nil, err
	}
	d.h.mu.Lock()
	defer d.h.mu.Unlock()
	if g := d.h.guests[spec.ID]; g != nil {
		if g.state.Power == hypervisor.Running || g.state.Power == hypervisor.Paused {
			return nil, fault.New(fault.Conflict, "Guest %s is on this host already.", spec.ID)
		}
		delete(d.h.guests, spec.ID)
		d.h.become(g, hypervisor.Absent, "removed")
	}
	spec.Disks, spec.NICs = slices.Clone(spec.Disks), slices.Clone(spec.NICs)
	return &reception{h: d.h, spec: spec}, nil
}

// Dial implements hypervisor.Reception.
func (r *reception) Dial(ctx context.Context, kind string) (io.ReadWriteCloser, error) {
	serve := map[string]func(net.Conn) error{"control": r.control, "memory": r.takeMemory, "disks": r.takeDisks}[kind]
	if serve == nil {
		return nil, fault.New(fault.Invalid, "A hypervisor of this kind has no connection %q.", kind)
	}
	r.h.mu.Lock()
	down := r.h.down
	r.h.mu.Unlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed || down {
		return nil, fault.New(fault.Unavailable, "The hypervisor does not await a guest.")
	}
	here, there := net.Pipe()
	r.conns = append(r.conns, here)
	go func() {
		defer here.Close()
		_ = serve(here) // the sender sees that its connection ends
	}()
	return there, nil
}

// Close implements hypervisor.Reception.
func (r *reception) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	for _, c := range r.conns {
		c.Close()
	}
	return nil
}

// word is what the ends of a move say to each other, in JSON.
type word struct {
	Say    string `json:"say"` // prepare, finish; page, end; ok
	Data   []byte `json:"data,omitempty"`
	Serial string `json:"serial,omitempty"`
	Held   bool   `json:"held,omitempty"` // finish: it is not to run
}

// control is the sender's: with it the guest comes into being, not running, and goes when the sender goes.
func (r *reception) control(c net.Conn) error {
	in, out := json.NewDecoder(c), json.NewEncoder(c)
	var w word
	if err := in.Decode(&w); err != nil {
		return err
	}
	h, id := r.h, r.spec.ID
	h.mu.Lock()
	if h.guests[id] != nil || h.down {
		h.mu.Unlock()
		return out.Encode(word{Say: "it is here already"})
	}
	g := &guest{spec: r.spec, off: make(chan struct{})}
	h.guests[id] = g
	h.hold(g, "migrating here")
	h.mu.Unlock()
	runs := false
	defer func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		if !runs && h.guests[id] == g {
			delete(h.guests, id)
			h.become(g, hypervisor.Absent, "the move failed")
		}
	}()
	if err := out.Encode(word{Say: "ok"}); err != nil {
		return err
	}
	if err := in.Decode(&w); err != nil {
		return err
	}
	r.mu.Lock()
	memory, whole := r.memory, r.whole
	r.mu.Unlock()
	if !whole {
		return out.Encode(word{Say: "not all memory has come"})
	}
	h.mu.Lock()
	if h.guests[id] == g && g.on() { // the host may have lost its power
		runs = true
		g.log = memory
		g.run++
		g.live, g.began = g.spec, time.Now()
		if w.Held {
			h.become(g, hypervisor.Paused, "paused by an operator")
		} else {
			h.become(g, hypervisor.Running, "migrated here")
		}
	}
	h.mu.Unlock()
	if !runs {
		return out.Encode(word{Say: "it was removed"})
	}
	return out.Encode(word{Say: "ok"})
}

func (r *reception) takeMemory(c net.Conn) error {
	in := json.NewDecoder(c)
	for {
		var w word
		if err := in.Decode(&w); err != nil {
			return err
		}
		if w.Say == "end" {
			r.mu.Lock()
			r.memory, r.whole = w.Data, true
			r.mu.Unlock()
			return json.NewEncoder(c).Encode(word{Say: "ok"})
		}
	}
}

func (r *reception) takeDisks(c net.Conn) error {
	in, out := json.NewDecoder(c), json.NewEncoder(c)
	for {
		var w word
		if err := in.Decode(&w); err != nil {
			return err
		}
		i := slices.IndexFunc(r.spec.Disks, func(d hypervisor.Disk) bool { return d.Serial == w.Serial })
		if i < 0 {
			return fmt.Errorf("no disk has the serial number %q", w.Serial)
		}
		if err := os.WriteFile(r.spec.Disks[i].Path, w.Data, 0o600); err != nil {
			return err
		}
		if err := out.Encode(word{Say: "ok"}); err != nil {
			return err
		}
	}
}

// ask says a word and waits for "ok".
func ask(c io.ReadWriter, w word) error {
	if err := json.NewEncoder(c).Encode(w); err != nil {
		return err
	}
	var a word
	if err := json.NewDecoder(c).Decode(&a); err != nil {
		return err
	}
	if a.Say != "ok" {
		return errors.New(a.Say)
	}
	return nil
}

// Send implements hypervisor.Migrator. A guest's memory is what it has written to its console.
func (d *Driver) Send(ctx context.Context, id string, to hypervisor.Passage) error {
	if err := d.h.enter(ctx, Send, id); err != nil {
		return err
	}
	h := d.h
	h.mu.Lock()
	g, err := h.powered(id)
	h.mu.Unlock()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	s := &sending{abort: cancel, hurry: make(chan struct{})}
	h.moves.mu.Lock()
	if h.moves.sending[id] != nil {
		h.moves.mu.Unlock()
		return fault.New(fault.Conflict, "Guest %s is on its way already.", id)
	}
	if h.moves.sending == nil {
		h.moves.sending = map[string]*sending{}
	}
	h.moves.sending[id] = s
	h.moves.mu.Unlock()
	defer func() {
		h.moves.mu.Lock()
		delete(h.moves.sending, id)
		h.moves.mu.Unlock()
	}()
	err = d.send(ctx, g, s, to)
	if cause := context.Cause(ctx); err != nil && cause != nil && !errors.Is(err, hypervisor.ErrUncertain) {
		return fault.Wrap(fault.Conflict, errors.Join(cause, err), "The move was aborted.")
	}
	return err
}

func (d *Driver) send(ctx context.Context, g *guest, s *sending, to hypervisor.Passage) error {
	h, id := d.h, g.spec.ID
	var conns []io.Closer
	defer func() {
		for _, c := range conns {
			c.Close()
		}
	}()
	open := func(kind string) (io.ReadWriteCloser, error) {
		c, err := to.Dial(ctx, kind)
		if err == nil {
			conns = append(conns, c)
			context.AfterFunc(ctx, func() { c.Close() })
		}
		return c, err
	}
	control, err := open("control")
	if err != nil {
		return err
	}
	if err := ask(control, word{Say: "prepare"}); err != nil {
		return fmt.Errorf("prepare: %w", err)
	}
	if len(to.CopyDisks) > 0 {
		disks, err := open("disks")
		if err != nil {
			return err
		}
		for _, serial := range to.CopyDisks {
			if err := sendDisk(disks, g.spec, serial); err != nil {
				return fmt.Errorf("disk %s: %w", serial, err)
			}
		}
	}
	memory, err := open("memory")
	if err != nil {
		return err
	}
	if err := d.precopy(ctx, id, s, memory); err != nil {
		return fmt.Errorf("memory: %w", err)
	}
	h.mu.Lock()
	run, held := g.run, g.state.Power == hypervisor.Paused
	switch {
	case held:
	case g.state.Power != hypervisor.Running:
		h.mu.Unlock()
		return fault.New(fault.Conflict, "Guest %s is not running any more.", id)
	default:
		h.hold(g, "migrating away")
	}
	log := slices.Clone(g.log)
	h.mu.Unlock()
	resume := func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		if g.run == run && g.state.Power == hypervisor.Paused && !held {
			h.become(g, hypervisor.Running, "migration cancelled")
		}
	}
	if len(to.CopyDisks) > 0 { // what was written meanwhile
		disks, err := open("disks")
		for _, serial := range to.CopyDisks {
			if err == nil {
				err = sendDisk(disks, g.spec, serial)
			}
		}
		if err != nil {
			resume()
			return fmt.Errorf("disks: %w", err)
		}
	}
	err = ask(memory, word{Say: "end", Data: log})
	if err == nil {
		err = h.enter(ctx, Switch, id)
	}
	if err != nil {
		resume()
		return fmt.Errorf("switch over: %w", err)
	}
	if err := json.NewEncoder(control).Encode(word{Say: "finish", Held: held}); err != nil {
		resume()
		return fmt.Errorf("switch over: %w", err)
	}
	var a word
	if err := json.NewDecoder(control).Decode(&a); err != nil {
		return fmt.Errorf("switch over: %w: %w", hypervisor.ErrUncertain, err)
	}
	if a.Say != "ok" {
		resume()
		return fmt.Errorf("switch over: %s", a.Say)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if g.run == run && h.guests[id] == g {
		h.end(g, hypervisor.Off, "migrated away")
		delete(h.guests, id)
		h.become(g, hypervisor.Absent, "removed")
	}
	return nil
}

// sendDisk sends a disk's file; a disk that is no file here is empty.
func sendDisk(c io.ReadWriter, spec hypervisor.Guest, serial string) error {
	i := slices.IndexFunc(spec.Disks, func(d hypervisor.Disk) bool { return d.Serial == serial })
	if i < 0 {
		return fault.New(fault.Invalid, "The guest has no disk with the serial number %s.", serial)
	}
	data, err := os.ReadFile(spec.Disks[i].Path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return ask(c, word{Say: "disk", Serial: serial, Data: data})
}

// precopy sends pages for as long as the host's data say, or until it is hurried.
func (d *Driver) precopy(ctx context.Context, id string, s *sending, c io.Writer) error {
	const page = 1 << 20
	out, total := json.NewEncoder(c), d.h.behaviour(id).MoveFor
	tick := time.NewTicker(max(total/20, time.Millisecond))
	defer tick.Stop()
	for done := time.Duration(0); ; {
		h := &d.h.moves
		h.mu.Lock()
		s.progress.MemoryTotal = int64(20 * page)
		s.progress.MemoryProcessed = min(s.progress.MemoryProcessed+page, s.progress.MemoryTotal)
		s.progress.MemoryRemaining = s.progress.MemoryTotal - s.progress.MemoryProcessed
		h.mu.Unlock()
		if err := out.Encode(word{Say: "page"}); err != nil {
			return err
		}
		if done >= total {
			return nil
		}
		select {
		case <-tick.C:
			done += total / 20
		case <-s.hurry:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// Abort implements hypervisor.Migrator.
func (d *Driver) Abort(ctx context.Context, id string) error {
	if err := d.h.enter(ctx, Abort, id); err != nil {
		return err
	}
	d.h.moves.mu.Lock()
	defer d.h.moves.mu.Unlock()
	if s := d.h.moves.sending[id]; s != nil {
		s.abort(errAborted)
	}
	return nil
}

// Hurry implements hypervisor.Migrator.
func (d *Driver) Hurry(ctx context.Context, id string) error {
	if err := d.h.enter(ctx, Hurry, id); err != nil {
		return err
	}
	d.h.moves.mu.Lock()
	defer d.h.moves.mu.Unlock()
	s := d.h.moves.sending[id]
	if s == nil {
		return fault.New(fault.Conflict, "Guest %s is in no move.", id)
	}
	if !s.hurried {
		s.hurried = true
		close(s.hurry)
	}
	return nil
}

// Progress implements hypervisor.Migrator.
func (d *Driver) Progress(ctx context.Context, id string) (hypervisor.MoveProgress, error) {
	if err := d.h.enter(ctx, Progress, id); err != nil {
		return hypervisor.MoveProgress{}, err
	}
	d.h.moves.mu.Lock()
	defer d.h.moves.mu.Unlock()
	if s := d.h.moves.sending[id]; s != nil {
		return s.progress, nil
	}
	return hypervisor.MoveProgress{}, fault.New(fault.NotFound, "Guest %s is in no move.", id)
}
