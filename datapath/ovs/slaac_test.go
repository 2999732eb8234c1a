package ovs_test

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"yakumo/datapath/dptest"
	"yakumo/datapath/pipeline"
	"yakumo/model"
)

// The kernels of two guests on two hosts configure themselves by router advertisements, check their
// addresses, find each other and their router, and talk.
func TestKernelSLAAC(t *testing.T) {
	t.Parallel() // it waits more than it works
	const vni = 5_000_001
	f := newFabric(t)
	h0, h1 := f.newHost(t), f.newHost(t)
	router := &model.HostRouter{ID: "r", AdminStateUp: true, Interfaces: []model.HostRouterPort{{PortID: "ri", NetworkID: "net", VNI: vni, MAC: "fa:16:3e:aa:00:01", MTU: 1450,
		Addresses: []netip.Prefix{netip.MustParsePrefix("fd00::1/64")}}}}
	ports := [2]*model.HostPort{dptest.NewPort("net", vni, "a", 5, "all"), dptest.NewPort("net", vni, "b", 6, "all")}
	for _, p := range ports {
		p.FixedIPs = append(p.FixedIPs, model.FixedIP{SubnetID: "net-subnet6", Address: model.EUI64(netip.MustParsePrefix("fd00::/64"), p.MAC)})
	}
	prune(t, h0, []model.HostRow{dptest.DualNetwork("net", vni, model.SLAAC, h1.addr), dptest.AllowAll6("all"), router, ports[0], dptest.PeerOf(ports[1], h1.addr)})
	prune(t, h1, []model.HostRow{dptest.DualNetwork("net", vni, model.SLAAC, h0.addr), dptest.AllowAll6("all"), router, ports[1], dptest.PeerOf(ports[0], h0.addr)})
	guests := [2]*kernelGuest{bootKernel(t, h0, ports[0], 1500), bootKernel(t, h1, ports[1], 1500)}
	for _, g := range guests {
		inNetns(t, g.ns, func() error { return os.WriteFile("/proc/sys/net/ipv6/conf/eth0/disable_ipv6", []byte("0"), 0) })
	}
	show := func(g *kernelGuest, what ...string) string {
		out, err := exec.Command("ip", append([]string{"-n", g.ns, "-6"}, what...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("ip -6 %v: %v: %s", what, err, out)
		}
		return string(out)
	}
	for _, g := range guests {
		want := g.port.FixedIPs[1].Address.String() + "/64"
		dptest.WaitFor(t, "the address of "+g.port.ID, func() bool {
			s := show(g, "-o", "addr", "show", "dev", "eth0", "-tentative")
			return strings.Contains(s, want) && !strings.Contains(s, "dadfailed")
		})
		mac, err := pipeline.ParseMAC(router.Interfaces[0].MAC)
		if err != nil {
			t.Fatal(err)
		}
		dptest.WaitFor(t, "the default route of "+g.port.ID, func() bool {
			s := show(g, "route", "show", "default")
			return strings.Contains(s, "via "+pipeline.LinkLocal(mac).String()) && strings.Contains(s, "mtu 1450")
		})
	}
	for i, g := range guests {
		far := guests[1-i]
		for _, to := range []string{far.port.FixedIPs[1].Address.String(), linkLocalOf(t, far) + "%eth0", "fd00::1"} {
			dptest.WaitFor(t, g.port.ID+" to reach "+to, func() bool {
				_, got, _ := g.ping(t, "-6", "-c", "1", "-W", "1", to)
				return got == 1
			})
		}
		if sent, got, out := g.ping(t, "-6", "-c", "5", "-i", "0.01", "-s", "1400", far.port.FixedIPs[1].Address.String()); got != sent {
			t.Errorf("%d of %d came back\n%s", got, sent, out)
		}
	}
	// The host's services are found by IPv6 too.
	env := pipeline.DefaultEnv()
	a := guests[0]
	for _, c := range []struct {
		network string
		at      netip.AddrPort
		port    string
	}{{"tcp6", env.MetadataListener6(), "80"}, {"tcp6", env.DNSListener6(), "53"}, {"udp6", env.DNSListener6(), "53"}} {
		say := func(from net.Addr) []byte {
			owner, ok := a.host.drv.MetadataOwner(netip.MustParseAddrPort(from.String()).Addr())
			return fmt.Appendf(nil, "%s %v %v", owner.Port, owner.Address, ok)
		}
		if c.network == "udp6" {
			var pc net.PacketConn
			inNetns(t, a.host.ns, func() (err error) { pc, err = net.ListenPacket("udp6", c.at.String()); return err })
			defer pc.Close()
			go func() {
				b := make([]byte, 100)
				for {
					_, from, err := pc.ReadFrom(b)
					if err != nil {
						return
					}
					pc.WriteTo(say(from), from)
				}
			}()
		} else {
			var l net.Listener
			inNetns(t, a.host.ns, func() (err error) { l, err = net.Listen("tcp6", c.at.String()); return err })
			defer l.Close()
			go func() {
				for {
					conn, err := l.Accept()
					if err != nil {
						return
					}
					conn.Write(say(conn.RemoteAddr()))
					conn.Close()
				}
			}()
		}
		var conn net.Conn
		inNetns(t, a.ns, func() (err error) {
			conn, err = net.DialTimeout(c.network, net.JoinHostPort(pipeline.ServiceAddr6.String()+"%eth0", c.port), dptest.Patience)
			return err
		})
		if _, err := conn.Write([]byte("?")); err != nil {
			t.Fatal(err)
		}
		if err := conn.SetReadDeadline(time.Now().Add(dptest.Patience)); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 100)
		n, err := conn.Read(b)
		if want := "a " + linkLocalOf(t, a) + " true"; err != nil || string(b[:n]) != want {
			t.Fatalf("%s port %s: got %q, %v; want %q", c.network, c.port, b[:n], err, want)
		}
		conn.Close()
	}
}

func linkLocalOf(t *testing.T, g *kernelGuest) string {
	t.Helper()
	mac, err := pipeline.ParseMAC(g.port.MAC)
	if err != nil {
		t.Fatal(err)
	}
	return pipeline.LinkLocal(mac).String()
}
