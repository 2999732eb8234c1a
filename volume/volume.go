// Package volume holds the life of block storage: what may be asked of a volume, a snapshot
// or a backup in which state, where a volume's bytes are to be, and what becomes of what its host
// reports. States are Cinder's; one advances only in a request's transaction or on a
// report, so that a process may die between any two.
//
// It owns, reads and writes: volumes, snapshots, backups, types, QoS specs, transfers, the service
// "volume" of quotas. It reads hosts, heartbeats, images and servers. May import: fault, model,
// store, reconcile. Must not import: another part, api, agent, hypervisor, datapath, link.
package volume

import (
	"cmp"
	"log/slog"
	"maps"
	"slices"
	"time"

	"yakumo/fault"
	"yakumo/model"
	"yakumo/store"
)

// Config makes a Volumes.
type Config struct {
	Store *store.Store
	// Engine is that of a type which names none; default "local".
	Engine string
	// Zone is shown for volumes of no other zone; default "nova".
	Zone string
	// Defaults are the quotas of a project that has none of its own; nil: DefaultQuotas.
	Defaults map[string]int
	// Wait is how long the placer waits for a host with the engine before it gives a volume up; default 30 s.
	Wait time.Duration
	// Sweep is how often the sweeper looks; default 1 minute.
	Sweep time.Duration
	Log   *slog.Logger
	// Now is the clock; nil: time.Now.
	Now func() time.Time
}

// Volumes applies the rules. It is safe for concurrent use.
type Volumes struct {
	cfg Config
	log *slog.Logger
	now func() time.Time
}

// New makes a Volumes.
func New(cfg Config) *Volumes {
	cfg.Engine, cfg.Zone = cmp.Or(cfg.Engine, model.EngineLocal), cmp.Or(cfg.Zone, "nova")
	if cfg.Defaults == nil {
		cfg.Defaults = DefaultQuotas()
	}
	cfg.Wait, cfg.Sweep = cmp.Or(cfg.Wait, 30*time.Second), cmp.Or(cfg.Sweep, time.Minute)
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Volumes{cfg: cfg, log: cfg.Log, now: func() time.Time { return cfg.Now().UTC() }}
}

// Zone is the zone of a volume that asks for none.
func (v *Volumes) Zone() string { return v.cfg.Zone }

// States of volumes, snapshots and backups, in Cinder's words.
const (
	Creating         = "creating"
	Available        = "available"
	Reserved         = "reserved"
	Attaching        = "attaching"
	Detaching        = "detaching"
	InUse            = "in-use"
	Maintenance      = "maintenance"
	Deleting         = "deleting"
	AwaitingTransfer = "awaiting-transfer"
	Errored          = "error"
	ErrorDeleting    = "error_deleting"
	BackingUp        = "backing-up"
	RestoringBackup  = "restoring-backup"
	ErrorBackingUp   = "error_backing-up"
	ErrorRestoring   = "error_restoring"
	ErrorExtending   = "error_extending"
	Downloading      = "downloading"
	Uploading        = "uploading"
	Retyping         = "retyping"
	Extending        = "extending"
	Reverting        = "reverting"
	Restoring        = "restoring" // a backup, while a volume is filled from it
	Attached         = "attached"  // an attachment
)

// Scope says on whose behalf a call is made, and in which request.
type Scope struct {
	ProjectID, UserID model.ID
	Admin             bool
	RequestID         string
}

// Owns tells whether the scope may see and change what belongs to the project.
func (sc Scope) Owns(project model.ID) bool {
	return sc.Admin || sc.ProjectID != "" && sc.ProjectID == project
}

// Get gives a volume that the scope may see.
func Get(r store.Reader, sc Scope, id model.ID) (*model.Volume, error) {
	v, ok := store.Volumes.Get(r, id)
	if !ok || !sc.Owns(v.ProjectID) {
		return nil, fault.New(fault.NotFound, "Volume %s could not be found.", clip(id))
	}
	return v, nil
}

// change lets f change a volume that the scope may see. spec true bumps its generation: what its
// host is told has changed.
func (v *Volumes) change(tx *store.Tx, sc Scope, id model.ID, spec bool, f func(*model.Volume) error) (*model.Volume, error) {
	old, err := Get(tx, sc, id)
	if err != nil {
		return nil, err
	}
	n := copyOf(old)
	if err := f(n); err != nil {
		return nil, err
	}
	if spec {
		n.Touch(v.now())
		n.RequestID = sc.RequestID
	}
	n.UpdatedAt = v.now()
	return n, store.Volumes.Put(tx, n)
}

// copyOf gives a copy that may be changed; maps are replaced, never changed in place.
func copyOf(v *model.Volume) *model.Volume {
	n := *v
	n.Attachments, n.Uploads = slices.Clone(v.Attachments), slices.Clone(v.Uploads)
	if v.Relocation != nil {
		r := *v.Relocation
		n.Relocation = &r
	}
	return &n
}

// settled gives the state of a volume that nothing is done to: its attachments tell.
func settled(v *model.Volume) string {
	out := Available
	for _, a := range v.Attachments {
		switch {
		case a.State == Attached:
			return InUse
		case a.State == Detaching:
			out = Detaching
		case a.State == Attaching && out != Detaching:
			out = Attaching
		case out == Available:
			out = Reserved
		}
	}
	return out
}

// clip keeps what a client sent short in an error's text.
func clip(s string) string {
	if len(s) > 64 {
		return s[:64] + "…"
	}
	return s
}

func cloneMap(m map[string]string) map[string]string {
	if len(m) == 0 {
		return nil
	}
	return maps.Clone(m)
}
