package glance_test

import (
	"net/http"
	"strings"
	"testing"

	"yakumo/api"
	"yakumo/model"
)

// request makes of a route's pattern a request that is good but for the caller's rights.
func request(row api.TableRow, image, member string) (path string, body any, headers []string) {
	path = strings.NewReplacer("{id}", image, "{member}", member, "{tag}", "t", "{name}", "image").Replace(row.Path)
	switch {
	case row.Method == "PATCH":
		return path, `[{"op": "replace", "path": "/name", "value": "x"}]`, []string{"Content-Type", patchType}
	case strings.HasSuffix(path, "/file"), strings.HasSuffix(path, "/stage"):
		if row.Method == "PUT" {
			return path, strings.NewReader("data"), nil
		}
	case strings.HasSuffix(path, "/import"):
		return path, map[string]any{"method": map[string]any{"name": "web-download"}}, nil
	case strings.HasSuffix(path, "/members"):
		return path, map[string]any{"member": "p3"}, nil
	case row.Method == "PUT" && strings.Contains(path, "/members/"):
		return path, map[string]any{"status": "accepted"}, nil
	case row.Method == "POST" && strings.HasSuffix(path, "/tasks"):
		return path, map[string]any{"type": "import", "input": map[string]any{"import_from": "", "import_from_format": "", "image_properties": ""}}, nil
	case row.Method == "POST" && strings.HasSuffix(path, "/images"):
		return path, map[string]any{}, nil
	}
	return path, nil, nil
}

// Every route of the table refuses whoever is below its class, and says the right thing.
func TestTableOfRights(t *testing.T) {
	c := newCloud(t)
	image := c.image("p1/member", nil)
	c.want(200, "p1/member", "POST", "/v2/images/"+image+"/members", map[string]any{"member": "p2"})
	rows := c.front.Table()
	if len(rows) < 28 {
		t.Fatalf("the table has %d routes", len(rows))
	}
	for _, row := range rows {
		path, _, _ := request(row, image, "p2")
		send := func(token string) int {
			_, body, headers := request(row, image, "p2")
			return c.do(token, row.Method, path, body, headers...).status
		}
		if row.Access == api.Public {
			if s := send(""); s != 200 && s != 300 {
				t.Errorf("%s %s without a token: %d", row.Method, row.Path, s)
			}
			continue
		}
		for _, token := range []string{"", "rubbish", "p1/emperor"} {
			if s := send(token); s != http.StatusUnauthorized {
				t.Errorf("%s %s with token %q: %d, want 401", row.Method, row.Path, token, s)
			}
		}
		below := map[api.Access][]string{
			api.Reader: {"p1/none", "/none"}, api.Member: {"p1/none", "p1/reader", "/member"},
			api.Admin: {"p1/none", "p1/reader", "p1/member"},
		}
		for _, token := range below[row.Access] {
			if s := send(token); s != http.StatusForbidden {
				t.Errorf("%s %s as %s: %d, want 403", row.Method, row.Path, token, s)
			}
		}
	}
	if got := c.want(200, "p1/reader", "GET", "/v2/images/"+image, nil); got.str("name") != "guest" || got.str("status") != "queued" {
		t.Errorf("a refused request changed the image: %s", got.body)
	}
}

// Routes that name an image answer to another project as if there were none, and change nothing.
func TestForeignImages(t *testing.T) {
	c := newCloud(t)
	kinds := map[string]string{
		"private":   c.active("p1/member", "x", map[string]any{"visibility": "private"}),
		"shared":    c.active("p1/member", "x", map[string]any{"visibility": "shared"}),
		"community": c.active("p1/member", "x", map[string]any{"visibility": "community"}),
		"public":    c.active("p1/admin", "x", map[string]any{"visibility": "public"}),
		"member":    c.active("p1/member", "x", map[string]any{"visibility": "shared"}),
		"absent":    model.NewID(),
	}
	c.want(200, "p1/member", "POST", "/v2/images/"+kinds["member"]+"/members", map[string]any{"member": "p2"})
	for kind, image := range kinds {
		visible := kind == "community" || kind == "public" || kind == "member"
		before := c.do("p1/member", "GET", "/v2/images/"+image, nil)
		for _, row := range c.front.Table() {
			if !strings.Contains(row.Path, "/images/{id}") {
				continue
			}
			path, body, headers := request(row, image, "p2")
			want := []int{404}
			switch {
			case !visible:
			case strings.HasSuffix(row.Path, "/stage"), strings.HasSuffix(row.Path, "/import"):
				want = []int{400}
			case strings.Contains(row.Path, "/members"):
				want = []int{403}
				if kind == "member" && row.Method == "GET" {
					want = []int{200}
				}
				if kind == "member" && row.Method == "PUT" {
					want = []int{200} // its own answer
				}
			case row.Method == "GET":
				want = []int{200}
			default:
				want = []int{403}
			}
			r := c.do("p2/member", row.Method, path, body, headers...)
			if r.status != want[0] {
				t.Errorf("%s %s on a %s image of another project: %d, want %v: %s", row.Method, row.Path, kind, r.status, want, r.body)
			}
		}
		if after := c.do("p1/member", "GET", "/v2/images/"+image, nil); string(after.body) != string(before.body) && kind != "absent" {
			t.Errorf("the %s image changed from\n%s\nto\n%s", kind, before.body, after.body)
		}
	}
	if got := c.ids("p2/member", ""); !same(got, []string{kinds["member"], kinds["public"]}) && !same(got, []string{kinds["public"], kinds["member"]}) {
		t.Errorf("the list of p2 is %v", got)
	}
	if got := c.ids("p2/member", "?visibility=community"); !same(got, []string{kinds["community"]}) {
		t.Errorf("the community list of p2 is %v", got)
	}
	if got := c.ids("p2/member", "?visibility=all"); len(got) != 3 {
		t.Errorf("the list of all that p2 sees is %v", got)
	}
	if got := c.ids("p9/admin", "?visibility=all"); len(got) != 5 {
		t.Errorf("an administrator sees %v", got)
	}
	if got := c.ids("p9/admin", ""); len(got) != 4 {
		t.Errorf("an administrator's list without the community is %v", got)
	}
	c.want(204, "p9/admin", "DELETE", "/v2/images/"+kinds["private"], nil)
}

func TestMembers(t *testing.T) {
	c := newCloud(t)
	id := c.active("p1/member", "x", nil)
	path := "/v2/images/" + id + "/members"
	c.want(404, "p2/reader", "GET", "/v2/images/"+id, nil)
	r := c.want(200, "p1/member", "POST", path, map[string]any{"member": "p2"})
	if r.str("status") != "pending" || r.str("member_id") != "p2" || r.str("image_id") != id || r.str("schema") != "/v2/schemas/member" {
		t.Errorf("member: %s", r.body)
	}
	c.want(409, "p1/member", "POST", path, map[string]any{"member": "p2"})
	c.want(400, "p1/member", "POST", path, map[string]any{})
	c.want(400, "p1/member", "POST", path, map[string]any{"member": ""})
	c.want(400, "p1/member", "POST", path, map[string]any{"member": 7})
	c.want(200, "p1/member", "POST", path, map[string]any{"member": "p3"})

	// Pending: it can be seen and used, but is not in the list.
	c.want(200, "p2/reader", "GET", "/v2/images/"+id, nil)
	c.want(200, "p2/reader", "GET", "/v2/images/"+id+"/file", nil)
	lists := func(query string, want ...string) {
		t.Helper()
		if got := c.ids("p2/reader", query); !same(got, want) {
			t.Errorf("%q lists %v, want %v", query, got, want)
		}
	}
	lists("")
	lists("?member_status=pending", id)
	lists("?member_status=pending&visibility=shared", id)
	lists("?member_status=all", id)
	lists("?member_status=rejected")

	c.want(403, "p1/member", "PUT", path+"/p2", map[string]any{"status": "accepted"}) // the owner must not
	c.want(404, "p3/member", "PUT", path+"/p2", map[string]any{"status": "accepted"}) // nor another member
	c.want(400, "p2/member", "PUT", path+"/p2", map[string]any{"status": "maybe"})
	c.want(400, "p2/member", "PUT", path+"/p2", map[string]any{})
	if r = c.want(200, "p2/member", "PUT", path+"/p2", map[string]any{"status": "accepted"}); r.str("status") != "accepted" {
		t.Errorf("member: %s", r.body)
	}
	lists("", id)
	lists("?visibility=private")
	c.want(200, "p2/member", "PUT", path+"/p2", map[string]any{"status": "rejected"})
	lists("")
	lists("?member_status=rejected", id)
	c.want(200, "p9/admin", "PUT", path+"/p2", map[string]any{"status": "accepted"})

	if r = c.want(200, "p1/reader", "GET", path, nil); len(r.json["members"].([]any)) != 2 {
		t.Errorf("the owner sees %s", r.body)
	}
	if r = c.want(200, "p2/reader", "GET", path, nil); len(r.json["members"].([]any)) != 1 {
		t.Errorf("a member sees %s", r.body)
	}
	c.want(200, "p1/reader", "GET", path+"/p2", nil)
	c.want(404, "p1/reader", "GET", path+"/p4", nil)
	c.want(404, "p2/reader", "GET", path+"/p3", nil)
	c.want(404, "p4/reader", "GET", path, nil)
	c.want(403, "p2/member", "DELETE", path+"/p2", nil)
	c.want(404, "p1/member", "DELETE", path+"/p4", nil)
	c.want(204, "p1/member", "DELETE", path+"/p2", nil)
	c.want(404, "p2/reader", "GET", "/v2/images/"+id, nil)
	lists("?member_status=all")

	c.patch(200, "p1/member", id, `[{"op": "replace", "path": "/visibility", "value": "private"}]`)
	c.want(403, "p1/member", "GET", path, nil)
	c.want(403, "p1/member", "POST", path, map[string]any{"member": "p2"})
	c.want(404, "p3/reader", "GET", "/v2/images/"+id, nil) // a member of an image that is shared no more
}

func TestActionsAndTags(t *testing.T) {
	c := newCloud(t)
	id := c.active("p1/member", "secret", map[string]any{"visibility": "community"})
	base := "/v2/images/" + id
	for range 2 {
		c.want(204, "p1/member", "POST", base+"/actions/deactivate", nil)
	}
	if r := c.want(200, "p1/reader", "GET", base, nil); r.str("status") != "deactivated" {
		t.Errorf("the image is %s", r.str("status"))
	}
	c.want(403, "p1/member", "GET", base+"/file", nil)
	c.want(403, "p2/member", "GET", base+"/file", nil)
	c.want(200, "p9/admin", "GET", base+"/file", nil)
	for range 2 {
		c.want(204, "p1/member", "POST", base+"/actions/reactivate", nil)
	}
	c.want(200, "p2/member", "GET", base+"/file", nil)
	queued := c.image("p1/member", nil)
	c.want(403, "p1/member", "POST", "/v2/images/"+queued+"/actions/deactivate", nil)
	c.want(403, "p1/member", "POST", "/v2/images/"+queued+"/actions/reactivate", nil)

	c.want(204, "p1/member", "PUT", base+"/tags/a%2Fb", nil)
	c.want(204, "p1/member", "PUT", base+"/tags/a%2Fb", nil)
	c.want(204, "p1/member", "PUT", base+"/tags/c", nil)
	c.want(400, "p1/member", "PUT", base+"/tags/"+strings.Repeat("t", 256), nil)
	if r := c.want(200, "p1/reader", "GET", base, nil); len(r.json["tags"].([]any)) != 2 {
		t.Errorf("tags: %s", r.body)
	}
	c.want(204, "p1/member", "DELETE", base+"/tags/a%2Fb", nil)
	c.want(404, "p1/member", "DELETE", base+"/tags/a%2Fb", nil)
}
