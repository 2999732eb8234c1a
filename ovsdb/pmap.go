package ovsdb

import (
	"hash/maphash"
	"iter"
	"math/bits"
)

// A pmap is a persistent hash map: set and del leave the map that they are called on as
// it was and give another one, which shares all but the path to the key with it. That is
// what makes a snapshot of a large table free, and a change of one row in it cheap. An
// edit token lets a batch of changes work in place on nodes that the batch itself made.
type pmap[K comparable, V any] struct {
	root *pnode[K, V]
	n    int
	seed maphash.Seed
}

// edit identifies one batch of changes; it must not be empty, as pointers to empty structs may be equal.
type edit struct{ _ byte }

const (
	pbits  = 5
	pshift = 60 // the last level: below it keys of equal hash form a chain
)

type pnode[K comparable, V any] struct {
	owner  *edit
	bitmap uint32
	slots  []pslot[K, V]
}

type pslot[K comparable, V any] struct {
	child *pnode[K, V]
	leaf  *pleaf[K, V] // where child is nil
}

type pleaf[K comparable, V any] struct {
	hash uint64
	key  K
	val  V
	next *pleaf[K, V] // same hash, other key
}

func newPmap[K comparable, V any]() pmap[K, V] { return pmap[K, V]{seed: maphash.MakeSeed()} }

func (m pmap[K, V]) len() int { return m.n }

func (m pmap[K, V]) get(key K) (V, bool) {
	if m.root != nil {
		h := maphash.Comparable(m.seed, key)
		n := m.root
		for shift := uint(0); ; shift += pbits {
			bit := uint32(1) << (h >> shift & 31)
			if n.bitmap&bit == 0 {
				break
			}
			s := n.slots[bits.OnesCount32(n.bitmap&(bit-1))]
			if s.child != nil {
				n = s.child
				continue
			}
			for l := s.leaf; l != nil; l = l.next {
				if l.hash == h && l.key == key {
					return l.val, true
				}
			}
			break
		}
	}
	var none V
	return none, false
}

// all gives every pair, in no particular order.
func (m pmap[K, V]) all() iter.Seq2[K, V] {
	return func(yield func(K, V) bool) {
		if m.root != nil {
			m.root.each(yield)
		}
	}
}

func (n *pnode[K, V]) each(yield func(K, V) bool) bool {
	for _, s := range n.slots {
		if s.child != nil {
			if !s.child.each(yield) {
				return false
			}
			continue
		}
		for l := s.leaf; l != nil; l = l.next {
			if !yield(l.key, l.val) {
				return false
			}
		}
	}
	return true
}

// own gives a node that the batch may change.
func (n *pnode[K, V]) own(e *edit) *pnode[K, V] {
	if n.owner == e {
		return n
	}
	c := &pnode[K, V]{owner: e, bitmap: n.bitmap, slots: make([]pslot[K, V], len(n.slots), len(n.slots)+1)}
	copy(c.slots, n.slots)
	return c
}

func (m pmap[K, V]) set(e *edit, key K, val V) pmap[K, V] {
	leaf := &pleaf[K, V]{hash: maphash.Comparable(m.seed, key), key: key, val: val}
	if m.root == nil {
		m.root = &pnode[K, V]{owner: e}
	}
	root, added := m.root.set(e, 0, leaf)
	m.root = root
	if added {
		m.n++
	}
	return m
}

func (n *pnode[K, V]) set(e *edit, shift uint, leaf *pleaf[K, V]) (*pnode[K, V], bool) {
	n = n.own(e)
	bit := uint32(1) << (leaf.hash >> shift & 31)
	i := bits.OnesCount32(n.bitmap & (bit - 1))
	if n.bitmap&bit == 0 {
		n.bitmap |= bit
		n.slots = append(n.slots, pslot[K, V]{})
		copy(n.slots[i+1:], n.slots[i:])
		n.slots[i] = pslot[K, V]{leaf: leaf}
		return n, true
	}
	s := &n.slots[i]
	if s.child != nil {
		child, added := s.child.set(e, shift+pbits, leaf)
		s.child = child
		return n, added
	}
	if s.leaf.hash == leaf.hash || shift >= pshift {
		chain, removed := s.leaf.without(leaf.key)
		leaf.next = chain
		s.leaf = leaf
		return n, !removed
	}
	// Two hashes meet: push the one that is there a level down.
	old := s.leaf
	child := &pnode[K, V]{owner: e, bitmap: 1 << (old.hash >> (shift + pbits) & 31), slots: []pslot[K, V]{{leaf: old}}}
	child, _ = child.set(e, shift+pbits, leaf)
	*s = pslot[K, V]{child: child}
	return n, true
}

// without gives the chain without key, and whether it was there. The chain itself stays.
func (l *pleaf[K, V]) without(key K) (*pleaf[K, V], bool) {
	if l == nil {
		return nil, false
	}
	if l.key == key {
		return l.next, true
	}
	rest, removed := l.next.without(key)
	if !removed {
		return l, false
	}
	return &pleaf[K, V]{hash: l.hash, key: l.key, val: l.val, next: rest}, true
}

func (m pmap[K, V]) del(e *edit, key K) pmap[K, V] {
	if m.root == nil {
		return m
	}
	if _, ok := m.get(key); !ok {
		return m
	}
	m.root = m.root.del(e, 0, maphash.Comparable(m.seed, key), key)
	m.n--
	return m
}

// del removes a key that is there; nil means that the node is empty.
func (n *pnode[K, V]) del(e *edit, shift uint, hash uint64, key K) *pnode[K, V] {
	n = n.own(e)
	bit := uint32(1) << (hash >> shift & 31)
	i := bits.OnesCount32(n.bitmap & (bit - 1))
	s := &n.slots[i]
	if s.child != nil {
		if s.child = s.child.del(e, shift+pbits, hash, key); s.child != nil {
			return n
		}
	} else if s.leaf, _ = s.leaf.without(key); s.leaf != nil {
		return n
	}
	n.bitmap &^= bit
	n.slots = append(n.slots[:i], n.slots[i+1:]...)
	if len(n.slots) == 0 {
		return nil
	}
	return n
}
