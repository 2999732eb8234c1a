package ovs_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"yakumo/datapath/dptest"
	"yakumo/datapath/pipeline"
	"yakumo/model"
)

// kernelGuest is a namespace whose own IP stack is the guest.
type kernelGuest struct {
	ns   string
	port *model.HostPort
	host *host

	device string // the host's end
}

// bootKernel makes a guest out of a namespace and a veth pair, and wires its port.
func bootKernel(t testing.TB, h *host, p *model.HostPort, mtu int) *kernelGuest {
	t.Helper()
	g := &kernelGuest{ns: newNetns(t), port: p, host: h}
	dev := uniqueName("v")
	g.device = dev
	ip(t, "-n", h.ns, "link", "add", dev, "type", "veth", "peer", "name", "eth0", "netns", g.ns)
	t.Cleanup(func() { ip(t, "-n", h.ns, "link", "del", dev) })
	ip(t, "-n", h.ns, "link", "set", dev, "up")
	ip(t, "-n", g.ns, "link", "set", "eth0", "address", p.MAC, "mtu", strconv.Itoa(mtu), "up")
	ip(t, "-n", g.ns, "addr", "add", p.FixedIPs[0].Address.String()+"/16", "dev", "eth0")
	ip(t, "-n", g.ns, "route", "add", "169.254.169.254/32", "dev", "eth0")
	inNetns(t, g.ns, func() error { return noChecksumOffload("eth0") })
	ctx, cancel := context.WithTimeout(t.Context(), dptest.Patience)
	defer cancel()
	if err := h.drv.Attach(ctx, p.ID, dev); err != nil {
		t.Fatal(err)
	}
	dptest.WaitFor(t, "port "+p.ID, func() bool { return h.drv.Installed(p.ID) })
	return g
}

// noChecksumOffload makes the kernel fill in checksums itself: a user-space switch gets
// the packet as it is. It is "ethtool -K DEV tx off".
func noChecksumOffload(dev string) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	for _, cmd := range []uint32{unix.ETHTOOL_STXCSUM, unix.ETHTOOL_STSO, unix.ETHTOOL_SGSO, unix.ETHTOOL_SGRO} {
		value := struct{ cmd, data uint32 }{cmd, 0}
		var req struct {
			name [unix.IFNAMSIZ]byte
			data unsafe.Pointer
			_    [16]byte
		}
		copy(req.name[:], dev)
		req.data = unsafe.Pointer(&value)
		if _, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&req))); e != 0 {
			return fmt.Errorf("ethtool command %#x on %s: %w", cmd, dev, e)
		}
	}
	return nil
}

func (g *kernelGuest) addr() netip.Addr { return g.port.FixedIPs[0].Address }

// ping gives sent and received.
func (g *kernelGuest) ping(t testing.TB, args ...string) (sent, received int, out string) {
	t.Helper()
	b, err := exec.Command("ip", append([]string{"netns", "exec", g.ns, "ping", "-n"}, args...)...).CombinedOutput()
	m := regexp.MustCompile(`(\d+) packets transmitted, (\d+) (?:packets )?received`).FindSubmatch(b)
	if m == nil {
		t.Fatalf("ping %v: %v: %s", args, err, b)
	}
	sent, _ = strconv.Atoi(string(m[1]))
	received, _ = strconv.Atoi(string(m[2]))
	return sent, received, string(b)
}

// twoKernelGuests wires a guest on each of two hosts and gets the first packets through.
func twoKernelGuests(t testing.TB) (a, b *kernelGuest, rows [2][]model.HostRow) {
	f := newFabric(t)
	h0, h1 := f.newHost(t), f.newHost(t)
	pa, pb := dptest.NewPort("net", 5_000_000, "a", 5, "all"), dptest.NewPort("net", 5_000_000, "b", 6, "all")
	rows[0] = []model.HostRow{dptest.NewNetwork("net", 5_000_000, h1.addr), dptest.AllowAll("all"), pa, dptest.PeerOf(pb, h1.addr)}
	rows[1] = []model.HostRow{dptest.NewNetwork("net", 5_000_000, h0.addr), dptest.AllowAll("all"), pb, dptest.PeerOf(pa, h0.addr)}
	prune(t, h0, rows[0])
	prune(t, h1, rows[1])
	a, b = bootKernel(t, h0, pa, 1450), bootKernel(t, h1, pb, 1450)
	dptest.WaitFor(t, "the underlay to learn its neighbours", func() bool {
		_, got, _ := a.ping(t, "-c", "1", "-W", "1", b.addr().String())
		return got == 1
	})
	return a, b, rows
}

// exchange has one packet after the other go from a to b and back, each once the last has come back, until stop
// is called; it gives how many were sent. One that does not come back is lost: however busy the machine is, no
// queue between them can be full.
func exchange(t testing.TB, a, b *kernelGuest) (stop func() int) {
	t.Helper()
	var far net.PacketConn
	inNetns(t, b.ns, func() (err error) { far, err = net.ListenPacket("udp4", b.addr().String()+":7002"); return err })
	var c net.Conn
	inNetns(t, a.ns, func() (err error) { c, err = net.Dial("udp4", b.addr().String()+":7002"); return err })
	go func() {
		p := make([]byte, 64)
		for {
			n, from, err := far.ReadFrom(p)
			if err == nil {
				_, err = far.WriteTo(p[:n], from)
			}
			if err != nil {
				return // closed
			}
		}
	}()
	type end struct {
		n   int
		err error
	}
	ends, stopped := make(chan end, 1), make(chan struct{})
	turn := func(n int) error {
		sent, p := fmt.Appendf(nil, "packet %d", n), make([]byte, 64)
		if _, err := c.Write(sent); err != nil {
			return err
		}
		if err := c.SetReadDeadline(time.Now().Add(dptest.Patience)); err != nil {
			return err
		}
		k, err := c.Read(p)
		if err == nil && !bytes.Equal(p[:k], sent) {
			err = fmt.Errorf("the answer is %q", p[:k])
		}
		return err
	}
	go func() {
		for n := 0; ; n++ {
			select {
			case <-stopped:
				ends <- end{n, nil}
				return
			default:
			}
			if err := turn(n); err != nil {
				ends <- end{n, err}
				return
			}
		}
	}()
	return func() int {
		t.Helper()
		close(stopped)
		e := <-ends
		if e.err != nil || e.n == 0 {
			t.Errorf("after %d packets that came back: %v", e.n, e.err)
		}
		if err := errors.Join(c.Close(), far.Close()); err != nil {
			t.Error(err)
		}
		return e.n
	}
}

// waiting tells whether a packet is there to be read.
func waiting(t testing.TB, c net.PacketConn) (is bool) {
	t.Helper()
	raw, err := c.(*net.UDPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := raw.Control(func(fd uintptr) {
		_, _, e := unix.Recvfrom(int(fd), make([]byte, 8), unix.MSG_DONTWAIT)
		if err = e; e == unix.EAGAIN {
			err = nil
		}
		is = e == nil
	}); err != nil {
		t.Fatal(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return is
}

func prune(t testing.TB, h *host, rows []model.HostRow) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), dptest.Patience)
	defer cancel()
	if err := h.drv.Prune(ctx, func(yield func(model.HostRow) bool) {
		for _, r := range rows {
			if !yield(r) {
				return
			}
		}
	}); err != nil {
		t.Fatal(err)
	}
}

func TestKernelGuests(t *testing.T) {
	a, b, rows := twoKernelGuests(t)

	t.Run("full-size packets", func(t *testing.T) {
		if sent, got, out := a.ping(t, "-c", "5", "-i", "0.01", "-M", "do", "-s", strconv.Itoa(1450-28), b.addr().String()); got != sent {
			t.Fatalf("%d of %d came back\n%s", got, sent, out)
		}
	})

	t.Run("TCP", func(t *testing.T) {
		const size = 1 << 20
		var l net.Listener
		inNetns(t, b.ns, func() (err error) { l, err = net.Listen("tcp4", b.addr().String()+":7000"); return err })
		defer l.Close()
		got := make(chan int64, 1)
		go func() {
			c, err := l.Accept()
			if err != nil {
				got <- -1
				return
			}
			defer c.Close()
			n, _ := io.Copy(io.Discard, c)
			got <- n
		}()
		var c net.Conn
		inNetns(t, a.ns, func() (err error) {
			c, err = net.DialTimeout("tcp4", b.addr().String()+":7000", dptest.Patience)
			return err
		})
		if _, err := c.Write(make([]byte, size)); err != nil {
			t.Fatal(err)
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		if n := <-got; n != size {
			t.Fatalf("%d bytes arrived, want %d", n, size)
		}
	})

	t.Run("driver restart loses nothing", func(t *testing.T) {
		stop := exchange(t, a, b)
		for range 20 {
			a.host.RestartDriver(t)
			prune(t, a.host, rows[0])
		}
		t.Logf("%d packets and as many answers meanwhile", stop())
		dptest.WaitFor(t, "port a", func() bool { return a.host.drv.Installed("a") })
	})

	t.Run("metadata", func(t *testing.T) {
		env := pipeline.DefaultEnv()
		var l net.Listener
		inNetns(t, a.host.ns, func() (err error) { l, err = net.Listen("tcp4", env.MetadataListener.String()); return err })
		defer l.Close()
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				owner, ok := a.host.drv.MetadataOwner(netip.MustParseAddrPort(c.RemoteAddr().String()).Addr())
				fmt.Fprintf(c, "%s %v %v %s", owner.Port, owner.Address, ok, strings.Repeat("x", 100_000))
				c.Close()
			}
		}()
		for range 3 {
			var c net.Conn
			inNetns(t, a.ns, func() (err error) {
				c, err = net.DialTimeout("tcp4", "169.254.169.254:80", dptest.Patience)
				return err
			})
			all, err := io.ReadAll(c)
			if err != nil || !bytes.HasPrefix(all, []byte("a 10.0.0.5 true xxx")) || len(all) < 100_000 {
				t.Fatalf("got %d bytes %.40q, %v", len(all), all, err)
			}
			c.Close()
		}
	})

	t.Run("resolver", func(t *testing.T) {
		env := pipeline.DefaultEnv()
		var l net.Listener
		var pc net.PacketConn
		inNetns(t, a.host.ns, func() (err error) { l, err = net.Listen("tcp4", env.DNSListener().String()); return err })
		defer l.Close()
		inNetns(t, a.host.ns, func() (err error) { pc, err = net.ListenPacket("udp4", env.DNSListener().String()); return err })
		defer pc.Close()
		say := func(from net.Addr) []byte {
			owner, ok := a.host.drv.MetadataOwner(netip.MustParseAddrPort(from.String()).Addr())
			return fmt.Appendf(nil, "%s %v %v", owner.Port, owner.Address, ok)
		}
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				c.Write(say(c.RemoteAddr()))
				c.Close()
			}
		}()
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
		for _, network := range []string{"udp4", "tcp4"} {
			var c net.Conn
			inNetns(t, a.ns, func() (err error) {
				c, err = net.DialTimeout(network, "169.254.169.254:53", dptest.Patience)
				return err
			})
			if _, err := c.Write([]byte("?")); err != nil {
				t.Fatal(err)
			}
			if err := c.SetReadDeadline(time.Now().Add(dptest.Patience)); err != nil {
				t.Fatal(err)
			}
			b := make([]byte, 100)
			n, err := c.Read(b)
			if err != nil || string(b[:n]) != "a 10.0.0.5 true" {
				t.Fatalf("%s: got %q, %v", network, b[:n], err)
			}
			c.Close()
		}
	})

	t.Run("fragments", func(t *testing.T) {
		if sent, got, out := a.ping(t, "-c", "3", "-i", "0.01", "-s", "6000", b.addr().String()); got != sent {
			t.Fatalf("%d of %d came back\n%s", got, sent, out)
		}
	})

	t.Run("the host's own stack is out of reach", func(t *testing.T) {
		reach := func() bool {
			var l, c net.PacketConn
			inNetns(t, a.host.ns, func() (err error) { l, err = net.ListenPacket("udp4", a.host.addr.String()+":9"); return err })
			defer l.Close()
			inNetns(t, a.ns, func() (err error) { c, err = net.ListenPacket("udp4", a.addr().String()+":0"); return err })
			defer c.Close()
			if _, err := c.WriteTo([]byte("x"), net.UDPAddrFromAddrPort(netip.AddrPortFrom(a.host.addr, 9))); err != nil {
				t.Fatal(err)
			}
			dptest.WaitFor(t, "a ping behind it on the same device", func() bool {
				_, got, _ := a.ping(t, "-c", "1", "-W", "1", b.addr().String())
				return got == 1
			})
			return waiting(t, l)
		}
		out, err := exec.Command("ip", "-n", a.host.ns, "-o", "link", "show", "dev", a.device).Output()
		mac := regexp.MustCompile(`link/ether (\S+)`).FindSubmatch(out)
		if err != nil || mac == nil {
			t.Fatalf("MAC of %s: %v: %s", a.device, err, out)
		}
		ip(t, "-n", a.ns, "route", "add", a.host.addr.String(), "dev", "eth0")
		ip(t, "-n", a.ns, "neigh", "replace", a.host.addr.String(), "lladdr", string(mac[1]), "dev", "eth0")
		ip(t, "-n", a.host.ns, "route", "add", a.addr().String(), "dev", a.device) // or the kernel takes the packet for a forgery
		if reach() {
			t.Fatal("a guest's packet reached the host")
		}
		a.host.RestartSwitch(t)
		dptest.WaitFor(t, "port a", func() bool { return a.host.drv.Installed("a") })
		if reach() {
			t.Fatal("a guest's packet reached the host after a restart of the switch")
		}
		// The test can tell: without the shield it does.
		if out, err := exec.Command("ip", "netns", "exec", a.host.ns, "tc", "qdisc", "del", "dev", a.device, "clsact").CombinedOutput(); err != nil {
			t.Fatalf("remove the shield: %v: %s", err, out)
		}
		if !reach() {
			t.Fatal("nothing reached the host without the shield either")
		}
	})

	t.Run("a rule that goes cuts the connection", func(t *testing.T) {
		ctx := t.Context()
		if _, got, _ := a.ping(t, "-c", "1", b.addr().String()); got != 1 {
			t.Fatal("no answer before")
		}
		if err := b.host.drv.Apply(ctx, []model.HostRow{&model.HostGroup{ID: "all", Stateful: true}}, nil); err != nil {
			t.Fatal(err)
		}
		dptest.WaitFor(t, "silence", func() bool { _, got, _ := a.ping(t, "-c", "1", "-W", "1", b.addr().String()); return got == 0 })
		if err := b.host.drv.Apply(ctx, []model.HostRow{dptest.AllowAll("all")}, nil); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		dptest.WaitFor(t, "an answer", func() bool { _, got, _ := a.ping(t, "-c", "1", "-W", "1", b.addr().String()); return got == 1 })
		t.Logf("answer again after %v", time.Since(start))
	})
}
