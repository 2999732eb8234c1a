package model

// OwnerSubPort is the owner of a port that is a subport of a trunk.
const OwnerSubPort = "trunk:subport"

// Trunk carries the frames of several ports over one port's device: of its parent untagged,
// of each subport with a VLAN tag of its own.
type Trunk struct {
	Meta
	AdminStateUp bool      `json:"admin_state_up"` // down: it cannot be changed or deleted; frames go on
	PortID       ID        `json:"port_id"`        // the parent
	SubPorts     []SubPort `json:"sub_ports,omitempty"`
}

// SubPort is a port of a trunk. The port's own row repeats VLAN, and names parent and trunk.
type SubPort struct {
	PortID ID     `json:"port_id"`
	VLAN   uint16 `json:"vlan"` // 1 to 4094, on the parent's device
}
