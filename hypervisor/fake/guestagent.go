package fake

import (
	"context"

	"yakumo/fault"
	"yakumo/hypervisor"
)

var _ hypervisor.GuestAgent = (*Driver)(nil)

// attended gives a guest that is on and whose agent answers; h.mu is held.
func (h *Host) attended(id string) (*guest, error) {
	g, err := h.powered(id)
	if err != nil {
		return nil, err
	}
	switch t, err := g.live.Tuning(); {
	case err != nil || !t.Agent:
		return nil, fault.New(fault.NotImplemented, "Guest %s has no channel to a guest agent.", id)
	case h.behaviour(id).NoAgent:
		return nil, fault.New(fault.Unavailable, "The guest agent of %s does not answer.", id)
	}
	return g, nil
}

// SetPassword implements hypervisor.GuestAgent.
func (d *Driver) SetPassword(ctx context.Context, id, user, password string) error {
	if err := d.h.enter(ctx, SetPassword, id); err != nil {
		return err
	}
	d.h.mu.Lock()
	defer d.h.mu.Unlock()
	g, err := d.h.attended(id)
	if err != nil {
		return err
	}
	if g.passwords == nil {
		g.passwords = map[string]string{}
	}
	g.passwords[user] = password
	return nil
}

// Thaw implements hypervisor.GuestAgent: a guest here is frozen for no time, but by Freeze.
func (d *Driver) Thaw(ctx context.Context, id string) error {
	if err := d.h.enter(ctx, Thaw, id); err != nil {
		return err
	}
	d.h.mu.Lock()
	defer d.h.mu.Unlock()
	g, err := d.h.attended(id)
	if err == nil {
		g.frozen = false
	}
	return err
}

// Freeze leaves a guest's file systems frozen, as a driver does that dies within CopyDisk.
func (h *Host) Freeze(id string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if g := h.guests[id]; g != nil {
		g.frozen = true
	}
}

// Frozen tells whether Freeze was called since the guest was thawed.
func (h *Host) Frozen(id string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	g := h.guests[id]
	return g != nil && g.frozen
}

// quiesce counts the copies that were made with still file systems.
func (h *Host) quiesce(id string, q hypervisor.Quiesce) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if q == hypervisor.QuiesceNever {
		return nil
	}
	g, err := h.attended(id)
	if err == nil {
		g.quiesced++
	}
	if err != nil && q == hypervisor.QuiesceMust {
		return fault.Wrap(fault.Invalid, err, "Guest %s cannot be quiesced, as its image requires: its guest agent does not do it.", id)
	}
	return nil
}

// Password gives the password that a guest's user was given last; "": none.
func (h *Host) Password(id, user string) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	if g := h.guests[id]; g != nil {
		return g.passwords[user]
	}
	return ""
}

// Quiesced counts the copies of a guest's disks that were made with still file systems.
func (h *Host) Quiesced(id string) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	if g := h.guests[id]; g != nil {
		return g.quiesced
	}
	return 0
}
