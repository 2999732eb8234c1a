package agent

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha512"
	"encoding/hex"
	"encoding/json"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"yakumo/datapath"
	"yakumo/datapath/ovs"
	"yakumo/hypervisor"
	"yakumo/hypervisor/container"
	"yakumo/hypervisor/libvirt"
	"yakumo/hypervisor/libvirt/libvirttest"
	"yakumo/model"
	"yakumo/openflow/ovstest"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == container.Word {
		os.Exit(container.Main(os.Args))
	}
	os.Exit(m.Run())
}

// containerInit gets an address by DHCP, asks the metadata service for its name, and pings the other container until it answers.
const containerInit = `#!/bin/sh
trap 'exit 0' PWR
ip link set lo up
ip link set eth0 up
cat >/script <<'S'
#!/bin/sh
[ "$1" = bound ] || exit 0
ip addr add $ip/$mask dev eth0
set -- $staticroutes
while [ $# -gt 1 ]; do ip route add $1 via $2 dev eth0; shift 2; done
S
chmod 755 /script
udhcpc -i eth0 -O 121 -q -f -t 100 -T 1 -s /script >/dev/null
echo "address $(ip -4 -o addr show dev eth0 | grep -o '10\.5\.0\.[0-9]*/') mtu $(cat /sys/class/net/eth0/mtu)"
name=
until [ -n "$name" ]; do
  name=$(printf 'GET /latest/meta-data/hostname HTTP/1.0\r\nHost: metadata\r\n\r\n' | nc -w 10 169.254.169.254 80 | grep '^c')
done
echo "name $name"
for peer in 10.5.0.8 10.5.0.9; do
  until ping -c 1 -W 2 $peer >/dev/null 2>&1; do sleep 1; done
  echo "reached $peer"
done
while :; do sleep 1 & wait; done
`

// containerImage gives an archive of busybox with that init.
func containerImage(t *testing.T) []byte {
	t.Helper()
	box, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	w := tar.NewWriter(z)
	add := func(h tar.Header, data string) {
		t.Helper()
		h.Size = int64(len(data))
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(data)); err != nil {
			t.Fatal(err)
		}
	}
	add(tar.Header{Typeflag: tar.TypeReg, Name: "./bin/busybox", Mode: 0o755}, string(box))
	for _, name := range []string{"sh", "ip", "cat", "chmod", "udhcpc", "grep", "nc", "printf", "sleep", "ping"} {
		add(tar.Header{Typeflag: tar.TypeSymlink, Name: "./bin/" + name, Linkname: "busybox"}, "")
	}
	for _, dir := range []string{"dev", "proc", "sys", "sbin"} {
		add(tar.Header{Typeflag: tar.TypeDir, Name: "./" + dir + "/", Mode: 0o755}, "")
	}
	add(tar.Header{Typeflag: tar.TypeReg, Name: "./sbin/init", Mode: 0o755}, containerInit)
	for _, c := range []func() error{w.Close, z.Close} {
		if err := c(); err != nil {
			t.Fatal(err)
		}
	}
	return out.Bytes()
}

// TestContainer runs two real containers on ports of the real switch, and plays the server: they get their addresses, reach the metadata
// service and each other; both run on while the agent is away, and nothing of them is left when they are gone.
func TestContainer(t *testing.T) {
	daemon := libvirttest.StartContainers(t)
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
	data := containerImage(t)
	lk := newServerSide()
	sum := sha512.Sum512(data)
	img := model.ImageCopy{
		ImageID: model.NewID(), BlobID: model.NewID(), Format: "raw", Size: int64(len(data)), VirtualSize: int64(len(data)),
		HashAlgo: "sha512", HashValue: hex.EncodeToString(sum[:]),
	}
	lk.blobs[img.BlobID] = data
	taps := DeviceTaps{Devices: container.Veths{Netns: "/run/netns/" + ns}, Kernel: KernelTaps{Netns: "/run/netns/" + ns}}

	// run starts an agent; stop ends it, with its drivers, as a kill would: containers are not told.
	run := func() (a *Agent, hv *libvirt.Containers, stop func()) {
		t.Helper()
		ord, err := datapath.OpenOrdinals(filepath.Join(dir, "ordinals"))
		if err != nil {
			t.Fatal(err)
		}
		dp, err := ovs.Open(ovs.Config{
			OVSDB: sw.DB(), RunDir: sw.Rundir, Datapath: ovs.DatapathNetdev, TunnelIP: netip.MustParseAddr("192.0.2.1"),
			Ordinals: ord, Netns: "/run/netns/" + ns, Log: quiet(t),
			Notify: func(e datapath.Event) { a.Notice(e) },
		})
		if err != nil {
			t.Fatal(err)
		}
		hv, err = libvirt.NewContainers(libvirt.ContainerConfig{SocketPath: daemon.Socket(), GuestDir: dir, Netns: "/run/netns/" + ns, Log: quiet(t)})
		if err != nil {
			t.Fatal(err)
		}
		a, err = New(Config{
			Dir: dir, Link: lk.attach, Hypervisor: hv, Datapath: dp, Taps: taps, Disks: container.Disks{},
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
		return a, hv, func() {
			cancel()
			if err := <-ended; err != nil {
				t.Errorf("the agent ended: %v", err)
			}
			if err := hv.Close(); err != nil {
				t.Errorf("close the hypervisor: %v", err)
			}
			if err := dp.Close(); err != nil {
				t.Errorf("close the data path: %v", err)
			}
		}
	}
	a, hv, stop := run()
	t.Cleanup(func() { stop() })

	subnet := model.NewID()
	network := &model.HostNetwork{ID: model.NewID(), VNI: 4711, MTU: 1450, Subnets: []model.HostSubnet{{
		ID: subnet, CIDR: netip.MustParsePrefix("10.5.0.0/24"), Gateway: netip.MustParseAddr("10.5.0.1"), DHCP: true,
	}}}
	group := &model.HostGroup{ID: model.NewID(), Stateful: true, Rules: []model.HostRule{
		{ID: model.NewID(), Direction: "egress", EtherType: "IPv4"}, {ID: model.NewID(), Direction: "ingress", EtherType: "IPv4"},
	}}
	upserts := []model.HostRow{network, group}
	var rows []*model.HostServer
	for i, address := range []string{"10.5.0.8", "10.5.0.9"} {
		id := model.NewID()
		port := &model.HostPort{
			ID: model.NewID(), NetworkID: network.ID, VNI: 4711, MAC: "fa:16:3e:00:00:0" + string(rune('8'+i)), AdminStateUp: true, PortSecurity: true,
			FixedIPs: []model.FixedIP{{SubnetID: subnet, Address: netip.MustParseAddr(address)}}, Groups: []model.ID{group.ID},
			DeviceID: id, HostName: "c" + address[7:], Generation: 1,
		}
		row := &model.HostServer{
			ID: id, Name: port.HostName, HostName: port.HostName, Zone: "nova", FlavorName: "c1.tiny", VCPUs: 1, MemoryMiB: 128, DiskGiB: 1, Image: img,
			NICs: []model.HostNIC{{PortID: port.ID, MAC: port.MAC, MTU: 1450}}, Power: model.PowerRunning, Generation: 1, CreatedAt: time.Now(),
		}
		rows, upserts = append(rows, row), append(upserts, port, row)
	}
	console := func(id model.ID) string {
		q, err := json.Marshal(model.ConsoleQuery{ServerID: id})
		if err != nil {
			t.Fatal(err)
		}
		b, err := a.Answer(context.Background(), "console", q)
		if err != nil {
			t.Fatalf("console: %v", err)
		}
		return string(b)
	}
	t.Cleanup(func() {
		for _, row := range rows {
			if t.Failed() {
				t.Logf("console of %s: %q", row.Name, console(row.ID))
			}
		}
	})
	lk.apply(t, model.HostBatch{Full: true, Generation: 10, Upserts: upserts})
	for i, row := range rows {
		waitFor(t, "the server to be ready", func() bool {
			r := lk.server(row.ID)
			if r.Fault != nil {
				t.Fatalf("fault: %+v", r.Fault)
			}
			return r.Phase == model.PhaseReady && r.Power == model.PowerRunning
		})
		for _, want := range []string{"address 10.5.0." + []string{"8", "9"}[i] + "/ mtu 1450", "name " + row.HostName, "reached 10.5.0.8", "reached 10.5.0.9"} {
			said := ""
			waitFor(t, "the console to show "+want, func() bool {
				said = console(row.ID)
				return strings.Contains(said, want)
			})
		}
	}

	// Both outlive the agent.
	stop()
	a, hv, stop = run()
	waitFor(t, "both to be seen running", func() bool {
		list, err := hv.List(t.Context())
		return err == nil && len(list) == 2 && list[0].Power == hypervisor.Running && list[1].Power == hypervisor.Running
	})
	for _, row := range rows {
		if n := strings.Count(console(row.ID), "address "); n != 1 {
			t.Errorf("a container was started %d times", n)
		}
	}

	// A stop by its power button takes its card with it; a start brings it back.
	off := *rows[0]
	off.Power, off.Generation = model.PowerOff, 2
	lk.apply(t, model.HostBatch{Generation: 11, Upserts: []model.HostRow{&off}})
	waitFor(t, "the container to shut down", func() bool { r := lk.server(off.ID); return r.Power == model.PowerOff && r.Generation == 2 })
	on := off
	on.Power, on.Generation = model.PowerRunning, 3
	lk.apply(t, model.HostBatch{Generation: 12, Upserts: []model.HostRow{&on}})
	waitFor(t, "the container to reach its peer again", func() bool { return strings.Count(console(on.ID), "reached 10.5.0.9") == 2 })

	var gone []model.HostRow
	for _, row := range rows {
		r := *row
		r.Deleted, r.Generation = true, 4
		gone = append(gone, &r)
	}
	lk.apply(t, model.HostBatch{Generation: 13, Upserts: gone})
	for _, row := range rows {
		waitFor(t, "the server to be gone", func() bool { return lk.server(row.ID).Gone })
	}
	if list, err := hv.List(t.Context()); err != nil || len(list) > 0 {
		t.Errorf("guests left: %v, %v", list, err)
	}
	if names, err := taps.List(t.Context(), "y"); err != nil || len(names) > 1 || len(names) == 1 && names[0] != "yk-md0" { // the data path's own
		t.Errorf("devices left: %v, %v", names, err)
	}
	for _, folder := range []string{filepath.Join(dir, "servers"), filepath.Join(filepath.Dir(daemon.Socket()), "yakumo")} {
		if left, err := os.ReadDir(folder); err != nil || len(left) > 0 {
			t.Errorf("left in %s: %v, %v", folder, left, err)
		}
	}
}
