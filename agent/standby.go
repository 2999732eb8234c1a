package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"yakumo/fault"
	"yakumo/hypervisor"
	"yakumo/model"
)

// What a move says to the network. Whoever does a host's part of a move calls, on the target, activate when the guest
// runs here; on the source, depart when its guest stands still or has left, and stay when it goes on here after
// all. follow does so by the hypervisor's events, before the server's turn comes. Each takes one change of the
// switch, and may be called again and again. The switch is told before the ledger is: after a kill in between,
// the guest still runs where it runs, and the call is repeated.
//
// Frames that come between depart and activate wait in the guest's device on the target, where its hypervisor
// finds them. What of this the servers' rows do not say yet stays in force until they do.

// follow has a server's ports follow its guest in a move. row.Move is not nil.
func (w *wirer) follow(ctx context.Context, row *model.HostServer, s hypervisor.State) error {
	runs := s.Power == hypervisor.Running
	held := s.Power == hypervisor.Paused && !s.Moving
	switch {
	case row.Move.Role == model.RoleTarget && (runs || held):
		return w.activate(ctx, row)
	case row.Move.Role == model.RoleTarget || row.Move.Kind != model.MoveLive || row.Move.Stage != model.MoveRunning:
		return nil // a cold guest stands still for long, and nobody waits for an answer of it
	case runs, held && row.Power == model.PowerPaused: // held by its user, it is here until it has left
		return w.stay(ctx, row)
	}
	return w.depart(ctx, row)
}

// activate makes the ports of a server that stood by ports as any other: its guest runs here. Without such ports it does nothing.
//
// Errors: fault.Unavailable (the switch is away; it gets what it lacks when it is back).
func (w *wirer) activate(ctx context.Context, row *model.HostServer) error {
	ports := w.carried(row.ID)
	standby := slices.ContainsFunc(ports, func(id model.ID) bool { p := w.a.ledger.port(id); return p != nil && p.Standby })
	if row.Move == nil || !standby {
		return nil
	}
	if s := w.a.ledger.shiftOf(row.ID); s != nil && s.Here && s.Move == row.Move.ID {
		return nil
	}
	return w.shiftTo(ctx, row.ID, &shift{Move: row.Move.ID, Here: true, Ports: ports})
}

// depart sends what comes for a server's ports on to the other host of its move: the guest does not run here any more.
//
// Errors: fault.Unavailable, as activate; fault.Internal (nobody has said where that host is).
func (w *wirer) depart(ctx context.Context, row *model.HostServer) error {
	if row.Move == nil {
		return nil
	}
	if s := w.a.ledger.shiftOf(row.ID); s != nil && !s.Here && s.Move == row.Move.ID {
		return nil
	}
	at := row.Move.Peer.TunnelIP
	if !at.IsValid() {
		return fault.New(fault.Internal, "The tunnel address of host %s is not known.", row.Move.Peer.HostID)
	}
	s := &shift{Move: row.Move.ID, Ports: w.carried(row.ID)}
	networks := map[model.ID]*model.HostNetwork{}
	for _, id := range s.Ports {
		if p := w.a.ledger.port(id); p != nil {
			n := w.a.ledger.network(p.NetworkID)
			s.Peers = append(s.Peers, peerAt(p, n, at))
			if n != nil {
				networks[n.ID] = n
			}
		}
	}
	s.Networks = slices.Collect(maps.Values(networks))
	return w.shiftTo(ctx, row.ID, s)
}

// stay undoes depart: the guest goes on here.
func (w *wirer) stay(ctx context.Context, row *model.HostServer) error {
	if s := w.a.ledger.shiftOf(row.ID); s == nil || s.Here || !s.Until.IsZero() {
		return nil
	}
	return w.shiftTo(ctx, row.ID, nil)
}

// carried gives the ports of a server, with the subports that their devices carry.
func (w *wirer) carried(server model.ID) []model.ID {
	var out []model.ID
	for _, id := range w.a.ledger.portsOf(server) {
		out = append(append(out, id), w.a.ledger.subportsOf(id)...)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// shiftTo says where a server's ports are: to the switch, and then to the ledger.
func (w *wirer) shiftTo(ctx context.Context, server model.ID, s *shift) error {
	w.applying.Lock()
	defer w.applying.Unlock()
	if row := w.a.ledger.server(server); s != nil && (len(s.Ports) == 0 || row == nil || row.Move == nil || row.Move.ID != s.Move) {
		return nil // the servers have said something else meanwhile
	}
	changed := map[model.RowID]bool{}
	for _, x := range []*shift{w.a.ledger.shiftOf(server), s} {
		if x != nil {
			for _, id := range x.rows(w.a.ledger) {
				changed[id] = true
			}
		}
	}
	w.a.ledger.setShift(server, s)
	upserts, removes := w.split(changed)
	err := w.a.cfg.Datapath.Apply(ctx, upserts, removes)
	if err != nil {
		w.again(false, changed)
		w.poke()
		err = fmt.Errorf("ports of server %s: %w", server, err)
	}
	return errors.Join(err, w.a.ledger.saveShift(server))
}

// split gives the rows that the data path is to have, and those that it is not.
func (w *wirer) split(ids map[model.RowID]bool) (upserts []model.HostRow, removes []model.RowID) {
	for id := range ids {
		if row := w.shown(id); row != nil {
			upserts = append(upserts, row)
		} else {
			removes = append(removes, id)
		}
	}
	return upserts, removes
}

// shown gives a row as the data path is to have it now, nil for none: the wanted one, or what a move has made of it.
func (w *wirer) shown(id model.RowID) model.HostRow {
	row := w.wanted(id)
	var s *shift
	switch id.Kind {
	case model.RowPort, model.RowPeer:
		s = w.a.ledger.shiftOfPort(id.Key)
	case model.RowFloating:
		if f, ok := row.(*model.HostFloating); ok {
			s = w.a.ledger.shiftOfPort(f.PortID)
		}
	case model.RowNetwork:
		if row == nil {
			return w.keptNetwork(id.Key)
		}
	}
	if s == nil {
		return row
	}
	return s.as(id, row)
}

// keptNetwork gives a network that is here only for what is still sent on in it, nil for none.
func (w *wirer) keptNetwork(id model.ID) model.HostRow {
	for _, server := range w.a.ledger.shiftedServers() {
		if s := w.a.ledger.shiftOf(server); s != nil {
			for _, n := range s.Networks {
				if n.ID == id {
					return n
				}
			}
		}
	}
	return nil
}

// everything gives all rows that the data path is to have.
func (w *wirer) everything() []model.HostRow {
	ids := map[model.RowID]bool{}
	for _, row := range w.a.ledger.all() {
		if id := row.RowID(); id.Kind != model.RowServer {
			ids[id] = true
		}
	}
	for _, server := range w.a.ledger.shiftedServers() {
		if s := w.a.ledger.shiftOf(server); s != nil {
			for _, id := range s.rows(w.a.ledger) {
				ids[id] = true
			}
		}
	}
	all, _ := w.split(ids)
	return all
}

// settle ends what moves have made of rows where the servers' rows say it themselves, or something else.
func (w *wirer) settle() error {
	var errs []error
	for _, server := range w.a.ledger.shiftedServers() {
		s := w.a.ledger.shiftOf(server)
		if s == nil {
			continue
		}
		over, until := s.over(w.a.ledger, server, w.a.now())
		switch {
		case over:
			w.again(false, rowSet(s.rows(w.a.ledger)))
			w.a.ledger.setShift(server, nil)
		case until != s.Until:
			kept := *s
			kept.Until = until
			w.a.ledger.setShift(server, &kept)
		default:
			continue
		}
		errs = append(errs, w.a.ledger.saveShift(server))
	}
	return errors.Join(errs...)
}

func rowSet(ids []model.RowID) map[model.RowID]bool {
	out := make(map[model.RowID]bool, len(ids))
	for _, id := range ids {
		out[id] = true
	}
	return out
}
