package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"yakumo/agent"
	"yakumo/api"
	"yakumo/api/cinder"
	"yakumo/api/console"
	"yakumo/api/ec2"
	"yakumo/api/glance"
	"yakumo/api/keystone"
	"yakumo/api/native"
	"yakumo/api/neutron"
	"yakumo/api/nova"
	"yakumo/check"
	"yakumo/compute"
	"yakumo/datapath"
	"yakumo/datapath/ovs"
	"yakumo/datapath/pipeline"
	"yakumo/hostview"
	"yakumo/hypervisor"
	"yakumo/hypervisor/container"
	"yakumo/hypervisor/libvirt"
	"yakumo/identity"
	"yakumo/images"
	"yakumo/images/files"
	"yakumo/link"
	"yakumo/model"
	"yakumo/network"
	"yakumo/placement"
	"yakumo/reconcile"
	"yakumo/store"
	"yakumo/switches"
	"yakumo/trace"
	"yakumo/volume"
)

// serverParts is what a server is made of.
type serverParts struct {
	cmd     *serverCmd
	store   *store.Store
	master  []byte
	log     *slog.Logger
	metrics *prometheus.Registry
}

// serverRole is a server, wired.
type serverRole struct {
	API  *api.Front
	Link *link.Server
	// Consoles are the WebSockets that the API has let go of.
	Consoles *console.Consoles

	store *store.Store
	loops []func(context.Context)
}

// newServerRole wires a server:
//
//	clients ─▶ api.Front ─▶ keystone, glance, nova, neutron, cinder, console, native ─▶ identity, images, compute, network, volume ─▶ store
//	agents ─▶ link.Server ─▶ hostview (rows down), compute, volume (reports up)
//	controllers (one leader each): placement, volumes, sweeps, gateways, formed addresses
func newServerRole(ctx context.Context, p serverParts) (*serverRole, error) {
	c, st, log := p.cmd, p.store, p.log
	p.metrics.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))

	id, err := identity.New(identity.Config{Store: st, Master: p.master, Log: log})
	if err != nil {
		return nil, fmt.Errorf("identity: %w", err)
	}
	password, err := c.adminPassword()
	if err != nil {
		return nil, err
	}
	if err := id.Bootstrap(ctx, identity.Start{AdminPassword: password, BaseURL: c.PublicURL}); err != nil {
		return nil, fmt.Errorf("identity: %w", err)
	}
	imageDir := c.ImageDir
	if imageDir == "" {
		imageDir = filepath.Join(c.DataDir, "images")
	}
	blobs, err := files.New(files.Config{Dir: imageDir})
	if err != nil {
		return nil, fmt.Errorf("images: %w", err)
	}
	img := images.New(images.Config{Store: st, Blobs: blobs, Log: log})
	net := network.New(network.Config{Log: log, TunnelType: c.TunnelType, PhysicalNetworks: c.PhysicalNetworks})
	vols := volume.New(volume.Config{Store: st, Log: log})
	comp := compute.New(compute.Config{Store: st, Ports: net, Volumes: vols, Images: img, Log: log, Metrics: p.metrics,
		Ratios: placement.Ratios{VCPU: c.CPURatio, Memory: c.MemoryRatio, Disk: c.DiskRatio}, ConsoleTTL: c.ConsoleTTL, KeepUsage: c.KeepUsage, Seal: id.Seal})
	if err := vols.Bootstrap(ctx); err != nil {
		return nil, fmt.Errorf("volume: %w", err)
	}
	if err := c.vendorData(ctx, st); err != nil {
		return nil, fmt.Errorf("vendor data: %w", err)
	}
	if err := bootstrapFlavors(ctx, st, comp); err != nil {
		return nil, fmt.Errorf("compute: %w", err)
	}

	authority, err := link.OpenAuthority(ctx, st, id, nil)
	if err != nil {
		return nil, err
	}
	views := hostview.NewEngine(st, log)
	views.Unseal = id.Unseal
	hosts, err := link.NewServer(link.ServerConfig{Store: st, Authority: authority, Views: views, Sink: comp, Volumes: vols, Blob: img.ServeBlob, Upload: receiver(img, vols),
		Identity: c.Name, URL: c.linkURL(), HostTTL: c.HostTTL, GatewayTTL: c.GatewayTTL, GatewayGrace: c.GatewayGrace, Log: log})
	if err != nil {
		return nil, err
	}

	consoles := console.New(console.Config{Compute: comp, Hosts: hosts, Viewer: c.NoVNC, Origins: c.ConsoleOrigins, Idle: c.ConsoleIdle, Metrics: p.metrics})
	front, err := api.New(api.Config{Store: st, Auth: keystone.Authenticator{Identity: id}, Log: log, Metrics: p.metrics, Services: []api.Service{
		keystone.New(keystone.Config{Identity: id}),
		glance.New(glance.Config{Images: img}),
		nova.New(nova.Config{Compute: comp, Network: net, Images: img, Volumes: vols, Hosts: hosts}),
		neutron.New(neutron.Config{Network: net}),
		cinder.New(cinder.Config{Volumes: vols, Images: img}),
		ec2.New(ec2.Config{Compute: comp, Network: net, Images: img, Volumes: vols, Hosts: hosts, Signed: keystone.Authenticator{Identity: id}.Signed, Region: identity.DefaultRegion}),
		consoles.Service(),
		native.New(native.Config{Version: version, Checker: &check.Checker{Store: st, Ratios: comp.Ratios(), Ask: hosts.Ask}, Compute: comp, Network: net, Tracer: &trace.Tracer{Store: st, Views: views, Env: pipeline.DefaultEnv(), Ask: hosts.Ask}, Token: func(ctx context.Context, host string, ttl time.Duration) (string, error) {
			return link.NewJoinToken(ctx, st, authority, host, ttl, time.Now())
		}}),
	}})
	if err != nil {
		return nil, err
	}
	serverMetrics(p.metrics, st, hosts)
	secured, err := c.switchTLS()
	if err != nil {
		return nil, err
	}
	remote := switches.New(switches.Config{Store: st, Views: views, Sink: comp, Dir: filepath.Join(c.DataDir, "switches"), Identity: c.Name, URL: c.linkURL(), TTL: c.HostTTL, Log: log,
		Open: func(h *model.Host, ord datapath.Ordinals, notify func(datapath.Event)) (datapath.Driver, error) {
			return ovs.Open(ovs.Config{Remote: true, OVSDB: h.Switch.OVSDB, OpenFlow: h.Switch.OpenFlow, TLS: secured, Bridge: h.Switch.Bridge, Datapath: h.Switch.Datapath,
				TunnelIP: h.TunnelIP, Ordinals: ord, Notify: notify, Log: log.With("switch", h.Name)})
		}})

	rc := reconcile.Config{Store: st, Identity: c.Name, Log: log}
	loop := func(f func(context.Context) error) func(context.Context) {
		return func(ctx context.Context) {
			if err := f(ctx); err != nil && ctx.Err() == nil {
				log.Error("a loop of the server ended", "err", err)
			}
		}
	}
	return &serverRole{API: front, Link: hosts, Consoles: consoles, store: st, loops: []func(context.Context){
		id.Run,
		loop(img.Run),
		loop(views.Run),
		func(ctx context.Context) { reconcile.Run(ctx, rc, comp.Placer()) },
		func(ctx context.Context) { reconcile.Run(ctx, rc, comp.Sweeper()) },
		func(ctx context.Context) { reconcile.Run(ctx, rc, vols.Placer()) },
		func(ctx context.Context) { reconcile.Run(ctx, rc, vols.Sweeper()) },
		func(ctx context.Context) { reconcile.Run(ctx, rc, comp.Mover()) },
		func(ctx context.Context) { reconcile.Run(ctx, rc, comp.Absence()) },
		func(ctx context.Context) { reconcile.Run(ctx, rc, comp.Drainer()) },
		func(ctx context.Context) { reconcile.Run(ctx, rc, comp.Restarter()) },
		func(ctx context.Context) { reconcile.Run(ctx, rc, comp.Relocator()) },
		func(ctx context.Context) { reconcile.Run(ctx, rc, vols.Relocator()) },
		func(ctx context.Context) { reconcile.Run(ctx, rc, net.GatewayPlacer()) },
		func(ctx context.Context) { reconcile.Run(ctx, rc, net.AddressFormer()) },
		remote.Run,
	}}, nil
}

// Run runs the server's loops until ctx ends.
func (r *serverRole) Run(ctx context.Context) {
	var wg sync.WaitGroup
	for _, f := range r.loops {
		wg.Go(func() { f(ctx) })
	}
	wg.Wait()
}

// Healthy tells whether the server can serve: the state store answers.
func (r *serverRole) Healthy(ctx context.Context) error { return r.store.Sync(ctx) }

// Close ends what is not ended by the context.
func (r *serverRole) Close() { r.Link.Close() }

// bootstrapFlavors makes the sizes that a new cloud begins with. What an administrator
// deletes stays deleted.
func bootstrapFlavors(ctx context.Context, st *store.Store, c *compute.Compute) error {
	const made = "flavors-made"
	_, err := st.Update(ctx, func(tx *store.Tx) error {
		if _, done := store.Settings.Get(tx, made); done {
			return nil
		}
		for i, f := range []model.Flavor{
			{Name: "m1.nano", VCPUs: 1, MemoryMiB: 144}, {Name: "m1.tiny", VCPUs: 1, MemoryMiB: 512, DiskGiB: 1},
			{Name: "m1.small", VCPUs: 1, MemoryMiB: 2048, DiskGiB: 20}, {Name: "m1.medium", VCPUs: 2, MemoryMiB: 4096, DiskGiB: 40},
			{Name: "m1.large", VCPUs: 4, MemoryMiB: 8192, DiskGiB: 80}, {Name: "m1.xlarge", VCPUs: 8, MemoryMiB: 16384, DiskGiB: 160},
		} {
			f.ID, f.Public, f.RxTxFactor, f.CreatedAt = fmt.Sprint(i), true, 1, time.Now().UTC()
			if err := store.Flavors.Put(tx, &f); err != nil {
				return err
			}
		}
		return store.Settings.Put(tx, &model.Setting{Name: made, Value: []byte("1")})
	})
	return err
}

// serverMetrics are what an operator watches of a server.
func serverMetrics(reg prometheus.Registerer, st *store.Store, hosts *link.Server) {
	counter := func(name, help string, f func() int64) prometheus.Collector {
		return prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help}, func() float64 { return float64(f()) })
	}
	gauge := func(name, help string, f func() int) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 { return float64(f()) })
	}
	stat := func(i int) func() int64 {
		return func() int64 {
			commits, conflicts, relists, repairs, undecoded := st.Stats()
			return [...]int64{commits, conflicts, relists, repairs, undecoded}[i]
		}
	}
	reg.MustRegister(
		counter("yakumo_store_commits_total", "Transactions that this server committed.", stat(0)),
		counter("yakumo_store_conflicts_total", "Attempts of transactions that met a changed row and ran again.", stat(1)),
		counter("yakumo_store_relists_total", "Full listings after the first: compactions, lost watches, audits that repaired.", stat(2)),
		counter("yakumo_store_repairs_total", "Rows that an audit found wrong in memory; more than 0 is a defect.", stat(3)),
		counter("yakumo_store_undecoded_total", "Rows that this version cannot read.", stat(4)),
		gauge("yakumo_store_revision", "Revision of the state that this server has in memory.", func() int { return int(st.Snapshot().Revision()) }),
		gauge("yakumo_link_hosts", "Hosts whose stream this server holds.", hosts.Sessions),
		gauge("yakumo_hosts", "Hosts of the cloud.", func() int { return count(store.Hosts.All(st.Snapshot())) }),
		gauge("yakumo_hosts_up", "Hosts of the cloud that are up.", func() int { return count(store.Heartbeats.All(st.Snapshot())) }),
		gauge("yakumo_servers", "Servers of the cloud.", func() int { return count(store.Servers.All(st.Snapshot())) }),
		gauge("yakumo_servers_error", "Servers in error.", func() int {
			return store.Servers.Count(st.Snapshot(), "phase", string(model.PhaseError))
		}),
		gauge("yakumo_ports", "Ports of the cloud.", func() int { return count(store.Ports.All(st.Snapshot())) }),
		gauge("yakumo_networks", "Networks of the cloud.", func() int { return count(store.Networks.All(st.Snapshot())) }),
		gauge("yakumo_routers", "Routers of the cloud.", func() int { return count(store.Routers.All(st.Snapshot())) }),
		gauge("yakumo_floating_ips", "Floating IPs of the cloud.", func() int { return count(store.FloatingIPs.All(st.Snapshot())) }),
		gauge("yakumo_gateways_without_host", "Routers with a gateway that no host serves.", func() int {
			return count(func(yield func(*model.Router) bool) {
				for r := range store.Routers.All(st.Snapshot()) {
					if r.Gateway != nil && r.ActiveHost() == "" && !yield(r) {
						return
					}
				}
			})
		}),
	)
}

func count[T any](seq func(func(T) bool)) int {
	n := 0
	seq(func(T) bool { n++; return true })
	return n
}

// agentRole is a host's agent, wired:
//
//	server ─▶ link.Client ─▶ agent ─▶ libvirt (guests), ovs (switch), taps, image cache
type agentRole struct {
	agent   *agent.Agent
	link    *link.Client
	switch_ *ovs.Driver
	guests  guestDriver
}

// guestDriver runs guests by a libvirtd.
type guestDriver interface {
	hypervisor.Driver
	io.Closer
}

// openGuests gives what runs guests, and what makes their network devices and disks.
func openGuests(c *agentCmd, log *slog.Logger) (guestDriver, agent.Taps, agent.DiskMaker, error) {
	if c.Hypervisor == "lxc" {
		d, err := libvirt.NewContainers(libvirt.ContainerConfig{SocketPath: c.LibvirtSocket, GuestDir: c.DataDir, Log: log})
		return d, agent.DeviceTaps{Devices: container.Veths{}}, container.Disks{}, err
	}
	d, err := libvirt.New(libvirt.Config{SocketPath: c.LibvirtSocket, Accelerator: c.Accelerator, Emulator: c.Emulator, CPUModel: c.CPUModel, GuestDir: c.DataDir, Log: log})
	return d, agent.KernelTaps{}, agent.QemuImg{}, err
}

// channelPort is where agents listen for each other unless they are told.
const channelPort = 8710

func newAgentRole(c *agentCmd, log *slog.Logger, metrics *prometheus.Registry) (*agentRole, error) {
	metrics.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	tunnel, err := netip.ParseAddr(c.TunnelIP)
	if err != nil {
		return nil, fmt.Errorf("--tunnel-ip: %w", err)
	}
	at := netip.AddrPortFrom(tunnel, channelPort)
	if c.ChannelListen != "" {
		if at, err = netip.ParseAddrPort(c.ChannelListen); err != nil {
			return nil, fmt.Errorf("--channel-listen: %w", err)
		}
	}
	providers, err := parseBridgeMappings(c.BridgeMapping, c.Bridge)
	if err != nil {
		return nil, err
	}
	bandwidth, err := parseBandwidth(c.Bandwidth, providers)
	if err != nil {
		return nil, err
	}
	dedicated, err := parseDedicated(c.DedicatedCPUs, c.Hypervisor, onlineCPUs)
	if err != nil {
		return nil, err
	}
	for _, d := range []string{c.DataDir, filepath.Join(c.DataDir, "guests")} {
		if err := os.MkdirAll(d, 0o711); err != nil {
			return nil, err
		}
	}
	ordinals, err := datapath.OpenOrdinals(filepath.Join(c.DataDir, "ordinals"))
	if err != nil {
		return nil, err
	}
	env := pipeline.DefaultEnv()
	r := &agentRole{}
	var told atomic.Pointer[agent.Agent] // the switch may speak before there is an agent
	var taps agent.Taps
	var disks agent.DiskMaker
	r.guests, taps, disks, err = openGuests(c, log)
	if err != nil {
		return nil, err
	}
	r.switch_, err = ovs.Open(ovs.Config{OVSDB: c.OVSDB, RunDir: c.OVSRunDir, Bridge: c.Bridge, Datapath: c.DatapathType, TunnelIP: tunnel, Providers: providers, Env: env, Ordinals: ordinals,
		Notify: func(e datapath.Event) {
			if a := told.Load(); a != nil {
				a.Notice(e)
			}
		}, Log: log})
	if err != nil {
		return nil, err
	}
	engines, err := openEngines(c.DataDir, c.VolumeEngine)
	if err != nil {
		return nil, err
	}
	relay, err := openRelay(c.DataDir)
	if err != nil {
		return nil, err
	}
	r.agent, err = agent.New(agent.Config{Dir: c.DataDir, Quarantine: c.Quarantine, Engines: engines, Relay: relay, Hypervisor: r.guests, Datapath: r.switch_, Taps: taps, Disks: disks, TunnelIP: tunnel, Channel: at, Providers: providers, Bandwidth: bandwidth, Dedicated: dedicated,
		Keeper: c.keepLeases, HostName: c.HostName, Zone: "nova", Version: version, Metadata: env.MetadataListener, Metadata6: env.MetadataListener6(), DNS: env.DNSListener(), DNS6: env.DNSListener6(), Resolvers: c.DNSForward, NoDisplay: !c.Display, Emulator: c.Emulator, PostCopy: c.PostCopy, KeepPace: !c.AutoConverge, Metrics: metrics, Log: log,
		Link: func(h link.Handler) agent.Link {
			r.link = link.NewClient(link.ClientConfig{Servers: c.Servers, Dir: c.DataDir, Version: version, Handler: h, Log: log})
			return r.link
		}})
	told.Store(r.agent)
	return r, err
}
