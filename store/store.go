package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/metadata"

	"yakumo/fault"
	"yakumo/model"
)

// Config says where a Store lives.
type Config struct {
	Client *clientv3.Client
	Prefix string     // of every key; default "/yakumo/v1/"
	Tables []AnyTable // default Tables()
	Log    *slog.Logger
	// Audit is how often the mirror is compared with a full listing; default 5 minutes.
	Audit time.Duration
	// OpTimeout bounds one request to etcd; default 10 s.
	OpTimeout time.Duration
	// SyncTimeout bounds one Sync, so that who waits for a store that is away soon knows; default 5 s.
	SyncTimeout time.Duration
}

// Store is the cloud's state: etcd, and a mirror of it in memory.
type Store struct {
	cfg    Config
	cl     *clientv3.Client
	log    *slog.Logger
	tables map[Kind]AnyTable

	mu      sync.Mutex
	mirror  *mirror       // never changed in place
	rev     int64         // of the newest change in db
	moved   chan struct{} // closed and replaced when rev moves
	subs    map[*Subscription]struct{}
	asking  bool      // a goroutine puts the questions of Sync
	waiting *syncCall // the question that it puts next; nil: nobody waits

	stats  Stats
	cancel context.CancelFunc
	done   chan struct{}
}

// Stats counts what the store did since it was opened.
type Stats struct {
	mu        sync.Mutex
	Commits   int64 // transactions committed
	Conflicts int64 // attempts that met a changed row and ran again
	Relists   int64 // full listings after the first: compactions, lost watches, audits
	Repairs   int64 // rows that an audit found different from the mirror: should stay 0
	Undecoded int64 // rows that could not be decoded
}

func (s *Stats) add(p *int64, n int64) { s.mu.Lock(); *p += n; s.mu.Unlock() }

// Stats gives the counters as they stand.
func (s *Store) Stats() (commits, conflicts, relists, repairs, undecoded int64) {
	s.stats.mu.Lock()
	defer s.stats.mu.Unlock()
	return s.stats.Commits, s.stats.Conflicts, s.stats.Relists, s.stats.Repairs, s.stats.Undecoded
}

// Open reads everything below the prefix into memory and follows it until Close. It
// fails where etcd does not answer before ctx ends, and at once where etcd allows fewer than
// MaxOps operations in a transaction.
func Open(ctx context.Context, cfg Config) (*Store, error) {
	if cfg.Prefix == "" {
		cfg.Prefix = "/yakumo/v1/"
	}
	if cfg.Tables == nil {
		cfg.Tables = Tables()
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	if cfg.Audit == 0 {
		cfg.Audit = 5 * time.Minute
	}
	if cfg.OpTimeout == 0 {
		cfg.OpTimeout = 10 * time.Second
	}
	if cfg.SyncTimeout == 0 {
		cfg.SyncTimeout = 5 * time.Second
	}
	s := &Store{
		cfg: cfg, cl: cfg.Client, log: cfg.Log, tables: map[Kind]AnyTable{},
		moved: make(chan struct{}), subs: map[*Subscription]struct{}{}, done: make(chan struct{}),
	}
	for _, t := range cfg.Tables {
		if _, twice := s.tables[t.Kind()]; twice {
			return nil, fmt.Errorf("table %s is defined twice", t.Kind())
		}
		s.tables[t.Kind()] = t
	}
	s.mirror = newMirror(cfg.Tables)
	rev, err := s.first(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the store: %w", err)
	}
	run, cancel := context.WithCancel(context.Background())
	s.cancel = cancel
	go s.follow(run, rev)
	return s, nil
}

// first makes the mirror, and waits for an etcd that is not there yet.
func (s *Store) first(ctx context.Context) (int64, error) {
	for {
		err := s.probe(ctx)
		if err == nil {
			var rev int64
			if rev, err = s.relist(ctx); err == nil {
				return rev, nil
			}
		}
		if errors.Is(err, errFewOps) || ctx.Err() != nil {
			return 0, err
		}
		s.log.Warn("the state store does not answer yet", "err", err)
		select {
		case <-time.After(500 * time.Millisecond):
		case <-ctx.Done():
			return 0, err
		}
	}
}

var errFewOps = fmt.Errorf("etcd allows too few operations in a transaction: start it with --max-txn-ops %d", MaxOps)

// probe finds out whether etcd takes transactions as large as the store makes.
func (s *Store) probe(ctx context.Context) error {
	octx, cancel := context.WithTimeout(ctx, s.cfg.OpTimeout)
	defer cancel()
	ops := make([]clientv3.Op, MaxOps)
	for i := range ops {
		ops[i] = clientv3.OpGet(s.cfg.Prefix+"head", clientv3.WithKeysOnly())
	}
	_, err := s.cl.Txn(octx).Then(ops...).Commit()
	if errors.Is(err, rpctypes.ErrTooManyOps) {
		return errFewOps
	}
	return err
}

// Close ends the mirror. The client is the caller's.
func (s *Store) Close() {
	s.cancel()
	<-s.done
}

// Snapshot gives the state as the mirror has it now.
func (s *Store) Snapshot() Snapshot {
	s.mu.Lock()
	defer s.mu.Unlock()
	return Snapshot{m: s.mirror, rev: s.rev}
}

// Snapshot is an immutable view of every table at one revision. It costs nothing to keep
// but the memory of what has changed since.
type Snapshot struct {
	m   *mirror
	rev int64
}

// Revision is the store revision of the newest change that the snapshot holds.
func (s Snapshot) Revision() int64 { return s.rev }

func (s Snapshot) state() *mirror    { return s.m }
func (s Snapshot) read(Kind, string) {}

// Wait returns once the mirror holds the revision.
func (s *Store) Wait(ctx context.Context, rev int64) error {
	for {
		s.mu.Lock()
		have, moved := s.rev, s.moved
		s.mu.Unlock()
		if have >= rev {
			return nil
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return fault.Wrap(fault.Unavailable, ctx.Err(), "The state store is behind. Try again.")
		}
	}
}

// syncCall is one question to etcd, and those who wait for its answer.
type syncCall struct {
	done chan struct{}
	rev  int64
	err  error
}

// Sync returns once the mirror holds everything that anybody committed before the call,
// on whichever server. Calls at the same time share one question to etcd.
//
// Errors: fault.Unavailable where that takes longer than Config.SyncTimeout or ctx.
func (s *Store) Sync(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.SyncTimeout)
	defer cancel()
	// A question under way may have been answered before this call began, so only one that
	// is put from now on will do: join the next.
	s.mu.Lock()
	if s.waiting == nil {
		s.waiting = &syncCall{done: make(chan struct{})}
	}
	c := s.waiting
	if !s.asking {
		s.asking = true
		go s.ask()
	}
	s.mu.Unlock()
	select {
	case <-c.done:
	case <-ctx.Done():
		return fault.Wrap(fault.Unavailable, ctx.Err(), "The state store does not answer. Try again.")
	}
	if c.err != nil {
		return fault.Wrap(fault.Unavailable, c.err, "The state store does not answer. Try again.")
	}
	return s.Wait(ctx, c.rev)
}

// ask puts the questions of Sync, one after the other, while somebody waits.
func (s *Store) ask() {
	for {
		s.mu.Lock()
		c := s.waiting
		if c == nil {
			s.asking = false
			s.mu.Unlock()
			return
		}
		s.waiting = nil
		s.mu.Unlock()
		ctx, cancel := context.WithTimeout(context.Background(), s.cfg.SyncTimeout)
		resp, err := s.cl.Get(ctx, s.cfg.Prefix+"head", clientv3.WithKeysOnly())
		cancel()
		if err == nil && len(resp.Kvs) == 1 {
			c.rev = resp.Kvs[0].ModRevision
		}
		c.err = err
		close(c.done)
	}
}

const listPage = 2000

// relist makes the mirror equal to a full listing, and gives the listing's revision.
func (s *Store) relist(ctx context.Context) (int64, error) {
	var kvs []*mvccpb.KeyValue
	var rev int64
	from, end := s.cfg.Prefix, clientv3.GetPrefixRangeEnd(s.cfg.Prefix)
	for {
		octx, cancel := context.WithTimeout(ctx, s.cfg.OpTimeout)
		opts := []clientv3.OpOption{clientv3.WithRange(end), clientv3.WithLimit(listPage)}
		if rev != 0 {
			opts = append(opts, clientv3.WithRev(rev))
		}
		resp, err := s.cl.Get(octx, from, opts...)
		cancel()
		if err != nil {
			return 0, err
		}
		if rev == 0 {
			rev = resp.Header.Revision
		}
		kvs = append(kvs, resp.Kvs...)
		if !resp.More {
			break
		}
		from = string(resp.Kvs[len(resp.Kvs)-1].Key) + "\x00"
	}
	seen := make(map[string]struct{}, len(kvs))
	batch := make([]change, 0, len(kvs))
	for _, kv := range kvs {
		kind, key, ok := s.split(string(kv.Key))
		if !ok {
			continue
		}
		seen[string(kind)+"\x00"+key] = struct{}{}
		batch = append(batch, change{kind: kind, key: key, rev: kv.ModRevision, value: kv.Value})
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if rev < s.rev {
		return s.rev, nil // the watch has gone past this listing meanwhile
	}
	kinds := []Kind{claimKind, guardKind}
	for k := range s.tables {
		kinds = append(kinds, k)
	}
	for _, kind := range kinds {
		s.mirror.below(kind, -1, "", func(e *entry) bool {
			if _, ok := seen[string(kind)+"\x00"+e.key]; !ok {
				batch = append(batch, change{kind: kind, key: e.key, rev: rev, deleted: true})
			}
			return true
		})
	}
	n := s.apply(batch, rev)
	if n > 0 && s.stats.Relists > 0 {
		s.log.Debug("the mirror was brought up to date by a listing", "changes", n, "revision", rev)
	}
	return rev, nil
}

// split makes kind and key of an etcd key, and false for what the mirror does not hold.
func (s *Store) split(full string) (Kind, string, bool) {
	rest, ok := strings.CutPrefix(full, s.cfg.Prefix)
	if !ok {
		return "", "", false
	}
	space, rest, ok := strings.Cut(rest, "/")
	if !ok {
		return "", "", false
	}
	switch space {
	case "r":
		kind, key, ok := strings.Cut(rest, "/")
		_, known := s.tables[Kind(kind)]
		return Kind(kind), key, ok && known
	case "c":
		return claimKind, rest, true
	case "g":
		return guardKind, rest, true
	}
	return "", "", false
}

func (s *Store) rowKey(kind Kind, key string) string {
	switch kind {
	case claimKind:
		return s.cfg.Prefix + "c/" + key
	case guardKind:
		return s.cfg.Prefix + "g/" + key
	}
	return s.cfg.Prefix + "r/" + string(kind) + "/" + key
}

type change struct {
	kind    Kind
	key     string
	rev     int64
	value   []byte
	deleted bool
}

// apply puts changes into the mirror and tells subscribers; it gives the number of
// entries that differed. The caller holds mu.
func (s *Store) apply(batch []change, rev int64) int {
	m := s.mirror.edit()
	n := 0
	for _, c := range batch {
		old := m.get(c.kind, c.key)
		switch {
		case c.deleted:
			if old == nil || old.rev > c.rev {
				continue
			}
			m.remove(c.kind, c.key)
			recount(m, s.tables[c.kind], old.val, nil)
			s.tell(c.kind, c.key, old.val, nil)
		case old != nil && old.rev >= c.rev:
			continue
		default:
			e := &entry{key: c.key, rev: c.rev}
			switch c.kind {
			case claimKind:
				e.val = string(c.value)
			case guardKind:
			default:
				var err error
				if e.val, err = s.tables[c.kind].decode(c.value); err != nil {
					s.stats.add(&s.stats.Undecoded, 1)
					s.log.Error("a row cannot be read and is left out", "kind", c.kind, "key", c.key, "err", err)
					continue
				}
				if key := s.tables[c.kind].keyOf(e.val); key == c.key {
					e.key = key // the row's own, so that etcd's longer key need not be kept
				}
			}
			m.put(c.kind, e)
			recount(m, s.tables[c.kind], valueOf(old), e.val)
			s.tell(c.kind, c.key, valueOf(old), e.val)
		}
		n++
	}
	s.mirror = m.freeze()
	s.rev = max(s.rev, rev)
	close(s.moved)
	s.moved = make(chan struct{})
	for sub := range s.subs {
		sub.wake()
	}
	return n
}

// follow keeps the mirror by a watch from the revision after rev.
func (s *Store) follow(ctx context.Context, rev int64) {
	defer close(s.done)
	audit := time.NewTicker(s.cfg.Audit)
	defer audit.Stop()
	for ctx.Err() == nil {
		err := s.watch(ctx, rev, audit.C)
		if ctx.Err() != nil {
			return
		}
		if errors.Is(err, rpctypes.ErrCompacted) {
			s.log.Info("the watch fell behind a compaction; listing again", "revision", rev)
		} else {
			s.log.Warn("the watch of the state store ended; listing again", "err", err)
		}
		for ctx.Err() == nil {
			s.stats.add(&s.stats.Relists, 1)
			if rev, err = s.relist(ctx); err == nil {
				break
			}
			s.log.Warn("the state store cannot be listed", "err", err)
			select {
			case <-time.After(500 * time.Millisecond):
			case <-ctx.Done():
			}
		}
	}
}

func (s *Store) watch(ctx context.Context, rev int64, audit <-chan time.Time) error {
	// etcd's client puts watches with the same metadata on one stream. In process, a stream on
	// which watches are made and cancelled while events flow can stall for good, so each watch
	// has a stream of its own.
	ctx = metadata.AppendToOutgoingContext(clientv3.WithRequireLeader(ctx), "yakumo-watch", model.NewID())
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ch := s.cl.Watch(ctx, s.cfg.Prefix, clientv3.WithPrefix(), clientv3.WithRev(rev+1))
	for {
		select {
		case resp, ok := <-ch:
			if !ok {
				return errors.New("closed")
			}
			if err := resp.Err(); err != nil {
				return err
			}
			batch := make([]change, 0, len(resp.Events))
			top := int64(0)
			for _, ev := range resp.Events {
				top = max(top, ev.Kv.ModRevision)
				kind, key, ok := s.split(string(ev.Kv.Key))
				if !ok {
					continue
				}
				batch = append(batch, change{kind: kind, key: key, rev: ev.Kv.ModRevision, value: ev.Kv.Value,
					deleted: ev.Type == mvccpb.Event_DELETE})
			}
			if top > 0 {
				s.mu.Lock()
				s.apply(batch, top)
				s.mu.Unlock()
			}
		case <-ctx.Done(): // the channel may stay open when the client has gone away first
			return ctx.Err()
		case <-audit:
			if err := s.audit(ctx); err != nil {
				s.log.Warn("the audit of the mirror failed", "err", err)
			}
		}
	}
}

// audit compares the mirror with etcd at one revision. The watch is held meanwhile, so
// it lists at the mirror's own revision.
func (s *Store) audit(ctx context.Context) error {
	s.mu.Lock()
	rev, read := s.rev, s.mirror
	s.mu.Unlock()
	bad := 0
	from, end := s.cfg.Prefix, clientv3.GetPrefixRangeEnd(s.cfg.Prefix)
	rows := 0
	for {
		octx, cancel := context.WithTimeout(ctx, s.cfg.OpTimeout)
		resp, err := s.cl.Get(octx, from, clientv3.WithRange(end), clientv3.WithLimit(listPage), clientv3.WithRev(rev), clientv3.WithKeysOnly())
		cancel()
		if err != nil {
			return err
		}
		for _, kv := range resp.Kvs {
			kind, key, ok := s.split(string(kv.Key))
			if !ok {
				continue
			}
			rows++
			if e := read.get(kind, key); e == nil || e.rev != kv.ModRevision {
				bad++
				s.log.Error("the mirror is wrong", "kind", kind, "key", key)
			}
		}
		if !resp.More {
			break
		}
		from = string(resp.Kvs[len(resp.Kvs)-1].Key) + "\x00"
	}
	have := 0
	for kind := range s.tables {
		have += read.len(kind)
	}
	have += read.len(claimKind) + read.len(guardKind)
	if bad == 0 && have == rows {
		return nil
	}
	s.stats.add(&s.stats.Repairs, int64(bad+max(have-rows, rows-have)))
	s.stats.add(&s.stats.Relists, 1)
	_, err := s.relist(ctx)
	return err
}
