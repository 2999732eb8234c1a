package model

import (
	"net/netip"
	"slices"
	"time"
)

// Host is a machine that runs guests: what it offers, and what an operator said of it.
type Host struct {
	Meta                // Name is the host's name, unique
	Zone     string     `json:"zone"` // availability zone
	TunnelIP netip.Addr `json:"tunnel_ip"`
	Underlay int        `json:"underlay_mtu"` // MTU of the device that holds TunnelIP, bytes
	// BridgeMappings are the names of the physical networks that the host has a provider bridge for, sorted;
	// ProviderBridges are the names of those bridges, in the same order.
	BridgeMappings  []string `json:"bridge_mappings,omitempty"`
	ProviderBridges []string `json:"provider_bridges,omitempty"`
	// Bandwidth is what the host has for guests that are promised bandwidth, in kbit/s each way,
	// by physical network; BandwidthTunnel for all tunnelled ones; of PacketRate, 1,000 packets/s
	// in all. Absent: nothing to promise.
	Bandwidth map[string]int `json:"bandwidth,omitempty"`
	// Channel is where the host's agent answers other hosts' agents; invalid (zero): nowhere.
	Channel netip.AddrPort `json:"channel"`
	// Engines are the volume engines that the host can work with, sorted: "local", "nfs", "rbd".
	Engines []string `json:"engines,omitempty"`
	// Rooms is what the engines have for volumes, by their names; one that does not tell is absent.
	Rooms    map[string]HostRoom `json:"rooms,omitempty"`
	Draining bool                `json:"draining,omitempty"` // its servers are being moved away
	// DownAt is when the cloud noticed that the host is not heard of; zero while it is. It goes with the next heartbeat.
	DownAt time.Time `json:"down_at"`
	// FencedAt is when an administrator, or a fence, confirmed that the host is off: its servers may run elsewhere. Zero: not; the next heartbeat makes it so.
	FencedAt   time.Time    `json:"fenced_at"`
	Disabled   bool         `json:"disabled"` // no new servers
	Reason     string       `json:"disabled_reason,omitempty"`
	ForcedDown bool         `json:"forced_down"`
	Capacity   HostCapacity `json:"capacity"`
	Version    string       `json:"version"` // of the agent
	BootID     string       `json:"boot_id"`
	// CertSerial is the serial number of the certificate that the host was issued at its last join.
	CertSerial string `json:"cert_serial,omitempty"`
	// CertKey is the SHA-256 of the public key that the host joined with, hex: a certificate of another key is worthless.
	CertKey   string    `json:"cert_key,omitempty"`
	StartedAt time.Time `json:"started_at"` // of the agent
	// Switch, where not nil, says that this is a switch without an agent: a server drives it, and no guest is placed there.
	Switch *HostSwitch `json:"switch,omitempty"`
}

// HostSwitch is how a switch without an agent is reached.
type HostSwitch struct {
	OVSDB    string `json:"ovsdb"`    // tcp:HOST:PORT or ssl:HOST:PORT
	OpenFlow string `json:"openflow"` // the same, of the bridge
	Bridge   string `json:"bridge"`
	Datapath string `json:"datapath"` // system or netdev
}

// HostRoom is what an engine has for volumes, in GiB of 2^30 bytes.
type HostRoom struct {
	TotalGiB int `json:"total_gib"`
	FreeGiB  int `json:"free_gib"`
}

// Maps tells whether the host has a provider bridge for the physical network.
func (h *Host) Maps(physicalNetwork string) bool {
	_, found := slices.BinarySearch(h.BridgeMappings, physicalNetwork)
	return found
}

// Bridges gives the host's provider bridge for each physical network, never nil.
func (h *Host) Bridges() map[string]string {
	out := make(map[string]string, len(h.BridgeMappings))
	for i, n := range h.BridgeMappings {
		if i < len(h.ProviderBridges) {
			out[n] = h.ProviderBridges[i]
		}
	}
	return out
}

// BandwidthTunnel is the name in Host.Bandwidth of what carries the tunnels; no physical
// network has it.
const BandwidthTunnel = "tunnel"

// HostCapacity is what a host has, before over-commit.
type HostCapacity struct {
	VCPUs             int      `json:"vcpus"`
	MemoryMiB         int      `json:"memory_mib"`
	DiskGiB           int      `json:"disk_gib"`
	MemoryFreeMiB     int      `json:"memory_free_mib"`
	DiskFreeGiB       int      `json:"disk_free_gib"`
	Arch              string   `json:"arch"`
	CPUModel          string   `json:"cpu_model"`
	CPUVendor         string   `json:"cpu_vendor,omitempty"`
	Sockets           int      `json:"sockets"`
	Cores             int      `json:"cores"`
	Threads           int      `json:"threads"`
	Features          []string `json:"features,omitempty"`
	HypervisorType    string   `json:"hypervisor_type"`       // QEMU
	HypervisorVersion int      `json:"hypervisor_version"`    // major*1000000+minor*1000+micro
	Accelerator       string   `json:"accelerator"`           // kvm or tcg
	UEFI              bool     `json:"uefi,omitempty"`        // guests can have a UEFI firmware
	SecureBoot        bool     `json:"secure_boot,omitempty"` // which starts what is signed only
	// TPM are the versions of trusted platform modules that guests can have, sorted: "1.2", "2.0".
	TPM []string `json:"tpm,omitempty"`
	// HugePages are the host's pools of pages larger than the ordinary ones, in the order of their sizes and nodes.
	HugePages []HugePages `json:"huge_pages,omitempty"`
	// Dedicated are the CPUs that are kept for guests that have CPUs for themselves, in the order of their numbers; all
	// others are shared. None: no such guest runs here, and the others run on any.
	Dedicated []HostCPU `json:"dedicated,omitempty"`
	// Given is what single servers have of these CPUs and pages, in the order of the servers' ids.
	Given []HostGiven `json:"given,omitempty"`
}

// HostGiven is what a server has of a host for itself, as the host has chosen.
type HostGiven struct {
	ServerID ID    `json:"server_id"`
	CPUs     []int `json:"cpus,omitempty"` // sorted; also those that have to be idle for it
	// Pages are those of each of its cells, whether it runs or not.
	Pages []HugePages `json:"pages,omitempty"`
}

// HostCPU is a CPU of a host: a thread of a core.
type HostCPU struct {
	ID       int   `json:"id"`       // by Linux's number
	Node     int   `json:"node"`     // the NUMA node that it is in
	Siblings []int `json:"siblings"` // the threads of its core, it among them, sorted
}

// SharedCPUs gives how many CPUs are left for guests that share them.
func (c *HostCapacity) SharedCPUs() int { return max(0, c.VCPUs-len(c.Dedicated)) }

// HugePages are pages of one size, in KiB, in a NUMA node.
type HugePages struct {
	KiB   int `json:"kib"`
	Count int `json:"count"`
	Node  int `json:"node,omitempty"`
}

// HugePagesMiB gives how many MiB the pools of pages of a size hold.
func (c *HostCapacity) HugePagesMiB(kib int) (mib int) {
	for _, p := range c.HugePages {
		if p.KiB == kib {
			mib += p.Count * (kib >> 10)
		}
	}
	return mib
}

// Heartbeat exists while a host's stream is alive: it is attached to a lease of the store.
type Heartbeat struct {
	HostID ID        `json:"host_id"`
	Server string    `json:"server"` // the server process that holds the host's stream
	URL    string    `json:"url"`    // where that server answers other servers
	At     time.Time `json:"at"`
	// Suspect: the host's neighbours do not hear it, though its stream is not given up yet. It
	// is no gateway meanwhile.
	Suspect bool `json:"suspect,omitempty"`
}

// HostTold is what the store remembers of what a host may know: every batch that named a server or volume newly has a generation of at most
// this one. It is written before such a batch is sent.
type HostTold struct {
	HostID     ID    `json:"host_id"`
	Generation int64 `json:"generation"`
}

// JoinToken lets one host join once.
type JoinToken struct {
	ID        ID        `json:"id"`
	Hash      string    `json:"hash"`                // SHA-256 of the secret, hex
	HostName  string    `json:"host_name,omitempty"` // only this host may use it; empty: any
	ExpiresAt time.Time `json:"expires_at"`
	UsedBy    ID        `json:"used_by,omitempty"`
	UsedAt    time.Time `json:"used_at"`
	// UsedKey is the SHA-256 of the public key that the token was spent on: a host that lost the answer may ask again with the same key.
	UsedKey string `json:"used_key,omitempty"`
}

// SettingVendorData is the setting that holds what every guest is told in vendor_data.json: a JSON object.
const SettingVendorData = "vendor-data"

// Setting is a value that the whole cloud shares, such as the certificate authority
// ("ca", sealed) or the id of the cloud.
type Setting struct {
	Name  string `json:"name"`
	Value []byte `json:"value"`
}
