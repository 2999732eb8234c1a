package glance_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"yakumo/api"
	"yakumo/api/glance"
	"yakumo/fault"
	"yakumo/images"
	"yakumo/images/files"
	"yakumo/store"
	"yakumo/store/storetest"
)

// callers makes a Caller of a token "project/role"; role admin is the cloud's.
type callers struct{}

func (callers) Authenticate(_ context.Context, token string) (*api.Caller, error) {
	project, role, ok := strings.Cut(token, "/")
	roles := map[string][]string{"admin": {"admin", "member", "reader"}, "member": {"member", "reader"}, "reader": {"reader"}, "none": nil}
	names, known := roles[role]
	if !ok || !known {
		return nil, fault.New(fault.Unauthorized, "The request you have made requires authentication.")
	}
	return &api.Caller{UserID: "u-" + role, ProjectID: project, RoleNames: names, CloudAdmin: role == "admin"}, nil
}

// cloud is the image service on a store of its own.
type cloud struct {
	t      testing.TB
	st     *store.Store
	images *images.Images
	front  *api.Front
	url    string
}

func newCloud(t testing.TB) *cloud {
	t.Helper()
	st := storetest.New(t)
	blobs, err := files.New(files.Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	quiet := slog.New(slog.DiscardHandler)
	im := images.New(images.Config{Store: st, Blobs: blobs, Log: quiet, MaxSize: 1 << 30})
	front, err := api.New(api.Config{Store: st, Auth: callers{}, Services: []api.Service{glance.New(glance.Config{Images: im})}, Log: quiet})
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(front)
	t.Cleanup(srv.Close)
	return &cloud{t: t, st: st, images: im, front: front, url: srv.URL}
}

// reply is an answer with its body read.
type reply struct {
	status int
	header http.Header
	body   []byte
	json   map[string]any
}

// do sends a request; body is a string, an io.Reader, or anything that becomes JSON.
func (c *cloud) do(token, method, path string, body any, headers ...string) reply {
	c.t.Helper()
	var r io.Reader
	kind := "application/json"
	switch b := body.(type) {
	case nil:
		kind = ""
	case string:
		r = strings.NewReader(b)
	case io.Reader:
		r, kind = b, "application/octet-stream"
	default:
		data, err := json.Marshal(b)
		if err != nil {
			c.t.Fatal(err)
		}
		r = bytes.NewReader(data)
	}
	if !strings.HasPrefix(path, "/image") {
		path = "/image" + path
	}
	req, err := http.NewRequestWithContext(c.t.Context(), method, c.url+path, r)
	if err != nil {
		c.t.Fatal(err)
	}
	if kind != "" {
		req.Header.Set("Content-Type", kind)
	}
	if token != "" {
		req.Header.Set("X-Auth-Token", token)
	}
	req.Header.Set("Accept", "application/json")
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		c.t.Fatalf("%s %s: %v", method, path, err)
	}
	defer resp.Body.Close()
	out := reply{status: resp.StatusCode, header: resp.Header}
	if out.body, err = io.ReadAll(resp.Body); err != nil {
		c.t.Fatalf("%s %s: %v", method, path, err)
	}
	if strings.HasPrefix(resp.Header.Get("Content-Type"), "application/json") {
		if err := json.Unmarshal(out.body, &out.json); err != nil {
			c.t.Fatalf("%s %s: %v in %s", method, path, err, out.body)
		}
	}
	return out
}

// want is do with the status that is expected.
func (c *cloud) want(status int, token, method, path string, body any, headers ...string) reply {
	c.t.Helper()
	r := c.do(token, method, path, body, headers...)
	if r.status != status {
		c.t.Fatalf("%s %s as %s: %d, want %d: %s", method, path, token, r.status, status, r.body)
	}
	return r
}

func (r reply) str(key string) string { s, _ := r.json[key].(string); return s }

// image makes a queued raw image.
func (c *cloud) image(token string, extra map[string]any) string {
	c.t.Helper()
	body := map[string]any{"name": "guest", "disk_format": "raw", "container_format": "bare"}
	for k, v := range extra {
		body[k] = v
	}
	return c.want(201, token, "POST", "/v2/images", body).str("id")
}

// active makes an image with data.
func (c *cloud) active(token, data string, extra map[string]any) string {
	c.t.Helper()
	id := c.image(token, extra)
	c.want(204, token, "PUT", "/v2/images/"+id+"/file", strings.NewReader(data))
	return id
}

const patchType = "application/openstack-images-v2.1-json-patch"

func (c *cloud) patch(status int, token, id string, ops string) reply {
	c.t.Helper()
	return c.want(status, token, "PATCH", "/v2/images/"+id, ops, "Content-Type", patchType)
}

func (c *cloud) ids(token, query string) []string {
	c.t.Helper()
	var out []string
	for _, raw := range c.want(200, token, "GET", "/v2/images"+query, nil).json["images"].([]any) {
		out = append(out, raw.(map[string]any)["id"].(string))
	}
	return out
}

func same(got, want []string) bool { return fmt.Sprint(got) == fmt.Sprint(want) }
