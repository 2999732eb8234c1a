package ovs

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"yakumo/datapath/pipeline"
	"yakumo/openflow"
)

// commitTimeout bounds one bundle. A caller that gives up does not abort a bundle: its outcome
// would be unknown, and the whole set would have to be written again.
const commitTimeout = 30 * time.Second

// flowSet is what the switch should hold and does not yet, and under which match it holds
// the entries that name a port of the switch.
type flowSet struct {
	put      map[pipeline.Key]*pipeline.Installed // to be written
	del      map[pipeline.Key]*pipeline.Installed // to be deleted
	unbound  map[pipeline.Key]*pipeline.Installed // wait for a device
	bound    map[pipeline.Key]openflow.Match      // of entries that match a switch port: as they stand
	byPlace  map[uint64]map[pipeline.Key]*pipeline.Installed
	released map[pipeline.OrdinalKey]struct{} // to be freed with the next commit
	sweep    bool                             // delete all other rounds with the next commit
}

func newFlowSet() flowSet {
	return flowSet{
		put: map[pipeline.Key]*pipeline.Installed{}, del: map[pipeline.Key]*pipeline.Installed{}, unbound: map[pipeline.Key]*pipeline.Installed{},
		bound: map[pipeline.Key]openflow.Match{}, byPlace: map[uint64]map[pipeline.Key]*pipeline.Installed{}, released: map[pipeline.OrdinalKey]struct{}{},
	}
}

// note takes over what a change of rows changes. d.mu is held, as for all in this file.
func (d *Driver) note(delta pipeline.Delta) {
	f := &d.flows
	for _, in := range delta.Delete {
		k := in.Key
		delete(f.put, k)
		delete(f.unbound, k)
		delete(d.refused, k)
		f.del[k] = in
		for _, p := range places(in.Entry) {
			delete(f.byPlace[p], k)
			if len(f.byPlace[p]) == 0 {
				delete(f.byPlace, p)
			}
		}
	}
	d.noteFar(delta.Put)
	for _, in := range delta.Put {
		k := in.Key
		delete(f.del, k)
		delete(f.unbound, k)
		delete(d.refused, k)
		f.put[k] = in
		for _, p := range places(in.Entry) {
			if f.byPlace[p] == nil {
				f.byPlace[p] = map[pipeline.Key]*pipeline.Installed{}
			}
			f.byPlace[p][k] = in
		}
	}
	for _, k := range d.prog.TakeReleased() {
		f.released[k] = struct{}{}
	}
}

// moved says that a place has another OpenFlow port now, or none.
func (f *flowSet) moved(place uint64) {
	for k, in := range f.byPlace[place] {
		delete(f.unbound, k)
		f.put[k] = in
	}
}

// at resolves a place.
func (d *Driver) at(place uint64) (uint32, bool) {
	if place >= pipeline.PortTunnel {
		n, ok := d.special[place]
		return n, ok
	}
	id, ok := d.cfg.Ordinals.Find(pipeline.OrdinalPort, uint32(place))
	if !ok {
		return 0, false
	}
	n := d.devices[id].ofport
	return n, n != 0
}

// change is one bundle in the making.
type change struct {
	dels, adds []openflow.Message
	keys       []pipeline.Key // of adds
	bound      map[pipeline.Key]openflow.Match
	unbound    map[pipeline.Key]*pipeline.Installed
	meters     map[uint32]meter
}

// plan makes the messages for what is pending.
func (d *Driver) plan() change {
	f := &d.flows
	c := change{bound: map[pipeline.Key]openflow.Match{}, unbound: map[pipeline.Key]*pipeline.Installed{}}
	for k, in := range f.del {
		if m, ok := d.standing(k, in); ok {
			c.dels = append(c.dels, deleteFlow(d.round, in, m))
		}
	}
	c.meters = map[uint32]meter{}
	for k, in := range f.put {
		if d.refused[k] != nil {
			continue
		}
		fm, ok := addFlow(d.round, in, d.at)
		old, stands := f.bound[k]
		switch {
		case !ok:
			c.unbound[k] = in
			if m, ok := d.standing(k, in); ok {
				c.dels = append(c.dels, deleteFlow(d.round, in, m))
			}
			continue
		case stands && !old.Equal(fm.Match):
			c.dels = append(c.dels, deleteFlow(d.round, in, old))
		}
		if _, named := in.Entry.Match.Get(pipeline.InPort); named {
			c.bound[k] = fm.Match
		}
		for id, m := range d.metersOf(in.Entry) {
			if d.meters[id] != m {
				c.meters[id] = m
			}
		}
		c.adds = append(c.adds, fm)
		c.keys = append(c.keys, k)
	}
	return c
}

// standing gives the match under which an entry may stand in the switch.
func (d *Driver) standing(k pipeline.Key, in *pipeline.Installed) (openflow.Match, bool) {
	if _, named := in.Entry.Match.Get(pipeline.InPort); named {
		m, ok := d.flows.bound[k]
		return m, ok
	}
	return bind(in.Entry.Match, d.at)
}

// commit brings the switch up to date: one bundle for all that is pending. The connection
// must be there. Where the switch refuses entries, the others are written without them. Any
// other failure ends the connection, and the next one starts with the whole set.
func (d *Driver) commit(_ context.Context) error {
	ctx, cancel := context.WithTimeout(d.ctx, commitTimeout)
	defer cancel()
	if d.conn == nil {
		return errors.New("not connected to the switch")
	}
	err := d.write(ctx)
	if err == nil {
		err = d.release(ctx)
	}
	if err != nil {
		d.synced = false
		d.changed()
		conn := d.conn
		go func() { _ = conn.Close() }() // the session notices; Close waits for goroutines that may wait for d.mu
		err = fmt.Errorf("write to switch %s: %w", d.cfg.Bridge, err)
	}
	d.rewire()
	return err
}

func (d *Driver) write(ctx context.Context) error {
	if err := d.cfg.Ordinals.Sync(); err != nil {
		return err
	}
	f := &d.flows
	d.ensureTunnels(ctx)
	for len(f.put)+len(f.del) > 0 || f.sweep {
		c := d.plan()
		if err := d.addMeters(ctx, c.meters); err != nil {
			return err
		}
		msgs := append(c.dels, c.adds...)
		if f.sweep {
			msgs = append(msgs, sweepFlows(d.round)...)
		}
		err := d.conn.Bundle(ctx, msgs)
		var refused *openflow.BundleError
		if errors.As(err, &refused) && len(refused.Messages) > 0 {
			if err := d.refuse(&c, refused); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return err
		}
		d.count.bundles.Add(1)
		d.count.added.Add(uint64(len(c.adds)))
		d.count.deleted.Add(uint64(len(c.dels)))
		for k := range f.del {
			delete(f.bound, k)
		}
		for k, in := range c.unbound {
			delete(f.bound, k)
			f.unbound[k] = in
		}
		for k, m := range c.bound {
			f.bound[k] = m
		}
		clear(f.put)
		clear(f.del)
		f.sweep = false
	}
	return nil
}

// refuse sets the entries aside that the switch did not take.
func (d *Driver) refuse(c *change, be *openflow.BundleError) error {
	for _, m := range be.Messages {
		i := m.Index - len(c.dels)
		if i < 0 || i >= len(c.keys) {
			return be
		}
		k := c.keys[i]
		d.refused[k] = m
		d.count.rejected.Add(1)
		d.cfg.Log.Error("the switch refuses an entry", "entry", d.flows.put[k].Entry.String(), "rows", d.prog.OwnersOf(k), "error", m.Err)
	}
	return nil
}

// addMeters makes meters, or makes them right, before the entries that name them.
func (d *Driver) addMeters(ctx context.Context, want map[uint32]meter) error {
	if len(want) == 0 {
		return nil
	}
	msgs := make([]openflow.Message, 0, len(want))
	for id, m := range want {
		how := openflow.MeterAdd
		if _, there := d.meters[id]; there {
			how = openflow.MeterModify
		}
		msgs = append(msgs, &openflow.MeterMod{Command: how, Flags: m.flags, ID: id, Bands: []openflow.MeterBand{m.band}})
	}
	if err := d.conn.Apply(ctx, msgs...); err != nil {
		return fmt.Errorf("write meters: %w", err)
	}
	maps.Copy(d.meters, want)
	return nil
}

// release frees the ordinals that nothing in the switch names any more. A port's conntrack
// zone is flushed first, so that the next port with that number finds none of its connections.
func (d *Driver) release(ctx context.Context) error {
	f := &d.flows
	if len(f.released) == 0 {
		return nil
	}
	var msgs []openflow.Message
	for k := range f.released {
		if d.prog.InUse(k) {
			delete(f.released, k)
			continue
		}
		if k.Kind != pipeline.OrdinalPort && k.Kind != pipeline.OrdinalLimit {
			continue
		}
		n, err := d.cfg.Ordinals.Get(k.Kind, k.Key, d.cfg.Env.Limit(k.Kind))
		if err != nil {
			return err
		}
		id := n
		if k.Kind == pipeline.OrdinalLimit {
			id = limitMeter(n)
		} else {
			msgs = append(msgs, &openflow.FlushZone{Zone: uint16(n)})
		}
		for _, id := range [...]uint32{id, seekBase + id} {
			if m, there := d.meters[id]; there {
				msgs = append(msgs, &openflow.MeterMod{Command: openflow.MeterDelete, ID: id, Flags: m.flags})
				delete(d.meters, id)
			}
		}
	}
	if len(msgs) > 0 {
		if err := d.conn.Apply(ctx, msgs...); err != nil {
			return fmt.Errorf("flush zones and delete meters: %w", err)
		}
	}
	for k := range f.released {
		d.cfg.Ordinals.Release(k.Kind, k.Key)
	}
	clear(f.released)
	return d.cfg.Ordinals.Sync()
}

// resync writes the whole set under a new round, on a connection that has just come up.
func (d *Driver) resync(ctx context.Context, conn *openflow.Conn, round uint16) error {
	d.conn, d.round = conn, round
	f := &d.flows
	clear(f.put)
	clear(f.del)
	clear(f.bound)
	clear(f.unbound)
	clear(d.refused)
	f.sweep = d.pruned
	used := map[uint32]meter{}
	all := d.prog.All()
	clear(d.far.known) // a switch that was restarted has forgotten them
	d.noteFar(all)
	for _, in := range all {
		f.put[in.Key] = in
		maps.Copy(used, d.metersOf(in.Entry))
	}
	have, err := conn.Meters(ctx)
	if err != nil {
		return fmt.Errorf("read meters: %w", err)
	}
	clear(d.meters)
	var stale []openflow.Message
	for _, m := range have {
		now := meter{flags: m.Flags &^ openflow.MeterStats}
		if len(m.Bands) == 1 {
			now.band = m.Bands[0]
		}
		d.meters[m.ID] = now // write mends those that are wrong
		if _, wanted := used[m.ID]; !wanted {
			stale = append(stale, &openflow.MeterMod{Command: openflow.MeterDelete, Flags: now.flags, ID: m.ID})
		}
	}
	if err := d.write(ctx); err != nil {
		return err
	}
	if d.pruned && len(stale) > 0 { // deleting a meter deletes the flows that name it
		if err := conn.Apply(ctx, stale...); err != nil {
			return fmt.Errorf("delete old meters: %w", err)
		}
		for _, m := range stale {
			delete(d.meters, m.(*openflow.MeterMod).ID)
		}
	}
	d.count.resyncs.Add(1)
	return d.release(ctx)
}
