package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"yakumo/fault"
)

// MaxOps is how many keys one transaction may compare or write: the embedded etcd's
// limit, and what an external cluster must be given as --max-txn-ops.
const MaxOps = 1024

// TakenError says that another row holds a claim.
type TakenError struct {
	Kind   Kind
	Claim  string
	Holder string // the key of the row that holds it
}

// Error names the claim.
func (e *TakenError) Error() string {
	return fmt.Sprintf("%s %q is taken by %s", e.Kind, e.Claim, e.Holder)
}

// Unwrap makes the error one of kind fault.Conflict.
func (e *TakenError) Unwrap() error {
	return fault.New(fault.Conflict, "%s %q is in use.", strings.ReplaceAll(string(e.Kind), "_", " "), e.Claim)
}

// Tx is a transaction under construction: it reads the state at one revision, with its
// own writes on top.
type Tx struct {
	s      *Store
	base   *mirror // as it was
	over   *mirror // with the transaction's writes
	rev    int64
	reads  map[ref]struct{}
	writes map[ref]write
	order  []ref
	fences []Term
}

type ref struct {
	kind Kind
	key  string
}

type write struct {
	value  []byte // nil: delete
	lease  clientv3.LeaseID
	delete bool
}

func (tx *Tx) state() *mirror             { return tx.over }
func (tx *Tx) read(kind Kind, key string) { tx.reads[ref{kind, key}] = struct{}{} }

// Revision is the revision that the transaction reads at.
func (tx *Tx) Revision() int64 { return tx.rev }

func (tx *Tx) baseRev(r ref) int64 {
	e := tx.base.get(r.kind, r.key)
	if e == nil {
		return 0
	}
	return e.rev
}

func (tx *Tx) set(r ref, w write) {
	if _, again := tx.writes[r]; !again {
		tx.order = append(tx.order, r)
	}
	tx.writes[r] = w
}

func (tx *Tx) put(t AnyTable, key string, row any, l *Lease) error {
	if key == "" || strings.Contains(key, "/") {
		return fmt.Errorf("put %s: the key %q is empty or holds a slash", t.Kind(), key)
	}
	value, err := json.Marshal(row)
	if err != nil {
		return fmt.Errorf("encode %s %s: %w", t.Kind(), key, err)
	}
	if err := tx.claim(t, key, row); err != nil {
		return err
	}
	w := write{value: value}
	if l != nil {
		w.lease = l.id
	}
	r := ref{t.Kind(), key}
	tx.read(r.kind, r.key)
	tx.set(r, w)
	old := tx.over.put(r.kind, &entry{key: key, val: row})
	recount(tx.over, t, valueOf(old), row)
	return nil
}

func (tx *Tx) del(t AnyTable, key string) error {
	r := ref{t.Kind(), key}
	tx.read(r.kind, r.key)
	if tx.over.get(r.kind, key) == nil {
		return nil
	}
	if err := tx.claim(t, key, nil); err != nil {
		return err
	}
	tx.set(r, write{delete: true})
	recount(tx.over, t, valueOf(tx.over.remove(r.kind, key)), nil)
	return nil
}

// claim gives up the claims that the row held and takes those it will hold; row nil: none.
func (tx *Tx) claim(t AnyTable, key string, row any) error {
	want := map[string]bool{}
	for _, c := range t.claimsOf(row) {
		want[c] = true
	}
	if old := tx.over.get(t.Kind(), key); old != nil {
		for _, c := range t.claimsOf(old.val) {
			if want[c] {
				delete(want, c)
				continue
			}
			r := ref{claimKind, string(t.Kind()) + "/" + c}
			tx.read(r.kind, r.key)
			tx.set(r, write{delete: true})
			tx.over.remove(claimKind, r.key)
		}
	}
	for _, c := range t.claimsOf(row) {
		if !want[c] {
			continue
		}
		r := ref{claimKind, string(t.Kind()) + "/" + c}
		tx.read(r.kind, r.key)
		if held := tx.over.get(claimKind, r.key); held != nil {
			if holder := held.val.(string); holder != key {
				return &TakenError{Kind: t.Kind(), Claim: c, Holder: holder}
			}
			continue
		}
		tx.set(r, write{value: []byte(key)})
		tx.over.put(claimKind, &entry{key: r.key, val: key})
	}
	return nil
}

// Mark records that something was added under name, so that a Guard of it elsewhere
// notices. Marks do not conflict with each other. Example: a port marks its network.
func (tx *Tx) Mark(name string) { tx.set(ref{guardKind, name}, write{value: []byte("1")}) }

// Guard makes the transaction fail, and run again, where somebody marked name since the
// snapshot. Example: deleting a network guards it and sees no port in its List.
func (tx *Tx) Guard(name string) { tx.read(guardKind, name) }

// Unmark removes what Mark left, with the thing it was about.
func (tx *Tx) Unmark(name string) {
	tx.read(guardKind, name)
	tx.set(ref{guardKind, name}, write{delete: true})
}

// Fence makes the transaction commit only while the term of office lasts.
func (tx *Tx) Fence(t Term) {
	tx.fences = append(tx.fences, t)
}

// ErrDeposed is returned by Update where a Fence did not hold.
var ErrDeposed = fault.New(fault.Unavailable, "Another server leads now. Try again.")

const maxAttempts = 64

// Update runs f on the newest state and commits what it wrote, all or nothing. Where a
// row that f read has changed meanwhile, f runs again on the newer state, so f must have
// no effect but its writes to tx. An error of f ends it with nothing written. It returns
// the revision of the commit once the mirror holds it; a transaction that wrote nothing
// returns the revision that it read.
//
// Errors: what f returned; *TakenError; ErrDeposed; fault.Unavailable where etcd does not
// answer (then the commit may or may not have happened: retry what is idempotent), or
// where it lost against others maxAttempts times.
func (s *Store) Update(ctx context.Context, f func(*Tx) error) (int64, error) {
	for attempt := range maxAttempts {
		s.mu.Lock()
		base, rev := s.mirror, s.rev
		s.mu.Unlock()
		tx := &Tx{s: s, base: base, over: base.edit(), rev: rev, reads: map[ref]struct{}{}, writes: map[ref]write{}}
		if err := f(tx); err != nil {
			return 0, err
		}
		if len(tx.writes) == 0 {
			return rev, nil
		}
		ok, at, deposed, err := s.commit(ctx, tx)
		if err != nil {
			return 0, err
		}
		wctx, cancel := context.WithTimeout(ctx, s.cfg.OpTimeout)
		err = s.Wait(wctx, at)
		cancel()
		if ok {
			s.stats.add(&s.stats.Commits, 1)
			return at, err
		}
		if deposed {
			return 0, ErrDeposed
		}
		if err != nil {
			return 0, err
		}
		s.stats.add(&s.stats.Conflicts, 1)
		if attempt > 2 {
			select {
			case <-time.After(time.Duration(rand.Int64N(int64(time.Millisecond) << min(attempt, 7)))):
			case <-ctx.Done():
				return 0, fault.Wrap(fault.Unavailable, ctx.Err(), "The request took too long. Try again.")
			}
		}
	}
	return 0, fault.New(fault.Unavailable, "Too many changes at once. Try again.")
}

// commit sends the transaction. It tells whether it was taken, and the revision that the
// mirror must reach before the next attempt.
func (s *Store) commit(ctx context.Context, tx *Tx) (ok bool, rev int64, deposed bool, err error) {
	cmps := make([]clientv3.Cmp, 0, len(tx.fences)+len(tx.reads))
	for _, t := range tx.fences {
		cmps = append(cmps, clientv3.Compare(clientv3.CreateRevision(t.key), "=", t.rev))
	}
	for r := range tx.reads {
		key := s.rowKey(r.kind, r.key)
		cmps = append(cmps, clientv3.Compare(clientv3.ModRevision(key), "=", tx.baseRev(r)))
	}
	ops := make([]clientv3.Op, 0, len(tx.order)+1)
	for _, r := range tx.order {
		w, key := tx.writes[r], s.rowKey(r.kind, r.key)
		switch {
		case w.delete && tx.baseRev(r) == 0:
		case w.delete:
			ops = append(ops, clientv3.OpDelete(key))
		case w.lease != 0:
			ops = append(ops, clientv3.OpPut(key, string(w.value), clientv3.WithLease(w.lease)))
		default:
			ops = append(ops, clientv3.OpPut(key, string(w.value)))
		}
	}
	ops = append(ops, clientv3.OpPut(s.cfg.Prefix+"head", ""))
	if len(cmps) > MaxOps || len(ops) > MaxOps {
		return false, 0, false, fault.New(fault.TooLarge, "The request touches %d things at once; the limit is %d. Split it.", max(len(cmps), len(ops)), MaxOps)
	}
	els := []clientv3.Op{clientv3.OpGet(s.cfg.Prefix+"head", clientv3.WithKeysOnly())}
	for _, f := range tx.fences {
		els = append(els, clientv3.OpGet(f.key, clientv3.WithKeysOnly()))
	}
	octx, cancel := context.WithTimeout(ctx, s.cfg.OpTimeout)
	defer cancel()
	resp, err := s.cl.Txn(octx).If(cmps...).Then(ops...).Else(els...).Commit()
	switch {
	case errors.Is(err, rpctypes.ErrTooManyOps):
		return false, 0, false, fmt.Errorf("%w: %w", errFewOps, err)
	case errors.Is(err, rpctypes.ErrRequestTooLarge), status.Code(err) == codes.ResourceExhausted && strings.Contains(err.Error(), "larger than max"):
		return false, 0, false, fault.Wrap(fault.TooLarge, err, "The request is larger than the state store takes.")
	case err != nil:
		return false, 0, false, fault.Wrap(fault.Unavailable, err, "The state store does not answer. Try again.")
	}
	if resp.Succeeded {
		return true, resp.Header.Revision, false, nil
	}
	if kvs := resp.Responses[0].GetResponseRange().Kvs; len(kvs) == 1 {
		rev = kvs[0].ModRevision
	}
	for i, f := range tx.fences {
		kvs := resp.Responses[i+1].GetResponseRange().Kvs
		if len(kvs) == 0 || kvs[0].CreateRevision != f.rev {
			deposed = true
		}
	}
	return false, rev, deposed, nil
}
