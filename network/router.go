package network

import (
	"errors"
	"net/netip"
	"slices"

	"yakumo/fault"
	"yakumo/model"
	"yakumo/store"
)

// MaxRoutes is how many routes of its own a router may have; Neutron's default.
const MaxRoutes = 30

// RouterSpec is what a request says of a router; nil: it does not say.
type RouterSpec struct {
	ProjectID    *string
	Name         *string
	Description  *string
	AdminStateUp *bool
	Distributed  *bool // false is not offered
	HA           *bool // false: no stand-by for the gateway
	Gateway      *GatewaySpec
	Routes       *[]model.Route
	ZoneHints    *[]string // of a new router
}

// GatewaySpec is what a request says of a router's gateway.
type GatewaySpec struct {
	NetworkID model.ID // "": no gateway
	// SNAT and FixedIPs are for administrators. nil: SNAT, and addresses that are picked or kept.
	SNAT     *bool
	FixedIPs *[]AddressSpec
	// QoSPolicyID is the gateway's policy; "": none, nil: as it is.
	QoSPolicyID *string
}

// routerMark is the name under which what needs a router's interfaces and gateway marks it.
func routerMark(id model.ID) string { return "router," + id }

// GetRouter gives a router that the scope sees.
func (n *Network) GetRouter(r store.Reader, sc Scope, id model.ID) (*model.Router, error) {
	x, ok := store.Routers.Get(r, id)
	if !ok || !sc.Owns(x.ProjectID) {
		return nil, fault.Coded(fault.NotFound, "RouterNotFound", "Router %s could not be found", clip(id))
	}
	return x, nil
}

// badRequest refuses what a request asks of a resource, in Neutron's words for it.
func badRequest(resource, format string, args ...any) error {
	return fault.Coded(fault.Invalid, "BadRequest", "Bad "+resource+" request: "+format, args...)
}

// CreateRouter makes a router, with its gateway where the spec names one.
//
// Errors: fault.NotFound (network, zone), fault.Forbidden, fault.Invalid codes BadRequest
// and InvalidRoutes, fault.Conflict (addresses), fault.OverQuota, fault.NotImplemented.
func (n *Network) CreateRouter(tx *store.Tx, sc Scope, spec RouterSpec) (*model.Router, error) {
	project, err := sc.project(spec.ProjectID)
	if err != nil {
		return nil, err
	}
	if err := n.spend(tx, project, QuotaRouter, 1); err != nil {
		return nil, err
	}
	r := &model.Router{Meta: model.NewMeta(project, "", n.now()), AdminStateUp: true, Distributed: true, HA: true}
	if spec.ZoneHints != nil {
		zones := Zones(tx)
		for _, z := range *spec.ZoneHints {
			if _, ok := zones[z]; !ok {
				return nil, fault.Coded(fault.NotFound, "AvailabilityZoneNotFound", "AvailabilityZone %s could not be found.", clip(z))
			}
		}
		r.ZoneHints = *spec.ZoneHints
	}
	set(&r.HA, spec.HA)
	if err := n.applyRouter(tx, sc, r, spec); err != nil {
		return nil, err
	}
	return r, store.Routers.Put(tx, r)
}

// UpdateRouter changes what the spec names.
//
// Errors: as CreateRouter, and fault.Conflict code RouterExternalGatewayInUseByFloatingIp.
func (n *Network) UpdateRouter(tx *store.Tx, sc Scope, id model.ID, spec RouterSpec) (*model.Router, error) {
	old, err := n.GetRouter(tx, sc, id)
	if err != nil {
		return nil, err
	}
	r := *old
	if spec.HA != nil && *spec.HA != old.HA {
		if old.AdminStateUp {
			return nil, badRequest("router", "Cannot change the 'ha' attribute of active routers. Please set router admin_state_up to False prior to upgrade.")
		}
		r.HA = *spec.HA
	}
	if err := n.applyRouter(tx, sc, &r, spec); err != nil {
		return nil, err
	}
	r.Touch(n.now())
	return &r, store.Routers.Put(tx, &r)
}

func (n *Network) applyRouter(tx *store.Tx, sc Scope, r *model.Router, spec RouterSpec) error {
	if err := errors.Join(checkText("name", spec.Name), checkText("description", spec.Description)); err != nil {
		return err
	}
	if spec.Distributed != nil && !*spec.Distributed {
		return fault.Coded(fault.NotImplemented, "HTTPNotImplemented", "Routers that are not distributed are not offered.")
	}
	set(&r.Name, spec.Name)
	set(&r.Description, spec.Description)
	set(&r.AdminStateUp, spec.AdminStateUp)
	if spec.Gateway != nil {
		if err := n.applyGateway(tx, sc, r, *spec.Gateway); err != nil {
			return err
		}
	}
	if spec.Routes != nil {
		r.Routes = slices.Clone(*spec.Routes)
	}
	if spec.Routes != nil || spec.Gateway != nil {
		return n.checkRoutes(tx, r)
	}
	return nil
}

// DeleteRouter removes a router without interfaces, and its gateway.
//
// Errors: fault.NotFound, fault.Conflict codes RouterInUse and
// RouterExternalGatewayInUseByFloatingIp.
func (n *Network) DeleteRouter(tx *store.Tx, sc Scope, id model.ID) error {
	old, err := n.GetRouter(tx, sc, id)
	if err != nil {
		return err
	}
	tx.Guard(routerMark(id))
	if len(interfaces(tx, id)) > 0 {
		return fault.Coded(fault.Conflict, "RouterInUse", "Router %s still has ports", id)
	}
	r := *old
	if err := n.clearGateway(tx, &r); err != nil {
		return err
	}
	tx.Unmark(routerMark(id))
	return store.Routers.Delete(tx, id)
}

// AddRoutes adds routes to those that a router has; what it has already is no error.
// RemoveRoutes takes routes away; what it does not have is none either.
//
// Errors: fault.NotFound, fault.Invalid codes InvalidRoutes and RoutesExhausted.
func (n *Network) AddRoutes(tx *store.Tx, sc Scope, id model.ID, routes []model.Route) (*model.Router, error) {
	return n.changeRoutes(tx, sc, id, func(have []model.Route) []model.Route {
		for _, x := range routes {
			if !slices.Contains(have, x) {
				have = append(have, x)
			}
		}
		return have
	})
}

// RemoveRoutes is described at AddRoutes.
func (n *Network) RemoveRoutes(tx *store.Tx, sc Scope, id model.ID, routes []model.Route) (*model.Router, error) {
	return n.changeRoutes(tx, sc, id, func(have []model.Route) []model.Route {
		return slices.DeleteFunc(have, func(x model.Route) bool { return slices.Contains(routes, x) })
	})
}

func (n *Network) changeRoutes(tx *store.Tx, sc Scope, id model.ID, change func([]model.Route) []model.Route) (*model.Router, error) {
	old, err := n.GetRouter(tx, sc, id)
	if err != nil {
		return nil, err
	}
	r := *old
	r.Routes = change(slices.Clone(old.Routes))
	if slices.Equal(r.Routes, old.Routes) {
		return old, nil
	}
	if err := n.checkRoutes(tx, &r); err != nil {
		return nil, err
	}
	r.Touch(n.now())
	return &r, store.Routers.Put(tx, &r)
}

// checkRoutes refuses routes whose next hop is not beside the router, or is the router.
func (n *Network) checkRoutes(tx *store.Tx, r *model.Router) error {
	if len(r.Routes) == 0 {
		return nil
	}
	if len(r.Routes) > MaxRoutes {
		return fault.Coded(fault.Invalid, "RoutesExhausted", "Unable to complete operation for %s. The number of routes exceeds the maximum %d.", r.ID, MaxRoutes)
	}
	var connected []netip.Prefix
	var own []netip.Addr
	for _, p := range interfaces(tx, r.ID) {
		connected = append(connected, prefixes(tx, p.FixedIPs)...)
		own = append(own, p.Addresses()...)
	}
	if r.Gateway != nil {
		connected = append(connected, prefixes(tx, r.Gateway.FixedIPs)...)
		for _, f := range r.Gateway.FixedIPs {
			own = append(own, f.Address)
		}
	}
	for i, x := range r.Routes {
		bad := func(reason string) error {
			return fault.Coded(fault.Invalid, "InvalidRoutes", "Invalid format for routes: %s via %s, %s", x.Destination, x.NextHop, reason)
		}
		switch {
		case !x.Destination.IsValid() || !x.NextHop.IsValid():
			return bad("a destination and a nexthop are needed")
		case x.Destination.Masked() != x.Destination:
			return bad("the destination has bits outside its prefix; " + x.Destination.Masked().String() + " is recommended")
		case x.Destination.Addr().Is4() != x.NextHop.Is4():
			return bad("the destination and the nexthop are of different IP versions")
		case slices.Contains(r.Routes[:i], x):
			return bad("it is there twice")
		case !slices.ContainsFunc(connected, func(p netip.Prefix) bool { return p.Contains(x.NextHop) }):
			return bad("the nexthop is not connected with router")
		case slices.Contains(own, x.NextHop):
			return bad("the nexthop is used by router")
		}
	}
	return nil
}

// interfaces gives a router's interfaces, by id.
func interfaces(r store.Reader, router model.ID) []*model.Port {
	var out []*model.Port
	for p := range store.Ports.List(r, "device", router) {
		if p.DeviceOwner == model.OwnerRouterInterface {
			out = append(out, p)
		}
	}
	return out
}

// prefixes gives the blocks of the subnets that the addresses are of.
func prefixes(r store.Reader, ips []model.FixedIP) []netip.Prefix {
	var out []netip.Prefix
	for _, f := range ips {
		if s, ok := glance(store.Subnets, r, f.SubnetID); ok {
			out = append(out, s.CIDR)
		}
	}
	return out
}

// glance gives a row that the commit does not compare: what is looked at of it never changes,
// or is put right by who watches it. A router may have more subnets than one transaction compares.
func glance[T any](t *store.Table[T], r store.Reader, id model.ID) (*T, bool) {
	for row := range t.List(r, "id", id) {
		return row, true
	}
	return nil, false
}
