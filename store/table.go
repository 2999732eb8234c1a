package store

import (
	"encoding/json"
	"fmt"
	"iter"
	"strings"
)

// Kind names a table: lower-case letters and underscores, without a slash.
type Kind string

// Index is a way to find rows: Keys gives the values under which a row is found, none
// where it does not belong into the index. Values sort as bytes.
type Index[T any] struct {
	Name string
	Keys func(*T) []string
	// Counted: how many rows it finds under a value is kept, so that Count costs one look.
	Counted bool
	// Amounts, where it is not nil, gives what a row adds to the amounts that are kept for one of its values; see Sum.
	Amounts func(row *T, value string) Amounts
}

// Table is a typed set of rows. Make one with Define and keep it in a package variable
// that is never assigned again.
type Table[T any] struct {
	kind    Kind
	key     func(*T) string
	claims  func(*T) []string
	indexes []Index[T]
}

// Option refines a table.
type Option[T any] func(*Table[T])

// Claims makes the names that a row holds unique in the table.
func Claims[T any](f func(*T) []string) Option[T] { return func(t *Table[T]) { t.claims = f } }

// By adds an index.
func By[T any](name string, keys func(*T) []string) Option[T] {
	return func(t *Table[T]) { t.indexes = append(t.indexes, Index[T]{Name: name, Keys: keys}) }
}

// Counted adds an index whose counts are kept: for quotas, which ask with every new row.
func Counted[T any](name string, keys func(*T) []string) Option[T] {
	return func(t *Table[T]) { t.indexes = append(t.indexes, Index[T]{Name: name, Keys: keys, Counted: true}) }
}

// Summed adds an index for whose values amounts of the rows are kept added up, with the number of rows: for what is asked
// of all rows of a host or a project with every new one. amounts gives what a row adds under one of its values.
func Summed[T any](name string, keys func(*T) []string, amounts func(row *T, value string) Amounts) Option[T] {
	return func(t *Table[T]) { t.indexes = append(t.indexes, Index[T]{Name: name, Keys: keys, Amounts: amounts}) }
}

// Define makes a table of rows that key tells apart. A key holds no slash and is not empty.
func Define[T any](kind Kind, key func(*T) string, opts ...Option[T]) *Table[T] {
	t := &Table[T]{kind: kind, key: key}
	for _, o := range opts {
		o(t)
	}
	return t
}

// Kind gives the table's kind.
func (t *Table[T]) Kind() Kind { return t.kind }

// AnyTable is a Table of whatever row type.
type AnyTable interface {
	Kind() Kind
	decode(data []byte) (any, error)
	indexNames() []string
	valuesOf(index int, row any) []string
	claimsOf(row any) []string
	keyOf(row any) string
	sharesOf(row any) []share
}

func (t *Table[T]) decode(data []byte) (any, error) {
	row := new(T)
	if err := json.Unmarshal(data, row); err != nil {
		return nil, fmt.Errorf("decode %s: %w", t.kind, err)
	}
	return row, nil
}

func (t *Table[T]) keyOf(row any) string { return t.key(row.(*T)) }

func (t *Table[T]) claimsOf(row any) []string {
	if t.claims == nil || row == nil {
		return nil
	}
	return t.claims(row.(*T))
}

func (t *Table[T]) indexNames() []string {
	names := make([]string, len(t.indexes))
	for i, x := range t.indexes {
		names[i] = x.Name
	}
	return names
}

func (t *Table[T]) valuesOf(index int, row any) []string { return t.indexes[index].Keys(row.(*T)) }

// index gives the place of an index; -1 is "id", the keys themselves.
func (t *Table[T]) index(name string) int {
	for i, x := range t.indexes {
		if x.Name == name {
			return i
		}
	}
	if name == "id" {
		return -1
	}
	panic(fmt.Sprintf("store: table %s has no index %s", t.kind, name)) // a wiring defect
}

// Reader is a Snapshot or a Tx.
type Reader interface {
	state() *mirror
	read(kind Kind, key string)
}

// Get gives the row with the key, and false where there is none. In a Tx the row's
// revision is compared at commit, its absence too. The row is shared: do not change it.
func (t *Table[T]) Get(r Reader, key string) (*T, bool) {
	r.read(t.kind, key)
	e := t.entry(r, key)
	if e == nil {
		return nil, false
	}
	return e.val.(*T), true
}

func (t *Table[T]) entry(r Reader, key string) *entry {
	if r.state().shelves[t.kind] == nil {
		panic(fmt.Sprintf("store: table %s is not part of this store", t.kind)) // a wiring defect
	}
	return r.state().get(t.kind, key)
}

// Revision gives the store revision at which the row was last written, 0 where there is none.
func (t *Table[T]) Revision(r Reader, key string) int64 {
	e := t.entry(r, key)
	if e == nil {
		return 0
	}
	return e.rev
}

// All gives every row in the order of keys.
func (t *Table[T]) All(r Reader) iter.Seq[*T] { return t.Prefix(r, "id", "") }

// List gives the rows that the index finds under exactly this value. What a List saw is
// not compared at commit: use Guard where a new row must not slip in.
func (t *Table[T]) List(r Reader, index, value string) iter.Seq[*T] {
	return func(yield func(*T) bool) {
		r.state().under(t.kind, t.index(index), value, func(e *entry) bool { return yield(e.val.(*T)) })
	}
}

// Prefix gives the rows whose value in the index begins so, sorted by it; index "id" is the key.
func (t *Table[T]) Prefix(r Reader, index, prefix string) iter.Seq[*T] {
	return func(yield func(*T) bool) {
		r.state().below(t.kind, t.index(index), prefix, func(e *entry) bool { return yield(e.val.(*T)) })
	}
}

// Seek gives the rows whose value in the index begins with prefix and is not below from,
// sorted by that value: the way to page. A row with several such values comes once for each.
func (t *Table[T]) Seek(r Reader, index, prefix, from string) iter.Seq[*T] {
	return func(yield func(*T) bool) {
		r.state().ascend(t.kind, t.index(index), max(prefix, from), func(v string, e *entry) bool {
			return strings.HasPrefix(v, prefix) && yield(e.val.(*T))
		})
	}
}

// Holder gives the key of the row that holds the claim, and false where it is free. In a
// Tx the claim is compared at commit.
func (t *Table[T]) Holder(r Reader, claim string) (string, bool) {
	key := string(t.kind) + "/" + claim
	r.read(claimKind, key)
	e := r.state().get(claimKind, key)
	if e == nil {
		return "", false
	}
	return e.val.(string), true
}

// Claimed gives the row that holds the claim.
func (t *Table[T]) Claimed(r Reader, claim string) (*T, bool) {
	key, ok := t.Holder(r, claim)
	if !ok {
		return nil, false
	}
	return t.Get(r, key)
}

// Put writes the row, new or changed. It reports a *TakenError where another row holds
// one of its claims. row must not be changed afterwards.
func (t *Table[T]) Put(tx *Tx, row *T) error { return tx.put(t, t.key(row), row, nil) }

// PutLeased is Put of a row that goes with the lease.
func (t *Table[T]) PutLeased(tx *Tx, row *T, l *Lease) error { return tx.put(t, t.key(row), row, l) }

// Delete removes the row and its claims; absent is success.
func (t *Table[T]) Delete(tx *Tx, key string) error { return tx.del(t, key) }

const (
	claimKind Kind = "-claim"
	guardKind Kind = "-guard"
)

// entry is what the mirror holds of a key. It is immutable.
type entry struct {
	key string
	rev int64 // etcd ModRevision; 0 in a transaction that has not committed
	val any   // *T of a row; the holder's key of a claim; nil of a guard
}
