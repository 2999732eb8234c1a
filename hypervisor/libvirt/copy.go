package libvirt

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"os"
	"time"

	"yakumo/fault"
	"yakumo/hypervisor"
)

// copyLook is how often a copy under way is looked at.
const copyLook = 100 * time.Millisecond

// CopyDisk implements hypervisor.Copier: the disk is mirrored into the file until both are equal, and then the mirror is
// broken: the file keeps the moment of that.
func (d *Driver) CopyDisk(ctx context.Context, id, serial, path string, quiesce hypervisor.Quiesce) error {
	const doing = "copy a disk of"
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		return fault.New(fault.Conflict, "Cannot copy a disk of guest %s to %s as that is there already.", id, path)
	}
	ref, have, err := d.live(ctx, id, doing)
	if err != nil {
		return err
	}
	disk, err := have.disk(id, serial)
	if err != nil {
		return err
	}
	dev := disk.Target.Dev
	// One that was left by a driver that died goes first.
	if err := d.endCopy(ctx, ref, dev); err != nil {
		return refused(id, doing, err)
	}
	dest, err := xml.Marshal(copyXML{Type: "file", Source: sourceXML{File: path}, Driver: driverXML{Type: "qcow2"}})
	if err != nil {
		return err
	}
	// What the guest writes meanwhile goes to both at once, so that a busy guest cannot outrun the copy:
	// VIR_DOMAIN_BLOCK_COPY_TRANSIENT_JOB, _SYNCHRONOUS_WRITES.
	const flags = 4 | 8
	_, err = d.ask(ctx, slow, procBlockCopy, new(encoder).dom(ref).str(dev).str(string(dest)).u32(0).u32(flags))
	if err == nil {
		err = d.awaitCopy(ctx, id, ref, dev)
	}
	if err == nil {
		if err = d.quiesced(ctx, id, ref, quiesce, func() error { return refused(id, doing, d.endCopy(ctx, ref, dev)) }); err == nil {
			return nil
		}
	}
	late, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
	defer cancel()
	if endErr := d.endCopy(late, ref, dev); endErr != nil && !hasCode(endErr, codeNoDomain) {
		d.log.Warn("cannot end the copy of a disk", "server", id, "error", endErr)
	}
	if rmErr := os.Remove(path); rmErr != nil && !errors.Is(rmErr, os.ErrNotExist) {
		d.log.Warn("cannot remove half a copy of a disk", "server", id, "error", rmErr)
	}
	return refused(id, doing, err)
}

// copyXML is where a disk is copied to.
type copyXML struct {
	XMLName xml.Name  `xml:"disk"`
	Type    string    `xml:"type,attr"`
	Source  sourceXML `xml:"source"`
	Driver  driverXML `xml:"driver"`
}

// job is remote_domain_get_block_job_info_ret.
type job struct {
	found    bool
	cur, end uint64
}

func decodeJob(d *decoder) (job, error) {
	j := job{found: d.i32() == 1}
	d.i32() // its type; the driver begins one only
	d.u64() // its bandwidth
	j.cur, j.end = d.u64(), d.u64()
	return j, d.err
}

func (d *Driver) blockJob(ctx context.Context, ref domainRef, dev string) (job, error) {
	out, err := d.ask(ctx, quick, procBlockJobInfo, new(encoder).dom(ref).str(dev).u32(0))
	if err != nil {
		return job{}, err
	}
	return decodeJob(out)
}

// awaitCopy returns once the mirror is equal to the disk. libvirt lets the two numbers be equal only then.
func (d *Driver) awaitCopy(ctx context.Context, id string, ref domainRef, dev string) error {
	for {
		j, err := d.blockJob(ctx, ref, dev)
		switch {
		case err != nil:
			return err
		case !j.found:
			return fmt.Errorf("the copy of disk %s of guest %s broke off", dev, id)
		case j.end > 0 && j.cur == j.end:
			return nil
		}
		select {
		case <-time.After(copyLook):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// endCopy ends the mirror of a disk where there is one.
func (d *Driver) endCopy(ctx context.Context, ref domainRef, dev string) error {
	j, err := d.blockJob(ctx, ref, dev)
	if err != nil || !j.found {
		return err
	}
	_, err = d.ask(ctx, slow, procBlockJobAbort, new(encoder).dom(ref).str(dev).u32(0))
	return err
}
