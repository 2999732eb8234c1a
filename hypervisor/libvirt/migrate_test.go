package libvirt_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"yakumo/channel"
	"yakumo/channel/channeltest"
	"yakumo/hypervisor"
	"yakumo/hypervisor/hypertest"
	"yakumo/hypervisor/libvirt"
	"yakumo/hypervisor/libvirt/libvirttest"
	"yakumo/model"
)

// Guest gives a guest with a second disk that holds something.
func (h movingHost) Guest(t *testing.T) hypervisor.Guest {
	t.Helper()
	g := h.host.Guest(t)
	data := make([]byte, 2<<20)
	rand.Read(data)
	return withData(t, g, data)
}

func withData(t testing.TB, g hypervisor.Guest, data []byte) hypervisor.Guest {
	t.Helper()
	path := filepath.Join(filepath.Dir(g.Disks[0].Path), "data")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	g.Disks = append(g.Disks[:1:1], hypervisor.Disk{Path: path, Format: "raw", Serial: "data"})
	return g
}

// movingHost is a private libvirtd whose guests can move to another.
type movingHost struct{ host }

// Twin implements hypertest.MoveHost.
func (h movingHost) Twin(t *testing.T, g hypervisor.Guest) hypervisor.Guest {
	t.Helper()
	return h.twin(t, g)
}

func (h movingHost) twin(t testing.TB, g hypervisor.Guest) hypervisor.Guest {
	dir := filepath.Join(h.Dir(), "guests", g.ID)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	twin := g
	twin.ConsoleLog = filepath.Join(dir, "console.log")
	twin.Disks = nil
	for _, d := range g.Disks {
		info, err := os.Stat(d.Path)
		if err != nil {
			t.Fatal(err)
		}
		d.Path = filepath.Join(dir, filepath.Base(d.Path))
		if err := errors.Join(os.RemoveAll(d.Path), os.WriteFile(d.Path, nil, 0o600), os.Truncate(d.Path, info.Size())); err != nil {
			t.Fatal(err)
		}
		twin.Disks = append(twin.Disks, d)
	}
	return twin
}

func TestMoves(t *testing.T) {
	t.Parallel() // its daemons are its own
	hypertest.RunMoves(t, movingHost{host{libvirttest.Start(t)}}, movingHost{host{libvirttest.Start(t)}})
}

// deafened loses the answer to the call that makes the receiver run the guest.
type deafened struct {
	io.ReadWriteCloser
	told atomic.Bool
}

func (d *deafened) Write(b []byte) (int, error) {
	// REMOTE_PROGRAM, version 1, REMOTE_PROC_DOMAIN_MIGRATE_FINISH3_PARAMS
	if bytes.Contains(b, []byte{0x20, 0, 0x80, 0x86, 0, 0, 0, 1, 0, 0, 1, 0x32}) {
		d.told.Store(true)
	}
	return d.ReadWriteCloser.Write(b)
}

func (d *deafened) Read(b []byte) (int, error) {
	n, err := d.ReadWriteCloser.Read(b)
	if d.told.Load() {
		d.Close()
		return 0, io.ErrUnexpectedEOF
	}
	return n, err
}

// TestMoveWithoutAnAnswer: where nobody can tell whether the guest runs at the other end, it is held here.
func TestMoveWithoutAnAnswer(t *testing.T) {
	t.Parallel() // its daemons are its own
	a, b := movingHost{host{libvirttest.Start(t)}}, movingHost{host{libvirttest.Start(t)}}
	from, to := a.driver(t), b.driver(t)
	ctx, cancel := context.WithTimeout(context.Background(), hypertest.Deadline)
	defer cancel()
	g := a.Guest(t)
	own, others := cpusHere(t)
	g.CPUs = hypervisor.HostCPUs{Pins: map[int]int{0: own}, Emulator: others}
	if err := errors.Join(from.Ensure(ctx, g), from.Start(ctx, g.ID)); err != nil {
		t.Fatal(err)
	}
	twin := b.Twin(t, g)
	twin.CPUs = hypervisor.HostCPUs{Pins: map[int]int{0: others[0]}, Emulator: []int{own}} // there it has others
	r, err := to.Receive(ctx, twin)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	arrived, err := to.Watch(ctx)
	if err != nil {
		t.Fatal(err)
	}
	err = from.Send(ctx, g.ID, hypervisor.Passage{Guest: twin, CopyDisks: []string{twin.Disks[0].Serial, "data"},
		Dial: func(ctx context.Context, kind string) (io.ReadWriteCloser, error) {
			c, err := r.Dial(ctx, kind)
			if err == nil && kind == "control" {
				c = &deafened{ReadWriteCloser: c}
			}
			return c, err
		}})
	if !errors.Is(err, hypervisor.ErrUncertain) {
		t.Fatalf("Send says %v", err)
	}
	for s := range arrived {
		if s.Power == hypervisor.Running {
			wantPinned(t, b.GuestPID(t, twin.Name), "CPU 0/", others[0], []int{own})
			break
		}
	}
	states, err := from.List(ctx)
	if err != nil || len(states) != 1 || states[0].Power != hypervisor.Paused {
		t.Errorf("where it was the guest is %+v (%v)", states, err)
	}
	if err := errors.Join(from.Remove(ctx, g.ID), to.Remove(ctx, g.ID)); err != nil {
		t.Error(err)
	}
}

// BenchmarkMoveAgainstVirsh moves one guest of 256 MiB, alone and with disks full of data, in turns by the driver and by `virsh
// migrate --live --p2p`, which needs libvirt-clients. The driver's bytes go through channels between two hosts: mutual TLS
// over TCP. In the same turn the same bytes go over plain TCP, as fast as the underlay, which is the loopback here, takes them.
func BenchmarkMoveAgainstVirsh(b *testing.B) {
	for _, size := range []int{0, 64 << 20, 1 << 30} {
		b.Run(fmt.Sprintf("disk=%dMiB", size>>20), func(b *testing.B) {
			hosts := [2]movingHost{{host{libvirttest.Start(b)}}, {host{libvirttest.Start(b)}}}
			drivers := [2]*libvirt.Driver{hosts[0].driver(b), hosts[1].driver(b)}
			ctx := context.Background()
			g := hosts[0].guest(b, libvirttest.Sector{Greeting: hypertest.Greeting})
			g.MemoryMiB = 256
			data := make([]byte, max(size, 64<<20)) // less says little of TCP
			rand.Read(data)
			if size > 0 {
				g = withData(b, g, data)
			}
			if err := errors.Join(drivers[0].Ensure(ctx, g), drivers[0].Start(ctx, g.ID)); err != nil {
				b.Fatal(err)
			}
			defer func() {
				if err := errors.Join(drivers[0].Remove(ctx, g.ID), drivers[1].Remove(ctx, g.ID)); err != nil {
					b.Error(err)
				}
			}()
			// There and back first: a libvirtd looks at its QEMU when it first has a guest.
			sendByChannel(b, drivers[0], drivers[1], hosts[1].twin(b, g))
			g = hosts[0].twin(b, g)
			sendByVirsh(b, hosts[1], hosts[0], drivers[1], drivers[0], g)
			var ours, virsh, plain, stood time.Duration
			n := 0
			for b.Loop() {
				n++
				twin := hosts[1].twin(b, g)
				began := time.Now()
				sendByChannel(b, drivers[0], drivers[1], twin)
				ours += time.Since(began)
				if how, err := drivers[1].Progress(ctx, g.ID); err == nil {
					stood += how.Downtime
				}
				back := hosts[0].twin(b, twin)
				began = time.Now()
				sendByVirsh(b, hosts[1], hosts[0], drivers[1], drivers[0], back)
				virsh += time.Since(began)
				plain += overTCP(b, data)
				g = back
			}
			mbps := func(took time.Duration) float64 { return float64(n*len(data)) / 1e6 / took.Seconds() }
			b.ReportMetric(mbps(plain), "MB/s-tcp")
			if size > 0 {
				b.ReportMetric(mbps(ours), "MB/s-move")
				b.ReportMetric(mbps(virsh), "MB/s-virsh")
			}
			b.ReportMetric(ours.Seconds()/float64(n), "s/move")
			b.ReportMetric(virsh.Seconds()/float64(n), "s/virsh")
			b.ReportMetric(float64(stood.Milliseconds())/float64(n), "ms-still")
		})
	}
}

// overTCP sends data over a plain TCP connection and tells how long that took.
func overTCP(b *testing.B, data []byte) time.Duration {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer ln.Close()
	began := time.Now()
	go func() {
		c, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			b.Error(err)
			ln.Close()
			return
		}
		defer c.Close()
		if _, err := c.Write(data); err != nil {
			b.Error(err)
		}
	}()
	c, err := ln.Accept()
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	buf := make([]byte, 256<<10) // not io.Discard, whose reads are small
	n := 0
	for {
		k, err := c.Read(buf)
		if n += k; err != nil {
			break
		}
	}
	if n != len(data) {
		b.Fatalf("of %d bytes %d came", len(data), n)
	}
	return time.Since(began)
}

// sendByChannel moves a guest as two agents do.
func sendByChannel(b *testing.B, from, to *libvirt.Driver, twin hypervisor.Guest) {
	auth := channeltest.NewAuthority(b)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	r, err := to.Receive(ctx, twin)
	if err != nil {
		b.Fatal(err)
	}
	defer r.Close()
	s := channel.NewServer(channel.ServerConfig{Credentials: auth.Host("there")})
	s.Handle("move", func(ctx context.Context, _ model.ID, args json.RawMessage, conn net.Conn) error {
		var kind string
		if err := json.Unmarshal(args, &kind); err != nil {
			return err
		}
		far, err := r.Dial(ctx, kind)
		if err != nil {
			return err
		}
		return channel.Join(ctx, conn, far)
	})
	go s.Serve(ctx, ln)
	d := channel.Dialer{Credentials: auth.Host("here")}
	at := model.HostAt{HostID: "there", Channel: netip.MustParseAddrPort(ln.Addr().String())}
	pass := hypervisor.Passage{Guest: twin, AutoConverge: true, Dial: func(ctx context.Context, kind string) (io.ReadWriteCloser, error) {
		return d.Dial(ctx, at, "move", kind)
	}}
	for _, disk := range twin.Disks {
		pass.CopyDisks = append(pass.CopyDisks, disk.Serial)
	}
	if err := from.Send(ctx, twin.ID, pass); err != nil {
		b.Fatal(err)
	}
}

// sendByVirsh moves a guest by unix sockets of the two daemons, which this process does no more than join.
func sendByVirsh(b *testing.B, from, to movingHost, fromDriver, toDriver *libvirt.Driver, twin hypervisor.Guest) {
	b.Helper()
	if err := toDriver.Ensure(context.Background(), twin); err != nil {
		b.Fatal(err)
	}
	xml, err := exec.Command("virsh", "-c", "qemu+unix:///system?socket="+to.Socket(), "dumpxml", "--inactive", "--migratable", twin.Name).Output()
	if err != nil {
		b.Fatalf("virsh (of libvirt-clients): %v", err)
	}
	if err := toDriver.Remove(context.Background(), twin.ID); err != nil {
		b.Fatal(err)
	}
	there := filepath.Join(to.Dir(), "run", "bare")
	here := filepath.Join(from.Dir(), "run", "bare")
	for _, dir := range []string{here, there} {
		if err := errors.Join(os.RemoveAll(dir), os.MkdirAll(dir, 0o755)); err != nil {
			b.Fatal(err)
		}
	}
	// The bare way: the same folder for both, without anybody between.
	if err := os.Symlink(to.Socket(), filepath.Join(here, "control")); err != nil {
		b.Fatal(err)
	}
	for _, kind := range []string{"memory", "disks"} {
		if err := os.Symlink(filepath.Join(there, kind), filepath.Join(here, kind)); err != nil {
			b.Fatal(err)
		}
	}
	file := filepath.Join(b.TempDir(), "there.xml")
	if err := os.WriteFile(file, xml, 0o600); err != nil {
		b.Fatal(err)
	}
	argv := []string{"-c", "qemu+unix:///system?socket=" + from.Socket(), "migrate", "--live", "--p2p", "--persistent", "--undefinesource", "--auto-converge",
		"--copy-storage-inc", "--disks-uri", "unix:///run/libvirt/bare/disks", "--xml", file, "--persistent-xml", file, "--migrateuri", "unix:///run/libvirt/bare/memory",
		twin.Name, "qemu+unix:///system?socket=/run/libvirt/bare/control"}
	if out, err := exec.Command("virsh", argv...).CombinedOutput(); err != nil {
		b.Fatalf("virsh migrate: %v: %s", err, out)
	}
}
