package identity_test

import (
	"bytes"
	"context"
	"log/slog"
	"sync"
	"testing"
	"time"

	"yakumo/fault"
	"yakumo/identity"
	"yakumo/model"
	"yakumo/store"
	"yakumo/store/storetest"
)

// cheap hashes fast: the tests are not about the cost.
var cheap = identity.HashParams{MemoryKiB: 64, Passes: 1, Concurrency: 2}

// clock is a time that the test moves.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func (c *clock) now() time.Time          { c.mu.Lock(); defer c.mu.Unlock(); return c.at }
func (c *clock) advance(d time.Duration) { c.mu.Lock(); c.at = c.at.Add(d); c.mu.Unlock() }

// cloud is an identity service that has been bootstrapped.
type cloud struct {
	*identity.Identity
	t     testing.TB
	st    *store.Store
	clock *clock
	ctx   context.Context
}

func master() []byte { return bytes.Repeat([]byte{7}, 32) }

func newCloud(t testing.TB) *cloud {
	t.Helper()
	st := storetest.New(t)
	c := &cloud{t: t, st: st, clock: &clock{at: time.Date(2026, 3, 1, 12, 0, 0, 123456789, time.UTC)}, ctx: t.Context()}
	c.Identity = open(t, st, c.clock)
	if err := c.Bootstrap(c.ctx, identity.Start{AdminPassword: "secret", BaseURL: "http://c.test"}); err != nil {
		t.Fatal(err)
	}
	return c
}

func open(t testing.TB, st *store.Store, cl *clock) *identity.Identity {
	t.Helper()
	id, err := identity.New(identity.Config{Store: st, Master: master(), Hash: cheap, Now: cl.now, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func (c *cloud) role(name string) model.ID {
	c.t.Helper()
	id, ok := store.Roles.Holder(c.Snapshot(), ","+name)
	if !ok {
		c.t.Fatalf("there is no role %s", name)
	}
	return id
}

func (c *cloud) user(name string) *model.User {
	c.t.Helper()
	u, err := c.CreateUser(c.ctx, model.User{Name: name, DomainID: model.DefaultDomain, Enabled: true}, "pw-"+name)
	if err != nil {
		c.t.Fatal(err)
	}
	return u
}

func (c *cloud) project(name string) *model.Project {
	c.t.Helper()
	p, err := c.CreateProject(c.ctx, model.Project{Name: name, DomainID: model.DefaultDomain, Enabled: true})
	if err != nil {
		c.t.Fatal(err)
	}
	return p
}

func (c *cloud) assign(role string, a model.Assignment) {
	c.t.Helper()
	a.RoleID = c.role(role)
	if err := c.Assign(c.ctx, a); err != nil {
		c.t.Fatal(err)
	}
}

func on(p model.ID) identity.ScopeRequest {
	return identity.ScopeRequest{Asked: true, Kind: identity.ProjectScope, Ref: identity.Ref{ID: p}}
}

func password(u *model.User, s identity.ScopeRequest) identity.Login {
	return identity.Login{Methods: identity.MethodPassword, User: identity.Ref{ID: u.ID}, Password: "pw-" + u.Name, Scope: s}
}

func (c *cloud) login(l identity.Login) (string, *identity.Token) {
	c.t.Helper()
	text, tok, err := c.Issue(c.ctx, l)
	if err != nil {
		c.t.Fatalf("login: %v", err)
	}
	return text, tok
}

// admin logs the bootstrapped administrator in on the admin project.
func (c *cloud) admin() (string, *identity.Token) {
	c.t.Helper()
	return c.login(identity.Login{Methods: identity.MethodPassword, User: identity.Ref{Name: "admin", DomainName: "Default"}, Password: "secret",
		Scope: identity.ScopeRequest{Asked: true, Kind: identity.ProjectScope, Ref: identity.Ref{Name: "admin", DomainID: "default"}}})
}

// adminID gives the administrator's user id.
func (c *cloud) adminID() model.ID { c.t.Helper(); _, tok := c.admin(); return tok.UserID }

func (c *cloud) valid(text string) *identity.Token {
	c.t.Helper()
	tok, err := c.Authenticate(c.ctx, text)
	if err != nil {
		c.t.Fatalf("the token should be valid: %v", err)
	}
	return tok
}

func (c *cloud) invalid(text, why string) {
	c.t.Helper()
	if _, err := c.Authenticate(c.ctx, text); !fault.Is(err, fault.Unauthorized) {
		c.t.Fatalf("%s: Authenticate gave %v, not unauthorized", why, err)
	}
}

func wantKind(t testing.TB, err error, k fault.Kind) {
	t.Helper()
	if !fault.Is(err, k) {
		t.Fatalf("got %v, want an error of kind %s", err, k)
	}
}

func names(roles []*model.Role) []string {
	out := []string{}
	for _, r := range roles {
		out = append(out, r.Name)
	}
	return out
}

func countKeys(st *store.Store) int {
	n := 0
	for range store.SigningKeys.All(st.Snapshot()) {
		n++
	}
	return n
}

// revokeMany revokes n tokens that nobody has.
func revokeMany(t testing.TB, c *cloud, like *identity.Token, n int) {
	t.Helper()
	if _, err := c.st.Update(c.ctx, func(tx *store.Tx) error {
		for range n {
			if err := store.Revocations.Put(tx, &model.Revocation{AuditID: model.NewHexID(), ExpiresAt: like.ExpiresAt}); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}
