package main

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"yakumo/fault"
)

type agentCmd struct {
	DataDir       string        `help:"Where the ledger, certificates, image cache and guests' disks are kept." default:"/var/lib/yakumo/agent" type:"path"`
	Servers       []string      `name:"server" help:"Servers' link addresses, host:port; tried in turn." required:""`
	HostName      string        `help:"This host's name in the cloud." default:"${hostname}"`
	JoinToken     string        `help:"One-time token, from: yakumo host token. Needed once." env:"YAKUMO_JOIN_TOKEN"`
	JoinTokenFile string        `help:"File that holds the token; the agent waits for it." type:"path"`
	TunnelIP      string        `name:"tunnel-ip" help:"This host's address on the underlay: where other hosts send its guests' traffic." required:""`
	ChannelListen string        `help:"Where other hosts' agents reach this one, to move guests and serve disks: host:port; default: port 8710 of --tunnel-ip."`
	Hypervisor    string        `help:"What this host's guests are: qemu (virtual machines) or lxc (containers)." default:"qemu" enum:"qemu,lxc"`
	LibvirtSocket string        `help:"libvirtd's socket." default:"/run/libvirt/libvirt-sock"`
	Accelerator   string        `help:"auto (probe by really starting a guest), kvm or tcg." default:"auto" enum:"auto,kvm,tcg"`
	CPUModel      string        `name:"cpu-model" help:"libvirt's name of the CPU model that guests get; default: the host's, or Nehalem in software."`
	Emulator      string        `help:"The QEMU that runs guests, an absolute path; default: libvirt's choice. A guest that runs gets it when it next starts." type:"path"`
	DedicatedCPUs string        `name:"dedicated-cpus" help:"CPUs of this host, such as 2-7,9, that are kept for guests that have CPUs for themselves (hw:cpu_policy=dedicated); all other guests run on the rest. Default: none are kept, and such guests run elsewhere."`
	AutoConverge  bool          `help:"Slow a guest down that moves live and changes its memory faster than it can be copied." default:"true" negatable:""`
	PostCopy      bool          `help:"Let a guest that moves live and is told to complete (or takes 15 minutes) run on the other host before all of its memory is there. If the way breaks then, the guest is lost as by a power cut."`
	OVSDB         string        `name:"ovsdb" help:"Open vSwitch's database." default:"unix:/run/openvswitch/db.sock"`
	OVSRunDir     string        `name:"ovs-run-dir" help:"Open vSwitch's run directory." default:"/run/openvswitch"`
	Bridge        string        `help:"The integration bridge; made and owned by the agent." default:"br-int"`
	BridgeMapping []string      `name:"bridge-mapping" help:"A physical network and this host's bridge to it, physnet:bridge; may be repeated." sep:"none"`
	Bandwidth     []string      `help:"What may be promised to guests, each way: physnet:kbit/s, tunnel:kbit/s, and packets:thousand packets/s in all; may be repeated." sep:"none"`
	DNSForward    []string      `name:"dns-forward" help:"Resolvers that guests' questions for names outside go to, host or host:port; default: those of /etc/resolv.conf. \"none\": such names are not resolved." sep:","`
	VolumeEngine  []string      `name:"volume-engine" help:"What volumes are kept by, besides files of this host alone (local=FOLDER, by default in the data folder): nfs=FOLDER that all hosts have, rbd=POOL,CONF,USER of a Ceph cluster; may be repeated." sep:"none"`
	Quarantine    time.Duration `help:"How long guests' folders and local volumes are kept aside that no row names and nobody ordered to go, as after an old backup of the store was restored; 0: they are erased at once." default:"168h"`
	DatapathType  string        `help:"auto, system (kernel module) or netdev (user space)." default:"auto" enum:"auto,system,netdev"`
	Display       bool          `help:"Give guests a screen, which users see by VNC; a guest that runs gets it when it next starts." default:"true" negatable:""`
	DebugListen   string        `help:"Private address for metrics, health and pprof; empty: none." default:"127.0.0.1:8702"`
}

// linkURL is where other servers reach this one.
func (c *serverCmd) linkURL() string {
	if c.LinkURL != "" {
		return c.LinkURL
	}
	_, port, err := net.SplitHostPort(c.LinkListen)
	if err != nil {
		return ""
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return ""
	}
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && n.IP.IsGlobalUnicast() {
			return "https://" + net.JoinHostPort(n.IP.String(), port)
		}
	}
	return "https://" + net.JoinHostPort("127.0.0.1", port)
}

// Run runs an agent until ctx ends. Guests and their traffic outlive it.
func (c *agentCmd) Run(ctx context.Context, log *slog.Logger) error {
	metrics := prometheus.NewRegistry()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	role, err := newAgentRole(c, log, metrics)
	if err != nil {
		return err
	}
	defer role.Close()
	stopDebug, err := debugServer(c.DebugListen, metrics, role.agent.Healthz, cancel)
	if err != nil {
		return err
	}
	defer stopDebug()
	if !role.link.Joined() {
		if err := c.join(ctx, role, log); err != nil {
			return err
		}
	}
	log.Info("agent ready", "version", version, "host", c.HostName, "tunnel_ip", c.TunnelIP)
	err = role.agent.Run(ctx)
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
		return cause
	}
	return err
}

// join spends the token. It goes on trying while no server answers; a refusal is final.
func (c *agentCmd) join(ctx context.Context, role *agentRole, log *slog.Logger) error {
	if c.JoinToken == "" && c.JoinTokenFile == "" {
		return fault.New(fault.Invalid, "This host has not joined a cloud. Make a token on the server with `yakumo host token`, and give it with --join-token.")
	}
	refused := "" // a token that a server will not take does not get better
	for said := false; ; {
		token := c.JoinToken
		if token == "" {
			b, err := os.ReadFile(c.JoinTokenFile)
			if err != nil && !errors.Is(err, os.ErrNotExist) {
				return err
			}
			token = strings.TrimSpace(string(b))
		}
		if token != "" && token != refused {
			err := role.link.Join(ctx, token, c.HostName)
			if err == nil {
				log.Info("joined", "host", c.HostName)
				return nil
			}
			switch {
			case ctx.Err() != nil:
				return ctx.Err()
			case fault.Is(err, fault.Unavailable), fault.KindOf(err) == fault.Internal:
				log.Warn("joining failed; trying again", "err", err)
			case c.JoinToken != "":
				return err
			default:
				log.Error("joining failed; waiting for another join token", "err", err, "file", c.JoinTokenFile)
				refused = token
			}
		} else if token == "" && !said {
			log.Info("waiting for a join token", "file", c.JoinTokenFile)
			said = true
		}
		select {
		case <-time.After(200 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Close lets go of the switch and the hypervisor; both go on.
func (r *agentRole) Close() error {
	return errors.Join(r.switch_.Close(), r.guests.Close())
}
