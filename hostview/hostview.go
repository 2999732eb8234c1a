// Package hostview knows what each host must know: which rows of the cloud reach it, and
// in which form. A host is told of its own servers and ports, of the networks that have a
// port there, of those networks' ports elsewhere, of the groups of its ports, and of the
// members of groups that those groups' rules refer to; nothing else.
//
// It reads servers, ports, networks, subnets, security groups and rules, and hosts; it
// writes nothing. A change costs work on the hosts that it concerns and on no others: one
// Engine follows the store for all hosts and marks rows of views as dirty; a View works its
// marks off against the newest snapshot. Every row is a pure function of the snapshot, so a
// mark too many costs a comparison and no more.
//
// May import: model, store, link (for the View interface). Must not import: a part, api, agent, datapath.
package hostview

import (
	"context"
	"encoding/json"
	"hash/maphash"
	"iter"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"yakumo/link"
	"yakumo/model"
	"yakumo/store"
)

// Engine follows the store for all hosts of this server process.
type Engine struct {
	st   *store.Store
	log  *slog.Logger
	seed maphash.Seed

	// gate keeps looking and dispatching apart: a view looks at current and works its marks
	// off under RLock; a delta becomes current and marks all that it may have changed under
	// Lock. So a view never sees a row ahead of the marks that come with it, and what it
	// registers below is there for the next delta. Taken before mu, mu before a view's mu.
	gate    sync.RWMutex
	current store.Snapshot
	sub     *store.Subscription // nil before Run

	mu       sync.Mutex
	views    map[model.ID]map[*view]struct{} // by host; a host that attached anew may have two for a moment
	networks viewSet                         // which views have sent the network
	groups   viewSet                         // which have sent the group
	needing  viewSet                         // which need the members of the group
}

// viewSet tells by id which views are concerned.
type viewSet map[model.ID]map[*view]struct{}

func (s viewSet) add(id model.ID, v *view) {
	if s[id] == nil {
		s[id] = map[*view]struct{}{}
	}
	s[id][v] = struct{}{}
}

func (s viewSet) drop(id model.ID, v *view) {
	delete(s[id], v)
	if len(s[id]) == 0 {
		delete(s, id)
	}
}

// NewEngine makes an Engine; Run must be running for views to move.
func NewEngine(st *store.Store, log *slog.Logger) *Engine {
	return &Engine{st: st, log: log, current: st.Snapshot(), seed: maphash.MakeSeed(), views: map[model.ID]map[*view]struct{}{},
		networks: viewSet{}, groups: viewSet{}, needing: viewSet{}}
}

// Run follows the store until ctx ends.
func (e *Engine) Run(ctx context.Context) error {
	sub := e.st.Subscribe(store.Servers.Kind(), store.Ports.Kind(), store.Networks.Kind(), store.Subnets.Kind(),
		store.SecurityGroups.Kind(), store.SecurityRules.Kind(), store.Hosts.Kind())
	defer sub.Close()
	for {
		// sub is set once the first delta, which marks everything, is being worked off.
		d, err := sub.Next(ctx)
		if err != nil {
			return err
		}
		e.gate.Lock()
		e.current, e.sub = d.Snapshot, sub
		e.mu.Lock()
		if d.First {
			for _, vs := range e.views {
				for v := range vs {
					v.mark(all)
				}
			}
		}
		for _, c := range d.Changes {
			e.dispatch(d.Snapshot, c)
		}
		e.mu.Unlock()
		e.gate.Unlock()
	}
}

// mark marks rows for a host, where it is attached here.
func (e *Engine) mark(host model.ID, ids ...model.RowID) {
	for v := range e.views[host] {
		v.mark(ids...)
	}
}

// all is the mark of "look at everything".
var all = model.RowID{}

func row(kind model.RowKind, key string) model.RowID { return model.RowID{Kind: kind, Key: key} }

// dispatch marks what a change may have changed, in the views that it may concern: those of
// the hosts that the row names, and those that have sent, or need, what it belongs to. The
// caller holds gate and mu.
func (e *Engine) dispatch(snap store.Snapshot, c store.Change) {
	switch c.Kind {
	case store.Servers.Kind():
		for _, r := range both[model.Server](c) {
			e.mark(r.Host, row(model.RowServer, r.ID))
		}
		for p := range store.Ports.List(snap, "device", c.Key) { // the host name in DHCP
			e.mark(p.Host, row(model.RowPort, p.ID))
		}
	case store.Ports.Kind():
		e.portChanged(snap, both[model.Port](c))
	case store.Networks.Kind():
		for _, r := range both[model.Network](c) {
			e.networkChanged(snap, r.ID, true)
		}
	case store.Subnets.Kind():
		for _, r := range both[model.Subnet](c) {
			e.networkChanged(snap, r.NetworkID, false)
		}
	case store.SecurityGroups.Kind():
		rs := both[model.SecurityGroup](c)
		e.groupChanged(c.Key)
		if len(rs) == 2 && rs[0].Name != rs[1].Name { // servers are told the names of their groups
			for p := range store.Ports.List(snap, "group", c.Key) {
				e.mark(p.Host, row(model.RowServer, p.DeviceID))
			}
		}
	case store.SecurityRules.Kind():
		for _, r := range both[model.SecurityRule](c) {
			e.groupChanged(r.GroupID)
		}
	case store.Hosts.Kind():
		old, _ := c.Old.(*model.Host)
		now, _ := c.New.(*model.Host)
		if old != nil && now != nil && old.TunnelIP == now.TunnelIP {
			return
		}
		for p := range store.Ports.List(snap, "host", c.Key) {
			for v := range e.networks[p.NetworkID] {
				v.mark(row(model.RowPeer, p.ID), row(model.RowNetwork, p.NetworkID))
			}
		}
	}
}

// both gives the old and the new row of a change, where they are.
func both[T any](c store.Change) []*T {
	var out []*T
	if r, ok := c.Old.(*T); ok && r != nil {
		out = append(out, r)
	}
	if r, ok := c.New.(*T); ok && r != nil {
		out = append(out, r)
	}
	return out
}

func (e *Engine) portChanged(snap store.Snapshot, ps []*model.Port) {
	moved := len(ps) == 1 || ps[0].Host != ps[1].Host || ps[0].NetworkID != ps[1].NetworkID
	seen := moved || ps[0].MAC != ps[1].MAC || !slices.Equal(ps[0].FixedIPs, ps[1].FixedIPs) || !slices.Equal(ps[0].Pairs, ps[1].Pairs)
	regrouped := len(ps) == 1 || !slices.Equal(ps[0].Groups, ps[1].Groups)
	for _, p := range ps {
		e.mark(p.Host, row(model.RowPort, p.ID), row(model.RowNetwork, p.NetworkID))
		if s, ok := store.Servers.Get(snap, p.DeviceID); ok {
			e.mark(s.Host, row(model.RowServer, s.ID))
		}
		for _, g := range p.Groups {
			e.mark(p.Host, row(model.RowGroup, g))
		}
		if seen {
			for v := range e.networks[p.NetworkID] {
				v.mark(row(model.RowPeer, p.ID))
				if moved {
					v.mark(row(model.RowNetwork, p.NetworkID))
				}
			}
		}
		if seen || regrouped {
			for _, g := range p.Groups {
				for v := range e.needing[g] {
					v.mark(row(model.RowMember, g+","+p.ID))
				}
			}
		}
	}
}

func (e *Engine) networkChanged(snap store.Snapshot, network model.ID, ports bool) {
	for v := range e.networks[network] {
		v.mark(row(model.RowNetwork, network))
		if !ports {
			continue
		}
		// The admin state and the MTU of a network are in its ports' and servers' rows.
		for p := range store.Ports.List(snap, "network_host", network+","+v.host) {
			v.mark(row(model.RowPort, p.ID))
			if s, ok := store.Servers.Get(snap, p.DeviceID); ok {
				e.mark(s.Host, row(model.RowServer, s.ID))
			}
		}
	}
}

func (e *Engine) groupChanged(group model.ID) {
	for v := range e.groups[group] {
		v.mark(row(model.RowGroup, group))
	}
}

// hostsOf gives the hosts that have a port of the network, each once, by seeking from one
// to the next.
func hostsOf(snap store.Snapshot, network model.ID) iter.Seq[model.ID] {
	return func(yield func(model.ID) bool) {
		from := network + ","
		for {
			host := ""
			for p := range store.Ports.Seek(snap, "network_host", network+",", from) {
				host = p.Host
				break
			}
			if host == "" || !yield(host) {
				return
			}
			from = network + "," + host + "\x01"
		}
	}
}

// Open opens the view of a host.
func (e *Engine) Open(host model.ID) link.View {
	v := &view{e: e, host: host, dirty: map[model.RowID]struct{}{all: {}}, ready: make(chan struct{}, 1)}
	v.ready <- struct{}{}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.views[host] == nil {
		e.views[host] = map[*view]struct{}{}
	}
	e.views[host][v] = struct{}{}
	return v
}

// view is one host's. Next is called by one goroutine.
type view struct {
	e    *Engine
	host model.ID

	mu    sync.Mutex
	dirty map[model.RowID]struct{}
	ready chan struct{}

	sent    map[model.RowID]uint64             // hash of what the host has
	peers   map[model.ID]map[model.ID]struct{} // network → ports sent as peers
	peerNet map[model.ID]model.ID              // port sent as a peer → its network
	members map[model.ID]map[model.ID]struct{} // group → ports sent as members
	remotes map[model.ID][]model.ID            // group sent → groups its rules refer to
	needed  map[model.ID]int                   // group → groups sent that refer to it
}

func (v *view) mark(ids ...model.RowID) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, id := range ids {
		v.dirty[id] = struct{}{}
	}
	select {
	case v.ready <- struct{}{}:
	default:
	}
}

// Close ends the view.
func (v *view) Close() {
	v.e.mu.Lock()
	defer v.e.mu.Unlock()
	v.forget()
	delete(v.e.views[v.host], v)
	if len(v.e.views[v.host]) == 0 {
		delete(v.e.views, v.host)
	}
}

// Next waits for marks and works them off.
func (v *view) Next(ctx context.Context) (model.HostBatch, error) {
	for {
		select {
		case <-v.ready:
		case <-ctx.Done():
			return model.HostBatch{}, ctx.Err()
		}
		if b := v.look(); b.Full || len(b.Upserts)+len(b.Removes) > 0 {
			return b, nil
		}
	}
}

// look works off what is marked.
func (v *view) look() model.HostBatch {
	v.e.gate.RLock()
	defer v.e.gate.RUnlock()
	v.mu.Lock()
	dirty := v.dirty
	v.dirty = map[model.RowID]struct{}{}
	v.mu.Unlock()
	snap := v.e.current
	if v.e.sub != nil {
		// Where nothing that concerns hosts has changed since, say so with the newest revision: a
		// host that another server told of it would refuse an older one.
		if newest, idle := v.e.sub.Idle(); idle {
			snap = newest
		}
	}
	b := model.HostBatch{Generation: snap.Revision()}
	if _, everything := dirty[all]; everything {
		b.Full = true
		v.e.mu.Lock()
		v.forget()
		v.e.mu.Unlock()
		v.sent, v.peers, v.members = map[model.RowID]uint64{}, map[model.ID]map[model.ID]struct{}{}, map[model.ID]map[model.ID]struct{}{}
		v.remotes, v.needed, v.peerNet = map[model.ID][]model.ID{}, map[model.ID]int{}, map[model.ID]model.ID{}
		dirty = v.everything(snap)
	}
	v.work(snap, dirty, &b)
	return b
}

// forget takes the view out of the engine's sets. The caller holds the engine's mu.
func (v *view) forget() {
	for id := range v.sent {
		switch id.Kind {
		case model.RowNetwork:
			v.e.networks.drop(id.Key, v)
		case model.RowGroup:
			v.e.groups.drop(id.Key, v)
		}
	}
	for g := range v.needed {
		v.e.needing.drop(g, v)
	}
}

// everything marks the roots of what the host must know; work finds the rest.
func (v *view) everything(snap store.Snapshot) map[model.RowID]struct{} {
	dirty := map[model.RowID]struct{}{}
	for s := range store.Servers.List(snap, "host", v.host) {
		dirty[row(model.RowServer, s.ID)] = struct{}{}
	}
	for p := range store.Ports.List(snap, "host", v.host) {
		dirty[row(model.RowPort, p.ID)] = struct{}{}
		dirty[row(model.RowNetwork, p.NetworkID)] = struct{}{}
		for _, g := range p.Groups {
			dirty[row(model.RowGroup, g)] = struct{}{}
		}
	}
	return dirty
}

// work looks at the marked rows. Networks come before peers and groups before members,
// as the first decide which of the second are wanted.
func (v *view) work(snap store.Snapshot, dirty map[model.RowID]struct{}, b *model.HostBatch) {
	for _, kind := range []model.RowKind{model.RowNetwork, model.RowGroup, model.RowPeer, model.RowMember, model.RowPort, model.RowServer} {
		var keys []string
		for id := range dirty {
			if id.Kind == kind {
				keys = append(keys, id.Key)
			}
		}
		slices.Sort(keys)
		for _, key := range keys {
			id := row(kind, key)
			r := v.row(snap, id)
			_, had := v.sent[id]
			switch kind {
			case model.RowNetwork:
				if (r != nil) != had {
					v.peersOf(snap, key, dirty)
				}
			case model.RowGroup:
				v.regroup(snap, key, r, dirty)
			}
			v.put(id, r, b)
		}
	}
}

// put adds the row to the batch where the host has it not, or not so.
func (v *view) put(id model.RowID, r model.HostRow, b *model.HostBatch) {
	old, had := v.sent[id]
	if r == nil {
		if had {
			delete(v.sent, id)
			v.track(id, nil)
			b.Removes = append(b.Removes, id)
		}
		return
	}
	body, err := json.Marshal(r)
	if err != nil {
		v.e.log.Error("a row cannot be encoded and is not sent", "row", id, "err", err)
		return
	}
	h := maphash.Bytes(v.e.seed, body)
	if had && h == old {
		return
	}
	v.sent[id] = h
	v.track(id, r)
	b.Upserts = append(b.Upserts, r)
}

// track keeps the sets of peers and members that the host has; r is nil where the row has gone.
func (v *view) track(id model.RowID, r model.HostRow) {
	var set map[model.ID]map[model.ID]struct{}
	var outer, inner model.ID
	switch id.Kind {
	case model.RowPeer:
		set, outer, inner = v.peers, v.peerNet[id.Key], id.Key
		if p, ok := r.(*model.HostPeer); ok {
			outer = p.NetworkID
			v.peerNet[inner] = outer
		} else {
			delete(v.peerNet, inner)
		}
	case model.RowMember:
		group, port, _ := strings.Cut(id.Key, ",")
		set, outer, inner = v.members, group, port
	case model.RowNetwork:
		v.register(v.e.networks, id.Key, r != nil)
		return
	case model.RowGroup:
		v.register(v.e.groups, id.Key, r != nil)
		return
	default:
		return
	}
	if r == nil {
		delete(set[outer], inner)
		if len(set[outer]) == 0 {
			delete(set, outer)
		}
		return
	}
	if set[outer] == nil {
		set[outer] = map[model.ID]struct{}{}
	}
	set[outer][inner] = struct{}{}
}

// register tells the engine whether the view is concerned with the id.
func (v *view) register(s viewSet, id model.ID, is bool) {
	v.e.mu.Lock()
	defer v.e.mu.Unlock()
	if is {
		s.add(id, v)
	} else {
		s.drop(id, v)
	}
}

// peersOf marks every peer of a network that has come or gone.
func (v *view) peersOf(snap store.Snapshot, network model.ID, dirty map[model.RowID]struct{}) {
	for p := range store.Ports.Prefix(snap, "network_host", network+",") {
		dirty[row(model.RowPeer, p.ID)] = struct{}{}
	}
	for p := range v.peers[network] {
		dirty[row(model.RowPeer, p)] = struct{}{}
	}
}

// regroup counts which groups' members are needed, and marks those that are so newly or no more.
func (v *view) regroup(snap store.Snapshot, group model.ID, r model.HostRow, dirty map[model.RowID]struct{}) {
	var now []model.ID
	if g, ok := r.(*model.HostGroup); ok {
		for _, rule := range g.Rules {
			if rule.RemoteGroupID != "" && !slices.Contains(now, rule.RemoteGroupID) {
				now = append(now, rule.RemoteGroupID)
			}
		}
	}
	before := v.remotes[group]
	for _, g := range now {
		if !slices.Contains(before, g) {
			if v.needed[g]++; v.needed[g] == 1 {
				v.register(v.e.needing, g, true)
				for p := range store.Ports.List(snap, "group", g) {
					dirty[row(model.RowMember, g+","+p.ID)] = struct{}{}
				}
			}
		}
	}
	for _, g := range before {
		if !slices.Contains(now, g) {
			if v.needed[g]--; v.needed[g] == 0 {
				delete(v.needed, g)
				v.register(v.e.needing, g, false)
				for p := range v.members[g] {
					dirty[row(model.RowMember, g+","+p)] = struct{}{}
				}
			}
		}
	}
	if v.remotes[group] = now; len(now) == 0 {
		delete(v.remotes, group)
	}
}

// row makes a row as it should be on this host, nil where it should not be there.
func (v *view) row(snap store.Snapshot, id model.RowID) model.HostRow {
	switch id.Kind {
	case model.RowServer:
		if s, ok := store.Servers.Get(snap, id.Key); ok && s.Host == v.host {
			return serverRow(snap, s)
		}
	case model.RowPort:
		if p, ok := store.Ports.Get(snap, id.Key); ok && p.Host == v.host {
			return portRow(snap, p)
		}
	case model.RowNetwork:
		if store.Ports.Count(snap, "network_host", id.Key+","+v.host) > 0 {
			return networkRow(snap, id.Key, v.host)
		}
	case model.RowGroup:
		if store.Ports.Count(snap, "host_group", v.host+","+id.Key) > 0 {
			return groupRow(snap, id.Key)
		}
	case model.RowPeer:
		return v.peerRow(snap, id.Key)
	case model.RowMember:
		return v.memberRow(snap, id.Key)
	}
	return nil
}

func (v *view) peerRow(snap store.Snapshot, key string) model.HostRow {
	p, ok := store.Ports.Get(snap, key)
	if !ok || p.Host == "" || p.Host == v.host {
		return nil
	}
	if _, here := v.sent[row(model.RowNetwork, p.NetworkID)]; !here {
		return nil
	}
	n, ok := store.Networks.Get(snap, p.NetworkID)
	h, up := store.Hosts.Get(snap, p.Host)
	if !ok || !up || !h.TunnelIP.IsValid() {
		return nil
	}
	return &model.HostPeer{ID: p.ID, NetworkID: p.NetworkID, VNI: n.VNI, MAC: p.MAC, Addresses: p.Addresses(), Pairs: p.Pairs, TunnelIP: h.TunnelIP}
}

func (v *view) memberRow(snap store.Snapshot, key string) model.HostRow {
	group, port, _ := strings.Cut(key, ",")
	p, ok := store.Ports.Get(snap, port)
	if !ok || v.needed[group] == 0 || !p.InGroup(group) {
		return nil
	}
	var prefixes []netip.Prefix
	for _, a := range p.Addresses() {
		prefixes = append(prefixes, netip.PrefixFrom(a, a.BitLen()))
	}
	for _, pair := range p.Pairs {
		prefixes = append(prefixes, pair.Prefix.Masked())
	}
	if len(prefixes) == 0 {
		return nil
	}
	return &model.HostMember{GroupID: group, PortID: port, Prefixes: prefixes}
}
