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
