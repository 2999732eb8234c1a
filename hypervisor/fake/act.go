package fake

import (
	"context"
	"fmt"
	"os"
	"slices"
	"time"

	"yakumo/fault"
	"yakumo/hypervisor"
)

var (
	_ hypervisor.Pauser    = (*Driver)(nil)
	_ hypervisor.Suspender = (*Driver)(nil)
	_ hypervisor.Grower    = (*Driver)(nil)
	_ hypervisor.Reopener  = (*Driver)(nil)
	_ hypervisor.Copier    = (*Driver)(nil)
	_ hypervisor.Diagnoser = (*Driver)(nil)
)

// on tells whether the guest has processors, going or held.
func (g *guest) on() bool {
	return g.state.Power == hypervisor.Running || g.state.Power == hypervisor.Paused
}

// powered gives a guest that is on; h.mu is held.
func (h *Host) powered(id string) (*guest, error) {
	g := h.guests[id]
	if g == nil {
		return nil, hypervisor.NotFound(id)
	}
	if !g.on() {
		return nil, fault.New(fault.Conflict, "Guest %s is not running; start it first.", id)
	}
	return g, nil
}

// Pause implements hypervisor.Pauser. A guest that would end its run by itself does so all the same.
func (d *Driver) Pause(ctx context.Context, id string) error {
	if err := d.h.enter(ctx, Pause, id); err != nil {
		return err
	}
	d.h.mu.Lock()
	defer d.h.mu.Unlock()
	g, err := d.h.powered(id)
	if err == nil && g.state.Power == hypervisor.Running {
		d.h.become(g, hypervisor.Paused, "paused by an operator")
	}
	return err
}

// Interrupt implements hypervisor.Interrupter.
func (d *Driver) Interrupt(ctx context.Context, id string) error {
	if err := d.h.enter(ctx, Interrupt, id); err != nil {
		return err
	}
	d.h.mu.Lock()
	defer d.h.mu.Unlock()
	g, err := d.h.powered(id)
	if err == nil {
		g.interrupts++
	}
	return err
}

// Interrupts counts the interrupts that a guest was given.
func (h *Host) Interrupts(id string) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	if g := h.guests[id]; g != nil {
		return g.interrupts
	}
	return 0
}

// Suspend implements hypervisor.Suspender.
func (d *Driver) Suspend(ctx context.Context, id string) error {
	if err := d.h.enter(ctx, Suspend, id); err != nil {
		return err
	}
	d.h.mu.Lock()
	defer d.h.mu.Unlock()
	if g := d.h.guests[id]; g != nil && g.state.Power == hypervisor.Suspended {
		return nil
	}
	g, err := d.h.powered(id)
	if err == nil {
		d.h.end(g, hypervisor.Suspended, "saved")
	}
	return err
}

// Plug implements hypervisor.Plugger.
func (d *Driver) Plug(ctx context.Context, spec hypervisor.Guest) error {
	if err := spec.Check(); err != nil {
		return err
	}
	if err := d.h.enter(ctx, Plug, spec.ID); err != nil {
		return err
	}
	h := d.h
	h.mu.Lock()
	g, err := h.powered(spec.ID)
	if err != nil {
		h.mu.Unlock()
		return err
	}
	has := func(list []hypervisor.Disk, d hypervisor.Disk) bool {
		return slices.ContainsFunc(list, func(o hypervisor.Disk) bool { return o.Serial == d.Serial })
	}
	hasNIC := func(list []hypervisor.NIC, n hypervisor.NIC) bool {
		return slices.ContainsFunc(list, func(o hypervisor.NIC) bool { return o.MAC == n.MAC })
	}
	away := slices.ContainsFunc(g.live.Disks, func(d hypervisor.Disk) bool { return !has(spec.Disks, d) }) ||
		slices.ContainsFunc(g.live.NICs, func(n hypervisor.NIC) bool { return !hasNIC(spec.NICs, n) })
	// What is new is there at once; what is to go waits for the guest.
	for _, d := range spec.Disks {
		if !has(g.live.Disks, d) {
			g.live.Disks = append(slices.Clone(g.live.Disks), d)
		}
	}
	for _, n := range spec.NICs {
		if !hasNIC(g.live.NICs, n) {
			g.live.NICs = append(slices.Clone(g.live.NICs), n)
		}
	}
	b, run := h.behaviour(spec.ID), g.run
	h.mu.Unlock()
	if away && b.LetGoFor < 0 {
		<-ctx.Done()
		return fault.Wrap(fault.Conflict, ctx.Err(), "Guest %s does not let go of a device.", spec.ID)
	}
	if away {
		if err := sleep(ctx, b.LetGoFor); err != nil {
			return fault.Wrap(fault.Conflict, err, "Guest %s does not let go of a device.", spec.ID)
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if g.run != run || !g.on() {
		return fault.New(fault.Conflict, "Guest %s has stopped meanwhile.", spec.ID)
	}
	g.spec.Disks, g.spec.NICs = slices.Clone(spec.Disks), slices.Clone(spec.NICs)
	g.live.Disks, g.live.NICs = g.spec.Disks, g.spec.NICs
	return nil
}

// Grow implements hypervisor.Grower. Files stay as they are; see Host.Size.
func (d *Driver) Grow(ctx context.Context, id, serial string, size int64) error {
	if err := d.h.enter(ctx, Grow, id); err != nil {
		return err
	}
	d.h.mu.Lock()
	defer d.h.mu.Unlock()
	g, err := d.h.powered(id)
	if err != nil {
		return err
	}
	if _, err := g.disk(serial); err != nil {
		return err
	}
	if g.sizes == nil {
		g.sizes = map[string]int64{}
	}
	g.sizes[serial] = size
	return nil
}

// Reopen implements hypervisor.Reopener. A guest knows the sizes that it was told, and none besides.
func (d *Driver) Reopen(ctx context.Context, id, serial string, size int64, change func(context.Context) error) error {
	if err := d.h.enter(ctx, Reopen, id); err != nil {
		return err
	}
	d.h.mu.Lock()
	g, err := d.h.powered(id)
	if err == nil {
		_, err = g.disk(serial)
	}
	if err != nil || g.sizes[serial] >= size {
		d.h.mu.Unlock()
		return err
	}
	ran, run := g.state.Power == hypervisor.Running, g.run
	if ran {
		d.h.become(g, hypervisor.Paused, "paused by an operator")
	}
	d.h.mu.Unlock()
	if err := change(ctx); err != nil {
		return err
	}
	d.h.mu.Lock()
	defer d.h.mu.Unlock()
	if g.run != run || !g.on() {
		return fault.New(fault.Conflict, "Guest %s has stopped meanwhile.", id)
	}
	if g.sizes == nil {
		g.sizes = map[string]int64{}
	}
	g.sizes[serial] = size
	if ran {
		d.h.become(g, hypervisor.Running, "resumed")
	}
	return nil
}

// disk gives the disk of a guest that is on by its serial number.
func (g *guest) disk(serial string) (hypervisor.Disk, error) {
	for _, d := range g.live.Disks {
		if d.Serial == serial {
			return d, nil
		}
	}
	return hypervisor.Disk{}, fault.New(fault.NotFound, "Guest %s has no disk %s.", g.spec.ID, serial)
}

// CopyDisk implements hypervisor.Copier: the copy is of the disk's file where there is one, and names the disk where not.
func (d *Driver) CopyDisk(ctx context.Context, id, serial, path string, quiesce hypervisor.Quiesce) error {
	if err := d.h.enter(ctx, CopyDisk, id); err != nil {
		return err
	}
	if err := d.h.quiesce(id, quiesce); err != nil {
		return err
	}
	d.h.mu.Lock()
	g, err := d.h.powered(id)
	var disk hypervisor.Disk
	if err == nil {
		disk, err = g.disk(serial)
	}
	d.h.mu.Unlock()
	if err != nil {
		return err
	}
	data, err := os.ReadFile(disk.Path)
	if err != nil {
		data = fmt.Appendf(nil, "disk %s of guest %s", serial, id)
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if _, err := f.Write(data); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}

// Diagnostics implements hypervisor.Diagnoser: the guest uses nothing.
func (d *Driver) Diagnostics(ctx context.Context, id string) (hypervisor.Diagnostics, error) {
	if err := d.h.enter(ctx, Diagnose, id); err != nil {
		return hypervisor.Diagnostics{}, err
	}
	d.h.mu.Lock()
	defer d.h.mu.Unlock()
	g, err := d.h.powered(id)
	if err != nil {
		return hypervisor.Diagnostics{}, err
	}
	x := hypervisor.Diagnostics{Uptime: time.Since(g.began), CPUTime: make([]time.Duration, g.live.VCPUs), MemoryMiB: g.live.MemoryMiB}
	for _, d := range g.live.Disks {
		x.Disks = append(x.Disks, hypervisor.DiskCounters{Serial: d.Serial})
	}
	for _, n := range g.live.NICs {
		x.NICs = append(x.NICs, hypervisor.NICCounters{MAC: n.MAC})
	}
	return x, nil
}

// Live gives what a guest that is on or suspended really has, and whether it is one.
func (h *Host) Live(id string) (hypervisor.Guest, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if g := h.guests[id]; g != nil && (g.on() || g.state.Power == hypervisor.Suspended) {
		return g.live, true
	}
	return hypervisor.Guest{}, false
}

// Size gives the size in bytes that a guest was last told a disk has; 0: it was told nothing.
func (h *Host) Size(id, serial string) int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	if g := h.guests[id]; g != nil {
		return g.sizes[serial]
	}
	return 0
}

// PowerCut turns the host off and on: every guest that is on is off then, as nothing told it, and suspended ones stay so.
func (h *Host) PowerCut() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, g := range h.guests {
		if g.on() {
			h.end(g, hypervisor.Off, "")
		}
	}
}
