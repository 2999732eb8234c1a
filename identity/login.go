package identity

import (
	"context"
	"slices"
	"time"

	"yakumo/fault"
	"yakumo/model"
	"yakumo/store"
)

// Ref names a user, project or domain: by id, or by name and, except for a domain, the
// domain it is in.
type Ref struct {
	ID, Name             string
	DomainID, DomainName string
}

// ScopeRequest is the scope that a login asks for.
type ScopeRequest struct {
	Asked   bool // false: the user's default project where he has one, otherwise the parent token's kind of nothing
	Kind    ScopeKind
	Ref     Ref    // of ProjectScope and DomainScope
	TrustID string // a trust's scope; Kind and Ref do not count
}

// Login is what a client presents to get a token.
type Login struct {
	Methods Methods // what of the following counts

	User     Ref // MethodPassword; MethodAppCredential by name
	Password string

	Token string // MethodToken

	AppCredID, AppCredName, AppCredSecret string // MethodAppCredential

	AccessTokenID string // MethodOAuth1, its signature verified by VerifyOAuth

	Scope ScopeRequest
}

// domainID gives the id of the domain that a Ref names, "" where there is none.
func domainID(r store.Reader, id, name string) model.ID {
	if id != "" {
		return id
	}
	if name != "" {
		key, _ := store.Domains.Holder(r, name)
		return key
	}
	return ""
}

// findUser gives the user that a Ref names, or nil.
func findUser(r store.Reader, ref Ref) *model.User {
	if ref.ID != "" {
		u, _ := store.Users.Get(r, ref.ID)
		return u
	}
	u, _ := store.Users.Claimed(r, domainID(r, ref.DomainID, ref.DomainName)+","+ref.Name)
	return u
}

// scope turns a request into a scope. Names that name nothing give an error of kind Unauthorized.
func (s ScopeRequest) scope(r store.Reader) (Scope, error) {
	switch s.Kind {
	case ProjectScope:
		if s.Ref.ID != "" {
			return Scope{ProjectScope, s.Ref.ID}, nil
		}
		id, ok := store.Projects.Holder(r, domainID(r, s.Ref.DomainID, s.Ref.DomainName)+","+s.Ref.Name)
		if !ok {
			return Scope{}, unauthorized("there is no project %q", s.Ref.Name)
		}
		return Scope{ProjectScope, id}, nil
	case DomainScope:
		id := domainID(r, s.Ref.ID, s.Ref.Name)
		if id == "" {
			return Scope{}, unauthorized("there is no domain %q", s.Ref.Name)
		}
		return Scope{DomainScope, id}, nil
	}
	return Scope{Kind: s.Kind}, nil
}

// Issue makes a token of a login. What is wrong with credentials or scope is
// fault.Unauthorized; what a token may not be exchanged for is fault.Forbidden.
func (i *Identity) Issue(ctx context.Context, l Login) (string, *Token, error) {
	if l.Methods == 0 {
		return "", nil, unauthorized("no method")
	}
	r := i.store.Snapshot()
	now := i.now().Truncate(time.Microsecond)
	c := Claims{Methods: l.Methods, IssuedAt: now, ExpiresAt: now.Add(i.cfg.TokenTTL), Audit: newAuditID()}
	var parent *Token
	who := func(id model.ID) error {
		if c.UserID != "" && c.UserID != id {
			return unauthorized("the methods name different users")
		}
		c.UserID = id
		return nil
	}
	if l.Methods&MethodToken != 0 {
		var err error
		if parent, err = i.validate(r, l.Token); err != nil {
			return "", nil, err
		}
		c.Methods |= parent.Methods
		c.Root = parent.Audit
		if parent.Root != (AuditID{}) {
			c.Root = parent.Root
		}
		c.ExpiresAt = parent.ExpiresAt
		if err := who(parent.UserID); err != nil {
			return "", nil, err
		}
	}
	if l.Methods&MethodPassword != 0 {
		u, err := i.checkPassword(ctx, r, l.User, l.Password)
		if err != nil {
			return "", nil, err
		}
		if err := who(u.ID); err != nil {
			return "", nil, err
		}
	}
	if l.Methods&MethodAppCredential != 0 {
		ac, err := i.checkAppCredential(ctx, r, l, now)
		if err != nil {
			return "", nil, err
		}
		if l.Scope.Asked && (l.Scope.Kind != ProjectScope || l.Scope.Ref.ID != ac.ProjectID) {
			return "", nil, unauthorized("an application credential cannot request a scope")
		}
		c.Via, c.ViaID, c.Scope = ViaAppCredential, ac.ID, Scope{ProjectScope, ac.ProjectID}
		if !ac.ExpiresAt.IsZero() && ac.ExpiresAt.Before(c.ExpiresAt) {
			c.ExpiresAt = ac.ExpiresAt
		}
		if err := who(ac.UserID); err != nil {
			return "", nil, err
		}
	}
	if l.Methods&MethodOAuth1 != 0 {
		rec, ok := store.IdentityRecords.Get(r, recordKey(AccessTokens, l.AccessTokenID))
		if !ok {
			return "", nil, unauthorized("there is no access token %s", l.AccessTokenID)
		}
		c.Via, c.ViaID, c.Scope = ViaAccessToken, rec.ID, Scope{ProjectScope, rec.PeerID}
		if err := who(rec.OwnerID); err != nil {
			return "", nil, err
		}
	}
	return i.grant(ctx, r, c, parent, l.Scope)
}

// grant finds the scope, checks that the user may have it, and signs.
func (i *Identity) grant(ctx context.Context, r store.Snapshot, c Claims, parent *Token, want ScopeRequest) (string, *Token, error) {
	u, err := enabledUser(r, c.UserID)
	if err != nil {
		return "", nil, err
	}
	if err := secondFactor(u, c.Methods); err != nil {
		return "", nil, err
	}
	switch {
	case parent != nil && parent.Via != ViaNothing:
		// What was delegated stays what it is: the same project, the same delegation.
		s, err := want.scope(r)
		if err != nil {
			return "", nil, err
		}
		if want.TrustID != "" || want.Asked && s != parent.Scope {
			return "", nil, forbidden("You are not authorized to perform the requested action: rescope a scoped token.")
		}
		c.Via, c.ViaID, c.Scope = parent.Via, parent.ViaID, parent.Scope
	case c.Via != ViaNothing:
	case want.TrustID != "":
		if c, err = i.useTrust(ctx, r, c, want.TrustID); err != nil {
			return "", nil, err
		}
		if u, err = enabledUser(r, c.UserID); err != nil {
			return "", nil, err
		}
	case want.Asked:
		if c.Scope, err = want.scope(r); err != nil {
			return "", nil, err
		}
	case u.DefaultProjectID != "":
		// The default project counts only where the user may have it.
		try := c
		try.Scope = Scope{ProjectScope, u.DefaultProjectID}
		if _, err := i.resolve(r, after(try, u), i.now()); err == nil {
			c = try
		}
	}
	c = after(c, u)
	t, err := i.resolve(r, c, i.now())
	if err != nil {
		return "", nil, err
	}
	key, err := i.keys.signer(r)
	if err != nil {
		return "", nil, err
	}
	return signToken(&t.Claims, key), t, nil
}

// after moves the time of issue past the user's last revocation, which another server
// may have written with a clock that is ahead.
func after(c Claims, u *model.User) Claims {
	if ahead := u.TokensNotBefore.Sub(c.IssuedAt); ahead > 0 && ahead < skew {
		c.IssuedAt = u.TokensNotBefore.Add(time.Microsecond - 1).Truncate(time.Microsecond)
	}
	return c
}

// checkPassword gives the user, having spent the same work whether or not there is one.
func (i *Identity) checkPassword(ctx context.Context, r store.Reader, ref Ref, password string) (*model.User, error) {
	u := findUser(r, ref)
	hash := ""
	if u != nil {
		hash = u.PasswordHash
	}
	ok, err := i.hash.verify(ctx, hash, password)
	switch {
	case err != nil:
		return nil, err
	case u == nil:
		return nil, unauthorized("there is no user %q %q", ref.ID, ref.Name)
	case !ok:
		return nil, unauthorized("wrong password of user %s", u.ID)
	}
	return u, nil
}

// secondFactor enforces the user options multi_factor_auth_enabled and
// multi_factor_auth_rules: the methods must cover one rule. A rule with a method that is
// not served can never be met.
func secondFactor(u *model.User, have Methods) error {
	if on, _ := u.Options["multi_factor_auth_enabled"].(bool); !on {
		return nil
	}
	rules, _ := u.Options["multi_factor_auth_rules"].([]any)
	if len(rules) == 0 {
		return nil
	}
	names := have.Names()
	for _, rule := range rules {
		need := strs(rule)
		if len(need) > 0 && !slices.ContainsFunc(need, func(m string) bool { return !slices.Contains(names, m) }) {
			return nil
		}
	}
	return unauthorized("user %s needs another authentication method", u.ID)
}

// strs gives the strings of a list as a row holds it before and after it was stored.
func strs(v any) []string {
	switch v := v.(type) {
	case []string:
		return v
	case []any:
		out := make([]string, 0, len(v))
		for _, e := range v {
			if s, ok := e.(string); ok {
				out = append(out, s)
			}
		}
		return out
	}
	return nil
}

// AdminProject gives the id of the cloud's admin project, "" before Bootstrap.
func AdminProject(r store.Reader) model.ID {
	if s, ok := store.Settings.Get(r, adminProjectSetting); ok {
		return string(s.Value)
	}
	return ""
}

const adminProjectSetting = "identity.admin_project"

// errUsedUp is the answer to one use too many of a trust.
var errUsedUp = fault.New(fault.Forbidden, "No remaining uses for the trust.")
