package network

import (
	"slices"

	"yakumo/fault"
	"yakumo/model"
	"yakumo/store"
)

// MaxSubPorts is how many subports a trunk may have: they are bound with their parent, in
// one transaction.
const MaxSubPorts = 200

// Types of segmentation of a subport.
const (
	SubPortVLAN    = "vlan"
	SubPortInherit = "inherit" // the VLAN of the port's own network
)

// TrunkSpec is what a request says of a trunk; nil: it does not say.
type TrunkSpec struct {
	ProjectID    *string
	Name         *string
	Description  *string
	AdminStateUp *bool
	PortID       string // the parent, of a new trunk
	SubPorts     []SubPortSpec
}

// SubPortSpec is what a request says of a subport.
type SubPortSpec struct {
	PortID string
	Type   string // SubPortVLAN, SubPortInherit
	VLAN   int    // 1 to 4094, of SubPortVLAN
}

// GetTrunk gives a trunk that the scope sees.
func (n *Network) GetTrunk(r store.Reader, sc Scope, id model.ID) (*model.Trunk, error) {
	t, ok := store.Trunks.Get(r, id)
	if !ok || !sc.Owns(t.ProjectID) {
		return nil, fault.Coded(fault.NotFound, "TrunkNotFound", "Trunk %s could not be found.", clip(id))
	}
	return t, nil
}

// CreateTrunk makes a port the parent of a trunk. A port that is bound, even one whose guest
// runs, will do.
//
// Errors: fault.NotFound (ports), fault.Forbidden, fault.Invalid, fault.OverQuota,
// fault.Conflict (codes TrunkPortInUse, ParentPortInUse, DuplicateSubPort,
// SubPortMtuGreaterThanTrunkPortMtu, SubPortBindingError, PortInUse).
func (n *Network) CreateTrunk(tx *store.Tx, sc Scope, spec TrunkSpec) (*model.Trunk, error) {
	project, err := sc.project(spec.ProjectID)
	if err != nil {
		return nil, err
	}
	if err := n.spend(tx, project, QuotaTrunk, 1); err != nil {
		return nil, err
	}
	old, err := n.trunkPort(tx, sc, spec.PortID)
	if err != nil {
		return nil, err
	}
	if routerOwned(old.DeviceOwner) {
		return nil, parentInUse(old.ID)
	}
	t := &model.Trunk{Meta: model.NewMeta(project, "", n.now()), AdminStateUp: true, PortID: old.ID}
	if err := applyTrunk(t, spec); err != nil {
		return nil, err
	}
	p := *old
	p.TrunkID = t.ID
	p.Touch(n.now())
	if err := store.Ports.Put(tx, &p); err != nil {
		return nil, err
	}
	if err := n.join(tx, sc, t, spec.SubPorts); err != nil {
		return nil, err
	}
	return t, store.Trunks.Put(tx, t)
}

// UpdateTrunk changes what the spec names: texts and the admin state.
func (n *Network) UpdateTrunk(tx *store.Tx, sc Scope, id model.ID, spec TrunkSpec) (*model.Trunk, error) {
	old, err := n.GetTrunk(tx, sc, id)
	if err != nil {
		return nil, err
	}
	t := *old
	if err := applyTrunk(&t, spec); err != nil {
		return nil, err
	}
	t.Touch(n.now())
	return &t, store.Trunks.Put(tx, &t)
}

func applyTrunk(t *model.Trunk, spec TrunkSpec) error {
	set(&t.AdminStateUp, spec.AdminStateUp)
	return retext(&t.Meta, spec.Name, spec.Description)
}

// DeleteTrunk takes a trunk apart: its ports stay, the subports without a host.
//
// Errors: fault.NotFound, fault.Conflict code TrunkDisabled.
func (n *Network) DeleteTrunk(tx *store.Tx, sc Scope, id model.ID) error {
	t, err := n.manageTrunk(tx, sc, id)
	if err != nil {
		return err
	}
	for _, s := range t.SubPorts {
		if err := n.part(tx, s.PortID); err != nil {
			return err
		}
	}
	if old, ok := store.Ports.Get(tx, t.PortID); ok {
		p := *old
		p.TrunkID = ""
		p.Touch(n.now())
		if err := store.Ports.Put(tx, &p); err != nil {
			return err
		}
	}
	return store.Trunks.Delete(tx, id)
}

// AddSubPorts adds ports to a trunk; they go to the parent's host with it. For the errors
// see CreateTrunk, and fault.Conflict code TrunkDisabled.
func (n *Network) AddSubPorts(tx *store.Tx, sc Scope, id model.ID, specs []SubPortSpec) (*model.Trunk, error) {
	old, err := n.manageTrunk(tx, sc, id)
	if err != nil {
		return nil, err
	}
	t := *old
	t.SubPorts = slices.Clone(old.SubPorts)
	if err := n.join(tx, sc, &t, specs); err != nil {
		return nil, err
	}
	t.Touch(n.now())
	return &t, store.Trunks.Put(tx, &t)
}

// RemoveSubPorts takes ports out of a trunk; they have no host then.
//
// Errors: fault.NotFound (codes TrunkNotFound, SubPortNotFound), fault.Conflict code TrunkDisabled.
func (n *Network) RemoveSubPorts(tx *store.Tx, sc Scope, id model.ID, ports []model.ID) (*model.Trunk, error) {
	old, err := n.manageTrunk(tx, sc, id)
	if err != nil {
		return nil, err
	}
	t := *old
	t.SubPorts = slices.Clone(old.SubPorts)
	for _, port := range ports {
		i := slices.IndexFunc(t.SubPorts, func(s model.SubPort) bool { return s.PortID == port })
		if i < 0 {
			return nil, fault.Coded(fault.NotFound, "SubPortNotFound", "SubPort on trunk %s with parent port %s could not be found: %s is none of its subports.", id, t.PortID, clip(port))
		}
		t.SubPorts = slices.Delete(t.SubPorts, i, i+1)
		if err := n.part(tx, port); err != nil {
			return nil, err
		}
	}
	t.Touch(n.now())
	return &t, store.Trunks.Put(tx, &t)
}

// manageTrunk gives a trunk that may be changed.
func (n *Network) manageTrunk(tx *store.Tx, sc Scope, id model.ID) (*model.Trunk, error) {
	t, err := n.GetTrunk(tx, sc, id)
	if err == nil && !t.AdminStateUp {
		err = fault.Coded(fault.Conflict, "TrunkDisabled", "Trunk %s is currently disabled.", id)
	}
	return t, err
}

func parentInUse(port model.ID) error {
	return fault.Coded(fault.Conflict, "ParentPortInUse", "Port %s is currently in use and is not eligible for use as a parent port.", port)
}

// trunkPort gives a port of the scope that is in no trunk.
func (n *Network) trunkPort(tx *store.Tx, sc Scope, id model.ID) (*model.Port, error) {
	p, err := n.GetPort(tx, sc, id)
	switch {
	case err != nil:
		return nil, err
	case !sc.Owns(p.ProjectID):
		return nil, forbidden("another project's port")
	case p.ParentID != "":
		return nil, fault.Coded(fault.Conflict, "TrunkPortInUse", "Port %s is in use by another trunk.", id)
	case p.TrunkID != "":
		return nil, parentInUse(id)
	}
	return p, nil
}

// join makes ports subports of the trunk, whose row the caller puts.
func (n *Network) join(tx *store.Tx, sc Scope, t *model.Trunk, specs []SubPortSpec) error {
	parent, ok := store.Ports.Get(tx, t.PortID)
	if !ok {
		return fault.Coded(fault.NotFound, "PortNotFound", "Port %s could not be found.", t.PortID)
	}
	if len(t.SubPorts)+len(specs) > MaxSubPorts {
		return invalid("a trunk has at most %d subports.", MaxSubPorts)
	}
	mtu := networkOf(tx, parent).MTU
	for _, spec := range specs {
		if spec.PortID == t.PortID {
			return parentInUse(spec.PortID)
		}
		old, err := n.trunkPort(tx, sc, spec.PortID)
		if err != nil {
			return err
		}
		w := networkOf(tx, old)
		vlan, err := spec.vlan(w)
		switch {
		case err != nil:
			return err
		case old.DeviceID != "" || routerOwned(old.DeviceOwner):
			return fault.Coded(fault.Conflict, "PortInUse", "Unable to complete operation on port %s for network %s. Port already has an attached device %s.", old.ID, old.NetworkID, old.DeviceID)
		case w.MTU > mtu:
			return fault.Coded(fault.Conflict, "SubPortMtuGreaterThanTrunkPortMtu", "MTU %d of subport %s cannot be greater than MTU %d of trunk %s.", w.MTU, old.ID, mtu, t.PortID)
		case old.Host != "" && old.Host != parent.Host:
			return bindingError(old.ID, t.ID)
		case slices.ContainsFunc(t.SubPorts, func(s model.SubPort) bool { return s.VLAN == vlan }):
			return fault.Coded(fault.Conflict, "DuplicateSubPort", "segmentation_type %s and segmentation_id %d already in use on trunk %s.", SubPortVLAN, vlan, t.ID)
		}
		p := *old
		p.TrunkID, p.ParentID, p.VLAN, p.DeviceOwner, p.DeviceID = t.ID, t.PortID, vlan, model.OwnerSubPort, t.ID
		p.Host, p.NextHost, p.Status = parent.Host, parent.NextHost, model.PortStatus{State: model.PortDown}
		p.Touch(n.now())
		if err := store.Ports.Put(tx, &p); err != nil {
			return err
		}
		t.SubPorts = append(t.SubPorts, model.SubPort{PortID: p.ID, VLAN: vlan})
	}
	return nil
}

// vlan gives the tag that a subport of the network gets.
func (s SubPortSpec) vlan(w *model.Network) (uint16, error) {
	switch s.Type {
	case SubPortVLAN:
		if s.VLAN < model.MinVLAN || s.VLAN > model.MaxVLAN {
			return 0, invalid("Segmentation ID '%d' is not in range", s.VLAN)
		}
		return uint16(s.VLAN), nil
	case SubPortInherit:
		if w.Type != model.NetworkVLAN {
			return 0, invalid("segmentation_type '%s' needs a network of the type vlan: the network %s of port %s is none.", SubPortInherit, w.ID, s.PortID)
		}
		return w.VLAN, nil
	}
	return 0, invalid("Unknown segmentation_type '%s'", clip(s.Type))
}

// part makes a subport a port as any other.
func (n *Network) part(tx *store.Tx, port model.ID) error {
	old, ok := store.Ports.Get(tx, port)
	if !ok {
		return nil
	}
	p := *old
	p.TrunkID, p.ParentID, p.VLAN, p.DeviceOwner, p.DeviceID = "", "", 0, "", ""
	n.bind(&p, "")
	p.Touch(n.now())
	return store.Ports.Put(tx, &p)
}

// follow binds the subports of a parent that was bound, prepared or unbound, to where it is now.
func (n *Network) follow(tx *store.Tx, parent *model.Port) error {
	if parent.TrunkID == "" || parent.ParentID != "" {
		return nil
	}
	t, ok := store.Trunks.Get(tx, parent.TrunkID)
	if !ok {
		return nil
	}
	for _, s := range t.SubPorts {
		old, ok := store.Ports.Get(tx, s.PortID)
		if !ok || old.Host == parent.Host && old.NextHost == parent.NextHost {
			continue
		}
		p := *old
		n.bind(&p, parent.Host)
		p.NextHost = parent.NextHost
		p.Touch(n.now())
		if err := store.Ports.Put(tx, &p); err != nil {
			return err
		}
	}
	return nil
}

func bindingError(port, trunk model.ID) error {
	return fault.Coded(fault.Conflict, "SubPortBindingError", "Failed to set port binding for port %s on trunk %s.", port, trunk)
}

// inTrunk refuses to delete a port that a trunk needs.
func inTrunk(p *model.Port) error {
	switch {
	case p.ParentID != "":
		return fault.Coded(fault.Conflict, "PortInUseAsSubPort", "Port %s is currently a subport for trunk %s.", p.ID, p.TrunkID)
	case p.TrunkID != "":
		return fault.Coded(fault.Conflict, "PortInUseAsTrunkParent", "Port %s is currently a parent port for trunk %s.", p.ID, p.TrunkID)
	}
	return nil
}

// networkOf gives the port's network; a port cannot outlive it.
func networkOf(r store.Reader, p *model.Port) *model.Network {
	w, ok := store.Networks.Get(r, p.NetworkID)
	if !ok {
		return &model.Network{}
	}
	return w
}

// TrunkState tells what has become of a trunk: DOWN without a host, ACTIVE when all its ports
// are wired, BUILD until then, ERROR where its parent cannot be wired and DEGRADED where a
// subport cannot.
func TrunkState(r store.Reader, t *model.Trunk) string {
	parent, ok := store.Ports.Get(r, t.PortID)
	switch {
	case !ok || !parent.Bound():
		return model.PortDown
	case parent.Status.State == model.PortError:
		return model.PortError
	}
	state := model.PortActive
	if parent.Status.State != model.PortActive {
		state = model.PortBuild
	}
	for _, s := range t.SubPorts {
		if p, ok := store.Ports.Get(r, s.PortID); ok {
			switch {
			case p.Status.State == model.PortError:
				return "DEGRADED"
			case p.Status.State != model.PortActive:
				state = model.PortBuild
			}
		}
	}
	return state
}
