package network

import (
	"errors"
	"net/netip"
	"slices"
	"strings"

	"yakumo/fault"
	"yakumo/model"
	"yakumo/store"
)

// MaxAddresses is how many prefixes an address group may hold; hosts are told all of them.
const MaxAddresses = 2000

// AddressGroupSpec is what a request says of an address group; nil: it does not say.
type AddressGroupSpec struct {
	ProjectID   *string
	Name        *string
	Description *string
	Addresses   []netip.Prefix // of a new group
}

func addressesMark(id model.ID) string { return "address_group," + id }

// GetAddressGroup gives an address group that the scope sees.
func (n *Network) GetAddressGroup(r store.Reader, sc Scope, id model.ID) (*model.AddressGroup, error) {
	g, ok := store.AddressGroups.Get(r, id)
	if !ok || !sc.Sees(g.ProjectID, g.Sharing) {
		return nil, fault.Coded(fault.NotFound, "AddressGroupNotFound", "Address group %s could not be found.", id)
	}
	return g, nil
}

// CreateAddressGroup makes a set of prefixes.
//
// Errors: fault.Invalid (too many), fault.OverQuota.
func (n *Network) CreateAddressGroup(tx *store.Tx, sc Scope, spec AddressGroupSpec) (*model.AddressGroup, error) {
	project, err := sc.project(spec.ProjectID)
	if err != nil {
		return nil, err
	}
	if err := n.spend(tx, project, QuotaAddresses, 1); err != nil {
		return nil, err
	}
	g := &model.AddressGroup{Meta: model.NewMeta(project, "", n.now())}
	if err := applyMeta(&g.Meta, spec.Name, spec.Description); err != nil {
		return nil, err
	}
	if g.Addresses, err = sortedPrefixes(spec.Addresses); err != nil {
		return nil, err
	}
	return g, store.AddressGroups.Put(tx, g)
}

func applyMeta(m *model.Meta, name, description *string) error {
	if err := errors.Join(checkText("name", name), checkText("description", description)); err != nil {
		return err
	}
	set(&m.Name, name)
	set(&m.Description, description)
	return nil
}

// sortedPrefixes gives the prefixes without the bits outside their masks, each once.
func sortedPrefixes(list []netip.Prefix) ([]netip.Prefix, error) {
	out := make([]netip.Prefix, 0, len(list))
	for _, p := range list {
		out = append(out, p.Masked())
	}
	slices.SortFunc(out, netip.Prefix.Compare)
	out = slices.Compact(out)
	if len(out) > MaxAddresses {
		return nil, invalid("an address group holds at most %d addresses.", MaxAddresses)
	}
	return out, nil
}

// UpdateAddressGroup changes the texts that the spec names.
func (n *Network) UpdateAddressGroup(tx *store.Tx, sc Scope, id model.ID, spec AddressGroupSpec) (*model.AddressGroup, error) {
	return n.changeAddresses(tx, sc, id, func(g *model.AddressGroup) error { return applyMeta(&g.Meta, spec.Name, spec.Description) })
}

// AddAddresses adds prefixes that the group does not hold yet.
//
// Errors: fault.NotFound, fault.Forbidden, fault.Invalid code AddressesAlreadyExist.
func (n *Network) AddAddresses(tx *store.Tx, sc Scope, id model.ID, list []netip.Prefix) (*model.AddressGroup, error) {
	return n.changeAddresses(tx, sc, id, func(g *model.AddressGroup) error {
		var double []string
		for _, p := range list {
			if _, held := slices.BinarySearchFunc(g.Addresses, p.Masked(), netip.Prefix.Compare); held {
				double = append(double, p.Masked().String())
			}
		}
		if len(double) > 0 {
			return fault.Coded(fault.Invalid, "AddressesAlreadyExist", "Addresses %s already exist in the address group %s.", clip(strings.Join(double, ", ")), id)
		}
		var err error
		g.Addresses, err = sortedPrefixes(slices.Concat(g.Addresses, list))
		return err
	})
}

// RemoveAddresses removes prefixes that the group holds.
//
// Errors: fault.NotFound (the group, or code AddressesNotFound), fault.Forbidden.
func (n *Network) RemoveAddresses(tx *store.Tx, sc Scope, id model.ID, list []netip.Prefix) (*model.AddressGroup, error) {
	return n.changeAddresses(tx, sc, id, func(g *model.AddressGroup) error {
		gone, err := sortedPrefixes(list)
		if err != nil {
			return err
		}
		var missing []string
		for _, p := range gone {
			if _, held := slices.BinarySearchFunc(g.Addresses, p, netip.Prefix.Compare); !held {
				missing = append(missing, p.String())
			}
		}
		if len(missing) > 0 {
			return fault.Coded(fault.NotFound, "AddressesNotFound", "Addresses %s not found in the address group %s.", clip(strings.Join(missing, ", ")), id)
		}
		g.Addresses = slices.DeleteFunc(slices.Clone(g.Addresses), func(p netip.Prefix) bool {
			_, goes := slices.BinarySearchFunc(gone, p, netip.Prefix.Compare)
			return goes
		})
		return nil
	})
}

func (n *Network) changeAddresses(tx *store.Tx, sc Scope, id model.ID, change func(*model.AddressGroup) error) (*model.AddressGroup, error) {
	old, err := n.GetAddressGroup(tx, sc, id)
	if err != nil {
		return nil, err
	}
	if !sc.Owns(old.ProjectID) {
		return nil, forbiddenShared("address group")
	}
	g := *old
	if err := change(&g); err != nil {
		return nil, err
	}
	g.Touch(n.now())
	return &g, store.AddressGroups.Put(tx, &g)
}

// DeleteAddressGroup removes an address group that no rule refers to.
//
// Errors: fault.NotFound, fault.Forbidden, fault.Conflict code AddressGroupInUse.
func (n *Network) DeleteAddressGroup(tx *store.Tx, sc Scope, id model.ID) error {
	g, err := n.GetAddressGroup(tx, sc, id)
	if err != nil {
		return err
	}
	if !sc.Owns(g.ProjectID) {
		return forbiddenShared("address group")
	}
	tx.Guard(addressesMark(id))
	if store.SecurityRules.Count(tx, "address_group", id) > 0 || slices.ContainsFunc(DefaultRules(tx), func(r *model.DefaultRule) bool { return r.AddressGroupID == id }) {
		return fault.Coded(fault.Conflict, "AddressGroupInUse", "Address group %s is in use on one or more security group rules.", id)
	}
	if err := unshare(tx, id); err != nil {
		return err
	}
	tx.Unmark(addressesMark(id))
	return store.AddressGroups.Delete(tx, id)
}
