package keystone

import (
	"net/http"
	"slices"
	"strings"

	"yakumo/api"
	"yakumo/fault"
	"yakumo/identity"
	"yakumo/model"
	"yakumo/store"
)

// grantRoutes are the assignments of roles: on projects, domains and the system, to users
// and groups, plain and inherited; and the list of them all.
func (k *dialect) grantRoutes() []api.Route {
	out := []api.Route{{Method: "GET", Pattern: "/v3/role_assignments", Access: api.Manager, Handle: k.listAssignments}}
	for _, on := range []struct {
		path   string
		access api.Access
	}{
		{"/v3/projects/{project}/users/{user}/roles", api.Manager},
		{"/v3/projects/{project}/groups/{group}/roles", api.Manager},
		{"/v3/domains/{domain}/users/{user}/roles", api.Manager},
		{"/v3/domains/{domain}/groups/{group}/roles", api.Manager},
		{"/v3/system/users/{user}/roles", api.Admin},
		{"/v3/system/groups/{group}/roles", api.Admin},
	} {
		out = append(out, k.grantSet(on.path, "", on.access)...)
		if !strings.Contains(on.path, "system") {
			out = append(out, k.grantSet(strings.Replace(on.path, "/v3/", "/v3/OS-INHERIT/", 1), "/inherited_to_projects", on.access)...)
		}
	}
	return out
}

func (k *dialect) grantSet(path, suffix string, access api.Access) []api.Route {
	one := path + "/{role}" + suffix
	return []api.Route{
		{Method: "GET", Pattern: path + suffix, Access: access, Handle: k.listGrants},
		{Method: "PUT", Pattern: one, Access: access, Handle: k.addGrant},
		{Method: "GET", Pattern: one, Access: access, Handle: k.checkGrant},
		{Method: "DELETE", Pattern: one, Access: access, Handle: k.removeGrant},
	}
}

// pathGrant makes an assignment of the path, and refuses a domain's manager who reaches
// out of his domain.
func (k *dialect) pathGrant(c *api.Context, action string) (model.Assignment, error) {
	a := model.Assignment{
		RoleID: c.Param("role"), UserID: c.Param("user"), GroupID: c.Param("group"), ProjectID: c.Param("project"), DomainID: c.Param("domain"),
		System: strings.Contains(c.R.URL.Path, "/v3/system/"), Inherited: strings.HasSuffix(strings.TrimSuffix(c.R.URL.Path, "/"), "/inherited_to_projects"),
	}
	if d, ok := store.Domains.Get(c.Snapshot(), a.ProjectID); ok && a.ProjectID != "" { // a domain that is named as the project that it also is
		a.DomainID, a.ProjectID = d.ID, ""
	}
	if c.Caller.CloudAdmin {
		return a, nil
	}
	return a, k.managesGrant(c, &a, action)
}

// delegable are the global roles that a domain's manager may give and take.
var delegable = []string{identity.ManagerRole, identity.MemberRole, identity.ReaderRole}

func (k *dialect) managesGrant(c *api.Context, a *model.Assignment, action string) error {
	r, home := c.Snapshot(), c.Caller.DomainID
	no := denied(action)
	if a.UserID != "" {
		if u, ok := store.Users.Get(r, a.UserID); !ok || u.DomainID != home {
			return no
		}
	} else if g, ok := store.Groups.Get(r, a.GroupID); !ok || g.DomainID != home {
		return no
	}
	if a.ProjectID != "" {
		if p, ok := store.Projects.Get(r, a.ProjectID); !ok || p.DomainID != home {
			return no
		}
	} else if a.DomainID != home {
		return no
	}
	if a.RoleID == "" {
		return nil
	}
	role, ok := store.Roles.Get(r, a.RoleID)
	if !ok || role.DomainID != home && (role.DomainID != "" || !slices.Contains(delegable, role.Name)) {
		return no
	}
	return nil
}

func (k *dialect) listGrants(c *api.Context) error {
	a, err := k.pathGrant(c, "list_grants")
	if err != nil {
		return err
	}
	if err := grantParts(c, &a); err != nil {
		return err
	}
	var rows []map[string]any
	for _, r := range identity.RolesAssigned(c.Snapshot(), a) {
		rows = append(rows, showRole(c, r))
	}
	return list(c, "roles", rows, "name")
}

// grantParts refuses a path of which the actor or the target is not there.
func grantParts(c *api.Context, a *model.Assignment) error {
	r := c.Snapshot()
	var err error
	if a.UserID != "" {
		_, err = identity.GetUser(r, a.UserID)
	} else {
		_, err = identity.GetGroup(r, a.GroupID)
	}
	switch {
	case err != nil:
	case a.ProjectID != "":
		_, err = identity.GetProject(r, a.ProjectID)
	case a.DomainID != "":
		_, err = identity.GetDomain(r, a.DomainID)
	}
	return err
}

func (k *dialect) addGrant(c *api.Context) error {
	a, err := k.pathGrant(c, "create_grant")
	if err != nil {
		return err
	}
	if err := k.id.Assign(c.R.Context(), a); err != nil {
		return err
	}
	return c.Empty(http.StatusNoContent)
}

func (k *dialect) checkGrant(c *api.Context) error {
	a, err := k.pathGrant(c, "check_grant")
	if err != nil {
		return err
	}
	if err := identity.Assigned(c.Snapshot(), a); err != nil {
		return err
	}
	return c.Empty(http.StatusNoContent)
}

func (k *dialect) removeGrant(c *api.Context) error {
	a, err := k.pathGrant(c, "revoke_grant")
	if err != nil {
		return err
	}
	if err := k.id.Unassign(c.R.Context(), a); err != nil {
		return err
	}
	return c.Empty(http.StatusNoContent)
}

// asked tells whether a flag of a query is on: there, and not 0.
func asked(q map[string][]string, key string) bool {
	v, ok := q[key]
	return ok && v[0] != "0" && strings.ToLower(v[0]) != "false"
}

func (k *dialect) listAssignments(c *api.Context) error {
	q := c.Query()
	want := identity.AssignmentQuery{
		RoleID: q.Get("role.id"), UserID: q.Get("user.id"), GroupID: q.Get("group.id"), ProjectID: q.Get("scope.project.id"), DomainID: q.Get("scope.domain.id"),
		System: q.Has("scope.system"), Inherited: q.Get("scope.OS-INHERIT:inherited_to") == "projects", Effective: asked(q, "effective"), Subtree: asked(q, "include_subtree"),
	}
	switch {
	case want.ProjectID != "" && want.DomainID != "":
		return fault.New(fault.Invalid, "Specify a domain or project, not both")
	case want.UserID != "" && want.GroupID != "":
		return fault.New(fault.Invalid, "Specify a user or group, not both")
	case want.Effective && want.GroupID != "":
		return fault.New(fault.Invalid, "Combining effective and group filter will always result in an empty list.")
	case want.Subtree && want.ProjectID == "":
		return fault.New(fault.Invalid, "scope.project.id must be specified if include_subtree is also specified")
	}
	if !c.Caller.CloudAdmin {
		want.InDomain = c.Caller.DomainID
	}
	names := asked(q, "include_names")
	rows := []any{}
	for _, e := range identity.ListAssignments(c.Snapshot(), want) {
		rows = append(rows, showAssignment(c, &e, names))
	}
	return c.JSON(http.StatusOK, map[string]any{"role_assignments": rows, "links": map[string]any{
		"self": c.URL(strings.TrimPrefix(c.R.URL.RequestURI(), "/identity")), "previous": nil, "next": nil}})
}

func showAssignment(c *api.Context, e *identity.AssignmentEntry, names bool) map[string]any {
	r := c.Snapshot()
	named := func(id, name, domain string) map[string]any {
		v := map[string]any{"id": id}
		if names {
			v["name"] = name
			if d, ok := store.Domains.Get(r, domain); ok && domain != "" {
				v["domain"] = map[string]any{"id": d.ID, "name": d.Name}
			}
		}
		return v
	}
	out := map[string]any{}
	if role, ok := store.Roles.Get(r, e.RoleID); ok {
		out["role"] = named(role.ID, role.Name, role.DomainID)
	}
	if u, ok := store.Users.Get(r, e.UserID); ok {
		out["user"] = named(u.ID, u.Name, u.DomainID)
	}
	if g, ok := store.Groups.Get(r, e.GroupID); ok {
		out["group"] = named(g.ID, g.Name, g.DomainID)
	}
	scope := map[string]any{}
	switch {
	case e.ProjectID != "":
		if p, ok := store.Projects.Get(r, e.ProjectID); ok {
			scope["project"] = named(p.ID, p.Name, p.DomainID)
		}
	case e.DomainID != "":
		if d, ok := store.Domains.Get(r, e.DomainID); ok {
			scope["domain"] = named(d.ID, d.Name, "")
		}
	default:
		scope["system"] = map[string]any{"all": true}
	}
	if e.Inherited || e.Inheriting {
		scope["OS-INHERIT:inherited_to"] = "projects"
	}
	out["scope"] = scope
	from := &e.Assignment
	if e.From != nil {
		from = e.From
	}
	links := map[string]any{"assignment": c.URL(grantPath(from))}
	if e.ViaGroup != "" {
		links["membership"] = c.URL("/v3/groups/" + e.ViaGroup + "/users/" + e.UserID)
	}
	if e.PriorRole != "" {
		links["prior_role"] = c.URL("/v3/prior_role/" + e.PriorRole + "/implies/" + e.RoleID)
	}
	out["links"] = links
	return out
}

func grantPath(a *model.Assignment) string {
	target := "/system"
	switch {
	case a.ProjectID != "":
		target = "/projects/" + a.ProjectID
	case a.DomainID != "":
		target = "/domains/" + a.DomainID
	}
	actor := "/users/" + a.UserID
	if a.GroupID != "" {
		actor = "/groups/" + a.GroupID
	}
	if a.Inherited {
		return "/v3/OS-INHERIT" + target + actor + "/roles/" + a.RoleID + "/inherited_to_projects"
	}
	return "/v3" + target + actor + "/roles/" + a.RoleID
}
