package network

import (
	"slices"

	"yakumo/fault"
	"yakumo/model"
	"yakumo/store"
)

// InterfaceSpec names what a router is joined to: a subnet, whose gateway the router then
// is, or a port. Of a removal both may be named.
type InterfaceSpec struct {
	SubnetID model.ID
	PortID   model.ID
}

// Interface is a router's side of a subnet.
type Interface struct {
	Router *model.Router
	Port   *model.Port
	// Subnets are those that the request was about.
	Subnets []model.ID
}

// AddInterface joins a router to a subnet. A second IPv6 subnet of a network comes to the
// port that the router has there.
//
// Errors: fault.NotFound (router, subnet, port), fault.Invalid code BadRequest (no gateway
// address, overlap, twice there, another project's subnet), fault.Conflict codes PortInUse
// and IpAddressAlreadyAllocated, fault.OverQuota.
func (n *Network) AddInterface(tx *store.Tx, sc Scope, id model.ID, spec InterfaceSpec) (*Interface, error) {
	r, err := n.GetRouter(tx, sc, id)
	if err != nil {
		return nil, err
	}
	var out *Interface
	switch {
	case spec.SubnetID != "" && spec.PortID != "":
		return nil, badRequest("router", "Cannot specify both subnet-id and port-id.")
	case spec.SubnetID != "":
		out, err = n.addSubnet(tx, sc, r, spec.SubnetID)
	case spec.PortID != "":
		out, err = n.addPort(tx, sc, r, spec.PortID)
	default:
		return nil, badRequest("router", "Either subnet_id or port_id must be specified.")
	}
	if err != nil {
		return nil, err
	}
	out.Router, err = n.touchRouter(tx, r)
	return out, err
}

// touchRouter bumps the router's revision. Writing its row also orders changes of its
// interfaces: two subnets that overlap cannot both come to it.
func (n *Network) touchRouter(tx *store.Tx, r *model.Router) (*model.Router, error) {
	next := *r
	next.Touch(n.now())
	return &next, store.Routers.Put(tx, &next)
}

func (n *Network) addSubnet(tx *store.Tx, sc Scope, r *model.Router, id model.ID) (*Interface, error) {
	s, err := n.GetSubnet(tx, sc, id)
	if err != nil {
		return nil, err
	}
	w, ok := store.Networks.Get(tx, s.NetworkID)
	switch {
	case !ok:
		return nil, fault.Coded(fault.NotFound, "NetworkNotFound", "Network %s could not be found.", s.NetworkID)
	case !s.Gateway.IsValid():
		return nil, badRequest("router", "Subnet for router interface must have a gateway IP.")
	// A project to which the network is given by name may be its gateway; of what everybody has, not.
	case !sc.Owns(s.ProjectID) && !sc.Owns(w.ProjectID) && !slices.Contains(w.SharedWith, sc.ProjectID):
		return nil, badRequest("router", "Cannot add interface to router because subnet %s is not owned by project making the request.", s.ID)
	case s.IPv6Address != "" && s.IPv6RAMode == "":
		return nil, badRequest("router", "IPv6 subnet %s configured to receive RAs from an external router cannot be added to Neutron Router.", s.ID)
	}
	if err := n.checkOverlap(tx, r, "", []model.FixedIP{{SubnetID: s.ID}}); err != nil {
		return nil, err
	}
	if s.Gateway.Is6() {
		for _, p := range interfaces(tx, r.ID) {
			if p.NetworkID == w.ID && len(p.FixedIPs) > 0 && p.FixedIPs[0].Address.Is6() {
				return n.widen(tx, w, p, s)
			}
		}
	}
	if err := n.spend(tx, r.ProjectID, QuotaPort, 1); err != nil {
		return nil, err
	}
	p, err := n.makeCloudPort(tx, w, r.ProjectID, model.OwnerRouterInterface, r.ID, &[]AddressSpec{{SubnetID: s.ID, Address: s.Gateway}})
	if err != nil {
		return nil, err
	}
	return &Interface{Port: p, Subnets: []model.ID{s.ID}}, nil
}

// widen adds an IPv6 subnet to a port that the router has in its network.
func (n *Network) widen(tx *store.Tx, w *model.Network, old *model.Port, s *model.Subnet) (*Interface, error) {
	p := *old
	want := []AddressSpec{{SubnetID: s.ID, Address: s.Gateway}}
	for _, f := range old.FixedIPs {
		want = append(want, AddressSpec{SubnetID: f.SubnetID, Address: f.Address})
	}
	ips, err := n.addresses(tx, w, old, &want, false)
	if err != nil {
		return nil, err
	}
	p.FixedIPs = append(ips[1:], ips[0])
	p.Touch(n.now())
	return &Interface{Port: &p, Subnets: []model.ID{s.ID}}, n.putPort(tx, &p)
}

func (n *Network) addPort(tx *store.Tx, sc Scope, r *model.Router, id model.ID) (*Interface, error) {
	old, err := n.GetPort(tx, sc, id)
	if err != nil {
		return nil, err
	}
	if !sc.Owns(old.ProjectID) {
		return nil, forbidden("another project's port")
	}
	if old.DeviceID != "" {
		return nil, fault.Coded(fault.Conflict, "PortInUse", "Unable to complete operation on port %s for network %s. Port already has an attached device %s.", id, old.NetworkID, old.DeviceID)
	}
	if err := inTrunk(old); err != nil {
		return nil, err
	}
	p := *old
	p.DeviceID, p.DeviceOwner = r.ID, model.OwnerRouterInterface
	p.Host, p.Status = "", model.PortStatus{State: model.PortActive}
	p.Touch(n.now())
	out := &Interface{Port: &p}
	four := 0
	for _, f := range p.FixedIPs {
		out.Subnets = append(out.Subnets, f.SubnetID)
		if f.Address.Is4() {
			four++
		}
	}
	switch {
	case len(p.FixedIPs) == 0:
		return nil, badRequest("router", "Router port must have at least one fixed IP.")
	case four > 1:
		return nil, badRequest("router", "Cannot have multiple IPv4 subnets on router port.")
	}
	if err := n.checkOverlap(tx, r, p.ID, p.FixedIPs); err != nil {
		return nil, err
	}
	if err := n.freeOfNAT(tx, old); err != nil {
		return nil, err
	}
	return out, n.putPort(tx, &p)
}

// makeCloudPort makes a port that belongs to a router or a floating IP; project "": nobody's.
func (n *Network) makeCloudPort(tx *store.Tx, w *model.Network, project model.ID, owner string, device model.ID, want *[]AddressSpec) (*model.Port, error) {
	p := &model.Port{
		Meta: model.NewMeta(project, "", n.now()), NetworkID: w.ID, AdminStateUp: true, VNICType: "normal",
		DeviceID: device, DeviceOwner: owner, Status: model.PortStatus{State: model.PortActive},
	}
	if owner == model.OwnerFloatingIP {
		p.Status.State = model.PortNotApplicable
	}
	if w.ProjectID != project {
		p.NetworkOwner = w.ProjectID
	}
	var err error
	if p.FixedIPs, err = n.addresses(tx, w, p, want, true); err != nil {
		return nil, err
	}
	if p.MAC, err = n.pickMAC(tx, w.ID); err != nil {
		return nil, err
	}
	return p, n.putPort(tx, p)
}

// checkOverlap refuses that a router has two sides that share an address: other interfaces
// than port, and every subnet of the network of its gateway.
func (n *Network) checkOverlap(tx *store.Tx, r *model.Router, port model.ID, ips []model.FixedIP) error {
	var mine, others []*model.Subnet
	for _, f := range ips {
		if s, ok := glance(store.Subnets, tx, f.SubnetID); ok {
			mine = append(mine, s)
		}
	}
	for _, p := range interfaces(tx, r.ID) {
		if p.ID == port {
			continue
		}
		for _, f := range p.FixedIPs {
			if s, ok := glance(store.Subnets, tx, f.SubnetID); ok {
				others = append(others, s)
			}
		}
	}
	if r.Gateway != nil {
		others = slices.AppendSeq(others, store.Subnets.List(tx, "network", r.Gateway.NetworkID))
	}
	for _, s := range mine {
		for _, o := range others {
			if s.ID == o.ID {
				return badRequest("router", "Router already has a port on subnet %s.", s.ID)
			}
			if s.CIDR.Overlaps(o.CIDR) {
				return badRequest("router", "Cidr %s of subnet %s overlaps with cidr %s of subnet %s.", s.CIDR, s.ID, o.CIDR, o.ID)
			}
		}
	}
	return nil
}

// RemoveInterface takes a router out of a subnet, or out of all of a port's. The port goes
// with it.
//
// Errors: fault.NotFound (router, subnet, codes RouterInterfaceNotFound and
// RouterInterfaceNotFoundForSubnet), fault.Invalid code BadRequest, fault.Conflict codes
// SubnetMismatchForPort, RouterInterfaceInUseByFloatingIP and RouterInterfaceInUseByRoute.
func (n *Network) RemoveInterface(tx *store.Tx, sc Scope, id model.ID, spec InterfaceSpec) (*Interface, error) {
	r, err := n.GetRouter(tx, sc, id)
	if err != nil {
		return nil, err
	}
	if spec.SubnetID == "" && spec.PortID == "" {
		return nil, badRequest("router", "Either subnet_id or port_id must be specified.")
	}
	has := func(p *model.Port) bool {
		return slices.ContainsFunc(p.FixedIPs, func(f model.FixedIP) bool { return f.SubnetID == spec.SubnetID })
	}
	var old *model.Port
	if spec.PortID != "" {
		p, ok := store.Ports.Get(tx, spec.PortID)
		if !ok || p.DeviceID != id || p.DeviceOwner != model.OwnerRouterInterface {
			return nil, fault.Coded(fault.NotFound, "RouterInterfaceNotFound", "Router %s does not have an interface with id %s", id, clip(spec.PortID))
		}
		if spec.SubnetID != "" && !has(p) {
			return nil, fault.Coded(fault.Conflict, "SubnetMismatchForPort", "Subnet on port %s does not match the requested subnet %s.", p.ID, clip(spec.SubnetID))
		}
		old = p
	} else {
		if _, err := n.GetSubnet(tx, sc, spec.SubnetID); err != nil {
			// A subnet that is seen no more may have the router's interface all the same.
			if _, there := store.Subnets.Get(tx, spec.SubnetID); !there || !slices.ContainsFunc(interfaces(tx, id), has) {
				return nil, err
			}
		}
		for _, p := range interfaces(tx, id) {
			if has(p) {
				old = p
			}
		}
		if old == nil {
			return nil, fault.Coded(fault.NotFound, "RouterInterfaceNotFoundForSubnet", "Router %s has no interface on subnet %s", id, spec.SubnetID)
		}
	}
	out := &Interface{Port: old}
	var gone, left []model.FixedIP
	for _, f := range old.FixedIPs {
		if spec.PortID == "" && f.SubnetID != spec.SubnetID {
			left = append(left, f)
			continue
		}
		gone = append(gone, f)
		out.Subnets = append(out.Subnets, f.SubnetID)
	}
	if err := n.leaveSubnets(tx, r, gone); err != nil {
		return nil, err
	}
	if len(left) == 0 {
		err = n.dropPort(tx, old)
	} else {
		p := *old
		p.FixedIPs = left
		p.Touch(n.now())
		err = n.putPort(tx, &p)
	}
	if err != nil {
		return nil, err
	}
	out.Router, err = n.touchRouter(tx, r)
	return out, err
}

// leaveSubnets refuses that a router leaves subnets which a floating IP, what is forwarded
// or one of its routes needs.
func (n *Network) leaveSubnets(tx *store.Tx, r *model.Router, ips []model.FixedIP) error {
	tx.Guard(routerMark(r.ID))
	for _, f := range ips {
		s, ok := store.Subnets.Get(tx, f.SubnetID)
		if !ok {
			continue
		}
		inUse := false
		for x := range store.FloatingIPs.List(tx, "router", r.ID) {
			inUse = inUse || x.PortID != "" && s.CIDR.Contains(x.FixedAddress)
		}
		for x := range store.PortForwardings.List(tx, "router", r.ID) {
			inUse = inUse || s.CIDR.Contains(x.InternalAddress)
		}
		if inUse {
			return fault.Coded(fault.Conflict, "RouterInterfaceInUseByFloatingIP", "Router interface for subnet %s on router %s cannot be deleted, as it is required by one or more floating IPs.", s.ID, r.ID)
		}
		for _, x := range r.Routes {
			if s.CIDR.Contains(x.NextHop) {
				return fault.Coded(fault.Conflict, "RouterInterfaceInUseByRoute", "Router interface for subnet %s on router %s cannot be deleted, as it is required by one or more routes.", s.ID, r.ID)
			}
		}
	}
	return nil
}

// checkMove refuses that a port gives up an address that something leads to, and that one
// of the cloud's own ports gets addresses that it must not have.
func (n *Network) checkMove(tx *store.Tx, old, p *model.Port) error {
	var gone []model.FixedIP
	for _, f := range old.FixedIPs {
		if !slices.Contains(p.FixedIPs, f) {
			gone = append(gone, f)
		}
	}
	if len(gone) == 0 && len(p.FixedIPs) == len(old.FixedIPs) {
		return nil
	}
	if !cloudPort(tx, old) {
		return n.keepNAT(tx, old, gone)
	}
	if old.DeviceOwner != model.OwnerRouterInterface {
		return fault.Coded(fault.Conflict, "PortInUse", "Unable to complete operation on port %s for network %s. Port already has an attached device %s.", old.ID, old.NetworkID, old.DeviceID)
	}
	r, ok := store.Routers.Get(tx, old.DeviceID)
	if !ok {
		return nil
	}
	four := 0
	for _, f := range p.FixedIPs {
		if f.Address.Is4() {
			four++
		}
	}
	switch {
	case len(p.FixedIPs) == 0:
		return badRequest("router", "Router port must have at least one fixed IP.")
	case four > 1:
		return badRequest("router", "Cannot have multiple IPv4 subnets on router port.")
	}
	var left []model.FixedIP // subnets of which the port has no address any more
	for _, f := range gone {
		if !slices.ContainsFunc(p.FixedIPs, func(x model.FixedIP) bool { return x.SubnetID == f.SubnetID }) {
			left = append(left, f)
		}
	}
	if err := n.leaveSubnets(tx, r, left); err != nil {
		return err
	}
	if err := n.checkOverlap(tx, r, p.ID, p.FixedIPs); err != nil {
		return err
	}
	for _, x := range r.Routes {
		if slices.Contains(p.Addresses(), x.NextHop) {
			return fault.Coded(fault.Invalid, "InvalidRoutes", "Invalid format for routes: %s via %s, the nexthop is used by router", x.Destination, x.NextHop)
		}
	}
	_, err := n.touchRouter(tx, r)
	return err
}
