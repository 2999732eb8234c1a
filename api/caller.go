package api

import (
	"context"
	"slices"
	"strings"
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
	RoleNames       []string // effective, with implied ones: admin ⊃ manager ⊃ member ⊃ reader
	// CloudAdmin: the admin role on the system or on the cloud's admin project. The admin
	// role on any other project or domain gives rights there and nowhere else.
	CloudAdmin bool
	ExpiresAt  time.Time
	AuditID    string
	Token      string // as presented; never logged
	// Limited: only the calls that match one of Rules are allowed, none where there is no
	// rule (an application credential with access rules).
	Limited bool
	Rules   []AccessRule
}

// AccessRule is a call that a limited caller may make.
type AccessRule struct {
	Service string // a Service's name, which is its type in the catalogue
	Method  string // of HTTP
	Path    string // below the service's prefix; * and {name} stand for a part, ** for any number
}

// covers tells whether the rule allows the call. path begins with a slash.
func (a AccessRule) covers(service, method, path string) bool {
	return a.Service == service && a.Method == method && matchPath(strings.Split(strings.Trim(a.Path, "/"), "/"), strings.Split(strings.Trim(path, "/"), "/"))
}

// matchPath goes back to the last ** only, which is enough and takes no more than the
// product of the lengths.
func matchPath(pattern, path []string) bool {
	p, n, star, mark := 0, 0, -1, 0
	for n < len(path) {
		switch {
		case p < len(pattern) && pattern[p] == "**":
			star, mark = p, n
			p++
		case p < len(pattern) && matchPart(pattern[p], path[n]):
			p++
			n++
		case star >= 0:
			mark++
			p, n = star+1, mark
		default:
			return false
		}
	}
	for p < len(pattern) && pattern[p] == "**" {
		p++
	}
	return p == len(pattern)
}

func matchPart(pattern, part string) bool {
	anything := pattern == "*" || strings.HasPrefix(pattern, "{") && strings.HasSuffix(pattern, "}")
	return pattern == part || anything && part != ""
}

// permits tells whether the caller's rules, where it has such, allow the call.
func (c *Caller) permits(service, method, path string) bool {
	return !c.Limited || slices.ContainsFunc(c.Rules, func(r AccessRule) bool { return r.covers(service, method, path) })
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
	_       Access = iota
	Public         // no token needed
	Anyone         // any valid token, unscoped too
	Reader         // reader, member or admin on the token's project, or a cloud administrator
	Member         // member or admin on the token's project, or a cloud administrator
	Admin          // a cloud administrator
	Manager        // manager or admin on the token's domain, for what is in it, or a cloud administrator
)

// String gives the class's name.
func (a Access) String() string {
	return [...]string{"(none)", "public", "anyone", "reader", "member", "admin", "manager"}[a]
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
	case Manager:
		return c.CloudAdmin || c.DomainID != "" && c.Has("manager")
	}
	return false
}
