package agent

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"yakumo/fault"
	"yakumo/hypervisor"
	"yakumo/model"
)

// A local volume is served to its guest by NBD, whose client learns a size when it connects. So the guest is held for a moment while what serves the
// volume is exchanged: on the volume's host its storage daemon's export, elsewhere the relay. Who looks after the guest does it, as nothing else is done to
// the guest meanwhile.

// regrow lets a guest that is on see the sizes that volumes have now which are served to it. That it may be held is kept before.
func (a *Agent) regrow(ctx context.Context, row *model.HostServer, p *progress, power hypervisor.Power) error {
	h, ok := a.cfg.Hypervisor.(hypervisor.Reopener)
	on := power == hypervisor.Running || power == hypervisor.Paused
	if !on || !ok {
		if !p.Reopening {
			return nil
		}
		p.Reopening = false
		return a.keep(row.ID, p)
	}
	sizes := maps.Clone(p.Sizes)
	maps.DeleteFunc(sizes, func(id model.ID, _ int) bool { return !slices.Contains(p.Disks, id) })
	held, began := power == hypervisor.Paused, time.Now()
	for _, id := range p.Disks {
		v := a.ledger.volume(id)
		if v == nil || v.Engine != model.EngineLocal || v.SizeGiB == 0 || sizes[id] >= v.SizeGiB {
			continue
		}
		if !p.Reopening {
			p.Reopening, held = true, false
			if err := a.keep(row.ID, p); err != nil {
				return err
			}
		}
		began := time.Now()
		err := h.Reopen(ctx, row.ID, id, int64(v.SizeGiB)<<30, func(ctx context.Context) error { return a.keeper.exchange(ctx, v) })
		if fault.Is(err, fault.NotFound) || fault.Is(err, fault.Conflict) {
			continue // it has lost the disk, or is off by now
		}
		if err != nil {
			return fmt.Errorf("let a guest see that volume %s has grown: %w", id, err)
		}
		if sizes == nil {
			sizes = map[model.ID]int{}
		}
		sizes[id] = v.SizeGiB
		a.keeper.queue.add(id)
		a.log.Info("a guest sees the size of a volume", "server", row.ID, "volume", id, "size", v.SizeGiB, "took", time.Since(began))
	}
	if p.Reopening && held && row.Power == model.PowerRunning {
		// It was held by an agent that died.
		if err := a.cfg.Hypervisor.Start(ctx, row.ID); err != nil {
			return fmt.Errorf("let a guest go on: %w", err)
		}
		a.guests.did(row.ID, hypervisor.Running, began)
	}
	if !p.Reopening && maps.Equal(sizes, p.Sizes) {
		return nil
	}
	p.Reopening, p.Sizes = false, sizes
	return a.keep(row.ID, p)
}

// exchange makes what serves a volume to guests here serve it with the size that it has, or on its own host is to have.
func (v *volumeKeeper) exchange(ctx context.Context, row *model.HostVolume) error {
	if !row.Mine {
		if v.a.cfg.Relay == nil {
			return fault.New(fault.NotImplemented, "This host cannot open volume %s of another host.", row.ID)
		}
		socket, err := v.reach(row.ID, row.Seat)
		if err == nil {
			_, err = v.a.cfg.Relay.Renew(ctx, seated(row.ID, row.Seat), row.ID, socket, int(reconnect/time.Second))
		}
		return err
	}
	e, err := v.engine(row.Engine, row.ID)
	if err != nil {
		return err
	}
	grow := e.Grow(ctx, row.ID, int64(row.SizeGiB)<<30)
	if grow == nil {
		return nil
	}
	v.mu.Lock()
	v.stuck[row.ID] = grow
	v.mu.Unlock()
	v.queue.add(row.ID)
	_, err = e.Open(ctx, row.ID) // the guest goes on with what it had
	return err
}

// growth gives nil where a local volume of this host may be made larger now. While a guest here has it open, who looks after that guest does it: errWaiting
// until the guest sees the size, or why that was not possible.
func (v *volumeKeeper) growth(row *model.HostVolume) error {
	if _, ok := v.a.cfg.Hypervisor.(hypervisor.Reopener); !ok {
		return v.closed(row)
	}
	for _, id := range v.a.ledger.users(row.ID) {
		power, known := v.a.guests.state(id)
		p, _ := v.a.ledger.progressOf(id)
		switch {
		case known && power != hypervisor.Running && power != hypervisor.Paused:
		case !slices.Contains(p.Disks, row.ID) && !slices.Contains(p.Plugging, row.ID):
		case p.Sizes[row.ID] >= row.SizeGiB:
		default:
			v.mu.Lock()
			err := v.stuck[row.ID]
			delete(v.stuck, row.ID)
			v.mu.Unlock()
			if err != nil {
				return fmt.Errorf("grow volume %s: %w", row.ID, err)
			}
			v.a.queue.add(id)
			return fmt.Errorf("volume %s grows while its guest is held: %w", row.ID, errWaiting)
		}
	}
	return nil
}

// closed refuses a volume that a guest here has open.
func (v *volumeKeeper) closed(row *model.HostVolume) error {
	for _, id := range v.a.ledger.users(row.ID) {
		if power, known := v.a.guests.state(id); !known || power == hypervisor.Running || power == hypervisor.Paused {
			return fault.New(fault.Invalid, "Volume %s cannot grow while a guest has it: the hypervisor cannot tell the guest.", row.ID)
		}
	}
	return nil
}
