package libvirt_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"yakumo/fault"
	"yakumo/hypervisor"
	"yakumo/hypervisor/hypertest"
	"yakumo/hypervisor/libvirt"
	"yakumo/hypervisor/libvirt/libvirttest"
)

// TestDevices starts a guest with one of everything, which libvirt has validated, and looks at
// what QEMU was told.
func TestDevices(t *testing.T) {
	t.Parallel() // its daemon is its own
	h := host{libvirttest.Start(t)}
	d, ctx := h.driver(t), t.Context()
	g := h.guest(t, libvirttest.Sector{Greeting: hypertest.Greeting})
	dir := filepath.Dir(g.Disks[0].Path)
	for _, name := range []string{"b", "c", "d", "iso"} {
		if err := os.WriteFile(filepath.Join(dir, name), make([]byte, 1<<20), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := exec.Command("qemu-img", "create", "-q", "-f", "qcow2", "-b", g.Disks[0].Path, "-F", "raw",
		filepath.Join(dir, "overlay")).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	g.Disks[0].Path, g.Disks[0].Format = filepath.Join(dir, "overlay"), "qcow2"
	g.Disks = append(g.Disks,
		hypervisor.Disk{Path: filepath.Join(dir, "b"), Format: "raw", Serial: "volume-1"},
		hypervisor.Disk{Path: filepath.Join(dir, "c"), Format: "raw", Bus: "scsi", Serial: "volume-2"},
		hypervisor.Disk{Path: filepath.Join(dir, "d"), Format: "raw", Bus: "sata", BootOrder: 3},
		hypervisor.Disk{Path: filepath.Join(dir, "iso"), Format: "raw", Device: "cdrom"})
	g.NICs = []hypervisor.NIC{
		{ID: hypertest.NewID(), MAC: "fa:16:3e:00:00:01", Tap: "tap0", MTU: 1450, BootOrder: 2},
		{ID: hypertest.NewID(), MAC: "FA:16:3E:00:00:02", Tap: "tap1"},
	}
	g.Title, g.Serial = `Straße & <b> "x" 雲`, "serial-7"
	h.AddTap(t, "tap0")
	h.AddTap(t, "tap1")
	if c, err := d.Capacity(ctx); err != nil || c.DiskGiB < 1 {
		t.Errorf("the capacity has no disk: %+v, %v", c, err)
	}
	if err := errors.Join(d.Ensure(ctx, g), d.Start(ctx, g.ID)); err != nil {
		t.Fatal(err)
	}
	cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", h.GuestPID(t, g.Name)))
	if err != nil {
		t.Fatal(err)
	}
	args := string(bytes.ReplaceAll(cmdline, []byte{0}, []byte{'\n'}))
	for _, line := range strings.Split(args, "\n") {
		if !strings.Contains(line, "virtio-net-pci") {
			continue
		}
		for _, off := range []string{"csum", "gso", "host_tso4", "host_tso6", "host_ecn", "host_ufo",
			"guest_csum", "guest_tso4", "guest_tso6", "guest_ecn", "guest_ufo", "mrg_rxbuf"} {
			if !strings.Contains(line, `"`+off+`":false`) {
				t.Errorf("the card has %s: %s", off, line)
			}
		}
	}
	for _, want := range []string{`"host_mtu":1450`, `"mac":"fa:16:3e:00:00:02"`, `"serial":"volume-1"`, `"serial":"volume-2"`,
		"product=OpenStack Compute", "serial=serial-7", "manufacturer=Yakumo", "tb-size=128", "Nehalem", "scsi-hd", "ide-cd", "virtio-rng"} {
		if !strings.Contains(args, want) {
			t.Errorf("QEMU was not told %q", want)
		}
	}
	for _, never := range []string{"VGA", "usb-", "xhci", "ehci", "vnc"} {
		if strings.Contains(args, never) {
			t.Errorf("QEMU was told of %s", never)
		}
	}
	if t.Failed() {
		t.Log(args)
	}
	// The addresses are those that QEMU was told: libvirt names the buses by its own numbers, the guest by the firmware's.
	places, err := d.Devices(ctx, g.ID)
	if err != nil || len(places) != 7 || places[0].Path != "/dev/vda" || places[1].Serial != "volume-1" || places[2].Bus != "scsi" || places[5].MAC != "fa:16:3e:00:00:01" || places[5].Bus != "pci" {
		t.Errorf("the devices are at %+v, %v", places, err)
	}
	link := func() string {
		out, err := exec.Command("ip", "-n", h.NetNS(), "-o", "link", "show", "tap0").CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return string(out)
	}
	if s := link(); !strings.Contains(s, "LOWER_UP") || !strings.Contains(s, "mtu 1500") {
		t.Errorf("the tap is not as it should be while the guest runs: %s", s)
	}
	if err := d.Remove(ctx, g.ID); err != nil {
		t.Fatal(err)
	}
	if s := link(); strings.Contains(s, "LOWER_UP") || !strings.Contains(s, "mtu 1500") {
		t.Errorf("the tap is not as it was made: %s", s)
	}
}

func TestMissingTap(t *testing.T) {
	t.Parallel() // its daemon is its own
	h := host{libvirttest.Start(t)}
	d, ctx := h.driver(t), t.Context()
	g := h.guest(t, libvirttest.Sector{Greeting: hypertest.Greeting})
	g.NICs = []hypervisor.NIC{{MAC: "fa:16:3e:00:00:01", Tap: "nosuchtap"}}
	if err := d.Ensure(ctx, g); err != nil {
		t.Fatal(err)
	}
	if err := d.Start(ctx, g.ID); err == nil || !strings.Contains(err.Error(), "nosuchtap") {
		t.Errorf("Start: %v, want an error that names the tap", err)
	}
}

func TestNoDaemon(t *testing.T) {
	d, err := libvirt.New(libvirt.Config{SocketPath: filepath.Join(t.TempDir(), "none")})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	_, err = d.List(t.Context())
	if !errors.Is(err, os.ErrNotExist) || !fault.Is(err, fault.Unavailable) {
		t.Errorf("List: %v", err)
	}
}

func TestBadAccelerator(t *testing.T) {
	if _, err := libvirt.New(libvirt.Config{Accelerator: "xen"}); !fault.Is(err, fault.Invalid) {
		t.Errorf("New: %v", err)
	}
}

// TestFrozenDaemon stops libvirtd as a debugger would: it neither answers nor goes away.
func TestFrozenDaemon(t *testing.T) {
	t.Parallel() // its daemon is its own
	h := host{libvirttest.Start(t)}
	d, err := libvirt.New(libvirt.Config{SocketPath: h.Socket(), Accelerator: "tcg", Keepalive: 2 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	watch, err := d.Watch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	h.Freeze(t)
	_, err = d.List(t.Context())
	if !fault.Is(err, fault.Unavailable) {
		t.Errorf("List: %v", err)
	}
	for range watch {
	}
	h.Thaw(t)
	if _, err := d.List(t.Context()); err != nil {
		t.Errorf("List after it came back: %v", err)
	}
}

func BenchmarkRoundTrip(b *testing.B) {
	h := host{libvirttest.Start(b)}
	d, ctx := h.driver(b), b.Context()
	g := h.guest(b, libvirttest.Sector{Greeting: hypertest.Greeting})
	if err := d.Ensure(ctx, g); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if err := d.Look(ctx, g.ID); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkList100(b *testing.B) {
	h := host{libvirttest.Start(b)}
	d, ctx := h.driver(b), b.Context()
	for range 100 {
		if err := d.Ensure(ctx, h.guest(b, libvirttest.Sector{})); err != nil {
			b.Fatal(err)
		}
	}
	for b.Loop() {
		if states, err := d.List(ctx); err != nil || len(states) != 100 {
			b.Fatal(len(states), err)
		}
	}
}

func BenchmarkEnsureUnchanged(b *testing.B) {
	h := host{libvirttest.Start(b)}
	d, ctx := h.driver(b), b.Context()
	g := h.guest(b, libvirttest.Sector{})
	for b.Loop() {
		if err := d.Ensure(ctx, g); err != nil {
			b.Fatal(err)
		}
	}
}

func TestPlaces(t *testing.T) {
	got, err := libvirt.ParsePlaces(`<domain type='kvm'><devices>
<disk type='file'><target dev='vda' bus='virtio'/><serial>s1</serial><address type='pci' domain='0x0000' bus='0x03' slot='0x00' function='0x0'/></disk>
<disk type='file'><target dev='sda' bus='scsi'/><serial>s2</serial><address type='drive' controller='0' bus='0' target='0' unit='1'/></disk>
<disk type='file'><target dev='sdb' bus='sata'/></disk>
<disk type='file'><target dev='vdc' bus='virtio'/><address type='pci' domain='x' bus='0x03' slot='0x00' function='0x0'/></disk>
<interface type='ethernet'><mac address='FA:16:3e:00:00:01'/><address type='pci' domain='0x0000' bus='0x0a' slot='0x1f' function='0x7'/></interface>
</devices></domain>`)
	want := []hypervisor.Place{
		{Serial: "s1", Bus: "pci", Address: "0000:03:00.0", Path: "/dev/vda"}, {Serial: "s2", Bus: "scsi", Address: "0:0:0:1", Path: "/dev/sda"},
		{Path: "/dev/sdb"}, {Path: "/dev/vdc"}, {MAC: "fa:16:3e:00:00:01", Bus: "pci", Address: "0000:0a:1f.7"},
	}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := libvirt.ParsePlaces("<domain"); err == nil {
		t.Error("half a definition is read")
	}
}
