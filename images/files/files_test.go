package files_test

import (
	"bytes"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"yakumo/fault"
	"yakumo/images"
	"yakumo/images/blobtest"
	"yakumo/images/files"
	"yakumo/model"
)

func TestConformance(t *testing.T) {
	blobtest.Run(t, func(t *testing.T) func() images.Blobs {
		dir := filepath.Join(t.TempDir(), "blobs")
		return func() images.Blobs {
			s, err := files.New(files.Config{Dir: dir})
			if err != nil {
				t.Fatal(err)
			}
			return s
		}
	})
}

// A process that died in a Put leaves a part: it is listed, for the collector, never read.
func TestPartOfADeadProcess(t *testing.T) {
	dir, id := t.TempDir(), model.NewID()
	for _, name := range []string{id + ".part", "README", "lost+found"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("half"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s, err := files.New(files.Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Open(t.Context(), id); err == nil {
		t.Error("half a blob can be opened")
	}
	ids, err := s.List(t.Context())
	if err != nil || len(ids) != 1 || ids[0] != id {
		t.Fatalf("List = %v, %v, want the part alone", ids, err)
	}
	if err := s.Delete(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 2 {
		t.Errorf("%d files are left (%v), want the two that are not ours", len(left), err)
	}
}

func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	s, err := files.New(files.Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	id := model.NewID()
	if _, err := s.Put(t.Context(), id, bytes.NewReader(make([]byte, 2<<20))); !fault.Is(err, fault.TooLarge) {
		t.Errorf("Put = %v, want too large", err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("%d files are left (%v)", len(left), err)
	}
	if _, err := s.Put(t.Context(), id, bytes.NewReader(make([]byte, 100))); err != nil {
		t.Errorf("what fits: %v", err)
	}
}

func TestNewRefuses(t *testing.T) {
	if _, err := files.New(files.Config{}); err == nil {
		t.Error("no directory was accepted")
	}
	file := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := files.New(files.Config{Dir: file}); err == nil {
		t.Error("a file was accepted as directory")
	}
}
