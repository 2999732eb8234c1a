package network

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"

	"yakumo/fault"
	"yakumo/model"
	"yakumo/store"
)

// FloatingIPSpec is what a request says of a floating IP; nil: it does not say.
type FloatingIPSpec struct {
	ProjectID   *string
	Description *string
	NetworkID   string      // of a new one: an external network
	SubnetID    *string     // of a new one: of that network; "" any
	Address     *netip.Addr // of a new one, for administrators; invalid (zero): any
	// PortID is the port inside, "" for none. FixedAddress is which of its addresses, invalid
	// (zero) where it has one.
	PortID       *string
	FixedAddress *netip.Addr
	DNSName      *string
	DNSDomain    *string
	QoSPolicyID  *string // "": none
}

// natMark is the name under which what leads to a port from outside marks it.
func natMark(port model.ID) string { return "nat," + port }

// GetFloatingIP gives a floating IP that the scope sees.
func (n *Network) GetFloatingIP(r store.Reader, sc Scope, id model.ID) (*model.FloatingIP, error) {
	f, ok := store.FloatingIPs.Get(r, id)
	if !ok || !sc.Owns(f.ProjectID) {
		return nil, fault.Coded(fault.NotFound, "FloatingIPNotFound", "Floating IP %s could not be found", clip(id))
	}
	return f, nil
}

// CreateFloatingIP takes an address of an external network and, where the spec names a
// port, makes it stand for the port.
//
// Errors: fault.NotFound (port, code ExternalGatewayForFloatingIPNotFound), fault.Forbidden
// (an address of one's choice), fault.Invalid codes BadRequest, InvalidIpForNetwork,
// InvalidIpForSubnet and ExternalIpAddressExhausted, fault.Conflict codes
// IpAddressAlreadyAllocated, IpAddressGenerationFailure and FloatingIPPortAlreadyAssociated,
// fault.OverQuota.
func (n *Network) CreateFloatingIP(tx *store.Tx, sc Scope, spec FloatingIPSpec) (*model.FloatingIP, error) {
	project, err := sc.project(spec.ProjectID)
	if err != nil {
		return nil, err
	}
	if err := n.spend(tx, project, QuotaFloatingIP, 1); err != nil {
		return nil, err
	}
	w, err := n.GetNetwork(tx, sc, spec.NetworkID)
	if err != nil || !sc.routesTo(w) {
		return nil, badRequest("floatingip", "Network %s is not a valid external network.", clip(spec.NetworkID))
	}
	f := &model.FloatingIP{Meta: model.NewMeta(project, "", n.now()), NetworkID: w.ID, Status: model.FloatingIPDown}
	if err := applyFloatingIP(f, spec); err != nil {
		return nil, err
	}
	if err := n.useQoS(tx, sc, &f.QoSPolicyID, spec.QoSPolicyID); err != nil {
		return nil, err
	}
	p, err := n.floatingPort(tx, sc, w, f, spec)
	if err != nil {
		return nil, err
	}
	f.IPPortID, f.SubnetID, f.Address = p.ID, p.FixedIPs[0].SubnetID, p.FixedIPs[0].Address
	if spec.PortID != nil && *spec.PortID != "" {
		if err := n.associate(tx, sc, f, *spec.PortID, spec.FixedAddress); err != nil {
			return nil, err
		}
	} else if spec.FixedAddress != nil && spec.FixedAddress.IsValid() {
		return nil, badRequest("floatingip", "fixed_ip_address cannot be specified without a port_id.")
	}
	return f, n.putFloatingIP(tx, f)
}

// floatingPort makes the port that holds a floating IP's address.
func (n *Network) floatingPort(tx *store.Tx, sc Scope, w *model.Network, f *model.FloatingIP, spec FloatingIPSpec) (*model.Port, error) {
	var subnets []*model.Subnet
	any4 := false
	for s := range store.Subnets.List(tx, "network", w.ID) {
		if s.IPVersion != 4 {
			continue
		}
		any4 = true
		if meantFor(s, model.OwnerFloatingIP) {
			subnets = append(subnets, s)
		}
	}
	if !any4 {
		return nil, badRequest("floatingip", "Network %s does not contain any IPv4 subnet.", w.ID)
	}
	// Those meant for floating IPs first, the oldest of them first.
	slices.SortFunc(subnets, func(a, b *model.Subnet) int {
		return cmp.Or(cmp.Compare(len(b.ServiceType), len(a.ServiceType)), a.CreatedAt.Compare(b.CreatedAt), strings.Compare(a.ID, b.ID))
	})
	subnet := ""
	set(&subnet, spec.SubnetID)
	if subnet != "" {
		if s, ok := store.Subnets.Get(tx, subnet); !ok || s.NetworkID != w.ID {
			return nil, badRequest("floatingip", "Subnet %s is not a subnet of the external network %s.", clip(subnet), w.ID)
		} else if s.IPVersion != 4 {
			return nil, badRequest("floatingip", "Subnet %s is not an IPv4 subnet.", s.ID)
		} else {
			subnets = []*model.Subnet{s}
		}
	}
	if spec.Address != nil && spec.Address.IsValid() {
		if !sc.Admin {
			return nil, fault.Coded(fault.Forbidden, "PolicyNotAuthorized", "Only an administrator may set 'floating_ip_address'.")
		}
		if !spec.Address.Is4() {
			return nil, badRequest("floatingip", "The address %s is not an IPv4 address.", spec.Address)
		}
		return n.makeCloudPort(tx, w, "", model.OwnerFloatingIP, f.ID, &[]AddressSpec{{SubnetID: subnet, Address: *spec.Address}})
	}
	for _, s := range subnets {
		p, err := n.makeCloudPort(tx, w, "", model.OwnerFloatingIP, f.ID, &[]AddressSpec{{SubnetID: s.ID}})
		if fault.CodeOf(err) == "IpAddressGenerationFailureForSubnet" && subnet == "" {
			continue // the next one may have a free address
		}
		return p, err
	}
	if len(subnets) == 0 {
		return nil, fault.Coded(fault.Invalid, "ExternalIpAddressExhausted", "Unable to find any IP address on external network %s.", w.ID)
	}
	return nil, fault.Coded(fault.Conflict, "IpAddressGenerationFailure", "No more IP addresses available on network %s.", w.ID)
}

func applyFloatingIP(f *model.FloatingIP, spec FloatingIPSpec) error {
	if err := checkText("description", spec.Description); err != nil {
		return err
	}
	set(&f.Description, spec.Description)
	set(&f.DNSName, spec.DNSName)
	set(&f.DNSDomain, spec.DNSDomain)
	f.DNSName = strings.ToLower(f.DNSName)
	switch {
	case f.DNSName != "" && !label.MatchString(f.DNSName):
		return fault.Coded(fault.Invalid, "HTTPBadRequest", "Invalid input for dns_name. Reason: '%s' is not a valid host name.", clip(f.DNSName))
	case f.DNSDomain != "" && !validDomain(f.DNSDomain):
		return fault.Coded(fault.Invalid, "HTTPBadRequest", "Invalid input for dns_domain. Reason: '%s' is not a valid domain name.", clip(f.DNSDomain))
	case f.DNSDomain != "" && f.DNSName == "":
		return badRequest("floatingip", "dns_domain cannot be specified without a dns_name.")
	}
	return nil
}

// putFloatingIP writes the row, its state as it follows from the rest.
func (n *Network) putFloatingIP(tx *store.Tx, f *model.FloatingIP) error {
	f.Status = model.FloatingIPDown
	if f.RouterID != "" {
		f.Status = model.FloatingIPActive
	}
	return store.FloatingIPs.Put(tx, f)
}

// UpdateFloatingIP changes what the spec names: the port that it stands for, or texts.
//
// Errors: as CreateFloatingIP, and fault.Conflict code FipInUseByPortForwarding.
func (n *Network) UpdateFloatingIP(tx *store.Tx, sc Scope, id model.ID, spec FloatingIPSpec) (*model.FloatingIP, error) {
	old, err := n.GetFloatingIP(tx, sc, id)
	if err != nil {
		return nil, err
	}
	f := *old
	if err := applyFloatingIP(&f, spec); err != nil {
		return nil, err
	}
	if err := n.useQoS(tx, sc, &f.QoSPolicyID, spec.QoSPolicyID); err != nil {
		return nil, err
	}
	switch {
	case spec.PortID == nil && spec.FixedAddress != nil && spec.FixedAddress.IsValid():
		return nil, badRequest("floatingip", "fixed_ip_address cannot be specified without a port_id.")
	case spec.PortID == nil:
	case *spec.PortID == "":
		if spec.FixedAddress != nil && spec.FixedAddress.IsValid() {
			return nil, badRequest("floatingip", "fixed_ip_address cannot be specified without a port_id.")
		}
		if f.PortID != "" { // what is forwarded is not of this kind, and stays
			disassociate(&f)
		}
	default:
		for range store.PortForwardings.List(tx, "floating", id) {
			return nil, floatingForwarded(id)
		}
		if err := n.associate(tx, sc, &f, *spec.PortID, spec.FixedAddress); err != nil {
			return nil, err
		}
	}
	f.Touch(n.now())
	return &f, n.putFloatingIP(tx, &f)
}

func floatingForwarded(id model.ID) error {
	return fault.Coded(fault.Conflict, "FipInUseByPortForwarding", "Floating IP %s in use by Port Forwarding resources.", id)
}

func disassociate(f *model.FloatingIP) {
	f.PortID, f.FixedAddress, f.RouterID = "", netip.Addr{}, ""
}

// DeleteFloatingIP gives the address back.
//
// Errors: fault.NotFound, fault.Conflict code FipInUseByPortForwarding.
func (n *Network) DeleteFloatingIP(tx *store.Tx, sc Scope, id model.ID) error {
	f, err := n.GetFloatingIP(tx, sc, id)
	if err != nil {
		return err
	}
	// Who forwards a port writes the floating IP's row, which is compared here.
	for range store.PortForwardings.List(tx, "floating", id) {
		return floatingForwarded(id)
	}
	if err := store.Ports.Delete(tx, f.IPPortID); err != nil {
		return err
	}
	return store.FloatingIPs.Delete(tx, id)
}

// associate makes f stand for an address of the port.
func (n *Network) associate(tx *store.Tx, sc Scope, f *model.FloatingIP, port model.ID, fixed *netip.Addr) error {
	p, err := n.GetPort(tx, sc, port)
	if err != nil {
		return err
	}
	if p.ProjectID != f.ProjectID && !sc.Admin {
		return badRequest("floatingip", "Cannot process floating IP association with Port %s, since that port is owned by a different tenant.", p.ID)
	}
	inside, err := insideAddress("floatingip", p, fixed)
	if err != nil {
		return err
	}
	for range store.PortForwardings.List(tx, "port", p.ID) {
		return fault.Coded(fault.Conflict, "PortHasPortForwarding", "Cannot associate floating IP %s (%s) with port %s, as it already has a Port Forwarding binding.", f.Address, f.ID, p.ID)
	}
	r, err := routerOut(tx, f.NetworkID, p, inside)
	if err != nil {
		return err
	}
	for x := range store.FloatingIPs.List(tx, "port", p.ID) {
		if x.ID != f.ID && x.NetworkID == f.NetworkID && x.FixedAddress == inside.Address {
			return fault.Coded(fault.Conflict, "FloatingIPPortAlreadyAssociated", "Cannot associate floating IP %s (%s) with port %s using fixed IP %s, as that fixed IP already has a floating IP on external network %s.", f.Address, f.ID, p.ID, inside.Address, f.NetworkID)
		}
	}
	f.PortID, f.FixedAddress, f.RouterID = p.ID, inside.Address, r.ID
	markNAT(tx, p.ID, r.ID)
	return nil
}

// markNAT tells who removes the port, or an interface or the gateway of the router, that
// something from outside needs them. Floating IPs and forwardings of one port are put in
// an order, so that a port does not get both.
func markNAT(tx *store.Tx, port, router model.ID) {
	tx.Guard(natMark(port))
	tx.Mark(natMark(port))
	tx.Mark(routerMark(router))
}

// insideAddress finds which IPv4 address of a port is meant.
func insideAddress(resource string, p *model.Port, want *netip.Addr) (model.FixedIP, error) {
	var four []model.FixedIP
	for _, f := range p.FixedIPs {
		if f.Address.Is4() {
			four = append(four, f)
		}
	}
	if want != nil && want.IsValid() {
		if !want.Is4() {
			return model.FixedIP{}, badRequest(resource, "Cannot process floating IP association with %s, since that is not an IPv4 address.", want)
		}
		for _, f := range four {
			if f.Address == *want {
				return f, nil
			}
		}
		return model.FixedIP{}, badRequest(resource, "Port %s does not have fixed ip %s.", p.ID, want)
	}
	switch len(four) {
	case 0:
		return model.FixedIP{}, badRequest(resource, "Cannot add floating IP to port %s that has no fixed IPv4 addresses.", p.ID)
	case 1:
		return four[0], nil
	}
	return model.FixedIP{}, badRequest(resource, "Port %s has multiple fixed IPv4 addresses.  Must provide a specific IPv4 address when assigning a floating IP.", p.ID)
}

// routerOut finds the router that joins an address inside to the external network: one that
// is the subnet's gateway before one that is merely there.
func routerOut(tx *store.Tx, external model.ID, p *model.Port, inside model.FixedIP) (*model.Router, error) {
	var found *model.Router
	s, _ := store.Subnets.Get(tx, inside.SubnetID)
	for x := range store.Ports.List(tx, "router_network", p.NetworkID) {
		for _, f := range x.FixedIPs {
			if f.SubnetID != inside.SubnetID {
				continue
			}
			r, ok := store.Routers.Get(tx, x.DeviceID)
			if ok && r.Gateway != nil && r.Gateway.NetworkID == external && (found == nil || s != nil && f.Address == s.Gateway) {
				found = r
			}
		}
	}
	if found == nil {
		return nil, fault.Coded(fault.NotFound, "ExternalGatewayForFloatingIPNotFound", "External network %s is not reachable from subnet %s.  Therefore, cannot associate Port %s with a Floating IP.", external, inside.SubnetID, p.ID)
	}
	return found, nil
}

// dropNAT takes away what leads to a port that goes.
func (n *Network) dropNAT(tx *store.Tx, p *model.Port) error {
	tx.Guard(natMark(p.ID))
	for _, old := range slices.Collect(store.FloatingIPs.List(tx, "port", p.ID)) {
		f := *old
		disassociate(&f)
		f.Touch(n.now())
		if err := n.putFloatingIP(tx, &f); err != nil {
			return err
		}
	}
	for _, x := range slices.Collect(store.PortForwardings.List(tx, "port", p.ID)) {
		if err := n.dropForwarding(tx, x); err != nil {
			return err
		}
	}
	tx.Unmark(natMark(p.ID))
	return nil
}

// keepNAT refuses that a port gives up addresses which something leads to.
func (n *Network) keepNAT(tx *store.Tx, p *model.Port, gone []model.FixedIP) error {
	tx.Guard(natMark(p.ID))
	leaves := func(a netip.Addr) bool {
		return slices.ContainsFunc(gone, func(f model.FixedIP) bool { return f.Address == a })
	}
	for f := range store.FloatingIPs.List(tx, "port", p.ID) {
		if leaves(f.FixedAddress) {
			return badRequest("port", "Cannot remove the fixed IP %s of port %s, which the floating IP %s is associated with.", f.FixedAddress, p.ID, f.ID)
		}
	}
	for f := range store.PortForwardings.List(tx, "port", p.ID) {
		if leaves(f.InternalAddress) {
			return badRequest("port", "Cannot remove the fixed IP %s of port %s, which the port forwarding %s leads to.", f.InternalAddress, p.ID, f.ID)
		}
	}
	return nil
}

// freeOfNAT refuses that a port with something leading to it becomes a router's.
func (n *Network) freeOfNAT(tx *store.Tx, p *model.Port) error {
	return n.keepNAT(tx, p, p.FixedIPs)
}
