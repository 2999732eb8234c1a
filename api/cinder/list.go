package cinder

import (
	"cmp"
	"encoding/json"
	"iter"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"yakumo/api"
	"yakumo/fault"
	"yakumo/model"
	"yakumo/store"
)

// listing is how a kind of resource is listed.
type listing[T any] struct {
	name string // "volumes"
	path string // below /v3
	meta func(*T) *model.Meta
	// field gives the text of a field that may be filtered and sorted by; false: there is no such field.
	field func(r store.Reader, x *T, name string) (string, bool)
	// number gives a field that sorts as a number; false: it does not.
	number func(x *T, name string) (int64, bool)
	show   func(c *api.Context, r store.Reader, x *T) object
}

// params are members of a query that are no filters.
var params = []string{"limit", "marker", "offset", "sort", "sort_key", "sort_dir", "all_tenants", "with_count", "usage", "detail", "is_public"}

// everything tells whether the rows of all projects are asked for, which only an administrator may.
func everything(c *api.Context) bool {
	if !c.Caller.CloudAdmin {
		return false
	}
	all, ok := truth(c.Query().Get("all_tenants"))
	return all && ok || c.Query().Has("all_tenants") && c.Query().Get("all_tenants") == ""
}

// owned gives the rows of the caller's project, or all.
func owned[T any](c *api.Context, r store.Reader, t *store.Table[T]) iter.Seq[*T] {
	if everything(c) {
		if p := cmp.Or(c.Query().Get("project_id"), c.Query().Get("tenant_id")); p != "" {
			return t.List(r, "project", p)
		}
		return t.All(r)
	}
	return t.List(r, "project", c.Caller.ProjectID)
}

// answer writes the page that the query asks for of the rows.
func (l *listing[T]) answer(c *api.Context, r store.Reader, rows iter.Seq[*T], show func(c *api.Context, r store.Reader, x *T) object) error {
	q := c.Query()
	keep, err := l.filter(c, r, q)
	if err != nil {
		return err
	}
	var all []*T
	for x := range rows {
		if keep(x) {
			all = append(all, x)
		}
	}
	pg, err := l.page(q)
	if err != nil {
		return err
	}
	l.sort(r, all, pg.Sort)
	total := len(all)
	if s := q.Get("offset"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil || n < 0 || n > 1<<31-1 {
			return badRequest("Invalid input received: offset must be an integer of 0 or more, it is '%s'.", api.Clip(s))
		}
		all = all[min(n, len(all)):]
	}
	page, more, err := api.Cut(all, pg, func(x *T) string { return l.meta(x).ID })
	if err != nil {
		return fault.New(fault.NotFound, "Marker %s could not be found.", api.Clip(pg.Marker))
	}
	out := make([]object, 0, len(page))
	for _, x := range page {
		out = append(out, show(c, r, x))
	}
	body := object{l.name: out}
	if more && len(page) > 0 && pg.Limit > 0 {
		next := c.R.URL.Query()
		next.Set("marker", l.meta(page[len(page)-1]).ID)
		next.Del("offset")
		body[l.name+"_links"] = []link{{"next", c.URL(strings.TrimPrefix(c.R.URL.Path, "/volume")) + "?" + next.Encode()}}
	}
	if count, ok := truth(q.Get("with_count")); ok && count && at(c, 45) {
		body["count"] = total
	}
	return c.JSON(http.StatusOK, body)
}

func (l *listing[T]) page(q url.Values) (api.Page, error) {
	pg, err := api.ParsePage(q, maxLimit)
	if err != nil {
		text, _ := fault.Text(err)
		return pg, badRequest("Invalid input received: %s", text)
	}
	pg.Reverse = false
	if q.Get("limit") == "0" {
		return pg, badRequest("Invalid input received: limit must be 1 or more.")
	}
	for i, s := range pg.Sort {
		// sort_key without a direction is descending, as in Cinder.
		if len(q["sort_dir"]) == 0 && !strings.Contains(q.Get("sort"), ":") {
			pg.Sort[i].Desc = true
		}
		var none T
		if _, ok := l.field(nil, &none, s.Key); !ok {
			return pg, badRequest("Invalid input received: Sort key %s is invalid.", api.Clip(s.Key))
		}
	}
	return pg, nil
}

func (l *listing[T]) sort(r store.Reader, rows []*T, keys []api.SortKey) {
	slices.SortStableFunc(rows, func(a, b *T) int {
		for _, k := range keys {
			var n int
			if x, ok := l.number(a, k.Key); ok {
				y, _ := l.number(b, k.Key)
				n = cmp.Compare(x, y)
			} else {
				x, _ := l.field(r, a, k.Key)
				y, _ := l.field(r, b, k.Key)
				n = cmp.Compare(x, y)
			}
			if k.Desc {
				n = -n
			}
			if n != 0 {
				return n
			}
		}
		x, y := l.meta(a), l.meta(b)
		return cmp.Or(y.CreatedAt.Compare(x.CreatedAt), cmp.Compare(y.ID, x.ID))
	})
}

// filter makes a test of the query's filters. Those that are none are ignored, as Cinder does.
func (l *listing[T]) filter(c *api.Context, r store.Reader, q url.Values) (func(*T) bool, error) {
	type test struct {
		name, value string
		like        bool
	}
	var tests []test
	var metadata map[string]string
	var none T
	for k, vs := range q {
		if slices.Contains(params, k) || len(vs) == 0 {
			continue
		}
		name, like := strings.CutSuffix(k, "~")
		if like && !at(c, 31) {
			continue
		}
		if name = strings.TrimPrefix(name, "display_"); name == "tenant_id" {
			name = "project_id"
		}
		switch name {
		case "metadata":
			var err error
			if metadata, err = pairs(vs[0]); err != nil {
				return nil, err
			}
			continue
		case "project_id", "user_id", "host":
			if name != "user_id" && !everything(c) {
				continue
			}
		}
		if _, ok := l.field(nil, &none, name); !ok {
			continue
		}
		tests = append(tests, test{name, vs[0], like})
	}
	return func(x *T) bool {
		for _, t := range tests {
			got, _ := l.field(r, x, t.name)
			if t.like && !strings.Contains(got, t.value) || !t.like && !strings.EqualFold(got, t.value) {
				return false
			}
			if !t.like && t.name == "name" && got != t.value {
				return false
			}
		}
		for k, v := range metadata {
			if got, _ := l.field(r, x, "metadata:"+k); got != v {
				return false
			}
		}
		return true
	}, nil
}

// pairs reads a dictionary as clients write it: in JSON, or as Python does.
func pairs(s string) (map[string]string, error) {
	var out map[string]string
	if json.Unmarshal([]byte(s), &out) == nil {
		return out, nil
	}
	if json.Unmarshal([]byte(strings.ReplaceAll(strings.ReplaceAll(s, "u'", "'"), "'", `"`)), &out) == nil {
		return out, nil
	}
	return nil, badRequest("Invalid input received: metadata filter '%s' is not a dictionary.", api.Clip(s))
}

// setMetadata serves the three ways to change metadata that lie below a resource.
type metadataOf[T any] struct {
	get func(c *api.Context) (map[string]string, error)
	set func(tx *store.Tx, c *api.Context, f func(map[string]string) (map[string]string, error)) (*T, error)
	of  func(*T) map[string]string
	// noun is for errors: "Volume Metadata".
	noun string
}

func (m metadataOf[T]) routes(route adder, path string) {
	route(http.MethodGet, path, api.Reader, 0, func(c *api.Context) error {
		got, err := m.get(c)
		if err != nil {
			return err
		}
		return c.JSON(http.StatusOK, object{"metadata": orEmpty(got)})
	})
	for method, replace := range map[string]bool{http.MethodPost: false, http.MethodPut: true} {
		route(method, path, api.Member, 0, func(c *api.Context) error { return m.change(c, replace) })
	}
	route(http.MethodGet, path+"/{key}", api.Reader, 0, func(c *api.Context) error {
		got, err := m.get(c)
		if err != nil {
			return err
		}
		v, ok := got[c.Param("key")]
		if !ok {
			return m.none(c)
		}
		return c.JSON(http.StatusOK, object{"meta": object{c.Param("key"): v}})
	})
	route(http.MethodPut, path+"/{key}", api.Member, 0, func(c *api.Context) error {
		b, err := readAll(c)
		if err != nil {
			return err
		}
		in := &body{o: b}
		items := in.strings("meta")
		v, ok := items[c.Param("key")]
		if in.err() != nil {
			return in.err()
		}
		if !ok || len(items) != 1 {
			return badRequest("Request body and URI mismatch")
		}
		if _, err := update(c, func(tx *store.Tx) (*T, error) {
			return m.set(tx, c, func(old map[string]string) (map[string]string, error) { old[c.Param("key")] = v; return old, nil })
		}); err != nil {
			return err
		}
		return c.JSON(http.StatusOK, object{"meta": object{c.Param("key"): v}})
	})
	route(http.MethodDelete, path+"/{key}", api.Member, 0, func(c *api.Context) error {
		if _, err := update(c, func(tx *store.Tx) (*T, error) {
			return m.set(tx, c, func(old map[string]string) (map[string]string, error) {
				if _, ok := old[c.Param("key")]; !ok {
					return nil, m.none(c)
				}
				delete(old, c.Param("key"))
				return old, nil
			})
		}); err != nil {
			return err
		}
		return c.Empty(http.StatusOK)
	})
}

func (m metadataOf[T]) none(c *api.Context) error {
	return fault.New(fault.NotFound, "%s has no metadata with key %s.", m.noun, api.Clip(c.Param("key")))
}

func (m metadataOf[T]) change(c *api.Context, replace bool) error {
	o, err := readAll(c)
	if err != nil {
		return err
	}
	b := &body{o: o}
	items := b.strings("metadata")
	if b.err() != nil {
		return b.err()
	}
	if items == nil {
		return badRequest("Malformed request body")
	}
	x, err := update(c, func(tx *store.Tx) (*T, error) { return m.set(tx, c, lay(items, replace)) })
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, object{"metadata": orEmpty(m.of(x))})
}

// lay puts items over what is there, or in its place.
func lay(items map[string]string, replace bool) func(map[string]string) (map[string]string, error) {
	return func(old map[string]string) (map[string]string, error) {
		if replace {
			clear(old)
		}
		for k, v := range items {
			old[k] = v
		}
		return old, nil
	}
}
