package store

import "slices"

// countKind is a table of the mirror alone: under kind/index/value the Sum of the rows that the index
// finds there, no entry for none. It is kept with the rows, in the same transactions of the
// mirror, so every snapshot and every Tx has the counts of its own rows.
const countKind Kind = "-count"

// Sum is what the rows that an index finds under a value come to.
type Sum struct {
	Rows    int
	Amounts Amounts // in the order that Summed's function gives them
}

// Amounts are what a Summed index adds up, at most so many of a row.
type Amounts [6]int

func (s Sum) add(o Sum, sign int) Sum {
	s.Rows += sign * o.Rows
	for i := range s.Amounts {
		s.Amounts[i] += sign * o.Amounts[i]
	}
	return s
}

// share is what a row adds to the Sum under a key of countKind.
type share struct {
	key string
	sum Sum
}

// Count tells how many rows the index finds under the value: in one look where the index is
// Counted or Summed, else by walking over them.
func (t *Table[T]) Count(r Reader, index, value string) int {
	for _, x := range t.indexes {
		if x.Name == index && x.kept() {
			return counted(r.state(), countKey(t.kind, index, value)).Rows
		}
	}
	n := 0
	for range t.List(r, index, value) {
		n++
	}
	return n
}

// Sum tells what the rows that the index finds under the value come to, in one look. It panics where the index is
// not Summed: a wiring defect.
func (t *Table[T]) Sum(r Reader, index, value string) Sum {
	if x := t.indexes[t.index(index)]; x.Amounts == nil {
		panic("store: index " + index + " of " + string(t.kind) + " is not summed")
	}
	return counted(r.state(), countKey(t.kind, index, value))
}

func (x *Index[T]) kept() bool { return x.Counted || x.Amounts != nil }

func countKey(kind Kind, index, value string) string { return string(kind) + "/" + index + "/" + value }

func counted(m *mirror, key string) Sum {
	if e := m.get(countKind, key); e != nil {
		return e.val.(Sum)
	}
	return Sum{}
}

// sharesOf gives what the row adds to which sums, to each once.
func (t *Table[T]) sharesOf(row any) []share {
	if row == nil {
		return nil
	}
	var out []share
	for i := range t.indexes {
		x := &t.indexes[i]
		if !x.kept() {
			continue
		}
		for _, v := range x.Keys(row.(*T)) {
			k := countKey(t.kind, x.Name, v)
			if slices.ContainsFunc(out, func(s share) bool { return s.key == k }) {
				continue
			}
			s := share{k, Sum{Rows: 1}}
			if x.Amounts != nil {
				s.sum.Amounts = x.Amounts(row.(*T), v)
			}
			out = append(out, s)
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
	before, after := t.sharesOf(old), t.sharesOf(row)
	for _, s := range before {
		if !slices.Contains(after, s) {
			addCount(m, s, -1)
		}
	}
	for _, s := range after {
		if !slices.Contains(before, s) {
			addCount(m, s, 1)
		}
	}
}

func addCount(m *mirror, s share, sign int) {
	if n := counted(m, s.key).add(s.sum, sign); n.Rows != 0 {
		m.put(countKind, &entry{key: s.key, val: n})
	} else {
		m.remove(countKind, s.key)
	}
}

// valueOf gives what an entry of the mirror holds, nil where there is none.
func valueOf(e *entry) any {
	if e == nil {
		return nil
	}
	return e.val
}
