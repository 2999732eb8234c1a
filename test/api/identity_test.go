package api_test

import (
	"testing"

	"yakumo/identity"
	"yakumo/model"
	"yakumo/store"
)

func TestGophercloudIdentityAsAdministrator(t *testing.T) {
	c := startCloud(t, nil)
	acceptance{Package: "identity/v3", Skips: map[string]string{
		"TestProjectsListAvailable": "for users who are no administrators: the next test",
	}}.run(t, c)
	left(t, c)
}

// left checks that the tests, which delete all that they make, left nothing behind.
func left(t *testing.T, c *cloud) {
	t.Helper()
	r := c.Store.Snapshot()
	for _, kind := range []string{identity.Trusts, identity.AppCredentials, identity.Credentials, identity.AccessTokens} {
		if n := len(identity.ListRecords(r, kind)); n > 0 {
			t.Errorf("%d rows of %s are left", n, kind)
		}
	}
	users := 0
	for range store.Users.All(r) {
		users++
	}
	if users != 1 {
		t.Errorf("%d users are left, not the administrator alone", users)
	}
	assignments := 0
	for range store.Assignments.All(r) {
		assignments++
	}
	if assignments != 2 {
		t.Errorf("%d assignments are left, not the administrator's two", assignments)
	}
}

func TestGophercloudIdentityAsMember(t *testing.T) {
	c := startCloud(t, nil)
	u, err := c.Identity.CreateUser(t.Context(), model.User{Name: "demo", DomainID: "default", Enabled: true}, "demo-password")
	if err != nil {
		t.Fatal(err)
	}
	p, err := c.Identity.CreateProject(t.Context(), model.Project{Name: "demo", DomainID: "default", Enabled: true})
	if err != nil {
		t.Fatal(err)
	}
	member, ok := store.Roles.Holder(c.Store.Snapshot(), ",member")
	if !ok {
		t.Fatal("there is no role member")
	}
	if err := c.Identity.Assign(t.Context(), model.Assignment{RoleID: member, UserID: u.ID, ProjectID: p.ID}); err != nil {
		t.Fatal(err)
	}
	// What of the package says nothing of an administrator: a user's own things.
	acceptance{Package: "identity/v3",
		Run: "^(TestProjectsListAvailable|TestEC2CredentialsCRD|TestCredentialsCRUD|TestApplicationCredentialsCRD|TestCatalogList)$",
		Env: map[string]string{"OS_USERNAME": "demo", "OS_PASSWORD": "demo-password", "OS_PROJECT_NAME": "demo", "OS_TENANT_NAME": "demo"},
	}.run(t, c)
}
