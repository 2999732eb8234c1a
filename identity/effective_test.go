package identity_test

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"yakumo/identity"
	"yakumo/model"
	"yakumo/store"
)

// Whatever is assigned to whom and where: the roles that a token gets are those that the
// list of effective assignments says, and nobody is a cloud administrator but by the admin
// role on the system or on the admin project.
func TestRolesOfTokensAgreeWithTheListOfAssignments(t *testing.T) {
	c := newCloud(t)
	var users, groups, roles []model.ID
	var people []*model.User
	scopes := []identity.Scope{{Kind: identity.SystemScope}}
	for n := range 3 {
		u := c.user(fmt.Sprint("u", n))
		people, users = append(people, u), append(users, u.ID)
		g, err := c.CreateGroup(c.ctx, model.Group{Name: fmt.Sprint("g", n), DomainID: "default"})
		if err != nil {
			t.Fatal(err)
		}
		groups = append(groups, g.ID)
	}
	parent := ""
	for n := range 3 {
		p, err := c.CreateProject(c.ctx, model.Project{Name: fmt.Sprint("p", n), DomainID: "default", ParentID: parent, Enabled: true})
		if err != nil {
			t.Fatal(err)
		}
		parent = p.ID
		scopes = append(scopes, identity.Scope{Kind: identity.ProjectScope, ID: p.ID})
	}
	adminProject := identity.AdminProject(c.Snapshot())
	scopes = append(scopes, identity.Scope{Kind: identity.ProjectScope, ID: adminProject}, identity.Scope{Kind: identity.DomainScope, ID: "default"})
	for _, name := range []string{"admin", "manager", "member", "reader", "service"} {
		roles = append(roles, c.role(name))
	}
	own, err := c.CreateRole(c.ctx, model.Role{Name: "admin", DomainID: "default"})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Imply(c.ctx, own.ID, c.role("member")); err != nil {
		t.Fatal(err)
	}
	roles = append(roles, own.ID)

	rapid.Check(t, func(t *rapid.T) {
		for range rapid.IntRange(1, 6).Draw(t, "steps") {
			s := rapid.SampledFrom(scopes).Draw(t, "scope")
			a := model.Assignment{RoleID: rapid.SampledFrom(roles).Draw(t, "role"), System: s.Kind == identity.SystemScope}
			switch s.Kind {
			case identity.ProjectScope:
				a.ProjectID = s.ID
			case identity.DomainScope:
				a.DomainID = s.ID
			}
			a.Inherited = !a.System && rapid.Bool().Draw(t, "inherited")
			if rapid.Bool().Draw(t, "group") {
				a.GroupID = rapid.SampledFrom(groups).Draw(t, "g")
			} else {
				a.UserID = rapid.SampledFrom(users).Draw(t, "u")
			}
			var err error
			switch _, there := store.Assignments.Get(c.Snapshot(), a.Key()); {
			case there:
				err = c.Unassign(c.ctx, a)
			default:
				err = c.Assign(c.ctx, a)
			}
			if err != nil {
				t.Fatal(err)
			}
			g, u := rapid.SampledFrom(groups).Draw(t, "join"), rapid.SampledFrom(users).Draw(t, "member")
			if _, err := identity.Membership(c.Snapshot(), g, u); err == nil {
				err = c.Leave(c.ctx, g, u)
			} else {
				err = c.Join(c.ctx, g, u)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		r := c.Snapshot()
		u := rapid.SampledFrom(people).Draw(t, "who")
		for _, s := range scopes {
			q := identity.AssignmentQuery{UserID: u.ID, Effective: true, System: s.Kind == identity.SystemScope}
			if s.Kind == identity.ProjectScope {
				q.ProjectID = s.ID
			}
			if s.Kind == identity.DomainScope {
				q.DomainID = s.ID
			}
			want := map[string]bool{}
			for _, e := range identity.ListAssignments(r, q) {
				if role, ok := store.Roles.Get(r, e.RoleID); ok && role.DomainID == "" {
					want[role.Name] = true
				}
			}
			got := identity.EffectiveRoles(r, u.ID, s)
			if len(got) != len(want) || slices.ContainsFunc(got, func(r *model.Role) bool { return !want[r.Name] }) {
				t.Fatalf("on %+v a token gets %v, the list says %v", s, names(got), want)
			}
			_, tok, err := c.Issue(c.ctx, password(u, identity.ScopeRequest{Asked: true, Kind: s.Kind, Ref: identity.Ref{ID: s.ID}}))
			if (err == nil) != (len(want) > 0) {
				t.Fatalf("on %+v, with the roles %v, the login gives %v", s, want, err)
			}
			rises := want["admin"] && (s.Kind == identity.SystemScope || s.ID == adminProject)
			if err == nil && tok.CloudAdmin != rises {
				t.Fatalf("on %+v, with the roles %v, CloudAdmin is %v", s, want, tok.CloudAdmin)
			}
			if rises && !identity.HoldsCloudAdmin(r, u.ID) {
				t.Fatalf("user %s is a cloud administrator on %+v and HoldsCloudAdmin does not know", u.ID, s)
			}
		}
	})
}
