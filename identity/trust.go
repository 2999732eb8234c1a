package identity

import (
	"context"
	"time"

	"yakumo/fault"
	"yakumo/model"
	"yakumo/store"
)

// Trust lets the trustee act on a project with roles of the trustor.
type Trust struct {
	ID, TrustorID, TrusteeID, ProjectID model.ID
	RoleIDs                             []model.ID
	Impersonation                       bool // tokens name the trustor instead of the trustee
	ExpiresAt                           time.Time
	RemainingUses                       int // < 0: no limit
}

func (t *Trust) expired(now time.Time) bool {
	return !t.ExpiresAt.IsZero() && !now.Before(t.ExpiresAt)
}

func trustOf(r store.Reader, id model.ID) (*Trust, error) {
	rec, err := GetRecord(r, Trusts, id)
	if err != nil {
		return nil, err
	}
	return ReadTrust(rec), nil
}

// ReadTrust reads a trust's record.
func ReadTrust(rec *model.IdentityRecord) *Trust {
	t := &Trust{ID: rec.ID, TrustorID: rec.OwnerID, TrusteeID: rec.PeerID, ProjectID: rec.ParentID,
		RoleIDs: strs(rec.Body["roles"]), ExpiresAt: rec.ExpiresAt, RemainingUses: -1}
	t.Impersonation, _ = rec.Body["impersonation"].(bool)
	switch n := rec.Body["remaining_uses"].(type) {
	case float64:
		t.RemainingUses = int(n)
	case int:
		t.RemainingUses = n
	}
	return t
}

// GetTrust gives a trust that has not expired, or fault.NotFound.
func (i *Identity) GetTrust(r store.Reader, id model.ID) (*Trust, error) {
	t, err := trustOf(r, id)
	if err != nil || t.expired(i.now()) {
		return nil, notFound("trust", id)
	}
	return t, nil
}

// CreateTrust makes a trust of the token's user. The token must be on the trust's project
// or have the roles there; a delegated token makes none.
func (i *Identity) CreateTrust(ctx context.Context, t *Token, want Trust, refs []RoleRef) (*Trust, error) {
	switch {
	case t.Delegated() || t.Via == ViaTrust:
		return nil, forbidden("You are not authorized to perform the requested action: create a trust with a delegated token.")
	case want.TrustorID != t.UserID:
		return nil, forbidden("You are not authorized to perform the requested action: create a trust for another user.")
	case want.expired(i.now()):
		return nil, fault.New(fault.Invalid, "The expiration time of a trust is in the past.")
	case want.RemainingUses == 0:
		return nil, fault.New(fault.Invalid, "remaining_uses must be a positive integer or null.")
	case len(refs) > 0 && want.ProjectID == "":
		return nil, fault.New(fault.Invalid, "A trust with roles needs a project.")
	case len(refs) == 0 || want.ProjectID == "":
		return nil, forbidden("At least one role should be specified")
	}
	rec := &model.IdentityRecord{Collection: Trusts, ID: model.NewHexID(), OwnerID: want.TrustorID, PeerID: want.TrusteeID,
		ParentID: want.ProjectID, Enabled: true, ExpiresAt: want.ExpiresAt}
	var out *Trust
	_, err := i.store.Update(ctx, func(tx *store.Tx) error {
		for _, id := range []model.ID{want.TrustorID, want.TrusteeID} {
			if _, err := GetUser(tx, id); err != nil {
				return err
			}
		}
		if _, err := GetProject(tx, want.ProjectID); err != nil {
			return err
		}
		on, err := delegator(tx, t, want.ProjectID)
		if err != nil {
			return err
		}
		roles, err := pickRoles(tx, on, refs)
		if err != nil {
			if fault.Is(err, fault.Invalid) {
				return forbidden("Could not find role assignment with the roles of the trust, user: %s, project: %s.", t.UserID, want.ProjectID)
			}
			return err
		}
		row := copyRecord(rec)
		row.Body = map[string]any{"roles": roles, "impersonation": want.Impersonation}
		if want.RemainingUses > 0 {
			row.Body["remaining_uses"] = want.RemainingUses
		}
		mark(tx, row.OwnerID, row.PeerID, row.ParentID)
		out = ReadTrust(row)
		return store.IdentityRecords.Put(tx, row)
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// delegator gives what the token's user may hand on on a project: his roles there, whatever
// his token is for; but a token that was itself delegated hands on its own roles on its
// own project only.
func delegator(r store.Reader, t *Token, project model.ID) (*Token, error) {
	on := &Token{Claims: Claims{UserID: t.UserID, Scope: Scope{ProjectScope, project}}}
	if t.Via == ViaNothing {
		on.Roles = EffectiveRoles(r, t.UserID, on.Scope)
		return on, nil
	}
	if t.Scope != on.Scope {
		return nil, forbidden("You are not authorized to perform the requested action: hand on rights on another project than the token's.")
	}
	on.Roles = t.Roles
	return on, nil
}

// useTrust turns the trustee's claims into those that the trust gives.
func (i *Identity) useTrust(ctx context.Context, r store.Reader, c Claims, id model.ID) (Claims, error) {
	tr, err := trustOf(r, id)
	switch {
	case err != nil || tr.expired(i.now()):
		return c, unauthorized("there is no trust %s", id)
	case tr.TrusteeID != c.UserID:
		return c, forbidden("User is not a trustee.")
	}
	c.Via, c.ViaID, c.Scope = ViaTrust, tr.ID, Scope{ProjectScope, tr.ProjectID}
	if tr.Impersonation {
		c.UserID = tr.TrustorID
	}
	if !tr.ExpiresAt.IsZero() && tr.ExpiresAt.Before(c.ExpiresAt) {
		c.ExpiresAt = tr.ExpiresAt
	}
	if _, err := i.resolve(r, c, i.now()); err != nil {
		return c, err
	}
	if tr.RemainingUses < 0 {
		return c, nil
	}
	_, err = i.store.Update(ctx, func(tx *store.Tx) error {
		rec, err := GetRecord(tx, Trusts, id)
		if err != nil {
			return errUnauthorized
		}
		left := ReadTrust(rec).RemainingUses
		if left == 0 {
			return errUsedUp
		}
		row := copyRecord(rec)
		row.Body["remaining_uses"] = left - 1
		return store.IdentityRecords.Put(tx, row)
	})
	return c, err
}
