package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"yakumo/block"
	"yakumo/block/chunk"
	"yakumo/fault"
	"yakumo/link"
	"yakumo/model"
)

// sendBackup sends a backup of a volume, or of a snapshot of it, in the form of package chunk, and gives its length: what differs from the backup that it builds on, where it builds on one.
func (v *volumeKeeper) sendBackup(ctx context.Context, e block.Engine, volume model.ID, b model.HostBlob) (int64, error) {
	var under *chunk.Head
	if n := len(b.Below); n > 0 {
		err := v.openBackup(ctx, b.Below[n-1], func(r io.Reader) (err error) {
			under, err = chunk.Read(r)
			return err
		})
		if err != nil {
			return 0, err
		}
	}
	path := v.scratch(b.ID)
	if err := forget(path); err != nil {
		return 0, err
	}
	defer forget(path)
	err := e.Export(ctx, volume, b.SnapshotID, "raw", path)
	if fault.Is(err, fault.Conflict) && b.SnapshotID == "" {
		packed := v.scratch(b.ID + "-packed")
		defer forget(packed)
		if copied, cerr := v.copyOut(ctx, volume, packed); cerr != nil {
			err = cerr
		} else if copied {
			err = QemuImg{}.Unpack(ctx, path, packed)
		}
	}
	if err != nil {
		return 0, err
	}
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	h, err := chunk.New(ctx, f, under)
	if err != nil {
		return 0, err
	}
	return h.Bytes(), v.a.link.Upload(ctx, link.UploadBackup, b.ID, h.Bytes(), h.Reader(f))
}

// assemble puts what a backup holds together in a raw file, from the oldest that it builds on to itself.
func (v *volumeKeeper) assemble(ctx context.Context, b model.HostBlob) (path string, err error) {
	if !isFileName(b.ID) {
		return "", fault.New(fault.Invalid, "Backup %s could not be found.", b.ID)
	}
	path = v.scratch(b.ID)
	f, err := os.Create(path)
	if err != nil {
		return "", err
	}
	var h *chunk.Head
	for _, part := range append(slices.Clone(b.Below), b) {
		if err = v.openBackup(ctx, part, func(r io.Reader) (err error) {
			h, err = chunk.Apply(ctx, r, f, h)
			return err
		}); err != nil {
			break
		}
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return "", errors.Join(err, forget(path))
	}
	return path, nil
}

// openBackup has a backup's bytes read; errors name it.
func (v *volumeKeeper) openBackup(ctx context.Context, b model.HostBlob, read func(io.Reader) error) error {
	if !isFileName(b.BlobID) {
		return fault.New(fault.Invalid, "Backup %s could not be found.", b.ID)
	}
	body, err := v.a.link.Blob(ctx, b.BlobID, 0)
	if fault.Is(err, fault.NotFound) {
		return fault.Wrap(fault.Invalid, err, "The bytes of backup %s are gone.", b.ID)
	}
	if err != nil {
		return fmt.Errorf("fetch backup %s: %w", b.ID, err)
	}
	defer body.Close()
	if err = read(body); err == nil {
		return nil
	}
	if text, ok := fault.Text(err); ok {
		return fault.Wrap(fault.KindOf(err), err, "Backup %s cannot be used: %s", b.ID, text)
	}
	return fmt.Errorf("backup %s: %w", b.ID, err)
}
