package identity

import (
	"cmp"
	"iter"
	"slices"

	"yakumo/model"
	"yakumo/store"
)

func collect[T any](s iter.Seq[*T]) []*T { return slices.Collect(s) }

// Ancestors gives the projects above a project, nearest first.
func Ancestors(r store.Reader, p *model.Project) []*model.Project {
	var out []*model.Project
	for p.ParentID != p.DomainID && len(out) < maxDepth {
		up, ok := store.Projects.Get(r, p.ParentID)
		if !ok {
			break
		}
		out = append(out, up)
		p = up
	}
	return out
}

// maxDepth is how many projects may stand above each other.
const maxDepth = 8

// targets gives the parts of assignments' keys that say "this scope", those that are
// inherited from above with their plus sign.
func targets(r store.Reader, s Scope) []string {
	switch s.Kind {
	case SystemScope:
		return []string{"s"}
	case DomainScope:
		return []string{"d" + s.ID}
	case ProjectScope:
		p, ok := store.Projects.Get(r, s.ID)
		if !ok {
			return nil
		}
		out := []string{"p" + p.ID, "d" + p.DomainID + "+"}
		for _, up := range Ancestors(r, p) {
			out = append(out, "p"+up.ID+"+")
		}
		return out
	}
	return nil
}

// actors gives the parts of assignments' keys that say "this user", himself or by a group.
func actors(r store.Reader, user model.ID) []string {
	out := []string{"u" + user}
	for g := range store.Groups.List(r, "member", user) {
		out = append(out, "g"+g.ID)
	}
	return out
}

// EffectiveRoles gives the roles that the user has on the scope, by name: assigned,
// inherited, through groups and implied. Roles of a domain count for what they imply only,
// so that nobody gains rights by making a role of a well-known name.
func EffectiveRoles(r store.Reader, user model.ID, s Scope) []*model.Role {
	var ids []model.ID
	at := targets(r, s)
	for _, who := range actors(r, user) {
		for _, t := range at {
			for a := range store.Assignments.Prefix(r, "id", who+","+t+",") {
				ids = append(ids, a.RoleID)
			}
		}
	}
	return globalRoles(r, ids)
}

// Implied gives the ids of the roles that a role implies directly.
func Implied(r store.Reader, role model.ID) []model.ID {
	var out []model.ID
	for rec := range store.IdentityRecords.Prefix(r, "id", Inferences+","+role+",") {
		out = append(out, rec.PeerID)
	}
	return out
}

// closure gives the roles and all that they imply, each once.
func closure(r store.Reader, ids []model.ID) []model.ID {
	seen := make(map[model.ID]bool, 8)
	var out []model.ID
	for len(ids) > 0 {
		id := ids[0]
		ids = ids[1:]
		if seen[id] {
			continue
		}
		seen[id] = true
		out = append(out, id)
		ids = append(ids, Implied(r, id)...)
	}
	return out
}

func globalRoles(r store.Reader, ids []model.ID) []*model.Role {
	var out []*model.Role
	for _, id := range closure(r, ids) {
		if role, ok := store.Roles.Get(r, id); ok && role.DomainID == "" {
			out = append(out, role)
		}
	}
	slices.SortFunc(out, func(a, b *model.Role) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

// UserProjects gives the enabled projects on which the user has a role, by name.
func UserProjects(r store.Reader, user model.ID) []*model.Project {
	found := map[model.ID]*model.Project{}
	add := func(p *model.Project) {
		if p.Enabled {
			found[p.ID] = p
		}
	}
	var below func(id model.ID, depth int)
	below = func(id model.ID, depth int) {
		for p := range store.Projects.List(r, "parent", id) {
			add(p)
			if depth < maxDepth {
				below(p.ID, depth+1)
			}
		}
	}
	for a := range assignmentsOf(r, user) {
		switch {
		case a.ProjectID != "" && a.Inherited:
			below(a.ProjectID, 0)
		case a.ProjectID != "":
			if p, ok := store.Projects.Get(r, a.ProjectID); ok {
				add(p)
			}
		case a.DomainID != "" && a.Inherited:
			for p := range store.Projects.List(r, "domain", a.DomainID) {
				add(p)
			}
		}
	}
	out := make([]*model.Project, 0, len(found))
	for _, p := range found {
		if d, ok := store.Domains.Get(r, p.DomainID); ok && d.Enabled {
			out = append(out, p)
		}
	}
	slices.SortFunc(out, func(a, b *model.Project) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID))
	})
	return out
}

// UserDomains gives the enabled domains on which the user has a role, by name.
func UserDomains(r store.Reader, user model.ID) []*model.Domain {
	found := map[model.ID]*model.Domain{}
	for a := range assignmentsOf(r, user) {
		if a.DomainID != "" && !a.Inherited {
			if d, ok := store.Domains.Get(r, a.DomainID); ok && d.Enabled {
				found[d.ID] = d
			}
		}
	}
	out := make([]*model.Domain, 0, len(found))
	for _, d := range found {
		out = append(out, d)
	}
	slices.SortFunc(out, func(a, b *model.Domain) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

// assignmentsOf gives the assignments of a user and of the groups that he is in.
func assignmentsOf(r store.Reader, user model.ID) iter.Seq[*model.Assignment] {
	return func(yield func(*model.Assignment) bool) {
		for _, who := range actors(r, user) {
			for a := range store.Assignments.Prefix(r, "id", who+",") {
				if !yield(a) {
					return
				}
			}
		}
	}
}
