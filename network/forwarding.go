package network

import (
	"net/netip"
	"slices"
	"strings"

	"yakumo/fault"
	"yakumo/model"
	"yakumo/store"
)

// ForwardingSpec is what a request says of a port forwarding; nil: it does not say.
type ForwardingSpec struct {
	Description *string
	Protocol    *string
	External    *PortRange
	Internal    *PortRange
	PortID      *string
	Address     *netip.Addr // of the port inside; nil on creation: its only IPv4 address
}

// PortRange is an inclusive range of transport ports, 1 to 65535.
type PortRange struct{ First, Last int }

func (r PortRange) valid() bool { return r.First >= 1 && r.First <= r.Last && r.Last <= 65535 }

func overlap(a, b, c, d int) bool { return a <= d && c <= b }

// forwardable are the protocols whose ports can be forwarded.
var forwardable = []string{"tcp", "udp", "sctp"}

// GetForwarding gives a port forwarding of a floating IP that the scope sees.
func (n *Network) GetForwarding(r store.Reader, sc Scope, floating, id model.ID) (*model.PortForwarding, error) {
	if _, err := n.GetFloatingIP(r, sc, floating); err != nil {
		return nil, err
	}
	x, ok := store.PortForwardings.Get(r, id)
	if !ok || x.FloatingIPID != floating {
		return nil, fault.Coded(fault.NotFound, "PortForwardingNotFound", "Port Forwarding %s could not be found.", clip(id))
	}
	return x, nil
}

// CreateForwarding forwards ports of a floating IP that stands for no port.
//
// Errors: fault.NotFound (floating IP, port, code ExternalGatewayForFloatingIPNotFound),
// fault.Invalid code BadRequest (ranges, protocol, address, in use already),
// fault.Conflict codes FloatingIPPortAlreadyAssociated and PortHasBindingFloatingIP.
func (n *Network) CreateForwarding(tx *store.Tx, sc Scope, floating model.ID, spec ForwardingSpec) (*model.PortForwarding, error) {
	f, err := n.GetFloatingIP(tx, sc, floating)
	if err != nil {
		return nil, err
	}
	x := &model.PortForwarding{Meta: model.NewMeta(f.ProjectID, "", n.now()), FloatingIPID: f.ID}
	if err := n.applyForwarding(tx, sc, f, x, spec); err != nil {
		return nil, err
	}
	return x, store.PortForwardings.Put(tx, x)
}

// UpdateForwarding changes what the spec names.
//
// Errors: as CreateForwarding.
func (n *Network) UpdateForwarding(tx *store.Tx, sc Scope, floating, id model.ID, spec ForwardingSpec) (*model.PortForwarding, error) {
	old, err := n.GetForwarding(tx, sc, floating, id)
	if err != nil {
		return nil, err
	}
	f, err := n.GetFloatingIP(tx, sc, floating)
	if err != nil {
		return nil, err
	}
	x := *old
	if err := n.applyForwarding(tx, sc, f, &x, spec); err != nil {
		return nil, err
	}
	x.Touch(n.now())
	return &x, store.PortForwardings.Put(tx, &x)
}

// applyForwarding also writes the floating IP's row: its revision changes, and that puts
// the forwardings of one address in an order.
func (n *Network) applyForwarding(tx *store.Tx, sc Scope, f *model.FloatingIP, x *model.PortForwarding, spec ForwardingSpec) error {
	if err := checkText("description", spec.Description); err != nil {
		return err
	}
	set(&x.Description, spec.Description)
	set(&x.Protocol, spec.Protocol)
	if spec.External != nil {
		x.ExternalPort, x.ExternalPortEnd = spec.External.First, spec.External.Last
	}
	if spec.Internal != nil {
		x.InternalPort, x.InternalPortEnd = spec.Internal.First, spec.Internal.Last
	}
	out, in := PortRange{x.ExternalPort, x.ExternalPortEnd}, PortRange{x.InternalPort, x.InternalPortEnd}
	switch {
	case !slices.Contains(forwardable, x.Protocol):
		return fault.Coded(fault.Invalid, "HTTPBadRequest", "Invalid input for protocol. Reason: '%s' is not in ['%s'].", clip(x.Protocol), strings.Join(forwardable, "', '"))
	case !out.valid():
		return badRequest("port_forwarding", "The external port range %d:%d is not valid.", out.First, out.Last)
	case !in.valid():
		return badRequest("port_forwarding", "The internal port range %d:%d is not valid.", in.First, in.Last)
	case in.Last > in.First && in.Last-in.First != out.Last-out.First:
		return badRequest("port_forwarding", "Internal and external port ranges must have the same length, or the internal one be a single port.")
	case f.PortID != "":
		return fault.Coded(fault.Conflict, "FloatingIPPortAlreadyAssociated", "Cannot associate floating IP %s (%s) with port %s using fixed IP %s, as that fixed IP already has a floating IP on external network %s.", f.Address, f.ID, f.PortID, f.FixedAddress, f.NetworkID)
	}
	port := x.PortID
	set(&port, spec.PortID)
	p, err := n.GetPort(tx, sc, port)
	if err != nil {
		return err
	}
	if p.ProjectID != f.ProjectID && !sc.Admin {
		return badRequest("port_forwarding", "Port %s is owned by a different tenant.", p.ID)
	}
	want := spec.Address
	if want == nil && p.ID == x.PortID {
		want = &x.InternalAddress
	}
	inside, err := insideAddress("port_forwarding", p, want)
	if err != nil {
		return err
	}
	x.PortID, x.InternalAddress = p.ID, inside.Address
	for o := range store.FloatingIPs.List(tx, "port", p.ID) {
		if o.FixedAddress == inside.Address {
			return fault.Coded(fault.Conflict, "PortHasBindingFloatingIP", "Cannot create port forwarding to floating IP %s (%s) with port %s using fixed IP %s, as that port already has a binding floating IP.", f.Address, f.ID, p.ID, inside.Address)
		}
	}
	r, err := routerOut(tx, f.NetworkID, p, inside)
	if err != nil {
		return err
	}
	if err := clashes(tx, f, x, r); err != nil {
		return err
	}
	x.RouterID = r.ID
	markNAT(tx, p.ID, r.ID)
	next := *f
	next.RouterID = r.ID
	next.Touch(n.now())
	return n.putFloatingIP(tx, &next)
}

// clashes refuses what another forwarding has already, and a second router for one address.
func clashes(tx *store.Tx, f *model.FloatingIP, x *model.PortForwarding, r *model.Router) error {
	for o := range store.PortForwardings.List(tx, "floating", f.ID) {
		if o.ID == x.ID {
			continue
		}
		if o.RouterID != r.ID {
			return badRequest("port_forwarding", "The floating IP %s is in use by router %s, the port %s is behind router %s.", f.ID, o.RouterID, x.PortID, r.ID)
		}
		if o.Protocol == x.Protocol && overlap(o.ExternalPort, o.ExternalPortEnd, x.ExternalPort, x.ExternalPortEnd) {
			return badRequest("port_forwarding", "A duplicate port forwarding entry with same attributes already exists, conflicting values are floatingip_id %s, protocol %s, external_port %d:%d.", f.ID, x.Protocol, o.ExternalPort, o.ExternalPortEnd)
		}
	}
	for o := range store.PortForwardings.List(tx, "port", x.PortID) {
		if o.ID != x.ID && o.InternalAddress == x.InternalAddress && o.Protocol == x.Protocol &&
			overlap(o.InternalPort, o.InternalPortEnd, x.InternalPort, x.InternalPortEnd) {
			return badRequest("port_forwarding", "A duplicate port forwarding entry with same attributes already exists, conflicting values are internal_port_id %s, protocol %s, internal_port %d:%d.", x.PortID, x.Protocol, o.InternalPort, o.InternalPortEnd)
		}
	}
	return nil
}

// DeleteForwarding ends a forwarding.
//
// Errors: fault.NotFound.
func (n *Network) DeleteForwarding(tx *store.Tx, sc Scope, floating, id model.ID) error {
	x, err := n.GetForwarding(tx, sc, floating, id)
	if err != nil {
		return err
	}
	return n.dropForwarding(tx, x)
}

// dropForwarding removes a forwarding; with the last one the address is no router's any more.
func (n *Network) dropForwarding(tx *store.Tx, x *model.PortForwarding) error {
	if err := store.PortForwardings.Delete(tx, x.ID); err != nil {
		return err
	}
	old, ok := store.FloatingIPs.Get(tx, x.FloatingIPID)
	if !ok {
		return nil
	}
	f := *old
	if store.PortForwardings.Count(tx, "floating", f.ID) == 0 {
		f.RouterID = ""
	}
	f.Touch(n.now())
	return n.putFloatingIP(tx, &f)
}
