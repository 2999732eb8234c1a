package compute

import (
	"context"
	"fmt"
	"reflect"
	"slices"

	"yakumo/fault"
	"yakumo/model"
	"yakumo/store"
)

// ServerReports brings what a host says of its guests into the store; it serves link.Sink.
// What is said of a server that is not the host's, and what was said before something
// newer, is left out. It may be called again with the same reports.
//
// What is expected of a host: it reports anew when it has acted on a new generation, with
// that generation; phase ready with power off, of the newest generation and with nothing
// asked for meanwhile, says that the guest has turned itself off, and is then what is
// wanted; a fault of a code below 500 is the request's own and not tried on another host;
// Gone comes last, for a server whose row says Deleted.
func (c *Compute) ServerReports(ctx context.Context, host model.ID, reports []model.ServerReport) error {
	for part := range slices.Chunk(reports, batch) {
		if err := c.serverReports(ctx, host, part); err != nil {
			return err
		}
	}
	return nil
}

// serverReports brings reports in with one transaction, or with several where they touch
// too much: servers that are gone take their ports with them.
func (c *Compute) serverReports(ctx context.Context, host model.ID, part []model.ServerReport) error {
	var told []outcome
	_, err := c.cfg.Store.Update(ctx, func(tx *store.Tx) error {
		told = told[:0]
		for i := range part {
			id := part[i].ServerID
			before, _ := store.Servers.Get(tx, id)
			if err := c.report(tx, host, &part[i]); err != nil {
				return fmt.Errorf("report of server %s: %w", id, err)
			}
			after, _ := store.Servers.Get(tx, id)
			told = append(told, outcome{before, after})
		}
		return nil
	})
	if fault.Is(err, fault.TooLarge) && len(part) > 1 {
		half := len(part) / 2
		if err := c.serverReports(ctx, host, part[:half]); err != nil {
			return err
		}
		return c.serverReports(ctx, host, part[half:])
	}
	if err != nil {
		return err
	}
	for _, o := range told {
		o.count(c.metrics)
	}
	return nil
}

// outcome is a server before and after a report; nil: not there.
type outcome struct{ before, after *model.Server }

func (o outcome) count(m *metrics) {
	b, a := o.before, o.after
	switch {
	case b == nil || a == nil || b == a:
	case b.Status.LaunchedAt.IsZero() && !a.Status.LaunchedAt.IsZero():
		m.boots.Observe(a.Status.LaunchedAt.Sub(a.CreatedAt).Seconds())
	case len(a.Status.Failed) > len(b.Status.Failed):
		m.retried.Inc()
	case a.Status.Phase == model.PhaseError && b.Status.Phase != model.PhaseError:
		m.failed.Inc()
	}
}

// PortReports brings what a host says of its ports into the store; it serves link.Sink.
func (c *Compute) PortReports(ctx context.Context, host model.ID, reports []model.PortReport) error {
	for part := range slices.Chunk(reports, batchPorts) {
		if _, err := c.cfg.Store.Update(ctx, func(tx *store.Tx) error {
			for _, r := range part {
				if _, err := c.cfg.Ports.ReportPort(tx, r.PortID, host, model.PortStatus{State: r.State, Generation: r.Generation, Fault: r.Fault}); err != nil {
					return fmt.Errorf("report of port %s: %w", r.PortID, err)
				}
				if err := c.cfg.Ports.HoldAddresses(tx, r.PortID, host, r.Claims); err != nil {
					return fmt.Errorf("report of port %s: %w", r.PortID, err)
				}
			}
			return nil
		}); err != nil {
			return err
		}
	}
	return nil
}

// order of the phases of a boot.
var order = map[model.Phase]int{model.PhaseFetching: 1, model.PhaseStarting: 2, model.PhaseReady: 3}

// report applies one report.
func (c *Compute) report(tx *store.Tx, host model.ID, r *model.ServerReport) error {
	old, ok := store.Servers.Get(tx, r.ServerID)
	if !ok || r.Generation > old.Generation {
		return nil
	}
	if old.Move != nil && !old.Deleted && !r.Gone {
		s := copyOf(old)
		alone, err := c.hear(tx, s, host, r)
		if err != nil {
			return err
		}
		if s.Move != old.Move || s.Host != old.Host {
			s.Touch(c.now())
		}
		if alone {
			return c.putStatus(tx, old, s)
		}
	}
	if old.Host != host || r.Generation < old.Status.Generation {
		return nil
	}
	s := copyOf(old)
	if r.Gone {
		if !s.Deleted {
			return nil // what is gone is an earlier stay on this host
		}
		return c.gone(tx, s)
	}
	if c.cfg.Volumes != nil {
		for _, d := range r.Elsewhere {
			if err := c.cfg.Volumes.Elsewhere(tx, s.ID, d); err != nil {
				return err
			}
		}
	}
	newest := r.Generation == s.Generation
	booting := starting(s)
	st := &s.Status
	st.Generation = r.Generation
	holds(s, r)
	sealed(s, r)
	st.Reboots, st.Hard = max(st.Reboots, min(r.Reboots, s.Reboots)), max(st.Hard, min(r.Hard, s.HardReboots))
	st.Rebuilds, st.Rescue = max(st.Rebuilds, min(r.Rebuilds, s.Rebuilds)), r.Rescue
	// The last step ends when the guest gives its first sign of life, after it was started.
	events := make([]model.ActionEvent, 0, len(r.Steps))
	for _, x := range r.Steps {
		events = append(events, stepEvent(host, x))
	}
	if err := c.step(tx, s, events...); err != nil {
		return err
	}
	if r.Power != model.PowerUnknown {
		st.Power = r.Power
	}
	if s.Deleted {
		return c.putStatus(tx, old, s)
	}
	switch {
	case r.Phase == model.PhaseError:
		if !booting && !newest {
			break // it has not seen yet what was asked since; it will say how that ends
		}
		if err := c.failed(tx, s, r); err != nil {
			return err
		}
	case r.Phase == model.PhaseReady && (st.Phase == model.PhaseError && newest && st.Fault != nil || order[st.Phase] > 0 && st.Phase != model.PhaseReady):
		if booting {
			if st.LaunchedAt = r.At.UTC(); r.At.IsZero() {
				st.LaunchedAt = c.now()
			}
		}
		st.Phase, st.Fault, st.Failed = model.PhaseReady, nil, nil
		if booting {
			if err := c.end(tx, s, ""); err != nil {
				return err
			}
		}
		if s.Shelving == model.Offloaded {
			if err := c.unshelved(tx, s); err != nil {
				return err
			}
		}
	case order[st.Phase] > 0 && order[r.Phase] > order[st.Phase]:
		st.Phase = r.Phase
	}
	if len(s.Volumes) > 0 {
		if err := c.volumesReported(tx, s, r, newest); err != nil {
			return err
		}
	}
	if st.Phase == model.PhaseReady {
		if err := c.settle(tx, s, r, newest); err != nil {
			return err
		}
	}
	toldPass(s)
	return c.putStatus(tx, old, s)
}

// settle ends the action that runs where the host has done what it asks for, and follows
// a guest that has turned itself off.
func (c *Compute) settle(tx *store.Tx, s *model.Server, r *model.ServerReport, newest bool) error {
	st := &s.Status
	off := st.Power == model.PowerOff || st.Power == model.PowerCrashed
	done := false
	if err := c.plugged(tx, s, r.NICs, newest, off); err != nil {
		return err
	}
	saved, failure, err := c.saved(tx, s, r.Saved)
	if err != nil {
		return err
	}
	switch st.Task {
	case TaskSnapshot, TaskUploading, TaskBackup:
		if done = saved; !done && newest && st.Task == TaskSnapshot {
			st.Task = TaskUploading
		}
	case TaskShelve, TaskShelving:
		switch {
		case failure != "":
			done = true
		case newest && off && len(s.Saving) == 0 || saved && off:
			return c.shelved(tx, s)
		case newest:
			st.Task = TaskShelving
		}
	case TaskUnshelve: // one that never left
		if done = newest && st.Power == model.PowerRunning; done {
			if err := c.unshelved(tx, s); err != nil {
				return err
			}
		}
	case TaskStop:
		done = newest && off
	case TaskStart:
		done = newest && st.Power == model.PowerRunning
	case TaskPause:
		done = newest && st.Power == model.PowerPaused
	case TaskSuspend:
		done = newest && st.Power == model.PowerSuspended
	case TaskUnpause, TaskResume:
		done = newest && st.Power == model.PowerRunning
	case TaskRebuild:
		done = newest && st.Rebuilds >= s.Rebuilds && (st.Power == s.Power || st.Power == model.PowerRunning)
	case TaskRescue:
		done = newest && s.Rescue != nil && st.Rescue == s.Rescue.Revision && st.Power == model.PowerRunning
	case TaskUnrescue:
		done = newest && st.Rescue == 0 && st.Power == model.PowerRunning
	case TaskReverting:
		done = newest && s.Move == nil && st.Power == s.Power
	case TaskEvacuate:
		if newest && s.Move == nil && r.Phase == model.PhaseReady {
			return c.remade(tx, s, MigrationDone, "")
		}
	case TaskReboot, TaskHardReboot:
		done = newest && st.Reboots >= s.Reboots && st.Hard >= s.HardReboots && st.Power != model.PowerUnknown
	}
	if _, kept := failing[st.Task]; kept && !done && newest && off && r.Phase == model.PhaseReady {
		done, failure = true, "The guest turned itself off meanwhile."
	}
	if done {
		if err := c.end(tx, s, failure); err != nil {
			return err
		}
	}
	// As Nova does, what the guest did is what is wanted: nobody starts it again. That may
	// come with the end of an action, and is not said twice.
	if st.Task == "" && newest && off && s.Power != model.PowerOff && s.Generation == r.Generation && r.Phase == model.PhaseReady {
		s.Power = model.PowerOff
		s.Touch(c.now())
	}
	return nil
}

// shelved ends the shelving of a server that is off and whose disk is an image.
func (c *Compute) shelved(tx *store.Tx, s *model.Server) error {
	if id := s.ShelvedImage; id != "" && shelvedImage(tx, s) == nil { // its owner removed it at once
		s.ShelvedImage = ""
		return c.end(tx, s, "Image "+id+" could not be found.")
	}
	if err := c.end(tx, s, ""); err != nil {
		return err
	}
	s.Shelving = model.Shelved
	if c.cfg.KeepShelved {
		return nil
	}
	s.Touch(c.now())
	return c.offload(tx, s)
}

// starting tells whether a host is to start a server that it did not have before.
func starting(s *model.Server) bool {
	return s.Status.LaunchedAt.IsZero() || s.Shelving == model.Offloaded
}

// failed deals with a host that could not do what was asked. One that could not start a
// new server, by no fault of the request, is left for another.
func (c *Compute) failed(tx *store.Tx, s *model.Server, r *model.ServerReport) error {
	st := &s.Status
	f := model.Fault{Code: 500, Message: "The host could not start the server.", At: c.now()}
	if r.Fault != nil {
		f = *r.Fault
		f.At = f.At.UTC()
	}
	if len(s.Plugging) > 0 && st.Task == "" && st.Phase == model.PhaseReady {
		for _, p := range s.Plugging {
			if err := c.finishPlug(tx, s, p, f.Message); err != nil {
				return err
			}
		}
		return nil
	}
	if undo, ok := failing[st.Task]; ok && st.Phase == model.PhaseReady {
		undo(s)
		s.Touch(c.now())
		return c.end(tx, s, f.Message)
	}
	if len(s.Saving) > 0 && st.Phase == model.PhaseReady && slices.Contains([]string{TaskSnapshot, TaskUploading, TaskBackup, TaskShelve, TaskShelving}, st.Task) {
		for _, id := range s.Saving {
			if err := c.cfg.Images.Discard(tx, id); err != nil {
				return err
			}
		}
		s.Saving, s.Rotate, s.ShelvedImage = nil, 0, ""
		s.Touch(c.now())
		return c.end(tx, s, f.Message)
	}
	same := st.Phase == model.PhaseError && st.Fault != nil && st.Fault.Message == f.Message && st.Fault.Details == f.Details && st.Task == ""
	if same {
		return nil
	}
	st.Fault = &f
	if starting(s) && st.Phase != model.PhaseError && f.Code >= 500 && len(st.Failed) < c.cfg.Retries {
		if err := c.unbind(tx, s); err != nil {
			return err
		}
		c.log.Warn("a host could not start a server; looking for another", "server", s.ID, "host", s.Host, "fault", f.Message, "details", f.Details)
		st.Failed = append(slices.Clone(st.Failed), s.Host)
		s.Host, st.Phase, st.Task, st.Power = "", model.PhasePlacing, TaskScheduling, model.PowerUnknown
		s.Touch(c.now())
		return nil
	}
	if s.Shelving == model.Offloaded {
		return c.reshelve(tx, s, f.Message)
	}
	st.Phase = model.PhaseError
	if st.Task == TaskEvacuate {
		return c.remade(tx, s, MigrationFailed, f.Message)
	}
	return c.end(tx, s, f.Message)
}

// failing are the tasks whose failure leaves a server as it was: what is wanted then is what it is.
var failing = map[string]func(*model.Server){
	TaskPause: asIs, TaskUnpause: asIs, TaskSuspend: asIs, TaskResume: asIs,
}

func asIs(s *model.Server) {
	if p := s.Status.Power; p == model.PowerRunning || p == model.PowerPaused || p == model.PowerSuspended || p == model.PowerOff {
		s.Power = p
	}
}

// putStatus writes a server where something of it differs.
func (c *Compute) putStatus(tx *store.Tx, old, s *model.Server) error {
	unleased(s)
	if old.Generation == s.Generation && old.Sealed == s.Sealed && reflect.DeepEqual(old.Status, s.Status) && reflect.DeepEqual(old.Volumes, s.Volumes) {
		return nil
	}
	s.UpdatedAt = c.now()
	return store.Servers.Put(tx, s)
}
