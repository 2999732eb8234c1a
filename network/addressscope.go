package network

import (
	"yakumo/fault"
	"yakumo/model"
	"yakumo/store"
)

// AddressScopeSpec is what a request says of an address scope; nil: it does not say.
type AddressScopeSpec struct {
	ProjectID *string
	Name      *string
	IPVersion int   // of a new scope: 4 or 6
	Shared    *bool // with everybody; it cannot be taken back so
}

func scopeMark(id model.ID) string { return "address_scope," + id }

// GetAddressScope gives an address scope that the scope sees.
func (n *Network) GetAddressScope(r store.Reader, sc Scope, id model.ID) (*model.AddressScope, error) {
	a, ok := store.AddressScopes.Get(r, id)
	if !ok || !sc.Sees(a.ProjectID, a.Sharing) {
		return nil, fault.Coded(fault.NotFound, "AddressScopeNotFound", "Address scope %s could not be found.", clip(id))
	}
	return a, nil
}

// CreateAddressScope makes a space in which the addresses of subnet pools are unique.
func (n *Network) CreateAddressScope(tx *store.Tx, sc Scope, spec AddressScopeSpec) (*model.AddressScope, error) {
	project, err := sc.project(spec.ProjectID)
	if err != nil {
		return nil, err
	}
	a := &model.AddressScope{Meta: model.NewMeta(project, "", n.now()), IPVersion: spec.IPVersion}
	if err := applyMeta(&a.Meta, spec.Name, nil); err != nil {
		return nil, err
	}
	if err := n.open(tx, &a.Meta, model.ObjectAddressScope, model.AccessShared, spec.Shared != nil && *spec.Shared, &a.SharedWith); err != nil {
		return nil, err
	}
	return a, store.AddressScopes.Put(tx, a)
}

// UpdateAddressScope changes what the spec names.
//
// Errors: fault.NotFound, fault.Forbidden, fault.Invalid code AddressScopeUpdateError.
func (n *Network) UpdateAddressScope(tx *store.Tx, sc Scope, id model.ID, spec AddressScopeSpec) (*model.AddressScope, error) {
	old, err := n.GetAddressScope(tx, sc, id)
	if err != nil {
		return nil, err
	}
	if !sc.Owns(old.ProjectID) {
		return nil, forbiddenShared("address scope")
	}
	a := *old
	if err := applyMeta(&a.Meta, spec.Name, nil); err != nil {
		return nil, err
	}
	if spec.Shared != nil && *spec.Shared != old.Open() {
		if !*spec.Shared {
			return nil, fault.Coded(fault.Invalid, "AddressScopeUpdateError", "Unable to update address scope %s : Shared address scope can't be unshared.", id)
		}
		if err := n.open(tx, &a.Meta, model.ObjectAddressScope, model.AccessShared, true, &a.SharedWith); err != nil {
			return nil, err
		}
	}
	a.Touch(n.now())
	return &a, store.AddressScopes.Put(tx, &a)
}

// DeleteAddressScope removes an address scope without subnet pools.
//
// Errors: fault.NotFound, fault.Forbidden, fault.Conflict code AddressScopeInUse.
func (n *Network) DeleteAddressScope(tx *store.Tx, sc Scope, id model.ID) error {
	a, err := n.GetAddressScope(tx, sc, id)
	if err != nil {
		return err
	}
	if !sc.Owns(a.ProjectID) {
		return forbiddenShared("address scope")
	}
	tx.Guard(scopeMark(id))
	if store.SubnetPools.Count(tx, "scope", id) > 0 {
		return fault.Coded(fault.Conflict, "AddressScopeInUse", "Unable to complete operation on address scope %s. There are one or more subnet pools in use on the address scope.", id)
	}
	if err := unshare(tx, id); err != nil {
		return err
	}
	tx.Unmark(scopeMark(id))
	return store.AddressScopes.Delete(tx, id)
}

// checkScope refuses that a pool is in its address scope where it may not be there. was: the
// scope that it is in already.
func (n *Network) checkScope(tx *store.Tx, sc Scope, p *model.SubnetPool, was model.ID) error {
	if p.AddressScopeID != was {
		a, err := n.GetAddressScope(tx, sc, p.AddressScopeID)
		if err != nil {
			return err
		}
		if !sc.Sees(a.ProjectID, a.Sharing) || a.ProjectID != p.ProjectID && !a.With(p.ProjectID) {
			return fault.Coded(fault.Invalid, "IllegalSubnetPoolAssociationToAddressScope", "Illegal subnetpool association: subnetpool %s cannot be associated with address scope %s.", p.ID, a.ID)
		}
		if a.IPVersion != p.IPVersion {
			return fault.Coded(fault.Invalid, "IllegalSubnetPoolIpVersionAssociationToAddressScope", "Illegal subnetpool association: subnetpool %s cannot associate with address scope %s because subnetpool ip_version is not %d.", p.ID, a.ID, a.IPVersion)
		}
	}
	// Pools of a scope are put in order: the other's prefixes are not seen before.
	tx.Mark(scopeMark(p.AddressScopeID))
	tx.Guard(scopeMark(p.AddressScopeID))
	for o := range store.SubnetPools.List(tx, "scope", p.AddressScopeID) {
		if o.ID == p.ID {
			continue
		}
		for _, x := range o.Prefixes {
			for _, y := range p.Prefixes {
				if x.Overlaps(y) {
					return fault.Coded(fault.Conflict, "AddressScopePrefixConflict", "Failed to associate address scope: subnetpools within an address scope must have unique prefixes.")
				}
			}
		}
	}
	return nil
}
