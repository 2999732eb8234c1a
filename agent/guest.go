package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"yakumo/fault"
	"yakumo/hypervisor"
	"yakumo/model"
)

// guest gives the definition of a server. Its disks are the root disk, those of its flavor, volumes in their order, and
// the config drive last, as a guest numbers what it finds; while it is rescued, the rescue disk comes before all. errWaiting while a volume is not there yet.
func (a *Agent) guest(ctx context.Context, row *model.HostServer) (hypervisor.Guest, error) {
	dir := a.dir(row.ID)
	if ask := model.Unoffered(row.ExtraSpecs, row.Image.Hardware); ask != "" { // placement knows, but not of an image that it was rebuilt from
		return hypervisor.Guest{}, fault.New(fault.Invalid, "The server cannot run as its flavor or image asks: %s.", ask)
	}
	g := hypervisor.Guest{
		ID: row.ID, Name: "yk-" + row.ID, Title: printable(row.Name), Project: row.ProjectID, User: row.UserID,
		VCPUs: row.VCPUs, MemoryMiB: row.MemoryMiB, ConsoleLog: filepath.Join(dir, consoleFile), Display: !a.cfg.NoDisplay, Emulator: a.cfg.Emulator,
	}
	p, _ := a.ledger.progressOf(row.ID)
	g.Specs = rescuedWith(specsOf(row), p.Rescue)
	if model.FirmwareOf(row.ExtraSpecs, g.Specs).UEFI {
		g.NVRAM = filepath.Join(dir, nvramFile)
	}
	var err error
	if g.CPUs, err = a.cpus.of(ctx, row, &p); err != nil {
		return g, err
	}
	if ownRoot(row) {
		g.Disks = append(g.Disks, hypervisor.Disk{Path: filepath.Join(dir, a.diskFile()), Format: a.cfg.Disks.Format(), Serial: row.ID})
	}
	if row.EphemeralGiB > 0 {
		g.Disks = append(g.Disks, hypervisor.Disk{Path: filepath.Join(dir, ephemeralFile), Format: "raw", Serial: "ephemeral0"})
	}
	if row.SwapMiB > 0 {
		g.Disks = append(g.Disks, hypervisor.Disk{Path: filepath.Join(dir, swapFile), Format: "raw", Serial: "swap"})
	}
	for _, v := range row.Volumes {
		d, err := a.volumes.disk(ctx, row.ID, v)
		if err != nil {
			return g, err
		}
		if v.Boot {
			g.Disks = append([]hypervisor.Disk{d}, g.Disks...)
		} else {
			g.Disks = append(g.Disks, d)
		}
	}
	if p.Rescue != nil {
		g.Disks = append([]hypervisor.Disk{{Path: filepath.Join(dir, rescueFile), Format: "qcow2", Serial: "rescue"}}, g.Disks...)
	}
	if len(g.Disks) > 0 {
		g.Disks[0].BootOrder = 1
	}
	if row.ConfigDrive {
		// As a disk: small guests have no driver for a SATA CD-ROM.
		g.Disks = append(g.Disks, hypervisor.Disk{Path: filepath.Join(dir, driveOf(&p)), Format: "raw", ReadOnly: true, Serial: "config-2"})
	}
	for _, n := range row.NICs {
		g.NICs = append(g.NICs, hypervisor.NIC{ID: n.PortID, MAC: n.MAC, Tap: tapName(n.PortID), MTU: n.MTU, Tag: n.Tag})
	}
	return g, nil
}

// rescuedWith gives the specs of a guest that is rescued, where it is: the rescue image says what firmware starts it.
func rescuedWith(specs map[string]string, r *model.Rescue) map[string]string {
	if r == nil || r.Image.ImageID == "" {
		return specs
	}
	out := maps.Clone(specs)
	if out == nil {
		out = map[string]string{}
	}
	for _, name := range []string{"hw_firmware_type", "os_secure_boot"} {
		delete(out, name)
		if v, ok := r.Image.Hardware[name]; ok {
			out[name] = v
		}
	}
	return out
}

// specsOf gives what the flavor and the image ask of the machine, by names that are different.
func specsOf(row *model.HostServer) map[string]string {
	if len(row.Image.Hardware)+len(row.ExtraSpecs) == 0 {
		return nil
	}
	specs := maps.Clone(row.Image.Hardware)
	if specs == nil {
		specs = map[string]string{}
	}
	maps.Copy(specs, row.ExtraSpecs)
	return specs
}

// ownRoot tells whether the guest boots from a disk of its own, and not from a volume.
func ownRoot(row *model.HostServer) bool {
	return !slices.ContainsFunc(row.Volumes, func(v model.HostDisk) bool { return v.Boot })
}

// printable keeps what a title may hold.
func printable(s string) string {
	out := []rune(s)
	for i, r := range out {
		if r < ' ' || r >= 0x7f && r < 0xa0 || r == 0xfffd || r == 0xfffe || r == 0xffff {
			out[i] = ' '
		}
	}
	return string(out)
}

// start makes a guest run once its ports carry traffic: from its disk, or on from where it was held.
func (a *Agent) start(ctx context.Context, row *model.HostServer, p *progress) (hypervisor.Power, error) {
	if !a.ledger.toldSince(a.cfg.BootID) {
		// Who knew that the host was off may have had it started elsewhere.
		return 0, fmt.Errorf("the host was started anew, and no server has said since what it is to run: %w", errWaiting)
	}
	if !a.leases.may(row) {
		return 0, fmt.Errorf("it is leased, and no server was heard lately: %w", errWaiting)
	}
	power, _ := a.guests.state(row.ID)
	fresh := power != hypervisor.Running && power != hypervisor.Paused && power != hypervisor.Suspended
	for _, n := range row.NICs {
		if !a.ports.wired(n.PortID) {
			return 0, fmt.Errorf("port %s is not wired yet: %w", n.PortID, errWaiting)
		}
	}
	disk := filepath.Join(a.dir(row.ID), a.diskFile())
	if _, err := os.Stat(disk); ownRoot(row) && errors.Is(err, os.ErrNotExist) {
		// It holds what the guest has written; a fresh one would hide the loss.
		return 0, fault.Wrap(fault.Invalid, err, "The server's disk is lost.")
	}
	if err := os.MkdirAll(a.dir(row.ID), 0o711); err != nil { // its console's file is there, also where its root disk is a volume
		return 0, fmt.Errorf("make the guest's folder: %w", err)
	}
	if err := a.makeExtras(ctx, row, p); err != nil {
		return 0, err
	}
	if fresh { // what is held goes on where it was
		if err := a.cpus.assign(ctx, row, p); err != nil {
			return 0, err
		}
	}
	g, err := a.guest(ctx, row)
	if err != nil {
		return 0, err
	}
	if fresh && !p.TPM && model.TPMOf(row.ExtraSpecs, row.Image.Hardware) != (model.TPM{}) { // kept before there is one
		p.TPM = true
		if err := a.keep(row.ID, p); err != nil {
			return 0, err
		}
	}
	leave, err := a.enter(ctx)
	if err != nil {
		return 0, err
	}
	defer leave()
	began := time.Now()
	if err := a.cfg.Hypervisor.Ensure(ctx, g); err != nil {
		return 0, fmt.Errorf("define guest: %w", err)
	}
	// Now that its ports and the places of its devices are known: they go on it.
	if err := a.makeDrive(ctx, row, driveOf(p)); err != nil {
		return 0, err
	}
	if !a.leases.may(row) { // all of this took its time
		return 0, fmt.Errorf("its lease has ended as it was to be started: %w", errWaiting)
	}
	// Kept before it has them: who comes after an agent that died here knows what to take out again.
	if nics, disks := nicIDs(row), volumeIDs(row); fresh && (!sameSet(p.NICs, nics) || !sameSet(p.Disks, disks) || len(p.Plugging) > 0) {
		p.NICs, p.Disks, p.Plugging = nics, disks, nil
		if err := a.keep(row.ID, p); err != nil {
			return 0, err
		}
	}
	if err := a.cfg.Hypervisor.Start(ctx, row.ID); err != nil {
		return 0, fmt.Errorf("start guest: %w", err)
	}
	a.guests.did(row.ID, hypervisor.Running, began)
	p.Started, p.BootID = true, a.cfg.BootID
	a.log.Info("a guest runs", "server", row.ID, "generation", row.Generation, "request_id", row.RequestID, "took", time.Since(began))
	return hypervisor.Running, nil
}

// enter waits for leave to do something heavy; few may at once.
func (a *Agent) enter(ctx context.Context) (leave func(), err error) {
	select {
	case a.boots <- struct{}{}:
		return func() { <-a.boots }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// stop makes a guest be off.
func (a *Agent) stop(ctx context.Context, id model.ID, grace time.Duration) (hypervisor.Power, error) {
	began := time.Now()
	err := a.cfg.Hypervisor.Stop(ctx, id, grace)
	if fault.Is(err, fault.NotFound) {
		return hypervisor.Off, nil
	}
	if err != nil {
		return 0, fmt.Errorf("stop guest: %w", err)
	}
	a.guests.did(id, hypervisor.Off, began)
	a.log.Info("a guest is off", "server", id, "took", time.Since(began))
	return hypervisor.Off, nil
}
