package volume

import (
	"context"

	"yakumo/model"
	"yakumo/reconcile"
	"yakumo/store"
)

// Sweeper ends what no host will end: deleted volumes and snapshots, and what is left of relocations, whose host was removed from the cloud.
type Sweeper struct{ v *Volumes }

// Sweeper gives the controller.
func (v *Volumes) Sweeper() *Sweeper { return &Sweeper{v} }

// Name serves reconcile.Controller.
func (*Sweeper) Name() string { return "volume-sweep" }

// Reads serves reconcile.Controller.
func (*Sweeper) Reads() []store.Kind { return []store.Kind{store.Hosts.Kind()} }

// lost tells whether a volume has a relocation of which a removed host would have to say something.
func (p *Sweeper) lost(r store.Reader, x *model.Volume) bool {
	if x.Relocation == nil || x.Relocation.Stage == model.RelocateTurning {
		return false
	}
	_, there := store.Hosts.Get(r, x.Relocation.Host)
	return !there
}

// Reconcile sweeps.
func (p *Sweeper) Reconcile(ctx context.Context, snap store.Snapshot, w reconcile.Writer) (reconcile.Result, error) {
	for x := range store.Volumes.List(snap, "state", Deleting) {
		if _, there := store.Hosts.Get(snap, x.Host); there || !x.Deleted {
			continue
		}
		if _, err := w.Update(ctx, func(tx *store.Tx) error {
			x, ok := store.Volumes.Get(tx, x.ID)
			if !ok || !x.Deleted {
				return nil
			}
			if _, there := store.Hosts.Get(tx, x.Host); there {
				return nil
			}
			return p.v.gone(tx, x)
		}); err != nil {
			return reconcile.Result{}, err
		}
	}
	for x := range store.Volumes.All(snap) {
		if !p.lost(snap, x) {
			continue
		}
		if _, err := w.Update(ctx, func(tx *store.Tx) error {
			old, ok := store.Volumes.Get(tx, x.ID)
			if !ok || !p.lost(tx, old) {
				return nil
			}
			x := copyOf(old)
			if x.Relocating() {
				p.v.notRelocated(x, &model.Fault{Code: 500, Message: "The host to which the volume was to go was removed."})
			}
			x.Relocation = nil
			x.Touch(p.v.now())
			return store.Volumes.Put(tx, x)
		}); err != nil {
			return reconcile.Result{}, err
		}
	}
	for s := range store.VolumeSnapshots.All(snap) {
		x, ok := store.Volumes.Get(snap, s.VolumeID)
		if ok {
			if _, there := store.Hosts.Get(snap, x.Host); there || !s.Deleted {
				continue
			}
		}
		if _, err := w.Update(ctx, func(tx *store.Tx) error { return store.VolumeSnapshots.Delete(tx, s.ID) }); err != nil {
			return reconcile.Result{}, err
		}
	}
	return reconcile.Result{After: p.v.cfg.Sweep}, nil
}
