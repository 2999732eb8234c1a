package compute

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"yakumo/fault"
	"yakumo/model"
	"yakumo/placement"
	"yakumo/reconcile"
	"yakumo/store"
)

// Placer gives every server in PhasePlacing a host, or the reason why there is none. It
// is the only one that does, and only one process runs it (package reconcile), so that
// what it accounts for in a pass is what is promised.
type Placer struct{ c *Compute }

// Placer gives the placement controller.
func (c *Compute) Placer() *Placer { return &Placer{c} }

// Name serves reconcile.Controller.
func (*Placer) Name() string { return "placement" }

// Reads serves reconcile.Controller.
func (*Placer) Reads() []store.Kind { return []store.Kind{store.Servers.Kind(), store.Volumes.Kind()} }

// batch is how many servers one transaction places: with their actions and ports well
// below what a transaction may touch.
const (
	batch      = 32
	batchPorts = 128
)

// Reconcile places what waits, the oldest first.
func (p *Placer) Reconcile(ctx context.Context, snap store.Snapshot, w reconcile.Writer) (reconcile.Result, error) {
	var waiting []*model.Server
	for s := range store.Servers.List(snap, "phase", string(model.PhasePlacing)) {
		if s.Host != "" || s.Deleted {
			continue
		}
		// Its volumes are made first: one that fails is known before anything is promised.
		switch ready, f := p.c.volumesReady(snap, s); {
		case f != nil:
			if err := p.write(ctx, w, []plan{{s.ID, s.RequestID, nil, unbuilt{f}}}); err != nil {
				return reconcile.Result{}, err
			}
		case ready:
			waiting = append(waiting, s)
		}
	}
	for s := range store.Servers.List(snap, "moving", string(model.MovePlacing)) {
		if !s.Deleted {
			waiting = append(waiting, s)
		}
	}
	if len(waiting) == 0 {
		return reconcile.Result{}, nil
	}
	defer func(start time.Time) { p.c.metrics.passes.Observe(time.Since(start).Seconds()) }(time.Now())
	slices.SortStableFunc(waiting, func(a, b *model.Server) int { return a.CreatedAt.Compare(b.CreatedAt) })
	pool := p.c.Pool(snap)
	for len(waiting) > 0 {
		n, ports := 0, 0
		for n < len(waiting) && n < batch && (n == 0 || ports+len(waiting[n].Ports) <= batchPorts) {
			ports += len(waiting[n].Ports)
			n++
		}
		plans := make([]plan, 0, n)
		for _, s := range waiting[:n] {
			req := RequestOf(snap, s)
			h, err := pool.Place(req)
			if err == nil {
				pool.Take(h.ID, req)
			}
			plans = append(plans, plan{s.ID, s.RequestID, h, err})
		}
		waiting = waiting[n:]
		if err := p.write(ctx, w, plans); err != nil {
			return reconcile.Result{}, err
		}
		for _, pl := range plans {
			if pl.host != nil {
				p.c.metrics.placed.WithLabelValues("placed").Inc()
				p.c.log.Info("server placed", "server", pl.server, "host", pl.host.Name, "request_id", pl.request)
			} else {
				p.c.metrics.placed.WithLabelValues("refused").Inc()
				p.c.log.Warn("no host for a server", "server", pl.server, "request_id", pl.request, "err", pl.err)
			}
		}
	}
	return reconcile.Result{}, nil
}

// write commits plans with one transaction, or with several where they touch too much: the
// subports of trunks go with their parents.
func (p *Placer) write(ctx context.Context, w reconcile.Writer, plans []plan) error {
	_, err := w.Update(ctx, func(tx *store.Tx) error { return p.c.commit(tx, plans) })
	if fault.Is(err, fault.TooLarge) && len(plans) > 1 {
		half := len(plans) / 2
		if err := p.write(ctx, w, plans[:half]); err != nil {
			return err
		}
		return p.write(ctx, w, plans[half:])
	}
	return err
}

// RequestOf gives what a server needs of a host: of its first, or of the one that it is to move to.
func RequestOf(r store.Reader, s *model.Server) placement.Request {
	if m := s.Move; m != nil && m.Stage == model.MovePlacing {
		t := copyOf(s)
		if m.NewFlavor != nil {
			t.Flavor = *m.NewFlavor
		}
		// The host of its creation is asked for no more; a host of another hypervisor cannot take its guest.
		req := placement.Request{Size: placement.SizeOf(t), Zone: cmp.Or(m.Zone, zoneOf(r, s)), Host: m.Want, Arch: s.Arch, Exclude: append([]model.ID{m.Source}, m.Failed...), Need: needOf(r, s), Wish: wishOf(r, t)}
		if source, ok := store.Hosts.Get(r, m.Source); ok && m.Kind != model.MoveEvacuate {
			req.Wish.Hypervisor = source.Capacity.HypervisorType
		}
		return req
	}
	return placement.Request{Size: placement.SizeOf(s), Zone: zoneOf(r, s), Host: s.WantHost, Arch: s.Arch, Exclude: s.Status.Failed, Need: needOf(r, s), Wish: wishOf(r, s)}
}

// zoneOf gives the zone that a server is to be in: the one that was asked for, else that of its project's environment; "" any.
func zoneOf(r store.Reader, s *model.Server) string {
	if e, ok := store.Environments.Get(r, s.ProjectID); ok && s.Zone == "" {
		return e.Zone
	}
	return s.Zone
}

// needOf gives what a server's ports, and the subports of their trunks, need of a host.
func needOf(r store.Reader, s *model.Server) placement.Need {
	var need placement.Need
	add := func(p *model.Port) {
		w, ok := store.Networks.Get(r, p.NetworkID)
		if !ok {
			return
		}
		if w.PhysicalNetwork != "" && !slices.Contains(need.Networks, w.PhysicalNetwork) {
			need.Networks = append(need.Networks, w.PhysicalNetwork)
		}
		policy, _ := store.QoSPolicies.Get(r, model.PolicyOf(p, w))
		for t, n := range policy.Minimum(w) {
			if need.Bandwidth == nil {
				need.Bandwidth = map[model.Traffic]int{}
			}
			need.Bandwidth[t] += n
		}
	}
	for _, id := range s.Ports {
		p, ok := store.Ports.Get(r, id)
		if !ok {
			continue
		}
		add(p)
		if p.TrunkID != "" {
			for sub := range store.Ports.List(r, "parent", id) {
				add(sub)
			}
		}
	}
	return need
}

// Pool gives the hosts with what is used of them.
func (c *Compute) Pool(r store.Reader) *placement.Pool {
	var hosts []*placement.Host
	promised := store.Promises(r)
	for h := range store.Hosts.All(r) {
		if h.Switch != nil { // it runs no guests
			continue
		}
		used, _ := Used(r, h.ID)
		used.DiskGiB += store.Volumes.Sum(r, "host", h.ID).Amounts[0] // local ones
		var aggregates []map[string]string
		for a := range store.Aggregates.List(r, "host", h.ID) {
			aggregates = append(aggregates, a.Metadata)
		}
		hosts = append(hosts, &placement.Host{
			Hypervisor: h.Capacity.HypervisorType, Features: h.Capacity.Features, Aggregates: aggregates,
			ID: h.ID, Name: h.Name, Zone: h.Zone, Up: store.HostUp(r, h), Disabled: h.Disabled, Arch: h.Capacity.Arch,
			Capacity: placement.CapacityOf(&h.Capacity), Used: used, Threads: h.Capacity.Threads, Seats: seats(r, h),
			UEFI: h.Capacity.UEFI, SecureBoot: h.Capacity.SecureBoot, TPM: h.Capacity.TPM,
			Link: placement.Link{Networks: h.BridgeMappings, Capacity: h.Bandwidth, Promised: promised[h.ID]},
		})
	}
	return placement.NewPool(c.cfg.Ratios, hosts)
}

type plan struct {
	server  model.ID
	request string // that asked for the server
	host    *placement.Host
	err     error // a *placement.Refusal where host is nil
}

// commit writes plans. A server that has changed its mind meanwhile is left out.
func (c *Compute) commit(tx *store.Tx, plans []plan) error {
	for _, pl := range plans {
		old, ok := store.Servers.Get(tx, pl.server)
		if ok && !old.Deleted && old.Move != nil && old.Move.Stage == model.MovePlacing {
			s := copyOf(old)
			if err := c.placedMove(tx, s, pl); err != nil {
				return err
			}
			s.Touch(c.now())
			if err := store.Servers.Put(tx, s); err != nil {
				return err
			}
			continue
		}
		if !ok || old.Deleted || old.Host != "" || old.Status.Phase != model.PhasePlacing {
			continue
		}
		s := copyOf(old)
		now := c.now()
		ev := model.ActionEvent{Event: string(model.StepPlace), StartedAt: s.UpdatedAt, FinishedAt: now}
		if pl.host == nil && s.Shelving == model.Offloaded {
			refusal := *s
			c.refused(&refusal, pl.err)
			if err := c.reshelve(tx, s, refusal.Status.Fault.Message); err != nil {
				return err
			}
			if err := store.Servers.Put(tx, s); err != nil {
				return err
			}
			continue
		}
		if pl.host == nil {
			c.refused(s, pl.err)
			ev.Result, ev.Details = Failure, s.Status.Fault.Message
			if err := errors.Join(c.step(tx, s, ev), c.end(tx, s, s.Status.Fault.Message)); err != nil {
				return err
			}
			if err := store.Servers.Put(tx, s); err != nil {
				return err
			}
			continue
		}
		if _, there := store.Hosts.Get(tx, pl.host.ID); !there {
			return fault.New(fault.Unavailable, "Host %s was removed while it was being chosen.", pl.host.Name) // the next pass chooses again
		}
		tx.Mark(store.HostGuard(pl.host.ID))
		ev.Result, ev.Host = Success, pl.host.ID
		s.Host, s.Status.Phase, s.Status.Task = pl.host.ID, model.PhaseFetching, TaskSpawning
		s.Touch(now)
		for _, id := range s.Ports {
			if _, err := c.cfg.Ports.BindPort(tx, id, s.Host); err != nil && !fault.Is(err, fault.NotFound) {
				return err
			}
		}
		if err := c.step(tx, s, ev); err != nil {
			return err
		}
		if err := store.Servers.Put(tx, s); err != nil {
			return err
		}
	}
	return nil
}

// refused makes an error of a refusal: the tenant reads the kinds of constraints, an
// administrator each host's.
func (c *Compute) refused(s *model.Server, err error) {
	f := &model.Fault{Code: 500, Message: "No valid host was found. There are not enough hosts available: " + err.Error() + ".", At: c.now()}
	var r *placement.Refusal
	if errors.As(err, &r) {
		f.Details = r.Details()
	}
	if last := s.Status.Fault; last != nil && len(s.Status.Failed) > 0 {
		f.Message = "No valid host was found. Exceeded the hosts that could start the server: " + last.Message
		f.Details += "last failure: " + last.Message + "\n" + last.Details
	}
	var u unbuilt
	if errors.As(err, &u) {
		f = u.Fault
	}
	s.Status.Phase, s.Status.Fault = model.PhaseError, f
	s.UpdatedAt = f.At
}
