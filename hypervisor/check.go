package hypervisor

import (
	"encoding/base64"
	"net"
	"path/filepath"
	"strings"
	"unicode"
	"unicode/utf8"

	"yakumo/fault"
)

// Check tells why no driver could run g: an error of kind Invalid that names the field.
func (g Guest) Check() error {
	if !isUUID(g.ID) {
		return invalid(g, "its ID is not a UUID in lower case")
	}
	if g.Name == "" || strings.ContainsAny(g.Name, "/\n") || !printable(g.Name) {
		return invalid(g, "its name %q is empty or holds a character that is not allowed", g.Name)
	}
	for _, text := range []string{g.Title, g.Project, g.User, g.Serial} {
		if !printable(text) {
			return invalid(g, "the text %q holds a control character", text)
		}
	}
	if g.VCPUs < 1 || g.VCPUs > 1024 {
		return invalid(g, "%d virtual processors are not between 1 and 1024", g.VCPUs)
	}
	if g.MemoryMiB < 1 || g.MemoryMiB > 1<<30 {
		return invalid(g, "%d MiB of memory are not between 1 and 2^30", g.MemoryMiB)
	}
	if g.ConsoleLog != "" && !goodPath(g.ConsoleLog) {
		return invalid(g, "the console log's path %q is not absolute and clean", g.ConsoleLog)
	}
	if g.Emulator != "" && !goodPath(g.Emulator) {
		return invalid(g, "the emulator's path %q is not absolute and clean", g.Emulator)
	}
	if g.NVRAM != "" && !goodPath(g.NVRAM) {
		return invalid(g, "the path %q of its firmware's variables is not absolute and clean", g.NVRAM)
	}
	if g.ConsoleLogBytes < 0 {
		return invalid(g, "the console log's bound is negative")
	}
	boot := map[int]bool{}
	order := func(n int) bool {
		if n < 0 || n > 0 && boot[n] {
			return false
		}
		boot[n] = true
		return true
	}
	for i, d := range g.Disks {
		if err := d.check(g); err != nil {
			return err
		}
		if !order(d.BootOrder) {
			return invalid(g, "the boot order %d of disk %d is negative or taken", d.BootOrder, i)
		}
	}
	macs, taps := map[string]bool{}, map[string]bool{}
	for i, n := range g.NICs {
		if err := n.check(g); err != nil {
			return err
		}
		if !order(n.BootOrder) {
			return invalid(g, "the boot order %d of network card %d is negative or taken", n.BootOrder, i)
		}
		if mac := strings.ToLower(n.MAC); macs[mac] || taps[n.Tap] {
			return invalid(g, "two network cards share the MAC address %s or the tap %s", n.MAC, n.Tap)
		}
		macs[strings.ToLower(n.MAC)], taps[n.Tap] = true, true
	}
	t, err := g.Tuning()
	if err != nil {
		return err
	}
	if t.UEFI != (g.NVRAM != "") {
		return invalid(g, "there is a file for variables of a UEFI firmware without such, or the firmware without the file")
	}
	return g.CPUs.check(g, t)
}

func (d Disk) check(g Guest) error {
	if d.Network != nil {
		if err := d.Network.check(g); err != nil {
			return err
		}
		if d.Path != "" || d.Format != "raw" {
			return invalid(g, "a disk that is no file is raw and has no path")
		}
	} else if !goodPath(d.Path) {
		return invalid(g, "the disk's path %q is not absolute and clean", d.Path)
	}
	if d.Format != "qcow2" && d.Format != "raw" {
		return invalid(g, "the disk format %q is neither qcow2 nor raw", d.Format)
	}
	if l := d.Limits; l.TotalBytes > 0 && l.ReadBytes+l.WriteBytes > 0 || l.TotalIOPS > 0 && l.ReadIOPS+l.WriteIOPS > 0 {
		return invalid(g, "a total bound of disk %q stands beside one on reads or on writes", d.Serial)
	}
	if !printable(d.Serial) || strings.Contains(d.Serial, ",") {
		return invalid(g, "the disk's serial %q holds a character that is not allowed", d.Serial)
	}
	switch d.Device {
	case "", "disk":
		switch d.Bus {
		case "", "virtio", "scsi", "sata":
			return nil
		}
	case "cdrom":
		switch d.Bus {
		case "", "scsi", "sata":
			return nil
		}
	default:
		return invalid(g, "the disk device %q is neither disk nor cdrom", d.Device)
	}
	return invalid(g, "a %s cannot be on the bus %q", d.Device, d.Bus)
}

func (n NetworkDisk) check(g Guest) error {
	if n.Name == "" || !printable(n.Name) || n.Reconnect < 0 {
		return invalid(g, "the network disk %q has no name, or a negative time to reconnect", n.Name)
	}
	switch n.Protocol {
	case "nbd":
		// 108 bytes with the final zero byte (unix(7)).
		if !goodPath(n.Socket) || len(n.Socket) > 107 {
			return invalid(g, "the socket's path %q is not absolute and clean, or too long", n.Socket)
		}
		return nil
	case "rbd":
		if len(n.Hosts) == 0 || n.User == "" || !printable(n.User) {
			return invalid(g, "the image %q has no monitors or no user", n.Name)
		}
		for _, h := range n.Hosts {
			if _, _, err := net.SplitHostPort(h); err != nil || !printable(h) {
				return invalid(g, "%q is no monitor's host and port", h)
			}
		}
		if _, err := base64.StdEncoding.DecodeString(n.Secret); err != nil {
			return invalid(g, "the key of user %s is not base64", n.User)
		}
		return nil
	}
	return invalid(g, "the disk protocol %q is neither nbd nor rbd", n.Protocol)
}

func (n NIC) check(g Guest) error {
	mac, err := net.ParseMAC(n.MAC)
	if err != nil || len(mac) != 6 || mac[0]&1 != 0 || strings.Count(n.MAC, ":") != 5 {
		return invalid(g, "%q is not a unicast MAC address", n.MAC)
	}
	// IFNAMSIZ of linux/if.h is 16 with the final zero byte; the kernel forbids '/', ':' and spaces.
	if n.Tap == "" || len(n.Tap) > 15 || n.Tap == "." || n.Tap == ".." ||
		strings.ContainsAny(n.Tap, "/: \t\n") || !printable(n.Tap) {
		return invalid(g, "%q cannot be the name of a tap device", n.Tap)
	}
	if n.MTU != 0 && (n.MTU < 68 || n.MTU > 65535) {
		return invalid(g, "the MTU %d is not between 68 and 65535", n.MTU)
	}
	if !printable(n.ID) {
		return invalid(g, "the network card's ID %q holds a control character", n.ID)
	}
	return nil
}

func invalid(g Guest, format string, args ...any) error {
	e := fault.New(fault.Invalid, format, args...)
	e.Text = "Guest " + g.ID + " cannot be run: " + e.Text + "."
	return e
}

// isUUID is strict, as a UUID is a key here: 8-4-4-4-12 digits in lower case (RFC 9562, section 4).
func isUUID(s string) bool {
	if len(s) != 36 {
		return false
	}
	for i, c := range []byte(s) {
		if i == 8 || i == 13 || i == 18 || i == 23 {
			if c != '-' {
				return false
			}
		} else if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// printable keeps out what XML 1.0 cannot carry, and control characters beside.
func printable(s string) bool {
	if !utf8.ValidString(s) {
		return false
	}
	return strings.IndexFunc(s, func(r rune) bool {
		return unicode.IsControl(r) || r == utf8.RuneError || r == 0xFFFE || r == 0xFFFF
	}) < 0
}

func goodPath(p string) bool {
	return filepath.IsAbs(p) && filepath.Clean(p) == p && p != "/" && printable(p)
}
