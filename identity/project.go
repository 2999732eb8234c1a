package identity

import (
	"context"
	"slices"
	"strings"

	"yakumo/fault"
	"yakumo/model"
	"yakumo/store"
)

// GetProject gives a project, or fault.NotFound. A domain is none.
func GetProject(r store.Reader, id model.ID) (*model.Project, error) {
	p, ok := store.Projects.Get(r, id)
	if !ok {
		return nil, notFound("project", id)
	}
	return p, nil
}

// GetDomain gives a domain, or fault.NotFound.
func GetDomain(r store.Reader, id model.ID) (*model.Domain, error) {
	d, ok := store.Domains.Get(r, id)
	if !ok {
		return nil, notFound("domain", id)
	}
	return d, nil
}

func checkResourceOptions(options map[string]any) error {
	for name, v := range options {
		if name != "immutable" || !isBool(v) {
			return fault.New(fault.Invalid, "Invalid input for field 'options': '%s' is not an option of this resource or has a wrong value.", name)
		}
	}
	return nil
}

func checkTags(tags []string) error {
	if len(tags) > 80 {
		return fault.New(fault.Invalid, "Invalid input for field 'tags': there are more than 80.")
	}
	for n, tag := range tags {
		if tag == "" || len([]rune(tag)) > 255 || strings.ContainsAny(tag, "/,\x00") {
			return fault.New(fault.Invalid, "Invalid input for field 'tags': '%.64s' is empty, too long, or holds a slash or a comma.", tag)
		}
		if slices.Contains(tags[:n], tag) {
			return fault.New(fault.Invalid, "Invalid input for field 'tags': '%.64s' is there twice.", tag)
		}
	}
	return nil
}

// CreateProject stores a new project; it gives it an id. ParentID empty: directly below its domain.
func (i *Identity) CreateProject(ctx context.Context, p model.Project) (*model.Project, error) {
	p.ID = model.NewHexID()
	var out model.Project
	_, err := i.store.Update(ctx, func(tx *store.Tx) error {
		out = p
		if err := placeProject(tx, &out); err != nil {
			return err
		}
		if err := checkProject(tx, &out); err != nil {
			return err
		}
		mark(tx, out.DomainID, out.ParentID)
		row := out
		return duplicate(store.Projects.Put(tx, &row), "project", "name "+row.Name+" at domain ID "+row.DomainID)
	})
	if err != nil {
		return nil, err
	}
	return &out, nil
}

// placeProject sets the parent and domain of a new project: each follows from the other.
func placeProject(tx *store.Tx, p *model.Project) error {
	if p.ParentID == "" {
		p.ParentID = p.DomainID
	}
	if _, top := store.Domains.Get(tx, p.ParentID); top {
		if p.DomainID == "" {
			p.DomainID = p.ParentID
		}
		if p.DomainID != p.ParentID {
			return fault.New(fault.Invalid, "Cannot create project, since it specifies its domain_id %s, but specifies a parent in a different domain (%s).", p.DomainID, p.ParentID)
		}
		return nil
	}
	parent, err := GetProject(tx, p.ParentID)
	if err != nil {
		if p.ParentID == p.DomainID {
			return notFound("domain", p.DomainID)
		}
		return err
	}
	if p.DomainID == "" {
		p.DomainID = parent.DomainID
	}
	if p.DomainID != parent.DomainID {
		return fault.New(fault.Invalid, "Cannot create project, since it specifies its domain_id %s, but specifies a parent in a different domain (%s).", p.DomainID, parent.DomainID)
	}
	if above := Ancestors(tx, p); len(above)+1 > maxDepth {
		return forbidden("Max hierarchy depth reached for %s branch.", p.ParentID)
	}
	for _, up := range Ancestors(tx, p) {
		if !up.Enabled {
			return forbidden("cannot create a project in a branch containing a disabled project: %s", up.ID)
		}
	}
	return nil
}

func checkProject(tx *store.Tx, p *model.Project) error {
	if err := checkName("name", p.Name); err != nil {
		return err
	}
	if _, err := GetDomain(tx, p.DomainID); err != nil {
		return err
	}
	if err := checkTags(p.Tags); err != nil {
		return err
	}
	return checkResourceOptions(p.Options)
}

// UpdateProject changes a project; change works on a copy and may run more than once.
func (i *Identity) UpdateProject(ctx context.Context, id model.ID, change func(*model.Project) error) (*model.Project, error) {
	var out model.Project
	_, err := i.store.Update(ctx, func(tx *store.Tx) error {
		old, err := GetProject(tx, id)
		if err != nil {
			return err
		}
		out = *old
		if err := change(&out); err != nil {
			return err
		}
		switch {
		case immutable(old.Options) && !loosens(old.Options, out.Options):
			return refuseImmutable("update", "project", id)
		case out.DomainID != old.DomainID:
			return fault.New(fault.Invalid, "Update of `domain_id` is not allowed.")
		case out.ParentID != old.ParentID:
			return forbidden("Update of `parent_id` is not allowed.")
		case old.Enabled && !out.Enabled && id == AdminProject(tx):
			return forbidden("You are not authorized to perform the requested action: disable the cloud's admin project.")
		}
		if err := checkProject(tx, &out); err != nil {
			return err
		}
		if out.Enabled && !old.Enabled {
			for _, up := range Ancestors(tx, &out) {
				if !up.Enabled {
					return forbidden("Cannot enable project %s since it has disabled parents", id)
				}
			}
		}
		row := out
		return duplicate(store.Projects.Put(tx, &row), "project", "name "+row.Name+" at domain ID "+row.DomainID)
	})
	if err != nil {
		return nil, err
	}
	return &out, nil
}

// DeleteProject deletes a project that has none below it, with its assignments and
// records. The cloud's admin project stays.
func (i *Identity) DeleteProject(ctx context.Context, id model.ID) error {
	return i.removeAll(ctx, func(s *sweep) error {
		p, err := GetProject(s.tx, id)
		switch {
		case err != nil:
			return err
		case immutable(p.Options):
			return refuseImmutable("delete", "project", id)
		case id == AdminProject(s.tx):
			return forbidden("You are not authorized to perform the requested action: delete the cloud's admin project.")
		case store.Projects.Count(s.tx, "parent", id) > 0:
			return forbidden("Cannot delete the project %s since it is not a leaf in the hierarchy. Use the cascade option if you want to delete a whole subtree.", id)
		}
		return sweepProject(s, p)
	})
}

func sweepProject(s *sweep, p *model.Project) error {
	guard(s.tx, p.ID)
	for _, a := range collect(store.Assignments.List(s.tx, "project", p.ID)) {
		if err := sweepRow(s, store.Assignments, a.Key()); err != nil {
			return err
		}
	}
	if err := sweepRecords(s, p.ID); err != nil {
		return err
	}
	unmark(s.tx, p.ID)
	return sweepRow(s, store.Projects, p.ID)
}

func checkDomain(d *model.Domain) error {
	if err := checkName("name", d.Name); err != nil {
		return err
	}
	if err := checkTags(d.Tags); err != nil {
		return err
	}
	return checkResourceOptions(d.Options)
}

// CreateDomain stores a new domain; it gives it an id where it has none.
func (i *Identity) CreateDomain(ctx context.Context, d model.Domain) (*model.Domain, error) {
	if d.ID == "" {
		d.ID = model.NewHexID()
	}
	_, err := i.store.Update(ctx, func(tx *store.Tx) error {
		if err := checkDomain(&d); err != nil {
			return err
		}
		if _, twice := store.Domains.Get(tx, d.ID); twice {
			return fault.New(fault.Conflict, "Conflict occurred attempting to store domain - Duplicate ID, %s.", d.ID)
		}
		row := d
		return duplicate(store.Domains.Put(tx, &row), "domain", "name "+d.Name)
	})
	if err != nil {
		return nil, err
	}
	return &d, nil
}

// UpdateDomain changes a domain; change works on a copy and may run more than once.
func (i *Identity) UpdateDomain(ctx context.Context, id model.ID, change func(*model.Domain) error) (*model.Domain, error) {
	var out model.Domain
	_, err := i.store.Update(ctx, func(tx *store.Tx) error {
		old, err := GetDomain(tx, id)
		if err != nil {
			return err
		}
		out = *old
		if err := change(&out); err != nil {
			return err
		}
		switch {
		case immutable(old.Options) && !loosens(old.Options, out.Options):
			return refuseImmutable("update", "domain", id)
		case old.Enabled && !out.Enabled && id == model.DefaultDomain:
			return forbidden("You are not authorized to perform the requested action: disable the default domain.")
		}
		if err := checkDomain(&out); err != nil {
			return err
		}
		row := out
		return duplicate(store.Domains.Put(tx, &row), "domain", "name "+row.Name)
	})
	if err != nil {
		return nil, err
	}
	return &out, nil
}

// DeleteDomain deletes a disabled domain with everything in it. A domain that holds more
// than one transaction can delete goes in several, the domain itself in the last.
func (i *Identity) DeleteDomain(ctx context.Context, id model.ID) error {
	return i.removeAll(ctx, func(s *sweep) error {
		d, err := GetDomain(s.tx, id)
		switch {
		case err != nil:
			return err
		case id == model.DefaultDomain:
			return forbidden("You are not authorized to perform the requested action: delete the default domain.")
		case immutable(d.Options):
			return refuseImmutable("delete", "domain", id)
		case d.Enabled:
			return forbidden("Cannot delete a domain that is enabled, please disable it first.")
		}
		guard(s.tx, id)
		admin := AdminProject(s.tx)
		for _, p := range collect(store.Projects.List(s.tx, "domain", id)) {
			if p.ID == admin {
				return forbidden("You are not authorized to perform the requested action: delete the cloud's admin project.")
			}
			if err := sweepProject(s, p); err != nil {
				return err
			}
		}
		for _, u := range collect(store.Users.List(s.tx, "domain", id)) {
			if err := sweepUser(s, u.ID); err != nil {
				return err
			}
		}
		for _, g := range collect(store.Groups.List(s.tx, "domain", id)) {
			if err := sweepGroup(s, g.ID); err != nil {
				return err
			}
		}
		for _, role := range collect(store.Roles.List(s.tx, "domain", id)) {
			if err := sweepRole(s, role.ID); err != nil {
				return err
			}
		}
		for _, a := range collect(store.Assignments.List(s.tx, "domain", id)) {
			if err := sweepRow(s, store.Assignments, a.Key()); err != nil {
				return err
			}
		}
		if err := sweepRecords(s, id); err != nil {
			return err
		}
		unmark(s.tx, id)
		return sweepRow(s, store.Domains, id)
	})
}
