package libvirt

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"yakumo/fault"
	"yakumo/hypervisor"
)

var _ hypervisor.Reopener = (*Driver)(nil)

const (
	// reopenLook is how long a guest's QEMU has to connect anew between two looks, reopenFor how long in all.
	reopenLook = 100 * time.Millisecond
	reopenFor  = 20 * time.Second
)

// Reopen implements hypervisor.Reopener for disks by NBD. QEMU's client learns a size when it connects, and connects anew, where it has lost its server, with
// the next request. A request that finds no server fails, so the guest's own must not be the one: it is paused, and the request is made by QEMU's monitor.
func (d *Driver) Reopen(ctx context.Context, id, serial string, size int64, change func(context.Context) error) error {
	const doing = "grow a disk of"
	ref, have, err := d.live(ctx, id, doing)
	if err != nil {
		return err
	}
	disk, err := have.disk(id, serial)
	if err != nil {
		return err
	}
	if disk.Source.Protocol != "nbd" {
		return fault.New(fault.Invalid, "Disk %s of guest %s cannot be opened anew.", serial, id)
	}
	if now, err := d.sizeOf(ctx, ref, disk.Target.Dev); err != nil || now >= size {
		return refused(id, doing, err)
	}
	power, _, err := d.power(ctx, ref)
	if err == nil && power == hypervisor.Running {
		// All that the guest has asked for is done when this returns.
		_, err = d.ask(ctx, quick, procDomainSuspend, new(encoder).dom(ref))
	}
	if err != nil {
		return refused(id, doing, err)
	}
	if err := change(ctx); err != nil {
		return fmt.Errorf("%s guest %s, which is held: %w", doing, id, err)
	}
	// From here on it goes on whatever becomes of ctx: nothing waits for anybody else.
	late, cancel := context.WithTimeout(context.WithoutCancel(ctx), reopenFor)
	defer cancel()
	node := "libvirt-" + disk.Source.Index + "-storage"
	for {
		if err = d.poke(late, ref, node); err != nil {
			break
		}
		var now int64
		if _, err = d.ask(late, slow, procBlockResize, new(encoder).dom(ref).str(disk.Target.Dev).u64(uint64(size)).u32(resizeBytes)); err == nil {
			break
		}
		if !strings.Contains(err.Error(), "NBD") { // as long as it knows the old size: "Cannot grow NBD nodes"
			break
		}
		if now, err = d.sizeOf(late, ref, disk.Target.Dev); err != nil || now >= size {
			break
		}
		select {
		case <-time.After(reopenLook):
			continue
		case <-late.Done():
			err = fault.New(fault.Unavailable, "Disk %s of guest %s is not larger yet.", serial, id)
		}
		break
	}
	if power == hypervisor.Running {
		wake, cancel := context.WithTimeout(context.WithoutCancel(ctx), reopenFor)
		defer cancel()
		if _, rerr := d.ask(wake, quick, procDomainResume, new(encoder).dom(ref)); rerr != nil && err == nil {
			err = rerr
		}
	}
	return refused(id, doing, err)
}

// poke has a guest's QEMU read a sector by itself. What comes of it, QEMU writes to its log alone.
func (d *Driver) poke(ctx context.Context, ref domainRef, node string) error {
	l, err := d.connected(ctx)
	if err != nil {
		return err
	}
	const human = 1 // VIR_DOMAIN_QEMU_MONITOR_COMMAND_HMP
	_, err = d.heard(l, l.slow, ctx, progQEMU, procMonitorCommand, new(encoder).dom(ref).str(`qemu-io `+node+` "read -q 0 512"`).u32(human))
	return err
}

// sizeOf gives the bytes that a disk of a running guest has.
func (d *Driver) sizeOf(ctx context.Context, ref domainRef, dev string) (int64, error) {
	const block = 32 // VIR_DOMAIN_STATS_BLOCK
	out, err := d.ask(ctx, slow, procGetAllDomainStats, new(encoder).u32(1).dom(ref).u32(block).u32(0))
	if err != nil {
		return 0, err
	}
	c, err := decodeCounters(out)
	if err != nil {
		return 0, err
	}
	for i := range bounded(c.n["block.count"]) {
		if p := "block." + strconv.Itoa(i) + "."; c.s[p+"name"] == dev {
			return c.n[p+"capacity"], nil
		}
	}
	return 0, fault.New(fault.Unavailable, "The size of disk %s is not known now.", dev)
}
