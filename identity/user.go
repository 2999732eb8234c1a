package identity

import (
	"context"
	"slices"

	"yakumo/fault"
	"yakumo/model"
	"yakumo/store"
)

// GetUser gives a user, or fault.NotFound.
func GetUser(r store.Reader, id model.ID) (*model.User, error) {
	u, ok := store.Users.Get(r, id)
	if !ok {
		return nil, notFound("user", id)
	}
	return u, nil
}

func (i *Identity) checkUser(tx *store.Tx, u *model.User) error {
	if err := checkName("name", u.Name); err != nil {
		return err
	}
	if _, err := GetDomain(tx, u.DomainID); err != nil {
		return err
	}
	if _, isDomain := store.Domains.Get(tx, u.DefaultProjectID); u.DefaultProjectID != "" && isDomain {
		return fault.New(fault.Invalid, "User's default project ID cannot be a domain ID: %s", u.DefaultProjectID)
	}
	return checkUserOptions(u.Options)
}

// userOptions are Keystone's, each with what its value must be.
var userOptions = map[string]func(any) bool{
	"ignore_change_password_upon_first_use": isBool,
	"ignore_password_expiry":                isBool,
	"ignore_lockout_failure_attempts":       isBool,
	"ignore_user_inactivity":                isBool,
	"lock_password":                         isBool,
	"multi_factor_auth_enabled":             isBool,
	"multi_factor_auth_rules": func(v any) bool {
		rules, ok := v.([]any)
		for _, rule := range rules {
			methods, list := rule.([]any)
			ok = ok && list && len(methods) > 0 && len(strs(rule)) == len(methods)
		}
		return ok
	},
}

func isBool(v any) bool { _, ok := v.(bool); return ok }

func checkUserOptions(options map[string]any) error {
	for name, v := range options {
		if valid, known := userOptions[name]; !known || !valid(v) {
			return fault.New(fault.Invalid, "Invalid input for field 'options': '%s' is not an option of a user or has a wrong value.", name)
		}
	}
	return nil
}

// CreateUser stores a new user; it gives him an id. password empty: he has none.
func (i *Identity) CreateUser(ctx context.Context, u model.User, password string) (*model.User, error) {
	u.ID = model.NewHexID()
	if password != "" {
		hash, err := i.hash.hash(ctx, password)
		if err != nil {
			return nil, err
		}
		u.PasswordHash, u.PasswordSetAt = hash, i.now()
	}
	_, err := i.store.Update(ctx, func(tx *store.Tx) error {
		row := u
		if err := i.checkUser(tx, &row); err != nil {
			return err
		}
		mark(tx, row.DomainID)
		return duplicate(store.Users.Put(tx, &row), "user", "name "+u.Name+" at domain ID "+u.DomainID)
	})
	if err != nil {
		return nil, err
	}
	return &u, nil
}

// UpdateUser changes a user. change works on a copy and may run more than once. password,
// where it is not nil, replaces his; that, and disabling him, revokes his tokens.
func (i *Identity) UpdateUser(ctx context.Context, id model.ID, password *string, change func(*model.User) error) (*model.User, error) {
	hash := ""
	if password != nil {
		if _, err := GetUser(i.store.Snapshot(), id); err != nil {
			return nil, err
		}
		var err error
		if *password != "" {
			if hash, err = i.hash.hash(ctx, *password); err != nil {
				return nil, err
			}
		}
	}
	var out model.User
	_, err := i.store.Update(ctx, func(tx *store.Tx) error {
		old, err := GetUser(tx, id)
		if err != nil {
			return err
		}
		out = *old
		if err := change(&out); err != nil {
			return err
		}
		if out.DomainID != old.DomainID {
			return fault.New(fault.Invalid, "Cannot change Domain ID")
		}
		if password != nil {
			out.PasswordHash, out.PasswordSetAt = hash, i.now()
		}
		if password != nil || old.Enabled && !out.Enabled {
			out.TokensNotBefore = i.now()
		}
		if err := i.checkUser(tx, &out); err != nil {
			return err
		}
		row := out
		return duplicate(store.Users.Put(tx, &row), "user", "name "+out.Name+" at domain ID "+out.DomainID)
	})
	if err != nil {
		return nil, err
	}
	return &out, nil
}

// ChangePassword is a user's own change: it needs the password so far, and revokes all
// of his tokens.
func (i *Identity) ChangePassword(ctx context.Context, id model.ID, original, password string) error {
	u, err := i.checkPassword(ctx, i.store.Snapshot(), Ref{ID: id}, original)
	if err != nil {
		return err
	}
	if _, err := enabledUser(i.store.Snapshot(), id); err != nil {
		return err
	}
	if locked, _ := u.Options["lock_password"].(bool); locked {
		return fault.New(fault.Invalid, "Password change for user is locked: %s.", id)
	}
	if password == "" {
		return fault.New(fault.Invalid, "Invalid input for field 'password': it must not be empty.")
	}
	_, err = i.UpdateUser(ctx, id, &password, func(now *model.User) error {
		if now.PasswordHash != u.PasswordHash {
			return errUnauthorized // somebody else changed it meanwhile
		}
		return nil
	})
	return err
}

// RevokeUserTokens revokes every token of a user.
func (i *Identity) RevokeUserTokens(ctx context.Context, id model.ID) error {
	now := i.now()
	_, err := i.UpdateUser(ctx, id, nil, func(u *model.User) error { u.TokensNotBefore = now; return nil })
	return err
}

// DeleteUser deletes a user with his assignments, memberships and records.
func (i *Identity) DeleteUser(ctx context.Context, id model.ID) error {
	return i.removeAll(ctx, func(s *sweep) error {
		if _, err := GetUser(s.tx, id); err != nil {
			return err
		}
		return sweepUser(s, id)
	})
}

func sweepUser(s *sweep, id model.ID) error {
	guard(s.tx, id)
	for _, a := range collect(store.Assignments.List(s.tx, "user", id)) {
		if err := sweepRow(s, store.Assignments, a.Key()); err != nil {
			return err
		}
	}
	for _, g := range collect(store.Groups.List(s.tx, "member", id)) {
		if s.left--; s.left < 0 {
			return errSwept
		}
		if err := putMembers(s.tx, g, slices.DeleteFunc(slices.Clone(g.Members), func(m model.ID) bool { return m == id })); err != nil {
			return err
		}
	}
	if err := sweepRecords(s, id); err != nil {
		return err
	}
	unmark(s.tx, id)
	return sweepRow(s, store.Users, id)
}
