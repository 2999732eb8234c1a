package libvirt

import (
	"context"
	"encoding/xml"
	"time"

	"yakumo/fault"
	"yakumo/hypervisor"
)

var _ hypervisor.Mirrorer = (*Driver)(nil)

const (
	// mirrorNear is how many bytes may be left of a copy for a guest to be held for them.
	mirrorNear = 16 << 20
	// turnFor bounds for how long it is held.
	turnFor = 20 * time.Second
)

// at tells whether a running guest's disk is d.
func (x liveDisk) at(d hypervisor.Disk) bool {
	have := hypervisor.Disk{Path: x.Source.File}
	if x.Source.Protocol != "" {
		n := &hypervisor.NetworkDisk{Protocol: x.Source.Protocol, Name: x.Source.Name}
		if n.Protocol == "nbd" && len(x.Source.Hosts) > 0 {
			n.Socket = x.Source.Hosts[0].Socket
		}
		have.Network = n
	}
	return have.Same(d)
}

// Mirror implements hypervisor.Mirrorer. What the guest writes is copied after it, so that it never waits for where the copy goes.
func (d *Driver) Mirror(ctx context.Context, id, serial string, to hypervisor.Disk) error {
	const doing = "mirror a disk of"
	ref, have, err := d.live(ctx, id, doing)
	if err != nil {
		return err
	}
	disk, err := have.disk(id, serial)
	if err != nil {
		return err
	}
	if disk.at(to) {
		return fault.New(fault.Conflict, "Cannot %s guest %s: disk %s is there already.", doing, id, serial)
	}
	if err = d.endCopy(ctx, ref, disk.Target.Dev); err == nil {
		err = d.secrets(ctx, hypervisor.Guest{Disks: []hypervisor.Disk{to}})
	}
	if err != nil {
		return refused(id, doing, err)
	}
	want := disk2xml(to)
	dest, err := xml.Marshal(copyXML{Type: want.Type, Source: want.Source, Driver: driverXML{Type: to.Format}})
	if err != nil {
		return err
	}
	const flags = 2 | 4 // VIR_DOMAIN_BLOCK_COPY_REUSE_EXT, _TRANSIENT_JOB
	_, err = d.ask(ctx, slow, procBlockCopy, new(encoder).dom(ref).str(disk.Target.Dev).str(string(dest)).u32(0).u32(flags))
	return refused(id, doing, err)
}

// Mirrored implements hypervisor.Mirrorer.
func (d *Driver) Mirrored(ctx context.Context, id, serial string, to hypervisor.Disk) (hypervisor.MirrorProgress, error) {
	const doing = "look at a disk of"
	var out hypervisor.MirrorProgress
	ref, have, err := d.live(ctx, id, doing)
	if err != nil {
		return out, err
	}
	disk, err := have.disk(id, serial)
	if err != nil {
		return out, err
	}
	if disk.at(to) {
		out.Turned = true
		return out, nil
	}
	j, err := d.blockJob(ctx, ref, disk.Target.Dev)
	if err != nil {
		return out, refused(id, doing, err)
	}
	// libvirt lets the two numbers be equal only once all was equal at one moment.
	out.Going, out.Done, out.Total = j.found, int64(j.cur), int64(j.end)
	out.Near = j.found && j.end > 0 && j.end-j.cur <= mirrorNear
	return out, nil
}

// Turn implements hypervisor.Mirrorer.
func (d *Driver) Turn(ctx context.Context, id, serial string, to hypervisor.Disk) error {
	const doing = "exchange a disk of"
	ref, have, err := d.live(ctx, id, doing)
	if err != nil {
		return err
	}
	disk, err := have.disk(id, serial)
	if err != nil || disk.at(to) {
		return err
	}
	power, _, err := d.power(ctx, ref)
	if err == nil && power == hypervisor.Running {
		// All that the guest has asked for is done when this returns.
		_, err = d.ask(ctx, quick, procDomainSuspend, new(encoder).dom(ref))
	}
	if err != nil {
		return refused(id, doing, err)
	}
	wait, cancel := context.WithTimeout(ctx, turnFor)
	defer cancel()
	for {
		j, err := d.blockJob(ctx, ref, disk.Target.Dev)
		switch {
		case err != nil:
			return refused(id, doing, err)
		case !j.found:
			return fault.New(fault.Conflict, "Cannot %s guest %s: disk %s is not being copied.", doing, id, serial)
		case j.end > 0 && j.cur == j.end:
			const pivot = 2 // VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT
			if _, err = d.ask(ctx, slow, procBlockJobAbort, new(encoder).dom(ref).str(disk.Target.Dev).u32(pivot)); err != nil {
				return refused(id, doing, err)
			}
			if _, have, err = d.live(ctx, id, doing); err != nil {
				return err
			}
			if disk, err = have.disk(id, serial); err == nil && !disk.at(to) {
				err = fault.New(fault.Conflict, "Cannot %s guest %s: disk %s is what it was.", doing, id, serial)
			}
			return err
		}
		select {
		case <-time.After(copyLook):
		case <-wait.Done():
			return fault.Wrap(fault.Conflict, wait.Err(), "Cannot %s guest %s: the copy of disk %s is not equal to it soon enough.", doing, id, serial)
		}
	}
}

// EndMirror implements hypervisor.Mirrorer.
func (d *Driver) EndMirror(ctx context.Context, id, serial string) error {
	const doing = "end the copy of a disk of"
	ref, have, err := d.live(ctx, id, doing)
	if fault.Is(err, fault.Conflict) {
		return nil // its run has ended, and the copy with it
	}
	if err != nil {
		return err
	}
	disk, err := have.disk(id, serial)
	if err != nil {
		return err
	}
	return refused(id, doing, d.endCopy(ctx, ref, disk.Target.Dev))
}
