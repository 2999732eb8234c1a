package model

// Directions of tap flows: as the source's guest sees them.
const (
	TapIn   = "IN"   // what it receives
	TapOut  = "OUT"  // what it sends
	TapBoth = "BOTH" // either
)

// TapService makes a port a receiver of copies.
type TapService struct {
	Meta
	PortID ID     `json:"port_id"`
	VNI    uint32 `json:"vni"` // of the tunnels that carry copies to the port's host; no network or router has it
}

// TapFlow copies the frames of a port to a tap service's port.
type TapFlow struct {
	Meta
	ServiceID  ID     `json:"tap_service_id"`
	SourcePort ID     `json:"source_port"`
	Direction  string `json:"direction"`
}
