// Package hostview knows what each host must know: which rows of the cloud reach it, and
// in which form. A host is told of its own servers and ports, of the networks that have a
// port there, of those networks' ports elsewhere, of the routers that those may reach and
// that it is a gateway of, of these routers' networks and ports, of the groups of its ports,
// of the members and prefixes that those groups' rules refer to, of the floating addresses
// that it serves, of mirrors that begin or end there, and of volumes that it works on or its guests use; nothing else.
//
// It reads servers, ports, networks, subnets and their pools, security groups, rules, address groups,
// routers, floating IPs, port forwardings, QoS policies, tap services and flows, volumes, their
// snapshots and backups, and hosts;
// it writes nothing. A change costs work on the hosts that it concerns and on no others: one
// Engine follows the store for all hosts and marks rows of views as dirty; a View works its
// marks off against the newest snapshot. Every row is a pure function of the snapshot, so a
// mark too many costs a comparison and no more.
//
// May import: model, store, link (for the View interface). Must not import: a part, api, agent, datapath.
package hostview

import (
	"context"
	"hash/maphash"
	"log/slog"
	"sync"

	"yakumo/link"
	"yakumo/model"
	"yakumo/store"
)

// Engine follows the store for all hosts of this server process.
type Engine struct {
	// Unseal opens what stands sealed in the store at a place and a host is to know; nil: hosts are told no secrets. Set before Run.
	Unseal func(place string, sealed []byte) ([]byte, error)

	st    *store.Store
	log   *slog.Logger
	seed  maphash.Seed
	names names

	// gate keeps looking and dispatching apart: a view looks at current and works its marks
	// off under RLock; a delta becomes current and marks all that it may have changed under
	// Lock. So a view never sees a row ahead of the marks that come with it, and what it
	// registers below is there for the next delta. Taken before mu, mu before a view's mu.
	gate    sync.RWMutex
	current store.Snapshot
	sub     *store.Subscription // nil before Run

	mu    sync.Mutex
	views map[model.ID]map[*view]struct{} // by host; a host that attached anew may have two for a moment
	// concerned tells which views a change of something concerns. Networks and routers stand
	// here where the host knows them, rowPeers with the network where it knows the network's
	// ports, a group as rowMembers where it needs the members; other rows where it has them.
	concerned map[model.RowID]map[*view]struct{}
}

// Kinds of marks that are no rows.
const (
	rowReach   model.RowKind = "reach"   // the networks and routers that the host knows: one more network, or with no key all of them
	rowPeers   model.RowKind = "peers"   // a network whose ports the host knows
	rowMembers model.RowKind = "members" // a group whose members the host knows
)

var (
	all   = model.RowID{}               // the mark of "look at everything"
	reach = model.RowID{Kind: rowReach} // the mark of "walk anew"
)

// NewEngine makes an Engine; Run must be running for views to move.
func NewEngine(st *store.Store, log *slog.Logger) *Engine {
	return &Engine{st: st, log: log, current: st.Snapshot(), seed: maphash.MakeSeed(), views: map[model.ID]map[*view]struct{}{},
		concerned: map[model.RowID]map[*view]struct{}{}}
}

// unsealed gives what was sealed, "" where it cannot be opened.
func (e *Engine) unsealed(place string, sealed []byte) string {
	if len(sealed) == 0 || e.Unseal == nil {
		return ""
	}
	secret, err := e.Unseal(place, sealed)
	if err != nil {
		e.log.Error("a host is not told a secret", "place", place, "err", err)
		return ""
	}
	return string(secret)
}

// Run follows the store until ctx ends.
func (e *Engine) Run(ctx context.Context) error {
	sub := e.st.Subscribe(store.Servers.Kind(), store.Ports.Kind(), store.Networks.Kind(), store.Subnets.Kind(),
		store.SecurityGroups.Kind(), store.SecurityRules.Kind(), store.AddressGroups.Kind(), store.Hosts.Kind(),
		store.Routers.Kind(), store.FloatingIPs.Kind(), store.PortForwardings.Kind(), store.QoSPolicies.Kind(),
		store.TapServices.Kind(), store.TapFlows.Kind(), store.Settings.Kind(), store.SubnetPools.Kind(),
		store.Volumes.Kind(), store.VolumeSnapshots.Kind(), store.VolumeBackups.Kind())
	defer sub.Close()
	for {
		// sub is set once the first delta, which marks everything, is being worked off.
		d, err := sub.Next(ctx)
		if err != nil {
			return err
		}
		e.gate.Lock()
		before := e.current
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
			change{e, before, d.Snapshot}.dispatch(c)
		}
		e.mu.Unlock()
		e.gate.Unlock()
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

func row(kind model.RowKind, key string) model.RowID { return model.RowID{Kind: kind, Key: key} }
