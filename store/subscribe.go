package store

import (
	"context"
	"sync"
)

// Change is a row that is different from what the subscriber saw last.
type Change struct {
	Kind Kind
	Key  string
	Old  any // *T as the subscriber last saw it; nil: it was not there
	New  any // *T as it is in the delta's snapshot; nil: it is gone
}

// Delta is what has changed between two calls of Next.
type Delta struct {
	Snapshot Snapshot
	Changes  []Change // in the order of first change; empty in the first delta
	First    bool     // nothing was seen before: look at the whole snapshot
}

// Subscription tells its holder to look again. It never falls behind: changes that the
// holder has not fetched yet are folded per row.
type Subscription struct {
	s     *Store
	kinds map[Kind]bool
	first bool

	mu      sync.Mutex
	taken   bool // Next gave changes and was not called again since
	pending map[ref]int
	changes []Change
	ready   chan struct{}
}

// Subscribe follows the kinds; none: all.
func (s *Store) Subscribe(kinds ...Kind) *Subscription {
	sub := &Subscription{s: s, first: true, kinds: map[Kind]bool{}, pending: map[ref]int{}, ready: make(chan struct{}, 1)}
	for _, k := range kinds {
		sub.kinds[k] = true
	}
	sub.ready <- struct{}{} // before anybody else can: there is room for one
	s.mu.Lock()
	s.subs[sub] = struct{}{}
	s.mu.Unlock()
	return sub
}

// Close ends the subscription.
func (sub *Subscription) Close() {
	sub.s.mu.Lock()
	delete(sub.s.subs, sub)
	sub.s.mu.Unlock()
}

// tell notes a change for every subscriber of the kind. The caller holds s.mu.
func (s *Store) tell(kind Kind, key string, old, val any) {
	if kind == claimKind || kind == guardKind {
		return
	}
	for sub := range s.subs {
		if len(sub.kinds) == 0 || sub.kinds[kind] {
			sub.note(kind, key, old, val)
		}
	}
}

func (sub *Subscription) note(kind Kind, key string, old, val any) {
	sub.mu.Lock()
	defer sub.mu.Unlock()
	r := ref{kind, key}
	if i, ok := sub.pending[r]; ok {
		sub.changes[i].New = val
		return
	}
	sub.pending[r] = len(sub.changes)
	sub.changes = append(sub.changes, Change{kind, key, old, val})
}

// wake is called with s.mu held, after the mirror moved.
func (sub *Subscription) wake() {
	sub.mu.Lock()
	n := len(sub.changes)
	sub.mu.Unlock()
	if n > 0 {
		select {
		case sub.ready <- struct{}{}:
		default:
		}
	}
}

// Next waits for changes and gives them with the snapshot they lead to. The first call
// returns at once. It fails only when ctx ends.
func (sub *Subscription) Next(ctx context.Context) (Delta, error) {
	sub.mu.Lock()
	sub.taken = false
	sub.mu.Unlock()
	for {
		select {
		case <-sub.ready:
		case <-ctx.Done():
			return Delta{}, ctx.Err()
		}
		sub.s.mu.Lock()
		snap := Snapshot{m: sub.s.mirror, rev: sub.s.rev}
		sub.mu.Lock()
		d := Delta{Snapshot: snap, Changes: sub.changes, First: sub.first}
		sub.changes, sub.pending, sub.taken = nil, map[ref]int{}, true
		sub.mu.Unlock()
		sub.s.mu.Unlock()
		if d.First {
			d.Changes, sub.first = nil, false
			return d, nil
		}
		kept := d.Changes[:0]
		for _, c := range d.Changes {
			if c.Old != nil || c.New != nil { // came and went unseen
				kept = append(kept, c)
			}
		}
		if d.Changes = kept; len(kept) > 0 {
			return d, nil
		}
		sub.mu.Lock()
		sub.taken = false
		sub.mu.Unlock()
	}
}

// Idle gives the newest snapshot where no change since the holder's last delta concerns it,
// and the holder is done with that delta (it waits in Next). Then the snapshot is, for the
// subscribed kinds, the one that the holder has seen, at a newer revision.
func (sub *Subscription) Idle() (Snapshot, bool) {
	sub.s.mu.Lock()
	defer sub.s.mu.Unlock()
	sub.mu.Lock()
	defer sub.mu.Unlock()
	if sub.taken || len(sub.changes) > 0 {
		return Snapshot{}, false
	}
	return Snapshot{m: sub.s.mirror, rev: sub.s.rev}, true
}
