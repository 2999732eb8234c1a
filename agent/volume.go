package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"sync"
	"time"

	"yakumo/block"
	"yakumo/fault"
	"yakumo/hypervisor"
	"yakumo/link"
	"yakumo/model"
)

// reconnect is for how long a guest waits for a volume that does not answer before it sees an error: longer than an
// agent, or a host's network, is away.
const reconnect = 300 * time.Second

// volumeKeeper makes volumes agree with their rows, and opens them for guests. Of the engine model.EngineLocal nothing stays that has no
// row; nobody knows from here what else the others have.
type volumeKeeper struct {
	a       *Agent
	engines map[string]block.Engine
	queue   *queue

	mu      sync.Mutex
	tries   map[model.ID]*try
	sent    map[model.ID]model.VolumeReport
	stuck   map[model.ID]error      // why a volume did not grow while a guest here was held for it
	told    map[string]int          // <volume>/<server> → size in GiB that the guest was told
	remotes map[string]*remote      // by seated, volumes of other hosts that guests here use
	calls   map[*volumeUse]struct{} // other hosts' connections to volumes here
}

var _ link.VolumeHandler = (*Agent)(nil)

func newVolumeKeeper(a *Agent) *volumeKeeper {
	v := &volumeKeeper{
		a: a, engines: a.cfg.Engines, tries: map[model.ID]*try{}, sent: map[model.ID]model.VolumeReport{}, stuck: map[model.ID]error{}, told: map[string]int{},
		remotes: map[string]*remote{}, calls: map[*volumeUse]struct{}{},
	}
	v.queue = newQueue(v.reconcile)
	a.channel.Handle(serviceVolume, v.serve)
	a.channel.Handle(serviceHeldVolume, v.serveCopy)
	return v
}

// run works until ctx ends. What is open stays open.
func (v *volumeKeeper) run(ctx context.Context) {
	v.sweep()
	v.queue.open(ctx)
	tick := time.NewTicker(v.a.cfg.Resync)
	defer tick.Stop()
	for {
		v.a.quarantine.sweep()
		v.lookAll()
		select {
		case <-tick.C:
			continue
		case <-ctx.Done():
		}
		break
	}
	v.queue.close()
	v.closeRemotes()
}

// look has volumes of which rows changed looked at, and gives the servers that use them.
func (v *volumeKeeper) look(touched []model.RowID) map[model.ID]bool {
	servers := map[model.ID]bool{}
	for _, id := range touched {
		switch id.Kind {
		case model.RowVolume:
			if row := v.a.ledger.volume(id.Key); row == nil || row.Deleted || row.Clear != "" {
				v.queue.interrupt(id.Key) // no use in filling, copying or sending it
			}
			v.queue.add(id.Key)
			for _, s := range v.a.ledger.users(id.Key) {
				servers[s] = true
			}
		case model.RowServer:
			if s := v.a.ledger.server(id.Key); s != nil {
				for _, d := range s.Volumes {
					v.queue.add(d.VolumeID)
				}
			}
		}
	}
	return servers
}

// lookAll has every volume looked at: those with rows or progress, and, once the host has been told what is wanted, what the
// local engine has besides.
func (v *volumeKeeper) lookAll() {
	ids := v.a.ledger.volumeIDs()
	if e := v.engines[model.EngineLocal]; e != nil && v.a.ledger.Generation() > 0 {
		list, err := e.List(context.Background())
		if err != nil {
			v.a.log.Error("the host's volumes cannot be listed", "err", err)
		}
		for _, x := range list {
			if !ids[x.ID] {
				v.a.log.Warn("there is a volume that is nobody's; it does not stay", "volume", x.ID, "whole", x.Whole)
			}
			ids[x.ID] = true
		}
	}
	for id := range ids {
		v.queue.add(id)
	}
}

// rooms gives the names of the engines, sorted, and what room they have.
func (v *volumeKeeper) rooms(ctx context.Context) ([]string, map[string]model.HostRoom) {
	var rooms map[string]model.HostRoom
	for name, e := range v.engines {
		m, ok := e.(block.Meter)
		if !ok {
			continue
		}
		rctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		total, free, err := m.Room(rctx)
		cancel()
		if err != nil {
			v.a.log.Warn("an engine for volumes does not tell its room", "engine", name, "err", err)
			continue
		}
		if rooms == nil {
			rooms = map[string]model.HostRoom{}
		}
		rooms[name] = model.HostRoom{TotalGiB: int(total >> 30), FreeGiB: int(free >> 30)}
	}
	return slices.Sorted(maps.Keys(v.engines)), rooms
}

// engine gives the engine of a volume.
func (v *volumeKeeper) engine(name string, id model.ID) (block.Engine, error) {
	e := v.engines[name]
	if e == nil {
		return nil, fault.New(fault.Invalid, "This host has no engine %q for volume %s.", name, id)
	}
	return e, nil
}

// disk gives the disk that a guest sees of a volume, without boot order; its serial number is the volume's id. errWaiting until
// the volume is there: whoever makes it so wakes the server.
func (v *volumeKeeper) disk(ctx context.Context, server model.ID, d model.HostDisk) (hypervisor.Disk, error) {
	out := hypervisor.Disk{Serial: d.VolumeID, ReadOnly: d.ReadOnly, Shared: d.Shared, Tag: d.Tag}
	switch {
	case d.Failed:
		return out, fault.New(fault.Invalid, "Volume %s could not be filled with the image.", d.VolumeID)
	case d.Wait:
		return out, fmt.Errorf("volume %s is being filled anew: %w", d.VolumeID, errWaiting)
	}
	if d.Limits != nil {
		out.Limits = hypervisor.DiskLimits(*d.Limits)
	}
	row := v.a.ledger.volume(d.VolumeID)
	switch {
	case row == nil && len(v.engines) == 0:
		return out, fault.New(fault.NotImplemented, "This host cannot open volume %s: it has no engine for volumes.", d.VolumeID)
	case row == nil:
		return out, fmt.Errorf("volume %s is not known yet: %w", d.VolumeID, errWaiting)
	}
	if p, _ := v.a.ledger.progressOf(server); d.To != nil && p.Elsewhere[d.VolumeID].turned(d.To.Number) {
		return out, v.openAt(ctx, &out, d) // no server has said yet that it knows
	}
	if !row.Mine && row.Engine == model.EngineLocal {
		at, err := v.relay(ctx, d.VolumeID, row.Seat)
		if err != nil {
			return out, err
		}
		found(&out, at)
		return out, nil
	}
	if p, _ := v.a.ledger.volumeOf(d.VolumeID); row.Mine && (!p.Made || p.Filling || p.Engine != row.Engine) {
		return out, fmt.Errorf("volume %s is not ready yet: %w", d.VolumeID, errWaiting)
	}
	e, err := v.engine(row.Engine, d.VolumeID)
	if err != nil {
		return out, err
	}
	at, err := e.Open(ctx, d.VolumeID)
	if fault.Is(err, fault.NotFound) && !row.Mine {
		return out, fault.Wrap(fault.Unavailable, err, "Volume %s cannot be opened now.", d.VolumeID)
	}
	if err != nil {
		return out, fmt.Errorf("open volume %s: %w", d.VolumeID, err)
	}
	found(&out, at)
	return out, nil
}

// found says of a disk where it is.
func found(out *hypervisor.Disk, at block.Access) {
	out.Everywhere = at.Everywhere
	switch {
	case at.File != "":
		out.Path, out.Format = at.File, at.Format
	case at.Socket != "":
		out.Format, out.Network = "raw", &hypervisor.NetworkDisk{Protocol: "nbd", Socket: at.Socket, Name: at.Export}
	default:
		out.Format = "raw"
		out.Network = &hypervisor.NetworkDisk{Protocol: "rbd", Name: at.Pool + "/" + at.Image, Hosts: at.Monitors, User: at.User, Secret: at.Key}
	}
}

// VolumeReports implements link.VolumeHandler.
func (a *Agent) VolumeReports() []model.VolumeReport {
	var out []model.VolumeReport
	for id, p := range a.ledger.allVolumes() {
		out = append(out, p.report(id))
	}
	return out
}

// keep saves and reports a volume's progress where it is new.
func (v *volumeKeeper) keep(id model.ID, p volumeProgress) error {
	if old, ok := v.a.ledger.volumeOf(id); !ok || !reflect.DeepEqual(old, p) {
		if err := v.a.ledger.saveVolume(id, p); err != nil {
			return err
		}
	}
	r := p.report(id)
	v.mu.Lock()
	old, was := v.sent[id]
	v.sent[id] = r
	v.mu.Unlock()
	if !was || !reflect.DeepEqual(old, r) {
		v.a.link.ReportVolumes([]model.VolumeReport{r})
	}
	return nil
}

// reconcile brings one volume to what is wanted, and says when to look again.
func (v *volumeKeeper) reconcile(ctx context.Context, id model.ID) time.Duration {
	if v.a.ledger.Generation() == 0 || !isFileName(id) {
		return 0
	}
	row := v.a.ledger.volume(id)
	var generation int64
	if row != nil {
		generation = row.Generation
	}
	v.mu.Lock()
	t := v.tries[id]
	if t != nil && t.generation == generation && time.Until(t.notBefore) > 0 {
		defer v.mu.Unlock()
		return time.Until(t.notBefore)
	}
	v.mu.Unlock()
	var err error
	if row != nil {
		err = v.place(ctx, row)
	}
	switch {
	case err != nil:
	case row == nil:
		err = v.leave(ctx, id)
	case !row.Mine:
		err = v.use(ctx, row)
	case row.Deleted:
		err = v.remove(ctx, row)
	default:
		err = v.converge(ctx, row)
	}
	if ctx.Err() != nil {
		return 0
	}
	if err == nil || errors.Is(err, errWaiting) {
		v.mu.Lock()
		delete(v.tries, id)
		v.mu.Unlock()
		return 0
	}
	return v.failed(row, id, generation, err)
}

// failed decides what becomes of a failure, as with a server's.
func (v *volumeKeeper) failed(row *model.HostVolume, id model.ID, generation int64, err error) time.Duration {
	kind := fault.KindOf(err)
	v.mu.Lock()
	t := v.tries[id]
	if t == nil || t.generation != generation {
		t = &try{generation: generation}
		v.tries[id] = t
	}
	t.failures++
	if kind != fault.Unavailable {
		t.counted++
	}
	pause := v.a.cfg.Repeat.Min
	for n := 1; n < t.failures && pause < v.a.cfg.Repeat.Max; n++ {
		pause *= 2
	}
	pause = min(pause, v.a.cfg.Repeat.Max)
	t.notBefore = time.Now().Add(pause)
	final := kind == fault.Invalid || t.counted >= v.a.cfg.Repeat.Limit
	v.mu.Unlock()
	v.a.metrics.failed("volume")
	p, _ := v.a.ledger.volumeOf(id)
	if row == nil || !row.Mine || !final || p.Generation == generation && p.Fault != nil {
		v.a.log.Warn("a volume is not as it should be; it is tried again", "volume", id, "generation", generation, "err", err, "after", pause)
		return pause
	}
	v.a.log.Error("a volume cannot be as it should be", "volume", id, "generation", generation, "err", err)
	text, ok := fault.Text(err)
	if !ok {
		text = "The volume could not be brought into the wanted state on its host."
	}
	p.Engine, p.Generation, p.Fault = row.Engine, generation, &model.Fault{Code: 500, Message: text, Details: err.Error(), At: v.a.now()}
	if err := v.keep(id, p); err != nil {
		v.a.log.Error("a volume's fault cannot be kept", "volume", id, "err", err)
		return pause
	}
	return 0
}

// last tells whether a volume's next failure of this generation is one too many.
func (v *volumeKeeper) last(id model.ID, generation int64) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	t := v.tries[id]
	return t != nil && t.generation == generation && t.counted >= v.a.cfg.Repeat.Limit-1
}

// leave is for a volume that is no business of this host any more: of the local engine nothing stays, unless a guest here has it.
func (v *volumeKeeper) leave(ctx context.Context, id model.ID) error {
	p, ok := v.a.ledger.volumeOf(id)
	if err := v.unreach(ctx, id, p.Seat); err != nil {
		return err
	}
	v.cut(id, nil)
	if e := v.engines[model.EngineLocal]; e != nil && (!ok || p.Engine == "" || p.Engine == model.EngineLocal) && !p.Gone {
		if block.Check(id) != nil {
			return nil // no name of ours
		}
		if len(v.a.ledger.users(id)) > 0 {
			return fault.New(fault.Unavailable, "Volume %s has no row, and a guest here uses it.", id)
		}
		if err := v.giveUp(ctx, e, id); err != nil {
			return err
		}
	}
	v.mu.Lock()
	delete(v.sent, id)
	v.mu.Unlock()
	return v.a.ledger.forgetVolume(id, true)
}

// use is for a volume that another host works on and guests here have.
func (v *volumeKeeper) use(ctx context.Context, row *model.HostVolume) error {
	p, _ := v.a.ledger.volumeOf(row.ID)
	var err error
	if p = (volumeProgress{Seat: row.Seat, Placed: p.Placed, Vacated: p.Vacated, Refused: p.Refused, PlaceFault: p.PlaceFault}); row.Place == nil && row.Seat == 0 {
		err = v.a.ledger.forgetVolume(row.ID, false) // it was this host's, once
	} else {
		err = v.keep(row.ID, p)
	}
	if err != nil || row.Place != nil && len(v.a.ledger.users(row.ID)) == 0 { // the row is of that place alone
		return err
	}
	if row.Engine == model.EngineLocal {
		if _, err := v.reach(row.ID, row.Seat); err != nil {
			return err
		}
		v.wake(row.ID) // a guest that is on is to see the size that it has now
		return nil
	}
	return v.tell(ctx, row)
}

// remove ends a volume that is to be removed.
func (v *volumeKeeper) remove(ctx context.Context, row *model.HostVolume) error {
	p, _ := v.a.ledger.volumeOf(row.ID)
	if !p.Gone {
		if len(row.Guests) > 0 {
			return fault.New(fault.Unavailable, "Volume %s is to be removed, and a guest has it.", row.ID)
		}
		for _, name := range []string{row.Engine, row.Copy, row.Clear} {
			if name == "" {
				continue
			}
			e, err := v.engine(name, row.ID)
			if err == nil {
				err = v.erase(ctx, e, row.ID)
			}
			if err != nil {
				return err
			}
		}
	}
	return v.keep(row.ID, volumeProgress{Engine: row.Engine, Generation: row.Generation, Gone: true})
}

// giveUp leaves nothing of a volume without a row in its engine. What nobody has ordered to go is laid aside.
func (v *volumeKeeper) giveUp(ctx context.Context, e block.Engine, id model.ID) error {
	d := v.a.ledger.departureOf(model.RowVolume, id)
	aside, ok := e.(block.Sider)
	if !ok || d.Ordered || v.a.cfg.Quarantine <= 0 {
		return v.erase(ctx, e, id)
	}
	list, err := e.List(ctx)
	if err != nil {
		return fmt.Errorf("list volumes: %w", err)
	}
	at := slices.IndexFunc(list, func(x block.Entry) bool { return x.ID == id })
	if at < 0 || !list[at].Whole {
		return v.erase(ctx, e, id)
	}
	v.cut(id, nil)
	if err := shut(ctx, e, id); err != nil {
		return err
	}
	return v.a.quarantine.take(aside.Aside(), laidAside{Kind: model.RowVolume, ID: id, Row: d.Row}, func(path string) error {
		return aside.LayAside(ctx, id, path)
	})
}

// erase takes a volume away from its engine.
func (v *volumeKeeper) erase(ctx context.Context, e block.Engine, id model.ID) error {
	v.cut(id, nil)
	return take(ctx, e, id)
}

// tell has running guests here know the size that a volume has now.
func (v *volumeKeeper) tell(ctx context.Context, row *model.HostVolume) error {
	plug, ok := v.a.cfg.Hypervisor.(hypervisor.Grower)
	if !ok {
		return nil
	}
	for _, server := range v.a.ledger.users(row.ID) {
		key := row.ID + "/" + server
		v.mu.Lock()
		known := v.told[key] == row.SizeGiB
		v.mu.Unlock()
		if power, _ := v.a.guests.state(server); known || power != hypervisor.Running && power != hypervisor.Paused {
			continue // it sees the size when it starts
		}
		err := plug.Grow(ctx, server, row.ID, int64(row.SizeGiB)<<30)
		switch {
		case err == nil:
		case fault.Is(err, fault.NotFound), fault.Is(err, fault.Conflict):
			continue // it has not the disk yet, or is off by now
		default:
			return fault.Wrap(fault.Unavailable, err, "Guest %s has not taken the new size of volume %s yet.", server, row.ID)
		}
		v.mu.Lock()
		v.told[key] = row.SizeGiB
		v.mu.Unlock()
	}
	return nil
}
