// Package agentless proves the second back end: a switch that no agent stands beside is driven by a server
// over TCP alone, and joins a physical machine to a tenant's network with the same rows, views and
// driver as any host. Machines, hosts and the guest are namespaces, the switches real ones.
package agentless

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netns"

	"yakumo/datapath"
	"yakumo/datapath/ovs"
	"yakumo/hostview"
	"yakumo/model"
	"yakumo/network"
	"yakumo/openflow/ovstest"
	"yakumo/store"
	"yakumo/store/storetest"
	"yakumo/switches"
)

const patience = 90 * time.Second

var serial atomic.Uint32

func ip(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		t.Fatalf("ip %s: %v: %s", strings.Join(args, " "), err, out)
	}
}

func newNetns(t *testing.T) string {
	t.Helper()
	name := fmt.Sprintf("ya%d-%d", os.Getpid()%100000, serial.Add(1))
	ip(t, "netns", "add", name)
	t.Cleanup(func() { ip(t, "netns", "del", name) })
	ip(t, "-n", name, "link", "set", "lo", "up")
	return name
}

// dialIn connects from within a namespace.
func dialIn(ns, addr string) (net.Conn, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	home, err := netns.Get()
	if err != nil {
		return nil, err
	}
	defer home.Close()
	there, err := netns.GetFromName(ns)
	if err != nil {
		return nil, err
	}
	defer there.Close()
	if err := netns.Set(there); err != nil {
		return nil, err
	}
	c, err := net.Dial("tcp4", addr)
	return c, errors.Join(err, netns.Set(home))
}

// pipe passes connections on to a port of a namespace's loopback address; 0 is the pipe's own number.
func pipe(t *testing.T, ns string, port int) string {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	if port == 0 {
		port = l.Addr().(*net.TCPAddr).Port
	}
	go func() {
		for {
			a, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer a.Close()
				b, err := dialIn(ns, fmt.Sprintf("127.0.0.1:%d", port))
				if err != nil {
					return // the other side sees the end
				}
				defer b.Close()
				go func() {
					_, _ = io.Copy(b, a)
					b.Close()
				}()
				_, _ = io.Copy(a, b)
			}()
		}
	}()
	return "tcp:" + l.Addr().String()
}

func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(patience); !ok(); {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("waited %v for %s", patience, what)
		}
	}
}

// site is a machine with a switch on the underlay.
type site struct {
	ns   string
	addr netip.Addr
	sw   *ovstest.Switch
}

func newSite(t *testing.T, underlay string, n byte) *site {
	t.Helper()
	s := &site{ns: newNetns(t), addr: netip.AddrFrom4([4]byte{192, 0, 2, n})}
	far := fmt.Sprintf("h%d", n)
	ip(t, "-n", underlay, "link", "add", far, "type", "veth", "peer", "name", "uplink", "netns", s.ns)
	ip(t, "-n", underlay, "link", "set", far, "master", "br0", "up")
	ip(t, "-n", s.ns, "link", "set", "dev", "uplink", "arp", "off", "up") // the bridge answers
	s.sw = ovstest.Start(t, ovstest.InNetns(s.ns))
	s.sw.Vsctl("add-br", "br-ul", "--", "set", "bridge", "br-ul", "datapath_type=netdev", "--", "add-port", "br-ul", "uplink")
	s.address(t)
	return s
}

func (s *site) address(t *testing.T) {
	ip(t, "-n", s.ns, "addr", "replace", s.addr.String()+"/24", "dev", "br-ul")
	ip(t, "-n", s.ns, "link", "set", "br-ul", "up")
}

// machine makes a namespace whose eth0 leads to a device of the site.
func (s *site) machine(t *testing.T, device, mac string) string {
	t.Helper()
	ns := newNetns(t)
	ip(t, "-n", s.ns, "link", "add", device, "type", "veth", "peer", "name", "eth0", "netns", ns)
	ip(t, "-n", s.ns, "link", "set", device, "up")
	ip(t, "-n", ns, "link", "set", "eth0", "address", mac, "mtu", "1400", "up")
	return ns
}

// sink brings states of ports into the store.
type sink struct {
	st  *store.Store
	net *network.Network
}

func (s sink) ServerReports(context.Context, model.ID, []model.ServerReport) error {
	return errors.New("a switch has no servers")
}

func (s sink) PortReports(ctx context.Context, host model.ID, reports []model.PortReport) error {
	_, err := s.st.Update(ctx, func(tx *store.Tx) error {
		for _, r := range reports {
			if _, err := s.net.ReportPort(tx, r.PortID, host, model.PortStatus{State: r.State, Generation: r.Generation, Fault: r.Fault}); err != nil {
				return err
			}
		}
		return nil
	})
	return err
}

func pings(ns string, to netip.Addr) bool {
	return exec.Command("ip", "netns", "exec", ns, "ping", "-n", "-c", "1", "-W", "1", to.String()).Run() == nil
}

func TestPhysicalMachine(t *testing.T) {
	underlay := newNetns(t)
	ip(t, "-n", underlay, "link", "add", "br0", "type", "bridge")
	ip(t, "-n", underlay, "link", "set", "br0", "up")
	tor, host := newSite(t, underlay, 1), newSite(t, underlay, 2)
	tor.sw.Vsctl("set-manager", "ptcp:6640:127.0.0.1")

	ctx, stop := context.WithCancel(t.Context())
	log := slog.New(slog.DiscardHandler)
	st := storetest.New(t)
	nw := network.New(network.Config{Log: log})
	views := hostview.NewEngine(st, log)
	ctl := switches.New(switches.Config{Store: st, Views: views, Sink: sink{st, nw}, Dir: filepath.Join(t.TempDir(), "switches"), Identity: "s1", URL: "https://127.0.0.1:1", TTL: 2 * time.Second, Log: log,
		Open: func(h *model.Host, ord datapath.Ordinals, notify func(datapath.Event)) (datapath.Driver, error) {
			return ovs.Open(ovs.Config{Remote: true, OVSDB: h.Switch.OVSDB, OpenFlow: h.Switch.OpenFlow, Bridge: h.Switch.Bridge, Datapath: h.Switch.Datapath, TunnelIP: h.TunnelIP,
				RunDir: "/nowhere", Netns: "/nowhere", Ordinals: ord, Notify: notify, Log: log})
		}})
	done := make(chan struct{}, 3)
	run := func(f func()) { go func() { f(); done <- struct{}{} }() }
	run(func() { ctl.Run(ctx) })
	run(func() { _ = views.Run(ctx) }) // ends with ctx

	// What an administrator says: the switch, and a port of a tenant's network for the machine at its device eth3.
	var hostB *model.Host
	var pm, pg *model.Port
	update := func(f func(tx *store.Tx) error) {
		t.Helper()
		if _, err := st.Update(ctx, f); err != nil {
			t.Fatal(err)
		}
	}
	admin := network.Scope{ProjectID: "p", Admin: true}
	update(func(tx *store.Tx) error {
		sw := &model.Host{Meta: model.NewMeta("", "tor-1", time.Now()), Zone: "nova", TunnelIP: tor.addr,
			Switch: &model.HostSwitch{OVSDB: pipe(t, tor.ns, 6640), OpenFlow: pipe(t, tor.ns, 0), Bridge: "br-int", Datapath: "netdev"}}
		hostB = &model.Host{Meta: model.NewMeta("", "host-b", time.Now()), Zone: "nova", TunnelIP: host.addr}
		if err := errors.Join(store.Hosts.Put(tx, sw), store.Hosts.Put(tx, hostB)); err != nil {
			return err
		}
		name := "net"
		w, err := nw.CreateNetwork(tx, admin, network.NetworkSpec{Name: &name})
		if err != nil {
			return err
		}
		if _, err := nw.CreateSubnet(tx, admin, network.SubnetSpec{NetworkID: w.ID, CIDR: netip.MustParsePrefix("10.5.0.0/24"), IPVersion: 4}); err != nil {
			return err
		}
		at := func(host string, profile string) (*model.Port, error) {
			raw := json.RawMessage(profile)
			return nw.CreatePort(tx, admin, network.PortSpec{NetworkID: w.ID, Host: &host, Profile: &raw})
		}
		if pm, err = at("tor-1", `{"device":"eth3"}`); err != nil {
			return err
		}
		pg, err = at("host-b", `{}`)
		return err
	})
	machine, guest := tor.machine(t, "eth3", pm.MAC), host.machine(t, "tap0", pg.MAC)

	// The other host is driven as an agent drives it.
	drv, err := ovs.Open(ovs.Config{OVSDB: host.sw.DB(), RunDir: host.sw.Rundir, Datapath: ovs.DatapathNetdev, TunnelIP: host.addr, Ordinals: datapath.NewMemoryOrdinals(), Netns: "/run/netns/" + host.ns, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stop()
		for range cap(done) {
			<-done
		}
		if err := drv.Close(); err != nil {
			t.Error(err)
		}
	})
	run(func() {
		v := views.Open(hostB.ID)
		defer v.Close()
		rows := map[model.RowID]model.HostRow{}
		for {
			b, err := v.Next(ctx)
			if err != nil {
				return
			}
			if b.Full {
				clear(rows)
			}
			for _, r := range b.Upserts {
				rows[r.RowID()] = r
			}
			for _, id := range b.Removes {
				delete(rows, id)
			}
			for drv.Prune(ctx, maps.Values(rows)) != nil && ctx.Err() == nil { // until the switch is there
			}
		}
	})
	waitFor(t, "the guest's device", func() bool { return drv.Attach(ctx, pg.ID, "tap0") == nil })

	state := func() string {
		p, ok := store.Ports.Get(st.Snapshot(), pm.ID)
		if !ok {
			return ""
		}
		return p.Status.State
	}
	waitFor(t, "the machine's port to be ACTIVE", func() bool { return state() == model.PortActive })
	alive := func() bool {
		h, ok := store.Hosts.Claimed(st.Snapshot(), "tor-1")
		if !ok {
			return false
		}
		_, up := store.Heartbeats.Get(st.Snapshot(), h.ID)
		return up
	}
	waitFor(t, "the switch to be up", alive)

	// The machine asks for its address; the server answers by packet-out.
	if out, err := exec.Command("ip", "netns", "exec", machine, "busybox", "udhcpc", "-f", "-n", "-q", "-i", "eth0", "-s", "/bin/true").CombinedOutput(); err != nil ||
		!strings.Contains(string(out), pm.FixedIPs[0].Address.String()) {
		t.Errorf("the machine gets no address: %v: %s", err, out)
	}
	ip(t, "-n", machine, "addr", "add", pm.FixedIPs[0].Address.String()+"/24", "dev", "eth0")
	ip(t, "-n", guest, "addr", "add", pg.FixedIPs[0].Address.String()+"/24", "dev", "eth0")
	waitFor(t, "the machine to reach the guest", func() bool { return pings(machine, pg.FixedIPs[0].Address) })
	if !pings(guest, pm.FixedIPs[0].Address) {
		t.Error("the guest does not reach the machine")
	}

	// The switch dies and comes back with nothing in it.
	tor.sw.Kill()
	waitFor(t, "the switch to be down", func() bool { return !alive() })
	tor.sw.Restart()
	tor.address(t)
	waitFor(t, "the switch to be up again", alive)
	waitFor(t, "the machine to reach the guest again", func() bool { return pings(machine, pg.FixedIPs[0].Address) })

	// Somebody unplugs the device: it is plugged in again.
	tor.sw.Vsctl("del-port", "br-int", "eth3")
	waitFor(t, "the machine to reach the guest with its device plugged in again", func() bool { return pings(machine, pg.FixedIPs[0].Address) })

	// A device is one port's. What names no device leaves nothing on the switch when it goes.
	var second, absent *model.Port
	update(func(tx *store.Tx) error {
		at := func(profile string) (*model.Port, error) {
			host, raw := "tor-1", json.RawMessage(profile)
			return nw.CreatePort(tx, admin, network.PortSpec{NetworkID: pm.NetworkID, Host: &host, Profile: &raw})
		}
		var err error
		if second, err = at(`{"device":"eth3"}`); err != nil {
			return err
		}
		absent, err = at(`{"device":"eth9"}`)
		return err
	})
	failed := func(id model.ID) bool {
		p, ok := store.Ports.Get(st.Snapshot(), id)
		return ok && p.Status.State == model.PortDown && p.Status.Fault != ""
	}
	waitFor(t, "both to fail", func() bool { return failed(second.ID) && failed(absent.ID) })
	if state() != model.PortActive || !pings(machine, pg.FixedIPs[0].Address) {
		t.Error("a second port has taken the machine's device")
	}
	update(func(tx *store.Tx) error {
		return errors.Join(nw.DeletePort(tx, admin, second.ID), nw.DeletePort(tx, admin, absent.ID))
	})
	waitFor(t, "what was tried to be undone", func() bool { return !strings.Contains(tor.sw.Vsctl("list-ports", "br-int"), "eth9") })
	if !pings(machine, pg.FixedIPs[0].Address) {
		t.Error("the machine's device went with the second port")
	}

	// Unbound, the machine is out.
	update(func(tx *store.Tx) error {
		nobody := ""
		_, err := nw.UpdatePort(tx, admin, pm.ID, network.PortSpec{Host: &nobody})
		return err
	})
	waitFor(t, "the device to be unplugged", func() bool { return !strings.Contains(tor.sw.Vsctl("list-ports", "br-int"), "eth3") })
	if pings(machine, pg.FixedIPs[0].Address) {
		t.Error("the machine reaches the guest though its port is unbound")
	}
}
