package hypervisor_test

import (
	"strings"
	"testing"

	"yakumo/fault"
	"yakumo/hypervisor"
)

func good() hypervisor.Guest {
	return hypervisor.Guest{
		ID: "0b7e8a52-7f0e-4b5e-9d0c-0f0a5a3f9a01", Name: "yk-x", VCPUs: 1, MemoryMiB: 1,
		Title: "日本語 <&>", ConsoleLog: "/a/b",
		Disks: []hypervisor.Disk{
			{Path: "/a/disk", Format: "qcow2", BootOrder: 1},
			{Path: "/a/config", Format: "raw", Device: "cdrom"},
			{Format: "raw", Network: &hypervisor.NetworkDisk{Protocol: "nbd", Socket: "/a/nbd", Name: "v", Reconnect: 60}, Shared: true},
			{Format: "raw", Network: &hypervisor.NetworkDisk{Protocol: "rbd", Name: "pool/v", Hosts: []string{"192.0.2.1:6789", "[2001:db8::1]:3300"}, User: "u", Secret: "QQ=="}},
		},
		NICs: []hypervisor.NIC{{MAC: "FA:16:3e:00:00:01", Tap: "tap0b7e8a52-7f0", MTU: 1450, BootOrder: 2}},
	}
}

func TestCheck(t *testing.T) {
	if err := good().Check(); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(*hypervisor.Guest){
		"upper-case id":   func(g *hypervisor.Guest) { g.ID = strings.ToUpper(g.ID) },
		"short id":        func(g *hypervisor.Guest) { g.ID = g.ID[:35] },
		"id without dash": func(g *hypervisor.Guest) { g.ID = strings.ReplaceAll(g.ID, "-", "0") },
		"name":            func(g *hypervisor.Guest) { g.Name = "a/b" },
		"user":            func(g *hypervisor.Guest) { g.User = "a\x1b[0m" },
		"not UTF-8":       func(g *hypervisor.Guest) { g.Title = "\xff" },
		"vcpus":           func(g *hypervisor.Guest) { g.VCPUs = 1025 },
		"memory":          func(g *hypervisor.Guest) { g.MemoryMiB = 0 },
		"console log":     func(g *hypervisor.Guest) { g.ConsoleLog = "x" },
		"variables":       func(g *hypervisor.Guest) { g.NVRAM = "/a/vars" },
		"no variables":    func(g *hypervisor.Guest) { g.Specs = map[string]string{"hw_firmware_type": "uefi"} },
		"variables' path": func(g *hypervisor.Guest) { g.Specs, g.NVRAM = map[string]string{"hw_firmware_type": "uefi"}, "vars" },
		"log bound":       func(g *hypervisor.Guest) { g.ConsoleLogBytes = -1 },
		"path with dots":  func(g *hypervisor.Guest) { g.Disks[0].Path = "/a/../b" },
		"network path":    func(g *hypervisor.Guest) { g.Disks[2].Path = "/a" },
		"network format":  func(g *hypervisor.Guest) { g.Disks[2].Format = "qcow2" },
		"protocol":        func(g *hypervisor.Guest) { g.Disks[2].Network.Protocol = "iscsi" },
		"socket":          func(g *hypervisor.Guest) { g.Disks[2].Network.Socket = "nbd" },
		"long socket":     func(g *hypervisor.Guest) { g.Disks[2].Network.Socket = "/" + strings.Repeat("x", 107) },
		"export":          func(g *hypervisor.Guest) { g.Disks[2].Network.Name = "" },
		"reconnect":       func(g *hypervisor.Guest) { g.Disks[2].Network.Reconnect = -1 },
		"monitors":        func(g *hypervisor.Guest) { g.Disks[3].Network.Hosts = nil },
		"monitor":         func(g *hypervisor.Guest) { g.Disks[3].Network.Hosts[0] = "x" },
		"key":             func(g *hypervisor.Guest) { g.Disks[3].Network.Secret = "*" },
		"disk serial":     func(g *hypervisor.Guest) { g.Disks[0].Serial = "a,b" },
		"device":          func(g *hypervisor.Guest) { g.Disks[0].Device = "floppy" },
		"bus":             func(g *hypervisor.Guest) { g.Disks[0].Bus = "ide" },
		"virtio cdrom":    func(g *hypervisor.Guest) { g.Disks[1].Bus = "virtio" },
		"boot order":      func(g *hypervisor.Guest) { g.NICs[0].BootOrder = 1 },
		"multicast":       func(g *hypervisor.Guest) { g.NICs[0].MAC = "ff:ff:ff:ff:ff:ff" },
		"dashed MAC":      func(g *hypervisor.Guest) { g.NICs[0].MAC = "02-00-00-00-00-01" },
		"long tap":        func(g *hypervisor.Guest) { g.NICs[0].Tap += "x" },
		"no tap":          func(g *hypervisor.Guest) { g.NICs[0].Tap = "" },
		"mtu":             func(g *hypervisor.Guest) { g.NICs[0].MTU = 67 },
		"same MAC": func(g *hypervisor.Guest) {
			g.NICs = append(g.NICs, hypervisor.NIC{MAC: "fa:16:3E:00:00:01", Tap: "other"})
		},
	} {
		g := good()
		spoil(&g)
		err := g.Check()
		if !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v, want Invalid", name, err)
		}
	}
}

func TestPowerNames(t *testing.T) {
	for p, want := range map[hypervisor.Power]string{
		hypervisor.Absent: "absent", hypervisor.Crashed: "crashed", hypervisor.Power(99): "unknown",
	} {
		if p.String() != want {
			t.Errorf("%d is %q", p, p)
		}
	}
}
