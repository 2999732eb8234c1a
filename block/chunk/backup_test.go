package chunk

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"yakumo/fault"
)

func fresh(t testing.TB, dir, name string) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// backup gives the bytes of a backup of a file.
func backup(t interface{ Fatal(...any) }, f *os.File, parent *Head) ([]byte, *Head) {
	h, err := New(context.Background(), f, parent)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(h.Reader(f))
	if err != nil || int64(len(b)) != h.Bytes() {
		t.Fatal("a backup of", len(b), "bytes, announced were", h.Bytes(), err)
	}
	return b, h
}

// TestChain: whatever a volume goes through, the backups of it, each building on the one before or whole, give what it held at each time; what did not change is not kept again.
func TestChain(t *testing.T) {
	dir := t.TempDir()
	f, out := fresh(t, dir, "volume"), fresh(t, dir, "restored")
	rapid.Check(t, func(t *rapid.T) {
		size := int64(0)
		must := func(err error) {
			if err != nil {
				t.Fatal(err)
			}
		}
		must(f.Truncate(0))
		type kept struct {
			bytes  []byte
			parent int // -1: whole
			holds  [32]byte
		}
		var all []kept
		var heads []*Head
		hash := func(f *os.File) [32]byte {
			_, err := f.Seek(0, io.SeekStart)
			must(err)
			d := sha256.New()
			_, err = io.Copy(d, f)
			must(err)
			return [32]byte(d.Sum(nil))
		}
		for n := range rapid.IntRange(1, 3).Draw(t, "backups") {
			if n == 0 || rapid.IntRange(0, 3).Draw(t, "resize") == 0 {
				size = int64(rapid.IntRange(0, 2).Draw(t, "chunks"))*Size + int64(rapid.IntRange(0, 2).Draw(t, "more"))*300
				must(f.Truncate(size))
			}
			for range rapid.IntRange(0, 2).Draw(t, "writes") {
				if size == 0 {
					break
				}
				at := rapid.Int64Range(0, size-1).Draw(t, "at")
				b := bytes.Repeat([]byte{byte(rapid.IntRange(0, 2).Draw(t, "value"))}, int(min(size-at, 3000)))
				_, err := f.WriteAt(b, at)
				must(err)
			}
			parent := rapid.IntRange(-1, n-1).Draw(t, "parent")
			var under *Head
			if parent >= 0 {
				under = heads[parent]
			}
			b, h := backup(t, f, under)
			if again, err := Read(bytes.NewReader(b)); err != nil || again.ID() != h.ID() || again.Volume() != size || again.Whole() != (parent < 0) || again.Bytes() != h.Bytes() {
				t.Fatalf("read again: %+v, %v", again, err)
			}
			all, heads = append(all, kept{b, parent, hash(f)}), append(heads, h)
			if same, _ := backup(t, f, h); int64(len(same)) > 200+33*chunks(size) {
				t.Fatalf("nothing has changed, and the backup has %d bytes", len(same))
			}
		}
		for i, k := range all {
			var chain []int
			for n := i; n >= 0; n = all[n].parent {
				chain = append(chain, n)
			}
			slices.Reverse(chain)
			must(out.Truncate(0))
			var h *Head
			for _, n := range chain {
				var err error
				h, err = Apply(context.Background(), bytes.NewReader(all[n].bytes), out, h)
				must(err)
			}
			if hash(out) != k.holds {
				t.Fatalf("backup %d by way of %v gives something else", i, chain)
			}
		}
	})
}

// TestDamage: whichever byte of a backup is another, or is missing, it is told, and so is one that builds on another backup. A stream that breaks is no damage.
func TestDamage(t *testing.T) {
	dir := t.TempDir()
	f, out := fresh(t, dir, "volume"), fresh(t, dir, "restored")
	for i, v := range []byte{1, 0, 2} {
		if _, err := f.WriteAt(bytes.Repeat([]byte{v}, Size), int64(i)*Size); err != nil {
			t.Fatal(err)
		}
	}
	whole, base := backup(t, f, nil)
	if _, err := f.WriteAt([]byte{9}, Size); err != nil {
		t.Fatal(err)
	}
	part, _ := backup(t, f, base)
	if len(part) > Size+300 {
		t.Errorf("one chunk of three has changed; the backup has %d bytes", len(part))
	}
	apply := func(b []byte, under *Head) error {
		_, err := Apply(t.Context(), bytes.NewReader(b), out, under)
		return err
	}
	at := []int{0, 9, 17, 50, 60, 70, 90, 100, len(whole) - 1, len(whole) / 2}
	for range 20 {
		at = append(at, rand.IntN(400))
	}
	for _, i := range at {
		bad := slices.Clone(whole)
		bad[i] ^= 4
		if err := apply(bad, nil); !fault.Is(err, fault.Invalid) {
			t.Errorf("byte %d is another: %v", i, err)
		}
		if err := apply(whole[:i], nil); !fault.Is(err, fault.Invalid) {
			t.Errorf("%d bytes are there: %v", i, err)
		}
		r := io.MultiReader(bytes.NewReader(whole[:i]), broken{})
		if _, err := Apply(t.Context(), r, out, nil); !fault.Is(err, fault.Unavailable) {
			t.Errorf("broken after %d: %v", i, err)
		}
	}
	other, head := backup(t, f, nil)
	for name, err := range map[string]error{"on nothing": apply(part, nil), "on another": apply(part, head), "whole on one": apply(other, base)} {
		if !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, errors.New("the line is dead") }

// FuzzRead: what is no backup is refused, and what is one is encoded as it was.
func FuzzRead(f *testing.F) {
	seed := (&Head{size: 3*Size + 5, kinds: []kind{zero, here, zero, here}, sums: []Sum{{}, {1}, {}, {2}}}).encode()
	f.Add(seed)
	f.Add((&Head{size: Size, parent: Sum{7}, kinds: []kind{below}, sums: []Sum{{1}}}).encode())
	f.Fuzz(func(t *testing.T, head []byte) {
		if len(head) < least || binary.BigEndian.Uint64(head) > 1<<30 {
			return // large ones take memory, as they should
		}
		sum := sha256.Sum256(head)
		b := append(binary.BigEndian.AppendUint64([]byte(magic), uint64(len(head))), sum[:]...)
		h, err := Read(bytes.NewReader(append(b, head...)))
		if err != nil {
			if !fault.Is(err, fault.Invalid) {
				t.Errorf("%v", err)
			}
			return
		}
		if h.ID() != sum || int64(len(h.kinds)) != chunks(h.size) || h.Bytes() < int64(len(head)) {
			t.Errorf("%+v", h)
		}
		again, err := decode(h.encode()) // runs of one kind may have been told in pieces
		if err != nil || !slices.Equal(again.sums, h.sums) || !slices.Equal(again.kinds, h.kinds) {
			t.Errorf("%v: %+v, %+v", err, again, h)
		}
	})
}

// BenchmarkDiff is what finding the changed chunks of a volume costs that is half empty.
func BenchmarkDiff(b *testing.B) {
	const mib = 64
	f := fresh(b, b.TempDir(), "volume")
	for i := int64(0); i < mib; i += 2 {
		if _, err := f.WriteAt(bytes.Repeat([]byte{byte(i), 1}, Size/2), i*Size); err != nil {
			b.Fatal(err)
		}
	}
	base, err := New(b.Context(), f, nil)
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(mib * Size)
	for b.Loop() {
		if h, err := New(b.Context(), f, base); err != nil || h.Bytes() > Size {
			b.Fatal(h.Bytes(), err)
		}
	}
}
