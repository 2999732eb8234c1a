package pipeline

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"yakumo/model"
)

// Fixed addresses of the pipeline.
var (
	// ServiceAddr is where guests find the metadata service; it is also the DHCP server's
	// identity, as the switch answers ARP for it in every network.
	ServiceAddr = netip.AddrFrom4([4]byte{169, 254, 169, 254})
	// ServiceAddr6 is where guests find the metadata service, and the resolver, by IPv6.
	ServiceAddr6 = netip.MustParseAddr("fe80::a9fe:a9fe")
	// ServicePrefix6 holds, on the metadata device, the address of the listeners and above it an
	// alias for each port here that speaks IPv6.
	ServicePrefix6 = netip.MustParsePrefix("fd00:a9fe:a9fe::/64")
	broadcast      = netip.AddrFrom4([4]byte{255, 255, 255, 255})
	zeroAddr       = netip.AddrFrom4([4]byte{})
)

// MACs of the pipeline's own, locally administered.
var (
	// ServiceMAC is the MAC of ServiceAddr towards guests, and of guests towards the
	// metadata device.
	ServiceMAC = MAC{0x02, 0x00, 0xa9, 0xfe, 0xa9, 0xfe}
	// DeviceMAC is the MAC that the metadata device must have.
	DeviceMAC = MAC{0x02, 0x00, 0xa9, 0xfe, 0x40, 0x01}
)

// MaxPort is the highest ordinal of a port: it serves as a conntrack zone and leaves room
// above it for the switch's own ports.
const MaxPort = 65000

// MaxProvider is the highest ordinal of a physical network.
const MaxProvider = 200

// Env is what the pipeline must know of its host.
type Env struct {
	// MetadataPrefix holds the address of the metadata listener and, above it, one address
	// for each fixed address of a port here. IPv4.
	MetadataPrefix netip.Prefix
	// MetadataListener is where the host's metadata server listens: the first address of
	// MetadataPrefix, any port.
	MetadataListener netip.AddrPort
	// DNSPort is where the host's resolver for guests listens, by UDP and TCP, at the metadata listener's address.
	DNSPort uint16
	// PhysicalNetworks are those that the host has a provider bridge for. Ports in networks on any
	// other cannot be wired here.
	PhysicalNetworks []string
}

// Maps tells whether the host has a provider bridge for a physical network.
func (e *Env) Maps(physical string) bool { return slices.Contains(e.PhysicalNetworks, physical) }

// DefaultEnv uses 169.254.64.0/18 and port 8775.
func DefaultEnv() Env {
	return Env{
		MetadataPrefix:   netip.MustParsePrefix("169.254.64.0/18"),
		MetadataListener: netip.MustParseAddrPort("169.254.64.1:8775"),
		DNSPort:          8753,
	}
}

// Validate checks the Env.
func (e *Env) Validate() error {
	p := e.MetadataPrefix
	switch {
	case !p.IsValid() || !p.Addr().Is4() || p.Bits() > 29 || p.Bits() < 8:
		return fmt.Errorf("metadata prefix %v: not an IPv4 prefix of 8 to 29 bits", p)
	case p.Contains(ServiceAddr):
		return fmt.Errorf("metadata prefix %v contains %v", p, ServiceAddr)
	case e.MetadataListener.Addr() != p.Masked().Addr().Next():
		return fmt.Errorf("metadata listener %v is not the first address of %v", e.MetadataListener, p)
	case e.DNSPort == 0 || e.DNSPort == e.MetadataListener.Port():
		return fmt.Errorf("port %d of the resolver for guests", e.DNSPort)
	case e.MetadataListener.Port() == 0:
		return errors.New("metadata listener has no port")
	}
	return nil
}

// MetadataListener6 and DNSListener6 are where the host's services for guests listen by IPv6.
func (e *Env) MetadataListener6() netip.AddrPort {
	return netip.AddrPortFrom(ServicePrefix6.Addr().Next(), e.MetadataListener.Port())
}

// DNSListener6 is DNSListener for IPv6.
func (e *Env) DNSListener6() netip.AddrPort {
	return netip.AddrPortFrom(ServicePrefix6.Addr().Next(), e.DNSPort)
}

// Alias6 gives the address in ServicePrefix6 that stands for the link-local address with an ordinal.
func (e *Env) Alias6(ordinal uint32) netip.Addr {
	high, _ := AddrNumbers(ServicePrefix6.Addr())
	return NumbersAddr6(high, 1+uint64(ordinal))
}

// DNSListener is where the host's resolver for guests listens.
func (e *Env) DNSListener() netip.AddrPort {
	return netip.AddrPortFrom(e.MetadataListener.Addr(), e.DNSPort)
}

// Alias gives the address in MetadataPrefix that stands for the fixed address with an ordinal.
func (e *Env) Alias(ordinal uint32) netip.Addr {
	return NumberAddr(AddrNumber(e.MetadataPrefix.Masked().Addr()) + 1 + uint64(ordinal))
}

// AliasOrdinal is the inverse of Alias and Alias6; false for an address that is no alias.
func (e *Env) AliasOrdinal(a netip.Addr) (uint32, bool) {
	a = a.Unmap()
	if ServicePrefix6.Contains(a) {
		if _, n := AddrNumbers(a); n >= 2 && n <= 1<<31 {
			return uint32(n - 1), true
		}
		return 0, false
	}
	if !a.Is4() || !e.MetadataPrefix.Contains(a) {
		return 0, false
	}
	n := AddrNumber(a) - AddrNumber(e.MetadataPrefix.Masked().Addr())
	if n < 2 {
		return 0, false
	}
	return uint32(n - 1), true
}

// OrdinalKind names a space of ordinals.
type OrdinalKind string

// The kinds of ordinals.
const (
	OrdinalPort  OrdinalKind = "port"  // key: port id, or RouterKey. Register value, conntrack zone
	OrdinalAlias OrdinalKind = "alias" // key: port id/fixed address. Address on the metadata device
	OrdinalRule  OrdinalKind = "rule"  // key: rule id. Conjunction id
	OrdinalLimit OrdinalKind = "limit" // key: port id/direction/unit. Rate limiter
	OrdinalNAT   OrdinalKind = "nat"   // key: a translation. Mark of its connections
	// OrdinalNeighbor's key is what is known of a neighbour outside; the number means nothing.
	OrdinalNeighbor OrdinalKind = "neighbor"
	// OrdinalProvider's key is the name of a physical network.
	OrdinalProvider OrdinalKind = "provider"
)

// OwnedKinds gives the kinds whose ordinals live as long as a row holds them.
func OwnedKinds() []OrdinalKind {
	return []OrdinalKind{OrdinalPort, OrdinalAlias, OrdinalRule, OrdinalLimit, OrdinalNAT}
}

// RouterKey is the key of a router among the ordinals of kind OrdinalPort: ports and routers
// share their numbers, as both are conntrack zones.
func RouterKey(id model.ID) string { return "router/" + id }

// Limit gives the highest ordinal of a kind; the lowest is 1.
func (e *Env) Limit(k OrdinalKind) uint32 {
	switch k {
	case OrdinalPort:
		return MaxPort
	case OrdinalLimit:
		return 4 * MaxPort // two directions, two units
	case OrdinalProvider:
		return MaxProvider
	case OrdinalAlias:
		return uint32(1)<<(32-e.MetadataPrefix.Bits()) - 3 // but network, listener, broadcast
	}
	return 1<<31 - 1
}

// Ordinals stores small stable numbers for names. A number that a port got must be the same
// after a restart of the agent: it is the port's conntrack zone, and another zone would cut
// its connections. A number is not given out again right after it was released.
type Ordinals interface {
	// Get gives the number of key, a new one from 1 to limit where it has none. The error
	// says that all are taken.
	Get(kind OrdinalKind, key string, limit uint32) (uint32, error)
	// Find gives the key of a number.
	Find(kind OrdinalKind, n uint32) (string, bool)
	// Keys gives all keys of a kind in order.
	Keys(kind OrdinalKind) []string
	// Release frees the number of key; absent is fine.
	Release(kind OrdinalKind, key string)
	// Sync returns when all changes will survive a crash.
	Sync() error
}
