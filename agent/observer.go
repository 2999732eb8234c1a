package agent

import (
	"context"
	"sync"
	"time"

	"yakumo/hypervisor"
	"yakumo/model"
)

// observer knows the state of every guest: from the hypervisor's events, and from its list
// by timer, whatever became of events.
type observer struct {
	a   *Agent
	ask chan struct{} // holds a value when a list is wanted now

	mu     sync.Mutex
	listed bool // a list has been had since the start
	alive  bool // the last one succeeded
	states map[model.ID]seen
}

type seen struct {
	power  hypervisor.Power
	at     time.Time // when it became so, or a call that made it so had ended
	moving bool      // hypervisor.State.Moving
}

func newObserver(a *Agent) *observer {
	return &observer{a: a, ask: make(chan struct{}, 1), states: map[model.ID]seen{}}
}

// state gives a guest's power, and false while the hypervisor has told nothing yet.
func (o *observer) state(id model.ID) (hypervisor.Power, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.states[id].power, o.listed
}

// look is state, and tells whether the guest is paused for a move alone: where it comes to, it is not there yet.
func (o *observer) look(id model.ID) (p hypervisor.Power, moving, known bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.states[id].power, o.states[id].moving, o.listed
}

// did records what a call to the hypervisor that began at began has brought about, unless
// something newer is known.
func (o *observer) did(id model.ID, p hypervisor.Power, began time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if s, ok := o.states[id]; ok && s.at.After(began) && s.power != p {
		// An event of another state overtook the call's end: a late one of the call before, or
		// the guest has gone on by itself. The list tells.
		select {
		case o.ask <- struct{}{}:
		default:
		}
	}
	o.states[id] = seen{power: p, at: time.Now()}
	if p == hypervisor.Absent {
		delete(o.states, id)
	}
}

func (o *observer) ids() []model.ID {
	o.mu.Lock()
	defer o.mu.Unlock()
	ids := make([]model.ID, 0, len(o.states))
	for id, s := range o.states {
		if s.power != hypervisor.Absent {
			ids = append(ids, id)
		}
	}
	return ids
}

func (o *observer) healthy() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.alive
}

func (o *observer) run(ctx context.Context) {
	for ctx.Err() == nil {
		watch, err := o.a.cfg.Hypervisor.Watch(ctx)
		if err != nil {
			o.list(ctx) // for the log and for healthy
			wait(ctx, o.a.cfg.Resync/5)
			continue
		}
		o.follow(ctx, watch)
	}
}

// follow returns when the watch ends.
func (o *observer) follow(ctx context.Context, watch <-chan hypervisor.State) {
	tick := time.NewTicker(o.a.cfg.Resync)
	defer tick.Stop()
	o.list(ctx)
	for {
		select {
		case s, ok := <-watch:
			if !ok {
				wait(ctx, o.a.cfg.Resync/50) // do not spin on a hypervisor that is going down
				return
			}
			if o.take(s) {
				o.moved(ctx, s)
				o.a.queue.add(s.ID)
			}
		case <-tick.C:
			o.list(ctx)
		case <-o.ask:
			o.list(ctx)
		}
	}
}

// moved has the ports of a guest that moves follow it at once, before its turn comes. What fails here is done then.
func (o *observer) moved(ctx context.Context, s hypervisor.State) {
	row := o.a.ledger.server(s.ID)
	if row == nil || row.Move == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, o.a.cfg.Resync/25) // others' events must not wait for a switch that is away
	defer cancel()
	if err := o.a.ports.follow(ctx, row, s); err != nil {
		o.a.log.Warn("the ports of a guest that moves have not followed it yet", "server", s.ID, "err", err)
	}
}

// take records an event. One from before the end of a call to the hypervisor is a step on the
// way to what that call has brought about, and tells nothing.
func (o *observer) take(s hypervisor.State) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if s.Since.Before(o.states[s.ID].at) {
		return false
	}
	if o.states[s.ID] = (seen{s.Power, s.Since, s.Moving}); s.Power == hypervisor.Absent {
		delete(o.states, s.ID)
	}
	return true
}

func (o *observer) list(ctx context.Context) {
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, 4*o.a.cfg.Resync)
	defer cancel()
	all, err := o.a.cfg.Hypervisor.List(ctx)
	if err != nil {
		o.mu.Lock()
		was := o.alive
		o.alive = false
		o.mu.Unlock()
		if was && ctx.Err() == nil {
			o.a.log.Warn("the hypervisor does not answer; guests run on", "err", err)
		}
		return
	}
	var changed []model.ID
	o.mu.Lock()
	here := make(map[model.ID]bool, len(all))
	for _, s := range all {
		here[s.ID] = true
		if old, ok := o.states[s.ID]; ok && (old.at.After(began) || old.power == s.Power && old.moving == s.Moving) {
			continue
		}
		o.states[s.ID] = seen{s.Power, began, s.Moving}
		changed = append(changed, s.ID)
	}
	for id, s := range o.states {
		if !here[id] && s.at.Before(began) {
			delete(o.states, id)
			changed = append(changed, id)
		}
	}
	first, back := !o.listed, !o.alive
	o.listed, o.alive = true, true
	o.mu.Unlock()
	if back {
		o.a.retry()
	}
	for _, id := range changed {
		if first || o.a.ledger.server(id) != nil {
			o.a.queue.add(id)
		}
	}
	if first {
		for id := range o.a.known() {
			o.a.queue.add(id)
		}
	}
}

// wait returns after d or when ctx ends.
func wait(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
