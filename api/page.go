package api

import (
	"net/url"
	"strconv"
	"strings"

	"yakumo/fault"
)

// Page is what a client asked of a list.
type Page struct {
	Limit   int    // 0: no limit asked
	Marker  string // the id after which the page begins; "" the first page
	Reverse bool   // page_reverse (Neutron)
	Sort    []SortKey
}

// SortKey is one key of an order.
type SortKey struct {
	Key  string
	Desc bool
}

// ParsePage reads limit, marker, page_reverse and the sort parameters: sort_key with
// sort_dir, each any number of times, or sort=key:dir,key:dir. maxLimit caps the limit; 0: no cap.
func ParsePage(q url.Values, maxLimit int) (Page, error) {
	p := Page{Marker: q.Get("marker"), Reverse: q.Get("page_reverse") == "True" || q.Get("page_reverse") == "true"}
	if s := q.Get("limit"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil || n < 0 {
			return p, fault.New(fault.Invalid, "Invalid input for query parameter limit: '%s' is not a non-negative integer.", s)
		}
		p.Limit = n
	}
	if maxLimit > 0 && (p.Limit == 0 || p.Limit > maxLimit) {
		p.Limit = maxLimit
	}
	dirs := q["sort_dir"]
	for i, k := range q["sort_key"] {
		d := ""
		if i < len(dirs) {
			d = dirs[i]
		} else if len(dirs) > 0 {
			d = dirs[len(dirs)-1]
		}
		if err := p.addSort(k, d); err != nil {
			return p, err
		}
	}
	for _, s := range q["sort"] {
		for len(s) > 0 {
			var part string
			part, s, _ = strings.Cut(s, ",")
			k, d, _ := strings.Cut(part, ":")
			if err := p.addSort(k, d); err != nil {
				return p, err
			}
		}
	}
	return p, nil
}

func (p *Page) addSort(key, dir string) error {
	switch dir {
	case "", "asc", "desc":
	default:
		return fault.New(fault.Invalid, "The sort direction '%s' is neither asc nor desc.", dir)
	}
	if key == "" {
		return fault.New(fault.Invalid, "A sort key is empty.")
	}
	p.Sort = append(p.Sort, SortKey{key, dir == "desc"})
	return nil
}

// ErrMarker is returned by Cut for a marker that names nothing in the list.
var ErrMarker = fault.New(fault.Invalid, "The marker could not be found.")

// Cut gives the page's part of a list that is already filtered and sorted, and whether
// more follows it. id gives a row's marker.
func Cut[T any](rows []T, p Page, id func(T) string) (page []T, more bool, err error) {
	if p.Reverse {
		end := len(rows)
		if p.Marker != "" {
			if end = index(rows, p.Marker, id); end < 0 {
				return nil, false, ErrMarker
			}
		}
		start := 0
		if p.Limit > 0 {
			start = max(0, end-p.Limit)
		}
		return rows[start:end], start > 0, nil
	}
	start := 0
	if p.Marker != "" {
		i := index(rows, p.Marker, id)
		if i < 0 {
			return nil, false, ErrMarker
		}
		start = i + 1
	}
	end := len(rows)
	if p.Limit > 0 {
		end = min(end, start+p.Limit)
	}
	return rows[start:end], end < len(rows), nil
}

func index[T any](rows []T, marker string, id func(T) string) int {
	for i := range rows {
		if id(rows[i]) == marker {
			return i
		}
	}
	return -1
}
