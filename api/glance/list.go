package glance

import (
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"yakumo/api"
	"yakumo/fault"
	"yakumo/images"
	"yakumo/model"
)

// The length of a page where the client names none, and the longest.
const (
	defaultLimit = 25
	maxLimit     = 1000
)

func (s *service) list(c *api.Context) error {
	q := c.Query()
	want, limit, err := parseList(q)
	if err != nil {
		return err
	}
	out := []map[string]any{}
	body := map[string]any{"first": link("/v2/images", q, ""), "schema": "/v2/schemas/images"}
	if limit > 0 {
		page, more, err := s.images.List(c.Snapshot(), caller(c), want)
		if err != nil {
			return err
		}
		for _, img := range page {
			out = append(out, view(img))
		}
		if more {
			body["next"] = link("/v2/images", q, page[len(page)-1].ID)
		}
	}
	body["images"] = out
	return c.JSON(http.StatusOK, body)
}

// link is the path of a page of the same list; clients put their endpoint before it.
func link(path string, q url.Values, marker model.ID) string {
	q = copyValues(q)
	q.Del("marker")
	if marker != "" {
		q.Set("marker", marker)
	}
	if len(q) == 0 {
		return path
	}
	return path + "?" + q.Encode()
}

func copyValues(q url.Values) url.Values {
	out := make(url.Values, len(q))
	for k, v := range q {
		out[k] = slices.Clone(v)
	}
	return out
}

// parseLimit reads the length of a page.
func parseLimit(q url.Values) (int, error) {
	s := q.Get("limit")
	if s == "" {
		return defaultLimit, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		return 0, fault.New(fault.Invalid, "limit param must be an integer")
	}
	if n < 0 {
		return 0, fault.New(fault.Invalid, "limit param must be positive")
	}
	return min(n, maxLimit), nil
}

// parseList reads a list's parameters. Whatever is not a known one is the name of an
// image's own property.
func parseList(q url.Values) (images.Query, int, error) {
	limit, err := parseLimit(q)
	if err != nil {
		return images.Query{}, 0, err
	}
	want := images.Query{Limit: limit, Marker: q.Get("marker"), Visibility: q.Get("visibility"), MemberStatus: q.Get("member_status")}
	if want.Sort, err = parseSort(q); err != nil {
		return want, 0, err
	}
	if !slices.Contains([]string{"", model.MemberPending, model.MemberAccepted, model.MemberRejected, "all"}, want.MemberStatus) {
		return want, 0, fault.New(fault.Invalid, "Invalid status: %s", want.MemberStatus)
	}
	if s := q.Get("os_hidden"); s != "" {
		if want.Hidden, err = parseBool("os_hidden", s); err != nil {
			return want, 0, err
		}
	}
	var tests []func(*model.Image) bool
	for name, values := range q {
		if slices.Contains([]string{"limit", "marker", "visibility", "member_status", "os_hidden", "sort", "sort_key", "sort_dir"}, name) {
			continue
		}
		for _, v := range values {
			t, err := parseFilter(name, v)
			if err != nil {
				return want, 0, err
			}
			tests = append(tests, t)
		}
	}
	want.Match = func(img *model.Image) bool {
		for _, t := range tests {
			if !t(img) {
				return false
			}
		}
		return true
	}
	return want, limit, nil
}

// parseSort reads sort_key with sort_dir, or sort=key:dir,key:dir. Without a direction the
// order is downwards, as in Glance.
func parseSort(q url.Values) (out []images.SortKey, err error) {
	add := func(key, dir string) error {
		if dir != "" && dir != "asc" && dir != "desc" {
			return fault.New(fault.Invalid, "Invalid sort direction: %s", dir)
		}
		if !slices.Contains(images.SortKeys(), key) {
			return fault.New(fault.Invalid, "Invalid sort key: %s", key)
		}
		out = append(out, images.SortKey{Key: key, Desc: dir != "asc"})
		return nil
	}
	keys, dirs := q["sort_key"], q["sort_dir"]
	if s := q.Get("sort"); s != "" {
		if len(keys)+len(dirs) > 0 {
			return nil, fault.New(fault.Invalid, "Old and new sorting syntax cannot be combined")
		}
		for part := range strings.SplitSeq(s, ",") {
			k, d, _ := strings.Cut(strings.TrimSpace(part), ":")
			if err := add(k, d); err != nil {
				return nil, err
			}
		}
		return out, nil
	}
	if len(dirs) > 1 && len(dirs) != len(keys) {
		return nil, fault.New(fault.Invalid, "Number of sort dirs does not match the number of sort keys")
	}
	if len(keys) == 0 && len(dirs) == 1 {
		keys = []string{"created_at"}
	}
	for i, k := range keys {
		d := ""
		if len(dirs) == 1 {
			d = dirs[0]
		} else if len(dirs) > 1 {
			d = dirs[i]
		}
		if err := add(k, d); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func parseBool(name, s string) (bool, error) {
	switch strings.ToLower(s) {
	case "true", "1", "yes", "on", "t", "y":
		return true, nil
	case "false", "0", "no", "off", "f", "n":
		return false, nil
	}
	return false, fault.New(fault.Invalid, "Invalid value '%s' for %s filter: it is true or false.", s, name)
}

// parseFilter makes a test of one filter.
func parseFilter(name, value string) (func(*model.Image) bool, error) {
	text := func(get func(*model.Image) string) (func(*model.Image) bool, error) {
		return func(img *model.Image) bool { return get(img) == value }, nil
	}
	oneOf := func(get func(*model.Image) string) (func(*model.Image) bool, error) {
		list, ok := strings.CutPrefix(value, "in:")
		if !ok {
			return text(get)
		}
		values, err := splitQuoted(list)
		if err != nil {
			return nil, err
		}
		return func(img *model.Image) bool { return slices.Contains(values, get(img)) }, nil
	}
	number := func(ok func(img *model.Image, n int64) bool) (func(*model.Image) bool, error) {
		n, err := strconv.ParseInt(value, 10, 64)
		if err != nil || n < 0 {
			return nil, fault.New(fault.Invalid, "Invalid value '%s' for %s filter: it is a whole number, not below zero.", value, name)
		}
		return func(img *model.Image) bool { return ok(img, n) }, nil
	}
	switch name {
	case "name":
		return oneOf(func(i *model.Image) string { return i.Name })
	case "id":
		return oneOf(func(i *model.Image) string { return i.ID })
	case "status":
		return oneOf(func(i *model.Image) string { return i.Status })
	case "disk_format":
		return oneOf(func(i *model.Image) string { return i.DiskFormat })
	case "container_format":
		return oneOf(func(i *model.Image) string { return i.ContainerFormat })
	case "owner":
		return text(func(i *model.Image) string { return i.ProjectID })
	case "checksum":
		return text(func(i *model.Image) string { return i.Checksum })
	case "os_hash_algo":
		return text(func(i *model.Image) string { return i.HashAlgo })
	case "os_hash_value":
		return text(func(i *model.Image) string { return i.HashValue })
	case "tag":
		return func(i *model.Image) bool { return slices.Contains(i.Tags, value) }, nil
	case "size_min":
		return number(func(i *model.Image, n int64) bool { return i.BlobID != "" && i.Size >= n })
	case "size_max":
		return number(func(i *model.Image, n int64) bool { return i.BlobID != "" && i.Size <= n })
	case "size":
		return number(func(i *model.Image, n int64) bool { return i.BlobID != "" && i.Size == n })
	case "virtual_size":
		return number(func(i *model.Image, n int64) bool { return i.BlobID != "" && i.VirtualSize == n })
	case "min_disk":
		return number(func(i *model.Image, n int64) bool { return int64(i.MinDiskGiB) == n })
	case "min_ram":
		return number(func(i *model.Image, n int64) bool { return int64(i.MinRAMMiB) == n })
	case "protected":
		b, err := parseBool(name, value)
		if err != nil {
			return nil, err
		}
		return func(i *model.Image) bool { return i.Protected == b }, nil
	case "created_at":
		return timeFilter(name, value, func(i *model.Image) time.Time { return i.CreatedAt })
	case "updated_at":
		return timeFilter(name, value, func(i *model.Image) time.Time { return i.UpdatedAt })
	}
	return func(i *model.Image) bool {
		v, ok := i.Properties[name]
		return ok && v == value
	}, nil
}

// timeFilter reads op:time with op one of gt, gte, lt, lte, eq, neq; eq where none stands.
// Times are compared by the second, as they are shown.
func timeFilter(name, value string, get func(*model.Image) time.Time) (func(*model.Image) bool, error) {
	tests := map[string]func(c int) bool{
		"gt": func(c int) bool { return c > 0 }, "gte": func(c int) bool { return c >= 0 },
		"lt": func(c int) bool { return c < 0 }, "lte": func(c int) bool { return c <= 0 },
		"eq": func(c int) bool { return c == 0 }, "neq": func(c int) bool { return c != 0 },
	}
	test := tests["eq"]
	if op, rest, ok := strings.Cut(value, ":"); ok && !startsWithDigit(op) {
		if test, ok = tests[op]; !ok {
			return nil, fault.New(fault.Invalid, "Unable to filter by %s: the operator '%s' is not known.", name, op)
		}
		value = rest
	}
	var at time.Time
	var err error
	for _, form := range []string{time.RFC3339, "2006-01-02T15:04:05.999999", "2006-01-02T15:04", "2006-01-02"} {
		if at, err = time.Parse(form, value); err == nil {
			break
		}
	}
	if err != nil {
		return nil, fault.New(fault.Invalid, "Unable to filter by %s: '%s' is not a time in ISO 8601.", name, value)
	}
	return func(i *model.Image) bool {
		return test(get(i).Truncate(time.Second).Compare(at.Truncate(time.Second)))
	}, nil
}

func startsWithDigit(s string) bool { return s != "" && s[0] >= '0' && s[0] <= '9' }

// splitQuoted splits a list at its commas; a value in double quotes may hold commas, and
// quotes behind a backslash.
func splitQuoted(s string) ([]string, error) {
	bad := fault.New(fault.Invalid, "Invalid filter value %s. The quotes are not closed, or a comma is missing after them.", s)
	var out []string
	for {
		var v strings.Builder
		rest, quoted := strings.CutPrefix(s, `"`)
		if !quoted {
			part, after, more := strings.Cut(s, ",")
			if strings.Contains(part, `"`) {
				return nil, bad
			}
			out = append(out, part)
			if !more {
				return out, nil
			}
			s = after
			continue
		}
		i := 0
		for ; i < len(rest) && rest[i] != '"'; i++ {
			if rest[i] == '\\' && i+1 < len(rest) {
				i++
			}
			v.WriteByte(rest[i])
		}
		if i == len(rest) {
			return nil, bad
		}
		out = append(out, v.String())
		if s = rest[i+1:]; s == "" {
			return out, nil
		}
		if s[0] != ',' {
			return nil, bad
		}
		s = s[1:]
	}
}
