package volume

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"slices"

	"yakumo/fault"
	"yakumo/model"
	"yakumo/store"
)

// GetTransfer gives an offer: who gives sees it, and whoever knows its id may accept it.
func GetTransfer(r store.Reader, sc Scope, id model.ID) (*model.VolumeTransfer, error) {
	t, ok := store.VolumeTransfers.Get(r, id)
	if !ok || !sc.Owns(t.ProjectID) {
		return nil, noTransfer(id)
	}
	return t, nil
}

func noTransfer(id model.ID) error {
	return fault.New(fault.NotFound, "Transfer %s could not be found.", clip(id))
}

// NewKey makes the key of an offer: 16 hexadecimal digits, which only the giver is told.
func NewKey() string {
	b := make([]byte, 8)
	rand.Read(b) // it never fails
	return hex.EncodeToString(b)
}

func transferHash(salt []byte, key string) []byte {
	m := hmac.New(sha256.New, salt)
	m.Write([]byte(key))
	return m.Sum(nil)
}

// CreateTransfer offers a volume to whoever has the key.
//
// Errors: fault.NotFound; fault.Invalid where the volume is not available, or has snapshots that are not to go with it.
func (v *Volumes) CreateTransfer(tx *store.Tx, sc Scope, id model.ID, name, key string, snapshots bool) (*model.VolumeTransfer, error) {
	salt := make([]byte, 16)
	rand.Read(salt) // it never fails
	t := &model.VolumeTransfer{ID: model.NewID(), Name: name, VolumeID: id, Salt: salt, Hash: transferHash(salt, key), Snapshots: snapshots, CreatedAt: v.now()}
	_, err := v.change(tx, sc, id, false, func(x *model.Volume) error {
		if x.Status.State != Available {
			return fault.New(fault.Invalid, "Invalid volume: status must be available")
		}
		for s := range store.VolumeSnapshots.List(tx, "volume", id) {
			if snapshots && s.State != Available {
				return fault.New(fault.Invalid, "Invalid snapshot: snapshot %s status must be available", s.ID)
			}
			if !snapshots {
				return fault.New(fault.Invalid, "Invalid volume: Volume %s has snapshots; they must go with it.", id)
			}
		}
		x.Status.State, t.ProjectID = AwaitingTransfer, x.ProjectID
		err := store.VolumeTransfers.Put(tx, t)
		var taken *store.TakenError
		if errors.As(err, &taken) {
			return fault.New(fault.Invalid, "Invalid volume: status must be available")
		}
		return err
	})
	return t, err
}

// DeleteTransfer takes an offer back.
func (v *Volumes) DeleteTransfer(tx *store.Tx, sc Scope, id model.ID) error {
	t, err := GetTransfer(tx, sc, id)
	if err != nil {
		return err
	}
	if x, ok := store.Volumes.Get(tx, t.VolumeID); ok && x.Status.State == AwaitingTransfer {
		n := copyOf(x)
		n.Status.State, n.UpdatedAt = settled(n), v.now()
		if err := store.Volumes.Put(tx, n); err != nil {
			return err
		}
	}
	return store.VolumeTransfers.Delete(tx, id)
}

// Accept takes an offered volume into the scope's project.
//
// Errors: fault.NotFound; fault.Invalid for another key, or where the volume is not offered any more; fault.OverQuota.
func (v *Volumes) Accept(tx *store.Tx, sc Scope, id model.ID, key string) (*model.VolumeTransfer, error) {
	t, ok := store.VolumeTransfers.Get(tx, id)
	if !ok {
		return nil, noTransfer(id)
	}
	if !hmac.Equal(transferHash(t.Salt, key), t.Hash) {
		return nil, fault.New(fault.Invalid, "Invalid auth key: Attempt to transfer %s with invalid auth key.", id)
	}
	x, ok := store.Volumes.Get(tx, t.VolumeID)
	if !ok || x.Status.State != AwaitingTransfer {
		return nil, fault.New(fault.Invalid, "Invalid volume: Volume status must be awaiting-transfer to be transferred.")
	}
	if t, ok := store.VolumeTypes.Get(tx, x.TypeID); ok && !sees(sc, t) {
		return nil, fault.New(fault.NotFound, "Volume type %s could not be found.", t.ID)
	}
	snapshots := slices.Collect(store.VolumeSnapshots.List(tx, "volume", x.ID))
	w := want{QuotaVolumes: 1, QuotaGigabytes: x.SizeGiB}
	for _, s := range snapshots {
		w[QuotaSnapshots]++
		w[QuotaGigabytes] += s.SizeGiB
	}
	if sc.ProjectID != x.ProjectID {
		if err := v.spend(tx, sc.ProjectID, TypeName(tx, x.TypeID), w); err != nil {
			return nil, err
		}
	}
	n := copyOf(x)
	n.ProjectID, n.UserID, n.Status.State = sc.ProjectID, sc.UserID, settled(n)
	n.Touch(v.now())
	for _, s := range snapshots {
		c := *s
		c.ProjectID, c.UserID = sc.ProjectID, sc.UserID
		c.Touch(v.now())
		if err := store.VolumeSnapshots.Put(tx, &c); err != nil {
			return nil, err
		}
	}
	if err := store.Volumes.Put(tx, n); err != nil {
		return nil, err
	}
	return t, store.VolumeTransfers.Delete(tx, id)
}
