package compute

import (
	"errors"
	"slices"

	"yakumo/fault"
	"yakumo/model"
	"yakumo/store"
)

// Shelve turns a server off and has its root disk made into an image, which is in the catalogue already; "" for a server whose
// root disk is a volume. Then the server leaves its host, at once or when ShelveOffload asks for it (Config.KeepShelved).
//
// Errors of this and the next two: fault.NotFound; fault.Conflict where the server is in another state, has a task, or is locked.
func (c *Compute) Shelve(tx *store.Tx, sc Scope, id, image model.ID) (*model.Server, error) {
	return c.change(tx, sc, id, true, func(s *model.Server) error {
		if err := allow(sc, s, "shelve", []string{Active, Stopped, Paused, Suspended}, nil); err != nil {
			return err
		}
		if err := noTPM(s, "shelve"); err != nil {
			return err
		}
		if err := still(tx, s, "shelve"); err != nil {
			return err
		}
		if image != "" {
			s.Saving = append(slices.Clone(s.Saving), image)
		}
		s.ShelvedImage, s.Power = image, model.PowerOff
		return c.begin(tx, sc, s, "shelve", TaskShelve)
	})
}

// ShelveOffload takes a shelved server off its host.
func (c *Compute) ShelveOffload(tx *store.Tx, sc Scope, id model.ID) (*model.Server, error) {
	return c.change(tx, sc, id, true, func(s *model.Server) error {
		if err := allow(sc, s, "shelveOffload", []string{Shelved}, nil); err != nil {
			return err
		}
		if err := c.begin(tx, sc, s, "shelveOffload", TaskOffload); err != nil {
			return err
		}
		if err := c.end(tx, s, ""); err != nil { // while the server still names the host
			return err
		}
		return c.offload(tx, s)
	})
}

// Unshelve says where a server is to be, of one that has no host; nil: as it was made.
type Unshelve struct {
	Zone *string // "": any
	Host string  // by name, of an administrator; "" any
}

// Unshelve makes a server of a shelved one again, and turns it on. One without a host is placed anew.
//
// More errors: fault.Conflict where a zone or a host is asked for and the server is still on its host, or the two do not fit.
func (c *Compute) Unshelve(tx *store.Tx, sc Scope, id model.ID, to Unshelve) (*model.Server, error) {
	return c.change(tx, sc, id, true, func(s *model.Server) error {
		if err := allow(sc, s, "unshelve", []string{Shelved, ShelvedOffloaded}, nil); err != nil {
			return err
		}
		s.Power = model.PowerRunning
		if s.Shelving == model.Shelved {
			if to.Zone != nil || to.Host != "" {
				return fault.New(fault.Conflict, "Specifying an availability zone or a host when unshelving server %s with status \"%s\" is not supported, status must be SHELVED_OFFLOADED.", s.ID, State(s))
			}
			return c.begin(tx, sc, s, "unshelve", TaskUnshelve)
		}
		if to.Zone != nil {
			s.Zone = *to.Zone
		}
		s.WantHost = to.Host
		for h := range store.Hosts.List(tx, "name", to.Host) {
			if s.Zone != "" && h.Zone != s.Zone {
				return fault.New(fault.Conflict, "Host \"%s\" is not in the availability zone \"%s\".", h.Name, s.Zone)
			}
		}
		s.Status.Phase, s.Status.Failed = model.PhasePlacing, nil
		return c.begin(tx, sc, s, "unshelve", TaskUnshelve)
	})
}

// offload takes a shelved server off its host: what its host may forget is in the image, which the server holds from now on.
func (c *Compute) offload(tx *store.Tx, s *model.Server) error {
	if s.ShelvedImage != "" {
		img := shelvedImage(tx, s)
		if img == nil {
			return fault.New(fault.Conflict, "Instance %s cannot be offloaded: its image %s is not there.", s.ID, s.ShelvedImage)
		}
		s.Image = img.Copy()
		s.Rebuilds++ // a host that it comes back to makes a fresh disk
	}
	if err := errors.Join(c.unplug(tx, s), c.unbind(tx, s)); err != nil {
		return err
	}
	if err := c.releaseVolumes(tx, s, true); err != nil {
		return err
	}
	s.Host, s.Shelving = "", model.Offloaded
	s.Status.Phase, s.Status.Power, s.Status.Rebuilds = model.PhaseShelved, model.PowerOff, s.Rebuilds
	return nil
}

// shelvedImage gives the image that holds the disk of a shelved server, nil where its owner has removed it.
func shelvedImage(r store.Reader, s *model.Server) *model.Image {
	if img, ok := store.Images.Get(r, s.ShelvedImage); ok && img.BlobID != "" && img.Status != model.ImageSaving {
		return img
	}
	return nil
}

// unbind takes the ports of a server off its host.
func (c *Compute) unbind(tx *store.Tx, s *model.Server) error {
	for _, id := range s.Ports {
		if p, ok := store.Ports.Get(tx, id); ok && p.Host == s.Host {
			if _, err := c.cfg.Ports.BindPort(tx, id, ""); err != nil {
				return err
			}
		}
	}
	return nil
}

// unshelved forgets of a server that runs again where it was.
func (c *Compute) unshelved(tx *store.Tx, s *model.Server) error {
	if s.ShelvedImage != "" {
		if err := c.cfg.Images.Discard(tx, s.ShelvedImage); err != nil {
			return err
		}
	}
	s.Shelving, s.ShelvedImage = model.NotShelved, ""
	return nil
}

// reshelve puts a server that no host could start back where it was; text says why.
func (c *Compute) reshelve(tx *store.Tx, s *model.Server, text string) error {
	if err := c.unbind(tx, s); err != nil {
		return err
	}
	if err := c.end(tx, s, text); err != nil {
		return err
	}
	s.Host, s.Power, s.Status.Phase, s.Status.Power, s.Status.Failed, s.Status.Fault = "", model.PowerOff, model.PhaseShelved, model.PowerOff, nil, nil
	s.Touch(c.now())
	return nil
}
