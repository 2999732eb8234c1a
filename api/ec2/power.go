package ec2

import (
	"slices"

	"yakumo/compute"
	"yakumo/fault"
	"yakumo/model"
	"yakumo/store"
)

// turn is how the state of an instance changes by a request.
type turn struct {
	ID     string `xml:"instanceId"`
	Now    state  `xml:"currentState"`
	Before state  `xml:"previousState"`
}

type turns struct {
	Instances set[turn] `xml:"instancesSet"`
}

// perTx is how many instances are changed in one transaction: what a server with its ports and disks touches is limited.
const perTx = 16

// maxInstances is how many instances one request may name.
const maxInstances = 1000

// wrongInstanceState refuses what cannot be done to an instance in its state.
func wrongInstanceState(s *model.Server, done string) error {
	return fault.Coded(fault.Conflict, "IncorrectInstanceState", "The instance '%s' is not in a state from which it can be %s.", instanceID.id(s.ID), done)
}

// unlocked refuses to change what is locked.
func unlocked(s *model.Server) error {
	if s.Locked {
		return fault.Coded(fault.Conflict, "OperationNotPermitted", "The instance '%s' is locked: it is not changed until its owner unlocks it.", instanceID.id(s.ID))
	}
	return nil
}

// each changes the instances that the request names. may says for each, before any is changed, whether it can be; f changes one.
// All of at most perTx are changed, or none; of more, those until one cannot be any more.
func (d *dialect) each(q *request, may func(*model.Server) error, f func(*store.Tx, *model.Server) error) (any, error) {
	ids := q.strs("InstanceId")
	switch {
	case len(ids) == 0:
		return nil, missing("InstanceId")
	case len(ids) > maxInstances:
		return nil, badValue("At most %d instances may be named.", maxInstances)
	}
	slices.Sort(ids)
	ids = slices.Compact(ids)
	check := func(r store.Reader, ids []string) ([]*model.Server, error) {
		rows, err := q.instances(r, ids)
		for _, s := range rows {
			if err := may(s); err != nil {
				return nil, err
			}
		}
		return rows, err
	}
	if _, err := check(q.Snapshot(), ids); err != nil {
		return nil, err
	}
	var out turns
	var dry error
	for part := range slices.Chunk(ids, perTx) {
		var changed []turn
		err := q.update(func(tx *store.Tx) error {
			changed = nil
			rows, err := check(tx, part)
			if err != nil {
				return err
			}
			for _, s := range rows {
				if err := f(tx, s); err != nil {
					return instanceErrors.of(err)
				}
				now := terminated
				if x, ok := store.Servers.Get(tx, s.ID); ok {
					now = stateOf(x)
				}
				changed = append(changed, turn{instanceID.id(s.ID), now, stateOf(s)})
			}
			return nil
		})
		if fault.CodeOf(err) == errDryRun.Code {
			dry, err = err, nil
		}
		if err != nil {
			return nil, err
		}
		out.Instances.Items = append(out.Instances.Items, changed...)
	}
	return out, dry
}

// idle refuses a server that is terminated or about to be, is not made yet, or is locked.
func idle(s *model.Server, done string) error {
	if st := stateOf(s); st == terminated || st == shuttingDown {
		return wrongInstanceState(s, done)
	}
	return unlocked(s)
}

func (d *dialect) startInstances(q *request) (any, error) {
	return d.each(q, func(s *model.Server) error {
		if st := stateOf(s); st == stopping || st == stopped && s.Status.Task != "" {
			return wrongInstanceState(s, "started")
		}
		return idle(s, "started")
	}, func(tx *store.Tx, s *model.Server) (err error) {
		if stateOf(s) != stopped {
			return nil
		}
		switch compute.State(s) {
		case compute.Paused:
			_, err = d.c.Unpause(tx, q.scope(), s.ID)
		case compute.Suspended:
			_, err = d.c.Resume(tx, q.scope(), s.ID)
		case compute.Shelved, compute.ShelvedOffloaded:
			_, err = d.c.Unshelve(tx, q.scope(), s.ID, compute.Unshelve{})
		case compute.Errored:
			_, err = d.c.Reboot(tx, q.scope(), s.ID, true)
		default:
			_, err = d.c.Start(tx, q.scope(), s.ID)
		}
		return err
	})
}

func (d *dialect) stopInstances(q *request) (any, error) {
	return d.each(q, func(s *model.Server) error {
		if stateOf(s) == pending {
			return wrongInstanceState(s, "stopped")
		}
		return idle(s, "stopped")
	}, func(tx *store.Tx, s *model.Server) (err error) {
		switch {
		case stateOf(s) != active:
		case q.flag("Hibernate"):
			_, err = d.c.Suspend(tx, q.scope(), s.ID)
		default:
			_, err = d.c.Stop(tx, q.scope(), s.ID)
		}
		return err
	})
}

func (d *dialect) rebootInstances(q *request) (any, error) {
	_, err := d.each(q, func(s *model.Server) error {
		if stateOf(s) != active {
			return wrongInstanceState(s, "rebooted")
		}
		return unlocked(s)
	}, func(tx *store.Tx, s *model.Server) error {
		if s.Status.Task == compute.TaskReboot || s.Status.Task == compute.TaskHardReboot {
			return nil // it is under way
		}
		_, err := d.c.Reboot(tx, q.scope(), s.ID, compute.State(s) == compute.Errored)
		return err
	})
	return done{true}, err
}

func (d *dialect) terminateInstances(q *request) (any, error) {
	return d.each(q, unlocked, func(tx *store.Tx, s *model.Server) error {
		if s.Status.Phase == model.PhaseGone {
			return nil
		}
		return d.c.Delete(tx, q.scope(), s.ID)
	})
}
