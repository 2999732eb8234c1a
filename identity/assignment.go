package identity

import (
	"cmp"
	"context"
	"slices"

	"yakumo/fault"
	"yakumo/model"
	"yakumo/store"
)

// checkAssignment refuses an assignment of which a part is not there.
func checkAssignment(r store.Reader, a *model.Assignment) error {
	role, err := GetRole(r, a.RoleID)
	if err != nil {
		return err
	}
	if a.UserID != "" {
		_, err = GetUser(r, a.UserID)
	} else {
		_, err = GetGroup(r, a.GroupID)
	}
	if err != nil {
		return err
	}
	switch {
	case a.ProjectID != "":
		p, err := GetProject(r, a.ProjectID)
		if err != nil {
			return err
		}
		if role.DomainID != "" && role.DomainID != p.DomainID {
			return forbidden("The role %s belongs to the domain %s and cannot be assigned on a project of another.", role.ID, role.DomainID)
		}
	case a.DomainID != "":
		if _, err := GetDomain(r, a.DomainID); err != nil {
			return err
		}
	}
	return nil
}

// Assign stores an assignment; twice is once.
func (i *Identity) Assign(ctx context.Context, a model.Assignment) error {
	_, err := i.store.Update(ctx, func(tx *store.Tx) error { return assign(tx, a) })
	return err
}

func assign(tx *store.Tx, a model.Assignment) error {
	if err := checkAssignment(tx, &a); err != nil {
		return err
	}
	if _, there := store.Assignments.Get(tx, a.Key()); there {
		return nil
	}
	mark(tx, a.RoleID, a.UserID, a.GroupID, a.ProjectID, a.DomainID)
	return store.Assignments.Put(tx, &a)
}

// Assigned gives nil where the assignment is there as such, fault.NotFound otherwise.
func Assigned(r store.Reader, a model.Assignment) error {
	if err := checkAssignment(r, &a); err != nil {
		return err
	}
	if _, ok := store.Assignments.Get(r, a.Key()); !ok {
		return fault.New(fault.NotFound, "Could not find role assignment with role: %s, user or group: %s, project, domain, or system: %s.",
			a.RoleID, cmp.Or(a.UserID, a.GroupID), cmp.Or(a.ProjectID, a.DomainID, "system"))
	}
	return nil
}

// Unassign deletes an assignment.
func (i *Identity) Unassign(ctx context.Context, a model.Assignment) error {
	_, err := i.store.Update(ctx, func(tx *store.Tx) error {
		if err := Assigned(tx, a); err != nil {
			return err
		}
		return store.Assignments.Delete(tx, a.Key())
	})
	return err
}

// RolesAssigned gives the roles of the assignments that have the actor, target and
// inheritance of a, whose role does not count.
func RolesAssigned(r store.Reader, a model.Assignment) []*model.Role {
	a.RoleID = ""
	var out []*model.Role
	for row := range store.Assignments.Prefix(r, "id", a.Key()) {
		if role, ok := store.Roles.Get(r, row.RoleID); ok {
			out = append(out, role)
		}
	}
	slices.SortFunc(out, func(a, b *model.Role) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

// AssignmentQuery selects assignments; empty fields do not count.
type AssignmentQuery struct {
	RoleID, UserID, GroupID, ProjectID, DomainID model.ID
	System                                       bool
	Inherited                                    bool // only those that are inherited
	Effective                                    bool // members instead of groups, projects instead of inheritance, with implied roles
	Subtree                                      bool // ProjectID and the projects below it
	// InDomain keeps what is about users, groups, projects and the domain itself of one
	// domain: what the domain's manager may see.
	InDomain model.ID
}

// AssignmentEntry is an assignment as a list shows it.
type AssignmentEntry struct {
	model.Assignment
	// Of an effective entry: what it comes from.
	ViaGroup   model.ID
	PriorRole  model.ID // the role that implies this one
	From       *model.Assignment
	Inheriting bool
}

// ListAssignments gives the assignments that match, each once.
func ListAssignments(r store.Reader, q AssignmentQuery) []AssignmentEntry {
	var out []AssignmentEntry
	seen := map[string]bool{}
	projects := projectSet(r, q)
	add := func(e AssignmentEntry) {
		if q.matches(&e.Assignment, projects) && !seen[e.Key()+e.ViaGroup+e.PriorRole] && q.inDomain(r, &e.Assignment) {
			seen[e.Key()+e.ViaGroup+e.PriorRole] = true
			out = append(out, e)
		}
	}
	for a := range q.candidates(r) {
		if q.Inherited && !a.Inherited {
			continue
		}
		if !q.Effective {
			add(AssignmentEntry{Assignment: *a})
			continue
		}
		expand(r, a, add)
	}
	return out
}

// candidates gives a superset of what the query selects, by the narrowest index.
func (q *AssignmentQuery) candidates(r store.Reader) func(func(*model.Assignment) bool) {
	switch {
	case q.UserID != "" && q.Effective:
		return assignmentsOf(r, q.UserID)
	case q.UserID != "":
		return store.Assignments.List(r, "user", q.UserID)
	case q.GroupID != "":
		return store.Assignments.List(r, "group", q.GroupID)
	case q.Effective || q.Subtree:
	case q.ProjectID != "":
		return store.Assignments.List(r, "project", q.ProjectID)
	case q.DomainID != "":
		return store.Assignments.List(r, "domain", q.DomainID)
	case q.RoleID != "":
		return store.Assignments.List(r, "role", q.RoleID)
	}
	return store.Assignments.All(r)
}

func projectSet(r store.Reader, q AssignmentQuery) map[model.ID]bool {
	if q.ProjectID == "" {
		return nil
	}
	set := map[model.ID]bool{q.ProjectID: true}
	if q.Subtree {
		for _, p := range Subtree(r, q.ProjectID) {
			set[p.ID] = true
		}
	}
	return set
}

// Subtree gives the projects below a project or domain, parents first.
func Subtree(r store.Reader, id model.ID) []*model.Project {
	var out []*model.Project
	var below func(id model.ID, depth int)
	below = func(id model.ID, depth int) {
		for p := range store.Projects.List(r, "parent", id) {
			out = append(out, p)
			if depth < maxDepth {
				below(p.ID, depth+1)
			}
		}
	}
	below(id, 0)
	return out
}

func (q *AssignmentQuery) matches(a *model.Assignment, projects map[model.ID]bool) bool {
	return (q.RoleID == "" || q.RoleID == a.RoleID) && (q.UserID == "" || q.UserID == a.UserID) &&
		(q.GroupID == "" || q.GroupID == a.GroupID) && (projects == nil || projects[a.ProjectID]) &&
		(q.DomainID == "" || q.DomainID == a.DomainID) && (!q.System || a.System)
}

func (q *AssignmentQuery) inDomain(r store.Reader, a *model.Assignment) bool {
	if q.InDomain == "" {
		return true
	}
	if a.DomainID != "" {
		return a.DomainID == q.InDomain
	}
	p, ok := store.Projects.Get(r, a.ProjectID)
	return ok && p.DomainID == q.InDomain
}

// expand gives what an assignment amounts to.
func expand(r store.Reader, a *model.Assignment, add func(AssignmentEntry)) {
	users, group := []model.ID{a.UserID}, ""
	if a.GroupID != "" {
		group = a.GroupID
		users = nil
		if g, ok := store.Groups.Get(r, a.GroupID); ok {
			users = g.Members
		}
	}
	type target struct{ project, domain model.ID }
	at := []target{{a.ProjectID, a.DomainID}}
	if a.Inherited {
		at = nil
		below := Subtree(r, cmp.Or(a.ProjectID, a.DomainID))
		for _, p := range below {
			at = append(at, target{p.ID, ""})
		}
	}
	var put func(role, prior model.ID, depth int)
	put = func(role, prior model.ID, depth int) {
		for _, u := range users {
			for _, t := range at {
				add(AssignmentEntry{Assignment: model.Assignment{RoleID: role, UserID: u, ProjectID: t.project, DomainID: t.domain, System: a.System},
					ViaGroup: group, PriorRole: prior, From: a, Inheriting: a.Inherited})
			}
		}
		if depth < 16 {
			for _, implied := range Implied(r, role) {
				put(implied, role, depth+1)
			}
		}
	}
	put(a.RoleID, "", 0)
}

// HoldsCloudAdmin tells whether the user, himself, through a group or by a trust, or the
// group has been given the admin role on the system or on the cloud's admin project.
func HoldsCloudAdmin(r store.Reader, id model.ID) bool {
	isAdmin := func(role *model.Role) bool { return role.Name == AdminRole }
	for rec := range store.IdentityRecords.List(r, "peer", id) {
		if rec.Collection == Trusts && rec.ParentID == AdminProject(r) && slices.ContainsFunc(globalRoles(r, RecordRoles(rec)), isAdmin) {
			return true
		}
	}
	at := append(targets(r, Scope{Kind: SystemScope}), targets(r, Scope{ProjectScope, AdminProject(r)})...)
	for _, who := range append(actors(r, id), "g"+id) {
		for _, t := range at {
			for a := range store.Assignments.Prefix(r, "id", who+","+t+",") {
				if slices.ContainsFunc(globalRoles(r, []model.ID{a.RoleID}), isAdmin) {
					return true
				}
			}
		}
	}
	return false
}
