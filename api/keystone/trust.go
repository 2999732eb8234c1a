package keystone

import (
	"net/http"
	"slices"

	"yakumo/api"
	"yakumo/fault"
	"yakumo/identity"
	"yakumo/model"
	"yakumo/store"
)

func (k *dialect) trustRoutes() []api.Route {
	const path = "/v3/OS-TRUST/trusts"
	return []api.Route{
		{Method: "GET", Pattern: path, Access: api.Anyone, Handle: k.listTrusts},
		{Method: "POST", Pattern: path, Access: api.Anyone, Handle: k.createTrust},
		{Method: "GET", Pattern: path + "/{trust}", Access: api.Anyone, Handle: k.getTrust},
		{Method: "DELETE", Pattern: path + "/{trust}", Access: api.Anyone, Handle: k.deleteTrust},
		{Method: "GET", Pattern: path + "/{trust}/roles", Access: api.Anyone, Handle: k.listTrustRoles},
		{Method: "GET", Pattern: path + "/{trust}/roles/{role}", Access: api.Anyone, Handle: k.getTrustRole},
	}
}

func showTrust(c *api.Context, t *identity.Trust) map[string]any {
	out := map[string]any{"id": t.ID, "trustor_user_id": t.TrustorID, "trustee_user_id": t.TrusteeID, "project_id": t.ProjectID, "impersonation": t.Impersonation,
		"expires_at": stampOrNull(t.ExpiresAt), "deleted_at": nil, "remaining_uses": nil, "redelegation_count": 0, "redelegated_trust_id": nil,
		"roles_links": map[string]any{"self": c.URL("/v3/OS-TRUST/trusts/" + t.ID + "/roles"), "next": nil, "previous": nil},
		"links":       self(c, "OS-TRUST", "trusts", t.ID)}
	if t.RemainingUses >= 0 {
		out["remaining_uses"] = t.RemainingUses
	}
	return out
}

func trustRoles(c *api.Context, t *identity.Trust) []map[string]any {
	out := []map[string]any{}
	for _, id := range t.RoleIDs {
		if r, ok := store.Roles.Get(c.Snapshot(), id); ok {
			out = append(out, showRole(c, r))
		}
	}
	return out
}

func (k *dialect) listTrusts(c *api.Context) error {
	trustor, trustee := c.Query().Get("trustor_user_id"), c.Query().Get("trustee_user_id")
	if !c.Caller.CloudAdmin && trustor != c.Caller.UserID && trustee != c.Caller.UserID {
		return denied("list_trusts")
	}
	var rows []map[string]any
	for _, rec := range identity.ListRecords(c.Snapshot(), identity.Trusts) {
		if trustor != "" && rec.OwnerID != trustor || trustee != "" && rec.PeerID != trustee {
			continue
		}
		if t, err := k.id.GetTrust(c.Snapshot(), rec.ID); err == nil {
			rows = append(rows, showTrust(c, t))
		}
	}
	return list(c, "trusts", rows)
}

func (k *dialect) createTrust(c *api.Context) error {
	f, err := read(c, "trust")
	if err != nil {
		return err
	}
	want := identity.Trust{RemainingUses: -1}
	f.must("trustor_user_id", &want.TrustorID)
	f.must("trustee_user_id", &want.TrusteeID)
	if f.flag("impersonation", &want.Impersonation); !f.has("impersonation") {
		f.fail(fault.New(fault.Invalid, "'impersonation' is a required property"))
	}
	f.text("project_id", &want.ProjectID)
	f.time("expires_at", &want.ExpiresAt)
	if v, ok := f.get("remaining_uses"); ok && v != nil {
		f.number("remaining_uses", 1, &want.RemainingUses)
	}
	if again := false; f.has("allow_redelegation") {
		if f.flag("allow_redelegation", &again); again && f.err == nil {
			return fault.New(fault.NotImplemented, "Trusts that may be handed on are not offered.")
		}
	}
	refs := roleRefs(f)
	if f.err != nil {
		return f.err
	}
	t, err := k.token(c)
	if err != nil {
		return err
	}
	made, err := k.id.CreateTrust(c.R.Context(), t, want, refs)
	if err != nil {
		return err
	}
	out := showTrust(c, made)
	out["roles"] = trustRoles(c, made)
	return one(c, http.StatusCreated, "trust", out)
}

// trustFor gives the path's trust where the caller is one of its ends or an administrator.
func (k *dialect) trustFor(c *api.Context) (*identity.Trust, error) {
	t, err := k.id.GetTrust(c.Snapshot(), c.Param("trust"))
	if err != nil {
		return nil, err
	}
	if !c.Caller.CloudAdmin && t.TrustorID != c.Caller.UserID && t.TrusteeID != c.Caller.UserID {
		return nil, denied("get_trust")
	}
	return t, nil
}

func (k *dialect) getTrust(c *api.Context) error {
	t, err := k.trustFor(c)
	if err != nil {
		return err
	}
	out := showTrust(c, t)
	out["roles"] = trustRoles(c, t)
	return one(c, http.StatusOK, "trust", out)
}

func (k *dialect) deleteTrust(c *api.Context) error {
	t, err := k.trustFor(c)
	if err != nil {
		return err
	}
	if err := owns(c, t.TrustorID, "delete_trust"); err != nil {
		return err
	}
	if err := k.unrestricted(c, "delete_trust"); err != nil {
		return err
	}
	if err := k.id.DeleteRecord(c.R.Context(), identity.Trusts, t.ID); err != nil {
		return err
	}
	return c.Empty(http.StatusNoContent)
}

func (k *dialect) listTrustRoles(c *api.Context) error {
	t, err := k.trustFor(c)
	if err != nil {
		return err
	}
	return list(c, "roles", trustRoles(c, t), "name")
}

func (k *dialect) getTrustRole(c *api.Context) error {
	t, err := k.trustFor(c)
	if err != nil {
		return err
	}
	var role *model.Role
	if slices.Contains(t.RoleIDs, c.Param("role")) {
		if role, err = identity.GetRole(c.Snapshot(), c.Param("role")); err != nil {
			return err
		}
	}
	if role == nil {
		return fault.New(fault.NotFound, "Could not find role: %s.", c.Param("role"))
	}
	return one(c, http.StatusOK, "role", showRole(c, role))
}
