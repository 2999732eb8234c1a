package model

import (
	"encoding/json"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Network is an isolated layer-2 segment.
type Network struct {
	Meta
	Sharing
	ExternalTo   []ID   `json:"external_to,omitempty"` // External for these projects; as SharedWith
	AdminStateUp bool   `json:"admin_state_up"`
	Shared       bool   `json:"shared"` // with everybody
	External     bool   `json:"external"`
	PortSecurity bool   `json:"port_security"` // default of its ports
	Type         string `json:"type"`
	// VNI is the network's own number, unique in the cloud whatever the type; of a tunnelled one
	// it is the segmentation id.
	VNI              uint32   `json:"vni"`
	VLAN             uint16   `json:"vlan,omitempty"`             // of the type vlan: MinVLAN to MaxVLAN, unique in its physical network
	PhysicalNetwork  string   `json:"physical_network,omitempty"` // of the types flat and vlan
	VLANTransparent  bool     `json:"vlan_transparent,omitempty"` // guests' 802.1Q tags are carried
	MTU              int      `json:"mtu"`                        // bytes of an IP packet
	DNSDomain        string   `json:"dns_domain,omitempty"`
	IsDefault        bool     `json:"is_default,omitempty"`
	AvailabilityZone []string `json:"availability_zone_hints,omitempty"`
	QoSPolicyID      ID       `json:"qos_policy_id,omitempty"` // of its ports that have none of their own
}

// AddrRange is an inclusive range of addresses.
type AddrRange struct {
	Start netip.Addr `json:"start"`
	End   netip.Addr `json:"end"`
}

// Contains tells whether a lies in the range.
func (r AddrRange) Contains(a netip.Addr) bool { return !a.Less(r.Start) && !r.End.Less(a) }

// Route is a host route handed to guests (RFC 3442).
type Route struct {
	Destination netip.Prefix `json:"destination"`
	NextHop     netip.Addr   `json:"nexthop"`
}

// Subnet is a block of addresses of a network.
type Subnet struct {
	Meta
	NetworkID   ID           `json:"network_id"`
	PoolID      ID           `json:"subnetpool_id,omitempty"` // the SubnetPool that it was cut from
	IPVersion   int          `json:"ip_version"`
	CIDR        netip.Prefix `json:"cidr"`
	Gateway     netip.Addr   `json:"gateway"` // invalid (zero): none
	Pools       []AddrRange  `json:"pools"`
	DNS         []netip.Addr `json:"dns,omitempty"`
	HostRoutes  []Route      `json:"host_routes,omitempty"`
	DHCP        bool         `json:"dhcp"`
	IPv6RAMode  string       `json:"ipv6_ra_mode,omitempty"` // SLAAC, DHCPv6Stateful, DHCPv6Stateless or ""
	IPv6Address string       `json:"ipv6_address_mode,omitempty"`
	ServiceType []string     `json:"service_types,omitempty"`
	// Forming: ports that were there before the subnet still lack the address that their
	// guests form in it; a controller gives it.
	Forming bool `json:"forming,omitempty"`
}

// FixedIP is an address of a port.
type FixedIP struct {
	SubnetID ID         `json:"subnet_id"`
	Address  netip.Addr `json:"ip_address"`
}

// AddressPair is an address that a port may use besides its own. An empty MAC means the port's.
type AddressPair struct {
	MAC    string       `json:"mac_address,omitempty"`
	Prefix netip.Prefix `json:"prefix"`
}

// Held is an address in a port's allowed address pairs that its guest holds, at which MAC. Turn grows each time that another port, or
// another MAC, comes to hold it.
type Held struct {
	Address netip.Addr `json:"address"`
	MAC     string     `json:"mac_address"`
	Turn    int64      `json:"turn"`
}

// Claim is what a guest said: that it holds an address. Seen is the turn of the holder that its host knew of then, 0 for
// none; where another has come since, the claim is older than that one's.
type Claim struct {
	Address netip.Addr `json:"address"`
	MAC     string     `json:"mac_address"`
	Seen    int64      `json:"seen,omitempty"`
}

// Allows tells whether the port's guest may hold an address at a MAC: a pair says so. One of its own is not held.
func (p *Port) Allows(a netip.Addr, mac string) bool {
	return !slices.Contains(p.Addresses(), a) && Paired(p.Pairs, p.MAC, a, mac)
}

// Paired tells whether an address is in a pair with a MAC, where own is the port's.
func Paired(pairs []AddressPair, own string, a netip.Addr, mac string) bool {
	return slices.ContainsFunc(pairs, func(x AddressPair) bool {
		return x.Prefix.Contains(a) && (x.MAC == mac || x.MAC == "" && mac == own)
	})
}

// DHCPOption is an extra DHCP option of a port.
type DHCPOption struct {
	Name      string `json:"opt_name"`
	Value     string `json:"opt_value"`
	IPVersion int    `json:"ip_version"`
}

// Port states.
const (
	PortDown   = "DOWN"
	PortActive = "ACTIVE"
	PortBuild  = "BUILD"
	PortError  = "ERROR"
	// PortNotApplicable is of a port that only holds an address.
	PortNotApplicable = "N/A"
)

// Port is an interface on a network.
type Port struct {
	Meta
	NetworkID    ID            `json:"network_id"`
	MAC          string        `json:"mac_address"` // lower case, colons; unique in its network
	FixedIPs     []FixedIP     `json:"fixed_ips"`
	AdminStateUp bool          `json:"admin_state_up"`
	PortSecurity bool          `json:"port_security"`
	Groups       []ID          `json:"security_groups"`
	Pairs        []AddressPair `json:"allowed_address_pairs,omitempty"`
	// Held are the addresses in Pairs that the port's guest holds now, sorted; no other port of its network holds one of them.
	Held        []Held       `json:"held,omitempty"`
	DHCPOptions []DHCPOption `json:"extra_dhcp_opts,omitempty"`
	DeviceID    ID           `json:"device_id,omitempty"`
	DeviceOwner string       `json:"device_owner,omitempty"`
	VNICType    string       `json:"vnic_type,omitempty"` // "normal"
	DNSName     string       `json:"dns_name,omitempty"`
	// Host is where the port is bound; chosen with the placement of its server. Empty: unbound.
	Host ID `json:"host,omitempty"`
	// NextHost makes ready for the port, whose server is on its way there; Host serves it meanwhile.
	NextHost ID `json:"next_host,omitempty"`
	// QoSPolicyID is the port's own policy; empty: its network's, where it has one.
	QoSPolicyID ID `json:"qos_policy_id,omitempty"`
	// TrunkID is the trunk that the port is the parent or a subport of. A subport has ParentID
	// and VLAN, its tag on the parent's device, and the parent's Host.
	TrunkID  ID     `json:"trunk_id,omitempty"`
	ParentID ID     `json:"parent_id,omitempty"`
	VLAN     uint16 `json:"vlan,omitempty"`
	// Owned ports were made for their server and go with it.
	Owned bool `json:"owned,omitempty"`
	// NetworkOwner is the network's project where it is not the port's own: it may see the port.
	NetworkOwner ID `json:"network_owner,omitempty"`
	// Profile is what an administrator wrote to binding:profile, a JSON object. The cloud reads "device" of it, and
	// only of a port that is bound to a switch without an agent.
	Profile json.RawMessage `json:"profile,omitempty"`

	Status PortStatus `json:"status"`
}

// PortStatus is what the port's host made of it.
type PortStatus struct {
	State      string `json:"state,omitempty"`      // DOWN, BUILD, ACTIVE, ERROR
	Generation int64  `json:"generation,omitempty"` // the port's generation that was acted on
	Fault      string `json:"fault,omitempty"`
}

// Directions and ether types of rules.
const (
	Ingress = "ingress"
	Egress  = "egress"
	IPv4    = "IPv4"
	IPv6    = "IPv6"
)

// SecurityGroup is a set of rules and, as a remote group, the set of its members' addresses.
type SecurityGroup struct {
	Meta
	Sharing
	Stateful bool `json:"stateful"`
	Default  bool `json:"default"` // the project's own "default": cannot be deleted or renamed
}

// SecurityRule allows traffic; what no rule allows is dropped.
type SecurityRule struct {
	Meta
	GroupID       ID           `json:"security_group_id"`
	Direction     string       `json:"direction"`
	EtherType     string       `json:"ethertype"`
	Protocol      string       `json:"protocol,omitempty"`       // canonical: a name as Neutron prints it, or a number; "" any
	PortMin       *int         `json:"port_range_min,omitempty"` // ICMP: type
	PortMax       *int         `json:"port_range_max,omitempty"` // ICMP: code
	RemotePrefix  netip.Prefix `json:"remote_ip_prefix"`         // masked; zero: any
	RemoteGiven   netip.Prefix `json:"remote_given"`             // the prefix as its user wrote it, who wants it back so
	RemoteGroupID ID           `json:"remote_group_id,omitempty"`
	// AddressGroupID: the other side is in one of the AddressGroup's prefixes.
	AddressGroupID ID `json:"remote_address_group_id,omitempty"`
}

// Addresses gives the fixed addresses of a port, in order.
func (p *Port) Addresses() []netip.Addr {
	out := make([]netip.Addr, 0, len(p.FixedIPs))
	for _, f := range p.FixedIPs {
		out = append(out, f.Address)
	}
	return out
}

// Hosts gives the hosts that wire the port: where it is, then where it is prepared. None, one or two.
func (p *Port) Hosts() []ID {
	var out []ID
	for _, h := range [...]ID{p.Host, p.NextHost} {
		if h != "" && (len(out) == 0 || out[0] != h) {
			out = append(out, h)
		}
	}
	return out
}

// On tells whether the host wires the port.
func (p *Port) On(host ID) bool { return host != "" && (p.Host == host || p.NextHost == host) }

// Bound tells whether the port is to be wired on a host.
func (p *Port) Bound() bool { return p.Host != "" }

// InGroup tells whether the port is a member of group g.
func (p *Port) InGroup(g ID) bool { return slices.Contains(p.Groups, g) }

// Meaning is the rule without its id and texts: two rules of the same meaning are one.
func (r *SecurityRule) Meaning() string {
	num := func(n *int) string {
		if n == nil {
			return "-"
		}
		return strconv.Itoa(*n)
	}
	prefix := "-"
	if r.RemotePrefix.IsValid() {
		prefix = strings.ReplaceAll(r.RemotePrefix.Masked().String(), "/", "_")
	}
	parts := []string{r.GroupID, r.Direction, r.EtherType, r.Protocol, num(r.PortMin), num(r.PortMax), prefix, r.RemoteGroupID}
	if r.AddressGroupID != "" {
		parts = append(parts, r.AddressGroupID)
	}
	return strings.Join(parts, ",")
}

// Quota limits what a project may have of one service's resources.
type Quota struct {
	Service   string         `json:"service"` // "network", "compute"
	ProjectID ID             `json:"project_id"`
	Limits    map[string]int `json:"limits"` // by the resource's name; -1: no limit; absent: the default
}

// QuotaKey is the key of a project's quota of a service.
func QuotaKey(service string, project ID) string { return service + "," + project }

// Key is the row's key in the store.
func (q *Quota) Key() string { return QuotaKey(q.Service, q.ProjectID) }
