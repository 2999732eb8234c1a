package libvirt

import (
	"slices"

	"yakumo/hypervisor"
)

// What a guest's specs become in its definition.

type topologyXML struct {
	Sockets int `xml:"sockets,attr"`
	Cores   int `xml:"cores,attr"`
	Threads int `xml:"threads,attr"`
}

type enableXML struct {
	Enable string `xml:"enable,attr"`
}

type numaXML struct {
	Cells []cellXML `xml:"cell"`
}

type cellXML struct {
	ID     int    `xml:"id,attr"`
	CPUs   string `xml:"cpus,attr"`
	Memory int    `xml:"memory,attr"`
	Unit   string `xml:"unit,attr"`
}

type backingXML struct {
	Pages    *pagesXML `xml:"hugepages"`
	Unmerged *emptyXML `xml:"nosharepages"`
	Locked   *emptyXML `xml:"locked"`
}

type pagesXML struct {
	Pages []pageXML `xml:"page"`
}

type pageXML struct {
	Size int    `xml:"size,attr"`
	Unit string `xml:"unit,attr"`
}

type cpuTuneXML struct {
	Shares   int        `xml:"shares,omitempty"`
	Period   int        `xml:"period,omitempty"`
	Quota    int        `xml:"quota,omitempty"`
	Pins     []pinXML   `xml:"vcpupin"`
	Emulator *cpuSetXML `xml:"emulatorpin"`
	Sched    *schedXML  `xml:"vcpusched"`
}

type schedXML struct {
	VCPUs     string `xml:"vcpus,attr"`
	Scheduler string `xml:"scheduler,attr"`
	Priority  int    `xml:"priority,attr"`
}

type ioTuneXML struct {
	TotalBytes    int64 `xml:"total_bytes_sec,omitempty"`
	ReadBytes     int64 `xml:"read_bytes_sec,omitempty"`
	WriteBytes    int64 `xml:"write_bytes_sec,omitempty"`
	TotalIOPS     int64 `xml:"total_iops_sec,omitempty"`
	ReadIOPS      int64 `xml:"read_iops_sec,omitempty"`
	WriteIOPS     int64 `xml:"write_iops_sec,omitempty"`
	TotalBytesMax int64 `xml:"total_bytes_sec_max,omitempty"`
	ReadBytesMax  int64 `xml:"read_bytes_sec_max,omitempty"`
	WriteBytesMax int64 `xml:"write_bytes_sec_max,omitempty"`
	TotalIOPSMax  int64 `xml:"total_iops_sec_max,omitempty"`
	ReadIOPSMax   int64 `xml:"read_iops_sec_max,omitempty"`
	WriteIOPSMax  int64 `xml:"write_iops_sec_max,omitempty"`
	RequestBytes  int64 `xml:"size_iops_sec,omitempty"`
}

type bandwidthXML struct {
	In  *rateXML `xml:"inbound"`
	Out *rateXML `xml:"outbound"`
}

type rateXML struct {
	Average int `xml:"average,attr,omitempty"`
	Peak    int `xml:"peak,attr,omitempty"`
	Burst   int `xml:"burst,attr,omitempty"`
}

type watchdogXML struct {
	Model  string `xml:"model,attr"`
	Action string `xml:"action,attr"`
}

type rngRateXML struct {
	Bytes  int `xml:"bytes,attr"`
	Period int `xml:"period,attr,omitempty"`
}

// tuned gives g with the disks that its specs ask for.
func tuned(g hypervisor.Guest, t hypervisor.Tuning) hypervisor.Guest {
	if t.DiskBus == "" {
		return g
	}
	g.Disks = slices.Clone(g.Disks)
	for i := range g.Disks {
		if d := &g.Disks[i]; d.Bus == "" && d.Device != "cdrom" {
			d.Bus = t.DiskBus
		}
	}
	return g
}

// lock has all of the guest's memory stay where it is: neither paged out nor merged with others'.
func (d *domainXML) lock() {
	if d.Backing == nil {
		d.Backing = &backingXML{}
	}
	d.Backing.Unmerged, d.Backing.Locked = &emptyXML{}, &emptyXML{}
}

// tune puts the rest of what the specs ask for into the definition.
func (d *domainXML) tune(t hypervisor.Tuning) {
	if t.Sockets > 0 {
		d.CPU.Topology = &topologyXML{t.Sockets, t.Cores, t.Threads}
	}
	if t.Machine != "" {
		d.OS.Type.Machine = t.Machine
	}
	if t.BootMenu {
		d.OS.BootMenu = &enableXML{"yes"}
	}
	if t.Cells != nil {
		d.CPU.NUMA = &numaXML{}
		for i, c := range t.Cells {
			d.CPU.NUMA.Cells = append(d.CPU.NUMA.Cells, cellXML{ID: i, CPUs: cpuSet(c.CPUs), Memory: c.MemoryMiB, Unit: "MiB"})
		}
	}
	if t.HugePageKiB > 0 {
		d.Backing = &backingXML{Pages: &pagesXML{[]pageXML{{t.HugePageKiB, "KiB"}}}}
	}
	if t.Locked {
		d.lock()
	}
	if t.CPUShares > 0 || t.CPUPeriod > 0 || t.CPUQuota > 0 {
		d.CPUTune = &cpuTuneXML{Shares: t.CPUShares, Period: t.CPUPeriod, Quota: t.CPUQuota}
	}
	v := &d.Devices
	if t.Watchdog != "" {
		v.Watchdog = &watchdogXML{"i6300esb", t.Watchdog}
	}
	if t.TPM != "" {
		v.TPM = &tpmXML{Model: t.TPMModel, Backend: tpmBackendXML{"emulator", t.TPM}}
	}
	switch {
	case t.NoRandom:
		v.RNG = nil
	case t.RandomBytes > 0:
		v.RNG.Rate = &rngRateXML{t.RandomBytes, t.RandomPeriod}
	}
	if t.Disk != nil {
		for i := range v.Disks {
			if v.Disks[i].IOTune != nil {
				continue
			}
			v.Disks[i].IOTune = &ioTuneXML{
				TotalBytes: int64(t.Disk["total_bytes_sec"]), ReadBytes: int64(t.Disk["read_bytes_sec"]), WriteBytes: int64(t.Disk["write_bytes_sec"]),
				TotalIOPS: int64(t.Disk["total_iops_sec"]), ReadIOPS: int64(t.Disk["read_iops_sec"]), WriteIOPS: int64(t.Disk["write_iops_sec"]),
			}
		}
	}
	for i := range v.Interfaces {
		n := &v.Interfaces[i]
		if t.CardModel != "" && t.CardModel != "virtio" {
			n.Model.Type, n.Driver, n.MTU = t.CardModel, driverXML{}, nil
		}
		if t.In != (hypervisor.Rate{}) || t.Out != (hypervisor.Rate{}) {
			n.Bandwidth = &bandwidthXML{rate(t.In), rate(t.Out)}
		}
	}
}

func rate(r hypervisor.Rate) *rateXML {
	if r == (hypervisor.Rate{}) {
		return nil
	}
	return &rateXML{max(r.Average, 1), r.Peak, r.Burst} // libvirt wants an average
}
