package identity

import (
	"context"
	"slices"
	"time"

	"yakumo/fault"
	"yakumo/model"
	"yakumo/store"
)

// AccessRule is an API call that an application credential is limited to.
type AccessRule struct {
	ID model.ID
	// Service is a service type, Method an HTTP method, Path the path below the service's
	// endpoint; in it * stands for a part, {name} too, and ** for any number of parts.
	Service, Method, Path string
}

// AppCredential lets a program act for a user on one project with a secret of its own.
type AppCredential struct {
	ID, UserID, ProjectID model.ID
	Name, Description     string
	RoleIDs               []model.ID
	// Unrestricted: it may make application credentials and trusts.
	Unrestricted bool
	ExpiresAt    time.Time // zero: never
	RuleIDs      []model.ID
	Rules        []AccessRule
	Limited      bool // by its rules, even where they are none
	hash         string
}

func (a *AppCredential) expired(now time.Time) bool {
	return !a.ExpiresAt.IsZero() && !now.Before(a.ExpiresAt)
}

func appCredential(r store.Reader, id model.ID) (*AppCredential, error) {
	rec, err := GetRecord(r, AppCredentials, id)
	if err != nil {
		return nil, err
	}
	return readAppCredential(r, rec), nil
}

func readAppCredential(r store.Reader, rec *model.IdentityRecord) *AppCredential {
	a := &AppCredential{
		ID: rec.ID, UserID: rec.OwnerID, ProjectID: rec.ParentID, Name: rec.Name, Description: body(rec, "description"),
		RoleIDs: strs(rec.Body["roles"]), ExpiresAt: rec.ExpiresAt, hash: rec.Secret, RuleIDs: strs(rec.Body["access_rules"]),
	}
	a.Unrestricted, _ = rec.Body["unrestricted"].(bool)
	a.Limited, _ = rec.Body["limited"].(bool)
	for _, id := range a.RuleIDs {
		if rule, err := GetRecord(r, AccessRules, id); err == nil {
			a.Rules = append(a.Rules, readRule(rule))
		}
	}
	return a
}

func readRule(rec *model.IdentityRecord) AccessRule {
	return AccessRule{rec.ID, body(rec, "service"), body(rec, "method"), body(rec, "path")}
}

// UserAppCredential gives a user's application credential, or fault.NotFound.
func UserAppCredential(r store.Reader, user, id model.ID) (*AppCredential, error) {
	a, err := appCredential(r, id)
	if err != nil || a.UserID != user {
		return nil, notFound(nouns[AppCredentials], id)
	}
	return a, nil
}

// UserAppCredentials gives the user's application credentials.
func UserAppCredentials(r store.Reader, user model.ID) []*AppCredential {
	var out []*AppCredential
	for _, rec := range ownedRecords(r, AppCredentials, user) {
		out = append(out, readAppCredential(r, rec))
	}
	return out
}

func ownedRecords(r store.Reader, collection string, owner model.ID) []*model.IdentityRecord {
	return slices.DeleteFunc(collect(store.IdentityRecords.List(r, "owner", owner)), func(rec *model.IdentityRecord) bool {
		return rec.Collection != collection
	})
}

// UserAccessRules gives the access rules that the user's application credentials have made.
func UserAccessRules(r store.Reader, user model.ID) []AccessRule {
	var out []AccessRule
	for _, rec := range ownedRecords(r, AccessRules, user) {
		out = append(out, readRule(rec))
	}
	return out
}

// UserAccessRule gives one of them, or fault.NotFound.
func UserAccessRule(r store.Reader, user, id model.ID) (AccessRule, error) {
	rec, err := GetRecord(r, AccessRules, id)
	if err != nil || rec.OwnerID != user {
		return AccessRule{}, notFound(nouns[AccessRules], id)
	}
	return readRule(rec), nil
}

func accessRuleUsed(r store.Reader, rule *model.IdentityRecord) bool {
	for _, rec := range ownedRecords(r, AppCredentials, rule.OwnerID) {
		if slices.Contains(strs(rec.Body["access_rules"]), rule.ID) {
			return true
		}
	}
	return false
}

// RoleRef names a role by id or by name.
type RoleRef struct{ ID, Name string }

// pickRoles turns references into ids and refuses roles that the token does not have.
func pickRoles(r store.Reader, t *Token, refs []RoleRef) ([]model.ID, error) {
	var out []model.ID
	for _, ref := range refs {
		id := ref.ID
		if id == "" {
			id, _ = store.Roles.Holder(r, ","+ref.Name)
		}
		role, ok := store.Roles.Get(r, id)
		if !ok {
			return nil, notFound("role", ref.ID+ref.Name)
		}
		if !slices.ContainsFunc(t.Roles, func(have *model.Role) bool { return have.ID == role.ID }) {
			return nil, fault.New(fault.Invalid, "Invalid application credential: Could not find role assignment with role: %s, user or group: %s, project, domain, or system: %s.", role.ID, t.UserID, t.Scope.ID)
		}
		if !slices.Contains(out, role.ID) {
			out = append(out, role.ID)
		}
	}
	return out, nil
}

// CreateAppCredential makes an application credential for the token's user on the token's
// project. refs nil gives it every role of the token; secret empty makes one. It returns
// the secret, which cannot be read again.
func (i *Identity) CreateAppCredential(ctx context.Context, t *Token, a AppCredential, refs []RoleRef, secret string) (*AppCredential, string, error) {
	switch {
	case t.Delegated():
		return nil, "", forbidden("You are not authorized to perform the requested action: create an application credential with a restricted application credential, a trust or an access token.")
	case t.Project == nil:
		return nil, "", fault.New(fault.Invalid, "An application credential needs a project-scoped token.")
	case t.User.ID != t.UserID || t.Via == ViaTrust:
		return nil, "", forbidden("You are not authorized to perform the requested action: create an application credential for another user.")
	}
	if err := checkName("name", a.Name); err != nil {
		return nil, "", err
	}
	if a.expired(i.now()) {
		return nil, "", fault.New(fault.Invalid, "The expiration time of an application credential is in the past.")
	}
	var hash string
	if secret == "" {
		secret = randomSecret()
		hash = fastHash(secret)
	} else {
		var err error
		if hash, err = i.hash.hash(ctx, secret); err != nil {
			return nil, "", err
		}
	}
	rec := &model.IdentityRecord{
		Collection: AppCredentials, ID: model.NewHexID(), OwnerID: t.UserID, ParentID: t.Project.ID, Name: a.Name, Enabled: true,
		Secret: hash, ExpiresAt: a.ExpiresAt,
	}
	newIDs := make([]model.ID, len(a.Rules))
	for n := range newIDs {
		newIDs[n] = model.NewHexID()
	}
	slices.Sort(newIDs) // lists are in the order of ids: keep the rules' own order
	var out *AppCredential
	_, err := i.store.Update(ctx, func(tx *store.Tx) error {
		if _, err := GetUser(tx, t.UserID); err != nil {
			return err
		}
		if _, err := GetProject(tx, t.Project.ID); err != nil {
			return err
		}
		if refs == nil {
			for _, role := range t.Roles {
				refs = append(refs, RoleRef{ID: role.ID})
			}
		}
		roles, err := pickRoles(tx, t, refs)
		if err != nil {
			return err
		}
		ruleIDs, err := putRules(tx, t.UserID, a.Rules, newIDs)
		if err != nil {
			return err
		}
		row := copyRecord(rec)
		row.Body = map[string]any{
			"_claim": t.UserID + "," + a.Name, "description": a.Description, "roles": roles, "unrestricted": a.Unrestricted,
			"access_rules": ruleIDs, "limited": a.Rules != nil,
		}
		mark(tx, row.OwnerID, row.ParentID)
		if err := store.IdentityRecords.Put(tx, row); err != nil {
			return duplicate(err, "application_credential", "name "+a.Name+" for user "+t.UserID)
		}
		out = readAppCredential(tx, row)
		return nil
	})
	if err != nil {
		return nil, "", err
	}
	return out, secret, nil
}

// putRules stores access rules, using those of the user that are the same.
func putRules(tx *store.Tx, user model.ID, rules []AccessRule, newIDs []model.ID) ([]model.ID, error) {
	var out []model.ID
	have := UserAccessRules(tx, user)
	for n, rule := range rules {
		if rule.ID != "" {
			if _, err := UserAccessRule(tx, user, rule.ID); err != nil {
				return nil, err
			}
			out = append(out, rule.ID)
			continue
		}
		at := slices.IndexFunc(have, func(h AccessRule) bool {
			return h.Service == rule.Service && h.Method == rule.Method && h.Path == rule.Path
		})
		if at >= 0 {
			if _, err := UserAccessRule(tx, user, have[at].ID); err != nil { // compared at commit
				return nil, err
			}
			out = append(out, have[at].ID)
			continue
		}
		row := &model.IdentityRecord{Collection: AccessRules, ID: newIDs[n], OwnerID: user, Enabled: true,
			Body: map[string]any{"service": rule.Service, "method": rule.Method, "path": rule.Path}}
		if err := store.IdentityRecords.Put(tx, row); err != nil {
			return nil, err
		}
		rule.ID = row.ID
		have = append(have, rule)
		out = append(out, row.ID)
	}
	return out, nil
}

// checkAppCredential gives the application credential of a login.
func (i *Identity) checkAppCredential(ctx context.Context, r store.Reader, l Login, now time.Time) (*AppCredential, error) {
	var a *AppCredential
	if l.AppCredID != "" {
		a, _ = appCredential(r, l.AppCredID)
	} else if u := findUser(r, l.User); u != nil {
		for _, rec := range ownedRecords(r, AppCredentials, u.ID) {
			if rec.Name == l.AppCredName {
				a = readAppCredential(r, rec)
			}
		}
	}
	hash := ""
	if a != nil {
		hash = a.hash
	}
	ok, err := i.hash.verify(ctx, hash, l.AppCredSecret)
	switch {
	case err != nil:
		return nil, err
	case a == nil || !ok:
		return nil, unauthorized("there is no application credential %q %q with that secret", l.AppCredID, l.AppCredName)
	case a.expired(now):
		return nil, unauthorized("the application credential %s has expired", a.ID)
	}
	return a, nil
}
