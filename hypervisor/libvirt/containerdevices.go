package libvirt

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"syscall"
	"time"

	"yakumo/fault"
	"yakumo/hypervisor"
	"yakumo/hypervisor/container"
)

// Console implements hypervisor.Consoler.
func (c *Containers) Console(ctx context.Context, id string) (io.ReadWriteCloser, error) {
	conn, err := c.running(ctx, id, "open the console of")
	if err != nil {
		return nil, err
	}
	free, err := conn.Console(ctx)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open the console of guest %s: %w", id, err), conn.Close())
	}
	if !free {
		return nil, errors.Join(fault.New(fault.Conflict, "The console of guest %s is in use; close it there first.", id), conn.Close())
	}
	return &containerConsole{Conn: conn}, nil
}

// containerConsole ends with io.EOF when its container does.
type containerConsole struct {
	*container.Conn
	once sync.Once
	err  error
}

// Read implements io.Reader.
func (c *containerConsole) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if errors.Is(err, syscall.ECONNRESET) { // it ended with something unread
		err = io.EOF
	}
	return n, err
}

// Close ends the connection. When it returns, the console can be opened again.
func (c *containerConsole) Close() error {
	c.once.Do(func() {
		if c.CloseWrite() == nil && c.SetReadDeadline(time.Now().Add(closeWait)) == nil {
			io.Copy(io.Discard, c.Conn) // until the other end has let go, or does not
		}
		c.err = c.Conn.Close()
	})
	return c.err
}

// Diagnostics implements hypervisor.Diagnoser. The uptime is since this driver has known the guest to be on; processor time is
// counted for all processors together, and each is said to have the same part; what passes the disk is not counted.
func (c *Containers) Diagnostics(ctx context.Context, id string) (hypervisor.Diagnostics, error) {
	const doing = "diagnose"
	var out hypervisor.Diagnostics
	conn, r, ref, err := c.on(ctx, id, doing)
	if err != nil {
		return out, err
	}
	defer conn.Close()
	got, err := c.d.ask(ctx, quick, procDomainGetInfo, new(encoder).dom(ref))
	if err != nil {
		return out, refused(id, doing, err)
	}
	// remote_domain_get_info_ret: state, KiB at most, KiB used, processors, nanoseconds.
	got.u32()
	most, used, n, spent := got.u64(), got.u64(), int(got.u32()), got.u64()
	if got.err != nil || n < 1 {
		return out, fmt.Errorf("read what guest %s uses: %w", id, errors.Join(got.err, fmt.Errorf("it has %d processors", n)))
	}
	out.MemoryMiB, out.UsedMiB = int(most>>10), int(used>>10)
	for range n {
		out.CPUTime = append(out.CPUTime, time.Duration(spent/uint64(n)))
	}
	c.d.mu.Lock()
	out.Uptime = time.Since(c.d.states[id].Since)
	c.d.mu.Unlock()
	out.Disks = []hypervisor.DiskCounters{{Serial: r.serial}}
	counts, err := c.folder(id).Counts(c.veth, conn.PID)
	if err != nil {
		return out, fmt.Errorf("diagnose guest %s: %w", id, err)
	}
	for _, n := range counts {
		out.NICs = append(out.NICs, hypervisor.NICCounters(n))
	}
	return out, nil
}

// on connects with process 1 of a guest that is on; one that is off is a Conflict.
func (c *Containers) on(ctx context.Context, id, doing string) (*container.Conn, record, domainRef, error) {
	ref, r, err := c.d.known(ctx, id, doing)
	if err != nil {
		return nil, r, ref, err
	}
	power, _, err := c.d.power(ctx, ref)
	if err != nil {
		return nil, r, ref, refused(id, doing, err)
	}
	if power != hypervisor.Running && power != hypervisor.Paused {
		return nil, r, ref, fault.New(fault.Conflict, "Cannot %s guest %s as it is not running.", doing, id)
	}
	conn, err := c.folder(id).Dial(ctx)
	if err != nil {
		return nil, r, ref, fmt.Errorf("%s guest %s: %w", doing, id, err)
	}
	return conn, r, ref, nil
}

// Plug implements hypervisor.Plugger for cards; a container's disk stays what it is.
func (c *Containers) Plug(ctx context.Context, g hypervisor.Guest) error {
	const doing = "change the devices of"
	if err := checkContainer(g); err != nil {
		return err
	}
	unlock, err := c.lock(ctx, g.ID)
	if err != nil {
		return err
	}
	defer unlock()
	conn, _, _, err := c.on(ctx, g.ID, doing)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := c.folder(g.ID).Give(ctx, c.veth, conn.PID, recordOf(g, "").cards()); err != nil {
		return fmt.Errorf("%s guest %s: %w", doing, g.ID, err)
	}
	return c.Ensure(ctx, g)
}
