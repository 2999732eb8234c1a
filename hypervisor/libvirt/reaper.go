package libvirt

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// ReapGuests makes this process the one that guests' processes fall to when they leave the
// libvirtd that this process started (PR_SET_CHILD_SUBREAPER, prctl(2)), and waits for their
// ends until ctx is over. See Daemon for why. Processes that os/exec started are left to it,
// as long as they stay in this process's session.
func ReapGuests(ctx context.Context) error {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("become the reaper of guests: %w", err)
	}
	session, err := unix.Getsid(0)
	if err != nil {
		return fmt.Errorf("become the reaper of guests: %w", err)
	}
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, unix.SIGCHLD)
	go func() {
		defer signal.Stop(ended)
		// A process that ends just before it falls to us sends no signal.
		again := time.NewTicker(200 * time.Millisecond)
		defer again.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-ended:
			case <-again.C:
			}
			reap(session)
		}
	}()
	return nil
}

// reap waits for the children that have ended in another session than ours.
func reap(session int) {
	lists, _ := filepath.Glob("/proc/self/task/*/children") // the pattern is right; no /proc, no children
	for _, list := range lists {
		text, err := os.ReadFile(list)
		if err != nil {
			continue // the thread has ended; its children are another's now
		}
		for _, field := range strings.Fields(string(text)) {
			pid, err := strconv.Atoi(field)
			if err == nil && endedElsewhere(pid, session) {
				unix.Wait4(pid, nil, unix.WNOHANG, nil) // fails only if it is gone
			}
		}
	}
}

// endedElsewhere tells whether a process is a zombie and of another session (proc(5), stat).
func endedElsewhere(pid, session int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(text[strings.LastIndexByte(string(text), ')')+1:]), " ")
	fields := strings.Fields(rest) // state, parent, group, session…
	return len(fields) > 3 && fields[0] == "Z" && fields[3] != strconv.Itoa(session)
}
