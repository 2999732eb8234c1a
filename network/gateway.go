package network

import (
	"slices"

	"yakumo/fault"
	"yakumo/model"
	"yakumo/store"
)

// applyGateway gives a router the gateway that the spec asks for, or none.
func (n *Network) applyGateway(tx *store.Tx, sc Scope, r *model.Router, spec GatewaySpec) error {
	if !sc.Admin {
		switch {
		case spec.SNAT != nil:
			return fault.Coded(fault.Forbidden, "PolicyNotAuthorized", "Only an administrator may set 'external_gateway_info:enable_snat'.")
		case spec.FixedIPs != nil:
			return fault.Coded(fault.Forbidden, "PolicyNotAuthorized", "Only an administrator may set 'external_gateway_info:external_fixed_ips'.")
		}
	}
	if spec.NetworkID == "" {
		return n.clearGateway(tx, r)
	}
	w, err := n.GetNetwork(tx, sc, spec.NetworkID)
	if err != nil {
		return err
	}
	if !sc.routesTo(w) {
		return badRequest("router", "Network %s is not an external network.", w.ID)
	}
	g := model.RouterGateway{NetworkID: w.ID, SNAT: spec.SNAT == nil || *spec.SNAT}
	if r.Gateway != nil { // as long as nobody says otherwise, whatever network it is to
		g.QoSPolicyID = r.Gateway.QoSPolicyID
	}
	if err := n.useQoS(tx, sc, &g.QoSPolicyID, spec.QoSPolicyID); err != nil {
		return err
	}
	if r.Gateway != nil && r.Gateway.NetworkID == w.ID {
		g.PortID, g.FixedIPs = r.Gateway.PortID, r.Gateway.FixedIPs
		if spec.FixedIPs != nil {
			if g.FixedIPs, err = n.moveGateway(tx, w, g.PortID, *spec.FixedIPs); err != nil {
				return err
			}
		}
		r.Gateway = &g
		return nil
	}
	if err := n.clearGateway(tx, r); err != nil {
		return err
	}
	p, err := n.makeCloudPort(tx, w, "", model.OwnerRouterGateway, r.ID, spec.FixedIPs)
	if err != nil {
		return err
	}
	g.PortID, g.FixedIPs = p.ID, p.FixedIPs
	r.Gateway = &g
	for _, x := range interfaces(tx, r.ID) {
		if err := n.checkOverlap(tx, &model.Router{Meta: r.Meta, Gateway: &g}, x.ID, x.FixedIPs); err != nil {
			return err
		}
	}
	r.VNI, err = n.pickVNI(tx)
	return err
}

// outsideFor tells whether the scope may have gateways and floating IPs in the network.
func outsideFor(sc Scope, w *model.Network) bool {
	return w.External && (sc.Owns(w.ProjectID) || w.OutsideFor(sc.ProjectID))
}

func (n *Network) moveGateway(tx *store.Tx, w *model.Network, port model.ID, want []AddressSpec) ([]model.FixedIP, error) {
	old, ok := store.Ports.Get(tx, port)
	if !ok {
		return nil, fault.Coded(fault.NotFound, "PortNotFound", "Port %s could not be found.", port)
	}
	ips, err := n.addresses(tx, w, old, &want, false)
	if err != nil {
		return nil, err
	}
	if slices.Equal(ips, old.FixedIPs) {
		return ips, nil
	}
	p := *old
	p.FixedIPs = ips
	p.Touch(n.now())
	return ips, n.putPort(tx, &p)
}

// maxExtended is how many gateways get an address of a new subnet with it: they change in its
// transaction, which has its limit. Where there are more, none does, and each gets one when
// its gateway is set again.
const maxExtended = 100

// extendGateways gives the gateways in an external network that have no address of a new
// subnet's IP version one of that subnet, as far as it has.
func (n *Network) extendGateways(tx *store.Tx, w *model.Network, s *model.Subnet) error {
	if !w.External || !meantFor(s, model.OwnerRouterGateway) {
		return nil
	}
	tx.Guard(networkMark(w.ID)) // a gateway that comes now does not see the subnet yet
	routers := slices.Collect(store.Routers.List(tx, "network", w.ID))
	if len(routers) > maxExtended {
		n.log.Warn("gateways get no address of the new subnet: they are too many at once", "network", w.ID, "subnet", s.ID, "gateways", len(routers))
		return nil
	}
	for _, old := range routers {
		if slices.ContainsFunc(old.Gateway.FixedIPs, func(f model.FixedIP) bool { return ipVersion(f.Address) == s.IPVersion }) {
			continue
		}
		if overlapping(tx, old, s) {
			continue // an interface has these addresses
		}
		var want []AddressSpec
		for _, f := range old.Gateway.FixedIPs {
			want = append(want, AddressSpec{SubnetID: f.SubnetID, Address: f.Address})
		}
		want = append(want, AddressSpec{SubnetID: s.ID})
		ips, err := n.moveGateway(tx, w, old.Gateway.PortID, want)
		if fault.CodeOf(err) == "IpAddressGenerationFailureForSubnet" {
			return nil
		}
		if err != nil {
			return err
		}
		r, g := *old, *old.Gateway
		g.FixedIPs = ips
		r.Gateway = &g
		r.Touch(n.now())
		if err := store.Routers.Put(tx, &r); err != nil {
			return err
		}
	}
	return nil
}

// overlapping tells whether an interface of the router is in addresses of the subnet.
func overlapping(tx *store.Tx, r *model.Router, s *model.Subnet) bool {
	for _, p := range interfaces(tx, r.ID) {
		for _, block := range prefixes(tx, p.FixedIPs) {
			if block.Overlaps(s.CIDR) {
				return true
			}
		}
	}
	return false
}

// clearGateway takes the router's gateway away.
func (n *Network) clearGateway(tx *store.Tx, r *model.Router) error {
	if r.Gateway == nil {
		return nil
	}
	tx.Guard(routerMark(r.ID))
	for range store.FloatingIPs.List(tx, "router", r.ID) {
		return fault.Coded(fault.Conflict, "RouterExternalGatewayInUseByFloatingIp", "Gateway cannot be updated for router %s, since a gateway to external network %s is required by one or more floating IPs.", r.ID, r.Gateway.NetworkID)
	}
	if err := store.Ports.Delete(tx, r.Gateway.PortID); err != nil {
		return err
	}
	r.Gateway, r.VNI, r.Status = nil, 0, model.RouterStatus{}
	return nil
}
