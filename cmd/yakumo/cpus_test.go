package main

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestParseDedicated(t *testing.T) {
	online := filepath.Join(t.TempDir(), "online")
	if err := os.WriteFile(online, []byte("0-7,16\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string][]int{"": nil, "2-7,^4,16": {2, 3, 5, 6, 7, 16}, "0": {0}} {
		if got, err := parseDedicated(text, "qemu", online); err != nil || !slices.Equal(got, want) {
			t.Errorf("%q: %v, %v, want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"8", "x", "3-1", "-1", "0-16"} {
		if got, err := parseDedicated(text, "qemu", online); err == nil {
			t.Errorf("%q is taken: %v", text, got)
		}
	}
	if _, err := parseDedicated("1", "lxc", online); err == nil {
		t.Error("containers are given CPUs")
	}
}
