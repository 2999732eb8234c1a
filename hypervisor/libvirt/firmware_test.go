package libvirt_test

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"yakumo/hypervisor"
	"yakumo/hypervisor/hypertest"
	"yakumo/hypervisor/libvirt"
	"yakumo/hypervisor/libvirt/libvirttest"
)

// efiGuest gives a guest that only UEFI starts.
func efiGuest(t *testing.T, h host, specs map[string]string) hypervisor.Guest {
	t.Helper()
	g := h.Guest(t)
	libvirttest.EFI{}.WriteDisk(t, g.Disks[0].Path)
	g.MemoryMiB, g.Specs = 64, specs
	g.NVRAM = filepath.Join(filepath.Dir(g.Disks[0].Path), "nvram.fd")
	return g
}

// waitConsole waits until the guest's console has said what.
func waitConsole(t *testing.T, ctx context.Context, d *libvirt.Driver, id, what string) {
	t.Helper()
	look := time.NewTicker(50 * time.Millisecond)
	defer look.Stop()
	for {
		log, err := d.ConsoleLog(ctx, id, 0)
		if err == nil && bytes.Contains(log, []byte(what)) {
			return
		}
		select {
		case <-look.C:
		case <-ctx.Done():
			t.Fatalf("the console has not said %q: %q (%v)", what, log, err)
		}
	}
}

// TestUEFI: what the firmware keeps for a guest outlives stops and goes along in a live move, and secure boot starts nothing unsigned.
func TestUEFI(t *testing.T) {
	t.Parallel() // its daemons are its own
	a, b := movingHost{host{libvirttest.Start(t)}}, movingHost{host{libvirttest.Start(t)}}
	from, to := a.driver(t), b.driver(t)
	ctx, cancel := context.WithTimeout(context.Background(), 3*hypertest.Deadline) // the firmware takes its time, four times
	defer cancel()
	if c, err := from.Capacity(ctx); err != nil || !c.UEFI || !c.SecureBoot {
		t.Fatalf("the host's firmware: UEFI %v, secure boot %v (%v)", c.UEFI, c.SecureBoot, err)
	}
	secure := efiGuest(t, b.host, map[string]string{"hw_firmware_type": "uefi", "os_secure_boot": "optional"}) // which this host can do
	g := efiGuest(t, a.host, map[string]string{"hw_firmware_type": "uefi"})
	if err := errors.Join(to.Ensure(ctx, secure), to.Start(ctx, secure.ID), from.Ensure(ctx, g), from.Start(ctx, g.ID)); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := errors.Join(from.Remove(context.Background(), g.ID), to.Remove(context.Background(), g.ID), to.Remove(context.Background(), secure.ID)); err != nil {
			t.Error(err)
		}
	}()
	waitConsole(t, ctx, from, g.ID, "UEFI, start 1")
	twin := b.Twin(t, g)
	twin.NVRAM = filepath.Join(filepath.Dir(twin.Disks[0].Path), "nvram.fd")
	r, err := to.Receive(ctx, twin)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	pass := hypervisor.Passage{Guest: twin, CopyDisks: []string{twin.Disks[0].Serial}, Dial: func(ctx context.Context, kind string) (io.ReadWriteCloser, error) {
		return r.Dial(ctx, kind)
	}}
	if err := from.Send(ctx, g.ID, pass); err != nil {
		t.Fatal(err)
	}
	if err := to.Reset(ctx, g.ID); err != nil {
		t.Fatal(err)
	}
	waitConsole(t, ctx, to, g.ID, "UEFI, start 2")
	if text, err := to.Definition(ctx, g.ID); err != nil || !strings.Contains(text, ">"+twin.NVRAM+"<") || strings.Contains(text, g.NVRAM) {
		t.Errorf("after the move the definition is %s (%v)", text, err)
	}
	if err := errors.Join(to.Stop(ctx, g.ID, hypertest.Deadline), to.Start(ctx, g.ID)); err != nil {
		t.Fatal(err)
	}
	waitConsole(t, ctx, to, g.ID, "UEFI, start 3")
	if err := to.Remove(ctx, g.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(twin.NVRAM); err != nil {
		t.Errorf("with the guest went its file: %v", err)
	}
	waitConsole(t, ctx, to, secure.ID, "Access Denied")
	if log, err := to.ConsoleLog(ctx, secure.ID, 0); err != nil || bytes.Contains(log, []byte("UEFI, start")) {
		t.Errorf("secure boot has started an unsigned program: %q (%v)", log, err)
	}
}

// What a host lacks it says, and another host's guest with such a firmware is not taken for one with a BIOS.
func TestFirmwareOfDefinitions(t *testing.T) {
	g := hypervisor.Guest{ID: hypertest.NewID(), Name: "yk-a", VCPUs: 1, MemoryMiB: 64, NVRAM: "/there/nvram.fd"}
	bios := g
	bios.NVRAM = ""
	for _, c := range []struct {
		specs map[string]string
		able  bool
		want  string // features secure-boot and enrolled-keys
	}{
		{map[string]string{"hw_firmware_type": "uefi"}, true, "no"},
		{map[string]string{"hw_firmware_type": "uefi", "os_secure_boot": "disabled"}, true, "no"},
		{map[string]string{"hw_firmware_type": "uefi", "os_secure_boot": "required"}, false, "yes"},
		{map[string]string{"hw_firmware_type": "uefi", "os_secure_boot": "optional"}, false, "no"},
		{map[string]string{"hw_firmware_type": "uefi", "os_secure_boot": "optional"}, true, "yes"},
	} {
		g.Specs = c.specs
		text, err := libvirt.DefinitionOf(g, c.able)
		if err != nil {
			t.Fatal(err)
		}
		var d struct {
			XMLName xml.Name `xml:"domain"`
			OS      struct {
				Firmware string `xml:"firmware,attr"`
				Features []struct {
					Enabled string `xml:"enabled,attr"`
					Name    string `xml:"name,attr"`
				} `xml:"firmware>feature"`
				NVRAM string `xml:"nvram"`
			} `xml:"os"`
		}
		if err := xml.Unmarshal([]byte(text), &d); err != nil {
			t.Fatal(err)
		}
		if got, want := fmt.Sprint(d.OS), fmt.Sprintf("{efi [{%s secure-boot} {%s enrolled-keys}] /there/nvram.fd}", c.want, c.want); got != want {
			t.Errorf("%v, able %v: %s, want %s", c.specs, c.able, got, want)
		}
	}
	there, err := libvirt.DefinitionOf(bios, false)
	if err != nil || strings.Contains(there, "nvram") || strings.Contains(there, "firmware") {
		t.Fatalf("a guest with a BIOS is %s (%v)", there, err)
	}
	running := "<domain><os><loader/><nvram template='/t'>/here/nvram.fd</nvram></os><devices/></domain>"
	if _, err := libvirt.Elsewhere(running, there); err == nil {
		t.Error("a guest with UEFI moves to a definition with a BIOS")
	}
	g.Specs = map[string]string{"hw_firmware_type": "uefi"}
	if there, err = libvirt.DefinitionOf(g, false); err != nil {
		t.Fatal(err)
	}
	if text, err := libvirt.Elsewhere(running, there); err != nil || !strings.Contains(text, `<nvram template="/t">/there/nvram.fd</nvram>`) {
		t.Errorf("elsewhere it is %s (%v)", text, err)
	}
}
