package api_test

import (
	"bytes"
	"log/slog"
	"testing"

	"yakumo/api"
	"yakumo/api/glance"
	"yakumo/images"
	"yakumo/images/files"
	"yakumo/model"
	"yakumo/store"
)

// startImageCloud is startCloud with the image service, and one public image in it, as
// some of the tests look for one.
func startImageCloud(t *testing.T) (*cloud, *model.Image) {
	t.Helper()
	var im *images.Images
	c := startCloud(t, func(c *cloud) []api.Service {
		blobs, err := files.New(files.Config{Dir: t.TempDir()})
		if err != nil {
			t.Fatal(err)
		}
		im = images.New(images.Config{Store: c.Store, Blobs: blobs, Log: slog.New(slog.DiscardHandler)})
		return []api.Service{glance.New(glance.Config{Images: im})}
	})
	by := images.Caller{ProjectID: adminProject(t, c), Admin: true}
	img, err := im.Create(t.Context(), by, model.Image{
		Meta: model.Meta{Name: "public"}, Visibility: model.VisibilityPublic, DiskFormat: "raw", ContainerFormat: "bare",
	})
	if err != nil {
		t.Fatal(err)
	}
	if img, err = im.Upload(t.Context(), by, img.ID, images.Expect{Size: 1 << 20}, bytes.NewReader(make([]byte, 1<<20))); err != nil {
		t.Fatal(err)
	}
	return c, img
}

func adminProject(t *testing.T, c *cloud) model.ID {
	t.Helper()
	key, ok := store.Projects.Holder(c.Store.Snapshot(), "default,admin")
	if !ok {
		t.Fatal("there is no project admin")
	}
	return key
}

// What needs a download from the internet: the test itself would fetch an image, or asks
// the cloud to, which this cloud refuses by design.
var outside = map[string]string{
	"TestImageStage":   "downloads an image from the internet",
	"TestCreateImport": "has the cloud download an image from the internet",
}

func TestGophercloudImageAsAdministrator(t *testing.T) {
	c, img := startImageCloud(t)
	acceptance{Package: "image/v2", Omit: outside}.run(t, c)
	onlyImage(t, c, img)
}

func TestGophercloudImageAsMember(t *testing.T) {
	c, img := startImageCloud(t)
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
	// Tasks are for administrators.
	acceptance{Package: "image/v2", Run: "^(TestImages|TestGetImportInfo)",
		Env: map[string]string{"OS_USERNAME": "demo", "OS_PASSWORD": "demo-password", "OS_PROJECT_NAME": "demo", "OS_TENANT_NAME": "demo"},
	}.run(t, c)
	onlyImage(t, c, img)
}

// onlyImage checks that the tests, which delete all that they make, left nothing behind.
func onlyImage(t *testing.T, c *cloud, img *model.Image) {
	t.Helper()
	for other := range store.Images.All(c.Store.Snapshot()) {
		if other.ID != img.ID {
			t.Errorf("image %s is left", other.Name)
		}
	}
}
