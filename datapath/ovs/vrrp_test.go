package ovs_test

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"yakumo/datapath/dptest"
	"yakumo/model"
)

// keepalived runs the real one in a guest, and gives what stops it as a crash does.
func keepalived(t *testing.T, g *kernelGuest, priority int, vip netip.Addr, options string) (crash func()) {
	t.Helper()
	held := vip.String() + "/16"
	if vip.Is6() {
		held, options = vip.String()+"/64", options+" version 3"
	}
	dir := t.TempDir()
	conf := filepath.Join(dir, "keepalived.conf")
	text := fmt.Sprintf(`global_defs {
    router_id %s
}
vrrp_instance vip {
    state BACKUP
    interface eth0
    virtual_router_id 7
    priority %d
    advert_int 1
    garp_master_delay 1
    %s
    virtual_ipaddress {
        %s
    }
}
`, g.port.ID, priority, options, held)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	cmd := exec.Command("ip", "netns", "exec", g.ns, "keepalived", "--dont-fork", "--log-console", "--log-detail", "--vrrp", "--use-file", conf,
		"--pid", filepath.Join(dir, "pid"), "--vrrp_pid", filepath.Join(dir, "vrrp_pid"))
	cmd.Stdout, cmd.Stderr = &log, &log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	dead := false
	crash = func() {
		if !dead {
			dead = true
			if err := syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL); err != nil {
				t.Errorf("kill keepalived: %v", err)
			}
			_ = cmd.Wait() // killed
		}
	}
	t.Cleanup(func() {
		crash()
		if t.Failed() {
			t.Logf("keepalived of %s:\n%s", g.port.ID, log.String())
		}
	})
	return crash
}

// Two guests on two hosts share an address by the real keepalived, with and without a MAC of its own; a
// third guest reaches it again after the one that holds it is cut off, because it is told where it is now; and so does a
// fourth, on a host without a port in their network, behind a router.
func TestVRRP(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, options string
		vmac          bool
		vip           string
	}{{"the guests' MACs", "", false, "10.0.0.100"}, {"a virtual MAC", "use_vmac", true, "10.0.0.100"}, {"IPv6", "", false, "fd00::100"}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			const virtual = "00:00:5e:00:01:07"
			vip := netip.MustParseAddr(c.vip)
			f := newFabric(t)
			h0, h1, h2 := f.newHost(t), f.newHost(t), f.newHost(t)
			router, far, pd := behindRouter()
			pa, pb, pc := dptest.NewPort("net", 5_000_000, "a", 5, "all"), dptest.NewPort("net", 5_000_000, "b", 6, "all"), dptest.NewPort("net", 5_000_000, "c", 7, "all")
			for _, p := range []*model.HostPort{pa, pb, pc} {
				if vip.Is6() {
					p.FixedIPs = append(p.FixedIPs, model.FixedIP{SubnetID: "net-subnet6", Address: model.EUI64(netip.MustParsePrefix("fd00::/64"), p.MAC)})
				}
			}
			for _, p := range []*model.HostPort{pa, pb} {
				p.Pairs = []model.AddressPair{{Prefix: netip.PrefixFrom(vip, vip.BitLen())}}
				if c.vmac { // advertisements and ARP have the virtual MAC, answers may leave by the guest's own
					p.Pairs = append(p.Pairs, model.AddressPair{Prefix: netip.PrefixFrom(vip, 32), MAC: virtual}, model.AddressPair{Prefix: netip.PrefixFrom(p.FixedIPs[0].Address, 32), MAC: virtual})
				}
			}
			newDesk(t, []*host{h0, h1, h2},
				[]model.HostRow{dptest.DualNetwork("net", 5_000_000, model.SLAAC, h1.addr), dptest.AllowAll6("all"), pa, pc, dptest.PeerOf(pb, h1.addr), far, router, dptest.PeerOf(pd, h2.addr)},
				[]model.HostRow{dptest.DualNetwork("net", 5_000_000, model.SLAAC, h0.addr), dptest.AllowAll6("all"), pb, dptest.PeerOf(pa, h0.addr), dptest.PeerOf(pc, h0.addr), far, router, dptest.PeerOf(pd, h2.addr)},
				[]model.HostRow{dptest.DualNetwork("net", 5_000_000, model.SLAAC), dptest.AllowAll6("all"), pd, dptest.PeerOf(pa, h0.addr), dptest.PeerOf(pc, h0.addr), dptest.PeerOf(pb, h1.addr), far, router})
			a, b, third, away := bootKernel(t, h0, pa, 1450), bootKernel(t, h1, pb, 1450), bootKernel(t, h0, pc, 1450), bootKernel(t, h2, pd, 1450)
			routeVia(t, away, a, b)
			if vip.Is6() {
				for _, g := range []*kernelGuest{a, b, third, away} {
					inNetns(t, g.ns, func() error {
						for _, k := range []string{"all", "default", "eth0"} {
							if err := os.WriteFile("/proc/sys/net/ipv6/conf/"+k+"/disable_ipv6", []byte("0"), 0); err != nil {
								return err
							}
						}
						return nil
					})
				}
				dptest.WaitFor(t, "the third guest's address", func() bool {
					out, err := exec.Command("ip", "-n", third.ns, "-6", "-o", "addr", "show", "dev", "eth0", "scope", "global", "-tentative").CombinedOutput()
					return err == nil && len(out) > 0
				})
			}
			inNetns(t, third.ns, func() error { // it does not ask by itself again
				err := os.WriteFile("/proc/sys/net/ipv4/neigh/eth0/base_reachable_time_ms", []byte("3600000"), 0)
				return errors.Join(err, os.WriteFile("/proc/sys/net/ipv6/neigh/eth0/base_reachable_time_ms", []byte("3600000"), 0))
			})
			if vip.Is6() {
				routeVia6(t, away, a, b)
			}
			reaches := func(g *kernelGuest, to netip.Addr) bool {
				_, got, _ := g.ping(t, "-c", "1", "-W", "1", to.String())
				return got == 1
			}
			reach := func(to netip.Addr) bool { return reaches(third, to) }
			dptest.WaitFor(t, "the underlay to learn its neighbours", func() bool {
				return reach(b.addr()) && reaches(away, a.addr()) && reaches(away, b.addr())
			})
			if reaches(away, vip) {
				t.Error("an address that nobody holds is reached")
			}
			holds := func(g *kernelGuest) bool {
				out, err := exec.Command("ip", "-n", g.ns, "-o", "addr").CombinedOutput()
				if err != nil {
					t.Fatalf("addresses of %s: %v: %s", g.port.ID, err, out)
				}
				return strings.Contains(string(out), vip.String()+"/")
			}
			crash := keepalived(t, a, 150, vip, c.options)
			keepalived(t, b, 100, vip, c.options)
			dptest.WaitFor(t, "a to hold the address", func() bool { return holds(a) && reach(vip) })
			dptest.WaitFor(t, "b to hear of it", func() bool { return !holds(b) })
			dptest.WaitFor(t, "the router to find a", func() bool { return reaches(away, vip) })
			ip(t, "-n", a.ns, "link", "set", "eth0", "down") // it is gone from the network, as with its host
			crash()
			start := time.Now()
			dptest.WaitFor(t, "b to hold the address", func() bool { return reach(vip) })
			t.Logf("the address is back after %v", time.Since(start).Round(time.Millisecond))
			dptest.WaitFor(t, "the router to find b", func() bool { return reaches(away, vip) })
			t.Logf("behind the router it is back after %v", time.Since(start).Round(time.Millisecond))
			if !holds(b) {
				t.Error("the address came back, but not at b")
			}
			mac := b.port.MAC
			if c.vmac {
				mac = virtual
			}
			out, err := exec.Command("ip", "-n", third.ns, "neigh", "show", vip.String()).CombinedOutput()
			if err != nil || !strings.Contains(string(out), mac) {
				t.Errorf("the third guest knows it as %s (%v), want %s", out, err, mac)
			}
			if vip.Is6() {
				return
			}
			// A guest without the pair cannot take it.
			ip(t, "-n", third.ns, "addr", "add", "10.0.0.100/32", "dev", "lo")
			if _, got, _ := third.ping(t, "-c", "1", "-W", "0.3", "-I", vip.String(), b.addr().String()); got != 0 {
				t.Error("a guest without the pair has sent from the address")
			}
		})
	}
}
