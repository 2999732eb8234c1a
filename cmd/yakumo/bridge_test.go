package main

import (
	"maps"
	"strings"
	"testing"

	"yakumo/fault"
)

func TestBridgeMappings(t *testing.T) {
	for _, c := range []struct {
		list string
		want map[string]string
	}{
		{"", map[string]string{}},
		{"physnet1:br-ex", map[string]string{"physnet1": "br-ex"}},
		{"physnet1:br-ex a.b:br-2", map[string]string{"physnet1": "br-ex", "a.b": "br-2"}},
		{"physnet1", nil},
		{":br-ex", nil},
		{"physnet1:", nil},
		{"physnet1:br-ex:3", nil},
		{"physnet1:br/ex", nil},
		{"physnet1:br-ex,physnet2:br-2", nil},
		{"physnet1:br-int", nil},
		{"physnet1:br-ex physnet1:br-2", nil},
		{"physnet1:br-ex physnet2:br-ex", nil},
		{"physnet1:abcdefghijklmnop", nil},
		{strings.Repeat("p", 65) + ":br-ex", nil},
	} {
		got, err := parseBridgeMappings(strings.Fields(c.list), "br-int")
		switch {
		case c.want == nil && !fault.Is(err, fault.Invalid):
			t.Errorf("%q: got %v and error %v, want a refusal", c.list, got, err)
		case c.want != nil && (err != nil || !maps.Equal(got, c.want)):
			t.Errorf("%q: got %v, %v, want %v", c.list, got, err, c.want)
		}
	}
}
