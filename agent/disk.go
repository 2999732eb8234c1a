package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"

	"yakumo/fault"
	"yakumo/model"
)

// QemuImg makes disks with qemu-img(1).
type QemuImg struct {
	Path string // of the program; default: found by name
}

// Overlay implements DiskMaker.
func (q QemuImg) Overlay(ctx context.Context, path, base, format string, size int64) error {
	name := q.Path
	if name == "" {
		name = "qemu-img"
	}
	// The base's format is told, never probed: a raw image may hold what looks like a qcow2 header.
	cmd := exec.CommandContext(ctx, name, "create", "-q", "-f", "qcow2", "-F", format, "-b", base, path, strconv.FormatInt(size, 10))
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("make disk %s: %w: %s", path, err, bytes.TrimSpace(out))
	}
	return nil
}

// Files in a guest's folder.
const (
	diskFile    = "disk.qcow2"
	driveFile   = "config.iso"
	consoleFile = "console.log"
)

// makeDisk makes a guest's disk from its image. It may be repeated until it has succeeded;
// never afterwards, as the disk holds the guest's data then.
func (a *Agent) makeDisk(ctx context.Context, row *model.HostServer, image string) error {
	size := int64(row.DiskGiB) << 30
	if size == 0 {
		size = row.Image.VirtualSize
	}
	if size < row.Image.VirtualSize {
		return fault.New(fault.Invalid, "The flavor's disk of %d GiB is too small for the image.", row.DiskGiB)
	}
	if row.Image.Format != "raw" && row.Image.Format != "qcow2" {
		return fault.New(fault.Invalid, "An image of the format %q cannot be booted.", row.Image.Format)
	}
	dir := a.dir(row.ID)
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return fmt.Errorf("make the guest's folder: %w", err)
	}
	leave, err := a.enter(ctx)
	if err != nil {
		return err
	}
	defer leave()
	err = replace(filepath.Join(dir, diskFile), func(tmp string) error {
		return a.cfg.Disks.Overlay(ctx, tmp, image, row.Image.Format, size)
	})
	if err != nil {
		return err
	}
	return syncDir(dir)
}

// makeDrive makes a guest's config drive, where it wants one and has none.
func (a *Agent) makeDrive(row *model.HostServer) error {
	path := filepath.Join(a.dir(row.ID), driveFile)
	if _, err := os.Stat(path); !row.ConfigDrive || err == nil {
		return nil
	}
	files, err := a.instanceOf(row).drive()
	if err != nil {
		return fmt.Errorf("config drive: %w", err)
	}
	err = replace(path, func(tmp string) error {
		return os.WriteFile(tmp, isoImage("config-2", row.CreatedAt, files), 0o600)
	})
	if err != nil {
		return fmt.Errorf("config drive: %w", err)
	}
	return nil
}

// replace lets fill write a new file and puts it, durable, in the place of path.
func replace(path string, fill func(tmp string) error) error {
	tmp := path + ".tmp"
	if err := os.Remove(tmp); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := fill(tmp); err != nil {
		return err
	}
	f, err := os.Open(tmp)
	if err != nil {
		return err
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}
