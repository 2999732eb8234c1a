// Package files is a block.Engine of qcow2 files in a folder. It has two forms.
//
// Of this host alone ("local"): QEMU never opens the file. A storage daemon, a process for each volume that is open, holds it
// and serves it by NBD at a unix socket, to guests here and, by whoever carries the bytes, elsewhere. So a
// guest that moves away finds it open at both ends, several guests may share it, and snapshots, growth and copies of an open volume
// are the daemon's to make. It outlives the agent and is found again by its socket.
//
// Shared ("nfs"): the folder is one that all hosts have. QEMU opens the file itself, whose lock then forbids
// changes from here: they are Conflict.
//
// It owns the folder: <id>/disk.qcow2 is a volume that is whole, <id>/<snapshot>.qcow2 a snapshot that was adopted; others are
// inside the qcow2 (refcounts, so any of them may go at any time). And the folder for sockets. May import: fault, block.
// Must not import: another part of the project.
package files

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"yakumo/block"
	"yakumo/fault"
)

// Config makes an Engine.
type Config struct {
	Dir    string // absolute, exists or can be made
	Shared bool   // all hosts have the folder
	// Run is the folder for sockets, absolute and of at most 88 bytes, as a socket's path has little room; not needed where Shared.
	Run string
}

// Engine implements block.Engine, Filler, Closer, Meter, Sider and, where shared, Adopter.
type Engine struct {
	cfg   Config
	turns block.Turns

	mu      sync.Mutex
	reading map[string]int // <volume>/<snapshot>: being copied
}

var (
	_ block.Engine = (*Engine)(nil)
	_ block.Closer = (*Engine)(nil)
	_ block.Filler = (*Engine)(nil)
	_ block.Meter  = (*Engine)(nil)
	_ block.Sider  = (*Engine)(nil)
)

// Shared is an Engine of a folder that all hosts have.
type Shared struct{ *Engine }

var _ block.Adopter = Shared{}

const (
	diskFile   = "disk.qcow2"
	newSuffix  = ".new"  // of a file that is being made
	goneSuffix = ".gone" // of a folder that is being removed
	tempPrefix = "tmp-"  // of snapshots that a copy is made of

	asideDir = ".quarantine" // no volume's name
)

// Open makes the folders and gives the engine: a Shared where cfg says so.
func Open(cfg Config) (block.Engine, error) {
	if !filepath.IsAbs(cfg.Dir) || !cfg.Shared && !filepath.IsAbs(cfg.Run) {
		return nil, fmt.Errorf("volume files: folders %q and %q must be absolute", cfg.Dir, cfg.Run)
	}
	if len(cfg.Run) > 88 {
		return nil, fmt.Errorf("volume files: the path %s is too long for sockets in it", cfg.Run)
	}
	dirs := []string{cfg.Dir}
	if !cfg.Shared {
		dirs = append(dirs, cfg.Run)
	}
	for _, d := range dirs {
		if err := os.MkdirAll(d, 0o711); err != nil {
			return nil, fmt.Errorf("volume files: %w", err)
		}
	}
	e := &Engine{cfg: cfg, reading: map[string]int{}}
	if cfg.Shared {
		return Shared{e}, nil
	}
	return e, nil
}

func (e *Engine) dir(id string) string  { return filepath.Join(e.cfg.Dir, id) }
func (e *Engine) disk(id string) string { return filepath.Join(e.cfg.Dir, id, diskFile) }
func (e *Engine) adopted(id, snapshot string) string {
	return filepath.Join(e.cfg.Dir, id, snapshot+".qcow2")
}

// whole enters a volume that is there.
func (e *Engine) whole(ctx context.Context, id string) (leave func(), err error) {
	if err := block.Check(id); err != nil {
		return nil, err
	}
	if leave, err = e.turns.Enter(ctx, id); err != nil {
		return nil, err
	}
	if _, err := os.Stat(e.disk(id)); err != nil {
		leave()
		if errors.Is(err, os.ErrNotExist) {
			return nil, block.NoVolume(id)
		}
		return nil, err
	}
	return leave, nil
}

// Make implements block.Engine.
func (e *Engine) Make(ctx context.Context, id string, size int64, from block.Source) error {
	if err := block.Check(id); err != nil {
		return err
	}
	leave, err := e.turns.Enter(ctx, id)
	if err != nil {
		return err
	}
	defer leave()
	path := e.disk(id)
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	if err := os.MkdirAll(e.dir(id), 0o711); err != nil {
		return err
	}
	tmp := path + newSuffix
	if err := remove(tmp); err != nil {
		return err
	}
	switch {
	case from.File != "":
		err = convert(ctx, from.File, from.Format, "", tmp, "qcow2")
	case from.Volume == id:
		return fault.New(fault.Invalid, "Volume %s cannot be made of itself.", id)
	case from.Volume != "":
		err = e.copy(ctx, from.Volume, from.Snapshot, id, tmp, "qcow2")
	default:
		err = qemuImg(ctx, id, "create", "-q", "-f", "qcow2", tmp, fmt.Sprint(size))
	}
	if err == nil && (from.File != "" || from.Volume != "") {
		err = stretch(ctx, id, tmp, size)
	}
	if err != nil {
		return errors.Join(err, remove(tmp))
	}
	return put(tmp, path)
}

// Grow implements block.Engine.
func (e *Engine) Grow(ctx context.Context, id string, size int64) error {
	leave, err := e.whole(ctx, id)
	if err != nil {
		return err
	}
	defer leave()
	if i, err := look(ctx, e.disk(id)); err != nil || i.Size >= size {
		return err
	}
	d, err := e.daemon(ctx, id)
	if err != nil {
		return err
	}
	if d != nil {
		defer d.close()
		// What is exported has one size: who has it open loses the connection, and finds the new size with the next.
		if err := d.unexport(ctx); err != nil {
			return err
		}
		err := d.call(ctx, "block_resize", map[string]any{"node-name": node, "size": size}, nil)
		return errors.Join(err, d.export(ctx))
	}
	return qemuImg(ctx, id, "resize", "-q", "-f", "qcow2", e.disk(id), fmt.Sprint(size))
}

// Remove implements block.Engine.
func (e *Engine) Remove(ctx context.Context, id string) error {
	if err := block.Check(id); err != nil {
		return err
	}
	leave, err := e.turns.Enter(ctx, id)
	if err != nil {
		return err
	}
	defer leave()
	if err := e.idle(ctx, id); err != nil {
		return err
	}
	// A folder of another name is no volume any more, whatever is left in it.
	gone := e.dir(id) + goneSuffix
	if err := os.RemoveAll(gone); err != nil {
		return err
	}
	if err := os.Rename(e.dir(id), gone); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return errors.Join(os.RemoveAll(gone), syncDir(e.cfg.Dir))
}

// idle is Conflict where a volume is open; absent is success. The caller has its turn.
func (e *Engine) idle(ctx context.Context, id string) error {
	if _, err := os.Stat(e.disk(id)); errors.Is(err, os.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	d, err := e.daemon(ctx, id)
	if err != nil {
		return err
	}
	if d != nil {
		d.close()
		return block.InUse(id)
	}
	if e.cfg.Shared {
		// Writing nothing, it fails where somebody has the file open.
		if err := qemuImg(ctx, id, "amend", "-q", "-f", "qcow2", "-o", "lazy_refcounts=off", e.disk(id)); fault.Is(err, fault.Conflict) {
			return err
		}
	}
	return nil
}

// Aside implements block.Sider.
func (e *Engine) Aside() string { return filepath.Join(e.cfg.Dir, asideDir) }

// LayAside implements block.Sider.
func (e *Engine) LayAside(ctx context.Context, id, path string) error {
	if err := block.Check(id); err != nil {
		return err
	}
	leave, err := e.turns.Enter(ctx, id)
	if err != nil {
		return err
	}
	defer leave()
	if err := e.idle(ctx, id); err != nil {
		return err
	}
	if err := os.Rename(e.dir(id), path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return errors.Join(syncDir(filepath.Dir(path)), syncDir(e.cfg.Dir))
}

// Export implements block.Engine.
func (e *Engine) Export(ctx context.Context, id, snapshot, format, path string) error {
	if err := block.Check(id); err != nil {
		return err
	}
	if format != "qcow2" && format != "raw" {
		return fault.New(fault.Invalid, "A volume cannot be written as %q.", format)
	}
	return e.copy(ctx, id, snapshot, "export", path, format)
}

// List implements block.Engine.
func (e *Engine) List(context.Context) ([]block.Entry, error) {
	entries, err := os.ReadDir(e.cfg.Dir)
	if err != nil {
		return nil, err
	}
	whole := map[string]bool{}
	for _, d := range entries {
		id := strings.TrimSuffix(d.Name(), goneSuffix)
		if !d.IsDir() || block.Check(id) != nil {
			continue
		}
		_, err := os.Stat(filepath.Join(e.cfg.Dir, d.Name(), diskFile))
		whole[id] = whole[id] || err == nil && id == d.Name()
	}
	out := make([]block.Entry, 0, len(whole))
	for id, w := range whole {
		out = append(out, block.Entry{ID: id, Whole: w})
	}
	slices.SortFunc(out, func(a, b block.Entry) int { return strings.Compare(a.ID, b.ID) })
	return out, nil
}

// Open implements block.Engine.
func (e *Engine) Open(ctx context.Context, id string) (block.Access, error) {
	leave, err := e.whole(ctx, id)
	if err != nil {
		return block.Access{}, err
	}
	defer leave()
	if e.cfg.Shared {
		return block.Access{File: e.disk(id), Format: "qcow2", Everywhere: true}, nil
	}
	d, err := e.daemon(ctx, id)
	if err == nil && d == nil {
		d, err = e.startDaemon(ctx, id)
	} else if err == nil {
		err = d.export(ctx) // whoever took it away to let it grow may have died
	}
	if d != nil {
		d.close()
	}
	if err != nil {
		return block.Access{}, err
	}
	return block.Access{Socket: e.socket(id, nbdSocket), Export: id}, nil
}

// Close implements block.Closer.
func (e *Engine) Close(ctx context.Context, id string) error {
	if err := block.Check(id); err != nil {
		return err
	}
	leave, err := e.turns.Enter(ctx, id)
	if err != nil {
		return err
	}
	defer leave()
	d, err := e.daemon(ctx, id)
	if err != nil || d == nil {
		return err
	}
	defer d.close()
	if err := d.quit(ctx); err != nil {
		return err
	}
	return errors.Join(remove(e.socket(id, nbdSocket)), remove(e.socket(id, qmpSocket)))
}

// Room implements block.Meter.
func (e *Engine) Room(context.Context) (total, free int64, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(e.cfg.Dir, &st); err != nil {
		return 0, 0, fmt.Errorf("room of %s: %w", e.cfg.Dir, err)
	}
	return int64(st.Blocks) * st.Frsize, int64(st.Bavail) * st.Frsize, nil
}
