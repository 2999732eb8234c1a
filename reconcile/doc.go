// Package reconcile runs controllers: functions that make the rows they write agree with
// the rows they read. There are two shapes and no third. A Whole looks at all of its inputs
// at once, for small tables. A Keyed looks at one key at a time, for large tables, and says
// which keys a change concerns.
//
// Both are level-triggered: a change only says "look again", so start-up, fail-over, retry
// and the normal case are one path. What fails is tried again with a growing pause; what
// nobody tells of is found by a resync. A controller runs under leadership: at most one
// process runs it, and every write is fenced, so that a former leader cannot commit.
//
// Reads what the controllers name; writes nothing itself. It knows no noun. May import:
// store, fault. Must not import: model, a part, api, agent.
package reconcile

import (
	"context"
	"log/slog"
	"time"

	"yakumo/store"
)

// Writer commits changes on behalf of a controller, fenced with its term of office.
type Writer interface {
	// Update is store.Store.Update; it reports store.ErrDeposed when the term has ended.
	Update(ctx context.Context, f func(*store.Tx) error) (int64, error)
}

// Result of a pass without an error. The zero value waits for the next change.
type Result struct {
	// After asks to look again after this time, whatever changes; 0: no need.
	After time.Duration
}

// Config is how controllers are run.
type Config struct {
	Store *store.Store
	// Identity names this process, unique in the cloud.
	Identity string
	// TTL is how long a dead leader is waited for; 0: the store's default.
	TTL time.Duration
	// MinBackoff and MaxBackoff bound the pause after a failure; defaults 50 ms and 30 s.
	MinBackoff, MaxBackoff time.Duration
	// Resync is how often everything is looked at even if nothing changes; default 10 min.
	Resync time.Duration
	// Workers is how many keys of one Keyed are worked on at once; default 4.
	Workers int
	Log     *slog.Logger
}

func (c *Config) defaults() {
	if c.MinBackoff == 0 {
		c.MinBackoff = 50 * time.Millisecond
	}
	if c.MaxBackoff == 0 {
		c.MaxBackoff = 30 * time.Second
	}
	if c.Resync == 0 {
		c.Resync = 10 * time.Minute
	}
	if c.Workers == 0 {
		c.Workers = 4
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
}

// pause gives the pause after the n-th failure in a row, n from 1.
func (c *Config) pause(n int) time.Duration {
	d := c.MinBackoff
	for ; n > 1 && d < c.MaxBackoff; n-- {
		d *= 2
	}
	return min(d, c.MaxBackoff)
}

// fenced is the Writer of a term of office.
type fenced struct {
	st   *store.Store
	term store.Term
}

func (w fenced) Update(ctx context.Context, f func(*store.Tx) error) (int64, error) {
	return w.st.Update(ctx, func(tx *store.Tx) error {
		tx.Fence(w.term)
		return f(tx)
	})
}

// Controller is a Whole or a Keyed.
type Controller interface {
	// Name is the election's name, unique in the cloud.
	Name() string
	// Reads are the tables whose changes wake the controller.
	Reads() []store.Kind
}

// Run runs the controller whenever this process is elected for it, until ctx ends. It
// panics on a Controller that is neither a Whole nor a Keyed: a wiring defect.
func Run(ctx context.Context, cfg Config, c Controller) {
	cfg.defaults()
	log := cfg.Log.With("controller", c.Name())
	var term func(context.Context, store.Term)
	switch c := c.(type) {
	case Whole:
		term = func(ctx context.Context, t store.Term) { runWhole(ctx, &cfg, log, c, fenced{cfg.Store, t}) }
	case Keyed:
		term = func(ctx context.Context, t store.Term) { runKeyed(ctx, &cfg, log, c, fenced{cfg.Store, t}) }
	default:
		panic("reconcile: " + c.Name() + " has neither shape")
	}
	cfg.Store.Lead(ctx, "controller-"+c.Name(), cfg.Identity, cfg.TTL, term)
}
