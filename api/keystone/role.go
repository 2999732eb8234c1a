package keystone

import (
	"net/http"

	"yakumo/api"
	"yakumo/identity"
	"yakumo/model"
	"yakumo/store"
)

func (k *dialect) roleRoutes() []api.Route {
	return []api.Route{
		{Method: "GET", Pattern: "/v3/roles", Access: api.Manager, Handle: k.listRoles},
		{Method: "POST", Pattern: "/v3/roles", Access: api.Admin, Handle: k.createRole},
		{Method: "GET", Pattern: "/v3/roles/{role}", Access: api.Manager, Handle: k.getRole},
		{Method: "PATCH", Pattern: "/v3/roles/{role}", Access: api.Admin, Handle: k.updateRole},
		{Method: "DELETE", Pattern: "/v3/roles/{role}", Access: api.Admin, Handle: k.deleteRole},
		{Method: "GET", Pattern: "/v3/role_inferences", Access: api.Admin, Handle: k.listInferences},
		{Method: "GET", Pattern: "/v3/roles/{role}/implies", Access: api.Admin, Handle: k.listImplied},
		{Method: "PUT", Pattern: "/v3/roles/{role}/implies/{implied}", Access: api.Admin, Handle: k.imply},
		{Method: "GET", Pattern: "/v3/roles/{role}/implies/{implied}", Access: api.Admin, Handle: k.getInference},
		{Method: "DELETE", Pattern: "/v3/roles/{role}/implies/{implied}", Access: api.Admin, Handle: k.unimply},
	}
}

func showRole(c *api.Context, r *model.Role) map[string]any {
	return render(r.Extra, map[string]any{
		"id": r.ID, "name": r.Name, "domain_id": orNull(r.DomainID), "description": orNull(r.Description), "options": orEmpty(r.Options),
		"links": self(c, "roles", r.ID),
	})
}

func (k *dialect) listRoles(c *api.Context) error {
	// Without domain_id it lists the global roles, with it the domain's.
	domain := c.Query().Get("domain_id")
	var rows []map[string]any
	for r := range store.Roles.All(c.Snapshot()) {
		if r.DomainID == domain && (domain == "" || c.Caller.CloudAdmin || domain == c.Caller.DomainID) {
			rows = append(rows, showRole(c, r))
		}
	}
	return list(c, "roles", rows, "name")
}

func roleFields(f *fields, r *model.Role) error {
	f.text("name", &r.Name)
	f.text("description", &r.Description)
	f.text("domain_id", &r.DomainID)
	f.options(&r.Options)
	f.extra(&r.Extra)
	return f.err
}

func (k *dialect) createRole(c *api.Context) error {
	f, err := read(c, "role")
	if err != nil {
		return err
	}
	r := model.Role{}
	f.must("name", &r.Name)
	if err := roleFields(f, &r); err != nil {
		return err
	}
	made, err := k.id.CreateRole(c.R.Context(), r)
	if err != nil {
		return err
	}
	return one(c, http.StatusCreated, "role", showRole(c, made))
}

func (k *dialect) getRole(c *api.Context) error {
	r, err := identity.GetRole(c.Snapshot(), c.Param("role"))
	if err != nil {
		return err
	}
	if r.DomainID != "" {
		if err := manages(c, r.DomainID, "get_role"); err != nil {
			return err
		}
	}
	return one(c, http.StatusOK, "role", showRole(c, r))
}

func (k *dialect) updateRole(c *api.Context) error {
	f, err := read(c, "role")
	if err != nil {
		return err
	}
	f.sameID("role", c.Param("role"))
	r, err := k.id.UpdateRole(c.R.Context(), c.Param("role"), func(r *model.Role) error { return roleFields(f, r) })
	if err != nil {
		return err
	}
	return one(c, http.StatusOK, "role", showRole(c, r))
}

func (k *dialect) deleteRole(c *api.Context) error {
	if err := k.id.DeleteRole(c.R.Context(), c.Param("role")); err != nil {
		return err
	}
	return c.Empty(http.StatusNoContent)
}

func showShortRole(c *api.Context, r *model.Role) map[string]any {
	return map[string]any{"id": r.ID, "name": r.Name, "links": self(c, "roles", r.ID)}
}

func (k *dialect) inference(c *api.Context, prior model.ID, implied ...model.ID) (map[string]any, error) {
	from, err := identity.GetRole(c.Snapshot(), prior)
	if err != nil {
		return nil, err
	}
	rows := []any{}
	for _, id := range implied {
		to, err := identity.GetRole(c.Snapshot(), id)
		if err != nil {
			return nil, err
		}
		rows = append(rows, showShortRole(c, to))
	}
	return map[string]any{"prior_role": showShortRole(c, from), "implies": rows}, nil
}

// answerInference answers with one rule, whose implies is an object instead of a list.
func (k *dialect) answerInference(c *api.Context, status int) error {
	v, err := k.inference(c, c.Param("role"), c.Param("implied"))
	if err != nil {
		return err
	}
	v["implies"] = v["implies"].([]any)[0]
	return c.JSON(status, map[string]any{"role_inference": v, "links": self(c, "roles", c.Param("role"), "implies", c.Param("implied"))})
}

func (k *dialect) listInferences(c *api.Context) error {
	rows := []any{}
	for r := range store.Roles.All(c.Snapshot()) {
		if implied := identity.Implied(c.Snapshot(), r.ID); len(implied) > 0 {
			v, err := k.inference(c, r.ID, implied...)
			if err != nil {
				return err
			}
			rows = append(rows, v)
		}
	}
	return c.JSON(http.StatusOK, map[string]any{"role_inferences": rows, "links": self(c, "role_inferences")})
}

func (k *dialect) listImplied(c *api.Context) error {
	v, err := k.inference(c, c.Param("role"), identity.Implied(c.Snapshot(), c.Param("role"))...)
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, map[string]any{"role_inference": v, "links": self(c, "roles", c.Param("role"), "implies")})
}

func (k *dialect) imply(c *api.Context) error {
	if err := k.id.Imply(c.R.Context(), c.Param("role"), c.Param("implied")); err != nil {
		return err
	}
	return k.answerInference(c, http.StatusCreated)
}

func (k *dialect) getInference(c *api.Context) error {
	if err := identity.HasInference(c.Snapshot(), c.Param("role"), c.Param("implied")); err != nil {
		return err
	}
	return k.answerInference(c, http.StatusOK)
}

func (k *dialect) unimply(c *api.Context) error {
	if err := k.id.Unimply(c.R.Context(), c.Param("role"), c.Param("implied")); err != nil {
		return err
	}
	return c.Empty(http.StatusNoContent)
}
