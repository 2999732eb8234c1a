package agent

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
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

// Format implements DiskMaker.
func (QemuImg) Format() string { return "qcow2" }

// Overlay implements DiskMaker.
func (q QemuImg) Overlay(ctx context.Context, path, base, format string, size int64) error {
	// The base's format is told, never probed: a raw image may hold what looks like a qcow2 header.
	if err := q.run(ctx, "create", "-q", "-f", "qcow2", "-F", format, "-b", base, path, strconv.FormatInt(size, 10)); err != nil {
		return fmt.Errorf("make disk %s: %w", path, err)
	}
	return nil
}

// Flatten implements DiskMaker.
func (q QemuImg) Flatten(ctx context.Context, path, from string) error {
	if err := q.run(ctx, "convert", "-q", "-f", "qcow2", "-O", "qcow2", from, path); err != nil {
		return fmt.Errorf("copy disk %s: %w", from, err)
	}
	return nil
}

// Unpack makes a raw file at path of what the qcow2 from holds.
func (q QemuImg) Unpack(ctx context.Context, path, from string) error {
	if err := q.run(ctx, "convert", "-q", "-f", "qcow2", "-O", "raw", from, path); err != nil {
		return fmt.Errorf("copy disk %s: %w", from, err)
	}
	return nil
}

func (q QemuImg) run(ctx context.Context, args ...string) error {
	name := q.Path
	if name == "" {
		name = "qemu-img"
	}
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, bytes.TrimSpace(out))
	}
	return nil
}

// Blank implements DiskMaker: mke2fs(8) makes the file system.
func (q QemuImg) Blank(ctx context.Context, path string, size int64) error {
	if err := sparse(path, size); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "mke2fs", "-q", "-F", "-t", "ext4", "-L", ephemeralLabel, path)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("make a file system in %s: %w: %s", path, err, bytes.TrimSpace(out))
	}
	return nil
}

// ephemeralLabel is what Nova calls the file system of a server's first ephemeral disk.
const ephemeralLabel = "ephemeral0"

// sparse makes a file of size bytes that are zero.
func sparse(path string, size int64) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(f.Truncate(size), f.Close())
}

// Empty implements DiskMaker.
func (q QemuImg) Empty(ctx context.Context, path, format string, size int64) error {
	if err := q.run(ctx, "create", "-q", "-f", format, path, strconv.FormatInt(size, 10)); err != nil {
		return fmt.Errorf("make disk %s: %w", path, err)
	}
	return nil
}

// Rebase implements DiskMaker.
func (q QemuImg) Rebase(ctx context.Context, path, base, format string) error {
	if err := q.run(ctx, "rebase", "-q", "-u", "-f", "qcow2", "-F", format, "-b", base, path); err != nil {
		return fmt.Errorf("put disk %s on another base: %w", path, err)
	}
	return nil
}

// Resize implements DiskMaker.
func (q QemuImg) Resize(ctx context.Context, path, format string, size int64) error {
	if err := q.run(ctx, "resize", "-q", "-f", format, path, strconv.FormatInt(size, 10)); err != nil {
		return fmt.Errorf("grow disk %s: %w", path, err)
	}
	return nil
}

// Size implements DiskMaker. It reads the file itself: qemu-img would ask for a lock that a running guest holds.
func (QemuImg) Size(_ context.Context, path, format string) (int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	if format == "raw" {
		info, err := f.Stat()
		if err != nil {
			return 0, err
		}
		return info.Size(), nil
	}
	// docs/interop/qcow2.txt of QEMU: magic in bytes 0 to 3, the size of the disk in bytes 24 to 31.
	var head [32]byte
	if _, err := io.ReadFull(f, head[:]); err != nil || string(head[:4]) != "QFI\xfb" || format != "qcow2" {
		return 0, errors.Join(fmt.Errorf("%s is no image of the format %q", path, format), err)
	}
	return int64(binary.BigEndian.Uint64(head[24:])), nil
}

// Files in a guest's folder.
const (
	driveFile     = "config.iso"
	rescueDrive   = "rescue.iso" // the config drive of a rescued guest
	consoleFile   = "console.log"
	rescueFile    = "rescue.qcow2"
	ephemeralFile = "ephemeral.raw"
	swapFile      = "swap.raw"
	nvramFile     = "nvram.fd" // what a UEFI firmware keeps for the guest; its driver makes it
)

// diskFile is the file in a guest's folder that is its root disk.
func (a *Agent) diskFile() string { return "disk." + a.cfg.Disks.Format() }

// makeDisk makes a guest's disk from its image, in the place of one that there may be. It may be repeated until its
// success is kept; never afterwards, as the disk holds the guest's data then.
func (a *Agent) makeDisk(ctx context.Context, row *model.HostServer, image string) error {
	size := int64(row.DiskGiB) << 30
	if size == 0 {
		size = row.Image.VirtualSize
	}
	if size < row.Image.VirtualSize {
		return fault.New(fault.Invalid, "The flavor's disk of %d GiB is too small for the image.", row.DiskGiB)
	}
	return a.overlay(ctx, row, a.diskFile(), row.Image, image, size)
}

// overlay makes the file name in a guest's folder a disk of size bytes over an image, which is in the cache at path.
func (a *Agent) overlay(ctx context.Context, row *model.HostServer, name string, img model.ImageCopy, path string, size int64) error {
	if img.Format != "raw" && img.Format != "qcow2" {
		return fault.New(fault.Invalid, "An image of the format %q cannot be booted.", img.Format)
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
	err = replace(filepath.Join(dir, name), func(tmp string) error {
		return a.cfg.Disks.Overlay(ctx, tmp, path, img.Format, size)
	})
	if err != nil {
		return err
	}
	return syncDir(dir)
}

// makeExtras makes the ephemeral disk and the swap disk of a guest's flavor, where they are missing or of another size.
// An ephemeral disk that was there and is not is an error: it held data.
func (a *Agent) makeExtras(ctx context.Context, row *model.HostServer, p *progress) error {
	if row.EphemeralGiB == 0 && row.SwapMiB == 0 {
		return nil
	}
	if err := os.MkdirAll(a.dir(row.ID), 0o711); err != nil { // its root disk may be a volume
		return fmt.Errorf("make the guest's folder: %w", err)
	}
	if row.EphemeralGiB > 0 {
		path, size := filepath.Join(a.dir(row.ID), ephemeralFile), int64(row.EphemeralGiB)<<30
		st, err := os.Stat(path)
		switch {
		case errors.Is(err, os.ErrNotExist) && p.Ephemeral > 0:
			return fault.Wrap(fault.Invalid, err, "The server's ephemeral disk is lost.")
		case errors.Is(err, os.ErrNotExist):
			err = replace(path, func(tmp string) error { return a.cfg.Disks.Blank(ctx, tmp, size) })
		case err == nil && st.Size() < size:
			err = os.Truncate(path, size)
		}
		if err != nil {
			return fmt.Errorf("ephemeral disk: %w", err)
		}
		if p.Ephemeral != row.EphemeralGiB {
			p.Ephemeral = row.EphemeralGiB
			if err := a.keep(row.ID, p); err != nil {
				return err
			}
		}
	}
	if row.SwapMiB > 0 {
		path, size := filepath.Join(a.dir(row.ID), swapFile), int64(row.SwapMiB)<<20
		if st, err := os.Stat(path); err != nil || st.Size() != size { // it holds nothing across starts
			if err := replace(path, func(tmp string) error { return swapDisk(tmp, size) }); err != nil {
				return fmt.Errorf("swap disk: %w", err)
			}
		}
	}
	return nil
}

// swapDisk makes a file of size bytes that Linux swaps to as it is: the header of version 1 (include/linux/swap.h of
// the kernel) in the first page of 4096 bytes.
func swapDisk(path string, size int64) error {
	const page = 4096
	if err := sparse(path, size); err != nil {
		return err
	}
	header := make([]byte, page)
	binary.LittleEndian.PutUint32(header[1024:], 1)
	binary.LittleEndian.PutUint32(header[1028:], uint32(size/page-1)) // its last page
	rand.Read(header[1036:1052])                                      // its UUID
	copy(header[1052:1068], "swap1")                                  // its label
	copy(header[page-10:], "SWAPSPACE2")
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(header, 0)
	return errors.Join(err, f.Close())
}

// driveOf gives the file that is a guest's config drive: a rescued guest has another, which may tell it another password.
func driveOf(p *progress) string {
	if p.Rescue != nil {
		return rescueDrive
	}
	return driveFile
}

// makeDrive makes a guest's config drive, where it wants one and has none.
func (a *Agent) makeDrive(ctx context.Context, row *model.HostServer, name string) error {
	path := filepath.Join(a.dir(row.ID), name)
	if _, err := os.Stat(path); !row.ConfigDrive || err == nil {
		return nil
	}
	files, err := a.instanceOf(ctx, row).drive()
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
