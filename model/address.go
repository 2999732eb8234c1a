package model

import (
	"net"
	"net/netip"
)

// Ways in which guests of an IPv6 subnet get addresses; values of ipv6_ra_mode and
// ipv6_address_mode. "" leaves it to something that is not the cloud.
const (
	SLAAC           = "slaac"            // from router advertisements (RFC 4862)
	DHCPv6Stateful  = "dhcpv6-stateful"  // from DHCPv6 (RFC 8415)
	DHCPv6Stateless = "dhcpv6-stateless" // as with SLAAC; options from DHCPv6
)

// Automatic tells whether ports of the subnet get the address that guests form by
// themselves from their MAC (RFC 4291, appendix A), and no other.
func (s *Subnet) Automatic() bool {
	return formed(s.IPv6Address) || formed(s.IPv6RAMode)
}

func formed(mode string) bool { return mode == SLAAC || mode == DHCPv6Stateless }

// EUI64 gives the address that a guest forms from its MAC in a block of IPv6, whose first
// 64 bits count; invalid (zero) where mac is no MAC of 48 bits or the block is not of IPv6.
func EUI64(block netip.Prefix, mac string) netip.Addr {
	m, err := net.ParseMAC(mac)
	if err != nil || len(m) != 6 || !block.Addr().Is6() {
		return netip.Addr{}
	}
	b := block.Addr().As16()
	b[8], b[9], b[10], b[11] = m[0]^2, m[1], m[2], 0xff
	b[12], b[13], b[14], b[15] = 0xfe, m[3], m[4], m[5]
	return netip.AddrFrom16(b)
}
