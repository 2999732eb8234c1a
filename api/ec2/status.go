package ec2

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"strconv"
	"time"

	"yakumo/fault"
	"yakumo/model"
	"yakumo/store"
)

// check is what is known of an instance, or of what it runs on.
type check struct {
	Status  string      `xml:"status"`
	Details set[detail] `xml:"details"`
}

type detail struct {
	Name   string `xml:"name"`
	Status string `xml:"status"`
}

type shownStatus struct {
	ID     string   `xml:"instanceId"`
	Zone   string   `xml:"availabilityZone"`
	State  state    `xml:"instanceState"`
	System check    `xml:"systemStatus"`
	Guest  check    `xml:"instanceStatus"`
	Events struct{} `xml:"eventsSet"`
}

func showStatus(r store.Reader, s *model.Server) shownStatus {
	x := shownStatus{ID: instanceID.id(s.ID), Zone: zoneOf(r, s), State: stateOf(s)}
	is := func(status, reachability string) check {
		return check{status, setOf(detail{"reachability", reachability})}
	}
	h, placed := store.Hosts.Get(r, s.Host)
	switch {
	case x.State == pending:
		x.System, x.Guest = is("initializing", "initializing"), is("initializing", "initializing")
	case x.State != active:
		x.System.Status, x.Guest.Status = "not-applicable", "not-applicable"
	case !placed || !store.HostUp(r, h):
		x.System, x.Guest = is("impaired", "failed"), is("insufficient-data", "insufficient-data")
	case s.Status.Power != model.PowerRunning:
		x.System, x.Guest = is("ok", "passed"), is("insufficient-data", "insufficient-data")
	default:
		x.System, x.Guest = is("ok", "passed"), is("ok", "passed")
	}
	return x
}

func (d *dialect) describeInstanceStatus(q *request) (any, error) {
	filters, err := q.filters("instance-state-name", "instance-state-code", "availability-zone", "instance-status.status", "instance-status.reachability", "system-status.status",
		"system-status.reachability")
	if err != nil {
		return nil, err
	}
	every, _, err := q.params.truth("IncludeAllInstances")
	if err != nil {
		return nil, err
	}
	r := q.Snapshot()
	rows, err := q.instances(r, q.strs("InstanceId"))
	if err != nil {
		return nil, err
	}
	reach := func(c check) []string {
		if len(c.Details.Items) == 0 {
			return nil
		}
		return []string{c.Details.Items[0].Status}
	}
	var all []shownStatus
	for _, s := range rows {
		x := showStatus(r, s)
		if !every && x.State != active {
			continue
		}
		if passes(filters, func(name string) []string {
			switch name {
			case "instance-status.reachability":
				return reach(x.Guest)
			case "system-status.reachability":
				return reach(x.System)
			}
			return []string{map[string]string{"instance-state-name": x.State.Name, "instance-state-code": strconv.Itoa(x.State.Code), "availability-zone": x.Zone,
				"instance-status.status": x.Guest.Status, "system-status.status": x.System.Status}[name]}
		}) {
			all = append(all, x)
		}
	}
	var body struct {
		Statuses set[shownStatus] `xml:"instanceStatusSet"`
		Next     string           `xml:"nextToken,omitempty"`
	}
	body.Statuses.Items, body.Next, err = paged(q, all, func(x shownStatus) string { return x.ID })
	return body, err
}

const (
	maxConsole = 64 << 10         // bytes of a console's log that are given, as there
	askWait    = 10 * time.Second // how long a host's answer is waited for
)

// consoleOutput gives the newest part of an instance's console; nothing while there is none.
func (d *dialect) consoleOutput(q *request) (any, error) {
	id, err := q.must("InstanceId")
	if err != nil {
		return nil, err
	}
	s, err := q.serverOf(q.Snapshot(), id)
	if err != nil {
		return nil, err
	}
	var body struct {
		ID     string `xml:"instanceId"`
		At     string `xml:"timestamp"`
		Output string `xml:"output"`
	}
	body.ID, body.At = id, stamp(time.Now())
	if s.Host == "" || s.Status.LaunchedAt.IsZero() && s.Status.Phase != model.PhaseStarting {
		return body, nil
	}
	ask, err := json.Marshal(model.ConsoleQuery{ServerID: s.ID, MaxBytes: maxConsole})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(q.R.Context(), askWait)
	defer cancel()
	out, err := d.cfg.Hosts.Ask(ctx, s.Host, "console", ask)
	switch {
	case fault.Is(err, fault.NotFound): // the host has no guest of it
	case err != nil:
		return nil, recoding{}.of(err)
	default:
		body.Output = base64.StdEncoding.EncodeToString(out)
	}
	return body, nil
}
