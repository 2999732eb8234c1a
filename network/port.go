package network

import (
	"encoding/json"
	"errors"
	"net"
	"regexp"
	"slices"
	"strings"

	"yakumo/fault"
	"yakumo/model"
	"yakumo/store"
)

// PortSpec is what a request says of a port; nil: it does not say.
type PortSpec struct {
	ProjectID    *string
	Name         *string
	Description  *string
	NetworkID    string // of a new port
	MAC          *string
	FixedIPs     *[]AddressSpec // nil on creation: one address of each IP version, and what guests form
	AdminStateUp *bool
	PortSecurity *bool     // nil on creation: as the network says
	Groups       *[]string // nil on creation: the project's default group
	Pairs        *[]model.AddressPair
	DHCPOptions  *[]DHCPOptionSpec
	DeviceID     *string
	DeviceOwner  *string
	VNICType     *string
	DNSName      *string
	QoSPolicyID  *string // "": none of its own
	Owned        bool    // of a new port: it was made for its server and goes with it
	// Administrators bind ports by hand. Host is a host's name; "" unbinds.
	Host    *string
	Profile *json.RawMessage
}

// DHCPOptionSpec is an extra DHCP option; Value nil removes the option of that name.
type DHCPOptionSpec struct {
	Name      string
	Value     *string
	IPVersion int // 0: 4
}

// CreatePort makes a port with its MAC, addresses and groups.
//
// Errors: fault.NotFound (network, group), fault.Forbidden, fault.Invalid (addresses,
// pairs, options, MAC), fault.Conflict (codes MacAddressInUse, IpAddressAlreadyAllocated,
// IpAddressGenerationFailure), fault.OverQuota.
func (n *Network) CreatePort(tx *store.Tx, sc Scope, spec PortSpec) (*model.Port, error) {
	w, err := n.GetNetwork(tx, sc, spec.NetworkID)
	if err != nil {
		return nil, err
	}
	project, err := sc.project(spec.ProjectID)
	if err != nil {
		return nil, err
	}
	if !sc.SeesSubnets(w) {
		return nil, forbidden("ports of the external network")
	}
	if err := n.spend(tx, project, QuotaPort, 1); err != nil {
		return nil, err
	}
	p := &model.Port{
		Meta: model.NewMeta(project, "", n.now()), NetworkID: w.ID, AdminStateUp: true, PortSecurity: w.PortSecurity,
		VNICType: "normal", Owned: spec.Owned, Status: model.PortStatus{State: model.PortDown},
	}
	if w.ProjectID != project {
		p.NetworkOwner = w.ProjectID
	}
	if err := n.applyPort(tx, sc, w, p, spec); err != nil {
		return nil, err
	}
	if spec.Groups == nil && p.PortSecurity && !routerOwned(p.DeviceOwner) {
		g, err := n.EnsureDefaultGroup(tx, project)
		if err != nil {
			return nil, err
		}
		p.Groups = []model.ID{g.ID}
	}
	if p.MAC == "" {
		if p.MAC, err = n.pickMAC(tx, w.ID); err != nil {
			return nil, err
		}
	}
	if p.FixedIPs, err = n.addresses(tx, w, p, spec.FixedIPs, true); err != nil {
		return nil, err
	}
	return p, n.putPort(tx, p)
}

// UpdatePort changes what the spec names. The scope must own the port; what concerns the
// network's safety, its network.
func (n *Network) UpdatePort(tx *store.Tx, sc Scope, id model.ID, spec PortSpec) (*model.Port, error) {
	old, err := n.GetPort(tx, sc, id)
	if err != nil {
		return nil, err
	}
	if !sc.Owns(old.ProjectID) {
		return nil, forbidden("another project's port")
	}
	w, ok := store.Networks.Get(tx, old.NetworkID)
	if !ok {
		return nil, fault.Coded(fault.NotFound, "NetworkNotFound", "Network %s could not be found.", old.NetworkID)
	}
	p := *old
	p.Groups = slices.Clone(old.Groups)
	if err := n.applyPort(tx, sc, w, &p, spec); err != nil {
		return nil, err
	}
	if p.MAC == "" { // asked to be made anew
		if p.MAC, err = n.pickMAC(tx, w.ID); err != nil {
			return nil, err
		}
	}
	if p.MAC != old.MAC {
		reform(tx, &p)
	}
	if spec.FixedIPs != nil {
		if p.FixedIPs, err = n.addresses(tx, w, &p, spec.FixedIPs, false); err != nil {
			return nil, err
		}
	}
	if err := n.checkMove(tx, old, &p); err != nil {
		return nil, err
	}
	p.Touch(n.now())
	var before map[model.ID]map[model.Traffic]int
	promised := p.Host != "" && p.QoSPolicyID != old.QoSPolicyID && promises(tx, p.QoSPolicyID, w.QoSPolicyID)
	if promised {
		before = store.Promises(tx)
	}
	if err := n.putPort(tx, &p); err != nil {
		return nil, err
	}
	if promised {
		if err := heed(tx, before); err != nil {
			return nil, err
		}
	}
	if p.Host != old.Host {
		return &p, n.follow(tx, &p)
	}
	return &p, nil
}

// DeletePort removes a port, whatever uses it: its server notices, as in Neutron. A
// floating IP of it is free again; what is forwarded to it no longer is.
//
// Errors: fault.NotFound, fault.Forbidden, fault.Conflict code ServicePortInUse (the port
// is a router's or a floating IP's own), PortInUseAsSubPort, PortInUseAsTrunkParent.
func (n *Network) DeletePort(tx *store.Tx, sc Scope, id model.ID) error {
	p, err := n.GetPort(tx, sc, id)
	if err != nil {
		return err
	}
	if !sc.Owns(p.ProjectID) && !(sc.ProjectID != "" && sc.ProjectID == p.NetworkOwner) {
		return forbidden("another project's port")
	}
	if cloudPort(tx, p) {
		return fault.Coded(fault.Conflict, "ServicePortInUse", "Port %s cannot be deleted directly via the port API: has device owner %s.", id, p.DeviceOwner)
	}
	if err := inTrunk(p); err != nil {
		return err
	}
	return n.dropPort(tx, p)
}

// dropPort removes a port and what leads to it.
func (n *Network) dropPort(tx *store.Tx, p *model.Port) error {
	if err := n.dropNAT(tx, p); err != nil {
		return err
	}
	if err := dropTaps(tx, p.ID); err != nil {
		return err
	}
	return store.Ports.Delete(tx, p.ID)
}

// putPort writes the port and marks what it refers to, so that none of it is deleted at
// the same time by somebody who does not see the port yet.
func (n *Network) putPort(tx *store.Tx, p *model.Port) error {
	dropHeld(p)
	tx.Mark(networkMark(p.NetworkID))
	for _, f := range p.FixedIPs {
		tx.Mark(subnetMark(f.SubnetID))
	}
	for _, g := range p.Groups {
		tx.Mark(groupMark(g))
	}
	err := store.Ports.Put(tx, p)
	var taken *store.TakenError
	if errors.As(err, &taken) {
		if strings.HasPrefix(taken.Claim, "mac,") {
			return macInUse(p.NetworkID, p.MAC)
		}
		parts := strings.Split(taken.Claim, ",")
		return fault.Coded(fault.Conflict, "IpAddressAlreadyAllocated", "IP address %s already allocated in subnet %s", parts[len(parts)-1], parts[1])
	}
	return err
}

func macInUse(network model.ID, mac string) error {
	return fault.Coded(fault.Conflict, "MacAddressInUse", "Unable to complete operation for network %s. The mac address %s is in use.", network, mac)
}

func macClaim(network model.ID, mac string) string { return "mac," + network + "," + mac }

func (n *Network) pickMAC(tx *store.Tx, network model.ID) (string, error) {
	for range 16 {
		mac := n.randomMAC()
		if _, held := store.Ports.Holder(tx, macClaim(network, mac)); !held {
			return mac, nil
		}
	}
	return "", fault.Coded(fault.Unavailable, "MacAddressGenerationFailure", "Unable to generate unique mac on network %s.", network)
}

// ParseMAC gives a MAC address in its stored form, and false for what no port can have.
func ParseMAC(s string) (string, bool) {
	a, err := net.ParseMAC(s)
	if err != nil || len(a) != 6 || a[0]&1 != 0 || [6]byte(a) == [6]byte{} {
		return "", false
	}
	return a.String(), true
}

var label = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?$`)

// vnicTypes are the kinds of interfaces that Neutron's API knows.
func vnicTypes() []string {
	return []string{"normal", "macvtap", "direct", "direct-physical", "baremetal", "virtio-forwarder", "smart-nic", "vdpa",
		"accelerator-direct", "accelerator-direct-physical", "remote-managed"}
}

// routerOwned tells whether a port is of a device of the network, such as a router's interface.
func routerOwned(owner string) bool { return strings.HasPrefix(owner, model.OwnerNetwork) }

// mayBeGateway tells whether a port of that owner may have its subnet's gateway address. In
// an external network that address is a machine of the outside.
func mayBeGateway(owner string) bool {
	return routerOwned(owner) && owner != model.OwnerRouterGateway && owner != model.OwnerFloatingIP
}

// cloudPort tells whether a port belongs to a router or to a floating IP that there is.
func cloudPort(tx *store.Tx, p *model.Port) bool {
	return namesCloud(tx, p.DeviceOwner, p.DeviceID)
}

func namesCloud(tx *store.Tx, owner string, device model.ID) bool {
	if device == "" {
		return false
	}
	found := false
	switch owner {
	case model.OwnerRouterInterface, model.OwnerRouterGateway:
		_, found = store.Routers.Get(tx, device)
	case model.OwnerFloatingIP:
		_, found = store.FloatingIPs.Get(tx, device)
	}
	return found
}

// checkDevice refuses that a request makes a port one of the cloud's own, takes such a port
// away or binds it: only what it belongs to does.
func checkDevice(tx *store.Tx, p *model.Port, spec PortSpec) error {
	owner, device := p.DeviceOwner, p.DeviceID
	set(&owner, spec.DeviceOwner)
	set(&device, spec.DeviceID)
	if spec.Host != nil && *spec.Host != "" && cloudPort(tx, p) { // it is on every host, and wired on none
		return fault.Coded(fault.Conflict, "PortInUse", "Unable to complete operation on port %s for network %s. Port already has an attached device %s.", p.ID, p.NetworkID, p.DeviceID)
	}
	if owner == p.DeviceOwner && device == p.DeviceID {
		return nil
	}
	if p.ParentID != "" {
		return inTrunk(p)
	}
	if cloudPort(tx, p) {
		return fault.Coded(fault.Conflict, "PortInUse", "Unable to complete operation on port %s for network %s. Port already has an attached device %s.", p.ID, p.NetworkID, p.DeviceID)
	}
	if namesCloud(tx, owner, device) {
		return fault.Coded(fault.Conflict, "DeviceIDNotOwnedByTenant", "The following device_id %s is not owned by your tenant or matches another tenants router.", clip(device))
	}
	return nil
}

func (n *Network) applyPort(tx *store.Tx, sc Scope, w *model.Network, p *model.Port, spec PortSpec) error {
	for field, s := range map[string]*string{"name": spec.Name, "description": spec.Description, "device_id": spec.DeviceID, "device_owner": spec.DeviceOwner} {
		if err := checkText(field, s); err != nil {
			return err
		}
	}
	// On a network of another project a port takes what it is given: who chose its MAC, its
	// address or left out the checks could take the place of others there.
	if !sc.Owns(w.ProjectID) {
		switch {
		case spec.MAC != nil:
			return forbidden("mac_address")
		case spec.FixedIPs != nil && slices.ContainsFunc(*spec.FixedIPs, func(a AddressSpec) bool {
			return a.Address.IsValid() && !slices.ContainsFunc(p.FixedIPs, func(f model.FixedIP) bool { return f.Address == a.Address })
		}):
			return forbidden("fixed_ips:ip_address")
		case spec.PortSecurity != nil && *spec.PortSecurity != p.PortSecurity:
			return forbidden("port_security_enabled")
		case spec.Pairs != nil && len(*spec.Pairs) > 0:
			return forbidden("allowed_address_pairs")
		case spec.DeviceOwner != nil && routerOwned(*spec.DeviceOwner):
			return forbidden("device_owner")
		}
	}
	if err := checkDevice(tx, p, spec); err != nil {
		return err
	}
	set(&p.Name, spec.Name)
	set(&p.Description, spec.Description)
	set(&p.AdminStateUp, spec.AdminStateUp)
	set(&p.PortSecurity, spec.PortSecurity)
	set(&p.DeviceID, spec.DeviceID)
	set(&p.DeviceOwner, spec.DeviceOwner)
	if spec.MAC != nil && *spec.MAC != p.MAC {
		if p.Host != "" {
			return fault.Coded(fault.Conflict, "PortBound", "Unable to complete operation on port %s, port is already bound; unbind it before its MAC address changes.", p.ID)
		}
		if *spec.MAC == "" {
			p.MAC = ""
		} else {
			mac, ok := ParseMAC(*spec.MAC)
			if !ok {
				return fault.Coded(fault.Invalid, "HTTPBadRequest", "Invalid input for mac_address. Reason: '%s' is not a valid MAC address.", clip(*spec.MAC))
			}
			if holder, held := store.Ports.Holder(tx, macClaim(w.ID, mac)); held && holder != p.ID {
				return macInUse(w.ID, mac)
			}
			p.MAC = mac
		}
	}
	if spec.VNICType != nil && *spec.VNICType != "normal" {
		if !slices.Contains(vnicTypes(), *spec.VNICType) {
			return fault.Coded(fault.Invalid, "HTTPBadRequest", "Invalid input for binding:vnic_type. Reason: '%s' is not in %q.", clip(*spec.VNICType), vnicTypes())
		}
		return fault.Coded(fault.NotImplemented, "HTTPNotImplemented", "Ports with the vnic_type '%s' are not offered; the only one is normal.", clip(*spec.VNICType))
	}
	if spec.DNSName != nil {
		name := strings.ToLower(*spec.DNSName)
		if domain := strings.ToLower(strings.TrimSuffix(w.DNSDomain, ".")); domain != "" && strings.HasSuffix(name, ".") {
			if short := strings.TrimSuffix(name, "."+domain+"."); short != "" {
				name = short // a full name in the network's domain
			}
		}
		if name != "" && !label.MatchString(name) {
			return fault.Coded(fault.Invalid, "HTTPBadRequest", "Invalid input for dns_name. Reason: '%s' is not a valid host name, or no name in the network's domain.", clip(*spec.DNSName))
		}
		p.DNSName = name
	}
	if spec.Groups != nil {
		groups, err := n.portGroups(tx, sc, p.ProjectID, *spec.Groups)
		if err != nil {
			return err
		}
		p.Groups = groups
	}
	if spec.Pairs != nil {
		pairs, err := checkPairs(p, *spec.Pairs)
		if err != nil {
			return err
		}
		p.Pairs = pairs
	}
	if !p.PortSecurity {
		switch {
		case len(p.Groups) > 0 && spec.Groups != nil:
			return fault.Coded(fault.Invalid, "PortSecurityAndIPRequiredForSecurityGroups", "Port security must be enabled and port must have an IP address in order to use security groups.")
		case len(p.Groups) > 0:
			return fault.Coded(fault.Conflict, "PortSecurityPortHasSecurityGroup", "Port has security group associated. Cannot disable port security or IP address until security group is removed.")
		case len(p.Pairs) > 0:
			return fault.Coded(fault.Conflict, "AddressPairAndPortSecurityRequired", "Port Security must be enabled in order to have allowed address pairs on a port.")
		}
	}
	if spec.DHCPOptions != nil {
		opts, err := mergeOptions(p.DHCPOptions, *spec.DHCPOptions)
		if err != nil {
			return err
		}
		p.DHCPOptions = opts
	}
	if spec.Profile != nil {
		p.Profile = *spec.Profile
	}
	if err := n.useQoS(tx, sc, &p.QoSPolicyID, spec.QoSPolicyID); err != nil {
		return err
	}
	if spec.Host != nil {
		host := ""
		if *spec.Host != "" {
			id, ok := store.Hosts.Holder(tx, *spec.Host) // hosts claim their names
			if !ok {
				return invalid("there is no host '%s'.", clip(*spec.Host))
			}
			host = id
		}
		if host != p.Host {
			if p.ParentID != "" { // it is where its parent is
				return bindingError(p.ID, p.TrunkID)
			}
			n.bind(p, host)
		}
	}
	return nil
}

// portGroups checks the groups of a port: those of its project or shared with it, all
// stateful or all stateless, once each.
func (n *Network) portGroups(tx *store.Tx, sc Scope, project model.ID, ids []string) ([]model.ID, error) {
	if len(ids) > MaxPortGroups {
		return nil, invalid("a port has at most %d security groups.", MaxPortGroups)
	}
	out := make([]model.ID, 0, len(ids))
	stateful := false
	for _, id := range ids {
		g, err := n.GetGroup(tx, sc, id)
		if err != nil {
			return nil, err
		}
		if !sc.Admin && g.ProjectID != project && !g.With(project) {
			return nil, fault.Coded(fault.NotFound, "SecurityGroupNotFound", "Security group %s does not exist", id)
		}
		if len(out) > 0 && g.Stateful != stateful {
			return nil, fault.Coded(fault.Conflict, "SecurityGroupConflict", "Error cannot apply both stateful and stateless security groups on the same port at the same time while attempting the operation.")
		}
		stateful = g.Stateful
		if !slices.Contains(out, g.ID) {
			out = append(out, g.ID)
		}
	}
	return out, nil
}

func checkPairs(p *model.Port, pairs []model.AddressPair) ([]model.AddressPair, error) {
	if len(pairs) > MaxAddressPairs {
		return nil, fault.Coded(fault.Invalid, "AllowedAddressPairExhausted", "The number of allowed address pair exceeds the maximum %d.", MaxAddressPairs)
	}
	out := make([]model.AddressPair, 0, len(pairs))
	for _, x := range pairs {
		if !x.Prefix.IsValid() {
			return nil, fault.Coded(fault.Invalid, "AddressPairMissingIP", "AllowedAddressPair must contain ip_address")
		}
		if x.MAC != "" {
			mac, ok := ParseMAC(x.MAC)
			if !ok {
				return nil, fault.Coded(fault.Invalid, "HTTPBadRequest", "Invalid input for allowed_address_pairs. Reason: '%s' is not a valid MAC address.", clip(x.MAC))
			}
			x.MAC = mac
		}
		if x.Prefix.Masked() != x.Prefix {
			return nil, fault.Coded(fault.Invalid, "HTTPBadRequest", "Invalid input for allowed_address_pairs. Reason: '%s' isn't a recognized IP subnet cidr, '%s' is recommended.", x.Prefix, x.Prefix.Masked())
		}
		if slices.Contains(out, x) {
			return nil, fault.Coded(fault.Invalid, "DuplicateAddressPairInRequest", "Request contains duplicate address pair: mac_address %s ip_address %s.", x.MAC, x.Prefix)
		}
		out = append(out, x)
	}
	return out, nil
}

// mergeOptions lays changes over the options that a port has: by name and version.
func mergeOptions(have []model.DHCPOption, changes []DHCPOptionSpec) ([]model.DHCPOption, error) {
	out := slices.Clone(have)
	for _, c := range changes {
		if c.Name == "" || len(c.Name) > 64 || c.Value != nil && (*c.Value == "" || len(*c.Value) > 255) {
			return nil, fault.Coded(fault.Invalid, "HTTPBadRequest", "Invalid input for extra_dhcp_opts. Reason: an option has a name of 1 to 64 and a value of 1 to 255 characters.")
		}
		if c.IPVersion == 0 {
			c.IPVersion = 4
		}
		if c.IPVersion != 4 && c.IPVersion != 6 {
			return nil, fault.Coded(fault.Invalid, "HTTPBadRequest", "Invalid input for extra_dhcp_opts. Reason: ip_version is neither 4 nor 6.")
		}
		i := slices.IndexFunc(out, func(o model.DHCPOption) bool { return o.Name == c.Name && o.IPVersion == c.IPVersion })
		switch {
		case c.Value == nil && i >= 0:
			out = slices.Delete(out, i, i+1)
		case c.Value == nil:
		case i >= 0:
			out[i].Value = *c.Value
		default:
			out = append(out, model.DHCPOption{Name: c.Name, Value: *c.Value, IPVersion: c.IPVersion})
		}
	}
	if len(out) > MaxDHCPOptions {
		return nil, invalid("a port has at most %d extra DHCP options.", MaxDHCPOptions)
	}
	return out, nil
}
