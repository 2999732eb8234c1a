package container

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"

	"yakumo/fault"
)

// Disks makes containers' disks: raw files with an ext4 file system. It is what an agent makes its guests' disks with.
type Disks struct{}

// Format is of the disks that Overlay makes.
func (Disks) Format() string { return "raw" }

// Overlay makes a disk at path, which must not exist, of size bytes with what the archive base holds, a tar that may be
// compressed with gzip; format must be "raw". It is no overlay but a copy: nothing of it refers to base. What base holds is never read
// by the kernel as a file system. An archive that cannot be unpacked, or that does not fit, is fault.Invalid.
func (Disks) Overlay(ctx context.Context, path, base, format string, size int64) error {
	if format != "raw" {
		return fault.New(fault.Invalid, "A container boots from an archive (tar, or tar compressed with gzip) of disk format raw, not from an image of the format %q.", format)
	}
	archive, err := os.Open(base)
	if err != nil {
		return err
	}
	defer archive.Close()
	r, err := openArchive(archive)
	if err != nil {
		return err
	}
	if err := blank(ctx, path, size); err != nil {
		return err
	}
	m, err := mountDisk(ctx, path)
	if err != nil {
		return fmt.Errorf("mount disk %s: %w", path, err)
	}
	defer m.Close()
	root, err := os.OpenRoot(fmt.Sprintf("/proc/self/fd/%d", m.Fd()))
	if err != nil {
		return fmt.Errorf("open disk %s: %w", path, err)
	}
	defer root.Close()
	if err := unpack(ctx, r, root); err != nil {
		return err
	}
	return syncDisk(root)
}

// syncDisk writes out what is in memory of a mounted disk.
func syncDisk(root *os.Root) error {
	d, err := root.Open(".")
	if err != nil {
		return err
	}
	return errors.Join(syncFS(d), d.Close())
}

// blank makes a file of size bytes with an empty file system at path, which must not exist.
func blank(ctx context.Context, path string, size int64) error {
	const least = 4 << 20
	if size < least {
		return fault.New(fault.Invalid, "A container's disk of %d bytes is too small.", size)
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if err := errors.Join(f.Truncate(size), f.Close()); err != nil {
		return err
	}
	// Nothing is kept for the superuser: that is not who fills it.
	out, err := exec.CommandContext(ctx, "mke2fs", "-q", "-F", "-t", "ext4", "-m", "0", path).CombinedOutput()
	if err != nil {
		return fmt.Errorf("make a file system in %s: %w: %s", path, err, bytes.TrimSpace(out))
	}
	return nil
}

// Flatten is refused: no image is made of a container's disk.
func (Disks) Flatten(context.Context, string, string) error {
	return fault.New(fault.NotImplemented, "No image can be made of a container.")
}

// Blank makes a disk at path, which must not exist, of size bytes with an empty file system.
func (Disks) Blank(ctx context.Context, path string, size int64) error { return blank(ctx, path, size) }

// Empty is refused: a container has no disk without a file system.
func (Disks) Empty(context.Context, string, string, int64) error {
	return fault.New(fault.NotImplemented, "A host of containers has no empty disks.")
}

// Rebase does nothing: a container's disk has no base.
func (Disks) Rebase(context.Context, string, string, string) error { return nil }

// Resize makes a disk that nobody uses size bytes long, and its file system with it.
func (Disks) Resize(ctx context.Context, path, _ string, size int64) error {
	if err := os.Truncate(path, size); err != nil {
		return err
	}
	for _, argv := range [][]string{{"e2fsck", "-f", "-p", path}, {"resize2fs", path}} {
		out, err := exec.CommandContext(ctx, argv[0], argv[1:]...).CombinedOutput()
		var exit *exec.ExitError
		if errors.As(err, &exit) && argv[0] == "e2fsck" && exit.ExitCode() == 1 { // mended (e2fsck(8))
			continue
		}
		if err != nil {
			return fmt.Errorf("grow disk %s: %w: %s", path, err, bytes.TrimSpace(out))
		}
	}
	return nil
}

// Size gives the size of a disk in bytes.
func (Disks) Size(_ context.Context, path, _ string) (int64, error) {
	st, err := os.Stat(path)
	if err != nil {
		return 0, err
	}
	return st.Size(), nil
}

// stopAtEnd is a reader whose end comes with ctx.
type stopAtEnd struct {
	ctx context.Context
	r   io.Reader
}

func (s stopAtEnd) Read(p []byte) (int, error) {
	if err := s.ctx.Err(); err != nil {
		return 0, err
	}
	return s.r.Read(p)
}
