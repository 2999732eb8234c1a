package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"yakumo/hypervisor"
	"yakumo/model"
)

// freshDisk gets the image and makes the root disk from it.
func (a *Agent) freshDisk(ctx context.Context, row *model.HostServer) error {
	image, release, err := a.images.hold(ctx, row.Image)
	if err != nil {
		return err
	}
	defer release()
	return a.makeDisk(ctx, row, image)
}

// turnOff makes a guest be off whose disks are about to change.
func (a *Agent) turnOff(ctx context.Context, row *model.HostServer, power *hypervisor.Power) (err error) {
	switch *power {
	case hypervisor.Running:
		*power, err = a.stop(ctx, row.ID, a.cfg.Grace) // its volumes stay, and are to be whole
	case hypervisor.Paused, hypervisor.Suspended:
		*power, err = a.stop(ctx, row.ID, 0)
	}
	return err
}

// rebuild gives a guest a fresh root disk where one was asked for. Until the new count is kept the disk may be of the
// old one or of the new, each of them whole, and no guest is started; so all of it may be repeated.
func (a *Agent) rebuild(ctx context.Context, row *model.HostServer, p *progress, power *hypervisor.Power) error {
	if row.Rebuilds <= p.Rebuilds {
		return nil
	}
	image, release, err := "", func() {}, error(nil)
	if ownRoot(row) { // first, so that the guest is off for no longer than it must be
		if image, release, err = a.images.hold(ctx, row.Image); err != nil {
			return err
		}
	}
	defer release()
	if err := a.turnOff(ctx, row, power); err != nil {
		return err
	}
	if ownRoot(row) {
		if err := a.makeDisk(ctx, row, image); err != nil {
			return err
		}
	}
	// Made anew at the next start, of what is wanted now.
	for _, name := range []string{driveFile, nvramFile} {
		if err := os.Remove(filepath.Join(a.dir(row.ID), name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("file %s: %w", name, err)
		}
	}
	if p.TPM { // with the guest goes what its module holds
		began := time.Now()
		if err := a.cfg.Hypervisor.Remove(ctx, row.ID); err != nil {
			return fmt.Errorf("forget the guest of the old disk: %w", err)
		}
		a.guests.did(row.ID, hypervisor.Absent, began)
		p.TPM, *power = false, hypervisor.Absent
	}
	p.Rebuilds, p.Blob, p.Started, p.Fault = row.Rebuilds, row.Image.BlobID, false, nil
	a.log.Info("a server has a fresh disk", "server", row.ID, "generation", row.Generation, "request_id", row.RequestID)
	return a.keep(row.ID, p)
}

// rescue makes the rescue disk that is wanted, or removes one that is not any more. The guest is off meanwhile, and is
// started only once that is kept.
func (a *Agent) rescue(ctx context.Context, row *model.HostServer, p *progress, power *hypervisor.Power) error {
	want, have := row.Rescue, p.Rescue
	if want == nil && have == nil {
		return a.dropRescue(row.ID) // an agent may have died that had made it and not kept that
	}
	if want != nil && have != nil && want.Revision == have.Revision {
		return nil
	}
	if want != nil {
		image, release, err := a.images.hold(ctx, want.Image)
		if err != nil {
			return err
		}
		defer release()
		if err := a.turnOff(ctx, row, power); err != nil {
			return err
		}
		if have == nil {
			// It may be unwanted by the time that somebody looks again: kept before there is a disk, of no rescue yet.
			p.Rescue = &model.Rescue{Image: want.Image}
			if err := a.keep(row.ID, p); err != nil {
				return err
			}
		}
		if err := os.Remove(filepath.Join(a.dir(row.ID), rescueDrive)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("remove the config drive of another rescue: %w", err)
		}
		if err := a.overlay(ctx, row, rescueFile, want.Image, image, want.Image.VirtualSize); err != nil {
			return err
		}
	} else {
		if err := a.turnOff(ctx, row, power); err != nil {
			return err
		}
		if err := a.dropRescue(row.ID); err != nil {
			return err
		}
	}
	p.Rescue, p.Started, p.Fault = want, false, nil
	return a.keep(row.ID, p)
}

// dropRescue removes the disk that a guest is rescued from, and its config drive.
func (a *Agent) dropRescue(server model.ID) error {
	for _, name := range []string{rescueDrive, rescueFile} {
		if err := os.Remove(filepath.Join(a.dir(server), name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("remove the rescue disk: %w", err)
		}
	}
	return nil
}
