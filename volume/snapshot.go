package volume

import (
	"time"

	"yakumo/fault"
	"yakumo/model"
	"yakumo/store"
)

// GetSnapshot gives a snapshot that the scope may see.
func GetSnapshot(r store.Reader, sc Scope, id model.ID) (*model.VolumeSnapshot, error) {
	s, ok := store.VolumeSnapshots.Get(r, id)
	if !ok || !sc.Owns(s.ProjectID) {
		return nil, fault.New(fault.NotFound, "Snapshot %s could not be found.", clip(id))
	}
	return s, nil
}

// NewSnapshot is what a request wants of a new snapshot.
type NewSnapshot struct {
	VolumeID          model.ID
	Name, Description string
	Metadata          map[string]string
	Force             bool // also of a volume that is used
}

// MaxSnapshots is how many snapshots a volume may have: they are told to its host in one row.
const MaxSnapshots = 256

// CreateSnapshot keeps a volume's state of now.
//
// Errors: fault.NotFound; fault.Invalid for another state; fault.OverQuota.
func (v *Volumes) CreateSnapshot(tx *store.Tx, sc Scope, n NewSnapshot) (*model.VolumeSnapshot, error) {
	var out *model.VolumeSnapshot
	_, err := v.change(tx, sc, n.VolumeID, true, func(x *model.Volume) error {
		state := x.Status.State
		if state != Available && !(n.Force && state == InUse) {
			return fault.New(fault.Invalid, "Invalid volume: Volume %s status must be %s, but current status is: %s.", x.ID, Available, state)
		}
		if err := metadataFits(n.Metadata); err != nil {
			return err
		}
		// Others of the same volume are in the order that its row gives.
		if store.VolumeSnapshots.Count(tx, "volume", x.ID) >= MaxSnapshots {
			return fault.New(fault.Invalid, "Invalid volume: Volume %s has %d snapshots, as many as a volume may have.", x.ID, MaxSnapshots)
		}
		if err := v.spend(tx, x.ProjectID, TypeName(tx, x.TypeID), want{QuotaSnapshots: 1, QuotaGigabytes: x.SizeGiB}); err != nil {
			return err
		}
		out = &model.VolumeSnapshot{Meta: model.NewMeta(x.ProjectID, n.Name, v.now()), VolumeID: x.ID, SizeGiB: x.SizeGiB, Metadata: cloneMap(n.Metadata),
			State: Creating, UserID: sc.UserID, RequestID: sc.RequestID, Since: x.Generation + 1}
		out.Description = n.Description
		return store.VolumeSnapshots.Put(tx, out)
	})
	return out, err
}

func (v *Volumes) changeSnapshot(tx *store.Tx, sc Scope, id model.ID, f func(*model.VolumeSnapshot) error) (*model.VolumeSnapshot, error) {
	old, err := GetSnapshot(tx, sc, id)
	if err != nil {
		return nil, err
	}
	s := *old
	if err := f(&s); err != nil {
		return nil, err
	}
	s.Touch(v.now())
	return &s, store.VolumeSnapshots.Put(tx, &s)
}

// UpdateSnapshot changes a snapshot's names and metadata.
func (v *Volumes) UpdateSnapshot(tx *store.Tx, sc Scope, id model.ID, u Update) (*model.VolumeSnapshot, error) {
	return v.changeSnapshot(tx, sc, id, func(s *model.VolumeSnapshot) error {
		u.apply(&s.Meta, &s.Metadata)
		return metadataFits(s.Metadata)
	})
}

// SetSnapshotMetadata lets f make the new metadata of a snapshot from the old, which it may change.
func (v *Volumes) SetSnapshotMetadata(tx *store.Tx, sc Scope, id model.ID, f func(map[string]string) (map[string]string, error)) (*model.VolumeSnapshot, error) {
	return v.changeSnapshot(tx, sc, id, func(s *model.VolumeSnapshot) (err error) {
		if s.Metadata, err = remade(s.Metadata, f); err != nil {
			return err
		}
		return metadataFits(s.Metadata)
	})
}

// ResetSnapshot sets a snapshot's state, without the host's doing anything; of administrators.
func (v *Volumes) ResetSnapshot(tx *store.Tx, id model.ID, state string) (*model.VolumeSnapshot, error) {
	return v.changeSnapshot(tx, Scope{Admin: true}, id, func(s *model.VolumeSnapshot) error {
		if s.Deleted {
			return fault.New(fault.Invalid, "Invalid snapshot: Snapshot %s is being deleted.", s.ID)
		}
		switch state {
		case Available, Creating, Deleting, Errored, ErrorDeleting:
		default:
			return fault.New(fault.Invalid, "Invalid input for field/attribute status. Value: %s. Must specify a valid status.", clip(state))
		}
		s.State = state
		return nil
	})
}

// DeleteSnapshot wants a snapshot gone; force does not ask for its state.
//
// Errors: fault.NotFound; fault.Invalid for another state, or where a volume is being made of it.
func (v *Volumes) DeleteSnapshot(tx *store.Tx, sc Scope, id model.ID, force bool) error {
	old, err := GetSnapshot(tx, sc, id)
	if err != nil {
		return err
	}
	if old.Deleted && old.State == Deleting {
		return nil
	}
	if !force && old.State != Available && old.State != Errored && old.State != ErrorDeleting {
		return fault.New(fault.Invalid, "Invalid snapshot: Snapshot status must be available or error, but current status is: %s.", old.State)
	}
	tx.Guard(sourceMark(id))
	if copied(tx, id) {
		return fault.New(fault.Invalid, "Invalid snapshot: Snapshot %s is being copied to a volume.", id)
	}
	tx.Unmark(sourceMark(id))
	x, ok := store.Volumes.Get(tx, old.VolumeID)
	if !ok {
		return store.VolumeSnapshots.Delete(tx, id)
	}
	n := copyOf(x)
	n.Touch(v.now())
	n.RequestID = sc.RequestID
	if _, there := store.Hosts.Get(tx, n.Host); !there {
		if err := store.VolumeSnapshots.Delete(tx, id); err != nil {
			return err
		}
		return store.Volumes.Put(tx, n)
	}
	s := *old
	s.Deleted, s.State, s.Fault, s.RequestID, s.Since = true, Deleting, nil, sc.RequestID, n.Generation
	s.Touch(v.now())
	if err := store.VolumeSnapshots.Put(tx, &s); err != nil {
		return err
	}
	return store.Volumes.Put(tx, n)
}

// Revert returns a volume to its newest snapshot.
//
// Errors: fault.Invalid for another state, or an older snapshot; fault.Conflict for another size.
func (v *Volumes) Revert(tx *store.Tx, sc Scope, id, snapshot model.ID) (*model.Volume, error) {
	return v.change(tx, sc, id, true, func(x *model.Volume) error {
		s, err := GetSnapshot(tx, sc, snapshot)
		if err != nil {
			return err
		}
		newest, at := model.ID(""), time.Time{}
		for o := range store.VolumeSnapshots.List(tx, "volume", x.ID) {
			if newest == "" || o.CreatedAt.After(at) {
				newest, at = o.ID, o.CreatedAt
			}
		}
		switch {
		case s.VolumeID != x.ID || s.ID != newest:
			return fault.New(fault.Invalid, "Invalid input received: Volume %s can only be reverted to its latest snapshot %s.", x.ID, newest)
		case x.Status.State != Available:
			return fault.New(fault.Invalid, "Invalid input received: Can't revert volume %s: its status must be available, but it is %s.", x.ID, x.Status.State)
		case s.State != Available:
			return fault.New(fault.Invalid, "Invalid input received: Can't revert to snapshot %s: its status must be available, but it is %s.", s.ID, s.State)
		case s.SizeGiB != x.SizeGiB:
			return fault.New(fault.Invalid, "Invalid input received: Can't revert volume %s to its latest snapshot %s. The volume size must be equal to the snapshot size.", x.ID, s.ID)
		}
		c := *s
		c.State = Restoring
		c.Touch(v.now())
		if err := store.VolumeSnapshots.Put(tx, &c); err != nil {
			return err
		}
		x.Fills++
		x.Refill = &model.VolumeSource{SnapshotID: s.ID}
		x.Status.State = Reverting
		return nil
	})
}
