package api

import (
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// matches says by recursion what a path pattern means.
func matches(pattern, path []string) bool {
	switch {
	case len(pattern) == 0:
		return len(path) == 0
	case pattern[0] == "**":
		return matches(pattern[1:], path) || len(path) > 0 && matches(pattern, path[1:])
	case len(path) == 0:
		return false
	}
	return matchPart(pattern[0], path[0]) && matches(pattern[1:], path[1:])
}

func TestPathPatterns(t *testing.T) {
	for _, k := range []struct {
		pattern, path string
		want          bool
	}{
		{"/v2.1/servers", "/v2.1/servers", true}, {"/v2.1/servers", "/v2.1/servers/1", false}, {"/v2.1/servers/*", "/v2.1/servers/1", true}, {"/v2.1/servers/*", "/v2.1/servers", false},
		{"/v2.1/servers/*", "/v2.1/servers/1/action", false}, {"/v2.1/**", "/v2.1/servers/1/action", true}, {"/v2.1/{x}/1", "/v2.1/servers/1", true}, {"/**/action", "/v2.1/servers/1/action", true},
		{"/**/action", "/v2.1/servers/1", false}, {"/v2.1/servers/*", "/v2.1/servers/", false}, {"**", "/anything", true},
	} {
		r := AccessRule{Service: "compute", Method: "GET", Path: k.pattern}
		if r.covers("compute", "GET", k.path) != k.want {
			t.Errorf("%s on %s: not %v", k.pattern, k.path, k.want)
		}
		if r.covers("compute", "POST", k.path) || r.covers("image", "GET", k.path) {
			t.Errorf("%s covers another method or service", k.pattern)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		pattern := rapid.SliceOfN(rapid.SampledFrom([]string{"**", "*", "a", "b", "{x}"}), 0, 7).Draw(t, "pattern")
		path := rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "c", ""}), 0, 7).Draw(t, "path")
		if got, want := matchPath(pattern, path), matches(pattern, path); got != want {
			t.Fatalf("%v on %v: %v, want %v", pattern, path, got, want)
		}
	})
	start := time.Now()
	matchPath(strings.Split(strings.Repeat("**/a/", 60)+"b", "/"), strings.Split(strings.Repeat("a/", 500)+"c", "/"))
	if took := time.Since(start); took > time.Second {
		t.Errorf("a hard pattern took %v", took)
	}
}
