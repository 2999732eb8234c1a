package glance_test

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestListFilters(t *testing.T) {
	c := newCloud(t)
	a := c.active("p1/member", strings.Repeat("a", 100), map[string]any{"name": "alpha", "tags": []string{"x", "y"}, "os": "debian"})
	b := c.active("p1/member", strings.Repeat("b", 200), map[string]any{"name": "be,ta", "tags": []string{"x"}, "min_disk": 5, "protected": true})
	q := c.image("p1/member", map[string]any{"name": "queued", "disk_format": "qcow2", "min_ram": 64, "visibility": "private"})
	h := c.image("p1/member", map[string]any{"name": "hidden", "os_hidden": true})
	sum := c.want(200, "p1/member", "GET", "/v2/images/"+a, nil)
	for query, want := range map[string][]string{
		"":                                 {q, b, a},
		"?name=alpha":                      {a},
		"?name=in:alpha,queued":            {q, a},
		`?name=in:%22be%2Cta%22,alpha`:     {b, a},
		"?name=nothing":                    {},
		"?status=active":                   {b, a},
		"?status=in:queued,saving":         {q},
		"?id=in:" + a + "," + q:            {q, a},
		"?disk_format=qcow2":               {q},
		"?disk_format=in:raw,iso":          {b, a},
		"?container_format=bare":           {q, b, a},
		"?tag=x":                           {b, a},
		"?tag=x&tag=y":                     {a},
		"?tag=z":                           {},
		"?size_min=150":                    {b},
		"?size_max=150":                    {a},
		"?size_min=100&size_max=200":       {b, a},
		"?min_disk=5":                      {b},
		"?min_ram=64":                      {q},
		"?protected=true":                  {b},
		"?protected=False":                 {q, a},
		"?owner=p1":                        {q, b, a},
		"?owner=p2":                        {},
		"?visibility=private":              {q},
		"?visibility=shared":               {b, a},
		"?visibility=public":               {},
		"?visibility=all":                  {q, b, a},
		"?os_hidden=true":                  {h},
		"?os_hidden=false":                 {q, b, a},
		"?os=debian":                       {a},
		"?os=windows":                      {},
		"?checksum=" + sum.str("checksum"): {a},
		"?os_hash_value=" + sum.str("os_hash_value"):               {a},
		"?os_hash_algo=sha512":                                     {b, a},
		"?created_at=gt:2014-01-01T01:01:01Z":                      {q, b, a},
		"?created_at=gte:2049-01-01T01:01:01Z":                     {},
		"?created_at=lt:2049-01-01":                                {q, b, a},
		"?updated_at=lte:2014-01-01":                               {},
		"?updated_at=neq:2014-01-01T00:00:00":                      {q, b, a},
		"?created_at=2014-01-01T00:00:00Z":                         {},
		"?limit=0":                                                 {},
		"?sort=name:asc":                                           {a, b, q},
		"?sort=name":                                               {q, b, a},
		"?sort=disk_format:asc,name:desc":                          {q, b, a},
		"?sort_key=size&sort_dir=asc":                              {q, a, b},
		"?sort_key=status&sort_dir=asc&sort_key=name&sort_dir=asc": {a, b, q},
		"?sort_dir=asc":                                            {a, b, q},
	} {
		if strings.HasPrefix(query, "?status=active") {
			want = []string{b, a}
		}
		if got := c.ids("p1/reader", query); !same(got, want) {
			t.Errorf("%s gives %v, want %v", query, got, want)
		}
	}
	created := sum.str("created_at")
	if got := c.ids("p1/reader", "?created_at=eq:"+created+"&name=alpha"); !same(got, []string{a}) {
		t.Errorf("created_at=eq:%s gives %v", created, got)
	}
	if at, err := time.Parse(time.RFC3339, created); err != nil || time.Since(at) > time.Minute {
		t.Errorf("created_at is %q", created)
	}
	for _, query := range []string{
		"?limit=x", "?limit=-1", "?marker=nothing", "?sort=colour", "?sort=name:up", "?sort_key=colour", "?sort_dir=up",
		"?sort_key=name&sort_dir=asc&sort_dir=desc", "?sort=name&sort_key=name", "?visibility=open", "?member_status=maybe",
		"?os_hidden=perhaps", "?protected=perhaps", "?size_min=x", "?size_max=-1", "?created_at=yesterday", "?created_at=near:2014-01-01",
		`?name=in:%22open`, `?name=in:%22a%22b`, `?name=in:a%22b`,
	} {
		c.want(400, "p1/reader", "GET", "/v2/images"+query, nil)
	}
}

func TestPages(t *testing.T) {
	c := newCloud(t)
	var all []string
	for i := range 30 {
		owner, extra := "p1/member", map[string]any{"name": fmt.Sprint("i", i%7)}
		if i%3 == 0 {
			owner, extra["visibility"] = "p2/admin", "public"
		}
		all = append(all, c.image(owner, extra))
	}
	slices.Reverse(all)
	for _, start := range []string{"", "?limit=1", "?limit=7", "?limit=29", "?limit=30", "?limit=31", "?limit=7&sort=name:asc", "?limit=5&sort=created_at:desc", "?name=in:i0,i1,i2&limit=2"} {
		var got []string
		path := "/v2/images" + start
		for n := 0; path != ""; n++ {
			if n > 31 {
				t.Fatalf("%s: the pages never end", start)
			}
			r := c.want(200, "p1/reader", "GET", path, nil)
			if first := r.str("first"); strings.Contains(first, "marker") || !strings.HasPrefix(first, "/v2/images") {
				t.Errorf("%s: first is %q", start, first)
			}
			rows := r.json["images"].([]any)
			if len(rows) == 0 {
				t.Errorf("%s: an empty page", start)
			}
			for _, raw := range rows {
				got = append(got, raw.(map[string]any)["id"].(string))
			}
			path = r.str("next")
		}
		q, err := url.ParseQuery(strings.TrimPrefix(start, "?"))
		if err != nil {
			t.Fatal(err)
		}
		want := len(all)
		if q.Has("name") {
			want = 14
		}
		if len(got) != want {
			t.Errorf("%s: the pages hold %d images, want %d", start, len(got), want)
		}
		if uniq := slices.Compact(slices.Sorted(slices.Values(got))); len(uniq) != len(got) {
			t.Errorf("%s: an image is on two pages", start)
		}
		if !q.Has("name") && !strings.Contains(start, "name") && !same(got, all) {
			t.Errorf("%s: the order is\n%v, want\n%v", start, got, all)
		}
	}
	if r := c.want(200, "p1/reader", "GET", "/v2/images", nil); len(r.json["images"].([]any)) != 25 {
		t.Errorf("the default page has %d images, want 25", len(r.json["images"].([]any)))
	}
}
