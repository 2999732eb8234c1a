package identity

import (
	"context"
	"slices"
	"time"

	"yakumo/fault"
	"yakumo/model"
	"yakumo/store"
)

// Token is a valid token with what it stands for at this moment. The rows are shared: do
// not change them.
type Token struct {
	Claims
	User          *model.User
	UserDomain    *model.Domain
	Project       *model.Project // of a project scope
	ProjectDomain *model.Domain
	Domain        *model.Domain // of a domain scope
	Roles         []*model.Role // global roles, with implied ones, by name
	// CloudAdmin: the admin role on the system or on the cloud's admin project.
	CloudAdmin bool
	AppCred    *AppCredential        // what the rights were delegated by
	Trust      *Trust                //
	Access     *model.IdentityRecord // an OAuth access token
}

// HasRole tells whether the token has the role.
func (t *Token) HasRole(name string) bool {
	return slices.ContainsFunc(t.Roles, func(r *model.Role) bool { return r.Name == name })
}

// Delegated tells whether the token's rights were handed on and so may not make more of
// themselves: they create no application credential, trust or access token.
func (t *Token) Delegated() bool {
	switch t.Via {
	case ViaNothing:
		return false
	case ViaAppCredential:
		return !t.AppCred.Unrestricted
	}
	return true
}

// errUnauthorized says no more than that, so that nothing can be learned from it.
var errUnauthorized = fault.New(fault.Unauthorized, "The request you have made requires authentication.")

func unauthorized(why string, args ...any) error {
	return fault.Wrap(fault.Unauthorized, fault.New(fault.Unauthorized, why, args...), "%s", errUnauthorized.Text)
}

// Authenticate tells what a token stands for. Whatever is not a valid token is
// fault.Unauthorized; the reason is in the error's cause, for the log.
func (i *Identity) Authenticate(_ context.Context, token string) (*Token, error) {
	return i.validate(i.store.Snapshot(), token)
}

func (i *Identity) validate(r store.Reader, token string) (*Token, error) {
	c, key, signed, mac, err := parseToken(token)
	if err != nil {
		return nil, unauthorized("the token is malformed")
	}
	ok, err := i.keys.verify(r, key, signed, mac)
	switch {
	case err != nil:
		return nil, err
	case !ok:
		return nil, unauthorized("the token's signature is wrong or its key is gone")
	}
	now := i.now()
	if !now.Before(c.ExpiresAt) {
		return nil, unauthorized("the token expired at %s", c.ExpiresAt.Format(time.RFC3339))
	}
	if _, gone := store.Revocations.Get(r, c.Audit.String()); gone {
		return nil, unauthorized("the token was revoked")
	}
	return i.resolve(r, c, now)
}

// resolve looks up what the claims name and refuses what does not hold any more.
func (i *Identity) resolve(r store.Reader, c Claims, now time.Time) (*Token, error) {
	t := &Token{Claims: c}
	if err := t.resolveUser(r); err != nil {
		return nil, err
	}
	grantor := c.UserID
	var only []model.ID // the delegated roles
	switch c.Via {
	case ViaAppCredential:
		ac, err := appCredential(r, c.ViaID)
		if err != nil || ac.UserID != c.UserID || ac.ProjectID != c.Scope.ID || ac.expired(now) {
			return nil, unauthorized("the application credential %s does not hold", c.ViaID)
		}
		t.AppCred, only = ac, ac.RoleIDs
	case ViaTrust:
		tr, err := trustOf(r, c.ViaID)
		if err != nil || tr.expired(now) || tr.ProjectID != c.Scope.ID {
			return nil, unauthorized("the trust %s does not hold", c.ViaID)
		}
		if want := tr.TrusteeID; tr.Impersonation && c.UserID != tr.TrustorID || !tr.Impersonation && c.UserID != want {
			return nil, unauthorized("the trust %s is another user's", c.ViaID)
		}
		for _, id := range []model.ID{tr.TrustorID, tr.TrusteeID} {
			if _, err := enabledUser(r, id); err != nil {
				return nil, err
			}
		}
		t.Trust, only, grantor = tr, tr.RoleIDs, tr.TrustorID
	case ViaAccessToken:
		rec, ok := store.IdentityRecords.Get(r, recordKey(AccessTokens, c.ViaID))
		if !ok || rec.OwnerID != c.UserID || rec.PeerID != c.Scope.ID {
			return nil, unauthorized("the access token %s does not hold", c.ViaID)
		}
		t.Access, only = rec, strs(rec.Body["roles"])
	}
	if err := t.resolveScope(r); err != nil {
		return nil, err
	}
	if c.Scope.Kind == Unscoped {
		return t, nil
	}
	t.Roles = EffectiveRoles(r, grantor, c.Scope)
	if c.Via != ViaNothing {
		allowed := closure(r, only)
		t.Roles = slices.DeleteFunc(t.Roles, func(role *model.Role) bool { return !slices.Contains(allowed, role.ID) })
	}
	if len(t.Roles) == 0 {
		return nil, unauthorized("user %s has no role on the scope", grantor)
	}
	if t.HasRole(AdminRole) {
		t.CloudAdmin = c.Scope.Kind == SystemScope || c.Scope.Kind == ProjectScope && c.Scope.ID == AdminProject(r)
	}
	return t, nil
}

func enabledUser(r store.Reader, id model.ID) (*model.User, error) {
	u, ok := store.Users.Get(r, id)
	if !ok {
		return nil, unauthorized("user %s does not exist", id)
	}
	if !u.Enabled {
		return nil, unauthorized("user %s is disabled", id)
	}
	if d, ok := store.Domains.Get(r, u.DomainID); !ok || !d.Enabled {
		return nil, unauthorized("the domain of user %s is disabled", id)
	}
	return u, nil
}

func (t *Token) resolveUser(r store.Reader) error {
	u, err := enabledUser(r, t.UserID)
	if err != nil {
		return err
	}
	t.User = u
	t.UserDomain, _ = store.Domains.Get(r, u.DomainID)
	if t.IssuedAt.Before(u.TokensNotBefore) {
		return unauthorized("the tokens of user %s were revoked", u.ID)
	}
	return nil
}

func (t *Token) resolveScope(r store.Reader) error {
	var ok bool
	switch t.Scope.Kind {
	case ProjectScope:
		if t.Project, ok = store.Projects.Get(r, t.Scope.ID); !ok || !t.Project.Enabled {
			return unauthorized("project %s is not there or disabled", t.Scope.ID)
		}
		if t.ProjectDomain, ok = store.Domains.Get(r, t.Project.DomainID); !ok || !t.ProjectDomain.Enabled {
			return unauthorized("the domain of project %s is disabled", t.Scope.ID)
		}
		for _, up := range Ancestors(r, t.Project) {
			if !up.Enabled {
				return unauthorized("a project above %s is disabled", t.Scope.ID)
			}
		}
	case DomainScope:
		if t.Domain, ok = store.Domains.Get(r, t.Scope.ID); !ok || !t.Domain.Enabled {
			return unauthorized("domain %s is not there or disabled", t.Scope.ID)
		}
	}
	return nil
}

// Revoke makes one token worthless.
func (i *Identity) Revoke(ctx context.Context, t *Token) error {
	_, err := i.store.Update(ctx, func(tx *store.Tx) error {
		return store.Revocations.Put(tx, &model.Revocation{AuditID: t.Audit.String(), ExpiresAt: t.ExpiresAt})
	})
	return err
}
