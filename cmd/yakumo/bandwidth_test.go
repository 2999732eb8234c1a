package main

import (
	"maps"
	"strings"
	"testing"
)

func TestBandwidth(t *testing.T) {
	providers := map[string]string{"physnet1": "br-ex"}
	for _, c := range []struct {
		list string
		want map[string]int // nil: refused
	}{
		{"", map[string]int{}},
		{"physnet1:10000000 tunnel:5000 packets:0", map[string]int{"physnet1": 10000000, "tunnel": 5000, "packets": 0}},
		{"physnet2:5", nil}, {"physnet1", nil}, {"physnet1:", nil}, {"physnet1:-1", nil}, {"physnet1:1.5", nil}, {"physnet1:2147483648", nil},
		{"tunnel:0 tunnel:0", nil}, {":5", nil},
	} {
		got, err := parseBandwidth(strings.Fields(c.list), providers)
		if (err == nil) != (c.want != nil) || err == nil && !maps.Equal(got, c.want) {
			t.Errorf("%q: %v, %v", c.list, got, err)
		}
		if err != nil && !strings.HasPrefix(err.Error(), "--bandwidth ") {
			t.Errorf("%q: %v", c.list, err)
		}
	}
}
