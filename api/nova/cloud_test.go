package nova_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"yakumo/api"
	"yakumo/api/apitest"
	"yakumo/api/neutron"
	"yakumo/api/nova"
	"yakumo/compute"
	"yakumo/compute/computetest"
	"yakumo/fault"
	"yakumo/images"
	"yakumo/images/files"
	"yakumo/model"
	"yakumo/network"
	"yakumo/reconcile"
	"yakumo/store"
	"yakumo/store/storetest"
	"yakumo/volume"
)

// Projects of the tests.
const (
	red   = apitest.Red
	blue  = apitest.Blue
	staff = apitest.Staff
)

// cloud is a server with the compute and network services, its controllers and hosts.
type cloud struct {
	t       testing.TB
	store   *store.Store
	front   *api.Front
	compute *compute.Compute
	volumes *volume.Volumes
	hosts   *hosts
	wire    *computetest.Wire
	busy    atomic.Bool                                     // live moves do not end by themselves
	secret  atomic.Pointer[func(model.PasswordQuery) error] // the guests' agent; nil: none answers
	image   string
	network string // of red
}

// hosts are the fake hosts by id; it answers what servers ask of them.
type hosts struct {
	mu sync.Mutex
	by map[model.ID]*computetest.Host
}

func (h *hosts) Ask(ctx context.Context, host model.ID, name string, body []byte) ([]byte, error) {
	h.mu.Lock()
	f := h.by[host]
	h.mu.Unlock()
	if f == nil {
		return nil, fault.New(fault.Unavailable, "The host is not connected. Try again when it is back.")
	}
	return f.Ask(ctx, name, body)
}

func newCloud(t testing.TB) *cloud {
	t.Helper()
	return serve(t, storetest.New(t))
}

func serve(t testing.TB, s *store.Store) *cloud {
	t.Helper()
	quiet := slog.New(slog.DiscardHandler)
	n := network.New(network.Config{Log: quiet, Defaults: map[string]int{"network": -1, "subnet": -1, "port": -1, "security_group": -1, "security_group_rule": -1}})
	imgs := images.New(images.Config{Store: s, Log: quiet})
	vols := volume.New(volume.Config{Store: s, Log: quiet})
	if err := vols.Bootstrap(t.Context()); err != nil {
		t.Fatal(err)
	}
	comp := compute.New(compute.Config{Store: s, Ports: n, Volumes: vols, Images: imgs, Log: quiet,
		Seal: func(place string, secret []byte) []byte { return []byte(place + "|" + string(secret)) }})
	blobs, err := files.New(files.Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	c := &cloud{t: t, store: s, compute: comp, volumes: vols, hosts: &hosts{by: map[model.ID]*computetest.Host{}}, wire: &computetest.Wire{}}
	front, err := api.New(api.Config{Store: s, Auth: apitest.Callers(), Log: quiet, Services: []api.Service{
		neutron.New(neutron.Config{Network: n}),
		nova.New(nova.Config{Compute: comp, Network: n, Volumes: vols, Images: images.New(images.Config{Store: s, Blobs: blobs, Log: quiet}), Hosts: c.hosts}),
	}})
	if err != nil {
		t.Fatal(err)
	}
	c.front = front
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for _, ctl := range []reconcile.Controller{comp.Placer(), comp.Sweeper(), vols.Placer(), vols.Sweeper(), comp.Mover(), comp.Absence()} {
		wg.Go(func() { reconcile.Run(ctx, reconcile.Config{Store: s, Identity: "t", Log: quiet}, ctl) })
	}
	t.Cleanup(func() { cancel(); wg.Wait() })
	return c
}

// furnish makes what a server needs: an image, flavors, and red's network.
func (c *cloud) furnish() {
	c.t.Helper()
	img := &model.Image{Meta: model.NewMeta(staff, "mini", time.Now()), Status: model.ImageActive, Visibility: model.VisibilityPublic,
		DiskFormat: "qcow2", ContainerFormat: "bare", Size: 1000, VirtualSize: 64 << 20, BlobID: model.NewID(), HashAlgo: "sha512", HashValue: "00"}
	c.update(func(tx *store.Tx) error {
		for i, f := range []model.Flavor{
			{ID: "1", Name: "tiny", VCPUs: 1, MemoryMiB: 128, DiskGiB: 1, Public: true, RxTxFactor: 1},
			{ID: "2", Name: "small", VCPUs: 2, MemoryMiB: 512, DiskGiB: 5, Public: true, RxTxFactor: 1, ExtraSpecs: map[string]string{"hw:a": "b"}},
			{ID: "9", Name: "secret", VCPUs: 1, MemoryMiB: 128, DiskGiB: 1},
		} {
			if _, err := c.compute.CreateFlavor(tx, f); err != nil {
				return fmt.Errorf("flavor %d: %w", i, err)
			}
		}
		return store.Images.Put(tx, img)
	})
	c.image = img.ID
	c.network = c.net("red", "wire", "10.0.0.0/22")
}

// net makes a network with a subnet, of which the first hundred addresses are never given by chance: tests choose
// from them.
func (c *cloud) net(token, name, cidr string) string {
	c.t.Helper()
	block := netip.MustParsePrefix(cidr)
	first := block.Addr().As4()
	last := first
	first[3] += 100
	for i := block.Bits(); i < 32; i++ {
		last[i/8] |= 0x80 >> (i % 8)
	}
	last[3]-- // which is for all
	a := c.at("/network", token, "POST", "/v2.0/networks", object{"network": object{"name": name}})
	id, _ := a.body["network"].(object)["id"].(string)
	if b := c.at("/network", token, "POST", "/v2.0/subnets", object{"subnet": object{"network_id": id, "ip_version": 4, "cidr": cidr,
		"allocation_pools": []object{{"start": netip.AddrFrom4(first), "end": netip.AddrFrom4(last)}}}}); a.status != 201 || b.status != 201 {
		c.t.Fatalf("network: %s %s", a.raw, b.raw)
	}
	return id
}

func (c *cloud) update(f func(tx *store.Tx) error) {
	c.t.Helper()
	if _, err := c.store.Update(c.t.Context(), f); err != nil {
		c.t.Fatal(err)
	}
}

// host adds a host that is alive and runs what it is told.
func (c *cloud) host(name string, opts ...func(*model.Host)) *computetest.Host {
	c.t.Helper()
	h := &model.Host{Meta: model.NewMeta("", name, time.Now()), Zone: "nova", TunnelIP: netip.MustParseAddr("192.0.2.1"), Underlay: 1500,
		Capacity: model.HostCapacity{VCPUs: 8, MemoryMiB: 16384, DiskGiB: 200, Arch: "x86_64", HypervisorType: "QEMU", HypervisorVersion: 7002000, CPUModel: "qemu64", Sockets: 1, Cores: 8, Threads: 1}}
	for _, o := range opts {
		o(h)
	}
	c.update(func(tx *store.Tx) error {
		if err := store.Hosts.Put(tx, h); err != nil {
			return err
		}
		return store.Heartbeats.Put(tx, &model.Heartbeat{HostID: h.ID, At: time.Now()})
	})
	f := computetest.Start(c.t, computetest.Config{Store: c.store, Sink: c.compute, Host: h.ID, Wire: c.wire, Busy: func(*model.Server) bool { return c.busy.Load() },
		Password: func(q model.PasswordQuery) error {
			if f := c.secret.Load(); f != nil {
				return (*f)(q)
			}
			return fault.New(fault.Unavailable, "The guest agent of %s does not answer.", q.ServerID)
		}})
	c.hosts.mu.Lock()
	c.hosts.by[h.ID] = f
	c.hosts.mu.Unlock()
	return f
}

type object = apitest.Object

type answer struct {
	status int
	header http.Header
	raw    []byte
	body   object
}

// do makes a request; body nil: none, a string: as it is, else as JSON. opts are header
// names and values; a version such as "2.26" is the microversion.
func (c *cloud) do(token, method, path string, body any, opts ...string) answer {
	c.t.Helper()
	return c.at("/compute/v2.1", token, method, path, body, opts...)
}

func (c *cloud) at(prefix, token, method, path string, body any, opts ...string) answer {
	c.t.Helper()
	var headers []string
	for _, o := range opts {
		if name, value, ok := strings.Cut(o, ":"); ok {
			headers = append(headers, name, value)
		} else {
			headers = append(headers, "OpenStack-API-Version", "compute "+o)
		}
	}
	a := apitest.Do(c.t, c.front, token, method, prefix+path, body, headers...)
	return answer{a.Status, a.Header, a.Raw, a.Body}
}

// must makes a request that has to answer with the status, and gives the body's one member.
func (c *cloud) must(status int, token, method, path string, body any, opts ...string) object {
	c.t.Helper()
	a := c.do(token, method, path, body, opts...)
	if a.status != status {
		c.t.Fatalf("%s %s as %s: %d, want %d: %s", method, path, token, a.status, status, a.raw)
	}
	for _, v := range a.body {
		if o, ok := v.(object); ok && len(a.body) == 1 {
			return o
		}
	}
	return a.body
}

// refused makes a request that has to be refused with the status and Nova's member for it.
func (c *cloud) refused(status int, member, token, method, path string, body any, opts ...string) string {
	c.t.Helper()
	a := c.do(token, method, path, body, opts...)
	e, _ := a.body[member].(object)
	if a.status != status || e == nil || e["code"] != float64(status) {
		c.t.Errorf("%s %s as %s with %v: %d %s, want %d %s", method, path, token, body, a.status, a.raw, status, member)
		return ""
	}
	text, _ := e["message"].(string)
	if text == "" {
		c.t.Errorf("%s %s: the error has no message: %s", method, path, a.raw)
	}
	return text
}

func (c *cloud) rows(token, path string, opts ...string) []object {
	c.t.Helper()
	a := c.do(token, "GET", path, nil, opts...)
	if a.status != http.StatusOK {
		c.t.Fatalf("GET %s as %s: %d: %s", path, token, a.status, a.raw)
	}
	for k, v := range a.body {
		if rows, ok := v.([]any); ok && !strings.HasSuffix(k, "_links") {
			out := make([]object, 0, len(rows))
			for _, r := range rows {
				out = append(out, r.(object))
			}
			return out
		}
	}
	c.t.Fatalf("GET %s: no list: %s", path, a.raw)
	return nil
}

// boot makes a server and gives its id.
func (c *cloud) boot(token, name string, more ...any) string {
	c.t.Helper()
	s := object{"name": name, "imageRef": c.image, "flavorRef": "1", "networks": []object{{"uuid": c.network}}}
	for i := 0; i+1 < len(more); i += 2 {
		s[more[i].(string)] = more[i+1]
	}
	return c.must(202, token, "POST", "/servers", object{"server": s})["id"].(string)
}

const patience = 90 * time.Second

// wait waits until the server's member is so.
func (c *cloud) wait(token, id, member string, want any) object {
	c.t.Helper()
	var last object
	c.eventually(func() bool {
		last = c.must(200, token, "GET", "/servers/"+id, nil)
		return last[member] == want
	}, func() string {
		return fmt.Sprintf("server %s: %s is %v, want %v: %v", id, member, last[member], want, last)
	})
	return last
}

func (c *cloud) gone(token, id string) {
	c.t.Helper()
	c.eventually(func() bool { return c.do(token, "GET", "/servers/"+id, nil).status == 404 }, func() string { return "server " + id + " stays" })
}

// eventually waits for a state, woken by every change of the store.
func (c *cloud) eventually(ok func() bool, what func() string) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	sub := c.store.Subscribe()
	defer sub.Close()
	for !ok() {
		if _, err := sub.Next(ctx); err != nil {
			c.t.Fatal(what())
		}
	}
}
