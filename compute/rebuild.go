package compute

import (
	"maps"
	"reflect"
	"slices"

	"yakumo/fault"
	"yakumo/model"
	"yakumo/store"
)

// Rebuild is what a request wants of a rebuilt server; nil: as it is.
type Rebuild struct {
	Image *model.Image
	Copy  model.ImageCopy
	Key   *Key // nil: as it is
	Update
	Metadata *map[string]string
	UserData *string // base64; "" takes it away
	// AdminPass is told by the config drive, where the server has one.
	AdminPass string
	// Reimage allows another root disk for a server whose root disk is a volume (microversion 2.93).
	Reimage bool
}

// Key is the key pair that a rebuilt server gets; empty: none.
type Key struct{ Name, Public string }

// VolumeBacked tells whether the root disk of a server is a volume.
func VolumeBacked(s *model.Server) bool {
	for _, v := range s.Volumes {
		if v.Boot {
			return true
		}
	}
	return false
}

// Rebuild gives a server a fresh root disk of an image. One that was off is off afterwards.
//
// Errors: fault.NotFound; fault.Conflict for a wrong state, a task or a lock; fault.Invalid where the flavor, or a volume that is the root disk, is too small for
// the image, or such a volume was made of another and Reimage is not set; fault.OverQuota (metadata_items).
func (c *Compute) Rebuild(tx *store.Tx, sc Scope, id model.ID, r Rebuild) (*model.Server, error) {
	return c.change(tx, sc, id, true, func(s *model.Server) error {
		if err := allow(sc, s, "rebuild", []string{Active, Stopped, Errored}, nil); err != nil {
			return err
		}
		if s.Host == "" {
			return fault.New(fault.Conflict, "Cannot 'rebuild' instance %s: it has no host.", s.ID)
		}
		backed := VolumeBacked(s)
		was, cpus, paging := s.Load(), processors(s), pagingOf(s, &s.Flavor)
		if backed {
			if err := c.reimage(tx, s, &r); err != nil {
				return err
			}
		} else if err := fits(&s.Flavor, r.Image); err != nil {
			return err
		}
		if s.Container != containerized(r.Image) {
			return fault.New(fault.Invalid, "Image %s is unacceptable: a container is rebuilt from an image for containers (img_hv_type=lxc), and nothing else is.", r.Image.ID)
		}
		if s.Container {
			if err := archived(&s.Flavor, r.Image); err != nil {
				return err
			}
		}
		if err := possessed(&s.Flavor, r.Copy.Hardware); err != nil {
			return err
		}
		next := *s
		if !backed {
			next.Image = r.Copy
		}
		// Its host was chosen for what it is.
		if now := next.Load(); now.PCPUs != was.PCPUs || now.PagesMiB != was.PagesMiB || !reflect.DeepEqual(processors(&next), cpus) || !reflect.DeepEqual(pagingOf(&next, &next.Flavor), paging) {
			return fault.New(fault.Invalid, "An instance's NUMA topology cannot be changed as part of a rebuild. The image provided is invalid for this instance.")
		}
		if !backed || r.Reimage {
			if err := startable(tx, s, r.Copy); err != nil {
				return err
			}
		}
		if r.Metadata != nil {
			if limit := c.Quota(tx, s.ProjectID)[QuotaMetadata]; limit >= 0 && len(*r.Metadata) > limit {
				return fault.New(fault.OverQuota, "Quota exceeded, too many metadata items.")
			}
			s.Metadata = maps.Clone(*r.Metadata)
		}
		r.apply(s)
		if r.Key != nil {
			s.KeyName, s.PublicKey = r.Key.Name, r.Key.Public
		}
		if r.UserData != nil {
			s.UserData = *r.UserData
		}
		if !backed {
			s.ImageID, s.Image, s.Arch = r.Image.ID, r.Copy, archOf(r.Image)
		}
		s.Rebuilds++
		c.tellPass(s, r.AdminPass)
		if State(s) == Errored {
			s.Power = model.PowerRunning
		}
		s.Status.Fault, s.Status.Phase = nil, model.PhaseReady
		return c.begin(tx, sc, s, "rebuild", TaskRebuild)
	})
}

// startable refuses an image that the server's host has no firmware or TPM for, or that asks for none that there is.
func startable(tx *store.Tx, s *model.Server, img model.ImageCopy) error {
	if bad := model.BadFirmware(s.Flavor.Name, img.ImageID, s.Flavor.ExtraSpecs, img.Hardware); bad != "" {
		return fault.New(fault.Invalid, "%s", bad)
	}
	h, ok := store.Hosts.Get(tx, s.Host)
	if !ok {
		return nil
	}
	if why := model.FirmwareOf(s.Flavor.ExtraSpecs, img.Hardware).Lacking(h.Capacity.UEFI, h.Capacity.SecureBoot); why != "" {
		return fault.New(fault.Invalid, "Image %s is unacceptable: the server's host cannot start it: %s.", img.ImageID, why)
	}
	if why := model.TPMOf(s.Flavor.ExtraSpecs, img.Hardware).Lacking(h.Capacity.TPM); why != "" {
		return fault.New(fault.Invalid, "Image %s is unacceptable: the server's host cannot start it: %s.", img.ImageID, why)
	}
	return nil
}

// reimage has the volume that a server boots from filled with the image: since microversion 2.93. Before, the volume stays as it is, and the image has to be the
// one that it was made of.
func (c *Compute) reimage(tx *store.Tx, s *model.Server, r *Rebuild) error {
	at := slices.IndexFunc(s.Volumes, func(u model.VolumeUse) bool { return u.Boot })
	v, ok := store.Volumes.Get(tx, s.Volumes[at].VolumeID)
	switch {
	case !r.Reimage && (!ok || v.ImageMetadata["image_id"] != r.Image.ID):
		return fault.New(fault.Invalid, "Unable to rebuild with a different image for a volume-backed server.")
	case !r.Reimage:
		return nil
	case !ok:
		return noUse(s, s.Volumes[at].VolumeID)
	case s.Flavor.MemoryMiB < r.Image.MinRAMMiB:
		return fault.New(fault.Invalid, "Flavor's memory is too small for requested image.")
	}
	fill, err := c.cfg.Volumes.ReimageVolume(tx, v.ID, r.Image, r.Copy)
	if err != nil {
		return err
	}
	s.Image.Hardware = r.Copy.Hardware
	s.Volumes = slices.Clone(s.Volumes)
	s.Volumes[at].Fill = fill
	return nil
}

// Rescue starts a server from a fresh disk of an image, its own disk beside it. The password is told by the config drive, where the server has one.
//
// Errors: fault.NotFound; fault.Conflict for a wrong state, a task or a lock; fault.Invalid where the flavor is too small for the
// image.
func (c *Compute) Rescue(tx *store.Tx, sc Scope, id model.ID, img *model.Image, copied model.ImageCopy, password string) (*model.Server, error) {
	return c.change(tx, sc, id, true, func(s *model.Server) error {
		if err := allow(sc, s, "rescue", []string{Active, Stopped, Errored}, nil); err != nil {
			return err
		}
		if err := noTPM(s, "rescue"); err != nil {
			return err
		}
		if s.Host == "" {
			return fault.New(fault.Conflict, "Cannot 'rescue' instance %s: it has no host.", s.ID)
		}
		if s.Flavor.MemoryMiB < img.MinRAMMiB {
			return fault.New(fault.Invalid, "Flavor's memory is too small for requested image.")
		}
		if err := startable(tx, s, copied); err != nil {
			return err
		}
		// The generation that this change leads to was never a rescue's before.
		s.Rescue = &model.Rescue{ImageID: img.ID, Image: copied, Revision: s.Generation + 1}
		s.Power, s.Status.Phase, s.Status.Fault = model.PowerRunning, model.PhaseReady, nil
		c.tellPass(s, password)
		return c.begin(tx, sc, s, "rescue", TaskRescue)
	})
}

// Unrescue starts a rescued server from its own disk again.
func (c *Compute) Unrescue(tx *store.Tx, sc Scope, id model.ID) (*model.Server, error) {
	return c.change(tx, sc, id, true, func(s *model.Server) error {
		if err := allow(sc, s, "unrescue", []string{Rescued}, nil); err != nil {
			return err
		}
		s.Rescue, s.Power = nil, model.PowerRunning
		return c.begin(tx, sc, s, "unrescue", TaskUnrescue)
	})
}
