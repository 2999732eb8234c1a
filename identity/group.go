package identity

import (
	"context"
	"slices"

	"yakumo/fault"
	"yakumo/model"
	"yakumo/store"
)

// GetGroup gives a group, or fault.NotFound.
func GetGroup(r store.Reader, id model.ID) (*model.Group, error) {
	g, ok := store.Groups.Get(r, id)
	if !ok {
		return nil, notFound("group", id)
	}
	return g, nil
}

// CreateGroup stores a new group; it gives it an id.
func (i *Identity) CreateGroup(ctx context.Context, g model.Group) (*model.Group, error) {
	g.ID = model.NewHexID()
	_, err := i.store.Update(ctx, func(tx *store.Tx) error {
		row := g
		if err := checkName("name", row.Name); err != nil {
			return err
		}
		if _, err := GetDomain(tx, row.DomainID); err != nil {
			return err
		}
		mark(tx, row.DomainID)
		return duplicate(store.Groups.Put(tx, &row), "group", "name "+row.Name+" at domain ID "+row.DomainID)
	})
	if err != nil {
		return nil, err
	}
	return &g, nil
}

// UpdateGroup changes a group; change works on a copy and may run more than once.
func (i *Identity) UpdateGroup(ctx context.Context, id model.ID, change func(*model.Group) error) (*model.Group, error) {
	var out model.Group
	_, err := i.store.Update(ctx, func(tx *store.Tx) error {
		old, err := GetGroup(tx, id)
		if err != nil {
			return err
		}
		out = *old
		if err := change(&out); err != nil {
			return err
		}
		if out.DomainID != old.DomainID {
			return fault.New(fault.Invalid, "Cannot change Domain ID")
		}
		if err := checkName("name", out.Name); err != nil {
			return err
		}
		row := out
		return duplicate(store.Groups.Put(tx, &row), "group", "name "+row.Name+" at domain ID "+row.DomainID)
	})
	if err != nil {
		return nil, err
	}
	return &out, nil
}

func putMembers(tx *store.Tx, g *model.Group, members []model.ID) error {
	if _, err := GetGroup(tx, g.ID); err != nil { // compared at commit
		return err
	}
	row := *g
	row.Members = members
	return store.Groups.Put(tx, &row)
}

// Join makes a user a member of a group; twice is once.
func (i *Identity) Join(ctx context.Context, group, user model.ID) error {
	_, err := i.store.Update(ctx, func(tx *store.Tx) error {
		g, err := GetGroup(tx, group)
		if err != nil {
			return err
		}
		if _, err := GetUser(tx, user); err != nil {
			return err
		}
		if slices.Contains(g.Members, user) {
			return nil
		}
		mark(tx, user)
		return putMembers(tx, g, append(slices.Clone(g.Members), user))
	})
	return err
}

// Leave takes a user out of a group; fault.NotFound where he is not in it.
func (i *Identity) Leave(ctx context.Context, group, user model.ID) error {
	_, err := i.store.Update(ctx, func(tx *store.Tx) error {
		g, err := Membership(tx, group, user)
		if err != nil {
			return err
		}
		return putMembers(tx, g, slices.DeleteFunc(slices.Clone(g.Members), func(m model.ID) bool { return m == user }))
	})
	return err
}

// Membership gives the group where the user is in it, fault.NotFound otherwise.
func Membership(r store.Reader, group, user model.ID) (*model.Group, error) {
	g, err := GetGroup(r, group)
	if err != nil {
		return nil, err
	}
	if _, err := GetUser(r, user); err != nil {
		return nil, err
	}
	if !slices.Contains(g.Members, user) {
		return nil, fault.New(fault.NotFound, "Could not find user %s in group %s.", user, group)
	}
	return g, nil
}

// DeleteGroup deletes a group with its assignments.
func (i *Identity) DeleteGroup(ctx context.Context, id model.ID) error {
	return i.removeAll(ctx, func(s *sweep) error {
		if _, err := GetGroup(s.tx, id); err != nil {
			return err
		}
		return sweepGroup(s, id)
	})
}

func sweepGroup(s *sweep, id model.ID) error {
	guard(s.tx, id)
	for _, a := range collect(store.Assignments.List(s.tx, "group", id)) {
		if err := sweepRow(s, store.Assignments, a.Key()); err != nil {
			return err
		}
	}
	unmark(s.tx, id)
	return sweepRow(s, store.Groups, id)
}
