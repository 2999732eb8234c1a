package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"yakumo/fault"
	"yakumo/hypervisor"
	"yakumo/model"
)

// sending is a guest on its way to another host.
type sending struct {
	cancel context.CancelCauseFunc
	force  chan struct{} // closed when the user wants it to end soon
	forced bool          // under mover.mu
}

// tellEach is how often a source says how far it has come.
const tellEach = time.Second

// send is the source's part of a live move. The server is the move's alone from the time when the target is ready.
func (m *mover) send(ctx context.Context, row *model.HostServer, p *progress, power hypervisor.Power) (alone bool, err error) {
	if row.Move.Stage != model.MoveRunning {
		return false, nil
	}
	m.mu.Lock()
	s := m.sending[row.ID]
	if s != nil && row.Move.Force && !s.forced {
		s.forced = true
		close(s.force)
	}
	m.mu.Unlock()
	if s != nil {
		if row.Move.Abort {
			s.cancel(errMoveAborted)
		}
		m.lead(ctx, row, power)
		return true, nil
	}
	if !m.a.ledger.newest(row.ID, p) { // the end of what was being sent has just been noted
		return true, errOvertaken
	}
	switch said(row, p) {
	case model.MoveDone, model.MoveFailed, model.MoveAborted:
		say(row, p, p.Move.State, nil)
		return true, m.a.keep(row.ID, p)
	}
	if p.Sending { // by an agent that was ended, or without an answer
		return true, m.findOut(ctx, row, p, power)
	}
	migrator, can := m.a.cfg.Hypervisor.(hypervisor.Migrator)
	switch {
	case row.Move.Abort:
		say(row, p, model.MoveAborted, errMoveAborted)
		return true, m.a.keep(row.ID, p)
	case !can:
		say(row, p, model.MoveFailed, fault.New(fault.NotImplemented, "The hypervisor cannot move a guest that runs."))
		return true, m.a.keep(row.ID, p)
	case power != hypervisor.Running && !heldByUser(row, power):
		say(row, p, model.MoveFailed, fault.New(fault.Conflict, "The guest does not run."))
		p.Power = powerOf(power)
		return true, m.a.keep(row.ID, p)
	}
	say(row, p, model.MoveWorking, nil)
	p.Sending = true
	if err := m.a.keep(row.ID, p); err != nil {
		return true, err
	}
	sctx, cancel := context.WithCancelCause(m.ctx)
	s = &sending{cancel: cancel, force: make(chan struct{})}
	m.mu.Lock()
	m.sending[row.ID] = s
	m.mu.Unlock()
	if row.Move.Force {
		s.forced = true
		close(s.force)
	}
	m.wg.Go(func() {
		err := m.deliver(sctx, row, migrator, s)
		m.ended(row, err, context.Cause(sctx))
		cancel(nil)
		m.mu.Lock()
		delete(m.sending, row.ID)
		m.mu.Unlock()
		m.a.queue.add(row.ID)
	})
	return true, nil
}

// heldByUser tells whether a guest is paused as its user wants it.
func heldByUser(row *model.HostServer, power hypervisor.Power) bool {
	return power == hypervisor.Paused && row.Power == model.PowerPaused
}

// lead says to the network where a guest is that is being sent: it stands still here only when it is about to run there, unless its
// user holds it.
func (m *mover) lead(ctx context.Context, row *model.HostServer, power hypervisor.Power) {
	var err error
	switch {
	case power == hypervisor.Running || heldByUser(row, power):
		err = m.a.ports.stay(ctx, row)
	case power == hypervisor.Paused, power == hypervisor.Absent:
		err = m.a.ports.depart(ctx, row)
	}
	if err != nil { // the other host announces the guest, too
		m.a.log.Warn("what comes for a guest that moves is not sent on", "server", row.ID, "err", err)
	}
}

// deliver sends the guest, and tells of it meanwhile.
func (m *mover) deliver(ctx context.Context, row *model.HostServer, migrator hypervisor.Migrator, s *sending) error {
	select {
	case m.slots <- struct{}{}:
		defer func() { <-m.slots }()
	case <-ctx.Done():
		return ctx.Err()
	}
	g, err := m.a.guest(ctx, row)
	if err != nil {
		return err
	}
	pass := hypervisor.Passage{AutoConverge: !m.a.cfg.KeepPace, PostCopy: m.a.cfg.PostCopy, Dial: func(ctx context.Context, kind string) (io.ReadWriteCloser, error) {
		return m.open(ctx, row, servicePassage, call{Kind: kind})
	}}
	if err := m.question(ctx, row, serviceGuest, &pass.Guest); err != nil {
		return err
	}
	for _, d := range g.Disks {
		if m.a.ownFile(row.ID, d) && !d.ReadOnly {
			pass.CopyDisks = append(pass.CopyDisks, d.Serial)
		}
	}
	began := time.Now()
	over := make(chan struct{})
	defer close(over)
	m.wg.Go(func() { m.follow(ctx, row, migrator, s, over) })
	if err := migrator.Send(ctx, row.ID, pass); err != nil {
		return err
	}
	m.a.guests.did(row.ID, hypervisor.Absent, began)
	m.lead(ctx, row, hypervisor.Absent)
	m.a.log.Info("a guest has left for another host", "server", row.ID, "host", row.Move.Peer.Name, "took", time.Since(began))
	return nil
}

// follow tells each second how far a guest's move has come, and hurries it when told to.
func (m *mover) follow(ctx context.Context, row *model.HostServer, migrator hypervisor.Migrator, s *sending, over <-chan struct{}) {
	tick := time.NewTicker(tellEach)
	defer tick.Stop()
	force := s.force
	hurry := false
	for {
		select {
		case <-over:
			return
		case <-ctx.Done():
			return
		case <-force:
			force, hurry = nil, true
		case <-tick.C:
		}
		if hurry {
			if err := migrator.Hurry(ctx, row.ID); err == nil {
				hurry = false
			}
		}
		now, err := migrator.Progress(ctx, row.ID)
		if err != nil {
			continue // between its phases there is nothing to say
		}
		m.note(row, func(p *progress) {
			if p.Move != nil && p.Move.ID == row.Move.ID && p.Move.State == model.MoveWorking {
				r := *p.Move
				r.Progress = progressOf(now)
				p.Move = &r
			}
		})
	}
}

func progressOf(p hypervisor.MoveProgress) model.Progress {
	return model.Progress{
		MemoryTotal: p.MemoryTotal, MemoryProcessed: p.MemoryProcessed, MemoryRemaining: p.MemoryRemaining,
		DiskTotal: p.DiskTotal, DiskProcessed: p.DiskProcessed, DiskRemaining: p.DiskRemaining, DowntimeMS: p.Downtime.Milliseconds(),
	}
}

// note changes a server's progress beside the queue, and reports it.
func (m *mover) note(row *model.HostServer, change func(*progress)) {
	if err := m.a.ledger.note(row.ID, change); err != nil {
		m.a.log.Error("what became of a move cannot be kept", "server", row.ID, "err", err)
		return
	}
	m.a.report(row.ID)
}

// ended notes how a guest's move has ended. Where that is not known for sure, findOut does.
func (m *mover) ended(row *model.HostServer, err, cause error) {
	log := m.a.log.With("server", row.ID, "move", row.Move.ID, "request_id", row.RequestID)
	state := model.MoveDone
	switch {
	case errors.Is(err, hypervisor.ErrUncertain):
		log.Error("the way to the other host broke as the guest was to run there; it is held here until that is known", "err", err)
		m.note(row, func(p *progress) { p.Held = true })
		return
	case m.ctx.Err() != nil:
		return // the next agent finds out
	case err != nil && errors.Is(cause, errMoveAborted):
		state = model.MoveAborted
		err = fault.Wrap(fault.Conflict, err, "The move was aborted by a user.")
	case err != nil:
		state = model.MoveFailed
	}
	if err != nil {
		log.Warn("a guest could not be moved", "err", err)
	}
	power, known := m.a.guests.state(row.ID)
	if err != nil && fault.Is(err, fault.Unavailable) && (!known || power != hypervisor.Running) {
		return // the hypervisor may be away, and one that is held may have left without a sign: findOut
	}
	if err != nil {
		m.lead(m.ctx, row, power)
	}
	m.note(row, func(p *progress) {
		say(row, p, state, err)
		p.Sending = false
	})
}

// findOut learns what became of a guest that was being sent: the hypervisors of both hosts know.
func (m *mover) findOut(ctx context.Context, row *model.HostServer, p *progress, power hypervisor.Power) error {
	if migrator, ok := m.a.cfg.Hypervisor.(hypervisor.Migrator); ok && power != hypervisor.Absent && !p.Held {
		if _, err := migrator.Progress(ctx, row.ID); err == nil {
			// Its sockets went with whoever served them: it cannot succeed.
			if err := migrator.Abort(ctx, row.ID); err != nil {
				return err
			}
			return fault.New(fault.Unavailable, "The guest's move is being ended.")
		} else if !fault.Is(err, fault.NotFound) {
			return err
		}
	}
	if power == hypervisor.Absent {
		say(row, p, model.MoveDone, nil) // a guest leaves only when it runs at the other end
		p.Sending, p.Held = false, false
		return m.a.keep(row.ID, p)
	}
	var there arrival
	if err := m.question(ctx, row, serviceState, &there); err != nil {
		if !fault.Is(err, fault.NotFound) {
			return fault.Wrap(fault.Unavailable, err, "The other host does not say whether the guest runs there.")
		}
		there = arrival{} // it has nothing to do with the server
	}
	switch {
	case there.Power == hypervisor.Running, there.Power == hypervisor.Paused && there.Come:
		began := time.Now()
		if err := m.a.cfg.Hypervisor.Remove(ctx, row.ID); err != nil {
			return fmt.Errorf("remove a guest that runs elsewhere: %w", err)
		}
		m.a.guests.did(row.ID, hypervisor.Absent, began)
		power = hypervisor.Absent
		say(row, p, model.MoveDone, nil)
	case there.Power == hypervisor.Paused:
		return fault.New(fault.Unavailable, "The guest is still coming into being at the other host.")
	default:
		if power == hypervisor.Paused && row.Power == model.PowerRunning {
			began := time.Now()
			if err := m.a.cfg.Hypervisor.Start(ctx, row.ID); err != nil {
				return fmt.Errorf("let the guest run on: %w", err)
			}
			m.a.guests.did(row.ID, hypervisor.Running, began)
			power = hypervisor.Running
		}
		say(row, p, model.MoveFailed, fault.New(fault.Unavailable, "The move was cut off; the guest is where it was."))
		p.Power = powerOf(power)
	}
	m.lead(ctx, row, power)
	p.Sending, p.Held = false, false
	return m.a.keep(row.ID, p)
}
