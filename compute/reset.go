package compute

import (
	"yakumo/fault"
	"yakumo/model"
	"yakumo/store"
)

// ResetState ends the task of a server and says that it is in error, or that it is not. It is for an administrator, in any
// state. What is wanted of the host stays: whether the server is shown as running or off is the host's to say.
//
// Errors: fault.NotFound; fault.Conflict for a server that has no host and is to be active.
func (c *Compute) ResetState(tx *store.Tx, sc Scope, id model.ID, errored bool) (*model.Server, error) {
	return c.change(tx, sc, id, false, func(s *model.Server) error {
		if s.Deleted {
			return wrongState("reset_state", s, "task_state", TaskDelete)
		}
		if !errored && s.Host == "" && s.Shelving != model.Offloaded {
			return fault.New(fault.Conflict, "Cannot 'reset_state' instance %s: it has no host, and cannot be active.", s.ID)
		}
		if s.Status.Task != "" {
			if err := c.end(tx, s, "The state was reset by an administrator."); err != nil {
				return err
			}
		}
		s.Status.Fault = nil
		switch {
		case errored:
			s.Status.Phase = model.PhaseError // without a fault: it stays until something is asked for
		case s.Shelving == model.Offloaded:
			s.Status.Phase = model.PhaseShelved
		default:
			s.Status.Phase = model.PhaseReady
		}
		return nil
	})
}

// Restore would undo a delete that is carried out later. Here every delete is carried out at once, so that no server is in
// the state that it needs.
func (c *Compute) Restore(tx *store.Tx, sc Scope, id model.ID) (*model.Server, error) {
	s, err := Get(tx, sc, id)
	if err != nil {
		return nil, err
	}
	if err := unlocked(sc, s); err != nil {
		return nil, err
	}
	return nil, wrongState("restore", s, "vm_state", State(s))
}

// CrashDump is refused: no hypervisor here injects interrupts into guests.
func (c *Compute) CrashDump(tx *store.Tx, sc Scope, id model.ID) error {
	s, err := Get(tx, sc, id)
	if err != nil {
		return err
	}
	if err := allow(sc, s, "trigger_crash_dump", []string{Active, Paused, Rescued, Errored}, nil); err != nil {
		return err
	}
	return fault.New(fault.Invalid, "Triggering crash dump is not supported")
}
