package launch

import (
	"net/netip"
	"slices"

	"yakumo/compute"
	"yakumo/fault"
	"yakumo/model"
	"yakumo/network"
	"yakumo/store"
)

// NIC is an interface that is wanted: a port that is there, or a new one in a network.
type NIC struct {
	Port, Network string
	Subnet        string     // of a new one, of the network; "": any
	Fixed         netip.Addr // of a new one; zero: any
	Tag           string     // of the device
}

func netScope(sc compute.Scope) network.Scope {
	return network.Scope{ProjectID: sc.ProjectID, Admin: sc.Admin}
}

// groups resolves the names or ids of security groups among those of the project; nil: none were named.
func (l *Launcher) groups(tx *store.Tx, project model.ID, names []string) (*[]string, error) {
	if len(names) == 0 {
		return nil, nil
	}
	ids := []string{}
	for _, name := range names {
		g, err := l.Group(tx, project, name)
		if err != nil {
			return nil, AsInvalid(err)
		}
		ids = append(ids, g.ID)
	}
	return &ids, nil
}

// Group finds a security group of a project by id or name.
//
// Errors: fault.NotFound; fault.Conflict where several have the name.
func (l *Launcher) Group(tx *store.Tx, project model.ID, name string) (*model.SecurityGroup, error) {
	if name == network.DefaultGroup {
		return l.net.EnsureDefaultGroup(tx, project)
	}
	if uuidRE.MatchString(name) { // what is none is no key
		if g, ok := store.SecurityGroups.Get(tx, name); ok && g.ProjectID == project {
			return g, nil
		}
	}
	var found *model.SecurityGroup
	for g := range store.SecurityGroups.List(tx, "name", name) {
		if g.ProjectID != project {
			continue
		}
		if found != nil {
			return nil, fault.New(fault.Conflict, "Multiple security groups found matching '%s'. Use an ID to be more specific.", clip(name))
		}
		found = g
	}
	if found == nil {
		return nil, fault.New(fault.NotFound, "Security group %s not found for project %s.", clip(name), project)
	}
	return found, nil
}

// Choose gives the interface that a server gets that asks for none: one on the only network that the project can mean. allocate: where there is
// none, on the network that is made for the project.
//
// Errors: fault.Conflict where there are several; fault.Invalid where none can be made.
func (l *Launcher) Choose(tx *store.Tx, sc compute.Scope, allocate bool) ([]NIC, error) {
	project := sc.ProjectID
	var own, shared []string
	for n := range store.Networks.List(tx, "project", project) {
		if !n.External {
			own = append(own, n.ID)
		}
	}
	for _, target := range []string{project, model.Everybody} {
		for n := range store.Networks.List(tx, "shared", target) {
			if n.With(project) && !n.External && n.ProjectID != project && !slices.Contains(shared, n.ID) {
				shared = append(shared, n.ID)
			}
		}
	}
	usable := own
	if len(usable) == 0 {
		usable = shared
	}
	switch {
	case len(usable) == 1:
		return []NIC{{Network: usable[0]}}, nil
	case len(usable) > 1:
		return nil, fault.New(fault.Conflict, "Multiple possible networks found, use a Network ID to be more specific.")
	case allocate:
		t, err := l.net.AutoAllocate(tx, netScope(sc), project)
		if fault.CodeOf(err) == "AutoAllocationFailure" {
			return nil, invalid("Unable to automatically allocate a network for project %s", project)
		}
		if err != nil {
			return nil, err
		}
		return []NIC{{Network: t.NetworkID}}, nil
	}
	return nil, nil
}

// Plug gives a server of a zone an interface: a port that is there and free, or a new one with the groups; nil: the default one.
//
// Errors: fault.Invalid, fault.Forbidden, fault.OverQuota.
func (l *Launcher) Plug(tx *store.Tx, sc compute.Scope, e NIC, server model.ID, zone string, groups *[]string) (*model.Port, error) {
	nsc := netScope(sc)
	owner := "compute:" + zone
	if zone == "" {
		owner = "compute:nova"
	}
	if e.Port != "" {
		p, err := l.net.GetPort(tx, nsc, e.Port)
		if err != nil || p.ProjectID != sc.ProjectID && !sc.Admin {
			return nil, invalid("Port id %s could not be found.", e.Port)
		}
		if len(p.FixedIPs) == 0 {
			return nil, invalid("Port %s requires a FixedIP in order to be used.", e.Port)
		}
		p, err = l.net.AttachPort(tx, nsc, p.ID, server, owner)
		return p, AsInvalid(err)
	}
	w, err := l.net.GetNetwork(tx, nsc, e.Network)
	if err != nil {
		return nil, invalid("Network %s could not be found.", e.Network)
	}
	if w.External && !w.With(sc.ProjectID) && !sc.Admin {
		return nil, fault.New(fault.Forbidden, "It is not allowed to create an interface on external network %s", w.ID)
	}
	if store.Subnets.Count(tx, "network", w.ID) == 0 {
		return nil, invalid("Network %s requires a subnet in order to boot instances on.", w.ID)
	}
	project := sc.ProjectID
	spec := network.PortSpec{ProjectID: &project, NetworkID: w.ID, DeviceID: &server, DeviceOwner: &owner, Groups: groups, Owned: true}
	if e.Fixed.IsValid() || e.Subnet != "" {
		spec.FixedIPs = &[]network.AddressSpec{{SubnetID: e.Subnet, Address: e.Fixed}}
	}
	if !w.PortSecurity {
		if groups != nil {
			return nil, invalid("Network %s has no port security: security groups cannot be used on it.", w.ID)
		}
		spec.Groups = &[]string{}
	}
	p, err := l.net.CreatePort(tx, nsc, spec)
	switch fault.CodeOf(err) {
	case "IpAddressAlreadyAllocated":
		return nil, invalid("Fixed IP address %s is already in use on instance.", e.Fixed)
	case "OverQuota":
		return nil, fault.New(fault.OverQuota, "Maximum number of ports exceeded")
	}
	return p, AsInvalid(err)
}
