package volume

import (
	"context"
	"fmt"
	"reflect"
	"slices"

	"yakumo/model"
	"yakumo/store"
)

// batch is how many reports one transaction brings in: with their snapshots and backups well
// below what a transaction may touch.
const batch = 16

// VolumeReports brings what a host says of its volumes into the store; it serves link.VolumeSink.
// What is said of a volume that is not the host's, and what was said before something newer, is
// left out. It may be called again with the same reports.
//
// What is expected of a host: it reports anew when it has acted on a new generation, with that
// generation. Ready says that the volume has the size, the content and the snapshots that are
// wanted; Snapshots lists those that are there. A fault is final for that generation. Gone comes
// last, for a volume whose row says Deleted.
func (v *Volumes) VolumeReports(ctx context.Context, host model.ID, reports []model.VolumeReport) error {
	for part := range slices.Chunk(reports, batch) {
		if _, err := v.cfg.Store.Update(ctx, func(tx *store.Tx) error {
			for i := range part {
				if err := v.report(tx, host, &part[i]); err != nil {
					return fmt.Errorf("report of volume %s: %w", part[i].VolumeID, err)
				}
			}
			return nil
		}); err != nil {
			return err
		}
	}
	return nil
}

func (v *Volumes) report(tx *store.Tx, host model.ID, r *model.VolumeReport) error {
	old, ok := store.Volumes.Get(tx, r.VolumeID)
	if ok && old.Move != nil && old.Move.Host == host {
		return v.arrived(tx, old, r)
	}
	if ok && old.Relocation != nil && old.Relocation.Host == host {
		if err := v.placed(tx, old, r); err != nil || old.Host != host {
			return err
		}
		old, _ = store.Volumes.Get(tx, r.VolumeID)
	}
	if !ok || old.Host != host || r.Generation < old.Status.Generation || r.Generation > old.Generation {
		return nil
	}
	if r.Gone {
		if !old.Deleted {
			return nil
		}
		return v.gone(tx, old)
	}
	n := copyOf(old)
	n.Status.Generation = r.Generation
	if r.SizeGiB > 0 {
		n.Status.SizeGiB = r.SizeGiB
	}
	newest := r.Generation == n.Generation
	if err := v.snapshotsReported(tx, n, r); err != nil {
		return err
	}
	if err := v.uploadsReported(tx, n, r, newest); err != nil {
		return err
	}
	switch {
	case !newest:
		// It has not seen yet what was asked since, and will say how that ends.
	case r.Fault != nil:
		if err := v.failed(tx, n, r.Fault); err != nil {
			return err
		}
	case r.Ready:
		if err := v.ready(tx, n); err != nil {
			return err
		}
	}
	if newest && n.Change != nil {
		if err := v.changeReported(tx, n, r); err != nil {
			return err
		}
	}
	if reflect.DeepEqual(old, n) {
		return nil
	}
	n.UpdatedAt = v.now()
	return store.Volumes.Put(tx, n)
}

// ready ends what the host has done of the newest generation.
func (v *Volumes) ready(tx *store.Tx, n *model.Volume) error {
	switch n.Status.State {
	case Creating, Downloading, Extending, Reverting, RestoringBackup:
	default:
		return nil // the states that the host has no part in
	}
	if id := n.Filling().BackupID; id != "" {
		if err := v.restored(tx, id, nil); err != nil {
			return err
		}
	}
	if n.Status.State == Reverting && n.Refill != nil {
		if s, ok := store.VolumeSnapshots.Get(tx, n.Refill.SnapshotID); ok && s.State == Restoring {
			c := *s
			c.State, c.UpdatedAt = Available, v.now()
			if err := store.VolumeSnapshots.Put(tx, &c); err != nil {
				return err
			}
		}
	}
	n.Status.State, n.Status.Fault, n.Status.Fills = settled(n), nil, n.Fills
	return nil
}

// failed ends what the host could not do of the newest generation.
func (v *Volumes) failed(tx *store.Tx, n *model.Volume, f *model.Fault) error {
	to := ""
	switch n.Status.State {
	case Creating, Downloading:
		to = Errored
	case Extending:
		// What is wanted is again what there is.
		if to = ErrorExtending; n.Status.SizeGiB > 0 && n.Status.SizeGiB < n.SizeGiB {
			n.SizeGiB = n.Status.SizeGiB
		}
	case RestoringBackup:
		to = ErrorRestoring
	case Reverting:
		to = Errored
		if s, ok := store.VolumeSnapshots.Get(tx, n.Filling().SnapshotID); ok && s.State == Restoring {
			c := *s
			c.State, c.UpdatedAt = Available, v.now()
			if err := store.VolumeSnapshots.Put(tx, &c); err != nil {
				return err
			}
		}
	case Deleting:
		to = ErrorDeleting
	default:
		return nil
	}
	if id := n.Filling().BackupID; id != "" && (to == Errored || to == ErrorRestoring) {
		if err := v.restored(tx, id, f); err != nil {
			return err
		}
	}
	v.log.Warn("a host could not do what was asked of a volume", "volume", n.ID, "state", n.Status.State, "fault", f.Message, "details", f.Details, "request_id", n.RequestID)
	c := *f
	c.At = v.now()
	n.Status.State, n.Status.Fault = to, &c
	return nil
}

// restored ends a backup's part in filling a volume.
func (v *Volumes) restored(tx *store.Tx, id model.ID, f *model.Fault) error {
	b, ok := store.VolumeBackups.Get(tx, id)
	if !ok || b.State != Restoring {
		return nil
	}
	c := *b
	c.State, c.Fault, c.UpdatedAt = Available, f, v.now()
	return store.VolumeBackups.Put(tx, &c)
}

// snapshotsReported brings in which snapshots are there.
func (v *Volumes) snapshotsReported(tx *store.Tx, n *model.Volume, r *model.VolumeReport) error {
	for _, s := range slices.Collect(store.VolumeSnapshots.List(tx, "volume", n.ID)) {
		there := slices.Contains(r.Snapshots, s.ID)
		c := *s
		switch {
		case r.Generation < s.Since:
			continue // said before it was told
		case s.Deleted && !there && (r.Ready || r.Fault == nil):
			if err := store.VolumeSnapshots.Delete(tx, s.ID); err != nil {
				return err
			}
			continue
		case s.Deleted && r.Fault != nil && s.State == Deleting:
			c.State, c.Fault = ErrorDeleting, r.Fault
		case !s.Deleted && there && s.State == Creating:
			c.State = Available
		case !s.Deleted && !there && r.Fault != nil && s.State == Creating:
			c.State, c.Fault = Errored, r.Fault
		default:
			continue
		}
		c.UpdatedAt = v.now()
		if err := store.VolumeSnapshots.Put(tx, &c); err != nil {
			return err
		}
	}
	return nil
}

// uploadsReported brings in what came of backups, and of images made of the volume.
func (v *Volumes) uploadsReported(tx *store.Tx, n *model.Volume, r *model.VolumeReport, newest bool) error {
	for _, u := range r.Uploads {
		if !u.Done && u.Fault == nil {
			continue
		}
		if b, ok := store.VolumeBackups.Get(tx, u.ID); ok && b.VolumeID == n.ID && b.State == Creating {
			c := *b
			c.State, c.Fault, c.UpdatedAt = Available, u.Fault, v.now()
			if u.Fault != nil {
				c.State = Errored
			}
			if err := store.VolumeBackups.Put(tx, &c); err != nil {
				return err
			}
			if n.Status.State == BackingUp {
				n.Status.State = settled(n)
			}
		}
		at := slices.IndexFunc(n.Uploads, func(b model.HostBlob) bool { return b.ID == u.ID })
		if at < 0 {
			continue
		}
		n.Uploads = slices.Delete(n.Uploads, at, at+1)
		n.Generation++ // its host need not hold it any longer
		if n.Status.State == Uploading && len(n.Uploads) == 0 {
			n.Status.State = settled(n)
		}
		if u.Fault != nil {
			v.log.Warn("no image was made of a volume", "volume", n.ID, "image", u.ID, "fault", u.Fault.Message, "details", u.Fault.Details)
		}
	}
	return nil
}

// gone removes the row of a volume of which nothing is left, with its snapshots.
func (v *Volumes) gone(tx *store.Tx, n *model.Volume) error {
	for _, s := range slices.Collect(store.VolumeSnapshots.List(tx, "volume", n.ID)) {
		if err := store.VolumeSnapshots.Delete(tx, s.ID); err != nil {
			return err
		}
	}
	for _, t := range slices.Collect(store.VolumeTransfers.List(tx, "volume", n.ID)) {
		if err := store.VolumeTransfers.Delete(tx, t.ID); err != nil {
			return err
		}
	}
	return store.Volumes.Delete(tx, n.ID)
}
