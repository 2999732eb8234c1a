package network

import (
	"net/netip"
	"slices"
	"strings"

	"yakumo/fault"
	"yakumo/model"
	"yakumo/store"
)

// SubnetSpec is what a request says of a subnet; nil: it does not say.
type SubnetSpec struct {
	ProjectID   *string
	Name        *string
	Description *string
	NetworkID   string // of a new subnet
	IPVersion   int    // of a new subnet; 0: the block's
	// CIDR is the block; of a pool it may be left out: any block of PrefixBits, nil the
	// pool's default, is cut then.
	CIDR        netip.Prefix
	PoolID      string // "": none
	DefaultPool bool   // the pool that is the default of the IP version
	PrefixBits  *int
	// Gateway: nil picks the first address, an invalid (zero) address means none.
	Gateway    *netip.Addr
	Pools      *[]model.AddrRange // nil or empty on creation: all addresses but the gateway's
	DNS        *[]netip.Addr
	HostRoutes *[]model.Route
	DHCP       *bool
	// RAMode and AddressMode are of a new IPv6 subnet: model.SLAAC, DHCPv6Stateful or
	// DHCPv6Stateless, the same where both are given; nil: neither.
	RAMode, AddressMode *string
	// ServiceTypes are the device owners whose ports get addresses here without asking;
	// empty: everybody's.
	ServiceTypes *[]string
}

// CreateSubnet adds a block of addresses to a network that the scope owns.
//
// Errors: fault.NotFound (network), fault.Forbidden (it is shared, not owned),
// fault.Invalid (block, gateway, pools, routes, overlap in the network), fault.Conflict
// (codes OverlappingAllocationPools, GatewayConflictWithAllocationPools), fault.OverQuota.
func (n *Network) CreateSubnet(tx *store.Tx, sc Scope, spec SubnetSpec) (*model.Subnet, error) {
	w, err := n.GetNetwork(tx, sc, spec.NetworkID)
	if err != nil {
		return nil, err
	}
	if !sc.Owns(w.ProjectID) {
		return nil, forbidden("subnets of the network")
	}
	project := w.ProjectID
	if spec.ProjectID != nil && *spec.ProjectID != "" {
		if project, err = sc.project(spec.ProjectID); err != nil {
			return nil, err
		}
	}
	if err := n.spend(tx, project, QuotaSubnet, 1); err != nil {
		return nil, err
	}
	from, err := n.poolOf(tx, sc, spec)
	if err != nil {
		return nil, err
	}
	if from != nil {
		if spec.CIDR, err = n.allocate(tx, from, project, spec.CIDR, spec.PrefixBits); err != nil {
			return nil, err
		}
		spec.PoolID = from.ID
	}
	if err := checkBlock(spec.CIDR); err != nil {
		return nil, err
	}
	version := ipVersion(spec.CIDR.Addr())
	if spec.IPVersion != 0 && spec.IPVersion != version {
		return nil, invalid("cidr '%s' does not match the ip_version '%d'.", spec.CIDR, spec.IPVersion)
	}
	if err := samePool(tx, w.ID, from, version); err != nil {
		return nil, err
	}
	for o := range store.Subnets.List(tx, "network", w.ID) {
		if o.CIDR.Overlaps(spec.CIDR) {
			return nil, invalid("Requested subnet with cidr: %s for network: %s overlaps with another subnet (%s).", spec.CIDR, w.ID, o.CIDR)
		}
	}
	s := &model.Subnet{Meta: model.NewMeta(project, "", n.now()), NetworkID: w.ID, PoolID: spec.PoolID, IPVersion: version, CIDR: spec.CIDR, DHCP: true}
	if err := applyModes(s, spec); err != nil {
		return nil, err
	}
	if spec.Gateway != nil {
		s.Gateway = *spec.Gateway
	} else if s.CIDR.Addr().BitLen()-s.CIDR.Bits() > 1 { // a smaller block has no address to spare
		s.Gateway = hosts(s.CIDR).Start
	}
	if err := n.checkGateway(s); err != nil {
		return nil, err
	}
	if spec.Pools == nil || len(*spec.Pools) == 0 {
		s.Pools = defaultPools(s.CIDR, s.Gateway)
	} else if len(*spec.Pools) > MaxPools {
		return nil, invalid("a subnet has at most %d allocation pools.", MaxPools)
	} else if s.Pools, err = checkPools(*spec.Pools, s.CIDR, s.Gateway); err != nil {
		return nil, err
	}
	if err := applySubnet(s, spec); err != nil {
		return nil, err
	}
	if err := n.formAll(tx, s); err != nil {
		return nil, err
	}
	if err := store.Subnets.Put(tx, s); err != nil {
		return nil, err
	}
	if err := n.extendGateways(tx, w, s); err != nil {
		return nil, err
	}
	return s, n.touchNetwork(tx, w)
}

func ipVersion(a netip.Addr) int {
	if a.Is4() {
		return 4
	}
	return 6
}

// touchNetwork bumps the network's revision with a change of its subnets. Writing the
// network's row also orders such changes: two blocks that overlap cannot both come to be.
func (n *Network) touchNetwork(tx *store.Tx, w *model.Network) error {
	next := *w
	next.Touch(n.now())
	return store.Networks.Put(tx, &next)
}

// UpdateSubnet changes what the spec names; the scope must own the subnet. The block, its
// network and its version stay.
func (n *Network) UpdateSubnet(tx *store.Tx, sc Scope, id model.ID, spec SubnetSpec) (*model.Subnet, error) {
	old, err := n.GetSubnet(tx, sc, id)
	if err != nil {
		return nil, err
	}
	if !sc.Owns(old.ProjectID) {
		return nil, forbidden("another project's subnet")
	}
	w, ok := store.Networks.Get(tx, old.NetworkID)
	if !ok {
		return nil, fault.Coded(fault.NotFound, "NetworkNotFound", "Network %s could not be found.", old.NetworkID)
	}
	s := *old
	if spec.DHCP != nil && !*spec.DHCP && (s.IPv6RAMode != "" || s.IPv6Address != "") {
		return nil, invalid("Cannot disable enable_dhcp with ipv6 attributes set.")
	}
	if spec.Gateway != nil && *spec.Gateway != old.Gateway {
		s.Gateway = *spec.Gateway
		if err := n.checkGateway(&s); err != nil {
			return nil, err
		}
		if old.Gateway.IsValid() {
			if p, held := store.Ports.Claimed(tx, store.PortAddressClaim(id, old.Gateway.String())); held && cloudPort(tx, p) {
				return nil, fault.Coded(fault.Conflict, "GatewayIpInUse", "Current gateway ip %s already in use by port %s. Unable to update.", old.Gateway, p.ID)
			}
		}
		if s.Gateway.IsValid() {
			holder, held := store.Ports.Holder(tx, store.PortAddressClaim(id, s.Gateway.String()))
			if held {
				p, _ := store.Ports.Get(tx, holder)
				held = p == nil || p.DeviceOwner != model.OwnerRouterInterface
			}
			if held {
				return nil, fault.Coded(fault.Conflict, "GatewayIpInUse", "Gateway ip %s is already in use by port %s. Unable to update.", s.Gateway, holder)
			}
		}
	}
	if spec.Pools != nil {
		if len(*spec.Pools) > MaxPools {
			return nil, invalid("a subnet has at most %d allocation pools.", MaxPools)
		}
		s.Pools = *spec.Pools
	}
	if s.Pools, err = checkPools(s.Pools, s.CIDR, s.Gateway); err != nil {
		return nil, err
	}
	if err := applySubnet(&s, spec); err != nil {
		return nil, err
	}
	s.Touch(n.now())
	if err := store.Subnets.Put(tx, &s); err != nil {
		return nil, err
	}
	return &s, n.touchNetwork(tx, w)
}

// DeleteSubnet removes a subnet that no port has an address of.
//
// Errors: fault.NotFound, fault.Forbidden, fault.Conflict code SubnetInUse.
func (n *Network) DeleteSubnet(tx *store.Tx, sc Scope, id model.ID) error {
	s, err := n.GetSubnet(tx, sc, id)
	if err != nil {
		return err
	}
	if !sc.Owns(s.ProjectID) {
		return forbidden("another project's subnet")
	}
	tx.Guard(subnetMark(id))
	ports := slices.Collect(store.Ports.List(tx, "subnet", id))
	if len(ports) > 0 && (len(ports) > formBatch || !formedOnly(ports, s)) {
		return fault.Coded(fault.Conflict, "SubnetInUse", "Unable to complete operation on subnet %s: One or more ports have an IP allocation from this subnet.", id)
	}
	if err := n.unform(tx, s, ports); err != nil {
		return err
	}
	tx.Unmark(subnetMark(id))
	if err := store.Subnets.Delete(tx, id); err != nil {
		return err
	}
	if w, ok := store.Networks.Get(tx, s.NetworkID); ok {
		return n.touchNetwork(tx, w)
	}
	return nil
}

// checkBlock refuses what is no block for guests.
func checkBlock(p netip.Prefix) error {
	bad := func(format string, args ...any) error {
		return fault.Coded(fault.Invalid, "HTTPBadRequest", "Invalid input for cidr. Reason: "+format, args...)
	}
	switch {
	case !p.IsValid() || p.Addr().Is4In6():
		return bad("'%s' is not a valid IP subnet.", p)
	case p.Masked() != p:
		return bad("'%s' isn't a recognized IP subnet cidr, '%s' is recommended.", p, p.Masked())
	case p.Bits() == 0:
		return invalid("0 is not allowed as CIDR prefix length.")
	case p.Addr().Is6():
		for _, r := range reserved6 {
			if p.Overlaps(r.block) {
				return invalid("%s", r.text)
			}
		}
	case p.Overlaps(netip.PrefixFrom(netip.AddrFrom4([4]byte{224}), 4)):
		return invalid("Multicast IP subnet is not supported.")
	case p.Overlaps(netip.PrefixFrom(netip.AddrFrom4([4]byte{127}), 8)):
		return invalid("Loopback IP subnet is not supported.")
	case p.Overlaps(netip.PrefixFrom(netip.AddrFrom4([4]byte{}), 8)):
		return invalid("the block %s holds addresses of 0.0.0.0/8, which no guest can have.", p)
	case p.Overlaps(netip.PrefixFrom(netip.AddrFrom4([4]byte{255, 255, 255, 255}), 32)):
		return invalid("the block %s holds the broadcast address 255.255.255.255.", p)
	}
	return nil
}

func (n *Network) checkGateway(s *model.Subnet) error {
	g := s.Gateway
	if g.Is6() && s.IPVersion == 6 && g.IsLinkLocalUnicast() {
		return nil // the router's address on the link, which router advertisements name anyway
	}
	if g.IsValid() && !hosts(s.CIDR).Contains(g) {
		return invalid("Gateway is not valid on subnet: %s is no address for a host of %s.", g, s.CIDR)
	}
	return nil
}

func applySubnet(s *model.Subnet, spec SubnetSpec) error {
	if err := checkText("name", spec.Name); err != nil {
		return err
	}
	if err := checkText("description", spec.Description); err != nil {
		return err
	}
	if spec.DNS != nil {
		if len(*spec.DNS) > MaxDNS {
			return fault.Coded(fault.Invalid, "DNSNameServersExhausted", "Unable to complete operation for %s. The number of DNS nameservers exceeds the limit %d.", s.ID, MaxDNS)
		}
		for i, a := range *spec.DNS {
			if ipVersion(a) != s.IPVersion {
				return invalid("dns_nameserver '%s' does not match the ip_version '%d'.", a, s.IPVersion)
			}
			if slices.Contains((*spec.DNS)[:i], a) {
				return invalid("the DNS nameserver %s is there twice.", a)
			}
		}
		s.DNS = *spec.DNS
	}
	if spec.HostRoutes != nil {
		if len(*spec.HostRoutes) > MaxHostRoutes {
			return fault.Coded(fault.Invalid, "HostRoutesExhausted", "Unable to complete operation for %s. The number of host routes exceeds the limit %d.", s.ID, MaxHostRoutes)
		}
		for i, r := range *spec.HostRoutes {
			if ipVersion(r.Destination.Addr()) != s.IPVersion || ipVersion(r.NextHop) != s.IPVersion {
				return invalid("the host route %s via %s does not match the ip_version '%d'.", r.Destination, r.NextHop, s.IPVersion)
			}
			if r.Destination.Masked() != r.Destination {
				return invalid("the destination %s of a host route has bits outside its prefix; %s is recommended.", r.Destination, r.Destination.Masked())
			}
			if slices.Contains((*spec.HostRoutes)[:i], r) {
				return invalid("the host route %s via %s is there twice.", r.Destination, r.NextHop)
			}
		}
		s.HostRoutes = *spec.HostRoutes
	}
	if spec.ServiceTypes != nil {
		if len(*spec.ServiceTypes) > MaxServiceTypes {
			return invalid("a subnet has at most %d service types.", MaxServiceTypes)
		}
		for i, t := range *spec.ServiceTypes {
			if kind, rest, ok := strings.Cut(t, ":"); !ok || rest == "" || !slices.Contains([]string{"compute", "network", "baremetal"}, kind) || len(t) > MaxName {
				return fault.Coded(fault.Invalid, "InvalidSubnetServiceType", "Subnet service type %s does not correspond to a valid device owner.", clip(t))
			}
			if slices.Contains((*spec.ServiceTypes)[:i], t) {
				return invalid("the service type %s is there twice.", t)
			}
		}
		s.ServiceType = *spec.ServiceTypes
	}
	set(&s.Name, spec.Name)
	set(&s.Description, spec.Description)
	set(&s.DHCP, spec.DHCP)
	return nil
}
