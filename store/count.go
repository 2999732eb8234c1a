package store

import "slices"

// countKind is a table of the mirror alone: under kind/index/value how many rows the index
// finds there, no entry for none. It is kept with the rows, in the same transactions of the
// mirror, so every snapshot and every Tx has the counts of its own rows.
const countKind Kind = "-count"

// Count tells how many rows the index finds under the value: in one look where the index is
// Counted, else by walking over them.
func (t *Table[T]) Count(r Reader, index, value string) int {
	for _, x := range t.indexes {
		if x.Name == index && x.Counted {
			return counted(r.state(), countKey(t.kind, index, value))
		}
	}
	n := 0
	for range t.List(r, index, value) {
		n++
	}
	return n
}

func countKey(kind Kind, index, value string) string { return string(kind) + "/" + index + "/" + value }

func counted(m *mirror, key string) int {
	if e := m.get(countKind, key); e != nil {
		return e.val.(int)
	}
	return 0
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
func recount(m *mirror, t AnyTable, old, row any) {
	if t == nil {
		return
	}
	before, after := t.countsOf(old), t.countsOf(row)
	for _, k := range before {
		if !slices.Contains(after, k) {
			addCount(m, k, -1)
		}
	}
	for _, k := range after {
		if !slices.Contains(before, k) {
			addCount(m, k, 1)
		}
	}
}

func addCount(m *mirror, key string, by int) {
	if n := counted(m, key) + by; n != 0 {
		m.put(countKind, &entry{key: key, val: n})
	} else {
		m.remove(countKind, key)
	}
}

// valueOf gives what an entry of the mirror holds, nil where there is none.
func valueOf(e *entry) any {
	if e == nil {
		return nil
	}
	return e.val
}
