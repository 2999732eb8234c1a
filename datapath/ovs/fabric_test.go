package ovs_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"yakumo/datapath"
	"yakumo/datapath/dptest"
	"yakumo/datapath/ovs"
	"yakumo/openflow"
	"yakumo/openflow/ovstest"
)

// serial makes names of namespaces and devices unique in the machine, with the process id.
var serial atomic.Uint32

func uniqueName(prefix string) string {
	return fmt.Sprintf("%s%d-%d", prefix, os.Getpid()%100000, serial.Add(1))
}

func ip(t testing.TB, args ...string) {
	t.Helper()
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		t.Fatalf("ip %s: %v: %s", strings.Join(args, " "), err, out)
	}
}

// newNetns makes a network namespace without IPv6 noise, and removes it with the test.
func newNetns(t testing.TB) string {
	t.Helper()
	name := uniqueName("yd")
	ip(t, "netns", "add", name)
	t.Cleanup(func() { ip(t, "netns", "del", name) })
	inNetns(t, name, func() error {
		for _, k := range []string{"all", "default"} {
			if err := os.WriteFile("/proc/sys/net/ipv6/conf/"+k+"/disable_ipv6", []byte("1"), 0); err != nil && !errors.Is(err, os.ErrNotExist) {
				return err
			}
		}
		return nil
	})
	ip(t, "-n", name, "link", "set", "lo", "up")
	return name
}

// inNetns runs fn inside a namespace. The thread comes back: were it to end, the kernel
// would kill the daemons that it has started (they are tied to it by Pdeathsig).
func inNetns(t testing.TB, name string, fn func() error) {
	t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		home, err := netns.Get()
		if err != nil {
			runtime.UnlockOSThread()
			done <- err
			return
		}
		defer home.Close()
		ns, err := netns.GetFromName(name)
		if err == nil {
			defer ns.Close()
			if err = netns.Set(ns); err == nil {
				err = errors.Join(fn(), netns.Set(home))
			}
		}
		runtime.UnlockOSThread()
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatalf("in namespace %s: %v", name, err)
	}
}

// fabric is hosts in namespaces of their own, on one underlay segment.
type fabric struct {
	remote   bool       // drivers reach their switches by TCP alone
	ca       *authority // not nil: and that by TLS
	underlay string
	next     int
}

func newFabric(t testing.TB) *fabric {
	f := &fabric{underlay: newNetns(t)}
	ip(t, "-n", f.underlay, "link", "add", "br0", "type", "bridge")
	ip(t, "-n", f.underlay, "link", "set", "br0", "mtu", "1500", "up")
	// The physical network of the provider bridges.
	ip(t, "-n", f.underlay, "link", "add", "br1", "type", "bridge")
	ip(t, "-n", f.underlay, "link", "set", "br1", "mtu", "1500", "up")
	return f
}

type host struct {
	remote   *remote // nil: by local sockets
	ns       string
	sw       *ovstest.Switch
	addr     netip.Addr
	ordinals string
	drv      *ovs.Driver
	events   func(datapath.Event)
	links    *netlink.Handle // of ns
}

// NewHost implements dptest.Fabric.
func (f *fabric) NewHost(t testing.TB) dptest.Host { return f.newHost(t) }

func (f *fabric) newHost(t testing.TB) *host {
	t.Helper()
	f.next++
	h := &host{ns: newNetns(t), addr: netip.AddrFrom4([4]byte{192, 0, 2, byte(f.next)}), ordinals: filepath.Join(t.TempDir(), "ordinals.json")}
	inNetns(t, h.ns, func() (err error) {
		h.links, err = netlink.NewHandle(unix.NETLINK_ROUTE)
		return err
	})
	t.Cleanup(h.links.Close)
	far, near := fmt.Sprintf("h%d", f.next), "uplink"
	ip(t, "-n", f.underlay, "link", "add", far, "type", "veth", "peer", "name", near, "netns", h.ns)
	t.Cleanup(func() { ip(t, "-n", f.underlay, "link", "del", far) })
	ip(t, "-n", f.underlay, "link", "set", far, "master", "br0", "up")
	// Else the kernel answers ARP for the bridge's address, too, with the uplink's MAC.
	ip(t, "-n", h.ns, "link", "set", "dev", near, "arp", "off", "up")
	h.sw = ovstest.Start(t, ovstest.InNetns(h.ns))
	// User-space tunnels need their source address on a bridge of the same switch.
	h.sw.Vsctl("add-br", "br-ul", "--", "set", "bridge", "br-ul", "datapath_type=netdev", "--", "add-port", "br-ul", near)
	ip(t, "-n", f.underlay, "link", "add", far+"p", "type", "veth", "peer", "name", "physical", "netns", h.ns)
	t.Cleanup(func() { ip(t, "-n", f.underlay, "link", "del", far+"p") })
	ip(t, "-n", f.underlay, "link", "set", far+"p", "master", "br1", "up")
	ip(t, "-n", h.ns, "link", "set", "dev", "physical", "arp", "off", "up")
	h.sw.Vsctl("add-br", "br-ph", "--", "set", "bridge", "br-ph", "datapath_type=netdev", "--", "add-port", "br-ph", "physical")
	h.addressUnderlay(t)
	if f.remote {
		h.remote = newRemote(t, h, f.ca)
	}
	h.start(t)
	t.Cleanup(func() {
		if err := h.drv.Close(); err != nil {
			t.Errorf("close driver: %v", err)
		}
	})
	return h
}

func (h *host) addressUnderlay(t testing.TB) {
	ip(t, "-n", h.ns, "addr", "replace", h.addr.String()+"/24", "dev", "br-ul")
	ip(t, "-n", h.ns, "link", "set", "br-ul", "up")
}

func (h *host) start(t testing.TB) {
	t.Helper()
	ord, err := datapath.OpenOrdinals(h.ordinals)
	if err != nil {
		t.Fatal(err)
	}
	cfg := ovs.Config{
		OVSDB: h.sw.DB(), RunDir: h.sw.Rundir, Datapath: ovs.DatapathNetdev, TunnelIP: h.addr, Providers: map[string]string{dptest.Physical: "br-ph"}, Ordinals: ord, Netns: "/run/netns/" + h.ns,
		Log: slog.New(slog.NewTextHandler(testWriter{t}, &slog.HandlerOptions{Level: slog.LevelWarn})),
		Notify: func(e datapath.Event) {
			if h.events != nil {
				h.events(e)
			}
		},
	}
	if h.remote != nil {
		cfg.Remote, cfg.OVSDB, cfg.OpenFlow, cfg.RunDir, cfg.Netns = true, h.remote.ovsdb, h.remote.openflow, "/nowhere", "/nowhere"
		cfg.TLS = h.remote.tls
	}
	h.drv, err = ovs.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
}

// testWriter sends the driver's log to the test's.
type testWriter struct{ t testing.TB }

func (w testWriter) Write(b []byte) (int, error) {
	w.t.Logf("%s", strings.TrimRight(string(b), "\n"))
	return len(b), nil
}

func (h *host) Driver() datapath.Driver { return h.drv }
func (h *host) TunnelIP() netip.Addr    { return h.addr }

// RestartDriver implements dptest.Host.
func (h *host) RestartDriver(t testing.TB) {
	t.Helper()
	if err := h.drv.Close(); err != nil {
		t.Fatalf("close driver: %v", err)
	}
	h.start(t)
}

// RestartSwitch implements dptest.Host.
func (h *host) RestartSwitch(t testing.TB) {
	t.Helper()
	h.sw.Kill()
	dptest.WaitFor(t, "the driver to notice", func() bool { return !h.drv.Counters().Connected })
	h.sw.Restart()
	h.addressUnderlay(t)
}

// flows reads all flows of the switch by a connection of its own.
func (h *host) flows(t testing.TB) []openflow.FlowDesc {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), dptest.Patience)
	defer cancel()
	c, err := openflow.Dial(ctx, h.sw.Mgmt("br-int"), openflow.Config{})
	if err != nil {
		return nil // the switch is just starting
	}
	defer c.Close()
	list, err := c.Flows(ctx, openflow.AllFlows())
	if err != nil {
		t.Fatalf("read flows: %v", err)
	}
	return list
}

// Entries implements dptest.Host.
func (h *host) Entries(t testing.TB) int { return len(h.flows(t)) }

// Settle implements dptest.Host. Open vSwitch 3.1 does more than remember old entries: each time that it hears of any device
// of its namespace it forgets all routes and reads them anew, and a revalidator that looks at a cached flow meanwhile makes
// one that leaves by a tunnel drop, and one that came by a tunnel go to the host's own stack, until it looks the next
// time. A test that waits for one packet loses. So first the kernel has told all that it has to tell, some of which it
// would tell up to a second late; then the switch has heard it; then it forgets all cached flows, with no revalidator at work.
func (h *host) Settle(t testing.TB) {
	t.Helper()
	dptest.WaitFor(t, "the devices' states to be told", func() bool {
		links, err := h.links.LinkList()
		if err != nil {
			return false // interrupted by a change
		}
		for _, l := range links {
			if a := l.Attrs(); a.Flags&net.FlagUp == 0 || a.Flags&net.FlagLoopback != 0 {
				continue
			}
			// Who asks for one device makes the kernel tell at once what it puts off.
			l, err := h.links.LinkByIndex(l.Attrs().Index)
			if err != nil {
				return false
			}
			if is := l.Attrs().OperState; is != netlink.OperUp && is != netlink.OperUnknown { // a TAP's is never known
				return false
			}
		}
		return true
	})
	// The switch looks for news of devices behind each round of answers, so by the second answer it has heard them all.
	h.sw.Appctl("version")
	h.sw.Appctl("upcall/enable-megaflows") // they are; this ends the revalidators, flushes, and starts them again
}

// Explain implements dptest.Explainer.
func (h *host) Explain(t testing.TB) {
	for _, q := range [][]string{{"coverage/show"}, {"dpctl/show", "-s", "ovs-netdev"}, {"dpctl/dump-flows", "-m", "netdev@ovs-netdev"}, {"tnl/neigh/show"}, {"tnl/ports/show", "-v"}, {"ovs/route/show"}} {
		t.Logf("%v %v:\n%s", h.addr, q, h.sw.Appctl(q[0], q[1:]...))
	}
}

// tap is a TAP device whose file is the guest.
type tap struct {
	name   string
	file   *os.File
	frames chan []byte
}

// NewNIC implements dptest.Host.
func (h *host) NewNIC(t testing.TB) dptest.NIC {
	t.Helper()
	n := &tap{name: uniqueName("t"), frames: make(chan []byte, 65536)}
	inNetns(t, h.ns, func() error {
		fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("open /dev/net/tun: %w", err)
		}
		req, err := unix.NewIfreq(n.name)
		if err != nil {
			return err
		}
		req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
		if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, req); err != nil {
			return fmt.Errorf("make tap %s: %w", n.name, err)
		}
		n.file = os.NewFile(uintptr(fd), n.name)
		link, err := netlink.LinkByName(n.name)
		if err != nil {
			return err
		}
		return netlink.LinkSetUp(link)
	})
	t.Cleanup(func() {
		if err := n.file.Close(); err != nil {
			t.Errorf("close tap: %v", err)
		}
	})
	go func() {
		defer close(n.frames)
		for {
			b := make([]byte, 4096)
			k, err := n.file.Read(b)
			if err != nil {
				return // closed
			}
			n.frames <- b[:k]
		}
	}()
	return n
}

// NewProvider implements dptest.Host.
func (h *host) NewProvider(t testing.TB) dptest.NIC {
	t.Helper()
	n := h.NewNIC(t)
	h.sw.Vsctl("add-port", "br-ph", n.Device())
	t.Cleanup(func() { h.sw.Vsctl("del-port", "br-ph", n.Device()) })
	return n
}

func (n *tap) Device() string        { return n.name }
func (n *tap) Frames() <-chan []byte { return n.frames }
func (n *tap) Send(t testing.TB, frame []byte) {
	t.Helper()
	if _, err := n.file.Write(frame); err != nil {
		t.Fatalf("send on %s: %v", n.name, err)
	}
}
