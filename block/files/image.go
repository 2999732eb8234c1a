package files

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"yakumo/block"
	"yakumo/fault"
)

// info is what qemu-img says of a file.
type info struct {
	Size      int64 `json:"virtual-size"`
	Snapshots []struct {
		Name string `json:"name"`
	} `json:"snapshots"`
}

func (i info) has(snapshot string) bool {
	for _, s := range i.Snapshots {
		if s.Name == snapshot {
			return true
		}
	}
	return false
}

// look reads a qcow2 file's header, whoever has it open.
func look(ctx context.Context, path string) (info, error) { return lookAs(ctx, path, "qcow2") }

func lookAs(ctx context.Context, path, format string) (info, error) {
	var i info
	out, err := run(ctx, "qemu-img", "info", "-U", "-f", format, "--output=json", path)
	if err != nil {
		return i, fmt.Errorf("look at %s: %w", path, err)
	}
	if err := json.Unmarshal(out, &i); err != nil {
		return i, fmt.Errorf("look at %s: %w", path, err)
	}
	return i, nil
}

// stretch makes a file that nobody has open size bytes large.
func stretch(ctx context.Context, id, path string, size int64) error {
	i, err := look(ctx, path)
	if err != nil {
		return err
	}
	if i.Size > size {
		return fault.New(fault.Invalid, "A volume of %d bytes is too small for %d bytes.", size, i.Size)
	}
	return qemuImg(ctx, id, "resize", "-q", "-f", "qcow2", path, fmt.Sprint(size))
}

// convert writes what a file, or a snapshot inside it, holds to a new file.
func convert(ctx context.Context, from, format, snapshot, to, as string) error {
	args := []string{"convert", "-q", "-U", "-f", format, "-O", as}
	if snapshot != "" {
		args = append(args, "-l", "snapshot.name="+snapshot)
	}
	if _, err := run(ctx, "qemu-img", append(args, from, to)...); err != nil {
		return fmt.Errorf("copy %s: %w", from, err)
	}
	return nil
}

// over writes a file's content over the beginning of a volume's file.
func over(ctx context.Context, id, file, format, disk string) error {
	from, err := lookAs(ctx, file, format)
	if err != nil {
		return err
	}
	to, err := look(ctx, disk)
	if err != nil {
		return err
	}
	if from.Size > to.Size {
		return fault.New(fault.Invalid, "Volume %s of %d bytes is too small for %d bytes.", id, to.Size, from.Size)
	}
	return qemuImg(ctx, id, "convert", "-q", "-n", "-f", format, "-O", "qcow2", file, disk)
}

// resizeTo gives a file the size, also a smaller one.
func resizeTo(ctx context.Context, id, disk string, size int64) error {
	return qemuImg(ctx, id, "resize", "-q", "--shrink", "-f", "qcow2", disk, fmt.Sprint(size))
}

// qemuImg changes a volume's file; where somebody has it open, that is Conflict.
func qemuImg(ctx context.Context, id string, args ...string) error {
	// A daemon that was told to end holds the file a little longer.
	for began := time.Now(); ; {
		_, err := run(ctx, "qemu-img", args...)
		if err == nil || !strings.Contains(err.Error(), " lock") {
			return err
		}
		if time.Since(began) > lockPatience {
			return errors.Join(block.InUse(id), err)
		}
	}
}

// lockPatience is how long a file that another process has is tried for.
const lockPatience = 2 * time.Second

// run gives a program's output; its complaint is the error.
func run(ctx context.Context, name string, args ...string) ([]byte, error) {
	var out, complaint bytes.Buffer
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdout, cmd.Stderr = &out, &complaint
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, fmt.Errorf("%s %s: %w: %s", name, args[0], err, bytes.TrimSpace(complaint.Bytes()))
	}
	return out.Bytes(), nil
}

// put makes a new file durable under its name.
func put(tmp, path string) error {
	f, err := os.OpenFile(tmp, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(tmp, path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func remove(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}
