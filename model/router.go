package model

import "net/netip"

// Owners of the ports that are the cloud's own, as Neutron names them. Such a port is made
// and removed with what it belongs to, never directly.
const (
	OwnerNetwork         = "network:"                 // what they all begin with
	OwnerRouterInterface = "network:router_interface" // DeviceID: the router
	OwnerRouterGateway   = "network:router_gateway"   // DeviceID: the router; of no project
	OwnerFloatingIP      = "network:floatingip"       // DeviceID: the floating IP; of no project
)

// Router joins subnets to each other and, with a gateway, to an external network. Its
// interfaces are ports whose DeviceID is the router and whose owner is
// OwnerRouterInterface. It is routed on the host of each sender; see docs/design.
type Router struct {
	Meta
	AdminStateUp bool    `json:"admin_state_up"`
	Distributed  bool    `json:"distributed"` // as shown: every router is
	HA           bool    `json:"ha"`          // as shown: every gateway has a stand-by where there are hosts
	Routes       []Route `json:"routes,omitempty"`
	// Gateway is nil where the router has none.
	Gateway *RouterGateway `json:"gateway,omitempty"`
	// VNI carries packets to the router's gateway host, 24 bits; no network and no other
	// router has it. 0: without a gateway.
	VNI       uint32       `json:"vni,omitempty"`
	ZoneHints []string     `json:"availability_zone_hints,omitempty"`
	Status    RouterStatus `json:"status"`
}

// RouterGateway is a router's way out. The port holds the addresses that FixedIPs repeats;
// its MAC is the router's outside.
type RouterGateway struct {
	NetworkID ID        `json:"network_id"`
	PortID    ID        `json:"port_id"`
	SNAT      bool      `json:"snat"` // senders without a floating IP leave with the gateway's address
	FixedIPs  []FixedIP `json:"fixed_ips,omitempty"`
	// QoSPolicyID limits what is translated to the gateway's address; empty: nothing does.
	QoSPolicyID ID `json:"qos_policy_id,omitempty"`
}

// RouterStatus is what the cloud made of a router.
type RouterStatus struct {
	// GatewayHosts is where the gateway is, best first: the first one serves, the second is a
	// warm stand-by. Empty: no healthy host reaches the external network, or no gateway.
	GatewayHosts []ID `json:"gateway_hosts,omitempty"`
}

// InternetGateway is what EC2's users make before a router has a gateway, and what is left when it has none any more. A router's way out is
// its Gateway alone.
type InternetGateway struct {
	Meta
	RouterID ID `json:"router_id,omitempty"` // for which it is; such a router may be gone
}

// ActiveHost gives the host that serves the gateway; "" where there is none.
func (r *Router) ActiveHost() ID {
	if len(r.Status.GatewayHosts) == 0 {
		return ""
	}
	return r.Status.GatewayHosts[0]
}

// Floating IP states.
const (
	FloatingIPActive = "ACTIVE" // associated, or with port forwardings
	FloatingIPDown   = "DOWN"
)

// FloatingIP is an address of an external network that stands for one address of a port
// inside, or some of whose ports are forwarded.
type FloatingIP struct {
	Meta
	NetworkID ID         `json:"floating_network_id"`
	SubnetID  ID         `json:"subnet_id"`
	Address   netip.Addr `json:"floating_ip_address"`
	// IPPortID is the port that holds the address in the external network, with a MAC of its
	// own; its owner is OwnerFloatingIP.
	IPPortID     ID         `json:"ip_port_id"`
	PortID       ID         `json:"port_id,omitempty"`   // the port inside; empty: not associated
	FixedAddress netip.Addr `json:"fixed_ip_address"`    // of that port; invalid (zero): not associated
	RouterID     ID         `json:"router_id,omitempty"` // whose NAT it is; empty: neither associated nor forwarded
	DNSName      string     `json:"dns_name,omitempty"`
	DNSDomain    string     `json:"dns_domain,omitempty"`
	Status       string     `json:"status"` // ACTIVE, DOWN
	// QoSPolicyID limits what goes in and out by the address; empty: nothing does.
	QoSPolicyID ID `json:"qos_policy_id,omitempty"`
}

// PortForwarding sends what comes to a range of ports of a floating IP to a port inside.
// Both ranges are equally long, or the inner one is a single port.
type PortForwarding struct {
	Meta
	FloatingIPID    ID         `json:"floatingip_id"`
	RouterID        ID         `json:"router_id"`
	Protocol        string     `json:"protocol"`          // tcp, udp, sctp
	ExternalPort    int        `json:"external_port"`     // 1 to 65535, first of the range
	ExternalPortEnd int        `json:"external_port_end"` // last of the range
	InternalPort    int        `json:"internal_port"`     // 1 to 65535, first of the range
	InternalPortEnd int        `json:"internal_port_end"` // last of the range
	PortID          ID         `json:"internal_port_id"`
	InternalAddress netip.Addr `json:"internal_ip_address"`
}
