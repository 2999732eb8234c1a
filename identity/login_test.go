package identity_test

import (
	"slices"
	"testing"
	"time"

	"yakumo/fault"
	"yakumo/identity"
	"yakumo/model"
	"yakumo/store/storetest"
)

func TestAdminLogsInAfterBootstrap(t *testing.T) {
	c := newCloud(t)
	text, issued := c.admin()
	tok := c.valid(text)
	if !tok.CloudAdmin || !slices.Equal(names(tok.Roles), []string{"admin", "manager", "member", "reader"}) {
		t.Errorf("CloudAdmin %v, roles %v", tok.CloudAdmin, names(tok.Roles))
	}
	if !tok.IssuedAt.Equal(issued.IssuedAt) || !tok.ExpiresAt.Equal(issued.ExpiresAt) || tok.Audit != issued.Audit {
		t.Errorf("issued %+v, validated %+v", issued.Claims, tok.Claims)
	}
	if got := tok.ExpiresAt.Sub(tok.IssuedAt); got != time.Hour {
		t.Errorf("the token lives %v", got)
	}
	sys, tok := c.login(identity.Login{Methods: identity.MethodPassword, User: identity.Ref{Name: "admin", DomainID: "default"}, Password: "secret",
		Scope: identity.ScopeRequest{Asked: true, Kind: identity.SystemScope}})
	if !c.valid(sys).CloudAdmin || tok.Project != nil {
		t.Error("the admin is no cloud administrator on the system")
	}
}

func TestWrongCredentialsAreUnauthorizedWithoutAReason(t *testing.T) {
	c := newCloud(t)
	u, p := c.user("u"), c.project("p")
	other := c.project("other")
	c.assign("member", model.Assignment{UserID: u.ID, ProjectID: p.ID})
	off := c.user("off")
	if _, err := c.UpdateUser(c.ctx, off.ID, nil, func(u *model.User) error { u.Enabled = false; return nil }); err != nil {
		t.Fatal(err)
	}
	blank, err := c.CreateUser(c.ctx, model.User{Name: "blank", DomainID: "default", Enabled: true}, "")
	if err != nil {
		t.Fatal(err)
	}
	pw := func(ref identity.Ref, password string, s identity.ScopeRequest) identity.Login {
		return identity.Login{Methods: identity.MethodPassword, User: ref, Password: password, Scope: s}
	}
	none := identity.ScopeRequest{}
	cases := map[string]identity.Login{
		"no method":             {},
		"wrong password":        pw(identity.Ref{ID: u.ID}, "x", none),
		"unknown user":          pw(identity.Ref{ID: "nobody"}, "x", none),
		"unknown name":          pw(identity.Ref{Name: "nobody", DomainID: "default"}, "x", none),
		"name, wrong domain":    pw(identity.Ref{Name: "u", DomainID: "elsewhere"}, "pw-u", none),
		"name, unknown domain":  pw(identity.Ref{Name: "u", DomainName: "elsewhere"}, "pw-u", none),
		"disabled user":         password(off, none),
		"user without password": pw(identity.Ref{ID: blank.ID}, "", none),
		"no role on project":    password(u, on(other.ID)),
		"unknown project":       password(u, on("nothing")),
		"unknown project name":  password(u, identity.ScopeRequest{Asked: true, Kind: identity.ProjectScope, Ref: identity.Ref{Name: "x", DomainID: "default"}}),
		"no role on domain":     password(u, identity.ScopeRequest{Asked: true, Kind: identity.DomainScope, Ref: identity.Ref{ID: "default"}}),
		"no role on system":     password(u, identity.ScopeRequest{Asked: true, Kind: identity.SystemScope}),
		"bad token":             {Methods: identity.MethodToken, Token: "gibberish"},
		"bad app credential":    {Methods: identity.MethodAppCredential, AppCredID: "x", AppCredSecret: "y"},
		"unknown trust":         password(u, identity.ScopeRequest{TrustID: "x"}),
	}
	for name, l := range cases {
		_, _, err := c.Issue(c.ctx, l)
		if !fault.Is(err, fault.Unauthorized) {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if text, _ := fault.Text(err); text != "The request you have made requires authentication." {
			t.Errorf("%s says %q", name, text)
		}
	}
}

func TestWhatHappensToAUserHappensToHisTokensAtOnce(t *testing.T) {
	type world struct {
		u *model.User
		p *model.Project
	}
	setUser := func(c *cloud, w world, f func(*model.User)) error {
		_, err := c.UpdateUser(c.ctx, w.u.ID, nil, func(u *model.User) error { f(u); return nil })
		return err
	}
	cases := map[string]func(*cloud, world) error{
		"disable the user":    func(c *cloud, w world) error { return setUser(c, w, func(u *model.User) { u.Enabled = false }) },
		"delete the user":     func(c *cloud, w world) error { return c.DeleteUser(c.ctx, w.u.ID) },
		"change his password": func(c *cloud, w world) error { return c.ChangePassword(c.ctx, w.u.ID, "pw-u", "new") },
		"reset his password": func(c *cloud, w world) error {
			pw := "new"
			_, err := c.UpdateUser(c.ctx, w.u.ID, &pw, func(*model.User) error { return nil })
			return err
		},
		"revoke his tokens": func(c *cloud, w world) error { return c.RevokeUserTokens(c.ctx, w.u.ID) },
		"disable the project": func(c *cloud, w world) error {
			_, err := c.UpdateProject(c.ctx, w.p.ID, func(p *model.Project) error { p.Enabled = false; return nil })
			return err
		},
		"disable the project above": func(c *cloud, w world) error {
			_, err := c.UpdateProject(c.ctx, w.p.ParentID, func(p *model.Project) error { p.Enabled = false; return nil })
			return err
		},
		"delete the project": func(c *cloud, w world) error { return c.DeleteProject(c.ctx, w.p.ID) },
		"take the role": func(c *cloud, w world) error {
			return c.Unassign(c.ctx, model.Assignment{RoleID: c.role("member"), UserID: w.u.ID, ProjectID: w.p.ID})
		},
		"disable the domain": func(c *cloud, w world) error {
			_, err := c.UpdateDomain(c.ctx, w.u.DomainID, func(d *model.Domain) error { d.Enabled = false; return nil })
			return err
		},
		"expire": func(c *cloud, w world) error { c.clock.advance(time.Hour); return nil },
	}
	for name, act := range cases {
		t.Run(name, func(t *testing.T) {
			c := newCloud(t)
			d, err := c.CreateDomain(c.ctx, model.Domain{Name: "d", Enabled: true})
			if err != nil {
				t.Fatal(err)
			}
			u, err := c.CreateUser(c.ctx, model.User{Name: "u", DomainID: d.ID, Enabled: true}, "pw-u")
			if err != nil {
				t.Fatal(err)
			}
			top, err := c.CreateProject(c.ctx, model.Project{Name: "top", DomainID: d.ID, Enabled: true})
			if err != nil {
				t.Fatal(err)
			}
			p, err := c.CreateProject(c.ctx, model.Project{Name: "p", DomainID: d.ID, ParentID: top.ID, Enabled: true})
			if err != nil {
				t.Fatal(err)
			}
			c.assign("member", model.Assignment{UserID: u.ID, ProjectID: p.ID})
			text, _ := c.login(password(u, on(p.ID)))
			c.valid(text)
			c.clock.advance(time.Microsecond)
			if err := act(c, world{u, p}); err != nil {
				t.Fatal(err)
			}
			c.invalid(text, name)
		})
	}
}

func TestRevokingATokenLeavesOthers(t *testing.T) {
	c := newCloud(t)
	one, tok := c.admin()
	two, _ := c.admin()
	if err := c.Revoke(c.ctx, tok); err != nil {
		t.Fatal(err)
	}
	c.invalid(one, "revoked")
	c.valid(two)
	c.clock.advance(2 * time.Hour)
	if err := c.Tidy(c.ctx); err != nil {
		t.Fatal(err)
	}
	c.invalid(one, "expired")
}

func TestRescopedTokenKeepsExpiryAndChain(t *testing.T) {
	c := newCloud(t)
	u, p, q := c.user("u"), c.project("p"), c.project("q")
	c.assign("member", model.Assignment{UserID: u.ID, ProjectID: p.ID})
	c.assign("reader", model.Assignment{UserID: u.ID, ProjectID: q.ID})
	first, root := c.login(password(u, identity.ScopeRequest{Asked: true}))
	if root.Scope.Kind != identity.Unscoped || len(root.Roles) != 0 {
		t.Fatalf("unscoped: %+v", root)
	}
	c.clock.advance(10 * time.Minute)
	second, tok := c.login(identity.Login{Methods: identity.MethodToken, Token: first, Scope: on(p.ID)})
	_, third := c.login(identity.Login{Methods: identity.MethodToken, Token: second, Scope: on(q.ID)})
	for _, got := range []*identity.Token{tok, third} {
		if !got.ExpiresAt.Equal(root.ExpiresAt) {
			t.Errorf("expires %v, the first one %v", got.ExpiresAt, root.ExpiresAt)
		}
		if ids := got.AuditIDs(); len(ids) != 2 || ids[1] != root.Audit.String() || ids[0] == ids[1] {
			t.Errorf("audit ids %v, the root's %v", ids, root.Audit)
		}
		if m := got.Methods.Names(); !slices.Equal(m, []string{"password", "token"}) {
			t.Errorf("methods %v", m)
		}
	}
	if !slices.Equal(names(third.Roles), []string{"reader"}) {
		t.Errorf("roles %v", names(third.Roles))
	}
}

func TestDefaultProjectCountsWhereTheUserMayHaveIt(t *testing.T) {
	c := newCloud(t)
	u, p := c.user("u"), c.project("p")
	if _, err := c.UpdateUser(c.ctx, u.ID, nil, func(u *model.User) error { u.DefaultProjectID = p.ID; return nil }); err != nil {
		t.Fatal(err)
	}
	if _, tok := c.login(password(u, identity.ScopeRequest{})); tok.Scope.Kind != identity.Unscoped {
		t.Errorf("without a role the scope is %+v", tok.Scope)
	}
	c.assign("member", model.Assignment{UserID: u.ID, ProjectID: p.ID})
	if _, tok := c.login(password(u, identity.ScopeRequest{})); tok.Scope != (identity.Scope{Kind: identity.ProjectScope, ID: p.ID}) {
		t.Errorf("with a role the scope is %+v", tok.Scope)
	}
	if _, tok := c.login(password(u, identity.ScopeRequest{Asked: true})); tok.Scope.Kind != identity.Unscoped {
		t.Errorf("explicitly unscoped, the scope is %+v", tok.Scope)
	}
}

func TestAdminOfAProjectIsNoCloudAdmin(t *testing.T) {
	c := newCloud(t)
	u, p := c.user("u"), c.project("p")
	c.assign("admin", model.Assignment{UserID: u.ID, ProjectID: p.ID})
	c.assign("admin", model.Assignment{UserID: u.ID, DomainID: "default"})
	if _, tok := c.login(password(u, on(p.ID))); tok.CloudAdmin || !tok.HasRole("admin") {
		t.Errorf("admin on a project: CloudAdmin %v, roles %v", tok.CloudAdmin, names(tok.Roles))
	}
	if _, tok := c.login(password(u, identity.ScopeRequest{Asked: true, Kind: identity.DomainScope, Ref: identity.Ref{ID: "default"}})); tok.CloudAdmin {
		t.Error("admin on a domain is a cloud administrator")
	}
	// A domain's own role of that name gives nothing but what it implies.
	own, err := c.CreateRole(c.ctx, model.Role{Name: "admin", DomainID: "default"})
	if err != nil {
		t.Fatal(err)
	}
	v := c.user("v")
	admin := identity.AdminProject(c.Snapshot())
	if err := c.Assign(c.ctx, model.Assignment{RoleID: own.ID, UserID: v.ID, ProjectID: admin}); err != nil {
		t.Fatal(err)
	}
	_, _, err = c.Issue(c.ctx, password(v, on(admin)))
	wantKind(t, err, fault.Unauthorized)
	if err := c.Imply(c.ctx, own.ID, c.role("reader")); err != nil {
		t.Fatal(err)
	}
	if _, tok := c.login(password(v, on(admin))); tok.CloudAdmin || !slices.Equal(names(tok.Roles), []string{"reader"}) {
		t.Errorf("a domain's role named admin: CloudAdmin %v, roles %v", tok.CloudAdmin, names(tok.Roles))
	}
	wantKind(t, c.Imply(c.ctx, own.ID, c.role("admin")), fault.Forbidden)
}

func TestTokenOfOneServerIsValidOnAnother(t *testing.T) {
	cl, prefix := storetest.Client(t)
	clk := &clock{at: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)}
	one, two := storetest.Open(t, cl, prefix), storetest.Open(t, cl, prefix)
	a, b := open(t, one, clk), open(t, two, clk)
	if err := a.Bootstrap(t.Context(), identity.Start{AdminPassword: "secret", BaseURL: "http://c.test"}); err != nil {
		t.Fatal(err)
	}
	login := identity.Login{Methods: identity.MethodPassword, User: identity.Ref{Name: "admin", DomainID: "default"}, Password: "secret"}
	text, _, err := a.Issue(t.Context(), login)
	if err != nil {
		t.Fatal(err)
	}
	if err := two.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Authenticate(t.Context(), text); err != nil {
		t.Fatal(err)
	}
	// Rotation: what the old key signed stays valid until it expires, and no longer.
	if err := b.Rotate(t.Context()); err != nil {
		t.Fatal(err)
	}
	fresh, _, err := b.Issue(t.Context(), login)
	if err != nil {
		t.Fatal(err)
	}
	if err := one.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, tok := range []string{text, fresh} {
		if _, err := a.Authenticate(t.Context(), tok); err != nil {
			t.Fatal(err)
		}
	}
	clk.advance(65*time.Minute + time.Second)
	if err := a.Tidy(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := countKeys(one); n != 1 {
		t.Errorf("%d signing keys are left, want 1", n)
	}
}

func TestBootstrapTwiceChangesNothingButURLs(t *testing.T) {
	c := newCloud(t)
	pw := "mine"
	tok := func() *identity.Token { _, tok := c.admin(); return tok }()
	if _, err := c.UpdateUser(c.ctx, tok.UserID, &pw, func(*model.User) error { return nil }); err != nil {
		t.Fatal(err)
	}
	endpoints := identity.ListRecords(c.Snapshot(), identity.Endpoints)
	if len(endpoints) != 21 {
		t.Fatalf("%d endpoints", len(endpoints))
	}
	mine, gone := endpoints[0], endpoints[1]
	if _, err := c.UpdateRecord(c.ctx, identity.Endpoints, mine.ID, nil, func(r *model.IdentityRecord) error {
		r.Body["url"] = "https://mine.test/"
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if err := c.DeleteRecord(c.ctx, identity.Endpoints, gone.ID); err != nil {
		t.Fatal(err)
	}
	before := c.Snapshot().Revision()
	if err := c.Bootstrap(c.ctx, identity.Start{AdminPassword: "other", BaseURL: "http://c.test"}); err != nil {
		t.Fatal(err)
	}
	if after := c.Snapshot().Revision(); after != before {
		t.Errorf("a second bootstrap wrote something (revision %d, before %d)", after, before)
	}
	if err := c.Bootstrap(c.ctx, identity.Start{AdminPassword: "other", BaseURL: "http://new.test"}); err != nil {
		t.Fatal(err)
	}
	for _, e := range identity.ListRecords(c.Snapshot(), identity.Endpoints) {
		url, _ := e.Body["url"].(string)
		switch {
		case e.ID == gone.ID:
			t.Error("a deleted endpoint came back")
		case e.ID == mine.ID && url != "https://mine.test/":
			t.Errorf("the changed endpoint is %s", url)
		case e.ID != mine.ID && url[:len("http://new.test/")] != "http://new.test/":
			t.Errorf("an endpoint stayed at %s", url)
		}
	}
	_, _, err := c.Issue(c.ctx, identity.Login{Methods: identity.MethodPassword, User: identity.Ref{ID: tok.UserID}, Password: "other"})
	wantKind(t, err, fault.Unauthorized)
	c.login(identity.Login{Methods: identity.MethodPassword, User: identity.Ref{ID: tok.UserID}, Password: "mine"})
}
