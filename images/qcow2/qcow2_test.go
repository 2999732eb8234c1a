package qcow2_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"yakumo/images/qcow2"
)

const maxVirtual = 1 << 40

// made has QEMU make an image with 3 MiB of data in it.
func made(t testing.TB, options ...string) []byte {
	t.Helper()
	dir := t.TempDir()
	raw, out := filepath.Join(dir, "raw"), filepath.Join(dir, "out.qcow2")
	data := bytes.Repeat([]byte("yakumo, eight layers of clouds. "), 3<<20/32)
	if err := os.WriteFile(raw, append(data, make([]byte, 5<<20)...), 0o600); err != nil {
		t.Fatal(err)
	}
	args := append([]string{"convert", "-f", "raw", "-O", "qcow2"}, options...)
	if b, err := exec.Command("qemu-img", append(args, raw, out)...).CombinedOutput(); err != nil {
		t.Fatalf("qemu-img: %v\n%s", err, b)
	}
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func check(b []byte) (qcow2.Header, error) {
	return qcow2.Check(bytes.NewReader(b), int64(len(b)), maxVirtual)
}

func refused(err error) bool {
	var r qcow2.Refusal
	return errors.As(err, &r)
}

func TestWhatQEMUMakesIsTaken(t *testing.T) {
	for _, options := range [][]string{
		nil, {"-c"}, {"-o", "compat=0.10"}, {"-o", "cluster_size=512"}, {"-o", "cluster_size=2M"},
		{"-o", "extended_l2=on"}, {"-c", "-o", "compression_type=zstd"}, {"-o", "preallocation=metadata"}, {"-o", "lazy_refcounts=on"},
	} {
		b := made(t, options...)
		h, err := check(b)
		if err != nil || h.VirtualSize != 8<<20 {
			t.Errorf("%v: virtual size %d, %v", options, h.VirtualSize, err)
		}
		cut := b[:len(b)/2]
		if _, err := check(cut); !refused(err) {
			t.Errorf("%v: half of the file: %v, want refused", options, err)
		}
	}
}

func TestRealBackingAndDataFiles(t *testing.T) {
	dir := t.TempDir()
	run := func(args ...string) []byte {
		t.Helper()
		cmd := exec.Command("qemu-img", args...)
		cmd.Dir = dir
		if b, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("qemu-img %v: %v\n%s", args, err, b)
		}
		b, err := os.ReadFile(filepath.Join(dir, "x.qcow2"))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(filepath.Join(dir, "x.qcow2")); err != nil {
			t.Fatal(err)
		}
		return b
	}
	if err := os.WriteFile(filepath.Join(dir, "secret"), make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{
		"backing file": run("create", "-f", "qcow2", "-b", "secret", "-F", "raw", "x.qcow2"),
		"data file":    run("create", "-f", "qcow2", "-o", "data_file=outside", "x.qcow2", "1M"),
		"encrypted": run("create", "-f", "qcow2", "--object", "secret,id=s,data=hush",
			"-o", "encrypt.format=aes,encrypt.key-secret=s", "x.qcow2", "1M"),
		"too large": run("create", "-f", "qcow2", "x.qcow2", "2T"),
	} {
		if _, err := check(b); !refused(err) {
			t.Errorf("%s: %v, want refused", name, err)
		}
	}
}

func TestForgedHeaders(t *testing.T) {
	good := made(t)
	be := binary.BigEndian
	for _, c := range []struct {
		name  string
		forge func(b []byte)
	}{
		{"magic", func(b []byte) { b[0] = 'X' }},
		{"version 1", func(b []byte) { be.PutUint32(b[4:], 1) }},
		{"version 4", func(b []byte) { be.PutUint32(b[4:], 4) }},
		{"backing offset", func(b []byte) { be.PutUint64(b[8:], 200) }},
		{"backing length", func(b []byte) { be.PutUint32(b[16:], 9) }},
		{"tiny clusters", func(b []byte) { be.PutUint32(b[20:], 8) }},
		{"huge clusters", func(b []byte) { be.PutUint32(b[20:], 40) }},
		{"empty disk", func(b []byte) { be.PutUint64(b[24:], 0) }},
		{"a disk of 2^64", func(b []byte) { be.PutUint64(b[24:], ^uint64(0)) }},
		{"crypt", func(b []byte) { be.PutUint32(b[32:], 1) }},
		{"no first level", func(b []byte) { be.PutUint32(b[36:], 0) }},
		{"huge first level", func(b []byte) { be.PutUint32(b[36:], ^uint32(0)) }},
		{"first level at 0", func(b []byte) { be.PutUint64(b[40:], 0) }},
		{"first level beyond", func(b []byte) { be.PutUint64(b[40:], 1<<62) }},
		{"first level off a cluster", func(b []byte) { be.PutUint64(b[40:], 0x10001) }},
		{"corrupt mark", func(b []byte) { be.PutUint64(b[72:], 2) }},
		{"data file", func(b []byte) { be.PutUint64(b[72:], 4) }},
		{"unknown feature", func(b []byte) { be.PutUint64(b[72:], 1<<40) }},
		{"header length", func(b []byte) { be.PutUint32(b[100:], 72) }},
		{"second level beyond", func(b []byte) { at := be.Uint64(b[40:]); be.PutUint64(b[at:], 1<<50) }},
		{"data beyond", func(b []byte) {
			at := be.Uint64(b[be.Uint64(b[40:]):]) & 0x00ff_ffff_ffff_fe00
			be.PutUint64(b[at:], 1<<50)
		}},
		{"compressed data beyond", func(b []byte) {
			at := be.Uint64(b[be.Uint64(b[40:]):]) & 0x00ff_ffff_ffff_fe00
			be.PutUint64(b[at:], 1<<62|1<<50)
		}},
	} {
		b := bytes.Clone(good)
		c.forge(b)
		if _, err := check(b); !refused(err) {
			t.Errorf("%s: %v, want refused", c.name, err)
		}
	}
	for _, n := range []int{0, 3, 4, 71, 72, 100, 103} {
		if _, err := check(good[:n]); !refused(err) {
			t.Errorf("%d bytes: %v, want refused", n, err)
		}
	}
}

// tiny is a whole image of 2 KiB: header, one table of each level, one cluster.
func tiny() []byte {
	b, be := make([]byte, 2048), binary.BigEndian
	be.PutUint32(b[0:], 0x514649fb)
	be.PutUint32(b[4:], 3)
	be.PutUint32(b[20:], 9)
	be.PutUint64(b[24:], 64*512) // virtual size
	be.PutUint32(b[36:], 1)
	be.PutUint64(b[40:], 512)
	be.PutUint32(b[96:], 4)
	be.PutUint32(b[100:], 104)
	be.PutUint64(b[512:], 1<<63|1024)
	be.PutUint64(b[1024:], 1<<63|1536)
	be.PutUint64(b[1032:], 1<<62|1540)
	return b
}

func FuzzCheck(f *testing.F) {
	if _, err := check(tiny()); err != nil {
		f.Fatal(err)
	}
	f.Add(tiny())
	f.Add(tiny()[:112])
	v2 := tiny()
	v2[7] = 2
	f.Add(v2)
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := check(b)
		if err == nil && (h.VirtualSize == 0 || h.VirtualSize > maxVirtual || uint64(h.L1Offset) >= uint64(len(b))) {
			t.Errorf("accepted %+v in %d bytes", h, len(b))
		}
		if err != nil && !refused(err) {
			t.Errorf("%v is not a refusal", err)
		}
	})
}
