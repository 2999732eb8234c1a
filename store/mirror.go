package store

import (
	"cmp"
	"slices"
	"strings"
	"sync"

	"github.com/tidwall/btree"
)

// GCPercent is the collector's target (runtime/debug.SetGCPercent) of a process that holds a large mirror: most of its memory lives
// long, and at Go's own 100 as much again would be garbage.
const GCPercent = 60

// mirror is the state in memory: of each kind the entries by key, and their indexes. One that
// was given away is never changed: who changes the state does so in a copy, which shares all that it does not touch.
type mirror struct {
	shelves map[Kind]*shelf
	mine    map[Kind]bool // shelves that were copied for this mirror, and may be changed; nil: none may
}

// item is an entry under one value of an index; under its key where the tree is that of the keys.
type item struct {
	value string
	e     *entry
}

type tree = btree.BTreeG[item]

// shelf is one kind's.
type shelf struct {
	mu      sync.Mutex // held while the trees are copied: that marks them
	rows    *tree
	indexes []*tree
	def     AnyTable // nil: a kind without indexes
}

// degree of the trees: wide ones are small and quick to read, narrow ones cheap to change.
const degree = 16

func newTree(less func(a, b item) bool) *tree {
	return btree.NewBTreeGOptions(less, btree.Options{NoLocks: true, Degree: degree})
}

func byValue(a, b item) bool { return a.value < b.value }

func byValueAndKey(a, b item) bool {
	if c := cmp.Compare(a.value, b.value); c != 0 {
		return c < 0
	}
	return a.e.key < b.e.key
}

func newMirror(tables []AnyTable) *mirror {
	m := &mirror{shelves: make(map[Kind]*shelf, len(tables)+3)}
	for _, k := range []Kind{claimKind, guardKind, countKind} {
		m.shelves[k] = &shelf{rows: newTree(byValue)}
	}
	for _, t := range tables {
		s := &shelf{rows: newTree(byValue), def: t}
		for range t.indexNames() {
			s.indexes = append(s.indexes, newTree(byValueAndKey))
		}
		m.shelves[t.Kind()] = s
	}
	return m
}

// edit gives a copy that may be changed.
func (m *mirror) edit() *mirror {
	n := &mirror{shelves: make(map[Kind]*shelf, len(m.shelves)), mine: map[Kind]bool{}}
	for k, s := range m.shelves {
		n.shelves[k] = s
	}
	return n
}

// freeze ends the changes of a mirror.
func (m *mirror) freeze() *mirror {
	m.mine = nil
	return m
}

func (s *shelf) copy() *shelf {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := &shelf{rows: s.rows.Copy(), indexes: make([]*tree, len(s.indexes)), def: s.def}
	for i, t := range s.indexes {
		n.indexes[i] = t.Copy()
	}
	return n
}

// own gives a kind's shelf for changes.
func (m *mirror) own(kind Kind) *shelf {
	if !m.mine[kind] {
		m.shelves[kind] = m.shelves[kind].copy()
		m.mine[kind] = true
	}
	return m.shelves[kind]
}

// get gives the entry with the key, nil where there is none.
func (m *mirror) get(kind Kind, key string) *entry {
	it, _ := m.shelves[kind].rows.Get(item{value: key})
	return it.e
}

// put adds an entry, or puts it in the place of the one with its key, which it gives.
func (m *mirror) put(kind Kind, e *entry) *entry {
	s := m.own(kind)
	was, _ := s.rows.Set(item{e.key, e})
	for i, t := range s.indexes {
		now := s.def.valuesOf(i, e.val)
		if was.e != nil {
			for _, v := range s.def.valuesOf(i, was.e.val) {
				if !slices.Contains(now, v) {
					t.Delete(item{v, was.e})
				}
			}
		}
		for _, v := range now {
			t.Set(item{v, e})
		}
	}
	return was.e
}

// remove takes the entry with the key away, and gives it; nil: there was none.
func (m *mirror) remove(kind Kind, key string) *entry {
	if m.get(kind, key) == nil {
		return nil
	}
	s := m.own(kind)
	was, _ := s.rows.Delete(item{value: key})
	for i, t := range s.indexes {
		for _, v := range s.def.valuesOf(i, was.e.val) {
			t.Delete(item{v, was.e})
		}
	}
	return was.e
}

// ascend gives the entries of an index, -1 for the keys, from a value on, with their values, in the order of
// (value, key). What is changed meanwhile is not seen.
func (m *mirror) ascend(kind Kind, index int, from string, visit func(value string, e *entry) bool) {
	s := m.shelves[kind]
	t := s.rows
	if index >= 0 {
		t = s.indexes[index]
	}
	if m.mine[kind] {
		t = t.Copy()
	}
	t.Ascend(item{from, first}, func(it item) bool { return visit(it.value, it.e) })
}

// first sorts before all entries of its value.
var first = &entry{}

// under gives the entries whose value is exactly this.
func (m *mirror) under(kind Kind, index int, value string, visit func(*entry) bool) {
	m.ascend(kind, index, value, func(v string, e *entry) bool { return v == value && visit(e) })
}

// below gives the entries whose values begin so.
func (m *mirror) below(kind Kind, index int, prefix string, visit func(*entry) bool) {
	m.ascend(kind, index, prefix, func(v string, e *entry) bool { return strings.HasPrefix(v, prefix) && visit(e) })
}

// len is how many entries a kind has.
func (m *mirror) len(kind Kind) int { return m.shelves[kind].rows.Len() }
