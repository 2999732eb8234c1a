package images_test

import (
	"errors"
	"io"
	"strings"
	"testing"

	"yakumo/fault"
	"yakumo/model"
	"yakumo/store"
)

// TestKeep: bytes of a backup stay while the backup is there, and go with it; of a broken upload nothing stays.
func TestKeep(t *testing.T) {
	s := newShelf(t)
	b := &model.VolumeBackup{Meta: model.Meta{ID: model.NewID(), ProjectID: "p1"}, State: "creating"}
	if _, err := s.st.Update(t.Context(), func(tx *store.Tx) error { return store.VolumeBackups.Put(tx, b) }); err != nil {
		t.Fatal(err)
	}
	may := func(store.Reader) error { return nil }
	done := func(tx *store.Tx, blob model.ID, bytes int64) error {
		n := *b
		n.BlobID, n.Bytes = blob, bytes
		return store.VolumeBackups.Put(tx, &n)
	}
	refused := fault.New(fault.Forbidden, "no")
	if err := s.Keep(t.Context(), b.ID, 4, strings.NewReader("full"), func(store.Reader) error { return refused }, done); !errors.Is(err, refused) {
		t.Errorf("unwanted: %v", err)
	}
	broken := errors.New("broken off")
	if err := s.Keep(t.Context(), b.ID, 4, io.MultiReader(strings.NewReader("fu"), failing{broken}), may, done); !errors.Is(err, broken) {
		t.Errorf("half: %v", err)
	}
	if err := s.Keep(t.Context(), b.ID, 5, strings.NewReader("full"), may, done); !fault.Is(err, fault.Invalid) {
		t.Errorf("of another size: %v", err)
	}
	if err := s.Keep(t.Context(), b.ID, 4, strings.NewReader("full"), may, done); err != nil {
		t.Fatal(err)
	}
	got, _ := store.VolumeBackups.Get(s.st.Snapshot(), b.ID)
	if got.Bytes != 4 || got.BlobID == "" {
		t.Errorf("%+v", got)
	}
	if err := s.Collect(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := s.files(t); n != 1 {
		t.Errorf("%d blobs, want the backup's", n)
	}
	if _, err := s.st.Update(t.Context(), func(tx *store.Tx) error { return store.VolumeBackups.Delete(tx, b.ID) }); err != nil {
		t.Fatal(err)
	}
	if err := s.Collect(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := s.files(t); n != 0 {
		t.Errorf("%d blobs after the backup", n)
	}
}
