package lab

import (
	"os"
	"path/filepath"
	"testing"
)

// Client files are written into a folder that is made, found again by another life of the program, and only they are removed.
func TestClientFiles(t *testing.T) {
	dir := t.TempDir()
	open := func(name string) *Lab {
		t.Helper()
		l, err := New(Config{Dir: filepath.Join(dir, name, "lab"), Hosts: 1})
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	for _, name := range []string{"a", "b"} {
		if err := os.MkdirAll(filepath.Join(dir, name, "lab"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	l, far := open("a"), filepath.Join(dir, "some", "where")
	for _, to := range []string{far, filepath.Join(dir, "a"), far} {
		if err := l.WriteClientFiles(to); err != nil {
			t.Fatal(err)
		}
	}
	there := func() (n int) {
		for _, d := range []string{far, filepath.Join(dir, "a")} {
			for _, f := range []string{"openrc", "clouds.yaml"} {
				if _, err := os.Stat(filepath.Join(d, f)); err == nil {
					n++
				}
			}
		}
		return n
	}
	if there() != 4 {
		t.Fatalf("%d files", there())
	}
	if err := open("b").WriteClientFiles(filepath.Join(dir, "a")); err != nil { // another lab's are there now
		t.Fatal(err)
	}
	l = open("a")
	if err := l.Down(); err != nil {
		t.Fatal(err)
	}
	if err := l.RemoveClientFiles(); err != nil {
		t.Fatal(err)
	}
	if there() != 2 {
		t.Errorf("%d files of the other lab", there())
	}
	// What is left of a lab that cannot be read is found in the folder above.
	if err := open("b").WriteClientFiles(filepath.Join(dir, "b")); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, "b", "lab", "lab.json")); err != nil {
		t.Fatal(err)
	}
	l, err := Open(filepath.Join(dir, "b", "lab"), "")
	if err == nil {
		t.Fatal("it was read")
	}
	if err := l.RemoveClientFiles(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "b", "openrc")); err == nil {
		t.Error("a file is left")
	}
}
