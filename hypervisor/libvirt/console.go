package libvirt

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"yakumo/fault"
	"yakumo/hypervisor"
)

// Console implements hypervisor.Consoler by libvirt's console stream. The guest's pty is never
// opened by its path: libvirtd keeps users apart, and knows when the pty is another guest's.
func (d *Driver) Console(ctx context.Context, id string) (io.ReadWriteCloser, error) {
	ref, _, err := d.known(ctx, id, "open the console of")
	if err != nil {
		return nil, err
	}
	c, err := dial(ctx, connConfig{socket: d.cfg.SocketPath, stall: 3 * d.cfg.Keepalive})
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, fmt.Errorf("open the console of guest %s: %w", id, unavailable(d.cfg.SocketPath, err))
	}
	s, err := c.openStream(ctx, procDomainOpenConsole, new(encoder).dom(ref).none().u32(0))
	if err != nil {
		c.end(err)
		if hasCode(err, codeOperationFailed) {
			return nil, fault.Wrap(fault.Conflict, err, "The console of guest %s is in use; close it there first.", id)
		}
		if hasCode(err, codeOperationInvalid) {
			return nil, fault.Wrap(fault.Conflict, err, "Guest %s is not running; start it first.", id)
		}
		return nil, refused(id, "open the console of", err)
	}
	return &console{d: d, ref: ref, s: s}, nil
}

// console is a stream that ends with io.EOF when its guest does.
type console struct {
	d    *Driver
	ref  domainRef
	s    *stream
	once sync.Once
	last error // what the stream's error came to
}

func (c *console) Read(p []byte) (int, error) {
	n, err := c.s.Read(p)
	if err == nil || err == io.EOF || errors.Is(err, net.ErrClosed) {
		return n, err
	}
	// libvirtd says the same of a pty that hung up with its guest and of one that broke.
	c.once.Do(func() {
		c.last = err
		var lost *lostError
		if errors.As(err, &lost) {
			c.last = unavailable(c.d.cfg.SocketPath, err)
			return
		}
		ctx, cancel := context.WithTimeout(c.d.ctx, closeWait)
		defer cancel()
		power, _, stateErr := c.d.power(ctx, c.ref)
		if hasCode(stateErr, codeNoDomain) || stateErr == nil && power != hypervisor.Running && power != hypervisor.Paused {
			c.last = io.EOF
		}
	})
	return n, c.last
}

func (c *console) Write(p []byte) (int, error) { return c.s.Write(p) }
func (c *console) Close() error                { return c.s.Close() }

// ConsoleLog implements hypervisor.Consoler.
func (d *Driver) ConsoleLog(ctx context.Context, id string, maxBytes int64) ([]byte, error) {
	_, r, err := d.known(ctx, id, "read the console log of")
	if err != nil || r.log == "" {
		return nil, err
	}
	if maxBytes <= 0 || maxBytes > r.logBound {
		maxBytes = r.logBound
	}
	log, err := readLog(r.log, maxBytes)
	if err != nil {
		return nil, fmt.Errorf("read the console log of guest %s: %w", id, err)
	}
	return log, nil
}

// readLog gives the last n bytes of a console log; a missing file is an empty log.
func readLog(path string, n int64) ([]byte, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a file", path)
	}
	from := max(info.Size()-n, 0)
	return io.ReadAll(io.NewSectionReader(f, from, info.Size()-from))
}

// round is how often the driver looks at everything by itself: events that never came are made
// up for, and running guests' console logs are brought back to their bounds.
const round = 2 * time.Second

// logSlack is how far a log may take more of the disk than its bound before it is cut.
const logSlack = 64 << 10

// lookAfter looks at everything every round while a link lasts. libvirtd sends no event for
// some ends of guests, that of one that died while libvirtd was away among them.
func (d *Driver) lookAfter(l *link) {
	tick := time.NewTicker(round)
	defer tick.Stop()
	failed := map[string]bool{} // logs that were complained about
	for {
		select {
		case <-l.quick.done:
			return
		case <-tick.C:
		}
		if _, err := d.list(d.ctx, l); err != nil && d.current() == l {
			d.log.Warn("cannot list guests", "error", err)
			continue
		}
		if d.variant.round != nil {
			d.variant.round(d.ctx)
		}
		d.mu.Lock()
		logs := make(map[string]record, len(d.records))
		for id, r := range d.records {
			if r.log != "" && d.states[id].Power == hypervisor.Running {
				logs[id] = r
			}
		}
		d.mu.Unlock()
		for id, r := range logs {
			if err := boundLog(r.log, r.logBound); err != nil && !failed[r.log] {
				failed[r.log] = true
				d.log.Warn("cannot bound a console log", "server", id, "error", err)
			}
		}
	}
}

// boundLog gives back what a console log takes of the disk beyond its last bound bytes. QEMU
// appends to the file meanwhile: a hole is made at its start, which loses no byte that QEMU
// writes, where cutting the file would. The file's size grows on, what it takes does not.
func boundLog(path string, bound int64) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	sys, ok := info.Sys().(*syscall.Stat_t)
	if !ok || !info.Mode().IsRegular() || sys.Blocks*512 <= bound+logSlack {
		return nil
	}
	const block = 4096
	hole := (info.Size() - bound) / block * block
	if hole <= 0 {
		return nil
	}
	// FALLOC_FL_PUNCH_HOLE with FALLOC_FL_KEEP_SIZE, of linux/falloc.h.
	if err := syscall.Fallocate(int(f.Fd()), 0x02|0x01, 0, hole); err != nil {
		return fmt.Errorf("make a hole in %s: %w", path, err)
	}
	return nil
}
