package ovsdb

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"
)

// ErrNotApplied is why Apply failed although the transaction is committed: the switch has not yet
// done what it says.
var ErrNotApplied = errors.New("committed, but not in force yet")

// DefaultApplyTimeout is how long a Switch waits for ovs-vswitchd where ctx has no deadline.
const DefaultApplyTimeout = 30 * time.Second

// A Switch is a Client of the Open_vSwitch database. Its methods wait until what they
// ask for is in force, at most until ctx's deadline, or DefaultApplyTimeout where it has none.
type Switch struct {
	client *Client
}

// OpenSwitch opens a Client of the Open_vSwitch database and makes that database's root row
// where it is missing, as "ovs-vsctl init" does. An empty cfg.Database or cfg.Tables means
// SwitchDatabase and SwitchTables; other tables must have at least those for Root, Bridge,
// Port, Interface and Controller.
func OpenSwitch(ctx context.Context, cfg Config) (*Switch, error) {
	cfg.Database = orElse(cfg.Database, SwitchDatabase)
	if len(cfg.Tables) == 0 {
		cfg.Tables = SwitchTables()
	}
	c, err := Open(ctx, cfg)
	if err != nil {
		return nil, err
	}
	s := &Switch{client: c}
	if err := s.init(ctx); err != nil {
		c.Close()
		return nil, fmt.Errorf("open switch: %w", err)
	}
	return s, nil
}

func (s *Switch) init(ctx context.Context) error {
	snap := s.client.Snapshot()
	for _, check := range []func(*Snapshot) (*tableView, error){view[Root], view[Bridge], view[Port], view[Interface], view[Controller]} {
		if _, err := check(snap); err != nil {
			return err
		}
	}
	if snap.Len("Open_vSwitch") > 0 {
		return nil
	}
	t := NewTxn()
	t.InsertRow("Open_vSwitch", nil)
	// The table holds one row at most: of two who try at once, one is refused.
	if _, err := s.client.Transact(ctx, t); err != nil && !errors.Is(err, ConstraintViolation) {
		return fmt.Errorf("make root row: %w", err)
	}
	return nil
}

// Client gives the client, for reads and for transactions of one's own.
func (s *Switch) Client() *Client { return s.client }

// Close ends the client. The switch itself goes on as it is.
func (s *Switch) Close() { s.client.Close() }

// root gives the root row.
func root(snap *Snapshot) (Root, error) {
	rows, err := List[Root](snap)
	if err == nil && len(rows) != 1 {
		err = fmt.Errorf("table Open_vSwitch has %d rows, not one", len(rows))
	}
	if err != nil {
		return Root{}, err
	}
	return rows[0], nil
}

// Apply commits a transaction and waits until ovs-vswitchd has it in force: it raises next_cfg in
// the same transaction and waits until cur_cfg is as high. Beside the errors of Transact
// there is ErrNotApplied. That it is in force does not mean that every interface could
// be made: see Interface.Error.
func (s *Switch) Apply(ctx context.Context, t *Txn) (*Result, error) {
	ctx, cancel := deadline(ctx)
	defer cancel()
	with := *t
	with.ops = append(t.ops[:len(t.ops):len(t.ops)],
		op{kind: "mutate", table: "Open_vSwitch", muts: []Mutation{{"next_cfg", "+=", 1}}},
		op{kind: "select", table: "Open_vSwitch", columns: []string{"next_cfg"}})
	res, err := s.client.Transact(ctx, &with)
	if err != nil {
		return nil, err
	}
	rows := res.Ops[len(res.Ops)-1].Rows
	res.Ops = res.Ops[:len(t.ops)]
	if len(rows) != 1 {
		return res, fmt.Errorf("%w: table Open_vSwitch has %d rows, not one", ErrNotApplied, len(rows))
	}
	v, _ := rows[0].Value("next_cfg")
	n, _ := v.Atom()
	return res, s.inForce(ctx, n.Int())
}

// inForce waits until the switch has done all up to configuration n.
func (s *Switch) inForce(ctx context.Context, n int64) error {
	var cur int64
	err := s.client.Wait(ctx, func(snap *Snapshot) (bool, error) {
		r, err := root(snap)
		cur = r.CurCfg
		return cur >= n, err
	})
	if err != nil {
		return fmt.Errorf("%w: the switch is at configuration %d, not %d: %w", ErrNotApplied, cur, n, err)
	}
	return nil
}

func deadline(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, DefaultApplyTimeout)
}

// converge makes the database what plan wants: plan looks at a snapshot and adds what is
// missing to the transaction, always in the same order; nothing means that all is well. The
// plan may be made several times, where others change the database at the same time or
// the connection breaks. changed tells whether anything was done.
func (s *Switch) converge(ctx context.Context, plan func(*Snapshot, *Txn) error) (changed bool, err error) {
	var refused []byte
	for {
		// After a break the replica is right again only with the next connection.
		if _, err := s.client.connected(ctx); err != nil {
			return changed, err
		}
		snap := s.client.Snapshot()
		t := NewTxn()
		if err := plan(snap, t); err != nil {
			return changed, err
		}
		if t.Len() == 0 {
			r, err := root(snap)
			if err != nil {
				return changed, err
			}
			return changed, s.inForce(ctx, r.NextCfg)
		}
		request, err := t.encode(snap.schema)
		if err != nil {
			return changed, err
		}
		res, err := s.Apply(ctx, t)
		switch {
		case err == nil:
			changed = true
			if complete(t, res) {
				return true, nil
			}
			err = errors.New("the database changes all the time")
		case errors.Is(err, ErrNotApplied) || ctx.Err() != nil:
			return true, err
		case errors.Is(err, ErrOutcomeUnknown), errors.Is(err, ErrNotConnected):
			continue // paced by the reconnect
		case errors.Is(err, ConstraintViolation), errors.Is(err, ReferentialError):
			// Perhaps another has just done it; what that other did arrived before the refusal.
		default:
			return changed, err
		}
		if bytes.Equal(request, refused) { // nothing that matters is different: it is our own fault
			return changed, err
		}
		refused = request
	}
}

// complete tells whether every change met a row.
func complete(t *Txn, res *Result) bool {
	for i, o := range t.ops {
		if (o.kind == "update" || o.kind == "mutate") && res.Ops[i].Count == 0 {
			return false
		}
	}
	return true
}
