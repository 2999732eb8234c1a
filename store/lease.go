package store

import (
	"context"
	"fmt"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"

	"yakumo/fault"
)

// Lease keeps rows alive while its holder lives.
type Lease struct {
	s    *Store
	id   clientv3.LeaseID
	stop context.CancelFunc
	done chan struct{}
}

// NewLease makes a lease that etcd ends when it was not renewed for ttl (at least 1 s,
// whole seconds). It is renewed in the background until Close or until etcd says that it
// is gone.
func (s *Store) NewLease(ctx context.Context, ttl time.Duration) (*Lease, error) {
	octx, cancel := context.WithTimeout(ctx, s.cfg.OpTimeout)
	defer cancel()
	resp, err := s.cl.Grant(octx, max(1, int64(ttl/time.Second)))
	if err != nil {
		return nil, fault.Wrap(fault.Unavailable, err, "The state store does not answer. Try again.")
	}
	run, stop := context.WithCancel(context.Background())
	alive, err := s.cl.KeepAlive(run, resp.ID)
	if err != nil {
		stop()
		return nil, fmt.Errorf("keep a lease alive: %w", err)
	}
	l := &Lease{s: s, id: resp.ID, stop: stop, done: make(chan struct{})}
	go func() {
		defer close(l.done)
		for range alive {
		}
	}()
	return l, nil
}

// Done is closed when the lease has ended.
func (l *Lease) Done() <-chan struct{} { return l.done }

// Renew renews the lease now. It tells until when the lease lasts for certain, by this process's clock: counted from before
// etcd was asked, so that an answer that comes late promises nothing.
func (l *Lease) Renew(ctx context.Context) (time.Time, error) {
	octx, cancel := context.WithTimeout(ctx, l.s.cfg.OpTimeout)
	defer cancel()
	asked := time.Now()
	resp, err := l.s.cl.KeepAliveOnce(octx, l.id)
	if err != nil {
		return time.Time{}, fault.Wrap(fault.Unavailable, err, "The lease cannot be renewed.")
	}
	return asked.Add(time.Duration(resp.TTL) * time.Second), nil
}

// Abandon stops renewing: the lease and its rows end when the ttl has passed, or are
// replaced before.
func (l *Lease) Abandon() {
	l.stop()
	<-l.done
}

// Close ends the lease and removes its rows at once.
func (l *Lease) Close(ctx context.Context) error {
	l.stop()
	<-l.done
	octx, cancel := context.WithTimeout(ctx, l.s.cfg.OpTimeout)
	defer cancel()
	if _, err := l.s.cl.Revoke(octx, l.id); err != nil {
		return fmt.Errorf("end a lease: %w", err)
	}
	return nil
}

// Term is a term of office: transactions fenced with it commit only while it lasts.
type Term struct {
	key string
	rev int64
}

// Lead runs f whenever this process is elected under name, until ctx ends. f's context
// ends with the term of office; f must return soon after. Elections are by lease: a dead
// leader is followed after ttl (default 5 s), and at once where it comes back under the same
// identity, which no other process may have.
func (s *Store) Lead(ctx context.Context, name, identity string, ttl time.Duration, f func(context.Context, Term)) {
	if ttl == 0 {
		ttl = 5 * time.Second
	}
	if err := s.resign(ctx, name, identity); err != nil && ctx.Err() == nil {
		s.log.Warn("an office of this server's former life must run out", "election", name, "err", err)
	}
	for ctx.Err() == nil {
		if err := s.leadOnce(ctx, name, identity, ttl, f); err != nil && ctx.Err() == nil {
			s.log.Warn("election failed; trying again", "election", name, "err", err)
			select {
			case <-time.After(time.Second):
			case <-ctx.Done():
			}
		}
	}
}

// resign gives up what an earlier process of the same identity holds, or waits for, in the
// election: it was killed, and its leases would have to run out first. Should it live after
// all, its fenced writes fail from here on.
func (s *Store) resign(ctx context.Context, name, identity string) error {
	octx, cancel := context.WithTimeout(ctx, s.cfg.OpTimeout)
	defer cancel()
	resp, err := s.cl.Get(octx, s.cfg.Prefix+"e/"+name+"/", clientv3.WithPrefix())
	if err != nil {
		return err
	}
	for _, kv := range resp.Kvs {
		if string(kv.Value) == identity {
			if _, err := s.cl.Delete(octx, string(kv.Key)); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *Store) leadOnce(ctx context.Context, name, identity string, ttl time.Duration, f func(context.Context, Term)) error {
	sctx, cancel := context.WithCancel(ctx)
	defer cancel()
	session, err := concurrency.NewSession(s.cl, concurrency.WithTTL(max(1, int(ttl/time.Second))), concurrency.WithContext(sctx))
	if err != nil {
		return err
	}
	defer func() {
		// ctx may have ended; the office must be given up all the same, or the next leader waits for ttl.
		octx, ocancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer ocancel()
		session.Orphan()
		if _, err := s.cl.Revoke(octx, session.Lease()); err != nil {
			s.log.Debug("the office ends with its lease", "election", name, "err", err)
		}
	}()
	e := concurrency.NewElection(session, s.cfg.Prefix+"e/"+name)
	if err := e.Campaign(sctx, identity); err != nil {
		return err
	}
	s.log.Info("elected", "election", name, "identity", identity)
	fctx, fcancel := context.WithCancel(sctx)
	defer fcancel()
	ended := make(chan struct{})
	go func() {
		select {
		case <-session.Done():
			s.log.Warn("the term of office ended", "election", name)
			fcancel()
		case <-ended:
		}
	}()
	f(fctx, Term{key: e.Key(), rev: e.Rev()})
	close(ended)
	return nil
}
