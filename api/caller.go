package api

import (
	"context"
	"slices"
	"time"
)

// Caller is who makes a request, as a valid token says.
type Caller struct {
	UserID          string
	UserName        string
	UserDomainID    string
	ProjectID       string // empty: not project-scoped
	ProjectName     string
	ProjectDomainID string
	DomainID        string   // of a domain-scoped token
	System          bool     // system-scoped
	RoleNames       []string // effective, with implied ones: admin ⊃ member ⊃ reader
	// CloudAdmin: the admin role on the system or on the cloud's admin project. The admin
	// role on any other project or domain gives rights there and nowhere else.
	CloudAdmin bool
	ExpiresAt  time.Time
	AuditID    string
	Token      string // as presented; never logged
}

// Has tells whether the caller has the role on the token's scope.
func (c *Caller) Has(role string) bool { return slices.Contains(c.RoleNames, role) }

// Sees tells whether the caller may see what belongs to the project.
func (c *Caller) Sees(project string) bool {
	return c.CloudAdmin || c.ProjectID != "" && c.ProjectID == project
}

// Authenticator makes a Caller of a token. It reports fault.Unauthorized for whatever is
// not a valid token, without saying why.
type Authenticator interface {
	Authenticate(ctx context.Context, token string) (*Caller, error)
}

// Access says who may call a route. The zero value is refused by the Front, so that no
// route is open by omission.
type Access uint8

// The classes of access. A handler checks ownership of the thing besides.
const (
	_      Access = iota
	Public        // no token needed
	Anyone        // any valid token, unscoped too
	Reader        // reader, member or admin on the token's project, or a cloud administrator
	Member        // member or admin on the token's project, or a cloud administrator
	Admin         // a cloud administrator
)

// String gives the class's name.
func (a Access) String() string {
	return [...]string{"(none)", "public", "anyone", "reader", "member", "admin"}[a]
}

// allows tells whether the caller is of the class.
func (a Access) allows(c *Caller) bool {
	switch a {
	case Public, Anyone:
		return true
	case Reader:
		return c.CloudAdmin || c.ProjectID != "" && c.Has("reader")
	case Member:
		return c.CloudAdmin || c.ProjectID != "" && c.Has("member")
	case Admin:
		return c.CloudAdmin
	}
	return false
}
