package volume

import (
	"cmp"
	"context"
	"slices"

	"yakumo/fault"
	"yakumo/model"
	"yakumo/reconcile"
	"yakumo/store"
)

// Placer gives every new volume the host whose agent works on it. It is the only one that does, and only one process
// runs it (package reconcile), so that what it accounts for in a pass is what is promised.
type Placer struct{ v *Volumes }

// Placer gives the controller.
func (v *Volumes) Placer() *Placer { return &Placer{v} }

// Name serves reconcile.Controller.
func (*Placer) Name() string { return "volumes" }

// Reads serves reconcile.Controller.
func (*Placer) Reads() []store.Kind {
	return []store.Kind{store.Volumes.Kind(), store.Hosts.Kind(), store.Heartbeats.Kind()}
}

// Room is what a host has for volumes, GiB.
type Room struct {
	Host        *model.Host
	Up          bool
	Total, Free int // Free may be below 0
}

// Rooms gives what every host that knows an engine has for its volumes, by name. Of an engine whose bytes are not on
// the host, and that does not tell, all is free.
func Rooms(r store.Reader, engine string) []Room {
	var out []Room
	for h := range store.Hosts.All(r) {
		if h.Switch != nil || !slices.Contains(h.Engines, engine) {
			continue
		}
		room := Room{Host: h, Up: store.HostUp(r, h) && !h.Disabled && !h.Draining, Total: h.Capacity.DiskGiB}
		said, told := h.Rooms[engine]
		switch {
		case told:
			room.Total = said.TotalGiB
		case engine != model.EngineLocal:
			room.Total = MaxSizeGiB
		}
		room.Free = room.Total
		if engine == model.EngineLocal {
			room.Free -= store.Volumes.Sum(r, "host", h.ID).Amounts[0] + store.Servers.Sum(r, "host", h.ID).Amounts[2]
		} else {
			for x := range store.Volumes.List(r, "host", h.ID) {
				if x.InAt(engine, h.ID) {
					room.Free -= x.SizeGiB
				}
			}
		}
		if told && engine != model.EngineLocal { // others use the same storage
			room.Free = min(room.Free, said.FreeGiB)
		}
		out = append(out, room)
	}
	slices.SortFunc(out, func(a, b Room) int { return cmp.Compare(a.Host.Name, b.Host.Name) })
	return out
}

// placement is what is decided of one volume.
type placement struct {
	volume, host model.ID
	reason       string // where there is no host
}

// Reconcile places what waits, the oldest first: on the host of its zone with the most room, for engines whose bytes
// are not on the host the one with the fewest volumes.
func (p *Placer) Reconcile(ctx context.Context, snap store.Snapshot, w reconcile.Writer) (reconcile.Result, error) {
	var waiting []*model.Volume
	for x := range store.Volumes.List(snap, "state", Creating) {
		if x.Host == "" && !x.Deleted {
			waiting = append(waiting, x)
		}
	}
	if len(waiting) == 0 {
		return reconcile.Result{}, nil
	}
	slices.SortStableFunc(waiting, func(a, b *model.Volume) int { return a.CreatedAt.Compare(b.CreatedAt) })
	rooms := map[string][]Room{}
	var out []placement
	result := reconcile.Result{}
	for _, x := range waiting {
		if _, ok := rooms[x.Engine]; !ok {
			rooms[x.Engine] = Rooms(snap, x.Engine)
		}
		best, why := choose(rooms[x.Engine], x)
		switch {
		case best != nil:
			best.Free -= x.SizeGiB
			out = append(out, placement{volume: x.ID, host: best.Host.ID})
		case p.v.now().Sub(x.CreatedAt) < p.v.cfg.Wait:
			result.After = p.v.cfg.Wait / 8 // a host may come back
		default:
			out = append(out, placement{volume: x.ID, reason: why})
		}
	}
	for part := range slices.Chunk(out, 64) {
		if _, err := w.Update(ctx, func(tx *store.Tx) error { return p.v.place(tx, part) }); err != nil {
			return reconcile.Result{}, err
		}
	}
	return result, nil
}

func choose(rooms []Room, x *model.Volume) (*Room, string) {
	var best *Room
	down, elsewhere, full := 0, 0, 0
	for i := range rooms {
		switch r := &rooms[i]; {
		case !r.Up:
			down++
		case x.Zone != r.Host.Zone:
			elsewhere++
		case r.Free < x.SizeGiB:
			full++
		case best == nil || r.Free > best.Free:
			best = r
		}
	}
	switch {
	case best != nil:
		return best, ""
	case len(rooms) == 0:
		return nil, "no host has the engine " + x.Engine
	case full > 0:
		return nil, "no host has enough room"
	case elsewhere > 0:
		return nil, "no host is in the availability zone"
	case down > 0:
		return nil, "every host is down or disabled"
	}
	return nil, ""
}

// place commits what was decided. A volume that has changed its mind meanwhile is left out.
func (v *Volumes) place(tx *store.Tx, part []placement) error {
	for _, d := range part {
		old, ok := store.Volumes.Get(tx, d.volume)
		if !ok || old.Deleted || old.Host != "" || old.Status.State != Creating {
			continue
		}
		x := copyOf(old)
		x.UpdatedAt = v.now()
		if d.host == "" {
			x.Status.State = Errored
			x.Status.Fault = &model.Fault{Code: 500, Message: "No weighed backends available: " + d.reason + ".", At: v.now()}
			v.log.Warn("no host for a volume", "volume", x.ID, "reason", d.reason, "request_id", x.RequestID)
			if id := x.Filling().BackupID; id != "" {
				if err := v.restored(tx, id, x.Status.Fault); err != nil {
					return err
				}
			}
		} else {
			h, there := store.Hosts.Get(tx, d.host)
			if !there {
				return fault.New(fault.Unavailable, "A host was removed while it was being chosen.") // the next pass chooses again
			}
			tx.Mark(store.HostGuard(h.ID))
			x.Host = h.ID
			x.Touch(v.now())
			v.log.Info("volume placed", "volume", x.ID, "host", h.Name, "request_id", x.RequestID)
		}
		if err := store.Volumes.Put(tx, x); err != nil {
			return err
		}
	}
	return nil
}
