package agent

import (
	"encoding/binary"
	"encoding/json"
	"fmt"

	"go.etcd.io/bbolt"

	"yakumo/model"
)

// departure says how a server, or a volume that this host worked on, came to have no row here any more. It stays until nothing of it is
// left here. What has neither row nor departure was never told to this ledger.
type departure struct {
	// Ordered: the store knew that the host had been told of it, and took it away. Else nobody ever decided that it should go.
	Ordered bool            `json:"ordered,omitempty"`
	Row     json.RawMessage `json:"row,omitempty"` // as it was last, of what was not ordered
}

var (
	bucketSince      = []byte("since")      // row → generation of the batch that it came in
	bucketDepartures = []byte("departures") // row → departure
)

func (l *ledger) loadDepartures(tx *bbolt.Tx) error {
	if tx.Bucket(bucketSince) == nil { // of a version that did not know it: what has come so far counts as known to the store
		b, err := tx.CreateBucket(bucketSince)
		if err != nil {
			return err
		}
		for _, rows := range l.rows {
			for _, r := range rows {
				if holds(r) {
					if err := b.Put([]byte(r.RowID().String()), make([]byte, 8)); err != nil {
						return err
					}
				}
			}
		}
	}
	err := tx.Bucket(bucketSince).ForEach(func(k, v []byte) error {
		if len(v) != 8 {
			return fmt.Errorf("since when %s is here: %d bytes", k, len(v))
		}
		l.since[string(k)] = int64(binary.BigEndian.Uint64(v))
		return nil
	})
	if err != nil {
		return err
	}
	b, err := tx.CreateBucketIfNotExists(bucketDepartures)
	if err != nil {
		return err
	}
	return b.ForEach(func(k, v []byte) error {
		var d departure
		if err := json.Unmarshal(v, &d); err != nil {
			return fmt.Errorf("departure of %s: %w", k, err)
		}
		l.departures[string(k)] = d
		return nil
	})
}

// holds tells whether a row has the host keep data: nil has not.
func holds(r model.HostRow) bool {
	switch r := r.(type) {
	case *model.HostServer:
		return true
	case *model.HostVolume:
		return r.Mine
	}
	return false
}

// turnover is what a batch does to what the host keeps data of: rows that come, and departures.
type turnover struct {
	since map[string]int64
	left  map[string]departure
	back  []string // has a row again: its departure is no more
}

// weigh finds what a batch, with removes as those that it comes to, means for what the host keeps data of. The caller holds mu, and
// rows are as before the batch.
func (l *ledger) weigh(b *model.HostBatch, removes []model.RowID) (turnover, error) {
	t := turnover{since: map[string]int64{}, left: map[string]departure{}}
	leaves := func(old model.HostRow) error {
		key := old.RowID().String()
		d := departure{Ordered: l.since[key] <= b.Told}
		if !d.Ordered {
			var err error
			if d.Row, err = json.Marshal(old); err != nil {
				return err
			}
		}
		t.left[key] = d
		return nil
	}
	for _, id := range removes {
		if old := l.rows[id.Kind][id.Key]; holds(old) {
			if err := leaves(old); err != nil {
				return t, err
			}
		}
	}
	for _, r := range b.Upserts {
		id := r.RowID()
		old := l.rows[id.Kind][id.Key]
		switch was, is := holds(old), holds(r); {
		case was && !is:
			if err := leaves(old); err != nil {
				return t, err
			}
		case !was && is:
			t.since[id.String()] = b.Generation
			// One whose removal is under way is removed to the end before it is begun anew.
			if p := l.progress[id.Key]; id.Kind != model.RowServer || p == nil || !p.Unwired {
				t.back = append(t.back, id.String())
			}
		}
	}
	return t, nil
}

// write puts it on disk, and keep, once it is there, in memory.
func (t *turnover) write(tx *bbolt.Tx) error {
	since, departures := tx.Bucket(bucketSince), tx.Bucket(bucketDepartures)
	for key, d := range t.left {
		body, err := json.Marshal(d)
		if err != nil {
			return err
		}
		if err := departures.Put([]byte(key), body); err != nil {
			return err
		}
		if err := since.Delete([]byte(key)); err != nil {
			return err
		}
	}
	for key, generation := range t.since {
		if err := since.Put([]byte(key), binary.BigEndian.AppendUint64(nil, uint64(generation))); err != nil {
			return err
		}
	}
	for _, key := range t.back {
		if err := departures.Delete([]byte(key)); err != nil {
			return err
		}
	}
	return nil
}

func (t *turnover) keep(l *ledger) {
	for key, d := range t.left {
		l.departures[key] = d
		delete(l.since, key)
	}
	for key, generation := range t.since {
		l.since[key] = generation
	}
	for _, key := range t.back {
		delete(l.departures, key)
	}
}

// departureOf gives the departure of what has left; the zero value where there is none.
func (l *ledger) departureOf(kind model.RowKind, id model.ID) departure {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.departures[model.RowID{Kind: kind, Key: id}.String()]
}

// departed gives the ids of a kind that have left and are not forgotten. The caller holds mu.
func (l *ledger) departed(kind model.RowKind, ids map[model.ID]bool) {
	prefix := string(kind) + "/"
	for key := range l.departures {
		if len(key) > len(prefix) && key[:len(prefix)] == prefix {
			ids[key[len(prefix):]] = true
		}
	}
}
