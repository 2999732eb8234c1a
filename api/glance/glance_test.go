package glance_test

import (
	"crypto/md5"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"yakumo/model"
)

func TestLifeOfAnImage(t *testing.T) {
	c := newCloud(t)
	r := c.want(201, "p1/member", "POST", "/v2/images", map[string]any{
		"name": "guest", "disk_format": "raw", "container_format": "bare", "tags": []string{"b", "a", "b"},
		"min_disk": 1, "min_ram": 64, "architecture": "x86_64",
	})
	id := r.str("id")
	for key, want := range map[string]any{
		"name": "guest", "status": "queued", "visibility": "shared", "owner": "p1", "protected": false, "os_hidden": false,
		"size": nil, "checksum": nil, "os_hash_value": nil, "min_disk": 1.0, "min_ram": 64.0, "architecture": "x86_64",
		"self": "/v2/images/" + id, "file": "/v2/images/" + id + "/file", "schema": "/v2/schemas/image",
	} {
		if got, ok := r.json[key]; !ok || got != want {
			t.Errorf("%s = %v, want %v", key, got, want)
		}
	}
	if fmt.Sprint(r.json["tags"]) != "[a b]" {
		t.Errorf("tags = %v", r.json["tags"])
	}
	if got := r.header.Get("Location"); got != c.url+"/image/v2/images/"+id {
		t.Errorf("Location = %q", got)
	}
	c.want(204, "p1/member", "GET", "/v2/images/"+id+"/file", nil)

	data := strings.Repeat("eight layers ", 10_000)
	c.want(204, "p1/member", "PUT", "/v2/images/"+id+"/file", strings.NewReader(data))
	r = c.want(200, "p1/reader", "GET", "/v2/images/"+id, nil)
	md, sh := md5.Sum([]byte(data)), sha512.Sum512([]byte(data))
	for key, want := range map[string]any{
		"status": "active", "size": float64(len(data)), "virtual_size": float64(len(data)),
		"checksum": hex.EncodeToString(md[:]), "os_hash_algo": "sha512", "os_hash_value": hex.EncodeToString(sh[:]),
	} {
		if r.json[key] != want {
			t.Errorf("%s = %v, want %v", key, r.json[key], want)
		}
	}
	r = c.want(200, "p1/reader", "GET", "/v2/images/"+id+"/file", nil)
	if string(r.body) != data || r.header.Get("Content-MD5") != hex.EncodeToString(md[:]) ||
		r.header.Get("Accept-Ranges") != "bytes" || r.header.Get("Content-Type") != "application/octet-stream" {
		t.Errorf("%d bytes came back with %v", len(r.body), r.header)
	}
	r = c.want(206, "p1/reader", "GET", "/v2/images/"+id+"/file", nil, "Range", "bytes=13-25")
	if string(r.body) != data[13:26] || r.header.Get("Content-Range") != fmt.Sprintf("bytes 13-25/%d", len(data)) || r.header.Get("Content-MD5") != "" {
		t.Errorf("the range is %q with %v", r.body, r.header)
	}
	c.want(416, "p1/reader", "GET", "/v2/images/"+id+"/file", nil, "Range", "bytes=999999999-")
	if r = c.want(200, "p1/reader", "HEAD", "/v2/images/"+id+"/file", nil); r.header.Get("Content-Length") != fmt.Sprint(len(data)) {
		t.Errorf("HEAD says %v", r.header)
	}
	c.want(409, "p1/member", "PUT", "/v2/images/"+id+"/file", strings.NewReader("again"))

	c.want(204, "p1/member", "DELETE", "/v2/images/"+id, nil)
	c.want(404, "p1/member", "GET", "/v2/images/"+id, nil)
	c.want(404, "p1/member", "GET", "/v2/images/"+id+"/file", nil)
	c.want(404, "p1/member", "DELETE", "/v2/images/"+id, nil)
}

func TestUploadIsChecked(t *testing.T) {
	c := newCloud(t)
	sum := md5.Sum([]byte("data"))
	for _, k := range []struct {
		name, data string
		image      map[string]any
		headers    []string
		status     int
	}{
		{"hex MD5", "data", nil, []string{"Content-MD5", hex.EncodeToString(sum[:])}, 204},
		{"base64 MD5", "data", nil, []string{"Content-MD5", base64.StdEncoding.EncodeToString(sum[:])}, 204},
		{"wrong MD5", "date", nil, []string{"Content-MD5", hex.EncodeToString(sum[:])}, 400},
		{"no MD5 at all", "data", nil, []string{"Content-MD5", "zzz"}, 400},
		{"media type", "data", nil, []string{"Content-Type", "text/plain"}, 415},
		{"store", "data", nil, []string{"X-Image-Meta-Store", "elsewhere"}, 400},
		{"the store", "data", nil, []string{"X-Image-Meta-Store", "default"}, 204},
		{"not QCOW2", "data", map[string]any{"disk_format": "qcow2"}, nil, 415},
		{"QCOW2 as raw", "QFI\xfb and more", nil, nil, 415},
		{"no disk format", "data", map[string]any{"disk_format": nil}, nil, 400},
		{"no container format", "data", map[string]any{"container_format": nil}, nil, 400},
		{"empty", "", nil, nil, 204},
	} {
		t.Run(k.name, func(t *testing.T) {
			c := *c
			c.t = t
			id := c.image("p1/member", k.image)
			c.want(k.status, "p1/member", "PUT", "/v2/images/"+id+"/file", strings.NewReader(k.data), k.headers...)
			want := "queued"
			if k.status == 204 {
				want = "active"
			}
			if got := c.want(200, "p1/member", "GET", "/v2/images/"+id, nil).str("status"); got != want {
				t.Errorf("the image is %s, want %s", got, want)
			}
		})
	}
	id := c.image("p1/member", nil)
	r := c.do("p1/member", "PUT", "/v2/images/"+id+"/file", http.NoBody, "Content-Length", "0")
	if r.status != 204 {
		t.Errorf("an upload of nothing: %d %s", r.status, r.body)
	}
}

func TestCreateRefuses(t *testing.T) {
	c := newCloud(t)
	for _, k := range []struct {
		name, body string
		status     int
	}{
		{"no body", ``, 400},
		{"broken JSON", `{"name": `, 400},
		{"an array", `[]`, 400},
		{"null", `null`, 400},
		{"two values", `{} {}`, 400},
		{"name of a wrong type", `{"name": 7}`, 400},
		{"a long name", `{"name": "` + strings.Repeat("n", 256) + `"}`, 400},
		{"property of a wrong type", `{"os": 7}`, 400},
		{"null property", `{"os": null}`, 400},
		{"fraction", `{"min_disk": 1.5}`, 400},
		{"negative", `{"min_ram": -1}`, 400},
		{"huge", `{"min_ram": 1e12}`, 400},
		{"disk format", `{"disk_format": "floppy"}`, 400},
		{"container format", `{"container_format": "box"}`, 400},
		{"visibility", `{"visibility": "open"}`, 400},
		{"id", `{"id": "7"}`, 400},
		{"tags", `{"tags": "a"}`, 400},
		{"empty tag", `{"tags": [""]}`, 400},
		{"protected", `{"protected": "yes"}`, 400},
		{"status", `{"status": "active"}`, 403},
		{"size", `{"size": 1}`, 403},
		{"checksum", `{"checksum": "x"}`, 403},
		{"location", `{"location": "file:///etc/passwd"}`, 403},
		{"internal name", `{"os_glance_importing": "x"}`, 403},
		{"foreign owner", `{"owner": "p2"}`, 403},
		{"public", `{"visibility": "public"}`, 403},
	} {
		t.Run(k.name, func(t *testing.T) {
			c := *c
			c.t = t
			c.want(k.status, "p1/member", "POST", "/v2/images", k.body)
		})
	}
	var many []string
	for i := range 129 {
		many = append(many, fmt.Sprintf("%q: \"v\"", fmt.Sprint("key", i)))
	}
	c.want(413, "p1/member", "POST", "/v2/images", "{"+strings.Join(many, ",")+"}")
	c.want(413, "p1/member", "POST", "/v2/images", `{"big": "`+strings.Repeat("x", 300<<10)+`"}`)
	c.want(413, "p1/member", "POST", "/v2/images", `{"big": "`+strings.Repeat("x", 2<<20)+`"}`)
	c.want(415, "p1/member", "POST", "/v2/images", "name=x", "Content-Type", "application/x-www-form-urlencoded")
	if got := c.ids("p1/admin", ""); len(got) != 0 {
		t.Errorf("refused requests made %d images", len(got))
	}
	id := model.NewID()
	c.want(201, "p1/member", "POST", "/v2/images", map[string]any{"id": id})
	c.want(409, "p1/member", "POST", "/v2/images", map[string]any{"id": id})
	c.want(409, "p2/member", "POST", "/v2/images", map[string]any{"id": id})
	c.want(201, "p1/admin", "POST", "/v2/images", map[string]any{"owner": "p2", "visibility": "public"})
}

func TestPatch(t *testing.T) {
	c := newCloud(t)
	id := c.image("p1/member", map[string]any{"os": "debian", "tags": []string{"a", "c"}})
	r := c.patch(200, "p1/member", id, `[
		{"op": "replace", "path": "/name", "value": "new"}, {"op": "add", "path": "/min_disk", "value": 21},
		{"op": "replace", "path": "/protected", "value": true}, {"op": "add", "path": "/hw_disk_bus", "value": "scsi"},
		{"op": "add", "path": "/tags/1", "value": "b"}, {"op": "remove", "path": "/os"}, {"op": "add", "path": "/a~1b~0c", "value": "escaped"}]`)
	for key, want := range map[string]any{"name": "new", "min_disk": 21.0, "protected": true, "hw_disk_bus": "scsi", "a/b~c": "escaped"} {
		if r.json[key] != want {
			t.Errorf("%s = %v, want %v", key, r.json[key], want)
		}
	}
	if _, there := r.json["os"]; there || fmt.Sprint(r.json["tags"]) != "[a b c]" {
		t.Errorf("os is there: %v; tags = %v", there, r.json["tags"])
	}
	c.want(403, "p1/member", "DELETE", "/v2/images/"+id, nil) // protected
	c.want(200, "p1/member", "PATCH", "/v2/images/"+id, `[{"replace": "/name", "value": "older"}]`, "Content-Type", "application/openstack-images-v2.0-json-patch")
	before := string(c.want(200, "p1/member", "GET", "/v2/images/"+id, nil).body)
	for _, k := range []struct {
		ops    string
		status int
	}{
		{``, 400}, {`{}`, 400}, {`null`, 400}, {`[null]`, 400}, {`[7]`, 400}, {`[{}]`, 400},
		{`[{"op": "move", "path": "/a", "from": "/b"}]`, 400},
		{`[{"op": "add", "path": "name", "value": "x"}]`, 400},
		{`[{"op": "add", "path": "/", "value": "x"}]`, 400},
		{`[{"op": "add", "path": "/a//b", "value": "x"}]`, 400},
		{`[{"op": "add", "path": "/a/b", "value": "x"}]`, 400},
		{`[{"op": "add", "path": "/a~2", "value": "x"}]`, 400},
		{`[{"op": "add", "path": "/name"}]`, 400},
		{`[{"op": "add", "path": 7, "value": "x"}]`, 400},
		{`[{"op": "replace", "path": "/name", "value": 7}]`, 400},
		{`[{"op": "replace", "path": "/tags/9", "value": "x"}]`, 400},
		{`[{"op": "replace", "path": "/tags/-1", "value": "x"}]`, 400},
		{`[{"op": "replace", "path": "/visibility", "value": "x"}]`, 400},
		{`[{"op": "replace", "path": "/visibility", "value": "public"}]`, 403},
		{`[{"op": "replace", "path": "/owner", "value": "p2"}]`, 403},
		{`[{"op": "replace", "path": "/status", "value": "active"}]`, 403},
		{`[{"op": "replace", "path": "/id", "value": "x"}]`, 403},
		{`[{"op": "add", "path": "/locations/-", "value": {"url": "file:///etc/passwd"}}]`, 400},
		{`[{"op": "add", "path": "/locations", "value": []}]`, 403},
		{`[{"op": "remove", "path": "/name"}]`, 403},
		{`[{"op": "remove", "path": "/nothing"}]`, 409},
		{`[{"op": "replace", "path": "/nothing", "value": "x"}]`, 409},
		{`[{"op": "replace", "path": "/name", "value": "half"}, {"op": "remove", "path": "/nothing"}]`, 409},
	} {
		if r := c.do("p1/member", "PATCH", "/v2/images/"+id, k.ops, "Content-Type", patchType); r.status != k.status {
			t.Errorf("%s: %d, want %d: %s", k.ops, r.status, k.status, r.body)
		}
	}
	for _, ct := range []string{"application/json", "application/json-patch+json", "text/plain", ""} {
		c.want(415, "p1/member", "PATCH", "/v2/images/"+id, `[]`, "Content-Type", ct)
	}
	if after := string(c.want(200, "p1/member", "GET", "/v2/images/"+id, nil).body); after != before {
		t.Errorf("refused changes changed\n%s\nto\n%s", before, after)
	}
	id = c.active("p1/member", "x", nil)
	c.patch(403, "p1/member", id, `[{"op": "replace", "path": "/disk_format", "value": "qcow2"}]`)
	c.patch(200, "p1/admin", id, `[{"op": "replace", "path": "/visibility", "value": "public"}]`)
	c.patch(200, "p1/member", id, `[{"op": "replace", "path": "/name", "value": "still public"}]`)
}

func TestErrorForms(t *testing.T) {
	c := newCloud(t)
	path := "/v2/images/" + model.NewID()
	for accept, want := range map[string]string{
		"":                                "text/html",
		"*/*":                             "text/html",
		"text/html":                       "text/html",
		"application/json":                "application/json",
		"application/json, */*;q=0.5":     "application/json",
		"text/html;q=0.3,application/*":   "application/json",
		"text/plain":                      "text/plain",
		"application/json;q=0, text/html": "text/html",
	} {
		r := c.want(404, "p1/reader", "GET", path, nil, "Accept", accept)
		if got := r.header.Get("Content-Type"); !strings.HasPrefix(got, want) {
			t.Errorf("Accept %q gives %s, want %s", accept, got, want)
		}
		if !strings.Contains(string(r.body), "No image found with ID") || !strings.Contains(string(r.body), "404 Not Found") {
			t.Errorf("Accept %q gives %s", accept, r.body)
		}
	}
	r := c.want(404, "p1/reader", "GET", "/v2/images/%3Cscript%3E", nil, "Accept", "text/html")
	if strings.Contains(string(r.body), "<script>") {
		t.Errorf("the text is not escaped: %s", r.body)
	}
	r = c.want(401, "", "GET", path, nil)
	if e, _ := r.json["error"].(map[string]any); e["code"] != 401.0 {
		t.Errorf("401 is %s", r.body)
	}
	c.want(404, "p1/reader", "GET", "/v2/nothing", nil)
	c.want(405, "p1/reader", "PUT", "/v2/images", nil)
	c.want(404, "p1/reader", "GET", "/v1/images", nil)
}

func TestDiscovery(t *testing.T) {
	c := newCloud(t)
	for path, status := range map[string]int{"/image": 300, "/image/": 300, "/image/versions": 200, "/image/v2": 200, "/image/v2/": 200} {
		r := c.want(status, "", "GET", path, nil)
		first := r.json["versions"].([]any)[0].(map[string]any)
		link := first["links"].([]any)[0].(map[string]any)
		if first["id"] != "v2.9" || first["status"] != "CURRENT" || link["href"] != c.url+"/image/v2/" {
			t.Errorf("%s: %v", path, first)
		}
	}
	for _, name := range []string{"image", "images", "member", "members", "task", "tasks"} {
		r := c.want(200, "p1/none", "GET", "/v2/schemas/"+name, nil)
		if r.str("name") != name || r.json["properties"] == nil {
			t.Errorf("schema %s: %s", name, r.body)
		}
	}
	c.want(404, "p1/none", "GET", "/v2/schemas/nothing", nil)
	r := c.want(200, "p1/reader", "GET", "/v2/info/import", nil)
	if m := r.json["import-methods"].(map[string]any); len(m["value"].([]any)) != 0 {
		t.Errorf("import methods: %s", r.body)
	}
	if r = c.want(200, "p1/reader", "GET", "/v2/info/stores", nil); len(r.json["stores"].([]any)) != 1 {
		t.Errorf("stores: %s", r.body)
	}
}

func TestTasksAndImport(t *testing.T) {
	c := newCloud(t)
	id := c.image("p1/member", nil)
	c.want(400, "p1/member", "POST", "/v2/images/"+id+"/import", map[string]any{"method": map[string]any{"name": "web-download", "uri": "http://127.0.0.1/"}})
	c.want(400, "p1/member", "POST", "/v2/images/"+id+"/import", map[string]any{})
	c.want(400, "p1/member", "PUT", "/v2/images/"+id+"/stage", strings.NewReader("x"))
	c.want(404, "p2/member", "POST", "/v2/images/"+id+"/import", map[string]any{"method": map[string]any{"name": "web-download"}})
	c.want(404, "p2/member", "PUT", "/v2/images/"+id+"/stage", strings.NewReader("x"))

	input := map[string]any{"import_from": "http://127.0.0.1/", "import_from_format": "raw", "image_properties": map[string]any{}}
	c.want(400, "p1/admin", "POST", "/v2/tasks", map[string]any{"type": "dance", "input": input})
	c.want(400, "p1/admin", "POST", "/v2/tasks", map[string]any{"type": "import", "input": map[string]any{}})
	for range 3 {
		r := c.want(201, "p1/admin", "POST", "/v2/tasks", map[string]any{"type": "import", "input": input})
		r = c.want(200, "p1/admin", "GET", "/v2/tasks/"+r.str("id"), nil)
		if r.str("status") != "failure" || r.str("message") == "" || r.str("expires_at") == "" {
			t.Errorf("task: %s", r.body)
		}
	}
	seen, path := 0, "/v2/tasks?limit=2"
	for path != "" {
		r := c.want(200, "p1/admin", "GET", path, nil)
		seen += len(r.json["tasks"].([]any))
		path = r.str("next")
	}
	if seen != 3 {
		t.Errorf("the pages hold %d tasks, want 3", seen)
	}
	c.want(404, "p1/admin", "GET", "/v2/tasks/nothing", nil)
	c.want(400, "p1/admin", "GET", "/v2/tasks?marker=nothing", nil)
}
