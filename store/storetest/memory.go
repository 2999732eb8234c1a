package storetest

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"

	"yakumo/store"
)

// Memory is an etcd in memory, as far as the store needs one: keys with their history, transactions, leases, watches. It takes its
// time from package time, so that it works in a testing/synctest bubble, where an etcd with sockets or raft does not. The suite
// holds it to what etcd does.
type Memory struct {
	mu        sync.Mutex
	rev       int64
	compacted int64
	keys      map[string][]version // of each key, oldest first
	events    []*clientv3.Event    // in order
	leases    map[int64]*memoryLease
	next      int64
	moved     chan struct{} // closed and replaced when rev moves
	committed func(rev int64)
}

type version struct {
	rev int64
	kv  *mvccpb.KeyValue // nil: deleted
}

type memoryLease struct {
	ttl   time.Duration
	timer *time.Timer
	keys  map[string]bool
}

// NewMemory makes an empty one.
func NewMemory() *Memory {
	return &Memory{rev: 1, keys: map[string][]version{}, leases: map[int64]*memoryLease{}, moved: make(chan struct{})}
}

// Committed has f called with the revision of each transaction that has written something, before its client has the answer. f must
// not wait for the store.
func (m *Memory) Committed(f func(rev int64)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.committed = f
}

// Reach is a process's way to a Memory. The zero value is a good one.
type Reach struct {
	mu   sync.Mutex
	cut  chan struct{} // not nil: closed when the way is there again
	dead bool
	// Delay is how long a request is under way; nil: no time.
	Delay func() time.Duration
}

// Cut ends the way to the store: requests that are made wait, and events stay away, until Mend.
func (r *Reach) Cut() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.cut == nil {
		r.cut = make(chan struct{})
	}
}

// Mend undoes Cut.
func (r *Reach) Mend() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.cut != nil {
		close(r.cut)
		r.cut = nil
	}
}

// Kill ends the process's way for good: what it has asked may have happened, and it hears nothing of it.
func (r *Reach) Kill() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.dead = true
	if r.cut != nil {
		close(r.cut)
		r.cut = nil
	}
}

var errDead = errors.New("storetest: the process is dead")

// pass returns when the store can be reached.
func (r *Reach) pass(ctx context.Context, request bool) error {
	if r.Delay != nil && request {
		if d := r.Delay(); d > 0 {
			select {
			case <-time.After(d):
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
	for {
		r.mu.Lock()
		cut, dead := r.cut, r.dead
		r.mu.Unlock()
		if dead {
			return errDead
		}
		if cut == nil {
			return ctx.Err()
		}
		select {
		case <-cut:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Client gives a client for one process, which ends with ctx.
func (m *Memory) Client(ctx context.Context, r *Reach) *clientv3.Client {
	if r == nil {
		r = &Reach{}
	}
	c := clientv3.NewCtxClient(ctx)
	c.KV = clientv3.NewKVFromKVClient(&memoryKV{m, r}, c)
	c.Lease = &memoryLeases{m, r}
	c.Watcher = &memoryWatcher{m, r}
	return c
}

func (m *Memory) header() *etcdserverpb.ResponseHeader {
	return &etcdserverpb.ResponseHeader{Revision: m.rev}
}

// at gives a key as it was at a revision, nil where it was not.
func (m *Memory) at(key string, rev int64) *mvccpb.KeyValue {
	h := m.keys[key]
	for i := len(h) - 1; i >= 0; i-- {
		if h[i].rev <= rev {
			return h[i].kv
		}
	}
	return nil
}

func within(key, from, end []byte) bool {
	switch {
	case len(end) == 0:
		return bytes.Equal(key, from)
	case len(end) == 1 && end[0] == 0:
		return bytes.Compare(key, from) >= 0
	}
	return bytes.Compare(key, from) >= 0 && bytes.Compare(key, end) < 0
}

// list gives the keys of a range at a revision, in order.
func (m *Memory) list(from, end []byte, rev int64) (out []*mvccpb.KeyValue) {
	if len(end) == 0 {
		if kv := m.at(string(from), rev); kv != nil {
			out = append(out, kv)
		}
		return out
	}
	for k := range m.keys {
		if within([]byte(k), from, end) {
			if kv := m.at(k, rev); kv != nil {
				out = append(out, kv)
			}
		}
	}
	slices.SortFunc(out, func(a, b *mvccpb.KeyValue) int { return bytes.Compare(a.Key, b.Key) })
	return out
}

func (m *Memory) rangeOf(r *etcdserverpb.RangeRequest, rev int64) (*etcdserverpb.RangeResponse, error) {
	if r.Revision > 0 {
		rev = r.Revision
	}
	if rev < m.compacted {
		return nil, rpctypes.ErrGRPCCompacted
	}
	all := slices.DeleteFunc(m.list(r.Key, r.RangeEnd, rev), func(kv *mvccpb.KeyValue) bool {
		return r.MaxCreateRevision > 0 && kv.CreateRevision > r.MaxCreateRevision || r.MinCreateRevision > 0 && kv.CreateRevision < r.MinCreateRevision ||
			r.MaxModRevision > 0 && kv.ModRevision > r.MaxModRevision || r.MinModRevision > 0 && kv.ModRevision < r.MinModRevision
	})
	if r.SortOrder != etcdserverpb.RangeRequest_NONE {
		slices.SortStableFunc(all, func(a, b *mvccpb.KeyValue) int {
			n := bytes.Compare(a.Key, b.Key)
			switch r.SortTarget {
			case etcdserverpb.RangeRequest_CREATE:
				n = cmp.Compare(a.CreateRevision, b.CreateRevision)
			case etcdserverpb.RangeRequest_MOD:
				n = cmp.Compare(a.ModRevision, b.ModRevision)
			}
			if r.SortOrder == etcdserverpb.RangeRequest_DESCEND {
				return -n
			}
			return n
		})
	}
	out := &etcdserverpb.RangeResponse{Header: m.header(), Count: int64(len(all))}
	if r.Limit > 0 && int64(len(all)) > r.Limit {
		all, out.More = all[:r.Limit], true
	}
	for _, kv := range all {
		if r.KeysOnly {
			kv = &mvccpb.KeyValue{Key: kv.Key, CreateRevision: kv.CreateRevision, ModRevision: kv.ModRevision, Version: kv.Version, Lease: kv.Lease}
		}
		out.Kvs = append(out.Kvs, kv)
	}
	return out, nil
}

// put and del change a key at a revision; the caller moves the revision.
func (m *Memory) put(r *etcdserverpb.PutRequest, rev int64) error {
	if r.Lease != 0 && m.leases[r.Lease] == nil {
		return rpctypes.ErrGRPCLeaseNotFound
	}
	key := string(r.Key)
	kv := &mvccpb.KeyValue{Key: r.Key, Value: r.Value, CreateRevision: rev, ModRevision: rev, Version: 1, Lease: r.Lease}
	if old := m.at(key, rev); old != nil {
		kv.CreateRevision, kv.Version = old.CreateRevision, old.Version+1
		if l := m.leases[old.Lease]; l != nil {
			delete(l.keys, key)
		}
	}
	if l := m.leases[r.Lease]; l != nil {
		l.keys[key] = true
	}
	m.keys[key] = append(m.keys[key], version{rev, kv})
	m.events = append(m.events, &clientv3.Event{Type: clientv3.EventTypePut, Kv: kv})
	return nil
}

func (m *Memory) del(from, end []byte, rev int64) (n int64) {
	for _, old := range m.list(from, end, rev) {
		key := string(old.Key)
		if l := m.leases[old.Lease]; l != nil {
			delete(l.keys, key)
		}
		m.keys[key] = append(m.keys[key], version{rev, nil})
		m.events = append(m.events, &clientv3.Event{Type: clientv3.EventTypeDelete, Kv: &mvccpb.KeyValue{Key: old.Key, ModRevision: rev}})
		n++
	}
	return n
}

// moves makes a revision the newest.
func (m *Memory) moves(rev int64) {
	m.rev = rev
	close(m.moved)
	m.moved = make(chan struct{})
}

func (m *Memory) holds(c *etcdserverpb.Compare) bool {
	kv := m.at(string(c.Key), m.rev)
	if kv == nil {
		if kv = (&mvccpb.KeyValue{}); c.Target == etcdserverpb.Compare_VALUE {
			return false
		}
	}
	n := 0
	switch c.Target {
	case etcdserverpb.Compare_CREATE:
		n = cmp.Compare(kv.CreateRevision, c.GetCreateRevision())
	case etcdserverpb.Compare_MOD:
		n = cmp.Compare(kv.ModRevision, c.GetModRevision())
	case etcdserverpb.Compare_VERSION:
		n = cmp.Compare(kv.Version, c.GetVersion())
	case etcdserverpb.Compare_VALUE:
		n = bytes.Compare(kv.Value, c.GetValue())
	case etcdserverpb.Compare_LEASE:
		n = cmp.Compare(kv.Lease, c.GetLease())
	}
	switch c.Result {
	case etcdserverpb.Compare_EQUAL:
		return n == 0
	case etcdserverpb.Compare_NOT_EQUAL:
		return n != 0
	case etcdserverpb.Compare_GREATER:
		return n > 0
	}
	return n < 0
}

// maxRequest is what the embedded etcd takes, in bytes.
const maxRequest = 8 << 20

func (m *Memory) txn(r *etcdserverpb.TxnRequest) (*etcdserverpb.TxnResponse, error) {
	if max(len(r.Compare), len(r.Success), len(r.Failure)) > store.MaxOps {
		return nil, rpctypes.ErrGRPCTooManyOps
	}
	size := 0
	for _, op := range r.Success {
		size += len(op.GetRequestPut().GetValue())
	}
	if size > maxRequest {
		return nil, rpctypes.ErrGRPCRequestTooLarge
	}
	out := &etcdserverpb.TxnResponse{Succeeded: !slices.ContainsFunc(r.Compare, func(c *etcdserverpb.Compare) bool { return !m.holds(c) })}
	ops := r.Failure
	if out.Succeeded {
		ops = r.Success
	}
	for _, op := range ops { // before anything is changed
		if p := op.GetRequestPut(); p != nil && p.Lease != 0 && m.leases[p.Lease] == nil {
			return nil, rpctypes.ErrGRPCLeaseNotFound
		}
	}
	rev, wrote := m.rev+1, false
	for _, op := range ops {
		switch {
		case op.GetRequestRange() != nil:
			x, err := m.rangeOf(op.GetRequestRange(), m.rev)
			if err != nil {
				return nil, err
			}
			out.Responses = append(out.Responses, &etcdserverpb.ResponseOp{Response: &etcdserverpb.ResponseOp_ResponseRange{ResponseRange: x}})
		case op.GetRequestPut() != nil:
			if err := m.put(op.GetRequestPut(), rev); err != nil {
				return nil, err
			}
			wrote = true
			out.Responses = append(out.Responses, &etcdserverpb.ResponseOp{Response: &etcdserverpb.ResponseOp_ResponsePut{ResponsePut: &etcdserverpb.PutResponse{Header: m.header()}}})
		case op.GetRequestDeleteRange() != nil:
			n := m.del(op.GetRequestDeleteRange().Key, op.GetRequestDeleteRange().RangeEnd, rev)
			wrote = wrote || n > 0
			out.Responses = append(out.Responses, &etcdserverpb.ResponseOp{Response: &etcdserverpb.ResponseOp_ResponseDeleteRange{
				ResponseDeleteRange: &etcdserverpb.DeleteRangeResponse{Header: m.header(), Deleted: n}}})
		default:
			return nil, fmt.Errorf("storetest: a transaction with %v", op)
		}
	}
	if wrote {
		m.moves(rev)
		if m.committed != nil {
			m.committed(rev)
		}
	}
	out.Header = m.header()
	return out, nil
}

// memoryKV serves requests for keys.
type memoryKV struct {
	m *Memory
	r *Reach
}

// call makes a request: the way there, what is done, and the way back.
func call[T any](ctx context.Context, m *Memory, r *Reach, do func() (T, error)) (T, error) {
	var none T
	if err := r.pass(ctx, true); err != nil {
		return none, err
	}
	m.mu.Lock()
	out, err := do()
	m.mu.Unlock()
	if err != nil {
		return none, err
	}
	if err := r.pass(ctx, true); err != nil {
		return none, err
	}
	return out, nil
}

func (k *memoryKV) Range(ctx context.Context, r *etcdserverpb.RangeRequest, _ ...grpc.CallOption) (*etcdserverpb.RangeResponse, error) {
	return call(ctx, k.m, k.r, func() (*etcdserverpb.RangeResponse, error) { return k.m.rangeOf(r, k.m.rev) })
}

func (k *memoryKV) RangeStream(context.Context, *etcdserverpb.RangeRequest, ...grpc.CallOption) (grpc.ServerStreamingClient[etcdserverpb.RangeStreamResponse], error) {
	return nil, fmt.Errorf("storetest: no streams of ranges")
}

func (k *memoryKV) Put(ctx context.Context, r *etcdserverpb.PutRequest, _ ...grpc.CallOption) (*etcdserverpb.PutResponse, error) {
	return call(ctx, k.m, k.r, func() (*etcdserverpb.PutResponse, error) {
		if err := k.m.put(r, k.m.rev+1); err != nil {
			return nil, err
		}
		k.m.moves(k.m.rev + 1)
		return &etcdserverpb.PutResponse{Header: k.m.header()}, nil
	})
}

func (k *memoryKV) DeleteRange(ctx context.Context, r *etcdserverpb.DeleteRangeRequest, _ ...grpc.CallOption) (*etcdserverpb.DeleteRangeResponse, error) {
	return call(ctx, k.m, k.r, func() (*etcdserverpb.DeleteRangeResponse, error) {
		n := k.m.del(r.Key, r.RangeEnd, k.m.rev+1)
		if n > 0 {
			k.m.moves(k.m.rev + 1)
		}
		return &etcdserverpb.DeleteRangeResponse{Header: k.m.header(), Deleted: n}, nil
	})
}

func (k *memoryKV) Txn(ctx context.Context, r *etcdserverpb.TxnRequest, _ ...grpc.CallOption) (*etcdserverpb.TxnResponse, error) {
	return call(ctx, k.m, k.r, func() (*etcdserverpb.TxnResponse, error) { return k.m.txn(r) })
}

func (k *memoryKV) Compact(ctx context.Context, r *etcdserverpb.CompactionRequest, _ ...grpc.CallOption) (*etcdserverpb.CompactionResponse, error) {
	return call(ctx, k.m, k.r, func() (*etcdserverpb.CompactionResponse, error) {
		k.m.compacted = r.Revision
		return &etcdserverpb.CompactionResponse{Header: k.m.header()}, nil
	})
}

// memoryLeases is a clientv3.Lease.
type memoryLeases struct {
	m *Memory
	r *Reach
}

func (l *memoryLeases) Grant(ctx context.Context, ttl int64) (*clientv3.LeaseGrantResponse, error) {
	return call(ctx, l.m, l.r, func() (*clientv3.LeaseGrantResponse, error) {
		l.m.next++
		id, x := l.m.next, &memoryLease{ttl: time.Duration(ttl) * time.Second, keys: map[string]bool{}}
		x.timer = time.AfterFunc(x.ttl, func() {
			l.m.mu.Lock()
			defer l.m.mu.Unlock()
			l.m.expire(id, x)
		})
		l.m.leases[id] = x
		return &clientv3.LeaseGrantResponse{ResponseHeader: l.m.header(), ID: clientv3.LeaseID(id), TTL: ttl}, nil
	})
}

// expire ends a lease and its keys, in one revision.
func (m *Memory) expire(id int64, l *memoryLease) {
	if m.leases[id] != l {
		return
	}
	l.timer.Stop()
	delete(m.leases, id)
	keys := make([]string, 0, len(l.keys))
	for k := range l.keys {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for _, k := range keys {
		m.del([]byte(k), nil, m.rev+1)
	}
	if len(keys) > 0 {
		m.moves(m.rev + 1)
	}
}

func (l *memoryLeases) Revoke(ctx context.Context, id clientv3.LeaseID) (*clientv3.LeaseRevokeResponse, error) {
	return call(ctx, l.m, l.r, func() (*clientv3.LeaseRevokeResponse, error) {
		x := l.m.leases[int64(id)]
		if x == nil {
			return nil, rpctypes.ErrLeaseNotFound
		}
		l.m.expire(int64(id), x)
		return &clientv3.LeaseRevokeResponse{Header: l.m.header()}, nil
	})
}

func (l *memoryLeases) TimeToLive(context.Context, clientv3.LeaseID, ...clientv3.LeaseOption) (*clientv3.LeaseTimeToLiveResponse, error) {
	return nil, fmt.Errorf("storetest: nobody asks how long a lease lasts")
}

func (l *memoryLeases) Leases(context.Context) (*clientv3.LeaseLeasesResponse, error) {
	return nil, fmt.Errorf("storetest: nobody asks for all leases")
}

func (l *memoryLeases) KeepAliveOnce(ctx context.Context, id clientv3.LeaseID) (*clientv3.LeaseKeepAliveResponse, error) {
	return call(ctx, l.m, l.r, func() (*clientv3.LeaseKeepAliveResponse, error) {
		x := l.m.leases[int64(id)]
		if x == nil {
			return nil, rpctypes.ErrLeaseNotFound
		}
		x.timer.Reset(x.ttl)
		return &clientv3.LeaseKeepAliveResponse{ResponseHeader: l.m.header(), ID: id, TTL: int64(x.ttl / time.Second)}, nil
	})
}

// KeepAlive renews three times a lease, until ctx ends, the lease is gone, or it was not renewed for its length.
func (l *memoryLeases) KeepAlive(ctx context.Context, id clientv3.LeaseID) (<-chan *clientv3.LeaseKeepAliveResponse, error) {
	l.m.mu.Lock()
	x := l.m.leases[int64(id)]
	l.m.mu.Unlock()
	if x == nil {
		return nil, rpctypes.ErrLeaseNotFound
	}
	out := make(chan *clientv3.LeaseKeepAliveResponse, 1)
	go func() {
		defer close(out)
		for {
			octx, cancel := context.WithTimeout(ctx, x.ttl)
			resp, err := l.KeepAliveOnce(octx, id)
			cancel()
			if err != nil {
				return
			}
			select {
			case out <- resp:
			default:
			}
			select {
			case <-time.After(x.ttl / 3):
			case <-ctx.Done():
				return
			}
		}
	}()
	return out, nil
}

func (l *memoryLeases) Close() error { return nil }

// memoryWatcher is a clientv3.Watcher.
type memoryWatcher struct {
	m *Memory
	r *Reach
}

func (w *memoryWatcher) RequestProgress(context.Context) error { return nil }
func (w *memoryWatcher) Close() error                          { return nil }

func (w *memoryWatcher) Watch(ctx context.Context, key string, opts ...clientv3.OpOption) clientv3.WatchChan {
	op := clientv3.OpGet(key, opts...)
	out := make(chan clientv3.WatchResponse)
	from := op.Rev()
	w.m.mu.Lock()
	if from == 0 {
		from = w.m.rev + 1
	}
	w.m.mu.Unlock()
	go func() {
		defer close(out)
		for {
			if w.r.pass(ctx, false) != nil {
				return
			}
			w.m.mu.Lock()
			resp, moved := clientv3.WatchResponse{Header: w.m.header()}, w.m.moved
			if from <= w.m.compacted {
				resp.CompactRevision, resp.Canceled = w.m.compacted, true
			} else {
				i, _ := slices.BinarySearchFunc(w.m.events, from, func(e *clientv3.Event, rev int64) int { return cmp.Compare(e.Kv.ModRevision, rev) })
				for _, e := range w.m.events[i:] {
					if within(e.Kv.Key, op.KeyBytes(), op.RangeBytes()) {
						resp.Events = append(resp.Events, e)
					}
				}
				from = w.m.rev + 1
			}
			w.m.mu.Unlock()
			if len(resp.Events) > 0 || resp.Canceled {
				select {
				case out <- resp:
				case <-ctx.Done():
					return
				}
			}
			if resp.Canceled {
				return
			}
			select {
			case <-moved:
			case <-ctx.Done():
				return
			}
		}
	}()
	return out
}
