package compute

import (
	"cmp"
	"slices"

	"yakumo/fault"
	"yakumo/model"
	"yakumo/store"
)

// Volumes is what compute needs of the volumes of its servers; *volume.Volumes is one. A use of a volume begins and
// ends in the transaction that changes the server's row, so that the two never disagree.
type Volumes interface {
	// UseVolume reserves a volume for a server and gives the attachment; boot: as its root disk.
	UseVolume(tx *store.Tx, project model.ID, admin bool, id, server model.ID, device string, boot bool) (*model.Volume, model.ID, error)
	// VolumeLimits gives the bounds that the guest's use of it has; nil: none.
	VolumeLimits(r store.Reader, v *model.Volume) (*model.DiskLimits, error)
	// ReimageVolume has it filled with an image once its guest is off, and gives the count of the filling.
	ReimageVolume(tx *store.Tx, id model.ID, img *model.Image, copied model.ImageCopy) (int64, error)
	// VolumeUsed records that the guest has it, VolumeLeaving that it is to let go of it; absent is success.
	VolumeUsed(tx *store.Tx, id, attachment model.ID) error
	VolumeLeaving(tx *store.Tx, id, attachment model.ID) error
	// VolumeReleased ends the use; remove: the volume goes too. Absent is success.
	VolumeReleased(tx *store.Tx, id, attachment model.ID, remove bool) error
	// Elsewhere brings in what the host of a server says of a disk that is to go elsewhere under the guest.
	Elsewhere(tx *store.Tx, server model.ID, r model.DiskReport) error
	// StayVolume ends such a way; fault.Conflict at the moment in which only the guest's host knows how far it is.
	StayVolume(tx *store.Tx, id model.ID) error
}

// still refuses an action while a volume of the server is on its way elsewhere under its guest.
func still(r store.Reader, s *model.Server, action string) error {
	for _, u := range s.Volumes {
		if v, ok := store.Volumes.Get(r, u.VolumeID); ok && v.Relocating() {
			return fault.New(fault.Conflict, "Cannot '%s' instance %s while its volume %s is in migration_status migrating", action, s.ID, v.ID)
		}
	}
	return nil
}

// stay ends what volumes of a server do that is about to end on its host.
func (c *Compute) stay(tx *store.Tx, s *model.Server) error {
	if c.cfg.Volumes == nil {
		return nil
	}
	for _, u := range s.Volumes {
		if err := c.cfg.Volumes.StayVolume(tx, u.VolumeID); err != nil {
			return err
		}
	}
	return nil
}

// MaxVolumes is how many volumes a server has at most: what a bus of disks and a transaction hold.
const MaxVolumes = 26

// NewUse is a volume that a server is to have.
type NewUse struct {
	VolumeID         model.ID
	Device           string // kept where it is free; "": chosen
	Tag              string
	Boot             bool
	DeleteWithServer bool
}

// use reserves a volume and adds it to a server, whose row the caller writes.
func (c *Compute) use(tx *store.Tx, sc Scope, s *model.Server, n NewUse) (*model.VolumeUse, error) {
	if c.cfg.Volumes == nil {
		return nil, fault.New(fault.NotImplemented, "This cloud has no volumes.")
	}
	if len(s.Volumes) >= MaxVolumes {
		return nil, fault.New(fault.Forbidden, "The maximum allowed number of disk devices (%d) to attach to a single instance has been exceeded.", MaxVolumes)
	}
	device := deviceOf(s, n)
	v, att, err := c.cfg.Volumes.UseVolume(tx, sc.ProjectID, sc.Admin, n.VolumeID, s.ID, device, n.Boot)
	if err != nil {
		return nil, err
	}
	limits, err := c.cfg.Volumes.VolumeLimits(tx, v)
	if err != nil {
		return nil, err
	}
	if n.Boot && s.Image.Hardware == nil { // what the volume was made of says what machine it wants
		s.Image.Hardware = model.Hardware(v.ImageMetadata)
		if bad := model.BadFirmware(s.Flavor.Name, v.ImageMetadata["image_id"], s.Flavor.ExtraSpecs, s.Image.Hardware); bad != "" {
			return nil, fault.New(fault.Invalid, "%s", bad)
		}
		if err := possessed(&s.Flavor, s.Image.Hardware); err != nil {
			return nil, err
		}
	}
	s.Volumes = append(slices.Clone(s.Volumes), model.VolumeUse{Limits: limits, VolumeID: v.ID, AttachmentID: att, Device: device, Tag: n.Tag, Boot: n.Boot,
		DeleteWithServer: n.DeleteWithServer, ReadOnly: v.ReadOnly, RequestID: cmp.Or(sc.RequestID, "-")})
	return &s.Volumes[len(s.Volumes)-1], nil
}

// deviceOf chooses the name that a volume has in the guest, as the user sees it: the root is vda, and the others
// follow the disks that the flavor gives.
func deviceOf(s *model.Server, n NewUse) string {
	const root = "/dev/vda"
	if n.Boot {
		return root
	}
	used := map[string]bool{root: true}
	for _, u := range s.Volumes {
		used[u.Device] = true
	}
	if n.Device != "" && !used[n.Device] {
		return n.Device
	}
	skip := 0
	if s.Flavor.Ephemeral > 0 {
		skip++
	}
	if s.Flavor.SwapMiB > 0 {
		skip++
	}
	for letter := 'b' + rune(skip); letter <= 'z'; letter++ {
		if d := "/dev/vd" + string(letter); !used[d] {
			return d
		}
	}
	return "/dev/vdaa" // MaxVolumes keeps it from being taken twice
}

// attachStates are the states in which volumes come and go.
var attachStates = []string{Active, Paused, Stopped, Resized, Shelved, ShelvedOffloaded}

// AttachVolume gives a server one more volume. A server without a host has it at once; otherwise the volume is the
// guest's when its host says so.
//
// Errors: fault.NotFound; fault.Conflict for a wrong state or a lock; those of Volumes.UseVolume.
func (c *Compute) AttachVolume(tx *store.Tx, sc Scope, id model.ID, n NewUse) (*model.Server, *model.VolumeUse, error) {
	var out *model.VolumeUse
	s, err := c.change(tx, sc, id, true, func(s *model.Server) error {
		if err := allow(sc, s, "attach_volume", attachStates, nil); err != nil {
			return err
		}
		if n.Tag != "" && (State(s) == ShelvedOffloaded) {
			return fault.New(fault.Invalid, "Attaching volumes with tags is not supported for a server that is shelved.")
		}
		if slices.ContainsFunc(s.Volumes, func(u model.VolumeUse) bool { return u.VolumeID == n.VolumeID }) {
			return fault.New(fault.Conflict, "Invalid volume: volume %s already attached to instance %s", n.VolumeID, s.ID)
		}
		n.Boot = false
		u, err := c.use(tx, sc, s, n)
		if err != nil {
			return err
		}
		out = u
		if s.Host == "" {
			if err := c.cfg.Volumes.VolumeUsed(tx, u.VolumeID, u.AttachmentID); err != nil {
				return err
			}
			u.RequestID = ""
			return c.done(tx, sc, s, "attach_volume", "compute_attach_volume")
		}
		return c.record(tx, sc, s, "attach_volume")
	})
	return s, out, err
}

// DetachVolume takes a volume from a server. Its use ends when the host says that the guest has let go of it.
//
// Errors: fault.NotFound; fault.Conflict for a wrong state or a lock; fault.Invalid for the root disk.
func (c *Compute) DetachVolume(tx *store.Tx, sc Scope, id, volume model.ID) (*model.Server, error) {
	return c.change(tx, sc, id, true, func(s *model.Server) error {
		at := slices.IndexFunc(s.Volumes, func(u model.VolumeUse) bool { return u.VolumeID == volume })
		if at < 0 {
			return noUse(s, volume)
		}
		if err := allow(sc, s, "detach_volume", attachStates, nil); err != nil {
			return err
		}
		if v, ok := store.Volumes.Get(tx, volume); ok && v.Relocating() {
			return fault.New(fault.Conflict, "Invalid volume: Unable to detach volume. Volume status must be 'in-use' and attach_status must be 'attached' to detach, but it is %s.", v.Status.State)
		}
		s.Volumes = slices.Clone(s.Volumes)
		switch u := &s.Volumes[at]; {
		case u.Boot:
			return fault.New(fault.Invalid, "Cannot detach a root device volume")
		case u.Detaching:
			return fault.New(fault.Invalid, "Invalid volume: Invalid volume: Unable to detach volume. Volume status must be 'in-use' and attach_status must be 'attached' to detach.")
		case s.Host == "":
			if err := c.cfg.Volumes.VolumeReleased(tx, u.VolumeID, u.AttachmentID, false); err != nil {
				return err
			}
			s.Volumes = slices.Delete(s.Volumes, at, at+1)
			return c.done(tx, sc, s, "detach_volume", "compute_detach_volume")
		default:
			u.Detaching, u.RequestID = true, cmp.Or(sc.RequestID, "-")
			if err := c.cfg.Volumes.VolumeLeaving(tx, u.VolumeID, u.AttachmentID); err != nil {
				return err
			}
			return c.record(tx, sc, s, "detach_volume")
		}
	})
}

func noUse(s *model.Server, volume model.ID) error {
	return fault.New(fault.NotFound, "Instance %s is not attached to volume %s", s.ID, volume)
}

// KeepVolume says whether a volume goes with its server (microversion 2.85).
func (c *Compute) KeepVolume(tx *store.Tx, sc Scope, id, volume model.ID, remove bool) (*model.Server, error) {
	return c.change(tx, sc, id, false, func(s *model.Server) error {
		at := slices.IndexFunc(s.Volumes, func(u model.VolumeUse) bool { return u.VolumeID == volume })
		if at < 0 {
			return fault.New(fault.NotFound, "Instance %s is not attached.", s.ID)
		}
		s.Volumes = slices.Clone(s.Volumes)
		s.Volumes[at].DeleteWithServer = remove
		return nil
	})
}

// volumesReported brings in which volumes the guest has. s.Volumes is replaced where it changes.
func (c *Compute) volumesReported(tx *store.Tx, s *model.Server, r *model.ServerReport, newest bool) error {
	var kept []model.VolumeUse
	changed := false
	for _, u := range s.Volumes {
		there := slices.Contains(r.Disks, u.VolumeID)
		switch {
		case u.Detaching && !there && newest && r.Phase == model.PhaseReady:
			if err := c.cfg.Volumes.VolumeReleased(tx, u.VolumeID, u.AttachmentID, false); err != nil {
				return err
			}
			if err := c.finish(tx, s, u.RequestID, "compute_detach_volume"); err != nil {
				return err
			}
			changed = true
			continue
		case !u.Detaching && there && u.RequestID != "":
			if err := c.cfg.Volumes.VolumeUsed(tx, u.VolumeID, u.AttachmentID); err != nil {
				return err
			}
			if err := c.finish(tx, s, u.RequestID, "compute_attach_volume"); err != nil {
				return err
			}
			u.RequestID, changed = "", true
		}
		kept = append(kept, u)
	}
	if changed {
		s.Volumes = kept
	}
	return nil
}

// finish ends an action that runs beside others; one that made the server has its own events.
func (c *Compute) finish(tx *store.Tx, s *model.Server, request, event string) error {
	old := actionOf(tx, s.ID, request)
	if old == nil || old.Action == "create" {
		return nil
	}
	a := *old
	now := c.now()
	a.UpdatedAt = now
	a.Events = append(slices.Clone(old.Events), model.ActionEvent{Event: event, StartedAt: a.StartedAt, FinishedAt: now, Result: Success, Host: s.Host})
	return store.Actions.Put(tx, &a)
}

// releaseVolumes ends the uses of a server that is gone; or only those that its host was to end, where the server has left it.
func (c *Compute) releaseVolumes(tx *store.Tx, s *model.Server, leaving bool) error {
	var kept []model.VolumeUse
	for _, u := range s.Volumes {
		if leaving && !u.Detaching {
			kept = append(kept, u)
			continue
		}
		if err := c.cfg.Volumes.VolumeReleased(tx, u.VolumeID, u.AttachmentID, u.DeleteWithServer && !leaving); err != nil {
			return err
		}
	}
	s.Volumes = kept
	return nil
}

// volumesReady tells whether every volume of a new server is there; the fault says that one never will be.
func (c *Compute) volumesReady(r store.Reader, s *model.Server) (bool, *model.Fault) {
	for _, u := range s.Volumes {
		v, ok := store.Volumes.Get(r, u.VolumeID)
		if !ok || v.Deleted || v.Status.State == "error" {
			f := &model.Fault{Code: 500, Message: "Build of instance " + s.ID + " aborted: Volume " + u.VolumeID + " did not finish being created: its status is error.", At: c.now()}
			if ok && v.Status.Fault != nil {
				f.Details = v.Status.Fault.Message
			}
			return false, f
		}
		if v.Status.State == "creating" || v.Status.State == "downloading" {
			return false, nil
		}
	}
	return true, nil
}

// unbuilt is why a server cannot be built that is no refusal of a host.
type unbuilt struct{ *model.Fault }

// Error serves error.
func (u unbuilt) Error() string { return u.Message }
