package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"yakumo/fault"
	"yakumo/hypervisor"
	"yakumo/model"
)

// asideError is a failure beside what a guest is: it is told, and tried again, and the guest is no worse for it.
type asideError struct{ err error }

func (e *asideError) Error() string { return e.err.Error() }
func (e *asideError) Unwrap() error { return e.err }

// unplugFor is how long a guest may take to let go of a device before it is left alone for a while.
const unplugFor = 20 * time.Second

// beside does what is done while a guest is as wanted otherwise: devices are plugged in and out, and its disk is copied.
func (a *Agent) beside(ctx context.Context, row *model.HostServer, p *progress, power hypervisor.Power) error {
	err := a.plug(ctx, row, p, power)
	if err == nil {
		err = a.regrow(ctx, row, p, power)
	}
	if saveErr := a.saveImages(ctx, row, p, power); err == nil || errors.Is(err, errWaiting) && saveErr != nil {
		err = saveErr
	}
	if err == nil || errors.Is(err, errWaiting) || ctx.Err() != nil {
		return err
	}
	return &asideError{err}
}

// holdGuest pauses or suspends a guest that is to be.
func (a *Agent) holdGuest(ctx context.Context, row *model.HostServer, power hypervisor.Power) (hypervisor.Power, error) {
	began := time.Now()
	switch {
	case row.Power == model.PowerPaused && power == hypervisor.Running:
		h, ok := a.cfg.Hypervisor.(hypervisor.Pauser)
		if !ok {
			return power, fault.New(fault.Invalid, "The hypervisor of this host cannot pause a server.")
		}
		if err := h.Pause(ctx, row.ID); err != nil {
			return power, fmt.Errorf("pause guest: %w", err)
		}
		power = hypervisor.Paused
	case row.Power == model.PowerSuspended && (power == hypervisor.Running || power == hypervisor.Paused):
		h, ok := a.cfg.Hypervisor.(hypervisor.Suspender)
		if !ok {
			return power, fault.New(fault.Invalid, "The hypervisor of this host cannot suspend a server.")
		}
		if err := h.Suspend(ctx, row.ID); err != nil {
			return power, fmt.Errorf("suspend guest: %w", err)
		}
		power = hypervisor.Suspended
	default:
		return power, nil
	}
	a.guests.did(row.ID, power, began)
	a.log.Info("a guest is held", "server", row.ID, "power", power, "took", time.Since(began))
	return power, nil
}

func nicIDs(row *model.HostServer) (ids []model.ID) {
	for _, n := range row.NICs {
		ids = append(ids, n.PortID)
	}
	return ids
}

func volumeIDs(row *model.HostServer) (ids []model.ID) {
	for _, v := range row.Volumes {
		ids = append(ids, v.VolumeID)
	}
	return ids
}

// sameSet tells whether two lists of different ids hold the same.
func sameSet(a, b []model.ID) bool {
	return len(a) == len(b) && !slices.ContainsFunc(a, func(id model.ID) bool { return !slices.Contains(b, id) })
}

// plug makes a guest that is on have the ports and volumes that are wanted. What may get into it is kept before, so that
// no tap goes while the guest may have it.
func (a *Agent) plug(ctx context.Context, row *model.HostServer, p *progress, power hypervisor.Power) error {
	if power != hypervisor.Running && power != hypervisor.Paused {
		return nil
	}
	nics, disks := nicIDs(row), volumeIDs(row)
	if sameSet(nics, p.NICs) && sameSet(disks, p.Disks) && len(p.Plugging) == 0 {
		if p.Fault == nil {
			return nil
		}
		p.Fault = nil // what could not be changed is not wanted any more
		return a.keep(row.ID, p)
	}
	h, ok := a.cfg.Hypervisor.(hypervisor.Plugger)
	if !ok {
		return a.cannotPlug(row, p, fault.New(fault.NotImplemented, "The hypervisor of this host changes no devices of a running server."))
	}
	for _, id := range nics {
		if !a.ports.wired(id) {
			return fmt.Errorf("port %s is not wired yet: %w", id, errWaiting)
		}
	}
	g, err := a.guest(ctx, row)
	if errors.Is(err, errWaiting) {
		return err
	}
	if err != nil {
		return a.cannotPlug(row, p, err)
	}
	for _, id := range slices.Concat(nics, disks) {
		if !slices.Contains(p.NICs, id) && !slices.Contains(p.Disks, id) && !slices.Contains(p.Plugging, id) {
			p.Plugging = append(slices.Clone(p.Plugging), id)
		}
	}
	if err := a.keep(row.ID, p); err != nil {
		return err
	}
	patient, cancel := context.WithTimeout(ctx, min(unplugFor, a.cfg.Grace))
	defer cancel()
	if err := h.Plug(patient, g); err != nil {
		return a.cannotPlug(row, p, fmt.Errorf("change the guest's devices: %w", err))
	}
	left := slices.DeleteFunc(slices.Concat(p.NICs, p.Plugging), func(id model.ID) bool { return slices.Contains(nics, id) })
	p.NICs, p.Disks, p.Plugging, p.Fault = nics, disks, nil, nil
	if err := a.keep(row.ID, p); err != nil {
		return err
	}
	a.log.Info("a guest has other devices", "server", row.ID, "ports", len(nics), "volumes", len(disks))
	rows := make([]model.RowID, len(left))
	for i, id := range left {
		rows[i] = model.RowID{Kind: model.RowPort, Key: id}
	}
	a.ports.look(rows) // their taps may go now
	return nil
}

// cannotPlug tells why a guest does not have the devices that are wanted; it runs on with those that it has.
func (a *Agent) cannotPlug(row *model.HostServer, p *progress, err error) error {
	text, ok := fault.Text(err)
	if !ok {
		text = "The server's devices could not be changed."
	}
	f := &model.Fault{Code: 500, Message: text, Details: err.Error(), At: a.now()}
	if p.Fault != nil && p.Fault.Message == f.Message && p.Fault.Details == f.Details {
		f.At = p.Fault.At // the same as told before
	}
	p.Fault = f
	return errors.Join(err, a.keep(row.ID, p))
}

// held gives the ports whose taps a guest has or may have, whatever the rows say.
func (l *ledger) held() map[model.ID]bool {
	l.mu.RLock()
	defer l.mu.RUnlock()
	ids := map[model.ID]bool{}
	for _, p := range l.progress {
		if p.Unwired || p.Gone {
			continue
		}
		for _, id := range p.NICs {
			ids[id] = true
		}
		for _, id := range p.Plugging {
			ids[id] = true
		}
	}
	return ids
}
