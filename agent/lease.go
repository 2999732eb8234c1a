package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"yakumo/hypervisor"
	"yakumo/model"
)

// leases turns guests off that may run elsewhere soon: those whose row has LeaseSeconds, once the cloud has not known this host to
// be there for so long. They are started again when the host is heard of anew and their rows still say so.
//
// What ends when is also in a file, by the kernel's clock, that a process of its own watches (KeepLeases): a guest does not outlive
// its lease because this process was killed, or stands still.
type leases struct {
	a    *Agent
	boot func() time.Duration

	mu   sync.Mutex
	ends map[model.ID]time.Duration // when each leased guest must be off, by boot
	cut  map[model.ID]bool          // it is to be looked at when the host is heard of
	last map[model.ID]time.Duration // when it was to be off last, by boot
	kept bool                       // the file is as ends
}

// LeaseFile is the file of leases in the agent's directory; leaseLock is held by the process that watches it.
const (
	LeaseFile = "leases.json"
	leaseLock = "leases.lock"
)

// leaseList is what the file holds.
type leaseList struct {
	BootID string                     `json:"boot_id"`
	Ends   map[model.ID]time.Duration `json:"ends"` // nanoseconds since the kernel's start
}

func readLeases(dir string) (leaseList, error) {
	var l leaseList
	b, err := os.ReadFile(filepath.Join(dir, LeaseFile))
	if errors.Is(err, os.ErrNotExist) {
		return l, nil
	}
	if err != nil {
		return l, err
	}
	return l, json.Unmarshal(b, &l)
}

func newLeases(a *Agent) (*leases, error) {
	l := &leases{a: a, boot: a.cfg.Clock, ends: map[model.ID]time.Duration{}, cut: map[model.ID]bool{}, last: map[model.ID]time.Duration{}}
	old, err := readLeases(a.cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("leases of guests: %w", err)
	}
	if old.BootID == a.cfg.BootID { // of an earlier process; after a start of the host no guest runs
		for id, end := range old.Ends {
			l.ends[id] = end
		}
	}
	return l, nil
}

// run watches the leases until ctx ends.
func (l *leases) run(ctx context.Context) {
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for {
		for _, id := range l.look() {
			l.end(ctx, id)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// look brings the leases up to date, and gives the guests that must be off now.
func (l *leases) look() []model.ID {
	now, heard := l.boot(), l.a.link.Heard()
	l.mu.Lock()
	defer l.mu.Unlock()
	var due, begun []model.ID
	changed := false
	ids := l.a.ledger.leases()
	if len(ids) == 0 && len(l.ends) == 0 {
		return nil
	}
	if ids == nil {
		ids = map[model.ID]bool{}
	}
	for id := range l.ends {
		ids[id] = true
	}
	for id := range ids {
		row := l.a.ledger.server(id)
		if row == nil || row.Deleted {
			continue
		}
		end, known := l.ends[id]
		if !l.mark(id, known && now >= end, now) {
			due = append(due, id) // and it is not renewed: nothing says yet that the guest was cut
			continue
		}
		if row.LeaseSeconds == 0 {
			continue
		}
		length := time.Duration(row.LeaseSeconds) * time.Second
		if !known {
			end = now + length // the lease begins with its row: nobody counts on it before this host has said that it has it
			begun = append(begun, id)
		}
		if heard > 0 {
			end = max(end, heard+length)
		}
		if end != l.ends[id] {
			l.ends[id], changed = end, true
		}
		switch {
		case now >= end:
			due = append(due, id)
		case l.cut[id] && heard+length > now:
			delete(l.cut, id)
			l.a.queue.add(id)
		}
	}
	for id := range l.ends {
		if row := l.a.ledger.server(id); row == nil || row.LeaseSeconds == 0 || row.Deleted {
			if power, known := l.a.guests.state(id); row != nil && row.LeaseSeconds == 0 || known && power != hypervisor.Running && power != hypervisor.Paused {
				delete(l.ends, id)
				delete(l.cut, id)
				delete(l.last, id)
				changed = true
			}
		}
	}
	if changed || !l.kept && len(l.ends) > 0 {
		l.kept = l.keep() == nil
	}
	for _, id := range begun {
		l.a.queue.add(id) // which says so
	}
	if l.kept && len(l.ends) > 0 && l.a.cfg.Keeper != nil && !leasesWatched(l.a.cfg.Dir) {
		if err := l.a.cfg.Keeper(); err != nil {
			l.a.log.Error("nobody watches the leases of guests should this process end", "err", err)
		}
	}
	return due
}

// keep writes the file. The caller holds mu.
func (l *leases) keep() error {
	b, err := json.Marshal(leaseList{l.a.cfg.BootID, l.ends})
	if err != nil {
		return err
	}
	path := filepath.Join(l.a.cfg.Dir, LeaseFile)
	if err = os.WriteFile(path+".new", b, 0o600); err == nil {
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		l.a.log.Error("the leases of guests cannot be kept", "err", err)
	}
	return err
}

// settles is how long a guest runs again until its going off is its own wish: what was to turn it off may come late.
const settles = 30 * time.Second

// mark keeps progress.Cut: before a lease that has ended is renewed, as the guest may be off for that, and until the guest runs
// under one that stands. False where it cannot be kept that the lease has ended. The caller holds mu.
func (l *leases) mark(id model.ID, ended bool, now time.Duration) bool {
	p, ok := l.a.ledger.progressOf(id)
	if ended {
		l.cut[id], l.last[id] = true, now
	}
	if !ok || p.Cut == ended {
		return true
	}
	if power, _ := l.a.guests.state(id); !ended && (power != hypervisor.Running || now < l.last[id]+settles) {
		return true
	}
	if err := l.a.ledger.note(id, func(p *progress) { p.Cut = ended }); err != nil {
		l.a.log.Error("the end of a lease cannot be noted", "server", id, "err", err)
		return !ended
	}
	return true
}

// end turns a guest off whose lease has ended.
func (l *leases) end(ctx context.Context, id model.ID) {
	power, known := l.a.guests.state(id)
	if known && power != hypervisor.Running && power != hypervisor.Paused {
		return
	}
	l.a.log.Error("no server was heard for the guest's lease; it is turned off, as it may be started elsewhere", "server", id)
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second) // then the watcher kills it
	defer cancel()
	if _, err := l.a.stop(ctx, id, 0); err != nil {
		l.a.log.Error("a guest whose lease has ended is not off", "server", id, "err", err)
		return
	}
	err := l.a.ledger.note(id, func(p *progress) {
		if p.Power, p.Started = model.PowerOff, false; p.Phase == model.PhaseReady {
			p.Phase = model.PhaseStarting
		}
	})
	if err != nil { // whoever reconciles the guest does the same
		l.a.log.Error("the end of a lease cannot be noted", "server", id, "err", err)
	}
	l.a.report(id)
}

// lapsed tells whether a guest's lease has ended and has not been renewed since: who watches the leases may have killed it.
func (l *leases) lapsed(id model.ID) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	end, known := l.ends[id]
	return known && l.boot() >= end
}

// may tells whether a guest may be started: it is not leased, or the cloud has known this host to be there lately, on a stream that
// has brought this process the host's rows.
func (l *leases) may(row *model.HostServer) bool {
	if row.LeaseSeconds == 0 {
		return true
	}
	heard := l.a.link.Heard()
	ok := heard > 0 && l.boot() < heard+time.Duration(row.LeaseSeconds)*time.Second
	l.mu.Lock()
	defer l.mu.Unlock()
	if !ok {
		l.cut[row.ID] = true // it is looked at again when it may
	}
	return ok
}

// holds gives the length of a guest's lease in seconds, where it is held to: with its end in the file.
func (l *leases) holds(id model.ID) int {
	row := l.a.ledger.server(id)
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, there := l.ends[id]; row == nil || !there || !l.kept {
		return 0
	}
	return row.LeaseSeconds
}
