package agent

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"yakumo/link"
	"yakumo/model"
)

// leaseGrace is how much longer than its lease a guest is left to the agent, before the watcher kills it.
const leaseGrace = 3 * time.Second

// leasesWatched tells whether a process watches the leases in the directory.
func leasesWatched(dir string) bool {
	f, err := os.OpenFile(filepath.Join(dir, leaseLock), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return false
	}
	defer f.Close()
	return unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil
}

// KeepLeases watches the leases of an agent's directory and kills guests that run longer, whether the agent lives or not. It is
// a process of its own, and asks nothing of libvirt: a guest is a process whose arguments have its id after -uuid. It ends with
// ctx, when nothing has been leased for a minute, or at once where another process watches.
func KeepLeases(ctx context.Context, dir string, log *slog.Logger) error {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return err
	}
	w := LeaseWatch{Dir: dir, BootID: string(bytes.TrimSpace(boot)), Clock: link.SinceBoot, Kill: func(late map[model.ID]bool) { killGuests(late, log) }, Log: log}
	return w.Run(ctx)
}

// LeaseWatch is KeepLeases on whatever host. All of it is needed.
type LeaseWatch struct {
	Dir    string                         // the agent's
	BootID string                         // of the host's kernel, as the agent's
	Clock  func() time.Duration           // as the agent's
	Kill   func(guests map[model.ID]bool) // ends the processes of guests, where there are any
	Log    *slog.Logger
}

// Run watches, as KeepLeases does.
func (w *LeaseWatch) Run(ctx context.Context) error {
	f, err := os.OpenFile(filepath.Join(w.Dir, leaseLock), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil {
		return nil
	}
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	idle := w.Clock()
	for {
		l, err := readLeases(w.Dir)
		now := w.Clock()
		switch {
		case err != nil:
			w.Log.Error("the leases of guests cannot be read", "err", err)
		case len(l.Ends) > 0:
			idle = now
			if late := overdue(l.Ends, now); l.BootID == w.BootID && len(late) > 0 {
				w.Kill(late)
			}
		case now-idle > time.Minute:
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// overdue gives the guests whose leases have ended too long ago.
func overdue(ends map[model.ID]time.Duration, now time.Duration) map[model.ID]bool {
	late := map[model.ID]bool{}
	for id, end := range ends {
		if now >= end+leaseGrace {
			late[id] = true
		}
	}
	return late
}

// killGuests kills the guests' processes.
func killGuests(late map[model.ID]bool, log *slog.Logger) {
	for pid, id := range guestProcesses(late) {
		log.Error("a guest runs longer than its lease; it is killed", "server", id, "pid", pid)
		if err := unix.Kill(pid, unix.SIGKILL); err != nil && err != unix.ESRCH {
			log.Error("a guest cannot be killed", "server", id, "pid", pid, "err", err)
		}
	}
}

// guestProcesses finds the processes of guests by their arguments.
func guestProcesses(ids map[string]bool) map[int]string {
	out := map[int]string{}
	dirs, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return nil
	}
	for _, path := range dirs {
		b, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		args := bytes.Split(b, []byte{0})
		for i := 0; i+1 < len(args); i++ {
			if id := string(args[i+1]); string(args[i]) == "-uuid" && ids[id] {
				if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path))); err == nil {
					out[pid] = id
				}
			}
		}
	}
	return out
}
