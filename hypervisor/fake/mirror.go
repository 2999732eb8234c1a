package fake

import (
	"context"
	"fmt"
	"slices"
	"time"

	"yakumo/fault"
	"yakumo/hypervisor"
)

var _ hypervisor.Mirrorer = (*Driver)(nil)

// mirror is a disk of a guest that is being copied to another.
type mirror struct {
	to    hypervisor.Disk
	began time.Time
}

// mirrored gives a guest that is on, and the place of its disk; h.mu is held.
func (h *Host) mirrored(id, serial string) (*guest, int, error) {
	g, err := h.powered(id)
	if err == nil {
		_, err = g.disk(serial)
	}
	if err != nil {
		return nil, 0, err
	}
	return g, slices.IndexFunc(g.live.Disks, func(d hypervisor.Disk) bool { return d.Serial == serial }), nil
}

// Mirror implements hypervisor.Mirrorer.
func (d *Driver) Mirror(ctx context.Context, id, serial string, to hypervisor.Disk) error {
	if err := d.h.enter(ctx, Mirror, id); err != nil {
		return err
	}
	d.h.mu.Lock()
	defer d.h.mu.Unlock()
	g, at, err := d.h.mirrored(id, serial)
	if err != nil {
		return err
	}
	if g.live.Disks[at].Same(to) {
		return fault.New(fault.Conflict, "Disk %s of guest %s is there already.", serial, id)
	}
	if g.mirrors == nil {
		g.mirrors = map[string]*mirror{}
	}
	g.mirrors[serial] = &mirror{to: to, began: time.Now()}
	d.h.contents[address(to)] = nil // it is being written over
	return nil
}

// Mirrored implements hypervisor.Mirrorer.
func (d *Driver) Mirrored(ctx context.Context, id, serial string, to hypervisor.Disk) (hypervisor.MirrorProgress, error) {
	var p hypervisor.MirrorProgress
	if err := d.h.enter(ctx, Mirrored, id); err != nil {
		return p, err
	}
	d.h.mu.Lock()
	defer d.h.mu.Unlock()
	g, at, err := d.h.mirrored(id, serial)
	if err != nil {
		return p, err
	}
	if p.Turned = g.live.Disks[at].Same(to); p.Turned {
		return p, nil
	}
	if m := g.mirrors[serial]; m != nil {
		p.Going, p.Total = true, 100
		if p.Near = time.Since(m.began) >= d.h.behaviour(id).MirrorFor; p.Near {
			p.Done = 100
		}
	}
	return p, nil
}

// Turn implements hypervisor.Mirrorer.
func (d *Driver) Turn(ctx context.Context, id, serial string, to hypervisor.Disk) error {
	d.h.mu.Lock()
	if g, at, err := d.h.mirrored(id, serial); err == nil && g.state.Power == hypervisor.Running && !g.live.Disks[at].Same(to) {
		d.h.become(g, hypervisor.Paused, "paused by an operator")
	}
	d.h.mu.Unlock()
	if err := d.h.enter(ctx, Turn, id); err != nil { // it is held by then
		return err
	}
	d.h.mu.Lock()
	defer d.h.mu.Unlock()
	g, at, err := d.h.mirrored(id, serial)
	if err != nil || g.live.Disks[at].Same(to) {
		return err
	}
	m := g.mirrors[serial]
	if m == nil || !m.to.Same(to) {
		return fault.New(fault.Conflict, "Disk %s of guest %s is not being copied there.", serial, id)
	}
	d.h.contents[address(to)] = slices.Clone(d.h.contents[address(g.live.Disks[at])])
	g.live.Disks = slices.Clone(g.live.Disks)
	old := g.live.Disks[at]
	old.Path, old.Format, old.Network, old.Everywhere = to.Path, to.Format, to.Network, to.Everywhere
	g.live.Disks[at] = old
	delete(g.mirrors, serial)
	return nil
}

// EndMirror implements hypervisor.Mirrorer.
func (d *Driver) EndMirror(ctx context.Context, id, serial string) error {
	if err := d.h.enter(ctx, EndMirror, id); err != nil {
		return err
	}
	d.h.mu.Lock()
	defer d.h.mu.Unlock()
	if g := d.h.guests[id]; g == nil {
		return hypervisor.NotFound(id)
	} else if !g.on() {
		return nil
	}
	g, _, err := d.h.mirrored(id, serial)
	if err == nil {
		delete(g.mirrors, serial)
	}
	return err
}

// Break ends the copying of a disk as a disk that fails does. It tells whether there was any.
func (h *Host) Break(id, serial string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	g := h.guests[id]
	if g == nil || g.mirrors[serial] == nil {
		return false
	}
	delete(g.mirrors, serial)
	return true
}

// Write has a guest append to what its disk holds, and tells whether it did: one that does not run writes nothing.
func (h *Host) Write(id, serial string, data []byte) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	g, at, err := h.mirrored(id, serial)
	if err != nil || g.state.Power != hypervisor.Running {
		return false
	}
	key := address(g.live.Disks[at])
	h.contents[key] = append(h.contents[key], data...)
	return true
}

// Content gives what guests have written to a disk, since it was last copied to.
func (h *Host) Content(d hypervisor.Disk) []byte {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.contents[address(d)])
}

// address is where a disk is.
func address(d hypervisor.Disk) string {
	if d.Network != nil {
		return fmt.Sprintf("%s:%s:%s", d.Network.Protocol, d.Network.Socket, d.Network.Name)
	}
	return d.Path
}
