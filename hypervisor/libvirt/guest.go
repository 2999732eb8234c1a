package libvirt

import (
	"context"
	"fmt"
	"strings"
	"time"

	"yakumo/fault"
	"yakumo/hypervisor"
)

// Ensure implements hypervisor.Driver. Whether a domain is as it should be is told by the
// digest in its metadata: what an operator changes by hand in a definition stays until the
// guest itself changes.
func (d *Driver) Ensure(ctx context.Context, g hypervisor.Guest) error {
	if err := g.Check(); err != nil {
		return err
	}
	p, err := d.platform(ctx, g)
	if err == nil {
		err = d.secrets(ctx, g)
	}
	if err != nil {
		return fmt.Errorf("define guest %s: %w", g.ID, err)
	}
	text, digest, err := definition(g, p)
	if err != nil {
		return err
	}
	return d.ensure(ctx, g, text, digest)
}

// ensure has the definition of g be text.
func (d *Driver) ensure(ctx context.Context, g hypervisor.Guest, text, digest string) error {
	ref, _, mine, err := d.ours(ctx, g.ID)
	if err != nil {
		return fmt.Errorf("define guest %s: %w", g.ID, err)
	}
	stored, err := d.stored(ctx, ref)
	switch {
	case mine && err == nil && stored.digest == digest:
		return nil
	case !mine && (err == nil || hasCode(err, codeNoMetadata)):
		return fault.New(fault.Conflict, "The ID %s is in use on this host by a guest that is not ours.", g.ID)
	case err != nil && !hasCode(err, codeNoDomain, codeNoMetadata, codeOperationInvalid):
		return fmt.Errorf("define guest %s: %w", g.ID, err)
	}
	const validate = 1 // VIR_DOMAIN_DEFINE_VALIDATE
	_, err = d.ask(ctx, slow, procDomainDefineXML, new(encoder).str(text).u32(validate))
	if hasCode(err, codeOperationFailed) {
		if taken, other := d.nameTaken(ctx, g); taken {
			return fault.Wrap(fault.Conflict, err, "The name %s is taken on this host by guest %s.", g.Name, other)
		}
	}
	if err != nil {
		return refused(g.ID, "define", err)
	}
	r := recordOf(g, digest)
	d.mu.Lock()
	d.records[g.ID] = r
	d.mu.Unlock()
	return nil
}

// platform gives what the definition of g depends on beside g.
func (d *Driver) platform(ctx context.Context, g hypervisor.Guest) (p platform, err error) {
	p = platform{cpuModel: d.cfg.CPUModel, sparePorts: max(d.cfg.SparePorts, 0)}
	if p.accelerator, err = d.accelerator(ctx); err != nil {
		return p, err
	}
	if t, _ := g.Tuning(); t.SecureBoot == hypervisor.SecureOptional { // which has been checked
		p.secureBoot, err = d.hasFirmware(ctx, true)
	}
	return p, err
}

// stored reads the metadata of the definition that the next start takes.
func (d *Driver) stored(ctx context.Context, ref domainRef) (record, error) {
	const element, config = 2, 2 // VIR_DOMAIN_METADATA_ELEMENT, VIR_DOMAIN_AFFECT_CONFIG
	out, err := d.ask(ctx, quick, procDomainGetMetadata,
		new(encoder).dom(ref).i32(element).some(metadataNS).u32(config))
	if err != nil {
		return record{}, err
	}
	text := out.str()
	if out.err != nil {
		return record{}, out.err
	}
	return parseRecord(text)
}

// nameTaken tells whether another domain has g's name, and which.
func (d *Driver) nameTaken(ctx context.Context, g hypervisor.Guest) (bool, string) {
	out, err := d.ask(ctx, quick, procDomainLookupByName, new(encoder).str(g.Name))
	if err != nil {
		return false, ""
	}
	other := formatUUID(out.dom().uuid)
	return out.err == nil && other != g.ID, other
}

// Remove implements hypervisor.Driver.
func (d *Driver) Remove(ctx context.Context, id string) error {
	ref, _, mine, err := d.ours(ctx, id)
	if err != nil {
		return fmt.Errorf("remove guest %s: %w", id, err)
	}
	if !mine {
		return nil
	}
	// With what libvirt keeps of the domain, and without what is the guest's own: VIR_DOMAIN_UNDEFINE_MANAGED_SAVE,
	// _SNAPSHOTS_METADATA, _KEEP_NVRAM and _CHECKPOINTS_METADATA.
	const everything = 1 | 2 | 8 | 16
	_, err = d.ask(ctx, slow, procDomainDestroy, new(encoder).dom(ref).u32(0))
	if err == nil || hasCode(err, codeOperationInvalid) { // it ran, or it did not
		_, err = d.ask(ctx, slow, procDomainUndefine, new(encoder).dom(ref).u32(everything))
	}
	if err == nil || hasCode(err, codeNoDomain) {
		return nil // the event of it makes the driver forget
	}
	return refused(id, "remove", err)
}

// known is ours for calls that need the guest to be there.
func (d *Driver) known(ctx context.Context, id, doing string) (domainRef, record, error) {
	ref, r, mine, err := d.ours(ctx, id)
	if err != nil {
		return ref, r, fmt.Errorf("%s guest %s: %w", doing, id, err)
	}
	if !mine {
		return ref, r, hypervisor.NotFound(id)
	}
	return ref, r, nil
}

// Start implements hypervisor.Driver.
func (d *Driver) Start(ctx context.Context, id string) error {
	ref, r, err := d.known(ctx, id, "start")
	if err != nil {
		return err
	}
	if r.log != "" {
		if err := boundLog(r.log, r.logBound); err != nil {
			d.log.Warn("cannot bound a console log", "server", id, "error", err)
		}
	}
	_, err = d.ask(ctx, slow, procDomainCreate, new(encoder).dom(ref).u32(0))
	if hasCode(err, codeOperationInvalid) { // it runs already, in some way
		power, _, stateErr := d.power(ctx, ref)
		switch {
		case stateErr != nil:
			return refused(id, "start", stateErr)
		case power == hypervisor.Running:
			return nil
		case power == hypervisor.Paused:
			_, err = d.ask(ctx, slow, procDomainResume, new(encoder).dom(ref))
		}
	}
	if err != nil && strings.Contains(err.Error(), "specified dev doesn't exist") {
		// libvirt does not say which.
		err = fmt.Errorf("a tap device of it (%s) is missing; make it first: %w", strings.Join(r.taps, ", "), err)
	}
	return refused(id, "start", err)
}

// power asks for the state of one domain.
func (d *Driver) power(ctx context.Context, ref domainRef) (hypervisor.Power, string, error) {
	out, err := d.ask(ctx, quick, procDomainGetState, new(encoder).dom(ref).u32(0))
	if err != nil {
		return 0, "", err
	}
	power, reason := powerOf(int(out.i32()), int(out.i32()))
	power, reason = d.judged(formatUUID(ref.uuid), power, reason)
	return power, reason, out.err
}

// pressAgain is how often the power button is pressed anew: a guest that was busy booting may
// have missed it.
const pressAgain = 10 * time.Second

// lookAgain bounds what a lost event costs while Stop waits.
const lookAgain = time.Second

// Stop implements hypervisor.Driver.
func (d *Driver) Stop(ctx context.Context, id string, grace time.Duration) error {
	ref, _, err := d.known(ctx, id, "stop")
	if err != nil {
		return err
	}
	off := false
	if grace > 0 {
		if off, err = d.shutDown(ctx, id, ref, grace, d.press); err != nil {
			return refused(id, "stop", err)
		}
	}
	if !off {
		_, err = d.ask(ctx, slow, procDomainDestroy, new(encoder).dom(ref).u32(0))
		if err != nil && !hasCode(err, codeOperationInvalid) { // off already
			return refused(id, "stop", err)
		}
	}
	return refused(id, "stop", d.dropSave(ctx, id, ref))
}

// press presses the power button; a guest that is off is a success.
func (d *Driver) press(ctx context.Context, ref domainRef) error {
	const button = 1 // VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN
	_, err := d.ask(ctx, slow, procDomainShutdown, new(encoder).dom(ref).u32(button))
	if hasCode(err, codeOperationInvalid) {
		return nil
	}
	return err
}

// shutDown presses the power button and waits; off tells whether the guest went off in time.
func (d *Driver) shutDown(ctx context.Context, id string, ref domainRef, grace time.Duration, press func(context.Context, domainRef) error) (off bool, err error) {
	watching, cancel := context.WithCancel(ctx)
	defer cancel()
	changes := d.feed.Watch(watching)
	begin := time.Now()
	end := time.NewTimer(grace)
	defer end.Stop()
	look := time.NewTicker(lookAgain)
	defer look.Stop()
	var pressed time.Time
	for {
		power, _, err := d.power(ctx, ref)
		if err != nil {
			return false, err
		}
		if power != hypervisor.Running && power != hypervisor.Paused {
			return true, nil
		}
		if time.Since(begin) < grace && (pressed.IsZero() || time.Since(pressed) >= pressAgain) {
			if err := press(ctx, ref); err != nil {
				return false, err
			}
			pressed = time.Now()
		}
		for changed := false; !changed; {
			select {
			case s, ok := <-changes:
				if !ok { // the link was lost; the ticker goes on looking
					changes = nil
					if ctx.Err() != nil {
						return false, ctx.Err()
					}
				}
				changed = ok && s.ID == id
			case <-look.C:
				changed = true
			case <-end.C:
				return false, nil
			case <-ctx.Done():
				return false, ctx.Err()
			}
		}
	}
}

// Reset implements hypervisor.Driver.
func (d *Driver) Reset(ctx context.Context, id string) error {
	ref, _, err := d.known(ctx, id, "reset")
	if err != nil {
		return err
	}
	_, err = d.ask(ctx, slow, procDomainReset, new(encoder).dom(ref).u32(0))
	return refused(id, "reset", err)
}
