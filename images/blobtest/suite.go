// Package blobtest is the conformance suite of images.Blobs: every implementation runs it.
package blobtest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"yakumo/fault"
	"yakumo/images"
	"yakumo/model"
)

// Run runs the suite. open gives the store of the test; called again in the same test, it
// gives another store on the same blobs, as another server process would open.
func Run(t *testing.T, make func(t *testing.T) (open func() images.Blobs)) {
	for _, c := range []struct {
		name string
		test func(t *testing.T, open func() images.Blobs)
	}{
		{"a blob comes back as it was put", roundTrip},
		{"an open blob can be read anywhere", seeks},
		{"what is not there", absent},
		{"a broken stream leaves nothing readable", broken},
		{"a stream that ends with its context", cancelledPut},
		{"an id is put once", once},
		{"a deleted blob stays readable where it is open", deleteOpen},
		{"a blob that is deleted while it is put", deleteDuringPut},
		{"another process sees the blobs", shared},
		{"many at once", many},
		{"ids that are no ids", badIDs},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, make(t)) })
	}
}

func content(n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(n)})
	r.Read(b)
	return b
}

func put(t *testing.T, b images.Blobs, id model.ID, data []byte) {
	t.Helper()
	n, err := b.Put(t.Context(), id, bytes.NewReader(data))
	if err != nil || n != int64(len(data)) {
		t.Fatalf("Put = %d, %v; want %d bytes", n, err, len(data))
	}
}

func read(t *testing.T, b images.Blobs, id model.ID) []byte {
	t.Helper()
	f, size, err := b.Open(t.Context(), id)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	defer f.Close()
	data, err := io.ReadAll(f)
	if err != nil || int64(len(data)) != size {
		t.Fatalf("read %d bytes (%v) of a blob of %d", len(data), err, size)
	}
	return data
}

func gone(t *testing.T, b images.Blobs, id model.ID) {
	t.Helper()
	if f, _, err := b.Open(t.Context(), id); !fault.Is(err, fault.NotFound) {
		if err == nil {
			f.Close()
		}
		t.Errorf("Open(%s) = %v, want not found", id, err)
	}
}

func list(t *testing.T, b images.Blobs) []model.ID {
	t.Helper()
	ids, err := b.List(t.Context())
	if err != nil {
		t.Fatalf("List: %v", err)
	}
	slices.Sort(ids)
	return ids
}

func roundTrip(t *testing.T, open func() images.Blobs) {
	b := open()
	want := map[model.ID][]byte{}
	for _, n := range []int{0, 1, 511, 1 << 20, 1<<20 + 1, 3<<20 + 17} {
		id := model.NewID()
		want[id] = content(n)
		put(t, b, id, want[id])
	}
	for id, data := range want {
		if !bytes.Equal(read(t, b, id), data) {
			t.Errorf("a blob of %d bytes came back different", len(data))
		}
	}
	if got := list(t, b); len(got) != len(want) {
		t.Errorf("List gives %d ids, want %d", len(got), len(want))
	}
	for id := range want {
		if err := b.Delete(t.Context(), id); err != nil {
			t.Errorf("Delete: %v", err)
		}
		gone(t, b, id)
	}
	if got := list(t, b); len(got) != 0 {
		t.Errorf("List gives %v after everything was deleted", got)
	}
}

func seeks(t *testing.T, open func() images.Blobs) {
	b, id, data := open(), model.NewID(), content(100_000)
	put(t, b, id, data)
	f, _, err := b.Open(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, at := range []int64{0, 1, 4095, 99_000} {
		got := make([]byte, 1000)
		if _, err := f.ReadAt(got, at); err != nil || !bytes.Equal(got, data[at:at+1000]) {
			t.Errorf("ReadAt(%d): %v, or different bytes", at, err)
		}
		if _, err := f.Seek(at, io.SeekStart); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(f, got); err != nil || !bytes.Equal(got, data[at:at+1000]) {
			t.Errorf("read after Seek(%d): %v, or different bytes", at, err)
		}
	}
	if end, err := f.Seek(0, io.SeekEnd); err != nil || end != int64(len(data)) {
		t.Errorf("Seek to the end = %d, %v", end, err)
	}
}

func absent(t *testing.T, open func() images.Blobs) {
	b, id := open(), model.NewID()
	gone(t, b, id)
	if err := b.Delete(t.Context(), id); err != nil {
		t.Errorf("Delete of nothing: %v", err)
	}
	if got := list(t, b); len(got) != 0 {
		t.Errorf("an empty store lists %v", got)
	}
}

var errBroken = errors.New("the line broke")

func broken(t *testing.T, open func() images.Blobs) {
	b, id := open(), model.NewID()
	_, err := b.Put(t.Context(), id, io.MultiReader(bytes.NewReader(content(2<<20)), failing{}))
	if !errors.Is(err, errBroken) {
		t.Fatalf("Put = %v, want the stream's error", err)
	}
	gone(t, b, id)
	if err := b.Delete(t.Context(), id); err != nil {
		t.Errorf("Delete: %v", err)
	}
	if got := list(t, b); len(got) != 0 {
		t.Errorf("List gives %v", got)
	}
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errBroken }

func cancelledPut(t *testing.T, open func() images.Blobs) {
	b, id := open(), model.NewID()
	ctx, cancel := context.WithCancel(t.Context())
	n := 0
	_, err := b.Put(ctx, id, readerFunc(func(p []byte) (int, error) {
		if n++; n == 3 {
			cancel()
		}
		return len(p), nil // an endless stream
	}))
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("Put = %v, want cancelled", err)
	}
	gone(t, b, id)
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func once(t *testing.T, open func() images.Blobs) {
	b, id, data := open(), model.NewID(), content(1000)
	put(t, b, id, data)
	if _, err := b.Put(t.Context(), id, bytes.NewReader(content(2000))); err == nil {
		t.Error("the same id was put twice")
	}
	if !bytes.Equal(read(t, b, id), data) {
		t.Error("the second put changed the blob")
	}
}

func deleteOpen(t *testing.T, open func() images.Blobs) {
	b, id, data := open(), model.NewID(), content(3<<20)
	put(t, b, id, data)
	f, _, err := b.Open(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := b.Delete(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	gone(t, b, id)
	got, err := io.ReadAll(f)
	if err != nil || !bytes.Equal(got, data) {
		t.Errorf("the open blob broke: %d bytes, %v", len(got), err)
	}
}

func deleteDuringPut(t *testing.T, open func() images.Blobs) {
	b, id := open(), model.NewID()
	pr, pw := io.Pipe()
	done := make(chan error, 1)
	go func() {
		_, err := b.Put(t.Context(), id, pr)
		pr.CloseWithError(err)
		done <- err
	}()
	if _, err := pw.Write(content(1 << 20)); err != nil {
		t.Fatal(err)
	}
	gone(t, b, id)
	if got := list(t, open()); !slices.Equal(got, []model.ID{id}) {
		t.Errorf("List = %v during a put, want the unfinished id", got)
	}
	if err := open().Delete(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	pw.Close()
	if err := <-done; err == nil {
		t.Error("Put succeeded although its blob was deleted meanwhile")
	}
	gone(t, b, id)
	if got := list(t, b); len(got) != 0 {
		t.Errorf("List = %v afterwards", got)
	}
}

func shared(t *testing.T, open func() images.Blobs) {
	a, b, id, data := open(), open(), model.NewID(), content(5000)
	put(t, a, id, data)
	if !bytes.Equal(read(t, b, id), data) {
		t.Error("the other process reads something else")
	}
	if err := b.Delete(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	gone(t, a, id)
}

func many(t *testing.T, open func() images.Blobs) {
	b := open()
	var wg sync.WaitGroup
	ids := make([]model.ID, 16)
	for i := range ids {
		ids[i] = model.NewID()
		wg.Go(func() {
			if _, err := b.Put(t.Context(), ids[i], bytes.NewReader(content(100_000+i))); err != nil {
				t.Errorf("Put: %v", err)
			}
		})
	}
	wg.Wait()
	for i, id := range ids {
		if !bytes.Equal(read(t, b, id), content(100_000+i)) {
			t.Errorf("blob %d came back different", i)
		}
	}
}

func badIDs(t *testing.T, open func() images.Blobs) {
	b := open()
	for _, id := range []model.ID{"", ".", "..", "../x", "a/b", "x", "00000000-0000-0000-0000-00000000000", "/etc/passwd"} {
		if _, err := b.Put(t.Context(), id, bytes.NewReader(nil)); err == nil {
			t.Errorf("Put(%q) was taken", id)
		}
		gone(t, b, id)
		if err := b.Delete(t.Context(), id); err != nil {
			t.Errorf("Delete(%q): %v", id, err)
		}
	}
}
