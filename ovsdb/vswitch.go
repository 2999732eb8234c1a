package ovsdb

// The rows of the Open_vSwitch database (ovs-vswitchd.conf.db(5)), as far as an owner of
// a switch needs them. Columns that the switch changes all the time, such as statistics,
// are left out on purpose: each would be an update every few seconds.

// SwitchDatabase is the name of the database that ovs-vswitchd serves.
const SwitchDatabase = "Open_vSwitch"

// A Root is the only row of table Open_vSwitch.
type Root struct {
	UUID            UUID              `ovsdb:"_uuid"`
	Bridges         []UUID            `ovsdb:"bridges"`
	NextCfg         int64             `ovsdb:"next_cfg"` // raised by who changes the configuration
	CurCfg          int64             `ovsdb:"cur_cfg"`  // the NextCfg that is in force
	OtherConfig     map[string]string `ovsdb:"other_config"`
	ExternalIDs     map[string]string `ovsdb:"external_ids"`
	ManagerOptions  []UUID            `ovsdb:"manager_options"`
	SSL             *UUID             `ovsdb:"ssl"`
	OVSVersion      *string           `ovsdb:"ovs_version"`
	DBVersion       *string           `ovsdb:"db_version"`
	SystemType      *string           `ovsdb:"system_type"`
	SystemVersion   *string           `ovsdb:"system_version"`
	DatapathTypes   []string          `ovsdb:"datapath_types,optional"`
	IfaceTypes      []string          `ovsdb:"iface_types,optional"`
	DPDKInitialized bool              `ovsdb:"dpdk_initialized,optional"`
}

// TableName gives "Open_vSwitch".
func (Root) TableName() string { return "Open_vSwitch" }

// A Bridge is a row of table Bridge.
type Bridge struct {
	UUID                UUID              `ovsdb:"_uuid"`
	Name                string            `ovsdb:"name"`
	DatapathType        string            `ovsdb:"datapath_type"` // "" or "system": the kernel's; "netdev": in user space
	DatapathID          *string           `ovsdb:"datapath_id"`   // 16 hexadecimal digits, set by the switch
	DatapathVersion     string            `ovsdb:"datapath_version,optional"`
	FailMode            *string           `ovsdb:"fail_mode"` // "standalone" or "secure"
	Protocols           []string          `ovsdb:"protocols"` // such as "OpenFlow15"
	Ports               []UUID            `ovsdb:"ports"`
	Controller          []UUID            `ovsdb:"controller"`
	Mirrors             []UUID            `ovsdb:"mirrors"`
	STPEnable           bool              `ovsdb:"stp_enable"`
	RSTPEnable          bool              `ovsdb:"rstp_enable,optional"`
	McastSnoopingEnable bool              `ovsdb:"mcast_snooping_enable,optional"`
	FloodVLANs          []int64           `ovsdb:"flood_vlans"`
	FlowTables          map[int64]UUID    `ovsdb:"flow_tables"`
	OtherConfig         map[string]string `ovsdb:"other_config"`
	ExternalIDs         map[string]string `ovsdb:"external_ids"`
}

// TableName gives "Bridge".
func (Bridge) TableName() string { return "Bridge" }

// A Port is a row of table Port.
type Port struct {
	UUID        UUID              `ovsdb:"_uuid"`
	Name        string            `ovsdb:"name"`
	Interfaces  []UUID            `ovsdb:"interfaces"` // more than one: a bond
	Tag         *int64            `ovsdb:"tag"`        // VLAN 0…4095
	Trunks      []int64           `ovsdb:"trunks"`
	VLANMode    *string           `ovsdb:"vlan_mode"`
	QoS         *UUID             `ovsdb:"qos"`
	MAC         *string           `ovsdb:"mac"`
	BondMode    *string           `ovsdb:"bond_mode"`
	LACP        *string           `ovsdb:"lacp"`
	Protected   bool              `ovsdb:"protected,optional"`
	OtherConfig map[string]string `ovsdb:"other_config"`
	ExternalIDs map[string]string `ovsdb:"external_ids"`
}

// TableName gives "Port".
func (Port) TableName() string { return "Port" }

// An Interface is a row of table Interface.
type Interface struct {
	UUID                 UUID              `ovsdb:"_uuid"`
	Name                 string            `ovsdb:"name"`
	Type                 string            `ovsdb:"type"` // "" (system), "internal", "tap", "patch", "vxlan"…
	Options              map[string]string `ovsdb:"options"`
	OFPort               *int64            `ovsdb:"ofport"`         // set by the switch; -1: it could not be made
	OFPortRequest        *int64            `ovsdb:"ofport_request"` // 1…65279
	Error                *string           `ovsdb:"error"`          // why it could not be made
	AdminState           *string           `ovsdb:"admin_state"`    // "up" or "down"
	LinkState            *string           `ovsdb:"link_state"`
	LinkSpeed            *int64            `ovsdb:"link_speed"` // bit/s
	MAC                  *string           `ovsdb:"mac"`
	MACInUse             *string           `ovsdb:"mac_in_use"`
	MTU                  *int64            `ovsdb:"mtu"` // bytes
	MTURequest           *int64            `ovsdb:"mtu_request"`
	IfIndex              *int64            `ovsdb:"ifindex"`
	IngressPolicingRate  int64             `ovsdb:"ingress_policing_rate"`  // kbit/s; 0: none
	IngressPolicingBurst int64             `ovsdb:"ingress_policing_burst"` // kbit
	BFD                  map[string]string `ovsdb:"bfd"`
	BFDStatus            map[string]string `ovsdb:"bfd_status"`
	Status               map[string]string `ovsdb:"status"`
	LLDP                 map[string]string `ovsdb:"lldp,optional"`
	OtherConfig          map[string]string `ovsdb:"other_config"`
	ExternalIDs          map[string]string `ovsdb:"external_ids"`
}

// TableName gives "Interface".
func (Interface) TableName() string { return "Interface" }

// A Controller is a row of table Controller: an OpenFlow controller of a bridge.
type Controller struct {
	UUID                UUID              `ovsdb:"_uuid"`
	Target              string            `ovsdb:"target"`                         // "tcp:host:port", "ssl:host:port", "unix:file", "ptcp:port"…
	Type                *string           `ovsdb:"type,optional"`                  // "primary" or "service"
	MaxBackoff          *int64            `ovsdb:"max_backoff"`                    // ms, at least 1000
	InactivityProbe     *int64            `ovsdb:"inactivity_probe"`               // ms; 0: none
	ConnectionMode      *string           `ovsdb:"connection_mode"`                // "in-band" or "out-of-band"
	EnableAsyncMessages *bool             `ovsdb:"enable_async_messages"`          // false: only what is asked for
	RateLimit           *int64            `ovsdb:"controller_rate_limit"`          // packet-ins a second, at least 100
	BurstLimit          *int64            `ovsdb:"controller_burst_limit"`         // packet-ins, at least 25
	QueueSize           *int64            `ovsdb:"controller_queue_size,optional"` // packet-ins, 1…512
	IsConnected         bool              `ovsdb:"is_connected"`
	Role                *string           `ovsdb:"role"` // "other", "master" or "slave"
	OtherConfig         map[string]string `ovsdb:"other_config"`
	ExternalIDs         map[string]string `ovsdb:"external_ids"`
}

// TableName gives "Controller".
func (Controller) TableName() string { return "Controller" }

// A QoS is a row of table QoS. Rows of it, and of Queue, stay until they are deleted.
type QoS struct {
	UUID        UUID              `ovsdb:"_uuid"`
	Type        string            `ovsdb:"type"` // such as "linux-htb", "egress-policer"
	Queues      map[int64]UUID    `ovsdb:"queues"`
	OtherConfig map[string]string `ovsdb:"other_config"`
	ExternalIDs map[string]string `ovsdb:"external_ids"`
}

// TableName gives "QoS".
func (QoS) TableName() string { return "QoS" }

// A Queue is a row of table Queue.
type Queue struct {
	UUID        UUID              `ovsdb:"_uuid"`
	DSCP        *int64            `ovsdb:"dscp"`         // 0…63
	OtherConfig map[string]string `ovsdb:"other_config"` // such as min-rate and max-rate in bit/s
	ExternalIDs map[string]string `ovsdb:"external_ids"`
}

// TableName gives "Queue".
func (Queue) TableName() string { return "Queue" }

// A Mirror is a row of table Mirror.
type Mirror struct {
	UUID          UUID              `ovsdb:"_uuid"`
	Name          string            `ovsdb:"name"`
	SelectAll     bool              `ovsdb:"select_all"`
	SelectSrcPort []UUID            `ovsdb:"select_src_port"`
	SelectDstPort []UUID            `ovsdb:"select_dst_port"`
	SelectVLAN    []int64           `ovsdb:"select_vlan"`
	OutputPort    *UUID             `ovsdb:"output_port"`
	OutputVLAN    *int64            `ovsdb:"output_vlan"`
	SnapLen       *int64            `ovsdb:"snaplen,optional"` // bytes, 14…65535
	ExternalIDs   map[string]string `ovsdb:"external_ids"`
}

// TableName gives "Mirror".
func (Mirror) TableName() string { return "Mirror" }

// A Manager is a row of table Manager: how others reach the database.
type Manager struct {
	UUID            UUID              `ovsdb:"_uuid"`
	Target          string            `ovsdb:"target"`
	MaxBackoff      *int64            `ovsdb:"max_backoff"`      // ms
	InactivityProbe *int64            `ovsdb:"inactivity_probe"` // ms
	ConnectionMode  *string           `ovsdb:"connection_mode"`
	IsConnected     bool              `ovsdb:"is_connected"`
	OtherConfig     map[string]string `ovsdb:"other_config"`
	ExternalIDs     map[string]string `ovsdb:"external_ids"`
}

// TableName gives "Manager".
func (Manager) TableName() string { return "Manager" }

// SwitchTables gives the tables that a Switch replicates, with all columns of the models
// here and the indexes that Switch needs.
func SwitchTables() []Table {
	return []Table{
		{Model: Root{}},
		{Model: Bridge{}, Indexes: []string{"ports"}},
		{Model: Port{}, Indexes: []string{"interfaces"}},
		{Model: Interface{}},
		{Model: Controller{}},
		{Model: QoS{}},
		{Model: Queue{}},
		{Model: Mirror{}},
	}
}
