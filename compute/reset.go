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

// CrashDump begins the interruption of a server's guest, which is to dump its memory then if it is set up so. Whoever calls it
// asks the host and ends it by CrashDumped; like a password it is no wish that could be kept until it is served.
//
// Errors: fault.NotFound; fault.Conflict for a wrong state, a task, a lock, a container or a server without a host.
func (c *Compute) CrashDump(tx *store.Tx, sc Scope, id model.ID) (*model.Server, error) {
	s, err := Get(tx, sc, id)
	if err != nil {
		return nil, err
	}
	if err := allow(sc, s, "trigger_crash_dump", []string{Active, Paused, Rescued, Resized, Errored}, nil); err != nil {
		return nil, err
	}
	if s.Host == "" {
		return nil, fault.New(fault.Conflict, "Cannot 'trigger_crash_dump' instance %s: it has no host.", s.ID)
	}
	if err := c.record(tx, sc, s, "trigger_crash_dump"); err != nil {
		return nil, err
	}
	return s, store.Servers.Put(tx, s) // actions are written only together with their server
}

// CrashDumped ends what CrashDump began with the request; failure is empty where the guest was interrupted.
func (c *Compute) CrashDumped(tx *store.Tx, id model.ID, request, failure string) error {
	s, ok := store.Servers.Get(tx, id)
	if !ok {
		return nil
	}
	if err := c.conclude(tx, s, request, failure); err != nil {
		return err
	}
	return store.Servers.Put(tx, s)
}
