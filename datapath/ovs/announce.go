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
		}
		var replies []responder.Reply
		for id := range d.untold {
			if d.wired[id] { // else it is told when it is wired
				replies = append(replies, responder.Announce(d.prog, d.cfg.Ordinals, id)...)
			}
		}
		d.untold = map[model.ID]bool{}
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

// wakeAnnounce makes announce look where somebody is to be told. d.mu is held.
func (d *Driver) wakeAnnounce() {
	if len(d.untold) > 0 {
		select {
		case d.speak <- struct{}{}:
		default:
		}
	}
}
