package model

import (
	"encoding/json"
	"net/netip"
	"time"
)

// RowKind names a kind of row that a host is told.
type RowKind string

// The kinds of host rows. A host holds only rows that something on it needs.
const (
	RowServer  RowKind = "server"  // HostServer: a guest placed on the host
	RowPort    RowKind = "port"    // HostPort: a port bound to the host
	RowPeer    RowKind = "peer"    // HostPeer: a port elsewhere, of a network known here, or that a router here leads to
	RowNetwork RowKind = "network" // HostNetwork: a network that has a port here, or that a router here leads to
	RowGroup   RowKind = "group"   // HostGroup: a security group of a port here
	RowMember  RowKind = "member"  // HostMember: one member of a group that a rule here refers to

	RowRouter    RowKind = "router"    // HostRouter: a router that a port here may reach, or that this host is a gateway of
	RowFloating  RowKind = "floating"  // HostFloating: a floating address that is served here
	RowAddresses RowKind = "addresses" // HostAddresses: an address group that a rule here refers to
	RowVolume    RowKind = "volume"    // HostVolume: a volume that the host's agent works on, or that a server here uses
	RowMirror    RowKind = "mirror"    // HostMirror: a copy of a port's frames that is made, or received, here

	// Rows that a data path learns by itself and tells nobody. No server ever sends one.
	RowNeighbor RowKind = "neighbor" // HostNeighbor: the MAC of an address outside
	RowListener RowKind = "listener" // HostListener: a port here that listens to a multicast group
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
	// RAMode and AddressMode are Subnet's, of an IPv6 block.
	RAMode      string `json:"ra_mode,omitempty"`
	AddressMode string `json:"address_mode,omitempty"`
}

// HostNetwork is what a host needs of a network. Flood lists the tunnel addresses of the
// other hosts that have a port in it, sorted: where a broadcast goes. It is empty for flat
// and VLAN networks, whose broadcasts go to the provider bridge, and on a host that has no
// port in it and knows it by a router only: nobody there broadcasts.
type HostNetwork struct {
	ID        ID           `json:"id"`
	ProjectID ID           `json:"project_id"`
	VNI       uint32       `json:"vni"` // the network's number in the pipeline, and on the wire of a tunnel
	MTU       int          `json:"mtu"`
	DNSDomain string       `json:"dns_domain,omitempty"`
	Subnets   []HostSubnet `json:"subnets,omitempty"`
	Flood     []netip.Addr `json:"flood,omitempty"`
	// Type is NetworkVXLAN (also where it is empty), NetworkGRE, NetworkGeneve, NetworkFlat or NetworkVLAN.
	Type            string `json:"type,omitempty"`
	PhysicalNetwork string `json:"physical_network,omitempty"` // of a flat or VLAN network
	VLAN            uint16 `json:"vlan,omitempty"`             // of a VLAN network, 1 to 4094
	External        bool   `json:"external,omitempty"`
	VLANTransparent bool   `json:"vlan_transparent,omitempty"` // guests' own tags pass
	// Bare: nobody stands beside the switch to serve guests, so they are told of no metadata service and of no
	// resolver there. Set by who drives such a switch.
	Bare bool `json:"bare,omitempty"`
}

// Provider tells whether the network's frames go over a provider bridge and not in tunnels.
func (r *HostNetwork) Provider() bool { return r.Type == NetworkFlat || r.Type == NetworkVLAN }

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
	Held         []Held        `json:"held,omitempty"` // Port.Held
	DHCPOptions  []DHCPOption  `json:"dhcp_options,omitempty"`
	DeviceID     ID            `json:"device_id,omitempty"`
	HostName     string        `json:"host_name,omitempty"` // DHCP option 12
	Generation   int64         `json:"generation"`
	// Parent is the port whose device carries this one's frames with the tag VLAN: it is a
	// subport of a trunk. Empty: it has a device of its own.
	Parent ID      `json:"parent,omitempty"`
	VLAN   uint16  `json:"vlan,omitempty"`
	QoS    HostQoS `json:"qos"`
	// Standby: a server that has the port is on its way here. It is wired as any, but traffic to it goes
	// where its HostPeer row says, and none comes from here, until the guest runs here.
	Standby bool `json:"standby,omitempty"`
	// Device is the network device that binding:profile names for the port; only a switch without an agent reads it.
	Device string `json:"device,omitempty"`
}

// HostQoS is what limits and marks a port's traffic. Zero: no limit. Egress is what the guest sends.
type HostQoS struct {
	EgressKbps   int  `json:"egress_kbps,omitempty"`  // kilobits (1,000) a second
	EgressBurst  int  `json:"egress_burst,omitempty"` // kilobits; 0: the data path chooses
	IngressKbps  int  `json:"ingress_kbps,omitempty"`
	IngressBurst int  `json:"ingress_burst,omitempty"`
	EgressPps    int  `json:"egress_pps,omitempty"` // packets a second
	IngressPps   int  `json:"ingress_pps,omitempty"`
	DSCP         *int `json:"dscp,omitempty"` // 0 to 63, of what the guest sends
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
	Held      []Held        `json:"held,omitempty"`
	TunnelIP  netip.Addr    `json:"tunnel_ip"`           // invalid (zero) in a flat or VLAN network: no tunnel leads there
	Type      string        `json:"type,omitempty"`      // the network's, where it is not VXLAN
	HostName  string        `json:"host_name,omitempty"` // for DNS
	// Moved: the port's guest has just left this host for that one. What still comes here for it by a tunnel
	// is sent on there. A host's agent sets it by itself; no server sends it.
	Moved bool `json:"moved,omitempty"`
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
	// AddressGroupID is an address group that holds the remote side.
	AddressGroupID ID `json:"address_group_id,omitempty"`
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

// HostAddresses is an address group: prefixes that rules refer to by its id, sorted.
type HostAddresses struct {
	ID       ID             `json:"id"`
	Prefixes []netip.Prefix `json:"prefixes,omitempty"`
}

// RowID is addresses/<id>.
func (r *HostAddresses) RowID() RowID { return RowID{RowAddresses, r.ID} }

// HostRouter is a router as each host that may route for it knows it: every host with a port
// in one of its networks, every such host of a router that names it as a next hop, and its
// gateway hosts.
type HostRouter struct {
	ID           ID               `json:"id"`
	ProjectID    ID               `json:"project_id"`
	AdminStateUp bool             `json:"admin_state_up"`
	Interfaces   []HostRouterPort `json:"interfaces,omitempty"` // by port id
	Routes       []Route          `json:"routes,omitempty"`     // extra routes
	Gateway      *HostGateway     `json:"gateway,omitempty"`    // nil: it leads nowhere outside
}

// RowID is router/<id>.
func (r *HostRouter) RowID() RowID { return RowID{RowRouter, r.ID} }

// HostRouterPort is an interface of a router to a tenant's network. Its MAC is the same on
// every host and never seen on the underlay as a source.
type HostRouterPort struct {
	PortID    ID             `json:"port_id"`
	NetworkID ID             `json:"network_id"`
	VNI       uint32         `json:"vni"` // the network's
	MAC       string         `json:"mac"`
	Addresses []netip.Prefix `json:"addresses"` // the interface's addresses, each with the length of its subnet
	MTU       int            `json:"mtu"`       // bytes, the network's
	// Scope4 and Scope6 are the address scopes of the network's blocks; empty: none.
	Scope4 ID `json:"scope4,omitempty"`
	Scope6 ID `json:"scope6,omitempty"`
}

// HostGateway is a router's side to the outside.
type HostGateway struct {
	PortID    ID             `json:"port_id"`
	NetworkID ID             `json:"network_id"` // the external network; its row is told with this one
	VNI       uint32         `json:"vni"`        // the external network's number
	MAC       string         `json:"mac"`
	Addresses []netip.Prefix `json:"addresses"`           // the gateway port's addresses with their subnets' lengths
	Subnets   []netip.Prefix `json:"subnets,omitempty"`   // all blocks of the external network: what is next to the router there
	NextHops  []netip.Addr   `json:"next_hops,omitempty"` // the subnets' gateways, one a family: default routes
	MTU       int            `json:"mtu"`
	SNAT      bool           `json:"snat"`
	Scope4    ID             `json:"scope4,omitempty"` // address scopes of the external network's blocks; empty: none
	Scope6    ID             `json:"scope6,omitempty"`
	QoS       HostQoS        `json:"qos,omitzero"` // limits of what is translated to the gateway's address
	// Transit is the tunnel id under which other hosts send to the active gateway host.
	Transit uint32 `json:"transit"`
	// Active: this host is the active gateway host. TunnelIP is the active one's address, invalid where there is none.
	Active   bool       `json:"active"`
	TunnelIP netip.Addr `json:"tunnel_ip"`
}

// HostFloating is a floating address that this host serves: one of a port here, or, as
// the active gateway host of its router, one with forwarded ports or of a port that has no
// host. It answers ARP for the address with MAC.
type HostFloating struct {
	ID        ID            `json:"id"`
	RouterID  ID            `json:"router_id"`
	NetworkID ID            `json:"network_id"` // external
	VNI       uint32        `json:"vni"`        // of the external network
	Address   netip.Addr    `json:"address"`
	MAC       string        `json:"mac"`
	Fixed     netip.Addr    `json:"fixed"` // the port's address behind it; invalid (zero): only Forwards
	Forwards  []HostForward `json:"forwards,omitempty"`
	PortID    ID            `json:"port_id,omitempty"` // the port behind it
	QoS       HostQoS       `json:"qos,omitzero"`      // limits of what goes in (Ingress) and out by the address
	// Standby: another host serves it, until the guest behind PortID runs here.
	Standby bool `json:"standby,omitempty"`
}

// RowID is floating/<id>.
func (r *HostFloating) RowID() RowID { return RowID{RowFloating, r.ID} }

// HostForward sends ports of a floating address on to an address inside; both ranges have one length.
type HostForward struct {
	ID           ID         `json:"id"`
	Protocol     string     `json:"protocol"` // tcp, udp, sctp
	External     uint16     `json:"external"` // first of Count ports
	Internal     uint16     `json:"internal"`
	Count        uint16     `json:"count"`
	Address      netip.Addr `json:"address"`
	InternalPort ID         `json:"internal_port"` // the port that has the address
}

// HostMirror is a tap flow: frames of port Source are copied to port Sink. A host is told where it
// has the one or the other.
type HostMirror struct {
	ID       ID         `json:"id"`
	Source   ID         `json:"source"`
	Sink     ID         `json:"sink"`
	Out      bool       `json:"out"`       // what the source's guest sends
	In       bool       `json:"in"`        // what it receives
	VNI      uint32     `json:"vni"`       // tunnel id of the copies between hosts
	TunnelIP netip.Addr `json:"tunnel_ip"` // of the sink's host; invalid (zero): the sink is here
}

// RowID is mirror/<id>.
func (r *HostMirror) RowID() RowID { return RowID{RowMirror, r.ID} }

// HostNeighbor is what a data path learnt by ARP or neighbour discovery (RFC 826, RFC 4861)
// outside: who has an address of an external network.
type HostNeighbor struct {
	NetworkID ID         `json:"network_id"`
	VNI       uint32     `json:"vni"`
	Address   netip.Addr `json:"address"`
	MAC       string     `json:"mac"`
}

// RowID is neighbor/<network>,<address>.
func (r *HostNeighbor) RowID() RowID {
	return RowID{RowNeighbor, r.NetworkID + "," + r.Address.String()}
}

// HostListener is what a data path learnt by IGMP or MLD (RFC 3376, RFC 3810): a port here
// wants a multicast group's packets.
type HostListener struct {
	NetworkID ID         `json:"network_id"`
	VNI       uint32     `json:"vni"`
	PortID    ID         `json:"port_id"`
	Group     netip.Addr `json:"group"`
}

// RowID is listener/<network>,<port>,<group>.
func (r *HostListener) RowID() RowID {
	return RowID{RowListener, r.NetworkID + "," + r.PortID + "," + r.Group.String()}
}

// HostNIC is an interface of a guest, in order.
type HostNIC struct {
	PortID ID     `json:"port_id"`
	MAC    string `json:"mac"`
	MTU    int    `json:"mtu"`
	Tag    string `json:"tag,omitempty"`
}

// HostDisk is a volume that a guest has, in order after its own root disk.
type HostDisk struct {
	VolumeID ID     `json:"volume_id"`
	Boot     bool   `json:"boot,omitempty"`
	ReadOnly bool   `json:"read_only,omitempty"`
	Shared   bool   `json:"shared,omitempty"` // by several guests
	Device   string `json:"device,omitempty"` // as the user sees it
	Tag      string `json:"tag,omitempty"`

	Limits *DiskLimits `json:"limits,omitempty"`
	// Wait: it is being filled anew, and no guest is to have it until that has ended; Failed: it has not been filled.
	Wait   bool `json:"wait,omitempty"`
	Failed bool `json:"failed,omitempty"`
	// To, where not nil, is where the disk is to go under the guest.
	To *DiskTo `json:"to,omitempty"`
}

// DiskTo is where a guest's disk is to go.
type DiskTo struct {
	Number int64  `json:"number"` // of the volume's relocation
	Engine string `json:"engine"`
	// Owner is the host that has the place, of the engine local; zero where this host has it, or where all reach it.
	Owner HostAt `json:"owner"`
	Turn  bool   `json:"turn,omitempty"` // the guest is to use it; before, it is copied only
}

// DiskState is what became of a DiskTo.
type DiskState string

// What a guest's host says of it.
const (
	DiskNear   DiskState = "near"   // it is copied, but for a little
	DiskTurned DiskState = "turned" // the guest uses it
	DiskFailed DiskState = "failed" // the guest's disk is what it was
)

// DiskReport is what a host says of a guest's disk that is to go elsewhere.
type DiskReport struct {
	VolumeID ID        `json:"volume_id"`
	Number   int64     `json:"number"`
	State    DiskState `json:"state"`
	Fault    *Fault    `json:"fault,omitempty"`
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

	Rebuilds         int64             `json:"rebuilds,omitempty"`
	ObservedRebuilds int64             `json:"observed_rebuilds,omitempty"`
	Volumes          []HostDisk        `json:"volumes,omitempty"`
	Saving           []ID              `json:"saving,omitempty"` // images to be made of the root disk
	Rescue           *Rescue           `json:"rescue,omitempty"`
	ObservedRescue   int64             `json:"observed_rescue,omitempty"` // ServerReport.Rescue, as the store last heard it
	ExtraSpecs       map[string]string `json:"extra_specs,omitempty"`     // of the flavor
	EphemeralGiB     int               `json:"ephemeral,omitempty"`
	SwapMiB          int               `json:"swap,omitempty"`
	Sealed           string            `json:"sealed,omitempty"` // password for the metadata service
	SealedClears     int64             `json:"sealed_clears,omitempty"`
	AdminPass        string            `json:"admin_pass,omitempty"`  // for the config drive, until the guest has started with it
	VendorData       json.RawMessage   `json:"vendor_data,omitempty"` // of SettingVendorData
	Reservation      string            `json:"reservation,omitempty"` // Nova's reservation id
	LaunchIndex      int               `json:"launch_index,omitempty"`
	Move             *HostMove         `json:"move,omitempty"`
	// LeaseSeconds, where not 0: the guest must be off, its power cut, once the host has heard no server for so long, as another host will run it then.
	LeaseSeconds int `json:"lease_seconds,omitempty"`
}

// RowID is server/<id>.
func (r *HostServer) RowID() RowID { return RowID{RowServer, r.ID} }

// ServerReport is what a host says of a guest.
type ServerReport struct {
	ServerID   ID             `json:"server_id"`
	Generation int64          `json:"generation"` // of the HostServer acted on
	Phase      Phase          `json:"phase"`      // fetching, starting, ready, error
	Power      Power          `json:"power"`
	Reboots    int64          `json:"reboots"`
	Hard       int64          `json:"hard_reboots"`
	Gone       bool           `json:"gone,omitempty"` // nothing is left of a deleted server
	Rebuilds   int64          `json:"rebuilds,omitempty"`
	Lease      int            `json:"lease,omitempty"`  // HostServer.LeaseSeconds that the host holds the guest to
	Rescue     int64          `json:"rescue,omitempty"` // Revision of the rescue that the guest was last started in; 0: its own disk
	Saved      []UploadReport `json:"saved,omitempty"`  // images made of the root disk
	Move       *MoveReport    `json:"move,omitempty"`

	// Sealed is the password that the guest handed in; SealedClears the row's when it did.
	Sealed       string `json:"sealed,omitempty"`
	SealedClears int64  `json:"sealed_clears,omitempty"`

	// Disks are the volumes that the guest has now, NICs its ports: what was asked to be attached or detached is so.
	Disks []ID `json:"disks,omitempty"`
	NICs  []ID `json:"nics,omitempty"`
	// Elsewhere is what became of disks that are to go elsewhere.
	Elsewhere []DiskReport `json:"elsewhere,omitempty"`
	Fault     *Fault       `json:"fault,omitempty"`
	Steps     []StepAt     `json:"steps,omitempty"` // steps finished or failed since the server was placed
	At        time.Time    `json:"at"`
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
	// Claims are the addresses that the port's guest has said to hold and that the host was not told to be held by it.
	Claims []Claim `json:"claims,omitempty"`
}

// HostBatch is a step of a host's desired state: everything, or what has changed since
// the batch before.
type HostBatch struct {
	Full       bool  // Upserts is all that is wanted; Removes is empty
	Generation int64 // store revision that it leads to; never falls
	Upserts    []HostRow
	Bodies     [][]byte // JSON of each of Upserts, where whoever made the batch has it; else nil
	Removes    []RowID
	// Fresh tells that Upserts may name servers, or volumes that the host is to work on, of which it was not told before.
	Fresh bool
	// Told is HostTold.Generation as the store had it before this batch. What the host has been told of in a later one is nothing that
	// the store knows of: it is older than that, restored from a backup.
	Told int64
}
