package scale_test

import (
	"bytes"
	"context"
	"crypto/sha512"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"sync"
	"testing"
	"time"

	"yakumo/api"
	"yakumo/api/nova"
	"yakumo/check"
	"yakumo/compute"
	"yakumo/images"
	"yakumo/images/files"
	"yakumo/model"
	"yakumo/network"
	"yakumo/reconcile"
	"yakumo/store"
)

// serversEach is how many servers a project has, in a network of its own.
const serversEach = 20

// administrator is the token of the cloud's.
const administrator = "admin"

// member lets a project's member in, by a token that is the project's id, and the administrator.
type member struct{}

func (member) Authenticate(_ context.Context, token string) (*api.Caller, error) {
	if token == administrator {
		return &api.Caller{UserID: "a", ProjectID: "admin", RoleNames: []string{"admin", "member", "reader"}, CloudAdmin: true}, nil
	}
	return &api.Caller{UserID: "u", ProjectID: token, RoleNames: []string{"member", "reader"}}, nil
}

// TestManyServers boots servers through the Compute API on hosts that run the real agent and the fake hypervisor, and
// measures how many a second, what placement takes, what a list takes, and the server's memory. Then no row may
// contradict another.
func TestManyServers(t *testing.T) {
	hosts, servers := 50, 500
	if *full {
		hosts, servers = 1000, 20000
	}
	c := newCloud(t)
	o := order{Server: c.listen(), Dir: folder(t, "/dev/shm")}
	for i := range hosts {
		o.Tokens = append(o.Tokens, c.token(i))
	}
	c.child = startHosts(t, o)
	c.meet(hosts)
	front := c.compose(c.compute.Placer(), c.compute.Sweeper())

	img, projects, networks := c.furnish(servers / serversEach)
	began := time.Now()
	var late []time.Duration
	var mu sync.Mutex
	next := make(chan int)
	var clients sync.WaitGroup
	for range 32 {
		clients.Go(func() {
			for i := range next {
				body, err := json.Marshal(map[string]any{"server": map[string]any{"name": fmt.Sprint("s", i), "imageRef": img, "flavorRef": "1", "networks": []any{map[string]any{"uuid": networks[i%len(networks)]}}}})
				if err != nil {
					t.Error(err)
				}
				sent := time.Now()
				for {
					r := httptest.NewRequest(http.MethodPost, "/compute/v2.1/servers", bytes.NewReader(body))
					r.Header.Set("X-Auth-Token", projects[i%len(projects)])
					r.Header.Set("OpenStack-API-Version", "compute 2.90")
					w := httptest.NewRecorder()
					front.ServeHTTP(w, r)
					if w.Code == http.StatusServiceUnavailable && time.Since(sent) < time.Minute {
						continue // as clients do
					}
					if w.Code != http.StatusAccepted {
						t.Errorf("server %d: %d %s", i, w.Code, w.Body)
					}
					break
				}
				mu.Lock()
				late = append(late, time.Since(sent))
				mu.Unlock()
			}
		})
	}
	for i := range servers {
		next <- i
	}
	close(next)
	clients.Wait()
	accepted := time.Since(began)
	c.until(10*time.Minute, func() string {
		if n := store.Servers.Count(c.st.Snapshot(), "phase", string(model.PhaseReady)); n < servers {
			return c.unready(servers)
		}
		return ""
	})
	all := time.Since(began)
	rate := float64(servers) / all.Seconds()
	t.Logf("%d servers on %d hosts: accepted in %s (p50 %s, p99 %s a request, 32 at a time), all ACTIVE after %s: %.0f boots/s", servers, hosts,
		accepted.Round(time.Millisecond), q(late, 50), q(late, 99), all.Round(time.Millisecond), rate)
	c.calm()

	// A choice of a host, as the controller makes it: on the state as it is, for a server of its own.
	var pools, places []time.Duration
	s := &model.Server{Flavor: model.Flavor{VCPUs: 1, MemoryMiB: 64, DiskGiB: 1}}
	for range 20 {
		snap, at := c.st.Snapshot(), time.Now()
		pool := c.compute.Pool(snap)
		pools = append(pools, time.Since(at))
		for range 50 {
			at := time.Now()
			req := compute.RequestOf(snap, s)
			h, err := pool.Place(req)
			if err != nil {
				t.Fatal(err)
			}
			pool.Take(h.ID, req)
			places = append(places, time.Since(at))
		}
	}
	t.Logf("placement among %d hosts with %d servers: p50 %s, p99 %s a server; a look at all hosts, once a pass: p50 %s, p99 %s", hosts, servers,
		q(places, 50), q(places, 99), q(pools, 50), q(pools, 99))

	var lists []time.Duration
	for range 10 {
		at := time.Now()
		r := httptest.NewRequest(http.MethodGet, "/compute/v2.1/servers/detail?all_tenants=1&limit=1000", nil)
		r.Header.Set("X-Auth-Token", administrator)
		w := httptest.NewRecorder()
		front.ServeHTTP(w, r)
		lists = append(lists, time.Since(at))
		var got struct{ Servers []json.RawMessage }
		if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || len(got.Servers) != min(1000, servers) {
			t.Fatalf("a list of %d servers, %v", len(got.Servers), err)
		}
	}
	t.Logf("a list of %d servers with details: p50 %s, p99 %s", min(1000, servers), q(lists, 50), q(lists, 99))
	rss, peak := memory(t)
	t.Logf("memory of the server with its etcd: %d MiB, at most %d MiB", rss>>20, peak>>20)

	if r := (&check.Checker{Store: c.st, Ratios: c.compute.Ratios()}).Rows(c.st.Snapshot()); len(r.Findings) != 0 {
		t.Errorf("%d findings, the first: %v", len(r.Findings), r.Findings[0])
	}
	percent := 50 // on a machine that others may keep busy
	if *full {
		percent = 99
	}
	if p := q(places, percent); p > 10*time.Millisecond {
		t.Errorf("placement takes %s at p%d", p, percent)
	}
	if *full && rate < 100 {
		t.Errorf("%.0f boots/s", rate)
	}
	if p := q(lists, 50); *full && p > 100*time.Millisecond {
		t.Errorf("a list of 1,000 servers takes %s", p)
	}
	if rss > 2<<30 {
		t.Errorf("the server takes %d MiB", rss>>20)
	}
}

// unready tells which phases servers are in, and all of one that is not ready.
func (c *cloud) unready(servers int) string {
	phases := map[model.Phase]int{}
	var one *model.Server
	for s := range store.Servers.All(c.st.Snapshot()) {
		if phases[s.Status.Phase]++; s.Status.Phase != model.PhaseReady {
			one = s
		}
	}
	text, err := json.Marshal(one)
	if err != nil {
		c.t.Fatal(err)
	}
	return fmt.Sprintf("of %d servers there are %v; one is %s", servers, phases, text)
}

// compose serves the Compute API, and runs the controllers.
func (c *cloud) compose(controllers ...reconcile.Controller) *api.Front {
	c.t.Helper()
	quiet := slog.New(slog.DiscardHandler)
	blobs, err := files.New(files.Config{Dir: folder(c.t, *state)})
	if err != nil {
		c.t.Fatal(err)
	}
	front, err := api.New(api.Config{Store: c.st, Auth: member{}, Log: quiet, Services: []api.Service{
		nova.New(nova.Config{Compute: c.compute, Network: c.net, Images: images.New(images.Config{Store: c.st, Blobs: blobs, Log: quiet})}),
	}})
	if err != nil {
		c.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for _, ctl := range controllers {
		wg.Go(func() { reconcile.Run(ctx, reconcile.Config{Store: c.st, Identity: "scale", Log: quiet}, ctl) })
	}
	c.t.Cleanup(func() { cancel(); wg.Wait() })
	return front
}

// until waits until ask says "".
func (c *cloud) until(limit time.Duration, ask func() string) {
	c.t.Helper()
	end := time.After(limit)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		said := ask()
		if said == "" {
			return
		}
		select {
		case <-tick.C:
		case <-end:
			c.t.Fatalf("after %s: %s", limit, said)
		}
	}
}

// furnish makes an image, a flavor, and projects with a network each.
func (c *cloud) furnish(tenants int) (img model.ID, projects []string, networks []model.ID) {
	c.t.Helper()
	sum := sha512.Sum512(image)
	row := &model.Image{Meta: model.NewMeta("admin", "mini", c.now), Status: model.ImageActive, Visibility: model.VisibilityPublic, DiskFormat: "raw", ContainerFormat: "bare",
		Size: int64(len(image)), VirtualSize: int64(len(image)), BlobID: model.NewID(), HashAlgo: "sha512", HashValue: hex.EncodeToString(sum[:])}
	c.update(func(tx *store.Tx) error {
		if _, err := c.compute.CreateFlavor(tx, model.Flavor{ID: "1", Name: "tiny", VCPUs: 1, MemoryMiB: 64, DiskGiB: 1, Public: true, RxTxFactor: 1}); err != nil {
			return err
		}
		return store.Images.Put(tx, row)
	})
	for i := range tenants {
		project := fmt.Sprintf("%032x", i+1)
		var n *model.Network
		c.update(func(tx *store.Tx) (err error) {
			name, up := fmt.Sprint("net-", i), true
			for _, quota := range []*model.Quota{
				{Service: "compute", ProjectID: project, Limits: map[string]int{"instances": -1, "cores": -1, "ram": -1}},
				{Service: "network", ProjectID: project, Limits: map[string]int{network.QuotaPort: -1}},
			} {
				if err := store.Quotas.Put(tx, quota); err != nil {
					return err
				}
			}
			sc := network.Scope{ProjectID: project}
			if n, err = c.net.CreateNetwork(tx, sc, network.NetworkSpec{Name: &name, AdminStateUp: &up}); err != nil {
				return err
			}
			_, err = c.net.CreateSubnet(tx, sc, network.SubnetSpec{NetworkID: n.ID, CIDR: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i), 0, 0}), 24)})
			return err
		})
		projects, networks = append(projects, project), append(networks, n.ID)
	}
	return row.ID, projects, networks
}
