package container

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"yakumo/fault"
)

// archiveOf gives a tar of the headers; a file's content is its name.
func archiveOf(t testing.TB, headers ...tar.Header) []byte {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, h := range headers {
		if h.Typeflag == tar.TypeReg {
			h.Size = int64(len(h.Name))
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeReg {
			if _, err := w.Write([]byte(h.Name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// into unpacks data below a folder, beside which there is a file that must stay.
func into(t testing.TB, data []byte) (dir string, err error) {
	t.Helper()
	above := t.TempDir()
	dir = filepath.Join(above, "root")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	beside := filepath.Join(above, "beside")
	if err := os.WriteFile(beside, []byte("kept"), 0o600); err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	r, err := openArchive(bytes.NewReader(data))
	if err == nil {
		err = unpack(t.Context(), r, root)
	}
	left, readErr := os.ReadDir(above)
	if text, err := os.ReadFile(beside); err != nil || string(text) != "kept" || readErr != nil || len(left) != 2 {
		t.Errorf("outside of the root there is %v, and the file holds %q, %v", left, text, err)
	}
	return dir, err
}

func TestUnpack(t *testing.T) {
	data := archiveOf(t,
		tar.Header{Typeflag: tar.TypeDir, Name: "./", Mode: 0o755},
		tar.Header{Typeflag: tar.TypeReg, Name: "/bin/su", Mode: 0o4755, Uid: 0, Gid: 7},
		tar.Header{Typeflag: tar.TypeSymlink, Name: "lib", Linkname: "usr/lib", Uid: 3},
		tar.Header{Typeflag: tar.TypeLink, Name: "bin/hard", Linkname: "bin/su"},
		tar.Header{Typeflag: tar.TypeChar, Name: "dev/mem", Mode: 0o666, Devmajor: 1, Devminor: 1},
		tar.Header{Typeflag: tar.TypeReg, Name: "twice", Mode: 0o600},
		tar.Header{Typeflag: tar.TypeSymlink, Name: "twice", Linkname: "/etc/passwd"},
		tar.Header{Typeflag: tar.TypeDir, Name: "tmp", Mode: 0o1777},
	)
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	if _, err := z.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{"tar": data, "gzip": packed.Bytes()} {
		t.Run(name, func(t *testing.T) {
			dir, err := into(t, b)
			if err != nil {
				t.Fatal(err)
			}
			st, err := os.Stat(filepath.Join(dir, "bin/su"))
			if err != nil || st.Mode() != 0o755|os.ModeSetuid || st.Sys().(*syscall.Stat_t).Gid != 7 || st.Sys().(*syscall.Stat_t).Nlink != 2 {
				t.Errorf("a program is %+v, %v", st, err)
			}
			if to, err := os.Readlink(filepath.Join(dir, "twice")); err != nil || to != "/etc/passwd" {
				t.Errorf("the later entry is %q, %v", to, err)
			}
			if st, err := os.Stat(filepath.Join(dir, "tmp")); err != nil || st.Mode() != os.ModeDir|os.ModeSticky|0o777 {
				t.Errorf("a folder is %v, %v", st, err)
			}
			if _, err := os.Lstat(filepath.Join(dir, "dev/mem")); !os.IsNotExist(err) {
				t.Errorf("a device was made: %v", err)
			}
		})
	}
}

func TestUnpackRefuses(t *testing.T) {
	for name, data := range map[string][]byte{
		"nothing":     nil,
		"no archive":  []byte(strings.Repeat("x", 2048)),
		"empty":       archiveOf(t),
		"half":        archiveOf(t, tar.Header{Typeflag: tar.TypeReg, Name: strings.Repeat("a", 90), Mode: 0o600})[:540],
		"no gzip":     {0x1f, 0x8b, 1, 2, 3},
		"above":       archiveOf(t, tar.Header{Typeflag: tar.TypeReg, Name: "../beside", Mode: 0o600}),
		"by a link":   archiveOf(t, tar.Header{Typeflag: tar.TypeSymlink, Name: "out", Linkname: ".."}, tar.Header{Typeflag: tar.TypeReg, Name: "out/beside", Mode: 0o600}),
		"by another":  archiveOf(t, tar.Header{Typeflag: tar.TypeSymlink, Name: "out", Linkname: "/"}, tar.Header{Typeflag: tar.TypeReg, Name: "out/beside", Mode: 0o600}),
		"a hard link": archiveOf(t, tar.Header{Typeflag: tar.TypeLink, Name: "in", Linkname: "../beside"}),
		"a stranger":  archiveOf(t, tar.Header{Typeflag: tar.TypeReg, Name: "a", Uid: 1 << 16, Mode: 0o600}),
	} {
		if _, err := into(t, data); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzUnpack: whatever an archive is, nothing comes of it but files below its root.
func FuzzUnpack(f *testing.F) {
	f.Add(archiveOf(f, tar.Header{Typeflag: tar.TypeReg, Name: "a/b", Mode: 0o644}, tar.Header{Typeflag: tar.TypeSymlink, Name: "l", Linkname: "../.."}))
	f.Add(archiveOf(f, tar.Header{Typeflag: tar.TypeLink, Name: "l", Linkname: "/etc/passwd"}, tar.Header{Typeflag: tar.TypeDir, Name: "..", Mode: 0o700}))
	f.Fuzz(func(t *testing.T, data []byte) {
		if _, err := into(t, data); err != nil && !fault.Is(err, fault.Invalid) {
			t.Errorf("%v is no word on the archive", err)
		}
	})
}

// TestIDBase: containers have ranges that do not overlap in part, beyond all that a distribution gives out.
func TestIDBase(t *testing.T) {
	seen := map[int]bool{}
	for _, id := range []string{"", "a", "b", "c", "11111111-2222-4333-8444-555555555555"} {
		base := IDBase(id)
		if base < 1<<30 || base%idCount != 0 || base+idCount > 1<<31 {
			t.Errorf("%q begins at %d", id, base)
		}
		seen[base] = true
	}
	if len(seen) < 4 {
		t.Errorf("the ranges are %v", seen)
	}
}

// TestStateOfAnybody: what stands in the folder that a container writes to is not believed.
func TestStateOfAnybody(t *testing.T) {
	f := FolderOf(filepath.Join(t.TempDir(), "socket"), "x")
	control := f.place(controlPlace)
	if err := os.MkdirAll(control, 0o755); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(control, stateFile)
	for _, c := range []struct {
		make       func() error
		state, why string
	}{
		{func() error { return nil }, "", ""},
		{func() error { return f.Note(Failed + ": by itself") }, Failed, "by itself"},
		{func() error { return f.Note(Stopped) }, Stopped, ""},
		{func() error { return os.WriteFile(path, bytes.Repeat([]byte("a"), 1<<16), 0o600) }, strings.Repeat("a", 256), ""},
		{func() error { return os.Symlink("/etc/passwd", path) }, "", ""},
		{func() error { return syscall.Mkfifo(path, 0o600) }, "", ""}, // nobody writes: it must not be waited for
		{func() error { return os.Mkdir(path, 0o700) }, "", ""},
	} {
		if err := os.RemoveAll(path); err != nil {
			t.Fatal(err)
		}
		if err := c.make(); err != nil {
			t.Fatal(err)
		}
		if state, why := f.State(); state != c.state || why != c.why {
			t.Errorf("the state is %q (%q), want %q (%q)", state, why, c.state, c.why)
		}
	}
}
