package neutron_test

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// TestPagesAreTheList: pages of whatever size, with whatever filter, are the whole list, in
// its order and nothing twice, also where some rows are one's own and some are shared.
func TestPagesAreTheList(t *testing.T) {
	c := newCloud(t)
	var shared []string
	for i := range 6 {
		c.network("red", fmt.Sprintf("n%d", i%2))
		shared = append(shared, c.must(201, "admin", "POST", "/v2.0/networks", object{"network": object{"name": fmt.Sprintf("n%d", i%2), "shared": i%3 > 0}})["id"].(string))
	}
	own := c.must(201, "admin", "POST", "/v2.0/networks", object{"network": object{"name": "n0", "shared": true, "project_id": red}})["id"].(string)
	for i := range 5 {
		c.port("red", own, "name", fmt.Sprintf("p%d", i%2))
		c.port("blue", own, "name", fmt.Sprintf("p%d", i%2))
		c.port("red", shared[1], "name", "p0")
	}
	for list, paths := range map[string][]string{
		"networks": {"", "&name=n0", "&project_id=" + red, "&shared=true", "&admin_state_up=true"},
		"ports":    {"", "&name=p0", "&network_id=" + own, "&project_id=" + red, "&network_id=" + own + "&network_id=" + shared[1], "&admin_state_up=false"},
	} {
		rapid.Check(t, func(rt *rapid.T) {
			token := rapid.SampledFrom([]string{"red", "blue", "admin"}).Draw(rt, "token")
			query := rapid.SampledFrom(paths).Draw(rt, "query")
			limit := rapid.IntRange(1, 14).Draw(rt, "limit")
			whole := ids(c.list(token, "/v2.0/"+list+"?limit=1000"+query))
			if !slices.IsSorted(whole) || !slices.Equal(whole, ids(c.list(token, "/v2.0/"+list+"?"+query))) {
				rt.Fatalf("the whole list: %v", whole)
			}
			var got []string
			for marker := ""; ; {
				path := fmt.Sprintf("/v2.0/%s?limit=%d%s", list, limit, query)
				if marker != "" {
					path += "&marker=" + marker
				}
				a := c.do(token, "GET", path, nil)
				rows := a.body[list].([]any)
				for _, r := range rows {
					got = append(got, r.(object)["id"].(string))
				}
				next := false
				links, _ := a.body[list+"_links"].([]any)
				for _, l := range links {
					next = next || l.(object)["rel"] == "next"
				}
				if more := len(got) < len(whole); next != more {
					rt.Fatalf("after %d of %d: a next page is told: %v", len(got), len(whole), next)
				}
				if !next {
					break
				}
				marker = got[len(got)-1]
			}
			if !slices.Equal(got, whole) {
				rt.Fatalf("pages of %d: %v, the list: %v", limit, got, whole)
			}
		})
	}
	c.refused(400, "HTTPBadRequest", "red", "GET", "/v2.0/networks?limit=2&marker=00000000-0000-0000-0000-000000000000", nil)
}
