package compute_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"testing"
	"time"

	"yakumo/compute"
	"yakumo/compute/computetest"
	"yakumo/model"
	"yakumo/network"
	"yakumo/reconcile"
	"yakumo/store"
	"yakumo/store/storetest"
)

const (
	project  = "11111111111111111111111111111111"
	patience = 90 * time.Second
)

var quiet = slog.New(slog.DiscardHandler)

// world is a state with the rules of compute and network over it.
type world struct {
	t       testing.TB
	s       *store.Store
	c       *compute.Compute
	net     *network.Network
	network model.ID
	flavor  model.Flavor
	hosts   []*computetest.Host
	wire    *computetest.Wire
	n       int // requests made
}

func newWorld(t testing.TB) *world {
	t.Helper()
	return worldOn(t, storetest.New(t))
}

func worldOn(t testing.TB, s *store.Store) *world {
	t.Helper()
	none := map[string]int{}
	for k := range compute.DefaultQuotas() {
		none[k] = -1
	}
	n := network.New(network.Config{Log: quiet, Defaults: map[string]int{"network": -1, "subnet": -1, "port": -1, "security_group": -1, "security_group_rule": -1}})
	w := &world{t: t, s: s, net: n, c: compute.New(compute.Config{Store: s, Ports: n, Log: quiet, Defaults: none, DeadAfter: 20 * time.Millisecond, DrainPause: 10 * time.Millisecond}),
		wire:   &computetest.Wire{},
		flavor: model.Flavor{ID: "1", Name: "tiny", VCPUs: 1, MemoryMiB: 128, DiskGiB: 1, Public: true}}
	return w
}

// furnish makes a network.
func (w *world) furnish() {
	w.t.Helper()
	name, dhcp := "n", true
	w.update(func(tx *store.Tx) error {
		net, err := w.net.CreateNetwork(tx, network.Scope{ProjectID: project}, network.NetworkSpec{Name: &name})
		if err != nil {
			return err
		}
		w.network = net.ID
		cidr := netip.MustParsePrefix("10.0.0.0/20")
		_, err = w.net.CreateSubnet(tx, network.Scope{ProjectID: project}, network.SubnetSpec{NetworkID: net.ID, CIDR: cidr, DHCP: &dhcp})
		return err
	})
}

func (w *world) update(f func(tx *store.Tx) error) {
	w.t.Helper()
	if _, err := w.s.Update(context.Background(), f); err != nil {
		w.t.Fatal(err)
	}
}

// run runs the controllers until the test, or what it gives, ends them.
func (w *world) run(identity string) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for _, ctl := range []reconcile.Controller{w.c.Placer(), w.c.Sweeper(), w.c.Mover(), w.c.Absence(), w.c.Drainer(), w.c.Relocator()} {
		wg.Go(func() {
			reconcile.Run(ctx, reconcile.Config{Store: w.s, Identity: identity, TTL: time.Second, MinBackoff: time.Millisecond, Log: quiet}, ctl)
		})
	}
	stop = func() { cancel(); wg.Wait() }
	w.t.Cleanup(stop)
	return stop
}

// row adds a host's row.
func (w *world) row(name string, change ...func(*model.Host)) *model.Host {
	w.t.Helper()
	h := &model.Host{Meta: model.NewMeta("", name, time.Now()), Zone: "nova", TunnelIP: netip.MustParseAddr("192.0.2.1"), Underlay: 1500,
		Capacity: model.HostCapacity{VCPUs: 64, MemoryMiB: 65536, DiskGiB: 1000, Arch: "x86_64"}}
	for _, f := range change {
		f(h)
	}
	w.update(func(tx *store.Tx) error {
		if err := store.Hosts.Put(tx, h); err != nil {
			return err
		}
		return store.Heartbeats.Put(tx, &model.Heartbeat{HostID: h.ID, At: time.Now()})
	})
	return h
}

// host adds a host that acts.
func (w *world) host(name string, fail func(*model.Server) *model.Fault, change ...func(*model.Host)) *computetest.Host {
	w.t.Helper()
	h := computetest.Start(w.t, computetest.Config{Store: w.s, Sink: w.c, Host: w.row(name, change...).ID, Fail: fail, Wire: w.wire})
	w.hosts = append(w.hosts, h)
	return h
}

func (w *world) scope() compute.Scope {
	w.n++
	return compute.Scope{ProjectID: project, UserID: "u", RequestID: fmt.Sprintf("req-%06d", w.n)}
}

var image = &model.Image{Meta: model.Meta{ID: "55555555-5555-4555-8555-555555555555"}, Status: model.ImageActive, VirtualSize: 1 << 20}

// create makes a server with a port in one transaction.
func (w *world) create(change ...func(*compute.NewServer)) *model.Server {
	w.t.Helper()
	var s *model.Server
	sc := w.scope()
	n := compute.NewServer{ID: model.NewID(), Name: "web", Flavor: &w.flavor, Image: image, Received: time.Now()}
	for _, f := range change {
		f(&n)
	}
	w.update(func(tx *store.Tx) (err error) {
		n := n
		if w.network != "" && n.Ports == nil {
			owner := "compute:nova"
			p, err := w.net.CreatePort(tx, network.Scope{ProjectID: project}, network.PortSpec{NetworkID: w.network, DeviceID: &n.ID, DeviceOwner: &owner, Owned: true})
			if err != nil {
				return err
			}
			n.Ports = []model.ID{p.ID}
		}
		s, err = w.c.Create(tx, sc, n)
		return err
	})
	return s
}

func (w *world) get(id model.ID) *model.Server {
	w.t.Helper()
	s, ok := store.Servers.Get(w.s.Snapshot(), id)
	if !ok {
		w.t.Fatalf("server %s is gone", id)
	}
	return s
}

// wait waits for a state of the store.
func (w *world) wait(what string, ok func(store.Snapshot) bool) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	sub := w.s.Subscribe()
	defer sub.Close()
	for {
		d, err := sub.Next(ctx)
		if err != nil {
			var now []string
			for s := range store.Servers.All(w.s.Snapshot()) {
				now = append(now, fmt.Sprintf("%s host=%.8s gen=%d power=%s reboots=%d/%d %+v", s.ID[:8], s.Host, s.Generation, s.Power, s.Reboots, s.HardReboots, s.Status))
			}
			w.t.Fatalf("not in %s: %s: %q", patience, what, now)
		}
		if ok(d.Snapshot) {
			return
		}
	}
}

func (w *world) phase(id model.ID, p model.Phase) *model.Server {
	w.t.Helper()
	var s *model.Server
	w.wait(fmt.Sprintf("server %s %s", id, p), func(snap store.Snapshot) (ok bool) {
		s, ok = store.Servers.Get(snap, id)
		return ok && s.Status.Phase == p && s.Status.Task == ""
	})
	return s
}

func (w *world) gone(id model.ID) {
	w.t.Helper()
	w.wait("server "+id+" gone", func(snap store.Snapshot) bool { _, ok := store.Servers.Get(snap, id); return !ok })
}

func (w *world) do(f func(*store.Tx, compute.Scope, model.ID) (*model.Server, error), id model.ID) error {
	sc := w.scope()
	_, err := w.s.Update(context.Background(), func(tx *store.Tx) error { _, err := f(tx, sc, id); return err })
	return err
}

func (w *world) delete(id model.ID) error {
	sc := w.scope()
	_, err := w.s.Update(context.Background(), func(tx *store.Tx) error { return w.c.Delete(tx, sc, id) })
	return err
}

func (w *world) report(host model.ID, r model.ServerReport) {
	w.t.Helper()
	if err := w.c.ServerReports(context.Background(), host, []model.ServerReport{r}); err != nil {
		w.t.Fatal(err)
	}
}

// action gives the newest action of a name.
func (w *world) action(id model.ID, name string) *model.Action {
	var out *model.Action
	for a := range store.Actions.List(w.s.Snapshot(), "server", id) {
		if a.Action == name && (out == nil || a.StartedAt.After(out.StartedAt)) {
			out = a
		}
	}
	return out
}

// within waits for what no row tells of.
func (w *world) within(ok func() bool) {
	w.t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	deadline := time.After(patience)
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			return // the caller tells what is missing
		}
	}
}
