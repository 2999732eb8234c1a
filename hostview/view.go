package hostview

import (
	"context"
	"encoding/json"
	"hash/maphash"
	"slices"
	"strings"
	"sync"

	"yakumo/model"
	"yakumo/store"
)

// view is one host's. Next is called by one goroutine.
type view struct {
	e    *Engine
	host model.ID

	mu    sync.Mutex
	dirty map[model.RowID]struct{}
	ready chan struct{}

	sent    map[uint32]uint64                // hash of what the host has, by the row's number in the engine's names
	in      map[model.RowID]struct{}         // what it is registered for
	known   known                            // networks and routers
	peers   map[model.ID]map[uint32]struct{} // network → peers sent
	members map[model.ID]map[uint32]struct{} // group → members sent
	remotes map[model.ID][]model.RowID       // group sent → what its rules refer to: rowMembers and RowAddresses
	needed  map[model.RowID]int              // these → groups sent that refer to it
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
		v.sent, v.in, v.known = map[uint32]uint64{}, map[model.RowID]struct{}{}, nothing()
		v.peers, v.members = map[model.ID]map[uint32]struct{}{}, map[model.ID]map[uint32]struct{}{}
		v.remotes, v.needed = map[model.ID][]model.RowID{}, map[model.RowID]int{}
		dirty = v.everything(snap)
	}
	v.work(snap, dirty, &b)
	return b
}

// forget takes the view out of the engine's sets. The caller holds the engine's mu.
func (v *view) forget() {
	for at := range v.sent {
		v.e.names.drop(at)
	}
	v.sent = nil
	for id := range v.in {
		v.e.drop(id, v)
	}
}

func (e *Engine) drop(id model.RowID, v *view) {
	delete(e.concerned[id], v)
	if len(e.concerned[id]) == 0 {
		delete(e.concerned, id)
	}
}

// register tells the engine whether a change of something concerns the view.
func (v *view) register(id model.RowID, is bool) {
	if _, already := v.in[id]; already == is {
		return
	}
	v.e.mu.Lock()
	defer v.e.mu.Unlock()
	if !is {
		delete(v.in, id)
		v.e.drop(id, v)
		return
	}
	v.in[id] = struct{}{}
	if v.e.concerned[id] == nil {
		v.e.concerned[id] = map[*view]struct{}{}
	}
	v.e.concerned[id][v] = struct{}{}
}

// everything marks the roots of what the host must know; work finds the rest.
func (v *view) everything(snap store.Snapshot) map[model.RowID]struct{} {
	dirty := map[model.RowID]struct{}{reach: {}}
	for s := range store.Servers.List(snap, "host", v.host) {
		dirty[row(model.RowServer, s.ID)] = struct{}{}
	}
	for id := range volumesAt(snap, v.host) {
		dirty[row(model.RowVolume, id)] = struct{}{}
	}
	for p := range portsOn(snap, v.host) {
		dirty[row(model.RowPort, p.ID)] = struct{}{}
		for _, g := range p.Groups {
			dirty[row(model.RowGroup, g)] = struct{}{}
		}
		for f := range store.FloatingIPs.List(snap, "port", p.ID) {
			dirty[row(model.RowFloating, f.ID)] = struct{}{}
		}
		for f := range store.TapFlows.List(snap, "source", p.ID) {
			dirty[row(model.RowMirror, f.ID)] = struct{}{}
		}
		for s := range store.TapServices.List(snap, "port", p.ID) {
			for f := range store.TapFlows.List(snap, "service", s.ID) {
				dirty[row(model.RowMirror, f.ID)] = struct{}{}
			}
		}
	}
	for r := range store.Routers.List(snap, "gateway_host", v.host) {
		for f := range store.FloatingIPs.List(snap, "router", r.ID) {
			dirty[row(model.RowFloating, f.ID)] = struct{}{}
		}
	}
	return dirty
}

// order is that of work: what the host knows comes before its peers, and groups before what
// they refer to, as the first decide which of the second are wanted.
var order = []model.RowKind{model.RowRouter, model.RowNetwork, model.RowGroup, model.RowAddresses, model.RowPeer, model.RowMember,
	model.RowPort, model.RowFloating, model.RowMirror, model.RowVolume, model.RowServer}

// work looks at the marked rows.
func (v *view) work(snap store.Snapshot, dirty map[model.RowID]struct{}, b *model.HostBatch) {
	v.reach(snap, dirty)
	var keys [16][]string // by the place in order
	sortIn := func(kinds ...model.RowKind) {
		for id := range dirty {
			if i := slices.Index(order, id.Kind); i >= 0 && slices.Contains(kinds, id.Kind) {
				keys[i] = append(keys[i], id.Key)
			}
		}
	}
	first := order[:slices.Index(order, model.RowGroup)+1]
	sortIn(first...)
	for i, kind := range order {
		if i == len(first) {
			sortIn(order[i:]...) // groups and networks have marked some
		}
		slices.Sort(keys[i])
		for _, key := range keys[i] {
			id := row(kind, key)
			r := v.row(snap, id)
			if kind == model.RowGroup {
				v.regroup(snap, key, r, dirty)
			}
			v.put(id, r, b)
		}
	}
}

// put adds the row to the batch where the host has it not, or not so.
func (v *view) put(id model.RowID, r model.HostRow, b *model.HostBatch) {
	at, known := v.e.names.find(id)
	old, had := v.sent[at]
	had = had && known
	if r == nil {
		if had {
			v.track(id, at, nil)
			delete(v.sent, at)
			v.e.names.drop(at)
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
	if !had {
		outer := ""
		if p, ok := r.(*model.HostPeer); ok {
			outer = p.NetworkID // a port's never changes
		}
		at = v.e.names.hold(id, outer)
	}
	v.sent[at] = h
	v.track(id, at, r)
	switch r := r.(type) {
	case *model.HostServer:
		b.Fresh = b.Fresh || !had
	case *model.HostVolume:
		b.Fresh = b.Fresh || r.Mine // it may have been another's before
	}
	b.Upserts, b.Bodies = append(b.Upserts, r), append(b.Bodies, body)
}

// track keeps the sets of what the host has; r is nil where the row has gone.
func (v *view) track(id model.RowID, at uint32, r model.HostRow) {
	var set map[model.ID]map[uint32]struct{}
	var outer model.ID
	switch id.Kind {
	case model.RowPeer:
		set = v.peers
		_, outer = v.e.names.of(at)
	case model.RowMember:
		set = v.members
		id, _ := v.e.names.of(at) // whose text lives as long as the row
		outer, _, _ = strings.Cut(id.Key, ",")
	case model.RowGroup, model.RowFloating, model.RowMirror, model.RowVolume:
		v.register(id, r != nil)
		return
	default:
		return
	}
	if r == nil {
		delete(set[outer], at)
		if len(set[outer]) == 0 {
			delete(set, outer)
		}
		return
	}
	if set[outer] == nil {
		set[outer] = map[uint32]struct{}{}
	}
	set[outer][at] = struct{}{}
}

// regroup counts what rules refer to, and marks what is needed newly or no more.
func (v *view) regroup(snap store.Snapshot, group model.ID, r model.HostRow, dirty map[model.RowID]struct{}) {
	var now []model.RowID
	if g, ok := r.(*model.HostGroup); ok {
		for _, rule := range g.Rules {
			if id := row(rowMembers, rule.RemoteGroupID); id.Key != "" && !slices.Contains(now, id) {
				now = append(now, id)
			}
			if id := row(model.RowAddresses, rule.AddressGroupID); id.Key != "" && !slices.Contains(now, id) {
				now = append(now, id)
			}
		}
	}
	before := v.remotes[group]
	for _, id := range now {
		if !slices.Contains(before, id) {
			if v.needed[id]++; v.needed[id] == 1 {
				v.need(snap, id, true, dirty)
			}
		}
	}
	for _, id := range before {
		if !slices.Contains(now, id) {
			if v.needed[id]--; v.needed[id] == 0 {
				delete(v.needed, id)
				v.need(snap, id, false, dirty)
			}
		}
	}
	if v.remotes[group] = now; len(now) == 0 {
		delete(v.remotes, group)
	}
}

func (v *view) need(snap store.Snapshot, id model.RowID, is bool, dirty map[model.RowID]struct{}) {
	v.register(id, is)
	switch {
	case id.Kind == model.RowAddresses:
		dirty[id] = struct{}{}
	case is:
		for p := range store.Ports.List(snap, "group", id.Key) {
			dirty[row(model.RowMember, id.Key+","+p.ID)] = struct{}{}
		}
	default:
		for at := range v.members[id.Key] {
			member, _ := v.e.names.of(at)
			dirty[member] = struct{}{}
		}
	}
}

// row makes a row as it should be on this host, nil where it should not be there.
func (v *view) row(snap store.Snapshot, id model.RowID) model.HostRow {
	switch id.Kind {
	case model.RowServer:
		return serverRow(snap, id.Key, v.host, v.e.unsealed)
	case model.RowPort:
		if p, ok := store.Ports.Get(snap, id.Key); ok && p.On(v.host) {
			return portRow(snap, p, v.host)
		}
	case model.RowNetwork:
		if _, is := v.known.networks[id.Key]; is {
			return networkRow(snap, id.Key, v.host)
		}
	case model.RowRouter:
		if _, is := v.known.routers[id.Key]; is {
			return routerRow(snap, id.Key, v.host)
		}
	case model.RowGroup:
		for range store.Ports.List(snap, "host_group", v.host+","+id.Key) {
			return groupRow(snap, id.Key)
		}
	case model.RowAddresses:
		if v.needed[id] > 0 {
			return addressesRow(snap, id.Key)
		}
	case model.RowPeer:
		if p, ok := store.Ports.Get(snap, id.Key); ok && p.Host != v.host && v.known.networks[p.NetworkID] {
			return peerRow(snap, p)
		}
	case model.RowMember:
		group, port, _ := strings.Cut(id.Key, ",")
		if p, ok := store.Ports.Get(snap, port); ok && v.needed[row(rowMembers, group)] > 0 && p.InGroup(group) {
			return memberRow(p, group)
		}
	case model.RowFloating:
		if f, ok := store.FloatingIPs.Get(snap, id.Key); ok {
			return floatingRow(snap, f, v.host)
		}
	case model.RowVolume:
		return volumeRow(snap, id.Key, v.host)
	case model.RowMirror:
		return mirrorRow(snap, id.Key, v.host)
	}
	return nil
}
