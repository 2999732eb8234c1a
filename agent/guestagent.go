package agent

import (
	"context"
	"errors"
	"time"

	"yakumo/fault"
	"yakumo/hypervisor"
	"yakumo/model"
)

// setPassword has the agent in a guest set a password. The password is on no disk of this host, and in no log: whoever asks
// waits, and asks again where the answer was lost.
func (a *Agent) setPassword(ctx context.Context, q model.PasswordQuery) (struct{}, error) {
	row := a.ledger.server(q.ServerID)
	if row == nil || row.Deleted {
		return struct{}{}, fault.New(fault.NotFound, "Instance %s could not be found.", q.ServerID)
	}
	h, ok := a.cfg.Hypervisor.(hypervisor.GuestAgent)
	if !ok {
		return struct{}{}, fault.New(fault.NotImplemented, "The hypervisor of this host reaches no guest agents.")
	}
	began := time.Now()
	if err := h.SetPassword(ctx, row.ID, q.User, q.Password); err != nil {
		a.log.Warn("a guest's agent has set no password", "server", row.ID, "err", err)
		return struct{}{}, err
	}
	a.log.Info("a guest's agent has set a password", "server", row.ID, "user", q.User, "took", time.Since(began))
	return struct{}{}, nil
}

// quiesceOf says how copies of a server's disks are quiesced: as Nova does, where its image has an agent, and else only where the
// image asks for it, which cannot be then.
func quiesceOf(row *model.HostServer) hypervisor.Quiesce {
	if must, _ := hypervisor.Flag(row.Image.Hardware["os_require_quiesce"]); must {
		return hypervisor.QuiesceMust
	}
	if has, _ := hypervisor.Flag(row.Image.Hardware["hw_qemu_guest_agent"]); has {
		return hypervisor.QuiesceTry
	}
	return hypervisor.QuiesceNever
}

// copyDisk copies a disk of a guest that is on. That its file systems may stand still is kept while that is so: an agent that dies
// in between leaves them to the next one, which does not wait until somebody wants a copy again.
func (a *Agent) copyDisk(ctx context.Context, row *model.HostServer, serial, path string) error {
	c, ok := a.cfg.Hypervisor.(hypervisor.Copier)
	if !ok {
		return fault.New(fault.Invalid, "The hypervisor of this host cannot copy a running server's disk.")
	}
	quiesce := quiesceOf(row)
	if quiesce == hypervisor.QuiesceNever {
		return c.CopyDisk(ctx, row.ID, serial, path, quiesce)
	}
	if err := a.thawLeft(ctx, row.ID); err != nil && !errors.Is(err, errWaiting) {
		a.log.Warn("a guest's file systems may be frozen", "server", row.ID, "err", err)
	}
	a.mu.Lock()
	a.quiescing[row.ID]++
	a.mu.Unlock()
	err := a.ledger.note(row.ID, func(p *progress) { p.Frozen = true })
	if err == nil {
		err = c.CopyDisk(ctx, row.ID, serial, path, quiesce)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.quiescing[row.ID]--; a.quiescing[row.ID] > 0 {
		return err
	}
	delete(a.quiescing, row.ID)
	return errors.Join(err, a.ledger.note(row.ID, func(p *progress) { p.Frozen = false }))
}

// thaw lets a guest's file systems be written again that an earlier agent may have left frozen, as soon as it answers.
func (a *Agent) thaw(ctx context.Context, id model.ID) time.Duration {
	err := a.thawLeft(ctx, id)
	switch {
	case err == nil || ctx.Err() != nil || errors.Is(err, errWaiting): // the next look at the server asks again
		return 0
	}
	a.log.Warn("a guest's file systems may be frozen; they are thawed later", "server", id, "err", err)
	return a.cfg.Repeat.Max
}

// thawLeft is errWaiting for a guest that is held, and so keeps what it had.
func (a *Agent) thawLeft(ctx context.Context, id model.ID) error {
	a.mu.Lock()
	ours := a.quiescing[id] > 0
	a.mu.Unlock()
	h, ok := a.cfg.Hypervisor.(hypervisor.GuestAgent)
	if p, _ := a.ledger.progressOf(id); !p.Frozen || ours || !ok {
		return nil
	}
	switch power, known := a.guests.state(id); {
	case !known, power == hypervisor.Paused, power == hypervisor.Suspended:
		return errWaiting
	case power == hypervisor.Running:
		err := h.Thaw(ctx, id)
		if fault.Is(err, fault.Unavailable) || ctx.Err() != nil {
			return err
		}
		if err != nil { // another try would be refused, too
			a.log.Warn("a guest's file systems may be frozen", "server", id, "err", err)
		}
	}
	return a.ledger.note(id, func(p *progress) { p.Frozen = false })
}
