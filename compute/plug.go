package compute

import (
	"maps"
	"slices"

	"yakumo/fault"
	"yakumo/model"
	"yakumo/store"
)

// AttachInterface gives a server a port that is its already (network.AttachPort, or made for it); tag may be empty. Its host
// plugs it into the guest, or has it when the guest is started next.
//
// Errors: fault.NotFound; fault.Conflict where the server is in another state, has a task, or is locked; fault.Invalid where it has
// too many interfaces, or its host does not reach the network.
func (c *Compute) AttachInterface(tx *store.Tx, sc Scope, id, port model.ID, tag string) (*model.Server, error) {
	return c.change(tx, sc, id, true, func(s *model.Server) error {
		if err := pluggable(sc, s, "attach_interface"); err != nil {
			return err
		}
		if len(s.Ports) >= MaxPorts {
			return fault.New(fault.Invalid, "The number of interfaces exceeded the per-server limit %d", MaxPorts)
		}
		if p, ok := store.Ports.Get(tx, port); ok {
			if err := reaches(tx, s.Host, p); err != nil {
				return err
			}
		}
		s.Ports = append(slices.Clone(s.Ports), port)
		if tag != "" {
			s.PortTags = with(s.PortTags, port, tag)
		}
		if _, err := c.cfg.Ports.BindPort(tx, port, s.Host); err != nil {
			return err
		}
		return c.plug(tx, sc, s, "attach_interface", model.Plugging{PortID: port, RequestID: sc.RequestID})
	})
}

// DetachInterface takes a port from a server. The port stays bound until its host says that the guest has lost it.
//
// Errors: fault.NotFound, for a port that the server does not have too; fault.Conflict as of AttachInterface.
func (c *Compute) DetachInterface(tx *store.Tx, sc Scope, id, port model.ID) (*model.Server, error) {
	return c.change(tx, sc, id, true, func(s *model.Server) error {
		if err := pluggable(sc, s, "detach_interface"); err != nil {
			return err
		}
		at := slices.Index(s.Ports, port)
		if at < 0 {
			return fault.New(fault.NotFound, "Port %s could not be found.", port)
		}
		s.Ports = slices.Delete(slices.Clone(s.Ports), at, at+1)
		return c.plug(tx, sc, s, "detach_interface", model.Plugging{PortID: port, RequestID: sc.RequestID, Out: true})
	})
}

func pluggable(sc Scope, s *model.Server, action string) error {
	if err := allow(sc, s, action, []string{Active, Paused, Stopped}, nil); err != nil {
		return err
	}
	if s.Host == "" {
		return fault.New(fault.Conflict, "Cannot '%s' instance %s: it has no host.", action, s.ID)
	}
	return nil
}

// reaches refuses a port of a physical network that a host has no bridge for.
func reaches(r store.Reader, host model.ID, p *model.Port) error {
	w, _ := store.Networks.Get(r, p.NetworkID)
	h, _ := store.Hosts.Get(r, host)
	if w != nil && h != nil && w.PhysicalNetwork != "" && !slices.Contains(h.BridgeMappings, w.PhysicalNetwork) {
		return fault.New(fault.Invalid, "Failed to attach network adapter device: the server's host does not reach the network %s.", w.ID)
	}
	return nil
}

// plug records an action on an interface, which runs beside others: a server has no task meanwhile.
func (c *Compute) plug(tx *store.Tx, sc Scope, s *model.Server, action string, p model.Plugging) error {
	// Of two words on one port, the later counts.
	for _, old := range s.Plugging {
		if old.PortID == p.PortID {
			if err := c.conclude(tx, s, old.RequestID, ""); err != nil {
				return err
			}
		}
	}
	s.Plugging = append(slices.DeleteFunc(slices.Clone(s.Plugging), func(o model.Plugging) bool { return o.PortID == p.PortID }), p)
	return c.record(tx, sc, s, action)
}

// plugged ends what a host says is done of the interfaces of a server. has nil: it says nothing of them.
func (c *Compute) plugged(tx *store.Tx, s *model.Server, has []model.ID, newest, off bool) error {
	for _, p := range s.Plugging {
		if there := slices.Contains(has, p.PortID); !newest || there == p.Out && !(off && has == nil) {
			continue
		}
		if err := c.finishPlug(tx, s, p, ""); err != nil {
			return err
		}
	}
	return nil
}

// finishPlug ends one: with details where it failed, and everything is as it was.
func (c *Compute) finishPlug(tx *store.Tx, s *model.Server, p model.Plugging, details string) error {
	s.Plugging = slices.DeleteFunc(slices.Clone(s.Plugging), func(o model.Plugging) bool { return o == p })
	s.Touch(c.now())
	if p.Out == (details == "") { // it is out
		s.Ports = slices.DeleteFunc(slices.Clone(s.Ports), func(id model.ID) bool { return id == p.PortID })
		if _, ok := s.PortTags[p.PortID]; ok {
			s.PortTags = maps.Clone(s.PortTags)
			delete(s.PortTags, p.PortID)
		}
		if row, ok := store.Ports.Get(tx, p.PortID); ok && row.DeviceID == s.ID {
			if err := c.cfg.Ports.ReleasePort(tx, p.PortID); err != nil {
				return err
			}
		}
	} else if p.Out && !slices.Contains(s.Ports, p.PortID) {
		s.Ports = append(slices.Clone(s.Ports), p.PortID)
	}
	return c.conclude(tx, s, p.RequestID, details)
}

// unplug ends what is under way with the interfaces of a server that leaves its host.
func (c *Compute) unplug(tx *store.Tx, s *model.Server) error {
	for _, p := range s.Plugging {
		if err := c.finishPlug(tx, s, p, ""); err != nil {
			return err
		}
	}
	return nil
}

func with(m map[model.ID]string, key model.ID, value string) map[model.ID]string {
	m = maps.Clone(m)
	if m == nil {
		m = map[model.ID]string{}
	}
	m[key] = value
	return m
}
