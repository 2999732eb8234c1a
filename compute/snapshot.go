package compute

import (
	"slices"

	"yakumo/fault"
	"yakumo/model"
	"yakumo/store"
)

// CreateImage has the root disk of a server made into an image, which is in the catalogue already.
//
// Errors: fault.NotFound; fault.Conflict where the server is in another state, has a task, or is locked.
func (c *Compute) CreateImage(tx *store.Tx, sc Scope, id, image model.ID) (*model.Server, error) {
	return c.save(tx, sc, id, "createImage", TaskSnapshot, image, 0)
}

// CreateVolumeImage begins an image of a server that boots from a volume: the caller has snapshots made of its volumes in the same transaction, which is all there is to it.
//
// Errors: those of CreateImage.
func (c *Compute) CreateVolumeImage(tx *store.Tx, sc Scope, id model.ID) (*model.Server, error) {
	return c.change(tx, sc, id, false, func(s *model.Server) error {
		if err := allow(sc, s, "createImage", []string{Active, Stopped, Paused, Suspended}, nil); err != nil {
			return err
		}
		return c.done(tx, sc, s, "createImage", "compute_snapshot_instance")
	})
}

// CreateBackup is CreateImage for one of a row of images; when it is there, only the newest keep of its type stay.
func (c *Compute) CreateBackup(tx *store.Tx, sc Scope, id, image model.ID, keep int) (*model.Server, error) {
	if keep < 1 {
		return nil, fault.New(fault.Invalid, "A backup that none is kept of is not made.")
	}
	return c.save(tx, sc, id, "createBackup", TaskBackup, image, keep)
}

func (c *Compute) save(tx *store.Tx, sc Scope, id model.ID, action, task string, image model.ID, keep int) (*model.Server, error) {
	return c.change(tx, sc, id, true, func(s *model.Server) error {
		if err := allow(sc, s, action, []string{Active, Stopped, Paused, Suspended}, nil); err != nil {
			return err
		}
		s.Saving, s.Rotate = append(slices.Clone(s.Saving), image), keep
		return c.begin(tx, sc, s, action, task)
	})
}

// saved takes what a host says of images that it makes of a server, and tells the one whose action is to end now: with a
// text where it failed.
func (c *Compute) saved(tx *store.Tx, s *model.Server, said []model.UploadReport) (done bool, failure string, err error) {
	for _, u := range said {
		at := slices.Index(s.Saving, u.ID)
		if at < 0 {
			continue
		}
		img, there := store.Images.Get(tx, u.ID)
		switch {
		case u.Fault != nil:
			failure = u.Fault.Message
		case u.Done && !there:
			failure = "Image " + u.ID + " could not be found."
		case !u.Done || img.Status == model.ImageQueued || img.Status == model.ImageSaving:
			continue
		}
		done = true
		s.Saving = slices.Delete(slices.Clone(s.Saving), at, at+1)
		s.Touch(c.now())
		switch {
		case failure != "":
			if err := c.cfg.Images.Discard(tx, u.ID); err != nil {
				return false, "", err
			}
			if s.ShelvedImage == u.ID {
				s.ShelvedImage = ""
			}
		case s.Rotate > 0:
			if err := c.cfg.Images.Rotate(tx, u.ID, s.Rotate); err != nil {
				return false, "", err
			}
		}
		s.Rotate = 0
	}
	return done, failure, nil
}

// unsaved removes images that will never be made of a server that goes, and the one that held its disk.
func (c *Compute) unsaved(tx *store.Tx, s *model.Server) error {
	for _, id := range s.Saving {
		if img, ok := store.Images.Get(tx, id); !ok || img.Status == model.ImageActive {
			continue
		}
		if err := c.cfg.Images.Discard(tx, id); err != nil {
			return err
		}
	}
	if s.ShelvedImage == "" {
		return nil
	}
	return c.cfg.Images.Discard(tx, s.ShelvedImage)
}
