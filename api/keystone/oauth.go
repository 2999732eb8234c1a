package keystone

import (
	"net/http"
	"net/url"
	"slices"
	"strings"

	"yakumo/api"
	"yakumo/fault"
	"yakumo/identity"
	"yakumo/model"
	"yakumo/store"
)

func (k *dialect) oauthRoutes() []api.Route {
	const tokens = "/v3/users/{user}/OS-OAUTH1/access_tokens"
	consumers := &collection{k: k, kind: identity.Consumers, noun: "consumer", plural: "consumers", path: "/v3/OS-OAUTH1/consumers", id: "consumer",
		read: api.Admin, write: api.Admin, show: showConsumer,
		fill: func(f *fields, rec *model.IdentityRecord, _ bool) {
			if f.has("secret") {
				f.fail(fault.New(fault.Invalid, "The secret of a consumer cannot be changed."))
			}
			put(f, rec, "description", false)
			putExtra(f, rec)
		}}
	out := consumers.routes()
	for n := range out {
		if out[n].Method == http.MethodPost {
			out[n].Handle = k.createConsumer
		}
	}
	return append(out,
		// The consumer's signature is what gives the right.
		api.Route{Method: "POST", Pattern: "/v3/OS-OAUTH1/request_token", Access: api.Public, Handle: k.requestToken},
		api.Route{Method: "POST", Pattern: "/v3/OS-OAUTH1/access_token", Access: api.Public, Handle: k.accessToken},
		api.Route{Method: "PUT", Pattern: "/v3/OS-OAUTH1/authorize/{token}", Access: api.Anyone, Handle: k.authorizeToken},
		api.Route{Method: "GET", Pattern: tokens, Access: api.Anyone, Handle: k.listAccessTokens},
		api.Route{Method: "GET", Pattern: tokens + "/{token}", Access: api.Anyone, Handle: k.getAccessToken},
		api.Route{Method: "DELETE", Pattern: tokens + "/{token}", Access: api.Anyone, Handle: k.revokeAccessToken},
		api.Route{Method: "GET", Pattern: tokens + "/{token}/roles", Access: api.Anyone, Handle: k.listAccessTokenRoles},
		api.Route{Method: "GET", Pattern: tokens + "/{token}/roles/{role}", Access: api.Anyone, Handle: k.getAccessTokenRole},
	)
}

// oauthRequest takes the OAuth parameters of a request's Authorization header (RFC 5849,
// section 3.5.1).
func oauthRequest(c *api.Context) identity.OAuthRequest {
	u, _, _ := strings.Cut(c.URL(strings.TrimPrefix(c.R.URL.EscapedPath(), "/identity")), "?")
	return identity.OAuthRequest{Method: c.R.Method, URL: u, Query: c.Query(), Params: oauthParams(c.R.Header.Get("Authorization"))}
}

func oauthParams(header string) map[string]string {
	out := map[string]string{}
	scheme, rest, _ := strings.Cut(strings.TrimSpace(header), " ")
	if !strings.EqualFold(scheme, "OAuth") {
		return out
	}
	for _, part := range strings.Split(rest, ",") {
		key, value, ok := strings.Cut(strings.TrimSpace(part), "=")
		if !ok {
			continue
		}
		if v, err := url.PathUnescape(strings.Trim(value, `"`)); err == nil {
			out[key] = v
		}
	}
	return out
}

func showConsumer(c *api.Context, r *model.IdentityRecord) map[string]any {
	return render(extraOf(r), map[string]any{"id": r.ID, "description": text(r, "description"), "links": self(c, "OS-OAUTH1", "consumers", r.ID)})
}

func (k *dialect) createConsumer(c *api.Context) error {
	f, err := read(c, "consumer")
	if err != nil {
		return err
	}
	description := ""
	var extra map[string]any
	f.text("description", &description)
	f.extra(&extra)
	if f.err != nil {
		return f.err
	}
	rec, secret, err := k.id.CreateConsumer(c.R.Context(), description, extra)
	if err != nil {
		return err
	}
	out := showConsumer(c, rec)
	out["secret"] = secret
	return one(c, http.StatusCreated, "consumer", out)
}

func answerForm(c *api.Context, rec *model.IdentityRecord, secret string) error {
	v := "oauth_token=" + rec.ID + "&oauth_token_secret=" + secret
	if !rec.ExpiresAt.IsZero() {
		v += "&oauth_expires_at=" + stamp(rec.ExpiresAt)
	}
	return c.Bytes(http.StatusCreated, "application/x-www-form-urlencoded", []byte(v))
}

func (k *dialect) requestToken(c *api.Context) error {
	rec, secret, err := k.id.RequestToken(c.R.Context(), oauthRequest(c), c.R.Header.Get("Requested-Project-Id"))
	if err != nil {
		return err
	}
	return answerForm(c, rec, secret)
}

func (k *dialect) accessToken(c *api.Context) error {
	rec, secret, err := k.id.AccessToken(c.R.Context(), oauthRequest(c))
	if err != nil {
		return err
	}
	return answerForm(c, rec, secret)
}

func (k *dialect) authorizeToken(c *api.Context) error {
	var body map[string]any
	if err := c.Decode(&body); err != nil {
		return err
	}
	f := newFields(body)
	refs := roleRefs(f)
	switch {
	case f.err != nil:
		return f.err
	case len(refs) == 0:
		return fault.New(fault.Invalid, "'roles' is a required property")
	}
	t, err := k.token(c)
	if err != nil {
		return err
	}
	verifier, err := k.id.AuthorizeRequest(c.R.Context(), t, c.Param("token"), refs)
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, map[string]any{"token": map[string]any{"oauth_verifier": verifier}})
}

func showAccessToken(c *api.Context, r *model.IdentityRecord) map[string]any {
	return map[string]any{"id": r.ID, "consumer_id": r.ParentID, "project_id": r.PeerID, "authorizing_user_id": r.OwnerID, "expires_at": stampOrNull(r.ExpiresAt),
		"links": map[string]any{"self": c.URL("/v3/users/" + r.OwnerID + "/OS-OAUTH1/access_tokens/" + r.ID), "roles": c.URL("/v3/users/" + r.OwnerID + "/OS-OAUTH1/access_tokens/" + r.ID + "/roles")}}
}

func (k *dialect) listAccessTokens(c *api.Context) error {
	if err := owns(c, c.Param("user"), "list_access_tokens"); err != nil {
		return err
	}
	var rows []map[string]any
	for _, r := range identity.UserAccessTokens(c.Snapshot(), c.Param("user")) {
		rows = append(rows, showAccessToken(c, r))
	}
	return list(c, "access_tokens", rows)
}

func (k *dialect) accessTokenFor(c *api.Context, action string) (*model.IdentityRecord, error) {
	if err := owns(c, c.Param("user"), action); err != nil {
		return nil, err
	}
	rec, err := identity.GetRecord(c.Snapshot(), identity.AccessTokens, c.Param("token"))
	if err != nil || rec.OwnerID != c.Param("user") {
		return nil, fault.New(fault.NotFound, "Could not find Access Token: %s.", c.Param("token"))
	}
	return rec, nil
}

func (k *dialect) getAccessToken(c *api.Context) error {
	rec, err := k.accessTokenFor(c, "get_access_token")
	if err != nil {
		return err
	}
	return one(c, http.StatusOK, "access_token", showAccessToken(c, rec))
}

func (k *dialect) revokeAccessToken(c *api.Context) error {
	rec, err := k.accessTokenFor(c, "delete_access_token")
	if err != nil {
		return err
	}
	if err := k.unrestricted(c, "delete_access_token"); err != nil {
		return err
	}
	if err := k.id.DeleteRecord(c.R.Context(), identity.AccessTokens, rec.ID); err != nil {
		return err
	}
	return c.Empty(http.StatusNoContent)
}

func accessTokenRoles(c *api.Context, rec *model.IdentityRecord) []*model.Role {
	var out []*model.Role
	ids := identity.RecordRoles(rec)
	for r := range store.Roles.All(c.Snapshot()) {
		if slices.Contains(ids, r.ID) {
			out = append(out, r)
		}
	}
	return out
}

func (k *dialect) listAccessTokenRoles(c *api.Context) error {
	rec, err := k.accessTokenFor(c, "list_access_token_roles")
	if err != nil {
		return err
	}
	var rows []map[string]any
	for _, r := range accessTokenRoles(c, rec) {
		rows = append(rows, showRole(c, r))
	}
	return list(c, "roles", rows)
}

func (k *dialect) getAccessTokenRole(c *api.Context) error {
	rec, err := k.accessTokenFor(c, "get_access_token_role")
	if err != nil {
		return err
	}
	for _, r := range accessTokenRoles(c, rec) {
		if r.ID == c.Param("role") {
			return one(c, http.StatusOK, "role", showRole(c, r))
		}
	}
	return fault.New(fault.NotFound, "Could not find role: %s.", c.Param("role"))
}
