package images_test

import (
	"bytes"
	"context"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"yakumo/fault"
	"yakumo/images"
	"yakumo/images/files"
	"yakumo/model"
	"yakumo/store"
	"yakumo/store/storetest"
)

var owner = images.Caller{ProjectID: "p1"}

type shelf struct {
	*images.Images
	st    *store.Store
	blobs images.Blobs
	dir   string
}

func newShelf(t testing.TB) *shelf {
	t.Helper()
	return shelfOn(t, storetest.New(t), t.TempDir())
}

func shelfOn(t testing.TB, st *store.Store, dir string) *shelf {
	t.Helper()
	blobs, err := files.New(files.Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	return &shelf{
		Images: images.New(images.Config{Store: st, Blobs: blobs, Log: slog.New(slog.DiscardHandler), MaxSize: 1 << 30, UploadTTL: 4 * time.Second}),
		st:     st, blobs: blobs, dir: dir,
	}
}

func (s *shelf) queued(t testing.TB, format string) *model.Image {
	t.Helper()
	img, err := s.Create(t.Context(), owner, model.Image{DiskFormat: format, ContainerFormat: "bare"})
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func (s *shelf) active(t testing.TB, data string) *model.Image {
	t.Helper()
	img, err := s.Upload(t.Context(), owner, s.queued(t, "raw").ID, images.Expect{Size: -1}, strings.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func (s *shelf) row(t testing.TB, id model.ID) *model.Image {
	t.Helper()
	if err := s.st.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	img, ok := store.Images.Get(s.st.Snapshot(), id)
	if !ok {
		t.Fatalf("image %s is gone", id)
	}
	return img
}

// files gives the number of files in the blobs' directory.
func (s *shelf) files(t testing.TB) int {
	t.Helper()
	list, err := os.ReadDir(s.dir)
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

// run runs the loop until the test ends.
func (s *shelf) run(t testing.TB) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run ended with %v", err)
		}
	})
}

// until waits for a state.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(90 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not in time: %s", what)
		}
		<-time.After(5 * time.Millisecond)
	}
}

func (s *shelf) untilStatus(t testing.TB, id model.ID, status string) {
	t.Helper()
	until(t, "image becomes "+status, func() bool { return s.row(t, id).Status == status })
}

func TestUploadThatBreaksOff(t *testing.T) {
	s := newShelf(t)
	for name, body := range map[string]io.Reader{
		"at once":    failing{io.ErrUnexpectedEOF},
		"at a byte":  io.MultiReader(strings.NewReader("x"), failing{io.ErrUnexpectedEOF}),
		"in between": io.MultiReader(bytes.NewReader(make([]byte, 3<<20)), failing{io.ErrUnexpectedEOF}),
	} {
		img := s.queued(t, "raw")
		if _, err := s.Upload(t.Context(), owner, img.ID, images.Expect{Size: -1}, body); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v, want invalid", name, err)
		}
		s.whole(t, img.ID)
	}
}

// whole checks that an image is as it was before its upload, and can be uploaded again.
func (s *shelf) whole(t *testing.T, id model.ID) {
	t.Helper()
	img := s.row(t, id)
	if img.Status != model.ImageQueued || img.BlobID != "" || img.Checksum != "" || img.Size != 0 {
		t.Errorf("a broken upload left %+v", img)
	}
	if _, err := s.Bootable(s.st.Snapshot(), owner, id); !fault.Is(err, fault.Invalid) {
		t.Errorf("half an image is bootable: %v", err)
	}
	if n := s.files(t); n != 0 {
		t.Errorf("a broken upload left %d files", n)
	}
	img, err := s.Upload(t.Context(), owner, id, images.Expect{Size: 5}, strings.NewReader("whole"))
	if err != nil {
		t.Fatalf("the second upload: %v", err)
	}
	if err := s.Delete(t.Context(), owner, id); err != nil {
		t.Fatal(err)
	}
	if err := s.Collect(t.Context()); err != nil {
		t.Fatal(err)
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

func TestUploadIsNotWhatWasAnnounced(t *testing.T) {
	s := newShelf(t)
	for _, c := range []struct {
		want images.Expect
		kind fault.Kind
	}{
		{images.Expect{Size: 3}, fault.Invalid},
		{images.Expect{Size: 5}, fault.Invalid},
		{images.Expect{Size: -1, MD5: "0123456789abcdef0123456789abcdef"}, fault.Invalid},
		{images.Expect{Size: 2 << 30}, fault.TooLarge},
	} {
		img := s.queued(t, "raw")
		if _, err := s.Upload(t.Context(), owner, img.ID, c.want, strings.NewReader("four")); !fault.Is(err, c.kind) {
			t.Errorf("%+v: %v, want %v", c.want, err, c.kind)
		}
		s.whole(t, img.ID)
	}
}

func TestUploadOverTheLimit(t *testing.T) {
	s := newShelf(t)
	small := images.New(images.Config{Store: s.st, Blobs: s.blobs, Log: slog.New(slog.DiscardHandler), MaxSize: 1000})
	img := s.queued(t, "raw")
	_, err := small.Upload(t.Context(), owner, img.ID, images.Expect{Size: -1}, bytes.NewReader(make([]byte, 1001)))
	if !fault.Is(err, fault.TooLarge) {
		t.Errorf("%v, want too large", err)
	}
	s.whole(t, img.ID)
	img = s.queued(t, "raw")
	if _, err := small.Upload(t.Context(), owner, img.ID, images.Expect{Size: -1}, bytes.NewReader(make([]byte, 1000))); err != nil {
		t.Errorf("as large as allowed: %v", err)
	}
}

func TestConcurrentUploads(t *testing.T) {
	s := newShelf(t)
	other := shelfOn(t, s.st, s.dir)
	img := s.queued(t, "raw")
	var wg sync.WaitGroup
	won := make([]bool, 8)
	for i := range won {
		wg.Go(func() {
			on := s
			if i%2 == 1 {
				on = other
			}
			_, err := on.Upload(t.Context(), owner, img.ID, images.Expect{Size: -1}, strings.NewReader(fmt.Sprint("upload ", i)))
			if won[i] = err == nil; err != nil && !fault.Is(err, fault.Conflict) {
				t.Errorf("upload %d: %v, want conflict", i, err)
			}
		})
	}
	wg.Wait()
	winner := -1
	for i, w := range won {
		if w && winner >= 0 {
			t.Errorf("uploads %d and %d both won", winner, i)
		} else if w {
			winner = i
		}
	}
	if winner < 0 {
		t.Fatal("no upload won")
	}
	_, f, err := s.Open(t.Context(), s.st.Snapshot(), owner, img.ID)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if got, err := io.ReadAll(f); err != nil || string(got) != fmt.Sprint("upload ", winner) {
		t.Errorf("the image holds %q (%v), upload %d won", got, err, winner)
	}
	if n := s.files(t); n != 1 {
		t.Errorf("%d files, want 1", n)
	}
}

func TestDeleteDuringUpload(t *testing.T) {
	s := newShelf(t)
	img := s.queued(t, "raw")
	pr, pw := io.Pipe()
	result := make(chan error, 1)
	go func() {
		_, err := s.Upload(t.Context(), owner, img.ID, images.Expect{Size: -1}, pr)
		result <- err
	}()
	if _, err := pw.Write(make([]byte, 2<<20)); err != nil {
		t.Fatal(err)
	}
	if err := s.Delete(t.Context(), owner, img.ID); err != nil {
		t.Fatal(err)
	}
	// The sender is told soon, not after its last byte.
	part := make([]byte, 64<<10)
	go func() {
		for {
			if _, err := pw.Write(part); err != nil {
				return
			}
		}
	}()
	err := <-result
	pr.Close()
	if !fault.Is(err, fault.Gone) {
		t.Errorf("the upload ended with %v, want gone", err)
	}
	if n := s.files(t); n != 0 {
		t.Errorf("%d files are left", n)
	}
	if _, there := store.ImageUploads.Get(s.st.Snapshot(), img.ID); there {
		t.Error("the upload's row is left")
	}
}

func TestUploadWhoseCallerGoesAway(t *testing.T) {
	s := newShelf(t)
	img := s.queued(t, "raw")
	ctx, cancel := context.WithCancel(t.Context())
	sent := 0
	_, err := s.Upload(ctx, owner, img.ID, images.Expect{Size: -1}, reader(func(p []byte) (int, error) {
		if sent += len(p); sent > 5<<20 {
			cancel()
		}
		return len(p), nil
	}))
	if err == nil {
		t.Fatal("the upload succeeded")
	}
	s.whole(t, img.ID)
}

type reader func([]byte) (int, error)

func (f reader) Read(p []byte) (int, error) { return f(p) }

// A sender that stays while its server loses touch with the store must not win over what
// others decided meanwhile.
func TestUploadWhoseLeaseIsGone(t *testing.T) {
	s := newShelf(t)
	s.run(t)
	img := s.queued(t, "raw")
	pr, pw := io.Pipe()
	result := make(chan error, 1)
	go func() {
		_, err := s.Upload(t.Context(), owner, img.ID, images.Expect{Size: -1}, pr)
		pr.CloseWithError(err)
		result <- err
	}()
	if _, err := pw.Write(make([]byte, 2<<20)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.st.Update(t.Context(), func(tx *store.Tx) error { return store.ImageUploads.Delete(tx, img.ID) }); err != nil {
		t.Fatal(err)
	}
	s.untilStatus(t, img.ID, model.ImageQueued)
	if _, err := s.Upload(t.Context(), owner, img.ID, images.Expect{Size: -1}, strings.NewReader("second")); err != nil {
		t.Fatalf("the second upload: %v", err)
	}
	pw.Close()
	if err := <-result; err == nil {
		t.Error("the upload that lost its lease succeeded")
	}
	if got := s.row(t, img.ID); got.Size != 6 || got.Status != model.ImageActive {
		t.Errorf("the image is %+v", got)
	}
	until(t, "only the second blob is left", func() bool { return s.files(t) == 1 })
}

func TestBlobsOfServersStay(t *testing.T) {
	s := newShelf(t)
	s.run(t)
	img := s.active(t, "bootable")
	server := &model.Server{Meta: model.NewMeta("p1", "vm", time.Now()), ImageID: img.ID}
	if _, err := s.st.Update(t.Context(), func(tx *store.Tx) error {
		got, err := s.Bootable(tx, owner, img.ID)
		if err != nil {
			return err
		}
		server.Image = images.Copy(got)
		return store.Servers.Put(tx, server)
	}); err != nil {
		t.Fatal(err)
	}
	if c := server.Image; c.BlobID != img.BlobID || c.Size != 8 || c.Format != "raw" || c.HashValue != img.HashValue || c.HashAlgo != "sha512" {
		t.Errorf("the server's image is %+v", c)
	}
	if err := s.Delete(t.Context(), owner, img.ID); err != nil {
		t.Fatal(err)
	}
	// Another image's blob goes, by which we know that the loop has seen both.
	gone := s.active(t, "other")
	if err := s.Delete(t.Context(), owner, gone.ID); err != nil {
		t.Fatal(err)
	}
	until(t, "the unused blob goes", func() bool { return s.files(t) == 1 })
	if err := s.Collect(t.Context()); err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	s.ServeBlob(w, httptest.NewRequest("GET", "/", nil), img.BlobID)
	if w.Code != 200 || w.Body.String() != "bootable" {
		t.Errorf("the host gets %d %q", w.Code, w.Body)
	}
	if _, err := s.st.Update(t.Context(), func(tx *store.Tx) error { return store.Servers.Delete(tx, server.ID) }); err != nil {
		t.Fatal(err)
	}
	until(t, "the last server's blob goes", func() bool { return s.files(t) == 0 })
}

func TestCollectKeepsWhatIsUsed(t *testing.T) {
	s := newShelf(t)
	img := s.active(t, "kept")
	orphan := model.NewID()
	if _, err := s.blobs.Put(t.Context(), orphan, strings.NewReader("orphan")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(s.dir, model.NewID()+".part"), []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	pr, pw := io.Pipe()
	under := s.queued(t, "raw")
	result := make(chan error, 1)
	go func() {
		_, err := s.Upload(t.Context(), owner, under.ID, images.Expect{Size: -1}, pr)
		result <- err
	}()
	if _, err := pw.Write(make([]byte, 2<<20)); err != nil {
		t.Fatal(err)
	}
	if n := s.files(t); n != 4 {
		t.Fatalf("%d files, want 4", n)
	}
	if err := s.Collect(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := s.files(t); n != 2 {
		t.Errorf("%d files are left, want the image's and the upload's", n)
	}
	pw.Close()
	if err := <-result; err != nil {
		t.Errorf("the upload: %v", err)
	}
	if _, f, err := s.Open(t.Context(), s.st.Snapshot(), owner, img.ID); err != nil {
		t.Errorf("the image's bytes: %v", err)
	} else {
		f.Close()
	}
}

func TestServeBlob(t *testing.T) {
	s := newShelf(t)
	img := s.active(t, "0123456789")
	get := func(method, blob string, headers ...string) *httptest.ResponseRecorder {
		r := httptest.NewRequest(method, "/", nil)
		for i := 0; i+1 < len(headers); i += 2 {
			r.Header.Set(headers[i], headers[i+1])
		}
		w := httptest.NewRecorder()
		s.ServeBlob(w, r, blob)
		return w
	}
	etag := `"` + img.BlobID + `"`
	for _, c := range []struct {
		name    string
		w       *httptest.ResponseRecorder
		status  int
		content string
	}{
		{"whole", get("GET", img.BlobID), 200, "0123456789"},
		{"head", get("HEAD", img.BlobID), 200, ""},
		{"range", get("GET", img.BlobID, "Range", "bytes=4-"), 206, "456789"},
		{"resumed", get("GET", img.BlobID, "Range", "bytes=4-", "If-Range", etag), 206, "456789"},
		{"resumed on another blob", get("GET", img.BlobID, "Range", "bytes=4-", "If-Range", `"x"`), 200, "0123456789"},
		{"past the end", get("GET", img.BlobID, "Range", "bytes=10-"), 416, ""},
		{"nothing", get("GET", model.NewID()), 404, ""},
		{"no id", get("GET", "../../etc/passwd"), 404, ""},
		{"post", get("POST", img.BlobID), 405, ""},
	} {
		if c.w.Code != c.status || c.status < 300 && c.w.Body.String() != c.content {
			t.Errorf("%s: %d %q, want %d %q", c.name, c.w.Code, c.w.Body, c.status, c.content)
		}
		if c.status < 300 && (c.w.Header().Get("ETag") != etag || c.w.Header().Get("Accept-Ranges") != "bytes") {
			t.Errorf("%s: %v", c.name, c.w.Header())
		}
	}
	if err := s.blobs.Delete(t.Context(), img.BlobID); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Open(t.Context(), s.st.Snapshot(), owner, img.ID); err == nil || fault.KindOf(err) != fault.Internal {
		t.Errorf("an active image without bytes: %v, want an internal error", err)
	}
}

func TestBootable(t *testing.T) {
	s := newShelf(t)
	img := s.active(t, "x")
	set := func(f func(*model.Image)) *model.Image {
		c := *img
		c.Meta = model.NewMeta("p1", "", time.Now())
		f(&c)
		if _, err := s.st.Update(t.Context(), func(tx *store.Tx) error { return store.Images.Put(tx, &c) }); err != nil {
			t.Fatal(err)
		}
		return &c
	}
	for _, c := range []struct {
		name string
		img  *model.Image
		by   images.Caller
		kind fault.Kind // Internal: bootable
	}{
		{"own", img, owner, fault.Internal},
		{"foreign", img, images.Caller{ProjectID: "p2"}, fault.NotFound},
		{"nobody's", img, images.Caller{}, fault.NotFound},
		{"administrator", img, images.Caller{ProjectID: "p9", Admin: true}, fault.Internal},
		{"public", set(func(i *model.Image) { i.Visibility = model.VisibilityPublic }), images.Caller{ProjectID: "p2"}, fault.Internal},
		{"shared and pending", set(func(i *model.Image) {
			i.Members = map[model.ID]model.ImageMember{"p2": {Status: model.MemberPending}}
		}), images.Caller{ProjectID: "p2"}, fault.Internal},
		{"private with a member", set(func(i *model.Image) {
			i.Visibility, i.Members = model.VisibilityPrivate, map[model.ID]model.ImageMember{"p2": {Status: model.MemberAccepted}}
		}), images.Caller{ProjectID: "p2"}, fault.NotFound},
		{"hidden", set(func(i *model.Image) { i.Hidden = true }), owner, fault.Internal},
		{"queued", set(func(i *model.Image) { i.Status = model.ImageQueued }), owner, fault.Invalid},
		{"saving", set(func(i *model.Image) { i.Status = model.ImageSaving }), owner, fault.Invalid},
		{"deactivated", set(func(i *model.Image) { i.Status = model.ImageDeactivated }), owner, fault.Invalid},
		{"vmdk", set(func(i *model.Image) { i.DiskFormat = "vmdk" }), owner, fault.Invalid},
		{"ova", set(func(i *model.Image) { i.ContainerFormat = "ova" }), owner, fault.Invalid},
	} {
		_, err := s.Bootable(s.st.Snapshot(), c.by, c.img.ID)
		if c.kind == fault.Internal && err != nil || c.kind != fault.Internal && !fault.Is(err, c.kind) {
			t.Errorf("%s: %v, want %v", c.name, err, c.kind)
		}
	}
}

func TestFormats(t *testing.T) {
	s := newShelf(t)
	iso := append(append(make([]byte, 0x8001), "CD001"...), make([]byte, 3000)...)
	vdi := append(append(make([]byte, 0x40), "\x7f\x10\xda\xbe"...), make([]byte, 3000)...)
	vhd := append(append(make([]byte, 4096), "conectix"...), make([]byte, 504)...)
	for _, c := range []struct {
		format string
		data   []byte
		ok     bool
	}{
		{"raw", []byte("anything"), true},
		{"raw", nil, true},
		{"raw", iso, true},
		{"raw", []byte("QFI\xfb\x00\x00\x00\x03"), false},
		{"raw", []byte("KDMV"), false},
		{"raw", []byte("# Disk DescriptorFile\nRW 1 FLAT \"/etc/passwd\""), false},
		{"raw", []byte("vhdxfile"), false},
		{"raw", []byte("conectix"), false},
		{"raw", vdi, false},
		{"raw", []byte("QED\x00"), false},
		{"qcow2", []byte("anything"), false},
		{"qcow2", []byte("QFI\xfb\x00\x00\x00\x03"), false},
		{"iso", iso, true},
		{"iso", []byte("anything"), false},
		{"vdi", vdi, true},
		{"vdi", iso, false},
		{"vmdk", []byte("KDMV..."), true},
		{"vmdk", []byte("vhdxfile"), false},
		{"vhdx", []byte("vhdxfile..."), true},
		{"vhd", vhd, true},
		{"vhd", []byte("anything"), false},
		{"vhd", []byte("KDMV"), false},
		{"ami", []byte("anything"), true},
	} {
		img := s.queued(t, c.format)
		_, err := s.Upload(t.Context(), owner, img.ID, images.Expect{Size: -1}, bytes.NewReader(c.data))
		if c.ok && err != nil || !c.ok && !fault.Is(err, fault.Unsupported) {
			t.Errorf("%s with %.20q…: %v, want accepted: %v", c.format, c.data, err, c.ok)
		}
	}
}

// generated gives n bytes that do not repeat soon.
type generated struct{ n, at int64 }

func (g *generated) Read(p []byte) (int, error) {
	if g.at == g.n {
		return 0, io.EOF
	}
	n := min(int64(len(p)), g.n-g.at)
	for i := range p[:n] {
		p[i] = byte((g.at + int64(i)) >> 9)
	}
	g.at += n
	return int(n), nil
}

// An upload of 512 MiB through HTTP, in and out, needs no more memory than a small one.
func TestBigStreamNeedsLittleMemory(t *testing.T) {
	const size = 512 << 20
	s := newShelf(t)
	img := s.queued(t, "raw")
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == "GET" {
			s.ServeBlob(w, r, s.row(t, img.ID).BlobID)
			return
		}
		if _, err := s.Upload(r.Context(), owner, img.ID, images.Expect{Size: r.ContentLength}, r.Body); err != nil {
			t.Error(err)
			w.WriteHeader(http.StatusInternalServerError)
		}
	}))
	defer srv.Close()
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	req, err := http.NewRequestWithContext(t.Context(), "PUT", srv.URL, &generated{n: size})
	if err != nil {
		t.Fatal(err)
	}
	req.ContentLength = size
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	runtime.ReadMemStats(&after)
	// All that was ever allocated, freed or not: a bound that no garbage collection can hide.
	if used := after.TotalAlloc - before.TotalAlloc; used > 8<<20 {
		t.Errorf("an upload of %d MiB allocated %d MiB", size>>20, used>>20)
	}
	got := s.row(t, img.ID)
	h := sha512.New()
	if _, err := io.Copy(h, &generated{n: size}); err != nil {
		t.Fatal(err)
	}
	if got.Size != size || got.HashValue != hex.EncodeToString(h.Sum(nil)) {
		t.Errorf("the image has %d bytes and the hash %s", got.Size, got.HashValue)
	}
	runtime.ReadMemStats(&before)
	resp, err = http.Get(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	n, err := io.Copy(io.Discard, resp.Body)
	resp.Body.Close()
	runtime.ReadMemStats(&after)
	if err != nil || n != size {
		t.Errorf("%d bytes came back: %v", n, err)
	}
	if used := after.TotalAlloc - before.TotalAlloc; used > 8<<20 {
		t.Errorf("a download of %d MiB allocated %d MiB", size>>20, used>>20)
	}
}
