package libvirt

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/xml"
	"fmt"
	"strconv"
	"strings"

	"yakumo/hypervisor"
)

// The domain XML that the driver writes, in the order of libvirt's own output; names and
// meanings are those of libvirt's formatdomain page.

type domainXML struct {
	XMLName    xml.Name     `xml:"domain"`
	Type       string       `xml:"type,attr"`
	Name       string       `xml:"name"`
	UUID       string       `xml:"uuid"`
	Title      string       `xml:"title,omitempty"`
	Metadata   *metadataXML `xml:"metadata"`
	Memory     sizeXML      `xml:"memory"`
	Backing    *backingXML  `xml:"memoryBacking"`
	VCPU       vcpuXML      `xml:"vcpu"`
	CPUTune    *cpuTuneXML  `xml:"cputune"`
	NUMATune   *numaTuneXML `xml:"numatune"`
	Sysinfo    sysinfoXML   `xml:"sysinfo"`
	OS         osXML        `xml:"os"`
	Features   featuresXML  `xml:"features"`
	CPU        cpuXML       `xml:"cpu"`
	Clock      clockXML     `xml:"clock"`
	OnPoweroff string       `xml:"on_poweroff"`
	OnReboot   string       `xml:"on_reboot"`
	OnCrash    string       `xml:"on_crash"`
	Devices    devicesXML   `xml:"devices"`
}

type metadataXML struct {
	Guest guestXML
}

// metadataNS is the XML namespace that marks a domain as ours.
const metadataNS = "urn:yakumo:guest:1"

// guestXML is what stands in the domain's metadata.
type guestXML struct {
	XMLName xml.Name `xml:"urn:yakumo:guest:1 guest"`
	notesXML
}

type notesXML struct {
	// Digest is of the whole definition but for itself: equal digests, equal definitions.
	Digest          string    `xml:"digest,attr,omitempty"`
	Project         string    `xml:"project,omitempty"`
	User            string    `xml:"user,omitempty"`
	ConsoleLog      string    `xml:"consoleLog,omitempty"`
	ConsoleLogBytes int64     `xml:"consoleLogBytes,omitempty"`
	Disk            string    `xml:"disk,omitempty"` // of a container
	DiskSerial      string    `xml:"diskSerial,omitempty"`
	Ports           []portXML `xml:"port"`
}

type portXML struct {
	ID  string `xml:"id,attr"`
	MAC string `xml:"mac,attr"`
	Tap string `xml:"tap,attr"`
	MTU int    `xml:"mtu,attr,omitempty"` // of a container's
}

type sizeXML struct {
	Unit string `xml:"unit,attr,omitempty"`
	N    int    `xml:",chardata"`
}

type sysinfoXML struct {
	Type   string     `xml:"type,attr"`
	System []entryXML `xml:"system>entry"`
}

type entryXML struct {
	Name  string `xml:"name,attr"`
	Value string `xml:",chardata"`
}

type osXML struct {
	Firmware string `xml:"firmware,attr,omitempty"`
	Type     struct {
		Arch    string `xml:"arch,attr"`
		Machine string `xml:"machine,attr"`
		Value   string `xml:",chardata"`
	} `xml:"type"`
	Features *firmwareXML `xml:"firmware"`
	NVRAM    string       `xml:"nvram,omitempty"`
	BootMenu *enableXML   `xml:"bootmenu"`
	SMBIOS   *modeXML     `xml:"smbios"`
}

type modeXML struct {
	Mode string `xml:"mode,attr"`
}

type emptyXML struct{}

type featuresXML struct {
	ACPI emptyXML `xml:"acpi"`
	APIC emptyXML `xml:"apic"`
	TCG  *tcgXML  `xml:"tcg"`
}

type tcgXML struct {
	TBCache sizeXML `xml:"tb-cache"`
}

type cpuXML struct {
	Mode     string       `xml:"mode,attr"`
	Match    string       `xml:"match,attr,omitempty"`
	Check    string       `xml:"check,attr,omitempty"`
	Model    *modelXML    `xml:"model"`
	Topology *topologyXML `xml:"topology"`
	NUMA     *numaXML     `xml:"numa"`
}

type modelXML struct {
	Fallback string `xml:"fallback,attr,omitempty"`
	Name     string `xml:",chardata"`
}

type clockXML struct {
	Offset string     `xml:"offset,attr"`
	Timers []timerXML `xml:"timer"`
}

type timerXML struct {
	Name       string `xml:"name,attr"`
	TickPolicy string `xml:"tickpolicy,attr,omitempty"`
	Present    string `xml:"present,attr,omitempty"`
}

type devicesXML struct {
	Emulator    string          `xml:"emulator,omitempty"`
	Disks       []diskXML       `xml:"disk"`
	Controllers []controllerXML `xml:"controller"`
	Interfaces  []interfaceXML  `xml:"interface"`
	Serial      serialXML       `xml:"serial"`
	Channels    []channelXML    `xml:"channel"`
	Inputs      []inputXML      `xml:"input"`
	Graphics    *graphicsXML    `xml:"graphics"`
	Video       videoXML        `xml:"video"`
	Balloon     typedXML        `xml:"memballoon"`
	RNG         *rngXML         `xml:"rng"`
	Watchdog    *watchdogXML    `xml:"watchdog"`
	TPM         *tpmXML         `xml:"tpm"`
}

type diskXML struct {
	Type     string     `xml:"type,attr"`
	Device   string     `xml:"device,attr"`
	Driver   driverXML  `xml:"driver"`
	Source   sourceXML  `xml:"source"`
	Target   targetXML  `xml:"target"`
	ReadOnly *emptyXML  `xml:"readonly"`
	Shared   *emptyXML  `xml:"shareable"`
	Serial   string     `xml:"serial,omitempty"`
	Boot     *orderXML  `xml:"boot"`
	IOTune   *ioTuneXML `xml:"iotune"`
}

type sourceXML struct {
	File      string        `xml:"file,attr,omitempty"`
	Protocol  string        `xml:"protocol,attr,omitempty"`
	Name      string        `xml:"name,attr,omitempty"`
	Index     string        `xml:"index,attr,omitempty"` // read only: libvirt's number of what a running guest has open
	Hosts     []hostAtXML   `xml:"host"`
	Reconnect *reconnectXML `xml:"reconnect"`
	Auth      *authXML      `xml:"auth"`
}

type orderXML struct {
	Order int `xml:"order,attr"`
}

type targetXML struct {
	Dev     string `xml:"dev,attr,omitempty"`
	Bus     string `xml:"bus,attr,omitempty"`
	Managed string `xml:"managed,attr,omitempty"`
	Type    string `xml:"type,attr,omitempty"`
	Port    string `xml:"port,attr,omitempty"`
	Name    string `xml:"name,attr,omitempty"`
}

type driverXML struct {
	Name    string       `xml:"name,attr,omitempty"`
	Type    string       `xml:"type,attr,omitempty"`
	Cache   string       `xml:"cache,attr,omitempty"`
	Discard string       `xml:"discard,attr,omitempty"`
	Host    *offloadsXML `xml:"host"`
	Guest   *offloadsXML `xml:"guest"`
}

type offloadsXML struct {
	Csum     string `xml:"csum,attr"`
	GSO      string `xml:"gso,attr,omitempty"`
	TSO4     string `xml:"tso4,attr"`
	TSO6     string `xml:"tso6,attr"`
	ECN      string `xml:"ecn,attr"`
	UFO      string `xml:"ufo,attr"`
	MrgRxbuf string `xml:"mrg_rxbuf,attr,omitempty"`
}

type controllerXML struct {
	Type  string `xml:"type,attr"`
	Model string `xml:"model,attr,omitempty"`
}

type interfaceXML struct {
	Type      string        `xml:"type,attr"`
	MAC       addrXML       `xml:"mac"`
	Target    targetXML     `xml:"target"`
	Model     typeXML       `xml:"model"`
	Driver    driverXML     `xml:"driver"`
	MTU       *mtuXML       `xml:"mtu"`
	Boot      *orderXML     `xml:"boot"`
	Bandwidth *bandwidthXML `xml:"bandwidth"`
}

type addrXML struct {
	Address string `xml:"address,attr"`
}

type typeXML struct {
	Type string `xml:"type,attr"`
}

type typedXML struct {
	Model string `xml:"model,attr"`
}

type mtuXML struct {
	Size int `xml:"size,attr"`
}

type serialXML struct {
	Type   string    `xml:"type,attr"`
	Log    *logXML   `xml:"log"`
	Target targetXML `xml:"target"`
}

// channelXML is a virtio serial port; libvirt chooses where the host's end is.
type channelXML struct {
	Type   string    `xml:"type,attr"`
	Target targetXML `xml:"target"`
}

type logXML struct {
	File   string `xml:"file,attr"`
	Append string `xml:"append,attr"`
}

type videoXML struct {
	Model videoModelXML `xml:"model"`
}

type videoModelXML struct {
	Type string `xml:"type,attr"`
	VRAM int    `xml:"vram,attr,omitempty"` // KiB
}

type inputXML struct {
	Type string `xml:"type,attr"`
	Bus  string `xml:"bus,attr"`
}

type graphicsXML struct {
	Type   string  `xml:"type,attr"`
	Listen typeXML `xml:"listen"`
}

type rngXML struct {
	Model   string      `xml:"model,attr"`
	Rate    *rngRateXML `xml:"rate"`
	Backend backendXML  `xml:"backend"`
}

type backendXML struct {
	Model string `xml:"model,attr"`
	Path  string `xml:",chardata"`
}

// Facts that a definition depends on beside the guest itself.
type platform struct {
	accelerator string // "kvm" or "tcg"
	cpuModel    string // a CPU model of libvirt; empty for the accelerator's default
	sparePorts  int    // PCIe root ports for devices that are plugged in later
	secureBoot  bool   // the host can do that; not asked for where it does not matter
}

// tcgModel is the processor that guests see without hardware virtualisation: the least one with
// x86-64-v2, which today's distributions ask for; every host can emulate it. A small Linux boots
// with 6.0 s of processor time under it (QEMU 7.2), and with 5.3 s under qemu64, which is too old.
const tcgModel = "Nehalem"

// tcgCacheMiB bounds QEMU's cache of translated code a guest; QEMU's own default of 1 GiB is
// more than most guests have memory. A small Linux fills 110 MiB as it boots; with a cache of
// 32 MiB its process is 55 MiB smaller and its boot takes a tenth longer.
const tcgCacheMiB = 128

// definition gives the domain XML of g, which has been checked, and its digest.
func definition(g hypervisor.Guest, p platform) (text, digest string, err error) {
	d := domain(g, p)
	plain, err := xml.Marshal(d)
	if err != nil {
		return "", "", fmt.Errorf("write the definition of guest %s: %w", g.ID, err)
	}
	sum := sha256.Sum256(plain)
	d.Metadata.Guest.Digest = hex.EncodeToString(sum[:16])
	marked, err := xml.Marshal(d)
	if err != nil {
		return "", "", fmt.Errorf("write the definition of guest %s: %w", g.ID, err)
	}
	return string(marked), d.Metadata.Guest.Digest, nil
}

func domain(g hypervisor.Guest, p platform) domainXML {
	serial := g.Serial
	if serial == "" {
		serial = g.ID
	}
	d := domainXML{
		Type: "qemu", Name: g.Name, UUID: g.ID, Title: g.Title,
		Metadata: &metadataXML{Guest: guestXML{notesXML: notesXML{
			Project: g.Project, User: g.User,
			ConsoleLog: g.ConsoleLog, ConsoleLogBytes: g.ConsoleLogBytes,
		}}},
		Memory: sizeXML{Unit: "MiB", N: g.MemoryMiB},
		VCPU:   vcpuXML{N: g.VCPUs},
		// cloud-init finds the OpenStack metadata service by this product name alone.
		Sysinfo: sysinfoXML{Type: "smbios", System: []entryXML{
			{"manufacturer", "Yakumo"}, {"product", "OpenStack Compute"}, {"serial", serial},
			{"uuid", g.ID}, {"family", "Virtual Machine"},
		}},
		CPU:   cpuXML{Mode: "custom", Match: "exact", Check: "none"},
		Clock: clockXML{Offset: "utc", Timers: []timerXML{{Name: "hpet", Present: "no"}}},
		// A guest that reboots itself is reset in place; one that panics is off, and was not asked.
		OnPoweroff: "destroy", OnReboot: "restart", OnCrash: "destroy",
	}
	d.OS.Type.Arch, d.OS.Type.Machine, d.OS.Type.Value = "x86_64", "q35", "hvm"
	d.OS.SMBIOS = &modeXML{"sysinfo"}
	model := p.cpuModel
	if p.accelerator == "kvm" {
		d.Type = "kvm"
		// Ticks that a busy host made a guest miss are made up for, so that its clock stays right.
		d.Clock.Timers = append(d.Clock.Timers,
			timerXML{Name: "rtc", TickPolicy: "catchup"}, timerXML{Name: "pit", TickPolicy: "delay"})
		if model == "" {
			d.CPU = cpuXML{Mode: "host-model", Check: "partial"}
		}
	} else {
		d.Features.TCG = &tcgXML{TBCache: sizeXML{Unit: "MiB", N: tcgCacheMiB}}
		if model == "" {
			model = tcgModel
		}
	}
	if model != "" {
		d.CPU.Model = &modelXML{Fallback: "forbid", Name: model}
	}
	tuning, _ := g.Tuning() // which has been checked
	d.Devices = devices(tuned(g, tuning), p)
	d.tune(tuning)
	d.pin(g.CPUs, len(tuning.Cells))
	if tuning.UEFI {
		d.OS.uefi(tuning.SecureBoot == hypervisor.SecureRequired || tuning.SecureBoot == hypervisor.SecureOptional && p.secureBoot)
		d.OS.NVRAM = g.NVRAM
	}
	for _, n := range g.NICs {
		d.Metadata.Guest.Ports = append(d.Metadata.Guest.Ports, portXML{ID: n.ID, MAC: strings.ToLower(n.MAC), Tap: n.Tap})
	}
	return d
}

func devices(g hypervisor.Guest, p platform) devicesXML {
	v := devicesXML{
		Emulator: g.Emulator,
		// No VGA and no USB where nobody looks at them: the firmware spends time on both.
		Controllers: []controllerXML{{Type: "usb", Model: "none"}},
		Serial:      serialXML{Type: "pty", Target: targetXML{Type: "isa-serial", Port: "0"}},
		Video:       videoXML{Model: videoModelXML{Type: "none"}},
		Balloon:     typedXML{Model: "virtio"},
		RNG:         &rngXML{Model: "virtio", Backend: backendXML{Model: "random", Path: "/dev/urandom"}},
	}
	if g.Display {
		v.display(g.Specs)
	}
	if g.ConsoleLog != "" {
		v.Serial.Log = &logXML{File: g.ConsoleLog, Append: "on"}
	}
	scsi := false
	letters := map[string]int{} // per prefix of the target's name
	for _, disk := range g.Disks {
		x := disk2xml(disk)
		prefix := "sd" // shared by SATA and SCSI
		if x.Target.Bus == "virtio" {
			prefix = "vd"
		}
		x.Target.Dev = prefix + letter(letters[prefix])
		letters[prefix]++
		scsi = scsi || x.Target.Bus == "scsi"
		v.Disks = append(v.Disks, x)
	}
	if t, _ := g.Tuning(); t.Agent { // which has been checked
		v.agent()
	}
	if scsi {
		v.Controllers = append(v.Controllers, controllerXML{Type: "scsi", Model: "virtio-scsi"})
	}
	for _, n := range g.NICs {
		v.Interfaces = append(v.Interfaces, nic2xml(n))
	}
	if p.sparePorts > 0 {
		// libvirt counts PCI controllers from the root, which it adds only if there is none; and what the guest
		// begins with takes the first ports.
		v.Controllers = append(v.Controllers, controllerXML{Type: "pci", Model: "pcie-root"})
		for range v.ports() + p.sparePorts {
			v.Controllers = append(v.Controllers, controllerXML{Type: "pci", Model: "pcie-root-port"})
		}
	}
	return v
}

// displayKiB is the memory of a guest's screen: 1920 by 1080 of 32 bits and what is drawn ahead need less.
const displayKiB = 16 << 10

// display adds a screen, a keyboard (the machine has one, and a mouse) and a tablet, whose pointer is where the
// user's is. VGA is what every firmware, boot loader and kernel can write on, and costs no time at boot. A USB tablet
// costs 0.6 s of processor time in an emulated guest, most of it the firmware's, so it is for images that ask for it.
func (v *devicesXML) display(specs map[string]string) {
	v.Inputs = []inputXML{{Type: "tablet", Bus: "virtio"}}
	if specs["hw_pointer_model"] == "usbtablet" {
		v.Controllers = []controllerXML{{Type: "usb", Model: "qemu-xhci"}}
		v.Inputs[0].Bus = "usb"
	}
	v.Graphics = &graphicsXML{Type: "vnc", Listen: typeXML{"none"}}
	v.Video.Model = videoModelXML{Type: "vga", VRAM: displayKiB}
}

// ports counts the devices that take a PCIe port each.
func (v devicesXML) ports() int {
	n := 2 + len(v.Interfaces) // the balloon and the source of randomness
	for _, d := range v.Disks {
		if d.Target.Bus == "virtio" {
			n++
		}
	}
	for _, c := range v.Controllers {
		if c.Type == "scsi" || c.Type == "virtio-serial" || c.Model == "qemu-xhci" {
			n++
		}
	}
	for _, i := range v.Inputs {
		if i.Bus == "virtio" {
			n++
		}
	}
	return n
}

func disk2xml(d hypervisor.Disk) diskXML {
	x := diskXML{
		Type: "file", Device: d.Device,
		Driver: driverXML{Name: "qemu", Type: d.Format},
		Source: sourceXML{File: d.Path},
		Target: targetXML{Bus: d.Bus},
		Serial: d.Serial,
		Boot:   order(d.BootOrder),
	}
	if x.Device == "" {
		x.Device = "disk"
	}
	if x.Target.Bus == "" {
		x.Target.Bus = "virtio"
		if x.Device == "cdrom" {
			x.Target.Bus = "sata"
		}
	}
	if x.Device == "disk" {
		x.Driver.Discard = "unmap" // what a guest trims is given back to the host
	}
	if d.Network != nil || d.Shared || d.Everywhere {
		x.Driver.Cache = "none" // what another host reads must not be in this one's memory
	}
	if d.Shared {
		x.Shared = &emptyXML{}
	}
	if d.Network != nil {
		x.Type, x.Source = "network", network2xml(*d.Network)
	}
	if d.Limits != (hypervisor.DiskLimits{}) {
		limits := ioTuneXML(d.Limits)
		x.IOTune = &limits
	}
	if d.ReadOnly || x.Device == "cdrom" {
		x.ReadOnly = &emptyXML{}
	}
	return x
}

func nic2xml(n hypervisor.NIC) interfaceXML {
	x := interfaceXML{
		Type:   "ethernet",
		MAC:    addrXML{strings.ToLower(n.MAC)},
		Target: targetXML{Dev: n.Tap, Managed: "no"},
		Model:  typeXML{"virtio"},
		Boot:   order(n.BootOrder),
		// The switch runs in user space, takes frames from the tap without the virtio header and
		// so neither sees nor mends what offloads leave unfinished. Without these features the
		// guest's packets carry full checksums and are no larger than its MTU, and it expects the same.
		Driver: driverXML{
			Host:  &offloadsXML{Csum: "off", GSO: "off", TSO4: "off", TSO6: "off", ECN: "off", UFO: "off", MrgRxbuf: "off"},
			Guest: &offloadsXML{Csum: "off", TSO4: "off", TSO6: "off", ECN: "off", UFO: "off"},
		},
	}
	if n.MTU != 0 {
		x.MTU = &mtuXML{n.MTU}
	}
	return x
}

func order(n int) *orderXML {
	if n == 0 {
		return nil
	}
	return &orderXML{n}
}

// letter names the n-th disk as Linux does: a to z, aa, ab…
func letter(n int) string {
	s := ""
	for n++; n > 0; n = (n - 1) / 26 {
		s = string(rune('a'+(n-1)%26)) + s
	}
	return s
}

// record is what the driver must know of a domain that is ours beyond its state.
type record struct {
	digest   string
	log      string // path of the console log, or empty
	logBound int64
	taps     []string
	ports    []portXML
	disk     string // of a container, and its serial number
	serial   string
}

// recordOf gives the record of a guest that is defined by g.
func recordOf(g hypervisor.Guest, digest string) record {
	r := record{digest: digest, log: g.ConsoleLog, logBound: g.ConsoleLogBound()}
	for _, n := range g.NICs {
		r.taps = append(r.taps, n.Tap)
		r.ports = append(r.ports, portXML{ID: n.ID, MAC: strings.ToLower(n.MAC), Tap: n.Tap, MTU: n.MTU})
	}
	if len(g.Disks) > 0 {
		r.disk, r.serial = g.Disks[0].Path, g.Disks[0].Serial
	}
	return r
}

// parseRecord reads the metadata element of a domain. Somebody may have edited it: what cannot
// be used counts as not there. libvirt gives the element without its namespace, by which it was
// asked for.
func parseRecord(text string) (record, error) {
	var g struct {
		XMLName xml.Name `xml:"guest"`
		notesXML
	}
	if err := xml.Unmarshal([]byte(text), &g); err != nil {
		return record{}, fmt.Errorf("read the domain's metadata: %w", err)
	}
	r := record{digest: g.Digest, log: g.ConsoleLog, logBound: g.ConsoleLogBytes, ports: g.Ports, disk: g.Disk, serial: g.DiskSerial}
	for _, p := range g.Ports {
		r.taps = append(r.taps, p.Tap)
	}
	if r.logBound <= 0 {
		r.logBound = hypervisor.DefaultConsoleLogBytes
	}
	if !strings.HasPrefix(r.log, "/") {
		r.log = ""
	}
	return r, nil
}

// parseUUID reads a UUID in lower case; ok is false for anything else.
func parseUUID(id string) (u [16]byte, ok bool) {
	if len(id) != 36 || id[8] != '-' || id[13] != '-' || id[18] != '-' || id[23] != '-' || strings.ToLower(id) != id {
		return u, false
	}
	digits := id[:8] + id[9:13] + id[14:18] + id[19:23] + id[24:]
	n, err := hex.Decode(u[:], []byte(digits))
	return u, err == nil && n == 16
}

func formatUUID(u [16]byte) string {
	return fmt.Sprintf("%x-%x-%x-%x-%x", u[:4], u[4:6], u[6:8], u[8:10], u[10:])
}

// hostXML is the part of libvirt's capabilities document that the driver reads.
type hostXML struct {
	XMLName xml.Name `xml:"capabilities"`
	CPU     struct {
		Arch     string `xml:"arch"`
		Model    string `xml:"model"`
		Vendor   string `xml:"vendor"`
		Topology struct {
			Sockets int `xml:"sockets,attr"`
			Dies    int `xml:"dies,attr"`
			Cores   int `xml:"cores,attr"`
			Threads int `xml:"threads,attr"`
		} `xml:"topology"`
		Features []struct {
			Name string `xml:"name,attr"`
		} `xml:"feature"`
	} `xml:"host>cpu"`
	Cells []struct {
		ID    int `xml:"id,attr"`
		Pages []struct {
			Unit string `xml:"unit,attr"`
			Size int    `xml:"size,attr"`
			N    int    `xml:",chardata"`
		} `xml:"pages"`
		CPUs []struct {
			ID       int    `xml:"id,attr"`
			Siblings string `xml:"siblings,attr"`
		} `xml:"cpus>cpu"`
	} `xml:"host>topology>cells>cell"`
	Guests []struct {
		OSType string `xml:"os_type"`
		Arch   struct {
			Name     string    `xml:"name,attr"`
			Emulator string    `xml:"emulator"`
			Domains  []typeXML `xml:"domain"`
		} `xml:"arch"`
	} `xml:"guest"`
}

// emulator gives the QEMU that libvirt would run 64-bit PC guests with, and whether libvirt
// believes that it can use KVM.
func (h hostXML) emulator() (path string, kvm bool) {
	for _, g := range h.Guests {
		if g.OSType != "hvm" || g.Arch.Name != "x86_64" {
			continue
		}
		for _, d := range g.Arch.Domains {
			kvm = kvm || d.Type == "kvm"
		}
		return g.Arch.Emulator, kvm
	}
	return "", false
}

func parseHost(text string) (hostXML, error) {
	var h hostXML
	if err := xml.Unmarshal([]byte(text), &h); err != nil {
		return hostXML{}, fmt.Errorf("read libvirt's capabilities: %w", err)
	}
	return h, nil
}

func versionName(v uint64) string {
	return strconv.FormatUint(v/1_000_000, 10) + "." + strconv.FormatUint(v/1000%1000, 10) + "." + strconv.FormatUint(v%1000, 10)
}
