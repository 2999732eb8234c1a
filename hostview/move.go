package hostview

import (
	"cmp"

	"yakumo/model"
	"yakumo/store"
)

// hostsOfServer gives the hosts that are told of a server: its own, and both of a move that have a part in it.
func hostsOfServer(s *model.Server) []model.ID {
	out := make([]model.ID, 0, 3)
	if s.Host != "" {
		out = append(out, s.Host)
	}
	if s.Move != nil {
		for _, h := range [...]model.ID{s.Move.Source, s.Move.Target} {
			if role, _ := s.Move.Part(h); role != "" && h != s.Host {
				out = append(out, h)
			}
		}
	}
	return out
}

// serverOn gives a server as a host is to know it, and its part in the server's move; nil where the host has
// nothing to do with it.
//
// A live move changes nothing but the host. In a cold one the source keeps what it has, off and of the old
// size; the target makes what the guest will be, and has it off when the move is reverted. Of an
// evacuation the source, which may come back at any time, is told that nothing is to run there.
func serverOn(snap store.Snapshot, s *model.Server, host model.ID) (*model.Server, *model.HostMove) {
	m := s.Move
	if m == nil {
		if s.Host != host {
			return nil, nil
		}
		return s, nil
	}
	role, stage := m.Part(host)
	if role == "" && s.Host != host {
		return nil, nil
	}
	out := *s
	out.Flavor = *m.On(host, &s.Flavor)
	if role == "" {
		if m.Kind == model.MoveEvacuate && host == m.Source {
			out.Power = model.PowerOff
		}
		return &out, nil
	}
	move := &model.HostMove{ID: m.ID, Kind: m.Kind, Role: role, Stage: stage, Abort: m.Abort, Force: m.Force}
	peer := m.Target
	if role == model.RoleTarget {
		peer = m.Source
	}
	if h, ok := store.Hosts.Get(snap, peer); ok {
		move.Peer = model.HostAt{HostID: h.ID, Name: h.Name, Channel: h.Channel, TunnelIP: h.TunnelIP}
	}
	switch {
	case m.Kind == model.MoveLive:
	case role == model.RoleSource, stage == model.MoveReverting:
		out.Power = model.PowerOff
	default:
		out.Power = cmp.Or(m.OldPower, s.Power)
	}
	return &out, move
}
