package agent

import (
	"context"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"yakumo/fault"
	"yakumo/model"
)

// imageCache keeps the images that guests' disks are overlays of, each once, under the id of
// its bytes. A file under its final name is whole and has the right hash; what is being
// fetched ends in ".part" and is gone on with after a restart.
type imageCache struct {
	a     *Agent
	dir   string
	slots chan struct{} // holds one value for each download under way

	wg sync.WaitGroup // of downloads

	asked chan model.ImageCopy // images that somebody wants here before a guest does

	mu      sync.Mutex
	fetches map[model.ID]*fetch
	held    map[model.ID]int // images whose overlay is being made
	hits    uint64
	misses  uint64
	bytes   uint64
	evicted uint64
	corrupt uint64
}

// fetch is a download that one or more guests wait for.
type fetch struct {
	waiters int
	cancel  context.CancelFunc
	done    chan struct{}
	err     error // read after done
}

const partSuffix = ".part"

func newImageCache(a *Agent) *imageCache {
	return &imageCache{
		a: a, dir: filepath.Join(a.cfg.Dir, "images"), slots: make(chan struct{}, a.cfg.Boots), fetches: map[model.ID]*fetch{}, held: map[model.ID]int{},
		asked: make(chan model.ImageCopy, 64),
	}
}

func (c *imageCache) path(blob model.ID) string { return filepath.Join(c.dir, blob) }

// errCorrupt says that the bytes at the source are not the image's.
var errCorrupt = errors.New("the image's bytes do not have its hash")

// hold gives the file of an image, fetched if need be, and keeps it from eviction until
// release is called.
//
// Errors: fault.Unavailable where it cannot be fetched now; fault.Invalid where the
// bytes are not the image's or no server has them.
func (c *imageCache) hold(ctx context.Context, img model.ImageCopy) (path string, release func(), err error) {
	if img.HashAlgo != "sha512" || len(img.HashValue) != 2*sha512.Size || !isFileName(img.BlobID) {
		return "", nil, fault.New(fault.Invalid, "The image's description is not usable: hash %q, data %q.", img.HashAlgo, img.BlobID)
	}
	blob := img.BlobID
	c.mu.Lock()
	c.held[blob]++
	f := c.fetches[blob]
	if f == nil {
		f = &fetch{done: make(chan struct{})}
		var fctx context.Context
		fctx, f.cancel = context.WithCancel(context.WithoutCancel(ctx))
		c.fetches[blob] = f
		c.wg.Go(func() {
			err := c.get(fctx, img)
			f.cancel()
			c.mu.Lock()
			f.err = err
			delete(c.fetches, blob)
			c.mu.Unlock()
			close(f.done)
		})
	}
	f.waiters++
	c.mu.Unlock()
	release = sync.OnceFunc(func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.held[blob]--; c.held[blob] == 0 {
			delete(c.held, blob)
		}
	})
	select {
	case <-f.done:
		err = f.err
	case <-ctx.Done():
		err = ctx.Err()
	}
	c.mu.Lock()
	if f.waiters--; f.waiters == 0 {
		f.cancel() // nobody wants it any more
	}
	c.mu.Unlock()
	if err != nil {
		release()
		if ctx.Err() == nil && errors.Is(err, context.Canceled) {
			err = fault.Wrap(fault.Unavailable, err, "The image cannot be fetched now.") // the last waiter before us left
		}
		return "", nil, err
	}
	return c.path(blob), release, nil
}

// close waits for the downloads to end, which nobody waits for any more.
func (c *imageCache) close() { c.wg.Wait() }

// isFileName keeps an id from leading out of its folder.
func isFileName(id string) bool {
	return id != "" && id != "." && id != ".." && len(id) < 200 && !strings.ContainsAny(id, "/\x00") && !strings.HasSuffix(id, partSuffix)
}

// get makes the image's file be there and whole.
func (c *imageCache) get(ctx context.Context, img model.ImageCopy) error {
	path := c.path(img.BlobID)
	st, err := os.Stat(path)
	switch {
	case err == nil && st.Size() == img.Size:
		c.mu.Lock()
		c.hits++
		c.mu.Unlock()
		return nil
	case err == nil:
		// It was whole once: the disk has lost bytes of it. Guests on it are lost too, but no new one may join.
		c.a.log.Error("a cached image has changed its size; it is fetched again", "blob", img.BlobID, "size", st.Size(), "want", img.Size)
		if err := os.Remove(path); err != nil {
			return fmt.Errorf("remove broken image: %w", err)
		}
	case !errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("cached image: %w", err)
	}
	c.mu.Lock()
	c.misses++
	c.mu.Unlock()
	select {
	case c.slots <- struct{}{}:
		defer func() { <-c.slots }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := c.evict(); err != nil { // there may be no room but for what nobody needs
		c.a.log.Warn("the image cache cannot be tidied", "err", err)
	}
	err = c.download(ctx, img)
	if errors.Is(err, errCorrupt) {
		// What was left of an earlier download may be to blame: once more, from the start.
		err = c.download(ctx, img)
	}
	if errors.Is(err, errCorrupt) {
		c.mu.Lock()
		c.corrupt++
		c.mu.Unlock()
		return fault.Wrap(fault.Invalid, err, "The image's data is corrupt.")
	}
	return err
}

// download goes on with what there is of the file, checks all of it and gives it its name.
func (c *imageCache) download(ctx context.Context, img model.ImageCopy) error {
	part := c.path(img.BlobID) + partSuffix
	f, err := os.OpenFile(part, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return fmt.Errorf("fetch image: %w", err)
	}
	defer f.Close()
	hash := sha512.New()
	have, err := io.Copy(hash, f)
	if err != nil {
		return fmt.Errorf("read what was fetched: %w", err)
	}
	if have < img.Size {
		n, err := c.receive(ctx, img, have, io.MultiWriter(hash, f))
		have += n
		if fault.Is(err, fault.NotFound) {
			return errors.Join(fault.Wrap(fault.Invalid, err, "The image's data is gone."), os.Remove(part))
		}
		if err != nil {
			return err // the next try goes on from here
		}
	}
	if have != img.Size || hex.EncodeToString(hash.Sum(nil)) != strings.ToLower(img.HashValue) {
		err := fmt.Errorf("%w: %d bytes of %d", errCorrupt, have, img.Size)
		return errors.Join(err, os.Remove(part))
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("fetch image: %w", err)
	}
	if err := os.Rename(part, c.path(img.BlobID)); err != nil {
		return fmt.Errorf("fetch image: %w", err)
	}
	return syncDir(c.dir)
}

// receive copies the image's bytes from offset on to w; a stream that ends early or
// stalls is fault.Unavailable.
func (c *imageCache) receive(ctx context.Context, img model.ImageCopy, offset int64, w io.Writer) (int64, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stalled := time.AfterFunc(c.a.cfg.Cache.Stall, func() { cancel(errors.New("no byte came for too long")) })
	defer stalled.Stop()
	body, err := c.a.link.Blob(ctx, img.BlobID, offset)
	if err != nil {
		return 0, fmt.Errorf("fetch image %s: %w", img.ImageID, err)
	}
	defer body.Close()
	stop := context.AfterFunc(ctx, func() { body.Close() })
	defer stop()
	var n int64
	buf := make([]byte, 128<<10)
	for {
		k, err := body.Read(buf)
		if k > 0 {
			stalled.Reset(c.a.cfg.Cache.Stall)
			if n += int64(k); offset+n > img.Size {
				return n, nil // too long: the check refuses it
			}
			if _, err := w.Write(buf[:k]); err != nil {
				return n - int64(k), fmt.Errorf("write image: %w", err)
			}
			c.mu.Lock()
			c.bytes += uint64(k)
			c.mu.Unlock()
		}
		switch {
		case err == io.EOF && offset+n == img.Size:
			return n, nil
		case err == io.EOF:
			err = io.ErrUnexpectedEOF
			fallthrough
		case err != nil:
			if cause := context.Cause(ctx); cause != nil {
				err = cause
			}
			return n, fault.Wrap(fault.Unavailable, err, "The image cannot be fetched now.")
		}
	}
}

// prefetch has images fetched; what then becomes of them is as of any that no guest uses.
func (c *imageCache) prefetch(q model.CacheQuery) error {
	for _, img := range q.Images {
		select {
		case c.asked <- img:
		default:
			return fault.New(fault.Unavailable, "This host has too many images to fetch already.")
		}
	}
	return nil
}

// run fetches what is asked for and evicts what nobody needs, until ctx ends.
func (c *imageCache) run(ctx context.Context) {
	tick := time.NewTicker(max(c.a.cfg.Resync, min(time.Minute, c.a.cfg.Cache.Age/4)))
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if err := c.evict(); err != nil {
				c.a.log.Warn("the image cache cannot be tidied", "err", err)
			}
		case img := <-c.asked:
			c.wg.Go(func() {
				_, release, err := c.hold(ctx, img)
				if err != nil {
					c.a.log.Warn("an image that was asked for is not fetched", "image", img.ImageID, "err", err)
					return
				}
				release()
				c.a.log.Info("an image is here before its guests", "image", img.ImageID)
			})
		case <-ctx.Done():
			return
		}
	}
}

// evict removes images that no guest uses: those unused for too long, and while the disk is
// short, the one unused for longest first. A file's time says when it was last in use.
func (c *imageCache) evict() error {
	if c.a.ledger.Generation() == 0 {
		return nil
	}
	entries, err := os.ReadDir(c.dir)
	if err != nil {
		return err
	}
	used := c.used()
	type idle struct {
		name string
		at   time.Time
	}
	var unused []idle
	for _, e := range entries {
		st, err := e.Info()
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		blob := strings.TrimSuffix(e.Name(), partSuffix)
		if used[blob] {
			now := c.a.cfg.Now()
			if err := os.Chtimes(filepath.Join(c.dir, e.Name()), now, now); err != nil && !errors.Is(err, os.ErrNotExist) {
				return err
			}
			continue
		}
		at := 0
		for at < len(unused) && unused[at].at.Before(st.ModTime()) {
			at++
		}
		unused = append(unused[:at], append([]idle{{e.Name(), st.ModTime()}}, unused[at:]...)...)
	}
	for _, u := range unused {
		free, err := freePart(c.dir)
		if err != nil {
			return err
		}
		if free >= c.a.cfg.Cache.Reserve && c.a.cfg.Now().Sub(u.at) < c.a.cfg.Cache.Age {
			return nil
		}
		if err := c.remove(u.name); err != nil {
			return err
		}
	}
	return nil
}

// used gives the images that a disk here is made of, or will be.
func (c *imageCache) used() map[model.ID]bool {
	used := map[model.ID]bool{}
	for _, row := range c.a.ledger.all() {
		if s, ok := row.(*model.HostServer); ok && !s.Deleted {
			used[s.Image.BlobID] = true
			if s.Rescue != nil {
				used[s.Rescue.Image.BlobID] = true
			}
		}
	}
	for _, p := range c.a.ledger.allProgress() {
		if p.Blob != "" && !p.Gone {
			used[p.Blob] = true
		}
		if p.Rescue != nil && !p.Gone {
			used[p.Rescue.Image.BlobID] = true
		}
	}
	for _, x := range c.a.quarantine.list() {
		if x.Blob != "" {
			used[x.Blob] = true
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for blob := range c.held {
		used[blob] = true
	}
	return used
}

// remove deletes a file unless it has come into use.
func (c *imageCache) remove(name string) error {
	blob := strings.TrimSuffix(name, partSuffix)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.held[blob] > 0 {
		return nil
	}
	c.a.log.Info("an image that no guest uses is removed from the cache", "blob", blob)
	c.evicted++
	if err := os.Remove(filepath.Join(c.dir, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// freePart gives the part of dir's file system that is free, 0 to 1.
func freePart(dir string) (float64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, fmt.Errorf("free space of %s: %w", dir, err)
	}
	return float64(st.Bavail) / float64(max(st.Blocks, 1)), nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
