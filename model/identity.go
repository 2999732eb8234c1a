package model

import "time"

// DefaultDomain is the id of the domain that every cloud has, as in Keystone.
const DefaultDomain ID = "default"

// Domain is a name space of projects and users. Keystone also shows it as a project
// whose is_domain is true and that has no parent.
type Domain struct {
	ID          ID             `json:"id"`
	Name        string         `json:"name"` // unique in the cloud
	Description string         `json:"description,omitempty"`
	Enabled     bool           `json:"enabled"`
	Options     map[string]any `json:"options,omitempty"`
	Tags        []string       `json:"tags,omitempty"`
	Extra       map[string]any `json:"extra,omitempty"`
}

// Project owns resources. ParentID is the domain's id where no project is above it.
type Project struct {
	ID          ID             `json:"id"`
	DomainID    ID             `json:"domain_id"`
	ParentID    ID             `json:"parent_id"`
	Name        string         `json:"name"` // unique in its domain
	Description string         `json:"description,omitempty"`
	Enabled     bool           `json:"enabled"`
	Tags        []string       `json:"tags,omitempty"`
	Options     map[string]any `json:"options,omitempty"`
	Extra       map[string]any `json:"extra,omitempty"`
}

// User may authenticate.
type User struct {
	ID               ID             `json:"id"`
	DomainID         ID             `json:"domain_id"`
	Name             string         `json:"name"` // unique in its domain
	Email            string         `json:"email,omitempty"`
	Description      string         `json:"description,omitempty"`
	DefaultProjectID ID             `json:"default_project_id,omitempty"`
	Enabled          bool           `json:"enabled"`
	PasswordHash     string         `json:"password_hash,omitempty"` // PHC string, argon2id
	PasswordSetAt    time.Time      `json:"password_set_at"`
	Options          map[string]any `json:"options,omitempty"`
	Extra            map[string]any `json:"extra,omitempty"`
	// TokensNotBefore revokes at once every token of the user that was issued earlier.
	TokensNotBefore time.Time `json:"tokens_not_before"`
}

// Group is a set of users of one domain.
type Group struct {
	ID          ID             `json:"id"`
	DomainID    ID             `json:"domain_id"`
	Name        string         `json:"name"` // unique in its domain
	Description string         `json:"description,omitempty"`
	Members     []ID           `json:"members,omitempty"`
	Extra       map[string]any `json:"extra,omitempty"`
}

// Role is a named set of rights; admin, manager, member, reader and service always exist.
type Role struct {
	ID          ID             `json:"id"`
	DomainID    ID             `json:"domain_id,omitempty"`
	Name        string         `json:"name"`
	Description string         `json:"description,omitempty"`
	Options     map[string]any `json:"options,omitempty"`
	Extra       map[string]any `json:"extra,omitempty"`
}

// Assignment gives an actor (a user or a group) a role on a target (a project, a domain
// or, with System, the whole cloud). Exactly one actor and one target are set.
type Assignment struct {
	RoleID    ID   `json:"role_id"`
	UserID    ID   `json:"user_id,omitempty"`
	GroupID   ID   `json:"group_id,omitempty"`
	ProjectID ID   `json:"project_id,omitempty"`
	DomainID  ID   `json:"domain_id,omitempty"`
	System    bool `json:"system,omitempty"`
	Inherited bool `json:"inherited,omitempty"`
}

// Key is the assignment's identity: there is at most one with the same fields.
func (a *Assignment) Key() string {
	actor, target := "u"+a.UserID, "p"+a.ProjectID
	if a.GroupID != "" {
		actor = "g" + a.GroupID
	}
	switch {
	case a.System:
		target = "s"
	case a.DomainID != "":
		target = "d" + a.DomainID
	}
	if a.Inherited {
		target += "+"
	}
	return actor + "," + target + "," + a.RoleID
}

// IdentityRecord is a row of one of Keystone's smaller collections (regions, services,
// endpoints, credentials, application credentials, trusts, policies, limits …), whose
// rules live in package identity.
type IdentityRecord struct {
	Collection string         `json:"collection"`          // "region", "service", "endpoint", "credential" …
	ID         ID             `json:"id"`                  // unique in its collection
	OwnerID    ID             `json:"owner_id,omitempty"`  // the user it goes with
	ParentID   ID             `json:"parent_id,omitempty"` // the project, service, region or consumer it goes with
	PeerID     ID             `json:"peer_id,omitempty"`   // what else it goes with: a trust's trustee, a token's project
	Name       string         `json:"name,omitempty"`
	Enabled    bool           `json:"enabled"`
	Body       map[string]any `json:"body,omitempty"`
	Secret     string         `json:"secret,omitempty"` // hashed or sealed, never clear text
	ExpiresAt  time.Time      `json:"expires_at"`
}

// Key is the row's key in the store.
func (r *IdentityRecord) Key() string { return r.Collection + "," + r.ID }

// Revocation makes one token, or a token family by audit id, worthless until it would have expired anyway.
type Revocation struct {
	AuditID   string    `json:"audit_id"`
	ExpiresAt time.Time `json:"expires_at"`
}

// SigningKey signs tokens; Sealed holds the key encrypted under the cloud's master key.
type SigningKey struct {
	ID        ID        `json:"id"`
	Sealed    []byte    `json:"sealed"`
	CreatedAt time.Time `json:"created_at"`
	RetiredAt time.Time `json:"retired_at"` // zero while it may sign; it validates until deleted
}
