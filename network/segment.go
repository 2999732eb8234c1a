package network

import (
	"slices"

	"yakumo/fault"
	"yakumo/model"
	"yakumo/store"
)

// NetworkSpec is what a request says of a network; nil: it does not say.
type NetworkSpec struct {
	ProjectID    *string
	Name         *string
	Description  *string
	AdminStateUp *bool
	Shared       *bool
	External     *bool
	PortSecurity *bool
	MTU          *int // bytes, MinMTU to what the network's type can carry
	DNSDomain    *string
	IsDefault    *bool // of an external network: the one for projects that choose none
	ZoneHints    *[]string
	QoSPolicyID  *string // "": none; nil on creation: the project's default policy
	// VLANTransparent: guests' VLAN tags are carried; of a new network.
	VLANTransparent *bool
	// Administrators may choose the segment of a new network.
	Type            *string
	PhysicalNetwork *string
	Segmentation    *int // VLAN or tunnel identifier
}

// CreateNetwork makes a network with a number of its own, and a segment: the one asked for,
// else a tunnel of the default type.
//
// Errors: fault.Invalid (MTU, segment, code VlanTransparencyDriverError), fault.Forbidden
// (another project), fault.Conflict (codes TunnelIdInUse, VlanIdInUse, FlatNetworkInUse),
// fault.OverQuota, fault.Unavailable code NoNetworkAvailable, fault.NotImplemented (what is
// not offered yet).
func (n *Network) CreateNetwork(tx *store.Tx, sc Scope, spec NetworkSpec) (*model.Network, error) {
	project, err := sc.project(spec.ProjectID)
	if err != nil {
		return nil, err
	}
	if err := n.spend(tx, project, QuotaNetwork, 1); err != nil {
		return nil, err
	}
	w := &model.Network{Meta: model.NewMeta(project, "", n.now()), AdminStateUp: true, PortSecurity: true}
	if err := n.segment(tx, w, spec); err != nil {
		return nil, err
	}
	w.MTU = n.maxMTU(tx, w)
	if spec.QoSPolicyID == nil {
		defaultQoS(tx, w)
	}
	if err := n.applyNetwork(tx, sc, w, spec); err != nil {
		return nil, err
	}
	if err := n.openNetwork(tx, nil, w); err != nil {
		return nil, err
	}
	if err := store.Networks.Put(tx, w); err != nil {
		return nil, err
	}
	return w, nil
}

// UpdateNetwork changes what the spec names; the scope must own the network.
func (n *Network) UpdateNetwork(tx *store.Tx, sc Scope, id model.ID, spec NetworkSpec) (*model.Network, error) {
	old, err := n.GetNetwork(tx, sc, id)
	if err != nil {
		return nil, err
	}
	if !sc.Owns(old.ProjectID) {
		return nil, forbidden("another project's network")
	}
	if err := sameSegment(old, spec); err != nil {
		return nil, err
	}
	w := *old
	if err := n.applyNetwork(tx, sc, &w, spec); err != nil {
		return nil, err
	}
	if err := n.openNetwork(tx, old, &w); err != nil {
		return nil, err
	}
	w.Touch(n.now())
	if w.QoSPolicyID == old.QoSPolicyID || !promises(tx, w.QoSPolicyID) {
		return &w, store.Networks.Put(tx, &w)
	}
	before := store.Promises(tx)
	if err := store.Networks.Put(tx, &w); err != nil {
		return nil, err
	}
	return &w, heed(tx, before)
}

func (n *Network) applyNetwork(tx *store.Tx, sc Scope, w *model.Network, spec NetworkSpec) error {
	if err := checkText("name", spec.Name); err != nil {
		return err
	}
	if err := checkText("description", spec.Description); err != nil {
		return err
	}
	if spec.External != nil && !*spec.External && w.External {
		if err := leaveOutside(tx, w); err != nil {
			return err
		}
	}
	if spec.MTU != nil && *spec.MTU != 0 { // 0 asks for the default, as in Neutron
		most := n.maxMTU(tx, w)
		if *spec.MTU < MinMTU || *spec.MTU > most {
			return invalid("Requested MTU is too big or too small: %d is outside %d to %d bytes.", *spec.MTU, MinMTU, most)
		}
		w.MTU = *spec.MTU
	}
	if spec.DNSDomain != nil {
		if *spec.DNSDomain != "" && !validDomain(*spec.DNSDomain) {
			return fault.Coded(fault.Invalid, "HTTPBadRequest", "Invalid input for dns_domain. Reason: '%s' is not a valid domain name.", clip(*spec.DNSDomain))
		}
		w.DNSDomain = *spec.DNSDomain
	}
	if spec.ZoneHints != nil {
		zones := Zones(tx)
		for _, z := range *spec.ZoneHints {
			if _, ok := zones[z]; !ok {
				return fault.Coded(fault.NotFound, "AvailabilityZoneNotFound", "AvailabilityZone %s could not be found.", clip(z))
			}
		}
		w.AvailabilityZone = *spec.ZoneHints
	}
	set(&w.Name, spec.Name)
	set(&w.Description, spec.Description)
	set(&w.AdminStateUp, spec.AdminStateUp)
	set(&w.Shared, spec.Shared)
	set(&w.External, spec.External)
	set(&w.IsDefault, spec.IsDefault)
	if holder, held := store.Networks.Holder(tx, store.DefaultNetworkClaim); held && holder != w.ID && w.External && w.IsDefault {
		return fault.Coded(fault.Conflict, "DefaultExternalNetworkExists", "A default external network already exists: %s.", holder)
	}
	set(&w.PortSecurity, spec.PortSecurity)
	return n.useQoS(tx, sc, &w.QoSPolicyID, spec.QoSPolicyID)
}

// leaveOutside refuses that a network stops being external while something leads there.
func leaveOutside(tx *store.Tx, w *model.Network) error {
	tx.Guard(networkMark(w.ID)) // a gateway and a floating IP mark it with their ports
	inUse := false
	for range store.Routers.List(tx, "network", w.ID) {
		inUse = true
	}
	for range store.FloatingIPs.List(tx, "network", w.ID) {
		inUse = true
	}
	if inUse {
		return fault.Coded(fault.Conflict, "ExternalNetworkInUse", "External network %s cannot be updated to be made non-external, since it has existing gateway ports.", w.ID)
	}
	return nil
}

// DeleteNetwork removes a network without ports, and its subnets.
//
// Errors: fault.NotFound, fault.Forbidden, fault.Conflict code NetworkInUse.
func (n *Network) DeleteNetwork(tx *store.Tx, sc Scope, id model.ID) error {
	w, err := n.GetNetwork(tx, sc, id)
	if err != nil {
		return err
	}
	if !sc.Owns(w.ProjectID) {
		return forbidden("another project's network")
	}
	tx.Guard(networkMark(id))
	for range store.Ports.List(tx, "network", id) {
		return fault.Coded(fault.Conflict, "NetworkInUse", "Unable to complete operation on network %s. There are one or more ports still in use on the network.", id)
	}
	for _, s := range slices.Collect(store.Subnets.List(tx, "network", id)) {
		if err := store.Subnets.Delete(tx, s.ID); err != nil {
			return err
		}
		tx.Unmark(subnetMark(s.ID))
	}
	if err := unshare(tx, id); err != nil {
		return err
	}
	tx.Unmark(networkMark(id))
	return store.Networks.Delete(tx, id)
}

// Zones gives the availability zones of all hosts.
func Zones(r store.Reader) map[string]struct{} {
	out := map[string]struct{}{}
	for h := range store.Hosts.All(r) {
		if h.Zone != "" {
			out[h.Zone] = struct{}{}
		}
	}
	return out
}

// validDomain tells whether s is a domain name (RFC 1123 labels), with or without a final dot.
func validDomain(s string) bool {
	if len(s) > 254 {
		return false
	}
	if s[len(s)-1] == '.' {
		s = s[:len(s)-1]
	}
	label := 0
	for i := 0; i <= len(s); i++ {
		if i == len(s) || s[i] == '.' {
			if label == 0 || label > 63 || s[i-1] == '-' {
				return false
			}
			label = 0
			continue
		}
		c := s[i]
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
		case c == '-' && label > 0:
		default:
			return false
		}
		label++
	}
	return true
}
