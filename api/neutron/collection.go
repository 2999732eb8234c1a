package neutron

import (
	"encoding/json"
	"iter"
	"net/http"
	"slices"
	"sort"
	"strconv"
	"strings"

	"yakumo/api"
	"yakumo/fault"
	"yakumo/model"
	"yakumo/network"
	"yakumo/store"
)

// collection serves the resources of one kind.
type collection[R, S any] struct {
	path           string // "security-groups"
	single, plural string // in bodies: "security_group", "security_groups"
	attrs          []attribute[R, S]
	tagged         bool
	meta           func(*R) *model.Meta
	get            func(r store.Reader, sc network.Scope, id string) (*R, error)
	sees           func(v *view, r *R) bool
	candidates     func(v *view, q *query) iter.Seq[*R] // what the filters can find, maybe more; sorted by id or not
	create         func(tx *store.Tx, sc network.Scope, s S) (*R, error)
	update         func(tx *store.Tx, sc network.Scope, id string, s S) (*R, error) // nil: no PUT
	remove         func(tx *store.Tx, sc network.Scope, id string) error
	filter         func(name string) func(v *view, r *R, values []string) (bool, error)   // special filters; nil: none
	before         func(c *api.Context, q *query) error                                   // before a list; nil: nothing
	clear          func(tx *store.Tx, sc network.Scope, id string) (more bool, err error) // before a removal, as often as there is more; nil: nothing
	writers        api.Access                                                             // who may write; zero: members
}

func (x *collection[R, S]) routes() []api.Route {
	one, all := "/v2.0/"+x.path+"/{id}", "/v2.0/"+x.path
	out := []api.Route{
		{Method: http.MethodGet, Pattern: all, Access: api.Reader, Handle: x.serveList},
		{Method: http.MethodPost, Pattern: all, Access: api.Member, Handle: x.serveCreate},
		{Method: http.MethodGet, Pattern: one, Access: api.Reader, Handle: x.serveShow},
		{Method: http.MethodDelete, Pattern: one, Access: api.Member, Handle: x.serveDelete},
	}
	if x.update != nil {
		out = append(out, api.Route{Method: http.MethodPut, Pattern: one, Access: api.Member, Handle: x.serveUpdate})
	}
	for i := range out {
		if x.writers != 0 && out[i].Method != http.MethodGet {
			out[i].Access = x.writers
		}
	}
	return out
}

func (x *collection[R, S]) attr(name string) *attribute[R, S] {
	for i := range x.attrs {
		if x.attrs[i].name == name {
			return &x.attrs[i]
		}
	}
	return nil
}

// read makes a spec of the members of a body's object.
func (x *collection[R, S]) read(sc network.Scope, body map[string]json.RawMessage, create bool) (S, error) {
	var s S
	names := make([]string, 0, len(body))
	var unknown []string
	for name := range body {
		if x.attr(name) == nil {
			unknown = append(unknown, shown(json.RawMessage(name)))
			continue
		}
		names = append(names, name)
	}
	if len(unknown) > 0 {
		slices.Sort(unknown)
		return s, badRequest("Unrecognized attribute(s) '%s'", strings.Join(unknown, ", "))
	}
	slices.Sort(names) // the same request gets the same answer
	method := "PUT"
	if create {
		method = "POST"
		for _, a := range x.attrs {
			if _, ok := body[a.name]; a.required && !ok {
				return s, badRequest("Failed to parse request. Required attribute '%s' not specified", a.name)
			}
		}
	}
	for _, name := range names {
		a, raw := x.attr(name), body[name]
		r := a.put
		if create {
			r = a.post
		}
		switch {
		case r == readOnly:
			return s, badRequest("Attribute '%s' not allowed in %s", name, method)
		case r == adminOnly && !sc.Admin:
			if create && isDefault(raw) {
				continue
			}
			return s, fault.Coded(fault.Forbidden, "PolicyNotAuthorized", "Only an administrator may set '%s'.", name)
		}
		if err := a.set(&s, raw); err != nil {
			return s, err
		}
	}
	if a, b := body["project_id"], body["tenant_id"]; create && a != nil && b != nil && string(a) != string(b) {
		return s, badRequest("'project_id' and 'tenant_id' do not match")
	}
	return s, nil
}

// isDefault tells whether a value of an attribute for administrators says nothing, so
// that a client which sends every attribute may send it.
func isDefault(raw json.RawMessage) bool {
	switch strings.TrimSpace(string(raw)) {
	case "null", "false", `""`, "{}", "[]", `"False"`, `"false"`:
		return true
	}
	return false
}

// emit appends the resource; fields nil: every attribute that the caller may see.
func (x *collection[R, S]) emit(b []byte, v *view, r *R, fields map[string]bool) []byte {
	b = append(b, '{')
	first := true
	for i := range x.attrs {
		a := &x.attrs[i]
		if a.emit == nil || a.hidden && !v.scope.Admin || fields != nil && !fields[a.name] {
			continue
		}
		if !first {
			b = append(b, ',')
		}
		first = false
		b = append(b, '"')
		b = append(b, a.name...)
		b = append(b, '"', ':')
		b = a.emit(b, v, r)
	}
	return append(b, '}')
}

func (x *collection[R, S]) answer(c *api.Context, status int, rows []*R, bulk bool) error {
	v := &view{r: c.Snapshot(), scope: scope(c)}
	name := x.single
	if bulk {
		name = x.plural
	}
	b := append([]byte(`{"`), name...)
	b = append(b, '"', ':')
	if bulk {
		b = append(b, '[')
	}
	for i, r := range rows {
		if i > 0 {
			b = append(b, ',')
		}
		b = x.emit(b, v, r, nil)
	}
	if bulk {
		b = append(b, ']')
	}
	return c.Bytes(status, "application/json", append(b, '}'))
}

// maxBulk is how many resources one request may make; a transaction has its limit.
const maxBulk = 200

func (x *collection[R, S]) serveCreate(c *api.Context) error {
	var body map[string]json.RawMessage
	if err := c.Decode(&body); err != nil {
		return err
	}
	var items []map[string]json.RawMessage
	raw, bulk := body[x.plural]
	if bulk {
		if err := json.Unmarshal(raw, &items); err != nil || len(items) == 0 {
			return badRequest("Invalid input for %s. Reason: a list of objects is needed.", x.plural)
		}
		if len(items) > maxBulk {
			return badRequest("One request makes at most %d %s.", maxBulk, x.plural)
		}
	} else {
		item, err := x.object(body)
		if err != nil {
			return err
		}
		items = append(items, item)
	}
	sc := scope(c)
	specs := make([]S, 0, len(items))
	for _, item := range items {
		if item == nil {
			return badRequest("Unable to find '%s' in request body", x.single)
		}
		s, err := x.read(sc, item, true)
		if err != nil {
			return err
		}
		specs = append(specs, s)
	}
	var rows []*R
	if _, err := c.Store().Update(c.R.Context(), func(tx *store.Tx) error {
		rows = rows[:0]
		for _, s := range specs {
			r, err := x.create(tx, sc, s)
			if err != nil {
				return err
			}
			rows = append(rows, r)
		}
		return nil
	}); err != nil {
		return err
	}
	return x.answer(c, http.StatusCreated, rows, bulk)
}

// object gives the body's one object.
func (x *collection[R, S]) object(body map[string]json.RawMessage) (map[string]json.RawMessage, error) {
	var item map[string]json.RawMessage
	raw, ok := body[x.single]
	if !ok {
		return nil, badRequest("Unable to find '%s' in request body", x.single)
	}
	if err := json.Unmarshal(raw, &item); err != nil || item == nil {
		return nil, badRequest("Invalid input for %s. Reason: '%s' is not an object.", x.single, shown(raw))
	}
	return item, nil
}

func (x *collection[R, S]) serveShow(c *api.Context) error {
	v := &view{r: c.Snapshot(), scope: scope(c)}
	r, err := x.get(v.r, v.scope, c.Param("id"))
	if err != nil {
		return err
	}
	b := append([]byte(`{"`), x.single...)
	b = append(b, '"', ':')
	b = x.emit(b, v, r, fieldsOf(c.Query()["fields"]))
	return c.Bytes(http.StatusOK, "application/json", append(b, '}'))
}

func (x *collection[R, S]) serveUpdate(c *api.Context) error {
	var body map[string]json.RawMessage
	if err := c.Decode(&body); err != nil {
		return err
	}
	item, err := x.object(body)
	if err != nil {
		return err
	}
	sc, id := scope(c), c.Param("id")
	s, err := x.read(sc, item, false)
	if err != nil {
		// What is not the caller's to see is not found before anything is said of the body.
		if _, gone := x.get(c.Snapshot(), sc, id); gone != nil {
			return gone
		}
		return err
	}
	match, err := ifMatch(c)
	if err != nil {
		return err
	}
	var row *R
	if _, err := c.Store().Update(c.R.Context(), func(tx *store.Tx) error {
		old, err := x.get(tx, sc, id)
		if err != nil {
			return err
		}
		if err := checkMatch(match, x.meta(old)); err != nil {
			return err
		}
		row, err = x.update(tx, sc, id, s)
		return err
	}); err != nil {
		return err
	}
	return x.answer(c, http.StatusOK, []*R{row}, false)
}

func (x *collection[R, S]) serveDelete(c *api.Context) error {
	match, err := ifMatch(c)
	if err != nil {
		return err
	}
	sc, id := scope(c), c.Param("id")
	matches := func(tx *store.Tx) error {
		if match < 0 {
			return nil
		}
		old, err := x.get(tx, sc, id)
		if err != nil {
			return err
		}
		return checkMatch(match, x.meta(old))
	}
	for more := x.clear != nil; more; {
		if _, err := c.Store().Update(c.R.Context(), func(tx *store.Tx) (err error) {
			if err = matches(tx); err == nil {
				more, err = x.clear(tx, sc, id)
			}
			return err
		}); err != nil {
			return err
		}
	}
	if _, err := c.Store().Update(c.R.Context(), func(tx *store.Tx) error {
		if err := matches(tx); err != nil {
			return err
		}
		return x.remove(tx, sc, id)
	}); err != nil {
		return err
	}
	return c.Empty(http.StatusNoContent)
}

// ifMatch reads the revision that the caller insists on, -1 where it names none. The form
// is If-Match: revision_number=<n>.
func ifMatch(c *api.Context) (int64, error) {
	h := c.R.Header.Get("If-Match")
	if h == "" {
		return -1, nil
	}
	n, ok := strings.CutPrefix(h, "revision_number=")
	rev, err := strconv.ParseInt(strings.TrimSpace(n), 10, 64)
	if !ok || err != nil || rev < 0 {
		return 0, badRequest("The If-Match header '%s' is not of the form revision_number=<number>.", shown(json.RawMessage(h)))
	}
	return rev, nil
}

func checkMatch(match int64, m *model.Meta) error {
	if match >= 0 && match != m.Generation {
		return fault.Coded(fault.Precondition, "RevisionNumberConstraintFailed", "Constrained to %d, but current revision is %d", match, m.Generation)
	}
	return nil
}

func (x *collection[R, S]) serveList(c *api.Context) error {
	q, err := parseQuery(c.Query())
	if err != nil {
		return err
	}
	if x.before != nil {
		if err := x.before(c, q); err != nil {
			return err
		}
	}
	v := &view{r: c.Snapshot(), scope: scope(c)}
	tests, err := x.tests(v, q)
	if err != nil {
		return err
	}
	orders, err := x.orders(q.page.Sort)
	if err != nil {
		return err
	}
	var rows []*R
	sorted := true
	candidates := x.candidates(v, q)
	enough := q.enough()
next:
	for r := range candidates {
		if enough > 0 && x.meta(r).ID < q.page.Marker {
			continue
		}
		if !x.sees(v, r) {
			continue
		}
		for _, t := range tests {
			if ok, err := t(r); err != nil {
				return err
			} else if !ok {
				continue next
			}
		}
		if n := len(rows); n > 0 && x.meta(rows[n-1]).ID >= x.meta(r).ID {
			sorted = false
		}
		if rows = append(rows, r); len(rows) == enough {
			break
		}
	}
	if !sorted { // more than one index, or one found a row twice
		slices.SortFunc(rows, func(a, b *R) int { return strings.Compare(x.meta(a).ID, x.meta(b).ID) })
		rows = slices.CompactFunc(rows, func(a, b *R) bool { return x.meta(a).ID == x.meta(b).ID })
	}
	if len(orders) > 0 {
		sortBy(rows, orders, q.page.Sort)
	}
	page, more, err := api.Cut(rows, q.page, func(r *R) string { return x.meta(r).ID })
	if err != nil {
		return err
	}
	b := make([]byte, 0, 512+len(page)*900)
	b = append(b, '{', '"')
	b = append(b, x.plural...)
	b = append(b, '"', ':', '[')
	fields := fieldsOf(q.fields)
	for i, r := range page {
		if i > 0 {
			b = append(b, ',')
		}
		b = x.emit(b, v, r, fields)
	}
	b = append(b, ']')
	if q.page.Limit > 0 && len(page) > 0 {
		links, err := json.Marshal(q.links(c, "/v2.0/"+x.path, x.meta(page[0]).ID, x.meta(page[len(page)-1]).ID, more))
		if err != nil {
			return err
		}
		if string(links) != "null" {
			b = append(b, `,"`+x.plural+`_links":`...)
			b = append(b, links...)
		}
	}
	return c.Bytes(http.StatusOK, "application/json", append(b, '}'))
}

// tests makes a test of each filter.
func (x *collection[R, S]) tests(v *view, q *query) ([]func(*R) (bool, error), error) {
	var out []func(*R) (bool, error)
	for name, values := range q.filters {
		if x.filter != nil {
			if f := x.filter(name); f != nil {
				out = append(out, func(r *R) (bool, error) { return f(v, r, values) })
				continue
			}
		}
		a := x.attr(name)
		switch {
		case a == nil || a.match == nil:
			return nil, badRequest("'%s' is invalid attribute for filtering", shown(json.RawMessage(name)))
		case a.hidden && !v.scope.Admin:
			return nil, fault.Coded(fault.Forbidden, "PolicyNotAuthorized", "Only an administrator may filter by '%s'.", name)
		}
		if a.norm != nil {
			for i := range values {
				values[i] = a.norm(values[i])
			}
		}
		out = append(out, func(r *R) (bool, error) {
			have := a.match(v, r)
			for _, h := range have {
				if slices.Contains(values, h) {
					return true, nil
				}
			}
			return len(have) == 0 && slices.Contains(values, ""), nil
		})
	}
	if len(q.tags) > 0 {
		if !x.tagged {
			return nil, badRequest("%s have no tags to filter by", x.plural)
		}
		out = append(out, func(r *R) (bool, error) { return q.tagged(x.meta(r).Tags), nil })
	}
	return out, nil
}

func (x *collection[R, S]) orders(keys []api.SortKey) ([]func(*R) string, error) {
	var out []func(*R) string
	for _, k := range keys {
		a := x.attr(k.Key)
		if a == nil || a.order == nil || a.hidden {
			return nil, badRequest("%s is invalid attribute for sort keys", shown(json.RawMessage(k.Key)))
		}
		out = append(out, a.order)
	}
	return out, nil
}

// sortBy sorts the rows, each key made once; equal rows stay in the order of their ids.
func sortBy[R any](rows []*R, orders []func(*R) string, keys []api.SortKey) {
	type keyed struct {
		row  *R
		keys []string
	}
	list := make([]keyed, len(rows))
	for i, r := range rows {
		list[i].row = r
		for _, o := range orders {
			list[i].keys = append(list[i].keys, o(r))
		}
	}
	sort.SliceStable(list, func(i, j int) bool {
		for k := range orders {
			if a, b := list[i].keys[k], list[j].keys[k]; a != b {
				return (a < b) != keys[k].Desc
			}
		}
		return false
	})
	for i := range list {
		rows[i] = list[i].row
	}
}
