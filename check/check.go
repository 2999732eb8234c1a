// Package check looks for what must never be: rows that contradict each other, and, with the hosts' own
// inventories, guests, taps and files that no row wants, or that are on two hosts. It changes nothing. It serves
// operators (yakumo check), the tests that kill processes, and whoever doubts.
//
// It reads every table that it has an opinion of. May import: fault, model, placement, store. Must not import:
// another part, api, agent, hypervisor, datapath.
package check

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"time"

	"yakumo/fault"
	"yakumo/model"
	"yakumo/placement"
	"yakumo/store"
)

// Finding is one thing that must not be.
type Finding struct {
	Rule   string `json:"rule"` // a stable name
	Kind   string `json:"kind"` // of what it is about: server, port, volume, host …
	ID     string `json:"id"`
	Host   string `json:"host,omitempty"` // by name, where a host has it
	Detail string `json:"detail"`
}

// String is a line for a log.
func (f Finding) String() string {
	at := ""
	if f.Host != "" {
		at = " on " + f.Host
	}
	return fmt.Sprintf("%s: %s %s%s: %s", f.Rule, f.Kind, f.ID, at, f.Detail)
}

// Report is what a check found.
type Report struct {
	At       time.Time `json:"at"`
	Revision int64     `json:"revision"` // of the state that was looked at
	Rows     int       `json:"rows"`     // that were looked at
	Hosts    int       `json:"hosts"`    // that were asked, where they were
	Silent   []string  `json:"silent"`   // names of hosts that did not answer: nothing is said of them
	Findings []Finding `json:"findings"`
}

// Checker checks a cloud.
type Checker struct {
	Store  *store.Store
	Ratios placement.Ratios
	// Ask puts a question to a host; nil: hosts cannot be asked.
	Ask   func(ctx context.Context, host model.ID, name string, body []byte) ([]byte, error)
	Again time.Duration // how long World waits before it looks once more; default 1 s
	Now   func() time.Time
}

// Rows checks that the rows of a snapshot agree with each other. What is under way is no finding:
// every commit leaves rows that hold these rules.
func (c *Checker) Rows(snap store.Snapshot) Report {
	now := time.Now
	if c.Now != nil {
		now = c.Now
	}
	w := &walk{snap: snap, ratios: c.Ratios.WithDefaults(), r: Report{At: now().UTC(), Revision: snap.Revision(), Findings: []Finding{}, Silent: []string{}}}
	w.servers()
	w.ports()
	w.migrations()
	w.volumes()
	w.hosts()
	slices.SortStableFunc(w.r.Findings, func(a, b Finding) int { return cmp.Or(cmp.Compare(a.Rule, b.Rule), cmp.Compare(a.ID, b.ID)) })
	return w.r
}

// World checks rows, and asks every host that is up what it really has. What differs is looked at once more on
// newer state, three times, so that what was on its way is no finding.
func (c *Checker) World(ctx context.Context) (Report, error) {
	first, err := c.world(ctx)
	if err != nil || len(first.Findings) == 0 {
		return first, err
	}
	for range 3 {
		select {
		case <-time.After(cmp.Or(c.Again, time.Second)):
		case <-ctx.Done():
			return first, ctx.Err()
		}
		again, err := c.world(ctx)
		if err != nil {
			return first, err
		}
		// Only what is there every time.
		again.Findings = slices.DeleteFunc(again.Findings, func(f Finding) bool {
			return !slices.ContainsFunc(first.Findings, func(o Finding) bool { return o.Rule == f.Rule && o.ID == f.ID && o.Host == f.Host })
		})
		if first = again; len(first.Findings) == 0 {
			break
		}
	}
	return first, nil
}

func (c *Checker) world(ctx context.Context) (Report, error) {
	if err := c.Store.Sync(ctx); err != nil {
		return Report{}, err
	}
	snap := c.Store.Snapshot()
	r := c.Rows(snap)
	if c.Ask == nil {
		return r, nil
	}
	have := map[model.ID]*model.Inventory{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	few := make(chan struct{}, 32)
	for h := range store.Hosts.All(snap) {
		if h.Switch != nil {
			continue
		}
		if !store.HostUp(snap, h) {
			r.Silent = append(r.Silent, h.Name)
			continue
		}
		wg.Go(func() {
			few <- struct{}{}
			defer func() { <-few }()
			inv, err := c.inventory(ctx, h.ID)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				r.Silent = append(r.Silent, h.Name)
				return
			}
			have[h.ID] = inv
		})
	}
	wg.Wait()
	slices.Sort(r.Silent)
	r.Hosts = len(have)
	// The hosts answered after the snapshot: rows of now decide what they may have.
	if err := c.Store.Sync(ctx); err != nil {
		return Report{}, err
	}
	r.Findings = append(r.Findings, compare(c.Store.Snapshot(), have)...)
	slices.SortStableFunc(r.Findings, func(a, b Finding) int { return cmp.Or(cmp.Compare(a.Rule, b.Rule), cmp.Compare(a.ID, b.ID)) })
	return r, nil
}

func (c *Checker) inventory(ctx context.Context, host model.ID) (*model.Inventory, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	b, err := c.Ask(ctx, host, "inventory", []byte("{}"))
	if err != nil {
		return nil, err
	}
	inv := new(model.Inventory)
	if err := json.Unmarshal(b, inv); err != nil {
		return nil, fault.Wrap(fault.Internal, err, "The host's inventory is malformed.")
	}
	return inv, nil
}
