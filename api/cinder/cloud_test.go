package cinder_test

import (
	"context"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"yakumo/api"
	"yakumo/api/apitest"
	"yakumo/api/cinder"
	"yakumo/images"
	"yakumo/images/files"
	"yakumo/model"
	"yakumo/reconcile"
	"yakumo/store"
	"yakumo/store/storetest"
	"yakumo/volume"
	"yakumo/volume/volumetest"
)

// Projects of the tests.
const (
	red   = apitest.Red
	blue  = apitest.Blue
	staff = apitest.Staff
)

// cloud is a server with the block storage service, its controllers and a host.
type cloud struct {
	t     testing.TB
	store *store.Store
	front *api.Front
	v     *volume.Volumes
	host  *volumetest.Host
	image string
	fail  func(v *model.Volume) *model.Fault
	mu    sync.Mutex
}

type object = apitest.Object

func newCloud(t testing.TB) *cloud {
	t.Helper()
	quiet := slog.New(slog.DiscardHandler)
	s := storetest.New(t)
	blobs, err := files.New(files.Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	c := &cloud{t: t, store: s, v: volume.New(volume.Config{Store: s, Log: quiet})}
	if err := c.v.Bootstrap(t.Context()); err != nil {
		t.Fatal(err)
	}
	c.front, err = api.New(api.Config{Store: s, Auth: apitest.Callers(), Log: quiet, Services: []api.Service{
		cinder.New(cinder.Config{Volumes: c.v, Images: images.New(images.Config{Store: s, Blobs: blobs, Log: quiet})}),
	}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for _, ctl := range []reconcile.Controller{c.v.Placer(), c.v.Sweeper()} {
		wg.Go(func() { reconcile.Run(ctx, reconcile.Config{Store: s, Identity: "t", Log: quiet}, ctl) })
	}
	t.Cleanup(func() { cancel(); wg.Wait() })
	return c
}

// furnish adds a host with room, and an image.
func (c *cloud) furnish() {
	c.t.Helper()
	h := &model.Host{Meta: model.NewMeta("", "h1", time.Now()), Zone: "nova", Engines: []string{"local", "nfs"}, Capacity: model.HostCapacity{DiskGiB: 1 << 20}}
	img := &model.Image{Meta: model.NewMeta(staff, "mini", time.Now()), Status: model.ImageActive, Visibility: model.VisibilityPublic, Properties: map[string]string{"os_distro": "mini"},
		DiskFormat: "qcow2", ContainerFormat: "bare", Size: 1000, VirtualSize: 64 << 20, BlobID: model.NewID(), HashAlgo: "sha512", HashValue: "00"}
	c.image = img.ID
	if _, err := c.store.Update(c.t.Context(), func(tx *store.Tx) error {
		if err := store.Hosts.Put(tx, h); err != nil {
			return err
		}
		if err := store.Images.Put(tx, img); err != nil {
			return err
		}
		return store.Heartbeats.Put(tx, &model.Heartbeat{HostID: h.ID, At: time.Now()})
	}); err != nil {
		c.t.Fatal(err)
	}
	c.host = volumetest.Start(c.t, volumetest.Config{Store: c.store, Volumes: c.v, Host: h.ID, Fail: func(v *model.Volume) *model.Fault {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.fail == nil {
			return nil
		}
		return c.fail(v)
	}})
}

func (c *cloud) failing(f func(v *model.Volume) *model.Fault) {
	c.mu.Lock()
	c.fail = f
	c.mu.Unlock()
}

type answer struct {
	status int
	header http.Header
	raw    string
	body   object
}

// do makes a request; body nil: none, a string: as it is, else as JSON. version "" is 3.0.
func (c *cloud) do(token, version, method, path string, body any) answer {
	c.t.Helper()
	var headers []string
	if body != nil {
		headers = append(headers, "Content-Type", "application/json")
	}
	if version != "" {
		headers = append(headers, "OpenStack-API-Version", "volume "+version)
	}
	a := apitest.Do(c.t, c.front, token, method, "http://c.test/volume/v3"+path, body, headers...)
	return answer{a.Status, a.Header, string(a.Raw), a.Body}
}

// want is do, and fails the test where the status is another.
func (c *cloud) want(status int, token, version, method, path string, body any) answer {
	c.t.Helper()
	a := c.do(token, version, method, path, body)
	if a.status != status {
		c.t.Fatalf("%s %s as %s: %d, want %d: %s", method, path, token, a.status, status, a.raw)
	}
	return a
}

// get walks into the body by a path of members and indexes such as "volume.status".
func (a answer) get(path string) any {
	var v any = a.body
	for _, p := range strings.Split(path, ".") {
		switch x := v.(type) {
		case object:
			v = x[p]
		case []any:
			i := int(p[0] - '0')
			if i >= len(x) {
				return nil
			}
			v = x[i]
		default:
			return nil
		}
	}
	return v
}

func (a answer) str(path string) string { s, _ := a.get(path).(string); return s }

const patience = 60 * time.Second

// until waits for a field of what is at the path to be as wanted.
func (c *cloud) until(token, path, field, want string) answer {
	c.t.Helper()
	for end := time.Now().Add(patience); ; {
		a := c.do(token, "3.70", "GET", path, nil)
		if a.status == 200 && a.str(field) == want {
			return a
		}
		if time.Now().After(end) {
			c.t.Fatalf("%s never became %s: %s", path, want, a.raw)
		}
		c.pause()
	}
}

// gone waits until the path answers 404.
func (c *cloud) gone(token, path string) {
	c.t.Helper()
	for end := time.Now().Add(patience); ; {
		a := c.do(token, "3.70", "GET", path, nil)
		if a.status == 404 {
			return
		}
		if time.Now().After(end) {
			c.t.Fatalf("%s is still there: %s", path, a.raw)
		}
		c.pause()
	}
}

// pause lets the cloud work: it ends with the next change of the state, or soon.
func (c *cloud) pause() {
	select {
	case <-time.After(5 * time.Millisecond):
	case <-c.t.Context().Done():
	}
}

// volume makes a volume of red and waits until it is available.
func (c *cloud) volume(more object) string {
	c.t.Helper()
	o := object{"size": 1, "name": "v"}
	for k, v := range more {
		o[k] = v
	}
	id := c.want(202, "red", "3.70", "POST", "/volumes", object{"volume": o}).str("volume.id")
	c.until("red", "/volumes/"+id, "volume.status", "available")
	return id
}
