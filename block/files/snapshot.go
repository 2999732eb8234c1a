package files

import (
	"context"
	"errors"
	"os"
	"strings"

	"yakumo/block"
	"yakumo/fault"
)

// Snapshot implements block.Engine.
func (e *Engine) Snapshot(ctx context.Context, id, snapshot string) error {
	if err := block.Check(snapshot); err != nil {
		return err
	}
	leave, err := e.whole(ctx, id)
	if err != nil {
		return err
	}
	defer leave()
	return e.keep(ctx, id, snapshot)
}

// keep makes a snapshot; the caller has entered the volume.
func (e *Engine) keep(ctx context.Context, id, snapshot string) error {
	if there, err := e.has(ctx, id, snapshot); err != nil || there {
		return err
	}
	d, err := e.daemon(ctx, id)
	if err != nil {
		return err
	}
	if d == nil {
		return qemuImg(ctx, id, "snapshot", "-q", "-c", snapshot, e.disk(id))
	}
	defer d.close()
	return d.call(ctx, "blockdev-snapshot-internal-sync", map[string]any{"device": node, "name": snapshot}, nil)
}

// has tells whether a snapshot is there.
func (e *Engine) has(ctx context.Context, id, snapshot string) (bool, error) {
	if _, err := os.Stat(e.adopted(id, snapshot)); err == nil {
		return true, nil
	}
	i, err := look(ctx, e.disk(id))
	return i.has(snapshot), err
}

// RemoveSnapshot implements block.Engine.
func (e *Engine) RemoveSnapshot(ctx context.Context, id, snapshot string) error {
	if err := block.Check(id, snapshot); err != nil {
		return err
	}
	leave, err := e.whole(ctx, id)
	if fault.Is(err, fault.NotFound) {
		return nil // it went with its volume
	}
	if err != nil {
		return err
	}
	defer leave()
	e.mu.Lock()
	read := e.reading[id+"/"+snapshot] > 0
	e.mu.Unlock()
	if read {
		return fault.New(fault.Unavailable, "Snapshot %s is being copied.", snapshot)
	}
	return errors.Join(remove(e.adopted(id, snapshot)), e.drop(ctx, id, snapshot))
}

// drop removes a snapshot that is inside the file; the caller has entered the volume.
func (e *Engine) drop(ctx context.Context, id, snapshot string) error {
	i, err := look(ctx, e.disk(id))
	if err != nil || !i.has(snapshot) {
		return err
	}
	d, err := e.daemon(ctx, id)
	if err != nil {
		return err
	}
	if d == nil {
		return qemuImg(ctx, id, "snapshot", "-q", "-d", snapshot, e.disk(id))
	}
	defer d.close()
	return d.call(ctx, "blockdev-snapshot-delete-internal-sync", map[string]any{"device": node, "name": snapshot}, nil)
}

// copy writes a volume or a snapshot to a new file; of a volume, by way of a snapshot that nobody else sees. The name of that
// says for what it is, and those whose copy was cut off go with the next.
func (e *Engine) copy(ctx context.Context, id, snapshot, purpose, path, format string) error {
	leave, err := e.whole(ctx, id)
	if err != nil {
		return err
	}
	from, temp := snapshot, ""
	if snapshot == "" {
		if err = e.tidy(ctx, id); err == nil {
			temp = tempPrefix + purpose
			from = temp
			err = e.keep(ctx, id, temp)
		}
	} else if there, herr := e.has(ctx, id, snapshot); herr != nil || !there {
		if err = herr; err == nil {
			err = block.NoSnapshot(snapshot)
		}
	}
	if err == nil {
		e.read(id, from, 1)
	}
	leave()
	if err != nil {
		return err
	}
	// What a snapshot holds does not change while it is read; but the table that says where it is does, when another is made or
	// removed meanwhile, and who opens the file at that moment does not find it.
	for tries := 1; ; tries++ {
		if file := e.adopted(id, from); exists(file) {
			err = convert(ctx, file, "qcow2", "", path, format)
		} else {
			err = convert(ctx, e.disk(id), "qcow2", from, path, format)
		}
		if err == nil || ctx.Err() != nil || tries == 5 {
			break
		}
	}
	e.read(id, from, -1)
	if err != nil {
		err = errors.Join(err, remove(path))
	}
	if temp == "" {
		return err
	}
	// Also after ctx has ended: what stays would cost room until the next copy.
	done := context.WithoutCancel(ctx)
	leave, lerr := e.turns.Enter(done, id)
	if lerr != nil {
		return errors.Join(err, lerr)
	}
	defer leave()
	e.mu.Lock()
	again := e.reading[id+"/"+temp] > 0
	e.mu.Unlock()
	if again || !exists(e.disk(id)) {
		return err
	}
	return errors.Join(err, e.drop(done, id, temp))
}

func (e *Engine) read(id, snapshot string, n int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.reading[id+"/"+snapshot] += n; e.reading[id+"/"+snapshot] == 0 {
		delete(e.reading, id+"/"+snapshot)
	}
}

// tidy drops the snapshots of copies that were cut off; the caller has entered the volume.
func (e *Engine) tidy(ctx context.Context, id string) error {
	i, err := look(ctx, e.disk(id))
	if err != nil {
		return err
	}
	for _, s := range i.Snapshots {
		e.mu.Lock()
		read := e.reading[id+"/"+s.Name] > 0
		e.mu.Unlock()
		if strings.HasPrefix(s.Name, tempPrefix) && !read {
			if err := e.drop(ctx, id, s.Name); err != nil {
				return err
			}
		}
	}
	return nil
}

// closed enters a volume that is there and not open.
func (e *Engine) closed(ctx context.Context, id string) (leave func(), err error) {
	if leave, err = e.whole(ctx, id); err != nil {
		return nil, err
	}
	d, err := e.daemon(ctx, id)
	if err == nil && d != nil {
		d.close()
		err = block.InUse(id)
	}
	if err != nil {
		leave()
		return nil, err
	}
	return leave, nil
}

// Revert implements block.Filler.
func (e *Engine) Revert(ctx context.Context, id, snapshot string) error {
	if err := block.Check(snapshot); err != nil {
		return err
	}
	leave, err := e.closed(ctx, id)
	if err != nil {
		return err
	}
	defer leave()
	if file := e.adopted(id, snapshot); exists(file) {
		i, err := look(ctx, file)
		if err != nil {
			return err
		}
		if err := resizeTo(ctx, id, e.disk(id), i.Size); err != nil {
			return err
		}
		return over(ctx, id, file, "qcow2", e.disk(id))
	}
	i, err := look(ctx, e.disk(id))
	if err != nil {
		return err
	}
	if !i.has(snapshot) {
		return block.NoSnapshot(snapshot)
	}
	return qemuImg(ctx, id, "snapshot", "-q", "-a", snapshot, e.disk(id))
}

// Fill implements block.Filler.
func (e *Engine) Fill(ctx context.Context, id, file, format string) error {
	leave, err := e.closed(ctx, id)
	if err != nil {
		return err
	}
	defer leave()
	return over(ctx, id, file, format, e.disk(id))
}

// Adopt implements block.Adopter.
func (s Shared) Adopt(ctx context.Context, id, snapshot, path string) error {
	if err := block.Check(snapshot); err != nil {
		return err
	}
	leave, err := s.whole(ctx, id)
	if err != nil {
		return err
	}
	defer leave()
	if there, err := s.has(ctx, id, snapshot); err != nil || there {
		return errors.Join(err, remove(path))
	}
	to := s.adopted(id, snapshot)
	err = os.Rename(path, to)
	if err == nil {
		return syncDir(s.dir(id))
	}
	// Another file system, most likely: copied, and found as whole only then.
	tmp := to + newSuffix
	if err := remove(tmp); err != nil {
		return err
	}
	if err := convert(ctx, path, "qcow2", "", tmp, "qcow2"); err != nil {
		return errors.Join(err, remove(tmp))
	}
	return errors.Join(put(tmp, to), remove(path))
}
