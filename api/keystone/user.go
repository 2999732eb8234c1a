package keystone

import (
	"net/http"

	"yakumo/api"
	"yakumo/identity"
	"yakumo/model"
	"yakumo/store"
)

func (k *dialect) userRoutes() []api.Route {
	return []api.Route{
		{Method: "GET", Pattern: "/v3/users", Access: api.Manager, Handle: k.listUsers},
		{Method: "POST", Pattern: "/v3/users", Access: api.Manager, Handle: k.createUser},
		{Method: "GET", Pattern: "/v3/users/{user}", Access: api.Anyone, Handle: k.getUser},
		{Method: "PATCH", Pattern: "/v3/users/{user}", Access: api.Manager, Handle: k.updateUser},
		{Method: "DELETE", Pattern: "/v3/users/{user}", Access: api.Manager, Handle: k.deleteUser},
		// The password so far is what gives the right, as in Keystone.
		{Method: "POST", Pattern: "/v3/users/{user}/password", Access: api.Public, Handle: k.changePassword},
		{Method: "GET", Pattern: "/v3/users/{user}/groups", Access: api.Anyone, Handle: k.listUserGroups},
		{Method: "GET", Pattern: "/v3/users/{user}/projects", Access: api.Anyone, Handle: k.listUserProjects},
	}
}

func showUser(c *api.Context, u *model.User) map[string]any {
	fixed := map[string]any{
		"id": u.ID, "name": u.Name, "domain_id": u.DomainID, "enabled": u.Enabled, "options": orEmpty(u.Options),
		"password_expires_at": nil, "links": self(c, "users", u.ID),
	}
	if u.DefaultProjectID != "" {
		fixed["default_project_id"] = u.DefaultProjectID
	}
	if u.Email != "" {
		fixed["email"] = u.Email
	}
	if u.Description != "" {
		fixed["description"] = u.Description
	}
	return render(u.Extra, fixed)
}

var userFilters = []string{"name", "domain_id", "enabled"}

func (k *dialect) listUsers(c *api.Context) error {
	q := c.Query()
	rows := store.Users.All(c.Snapshot())
	domain := q.Get("domain_id")
	if !c.Caller.CloudAdmin {
		domain = c.Caller.DomainID
	}
	switch {
	case q.Get("name") != "":
		rows = store.Users.List(c.Snapshot(), "name", q.Get("name"))
	case domain != "":
		rows = store.Users.List(c.Snapshot(), "domain", domain)
	}
	var out []map[string]any
	for u := range rows {
		if c.Caller.CloudAdmin || u.DomainID == c.Caller.DomainID {
			out = append(out, showUser(c, u))
		}
	}
	return list(c, "users", out, userFilters...)
}

// userFields reads what create and update share.
func userFields(f *fields, u *model.User) {
	f.text("email", &u.Email)
	f.text("description", &u.Description)
	f.text("default_project_id", &u.DefaultProjectID)
	f.flag("enabled", &u.Enabled)
	f.options(&u.Options)
}

// fillUser puts the request's members into a user.
func fillUser(f *fields, u *model.User) {
	f.must("name", &u.Name)
	u.DomainID = domainOf(f, u.DomainID)
	userFields(f, u)
}

// domainOf gives the domain that a body names, otherwise the one that goes without saying.
func domainOf(f *fields, otherwise model.ID) model.ID {
	id := ""
	f.text("domain_id", &id)
	if id == "" {
		return otherwise
	}
	return id
}

// homeDomain is the domain that a new thing is in where the request names none: the
// token's, and the default domain otherwise.
func homeDomain(c *api.Context) model.ID {
	switch {
	case c.Caller.DomainID != "":
		return c.Caller.DomainID
	case c.Caller.ProjectDomainID != "":
		return c.Caller.ProjectDomainID
	}
	return model.DefaultDomain
}

func (k *dialect) createUser(c *api.Context) error {
	f, err := read(c, "user")
	if err != nil {
		return err
	}
	u := model.User{Enabled: true, DomainID: homeDomain(c)}
	password := ""
	f.text("password", &password)
	fillUser(f, &u)
	f.extra(&u.Extra)
	if f.err != nil {
		return f.err
	}
	if err := manages(c, u.DomainID, "create_user"); err != nil {
		return err
	}
	made, err := k.id.CreateUser(c.R.Context(), u, password)
	if err != nil {
		return err
	}
	return one(c, http.StatusCreated, "user", showUser(c, made))
}

// userFor gives the path's user where the caller manages his domain or, with mine, is the user.
func (k *dialect) userFor(c *api.Context, mine bool, action string) (*model.User, error) {
	u, err := identity.GetUser(c.Snapshot(), c.Param("user"))
	if mine && c.Caller.UserID == c.Param("user") {
		return u, err
	}
	if err != nil {
		// Who may not look learns nothing, not even that there is no such user.
		if denied := manages(c, c.Caller.DomainID, action); denied != nil {
			return nil, denied
		}
		return nil, err
	}
	return u, manages(c, u.DomainID, action)
}

func (k *dialect) getUser(c *api.Context) error {
	u, err := k.userFor(c, true, "get_user")
	if err != nil {
		return err
	}
	return one(c, http.StatusOK, "user", showUser(c, u))
}

func (k *dialect) updateUser(c *api.Context) error {
	f, err := read(c, "user")
	if err != nil {
		return err
	}
	u, err := k.userFor(c, false, "update_user")
	if err != nil {
		return err
	}
	if err := k.spares(c, u.ID, "update_user"); err != nil {
		return err
	}
	var password *string
	if f.has("password") {
		password = new(string)
		f.text("password", password)
	}
	f.sameID("user", u.ID)
	made, err := k.id.UpdateUser(c.R.Context(), u.ID, password, func(u *model.User) error {
		f.text("name", &u.Name)
		u.DomainID = domainOf(f, u.DomainID)
		userFields(f, u)
		f.extra(&u.Extra)
		return f.err
	})
	if err != nil {
		return err
	}
	return one(c, http.StatusOK, "user", showUser(c, made))
}

func (k *dialect) deleteUser(c *api.Context) error {
	u, err := k.userFor(c, false, "delete_user")
	if err != nil {
		return err
	}
	if err := k.spares(c, u.ID, "delete_user"); err != nil {
		return err
	}
	if err := k.id.DeleteUser(c.R.Context(), u.ID); err != nil {
		return err
	}
	return c.Empty(http.StatusNoContent)
}

func (k *dialect) changePassword(c *api.Context) error {
	f, err := read(c, "user")
	if err != nil {
		return err
	}
	var original, password string
	f.must("original_password", &original)
	f.must("password", &password)
	if f.err != nil {
		return f.err
	}
	if err := k.id.ChangePassword(c.R.Context(), c.Param("user"), original, password); err != nil {
		return err
	}
	return c.Empty(http.StatusNoContent)
}

func (k *dialect) listUserGroups(c *api.Context) error {
	u, err := k.userFor(c, true, "list_groups_for_user")
	if err != nil {
		return err
	}
	var rows []map[string]any
	for g := range store.Groups.List(c.Snapshot(), "member", u.ID) {
		rows = append(rows, showGroup(c, g))
	}
	return list(c, "groups", rows, "name")
}

func (k *dialect) listUserProjects(c *api.Context) error {
	u, err := k.userFor(c, true, "list_user_projects")
	if err != nil {
		return err
	}
	var rows []map[string]any
	for _, p := range identity.UserProjects(c.Snapshot(), u.ID) {
		rows = append(rows, showProject(c, p))
	}
	return list(c, "projects", rows, "name", "enabled", "domain_id")
}
