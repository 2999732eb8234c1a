package ovs_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"yakumo/datapath/dptest"
	"yakumo/model"
)

// stack is a guest that is a network namespace with an IP stack of its own.
type stack struct {
	ns, dev, addr string
}

// newStack makes a guest behind a veth pair on a host. Its checksums are made by itself, as the
// user-space datapath wants them.
func newStack(t testing.TB, h *host, addr, mac string) *stack {
	t.Helper()
	s := &stack{ns: newNetns(t), dev: uniqueName("v"), addr: addr}
	ip(t, "-n", h.ns, "link", "add", "name", s.dev, "type", "veth", "peer", "name", "eth0", "netns", s.ns)
	t.Cleanup(func() { ip(t, "-n", h.ns, "link", "del", s.dev) })
	ip(t, "-n", s.ns, "link", "set", "eth0", "address", mac, "mtu", "1450")
	ip(t, "-n", s.ns, "addr", "add", addr+"/24", "dev", "eth0")
	ip(t, "-n", s.ns, "link", "set", "eth0", "up")
	ip(t, "-n", h.ns, "link", "set", s.dev, "up")
	for ns, dev := range map[string]string{s.ns: "eth0", h.ns: s.dev} {
		if out, err := exec.Command("ip", "netns", "exec", ns, "ethtool", "-K", dev, "tx", "off", "tso", "off", "gso", "off", "gro", "off").CombinedOutput(); err != nil {
			t.Fatalf("ethtool: %v: %s", err, out)
		}
	}
	return s
}

// dial opens a connection from the guest.
func (s *stack) dial(t testing.TB, network, addr string) net.Conn {
	t.Helper()
	var c net.Conn
	inNetns(t, s.ns, func() (err error) {
		c, err = net.DialTimeout(network, addr, 5*time.Second)
		return err
	})
	return c
}

const benchPort = "7001"

// throughput sends TCP for a while and gives megabits a second.
func throughput(t testing.TB, from, to *stack, during time.Duration) float64 {
	t.Helper()
	l := to.listen(t)
	defer l.Close()
	var got atomic.Int64
	ended := make(chan error, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			ended <- err
			return
		}
		defer c.Close()
		buf := make([]byte, 256<<10)
		for {
			n, err := c.Read(buf)
			got.Add(int64(n))
			if err != nil {
				if errors.Is(err, io.EOF) {
					err = nil
				}
				ended <- err
				return
			}
		}
	}()
	c := from.dial(t, "tcp", net.JoinHostPort(to.addr, benchPort))
	buf := make([]byte, 128<<10)
	began := time.Now()
	for time.Since(began) < during {
		if _, err := c.Write(buf); err != nil {
			t.Fatal(err)
		}
	}
	c.Close()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	return float64(got.Load()) * 8 / 1e6 / time.Since(began).Seconds()
}

func (s *stack) listen(t testing.TB) net.Listener {
	t.Helper()
	var l net.Listener
	inNetns(t, s.ns, func() (err error) {
		l, err = net.Listen("tcp", net.JoinHostPort(s.addr, benchPort))
		return err
	})
	return l
}

// connections opens and cuts connections one after another, and gives how many a second.
func connections(t testing.TB, from, to *stack, during time.Duration) float64 {
	t.Helper()
	l := to.listen(t)
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
	n, began := 0, time.Now()
	inNetns(t, from.ns, func() error {
		for ; time.Since(began) < during; n++ {
			c, err := net.DialTimeout("tcp", net.JoinHostPort(to.addr, benchPort), 5*time.Second)
			if err != nil {
				return err
			}
			if err := errors.Join(c.(*net.TCPConn).SetLinger(0), c.Close()); err != nil {
				return err
			}
		}
		return nil
	})
	return float64(n) / time.Since(began).Seconds()
}

// packets sends datagrams of 18 bytes (frames of 60) and gives how many arrive a second.
func packets(t testing.TB, from, to *stack, during time.Duration) float64 {
	t.Helper()
	pc := to.listenPacket(t)
	defer pc.Close()
	var got atomic.Int64
	var wg sync.WaitGroup
	wg.Go(func() {
		buf := make([]byte, 2048)
		for {
			if _, _, err := pc.ReadFrom(buf); err != nil {
				return
			}
			got.Add(1)
		}
	})
	c := from.dial(t, "udp", net.JoinHostPort(to.addr, benchPort))
	defer c.Close()
	began := time.Now()
	for buf := make([]byte, 18); time.Since(began) < during; {
		if _, err := c.Write(buf); err != nil && !errors.Is(err, unix.ENOBUFS) && !errors.Is(err, unix.ECONNREFUSED) {
			t.Fatal(err)
		}
	}
	n, took := got.Load(), time.Since(began)
	pc.Close()
	wg.Wait()
	return float64(n) / took.Seconds()
}

func (s *stack) listenPacket(t testing.TB) net.PacketConn {
	t.Helper()
	var pc net.PacketConn
	inNetns(t, s.ns, func() (err error) {
		pc, err = net.ListenPacket("udp", net.JoinHostPort(s.addr, benchPort))
		return err
	})
	return pc
}

// turns sends a datagram, waits for its echo, and so on; it gives turns a second.
func turns(t testing.TB, from, to *stack, during time.Duration) float64 {
	t.Helper()
	pc := to.listenPacket(t)
	defer pc.Close()
	go func() {
		buf := make([]byte, 2048)
		for {
			n, who, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			if _, err := pc.WriteTo(buf[:n], who); err != nil {
				return
			}
		}
	}()
	c := from.dial(t, "udp", net.JoinHostPort(to.addr, benchPort))
	defer c.Close()
	n, buf, began := 0, make([]byte, 56), time.Now()
	for time.Since(began) < during {
		if err := c.SetDeadline(time.Now().Add(time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write(buf); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Read(buf); errors.Is(err, os.ErrDeadlineExceeded) {
			continue // lost
		} else if err != nil {
			t.Fatal(err)
		}
		n++
	}
	return float64(n) / time.Since(began).Seconds()
}

// plainBridge joins two ports of a bridge by the shortest flows there are: what comes in at the one
// goes out at the other, with no look at it.
func plainBridge(h *host, a, b string) {
	h.sw.Vsctl("--may-exist", "add-br", "br-plain", "--", "set", "bridge", "br-plain", "datapath_type=netdev", "fail_mode=secure", "protocols=OpenFlow15",
		"--", "add-port", "br-plain", a)
	if !strings.HasPrefix(b, "pl-") {
		h.sw.Vsctl("add-port", "br-plain", b)
	}
	h.sw.Ofctl("add-flow", h.sw.Mgmt("br-plain"), fmt.Sprintf("in_port=%s,actions=output:%s", a, b))
	h.sw.Ofctl("add-flow", h.sw.Mgmt("br-plain"), fmt.Sprintf("in_port=%s,actions=output:%s", b, a))
}

// pair is two guests and how they are joined.
type pair struct{ a, b *stack }

// pairs makes two guests on the full pipeline (port security, stateful groups with a remote group and ports,
// tunnels by flow) and two on the plain one, on the same switches.
func pairs(b *testing.B, across bool) (full, plain pair) {
	f := newFabric(b)
	h1 := f.newHost(b)
	h2 := h1
	if across {
		h2 = f.newHost(b)
	}
	rows := [2][]model.HostRow{}
	for i := range rows {
		g := dptest.AllowAll("g")
		g.Rules = []model.HostRule{{ID: "out", Direction: model.Egress, EtherType: model.IPv4},
			{ID: "members", Direction: model.Ingress, EtherType: model.IPv4, RemoteGroupID: "g"},
			{ID: "web", Direction: model.Ingress, EtherType: model.IPv4, Protocol: "tcp", PortMin: num(80), PortMax: num(90)}}
		rows[i] = append(rows[i], dptest.NewNetwork("n", 4242), g)
	}
	ports := []*model.HostPort{dptest.NewPort("n", 4242, "a", 5, "g"), dptest.NewPort("n", 4242, "b", 6, "g")}
	hosts := []*host{h1, h2}
	for i, p := range ports {
		for j := range rows {
			rows[j] = append(rows[j], &model.HostMember{GroupID: "g", PortID: p.ID, Prefixes: []netip.Prefix{netip.PrefixFrom(p.FixedIPs[0].Address, 32)}})
			if hosts[i] == hosts[j] {
				if i == j || !across && j == 0 {
					rows[j] = append(rows[j], p)
				}
			} else if across {
				rows[j] = append(rows[j], dptest.PeerOf(p, hosts[i].addr))
			}
		}
	}
	for i, h := range hosts {
		if i == 1 && !across {
			break
		}
		prune(b, h, rows[i])
	}
	stacks := [2]*stack{}
	for i, p := range ports {
		stacks[i] = newStack(b, hosts[i], p.FixedIPs[0].Address.String(), p.MAC)
		if err := hosts[i].drv.Attach(context.Background(), p.ID, stacks[i].dev); err != nil {
			b.Fatal(err)
		}
		dptest.WaitFor(b, "the port to be wired", func() bool { return hosts[i].drv.Installed(p.ID) })
	}
	full = pair{stacks[0], stacks[1]}
	plain = pair{newStack(b, h1, "10.9.0.5", "02:00:00:00:09:05"), newStack(b, h2, "10.9.0.6", "02:00:00:00:09:06")}
	if !across {
		plainBridge(h1, plain.a.dev, plain.b.dev)
		return full, plain
	}
	for i, h := range hosts {
		h.sw.Vsctl("add-br", "br-plain", "--", "set", "bridge", "br-plain", "datapath_type=netdev", "fail_mode=secure", "protocols=OpenFlow15",
			"--", "add-port", "br-plain", "pl-vx", "--", "set", "interface", "pl-vx", "type=vxlan", "options:remote_ip="+hosts[1-i].addr.String(), "options:local_ip="+h.addr.String(), "options:key=99", "options:dst_port=4790")
	}
	plainBridge(h1, plain.a.dev, "pl-vx")
	plainBridge(h2, plain.b.dev, "pl-vx")
	return full, plain
}

// BenchmarkAgainstPlain compares the whole pipeline with the plainest on the same switches, in turns. The
// metrics are the medians of both and their ratio, 1 being as fast as no pipeline at all.
func BenchmarkAgainstPlain(b *testing.B) {
	const rounds, during = 5, time.Second
	for _, across := range []bool{false, true} {
		where := map[bool]string{false: "same-host", true: "cross-host"}[across]
		for _, m := range []struct {
			name, unit string
			measure    func(testing.TB, *stack, *stack, time.Duration) float64
		}{{"tcp", "Mbit/s", throughput}, {"packets", "packets/s", packets}, {"connections", "connections/s", connections}, {"ping", "turns/s", turns}} {
			b.Run(where+"/"+m.name, func(b *testing.B) {
				full, plain := pairs(b, across)
				m.measure(b, full.a, full.b, during/5) // the first packets set caches and neighbours up
				m.measure(b, plain.a, plain.b, during/5)
				b.ResetTimer()
				for range b.N {
					var of, op, ratios []float64
					for range rounds {
						x, y := m.measure(b, full.a, full.b, during), m.measure(b, plain.a, plain.b, during)
						of, op, ratios = append(of, x), append(op, y), append(ratios, x/y)
					}
					slices.Sort(of)
					slices.Sort(op)
					slices.Sort(ratios)
					b.ReportMetric(of[rounds/2], m.unit)
					b.ReportMetric(op[rounds/2], "plain-"+m.unit)
					b.ReportMetric(ratios[rounds/2], "full/plain")
				}
			})
		}
	}
}
