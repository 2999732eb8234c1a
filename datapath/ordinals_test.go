package datapath_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"yakumo/datapath"
	"yakumo/datapath/pipeline"
)

func get(t *testing.T, o datapath.Ordinals, key string, limit uint32) uint32 {
	t.Helper()
	n, err := o.Get(pipeline.OrdinalPort, key, limit)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func open(t *testing.T, path string) *datapath.FileOrdinals {
	t.Helper()
	o, err := datapath.OpenOrdinals(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = o.Close() })
	return o
}

func TestOrdinals(t *testing.T) {
	o := datapath.NewMemoryOrdinals()
	a, b := get(t, o, "a", 3), get(t, o, "b", 3)
	if a != 1 || b != 2 || get(t, o, "a", 3) != a {
		t.Fatalf("a %d, b %d", a, b)
	}
	o.Release(pipeline.OrdinalPort, "a")
	if c := get(t, o, "c", 3); c != 3 {
		t.Errorf("c got %d: a number that was just released", c)
	}
	if d := get(t, o, "d", 3); d != 1 {
		t.Errorf("d got %d, want the one that is free", d)
	}
	if n, err := o.Get(pipeline.OrdinalPort, "e", 3); err == nil {
		t.Errorf("e got %d although all are taken", n)
	}
	if key, ok := o.Find(pipeline.OrdinalPort, 2); key != "b" || !ok {
		t.Errorf("2 is %q", key)
	}
}

// Whenever the process ends, the next finds every number that was synced.
func TestFileOrdinals(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ordinals")
	o := open(t, path)
	want := map[string]uint32{}
	for i := range 50 {
		key := fmt.Sprintf("port %d\n", i)
		want[key] = get(t, o, key, 100)
	}
	for i := range 10 {
		key := fmt.Sprintf("port %d\n", 3*i)
		o.Release(pipeline.OrdinalPort, key)
		delete(want, key)
	}
	if err := o.Sync(); err != nil {
		t.Fatal(err)
	}
	get(t, o, "never synced", 100)
	for range 2 { // the second open reads what the first has rewritten
		again := open(t, path)
		if n := len(again.Keys(pipeline.OrdinalPort)); n != len(want) {
			t.Fatalf("%d keys, want %d", n, len(want))
		}
		for key, n := range want {
			if got := get(t, again, key, 100); got != n {
				t.Errorf("%q was %d, is %d", key, n, got)
			}
		}
		if got := get(t, again, "new", 100); got != 51 {
			t.Errorf("a new key gets %d, want the next behind the last", got)
		}
		again.Release(pipeline.OrdinalPort, "new")
	}
}

func TestFileOrdinalsDamaged(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ordinals")
	for text, keys := range map[string]int{
		"port 1 \"a\"\nport 2 \"b\"\nport 3": 2, // torn in the last line
		"port 1 \"a\"\n\x00\x00\x00\n":       0,
		"port 1 \"a\"\nport 1 \"b\"\n":       0,
		"port 1 \"a\"\nport 0 \"a\"\n":       0,
		"":                                   0,
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if n := len(open(t, path).Keys(pipeline.OrdinalPort)); n != keys {
			t.Errorf("%q: %d keys, want %d", text, n, keys)
		}
	}
	if _, err := os.Stat(path + ".bad"); err != nil {
		t.Error("the damaged file was not kept")
	}
}
