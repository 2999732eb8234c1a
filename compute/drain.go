package compute

import (
	"cmp"
	"context"
	"slices"
	"time"

	"yakumo/fault"
	"yakumo/model"
	"yakumo/reconcile"
	"yakumo/store"
)

// Drain wants every server of a host moved away, and no new one there. It begins, or is in force already.
//
// Errors: fault.NotFound.
func (c *Compute) Drain(tx *store.Tx, host model.ID, reason string) (*model.Host, error) {
	return c.SetHost(tx, host, func(h *model.Host) {
		h.Draining, h.Disabled, h.Reason = true, true, cmp.Or(reason, h.Reason, "It is being drained.")
	})
}

// Undrain ends a drain: what has moved stays where it is, and the host takes servers again.
func (c *Compute) Undrain(tx *store.Tx, host model.ID) (*model.Host, error) {
	return c.SetHost(tx, host, func(h *model.Host) { h.Draining, h.Disabled, h.Reason = false, false, "" })
}

// Fence records an administrator's word that a host is off, its power cut or its network pulled for good: its servers may run
// elsewhere.
//
// Errors: fault.NotFound; fault.Conflict where the host is heard of: then it is not off.
func (c *Compute) Fence(tx *store.Tx, host model.ID) (*model.Host, error) {
	if h, ok := store.Hosts.Get(tx, host); ok {
		if _, heard := store.Heartbeats.Get(tx, host); heard {
			return nil, fault.New(fault.Conflict, "Host %s is heard of: it is not off.", h.Name)
		}
	}
	return c.SetHost(tx, host, func(h *model.Host) { h.FencedAt = c.now() })
}

// DrainState is how far a drain has come.
type DrainState struct {
	Draining bool
	// Left are the servers that the host still has, the moving ones first, then by name.
	Left []DrainServer
}

// Done tells whether the host is empty.
func (d DrainState) Done() bool { return len(d.Left) == 0 }

// DrainServer is a server that a drained host still has.
type DrainServer struct {
	ID, Name string
	State    string // vm_state
	Moving   bool
	Progress model.Progress
	// Why it does not move, for people; "" where it does, or will.
	Why string
}

// DrainOf tells how far a drain has come.
func DrainOf(r store.Reader, h *model.Host) DrainState {
	out := DrainState{Draining: h.Draining}
	for s := range store.Servers.List(r, "host", h.ID) {
		if s.Move != nil && s.Move.Target == h.ID && s.Host != h.ID {
			out.Left = append(out.Left, DrainServer{ID: s.ID, Name: s.Name, State: State(s), Why: "It is moving here."})
			continue
		}
		d := DrainServer{ID: s.ID, Name: s.Name, State: State(s), Why: stuck(s, h)}
		if m := s.Move; m != nil && m.Source == h.ID && m.Stage != model.MoveVerify {
			d.Moving, d.Why = true, ""
			if rec, ok := store.Migrations.Get(r, m.ID); ok {
				d.Progress = rec.Progress
			}
		} else if last := lastMove(r, s); d.Why == "" && last != nil && last.Status == MigrationFailed {
			d.Why = last.Message
		}
		out.Left = append(out.Left, d)
	}
	sortLeft(out.Left)
	return out
}

// sortLeft sorts servers: the moving ones first, then by name.
func sortLeft(left []DrainServer) {
	slices.SortFunc(left, func(a, b DrainServer) int {
		if a.Moving != b.Moving {
			if a.Moving {
				return -1
			}
			return 1
		}
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID))
	})
}

// stuck tells why a server of a host cannot be moved away now, "" where it can.
func stuck(s *model.Server, h *model.Host) string {
	switch {
	case s.Deleted:
		return "It is being deleted."
	case s.Move != nil && s.Move.Stage == model.MoveVerify:
		if s.Move.Source == h.ID {
			return "It was moved, and waits to be confirmed or reverted."
		}
		return "It was moved here, and waits to be confirmed or reverted."
	case s.Move != nil:
		return ""
	case s.Container:
		return "It is a container, which cannot be moved."
	case s.Status.LaunchedAt.IsZero():
		return "It is being built."
	case s.Status.Task != "":
		return "It is " + s.Status.Task + "."
	}
	switch state := State(s); state {
	case Stopped:
		if withTPM(s) {
			return "It is off and has an emulated TPM, which goes along only while it runs."
		}
		return ""
	case Active, Paused:
		return ""
	default:
		return "A server in the state " + state + " cannot be moved."
	}
}

// lastMove gives the newest migration of a server, nil for none.
func lastMove(r store.Reader, s *model.Server) *model.Migration {
	var last *model.Migration
	for m := range store.Migrations.List(r, "server", s.ID) {
		if last == nil || m.Number > last.Number {
			last = m
		}
	}
	return last
}

// Drainer moves the servers of hosts that are drained: live where they run, cold where they are off, a few of a host
// at a time. What fails is tried again after a pause that grows.
type Drainer struct{ c *Compute }

// Drainer gives the controller.
func (c *Compute) Drainer() *Drainer { return &Drainer{c} }

// Name serves reconcile.Controller.
func (*Drainer) Name() string { return "drains" }

// Reads serves reconcile.Controller.
func (*Drainer) Reads() []store.Kind {
	return []store.Kind{store.Servers.Kind(), store.Hosts.Kind(), store.Heartbeats.Kind()}
}

// Reconcile begins the moves that may begin now.
func (d *Drainer) Reconcile(ctx context.Context, snap store.Snapshot, w reconcile.Writer) (reconcile.Result, error) {
	var res reconcile.Result
	for h := range store.Hosts.All(snap) {
		if !h.Draining || h.Switch != nil || !store.HostUp(snap, h) { // a host that is down is evacuated
			continue
		}
		busy := 0
		var ready []*model.Server
		for s := range store.Servers.List(snap, "host", h.ID) {
			switch {
			case s.Move != nil:
				if s.Move.Source == h.ID && s.Move.Stage != model.MoveVerify {
					busy++
				}
			case stuck(s, h) == "":
				if wait := d.pause(snap, s); wait > 0 {
					if res.After == 0 || wait < res.After {
						res.After = wait
					}
					continue
				}
				ready = append(ready, s)
			}
		}
		slices.SortFunc(ready, func(a, b *model.Server) int {
			return cmp.Or(a.CreatedAt.Compare(b.CreatedAt), cmp.Compare(a.ID, b.ID))
		})
		for _, s := range ready[:min(len(ready), max(0, d.c.cfg.DrainAtOnce-busy))] {
			if _, err := w.Update(ctx, func(tx *store.Tx) error { return d.begin(tx, s.ID, h.ID) }); err != nil {
				return res, err
			}
		}
	}
	return res, nil
}

// begin begins the move of one server, where it is still to be moved.
func (d *Drainer) begin(tx *store.Tx, server, host model.ID) error {
	h, ok := store.Hosts.Get(tx, host)
	s, there := store.Servers.Get(tx, server)
	if !ok || !there || !h.Draining || s.Host != host || s.Move != nil || stuck(s, h) != "" {
		return nil
	}
	return d.c.moveAway(tx, s, MoveRequest{Drain: true})
}

// moveAway begins a move that no request asked for: live where the server runs, cold where it is off.
func (c *Compute) moveAway(tx *store.Tx, s *model.Server, r MoveRequest) error {
	sc := Scope{ProjectID: s.ProjectID, UserID: s.UserID, Admin: true, RequestID: "req-" + model.NewID()}
	var err error
	if State(s) == Stopped {
		_, err = c.Migrate(tx, sc, s.ID, r)
	} else {
		_, err = c.MoveLive(tx, sc, s.ID, r)
	}
	return err
}

// pause gives how long a server is to wait after moves that have failed: 10 s, doubled with each in a row, at most 5 minutes.
func (d *Drainer) pause(r store.Reader, s *model.Server) time.Duration {
	var all []*model.Migration
	for m := range store.Migrations.List(r, "server", s.ID) {
		all = append(all, m)
	}
	slices.SortFunc(all, func(a, b *model.Migration) int { return cmp.Compare(b.Number, a.Number) })
	wait := d.c.cfg.DrainPause
	for i, m := range all {
		if m.Status != MigrationFailed && m.Status != MigrationCancelled {
			if i == 0 {
				return 0
			}
			break
		}
		if i > 0 {
			wait = min(2*wait, 30*d.c.cfg.DrainPause)
		}
	}
	if len(all) == 0 {
		return 0
	}
	return all[0].UpdatedAt.Add(wait).Sub(d.c.now())
}
