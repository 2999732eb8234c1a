// Package volumetest gives tests hosts without storage: what a host's agent does with the volumes
// it is told of, as data says (what fails, what is held), and what it reports.
//
// It follows the store instead of a stream. May import: fault, model, store, volume. For tests and
// benchmarks only.
package volumetest

import (
	"context"
	"reflect"
	"sync"
	"testing"
	"time"

	"yakumo/model"
	"yakumo/store"
	"yakumo/volume"
)

// Config makes a Host.
type Config struct {
	Store   *store.Store
	Volumes *volume.Volumes
	Host    model.ID
	// Fail says what goes wrong with a volume as it is wanted now; nil or a nil fault: nothing.
	Fail func(v *model.Volume) *model.Fault
}

// Host is a fake host.
type Host struct {
	cfg  Config
	mu   sync.Mutex
	held bool
	said map[model.ID]model.VolumeReport
	poke chan struct{}
}

// Start runs a host until the test ends.
func Start(t testing.TB, cfg Config) *Host {
	t.Helper()
	h := &Host{cfg: cfg, said: map[model.ID]model.VolumeReport{}, poke: make(chan struct{}, 1)}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go h.run(ctx, t, done)
	t.Cleanup(func() { cancel(); <-done })
	return h
}

// Hold keeps the host from acting on what it is told, until it is let go.
func (h *Host) Hold(on bool) {
	h.mu.Lock()
	h.held = on
	h.mu.Unlock()
	select {
	case h.poke <- struct{}{}:
	default:
	}
}

func (h *Host) run(ctx context.Context, t testing.TB, done chan struct{}) {
	defer close(done)
	sub := h.cfg.Store.Subscribe(store.Volumes.Kind(), store.VolumeSnapshots.Kind(), store.VolumeBackups.Kind())
	defer sub.Close()
	moved := make(chan struct{}, 1)
	go func() {
		for {
			if _, err := sub.Next(ctx); err != nil {
				return
			}
			select {
			case moved <- struct{}{}:
			default:
			}
		}
	}()
	for {
		select {
		case <-moved:
		case <-h.poke:
		case <-ctx.Done():
			return
		}
		for ctx.Err() == nil {
			if err := h.step(ctx); err == nil {
				break
			} else if ctx.Err() == nil {
				t.Logf("a fake host's report was not taken; again: %v", err)
			}
			select {
			case <-time.After(10 * time.Millisecond):
			case <-ctx.Done():
			}
		}
	}
}

// step reports what differs from what was said.
func (h *Host) step(ctx context.Context) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.held {
		return nil
	}
	snap := h.cfg.Store.Snapshot()
	var reports []model.VolumeReport
	for v := range store.Volumes.List(snap, "host", h.cfg.Host) {
		r := model.VolumeReport{VolumeID: v.ID, Generation: v.Generation}
		if n := v.Relocation; n != nil && n.Host == h.cfg.Host && n.Stage == model.RelocateClearing {
			r.Vacated = n.Number
		} else if n != nil && n.Host == h.cfg.Host {
			r.Placed = n.Number
		}
		switch f := h.fault(v); {
		case v.Host != h.cfg.Host: // it is told of another place alone
		case f != nil:
			r.Fault = f
		case v.Deleted && v.Relocation == nil:
			r.Gone = true
		default:
			r.Ready, r.SizeGiB = true, v.SizeGiB
			if c := v.Change; c != nil && c.Clear {
				r.Cleared = c.Engine
			} else if c != nil {
				r.Copied = c.Engine
			}
		}
		for s := range store.VolumeSnapshots.List(snap, "volume", v.ID) {
			if !s.Deleted && r.Fault == nil || s.State == volume.Available {
				r.Snapshots = append(r.Snapshots, s.ID)
			}
		}
		uploads, err := h.upload(ctx, snap, v, r.Fault)
		if err != nil {
			return err
		}
		if r.Uploads = uploads; !reflect.DeepEqual(h.said[v.ID], r) {
			reports = append(reports, r)
		}
	}
	if err := h.cfg.Volumes.VolumeReports(ctx, h.cfg.Host, reports); err != nil {
		return err
	}
	for _, r := range reports {
		h.said[r.VolumeID] = r
	}
	return nil
}

func (h *Host) fault(v *model.Volume) *model.Fault {
	if h.cfg.Fail == nil {
		return nil
	}
	return h.cfg.Fail(v)
}

// upload gives the bytes of backups and images to the servers, as the link would.
func (h *Host) upload(ctx context.Context, snap store.Snapshot, v *model.Volume, f *model.Fault) ([]model.UploadReport, error) {
	const bytes = 1 << 20
	var out []model.UploadReport
	for b := range store.VolumeBackups.List(snap, "volume", v.ID) {
		if b.State != volume.Creating {
			continue
		}
		if f == nil {
			if _, err := h.cfg.Store.Update(ctx, func(tx *store.Tx) error { return h.cfg.Volumes.Received(tx, b.ID, model.NewID(), bytes) }); err != nil {
				return nil, err
			}
		}
		out = append(out, model.UploadReport{ID: b.ID, Done: f == nil, Bytes: bytes, Fault: f})
	}
	for _, u := range v.Uploads {
		if f == nil {
			if _, err := h.cfg.Store.Update(ctx, func(tx *store.Tx) error {
				old, ok := store.Images.Get(tx, u.ID)
				if !ok || old.Status == model.ImageActive {
					return nil
				}
				img := *old
				img.Status, img.BlobID, img.Size, img.VirtualSize = model.ImageActive, model.NewID(), bytes, int64(v.SizeGiB)<<30
				return store.Images.Put(tx, &img)
			}); err != nil {
				return nil, err
			}
		}
		out = append(out, model.UploadReport{ID: u.ID, Done: f == nil, Bytes: bytes, Fault: f})
	}
	return out, nil
}
