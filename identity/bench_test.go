package identity_test

import (
	"testing"

	"yakumo/identity"
	"yakumo/model"
)

// BenchmarkIssue is the cost of a token without that of a password: an exchange of an
// unscoped token for a scoped one.
func BenchmarkIssue(b *testing.B) {
	c := newCloud(b)
	u, p := c.user("u"), c.project("p")
	c.assign("member", model.Assignment{UserID: u.ID, ProjectID: p.ID})
	first, _ := c.login(password(u, identity.ScopeRequest{Asked: true}))
	b.ReportAllocs()
	b.ResetTimer()
	for b.Loop() {
		if _, _, err := c.Issue(c.ctx, identity.Login{Methods: identity.MethodToken, Token: first, Scope: on(p.ID)}); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkAuthenticate is what every API request pays.
func BenchmarkAuthenticate(b *testing.B) {
	c := newCloud(b)
	u, p := c.user("u"), c.project("p")
	c.assign("member", model.Assignment{UserID: u.ID, ProjectID: p.ID})
	text, _ := c.login(password(u, on(p.ID)))
	b.ReportAllocs()
	b.ResetTimer()
	for b.Loop() {
		if _, err := c.Authenticate(c.ctx, text); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkAuthenticateRevoked10k is the same with ten thousand revocations in force.
func BenchmarkAuthenticateRevoked10k(b *testing.B) {
	c := newCloud(b)
	text, tok := c.admin()
	for range 10_000 / 500 {
		revokeMany(b, c, tok, 500)
	}
	b.ReportAllocs()
	b.ResetTimer()
	for b.Loop() {
		if _, err := c.Authenticate(c.ctx, text); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkPassword is a login by password with the production cost.
func BenchmarkPassword(b *testing.B) {
	c := newCloud(b)
	id, err := identity.New(identity.Config{Store: c.st, Master: master(), Now: c.clock.now})
	if err != nil {
		b.Fatal(err)
	}
	u, err := id.CreateUser(c.ctx, model.User{Name: "slow", DomainID: "default", Enabled: true}, "pw-slow")
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.ResetTimer()
	for b.Loop() {
		if _, _, err := id.Issue(c.ctx, password(u, identity.ScopeRequest{})); err != nil {
			b.Fatal(err)
		}
	}
}
