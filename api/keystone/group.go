package keystone

import (
	"net/http"

	"yakumo/api"
	"yakumo/identity"
	"yakumo/model"
	"yakumo/store"
)

func (k *dialect) groupRoutes() []api.Route {
	return []api.Route{
		{Method: "GET", Pattern: "/v3/groups", Access: api.Manager, Handle: k.listGroups},
		{Method: "POST", Pattern: "/v3/groups", Access: api.Manager, Handle: k.createGroup},
		{Method: "GET", Pattern: "/v3/groups/{group}", Access: api.Manager, Handle: k.getGroup},
		{Method: "PATCH", Pattern: "/v3/groups/{group}", Access: api.Manager, Handle: k.updateGroup},
		{Method: "DELETE", Pattern: "/v3/groups/{group}", Access: api.Manager, Handle: k.deleteGroup},
		{Method: "GET", Pattern: "/v3/groups/{group}/users", Access: api.Manager, Handle: k.listMembers},
		{Method: "PUT", Pattern: "/v3/groups/{group}/users/{user}", Access: api.Manager, Handle: k.addMember},
		{Method: "GET", Pattern: "/v3/groups/{group}/users/{user}", Access: api.Anyone, Handle: k.checkMember},
		{Method: "DELETE", Pattern: "/v3/groups/{group}/users/{user}", Access: api.Manager, Handle: k.removeMember},
	}
}

func showGroup(c *api.Context, g *model.Group) map[string]any {
	return render(g.Extra, map[string]any{"id": g.ID, "name": g.Name, "domain_id": g.DomainID, "description": g.Description, "links": self(c, "groups", g.ID)})
}

func (k *dialect) listGroups(c *api.Context) error {
	rows := store.Groups.All(c.Snapshot())
	if !c.Caller.CloudAdmin {
		rows = store.Groups.List(c.Snapshot(), "domain", c.Caller.DomainID)
	}
	var out []map[string]any
	for g := range rows {
		out = append(out, showGroup(c, g))
	}
	return list(c, "groups", out, "name", "domain_id")
}

func (k *dialect) createGroup(c *api.Context) error {
	f, err := read(c, "group")
	if err != nil {
		return err
	}
	g := model.Group{}
	f.must("name", &g.Name)
	f.text("description", &g.Description)
	g.DomainID = domainOf(f, homeDomain(c))
	f.extra(&g.Extra)
	if f.err != nil {
		return f.err
	}
	if err := manages(c, g.DomainID, "create_group"); err != nil {
		return err
	}
	made, err := k.id.CreateGroup(c.R.Context(), g)
	if err != nil {
		return err
	}
	return one(c, http.StatusCreated, "group", showGroup(c, made))
}

// groupFor gives the path's group where the caller manages its domain.
func (k *dialect) groupFor(c *api.Context, action string) (*model.Group, error) {
	g, err := identity.GetGroup(c.Snapshot(), c.Param("group"))
	if err != nil {
		if denied := manages(c, c.Caller.DomainID, action); denied != nil {
			return nil, denied
		}
		return nil, err
	}
	return g, manages(c, g.DomainID, action)
}

func (k *dialect) getGroup(c *api.Context) error {
	g, err := k.groupFor(c, "get_group")
	if err != nil {
		return err
	}
	return one(c, http.StatusOK, "group", showGroup(c, g))
}

func (k *dialect) updateGroup(c *api.Context) error {
	f, err := read(c, "group")
	if err != nil {
		return err
	}
	g, err := k.groupFor(c, "update_group")
	if err != nil {
		return err
	}
	f.sameID("group", g.ID)
	made, err := k.id.UpdateGroup(c.R.Context(), g.ID, func(g *model.Group) error {
		f.text("name", &g.Name)
		f.text("description", &g.Description)
		g.DomainID = domainOf(f, g.DomainID)
		f.extra(&g.Extra)
		return f.err
	})
	if err != nil {
		return err
	}
	return one(c, http.StatusOK, "group", showGroup(c, made))
}

func (k *dialect) deleteGroup(c *api.Context) error {
	g, err := k.groupFor(c, "delete_group")
	if err != nil {
		return err
	}
	if err := k.spares(c, g.ID, "delete_group"); err != nil {
		return err
	}
	if err := k.id.DeleteGroup(c.R.Context(), g.ID); err != nil {
		return err
	}
	return c.Empty(http.StatusNoContent)
}

func (k *dialect) listMembers(c *api.Context) error {
	g, err := k.groupFor(c, "list_users_in_group")
	if err != nil {
		return err
	}
	var rows []map[string]any
	for _, id := range g.Members {
		if u, ok := store.Users.Get(c.Snapshot(), id); ok {
			rows = append(rows, showUser(c, u))
		}
	}
	return list(c, "users", rows, userFilters...)
}

// memberOf checks that the caller manages group and user, and that the group does not
// hold more than he may give.
func (k *dialect) memberOf(c *api.Context, action string) (group, user model.ID, err error) {
	g, err := k.groupFor(c, action)
	if err != nil {
		return "", "", err
	}
	u, err := k.userFor(c, false, action)
	if err != nil {
		return "", "", err
	}
	return g.ID, u.ID, k.spares(c, g.ID, action)
}

func (k *dialect) addMember(c *api.Context) error {
	g, u, err := k.memberOf(c, "add_user_to_group")
	if err != nil {
		return err
	}
	if err := k.id.Join(c.R.Context(), g, u); err != nil {
		return err
	}
	return c.Empty(http.StatusNoContent)
}

func (k *dialect) checkMember(c *api.Context) error {
	if c.Caller.UserID != c.Param("user") {
		if _, err := k.groupFor(c, "check_user_in_group"); err != nil {
			return err
		}
	}
	if _, err := identity.Membership(c.Snapshot(), c.Param("group"), c.Param("user")); err != nil {
		return err
	}
	return c.Empty(http.StatusNoContent)
}

func (k *dialect) removeMember(c *api.Context) error {
	g, u, err := k.memberOf(c, "remove_user_from_group")
	if err != nil {
		return err
	}
	if err := k.id.Leave(c.R.Context(), g, u); err != nil {
		return err
	}
	return c.Empty(http.StatusNoContent)
}
