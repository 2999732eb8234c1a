package keystone

import (
	"encoding/json"
	"net/http"
	"slices"

	"yakumo/api"
	"yakumo/fault"
	"yakumo/identity"
	"yakumo/model"
	"yakumo/store"
)

func (k *dialect) authRoutes() []api.Route {
	return []api.Route{
		{Method: "POST", Pattern: "/v3/auth/tokens", Access: api.Public, Handle: k.issueToken},
		{Method: "GET", Pattern: "/v3/auth/tokens", Access: api.Anyone, Handle: k.showToken},
		{Method: "DELETE", Pattern: "/v3/auth/tokens", Access: api.Anyone, Handle: k.revokeToken},
		{Method: "GET", Pattern: "/v3/auth/catalog", Access: api.Anyone, Handle: k.showCatalog},
		{Method: "GET", Pattern: "/v3/auth/projects", Access: api.Anyone, Handle: k.authProjects},
		{Method: "GET", Pattern: "/v3/auth/domains", Access: api.Anyone, Handle: k.authDomains},
		{Method: "GET", Pattern: "/v3/auth/system", Access: api.Anyone, Handle: k.authSystem},
	}
}

// authBody is the body of POST /v3/auth/tokens.
type authBody struct {
	Auth *struct {
		Identity *struct {
			Methods  []string `json:"methods"`
			Password *struct {
				User *userRef `json:"user"`
			} `json:"password"`
			Token *struct {
				ID string `json:"id"`
			} `json:"token"`
			AppCred *struct {
				ID     string   `json:"id"`
				Name   string   `json:"name"`
				Secret string   `json:"secret"`
				User   *userRef `json:"user"`
			} `json:"application_credential"`
		} `json:"identity"`
		Scope json.RawMessage `json:"scope"`
	} `json:"auth"`
}

type domainRef struct {
	ID   string `json:"id"`
	Name string `json:"name"`
}

type userRef struct {
	ID       string     `json:"id"`
	Name     string     `json:"name"`
	Domain   *domainRef `json:"domain"`
	Password *string    `json:"password"`
}

type scopeBody struct {
	Project *struct {
		ID     string     `json:"id"`
		Name   string     `json:"name"`
		Domain *domainRef `json:"domain"`
	} `json:"project"`
	Domain *domainRef `json:"domain"`
	System *struct {
		All bool `json:"all"`
	} `json:"system"`
	Trust *struct {
		ID string `json:"id"`
	} `json:"OS-TRUST:trust"`
	Unscoped *struct{} `json:"unscoped"`
}

// expecting is Keystone's text for a part of a login that is missing.
func expecting(part, target string) *fault.Error {
	return fault.New(fault.Invalid, "Expecting to find %s in %s. The server could not comply with the request since it is either malformed or otherwise incorrect. The client is assumed to be in error.", part, target)
}

func (u *userRef) ref() (identity.Ref, error) {
	switch {
	case u == nil:
		return identity.Ref{}, expecting("user", "password")
	case u.ID != "":
		return identity.Ref{ID: u.ID}, nil
	case u.Name == "":
		return identity.Ref{}, expecting("id or name", "user")
	case u.Domain == nil || u.Domain.ID == "" && u.Domain.Name == "":
		return identity.Ref{}, expecting("domain", "user")
	}
	return identity.Ref{Name: u.Name, DomainID: u.Domain.ID, DomainName: u.Domain.Name}, nil
}

// login turns a body into what identity wants.
func (b *authBody) login() (identity.Login, error) {
	var l identity.Login
	var err error
	if b.Auth == nil {
		return l, fault.New(fault.Invalid, "'auth' is a required property")
	}
	id := b.Auth.Identity
	if id == nil {
		return l, fault.New(fault.Invalid, "'identity' is a required property")
	}
	if len(id.Methods) == 0 {
		return l, fault.New(fault.Invalid, "'methods' is a required property")
	}
	for _, m := range id.Methods {
		switch m {
		case "password":
			if id.Password == nil || id.Password.User == nil {
				return l, expecting("password", "identity")
			}
			if l.User, err = id.Password.User.ref(); err != nil {
				return l, err
			}
			if id.Password.User.Password == nil {
				return l, expecting("password", "user")
			}
			l.Methods |= identity.MethodPassword
			l.Password = *id.Password.User.Password
		case "token":
			if id.Token == nil || id.Token.ID == "" {
				return l, expecting("token", "identity")
			}
			l.Methods |= identity.MethodToken
			l.Token = id.Token.ID
		case "application_credential":
			ac := id.AppCred
			if ac == nil {
				return l, expecting("application_credential", "identity")
			}
			if ac.ID == "" {
				if ac.Name == "" {
					return l, expecting("id or name", "application_credential")
				}
				if l.User, err = ac.User.ref(); err != nil {
					return l, err
				}
			}
			l.Methods |= identity.MethodAppCredential
			l.AppCredID, l.AppCredName, l.AppCredSecret = ac.ID, ac.Name, ac.Secret
		case "oauth1":
			l.Methods |= identity.MethodOAuth1
		default:
			return l, fault.New(fault.Unauthorized, "Attempted to authenticate with an unsupported method.")
		}
	}
	if slices.Contains(id.Methods, "password") && slices.Contains(id.Methods, "application_credential") {
		return l, fault.New(fault.Unauthorized, "Attempted to authenticate with an unsupported method.")
	}
	l.Scope, err = readScope(b.Auth.Scope)
	return l, err
}

func readScope(raw json.RawMessage) (identity.ScopeRequest, error) {
	var s identity.ScopeRequest
	if len(raw) == 0 || string(raw) == "null" {
		return s, nil
	}
	var word string
	if json.Unmarshal(raw, &word) == nil {
		if word != "unscoped" {
			return s, fault.New(fault.Invalid, "Invalid input for field 'scope': '%.64s' is not a scope", word)
		}
		return identity.ScopeRequest{Asked: true}, nil
	}
	var b scopeBody
	if err := json.Unmarshal(raw, &b); err != nil {
		return s, fault.Wrap(fault.Invalid, err, "Invalid input for field 'scope': it is not an object of the right form")
	}
	n := 0
	if b.Project != nil {
		n++
		s = identity.ScopeRequest{Asked: true, Kind: identity.ProjectScope, Ref: identity.Ref{ID: b.Project.ID, Name: b.Project.Name}}
		switch d := b.Project.Domain; {
		case b.Project.ID != "":
		case b.Project.Name == "":
			return s, expecting("id or name", "project")
		case d == nil || d.ID == "" && d.Name == "":
			return s, expecting("domain", "project")
		default:
			s.Ref.DomainID, s.Ref.DomainName = d.ID, d.Name
		}
	}
	if b.Domain != nil {
		n++
		if b.Domain.ID == "" && b.Domain.Name == "" {
			return s, expecting("id or name", "domain")
		}
		s = identity.ScopeRequest{Asked: true, Kind: identity.DomainScope, Ref: identity.Ref{ID: b.Domain.ID, Name: b.Domain.Name}}
	}
	if b.System != nil {
		n++
		if !b.System.All {
			return s, fault.New(fault.Invalid, "Invalid input for field 'system': only {\"all\": true} is a scope")
		}
		s = identity.ScopeRequest{Asked: true, Kind: identity.SystemScope}
	}
	if b.Trust != nil {
		n++
		if b.Trust.ID == "" {
			return s, expecting("id", "OS-TRUST:trust")
		}
		s = identity.ScopeRequest{Asked: true, TrustID: b.Trust.ID}
	}
	if b.Unscoped != nil {
		n++
		s = identity.ScopeRequest{Asked: true}
	}
	if n != 1 {
		return s, fault.New(fault.Invalid, "Invalid input for field 'scope': it names %d scopes, not one", n)
	}
	return s, nil
}

func (k *dialect) issueToken(c *api.Context) error {
	var b authBody
	if err := c.Decode(&b); err != nil {
		return err
	}
	l, err := b.login()
	if err != nil {
		return err
	}
	if l.Methods&identity.MethodOAuth1 != 0 {
		if l.AccessTokenID, err = k.id.VerifyOAuth(c.R.Context(), oauthRequest(c)); err != nil {
			return err
		}
	}
	text, t, err := k.id.Issue(c.R.Context(), l)
	if err != nil {
		return err
	}
	return k.answerToken(c, http.StatusCreated, text, t)
}

func (k *dialect) answerToken(c *api.Context, status int, text string, t *identity.Token) error {
	c.W.Header().Set("X-Subject-Token", text)
	c.W.Header().Set("Vary", "X-Auth-Token")
	// c.Snapshot may be older than the token where a wait was left out; the token's rows are its own.
	return c.JSON(status, map[string]any{"token": showClaims(k.id.Snapshot(), t, c.Query().Has("nocatalog"))})
}

func nameIn(id, name string, d *model.Domain) map[string]any {
	return map[string]any{"id": id, "name": name, "domain": map[string]any{"id": d.ID, "name": d.Name}}
}

func showClaims(r store.Reader, t *identity.Token, noCatalog bool) map[string]any {
	user := nameIn(t.User.ID, t.User.Name, t.UserDomain)
	user["password_expires_at"] = nil
	out := map[string]any{
		"methods": t.Methods.Names(), "user": user, "audit_ids": t.AuditIDs(),
		"issued_at": stamp(t.IssuedAt), "expires_at": stamp(t.ExpiresAt),
	}
	switch {
	case t.Project != nil:
		out["project"] = nameIn(t.Project.ID, t.Project.Name, t.ProjectDomain)
		out["is_domain"] = false
	case t.Domain != nil:
		out["domain"] = map[string]any{"id": t.Domain.ID, "name": t.Domain.Name}
	case t.Scope.Kind == identity.SystemScope:
		out["system"] = map[string]any{"all": true}
	}
	if t.Scope.Kind != identity.Unscoped {
		roles := make([]map[string]any, 0, len(t.Roles))
		for _, role := range t.Roles {
			roles = append(roles, map[string]any{"id": role.ID, "name": role.Name})
		}
		out["roles"] = roles
		if !noCatalog {
			out["catalog"] = showServices(r, t)
		}
	}
	if tr := t.Trust; tr != nil {
		out["OS-TRUST:trust"] = map[string]any{"id": tr.ID, "impersonation": tr.Impersonation,
			"trustor_user": map[string]any{"id": tr.TrustorID}, "trustee_user": map[string]any{"id": tr.TrusteeID}}
	}
	if ac := t.AppCred; ac != nil {
		v := map[string]any{"id": ac.ID, "name": ac.Name, "restricted": !ac.Unrestricted}
		if ac.Limited {
			v["access_rules"] = showRules(nil, ac.Rules)
		}
		out["application_credential"] = v
	}
	if t.Access != nil {
		out["OS-OAUTH1"] = map[string]any{"access_token_id": t.Access.ID, "consumer_id": t.Access.ParentID}
	}
	return out
}

func showServices(r store.Reader, t *identity.Token) []map[string]any {
	out := []map[string]any{}
	for _, s := range identity.Catalog(r, t) {
		endpoints := make([]map[string]any, 0, len(s.Endpoints))
		for _, e := range s.Endpoints {
			endpoints = append(endpoints, map[string]any{"id": e.ID, "interface": e.Interface, "region": orNull(e.RegionID), "region_id": orNull(e.RegionID), "url": e.URL})
		}
		out = append(out, map[string]any{"id": s.ID, "type": s.Type, "name": s.Name, "endpoints": endpoints})
	}
	return out
}

// subject gives the token that a request is about, where the caller may know of it: his
// own, or any where he is a cloud administrator or a service.
func (k *dialect) subject(c *api.Context, action string) (string, *identity.Token, error) {
	text := c.R.Header.Get("X-Subject-Token")
	if text == "" {
		return "", nil, fault.New(fault.Invalid, "Expecting to find X-Subject-Token in the request's headers.")
	}
	t, err := k.id.Authenticate(c.R.Context(), text)
	mine := text == c.Caller.Token || err == nil && t.UserID == c.Caller.UserID
	if !mine && !c.Caller.CloudAdmin && !c.Caller.Has(identity.ServiceRole) {
		return "", nil, denied(action)
	}
	if err != nil {
		if fault.Is(err, fault.Unauthorized) {
			return "", nil, fault.Wrap(fault.NotFound, err, "Failed to validate token")
		}
		return "", nil, err
	}
	return text, t, nil
}

func (k *dialect) showToken(c *api.Context) error {
	text, t, err := k.subject(c, "validate_token")
	if err != nil {
		return err
	}
	return k.answerToken(c, http.StatusOK, text, t)
}

func (k *dialect) revokeToken(c *api.Context) error {
	_, t, err := k.subject(c, "revoke_token")
	if err != nil {
		return err
	}
	if t.UserID != c.Caller.UserID && !c.Caller.CloudAdmin {
		return denied("revoke_token") // a service may look, not take away
	}
	if err := k.id.Revoke(c.R.Context(), t); err != nil {
		return err
	}
	return c.Empty(http.StatusNoContent)
}

func (k *dialect) showCatalog(c *api.Context) error {
	t, err := k.token(c)
	if err != nil {
		return err
	}
	if t.Scope.Kind == identity.Unscoped {
		return denied("get_auth_catalog")
	}
	return c.JSON(http.StatusOK, map[string]any{"catalog": showServices(c.Snapshot(), t), "links": self(c, "auth", "catalog")})
}

func (k *dialect) authProjects(c *api.Context) error {
	var rows []map[string]any
	for _, p := range identity.UserProjects(c.Snapshot(), c.Caller.UserID) {
		rows = append(rows, showProject(c, p))
	}
	return list(c, "projects", rows, "name", "enabled", "domain_id")
}

func (k *dialect) authDomains(c *api.Context) error {
	var rows []map[string]any
	for _, d := range identity.UserDomains(c.Snapshot(), c.Caller.UserID) {
		rows = append(rows, showDomain(c, d))
	}
	return list(c, "domains", rows, "name", "enabled")
}

func (k *dialect) authSystem(c *api.Context) error {
	rows := []any{}
	if len(identity.EffectiveRoles(c.Snapshot(), c.Caller.UserID, identity.Scope{Kind: identity.SystemScope})) > 0 {
		rows = append(rows, map[string]any{"all": true})
	}
	return c.JSON(http.StatusOK, map[string]any{"system": rows, "links": self(c, "auth", "system")})
}
