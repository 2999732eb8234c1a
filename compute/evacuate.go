package compute

import (
	"slices"

	"yakumo/fault"
	"yakumo/model"
	"yakumo/store"
)

// Evacuate makes a server of a dead host anew on another: with the same ports, addresses and volumes. Its own disks are
// those of the dead host and lost: the root disk is made of the image again.
//
// That the host is dead is the word of an administrator, who has forced it down or fenced it, or it is known: see Fenced.
//
// Errors: as MoveLive's; fault.Invalid where the host is alive, or may be; fault.Conflict where a volume of the server is on
// the dead host, or its trusted platform module.
func (c *Compute) Evacuate(tx *store.Tx, sc Scope, id model.ID, r MoveRequest) (*model.Server, error) {
	return c.change(tx, sc, id, true, func(s *model.Server) error {
		if err := unlocked(sc, s); err != nil {
			return err
		}
		// What the server was doing was done by the dead host: a task is no hindrance, nor is a move that waits for it.
		if s.Deleted || s.Status.LaunchedAt.IsZero() || s.Host == "" {
			return wrongState("evacuate", s, "vm_state", State(s))
		}
		if h, ok := store.Hosts.Get(tx, s.Host); ok && !c.Fenced(tx, h) {
			if store.HostUp(tx, h) {
				return fault.New(fault.Invalid, "Compute service of %s is still in use.", h.Name)
			}
			return fault.New(fault.Invalid, "Compute service of %s is still in use: it is not heard of, but nobody has confirmed that it is off. Force it down, or fence it, first.", h.Name)
		}
		c.tellPass(s, r.AdminPass)
		return c.evacuate(tx, sc, s, r)
	})
}

// Fenced tells whether a host's guests are known not to run: an administrator forced the host down, or confirmed that it is
// off and it was not heard of since.
func (c *Compute) Fenced(r store.Reader, h *model.Host) bool {
	_, heard := store.Heartbeats.Get(r, h.ID)
	return h.ForcedDown || !heard && !h.FencedAt.IsZero()
}

// evacuate begins an evacuation of a server whose host is known not to run it.
func (c *Compute) evacuate(tx *store.Tx, sc Scope, s *model.Server, r MoveRequest) error {
	if err := noTPM(s, "evacuate"); err != nil {
		return err
	}
	if err := c.target(tx, s, r.Host); err != nil {
		return err
	}
	for _, u := range s.Volumes {
		v, ok := store.Volumes.Get(tx, u.VolumeID)
		if ok && v.Engine == model.EngineLocal && v.Host == s.Host {
			return fault.New(fault.Conflict, "Cannot 'evacuate' instance %s: volume %s is on the host that is down.", s.ID, v.ID)
		}
	}
	if err := c.stay(tx, s); err != nil {
		return err
	}
	if m := s.Move; m != nil { // with its source or its target; what it was is over
		other := m.Target
		if s.Host == m.Target {
			other = m.Source
		}
		if o, ok := store.Hosts.Get(tx, other); ok && m.Stage == model.MoveRunning && !slices.Contains(m.Failed, other) && !c.Fenced(tx, o) {
			return fault.New(fault.Conflict, "Cannot 'evacuate' instance %s: it was moving to host %s and may run there.", s.ID, o.Name)
		}
		if err := c.dropMove(tx, s, MigrationFailed, "A host of the move has died."); err != nil {
			return err
		}
	}
	if s.Status.Action != "" {
		if err := c.end(tx, s, "The server's host has died."); err != nil {
			return err
		}
	}
	mv := &model.Move{Kind: model.MoveEvacuate, Stage: model.MovePlacing, Source: s.Host, Want: r.Host, OldPower: s.Power, StageAt: c.now()}
	if err := c.newMigration(tx, sc, s, mv); err != nil {
		return err
	}
	s.Move = mv
	if r.Off {
		s.Power = model.PowerOff
	}
	return c.begin(tx, sc, s, "evacuate", TaskEvacuate)
}

// dropMove forgets a move of a server whose host has died, or that is deleted.
func (c *Compute) dropMove(tx *store.Tx, s *model.Server, status, message string) error {
	m := s.Move
	for _, id := range s.Ports {
		if err := c.cfg.Ports.PreparePort(tx, id, ""); err != nil && !fault.Is(err, fault.NotFound) {
			return err
		}
	}
	s.Move = nil
	return c.note(tx, m.ID, func(r *model.Migration) { r.Status, r.Message = status, message })
}

// evacuated gives the server to its new host, which makes it as it makes any new one.
func (c *Compute) evacuated(tx *store.Tx, s *model.Server, host model.ID) error {
	m := s.Move
	for _, id := range s.Ports {
		if _, err := c.cfg.Ports.BindPort(tx, id, host); err != nil && !fault.Is(err, fault.NotFound) {
			return err
		}
	}
	s.Host, s.Move = host, nil
	st := &s.Status
	st.Phase, st.Fault, st.Power, st.Failed = model.PhaseFetching, nil, model.PowerUnknown, nil
	if s.Power == model.PowerPaused || s.Power == model.PowerSuspended { // its memory is lost
		s.Power = model.PowerRunning
	}
	st.Rescue, s.Rescue, st.Lease = 0, nil, 0
	c.log.Warn("a server of a dead host is made anew", "server", s.ID, "from", m.Source, "to", host)
	return c.note(tx, m.ID, func(r *model.Migration) { r.Status, r.Target = MigrationEarly, host })
}

// remade ends an evacuation: the new host has made the server, or could not (why).
func (c *Compute) remade(tx *store.Tx, s *model.Server, status, why string) error {
	message := why
	if status == MigrationDone && !VolumeBacked(s) {
		message = "The root disk was made of the image again: what the dead host had is lost."
	}
	for m := range store.Migrations.List(tx, "server", s.ID) {
		if m.Kind != model.MoveEvacuate || m.Status != MigrationEarly || m.Target != s.Host {
			continue
		}
		if err := c.note(tx, m.ID, func(r *model.Migration) { r.Status, r.Message = status, message }); err != nil {
			return err
		}
	}
	c.metrics.moves.WithLabelValues(string(model.MoveEvacuate), status).Inc()
	return c.end(tx, s, why)
}
