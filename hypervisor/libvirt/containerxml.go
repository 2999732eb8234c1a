package libvirt

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/xml"
	"fmt"

	"yakumo/fault"
	"yakumo/hypervisor"
	"yakumo/hypervisor/container"
)

// The domain XML of containers: names and meanings are those of libvirt's drvlxc page.

type containerXML struct {
	XMLName    xml.Name             `xml:"domain"`
	Type       string               `xml:"type,attr"`
	Name       string               `xml:"name"`
	UUID       string               `xml:"uuid"`
	Title      string               `xml:"title,omitempty"`
	Metadata   *metadataXML         `xml:"metadata"`
	Memory     sizeXML              `xml:"memory"`
	VCPU       int                  `xml:"vcpu"`
	CPUTune    cpuTuneXML           `xml:"cputune"`
	OS         containerOSXML       `xml:"os"`
	IDMap      idMapXML             `xml:"idmap"`
	Features   containerFeaturesXML `xml:"features"`
	OnPoweroff string               `xml:"on_poweroff"`
	OnReboot   string               `xml:"on_reboot"`
	OnCrash    string               `xml:"on_crash"`
	Devices    containerDevicesXML  `xml:"devices"`
}

type containerOSXML struct {
	Type string   `xml:"type"`
	Init string   `xml:"init"`
	Args []string `xml:"initarg"`
}

type idMapXML struct {
	UID idRangeXML `xml:"uid"`
	GID idRangeXML `xml:"gid"`
}

type idRangeXML struct {
	Start  int `xml:"start,attr"`
	Target int `xml:"target,attr"`
	Count  int `xml:"count,attr"`
}

type containerFeaturesXML struct {
	PrivNet emptyXML `xml:"privnet"` // a network of its own, also where it has no card
}

type containerDevicesXML struct {
	Filesystems []filesystemXML `xml:"filesystem"`
	Console     typeXML         `xml:"console"`
}

type filesystemXML struct {
	Type     string    `xml:"type,attr"`
	Source   dirXML    `xml:"source"`
	Target   dirXML    `xml:"target"`
	ReadOnly *emptyXML `xml:"readonly"`
}

type dirXML struct {
	Dir string `xml:"dir,attr"`
}

// cpuPeriod is over what a container's processor time is counted, in microseconds.
const cpuPeriod = 100_000

// checkContainer tells why no container could be g, beside what Guest.Check says.
func checkContainer(g hypervisor.Guest) error {
	if err := g.Check(); err != nil {
		return err
	}
	switch {
	case len(g.CPUs.Pins) > 0:
		return fault.New(fault.Invalid, "Guest %s cannot be run: a container has no CPUs for itself.", g.ID)
	case len(g.Disks) != 1:
		return fault.New(fault.Invalid, "Guest %s cannot be run: a container has one disk, and no volumes, config drive, ephemeral or swap disks.", g.ID)
	case g.Disks[0].Network != nil || g.Disks[0].Format != "raw" || g.Disks[0].Device == "cdrom":
		return fault.New(fault.Invalid, "Guest %s cannot be run: a container's disk is a raw file of its host.", g.ID)
	case g.ConsoleLog == "":
		return fault.New(fault.Invalid, "Guest %s cannot be run: a container has a console log.", g.ID)
	}
	return nil
}

// containerDefinition gives the domain XML of g, which has been checked, and its digest.
func containerDefinition(g hypervisor.Guest, f container.Folder) (text, digest string, err error) {
	tuning, err := g.Tuning()
	if err != nil {
		return "", "", err
	}
	base := container.IDBase(g.ID)
	ids := idRangeXML{Target: base, Count: 1 << 16}
	init := container.Init()
	notes := notesXML{Project: g.Project, User: g.User, ConsoleLog: g.ConsoleLog, ConsoleLogBytes: g.ConsoleLogBytes, Disk: g.Disks[0].Path, DiskSerial: g.Disks[0].Serial}
	notes.Ports = recordOf(g, "").ports
	d := containerXML{
		Type: "lxc", Name: g.Name, UUID: g.ID, Title: g.Title, Metadata: &metadataXML{Guest: guestXML{notesXML: notes}},
		Memory: sizeXML{Unit: "MiB", N: g.MemoryMiB}, VCPU: g.VCPUs,
		// libvirt counts all processes of a container together, and holds them to no number of processors but by time.
		CPUTune:    cpuTuneXML{Shares: tuning.CPUShares, Period: cpuPeriod, Quota: g.VCPUs * cpuPeriod},
		OS:         containerOSXML{Type: "exe", Init: init[0], Args: init[1:]},
		IDMap:      idMapXML{UID: ids, GID: ids},
		OnPoweroff: "destroy", OnReboot: "destroy", OnCrash: "destroy",
		Devices: containerDevicesXML{Console: typeXML{"pty"}},
	}
	if tuning.CPUQuota > 0 {
		d.CPUTune.Quota = g.VCPUs * tuning.CPUQuota
		if d.CPUTune.Period = tuning.CPUPeriod; d.CPUTune.Period == 0 {
			d.CPUTune.Period = cpuPeriod
		}
	}
	for _, m := range f.Mounts() {
		x := filesystemXML{Type: "mount", Source: dirXML{m.Source}, Target: dirXML{m.Target}}
		if m.ReadOnly {
			x.ReadOnly = &emptyXML{}
		}
		d.Devices.Filesystems = append(d.Devices.Filesystems, x)
	}
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

// cards gives the network cards of a container.
func (r record) cards() []container.Card {
	out := make([]container.Card, len(r.ports))
	for i, p := range r.ports {
		out[i] = container.Card{MAC: p.MAC, Tap: p.Tap, MTU: p.MTU}
	}
	return out
}
