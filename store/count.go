package store

import (
	"fmt"
	"slices"

	"github.com/hashicorp/go-memdb"
)

// countKind is a table of the mirror alone: under kind/index/value how many rows the index
// finds there, no entry for none. It is kept with the rows, in the same transactions of the
// mirror, so every snapshot and every Tx has the counts of its own rows.
const countKind Kind = "-count"

// Count tells how many rows the index finds under the value: in one look where the index is
// Counted, else by walking over them.
func (t *Table[T]) Count(r Reader, index, value string) int {
	for _, x := range t.indexes {
		if x.Name == index && x.Counted {
			return counted(r.txn(), countKey(t.kind, index, value))
		}
	}
	n := 0
	for range t.List(r, index, value) {
		n++
	}
	return n
}

func countKey(kind Kind, index, value string) string { return string(kind) + "/" + index + "/" + value }

func counted(tx *memdb.Txn, key string) int {
	raw, err := tx.First(string(countKind), "id", key)
	if err != nil || raw == nil {
		return 0
	}
	return raw.(*entry).val.(int)
}

// countsOf gives the counts that the row is part of, each once.
func (t *Table[T]) countsOf(row any) []string {
	if row == nil {
		return nil
	}
	var out []string
	for _, x := range t.indexes {
		if !x.Counted {
			continue
		}
		for _, v := range x.Keys(row.(*T)) {
			if k := countKey(t.kind, x.Name, v); !slices.Contains(out, k) {
				out = append(out, k)
			}
		}
	}
	return out
}

// recount keeps the counts where a row changed from old to row; nil: it was not, or is no
// longer, there. t nil: the change is of a kind that has no rows.
func recount(tx *memdb.Txn, t AnyTable, old, row any) error {
	if t == nil {
		return nil
	}
	before, after := t.countsOf(old), t.countsOf(row)
	for _, k := range before {
		if !slices.Contains(after, k) {
			if err := addCount(tx, k, -1); err != nil {
				return err
			}
		}
	}
	for _, k := range after {
		if !slices.Contains(before, k) {
			if err := addCount(tx, k, 1); err != nil {
				return err
			}
		}
	}
	return nil
}

func addCount(tx *memdb.Txn, key string, by int) error {
	n := counted(tx, key) + by
	var err error
	if e := (&entry{key: key, val: n}); n == 0 {
		err = tx.Delete(string(countKind), e)
	} else {
		err = tx.Insert(string(countKind), e)
	}
	if err != nil {
		return fmt.Errorf("count %s: %w", key, err)
	}
	return nil
}

// valueOf gives what an entry of the mirror holds, nil where there is none.
func valueOf(raw any) any {
	if e, _ := raw.(*entry); e != nil {
		return e.val
	}
	return nil
}
