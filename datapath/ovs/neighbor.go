package ovs

import (
	"errors"
	"time"

	"yakumo/datapath/neighbor"
	"yakumo/datapath/pipeline"
	"yakumo/datapath/responder"
	"yakumo/model"
)

// errTooMany says that packets come faster than they are looked at.
var errTooMany = errors.New("too many packets at once")

// wakeSeek makes seek look which addresses are outside here now, where rows have changed that say so.
// d.mu is held, and the switch has what the rows want.
func (d *Driver) wakeSeek(upserts []model.HostRow, removes []model.RowID) {
	if !neighbor.Concerns(upserts, removes) {
		return
	}
	select {
	case d.outer <- struct{}{}:
	default:
	}
}

// seek finds out who is outside, and tells the outside who is here.
func (d *Driver) seek(table *neighbor.Table) {
	defer d.wg.Done()
	tick := time.NewTimer(0)
	defer tick.Stop()
	var next time.Time // of a tick; zero: none is set
	for {
		if now := time.Now(); !table.Idle() {
			if at := now.Add(table.Wait(now)); next.IsZero() || at.Before(next) { // packets must not put it off
				next = at
				tick.Reset(at.Sub(now))
			}
		}
		var outcomes []neighbor.Outcome
		select {
		case <-d.ctx.Done():
			return
		case ask := <-d.sought:
			outcomes = append(outcomes, table.Packet(time.Now(), ask))
		case <-d.outer:
			outcomes = append(outcomes, table.Own(time.Now(), d.outside()))
		case <-tick.C:
			next = time.Time{}
			select {
			case <-d.outer: // what has gone from here is not announced any more
				outcomes = append(outcomes, table.Own(time.Now(), d.outside()))
			default:
				outcomes = append(outcomes, table.Tick(time.Now()))
			}
		}
		for more := true; more; {
			select {
			case ask := <-d.sought:
				outcomes = append(outcomes, table.Packet(time.Now(), ask))
			default:
				more = false
			}
		}
		for _, o := range outcomes {
			d.found(o)
		}
	}
}

// outside gives the addresses that are outside here.
func (d *Driver) outside() []pipeline.Outer {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.prog.Outer()
}

// found takes over what was learnt, and sends what is to be sent.
func (d *Driver) found(o neighbor.Outcome) {
	if o.Empty() {
		return
	}
	d.mu.Lock()
	var err error
	if len(o.Learn)+len(o.Forget) > 0 {
		err = errors.Join(d.apply(d.ctx, o.Learn, o.Forget), neighbor.Remember(d.cfg.Ordinals, o))
	}
	conn := d.conn
	d.mu.Unlock()
	if err == nil && conn != nil {
		err = d.inject(conn, o.Send...)
	}
	if err != nil && d.ctx.Err() == nil { // rows follow with the next connection, and questions are put again
		d.cfg.Log.Warn("neighbours outside", "bridge", d.cfg.Bridge, "error", err)
	}
}

// hand gives a packet to seek.
func (d *Driver) hand(ask responder.Ask) error {
	select {
	case d.sought <- ask: // not here: writing to the switch must not wait for what it sends
		return nil
	default:
		return errTooMany
	}
}

func seeks(r pipeline.Responder) bool {
	return r == pipeline.ResponderResolve || r == pipeline.ResponderLearn
}
