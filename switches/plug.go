package switches

import (
	"context"
	"log/slog"
	"maps"
	"reflect"
	"slices"
	"time"

	"yakumo/datapath"
	"yakumo/fault"
	"yakumo/link"
	"yakumo/model"
)

// plug makes a switch agree with its rows: entries by the driver, devices by the ports' profiles.
type plug struct {
	drv  datapath.Driver
	host model.ID
	sink link.Sink
	log  *slog.Logger

	rows    map[model.RowID]model.HostRow
	full    bool                // all rows must be handed over
	upserts []model.HostRow     // to be handed over
	removes []model.RowID       //
	devices map[model.ID]string // port → device that the driver was told to plug in; faults tells whether it could
	faults  map[model.ID]string // port → what kept it from being plugged in
	told    map[model.ID]model.PortReport
	claims  datapath.Claims // what the machines behind ports have said to hold
}

// take notes what a batch changes.
func (p *plug) take(_ context.Context, b model.HostBatch) {
	if b.Full {
		clear(p.rows)
		p.full, p.upserts, p.removes = true, nil, nil
	}
	for _, id := range b.Removes {
		delete(p.rows, id)
		p.removes = append(p.removes, id)
	}
	for _, r := range b.Upserts {
		if r.RowID().Kind == model.RowServer { // nothing is placed here
			continue
		}
		if n, is := r.(*model.HostNetwork); is { // the row is shared
			bare := *n
			bare.Bare = true
			r = &bare
		}
		p.rows[r.RowID()] = r
		p.upserts = append(p.upserts, r)
	}
}

// step brings the switch, and what is told of it, a step nearer to the rows.
func (p *plug) step(ctx context.Context) {
	err := p.apply(ctx)
	if err != nil && ctx.Err() == nil {
		p.log.Warn("a switch has not taken all rows yet", "err", err)
	}
	ports := map[model.ID]*model.HostPort{}
	for _, r := range p.rows {
		if port, is := r.(*model.HostPort); is {
			ports[port.ID] = port
		}
	}
	away := fault.Is(err, fault.Unavailable)
	for id, device := range p.devices {
		if r := ports[id]; r != nil && r.Device == device || away {
			continue
		}
		if err := p.drv.Detach(ctx, id); err != nil {
			away = fault.Is(err, fault.Unavailable)
			continue
		}
		delete(p.devices, id)
	}
	holders := map[string]model.ID{}
	for id, device := range p.devices {
		holders[device] = id
	}
	for _, id := range slices.Sorted(maps.Keys(ports)) {
		r := ports[id]
		// A port that is not wired may have lost its device: somebody unplugged it, or the switch forgot all.
		if r.Parent != "" || away || p.devices[id] != "" && p.devices[id] == r.Device && p.faults[id] == "" && p.drv.Installed(id) {
			continue
		}
		holder := holders[r.Device]
		switch {
		case r.Device == "":
			p.fail(id, "binding:profile names no device of the switch")
			continue
		case holder != "" && holder != id:
			p.fail(id, "device "+r.Device+" is plugged in for port "+holder)
			continue
		}
		// Also where it fails: what is half done there must be undone when the port goes.
		p.devices[id], holders[r.Device] = r.Device, id
		if err := p.drv.Attach(ctx, id, r.Device); err != nil {
			away = fault.Is(err, fault.Unavailable)
			if ctx.Err() == nil {
				p.fail(id, err.Error())
			}
			continue
		}
		delete(p.faults, id)
	}
	p.tell(ctx, ports)
}

// fail notes why a port cannot be plugged in.
func (p *plug) fail(id model.ID, why string) {
	if p.faults[id] != why {
		p.log.Warn("a port cannot be plugged in", "port", id, "err", why)
	}
	p.faults[id] = why
}

func (p *plug) apply(ctx context.Context) error {
	switch {
	case p.full:
		if err := p.drv.Prune(ctx, maps.Values(p.rows)); err != nil {
			return err
		}
	case len(p.upserts)+len(p.removes) > 0:
		if err := p.drv.Apply(ctx, p.upserts, p.removes); err != nil {
			p.full = true // again, and whole
			p.upserts, p.removes = nil, nil
			return err
		}
	}
	p.full, p.upserts, p.removes = false, nil, nil
	return nil
}

// tell reports the ports whose state is new.
func (p *plug) tell(ctx context.Context, ports map[model.ID]*model.HostPort) {
	var changed []model.PortReport
	for id := range p.told {
		if ports[id] == nil {
			delete(p.told, id)
			delete(p.faults, id)
			p.claims.Forget(id)
		}
	}
	for id, row := range ports {
		r := model.PortReport{PortID: id, Generation: row.Generation, State: model.PortDown, Fault: p.faults[id]}
		if p.drv.Installed(id) && row.AdminStateUp {
			r.State, r.Fault = model.PortActive, ""
		}
		r.Claims, _ = p.claims.Told(id, row.Held, time.Now())
		if !reflect.DeepEqual(p.told[id], r) {
			changed = append(changed, r)
		}
	}
	if len(changed) == 0 {
		return
	}
	if err := p.sink.PortReports(ctx, p.host, changed); err != nil {
		if ctx.Err() == nil {
			p.log.Warn("states of ports are not told yet", "err", err)
		}
		return
	}
	for _, r := range changed {
		p.told[r.PortID] = r
	}
}
