package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"yakumo/block"
	"yakumo/channel"
	"yakumo/datapath"
	"yakumo/hypervisor"
	"yakumo/link"
	"yakumo/model"
)

// Link is what the agent needs of its stream to the servers; *link.Client is one.
type Link interface {
	Run(ctx context.Context) error
	Connected() bool
	// Heard gives the last moment at which the cloud certainly knew this host to be there; see link.Client.
	Heard() time.Duration
	Report(servers []model.ServerReport, ports []model.PortReport)
	FactsChanged()
	// Certificates are the host's, for its calls to other hosts.
	channel.Credentials
	// Blob opens an image's bytes from offset on; see link.Client.
	Blob(ctx context.Context, id model.ID, offset int64) (io.ReadCloser, error)
	// Upload sends size bytes to be kept by the servers; see link.Client.
	Upload(ctx context.Context, kind string, id model.ID, size int64, r io.Reader) error
	ReportVolumes(volumes []model.VolumeReport)
}

// Taps makes the host's network devices. Names are those of tapName.
type Taps interface {
	Devices
	// MTU is that of the device that holds addr, in bytes.
	MTU(ctx context.Context, addr netip.Addr) (int, error)
}

// Devices are the part of Taps that is another for each kind of guests.
type Devices interface {
	// Ensure makes a persistent tap device of this name that is up and has this MTU in bytes.
	Ensure(ctx context.Context, name string, mtu int) error
	// Remove deletes a tap device; absent is success.
	Remove(ctx context.Context, name string) error
	// List gives the tap devices whose names begin with prefix.
	List(ctx context.Context, prefix string) ([]string, error)
}

// DiskMaker makes guests' disks.
type DiskMaker interface {
	// Format is of the disks that Overlay makes: "qcow2" or "raw".
	Format() string
	// Overlay makes a disk at path, which must not exist, of size bytes that holds what the file base of the given format ("raw" or
	// "qcow2") does. A copy-on-write disk refers to base.
	Overlay(ctx context.Context, path, base, format string, size int64) error
	// Flatten makes a qcow2 at path, which must not exist, of what the qcow2 from holds, with its backing files' part;
	// nobody writes to from meanwhile.
	Flatten(ctx context.Context, path, from string) error
	// Blank makes a raw disk at path, which must not exist, of size bytes with an empty file system.
	Blank(ctx context.Context, path string, size int64) error
	// Empty makes a disk at path, which must not exist, of size bytes with nothing on it.
	Empty(ctx context.Context, path, format string, size int64) error
	// Rebase has an overlay (qcow2) be one of the file base of the given format, which holds the same as its base so far.
	Rebase(ctx context.Context, path, base, format string) error
	// Resize makes a disk that nobody uses size bytes long, which must not be less than it is.
	Resize(ctx context.Context, path, format string, size int64) error
	// Size gives the size of a disk in bytes, as a guest sees it, also of one that is in use.
	Size(ctx context.Context, path, format string) (int64, error)
}

// Config makes an Agent. Dir, Link, Hypervisor, Datapath, Taps, TunnelIP and HostName have no default.
type Config struct {
	Dir        string                       // state directory, absolute
	Link       func(h link.Handler) Link    // the stream to the servers that calls h
	Hypervisor hypervisor.Driver            //
	Datapath   datapath.Driver              // its Notify should call Agent.Notice
	Taps       Taps                         //
	Disks      DiskMaker                    // default QemuImg
	TunnelIP   netip.Addr                   // this host's address on the underlay
	Providers  map[string]string            // the provider bridge for each physical network
	Bandwidth  map[string]int               // what may be promised; see model.Host
	HostName   string                       // unique in the cloud
	Zone       string                       // availability zone
	Version    string                       // of the agent
	Metadata   netip.AddrPort               // where the data path sends guests' requests to the metadata service; invalid: no service
	Listen     func() (net.Listener, error) // opens Metadata; default: a TCP listener that needs no device to hold the address yet
	Metadata6  netip.AddrPort               // the same by IPv6; a host without IPv6 does without
	DNS        netip.AddrPort               // where the data path sends guests' questions for names; invalid: no resolver
	DNS6       netip.AddrPort               // the same by IPv6; a host without IPv6 does without
	Resolvers  []string                     // who is asked for names that are not of guests: host or host:port; none: those of /etc/resolv.conf; "none": nobody
	Channel    netip.AddrPort               // where other hosts' agents reach this one; invalid: nowhere, so that no guest moves here or away
	Peers      func() (net.Listener, error) // opens Channel; default: a TCP listener
	PostCopy   bool                         // a guest that is hurried may run elsewhere before its memory is there: a break is its end then
	KeepPace   bool                         // a guest is not slowed down that changes its memory faster than it can be copied
	Emulator   string                       // absolute path of the program that runs guests; empty: the hypervisor's own choice
	Dedicated  []int                        // CPUs of the host, by Linux's numbers, that are for guests that have CPUs for themselves; others run on the rest. None: all run on any, and there are no such guests
	Engines    map[string]block.Engine      // what volumes are kept by; see model.EngineLocal
	Relay      block.Relay                  // opens local volumes of other hosts; nil: guests here can have none
	Run        string                       // folder for sockets of volumes that other hosts serve, absolute and short; default Dir/run
	Metrics    prometheus.Registerer        // nil: none
	Log        *slog.Logger                 // default slog.Default
	BootID     string                       // of the host's kernel; default /proc/sys/kernel/random/boot_id
	Now        func() time.Time             // default time.Now
	Keeper     func() error                 // starts a process that runs KeepLeases on Dir and outlives this one; nil: none
	NoDisplay  bool                         // guests have no screens
	Boots      int                          // guests that may be started, and images fetched, at once; default 4
	Grace      time.Duration                // how long a guest may take to shut down by itself; default 60 s
	Resync     time.Duration                // how often the world is compared with the rows; default 5 s
	Repeat     Repeat                       // pauses after failures
	Cache      CacheConfig                  // of images
	Quarantine time.Duration                // how long what no row names, and nobody ordered to go, is kept aside; 0: not at all

	Clock func() time.Duration                                    // of leases, and the link's; default link.SinceBoot
	Reach func(context.Context, netip.AddrPort) (net.Conn, error) // connects to another host's Channel; default TCP
	Keep  func() error                                            // asked before the ledger is written, which its error keeps from being; nil: nobody
}

// Repeat says how often what failed is tried again.
type Repeat struct {
	Min, Max time.Duration // pauses after the first failure and at most; default 200 ms and 5 s
	Limit    int           // tries of what should not fail before the server is put in error; default 5
}

// CacheConfig bounds the cache of images.
type CacheConfig struct {
	Age     time.Duration // an image that no guest uses goes after this time; default 24 h
	Reserve float64       // and at once while less than this part of the disk is free; default 0.1
	Stall   time.Duration // a download without a byte for so long is begun again; default 30 s
}

func (c *Config) defaults() error {
	switch {
	case !filepath.IsAbs(c.Dir):
		return fmt.Errorf("the state directory %q is not absolute", c.Dir)
	case c.Link == nil || c.Hypervisor == nil || c.Datapath == nil || c.Taps == nil:
		return errors.New("a link, a hypervisor, a data path and taps are needed")
	case !c.TunnelIP.IsValid():
		return errors.New("the tunnel address is not set")
	case c.HostName == "":
		return errors.New("the host has no name")
	}
	set(&c.Log, slog.Default())
	set(&c.Boots, 4)
	set(&c.Grace, time.Minute)
	set(&c.Resync, 5*time.Second)
	set(&c.Repeat.Min, 200*time.Millisecond)
	set(&c.Repeat.Max, 5*time.Second)
	set(&c.Repeat.Limit, 5)
	set(&c.Cache.Age, 24*time.Hour)
	set(&c.Cache.Reserve, 0.1)
	set(&c.Cache.Stall, 30*time.Second)
	if c.Disks == nil {
		c.Disks = QemuImg{}
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Clock == nil {
		c.Clock = link.SinceBoot
	}
	if c.Listen == nil {
		at := c.Metadata
		c.Listen = func() (net.Listener, error) { return listenFree(at) }
	}
	if c.Peers == nil {
		at := c.Channel
		c.Peers = func() (net.Listener, error) { return net.Listen("tcp", at.String()) }
	}
	set(&c.Run, filepath.Join(c.Dir, "run"))
	if c.BootID == "" {
		b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
		if err != nil {
			return fmt.Errorf("read the boot id: %w", err)
		}
		c.BootID = strings.TrimSpace(string(b))
	}
	return nil
}

func set[T comparable](p *T, v T) {
	var zero T
	if *p == zero {
		*p = v
	}
}

// Agent is the host process. New makes one; Run runs it.
type Agent struct {
	cfg      Config
	log      *slog.Logger
	started  time.Time
	link     Link
	channel  *channel.Server // answers other hosts
	dialer   *channel.Dialer // calls them
	ledger   *ledger
	images   *imageCache
	guests   *observer
	ports    *wirer
	captures *captures
	volumes  volumes
	moves    *mover
	leases   *leases
	cpus     *cpus
	keeper   *volumeKeeper // what volumes is, but in tests of guests

	quarantine *quarantine
	queue      *queue
	uploads    *queue // of servers with copies to be sent
	thaws      *queue // of servers that an earlier agent may have left frozen
	meta       *metadataService
	serials    *serials
	names      *names
	dns        *dnsService
	metrics    *metrics
	repeat     atomic.Bool   // all reports are to be sent once more
	boots      chan struct{} // holds one value for each guest that is being started
	copying    chan struct{} // holds one value for each disk that is being copied

	telling sync.Mutex // held from the making of a report until the link has it; before mu

	mu    sync.Mutex
	tries map[model.ID]*try // servers that failed lately
	// copied are the tenths of volumes that go elsewhere, as told last.
	copied map[model.ID]int
	saves  map[model.ID]int // images whose making has failed so often
	// quiescing counts the copies under way for which a guest may be asked to stand still.
	quiescing map[model.ID]int
	sent      map[model.ID]model.ServerReport // newest report of each server
	facts     model.Host                      // as last told
}

// New opens the state directory. Another agent on the same directory is an error.
func New(cfg Config) (*Agent, error) {
	if err := cfg.defaults(); err != nil {
		return nil, fmt.Errorf("agent: %w", err)
	}
	for _, d := range []string{cfg.Dir, filepath.Join(cfg.Dir, "images"), filepath.Join(cfg.Dir, "servers"), filepath.Join(cfg.Dir, "volumes"), cfg.Run} {
		// The hypervisor's user goes through, and sees no list.
		if err := os.MkdirAll(d, 0o711); err != nil {
			return nil, fmt.Errorf("agent: %w", err)
		}
	}
	l, err := openLedger(filepath.Join(cfg.Dir, "ledger.db"))
	if err != nil {
		return nil, fmt.Errorf("agent: %w", err)
	}
	l.keep = cfg.Keep
	a := &Agent{
		cfg: cfg, log: cfg.Log, started: cfg.Now().UTC(), ledger: l, boots: make(chan struct{}, cfg.Boots), copying: make(chan struct{}, copiesAtOnce),
		tries: map[model.ID]*try{}, copied: map[model.ID]int{}, saves: map[model.ID]int{}, quiescing: map[model.ID]int{}, sent: map[model.ID]model.ServerReport{},
	}
	a.link = cfg.Link(a)
	a.channel = channel.NewServer(channel.ServerConfig{Credentials: a.link, Log: cfg.Log})
	a.dialer = &channel.Dialer{Credentials: a.link, Reach: cfg.Reach}
	if a.leases, err = newLeases(a); err != nil {
		return nil, errors.Join(fmt.Errorf("agent: %w", err), l.close())
	}
	a.cpus = &cpus{a: a}
	a.images = newImageCache(a)
	a.guests = newObserver(a)
	a.ports = newWirer(a)
	a.captures = newCaptures(a)
	a.moves = newMover(a)
	a.quarantine = newQuarantine(a)
	a.keeper = newVolumeKeeper(a)
	a.volumes = a.keeper
	a.meta = newMetadataService(a)
	a.serials = newSerials(a)
	a.names = newNames()
	for _, row := range l.all() {
		a.names.look(row.RowID(), row)
	}
	a.dns = newDNSService(a)
	a.queue = newQueue(a.reconcile)
	a.uploads = newQueue(a.upload)
	a.thaws = newQueue(a.thaw)
	a.metrics = newMetrics(a)
	if cfg.Metrics != nil {
		if err := cfg.Metrics.Register(a.metrics); err != nil {
			return nil, errors.Join(fmt.Errorf("agent: %w", err), l.close())
		}
	}
	return a, nil
}

// Run works until ctx ends, and closes the state directory. Guests, flows and taps stay.
func (a *Agent) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	if a.cfg.Metadata.IsValid() {
		// Guests must find it from their first packet on.
		ln, err := a.cfg.Listen()
		if err != nil {
			cancel()
			return errors.Join(fmt.Errorf("metadata service: %w", err), a.close())
		}
		wg.Go(func() { a.meta.serve(ctx, ln) })
	}
	if a.cfg.Metadata6.IsValid() {
		if ln, err := listenFree(a.cfg.Metadata6); err != nil {
			a.log.Warn("no metadata service by IPv6", "err", err)
		} else {
			wg.Go(func() { a.meta.serve(ctx, ln) })
		}
	}
	if a.cfg.DNS6.IsValid() {
		if pc, ln, err := listenDNS(a.cfg.DNS6); err != nil {
			a.log.Warn("no resolver for guests by IPv6", "err", err)
		} else {
			wg.Go(func() { a.dns.serve(ctx, pc, ln) })
		}
	}
	if a.cfg.DNS.IsValid() {
		pc, ln, err := listenDNS(a.cfg.DNS)
		if err != nil {
			cancel()
			wg.Wait()
			return errors.Join(fmt.Errorf("resolver for guests: %w", err), a.close())
		}
		wg.Go(func() { a.dns.serve(ctx, pc, ln) })
	}
	if a.cfg.Channel.IsValid() {
		ln, err := a.cfg.Peers()
		if err != nil {
			cancel()
			wg.Wait()
			return errors.Join(fmt.Errorf("channel for other hosts: %w", err), a.close())
		}
		wg.Go(func() {
			if err := a.channel.Serve(ctx, ln); ctx.Err() == nil {
				a.log.Error("other hosts are not answered any more", "err", err)
			}
		})
	}
	a.moves.ctx = ctx
	a.queue.open(ctx)
	a.uploads.open(ctx)
	a.thaws.open(ctx)
	wg.Go(func() { a.keeper.run(ctx) })
	wg.Go(func() { a.guests.run(ctx) })
	wg.Go(func() { a.leases.run(ctx) })
	wg.Go(func() { a.ports.run(ctx) })
	wg.Go(func() { a.images.run(ctx) })
	wg.Go(func() { a.tellFacts(ctx) })
	wg.Go(func() { a.resync(ctx) })
	err := a.link.Run(ctx)
	if ctx.Err() == nil {
		a.log.Error("the link ended by itself; the host goes on with what it knows", "err", err)
	}
	<-ctx.Done()
	cancel()
	wg.Wait()
	a.queue.close()
	a.uploads.close()
	a.thaws.close()
	a.moves.close()
	a.captures.close()
	a.images.close()
	return a.close()
}

func (a *Agent) close() error {
	if a.cfg.Metrics != nil {
		a.cfg.Metrics.Unregister(a.metrics)
	}
	return a.ledger.close()
}

// resync looks at everything now and then, whatever was told.
func (a *Agent) resync(ctx context.Context) {
	tick := time.NewTicker(a.cfg.Resync)
	defer tick.Stop()
	for {
		if a.repeat.Swap(false) {
			a.telling.Lock()
			a.link.Report(a.allReports())
			a.telling.Unlock()
		}
		for id := range a.known() {
			a.queue.add(id)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// known gives every server that there may be something to do for: those with rows, those
// with progress, and guests and folders that nobody wants any more.
func (a *Agent) known() map[model.ID]bool {
	ids := a.ledger.servers()
	if a.ledger.Generation() == 0 {
		return ids // nothing has been told yet: what is here may well be wanted
	}
	for _, id := range a.guests.ids() {
		ids[id] = true
	}
	dirs, err := os.ReadDir(filepath.Join(a.cfg.Dir, "servers"))
	if err != nil {
		a.log.Error("guests' folders cannot be listed", "err", err)
	}
	for _, d := range dirs {
		ids[d.Name()] = true
	}
	return ids
}

// Notice takes events of the data path. It returns soon: the first sign of life of a guest
// is put on disk, the rest is left to the loops.
func (a *Agent) Notice(e datapath.Event) {
	if e.Kind != datapath.Asked {
		a.ports.notice(e)
		return
	}
	if port := a.ledger.port(e.Port); port != nil {
		a.alive(port.DeviceID)
	}
}

func (a *Agent) dir(server model.ID) string { return filepath.Join(a.cfg.Dir, "servers", server) }
