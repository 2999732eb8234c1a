package ovsdb

import (
	"fmt"
	"iter"
	"reflect"
	"slices"
	"sync/atomic"
)

// A layout is the columns that rows of a table have, in the order of their values.
type layout struct {
	table   string
	columns []*Column
	index   map[string]int
}

func newLayout(t *TableSchema, names []string) (*layout, error) {
	l := &layout{table: t.Name, index: make(map[string]int, len(names))}
	for _, name := range names {
		c, err := t.Column(name)
		if err != nil {
			return nil, err
		}
		if _, ok := l.index[name]; ok || name[0] == '_' {
			continue
		}
		l.index[name] = len(l.columns)
		l.columns = append(l.columns, c)
	}
	return l, nil
}

// equal tells whether rows of the one layout may stand beside rows of the other.
func (l *layout) equal(m *layout) bool {
	return slices.EqualFunc(l.columns, m.columns, func(a, b *Column) bool {
		return a.Name == b.Name && reflect.DeepEqual(a.Type, b.Type)
	})
}

// A Row is one row at one moment; it never changes.
type Row struct {
	uuid   UUID
	layout *layout
	vals   []Value
	model  atomic.Value // the decoded Model, made on first use
}

// UUID names the row.
func (r *Row) UUID() UUID { return r.uuid }

// Table is the name of the row's table.
func (r *Row) Table() string { return r.layout.table }

// Value gives a column's value; false for a column that was not asked for.
func (r *Row) Value(column string) (Value, bool) {
	i, ok := r.layout.index[column]
	if !ok {
		return Value{}, false
	}
	return r.vals[i], true
}

// equal tells whether both rows hold the same.
func (r *Row) equal(s *Row) bool { return slices.EqualFunc(r.vals, s.vals, Value.Equal) }

// A form is what the columns in a row from the server hold.
type form uint8

const (
	values      form = iota
	differences      // to what was there before (update2, update3)
)

// row reads a row's columns from the cursor: over an older row, or over the zero values
// where old is nil.
func (c *cursor) row(l *layout, id UUID, old *Row, f form) (*Row, error) {
	r := &Row{uuid: id, layout: l, vals: make([]Value, len(l.columns))}
	if old != nil {
		copy(r.vals, old.vals)
	}
	err := c.object(func(key []byte) error {
		i, ok := l.index[string(key)]
		if !ok {
			if string(key) == "_uuid" {
				a, err := c.atom(KindUUID)
				r.uuid = a.uuid
				return err
			}
			if string(key) == "_version" {
				return c.skip()
			}
			return c.fail("column %.40q was not asked for", key)
		}
		t := &l.columns[i].Type
		v, err := c.value(t)
		if err != nil {
			return fmt.Errorf("column %s: %w", key, err)
		}
		if f == differences {
			v = r.vals[i].patched(v, t)
		}
		if err := t.checkCount(v); err != nil {
			return c.fail("column %s: %v", key, err)
		}
		r.vals[i] = v
		return nil
	})
	if err == nil && old == nil {
		for i, v := range r.vals {
			if v.Len() == 0 {
				r.vals[i] = l.columns[i].Type.zero()
			}
		}
	}
	return r, err
}

// A tableView is one table of a Snapshot.
type tableView struct {
	layout  *layout
	plan    *plan
	rows    pmap[UUID, *Row]
	indexes map[string]pmap[Atom, []UUID] // column → atom in it → rows
}

func newTableView(l *layout, p *plan, indexes []string) (*tableView, error) {
	t := &tableView{layout: l, plan: p, rows: newPmap[UUID, *Row](), indexes: map[string]pmap[Atom, []UUID]{}}
	for _, column := range indexes {
		if _, ok := l.index[column]; !ok {
			return nil, fmt.Errorf("table %s: index on column %q, which is not replicated", l.table, column)
		}
		t.indexes[column] = newPmap[Atom, []UUID]()
	}
	return t, nil
}

// put gives the view with row id as r, or without it where r is nil. t itself is changed
// where the batch e owns it (see replica.table).
func (t *tableView) put(e *edit, id UUID, r *Row) {
	old, _ := t.rows.get(id)
	for column, index := range t.indexes {
		i := t.layout.index[column]
		if old != nil && r != nil && old.vals[i].Equal(r.vals[i]) {
			continue
		}
		if old != nil {
			for _, a := range old.vals[i].keys {
				ids, _ := index.get(a)
				rest := make([]UUID, 0, len(ids))
				for _, other := range ids {
					if other != id {
						rest = append(rest, other)
					}
				}
				if len(rest) == 0 {
					index = index.del(e, a)
				} else {
					index = index.set(e, a, rest)
				}
			}
		}
		if r != nil {
			for _, a := range r.vals[i].keys {
				ids, _ := index.get(a)
				index = index.set(e, a, append(slices.Clip(slices.Clone(ids)), id))
			}
		}
		t.indexes[column] = index
	}
	if r == nil {
		t.rows = t.rows.del(e, id)
	} else {
		t.rows = t.rows.set(e, id, r)
	}
}

// A Snapshot is the replica at one moment: all tables as one transaction of the server
// left them. It never changes and may be kept.
type Snapshot struct {
	schema *Schema
	tables map[string]*tableView
	serial uint64
}

// Serial counts the updates that the replica has taken in; a later Snapshot of the same
// Client has a larger one.
func (s *Snapshot) Serial() uint64 { return s.serial }

// Schema gives the database's schema as it was read at the last connect.
func (s *Snapshot) Schema() *Schema { return s.schema }

// Row finds a row of a replicated table.
func (s *Snapshot) Row(table string, id UUID) (*Row, bool) {
	t := s.tables[table]
	if t == nil {
		return nil, false
	}
	return t.rows.get(id)
}

// Rows gives all rows of a replicated table in no particular order.
func (s *Snapshot) Rows(table string) iter.Seq[*Row] {
	return func(yield func(*Row) bool) {
		t := s.tables[table]
		if t == nil {
			return
		}
		for _, r := range t.rows.all() {
			if !yield(r) {
				return
			}
		}
	}
}

// Len gives the number of rows of a replicated table.
func (s *Snapshot) Len(table string) int {
	if t := s.tables[table]; t != nil {
		return t.rows.len()
	}
	return 0
}

// Lookup finds the rows whose column holds key: is it, has it in its set, or has it as a
// key of its map. It is fast where the column is indexed and reads the table where not.
// An unknown table or column is an error.
func (s *Snapshot) Lookup(table, column string, key Atom) ([]*Row, error) {
	t := s.tables[table]
	if t == nil {
		return nil, fmt.Errorf("table %q is not replicated", table)
	}
	i, ok := t.layout.index[column]
	if !ok {
		return nil, fmt.Errorf("column %q of table %s is not replicated", column, table)
	}
	var rows []*Row
	if index, ok := t.indexes[column]; ok {
		ids, _ := index.get(key)
		for _, id := range ids {
			if r, ok := t.rows.get(id); ok {
				rows = append(rows, r)
			}
		}
		return rows, nil
	}
	for _, r := range t.rows.all() {
		if r.vals[i].Contains(key) {
			rows = append(rows, r)
		}
	}
	return rows, nil
}

// view gives the table of model type T.
func view[T Model](s *Snapshot) (*tableView, error) {
	want := reflect.TypeFor[T]()
	if want.Kind() != reflect.Struct {
		return nil, fmt.Errorf("model %v is not a struct", want)
	}
	var zero T
	t := s.tables[zero.TableName()]
	if t == nil || t.plan == nil || t.plan.typ != want {
		return nil, fmt.Errorf("model %v is not that of a replicated table", want)
	}
	return t, nil
}

// decoded gives the row as its table's model. The maps and slices in it belong to the
// row: they must not be changed.
func decoded[T Model](p *plan, r *Row) (T, error) {
	if m, ok := r.model.Load().(T); ok {
		return m, nil
	}
	var m T
	if err := p.decode(r, reflect.ValueOf(&m).Elem()); err != nil {
		return m, err
	}
	r.model.CompareAndSwap(nil, m)
	return m, nil
}

// Get gives a row as its table's Model. Maps and slices in the result are shared with
// other readers and must not be changed. The error says that T is not the model of a
// replicated table or that a value does not fit its field; a row that does not exist is
// false without an error.
func Get[T Model](s *Snapshot, id UUID) (T, bool, error) {
	var none T
	t, err := view[T](s)
	if err != nil {
		return none, false, err
	}
	r, ok := t.rows.get(id)
	if !ok {
		return none, false, nil
	}
	m, err := decoded[T](t.plan, r)
	return m, err == nil, err
}

// List gives all rows of T's table, in no particular order, as Get does each.
func List[T Model](s *Snapshot) ([]T, error) {
	t, err := view[T](s)
	if err != nil {
		return nil, err
	}
	out := make([]T, 0, t.rows.len())
	for _, r := range t.rows.all() {
		m, err := decoded[T](t.plan, r)
		if err != nil {
			return nil, err
		}
		out = append(out, m)
	}
	return out, nil
}

// Find gives the rows of T's table whose column holds key, as Lookup does; key is a Go value
// of a scalar's type, or an Atom.
func Find[T Model](s *Snapshot, column string, key any) ([]T, error) {
	t, err := view[T](s)
	if err != nil {
		return nil, err
	}
	v, err := ValueOf(key)
	if err != nil {
		return nil, err
	}
	a, ok := v.Atom()
	if !ok {
		return nil, fmt.Errorf("key %v is not one value", v)
	}
	rows, err := s.Lookup(t.layout.table, column, a)
	if err != nil {
		return nil, err
	}
	out := make([]T, 0, len(rows))
	for _, r := range rows {
		m, err := decoded[T](t.plan, r)
		if err != nil {
			return nil, err
		}
		out = append(out, m)
	}
	return out, nil
}

// As gives a row, such as that of a Change or of a select, as a Model.
func As[T Model](r *Row) (T, error) {
	var m T
	if m, ok := r.model.Load().(T); ok {
		return m, nil
	}
	if t := reflect.TypeFor[T](); t.Kind() != reflect.Struct {
		return m, fmt.Errorf("model %v is not a struct", t)
	}
	p, err := newPlan(m)
	if err != nil {
		return m, err
	}
	if p.table != r.layout.table {
		return m, fmt.Errorf("a row of %s is not one of %s", r.layout.table, p.table)
	}
	return m, p.decode(r, reflect.ValueOf(&m).Elem())
}
