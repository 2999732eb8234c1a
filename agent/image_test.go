package agent

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"yakumo/fault"
	"yakumo/hypervisor/fake"
	"yakumo/link"
	"yakumo/model"
)

// cacheOf gives a cache that no agent runs over.
func cacheOf(t *testing.T, w *world) (*imageCache, *Agent) {
	t.Helper()
	r := w.startFor(t)
	return r.images, r.Agent
}

func TestImageOnce(t *testing.T) {
	w := newWorld(t.TempDir(), fake.HostConfig{})
	c := newCloud(w.side)
	cache, _ := cacheOf(t, w)
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			path, release, err := cache.hold(context.Background(), c.image)
			if err != nil {
				t.Error(err)
				return
			}
			defer release()
			b, err := os.ReadFile(path)
			if err != nil || int64(len(b)) != c.image.Size {
				t.Errorf("%d bytes, %v", len(b), err)
			}
		})
	}
	wg.Wait()
	if len(w.side.reads) != 1 {
		t.Errorf("fetched %d times", len(w.side.reads))
	}
	if len(cache.held) != 0 || len(cache.fetches) != 0 {
		t.Errorf("left: %v %v", cache.held, cache.fetches)
	}
}

func TestImageResumes(t *testing.T) {
	for _, tc := range []struct {
		name   string
		spoil  func(part string) error
		offset []int64
	}{
		{"goes on", func(string) error { return nil }, []int64{0, 500}},
		{"what was there is spoilt", func(part string) error {
			f, err := os.OpenFile(part, os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			_, err = f.WriteAt([]byte{0}, 100)
			return errors.Join(err, f.Close())
		}, []int64{0, 500, 0}},
		{"what was there is too long", func(part string) error { return os.Truncate(part, 1<<20) }, []int64{0, 0}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t.TempDir(), fake.HostConfig{})
			c := newCloud(w.side)
			cache, _ := cacheOf(t, w)
			w.side.cut[c.image.BlobID] = 500
			if _, _, err := cache.hold(context.Background(), c.image); !fault.Is(err, fault.Unavailable) || !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Fatalf("a stream that ends early: %v", err)
			}
			if _, err := os.Stat(cache.path(c.image.BlobID)); !errors.Is(err, os.ErrNotExist) {
				t.Fatalf("half an image has its final name: %v", err)
			}
			if err := tc.spoil(cache.path(c.image.BlobID) + partSuffix); err != nil {
				t.Fatal(err)
			}
			path, release, err := cache.hold(context.Background(), c.image)
			if err != nil {
				t.Fatal(err)
			}
			defer release()
			if b, err := os.ReadFile(path); err != nil || string(b) != string(w.side.blobs[c.image.BlobID]) {
				t.Errorf("%d bytes, %v", len(b), err)
			}
			if got := w.side.reads; len(got) != len(tc.offset) || got[len(got)-1] != tc.offset[len(got)-1] {
				t.Errorf("offsets %v, want %v", got, tc.offset)
			}
		})
	}
}

// A cached file that has lost bytes is not booted from.
func TestImageShrinks(t *testing.T) {
	w := newWorld(t.TempDir(), fake.HostConfig{})
	c := newCloud(w.side)
	cache, _ := cacheOf(t, w)
	path, release, err := cache.hold(context.Background(), c.image)
	if err != nil {
		t.Fatal(err)
	}
	release()
	if err := os.Truncate(path, 10); err != nil {
		t.Fatal(err)
	}
	if _, release, err = cache.hold(context.Background(), c.image); err != nil {
		t.Fatal(err)
	}
	release()
	if st, err := os.Stat(path); err != nil || st.Size() != c.image.Size {
		t.Errorf("size %d, %v", st.Size(), err)
	}
}

// stallingLink gives the first bytes of an image and then nothing.
type stallingLink struct {
	*serverSide
	open chan struct{}
}

type stallingBody struct {
	first bool
	ended chan struct{}
	once  sync.Once
}

func (b *stallingBody) Read(p []byte) (int, error) {
	if !b.first {
		b.first = true
		return 7, nil
	}
	<-b.ended
	return 0, os.ErrClosed
}

func (b *stallingBody) Close() error {
	b.once.Do(func() { close(b.ended) })
	return nil
}

func (l stallingLink) Blob(context.Context, model.ID, int64) (io.ReadCloser, error) {
	l.open <- struct{}{}
	return &stallingBody{ended: make(chan struct{})}, nil
}

func TestImageStalls(t *testing.T) {
	with := func(stall time.Duration) (stallingLink, *imageCache, model.ImageCopy) {
		w := newWorld(t.TempDir(), fake.HostConfig{})
		l := stallingLink{w.side, make(chan struct{}, 1)}
		a := w.start(t, func(c *Config) {
			c.Cache.Stall = stall
			c.Link = func(h link.Handler) Link { w.side.attach(h); return l }
		})
		t.Cleanup(func() { a.stop(t) })
		return l, a.images, newCloud(w.side).image
	}
	_, cache, image := with(10 * time.Millisecond)
	if _, _, err := cache.hold(context.Background(), image); !fault.Is(err, fault.Unavailable) {
		t.Errorf("a download that stalls: %v", err)
	}
	// Who gives up waiting ends the download, when nobody else waits.
	l, cache, image := with(time.Hour)
	ctx, cancel := context.WithCancel(context.Background())
	go func() { <-l.open; cancel() }()
	if _, _, err := cache.hold(ctx, image); !errors.Is(err, context.Canceled) {
		t.Errorf("a waiter that gives up: %v", err)
	}
	waitFor(t, "the download to end", func() bool {
		cache.mu.Lock()
		defer cache.mu.Unlock()
		return len(cache.fetches) == 0 && len(cache.held) == 0
	})
}

func TestImageEviction(t *testing.T) {
	w := newWorld(t.TempDir(), fake.HostConfig{})
	c := newCloud(w.side)
	cache, a := cacheOf(t, w)
	s, p := c.server()
	w.side.apply(t, full(5, c.network, c.group, s, p))
	w.settled(t, s.ID, 1, model.PhaseReady, model.PowerRunning)
	// An image that no guest uses, one that is half here, and one that is held.
	old, held := c.image, c.image
	old.BlobID, held.BlobID = model.NewID(), model.NewID()
	w.side.mu.Lock()
	w.side.blobs[old.BlobID], w.side.blobs[held.BlobID] = w.side.blobs[c.image.BlobID], w.side.blobs[c.image.BlobID]
	w.side.mu.Unlock()
	if _, release, err := cache.hold(context.Background(), old); err != nil {
		t.Fatal(err)
	} else {
		release()
	}
	_, release, err := cache.hold(context.Background(), held)
	if err != nil {
		t.Fatal(err)
	}
	part := filepath.Join(w.dir, "images", model.NewID()+partSuffix)
	if err := os.WriteFile(part, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	exist := func(want map[string]bool) {
		t.Helper()
		if err := cache.evict(); err != nil {
			t.Fatal(err)
		}
		for path, there := range want {
			if _, err := os.Stat(path); (err == nil) != there {
				t.Errorf("%s: %v, want it there: %v", filepath.Base(path), err, there)
			}
		}
	}
	a.cfg.Cache.Reserve = 0
	exist(map[string]bool{cache.path(c.image.BlobID): true, cache.path(old.BlobID): true, cache.path(held.BlobID): true, part: true})
	long := time.Now().Add(-48 * time.Hour)
	for _, f := range []string{part, cache.path(old.BlobID), cache.path(c.image.BlobID), cache.path(held.BlobID)} {
		if err := os.Chtimes(f, long, long); err != nil {
			t.Fatal(err)
		}
	}
	exist(map[string]bool{cache.path(c.image.BlobID): true, cache.path(old.BlobID): false, cache.path(held.BlobID): true, part: false})
	release()
	a.cfg.Cache.Reserve = 1.1 // a disk that is always too full
	exist(map[string]bool{cache.path(c.image.BlobID): true, cache.path(held.BlobID): false})
	w.side.apply(t, change(6, with(s, func(s *model.HostServer) { s.Deleted = true })))
	waitFor(t, "the server to be gone", func() bool { return w.side.server(s.ID).Gone })
	exist(map[string]bool{cache.path(c.image.BlobID): false})
}

func TestQemuImg(t *testing.T) {
	dir := t.TempDir()
	base := filepath.Join(dir, "base")
	if err := os.WriteFile(base, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	disk := filepath.Join(dir, "disk")
	if err := (QemuImg{}).Overlay(context.Background(), disk, base, "raw", 5<<20); err != nil {
		t.Fatal(err)
	}
	if got := virtualSize(t, disk); got != 5<<20 {
		t.Errorf("size %d", got)
	}
	if err := (QemuImg{}).Overlay(context.Background(), filepath.Join(dir, "d2"), filepath.Join(dir, "none"), "raw", 5<<20); err == nil {
		t.Error("an overlay over nothing is made")
	}
}

// TestPrefetch: an image that a server asks for is there before any guest needs it; one that is nowhere is no reason to stop.
func TestPrefetch(t *testing.T) {
	w := newWorld(t.TempDir(), fake.HostConfig{})
	cache, a := cacheOf(t, w)
	lost, img := w.addImage("lost"), w.addImage("early")
	w.side.mu.Lock()
	delete(w.side.blobs, lost.BlobID)
	w.side.mu.Unlock()
	body, err := json.Marshal(model.CacheQuery{Images: []model.ImageCopy{lost, img}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Answer(t.Context(), "cache", body); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the image", func() bool { b, err := os.ReadFile(cache.path(img.BlobID)); return err == nil && string(b) == "early" })
	many := model.CacheQuery{Images: make([]model.ImageCopy, cap(cache.asked)+1)}
	if err := newImageCache(a).prefetch(many); !fault.Is(err, fault.Unavailable) {
		t.Errorf("more than can wait: %v", err)
	}
}
