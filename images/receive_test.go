package images_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"yakumo/fault"
	"yakumo/images"
	"yakumo/model"
	"yakumo/store"
)

// saving puts a server on a host that is to be saved as the images.
func (s *shelf) saving(t *testing.T, host model.ID, images ...model.ID) *model.Server {
	t.Helper()
	srv := &model.Server{Meta: model.Meta{ID: model.NewID(), ProjectID: "p1"}, Host: host, Saving: images}
	if _, err := s.st.Update(t.Context(), func(tx *store.Tx) error { return store.Servers.Put(tx, srv) }); err != nil {
		t.Fatal(err)
	}
	return srv
}

func TestHostUploads(t *testing.T) {
	s := newShelf(t)
	img, err := s.Create(t.Context(), owner, model.Image{})
	if err != nil {
		t.Fatal(err)
	}
	s.saving(t, "h1", img.ID)
	data := qcow2Image(t)
	send := func(host model.ID, body io.Reader) (*model.Image, error) {
		return s.Receive(t.Context(), img.ID, int64(len(data)), body, images.OfServer(host, img.ID))
	}
	if _, err := send("h2", bytes.NewReader(data)); !fault.Is(err, fault.Forbidden) {
		t.Errorf("another host: %v", err)
	}
	broken := errors.New("broken off")
	if _, err := send("h1", io.MultiReader(bytes.NewReader(data[:100]), failing{broken})); !fault.Is(err, fault.Invalid) && !fault.Is(err, fault.Unsupported) {
		t.Errorf("half an image: %v", err)
	}
	if got := s.row(t, img.ID); got.Status != model.ImageQueued || s.files(t) != 0 {
		t.Errorf("after half an image: %+v, %d files", got, s.files(t))
	}
	for range 2 { // the second is of a host that did not hear the answer
		if got, err := send("h1", bytes.NewReader(data)); err != nil || got.Status != model.ImageActive || got.DiskFormat != "qcow2" || got.Size != int64(len(data)) {
			t.Fatalf("%+v, %v", got, err)
		}
	}
	if _, err := s.Bootable(s.st.Snapshot(), owner, img.ID); err != nil {
		t.Error(err)
	}
	if s.files(t) != 1 {
		t.Errorf("%d blobs", s.files(t))
	}
}

// An image whose row says saving from the beginning is taken too, and one that is gone is not.
func TestHostUploadsSaving(t *testing.T) {
	s := newShelf(t)
	img := s.queued(t, "qcow2")
	saving := *img
	saving.Status = model.ImageSaving
	if _, err := s.st.Update(t.Context(), func(tx *store.Tx) error { return store.Images.Put(tx, &saving) }); err != nil {
		t.Fatal(err)
	}
	s.saving(t, "h1", img.ID, "gone")
	data := qcow2Image(t)
	if got, err := s.Receive(t.Context(), img.ID, int64(len(data)), bytes.NewReader(data), images.OfServer("h1", img.ID)); err != nil || got.Status != model.ImageActive {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := s.Receive(t.Context(), "gone", int64(len(data)), bytes.NewReader(data), images.OfServer("h1", "gone")); !fault.Is(err, fault.NotFound) {
		t.Errorf("an image that is gone: %v", err)
	}
}

// qcow2Image makes a disk of 4 MiB that holds nothing.
func qcow2Image(t *testing.T) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk")
	if out, err := exec.Command("qemu-img", "create", "-q", "-f", "qcow2", path, "4M").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}
