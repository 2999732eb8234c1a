package ovsdb

import (
	"crypto/rand"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"time"
)

// A Condition restricts rows: Column Op Value (RFC 7047, 5.1, <condition>). Op is one of
// == != < <= > >= includes excludes; Value is what ValueOf takes.
type Condition struct {
	Column string
	Op     string
	Value  any
}

// A Mutation changes a column (RFC 7047, 5.1, <mutation>). Op is one of += -= *= /= %= on
// numbers, insert and delete on sets and maps; delete on a map takes a set of keys or a map
// of whole pairs.
type Mutation struct {
	Column string
	Op     string
	Value  any
}

// Equal makes the condition column == value.
func Equal(column string, value any) Condition { return Condition{column, "==", value} }

// ByUUID makes the condition that the row is id.
func ByUUID(id UUID) Condition { return Condition{"_uuid", "==", id} }

// Columns is a row in the making: column name to what ValueOf takes.
type Columns map[string]any

// A Txn is a list of operations that are done all or none (RFC 7047, 4.1.3). Errors in the
// making show when it is sent. A Txn may be sent again; it is for one goroutine.
type Txn struct {
	ops  []op
	news map[UUID]string // rows to insert: stand-in → uuid-name
	err  error
}

type op struct {
	kind    string
	table   string
	where   []Condition
	rows    []Columns // insert, update: one; wait: any number
	columns []string
	muts    []Mutation
	name    string // insert: uuid-name; wait: until; comment, assert: text
	timeout time.Duration
}

// NewTxn makes an empty transaction.
func NewTxn() *Txn { return &Txn{news: map[UUID]string{}} }

// Len gives the number of operations.
func (t *Txn) Len() int { return len(t.ops) }

// Insert adds a row of a Model (RFC 7047, 5.2.1); fields of the zero value are left to the
// database, whose default is the same. The UUID that it gives stands for the row in other
// operations of this transaction only; Result.UUID has the real one.
func (t *Txn) Insert(m Model) UUID {
	row, table, _, err := columnsOf(m, nil)
	if err != nil {
		t.fail("insert", err)
	}
	return t.InsertRow(table, row)
}

// InsertRow is Insert for a row without a Model.
func (t *Txn) InsertRow(table string, row Columns) UUID {
	var id UUID
	rand.Read(id[:]) // never fails
	name := "row" + strconv.Itoa(len(t.news)+1)
	t.news[id] = name
	t.ops = append(t.ops, op{kind: "insert", table: table, rows: []Columns{row}, name: name})
	return id
}

// Update sets the named columns of the row that m's _uuid field names to the values in m
// (RFC 7047, 5.2.3); also to zero values.
func (t *Txn) Update(m Model, columns ...string) {
	row, table, id, err := columnsOf(m, columns)
	switch {
	case err != nil:
	case len(columns) == 0:
		err = errors.New("no columns named")
	case id.IsZero():
		err = fmt.Errorf("model %T names no row", m)
	}
	if err != nil {
		t.fail("update", err)
	}
	t.UpdateRows(table, row, ByUUID(id))
}

// UpdateRows sets columns of all rows that meet every condition.
func (t *Txn) UpdateRows(table string, row Columns, where ...Condition) {
	t.ops = append(t.ops, op{kind: "update", table: table, rows: []Columns{row}, where: where})
}

// Mutate changes columns of the rows that meet every condition (RFC 7047, 5.2.4).
func (t *Txn) Mutate(table string, where []Condition, mutations ...Mutation) {
	t.ops = append(t.ops, op{kind: "mutate", table: table, where: where, muts: mutations})
}

// Delete removes the rows that meet every condition (RFC 7047, 5.2.5). Rows of tables that are
// not roots go by themselves with the last reference to them.
func (t *Txn) Delete(table string, where ...Condition) {
	t.ops = append(t.ops, op{kind: "delete", table: table, where: where})
}

// Select reads rows as the operations before it left them (RFC 7047, 5.2.2), and gives the
// place of its OpResult. No columns: all.
func (t *Txn) Select(table string, where []Condition, columns ...string) int {
	t.ops = append(t.ops, op{kind: "select", table: table, where: where, columns: columns})
	return len(t.ops) - 1
}

// Wait makes the transaction fail with TimedOut unless the named columns of the rows that
// meet the conditions are (until "==") or are not ("!=") exactly rows within timeout
// (RFC 7047, 5.2.6). A timeout of 0 asks about now; a negative one waits for ever.
func (t *Txn) Wait(table string, where []Condition, columns []string, until string, rows []Columns, timeout time.Duration) {
	t.ops = append(t.ops, op{kind: "wait", table: table, where: where, columns: columns, name: until, rows: rows, timeout: timeout})
}

// Comment leaves text in the server's log of transactions (RFC 7047, 5.2.9).
func (t *Txn) Comment(text string) { t.ops = append(t.ops, op{kind: "comment", name: text}) }

// Assert makes the transaction fail with NotOwner unless this client holds the lock
// (RFC 7047, 5.2.10).
func (t *Txn) Assert(lock string) { t.ops = append(t.ops, op{kind: "assert", name: lock}) }

// Abort makes the transaction fail with Aborted (RFC 7047, 5.2.8): a rehearsal.
func (t *Txn) Abort() { t.ops = append(t.ops, op{kind: "abort"}) }

// Durable makes the transaction be on disk before it is answered (RFC 7047, 5.2.7).
func (t *Txn) Durable() { t.ops = append(t.ops, op{kind: "commit"}) }

func (t *Txn) fail(kind string, err error) {
	if t.err == nil {
		t.err = fmt.Errorf("operation %d (%s): %w", len(t.ops), kind, err)
	}
}

// columnsOf takes the named columns of a Model; none named: those with a value.
func columnsOf(m Model, names []string) (row Columns, table string, id UUID, err error) {
	p, err := newPlan(m)
	if err != nil {
		return nil, "", id, err
	}
	v := reflect.ValueOf(m)
	if v.Kind() == reflect.Pointer {
		if v.IsNil() {
			return nil, "", id, fmt.Errorf("model %T is nil", m)
		}
		v = v.Elem()
	}
	if p.uuid >= 0 {
		id = v.Field(p.uuid).Interface().(UUID)
	}
	row = Columns{}
	for _, f := range p.fields {
		fv := v.Field(f.index)
		if names == nil {
			empty := fv.IsZero() || (f.shape == shapeSet || f.shape == shapeMap) && fv.Len() == 0
			if !empty {
				row[f.column] = fv.Interface()
			}
		} else if slices.Contains(names, f.column) {
			row[f.column] = fv.Interface()
		}
	}
	for _, name := range names {
		if _, ok := row[name]; !ok {
			return nil, "", id, fmt.Errorf("model %v has no column %q", p.typ, name)
		}
	}
	return row, p.table, id, nil
}

// encode appends the params of the transact request for a database of schema s.
func (t *Txn) encode(s *Schema) ([]byte, error) {
	if t.err != nil {
		return nil, t.err
	}
	b := appendText([]byte{'['}, s.Name)
	for i := range t.ops {
		b = append(b, ',')
		var err error
		if b, err = t.appendOp(b, &t.ops[i], s); err != nil {
			return nil, fmt.Errorf("operation %d (%s %s): %w", i, t.ops[i].kind, t.ops[i].table, err)
		}
	}
	return append(b, ']'), nil
}

func (t *Txn) appendOp(b []byte, o *op, s *Schema) ([]byte, error) {
	b = append(b, `{"op":`...)
	b = appendText(b, o.kind)
	switch o.kind {
	case "comment", "assert":
		key := map[string]string{"comment": "comment", "assert": "lock"}[o.kind]
		if err := checkText(o.name); err != nil {
			return b, err
		}
		if o.kind == "assert" && !isID(o.name) {
			return b, fmt.Errorf("%.60q is not a lock's name", o.name)
		}
		b = append(b, `,"`+key+`":`...)
		return append(appendText(b, o.name), '}'), nil
	case "abort":
		return append(b, '}'), nil
	case "commit":
		return append(b, `,"durable":true}`...), nil
	}
	table, err := s.Table(o.table)
	if err != nil {
		return b, err
	}
	b = append(b, `,"table":`...)
	b = appendText(b, o.table)
	if o.kind != "insert" {
		b = append(b, `,"where":`...)
		if b, err = appendWhere(b, table, o.where, t); err != nil {
			return b, err
		}
	}
	switch o.kind {
	case "insert":
		b = append(b, `,"uuid-name":"`+o.name+`"`...)
	case "select", "wait":
		if len(o.columns) > 0 {
			if b, err = appendNames(append(b, `,"columns":`...), table, o.columns); err != nil {
				return b, err
			}
		}
	case "mutate":
		b = append(b, `,"mutations":[`...)
		for i, m := range o.muts {
			if i > 0 {
				b = append(b, ',')
			}
			if b, err = t.appendMutation(b, table, m); err != nil {
				return b, fmt.Errorf("column %s: %w", m.Column, err)
			}
		}
		b = append(b, ']')
	}
	switch o.kind {
	case "insert", "update":
		b = append(b, `,"row":`...)
		if b, err = t.appendRow(b, table, o.rows[0], o.kind); err != nil {
			return b, err
		}
	case "wait":
		if o.name != "==" && o.name != "!=" {
			return b, fmt.Errorf("until %q is neither == nor !=", o.name)
		}
		b = append(b, `,"until":"`+o.name+`","rows":[`...)
		for i, row := range o.rows {
			if i > 0 {
				b = append(b, ',')
			}
			if b, err = t.appendRow(b, table, row, o.kind); err != nil {
				return b, err
			}
		}
		b = append(b, ']')
		if o.timeout >= 0 {
			b = append(b, `,"timeout":`...)
			b = strconv.AppendInt(b, o.timeout.Milliseconds(), 10)
		}
	}
	return append(b, '}'), nil
}

func appendNames(b []byte, table *TableSchema, names []string) ([]byte, error) {
	b = append(b, '[')
	for i, name := range names {
		if _, err := table.Column(name); err != nil {
			return b, err
		}
		if i > 0 {
			b = append(b, ',')
		}
		b = appendText(b, name)
	}
	return append(b, ']'), nil
}

// appendRow appends a row, its columns in order so that requests are the same each time.
func (t *Txn) appendRow(b []byte, table *TableSchema, row Columns, kind string) ([]byte, error) {
	names := make([]string, 0, len(row))
	for name := range row {
		names = append(names, name)
	}
	slices.Sort(names)
	b = append(b, '{')
	for i, name := range names {
		col, err := table.Column(name)
		if err != nil {
			return b, err
		}
		if col.Immutable && kind == "update" {
			return b, fmt.Errorf("column %s cannot be changed", name)
		}
		v, err := ValueOf(row[name])
		if err == nil {
			v = t.shaped(v, &col.Type)
			err = col.Type.Check(v)
		}
		if err != nil {
			return b, fmt.Errorf("column %s: %w", name, err)
		}
		if i > 0 {
			b = append(b, ',')
		}
		b = appendText(b, name)
		b = append(b, ':')
		if b, err = v.appendJSON(b); err != nil {
			return b, fmt.Errorf("column %s: %w", name, err)
		}
	}
	return append(b, '}'), nil
}

// shaped puts the uuid-names in the place of stand-ins and makes integers real where the
// column is. t may be nil.
func (t *Txn) shaped(v Value, typ *Type) Value {
	fix := func(a Atom, want Kind) Atom {
		if a.kind == KindUUID && t != nil {
			if name, ok := t.news[a.uuid]; ok {
				return Named(name)
			}
		}
		if a.kind == KindInteger && want == KindReal {
			return Real(float64(a.Int()))
		}
		return a
	}
	if v.mapped {
		pairs := v.Pairs()
		for i := range pairs {
			pairs[i].Key = fix(pairs[i].Key, typ.Key.Kind)
			if typ.Value != nil {
				pairs[i].Value = fix(pairs[i].Value, typ.Value.Kind)
			}
		}
		return MapOf(pairs...)
	}
	atoms := v.Atoms()
	for i := range atoms {
		atoms[i] = fix(atoms[i], typ.Key.Kind)
	}
	return SetOf(atoms...)
}

var conditionOps = []string{"==", "!=", "<", "<=", ">", ">=", "includes", "excludes"}
var mutationOps = []string{"+=", "-=", "*=", "/=", "%=", "insert", "delete"}

// appendWhere appends conditions. t may be nil.
func appendWhere(b []byte, table *TableSchema, where []Condition, t *Txn) ([]byte, error) {
	b = append(b, '[')
	for i, c := range where {
		col, err := table.Column(c.Column)
		if err != nil {
			return b, err
		}
		if !slices.Contains(conditionOps, c.Op) {
			return b, fmt.Errorf("column %s: unknown condition %q", c.Column, c.Op)
		}
		v, err := ValueOf(c.Value)
		if err == nil {
			v = t.shaped(v, &col.Type)
			if err = col.Type.checkAtoms(v); err == nil && v.mapped != (col.Type.Value != nil) {
				err = fmt.Errorf("%v does not fit %v", v, &col.Type)
			}
		}
		if err != nil {
			return b, fmt.Errorf("column %s: %w", c.Column, err)
		}
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, '[')
		b = appendText(b, c.Column)
		b = append(b, `,"`+c.Op+`",`...)
		if b, err = v.appendJSON(b); err != nil {
			return b, fmt.Errorf("column %s: %w", c.Column, err)
		}
		b = append(b, ']')
	}
	return append(b, ']'), nil
}

func (t *Txn) appendMutation(b []byte, table *TableSchema, m Mutation) ([]byte, error) {
	col, err := table.Column(m.Column)
	if err != nil {
		return b, err
	}
	switch {
	case col.Immutable:
		return b, errors.New("cannot be changed")
	case !slices.Contains(mutationOps, m.Op):
		return b, fmt.Errorf("unknown mutation %q", m.Op)
	}
	v, err := ValueOf(m.Value)
	if err != nil {
		return b, err
	}
	v = t.shaped(v, &col.Type)
	switch {
	case m.Op != "insert" && m.Op != "delete":
		a, ok := v.Atom()
		if !ok || a.kind != col.Type.Key.Kind || a.kind != KindInteger && a.kind != KindReal || col.Type.Value != nil {
			return b, fmt.Errorf("%v cannot be used with %s on %v", v, m.Op, &col.Type)
		}
	case m.Op == "delete" && col.Type.Value != nil && !v.mapped: // a set of keys
		keys := Type{Key: col.Type.Key, Min: 0, Max: Unlimited}
		if err := keys.checkAtoms(v); err != nil {
			return b, err
		}
	case v.mapped != (col.Type.Value != nil):
		return b, fmt.Errorf("%v does not fit %v", v, &col.Type)
	default:
		if err := col.Type.checkAtoms(v); err != nil {
			return b, err
		}
	}
	b = append(b, '[')
	b = appendText(b, m.Column)
	b = append(b, `,"`+m.Op+`",`...)
	if b, err = v.appendJSON(b); err != nil {
		return b, err
	}
	return append(b, ']'), nil
}

// A Result is what the operations of a committed transaction gave, in their order.
type Result struct {
	Ops  []OpResult
	news map[UUID]UUID
}

// An OpResult is what one operation gave.
type OpResult struct {
	Count int    // update, mutate, delete: rows
	UUID  UUID   // insert: the new row
	Rows  []*Row // select
}

// UUID gives the real UUID of a row that Insert gave a stand-in for; any other UUID comes back
// as it is.
func (r *Result) UUID(standIn UUID) UUID {
	if id, ok := r.news[standIn]; ok {
		return id
	}
	return standIn
}

// decode reads the result of the transact request (RFC 7047, 4.1.3).
func (t *Txn) decode(raw []byte, s *Schema) (*Result, error) {
	res := &Result{news: map[UUID]UUID{}}
	names := make(map[string]UUID, len(t.news))
	for id, name := range t.news {
		names[name] = id
	}
	c := &cursor{b: raw}
	var refused *OpError
	err := c.array(func(n int) error {
		if c.word("null") { // not reached
			return nil
		}
		var r OpResult
		var o *op
		if n < len(t.ops) {
			o = &t.ops[n]
		}
		e := OpError{Index: n}
		err := c.object(func(key []byte) error {
			var err error
			switch k := string(key); k {
			case "error", "details", "syntax":
				if c.word("null") {
					return nil
				}
				var text string
				text, err = c.str()
				switch k {
				case "error":
					e.Code = Code(text)
				case "details":
					e.Details = text
				case "syntax":
					e.Syntax = text
				}
			case "count":
				var count int64
				count, err = c.integer()
				r.Count = int(count)
			case "uuid":
				var a Atom
				a, err = c.reference()
				r.UUID = a.uuid
			case "rows":
				if o == nil || o.kind != "select" {
					return c.fail("rows from an operation that asked for none")
				}
				r.Rows, err = c.selected(s.Tables[o.table], o.columns)
			default:
				err = c.skip()
			}
			return err
		})
		if err != nil {
			return err
		}
		if e.Code != "" {
			if refused == nil {
				refused = &e
			}
			return nil
		}
		if o == nil {
			return c.fail("more results than operations")
		}
		if o.kind == "insert" {
			res.news[names[o.name]] = r.UUID
		}
		res.Ops = append(res.Ops, r)
		return nil
	})
	if err == nil {
		err = c.end()
	}
	switch {
	case err != nil:
		return nil, fmt.Errorf("transact: %w", err)
	case refused != nil:
		if refused.Index < len(t.ops) {
			refused.Op, refused.Table = t.ops[refused.Index].kind, t.ops[refused.Index].table
		} else {
			refused.Index, refused.Op = Commit, "commit"
		}
		return nil, refused
	case len(res.Ops) != len(t.ops):
		return nil, fmt.Errorf("transact: %d results for %d operations", len(res.Ops), len(t.ops))
	}
	return res, nil
}

// selected reads the rows of a select.
func (c *cursor) selected(t *TableSchema, columns []string) ([]*Row, error) {
	if t == nil {
		return nil, c.fail("rows of an unknown table")
	}
	if len(columns) == 0 {
		for name := range t.Columns {
			columns = append(columns, name)
		}
	}
	l, err := newLayout(t, columns)
	if err != nil {
		return nil, err
	}
	var rows []*Row
	err = c.array(func(int) error {
		r, err := c.row(l, UUID{}, nil, values)
		rows = append(rows, r)
		return err
	})
	return rows, err
}
