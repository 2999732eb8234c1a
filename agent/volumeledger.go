package agent

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"go.etcd.io/bbolt"

	"yakumo/model"
)

// volumeProgress is how far a volume has come that this host works on.
type volumeProgress struct {
	Engine     string `json:"engine"`
	Generation int64  `json:"generation"`     // of the row that was acted on last
	Made       bool   `json:"made,omitempty"` // it is there, filled
	SizeGiB    int    `json:"size,omitempty"`
	Fills      int64  `json:"fills,omitempty"` // fillings done
	// Filling: content is being written over it; until that has ended it is nobody's to read.
	Filling   bool                            `json:"filling,omitempty"`
	Snapshots []model.ID                      `json:"snapshots,omitempty"` // that are there, sorted
	Uploads   map[model.ID]model.UploadReport `json:"uploads,omitempty"`
	Copied    string                          `json:"copied,omitempty"`  // another engine in which it is too, compared
	Cleared   string                          `json:"cleared,omitempty"` // an engine in which nothing of it is any more
	Fault     *model.Fault                    `json:"fault,omitempty"`   // why Generation could not be served
	Gone      bool                            `json:"gone,omitempty"`

	// Seat is that of the row, of a volume that guests here use and another host works on.
	Seat int64 `json:"seat,omitempty"`
	// Placed, Vacated and Refused are of the relocations whose place here is there, is rid of the volume, or cannot be.
	Placed     int64        `json:"placed,omitempty"`
	Vacated    int64        `json:"vacated,omitempty"`
	Refused    int64        `json:"refused,omitempty"`
	PlaceFault *model.Fault `json:"place_fault,omitempty"`
}

func (p *volumeProgress) clone() volumeProgress {
	n := *p
	n.Snapshots, n.Uploads = slices.Clone(p.Snapshots), maps.Clone(p.Uploads)
	return n
}

func (p *volumeProgress) report(id model.ID) model.VolumeReport {
	r := model.VolumeReport{VolumeID: id, Generation: p.Generation, Ready: p.Made && !p.Filling && p.Fault == nil && !p.Gone, SizeGiB: p.SizeGiB, Gone: p.Gone,
		Snapshots: p.Snapshots, Copied: p.Copied, Cleared: p.Cleared, Fault: p.Fault,
		Placed: p.Placed, Vacated: p.Vacated, Refused: p.Refused, PlaceFault: p.PlaceFault}
	for _, u := range slices.Sorted(maps.Keys(p.Uploads)) {
		r.Uploads = append(r.Uploads, p.Uploads[u])
	}
	return r
}

func (l *ledger) loadVolumes(tx *bbolt.Tx) error {
	return tx.Bucket(bucketVolumes).ForEach(func(k, v []byte) error {
		p := new(volumeProgress)
		if err := json.Unmarshal(v, p); err != nil {
			return fmt.Errorf("progress of volume %s: %w", k, err)
		}
		l.volumes[string(k)] = p
		return nil
	})
}

// volume gives a volume's row, nil where there is none.
func (l *ledger) volume(id model.ID) *model.HostVolume {
	v, _ := l.row(model.RowID{Kind: model.RowVolume, Key: id}).(*model.HostVolume)
	return v
}

// volumeIDs gives the volumes that have a row or progress, or have left something here.
func (l *ledger) volumeIDs() map[model.ID]bool {
	l.mu.RLock()
	defer l.mu.RUnlock()
	ids := map[model.ID]bool{}
	for id := range l.rows[model.RowVolume] {
		ids[id] = true
	}
	for id := range l.volumes {
		ids[id] = true
	}
	l.departed(model.RowVolume, ids)
	return ids
}

// volumeOf gives a volume's progress as a copy, and false where it has none yet.
func (l *ledger) volumeOf(id model.ID) (volumeProgress, bool) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if p := l.volumes[id]; p != nil {
		return p.clone(), true
	}
	return volumeProgress{}, false
}

// allVolumes gives every volume's progress; it is shared, so read only.
func (l *ledger) allVolumes() map[model.ID]*volumeProgress {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return maps.Clone(l.volumes)
}

// saveVolume keeps a volume's progress.
func (l *ledger) saveVolume(id model.ID, p volumeProgress) error {
	p = p.clone()
	body, err := json.Marshal(p)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.update(func(tx *bbolt.Tx) error { return tx.Bucket(bucketVolumes).Put([]byte(id), body) }); err != nil {
		return fmt.Errorf("write ledger: %w", err)
	}
	l.volumes[id] = &p
	return nil
}

// forgetVolume drops a volume's progress, and, once nothing of it is here, its departure.
func (l *ledger) forgetVolume(id model.ID, gone bool) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	key := model.RowID{Kind: model.RowVolume, Key: id}.String()
	if _, left := l.departures[key]; l.volumes[id] == nil && !(left && gone) {
		return nil
	}
	err := l.update(func(tx *bbolt.Tx) error {
		if gone {
			if err := tx.Bucket(bucketDepartures).Delete([]byte(key)); err != nil {
				return err
			}
		}
		return tx.Bucket(bucketVolumes).Delete([]byte(id))
	})
	if err != nil {
		return fmt.Errorf("write ledger: %w", err)
	}
	delete(l.volumes, id)
	if gone {
		delete(l.departures, key)
	}
	return nil
}

// ownerOf gives the host that has a volume in a place that guests here have, or are to have, open.
func (l *ledger) ownerOf(volume model.ID, seat int64) (model.HostAt, bool) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if row, ok := l.rows[model.RowVolume][volume].(*model.HostVolume); ok && row.Seat == seat {
		return row.Owner, true
	}
	for _, r := range l.rows[model.RowServer] {
		s, ok := r.(*model.HostServer)
		if !ok {
			continue
		}
		for _, d := range s.Volumes {
			if d.VolumeID == volume && d.To != nil && d.To.Number == seat {
				return d.To.Owner, true
			}
		}
	}
	return model.HostAt{}, false
}

// users gives the servers here that have the volume, or are to have it: not one whose guest waits, off, until it has been filled anew.
func (l *ledger) users(volume model.ID) []model.ID {
	l.mu.RLock()
	defer l.mu.RUnlock()
	var out []model.ID
	for _, r := range l.rows[model.RowServer] {
		s, ok := r.(*model.HostServer)
		if !ok {
			continue
		}
		at := slices.IndexFunc(s.Volumes, func(d model.HostDisk) bool { return d.VolumeID == volume })
		if p := l.progress[s.ID]; at >= 0 && !(s.Volumes[at].Wait && p != nil && p.Rebuilds >= s.Rebuilds) {
			out = append(out, s.ID)
		}
	}
	slices.Sort(out)
	return out
}
