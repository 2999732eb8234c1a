package network

import (
	"slices"

	"yakumo/fault"
	"yakumo/model"
	"yakumo/store"
)

// MayAutoAllocate tells why a project could not be given a network of its own, nil where it
// could: it takes an external network that is the default and a default subnet pool.
func (n *Network) MayAutoAllocate(r store.Reader, sc Scope) error {
	_, _, err := n.autoParts(r, sc)
	return err
}

func (n *Network) autoParts(r store.Reader, sc Scope) (*model.Network, []*model.SubnetPool, error) {
	bad := func(reason string) error {
		return fault.Coded(fault.Conflict, "AutoAllocationFailure", "Deployment error: %s.", reason)
	}
	outside, ok := store.Networks.Claimed(r, store.DefaultNetworkClaim)
	if !ok || !sc.routesTo(outside) {
		return nil, nil, bad("No default router:external network")
	}
	var pools []*model.SubnetPool
	for _, version := range []int{4, 6} {
		if p, ok := store.SubnetPools.Claimed(r, defaultPoolClaim(version)); ok && sc.Sees(p.ProjectID, p.Sharing) {
			pools = append(pools, p)
		}
	}
	if len(pools) == 0 {
		return nil, nil, bad("No default subnetpools defined")
	}
	return outside, pools, nil
}

// AutoAllocate gives the project a network with a subnet of each default pool and a router to
// the default external network, once: later calls give the same.
//
// Errors: fault.Conflict code AutoAllocationFailure, and those of what is made.
func (n *Network) AutoAllocate(tx *store.Tx, sc Scope, project model.ID) (*model.AutoTopology, error) {
	if t, ok := store.AutoTopologies.Get(tx, project); ok {
		if _, there := store.Networks.Get(tx, t.NetworkID); there {
			return t, nil
		}
	}
	mine := Scope{ProjectID: project}
	outside, pools, err := n.autoParts(tx, mine)
	if err != nil {
		return nil, err
	}
	name := func(s string) *string { s = "auto_allocated_" + s; return &s }
	w, err := n.CreateNetwork(tx, mine, NetworkSpec{Name: name("network")})
	if err != nil {
		return nil, err
	}
	r, err := n.CreateRouter(tx, mine, RouterSpec{Name: name("router"), Gateway: &GatewaySpec{NetworkID: outside.ID}})
	if err != nil {
		return nil, err
	}
	for _, p := range pools {
		spec := SubnetSpec{NetworkID: w.ID, PoolID: p.ID, Name: name("subnet_v4")}
		if p.IPVersion == 6 {
			slaac, bits := model.SLAAC, automaticBits
			spec.Name, spec.RAMode, spec.AddressMode, spec.PrefixBits = name("subnet_v6"), &slaac, &slaac, &bits
		}
		s, err := n.CreateSubnet(tx, mine, spec)
		if err != nil {
			return nil, err
		}
		if _, err := n.AddInterface(tx, mine, r.ID, InterfaceSpec{SubnetID: s.ID}); err != nil {
			return nil, err
		}
	}
	t := &model.AutoTopology{ProjectID: project, NetworkID: w.ID, RouterID: r.ID}
	return t, store.AutoTopologies.Put(tx, t)
}

// DeleteAutoTopology removes what AutoAllocate made, unless it is in use.
//
// Errors: fault.NotFound, those of what is removed.
func (n *Network) DeleteAutoTopology(tx *store.Tx, sc Scope, project model.ID) error {
	t, ok := store.AutoTopologies.Get(tx, project)
	if !ok {
		return fault.Coded(fault.NotFound, "AutoAllocatedTopologyNotFound", "Project %s has no auto-allocated topology.", clip(project))
	}
	mine := Scope{ProjectID: project}
	if _, there := store.Routers.Get(tx, t.RouterID); there {
		for _, p := range slices.Clone(interfaces(tx, t.RouterID)) {
			if p.NetworkID != t.NetworkID {
				continue
			}
			if _, err := n.RemoveInterface(tx, mine, t.RouterID, InterfaceSpec{PortID: p.ID}); err != nil {
				return err
			}
		}
		if err := n.DeleteRouter(tx, mine, t.RouterID); err != nil {
			return err
		}
	}
	if _, there := store.Networks.Get(tx, t.NetworkID); there {
		if err := n.DeleteNetwork(tx, mine, t.NetworkID); err != nil {
			return err
		}
	}
	return store.AutoTopologies.Delete(tx, project)
}
