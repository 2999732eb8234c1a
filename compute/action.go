package compute

import (
	"slices"
	"time"

	"yakumo/model"
	"yakumo/store"
)

// Results of an event.
const (
	Success = "Success"
	Failure = "Error"
)

// actionOf gives the action of a server with the request id. It does not compare what it
// reads at commit: actions are written only together with their server.
func actionOf(r store.Reader, server model.ID, request string) *model.Action {
	for a := range store.Actions.List(r, "request", server+","+request) {
		return a
	}
	return nil
}

// record writes a new action of the server that begins now.
func (c *Compute) record(tx *store.Tx, sc Scope, s *model.Server, name string, events ...model.ActionEvent) error {
	now := c.now()
	a := &model.Action{
		ServerID: s.ID, RequestID: sc.RequestID, Action: name, ProjectID: s.ProjectID, UserID: sc.UserID,
		StartedAt: now, UpdatedAt: now, Events: events,
	}
	if len(events) > 0 && events[0].StartedAt.Before(now) {
		a.StartedAt = events[0].StartedAt
	}
	return store.Actions.Put(tx, a)
}

// done records an action that was carried out within its request.
func (c *Compute) done(tx *store.Tx, sc Scope, s *model.Server, name, event string) error {
	now := c.now()
	return c.record(tx, sc, s, name, model.ActionEvent{Event: event, StartedAt: now, FinishedAt: now, Result: Success})
}

// begin records an action that its host carries out, and makes it the one that runs.
func (c *Compute) begin(tx *store.Tx, sc Scope, s *model.Server, name, task string) error {
	s.Status.Task, s.Status.Action, s.RequestID = task, sc.RequestID, sc.RequestID
	return c.record(tx, sc, s, name)
}

// eventOf gives the name of what a host does in an action, as Nova names it.
func eventOf(action string) string {
	switch action {
	case "createImage":
		return "compute_snapshot_instance"
	case "createBackup":
		return "compute_backup_instance"
	case "shelveOffload":
		return "compute_shelve_offload_instance"
	case "changePassword":
		return "compute_set_admin_password"
	case "trigger_crash_dump":
		return "compute_trigger_crash_dump"
	case "attach_interface", "detach_interface":
		return "compute_" + action
	case "live-migration":
		return "compute_live_migration"
	case "migrate", "resize":
		return "compute_finish_resize"
	case "revertResize":
		return "compute_finish_revert_resize"
	case "evacuate":
		return "compute_rebuild_instance"
	}
	return "compute_" + action + "_instance"
}

// end finishes the action that runs, where one does. details is empty where it succeeded.
func (c *Compute) end(tx *store.Tx, s *model.Server, details string) error {
	request := s.Status.Action
	s.Status.Task, s.Status.Action = "", ""
	return c.conclude(tx, s, request, details)
}

// conclude ends the action of a request, where there is one. details is empty where it succeeded.
func (c *Compute) conclude(tx *store.Tx, s *model.Server, request, details string) error {
	old := actionOf(tx, s.ID, request)
	if old == nil {
		return nil
	}
	now := c.now()
	a := *old
	a.Events = slices.Clone(old.Events)
	a.UpdatedAt = now
	if details != "" {
		a.Message = Failure
	}
	if a.Action != "create" { // whose events are the five steps
		ev := model.ActionEvent{Event: eventOf(a.Action), StartedAt: a.StartedAt, FinishedAt: now, Result: Success, Host: s.Host}
		if details != "" {
			ev.Result, ev.Details = Failure, details
		}
		a.Events = append(a.Events, ev)
	}
	return store.Actions.Put(tx, &a)
}

// step lays timed events over those of the action that had the server placed last: one for
// each event and host. It writes only what differs.
func (c *Compute) step(tx *store.Tx, s *model.Server, events ...model.ActionEvent) error {
	var old *model.Action
	for a := range store.Actions.List(tx, "server", s.ID) {
		if a.Action == "create" || a.Action == "unshelve" { // they sort by time
			old = a
		}
	}
	if old == nil || len(events) == 0 {
		return nil
	}
	a := *old
	a.Events = slices.Clone(old.Events)
	changed := false
	for _, ev := range events {
		at := slices.IndexFunc(a.Events, func(o model.ActionEvent) bool { return o.Event == ev.Event && o.Host == ev.Host })
		switch {
		case at < 0:
			a.Events = append(a.Events, ev)
		case sameEvent(a.Events[at], ev):
			continue
		default:
			a.Events[at] = ev
		}
		changed = true
	}
	if !changed {
		return nil
	}
	a.UpdatedAt = c.now()
	return store.Actions.Put(tx, &a)
}

func sameEvent(a, b model.ActionEvent) bool {
	return a.StartedAt.Equal(b.StartedAt) && a.FinishedAt.Equal(b.FinishedAt) && a.Result == b.Result && a.Details == b.Details
}

// stepEvent makes the event of a step that a host reports.
func stepEvent(host model.ID, st model.StepAt) model.ActionEvent {
	ev := model.ActionEvent{Event: string(st.Step), StartedAt: st.StartedAt.UTC(), FinishedAt: st.FinishedAt.UTC(), Host: host}
	switch {
	case st.Error != "":
		ev.Result, ev.Details = Failure, st.Error
	case !st.FinishedAt.IsZero():
		ev.Result = Success
	}
	return ev
}

// receipt is the first step: from the request's arrival until it is accepted.
func receipt(from, to time.Time) model.ActionEvent {
	return model.ActionEvent{Event: string(model.StepReceive), StartedAt: from.UTC(), FinishedAt: to, Result: Success}
}
