package switches

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"sync"
	"time"

	"yakumo/datapath"
	"yakumo/link"
	"yakumo/model"
	"yakumo/store"
)

// Config makes a Controller. All but TTL, URL and Log are needed.
type Config struct {
	Store *store.Store
	Views link.Views
	Sink  link.Sink
	// Open opens the driver of a switch. It need not wait for the switch.
	Open func(h *model.Host, ord datapath.Ordinals, notify func(datapath.Event)) (datapath.Driver, error)
	// Dir keeps the switches' small numbers, one file each. Another server has its own: when the
	// office moves, the switch's tracked connections begin anew.
	Dir      string
	Identity string        // of this server process
	URL      string        // where other servers reach it
	TTL      time.Duration // how long a switch may be away before it is down; 6 s
	Log      *slog.Logger
}

// Controller drives all such switches of the cloud from the server that is elected.
type Controller struct{ cfg Config }

// New makes a Controller.
func New(cfg Config) *Controller {
	if cfg.TTL == 0 {
		cfg.TTL = 6 * time.Second
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	return &Controller{cfg}
}

// Run drives switches whenever this process is elected for it, until ctx ends.
func (c *Controller) Run(ctx context.Context) {
	c.cfg.Store.Lead(ctx, "controller-switches", c.cfg.Identity, 0, func(ctx context.Context, term store.Term) { c.lead(ctx, term) })
}

// office is a switch that is driven now.
type office struct {
	host *model.Host
	stop context.CancelFunc
	done chan struct{}
}

// lead keeps one goroutine for each switch.
func (c *Controller) lead(ctx context.Context, term store.Term) {
	sub := c.cfg.Store.Subscribe(store.Hosts.Kind())
	defer sub.Close()
	running := map[model.ID]*office{}
	defer func() {
		for _, o := range running {
			o.stop()
			<-o.done
		}
	}()
	for {
		d, err := sub.Next(ctx)
		if err != nil {
			return
		}
		wanted := map[model.ID]*model.Host{}
		for h := range store.Hosts.All(d.Snapshot) {
			if h.Switch != nil {
				wanted[h.ID] = h
			}
		}
		for id, o := range running {
			if h := wanted[id]; h == nil || !reflect.DeepEqual(h.Switch, o.host.Switch) || h.TunnelIP != o.host.TunnelIP {
				o.stop()
				<-o.done
				delete(running, id)
			}
		}
		for id, h := range wanted {
			if running[id] != nil {
				continue
			}
			run, stop := context.WithCancel(ctx)
			o := &office{h, stop, make(chan struct{})}
			running[id] = o
			go func() {
				defer close(o.done)
				c.serve(run, h, term)
			}()
		}
	}
}

// serve drives one switch until ctx ends.
func (c *Controller) serve(ctx context.Context, h *model.Host, term store.Term) {
	log := c.cfg.Log.With("switch", h.Name)
	for ctx.Err() == nil {
		err := c.drive(ctx, h, term, log)
		if ctx.Err() != nil {
			return
		}
		log.Error("a switch is not driven; trying again", "err", err)
		select {
		case <-ctx.Done():
		case <-time.After(5 * time.Second):
		}
	}
}

func (c *Controller) drive(ctx context.Context, h *model.Host, term store.Term, log *slog.Logger) error {
	if err := os.MkdirAll(c.cfg.Dir, 0o700); err != nil {
		return err
	}
	ord, err := datapath.OpenOrdinals(filepath.Join(c.cfg.Dir, h.ID+".ordinals"))
	if err != nil {
		return err
	}
	defer ord.Close()
	wake := make(chan struct{}, 1)
	var mu sync.Mutex
	var claimed []datapath.Event // the driver bounds how many come
	drv, err := c.cfg.Open(h, ord, func(e datapath.Event) {
		if e.Kind == datapath.Claimed {
			mu.Lock()
			claimed = append(claimed, e)
			mu.Unlock()
		}
		select {
		case wake <- struct{}{}:
		default:
		}
	})
	if err != nil {
		return fmt.Errorf("open its driver: %w", err)
	}
	defer drv.Close()
	view := c.cfg.Views.Open(h.ID)
	defer view.Close()

	ctx, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop()
	batches := make(chan model.HostBatch)
	wg.Go(func() {
		for {
			b, err := view.Next(ctx)
			if err != nil {
				return
			}
			select {
			case batches <- b:
			case <-ctx.Done():
				return
			}
		}
	})
	wg.Go(func() { c.beat(ctx, h, term, drv, log) })
	p := &plug{drv: drv, host: h.ID, sink: c.cfg.Sink, log: log, rows: map[model.RowID]model.HostRow{}, devices: map[model.ID]string{}, faults: map[model.ID]string{}, told: map[model.ID]model.PortReport{}, claims: datapath.Claims{}}
	// What failed is tried again; a state that changed unheard is found.
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case b := <-batches:
			p.take(ctx, b)
		case <-wake:
		case <-tick.C:
		}
		mu.Lock()
		for _, e := range claimed {
			p.claims.Hear(e.Port, e.Claim, time.Now())
		}
		claimed = nil
		mu.Unlock()
		p.step(ctx)
	}
}

// beat keeps the switch's heartbeat in the store while its driver is connected.
func (c *Controller) beat(ctx context.Context, h *model.Host, term store.Term, drv datapath.Driver, log *slog.Logger) {
	var lease *store.Lease
	end := func() {
		if lease != nil {
			if err := lease.Close(context.WithoutCancel(ctx)); err != nil {
				log.Warn("the heartbeat of a switch goes with its lease", "err", err)
			}
			lease = nil
		}
	}
	defer end()
	tick := time.NewTicker(c.cfg.TTL / 6)
	defer tick.Stop()
	seen := time.Time{}
	for {
		if drv.Counters().Connected {
			seen = time.Now()
		}
		up := time.Since(seen) < c.cfg.TTL
		if lease != nil {
			select {
			case <-lease.Done():
				lease = nil
			default:
			}
		}
		switch {
		case !up:
			end()
		case lease == nil:
			l, err := c.cfg.Store.NewLease(ctx, c.cfg.TTL)
			if err == nil {
				lease = l
				_, err = c.cfg.Store.Update(ctx, func(tx *store.Tx) error {
					tx.Fence(term)
					if _, ok := store.Hosts.Get(tx, h.ID); !ok {
						return nil
					}
					return store.Heartbeats.PutLeased(tx, &model.Heartbeat{HostID: h.ID, Server: c.cfg.Identity, URL: c.cfg.URL, At: time.Now().UTC()}, l)
				})
			}
			if err != nil && ctx.Err() == nil {
				log.Warn("heartbeat of a switch", "err", err)
				end()
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
