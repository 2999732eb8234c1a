package ovsdb

import (
	"fmt"
	"maps"
)

// A Change is what became of one row.
type Change struct {
	Table string
	UUID  UUID
	Old   *Row // nil: the row is new
	New   *Row // nil: the row is gone
}

// A dialect is which of the monitor requests the server knows, and so in which form it
// sends updates.
type dialect uint8

const (
	dialectSince dialect = iota // monitor_cond_since, update3
	dialectCond                 // monitor_cond, update2
	dialectPlain                // monitor, update (RFC 7047)
)

var monitorMethods = [...]string{"monitor_cond_since", "monitor_cond", "monitor"}
var updateMethods = [...]string{"update3", "update2", "update"}

// noTxn is the transaction id before the first one; a server without history answers
// with it too.
const noTxn = "00000000-0000-0000-0000-000000000000"

// A batch takes table updates into a new Snapshot.
type batch struct {
	edit    *edit
	next    *Snapshot
	owned   map[string]bool
	changes []Change
}

func newBatch(from *Snapshot) *batch {
	return &batch{edit: new(edit), owned: map[string]bool{},
		next: &Snapshot{schema: from.schema, tables: maps.Clone(from.tables), serial: from.serial + 1}}
}

// table gives the table's view in a form that the batch may change.
func (b *batch) table(name string) *tableView {
	t := b.next.tables[name]
	if t == nil || b.owned[name] {
		return t
	}
	t = &tableView{layout: t.layout, plan: t.plan, rows: t.rows, indexes: maps.Clone(t.indexes)}
	b.next.tables[name] = t
	b.owned[name] = true
	return t
}

// read takes in a <table-updates> (RFC 7047, 4.1.6), or the form of it that update2 and
// update3 have (ovsdb-server(7)).
func (b *batch) read(raw []byte, d dialect) error {
	c := &cursor{b: raw}
	err := c.object(func(name []byte) error {
		t := b.table(string(name))
		if t == nil {
			return c.fail("table %.40q was not asked for", name)
		}
		return c.object(func(key []byte) error {
			id, err := ParseUUID(string(key))
			if err != nil {
				return c.fail("%v", err)
			}
			old, _ := t.rows.get(id)
			var r *Row
			if d == dialectPlain {
				r, err = c.rowUpdate(t.layout, id, old)
			} else {
				r, err = c.rowUpdate2(t.layout, id, old)
			}
			if err != nil {
				return fmt.Errorf("row %v of %s: %w", id, t.layout.table, err)
			}
			if old == nil && r == nil {
				return nil
			}
			t.put(b.edit, id, r)
			b.changes = append(b.changes, Change{Table: t.layout.table, UUID: id, Old: old, New: r})
			return nil
		})
	})
	if err != nil {
		return err
	}
	return c.end()
}

// rowUpdate reads a <row-update> and gives the row after it, nil where it is gone.
func (c *cursor) rowUpdate(l *layout, id UUID, old *Row) (*Row, error) {
	var r *Row
	err := c.object(func(key []byte) (err error) {
		switch string(key) {
		case "new":
			r, err = c.row(l, id, old, values)
			return err
		case "old":
			return c.skip()
		}
		return c.fail("unknown member %.40q of an update", key)
	})
	return r, err
}

// rowUpdate2 reads a <row-update2> and gives the row after it, nil where it is gone.
func (c *cursor) rowUpdate2(l *layout, id UUID, old *Row) (*Row, error) {
	var r *Row
	n := 0
	err := c.object(func(key []byte) (err error) {
		n++
		switch string(key) {
		case "initial", "insert":
			r, err = c.row(l, id, nil, differences)
		case "modify":
			if old == nil {
				return c.fail("a row is modified that is not there")
			}
			r, err = c.row(l, id, old, differences)
		case "delete":
			err = c.skip()
		default:
			err = c.fail("unknown member %.40q of an update", key)
		}
		return err
	})
	if err == nil && n != 1 {
		err = c.fail("an update has %d members, not one", n)
	}
	return r, err
}

// settle compares a batch that read everything anew with what was there before: rows
// that are the same stay the same *Row, and only real changes are left.
func (b *batch) settle(before *Snapshot) {
	b.changes = nil
	for name, was := range before.tables {
		t := b.next.tables[name]
		for id, old := range was.rows.all() {
			var r *Row
			if t != nil {
				r, _ = t.rows.get(id)
			}
			switch {
			case r == nil:
				b.changes = append(b.changes, Change{Table: name, UUID: id, Old: old})
			case old.layout == r.layout && old.equal(r):
				b.table(name).rows = b.table(name).rows.set(b.edit, id, old)
			case !old.layout.equal(r.layout) || !old.equal(r):
				b.changes = append(b.changes, Change{Table: name, UUID: id, Old: old, New: r})
			}
		}
	}
	for name, t := range b.next.tables {
		was := before.tables[name]
		for id, r := range t.rows.all() {
			if was != nil {
				if _, ok := was.rows.get(id); ok {
					continue
				}
			}
			b.changes = append(b.changes, Change{Table: name, UUID: id, New: r})
		}
	}
}

// A Watch gathers changes until its user takes them. Many changes of one row between two
// takes are one: what is held is bounded by the number of rows, not by time.
type Watch struct {
	client  *Client
	tables  map[string]bool // empty: all
	ready   chan struct{}
	pending map[rowKey]int // place in changes; guarded by client.mu
	changes []Change
}

type rowKey struct {
	table string
	uuid  UUID
}

// Ready has an element when there is something to Take.
func (w *Watch) Ready() <-chan struct{} { return w.ready }

// Take gives the changes since the last Take, in the order in which rows first changed.
// There may be none.
func (w *Watch) Take() []Change {
	w.client.mu.Lock()
	defer w.client.mu.Unlock()
	out := make([]Change, 0, len(w.changes))
	for _, ch := range w.changes {
		if ch.Old != ch.New { // it came and went
			out = append(out, ch)
		}
	}
	w.changes = nil
	clear(w.pending)
	return out
}

// Close ends the watch.
func (w *Watch) Close() {
	w.client.mu.Lock()
	defer w.client.mu.Unlock()
	delete(w.client.watches, w)
}

// add merges changes; the client's mu is held.
func (w *Watch) add(changes []Change) {
	signal := false
	for _, ch := range changes {
		if len(w.tables) > 0 && !w.tables[ch.Table] {
			continue
		}
		signal = true
		key := rowKey{ch.Table, ch.UUID}
		if i, ok := w.pending[key]; ok {
			w.changes[i].New = ch.New
			continue
		}
		w.pending[key] = len(w.changes)
		w.changes = append(w.changes, ch)
	}
	if signal {
		select {
		case w.ready <- struct{}{}:
		default:
		}
	}
}
