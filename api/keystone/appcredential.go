package keystone

import (
	"net/http"
	"slices"

	"yakumo/api"
	"yakumo/fault"
	"yakumo/identity"
	"yakumo/store"
)

func (k *dialect) appCredentialRoutes() []api.Route {
	const creds, rules = "/v3/users/{user}/application_credentials", "/v3/users/{user}/access_rules"
	return []api.Route{
		{Method: "GET", Pattern: creds, Access: api.Anyone, Handle: k.listAppCreds},
		{Method: "POST", Pattern: creds, Access: api.Anyone, Handle: k.createAppCred},
		{Method: "GET", Pattern: creds + "/{credential}", Access: api.Anyone, Handle: k.getAppCred},
		{Method: "DELETE", Pattern: creds + "/{credential}", Access: api.Anyone, Handle: k.deleteAppCred},
		{Method: "GET", Pattern: rules, Access: api.Anyone, Handle: k.listRules},
		{Method: "GET", Pattern: rules + "/{rule}", Access: api.Anyone, Handle: k.getRule},
		{Method: "DELETE", Pattern: rules + "/{rule}", Access: api.Anyone, Handle: k.deleteRule},
	}
}

func showRule(c *api.Context, r identity.AccessRule) map[string]any {
	v := map[string]any{"id": r.ID, "service": r.Service, "method": r.Method, "path": r.Path}
	if c != nil {
		v["links"] = self(c, "users", c.Param("user"), "access_rules", r.ID)
	}
	return v
}

// showRules shows rules with links where c is not nil.
func showRules(c *api.Context, rules []identity.AccessRule) []map[string]any {
	out := make([]map[string]any, 0, len(rules))
	for _, r := range rules {
		out = append(out, showRule(c, r))
	}
	return out
}

func showAppCred(c *api.Context, a *identity.AppCredential) map[string]any {
	roles := []map[string]any{}
	for _, id := range a.RoleIDs {
		if r, ok := store.Roles.Get(c.Snapshot(), id); ok {
			roles = append(roles, map[string]any{"id": r.ID, "name": r.Name, "domain_id": orNull(r.DomainID), "description": orNull(r.Description), "options": orEmpty(r.Options)})
		}
	}
	out := map[string]any{"id": a.ID, "name": a.Name, "description": orNull(a.Description), "user_id": a.UserID, "project_id": a.ProjectID, "roles": roles,
		"unrestricted": a.Unrestricted, "expires_at": nil, "system": nil, "links": self(c, "users", a.UserID, "application_credentials", a.ID)}
	if !a.ExpiresAt.IsZero() {
		out["expires_at"] = a.ExpiresAt.UTC().Format("2006-01-02T15:04:05.000000") // here Keystone leaves out the zone
	}
	if a.Limited {
		out["access_rules"] = showRules(nil, a.Rules)
	}
	return out
}

func (k *dialect) listAppCreds(c *api.Context) error {
	if err := owns(c, c.Param("user"), "list_application_credentials"); err != nil {
		return err
	}
	if _, err := identity.GetUser(c.Snapshot(), c.Param("user")); err != nil {
		return err
	}
	var rows []map[string]any
	for _, a := range identity.UserAppCredentials(c.Snapshot(), c.Param("user")) {
		rows = append(rows, showAppCred(c, a))
	}
	return list(c, "application_credentials", rows, "name")
}

// roleRefs reads a list of {"id": …} and {"name": …}; nil where there is no such list.
func roleRefs(f *fields) []identity.RoleRef {
	objects, ok := f.objects("roles")
	if !ok {
		return nil
	}
	out := []identity.RoleRef{}
	for _, o := range objects {
		var r identity.RoleRef
		o.text("id", &r.ID)
		o.text("name", &r.Name)
		if o.err != nil {
			f.fail(o.err)
		}
		if r.ID == "" && r.Name == "" {
			f.fail(fault.New(fault.Invalid, "Invalid input for field 'roles': each has an id or a name"))
		}
		out = append(out, r)
	}
	return out
}

// httpMethods are what an access rule may name.
var httpMethods = []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}

func accessRules(f *fields) []identity.AccessRule {
	objects, ok := f.objects("access_rules")
	if !ok {
		return nil
	}
	out := []identity.AccessRule{}
	for _, o := range objects {
		var r identity.AccessRule
		o.text("id", &r.ID)
		if r.ID == "" {
			o.must("service", &r.Service)
			o.must("method", &r.Method)
			o.must("path", &r.Path)
			if o.err == nil && !slices.Contains(httpMethods, r.Method) {
				o.fail(fault.New(fault.Invalid, "Invalid input for field 'method': '%.32s' is no method of HTTP", r.Method))
			}
			if o.err == nil && (len(r.Path) > 128 || len(r.Path) == 0 || r.Path[0] != '/') {
				o.fail(fault.New(fault.Invalid, "Invalid input for field 'path': it begins with a slash and has at most 128 characters"))
			}
		}
		if o.err != nil {
			f.fail(o.err)
		}
		out = append(out, r)
	}
	return out
}

func (k *dialect) createAppCred(c *api.Context) error {
	if c.Param("user") != c.Caller.UserID {
		return denied("create_application_credential")
	}
	f, err := read(c, "application_credential")
	if err != nil {
		return err
	}
	var a identity.AppCredential
	secret := ""
	f.must("name", &a.Name)
	f.text("description", &a.Description)
	f.text("secret", &secret)
	f.flag("unrestricted", &a.Unrestricted)
	f.time("expires_at", &a.ExpiresAt)
	a.Rules = accessRules(f)
	refs := roleRefs(f)
	if f.err != nil {
		return f.err
	}
	t, err := k.token(c)
	if err != nil {
		return err
	}
	project := ""
	if f.text("project_id", &project); project != "" && (t.Project == nil || t.Project.ID != project) {
		return denied("create_application_credential")
	}
	made, secret, err := k.id.CreateAppCredential(c.R.Context(), t, a, refs, secret)
	if err != nil {
		return err
	}
	out := showAppCred(c, made)
	out["secret"] = secret
	return one(c, http.StatusCreated, "application_credential", out)
}

func (k *dialect) appCredFor(c *api.Context, action string) (*identity.AppCredential, error) {
	if err := owns(c, c.Param("user"), action); err != nil {
		return nil, err
	}
	return identity.UserAppCredential(c.Snapshot(), c.Param("user"), c.Param("credential"))
}

func (k *dialect) getAppCred(c *api.Context) error {
	a, err := k.appCredFor(c, "get_application_credential")
	if err != nil {
		return err
	}
	return one(c, http.StatusOK, "application_credential", showAppCred(c, a))
}

// unrestricted refuses a token of a restricted delegation.
func (k *dialect) unrestricted(c *api.Context, action string) error {
	t, err := k.token(c)
	if err != nil {
		return err
	}
	if t.Delegated() {
		return denied(action)
	}
	return nil
}

func (k *dialect) deleteAppCred(c *api.Context) error {
	a, err := k.appCredFor(c, "delete_application_credential")
	if err != nil {
		return err
	}
	if err := k.unrestricted(c, "delete_application_credential"); err != nil {
		return err
	}
	if err := k.id.DeleteRecord(c.R.Context(), identity.AppCredentials, a.ID); err != nil {
		return err
	}
	return c.Empty(http.StatusNoContent)
}

func (k *dialect) listRules(c *api.Context) error {
	if err := owns(c, c.Param("user"), "list_access_rules"); err != nil {
		return err
	}
	rows := showRules(c, identity.UserAccessRules(c.Snapshot(), c.Param("user")))
	return list(c, "access_rules", rows, "service", "method", "path")
}

func (k *dialect) ruleFor(c *api.Context, action string) (identity.AccessRule, error) {
	if err := owns(c, c.Param("user"), action); err != nil {
		return identity.AccessRule{}, err
	}
	return identity.UserAccessRule(c.Snapshot(), c.Param("user"), c.Param("rule"))
}

func (k *dialect) getRule(c *api.Context) error {
	r, err := k.ruleFor(c, "get_access_rule")
	if err != nil {
		return err
	}
	return one(c, http.StatusOK, "access_rule", showRule(c, r))
}

func (k *dialect) deleteRule(c *api.Context) error {
	r, err := k.ruleFor(c, "delete_access_rule")
	if err != nil {
		return err
	}
	if err := k.unrestricted(c, "delete_access_rule"); err != nil {
		return err
	}
	if err := k.id.DeleteRecord(c.R.Context(), identity.AccessRules, r.ID); err != nil {
		return err
	}
	return c.Empty(http.StatusNoContent)
}
