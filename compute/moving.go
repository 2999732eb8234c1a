package compute

import (
	"cmp"
	"errors"
	"slices"

	"yakumo/fault"
	"yakumo/model"
	"yakumo/placement"
	"yakumo/store"
)

// This file is how a move goes on: what placement, and what both hosts report, make of it. Every step is a transaction
// that is decided by what stands in the store, so that a server process may end between any two.

// placedMove brings placement's choice for a server that is to move into the store.
func (c *Compute) placedMove(tx *store.Tx, s *model.Server, pl plan) error {
	m := s.Move
	if pl.host == nil {
		f := noHost(pl.err)
		if len(m.Failed) > 0 {
			f.Message = "No valid host was found. Exceeded the hosts that the server could move to."
		}
		return c.endMove(tx, s, MigrationFailed, f.Message)
	}
	if _, there := store.Hosts.Get(tx, pl.host.ID); !there {
		return fault.New(fault.Unavailable, "Host %s was removed while it was being chosen.", pl.host.Name) // the next pass chooses again
	}
	tx.Mark(store.HostGuard(pl.host.ID))
	if m.Kind == model.MoveEvacuate {
		return c.evacuated(tx, s, pl.host.ID)
	}
	c.stage(s, model.MovePreparing)
	s.Move.Target = pl.host.ID
	status := MigrationEarly
	if m.Kind == model.MoveLive {
		status = MigrationPreparing
		for _, id := range s.Ports {
			if err := c.cfg.Ports.PreparePort(tx, id, s.Move.Target); err != nil && !fault.Is(err, fault.NotFound) {
				return err
			}
		}
	} else {
		s.Status.Task = TaskResizeMigrating
	}
	return c.note(tx, m.ID, func(r *model.Migration) { r.Status, r.Target = status, s.Move.Target })
}

// noHost makes a fault of a refusal of every host.
func noHost(err error) *model.Fault {
	f := &model.Fault{Code: 500, Message: "No valid host was found. There are not enough hosts available: " + err.Error() + "."}
	var r *placement.Refusal
	if errors.As(err, &r) {
		f.Details = r.Details()
	}
	return f
}

// endMove ends a move that leaves the server where it was.
func (c *Compute) endMove(tx *store.Tx, s *model.Server, status, message string) error {
	m := s.Move
	if err := c.note(tx, m.ID, func(r *model.Migration) {
		r.Status, r.Message = status, cmp.Or(r.Message, message)
		message = r.Message
	}); err != nil {
		return err
	}
	for _, id := range s.Ports {
		p, ok := store.Ports.Get(tx, id)
		if !ok {
			continue
		}
		if err := c.cfg.Ports.PreparePort(tx, id, ""); err != nil {
			return err
		}
		if p.Host != s.Host && p.Host == m.Target && m.Target != "" {
			if _, err := c.cfg.Ports.BindPort(tx, id, s.Host); err != nil {
				return err
			}
		}
	}
	stopped := (m.Kind == model.MoveCold || m.Kind == model.MoveResize) && m.Stage != model.MovePlacing
	s.Move = nil
	if m.OldFlavor != nil {
		s.Flavor = *m.OldFlavor
	}
	c.metrics.moves.WithLabelValues(string(m.Kind), status).Inc()
	c.log.Warn("a move has ended early; the server is where it was", "server", s.ID, "kind", m.Kind, "stage", m.Stage, "host", s.Host, "target", m.Target, "why", message)
	if err := c.end(tx, s, message); err != nil {
		return err
	}
	if stopped {
		// The source turns it on again; until it says so, nobody takes the pause for the guest's own wish.
		s.Status.Task = TaskReverting
	}
	return nil
}

// again lets a target go that could not make ready, and looks for another.
func (c *Compute) again(tx *store.Tx, s *model.Server, why string) error {
	m := s.Move
	if len(m.Failed) >= max(0, c.cfg.Retries) || m.Want != "" {
		return c.endMove(tx, s, MigrationFailed, why)
	}
	for _, id := range s.Ports {
		if err := c.cfg.Ports.PreparePort(tx, id, ""); err != nil && !fault.Is(err, fault.NotFound) {
			return err
		}
	}
	c.log.Warn("a host could not make ready for a server; looking for another", "server", s.ID, "host", m.Target, "why", why)
	failed := append(slices.Clone(m.Failed), m.Target)
	c.stage(s, model.MovePlacing)
	s.Move.Failed, s.Move.Target = failed, ""
	if m.Kind != model.MoveLive {
		s.Status.Task = TaskResizePrep
	}
	return c.note(tx, m.ID, func(r *model.Migration) { r.Status, r.Target = MigrationAccepted, "" })
}

// hear brings what one of the two hosts of a move says of it into the store. It tells whether the report is the move's
// alone: what it says of the guest's power and phase is then no news of the server's.
func (c *Compute) hear(tx *store.Tx, s *model.Server, host model.ID, r *model.ServerReport) (alone bool, err error) {
	role, stage := s.Move.Part(host)
	if role == "" {
		return host != s.Host, nil
	}
	var said model.MoveReport
	if r.Move != nil && r.Move.ID == s.Move.ID && r.Move.Role == role {
		said = *r.Move
	}
	if role == model.RoleTarget && r.Phase == model.PhaseError && said.State != model.MoveDone && stage != model.MoveReverting {
		said.State, said.Fault = model.MoveFailed, cmp.Or(said.Fault, r.Fault)
	}
	live := s.Move.Kind == model.MoveLive
	switch {
	case role == model.RoleSource && stage == model.MovePreparing, role == model.RoleSource && stage == model.MoveVerify:
		return host != s.Host, nil // it has nothing to do for the move
	case role == model.RoleSource && live:
		return true, c.hearSender(tx, s, r, &said)
	case role == model.RoleSource:
		return true, c.hearOff(tx, s, &said)
	case stage == model.MoveReverting:
		return true, c.hearBack(tx, s, r, &said)
	case live:
		return true, c.hearReceiver(tx, s, r, &said)
	}
	return true, c.hearCopier(tx, s, r, &said)
}

// words gives what a failure says for its record.
func words(said *model.MoveReport, otherwise string) string {
	if said.Fault == nil || said.Fault.Message == "" {
		return otherwise
	}
	return said.Fault.Message
}

// hearSender hears the source of a live move, which sends the guest.
func (c *Compute) hearSender(tx *store.Tx, s *model.Server, r *model.ServerReport, said *model.MoveReport) error {
	if said.Progress != (model.Progress{}) {
		if err := c.note(tx, s.Move.ID, func(m *model.Migration) { m.Progress = said.Progress }); err != nil {
			return err
		}
	}
	leaving := s.Move.Stage == model.MoveLeaving
	switch said.State {
	case model.MoveDone:
		return c.arrived(tx, s)
	case model.MoveFailed, model.MoveAborted:
		if leaving {
			return c.arrived(tx, s) // the guest runs on the target; whatever the source has is a remnant
		}
		if said.State == model.MoveAborted && s.Move.Abort && len(s.Move.Failed) == 0 {
			return c.endMove(tx, s, MigrationCancelled, "The live migration was cancelled.")
		}
		return c.endMove(tx, s, MigrationFailed, words(said, "The source could not send the guest."))
	}
	return nil
}

// hearReceiver hears the target of a live move.
func (c *Compute) hearReceiver(tx *store.Tx, s *model.Server, r *model.ServerReport, said *model.MoveReport) error {
	switch s.Move.Stage {
	case model.MovePreparing:
		switch said.State {
		case model.MoveReady:
			c.stage(s, model.MoveRunning)
			return c.status(tx, s.Move.ID, MigrationRunning)
		case model.MoveFailed:
			return c.again(tx, s, words(said, "The target could not make ready for the guest."))
		}
	case model.MoveRunning:
		switch said.State {
		case model.MoveDone:
			if err := c.cross(tx, s, r); err != nil {
				return err
			}
			c.stage(s, model.MoveLeaving)
			return c.status(tx, s.Move.ID, MigrationPost)
		case model.MoveFailed:
			return c.lostTarget(tx, s, words(said, "The target could not take the guest."))
		}
	}
	return nil
}

// lostTarget ends a live move whose target says that the guest is not there and will not be. While the source may be
// sending, it is asked to end that: then it says how it has ended. A source that has died sends nothing to a target that does
// not listen; the Mover knows that.
func (c *Compute) lostTarget(tx *store.Tx, s *model.Server, why string) error {
	if slices.Contains(s.Move.Failed, s.Move.Target) {
		return nil
	}
	mv := *s.Move
	mv.Abort, mv.Failed = true, append(slices.Clone(mv.Failed), mv.Target)
	s.Move = &mv
	return c.note(tx, mv.ID, func(m *model.Migration) { m.Message = why })
}

// cross makes the target the server's host: it runs the guest.
func (c *Compute) cross(tx *store.Tx, s *model.Server, r *model.ServerReport) error {
	s.Host = s.Move.Target
	if s.Zone != "" && s.Move.Zone != "" {
		s.Zone = s.Move.Zone
	}
	s.Status.Generation = r.Generation
	s.Status.Lease = 0
	holds(s, r)
	if r.Power != model.PowerUnknown {
		s.Status.Power = r.Power
	}
	for _, id := range s.Ports {
		if _, err := c.cfg.Ports.BindPort(tx, id, s.Host); err != nil && !fault.Is(err, fault.NotFound) {
			return err
		}
	}
	return nil
}

// arrived ends a live move that has succeeded.
func (c *Compute) arrived(tx *store.Tx, s *model.Server) error {
	if s.Host != s.Move.Target {
		if err := c.cross(tx, s, &model.ServerReport{Generation: s.Status.Generation}); err != nil {
			return err
		}
	}
	m := s.Move
	s.Move = nil
	if err := c.note(tx, m.ID, func(r *model.Migration) { r.Status, r.Message = MigrationCompleted, "" }); err != nil {
		return err
	}
	c.metrics.moves.WithLabelValues(string(m.Kind), MigrationCompleted).Inc()
	c.log.Info("a server has moved", "server", s.ID, "from", m.Source, "to", m.Target)
	return c.end(tx, s, "")
}

// hearOff hears the source of a cold move, which turns the guest off and gives its files.
func (c *Compute) hearOff(tx *store.Tx, s *model.Server, said *model.MoveReport) error {
	switch {
	case said.State == model.MoveFailed:
		if s.Move.Stage == model.MoveRunning {
			return nil // the target says whether it has what it needs
		}
		return c.endMove(tx, s, MigrationFailed, words(said, "The source could not turn the guest off."))
	case s.Move.Stage == model.MovePreparing && (said.State == model.MoveReady || said.State == model.MoveDone):
		for _, id := range s.Ports {
			if _, err := c.cfg.Ports.BindPort(tx, id, s.Move.Target); err != nil && !fault.Is(err, fault.NotFound) {
				return err
			}
		}
		c.stage(s, model.MoveRunning)
		s.Flavor, s.Status.Task = *s.Move.NewFlavor, TaskResizeMigrated
		return c.status(tx, s.Move.ID, MigrationCopying)
	}
	return nil
}

// hearCopier hears the target of a cold move.
func (c *Compute) hearCopier(tx *store.Tx, s *model.Server, r *model.ServerReport, said *model.MoveReport) error {
	if said.State == model.MoveFailed {
		if s.Move.Stage == model.MovePreparing {
			return c.again(tx, s, words(said, "The target could not make ready for the server."))
		}
		return c.endMove(tx, s, MigrationFailed, words(said, "The target could not take the server."))
	}
	if s.Move.Stage != model.MoveRunning {
		return nil
	}
	if said.Progress != (model.Progress{}) {
		if err := c.note(tx, s.Move.ID, func(m *model.Migration) { m.Progress = said.Progress }); err != nil {
			return err
		}
	}
	if said.State != model.MoveDone {
		if r.Phase == model.PhaseStarting || r.Phase == model.PhaseReady {
			s.Status.Task = TaskResizeFinish
		}
		return nil
	}
	m := s.Move
	if err := c.cross(tx, s, r); err != nil {
		return err
	}
	c.metrics.moves.WithLabelValues(string(m.Kind), MigrationFinished).Inc()
	c.log.Info("a server has moved, to be confirmed or reverted", "server", s.ID, "from", m.Source, "to", m.Target, "flavor", s.Flavor.Name)
	if m.Drain { // nobody waits to confirm it
		s.Move = nil
		return errors.Join(c.status(tx, m.ID, MigrationConfirmed), c.end(tx, s, ""))
	}
	c.stage(s, model.MoveVerify)
	return errors.Join(c.status(tx, m.ID, MigrationFinished), c.end(tx, s, ""))
}

// hearBack hears the target of a move that is taken back: only what it says of having been told so counts.
func (c *Compute) hearBack(tx *store.Tx, s *model.Server, r *model.ServerReport, said *model.MoveReport) error {
	off := r.Power != model.PowerRunning && r.Power != model.PowerPaused
	if r.Generation < s.Generation || said.State != model.MoveDone || !off {
		return nil
	}
	return c.reverted(tx, s)
}

// reverted gives a server back to the source: the target does not run it, and will not.
func (c *Compute) reverted(tx *store.Tx, s *model.Server) error {
	m := s.Move
	for _, id := range s.Ports {
		if _, err := c.cfg.Ports.BindPort(tx, id, m.Source); err != nil && !fault.Is(err, fault.NotFound) {
			return err
		}
	}
	s.Host, s.Flavor, s.Power, s.Move = m.Source, *m.OldFlavor, m.OldPower, nil
	c.metrics.moves.WithLabelValues(string(m.Kind), MigrationReverted).Inc()
	c.log.Info("a server is back where it was", "server", s.ID, "host", s.Host)
	return c.status(tx, m.ID, MigrationReverted) // the task ends when the source runs it
}
