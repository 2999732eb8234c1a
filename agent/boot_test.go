package agent

import (
	"context"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netns"

	"yakumo/datapath"
	"yakumo/datapath/ovs"
	"yakumo/hypervisor/libvirt"
	"yakumo/hypervisor/libvirt/libvirttest"
	"yakumo/link"
	"yakumo/model"
	"yakumo/openflow/ovstest"
)

// TestBoot boots one real guest with the real libvirt and the real switch, and plays the server.
func TestBoot(t *testing.T) {
	image := miniImage(t)
	daemon := libvirttest.Start(t)
	ns := daemon.NetNS()
	sw := ovstest.Start(t, ovstest.InNetns(ns))
	ip := func(args ...string) {
		t.Helper()
		if out, err := exec.Command("ip", append([]string{"-n", ns}, args...)...).CombinedOutput(); err != nil {
			t.Fatalf("ip %s: %v: %s", strings.Join(args, " "), err, out)
		}
	}
	ip("link", "set", "lo", "up")
	sw.Vsctl("add-br", "br-ul", "--", "set", "bridge", "br-ul", "datapath_type=netdev")
	ip("addr", "add", "192.0.2.1/24", "dev", "br-ul")
	ip("link", "set", "br-ul", "up")

	dir := daemon.Dir() + "/state"
	if err := os.MkdirAll(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	ord, err := datapath.OpenOrdinals(filepath.Join(dir, "ordinals"))
	if err != nil {
		t.Fatal(err)
	}
	var a *Agent
	dp, err := ovs.Open(ovs.Config{
		OVSDB: sw.DB(), RunDir: sw.Rundir, Datapath: ovs.DatapathNetdev, TunnelIP: netip.MustParseAddr("192.0.2.1"),
		Ordinals: ord, Netns: "/run/netns/" + ns, Log: quiet(t),
		Notify: func(e datapath.Event) { a.Notice(e) },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := dp.Close(); err != nil {
			t.Errorf("close the data path: %v", err)
		}
	})
	hv, err := libvirt.New(libvirt.Config{SocketPath: daemon.Socket(), Accelerator: "tcg", GuestDir: dir, Log: quiet(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := hv.Close(); err != nil {
			t.Errorf("close the hypervisor: %v", err)
		}
	})
	data, err := os.ReadFile(image)
	if err != nil {
		t.Fatal(err)
	}
	lk := newServerSide()
	sum := sha512.Sum512(data)
	img := model.ImageCopy{
		ImageID: model.NewID(), BlobID: model.NewID(), Format: "qcow2", Size: int64(len(data)), VirtualSize: virtualSize(t, image),
		HashAlgo: "sha512", HashValue: hex.EncodeToString(sum[:]),
	}
	lk.blobs[img.BlobID] = data
	a, err = New(Config{
		Dir: dir, Link: lk.attach, Hypervisor: hv, Datapath: dp, Taps: KernelTaps{Netns: "/run/netns/" + ns},
		TunnelIP: netip.MustParseAddr("192.0.2.1"), HostName: "h1", Zone: "nova", Version: "test",
		Metadata: netip.MustParseAddrPort("169.254.64.1:8775"), Log: quiet(t),
		Listen: func() (ln net.Listener, err error) {
			inside(t, ns, func() error { ln, err = net.Listen("tcp4", "0.0.0.0:8775"); return err })
			return ln, err
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- a.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the agent ended: %v", err)
		}
	})

	id, subnet := model.NewID(), model.NewID()
	network := &model.HostNetwork{ID: model.NewID(), VNI: 4711, MTU: 1450, Subnets: []model.HostSubnet{{
		ID: subnet, CIDR: netip.MustParsePrefix("10.5.0.0/24"), Gateway: netip.MustParseAddr("10.5.0.1"), DHCP: true,
	}}}
	group := &model.HostGroup{ID: model.NewID(), Stateful: true, Rules: []model.HostRule{{ID: model.NewID(), Direction: "egress", EtherType: "IPv4"}}}
	port := &model.HostPort{
		ID: model.NewID(), NetworkID: network.ID, VNI: 4711, MAC: "fa:16:3e:00:00:05", AdminStateUp: true, PortSecurity: true,
		FixedIPs: []model.FixedIP{{SubnetID: subnet, Address: netip.MustParseAddr("10.5.0.9")}}, Groups: []model.ID{group.ID},
		DeviceID: id, HostName: "first", Generation: 1,
	}
	// The user data comes from the config drive; the rest of what it prints from the metadata service.
	script := "#!/bin/sh\nG='curl -s -m 10 http://169.254.169.254'\n" +
		"echo \"key: $($G/latest/meta-data/public-keys/0/openssh-key) id: $($G/latest/meta-data/instance-id)\"\n" +
		"echo \"mtu: $(cat /sys/class/net/eth0/mtu) none: $($G/latest/nothing -o /dev/null -w '%{http_code}')\"\n"
	row := &model.HostServer{
		ID: id, Name: "first", HostName: "first", Zone: "nova", FlavorName: "m1.tiny", VCPUs: 1, MemoryMiB: 128, DiskGiB: 1, Image: img,
		NICs: []model.HostNIC{{PortID: port.ID, MAC: port.MAC, MTU: 1450}}, KeyName: "k", PublicKey: "ssh-ed25519 AAAAC3test somebody",
		UserData: base64.StdEncoding.EncodeToString([]byte(script)), ConfigDrive: true, Power: model.PowerRunning, Generation: 1, CreatedAt: time.Now(),
	}
	began := time.Now()
	lk.apply(t, model.HostBatch{Full: true, Generation: 10, Upserts: []model.HostRow{network, group, port, row}})
	console := func() string {
		q, err := json.Marshal(model.ConsoleQuery{ServerID: id})
		if err != nil {
			t.Fatal(err)
		}
		b, err := a.Answer(ctx, "console", q)
		if err != nil {
			t.Fatalf("console: %v", err)
		}
		return string(b)
	}
	t.Cleanup(func() {
		if t.Failed() {
			c := console()
			t.Logf("console:\n%s\nreports: %+v", c[max(0, len(c)-4000):], lk.server(id))
		}
	})
	waitFor(t, "the server to be ready", func() bool {
		r := lk.server(id)
		if r.Fault != nil {
			t.Fatalf("fault: %+v", r.Fault)
		}
		return r.Phase == model.PhaseReady && r.Power == model.PowerRunning
	})
	t.Logf("running after %v", time.Since(began))
	if p := lk.port(port.ID); p.State != "ACTIVE" || p.Generation != 1 {
		t.Errorf("the port of a running guest is %+v", p)
	}
	for _, want := range []string{
		"10.5.0.9/24 by DHCP", "data source: config drive", "key: ssh-ed25519 AAAAC3test somebody id: i-" + strings.ReplaceAll(id, "-", "")[:17],
		"mtu: 1450 none: 404",
	} {
		waitFor(t, fmt.Sprintf("the console to show %q", want), func() bool { return strings.Contains(console(), want) })
	}
	t.Logf("its user data done after %v", time.Since(began))
	waitFor(t, "the last step", func() bool { return len(lk.server(id).Steps) == 3 })
	for _, s := range lk.server(id).Steps {
		t.Logf("step %s: %v", s.Step, s.FinishedAt.Sub(s.StartedAt))
	}

	off := *row
	off.Power, off.Generation = model.PowerOff, 2
	lk.apply(t, model.HostBatch{Generation: 11, Upserts: []model.HostRow{&off}})
	waitFor(t, "the guest to shut down", func() bool { r := lk.server(id); return r.Power == model.PowerOff && r.Generation == 2 })

	gone := off
	gone.Deleted, gone.Generation = true, 3
	lk.apply(t, model.HostBatch{Generation: 12, Upserts: []model.HostRow{&gone}})
	waitFor(t, "the server to be gone", func() bool { return lk.server(id).Gone })
	if list, err := hv.List(ctx); err != nil || len(list) > 0 {
		t.Errorf("guests left: %v, %v", list, err)
	}
	if names, err := (KernelTaps{Netns: "/run/netns/" + ns}).List(ctx, "yk"); err != nil || len(names) > 1 || names[0] != "yk-md0" { // the data path's own
		t.Errorf("taps left: %v, %v", names, err)
	}
	if left, err := os.ReadDir(filepath.Join(dir, "servers")); err != nil || len(left) > 0 {
		t.Errorf("folders left: %v, %v", left, err)
	}
	if c := dp.Counters(); c.Rejected > 0 || c.Conflicts > 0 {
		t.Errorf("the switch refused entries: %+v", c)
	}
}

// inside runs f in a network namespace.
func inside(t testing.TB, ns string, f func() error) {
	t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and the thread ends with the goroutine
		home, err := netns.Get()
		if err == nil {
			defer home.Close()
			var h netns.NsHandle
			if h, err = netns.GetFromName(ns); err == nil {
				defer h.Close()
				if err = netns.Set(h); err == nil {
					if err = errors.Join(f(), netns.Set(home)); err == nil {
						runtime.UnlockOSThread()
					}
				}
			}
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatalf("in namespace %s: %v", ns, err)
	}
}

// miniImage gives the guest image of tests: that of $YAKUMO_MINI, or one that is built once.
func miniImage(t testing.TB) string {
	t.Helper()
	if file := os.Getenv("YAKUMO_MINI"); file != "" {
		return file
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(cache, "yakumo", "yakumo-mini.qcow2")
	if out, err := exec.Command("../images/mini/build.sh", file).CombinedOutput(); err != nil {
		t.Fatalf("build the guest image: %v\n%s", err, out)
	}
	return file
}

func virtualSize(t testing.TB, image string) int64 {
	t.Helper()
	out, err := exec.Command("qemu-img", "info", "--output=json", image).Output()
	if err != nil {
		t.Fatal(err)
	}
	var info struct {
		Size int64 `json:"virtual-size"`
	}
	if err := json.Unmarshal(out, &info); err != nil {
		t.Fatal(err)
	}
	return info.Size
}

var _ Link = (*link.Client)(nil)
