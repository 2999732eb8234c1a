package neutron

import (
	"encoding/json"
	"net/url"
	"slices"
	"strings"

	"yakumo/api"
)

// query is what a client asked of a list.
type query struct {
	page    api.Page
	fields  []string
	filters map[string][]string
	tags    map[string][]string // by the kind of the filter: tags, tags-any, not-tags, not-tags-any
	raw     url.Values
	// ordered: the candidates come in the order of their ids, so that a page need not see what is behind it.
	ordered bool
}

// enough gives how many rows a page needs of ordered ones, its marker and one that tells that
// more follow among them; 0: all.
func (q *query) enough() int {
	if !q.ordered || q.page.Limit <= 0 || q.page.Reverse || len(q.page.Sort) > 0 {
		return 0
	}
	if q.page.Marker != "" {
		return q.page.Limit + 2
	}
	return q.page.Limit + 1
}

func parseQuery(raw url.Values) (*query, error) {
	page, err := api.ParsePage(raw, 0)
	if err != nil {
		return nil, err
	}
	q := &query{page: page, raw: raw, filters: map[string][]string{}, tags: map[string][]string{}}
	for name, values := range raw {
		switch name {
		case "limit", "marker", "page_reverse", "sort_key", "sort_dir", "sort":
		case "fields":
			for _, v := range values {
				q.fields = append(q.fields, v)
			}
		case "tags", "tags-any", "not-tags", "not-tags-any":
			for _, v := range values {
				q.tags[name] = append(q.tags[name], strings.Split(v, ",")...)
			}
		default:
			q.filters[name] = slices.Clone(values)
		}
	}
	return q, nil
}

// one gives the value of a filter that has exactly one.
func (q *query) one(name string) (string, bool) {
	v := q.filters[name]
	return first(v), len(v) == 1 && v[0] != ""
}

func first(v []string) string {
	if len(v) == 0 {
		return ""
	}
	return v[0]
}

// project gives the project that the list is limited to by a filter.
func (q *query) project() (string, bool) {
	if p, ok := q.one("project_id"); ok {
		return p, true
	}
	return q.one("tenant_id")
}

// tagged tells whether a resource with these tags is asked for.
func (q *query) tagged(have []string) bool {
	for kind, want := range q.tags {
		n := 0
		for _, t := range want {
			if slices.Contains(have, t) {
				n++
			}
		}
		ok := false
		switch kind {
		case "tags":
			ok = n == len(want)
		case "tags-any":
			ok = n > 0
		case "not-tags":
			ok = n < len(want)
		case "not-tags-any":
			ok = n == 0
		}
		if !ok {
			return false
		}
	}
	return true
}

// links gives the links to the pages beside this one.
func (q *query) links(c *api.Context, path, firstID, lastID string, more bool) []link {
	to := func(rel, marker string, reverse bool) link {
		v := url.Values{}
		for k, vals := range q.raw {
			if k != "marker" && k != "page_reverse" {
				v[k] = vals
			}
		}
		v.Set("marker", marker)
		if reverse {
			v.Set("page_reverse", "True")
		}
		return link{rel, c.URL(path) + "?" + v.Encode()}
	}
	var out []link
	next, previous := more, q.page.Marker != ""
	if q.page.Reverse {
		next, previous = previous, more
	}
	if next {
		out = append(out, to("next", lastID, false))
	}
	if previous {
		out = append(out, to("previous", firstID, true))
	}
	return out
}

// fieldsOf gives the set of attributes to show; nil: all.
func fieldsOf(list []string) map[string]bool {
	var out map[string]bool
	for _, f := range list {
		if f == "" {
			continue
		}
		if out == nil {
			out = map[string]bool{}
		}
		out[f] = true
	}
	return out
}

// only refuses a filter that is none of those named, and writes truth values in one way.
func (q *query) only(names ...string) error {
	for name, values := range q.filters {
		if !slices.Contains(names, name) {
			return badRequest("'%s' is invalid attribute for filtering", shown(json.RawMessage(name)))
		}
		if name == "admin_state_up" || name == "alive" {
			for i := range values {
				values[i] = boolNorm(values[i])
			}
		}
	}
	return nil
}

// finds tells whether the filters find what has these values.
func (q *query) finds(have map[string]string) bool {
	for name, want := range q.filters {
		if !slices.Contains(want, have[name]) {
			return false
		}
	}
	return true
}
