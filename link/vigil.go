package link

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"syscall"
	"time"

	"yakumo/link/linkpb"
	"yakumo/model"
	"yakumo/store"
)

// vigil watches the hosts that are gateways of routers (and those that it suspects) more closely than others, and marks
// their heartbeats as suspect: who places gateways then moves them. It tells a dead host from
// a dead agent, whose switch goes on forwarding; see docs/design/0015-liveness.md. One
// goroutine does all of it; hosts that are no gateways cost nothing.
type vigil struct {
	s       *Server
	watched map[model.ID]*watched
	last    time.Time // the tick before
	// clock is the time in which silence is measured: it goes on with each tick, and no more than
	// half as much again as a tick should take. So what this process slept through blames nobody.
	clock time.Duration
}

// watched is a gateway host. Its times are of the vigil's clock.
type watched struct {
	session *session // the last; it may be over
	over    bool
	joined  time.Duration // beginning of the watch, or of the stream, or end of the stream
	last    int64         // session.heard as last seen
	heard   time.Duration // when that changed
	kernel  chan bool     // an answer, or none, to the question put last; nil: none is under way
	asked   bool
	alive   time.Duration // when the host's kernel answered last
	proven  bool          // it answers such questions at all
	well    int           // ticks in a row in which the agent was heard
	dead    bool          // in this tick
}

// ticksPerTTL is how often a silence is looked at before it counts.
const ticksPerTTL = 4

// recovered is how many ticks in a row a suspect host must be heard in.
const recovered = 2 * ticksPerTTL

// run watches until ctx ends.
func (v *vigil) run(ctx context.Context) {
	tick := time.NewTicker(v.s.cfg.GatewayTTL / ticksPerTTL)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			v.look(ctx, time.Now())
		case <-ctx.Done():
			return
		}
	}
}

// gateways gives every host that is a gateway or stands by, each once, by seeking from one to the next.
func gateways(snap store.Snapshot, yield func(model.ID)) {
	for from := ""; ; {
		next := ""
		for r := range store.Routers.Seek(snap, "gateway_host", "", from) {
			for _, h := range r.Status.GatewayHosts {
				if h >= from && (next == "" || h < next) {
					next = h
				}
			}
			break
		}
		if next == "" {
			return
		}
		yield(next)
		from = next + "\x01"
	}
}

// look is one tick.
func (v *vigil) look(ctx context.Context, now time.Time) {
	each := v.s.cfg.GatewayTTL / ticksPerTTL
	v.clock += min(now.Sub(v.last), each*3/2)
	v.last = now
	seen := map[model.ID]bool{}
	watch := func(host model.ID) {
		v.s.mu.Lock()
		ss := v.s.sessions[host]
		v.s.mu.Unlock()
		w := v.watched[host]
		if w == nil && ss == nil {
			return // another server's, or long gone
		}
		if w != nil && ss == nil && !w.session.broke.Load() {
			return // it was ended from here: the host is elsewhere, removed, or down by its lease
		}
		seen[host] = true
		if w == nil {
			w = &watched{}
			v.watched[host] = w
		}
		if ss != nil && ss != w.session {
			w.session, w.over, w.joined, w.well = ss, false, v.clock, 0
		}
		if w.session.broke.Load() && !w.over {
			w.over, w.joined = true, v.clock
		}
		v.hear(ctx, w)
	}
	gateways(v.s.cfg.Store.Snapshot(), watch)
	for host, w := range v.watched {
		// Its gateways have gone elsewhere; it must be heard again before it is given any.
		if !seen[host] && w.session.suspect.Load() {
			watch(host)
		}
	}
	dead := 0
	for host, w := range v.watched {
		if !seen[host] {
			delete(v.watched, host)
		} else if w.dead {
			dead++
		}
	}
	// Where most of several gateways fall silent together, it is likelier that this server is cut off.
	cut := len(v.watched) >= 3 && 2*dead > len(v.watched)
	for host, w := range v.watched {
		v.judge(ctx, host, w, cut)
	}
}

// hear pings, and asks the host's kernel where the agent has been silent or its stream is over.
func (v *vigil) hear(ctx context.Context, w *watched) {
	ttl := v.s.cfg.GatewayTTL
	if heard := w.session.heard.Load(); heard != w.last {
		w.last, w.heard = heard, v.clock
	}
	select {
	case ok := <-w.kernel:
		w.kernel = nil
		if ok {
			w.alive, w.proven = v.clock, true
		}
	default:
	}
	silence := v.silence(w)
	if !w.over {
		select {
		case w.session.out <- &linkpb.ToHost{Kind: &linkpb.ToHost_Ping{Ping: &linkpb.Ping{}}}:
		default: // rows fill the stream: those are heard of, too
		}
	}
	if w.kernel == nil && (!w.asked || w.over || silence > ttl/3) {
		w.kernel, w.asked = make(chan bool, 1), true
		go func(answer chan<- bool, at netip.AddrPort) {
			ctx, cancel := context.WithTimeout(ctx, ttl/2)
			defer cancel()
			answer <- v.s.cfg.Probe(ctx, at)
		}(w.kernel, w.session.peer)
	}
	kernel := v.clock - max(w.alive, w.joined)
	if w.over {
		// Who ended the stream was alive then. Where the host answers no questions, nothing more is known.
		w.dead = w.proven && kernel >= ttl
	} else {
		w.dead = silence >= ttl && (kernel >= ttl || !w.proven)
	}
}

// silence is how long nothing was heard of the agent, or how long it has been away.
func (v *vigil) silence(w *watched) time.Duration {
	if w.over {
		return v.clock - w.joined
	}
	return v.clock - max(w.heard, w.joined)
}

// judge marks a host as suspect, or clears it.
func (v *vigil) judge(ctx context.Context, host model.ID, w *watched, cut bool) {
	silence, ss := v.silence(w), w.session
	bad := w.dead && !cut || silence >= v.s.cfg.GatewayGrace
	switch {
	case bad && w.over:
		delete(v.watched, host)
		go ss.suspectAfter(ctx)
	case bad && !ss.suspect.Load():
		ss.log.Warn("a gateway host is silent; its gateways go elsewhere", "silent", silence.Round(time.Millisecond), "host_answers", w.proven && !w.dead)
		w.well = 0
		ss.suspect.Store(true)
		ss.poke()
	case ss.suspect.Load() && !w.over:
		if silence < v.s.cfg.GatewayTTL/2 {
			w.well++
		} else {
			w.well = 0
		}
		if w.well >= recovered {
			ss.log.Info("a gateway host is heard again")
			ss.suspect.Store(false)
			ss.poke()
		}
	}
}

// poke makes the session write its heartbeat anew.
func (ss *session) poke() {
	select {
	case ss.judged <- struct{}{}:
	default:
	}
}

// suspectAfter marks the heartbeat that a session which is over has left behind, where nobody has made a newer one.
func (ss *session) suspectAfter(ctx context.Context) {
	ss.mu.Lock()
	l, mine := ss.left, ss.leftAt
	ss.mu.Unlock()
	if l == nil {
		return // it went with its lease already
	}
	st := ss.s.cfg.Store
	marked := false
	_, err := st.Update(ctx, func(tx *store.Tx) error {
		marked = false
		old, ok := store.Heartbeats.Get(tx, ss.host)
		if !ok || store.Heartbeats.Revision(tx, ss.host) != mine || old.Suspect {
			return nil
		}
		hb := *old
		hb.Suspect, marked = true, true
		return store.Heartbeats.PutLeased(tx, &hb, l)
	})
	if err != nil && ctx.Err() == nil {
		// The lease has run out meanwhile: there is no heartbeat, which says the same.
		ss.log.Info("the heartbeat of a gateway host that is away was not marked", "err", err)
		return
	}
	if marked {
		ss.log.Warn("a gateway host has not come back; its gateways go elsewhere")
	}
}

// knock asks whether a host's kernel is there: it refuses, or takes, a connection to the port
// that its agent's stream came from, which nobody listens on. A host whose filter drops such
// connections never answers, and is judged without.
func knock(ctx context.Context, at netip.AddrPort) bool {
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", at.String())
	if err == nil {
		c.Close()
		return true
	}
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ECONNRESET)
}
