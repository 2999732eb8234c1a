package link

import (
	"context"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"yakumo/store"
)

// A host may run guests under a lease (model.HostServer.LeaseSeconds): it turns them off once it has heard no server for so
// long, and the cloud runs them elsewhere some time after the host's heartbeat has gone. For that to be sound the host must count
// from a moment at which its heartbeat stood. A ping that was under way for a minute says nothing of now, and a server that was
// stopped for a minute does not know that the heartbeat is gone. So:
//
//   - The host counts from when it sent an answer to a ping, by its own clock, once it learns that the answer has counted.
//   - An answer counts where the server knows that the heartbeat stands: its lease was renewed, and what was renewed
//     lasts, counted from before the store was asked.
//   - A ping's number is one more than that of the newest answer that has counted; that is how the host learns it.
//   - The host's rows are not older than its heartbeat, and it counts nothing before it has them.
//
// The store is asked only for hosts that have such guests.

// longAbsence is how long a heartbeat may be lost for a session to go on when it is back; less than model.MinLease.
const longAbsence = 5 * time.Second

var errAbsent = status.Error(codes.Unavailable, "the host's heartbeat was lost for long; attach anew")

// grant makes sure that the heartbeat stands, where that matters to a guest of the host.
func (ss *session) grant(ctx context.Context) {
	l := ss.beating.Load()
	if l == nil || !ss.leased() {
		return
	}
	until, err := l.Renew(ctx)
	if err != nil {
		if ctx.Err() == nil {
			ss.log.Warn("the heartbeat may be gone; the host's guests that are leased go on until their leases end", "err", err)
		}
		return
	}
	ss.until.Store(int64(until.Sub(epoch)))
}

// epoch is what monotonic times are counted from.
var epoch = time.Now()

// granted takes the answer to a ping.
func (ss *session) granted(n uint64) {
	if n == ss.ponged.Load()+1 && int64(time.Since(epoch)) < ss.until.Load() && ss.beating.Load() != nil {
		ss.ponged.Store(n)
	}
}

// leased tells whether a guest of the host is under a lease.
func (ss *session) leased() bool {
	for s := range store.Servers.List(ss.s.cfg.Store.Snapshot(), "host", ss.host) {
		if s.Lease() > 0 {
			return true
		}
	}
	return false
}

// SinceBoot is the clock of leases: time since the kernel's start, also while the machine slept. It never falls.
func SinceBoot() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic("link: no clock: " + err.Error()) // every Linux has it
	}
	return time.Duration(ts.Nano())
}

// lease is the host's half: from when on its guests' leases count.
type lease struct {
	sent  map[uint64]time.Duration // when the answer to a ping was sent first, SinceBoot
	rows  bool                     // this stream's first rows were taken
	heard func(time.Duration)
}

// ping gives what counts when a ping comes, and notes that it is answered now.
func (l *lease) ping(n uint64, now time.Duration) {
	if n == 0 { // the vigil's
		return
	}
	if at, ok := l.sent[n-1]; ok && l.rows {
		l.heard(at)
	}
	for k := range l.sent {
		if k+1 < n {
			delete(l.sent, k)
		}
	}
	if _, ok := l.sent[n]; !ok {
		l.sent[n] = now
	}
}
