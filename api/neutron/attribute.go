package neutron

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"yakumo/fault"
	"yakumo/model"
	"yakumo/network"
	"yakumo/store"
)

// right says who may give an attribute in a request.
type right uint8

const (
	readOnly  right = iota // nobody
	everyone               // whoever may make the request
	adminOnly              // an administrator of the cloud
)

// attribute is one member of a resource: who may set it, how it is read, shown, found and
// sorted. R is the row, S what a request says of it.
type attribute[R, S any] struct {
	name      string
	post, put right
	required  bool // in POST
	set       func(s *S, raw json.RawMessage) error
	hidden    bool // shown to administrators only
	emit      func(b []byte, v *view, r *R) []byte
	// match gives the values under which a filter finds the row; nil: no filter.
	match func(v *view, r *R) []string
	// norm makes a filter's value comparable with match's; nil: as it is.
	norm func(string) string
	// order gives what a row is sorted by; nil: no sort key.
	order func(r *R) string
}

// view is how a caller sees rows.
type view struct {
	r     store.Reader
	scope network.Scope
	zones []string // of all hosts, once asked for; see zonesOf
	nets  map[string]*model.Network
}

// network gives a network, which a list of ports asks for many times.
func (v *view) network(id string) (*model.Network, bool) {
	w, known := v.nets[id]
	if !known {
		if v.nets == nil {
			v.nets = map[string]*model.Network{}
		}
		w, _ = store.Networks.Get(v.r, id)
		v.nets[id] = w
	}
	return w, w != nil
}

// badInput refuses the value of an attribute.
func badInput(name, format string, args ...any) error {
	e := fault.Coded(fault.Invalid, "HTTPBadRequest", format, args...)
	e.Text = "Invalid input for " + name + ". Reason: " + e.Text
	return e
}

func badRequest(format string, args ...any) error {
	return fault.Coded(fault.Invalid, "HTTPBadRequest", format, args...)
}

// shown is how a refused value is repeated.
func shown(raw json.RawMessage) string {
	s := strings.ToValidUTF8(string(raw), "?")
	if len(raw) > 1 && raw[0] == '"' {
		var v string
		if json.Unmarshal(raw, &v) == nil {
			s = v
		}
	}
	if utf8.RuneCountInString(s) > 80 {
		s = string([]rune(s)[:80]) + "…"
	}
	return s
}

func isNull(raw json.RawMessage) bool { return bytes.Equal(bytes.TrimSpace(raw), []byte("null")) }

func readString(name string, raw json.RawMessage) (string, error) {
	var s *string
	if err := json.Unmarshal(raw, &s); err != nil || s == nil {
		return "", badInput(name, "'%s' is not a valid string.", shown(raw))
	}
	if strings.ContainsRune(*s, 0) {
		return "", badInput(name, "a text holds no NUL character.")
	}
	return *s, nil
}

// readBool takes what Neutron takes for a truth value.
func readBool(name string, raw json.RawMessage) (bool, error) {
	switch strings.ToLower(strings.Trim(string(bytes.TrimSpace(raw)), `"`)) {
	case "true", "1":
		return true, nil
	case "false", "0":
		return false, nil
	}
	return false, badInput(name, "'%s' cannot be converted to boolean.", shown(raw))
}

func readInt(name string, raw json.RawMessage) (int, error) {
	n, err := strconv.Atoi(strings.Trim(string(bytes.TrimSpace(raw)), `"`))
	if err != nil || n > 1<<40 || n < -1<<40 {
		return 0, badInput(name, "'%s' is not an integer.", shown(raw))
	}
	return n, nil
}

func readStrings(name string, raw json.RawMessage) ([]string, error) {
	var out []string
	if err := json.Unmarshal(raw, &out); err != nil {
		return nil, badInput(name, "'%s' is not a list of strings.", shown(raw))
	}
	return out, nil
}

func readAddr(name, s string) (netip.Addr, error) {
	a, err := netip.ParseAddr(s)
	if err != nil || a.Zone() != "" || a.Is4In6() {
		return netip.Addr{}, badInput(name, "'%s' is not a valid IP address.", shown(json.RawMessage(s)))
	}
	return a, nil
}

// readPrefix reads address/length; without a length it is a single address.
func readPrefix(name, s string) (netip.Prefix, error) {
	if !strings.Contains(s, "/") {
		a, err := readAddr(name, s)
		if err != nil {
			return netip.Prefix{}, err
		}
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil || p.Addr().Is4In6() {
		return netip.Prefix{}, badInput(name, "'%s' is not a valid IP subnet.", shown(json.RawMessage(s)))
	}
	return p, nil
}

// readObjects reads a list of objects whose members are among those named.
func readObjects(name string, raw json.RawMessage, members ...string) ([]map[string]json.RawMessage, error) {
	var out []map[string]json.RawMessage
	if err := json.Unmarshal(raw, &out); err != nil {
		return nil, badInput(name, "'%s' is not a list of objects.", shown(raw))
	}
	for _, o := range out {
		if o == nil {
			return nil, badInput(name, "'%s' is not a list of objects.", shown(raw))
		}
		for k := range o {
			if !slices.Contains(members, k) {
				return nil, badInput(name, "the key '%s' is none of %s.", shown(json.RawMessage(k)), strings.Join(members, ", "))
			}
		}
	}
	return out, nil
}

// appendString appends s as JSON.
func appendString(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < 0x20 || c == '"' || c == '\\' || c >= utf8.RuneSelf {
			enc, err := json.Marshal(s)
			if err != nil {
				panic(err) // a string always encodes
			}
			return append(b, enc...)
		}
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}

func appendStrings(b []byte, list []string) []byte {
	b = append(b, '[')
	for i, s := range list {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendString(b, s)
	}
	return append(b, ']')
}

func appendAddr(b []byte, a netip.Addr) []byte {
	if !a.IsValid() {
		return append(b, "null"...)
	}
	b = append(b, '"')
	b = a.AppendTo(b)
	return append(b, '"')
}

func appendPrefix(b []byte, p netip.Prefix) []byte {
	if !p.IsValid() {
		return append(b, "null"...)
	}
	b = append(b, '"')
	b = p.AppendTo(b)
	return append(b, '"')
}

func appendIntOrNull(b []byte, n *int) []byte {
	if n == nil {
		return append(b, "null"...)
	}
	return strconv.AppendInt(b, int64(*n), 10)
}

func appendStringOrNull(b []byte, s string) []byte {
	if s == "" {
		return append(b, "null"...)
	}
	return appendString(b, s)
}

const timeForm = `"2006-01-02T15:04:05Z"`

func appendTime(b []byte, t time.Time) []byte {
	if t.IsZero() {
		return append(b, "null"...)
	}
	return t.UTC().AppendFormat(b, timeForm)
}

func boolNorm(s string) string {
	switch strings.ToLower(s) {
	case "true", "1":
		return "true"
	case "false", "0":
		return "false"
	}
	return s
}

// The constructors below make attributes of the usual kinds.

func textAttr[R, S any](name string, post, put right, get func(*R) string, field func(*S) **string) attribute[R, S] {
	a := attribute[R, S]{
		name: name, post: post, put: put,
		emit:  func(b []byte, _ *view, r *R) []byte { return appendString(b, get(r)) },
		match: func(_ *view, r *R) []string { return []string{get(r)} },
		order: get,
	}
	if field != nil {
		a.set = func(s *S, raw json.RawMessage) error {
			v, err := readString(name, raw)
			*field(s) = &v
			return err
		}
	}
	return a
}

func boolAttr[R, S any](name string, post, put right, get func(*R) bool, field func(*S) **bool) attribute[R, S] {
	a := attribute[R, S]{
		name: name, post: post, put: put,
		emit:  func(b []byte, _ *view, r *R) []byte { return strconv.AppendBool(b, get(r)) },
		match: func(_ *view, r *R) []string { return []string{strconv.FormatBool(get(r))} },
		norm:  boolNorm,
		order: func(r *R) string { return strconv.FormatBool(get(r)) },
	}
	if field != nil {
		a.set = func(s *S, raw json.RawMessage) error {
			v, err := readBool(name, raw)
			*field(s) = &v
			return err
		}
	}
	return a
}

func intAttr[R, S any](name string, post, put right, get func(*R) int, field func(*S) **int) attribute[R, S] {
	a := attribute[R, S]{
		name: name, post: post, put: put,
		emit:  func(b []byte, _ *view, r *R) []byte { return strconv.AppendInt(b, int64(get(r)), 10) },
		match: func(_ *view, r *R) []string { return []string{strconv.Itoa(get(r))} },
		order: func(r *R) string { return sortable(get(r)) },
	}
	if field != nil {
		a.set = func(s *S, raw json.RawMessage) error {
			v, err := readInt(name, raw)
			*field(s) = &v
			return err
		}
	}
	return a
}

// sortable makes numbers sort as bytes.
func sortable(n int) string {
	s := strconv.FormatUint(uint64(int64(n))^1<<63, 16)
	return strings.Repeat("0", 16-len(s)) + s
}

// metaAttrs are what every resource has. text: name and tags too.
func metaAttrs[R, S any](meta func(*R) *model.Meta, project func(*S) **string) []attribute[R, S] {
	owner := textAttr("project_id", everyone, readOnly, func(r *R) string { return meta(r).ProjectID }, project)
	tenant := owner
	tenant.name = "tenant_id"
	stamp := func(name string, get func(*model.Meta) time.Time) attribute[R, S] {
		return attribute[R, S]{
			name:  name,
			emit:  func(b []byte, _ *view, r *R) []byte { return appendTime(b, get(meta(r))) },
			match: func(_ *view, r *R) []string { return []string{get(meta(r)).UTC().Format(time.RFC3339)} },
			order: func(r *R) string { return get(meta(r)).UTC().Format("20060102150405.000000000") },
		}
	}
	return []attribute[R, S]{
		textAttr[R, S]("id", readOnly, readOnly, func(r *R) string { return meta(r).ID }, nil),
		owner, tenant,
		stamp("created_at", func(m *model.Meta) time.Time { return m.CreatedAt }),
		stamp("updated_at", func(m *model.Meta) time.Time { return m.UpdatedAt }),
		intAttr[R, S]("revision_number", readOnly, readOnly, func(r *R) int { return int(meta(r).Generation) }, nil),
	}
}

// tagsAttr shows the tags; they are found by the tag filters and set below the resource.
func tagsAttr[R, S any](meta func(*R) *model.Meta) attribute[R, S] {
	return attribute[R, S]{name: "tags", emit: func(b []byte, _ *view, r *R) []byte { return appendStrings(b, meta(r).Tags) }}
}
