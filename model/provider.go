package model

// Network types, by Neutron's names.
const (
	NetworkVXLAN  = "vxlan"  // RFC 7348
	NetworkGeneve = "geneve" // RFC 8926
	NetworkGRE    = "gre"    // RFC 2784 with the key of RFC 2890
	NetworkFlat   = "flat"   // untagged on a physical network
	NetworkVLAN   = "vlan"   // IEEE 802.1Q on a physical network
)

// VNI range: the whole 24 bits of VXLAN (RFC 7348) and Geneve (RFC 8926) but 0. A key of GRE
// (RFC 2890) has 32 bits, of which the same 24 are used: the number must serve any type.
const (
	MinVNI = 1
	MaxVNI = 1<<24 - 1
)

// VLAN range (IEEE 802.1Q): 0 means no VLAN, 4095 is reserved.
const (
	MinVLAN = 1
	MaxVLAN = 4094
)

// What tunnels over IPv4 add to an inner frame's payload, in bytes: outer IPv4 20, inner
// Ethernet 14, and between them UDP 8 and VXLAN 8; UDP 8 and Geneve 8 (no options are
// sent); or GRE 4 and its key 4.
const (
	VXLANOverhead  = 50
	GeneveOverhead = 50
	GREOverhead    = 42
	// IPv6Overhead is what IPv6 in place of IPv4 adds to a tunnel's outer header.
	IPv6Overhead = 20
	// VLANTag is the length of an 802.1Q tag, which a guest may put into a frame of a
	// network that is transparent to VLANs.
	VLANTag = 4
)

// TunnelOverhead gives what a type of network adds to an inner frame's payload over IPv4, in
// bytes, and false for a type that is no tunnel.
func TunnelOverhead(kind string) (int, bool) {
	switch kind {
	case NetworkVXLAN:
		return VXLANOverhead, true
	case NetworkGeneve:
		return GeneveOverhead, true
	case NetworkGRE:
		return GREOverhead, true
	}
	return 0, false
}

// Tunnelled tells whether the network's frames travel between hosts in tunnels.
func (n *Network) Tunnelled() bool {
	_, ok := TunnelOverhead(n.Type)
	return ok
}

// Segmentation is Neutron's segmentation_id: the VLAN of a network of that type, the tunnel's
// identifier of a tunnelled one, 0 (none) of a flat one.
func (n *Network) Segmentation() int {
	switch {
	case n.Type == NetworkVLAN:
		return int(n.VLAN)
	case n.Tunnelled():
		return int(n.VNI)
	}
	return 0
}
