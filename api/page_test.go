package api_test

import (
	"fmt"
	"net/url"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"yakumo/api"
	"yakumo/fault"
)

func TestParsePage(t *testing.T) {
	for query, want := range map[string]string{
		"":                                    "{0  false []}",
		"limit=5&marker=m":                    "{5 m false []}",
		"limit=500":                           "{100  false []}",
		"page_reverse=True":                   "{0  true []}",
		"sort_key=a&sort_dir=desc":            "{0  false [{a true}]}",
		"sort_key=a&sort_key=b&sort_dir=desc": "{0  false [{a true} {b true}]}",
		"sort=a:desc,b":                       "{0  false [{a true} {b false}]}",
	} {
		q, err := url.ParseQuery(query)
		if err != nil {
			t.Fatal(err)
		}
		limit := 0
		if query == "limit=500" {
			limit = 100
		}
		p, err := api.ParsePage(q, limit)
		if got := fmt.Sprint(p); err != nil || got != want {
			t.Errorf("%s: %s, %v", query, got, err)
		}
	}
	for _, query := range []string{"limit=-1", "limit=x", "limit=9999999999999999999999", "sort_key=a&sort_dir=up", "sort=:asc", "sort=a:up"} {
		q, err := url.ParseQuery(query)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := api.ParsePage(q, 0); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", query, err)
		}
	}
}

// Pages laid end to end are the list, in both directions.
func TestPagesAreTheList(t *testing.T) {
	id := func(s string) string { return s }
	rapid.Check(t, func(t *rapid.T) {
		rows := rapid.SliceOfNDistinct(rapid.StringN(1, 4, -1), 0, 20, id).Draw(t, "rows")
		limit := rapid.IntRange(1, 7).Draw(t, "limit")
		reverse := rapid.Bool().Draw(t, "reverse")
		var got []string
		p := api.Page{Limit: limit, Reverse: reverse}
		for {
			page, more, err := api.Cut(rows, p, id)
			if err != nil || len(page) > limit {
				t.Fatal(page, err)
			}
			if reverse {
				got = append(slices.Clone(page), got...)
			} else {
				got = append(got, page...)
			}
			if !more {
				break
			}
			if p.Marker = page[len(page)-1]; reverse {
				p.Marker = page[0]
			}
		}
		if !slices.Equal(got, rows) {
			t.Fatalf("pages %q, list %q", got, rows)
		}
	})
	if _, _, err := api.Cut([]string{"a"}, api.Page{Marker: "b"}, id); !fault.Is(err, fault.Invalid) {
		t.Errorf("an unknown marker: %v", err)
	}
}
