package model

import (
	"net/netip"
	"time"
)

// RowKind names a kind of row that a host is told.
type RowKind string

// The kinds of host rows. A host holds only rows that something on it needs.
const (
	RowServer  RowKind = "server"  // HostServer: a guest placed on the host
	RowPort    RowKind = "port"    // HostPort: a port bound to the host
	RowPeer    RowKind = "peer"    // HostPeer: a port elsewhere, of a network that has a port here
	RowNetwork RowKind = "network" // HostNetwork: a network that has a port here
	RowGroup   RowKind = "group"   // HostGroup: a security group of a port here
	RowMember  RowKind = "member"  // HostMember: one member of a group that a rule here refers to
)

// RowID is the identity of a host row.
type RowID struct {
	Kind RowKind `json:"kind"`
	Key  string  `json:"key"`
}

// String gives kind/key.
func (r RowID) String() string { return string(r.Kind) + "/" + r.Key }

// HostRow is one of the row types below, as a pointer. Rows are immutable once made.
type HostRow interface {
	RowID() RowID
}

// HostSubnet is what a host needs of a subnet.
type HostSubnet struct {
	ID      ID           `json:"id"`
	CIDR    netip.Prefix `json:"cidr"`
	Gateway netip.Addr   `json:"gateway"`
	DNS     []netip.Addr `json:"dns,omitempty"`
	Routes  []Route      `json:"routes,omitempty"`
	DHCP    bool         `json:"dhcp"`
}

// HostNetwork is what a host needs of a network. Flood lists the tunnel addresses of the
// other hosts that have a port in it, sorted: where a broadcast goes.
type HostNetwork struct {
	ID        ID           `json:"id"`
	ProjectID ID           `json:"project_id"`
	VNI       uint32       `json:"vni"`
	MTU       int          `json:"mtu"`
	DNSDomain string       `json:"dns_domain,omitempty"`
	Subnets   []HostSubnet `json:"subnets,omitempty"`
	Flood     []netip.Addr `json:"flood,omitempty"`
}

// RowID is network/<id>.
func (r *HostNetwork) RowID() RowID { return RowID{RowNetwork, r.ID} }

// HostPort is a port to be wired on this host.
type HostPort struct {
	ID           ID            `json:"id"`
	NetworkID    ID            `json:"network_id"`
	ProjectID    ID            `json:"project_id"`
	VNI          uint32        `json:"vni"`
	MAC          string        `json:"mac"`
	FixedIPs     []FixedIP     `json:"fixed_ips,omitempty"`
	AdminStateUp bool          `json:"admin_state_up"`
	PortSecurity bool          `json:"port_security"`
	Groups       []ID          `json:"groups,omitempty"` // empty with PortSecurity: nothing may pass but DHCP and ARP
	Pairs        []AddressPair `json:"pairs,omitempty"`
	DHCPOptions  []DHCPOption  `json:"dhcp_options,omitempty"`
	DeviceID     ID            `json:"device_id,omitempty"`
	HostName     string        `json:"host_name,omitempty"` // DHCP option 12
	Generation   int64         `json:"generation"`
}

// RowID is port/<id>.
func (r *HostPort) RowID() RowID { return RowID{RowPort, r.ID} }

// HostPeer is a port on another host.
type HostPeer struct {
	ID        ID            `json:"id"`
	NetworkID ID            `json:"network_id"`
	VNI       uint32        `json:"vni"`
	MAC       string        `json:"mac"`
	Addresses []netip.Addr  `json:"addresses,omitempty"`
	Pairs     []AddressPair `json:"pairs,omitempty"`
	TunnelIP  netip.Addr    `json:"tunnel_ip"`
}

// RowID is peer/<id>.
func (r *HostPeer) RowID() RowID { return RowID{RowPeer, r.ID} }

// HostRule is one rule of a HostGroup; see SecurityRule.
type HostRule struct {
	ID            ID           `json:"id"`
	Direction     string       `json:"direction"`
	EtherType     string       `json:"ethertype"`
	Protocol      string       `json:"protocol,omitempty"`
	PortMin       *int         `json:"port_min,omitempty"`
	PortMax       *int         `json:"port_max,omitempty"`
	RemotePrefix  netip.Prefix `json:"remote_prefix"`
	RemoteGroupID ID           `json:"remote_group_id,omitempty"`
}

// HostGroup is a security group of a port here, its rules sorted by id.
type HostGroup struct {
	ID       ID         `json:"id"`
	Stateful bool       `json:"stateful"`
	Rules    []HostRule `json:"rules,omitempty"`
}

// RowID is group/<id>.
func (r *HostGroup) RowID() RowID { return RowID{RowGroup, r.ID} }

// HostMember is one member of a remote group: a port anywhere, its addresses and its
// pairs' prefixes. One row a member, so that a join costs a host one small row.
type HostMember struct {
	GroupID  ID             `json:"group_id"`
	PortID   ID             `json:"port_id"`
	Prefixes []netip.Prefix `json:"prefixes"`
}

// RowID is member/<group>,<port>.
func (r *HostMember) RowID() RowID { return RowID{RowMember, r.GroupID + "," + r.PortID} }

// HostNIC is an interface of a guest, in order.
type HostNIC struct {
	PortID ID     `json:"port_id"`
	MAC    string `json:"mac"`
	MTU    int    `json:"mtu"`
}

// HostServer is a guest that this host runs, stops or removes.
type HostServer struct {
	ID          ID                `json:"id"`
	Name        string            `json:"name"`
	ProjectID   ID                `json:"project_id"`
	UserID      ID                `json:"user_id"`
	HostName    string            `json:"host_name"`
	Zone        string            `json:"zone"`
	FlavorName  string            `json:"flavor_name"`
	VCPUs       int               `json:"vcpus"`
	MemoryMiB   int               `json:"memory_mib"`
	DiskGiB     int               `json:"disk_gib"` // 0: the image's size
	Image       ImageCopy         `json:"image"`
	NICs        []HostNIC         `json:"nics,omitempty"`
	KeyName     string            `json:"key_name,omitempty"`
	PublicKey   string            `json:"public_key,omitempty"`
	UserData    string            `json:"user_data,omitempty"` // base64
	ConfigDrive bool              `json:"config_drive"`
	Metadata    map[string]string `json:"metadata,omitempty"`
	Groups      []string          `json:"groups,omitempty"` // names of its security groups, for EC2 metadata
	Power       Power             `json:"power"`
	Reboots     int64             `json:"reboots"`
	HardReboots int64             `json:"hard_reboots"`
	Deleted     bool              `json:"deleted"`
	CreatedAt   time.Time         `json:"created_at"`
	Generation  int64             `json:"generation"`
	RequestID   string            `json:"request_id,omitempty"` // of the request that last changed it
	// Observed is what the store last heard of this server, so that an agent whose disk was
	// lost does not serve an old reboot again.
	ObservedReboots int64 `json:"observed_reboots"`
	ObservedHard    int64 `json:"observed_hard"`
}

// RowID is server/<id>.
func (r *HostServer) RowID() RowID { return RowID{RowServer, r.ID} }

// ServerReport is what a host says of a guest.
type ServerReport struct {
	ServerID   ID        `json:"server_id"`
	Generation int64     `json:"generation"` // of the HostServer acted on
	Phase      Phase     `json:"phase"`      // fetching, starting, ready, error
	Power      Power     `json:"power"`
	Reboots    int64     `json:"reboots"`
	Hard       int64     `json:"hard_reboots"`
	Gone       bool      `json:"gone,omitempty"` // nothing is left of a deleted server
	Fault      *Fault    `json:"fault,omitempty"`
	Steps      []StepAt  `json:"steps,omitempty"` // steps finished or failed since the server was placed
	At         time.Time `json:"at"`
}

// StepAt is the timing of one boot step on a host.
type StepAt struct {
	Step       Step      `json:"step"`
	StartedAt  time.Time `json:"started_at"`
	FinishedAt time.Time `json:"finished_at"`
	Error      string    `json:"error,omitempty"`
}

// PortReport is what a host says of a port.
type PortReport struct {
	PortID     ID     `json:"port_id"`
	Generation int64  `json:"generation"`
	State      string `json:"state"`
	Fault      string `json:"fault,omitempty"`
}

// HostBatch is a step of a host's desired state: everything, or what has changed since
// the batch before.
type HostBatch struct {
	Full       bool  // Upserts is all that is wanted; Removes is empty
	Generation int64 // store revision that it leads to; never falls
	Upserts    []HostRow
	Removes    []RowID
}
