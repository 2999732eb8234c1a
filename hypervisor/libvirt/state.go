package libvirt

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"yakumo/hypervisor"
)

// powerOf turns virDomainState and the reason that goes with it into ours.
func powerOf(state, reason int) (hypervisor.Power, string) {
	name := func(names ...string) string {
		if reason >= 0 && reason < len(names) {
			return names[reason]
		}
		return ""
	}
	switch state {
	case 1, 2: // VIR_DOMAIN_RUNNING, VIR_DOMAIN_BLOCKED
		return hypervisor.Running, name("", "started", "migrated here", "restored", "reverted to a snapshot",
			"resumed", "migration cancelled", "save cancelled", "woken", "resumed after a panic", "post-copy")
	case 3: // VIR_DOMAIN_PAUSED
		return hypervisor.Paused, name("", "paused by an operator", "migrating away", "saving", "dumping",
			"disk error", "watchdog", "reverted to a snapshot", "shutting down", "taking a snapshot", "panicked",
			"starting", "post-copy", "post-copy failed")
	case 4: // VIR_DOMAIN_SHUTDOWN: the guest has switched itself off, its process is about to end
		return hypervisor.Running, "shutting down"
	case 5: // VIR_DOMAIN_SHUTOFF
		text := name("", "shut down", "stopped", "process died", "migrated away", "saved", "failed to start",
			"reverted to a snapshot", "lost while libvirtd was away")
		if reason == 3 || reason == 8 { // VIR_DOMAIN_SHUTOFF_CRASHED, _DAEMON
			return hypervisor.Crashed, text
		}
		return hypervisor.Off, text
	case 6: // VIR_DOMAIN_CRASHED
		return hypervisor.Crashed, "panicked"
	case 7: // VIR_DOMAIN_PMSUSPENDED
		return hypervisor.Paused, "asleep"
	}
	return hypervisor.Paused, fmt.Sprintf("unknown state %d", state)
}

// heldForMove tells whether a state is that of a guest which stands still for its move, at either end. One that comes is starting
// up at first, as any guest is.
func heldForMove(state, reason int) bool {
	return state == 3 && slices.Contains([]int{0, 2, 11, 12}, reason) // VIR_DOMAIN_PAUSED_UNKNOWN, _MIGRATION, _STARTING_UP, _POSTCOPY
}

// eventHeldForMove is heldForMove of a lifecycle event.
func eventHeldForMove(event, detail int) bool {
	return event == 2 && detail == 1 || event == 3 && (detail == 1 || detail == 7) // STARTED_MIGRATED; SUSPENDED_MIGRATED, _POSTCOPY
}

// eventPower turns a lifecycle event (virDomainEventType and its detail) into a power; ok is
// false for an event that changes none.
func eventPower(event, detail int) (p hypervisor.Power, reason string, ok bool) {
	name := func(names ...string) string {
		if detail >= 0 && detail < len(names) {
			return names[detail]
		}
		return ""
	}
	switch event {
	case 0: // DEFINED; detail 0 is ADDED, what else there is changes a definition
		return hypervisor.Off, "", detail == 0
	case 1: // UNDEFINED; detail 1 is a renaming
		return hypervisor.Absent, "removed", detail == 0
	case 2: // STARTED
		if detail == 1 { // MIGRATED: it awaits what it is to be; RESUMED follows
			return hypervisor.Paused, "migrating here", true
		}
		return hypervisor.Running, name("started", "migrated here", "restored", "reverted to a snapshot", "woken"), true
	case 3: // SUSPENDED
		return hypervisor.Paused, name("paused by an operator", "migrating away", "disk error", "watchdog", "restored",
			"reverted to a snapshot", "control error", "post-copy", "post-copy failed"), true
	case 4: // RESUMED
		return hypervisor.Running, name("resumed", "migrated here", "reverted to a snapshot", "post-copy", "post-copy failed"), true
	case 5: // STOPPED
		text := name("shut down", "stopped", "process died", "migrated away", "saved", "process died", "reverted to a snapshot")
		if detail == 2 || detail == 5 { // CRASHED, FAILED
			return hypervisor.Crashed, text, true
		}
		if detail == 4 { // SAVED
			return hypervisor.Suspended, text, true
		}
		return hypervisor.Off, text, true
	case 7: // PMSUSPENDED
		return hypervisor.Paused, "asleep", true
	case 8: // CRASHED
		return hypervisor.Crashed, "panicked", true
	}
	return 0, "", false // 6, SHUTDOWN: STOPPED follows
}

// lifecycle is remote_domain_event_callback_lifecycle_msg.
type lifecycle struct {
	dom           domainRef
	event, detail int
}

func decodeLifecycle(p []byte) (lifecycle, error) {
	d := decoder{buf: p}
	d.i32() // the number of our registration; there is one only
	l := lifecycle{dom: d.dom(), event: int(d.i32()), detail: int(d.i32())}
	return l, d.err
}

// eventQueue takes events from the connection's reader, which must not wait. It is bounded by
// what happens while one look-up takes place; a guest's older events give way to its latest.
type eventQueue struct {
	wake chan struct{}

	mu     sync.Mutex
	order  [][16]byte
	events map[[16]byte]lifecycle
	taken  int // how many came so far
}

// quiet gives how many events have come so far, and whether all have been handed on.
func (q *eventQueue) quiet() (taken int, all bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.taken, len(q.order) == 0
}

func newEventQueue() *eventQueue {
	return &eventQueue{wake: make(chan struct{}, 1), events: map[[16]byte]lifecycle{}}
}

func (q *eventQueue) take(proc int32, payload []byte) {
	if proc != procEventLifecycle {
		return
	}
	e, err := decodeLifecycle(payload)
	if err != nil {
		return // not of the form that we asked for; the next List sees what it was about
	}
	if _, _, tells := eventPower(e.event, e.detail); !tells {
		return
	}
	q.mu.Lock()
	if _, waiting := q.events[e.dom.uuid]; !waiting {
		q.order = append(q.order, e.dom.uuid)
	}
	q.events[e.dom.uuid] = e
	q.taken++
	q.mu.Unlock()
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

func (q *eventQueue) next() (lifecycle, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.order) == 0 {
		return lifecycle{}, false
	}
	uuid := q.order[0]
	q.order = q.order[1:]
	e := q.events[uuid]
	delete(q.events, uuid)
	return e, true
}

// publish hands the link's events to the watchers, those of foreign domains aside.
func (d *Driver) publish(l *link) {
	for {
		e, ok := l.events.next()
		if !ok {
			select {
			case <-l.events.wake:
				continue
			case <-l.quick.done:
				return
			}
		}
		id := formatUUID(e.dom.uuid)
		d.mu.Lock()
		_, known := d.records[id]
		delete(d.saves, id)
		d.mu.Unlock()
		if !known {
			if e.event == 1 { // gone before it was known: nobody has heard of it
				continue
			}
			if _, err := d.lookUp(d.ctx, l, e.dom); err != nil {
				continue // foreign, gone already, or the link is lost
			}
		}
		p, reason, _ := eventPower(e.event, e.detail)
		p, reason = d.judged(id, p, reason)
		if p == hypervisor.Absent {
			d.forget(id)
			d.feed.Publish(hypervisor.State{ID: id, Power: p, Reason: reason, Since: time.Now()})
			continue
		}
		d.feed.Publish(d.see(id, p, reason, eventHeldForMove(e.event, e.detail)))
	}
}

// see notes that a guest has a power, and since when.
func (d *Driver) see(id string, p hypervisor.Power, reason string, moving bool) hypervisor.State {
	d.mu.Lock()
	defer d.mu.Unlock()
	s, seen := d.states[id]
	if !seen || s.Power != p || s.Moving != moving {
		s = hypervisor.State{ID: id, Power: p, Since: time.Now()}
	}
	s.Reason, s.Moving = reason, moving
	d.states[id] = s
	return s
}

// List implements hypervisor.Driver.
func (d *Driver) List(ctx context.Context) ([]hypervisor.State, error) {
	l, err := d.connected(ctx)
	if err != nil {
		return nil, fmt.Errorf("list guests: %w", err)
	}
	states, err := d.list(ctx, l)
	if err != nil {
		return nil, fmt.Errorf("list guests: %w", d.failed(l, err))
	}
	return states, nil
}

// list asks for the states of all domains in one call, and for the metadata of those that are
// not known to be ours.
func (d *Driver) list(ctx context.Context, l *link) ([]hypervisor.State, error) {
	before, settled := l.events.quiet()
	look := allStates
	if d.variant.plain {
		look = eachState
	}
	all, err := look(ctx, l)
	if err != nil {
		return nil, err
	}
	mine := all[:0]
	for _, one := range all {
		id := formatUUID(one.dom.uuid)
		d.mu.Lock()
		_, known := d.records[id]
		d.mu.Unlock()
		if !known {
			_, err := d.lookUp(ctx, l, one.dom)
			if hasCode(err, codeNoDomain, codeNoMetadata) {
				continue
			}
			if err != nil {
				return nil, err
			}
		}
		if !d.variant.plain {
			if one.saved, err = d.saved(ctx, l, one); err != nil {
				return nil, err
			}
		}
		mine = append(mine, one)
	}
	// Answers and events come in one order. If none came in between, a state that differs from
	// what the events said so far is one that libvirt sent no event for.
	after, _ := l.events.quiet()
	settled = settled && before == after
	states := make([]hypervisor.State, 0, len(mine))
	listed := make(map[string]bool, len(mine))
	for _, one := range mine {
		id := formatUUID(one.dom.uuid)
		listed[id] = true
		p, reason := powerOf(one.state, one.reason)
		moving := heldForMove(one.state, one.reason)
		p, reason = d.judged(id, p, reason)
		if one.saved {
			p, reason = hypervisor.Suspended, "saved"
		}
		d.mu.Lock()
		was, seen := d.states[id]
		d.mu.Unlock()
		changed := seen && (was.Power != p || was.Moving != moving)
		if changed && !settled {
			// The events that are on their way tell the watchers; keep what they compare with.
			states = append(states, hypervisor.State{ID: id, Power: p, Reason: reason, Since: time.Now(), Moving: moving})
			continue
		}
		now := d.see(id, p, reason, moving)
		states = append(states, now)
		if changed {
			d.feed.Publish(now)
		}
	}
	d.mu.Lock()
	maps.DeleteFunc(d.states, func(id string, _ hypervisor.State) bool { return !listed[id] })
	d.mu.Unlock()
	slices.SortFunc(states, func(a, b hypervisor.State) int { return strings.Compare(a.ID, b.ID) })
	return states, nil
}

// takeStock learns which domains are ours when a link is new, so that events and console logs of all are looked after.
func (d *Driver) takeStock(ctx context.Context, l *link) error {
	_, err := d.list(ctx, l)
	return err
}

// allStates asks for the states of all domains by one call.
func allStates(ctx context.Context, l *link) ([]stats, error) {
	const state = 1 // VIR_DOMAIN_STATS_STATE
	out, err := l.quick.call(ctx, procGetAllDomainStats, new(encoder).u32(0).u32(state).u32(0))
	if err != nil {
		return nil, err
	}
	all := decodeStats(out)
	if out.err != nil {
		return nil, fmt.Errorf("read the states of all domains: %w", out.err)
	}
	return all, nil
}

// eachState asks for all domains and then for the state of each.
func eachState(ctx context.Context, l *link) ([]stats, error) {
	out, err := l.quick.call(ctx, procListAllDomains, new(encoder).i32(1).u32(0))
	if err != nil {
		return nil, err
	}
	n := out.count(24) // a domain with an empty name
	all := make([]stats, 0, n)
	for range n {
		all = append(all, stats{dom: out.dom()})
	}
	if out.err != nil {
		return nil, fmt.Errorf("read the list of all domains: %w", out.err)
	}
	there := all[:0]
	for _, one := range all {
		out, err := l.quick.call(ctx, procDomainGetState, new(encoder).dom(one.dom).u32(0))
		if hasCode(err, codeNoDomain) {
			continue // gone meanwhile; an event tells
		}
		if err != nil {
			return nil, err
		}
		if one.state, one.reason = int(out.i32()), int(out.i32()); out.err != nil {
			return nil, out.err
		}
		there = append(there, one)
	}
	return there, nil
}

type stats struct {
	dom           domainRef
	state, reason int
	saved         bool // found out beside
}

// decodeStats reads remote_connect_get_all_domain_stats_ret as far as it tells states.
func decodeStats(d *decoder) []stats {
	n := d.count(28) // a domain with an empty name and no parameter
	all := make([]stats, 0, n)
	for range n {
		s := stats{dom: d.dom()}
		for range d.count(12) {
			switch field, value := d.param(); field {
			case "state.state":
				s.state = int(value)
			case "state.reason":
				s.reason = int(value)
			}
		}
		if d.err != nil {
			return nil
		}
		all = append(all, s)
	}
	return all
}

// Watch implements hypervisor.Driver.
func (d *Driver) Watch(ctx context.Context) (<-chan hypervisor.State, error) {
	for {
		l, err := d.connected(ctx)
		if err != nil {
			return nil, fmt.Errorf("watch guests: %w", err)
		}
		// A watch must hang on a link that is there: lose ends it under the same lock.
		d.mu.Lock()
		if d.link == l {
			ch := d.feed.Watch(ctx)
			d.mu.Unlock()
			return ch, nil
		}
		d.mu.Unlock()
	}
}
