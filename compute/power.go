package compute

import (
	"slices"

	"yakumo/fault"
	"yakumo/model"
	"yakumo/store"
)

// wrongState refuses an action in Nova's words.
func wrongState(action string, s *model.Server, attr, value string) error {
	return fault.New(fault.Conflict, "Cannot '%s' instance %s while it is in %s %s", action, s.ID, attr, value)
}

// allow refuses an action on a server that is locked, is a container that it cannot be done to, is in another than one of the
// states, or has a task that runs and is not one of tasks.
func allow(sc Scope, s *model.Server, action string, states, tasks []string) error {
	if err := unlocked(sc, s); err != nil {
		return err
	}
	if err := possible(s, action); err != nil {
		return err
	}
	if state := State(s); !slices.Contains(states, state) {
		return wrongState(action, s, "vm_state", state)
	}
	if t := s.Status.Task; t != "" && !slices.Contains(tasks, t) {
		return wrongState(action, s, "task_state", t)
	}
	if s.Status.LaunchedAt.IsZero() {
		return fault.New(fault.Conflict, "Cannot '%s' instance %s: it was never started.", action, s.ID)
	}
	return nil
}

// Touchable refuses an action of the dialect's own on a server that is not running, paused, suspended or stopped, has a task, or is locked.
func (c *Compute) Touchable(sc Scope, s *model.Server, action string) error {
	return allow(sc, s, action, []string{Active, Paused, Suspended, Stopped}, nil)
}

func unlocked(sc Scope, s *model.Server) error {
	if s.Locked && !sc.Admin {
		return fault.New(fault.Conflict, "Instance %s is locked", s.ID)
	}
	return nil
}

// Stop turns a server off.
//
// Errors: fault.NotFound; fault.Conflict where it is not running, has a task, or is locked.
func (c *Compute) Stop(tx *store.Tx, sc Scope, id model.ID) (*model.Server, error) {
	return c.change(tx, sc, id, true, func(s *model.Server) error {
		if err := allow(sc, s, "stop", []string{Active, Errored}, nil); err != nil {
			return err
		}
		s.Power = model.PowerOff
		return c.begin(tx, sc, s, "stop", TaskStop)
	})
}

// Start turns a server on.
func (c *Compute) Start(tx *store.Tx, sc Scope, id model.ID) (*model.Server, error) {
	return c.change(tx, sc, id, true, func(s *model.Server) error {
		if err := allow(sc, s, "start", []string{Stopped}, nil); err != nil {
			return err
		}
		s.Power = model.PowerRunning
		return c.begin(tx, sc, s, "start", TaskStart)
	})
}

// Hard says that a reboot does not ask the guest.
type Hard bool

// Reboot restarts the guest of a server. A hard reboot is allowed wherever the server
// has once run, and turns it on.
func (c *Compute) Reboot(tx *store.Tx, sc Scope, id model.ID, hard Hard) (*model.Server, error) {
	return c.change(tx, sc, id, true, func(s *model.Server) error {
		if !hard {
			if err := allow(sc, s, "reboot", []string{Active}, nil); err != nil {
				return err
			}
			s.Reboots++
			return c.begin(tx, sc, s, "reboot", TaskReboot)
		}
		if err := allow(sc, s, "reboot", []string{Active, Stopped, Paused, Suspended, Errored}, []string{TaskReboot, TaskHardReboot}); err != nil {
			return err
		}
		s.HardReboots++
		s.Power = model.PowerRunning
		return c.begin(tx, sc, s, "reboot", TaskHardReboot)
	})
}

// Pause stops the processors of a server; its memory is kept.
//
// Errors of this and the next three: fault.NotFound; fault.Conflict where the server is in another state, has a task, or is locked.
func (c *Compute) Pause(tx *store.Tx, sc Scope, id model.ID) (*model.Server, error) {
	return c.power(tx, sc, id, "pause", Active, model.PowerPaused, TaskPause)
}

// Unpause undoes Pause, and lets a guest go on that its hypervisor has paused.
func (c *Compute) Unpause(tx *store.Tx, sc Scope, id model.ID) (*model.Server, error) {
	return c.power(tx, sc, id, "unpause", Paused, model.PowerRunning, TaskUnpause)
}

// Suspend keeps the memory of a server in a file of its host and turns it off.
func (c *Compute) Suspend(tx *store.Tx, sc Scope, id model.ID) (*model.Server, error) {
	return c.power(tx, sc, id, "suspend", Active, model.PowerSuspended, TaskSuspend)
}

// Resume undoes Suspend.
func (c *Compute) Resume(tx *store.Tx, sc Scope, id model.ID) (*model.Server, error) {
	return c.power(tx, sc, id, "resume", Suspended, model.PowerRunning, TaskResume)
}

// power wants another power of a server that is in the state.
func (c *Compute) power(tx *store.Tx, sc Scope, id model.ID, action, state string, want model.Power, task string) (*model.Server, error) {
	return c.change(tx, sc, id, true, func(s *model.Server) error {
		if err := allow(sc, s, action, []string{state}, nil); err != nil {
			return err
		}
		if want == model.PowerSuspended {
			if err := still(tx, s, action); err != nil {
				return err
			}
		}
		s.Power = want
		return c.begin(tx, sc, s, action, task)
	})
}

// Lock keeps everybody but administrators from changing a server; reason may be empty.
func (c *Compute) Lock(tx *store.Tx, sc Scope, id model.ID, reason string) (*model.Server, error) {
	return c.change(tx, sc, id, false, func(s *model.Server) error {
		s.Locked, s.LockReason, s.LockedBy = true, reason, "owner"
		if sc.Admin && s.ProjectID != sc.ProjectID {
			s.LockedBy = "admin"
		}
		return c.done(tx, sc, s, "lock", "compute_lock_instance")
	})
}

// Unlock undoes Lock. What an administrator has locked, only an administrator unlocks.
func (c *Compute) Unlock(tx *store.Tx, sc Scope, id model.ID) (*model.Server, error) {
	return c.change(tx, sc, id, false, func(s *model.Server) error {
		if s.Locked && s.LockedBy == "admin" && !sc.Admin {
			return fault.New(fault.Forbidden, "Policy doesn't allow os_compute_api:os-lock-server:unlock:unlock_override to be performed.")
		}
		s.Locked, s.LockReason, s.LockedBy = false, "", ""
		return c.done(tx, sc, s, "unlock", "compute_unlock_instance")
	})
}

// Delete wants a server gone. One that never got a host, or whose host was removed from
// the cloud, goes at once; otherwise its host removes it and says so. Again is success.
//
// Errors: fault.NotFound; fault.Conflict where it is locked.
func (c *Compute) Delete(tx *store.Tx, sc Scope, id model.ID) error {
	old, err := Get(tx, sc, id)
	if err != nil {
		return err
	}
	if err := unlocked(sc, old); err != nil {
		return err
	}
	if old.Deleted {
		return nil
	}
	if err := c.stay(tx, old); err != nil {
		return err
	}
	s := copyOf(old)
	if s.Status.Action != "" {
		if err := c.end(tx, s, "The server was deleted meanwhile."); err != nil {
			return err
		}
	}
	if s.Move != nil { // whichever host has the guest removes it: the one by its row, the other because its row is gone
		if err := c.dropMove(tx, s, MigrationCancelled, "The server was deleted meanwhile."); err != nil {
			return err
		}
	}
	if err := c.begin(tx, sc, s, "delete", TaskDelete); err != nil {
		return err
	}
	s.Deleted, s.Status.Phase = true, model.PhaseDeleting
	s.Touch(c.now())
	if _, there := store.Hosts.Get(tx, s.Host); !there {
		return c.gone(tx, s)
	}
	return store.Servers.Put(tx, s)
}

// gone removes what is left of a deleted server: its row, the ports made for it; other
// ports are free again. Its actions stay for a while.
func (c *Compute) gone(tx *store.Tx, s *model.Server) error {
	ports := slices.Clone(s.Ports)
	for p := range store.Ports.List(tx, "device", s.ID) {
		if !slices.Contains(ports, p.ID) {
			ports = append(ports, p.ID)
		}
	}
	for _, id := range ports {
		if p, ok := store.Ports.Get(tx, id); ok && p.DeviceID == s.ID {
			if err := c.cfg.Ports.ReleasePort(tx, id); err != nil {
				return err
			}
		}
	}
	if err := c.unsaved(tx, s); err != nil {
		return err
	}
	if err := c.releaseVolumes(tx, s, false); err != nil {
		return err
	}
	g := copyOf(s)
	if err := c.end(tx, g, ""); err != nil {
		return err
	}
	if err := c.remember(tx, g); err != nil {
		return err
	}
	return store.Servers.Delete(tx, s.ID)
}
