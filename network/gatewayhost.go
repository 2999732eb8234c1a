package network

import (
	"cmp"
	"context"
	"hash/fnv"
	"slices"

	"yakumo/fault"
	"yakumo/model"
	"yakumo/reconcile"
	"yakumo/store"
)

// GatewayPlacer keeps the hosts of every router's gateway: the first serves, the second is a
// warm stand-by. It spreads new ones over all healthy hosts that reach the external network,
// and leaves a gateway where it is as long as its host is healthy, so that established flows
// of other routers are not touched when a host dies or comes back.
type GatewayPlacer struct{ n *Network }

// GatewayPlacer gives the controller.
func (n *Network) GatewayPlacer() *GatewayPlacer { return &GatewayPlacer{n} }

// Name serves reconcile.Controller.
func (*GatewayPlacer) Name() string { return "gateways" }

// Reads serves reconcile.Controller.
func (*GatewayPlacer) Reads() []store.Kind {
	return []store.Kind{store.Routers.Kind(), store.Networks.Kind(), store.Hosts.Kind(), store.Heartbeats.Kind()}
}

// gatewayBatch is how many routers one transaction moves: each is one key compared and one
// written.
const gatewayBatch = 500

// Reconcile gives every gateway its hosts. Gateways that do not serve are moved first.
func (p *GatewayPlacer) Reconcile(ctx context.Context, snap store.Snapshot, w reconcile.Writer) (reconcile.Result, error) {
	moves := plan(snap)
	for batch := range slices.Chunk(moves, gatewayBatch) {
		if _, err := w.Update(ctx, func(tx *store.Tx) error {
			for _, m := range batch {
				old, ok := store.Routers.Get(tx, m.router)
				if !ok || old.Gateway == nil || old.Gateway.NetworkID != m.network {
					continue // it has changed meanwhile; that change calls again
				}
				r := *old
				r.Status.GatewayHosts = m.hosts
				if err := store.Routers.Put(tx, &r); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			return reconcile.Result{}, err
		}
		moved := 0
		for _, m := range batch {
			if m.urgent {
				moved++
			}
		}
		p.n.log.Info("gateways are placed", "routers", len(batch), "serving_elsewhere", moved)
	}
	return reconcile.Result{}, nil
}

// move is a change of one router's gateway hosts.
type move struct {
	router, network model.ID
	hosts           []model.ID
	urgent          bool // it is served elsewhere than before
}

// gatewayHost is a host that gateways may be on.
type gatewayHost struct {
	host            *model.Host
	active, standby int // routers that it serves, and waits for
}

// GatewayHealthy tells whether gateways may be on the host: it is alive, no operator keeps
// it free, and its neighbours hear it.
func GatewayHealthy(r store.Reader, h *model.Host) bool {
	b, alive := glance(store.Heartbeats, r, h.ID)
	return alive && !b.Suspect && !h.ForcedDown && !h.Disabled
}

// Reaches tells whether a host has a way into the external network: the bridge of its
// physical network, or a tunnel where it has none.
func Reaches(h *model.Host, w *model.Network) bool {
	return w.PhysicalNetwork == "" || slices.Contains(h.BridgeMappings, w.PhysicalNetwork)
}

// plan gives the changes that are needed, the urgent ones first.
func plan(snap store.Snapshot) []move {
	healthy := map[model.ID]*gatewayHost{}
	for h := range store.Hosts.All(snap) {
		if GatewayHealthy(snap, h) {
			healthy[h.ID] = &gatewayHost{host: h}
		}
	}
	type outside struct {
		network *model.Network // nil: it is not there
		able    []*gatewayHost // that reach it
	}
	outsides := map[model.ID]*outside{}
	reach := func(id model.ID) *outside {
		o := outsides[id]
		if o == nil {
			o = &outside{}
			outsides[id] = o
			if w, ok := store.Networks.Get(snap, id); ok {
				o.network = w
				for _, h := range healthy {
					if Reaches(h.host, w) {
						o.able = append(o.able, h)
					}
				}
			}
		}
		return o
	}
	type open struct {
		r    *model.Router
		able []*gatewayHost
		keep []*gatewayHost
		want int
	}
	var todo []open
	var moves []move
	for r := range store.Routers.All(snap) {
		if r.Gateway == nil {
			continue
		}
		o := reach(r.Gateway.NetworkID)
		w := o.network
		if w == nil {
			continue
		}
		x := open{r: r, able: o.able, want: 1}
		if r.HA {
			x.want = 2
		}
		x.want = min(x.want, len(x.able))
		for _, id := range r.Status.GatewayHosts {
			if h := healthy[id]; h != nil && Reaches(h.host, w) && len(x.keep) < x.want {
				x.keep = append(x.keep, h)
			}
		}
		for i, h := range x.keep {
			if i == 0 {
				h.active++
			} else {
				h.standby++
			}
		}
		switch {
		case len(x.keep) < x.want:
			todo = append(todo, x)
		case len(x.able) == 0:
			// Nobody is better: a host that is only suspected may still serve.
			if left := lastResort(snap, r, w); !slices.Equal(left, r.Status.GatewayHosts) {
				moves = append(moves, move{router: r.ID, network: w.ID, hosts: left})
			}
		case len(x.keep) != len(r.Status.GatewayHosts) || x.keep[0].host.ID != r.ActiveHost():
			moves = append(moves, moveOf(r, x.keep))
		}
	}
	for _, x := range todo {
		if len(x.keep) == 0 {
			h := least(x.r, x.able, nil, func(h *gatewayHost) int { return h.active })
			h.active++
			x.keep = append(x.keep, h)
		}
		if len(x.keep) < x.want {
			h := least(x.r, x.able, x.keep[0], func(h *gatewayHost) int { return h.standby })
			h.standby++
			x.keep = append(x.keep, h)
		}
		moves = append(moves, moveOf(x.r, x.keep))
	}
	slices.SortStableFunc(moves, func(a, b move) int {
		switch {
		case a.urgent == b.urgent:
			return 0
		case a.urgent:
			return -1
		}
		return 1
	})
	return moves
}

func moveOf(r *model.Router, hosts []*gatewayHost) move {
	m := move{router: r.ID, network: r.Gateway.NetworkID}
	for _, h := range hosts {
		m.hosts = append(m.hosts, h.host.ID)
	}
	m.urgent = m.hosts[0] != r.ActiveHost()
	return m
}

// lastResort keeps of a router's hosts those that are alive and reach the network, though
// they are not healthy.
func lastResort(snap store.Snapshot, r *model.Router, w *model.Network) []model.ID {
	var out []model.ID
	for _, id := range r.Status.GatewayHosts {
		if h, ok := store.Hosts.Get(snap, id); ok && store.HostUp(snap, h) && Reaches(h, w) {
			out = append(out, id)
		}
	}
	return out
}

// least gives the host with the fewest routers: of the zones that the router is meant for
// where there is one there. not is left out.
func least(r *model.Router, hosts []*gatewayHost, not *gatewayHost, load func(*gatewayHost) int) *gatewayHost {
	var best *gatewayHost
	for _, h := range hosts {
		if h != not && (best == nil || better(r, h, best, load)) {
			best = h
		}
	}
	return best
}

func better(r *model.Router, a, b *gatewayHost, load func(*gatewayHost) int) bool {
	if inA, inB := slices.Contains(r.ZoneHints, a.host.Zone), slices.Contains(r.ZoneHints, b.host.Zone); inA != inB {
		return inA
	}
	return cmp.Or(cmp.Compare(load(a), load(b)), cmp.Compare(a.active+a.standby, b.active+b.standby), cmp.Compare(draw(r.ID, a.host.ID), draw(r.ID, b.host.ID)), cmp.Compare(a.host.ID, b.host.ID)) < 0
}

// draw gives equal hosts an order of their own for each router, always the same one.
func draw(router, host model.ID) uint64 {
	h := fnv.New64a()
	h.Write([]byte(router))
	h.Write([]byte(host))
	return h.Sum64()
}

// ServeOn moves a router's gateway to a host, for administrators. It stays there as long as
// the host is healthy.
//
// Errors: fault.NotFound (router, host), fault.Conflict code RouterSchedulingFailed (no
// gateway, or the host is not healthy or does not reach the external network).
func (n *Network) ServeOn(tx *store.Tx, sc Scope, router, host model.ID) error {
	old, w, h, err := n.gatewayOf(tx, sc, router, host)
	if err != nil {
		return err
	}
	if w == nil || !GatewayHealthy(tx, h) || !Reaches(h, w) {
		return fault.Coded(fault.Conflict, "RouterSchedulingFailed", "Failed scheduling router %s to the L3 Agent %s.", router, host)
	}
	if old.ActiveHost() == host {
		return nil
	}
	r := *old
	r.Status.GatewayHosts = []model.ID{host}
	for _, id := range old.Status.GatewayHosts {
		if id != host && r.HA && len(r.Status.GatewayHosts) < 2 {
			r.Status.GatewayHosts = append(r.Status.GatewayHosts, id)
		}
	}
	return store.Routers.Put(tx, &r)
}

// LeaveHost moves a router's gateway away from the host that serves it, for administrators:
// to the one that waits, or another that reaches the external network.
//
// Errors: fault.NotFound (router, host), fault.Conflict codes RouterNotHostedByL3Agent and
// RouterReschedulingFailed (there is no other).
func (n *Network) LeaveHost(tx *store.Tx, sc Scope, router, host model.ID) error {
	old, w, _, err := n.gatewayOf(tx, sc, router, host)
	if err != nil {
		return err
	}
	if w == nil || old.ActiveHost() != host {
		return fault.Coded(fault.Conflict, "RouterNotHostedByL3Agent", "The router %s is not hosted by L3 agent %s.", router, host)
	}
	next := ""
	able := func(h *model.Host) bool { return h.ID != host && GatewayHealthy(tx, h) && Reaches(h, w) }
	for _, id := range old.Status.GatewayHosts {
		if h, ok := store.Hosts.Get(tx, id); ok && next == "" && able(h) {
			next = id
		}
	}
	if next == "" {
		load := -1
		for h := range store.Hosts.All(tx) {
			if !able(h) {
				continue
			}
			if c := store.Routers.Count(tx, "gateway_host", h.ID); load < 0 || c < load {
				next, load = h.ID, c
			}
		}
	}
	if next == "" {
		return fault.Coded(fault.Conflict, "RouterReschedulingFailed", "Failed rescheduling router %s: no eligible l3 agent found.", router)
	}
	r := *old
	r.Status.GatewayHosts = []model.ID{next}
	if r.HA {
		r.Status.GatewayHosts = append(r.Status.GatewayHosts, host)
	}
	return store.Routers.Put(tx, &r)
}

// gatewayOf gives a router, the network of its gateway (nil: it has none), and a host.
func (n *Network) gatewayOf(tx *store.Tx, sc Scope, router, host model.ID) (*model.Router, *model.Network, *model.Host, error) {
	r, err := n.GetRouter(tx, sc, router)
	if err != nil {
		return nil, nil, nil, err
	}
	h, ok := store.Hosts.Get(tx, host)
	if !ok {
		return nil, nil, nil, fault.Coded(fault.NotFound, "AgentNotFound", "Agent %s could not be found.", clip(host))
	}
	if r.Gateway == nil {
		return r, nil, h, nil
	}
	w, _ := store.Networks.Get(tx, r.Gateway.NetworkID)
	return r, w, h, nil
}
