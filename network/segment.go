package network

import (
	"math/rand/v2"
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
	MTU          *int // bytes, MinMTU to what the underlay carries
	DNSDomain    *string
	ZoneHints    *[]string
	// Administrators may choose the segment.
	Type            *string
	PhysicalNetwork *string
	VNI             *int
}

// CreateNetwork makes a network with a tunnel identifier of its own.
//
// Errors: fault.Invalid (MTU, segment), fault.Forbidden (another project), fault.Conflict
// code TunnelIdInUse, fault.OverQuota, fault.NotImplemented (what is not offered yet).
func (n *Network) CreateNetwork(tx *store.Tx, sc Scope, spec NetworkSpec) (*model.Network, error) {
	project, err := sc.project(spec.ProjectID)
	if err != nil {
		return nil, err
	}
	if err := n.spend(tx, project, QuotaNetwork, 1); err != nil {
		return nil, err
	}
	w := &model.Network{
		Meta: model.NewMeta(project, "", n.now()), AdminStateUp: true, PortSecurity: true,
		Type: model.NetworkVXLAN, MTU: n.mtu(tx),
	}
	if spec.Type != nil && *spec.Type != model.NetworkVXLAN {
		return nil, fault.Coded(fault.NotImplemented, "HTTPNotImplemented", "Networks of the type '%s' are not offered; the only type is vxlan.", clip(*spec.Type))
	}
	if spec.PhysicalNetwork != nil && *spec.PhysicalNetwork != "" {
		return nil, invalid("provider:physical_network specified for vxlan network.")
	}
	if err := n.applyNetwork(tx, w, spec); err != nil {
		return nil, err
	}
	if spec.VNI != nil {
		if *spec.VNI < model.MinVNI || *spec.VNI > model.MaxVNI {
			return nil, invalid("segmentation_id %d is outside %d to %d.", *spec.VNI, model.MinVNI, model.MaxVNI)
		}
		w.VNI = uint32(*spec.VNI)
		if vniHeld(tx, w.VNI) {
			return nil, fault.Coded(fault.Conflict, "TunnelIdInUse", "Unable to create the network. The tunnel ID %d is in use.", w.VNI)
		}
	} else if w.VNI, err = n.pickVNI(tx); err != nil {
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
	if spec.Type != nil || spec.PhysicalNetwork != nil || spec.VNI != nil {
		return nil, invalid("the segment of a network cannot be changed.")
	}
	w := *old
	if err := n.applyNetwork(tx, &w, spec); err != nil {
		return nil, err
	}
	if old.Shared && !w.Shared {
		for p := range store.Ports.List(tx, "network", id) {
			if p.ProjectID != old.ProjectID {
				return nil, fault.Coded(fault.Conflict, "InvalidSharedSetting", "Unable to reconfigure sharing settings for network %s. Multiple tenants are using it.", old.Name)
			}
		}
		tx.Guard(networkMark(id))
	}
	w.Touch(n.now())
	if err := store.Networks.Put(tx, &w); err != nil {
		return nil, err
	}
	return &w, nil
}

func (n *Network) applyNetwork(tx *store.Tx, w *model.Network, spec NetworkSpec) error {
	if err := checkText("name", spec.Name); err != nil {
		return err
	}
	if err := checkText("description", spec.Description); err != nil {
		return err
	}
	if spec.External != nil && *spec.External {
		return fault.Coded(fault.NotImplemented, "HTTPNotImplemented", "External networks are not offered yet.")
	}
	if spec.MTU != nil && *spec.MTU != 0 { // 0 asks for the default, as in Neutron
		most := n.mtu(tx)
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
	set(&w.PortSecurity, spec.PortSecurity)
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

// vniProbes is how many identifiers are tried at random before all are listed: with half
// of the range in use, one in 65,536 picks needs the list.
const vniProbes = 16

// vniHeld tells whether a network or a router has the tunnel identifier. Both claims are
// compared at commit, so that the two tables cannot take it at once.
func vniHeld(tx *store.Tx, vni uint32) bool {
	_, network := store.Networks.Holder(tx, store.VNIClaim(vni))
	_, router := store.Routers.Holder(tx, store.VNIClaim(vni))
	return network || router
}

// pickVNI finds a free tunnel identifier.
func (n *Network) pickVNI(tx *store.Tx) (uint32, error) {
	span := n.maxVNI - n.minVNI + 1
	for range vniProbes {
		vni := n.minVNI + rand.Uint32N(span)
		if !vniHeld(tx, vni) {
			return vni, nil
		}
	}
	used := make(map[uint32]struct{})
	for w := range store.Networks.All(tx) {
		used[w.VNI] = struct{}{}
	}
	for r := range store.Routers.All(tx) {
		used[r.VNI] = struct{}{}
	}
	n.log.Warn("tunnel identifiers are running out", "used", len(used), "of", span)
	start := rand.Uint32N(span)
	for i := range span {
		vni := n.minVNI + (start+i)%span
		if _, held := used[vni]; !held && !vniHeld(tx, vni) { // the claims are compared at commit
			return vni, nil
		}
	}
	return 0, fault.Coded(fault.Unavailable, "NoNetworkAvailable", "Unable to create the network. No tenant network is available for allocation.")
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
