package glance

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"yakumo/api"
	"yakumo/fault"
	"yakumo/images"
	"yakumo/images/files"
	"yakumo/model"
	"yakumo/store/storetest"
)

// FuzzPatch: whatever comes, a patch is refused or done, and never touches what is not the user's.
func FuzzPatch(f *testing.F) {
	for _, s := range []string{
		`[{"op": "replace", "path": "/name", "value": "x"}]`, `[{"op": "add", "path": "/tags/-", "value": "x"}, {"op": "remove", "path": "/tags/0"}]`,
		`[{"replace": "/min_disk", "value": 1e3}]`, `[{"op": "remove", "path": "/os~1x"}]`, `[{"op":"add","path":"/os_hidden","value":true}]`, `[null]`, `{}`, `[`,
	} {
		f.Add(s, false)
		f.Add(s, true)
	}
	f.Fuzz(func(t *testing.T, body string, draft4 bool) {
		var raw []map[string]json.RawMessage
		if err := api.DecodeJSON(strings.NewReader(body), &raw); err != nil {
			return
		}
		ops, err := parsePatch(raw, draft4)
		if err == nil {
			img := &model.Image{Meta: model.Meta{ID: "i", Tags: []string{"a", "b"}}, Status: "active", BlobID: "b", Size: 5, Properties: map[string]string{"os/x": "y"}}
			err = apply(img, ops)
			if img.ID != "i" || img.Status != "active" || img.BlobID != "b" || img.Size != 5 || img.Checksum != "" {
				t.Errorf("the patch changed %+v", img)
			}
			for name := range img.Properties {
				if base(name) || settable(name) != nil {
					t.Errorf("a property is called %q", name)
				}
			}
		}
		if err != nil && fault.KindOf(err) == fault.Internal {
			t.Errorf("%v is no refusal", err)
		}
	})
}

// FuzzListQuery: every query is refused or makes a test that can be run.
func FuzzListQuery(f *testing.F) {
	for _, s := range []string{
		"name=in:a,%22b%2Cc%22&limit=3", "created_at=gt:2014-01-01T01:01:01Z", "sort=name:asc,status", "sort_key=name&sort_dir=asc", "size_min=5&protected=true&tag=x&os=y", "visibility=all&member_status=all&os_hidden=true",
	} {
		f.Add(s)
	}
	img := &model.Image{Meta: model.NewMeta("p", "n", model.Meta{}.CreatedAt), Properties: map[string]string{"os": "y"}}
	f.Fuzz(func(t *testing.T, s string) {
		q, err := url.ParseQuery(s)
		if err != nil {
			return
		}
		want, limit, err := parseList(q)
		if err != nil {
			if fault.KindOf(err) != fault.Invalid {
				t.Errorf("%q: %v is no refusal", s, err)
			}
			return
		}
		if limit < 0 || limit > maxLimit {
			t.Errorf("%q: limit %d", s, limit)
		}
		want.Match(img)
	})
}

// FuzzBodies: no JSON body makes a server error.
func FuzzBodies(f *testing.F) {
	st := storetest.New(f)
	blobs, err := files.New(files.Config{Dir: f.TempDir()})
	if err != nil {
		f.Fatal(err)
	}
	im := images.New(images.Config{Store: st, Blobs: blobs})
	front, err := api.New(api.Config{Store: st, Auth: anyone{}, Services: []api.Service{New(Config{Images: im})}, Log: slogNothing()})
	if err != nil {
		f.Fatal(err)
	}
	img, err := im.Create(f.Context(), images.Caller{ProjectID: "p"}, model.Image{})
	if err != nil {
		f.Fatal(err)
	}
	routes := []struct{ method, path string }{
		{"POST", "/image/v2/images"}, {"POST", "/image/v2/images/" + img.ID + "/members"}, {"PUT", "/image/v2/images/" + img.ID + "/members/p2"},
		{"POST", "/image/v2/images/" + img.ID + "/import"}, {"POST", "/image/v2/tasks"}, {"PATCH", "/image/v2/images/" + img.ID},
	}
	for i := range routes {
		for _, s := range []string{
			`{"name": "x", "tags": ["a"], "min_disk": 1, "os": "y"}`, `{"member": "p2"}`, `{"status": "accepted"}`, `{"method": {"name": "web-download"}}`,
			`{"type": "import", "input": {"import_from": "x", "import_from_format": "raw", "image_properties": {}}}`, `[{"op": "add", "path": "/a", "value": "b"}]`, `null`, `[`, `{"id": "\u0000"}`,
		} {
			f.Add(i, s)
		}
	}
	f.Fuzz(func(t *testing.T, n int, body string) {
		route := routes[(n%len(routes)+len(routes))%len(routes)]
		r := httptest.NewRequest(route.method, route.path, strings.NewReader(body))
		r.Header.Set("X-Auth-Token", "t")
		r.Header.Set("Content-Type", "application/json")
		if route.method == "PATCH" {
			r.Header.Set("Content-Type", patchV21)
		}
		w := httptest.NewRecorder()
		front.ServeHTTP(w, r)
		if w.Code >= http.StatusInternalServerError {
			b, _ := io.ReadAll(w.Body)
			t.Errorf("%s %s with %q: %d %s", route.method, route.path, body, w.Code, b)
		}
	})
}
