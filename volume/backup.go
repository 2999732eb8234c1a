package volume

import (
	"cmp"
	"time"

	"yakumo/fault"
	"yakumo/model"
	"yakumo/store"
)

// GetBackup gives a backup that the scope may see.
func GetBackup(r store.Reader, sc Scope, id model.ID) (*model.VolumeBackup, error) {
	b, ok := store.VolumeBackups.Get(r, id)
	if !ok || !sc.Owns(b.ProjectID) {
		return nil, fault.New(fault.NotFound, "Backup %s could not be found.", clip(id))
	}
	return b, nil
}

// NewBackup is what a request wants of a new backup.
type NewBackup struct {
	VolumeID, SnapshotID model.ID // of the volume, or of its state in a snapshot
	Name, Description    string
	Container, Zone      string
	Metadata             map[string]string
	Incremental, Force   bool
}

// CreateBackup copies a volume to the image store.
//
// An incremental one keeps what differs from the newest that there is.
//
// Errors: fault.NotFound; fault.Invalid for another state, and for an incremental backup where there is none to build on; fault.OverQuota.
func (v *Volumes) CreateBackup(tx *store.Tx, sc Scope, n NewBackup) (*model.VolumeBackup, error) {
	var out *model.VolumeBackup
	_, err := v.change(tx, sc, n.VolumeID, true, func(x *model.Volume) error {
		at := v.now()
		state := x.Status.State
		switch {
		case n.SnapshotID != "":
			s, err := GetSnapshot(tx, sc, n.SnapshotID)
			if err != nil {
				return err
			}
			if s.VolumeID != x.ID {
				return fault.New(fault.Invalid, "Invalid snapshot: Snapshot %s is not of volume %s.", s.ID, x.ID)
			}
			if s.State != Available {
				return fault.New(fault.Invalid, "Invalid snapshot: Snapshot to be backed up must be available, but the current status is \"%s\".", s.State)
			}
			at = s.CreatedAt
		case state == InUse && !n.Force:
			return fault.New(fault.Invalid, "Invalid volume: Backing up an in-use volume must use the force flag.")
		case state != Available && state != InUse:
			return fault.New(fault.Invalid, "Invalid volume: Volume to be backed up must be available or in-use, but the current status is \"%s\".", state)
		}
		if state != Available && state != InUse {
			return fault.New(fault.Invalid, "Invalid volume: Volume to be backed up must be available or in-use, but the current status is \"%s\".", state)
		}
		parent := model.ID("")
		if n.Incremental {
			b, err := newest(tx, x.ID, n.SnapshotID != "", at)
			if err != nil {
				return err
			}
			tx.Mark(sourceMark(b.ID))
			parent = b.ID
		}
		if err := metadataFits(n.Metadata); err != nil {
			return err
		}
		if err := v.spend(tx, x.ProjectID, "", want{QuotaBackups: 1, QuotaBackupGigabytes: x.SizeGiB}); err != nil {
			return err
		}
		out = &model.VolumeBackup{Meta: model.NewMeta(x.ProjectID, n.Name, v.now()), VolumeID: x.ID, SnapshotID: n.SnapshotID, SizeGiB: x.SizeGiB,
			Container: cmp.Or(n.Container, "volumebackups"), State: Creating, UserID: sc.UserID, Zone: cmp.Or(n.Zone, x.Zone), Metadata: cloneMap(n.Metadata), DataAt: at, ParentID: parent, Format: model.BackupChunks}
		out.Description = n.Description
		if n.SnapshotID == "" {
			x.Status.State = BackingUp
		}
		return store.VolumeBackups.Put(tx, out)
	})
	return out, err
}

// maxChain is how many backups one may build on: they are told to a host in one row.
const maxChain = 1000

// newest gives the backup that the next incremental one of a volume builds on: the newest, where before is set of what was before the time at.
func newest(r store.Reader, volume model.ID, before bool, at time.Time) (*model.VolumeBackup, error) {
	var out *model.VolumeBackup
	for b := range store.VolumeBackups.List(r, "volume", volume) {
		fits := b.State == Available && b.Format == model.BackupChunks && b.BlobID != "" && (!before || b.DataAt.Before(at))
		if fits && (out == nil || b.DataAt.After(out.DataAt)) {
			out = b
		}
	}
	if out == nil {
		return nil, fault.New(fault.Invalid, "Invalid backup: No backups available to do an incremental backup.")
	}
	n, b := 1, out
	for ; b.ParentID != ""; n++ {
		parent, ok := store.VolumeBackups.Get(r, b.ParentID)
		if !ok {
			return nil, fault.New(fault.Invalid, "Invalid backup: Backup %s, on which %s builds, is gone. Make a full one.", b.ParentID, b.ID)
		}
		b = parent
	}
	if n >= maxChain {
		return nil, fault.New(fault.Invalid, "Invalid backup: %d backups build on each other, as many as may. Make a full one.", n)
	}
	return out, nil
}

// Dependent tells whether other backups build on a backup.
func Dependent(r store.Reader, id model.ID) bool {
	for range store.VolumeBackups.List(r, "parent", id) {
		return true
	}
	return false
}

func (v *Volumes) changeBackup(tx *store.Tx, sc Scope, id model.ID, f func(*model.VolumeBackup) error) (*model.VolumeBackup, error) {
	old, err := GetBackup(tx, sc, id)
	if err != nil {
		return nil, err
	}
	b := *old
	if err := f(&b); err != nil {
		return nil, err
	}
	b.Touch(v.now())
	return &b, store.VolumeBackups.Put(tx, &b)
}

// UpdateBackup changes a backup's names and metadata.
func (v *Volumes) UpdateBackup(tx *store.Tx, sc Scope, id model.ID, u Update) (*model.VolumeBackup, error) {
	return v.changeBackup(tx, sc, id, func(b *model.VolumeBackup) error {
		u.apply(&b.Meta, &b.Metadata)
		return metadataFits(b.Metadata)
	})
}

// ResetBackup sets a backup's state, without anything being done; of administrators.
func (v *Volumes) ResetBackup(tx *store.Tx, id model.ID, state string) (*model.VolumeBackup, error) {
	return v.changeBackup(tx, Scope{Admin: true}, id, func(b *model.VolumeBackup) error {
		if state != Available && state != Errored {
			return fault.New(fault.Invalid, "Invalid input received: the status of a backup is set to available or error.")
		}
		b.State = state
		return nil
	})
}

// DeleteBackup removes a backup; its bytes go when nothing refers to them. force does not ask for its state.
func (v *Volumes) DeleteBackup(tx *store.Tx, sc Scope, id model.ID, force bool) error {
	b, err := GetBackup(tx, sc, id)
	if err != nil {
		return err
	}
	if !force && b.State != Available && b.State != Errored {
		return fault.New(fault.Invalid, "Invalid backup: Backup status must be available or error")
	}
	tx.Guard(sourceMark(id))
	if Dependent(tx, id) {
		return fault.New(fault.Invalid, "Invalid backup: Incremental backups exist for this backup.")
	}
	for x := range store.Volumes.List(tx, "backup", id) {
		if x.Status.State == Creating || x.Status.State == RestoringBackup {
			return fault.New(fault.Invalid, "Invalid backup: Backup %s is being restored.", id)
		}
	}
	tx.Unmark(sourceMark(id))
	// A volume whose backup is being made is free again: what its host says of it later is of no backup.
	if x, ok := store.Volumes.Get(tx, b.VolumeID); ok && b.State == Creating {
		n := copyOf(x)
		if n.Status.State == BackingUp {
			n.Status.State = settled(n)
		}
		n.Touch(v.now())
		if err := store.Volumes.Put(tx, n); err != nil {
			return err
		}
	}
	return store.VolumeBackups.Delete(tx, id)
}

// Expected tells whether the host may send the bytes of a backup; it serves images.Keep.
func Expected(r store.Reader, host, id model.ID) error {
	b, ok := store.VolumeBackups.Get(r, id)
	if !ok {
		return fault.New(fault.NotFound, "Backup %s could not be found.", clip(id))
	}
	if x, ok := store.Volumes.Get(r, b.VolumeID); !ok || x.Host != host || b.State != Creating {
		return fault.New(fault.Forbidden, "Backup %s is not to be made on this host.", id)
	}
	return nil
}

// Received records where the bytes of a backup are. It is available when its host says so.
func (v *Volumes) Received(tx *store.Tx, id, blob model.ID, bytes int64) error {
	b, ok := store.VolumeBackups.Get(tx, id)
	if !ok || b.State != Creating {
		return fault.New(fault.Gone, "Backup %s was removed meanwhile.", id)
	}
	c := *b
	c.BlobID, c.Bytes, c.UpdatedAt = blob, bytes, v.now()
	return store.VolumeBackups.Put(tx, &c)
}

// MaySendImage tells whether the host is to make the image of one of its volumes.
func MaySendImage(r store.Reader, host, image model.ID) error {
	for x := range store.Volumes.List(r, "upload", image) {
		if x.Host == host {
			return nil
		}
	}
	return fault.New(fault.Forbidden, "Image %s is not to be made on this host.", image)
}

// Restore fills a volume from a backup: the volume, or where it is "" a new one of the name.
//
// Errors: fault.NotFound; fault.Invalid for another state, or a volume that is too small; fault.OverQuota.
func (v *Volumes) Restore(tx *store.Tx, sc Scope, id, volume model.ID, name string) (*model.VolumeBackup, *model.Volume, error) {
	b, err := GetBackup(tx, sc, id)
	if err != nil {
		return nil, nil, err
	}
	if b.State != Available {
		return nil, nil, fault.New(fault.Invalid, "Invalid backup: Backup status must be available")
	}
	var x *model.Volume
	if volume == "" {
		x, err = v.Create(tx, sc, Spec{ProjectID: b.ProjectID, Name: cmp.Or(name, "restore_backup_"+b.ID), Description: b.Description, BackupID: b.ID, Zone: b.Zone})
	} else {
		x, err = v.change(tx, sc, volume, true, func(x *model.Volume) error {
			switch {
			case x.Status.State != Available && x.Status.State != ErrorRestoring:
				return fault.New(fault.Invalid, "Invalid volume: Volume to be restored to must be available")
			case x.SizeGiB < b.SizeGiB:
				return fault.New(fault.Invalid, "Invalid volume: Volume size %d is too small to restore backup of size %d.", x.SizeGiB, b.SizeGiB)
			}
			x.Fills++
			x.Refill = &model.VolumeSource{BackupID: b.ID}
			x.Status.State, x.Status.Fault = RestoringBackup, nil
			return nil
		})
	}
	if err != nil {
		return nil, nil, err
	}
	tx.Mark(sourceMark(b.ID))
	b, err = v.changeBackup(tx, sc, id, func(b *model.VolumeBackup) error { b.State = Restoring; return nil })
	return b, x, err
}
