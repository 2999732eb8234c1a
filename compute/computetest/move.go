package computetest

import (
	"fmt"
	"sync"
	"time"

	"yakumo/model"
)

// Wire is what hosts send guests to each other over. It sees every guest of every host, and notes one that runs twice.
type Wire struct {
	mu    sync.Mutex // held while a host acts: guests change hosts under it
	hosts map[model.ID]*Host
	twice string
}

// Twice tells of a guest that ran on two hosts at once, "" for none.
func (w *Wire) Twice() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.twice
}

func (w *Wire) join(h *Host) {
	if w == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.hosts == nil {
		w.hosts = map[model.ID]*Host{}
	}
	w.hosts[h.cfg.Host] = h
}

func (w *Wire) hold() func() {
	if w == nil {
		return func() {}
	}
	w.mu.Lock()
	return w.mu.Unlock
}

// check looks for guests of a host that run elsewhere too. The caller holds the wire and the host.
func (w *Wire) check(h *Host) {
	if w == nil || w.twice != "" {
		return
	}
	for id, g := range h.guests {
		if g.power != model.PowerRunning {
			continue
		}
		for _, o := range w.hosts {
			if o == h {
				continue
			}
			o.mu.Lock()
			if x := o.guests[id]; x != nil && x.power == model.PowerRunning {
				w.twice = fmt.Sprintf("guest %s runs on %s and on %s", id, h.cfg.Host, o.cfg.Host)
			}
			o.mu.Unlock()
		}
	}
}

// told is what was last said of a move.
type told struct {
	move       model.ID
	role       model.MoveRole
	state      model.MoveState
	generation int64
}

// peer gives the guest of another host, which is locked until done is called; nil where its host is cut off.
func (w *Wire) peer(host, id model.ID) (g *guest, o *Host, done func()) {
	o = w.hosts[host]
	if o == nil {
		return nil, nil, func() {}
	}
	o.mu.Lock()
	return o.guests[id], o, o.mu.Unlock
}

// move does the host's part of a move. It tells whether the guest is the move's alone, and gives what is to be said anew.
// The caller holds the wire and the host.
func (h *Host) move(s *model.Server, role model.MoveRole, stage model.MoveStage, now time.Time) (*model.ServerReport, bool) {
	g := h.guests[s.ID]
	say := func(state model.MoveState, f *model.Fault) (*model.ServerReport, bool) {
		t := told{s.Move.ID, role, state, s.Generation}
		if g == nil {
			g = &guest{phase: model.PhaseFetching, incoming: true, reboots: s.Status.Reboots, hard: s.Status.Hard}
			h.guests[s.ID] = g
		}
		if g.told == t {
			return nil, true
		}
		g.told = t
		return &model.ServerReport{ServerID: s.ID, Generation: s.Generation, Phase: g.phase, Power: g.power, Reboots: g.reboots, Hard: g.hard, At: now,
			Move: &model.MoveReport{ID: s.Move.ID, Role: role, State: state, Fault: f}}, true
	}
	if role == model.RoleTarget && stage != model.MoveReverting && g != nil && !g.incoming && g.told.move != s.Move.ID {
		delete(h.guests, s.ID) // of an earlier stay, whose end this host has not heard of
		g = nil
	}
	if h.cfg.FailMove != nil {
		if f := h.cfg.FailMove(s, role, stage); f != nil && (g == nil || g.told.state != model.MoveDone && g.told.state != model.MoveReady || role == model.RoleSource || stage == model.MoveRunning) {
			return say(model.MoveFailed, f)
		}
	}
	live := s.Move.Kind == model.MoveLive
	switch {
	case role == model.RoleSource && stage == model.MovePreparing:
		return nil, false
	case role == model.RoleSource && stage == model.MoveVerify:
		return nil, true
	case role == model.RoleSource && live:
		if g == nil {
			return say(model.MoveDone, nil)
		}
		if g.told.move == s.Move.ID && g.told.state == model.MoveDone {
			return say(model.MoveDone, nil)
		}
		if s.Move.Abort {
			return say(model.MoveAborted, nil)
		}
		if h.cfg.Busy != nil && h.cfg.Busy(s) && !s.Move.Force {
			return nil, true
		}
		there, o, done := h.cfg.Wire.peer(s.Move.Target, s.ID)
		defer done()
		if there == nil || !there.incoming || o.held {
			return say(model.MoveFailed, &model.Fault{Code: 500, Message: "The other host does not take the guest."})
		}
		said := there.told
		*there = *g
		there.phase, there.told = model.PhaseReady, said
		g.power = model.PowerOff
		o.wake()
		return say(model.MoveDone, nil)
	case role == model.RoleSource: // cold
		g.power = model.PowerOff
		return say(model.MoveReady, nil)
	case stage == model.MovePreparing:
		if live {
			return say(model.MoveReady, nil)
		}
		return say(model.MoveWorking, nil)
	case stage == model.MoveReverting:
		if g != nil {
			g.power = model.PowerOff
		}
		return say(model.MoveDone, nil)
	case live:
		if g != nil && !g.incoming {
			return say(model.MoveDone, nil)
		}
		if g == nil {
			return say(model.MoveFailed, &model.Fault{Code: 500, Message: "The host does not await the guest any more."})
		}
		return nil, true
	}
	// Cold, running: copy and start.
	if g == nil || g.incoming {
		there, _, done := h.cfg.Wire.peer(s.Move.Source, s.ID)
		defer done()
		if there == nil || there.power != model.PowerOff {
			return say(model.MoveWorking, nil)
		}
		n := *there
		n.told, n.incoming, n.power = told{}, false, model.PowerOff
		g = &n
		h.guests[s.ID] = g
		if s.Power == model.PowerRunning {
			g.power = model.PowerRunning
			g.boot(s)
		}
		g.generation = s.Generation
	}
	return say(model.MoveDone, nil)
}
