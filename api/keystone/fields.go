package keystone

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"yakumo/api"
	"yakumo/fault"
)

// fields reads the members of a request's object. The first mistake is kept in err;
// members that nobody asked for are the object's extra attributes.
type fields struct {
	m    map[string]any
	used map[string]bool
	err  error
}

func newFields(m map[string]any) *fields {
	return &fields{m: m, used: map[string]bool{"id": true, "links": true}}
}

// read decodes the body and gives its only object.
func read(c *api.Context, noun string) (*fields, error) {
	var body map[string]any
	if err := c.Decode(&body); err != nil {
		return nil, err
	}
	return object(body, noun)
}

func object(body map[string]any, noun string) (*fields, error) {
	v, ok := body[noun]
	if !ok {
		return nil, fault.New(fault.Invalid, "'%s' is a required property", noun)
	}
	m, ok := v.(map[string]any)
	if !ok {
		return nil, wrongType(noun, v, "object")
	}
	return newFields(m), nil
}

func wrongType(field string, v any, want string) error {
	text := fmt.Sprintf("%v", v)
	if b, err := json.Marshal(v); err == nil {
		text = string(b)
	}
	if r := []rune(text); len(r) > 64 {
		text = string(r[:64]) + "…"
	}
	return fault.New(fault.Invalid, "Invalid input for field '%s': %s is not of type '%s'", field, text, want)
}

func (f *fields) fail(err error) {
	if f.err == nil {
		f.err = err
	}
}

// get gives a member and whether it is there.
func (f *fields) get(key string) (any, bool) {
	f.used[key] = true
	v, ok := f.m[key]
	return v, ok
}

func (f *fields) has(key string) bool { _, ok := f.m[key]; return ok }

// text sets the string where the member is there; null makes it empty.
func (f *fields) text(key string, into *string) {
	v, ok := f.get(key)
	if !ok {
		return
	}
	switch v := v.(type) {
	case string:
		if strings.ContainsRune(v, 0) {
			f.fail(fault.New(fault.Invalid, "Invalid input for field '%s': it holds a NUL character.", key))
		}
		*into = v
	case nil:
		*into = ""
	default:
		f.fail(wrongType(key, v, "string"))
	}
}

// must is text for a member that has to be there and not null.
func (f *fields) must(key string, into *string) {
	v, ok := f.get(key)
	switch {
	case !ok:
		f.fail(fault.New(fault.Invalid, "'%s' is a required property", key))
	case v == nil:
		f.fail(wrongType(key, v, "string"))
	default:
		f.text(key, into)
	}
}

func (f *fields) flag(key string, into *bool) {
	v, ok := f.get(key)
	if !ok {
		return
	}
	b, isBool := v.(bool)
	if !isBool {
		f.fail(wrongType(key, v, "boolean"))
	}
	*into = b
}

// number sets a whole number that is at least least.
func (f *fields) number(key string, least int, into *int) {
	v, ok := f.get(key)
	if !ok {
		return
	}
	n, isNumber := v.(float64)
	if !isNumber || n != math.Trunc(n) || math.Abs(n) > 1<<31-1 {
		f.fail(wrongType(key, v, "integer"))
		return
	}
	if int(n) < least {
		f.fail(fault.New(fault.Invalid, "Invalid input for field '%s': %d is less than the minimum of %d", key, int(n), least))
	}
	*into = int(n)
}

// texts sets a list of strings.
func (f *fields) texts(key string, into *[]string) {
	v, ok := f.get(key)
	if !ok {
		return
	}
	list, isList := v.([]any)
	if !isList {
		f.fail(wrongType(key, v, "array"))
		return
	}
	out := make([]string, 0, len(list))
	for _, e := range list {
		s, isText := e.(string)
		if !isText {
			f.fail(wrongType(key, e, "string"))
			return
		}
		out = append(out, s)
	}
	*into = out
}

// objects gives the objects of a list, and false where the member is not there or null.
func (f *fields) objects(key string) ([]*fields, bool) {
	v, ok := f.get(key)
	if !ok || v == nil {
		return nil, false
	}
	list, isList := v.([]any)
	if !isList {
		f.fail(wrongType(key, v, "array"))
		return nil, false
	}
	out := make([]*fields, 0, len(list))
	for _, e := range list {
		m, isObject := e.(map[string]any)
		if !isObject {
			f.fail(wrongType(key, e, "object"))
			return nil, false
		}
		out = append(out, newFields(m))
	}
	return out, true
}

// time sets a time in one of the forms of ISO 8601 that Keystone takes.
func (f *fields) time(key string, into *time.Time) {
	var s string
	f.text(key, &s)
	if s == "" {
		return
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05.999999999", "2006-01-02T15:04Z", "2006-01-02"} {
		if t, err := time.Parse(layout, s); err == nil {
			*into = t.UTC().Truncate(time.Microsecond)
			return
		}
	}
	f.fail(fault.New(fault.Invalid, "Invalid input for field '%s': '%.64s' is not a 'date-time'", key, s))
}

// options changes resource options: a null takes one away.
func (f *fields) options(into *map[string]any) {
	v, ok := f.get("options")
	if !ok {
		return
	}
	m, isObject := v.(map[string]any)
	if !isObject {
		f.fail(wrongType("options", v, "object"))
		return
	}
	*into = merge(*into, m)
}

// merge gives a copy of old with the members of change; null takes a member away.
func merge(old, change map[string]any) map[string]any {
	out := maps.Clone(old)
	if out == nil {
		out = map[string]any{}
	}
	for k, v := range change {
		if v == nil {
			delete(out, k)
		} else {
			out[k] = v
		}
	}
	return out
}

// extra changes the extra attributes: what no other method has read.
func (f *fields) extra(into *map[string]any) {
	rest := map[string]any{}
	for k, v := range f.m {
		if !f.used[k] {
			rest[k] = v
		}
	}
	if len(rest) > 0 {
		*into = merge(*into, rest)
	}
}

// sameID refuses a body that gives the thing another id than the path.
func (f *fields) sameID(noun, id string) {
	if v, ok := f.m["id"]; ok && v != id {
		f.fail(fault.New(fault.Invalid, "Cannot change %s ID", noun))
	}
}

// render gives the extra attributes with the fixed ones over them.
func render(extra, fixed map[string]any) map[string]any {
	out := make(map[string]any, len(extra)+len(fixed))
	maps.Copy(out, extra)
	maps.Copy(out, fixed)
	return out
}

func orEmpty(m map[string]any) map[string]any {
	if m == nil {
		return map[string]any{}
	}
	return m
}

// one answers with a single object.
func one(c *api.Context, status int, noun string, v map[string]any) error {
	return c.JSON(status, map[string]any{noun: v})
}

// list answers with the objects that the query's filters let through, a page of them
// where it asks for one.
func list(c *api.Context, plural string, rows []map[string]any, filters ...string) error {
	return listWith(c, plural, rows, nil, filters...)
}

func listWith(c *api.Context, plural string, rows []map[string]any, more map[string]any, filters ...string) error {
	q := c.Query()
	page, err := api.ParsePage(q, 0)
	if err != nil {
		return err
	}
	for key, values := range q {
		attr, op, _ := strings.Cut(key, "__")
		if slices.Contains(filters, attr) {
			rows = slices.DeleteFunc(rows, func(r map[string]any) bool { return !passes(r[attr], op, values[0]) })
		}
	}
	rows, next, err := api.Cut(rows, page, func(r map[string]any) string { s, _ := r["id"].(string); return s })
	if err != nil {
		return err
	}
	links := map[string]any{"self": c.URL(strings.TrimPrefix(c.R.URL.RequestURI(), "/identity")), "previous": nil, "next": nil}
	if next {
		id, _ := rows[len(rows)-1]["id"].(string)
		q.Set("marker", id)
		links["next"] = c.URL(strings.TrimPrefix(c.R.URL.Path, "/identity") + "?" + q.Encode())
	}
	if rows == nil {
		rows = []map[string]any{}
	}
	return c.JSON(200, render(more, map[string]any{plural: rows, "links": links}))
}

// passes compares an attribute with a filter's value; op is Keystone's comparator, an i
// before it makes it blind to case. MySQL, under most Keystones, is blind to case in any
// event, and so are we for the comparators.
func passes(v any, op, want string) bool {
	if b, ok := v.(bool); ok && (op == "" || op == "equals") {
		return b == (want == "" || !slices.Contains([]string{"0", "false", "f", "no", "n", "off"}, strings.ToLower(want)))
	}
	have, _ := v.(string)
	if op == "" {
		return have == want
	}
	have, want = strings.ToLower(have), strings.ToLower(want)
	switch strings.TrimPrefix(op, "i") {
	case "equals":
		return have == want
	case "contains":
		return strings.Contains(have, want)
	case "startswith":
		return strings.HasPrefix(have, want)
	case "endswith":
		return strings.HasSuffix(have, want)
	}
	return true // Keystone ignores a comparator that it does not know
}
