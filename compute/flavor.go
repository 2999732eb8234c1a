package compute

import (
	"maps"
	"slices"

	"yakumo/fault"
	"yakumo/model"
	"yakumo/store"
)

// Sees tells whether the scope may see and use the flavor.
func (sc Scope) Sees(f *model.Flavor) bool {
	return sc.Admin || f.Public && !f.Disabled || sc.ProjectID != "" && slices.Contains(f.Access, sc.ProjectID)
}

// GetFlavor gives a flavor that the scope sees.
func GetFlavor(r store.Reader, sc Scope, id model.ID) (*model.Flavor, error) {
	f, ok := store.Flavors.Get(r, id)
	if !ok || !sc.Sees(f) {
		return nil, fault.New(fault.NotFound, "Flavor %s could not be found.", id)
	}
	return f, nil
}

// CreateFlavor adds a flavor. An empty ID gets a UUID.
//
// Errors: fault.Conflict where the id or the name is taken.
func (c *Compute) CreateFlavor(tx *store.Tx, f model.Flavor) (*model.Flavor, error) {
	if f.ID == "" {
		f.ID = model.NewID()
	}
	if _, taken := store.Flavors.Get(tx, f.ID); taken {
		return nil, fault.New(fault.Conflict, "Flavor with ID %s already exists.", f.ID)
	}
	if _, taken := store.Flavors.Holder(tx, f.Name); taken {
		return nil, fault.New(fault.Conflict, "Flavor with name %s already exists.", f.Name)
	}
	f.CreatedAt = c.now()
	return &f, store.Flavors.Put(tx, &f)
}

// ChangeFlavor lets change alter a flavor; maps and slices must be replaced.
func (c *Compute) ChangeFlavor(tx *store.Tx, sc Scope, id model.ID, change func(*model.Flavor) error) (*model.Flavor, error) {
	old, err := GetFlavor(tx, sc, id)
	if err != nil {
		return nil, err
	}
	f := *old
	f.Access = slices.Clone(old.Access)
	if f.ExtraSpecs = maps.Clone(old.ExtraSpecs); f.ExtraSpecs == nil {
		f.ExtraSpecs = map[string]string{}
	}
	if err := change(&f); err != nil {
		return nil, err
	}
	return &f, store.Flavors.Put(tx, &f)
}

// DeleteFlavor removes a flavor. Servers keep the copy that they were made with.
func (c *Compute) DeleteFlavor(tx *store.Tx, sc Scope, id model.ID) error {
	if _, err := GetFlavor(tx, sc, id); err != nil {
		return err
	}
	return store.Flavors.Delete(tx, id)
}
