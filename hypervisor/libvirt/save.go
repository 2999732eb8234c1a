package libvirt

import (
	"context"

	"yakumo/hypervisor"
)

// Pause implements hypervisor.Pauser.
func (d *Driver) Pause(ctx context.Context, id string) error {
	ref, _, err := d.known(ctx, id, "pause")
	if err != nil {
		return err
	}
	_, err = d.ask(ctx, slow, procDomainSuspend, new(encoder).dom(ref))
	return refused(id, "pause", err)
}

// Interrupt implements hypervisor.Interrupter.
func (d *Driver) Interrupt(ctx context.Context, id string) error {
	const doing = "interrupt"
	ref, _, err := d.known(ctx, id, doing)
	if err != nil {
		return err
	}
	_, err = d.ask(ctx, slow, procDomainInjectNMI, new(encoder).dom(ref).u32(0))
	return refused(id, doing, err)
}

// Suspend implements hypervisor.Suspender, by libvirt's managed save: it keeps the memory in a file of its own, starts
// from that next, and knows of it when it is started anew itself.
func (d *Driver) Suspend(ctx context.Context, id string) error {
	ref, _, err := d.known(ctx, id, "suspend")
	if err != nil {
		return err
	}
	const running = 2 // VIR_DOMAIN_SAVE_RUNNING: Start makes a guest run, also one that was paused
	_, err = d.ask(ctx, slow, procDomainSave, new(encoder).dom(ref).u32(running))
	if hasCode(err, codeOperationInvalid) {
		if there, hasErr := d.hasSave(ctx, ref); hasErr == nil && there {
			return nil
		}
	}
	if err == nil {
		d.forgetSave(id)
	}
	return refused(id, "suspend", err)
}

// hasSave asks whether a guest that is off has its memory in a file.
func (d *Driver) hasSave(ctx context.Context, ref domainRef) (bool, error) {
	out, err := d.ask(ctx, quick, procDomainHasSave, new(encoder).dom(ref).u32(0))
	if err != nil {
		return false, err
	}
	return out.i32() == 1, out.err
}

// dropSave removes the file with the memory of a guest that is off, where there is one. No event tells of that.
func (d *Driver) dropSave(ctx context.Context, id string, ref domainRef) error {
	there, err := d.hasSave(ctx, ref)
	if err != nil || !there {
		return err
	}
	if _, err := d.ask(ctx, slow, procDomainDropSave, new(encoder).dom(ref).u32(0)); err != nil {
		return err
	}
	d.forgetSave(id)
	d.feed.Publish(d.see(id, hypervisor.Off, "stopped", false))
	return nil
}

func (d *Driver) forgetSave(id string) {
	d.mu.Lock()
	delete(d.saves, id)
	d.mu.Unlock()
}

// saved tells whether a listed guest is suspended. libvirt says why a guest is off only until it is started anew
// itself, and does not change it when the file goes; so it is asked, once, for each guest that may be.
func (d *Driver) saved(ctx context.Context, l *link, s stats) (bool, error) {
	const off, unknown, saved = 5, 0, 5 // VIR_DOMAIN_SHUTOFF, VIR_DOMAIN_SHUTOFF_UNKNOWN, VIR_DOMAIN_SHUTOFF_SAVED
	if s.state != off || s.reason != unknown && s.reason != saved {
		return false, nil
	}
	id := formatUUID(s.dom.uuid)
	d.mu.Lock()
	there, asked := d.saves[id]
	d.mu.Unlock()
	if asked {
		return there, nil
	}
	out, err := l.quick.call(ctx, procDomainHasSave, new(encoder).dom(s.dom).u32(0))
	if hasCode(err, codeNoDomain) {
		return false, nil // gone meanwhile; an event tells
	}
	if err != nil {
		return false, err
	}
	there = out.i32() == 1
	if out.err != nil {
		return false, out.err
	}
	d.mu.Lock()
	d.saves[id] = there
	d.mu.Unlock()
	return there, nil
}
