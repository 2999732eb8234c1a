package identity

import (
	"context"
	"slices"

	"yakumo/fault"
	"yakumo/model"
	"yakumo/store"
)

// The roles that always exist. Each of the first three implies the one after it.
const (
	AdminRole   = "admin"
	ManagerRole = "manager"
	MemberRole  = "member"
	ReaderRole  = "reader"
	ServiceRole = "service"
)

// GetRole gives a role, or fault.NotFound.
func GetRole(r store.Reader, id model.ID) (*model.Role, error) {
	role, ok := store.Roles.Get(r, id)
	if !ok {
		return nil, notFound("role", id)
	}
	return role, nil
}

// CreateRole stores a new role; it gives it an id.
func (i *Identity) CreateRole(ctx context.Context, role model.Role) (*model.Role, error) {
	role.ID = model.NewHexID()
	_, err := i.store.Update(ctx, func(tx *store.Tx) error { return putRole(tx, role) })
	if err != nil {
		return nil, err
	}
	return &role, nil
}

func putRole(tx *store.Tx, role model.Role) error {
	if err := checkName("name", role.Name); err != nil {
		return err
	}
	if err := checkResourceOptions(role.Options); err != nil {
		return err
	}
	what := "name " + role.Name
	if role.DomainID != "" {
		if _, err := GetDomain(tx, role.DomainID); err != nil {
			return err
		}
		mark(tx, role.DomainID)
		what += " at domain ID " + role.DomainID
	}
	return duplicate(store.Roles.Put(tx, &role), "role", what)
}

// UpdateRole changes a role; change works on a copy and may run more than once.
func (i *Identity) UpdateRole(ctx context.Context, id model.ID, change func(*model.Role) error) (*model.Role, error) {
	var out model.Role
	_, err := i.store.Update(ctx, func(tx *store.Tx) error {
		old, err := GetRole(tx, id)
		if err != nil {
			return err
		}
		out = *old
		if err := change(&out); err != nil {
			return err
		}
		if immutable(old.Options) && !loosens(old.Options, out.Options) {
			return refuseImmutable("update", "role", id)
		}
		if out.DomainID != old.DomainID {
			return fault.New(fault.Invalid, "Update of `domain_id` is not allowed.")
		}
		return putRole(tx, out)
	})
	if err != nil {
		return nil, err
	}
	return &out, nil
}

// DeleteRole deletes a role with its assignments and what implies it or it implies.
func (i *Identity) DeleteRole(ctx context.Context, id model.ID) error {
	return i.removeAll(ctx, func(s *sweep) error {
		role, err := GetRole(s.tx, id)
		if err != nil {
			return err
		}
		if immutable(role.Options) {
			return refuseImmutable("delete", "role", id)
		}
		return sweepRole(s, id)
	})
}

func sweepRole(s *sweep, id model.ID) error {
	guard(s.tx, id)
	for _, a := range collect(store.Assignments.List(s.tx, "role", id)) {
		if err := sweepRow(s, store.Assignments, a.Key()); err != nil {
			return err
		}
	}
	if err := sweepRecords(s, id); err != nil {
		return err
	}
	unmark(s.tx, id)
	return sweepRow(s, store.Roles, id)
}

func inference(prior, implied model.ID) *model.IdentityRecord {
	return &model.IdentityRecord{Collection: Inferences, ID: prior + "," + implied, ParentID: prior, PeerID: implied, Enabled: true}
}

// Imply makes one role imply another; twice is once. A circle, a role that a domain's
// role may not imply, and implying admin are refused.
func (i *Identity) Imply(ctx context.Context, prior, implied model.ID) error {
	_, err := i.store.Update(ctx, func(tx *store.Tx) error { return imply(tx, prior, implied) })
	return err
}

func imply(tx *store.Tx, prior, implied model.ID) error {
	from, err := GetRole(tx, prior)
	if err != nil {
		return err
	}
	to, err := GetRole(tx, implied)
	switch {
	case err != nil:
		return err
	case to.Name == AdminRole && to.DomainID == "":
		return forbidden("%s cannot be an implied roles", AdminRole)
	case from.DomainID == "" && to.DomainID != "" || from.DomainID != "" && to.DomainID != "" && from.DomainID != to.DomainID:
		return fault.New(fault.Invalid, "A role may imply global roles and, where it is a domain's, roles of its domain.")
	case prior == implied || slices.Contains(closure(tx, []model.ID{implied}), prior):
		return fault.New(fault.Invalid, "Role %s and role %s would imply each other.", prior, implied)
	}
	if _, there := store.IdentityRecords.Get(tx, inference(prior, implied).Key()); there {
		return nil
	}
	tx.Guard("identity-inference") // so that two rules at once make no circle
	tx.Mark("identity-inference")
	mark(tx, prior, implied)
	return store.IdentityRecords.Put(tx, inference(prior, implied))
}

// HasInference tells whether one role implies the other directly; fault.NotFound where not.
func HasInference(r store.Reader, prior, implied model.ID) error {
	for _, id := range []model.ID{prior, implied} {
		if _, err := GetRole(r, id); err != nil {
			return err
		}
	}
	if _, ok := store.IdentityRecords.Get(r, inference(prior, implied).Key()); !ok {
		return fault.New(fault.NotFound, "%s does not imply %s.", prior, implied)
	}
	return nil
}

// Unimply ends what Imply began.
func (i *Identity) Unimply(ctx context.Context, prior, implied model.ID) error {
	_, err := i.store.Update(ctx, func(tx *store.Tx) error {
		if err := HasInference(tx, prior, implied); err != nil {
			return err
		}
		return store.IdentityRecords.Delete(tx, inference(prior, implied).Key())
	})
	return err
}
