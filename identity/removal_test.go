package identity_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"

	"yakumo/fault"
	"yakumo/identity"
	"yakumo/model"
	"yakumo/store"
)

// hangs counts the rows that name the id anywhere.
func hangs(c *cloud, id model.ID) int {
	r, n := c.Snapshot(), 0
	for a := range store.Assignments.All(r) {
		if slices.Contains([]model.ID{a.UserID, a.GroupID, a.ProjectID, a.DomainID, a.RoleID}, id) {
			n++
		}
	}
	for rec := range store.IdentityRecords.All(r) {
		if slices.Contains([]model.ID{rec.OwnerID, rec.ParentID, rec.PeerID}, id) {
			n++
		}
	}
	for g := range store.Groups.All(r) {
		if slices.Contains(g.Members, id) {
			n++
		}
	}
	return n
}

func TestRemovalTakesWhatHangsOnTheThing(t *testing.T) {
	c := newCloud(t)
	_, admin := c.admin()
	cases := map[string]struct {
		prepare func() model.ID
		remove  func(model.ID) error
	}{
		"user": {func() model.ID {
			u, p := c.user("a"), c.project("ap")
			c.assign("member", model.Assignment{UserID: u.ID, ProjectID: p.ID})
			c.assign("reader", model.Assignment{UserID: u.ID, System: true})
			_, tok := c.login(password(u, on(p.ID)))
			if _, _, err := c.CreateAppCredential(c.ctx, tok, identity.AppCredential{Name: "x", Rules: []identity.AccessRule{{Service: "s", Method: "GET", Path: "/"}}}, nil, ""); err != nil {
				t.Fatal(err)
			}
			if _, err := c.CreateTrust(c.ctx, tok, identity.Trust{TrustorID: u.ID, TrusteeID: admin.UserID, ProjectID: p.ID, RemainingUses: -1}, []identity.RoleRef{{Name: "member"}}); err != nil {
				t.Fatal(err)
			}
			if _, err := c.CreateTrust(c.ctx, admin, identity.Trust{TrustorID: admin.UserID, TrusteeID: u.ID, ProjectID: admin.Project.ID, RemainingUses: -1}, []identity.RoleRef{{Name: "member"}}); err != nil {
				t.Fatal(err)
			}
			if _, err := c.CreateRecord(c.ctx, &model.IdentityRecord{Collection: identity.Credentials, OwnerID: u.ID, Body: map[string]any{"type": "cert"}}, "x"); err != nil {
				t.Fatal(err)
			}
			g, err := c.CreateGroup(c.ctx, model.Group{Name: "ag", DomainID: "default"})
			if err != nil {
				t.Fatal(err)
			}
			if err := c.Join(c.ctx, g.ID, u.ID); err != nil {
				t.Fatal(err)
			}
			return u.ID
		}, func(id model.ID) error { return c.DeleteUser(c.ctx, id) }},
		"group": {func() model.ID {
			g, err := c.CreateGroup(c.ctx, model.Group{Name: "bg", DomainID: "default"})
			if err != nil {
				t.Fatal(err)
			}
			c.assign("member", model.Assignment{GroupID: g.ID, DomainID: "default", Inherited: true})
			return g.ID
		}, func(id model.ID) error { return c.DeleteGroup(c.ctx, id) }},
		"project": {func() model.ID {
			u, p := c.user("c"), c.project("cp")
			c.assign("member", model.Assignment{UserID: u.ID, ProjectID: p.ID})
			_, tok := c.login(password(u, on(p.ID)))
			if _, _, err := c.CreateAppCredential(c.ctx, tok, identity.AppCredential{Name: "x"}, nil, "s"); err != nil {
				t.Fatal(err)
			}
			if _, err := c.CreateRecord(c.ctx, &model.IdentityRecord{Collection: identity.ProjectEndpoints, ID: "x", ParentID: p.ID, PeerID: identity.ListRecords(c.Snapshot(), identity.Endpoints)[0].ID}, ""); err != nil {
				t.Fatal(err)
			}
			return p.ID
		}, func(id model.ID) error { return c.DeleteProject(c.ctx, id) }},
		"role": {func() model.ID {
			r, err := c.CreateRole(c.ctx, model.Role{Name: "r"})
			if err != nil {
				t.Fatal(err)
			}
			u := c.user("d")
			if err := c.Assign(c.ctx, model.Assignment{RoleID: r.ID, UserID: u.ID, System: true}); err != nil {
				t.Fatal(err)
			}
			if err := c.Imply(c.ctx, r.ID, c.role("reader")); err != nil {
				t.Fatal(err)
			}
			if err := c.Imply(c.ctx, c.role("service"), r.ID); err != nil {
				t.Fatal(err)
			}
			return r.ID
		}, func(id model.ID) error { return c.DeleteRole(c.ctx, id) }},
	}
	for name, k := range cases {
		t.Run(name, func(t *testing.T) {
			id := k.prepare()
			if hangs(c, id) == 0 {
				t.Fatal("nothing hangs on the thing: the test is void")
			}
			if err := k.remove(id); err != nil {
				t.Fatal(err)
			}
			if n := hangs(c, id); n != 0 {
				t.Errorf("%d rows are left", n)
			}
			wantKind(t, k.remove(id), fault.NotFound)
		})
	}
}

// A domain with more in it than one transaction holds goes too, with all of it.
func TestRemovalOfALargeDomain(t *testing.T) {
	c := newCloud(t)
	d, err := c.CreateDomain(c.ctx, model.Domain{Name: "large", Enabled: true})
	if err != nil {
		t.Fatal(err)
	}
	role, err := c.CreateRole(c.ctx, model.Role{Name: "own", DomainID: d.ID})
	if err != nil {
		t.Fatal(err)
	}
	var ids []model.ID
	for n := range 150 {
		u, err := c.CreateUser(c.ctx, model.User{Name: fmt.Sprint("u", n), DomainID: d.ID, Enabled: true}, "")
		if err != nil {
			t.Fatal(err)
		}
		p, err := c.CreateProject(c.ctx, model.Project{Name: fmt.Sprint("p", n), DomainID: d.ID, Enabled: true})
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range []model.ID{c.role("member"), c.role("reader"), role.ID} {
			if err := c.Assign(c.ctx, model.Assignment{RoleID: r, UserID: u.ID, ProjectID: p.ID}); err != nil {
				t.Fatal(err)
			}
		}
		ids = append(ids, u.ID, p.ID)
	}
	wantKind(t, c.DeleteDomain(c.ctx, d.ID), fault.Forbidden)
	if _, err := c.UpdateDomain(c.ctx, d.ID, func(d *model.Domain) error { d.Enabled = false; return nil }); err != nil {
		t.Fatal(err)
	}
	if err := c.DeleteDomain(c.ctx, d.ID); err != nil {
		t.Fatal(err)
	}
	r := c.Snapshot()
	for _, id := range append(ids, d.ID, role.ID) {
		_, u := store.Users.Get(r, id)
		_, p := store.Projects.Get(r, id)
		if u || p || hangs(c, id) > 0 {
			t.Fatalf("something of %s is left", id)
		}
	}
	if _, err := identity.GetDomain(r, d.ID); !fault.Is(err, fault.NotFound) {
		t.Errorf("the domain is there: %v", err)
	}
}

// Whoever adds to a thing while another removes it either fails or has it removed too.
func TestAdditionDoesNotSlipPastARemoval(t *testing.T) {
	c := newCloud(t)
	p := c.project("p")
	member := c.role("member")
	for n := range 20 {
		u := c.user(fmt.Sprint("u", n))
		var wg sync.WaitGroup
		wg.Add(2)
		var removed, assigned error
		go func() { defer wg.Done(); removed = c.DeleteUser(context.Background(), u.ID) }()
		go func() {
			defer wg.Done()
			assigned = c.Assign(context.Background(), model.Assignment{RoleID: member, UserID: u.ID, ProjectID: p.ID})
		}()
		wg.Wait()
		if removed != nil {
			t.Fatal(removed)
		}
		if assigned != nil && !fault.Is(assigned, fault.NotFound) {
			t.Fatal(assigned)
		}
		if n := hangs(c, u.ID); n != 0 {
			t.Fatalf("%d rows of a removed user are left", n)
		}
	}
}

func TestTwoRulesAtOnceMakeNoCircle(t *testing.T) {
	c := newCloud(t)
	for n := range 10 {
		a, err := c.CreateRole(c.ctx, model.Role{Name: fmt.Sprint("a", n)})
		if err != nil {
			t.Fatal(err)
		}
		b, err := c.CreateRole(c.ctx, model.Role{Name: fmt.Sprint("b", n)})
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		errs := make([]error, 2)
		wg.Add(2)
		go func() { defer wg.Done(); errs[0] = c.Imply(context.Background(), a.ID, b.ID) }()
		go func() { defer wg.Done(); errs[1] = c.Imply(context.Background(), b.ID, a.ID) }()
		wg.Wait()
		if (errs[0] == nil) == (errs[1] == nil) {
			t.Fatalf("%v, %v: one of the two rules should be refused", errs[0], errs[1])
		}
	}
}
