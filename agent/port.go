package agent

import (
	"context"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"yakumo/datapath"
	"yakumo/fault"
	"yakumo/model"
)

// tapPrefix begins the names of all taps of the agent.
const tapPrefix = "yk"

// tapName gives the name of a port's tap device.
func tapName(port model.ID) string { return model.TapName(port) }

// isTapName tells whether a device is one of the agent's taps; the data path's own devices
// begin with the same two letters.
func isTapName(name string) bool {
	rest, ok := strings.CutPrefix(name, tapPrefix)
	return ok && len(rest) == 13 && strings.Trim(rest, "0123456789abcdef") == ""
}

// wirer makes taps and the data path agree with the rows. One goroutine does all of it.
type wirer struct {
	a    *Agent
	wake chan struct{}
	// applying is held from looking at rows to the data path's answer, so that nobody tells it what was true before. Before mu.
	applying sync.Mutex

	mu      sync.Mutex
	pending map[model.RowID]bool // rows to look at
	full    bool                 // look at everything
	swept   bool                 // everything has been looked at once since the start
	ports   map[model.ID]*wire
	claims  datapath.Claims // what guests have said to hold
}

// wire is a port on the host. Its fields belong to the wirer's goroutine, but for those
// below the line, which need the lock.
type wire struct {
	tap    string
	mtu    int
	device model.ID
	made   bool // the tap is there and plugged in
	err    error

	// Under the lock:
	generation int64 // of the row that is applied
	installed  bool  // the data path carries it now
	active     bool  // it has carried it since the port was last put up
	report     model.PortReport
}

func newWirer(a *Agent) *wirer {
	return &wirer{a: a, wake: make(chan struct{}, 1), pending: map[model.RowID]bool{}, full: true, ports: map[model.ID]*wire{}, claims: datapath.Claims{}}
}

func (w *wirer) notice(e datapath.Event) {
	if e.Kind == datapath.Claimed {
		w.mu.Lock()
		w.claims.Hear(e.Port, e.Claim, w.a.now())
		w.mu.Unlock()
	}
	w.poke()
}

func (w *wirer) poke() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// look asks for rows to be looked at, for the ports of servers, and for the subports of ports,
// which are here with them.
func (w *wirer) look(ids []model.RowID) {
	w.mu.Lock()
	port := func(id model.ID) {
		w.pending[model.RowID{Kind: model.RowPort, Key: id}] = true
		for _, sub := range w.a.ledger.subportsOf(id) {
			w.pending[model.RowID{Kind: model.RowPort, Key: sub}] = true
		}
	}
	for _, id := range ids {
		switch id.Kind {
		case model.RowServer:
			for _, p := range w.a.ledger.portsOf(id.Key) {
				port(p)
			}
		case model.RowPort:
			port(id.Key)
		default:
			w.pending[id] = true
		}
	}
	w.mu.Unlock()
	w.poke()
}

// wired tells whether a guest's port may carry its first packet.
func (w *wirer) wired(port model.ID) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	p := w.ports[port]
	return p != nil && p.installed
}

// gone tells whether nothing of these ports is left on the host.
func (w *wirer) gone(ports []model.ID) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, id := range ports {
		if w.ports[id] != nil || w.pending[model.RowID{Kind: model.RowPort, Key: id}] {
			return false
		}
	}
	return w.swept
}

func (w *wirer) reports() []model.PortReport {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := make([]model.PortReport, 0, len(w.ports))
	for _, p := range w.ports {
		if p.report.PortID != "" {
			all = append(all, p.report)
		}
	}
	return all
}

// counts gives the ports here and those that carry traffic.
func (w *wirer) counts() (ports, installed int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, p := range w.ports {
		if p.installed {
			installed++
		}
	}
	return len(w.ports), installed
}

// wanted gives a row that the host should have now, nil for none: a port is here with its
// server, a subport with the server of its trunk. The ports of a deleted one go as soon as its guest is gone, whenever their rows do.
func (w *wirer) wanted(id model.RowID) model.HostRow {
	row := w.a.ledger.row(id)
	if p, ok := row.(*model.HostPort); ok {
		if p.Parent != "" {
			if p = w.a.ledger.port(p.Parent); p == nil {
				return nil
			}
		}
		if !w.a.wires(p.DeviceID) {
			return nil
		}
	}
	return row
}

const (
	wirePoll  = 25 * time.Millisecond // how soon a port that is not installed is asked for again, at first
	pruneEach = time.Minute           // how often the data path is told the whole set
)

func (w *wirer) run(ctx context.Context) {
	sweep := time.NewTicker(w.a.cfg.Resync)
	defer sweep.Stop()
	prune := time.NewTicker(pruneEach)
	defer prune.Stop()
	poll := time.NewTimer(0)
	defer poll.Stop()
	pause := wirePoll
	look := false
	for {
		if w.a.ledger.Generation() > 0 { // before that nobody has said what should be here
			waiting, progress := w.pass(ctx, look)
			look = false
			if progress {
				pause = wirePoll
			}
			if waiting {
				poll.Reset(pause)
				pause = min(2*pause, time.Second)
			}
		}
		select {
		case <-w.wake:
		case <-poll.C:
		case <-sweep.C:
			look = true
		case <-prune.C:
			w.mu.Lock()
			w.full = true
			w.mu.Unlock()
		case <-ctx.Done():
			return
		}
	}
}

// pass does what is to be done now. It tells whether ports wait for the data path, and
// whether anything was new.
func (w *wirer) pass(ctx context.Context, sweep bool) (waiting, progress bool) {
	if err := w.settle(); err != nil {
		w.problem(ctx, "", "note where a server's ports are", err)
	}
	w.mu.Lock()
	full, pending := w.full, w.pending
	w.full, w.pending = false, map[model.RowID]bool{}
	w.mu.Unlock()
	if full || len(pending) > 0 {
		progress = true
		if err := w.rows(ctx, full, pending); err != nil {
			if ctx.Err() != nil {
				w.again(full, pending)
				return false, false
			}
			w.a.metrics.failed("datapath")
			w.a.log.Warn("the data path has not taken all rows yet", "rows", len(pending), "all", full, "err", err)
			if full {
				// Until it succeeds, what earlier runs left behind is still there.
				w.again(true, nil)
			}
		}
	}
	if full || sweep {
		for _, p := range w.a.ledger.ports() {
			pending[p.RowID()] = true
		}
		w.mu.Lock()
		for id := range w.ports {
			pending[model.RowID{Kind: model.RowPort, Key: id}] = true
		}
		w.mu.Unlock()
	}
	if full || sweep || len(pending) > 0 {
		w.taps(ctx, full || sweep, pending)
	}
	return w.watch(), progress
}

// again puts back what was not done.
func (w *wirer) again(full bool, pending map[model.RowID]bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.full = w.full || full
	maps.Copy(w.pending, pending)
}

// rows tells the data path what is wanted.
func (w *wirer) rows(ctx context.Context, full bool, pending map[model.RowID]bool) error {
	w.applying.Lock()
	defer w.applying.Unlock()
	if full {
		all := w.everything()
		told := map[model.RowID]bool{}
		for _, row := range all {
			told[row.RowID()] = true
		}
		w.mu.Lock()
		for id, p := range w.ports {
			// It leaves the switch; the tap may stay, for a guest that may come back to its port (a resize that is reverted).
			if !told[model.RowID{Kind: model.RowPort, Key: id}] {
				p.made = false
			}
		}
		w.mu.Unlock()
		return w.a.cfg.Datapath.Prune(ctx, slices.Values(all))
	}
	upserts, removes := w.split(pending)
	return w.a.cfg.Datapath.Apply(ctx, upserts, removes)
}

// taps makes and plugs in the devices of wanted ports among pending, and takes those of
// others away; with all, it also finds taps that nobody wants and taps that are missing.
func (w *wirer) taps(ctx context.Context, all bool, pending map[model.RowID]bool) {
	var here map[string]bool
	if all {
		names, err := w.a.cfg.Taps.List(ctx, tapPrefix)
		if err != nil {
			w.problem(ctx, "", "list taps", err)
			w.again(false, pending)
			return
		}
		here = map[string]bool{}
		for _, n := range names {
			here[n] = true
		}
	}
	networks := map[model.ID]bool{} // whose MTU may have changed
	for id := range pending {
		if id.Kind == model.RowNetwork {
			networks[id.Key] = true
		}
	}
	if len(networks) > 0 {
		for _, p := range w.a.ledger.ports() {
			if networks[p.NetworkID] {
				pending[p.RowID()] = true
			}
		}
	}
	away := false // the switch is: do not wait for it once a port
	held := sync.OnceValue(w.a.ledger.held)
	for id := range pending {
		if id.Kind != model.RowPort || ctx.Err() != nil {
			continue
		}
		row, _ := w.wanted(id).(*model.HostPort)
		if row == nil {
			if held()[id.Key] {
				continue // a guest has it still; whoever takes it away looks here again
			}
			if err := w.unplug(ctx, id.Key); err != nil {
				w.problem(ctx, id.Key, "remove the port", err)
			}
			continue
		}
		if away {
			continue // the next sweep finds it
		}
		if err := w.plug(ctx, row, here); err != nil {
			w.problem(ctx, id.Key, "wire the port", err)
			away = fault.Is(err, fault.Unavailable)
		}
	}
	if !all {
		return
	}
	w.mu.Lock()
	wanted := map[string]bool{}
	for _, p := range w.ports {
		wanted[p.tap] = true
	}
	w.mu.Unlock()
	for id := range held() {
		wanted[tapName(id)] = true
	}
	for name := range here {
		if isTapName(name) && !wanted[name] {
			w.a.log.Info("a tap that no port needs is removed", "tap", name)
			if err := w.a.cfg.Taps.Remove(ctx, name); err != nil {
				w.problem(ctx, "", "remove tap "+name, err)
				return
			}
		}
	}
	w.mu.Lock()
	first := !w.swept
	w.swept = true
	w.mu.Unlock()
	if first {
		for id := range w.a.ledger.servers() {
			w.a.queue.add(id)
		}
	}
}

func (w *wirer) problem(ctx context.Context, port model.ID, what string, err error) {
	if ctx.Err() != nil {
		return
	}
	w.a.metrics.failed("port")
	w.a.log.Warn("could not "+what+"; it is tried again", "port", port, "err", err)
}

// plug makes a port's device. here is what devices there are; nil: not asked.
func (w *wirer) plug(ctx context.Context, row *model.HostPort, here map[string]bool) error {
	w.mu.Lock()
	p := w.ports[row.ID]
	if p == nil {
		p = &wire{tap: tapName(row.ID), generation: row.Generation}
		w.ports[row.ID] = p
	}
	p.device = row.DeviceID
	w.mu.Unlock()
	if row.Parent != "" { // on its parent's device
		p.tap, p.made, p.err = "", true, nil
		return nil
	}
	mtu := 0
	if n := w.a.ledger.network(row.NetworkID); n != nil {
		mtu = n.MTU
	}
	if p.made && p.mtu == mtu && (here == nil || here[p.tap]) {
		return nil
	}
	p.made = false
	p.err = w.a.cfg.Taps.Ensure(ctx, p.tap, mtu)
	if p.err == nil {
		p.err = w.a.cfg.Datapath.Attach(ctx, row.ID, p.tap)
	}
	if p.err == nil {
		p.made, p.mtu = true, mtu
	}
	return p.err
}

// unplug removes a port's device. The data path has forgotten its row before.
func (w *wirer) unplug(ctx context.Context, id model.ID) error {
	if err := w.a.cfg.Datapath.Detach(ctx, id); err != nil {
		w.again(false, map[model.RowID]bool{{Kind: model.RowPort, Key: id}: true})
		return err
	}
	if err := w.a.cfg.Taps.Remove(ctx, tapName(id)); err != nil {
		w.again(false, map[model.RowID]bool{{Kind: model.RowPort, Key: id}: true})
		return err
	}
	w.mu.Lock()
	p := w.ports[id]
	delete(w.ports, id)
	w.claims.Forget(id)
	w.mu.Unlock()
	if p != nil {
		w.a.queue.add(p.device)
	} else if row := w.a.ledger.port(id); row != nil {
		w.a.queue.add(row.DeviceID)
	}
	return nil
}

// watch asks the data path for every port's state, and reports what is new.
func (w *wirer) watch() (waiting bool) {
	var changed []model.PortReport
	wake := map[model.ID]bool{}
	w.mu.Lock()
	ids := slices.Collect(maps.Keys(w.ports))
	w.mu.Unlock()
	for _, id := range ids {
		row := w.a.ledger.port(id)
		installed := w.a.cfg.Datapath.Installed(id)
		w.mu.Lock()
		p := w.ports[id]
		if p != nil && row == nil {
			p.installed, p.active = false, false // until it is told of again
		}
		if p == nil || row == nil {
			w.mu.Unlock()
			continue
		}
		installed = installed && p.made
		if installed && !p.installed {
			wake[p.device] = true
		}
		p.installed = installed
		waiting = waiting || !installed
		if installed {
			p.active = true
			if !w.pending[row.RowID()] {
				p.generation = row.Generation
			}
		}
		// A port that has been wired stays ACTIVE while the switch is away: its flows are still there.
		r := model.PortReport{PortID: id, Generation: p.generation, State: "DOWN"}
		if p.active && row.AdminStateUp {
			r.State = "ACTIVE"
		}
		if p.err != nil {
			r.Fault = p.err.Error()
		}
		claims, more := w.claims.Told(id, row.Held, w.a.now())
		r.Claims, waiting = claims, waiting || more
		if !reflect.DeepEqual(r, p.report) {
			p.report = r
			changed = append(changed, r)
		}
		w.mu.Unlock()
	}
	if len(changed) > 0 {
		w.a.link.Report(nil, changed)
	}
	for id := range wake {
		if id != "" {
			w.a.queue.add(id)
		}
	}
	return waiting
}
