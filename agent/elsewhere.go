package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"yakumo/fault"
	"yakumo/hypervisor"
	"yakumo/model"
)

// A volume goes elsewhere under the guest that has it: the hypervisor copies it, with what the guest writes, and then has the guest use the copy. The ledger says
// what is about to be done before it is done. The guest is held from before the exchange until the ledger says what came of it; as long as it is held the two hold the
// same, so that a guest that ends just then has lost nothing, whichever is said to be the volume.

const (
	// elsewhereLook is how often a copy under way is looked at.
	elsewhereLook = 300 * time.Millisecond
	// elsewhereTurns is how often a guest is held for the exchange before that is given up.
	elsewhereTurns = 4
)

// away is what became of one volume of a guest. The empty State: nothing is done yet.
type away struct {
	Number int64 `json:"number"`          // of the relocation
	From   int64 `json:"from,omitempty"`  // the seat that the volume had
	Going  bool  `json:"going,omitempty"` // the copying was begun
	Held   bool  `json:"held,omitempty"`  // the guest is, or may be, held for the exchange
	// To is the place for which it is held, without secrets: what became of it is found out also where that does not answer.
	To    *hypervisor.Disk `json:"to,omitempty"`
	State model.DiskState  `json:"state,omitempty"`
	Tries int              `json:"tries,omitempty"` // failures, and after State is near exchanges
	Fault *model.Fault     `json:"fault,omitempty"`
}

func (e away) turned(number int64) bool {
	return e.State == model.DiskTurned && e.Number == number
}

// elsewhereOf gives what is said of them.
func elsewhereOf(p progress) (out []model.DiskReport) {
	for _, id := range slices.Sorted(maps.Keys(p.Elsewhere)) {
		if e := p.Elsewhere[id]; e.State != "" {
			out = append(out, model.DiskReport{VolumeID: id, Number: e.Number, State: e.State, Fault: e.Fault})
		}
	}
	return out
}

// noteElsewhere keeps what is about to become of a volume, or became of it; nil: nothing.
func (a *Agent) noteElsewhere(server model.ID, p *progress, volume model.ID, e *away) error {
	all := maps.Clone(p.Elsewhere)
	if all == nil {
		all = map[model.ID]away{}
	}
	if delete(all, volume); e != nil {
		all[volume] = *e
	}
	if p.Elsewhere = all; len(all) == 0 {
		p.Elsewhere = nil
	}
	return a.keep(server, p)
}

// relocate has a guest's volumes go where they are to go, as far as that goes now, and gives the power that the guest has then. Nothing else is done to the guest meanwhile.
func (a *Agent) relocate(ctx context.Context, row *model.HostServer, p *progress, power hypervisor.Power) (hypervisor.Power, error) {
	var errs []error
	for _, d := range row.Volumes {
		e, begun := p.Elsewhere[d.VolumeID]
		var err error
		switch {
		case d.To == nil && !begun:
			continue
		case begun && e.Held:
			power, err = a.release(ctx, row, p, power, d, e)
		case d.To == nil || begun && e.Number != d.To.Number:
			err = a.leaveElsewhere(ctx, row, p, power, d, e)
		default:
			power, err = a.goElsewhere(ctx, row, p, power, d, e)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("volume %s goes elsewhere: %w", d.VolumeID, err))
		}
	}
	for id, e := range p.Elsewhere { // it is no volume of the server any more
		if !slices.ContainsFunc(row.Volumes, func(d model.HostDisk) bool { return d.VolumeID == id }) {
			errs = append(errs, a.noteElsewhere(row.ID, p, id, nil), a.unseatBoth(ctx, id, e))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return power, &asideError{err}
	}
	return power, nil
}

func on(power hypervisor.Power) bool {
	return power == hypervisor.Running || power == hypervisor.Paused
}

// goElsewhere goes on with one volume.
func (a *Agent) goElsewhere(ctx context.Context, row *model.HostServer, p *progress, power hypervisor.Power, d model.HostDisk, e away) (hypervisor.Power, error) {
	h, ok := a.cfg.Hypervisor.(hypervisor.Mirrorer)
	e.Number = d.To.Number
	switch {
	case e.State == model.DiskTurned || e.State == model.DiskFailed: // and no server has taken note yet
		if e.State == model.DiskTurned && d.To.Owner.HostID != "" { // the guest has it from there
			if _, err := a.keeper.reach(d.VolumeID, e.Number); err != nil {
				return power, err
			}
		}
		return power, a.keep(row.ID, p)
	case !ok:
		return power, a.failElsewhere(ctx, row, p, power, d, e, fault.New(fault.NotImplemented, "The hypervisor of this host cannot move a volume under a guest."))
	case !on(power):
		return power, a.failElsewhere(ctx, row, p, power, d, e, fault.New(fault.Conflict, "The server does not run any more."))
	}
	if v := a.ledger.volume(d.VolumeID); e.Tries == 0 && !e.Going && v != nil {
		e.From = v.Seat
	}
	to := hypervisor.Disk{Serial: d.VolumeID}
	err := a.keeper.openAt(ctx, &to, d)
	if err == nil && !e.Going {
		if err = a.noteElsewhere(row.ID, p, d.VolumeID, &e); err != nil {
			return power, err
		}
		if err = h.Mirror(ctx, row.ID, d.VolumeID, to); err == nil {
			e.Going = true
			err = a.noteElsewhere(row.ID, p, d.VolumeID, &e)
			a.log.Info("a volume is being copied to where it is to go, under its guest", "server", row.ID, "volume", d.VolumeID, "engine", d.To.Engine, "number", e.Number)
		}
	}
	var m hypervisor.MirrorProgress
	if err == nil {
		m, err = h.Mirrored(ctx, row.ID, d.VolumeID, to)
	}
	if err != nil {
		if e.Tries++; e.Tries >= a.cfg.Repeat.Limit || fault.Is(err, fault.Conflict) || fault.Is(err, fault.NotFound) {
			return power, a.failElsewhere(ctx, row, p, power, d, e, err)
		}
		return power, errors.Join(err, a.noteElsewhere(row.ID, p, d.VolumeID, &e))
	}
	switch {
	case m.Turned: // by an agent whose ledger is lost
		e.State = model.DiskTurned
		return power, a.noteElsewhere(row.ID, p, d.VolumeID, &e)
	case !m.Going:
		return power, a.failElsewhere(ctx, row, p, power, d, e, fault.New(fault.Unavailable, "The copying of the volume broke off."))
	case e.State == "" && m.Near:
		e.State, e.Tries = model.DiskNear, 0
		return power, a.noteElsewhere(row.ID, p, d.VolumeID, &e)
	case e.State == model.DiskNear && d.To.Turn && m.Near:
		return a.turn(ctx, h, row, p, power, d, e, to)
	}
	if m.Total > 0 {
		a.tellElsewhere(row.ID, d.VolumeID, int(100*m.Done/m.Total))
	}
	a.lookLater(row.ID)
	return power, nil
}

// lookLater has a server looked at once a copy may have gone on.
func (a *Agent) lookLater(server model.ID) {
	time.AfterFunc(min(elsewhereLook, a.cfg.Resync), func() { a.queue.add(server) })
}

// tellElsewhere writes each tenth of a copy to the log.
func (a *Agent) tellElsewhere(server, volume model.ID, percent int) {
	a.mu.Lock()
	old, known := a.copied[volume]
	a.copied[volume] = percent / 10
	a.mu.Unlock()
	if !known || old != percent/10 {
		a.log.Info("a volume goes elsewhere under its guest", "server", server, "volume", volume, "percent", percent)
	}
}

// turn has a guest use the copy of a volume.
func (a *Agent) turn(ctx context.Context, h hypervisor.Mirrorer, row *model.HostServer, p *progress, power hypervisor.Power, d model.HostDisk, e away, to hypervisor.Disk) (hypervisor.Power, error) {
	g, err := a.guest(ctx, row)
	if err != nil {
		return power, err
	}
	if i := slices.IndexFunc(g.Disks, func(x hypervisor.Disk) bool { return x.Serial == d.VolumeID }); i >= 0 {
		x := &g.Disks[i]
		x.Path, x.Format, x.Network, x.Everywhere = to.Path, to.Format, to.Network, to.Everywhere
	}
	e.Held = true
	e.Tries++
	known := to
	if to.Network != nil {
		n := *to.Network
		n.Secret, known.Network = "", &n
	}
	e.To = &known
	if err := a.noteElsewhere(row.ID, p, d.VolumeID, &e); err != nil {
		return power, err
	}
	began := time.Now()
	if err = a.cfg.Hypervisor.Ensure(ctx, g); err == nil { // else its next start, by whomever, would find the old one
		err = h.Turn(ctx, row.ID, d.VolumeID, to)
	}
	if err != nil {
		a.log.Warn("a guest could not be given the copy of its volume", "server", row.ID, "volume", d.VolumeID, "tries", e.Tries, "err", err)
	}
	power, rerr := a.release(ctx, row, p, power, d, e)
	a.log.Info("a guest was held for the exchange of a volume", "server", row.ID, "volume", d.VolumeID, "state", p.Elsewhere[d.VolumeID].State, "took", time.Since(began))
	return power, rerr
}

// release finds out what became of an exchange, keeps that, and lets the guest go on.
func (a *Agent) release(ctx context.Context, row *model.HostServer, p *progress, power hypervisor.Power, d model.HostDisk, e away) (hypervisor.Power, error) {
	if e.State == model.DiskNear {
		h, ok := a.cfg.Hypervisor.(hypervisor.Mirrorer)
		var m hypervisor.MirrorProgress
		var err error
		if ok && e.To != nil {
			m, err = h.Mirrored(ctx, row.ID, d.VolumeID, *e.To)
		}
		switch {
		case fault.Is(err, fault.Conflict), fault.Is(err, fault.NotFound):
			m, power = hypervisor.MirrorProgress{}, hypervisor.Crashed // its run has ended, held: both are the same
		case err != nil:
			return power, err
		}
		switch {
		case m.Turned:
			e.State = model.DiskTurned
		case !m.Going || e.Tries >= elsewhereTurns:
			e.State, e.Fault = model.DiskFailed, a.faultOf(fault.New(fault.Unavailable, "The guest could not be given the copy of the volume."))
		}
		// What it has is kept before it runs.
		if err := a.noteElsewhere(row.ID, p, d.VolumeID, &e); err != nil {
			return power, err
		}
	}
	if e.State != model.DiskTurned { // it was defined with the copy
		g, err := a.guest(ctx, row)
		if err == nil {
			err = a.cfg.Hypervisor.Ensure(ctx, g)
		}
		if err != nil {
			return power, err
		}
	}
	if row.Power == model.PowerRunning && on(power) {
		began := time.Now()
		if err := a.cfg.Hypervisor.Start(ctx, row.ID); err != nil {
			return power, fmt.Errorf("let the guest go on: %w", err)
		}
		power = hypervisor.Running
		a.guests.did(row.ID, power, began)
	}
	e.Held = false
	if err := a.noteElsewhere(row.ID, p, d.VolumeID, &e); err != nil {
		return power, err
	}
	switch e.State {
	case model.DiskFailed:
		return power, a.failElsewhere(ctx, row, p, power, d, e, nil)
	case model.DiskNear:
		a.lookLater(row.ID)
	}
	return power, nil
}

// failElsewhere gives a copy up: the guest's disk is what it was. The way to the other is cut first, as what is on it would be waited for.
func (a *Agent) failElsewhere(ctx context.Context, row *model.HostServer, p *progress, power hypervisor.Power, d model.HostDisk, e away, why error) error {
	if why != nil {
		e.State, e.Fault = model.DiskFailed, a.faultOf(why)
		a.log.Warn("a volume does not go elsewhere under its guest", "server", row.ID, "volume", d.VolumeID, "err", why)
	}
	if err := a.keeper.unseat(ctx, d.VolumeID, e.Number); err != nil {
		return err
	}
	if h, ok := a.cfg.Hypervisor.(hypervisor.Mirrorer); ok && on(power) {
		if err := h.EndMirror(ctx, row.ID, d.VolumeID); err != nil && !fault.Is(err, fault.NotFound) {
			return err
		}
	}
	return a.noteElsewhere(row.ID, p, d.VolumeID, &e)
}

// unseatBoth ends the ways to both places of a volume that no guest here has any more.
func (a *Agent) unseatBoth(ctx context.Context, volume model.ID, e away) error {
	return errors.Join(a.keeper.unseat(ctx, volume, e.From), a.keeper.unseat(ctx, volume, e.Number))
}

func (a *Agent) faultOf(err error) *model.Fault {
	text, ok := fault.Text(err)
	if !ok {
		text = "The volume could not be moved under its guest."
	}
	return &model.Fault{Code: 500, Message: text, Details: err.Error(), At: a.now()}
}

// leaveElsewhere ends what was begun for a volume that is where it is to be, or is not to go elsewhere any more.
func (a *Agent) leaveElsewhere(ctx context.Context, row *model.HostServer, p *progress, power hypervisor.Power, d model.HostDisk, e away) error {
	seat := e.Number
	if e.State == model.DiskTurned {
		v := a.ledger.volume(d.VolumeID)
		switch {
		case v != nil && v.Seat == e.Number:
			seat = e.From
		case v != nil:
			return fault.New(fault.Unavailable, "The guest uses volume %s where no server says that it is.", d.VolumeID)
		}
	} else {
		if err := a.failElsewhere(ctx, row, p, power, d, e, nil); err != nil {
			return err
		}
	}
	if err := a.keeper.unseat(ctx, d.VolumeID, seat); err != nil {
		return err
	}
	a.mu.Lock()
	delete(a.copied, d.VolumeID)
	a.mu.Unlock()
	return a.noteElsewhere(row.ID, p, d.VolumeID, nil)
}
