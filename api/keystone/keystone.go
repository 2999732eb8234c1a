// Package keystone is the Identity v3 dialect: OpenStack Keystone's routes, JSON forms and
// messages, in front of package identity, which has the rules.
//
// Who may call a route stands in the table (Service.Routes). Where that is Anyone or
// Manager, the handler looks at the thing besides: users reach what is their own, a
// domain's manager what is in his domain, a cloud administrator everything.
//
// Reads the identity tables through the request's snapshot; writes through identity only.
// Must not import another dialect or part.
package keystone

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"time"

	"yakumo/api"
	"yakumo/fault"
	"yakumo/identity"
	"yakumo/model"
)

// Config makes the dialect.
type Config struct {
	Identity *identity.Identity
}

// dialect holds what the handlers need.
type dialect struct{ id *identity.Identity }

// New makes the Identity v3 service, below /identity.
func New(cfg Config) api.Service {
	k := &dialect{id: cfg.Identity}
	s := api.Service{Name: "identity", Prefix: "/identity", Error: writeError}
	for _, part := range [][]api.Route{
		k.versionRoutes(), k.authRoutes(), k.userRoutes(), k.groupRoutes(), k.projectRoutes(), k.domainRoutes(), k.roleRoutes(),
		k.grantRoutes(), k.catalogRoutes(), k.credentialRoutes(), k.appCredentialRoutes(), k.trustRoutes(), k.oauthRoutes(),
		k.limitRoutes(), k.documentRoutes(),
	} {
		s.Routes = append(s.Routes, part...)
	}
	return s
}

// Authenticator makes callers of tokens.
type Authenticator struct{ Identity *identity.Identity }

// Authenticate is of api.Authenticator.
func (a Authenticator) Authenticate(ctx context.Context, token string) (*api.Caller, error) {
	t, err := a.Identity.Authenticate(ctx, token)
	if err != nil {
		return nil, err
	}
	return callerOf(t, token), nil
}

// Signed gives who signed a request with an EC2 credential.
func (a Authenticator) Signed(ctx context.Context, q identity.EC2Request) (*api.Caller, error) {
	token, t, err := a.Identity.IssueEC2(ctx, q)
	if err != nil {
		return nil, err
	}
	return callerOf(t, token), nil
}

func callerOf(t *identity.Token, token string) *api.Caller {
	c := &api.Caller{
		UserID: t.User.ID, UserName: t.User.Name, UserDomainID: t.User.DomainID, System: t.Scope.Kind == identity.SystemScope,
		CloudAdmin: t.CloudAdmin, ExpiresAt: t.ExpiresAt, AuditID: t.Audit.String(), Token: token, RoleNames: make([]string, len(t.Roles)),
	}
	for n, role := range t.Roles {
		c.RoleNames[n] = role.Name
	}
	if t.Project != nil {
		c.ProjectID, c.ProjectName, c.ProjectDomainID = t.Project.ID, t.Project.Name, t.Project.DomainID
	}
	if t.Domain != nil {
		c.DomainID = t.Domain.ID
	}
	if ac := t.AppCred; ac != nil && ac.Limited {
		c.Limited = true
		for _, r := range ac.Rules {
			c.Rules = append(c.Rules, api.AccessRule{Service: r.Service, Method: r.Method, Path: r.Path})
		}
	}
	return c
}

// writeError is Keystone's form of an error.
func writeError(c *api.Context, status int, err error) {
	text := api.Text(status, err)
	if status == http.StatusUnsupportedMediaType { // which Keystone does not use
		status, text = http.StatusBadRequest, expecting("application/json", "Content-Type header").Text
	}
	body, mErr := json.Marshal(map[string]any{"error": map[string]any{"code": status, "message": text, "title": http.StatusText(status)}})
	if mErr != nil {
		c.Log.Error("an error cannot be written", "err", mErr)
		return
	}
	c.W.Header().Set("Content-Type", "application/json")
	c.W.WriteHeader(status)
	if c.R.Method != http.MethodHead {
		if _, err := c.W.Write(body); err != nil {
			c.Log.Debug("the client went away", "err", err)
		}
	}
}

func (k *dialect) versionRoutes() []api.Route {
	get := func(pattern string, h api.Handler) api.Route {
		return api.Route{Method: "GET", Pattern: pattern, Access: api.Public, Handle: h, NoSync: true}
	}
	return []api.Route{get("/", k.versions), get("/v3", k.version), get("/v3/", k.version)}
}

// versionEntry is the API's only version; v3.14 is what Keystone has said since Rocky.
func versionEntry(c *api.Context) map[string]any {
	return map[string]any{
		"id": "v3.14", "status": "stable", "updated": "2020-04-07T00:00:00Z",
		"links":       []any{map[string]any{"rel": "self", "href": c.URL("/v3/")}},
		"media-types": []any{map[string]any{"base": "application/json", "type": "application/vnd.openstack.identity-v3+json"}},
	}
}

func (k *dialect) versions(c *api.Context) error {
	c.W.Header().Set("Location", c.URL("/v3/"))
	return c.JSON(http.StatusMultipleChoices, map[string]any{"versions": map[string]any{"values": []any{versionEntry(c)}}})
}

func (k *dialect) version(c *api.Context) error {
	return c.JSON(http.StatusOK, map[string]any{"version": versionEntry(c)})
}

// token gives the caller's token with what it stands for.
func (k *dialect) token(c *api.Context) (*identity.Token, error) {
	return k.id.Authenticate(c.R.Context(), c.Caller.Token)
}

func denied(action string) error {
	return fault.New(fault.Forbidden, "You are not authorized to perform the requested action: identity:%s.", action)
}

// manages refuses a caller who is neither a cloud administrator nor manager of the domain.
func manages(c *api.Context, domain model.ID, action string) error {
	if c.Caller.CloudAdmin || domain != "" && c.Caller.DomainID == domain && c.Caller.Has(identity.ManagerRole) {
		return nil
	}
	return denied(action)
}

// owns refuses a caller who is neither the user nor a cloud administrator.
func owns(c *api.Context, user model.ID, action string) error {
	if c.Caller.CloudAdmin || c.Caller.UserID == user {
		return nil
	}
	return denied(action)
}

// spares refuses a domain's manager who reaches for somebody or a group with the rights of
// a cloud administrator, which would hand him those rights.
func (k *dialect) spares(c *api.Context, id model.ID, action string) error {
	if !c.Caller.CloudAdmin && identity.HoldsCloudAdmin(c.Snapshot(), id) {
		return denied(action)
	}
	return nil
}

// stamp is Keystone's form of a time.
func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000000Z") }

// stampOrNull is stamp, and nil for no time.
func stampOrNull(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return stamp(t)
}

// orNull gives nil for the empty string.
func orNull(s string) any {
	if s == "" {
		return nil
	}
	return s
}

func self(c *api.Context, parts ...string) map[string]any {
	return map[string]any{"self": c.URL("/v3/" + strings.Join(parts, "/"))}
}
