package images

import (
	"context"
	"fmt"
	"time"

	"yakumo/model"
	"yakumo/store"
)

// Run keeps the catalogue and the blobs in order until ctx ends: images whose uploader is
// gone go back to queued, blobs that nothing refers to go away, tasks that have expired
// too. It looks at everything at the start, on every change that may matter, and by timer.
// It may run on every server at once.
func (m *Images) Run(ctx context.Context) error {
	sub := m.st.Subscribe(store.Images.Kind(), store.ImageUploads.Kind(), store.Servers.Kind(), store.Volumes.Kind(), store.VolumeBackups.Kind())
	defer sub.Close()
	changes := make(chan store.Delta)
	go func() {
		defer close(changes)
		for {
			d, err := sub.Next(ctx)
			if err != nil {
				return
			}
			select {
			case changes <- d:
			case <-ctx.Done():
				return
			}
		}
	}()
	timer := time.NewTimer(m.cfg.Sweep)
	defer timer.Stop()
	for {
		var err error
		select {
		case d, ok := <-changes:
			if !ok {
				return ctx.Err()
			}
			if d.First {
				err = m.everything(ctx)
			} else {
				err = m.follow(ctx, d)
			}
			if err == nil {
				continue
			}
		case <-timer.C:
			err = m.everything(ctx)
		}
		again := m.cfg.Sweep
		if err != nil && ctx.Err() == nil {
			again = min(again, retryAfter)
			m.log.Warn("images are not in order", "err", err, "again_in", again)
		}
		timer.Reset(again)
	}
}

// retryAfter is how soon everything is looked at again where something failed.
const retryAfter = 5 * time.Second

func (m *Images) everything(ctx context.Context) error {
	if err := m.Heal(ctx); err != nil {
		return err
	}
	return m.Collect(ctx)
}

// follow does what a few changes call for, and costs as little.
func (m *Images) follow(ctx context.Context, d store.Delta) error {
	heal := false
	for _, c := range d.Changes {
		var err error
		switch old := c.Old.(type) {
		case *model.ImageUpload:
			heal = true
			// The uploader removes its own bytes where it lives; Delete is the same for both.
			if now, _ := c.New.(*model.ImageUpload); now == nil || now.BlobID != old.BlobID {
				err = m.free(ctx, d.Snapshot, old.ImageID, old.BlobID)
			}
		case *model.Image:
			if now, _ := c.New.(*model.Image); old.BlobID != "" && (now == nil || now.BlobID != old.BlobID) {
				err = m.free(ctx, d.Snapshot, old.ID, old.BlobID)
			}
		case *model.Server:
			if c.New == nil && old.Image.BlobID != "" {
				err = m.free(ctx, d.Snapshot, old.Image.ImageID, old.Image.BlobID)
			}
		case *model.Volume:
			if now, _ := c.New.(*model.Volume); old.Source.Image.BlobID != "" && (now == nil || now.Status.State != old.Status.State) {
				err = m.free(ctx, d.Snapshot, old.Source.ImageID, old.Source.Image.BlobID)
			}
		case *model.VolumeBackup:
			if c.New == nil && old.BlobID != "" {
				err = m.free(ctx, d.Snapshot, "", old.BlobID)
			}
		}
		if err != nil {
			return err
		}
	}
	if heal {
		return m.Heal(ctx)
	}
	return nil
}

// free removes one blob of an image where nothing in the state refers to it.
func (m *Images) free(ctx context.Context, snap store.Snapshot, image, blob model.ID) error {
	if store.Images.Count(snap, "blob", blob) > 0 || store.ImageUploads.Count(snap, "blob", blob) > 0 || ofVolume(snap, blob) {
		return nil
	}
	for s := range store.Servers.List(snap, "image", image) {
		if s.Image.BlobID == blob || s.Rescue != nil && s.Rescue.Image.BlobID == blob {
			return nil
		}
	}
	if err := m.cfg.Blobs.Delete(ctx, blob); err != nil {
		return fmt.Errorf("remove blob %s: %w", blob, err)
	}
	m.log.Info("a blob that nothing refers to is removed", "blob", blob, "image", image)
	return nil
}

// Heal sets every saving image whose uploader is gone back to queued.
func (m *Images) Heal(ctx context.Context) error {
	for img := range store.Images.List(m.st.Snapshot(), "status", model.ImageSaving) {
		_, err := m.st.Update(ctx, func(tx *store.Tx) error {
			now, ok := store.Images.Get(tx, img.ID)
			// Reading the upload's row makes its absence part of what is compared at commit.
			if _, held := store.ImageUploads.Get(tx, img.ID); held || !ok {
				return nil
			}
			return m.requeue(tx, now)
		})
		if err != nil {
			return fmt.Errorf("heal image %s: %w", img.ID, err)
		}
	}
	return nil
}

// ofVolume tells whether a blob is a backup's, or one that a volume is being filled from.
func ofVolume(r store.Reader, blob model.ID) bool {
	return store.VolumeBackups.Count(r, "blob", blob)+store.Volumes.Count(r, "blob", blob) > 0
}

// Collect removes every blob that no image, no upload, no server, no volume and no backup refers to, and tasks
// that have expired.
//
// A blob is written only after its upload's row, and a server is written only with its
// image in the same transaction (see Bootable). So what is listed first, and is not
// referred to in a state at least as new as the list, is never referred to again.
func (m *Images) Collect(ctx context.Context) error {
	blobs, err := m.cfg.Blobs.List(ctx)
	if err != nil {
		return fmt.Errorf("collect orphan blobs: %w", err)
	}
	if err := m.st.Sync(ctx); err != nil {
		return fmt.Errorf("collect orphan blobs: %w", err)
	}
	snap := m.st.Snapshot()
	orphans := map[model.ID]bool{}
	for _, id := range blobs {
		if store.Images.Count(snap, "blob", id) == 0 && store.ImageUploads.Count(snap, "blob", id) == 0 && !ofVolume(snap, id) {
			orphans[id] = true
		}
	}
	if len(orphans) > 0 {
		for s := range store.Servers.All(snap) {
			delete(orphans, s.Image.BlobID)
			if s.Rescue != nil {
				delete(orphans, s.Rescue.Image.BlobID)
			}
		}
	}
	for id := range orphans {
		if err := m.cfg.Blobs.Delete(ctx, id); err != nil {
			return fmt.Errorf("collect orphan blobs: %w", err)
		}
		m.log.Info("an orphan blob is removed", "blob", id)
	}
	return m.expireTasks(ctx, snap)
}
