package agent

import (
	"bytes"
	"context"
	"crypto/sha512"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"yakumo/channel"
	"yakumo/datapath"
	dpfake "yakumo/datapath/fake"

	"yakumo/fault"
	"yakumo/hypervisor"
	"yakumo/hypervisor/fake"
	"yakumo/link"
	"yakumo/model"
)

// patience bounds every wait of these tests.
const patience = 120 * time.Second

// waitFor waits until ok.
func waitFor(t worldT, what string, ok func() bool) {
	t.Helper()
	end := time.Now().Add(patience)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Now().After(end) {
			t.Fatalf("waited too long for %s", what)
		}
		<-tick.C
	}
}

// quiet logs warnings to the test.
func quiet(t testing.TB) *slog.Logger {
	w := &testLog{t: t}
	t.Cleanup(func() { w.mu.Lock(); defer w.mu.Unlock(); w.t = nil })
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelWarn}))
}

type testLog struct {
	mu sync.Mutex
	t  testing.TB
}

func (w *testLog) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.t != nil {
		w.t.Logf("%s", strings.TrimRight(string(b), "\n"))
	}
	return len(b), nil
}

// serverSide plays the servers: it is the agent's Link, keeps the newest reports, and has
// images' bytes.
type serverSide struct {
	mu                  sync.Mutex
	h                   link.Handler
	down                bool
	heard               atomic.Int64
	servers             map[model.ID]model.ServerReport
	phases              map[model.ID][]model.Phase // of each server, as they changed
	ports               map[model.ID]model.PortReport
	blobs               map[model.ID][]byte
	cut                 map[model.ID]int // a stream of the blob ends after so many bytes
	reads               []int64          // offsets asked for
	factsNew            int
	uploads             map[string]string // by kind and id
	refuse              map[model.ID]error
	sends               int
	volumes             volumeSide
	channel.Credentials // nil: the host is alone
}

func newServerSide() *serverSide {
	return &serverSide{
		servers: map[model.ID]model.ServerReport{}, ports: map[model.ID]model.PortReport{}, blobs: map[model.ID][]byte{},
		phases: map[model.ID][]model.Phase{}, cut: map[model.ID]int{}, uploads: map[string]string{}, refuse: map[model.ID]error{},
	}
}

func (s *serverSide) attach(h link.Handler) Link {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.h = h
	return s
}

func (s *serverSide) apply(t worldT, b model.HostBatch) {
	t.Helper()
	s.mu.Lock()
	h := s.h
	s.mu.Unlock()
	if err := h.Apply(context.Background(), b); err != nil {
		t.Fatalf("batch of generation %d: %v", b.Generation, err)
	}
}

func (s *serverSide) Run(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

func (s *serverSide) Heard() time.Duration { return time.Duration(s.heard.Load()) }

func (s *serverSide) Connected() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.down
}

func (s *serverSide) Report(servers []model.ServerReport, ports []model.PortReport) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range servers {
		if old, ok := s.servers[r.ServerID]; !ok || old.Phase != r.Phase {
			s.phases[r.ServerID] = append(s.phases[r.ServerID], r.Phase)
		}
		s.servers[r.ServerID] = r
	}
	for _, r := range ports {
		s.ports[r.PortID] = r
	}
}

func (s *serverSide) FactsChanged() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.factsNew++
}

func (s *serverSide) server(id model.ID) model.ServerReport {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.servers[id]
}

func (s *serverSide) port(id model.ID) model.PortReport {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ports[id]
}

func (s *serverSide) Blob(ctx context.Context, id model.ID, offset int64) (io.ReadCloser, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.down {
		return nil, fault.New(fault.Unavailable, "The image cannot be fetched now.")
	}
	s.reads = append(s.reads, offset)
	data, ok := s.blobs[id]
	if !ok {
		return nil, fault.New(fault.NotFound, "The image's data is gone.")
	}
	data = data[min(offset, int64(len(data))):]
	if n, ok := s.cut[id]; ok {
		delete(s.cut, id)
		data = data[:min(n, len(data))]
	}
	return io.NopCloser(bytes.NewReader(data)), nil
}

// Upload keeps what is sent, but for what refuses says.
func (s *serverSide) Upload(_ context.Context, kind string, id model.ID, size int64, r io.Reader) error {
	b, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sends++
	switch {
	case s.down:
		return fault.New(fault.Unavailable, "The servers cannot take an upload now.")
	case s.refuse[id] != nil:
		return s.refuse[id]
	case int64(len(b)) != size:
		return fault.New(fault.Invalid, "The upload has %d bytes of %d.", len(b), size)
	}
	s.uploads[kind+"/"+id] = string(b)
	return nil
}

func (s *serverSide) uploaded(image model.ID) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.uploads[link.UploadImage+"/"+image]
}

// world is what outlives an agent: a host that runs nothing, its switch and its taps.
type world struct {
	dir  string
	host *fake.Host
	sw   *dpfake.Switch
	ord  datapath.Ordinals
	side *serverSide
	taps *fakeTaps
	boot string // the host's boot id
	made atomic.Int64
	// prepare, where not nil, changes an agent before it runs.
	prepare func(*Agent)
}

// worldT is a *testing.T or a *rapid.T.
type worldT interface {
	Helper()
	Fatal(args ...any)
	Fatalf(format string, args ...any)
}

func newWorld(dir string, cfg fake.HostConfig) *world {
	sw := dpfake.NewSwitch(dpfake.NewUnderlay(), netip.MustParseAddr("192.0.2.1"))
	return &world{
		dir: dir, host: fake.NewHost(cfg), sw: sw, ord: datapath.NewMemoryOrdinals(), side: newServerSide(),
		taps: &fakeTaps{sw: sw, taps: map[string]int{}}, boot: "boot-1",
	}
}

// fakeTaps are taps in a fake switch.
type fakeTaps struct {
	sw   *dpfake.Switch
	mu   sync.Mutex
	taps map[string]int // MTU
}

func (f *fakeTaps) Ensure(_ context.Context, name string, mtu int) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, ok := f.taps[name]; !ok {
		f.sw.AddDevice(name, func([]byte) {})
	}
	f.taps[name] = mtu
	return nil
}

func (f *fakeTaps) Remove(_ context.Context, name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.taps, name)
	return nil
}

func (f *fakeTaps) List(_ context.Context, prefix string) (names []string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for n := range f.taps {
		if strings.HasPrefix(n, prefix) {
			names = append(names, n)
		}
	}
	return names, nil
}

func (f *fakeTaps) MTU(context.Context, netip.Addr) (int, error) { return 1500, nil }

func (f *fakeTaps) mtu(name string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.taps[name]
}

// Overlay implements DiskMaker: the file says what it would be.
// Format implements DiskMaker.
func (w *world) Format() string { return "qcow2" }

func (w *world) Overlay(_ context.Context, path, base, format string, size int64) error {
	w.made.Add(1)
	data, err := os.ReadFile(base)
	if err != nil {
		return err
	}
	return os.WriteFile(path, fmt.Appendf(nil, "%s %d over %s", format, size, data), 0o600)
}

// Flatten implements DiskMaker.
func (w *world) Flatten(_ context.Context, path, from string) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(path, append([]byte("flat "), data...), 0o600)
}

// Blank implements DiskMaker.
func (w *world) Blank(_ context.Context, path string, size int64) error {
	w.made.Add(1)
	return sparse(path, size)
}

// Empty implements DiskMaker.
func (w *world) Empty(_ context.Context, path, _ string, size int64) error { return sparse(path, size) }

// Rebase implements DiskMaker.
func (w *world) Rebase(_ context.Context, path, base, _ string) error {
	_, err := os.Stat(base)
	if err == nil {
		_, err = os.Stat(path)
	}
	return err
}

// Resize implements DiskMaker: the file says so behind what it says.
func (w *world) Resize(_ context.Context, path, _ string, size int64) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	data, _, _ = bytes.Cut(data, []byte("\nresized "))
	return os.WriteFile(path, fmt.Appendf(data, "\nresized %d", size), 0o600)
}

// Size implements DiskMaker.
func (w *world) Size(_ context.Context, path, _ string) (int64, error) {
	info, err := os.Stat(path)
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// running is one life of an agent.
type running struct {
	*Agent
	cancel context.CancelFunc
	ended  chan error
	dp     datapath.Driver
}

// start starts an agent; change may wrap what it is given.
func (w *world) start(t worldT, change func(*Config)) *running {
	t.Helper()
	dp, err := dpfake.New(dpfake.Config{Switch: w.sw, Ordinals: w.ord})
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{
		Dir: w.dir, Link: w.side.attach, Hypervisor: fake.New(fake.Config{Host: w.host}), Datapath: dp, Taps: w.taps, Disks: w,
		TunnelIP: netip.MustParseAddr("192.0.2.1"), HostName: "h1", Zone: "nova", Version: "test", BootID: w.boot,
		Log: slog.New(slog.DiscardHandler), Resync: 50 * time.Millisecond, Grace: 200 * time.Millisecond,
		Repeat: Repeat{Min: time.Millisecond, Max: 20 * time.Millisecond, Limit: 3},
		Cache:  CacheConfig{Reserve: 1e-9}, // however full this machine's disk is
	}
	if change != nil {
		change(&cfg)
	}
	a, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if w.prepare != nil {
		w.prepare(a)
	}
	r := &running{Agent: a, ended: make(chan error, 1), dp: dp}
	var ctx context.Context
	ctx, r.cancel = context.WithCancel(context.Background())
	go func() { r.ended <- a.Run(ctx); close(r.ended) }() // a test that has failed may stop it once more
	return r
}

// stop ends the agent in order.
func (r *running) stop(t worldT) {
	t.Helper()
	r.cancel()
	if err := <-r.ended; err != nil {
		t.Fatalf("the agent ended: %v", err)
	}
	if err := r.dp.Close(); err != nil {
		t.Fatalf("close the data path: %v", err)
	}
}

// startFor is start, and stop with the test.
func (w *world) startFor(t testing.TB) *running {
	t.Helper()
	r := w.start(t, nil)
	t.Cleanup(func() { r.stop(t) })
	return r
}

// power is what the fake host runs.
func (w *world) power(t worldT, id model.ID) hypervisor.Power {
	t.Helper()
	list, err := fake.New(fake.Config{Host: w.host}).List(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range list {
		if s.ID == id {
			return s.Power
		}
	}
	return hypervisor.Absent
}

// addImage makes one more image.
func (w *world) addImage(text string) model.ImageCopy {
	sum := sha512.Sum512([]byte(text))
	img := model.ImageCopy{
		ImageID: model.NewID(), BlobID: model.NewID(), Format: "raw", Size: int64(len(text)), VirtualSize: int64(len(text)),
		HashAlgo: "sha512", HashValue: hex.EncodeToString(sum[:]),
	}
	w.side.mu.Lock()
	defer w.side.mu.Unlock()
	w.side.blobs[img.BlobID] = []byte(text)
	return img
}

// cloud makes rows of one network with a group.
type cloud struct {
	network *model.HostNetwork
	group   *model.HostGroup
	image   model.ImageCopy
	next    byte
}

func newCloud(side *serverSide) *cloud {
	data := []byte(strings.Repeat("bytes of an image ", 1000))
	sum := sha512.Sum512(data)
	c := &cloud{
		network: &model.HostNetwork{ID: model.NewID(), VNI: 5, MTU: 1450, DNSDomain: "example.org.", Subnets: []model.HostSubnet{{
			ID: model.NewID(), CIDR: netip.MustParsePrefix("10.0.0.0/24"), Gateway: netip.MustParseAddr("10.0.0.1"), DHCP: true,
			DNS: []netip.Addr{netip.MustParseAddr("10.0.0.2")},
		}}},
		group: &model.HostGroup{ID: model.NewID(), Stateful: true},
		image: model.ImageCopy{
			ImageID: model.NewID(), BlobID: model.NewID(), Format: "raw", Size: int64(len(data)), VirtualSize: int64(len(data)),
			HashAlgo: "sha512", HashValue: hex.EncodeToString(sum[:]),
		},
	}
	side.mu.Lock()
	defer side.mu.Unlock()
	side.blobs[c.image.BlobID] = data
	return c
}

// base are the rows that every server of the cloud needs.
func (c *cloud) base() []model.HostRow { return []model.HostRow{c.network, c.group} }

// server makes a server with one port.
func (c *cloud) server() (*model.HostServer, *model.HostPort) {
	c.next++
	s := &model.HostServer{
		ID: model.NewID(), Name: fmt.Sprintf("s%d", c.next), HostName: fmt.Sprintf("s%d", c.next), ProjectID: model.NewHexID(), Zone: "nova",
		FlavorName: "m1.tiny", VCPUs: 1, MemoryMiB: 64, Image: c.image, Power: model.PowerRunning, Generation: 1, Groups: []string{"default"},
	}
	p := &model.HostPort{
		ID: model.NewID(), NetworkID: c.network.ID, VNI: c.network.VNI, MAC: fmt.Sprintf("fa:16:3e:00:00:%02x", c.next), AdminStateUp: true,
		PortSecurity: true, Groups: []model.ID{c.group.ID}, DeviceID: s.ID, Generation: 1,
		FixedIPs: []model.FixedIP{{SubnetID: c.network.Subnets[0].ID, Address: netip.AddrFrom4([4]byte{10, 0, 0, 10 + c.next})}},
	}
	s.NICs = []model.HostNIC{{PortID: p.ID, MAC: p.MAC, MTU: 1450}}
	return s, p
}

// with gives a copy of a server, changed, of the next generation.
func with(s *model.HostServer, change func(*model.HostServer)) *model.HostServer {
	n := *s
	n.Generation++
	change(&n)
	return &n
}
