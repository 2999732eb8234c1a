package scale_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha512"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"yakumo/compute"
	"yakumo/fault"
	"yakumo/hostview"
	"yakumo/link"
	"yakumo/model"
	"yakumo/network"
	"yakumo/store"
	"yakumo/store/embed"
)

// The shape of a tenant: networks that one router joins, each with ports on as many hosts.
const (
	networksEach = 10
	portsEach    = 10 // of a network; each on another host
)

// cloud is the server's half.
type cloud struct {
	t       *testing.T
	st      *store.Store
	views   *hostview.Engine
	hosts   []model.ID
	servers []model.ID // one guest on each host, whose device all ports there are
	tenants []*tenant
	net     *network.Network
	compute *compute.Compute
	macs    uint32
	child   *child
	auth    *link.Authority
	link    *link.Server
	now     time.Time
}

// tenant is a project with its rows.
type tenant struct {
	project  model.ID
	hosts    []int // indexes of hosts, portsEach of them
	networks []model.ID
	subnets  []model.ID
	group    model.ID
	router   model.ID
	rules    []*model.SecurityRule
	ports    []*model.Port
	gateways []*model.Port // the router's interfaces
	ids      []model.ID    // of ports
}

// plainSealer keeps secrets as they are: nobody else reads this store.
type plainSealer struct{}

func (plainSealer) Seal(_ string, secret []byte) []byte            { return secret }
func (plainSealer) Unseal(_ string, sealed []byte) ([]byte, error) { return sealed, nil }

// image is what every guest boots.
var image = bytes.Repeat([]byte("bytes of an image"), 16)

// newCloud starts the server's half without hosts.
func newCloud(t *testing.T) *cloud {
	t.Helper()
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))
	member, err := embed.Start(t.Context(), embed.Config{Dir: filepath.Join(folder(t, *state), "etcd")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(member.Close)
	st, err := store.Open(t.Context(), store.Config{Client: member.Client, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(st.Close)
	net := network.New(network.Config{})
	return &cloud{t: t, st: st, views: hostview.NewEngine(st, log), net: net, compute: compute.New(compute.Config{Store: st, Ports: net, Log: log}), now: time.Now().UTC()}
}

// folder makes a folder that goes with the test.
func folder(t *testing.T, in string) string {
	t.Helper()
	dir, err := os.MkdirTemp(in, "yakumo-scale-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// listen serves hosts, and tells where.
func (c *cloud) listen() string {
	c.t.Helper()
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))
	ctx, cancel := context.WithCancel(context.Background())
	c.t.Cleanup(cancel)
	go c.views.Run(ctx)
	var err error
	if c.auth, err = link.OpenAuthority(ctx, c.st, plainSealer{}, nil); err != nil {
		c.t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		c.t.Fatal(err)
	}
	blob := func(w http.ResponseWriter, r *http.Request, _ string) {
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(image))
	}
	s, err := link.NewServer(link.ServerConfig{Store: c.st, Authority: c.auth, Views: c.views, Sink: c.compute,
		Blob: blob, Identity: "scale", URL: "https://" + l.Addr().String(), HostTTL: 30 * time.Second, Log: log})
	if err != nil {
		c.t.Fatal(err)
	}
	c.link = s
	hs := s.HTTPServer()
	go hs.ServeTLS(l, "", "")
	c.t.Cleanup(func() { s.Close(); hs.Close() })
	return l.Addr().String()
}

// token lets host i join.
func (c *cloud) token(i int) string {
	c.t.Helper()
	tok, err := link.NewJoinToken(c.t.Context(), c.st, c.auth, hostName(i), time.Hour, time.Now())
	if err != nil {
		c.t.Fatal(err)
	}
	return tok
}

// serve serves hosts and starts n of them.
func (c *cloud) serve(n int) {
	c.t.Helper()
	o := order{Server: c.listen(), Dir: folder(c.t, "/dev/shm")}
	for i := range n {
		o.Tokens = append(o.Tokens, c.token(i))
	}
	c.child = startHosts(c.t, o)
	c.meet(n)
	c.inhabit()
}

// meet looks up the hosts that have joined.
func (c *cloud) meet(n int) {
	c.t.Helper()
	for i := range n {
		var h *model.Host
		for r := range store.Hosts.List(c.st.Snapshot(), "name", hostName(i)) {
			h = r
		}
		if h == nil {
			c.t.Fatalf("host %d has not joined", i)
		}
		c.hosts = append(c.hosts, h.ID)
	}
}

// inhabit gives each host a guest.
func (c *cloud) inhabit() {
	c.t.Helper()
	sum := sha512.Sum512(image)
	c.put(len(c.hosts), 100, func(tx *store.Tx, i int) error {
		srv := &model.Server{Meta: model.NewMeta("admin", hostName(i), c.now), Host: c.hosts[i], HostName: hostName(i), Power: model.PowerRunning,
			Flavor: model.Flavor{VCPUs: 1, MemoryMiB: 64},
			Image:  model.ImageCopy{ImageID: "i", BlobID: "b", Format: "raw", Size: int64(len(image)), VirtualSize: int64(len(image)), HashAlgo: "sha512", HashValue: hex.EncodeToString(sum[:])}}
		c.servers = append(c.servers, srv.ID)
		return store.Servers.Put(tx, srv)
	})
}

// put runs f for 0 to n-1, batch of them in a transaction. No other writer may touch the same rows.
func (c *cloud) put(n, batch int, f func(tx *store.Tx, i int) error) {
	c.t.Helper()
	for first := 0; first < n; first += batch {
		kept := len(c.servers)
		c.update(func(tx *store.Tx) error {
			c.servers = c.servers[:kept] // it may run again
			for i := first; i < min(first+batch, n); i++ {
				if err := f(tx, i); err != nil {
					return err
				}
			}
			return nil
		})
	}
}

// update writes, and tries again where the store says so, as clients do: while reports of all
// hosts pour in, a mirror on a busy machine may be late.
func (c *cloud) update(f func(tx *store.Tx) error) {
	c.t.Helper()
	for tries := 1; ; tries++ {
		_, err := c.st.Update(c.t.Context(), f)
		switch {
		case err == nil:
			return
		case !fault.Is(err, fault.Unavailable) || tries == 30:
			c.t.Fatal(err)
		}
		c.t.Logf("try %d: %v", tries, err)
	}
}

// grow adds tenants until there are n.
func (c *cloud) grow(n int) {
	c.t.Helper()
	for len(c.tenants) < n {
		t := c.tenant(len(c.tenants))
		c.update(func(tx *store.Tx) error { return c.rows(tx, t) })
		for _, p := range t.ports {
			t.ids = append(t.ids, p.ID)
		}
		t.ports, t.gateways, t.rules = nil, nil, nil // the store has them: this process's memory is measured
		c.tenants = append(c.tenants, t)
	}
}

// tenant makes the n-th tenant. Its hosts are spread so that every host has as many tenants as others.
func (c *cloud) tenant(n int) *tenant {
	t := &tenant{project: model.NewHexID(), group: model.NewID(), router: model.NewID()}
	for i := range portsEach {
		t.hosts = append(t.hosts, (n+i*max(1, len(c.hosts)/portsEach))%len(c.hosts))
	}
	for range networksEach {
		t.networks, t.subnets = append(t.networks, model.NewID()), append(t.subnets, model.NewID())
	}
	for i, id := range t.networks {
		t.gateways = append(t.gateways, &model.Port{Meta: model.NewMeta(t.project, "", c.now), NetworkID: id, MAC: c.mac(), AdminStateUp: true, DeviceID: t.router,
			DeviceOwner: model.OwnerRouterInterface, FixedIPs: []model.FixedIP{{SubnetID: t.subnets[i], Address: address(i, 1)}}})
	}
	ssh := 22
	t.rules = []*model.SecurityRule{
		{Direction: model.Egress, EtherType: model.IPv4},
		{Direction: model.Ingress, EtherType: model.IPv4, RemoteGroupID: t.group},
		{Direction: model.Ingress, EtherType: model.IPv4, Protocol: "tcp", PortMin: &ssh, PortMax: &ssh},
	}
	for _, r := range t.rules {
		r.Meta, r.GroupID = model.NewMeta(t.project, "", c.now), t.group
	}
	for i := range networksEach * portsEach {
		net, host := i/portsEach, t.hosts[i%portsEach]
		t.ports = append(t.ports, &model.Port{Meta: model.NewMeta(t.project, "", c.now), NetworkID: t.networks[net], MAC: c.mac(), AdminStateUp: true, PortSecurity: true,
			FixedIPs: []model.FixedIP{{SubnetID: t.subnets[net], Address: address(net, 10+i%portsEach)}}, Groups: []model.ID{t.group},
			DeviceID: c.servers[host], DeviceOwner: "compute:nova", VNICType: "normal", Host: c.hosts[host]})
	}
	return t
}

func (c *cloud) mac() string {
	c.macs++
	return fmt.Sprintf("fa:16:3e:%02x:%02x:%02x", byte(c.macs>>16), byte(c.macs>>8), byte(c.macs))
}

func address(net, host int) netip.Addr { return netip.AddrFrom4([4]byte{10, byte(net), 0, byte(host)}) }

// rows puts a tenant's rows: three keys for each port, so that it is one transaction.
func (c *cloud) rows(tx *store.Tx, t *tenant) error {
	meta := func(id model.ID) model.Meta {
		m := model.NewMeta(t.project, "", c.now)
		m.ID = id
		return m
	}
	if err := store.Routers.Put(tx, &model.Router{Meta: meta(t.router), AdminStateUp: true, Distributed: true}); err != nil {
		return err
	}
	for i, id := range t.networks {
		n := uint32(len(c.tenants)*networksEach + i + 1)
		for _, err := range []error{
			store.Networks.Put(tx, &model.Network{Meta: meta(id), AdminStateUp: true, PortSecurity: true, Type: model.NetworkVXLAN, VNI: n, MTU: 1450}),
			store.Subnets.Put(tx, &model.Subnet{Meta: meta(t.subnets[i]), NetworkID: id, IPVersion: 4, CIDR: netip.PrefixFrom(address(i, 0), 24), Gateway: address(i, 1), DHCP: true,
				Pools: []model.AddrRange{{Start: address(i, 2), End: address(i, 254)}}}),
			store.Ports.Put(tx, t.gateways[i]),
		} {
			if err != nil {
				return err
			}
		}
	}
	if err := store.SecurityGroups.Put(tx, &model.SecurityGroup{Meta: meta(t.group), Stateful: true, Default: true}); err != nil {
		return err
	}
	for _, r := range t.rules {
		if err := store.SecurityRules.Put(tx, r); err != nil {
			return err
		}
	}
	for _, p := range t.ports {
		if err := store.Ports.Put(tx, p); err != nil {
			return err
		}
	}
	return store.Quotas.Put(tx, &model.Quota{Service: "network", ProjectID: t.project, Limits: map[string]int{network.QuotaPort: -1}})
}

// wanted is what rows each host must have, counted from the shape alone.
func (c *cloud) wanted() counts {
	out := make(counts, len(c.hosts))
	for i := range out {
		out[i] = map[model.RowKind]int{}
	}
	for _, t := range c.tenants {
		here := map[int]int{}
		all := len(t.ids)
		for i := range t.ids {
			here[t.hosts[i%portsEach]]++
		}
		for h, own := range here {
			for kind, n := range map[model.RowKind]int{model.RowPort: own, model.RowPeer: all - own, model.RowNetwork: networksEach, model.RowRouter: 1, model.RowGroup: 1, model.RowMember: all} {
				out[h][kind] += n
			}
		}
	}
	return out
}

// settled waits until every host has the rows that it must have, and no others.
func (c *cloud) settled(limit time.Duration) {
	c.t.Helper()
	want := c.wanted()
	end := time.After(limit)
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		have := c.child.count(c.t)
		bad := -1
		for i := range want {
			if fmt.Sprint(have[i]) != fmt.Sprint(want[i]) {
				bad = i
			}
		}
		if bad < 0 {
			return
		}
		select {
		case <-tick.C:
		case <-end:
			c.t.Fatalf("after %s host %d has %v, should have %v", limit, bad, have[bad], want[bad])
		}
	}
}

// child is the process that runs the hosts.
type child struct {
	cmd   *exec.Cmd
	in    io.WriteCloser
	said  chan counts
	mu    sync.Mutex
	marks map[uint32]*landing
}

// landing is where and when a numbered change arrived.
type landing struct {
	want int // rows
	got  int
	last time.Time
	all  chan struct{} // closed when got is want
}

func startHosts(t *testing.T, o order) *child {
	t.Helper()
	c := &child{cmd: exec.Command(os.Args[0]), said: make(chan counts, 1), marks: map[uint32]*landing{}}
	c.cmd.Env = append(os.Environ(), hostsVariable+"=1", "GOGC=50")
	c.cmd.Stderr = os.Stderr
	var err error
	if c.in, err = c.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	up, gone := make(chan struct{}), make(chan struct{})
	go c.listen(bufio.NewReaderSize(out, 1<<20), up, gone)
	t.Cleanup(func() {
		c.in.Close()
		select {
		case <-gone:
		case <-time.After(30 * time.Second):
			c.cmd.Process.Kill()
		}
		if err := c.cmd.Wait(); err != nil {
			t.Errorf("hosts: %v", err)
		}
	})
	line, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.in.Write(append(line, '\n')); err != nil {
		t.Fatal(err)
	}
	select {
	case <-up:
	case <-gone:
		t.Fatal("the hosts ended")
	case <-time.After(3 * time.Minute):
		t.Fatal("the hosts have not started")
	}
	return c
}

func (c *child) listen(out *bufio.Reader, up, gone chan struct{}) {
	defer close(gone)
	for {
		line, err := out.ReadString('\n')
		if err != nil {
			return
		}
		f := strings.Fields(line)
		switch f[0] {
		case "up":
			close(up)
		case "c":
			var all counts
			if json.Unmarshal([]byte(strings.TrimPrefix(line, "c ")), &all) == nil {
				c.said <- all
			}
		case "m":
			n, err1 := strconv.ParseUint(f[3], 10, 32)
			at, err2 := strconv.ParseInt(f[4], 10, 64)
			if err1 == nil && err2 == nil {
				c.landed(uint32(n), time.Unix(0, at))
			}
		}
	}
}

func (c *child) landed(n uint32, at time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	l := c.marks[n]
	if l == nil {
		return
	}
	if at.After(l.last) {
		l.last = at
	}
	if l.got++; l.got == l.want {
		close(l.all)
	}
}

// expect prepares for the arrival of change n in so many rows.
func (c *child) expect(n uint32, rows int) *landing {
	c.mu.Lock()
	defer c.mu.Unlock()
	l := &landing{want: rows, all: make(chan struct{})}
	c.marks[n] = l
	return l
}

func (c *child) count(t *testing.T) counts {
	t.Helper()
	if _, err := io.WriteString(c.in, "count\n"); err != nil {
		t.Fatal(err)
	}
	select {
	case all := <-c.said:
		return all
	case <-time.After(time.Minute):
		t.Fatal("the hosts do not answer")
		return nil
	}
}
