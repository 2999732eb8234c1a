package link

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"yakumo/fault"
	"yakumo/model"
	"yakumo/store"
)

func TestUpload(t *testing.T) {
	t.Parallel()
	c := newCloud(t, 1)
	h := c.join("h1")
	kept := map[string]string{}
	c.take = func(_ context.Context, up Upload) error {
		if up.ID == "refused" {
			return fault.New(fault.Forbidden, "Not yours.")
		}
		if up.ID == "broken" {
			return errors.New("a secret of the server")
		}
		b, err := io.ReadAll(up.Body)
		if err != nil {
			return err
		}
		if int64(len(b)) != up.Size || up.Host != h.id(t) {
			t.Errorf("upload %+v gave %d bytes", up, len(b))
		}
		kept[up.Kind+"/"+up.ID] = string(b)
		return nil
	}
	big := strings.Repeat("0123456789abcdef", 1<<16)
	for id, data := range map[model.ID]string{"small": "hello", "big": big} {
		for range 2 {
			if err := h.Upload(t.Context(), UploadImage, id, int64(len(data)), strings.NewReader(data)); err != nil {
				t.Fatalf("%s: %v", id, err)
			}
		}
		if kept["image/"+id] != data {
			t.Errorf("%s: %d bytes were kept", id, len(kept["image/"+id]))
		}
	}
	if err := h.Upload(t.Context(), UploadBackup, "refused", int64(len(big)), strings.NewReader(big)); !fault.Is(err, fault.Forbidden) || err.Error() != "Not yours." {
		t.Errorf("refused: %v", err)
	}
	err := h.Upload(t.Context(), UploadImage, "broken", 1, strings.NewReader("x"))
	if fault.KindOf(err) != fault.Internal || strings.Contains(err.Error(), "secret") {
		t.Errorf("a defect of the server: %v", err)
	}
	// A source that is shorter than announced, or that fails, is never taken for whole.
	if err := h.Upload(t.Context(), UploadImage, "short", 10, strings.NewReader("short")); err == nil {
		t.Error("a short upload was taken")
	}
	lost := errors.New("the disk is lost")
	if err := h.Upload(t.Context(), UploadImage, "lost", 10, io.MultiReader(strings.NewReader("sho"), failing{lost})); !errors.Is(err, lost) {
		t.Errorf("a source that fails: %v", err)
	}
	for _, id := range []string{"image/short", "image/lost"} {
		if data, ok := kept[id]; ok {
			t.Errorf("%s was kept: %q", id, data)
		}
	}
	put := func(path, sum string) int {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, "https://"+c.sites[0].addr+path, struct{ io.Reader }{strings.NewReader("hello")})
		if err != nil {
			t.Fatal(err)
		}
		req.ContentLength, req.Trailer = 5, http.Header{trailerSum: []string{sum}}
		resp, err := h.uploads.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	if got := put("/uploads/image/wrong", "00"); got != http.StatusBadGateway {
		t.Errorf("a wrong hash gives %d", got)
	}
	if _, ok := kept["image/wrong"]; ok {
		t.Error("bytes with a wrong hash were kept")
	}
	if got := put("/uploads/image", ""); got != http.StatusNotFound {
		t.Errorf("a path too short gives %d", got)
	}
	if _, err := c.sites[0].st.Update(t.Context(), func(tx *store.Tx) error { return store.Hosts.Delete(tx, h.id(t)) }); err != nil {
		t.Fatal(err)
	}
	if err := h.Upload(t.Context(), UploadImage, "x", 1, strings.NewReader("x")); !fault.Is(err, fault.Unavailable) {
		t.Errorf("a removed host: %v", err)
	}
	c.sites[0].stop()
	if err := h.Upload(t.Context(), UploadImage, "x", 1, strings.NewReader("x")); !fault.Is(err, fault.Unavailable) {
		t.Errorf("without a server: %v", err)
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }
