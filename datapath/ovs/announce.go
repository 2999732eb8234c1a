package ovs

import (
	"time"

	"yakumo/datapath/responder"
	"yakumo/model"
)

// announce tells guests what they are told unasked: those whose port was just wired or whose network
// changed at once, and all of them at each interval.
func (d *Driver) announce() {
	defer d.wg.Done()
	tick := time.NewTicker(responder.AdvertInterval)
	defer tick.Stop()
	for {
		all := false
		select {
		case <-d.ctx.Done():
			return
		case <-d.speak:
		case <-tick.C:
			all = true
		}
		d.mu.Lock()
		if all {
			for id := range d.wired {
				d.untold[id] = true
			}
			d.learn(d.listeners.Expire(time.Now()))
		}
		var replies []responder.Reply
		for id := range d.untold {
			if d.wired[id] { // else it is told when it is wired
				replies = append(replies, responder.Announce(d.prog, d.cfg.Ordinals, id)...)
			}
		}
		for id := range d.arrived {
			replies = append(replies, responder.Arrived(d.prog, d.cfg.Ordinals, id)...)
		}
		d.untold, d.arrived = map[model.ID]bool{}, map[model.ID]bool{}
		conn := d.conn
		d.mu.Unlock()
		if conn == nil {
			continue // all ports are wired anew with the next connection
		}
		if err := d.inject(conn, replies...); err != nil {
			d.cfg.Log.Debug("guests are not told of their networks", "error", err)
		}
	}
}

// listen takes in the reports of multicast listeners, as many at once as have come.
func (d *Driver) listen() {
	defer d.wg.Done()
	for {
		var ask responder.Ask
		select {
		case <-d.ctx.Done():
			return
		case ask = <-d.heard:
		}
		var l responder.Lesson
		d.mu.Lock()
		for more := true; more; {
			if ask.Port != nil && d.prog.Row(ask.Port.RowID()) != nil {
				d.listeners.Hear(ask.Port, ask.Frame, time.Now(), &l)
			}
			select {
			case ask = <-d.heard:
			default:
				more = false
			}
		}
		d.learn(l)
		d.mu.Unlock()
	}
}

// learn takes over rows that the driver makes itself. d.mu is held. What the switch does not take
// now it gets with the next connection.
func (d *Driver) learn(l responder.Lesson) {
	if l.Empty() {
		return
	}
	if err := d.apply(d.ctx, l.Upserts, l.Removes); err != nil && d.ctx.Err() == nil {
		d.cfg.Log.Warn("what was learnt is not in the switch yet", "error", err)
	}
}

// wakeAnnounce makes announce look where somebody is to be told. d.mu is held.
func (d *Driver) wakeAnnounce() {
	if len(d.untold) > 0 {
		select {
		case d.speak <- struct{}{}:
		default:
		}
	}
}
